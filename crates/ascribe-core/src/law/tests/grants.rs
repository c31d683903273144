//! What a request, an approval and a grant allow, and until when.

use super::*;

#[test]
fn the_full_path_holds_every_kind_and_replays_to_the_same_state() {
    let w = full_path();
    let kinds: BTreeSet<&str> = w
        .log
        .iter()
        .map(|bytes| Entry::from_bytes(bytes).unwrap().body.kind())
        .collect();
    assert_eq!(kinds, Body::KINDS.iter().copied().collect());
    let mut sessions = w.state.sessions.values();
    let session = sessions.find(|s| s.open.delegation.is_none()).unwrap();
    assert_eq!((session.actions, session.entries), (2, 6));
    assert!(w.state.open_actions().is_empty() && w.state.open_sessions().is_empty());
    let grant = &w.state.grants[&session.open.grant];
    assert_eq!(grant.approvals[0].by, person(PAT));
    assert!(grant.sessions.contains(&session.open.session));
}

#[test]
fn requester_is_never_approver_with_any_key() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    for nth in [0, 1] {
        let yes = Say::Approval(answer(ask));
        assert_eq!(no(w.say_with(REQ, nth, yes, Vec::new())), "self-approval");
        let deny = Say::Denial(answer(ask));
        assert_eq!(no(w.say_with(REQ, nth, deny, Vec::new())), "self-approval");
    }
    for (by, code) in [(ADA, "role"), (AUD, "role")] {
        assert_eq!(no(w.approve(by, ask)), code);
    }
    assert_eq!(w.grant_of(ask), None);
    w.approve(PAT, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
}

#[test]
fn quorum_two_needs_two_different_people() {
    let mut w = World::with(|t| t.quorum = 2);
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.grant_of(ask), None);
    assert_eq!(no(w.approve(PAT, ask)), "duplicate");
    let again = Say::Approval(answer(ask));
    assert_eq!(no(w.say_with(PAT, 1, again, Vec::new())), "duplicate");
    assert_eq!(no(w.admit(None)), "pending");
    w.approve(QUI, ask).unwrap();
    let grant = w.grant_of(ask).unwrap();
    assert_eq!(w.state.grants[&grant].approvals.len(), 2);
    assert_eq!(no(w.approve(QUI, ask)), "settled");
}

#[test]
fn a_required_approver_must_be_among_the_approvers() {
    let mut w = World::with(|t| {
        t.required_approvers = vec![person(QUI)];
    });
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.grant_of(ask), None, "the quorum alone is not enough");
    w.approve(QUI, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
}

#[test]
fn the_window_holds_to_the_millisecond() {
    let mut w = World::plain();
    let start = w.now.plus_millis(10 * MIN);
    let end = start.plus_millis(HOUR);
    let grant = w.grant(|r| (r.not_before, r.not_after) = (start, end));
    w.now = start.plus_millis(-1);
    assert_eq!(no(w.open(grant)), "not-yet");
    assert_eq!(no(w.admit(None)), "not-yet");
    w.now = start;
    let session = w.open(grant).unwrap();
    w.now = end.plus_millis(-1);
    assert_eq!(w.admit(None), Ok(grant));
    w.open(grant).unwrap();
    let last = w.intent(session).unwrap();
    w.now = end;
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open(grant)), "expired");
    assert_eq!(no(w.admit(None)), "expired");
    w.outcome(last).unwrap();
    w.close(session).unwrap();
    assert_eq!(no(w.close(session)), "closed");
    assert_eq!(no(w.intent(session)), "closed");
}

#[test]
fn windows_are_checked_when_asked_for() {
    let mut w = World::plain();
    let now = w.now;
    let max = 4 * HOUR;
    for (from, until, good) in [
        (now, now.plus_millis(max), true),
        (now, now.plus_millis(max + 1), false),
        (now, now, false),
        (now.plus_millis(-HOUR), now, false),
        (now.plus_millis(-HOUR), now.plus_millis(1), true),
        (now.plus_millis(MIN), now, false),
    ] {
        let asked = w.request(REQ, |r| (r.not_before, r.not_after) = (from, until));
        match asked {
            Ok(_) => assert!(good, "{from} {until}"),
            Err(denied) => assert!(!good && denied.code == "window", "{from} {until}"),
        }
    }
    let ask = w.request(REQ, |_| ()).unwrap();
    w.after(HOUR);
    assert_eq!(no(w.approve(PAT, ask)), "window", "too late to approve");
}

#[test]
fn single_use_is_one_session_and_reusable_is_many() {
    let mut w = World::plain();
    let once = w.grant(|r| r.uses = Uses::Single);
    let first = w.open(once).unwrap();
    assert_eq!(no(w.open(once)), "used");
    w.close(first).unwrap();
    assert_eq!(no(w.open(once)), "used", "a closed session counts");
    assert_eq!(no(w.admit(None)), "used");
    let many = w.grant(|_| ());
    for _ in 0..3 {
        w.open(many).unwrap();
    }
}

#[test]
fn a_session_is_exactly_what_its_grant_allows() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let edits: [Edit<SessionOpen>; 5] = [
        (|o| o.person = person(PAT), "outside-grant"),
        (|o| o.account = "app".to_owned(), "outside-grant"),
        (|o| o.target = "db2".to_owned(), "outside-grant"),
        (|o| o.key = key(PAT, 0).fingerprint(), "key"),
        (|o| o.grant = GrantId::new([9; 16]), "no-grant"),
    ];
    for (edit, code) in edits {
        let (mut open, from) = w.session_for(grant);
        edit(&mut open);
        let done = w.record("gw", Body::SessionOpen(open), vec![from]);
        assert_eq!(no(done), code);
    }
    let stray = SessionId::new([7; 16]);
    assert_eq!(no(w.intent(stray)), "no-session");
    assert_eq!(no(w.outcome(ActionId::new([7; 16]))), "no-action");
    assert_eq!(no(w.close(stray)), "no-session");
}

#[test]
fn a_revoked_grant_refuses_intents_and_sessions() {
    for (by, allowed) in [
        (REQ, true),
        (PAT, true),
        (QUI, true),
        (ADA, true),
        (AUD, false),
    ] {
        let mut w = World::plain();
        let grant = w.grant(|_| ());
        let session = w.open(grant).unwrap();
        w.intent(session).unwrap();
        let done = w.revoke(by, grant);
        if !allowed {
            assert_eq!(no(done), "role");
            w.intent(session).unwrap();
            continue;
        }
        done.unwrap();
        assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
        assert_eq!(no(w.intent(session)), "revoked");
        assert_eq!(no(w.open(grant)), "revoked");
        assert_eq!(no(w.admit(None)), "revoked");
        assert_eq!(no(w.revoke(by, grant)), "settled");
    }
}

#[test]
fn an_extension_needs_somebody_elses_yes() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let end = w.state.grants[&grant].grant.not_after;
    assert_eq!(no(w.extend(PAT, grant, end.plus_millis(1))), "not-yours");
    assert_eq!(no(w.extend(REQ, grant, end)), "window");
    assert_eq!(
        no(w.extend(REQ, grant, end.plus_millis(3 * HOUR + 1))),
        "window"
    );
    let longer = w.extend(REQ, grant, end.plus_millis(HOUR)).unwrap();
    let shorter = w.extend(REQ, grant, end.plus_millis(MIN)).unwrap();
    assert_eq!(no(w.approve(REQ, longer)), "self-approval");
    assert_eq!(w.state.grants[&grant].grant.not_after, end);
    w.approve(PAT, longer).unwrap();
    assert_eq!(no(w.approve(PAT, shorter)), "window", "never shortens");
    let moved = w.state.grants[&grant].grant.not_after;
    assert_eq!(moved, end.plus_millis(HOUR));
    w.now = end;
    w.intent(session).unwrap();
    let last = w.extend(REQ, grant, end.plus_millis(2 * HOUR)).unwrap();
    w.now = moved;
    assert_eq!(
        no(w.approve(PAT, last)),
        "window",
        "an ended grant stays so"
    );
    assert_eq!(no(w.extend(REQ, grant, end.plus_millis(3 * HOUR))), "ended");
}

#[test]
fn only_the_asker_withdraws_and_a_denial_is_final() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    let withdraw = || Say::Cancellation(answer(ask));
    assert_eq!(no(w.say(PAT, withdraw(), Vec::new())), "not-yours");
    assert_eq!(no(w.say(ADA, withdraw(), Vec::new())), "not-yours");
    w.say(REQ, withdraw(), Vec::new()).unwrap();
    assert_eq!(no(w.approve(PAT, ask)), "settled");
    let ask = w.request(REQ, |_| ()).unwrap();
    w.say(PAT, Say::Denial(answer(ask)), Vec::new()).unwrap();
    assert_eq!(no(w.approve(QUI, ask)), "settled");
    let withdraw = Say::Cancellation(answer(ask));
    assert_eq!(no(w.say(REQ, withdraw, Vec::new())), "settled");
    let wrong = (ask.0, EntryHash(ascribe_tlog::Hash([1; 32])));
    assert_eq!(no(w.approve(QUI, wrong)), "links");
    assert_eq!(no(w.admit(None)), "no-grant");
}

#[test]
fn break_glass_is_for_the_named_lasts_an_hour_and_is_marked() {
    let mut w = World::plain();
    assert_eq!(no(w.break_glass(PAT, HOUR)), "break-glass");
    assert_eq!(no(w.break_glass(REQ, HOUR + 1)), "window");
    assert_eq!(no(w.break_glass(REQ, 0)), "window");
    let ask = w.break_glass(REQ, HOUR).unwrap();
    let grant = w.grant_of(ask).unwrap();
    let state = w.state.grants[&grant].clone();
    assert!(state.grant.break_glass && state.review_due.is_some());
    assert_eq!(no(w.approve(PAT, ask)), "break-glass");
    assert_eq!(
        no(w.extend(REQ, grant, w.now.plus_millis(2 * HOUR))),
        "break-glass"
    );
    let session = w.open(grant).unwrap();
    w.intent(session).unwrap();
    let Admission::Grant(view) = w.state.admit(w.now, &wanted(REQ)) else {
        panic!("no way in");
    };
    assert!(view.break_glass);
    w.after(HOUR);
    assert_eq!(no(w.intent(session)), "expired");
}

#[test]
fn a_break_glass_review_is_somebody_elses_and_an_overdue_one_blocks() {
    let mut w = World::plain();
    let first = w.break_glass(REQ, MIN).unwrap();
    let first = w.grant_of(first).unwrap();
    let due = w.state.grants[&first].review_due.unwrap();
    w.now = due.plus_millis(-1);
    w.break_glass(REQ, MIN).unwrap();
    w.now = due;
    assert_eq!(no(w.break_glass(REQ, MIN)), "review-overdue");
    assert_eq!(no(w.review(REQ, first)), "self-approval");
    w.review(AUD, first).unwrap();
    assert_eq!(no(w.review(PAT, first)), "settled");
    w.break_glass(REQ, MIN).unwrap();
    let plain = w.grant(|_| ());
    assert_eq!(no(w.review(PAT, plain)), "settled");
}

#[test]
fn a_trivial_justification_is_refused() {
    let mut w = World::plain();
    for text in [
        "",
        "because",
        "aaaaaaaa aaaaaaaaaaa",
        "fix it",
        "x x x x x x x x x x x x x",
    ] {
        let (trivial, opening) = prose("justification", text);
        let (mut request, _) = w.request_for();
        request.justification = trivial;
        let done = w.say(REQ, Say::Request(request), vec![opening]);
        assert_eq!(no(done), "prose", "{text}");
    }
    // Facts about the text that are not true of it are no way round.
    let (mut request, _) = w.request_for();
    let opening = opening("justification", "because");
    request.justification = Prose {
        commit: opening.commitment(),
        ..request.justification
    };
    let done = w.say(REQ, Say::Request(request), vec![opening]);
    assert_eq!(no(done), "openings");
}

#[test]
fn a_ticket_follows_the_targets_rule() {
    let mut w = World::with(|t| {
        t.ticket = Some(TicketRule {
            system: "jira".to_owned(),
            pattern: "OPS-#".to_owned(),
        });
    });
    let ticket = |system: &str, id: &str| {
        Some(Ticket {
            system: system.to_owned(),
            id: id.to_owned(),
        })
    };
    for (given, good) in [
        (None, false),
        (ticket("jira", "OPS-42"), true),
        (ticket("jira", "OPS-x"), false),
        (ticket("jira", "OPS-42 "), false),
        (ticket("snow", "OPS-42"), false),
    ] {
        let done = w.request(REQ, |r| r.ticket = given.clone());
        match done {
            Ok(_) => assert!(good, "{given:?}"),
            Err(denied) => assert!(!good && denied.code == "ticket", "{given:?}"),
        }
    }
    assert_eq!(no(w.break_glass(REQ, MIN)), "ticket");
    assert_eq!(
        no(w.request(REQ, |r| r.account = "nobody".to_owned())),
        "account"
    );
    assert_eq!(
        no(w.request(REQ, |r| r.target = "db9".to_owned())),
        "no-target"
    );
}

#[test]
fn two_fitting_grants_are_listed_and_one_is_chosen() {
    let mut w = World::plain();
    let (a, b) = (w.grant(|_| ()), w.grant(|_| ()));
    let denied = w.admit(None).unwrap_err();
    assert_eq!(denied.code, "ambiguous");
    for id in [a, b] {
        assert!(denied.message.contains(&id.to_string()));
        assert_eq!(w.admit(Some(id)), Ok(id));
    }
    let choose = Say::Use(UseGrant { grant: b });
    assert_eq!(no(w.say(PAT, choose.clone(), Vec::new())), "not-yours");
    w.say(REQ, choose, Vec::new()).unwrap();
    assert_eq!(w.admit(None), Ok(b));
    w.revoke(REQ, b).unwrap();
    assert_eq!(w.admit(None), Ok(a));
    assert_eq!(no(w.admit(Some(b))), "revoked");
}

fn leaves(n: u8) -> Say {
    Say::Offboard(Offboard { person: person(n) })
}

#[test]
fn a_target_whose_system_owner_has_left_gets_no_new_grant() {
    let mut w = World::with(|db1| db1.system_owner = person(AUD));
    let grant = w.grant(|_| ());
    let until = w.state.grants[&grant].grant.not_after.plus_millis(HOUR);
    let waits = w.request(REQ, |_| ()).unwrap();
    let longer = w.extend(REQ, grant, until).unwrap();
    w.say(ADA, leaves(AUD), vec![]).unwrap();
    for asked in [waits, longer] {
        assert_eq!(no(w.approve(PAT, asked)), "system-owner");
    }
    let asked = w.request(REQ, |_| ());
    let denied = asked.unwrap_err();
    assert_eq!(denied.code, "system-owner");
    assert!(denied.help.unwrap().contains("ascribe target add db1"));
    assert_eq!(no(w.break_glass(REQ, HOUR)), "system-owner");
    let later = until.plus_millis(HOUR);
    assert_eq!(no(w.extend(REQ, grant, later)), "system-owner");
    // What was granted goes on, and can be taken away.
    let session = w.open(grant).unwrap();
    w.intent(session).unwrap();
    // Nobody who has left becomes an owner.
    let mut db1 = target("db1");
    for name in ["db1", "db2"] {
        (db1.name, db1.system_owner) = (name.to_owned(), person(AUD));
        assert_eq!(no(w.say(ADA, Say::TargetSet(db1.clone()), vec![])), "owner");
    }
    // Somebody else answers for it: what waited is approved.
    (db1.name, db1.system_owner) = ("db1".to_owned(), person(QUI));
    w.say(ADA, Say::TargetSet(db1), vec![]).unwrap();
    w.approve(PAT, longer).unwrap();
    assert_eq!(w.state.grants[&grant].grant.not_after, until);
    w.approve(PAT, waits).unwrap();
    w.grant_of(waits).unwrap();
    w.break_glass(REQ, HOUR).unwrap();
}

#[test]
fn a_grant_that_was_held_back_does_not_outlast_the_systems_owner() {
    let mut w = World::with(|db1| db1.system_owner = person(AUD));
    let asked = w.request(REQ, |_| ()).unwrap();
    // Whoever writes the log leaves out what follows from the approval, until the owner has left.
    let before = w.log.len();
    w.approve(PAT, asked).unwrap();
    let mut held = World::empty();
    (held.now, held.count) = (w.now, w.count);
    for bytes in &w.log[..=before] {
        held.state.apply(&Fake, bytes).unwrap();
        held.log.push(bytes.clone());
    }
    let late = held.state.grant_from(asked.0).unwrap();
    held.say(ADA, leaves(AUD), vec![]).unwrap();
    let done = held.record(SERVER, Body::Grant(late), vec![]);
    assert_eq!(no(done), "system-owner");
}

#[test]
fn an_older_log_is_judged_by_the_rules_of_its_time() {
    let mut w = World::empty();
    let people = everybody();
    w.record_as_once(Body::Genesis(genesis(1, &people)))
        .unwrap();
    let mut db1 = target("db1");
    db1.system_owner = person(AUD);
    w.say_as_once(ADA, Say::TargetSet(db1.clone())).unwrap();
    w.say_as_once(ADA, leaves(AUD)).unwrap();
    w.say_as_once(ADA, Say::TargetSet(db1.clone())).unwrap();
    let (request, _) = w.request_for();
    let asked = w.say_as_once(REQ, Say::Request(request)).unwrap();
    w.say_as_once(PAT, Say::Approval(answer(asked))).unwrap();
    let grant = w.state.grant_from(asked.0).unwrap();
    w.record_as_once(Body::Grant(grant)).unwrap();
    let grant = w.grant_of(asked).unwrap();
    // From the first newer entry on, the newer rules count: what was granted holds.
    let session = w.open(grant).unwrap();
    w.intent(session).unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "system-owner");
    assert_eq!(no(w.say(ADA, Say::TargetSet(db1.clone()), vec![])), "owner");
    // And nobody goes back behind them.
    let again = w.say_as_once(ADA, Say::TargetSet(db1));
    assert_eq!(no(again), "version");
}

#[test]
fn a_later_extension_or_owner_changes_no_older_record() {
    use crate::attribution::{Filter, Fold};
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    w.after(MIN);
    let session = w.open(grant).unwrap();
    let first = w.intent(session).unwrap();
    w.outcome(first).unwrap();
    let records = |w: &World| {
        let mut fold = Fold::new();
        for (index, bytes) in (0u64..).zip(&w.log) {
            let entry = Entry::from_bytes(bytes).unwrap();
            fold.push(index, &entry, crate::entry::entry_hash(bytes));
        }
        let root = ascribe_tlog::Hash::ZERO;
        fold.actions(&w.state, &Filter::default(), root, u64::MAX, "withheld")
    };
    let before = records(&w);
    let until = w.state.grants[&grant].grant.not_after.plus_millis(HOUR);
    let longer = w.extend(REQ, grant, until).unwrap();
    w.after(5).approve(QUI, longer).unwrap();
    let mut changed = target("db1");
    changed.system_owner = person(AUD);
    w.say(ADA, Say::TargetSet(changed), Vec::new()).unwrap();
    w.after(5);
    let second = w.intent(session).unwrap();
    w.outcome(second).unwrap();
    let after = records(&w);
    assert_eq!(after[..1], before[..]);
    assert_eq!(after[1].why.not_after, until);
    assert_eq!(
        after[1].why.approvals.len(),
        after[0].why.approvals.len() + 1
    );
}
