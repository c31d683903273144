//! Full segments become tiles and packs; a snapshot spares the replay at the start.

use std::fs;
use std::time::{Duration, Instant};

use super::crash::{open_with, start_with, verify};
use super::disk::Disk;
use super::*;
use crate::config::Keys;
use crate::{MIN_SEGMENT, Reader, snapshot};

/// A ledger in small segments.
pub(super) fn small() -> (World, Ledger, SessionId) {
    let mut world = World::new();
    let options = InitOptions {
        segment_bytes: MIN_SEGMENT,
        ..world.options()
    };
    Ledger::init(&world.dir(), &options, &world.drivers).unwrap();
    let ledger = world.open().unwrap();
    world.furnish(&ledger);
    let session = world.session(&ledger);
    (world, ledger, session)
}

pub(super) fn fill(
    world: &World,
    ledger: &Ledger,
    session: SessionId,
    count: usize,
) -> Vec<Receipt> {
    (0..count)
        .map(|n| record(ledger, world.intent(session, &format!("echo {n}"))).unwrap())
        .collect()
}

/// Waits for what happens behind the writer.
pub(super) fn wait(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn segments(world: &World) -> usize {
    fs::read_dir(world.dir().join("segments")).unwrap().count()
}

fn archived(ledger: &Ledger) -> u64 {
    let (base, behind) = ledger.archived();
    assert_eq!(behind, None);
    base
}

/// Waits until a round of packing is over.
fn packed(world: &World, ledger: &Ledger) {
    let there = |name| world.dir().join(name).exists();
    wait("segments are packed", || {
        archived(ledger) > 256 && there("tree/checkpoint") && there("snapshot")
    });
}

#[test]
fn full_segments_become_tiles_and_packs_and_are_removed() {
    let (world, ledger, session) = small();
    let mut receipts = fill(&world, &ledger, session, 700);
    packed(&world, &ledger);
    receipts.extend(fill(&world, &ledger, session, 20));
    verify(&ledger, &receipts);
    let before = segments(&world);
    drop(ledger);
    assert!(before < 20, "{before} segments are left");

    // A reader needs no snapshot, and the tree on disk is whole as it is.
    let reader = Reader::open(&world.dir()).unwrap();
    for receipt in &receipts {
        let entries = reader.entries(receipt.index..receipt.index + 1).unwrap();
        assert_eq!(entries, std::slice::from_ref(&receipt.entry));
        assert_eq!(reader.openings(receipt.index).unwrap().len(), 1);
    }
    let tree = world.dir().join("tree");
    let note = fs::read(tree.join("checkpoint")).unwrap();
    let key = reader.log_key().unwrap().clone();
    let checkpoint = Checkpoint::open(&note, &[key]).unwrap();
    let mut read = ascribe_tlog::Tree::new();
    while read.size() < checkpoint.size {
        let width = (checkpoint.size - read.size()).min(256) as u16;
        let path = ascribe_tlog::entries_path(read.size() / 256, width);
        let bundle = fs::read(tree.join(path)).unwrap();
        for entry in ascribe_tlog::decode_entry_bundle(&bundle).unwrap() {
            read.push(leaf_hash(&entry));
        }
    }
    assert_eq!(read.root(), checkpoint.root);
    for path in ascribe_tlog::tiles_of(checkpoint.size) {
        let ascribe_tlog::TileKind::Hashes(level) = path.kind else {
            panic!("only hashes here")
        };
        let tile = fs::read(tree.join(path.to_string())).unwrap();
        assert_eq!(read.tile(level, path.n, path.width), Some(tile), "{path}");
    }

    drop(reader);

    // The next start takes the snapshot, and goes on.
    let ledger = world.open().unwrap();
    verify(&ledger, &receipts);
    let session = world.session(&ledger);
    let base = archived(&ledger);
    let more = fill(&world, &ledger, session, 600);
    verify(&ledger, &more);
    wait("packing goes on", || archived(&ledger) > base);
}

/// Size and digest of the snapshot in the directory.
fn stored(world: &World) -> Option<(u64, [u8; 32])> {
    let key = Keys::load(&world.dir(), ORIGIN).unwrap().log.verifier();
    let bytes = fs::read(world.dir().join("snapshot")).ok()?;
    let found = snapshot::decode(&key, ORIGIN, &bytes)?;
    Some((found.state.size, found.digest))
}

#[test]
fn a_snapshot_is_the_state_that_a_replay_gives() {
    let (world, ledger, session) = small();
    fill(&world, &ledger, session, 300);
    wait("a snapshot is stored", || stored(&world).is_some());
    drop(ledger);
    let (size, digest) = stored(&world).unwrap();
    let reader = Reader::open(&world.dir()).unwrap();
    let mut state = ascribe_core::law::State::new(ORIGIN);
    for entry in reader.entries(0..size).unwrap() {
        state.apply(&Naive, &entry).unwrap();
    }
    assert_eq!(snapshot::digest(&state.to_snapshot().unwrap()), digest);
}

#[test]
fn a_snapshot_that_was_changed_is_not_believed() {
    let (world, ledger, session) = small();
    fill(&world, &ledger, session, 300);
    wait("a snapshot is stored", || stored(&world).is_some());
    drop(ledger);
    let path = world.dir().join("snapshot");
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 50) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!(stored(&world), None, "byte {at}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let ledger = world.open().unwrap();
    assert!(ledger.with_state(|s| s.size) > 300);
}

/// A snapshot that the log signed, of a state that is not the one of the entries.
#[test]
fn the_replay_behind_the_server_stops_it_when_the_snapshot_lies() {
    let (world, ledger, session) = small();
    fill(&world, &ledger, session, 300);
    wait("a snapshot is stored", || stored(&world).is_some());
    drop(ledger);
    let key = Keys::load(&world.dir(), ORIGIN).unwrap().log;
    let path = world.dir().join("snapshot");
    let bytes = fs::read(&path).unwrap();
    let found = snapshot::decode(&key.verifier(), ORIGIN, &bytes).unwrap();
    let mut state = found.state;
    for person in state.people.values_mut() {
        person.roles.insert(Role::Auditor);
    }
    let (tree, state) = (found.tree, state.to_snapshot().unwrap());
    let bytes = snapshot::encode(&key, ORIGIN, tree.leaves(), &tree.root(), &state);
    fs::write(&path, bytes).unwrap();
    let ledger = world.open().unwrap();
    let why = block_on(ledger.failed());
    assert!(why.contains("the snapshot says something else"), "{why}");
    let refused = record(&ledger, world.close(session)).unwrap_err();
    assert!(matches!(refused, RecordError::Unavailable(_)), "{refused}");
}

#[test]
fn what_is_missing_or_changed_in_the_archive_is_named() {
    let (world, ledger, session) = small();
    let receipts = fill(&world, &ledger, session, 700);
    packed(&world, &ledger);
    drop(ledger);
    let refused = |name: &str| {
        let reader = Reader::open(&world.dir()).unwrap_err().to_string();
        assert!(reader.contains(name), "{reader}");
        fs::rename(
            world.dir().join("snapshot"),
            world.tmp.path().join("snapshot"),
        )
        .unwrap();
        let start = world.open().unwrap_err().to_string();
        assert!(start.contains(name), "{start}");
        fs::rename(
            world.tmp.path().join("snapshot"),
            world.dir().join("snapshot"),
        )
        .unwrap();
    };
    for name in ["tree/tile/entries/000", "evidence/00000000.pack"] {
        let path = world.dir().join(name);
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        refused(name);
        let mut bad = good.clone();
        bad[100] ^= 1;
        fs::write(&path, bad).unwrap();
        refused(name);
        fs::write(&path, &good).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(world.dir().join("segments"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    // The oldest may be packed already and on its way out; one before the newest leaves a gap.
    let gone = &names[names.len() - 2];
    fs::rename(gone, world.tmp.path().join("gone")).unwrap();
    world.open().map(drop).unwrap_err();
    fs::rename(world.tmp.path().join("gone"), gone).unwrap();

    // What a start does not read is checked all the same when asked.
    let reader = Reader::open(&world.dir()).unwrap();
    reader.check_archive().unwrap();
    for name in [
        "tree/tile/0/000",
        "tree/tile/1/000.p",
        "tree/checkpoint",
        "evidence/00000000.pack",
    ] {
        let mut path = world.dir().join(name);
        if path.is_dir() {
            path = fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        }
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&path, bad).unwrap();
        let error = reader.check_archive().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        fs::write(&path, good).unwrap();
    }

    // Without wrapped keys everything is proven and nothing of what is sealed can be read.
    for n in 0.. {
        let keys = world.dir().join(format!("evidence/{n:08}.keys"));
        if fs::remove_file(keys).is_err() {
            break;
        }
    }
    let reader = Reader::open(&world.dir()).unwrap();
    assert_eq!(reader.openings(receipts[0].index).unwrap(), []);
}

/// At every object that is written and every segment that is removed, the power goes.
#[test]
fn packing_that_breaks_off_anywhere_loses_nothing() {
    let rounds = if std::env::var_os("ASCRIBE_LONG").is_some() {
        200
    } else {
        40
    };
    let (world, disk) = start_with(MIN_SEGMENT);
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
        let session = world.session(&ledger);
        disk.0.lock().unwrap().objects_until = Some(round % 23);
        for n in 0..90 {
            // The power may be gone by now.
            let Ok(receipt) = record(&ledger, world.intent(session, &format!("echo {n}"))) else {
                break;
            };
            acknowledged.push(receipt);
        }
        std::thread::sleep(Duration::from_millis(20));
        drop(ledger);
        disk.crash(u64::from(round));
    }
    let ledger = open_with(&world, &disk, MIN_SEGMENT).unwrap();
    verify(&ledger, &acknowledged);
    wait("packing ends", || archived(&ledger) > 0);
    verify(&ledger, &acknowledged);
    let _: &Disk = &disk;
}

#[test]
fn a_backup_without_keys_verifies_and_opens_nothing() {
    let (world, ledger, session) = small();
    let receipts = fill(&world, &ledger, session, 700);
    packed(&world, &ledger);
    let to = world.tmp.path().join("copy");
    let error = crate::backup(&world.dir(), &to, false).unwrap_err();
    assert!(matches!(error, LedgerError::Locked(_)), "{error}");
    drop(ledger);
    crate::backup(&world.dir(), &to, false).unwrap();
    let (whole, copy) = (
        Reader::open(&world.dir()).unwrap(),
        Reader::open(&to).unwrap(),
    );
    assert_eq!(whole.checkpoint_note(), copy.checkpoint_note());
    assert_eq!(
        whole.entries(0..9999).unwrap(),
        copy.entries(0..9999).unwrap()
    );
    for receipt in &receipts {
        assert_eq!(whole.openings(receipt.index).unwrap().len(), 1);
        assert_eq!(copy.openings(receipt.index).unwrap(), []);
    }
    let secrets = [fs::read(world.dir().join("keys/log.seed")).unwrap()];
    let keys = whole.loaded_keys();
    assert!(!keys.is_empty());
    for secret in secrets.iter().chain(keys) {
        assert!(!holds(&to, secret), "a key is in the copy");
        assert!(holds(&world.dir(), secret));
    }

    drop(whole);
    let to = world.tmp.path().join("all");
    crate::backup(&world.dir(), &to, true).unwrap();
    fs::rename(world.dir(), world.tmp.path().join("old")).unwrap();
    fs::rename(&to, world.dir()).unwrap();
    let ledger = world.open().unwrap();
    verify(&ledger, &receipts);
}

/// Is this anywhere in the directory's files?
fn holds(dir: &Path, secret: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, secret),
            false => fs::read(path)
                .unwrap()
                .windows(secret.len())
                .any(|w| w == secret),
        }
    })
}
