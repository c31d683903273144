//! Directories: what their word does, and to whom; what it never does.

use super::identities::{deploy, link, provider};
use super::*;
use crate::directory::{
    Directory, DirectoryChange, DirectoryRefusal, GroupRole, RefusedCount, ResourceKind,
    bearer_digest, subject_of,
};
use crate::id::ResourceId;
use crate::identity::{ProviderKind, subject};

pub(super) fn directory() -> Directory {
    Directory {
        name: "corp".to_owned(),
        provider: "idp".to_owned(),
        roles: vec![GroupRole {
            group: "Auditors".to_owned(),
            role: Role::Auditor,
        }],
        suspend: true,
        token: Some(bearer_digest(b"a long random token")),
        claim: None,
        manager_claim: None,
        signers: vec![],
        withdrawn: false,
    }
}

fn user(n: u8) -> ResourceId {
    ResourceId::new([n; 16])
}

impl World {
    pub(super) fn with_directory() -> Self {
        let mut w = Self::new(1);
        for say in [
            Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
            Say::ProviderSet(provider("ci", ProviderKind::Github)),
            Say::IdentityLink(link(REQ)),
            Say::WorkloadSet(deploy()),
            Say::TargetSet(target("db1")),
            Say::DirectorySet(directory()),
        ] {
            w.say(ADA, say, Vec::new()).unwrap();
        }
        for n in [ADA, BEN] {
            let by = if n == ADA { BEN } else { ADA };
            w.say(by, Say::IdentityLink(link(n)), Vec::new()).unwrap();
        }
        w
    }
    /// The directory describes the user who stands for this person.
    pub(super) fn hear(
        &mut self,
        n: u8,
        edit: impl FnOnce(&mut DirectoryChange),
    ) -> Result<(), Denied> {
        self.hear_as(SERVER, n, edit)
    }
    fn hear_as(
        &mut self,
        writer: &str,
        n: u8,
        edit: impl FnOnce(&mut DirectoryChange),
    ) -> Result<(), Denied> {
        let opening = opening("resource", "{}");
        let mut change = DirectoryChange {
            active: true,
            directory: "corp".to_owned(),
            groups: Vec::new(),
            id: user(n),
            kind: ResourceKind::User,
            manager: None,
            resource: Some(opening.commitment()),
            subject: Some(link(n).subject),
        };
        edit(&mut change);
        let openings = change.resource.map(|_| opening).into_iter().collect();
        self.record(writer, Body::DirectoryChange(change), openings)?;
        Ok(())
    }
    /// The server says what it refused to the directory.
    pub(super) fn refuse_directory(
        &mut self,
        writer: &str,
        edit: impl FnOnce(&mut DirectoryRefusal),
    ) -> Result<(), Denied> {
        let count = |code: &str, count| RefusedCount {
            code: code.to_owned(),
            count,
        };
        let mut refusal = DirectoryRefusal {
            directory: Some("corp".to_owned()),
            from: self.now.plus_millis(-MIN),
            refused: vec![count("invalidValue", 3), count("not-found", 1)],
            until: self.now,
        };
        edit(&mut refusal);
        self.record(writer, Body::DirectoryRefusal(refusal), Vec::new())?;
        Ok(())
    }
    fn who(&self, n: u8) -> &Person {
        &self.state.people[&person(n)]
    }
}

/// What is refused, and with which code.
type Bad<T> = (&'static str, fn(&mut T));

fn inactive(change: &mut DirectoryChange) {
    change.active = false;
}

#[test]
fn what_a_suspended_person_delegated_does_not_come_back() {
    let mut w = World::with_directory();
    let grant = w.grant(|_| ());
    let agent = w.agent(1, |d| d.targets = vec!["db1".to_owned()]);
    let session = w.open_by_agent(grant, agent, |_| ()).unwrap();
    w.hear(REQ, inactive).unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    w.hear(REQ, |_| ()).unwrap();
    w.open(grant).unwrap();
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open_by_agent(grant, agent, |_| ())), "revoked");
    let again = w.agent(2, |d| d.targets = vec!["db1".to_owned()]);
    w.open_by_agent(grant, again, |_| ()).unwrap();
}

#[test]
fn what_was_refused_to_directories_is_counted_and_changes_nothing() {
    let mut w = World::with_directory();
    let edits: [Edit<DirectoryRefusal>; 11] = [
        (|r| r.directory = Some("other".into()), "no-directory"),
        (|r| r.until = r.until.plus_millis(1), "time"),
        (|r| r.from = r.until.plus_millis(1), "time"),
        (|r| r.refused.clear(), "refusal"),
        (|r| r.refused.swap(0, 1), "refusal"),
        (|r| r.refused[1] = r.refused[0].clone(), "refusal"),
        (|r| r.refused[0].count = 0, "refusal"),
        (|r| r.refused[0].code.clear(), "refusal"),
        (|r| r.refused[0].code = "a b".into(), "refusal"),
        (|r| r.refused[1].code = "x".repeat(65), "refusal"),
        (
            |r| {
                let one = |n: u8| RefusedCount {
                    code: format!("x{}", "y".repeat(usize::from(n))),
                    count: 1,
                };
                r.refused = (0..65).map(one).collect();
            },
            "refusal",
        ),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        assert_eq!(no(w.refuse_directory(SERVER, edit)), code, "{nth}");
    }
    assert_eq!(no(w.refuse_directory("gw", |_| ())), "writer");
    let law = w.state.law_head;
    w.refuse_directory(SERVER, |_| ()).unwrap();
    w.refuse_directory(SERVER, |r| r.directory = None).unwrap();
    // A directory that was withdrawn is still named.
    let mut gone = directory();
    gone.withdrawn = true;
    assert_eq!(w.state.law_head, law);
    w.say(ADA, Say::DirectorySet(gone), vec![]).unwrap();
    w.refuse_directory(SERVER, |_| ()).unwrap();
}

#[test]
fn inactive_is_suspended_and_active_is_back() {
    let mut w = World::with_directory();
    let grant = w.grant(|r| r.uses = Uses::Reusable);
    let session = w.open(grant).unwrap();
    w.hear(REQ, |_| ()).unwrap();
    w.intent(session).unwrap();
    w.hear(REQ, inactive).unwrap();
    assert!(w.who(REQ).is_away());
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open(grant)), "revoked");
    assert_eq!(no(w.request(REQ, |_| ())), "suspended");
    assert_eq!(
        w.state.person_by_key(w.now, &key(REQ, 1).fingerprint()),
        None
    );
    let why = w.state.why_nobody(w.now, &key(REQ, 0).fingerprint());
    assert_eq!(why.unwrap().code, "suspended");
    assert!(w.state.has_left(deploy().workload), "its owner is away");
    w.hear(REQ, |_| ()).unwrap();
    assert!(!w.who(REQ).is_away() && !w.state.has_left(deploy().workload));
    w.open(grant).unwrap();
    w.request(REQ, |_| ()).unwrap();
    // Deleted is inactive; made again it is another resource of the same subject.
    w.hear(REQ, |c| (c.active, c.resource) = (false, None))
        .unwrap();
    assert!(w.who(REQ).is_away());
    assert_eq!(no(w.hear(REQ, |_| ())), "resource");
    w.hear(REQ, |c| c.id = user(99)).unwrap();
    assert!(!w.who(REQ).is_away());
}

#[test]
fn a_directory_changes_nobody_beyond_its_rules_and_links() {
    let mut w = World::with_directory();
    // Not linked: nothing happens.
    w.hear(PAT, inactive).unwrap();
    assert!(!w.who(PAT).is_away());
    w.hear(PAT, |c| {
        c.subject = None;
        c.id = user(50);
        c.active = false;
    })
    .unwrap();
    // It may not suspend.
    let lenient = Directory {
        suspend: false,
        ..directory()
    };
    w.say(ADA, Say::DirectorySet(lenient), vec![]).unwrap();
    w.hear(REQ, inactive).unwrap();
    assert!(!w.who(REQ).is_away());
    // It may, from now on: what it said before counts as well. And no longer.
    w.say(ADA, Say::DirectorySet(directory()), vec![]).unwrap();
    assert!(w.who(REQ).is_away());
    let withdrawn = Directory {
        withdrawn: true,
        ..directory()
    };
    w.say(ADA, Say::DirectorySet(withdrawn), vec![]).unwrap();
    assert!(!w.who(REQ).is_away());
    assert_eq!(no(w.hear(REQ, inactive)), "withdrawn");
}

#[test]
fn unlinking_is_no_way_out_of_a_suspension() {
    let mut w = World::with_directory();
    w.hear(REQ, |_| ()).unwrap();
    assert_eq!(
        no(w.say(REQ, Say::IdentityUnlink(link(REQ)), vec![])),
        "role"
    );
    w.hear(REQ, inactive).unwrap();
    w.say(ADA, Say::IdentityUnlink(link(REQ)), vec![]).unwrap();
    assert!(w.who(REQ).is_away());
    // Nobody stands for the subject now; its word is nobody's.
    w.hear(REQ, |_| ()).unwrap();
    assert!(w.who(REQ).is_away());
    w.say(ADA, Say::IdentityLink(link(REQ)), vec![]).unwrap();
    assert!(!w.who(REQ).is_away());
}

#[test]
fn groups_give_roles_beside_those_of_the_enrolment() {
    let mut w = World::with_directory();
    let group = |c: &mut DirectoryChange| c.groups = vec!["Auditors".to_owned()];
    assert!(!w.who(REQ).may(Role::Auditor));
    w.hear(REQ, group).unwrap();
    assert!(w.who(REQ).may(Role::Auditor) && w.who(REQ).may(Role::Requester));
    w.hear(REQ, |c| {
        group(c);
        c.active = false;
    })
    .unwrap();
    assert!(!w.who(REQ).may(Role::Auditor));
    w.hear(REQ, |_| ()).unwrap();
    assert!(!w.who(REQ).may(Role::Auditor) && w.who(REQ).may(Role::Requester));
    w.hear(REQ, group).unwrap();
    let without = Directory {
        roles: Vec::new(),
        ..directory()
    };
    w.say(ADA, Say::DirectorySet(without), vec![]).unwrap();
    assert!(!w.who(REQ).may(Role::Auditor));
    assert_eq!(no(w.hear(REQ, group)), "groups");
}

#[test]
fn the_last_administrators_are_spared_until_there_are_enough() {
    let mut w = World::with_directory();
    w.hear(ADA, inactive).unwrap();
    assert!(w.who(ADA).is_away());
    w.hear(BEN, inactive).unwrap();
    assert!(!w.who(BEN).is_away() && w.who(BEN).spared);
    let owned = |name, owner| Target {
        system_owner: person(owner),
        ..target(name)
    };
    assert_eq!(
        no(w.say(BEN, Say::TargetSet(owned("db2", ADA)), vec![])),
        "owner"
    );
    w.say(BEN, Say::TargetSet(owned("db2", BEN)), vec![])
        .unwrap();
    // Another one is there: the directory's word is given effect.
    let (add, name) = enrol(60, &[Role::Admin]);
    w.say(BEN, Say::PersonAdd(add), vec![name]).unwrap();
    assert!(w.who(BEN).is_away() && !w.who(BEN).spared);
    w.say(60, Say::TargetSet(owned("db3", 60)), vec![]).unwrap();
}

#[test]
fn what_no_directory_may_be_or_say() {
    let mut w = World::with_directory();
    let edits: [Bad<Directory>; 9] = [
        ("directory", |d| d.name = "Corp".to_owned()),
        ("directory", |d| d.roles[0].role = Role::Admin),
        ("directory", |d| d.roles[0].group = String::new()),
        ("directory", |d| d.roles[0].group = "a\u{202e}b".to_owned()),
        ("directory", |d| d.roles.push(d.roles[0].clone())),
        ("directory", |d| d.provider = "ci".to_owned()),
        ("directory", |d| {
            (d.name, d.provider) = ("other".to_owned(), "ci".to_owned())
        }),
        ("duplicate", |d| d.name = "other".to_owned()),
        ("directory", |d| {
            (d.name, d.withdrawn) = ("other".to_owned(), true)
        }),
    ];
    for (code, edit) in edits {
        let mut bad = directory();
        edit(&mut bad);
        assert_eq!(
            no(w.say(ADA, Say::DirectorySet(bad.clone()), vec![])),
            code,
            "{bad:?}"
        );
    }
    assert_eq!(
        no(w.say(PAT, Say::DirectorySet(directory()), vec![])),
        "role"
    );
    w.hear(REQ, |_| ()).unwrap();
    let edits: [Bad<DirectoryChange>; 9] = [
        ("no-directory", |c| c.directory = "other".to_owned()),
        ("groups", |c| c.groups = vec!["Others".to_owned()]),
        ("groups", |c| c.groups = vec!["Auditors".to_owned(); 2]),
        ("subject", |c| c.subject = Some(link(PAT).subject)),
        ("subject", |c| c.subject = None),
        ("duplicate", |c| c.id = user(77)),
        ("resource", |c| {
            (c.kind, c.active, c.subject) = (ResourceKind::Group, false, None)
        }),
        ("resource", |c| c.kind = ResourceKind::Group),
        ("resource", |c| c.resource = None),
    ];
    for (code, edit) in edits {
        assert_eq!(no(w.hear(REQ, edit)), code);
    }
    assert_eq!(no(w.hear_as("gateway", REQ, |_| ())), "writer");
    let found = |token: &[u8]| w.state.directory_by_token(&bearer_digest(token)).is_some();
    assert!(found(b"a long random token") && !found(b"a long random tokem"));
}

#[test]
fn a_subject_is_the_one_that_the_providers_tokens_name() {
    let idp = provider("idp", ProviderKind::Oidc);
    assert_eq!(subject_of(&idp, "user 3"), link(REQ).subject);
    let mut entra = provider("entra", ProviderKind::Entra);
    entra.issuer = "https://login.microsoftonline.com/t-1/v2.0".to_owned();
    let whole = subject(&entra.issuer, "t-1/o-2");
    assert_eq!(subject_of(&entra, "o-2"), whole);
    assert_eq!(subject_of(&entra, "t-1/o-2"), whole);
}
