//! Plain SSH through the gateway, next to a direct `sshd` and to OpenSSH's own jump through a second
//! `sshd`: stock clients, one key exchange and one cipher on every leg, rounds interleaved.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::Plan;
use crate::table::{Row, median};

const PATIENCE: Duration = Duration::from_secs(30);
const KEX: &str = "KexAlgorithms=curve25519-sha256";
const CIPHER: &str = "Ciphers=aes256-gcm@openssh.com";
/// Where the target's files go: nowhere, so that no disk is measured.
const NOWHERE: &str = "/dev/null";

/// A process of ours; ended when dropped.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// By which way a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the target itself.
    Direct,
    /// Through a second `sshd`, with OpenSSH's own jump.
    OpensshJump,
    /// Through the gateway, `ACCOUNT@TARGET@GATEWAY`.
    Gateway,
    /// Through the gateway, by jump.
    GatewayJump,
}

const WAYS: [Way; 4] = [
    Way::Direct,
    Way::OpensshJump,
    Way::Gateway,
    Way::GatewayJump,
];

/// A demo of the binary, with its target, and a second server beside it.
struct Bed {
    dir: tempfile::TempDir,
    config: PathBuf,
    account: String,
    target: String,
    gateway: u32,
    target_port: String,
    _jump: Server,
    _demo: Server,
}

/// The binary that was built beside this benchmark.
pub(crate) fn binary() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let place = this.ancestors().nth(2).context("no target directory")?;
    let binary = place.join("ascribe");
    ensure!(
        binary.is_file(),
        "build it first: cargo build --profile dist -p ascribe"
    );
    Ok(binary)
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

pub(crate) fn text(value: &Value, pointer: &str) -> Result<String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {pointer}"))?.to_owned())
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

impl Bed {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (data, ready) = (dir.path().join("data"), dir.path().join("ready.json"));
        let demo = Command::new(binary()?)
            .arg("--data")
            .arg(&data)
            .args(["demo", "--ssh-port", "0", "--per-address", "4000"])
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let gateway = demo.id();
        let demo = Server(demo);
        wait_for("demo", || ready.exists().then_some(()))?;
        let ready: Value = serde_json::from_str(&std::fs::read_to_string(&ready)?)?;
        let (account, target) = (text(&ready, "/account")?, text(&ready, "/target")?);
        let base = text(&ready, "/ssh/config_file")?;
        let known = Path::new(&base).with_file_name("known_hosts");
        let known = std::fs::read_to_string(known)?;
        // `@cert-authority NAME,[NAME]:PORT ...`: the port of the target itself.
        let port = known
            .split("]:")
            .nth(2)
            .and_then(|rest| rest.split(' ').next())
            .context("no target port")?
            .to_owned();
        let path = |name: &str| dir.path().join(name);
        // The target's shells read nobody's start-up files, and it takes a crowd.
        let target_config = Path::new(&base).with_file_name("sshd_config");
        let mut lines =
            std::fs::read_to_string(&target_config)?.replace("MaxStartups 200", "MaxStartups 1000");
        lines.push_str(&format!("SetEnv HOME={}\n", dir.path().display()));
        std::fs::write(&target_config, lines)?;
        done(Command::new("pkill").args(["-HUP", "-x", "sshd", "-P", &gateway.to_string()]))?;
        std::thread::sleep(Duration::from_millis(500));
        for name in ["host", "client"] {
            let mut keygen = Command::new("ssh-keygen");
            done(
                keygen
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(path(name)),
            )?;
        }
        // The same CA lets this client in directly.
        let mut sign = Command::new("ssh-keygen");
        sign.arg("-q")
            .arg("-s")
            .arg(data.join("keys/user_ca_ed25519_key"));
        sign.args(["-I", "bench", "-V", "-5m:+1d", "-n", &account]);
        done(sign.arg(path("client.pub")))?;
        let jump_port = free_port()?;
        let d = dir.path().display();
        let ca = Path::new(&base).with_file_name("user_ca.pub");
        std::fs::write(
            path("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1\nPort {jump_port}\nHostKey {d}/host\nUsePAM no\nStrictModes no\n\
                 PidFile none\nPermitRootLogin yes\nAuthorizedKeysFile none\nTrustedUserCAKeys {}\n\
                 MaxStartups 1000\nMaxSessions 1000\n",
                ca.display()
            ),
        )?;
        let jump = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let jump = Server(jump);
        wait_for("second sshd", || {
            std::net::TcpStream::connect(("127.0.0.1", jump_port)).ok()
        })?;
        let own = std::fs::read_to_string(&base)?;
        let common = format!(
            "BatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n\
             IdentityFile {d}/client\nIdentitiesOnly yes\nIdentityAgent none\nUser {account}\n{}\n{}\n",
            KEX.replace('=', " "),
            CIPHER.replace('=', " ")
        );
        let config = path("ssh_config");
        std::fs::write(
            &config,
            format!(
                "Host direct\nHostName 127.0.0.1\nPort {port}\n{common}\n\
                 Host second\nHostName 127.0.0.1\nPort {jump_port}\n{common}\n\
                 Host beyond\nHostName 127.0.0.1\nPort {port}\nProxyJump second\n{common}\n\
                 Host {target}\nProxyJump ascribe-demo\n\
                 Host *\nLogLevel ERROR\n{}\n{}\n{own}\n",
                KEX.replace('=', " "),
                CIPHER.replace('=', " ")
            ),
        )?;
        Ok(Self {
            dir,
            config,
            account,
            target,
            gateway,
            target_port: port,
            _jump: jump,
            _demo: demo,
        })
    }

    /// A client's words, up to the place.
    fn client(&self, program: &str, way: Way) -> (Command, String) {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config);
        let (account, target) = (&self.account, &self.target);
        let place = match way {
            Way::Direct => "direct".to_owned(),
            Way::OpensshJump => "beyond".to_owned(),
            Way::Gateway => format!("{account}@{target}@ascribe-demo"),
            Way::GatewayJump => format!("{account}@{target}"),
        };
        (command, place)
    }

    /// Seconds that a command takes.
    fn run(&self, way: Way, remote: &str) -> Result<f64> {
        let (mut ssh, place) = self.client("ssh", way);
        ssh.arg(place).arg(remote).stdin(Stdio::null());
        let begun = Instant::now();
        let status = ssh.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{ssh:?} failed");
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Seconds that a file takes, to the target or from it.
    fn sftp(&self, way: Way, batch: &Path) -> Result<f64> {
        let (mut sftp, place) = self.client("sftp", way);
        sftp.arg("-q").arg("-b").arg(batch).arg(place);
        let begun = Instant::now();
        let status = sftp.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{sftp:?} failed");
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Seconds until so many clients, started at once, have run one command each.
    fn crowd(&self, way: Way, clients: usize) -> Result<f64> {
        let begun = Instant::now();
        let mut running = Vec::new();
        for _ in 0..clients {
            let (mut ssh, place) = self.client("ssh", way);
            ssh.arg(place).arg("true").stdin(Stdio::null());
            running.push(ssh.stdout(Stdio::null()).spawn()?);
        }
        let mut failed = 0;
        for mut client in running {
            failed += usize::from(!client.wait()?.success());
        }
        ensure!(
            failed == 0,
            "{failed} of {clients} clients failed by {way:?}"
        );
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Resident memory of the gateway's process, in KiB.
    fn resident(&self) -> Result<f64> {
        resident(self.gateway)
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let words = line.context("no VmRSS")?.split_whitespace().next();
    Ok(words.context("no VmRSS")?.parse()?)
}

/// Medians of each way's seconds, and of each round's ratio of one way to another.
struct Times(Vec<[f64; WAYS.len()]>);

impl Times {
    fn take(rounds: usize, mut measure: impl FnMut(Way) -> Result<f64>) -> Result<Self> {
        let mut taken = Vec::new();
        // The first is not counted: caches, first use of a login.
        for round in 0..=rounds {
            let mut times = [0.0; WAYS.len()];
            for n in 0..WAYS.len() {
                let at = (n + round) % WAYS.len();
                let (Some(way), Some(time)) = (WAYS.get(at), times.get_mut(at)) else {
                    bail!("no such way");
                };
                *time = measure(*way)?;
            }
            if round > 0 {
                taken.push(times);
            }
        }
        Ok(Self(taken))
    }
    fn all(&self, way: Way) -> Vec<f64> {
        let at = WAYS.iter().position(|w| *w == way).unwrap_or_default();
        self.0.iter().filter_map(|t| t.get(at).copied()).collect()
    }
    fn of(&self, way: Way) -> f64 {
        median(&self.all(way))
    }
    fn ratio(&self, way: Way, peer: Way) -> f64 {
        let pairs = self.all(way).into_iter().zip(self.all(peer));
        median(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

const SIDE: &str = "one machine: client, gateway and both servers share its cores";

/// A row about seconds: the fewer the better.
fn slower(
    what: &'static str,
    times: &Times,
    (way, peer): (Way, Way),
    name: &'static str,
    (bar, most): (&'static str, f64),
) -> Row {
    let ratio = times.ratio(way, peer);
    Row {
        what,
        value: times.of(way) * 1000.0,
        unit: "ms",
        peer: Some((name, times.of(peer) * 1000.0)),
        ratio: Some(ratio),
        bar,
        met: Some(ratio <= most),
        note: SIDE.to_owned(),
        parts: vec![("direct sshd, ms", times.of(Way::Direct) * 1000.0)],
    }
}

/// A row about throughput: the more the better.
fn faster(
    what: &'static str,
    megabytes: f64,
    times: &Times,
    way: Way,
    (bar, least): (&'static str, f64),
) -> Row {
    let ratio = times.ratio(Way::OpensshJump, way);
    Row {
        what,
        value: megabytes / times.of(way),
        unit: "MB/s",
        peer: Some(("OpenSSH -J", megabytes / times.of(Way::OpensshJump))),
        ratio: Some(ratio),
        bar,
        met: Some(ratio >= least),
        note: SIDE.to_owned(),
        parts: vec![("direct sshd, MB/s", megabytes / times.of(Way::Direct))],
    }
}

/// Every row about plain SSH.
pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let bed = Bed::new()?;
    // First: what was freed once is not grown into again.
    let memory = idle(&bed, plan)?;
    let mut rows = Vec::new();
    let setup = Times::take(plan.rounds, |way| bed.run(way, "true"))?;
    rows.push(slower(
        "ssh host true, direct form",
        &setup,
        (Way::Gateway, Way::Direct),
        "direct sshd",
        ("at most 1.15", 1.15),
    ));
    rows.push(slower(
        "ssh host true, jump form",
        &setup,
        (Way::GatewayJump, Way::OpensshJump),
        "OpenSSH -J",
        ("at most 0.9", 0.9),
    ));
    let (exec, file) = (plan.stream, plan.stream * 2);
    let rounds = plan.rounds.div_ceil(2);
    let remote = format!("head -c {exec} /dev/zero");
    let streams = Times::take(rounds, |way| bed.run(way, &remote))?;
    let megabytes = exec as f64 / 1e6;
    let stream_bar = ("at least 0.9", 0.9);
    rows.push(faster(
        "stream by exec, direct form",
        megabytes,
        &streams,
        Way::Gateway,
        stream_bar,
    ));
    rows.push(faster(
        "stream by exec, jump form",
        megabytes,
        &streams,
        Way::GatewayJump,
        stream_bar,
    ));
    let zeros = bed.dir.path().join("zeros");
    std::fs::File::create(&zeros)?.set_len(file)?;
    let name = zeros.display();
    let megabytes = file as f64 / 1e6;
    let sftp_bar = ("at least 0.85", 0.85);
    let before = bed.resident()?;
    for (line, direct, jump) in [
        (
            format!("get {name} {NOWHERE}\n"),
            "sftp get with hashing, direct form",
            "sftp get with hashing, jump form",
        ),
        (
            format!("put {name} {NOWHERE}\n"),
            "sftp put with hashing, direct form",
            "sftp put with hashing, jump form",
        ),
    ] {
        let batch = bed.dir.path().join("batch");
        std::fs::write(&batch, line)?;
        let times = Times::take(rounds, |way| bed.sftp(way, &batch))?;
        rows.push(faster(direct, megabytes, &times, Way::Gateway, sftp_bar));
        rows.push(faster(jump, megabytes, &times, Way::GatewayJump, sftp_bar));
    }
    let after = bed.resident()?;
    let mut crowds = Vec::new();
    for _ in 0..rounds.min(3) {
        let ours = bed.crowd(Way::GatewayJump, plan.crowd)?;
        crowds.push((ours, bed.crowd(Way::OpensshJump, plan.crowd)?));
    }
    let ratio = median(&crowds.iter().map(|(a, b)| a / b).collect::<Vec<_>>());
    rows.push(Row {
        what: "clients at once from one address, jump form",
        value: median(&crowds.iter().map(|c| c.0).collect::<Vec<_>>()) * 1000.0,
        unit: "ms",
        peer: Some((
            "OpenSSH -J",
            median(&crowds.iter().map(|c| c.1).collect::<Vec<_>>()) * 1000.0,
        )),
        ratio: Some(ratio),
        bar: "at most 1.0",
        met: Some(ratio <= 1.0),
        note: format!("{} clients, no failure on either side; {SIDE}", plan.crowd),
        parts: vec![
            ("gateway resident before the transfers, KiB", before),
            ("gateway resident after them, KiB", after),
        ],
    });
    rows.push(memory);
    Ok(rows)
}

/// What an idle session holds, here and in a bare relay of the same form.
fn idle(bed: &Bed, plan: &Plan) -> Result<Row> {
    let port = free_port()?;
    let path = |name: &str| bed.dir.path().join(name);
    let relay = Command::new(std::env::current_exe()?)
        .arg("--relay")
        .args([&port.to_string(), &bed.target_port, &bed.account])
        .args([path("client"), path("host")])
        .stdin(Stdio::null())
        .spawn()?;
    let process = relay.id();
    let _relay = Server(relay);
    wait_for("relay", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    })?;
    let base = std::fs::read_to_string(&bed.config)?;
    let config = path("relay_config");
    let blocks = format!(
        "Host bare\nHostName 127.0.0.1\nPort {port}\nUserKnownHostsFile /dev/null\n\
         StrictHostKeyChecking no\nIdentityFile {0}\nBatchMode yes\nIdentitiesOnly yes\n\
         Host behind\nProxyJump bare\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no\n\
         IdentityFile {0}\nBatchMode yes\nIdentitiesOnly yes\nUser {1}\n",
        path("client").display(),
        bed.account
    );
    std::fs::write(&config, format!("{blocks}{base}"))?;
    let measure = |process: u32, place: &str| -> Result<f64> {
        let before = resident(process)?;
        let mut clients = Vec::new();
        for _ in 0..plan.idle {
            let mut ssh = Command::new("ssh");
            ssh.arg("-F")
                .arg(&config)
                .args(["-o", KEX, "-o", CIPHER, place]);
            ssh.arg("echo up; exec sleep 600");
            ssh.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut client = Server(ssh.spawn()?);
            // It is there once it has said so.
            let out = client.0.stdout.take().context("no output")?;
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
            ensure!(line == "up\n", "an idle session did not begin");
            clients.push(client);
        }
        std::thread::sleep(Duration::from_secs(2));
        let each = (resident(process)? - before) / plan.idle as f64;
        drop(clients);
        Ok(each)
    };
    let bare = measure(process, "behind")?;
    let (_, place) = bed.client("ssh", Way::GatewayJump);
    let ours = measure(bed.gateway, &place)?;
    Ok(Row {
        what: "memory of an idle session, jump form",
        value: ours,
        unit: "KiB",
        peer: Some(("bare relay of the same form", bare)),
        ratio: Some(ours / bare),
        bar: "at most 1.3",
        met: Some(ours / bare <= 1.3),
        note: format!("resident growth over {} sessions, from a start", plan.idle),
        parts: Vec::new(),
    })
}
