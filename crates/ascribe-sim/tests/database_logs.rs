//! A real PostgreSQL with pgaudit, its three logs, and what we make of its texts.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ascribe_sql::{Class, Encoding, Reading};
use ascribe_wire::pglog::{Format, From, Kind, Reader, Record};

/// Statements, each run by itself, and a text of several.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE t (a int PRIMARY KEY, note text)",
    "INSERT INTO t VALUES (1, 'a, \"quoted\"\n\tand a new line; -- no comment')",
    "INSERT INTO t SELECT generate_series(2, 9)",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET note = 'x'",
    "SELECT *\nFROM t /* ; */ WHERE note = $x$;$x$ ",
    "WITH x AS (DELETE FROM t WHERE a = 2 RETURNING *) SELECT * FROM x",
    "UPDATE t SET note = (SELECT max(note) FROM t)",
    "MERGE INTO t USING (VALUES (3)) v (b) ON a = b WHEN MATCHED THEN DELETE",
    "EXPLAIN ANALYZE DELETE FROM t WHERE a = 4",
    "EXPLAIN DELETE FROM t",
    "COPY (SELECT 1) TO STDOUT",
    "COPY (DELETE FROM t WHERE a = 5 RETURNING a) TO STDOUT",
    "COPY t TO PROGRAM 'cat >/dev/null'",
    "CREATE TABLE u AS SELECT * FROM t",
    "SELECT * INTO w FROM t",
    "CREATE VIEW v AS SELECT * FROM t",
    "CREATE INDEX ON t (note)",
    "ALTER TABLE t ADD COLUMN b int DEFAULT length('x')",
    "TRUNCATE u",
    "DROP TABLE u",
    "CREATE ROLE bob",
    "GRANT SELECT ON t TO bob",
    "ALTER ROLE bob SET role = 'alice'",
    "SET ROLE bob",
    "RESET ROLE",
    "SET search_path = public",
    "SELECT set_config('role', 'bob', true)",
    "DO $x$ BEGIN PERFORM 1; END $x$",
    "BEGIN",
    "VACUUM t",
    "LOCK TABLE t",
    "SHOW search_path",
    "SELECT 1; SELECT 2 AS \"two;\"",
];

struct Server {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

/// A command as whoever may run the server: it refuses root.
fn command(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program);
    command
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

impl Server {
    /// A new server that logs everything, or none where the programs are missing.
    fn start() -> Option<Self> {
        let bin = PathBuf::from("/usr/lib/postgresql/15/bin");
        let needed = [bin.join("initdb"), bin.join("../lib/pgaudit.so")];
        if let Some(missing) = needed.iter().find(|file| !file.exists()) {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!(
                    "SKIPPED: {} is missing (apt-get install postgresql-15-pgaudit)\n",
                    missing.display()
                ),
            )
            .unwrap();
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        if rustix::process::getuid().is_root() {
            let status = Command::new("chown")
                .arg("postgres")
                .arg(dir.path())
                .status();
            assert!(status.unwrap().success());
        }
        let server = Self { dir, bin };
        let data = server.data();
        let mut init = command(&server.bin.join("initdb"));
        init.args([
            "-U",
            "alice",
            "-A",
            "trust",
            "--locale=C.UTF-8",
            "-E",
            "UTF8",
            "-N",
            "-D",
        ]);
        done(&init.arg(&data).output().unwrap());
        let settings = "listen_addresses = ''\nlogging_collector = on\nlog_filename = 'pg.log'\n\
            log_destination = 'stderr,csvlog,jsonlog'\nlog_line_prefix = '%m %p %c %r %a '\n\
            log_timezone = 'UTC'\nlog_statement = 'all'\nlog_connections = on\nlog_disconnections = on\n\
            shared_preload_libraries = 'pgaudit'\npgaudit.log = 'all'\nfsync = off\n";
        let settings = format!(
            "{settings}unix_socket_directories = '{}'\n",
            server.dir.path().display()
        );
        let conf = data.join("postgresql.conf");
        // Written in place, so that the file stays its owner's.
        let all = std::fs::read_to_string(&conf).unwrap() + &settings;
        std::fs::write(&conf, all).unwrap();
        assert!(server.control("start"));
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts or stops the server.
    fn control(&self, what: &str) -> bool {
        let mut control = command(&self.bin.join("pg_ctl"));
        control
            .args(["-w", "-m", "fast", "-l", "/dev/null", "-D"])
            .arg(self.data());
        let status = control.arg(what).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    fn run(&self, text: &str) {
        let mut psql = command(&self.bin.join("psql"));
        psql.args(["-X", "-q", "-U", "alice", "-d", "postgres", "-h"]);
        psql.arg(self.dir.path()).env("PGAPPNAME", "ascribe/test");
        // An error is in the logs too, and is not what is looked for.
        drop(psql.arg("-c").arg(text).output().unwrap());
    }

    fn log(&self, name: &str, format: Format) -> Vec<Record> {
        let mut reader = Reader::new(format);
        let bytes = std::fs::read(self.data().join("log").join(name)).unwrap();
        let mut records = reader.push(&bytes);
        records.extend(reader.finish());
        records.into_iter().map(|record| record.unwrap()).collect()
    }
}

impl Drop for Server {
    /// Where a test failed before it stopped the server.
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.control("stop");
        }
    }
}

/// The classes of which a text has one, where pgaudit has put it into its own.
fn expected(class: &str) -> &'static [Class] {
    match class {
        "READ" => &[Class::Select, Class::CopyOut],
        "WRITE" => &[
            Class::Insert,
            Class::Update,
            Class::Delete,
            Class::Merge,
            Class::Truncate,
            Class::CopyIn,
            // `CREATE TABLE AS` and `SELECT INTO` write what they define.
            Class::Ddl,
        ],
        "DDL" => &[Class::Ddl],
        "ROLE" => &[Class::Privilege],
        "FUNCTION" => &[Class::Do, Class::Call],
        "MISC" => &[
            Class::Transaction,
            Class::Maintenance,
            Class::Lock,
            Class::Show,
            Class::Explain,
            Class::Set,
            Class::SetRole,
            // pgaudit 1.7 does not know `MERGE`.
            Class::Merge,
        ],
        other => panic!("{other}"),
    }
}

#[test]
fn the_logs_of_a_server_say_what_ran_and_pgaudit_agrees_with_our_classes() {
    let Some(server) = Server::start() else {
        return;
    };
    for text in STATEMENTS {
        server.run(text);
    }
    assert!(server.control("stop"));
    let reading = Reading {
        encoding: Encoding::Utf8,
        standard_conforming_strings: true,
        replication: false,
    };
    let mut audited = BTreeSet::new();
    for (name, format) in [
        ("pg.csv", Format::Csv),
        ("pg.json", Format::Json),
        ("pg.log", Format::Stderr),
    ] {
        let mut ran = Vec::new();
        for record in server.log(name, format) {
            match record.kind {
                Kind::Ran(one) => {
                    assert_eq!(one.from, From::Simple);
                    assert_eq!(record.application.as_deref(), Some("ascribe/test"));
                    assert_eq!(record.session.map(|session| session.pid), Some(record.pid));
                    ran.push(one.text);
                }
                Kind::Audit(audit) => {
                    let text = audit.statement.unwrap();
                    let all = ascribe_sql::read(text.as_bytes(), reading).unwrap();
                    let classes: Vec<Class> = all.into_iter().flat_map(|one| one.classes).collect();
                    let one_of = expected(&audit.class);
                    // pgaudit counts what is only explained as if it were run.
                    let explained = classes == [Class::Explain];
                    let found = explained || classes.iter().any(|class| one_of.contains(class));
                    assert!(
                        found,
                        "{text}: {} {}, {classes:?}",
                        audit.class, audit.command
                    );
                    audited.insert(audit.class);
                }
                _ => {}
            }
        }
        assert_eq!(ran, STATEMENTS, "{name}");
    }
    let classes = ["DDL", "FUNCTION", "MISC", "READ", "ROLE", "WRITE"];
    assert_eq!(audited, BTreeSet::from(classes.map(str::to_owned)));
}
