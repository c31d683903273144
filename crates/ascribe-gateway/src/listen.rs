//! The listener: limits per address and before login, and an end that waits for every task.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::CloseReason;
use ascribe_core::gate::Log;
use ascribe_core::record::Recorder;
use ascribe_tlog::VerifierKey;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::entrance::Entrance;
use crate::guard::{Guarded, Switch};
use crate::handler::Downstream;
use crate::incoming::WINDOW;
use crate::inner::{Arrival, arrive};
use crate::life::{Common, Fill};
use crate::places::Places;

/// How the gateway proves itself to targets.
#[derive(Debug)]
pub enum UpstreamAuth {
    /// A key that targets know.
    Key(PrivateKey),
    /// A CA that targets trust: each login gets a certificate that names session and person, and
    /// ends with the grant or after five minutes, whichever is sooner.
    UserCa(PrivateKey),
}

/// What a gateway needs to know.
#[derive(Debug)]
pub struct GatewayConfig {
    /// The writer that its entries are chained under.
    pub writer: String,
    /// The log whose receipts count.
    pub log_key: VerifierKey,
    /// The SSH host key that clients see.
    pub host_key: PrivateKey,
    /// The CA that clients trust for the names of targets behind the inner door; without it there is
    /// none.
    pub host_ca: Option<PrivateKey>,
    /// How it logs in to targets.
    pub upstream: UpstreamAuth,
    /// Where the server itself listens: no target is there.
    pub own: Vec<SocketAddr>,
    /// Sessions in which nothing moves for so long are ended. A command's output counts as movement,
    /// a terminal's does not: there it is the person who has to move.
    pub idle_timeout: Duration,
    /// A client must have logged in within this time.
    pub pre_auth_timeout: Duration,
    /// Connections of one address that are served at once; more of them wait.
    pub max_connections_per_addr: usize,
}

/// Why a gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The listener failed.
    #[error("the SSH listener failed")]
    Listen(#[from] std::io::Error),
}

/// Most connections of one address that wait for a place; more are closed at once.
const MAX_WAITING: usize = 512;
/// What we say we are. Behind SFTP is nearly always OpenSSH's server, which takes the two paths of a link
/// the other way round than the draft (OpenSSH `PROTOCOL`, 4.1), and clients such as those of libssh look
/// for its name here to know that: without it their links are made the wrong way.
const VERSION: &str = "SSH-2.0-ascribe OpenSSH_9.9";
/// A client's ciphers. Each withstands a cut handshake (CVE-2023-48795) whatever the client's key
/// exchange can do.
const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM];
/// A client's key exchanges: OpenSSH has had the second since 6.5, and the first since 9.9. The last
/// two are not methods but what we can do: extension info, and strict key exchange.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
/// The ciphers need none of these. A name has to be agreed upon nevertheless.
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) common: Arc<Common>,
    pub(crate) config: GatewayConfig,
}

pub(crate) fn server_config(config: &GatewayConfig) -> russh::server::Config {
    let key = Cow::Borrowed(
        &[
            Algorithm::Ed25519,
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
        ][..],
    );
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(VERSION)),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![config.host_key.clone()],
        preferred: Preferred {
            key,
            kex: Cow::Borrowed(KEX),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        max_auth_attempts: 6,
        // Ours ends idle sessions, with a record; the library's would not.
        inactivity_timeout: None,
        window_size: WINDOW,
        channel_buffer_size: 8,
        nodelay: true,
        ..russh::server::Config::default()
    }
}

/// A connection to be served.
enum Came {
    Plain(TcpStream, SocketAddr),
    Signed(Arrival),
}

/// Serves until `stop`, what comes to `listener` and what others hand in; then ends every session and waits for its last entry.
///
/// # Errors
/// When the listener itself fails.
pub async fn serve(
    listener: TcpListener,
    mut arrivals: mpsc::Receiver<Arrival>,
    recorder: Arc<dyn Recorder>,
    config: GatewayConfig,
    fill: Fill,
    stop: CancellationToken,
) -> Result<(), GatewayError> {
    let ssh = Arc::new(server_config(&config));
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
        config,
    });
    let tasks = TaskTracker::new();
    loop {
        let came = tokio::select! {
            () = stop.cancelled() => break,
            Some(arrival) = arrivals.recv() => Came::Signed(arrival),
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => Came::Plain(socket, address),
                Err(error) => {
                    // Usually too many open files: it passes when connections end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (socket, address) = match &came {
            Came::Plain(socket, address) => (socket, address),
            Came::Signed(arrival) => (&arrival.stream, &arrival.peer),
        };
        let Some(turn) = places.take(address.ip()) else {
            tracing::debug!("{address} has too many connections");
            continue;
        };
        if socket.set_nodelay(true).is_err() {
            continue;
        }
        let (shared, ssh) = (Arc::clone(&shared), Arc::clone(&ssh));
        tasks.spawn(async move {
            // The time before login counts from when the connection is served.
            let place = tokio::select! {
                place = turn.place() => place,
                () = shared.common.stop.cancelled() => return,
            };
            match came {
                _ if place.is_none() => {}
                Came::Plain(socket, address) => {
                    let never = CancellationToken::new();
                    one(
                        shared,
                        ssh,
                        socket,
                        address.to_string(),
                        Entrance::Outer,
                        never,
                    )
                    .await;
                }
                Came::Signed(arrival) => arrive(shared, arrival).await,
            }
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// One connection, from the first byte to the session's last entry. `outer` is what it runs within
/// and ends with.
pub(crate) async fn one<S>(
    shared: Arc<Shared>,
    ssh: Arc<russh::server::Config>,
    stream: S,
    peer: String,
    entrance: Entrance,
    outer: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let switch = Switch::default();
    let limit = shared.config.pre_auth_timeout;
    let stop = shared.common.stop.clone();
    let connection = Arc::new(Connection::new(shared, switch.clone(), peer, entrance));
    connection.watch();
    let handler = Downstream::new(Arc::clone(&connection));
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    // Boxed: it is over once the connection runs.
    let begun = Box::pin(russh::server::run_stream(
        ssh,
        Guarded::new(stream, &switch),
        handler,
    ));
    let running = tokio::select! {
        running = begun => running,
        () = &mut deadline => return connection.finish().await,
        () = outer.cancelled() => return connection.finish().await,
        () = stop.cancelled() => return connection.finish().await,
    };
    let Ok(running) = running else {
        return connection.finish().await;
    };
    tokio::pin!(running);
    let (mut ending, mut due) = (false, false);
    loop {
        tokio::select! {
            biased;
            _ = &mut running => break,
            () = &mut deadline, if !due => {
                due = true;
                // Looked at now: the client may have logged in since the wait began.
                if !switch.is_logged_in() {
                    switch.cut();
                }
            }
            // The watch lets channels say goodbye, then cuts the connection.
            () = stop.cancelled(), if !ending => {
                ending = true;
                connection.end(CloseReason::Interrupted);
            }
            () = outer.cancelled(), if !ending => {
                ending = true;
                connection.end(CloseReason::Disconnected);
            }
        }
    }
    connection.finish().await;
}
