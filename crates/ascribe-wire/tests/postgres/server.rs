//! A PostgreSQL server for the tests that run at the same time.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// Where a program of PostgreSQL is.
pub(crate) fn tool(name: &str) -> PathBuf {
    Path::new(BIN).join(name)
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: PathBuf,
    child: Child,
}

/// A program of the server, which refuses to run as root: then as the user `postgres`.
fn program(name: &str, root: bool) -> Command {
    let program = tool(name);
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

impl Server {
    /// The one that runs, or a new one; none where none is installed.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        if !tool("postgres").exists() {
            return None;
        }
        let mut server = SERVER.lock().unwrap();
        Some(server.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *server = Arc::downgrade(&started);
            started
        }))
    }

    fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ascribe-pg-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let root = std::fs::metadata(&dir).unwrap().uid() == 0;
        if root {
            let owned = Command::new("chown").arg("postgres").arg(&dir).status();
            assert!(owned.unwrap().success());
        }
        let data = dir.join("data");
        let made = program("initdb", root)
            .args([
                "-A",
                "trust",
                "-U",
                "postgres",
                "-N",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = program("postgres", root);
        command.arg("-D").arg(&data);
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "log_statement=all",
            "log_disconnections=on",
            "log_destination=jsonlog",
            "logging_collector=on",
            "log_filename=log",
            "wal_level=logical",
        ] {
            command.arg("-c").arg(setting);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { port, dir, child };
        let begun = Instant::now();
        while !server.is_ready() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the server does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn is_ready(&self) -> bool {
        let asked = Command::new(tool("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status();
        TcpStream::connect(("127.0.0.1", self.port)).is_ok() && asked.unwrap().success()
    }

    /// What this process has logged, when it has ended: its log comes by way of another process.
    fn lines(&self, process: u32) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.dir.join("data/log/log.json"));
            let log = log.unwrap_or_default();
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let lines: Vec<String> = lines
                .filter(|line: &serde_json::Value| line["pid"] == process)
                .filter(|line| line["error_severity"] == "LOG")
                .filter_map(|line| line["message"].as_str().map(str::to_owned))
                .collect();
            if lines.iter().any(|line| line.starts_with("disconnection: ")) {
                return lines;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{process} goes on"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The texts that this process has run, in order.
    pub(crate) fn logged(&self, process: u32) -> Vec<String> {
        let text = |line: String| {
            if line.starts_with("fastpath function call") {
                return Some("function".to_owned());
            }
            let (how, text) = line.split_once(": ")?;
            let ran = how == "statement" || how.starts_with("execute ");
            ran.then(|| text.to_owned())
        };
        self.lines(process).into_iter().filter_map(text).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is a fast shutdown; setpriv has become the server.
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
