//! Approvals that depended on a group: the report says which entry put the approver into it, and whom one
//! must trust for that.

use ascribe_core::bundle::Bundle;
use ascribe_core::directory::{
    Directory, DirectoryChange, DirectoryFile, DirectoryGroup, FileUser, GroupRole, ResourceKind,
    bearer_digest,
};
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Grant, Status};
use ascribe_core::id::{ContentDigest, ResourceId, SessionId};
use ascribe_core::identity::{
    Claims, IdentityLink, Login, ProviderKeys, StatedManager, key_commitment, subject, token_digest,
};
use ascribe_core::law::{Judge as _, Place, TokenAsked};
use ascribe_core::statement::{Role, Say, Uses};
use ascribe_core::time::Timestamp;
use ascribe_core::witness::{Cosigned, Demand, WitnessSet};
use ascribe_evidence::SshSignatures;
use ascribe_verify::{Link, LinkKind, Report, Source, Verdict, Voucher, render, verify_bundle};

use super::forge::{Forge, MINUTE, Pen, Who, sealed};
use super::logins::{RZ, SESSION, jwks, provider, signed};
use super::scenes::Ask;
use super::witnesses::{cosigned, with_witness};

const DBA: &str = "DB approvers";

/// The ways in which a directory speaks.
#[derive(Clone, Copy)]
enum Way {
    Scim,
    File,
    Token,
}

fn directory(way: Way) -> Directory {
    Directory {
        claim: matches!(way, Way::Token).then(|| "groups".to_owned()),
        manager_claim: matches!(way, Way::Token).then(|| "manager".to_owned()),
        name: "corp".to_owned(),
        provider: "idp".to_owned(),
        roles: vec![GroupRole {
            group: DBA.to_owned(),
            role: Role::Approver,
        }],
        signers: match way {
            Way::File => vec![Who::Ada.id()],
            Way::Scim | Way::Token => vec![],
        },
        suspend: false,
        token: matches!(way, Way::Scim).then(|| bearer_digest(b"token")),
        withdrawn: false,
    }
}

fn pat() -> ContentDigest {
    subject_of("pat")
}

fn subject_of(name: &str) -> ContentDigest {
    subject("https://idp.example", name)
}

/// A login of the subject `pat`, whose token lists the group.
fn log_in(log: &mut Forge, who: Who, keys: Place, link: Place) -> Place {
    let said = format!(r#""sub":"pat","groups":["{DBA}"]"#);
    log_in_saying(log, who, (keys, link), &said, |_| ())
}

/// A login by a token that says this, of which the statement says what `edit` leaves.
fn log_in_saying(
    log: &mut Forge,
    who: Who,
    (keys, link): (Place, Place),
    said: &str,
    edit: impl FnOnce(&mut Claims),
) -> Place {
    let key = who.key(SESSION);
    let (now, nonce) = (log.now.millis() / 1000, key_commitment(&key, &RZ));
    let claims = format!(
        r#"{{"iss":"https://idp.example","aud":"ascribe",{said},"nonce":"{nonce}","iat":{now},"exp":{}}}"#,
        now + 300
    );
    let token = signed(&claims, 1);
    let asked = TokenAsked {
        key: &key,
        rz: &RZ,
        facts: &[],
        groups: &[("groups", DBA)],
        managers: &["manager"],
    };
    let claims = SshSignatures.token(&provider(), &jwks(1), token.as_bytes(), &asked);
    let mut claims = claims.unwrap();
    edit(&mut claims);
    let opening = sealed("token", &token);
    let login = Login {
        bearer: false,
        digest: token_digest(token.as_bytes()),
        provider: "idp".into(),
        rz: Bytes(RZ.to_vec()),
        saw: Some(claims.key),
        claims,
        token: opening.commitment(),
        until: log.now.plus_millis(60 * MINUTE),
    };
    let pen = Pen {
        key: SESSION,
        ..Pen::from(who)
    };
    let parents = [("keys", keys), ("actor", link)];
    let say = Say::Login(Box::new(login));
    log.say(pen, &parents, say, vec![opening]).1
}

/// Says that a subject of the provider is this person.
fn link(log: &mut Forge, who: Who, subject: ContentDigest, registered: Place) -> Place {
    let link = Say::IdentityLink(IdentityLink {
        person: who.id(),
        provider: "idp".into(),
        subject,
    });
    log.say(Who::Ada, &[("provider", registered)], link, vec![])
        .1
}

/// The entry that puts somebody into the group, as the subject `pat`.
fn told(log: &mut Forge, who: Who, way: Way, registered: Place, directory: Place) -> Place {
    let link = link(log, who, pat(), registered);
    match way {
        Way::Scim => {
            let resource = sealed("resource", "{}");
            let change = DirectoryChange {
                active: true,
                directory: "corp".into(),
                groups: vec![DBA.to_owned()],
                id: ResourceId::new(log.fresh()),
                kind: ResourceKind::User,
                manager: None,
                resource: Some(resource.commitment()),
                subject: Some(pat()),
            };
            let body = Body::DirectoryChange(change);
            let parents = [("directory", directory)];
            log.record("server", &parents, body, vec![resource])
        }
        Way::File => {
            let file = sealed("file", "pat\tDB approvers\n");
            let say = Say::DirectoryFile(DirectoryFile {
                directory: "corp".into(),
                file: file.commitment(),
                users: vec![FileUser {
                    groups: vec![DBA.to_owned()],
                    manager: None,
                    subject: pat(),
                }],
            });
            let parents = [("directory", directory)];
            log.say(Who::Ada, &parents, say, vec![file]).1
        }
        Way::Token => {
            let keys = published(log, registered);
            log_in(log, who, keys, link)
        }
    }
}

/// The provider's keys.
fn published(log: &mut Forge, registered: Place) -> Place {
    let keys = ProviderKeys {
        body: Bytes(jwks(1)),
        fetched: log.now,
        headers: vec![],
        provider: "idp".into(),
        uri: "https://idp.example/keys".into(),
    };
    let parents = [("provider", registered)];
    log.record("server", &parents, Body::ProviderKeys(keys), vec![])
}

#[test]
fn an_approval_by_group_says_which_entry_and_whom_to_trust() {
    for (way, whom) in [
        (
            Way::Scim,
            "directory `corp` and whoever has its token for who is in it, and the log, which alone says that it was said",
        ),
        (
            Way::File,
            "Ada Approver, who signed the file for who is in it",
        ),
        (Way::Token, "https://idp.example for who is in it"),
    ] {
        let mut log = Forge::new(100, &[Who::Ada, Who::Olu, Who::Pat]);
        let (_, registered) = log.say(Who::Ada, &[], Say::ProviderSet(provider()), vec![]);
        let parents = [("provider", registered)];
        let say = Say::DirectorySet(directory(way));
        let (_, corp) = log.say(Who::Ada, &parents, say, vec![]);
        let group = DirectoryGroup {
            directory: "corp".to_owned(),
            group: DBA.to_owned(),
        };
        let target = log.target_with(|target| target.approver_groups = vec![group.clone()]);
        let said = told(&mut log, Who::Pat, way, registered, corp);
        let (ask, body) = log.request(target, Uses::Single);
        let yes = log
            .wait(MINUTE)
            .approve_by(Who::Pat, ask, &[("group", said)]);
        let granted = log.grant(ask, &[yes], body);
        let mut session = log.open(&granted, "root");
        let action = log.intent(&mut session, "id -un", None);
        log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
        log.head("gw");
        let id = log.close(session);
        let mut bundle = log.bundle(id);
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let [voucher] = report.vouchers.as_slice() else {
            panic!("{report:#?}")
        };
        let source = |token| match way {
            Way::Scim => Source::Scim {
                directory: "corp".to_owned(),
            },
            Way::File => Source::File {
                directory: "corp".to_owned(),
                signer: Who::Ada.id(),
            },
            Way::Token => Source::Token {
                login: log.statement_at(said),
                issuer: "https://idp.example".to_owned(),
                token,
            },
        };
        let expected = Voucher {
            session: id,
            approver: Who::Pat.id(),
            approval: yes.index,
            groups: vec![group],
            entry: said.index,
            source: source("checked"),
        };
        assert_eq!(*voucher, expected);
        let text = render(&report);
        assert!(text.contains("is in `DB approvers` of `corp`"), "{text}");
        assert!(text.contains(whom), "{text}");
        in_the_chain(&report, way);
        // Where the token stays sealed, the log is to be trusted for what it says.
        bundle.openings.retain(|o| o.opening.field != "token");
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(report.vouchers[0].source, source("sealed"));
        let sealed = render(&report).contains("and the log for what the token says");
        assert_eq!(sealed, matches!(way, Way::Token));
    }
}

/// What the approval depended on is among the session's links: the directory, that its subject is Pat, and
/// where the word is a token's, that login.
fn in_the_chain(report: &Report, way: Way) {
    let kinds: Vec<LinkKind> = report.links.iter().map(|link| link.link).collect();
    let mut before = vec![LinkKind::Provider, LinkKind::Directory, LinkKind::Identity];
    match way {
        Way::Token => before.push(LinkKind::Login),
        // Nothing was fetched from it.
        Way::Scim | Way::File => drop(before.remove(0)),
    }
    let after = [
        LinkKind::Request,
        LinkKind::Approval,
        LinkKind::Grant,
        LinkKind::Opening,
        LinkKind::Record,
        LinkKind::Order,
        LinkKind::Time,
    ];
    let expected = [&[LinkKind::Enrolment][..], &before, &after].concat();
    assert_eq!(kinds, expected, "{}", render(report));
    let link = |kind| report.links.iter().find(|link| link.link == kind).unwrap();
    for kind in [LinkKind::Directory, LinkKind::Identity] {
        let signers = &link(kind).signed_by;
        assert_eq!(signers[0].principal, Some(Who::Ada.id()));
        assert_eq!(signers[0].key, Who::Ada.key(0).fingerprint());
        assert!(link(kind).trust[0].who.contains("Ada Approver"));
    }
    let approval = link(LinkKind::Approval);
    assert_eq!(approval.signed_by[0].principal, Some(Who::Pat.id()));
    assert!(approval.trust.len() > 1, "{approval:?}");
}

#[test]
fn an_approval_that_needed_no_group_has_no_voucher() {
    let (log, id) = super::scenes::plain();
    let report = verify_bundle(&log.bundle(id).to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    assert!(report.vouchers.is_empty());
}

/// A log with the provider and a directory: where the two are.
fn with_directory(way: Way) -> (Forge, Place, Place) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu, Who::Pat, Who::Bot]);
    let (_, registered) = log.say(Who::Ada, &[], Say::ProviderSet(provider()), vec![]);
    let parents = [("provider", registered)];
    let say = Say::DirectorySet(directory(way));
    let (_, corp) = log.say(Who::Ada, &parents, say, vec![]);
    (log, registered, corp)
}

/// The report on a session after that request, which this person approves with these parents.
fn approved(
    log: &mut Forge,
    (ask, body): (Ask, Grant),
    by: Who,
    more: &[(&str, Place)],
) -> (Report, Bundle) {
    let yes = log.wait(MINUTE).approve_by(by, ask, more);
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let id = log.close(session);
    let bundle = log.bundle(id);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    (report, bundle)
}

fn of(report: &Report, kind: LinkKind) -> Vec<&Link> {
    let links = report.links.iter();
    links.filter(|link| link.link == kind).collect()
}

#[test]
fn a_role_that_a_directory_gave_names_whoever_said_so() {
    for (way, who) in [
        (Way::Scim, "directory `corp` and whoever has its token"),
        (Way::File, "Ada Approver, who signed the file"),
        (Way::Token, "https://idp.example"),
    ] {
        let (mut log, registered, corp) = with_directory(way);
        let said = told(&mut log, Who::Bot, way, registered, corp);
        let target = log.target();
        let asked = log.request(target, Uses::Single);
        let (report, mut bundle) = approved(&mut log, asked, Who::Bot, &[]);
        let trust = &of(&report, LinkKind::Approval)[0].trust;
        let party = trust.iter().find(|party| party.who == who);
        let what = party.and_then(|party| party.what.as_deref());
        assert!(
            what.is_some_and(|what| what.contains("the role `approver`")),
            "{trust:?}"
        );
        let alone = "the log, which alone says that it was said";
        let log_alone = trust.iter().any(|party| party.who == alone);
        assert_eq!(log_alone, matches!(way, Way::Scim), "{trust:?}");
        assert!(
            of(&report, LinkKind::Directory)[0]
                .what
                .contains("`DB approvers` gives `approver`")
        );
        let identity = of(&report, LinkKind::Identity)[0];
        assert!(identity.what.ends_with("is Bot"), "{identity:?}");
        // The login that says so is a link of its own.
        let logins: Vec<u64> = of(&report, LinkKind::Login)
            .iter()
            .flat_map(|link| link.entries.clone())
            .collect();
        let expected = matches!(way, Way::Token).then_some(said.index);
        assert_eq!(logins, Vec::from_iter(expected));
        // Whoever was enrolled with the role needs no directory for it.
        assert_eq!(of(&report, LinkKind::Request)[0].trust.len(), 1);
        // Where the token stays sealed, the log says what is in it.
        bundle.openings.retain(|o| o.opening.field != "token");
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        let trust = &of(&report, LinkKind::Approval)[0].trust;
        let sealed = trust
            .iter()
            .any(|party| party.what.as_deref() == Some("what the token says"));
        assert_eq!(sealed, matches!(way, Way::Token), "{trust:?}");
    }
}

#[test]
fn an_approval_by_a_manager_rests_on_both_their_subjects() {
    let (mut log, registered, corp) = with_directory(Way::File);
    let olu = link(&mut log, Who::Olu, subject_of("olu"), registered);
    let boss = link(&mut log, Who::Pat, pat(), registered);
    // Neither has to do with it.
    link(&mut log, Who::Olu, subject_of("olu-2"), registered);
    link(&mut log, Who::Pat, subject_of("pat-2"), registered);
    let file = sealed("file", "olu\tpat\n");
    let say = Say::DirectoryFile(DirectoryFile {
        directory: "corp".into(),
        file: file.commitment(),
        users: vec![FileUser {
            groups: vec![],
            manager: Some(pat()),
            subject: subject_of("olu"),
        }],
    });
    let said = log.say(Who::Ada, &[("directory", corp)], say, vec![file]).1;
    let target = log.target_with(|target| target.manager_approves = true);
    let asked = log.request(target, Uses::Single);
    let (report, _) = approved(&mut log, asked, Who::Pat, &[("manager", said)]);
    let entries: Vec<u64> = of(&report, LinkKind::Identity)
        .iter()
        .flat_map(|link| link.entries.clone())
        .collect();
    assert_eq!(entries, [olu.index, boss.index], "{}", render(&report));
}

/// Olu's login by a token that says this, an approval by Pat as the manager that it names, and what a verifier says.
fn by_named_manager(said: &str, edit: impl FnOnce(&mut Claims)) -> (Forge, Place, Report, Bundle) {
    let (log, _, place, id) = session_by_named_manager(said, edit);
    let bundle = log.bundle(id);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    (log, place, report, bundle)
}

/// The same: the log, where the provider was registered and Olu logged in, and the session.
fn session_by_named_manager(
    said: &str,
    edit: impl FnOnce(&mut Claims),
) -> (Forge, Place, Place, SessionId) {
    let (mut log, registered, corp) = with_directory(Way::Token);
    let olu = link(&mut log, Who::Olu, subject_of("olu"), registered);
    link(&mut log, Who::Pat, pat(), registered);
    let keys = published(&mut log, registered);
    let place = log_in_saying(&mut log, Who::Olu, (keys, olu), said, edit);
    let target = log.target_with(|target| target.manager_approves = true);
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve_by(Who::Pat, ask, &[("manager", place)]);
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let id = log.close(session);
    assert!(corp.index > 0);
    (log, registered, place, id)
}

#[test]
fn rules_that_change_later_take_nobody_from_what_a_manager_rests_on() {
    let said = r#""sub":"olu","manager":"pat""#;
    let (mut log, registered, _, id) = session_by_named_manager(said, |_| ());
    let links = |log: &Forge| {
        let report = verify_bundle(&log.bundle(id).to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let links = [LinkKind::Directory, LinkKind::Identity, LinkKind::Login];
        links.map(|kind| {
            of(&report, kind)
                .into_iter()
                .cloned()
                .collect::<Vec<Link>>()
        })
    };
    let before = links(&log);
    let counts = before.each_ref().map(Vec::len);
    assert_eq!(counts, [1, 2, 1]);
    // The directory's tokens name no manager any more, another's do, and then it is withdrawn.
    for edit in [
        |set: &mut Directory| set.manager_claim = None,
        |set: &mut Directory| {
            set.name = "new".into();
        },
        |set: &mut Directory| (set.withdrawn, set.manager_claim) = (true, None),
    ] {
        let mut set = directory(Way::Token);
        edit(&mut set);
        let parents = [("provider", registered)];
        log.say(Who::Ada, &parents, Say::DirectorySet(set), vec![]);
        assert_eq!(links(&log), before);
    }
}

#[test]
fn rules_that_change_later_take_nobody_from_what_a_group_rests_on() {
    for way in [Way::Scim, Way::File, Way::Token] {
        let (mut log, registered, corp) = with_directory(way);
        let said = told(&mut log, Who::Pat, way, registered, corp);
        let group = DirectoryGroup {
            directory: "corp".to_owned(),
            group: DBA.to_owned(),
        };
        let target = log.target_with(|target| target.approver_groups = vec![group]);
        let asked = log.request(target, Uses::Single);
        let (before, bundle) = approved(&mut log, asked, Who::Pat, &[("group", said)]);
        for withdrawn in [false, true] {
            let mut set = directory(way);
            (set.roles, set.withdrawn) = (vec![], withdrawn);
            let parents = [("provider", registered)];
            log.say(Who::Ada, &parents, Say::DirectorySet(set), vec![]);
            let bytes = log.bundle(bundle.header.session).to_bytes();
            let report = verify_bundle(&bytes.unwrap(), &log.policy());
            assert_eq!(report.vouchers, before.vouchers);
            let kinds = [LinkKind::Directory, LinkKind::Identity, LinkKind::Approval];
            for kind in kinds {
                assert!(!of(&before, kind).is_empty());
                assert_eq!(of(&report, kind), of(&before, kind));
            }
        }
    }
}

/// A session of Olu's by their enrolled key, after a login that leaves out whom its token names.
fn after_leaving_out(way: Way) -> Report {
    let (mut log, registered, _) = with_directory(way);
    let olu = link(&mut log, Who::Olu, subject_of("olu"), registered);
    let keys = published(&mut log, registered);
    let said = r#""sub":"olu","manager":"pat""#;
    let edit = |claims: &mut Claims| claims.managers.clear();
    log_in_saying(&mut log, Who::Olu, (keys, olu), said, edit);
    let target = log.target();
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve(Who::Pat, ask);
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    // What was looked for then counts.
    let withdrawn = Directory {
        withdrawn: true,
        ..directory(way)
    };
    let parents = [("provider", registered)];
    log.say(Who::Ada, &parents, Say::DirectorySet(withdrawn), vec![]);
    let id = log.close(session);
    verify_bundle(&log.bundle(id).to_bytes().unwrap(), &log.policy())
}

#[test]
fn a_login_leaves_out_no_manager_whom_its_token_names() {
    let report = after_leaving_out(Way::Token);
    assert_eq!(report.verdict, Verdict::Failed, "{report:#?}");
    assert_eq!(report.problems[0].code, "unsigned");
    // Where no rule names the claim, nobody looked for it.
    let report = after_leaving_out(Way::File);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
}

/// Pat says yes, is the manager after that by a file, and Ada says yes; then Pat once more, where that is so.
fn after_the_yes(version: u8, again: bool) -> Report {
    let (mut log, registered, corp) = with_directory(Way::File);
    log.version = version;
    for (who, subject) in [(Who::Olu, "olu"), (Who::Pat, "pat"), (Who::Bot, "bot")] {
        link(&mut log, who, subject_of(subject), registered);
    }
    let under = |log: &mut Forge, manager: &str| {
        let file = sealed("file", format!("olu\t{manager}\n"));
        let say = Say::DirectoryFile(DirectoryFile {
            directory: "corp".into(),
            file: file.commitment(),
            users: vec![FileUser {
                groups: vec![],
                manager: Some(subject_of(manager)),
                subject: subject_of("olu"),
            }],
        });
        log.say(Who::Ada, &[("directory", corp)], say, vec![file]).1
    };
    under(&mut log, "bot");
    let target = log.target_with(|target| target.manager_approves = true);
    let (ask, body) = log.request(target, Uses::Single);
    let first = log.approve(Who::Pat, ask);
    let said = under(&mut log, "pat");
    let second = log.approve(Who::Ada, ask);
    let approvals = match again {
        false => [first, second],
        true => [second, log.approve_by(Who::Pat, ask, &[("manager", said)])],
    };
    let granted = log.grant(ask, &approvals, body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let id = log.close(session);
    verify_bundle(&log.bundle(id).to_bytes().unwrap(), &log.policy())
}

#[test]
fn no_grant_rests_on_a_manager_who_said_yes_before_being_one() {
    let report = after_the_yes(3, false);
    assert_eq!(report.verdict, Verdict::Failed, "{report:#?}");
    assert_eq!(report.problems[0].code, "unlawful");
    let report = after_the_yes(3, true);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let who = report.vouchers.iter().map(|voucher| voucher.approver);
    assert_eq!(who.collect::<Vec<_>>(), [Who::Pat.id()]);
    assert_eq!(of(&report, LinkKind::Identity).len(), 2);
    assert_eq!(of(&report, LinkKind::Approval).len(), 2);
    // A log of earlier entries is judged as it was, and says yes twice to nobody.
    let report = after_the_yes(2, false);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    assert!(report.vouchers.is_empty());
    assert_eq!(after_the_yes(2, true).verdict, Verdict::Failed);
}

#[test]
fn a_manager_whom_a_token_names_is_the_providers_word() {
    let said = r#""sub":"olu","manager":"pat""#;
    let (log, place, report, mut bundle) = by_named_manager(said, |_| ());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let [voucher] = report.vouchers.as_slice() else {
        panic!("{report:#?}")
    };
    let source = |token| Source::Token {
        login: log.statement_at(place),
        issuer: "https://idp.example".to_owned(),
        token,
    };
    assert_eq!(
        (voucher.entry, &voucher.source),
        (place.index, &source("checked"))
    );
    assert!(voucher.groups.is_empty());
    let text = render(&report);
    let whom = "https://idp.example for who the manager is";
    assert!(text.contains(whom), "{text}");
    // The rule that names the claim, whose both subjects are, and the login are links of their own.
    let rules = of(&report, LinkKind::Directory);
    assert!(
        rules[0].what.contains("the claims `groups` and `manager`"),
        "{rules:?}"
    );
    assert_eq!(of(&report, LinkKind::Identity).len(), 2);
    assert_eq!(of(&report, LinkKind::Login)[0].entries, [place.index]);
    bundle.openings.retain(|o| o.opening.field != "token");
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.vouchers[0].source, source("sealed"));
}

#[test]
fn nobody_is_a_manager_by_what_a_log_writes_into_a_login() {
    let as_pat = |claims: &mut Claims| {
        claims.managers = vec![StatedManager {
            claim: "manager".to_owned(),
            subject: pat(),
        }];
    };
    let problem = |said: &str, edit: fn(&mut Claims)| {
        let report = by_named_manager(said, edit).2;
        assert_eq!(report.verdict, Verdict::Failed, "{said}");
        report.problems[0].code
    };
    // The token is disclosed, and says something else.
    assert_eq!(
        problem(r#""sub":"olu","manager":"ada""#, as_pat),
        "unsigned"
    );
    assert_eq!(problem(r#""sub":"olu""#, as_pat), "unsigned");
    // It names a manager by a claim that no rule names.
    let other = |claims: &mut Claims| {
        claims.managers = vec![StatedManager {
            claim: "boss".to_owned(),
            subject: pat(),
        }];
    };
    assert_eq!(problem(r#""sub":"olu","boss":"pat""#, other), "unlawful");
    // Nobody: then there is nobody who could approve.
    assert_eq!(problem(r#""sub":"olu""#, |_| ()), "unlawful");
}

#[test]
fn of_several_subjects_of_a_person_the_one_is_named_that_the_word_is_about() {
    for way in [Way::Scim, Way::File, Way::Token] {
        let (mut log, registered, corp) = with_directory(way);
        let said = told(&mut log, Who::Pat, way, registered, corp);
        link(&mut log, Who::Pat, subject_of("pat-2"), registered);
        let group = DirectoryGroup {
            directory: "corp".to_owned(),
            group: DBA.to_owned(),
        };
        let target = log.target_with(|target| target.approver_groups = vec![group]);
        let asked = log.request(target, Uses::Single);
        let (report, _) = approved(&mut log, asked, Who::Pat, &[("group", said)]);
        let [identity] = of(&report, LinkKind::Identity)[..] else {
            panic!("{}", render(&report))
        };
        assert!(identity.what.contains(&pat().to_string()), "{identity:?}");
    }
}

#[test]
fn whoever_has_role_and_group_of_one_word_names_the_log_once() {
    let (mut log, registered, corp) = with_directory(Way::Scim);
    let said = told(&mut log, Who::Bot, Way::Scim, registered, corp);
    let group = DirectoryGroup {
        directory: "corp".to_owned(),
        group: DBA.to_owned(),
    };
    let target = log.target_with(|target| target.approver_groups = vec![group]);
    let asked = log.request(target, Uses::Single);
    let (report, _) = approved(&mut log, asked, Who::Bot, &[("group", said)]);
    let trust = &of(&report, LinkKind::Approval)[0].trust;
    let says = |what: &str| {
        let mut parties = trust.iter().filter_map(|party| party.what.as_deref());
        parties.any(|said| said.starts_with(what))
    };
    assert!(says("the role `approver`") && says("who is in it"));
    let alone = "the log, which alone says that it was said";
    let log_alone = trust.iter().filter(|party| party.who == alone);
    assert_eq!(log_alone.count(), 1, "{trust:?}");
}

/// Over SCIM a manager may be entered before it is known who that is.
#[test]
fn a_word_that_does_not_say_which_subject_names_all_of_the_persons() {
    let (mut log, registered, corp) = with_directory(Way::Scim);
    let olu = link(&mut log, Who::Olu, subject_of("olu"), registered);
    let boss = link(&mut log, Who::Pat, pat(), registered);
    let other = link(&mut log, Who::Pat, subject_of("pat-2"), registered);
    let manager = ResourceId::new(log.fresh());
    let mut user = |id, subject, manager| {
        let resource = sealed("resource", "{}");
        let change = DirectoryChange {
            active: true,
            directory: "corp".into(),
            groups: vec![],
            id,
            kind: ResourceKind::User,
            manager,
            resource: Some(resource.commitment()),
            subject,
        };
        let body = Body::DirectoryChange(change);
        log.record("server", &[("directory", corp)], body, vec![resource])
    };
    user(manager, None, None);
    let said = user(
        ResourceId::new([200; 16]),
        Some(subject_of("olu")),
        Some(manager),
    );
    user(manager, Some(pat()), None);
    let target = log.target_with(|target| target.manager_approves = true);
    let asked = log.request(target, Uses::Single);
    let (report, _) = approved(&mut log, asked, Who::Pat, &[("manager", said)]);
    let entries: Vec<u64> = of(&report, LinkKind::Identity)
        .iter()
        .flat_map(|link| link.entries.clone())
        .collect();
    assert_eq!(entries, [olu, boss, other].map(|place| place.index));
}

#[test]
fn a_directorys_rules_that_wait_for_witnesses_are_not_those_that_count() {
    let (mut log, registered, corp) = with_directory(Way::Scim);
    let said = told(&mut log, Who::Bot, Way::Scim, registered, corp);
    let target = log.target();
    let set = WitnessSet {
        demand: vec![Demand::People],
        policy: with_witness(&log.policy()).to_text(),
    };
    log.say(Who::Ada, &[], Say::WitnessSet(set), vec![]);
    let mut wider = directory(Way::Scim);
    wider.suspend = true;
    let parents = [("provider", registered)];
    let (id, waits) = log.say(Who::Ada, &parents, Say::DirectorySet(wider), vec![]);
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve(Who::Bot, ask);
    let word = Cosigned {
        before: Timestamp::from_millis(1_764_000_009_000),
        note: cosigned(&log, log.size(), 1_764_000_009),
        settles: vec![id],
        size: log.size(),
    };
    log.record(
        "server",
        &[("settles", waits)],
        Body::Cosigned(word),
        vec![],
    );
    let granted = log.grant(ask, &[yes], body);
    let mut session = log.open(&granted, "root");
    log.run(&mut session);
    let id = log.close(session);
    let report = verify_bundle(&log.bundle(id).to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let [rules] = of(&report, LinkKind::Directory)[..] else {
        panic!("{}", render(&report))
    };
    assert_eq!(rules.entries, [corp.index], "{said:?} {rules:?}");
}
