//! Credentials of databases from HashiCorp Vault or OpenBao: read for each connection and kept nowhere; what is lent
//! is renewed while its session lasts, and given back after it.
//!
//! One task serves one connection from the login at Vault on. It goes on where nobody waits for it any more, so that
//! nothing that was lent is forgotten.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ascribe_core::text::clean;
use ascribe_gateway::{ActsAs, Credential, Lease, LoginRole};
use ascribe_wire::pg::Secret;
use ascribe_wire::vault::{self, Issued, MAX_ANSWER};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::postgres::{certificates, read_lent, read_secret};
use crate::exit::{Done, Failure};
use crate::http::{HeaderMap, HeaderName, HeaderValue, Http};

mod config;

use config::{Auth, Config, Source, Version};

/// Longest that one request takes.
const REQUEST: Duration = Duration::from_secs(4);
/// What is lent for less than a login at the target may take is of no use.
const LEAST: Duration = Duration::from_secs(10);
/// A renewal that adds less than this adds nothing: the longest time is reached.
const NOTHING: Duration = Duration::from_secs(2);
/// Least time between two attempts to renew.
const PAUSE: Duration = Duration::from_secs(1);
/// Pauses before further attempts to give back.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Fields of requests that errors may repeat.
const NO_SECRETS: [&str; 3] = ["lease_id", "role", "role_id"];

/// Where it is said which credentials are in Vault.
pub(crate) struct Vault {
    file: PathBuf,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Vault {
    /// Reads the configuration once, to refuse a start with one that cannot be read. Nobody is asked yet.
    pub(crate) fn new(file: &Path, tasks: TaskTracker, stop: CancellationToken) -> Done<Self> {
        let config = Config::read(file).map_err(Failure::usage)?;
        client(&config).map_err(|trouble| Failure::usage(trouble.why))?;
        Ok(Self {
            file: file.to_owned(),
            tasks,
            stop,
        })
    }

    /// What an account is logged in to with, where the configuration names it. The configuration, the
    /// certificates and the secrets of the login are read anew each time.
    pub(super) async fn credential(
        &self,
        target: &str,
        account: &str,
    ) -> Result<Option<Credential>, String> {
        let config = Config::read(&self.file)?;
        let place = (account.to_owned(), target.to_owned());
        let Some(source) = config.credentials.get(&place).cloned() else {
            return Ok(None);
        };
        let (reply, answer) = oneshot::channel();
        let stop = self.stop.clone();
        self.tasks.spawn(lend(config, source, place, reply, stop));
        let answered = answer.await;
        answered
            .map_err(|_| "the gateway stops".to_owned())?
            .map(Some)
    }
}

/// What went wrong with a request.
#[derive(Debug)]
struct Trouble {
    /// The answer's status; none where there was no usable answer.
    status: Option<u16>,
    why: String,
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { status: None, why }
    }
}

/// Serves one connection.
async fn lend(
    config: Config,
    source: Source,
    place: (String, String),
    reply: oneshot::Sender<Result<Credential, String>>,
    stop: CancellationToken,
) {
    let mut visit = match Visit::begin(config).await {
        Ok(visit) => visit,
        Err(trouble) => return answer(reply, Err(trouble.why)),
    };
    let (issued, lent) = match visit.read(&source).await {
        Ok(read) => read,
        Err(trouble) => {
            answer(reply, Err(trouble.why));
            return visit.leave(None, &stop).await;
        }
    };
    let mut credential = Credential {
        login: login(&source, issued.user, &place.0),
        password: issued.password,
        lease: None,
    };
    let Some(mut lent) = lent else {
        answer(reply, Ok(credential));
        return visit.leave(None, &stop).await;
    };
    if visit.left(&lent) < LEAST {
        let why = format!(
            "what `{}` lends lasts less than the {} s that a login may take: set a longer `default_ttl` there, or \
             `token_ttl` of the login",
            source.path(),
            LEAST.as_secs()
        );
        answer(reply, Err(why));
        return visit.leave(Some(&lent), &stop).await;
    }
    let (over, released) = (CancellationToken::new(), CancellationToken::new());
    credential.lease = Some(Lease {
        digest: digest(&lent.id),
        over: over.clone(),
        held: released.clone().drop_guard(),
    });
    // Where nobody waits for it, it is dropped here, and so released.
    answer(reply, Ok(credential));
    visit.keep(&mut lent, &place, &released).await;
    over.cancel();
    visit.leave(Some(&lent), &stop).await;
}

fn answer(reply: oneshot::Sender<Result<Credential, String>>, what: Result<Credential, String>) {
    if reply.send(what).is_err() {
        tracing::debug!("a connection ended before its credential came");
    }
}

/// The role that logs in, where that is another than the account.
fn login(source: &Source, user: String, account: &str) -> Option<LoginRole> {
    let Source::Database { as_itself, .. } = source else {
        return None;
    };
    (user != account).then_some(LoginRole {
        name: user,
        acts_as: match as_itself {
            true => ActsAs::Itself,
            false => ActsAs::Account,
        },
    })
}

/// SHA-256 in hexadecimal: whoever has the id can compare, and nobody else learns it.
fn digest(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is lent, and until when.
struct Lent {
    id: String,
    ends: Instant,
    renewable: bool,
}

impl Lent {
    /// As requests name it.
    fn named(&self) -> [(&'static str, Secret); 1] {
        [("lease_id", Secret::new(self.id.as_bytes()))]
    }
}

/// A login at Vault.
struct Visit {
    config: Config,
    http: Http,
    /// The token of this login; none where a file has one.
    own: Option<Own>,
}

/// A token that was made for this visit.
struct Own {
    secret: Secret,
    /// None where it does not end.
    ends: Option<Instant>,
    renewable: bool,
    /// It cannot be revoked.
    batch: bool,
}

impl Visit {
    async fn begin(config: Config) -> Result<Self, Trouble> {
        let mut visit = Self {
            http: client(&config)?,
            config,
            own: None,
        };
        let (mount, fields) = match &visit.config.auth {
            Auth::Token(_) => return Ok(visit),
            Auth::AppRole {
                mount,
                role,
                secret,
            } => {
                let role = file(role, read_lent)?;
                (
                    mount,
                    [("role_id", role), ("secret_id", file(secret, read_secret)?)],
                )
            }
            Auth::Jwt { mount, role, token } => {
                let role = Secret::new(role.as_bytes());
                (mount, [("role", role), ("jwt", file(token, read_lent)?)])
            }
        };
        let asked = Instant::now();
        let path = format!("auth/{mount}/login");
        let body = visit.ask(&path, Some(&fields), None).await?;
        let token = vault::token(&body).map_err(|error| visit.trouble(&path, &error))?;
        visit.own = Some(Own {
            ends: (token.seconds > 0).then(|| asked + Duration::from_secs(token.seconds)),
            renewable: token.renewable,
            batch: token.batch,
            secret: token.secret,
        });
        Ok(visit)
    }

    /// The token to show: a file's is read each time, since its owner renews it.
    fn token(&self) -> Result<Secret, Trouble> {
        match (&self.own, &self.config.auth) {
            (Some(own), _) => Ok(Secret::new(own.secret.expose())),
            (None, Auth::Token(path)) => {
                let read = file(path, read_secret)?;
                let held = vault::held_token(read.expose());
                held.ok_or_else(|| format!("`{}` holds no token", path.display()).into())
            }
            (None, _) => Err("the gateway is not logged in".to_owned().into()),
        }
    }

    async fn read(&mut self, source: &Source) -> Result<(Issued, Option<Lent>), Trouble> {
        let asked = Instant::now();
        let path = source.path();
        let token = self.token()?;
        let body = self.ask(&path, None, Some(&token)).await?;
        let issued = match source {
            Source::Kv { version, field, .. } => {
                let read = match version {
                    Version::One => vault::kv1(&body, field),
                    Version::Two => vault::kv2(&body, field),
                };
                read.map(|password| Issued {
                    user: String::new(),
                    password,
                    lease: None,
                })
            }
            Source::Database { stays: true, .. } => vault::fixed(&body),
            Source::Database { stays: false, .. } => vault::dynamic(&body),
        };
        let lent = |lease: vault::Lease| Lent {
            ends: asked + Duration::from_secs(lease.seconds),
            id: lease.id,
            renewable: lease.renewable,
        };
        match issued {
            Ok(mut issued) => {
                let lease = issued.lease.take();
                Ok((issued, lease.map(lent)))
            }
            Err(error) => {
                let trouble = self.trouble(&path, &error);
                // What cannot be used is given back.
                if let Ok(lease) = vault::lease(&body)
                    && !self.takes_all()
                    && let Err(trouble) = self.give_back(Some(&lent(lease))).await
                {
                    let why = trouble.why;
                    tracing::warn!("what Vault lent in vain ends by itself: {why}");
                }
                Err(trouble)
            }
        }
    }

    /// How long what is lent lasts: what a token was lent ends with the token.
    fn left(&self, lent: &Lent) -> Duration {
        let token = self.own.as_ref().and_then(|own| own.ends);
        let ends = token.map_or(lent.ends, |ends| ends.min(lent.ends));
        ends.saturating_duration_since(Instant::now())
    }

    /// Renews until the session is over, or what is lent.
    async fn keep(
        &mut self,
        lent: &mut Lent,
        (account, target): &(String, String),
        released: &CancellationToken,
    ) {
        let mut worth = true;
        let mut told = false;
        loop {
            let left = self.left(lent);
            if left.is_zero() {
                tracing::warn!("the lease of {account}@{target} is over, and so is its session");
                return;
            }
            let wait = match worth {
                true => (left / 2).max(PAUSE).min(left),
                false => left,
            };
            tokio::select! {
                () = released.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if !worth {
                continue;
            }
            let before = self.left(lent);
            // Whoever does not answer does not keep the session open beyond the lease.
            let Ok(renewed) = tokio::time::timeout(before, self.renew(lent)).await else {
                continue;
            };
            match renewed {
                Ok(()) => worth = self.left(lent) > before + NOTHING,
                Err(trouble) if self.is_taken_back(&trouble) => {
                    let why = trouble.why;
                    tracing::warn!("the lease of {account}@{target} was taken back: {why}");
                    return;
                }
                Err(trouble) => {
                    if !told {
                        let why = trouble.why;
                        tracing::warn!("the lease of {account}@{target} is not renewed yet: {why}");
                    }
                    told = true;
                }
            }
        }
    }

    async fn renew(&mut self, lent: &mut Lent) -> Result<(), Trouble> {
        self.http = client(&self.config)?;
        let token = self.token()?;
        let asked = Instant::now();
        if self.own.as_ref().is_some_and(|own| own.renewable) {
            let path = "auth/token/renew-self";
            let body = self.ask(path, Some(&[]), Some(&token)).await?;
            let seconds =
                vault::renewed_token(&body).map_err(|error| self.trouble(path, &error))?;
            if let Some(own) = &mut self.own {
                own.ends = (seconds > 0).then(|| asked + Duration::from_secs(seconds));
            }
        }
        if lent.renewable {
            let path = "sys/leases/renew";
            let body = self.ask(path, Some(&lent.named()), Some(&token)).await?;
            let seconds = vault::renewed(&body).map_err(|error| self.trouble(path, &error))?;
            lent.ends = asked + Duration::from_secs(seconds);
        }
        Ok(())
    }

    /// Does Vault know the lease, or the token that it was lent to, no more?
    fn is_taken_back(&self, trouble: &Trouble) -> bool {
        match trouble.status {
            Some(400 | 404) => true,
            Some(403) => self.own.is_some(),
            _ => false,
        }
    }

    /// Gives back what was lent, and ends the login.
    async fn leave(&mut self, lent: Option<&Lent>, stop: &CancellationToken) {
        let mut pauses = AGAIN.iter();
        while let Err(trouble) = self.give_back(lent).await {
            let ended = lent.is_some_and(|lent| self.left(lent).is_zero());
            // A stop waits for no second attempt, and what is refused is refused again.
            let refused = matches!(trouble.status, Some(400..=499));
            let once = ended || refused || lent.is_none() || stop.is_cancelled();
            let Some(pause) = pauses.next().filter(|_| !once) else {
                if !ended {
                    let why = trouble.why;
                    tracing::warn!("a login at Vault, or what it was lent, ends by itself: {why}");
                }
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Does what was lent go with the token of this visit?
    fn takes_all(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.batch)
    }

    async fn give_back(&mut self, lent: Option<&Lent>) -> Result<(), Trouble> {
        self.http = client(&self.config)?;
        let given = match (&self.own, lent) {
            (Some(own), _) if self.takes_all() => {
                self.ask("auth/token/revoke-self", Some(&[]), Some(&own.secret))
                    .await
            }
            (_, Some(lent)) => {
                let token = self.token()?;
                self.ask("sys/leases/revoke", Some(&lent.named()), Some(&token))
                    .await
            }
            (_, None) => return Ok(()),
        };
        given.map(drop)
    }

    /// One request; fields make it a POST. No error repeats the secrets in it.
    async fn ask(
        &self,
        path: &str,
        fields: Option<&[(&str, Secret)]>,
        token: Option<&Secret>,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let body = fields.map(json).transpose()?;
        let url = format!("{}/v1/{path}", self.config.address);
        let headers = self.headers(token)?;
        let answer = self.http.ask(&url, headers, body, MAX_ANSWER).await;
        let answer = answer.map_err(|error| format!("Vault at {error:#}"))?;
        let (status, body) = (answer.status, Zeroizing::new(answer.body));
        if matches!(status, 200 | 204) {
            return Ok(body);
        }
        let fields = fields.into_iter().flatten();
        let secret = fields.filter(|(name, _)| !NO_SECRETS.contains(name));
        let sent: Vec<&Secret> = secret.map(|(_, secret)| secret).chain(token).collect();
        let told = vault::told(&body, &sent);
        let told = if told.is_empty() {
            told
        } else {
            format!(": {told}")
        };
        let shown = clean(&self.config.address, 200);
        Err(Trouble {
            status: Some(status),
            why: format!(
                "Vault at `{shown}`, `{path}`: {} (status {status}{told})",
                meant_by(status)
            ),
        })
    }

    fn headers(&self, token: Option<&Secret>) -> Result<HeaderMap, Trouble> {
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &[u8]| {
            let mut value = HeaderValue::from_bytes(value)
                .map_err(|_| format!("what is to be `{name}` cannot be in a header"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
            Ok::<(), String>(())
        };
        add("content-type", b"application/json")?;
        // Agents in front of Vault may ask for it: a page in a browser cannot set it.
        add("x-vault-request", b"true")?;
        if let Some(namespace) = &self.config.namespace {
            add("x-vault-namespace", namespace.as_bytes())?;
        }
        if let Some(token) = token {
            add("x-vault-token", token.expose())?;
        }
        Ok(headers)
    }

    fn trouble(&self, path: &str, error: &vault::VaultError) -> Trouble {
        let shown = clean(&self.config.address, 200);
        format!("Vault at `{shown}`, `{path}`: {error}").into()
    }
}

/// What a status says, and the way out.
fn meant_by(status: u16) -> &'static str {
    match status {
        300..=399 => {
            "it redirects, which is not followed: give the address of the active node, or of what balances between them"
        }
        400 => "it refuses what was asked",
        403 => "it does not allow that: look at the policies of the gateway's login",
        404 => "there is nothing",
        429 => "it was asked too often, or is a standby",
        472 | 473 => {
            "it is a standby that does not answer: give the address of the active node, or of what balances between them"
        }
        503 => "it is sealed or being maintained: unseal it",
        500..=599 => "it fails by itself: look at its log",
        _ => "it answers something else than its API has",
    }
}

/// A client with the certificates as they are now.
fn client(config: &Config) -> Result<Http, Trouble> {
    let roots = match &config.ca {
        Some(file) => certificates(file).map_err(|failure| failure.message)?,
        None => Vec::new(),
    };
    let client = Http::to_one(REQUEST, &roots);
    client.map_err(|error| Trouble::from(format!("{error:#}")))
}

fn file(path: &Path, read: fn(&Path) -> std::io::Result<Secret>) -> Result<Secret, Trouble> {
    let shown = path.display();
    let read = read(path).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    if read.expose().is_empty() {
        return Err(format!("`{shown}` is empty").into());
    }
    Ok(read)
}

/// A JSON object of texts, which is wiped when it is dropped.
fn json(fields: &[(&str, Secret)]) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let mut texts = std::collections::BTreeMap::new();
    for (name, secret) in fields {
        let text = std::str::from_utf8(secret.expose());
        let text = text.map_err(|_| format!("what is to be `{name}` is no text"))?;
        texts.insert(*name, text);
    }
    // Never grows, so that no copy of it is left behind: an escape of JSON's is at most six bytes.
    let length: usize = texts.iter().map(|(n, t)| n.len() + 6 * t.len() + 8).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(length + 2));
    serde_json::to_writer(&mut *body, &texts).map_err(|error| error.to_string())?;
    Ok(body)
}
