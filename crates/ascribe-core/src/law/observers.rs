//! Observers of providers' keys. The server records what it says a provider publishes, and nobody signs
//! that; so a provider can name people who look themselves, and logins count only under keys that enough
//! of them saw.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Denied, Place, ProviderState, SIGNER_SKEW_MS, State};
use crate::id::{ContentDigest, PersonId};
use crate::identity::{KeysSeen, Provider, keys_digest};
use crate::statement::SshKey;
use crate::text::clean;
use crate::time::Timestamp;

/// Most observers of one provider.
const MAX_OBSERVERS: usize = 16;
/// Most keys that an observer names; a JWK Set has no more.
const MAX_KEYS_SEEN: usize = 64;

/// The newest word of one observer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When they fetched the keys, by their clock.
    pub fetched: Timestamp,
    /// RFC 7638 thumbprints of what they saw.
    pub keys: BTreeSet<ContentDigest>,
    /// Where.
    pub place: Place,
    /// Fingerprint of the enrolled key that signed it.
    pub signer: String,
}

/// What an observer's newest word says of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// They have left, are suspended, or the key that they signed with was revoked.
    Away,
    /// They saw other keys, and not this one.
    Missed(Timestamp),
    /// They have said nothing.
    Never,
    /// They saw it.
    Saw(Timestamp),
    /// They saw it too long ago.
    Stale(Timestamp),
}

impl core::fmt::Display for Sight {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Away => f.write_str("counts no longer"),
            Self::Missed(at) => write!(f, "saw other keys at {at}"),
            Self::Never => f.write_str("has not looked"),
            Self::Saw(at) => write!(f, "saw it at {at}"),
            Self::Stale(at) => write!(f, "saw it at {at}, too long ago"),
        }
    }
}

impl State {
    pub(super) fn check_observers(&self, provider: &Provider) -> Result<(), Denied> {
        let Some(observers) = &provider.observers else {
            return Ok(());
        };
        let distinct: BTreeSet<&PersonId> = observers.people.iter().collect();
        let count = observers.people.len();
        if count > MAX_OBSERVERS
            || distinct.len() < count
            || !(1..=count).contains(&(observers.needed as usize))
        {
            return Err(Denied::new(
                "observers",
                "a provider has at most 16 different observers, and needs at least one of them and no more than there are",
            ));
        }
        for observer in &observers.people {
            self.person(*observer)?;
        }
        Ok(())
    }

    pub(super) fn take_keys_seen(
        &mut self,
        (by, key): (PersonId, &SshKey),
        at: Timestamp,
        seen: &KeysSeen,
        place: Place,
    ) -> Result<(), Denied> {
        let refuse = |code, text: &str| Err(Denied::new(code, text));
        let known = self.live_provider(&seen.provider)?;
        let observers = known.provider.observers.iter().flat_map(|o| &o.people);
        if !observers.into_iter().any(|observer| *observer == by) {
            return Err(
                Denied::new("role", "the provider's keys are observed by others")
                    .with_help("an administrator names observers: `ascribe provider observers`"),
            );
        }
        let signer = key.fingerprint();
        if !self.person(by)?.keys.contains_key(&signer) {
            // A session key rests on a provider's key: it would vouch for itself.
            return refuse("key", "observers sign with an enrolled key, not by a login");
        }
        if (&seen.issuer, &seen.uri) != (&known.provider.issuer, &known.provider.jwks_uri) {
            return refuse(
                "keys-seen",
                "the keys were seen elsewhere than the provider publishes them",
            );
        }
        if at.since(seen.fetched).abs() > SIGNER_SKEW_MS {
            return refuse("keys-seen", "the keys were not fetched just now");
        }
        if seen.keys.len() > MAX_KEYS_SEEN || !seen.keys.is_sorted_by(|one, next| one < next) {
            return refuse("keys-seen", "at most 64 keys are named, each once, sorted");
        }
        let before = known.seen.get(&by);
        if before.is_some_and(|before| seen.fetched <= before.fetched) {
            return refuse("stale", "the same observer has seen later keys already");
        }
        let recorded = known.keys.as_ref();
        let recorded = recorded.filter(|keys| keys_digest(&keys.body.0) == seen.digest);
        let keys: BTreeSet<ContentDigest> = seen.keys.iter().copied().collect();
        if recorded.is_some_and(|recorded| recorded.thumbprints != keys) {
            return refuse("keys-seen", "bytes of that digest hold other keys");
        }
        let sighting = Sighting {
            fetched: seen.fetched,
            keys,
            place,
            signer,
        };
        if let Some(known) = self.providers.get_mut(&seen.provider) {
            known.seen.insert(by, sighting);
        }
        Ok(())
    }

    /// What an observer of a provider says of one of its keys at this moment.
    fn sight(
        &self,
        at: Timestamp,
        known: &ProviderState,
        observer: PersonId,
        key: &ContentDigest,
    ) -> Sight {
        let seen = known.seen.get(&observer);
        let person = self.people.get(&observer);
        let signs = |seen: &Sighting| person.is_some_and(|p| p.keys.contains_key(&seen.signer));
        match seen {
            _ if self.has_left(observer) => Sight::Away,
            None => Sight::Never,
            Some(seen) if !signs(seen) => Sight::Away,
            Some(seen) if !seen.keys.contains(key) => Sight::Missed(seen.fetched),
            Some(seen) if at.since(seen.fetched) >= known.provider.max_keys_age_ms() => {
                Sight::Stale(seen.fetched)
            }
            Some(seen) => Sight::Saw(seen.fetched),
        }
    }

    /// Does the newest word of this observer count at this moment, for the keys that it names?
    pub fn observes(&self, at: Timestamp, known: &ProviderState, observer: PersonId) -> bool {
        let seen = known.seen.get(&observer);
        let mut keys = seen.into_iter().flat_map(|seen| &seen.keys);
        keys.any(|key| matches!(self.sight(at, known, observer, key), Sight::Saw(_)))
    }

    /// Refuses a login by a key that too few observers saw published.
    pub(super) fn check_observed(
        &self,
        at: Timestamp,
        known: &ProviderState,
        key: &ContentDigest,
    ) -> Result<(), Denied> {
        let Some(observers) = &known.provider.observers else {
            return Ok(());
        };
        let sights = observers.people.iter();
        let sights = sights.map(|observer| (observer, self.sight(at, known, *observer, key)));
        let (saw, others): (Vec<_>, Vec<_>) =
            sights.partition(|(_, sight)| matches!(sight, Sight::Saw(_)));
        if saw.len() >= observers.needed as usize {
            return Ok(());
        }
        let name = clean(&known.provider.name, 64);
        let others: Vec<String> = others
            .into_iter()
            .map(|(observer, sight)| format!("{observer} {sight}"))
            .collect();
        Err(Denied::new(
            "key-unseen",
            format!(
                "{} of the {} observers that provider `{name}` needs saw its key {key} published: {}",
                saw.len(),
                observers.needed,
                others.join("; "),
            ),
        )
        .with_help(format!(
            "one of them looks: `ascribe provider observe {name}`; then log in again"
        )))
    }
}
