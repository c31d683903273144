//! A database, the server before it, and a person with a grant.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::world::{Out, PATIENCE, Running, World, maybe, need, wait_for};

/// The role's password, with what trips over shells.
pub(super) const PASSWORD: &str = "it's $ecret \\ 1";
/// The superuser's, for what the gateway is not to be asked for.
const SUPER: &str = "postgres";

/// Where a program of PostgreSQL's server lies: distributions keep them apart.
fn program(name: &str) -> PathBuf {
    if let Some(found) = maybe(name) {
        return found;
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|file| file.is_file())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("these tests need PostgreSQL's `{name}`: apt-get install postgresql")
    })
}

/// A command as somebody else than root, as whom PostgreSQL does not run.
pub(super) fn unprivileged(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(need("setpriv"));
    command
        .args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

#[track_caller]
pub(super) fn done(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A real PostgreSQL with TLS and SCRAM.
pub(super) struct Cluster {
    _dir: tempfile::TempDir,
    home: PathBuf,
    server: Running,
    pub(super) port: u16,
}

impl Cluster {
    /// With further settings; `bin` has the programs, if others than this machine's are meant.
    fn start(logs: &Path, more: &[&str], bin: Option<&Path>) -> Self {
        let program = |name: &str| match bin {
            Some(bin) => bin.join(name),
            None => program(name),
        };
        let dir = tempfile::TempDir::new().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        certificate(&home, "server");
        std::fs::write(home.join("super"), SUPER).unwrap();
        if rustix::process::getuid().is_root() {
            // It is searched, not read, by everybody.
            done(Command::new("chmod").arg("711").arg(dir.path()));
            done(Command::new("chown").args(["-R", "postgres"]).arg(&home));
        }
        let data = home.join("data");
        done(
            unprivileged(&program("initdb"))
                .args([
                    "-A",
                    "scram-sha-256",
                    "-U",
                    "postgres",
                    "-E",
                    "UTF8",
                    "--locale=C",
                ])
                .arg("--pwfile")
                .arg(home.join("super"))
                .arg("-D")
                .arg(&data),
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let key = home.join("server.key");
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", home.display()),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", home.join("server.crt").display()),
            format!("ssl_key_file={}", key.display()),
            "log_statement=all".to_owned(),
            "log_line_prefix=%m %p %c %r %a ".to_owned(),
            "max_connections=50".to_owned(),
        ];
        let mut command = unprivileged(&program("postgres"));
        command.arg("-D").arg(&data);
        for setting in settings
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
        {
            command.arg("-c").arg(setting);
        }
        command
            .arg("-c")
            .arg(format!("log_directory={}", home.join("log").display()));
        let mut server = Running::start(command, logs, true);
        wait_for("database", PATIENCE, || {
            assert!(server.ended().is_none(), "no database: {}", server.stderr());
            let ready = "database system is ready to accept connections";
            let collected = std::fs::read_to_string(home.join("log/pg.log"));
            let said = server.stderr() + &collected.unwrap_or_default();
            said.contains(ready).then_some(())
        });
        let cluster = Self {
            _dir: dir,
            home,
            server,
            port,
        };
        let quoted = PASSWORD.replace('\'', "''");
        cluster.sql(
            "postgres",
            &format!("set standard_conforming_strings = on; create role dba superuser login password '{quoted}'"),
        );
        cluster.sql("postgres", "create database orders owner dba");
        cluster
    }

    /// Straight to the database, past the gateway.
    pub(super) fn sql(&self, database: &str, text: &str) -> String {
        done(
            Command::new(need("psql"))
                .env("PGPASSWORD", SUPER)
                .args(["-h"])
                .arg(&self.home)
                .args([
                    "-p",
                    &self.port.to_string(),
                    "-U",
                    "postgres",
                    "-d",
                    database,
                ])
                .args(["-v", "ON_ERROR_STOP=1", "-q", "-A", "-t", "-c", text]),
        )
    }

    /// A client program, past the gateway, too; what it prints.
    pub(super) fn tool(&self, name: &str, arguments: &[&str]) -> String {
        done(
            Command::new(need(name))
                .env("PGPASSWORD", SUPER)
                .arg("-h")
                .arg(&self.home)
                .args(["-p", &self.port.to_string(), "-U", "postgres"])
                .args(arguments),
        )
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        self.server.stderr()
    }

    /// The files of its log, where it collects them.
    pub(super) fn log_file(&self, ending: &str) -> PathBuf {
        self.home.join("log").join(format!("pg.{ending}"))
    }

    /// Straight to the database by TCP, as the role that the gateway logs in as, under a name of its own.
    pub(super) fn intrude(&self, application: &str, text: &str) -> Out {
        let out = Command::new(need("psql"))
            .env("PGPASSWORD", PASSWORD)
            .env("PGAPPNAME", application)
            .args(["-X", "-h", "127.0.0.1", "-U", "dba", "-d", "orders"])
            .args(["-p", &self.port.to_string(), "-c", text])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Out {
            code: out.status.code(),
            stdout: text(&out.stdout),
            stderr: text(&out.stderr),
        }
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.home.join("server.crt")
    }

    /// The key of its certificate.
    pub(super) fn key(&self) -> PathBuf {
        self.home.join("server.key")
    }

    /// Gives it another certificate and its key, which it shows from the next connection on.
    pub(super) fn recertify(&self, certificate: &Path, key: &Path) {
        // Into the files that are there: it is their owner.
        let put =
            |from: &Path, to: PathBuf| std::fs::write(to, std::fs::read(from).unwrap()).unwrap();
        put(certificate, self.certificate());
        put(key, self.key());
        self.sql("postgres", "select pg_reload_conf()");
    }
}

/// Is this extension's library beside the server?
pub(super) fn has_library(name: &str) -> bool {
    let bin = program("postgres").canonicalize().unwrap();
    let lib = bin
        .parent()
        .and_then(Path::parent)
        .map(|home| home.join("lib"));
    lib.is_some_and(|lib| lib.join(name).is_file())
}

/// A certificate for `localhost` that signs itself, and its key.
pub(super) fn certificate(dir: &Path, name: &str) {
    done(
        Command::new(need("openssl"))
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-keyout")
            .arg(dir.join(format!("{name}.key")))
            .arg("-out")
            .arg(dir.join(format!("{name}.crt"))),
    );
}

/// All of it.
pub(super) struct Bank {
    server: Option<Running>,
    /// What the server is started with besides.
    options: Vec<String>,
    pub(super) world: World,
    pub(super) cluster: Cluster,
    port: u16,
}

/// Where a role on the database is.
pub(super) const PLACE: &str = "dba@orders-db";

impl Bank {
    /// The operator holds a grant for as many sessions as they like.
    pub(super) fn open() -> Self {
        let bank = Self::without_grant(&[]);
        bank.grant(&["--reusable"]);
        bank
    }

    /// The same with another server's programs.
    pub(super) fn on(bin: &Path) -> Self {
        Self::with_settings_on(&[], Some(bin))
    }

    /// The target is registered with further options, and nobody holds a grant.
    pub(super) fn without_grant(options: &[&str]) -> Self {
        Self::new(options, &[], None, &[])
    }

    /// The server has further settings and other programs, where some are given, and the operator a grant.
    pub(super) fn with_settings_on(settings: &[&str], bin: Option<&Path>) -> Self {
        let bank = Self::new(&[], settings, bin, &[]);
        bank.grant(&["--reusable"]);
        bank
    }

    /// What serves has further options, and the operator a grant.
    pub(super) fn served_with(served: &[&str]) -> Self {
        let bank = Self::new(&[], &["max_connections=100"], None, served);
        bank.grant(&["--reusable"]);
        bank
    }

    fn new(options: &[&str], settings: &[&str], bin: Option<&Path>, served: &[&str]) -> Self {
        let mut world = World::new();
        world.stop();
        let cluster = Cluster::start(&world.path("logs"), settings, bin);
        certificate(&world.path(""), "gateway");
        let dir = world.data().join("credentials/orders-db");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("dba"), PASSWORD).unwrap();
        done(Command::new("chmod").args(["-R", "go="]).arg(dir));
        let served: Vec<String> = served.iter().map(ToString::to_string).collect();
        let (server, port) = serve(&mut world, &served);
        let bank = Self {
            server: Some(server),
            options: served,
            world,
            cluster,
            port,
        };
        bank.register(options);
        bank
    }

    /// Registers the target, or registers it again.
    pub(super) fn register(&self, options: &[&str]) {
        let address = format!("localhost:{}", self.cluster.port);
        let trust = self.cluster.certificate();
        let owner = self.world.person("approver").0;
        let add = [
            "target",
            "add",
            "orders-db",
            "--postgres",
            "--address",
            &address,
            "--allow-loopback",
            "--tls-ca",
            trust.to_str().unwrap(),
            "--account",
            "dba",
            "--owner",
            &owner,
        ];
        self.world
            .run_as("approver", &[&add[..], options].concat())
            .exits(0);
    }

    /// Registers the target as what listens at this port, without TLS.
    pub(super) fn register_bare(&self, port: u16) {
        let owner = self.world.person("approver").0;
        let address = format!("127.0.0.1:{port}");
        let add = [
            "target",
            "add",
            "orders-db",
            "--postgres",
            "--address",
            &address,
            "--allow-loopback",
            "--account",
            "dba",
            "--owner",
            &owner,
        ];
        self.world.run_as("approver", &add).exits(0);
    }

    /// Registers the target as what listens at this port of this machine, with this certificate.
    pub(super) fn register_at(&self, port: u16, trust: &Path) {
        let address = format!("localhost:{port}");
        let owner = self.world.person("approver").0;
        let add = [
            "target",
            "add",
            "orders-db",
            "--postgres",
            "--address",
            &address,
            "--allow-loopback",
            "--tls-ca",
            trust.to_str().unwrap(),
            "--account",
            "dba",
            "--owner",
            &owner,
        ];
        self.world.run_as("approver", &add).exits(0);
    }

    /// Stores another password for the role.
    pub(super) fn store(&self, password: &str) {
        let file = self.world.data().join("credentials/orders-db/dba");
        std::fs::write(file, password).unwrap();
    }

    /// Has a grant approved; returns it.
    pub(super) fn grant(&self, options: &[&str]) -> String {
        self.grant_for("30m", options)
    }

    /// The same for so long.
    pub(super) fn grant_for(&self, window: &str, options: &[&str]) -> String {
        let ask = [
            "request",
            PLACE,
            "--for",
            window,
            "--why",
            "repair what broke this morning",
        ];
        let asked = self.world.run_as("operator", &[&ask[..], options].concat());
        let asked = asked.exits(0).line();
        let request = asked["request_id"].as_str().unwrap();
        // A script is approved with its file.
        let script = options.windows(2).find(|pair| pair[0] == "--script");
        let yes = [&["approve", request], script.unwrap_or_default()].concat();
        let yes = self.world.run_as("approver", &yes).exits(0);
        yes.line()["grant_id"].as_str().unwrap().to_owned()
    }

    pub(super) fn psql_command(&self, arguments: &[&str]) -> Command {
        let key = self.world.person("operator").1;
        let mut command = self.world.ascribe(&["--key"]);
        command.arg(key).args(["psql", PLACE, "--"]);
        // What is in the home directory is not asked.
        command
            .args(["-X", "-A", "-t", "-d", "orders"])
            .args(arguments);
        command
    }

    /// Stock psql through the gateway.
    pub(super) fn psql(&self, arguments: &[&str]) -> Out {
        self.world.program(self.psql_command(arguments))
    }

    pub(super) fn psql_in_background(&self, arguments: &[&str]) -> Running {
        Running::start(self.psql_command(arguments), &self.world.path("logs"), true)
    }

    /// What a client connects to at the gateway's own port.
    pub(super) fn at_the_port(&self, options: &str) -> String {
        format!(
            "host=localhost port={} user={PLACE} dbname=orders sslrootcert={} {options}",
            self.port,
            self.world.path("gateway.crt").display()
        )
    }

    /// Stock psql at the gateway's own port, with a password.
    pub(super) fn psql_at_the_port(&self, password: &str, options: &str, sql: &str) -> Out {
        let mut command = Command::new(need("psql"));
        command
            .env("PGPASSWORD", password)
            .args(["-X", "-A", "-t", "-c", sql])
            .arg(self.at_the_port(options));
        self.world.program(command)
    }

    /// Connections for any client: the tunnel, and its port on loopback.
    pub(super) fn tunnel(&self) -> (Running, u16) {
        let key = self.world.person("operator").1;
        let mut command = self.world.ascribe(&["-o", "json", "--key"]);
        command.arg(key).args(["tunnel", PLACE]);
        let mut tunnel = Running::start(command, &self.world.path("logs"), true);
        let said = wait_for("tunnel", PATIENCE, || {
            assert!(tunnel.ended().is_none(), "no tunnel: {}", tunnel.stderr());
            let said = tunnel.stdout();
            said.ends_with('\n').then_some(said)
        });
        let said: Value = serde_json::from_str(&said).unwrap();
        let port = said["port"].as_u64().unwrap();
        (tunnel, u16::try_from(port).unwrap())
    }

    /// The most memory that the server ever had, in KiB.
    pub(super) fn peak(&self) -> u64 {
        let file = format!("/proc/{}/status", self.server().id());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    /// A password for one connection.
    pub(super) fn token(&self) -> String {
        let made = self.world.run_as("operator", &["token", PLACE]).exits(0);
        made.line()["password"].as_str().unwrap().to_owned()
    }

    /// The bundle of this action's session, which has ended; it verifies.
    pub(super) fn exported(&self, action: &Value) -> PathBuf {
        let session = action["session_id"].as_str().unwrap();
        self.world.ended_session(session);
        let bundle = self.world.path(session);
        self.world
            .run(&["export", session, "-f", bundle.to_str().unwrap()])
            .exits(0);
        self.world.verify(&bundle, &self.world.policy()).exits(0);
        bundle
    }

    /// Actions on the database, in order.
    pub(super) fn actions(&self) -> Vec<Value> {
        self.world.actions(&["--target", "orders-db"])
    }

    /// The same where they are very many.
    pub(super) fn all_actions(&self) -> Vec<Value> {
        let asked = ["-o", "json", "actions", "--target", "orders-db"];
        let command = self.world.ascribe(&asked);
        let running = Running::start(command, &self.world.path("logs"), false);
        running.wait(Duration::from_secs(300)).exits(0).lines()
    }

    /// The action with this text, once it has an outcome.
    pub(super) fn action(&self, text: &str) -> Value {
        wait_for(text, PATIENCE, || {
            let mut found = self.actions();
            found.retain(|action| action["what"]["command"] == text);
            let one = found.pop()?;
            (!one["what"]["outcome"]["at"].is_null()).then_some(one)
        })
    }

    pub(super) fn server(&self) -> &Running {
        self.server.as_ref().unwrap()
    }

    /// Where the gateway's own port is.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Is it the process that was started?
    pub(super) fn is_up(&mut self) -> bool {
        self.server.as_mut().unwrap().ended().is_none()
    }

    /// Ends the server.
    pub(super) fn stop(&mut self) {
        super::world::end(self.server.take().unwrap());
    }

    /// Starts it again.
    pub(super) fn start(&mut self) {
        let (server, port) = serve(&mut self.world, &self.options);
        (self.server, self.port) = (Some(server), port);
    }

    /// Starts it again with further options, from now on.
    pub(super) fn start_with(&mut self, options: &[&str]) {
        self.stop();
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self.start();
    }

    /// Waits for the end of a server that was killed, and starts another.
    pub(super) fn restart(&mut self) {
        let mut gone = self.server.take().unwrap();
        wait_for("end of the server", PATIENCE, || gone.ended());
        self.start();
    }
}

fn serve(world: &mut World, options: &[String]) -> (Running, u16) {
    let (certificate, key) = (world.path("gateway.crt"), world.path("gateway.key"));
    let own = [
        "--postgres",
        "127.0.0.1:0",
        "--postgres-cert",
        certificate.to_str().unwrap(),
        "--postgres-key",
        key.to_str().unwrap(),
    ];
    let options = options.iter().map(String::as_str);
    let options: Vec<&str> = own.into_iter().chain(options).collect();
    let server = world.serve_with(&options);
    let said = server.stderr();
    let line = said
        .lines()
        .find(|line| line.starts_with("postgres "))
        .unwrap();
    let port = line.rsplit_once(':').unwrap().1.parse().unwrap();
    (server, port)
}
