//! One life of a ledger on a real disk.

use std::fs;

use ascribe_core::entry::{Entry, Status};
use ascribe_core::record::Standing;

use super::*;
use crate::{Reader, Source, export_tlog};

fn ready() -> (World, Ledger, SessionId) {
    let mut world = World::new();
    world.init();
    let ledger = world.open().unwrap();
    world.furnish(&ledger);
    let session = world.session(&ledger);
    (world, ledger, session)
}

#[test]
fn receipts_prove_and_openings_come_back() {
    let (world, ledger, session) = ready();
    let intent = world.intent(session, "id -u");
    let receipt = record(&ledger, intent.clone()).unwrap();
    let checkpoint = check(&ledger, &receipt);
    assert_eq!(checkpoint.origin, ORIGIN);
    assert_eq!(ledger.openings(receipt.index).unwrap(), intent.openings);
    assert_eq!(
        ledger.entries(receipt.index..receipt.index + 1).unwrap(),
        std::slice::from_ref(&receipt.entry)
    );
    assert_eq!(
        ledger.entries(0..u64::MAX).unwrap().len() as u64,
        checkpoint.size
    );
    assert_eq!(ledger.openings(0).unwrap()[0].bytes.0, b"Ada");
    assert!(matches!(ledger.standing(session), Standing::Until(_)));
    let bytes = fs::read(world.segment()).unwrap();
    assert!(
        !bytes.windows(5).any(|w| w == b"id -u"),
        "sealed content lies in the clear"
    );
}

#[test]
fn the_same_id_gets_the_same_entry_also_after_a_restart() {
    let (world, ledger, session) = ready();
    let intent = world.intent(session, "id");
    let first = record(&ledger, intent.clone()).unwrap();
    let again = record(&ledger, intent.clone()).unwrap();
    assert_eq!((first.index, &first.entry), (again.index, &again.entry));
    let mut other = world.intent(session, "ls");
    other.id = intent.id;
    assert!(matches!(record(&ledger, other), Err(RecordError::Denied(d)) if d.code == "duplicate"));
    drop(ledger);
    let ledger = world.open().unwrap();
    let again = record(&ledger, intent).unwrap();
    check(&ledger, &again);
    assert_eq!((first.index, &first.entry), (again.index, &again.entry));
}

#[test]
fn what_was_open_is_ended_at_the_next_start() {
    let (world, ledger, session) = ready();
    record(&ledger, world.intent(session, "sleep 9")).unwrap();
    drop(ledger);
    let ledger = world.open().unwrap();
    assert!(ledger.with_state(|s| s.open_actions().is_empty() && s.open_sessions().is_empty()));
    let bodies: Vec<Body> = ledger
        .entries(0..u64::MAX)
        .unwrap()
        .iter()
        .map(|bytes| Entry::from_bytes(bytes).unwrap().body)
        .collect();
    assert!(
        bodies
            .iter()
            .any(|b| matches!(b, Body::Outcome(o) if o.status == Status::Unknown))
    );
    assert!(bodies.iter().any(
        |b| matches!(b, Body::SessionClose(c) if c.reason == CloseReason::Interrupted && c.actions == 1)
    ));
    assert!(
        matches!(bodies.last(), Some(Body::Head(_))),
        "the server signs its chain"
    );
}

/// An intent that nobody waited for may land right before its session's close.
#[test]
fn an_open_action_of_a_closed_session_does_not_stop_the_start() {
    let (world, ledger, session) = ready();
    record(&ledger, world.intent(session, "sleep 9")).unwrap();
    record(&ledger, world.close(session)).unwrap();
    drop(ledger);
    for _ in 0..2 {
        let ledger = world.open().unwrap();
        let other = world.session(&ledger);
        record(&ledger, world.intent(other, "true")).unwrap();
        assert_eq!(ledger.with_state(|s| s.open_sessions()), [other]);
    }
}

#[test]
fn many_at_once_share_commits() {
    let (world, ledger, session) = ready();
    let before = ledger.with_state(|s| s.size);
    block_on(async {
        let waiting: Vec<_> = (0..500)
            .map(|n| ledger.record(world.intent(session, &format!("echo {n}"))))
            .collect();
        let mut indices = std::collections::BTreeSet::new();
        let mut pending = Vec::new();
        for future in waiting {
            pending.push(future);
        }
        for receipt in join_all(pending).await {
            let receipt = receipt.unwrap();
            check(&ledger, &receipt);
            assert!(indices.insert(receipt.index));
        }
    });
    let (size, batches) = (
        ledger.with_state(|s| s.size),
        ledger.shared().read().loaded.places.len(),
    );
    assert!(size >= before + 500);
    assert!(batches < 300, "{batches} batches");
}

#[test]
fn what_is_proposed_together_shares_a_sync_and_is_answered_in_its_place() {
    let (world, ledger, session) = ready();
    let batches = || ledger.shared().read().loaded.places.len();
    let before = batches();
    let known = world.intent(session, "whoami");
    let mut wrong = world.intent(session, "id");
    wrong.openings = vec![Opening::new("command", [9; 32], b"ls".to_vec())];
    let first = world.intent(session, "uptime");
    let last = world.outcome(&first);
    let together = vec![first.clone(), known.clone(), wrong, last, known.clone()];
    let answers = block_on(ledger.record_all(together));
    assert_eq!(batches(), before + 1);
    let [
        Ok(one),
        Ok(two),
        Err(RecordError::Denied(denied)),
        Ok(three),
        Ok(again),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!((two.index, three.index), (one.index + 1, one.index + 2));
    assert_eq!((denied.code, again), ("openings", two));
    let ids = [one, two, three].map(|receipt| {
        check(&ledger, receipt);
        ascribe_core::entry::Entry::from_bytes(&receipt.entry)
            .unwrap()
            .id
    });
    assert_eq!(ids[..2], [first.id, known.id]);
    assert!(block_on(ledger.record_all(Vec::new())).is_empty());
}

#[test]
fn what_is_settled_together_is_durable_and_a_refusal_among_it_is_told() {
    let (world, ledger, session) = ready();
    let intents: Vec<_> = (0..3000)
        .map(|n| world.intent(session, &n.to_string()))
        .collect();
    let outcomes: Vec<_> = intents.iter().map(|intent| world.outcome(intent)).collect();
    // More than wait at once, and more than a batch holds.
    block_on(ledger.settle_all(intents)).unwrap();
    let size = ledger.with_state(|s| s.size);
    block_on(ledger.settle_all(outcomes.clone())).unwrap();
    assert!(ledger.with_state(|s| s.size) >= size + 3000);
    for outcome in &outcomes {
        assert!(ledger.with_state(|s| s.index_of(&outcome.id)).is_some());
    }
    let intent = world.intent(session, "id");
    let without = world.outcome(&intent);
    let refused = block_on(ledger.settle_all(vec![without, intent.clone()]));
    assert!(matches!(refused, Err(RecordError::Denied(d)) if d.code == "no-action"));
    assert!(ledger.with_state(|s| s.index_of(&intent.id)).is_some());
    // The same id with something else in it.
    let other = Proposal {
        id: intent.id,
        ..world.intent(session, "ls")
    };
    let refused = block_on(ledger.settle_all(vec![other]));
    assert!(matches!(refused, Err(RecordError::Denied(d)) if d.code == "duplicate"));
}

#[test]
fn a_denied_proposal_changes_nothing() {
    let (world, ledger, session) = ready();
    let size = ledger.with_state(|s| s.size);
    let mut wrong = world.intent(session, "id");
    wrong.openings = vec![Opening::new("command", [9; 32], b"ls".to_vec())];
    assert!(matches!(record(&ledger, wrong), Err(RecordError::Denied(d)) if d.code == "openings"));
    assert_eq!(ledger.with_state(|s| s.size), size);
    record(&ledger, world.intent(session, "id")).unwrap();
}

#[test]
fn one_writer_per_directory() {
    let (world, ledger, _) = ready();
    let error = world.open().unwrap_err();
    assert!(matches!(error, LedgerError::Locked(_)), "{error}");
    drop(ledger);
    world.open().unwrap();
}

#[test]
fn a_used_directory_is_not_made_anew() {
    let world = World::new();
    world.init();
    let error = Ledger::init(&world.dir(), &world.options(), &world.drivers).unwrap_err();
    assert!(matches!(error, LedgerError::NotEmpty(_)), "{error}");
}

#[test]
fn keys_outside_must_be_outside() {
    let world = World::new();
    let mut options = world.options();
    options.wrap_key = world.dir().join("wrap.key");
    let error = Ledger::init(&world.dir(), &options, &world.drivers).unwrap_err();
    assert!(
        error.to_string().contains("outside the data directory"),
        "{error}"
    );
}

#[test]
fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    world.init();
    for path in [
        "wrap.key",
        "data/keys/log.seed",
        "data/keys/server.seed",
        "data/config.json",
        "data/segments/00000000.seg",
    ] {
        let mode = fs::metadata(world.tmp.path().join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
}

#[test]
fn rollback_is_refused() {
    let (world, ledger, session) = ready();
    drop(ledger);
    copy_dir(&world.dir(), &world.tmp.path().join("old"));
    let ledger = world.open().unwrap();
    record(&ledger, world.close(session)).unwrap_err();
    drop(ledger);
    fs::remove_dir_all(world.dir()).unwrap();
    copy_dir(&world.tmp.path().join("old"), &world.dir());
    let error = world.open().unwrap_err();
    assert!(matches!(error, LedgerError::Rollback { .. }), "{error}");
    assert!(error.to_string().starts_with("rollback: "));
    fs::remove_file(world.head()).unwrap();
    world.open().unwrap();
}

#[test]
fn a_flipped_byte_is_refused_naming_file_and_offset() {
    let (world, ledger, _) = ready();
    drop(ledger);
    let bytes = fs::read(world.segment()).unwrap();
    for at in [3, 700, 1200, 512 + 508] {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        fs::write(world.segment(), &changed).unwrap();
        let error = world.open().unwrap_err();
        let LedgerError::Damaged { path, offset, .. } = &error else {
            panic!("{error}")
        };
        assert!(path.ends_with("00000000.seg"));
        assert_eq!(*offset, at as u64 / 512 * 512, "{error}");
        assert!(Reader::open(&world.dir()).is_err());
        assert_eq!(
            fs::read(world.segment()).unwrap(),
            changed,
            "nothing was changed"
        );
    }
    fs::write(world.segment(), &bytes).unwrap();
    world.open().unwrap();
}

#[test]
fn rewritten_entries_with_good_checksums_are_refused() {
    let (world, ledger, session) = ready();
    record(&ledger, world.intent(session, "id")).unwrap();
    drop(ledger);
    let bytes = fs::read(world.segment()).unwrap();
    let scan = ascribe_core::segment::scan(&bytes);
    let batch = scan.batches.last().unwrap();
    let mut records = batch.records.clone();
    if let Some(ascribe_core::segment::Record::Entry(entry)) = records.first_mut() {
        let at = entry.windows(2).position(|w| w == b"e-").unwrap();
        entry[at + 10] = if entry[at + 10] == b'0' { b'1' } else { b'0' };
    }
    let forged =
        ascribe_core::segment::encode_batch(0, batch.block, batch.number, &records, &batch.commit)
            .unwrap();
    let mut changed = bytes;
    let start = batch.block as usize * 512;
    changed[start..start + forged.len()].copy_from_slice(&forged);
    fs::write(world.segment(), &changed).unwrap();
    assert!(matches!(
        world.open().unwrap_err(),
        LedgerError::Damaged { .. }
    ));
    let error = Reader::open(&world.dir()).unwrap_err().to_string();
    assert!(error.contains("signed root"), "{error}");
}

#[test]
fn a_wrong_clock_stops_intents_and_nothing_else() {
    let (world, ledger, session) = ready();
    let intent = world.intent(session, "id");
    record(&ledger, intent.clone()).unwrap();
    for jump in [-10_000, 10_000] {
        world.clock.wall.fetch_add(jump, Ordering::SeqCst);
        let error = record(&ledger, world.intent(session, "ls")).unwrap_err();
        assert!(error.to_string().contains("clock"), "{error}");
        world.clock.wall.fetch_sub(jump, Ordering::SeqCst);
    }
    world.clock.wall.fetch_add(3_000, Ordering::SeqCst);
    let receipt = record(&ledger, world.outcome(&intent)).unwrap();
    let at = Entry::from_bytes(&receipt.entry).unwrap().at.millis();
    assert_eq!(at, START, "a wrong clock must not enter the log");
    record(&ledger, world.close(session)).unwrap();
}

#[test]
fn heads_are_signed_when_asked_and_when_due() {
    let (world, ledger, session) = ready();
    record(&ledger, world.intent(session, "id")).unwrap();
    let receipt = block_on(ledger.sign_head("gateway")).unwrap();
    check(&ledger, &receipt);
    assert!(block_on(ledger.sign_head("nobody")).is_err());
    record(&ledger, world.intent(session, "ls")).unwrap();
    let size = ledger.with_state(|s| s.size);
    world.clock.step(1000);
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        if ledger.with_state(|s| s.size) > size {
            return;
        }
    }
    panic!("the moved chain was not signed");
}

struct Never;

impl Judge for Never {
    fn sshsig(&self, _: &str, _: &[u8], _: &[u8]) -> Option<SshKey> {
        None
    }
}

#[test]
fn entries_against_the_law_are_refused_at_the_start() {
    let (world, ledger, _) = ready();
    drop(ledger);
    let drivers = Drivers {
        judge: Arc::new(Never),
        ..world.drivers.clone()
    };
    let error = Ledger::open(&world.dir(), &drivers).unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { .. }));
    assert!(
        error.to_string().contains("entry 1 breaks the law"),
        "{error}"
    );
}

#[test]
fn another_log_key_or_wrapping_key_is_refused() {
    let (world, ledger, _) = ready();
    drop(ledger);
    let seed = world.dir().join("keys/log.seed");
    let old = fs::read(&seed).unwrap();
    fs::write(&seed, [1; 32]).unwrap();
    let error = world.open().unwrap_err().to_string();
    assert!(
        error.contains("log.seed") && error.contains("not the key of this log"),
        "{error}"
    );
    fs::write(&seed, old).unwrap();
    fs::write(world.tmp.path().join("wrap.key"), [1; 32]).unwrap();
    let reader = Reader::open(&world.dir()).unwrap();
    assert!(
        reader
            .openings(0)
            .unwrap_err()
            .to_string()
            .contains("wrong key")
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    world.init();
    let path = world.tmp.path().join("wrap.key");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = world.open().unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn consistency_with_what_a_client_saw() {
    let (world, ledger, session) = ready();
    let old = record(&ledger, world.intent(session, "id")).unwrap();
    let old = check(&ledger, &old);
    for _ in 0..9 {
        record(&ledger, world.intent(session, "id")).unwrap();
    }
    let note = ledger.checkpoint_note();
    let new = Checkpoint::open(note.as_bytes(), &[ledger.log_key()]).unwrap();
    let proof = ledger.consistency_proof(old.size).unwrap();
    ascribe_tlog::verify_consistency(old.size, &old.root, new.size, &new.root, &proof).unwrap();
    assert!(ledger.head_is_current());
}

#[test]
fn segments_follow_each_other() {
    let (world, ledger, session) = ready();
    let mut receipts = Vec::new();
    for n in 0..60u8 {
        receipts.push(record(&ledger, world.intent_of(session, vec![n; 60_000])).unwrap());
    }
    drop(ledger);
    let segments = fs::read_dir(world.dir().join("segments")).unwrap().count();
    assert!(segments >= 3, "{segments}");
    let reader = Reader::open(&world.dir()).unwrap();
    for (receipt, n) in receipts.iter().zip(0u8..) {
        let entry = reader.entries(receipt.index..receipt.index + 1).unwrap();
        assert_eq!(entry, std::slice::from_ref(&receipt.entry));
        assert_eq!(
            reader.openings(receipt.index).unwrap()[0].bytes.0,
            vec![n; 60_000]
        );
    }
    drop(reader);
    fs::remove_file(world.segment()).unwrap();
    let error = world.open().unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn the_export_is_a_tile_tree() {
    let (world, ledger, session) = ready();
    for n in 0..300 {
        record(&ledger, world.intent(session, &format!("echo {n}"))).unwrap();
    }
    let to = world.tmp.path().join("tiles");
    export_tlog(Source::Ledger(&ledger), &to).unwrap();
    let note = fs::read(to.join("checkpoint")).unwrap();
    let checkpoint = Checkpoint::open(&note, &[ledger.log_key()]).unwrap();
    let width = checkpoint.size - 256;
    let full = fs::read(to.join("tile/entries/000")).unwrap();
    let rest = fs::read(to.join(format!("tile/entries/001.p/{width}"))).unwrap();
    let mut tree = ascribe_tlog::Tree::new();
    for bundle in [full, rest] {
        for entry in ascribe_tlog::decode_entry_bundle(&bundle).unwrap() {
            tree.push(hash(&entry).0);
        }
    }
    assert_eq!(tree.root(), checkpoint.root);
    assert_eq!(fs::read(to.join("tile/0/000")).unwrap().len(), 8192);
    assert_eq!(fs::read(to.join("tile/1/000.p/1")).unwrap().len(), 32);
    drop(ledger);
    let reader = Reader::open(&world.dir()).unwrap();
    export_tlog(Source::Reader(&reader), &to).unwrap();
}

#[test]
fn large_groups_find_their_next_segment() {
    let (world, ledger, session) = ready();
    for _ in 0..6 {
        block_on(async {
            let waiting =
                (0..1024).map(|n| ledger.record(world.intent(session, &format!("echo {n}"))));
            for receipt in join_all(waiting.collect()).await {
                receipt.unwrap();
            }
        });
    }
    assert!(fs::read_dir(world.dir().join("segments")).unwrap().count() >= 3);
}

#[test]
fn segments_of_64_kib_hold_what_fits_them() {
    let world = World::new();
    let options = InitOptions {
        segment_bytes: crate::MIN_SEGMENT,
        ..world.options()
    };
    Ledger::init(&world.dir(), &options, &world.drivers).unwrap();
    let mut world = world;
    let ledger = world.open().unwrap();
    world.furnish(&ledger);
    let session = world.session(&ledger);
    for n in 0..400 {
        block_on(async {
            let waiting =
                (0..n % 7).map(|_| ledger.record(world.intent_of(session, vec![b'x'; n * 10])));
            for receipt in join_all(waiting.collect()).await {
                receipt.unwrap();
            }
        });
    }
    let error = record(&ledger, world.intent_of(session, vec![b'x'; 50_000])).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    record(&ledger, world.close(session)).unwrap();
    let size = ledger.with_state(|s| s.size);
    drop(ledger);
    // Old ones are gone by then, so their numbers tell.
    let last = fs::read_dir(world.dir().join("segments")).unwrap();
    let last = last.map(|e| e.unwrap().file_name()).max().unwrap();
    assert!(last.to_str().unwrap() > "00000020.seg", "{last:?}");
    let ledger = world.open().unwrap();
    assert!(ledger.with_state(|s| s.size) >= size);
}

#[test]
fn the_head_copy_never_takes_the_wrapping_keys_place() {
    let world = World::new();
    let options = InitOptions {
        head: Some(world.tmp.path().join("wrap.key")),
        ..world.options()
    };
    let error = Ledger::init(&world.dir(), &options, &world.drivers).unwrap_err();
    assert!(error.to_string().contains("choose two places"), "{error}");
    assert!(!world.dir().exists() && !world.tmp.path().join("wrap.key").exists());
}
