//! The target's side: strict host keys, a short-lived certificate, channels.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ascribe_core::gate::{Action, Recorded};
use ascribe_core::record::Standing;
use ascribe_core::statement::{Forward, SshKey, Target};
use bytes::Bytes;
use russh::client::{AuthResult, ChannelOpenHandle, Config, Handle, Handler, Msg, connect_stream};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{
    Algorithm, EcdsaCurve, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelMsg, Preferred, cipher};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::channel::{Loans, Screen};
use crate::connection::{Connection, Session};
use crate::forward::{Back, Returning};
use crate::guard::Guarded;
use crate::listen::UpstreamAuth;

/// A target must be reached and logged in to within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long holds up whoever else is served by the same login.
const STALLED: Duration = Duration::from_millis(250);
/// A certificate lives this many seconds at most: it is used at once.
const CERTIFICATE_SECONDS: u64 = 300;
/// Ciphers, best first. The first two withstand a cut handshake (CVE-2023-48795) by themselves.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Why a target is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("it does not answer ({0})")]
    Connect(String),
    #[error("its address is the gateway itself")]
    Own,
    #[error("its host key is not the pinned one; if that is right, an admin registers it again")]
    HostKey,
    #[error("it does not let the gateway in; does it trust the gateway's user CA?")]
    Login,
    #[error(
        "it has neither strict key exchange nor AES-GCM (CVE-2023-48795); update its SSH server"
    )]
    KeyExchange,
    #[error("the session has ended")]
    Ended,
    #[error("it did not answer within 10 s")]
    Timeout,
    #[error("a certificate could not be made ({0})")]
    Certificate(String),
}

/// Connections back that wait to be looked at, and those that are carried at once; more are refused.
const INCOMING: usize = 64;
/// Connections back of one login, over its life.
const MAX_BACKS: u32 = 10_000;

/// Accepts the pinned host keys and no other, and hands on what the target connects back.
struct Pinned {
    keys: Vec<SshKey>,
    incoming: mpsc::Sender<Box<Returning>>,
}

impl Pinned {
    /// An answer that is dropped is a no.
    fn hand_on(&self, back: Back, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let incoming = Returning {
            back,
            channel,
            reply,
        };
        if self.incoming.try_send(Box::new(incoming)).is_err() {
            tracing::debug!("the target connects back too often");
        }
    }
}

impl Handler for Pinned {
    type Error = UpstreamError;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            return Err(UpstreamError::HostKey);
        };
        let line = key.to_openssh().map_err(|_| UpstreamError::HostKey)?;
        let mut words = line.split(' ');
        let plain = match (words.next(), words.next()) {
            (Some(kind), Some(blob)) => SshKey(format!("{kind} {blob}")),
            _ => return Err(UpstreamError::HostKey),
        };
        if self.keys.contains(&plain) {
            Ok(true)
        } else {
            Err(UpstreamError::HostKey)
        }
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        let sound = [cipher::AES_256_GCM, cipher::AES_128_GCM].contains(&names.cipher);
        if names.strict_kex() || sound {
            Ok(())
        } else {
            Err(UpstreamError::KeyExchange)
        }
    }

    // What was not asked for and granted is refused where it is looked at. An answer that is dropped
    // is a no.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        let back = Back::Port {
            address: address.to_owned(),
            port,
            from: (from.to_owned(), from_port),
        };
        self.hand_on(back, channel, reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        self.hand_on(Back::Socket(path.to_owned()), channel, reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        self.hand_on(Back::Agent, channel, reply);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        self.hand_on(Back::X11(from.to_owned(), from_port), channel, reply);
        Ok(())
    }
}

impl From<russh::Error> for UpstreamError {
    fn from(error: russh::Error) -> Self {
        Self::Connect(error.to_string())
    }
}

/// A port of this machine that nobody else has until it is used: what comes from it is on record before.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    /// Bound, and the first to be connected; whether it is of IPv4.
    socket: Option<(TcpSocket, bool)>,
    port: Option<u16>,
}

impl Reserved {
    /// One from which the target is reached. Without one, whatever port there is is used.
    pub(crate) fn for_target(target: &Target) -> Self {
        let addresses = target.addresses.iter();
        let v4 = addresses
            .filter_map(|text| text.parse().ok())
            .map(|address: IpAddr| address.is_ipv4())
            .next();
        let Some(v4) = v4 else {
            return Self::default();
        };
        match bound(v4, 0) {
            Ok((socket, port)) => Self {
                socket: Some((socket, v4)),
                port: Some(port),
            },
            Err(error) => {
                tracing::warn!("no port could be reserved: {error}");
                Self::default()
            }
        }
    }

    /// Which it is.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// A socket at this port, or at another where somebody has it meanwhile.
    fn socket(&mut self, v4: bool) -> io::Result<TcpSocket> {
        if let Some((socket, _)) = self.socket.take_if(|(_, of_v4)| *of_v4 == v4) {
            return Ok(socket);
        }
        let again = self.port.map(|port| bound(v4, port));
        match again {
            Some(Ok((socket, _))) => Ok(socket),
            Some(Err(_)) | None => unbound(v4),
        }
    }
}

fn unbound(v4: bool) -> io::Result<TcpSocket> {
    match v4 {
        true => TcpSocket::new_v4(),
        false => TcpSocket::new_v6(),
    }
}

/// A socket at this port, or at any where it is 0, and the port.
fn bound(v4: bool, port: u16) -> io::Result<(TcpSocket, u16)> {
    let socket = unbound(v4)?;
    let any: IpAddr = match v4 {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(SocketAddr::new(any, port))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Connects to the first of the pinned addresses that answers. No resolver is asked. One that is silent
/// leaves time for the others.
pub(crate) async fn dial(target: &Target, own: &[SocketAddr]) -> Result<TcpStream, UpstreamError> {
    dial_from(target, own, &mut Reserved::default()).await
}

/// The same from a port that was reserved.
pub(crate) async fn dial_from(
    target: &Target,
    own: &[SocketAddr],
    from: &mut Reserved,
) -> Result<TcpStream, UpstreamError> {
    let mut why = UpstreamError::Connect("it has no address".to_owned());
    let share = CONNECT / u32::try_from(target.addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in target.addresses.iter().filter_map(|text| text.parse().ok()) {
        let address = SocketAddr::new(address, target.port);
        if own.iter().any(|own| is_ours(address, *own)) {
            why = UpstreamError::Own;
            continue;
        }
        let connecting = async { from.socket(address.is_ipv4())?.connect(address).await };
        match tokio::time::timeout(share, connecting).await {
            Ok(Ok(stream)) => {
                // A small answer does not wait for a larger one.
                stream
                    .set_nodelay(true)
                    .map_err(|e| UpstreamError::Connect(e.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(error)) => why = UpstreamError::Connect(error.to_string()),
            Err(_) => why = UpstreamError::Timeout,
        }
    }
    Err(why)
}

/// Would a connection to this address come to a listener of ours?
fn is_ours(address: SocketAddr, own: SocketAddr) -> bool {
    // A listener at every address is met at each that this machine has; only those can be bound.
    let local = || std::net::UdpSocket::bind((address.ip(), 0)).is_ok();
    address.port() == own.port()
        && (address.ip().to_canonical() == own.ip().to_canonical()
            || (own.ip().is_unspecified() && local()))
}

/// A login to a target.
///
/// The library reads it in one loop, which waits for whoever does not take a channel's messages. So a
/// client that takes nothing holds up every other channel of the login.
pub(crate) struct Upstream {
    handle: Handle<Pinned>,
    /// Channels whose client takes nothing.
    stalled: AtomicUsize,
    /// The target opened no further channel, and none has ended since.
    full: AtomicBool,
}

/// A channel whose client takes nothing, as long as it lives.
struct Stalled<'a>(&'a AtomicUsize);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    pub(crate) async fn connect(
        connection: &Arc<Connection>,
        session: &Arc<Session>,
        pty: bool,
    ) -> Result<Self, UpstreamError> {
        tokio::time::timeout(CONNECT, Self::log_in(connection, session, pty))
            .await
            .map_err(|_| UpstreamError::Timeout)?
    }

    async fn log_in(
        connection: &Arc<Connection>,
        session: &Arc<Session>,
        pty: bool,
    ) -> Result<Self, UpstreamError> {
        let view = &session.view;
        let key = std::borrow::Cow::Borrowed(
            &[
                Algorithm::Ed25519,
                Algorithm::Ecdsa {
                    curve: EcdsaCurve::NistP256,
                },
            ][..],
        );
        let config = Config {
            preferred: Preferred {
                key,
                cipher: std::borrow::Cow::Borrowed(CIPHERS),
                ..Preferred::DEFAULT
            },
            inactivity_timeout: None,
            keepalive_interval: Some(Duration::from_secs(30)),
            channel_buffer_size: 8,
            nodelay: true,
            ..Config::default()
        };
        // As it is registered now: what an administrator replaced is not reached any more.
        let target = &connection.shared.common.recorder.target(&view.target.name);
        let target = target.as_ref().ok_or(UpstreamError::Ended)?;
        let (incoming, mut backs) = mpsc::channel(INCOMING);
        let pinned = Pinned {
            keys: target.host_keys.clone(),
            incoming,
        };
        let stream = dial(target, &connection.shared.config.own).await?;
        // A target that takes nothing would hold the library, and all that waits for it, for ever.
        let switch = connection.target_switch();
        let stream = Guarded::new(stream, &switch);
        let mut handle = connect_stream(Arc::new(config), stream, pinned).await?;
        let result = match &connection.shared.config.upstream {
            UpstreamAuth::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
                handle.authenticate_publickey(&view.account, key).await?
            }
            UpstreamAuth::UserCa(ca) => {
                let (key, certificate) = certificate(connection, session, pty, ca)?;
                handle
                    .authenticate_openssh_cert(&view.account, Arc::new(key), certificate)
                    .await?
            }
        };
        if matches!(result, AuthResult::Success) {
            switch.log_in();
            let (connection, session) = (Arc::clone(connection), Arc::clone(session));
            let places = Arc::new(Semaphore::new(INCOMING));
            let mut seen = 0u32;
            connection.tasks.clone().spawn(async move {
                loop {
                    let incoming = tokio::select! {
                        incoming = backs.recv() => incoming,
                        () = connection.over.cancelled() => return,
                    };
                    let Some(incoming) = incoming else { return };
                    seen = seen.saturating_add(1);
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        continue;
                    };
                    if seen > MAX_BACKS {
                        continue;
                    }
                    let back =
                        Arc::clone(&connection).forward_back(Arc::clone(&session), *incoming);
                    connection.tasks.spawn(async move {
                        back.await;
                        drop(place);
                    });
                }
            });
            Ok(Self {
                handle,
                stalled: AtomicUsize::new(0),
                full: AtomicBool::new(false),
            })
        } else {
            Err(UpstreamError::Login)
        }
    }

    /// Has the target stop listening. Says whether it did.
    pub(crate) async fn cancel(&self, way: Way) -> bool {
        let stopped = match way {
            Way::ListenPort(address, port) => self.handle.cancel_tcpip_forward(address, port).await,
            Way::ListenSocket(path) => self.handle.cancel_streamlocal_forward(path).await,
            Way::Tcp(..) | Way::Socket(_) => return false,
        };
        stopped.is_ok()
    }

    /// Waits until a client has taken something.
    pub(crate) async fn taken<T>(&self, taking: impl Future<Output = T>) -> T {
        tokio::pin!(taking);
        tokio::select! {
            biased;
            taken = &mut taking => return taken,
            () = tokio::time::sleep(STALLED) => {}
        }
        self.stalled.fetch_add(1, Ordering::Relaxed);
        let _stalled = Stalled(&self.stalled);
        taking.await
    }

    /// Is another login better for what begins now? A client holds this one up, or the target opens no
    /// more channels in it (`MaxSessions`).
    pub(crate) fn is_spent(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0 || self.full.load(Ordering::Relaxed)
    }

    pub(crate) async fn channel(&self) -> Result<Channel<Msg>, russh::Error> {
        let opened = self.handle.channel_open_session().await;
        if matches!(opened, Err(russh::Error::ChannelOpenFailure(_))) {
            self.full.store(true, Ordering::Relaxed);
        }
        opened
    }

    /// A channel has ended, so there is room for another.
    pub(crate) fn freed(&self) {
        self.full.store(false, Ordering::Relaxed);
    }
}

/// A certificate for one login: it names session and person, lives no longer than the grant, and
/// allows a terminal only where one was asked for.
fn certificate(
    connection: &Connection,
    session: &Session,
    pty: bool,
    ca: &PrivateKey,
) -> Result<(PrivateKey, russh::keys::Certificate), UpstreamError> {
    let wrong = |e: russh::keys::ssh_key::Error| UpstreamError::Certificate(e.to_string());
    let recorder = &connection.shared.common.recorder;
    let Standing::Until(until) = recorder.standing(session.id) else {
        return Err(UpstreamError::Ended);
    };
    let view = &session.view;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&connection.common.random()));
    let now = recorder.now().millis().unsigned_abs() / 1000;
    let nonce: [u8; 32] = connection.random();
    let public = key.public_key().key_data().clone();
    let until = until.millis().unsigned_abs().div_ceil(1000);
    let end = until.min(now.saturating_add(CERTIFICATE_SECONDS));
    let mut builder = Builder::new(nonce, public, now.saturating_sub(60), end).map_err(wrong)?;
    builder.serial(0).map_err(wrong)?;
    builder.cert_type(CertType::User).map_err(wrong)?;
    let mut key_id = format!("ascribe session={} person={}", session.id, view.person);
    if let Some(delegation) = connection.delegation() {
        key_id.push_str(&format!(" delegation={delegation}"));
    }
    builder.key_id(key_id).map_err(wrong)?;
    builder
        .valid_principal(view.account.clone())
        .map_err(wrong)?;
    for extension in extensions(&view.forwards, pty) {
        builder.extension(extension, "").map_err(wrong)?;
    }
    let certificate = builder.sign(ca).map_err(wrong)?;
    Ok((key, certificate))
}

/// What the certificate lets the target give, in order: as much as the grant does.
fn extensions(forwards: &[Forward], pty: bool) -> Vec<&'static str> {
    let any = |wanted: fn(&Forward) -> bool| forwards.iter().any(wanted);
    let x11 = any(|f| matches!(f, Forward::X11(_)));
    let agent = any(|f| matches!(f, Forward::Agent(_)));
    let ports = any(|f| !matches!(f, Forward::X11(_) | Forward::Agent(_)));
    [
        (x11, "permit-X11-forwarding"),
        (agent, "permit-agent-forwarding"),
        (ports, "permit-port-forwarding"),
        (pty, "permit-pty"),
    ]
    .into_iter()
    .filter_map(|(wanted, name)| wanted.then_some(name))
    .collect()
}

/// What a forwarding asks of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// To connect to an address and port.
    Tcp(String, u32),
    /// To connect to a socket.
    Socket(String),
    /// To listen at a port.
    ListenPort(String, u32),
    /// To listen at a socket.
    ListenSocket(String),
}

/// What came of it.
pub(crate) enum Opened {
    /// A connection.
    Channel(Channel<Msg>),
    /// It listens, at this port.
    Listening(u32),
}

/// The one function that asks a target to forward. It takes the recorded action by value.
pub(crate) async fn open(
    recorded: Recorded,
    upstream: &Upstream,
    way: Way,
) -> Result<Opened, russh::Error> {
    let Action { .. } = recorded.into_action();
    let handle = &upstream.handle;
    Ok(match way {
        Way::Tcp(address, port) => {
            // The target learns nothing of where its client is.
            let channel = handle.channel_open_direct_tcpip(address, port, "127.0.0.1", 0);
            Opened::Channel(channel.await?)
        }
        Way::Socket(path) => Opened::Channel(handle.channel_open_direct_streamlocal(path).await?),
        Way::ListenPort(address, port) => {
            let chosen = handle.tcpip_forward(address, port).await?;
            Opened::Listening(if port == 0 { chosen } else { port })
        }
        Way::ListenSocket(path) => {
            handle.streamlocal_forward(path).await?;
            Opened::Listening(0)
        }
    })
}

/// What became of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Yes,
    /// The target gives no terminal, so the action itself was not sent.
    NoTerminal,
    /// The target is gone.
    Broken,
}

/// The one function that sends an action to a target. It takes the recorded action by value; what
/// was not recorded cannot be given to it.
pub(crate) async fn forward(
    recorded: Recorded,
    answers: &mut russh::ChannelReadHalf,
    channel: &russh::ChannelWriteHalf<Msg>,
    screen: &Screen,
    loans: &Loans,
) -> Sent {
    let action = recorded.into_action();
    for (name, value) in &action.env {
        if channel
            .set_env(false, name.as_str(), value.as_str())
            .await
            .is_err()
        {
            return Sent::Broken;
        }
    }
    if let Some(pty) = &action.pty {
        let (width, height) = screen.pixels;
        let modes = &screen.modes;
        let asked = channel
            .request_pty(true, &pty.term, pty.cols, pty.rows, width, height, modes)
            .await;
        if asked.is_err() {
            return Sent::Broken;
        }
        // Without a terminal the same input would run unseen: what was recorded is not this.
        loop {
            match answers.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) => return Sent::NoTerminal,
                Some(ChannelMsg::Close) | None => return Sent::Broken,
                Some(_) => {}
            }
        }
    }
    // A target that does not take a loan goes on without.
    if loans.agent && channel.agent_forward(false).await.is_err() {
        return Sent::Broken;
    }
    if let Some(x11) = &loans.x11 {
        let (protocol, cookie) = (x11.protocol.as_str(), x11.cookie.as_str());
        let asked = channel.request_x11(false, x11.single, protocol, cookie, x11.screen);
        if asked.await.is_err() {
            return Sent::Broken;
        }
    }
    let written = match (action.kind, action.command) {
        ("ssh.shell", _) => channel.request_shell(true).await,
        ("ssh.sftp", None) => channel.request_subsystem(true, "sftp").await,
        (_, Some(command)) => channel.exec(true, command).await,
        (_, None) => return Sent::Broken,
    };
    if written.is_ok() {
        Sent::Yes
    } else {
        Sent::Broken
    }
}

/// The side that takes bytes of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    Client(
        &'a russh::ChannelWriteHalf<russh::server::Msg>,
        &'a Upstream,
    ),
    Target(&'a russh::ChannelWriteHalf<Msg>),
}

impl To<'_> {
    pub(crate) async fn send(self, bytes: Bytes) -> Result<(), russh::Error> {
        match self {
            Self::Client(channel, from) => from.taken(channel.data_bytes(bytes)).await,
            Self::Target(channel) => channel.data_bytes(bytes).await,
        }
    }
}

/// The one function that hands on an operation on files, within an action that was sent. It takes
/// the recorded operation by value. An operation of a file that the target sends goes on to the
/// client: without the client's answer the target does not go on with it.
pub(crate) async fn forward_operation(recorded: Recorded, packet: Bytes, to: To<'_>) -> Sent {
    drop(recorded.into_action());
    match to.send(packet).await {
        Ok(()) => Sent::Yes,
        Err(_) => Sent::Broken,
    }
}
