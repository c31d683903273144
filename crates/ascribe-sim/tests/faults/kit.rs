//! What the faults share: commands that leave a mark, the server's process, a tracer on it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::world::{Out, PATIENCE, Running, World, maybe, wait_for};

/// Says loudly that a test does not run.
pub(super) fn skipped(why: &str) {
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n")).unwrap();
}

/// Is this tool here? Says so where it is not.
pub(super) fn have(tool: &str) -> bool {
    let found = maybe(tool).is_some();
    if !found {
        skipped(&format!("`{tool}` is not installed"));
    }
    found
}

/// May a process that is not ours by birth be traced here? Says so where not.
pub(super) fn can_trace() -> bool {
    let Some(strace) = maybe("strace") else {
        return have("strace");
    };
    let dir = tempfile::tempdir().unwrap();
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let mut command = Command::new(strace);
    command.args(["-o", "/dev/null", "-p", &sleeper.id().to_string()]);
    let mut tracer = Running::start(command, dir.path(), false);
    let attached = wait_for("tracer", PATIENCE, || {
        let attached = tracer.stderr().contains(" attached");
        (attached || tracer.ended().is_some()).then_some(attached)
    });
    let said = tracer.stderr();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    if !attached {
        skipped(&format!("strace may not attach here: {}", said.trim()));
    }
    attached
}

/// The text at a place of a JSON value.
#[track_caller]
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// Commands that leave a file when they run.
pub(super) struct Marks {
    dir: PathBuf,
    tried: Vec<String>,
    /// Those whose client saw success.
    done: Vec<String>,
}

impl Marks {
    pub(super) fn new(world: &World) -> Self {
        let dir = world.path("marks");
        std::fs::create_dir(&dir).unwrap();
        Self {
            dir,
            tried: Vec::new(),
            done: Vec::new(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The command that leaves this mark, from now on accounted for.
    pub(super) fn command(&mut self, name: &str) -> String {
        self.tried.push(name.to_owned());
        format!("echo >'{}'", self.file(name).display())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// Runs it; what a client saw succeed is remembered.
    pub(super) fn run(&mut self, world: &World, name: &str) -> Out {
        let command = self.command(name);
        let out = world.ssh(&world.place(), &command);
        if out.code == Some(0) {
            self.done.push(name.to_owned());
        }
        out
    }

    /// It must run.
    #[track_caller]
    pub(super) fn runs(&mut self, world: &World, name: &str) {
        self.run(world, name).exits(0);
        assert!(self.has(name), "{name} left no mark");
    }

    /// It must be refused with these words, and not run.
    #[track_caller]
    pub(super) fn is_refused(&mut self, world: &World, name: &str, why: &str) {
        let out = self.run(world, name).exits(254);
        assert!(out.stderr.contains(why), "{why}: {out:#?}");
        assert!(!self.has(name), "{name} ran: {out:#?}");
    }

    /// What ran is recorded, what is recorded as done did run, what was seen done is recorded.
    #[track_caller]
    pub(super) fn agree_with(&self, actions: &[Value]) {
        let known: BTreeMap<&str, &str> = actions
            .iter()
            .filter(|a| a.pointer("/what/command").is_some_and(Value::is_string))
            .map(|a| (text(a, "/what/command"), text(a, "/what/outcome/status")))
            .collect();
        for name in &self.tried {
            let command = format!("echo >'{}'", self.file(name).display());
            let status = known.get(command.as_str()).copied();
            assert!(!self.has(name) || status.is_some(), "{name} ran unrecorded");
            assert!(
                self.has(name) || status != Some("succeeded"),
                "{name} did not run"
            );
            assert!(
                !self.done.contains(name) || status.is_some(),
                "{name} is lost"
            );
        }
    }

    /// The stopped server's directory verifies, and says of the marks what is true.
    #[track_caller]
    pub(super) fn verify(&self, world: &World) {
        let report = world.verify(&world.data(), &world.policy()).exits(0).line();
        assert_eq!(report["verdict"], "verified");
        self.agree_with(report["actions"].as_array().unwrap());
    }
}

/// The process that serves this world's directory.
pub(super) fn server_pid(world: &World) -> Pid {
    let data = world.data();
    let serves = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        let binary = words.next().is_some_and(|w| w.ends_with(b"/ascribe"));
        let rest: Vec<&[u8]> = words.collect();
        let serves = [&b"serve"[..], b"demo"]
            .iter()
            .any(|word| rest.contains(word));
        binary && serves && rest.contains(&data.as_os_str().as_bytes())
    };
    let found = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .find(|pid| serves(*pid));
    Pid::from_raw(found.expect("no server runs")).unwrap()
}

/// Puts a fault on the running server, until it is lifted or the server is gone.
pub(super) fn inject(world: &World, fault: &[&str]) -> Running {
    let mut strace = Command::new(maybe("strace").unwrap());
    strace
        .args(["-f", "-o"])
        .arg(world.path("trace"))
        .args(fault);
    let pid = server_pid(world).as_raw_nonzero().to_string();
    strace.arg("-p").arg(pid);
    let mut strace = Running::start(strace, &world.path("logs"), false);
    wait_for("tracer", PATIENCE, || {
        let said = strace.stderr();
        assert!(strace.ended().is_none(), "no tracer: {said}");
        said.contains(" attached").then_some(())
    });
    strace
}

/// Takes the fault away; the server goes on.
pub(super) fn lift(fault: Running) {
    fault.signal(Signal::INT);
    fault.wait(PATIENCE);
}

/// `strace` that starts the server with a fault.
pub(super) fn under(world: &World, fault: &[&str]) -> Command {
    let mut strace = Command::new(maybe("strace").unwrap());
    strace.args(["-f", "-qq", "-o"]).arg(world.path("trace"));
    strace.args(fault);
    strace
}

/// Where the demo's own gateway listens.
pub(super) fn demo_port(world: &World) -> u16 {
    let config = std::fs::read_to_string(world.path("data.demo/ssh_config")).unwrap();
    let port = config.lines().find_map(|l| l.trim().strip_prefix("Port "));
    port.unwrap().parse().unwrap()
}
