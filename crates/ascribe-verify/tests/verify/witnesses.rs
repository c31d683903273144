//! Witnesses: what their word proves to whom, and which word is a lie.

use ascribe_core::entry::Body;
use ascribe_core::statement::{Say, Uses};
use ascribe_core::time::Timestamp;
use ascribe_core::witness::{Cosigned, WitnessSet};
use ascribe_tlog::{Checkpoint, Hash, SigningKey, TrustPolicy};
use ascribe_verify::{Asked, LinkKind, Report, verify_asked, verify_bundle, verify_entries};

use super::forge::{Forge, ORIGIN, Who};

fn witness() -> SigningKey {
    SigningKey::from_seed("w.example", &[55; 32]).unwrap()
}

/// The policy of the log, with one witness.
pub(super) fn with_witness(policy: &TrustPolicy) -> TrustPolicy {
    let key = witness().witness().unwrap();
    let text = policy.to_text().replace(
        "quorum none\n",
        &format!("witness w {key} https://w.example\nquorum w\n"),
    );
    TrustPolicy::parse(&text).unwrap()
}

/// A checkpoint of the log with the witness's line over it.
pub(super) fn cosigned(log: &Forge, size: u64, seconds: u64) -> String {
    let note = log.checkpoint(size);
    let (text, _) = note.split_once("\n\n").unwrap();
    let line = witness().cosign(&format!("{text}\n"), seconds).unwrap();
    format!("{note}{line}")
}

/// A log with a session; its witness's word is over this note.
fn story(note: impl FnOnce(&Forge) -> (u64, String)) -> (Forge, ascribe_core::id::SessionId) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let set = WitnessSet {
        demand: Vec::new(),
        policy: with_witness(&log.policy()).to_text(),
    };
    log.say(Who::Ada, &[], Say::WitnessSet(set), Vec::new());
    let granted = log.granted(Uses::Single);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    let (size, note) = note(&log);
    let word = Cosigned {
        before: Timestamp::from_millis(1_764_000_009_000),
        note,
        settles: Vec::new(),
        size,
    };
    log.record("server", &[], Body::Cosigned(word), Vec::new());
    (log, session)
}

fn verify(log: &Forge, note: &str, trust: &TrustPolicy) -> Report {
    let (note, bytes) = (note.as_bytes(), &log.bytes);
    verify_entries(note, bytes, &log.openings, trust, "missing", &mut |_| {})
}

fn code(report: &Report) -> Option<&'static str> {
    report.problems.first().map(|problem| problem.code)
}

#[test]
fn a_whole_ledger_shows_what_its_witnesses_have_seen() {
    let (log, _) = story(|log| (log.size() - 1, cosigned(log, log.size() - 1, 1_764_000_009)));
    let plain = log.checkpoint(log.size());
    let report = verify(&log, &plain, &log.policy());
    let seen = report.witnessed.clone().unwrap();
    assert_eq!((seen.size, seen.policy), (log.size() - 2, "log"));
    assert_eq!(
        (seen.by, seen.quorum),
        (vec!["w".to_owned()], "w".to_owned())
    );
    let before = Some(seen.before);
    assert_eq!(report.actions[0].when.witnessed_before, before);
    assert!(report.notes.iter().any(|note| note.code == "witnessed"));
    assert!(ascribe_verify::render(&report).contains("the 2 entries after that"));
    // Whoever demands the witness is satisfied by the entry, and by the newest checkpoint.
    let trust = with_witness(&log.policy());
    let report = verify(&log, &plain, &trust);
    assert_eq!(
        (code(&report), report.witnessed.unwrap().policy),
        (None, "reader")
    );
    let note = cosigned(&log, log.size(), 1_764_000_020);
    let report = verify(&log, &note, &trust);
    assert_eq!(report.witnessed.unwrap().size, log.size());
    // An earlier checkpoint needs no witness: the log must continue what it signed.
    let earlier = log.checkpoint(2);
    let asked = Asked {
        earlier: Some(earlier.as_bytes()),
        ..Asked::default()
    };
    let note = plain.as_bytes();
    let report = verify_asked(asked, note, &log.bytes, &[], &trust, "missing", &mut |_| {});
    assert_eq!((code(&report), report.continues), (None, Some(2)));
    // Another witness is no substitute.
    let other = SigningKey::from_seed("w.example", &[56; 32]).unwrap();
    let (ours, theirs) = (witness().witness().unwrap(), other.witness().unwrap());
    let text = trust
        .to_text()
        .replace(&ours.to_string(), &theirs.to_string());
    let report = verify(&log, &plain, &TrustPolicy::parse(&text).unwrap());
    assert_eq!(code(&report), Some("untrusted"));
}

#[test]
fn a_word_over_another_history_is_found_in_the_whole_ledger() {
    // The log's own key and the witness signed it: only the tree tells.
    let (log, session) = story(|log| {
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size: log.size() - 1,
            root: Hash([3; 32]),
        };
        let text = checkpoint.to_text();
        let note = SigningKey::from_seed(ORIGIN, &[100; 32]).unwrap();
        let line = witness().cosign(&text, 1_764_000_009).unwrap();
        (
            checkpoint.size,
            format!("{}{line}", note.sign_note(&text).unwrap()),
        )
    });
    let report = verify(&log, &log.checkpoint(log.size()), &log.policy());
    assert_eq!(code(&report), Some("altered"));
    assert_eq!(report.problems[0].index, Some(log.size() - 1));
    assert_eq!(report.problems[0].promise, "everybody sees the same log");
    // A bundle cannot tell, and so claims nothing by it.
    let bundle = log.bundle(session).to_bytes().unwrap();
    let report = verify_bundle(&bundle, &log.policy());
    assert_eq!((code(&report), &report.witnessed), (None, &None));
    assert_eq!(report.actions[0].when.witnessed_before, None);
    assert_eq!(
        code(&verify_bundle(&bundle, &with_witness(&log.policy()))),
        Some("untrusted")
    );
}

#[test]
fn a_bundle_is_witnessed_by_its_own_checkpoint() {
    let (log, session) = story(|log| (log.size(), cosigned(log, log.size(), 1_764_000_009)));
    let mut bundle = log.bundle(session);
    bundle.checkpoint = cosigned(&log, log.size(), 1_764_000_030);
    let bytes = bundle.to_bytes().unwrap();
    for (trust, whose) in [
        (log.policy(), "log"),
        (with_witness(&log.policy()), "reader"),
    ] {
        let report = verify_bundle(&bytes, &trust);
        assert_eq!(code(&report), None);
        let [.., order, time] = report.links.as_slice() else {
            panic!("{report:#?}")
        };
        assert_eq!((order.link, time.link), (LinkKind::Order, LinkKind::Time));
        assert_eq!(order.signed_by[0].with, "log key");
        let [signer] = time.signed_by.as_slice() else {
            panic!("{time:#?}")
        };
        let key = witness().witness().unwrap();
        let id = key.key_id().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(signer.key, format!("w.example+{id}"));
        assert_eq!((signer.with, time.testimony), ("witness key", None));
        // Who follows the log's own policy trusts whoever set it.
        let administrators = time.trust.iter().any(|t| t.who == "Ada Approver");
        assert_eq!(administrators, whose == "log");
        assert!(time.trust[0].who.contains("quorum `w`"), "{time:#?}");
        assert_eq!(report.witnessed.unwrap().policy, whose);
        // A cosignature says which second it was made in.
        let before = Some(Timestamp::from_millis(1_764_000_031_000));
        assert_eq!(report.actions[0].when.witnessed_before, before);
    }
}

#[test]
fn a_word_without_the_witnesss_signature_is_none() {
    let (log, _) = story(|log| (log.size(), log.checkpoint(log.size())));
    let report = verify(&log, &log.checkpoint(log.size()), &log.policy());
    assert_eq!(code(&report), Some("untrusted"));
    assert_eq!(report.problems[0].index, Some(log.size() - 1));
}
