//! How a tool gets to the target: a client configuration in which the target is called `target`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ascribe_core::entry::{Body, Entry, Intent, Outcome};
use ascribe_core::id::ActionId;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::world::{Out, Setup, World, until};

/// Longest wait for one program.
const PATIENCE: Duration = Duration::from_secs(900);

/// A form of access. Every tool works over each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// `ssh -p PORT ACCOUNT@TARGET@GATEWAY`.
    Direct,
    /// `ssh -J GATEWAY ACCOUNT@TARGET`.
    Jump,
}

pub(super) const FORMS: [Form; 2] = [Form::Direct, Form::Jump];

/// The full size with `ASCRIBE_LONG=1`, else the small one.
pub(super) fn sized<T>(small: T, full: T) -> T {
    if std::env::var_os("ASCRIBE_LONG").is_some() {
        full
    } else {
        small
    }
}

/// Is the program here? If not, says loudly what is not tested.
pub(super) fn have(program: &str) -> bool {
    use std::io::Write as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    if !found {
        // Past the capture of a passing test's output.
        let mut loud = std::io::stderr().lock();
        writeln!(
            loud,
            "SKIPPED: {program} through the gateway, because it is not installed"
        )
        .unwrap();
    }
    found
}

/// A world with many logins at once, and a client configuration for it.
pub(super) struct Access {
    pub(super) w: World,
    config: PathBuf,
}

impl Access {
    pub(super) async fn new(form: Form) -> Self {
        Self::with(form, Setup::default()).await
    }

    pub(super) async fn with(form: Form, setup: Setup) -> Self {
        let w = World::with(setup).await;
        let reach = match form {
            Form::Direct => format!(
                "HostName 127.0.0.1\nPort {}\nUser {}@db1",
                w.port, w.account
            ),
            Form::Jump => format!(
                "HostName db1\nUser {}\nProxyJump gateway\nHost gateway\nHostName 127.0.0.1\nPort {}",
                w.account, w.port
            ),
        };
        let config = w.path("ssh_config");
        let key = w.path("client");
        std::fs::write(
            &config,
            format!(
                "Host target\n{reach}\nHost *\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\n\
                 BatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n",
                key.display()
            ),
        )
        .unwrap();
        Self { w, config }
    }

    /// A file's name, here and on the target: it is the same machine.
    pub(super) fn file(&self, name: &str) -> String {
        self.w.path(name).display().to_string()
    }

    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// `ssh` with its configuration, as tools want to be told it.
    pub(super) fn ssh_words(&self) -> String {
        format!("ssh -F {}", self.config.display())
    }

    /// Runs a program to its end.
    pub(super) async fn run(&self, command: &mut Command, input: &[u8]) -> Out {
        run(command, input).await
    }

    /// A program that takes `-F CONFIG`, with it.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.arg("-F").arg(&self.config);
        command
    }

    /// `ssh [EXTRA] target [COMMAND]`.
    pub(super) async fn ssh(&self, extra: &[&str], command: &str, input: &[u8]) -> Out {
        let mut ssh = self.program("ssh");
        ssh.args(extra).arg("target");
        ssh.args((!command.is_empty()).then_some(command));
        self.run(&mut ssh, input).await
    }

    /// Options of `ssh` that share one connection, which stays until it is told to end.
    pub(super) fn shared(&self) -> Vec<String> {
        let path = format!("ControlPath={}", self.file("mux"));
        let words = ["ControlMaster=auto", "ControlPersist=600", &path];
        let options = words.into_iter().flat_map(|word| ["-o", word]);
        options.map(ToOwned::to_owned).collect()
    }

    /// Ends the shared connection.
    pub(super) async fn unshare(&self) {
        let path = format!("ControlPath={}", self.file("mux"));
        self.ssh(&["-o", &path, "-O", "exit"], "", b"")
            .await
            .exits(0);
    }

    /// Kind and command text of every action so far, in order.
    pub(super) fn commands(&self) -> Vec<(String, Option<String>)> {
        let of = |(index, entry): (u64, Entry)| match entry.body {
            Body::Intent(intent) => {
                let openings = self.w.door.ledger.openings(index).unwrap();
                let command = openings.into_iter().find(|o| o.field == "command");
                let text = command.map(|o| String::from_utf8(o.bytes.0).unwrap());
                Some((intent.kind, text))
            }
            _ => None,
        };
        (0u64..).zip(self.w.entries()).filter_map(of).collect()
    }

    pub(super) fn intents(&self) -> Vec<Intent> {
        self.w.found(|body| match body {
            Body::Intent(intent) => Some(intent),
            _ => None,
        })
    }

    /// Demands that every action has its outcome, once they are there, operations on files included;
    /// and that there are so many actions beside those. Gives the outcomes of these.
    pub(super) async fn complete(&self, actions: usize) -> Vec<Outcome> {
        let ended = until("outcome of every action", || {
            let (intents, outcomes) = (self.intents(), self.w.outcomes());
            let whole = intents.iter().filter(|intent| intent.within.is_none());
            (whole.count() >= actions && outcomes.len() >= intents.len()).then_some(outcomes)
        });
        let outcomes = ended.await;
        let intents = self.intents();
        let mut begun: Vec<ActionId> = intents.iter().map(|i| i.action).collect();
        let mut ended: Vec<ActionId> = outcomes.iter().map(|o| o.action).collect();
        begun.sort_unstable();
        ended.sort_unstable();
        assert_eq!(begun, ended, "an action without an outcome, or the reverse");
        let whole = intents.into_iter().filter(|intent| intent.within.is_none());
        let whole: Vec<ActionId> = whole.map(|intent| intent.action).collect();
        assert_eq!(whole.len(), actions);
        let outcomes = outcomes.into_iter();
        outcomes.filter(|o| whole.contains(&o.action)).collect()
    }
}

/// Runs a program to its end, with this input.
pub(super) async fn run(command: &mut Command, input: &[u8]) -> Out {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        stdin.write_all(&input).await.ok();
    });
    let done = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let done = done.await.expect("the program hangs").unwrap();
    Out {
        code: done.status.code(),
        stdout: done.stdout,
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}
