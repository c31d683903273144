//! Directories: what their word changes. It suspends people and gives roles, as far as a rule that was
//! approved under quorum lets it, and only people whom an identity at its provider stands for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::identities::Before;
use super::{Denied, LoginState, MANAGERS, Manager, Membership, Place, SERVER, State, rules};
use crate::directory::{
    Directory, DirectoryChange, DirectoryFile, DirectoryGroup, GroupRole, ResourceKind,
};
use crate::entry::Entry;
use crate::id::{ContentDigest, PersonId, ResourceId, StatementId};
use crate::statement::{Role, SshKey};
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Most directories, withdrawn ones included.
const MAX_DIRECTORIES: usize = 16;
/// Most rules of one directory.
const MAX_RULES: usize = 64;
/// Longest name of a group, in bytes.
pub(super) const MAX_GROUP: usize = 256;
/// Most signers of one directory, and groups of a target's approvers.
pub(super) const MAX_NAMED: usize = 16;
/// Most resources of one directory.
pub const MAX_RESOURCES: usize = 65_536;

/// A directory, as the law knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryState {
    /// Its rules.
    pub directory: Directory,
    /// The statement that set them.
    pub place: Place,
    /// Who was ever listed, where it speaks by files.
    pub listed: BTreeMap<ContentDigest, Listed>,
    /// What it keeps. Users that stood for a subject stay when they are deleted.
    pub resources: BTreeMap<ResourceId, ResourceState>,
    /// The newest user of each subject.
    pub subjects: BTreeMap<ContentDigest, ResourceId>,
}

/// Somebody whom a file listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Does the newest file?
    pub active: bool,
    /// In which of the named groups.
    pub groups: Vec<String>,
    /// The manager's subject.
    pub manager: Option<ContentDigest>,
    /// The newest file.
    pub place: Place,
}

/// A resource, as its directory last described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub changed: Timestamp,
    /// The newest entry about it.
    pub place: Place,
    /// What that says.
    pub said: DirectoryChange,
}

impl ResourceState {
    /// Was it deleted?
    pub fn is_gone(&self) -> bool {
        self.said.resource.is_none()
    }
}

/// What one directory says of somebody, and the entry in which.
struct Heard<'a> {
    active: bool,
    groups: Vec<&'a str>,
    /// The manager's subject.
    manager: Option<&'a ContentDigest>,
    place: Place,
}

/// What the directories together say of one person.
#[derive(Default)]
struct Word {
    /// Each directory that knows the person: are all of their users active?
    active: BTreeMap<String, bool>,
    /// Each group, and the newest entry that says so.
    groups: BTreeMap<DirectoryGroup, Place>,
    roles: BTreeSet<Role>,
    /// The newest entry that says who the manager is, and who that is here.
    manager: Option<(Place, Option<PersonId>)>,
}

impl Word {
    fn take(&mut self, known: &DirectoryState, heard: &Heard<'_>) {
        let Directory { name, roles, .. } = &known.directory;
        *self.active.entry(name.clone()).or_insert(true) &= heard.active;
        let given = roles
            .iter()
            .filter(|rule| heard.active && heard.groups.contains(&rule.group.as_str()));
        for GroupRole { group, role } in given {
            self.roles.insert(*role);
            let group = DirectoryGroup {
                directory: name.clone(),
                group: group.clone(),
            };
            let place = self.groups.entry(group).or_insert(heard.place);
            if place.index < heard.place.index {
                *place = heard.place;
            }
        }
    }
}

impl Word {
    /// An entry names the manager, who may be nobody here.
    fn name_manager(&mut self, place: Place, person: Option<PersonId>) {
        let counts = self.manager.is_none_or(|(known, before)| {
            let same = known.index == place.index;
            known.index < place.index || (same && before.is_none())
        });
        if counts {
            self.manager = Some((place, person));
        }
    }

    fn manager(&self) -> Option<Manager> {
        let (place, person) = self.manager?;
        Some(Manager {
            person: person?,
            place,
        })
    }
}

/// What a login's token says. Of several logins that count, the newest names the manager, or nobody.
fn by_token<'a>(directory: &Directory, state: &'a LoginState, is_newest: bool) -> Heard<'a> {
    let claims = &state.login.claims;
    let groups = claims.groups.iter();
    let groups = groups.filter(|group| directory.claim.as_ref() == Some(&group.claim));
    let named = |claim: &String| directory.manager_claim.as_ref() == Some(claim);
    let mut managers = claims.managers.iter().filter(|_| is_newest);
    let manager = managers.find(|manager| named(&manager.claim));
    Heard {
        active: true,
        groups: groups.map(|group| group.value.as_str()).collect(),
        manager: manager.map(|manager| &manager.subject),
        place: state.place,
    }
}

fn memberships(groups: BTreeMap<DirectoryGroup, Place>) -> Vec<Membership> {
    let groups = groups.into_iter();
    groups
        .map(|(group, place)| Membership { group, place })
        .collect()
}

fn check_rules(directory: &Directory) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("directory", text));
    if !rules::is_name(&directory.name) {
        return refuse("a directory's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`");
    }
    if directory.roles.iter().any(|rule| rule.role == Role::Admin) {
        return refuse("no directory makes administrators: they are enrolled under quorum");
    }
    let is_group = |text: &str| {
        (1..=MAX_GROUP).contains(&text.len()) && text.trim() == text && !text.chars().any(is_unsafe)
    };
    let mut seen = BTreeSet::new();
    let fits = directory
        .roles
        .iter()
        .all(|rule| is_group(&rule.group) && seen.insert(rule));
    if directory.roles.len() > MAX_RULES || !fits {
        return refuse("a directory has at most 64 different rules, each of a group's name");
    }
    check_way(directory)
}

/// Each directory speaks in one way.
fn check_way(directory: &Directory) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("directory", text));
    let signers: BTreeSet<&PersonId> = directory.signers.iter().collect();
    if signers.len() > MAX_NAMED || signers.len() < directory.signers.len() {
        return refuse("a directory's files are signed by 16 different people at most");
    }
    let ways = [
        directory.is_of_tokens(),
        !signers.is_empty(),
        directory.token.is_some(),
    ];
    if ways.iter().filter(|way| **way).count() != 1 {
        return refuse("a directory speaks in one way: over SCIM, in signed files or by claims");
    }
    let is_claim = |text: &String| {
        (1..=MAX_GROUP).contains(&text.len())
            && !text.chars().any(|c| c.is_whitespace() || is_unsafe(c))
    };
    let claims = directory.claim.iter().chain(&directory.manager_claim);
    if !claims.clone().all(is_claim) {
        return refuse("a claim's name is a word");
    }
    if directory.is_of_tokens() && directory.suspend {
        return refuse("tokens say nothing of those who do not log in, so they suspend nobody");
    }
    if directory.manager_claim.is_some() && directory.claim.is_none() && !directory.roles.is_empty()
    {
        return refuse("a directory whose tokens list no groups has no rules for them");
    }
    Ok(())
}

/// How it speaks.
fn way(directory: &Directory) -> (bool, bool) {
    (directory.is_of_tokens(), directory.token.is_some())
}

impl State {
    pub(super) fn directory(&self, name: &str) -> Result<&DirectoryState, Denied> {
        self.directories.get(name).ok_or_else(|| {
            let name = crate::text::clean(name, 64);
            Denied::new("no-directory", format!("no directory is called `{name}`"))
                .with_help("`ascribe directory list` shows all")
        })
    }

    pub(super) fn check_directory(&self, directory: &Directory) -> Result<(), Denied> {
        let known = self.directories.get(&directory.name);
        if known.is_none() && (directory.withdrawn || self.directories.len() >= MAX_DIRECTORIES) {
            return Err(Denied::new(
                "directory",
                "there is no such directory, or there are 16 already",
            ));
        }
        check_rules(directory)?;
        let other = |known: &DirectoryState| {
            let known = &known.directory;
            known.provider != directory.provider || way(known) != way(directory)
        };
        if known.is_some_and(other) {
            return Err(Denied::new(
                "directory",
                "a directory keeps its provider and the way it speaks; register another one",
            ));
        }
        for signer in &directory.signers {
            self.person(*signer)?;
        }
        if directory.withdrawn {
            return Ok(());
        }
        if !self
            .live_provider(&directory.provider)?
            .provider
            .kind
            .is_of_people()
        {
            return Err(Denied::new(
                "directory",
                "tokens of this provider name no people",
            ));
        }
        let mut others = self.directories.values().map(|known| &known.directory);
        if others.any(|other| {
            other.name != directory.name && other.token == directory.token && other.token.is_some()
        }) {
            return Err(Denied::new(
                "duplicate",
                "another directory has this token; each has its own",
            ));
        }
        Ok(())
    }

    pub(super) fn take_directory(&mut self, directory: &Directory, place: Place) {
        let before = self.directories.remove(&directory.name);
        let before = before.filter(|_| !directory.withdrawn);
        let (listed, resources, subjects) = before.map_or_else(Default::default, |before| {
            (before.listed, before.resources, before.subjects)
        });
        let state = DirectoryState {
            directory: directory.clone(),
            place,
            listed,
            resources,
            subjects,
        };
        self.directories.insert(directory.name.clone(), state);
    }

    pub(super) fn take_directory_change(
        &mut self,
        entry: &Entry,
        change: &DirectoryChange,
        place: Place,
    ) -> Result<(), Denied> {
        self.check_directory_change(&entry.writer.id, change)?;
        let linked = change.subject.and_then(|subject| {
            let known = self.directories.get(&change.directory)?;
            self.linked(&known.directory.provider, &subject)
        });
        if let Some(known) = self.directories.get_mut(&change.directory) {
            known.put(change, entry.at, place);
        }
        if linked.is_some() || (self.version >= MANAGERS && self.manages(change)) {
            self.hear_directories(entry.at);
        }
        Ok(())
    }

    /// Is this user the manager of somebody who is known here?
    fn manages(&self, change: &DirectoryChange) -> bool {
        let Some(known) = self.directories.get(&change.directory) else {
            return false;
        };
        // Most are nobody's, linked or not.
        let mut managed = known.resources.values();
        managed.any(|one| one.said.manager == Some(change.id))
            && self.identities().any(|(provider, subject, _)| {
                let own = known.subjects.get(subject);
                let own = own.and_then(|id| known.resources.get(id));
                let manager = own.and_then(|own| own.said.manager);
                known.directory.provider == *provider && manager == Some(change.id)
            })
    }

    pub(super) fn take_directory_file(
        &mut self,
        (by, key): (PersonId, &SshKey),
        at: Timestamp,
        file: &DirectoryFile,
        place: Place,
    ) -> Result<(), Denied> {
        let refuse = |code, text: &str| Err(Denied::new(code, text));
        let known = self.directory(&file.directory)?;
        if known.directory.withdrawn {
            return refuse("withdrawn", "the directory was withdrawn");
        }
        if !known.directory.signers.contains(&by) {
            return refuse("role", "the directory's files are signed by others");
        }
        self.check_carries_law(key)?;
        if !file
            .users
            .is_sorted_by(|one, next| one.subject < next.subject)
        {
            return refuse("file", "a file lists each subject once, sorted");
        }
        if !file.users.iter().all(|user| known.names(&user.groups)) {
            return refuse(
                "groups",
                "a file names groups that the directory's rules name, sorted",
            );
        }
        let fresh = file.users.iter().map(|user| &user.subject);
        let fresh = fresh.filter(|subject| !known.listed.contains_key(subject));
        if known.listed.len() + fresh.count() > MAX_RESOURCES {
            return refuse("too-many", "the directory listed 65,536 people already");
        }
        if let Some(known) = self.directories.get_mut(&file.directory) {
            known.list(file, place);
        }
        self.hear_directories(at);
        Ok(())
    }

    fn check_directory_change(&self, writer: &str, change: &DirectoryChange) -> Result<(), Denied> {
        let refuse = |code, text: &str| Err(Denied::new(code, text));
        let known = self.directory(&change.directory)?;
        if writer != SERVER {
            return refuse("writer", "what directories say is written by `server`");
        }
        if known.directory.withdrawn {
            return refuse("withdrawn", "the directory was withdrawn");
        }
        if known.directory.token.is_none() {
            return refuse("directory", "the directory does not speak over SCIM");
        }
        if !known.names(&change.groups) {
            return refuse(
                "groups",
                "a change names groups that the directory's rules name, sorted",
            );
        }
        let bare = change.subject.is_none()
            && change.groups.is_empty()
            && change.manager.is_none()
            && !change.active;
        if change.kind == ResourceKind::Group && !bare {
            return refuse("resource", "a group is nobody and in no group");
        }
        let gone = change.resource.is_none();
        if gone && (change.active || !change.groups.is_empty() || change.manager.is_some()) {
            return refuse(
                "resource",
                "what was deleted is neither active nor in a group",
            );
        }
        match known.resources.get(&change.id) {
            None if gone => refuse("resource", "only what exists is deleted"),
            None if known.resources.len() >= MAX_RESOURCES => {
                refuse("too-many", "the directory holds 65,536 resources already")
            }
            None => known.check_subject(change),
            Some(before) if before.is_gone() => refuse("resource", "the resource was deleted"),
            Some(before) if before.said.kind != change.kind => {
                refuse("resource", "the resource is of another kind")
            }
            Some(before) if before.said.subject.is_some() => {
                if before.said.subject == change.subject {
                    Ok(())
                } else {
                    refuse("subject", "a user stays who it is; make another one")
                }
            }
            Some(_) => known.check_subject(change),
        }
    }

    /// Gives effect to what directories say, as far as their rules let it.
    pub(super) fn hear_directories(&mut self, at: Timestamp) {
        if self.directories.is_empty() {
            return;
        }
        self.give_effect(at);
        self.end_logins(at);
        // What a login said that has just ended counts no longer.
        if self.hears_logins() {
            self.give_effect(at);
        }
    }

    /// The same after a login began or ended, where that says anything.
    pub(super) fn hear_logins(&mut self, at: Timestamp) {
        if self.hears_logins() {
            self.hear_directories(at);
        }
    }

    /// After logins ended by themselves: the roles, groups and managers that their people had until then.
    pub(super) fn lose_words(&mut self, ended: &[StatementId]) -> Vec<(PersonId, Before)> {
        if ended.is_empty() || !self.hears_logins() {
            return Vec::new();
        }
        let mut words = self.words();
        let by = ended.iter().filter_map(|id| self.logins.get(id));
        let people: BTreeSet<PersonId> = by.map(|login| login.by).collect();
        let mut before = Vec::new();
        for id in people {
            let word = words.remove(&id).unwrap_or_default();
            if let Some(person) = self.people.get_mut(&id) {
                let manager = word.manager();
                let had = Before {
                    roles: std::mem::replace(&mut person.directory_roles, word.roles),
                    groups: std::mem::replace(&mut person.groups, memberships(word.groups)),
                    manager: std::mem::replace(&mut person.manager, manager),
                };
                before.push((id, had));
            }
        }
        before
    }

    fn hears_logins(&self) -> bool {
        let mut all = self.directories.values();
        all.any(|known| known.directory.is_of_tokens())
    }

    fn give_effect(&mut self, at: Timestamp) {
        let mut words = self.words();
        let ids: Vec<PersonId> = self.people.keys().copied().collect();
        let mut away = Vec::new();
        for id in ids {
            let word = words.remove(&id).unwrap_or_default();
            let suspended = self.suspended_by(id, &word, at);
            // Whoever is left must be enough to let anybody in again.
            let spared = !suspended.is_empty() && self.check_admins_without(id).is_err();
            if let Some(person) = self.people.get_mut(&id) {
                person.manager = word.manager();
                person.directory_roles = word.roles;
                person.groups = memberships(word.groups);
                person.suspended = if spared { BTreeMap::new() } else { suspended };
                person.spared = spared;
                away.extend((!person.suspended.is_empty()).then_some(id));
            }
        }
        // Like logins, delegations do not come back with whoever comes back.
        for id in away {
            self.end_delegations(id, at);
        }
    }

    /// By which directories this person is suspended from now on. Only the directory's own word, or a
    /// change of its rules, takes a suspension back: an unlinked identity does not.
    fn suspended_by(
        &self,
        id: PersonId,
        word: &Word,
        at: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let may = |name: &String| {
            let known = self.directories.get(name).map(|known| &known.directory);
            known.is_some_and(|directory| directory.suspend && !directory.withdrawn)
        };
        let before = self.people.get(&id).map(|person| &person.suspended);
        let mut suspended = before.cloned().unwrap_or_default();
        suspended.retain(|name, _| may(name) && word.active.get(name) != Some(&true));
        for (name, active) in &word.active {
            if !active && may(name) {
                suspended.entry(name.clone()).or_insert(at);
            }
        }
        suspended
    }

    fn words(&self) -> BTreeMap<PersonId, Word> {
        let mut words: BTreeMap<PersonId, Word> = BTreeMap::new();
        for (provider, subject, person) in self.identities() {
            if self.live_provider(provider).is_err() {
                continue;
            }
            for known in self.directories.values() {
                if known.directory.provider != *provider || known.directory.withdrawn {
                    continue;
                }
                for heard in self.heard(known, subject, person) {
                    let word = words.entry(person).or_default();
                    word.take(known, &heard);
                    let Some(subject) = heard.manager.filter(|_| heard.active) else {
                        continue;
                    };
                    let manager = self.linked(provider, subject);
                    if manager.is_some() || self.version >= MANAGERS {
                        word.name_manager(heard.place, manager);
                    }
                }
            }
        }
        words
    }

    /// What a directory says of the person whom a subject stands for.
    fn heard<'a>(
        &'a self,
        known: &'a DirectoryState,
        subject: &ContentDigest,
        person: PersonId,
    ) -> Vec<Heard<'a>> {
        if known.directory.is_of_tokens() {
            let logins = self.logins_of.get(&person).into_iter().flatten();
            let logins = logins.filter_map(|id| self.logins.get(id)).map(Box::as_ref);
            let logins = logins.filter(|state| {
                state.login.provider == known.directory.provider
                    && state.login.claims.subject == *subject
            });
            let logins: Vec<&LoginState> = logins.collect();
            let newest = logins.iter().map(|state| state.place.index).max();
            let heard = logins.into_iter().map(|state| {
                let is_newest = newest == Some(state.place.index);
                by_token(&known.directory, state, is_newest)
            });
            return heard.collect();
        }
        let listed = known.listed.get(subject).map(|listed| Heard {
            active: listed.active,
            groups: listed.groups.iter().map(String::as_str).collect(),
            manager: listed.manager.as_ref(),
            place: listed.place,
        });
        let user = known.subjects.get(subject);
        let user = user.and_then(|id| known.resources.get(id));
        let user = user.map(|user| Heard {
            active: user.said.active,
            groups: user.said.groups.iter().map(String::as_str).collect(),
            manager: user.said.manager.and_then(|id| {
                let manager = known.resources.get(&id)?;
                let there = Some(manager).filter(|manager| !manager.is_gone())?;
                there.said.subject.as_ref()
            }),
            place: user.place,
        });
        listed.into_iter().chain(user).collect()
    }

    /// Does a directory call somebody this person's manager of whom nothing is known here?
    pub(super) fn has_unknown_manager(&self, id: PersonId) -> bool {
        let mut own = self
            .identities()
            .filter(|(provider, _, person)| *person == id && self.live_provider(provider).is_ok());
        own.any(|(provider, subject, person)| {
            let all = self.directories.values();
            let live = all.filter(|known| {
                known.directory.provider == *provider && !known.directory.withdrawn
            });
            let mut heard = live.flat_map(|known| self.heard(known, subject, person));
            heard.any(|heard| {
                let manager = heard.manager.filter(|_| heard.active);
                manager.is_some_and(|manager| self.linked(provider, manager).is_none())
            })
        })
    }

    /// May this directory suspend whoever its provider's subjects stand for?
    pub(super) fn is_overseen(&self, provider: &str) -> bool {
        self.directories.values().any(|known| {
            let directory = &known.directory;
            directory.provider == provider && directory.suspend && !directory.withdrawn
        })
    }

    /// The directory that speaks with this token, if it counts.
    pub fn directory_by_token(&self, token: &ContentDigest) -> Option<&DirectoryState> {
        let mut live = self.directories.values();
        live.find(|known| {
            let directory = &known.directory;
            // Digests of secrets are compared in constant time.
            directory.token.is_some_and(|known| {
                let pairs = known.0.0.iter().zip(&token.0.0);
                let differ = pairs.fold(0, |differ, (one, other)| differ | (one ^ other));
                !directory.withdrawn && differ == 0
            })
        })
    }
}

impl DirectoryState {
    /// Do its rules name this group?
    pub(super) fn gives(&self, group: &str) -> bool {
        self.directory.roles.iter().any(|rule| rule.group == group)
    }

    /// Do they name all of these, which are sorted?
    fn names(&self, groups: &[String]) -> bool {
        groups.is_sorted_by(|one, next| one < next) && groups.iter().all(|group| self.gives(group))
    }

    fn list(&mut self, file: &DirectoryFile, place: Place) {
        for listed in self.listed.values_mut() {
            *listed = Listed {
                active: false,
                groups: Vec::new(),
                manager: None,
                place,
            };
        }
        for user in &file.users {
            let listed = Listed {
                active: true,
                groups: user.groups.clone(),
                manager: user.manager,
                place,
            };
            self.listed.insert(user.subject, listed);
        }
    }

    fn check_subject(&self, change: &DirectoryChange) -> Result<(), Denied> {
        let holder = change
            .subject
            .and_then(|subject| self.subjects.get(&subject));
        let holder = holder.and_then(|id| self.resources.get(id));
        if holder.is_some_and(|holder| !holder.is_gone()) {
            return Err(Denied::new(
                "duplicate",
                "another user of the directory has this subject",
            ));
        }
        Ok(())
    }

    fn put(&mut self, change: &DirectoryChange, at: Timestamp, place: Place) {
        if let Some(subject) = change.subject {
            let before = self.subjects.insert(subject, change.id);
            // A deleted user is remembered until another one stands for its subject.
            if let Some(before) = before.filter(|before| *before != change.id) {
                self.resources.remove(&before);
            }
        } else if change.resource.is_none() {
            self.resources.remove(&change.id);
            return;
        }
        let created = self.resources.get(&change.id).map_or(at, |r| r.created);
        let state = ResourceState {
            created,
            changed: at,
            place,
            said: change.clone(),
        };
        self.resources.insert(change.id, state);
    }
}
