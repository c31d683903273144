//! Two trails that reconcile: the server's own log beside the ledger.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::bank::{Bank, PLACE, has_library};
use super::world::{Out, PATIENCE, Running, maybe, need, wait_for};

/// The server writes its log three times.
const THREE: [&str; 7] = [
    "logging_collector=on",
    "log_destination=stderr,csvlog,jsonlog",
    "log_filename=pg.log",
    "log_file_mode=0644",
    "log_timezone=UTC",
    "log_connections=on",
    "log_disconnections=on",
];
const ENDINGS: [&str; 3] = ["csv", "json", "log"];

/// Why it turns away whom it has let in: then it does not say that a session has ended. A name in quotes is quoted as
/// each format does.
const TURNED_AWAY: [&str; 5] = [
    "database \"nowhere\" does not exist",
    "database \"\"nowhere\"\" does not exist",
    "database \\\"nowhere\\\" does not exist",
    "is not currently accepting connections",
    "unrecognized configuration parameter",
];

/// A day of the server's log: what came after its setup.
struct Day {
    bank: Bank,
    from: [usize; 3],
}

impl Day {
    fn begin(settings: &[&str]) -> Self {
        Self::on(None, settings)
    }

    fn on(bin: Option<&Path>, settings: &[&str]) -> Self {
        let bank = Bank::with_settings_on(&[&THREE[..], settings].concat(), bin);
        let mut day = Self { bank, from: [0; 3] };
        day.from = day.logs().map(|log| log.len());
        day
    }

    /// All of the log in each format, once every session in it has ended.
    fn logs(&self) -> [String; 3] {
        wait_for("end of all sessions in the log", PATIENCE, || {
            let read = |ending| std::fs::read_to_string(self.bank.cluster.log_file(ending)).ok();
            let [csv, json, log] = ENDINGS.map(read);
            let logs = [csv?, json?, log?];
            let ended = |log: &String| {
                let count = |text| log.matches(text).count();
                let begun = count("connection authorized: ");
                let turned_away: usize = TURNED_AWAY.iter().map(|why| count(why)).sum();
                begun > 0 && begun == count("disconnection: session time") + turned_away
            };
            logs.iter().all(ended).then_some(logs)
        })
    }

    /// The day's log as files of their own.
    fn files(&self) -> [PathBuf; 3] {
        let logs = self.logs();
        let mut files = ENDINGS.map(|ending| self.bank.world.path(&format!("day.{ending}")));
        for ((file, log), from) in files.iter_mut().zip(&logs).zip(self.from) {
            std::fs::write(file, &log.as_bytes()[from..]).unwrap();
        }
        files
    }

    /// Reconciles without a record, in every format; each finds the same.
    fn dry(&self, code: i32) -> Vec<Value> {
        let found = self.files().map(|file| {
            let out = self.reconcile(&[file.to_str().unwrap(), "--dry-run"]);
            out.exits(code).lines()
        });
        let summary = |lines: &[Value]| lines.last().unwrap()["report"].clone();
        assert_eq!(summary(&found[0]), summary(&found[1]));
        assert_eq!(summary(&found[0]), summary(&found[2]));
        let [csv, ..] = found;
        csv
    }

    fn reconcile(&self, arguments: &[&str]) -> Out {
        let command = [&["reconcile", "postgres"], arguments].concat();
        self.bank.world.run_as("auditor", &command)
    }

    /// What people and programs do on a day, all through the gateway; so many sessions.
    fn work(&self) -> u64 {
        let bank = &self.bank;
        let rows = bank.world.path("rows.csv");
        std::fs::write(&rows, "3,three\n4,four\n").unwrap();
        let script = bank.world.path("day.sql");
        let text = format!(
            "create table t (a int, b text);\n-- why\ninsert into t values (1, 'one; two');\n\
             \\copy t from '{}' csv\n\\d t\nselect $$it's$$,\n\t'two lines' /* and ; */;\n\
             prepare p as select 1;\nexecute p;\nbegin;\nselect 5/0;\nselect 6;\nrollback;\n",
            rows.display()
        );
        std::fs::write(&script, text).unwrap();
        bank.psql(&["-f", script.to_str().unwrap()]).exits(0);
        // One text of several; the last is skipped. One that cannot be read. One that is refused.
        bank.psql(&["-c", "select 7; select 8/0; select 9"])
            .exits(1);
        bank.psql(&[
            "-c",
            "selec 1",
            "-c",
            "set role postgres",
            "-c",
            "select ''",
        ]);
        // A client that claims to be somebody else, in a comment and by its name.
        bank.psql(&[
            "-c",
            "/* ascribe='a-0' */ set application_name = 'ascribe/s-0'",
            "-c",
            "select 'é'",
        ])
        .exits(0);
        4 + self.prepared()
    }

    /// The extended protocol, by pgbench; so many sessions.
    fn prepared(&self) -> u64 {
        let bank = &self.bank;
        let script = bank.world.path("bench.sql");
        std::fs::write(
            &script,
            "\\set x 5\nselect :x + 1;\nselect b from t where a = :x;\n",
        )
        .unwrap();
        let pgbench = maybe("pgbench").expect("these tests need PostgreSQL's `pgbench`");
        let (tunnel, port) = bank.tunnel();
        for mode in ["extended", "prepared"] {
            let mut command = Command::new(&pgbench);
            command
                .env("PGSSLMODE", "disable")
                .args(["-n", "-M", mode, "-c", "2", "-t", "5", "-f"])
                .arg(&script)
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "-U",
                    PLACE,
                    "orders",
                ]);
            bank.world.program(command).exits(0);
        }
        drop(tunnel);
        // One that looks around first, and two that work; each time.
        2 * 3
    }
}

fn summary(lines: &[Value]) -> Value {
    lines.last().unwrap()["report"].clone()
}

fn findings(lines: &[Value]) -> Vec<&Value> {
    let found = lines.iter().filter(|line| line["kind"] == "database-only");
    found.map(|line| &line["finding"]).collect()
}

/// What went by the gateway is named, and nothing else is.
fn names_exactly_the_planted_one(day: &Day) -> Vec<Value> {
    let session = day.bank.actions()[0]["session_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let name = format!("ascribe/{session}");
    let planted = day
        .bank
        .cluster
        .intrude(&name, "/* ascribe='a-1' */ delete from t");
    planted.exits(0);
    let lines = day.dry(4);
    let found = findings(&lines);
    let [finding] = found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(finding["user"], "dba");
    assert_eq!(finding["database"], "orders");
    assert_eq!(finding["remote"], "127.0.0.1");
    assert_eq!(finding["application"], name.as_str());
    assert_eq!(finding["ours"], Value::Null);
    assert_eq!(
        finding["texts"][0]["text"],
        "/* ascribe='a-1' */ delete from t"
    );
    assert_eq!(
        summary(&lines)["database_only"],
        json!({ "sessions": 1, "statements": 1 })
    );
    lines
}

#[test]
fn a_days_log_names_exactly_what_passed_the_gateway_by() {
    let mut day = Day::begin(&[]);
    let sessions = day.work();
    let lines = day.dry(0);
    let report = summary(&lines);
    assert_eq!(
        report["database_only"],
        json!({ "sessions": 0, "statements": 0 })
    );
    assert_eq!(report["matched"]["sessions"], sessions);
    assert_eq!(report["comparable"], true);
    assert_eq!(report["partly_logged"], false);
    assert_eq!(report["ours_only"]["sessions"], 0);
    let reasons = &report["reasons"];
    assert_eq!(reasons["failed with 42601"], 1, "{reasons}");
    assert_eq!(reasons["skipped"], 1, "{reasons}");
    assert_eq!(reasons["refused: flag"], 1, "{reasons}");
    is_told_what_was_refused(&day);
    // A wrong password is an attempt, and is told apart.
    let knock = Command::new("psql")
        .env("PGPASSWORD", "wrong")
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "dba",
            "-d",
            "orders",
            "-c",
            "select 1",
        ])
        .args(["-p", &day.bank.cluster.port.to_string()])
        .output();
    assert!(!knock.unwrap().status.success());
    assert!(summary(&day.dry(0))["knocked"].as_u64() > Some(0));
    let lines = names_exactly_the_planted_one(&day);
    // Gateways elsewhere: then none of these is one of theirs.
    let [csv, json, log] = day.files();
    let elsewhere = [csv.to_str().unwrap(), "--dry-run", "--from", "192.0.2.1"];
    let report = summary(&day.reconcile(&elsewhere).exits(4).lines());
    assert_eq!(report["matched"]["sessions"], 0);
    is_no_proof_when_spoilt(&day, &json, &log);
    is_short_for_people(&day, &csv);
    // Auditors look, and put on record what they found.
    let refused = day.bank.world.run_as(
        "operator",
        &["reconcile", "postgres", csv.to_str().unwrap()],
    );
    refused.exits(2);
    let both = [csv.to_str().unwrap(), log.to_str().unwrap()];
    assert!(
        day.reconcile(&both)
            .exits(3)
            .stderr
            .contains("several formats")
    );
    let recorded = day.reconcile(&[csv.to_str().unwrap()]).exits(4).lines();
    let id = recorded.last().unwrap()["statement_id"]
        .as_str()
        .unwrap()
        .to_owned();
    is_shown_later(&day, &id, &lines);
    is_on_record(&mut day, &id, &std::fs::read(&csv).unwrap(), &lines);
}

#[test]
fn the_logs_of_newer_servers_are_read_in_all_their_forms() {
    for version in super::drivers::SERVERS {
        let Some(bin) = super::drivers::server(version) else {
            return;
        };
        let day = Day::on(Some(&bin), &[]);
        let sessions = day.work();
        let report = summary(&day.dry(0));
        assert_eq!(
            report["matched"]["sessions"], sessions,
            "{version}: {report}"
        );
        let nothing = json!({ "sessions": 0, "statements": 0 });
        assert_eq!(report["database_only"], nothing, "{version}: {report}");
        assert_eq!(report["partly_logged"], false, "{version}: {report}");
        names_exactly_the_planted_one(&day);
    }
}

/// The server lets the gateway in and then refuses it, or does not let it in: that is no bypass. One from the same
/// port later is. `ASCRIBE_LONG=1` waits for that port.
#[test]
fn what_the_server_turns_away_is_no_bypass_and_hides_none() {
    let mut day = Day::begin(&[]);
    let sessions = day.work();
    let bank = &day.bank;
    let turned_away = |database: &str, options: &str, why: &str| {
        let mut command = bank.world.ascribe(&["--key"]);
        command.arg(bank.world.person("operator").1);
        command.args(["psql", PLACE, "--", "-X", "-d", database, "-c", "select 1"]);
        command.env("PGOPTIONS", options);
        let out = bank.world.program(command).exits(2);
        assert!(out.stderr.contains(why), "{why}: {}", out.stderr);
    };
    turned_away("nowhere", "", "does not exist");
    turned_away("template0", "", "not currently accepting connections");
    turned_away(
        "orders",
        "-c nonsense=1",
        "unrecognized configuration parameter",
    );
    let report = summary(&day.dry(0));
    let nothing = json!({ "sessions": 0, "statements": 0 });
    assert_eq!(report["database_only"], nothing, "{report}");
    assert_eq!(report["matched"]["sessions"], sessions + 3);
    let failed = bank.actions();
    let failed: Vec<&Value> = failed
        .iter()
        .filter(|action| action["what"]["kind"] == "pg.connect")
        .map(|action| &action["what"]["outcome"])
        .filter(|outcome| outcome["status"] == "failed")
        .collect();
    let codes: Vec<&Value> = failed
        .iter()
        .map(|outcome| &outcome["sql"]["sqlstate"])
        .collect();
    assert_eq!(codes, ["3D000", "55000", "42704"]);
    let note = failed[0]["notes"][0].as_str().unwrap();
    let port: u16 = note.strip_prefix("tried ").unwrap().parse().unwrap();
    names_exactly_the_planted_one(&day);
    // It may take the machine a minute to lend that port again, which is not too late to be taken for ours.
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let one = |statements: u64| json!({ "sessions": 1, "statements": statements });
    if long {
        let text = "select 'from the same port'";
        comes_from(&day, port, "orders", text);
        let lines = day.dry(4);
        let same = findings(&lines);
        let same: Vec<_> = same
            .iter()
            .filter(|finding| finding["port"] == port)
            .collect();
        assert_eq!(same.len(), 1, "{lines:?}");
        assert_eq!(same[0]["texts"][0]["text"], text);
    }
    // A slice of the log with nothing but a password that is not the role's any more.
    day.from = day.logs().map(|log| log.len());
    day.bank.store("it was changed");
    let out = day.bank.psql(&["-c", "select 1"]).exits(2);
    let knocked = "password authentication failed";
    assert!(out.stderr.contains(knocked), "{}", out.stderr);
    wait_for("the log", PATIENCE, || {
        let slices = day
            .files()
            .map(|file| std::fs::read_to_string(file).unwrap());
        slices
            .iter()
            .all(|slice| slice.contains(knocked))
            .then_some(())
    });
    let report = summary(&day.dry(0));
    assert_eq!(report["database_only"], nothing, "{report}");
    assert_eq!(
        (&report["matched"]["sessions"], &report["knocked"]),
        (&json!(1), &json!(0)),
        "{report}"
    );
    // One that was refused, but in the time of this log we had no such one.
    if long {
        comes_from(&day, port, "nowhere", "");
        assert_eq!(summary(&day.dry(4))["database_only"], one(0));
    }
}

/// Straight to the server from this port, with the role's password.
fn comes_from(day: &Day, port: u16, database: &str, text: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let server = day.bank.cluster.port;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        wait_for("the port", Duration::from_secs(100), || {
            socket.bind(([127, 0, 0, 1], port).into()).ok()
        });
        let stream = socket
            .connect(([127, 0, 0, 1], server).into())
            .await
            .unwrap();
        let mut config = tokio_postgres::Config::new();
        config
            .user("dba")
            .password(super::bank::PASSWORD)
            .dbname(database);
        let connected = config.connect_raw(stream, tokio_postgres::NoTls).await;
        let Ok((client, connection)) = connected else {
            assert_eq!(database, "nowhere");
            return;
        };
        let connection = tokio::spawn(connection);
        client.simple_query(text).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

/// What the gateway refused is ours only, by the id that the client was told.
fn is_told_what_was_refused(day: &Day) {
    let told = day.bank.psql(&["-c", "set role postgres"]).exits(1).stderr;
    let id = told
        .lines()
        .find_map(|line| line.strip_prefix("DETAIL:  action "));
    let id = id.unwrap_or_else(|| panic!("{told}"));
    let lines = day.dry(0);
    let left = lines.iter().filter(|line| line["kind"] == "ours-only");
    let mut left = left.map(|line| &line["action"]);
    let refused = left.find(|left| left["action_id"] == id).unwrap();
    assert_eq!(refused["reason"], "refused: flag");
    assert!(refused["session_id"].as_str().unwrap().starts_with("s-"));
}

/// What was recorded is shown later, to auditors alone.
fn is_shown_later(day: &Day, id: &str, lines: &[Value]) {
    let run = |person: &str, command: &[&str]| {
        day.bank
            .world
            .run_as(person, &[&["reconcile"], command].concat())
    };
    let listed = run("auditor", &["list"]).exits(0).lines();
    let [one] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(one["statement_id"], id);
    assert_eq!(one["findings"], Value::Null);
    assert_eq!(one["by"], day.bank.world.person("auditor").0.as_str());
    let shown = run("auditor", &["show", id]).exits(0).line();
    assert_eq!(shown["findings"], json!(findings(lines)));
    assert_eq!(shown["said"]["targets"], json!(["orders-db"]));
    run("operator", &["list"]).exits(2);
    run("operator", &["show", id]).exits(2);
    let other = format!("st-{}", "0".repeat(26));
    run("auditor", &["show", &other]).exits(3);
    // For people.
    let auditor = day.bank.world.person("auditor").1;
    let mut command = day.bank.world.ascribe(&["--key"]);
    command.arg(auditor).args(["reconcile", "show", id]);
    let out = day.bank.world.program(command).exits(0);
    assert!(out.stdout.contains("BYPASS"), "{}", out.stdout);
    assert!(out.stdout.contains("delete from t"), "{}", out.stdout);
}

fn is_no_proof_when_spoilt(day: &Day, json: &Path, log: &Path) {
    // Who can write to a log may spoil it, which is no proof of anything.
    let spoilt = day.bank.world.path("spoilt.json");
    let whole = std::fs::read(json).unwrap();
    std::fs::write(&spoilt, &whole[..whole.len() - 10]).unwrap();
    let out = day
        .reconcile(&[spoilt.to_str().unwrap(), "--dry-run"])
        .exits(4);
    assert!(
        out.stderr.contains("the log ends within a record"),
        "{}",
        out.stderr
    );
    assert_eq!(out.lines().last().unwrap()["unreadable"], 1);
    let zone = std::fs::read_to_string(log)
        .unwrap()
        .replace(" UTC ", " CET ");
    let local = day.bank.world.path("local.log");
    std::fs::write(&local, zone).unwrap();
    let out = day
        .reconcile(&[local.to_str().unwrap(), "--dry-run"])
        .exits(3);
    assert!(
        out.stderr.contains("log_timezone = 'UTC'"),
        "{}",
        out.stderr
    );
}

fn is_short_for_people(day: &Day, csv: &Path) {
    // For people: short, each bypass in lines of its own.
    let auditor = day.bank.world.person("auditor").1;
    let mut command = day
        .bank
        .world
        .ascribe(&["reconcile", "postgres", "--dry-run", "--key"]);
    command.arg(auditor).arg(csv);
    let out = day.bank.world.program(command).exits(4);
    let line = |start: &str| {
        out.stdout
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or("none")
    };
    assert_eq!(
        line("database only"),
        "database only  1 sessions, 1 statements"
    );
    assert!(
        line("BYPASS").contains("user dba  database orders  from 127.0.0.1:"),
        "{}",
        out.stdout
    );
    assert!(out.stdout.contains("delete from t"), "{}", out.stdout);
}

/// The entry says what was found in which file, and everything verifies.
fn is_on_record(day: &mut Day, id: &str, file: &[u8], lines: &[Value]) {
    use sha2::{Digest as _, Sha256};
    day.bank.stop();
    let policy = day.bank.world.policy();
    day.bank
        .world
        .verify(&day.bank.world.data(), &policy)
        .exits(0);
    let reader = ascribe_ledger::Reader::open(&day.bank.world.data()).unwrap();
    let entries = reader.entries(0..reader.size()).unwrap();
    let said = entries.iter().zip(0..).find_map(|(bytes, index)| {
        let entry = ascribe_core::entry::Entry::from_bytes(bytes).unwrap();
        let ascribe_core::entry::Body::Statement(signed) = entry.body else {
            return None;
        };
        let statement = signed.statement().unwrap();
        let ascribe_core::statement::Say::Reconciliation(said) = statement.say else {
            return None;
        };
        assert_eq!(statement.id.to_string(), id);
        Some((index, said))
    });
    let (index, said) = said.unwrap();
    assert_eq!(said.targets, ["orders-db"]);
    assert_eq!(said.files.len(), 1);
    assert_eq!(said.files[0].bytes, file.len() as u64);
    assert_eq!(said.files[0].sha256.0.0[..], Sha256::digest(file)[..]);
    let report = summary(lines);
    let counts = json!([said.matched, said.ours_only, said.database_only]);
    let told = json!([
        report["matched"],
        report["ours_only"],
        report["database_only"]
    ]);
    assert_eq!(counts, told);
    // The list is sealed, and is what was shown.
    let openings = reader.openings(index).unwrap();
    let listed: Value = serde_json::from_slice(&openings[0].bytes.0).unwrap();
    assert_eq!(listed, json!(findings(lines)));
}

#[test]
fn pgaudits_lines_are_compared_where_the_server_logs_no_statements() {
    if !has_library("pgaudit.so") {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: pgaudit is not installed (Debian: postgresql-15-pgaudit)\n"),
        )
        .unwrap();
        return;
    }
    let settings = [
        "shared_preload_libraries=pgaudit",
        "pgaudit.log=all",
        "log_statement=none",
    ];
    let day = Day::begin(&settings);
    let sessions = day.work();
    let report = summary(&day.dry(0));
    assert_eq!(report["matched"]["sessions"], sessions);
    assert_eq!(
        report["database_only"],
        json!({ "sessions": 0, "statements": 0 })
    );
    names_exactly_the_planted_one(&day);
}

#[test]
fn a_log_without_statements_proves_nothing_of_them() {
    let day = Day::begin(&["log_statement=none"]);
    day.bank.psql(&["-c", "select 1"]).exits(0);
    let [csv, ..] = day.files();
    let out = day
        .reconcile(&[csv.to_str().unwrap(), "--dry-run"])
        .exits(4);
    assert!(out.stderr.contains("not comparable"), "{}", out.stderr);
    assert_eq!(summary(&out.lines())["comparable"], false);
    // A session that is not ours is named all the same.
    day.bank.cluster.intrude("x", "select 2").exits(0);
    let [csv, ..] = day.files();
    let out = day
        .reconcile(&[csv.to_str().unwrap(), "--dry-run"])
        .exits(4);
    assert!(
        out.stderr.contains("passed by: 1 sessions"),
        "{}",
        out.stderr
    );
}

#[test]
fn a_killed_server_leaves_a_log_that_reconciles() {
    let mut day = Day::begin(&[]);
    day.bank.psql(&["-c", "create table t (a int)"]).exits(0);
    let script = day.bank.world.path("many.sql");
    let many = (0..5000).map(|n| format!("insert into t values ({n});\n"));
    std::fs::write(&script, many.collect::<String>()).unwrap();
    let psql = ["-q", "-f", script.to_str().unwrap()];
    let psql = day.bank.psql_in_background(&psql);
    wait_for("some of the statements", PATIENCE, || {
        let log = std::fs::read_to_string(day.bank.cluster.log_file("csv")).unwrap();
        (log.matches("insert into t").count() > 100).then_some(())
    });
    day.bank.server().signal(Signal::KILL);
    drop(psql);
    day.bank.restart();
    day.bank.psql(&["-c", "select 'on'"]).exits(0);
    let report = summary(&day.dry(0));
    assert_eq!(report["matched"]["sessions"], 3);
    assert!(
        report["matched"]["statements"].as_u64() > Some(100),
        "{report}"
    );
}

/// A text with `?` for each constant and parameter, as the server counts texts together.
fn without_values(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.trim();
    let digit = |c: char| c.is_ascii_digit();
    while let Some(first) = rest.chars().next() {
        let in_word = out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let number = rest.trim_start_matches(['$', '-']);
        let word = rest
            .strip_prefix("true")
            .or_else(|| rest.strip_prefix("false"));
        if !in_word && number.starts_with(digit) {
            rest = number.trim_start_matches(digit);
            out.push('?');
        } else if let Some(behind) = word.filter(|_| !in_word) {
            rest = behind;
            out.push('?');
        } else if let Some(quoted) = rest.strip_prefix('\'') {
            rest = quoted.split_once('\'').map_or("", |(_, behind)| behind);
            out.push('?');
        } else if first.is_whitespace() {
            rest = rest.trim_start();
            out.push(' ');
        } else {
            out.push(first);
            rest = rest.strip_prefix(first).unwrap();
        }
    }
    out
}

/// The database's own counters and its audit beside the ledger, after the gateway was killed under load.
#[test]
fn what_the_server_counted_is_on_record_however_often_the_gateway_was_killed() {
    if !has_library("pgaudit.so") || !has_library("pg_stat_statements.so") {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: pgaudit or pg_stat_statements is not installed\n"),
        )
        .unwrap();
        return;
    }
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let rounds = if long { 20 } else { 1 };
    let settings = [
        "shared_preload_libraries=pg_stat_statements,pgaudit",
        "pgaudit.log=all",
        "log_statement=none",
    ];
    let mut day = Day::begin(&settings);
    let tool = ["-i", "-q", "-s", "1", "orders"];
    day.bank.cluster.tool("pgbench", &tool);
    let extension = "create extension pg_stat_statements";
    day.bank.cluster.sql("orders", extension);
    let done = |day: &Day| -> u64 {
        let count = "select count(*) from pgbench_history";
        let count = day.bank.cluster.sql("orders", count);
        count.trim().parse().unwrap()
    };
    for round in 0..rounds {
        for (mode, more) in [("simple", 37), ("extended", 203), ("prepared", 411)] {
            let (tunnel, port) = day.bank.tunnel();
            let before = done(&day);
            let mut command = super::drivers::client(&need("pgbench"), port);
            command.args(["-n", "-M", mode, "-c", "8", "-j", "2", "-T", "60"]);
            let load = Running::start(command, &day.bank.world.path("logs"), true);
            wait_for("load", PATIENCE, || {
                (done(&day) > before + 10).then_some(())
            });
            std::thread::sleep(Duration::from_millis((more * (1 + 7 * round)) % 900));
            day.bank.server().signal(Signal::KILL);
            drop((load, tunnel));
            day.bank.restart();
            super::large::gone(&day.bank);
        }
    }
    // All that the role ran, for nobody has it but the gateway; this test's own set-up is the superuser's.
    let counted = "select calls || ' ' || regexp_replace(query, '\\s+', ' ', 'g') from pg_stat_statements s \
                   join pg_roles r on r.oid = s.userid where rolname = 'dba'";
    let counted = day.bank.cluster.sql("orders", counted);
    let mut executed: HashMap<String, u64> = HashMap::new();
    for line in counted.lines() {
        let (calls, text) = line.split_once(' ').unwrap();
        *executed.entry(without_values(text)).or_default() += calls.parse::<u64>().unwrap();
    }
    let mut recorded: HashMap<String, (u64, u64)> = HashMap::new();
    for action in day.bank.all_actions() {
        let text = without_values(action["what"]["command"].as_str().unwrap_or_default());
        let (simple, extended) = recorded.entry(text).or_default();
        match action["what"]["kind"].as_str() {
            Some("pg.query") => *simple += 1,
            Some("pg.execute") => *extended += 1,
            _ => {}
        }
    }
    for (text, calls) in &executed {
        let (simple, extended) = recorded.get(text).copied().unwrap_or_default();
        assert!(
            simple + extended >= *calls,
            "{text}: {calls} calls, {simple} and {extended} are on record"
        );
    }
    // Each of pgbench's own, in each mode.
    let compared = |start: &str| {
        let mut all = executed.iter().filter(|(text, _)| text.starts_with(start));
        let (text, calls) = all.next().unwrap_or_else(|| panic!("{start}: {counted}"));
        let (simple, extended) = recorded[text];
        assert!(
            *calls > 20 && simple > 5 && extended > 5,
            "{text}: {calls}, {simple}, {extended}"
        );
    };
    [
        "BEGIN",
        "UPDATE pgbench_accounts SET",
        "SELECT abalance FROM",
        "UPDATE pgbench_tellers SET",
        "UPDATE pgbench_branches SET",
        "INSERT INTO pgbench_history",
        "END",
    ]
    .into_iter()
    .for_each(compared);
    // Nobody passed the gateway by but this test, which looks at the database as its superuser.
    let lines = day.dry(4);
    for finding in findings(&lines) {
        assert_eq!(finding["user"], "postgres", "{finding}");
        assert_eq!(finding["ours"], Value::Null, "{finding}");
    }
    let matched = &summary(&lines)["matched"]["statements"];
    assert!(matched.as_u64() > Some(50), "{matched}");
}

/// `ASCRIBE_LONG=1` reads a gigabyte.
#[test]
fn a_large_log_is_read_in_bounded_memory() {
    use std::io::Write as _;
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let size: u64 = if long { 1 << 30 } else { 32 << 20 };
    let day = Day::begin(&[]);
    day.bank.psql(&["-c", "select 'ours'"]).exits(0);
    let [csv, ..] = day.files();
    let path = day.bank.world.path("large.csv");
    std::fs::copy(&csv, &path).unwrap();
    let begin = std::fs::read_to_string(&csv).unwrap();
    let (time, _) = begin.split_once(" UTC,").unwrap();
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    let mut file = std::io::BufWriter::new(file);
    let (mut written, mut sessions, mut statements) = (0, 0_u64, 0_u64);
    while written < size {
        let pid = 1000 + sessions % 30_000;
        let (start, port) = (0x6956_f000 + sessions, 20_000 + sessions % 40_000);
        sessions += 1;
        for n in 0..100 {
            let text = match n {
                0 => "connection authorized: user=dba database=orders".to_owned(),
                n => format!("statement: select {n} from orders where id = 'past the gateway'"),
            };
            statements += u64::from(n > 0);
            let line = format!(
                "{time} UTC,\"dba\",\"orders\",{pid},\"127.0.0.1:{port}\",{start:x}.{pid:x},{n},\"idle\",{time} UTC,3/1,0,\
                 LOG,00000,\"{text}\",,,,,,,,,\"x\",\"client backend\",,0\n"
            );
            written += line.len() as u64;
            file.write_all(line.as_bytes()).unwrap();
        }
    }
    file.into_inner().unwrap();
    let auditor = day.bank.world.person("auditor").1;
    let mut command = day.bank.world.ascribe(&["-o", "json", "--key"]);
    command.arg(auditor);
    command
        .args(["reconcile", "postgres", "--dry-run"])
        .arg(&path);
    let begun = std::time::Instant::now();
    let mut running = Running::start(command, &day.bank.world.path("logs"), false);
    let mut peak = 0;
    wait_for("comparison", Duration::from_secs(1200), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(number.unwrap_or(0_u64));
        running.ended()
    });
    let report = summary(&running.wait(PATIENCE).exits(4).lines());
    eprintln!(
        "{written} bytes, {sessions} sessions: {:?}, {peak} KiB",
        begun.elapsed()
    );
    assert_eq!(report["matched"]["statements"], 1);
    let passed = json!({ "sessions": sessions, "statements": statements });
    assert_eq!(report["database_only"], passed);
    assert!(peak < 256 * 1024, "{peak} KiB");
}

/// The gateway is killed when the server has let it in, and before it could record what came of that.
#[test]
fn a_session_whose_gateway_was_killed_while_it_connected_passed_nobody_by() {
    let mut day = Day::begin(&[]);
    // The server waits so long between letting somebody in and saying so.
    day.bank
        .cluster
        .sql("postgres", "alter system set post_auth_delay = 3");
    day.bank.cluster.sql("postgres", "select pg_reload_conf()");
    day.from = day.logs().map(|log| log.len());
    let from = day.from[0];
    let let_in = || {
        let log = std::fs::read(day.bank.cluster.log_file("csv")).unwrap();
        let log = String::from_utf8_lossy(&log[from..]).into_owned();
        log.contains("connection authorized: user=dba database=orders")
    };
    let psql = day.bank.psql_in_background(&["-c", "select 'never'"]);
    wait_for("the session to be let in", PATIENCE, || {
        let_in().then_some(())
    });
    day.bank.server().signal(Signal::KILL);
    drop(psql);
    day.bank.restart();
    let connected = day.bank.actions().pop().unwrap();
    assert_eq!(connected["what"]["kind"], "pg.connect");
    assert_eq!(connected["what"]["outcome"]["status"], "unknown");
    assert_eq!(connected["what"]["outcome"]["notes"], Value::Null);
    let port = connected["what"]["sql"]["port"].as_u64().unwrap();
    let [csv, ..] = day.logs();
    assert!(csv.contains(&format!("127.0.0.1:{port}")), "{port}: {csv}");
    assert!(!csv.contains("select 'never'"));
    let report = summary(&day.dry(0));
    assert_eq!(report["matched"]["sessions"], 1, "{report}");
    let nothing = json!({ "sessions": 0, "statements": 0 });
    assert_eq!(report["database_only"], nothing, "{report}");
    // Without the port that was recorded it would be somebody else's, as one from another port is.
    day.bank.cluster.intrude("other", "select 'by'").exits(0);
    let report = summary(&day.dry(4));
    assert_eq!(report["database_only"]["sessions"], 1, "{report}");
}
