//! The identity provider: a certified server in Node, with one person who is always logged in there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::world::{World, maybe, need};

/// The client that `ascribe login` is to the provider.
pub(super) const CLIENT: &str = "ascribe-cli";
/// The provider's name for the person.
pub(super) const SUBJECT: &str = "00u-operator";
const PATIENCE: Duration = Duration::from_secs(60);

/// Installed once beside what is built; none where it cannot be.
fn installed() -> Option<&'static Path> {
    static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let npm = maybe("node").and(maybe("npm"))?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idp");
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("idp");
        std::fs::create_dir_all(&place).unwrap();
        for name in ["package.json", "package-lock.json", "provider.mjs"] {
            std::fs::copy(sources.join(name), place.join(name)).unwrap();
        }
        if !place.join("node_modules").is_dir() {
            let mut install = Command::new(npm);
            install.args([
                "ci",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            ]);
            let done = install.current_dir(&place).stdin(Stdio::null()).status();
            done.ok().filter(std::process::ExitStatus::success)?;
        }
        Some(place)
    });
    place.as_deref()
}

/// A running provider; ends with its standard input.
pub(super) struct Idp {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    pub(super) issuer: String,
}

impl Idp {
    /// None, with a loud word, where Node or its packages are not to be had.
    pub(super) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// The same with tokens that last for so many seconds.
    pub(super) fn of_short_tokens(seconds: &str) -> Option<Self> {
        Self::with(&[seconds])
    }

    fn with(more: &[&str]) -> Option<Self> {
        let Some(place) = installed() else {
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: no identity provider: `node`, `npm` or the package registry is not there\n")).unwrap();
            return None;
        };
        let args = [&["provider.mjs", CLIENT, SUBJECT], more].concat();
        Some(Self::run(place, &args))
    }

    /// An issuer of tokens for jobs instead.
    pub(super) fn of_jobs(bearer: &str) -> Option<Self> {
        if maybe("node").is_none() {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: no issuer of tokens: `node` is not there\n"),
            )
            .unwrap();
            return None;
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idp");
        Some(Self::run(&sources, &["issuer.mjs", bearer]))
    }

    fn run(place: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(need("node"))
            .args(args)
            .current_dir(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let first = lines.recv_timeout(PATIENCE).unwrap();
        let port = first.strip_prefix("listening ").unwrap();
        Self {
            child,
            input,
            lines,
            issuer: format!("http://127.0.0.1:{port}"),
        }
    }

    /// Signs with a new key; the old one is not published any more.
    pub(super) fn rotate(&mut self) {
        writeln!(self.input, "rotate").unwrap();
        self.answers("rotated");
    }

    /// The person is in these groups from now on.
    pub(super) fn groups(&mut self, names: &[&str]) {
        writeln!(self.input, "groups {}", names.join(",")).unwrap();
        self.answers("grouped");
    }

    /// The person's manager is this account from now on.
    pub(super) fn manager(&mut self, subject: &str) {
        writeln!(self.input, "manager {subject}").unwrap();
        self.answers("managed");
    }

    /// The person proves themself in this way and by these means from now on, so many seconds before they come.
    pub(super) fn proves(&mut self, acr: &str, amr: &[&str], ago: u64) {
        writeln!(self.input, "proves {acr} {} {ago}", amr.join(",")).unwrap();
        self.answers("proved");
    }

    /// Waits for this word; the provider says other things on its way.
    fn answers(&self, word: &str) {
        while self.lines.recv_timeout(PATIENCE).unwrap() != word {}
    }

    /// Plays the browser: goes where it is sent, with cookies, to the very end.
    pub(super) fn browse(&self, world: &World, address: &str) -> String {
        self.send(world, address, &[])
    }

    /// Plays the person who gives a code on another device.
    pub(super) fn confirm(&self, world: &World, address: &str, code: &str) {
        let code = format!("user_code={code}");
        let asked = self.send(world, address, &[]);
        let shown = self.send(world, address, &[&xsrf(&asked), &code]);
        let done = self.send(world, address, &[&xsrf(&shown), &code, "confirm=yes"]);
        assert!(done.contains("Sign-in Success"), "{done}");
    }

    fn send(&self, world: &World, address: &str, form: &[&str]) -> String {
        let jar = world.path("cookies");
        let mut curl = Command::new(need("curl"));
        curl.args(["--silent", "--location", "--max-time", "20"]);
        curl.arg("--cookie").arg(&jar).arg("--cookie-jar").arg(&jar);
        for field in form {
            curl.args(["--data", field]);
        }
        world.program_as_is(curl.arg(address)).exits(0).stdout
    }
}

/// The field of a form that shows where it came from.
fn xsrf(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"xsrf\" value=\"").unwrap();
    format!("xsrf={}", rest.split_once('"').unwrap().0)
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
