//! `ascribe serve`: ledger, API and SSH gateway in one process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::encoding::base64_std;
use ascribe_core::entry::Certificate;
use ascribe_core::id::{PersonId, SessionId, StatementId};
use ascribe_core::law::{Denied, Judge};
use ascribe_core::record::{
    Admission, AgentLogin, BoxFuture, Proposal, Receipt, RecordError, Recorder, ShownCertificate,
    SignedOpening, Standing, Wanted,
};
use ascribe_core::statement::Target;
use ascribe_core::time::Timestamp;
use ascribe_gateway::{
    GatewayConfig, OauthPlace, PgArrival, PgConfig, UpstreamAuth, serve_postgres,
};
use ascribe_ledger::Ledger;
use ascribe_sql::Classifier;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::init::{API_KEY, HOST_CA_KEY, SSH_HOST_KEY, USER_CA_KEY, drivers};
use super::{SERVER_FILE, remark};
use crate::answer::View;
use crate::cli::database::ServePostgres;
use crate::cli::{Bounds, Cli, Serve};
use crate::client::{Server, read_json, write_json};
use crate::exit::{Attempt as _, Done, Failure};
use crate::server::bearers::Tokens;
use crate::server::postgres::{Files, Sources};
use crate::server::providers::Keeper;
use crate::server::refusals::{Of, OfSigned, Refusals};
use crate::server::scim::Scim;
use crate::server::vault::Vault;
use crate::server::{Api, Naming};
use crate::witness::client;

/// The writer of the gateway in this process.
const GATEWAY: &str = "gateway";
/// Signed connections that wait for the gateway to take them.
const ARRIVALS: usize = 64;
/// Threads that say what statements are.
const CLASSIFIERS: usize = 2;

/// The ledger as the gateway sees it: refusals name people by name.
struct Front {
    ledger: Arc<Ledger>,
    naming: Naming,
}

impl Recorder for Front {
    fn record(&self, proposal: Proposal) -> BoxFuture<'_, Result<Receipt, RecordError>> {
        self.ledger.record(proposal)
    }
    fn record_all(
        &self,
        proposals: Vec<Proposal>,
    ) -> BoxFuture<'_, Vec<Result<Receipt, RecordError>>> {
        self.ledger.record_all(proposals)
    }
    fn settle_all(&self, proposals: Vec<Proposal>) -> BoxFuture<'_, Result<(), RecordError>> {
        self.ledger.settle_all(proposals)
    }
    fn person_by_key(&self, fingerprint: &str) -> Option<PersonId> {
        self.ledger.person_by_key(fingerprint)
    }
    fn login_by_key(&self, fingerprint: &str) -> Option<(StatementId, Timestamp)> {
        self.ledger.login_by_key(fingerprint)
    }
    fn agent_by_key(&self, fingerprint: &str) -> Option<AgentLogin> {
        self.ledger.agent_by_key(fingerprint)
    }
    fn ca_keys(&self) -> Vec<String> {
        self.ledger.ca_keys()
    }
    fn person_by_certificate(
        &self,
        shown: &ShownCertificate,
    ) -> Result<(PersonId, Certificate), Denied> {
        self.ledger.person_by_certificate(shown)
    }
    fn admit(&self, wanted: &Wanted<'_>) -> Admission {
        match self.ledger.admit(wanted) {
            Admission::Refused(denied) => Admission::Refused(self.naming.denied(denied)),
            admitted @ Admission::Grant(_) => admitted,
        }
    }
    fn standing(&self, session: SessionId) -> Standing {
        self.ledger.standing(session)
    }
    fn signed_opening(&self, statement: StatementId) -> Option<SignedOpening> {
        self.ledger.signed_opening(statement)
    }
    fn target(&self, name: &str) -> Option<Target> {
        self.ledger.target(name)
    }
    fn watchers(&self, session: SessionId) -> Vec<String> {
        let watchers = self.ledger.watchers(session).into_iter();
        watchers.map(|watcher| self.naming.text(&watcher)).collect()
    }
    fn now(&self) -> Timestamp {
        self.ledger.now()
    }
}

/// A running server.
pub(crate) struct Running {
    pub(crate) ssh: String,
    pub(crate) api: String,
    /// Where directories are served, if they are.
    scim: Option<String>,
    /// Where databases are, if there is such a port.
    postgres: Option<String>,
    pub(crate) ssh_host_key: String,
    pub(crate) ssh_host_ca: String,
    ledger: Arc<Ledger>,
    /// Which logins were refused since it was last on record.
    refused: Arc<Refusals>,
    stop: CancellationToken,
    server_file: PathBuf,
    tasks: TaskTracker,
}

impl Running {
    /// Why the server cannot go on, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.ledger.failure()
    }

    /// What an operator should mend, although the server goes on.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if !self.ledger.head_is_current() {
            troubles
                .push("the head copy cannot be written; a rollback could go unnoticed".to_owned());
        }
        if let (_, Some(why)) = self.ledger.archived() {
            troubles.push(format!(
                "full segments are not packed and take space: {why}"
            ));
        }
        troubles
    }

    /// Ends sessions, waits for every task, closes the ledger.
    pub(crate) async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.refused.finish().await;
        // Local commands find a stopped server by this file's absence; a stale one only makes them
        // say that nothing answers.
        std::fs::remove_file(&self.server_file).unwrap_or_default();
        let ledger = self.ledger;
        tokio::task::spawn_blocking(move || ledger.shutdown())
            .await
            .unwrap_or_default();
    }
}

fn load_key(path: &Path) -> Done<russh::keys::PrivateKey> {
    let text = std::fs::read_to_string(path).attempt(format!("read `{}`", path.display()))?;
    russh::keys::PrivateKey::from_openssh(&text).attempt(format!("read `{}`", path.display()))
}

async fn listen(address: &str, what: &str) -> Done<(TcpListener, String)> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure::usage(format!("cannot listen for {what} at `{address}`: {e}")))?;
    let bound = listener.local_addr().attempt("listen")?.to_string();
    Ok((listener, bound))
}

/// What directories are served with, and where, if they are.
async fn directories(
    address: Option<&str>,
    ledger: &Arc<Ledger>,
) -> Done<Option<(TcpListener, String, Arc<Scim>)>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let (listener, bound) = listen(address, "directories").await?;
    let scim = crate::server::scim::open(ledger).await?;
    Ok(Some((listener, bound, scim)))
}

/// Leaves what local commands need to find the server.
fn announce(dir: &Path, api: &str, spki: &[u8], ledger: &Ledger) -> Done<PathBuf> {
    let server = Server {
        api: api.to_owned(),
        pin: base64_std(spki),
        log_key: ledger.log_key().to_string(),
    };
    let file = dir.join(SERVER_FILE);
    // As a crash left it: then a start on a full disk needs no space.
    if !read_json(&file).is_ok_and(|old: Server| old == server) {
        write_json(&file, &server)?;
    }
    Ok(file)
}

/// The hash of the first entry, by which verifiers pin a ledger.
fn first_entry(ledger: &Ledger) -> Done<String> {
    let first = ledger.entries(0..1).attempt("read the first entry")?;
    let hash = first.first().map(|e| ascribe_core::entry::entry_hash(e));
    Ok(hash.map(|hash| hash.to_string()).unwrap_or_default())
}

/// The public half, as clients trust it.
fn public(key: &russh::keys::PrivateKey) -> Done<String> {
    key.public_key().to_openssh().attempt("encode a host key")
}

/// The PostgreSQL gateway, before it serves.
struct Databases {
    listener: Option<TcpListener>,
    address: Option<String>,
    tls: Option<Arc<rustls::ServerConfig>>,
    credentials: Sources,
    oauth: Vec<OauthPlace>,
    memory: usize,
}

impl Databases {
    /// `tasks` holds what is lent until it is given back.
    async fn listen(
        args: &ServePostgres,
        dir: &Path,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Done<Self> {
        let (listener, address) = match &args.postgres {
            Some(address) => {
                let (listener, address) = listen(address, "PostgreSQL").await?;
                (Some(listener), Some(address))
            }
            None => (None, None),
        };
        let tls = match (&args.postgres_cert, &args.postgres_key) {
            (Some(certificate), Some(key)) => Some(crate::server::postgres::tls(certificate, key)?),
            _ => None,
        };
        let mut places = BTreeSet::new();
        let oauth = &args.postgres_oauth;
        if !oauth
            .iter()
            .all(|place| places.insert((&place.target, &place.role)))
        {
            return Err(Failure::usage("`--postgres-oauth` names a place twice"));
        }
        let vault = args.vault.as_ref();
        let vault = vault.map(|file| Vault::new(file, tasks.clone(), stop.clone()));
        Ok(Self {
            listener,
            address,
            tls,
            credentials: Sources {
                files: Files::new(args.credentials.as_deref(), dir),
                vault: vault.transpose()?,
            },
            oauth: oauth.clone(),
            memory: (args.postgres_memory as usize) << 20,
        })
    }

    /// Serves what comes to its port, and what the API hands over.
    fn serve(
        self,
        tunnelled: tokio::sync::mpsc::Receiver<PgArrival>,
        front: Arc<dyn Recorder>,
        bearers: Tokens,
        ssh: &GatewayConfig,
        stop: CancellationToken,
    ) -> Done<impl Future<Output = ()> + Send + use<>> {
        let config = PgConfig {
            writer: ssh.writer.clone(),
            log_key: ssh.log_key.clone(),
            tls: self.tls,
            credentials: Arc::new(self.credentials),
            bearers: Arc::new(bearers),
            oauth: self.oauth,
            classifier: Classifier::new(CLASSIFIERS).attempt("start the classifier")?,
            own: ssh.own.clone(),
            idle_timeout: ssh.idle_timeout,
            pre_auth_timeout: ssh.pre_auth_timeout,
            max_connections_per_addr: ssh.max_connections_per_addr,
            memory: self.memory,
        };
        let fill: ascribe_gateway::Fill = Arc::new(fill_random);
        Ok(serve_postgres(
            self.listener,
            tunnelled,
            front,
            config,
            fill,
            stop,
        ))
    }
}

/// The keys of the SSH gateway.
struct SshKeys {
    host: russh::keys::PrivateKey,
    host_ca: russh::keys::PrivateKey,
    user_ca: russh::keys::PrivateKey,
}

impl SshKeys {
    fn load(dir: &Path) -> Done<Self> {
        Ok(Self {
            host: load_key(&dir.join(SSH_HOST_KEY))?,
            host_ca: load_key(&dir.join(HOST_CA_KEY))?,
            user_ca: load_key(&dir.join(USER_CA_KEY))?,
        })
    }
}

/// The ledger, recovered, and what judges its signatures.
async fn open(dir: &Path) -> Done<(Arc<Ledger>, Arc<dyn Judge>)> {
    let drivers = drivers();
    let judge = Arc::clone(&drivers.judge);
    let owned = dir.to_owned();
    let ledger = tokio::task::spawn_blocking(move || Ledger::open(&owned, &drivers))
        .await
        .attempt("start the ledger")?
        .map_err(|e| Failure::usage(format!("cannot start on `{}`: {e}", dir.display())))?;
    Ok((Arc::new(ledger), judge))
}

/// Which logins were refused, and what else that people signed.
type Refused = (Arc<Refusals>, Arc<OfSigned>);

/// What takes logins: providers' keys, what is refused, and what is shown at databases' doors.
fn logins(ledger: &Arc<Ledger>, judge: &Arc<dyn Judge>) -> Done<(Arc<Keeper>, Refused, Tokens)> {
    let keeper = Arc::new(Keeper::new(Arc::clone(ledger))?);
    let refused = (
        Arc::new(Refusals::new(Of::Logins, Arc::clone(ledger))),
        Arc::new(OfSigned::new(Arc::clone(ledger), Arc::clone(judge))),
    );
    let bearers = Tokens::new(
        Arc::clone(ledger),
        Arc::clone(&keeper),
        Arc::clone(judge),
        refused.clone(),
    );
    Ok((keeper, refused, bearers))
}

/// Writes now and then what was refused, until `stop`.
async fn count(refused: Arc<Refusals>, stop: CancellationToken) {
    refused.run(stop).await;
}

/// Where this server listens: no target is there.
fn own(addresses: [Option<&String>; 4]) -> Vec<std::net::SocketAddr> {
    let known = addresses.into_iter().flatten();
    known.filter_map(|own| own.parse().ok()).collect()
}

/// The SSH gateway, until `stop`.
async fn serve_ssh(
    listener: TcpListener,
    arriving: tokio::sync::mpsc::Receiver<ascribe_gateway::Arrival>,
    front: Arc<dyn Recorder>,
    config: GatewayConfig,
    stop: CancellationToken,
) {
    let fill: ascribe_gateway::Fill = Arc::new(fill_random);
    let served = ascribe_gateway::serve(listener, arriving, front, config, fill, stop);
    if let Err(error) = served.await {
        tracing::error!("the SSH gateway stopped: {error}");
    }
}

/// Starts everything on an existing ledger.
pub(crate) async fn start(
    dir: &Path,
    ssh: &str,
    api: &str,
    scim: Option<&str>,
    postgres: &ServePostgres,
    bounds: &Bounds,
) -> Done<Running> {
    let (ledger, judge) = open(dir).await?;
    let keys = SshKeys::load(dir)?;
    let (ssh_host_key, ssh_host_ca) = (public(&keys.host)?, public(&keys.host_ca)?);
    let pkcs8 = std::fs::read(dir.join(API_KEY)).attempt("read the API key")?;
    let (tls, spki) = crate::tls::server(&pkcs8)?;
    let (ssh_listener, ssh) = listen(ssh, "SSH").await?;
    let (api_listener, api_address) = listen(api, "the API").await?;
    let scim = directories(scim, &ledger).await?;
    let first_entry = first_entry(&ledger)?;
    let (arrivals, arriving) = tokio::sync::mpsc::channel(ARRIVALS);
    let (tunnels, tunnelled) = tokio::sync::mpsc::channel(ARRIVALS);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let databases = Databases::listen(postgres, dir, &tasks, &stop).await?;
    let (keeper, (refused, refused_signed), bearers) = logins(&ledger, &judge)?;
    let witnesses = Arc::new(client::Seen::default());
    let api = Arc::new(Api {
        keeper: Arc::clone(&keeper),
        refused: Arc::clone(&refused),
        refused_signed,
        ledger: Arc::clone(&ledger),
        judge,
        first_entry,
        ssh: ssh.clone(),
        ssh_host_key: ssh_host_key.clone(),
        ssh_host_ca: ssh_host_ca.clone(),
        arrivals,
        tunnels,
        view: View::default(),
        reads: crate::server::reads(),
        watches: crate::server::watches(),
        witnesses: Arc::clone(&witnesses),
    });
    tasks.spawn(client::run(Arc::clone(&ledger), witnesses, stop.clone()));
    tasks.spawn(crate::server::serve(
        Arc::clone(&api),
        api_listener,
        tls,
        stop.clone(),
    ));
    tasks.spawn(keeper.run(stop.clone()));
    tasks.spawn(count(Arc::clone(&refused), stop.clone()));
    let scim = scim.map(|(listener, address, scim)| {
        tasks.spawn(scim.serve(listener, stop.clone()));
        address
    });
    let pg_address = databases.address.clone();
    let own = own([
        Some(&ssh),
        Some(&api_address),
        scim.as_ref(),
        pg_address.as_ref(),
    ]);
    let config = GatewayConfig {
        writer: GATEWAY.to_owned(),
        log_key: ledger.log_key(),
        host_key: keys.host,
        host_ca: Some(keys.host_ca),
        upstream: UpstreamAuth::UserCa(keys.user_ca),
        own: own.clone(),
        idle_timeout: Duration::from_secs(bounds.idle),
        pre_auth_timeout: Duration::from_secs(10),
        max_connections_per_addr: bounds.per_address,
    };
    let front: Arc<dyn Recorder> = Arc::new(Front {
        ledger: Arc::clone(&ledger),
        naming: Naming { api },
    });
    let serving = databases.serve(
        tunnelled,
        Arc::clone(&front),
        bearers,
        &config,
        stop.clone(),
    )?;
    tasks.spawn(serving);
    tasks.spawn(serve_ssh(
        ssh_listener,
        arriving,
        front,
        config,
        stop.clone(),
    ));
    let server_file = announce(dir, &api_address, &spki, &ledger)?;
    Ok(Running {
        ssh,
        api: api_address,
        scim,
        postgres: pg_address,
        ssh_host_key,
        ssh_host_ca,
        ledger,
        refused,
        stop,
        server_file,
        tasks,
    })
}

/// Randomness for ids and salts. Without it nothing may go on: a guessable salt would open every
/// commitment.
fn fill_random(bytes: &mut [u8]) {
    if aws_lc_rs::rand::fill(bytes).is_err() {
        std::process::abort();
    }
}

/// What asks the process to end. Listened to before anybody is told that it is ready.
pub(crate) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Done<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate()).attempt("wait for signals")?,
            int: signal(SignalKind::interrupt()).attempt("wait for signals")?,
        })
    }
}

impl Signals {
    /// Waits until somebody ends the process.
    pub(crate) async fn wait(mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits until somebody ends the process, or the ledger fails.
pub(crate) async fn until_stopped(running: &Running, mut signals: Signals) -> Done {
    let mut pulse = tokio::time::interval(Duration::from_millis(200));
    let mut told = Vec::new();
    loop {
        tokio::select! {
            _ = signals.term.recv() => return Ok(()),
            _ = signals.int.recv() => return Ok(()),
            _ = pulse.tick() => {
                if let Some(why) = running.failure() {
                    return Err(Failure::new(crate::exit::Kind::Failure, format!("the ledger failed and the server stops: {why}"))
                        .help("mend the storage, then start again: recovery is the normal start"));
                }
                let troubles = running.troubles();
                for trouble in troubles.iter().filter(|t| !told.contains(*t)) {
                    tracing::warn!("{trouble}");
                }
                told = troubles;
            }
        }
    }
}

/// The async runtime.
pub(crate) fn runtime() -> Done<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .attempt("start the runtime")
}

/// The process holds keys and, for moments, passwords: no crash writes its memory to a disk, and no other
/// process of the same user reads it.
fn leave_no_core() -> Done {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .attempt("keep the process's memory to itself")?;
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).attempt("forbid core dumps")
}

pub(crate) fn run(cli: &Cli, args: &Serve) -> Done {
    let dir = cli.data_dir()?.to_owned();
    leave_no_core()?;
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let scim = args.scim.as_deref();
        let (postgres, bounds) = (&args.postgres, &args.bounds);
        let running = start(&dir, &args.ssh, &args.api, scim, postgres, bounds).await?;
        if let Some(scim) = &running.scim {
            remark(&format!("scim http://{scim}/scim/v2"));
        }
        if let Some(postgres) = &running.postgres {
            remark(&format!("postgres {postgres}"));
        }
        remark(&format!("ssh  {}\napi  {}", running.ssh, running.api));
        remark(&format!(
            "next: ascribe --data {} ledger status   (prints how clients join)",
            dir.display()
        ));
        let ended = until_stopped(&running, signals).await;
        running.shutdown().await;
        ended
    })
}
