//! The gate: what does not compile, and which receipts it refuses.

use ascribe_core::entry::{Body, CloseReason, Entry, Ref, Writer};
use ascribe_core::gate::{Action, Authorized, FORWARD_WITHIN_MS, GateError, Log, Salts};
use ascribe_core::id::{ActionId, EntryHash, EntryId, SessionId};
use ascribe_core::record::{Proposal, Receipt, Standing};
use ascribe_core::time::Timestamp;
use ascribe_tlog::{Checkpoint, Hash, SigningKey, Tree, leaf_hash};

const ORIGIN: &str = "example.org/log";
const T0: i64 = 1_764_000_000_000;

#[test]
fn the_gate_is_not_bypassed() {
    trybuild::TestCases::new().compile_fail("tests/fail/*.rs");
}

fn action() -> Action {
    Action {
        action: ActionId::new([1; 16]),
        session: SessionId::new([2; 16]),
        kind: "ssh.exec",
        command: Some(b"uptime".to_vec()),
        env: vec![("LANG".to_owned(), "C".to_owned())],
        lends: Vec::new(),
        pty: None,
        within: Some(ActionId::new([6; 16])),
        sql: None,
    }
}

fn check(standing: Standing, now: i64) -> Result<(Authorized, Proposal), GateError> {
    let salts = Salts {
        command: [3; 32],
        env: [4; 32],
        values: [3; 32],
        entry: [5; 16],
    };
    let now = Timestamp::from_millis(now);
    Authorized::check(action(), "gw", standing, now, salts)
}

#[cfg(test)]
mod receipts {
    use super::*;

    pub(super) fn authorized() -> Authorized {
        proposed().0
    }

    fn proposed() -> (Authorized, Proposal) {
        check(Standing::Until(Timestamp::from_millis(T0 + 1000)), T0).unwrap()
    }

    pub(super) fn entry() -> Entry {
        let (_, proposal) = proposed();
        Entry {
            v: 1,
            log: ORIGIN.to_owned(),
            id: proposal.id,
            at: Timestamp::from_millis(T0),
            writer: Writer {
                id: proposal.writer,
                seq: 9,
                prev: Some(EntryHash(Hash([8; 32]))),
            },
            law: Some(EntryHash(Hash([7; 32]))),
            refs: Vec::new(),
            body: proposal.body,
        }
    }

    /// A receipt for this entry at index 5 of 7.
    pub(super) fn receipt(entry: &Entry, origin: &str, key: &SigningKey) -> Receipt {
        receipt_of(entry.to_bytes().unwrap(), origin, key)
    }

    /// The same for whatever the log says its entry is.
    pub(super) fn receipt_of(bytes: Vec<u8>, origin: &str, key: &SigningKey) -> Receipt {
        let mut tree = Tree::new();
        for i in 0..7u8 {
            let leaf = if i == 5 {
                leaf_hash(&bytes)
            } else {
                leaf_hash(&[i])
            };
            tree.push(leaf);
        }
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            size: 7,
            root: tree.root(),
        };
        Receipt {
            index: 5,
            entry: bytes,
            proof: tree.inclusion_proof(5, 7).unwrap(),
            checkpoint: key.sign_note(&checkpoint.to_text()).unwrap(),
        }
    }

    pub(super) fn key(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, &[seed; 32]).unwrap()
    }

    pub(super) fn refused(receipt: &Receipt) -> &'static str {
        let log = key(ORIGIN, 1).verifier();
        match authorized().recorded(receipt, &Log::new(log.clone())) {
            Err(GateError::Receipt(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_true_receipt_opens_the_gate_for_exactly_its_action() {
    let log = receipts::key(ORIGIN, 1);
    let entry = receipts::entry();
    let receipt = receipts::receipt(&entry, ORIGIN, &log);
    let recorded = receipts::authorized()
        .recorded(&receipt, &Log::new(log.verifier()))
        .unwrap();
    let hash = EntryHash(leaf_hash(&receipt.entry));
    assert_eq!(recorded.entry(), (hash, 5));
    assert_eq!(recorded.at().millis(), T0);
    assert_eq!(recorded.until().millis(), T0 + 1000);
    assert_eq!(recorded.into_action(), action());
}

#[test]
fn an_ended_session_never_reaches_the_recorder() {
    let end = Timestamp::from_millis(T0);
    assert!(check(Standing::Until(end), T0 - 1).is_ok());
    for standing in [
        Standing::Until(end),
        Standing::Ended(CloseReason::Revoked),
        Standing::Ended(CloseReason::Expired),
    ] {
        assert_eq!(check(standing, T0).unwrap_err(), GateError::Ended);
    }
}

#[test]
fn a_receipt_for_another_entry_is_refused() {
    let log = receipts::key(ORIGIN, 1);
    let edits: [fn(&mut Entry); 6] = [
        |e| e.id = EntryId::new([9; 16]),
        |e| e.writer.id = "gw2".to_owned(),
        |e| {
            if let Body::Intent(intent) = &mut e.body {
                intent.session = SessionId::new([9; 16]);
            }
        },
        |e| {
            if let Body::Intent(intent) = &mut e.body {
                intent.command = intent.env;
            }
        },
        |e| {
            if let Body::Intent(intent) = &mut e.body {
                intent.forward_within_ms = FORWARD_WITHIN_MS + 1;
            }
        },
        |e| {
            if let Body::Intent(intent) = &mut e.body {
                intent.within = None;
            }
        },
    ];
    for edit in edits {
        let mut entry = receipts::entry();
        edit(&mut entry);
        let receipt = receipts::receipt(&entry, ORIGIN, &log);
        assert_eq!(receipts::refused(&receipt), "another entry");
    }
    let mut receipt = receipts::receipt(&receipts::entry(), ORIGIN, &log);
    receipt.entry.push(b' ');
    assert_eq!(receipts::refused(&receipt), "not an entry");
}

/// Whatever a log with the right key puts into its tree in the entry's place: the gate opens for what reads
/// as an entry with this id, writer and intent, and for nothing else.
#[test]
fn the_gate_opens_for_the_canonical_entry_alone() {
    let key = receipts::key(ORIGIN, 1);
    let log = Log::new(key.verifier());
    let entry = receipts::entry();
    let bytes = entry.to_bytes().unwrap();
    let mut others = vec![bytes.clone()];
    for at in 0..bytes.len() {
        for byte in *b"0\"},Z" {
            let mut changed = bytes.clone();
            changed[at] = byte;
            others.push(changed.clone());
            changed.insert(at, bytes[at]);
            others.push(changed);
        }
        let mut shorter = bytes.clone();
        shorter.remove(at);
        others.push(shorter);
    }
    for other in [
        Entry {
            law: None,
            ..entry.clone()
        },
        Entry {
            refs: vec![Ref {
                hash: EntryHash(Hash([1; 32])),
                index: 3,
                rel: "session".to_owned(),
            }],
            ..entry.clone()
        },
    ] {
        others.push(other.to_bytes().unwrap());
    }
    let text = String::from_utf8(bytes).unwrap();
    for (member, twice) in [
        ("\"v\":1", "\"v\":1,\"v\":1"),
        ("\"id\":", "\"body\":{},\"id\":"),
        ("\"v\":1", "\"id\":\"e-00000000000000000000000000\",\"v\":1"),
        ("\"seq\":9", "\"seq\":9.0"),
    ] {
        assert!(text.contains(member));
        others.push(text.replace(member, twice).into_bytes());
    }
    let (mut opened, mut shut) = (0, 0);
    for other in others {
        let same = Entry::from_bytes(&other).is_ok_and(|other| {
            let same = other.id == entry.id && other.writer.id == entry.writer.id;
            same && other.body == entry.body && other.log == ORIGIN
        });
        let receipt = receipts::receipt_of(other, ORIGIN, &key);
        let recorded = receipts::authorized().recorded(&receipt, &log);
        let shown = String::from_utf8_lossy(&receipt.entry);
        assert_eq!(recorded.is_ok(), same, "{shown}");
        *if same { &mut opened } else { &mut shut } += 1;
    }
    assert!(opened > 3 && shut > 1000, "{opened} {shut}");
}

#[test]
fn a_receipt_that_proves_nothing_is_refused() {
    let log = receipts::key(ORIGIN, 1);
    let good = receipts::receipt(&receipts::entry(), ORIGIN, &log);
    let edits: [fn(&mut Receipt); 5] = [
        |r| r.index = 4,
        |r| r.index = 7,
        |r| r.proof.push(Hash::ZERO),
        |r| r.proof.truncate(1),
        |r| r.proof[0] = Hash::ZERO,
    ];
    for edit in edits {
        let mut receipt = good.clone();
        edit(&mut receipt);
        assert_eq!(receipts::refused(&receipt), "inclusion proof fails");
    }
}

#[test]
fn a_checkpoint_of_another_key_or_another_log_is_refused() {
    let entry = receipts::entry();
    let unsigned = "checkpoint not signed by the log";
    for key in [
        receipts::key(ORIGIN, 2),
        receipts::key("example.org/other", 1),
    ] {
        let receipt = receipts::receipt(&entry, ORIGIN, &key);
        assert_eq!(receipts::refused(&receipt), unsigned);
    }
    let log = receipts::key(ORIGIN, 1);
    let other = receipts::receipt(&entry, "example.org/other", &log);
    assert_eq!(receipts::refused(&other), unsigned);
    let mut damaged = receipts::receipt(&entry, ORIGIN, &log);
    damaged.checkpoint = damaged.checkpoint.replace("\n7\n", "\n8\n");
    assert_eq!(receipts::refused(&damaged), unsigned);
    let mut elsewhere = entry;
    elsewhere.log = "example.org/other".to_owned();
    let receipt = receipts::receipt(&elsewhere, ORIGIN, &log);
    assert_eq!(receipts::refused(&receipt), "another log");
}

#[test]
fn a_checkpoint_that_was_checked_vouches_for_no_other() {
    let log = receipts::key(ORIGIN, 1);
    let entry = receipts::entry();
    let good = receipts::receipt(&entry, ORIGIN, &log);
    let known = Log::new(log.verifier());
    for _ in 0..2 {
        assert!(receipts::authorized().recorded(&good, &known).is_ok());
    }
    let other = receipts::receipt(&entry, ORIGIN, &receipts::key(ORIGIN, 2));
    let mut longer = good.clone();
    longer.checkpoint.push('\n');
    for forged in [other, longer] {
        let refused = receipts::authorized().recorded(&forged, &known);
        assert!(matches!(refused, Err(GateError::Receipt(_))), "{refused:?}");
    }
    assert!(receipts::authorized().recorded(&good, &known).is_ok());
}
