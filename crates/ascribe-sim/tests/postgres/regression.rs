//! PostgreSQL's own regression suite, through the gateway and past it: both must print the same.
//!
//! It comes with PostgreSQL's source, which is not part of this project. `ASCRIBE_PG_REGRESS` names its
//! `src/test/regress`, of the server's major version; `ASCRIBE_LONG=1` is needed too, for it takes some
//! minutes. Differences are left in `target/tmp/regression`. The tests run one after the other in the
//! order of `parallel_schedule`. `docs/postgres-regression.md` says what differs, and why.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::bank::{Bank, PLACE, done};
use super::world::{Running, maybe, need};

/// Everything that a target may allow: the suite does all of it.
const ALL: [&str; 9] = [
    "set-role",
    "set-session-authorization",
    "alter-system",
    "copy-program",
    "server-file",
    "load",
    "do",
    "replication",
    "unread",
];

struct Suite {
    source: PathBuf,
    /// What the server writes and loads.
    build: PathBuf,
    logs: PathBuf,
}

impl Suite {
    /// Runs all tests; what each printed.
    fn run(&self, connection: &[(&str, String)]) -> Vec<(String, String)> {
        let schedule = std::fs::read_to_string(self.source.join("parallel_schedule")).unwrap();
        let groups = schedule
            .lines()
            .filter_map(|line| line.strip_prefix("test:"));
        let tests = groups.flat_map(str::split_whitespace);
        tests
            .map(|test| (test.to_owned(), self.test(test, connection)))
            .collect()
    }

    fn test(&self, test: &str, connection: &[(&str, String)]) -> String {
        let mut command = Command::new("sh");
        let file = self.source.join("sql").join(format!("{test}.sql"));
        let psql =
            "exec \"$0\" -X -a -q -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on < \"$1\" 2>&1";
        command.args(["-c", psql]).arg(need("psql")).arg(file);
        command
            .current_dir(&self.build)
            .envs(connection.iter().map(|(name, value)| (name, value)))
            .env("PGDATABASE", "regression")
            .env("PG_ABS_SRCDIR", &self.source)
            .env("PG_ABS_BUILDDIR", &self.build)
            .env("PG_LIBDIR", &self.build)
            .env("PG_DLSUFFIX", ".so")
            .env("PGTZ", "PST8PDT")
            .env("PGDATESTYLE", "Postgres, MDY")
            .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
            .env("PGSSLMODE", "disable")
            .env("PGCHANNELBINDING", "disable")
            .env("LC_MESSAGES", "C");
        let running = Running::start(command, &self.logs, true);
        running.wait(Duration::from_secs(400)).stdout
    }
}

/// The suite's own functions in C, if they can be compiled here: without them, more tests print errors.
fn library(source: &Path, to: &Path) {
    let Some(config) = maybe("pg_config") else {
        return;
    };
    let include = done(Command::new(config).arg("--includedir-server"));
    let built = Command::new(need("cc"))
        .args(["-shared", "-fPIC", "-w", "-I", include.trim()])
        .arg(source.join("regress.c"))
        .arg("-o")
        .arg(to.join("regress.so"))
        .output();
    if !built.is_ok_and(|built| built.status.success()) {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED in part: `regress.c` does not compile: apt-get install postgresql-server-dev-15\n")).unwrap();
    }
}

#[test]
fn the_servers_own_regression_suite_prints_the_same_through_the_gateway() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let source = std::env::var_os("ASCRIBE_PG_REGRESS").filter(|_| long);
    let Some(source) = source.map(PathBuf::from) else {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: the regression suite: ASCRIBE_LONG=1 ASCRIBE_PG_REGRESS=SOURCE/src/test/regress runs it\n")).unwrap();
        return;
    };
    let dir = tempfile::TempDir::new().unwrap();
    let prepare = |bank: &Bank, name: &str| {
        let build = dir.path().join(name);
        for made in ["", "results", "testtablespace"] {
            std::fs::create_dir_all(build.join(made)).unwrap();
        }
        library(&source, &build);
        done(Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()));
        bank.cluster
            .sql("postgres", "alter system set max_prepared_transactions = 2");
        bank.cluster.sql(
            "postgres",
            "create database regression template template0 owner dba",
        );
        for set in [
            "lc_messages = 'C'",
            "lc_monetary = 'C'",
            "lc_numeric = 'C'",
            "lc_time = 'C'",
            "bytea_output = 'hex'",
            "timezone_abbreviations = 'Default'",
        ] {
            bank.cluster
                .sql("postgres", &format!("alter database regression set {set}"));
        }
        Suite {
            source: source.clone(),
            build,
            logs: bank.world.path("logs"),
        }
    };
    let host = ("PGHOST", "127.0.0.1".to_owned());
    // The name of the directory is printed, so it is the same.
    let direct = {
        let bank = Bank::open();
        let suite = prepare(&bank, "suite");
        let port = ("PGPORT", bank.cluster.port.to_string());
        let role = ("PGUSER", "dba".to_owned());
        let password = ("PGPASSWORD", super::bank::PASSWORD.to_owned());
        suite.run(&[host.clone(), port, role, password])
    };
    std::fs::remove_dir_all(dir.path().join("suite")).unwrap();
    let through = {
        let allow: Vec<&str> = ALL.iter().flat_map(|flag| ["--allow", flag]).collect();
        let mut bank = Bank::without_grant(&allow);
        bank.grant(&["--reusable"]);
        let (_tunnel, port) = bank.tunnel();
        let suite = prepare(&bank, "suite");
        let port = ("PGPORT", port.to_string());
        let said = suite.run(&[host, port, ("PGUSER", PLACE.to_owned())]);
        assert!(bank.is_up());
        said
    };
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("regression");
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    let mut differing = Vec::new();
    for ((test, direct), (_, through)) in direct.iter().zip(&through) {
        for (kind, said) in [("direct", direct), ("through", through)] {
            std::fs::create_dir_all(place.join(kind)).unwrap();
            std::fs::write(place.join(kind).join(format!("{test}.out")), said).unwrap();
        }
        if direct != through {
            differing.push(test.as_str());
        }
    }
    eprintln!("{} tests; other output in {differing:?}", direct.len());
    assert!(
        differing.is_empty(),
        "{differing:?}: see {}",
        place.display()
    );
}
