//! Witnesses: who they are, what their word is worth, what waits for it.

use ascribe_tlog::{Checkpoint, Hash, Tree, leaf_hash};

use super::*;
use crate::witness::{Cosigned, Demand, WitnessSet};

fn witness_key(name: &str) -> SigningKey {
    let seed: [u8; 32] = Sha256::digest(format!("witness {name}")).into();
    SigningKey::from_seed(&format!("{name}.example"), &seed).unwrap()
}

/// Three witnesses, two of whom are enough, with further or other lines.
fn policy(quorum: &str) -> String {
    let mut text = format!("log {}\n", writer_key(ORIGIN).verifier());
    for name in ["w1", "w2", "w3"] {
        let key = witness_key(name).witness().unwrap();
        text.push_str(&format!("witness {name} {key} https://{name}.example\n"));
    }
    text.push_str(&format!("group two 2 w1 w2 w3\n{quorum}\n"));
    text
}

pub(super) fn set(quorum: &str, demand: &[Demand]) -> WitnessSet {
    WitnessSet {
        demand: demand.to_vec(),
        policy: policy(quorum),
    }
}

impl World {
    pub(super) fn with_witnesses(admin_quorum: u32, demand: &[Demand]) -> Self {
        let mut world = Self::new(admin_quorum);
        let say = Say::WitnessSet(set("quorum two", demand));
        let ask = world.say(ADA, say, Vec::new()).unwrap();
        if admin_quorum > 1 {
            world.approve(BEN, ask).unwrap();
        }
        world
    }
    /// Names witnesses, and changes a target once they have seen it.
    pub(super) fn witnessed_change(&mut self) {
        let set = Say::WitnessSet(set("quorum two", &[Demand::Policy]));
        self.say(ADA, set, Vec::new()).unwrap();
        self.set_target(|_| ()).unwrap();
        self.now_seen().unwrap();
    }
    pub(super) fn set_target(&mut self, edit: impl FnOnce(&mut Target)) -> Result<AskRef, Denied> {
        let mut db1 = target("db1");
        edit(&mut db1);
        self.say(ADA, Say::TargetSet(db1), Vec::new())
    }
    /// The tree's checkpoint at `size`, signed by the log and cosigned by these at these seconds.
    fn cosigned(&self, size: u64, by: &[(&str, u64)]) -> Cosigned {
        let mut tree = Tree::new();
        for bytes in &self.log {
            tree.push(leaf_hash(bytes));
        }
        let root = tree.root_at(size).unwrap_or(Hash([9; 32]));
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root,
        };
        cosign(&checkpoint, by)
    }
    pub(super) fn now_seen(&mut self) -> Result<Vec<Sequenced>, Denied> {
        let cosigned = self.cosigned(self.state.size, &[("w1", 100), ("w3", 99)]);
        self.record(SERVER, Body::Cosigned(cosigned), Vec::new())
    }
}

fn cosign(checkpoint: &Checkpoint, by: &[(&str, u64)]) -> Cosigned {
    let text = checkpoint.to_text();
    let mut note = writer_key(ORIGIN).sign_note(&text).unwrap();
    for (name, time) in by {
        note.push_str(&witness_key(name).cosign(&text, *time).unwrap());
    }
    let latest = by.iter().map(|(_, time)| *time).max().unwrap_or_default();
    Cosigned {
        before: time(latest as i64 * 1000),
        note,
        settles: Vec::new(),
        size: checkpoint.size,
    }
}

#[test]
fn a_policy_names_this_log_and_witnesses_that_can_be_asked_and_checked() {
    let good = policy("quorum two");
    let url = " https://w1.example";
    let other = SigningKey::from_seed(ORIGIN, &[7; 32]).unwrap().verifier();
    let log = format!("log {}\n", writer_key(ORIGIN).verifier());
    for bad in [
        String::new(),
        good.replace("quorum two\n", ""),
        good.replace("quorum two", "quorum three"),
        good.replace(url, ""),
        good.replace(url, " ftp://w1.example"),
        good.replace(url, &format!(" https://{}", "x".repeat(512))),
        good.replace(&log, &format!("log {other}\n")),
        good.replace(&log, &format!("{log}log {other}\n")),
        format!("# \u{202e}\n{good}"),
        format!("{}{good}", "#\n".repeat(9000)),
    ] {
        let mut w = World::new(1);
        let say = Say::WitnessSet(WitnessSet {
            demand: Vec::new(),
            policy: bad.clone(),
        });
        assert_eq!(no(w.say(ADA, say, Vec::new())), "witnesses", "{bad:.200}");
    }
    let mut w = World::new(1);
    for demand in [&[Demand::Keys, Demand::Keys][..], &[Demand::Policy]] {
        let quorum = ["quorum two", "quorum none"][usize::from(demand.len() == 1)];
        let say = Say::WitnessSet(set(quorum, demand));
        assert_eq!(no(w.say(ADA, say, Vec::new())), "witnesses");
    }
    let say = Say::WitnessSet(set("quorum two", &[]));
    assert_eq!(no(w.say(REQ, say, Vec::new())), "role");
}

#[test]
fn the_witnesses_word_counts_only_with_their_signatures_and_quorum() {
    let mut w = World::with_witnesses(1, &[]);
    let size = w.state.size;
    let enough = [("w1", 100), ("w2", 105)];
    let good = w.cosigned(size, &enough);
    let edits: [Edit<Cosigned>; 6] = [
        (|c| c.size -= 1, "witnesses"),
        (|c| c.before = c.before.plus_millis(1), "witnesses"),
        (
            |c| c.note = c.note.replace("log\n2\n", "log\n1\n"),
            "cosigned",
        ),
        (
            |c| c.note.push_str("\u{2014} stranger AAAAAAAA\n"),
            "witnesses",
        ),
        (
            |c| {
                let line = c.note.lines().last().unwrap().to_owned();
                c.note.push_str(&format!("{line}\n"));
            },
            "witnesses",
        ),
        (|c| c.note.clear(), "cosigned"),
    ];
    for (edit, code) in edits {
        let mut bad = good.clone();
        edit(&mut bad);
        assert_ne!(bad, good);
        assert_eq!(no(w.record(SERVER, Body::Cosigned(bad), Vec::new())), code);
    }
    for by in [&[][..], &[("w1", 100)], &[("w1", 100), ("w4", 100)]] {
        let bad = w.cosigned(size, by);
        assert_eq!(
            no(w.record(SERVER, Body::Cosigned(bad), Vec::new())),
            "cosigned"
        );
    }
    // Signed by the log and the witnesses, for another log.
    let other = Checkpoint {
        origin: "example.org/other".to_owned(),
        size,
        root: Hash([1; 32]),
    };
    let other = Body::Cosigned(cosign(&other, &enough));
    assert_eq!(no(w.record(SERVER, other, Vec::new())), "cosigned");
    // They cannot have seen what is not there yet.
    let ahead = Body::Cosigned(w.cosigned(size + 1, &enough));
    assert_eq!(no(w.record(SERVER, ahead, Vec::new())), "witnesses");
    w.record(SERVER, Body::Cosigned(good.clone()), Vec::new())
        .unwrap();
    assert_eq!(
        (w.state.witnesses.size, w.state.witnesses.before),
        // Made in that second: whatever else happened in it may have been seen.
        (size, Some(time(106_000)))
    );
    assert_eq!(
        no(w.record(SERVER, Body::Cosigned(good), Vec::new())),
        "witnesses"
    );
    let back = Body::Cosigned(w.cosigned(size - 1, &enough));
    assert_eq!(no(w.record(SERVER, back, Vec::new())), "witnesses");
}

#[test]
fn without_witnesses_nobody_gives_their_word() {
    let mut w = World::new(1);
    let word = Body::Cosigned(w.cosigned(1, &[("w1", 1), ("w2", 1)]));
    assert_eq!(no(w.record(SERVER, word.clone(), Vec::new())), "witnesses");
    let say = |quorum| Say::WitnessSet(set(quorum, &[]));
    w.say(ADA, say("quorum two"), Vec::new()).unwrap();
    w.say(ADA, say("quorum none"), Vec::new()).unwrap();
    assert_eq!(no(w.record(SERVER, word, Vec::new())), "witnesses");
    assert_eq!(w.state.witnesses.unseen_since(), None);
}

#[test]
fn a_demanded_change_takes_effect_when_its_last_approval_is_seen() {
    let mut w = World::with_witnesses(2, &[Demand::Policy, Demand::People]);
    let ask = w.set_target(|_| ()).unwrap();
    // Seen before the approval: that is not enough.
    w.now_seen().unwrap();
    w.approve(BEN, ask).unwrap();
    let (add, name) = enrol(50, &[Role::Requester]);
    let person = w.say(BEN, Say::PersonAdd(add), vec![name]).unwrap();
    let stale = w.cosigned(w.state.size - 2, &[("w1", 7), ("w2", 7)]);
    assert!(w.state.targets.is_empty() && w.state.witnesses.is_awaited(ask.0));
    // It covers the proposal, and not its approval.
    w.record(SERVER, Body::Cosigned(stale), Vec::new()).unwrap();
    assert!(w.state.targets.is_empty());
    let done = w.now_seen().unwrap();
    let [word] = done.as_slice() else {
        panic!("{done:?}")
    };
    let Body::Cosigned(cosigned) = &word.entry.body else {
        panic!("{word:?}")
    };
    // It settles what was complete: the person lacks an approval still.
    assert_eq!(cosigned.settles, [ask.0]);
    assert_eq!(word.entry.refs.len(), 1);
    assert_eq!(w.state.asks[&ask.0].status, AskStatus::Granted);
    assert_eq!(w.state.asks[&person.0].status, AskStatus::Open);
    assert!(w.state.targets.contains_key("db1") && !w.state.witnesses.is_awaited(ask.0));
    assert_eq!(w.state.law_head.unwrap().hash, word.hash);
    w.approve(ADA, person).unwrap();
    assert!(!w.state.people.contains_key(&super::person(50)));
    w.now_seen().unwrap();
    assert!(w.state.people.contains_key(&super::person(50)));
    // Nothing waited: this is no law.
    w.now_seen().unwrap();
    assert_ne!(w.state.law_head.unwrap().index, w.state.size - 1);
}

#[test]
fn what_is_not_demanded_takes_effect_at_once() {
    let mut w = World::with_witnesses(1, &[Demand::Keys]);
    w.set_target(|_| ()).unwrap();
    assert!(w.state.targets.contains_key("db1"));
    let new = PersonKey {
        person: person(REQ),
        key: key(REQ, 2),
    };
    let fingerprint = new.key.fingerprint();
    w.say(ADA, Say::KeyAdd(new.clone()), Vec::new()).unwrap();
    assert_eq!(w.state.person_by_key(w.now, &fingerprint), None);
    w.now_seen().unwrap();
    assert_eq!(
        w.state.person_by_key(w.now, &fingerprint),
        Some(person(REQ))
    );
    // What takes permission away waits for nobody.
    w.say(ADA, Say::KeyRevoke(new), Vec::new()).unwrap();
    assert_eq!(w.state.person_by_key(w.now, &fingerprint), None);
}

#[test]
fn what_waits_can_be_refused_and_withdrawn_and_is_settled_in_order() {
    let mut w = World::with_witnesses(2, &[Demand::Policy, Demand::Keys]);
    let propose = |w: &mut World, nth| {
        let key = key(REQ, nth);
        let add = Say::KeyAdd(PersonKey {
            person: person(REQ),
            key,
        });
        let ask = w.say(ADA, add, Vec::new()).unwrap();
        w.approve(BEN, ask).unwrap();
        ask
    };
    let asks: Vec<AskRef> = [5, 6, 7, 7]
        .iter()
        .map(|nth| propose(&mut w, *nth))
        .collect();
    w.say(BEN, Say::Denial(answer(asks[0])), Vec::new())
        .unwrap();
    w.say(ADA, Say::Cancellation(answer(asks[1])), Vec::new())
        .unwrap();
    let done = w.now_seen().unwrap();
    let Body::Cosigned(cosigned) = &done[0].entry.body else {
        panic!("{done:?}")
    };
    assert_eq!(cosigned.settles, [asks[2].0, asks[3].0]);
    let status = |ask: &AskRef| w.state.asks[&ask.0].status;
    // The same key twice: by its turn the second is not lawful any more.
    let expected = [
        AskStatus::Denied,
        AskStatus::Cancelled,
        AskStatus::Granted,
        AskStatus::Denied,
    ];
    assert_eq!(asks.iter().map(status).collect::<Vec<_>>(), expected);
}

#[test]
fn so_many_wait_at_once_and_no_more() {
    let mut w = World::with_witnesses(1, &[Demand::Policy]);
    for n in 0..64 {
        w.set_target(|t| t.name = format!("db{n}")).unwrap();
    }
    assert_eq!(no(w.set_target(|_| ())), "unwitnessed");
    let done = w.now_seen().unwrap();
    assert!(done[0].bytes.len() < 32_000, "{}", done[0].bytes.len());
    assert_eq!(w.state.targets.len(), 64);
    w.set_target(|_| ()).unwrap();
}

#[test]
fn the_word_settles_exactly_what_waits() {
    let mut w = World::with_witnesses(1, &[Demand::Policy]);
    let ask = w.set_target(|_| ()).unwrap();
    let done = w.now_seen().unwrap();
    let last = w.log.pop().unwrap();
    for settles in [
        Vec::new(),
        vec![ask.0, ask.0],
        vec![StatementId::new([3; 16])],
    ] {
        let mut entry = Entry::from_bytes(&last).unwrap();
        let Body::Cosigned(cosigned) = &mut entry.body else {
            panic!("{done:?}")
        };
        cosigned.settles = settles;
        let mut replay = State::new(ORIGIN);
        for bytes in &w.log {
            replay.apply(&Fake, bytes).unwrap();
        }
        let bytes = entry.to_bytes().unwrap();
        assert_eq!(no(replay.apply(&Fake, &bytes)), "witnesses");
    }
    w.log.push(last);
}

#[test]
fn a_break_glass_session_waits_until_its_grant_is_seen() {
    let mut w = World::with_witnesses(1, &[Demand::BreakGlass]);
    w.set_target(|_| ()).unwrap();
    w.now_seen().unwrap();
    let ask = w.break_glass(REQ, HOUR / 2).unwrap();
    let grant = w.grant_of(ask).unwrap();
    let admit = |w: &World| w.state.admit(w.now, &wanted(REQ));
    assert_eq!(no(w.open(grant)), "unwitnessed");
    assert!(matches!(admit(&w), Admission::Refused(d) if d.code == "unwitnessed"));
    // The statement is covered, the grant that followed from it is not.
    let stale = w.cosigned(w.state.size - 1, &[("w1", 7), ("w2", 7)]);
    w.record(SERVER, Body::Cosigned(stale), Vec::new()).unwrap();
    assert_eq!(no(w.open(grant)), "unwitnessed");
    w.now_seen().unwrap();
    assert!(matches!(admit(&w), Admission::Grant(_)));
    w.open(grant).unwrap();
    // Others need no witnesses here.
    let ordinary = w.grant(|_| ());
    w.open(ordinary).unwrap();
}

#[test]
fn new_sessions_stop_while_what_no_witness_has_seen_is_too_old() {
    let mut w = World::with_witnesses(1, &[]);
    w.set_target(|t| t.max_unwitnessed_seconds = Some(10))
        .unwrap();
    let grant = w.grant(|_| ());
    let running = w.open(grant).unwrap();
    w.after(10_000);
    w.open(grant).unwrap();
    w.after(1000);
    let denied = w.open(grant).unwrap_err();
    assert_eq!(denied.code, "unwitnessed");
    assert!(denied.message.contains("11 s ago"), "{denied}");
    assert!(denied.help.unwrap().contains("ledger status"));
    // What runs goes on.
    w.intent(running).unwrap();
    w.now_seen().unwrap();
    assert_eq!(w.state.witnesses.unseen_since(), None);
    // Of themselves heads and the witnesses' word are nothing that is old.
    w.head("gw").unwrap();
    w.after(HOUR / 2);
    w.open(grant).unwrap();
}

#[test]
fn a_target_that_demands_witnesses_is_shut_without_any() {
    let mut w = World::with(|t| t.max_unwitnessed_seconds = Some(60));
    let grant = w.grant(|_| ());
    let denied = w.open(grant).unwrap_err();
    assert_eq!(denied.code, "unwitnessed");
    assert!(denied.help.unwrap().contains("witness set"));
    for bad in [0, 4, 90 * 24 * 3600 + 1] {
        let set = w.set_target(|t| t.max_unwitnessed_seconds = Some(bad));
        assert_eq!(no(set), "target");
    }
}

#[test]
fn marks_of_time_are_bounded_and_nothing_passes_for_newer_than_it_is() {
    let mut witnesses = Witnesses::default();
    witnesses.set = Some(set("quorum two", &[]));
    let body = Body::Refusal(Refusal {
        person: person(REQ),
        delegation: None,
        what: "session".to_owned(),
        code: "expired".to_owned(),
        session: None,
        detail: None,
    });
    let at = |index: u64| time(T0 + index as i64 * 700);
    for index in 0..40_000 {
        witnesses.mark(index, at(index), &body);
        assert!(witnesses.marks() <= 4096);
        assert_eq!(witnesses.unseen_since(), Some(at(0)));
    }
    for seen in (0..40_000).step_by(317) {
        witnesses.drop_seen(seen);
        let since = witnesses.unseen_since().unwrap();
        assert!(since <= at(seen), "{seen}");
    }
    // Close to the end the marks are close to each other.
    witnesses.drop_seen(39_990);
    let since = witnesses.unseen_since().unwrap();
    assert!(at(39_990).since(since) < 20_000, "{since}");
    witnesses.drop_seen(40_000);
    assert_eq!(witnesses.unseen_since(), None);
}
