//! What a report says of sessions: one of a whole ledger, all of them in numbers, and by which versions' rules.

use ascribe_core::entry::Body;
use ascribe_core::id::{ActionId, SessionId};
use ascribe_core::statement::{PersonAdd, PersonKey, Role, Say, Uses};
use ascribe_verify::{
    Asked, Judged, Link, LinkKind, Report, Sessions, Verdict, render, verify_asked, verify_bundle,
};

use super::agents::session_of_an_agent;
use super::forge::{Forge, Who, sealed};
use super::scenes::{Running, plain};
use super::witnesses::{cosigned, with_witness};

fn whole(log: &Forge, session: Option<SessionId>, note: &str) -> Report {
    let asked = Asked {
        session,
        ..Asked::default()
    };
    let (note, trust) = (note.as_bytes(), log.policy());
    let (bytes, openings) = (&log.bytes, &log.openings);
    verify_asked(asked, note, bytes, openings, &trust, "missing", &mut |_| ())
}

fn report(log: &Forge, session: Option<SessionId>) -> Report {
    let report = whole(log, session, &log.checkpoint(log.size()));
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    report
}

fn bundle(log: &Forge, session: SessionId) -> Report {
    let report = verify_bundle(&log.bundle(session).to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    report
}

/// A whole ledger shows which law is the newest; the rest of the list is the bundle's.
fn as_of_a_bundle(mut links: Vec<Link>) -> Vec<Link> {
    for link in links.iter_mut().filter(|l| l.link == LinkKind::Order) {
        let what = link.trust[0].what.as_mut().unwrap();
        assert_eq!(what, "showing everybody the same entries");
        what.push_str(", and whether this law was the newest");
    }
    links
}

#[test]
fn a_whole_ledger_lists_the_links_of_the_session_that_is_asked_for() {
    for (log, session) in [plain(), session_of_an_agent()] {
        let of_all = report(&log, None);
        assert!(of_all.links.is_empty() && !of_all.actions.is_empty());
        let of_one = report(&log, Some(session));
        let of_bundle = bundle(&log, session);
        assert_eq!(as_of_a_bundle(of_one.links.clone()), of_bundle.links);
        assert!(of_one.sessions.is_none() && of_bundle.sessions.is_none());
        assert_eq!(of_one.entries, log.size());
    }
}

#[test]
fn what_is_reported_of_one_session_is_of_no_other() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let [first, second] = [0, 1].map(|_| {
        let mut session = log.open(&granted, "root");
        let action = log.run(&mut session);
        (log.close(session), action)
    });
    let actions = |report: &Report| -> Vec<ActionId> {
        report
            .actions
            .iter()
            .map(|action| action.action_id)
            .collect()
    };
    assert_eq!(actions(&report(&log, None)), [first.1, second.1]);
    for (session, action) in [first, second] {
        let found = report(&log, Some(session));
        assert_eq!(actions(&found), [action]);
        let opening = found.links.iter().find(|l| l.link == LinkKind::Opening);
        let opened = log.entries.iter().position(
            |entry| matches!(&entry.body, Body::SessionOpen(open) if open.session == session),
        );
        assert_eq!(opening.unwrap().entries, [opened.unwrap() as u64]);
    }
    // A session that is not there is not shown by the rest.
    let report = whole(
        &log,
        Some(SessionId::new([200; 16])),
        &log.checkpoint(log.size()),
    );
    let codes: Vec<_> = report.problems.iter().map(|p| p.code).collect();
    assert_eq!((report.verdict, codes), (Verdict::Failed, vec!["missing"]));
    assert!(report.actions.is_empty() && report.links.is_empty());
    // What fails elsewhere in the ledger fails here.
    let mut spoilt = log;
    spoilt.openings.last_mut().unwrap().1.bytes.0.push(b'x');
    let note = spoilt.checkpoint(spoilt.size());
    let found = whole(&spoilt, Some(first.0), &note);
    assert_eq!(found.verdict, Verdict::Failed);
}

/// A session with one command, which goes on.
fn running(log: &mut Forge) -> Running {
    let granted = log.granted(Uses::Single);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    session
}

#[test]
fn sessions_are_counted_by_whose_word_they_rest_on() {
    let counts = |log: &Forge, witnessed: Option<u64>| {
        let note = match witnessed {
            Some(size) => cosigned(log, size, 1_764_000_900),
            None => log.checkpoint(log.size()),
        };
        let trust = match witnessed {
            Some(_) => with_witness(&log.policy()),
            None => log.policy(),
        };
        let report = verify_asked(
            Asked::default(),
            note.as_bytes(),
            &log.bytes,
            &log.openings,
            &trust,
            "missing",
            &mut |_| (),
        );
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        (report.sessions.unwrap(), render(&report))
    };
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let none = counts(&log, None);
    assert_eq!(none.0, Sessions::default());
    assert!(!none.1.contains("sessions"), "{}", none.1);
    let first = running(&mut log);
    log.close(first);
    log.head("gw");
    let expected = |signed_and_seen, log_alone, all| Sessions {
        all,
        signed_and_seen,
        testimony: all,
        log_alone,
    };
    // Nobody but the log says when it was.
    assert_eq!(counts(&log, None).0, expected(0, 0, 1));
    let size = log.size();
    assert_eq!(counts(&log, Some(size)).0, expected(1, 0, 1));
    // One whose outcome, and one whose close no head covers yet.
    let second = running(&mut log);
    let seen = counts(&log, Some(log.size()));
    assert_eq!(seen.0, expected(1, 1, 2));
    assert!(
        seen.1.contains(
            "  sessions  2 in all; every entry of 1 is under a head that its writer signed, and witnesses saw the end \
             of these; 2 began with TESTIMONY, signed by no actor; of 1 the log alone says whose some entries are"
        ),
        "{}",
        seen.1
    );
    log.head("gw");
    assert_eq!(counts(&log, Some(log.size())).0, expected(1, 0, 2));
    log.close(second);
    assert_eq!(counts(&log, Some(log.size())).0, expected(1, 1, 2));
    log.head("server");
    assert_eq!(counts(&log, Some(log.size())).0, expected(1, 1, 2));
    log.head("gw");
    assert_eq!(counts(&log, Some(log.size())).0, expected(2, 0, 2));
}

/// Where sessions went on side by side, heads name entries of both: in the bundle of one, what lies between is absent, and of
/// what comes before the gap the log alone says whose it is. The whole ledger has no gap.
#[test]
fn a_bundle_rests_on_the_log_for_what_another_sessions_entries_part_from_a_head() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let [mut first, mut second] = [0, 1].map(|_| log.open(&granted, "root"));
    log.run(&mut first);
    log.run(&mut second);
    log.run(&mut first);
    let first = log.close(first);
    log.head("gw");
    let second = log.close(second);
    log.head("gw");
    let alone = |report: &Report| {
        let records = report.links.iter().filter(|l| l.link == LinkKind::Record);
        let trusted = records.flat_map(|link| &link.trust);
        let log = trusted.filter(|trusted| trusted.who == "the log");
        let what = log.filter_map(|trusted| trusted.what.clone());
        what.collect::<Vec<_>>()
    };
    for (session, which) in [(first, "2 of these 5"), (second, "2 of these 3")] {
        let said = format!("whose {which} are: no signed head here covers them");
        assert_eq!(alone(&bundle(&log, session)), [said]);
        assert!(alone(&report(&log, Some(session))).is_empty());
    }
}

#[test]
fn the_versions_that_judged_are_named() {
    let (mut log, session) = plain();
    let (old, last) = (log.size(), log.size() - 1);
    let one = |version, from, to| Judged { version, from, to };
    let found = report(&log, None);
    assert_eq!(found.versions, [one(1, 0, last)]);
    assert!(render(&found).contains("\n  entries of version 1: all\n"));
    log.version = 2;
    let mut next = running(&mut log);
    log.run(&mut next);
    let next = log.close(next);
    let newest = log.size() - 1;
    let both = [one(1, 0, last), one(2, old, newest)];
    for found in [
        report(&log, None),
        report(&log, Some(session)),
        bundle(&log, next),
    ] {
        assert_eq!(found.versions, both);
        let words = format!("\n  entries of version 1: 0 to {last}; of version 2: from {old}\n");
        assert!(render(&found).contains(&words), "{}", render(&found));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["versions"][1]["from"], old);
    }
    // Of an excerpt, those that are in it.
    let older = bundle(&log, session);
    assert_eq!(older.versions[0].from, 0);
    // What fails says nothing of the kind.
    let mut spoilt = log.bundle(session);
    spoilt.openings[0].opening.bytes.0.push(b'x');
    let failed = verify_bundle(&spoilt.to_bytes().unwrap(), &log.policy());
    assert!(failed.versions.is_empty());
}

fn link(report: &Report, kind: LinkKind) -> &Link {
    let mut links = report.links.iter();
    links.find(|link| link.link == kind).unwrap()
}

/// Whom one must trust for what, of a link.
fn trusted<'a>(link: &'a Link, what: &str) -> Vec<&'a str> {
    let trust = link.trust.iter();
    let that = trust.filter(|t| t.what.as_ref().is_some_and(|w| w.starts_with(what)));
    that.map(|t| t.who.as_str()).collect()
}

#[test]
fn a_yes_under_other_rules_than_the_grants_names_whoever_set_those() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu, Who::Pat]);
    let ops = sealed("name", "Bea Boss");
    let add = PersonAdd {
        person: Who::Bot.id(),
        name: ops.commitment(),
        keys: vec![Who::Bot.key(0)],
        roles: vec![Role::Admin],
    };
    log.say(Who::Ada, &[], Say::PersonAdd(add), vec![ops]);
    // Bea's rules ask for two; under Ada's, which follow, one is too few as well.
    log.admin = Who::Bot;
    let first = log.target_with(|target| target.quorum = 2);
    let (ask, body) = log.request(first, Uses::Single);
    let early = log.approve(Who::Pat, ask);
    log.admin = Who::Ada;
    let second = log.target_with(|target| target.quorum = 2);
    let late = log.approve(Who::Ada, ask);
    let granted = log.grant(ask, &[early, late], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    for report in [bundle(&log, session), report(&log, Some(session))] {
        let yes: Vec<&Link> = report
            .links
            .iter()
            .filter(|link| link.link == LinkKind::Approval)
            .collect();
        let at_that_time = "the target's rules at that time";
        assert_eq!(yes[0].entries, [early.index]);
        let words = format!(
            "Pat said yes by the target's rules in entry {}",
            first.index
        );
        assert_eq!(yes[0].what, words);
        assert_eq!(trusted(yes[0], at_that_time), ["Bea Boss"]);
        // The other one was by the grant's own rules, which stand there.
        assert_eq!(
            (yes[1].entries[0], &*yes[1].what),
            (late.index, "Ada Approver said yes")
        );
        assert!(trusted(yes[1], at_that_time).is_empty());
        let grant = link(&report, LinkKind::Grant);
        assert!(grant.what.contains(&format!("in entry {}", second.index)));
        // Whose key Bea's is, is listed, too.
        let keys = report.links.iter().flat_map(|link| &link.keys);
        let theirs = Who::Bot.key(0).fingerprint();
        assert!(keys.into_iter().any(|key| key.key == theirs));
    }
}

#[test]
fn who_made_somebody_an_approver_is_named_where_the_keys_link_does_not_say_it() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let name = sealed("name", "Pat");
    let add = PersonAdd {
        person: Who::Pat.id(),
        name: name.commitment(),
        keys: vec![Who::Pat.key(0)],
        roles: vec![Role::Approver],
    };
    let (_, enrolled) = log.say(Who::Ada, &[], Say::PersonAdd(add), vec![name]);
    let key = PersonKey {
        person: Who::Pat.id(),
        key: Who::Pat.key(5),
    };
    log.say(Who::Ada, &[], Say::KeyAdd(key), vec![]);
    for (nth, named) in [(0, false), (5, true)] {
        let target = log.target();
        let (ask, body) = log.request(target, Uses::Single);
        let pen = super::forge::Pen {
            key: nth,
            ..Who::Pat.into()
        };
        let yes = log.approve(pen, ask);
        let granted = log.grant(ask, &[yes], body);
        let mut session = log.open(&granted, "root");
        log.run(&mut session);
        let session = log.close(session);
        let report = bundle(&log, session);
        let yes = link(&report, LinkKind::Approval);
        let what = format!("the role `approver`, given in entry {}", enrolled.index);
        let expected: &[&str] = if named { &["Ada Approver"] } else { &[] };
        assert_eq!(trusted(yes, &what), expected, "{yes:?}");
        // Of the first entry the reader's policy pins both.
        assert!(trusted(link(&report, LinkKind::Request), "the role").is_empty());
    }
}
