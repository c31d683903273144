//! Whole ledgers: what only the whole tree shows.

use ascribe_core::entry::Status;
use ascribe_core::id::Root;
use ascribe_core::statement::{Seen, Uses};
use ascribe_tlog::{Hash, empty_root, encode_entry_bundle, entries_path, tile_path};
use ascribe_verify::{Asked, Report, Verdict, read_tree, verify_asked, verify_entries};

use super::forge::{Forge, MINUTE, Who};
use super::scenes::COMMAND;

fn verify(log: &Forge) -> Report {
    let note = log.checkpoint(log.size());
    verify_entries(
        note.as_bytes(),
        &log.bytes,
        &log.openings,
        &log.policy(),
        "missing",
        &mut |_| {},
    )
}

fn code(report: &Report) -> Option<&'static str> {
    assert_eq!(
        report.verdict == Verdict::Failed,
        report.problems.len() == 1
    );
    report.problems.first().map(|problem| problem.code)
}

/// A log in which the approver of the only request had seen this.
fn approver_saw(seen: impl FnOnce(&Forge) -> Seen) -> Forge {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let target = log.target();
    let (ask, body) = log.request(target, Uses::Single);
    log.pretended = Some(seen(&log));
    let yes = log.approve(Who::Ada, ask);
    let grant = log.grant(ask, &[yes], body);
    let mut session = log.open(&grant, "root");
    log.run(&mut session);
    log.close(session);
    log
}

#[test]
fn what_a_signer_had_seen_must_be_a_checkpoint_of_this_tree() {
    for size in 1..=3 {
        let log = approver_saw(|log| {
            let root = Root(log.tree(size).root());
            Seen { size, root }
        });
        assert_eq!(code(&verify(&log)), None, "size {size}");
        let log = approver_saw(|log| {
            let root = Root(log.tree(size - 1).root());
            Seen { size, root }
        });
        let report = verify(&log);
        assert_eq!(code(&report), Some("altered"), "size {size}");
        assert_eq!(report.problems[0].index, Some(3));
        assert_eq!(report.problems[0].promise, "everybody sees the same log");
    }
    let future = approver_saw(|log| Seen {
        size: log.size() + 1,
        root: Root(Hash::ZERO),
    });
    assert_eq!(code(&verify(&future)), Some("unlawful"));
}

#[test]
fn a_signer_who_knew_no_checkpoint_says_so_with_size_zero() {
    for root in [Hash::ZERO, empty_root()] {
        let log = approver_saw(|_| Seen {
            size: 0,
            root: Root(root),
        });
        assert_eq!(code(&verify(&log)), None);
    }
}

/// Only the whole tree can tell; a bundle's entries are proven, and its statement was signed so.
#[test]
fn a_bundle_does_not_judge_what_a_signer_had_seen() {
    let log = approver_saw(|_| Seen {
        size: 2,
        root: Root(Hash::ZERO),
    });
    assert_eq!(code(&verify(&log)), Some("altered"));
    let session = log.entries.iter().find_map(|entry| match &entry.body {
        ascribe_core::entry::Body::SessionOpen(open) => Some(open.session),
        _ => None,
    });
    let bundle = log.bundle(session.unwrap()).to_bytes().unwrap();
    let report = ascribe_verify::verify_bundle(&bundle, &log.policy());
    assert_eq!(code(&report), None);
}

#[test]
fn a_ledger_that_does_not_continue_an_earlier_checkpoint_is_refused() {
    let log = crashed();
    let mut other = Forge::new(100, &[Who::Ada, Who::Olu]);
    let target = other.target();
    other.emergency(target);
    let stranger = Forge::new(77, &[Who::Ada, Who::Olu]);
    let check = |earlier: &str, size: u64| {
        let (earlier, note) = (earlier.as_bytes(), log.checkpoint(size));
        let entries = &log.bytes[..usize::try_from(size).unwrap()];
        let (note, trust) = (note.as_bytes(), log.policy());
        let asked = Asked {
            earlier: Some(earlier),
            ..Asked::default()
        };
        verify_asked(asked, note, entries, &[], &trust, "missing", &mut |_| {})
    };
    let whole = log.size();
    for size in 1..=whole {
        let earlier = log.checkpoint(size);
        let report = check(&earlier, whole);
        assert_eq!(code(&report), None, "size {size}");
        assert_eq!(report.continues, Some(size));
        let notes: Vec<_> = report.notes.iter().map(|note| note.code).collect();
        assert!(notes.contains(&"rollback_detectable_before"));
        assert!(!notes.contains(&"rollback_not_detectable"));
        if size < whole {
            assert_eq!(code(&check(&log.checkpoint(whole), size)), Some("missing"));
        }
    }
    let two_histories = other.checkpoint(other.size());
    assert_eq!(code(&check(&two_histories, whole)), Some("altered"));
    assert_eq!(
        code(&check(&stranger.checkpoint(1), whole)),
        Some("untrusted")
    );
    assert_eq!(code(&check("no checkpoint\n", whole)), Some("untrusted"));
}

/// Two sessions at once, one of which a crash left open.
fn crashed() -> Forge {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let grant = log.granted(Uses::Reusable);
    let mut first = log.open(&grant, "root");
    let mut second = log.open(&grant, "root");
    log.run(&mut first);
    log.wait(MINUTE).intent(&mut second, COMMAND, None);
    log.close(first);
    log
}

#[test]
fn a_ledger_as_a_crash_left_it_verifies_with_open_intents_unknown() {
    let report = verify(&crashed());
    assert_eq!(code(&report), None, "{report:#?}");
    let outcomes: Vec<Status> = report
        .actions
        .iter()
        .map(|action| action.what.outcome.status)
        .collect();
    assert_eq!(outcomes, [Status::Succeeded, Status::Unknown]);
    let unknown = report.notes.iter().find(|n| n.code == "outcome_unknown");
    assert_eq!(unknown.unwrap().action, Some(report.actions[1].action_id));
}

#[test]
fn no_entry_is_left_out_put_elsewhere_or_changed() {
    let log = crashed();
    let note = log.checkpoint(log.size());
    let check = |entries: &[Vec<u8>]| {
        let trust = log.policy();
        let report = verify_entries(
            note.as_bytes(),
            entries,
            &[],
            &trust,
            "missing",
            &mut |_| {},
        );
        code(&report)
    };
    assert_eq!(check(&log.bytes), None);
    for at in 0..log.bytes.len() {
        let mut less = log.bytes.clone();
        less.remove(at);
        assert_eq!(check(&less), Some("altered"), "without {at}");
        let mut twice = log.bytes.clone();
        twice.insert(at, log.bytes[at].clone());
        assert_eq!(check(&twice), Some("altered"), "twice {at}");
        let mut moved = log.bytes.clone();
        moved.swap(at, (at + 1) % log.bytes.len());
        assert_eq!(check(&moved), Some("altered"), "moved {at}");
        let mut changed = log.bytes.clone();
        changed[at][10] ^= 1;
        assert_eq!(check(&changed), Some("altered"), "changed {at}");
    }
}

/// A log that drops an entry, hashes the rest anew and signs that: the law's chains do not add up.
#[test]
fn a_log_that_signs_a_tree_without_one_of_its_entries_is_refused() {
    let whole = crashed();
    for at in 1..whole.bytes.len() {
        let mut log = crashed();
        log.bytes.remove(at);
        log.entries.remove(at);
        log.openings.retain(|(index, _)| *index != at as u64);
        for (index, _) in &mut log.openings {
            *index -= u64::from(*index > at as u64);
        }
        let last_of_its_chain = at + 1 == whole.bytes.len();
        assert_eq!(code(&verify(&log)).is_none(), last_of_its_chain, "{at}");
    }
}

#[test]
fn a_plain_tree_is_read_from_its_files_and_absent_ones_are_named() {
    let log = crashed();
    let dir = tempfile::tempdir().unwrap();
    let size = u16::try_from(log.size()).unwrap();
    let name = entries_path(0, size);
    let entries = dir.path().join(&name);
    let note = log.checkpoint(log.size());
    let trust = log.policy();
    let read = || read_tree(dir.path(), &trust);
    assert!(read().unwrap_err().contains("`checkpoint`"));
    std::fs::write(dir.path().join("checkpoint"), &note).unwrap();
    assert!(read().unwrap_err().contains(&name));
    std::fs::create_dir_all(entries.parent().unwrap()).unwrap();
    let whole = encode_entry_bundle(&log.bytes).unwrap();
    for cut in [0, 1, 2, whole.len() - 1] {
        std::fs::write(&entries, &whole[..cut]).unwrap();
        assert!(read().unwrap_err().contains(&name), "{cut}");
    }
    let fewer = encode_entry_bundle(&log.bytes[1..]).unwrap();
    std::fs::write(&entries, fewer).unwrap();
    assert!(read().unwrap_err().contains("instead of"));
    std::fs::write(&entries, &whole).unwrap();
    let hashes = tile_path(0, 0, size);
    let tile = dir.path().join(&hashes);
    assert!(read().unwrap_err().contains(&hashes));
    std::fs::create_dir_all(tile.parent().unwrap()).unwrap();
    let good = log.tree(log.size()).tile(0, 0, size).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    for other in [&bad[..], &good[32..], b""] {
        std::fs::write(&tile, other).unwrap();
        assert!(read().unwrap_err().contains("other hashes"));
    }
    std::fs::write(&tile, &good).unwrap();
    assert_eq!(read().unwrap(), (note.into_bytes(), log.bytes.clone()));
    let stranger = Forge::new(77, &[Who::Ada, Who::Olu]);
    let refused = read_tree(dir.path(), &stranger.policy()).unwrap_err();
    assert!(refused.contains("not trusted"), "{refused}");
}
