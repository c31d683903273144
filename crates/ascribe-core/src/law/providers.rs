//! Providers of identities: which count, and which keys they publish.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Denied, Judge, Place, Sighting, State, authn, rules};
use crate::encoding::Bytes;
use crate::entry::Entry;
use crate::id::{ContentDigest, PersonId};
use crate::identity::{Provider, ProviderKeys, ProviderKind};
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Most providers, withdrawn ones included.
const MAX_PROVIDERS: usize = 64;
/// Largest set of published keys, in bytes: an entry holds it as it is.
const MAX_KEYS: usize = 40 * 1024;
/// Most headers that come with it.
const MAX_HEADERS: usize = 16;
/// Longest text that a token says or a provider is described by, in bytes.
const MAX_TEXT: usize = 1024;
/// Signature algorithms that may count.
const ALGORITHMS: [&str; 5] = ["ES256", "ES384", "EdDSA", "PS256", "RS256"];

/// A provider's newest published keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysState {
    /// The exact bytes of the JWK Set.
    pub body: Bytes,
    /// When they were fetched.
    pub fetched: Timestamp,
    /// The entry that holds them.
    pub place: Place,
    /// RFC 7638 thumbprints of its keys.
    pub thumbprints: BTreeSet<ContentDigest>,
    /// Where they were fetched.
    pub uri: String,
}

/// A provider of identities, as the law knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderState {
    /// Its newest published keys, once there are any.
    pub keys: Option<KeysState>,
    /// The statement that set it.
    pub place: Place,
    /// Its rules.
    pub provider: Provider,
    /// The newest word of each observer that it names.
    pub seen: BTreeMap<PersonId, Sighting>,
}

pub(super) fn is_line(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(is_unsafe)
}

pub(super) fn is_word(text: &str) -> bool {
    is_line(text) && !text.chars().any(char::is_whitespace)
}

/// Keys come over TLS; on one's own machine they may come without.
fn is_keys_uri(uri: &str) -> bool {
    let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
    let is_local = local.iter().any(|prefix| {
        let rest = uri.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with([':', '/']))
    });
    is_word(uri) && (is_local || uri.strip_prefix("https://").is_some_and(|r| !r.is_empty()))
}

/// A SPIFFE trust domain's own id (SPIFFE ID, 2.1): lower case, and no path.
fn is_trust_domain(issuer: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    issuer
        .strip_prefix("spiffe://")
        .is_some_and(|name| (1..=255).contains(&name.len()) && name.bytes().all(plain))
}

/// A provider's keys may be this old, in seconds: an hour to a week.
const KEYS_AGE: core::ops::RangeInclusive<u64> = 3_600..=604_800;

fn check_provider(provider: &Provider) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("provider", text));
    if !rules::is_name(&provider.name) {
        return refuse("a provider's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`");
    }
    if !is_word(&provider.issuer) || !is_word(&provider.audience) || provider.audience.len() > 255 {
        return refuse("a provider has an issuer and an audience, without spaces");
    }
    if !is_keys_uri(&provider.jwks_uri) {
        return refuse("a provider's keys are published at an `https://` address");
    }
    if provider.kind == ProviderKind::SpiffeX509 && !is_trust_domain(&provider.issuer) {
        return refuse("the issuer of X.509-SVIDs is their trust domain: `spiffe://DOMAIN`");
    }
    if provider
        .max_keys_age_seconds
        .is_some_and(|age| !KEYS_AGE.contains(&age))
    {
        return refuse("a provider's keys may be an hour to a week old");
    }
    let mut seen = BTreeSet::new();
    let known = |name: &String| ALGORITHMS.contains(&name.as_str());
    if provider.algorithms.is_empty()
        || !provider
            .algorithms
            .iter()
            .all(|a| known(a) && seen.insert(a))
    {
        return Err(
            Denied::new("provider", "a provider signs with algorithms that count")
                .with_help(format!("they are: {}", ALGORITHMS.join(", "))),
        );
    }
    Ok(())
}

impl State {
    pub(super) fn provider(&self, name: &str) -> Result<&ProviderState, Denied> {
        self.providers.get(name).ok_or_else(|| {
            let name = crate::text::clean(name, 64);
            Denied::new("no-provider", format!("no provider is called `{name}`"))
                .with_help("`ascribe provider list` shows all")
        })
    }

    /// The same, if it counts.
    pub(super) fn live_provider(&self, name: &str) -> Result<&ProviderState, Denied> {
        let known = self.provider(name)?;
        if known.provider.withdrawn {
            return Err(Denied::new("withdrawn", "the provider was withdrawn"));
        }
        Ok(known)
    }

    /// Refuses a login by keys that nobody has seen published for too long: they may be long gone.
    pub(super) fn check_keys_age(&self, at: Timestamp, name: &str) -> Result<(), Denied> {
        let known = self.live_provider(name)?;
        let fetched = known.keys.as_ref().map(|keys| keys.fetched);
        let most = known.provider.max_keys_age_ms();
        let Some(fetched) = fetched.filter(|fetched| at.since(*fetched) >= most) else {
            return Ok(());
        };
        Err(Denied::new(
            "provider-keys-age",
            format!(
                "the keys of provider `{name}` were last seen published at {fetched}, too long ago"
            ),
        )
        .with_help("see the server's log for why it cannot fetch them"))
    }

    pub(super) fn check_provider_set(&self, provider: &Provider) -> Result<(), Denied> {
        let known = self.providers.get(&provider.name);
        if known.is_none() && self.providers.len() >= MAX_PROVIDERS {
            return Err(Denied::new("too-many", "there are 64 providers already"));
        }
        if known.is_none() && provider.withdrawn {
            return self.provider(&provider.name).map(drop);
        }
        check_provider(provider)?;
        authn::check_rule(provider)?;
        self.check_observers(provider)
    }

    pub(super) fn take_provider(&mut self, provider: &Provider, place: Place) {
        let before = self.providers.remove(&provider.name);
        // Keys belong to the issuer and the place that they were published at.
        let before = before.filter(|before| {
            (&before.provider.issuer, &before.provider.jwks_uri)
                == (&provider.issuer, &provider.jwks_uri)
        });
        let (keys, mut seen) = before.map_or_else(Default::default, |b| (b.keys, b.seen));
        let named = provider.observers.as_ref().map(|named| &named.people);
        seen.retain(|observer, _| named.is_some_and(|named| named.contains(observer)));
        let state = ProviderState {
            keys,
            place,
            provider: provider.clone(),
            seen,
        };
        self.providers.insert(provider.name.clone(), state);
    }

    pub(super) fn take_provider_keys(
        &mut self,
        judge: &dyn Judge,
        entry: &Entry,
        keys: &ProviderKeys,
        place: Place,
    ) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("provider-keys", text));
        let known = self.live_provider(&keys.provider)?;
        if entry.writer.id != super::SERVER {
            return refuse("providers' keys are written by `server`");
        }
        if known.provider.jwks_uri != keys.uri {
            return refuse("the keys were fetched elsewhere than the provider publishes them");
        }
        if entry.at.since(keys.fetched).abs() > super::SIGNER_SKEW_MS {
            return refuse("the keys were not fetched just now");
        }
        if keys.body.0.len() > MAX_KEYS
            || keys.headers.len() > MAX_HEADERS
            || !keys.headers.iter().all(|header| is_line(header))
        {
            return refuse("the keys or what came with them is too large");
        }
        let thumbprints = judge.provider_keys(&keys.body.0)?;
        let state = KeysState {
            body: keys.body.clone(),
            fetched: keys.fetched,
            place,
            thumbprints: thumbprints.into_iter().collect(),
            uri: keys.uri.clone(),
        };
        if let Some(known) = self.providers.get_mut(&keys.provider) {
            known.keys = Some(state);
        }
        Ok(())
    }
}
