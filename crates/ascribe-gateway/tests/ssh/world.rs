//! A real ledger, a gateway before a real `sshd`, and a stock client. Every wait is bounded.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::{Body, Entry, Outcome, SessionClose};
use ascribe_core::id::{GrantId, StatementId};
use ascribe_core::statement::{Forward, OverCap, SshKey, Ticket, TicketRule};
use ascribe_gateway::{Arrival, Fill, GatewayConfig, UpstreamAuth, serve};
use ascribe_ledger::{Clock, Drivers, InitOptions, Ledger, Rng as _, SystemClock, SystemRng};
use russh::keys::PrivateKey;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::people::People;

/// Longest wait for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The machine's clock, set back.
#[derive(Debug)]
struct Behind(SystemClock, i64);

impl Clock for Behind {
    fn now_millis(&self) -> i64 {
        self.0.now_millis() - self.1
    }
    fn monotonic_millis(&self) -> i64 {
        self.0.monotonic_millis()
    }
}

/// What a world is made with.
pub(super) struct Setup {
    /// Pins this key file instead of the target's own.
    pub(super) pinned: &'static str,
    /// Logs in to the target with a key that it knows, not with a certificate.
    pub(super) upstream_key: bool,
    /// More lines of the target's configuration.
    pub(super) sshd: String,
    /// Where the target is said to listen, where it is not the real `sshd`.
    pub(super) target_port: Option<u16>,
    /// An address at which the target is said to be, before its own.
    pub(super) also_at: Option<&'static str>,
    pub(super) cap: (u64, OverCap),
    pub(super) idle: Duration,
    pub(super) pre_auth: Duration,
    pub(super) connections: usize,
    /// How long the grant lasts; none: nothing was approved.
    pub(super) grant: Option<Duration>,
    /// How far the ledger's clock is behind.
    pub(super) behind: Duration,
    /// What the grant lets be forwarded.
    pub(super) forwards: Vec<Forward>,
    /// Where the server itself is said to listen.
    pub(super) own: Vec<std::net::SocketAddr>,
    /// SSH within a forwarded connection is cut off.
    pub(super) refuse_inner_ssh: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            pinned: "host",
            upstream_key: false,
            sshd: String::new(),
            target_port: None,
            also_at: None,
            cap: (1 << 30, OverCap::Digest),
            idle: Duration::from_secs(60),
            pre_auth: Duration::from_secs(10),
            connections: 16,
            grant: Some(Duration::from_secs(1800)),
            behind: Duration::ZERO,
            forwards: Vec::new(),
            own: Vec::new(),
            refuse_inner_ssh: false,
        }
    }
}

/// What a program left.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Out {
    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }
    /// Demands that standard error has this.
    #[track_caller]
    pub(super) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "no `{text}` in: {}",
            self.stderr
        );
        self
    }
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A client under way. Its input stays open until it is dropped or taken.
pub(super) struct Client {
    child: Child,
    pub(super) stdin: Option<ChildStdin>,
    out: PathBuf,
}

impl Client {
    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap()).into_owned()
    }
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).await.unwrap();
        stdin.flush().await.unwrap();
    }
    pub(super) async fn end(self) -> Out {
        let (out, stdin) = (self.out, self.stdin);
        let done = tokio::time::timeout(PATIENCE, self.child.wait_with_output());
        let done = done.await.expect("ssh hangs").unwrap();
        drop(stdin);
        Out {
            code: done.status.code(),
            stdout: std::fs::read(out).unwrap(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) door: Arc<Door>,
    pub(super) people: People,
    pub(super) grant: Option<GrantId>,
    /// Where the gateway listens.
    pub(super) port: u16,
    /// Where the real server listens: for the same command without the gateway.
    pub(super) sshd_port: u16,
    pub(super) account: String,
    /// Kept open: the gateway waits for connections whose opening was signed.
    _arrive: tokio::sync::mpsc::Sender<Arrival>,
    stop: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
    _sshd: Child,
}

/// A port nobody listens at.
pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(super) fn keygen(path: &Path) -> PrivateKey {
    keygen_of("ed25519", path)
}

pub(super) fn keygen_of(kind: &str, path: &Path) -> PrivateKey {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    PrivateKey::read_openssh_file(path).unwrap()
}

pub(super) fn public(key: &PrivateKey) -> SshKey {
    ascribe_evidence::parse_public_key(&key.public_key().to_openssh().unwrap()).unwrap()
}

/// Waits until there is something.
pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

fn account() -> String {
    let id = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

/// The target: a real server that trusts the gateway's CA, and keeps a log.
async fn sshd(dir: &Path, extra: &str) -> (Child, u16) {
    let program = Path::new("/usr/sbin/sshd");
    assert!(program.exists(), "these tests need sshd");
    // sshd run by root insists on its privilege-separation directory.
    std::fs::create_dir_all("/run/sshd").ok();
    let port = free_port();
    let d = dir.display();
    std::fs::write(
        dir.join("sshd_config"),
        format!(
            "{extra}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {d}/host\nUsePAM no\n\
             StrictModes no\nPidFile none\nPermitRootLogin yes\nAcceptEnv FOO\nLogLevel VERBOSE\n\
             ExposeAuthInfo yes\nSetEnv HOME={d}\nMaxStartups 2000\nTrustedUserCAKeys {d}/ca.pub\n\
             AuthorizedKeysFile {d}/up.pub\nSubsystem sftp internal-sftp\n"
        ),
    )
    .unwrap();
    let child = Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stderr(std::fs::File::create(dir.join("sshd.log")).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("target", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })
    .await;
    (child, port)
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(super) async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [host_key, ca, up, client, admin, host_ca, _, _] = [
            "gate", "ca", "up", "client", "admin", "host_ca", "host", "stranger",
        ]
        .map(|name| keygen(&dir.path().join(name)));
        let (sshd, sshd_port) = sshd(dir.path(), &setup.sshd).await;
        let people = People::new(client, admin);
        let behind = i64::try_from(setup.behind.as_millis()).unwrap();
        let drivers = Drivers {
            judge: Arc::new(ascribe_evidence::SshSignatures),
            clock: Arc::new(Behind(SystemClock, behind)),
            rng: Arc::new(SystemRng),
        };
        let options = InitOptions {
            admins: vec![people.first_admin()],
            head: Some(dir.path().join("head")),
            ..InitOptions::new("ledger.example/gateway", &dir.path().join("wrap.key"))
        };
        let data = dir.path().join("data");
        Ledger::init(&data, &options, &drivers).unwrap();
        // A program that another test just starts has our lock too, for the moment until it runs.
        let ledger = until("ledger without a lock", || {
            Ledger::open(&data, &drivers).ok()
        })
        .await;
        let ledger = Arc::new(ledger);
        let account = account();
        let pinned = PrivateKey::read_openssh_file(dir.path().join(setup.pinned)).unwrap();
        let mut target = people.target(&account, setup.target_port.unwrap_or(sshd_port));
        target.host_keys = vec![public(&pinned)];
        if let Some(other) = setup.also_at {
            target.host = "db1.example".to_owned();
            target.addresses.insert(0, other.to_owned());
        }
        (target.stream_cap, target.over_cap) = setup.cap;
        target.refuse_inner_ssh = setup.refuse_inner_ssh;
        target.ticket = Some(TicketRule {
            system: "demo".into(),
            pattern: "OPS-#".into(),
        });
        people.enrol(&ledger, target).await;
        let mut grant = None;
        if let Some(length) = setup.grant {
            let forwards = setup.forwards.clone();
            let request = people
                .request_with(&ledger, &account, length, ticket(), forwards)
                .await;
            grant = Some(people.approve(&ledger, request).await);
        }
        let door = Arc::new(Door::new(ledger, dir.path().join("marker")));
        let config = GatewayConfig {
            writer: "gateway".into(),
            log_key: door.ledger.log_key(),
            host_key,
            host_ca: Some(host_ca),
            upstream: if setup.upstream_key {
                UpstreamAuth::Key(up)
            } else {
                UpstreamAuth::UserCa(ca)
            },
            own: setup.own,
            idle_timeout: setup.idle,
            pre_auth_timeout: setup.pre_auth,
            max_connections_per_addr: setup.connections,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let fill: Fill = Arc::new(|out: &mut [u8]| SystemRng.fill(out).unwrap());
        let (arrive, arrivals) = tokio::sync::mpsc::channel(16);
        let running = serve(listener, arrivals, door.clone(), config, fill, stop.clone());
        let server = tokio::spawn(async move { running.await.unwrap() });
        Self {
            dir,
            door,
            people,
            grant,
            port,
            sshd_port,
            account,
            _arrive: arrive,
            stop,
            server: Some(server),
            _sshd: sshd,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the target wrote about its logins.
    pub(super) fn sshd_log(&self) -> String {
        std::fs::read_to_string(self.path("sshd.log")).unwrap()
    }

    /// A stock client's options, for `ssh` and `scp`.
    pub(super) fn options(&self, key: &str) -> Vec<String> {
        let key = self.path(key).display().to_string();
        [
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
            "-o",
            "BatchMode=yes",
            "-i",
            &key,
        ]
        .map(ToOwned::to_owned)
        .to_vec()
    }

    /// Starts a stock client.
    pub(super) fn start_at(
        &self,
        port: u16,
        login: &str,
        key: &str,
        extra: &[&str],
        command: &str,
    ) -> Client {
        let out = self.path(&format!("out.{}", unused()));
        let mut child = Command::new("ssh")
            .args(self.options(key))
            .args(["-p", &port.to_string()])
            .args(extra)
            .arg(login)
            .args((!command.is_empty()).then_some(command))
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        Client { child, stdin, out }
    }

    /// Starts a stock client of the operator through the gateway.
    pub(super) fn start(&self, extra: &[&str], command: &str) -> Client {
        self.start_at(self.port, &self.login(), "client", extra, command)
    }

    /// `ACCOUNT@TARGET@HOST`.
    pub(super) fn login(&self) -> String {
        format!("{}@db1@127.0.0.1", self.account)
    }

    /// Runs a command as the operator, through the gateway, with this input.
    pub(super) async fn ssh(&self, extra: &[&str], command: &str, input: &[u8]) -> Out {
        fed(self.start(extra, command), input).await
    }

    /// The same without the gateway.
    pub(super) async fn direct(&self, extra: &[&str], command: &str, input: &[u8]) -> Out {
        let login = format!("{}@127.0.0.1", self.account);
        fed(
            self.start_at(self.sshd_port, &login, "up", extra, command),
            input,
        )
        .await
    }

    /// All entries so far.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let size = self.door.ledger.with_state(|state| state.size);
        let entries = self.door.ledger.entries(0..size).unwrap();
        entries
            .iter()
            .map(|bytes| Entry::from_bytes(bytes).unwrap())
            .collect()
    }

    /// What of all entries is wanted, in order.
    pub(super) fn found<T>(&self, wanted: impl FnMut(Body) -> Option<T>) -> Vec<T> {
        let bodies = self.entries().into_iter().map(|entry| entry.body);
        bodies.filter_map(wanted).collect()
    }

    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.found(|body| match body {
            Body::Outcome(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// Refusals so far: what, code and the sealed detail.
    pub(super) fn refusals(&self) -> Vec<(String, String, String)> {
        let of = |(index, entry): (u64, Entry)| match entry.body {
            Body::Refusal(refusal) => {
                let details = self.door.ledger.openings(index).unwrap();
                let detail = details.into_iter().next().map(|opening| opening.bytes.0);
                let detail = String::from_utf8(detail.unwrap_or_default()).unwrap();
                Some((refusal.what, refusal.code, detail))
            }
            _ => None,
        };
        (0u64..).zip(self.entries()).filter_map(of).collect()
    }

    /// The end of the `nth` session that ended, once it is in the ledger.
    pub(super) async fn closed(&self, nth: usize) -> SessionClose {
        until("end of the session", || {
            let closes = self.found(|body| match body {
                Body::SessionClose(close) => Some(close),
                _ => None,
            });
            closes.into_iter().nth(nth)
        })
        .await
    }

    /// Stops the gateway and waits for it.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        let server = self.server.take().unwrap();
        let ended = tokio::time::timeout(PATIENCE, server).await;
        ended.expect("the gateway does not stop").unwrap();
    }
}

/// Gives a client its input, then waits for its end.
pub(super) async fn fed(mut client: Client, input: &[u8]) -> Out {
    let mut stdin = client.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        stdin.write_all(&input).await.ok();
    });
    client.end().await
}

pub(super) fn ticket() -> Ticket {
    Ticket {
        system: "demo".into(),
        id: "OPS-42".into(),
    }
}

/// A name that was not used before.
fn unused() -> StatementId {
    let mut bytes = [0; 16];
    SystemRng.fill(&mut bytes).unwrap();
    StatementId::new(bytes)
}
