//! The target's side: how the gateway proves itself, and what a target may not do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ascribe_core::entry::{Body, CloseReason, Status};
use russh::keys::{Certificate, HashAlg, PrivateKey};
use russh::server::{Auth, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Preferred, cipher, kex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::before_login::{first_packet, offers};
use super::people::OPERATOR;
use super::raw::{answer, leave, raw, rest};
use super::world::{Setup, World, free_port, until};

/// Prints what the target knows of the login: method, certificate type, certificate.
const SHOW: &str = "cat \"$SSH_USER_AUTH\"";

/// The certificate in what [`SHOW`] printed.
fn certificate(shown: &str) -> Certificate {
    let line = shown.lines().find(|l| l.starts_with("publickey "));
    let line = line.unwrap_or_else(|| panic!("no certificate in: {shown}"));
    Certificate::from_openssh(line.trim_start_matches("publickey ").trim()).unwrap()
}

/// What stock `ssh-keygen` reads in it.
fn read(w: &World, certificate: &Certificate) -> String {
    let file = w.path("shown-cert.pub");
    std::fs::write(&file, certificate.to_openssh().unwrap()).unwrap();
    let out = std::process::Command::new("ssh-keygen")
        .arg("-L")
        .arg("-f")
        .arg(file)
        .output()
        .unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_targets_own_log_names_session_and_person() {
    let w = World::new().await;
    w.ssh(&[], "true", b"").await.exits(0);
    let session = w.closed(0).await.session;
    let ca = PrivateKey::read_openssh_file(w.path("ca")).unwrap();
    let id = format!(
        "ID ascribe session={session} person={OPERATOR} (serial 0) CA ED25519 {}",
        ca.fingerprint(HashAlg::Sha256)
    );
    let log = w.sshd_log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.starts_with("Accepted publickey for") && l.contains(&id))
        .collect();
    assert_eq!(lines.len(), 1, "{id} in {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_terminals_certificate_permits_a_terminal() {
    let w = World::new().await;
    let path = format!("ControlPath={}", w.path("mux").display());
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=30",
        "-o",
        &path,
    ];
    let plain = w.ssh(&master, SHOW, b"").await.exits(0).text();
    let again = w.ssh(&master, SHOW, b"").await.exits(0).text();
    let terminal = [&master[..], &["-tt"]].concat();
    let terminal = w.ssh(&terminal, SHOW, b"").await.exits(0).text();
    assert_eq!(plain, again, "one login serves all commands");
    let listed = |shown: &str| read(&w, &certificate(shown));
    let plain = listed(&plain);
    assert!(plain.contains("Extensions: (none)"), "{plain}");
    let terminal = listed(&terminal);
    let extensions = terminal.split("Extensions:").nth(1).unwrap();
    assert_eq!(
        extensions.split_whitespace().collect::<Vec<_>>(),
        ["permit-pty"]
    );
    for shown in [&plain, &terminal] {
        let principals = shown.split("Principals:").nth(1).unwrap();
        let principal = principals.split_whitespace().next().unwrap();
        assert_eq!(principal, w.account);
        assert!(shown.contains("Critical Options: (none)"), "{shown}");
    }
    w.ssh(&["-o", &path, "-O", "exit"], "", b"").await;
    // Two logins, one session.
    assert_eq!(w.closed(0).await.actions, 3);
    assert_eq!(w.sshd_log().matches("Accepted publickey for").count(), 2);
    assert_eq!(
        w.found(|b| matches!(b, Body::SessionOpen(_)).then_some(()))
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lives_five_minutes_or_until_the_grant_ends() {
    for (length, short) in [(1800, false), (60, true)] {
        let w = World::with(Setup {
            grant: Some(Duration::from_secs(length)),
            ..Setup::default()
        })
        .await;
        let shown = w.ssh(&[], SHOW, b"").await.exits(0).text();
        let certificate = certificate(&shown);
        let grant = w.grant.unwrap();
        let state = |at: fn(&ascribe_core::law::GrantState) -> i64| {
            w.door.ledger.with_state(|state| at(&state.grants[&grant]))
        };
        let end = u64::try_from(state(|g| g.grant.not_after.millis())).unwrap();
        let life = certificate.valid_before() - certificate.valid_after();
        assert!(life <= 360, "{life} s");
        assert_eq!(certificate.valid_before() == end.div_ceil(1000), short);
        assert!(certificate.valid_before() <= end.div_ceil(1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_refuses_a_certificate_that_has_expired() {
    let w = World::with(Setup {
        behind: Duration::from_secs(900),
        ..Setup::default()
    })
    .await;
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says("it does not let the gateway in");
    until("reason in the target's log", || {
        w.sshd_log()
            .contains("Certificate invalid: expired")
            .then_some(())
    })
    .await;
    assert_eq!(w.closed(0).await.reason, CloseReason::TargetFailed);
    let refusals = w.refusals();
    assert_eq!(
        (refusals[0].0.as_str(), refusals[0].1.as_str()),
        ("target", "unreachable")
    );
    assert!(
        w.found(|b| matches!(b, Body::Intent(_)).then_some(()))
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_than_the_pinned_one_is_refused() {
    let w = World::with(Setup {
        pinned: "gate",
        ..Setup::default()
    })
    .await;
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says("its host key is not the pinned one");
    assert_eq!(w.closed(0).await.reason, CloseReason::TargetFailed);
    assert!(!w.sshd_log().contains("Accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_target_gives_no_terminal_the_action_is_not_sent() {
    let w = World::with(Setup {
        sshd: "PermitTTY no".to_owned(),
        ..Setup::default()
    })
    .await;
    let marker = w.path("marker");
    let touch = format!("touch {}", marker.display());
    let out = w.ssh(&["-tt"], &touch, b"").await.exits(254);
    out.says("the target gives no terminal; the action was not sent");
    assert_eq!(w.closed(0).await.actions, 1);
    let outcome = w.outcomes().remove(0);
    assert_eq!((outcome.status, outcome.exit_code), (Status::NotSent, None));
    assert!(!marker.exists());
    w.ssh(&["-T"], &touch, b"").await.exits(0);
    assert!(marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_asked_for_strict_key_exchange() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let w = World::with(Setup {
        target_port: Some(listener.local_addr().unwrap().port()),
        ..Setup::default()
    })
    .await;
    let client = w.start(&[], "id");
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.write_all(b"SSH-2.0-reader\r\n").await.unwrap();
    let [kex, ciphers, _] = offers(&first_packet(&mut socket).await);
    assert!(kex.contains(&"kex-strict-c-v00@openssh.com".to_owned()));
    assert_eq!(ciphers[0], "aes256-gcm@openssh.com");
    drop(socket);
    client.end().await.exits(254).says("cannot reach");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_sound_cipher_is_reached_under_strict_key_exchange() {
    let w = World::with(Setup {
        sshd: "Ciphers chacha20-poly1305@openssh.com\nLogLevel DEBUG3".to_owned(),
        ..Setup::default()
    })
    .await;
    w.ssh(&[], "true", b"").await.exits(0);
    let log = w.sshd_log();
    assert!(log.contains("will use strict KEX ordering"), "{log}");
}

/// A server of our making: it lets everybody in, and opens channels that nobody asked for.
#[derive(Clone, Default)]
struct Forward {
    opened: Arc<Mutex<Vec<bool>>>,
}

impl Handler for Forward {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        _certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: russh::server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        let (handle, opened) = (session.handle(), Arc::clone(&self.opened));
        tokio::spawn(async move {
            let tcp = handle
                .channel_open_forwarded_tcpip("127.0.0.1", 1, "127.0.0.1", 2)
                .await;
            let socket = handle.channel_open_forwarded_streamlocal("/x").await;
            let x11 = handle.channel_open_x11("127.0.0.1", 1).await;
            let agent = handle.channel_open_agent().await;
            *opened.lock().unwrap() = vec![tcp.is_ok(), socket.is_ok(), x11.is_ok(), agent.is_ok()];
            handle.exit_status_request(channel, 0).await.ok();
            handle.close(channel).await.ok();
        });
        Ok(())
    }
}

/// A world before such a server.
async fn before(preferred: Preferred) -> (World, Forward, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let w = World::with(Setup {
        target_port: Some(listener.local_addr().unwrap().port()),
        ..Setup::default()
    })
    .await;
    let config = Arc::new(russh::server::Config {
        keys: vec![PrivateKey::read_openssh_file(w.path("host")).unwrap()],
        preferred,
        ..russh::server::Config::default()
    });
    let handler = Forward::default();
    let serving = handler.clone();
    let server = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let running = russh::server::run_stream(config.clone(), socket, serving.clone());
            if let Ok(session) = running.await {
                session.await.ok();
            }
        }
    });
    (w, handler, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_neither_strict_key_exchange_nor_a_sound_cipher_is_refused() {
    let old = Preferred {
        kex: vec![kex::CURVE25519].into(),
        cipher: vec![cipher::CHACHA20_POLY1305].into(),
        ..Preferred::DEFAULT
    };
    let (w, _, server) = before(old).await;
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says("neither strict key exchange nor AES-GCM (CVE-2023-48795)");
    assert_eq!(w.closed(0).await.reason, CloseReason::TargetFailed);
    server.abort();
    let sound = Preferred {
        kex: vec![kex::CURVE25519].into(),
        cipher: vec![cipher::AES_256_GCM].into(),
        ..Preferred::DEFAULT
    };
    let (w, _, server) = before(sound).await;
    w.ssh(&[], "id", b"").await.exits(0);
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_cannot_open_channels_towards_us() {
    let (w, target, server) = before(Preferred::DEFAULT).await;
    w.ssh(&[], "id", b"").await.exits(0);
    assert_eq!(*target.opened.lock().unwrap(), [false; 4]);
    server.abort();
}

/// A server of our making that ends a command at the first signal, and remembers what came before.
#[derive(Clone, Default)]
struct Terminal {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Terminal {
    fn sees(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }
}

impl Handler for Terminal {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        _certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: russh::server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sees(format!("{term} {cols}x{rows} {width}x{height} {modes:?}"));
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sees(String::from_utf8_lossy(command).into_owned());
        session.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        _channel: ChannelId,
        cols: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sees(format!("{cols}x{rows} {width}x{height}"));
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: russh::Sig,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sees(format!("{signal:?}"));
        session.exit_status_request(channel, 5)?;
        session.close(channel)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_and_a_signal_reach_the_target_as_the_client_sent_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let w = World::with(Setup {
        target_port: Some(listener.local_addr().unwrap().port()),
        ..Setup::default()
    })
    .await;
    let config = Arc::new(russh::server::Config {
        keys: vec![PrivateKey::read_openssh_file(w.path("host")).unwrap()],
        ..russh::server::Config::default()
    });
    let terminal = Terminal::default();
    let serving = terminal.clone();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(config, socket, serving);
        running.await.unwrap().await.ok();
    });
    let handle = raw(&w).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    let modes = [(russh::Pty::ECHO, 0), (russh::Pty::VINTR, 3)];
    channel
        .request_pty(true, "xterm", 80, 24, 640, 480, &modes)
        .await
        .unwrap();
    assert!(answer(&mut channel).await);
    channel.exec(true, "top").await.unwrap();
    assert!(answer(&mut channel).await);
    channel.window_change(100, 30, 800, 600).await.unwrap();
    channel.signal(russh::Sig::TERM).await.unwrap();
    assert_eq!(rest(&mut channel).await.0, Some(5));
    assert_eq!(
        terminal.seen.lock().unwrap()[..],
        [
            "xterm 80x24 640x480 [(ECHO, 0), (VINTR, 3)]",
            "top",
            "100x30 800x600",
            "TERM"
        ]
    );
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_silent_leaves_time_for_the_next_one() {
    let w = World::with(Setup {
        also_at: Some("127.0.0.2"),
        ..Setup::default()
    })
    .await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 2], w.sshd_port));
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind(address).unwrap();
    let _silent = listener.listen(1).unwrap();
    // Once nobody takes what has connected, the rest waits without an answer.
    let mut taken = Vec::new();
    let moment = std::time::Duration::from_millis(300);
    while let Ok(stream) =
        tokio::time::timeout(moment, tokio::net::TcpStream::connect(address)).await
    {
        taken.push(stream.unwrap());
        assert!(taken.len() < 100, "it always answers");
    }
    w.ssh(&[], "exit 3", b"").await.exits(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_the_gateway_itself_is_not_reached() {
    let own = free_port();
    // A server of ours listens there, at every address of this machine.
    for listener in [format!("127.0.0.1:{own}"), format!("0.0.0.0:{own}")] {
        let w = World::with(Setup {
            target_port: Some(own),
            own: vec![listener.parse().unwrap()],
            ..Setup::default()
        })
        .await;
        let listening = std::net::TcpListener::bind(&listener).unwrap();
        listening.set_nonblocking(true).unwrap();
        w.ssh(&[], "true", b"")
            .await
            .exits(254)
            .says("its address is the gateway itself");
        assert!(listening.accept().is_err(), "somebody connected");
    }
}
