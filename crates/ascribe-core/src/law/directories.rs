//! Directories: what their word changes. It suspends people and gives roles, as far as a rule that was
//! approved under quorum lets it, and only people whom an identity at its provider stands for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Denied, Place, SERVER, State, rules};
use crate::directory::{Directory, DirectoryChange, ResourceKind};
use crate::entry::Entry;
use crate::id::{ContentDigest, PersonId, ResourceId};
use crate::statement::Role;
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Most directories, withdrawn ones included.
const MAX_DIRECTORIES: usize = 16;
/// Most rules of one directory.
const MAX_RULES: usize = 64;
/// Longest name of a group, in bytes.
const MAX_GROUP: usize = 256;
/// Most resources of one directory.
pub const MAX_RESOURCES: usize = 65_536;

/// A directory, as the law knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryState {
    /// Its rules.
    pub directory: Directory,
    /// The statement that set them.
    pub place: Place,
    /// What it keeps. Users that stood for a subject stay when they are deleted.
    pub resources: BTreeMap<ResourceId, ResourceState>,
    /// The newest user of each subject.
    pub subjects: BTreeMap<ContentDigest, ResourceId>,
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

/// What the directories together say of one person.
#[derive(Default)]
struct Word {
    /// Each directory that knows the person: are all of their users active?
    active: BTreeMap<String, bool>,
    roles: BTreeSet<Role>,
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
    Ok(())
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
        if known.is_some_and(|known| known.directory.provider != directory.provider) {
            return Err(Denied::new(
                "directory",
                "a directory keeps its provider; register another one",
            ));
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
        if others.any(|other| other.name != directory.name && other.token == directory.token) {
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
        let (resources, subjects) = before.map_or_else(Default::default, |before| {
            (before.resources, before.subjects)
        });
        let state = DirectoryState {
            directory: directory.clone(),
            place,
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
        if linked.is_some() {
            self.hear_directories(entry.at);
        }
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
        let named = |group: &String| known.directory.roles.iter().any(|r| r.group == *group);
        let sorted = change.groups.is_sorted_by(|one, next| one < next);
        if !sorted || !change.groups.iter().all(named) {
            return refuse(
                "groups",
                "a change names groups that the directory's rules name, sorted",
            );
        }
        let bare = change.subject.is_none() && change.groups.is_empty() && !change.active;
        if change.kind == ResourceKind::Group && !bare {
            return refuse("resource", "a group is nobody and in no group");
        }
        let gone = change.resource.is_none();
        if gone && (change.active || !change.groups.is_empty()) {
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
        let mut words = self.words();
        let ids: Vec<PersonId> = self.people.keys().copied().collect();
        let mut away = Vec::new();
        for id in ids {
            let word = words.remove(&id).unwrap_or_default();
            let suspended = self.suspended_by(id, &word, at);
            // Whoever is left must be enough to let anybody in again.
            let spared = !suspended.is_empty() && self.check_admins_without(id).is_err();
            if let Some(person) = self.people.get_mut(&id) {
                person.directory_roles = word.roles;
                person.suspended = if spared { BTreeMap::new() } else { suspended };
                person.spared = spared;
                away.extend((!person.suspended.is_empty()).then_some(id));
            }
        }
        // Like logins, delegations do not come back with whoever comes back.
        for id in away {
            self.end_delegations(id, at);
        }
        self.end_logins(at);
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
            for (name, known) in &self.directories {
                let user = known.subjects.get(subject);
                let user = user.and_then(|id| known.resources.get(id));
                let (Some(user), true) = (user, known.directory.provider == *provider) else {
                    continue;
                };
                let word = words.entry(person).or_default();
                *word.active.entry(name.clone()).or_insert(true) &= user.said.active;
                if user.said.active {
                    let rules = known.directory.roles.iter();
                    let given = rules.filter(|rule| user.said.groups.contains(&rule.group));
                    word.roles.extend(given.map(|rule| rule.role));
                }
            }
        }
        words
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
            let pairs = directory.token.0.0.iter().zip(&token.0.0);
            let differ = pairs.fold(0, |differ, (one, other)| differ | (one ^ other));
            !directory.withdrawn && differ == 0
        })
    }
}

impl DirectoryState {
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
