//! The PostgreSQL gateway: between a stock client and a real server, each statement is on record before
//! the server sees it.
//!
//! Bytes are forwarded as they came; what is decoded is a view of them
//! ([`ascribe_wire::pg`]). A client comes in by one of two doors which the actor signed for: at
//! the gateway's own port with a signed statement as the password, over TLS; or by the API's
//! (`ascribe tunnel`). A workload may show its own token as the password instead, or its certificate in TLS, and then
//! the record says that nobody signed a statement. Nobody who comes in holds the target's credential.
//!
//! In scope: startup, relaying, outcomes, cancels. Out of scope: what is lawful and what is durable.
//!
//! Start from [`serve`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::gate::Log;
use ascribe_core::id::PersonId;
use ascribe_core::law::Denied;
use ascribe_core::record::{BoxFuture, Proposal, Recorder};
use ascribe_core::statement::Signed;
use ascribe_sql::Classifier;
use ascribe_tlog::VerifierKey;
use ascribe_wire::pg::Secret;
use ascribe_wire::pg::startup::UserName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::life::{Common, Fill};
use crate::places::Places;

mod action;
mod budget;
mod cancel;
mod certificate;
mod door;
mod ended;
mod login;
mod outcomes;
mod relay;
mod session;
mod target;

pub use action::{functions, relations};
use budget::Budget;
use cancel::Cancels;
pub use certificate::{ShownCertificate, TlsSignature};
pub use login::{LEDGER_AT_THE_DOOR, NO_LEDGER, PASSWORD_PREFIX};

/// Most connections of one address that wait for a place; more are closed at once.
const MAX_WAITING: usize = 512;

/// A connection's bytes, whatever carries them.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where the credentials of targets are.
pub trait Credentials: Send + Sync {
    /// What an account of a target is logged in to with, asked for anew for each connection; none where the
    /// target asks for nothing.
    ///
    /// # Errors
    /// When it cannot be had, with the reason and the way out, for the operator. The reason never holds a secret.
    fn credential<'a>(
        &'a self,
        target: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>>;
}

/// What an account is logged in to with.
#[derive(Debug)]
pub struct Credential {
    /// The role that logs in, where that is not the account itself.
    pub login: Option<LoginRole>,
    /// Its password.
    pub password: Secret,
    /// What it is lent by, where it is not for good.
    pub lease: Option<Lease>,
}

impl From<Secret> for Credential {
    fn from(password: Secret) -> Self {
        Self {
            login: None,
            password,
            lease: None,
        }
    }
}

/// A role that logs in for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRole {
    /// Its name, as the target's own log has it.
    pub name: String,
    /// What it acts as.
    pub acts_as: ActsAs,
}

/// What a role that logs in acts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActsAs {
    /// As the account, whose member it is: what it makes belongs to the account and outlives it.
    Account,
    /// As itself.
    Itself,
}

/// What a credential is lent by. Dropped, it is given back.
#[derive(Debug)]
pub struct Lease {
    /// The SHA-256 of its id, in hexadecimal.
    pub digest: String,
    /// Cancelled when the credential counts no more.
    pub over: CancellationToken,
    /// Cancels when dropped: then whoever lent it takes it back.
    pub held: DropGuard,
}

/// Who takes what a workload shows: its token as a password, or its certificate in TLS.
pub trait Bearers: Send + Sync {
    /// Puts a login for this one connection on record.
    ///
    /// # Errors
    /// When the token is not good, or nobody's. The reason never holds the token.
    fn log_in<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, Result<Bearer, Denied>>;

    /// Is there anybody to vouch for a certificate? If not, clients are not asked for one.
    fn wants_certificates(&self) -> bool {
        false
    }

    /// Has this certificate, in DER, a SPIFFE ID? One that has none is nobody's login, whatever its form.
    fn names_a_workload(&self, _certificate: &[u8]) -> bool {
        false
    }

    /// The same as [`Self::log_in`] for a certificate that a client showed in TLS; none where it has no SPIFFE ID, and so
    /// is no workload's.
    fn log_in_with_certificate<'a>(
        &'a self,
        _shown: &'a ShownCertificate,
    ) -> Option<BoxFuture<'a, Result<Bearer, Denied>>> {
        None
    }

    /// Puts on record that a signed opening was refused, where whoever it names signed it.
    fn refused<'a>(&'a self, signed: &'a Signed, code: &'static str) -> BoxFuture<'a, ()>;

    /// The issuer of the provider that is registered under this name.
    fn issuer(&self, _provider: &str) -> Option<String> {
        None
    }
}

/// Where clients that can are asked for a token by SASL's `OAUTHBEARER`, and not for a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthPlace {
    /// The role; none means every role of the target that no other one names.
    pub role: Option<String>,
    /// The target's name.
    pub target: String,
    /// The name of the provider that clients are told to get a token from. Tokens of others count as well.
    pub provider: String,
    /// The scope that they are told to ask it for.
    pub scope: Option<String>,
}

impl OauthPlace {
    /// The one that is meant for this user.
    fn of<'a>(all: impl Iterator<Item = &'a Self> + Clone, user: &UserName) -> Option<&'a Self> {
        let mut here = all.filter(|place| place.target == user.target);
        let named = here
            .clone()
            .find(|place| place.role.as_ref() == Some(&user.role));
        named.or_else(|| here.find(|place| place.role.is_none()))
    }
}

/// A workload whose token was shown and is on record.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Who.
    pub workload: PersonId,
    /// Fingerprint of the session key that was made for this connection.
    pub key: String,
    /// Ends the login, where no session of it does.
    pub logout: Proposal,
}

/// What a PostgreSQL gateway needs to know.
pub struct PgConfig {
    /// The writer that its entries are chained under.
    pub writer: String,
    /// The log whose receipts count.
    pub log_key: VerifierKey,
    /// How it proves itself to clients at its own port; none where it has no port.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The credentials of its targets.
    pub credentials: Arc<dyn Credentials>,
    /// Who takes workloads' tokens as passwords.
    pub bearers: Arc<dyn Bearers>,
    /// Where they are asked for by `OAUTHBEARER`.
    pub oauth: Vec<OauthPlace>,
    /// What says what statements are.
    pub classifier: Classifier,
    /// Where the server itself listens: no target is there.
    pub own: Vec<SocketAddr>,
    /// Sessions in which nothing moves for so long are ended.
    pub idle_timeout: Duration,
    /// A client must have logged in within this time.
    pub pre_auth_timeout: Duration,
    /// Connections of one address that are served at once; more of them wait.
    pub max_connections_per_addr: usize,
    /// What clients can make it hold in memory, over all sessions, in bytes.
    pub memory: usize,
}

impl std::fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgConfig").finish_non_exhaustive()
    }
}

/// A connection with the opening that the actor signed for it (`ascribe tunnel`).
pub struct PgArrival {
    /// The client; its startup message begins with the next byte.
    pub stream: Box<dyn Io>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What was signed. It is on record when the session is asked for, and no sooner.
    pub signed: Signed,
}

impl std::fmt::Debug for PgArrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PgArrival({})", self.peer)
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) common: Arc<Common>,
    pub(crate) config: PgConfig,
    pub(crate) cancels: Cancels,
    budget: Arc<Budget>,
}

/// Serves until `stop`, what comes to `listener` and what others hand in; then ends every session and
/// waits for its last entry.
pub async fn serve(
    listener: Option<TcpListener>,
    mut arrivals: mpsc::Receiver<PgArrival>,
    recorder: Arc<dyn Recorder>,
    config: PgConfig,
    fill: Fill,
    stop: CancellationToken,
) {
    let places = Places::new(config.max_connections_per_addr, MAX_WAITING);
    let shared = Arc::new(Shared {
        common: Arc::new(Common {
            recorder,
            writer: config.writer.clone(),
            log: Log::new(config.log_key.clone()),
            fill,
            stop: stop.clone(),
            idle_timeout: config.idle_timeout,
        }),
        budget: Arc::new(Budget::new(config.memory)),
        config,
        cancels: Cancels::default(),
    });
    let tasks = TaskTracker::new();
    loop {
        let (came, address) = tokio::select! {
            () = stop.cancelled() => break,
            Some(arrival) = arrivals.recv() => {
                let address = arrival.peer.ip();
                (door::Came::Signed(arrival), address)
            }
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((socket, peer)) => (door::Came::Plain(socket, peer), peer.ip()),
                Err(error) => {
                    // Usually too many open files: it passes when connections end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        spawn(&tasks, &places, &shared, came, address);
    }
    tasks.close();
    tasks.wait().await;
}

/// The next connection at the gateway's own port, if it has one.
async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// One connection: waits for its place, then is served.
fn spawn(
    tasks: &TaskTracker,
    places: &Places,
    shared: &Arc<Shared>,
    came: door::Came,
    address: IpAddr,
) {
    let Some(turn) = places.take(address) else {
        tracing::debug!("{address} has too many connections");
        return;
    };
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        let place = tokio::select! {
            place = turn.place() => place,
            () = shared.common.stop.cancelled() => return,
        };
        if place.is_some() {
            door::enter(shared, came).await;
        }
    });
}
