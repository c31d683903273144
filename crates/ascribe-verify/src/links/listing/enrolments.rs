//! Keys and certificates: who made them somebody's.

use std::collections::BTreeMap;

use ascribe_core::entry::SessionOpen;
use ascribe_core::id::{PersonId, StatementId};
use ascribe_core::law::{Ask, AskStatus, Asked, State};
use ascribe_core::statement::{Say, SshKey};

use super::Listing;
use crate::links::{Link, LinkKind, Signer, Trusted, list, ticked};

/// Who made a key a person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    First,
    Proposal(StatementId),
}

#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) person: PersonId,
    pub(super) touched: bool,
    pub(super) source: By,
}

/// Every key that was ever enrolled: one key is enrolled once.
pub(super) fn enrolled(state: &State) -> BTreeMap<String, Enrolled> {
    let mut all = BTreeMap::new();
    let mut put = |person: PersonId, key: &SshKey, source: By| {
        let touched = key.is_security_key();
        let known = Enrolled {
            person,
            touched,
            source,
        };
        all.insert(key.fingerprint(), known);
    };
    for admin in state.genesis.iter().flat_map(|genesis| &genesis.admins) {
        for key in &admin.keys {
            put(admin.person, key, By::First);
        }
    }
    let granted = |ask: &&Ask| ask.status == AskStatus::Granted;
    for (id, ask) in state.asks.iter().filter(|(_, ask)| granted(ask)) {
        match &ask.asked {
            Asked::Proposal(Say::PersonAdd(add)) => {
                for key in &add.keys {
                    put(add.person, key, By::Proposal(*id));
                }
            }
            Asked::Proposal(Say::KeyAdd(add)) => put(add.person, &add.key, By::Proposal(*id)),
            _ => {}
        }
    }
    all
}

impl Listing<'_> {
    /// One line for all keys that the same people enrolled.
    pub(super) fn enrolments(&mut self, mut keys: Vec<(By, PersonId, String)>) -> Vec<Link> {
        let place = |source: By| match source {
            By::First => 0,
            By::Proposal(id) => self.state.asks.get(&id).map_or(0, |ask| ask.place.index),
        };
        keys.sort_by_key(|(source, person, key)| (place(*source), *person, key.clone()));
        let mut links: Vec<Link> = Vec::new();
        for (source, person, key) in keys {
            let about = self.signer(person, &key);
            let (entry, signed_by) = match source {
                By::First => (0, Vec::new()),
                By::Proposal(id) => match self.state.asks.get(&id) {
                    Some(ask) => (ask.place.index, self.administrators(ask)),
                    None => continue,
                },
            };
            let same = links.iter_mut().find(|link| link.signed_by == signed_by);
            match same {
                Some(link) => {
                    link.keys.push(about);
                    if !link.entries.contains(&entry) {
                        link.entries.push(entry);
                    }
                }
                None => {
                    let trust = match source {
                        By::First => vec![Trusted::new(
                            "whoever gave you the trust policy",
                            "who the first people are: it pins the first entry",
                        )],
                        By::Proposal(_) => self.by_quorum(&signed_by, "whose keys those are"),
                    };
                    links.push(Link {
                        link: LinkKind::Enrolment,
                        what: String::new(),
                        entries: vec![entry],
                        keys: vec![about],
                        signed_by,
                        testimony: None,
                        trust,
                    });
                }
            }
        }
        for link in &mut links {
            let mut whose: Vec<String> = link.keys.iter().map(Signer::who).collect();
            whose.dedup();
            link.what = format!("keys of {}", list(&whose));
        }
        links
    }

    /// An outside authority, where the session came in with a certificate of it.
    pub(super) fn authority(&mut self, open: &SessionOpen, at: u64) -> Option<Link> {
        let shown = open.certificate.as_ref()?;
        let is = |say: &Say| {
            let Say::CaSet(ca) = say else { return false };
            let mut people = ca.people.iter();
            ca.name == shown.ca_name
                && ca.keys.iter().any(|key| key.fingerprint() == shown.ca)
                && people.any(|m| m.person == open.person && m.principal == shown.principal)
        };
        let ask = self.proposal(at, is)?;
        let what = format!(
            "authority {} counts, and its principal {} is {}",
            ticked(&shown.ca_name, 63),
            ticked(&shown.principal, 256),
            self.shown(open.person)
        );
        let for_what = "whether it counts, and whom it names";
        Some(self.ruled(LinkKind::Authority, ask, what, for_what))
    }
}
