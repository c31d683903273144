//! Witnesses may have seen only this tree.

use ascribe_core::witness::{Cosigned, WitnessSet};
use ascribe_tlog::SigningKey;

use super::*;

#[test]
fn a_word_over_another_tree_is_not_recorded() {
    let world = World::new();
    world.init();
    let ledger = world.open().unwrap();
    let witness = SigningKey::from_seed("w.example", &[1; 32]).unwrap();
    let key = witness.witness().unwrap();
    let policy = format!(
        "log {}\nwitness w {key} https://w.example\nquorum w\n",
        ledger.log_key()
    );
    let set = WitnessSet {
        demand: Vec::new(),
        policy,
    };
    record(&ledger, world.statement(Say::WitnessSet(set), vec![])).unwrap();
    let good = ledger.checkpoint_note();
    let say = |note: String, size: u64| {
        let (text, _) = note.split_once("\n\n").unwrap();
        let line = witness.cosign(&format!("{text}\n"), 1_764_000_000).unwrap();
        let word = Cosigned {
            before: Timestamp::from_millis(1_764_000_000_000),
            note: format!("{note}{line}"),
            settles: Vec::new(),
            size,
        };
        record(&ledger, world.proposal(Body::Cosigned(word)))
    };
    let size = Checkpoint::open(good.as_bytes(), &[ledger.log_key()])
        .unwrap()
        .size;
    // Signed by the log's own key, as somebody could who holds it.
    let log = crate::config::Keys::load(&world.dir(), ORIGIN).unwrap().log;
    assert_eq!(log.verifier(), ledger.log_key());
    let other = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: Hash([7; 32]),
    };
    let refused = say(log.sign_note(&other.to_text()).unwrap(), size);
    assert!(matches!(refused, Err(RecordError::Denied(d)) if d.code == "cosigned"));
    say(good, size).unwrap();
    assert_eq!(ledger.with_state(|state| state.witnesses.size), size);
}
