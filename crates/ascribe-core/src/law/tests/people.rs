//! Who may do what: keys, roles, enrolment, leaving, the quorum of administrators.

use super::*;

#[test]
fn a_key_is_revoked_by_its_holder_or_any_one_admin() {
    for (by, code) in [
        (REQ, None),
        (ADA, None),
        (BEN, None),
        (PAT, Some("role")),
        (AUD, Some("role")),
    ] {
        // Two admins are the quorum here; a stolen key needs only one.
        let mut w = World::new(2);
        let stolen = Say::KeyRevoke(PersonKey {
            person: person(REQ),
            key: key(REQ, 1),
        });
        let done = w.say(by, stolen.clone(), Vec::new());
        let owner = w.state.person_by_key(w.now, &key(REQ, 1).fingerprint());
        match code {
            None => {
                done.unwrap();
                assert_eq!(owner, None);
                assert_eq!(no(w.say(by, stolen, Vec::new())), "key");
                let late = Say::KeyRevoke(PersonKey {
                    person: person(REQ),
                    key: key(REQ, 0),
                });
                assert_eq!(no(w.say_with(REQ, 1, late, Vec::new())), "key");
            }
            Some(code) => {
                assert_eq!(no(done), code);
                assert_eq!(owner, Some(person(REQ)));
            }
        }
    }
}

#[test]
fn revoking_keys_neither_locks_everybody_out_nor_lets_a_key_return() {
    let revoke = |n, nth| {
        let (person, key) = (person(n), key(n, nth));
        Say::KeyRevoke(PersonKey { person, key })
    };
    let mut w = World::new(2);
    for nth in 0.. {
        let state = &w.state.people[&person(BEN)];
        if !state.keys.contains_key(&key(BEN, nth).fingerprint()) {
            break;
        }
        let last = state.keys.len() == 1;
        let done = w.say(ADA, revoke(BEN, nth), Vec::new());
        assert_eq!(
            done.is_err(),
            last,
            "the last key of the last second admin stays"
        );
    }
    w.say(ADA, revoke(REQ, 1), Vec::new()).unwrap();
    let (person, key) = (person(REQ), key(REQ, 1));
    let again = Say::KeyAdd(PersonKey { person, key });
    assert_eq!(no(w.say(ADA, again, Vec::new())), "revoked");
}

#[test]
fn a_request_is_read_by_who_made_it_may_approve_it_or_audits() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    let query = opening("query", "why");
    for (by, good) in [(REQ, true), (PAT, true), (AUD, true), (ADA, false)] {
        let read = Read {
            view: View::Request,
            query: query.commitment(),
            request: Some(ask.0),
            session: None,
        };
        let done = w.say(by, Say::Read(read), vec![query.clone()]);
        assert_eq!(done.is_ok(), good, "{by}");
    }
}

#[test]
fn a_revoked_login_key_ends_its_sessions() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let say = Say::KeyRevoke(PersonKey {
        person: person(REQ),
        key: key(REQ, 0),
    });
    w.say(ADA, say, Vec::new()).unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open(grant)), "key");
}

#[test]
fn offboarding_ends_sessions_and_grants() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let leave = |n| Say::Offboard(Offboard { person: person(n) });
    assert_eq!(no(w.say(PAT, leave(REQ), Vec::new())), "role");
    w.say(ADA, leave(REQ), Vec::new()).unwrap();
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open(grant)), "revoked");
    assert!(w.admit(None).is_err());
    assert_eq!(
        w.state.person_by_key(w.now, &key(REQ, 0).fingerprint()),
        None
    );
    assert_eq!(no(w.request(REQ, |_| ())), "offboarded");
    assert_eq!(no(w.say(ADA, leave(REQ), Vec::new())), "settled");
    w.close(session).unwrap();
    w.say(BEN, leave(ADA), Vec::new()).unwrap();
    assert_eq!(no(w.say(BEN, leave(BEN), Vec::new())), "quorum");
}

#[test]
fn under_admin_quorum_two_a_proposal_waits_for_the_second_admin() {
    let mut w = World::new(2);
    let ask = w
        .say(ADA, Say::TargetSet(target("db1")), Vec::new())
        .unwrap();
    assert!(w.state.targets.is_empty());
    assert_eq!(no(w.approve(ADA, ask)), "self-approval");
    for by in [PAT, AUD] {
        assert_eq!(no(w.approve(by, ask)), "role");
    }
    w.approve(BEN, ask).unwrap();
    assert!(w.state.targets.contains_key("db1"));
    let own = Say::KeyAdd(PersonKey {
        person: person(BEN),
        key: key(BEN, 2),
    });
    let ask = w.say(ADA, own, Vec::new()).unwrap();
    assert_eq!(no(w.approve(BEN, ask)), "self-approval");
    let leave = Say::Offboard(Offboard {
        person: person(BEN),
    });
    assert_eq!(no(w.say(ADA, leave, Vec::new())), "quorum");
}

#[test]
fn an_auditor_is_not_an_admin_and_an_admin_is_not_an_auditor() {
    let mut w = World::plain();
    for by in [AUD, PAT, REQ] {
        let done = w.say(by, Say::TargetSet(target("db2")), Vec::new());
        assert_eq!(no(done), "role");
        let (add, name) = enrol(50, &[Role::Admin]);
        assert_eq!(no(w.say(by, Say::PersonAdd(add), vec![name])), "role");
    }
    let grant = w.grant(|_| ());
    let own = w.open(grant).unwrap();
    let query = opening("query", "all");
    for (by, view, session, good) in [
        (AUD, View::Actions, None, true),
        (AUD, View::Export, Some(own), true),
        (ADA, View::Actions, None, false),
        (ADA, View::Replay, Some(own), false),
        (PAT, View::Actions, Some(own), false),
        (REQ, View::Actions, Some(own), true),
        (REQ, View::Actions, None, false),
        (ADA, View::Registry, None, true),
    ] {
        let read = Read {
            view,
            query: query.commitment(),
            request: None,
            session,
        };
        let done = w.say(by, Say::Read(read), vec![query.clone()]);
        assert_eq!(done.is_ok(), good, "{by} {view:?} {session:?}");
    }
    for by in [ADA, AUD, QUI] {
        assert_eq!(no(w.request(by, |_| ())), "role");
    }
}

#[test]
fn enrolment_takes_each_person_and_key_once() {
    let mut w = World::new(1);
    let (add, name) = enrol(50, &[Role::Requester]);
    w.say(ADA, Say::PersonAdd(add.clone()), vec![name.clone()])
        .unwrap();
    let edits: [Edit<PersonAdd>; 6] = [
        (|_| (), "duplicate"),
        (|a| a.person = person(51), "duplicate"),
        (|a| (a.person, a.keys) = (person(51), vec![]), "key"),
        (
            |a| (a.person, a.keys) = (person(51), vec![key(51, 0), key(51, 0)]),
            "duplicate",
        ),
        (
            |a| (a.person, a.keys) = (person(51), vec![SshKey("ssh-ed25519 x y".to_owned())]),
            "key",
        ),
        (
            |a| {
                let weak = key(51, 0).0.replace("ssh-ed25519", "ssh-dss");
                (a.person, a.keys) = (person(51), vec![SshKey(weak)]);
            },
            "key-type",
        ),
    ];
    for (edit, code) in edits {
        let mut add = add.clone();
        edit(&mut add);
        let done = w.say(ADA, Say::PersonAdd(add), vec![name.clone()]);
        assert_eq!(no(done), code);
    }
}

#[test]
fn a_proposal_is_checked_again_when_it_takes_effect() {
    let mut w = World::new(2);
    let pair = |n| {
        Say::KeyAdd(PersonKey {
            person: person(n),
            key: key(60, 0),
        })
    };
    let first = w.say(ADA, pair(REQ), Vec::new()).unwrap();
    let second = w.say(ADA, pair(PAT), Vec::new()).unwrap();
    w.approve(BEN, first).unwrap();
    assert_eq!(no(w.approve(BEN, second)), "duplicate");
    let owner = w.state.person_by_key(w.now, &key(60, 0).fingerprint());
    assert_eq!(owner, Some(person(REQ)));
}

#[test]
fn one_enrolment_of_a_person_waits_at_a_time() {
    let mut w = World::new(2);
    let (add, name) = enrol(50, &[Role::Requester]);
    let first = w
        .say(ADA, Say::PersonAdd(add.clone()), vec![name.clone()])
        .unwrap();
    let other = opening("name", "somebody else");
    let second = PersonAdd {
        name: other.commitment(),
        ..add
    };
    assert_eq!(
        no(w.say(BEN, Say::PersonAdd(second), vec![other])),
        "duplicate"
    );
    w.approve(BEN, first).unwrap();
    assert!(w.state.people.contains_key(&person(50)));
}
