//! Groups: from signed files and from the tokens of logins, and what a target asks of its approvers.

use super::directories::directory;
use super::identities::{BOT, fact, link};
use super::*;
use crate::directory::{Directory, DirectoryFile, DirectoryGroup, FileUser, GroupRole};
use crate::identity::{Login, Logout, StatedManager};

const DBA: &str = "DB approvers";

fn rule(group: &str, role: Role) -> GroupRole {
    GroupRole {
        group: group.to_owned(),
        role,
    }
}

/// The auditor signs its files.
fn files() -> Directory {
    Directory {
        name: "hr".to_owned(),
        roles: vec![rule(DBA, Role::Approver), rule("Auditors", Role::Auditor)],
        signers: vec![person(AUD)],
        token: None,
        ..directory()
    }
}

/// The tokens of `idp` list them.
fn tokens() -> Directory {
    Directory {
        name: "sso".to_owned(),
        claim: Some("groups".to_owned()),
        signers: Vec::new(),
        suspend: false,
        ..files()
    }
}

fn group(directory: &str) -> DirectoryGroup {
    DirectoryGroup {
        directory: directory.to_owned(),
        group: DBA.to_owned(),
    }
}

fn user(n: u8, groups: &[&str]) -> FileUser {
    FileUser {
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        manager: None,
        subject: link(n).subject,
    }
}

/// In no group, with this manager.
fn under(n: u8, manager: u8) -> FileUser {
    FileUser {
        manager: Some(link(manager).subject),
        ..user(n, &[])
    }
}

impl World {
    fn with_groups() -> Self {
        let mut w = Self::with_providers();
        for set in [files(), tokens()] {
            w.say(ADA, Say::DirectorySet(set), Vec::new()).unwrap();
        }
        w
    }
    fn file(&mut self, by: u8, mut users: Vec<FileUser>) -> Result<AskRef, Denied> {
        users.sort_by_key(|user| user.subject);
        self.file_as_it_is(by, "hr", users)
    }
    fn file_as_it_is(
        &mut self,
        by: u8,
        directory: &str,
        users: Vec<FileUser>,
    ) -> Result<AskRef, Denied> {
        let sealed = opening("file", "whatever it was");
        let file = DirectoryFile {
            directory: directory.to_owned(),
            file: sealed.commitment(),
            users,
        };
        self.say(by, Say::DirectoryFile(file), vec![sealed])
    }
    fn may(&self, n: u8, role: Role) -> bool {
        self.state.people[&person(n)].may(role)
    }
    fn is_approver_of(&self, n: u8, directory: &str) -> bool {
        let groups = &self.state.people[&person(n)].groups;
        groups.iter().any(|own| own.group == group(directory))
    }
    fn target_with(&mut self, edit: impl FnOnce(&mut Target)) -> Result<AskRef, Denied> {
        let mut rules = target("db1");
        edit(&mut rules);
        self.say(ADA, Say::TargetSet(rules), Vec::new())
    }
    fn log_in_with(&mut self, n: u8, groups: &[&str]) -> Result<(StatementId, SshKey), Denied> {
        self.log_in(n, |login| {
            login.claims.groups = groups.iter().map(|name| fact("groups", name)).collect();
        })
    }
}

#[test]
fn a_signed_file_says_who_is_there_and_in_which_groups() {
    let mut w = World::with_groups();
    w.file(AUD, vec![user(REQ, &["Auditors"]), user(PAT, &[])])
        .unwrap();
    assert!(w.may(REQ, Role::Auditor) && !w.is_approver_of(REQ, "hr"));
    // The newest file is all there is: who is missing now is suspended, who never was listed is not.
    w.file(AUD, vec![user(PAT, &[DBA])]).unwrap();
    assert!(w.state.people[&person(REQ)].is_away() && !w.may(REQ, Role::Auditor));
    assert!(!w.state.people[&person(ADA)].is_away());
    assert_eq!(no(w.request(REQ, |_| ())), "suspended");
    w.file(AUD, vec![user(PAT, &[]), user(REQ, &[])]).unwrap();
    w.request(REQ, |_| ()).unwrap();
    // A withdrawn directory says nothing.
    w.file(AUD, vec![user(REQ, &["Auditors"])]).unwrap();
    let withdrawn = Directory {
        withdrawn: true,
        ..files()
    };
    w.say(ADA, Say::DirectorySet(withdrawn), vec![]).unwrap();
    assert!(!w.may(REQ, Role::Auditor) && !w.state.people[&person(PAT)].is_away());
    assert_eq!(no(w.file(AUD, vec![])), "withdrawn");
}

#[test]
fn a_file_is_signed_by_whom_the_rule_names_and_says_no_more_than_it_lets() {
    let mut w = World::with_groups();
    assert_eq!(no(w.file(ADA, vec![])), "role");
    assert_eq!(no(w.file_as_it_is(AUD, "nowhere", vec![])), "no-directory");
    // The one that speaks by logins has no signers.
    assert_eq!(no(w.file_as_it_is(AUD, "sso", vec![])), "role");
    for groups in [&["Others"][..], &[DBA, "Auditors"], &[DBA, DBA]] {
        assert_eq!(no(w.file(AUD, vec![user(REQ, groups)])), "groups");
    }
    let twice = vec![user(REQ, &[]), user(REQ, &[DBA])];
    assert_eq!(no(w.file(AUD, twice)), "file");
    let mut sorted = vec![user(REQ, &[]), user(PAT, &[])];
    sorted.sort_by_key(|user| user.subject);
    sorted.reverse();
    assert_eq!(no(w.file_as_it_is(AUD, "hr", sorted)), "file");
    // SCIM has no say in it.
    assert_eq!(
        no(w.hear(REQ, |c| c.directory = "hr".to_owned())),
        "directory"
    );
    assert!(!w.state.people[&person(REQ)].is_away());
}

#[test]
fn a_directory_speaks_in_one_way_and_keeps_it() {
    let mut w = World::with_groups();
    let edits: [fn(&mut Directory); 9] = [
        |d| d.token = directory().token,
        |d| d.claim = Some("groups".to_owned()),
        |d| d.signers.clear(),
        |d| d.signers = vec![person(AUD); 2],
        |d| d.signers = (0..17).map(person).collect(),
        |d| (d.claim, d.signers) = (Some("groups".to_owned()), Vec::new()),
        |d| {
            (d.name, d.claim) = ("new".to_owned(), Some("two words".to_owned()));
            (d.signers, d.suspend) = (Vec::new(), false);
        },
        |d| {
            (d.name, d.claim) = ("new".to_owned(), Some("groups".to_owned()));
            d.signers.clear();
        },
        |d| (d.token, d.signers) = (directory().token, Vec::new()),
    ];
    for edit in edits {
        let mut bad = files();
        edit(&mut bad);
        let done = w.say(ADA, Say::DirectorySet(bad.clone()), vec![]);
        assert_eq!(no(done), "directory", "{bad:?}");
    }
    let mut strange = files();
    strange.signers = vec![person(200)];
    assert_eq!(
        no(w.say(ADA, Say::DirectorySet(strange), vec![])),
        "no-person"
    );
}

#[test]
fn groups_of_a_token_count_while_its_login_does() {
    let mut w = World::with_groups();
    assert!(!w.is_approver_of(REQ, "sso"));
    let (id, key) = w.log_in_with(REQ, &[DBA]).unwrap();
    assert!(w.is_approver_of(REQ, "sso"));
    let logout = Say::Logout(Logout { login: id });
    w.say_as(REQ, &key, logout, vec![]).unwrap();
    assert!(!w.is_approver_of(REQ, "sso"));
    // Of two logins one is enough; another's changes nothing.
    let (first, key) = w.log_in_with(REQ, &[DBA]).unwrap();
    w.log_in_with(REQ, &["Auditors"]).unwrap();
    assert!(w.is_approver_of(REQ, "sso") && w.may(REQ, Role::Auditor));
    let logout = Say::Logout(Logout { login: first });
    w.say_as(REQ, &key, logout, vec![]).unwrap();
    assert!(!w.is_approver_of(REQ, "sso") && w.may(REQ, Role::Auditor));
    // Not a second longer than the login, whatever the key that signs.
    w.log_in_with(REQ, &[DBA]).unwrap();
    w.after(8 * HOUR - 1).head(SERVER).unwrap();
    assert!(w.is_approver_of(REQ, "sso"));
    w.after(1).head(SERVER).unwrap();
    assert!(!w.is_approver_of(REQ, "sso") && !w.may(REQ, Role::Auditor));
    // Nor longer than what the login rests on.
    w.log_in_with(REQ, &[DBA]).unwrap();
    w.say(REQ, Say::IdentityUnlink(link(REQ)), vec![])
        .unwrap_err();
    w.say(ADA, Say::IdentityUnlink(link(REQ)), vec![]).unwrap();
    w.say(ADA, Say::IdentityLink(link(REQ)), vec![]).unwrap();
    assert!(!w.is_approver_of(REQ, "sso"));
    w.log_in_with(REQ, &[DBA]).unwrap();
    let mut without = tokens();
    without.roles.remove(0);
    w.say(ADA, Say::DirectorySet(without), vec![]).unwrap();
    assert!(!w.is_approver_of(REQ, "sso"));
}

#[test]
fn the_approval_of_a_role_that_ended_with_its_login_is_refused_at_once() {
    let mut w = World::with_groups();
    w.log_in_with(AUD, &[]).unwrap_err();
    w.say(ADA, Say::IdentityLink(link(AUD)), vec![]).unwrap();
    w.log_in_with(AUD, &[DBA]).unwrap();
    w.after(8 * HOUR - 1);
    let long = |r: &mut Request| r.not_after = r.not_before.plus_millis(2 * HOUR);
    let ask = w.request(REQ, long).unwrap();
    w.approve(AUD, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
    let ask = w.request(REQ, long).unwrap();
    w.after(1);
    assert_eq!(no(w.approve(AUD, ask)), "role");
}

#[test]
fn a_login_states_groups_that_rules_name_and_nothing_else() {
    let mut w = World::with_groups();
    for groups in [&["Others"][..], &[DBA, "Auditors"], &[DBA, DBA]] {
        assert_eq!(no(w.log_in_with(REQ, groups)), "groups");
    }
    assert_eq!(
        no(w.log_in(REQ, |l| l.claims.groups = vec![fact("roles", DBA)])),
        "groups"
    );
    assert_eq!(
        no(w.log_in(BOT, |l| l.claims.groups = vec![fact("groups", DBA)])),
        "groups"
    );
}

#[test]
fn a_target_says_of_which_group_its_approvers_are() {
    let mut w = World::with_groups();
    let strange = |g: DirectoryGroup| move |t: &mut Target| t.approver_groups = vec![g];
    assert_eq!(no(w.target_with(strange(group("nowhere")))), "no-directory");
    let unnamed = DirectoryGroup {
        group: "Others".to_owned(),
        ..group("hr")
    };
    assert_eq!(no(w.target_with(strange(unnamed))), "group");
    assert_eq!(
        no(w.target_with(|t| t.approver_groups = vec![group("hr"); 2])),
        "target"
    );
    w.target_with(|t| t.approver_groups = vec![group("hr"), group("sso")])
        .unwrap();

    // An approver by enrolment is none here, and may still say no.
    let ask = w.request(REQ, |_| ()).unwrap();
    let denied = w.approve(PAT, ask).unwrap_err();
    assert_eq!(denied.code, "group");
    assert!(denied.message.contains("`DB approvers` of `hr`"));
    let open = &w.state.asks[&ask.0];
    assert!(w.state.approvers(open).is_empty());
    let denial = Say::Denial(answer(ask));
    w.say(PAT, denial, vec![]).unwrap();

    // By file; the approval names the file.
    let ask = w.request(REQ, |_| ()).unwrap();
    let file = w.file(AUD, vec![user(PAT, &[DBA])]).unwrap();
    let open = &w.state.asks[&ask.0];
    assert_eq!(w.state.approvers(open), [person(PAT)]);
    w.approve(PAT, ask).unwrap();
    // The grant follows; before it stands the approval.
    let approval = Entry::from_bytes(&w.log[w.log.len() - 2]).unwrap();
    let refs: Vec<_> = approval
        .refs
        .iter()
        .map(|r| (r.rel.as_str(), r.hash))
        .collect();
    assert_eq!(refs, [("answers", ask.1), ("group", file.1)]);
    let grant = w.grant_of(ask).unwrap();
    // Who has left the group does not extend either; a login's token is as good as a file.
    w.file(AUD, vec![user(PAT, &[])]).unwrap();
    let until = w.now.plus_millis(2 * HOUR);
    let longer = w.extend(REQ, grant, until).unwrap();
    assert_eq!(no(w.approve(PAT, longer)), "group");
    w.log_in_with(PAT, &[DBA]).unwrap();
    w.approve(PAT, longer).unwrap();
}

#[test]
fn where_a_manager_approves_nobody_else_is_enough() {
    let mut w = World::with_groups();
    w.target_with(|t| t.manager_approves = true).unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    w.file(AUD, vec![under(REQ, REQ)]).unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    // Whom nobody is linked to manages nobody.
    w.file(AUD, vec![under(REQ, AUD)]).unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    w.file(AUD, vec![under(REQ, PAT), user(PAT, &[])]).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let missing = |w: &World, ask: AskRef| w.state.missing_approvals(&w.state.asks[&ask.0]);
    assert_eq!(missing(&w, ask).unwrap(), [Some(person(PAT))]);
    // Another approver alone is not enough.
    w.say(ADA, Say::IdentityLink(link(AUD)), vec![]).unwrap();
    w.file(
        AUD,
        vec![under(REQ, PAT), user(PAT, &[]), user(AUD, &[DBA])],
    )
    .unwrap();
    w.approve(AUD, ask).unwrap();
    assert_eq!(w.grant_of(ask), None);
    // The approval of the manager links to what says so.
    let file = w
        .file(AUD, vec![under(REQ, PAT), user(PAT, &[]), user(AUD, &[])])
        .unwrap();
    w.approve(PAT, ask).unwrap();
    let approval = Entry::from_bytes(&w.log[w.log.len() - 2]).unwrap();
    let refs: Vec<_> = approval
        .refs
        .iter()
        .map(|r| (r.rel.as_str(), r.hash))
        .collect();
    assert_eq!(refs, [("answers", ask.1), ("manager", file.1)]);
    let grant = w.grant_of(ask).unwrap();

    // An extension likewise; with the manager gone from the directory nobody is enough.
    let until = w.now.plus_millis(2 * HOUR);
    let longer = w.extend(REQ, grant, until).unwrap();
    w.file(AUD, vec![user(REQ, &[]), user(PAT, &[]), user(AUD, &[])])
        .unwrap();
    assert_eq!(missing(&w, longer).unwrap(), [None]);
    w.approve(PAT, longer).unwrap();
    assert_eq!(missing(&w, longer).unwrap(), [None]);
    assert_eq!(no(w.extend(REQ, grant, until)), "manager");
}

/// The tokens of `idp` name managers, too.
fn with_managers() -> Directory {
    Directory {
        manager_claim: Some("manager".to_owned()),
        ..tokens()
    }
}

fn named(claim: &str, manager: u8) -> StatedManager {
    StatedManager {
        claim: claim.to_owned(),
        subject: link(manager).subject,
    }
}

fn under_pat(login: &mut Login) {
    login.claims.managers = vec![named("manager", PAT)];
}

impl World {
    fn with_named_managers() -> Self {
        let mut w = Self::with_groups();
        let set = Say::DirectorySet(with_managers());
        w.say(ADA, set, Vec::new()).unwrap();
        w.target_with(|t| t.manager_approves = true).unwrap();
        w
    }
    fn manager(&self, n: u8) -> Option<PersonId> {
        let manager = self.state.manager_of(person(n));
        manager.map(|manager| manager.person)
    }
}

#[test]
fn a_manager_whom_a_token_names_is_one_while_its_login_counts() {
    let mut w = World::with_named_managers();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    let (login, key) = w.log_in(REQ, under_pat).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    // The approval links to the login that says so.
    let approval = Entry::from_bytes(&w.log[w.log.len() - 2]).unwrap();
    let place = w.state.logins[&login].place;
    assert_eq!(approval.refs[1].rel, "manager");
    assert_eq!(approval.refs[1].hash, place.hash);
    let logout = Say::Logout(Logout { login });
    w.say_as(REQ, &key, logout, vec![]).unwrap();
    assert_eq!(w.manager(REQ), None);
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    // Not a second longer than the login.
    w.log_in(REQ, under_pat).unwrap();
    w.after(8 * HOUR - 1).head(SERVER).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    let ask = w.request(REQ, |r| r.not_after = r.not_before.plus_millis(2 * HOUR));
    let ask = ask.unwrap();
    w.after(1);
    w.approve(PAT, ask).unwrap();
    assert_eq!((w.manager(REQ), w.grant_of(ask)), (None, None));
    // Nor longer than the link of either, the rule, or the directory.
    w.log_in(REQ, under_pat).unwrap();
    w.say(ADA, Say::IdentityUnlink(link(PAT)), vec![]).unwrap();
    assert_eq!(w.manager(REQ), None);
    let denied = w.request(REQ, |_| ()).unwrap_err();
    assert!(denied.message.contains("is linked to nobody"), "{denied}");
    w.say(ADA, Say::IdentityLink(link(PAT)), vec![]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    w.say(ADA, Say::DirectorySet(tokens()), vec![]).unwrap();
    assert_eq!(w.manager(REQ), None);
    w.say(ADA, Say::DirectorySet(with_managers()), vec![])
        .unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    let withdrawn = Directory {
        withdrawn: true,
        ..with_managers()
    };
    w.say(ADA, Say::DirectorySet(withdrawn), vec![]).unwrap();
    assert_eq!(w.manager(REQ), None);
}

#[test]
fn the_newest_login_names_the_manager_and_another_source_only_where_it_is_newer() {
    let mut w = World::with_named_managers();
    w.log_in(REQ, under_pat).unwrap();
    // The next one names somebody else, then nobody.
    w.log_in(REQ, |l| l.claims.managers = vec![named("manager", ADA)])
        .unwrap();
    assert_eq!(w.manager(REQ), Some(person(ADA)));
    let (newest, key) = w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(w.manager(REQ), None);
    // Of those that count it is the newest: another's login changes nothing, the end of one does.
    w.log_in(PAT, |l| l.claims.managers = vec![named("manager", REQ)])
        .unwrap();
    assert_eq!(w.manager(REQ), None);
    let logout = Say::Logout(Logout { login: newest });
    w.say_as(REQ, &key, logout, vec![]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(ADA)));
    // Whoever is their own manager has none who may approve.
    w.log_in(REQ, |l| l.claims.managers = vec![named("manager", REQ)])
        .unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    // A file that is newer, and a login that is newer than that.
    w.file(AUD, vec![under(REQ, PAT)]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    w.log_in(REQ, |l| l.claims.managers = vec![named("manager", ADA)])
        .unwrap();
    assert_eq!(w.manager(REQ), Some(person(ADA)));
    // A login that says nothing takes nothing from the file.
    w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
}

fn manager_is(n: u8) -> impl FnOnce(&mut Login) {
    move |login| login.claims.managers = vec![named("manager", n)]
}

#[test]
fn a_yes_is_the_managers_only_if_they_were_the_manager_when_they_gave_it() {
    for quorum in [1, 2] {
        let mut w = World::with_named_managers();
        w.target_with(|t| (t.manager_approves, t.quorum) = (true, quorum))
            .unwrap();
        w.say(ADA, Say::IdentityLink(link(QUI)), vec![]).unwrap();
        w.log_in(REQ, under_pat).unwrap();
        let ask = w.request(REQ, |_| ()).unwrap();
        let first = w.approve(QUI, ask).unwrap();
        assert_eq!(no(w.approve(QUI, ask)), "duplicate");
        // Whoever asks shows a token that makes of the approver the manager.
        w.log_in(REQ, manager_is(QUI)).unwrap();
        let open = &w.state.asks[&ask.0];
        let missing = w.state.missing_approvals(open).unwrap();
        let expected = [Some(person(QUI)), None];
        assert_eq!(missing, expected[..quorum as usize]);
        assert_eq!(w.state.approvers(open), [person(PAT), person(QUI)]);
        // Before version 3 that was enough.
        let mut before = w.state.clone();
        before.version = 2;
        let missing = before.missing_approvals(open).unwrap();
        assert_eq!(missing, expected[1..quorum as usize]);
        assert_eq!(before.approvers(open), [person(PAT)]);
        let other = w.approve(PAT, ask).unwrap();
        assert_eq!(w.grant_of(ask), None);
        let open = &w.state.asks[&ask.0];
        let missing = w.state.missing_approvals(open).unwrap();
        assert_eq!(missing, [Some(person(QUI))]);
        assert_eq!(no(w.approve(PAT, ask)), "duplicate");
        // They say yes once more, which takes the place of the first and has the link.
        let second = w.approve(QUI, ask).unwrap();
        let grant = w.grant_of(ask).unwrap();
        let refs = |back: usize| {
            let entry = Entry::from_bytes(&w.log[w.log.len() - back]).unwrap();
            let refs = entry.refs.into_iter();
            refs.map(|r| (r.rel, r.hash)).collect::<Vec<_>>()
        };
        assert_eq!(refs(2)[1].0, "manager");
        let approvals = [other, second].map(|yes| ("approval".to_owned(), yes.1));
        assert_eq!(refs(1)[1..], approvals);
        assert!(approvals.iter().all(|(_, hash)| *hash != first.1));
        let by = w.state.grants[&grant].approvals.iter();
        let by: Vec<_> = by.map(|yes| (yes.by, yes.manager.is_some())).collect();
        assert_eq!(by, [(person(PAT), false), (person(QUI), true)]);
        assert_eq!(no(w.approve(QUI, ask)), "settled");
    }
}

#[test]
fn who_was_the_manager_before_they_approve_says_yes_once() {
    let mut w = World::with_named_managers();
    w.target_with(|t| (t.manager_approves, t.quorum) = (true, 2))
        .unwrap();
    w.log_in(REQ, under_pat).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    // The link stays the one that the yes has.
    w.log_in(REQ, under_pat).unwrap();
    let missing = |w: &World, ask: AskRef| {
        let missing = w.state.missing_approvals(&w.state.asks[&ask.0]);
        missing.unwrap()
    };
    assert_eq!(missing(&w, ask), [None]);
    assert_eq!(no(w.approve(PAT, ask)), "duplicate");
    // Another manager is wanted now, and the first again where the first is the manager again.
    w.say(ADA, Say::IdentityLink(link(QUI)), vec![]).unwrap();
    w.log_in(REQ, manager_is(QUI)).unwrap();
    assert_eq!(missing(&w, ask), [Some(person(QUI))]);
    let (newest, key) = w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(missing(&w, ask), [None]);
    assert!(w.state.lacks_manager(&w.state.asks[&ask.0]));
    w.approve(QUI, ask).unwrap();
    assert_eq!(w.grant_of(ask), None);
    w.log_in(REQ, under_pat).unwrap();
    // Nothing lacks, and nobody else is left: another yes of either carries it.
    assert_eq!(missing(&w, ask), []);
    let open = &w.state.asks[&ask.0];
    assert_eq!(w.state.approvers(open), [person(PAT), person(QUI)]);
    let mut before = w.state.clone();
    before.version = 2;
    assert!(before.approvers(open).is_empty());
    w.approve(QUI, ask).unwrap();
    let approvals = &w.state.grants[&w.grant_of(ask).unwrap()].approvals;
    assert_eq!(approvals.len(), 2);
    let logout = Say::Logout(Logout { login: newest });
    w.say_as(REQ, &key, logout, vec![]).unwrap();
    // So it is where a target asks for less than it did.
    let mut w = World::with(|t| t.quorum = 2);
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(QUI, ask).unwrap();
    assert_eq!(no(w.approve(QUI, ask)), "duplicate");
    w.target_with(|_| ()).unwrap();
    w.approve(QUI, ask).unwrap();
    assert_eq!(w.state.grants[&w.grant_of(ask).unwrap()].approvals.len(), 1);
}

#[test]
fn the_newest_word_about_a_manager_counts_also_if_it_names_nobody_here() {
    let mut w = World::with_named_managers();
    w.file(AUD, vec![under(REQ, PAT)]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    w.log_in(REQ, manager_is(AUD)).unwrap();
    assert_eq!(w.manager(REQ), None);
    let denied = w.request(REQ, |_| ()).unwrap_err();
    assert!(denied.message.contains("is linked to nobody"), "{denied}");
    // Before version 3 an older word counted then.
    let mut before = w.state.clone();
    before.version = 2;
    before.hear_directories(w.now);
    let manager = before.manager_of(person(REQ));
    assert_eq!(manager.map(|m| m.person), Some(person(PAT)));
    // A newer one takes its place, and a link makes somebody of nobody.
    w.file(AUD, vec![under(REQ, PAT)]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    w.log_in(REQ, manager_is(AUD)).unwrap();
    assert_eq!(w.manager(REQ), None);
    w.say(ADA, Say::IdentityLink(link(AUD)), vec![]).unwrap();
    assert_eq!(w.manager(REQ), Some(person(AUD)));
}

/// A log goes from version 2 to this one: what ends at that very entry ends by the rules of this one, live as in replay.
#[test]
fn the_first_entry_of_a_version_is_judged_by_its_rules_live_as_in_replay() {
    let mut w = World::with_named_managers();
    w.file(AUD, vec![under(REQ, PAT)]).unwrap();
    let soon = w.now.plus_millis(10 * MIN);
    w.log_in(REQ, |login| {
        manager_is(AUD)(login);
        login.until = soon;
    })
    .unwrap();
    w.log_in(REQ, manager_is(AUD)).unwrap();
    let mut live = w.state.clone();
    live.version = 2;
    live.hear_directories(w.now);
    assert!(live.manager_of(person(REQ)).is_some());
    let mut replay = live.clone();
    let later = soon.plus_millis(1);
    let refused = crate::directory::RefusedCount {
        code: "no-identity".to_owned(),
        count: 1,
    };
    let proposal = Proposal {
        id: EntryId::new(w.fresh()),
        writer: SERVER.to_owned(),
        body: Body::LoginRefusal(crate::identity::LoginRefusal {
            from: w.now,
            provider: None,
            refused: vec![refused],
            until: w.now,
        }),
        openings: Vec::new(),
        scope: Scope::None,
    };
    for entry in live.sequence(&Fake, later, &proposal).unwrap() {
        replay.apply(&Fake, &entry.bytes).unwrap();
    }
    assert!(replay.manager_of(person(REQ)).is_none());
    assert_eq!(fingerprint(&live), fingerprint(&replay));
}

#[test]
fn of_two_claims_of_one_token_the_one_counts_that_names_somebody() {
    for (one, other) in [(AUD, PAT), (PAT, AUD)] {
        let mut w = World::with_named_managers();
        let boss = Directory {
            name: "boss".to_owned(),
            manager_claim: Some("boss".to_owned()),
            ..with_managers()
        };
        w.say(ADA, Say::DirectorySet(boss), vec![]).unwrap();
        w.log_in(REQ, |l| {
            l.claims.managers = vec![named("boss", one), named("manager", other)];
        })
        .unwrap();
        assert_eq!(w.manager(REQ), Some(person(PAT)));
    }
}

#[test]
fn over_scim_a_manager_who_becomes_somebody_unknown_is_nobody_at_once() {
    let mut w = World::with_groups();
    w.say(ADA, Say::DirectorySet(directory()), vec![]).unwrap();
    w.file(AUD, vec![under(REQ, PAT)]).unwrap();
    let boss = crate::id::ResourceId::new([AUD; 16]);
    // The directory does not say yet who that is.
    w.hear(REQ, |c| c.manager = Some(boss)).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    w.hear(AUD, |_| ()).unwrap();
    assert_eq!(w.manager(REQ), None);
    w.hear(AUD, |c| (c.active, c.resource) = (false, None))
        .unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
}

#[test]
fn logins_that_say_what_an_approval_needed_are_found() {
    let mut w = World::with_named_managers();
    let (olu, _) = w.log_in(REQ, under_pat).unwrap();
    let (pat, _) = w.log_in_with(PAT, &[DBA]).unwrap();
    w.log_in_with(QUI, &[]).unwrap_err();
    w.target_with(|t| {
        (t.manager_approves, t.approver_groups) = (true, vec![group("sso")]);
    })
    .unwrap();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let open = &w.state.sessions[&session].open;
    assert!(w.state.logins_behind(open).is_empty());
    assert_eq!(w.state.logins_vouching(open), [olu, pat].into());
    // Nobody who has the role by name needs a group for it; an auditor needs it.
    w.say(ADA, Say::IdentityLink(link(AUD)), vec![]).unwrap();
    w.target_with(|_| ()).unwrap();
    for (by, wanted) in [(PAT, None), (AUD, Some(()))] {
        let (login, _) = w.log_in_with(by, &[DBA]).unwrap();
        let ask = w.request(REQ, |_| ()).unwrap();
        w.approve(by, ask).unwrap();
        let session = w.open(w.grant_of(ask).unwrap()).unwrap();
        let open = &w.state.sessions[&session].open;
        let expected = wanted.map(|()| login).into_iter().collect();
        assert_eq!(w.state.logins_vouching(open), expected);
    }
}

#[test]
fn a_login_states_the_managers_that_its_token_names_and_no_others() {
    let mut w = World::with_named_managers();
    for managers in [
        vec![named("boss", PAT)],
        vec![named("manager", PAT), named("manager", ADA)],
        vec![named("manager", PAT), named("boss", PAT)],
    ] {
        let done = w.log_in(REQ, |l| l.claims.managers = managers);
        assert!(["managers", "claims"].contains(&no(done)));
    }
    let done = w.log_in(BOT, |l| l.claims.managers = vec![named("manager", PAT)]);
    assert_eq!(no(done), "claims");
    // Neither another than the token's, nor none where it names one.
    for stated in [vec![named("manager", ADA)], vec![]] {
        let mut draft = w.draft(REQ);
        let mut said = draft.login.claims.clone();
        said.managers = vec![named("manager", PAT)];
        draft.login.claims.managers = stated;
        draft.token = Some(said);
        assert_eq!(no(w.hand_in(&draft)), "claims");
    }
    w.log_in(REQ, under_pat).unwrap();
}

#[test]
fn a_claim_for_managers_is_a_way_of_tokens_and_a_word() {
    let mut w = World::with_groups();
    let edits: [fn(&mut Directory); 6] = [
        |d| d.manager_claim = Some("two words".to_owned()),
        |d| d.manager_claim = Some(String::new()),
        |d| d.suspend = true,
        |d| d.signers = vec![person(AUD)],
        |d| d.token = directory().token,
        // No claim lists the groups of its rules.
        |d| (d.name, d.claim) = ("new".to_owned(), None),
    ];
    for edit in edits {
        let mut bad = with_managers();
        edit(&mut bad);
        let done = w.say(ADA, Say::DirectorySet(bad.clone()), vec![]);
        assert_eq!(no(done), "directory", "{bad:?}");
    }
    let alone = Directory {
        name: "new".to_owned(),
        claim: None,
        roles: Vec::new(),
        ..with_managers()
    };
    w.say(ADA, Say::DirectorySet(alone), vec![]).unwrap();
    w.log_in(REQ, under_pat).unwrap();
    assert_eq!(w.manager(REQ), Some(person(PAT)));
    // One that speaks by files does not begin to speak by tokens.
    let mut other = files();
    (other.manager_claim, other.signers) = (Some("manager".to_owned()), Vec::new());
    other.roles.clear();
    let done = w.say(ADA, Say::DirectorySet(other), vec![]);
    assert_eq!(no(done), "directory");
}

#[test]
fn over_scim_a_manager_is_another_user_of_the_directory() {
    let mut w = World::with_groups();
    w.say(ADA, Say::DirectorySet(directory()), vec![]).unwrap();
    w.target_with(|t| t.manager_approves = true).unwrap();
    let boss = crate::id::ResourceId::new([PAT; 16]);
    w.hear(REQ, |c| c.manager = Some(boss)).unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    w.hear(PAT, |_| ()).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
    w.hear(PAT, |c| (c.active, c.resource) = (false, None))
        .unwrap();
    assert_eq!(no(w.request(REQ, |_| ())), "manager");
    assert_eq!(
        no(w.hear(ADA, |c| {
            (c.kind, c.subject, c.active) = (crate::directory::ResourceKind::Group, None, false);
            c.manager = Some(boss);
        })),
        "resource"
    );
}

#[test]
fn of_two_logins_the_one_that_lasts_carries_the_approval() {
    let mut w = World::with_groups();
    w.target_with(|t| t.approver_groups = vec![group("sso")])
        .unwrap();
    w.log_in_with(PAT, &[DBA]).unwrap();
    let longer = w.state.people[&person(PAT)].groups[0].place;
    w.log_in(PAT, |login| {
        login.claims.groups = vec![fact("groups", DBA)];
        login.until = soon_after(login.claims.issued);
    })
    .unwrap();
    assert_ne!(w.state.people[&person(PAT)].groups[0].place, longer);
    let ask = w.request(REQ, |_| ()).unwrap();
    w.after(10 * MIN);
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.state.people[&person(PAT)].groups[0].place, longer);
}

/// Ten minutes after a token was issued.
fn soon_after(issued: Timestamp) -> Timestamp {
    issued.plus_millis(10 * MIN)
}
