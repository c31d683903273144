//! A database with what lies before it, each a process of its own, and the clients.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Load, Pace};
use crate::floor::zeros;
use crate::table::median;

const PATIENCE: Duration = Duration::from_secs(30);
/// Threads that decide, write and archive.
const LEDGER: [&str; 4] = ["sequencer", "committer", "archiver", "allocator"];
const SYNCS: usize = 64;

/// By which way a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To the database.
    Direct,
    /// Through Debian's pooler, a server's connection for each client's.
    Pgbouncer,
    /// To the database, which writes to its log what it runs, and does not sync that.
    Pgaudit,
    /// To the database, inserting into a table first, which is durable.
    InsertFirst,
    /// Through framing and tracking alone.
    Relay,
    /// Through the gateway, its ledger's sync left out.
    Unsynced,
    /// Through the gateway.
    Durable,
}

/// A process of ours, and how it is ended.
pub(super) struct Server {
    child: Child,
    /// Ends when this is closed; where there is none, it is told to.
    input: Option<ChildStdin>,
}

impl Drop for Server {
    fn drop(&mut self) {
        match self.input.take() {
            Some(input) => drop(input),
            None => {
                let id = i32::try_from(self.child.id()).ok();
                if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
                    rustix::process::kill_process(pid, rustix::process::Signal::INT)
                        .unwrap_or_default();
                }
            }
        }
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Server {
    /// This benchmark as something else, and the port that it says.
    pub(super) fn own(words: &[&str]) -> Result<(Self, u16)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let mut line = String::new();
        let said = child.stdout.take().context("no output")?;
        BufReader::new(said).read_line(&mut line)?;
        let port = line.trim().parse().context("it did not start")?;
        Ok((Self { child, input }, port))
    }

    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn()?;
        Ok(Self { child, input: None })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Microseconds on the processors: all of it, and the ledger's threads.
    fn spent(&self) -> Result<(f64, f64)> {
        let (mut all, mut ledger) = (0.0, 0.0);
        for task in std::fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let task = task?.path();
            let name = std::fs::read_to_string(task.join("comm"))?;
            let stat = std::fs::read_to_string(task.join("schedstat"))?;
            let on: f64 = stat.split(' ').next().context("no schedstat")?.parse()?;
            all += on / 1e3;
            if LEDGER.contains(&name.trim()) {
                ledger += on / 1e3;
            }
        }
        Ok((all, ledger))
    }
}

fn free_port() -> Result<u16> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(free.local_addr()?.port())
}

/// Where a program lies: distributions keep the server's apart.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|of| of.path().join("bin")));
    }
    let found = places.iter().map(|place| place.join(name));
    let mut found = found.filter(|file| file.is_file());
    found.next().with_context(|| {
        format!("no `{name}`: apt-get install postgresql postgresql-15-pgaudit pgbouncer")
    })
}

/// As somebody else than root, as whom neither of them runs.
fn unprivileged(name: &str) -> Result<Command> {
    let program = program(name)?;
    if !rustix::process::getuid().is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres"]);
    command.args(["--clear-groups", "--"]).arg(program);
    Ok(command)
}

fn done(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    ensure!(out.status.success(), "{command:?}: {out:?}");
    Ok(String::from_utf8(out.stdout)?)
}

/// All of it.
pub(super) struct Bed {
    dir: tempfile::TempDir,
    database: u16,
    pooler: (Server, u16),
    relay: (Server, u16),
    unsynced: (Server, u16),
    durable: (Server, u16),
    // Ended last.
    _database: Server,
}

impl Bed {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let home = dir.path().join("home");
        std::fs::create_dir(&home)?;
        if rustix::process::getuid().is_root() {
            // It is searched, not read, by everybody.
            done(Command::new("chmod").arg("711").arg(dir.path()))?;
            done(Command::new("chown").arg("postgres").arg(&home))?;
        }
        let data = home.join("data");
        let mut initdb = unprivileged("initdb")?;
        initdb.args([
            "-A",
            "trust",
            "-U",
            "root",
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
        ]);
        done(initdb.arg(&data))?;
        let database = free_port()?;
        let mut server = unprivileged("postgres")?;
        server.arg("-D").arg(&data);
        for setting in [
            format!("port={database}"),
            format!("unix_socket_directories={}", home.display()),
            "max_connections=300".to_owned(),
            "shared_buffers=256MB".to_owned(),
            "max_wal_size=4GB".to_owned(),
            "shared_preload_libraries=pgaudit".to_owned(),
            "logging_collector=on".to_owned(),
        ] {
            server.arg("-c").arg(setting);
        }
        let server = Server::start(server, &dir.path().join("postgres.log"))?;
        let begun = Instant::now();
        while psql(database, "select 1").is_err() {
            ensure!(begun.elapsed() < PATIENCE, "no database");
            std::thread::sleep(Duration::from_millis(50));
        }
        psql(database, "create database bench")?;
        let mut fill = Command::new(program("pgbench")?);
        done(at(&mut fill, database, "root").args(["-i", "-q", "-s", "10", "bench"]))?;
        let tables = "create table audit (at timestamptz default now(), who text, what text); \
             create unlogged table sink (like pgbench_accounts); create extension pgaudit; vacuum analyze";
        for statement in tables.split("; ") {
            psql(database, statement)?;
        }
        let target = database.to_string();
        Ok(Self {
            pooler: pooler(dir.path(), database)?,
            relay: Server::own(&["--pg-relay", &target])?,
            unsynced: Server::own(&["--pg-gateway", &target, "no-sync"])?,
            durable: Server::own(&["--pg-gateway", &target, "sync"])?,
            dir,
            database,
            _database: server,
        })
    }

    /// What lies between, where something does.
    fn between(&self, way: Way) -> Option<&(Server, u16)> {
        match way {
            Way::Direct | Way::Pgaudit | Way::InsertFirst => None,
            Way::Pgbouncer => Some(&self.pooler),
            Way::Relay => Some(&self.relay),
            Way::Unsynced => Some(&self.unsynced),
            Way::Durable => Some(&self.durable),
        }
    }

    fn client(&self, name: &str, way: Way) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        let port = self.between(way).map_or(self.database, |(_, port)| *port);
        let user = match way {
            Way::Unsynced | Way::Durable => "root@db1",
            _ => "root",
        };
        at(&mut command, port, user);
        if way == Way::Pgaudit {
            command.env(
                "PGOPTIONS",
                "-c pgaudit.log=all -c pgaudit.log_parameter=on",
            );
        }
        Ok(command)
    }

    fn run(&self, way: Way, load: Load, seconds: usize, more: &[&str]) -> Result<String> {
        let mut command = self.client("pgbench", way)?;
        let clients = load.clients.to_string();
        command.args([
            "-n",
            "-M",
            load.mode,
            "-c",
            &clients,
            "-T",
            &seconds.to_string(),
        ]);
        command.args(["-j", if load.clients > 1 { "2" } else { "1" }]);
        let script = self.dir.path().join("insert-first.sql");
        if way == Way::InsertFirst {
            let text = "\\set aid random(1, 1000000)\n\
                 insert into audit (who, what) values ('alice', 'select abalance from pgbench_accounts where aid = ' || :aid);\n\
                 select abalance from pgbench_accounts where aid = :aid;\n";
            std::fs::write(&script, text)?;
            command.arg("-f").arg(&script);
        } else if load.select {
            command.arg("-S");
        }
        done(command.args(more).arg("bench"))
    }

    pub(super) fn pgbench(&self, way: Way, load: Load, seconds: usize) -> Result<Pace> {
        let between = self.between(way).map(|(server, _)| server);
        let spent = || between.map_or(Ok((0.0, 0.0)), Server::spent);
        let before = spent()?;
        let said = self.run(way, load, seconds, &[])?;
        let after = spent()?;
        let number = |label: &str| -> Result<f64> {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            let word = line.and_then(|rest| rest.split([' ', '/']).next());
            Ok(word.with_context(|| format!("no `{label}`"))?.parse()?)
        };
        let done = number("number of transactions actually processed: ")?;
        ensure!(done > 0.0, "nothing was done by {way:?}");
        Ok(Pace {
            tps: number("tps = ")?,
            cpu: (after.0 - before.0) / done,
            journal: (after.1 - before.1) / done,
        })
    }

    /// The middle latency of a load, in milliseconds.
    pub(super) fn p50(&self, way: Way, load: Load, seconds: usize) -> Result<f64> {
        let logs = tempfile::tempdir()?;
        let prefix = logs.path().join("log");
        let prefix = prefix.to_str().context("a path")?;
        self.run(way, load, seconds, &["-l", "--log-prefix", prefix])?;
        let mut times = Vec::new();
        for file in std::fs::read_dir(logs.path())? {
            for line in std::fs::read_to_string(file?.path())?.lines() {
                let word = line.split(' ').nth(2).context("a latency")?;
                times.push(word.parse::<f64>()? / 1e3);
            }
        }
        Ok(median(&times))
    }

    /// One sync of a block that was written, in milliseconds.
    pub(super) fn sync(&self) -> Result<f64> {
        let dir = tempfile::tempdir()?;
        let file = zeros(&dir.path().join("zeros"), SYNCS * 4096)?;
        let mut times = Vec::new();
        for n in 0..SYNCS {
            let begun = Instant::now();
            file.write_all_at(&[7; 4096], n as u64 * 4096)?;
            file.sync_data()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&times))
    }

    /// Seconds for a million rows.
    pub(super) fn copy(&self, way: Way, inward: bool) -> Result<f64> {
        let file = self.dir.path().join("rows");
        let said = if inward {
            psql(self.database, "truncate sink")?;
            format!("\\copy sink from '{}'", file.display())
        } else {
            format!("\\copy pgbench_accounts to '{}'", file.display())
        };
        let begun = Instant::now();
        done(
            self.client("psql", way)?
                .args(["-q", "-d", "bench", "-c", &said]),
        )?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn at<'a>(command: &'a mut Command, port: u16, user: &str) -> &'a mut Command {
    let port = port.to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-U", user])
}

fn psql(port: u16, text: &str) -> Result<String> {
    let mut command = Command::new(program("psql")?);
    let database = match text {
        "select 1" | "create database bench" => "postgres",
        _ => "bench",
    };
    done(at(&mut command, port, "root").args(["-q", "-d", database, "-c", text]))
}

/// Debian's pooler, a server's connection for each client's.
fn pooler(dir: &Path, database: u16) -> Result<(Server, u16)> {
    let port = free_port()?;
    let file = dir.join("pgbouncer.ini");
    let text = format!(
        "[databases]\nbench = host=127.0.0.1 port={database} user=root\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = session\nmax_client_conn = 300\ndefault_pool_size = 200\n\
         log_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n"
    );
    std::fs::write(&file, text)?;
    let mut command = unprivileged("pgbouncer")?;
    command.arg(&file);
    let server = Server::start(command, &dir.join("pgbouncer.log"))?;
    let begun = Instant::now();
    while psql(port, "select 2").is_err() {
        if begun.elapsed() > PATIENCE {
            bail!("no pooler");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((server, port))
}
