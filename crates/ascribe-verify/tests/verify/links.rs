//! The list of a session's links: who signed each, and whom one must trust for it.

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::{Body, Certificate};
use ascribe_core::id::{SessionId, StatementId};
use ascribe_core::law::Place;
use ascribe_core::statement::{
    Authority, Mapping, PersonAdd, PersonKey, RevokedCertificates, Role, Say, Serial, Uses,
};
use ascribe_core::time::Timestamp;
use ascribe_core::witness::{Cosigned, Demand, WitnessSet};
use ascribe_verify::LinkKind::{
    Acceptance, Approval, Delegation, Enrolment, Extension, Grant, Identity, Login, Opening, Order,
    Provider, Record, Request, Time, Workload,
};
use ascribe_verify::{Link, LinkKind, Report, Verdict, render, verify_bundle};

use super::agents::{session_of_an_agent, session_of_an_agent_with_a_namesake};
use super::forge::{Forge, Who, sealed};
use super::logins::{SESSION, session_before_a_rotation, session_of_a_job};
use super::scenes::{Ask, Granted, Running, plain};
use super::vectors::golden;
use super::witnesses::{cosigned, with_witness};

/// The report on a bundle of this log. Its text is as it is written down.
fn judged(name: &str, log: &Forge, bundle: &Bundle) -> Report {
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    golden(&format!("links-{name}.txt"), render(&report).as_bytes());
    report
}

fn of(name: &str, (log, session): (Forge, SessionId)) -> Report {
    judged(name, &log, &log.bundle(session))
}

fn kinds(report: &Report) -> Vec<LinkKind> {
    report.links.iter().map(|link| link.link).collect()
}

fn link(report: &Report, kind: LinkKind) -> &Link {
    let mut links = report.links.iter();
    links.find(|link| link.link == kind).unwrap()
}

/// With what each signer signed, and with which key.
fn signed(link: &Link) -> Vec<(&str, &str)> {
    let signers = link.signed_by.iter();
    signers.map(|s| (s.with, s.key.as_str())).collect()
}

fn trusts(link: &Link, who: &str) -> bool {
    link.trust.iter().any(|trusted| trusted.who == who)
}

#[test]
fn an_enrolled_keys_session_lists_every_link_to_the_first_entry() {
    let report = of("enrolled", plain());
    assert_eq!(
        kinds(&report),
        [
            Enrolment, Request, Approval, Grant, Opening, Record, Order, Time
        ]
    );
    let (ada, olu) = (Who::Ada.key(0).fingerprint(), Who::Olu.key(0).fingerprint());
    let enrolment = link(&report, Enrolment);
    let mut keys: Vec<_> = enrolment.keys.iter().map(|key| key.key.clone()).collect();
    keys.sort();
    let mut expected = vec![ada.clone(), olu.clone()];
    expected.sort();
    assert_eq!(keys, expected);
    assert!(enrolment.signed_by.is_empty());
    assert!(trusts(enrolment, "whoever gave you the trust policy"));
    for (kind, key) in [(Request, olu.as_str()), (Approval, ada.as_str())] {
        assert_eq!(signed(link(&report, kind)), [("enrolled key", key)]);
        assert!(trusts(link(&report, kind), "whoever holds that key"));
    }
    let grant = link(&report, Grant);
    assert!(grant.signed_by.is_empty() && trusts(grant, "Ada Approver"));
    assert_eq!(link(&report, Opening).testimony, Some("gateway"));
    assert_eq!(link(&report, Record).testimony, Some("gateway"));
    assert_eq!(signed(link(&report, Order))[0].0, "log key");
    assert_eq!(link(&report, Time).testimony, Some("log"));
    // Each names the entries that hold it, which are there in that order.
    let first = |link: &Link| link.entries.first().copied();
    let entries: Vec<u64> = report.links.iter().filter_map(first).collect();
    assert!(entries.is_sorted(), "{entries:?}");
}

#[test]
fn a_login_rests_on_its_provider_and_on_whoever_linked_the_subject() {
    let (log, bundle) = session_before_a_rotation();
    let report = judged("login", &log, &bundle);
    assert_eq!(
        kinds(&report),
        [
            Enrolment, Provider, Identity, Login, Request, Approval, Grant, Opening, Record, Order,
            Time
        ]
    );
    let ada = Who::Ada.key(0).fingerprint();
    for kind in [Provider, Identity] {
        let ruled = link(&report, kind);
        assert_eq!(signed(ruled), [("enrolled key", ada.as_str())]);
        assert!(trusts(ruled, "Ada Approver"), "{ruled:?}");
    }
    let login = link(&report, Login);
    let [(issuer, _), (session, key)] = signed(login)[..] else {
        panic!("{login:?}")
    };
    assert_eq!((issuer, session), ("provider key", "session key"));
    assert_eq!(key, Who::Olu.key(SESSION).fingerprint());
    assert!(login.what.contains("by a token, checked, of provider key"));
    assert!(trusts(login, "https://idp.example") && trusts(login, "the log"));
    // Names where they are disclosed, ids where they are not.
    let text = render(&report);
    assert!(!text.contains(&Who::Olu.id().to_string()), "{text}");
    let mut bundle = bundle;
    bundle.openings.retain(|o| o.opening.field != "name");
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified);
    let login = link(&report, Login);
    assert!(login.what.contains(&Who::Olu.id().to_string()), "{login:?}");
    // The token sealed, the log says what is in it.
    bundle.openings.retain(|o| o.opening.field != "token");
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    let login = link(&report, Login);
    assert!(login.what.contains("by a token, sealed"), "{login:?}");
    let more = "that the token says what is stated";
    let log = login.trust.iter().find(|t| t.who == "the log").unwrap();
    assert!(log.what.as_ref().unwrap().contains(more), "{login:?}");
}

#[test]
fn a_workload_rests_on_its_rule_and_on_whoever_set_it() {
    let report = of("workload", session_of_a_job());
    assert_eq!(
        kinds(&report),
        [
            Enrolment, Provider, Workload, Login, Request, Approval, Grant, Opening, Record, Order,
            Time
        ]
    );
    let rule = link(&report, Workload);
    assert!(rule.what.contains("repository_id=42 ref=refs/heads/main"));
    assert!(rule.what.contains("Olu Operator answers for it"));
    assert_eq!(signed(rule)[0].1, Who::Ada.key(0).fingerprint());
    assert!(trusts(rule, "Ada Approver"), "{rule:?}");
    let asked = link(&report, Request);
    assert_eq!(asked.signed_by[0].principal, Some(Who::Olu.id()));
    assert!(asked.what.ends_with("for deploy"), "{asked:?}");
}

#[test]
fn each_step_to_an_agent_is_signed_by_whoever_made_it() {
    let report = of("agent", session_of_an_agent());
    assert_eq!(
        kinds(&report),
        [
            Enrolment, Delegation, Acceptance, Delegation, Acceptance, Request, Approval, Grant,
            Opening, Record, Order, Time
        ]
    );
    let steps = report.links.iter();
    let steps = steps.filter(|link| matches!(link.link, Delegation | Acceptance));
    let keys: Vec<(&str, &str)> = steps.flat_map(signed).collect();
    let [top, below] = [2, 3].map(|n| Who::Pat.key(n).fingerprint());
    assert_eq!(
        keys,
        [
            ("enrolled key", Who::Olu.key(0).fingerprint().as_str()),
            ("agent's key", top.as_str()),
            ("agent's key", top.as_str()),
            ("agent's key", below.as_str()),
        ]
    );
    // What an agent says of itself is nobody's else.
    let taken = link(&report, Acceptance);
    assert!(trusts(taken, "the same"), "{taken:?}");
    assert!(link(&report, Opening).what.contains("bot-3"), "{report:#?}");
}

#[test]
fn a_signed_head_fixes_what_leads_to_it_and_nothing_else() {
    let covered = |heads: [bool; 2]| {
        let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
        let granted = log.granted(ascribe_core::statement::Uses::Single);
        let mut session = log.open(&granted, "root");
        log.run(&mut session);
        if heads[0] {
            log.head("gw");
        }
        let session = log.close(session);
        if heads[1] {
            log.head("gw");
        }
        let report = verify_bundle(&log.bundle(session).to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let (opening, record) = (link(&report, Opening), link(&report, Record));
        let log_alone = record.trust.iter().find(|t| t.who == "the log");
        let log_alone = log_alone.and_then(|t| t.what.clone());
        (
            signed(opening).len(),
            signed(record).len(),
            log_alone.unwrap_or_default(),
        )
    };
    assert_eq!(covered([true, true]), (1, 1, String::new()));
    assert_eq!(covered([false, true]), (1, 1, String::new()));
    let (opening, record, log) = covered([true, false]);
    assert_eq!((opening, record), (1, 1));
    assert!(log.contains("whose 1 of these 3 are"), "{log}");
    let (opening, record, log) = covered([false, false]);
    assert_eq!((opening, record), (0, 0));
    assert!(log.contains("whose these are"), "{log}");
}

#[test]
fn an_extension_and_its_yes_are_links_of_their_own() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu, Who::Pat]);
    let granted = log.granted(ascribe_core::statement::Uses::Single);
    log.extend(&granted, Who::Pat);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    let report = of("extension", (log, session));
    assert_eq!(
        kinds(&report),
        [
            Enrolment, Request, Approval, Grant, Extension, Approval, Grant, Opening, Record,
            Order, Time
        ]
    );
    let yes = report.links.iter().filter(|link| link.link == Approval);
    let who: Vec<_> = yes.map(|link| link.signed_by[0].principal).collect();
    assert_eq!(who, [Some(Who::Ada.id()), Some(Who::Pat.id())]);
}

/// An outside authority that names Olu, with so many keys.
fn authority(log: &mut Forge, keys: u8) -> (StatementId, Place) {
    let say = Say::CaSet(Authority {
        keys: (5..5 + keys).map(|nth| Who::Pat.key(nth)).collect(),
        name: "corp-ca".to_owned(),
        people: vec![Mapping {
            person: Who::Olu.id(),
            principal: "olu".to_owned(),
        }],
        revoked: RevokedCertificates::default(),
    });
    log.say(Who::Ada, &[], say, vec![])
}

/// A session by certificate of its first key, with that key.
fn certified(log: &mut Forge, granted: &Granted, key: &str) -> Running {
    let mut session = log.open_with(granted, &[], |open| {
        open.key = key.to_owned();
        open.certificate = Some(Certificate {
            ca: Who::Pat.key(5).fingerprint(),
            ca_name: "corp-ca".to_owned(),
            key_id: "olu@corp".to_owned(),
            not_after: None,
            principal: "olu".to_owned(),
            serial: Serial(7),
        });
    });
    log.run(&mut session);
    session
}

/// What waits is settled by the witness's word over all that is there.
fn witness(log: &mut Forge, (id, place): (StatementId, Place)) {
    let word = Cosigned {
        before: Timestamp::from_millis(1_764_000_009_000),
        note: cosigned(log, log.size(), 1_764_000_009),
        settles: vec![id],
        size: log.size(),
    };
    log.record(
        "server",
        &[("settles", place)],
        Body::Cosigned(word),
        vec![],
    );
}

/// From now on changes of rules wait for the witness.
fn demand(log: &mut Forge) {
    let set = WitnessSet {
        demand: vec![Demand::Policy],
        policy: with_witness(&log.policy()).to_text(),
    };
    log.say(Who::Ada, &[], Say::WitnessSet(set), vec![]);
}

#[test]
fn an_authoritys_rules_that_wait_for_witnesses_are_not_those_that_count() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let (_, first) = authority(&mut log, 1);
    let granted = log.granted(Uses::Single);
    demand(&mut log);
    let second = authority(&mut log, 2);
    let session = certified(&mut log, &granted, &Who::Olu.key(7).fingerprint());
    witness(&mut log, second);
    let session = log.close(session);
    let report = verified(&log, session);
    assert_eq!(link(&report, LinkKind::Authority).entries, [first.index]);
}

fn verified(log: &Forge, session: SessionId) -> Report {
    let report = verify_bundle(&log.bundle(session).to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    report
}

#[test]
fn no_entry_forges_a_line() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let key = "x\n  order       forged; signed by log.test/a\u{1b}[2J";
    authority(&mut log, 1);
    let granted = log.granted(Uses::Single);
    let session = certified(&mut log, &granted, key);
    let session = log.close(session);
    let report = verified(&log, session);
    let text = render(&report);
    assert!(!text.contains("\n  order       forged"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let opening = link(&report, Opening);
    assert!(!opening.what.contains(char::is_control), "{opening:?}");
    assert!(opening.what.contains(r#"certified key "x\n  order"#));
}

#[test]
fn a_certified_key_that_is_enrolled_later_was_certified() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let key = Who::Olu.key(7);
    authority(&mut log, 1);
    let granted = log.granted(Uses::Single);
    let session = certified(&mut log, &granted, &key.fingerprint());
    let session = log.close(session);
    let say = Say::KeyAdd(PersonKey {
        person: Who::Olu.id(),
        key: key.clone(),
    });
    log.say(Who::Ada, &[], say, vec![]);
    let report = verified(&log, session);
    let opening = link(&report, Opening);
    let with = format!("with certified key {}", key.fingerprint());
    assert!(opening.what.contains(&with), "{opening:?}");
    let mut links = report.links.iter().flat_map(|link| &link.keys);
    assert!(links.all(|known| known.key != key.fingerprint()));
}

/// A grant is judged by the rules of its time, and so is each later end.
#[test]
fn a_grant_names_the_rules_that_it_was_judged_by() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu, Who::Pat]);
    let first = log.target();
    let (ask, body) = log.request(first, Uses::Single);
    let second = log.target_with(|target| target.quorum = 2);
    let yes = [Who::Ada, Who::Pat].map(|who| log.approve(who, ask));
    let granted = log.grant(ask, &yes, body);
    let third = log.target();
    log.extend(&granted, Who::Pat);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    let report = verified(&log, session);
    let grants = report.links.iter().filter(|link| link.link == Grant);
    let says: Vec<&str> = grants.map(|link| link.what.as_str()).collect();
    let rules = |place: &str, of: Place, needed| {
        format!(
            "{place} follows from that: the target's rules in entry {} ask for {needed} yes",
            of.index
        )
    };
    assert_eq!(
        says,
        [
            rules("root@db1", second, 2),
            rules("the later end", third, 1)
        ]
    );
}

/// Enrols somebody under that name.
fn enrol(log: &mut Forge, who: Who, name: &str, roles: Vec<Role>) {
    let name = sealed("name", name);
    let say = Say::PersonAdd(PersonAdd {
        person: who.id(),
        name: name.commitment(),
        keys: vec![who.key(0)],
        roles,
    });
    log.say(Who::Ada, &[], say, vec![name]);
}

/// What waits for witnesses has all that it needs, and may be approved further all the same.
#[test]
fn rules_that_waited_for_witnesses_are_found() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    enrol(&mut log, Who::Pat, "Pat", vec![Role::Admin]);
    demand(&mut log);
    let target = log.target();
    let id = log.statement_at(target);
    log.approve(Who::Pat, Ask { id, place: target });
    witness(&mut log, (id, target));
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve(Who::Ada, ask);
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    let report = verified(&log, session);
    let grant = link(&report, Grant);
    let rules = format!("the target's rules in entry {} ask for 1 yes", target.index);
    assert!(grant.what.contains(&rules), "{grant:?}");
    // Whoever said yes while it waited was not needed.
    assert_eq!(grant.trust[0].who, "Ada Approver", "{grant:?}");
    assert!(!render(&report).contains("nobody else"));
}

#[test]
fn an_agents_key_bears_the_name_that_the_agent_took() {
    let (log, session) = session_of_an_agent_with_a_namesake();
    let report = verified(&log, session);
    let opening = link(&report, Opening);
    assert!(opening.what.starts_with("bot-2 came in"), "{opening:?}");
    assert!(!render(&report).contains("impostor came in"));
}

#[test]
fn a_name_does_not_go_on_as_the_line_does() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let name = "Mal; signed by Ada Approver; one must trust: \"nobody\"";
    enrol(&mut log, Who::Pat, name, vec![Role::Approver]);
    let target = log.target();
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve(Who::Pat, ask);
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let session = log.close(session);
    let text = render(&verified(&log, session));
    let shown = r#""Mal; signed by Ada Approver; one must trust: \"nobody\"""#;
    assert!(
        text.contains(&format!("  approval    {shown} said")),
        "{text}"
    );
    assert!(
        text.contains(&format!("; signed by {shown} with")),
        "{text}"
    );
    assert!(!text.contains("  Mal; signed"), "{text}");
}

#[test]
fn what_fails_lists_nothing() {
    let (log, session) = plain();
    let mut bundle = log.bundle(session);
    bundle.openings[0].opening.bytes.0.push(b'x');
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Failed);
    assert!(report.links.is_empty());
}
