//! Storage, operators and moments at their worst.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::archive::{fill, small};
use super::crash::{open_with, start_with, verify};
use super::disk::Fault;
use super::*;
use crate::config::Keys;
use crate::{LocalObjects, MIN_SEGMENT, Objects as _, Reader, snapshot};

fn within(seconds: u64, done: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    done()
}

/// After a sync failed, Linux shows pages that never reached the disk, and no later sync writes
/// them. A start that believes what it reads stands on nothing.
#[test]
fn what_a_start_found_survives_the_next_power_loss_after_a_failed_sync() {
    let (world, disk) = start_with(SEGMENT);
    let ledger = open_with(&world, &disk, SEGMENT).unwrap();
    let session = world.session(&ledger);
    disk.arm(1, Fault::SyncCached);
    record(&ledger, world.intent(session, "unsynced")).unwrap_err();
    drop(ledger);
    disk.restart();
    let ledger = open_with(&world, &disk, SEGMENT).unwrap();
    let session = world.session(&ledger);
    let good = record(&ledger, world.intent(session, "acknowledged")).unwrap();
    drop(ledger);
    disk.crash(1);
    let ledger = open_with(&world, &disk, SEGMENT).unwrap();
    verify(&ledger, &[good]);
}

/// A segment that could not be removed once must not make a gap.
#[test]
fn a_removal_that_fails_once_does_not_stop_the_next_start() {
    let (world, disk) = start_with(MIN_SEGMENT);
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    let session = world.session(&ledger);
    disk.0.lock().unwrap().removals_fail = 1;
    let mut receipts = Vec::new();
    for round in 1..20 {
        receipts.extend(fill(&world, &ledger, session, 90));
        within(1, || ledger.archived().0 > 256 * round / 2);
    }
    assert!(ledger.archived().0 > 512);
    drop(ledger);
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    verify(&ledger, &receipts);
}

/// The snapshot is the largest object. A disk too full for it is the one that needs segments gone.
#[test]
fn segments_are_removed_when_only_the_snapshot_cannot_be_written() {
    let (world, disk) = start_with(MIN_SEGMENT);
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    let session = world.session(&ledger);
    disk.0.lock().unwrap().refused = Some("snapshot");
    fill(&world, &ledger, session, 700);
    assert!(within(5, || ledger.archived().0 > 0));
}

/// Wrapped keys are the only part of a segment that is not read back before it is removed.
#[test]
fn a_segment_stays_until_its_keys_can_be_read_elsewhere() {
    let (world, disk) = start_with(MIN_SEGMENT);
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    disk.0.lock().unwrap().lost = Some(".keys");
    let session = world.session(&ledger);
    let mut receipts = Vec::new();
    for _ in 0..700 {
        let Ok(receipt) = record(&ledger, world.intent(session, "id")) else {
            break;
        };
        receipts.push(receipt);
    }
    within(3, || ledger.archived().0 > 0);
    drop(ledger);
    disk.0.lock().unwrap().lost = None;
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    verify(&ledger, &receipts);
}

/// Readers and the writer never wait for one another's disk, says `durable.rs`.
#[test]
fn a_slow_read_does_not_hold_up_recording() {
    let (world, disk) = start_with(SEGMENT);
    let ledger = open_with(&world, &disk, SEGMENT).unwrap();
    let session = world.session(&ledger);
    let first = record(&ledger, world.intent(session, "id")).unwrap();
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("slow reader".to_owned());
        let reader = reader
            .spawn_scoped(scope, || ledger.openings(first.index).unwrap())
            .unwrap();
        assert!(within(20, || disk.0.lock().unwrap().reading));
        // The read goes on until it is let go.
        let recorded = record(&ledger, world.intent(session, "id"));
        disk.0.lock().unwrap().let_go = true;
        recorded.unwrap();
        reader.join().unwrap();
        assert!(
            !disk.0.lock().unwrap().gave_up,
            "the record waited for the read"
        );
    });
}

/// The log's key signs a snapshot of the newest size: nothing compares it until a segment is full.
#[test]
fn a_lying_snapshot_of_the_newest_size_is_found_out_at_the_start() {
    let (world, ledger, session) = small();
    fill(&world, &ledger, session, 3);
    drop(ledger);
    let key = Keys::load(&world.dir(), ORIGIN).unwrap().log;
    let reader = Reader::open(&world.dir()).unwrap();
    let mut state = ascribe_core::law::State::new(ORIGIN);
    for entry in reader.entries(0..reader.size()).unwrap() {
        state.apply(&Naive, &entry).unwrap();
    }
    for person in state.people.values_mut() {
        person.roles.insert(Role::Auditor);
    }
    let state = state.to_snapshot().unwrap();
    let (leaves, root) = (reader.tree().leaves(), reader.tree().root());
    let bytes = snapshot::encode(&key, ORIGIN, leaves, &root, &state);
    drop(reader);
    fs::write(world.dir().join("snapshot"), bytes).unwrap();
    let ledger = world.open().unwrap();
    assert!(within(5, || ledger.failure().is_some()));
}

/// On a full disk half a file would keep what little room there is.
#[test]
fn an_object_that_cannot_be_put_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("snapshot/taken")).unwrap();
    let objects = LocalObjects::new(tmp.path());
    objects
        .put(&[("snapshot".to_owned(), vec![1; 4096])])
        .unwrap_err();
    assert!(!tmp.path().join("snapshot.tmp").exists());
}

#[test]
fn a_backup_into_the_data_directory_is_refused() {
    let (world, ledger, _) = small();
    drop(ledger);
    let to = world.dir().join("b");
    crate::backup(&world.dir(), &to, false).unwrap_err();
    assert!(!to.exists(), "something was left behind");
}

#[test]
fn a_backup_of_a_directory_with_a_moved_part_is_whole_or_refused() {
    let (world, ledger, _) = small();
    drop(ledger);
    let elsewhere = world.tmp.path().join("big-disk");
    fs::rename(world.dir().join("segments"), &elsewhere).unwrap();
    symlink(&elsewhere, world.dir().join("segments")).unwrap();
    drop(world.open().unwrap());
    let to = world.tmp.path().join("copy");
    if crate::backup(&world.dir(), &to, false).is_ok() {
        Reader::open(&to).unwrap();
    }
}

#[test]
fn a_wrapping_key_inside_the_data_directory_is_refused_however_it_is_spelled() {
    let world = World::new();
    fs::create_dir_all(world.tmp.path().join("other")).unwrap();
    fs::create_dir_all(world.dir()).unwrap();
    let options = InitOptions {
        wrap_key: world.tmp.path().join("other/../data/wrap.key"),
        ..world.options()
    };
    assert!(Ledger::init(&world.dir(), &options, &world.drivers).is_err());
}

struct Panics(AtomicU64);

impl Judge for Panics {
    fn sshsig(&self, _: &str, _: &[u8], sig: &[u8]) -> Option<SshKey> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) < 6, "a bug");
        String::from_utf8(sig.to_vec()).ok().map(SshKey)
    }
}

/// A sequencer that is gone must stop the process, as a failed sync does.
#[test]
fn a_panic_of_the_sequencer_is_a_failure() {
    let mut world = World::new();
    world.init();
    world.drivers.judge = Arc::new(Panics(AtomicU64::new(0)));
    let ledger = world.open().unwrap();
    world.furnish(&ledger);
    for _ in 0..9 {
        let why = Opening::new("emergency", [5; 32], b"the primary is down again".to_vec());
        let emergency = BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after: Timestamp::from_millis(world.clock.now_millis() + 3_500_000),
            emergency: Prose::of(&why),
            ticket: None,
        };
        let say = Say::BreakGlass(emergency);
        record(&ledger, world.statement(say, vec![why])).ok();
    }
    assert!(within(2, || ledger.failure().is_some()));
}

/// A segment's blocks have checksums; what is read from a pack is only bound by its encryption, and
/// what points nowhere is left out in silence.
#[test]
fn a_changed_pack_never_hides_sealed_content() {
    let (world, ledger, session) = small();
    let receipts = fill(&world, &ledger, session, 700);
    assert!(within(20, || ledger.archived().0 > 256));
    drop(ledger);
    let path = world.dir().join("evidence/00000000.pack");
    let good = fs::read(&path).unwrap();
    let mut silent = Vec::new();
    // The table and the first openings.
    for at in (ascribe_core::pack::HEAD..good.len() - 32)
        .step_by(37)
        .take(200)
    {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let Ok(reader) = Reader::open(&world.dir()) else {
            continue;
        };
        let hidden = |receipt: &&Receipt| {
            receipt.index < 100 && reader.openings(receipt.index).is_ok_and(|o| o.is_empty())
        };
        if receipts.iter().find(hidden).is_some() {
            silent.push(at);
        }
    }
    assert!(silent.is_empty(), "hidden in silence: {silent:?}");
}

/// `verify DIR` and `fsck` do not ask whether the server runs.
#[test]
fn a_running_ledger_is_never_called_damaged() {
    let (world, ledger, session) = small();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut errors = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fill(&world, &ledger, session, 1500);
            stop.store(true, Ordering::SeqCst);
        });
        while !stop.load(Ordering::SeqCst) {
            let error = Reader::open(&world.dir()).err();
            let other = error.filter(|e| !matches!(e, LedgerError::Locked(_)));
            errors.extend(other.map(|e| e.to_string()));
        }
    });
    assert!(
        errors.is_empty(),
        "{} of them, as {}",
        errors.len(),
        errors[0]
    );
}

/// "The one before it stays whole."
#[test]
fn a_new_start_keeps_the_newest_copy_of_the_head_whole() {
    use crate::{HeadCopy as _, LocalHead};
    let world = World::new();
    let path = world.head();
    LocalHead::new(&path).write("first\n").unwrap();
    LocalHead::new(&path).write("second\n").unwrap();
    let both = LocalHead::new(&path).read().unwrap();
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn a_backup_is_as_private_as_the_original() {
    use std::os::unix::fs::PermissionsExt as _;
    let (world, ledger, _) = small();
    drop(ledger);
    let to = world.tmp.path().join("copy");
    crate::backup(&world.dir(), &to, true).unwrap();
    for dir in [to.clone(), to.join("keys"), to.join("segments")] {
        let mode = fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", dir.display());
    }
}

/// Somebody kept a damaged file aside before restoring it.
#[test]
fn a_backup_without_keys_takes_nothing_that_it_does_not_know() {
    let (world, ledger, session) = small();
    fill(&world, &ledger, session, 700);
    assert!(within(20, || ledger.archived().0 > 256));
    drop(ledger);
    let evidence = world.dir().join("evidence");
    let keys = fs::read(evidence.join("00000000.keys")).unwrap();
    fs::write(evidence.join("00000000.keys.orig"), &keys).unwrap();
    let to = world.tmp.path().join("copy");
    crate::backup(&world.dir(), &to, false).unwrap();
    assert!(!to.join("evidence/00000000.keys.orig").exists());
}

/// Each full segment writes everything that ever was once more.
#[test]
fn snapshots_together_grow_with_the_ledger_and_not_with_its_square() {
    let (world, disk) = start_with(MIN_SEGMENT);
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    let session = world.session(&ledger);
    let written = |count| {
        let before = disk.0.lock().unwrap().snapshots;
        for _ in 0..count / 90 {
            fill(&world, &ledger, session, 90);
            std::thread::sleep(Duration::from_millis(100));
        }
        disk.0.lock().unwrap().snapshots - before
    };
    let first = written(1800);
    written(3600);
    let last = written(1800);
    assert!(last < 2 * first, "{first} bytes first, {last} bytes last");
}

/// "What ends something is always recorded", however much of it there is.
#[test]
fn a_full_disk_takes_the_end_of_everything_that_is_open() {
    let (world, disk) = start_with(SEGMENT);
    let ledger = open_with(&world, &disk, SEGMENT).unwrap();
    let open: Vec<_> = (0..300)
        .map(|_| {
            let session = world.session(&ledger);
            let intent = world.intent(session, "id");
            record(&ledger, intent.clone()).unwrap();
            (session, intent)
        })
        .collect();
    disk.0.lock().unwrap().full = true;
    while record(&ledger, world.intent_of(open[0].0, vec![1; 40_000])).is_ok() {}
    let mut refused = 0;
    for (session, intent) in &open {
        refused += usize::from(record(&ledger, world.outcome(intent)).is_err());
        refused += usize::from(record(&ledger, world.close(*session)).is_err());
    }
    drop(ledger);
    let start = open_with(&world, &disk, SEGMENT)
        .err()
        .map(|e| e.to_string());
    assert_eq!((refused, start), (0, None));
}

/// What `submit` in `ascribe/src/server.rs` does for each read that is not recorded. A thread that
/// reads the state twice waits for a writer that waits for it.
#[test]
fn asking_for_the_time_while_looking_at_the_state_never_hangs() {
    let (world, ledger, session) = small();
    let ledger = Arc::new(ledger);
    let (done, finished) = std::sync::mpsc::channel();
    let proposals: Vec<_> = (0..3000).map(|_| world.intent(session, "id")).collect();
    let writer = {
        let (ledger, done) = (Arc::clone(&ledger), done.clone());
        std::thread::spawn(move || {
            for proposal in proposals {
                record(&ledger, proposal).unwrap();
            }
            done.send(()).ok();
        })
    };
    for _ in 0..2 {
        let (ledger, done) = (Arc::clone(&ledger), done.clone());
        std::thread::spawn(move || {
            for _ in 0..300_000 {
                ledger.with_state(|state| (ledger.now(), state.size));
            }
            done.send(()).ok();
        });
    }
    for _ in 0..3 {
        if finished.recv_timeout(Duration::from_secs(30)).is_err() {
            // Nothing that hangs can be dropped.
            std::mem::forget(ledger);
            std::mem::forget(world);
            panic!("everything hangs");
        }
    }
    writer.join().unwrap();
}

/// "Destroying a wrapped key erases what it opens", and no more: a later remark on the same request
/// makes a second key, under which the older content is an error and no longer absent.
#[test]
fn a_destroyed_key_stays_an_absence_when_its_scope_is_used_again() {
    use ascribe_core::statement::{Answer, Request};
    let (world, ledger, session) = small();
    let at = Timestamp::from_millis(world.clock.now_millis());
    let why = Opening::new(
        "justification",
        [5; 32],
        b"the replica is stuck again".to_vec(),
    );
    let window = (at, at.plus_millis(60_000));
    let request = Request::plain("db1", "root", window, Prose::of(&why));
    let asked = world.statement(Say::Request(request), vec![why]);
    let Scope::Request(of) = asked.scope else {
        panic!("no request")
    };
    let asked = record(&ledger, asked).unwrap();
    fill(&world, &ledger, session, 700);
    assert!(within(20, || ledger.archived().0 > asked.index));
    drop(ledger);
    fs::remove_file(world.dir().join("evidence/00000000.keys")).unwrap();
    let ledger = world.open().unwrap();
    assert_eq!(ledger.openings(asked.index).unwrap(), []);
    let remark = Opening::new("remark", [5; 32], b"not needed".to_vec());
    let answer = Answer {
        of,
        entry: hash(&asked.entry),
        remark: Some(Prose::of(&remark)),
    };
    let cancel = world.statement(Say::Cancellation(answer), vec![remark]);
    let scope = Scope::Request(of);
    record(&ledger, Proposal { scope, ..cancel }).unwrap();
    assert_eq!(ledger.openings(asked.index).unwrap(), []);
}
