//! `ascribe token`, `ascribe tunnel` and `ascribe psql`: sessions on databases that the actor signed for,
//! with clients as they are.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use ascribe_core::encoding::base64url;
use ascribe_core::id::ContentDigest;
use ascribe_core::statement::{Connect, Say, Signed};
use ascribe_gateway::PASSWORD_PREFIX;
use ascribe_wire::pg::encode::error_response;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::startup::{First, StartupError, UserName, first, user_name};
use bytes::BytesMut;
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::serve::{Signals, runtime};
use super::{remark, say, say_json};
use crate::api::{Call, MAX_ANSWER, Reply};
use crate::cli::{Cli, database};
use crate::client::Client;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// Most connections through one tunnel at once.
const MAX_CONNECTIONS: usize = 256;

/// Longest request to cancel that is looked at, in bytes; its key has at most 256.
const MAX_CANCEL: usize = 512;
/// It is there at once, as its sender has gone.
const CANCEL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
/// Who is turned away gets this long to say what they want, and to take the answer.
const TURN_AWAY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// Somebody else's program gets less: it takes a place meanwhile.
const STRANGER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
/// Most bytes that are read of who is turned away: a request for each kind of encryption and a first packet.
const MAX_TURNED_AWAY: usize = 16 * 1024;

/// A client that was told to end gets so long for it: less than the ten seconds that some supervisors give.
const END_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(8);

/// A connection that neither end has closed, in the kernel's table.
const ESTABLISHED: &str = "01";

fn place(text: &str) -> Done<UserName> {
    user_name(text.as_bytes()).map_err(|error| {
        Failure::usage(format!("`{text}` is not ROLE@TARGET: {error}"))
            .help("for instance `dba@orders-db`")
    })
}

/// What opens a session here; `definition` is what a job runs.
pub(super) fn wish(user: &UserName, definition: Option<ContentDigest>) -> Connect {
    Connect {
        definition,
        target: user.target.clone(),
        account: user.role.clone(),
        grant: user.grant,
    }
}

/// Prints a signed statement in the form of a password.
pub(crate) fn token(cli: &Cli, args: &database::Token) -> Done {
    let user = place(&args.place)?;
    let client = cli.client(false)?;
    let (_, signed) = client.signed(&client.hello()?, Say::Connect(wish(&user, None)))?;
    let text = serde_json::to_vec(&signed).attempt("encode the statement")?;
    let password = format!("{PASSWORD_PREFIX}{}", base64url(&text));
    if cli.json() {
        return say_json(&json!({ "password": password, "user": args.place }));
    }
    say(&password);
    Ok(())
}

/// Lends connections on loopback until it is told to stop.
pub(crate) fn tunnel(cli: &Cli, args: &database::Tunnel) -> Done {
    let user = place(&args.place)?;
    let client = Arc::new(cli.client(false)?);
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let (listener, address) = listen(args.port).await?;
        let port = address.port();
        if cli.json() {
            say_json(&json!({ "host": "127.0.0.1", "port": port, "user": args.place }))?;
        } else {
            say(&format!(
                "postgresql://{}@127.0.0.1:{port}/DATABASE?sslmode=disable",
                args.place.replace('@', "%40").replace('+', "%2B")
            ));
            remark("the way from here to the gateway is encrypted; ends with Ctrl-C");
        }
        tokio::select! {
            done = lend(client, wish(&user, None), listener) => done,
            () = signals.wait() => Ok(()),
        }
    })
}

/// Runs psql on a tunnel of its own, and ends with it.
pub(crate) fn psql(cli: &Cli, args: &database::Psql) -> Done {
    let user = place(&args.place)?;
    let client = cli.client(false)?;
    let mut command = Command::new("psql");
    command.args(&args.arguments).env("PGUSER", &args.place);
    let status = run(client, wish(&user, None), command)?.map_err(|error| {
        Failure::usage(format!("psql cannot be run: {error}"))
            .help("install a PostgreSQL client, or use `ascribe tunnel` with another one")
    })?;
    // psql has said why. Its own code is what scripts look at.
    end_as(status)
}

/// Ends as the client did; where a signal ended it, with the code that shells have for that.
pub(super) fn end_as(status: ExitStatus) -> Done {
    if status.success() {
        return Ok(());
    }
    let signal = status.signal().map(|number| 128 + number);
    std::process::exit(status.code().or(signal).unwrap_or(1));
}

/// Runs a client of PostgreSQL's on a tunnel of its own, and ends with it. Who tells this program to end tells the client.
/// What is returned: how it ended, or why it could not be run.
pub(super) fn run(
    client: Client,
    wish: Connect,
    mut command: Command,
) -> Done<std::io::Result<ExitStatus>> {
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let (listener, address) = listen(0).await?;
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", address.port().to_string())
            // It is encrypted from this program on, which is as far as the client goes.
            .env("PGSSLMODE", "disable")
            .env("PGCHANNELBINDING", "disable")
            .env_remove("PGHOSTADDR")
            .env_remove("PGSERVICE");
        // Before it is there: what comes meanwhile waits.
        let signals = Passed::listen()?;
        let mut child = match tokio::process::Command::from(command).spawn() {
            Ok(child) => child,
            Err(error) => return Ok(Err(error)),
        };
        tokio::select! {
            status = signals.until_it_ends(&mut child) => status.attempt("run the client").map(Ok),
            done = lend(Arc::new(client), wish, listener) => {
                pass(&child, Signal::TERM);
                let status = soon(&mut child).await.attempt("run the client")?;
                tracing::debug!("the client ended with {status}");
                Err(done.err().unwrap_or_else(|| {
                    Failure::new(Kind::Failure, "the tunnel has ended")
                }))
            }
        }
    });
    // Somebody may be asked for a signature yet, for a connection that nobody waits for.
    runtime.shutdown_background();
    done
}

/// Signals that are for the client as well. Those that were ignored when this program began stay ignored, by it and by
/// the client: `nohup`.
struct Passed {
    term: tokio::signal::unix::Signal,
    int: Option<tokio::signal::unix::Signal>,
    hup: Option<tokio::signal::unix::Signal>,
}

impl Passed {
    fn listen() -> Done<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let listen = |kind| signal(kind).attempt("wait for signals");
        let unless_ignored = |kind: SignalKind| match is_ignored(&status, kind) {
            true => Ok(None),
            false => listen(kind).map(Some),
        };
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: unless_ignored(SignalKind::interrupt())?,
            hup: unless_ignored(SignalKind::hangup())?,
        })
    }

    /// Waits for the client's end. It is told to end when we are, and has some time for it; what Ctrl-C means it
    /// decides.
    async fn until_it_ends(mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        loop {
            let signal = tokio::select! {
                status = child.wait() => return status,
                _ = self.term.recv() => Signal::TERM,
                () = heard(&mut self.hup) => Signal::HUP,
                () = heard(&mut self.int) => Signal::INT,
            };
            if signal != Signal::INT {
                pass(child, signal);
                return soon(child).await;
            }
            // From the terminal it comes to all of its group.
            if !is_in_the_foreground() {
                pass(child, signal);
            }
        }
    }
}

/// Waits for a signal that may be ignored.
async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Is this signal ignored (proc(5), `/proc/PID/status`)? Where there is no such file, it is not.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (kind.as_raw_value() - 1)) & 1 == 1)
}

/// Does what is typed at the terminal come to this process and its children?
fn is_in_the_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let group = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    group == Some(rustix::process::getpgrp())
}

/// Sends a signal on. As long as nobody waited for its end, the process is there.
fn pass(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(id, signal).unwrap_or_default();
    }
}

/// Waits for a client that was told to end, and ends it where it does not.
async fn soon(child: &mut Child) -> std::io::Result<ExitStatus> {
    match tokio::time::timeout(END_TIMEOUT, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

async fn listen(port: u16) -> Done<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| Failure::usage(format!("cannot listen at 127.0.0.1:{port}: {error}")))?;
    let address = listener.local_addr().attempt("listen")?;
    Ok((listener, address))
}

/// Takes this user's programs through to the gateway, each with an opening of its own.
async fn lend(client: Arc<Client>, wish: Connect, listener: TcpListener) -> Done {
    let (wish, tasks) = (Arc::new(wish), TaskTracker::new());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually too many open files: it passes when connections end.
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        if tasks.len() >= MAX_CONNECTIONS {
            tracing::warn!("more than {MAX_CONNECTIONS} connections at once are not taken");
            continue;
        }
        let local = listener.local_addr().attempt("listen")?;
        let mine = is_mine(peer, local);
        let (client, wish) = (Arc::clone(&client), Arc::clone(&wish));
        tasks.spawn(async move {
            if !mine && !cancels(&socket).await {
                tracing::warn!("{peer} was turned away: it is not known to be a program of yours");
                let why = "this tunnel takes programs of the user who runs it";
                let hint = "run one of your own: ascribe tunnel ROLE@TARGET";
                return turn_away(socket, &fatal(why, hint), STRANGER_TIMEOUT).await;
            }
            if let Err(error) = carry(&client, &wish, socket).await {
                tracing::warn!("{error}");
            }
        });
    }
}

/// A way to the gateway.
pub(super) type Way = tokio_rustls::client::TlsStream<TcpStream>;

/// Signs an opening and goes to the gateway with it.
pub(super) async fn open(client: &Arc<Client>, wish: &Arc<Connect>) -> Done<Way> {
    let (signer, wish) = (Arc::clone(client), Arc::clone(wish));
    let opened = tokio::task::spawn_blocking(move || {
        let hello = signer.hello()?;
        signer.signed(&hello, Say::Connect(Connect::clone(&wish)))
    });
    let (_, signed) = opened.await.attempt("sign the opening")??;
    reach(client, signed).await
}

/// Why somebody is turned away, as they are told.
fn fatal(message: &str, hint: &str) -> Report {
    let text = |text: &str| text.replace('\0', " ").into();
    Report {
        severity: "FATAL".into(),
        code: "28000".into(),
        message: text(message),
        detail: None,
        hint: (!hint.is_empty()).then(|| text(hint)),
    }
}

/// Says why, where clients show it: not in the place of an answer to a request for encryption, but to the first packet.
async fn turn_away(mut socket: TcpStream, report: &Report, limit: std::time::Duration) {
    match tokio::time::timeout(limit, say_no(&mut socket, report)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a program left before it was told why: {error}"),
        Err(_) => tracing::debug!("a program did not say what it wants"),
    }
}

async fn say_no(socket: &mut TcpStream, report: &Report) -> std::io::Result<()> {
    let (mut said, mut heard) = (BytesMut::new(), 0);
    loop {
        match first(&mut said) {
            Ok(Some(First::SslRequest | First::GssEncRequest)) => socket.write_all(b"N").await?,
            // Nobody waits for what becomes of a request to cancel.
            Ok(Some(First::Cancel(_) | First::DirectTls))
            | Err(StartupError::Cancel(_) | StartupError::Length(_)) => return Ok(()),
            Ok(Some(First::Startup(_))) | Err(_) => break,
            Ok(None) => {
                let count = socket.read_buf(&mut said).await?;
                heard += count;
                if count == 0 || heard > MAX_TURNED_AWAY {
                    return Ok(());
                }
            }
        }
    }
    socket.write_all(&error_response(report)).await?;
    socket.shutdown().await
}

async fn carry(client: &Arc<Client>, wish: &Arc<Connect>, mut socket: TcpStream) -> Done {
    socket.set_nodelay(true).attempt("set up the connection")?;
    let mut gateway = match open(client, wish).await {
        Ok(gateway) => gateway,
        Err(error) => {
            let report = fatal(&error.to_string(), "");
            turn_away(socket, &report, TURN_AWAY_TIMEOUT).await;
            return Err(error);
        }
    };
    // Either end may leave first, and says so to the other.
    match copy_bidirectional(&mut socket, &mut gateway).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!("a connection broke: {error}");
            Ok(())
        }
    }
}

/// A connection to the gateway, within the API's TLS.
async fn reach(client: &Client, signed: Signed) -> Done<Way> {
    let tcp = TcpStream::connect(client.address()).await;
    let tcp = tcp.attempt("reach the gateway")?;
    tcp.set_nodelay(true).attempt("set up the connection")?;
    let name = ServerName::try_from("ascribe").attempt("set up TLS")?;
    let connector = TlsConnector::from(client.tls()?);
    let mut stream = connector
        .connect(name, tcp)
        .await
        .attempt("talk to the gateway")?;
    let body = serde_json::to_vec(&Call::Tunnel { signed }).attempt("encode the call")?;
    let length = u32::try_from(body.len()).attempt("encode the call")?;
    let talk = "talk to the gateway";
    stream.write_u32(length).await.attempt(talk)?;
    stream.write_all(&body).await.attempt(talk)?;
    stream.flush().await.attempt(talk)?;
    let length = stream.read_u32().await.attempt(talk)? as usize;
    if length > MAX_ANSWER {
        return Err(Failure::new(
            Kind::Failure,
            "the server's answer is too large",
        ));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.attempt(talk)?;
    let reply: Reply = serde_json::from_slice(&answer).attempt("read the server's answer")?;
    reply.ok()?;
    Ok(stream)
}

/// Is all that it says a request to cancel? Some drivers close their end with it, and then nobody can tell whose it
/// was. It carries the key of what it cancels, and nothing goes back.
async fn cancels(socket: &TcpStream) -> bool {
    let mut said = [0; MAX_CANCEL];
    match tokio::time::timeout(CANCEL_TIMEOUT, socket.peek(&mut said)).await {
        Ok(Ok(count)) => {
            let mut said = BytesMut::from(said.get(..count).unwrap_or_default());
            matches!(first(&mut said), Ok(Some(First::Cancel(_)))) && said.is_empty()
        }
        _ => false,
    }
}

/// Does the other end of a loopback connection belong to this user? The kernel's table says it; other
/// systems have none, and nobody is let in there.
fn is_mine(peer: SocketAddr, local: SocketAddr) -> bool {
    // Some programs' sockets are of IPv6 wherever they connect to.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|name| {
        let table = std::fs::read_to_string(name).unwrap_or_default();
        owner(&table, peer, local) == Some(rustix::process::getuid().as_raw())
    })
}

/// Who owns the socket at `here` that is connected to `there` (proc(5), `/proc/net/tcp` and `tcp6`).
fn owner(table: &str, here: SocketAddr, there: SocketAddr) -> Option<u32> {
    let wanted = (written(here)?, written(there)?);
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let same = is_written(words.next()?, &wanted.0) && is_written(words.next()?, &wanted.1);
        // What its program has closed already is said to be root's.
        let open = words.next()? == ESTABLISHED;
        // Queues, timer, retransmissions; then the user.
        (same && open).then(|| words.nth(3)?.parse().ok()).flatten()
    })
}

/// Is it this address, be it in the form that IPv6 has for those of IPv4?
fn is_written(found: &str, wanted: &str) -> bool {
    let mapped = format!(
        "0000000000000000{:08X}",
        u32::from_ne_bytes([0, 0, 0xff, 0xff])
    );
    found.strip_prefix(&mapped).unwrap_or(found) == wanted
}

/// An address as that table has it: in the machine's byte order.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(v4) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(v4.ip().octets());
    Some(format!("{ip:08X}:{:04X}", v4.port()))
}

#[cfg(test)]
mod tests {
    use ascribe_wire::pg::startup::{cancel_request, startup_message};

    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_found_by_both_ends() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 1 1\n\
             1: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000 0 1 1\n\
             2: 0100007F:C002 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  1001 0 1 1\n\
             3: 0100007F:C003 0100007F:1F91 05 00000000:00000000 00:00000000 00000000  0 0 0 1\n";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(table, at(0xc001), at(0x1f90)), Some(1000));
        assert_eq!(owner(table, at(0xc002), at(0x1f90)), None);
        assert_eq!(owner(table, at(0xc002), at(0x1f91)), Some(1001));
        // It was anybody's, and is closed.
        assert_eq!(owner(table, at(0xc003), at(0x1f91)), None);
        assert_eq!(owner("", at(1), at(2)), None);
        #[cfg(target_endian = "little")]
        {
            let table = "head\n 0: 0000000000000000FFFF00000100007F:C001 \
                 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0 1000 0 1 1\n";
            assert_eq!(owner(table, at(0xc001), at(0x1f90)), Some(1000));
            assert_eq!(owner(table, at(0xc001), at(0x1f91)), None);
        }
    }

    /// As libpq asks: for encryption of either kind, then for a session. The reason is where it shows it.
    #[tokio::test]
    async fn who_is_turned_away_is_told_why_behind_the_first_packet() {
        let ask = |code: u32| [&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat();
        let begin = startup_message(0, [(&b"user"[..], &b"dba@orders-db"[..])]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let report = fatal("the gateway is away\0", "wait");
        let limit = std::time::Duration::from_secs(60);
        // What it asks for, and how often that is refused.
        for (asked, refused) in [(&[80_877_104, 80_877_103][..], 2), (&[], 0)] {
            let program = async {
                let mut socket = TcpStream::connect(place).await.unwrap();
                for code in asked {
                    socket.write_all(&ask(*code)).await.unwrap();
                }
                let mut answers = vec![0; refused];
                socket.read_exact(&mut answers).await.unwrap();
                assert_eq!(answers, vec![b'N'; refused]);
                socket.write_all(&begin).await.unwrap();
                let mut said = Vec::new();
                socket.read_to_end(&mut said).await.unwrap();
                said
            };
            let tunnel = async {
                let (socket, _) = listener.accept().await.unwrap();
                turn_away(socket, &report, limit).await;
            };
            let (said, ()) = tokio::join!(program, tunnel);
            assert_eq!(said, &error_response(&report)[..]);
            let text = String::from_utf8_lossy(&said);
            assert!(text.contains("the gateway is away \0"), "{text:?}");
        }
        // Who says nothing is not waited for, and who cancels is told nothing.
        let cancel = cancel_request(7, &[1, 2, 3, 4]);
        for (said, limit) in [
            (&[][..], std::time::Duration::from_millis(10)),
            (&cancel[..], limit),
        ] {
            let mut near = TcpStream::connect(place).await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            near.write_all(said).await.unwrap();
            turn_away(socket, &report, limit).await;
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.unwrap();
            assert!(heard.is_empty(), "{heard:?}");
        }
    }

    #[test]
    fn a_connection_of_this_program_is_mine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_far, peer) = listener.accept().unwrap();
        assert_eq!(near.local_addr().unwrap(), peer);
        assert!(is_mine(peer, listener.local_addr().unwrap()));
    }
}
