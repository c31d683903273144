//! One connection for many things at once, as editors and `ControlMaster` use it.

use std::process::Stdio;
use std::time::Duration;

use ascribe_core::entry::{Body, Status};
use ascribe_core::statement::{Anywhere, Forward};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::access::{Access, FORMS, sized};
use super::world::{PATIENCE, Setup, free_port};

/// A command that stays, with its streams.
struct Staying {
    child: Child,
    stdin: ChildStdin,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Staying {
    fn start(access: &Access, extra: &[String], command: &str) -> Self {
        let mut child = access
            .program("ssh")
            .args(extra)
            .args(["target", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin,
            lines,
        }
    }

    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line());
        line.await.expect("the channel is stuck").unwrap()
    }

    async fn asks(&mut self, text: &str) -> Option<String> {
        self.stdin
            .write_all(format!("{text}\n").as_bytes())
            .await
            .unwrap();
        self.line().await
    }
}

async fn connections(access: &Access) -> usize {
    access
        .w
        .found(|b| matches!(b, Body::SessionOpen(_)).then_some(()))
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_stay_and_channels_that_come_and_go_share_a_connection() {
    for form in FORMS {
        let access = Access::new(form).await;
        let shared = access.shared();
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        access.ssh(&options, "true", b"").await.exits(0);
        let echo = "while read -r line; do echo \"got $line\"; done; exit 5";
        let mut staying: Vec<Staying> = (0..8)
            .map(|_| Staying::start(&access, &shared, echo))
            .collect();
        let rounds = sized(5, 100);
        for round in 0..rounds {
            for (nth, one) in staying.iter_mut().enumerate() {
                let text = format!("{round} {nth}");
                assert_eq!(one.asks(&text).await, Some(format!("got {text}")));
            }
            let out = access
                .ssh(
                    &options,
                    &format!("cat; echo {round} >&2; exit 3"),
                    b"short",
                )
                .await;
            let out = out.exits(3).says(&format!("{round}\n"));
            assert_eq!(out.text(), "short");
        }
        for one in staying {
            let Staying {
                mut child,
                stdin,
                mut lines,
            } = one;
            drop(stdin);
            assert_eq!(lines.next_line().await.unwrap(), None);
            assert_eq!(child.wait().await.unwrap().code(), Some(5));
        }
        access.unshare().await;
        access.complete(1 + 8 + rounds).await;
        assert_eq!(connections(&access).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_connection_can_be_asked_and_ended_and_forwards_nothing() {
    for form in FORMS {
        let access = Access::new(form).await;
        let shared = access.shared();
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        access.ssh(&options, "true", b"").await.exits(0);
        let told = |what: &'static [&'static str]| [&options[4..], &["-O"], what].concat();
        access
            .ssh(&told(&["check"]), "", b"")
            .await
            .exits(0)
            .says("Master running");
        let remote = access
            .ssh(&told(&["forward", "-R", "0:127.0.0.1:1"]), "", b"")
            .await;
        remote.exits(255).says("forwarding request failed");
        let tty = [&options[..], &["-tt"]].concat();
        let out = access.ssh(&tty, "tty; exit 4", b"").await.exits(4);
        assert!(out.text().contains("/dev/pts/"), "{}", out.text());
        access.unshare().await;
        access.ssh(&told(&["check"]), "", b"").await.exits(255);
        access.complete(2).await;
        let refused = access.w.refusals();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].0, "forwarding");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_nothing_holds_up_no_other() {
    for form in FORMS {
        let access = Access::new(form).await;
        let shared = access.shared();
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        access.ssh(&options, "true", b"").await.exits(0);
        let mut stuck = Staying::start(&access, &shared, "echo here; exec sleep 600");
        assert_eq!(stuck.line().await.as_deref(), Some("here"));
        let Staying {
            child, mut stdin, ..
        } = stuck;
        // More than every window and buffer on the way: it ends when the command does.
        let writer = tokio::spawn(async move { stdin.write_all(&vec![b'x'; 24_000_000]).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!writer.is_finished(), "the target reads after all");
        for _ in 0..sized(3, 30) {
            let out = access
                .ssh(&options, "cat", &vec![b'y'; 100_000])
                .await
                .exits(0);
            assert_eq!(out.stdout.len(), 100_000);
        }
        access.unshare().await;
        assert!(writer.await.unwrap().is_err());
        drop(child);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_holds_up_no_command_that_begins_later() {
    for form in FORMS {
        let access = Access::new(form).await;
        let shared = access.shared();
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        access.ssh(&options, "true", b"").await.exits(0);
        let mut stalled = Staying::start(&access, &shared, "echo here; head -c 24000000 /dev/zero");
        assert_eq!(stalled.line().await.as_deref(), Some("here"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..3 {
            access.ssh(&options, "exit 6", b"").await.exits(6);
        }
        let mut out = Vec::new();
        let mut stdout = stalled.lines.into_inner();
        let read = tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut out)).await;
        read.expect("the stream is stuck").unwrap();
        assert_eq!(out.len(), 24_000_000);
        assert!(stalled.child.wait().await.unwrap().success());
        access.unshare().await;
        access.complete(5).await;
        assert_eq!(connections(&access).await, 1);
        // One for the stream, one for all that came later.
        let logins = access
            .w
            .sshd_log()
            .matches("Accepted publickey for")
            .count();
        assert_eq!(logins, 2);
    }
}

/// Connects through a SOCKS5 proxy on loopback (RFC 1928) to a port on the target's loopback.
async fn through(proxy: u16, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // So that whoever reads nothing is soon felt.
    socket.set_recv_buffer_size(1 << 16).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], proxy));
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.unwrap();
    assert_eq!(method, [5, 0]);
    let [high, low] = port.to_be_bytes();
    let connect = [5, 1, 0, 1, 127, 0, 0, 1, high, low];
    stream.write_all(&connect).await.unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..2], [5, 0], "the connection is refused");
    stream
}

/// A download that is paused, say.
#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_connection_that_nobody_reads_holds_up_nothing_that_begins_later() {
    const BYTES: usize = 24_000_000;
    for form in FORMS {
        let access = Access::with(
            form,
            Setup {
                forwards: vec![Forward::Dynamic(Anywhere {})],
                ..Setup::default()
            },
        )
        .await;
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move { stream.write_all(&vec![7; BYTES]).await.ok() });
            }
        });
        let (shared, proxy) = (access.shared(), free_port());
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        let dynamic = ["-D".to_owned(), format!("127.0.0.1:{proxy}")];
        let first = options
            .iter()
            .copied()
            .chain(dynamic.iter().map(String::as_str));
        let first: Vec<&str> = first.collect();
        access.ssh(&first, "true", b"").await.exits(0);
        let mut stalled = through(proxy, port).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        for _ in 0..3 {
            let command = access.ssh(&options, "exit 6", b"");
            let ended = tokio::time::timeout(PATIENCE, command).await;
            ended.expect("the command is stuck").exits(6);
        }
        let mut other = through(proxy, port).await;
        for stream in [&mut other, &mut stalled] {
            let mut out = Vec::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut out)).await;
            read.expect("the connection is stuck").unwrap();
            assert_eq!(out.len(), BYTES);
        }
        drop((stalled, other));
        access.complete(6).await;
        access.unshare().await;
    }
}

/// An editor keeps one shell, asks it things, and talks to a server behind it over many connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_shell_and_many_connections_to_what_it_started_share_a_login() {
    const CONNECTIONS: u8 = 12;
    for form in FORMS {
        let access = Access::with(
            form,
            Setup {
                forwards: vec![Forward::Dynamic(Anywhere {})],
                ..Setup::default()
            },
        )
        .await;
        // What the shell would have started: the target is this machine.
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        let proxy = free_port();
        let options = ["-T", "-D", &format!("127.0.0.1:{proxy}")].map(ToOwned::to_owned);
        let mut shell = Staying::start(&access, &options, "sh");
        assert_eq!(shell.asks("echo ready").await.as_deref(), Some("ready"));
        let mut carried = tokio::task::JoinSet::new();
        for nth in 0..CONNECTIONS {
            carried.spawn(async move {
                let mut stream = through(proxy, port).await;
                let sent = vec![nth; 200_000];
                let (mut read, mut write) = stream.split();
                let sending = async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let mut came = Vec::new();
                let ((), _) = tokio::join!(sending, read.read_to_end(&mut came));
                assert!(came == sent, "{} bytes came back", came.len());
            });
        }
        for nth in 0..20 {
            let text = format!("echo {nth}");
            assert_eq!(shell.asks(&text).await, Some(nth.to_string()));
        }
        let all = tokio::time::timeout(PATIENCE, carried.join_all()).await;
        all.expect("a connection is stuck");
        let Staying {
            mut child, stdin, ..
        } = shell;
        drop(stdin);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        assert!(ended.expect("ssh hangs").unwrap().success());
        serving.abort();
        assert_eq!(connections(&access).await, 1);
        let outcomes = access.complete(1 + usize::from(CONNECTIONS)).await;
        assert!(outcomes.iter().all(|o| o.status == Status::Succeeded));
        let of = |stream: &str| {
            let streams = outcomes.iter().flat_map(|o| &o.streams);
            let bytes = streams.filter(|s| s.stream == stream).map(|s| s.bytes);
            bytes.collect::<Vec<_>>()
        };
        let each = vec![200_000; usize::from(CONNECTIONS)];
        assert_eq!((of("sent"), of("received")), (each.clone(), each));
        let commands = access.commands();
        let to = format!("127.0.0.1:{port}");
        let dynamic = |(kind, text): &&(String, Option<String>)| {
            kind == "ssh.forward.dynamic" && text.as_deref() == Some(&to)
        };
        assert_eq!(
            commands.iter().filter(dynamic).count(),
            usize::from(CONNECTIONS)
        );
    }
}
