//! The keys of identity providers: fetched, and recorded when they changed or the record grows old.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::Body;
use ascribe_core::id::{ContentDigest, EntryId};
use ascribe_core::identity::{Fact, Login, Provider, ProviderKeys};
use ascribe_core::law::{ProviderState, SERVER};
use ascribe_core::record::{Proposal, Recorder as _, Scope};
use ascribe_core::time::Timestamp;
use ascribe_ledger::Ledger;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::api::{ProviderAsk, ProviderView, Reply};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::http::Http;
use crate::login::published_keys;

/// How often the keys of every provider are fetched.
const EVERY: Duration = Duration::from_secs(300);
/// Least time between two fetches from one provider, whoever asks.
const PAUSE: Duration = Duration::from_secs(2);
/// Largest set of keys, in bytes: an entry holds it as it is.
const MAX_KEYS: usize = 40 * 1024;
/// A login waits no longer for that.
const LONGEST: Duration = Duration::from_secs(5);
/// Headers that say how long an answer counts.
const HEADERS: [&str; 4] = ["age", "cache-control", "date", "expires"];

/// Fetches and records.
pub(crate) struct Keeper {
    ledger: Arc<Ledger>,
    http: Http,
    /// When each provider was last asked; whoever asks it holds the inner lock. Withdrawn names stay
    /// registered, so there are no more of them than providers.
    asked: std::sync::Mutex<BTreeMap<String, Arc<Mutex<Option<Instant>>>>>,
}

impl Keeper {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Done<Self> {
        Ok(Self {
            ledger,
            http: Http::new()?,
            asked: std::sync::Mutex::default(),
        })
    }

    /// Fetches the keys of every provider now and then, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let all: Vec<Provider> = self.ledger.with_state(|state| {
                let known = state.providers.values().map(|known| &known.provider);
                known.filter(|p| !p.withdrawn).cloned().collect()
            });
            for provider in all {
                tokio::select! {
                    () = stop.cancelled() => return,
                    done = self.refresh(&provider) => tell(&provider, done),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Before a login is judged: a key that we do not know may be newer than what we know, and keys that
    /// are too old to count may be published still.
    pub(crate) async fn before(self: &Arc<Self>, login: &Login) {
        let (name, key) = (login.provider.clone(), login.claims.key);
        if let Some(provider) = self.lacks(&name, &key) {
            // Whoever had the turn before may have found it.
            let still = move |keeper: &Self| keeper.lacks(&name, &key).is_some();
            self.ask(provider, still).await;
        }
    }

    /// The provider, if this key is not among those of it that count.
    fn lacks(&self, provider: &str, key: &ContentDigest) -> Option<Provider> {
        let now = self.ledger.now();
        self.ledger.with_state(|state| {
            let known = state.providers.get(provider)?;
            let fits = known.keys.as_ref().is_some_and(|keys| {
                let most = known.provider.max_keys_age_ms();
                keys.thumbprints.contains(key) && now.since(keys.fetched) < most
            });
            (!fits && !known.provider.withdrawn).then(|| known.provider.clone())
        })
    }

    /// Before a token is refused whose key we do not know.
    pub(crate) async fn again(self: &Arc<Self>, provider: &Provider) {
        self.ask(provider.clone(), |_| true).await;
    }

    /// Asks a provider in its turn, unless somebody did since we came, or it is not wanted any more. Goes on with that
    /// when it takes too long to wait for.
    async fn ask(
        self: &Arc<Self>,
        provider: Provider,
        wanted: impl Fn(&Self) -> bool + Send + 'static,
    ) {
        let came = Instant::now();
        let keeper = Arc::clone(self);
        let asking = tokio::spawn(async move {
            let last = keeper.turn(&provider);
            let mut last = last.lock().await;
            if last.is_none_or(|asked| asked < came) && wanted(&keeper) {
                let waited = last.map_or(PAUSE, |last| last.elapsed());
                tokio::time::sleep(PAUSE.saturating_sub(waited)).await;
                tell(&provider, keeper.fetch(&provider, &mut last).await);
            }
        });
        // What it came to is on record, or in the server's log.
        drop(tokio::time::timeout(LONGEST, asking).await);
    }

    async fn refresh(&self, provider: &Provider) -> Done {
        let last = self.turn(provider);
        let mut last = last.lock().await;
        self.fetch(provider, &mut last).await
    }

    /// Whoever asks a provider holds its lock: when it was last asked.
    fn turn(&self, provider: &Provider) -> Arc<Mutex<Option<Instant>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(asked.entry(provider.name.clone()).or_default())
    }

    async fn fetch(&self, provider: &Provider, last: &mut Option<Instant>) -> Done {
        *last = Some(Instant::now());
        let answer = published_keys(&self.http, provider).await?;
        if answer.body.len() > MAX_KEYS {
            return Err(Failure::new(
                Kind::Failure,
                format!("the provider publishes more than {MAX_KEYS} bytes of keys"),
            ));
        }
        let fetched = self.ledger.now();
        let same = self.ledger.with_state(|state| {
            let known = state.providers.get(&provider.name)?;
            let keys = known.keys.as_ref()?;
            let same = keys.body.0 == answer.body && known.provider.jwks_uri == keys.uri;
            Some(same && !is_old(known, fetched))
        });
        if same == Some(true) {
            return Ok(());
        }
        let headers = HEADERS.iter().filter_map(|name| {
            let value = answer.header(name)?;
            (value.len() <= 256).then(|| format!("{name}: {value}"))
        });
        let keys = ProviderKeys {
            headers: headers.collect(),
            fetched,
            provider: provider.name.clone(),
            uri: provider.jwks_uri.clone(),
            body: Bytes(answer.body),
        };
        let proposal = Proposal {
            id: EntryId::new(crate::client::random()?),
            writer: SERVER.to_owned(),
            body: Body::ProviderKeys(keys),
            openings: Vec::new(),
            scope: Scope::None,
        };
        self.ledger
            .record(proposal)
            .await
            .map(drop)
            .attempt("record the provider's keys")
    }
}

/// Are a provider's keys so old that they are recorded anew, unchanged as they may be? At half the age
/// that the law allows: often enough to survive hours of failures, too seldom to fill the ledger.
fn is_old(known: &ProviderState, now: Timestamp) -> bool {
    let keys = known.keys.as_ref();
    keys.is_some_and(|keys| now.since(keys.fetched) >= known.provider.max_keys_age_ms() / 2)
}

fn tell(provider: &Provider, done: Done) {
    if let Err(failure) = done {
        let name = ascribe_core::text::clean(&provider.name, 63);
        tracing::warn!("the keys of provider `{name}` are not renewed: {failure}");
    }
}

/// What somebody who is about to log in has to know. Nothing here is secret: ids are pseudonyms, and
/// only who knows a subject can ask whom it stands for.
pub(crate) fn view(ledger: &Ledger, ask: &ProviderAsk) -> Reply {
    let found = ledger.with_state(|state| {
        let workload = ask.workload.as_ref().map(|name| {
            state.workload_called(name).ok_or_else(|| {
                format!(
                    "no workload is called `{}`",
                    ascribe_core::text::clean(name, 63)
                )
            })
        });
        let workload = workload.transpose()?;
        let known = match (&ask.provider, &workload) {
            (Some(name), _) => state.providers.get(name),
            (None, Some((_, workload))) => state.providers.get(&workload.provider),
            (None, None) => {
                let mut people = state.providers.values().filter(|known| {
                    known.provider.kind.is_of_people() && !known.provider.withdrawn
                });
                match (people.next(), people.next()) {
                    (Some(_), Some(_)) => {
                        return Err(
                            "several providers are registered: give `--provider NAME`".to_owned()
                        );
                    }
                    (one, _) => one,
                }
            }
        };
        let known = known.filter(|known| !known.provider.withdrawn).ok_or(
            "no such provider is registered: an admin does it with `ascribe provider add`",
        )?;
        let linked = ask
            .subject
            .and_then(|subject| state.linked(&known.provider.name, &subject));
        Ok(ProviderView {
            actor: workload.as_ref().map(|(id, _)| *id).or(linked),
            facts: workload.map_or_else(Vec::new, |(_, workload)| {
                workload
                    .conditions
                    .iter()
                    .map(|c| c.claim.clone())
                    .collect()
            }),
            groups: state
                .wanted_groups(&known.provider.name)
                .into_iter()
                .map(|(claim, group)| Fact {
                    claim: claim.to_owned(),
                    value: group.to_owned(),
                })
                .collect(),
            managers: state
                .wanted_managers(&known.provider.name)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            provider: known.provider.clone(),
        })
    });
    match found {
        Ok(view) => Reply::Provider(Box::new(view)),
        Err(why) => Reply::failure("denied", "provider", why),
    }
}

#[cfg(test)]
mod tests;
