//! Forwarding that a grant allows, by kind and destination, and nothing beside it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ascribe_core::entry::{Body, Outcome, Status};
use ascribe_core::statement::{Anywhere, Destination, Forward, Listen, SocketPath};

use super::world::{Setup, World, fed, free_port, until};

/// Answers every connection with what it is sent, in upper case.
struct Shouter {
    port: u16,
    met: Arc<AtomicUsize>,
}

fn shout(mut peer: impl std::io::Read + std::io::Write) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = peer.read(&mut bytes) {
        bytes[..n].make_ascii_uppercase();
        peer.write_all(&bytes[..n]).ok();
    }
}

impl Shouter {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let met = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&met);
        std::thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || shout(peer));
            }
        });
        Self { port, met }
    }
    fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

fn local(host: &str, port: u16, address: Option<&str>) -> Forward {
    Forward::Local(Destination {
        host: host.to_owned(),
        port,
        address: address.map(str::to_owned),
    })
}

async fn granted(forwards: Vec<Forward>) -> World {
    World::with(Setup {
        forwards,
        ..Setup::default()
    })
    .await
}

/// Kinds and texts of the actions so far.
fn actions(w: &World) -> Vec<(String, String)> {
    let of = |(index, entry): (u64, ascribe_core::entry::Entry)| match entry.body {
        Body::Intent(intent) => {
            let openings = w.door.ledger.openings(index).unwrap();
            let text = openings.into_iter().find(|o| o.field == "command");
            let text = text.map(|o| String::from_utf8(o.bytes.0).unwrap());
            Some((intent.kind, text.unwrap_or_default()))
        }
        _ => None,
    };
    (0u64..).zip(w.entries()).filter_map(of).collect()
}

async fn outcome(w: &World, nth: usize) -> Outcome {
    until("outcome", || w.outcomes().into_iter().nth(nth)).await
}

fn bytes(outcome: &Outcome) -> Vec<(&str, u64, u64)> {
    let streams = outcome.streams.iter();
    streams
        .map(|s| (s.stream.as_str(), s.bytes, s.stored))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_connection_is_an_action_with_destination_bytes_and_digest() {
    let shouter = Shouter::new();
    let w = granted(vec![local("127.0.0.1", shouter.port, None)]).await;
    let to = format!("127.0.0.1:{}", shouter.port);
    let out = w.ssh(&["-W", &to], "", b"hello there").await;
    assert_eq!(out.text(), "HELLO THERE", "{}", out.stderr);
    let action = ("ssh.forward.local".to_owned(), to);
    assert_eq!(actions(&w), [action]);
    let outcome = outcome(&w, 0).await;
    assert_eq!(outcome.status, Status::Succeeded);
    assert_eq!(bytes(&outcome), [("sent", 11, 0), ("received", 11, 0)]);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(b"hello there");
    assert_eq!(outcome.streams[0].sha256.0.0, <[u8; 32]>::from(digest));
    assert!(outcome.notes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_reached_at_the_address_that_was_approved() {
    let shouter = Shouter::new();
    // No resolver knows this name, so the target cannot have asked one.
    let name = "reports.internal.invalid";
    let w = granted(vec![local(name, shouter.port, Some("127.0.0.1"))]).await;
    let out = w
        .ssh(&["-W", &format!("{name}:{}", shouter.port)], "", b"a")
        .await;
    assert_eq!(out.text(), "A", "{}", out.stderr);
    let text = format!("{name}:{} at 127.0.0.1", shouter.port);
    assert_eq!(actions(&w), [("ssh.forward.local".to_owned(), text)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_destination_than_the_granted_one_is_never_reached() {
    let (granted_one, other) = (Shouter::new(), Shouter::new());
    let w = granted(vec![local("127.0.0.1", granted_one.port, None)]).await;
    for to in [
        format!("127.0.0.1:{}", other.port),
        format!("localhost:{}", other.port),
        format!("127.0.0.2:{}", granted_one.port),
        format!("[::ffff:127.0.0.1]:{}", granted_one.port),
    ] {
        let out = w.ssh(&["-W", &to], "", b"x").await;
        assert!(out.stdout.is_empty() && out.code != Some(0), "{to}");
        out.says("allows no forwarding");
    }
    let listen = format!("0:127.0.0.1:{}", other.port);
    w.ssh(
        &["-R", &listen, "-o", "ExitOnForwardFailure=yes"],
        "true",
        b"",
    )
    .await
    .exits(255);
    assert_eq!((granted_one.met(), other.met()), (0, 0));
    assert!(actions(&w).is_empty());
    let refused = || (w.refusals().len() == 5).then_some(());
    until("five refusals", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_before_the_grant_is_decided() {
    let shouter = Shouter::new();
    let w = World::with(Setup {
        grant: None,
        ..Setup::default()
    })
    .await;
    let to = format!("127.0.0.1:{}", shouter.port);
    let out = w.ssh(&["-W", &to], "", b"x").await;
    assert!(out.stdout.is_empty());
    out.says("you hold no grant");
    w.ssh(&["-R", "0:127.0.0.1:1", "-A"], "true", b"")
        .await
        .exits(254);
    assert_eq!(shouter.met(), 0);
    assert!(actions(&w).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamic_grant_reaches_anything_and_names_each() {
    let (one, two) = (Shouter::new(), Shouter::new());
    let w = granted(vec![Forward::Dynamic(Anywhere {})]).await;
    for shouter in [&one, &two] {
        let to = format!("127.0.0.1:{}", shouter.port);
        let out = w.ssh(&["-W", &to], "", b"q").await;
        assert_eq!(out.text(), "Q", "{}", out.stderr);
    }
    let kinds = actions(&w);
    assert!(kinds.iter().all(|(kind, _)| kind == "ssh.forward.dynamic"));
    assert_eq!(kinds.len(), 2);
    // A destination that does not answer is a failed action.
    let closed = format!("127.0.0.1:{}", free_port());
    assert_ne!(w.ssh(&["-W", &closed], "", b"q").await.code, Some(0));
    assert_eq!(outcome(&w, 2).await.status, Status::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_socket_is_reached_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("in.sock"), dir.path().join("other.sock"));
    for path in [&path, &other] {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(shout));
    }
    let socket = SocketPath {
        path: path.to_str().unwrap().to_owned(),
    };
    let w = granted(vec![Forward::Socket(socket)]).await;
    for (to, answer) in [(&path, "WORD"), (&other, "")] {
        let port = free_port();
        let spec = format!("{port}:{}", to.display());
        let probe = format!(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf word >&3; head -c 4 <&3'; true"
        );
        let out = w.ssh(&["-L", &spec], &probe, b"").await;
        assert_eq!(out.text(), answer, "{}", out.stderr);
    }
    let sockets = actions(&w)
        .into_iter()
        .filter(|(kind, _)| kind == "ssh.forward.socket");
    assert_eq!(sockets.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_port_on_the_target_connects_back_to_the_client() {
    let shouter = Shouter::new();
    let port = free_port();
    let w = granted(vec![Forward::Remote(Listen { port })]).await;
    let probe =
        format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf word >&3; head -c 4 <&3'");
    let strict = ["-o", "ExitOnForwardFailure=yes"];
    let listen = |at: &str| format!("{at}:127.0.0.1:{}", shouter.port);
    let (good, open) = (listen(&port.to_string()), listen(&format!("*:{port}")));
    let out = w
        .ssh(&[&["-R", &good][..], &strict].concat(), &probe, b"")
        .await;
    assert_eq!(out.exits(0).text(), "WORD");
    let kinds: Vec<String> = actions(&w).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        ["ssh.forward.listen", "ssh.exec", "ssh.forward.remote"]
    );
    // Only the target's own programs may connect: its network is no part of the grant.
    w.ssh(&[&["-R", &open][..], &strict].concat(), "true", b"")
        .await
        .exits(255);
    assert_eq!(shouter.met(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multiplexed_client_starts_and_ends_a_granted_listener() {
    let shouter = Shouter::new();
    let w = granted(vec![Forward::Remote(Listen { port: 0 })]).await;
    let control = w.path("ctl").display().to_string();
    let path = format!("ControlPath={control}");
    let master = w.start(&["-M", "-N", "-o", &path], "");
    until("master", || Path::new(&control).exists().then_some(())).await;
    let spec = format!("0:127.0.0.1:{}", shouter.port);
    let out = w
        .ssh(&["-o", &path, "-O", "forward", "-R", &spec], "", b"")
        .await
        .exits(0);
    let port = out.text().trim().to_owned();
    let probe =
        format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf word >&3; head -c 4 <&3'");
    let out = w.ssh(&["-o", &path], &probe, b"").await;
    assert_eq!(out.exits(0).text(), "WORD");
    w.ssh(&["-o", &path, "-O", "cancel", "-R", &spec], "", b"")
        .await;
    until("closed port", || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}"))
            .is_err()
            .then_some(())
    })
    .await;
    w.ssh(&["-o", &path, "-O", "exit"], "", b"").await;
    master.end().await;
}

/// A client that forwards this agent.
async fn with_agent(w: &World, socket: &Path, command: &str) -> String {
    let mut options = w.options("client");
    let agent = options.iter_mut().find(|o| *o == "IdentityAgent=none");
    *agent.unwrap() = format!("IdentityAgent={}", socket.display());
    let client = tokio::process::Command::new("ssh")
        .args(options)
        .args(["-A", "-p", &w.port.to_string(), &w.login(), command])
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .output();
    let out = tokio::time::timeout(super::world::PATIENCE, client).await;
    String::from_utf8(out.unwrap().unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_agent_is_lent_and_each_use_is_an_action() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let agent = tokio::process::Command::new("ssh-agent")
        .kill_on_drop(true)
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("agent", || socket.exists().then_some(())).await;
    let held = super::world::keygen(&dir.path().join("held"));
    let shown = held
        .public_key()
        .fingerprint(russh::keys::HashAlg::Sha256)
        .to_string();
    let added = std::process::Command::new("ssh-add")
        .arg("-q")
        .arg(dir.path().join("held"))
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .unwrap();
    assert!(added.success());
    let w = granted(vec![Forward::Agent(Anywhere {})]).await;
    let out = with_agent(&w, &socket, "ssh-add -l").await;
    assert!(out.contains(&shown), "{out:?}");
    let kinds: Vec<String> = actions(&w).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ssh.exec", "ssh.forward.agent"]);
    // Without it in the grant nothing of the agent is there.
    let w = World::new().await;
    let out = with_agent(&w, &socket, "echo =$SSH_AUTH_SOCK=").await;
    assert_eq!(out, "==\n");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_display_is_lent_and_each_use_is_an_action() {
    // The target wants an `xauth`; this one forgets the cookie, so nobody on the target knows it.
    let dir = tempfile::tempdir().unwrap();
    let xauth = dir.path().join("xauth");
    std::fs::write(&xauth, "#!/bin/sh\ncat >/dev/null\n").unwrap();
    std::fs::set_permissions(&xauth, std::fs::Permissions::from_mode(0o755)).unwrap();
    let sshd = format!("X11Forwarding yes\nXAuthLocation {}\n", xauth.display());
    let w = World::with(Setup {
        forwards: vec![Forward::X11(Anywhere {})],
        sshd,
        ..Setup::default()
    })
    .await;
    let display = free_port();
    assert!(display >= 6000, "an X11 display is a port from 6000 on");
    // An X11 client's first words: big-endian, protocol 11.0, a cookie.
    let probe = "bash -c 'd=${DISPLAY#*:}; d=${d%%.*}; exec 3<>/dev/tcp/127.0.0.1/$((6000+d)); \
                 printf \"B\\0\\0\\13\\0\\0\\0\\22\\0\\20\\0\\0MIT-MAGIC-COOKIE-1\\0\\0%016d\" 0 >&3; \
                 head -c 1 <&3'";
    let client = tokio::process::Command::new("ssh")
        .args(w.options("client"))
        .args(["-Y", "-p", &w.port.to_string(), &w.login(), probe])
        .env("DISPLAY", format!("127.0.0.1:{}", display - 6000))
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .output();
    let out = tokio::time::timeout(super::world::PATIENCE, client).await;
    let out = out.unwrap().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    // So the connection came back as far as the stock client, which looked for its display.
    assert!(
        said.contains(&format!("connect 127.0.0.1 port {display}")),
        "{out:?} {:?}",
        actions(&w)
    );
    let kinds: Vec<String> = actions(&w).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["ssh.exec", "ssh.forward.x11"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_within_a_forwarded_connection_is_noted_or_cut_off() {
    for refuse in [false, true] {
        let inner = Shouter::new();
        let w = World::with(Setup {
            forwards: vec![Forward::Dynamic(Anywhere {})],
            refuse_inner_ssh: refuse,
            ..Setup::default()
        })
        .await;
        let to = format!("127.0.0.1:{}", w.sshd_port);
        let mut client = w.start(&["-W", &to], "");
        client.send(b"SSH-2.0-probe\r\n").await;
        if !refuse {
            until("banner", || {
                client.stdout().starts_with("SSH-2.0-").then_some(())
            })
            .await;
        }
        let out = fed(client, b"").await;
        let outcome = outcome(&w, 0).await;
        assert_eq!(outcome.notes, ["ssh-inside"], "{out:?}");
        assert_eq!(outcome.status == Status::Failed, refuse, "{outcome:?}");
        assert_eq!(out.stdout.is_empty(), refuse);
        // Anything else goes on as before.
        let plain = format!("127.0.0.1:{}", inner.port);
        assert_eq!(w.ssh(&["-W", &plain], "", b"x").await.text(), "X");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_grant_cuts_open_connections() {
    let shouter = Shouter::new();
    let w = granted(vec![local("127.0.0.1", shouter.port, None)]).await;
    let mut client = w.start(&["-W", &format!("127.0.0.1:{}", shouter.port)], "");
    client.send(b"one").await;
    until("answer", || (client.stdout() == "ONE").then_some(())).await;
    w.people.revoke(&w.door.ledger, w.grant.unwrap()).await;
    client.end().await;
    let outcome = outcome(&w, 0).await;
    assert_eq!(outcome.status, Status::Failed);
    assert_eq!(bytes(&outcome), [("sent", 3, 0), ("received", 3, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_halves_of_a_connection_end_on_their_own() {
    // The destination answers only when its input has ended.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        peer.write_all(&all).unwrap();
    });
    let w = granted(vec![local("127.0.0.1", port, None)]).await;
    let input = vec![7; 300_000];
    let out = w
        .ssh(&["-W", &format!("127.0.0.1:{port}")], "", &input)
        .await;
    assert_eq!(out.stdout, input);
    let outcome = outcome(&w, 0).await;
    assert_eq!(
        bytes(&outcome),
        [("sent", 300_000, 0), ("received", 300_000, 0)]
    );
}
