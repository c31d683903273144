//! A demo in a directory of its own, and the means to drive it. Every wait is bounded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::{Body, Entry};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for one program.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for the binary: whoever runs the tests mostly has it already.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// The binary, built once.
pub(super) fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // TARGET/PROFILE/deps/THIS
        let this = std::env::current_exe().unwrap();
        let place = this.parent().unwrap().parent().unwrap();
        let profile = place.file_name().unwrap().to_str().unwrap();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--locked", "-p", "ascribe"])
            .arg("--target-dir")
            .arg(place.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile != "debug" {
            build.args(["--profile", profile]);
        }
        let mut build = build.spawn().unwrap();
        let status = wait_for("binary", BUILD_PATIENCE, || build.try_wait().unwrap());
        assert!(status.success(), "the binary is not built");
        let binary = place.join("ascribe");
        assert!(binary.is_file(), "the build left no binary");
        binary
    })
}

/// Where a program lies.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A program that must be there.
pub(super) fn need(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("these tests need `{program}`, and it is not installed"))
}

/// A program that may be absent.
pub(super) fn maybe(program: &str) -> Option<PathBuf> {
    find(program)
}

/// Waits until there is something.
pub(super) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "no {what} within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// What a program left.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Out {
    /// The kinds of links that a report lists, in order.
    pub(super) fn chain(&self) -> Vec<String> {
        let report = self.line();
        let links = report["links"].as_array().unwrap().iter();
        links
            .map(|link| link["link"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The first link of that kind.
    pub(super) fn link(&self, kind: &str) -> Value {
        let report = self.line();
        let mut links = report["links"].as_array().unwrap().iter();
        links.find(|link| link["link"] == kind).unwrap().clone()
    }

    /// Demands an exit code.
    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
    /// The JSON lines on standard output.
    pub(super) fn lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
    /// The one JSON line on standard output.
    #[track_caller]
    pub(super) fn line(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:#?}");
        lines.remove(0)
    }
}

/// A program under way; killed when dropped.
pub(super) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    group: bool,
}

impl Running {
    pub(super) fn start(mut command: Command, logs: &Path, group: bool) -> Self {
        use std::os::unix::process::CommandExt as _;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (stdout, stderr) = (logs.join(format!("{n}.out")), logs.join(format!("{n}.err")));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        if group {
            command.process_group(0);
        }
        let program = command.get_program().to_owned();
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        Self {
            child,
            stdout,
            stderr,
            group,
        }
    }

    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }
    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended?
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    pub(super) fn wait(mut self, limit: Duration) -> Out {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(
                begun.elapsed() < limit,
                "still running after {limit:?}: {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        Out {
            code: status.code(),
            stdout: String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned(),
            stderr: self.stderr(),
        }
    }

    /// To this process alone.
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal).unwrap();
    }
    /// To its whole group, which we made.
    pub(super) fn signal_group(&self, signal: Signal) {
        assert!(self.group, "it has no group of its own");
        kill_process_group(pid_of(&self.child), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = pid_of(&self.child);
        if self.group {
            // Before the leader is reaped, so that the group is surely ours; afterwards it only
            // exists while members of ours are left.
            kill_process_group(pid, Signal::KILL).unwrap_or_default();
        }
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// A demo.
pub(super) struct World {
    dir: TempDir,
    ready: Value,
    /// The demo, while it runs or while its target is left over.
    demo: Option<Running>,
    /// A target of ours, after the demo took its own away.
    sshd: Option<Running>,
    /// Where the gateway listens now.
    port: u64,
}

impl World {
    /// Starts a demo and waits until it is ready.
    pub(super) fn new() -> Self {
        for program in ["ssh", "sshd", "ssh-keygen"] {
            need(program);
        }
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let mut world = Self {
            dir,
            ready: Value::Null,
            demo: None,
            sshd: None,
            port: 0,
        };
        let ready = world.path("ready.json");
        let mut command = world.ascribe(&["demo", "--ssh-port", "0", "--ready-file"]);
        command.arg(&ready);
        let mut demo = Running::start(command, &world.path("logs"), true);
        wait_for("ready file", PATIENCE, || {
            assert!(demo.ended().is_none(), "no demo: {}", demo.stderr());
            ready.exists().then_some(())
        });
        world.ready = serde_json::from_str(&std::fs::read_to_string(&ready).unwrap()).unwrap();
        world.port = world.ready["ssh"]["port"].as_u64().unwrap();
        world.demo = Some(demo);
        world
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }
    pub(super) fn policy(&self) -> PathBuf {
        PathBuf::from(self.field("trust_policy_file"))
    }
    pub(super) fn field(&self, name: &str) -> String {
        self.ready[name].as_str().unwrap().to_owned()
    }
    pub(super) fn field_of_ssh(&self, name: &str) -> String {
        self.ready["ssh"][name].as_str().unwrap().to_owned()
    }
    /// Where the gateway listens.
    pub(super) fn port(&self) -> u64 {
        self.port
    }
    /// Registers the target again with further options.
    pub(super) fn change_target(&self, options: &[&str]) -> Out {
        let target = self.field("target");
        let shown = self.json(&["target", "show", &target]).line();
        let keys = shown["host_keys"].as_array().unwrap().iter();
        let keys: Vec<&str> = keys.map(|key| key.as_str().unwrap()).collect();
        let file = self.path("host.keys");
        std::fs::write(&file, keys.join("\n")).unwrap();
        let address = format!("{}:{}", shown["host"].as_str().unwrap(), shown["port"]);
        let account = self.field("account");
        let args = [
            "target",
            "add",
            "--allow-loopback",
            &target,
            "--address",
            &address,
            "--host-keys",
            file.to_str().unwrap(),
            "--account",
            &account,
        ];
        let owner = ["--owner", shown["system_owner"].as_str().unwrap()];
        let owner = if options.contains(&"--owner") {
            &[]
        } else {
            &owner[..]
        };
        self.run_as("approver", &[&args[..], owner, options].concat())
            .exits(0)
    }
    pub(super) fn person(&self, role: &str) -> (String, PathBuf) {
        let people = self.ready["people"].as_array().unwrap();
        let person = people.iter().find(|p| p["role"] == role).unwrap();
        (
            person["principal"].as_str().unwrap().to_owned(),
            PathBuf::from(person["key_file"].as_str().unwrap()),
        )
    }
    /// `ACCOUNT@TARGET`.
    pub(super) fn place(&self) -> String {
        format!("{}@{}", self.field("account"), self.field("target"))
    }

    /// The binary on this demo's directory.
    pub(super) fn ascribe(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        self.at_home(&mut command);
        command.arg("--data").arg(self.data()).args(args);
        command
    }

    fn at_home(&self, command: &mut Command) {
        command
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("ASCRIBE_SERVER")
            .env_remove("SSH_AUTH_SOCK");
    }

    /// Runs any program.
    pub(super) fn program(&self, mut command: Command) -> Out {
        self.at_home(&mut command);
        Running::start(command, &self.path("logs"), false).wait(PATIENCE)
    }

    /// The same with the environment that the command has.
    pub(super) fn program_as_is(&self, command: &mut Command) -> Out {
        let command = std::mem::replace(command, Command::new("true"));
        Running::start(command, &self.path("logs"), false).wait(PATIENCE)
    }

    /// The program that was written from the specifications alone finds nothing wrong with this bundle, or exported ledger.
    pub(super) fn checked_by_another(&self, path: &Path) {
        let Some(python) = maybe("python3") else {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!(
                    "SKIPPED: `python3` is not there to check {}\n",
                    path.display()
                ),
            )
            .unwrap();
            return;
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/check.py");
        let mut check = Command::new(python);
        check.arg(program).arg(self.policy()).arg(path);
        let said = self.program_as_is(&mut check).exits(0).stdout;
        assert!(said.starts_with("ok "), "{said}");
    }

    /// Runs the binary on this demo's directory.
    pub(super) fn run(&self, args: &[&str]) -> Out {
        self.program(self.ascribe(args))
    }

    /// The same, with JSON lines as result; must succeed.
    #[track_caller]
    pub(super) fn json(&self, args: &[&str]) -> Out {
        self.run(&[&["-o", "json"], args].concat()).exits(0)
    }

    /// The same, signed by somebody.
    pub(super) fn run_as(&self, role: &str, args: &[&str]) -> Out {
        let key = self.person(role).1;
        let mut command = self.ascribe(&["-o", "json", "--key"]);
        command.arg(key).args(args);
        self.program(command)
    }

    /// The same, as people read it.
    pub(super) fn tell(&self, role: &str, args: &[&str]) -> Out {
        let key = self.person(role).1;
        let mut command = self.ascribe(&["--key"]);
        command.arg(key).args(args);
        self.program(command)
    }

    /// `ascribe verify`.
    pub(super) fn verify(&self, path: &Path, policy: &Path) -> Out {
        let mut command = Command::new(binary());
        command
            .args(["-o", "json", "verify"])
            .arg(path)
            .arg("--trust")
            .arg(policy);
        self.program(command)
    }

    /// Asks for a grant; returns the request.
    pub(super) fn request(&self, why: &str) -> String {
        let place = self.place();
        let asked = self.run_as(
            "operator",
            &[
                "request",
                &place,
                "--for",
                "30m",
                "--why",
                why,
                "--ticket",
                "demo:OPS-42",
                "--reusable",
            ],
        );
        let asked = asked.exits(0).line();
        asked["request_id"].as_str().unwrap().to_owned()
    }

    /// Approves a request; returns the grant.
    pub(super) fn approve(&self, request: &str) -> String {
        let yes = self.run_as("approver", &["approve", request]).exits(0);
        yes.line()["grant_id"].as_str().unwrap().to_owned()
    }

    /// Stock ssh through the gateway.
    pub(super) fn ssh_command(&self, options: &[&str], user: &str, command: &str) -> Command {
        let mut ssh = Command::new(need("ssh"));
        let config = self.ready["ssh"]["config_file"].as_str().unwrap();
        let known = self.ready["ssh"]["port"].as_u64().unwrap();
        ssh.args(["-F", config, "-p", &self.port.to_string(), "-o"])
            .arg(format!("HostKeyAlias=[127.0.0.1]:{known}"))
            .args(options)
            .arg(format!("{user}@ascribe-demo"))
            .arg(command);
        ssh
    }

    pub(super) fn ssh(&self, user: &str, command: &str) -> Out {
        self.ssh_with(&[], user, command)
    }

    pub(super) fn ssh_with(&self, options: &[&str], user: &str, command: &str) -> Out {
        self.program(self.ssh_command(options, user, command))
    }

    pub(super) fn ssh_in_background(&self, user: &str, command: &str) -> Running {
        let command = self.ssh_command(&[], user, command);
        Running::start(command, &self.path("logs"), false)
    }

    /// Stock sftp through the gateway, with a batch.
    pub(super) fn sftp(&self, batch: &str) -> Out {
        let file = self.path("batch");
        std::fs::write(&file, batch).unwrap();
        let mut sftp = Command::new(need("sftp"));
        let config = self.ready["ssh"]["config_file"].as_str().unwrap();
        let known = self.ready["ssh"]["port"].as_u64().unwrap();
        sftp.args(["-F", config, "-P", &self.port.to_string(), "-o"])
            .arg(format!("HostKeyAlias=[127.0.0.1]:{known}"))
            .arg("-b")
            .arg(file)
            .arg(format!("{}@ascribe-demo", self.place()));
        self.program(sftp)
    }

    /// A command that sleeps for 30 s on the target, once it is surely running there.
    pub(super) fn sleeper(&self) -> Sleeper {
        let file = self.path("sleeper");
        let command = format!("echo $$ >'{}'; exec sleep 30", file.display());
        let mut ssh = self.ssh_in_background(&self.place(), &command);
        let pid = wait_for("sleeping command", PATIENCE, || {
            assert!(ssh.ended().is_none(), "ssh ended: {}", ssh.stderr());
            let text = std::fs::read_to_string(&file).ok()?;
            text.strip_suffix('\n')?.parse().ok()
        });
        Sleeper {
            ssh: Some(ssh),
            command,
            pid: Pid::from_raw(pid).unwrap(),
        }
    }

    /// Actions.
    pub(super) fn actions(&self, args: &[&str]) -> Vec<Value> {
        self.json(&[&["actions"], args].concat()).lines()
    }

    /// A session, once it has ended.
    pub(super) fn ended_session(&self, id: &str) -> Value {
        wait_for("end of the session", PATIENCE, || {
            let sessions = self.json(&["sessions", "--all"]).lines();
            let session = sessions.into_iter().find(|s| s["id"] == id).unwrap();
            (!session["ended"].is_null()).then_some(session)
        })
    }

    /// From the newest statement of that type to the end of a session, in milliseconds, as the ledger
    /// has them.
    pub(super) fn ended_after(&self, session: &str, tag: &str) -> i64 {
        self.ended_session(session);
        let file = self.path(&format!("{session}.ended"));
        self.run(&["export", session, "-f", file.to_str().unwrap()])
            .exits(0);
        let bundle = Bundle::parse(&std::fs::read(file).unwrap()).unwrap();
        let (mut said, mut closed) = (None, None);
        for proven in &bundle.entries {
            let entry = Entry::from_bytes(proven.entry.as_bytes()).unwrap();
            match &entry.body {
                Body::Statement(signed) if signed.statement().unwrap().say.tag() == tag => {
                    said = Some(entry.at);
                }
                Body::SessionClose(close) if close.session.to_string() == session => {
                    closed = Some(entry.at);
                }
                _ => {}
            }
        }
        closed.unwrap().since(said.unwrap())
    }

    /// Runs one command under the demo's own grant and exports its ended session.
    pub(super) fn bundle(&self, command: &str) -> PathBuf {
        self.ssh(&self.place(), command).exits(0);
        let actions = self.actions(&["--text", command]);
        assert_eq!(actions.len(), 1);
        let session = actions[0]["session_id"].as_str().unwrap();
        self.ended_session(session);
        let file = self.path(&format!("{session}.bundle"));
        self.run(&["export", session, "-f", file.to_str().unwrap()])
            .exits(0);
        file
    }

    /// Asks the demo to stop, and waits.
    pub(super) fn stop(&mut self) {
        let demo = self.demo.take().unwrap();
        demo.signal(Signal::TERM);
        let out = demo.wait(PATIENCE);
        assert_eq!(out.code, Some(0), "{out:#?}");
    }

    /// To the demo's server alone: its target lives on.
    pub(super) fn signal_server(&self, signal: Signal) {
        self.demo.as_ref().unwrap().signal(signal);
    }

    /// Waits for the end of the demo's server.
    pub(super) fn server_is_gone(&mut self) {
        let demo = self.demo.as_mut().unwrap();
        wait_for("end of the server", PATIENCE, || demo.ended());
    }

    /// Where the target listens.
    pub(super) fn target_port(&self) -> u16 {
        let text = std::fs::read_to_string(self.path("data.demo/sshd_config")).unwrap();
        let port = text.lines().find_map(|l| l.strip_prefix("Port ")).unwrap();
        port.parse().unwrap()
    }

    /// Starts the target that the demo configured.
    pub(super) fn start_target(&mut self) {
        let config = self.path("data.demo/sshd_config");
        let port = self.target_port();
        let mut command = Command::new(need("sshd"));
        command.args(["-D", "-e", "-f"]).arg(&config);
        // The port is free only when the one before has ended.
        drop(self.sshd.take());
        let mut sshd = Running::start(command, &self.path("logs"), true);
        wait_for("target", PATIENCE, || {
            assert!(sshd.ended().is_none(), "no sshd: {}", sshd.stderr());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        self.sshd = Some(sshd);
    }

    /// `ascribe serve` on the demo's directory, perhaps under another program.
    pub(super) fn serve(&mut self, under: Option<Command>) -> Running {
        self.serving(under, &[])
    }

    /// The same with more options.
    pub(super) fn serve_with(&mut self, options: &[&str]) -> Running {
        self.serving(None, options)
    }

    fn serving(&mut self, under: Option<Command>, options: &[&str]) -> Running {
        let args = ["serve", "--ssh", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        let serve = self.ascribe(&[&args, options].concat());
        let command = match under {
            None => serve,
            Some(mut outer) => {
                self.at_home(&mut outer);
                outer.arg(serve.get_program()).args(serve.get_args());
                outer
            }
        };
        let mut server = Running::start(command, &self.path("logs"), true);
        self.port = wait_for("server", PATIENCE, || {
            let said = server.stderr();
            assert!(server.ended().is_none(), "no server: {said}");
            said.contains("\napi ").then_some(())?;
            let line = said.lines().find(|l| l.starts_with("ssh "))?;
            line.rsplit_once(':')?.1.parse().ok()
        });
        server
    }

    /// `ascribe serve` that must end by itself.
    pub(super) fn serve_refused(&self) -> Out {
        self.run(&["serve", "--ssh", "127.0.0.1:0", "--api", "127.0.0.1:0"])
    }
}

/// A command that goes on.
pub(super) struct Sleeper {
    pub(super) ssh: Option<Running>,
    pub(super) command: String,
    pid: Pid,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The target may leave it behind. Still ours?
        let name = format!("/proc/{}/comm", self.pid.as_raw_nonzero());
        if std::fs::read_to_string(name).is_ok_and(|name| name == "sleep\n") {
            kill_process(self.pid, Signal::KILL).unwrap_or_default();
        }
    }
}

/// Ends a server by the signal that asks for it.
pub(super) fn end(server: Running) {
    server.signal_group(Signal::TERM);
    let out = server.wait(PATIENCE);
    assert_eq!(out.code, Some(0), "{out:#?}");
}

/// Every file below a directory: content and time of change.
pub(super) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.metadata().unwrap();
        let mut content = Vec::new();
        if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            content = std::fs::read(&path).unwrap();
        }
        found.insert(path, (metadata.modified().unwrap(), content));
    }
    found
}

/// Copies a directory.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
