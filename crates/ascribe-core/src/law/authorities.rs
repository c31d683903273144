//! Outside certificate authorities: whose certificate is it, and does it still count? Signatures and
//! windows of certificates are the gateway's testimony; what the registry says about them is law.

use std::collections::BTreeSet;

use super::{AuthorityState, Denied, Place, State, rules};
use crate::entry::Certificate;
use crate::id::PersonId;
use crate::record::ShownCertificate;
use crate::statement::{Authority, Mapping, RevokedCertificates, SshKey};
use crate::text::is_unsafe;

/// Most keys of one authority.
const MAX_KEYS: usize = 16;
/// Most principals of one authority, most revoked serials, most revoked key ids.
const MAX_LISTED: usize = 1024;
/// Longest key id and principal, in bytes.
const MAX_TEXT: usize = 256;

/// A principal, exactly as certificates have it.
fn is_principal(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || is_unsafe(c);
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(bad)
}

/// A key id that can be shown as it is: two that look alike are the same.
fn is_key_id(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.chars().any(is_unsafe)
}

fn is_distinct<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

impl AuthorityState {
    /// What is known of it, as the statement that would set it again.
    pub fn authority(&self, name: &str) -> Authority {
        let mapping = |(principal, person): (&String, &PersonId)| Mapping {
            person: *person,
            principal: principal.clone(),
        };
        Authority {
            keys: self.keys.values().cloned().collect(),
            name: name.to_owned(),
            people: self.people.iter().map(mapping).collect(),
            revoked: RevokedCertificates {
                key_ids: self.key_ids.iter().cloned().collect(),
                serials: self.serials.iter().copied().collect(),
            },
        }
    }
}

impl State {
    /// The authority that has this key, with its name.
    pub(super) fn authority_of(&self, fingerprint: &str) -> Option<(&String, &AuthorityState)> {
        let mut cas = self.cas.iter();
        cas.find(|(_, ca)| ca.keys.contains_key(fingerprint))
    }

    pub(super) fn check_authority(&self, ca: &Authority) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("ca", text));
        if !rules::is_name(&ca.name) {
            return refuse(
                "an authority's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`",
            );
        }
        if ca.keys.is_empty() {
            let known = self
                .cas
                .get(&ca.name)
                .filter(|known| !known.keys.is_empty());
            return if known.is_none() {
                refuse("no authority of that name is registered; give its keys to register it")
            } else if ca.people.is_empty() && ca.revoked.is_empty() {
                Ok(())
            } else {
                refuse("an authority without keys is withdrawn and names nobody")
            };
        }
        let lists = [
            ca.people.len(),
            ca.revoked.serials.len(),
            ca.revoked.key_ids.len(),
        ];
        if ca.keys.len() > MAX_KEYS || lists.iter().any(|len| *len > MAX_LISTED) {
            return refuse("an authority has at most 16 keys and 1024 of each thing listed");
        }
        for key in &ca.keys {
            self.check_authority_key(&ca.name, key)?;
        }
        for mapping in &ca.people {
            self.person(mapping.person)?;
        }
        if !ca.people.iter().all(|m| is_principal(&m.principal)) {
            return refuse("a principal is 1 to 256 bytes without spaces");
        }
        if !ca.revoked.key_ids.iter().all(|id| is_key_id(id)) {
            return refuse("a key id is at most 256 bytes without control characters");
        }
        let distinct = is_distinct(ca.keys.iter())
            && is_distinct(ca.people.iter().map(|m| &m.principal))
            && is_distinct(ca.revoked.serials.iter())
            && is_distinct(ca.revoked.key_ids.iter());
        if !self.keeps_revoked(ca) {
            return refuse("what was revoked stays revoked: list it again");
        }
        if distinct {
            Ok(())
        } else {
            refuse("a key, a principal, a serial or a key id is named twice")
        }
    }

    /// Whoever signs certificates is nobody in particular, and of one authority.
    fn check_authority_key(&self, name: &str, key: &SshKey) -> Result<(), Denied> {
        rules::check_key(key)?;
        let fingerprint = key.fingerprint();
        if self.keys.contains_key(&fingerprint)
            || self.revoked_keys.contains(&fingerprint)
            || self.session_keys.contains_key(&fingerprint)
        {
            return Err(Denied::new(
                "duplicate",
                "a person's key, held or revoked, is no certificate authority's",
            ));
        }
        if self.agents.contains_key(&fingerprint) {
            return Err(Denied::new(
                "duplicate",
                "an agent's key is no certificate authority's",
            ));
        }
        match self.authority_of(&fingerprint) {
            Some((other, _)) if other != name => Err(Denied::new(
                "duplicate",
                format!("the key is the authority `{other}`'s already"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// What was revoked under a name stays so, whoever comes to bear it.
    fn keeps_revoked(&self, ca: &Authority) -> bool {
        self.cas.get(&ca.name).is_none_or(|known| {
            known.serials.iter().all(|s| ca.revoked.serials.contains(s))
                && known
                    .key_ids
                    .iter()
                    .all(|id| ca.revoked.key_ids.contains(id))
        })
    }

    pub(super) fn take_authority(&mut self, ca: &Authority, place: Place) {
        if ca.keys.is_empty() {
            // Its keys and people go; what it revoked is remembered.
            if let Some(known) = self.cas.get_mut(&ca.name) {
                known.keys.clear();
                known.people.clear();
                known.place = place;
            }
            return;
        }
        let keys = ca.keys.iter().map(|key| (key.fingerprint(), key.clone()));
        let people = ca.people.iter().map(|m| (m.principal.clone(), m.person));
        let state = AuthorityState {
            keys: keys.collect(),
            people: people.collect(),
            serials: ca.revoked.serials.iter().copied().collect(),
            key_ids: ca.revoked.key_ids.iter().cloned().collect(),
            place,
        };
        self.cas.insert(ca.name.clone(), state);
    }

    /// Fingerprints of the keys of all outside certificate authorities.
    pub fn ca_keys(&self) -> Vec<String> {
        let keys = self.cas.values().flat_map(|ca| ca.keys.keys());
        keys.cloned().collect()
    }

    /// Whose certificate is this, and how does an entry name it?
    ///
    /// # Errors
    /// When it is nobody's, with the reason.
    pub fn person_by_certificate(
        &self,
        shown: &ShownCertificate,
    ) -> Result<(PersonId, Certificate), Denied> {
        let (name, ca) = self.authority_of(&shown.ca).ok_or_else(unknown)?;
        let mapped = |principal| ca.people.get_key_value(principal);
        let mut mapped = shown.principals.iter().filter_map(mapped);
        let (principal, person) = mapped.next().ok_or_else(unmapped)?;
        if mapped.any(|(_, other)| other != person) {
            return Err(Denied::new(
                "principal",
                "the certificate's principals stand for more than one person",
            ));
        }
        let certificate = Certificate {
            ca: shown.ca.clone(),
            ca_name: name.clone(),
            key_id: shown.key_id.clone(),
            not_after: shown.not_after,
            principal: principal.clone(),
            serial: shown.serial,
        };
        self.check_certificate(*person, &shown.key, &certificate)?;
        if self.person(*person)?.is_away() {
            return Err(self.away(*person));
        }
        Ok((*person, certificate))
    }

    /// Does this certificate, of this key, name this person? Its window is looked at elsewhere.
    pub(super) fn check_certificate(
        &self,
        person: PersonId,
        key: &str,
        certificate: &Certificate,
    ) -> Result<(), Denied> {
        let ca = self.cas.get(&certificate.ca_name);
        let signs = |ca: &&AuthorityState| ca.keys.contains_key(&certificate.ca);
        let ca = ca.filter(signs).ok_or_else(unknown)?;
        if !is_key_id(&certificate.key_id) {
            return Err(Denied::new(
                "key-id",
                "the certificate's key id is longer than 256 bytes or has control characters",
            ));
        }
        if ca.people.get(&certificate.principal) != Some(&person) {
            return Err(unmapped());
        }
        let revoked = ca.serials.contains(&certificate.serial)
            || ca.key_ids.contains(&certificate.key_id)
            || self.revoked_keys.contains(key);
        if revoked {
            return Err(Denied::new(
                "revoked",
                "the certificate or its key was revoked",
            ));
        }
        let another = self.keys.get(key).is_some_and(|owner| *owner != person)
            || self.session_keys.contains_key(key)
            || self.agents.contains_key(key);
        if another || self.authority_of(key).is_some() {
            return Err(Denied::new(
                "key",
                "the certified key is another person's, an agent's or an authority's",
            ));
        }
        Ok(())
    }
}

fn unknown() -> Denied {
    Denied::new("ca", "no registered authority signed the certificate")
        .with_help("an administrator registers it: `ascribe ca set`")
}

fn unmapped() -> Denied {
    Denied::new(
        "principal",
        "none of the certificate's principals stands for this person",
    )
    .with_help("an administrator maps it: `ascribe ca set NAME --person PERSON=PRINCIPAL`")
}
