//! The doors: from a connection's first byte to somebody who may ask for a session.

use std::net::SocketAddr;
use std::sync::Arc;

use ascribe_core::entry::Door;
use ascribe_core::id::GrantId;
use ascribe_core::statement::Signed;
use ascribe_wire::pg::encode;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::startup::{
    Cancel, First, NEWEST, Startup, StartupError, UserName, UserNameError, first, user_name,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificate::Asking;
use super::login::{self, Within, submit};
use super::session::{self, Entrant, Guest};
use super::{Io, PgArrival, Shared};

/// The protocol's name in TLS (PostgreSQL's documentation, "Direct SSL").
const ALPN: &[u8] = b"postgresql";
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// A read's size, in bytes, before the login.
pub(super) const PIECE: usize = 4096;

/// A connection to be served.
pub(super) enum Came {
    Plain(TcpStream, SocketAddr),
    Signed(PgArrival),
}

/// Serves one connection until it ends.
pub(super) async fn enter(shared: Arc<Shared>, came: Came) {
    let limit = shared.config.pre_auth_timeout;
    let stop = shared.common.stop.clone();
    let entered = tokio::select! {
        entered = tokio::time::timeout(limit, knock(&shared, came)) => entered,
        () = stop.cancelled() => return,
    };
    match entered {
        Ok(Ok(Entered::Guest(guest))) => session::run(shared, *guest).await,
        Ok(Ok(Entered::Cancel(cancel, mut stream))) => {
            shared.cancels.ask(&shared, &cancel).await;
            // The client waits for it: what it runs next is not what was to be cancelled.
            if let Err(error) = stream.shutdown().await {
                tracing::debug!("who cancelled did not wait: {error}");
            }
        }
        Ok(Ok(Entered::Nobody)) => {}
        Ok(Err(error)) => tracing::debug!("a connection ended before its login: {error}"),
        Err(_) => tracing::debug!("a client took too long to log in"),
    }
}

pub(super) enum Entered {
    Guest(Box<Guest>),
    Cancel(Cancel, Box<dyn Io>),
    Nobody,
}

/// A client at the door.
pub(super) struct Client {
    pub(super) stream: Box<dyn Io>,
    pub(super) read: BytesMut,
    peer: SocketAddr,
}

/// Why somebody is turned away, as they are told.
pub(super) fn fatal(code: &'static str, message: impl Into<String>, hint: &str) -> Report {
    Report {
        severity: Bytes::from_static(b"FATAL"),
        code: Bytes::from_static(code.as_bytes()),
        message: told(message.into()),
        detail: None,
        hint: (!hint.is_empty()).then(|| told(hint.to_owned())),
    }
}

/// A text as the protocol carries it: a zero byte would end it.
pub(super) fn told(text: String) -> Bytes {
    Bytes::from(text.replace('\0', " "))
}

async fn knock(shared: &Arc<Shared>, came: Came) -> std::io::Result<Entered> {
    match came {
        Came::Plain(socket, peer) => plain(shared, socket, peer).await,
        Came::Signed(PgArrival {
            stream,
            peer,
            signed,
        }) => {
            let read = BytesMut::new();
            let client = Client { stream, read, peer };
            arrived(shared, client, signed).await
        }
    }
}

/// At the gateway's own port. Everything but the asking for TLS is within TLS.
async fn plain(
    shared: &Arc<Shared>,
    mut socket: TcpStream,
    peer: SocketAddr,
) -> std::io::Result<Entered> {
    socket.set_nodelay(true)?;
    let mut byte = [0; 1];
    let mut read = BytesMut::new();
    loop {
        if read.is_empty() {
            let _: usize = socket.peek(&mut byte).await?;
            if byte == [TLS_HANDSHAKE] {
                return within_tls(shared, socket, peer, true).await;
            }
        }
        let Some(packet) = packet(&mut socket, &mut read).await? else {
            return Ok(Entered::Nobody);
        };
        match packet {
            First::SslRequest if read.is_empty() => {
                socket.write_all(b"S").await?;
                return within_tls(shared, socket, peer, false).await;
            }
            First::GssEncRequest if read.is_empty() => socket.write_all(b"N").await?,
            First::Cancel(cancel) => return Ok(Entered::Cancel(cancel, Box::new(socket))),
            First::Startup(_) => {
                let report = fatal(
                    "28000",
                    "this gateway is reached over TLS only",
                    "connect with sslmode=verify-full",
                );
                say_no(&mut socket, &report).await?;
                return Ok(Entered::Nobody);
            }
            // What came behind it in the clear would pass for what came within TLS.
            First::SslRequest | First::GssEncRequest | First::DirectTls => {
                let why = "data came behind the request for encryption, and not within it";
                say_no(&mut socket, &fatal("08P01", why, "")).await?;
                return Ok(Entered::Nobody);
            }
        }
    }
}

/// Says why, and that is all.
async fn say_no(stream: &mut (impl Io + ?Sized), report: &Report) -> std::io::Result<()> {
    stream.write_all(&encode::error_response(report)).await?;
    stream.shutdown().await
}

/// What is said to who begins with something else than a first packet of version 3. Lengths that cannot be are
/// another protocol's: it would make nothing of an answer. A request to cancel has none.
fn misunderstood(error: &StartupError) -> Option<Report> {
    let code = match error {
        StartupError::Version(..) => "0A000",
        StartupError::Malformed(_) => "08P01",
        StartupError::Length(_) | StartupError::Cancel(_) => return None,
    };
    Some(fatal(code, error.to_string(), ""))
}

/// The next packet of a connection's beginning; none when the connection ends. Who is not understood is told.
async fn packet(
    stream: &mut (impl Io + ?Sized),
    read: &mut BytesMut,
) -> std::io::Result<Option<First>> {
    loop {
        match first(read) {
            Err(error) => {
                if let Some(report) = misunderstood(&error) {
                    say_no(stream, &report).await?;
                }
                return Err(std::io::Error::other(error));
            }
            Ok(Some(packet)) => return Ok(Some(packet)),
            Ok(None) => {
                read.reserve(PIECE);
                if stream.read_buf(read).await? == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

async fn within_tls(
    shared: &Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    direct: bool,
) -> std::io::Result<Entered> {
    let Some(tls) = &shared.config.tls else {
        return Ok(Entered::Nobody);
    };
    let (tls, asking) = match shared.config.bearers.wants_certificates() {
        true => {
            let bearers = &shared.config.bearers;
            let (tls, asking) = Asking::of(tls, bearers).map_err(std::io::Error::other)?;
            (Arc::new(tls), Some(asking))
        }
        false => (Arc::clone(tls), None),
    };
    let stream = TlsAcceptor::from(tls).accept(socket).await?;
    let (_, tls) = stream.get_ref();
    let within = Within {
        named: tls.alpn_protocol() == Some(ALPN),
        certificate: asking.and_then(|asking| asking.shown(tls)),
    };
    // Without it another protocol's client could be led here (ALPACA).
    if direct && !within.named {
        return Ok(Entered::Nobody);
    }
    let mut client = Client {
        stream: Box::new(stream),
        read: BytesMut::new(),
        peer,
    };
    match packet(&mut *client.stream, &mut client.read).await? {
        Some(First::Startup(startup)) => login::log_in(shared, client, startup, within).await,
        Some(First::Cancel(cancel)) => Ok(Entered::Cancel(cancel, client.stream)),
        Some(First::SslRequest | First::GssEncRequest | First::DirectTls) | None => {
            Ok(Entered::Nobody)
        }
    }
}

impl Client {
    pub(super) async fn say(&mut self, bytes: &Bytes) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says why, and that is all.
    pub(super) async fn turn_away(mut self, report: &Report) -> std::io::Result<Entered> {
        say_no(&mut *self.stream, report).await?;
        Ok(Entered::Nobody)
    }

    /// What is spoken with this client: it is told where that is not what it asked for.
    pub(super) async fn negotiate(&mut self, startup: &Startup) -> std::io::Result<()> {
        match startup.negotiate(NEWEST) {
            Some(answer) => self.say(&answer).await,
            None => Ok(()),
        }
    }
}

/// The user name, or why there is none.
pub(super) fn user(startup: &Startup) -> Result<UserName, Box<Report>> {
    let hint = "the user name is ROLE@TARGET, or ROLE+GRANT@TARGET";
    let name = startup
        .user()
        .ok_or_else(|| Box::new(fatal("28000", "no user name was given", hint)))?;
    user_name(name).map_err(|error| {
        let hint = match error {
            // They say it themselves.
            UserNameError::Form | UserNameError::Secret => "",
            UserNameError::Character | UserNameError::Grant => hint,
        };
        Box::new(fatal("28000", error.to_string(), hint))
    })
}

/// Within the API's TLS.
async fn arrived(
    shared: &Arc<Shared>,
    mut client: Client,
    signed: Signed,
) -> std::io::Result<Entered> {
    let startup = loop {
        match packet(&mut *client.stream, &mut client.read).await? {
            Some(First::Startup(startup)) => break startup,
            Some(First::Cancel(cancel)) => return Ok(Entered::Cancel(cancel, client.stream)),
            // The way here is encrypted, and the client need not know.
            Some(First::SslRequest | First::GssEncRequest) if client.read.is_empty() => {
                client.say(&Bytes::from_static(b"N")).await?;
            }
            Some(_) | None => return Ok(Entered::Nobody),
        }
    };
    client.negotiate(&startup).await?;
    let user = match user(&startup) {
        Ok(user) => user,
        Err(report) => return client.turn_away(&report).await,
    };
    let (opening, signed) = match submit(shared, signed).await {
        Ok(opened) => opened,
        Err(why) => return client.turn_away(&why.report("28000")).await,
    };
    let entrant = Entrant::signed(opening, signed, Door::Tunnel);
    guest(client, startup, user, entrant).await
}

/// A user name as it is written.
fn place(role: &str, grant: Option<GrantId>, target: &str) -> String {
    let grant = grant.map_or_else(String::new, |grant| format!("+{grant}"));
    format!("{role}{grant}@{target}")
}

/// Somebody who is let in for exactly what they ask for here.
pub(super) async fn guest(
    client: Client,
    startup: Startup,
    user: UserName,
    entrant: Entrant,
) -> std::io::Result<Entered> {
    let connect = &entrant.connect;
    let same = connect.target == user.target
        && connect.account == user.role
        && (user.grant.is_none() || connect.grant == user.grant);
    if !same {
        let why = format!(
            "the opening was signed for {}, not for {}",
            place(&connect.account, connect.grant, &connect.target),
            place(&user.role, user.grant, &user.target)
        );
        return client.turn_away(&fatal("28000", why, "")).await;
    }
    Ok(Entered::Guest(Box::new(Guest {
        stream: client.stream,
        read: client.read,
        peer: client.peer,
        startup,
        entrant,
    })))
}
