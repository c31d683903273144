//! The SSH gateway, direct form: `ssh -p 7022 account@target@gateway`.

mod action;
mod channel;
mod evidence;
mod forward;
mod handler;
mod session;
mod upstream;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::record::Recorder;
use ascribe_tlog::VerifierKey;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use handler::Door;
use session::Connection;

/// How the gateway logs in at targets.
#[derive(Debug)]
pub enum UpstreamAuth {
    /// With this key.
    Key(PrivateKey),
    /// With a short-lived user certificate that this CA key signs for each session.
    UserCa(PrivateKey),
}

/// What the gateway needs to know.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Name of the writer of its entries.
    pub writer: String,
    /// The log's key; receipts are checked against it.
    pub log_key: VerifierKey,
    /// The gateway's own host key.
    pub host_key: PrivateKey,
    /// How it logs in at targets.
    pub upstream: UpstreamAuth,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// Time to log in.
    pub pre_auth_timeout: Duration,
    /// Connections from one address at a time; more wait.
    pub max_connections_per_addr: usize,
}

/// A source of random bytes.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) random: Random,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        (self.random)(&mut out);
        out
    }
}

pub(crate) fn key_algorithms() -> Vec<Algorithm> {
    let mut out = vec![Algorithm::Ed25519];
    for curve in [
        EcdsaCurve::NistP256,
        EcdsaCurve::NistP384,
        EcdsaCurve::NistP521,
    ] {
        out.push(Algorithm::Ecdsa { curve });
    }
    out
}

fn server_config(config: &GatewayConfig) -> Config {
    let mut out = Config {
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![config.host_key.clone()],
        channel_buffer_size: 8,
        inactivity_timeout: Some(config.idle_timeout),
        nodelay: true,
        ..Config::default()
    };
    out.preferred.key = key_algorithms().into();
    out.preferred.compression = vec![russh::compression::NONE].into();
    out
}

/// Serves until `shutdown`, then closes every session and waits for its entries.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    recorder: Arc<dyn Recorder>,
    config: GatewayConfig,
    random: Random,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let server = Arc::new(server_config(&config));
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        config,
        recorder,
        random,
        shutdown,
        tasks,
    });
    let mut places: HashMap<IpAddr, Arc<Semaphore>> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let limit = shared.config.max_connections_per_addr.max(1);
        places.retain(|_, place| Arc::strong_count(place) > 1);
        let place = places
            .entry(peer.ip())
            .or_insert_with(|| Arc::new(Semaphore::new(limit)));
        let (shared, server, place) = (shared.clone(), server.clone(), place.clone());
        shared.tasks.clone().spawn(async move {
            let Ok(_place) = place.acquire_owned().await else {
                return;
            };
            connection(shared, server, stream, peer.to_string()).await;
        });
    }
    shared.tasks.close();
    shared.tasks.wait().await;
    Ok(())
}

async fn connection(shared: Arc<Shared>, server: Arc<Config>, stream: TcpStream, peer: String) {
    let limit = tokio::time::Instant::now() + shared.config.pre_auth_timeout;
    let connection = Arc::new(Connection::new(shared.clone(), peer));
    let door = Door::new(connection.clone());
    let started = tokio::time::timeout_at(limit, run_stream(server, stream, door)).await;
    let Ok(Ok(running)) = started else { return };
    let handle = running.handle();
    let abort = {
        let connection = connection.clone();
        async move {
            tokio::select! {
                () = tokio::time::sleep_until(limit) => {}
                () = connection.authenticated.notified() => connection.wait_end().await,
            }
        }
    };
    tokio::select! {
        _ = running => {}
        () = abort => {
            let bye = handle.disconnect(russh::Disconnect::ByApplication, String::new(), String::new());
            if tokio::time::timeout(Duration::from_secs(1), bye).await.is_err() {
                tracing::debug!("the client took no goodbye");
            }
        }
    }
    connection.finish().await;
}
