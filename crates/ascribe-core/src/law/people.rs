//! People and their keys: enrolment, revocation, departure, and that enough administrators are left.

use std::collections::{BTreeMap, BTreeSet};

use super::{Denied, Person, Place, State, rules};
use crate::id::PersonId;
use crate::statement::{Offboard, PersonAdd, PersonKey, Role, SshKey};

impl State {
    pub(super) fn check_new_key(&self, key: &SshKey) -> Result<(), Denied> {
        rules::check_key(key)?;
        self.check_unknown(&key.fingerprint())
    }

    pub(super) fn check_persons_key(&self, key: &SshKey) -> Result<(), Denied> {
        rules::check_persons_key(key)?;
        self.check_unknown(&key.fingerprint())
    }

    /// One key stands for one thing, once.
    pub(super) fn check_unknown(&self, fingerprint: &str) -> Result<(), Denied> {
        if self.revoked_keys.contains(fingerprint) {
            return Err(
                Denied::new("revoked", "the key was revoked; make a new one")
                    .with_help("make one: ssh-keygen -t ed25519"),
            );
        }
        if self.keys.contains_key(fingerprint) {
            return Err(Denied::new(
                "duplicate",
                "the key is enrolled already; one key names one person",
            ));
        }
        if self.session_keys.contains_key(fingerprint) {
            return Err(Denied::new("duplicate", "the key is or was a session key")
                .with_help("make one: ssh-keygen -t ed25519"));
        }
        if self.agents.contains_key(fingerprint) {
            return Err(
                Denied::new("duplicate", "the key is or was an agent's; make a new one")
                    .with_help("make one: ssh-keygen -t ed25519"),
            );
        }
        if self.authority_of(fingerprint).is_some() {
            return Err(Denied::new(
                "duplicate",
                "the key is a certificate authority's; it names nobody",
            ));
        }
        Ok(())
    }

    pub(super) fn take_key_revoke(&mut self, by: PersonId, key: &PersonKey) -> Result<(), Denied> {
        if by != key.person {
            self.need(by, Role::Admin)?;
        }
        let fingerprint = key.key.fingerprint();
        let last =
            |person: &Person| person.keys.len() == 1 && person.keys.contains_key(&fingerprint);
        if self.people.get(&key.person).is_some_and(last) {
            self.check_admins_without(key.person)?;
        }
        let removed = self
            .people
            .get_mut(&key.person)
            .and_then(|p| p.keys.remove(&fingerprint));
        if removed.is_none() {
            return Err(Denied::new("key", "the person has no such key"));
        }
        self.keys.remove(&fingerprint);
        self.revoked_keys.insert(fingerprint);
        Ok(())
    }

    pub(super) fn check_person(&self, person: &PersonAdd) -> Result<(), Denied> {
        if self.people.contains_key(&person.person) || self.workloads.contains_key(&person.person) {
            return Err(Denied::new("duplicate", "a person with this id exists"));
        }
        if person.keys.is_empty() || person.keys.len() > 16 {
            return Err(Denied::new("key", "a person has one to sixteen keys"));
        }
        let mut seen = BTreeSet::new();
        for key in &person.keys {
            self.check_persons_key(key)?;
            if !seen.insert(key.fingerprint()) {
                return Err(Denied::new("duplicate", "a key is named twice"));
            }
        }
        Ok(())
    }

    pub(super) fn take_person(&mut self, person: &PersonAdd, place: Place) {
        let keys = person
            .keys
            .iter()
            .map(|key| (key.fingerprint(), key.clone()));
        for (fingerprint, _) in keys.clone() {
            self.keys.insert(fingerprint, person.person);
        }
        let state = Person {
            keys: keys.collect(),
            roles: person.roles.iter().copied().collect(),
            offboarded: None,
            suspended: BTreeMap::new(),
            spared: false,
            directory_roles: BTreeSet::new(),
            groups: Vec::new(),
            manager: None,
            place,
        };
        self.people.insert(person.person, state);
    }

    pub(super) fn check_offboard(&self, leaver: &Offboard) -> Result<(), Denied> {
        if self.person(leaver.person)?.offboarded.is_some() {
            return Err(Denied::new("settled", "the person has left already"));
        }
        self.check_admins_without(leaver.person)
    }

    /// Without this person, enough administrators must be left who can sign.
    pub(super) fn check_admins_without(&self, leaver: PersonId) -> Result<(), Denied> {
        let quorum = self.genesis_rules()?.admin_quorum as usize;
        let signs = |person: &Person| person.may(Role::Admin) && !person.keys.is_empty();
        let left = self
            .people
            .iter()
            .filter(|(id, person)| **id != leaver && signs(person))
            .count();
        if left < quorum && self.people.get(&leaver).is_some_and(signs) {
            return Err(
                Denied::new("quorum", "too few administrators would be left").with_help(
                    "enrol another administrator first: `ascribe person add --role admin`",
                ),
            );
        }
        Ok(())
    }
}
