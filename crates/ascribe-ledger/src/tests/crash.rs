//! Failing writes, crashes between write and sync, a full disk.

use super::disk::{Disk, Fault};
use super::*;
use crate::config::{Config, Keys};
use crate::keys::Secret;
use crate::{Stores, init};

pub(super) fn config(world: &World, segment_bytes: u64) -> Config {
    Config {
        v: 1,
        origin: ORIGIN.to_owned(),
        wrap_key: world.tmp.path().join("wrap.key"),
        head: None,
        segment_bytes,
    }
}

fn stores(disk: &Disk) -> Stores {
    Stores {
        journal: Arc::new(disk.clone()),
        objects: Arc::new(disk.clone()),
        head: None,
    }
}

fn open(world: &World, disk: &Disk) -> Result<Ledger, LedgerError> {
    open_with(world, disk, SEGMENT)
}

pub(super) fn open_with(
    world: &World,
    disk: &Disk,
    segment_bytes: u64,
) -> Result<Ledger, LedgerError> {
    let config = config(world, segment_bytes);
    Ledger::open_with(&world.dir(), &config, stores(disk), &world.drivers)
}

fn start() -> (World, Disk) {
    start_with(SEGMENT)
}

pub(super) fn start_with(segment_bytes: u64) -> (World, Disk) {
    let mut world = World::new();
    let disk = Disk::default();
    std::fs::create_dir_all(world.dir().join("keys")).unwrap();
    Secret::draw(&*world.drivers.rng)
        .unwrap()
        .store(&world.tmp.path().join("wrap.key"))
        .unwrap();
    Keys::create(&world.dir(), &*world.drivers.rng).unwrap();
    init::begin(
        &world.dir(),
        &world.options(),
        &config(&world, segment_bytes),
        stores(&disk),
        &world.drivers,
    )
    .unwrap();
    let ledger = open_with(&world, &disk, segment_bytes).unwrap();
    world.furnish(&ledger);
    (world, disk)
}

/// Everything that was acknowledged is there, in the tree that was signed for it.
pub(super) fn verify(ledger: &Ledger, acknowledged: &[Receipt]) {
    for receipt in acknowledged {
        let entries = ledger.entries(receipt.index..receipt.index + 1).unwrap();
        assert_eq!(entries, std::slice::from_ref(&receipt.entry));
        let checkpoint = check(ledger, receipt);
        let now = ledger.shared().read().loaded.tree.root_at(checkpoint.size);
        assert_eq!(now, Some(checkpoint.root));
        assert!(!ledger.openings(receipt.index).unwrap().is_empty());
    }
}

#[test]
fn each_failing_write_stops_the_ledger_and_loses_nothing() {
    use Fault::{Crash, SyncKept, SyncLost, WriteKept, WriteLost, WriteShort};
    for (fault, kept) in [
        (WriteLost, Some(false)),
        (WriteKept, Some(true)),
        (WriteShort, Some(false)),
        (SyncLost, Some(false)),
        (SyncKept, Some(true)),
        (Crash, None),
    ] {
        let (world, disk) = start();
        let ledger = open(&world, &disk).unwrap();
        let session = world.session(&ledger);
        let good = record(&ledger, world.intent(session, "id")).unwrap();
        disk.arm(1, fault);
        let lost = world.intent(session, "reboot");
        let answer = record(&ledger, lost.clone());
        assert!(
            matches!(answer, Err(RecordError::Unavailable(_))),
            "{fault:?}: {answer:?}"
        );
        assert_eq!(Some(block_on(ledger.failed())), ledger.failure());
        let after = record(&ledger, world.close(session));
        assert!(
            matches!(after, Err(RecordError::Unavailable(_))),
            "{fault:?}"
        );
        let seen = ledger.with_state(|s| s.index_of(&lost.id));
        assert_eq!(seen, None, "{fault:?}: readers see durable state only");
        drop(ledger);
        disk.crash(1);
        let ledger = open(&world, &disk).unwrap();
        verify(&ledger, &[good]);
        let found = ledger.with_state(|s| s.index_of(&lost.id)).is_some();
        if let Some(kept) = kept {
            assert_eq!(found, kept, "{fault:?}");
        }
    }
}

#[test]
fn a_failing_write_answers_none_of_a_group_with_a_receipt() {
    use Fault::{Crash, SyncKept, SyncLost, WriteKept, WriteLost, WriteShort};
    for fault in [WriteLost, WriteKept, WriteShort, SyncLost, SyncKept, Crash] {
        let (world, disk) = start();
        let ledger = open(&world, &disk).unwrap();
        let session = world.session(&ledger);
        let group = |n| -> Vec<_> { (0..n).map(|_| world.intent(session, "reboot")).collect() };
        disk.arm(1, fault);
        let answers = block_on(ledger.record_all(group(3)));
        let unavailable = |e: &RecordError| matches!(e, RecordError::Unavailable(_));
        assert_eq!(answers.len(), 3);
        for answer in answers {
            assert!(answer.is_err_and(|e| unavailable(&e)), "{fault:?}");
        }
        for _ in 0..2 {
            let after = block_on(ledger.settle_all(group(2)));
            assert!(after.is_err_and(|e| unavailable(&e)), "{fault:?}");
        }
    }
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    use Fault::{Crash, SyncLost, WriteShort};
    let rounds = if std::env::var_os("ASCRIBE_LONG").is_some() {
        1000
    } else {
        50
    };
    let (mut world, mut disk) = start();
    let mut acknowledged = Vec::new();
    let mut seed = 42u64;
    let mut draw = |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for round in 0..rounds {
        if round > 0 && round % 50 == 0 {
            // A start reads everything: begin anew before that takes the time.
            verify(&open(&world, &disk).unwrap(), &acknowledged);
            (world, disk) = start();
            acknowledged.clear();
        }
        let kinds = [Crash, Crash, Crash, SyncLost, WriteShort];
        let fault = kinds[draw(kinds.len() as u64) as usize];
        // Now and then the crash hits the recovery itself.
        let early = draw(4) == 0;
        let after = 1 + draw(8) as u32;
        if early {
            disk.arm(after.min(2), fault);
        }
        if let Ok(ledger) = open(&world, &disk) {
            disk.arm(after, fault);
            let mut sent = 0;
            while ledger.failure().is_none() && sent < 40 {
                sent += 1;
                let (session, open) = world.opening();
                let Ok(receipt) = record(&ledger, open) else {
                    break;
                };
                acknowledged.push(receipt);
                // Several at once: one batch is decided while another is written.
                let burst: Vec<Proposal> = (0..=draw(12))
                    .map(|_| world.intent_of(session, vec![b'x'; draw(9000) as usize]))
                    .collect();
                let answers = block_on(join_all(
                    burst
                        .into_iter()
                        .map(|intent| ledger.record(intent))
                        .collect(),
                ));
                acknowledged.extend(answers.into_iter().flatten());
            }
        }
        disk.crash(draw(u64::MAX / 2));
        let ledger =
            open(&world, &disk).unwrap_or_else(|e| panic!("round {round}, {fault:?}: {e}"));
        let recent = acknowledged.len().saturating_sub(200);
        verify(&ledger, &acknowledged[recent..]);
    }
    assert!(!acknowledged.is_empty());
    let ledger = open(&world, &disk).unwrap();
    verify(&ledger, &acknowledged);
}

#[test]
fn a_full_disk_still_takes_what_ends_something() {
    let (world, disk) = start();
    let ledger = open(&world, &disk).unwrap();
    let session = world.session(&ledger);
    disk.0.lock().unwrap().full = true;
    let mut open_intents = Vec::new();
    let error = loop {
        let intent = world.intent_of(session, vec![1; 60_000]);
        match record(&ledger, intent.clone()) {
            Ok(_) => open_intents.push(intent),
            Err(error) => break error,
        }
        assert!(open_intents.len() < 1000);
    };
    assert!(error.to_string().contains("disk full"), "{error}");
    assert!(ledger.failure().is_none());
    for intent in &open_intents {
        record(&ledger, world.outcome(intent)).unwrap();
    }
    record(&ledger, world.close(session)).unwrap();
    disk.0.lock().unwrap().full = false;
    world.clock.step(2000);
    let session = (0..3).find_map(|_| {
        let (id, open) = world.opening();
        world.clock.step(2000);
        std::thread::sleep(std::time::Duration::from_millis(20));
        record(&ledger, open).ok().map(|_| id)
    });
    record(&ledger, world.intent(session.unwrap(), "id")).unwrap();
}
