//! What statements become, and what is not let through.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::bank::{Bank, PLACE};
use super::raw::{Raw, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, Running, wait_for};

#[test]
fn a_refused_statement_is_an_error_and_the_connection_goes_on() {
    let bank = Bank::open();
    let out = bank.psql(&[
        "-c",
        "set role postgres",
        "-c",
        "begin",
        "-c",
        "create table t (a int)",
        "-c",
        "do $$ begin end $$",
        "-c",
        "commit",
        "-c",
        "select 'on'",
    ]);
    assert!(
        out.stderr.contains("does not allow `set-role`"),
        "{}",
        out.stderr
    );
    assert!(out.stderr.contains("action a-"), "{}", out.stderr);
    // What was refused is an error like any other: the transaction is given up.
    assert!(out.stdout.contains("ROLLBACK"), "{}", out.stdout);
    assert!(out.exits(0).stdout.ends_with("on\n"));
    assert_eq!(
        bank.cluster
            .sql("orders", "select to_regclass('t') is null"),
        "t\n"
    );
    let log = bank.cluster.log();
    assert!(!log.contains("set role") && !log.contains("do $$"), "{log}");
    // What a target allows is run.
    bank.register(&["--allow", "do", "--allow", "set-role"]);
    bank.psql(&["-c", "do $$ begin end $$", "-c", "set role postgres"])
        .exits(0);
}

#[test]
fn a_refused_statements_id_leads_to_it() {
    let bank = Bank::open();
    let out = bank.psql(&["-c", "set role postgres"]).exits(1);
    let id = out
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("DETAIL:  action "));
    let id = id.unwrap_or_else(|| panic!("{}", out.stderr)).to_owned();
    let shown = wait_for("refusal", PATIENCE, || {
        let shown = bank.world.run(&["show", &id]);
        (shown.code == Some(0)).then_some(shown.stdout)
    });
    for part in [
        "Olu Operator",
        "set role postgres",
        "refused (flag); it never ran",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let listed = bank.world.run(&["actions", "--refused"]).exits(0).stdout;
    assert!(listed.lines().any(|line| line.ends_with(&id)), "{listed}");
    let record = bank
        .world
        .json(&["actions", "--refused", "--target", "orders-db"])
        .line();
    assert_eq!(record["names"][0]["name"], "Olu Operator");
    // Who holds none of that is not told of a database that nobody meant.
    let (key, psql) = (bank.world.person("operator").1, ["-c", "select 1"]);
    let mut command = bank.world.ascribe(&["--key"]);
    command
        .arg(key)
        .args(["psql", PLACE, "--", "-X"])
        .args(psql);
    let out = bank.world.program(command).exits(2);
    assert!(
        out.stderr
            .starts_with("no database is named, so psql asks for `dba`"),
        "{out:?}"
    );
    let can = bank.world.tell("operator", &["can"]).exits(0).stdout;
    assert!(
        can.contains("now:  ascribe psql dba@orders-db -- -d DATABASE"),
        "{can}"
    );
}

#[test]
fn each_statement_of_a_text_is_an_action_with_its_outcome() {
    let bank = Bank::open();
    let text = "create table t (a int); insert into t values (1), (2);\nselect 1/0; select 5";
    bank.psql(&["-c", text]).exits(1);
    let status = |text: &str| bank.action(text)["what"]["outcome"].clone();
    let inserted = status("insert into t values (1), (2)");
    assert_eq!(
        (&inserted["sql"]["tag"], &inserted["sql"]["rows"]),
        (&json!("INSERT 0 2"), &json!(2))
    );
    assert_eq!(inserted["notes"], json!(["later-failed"]));
    let failed = status("select 1/0");
    assert_eq!(
        (&failed["status"], &failed["sql"]["sqlstate"]),
        (&json!("failed"), &json!("22012"))
    );
    let skipped = status("select 5");
    assert_eq!(
        (&skipped["status"], &skipped["notes"]),
        (&json!("failed"), &json!(["skipped"]))
    );
    // What the server cannot read is on record as such.
    bank.psql(&["-c", "selec 1"]).exits(1);
    let unread = bank.action("selec 1");
    assert_eq!(unread["what"]["sql"]["classes"], json!(["unparsed"]));
    assert_eq!(unread["what"]["outcome"]["sql"]["sqlstate"], "42601");
}

#[test]
fn copied_data_is_counted_and_digested() {
    let bank = Bank::open();
    let rows = bank.world.path("rows.csv");
    let content: String = (0..20_000).map(|n| format!("{n},text {n}\n")).collect();
    std::fs::write(&rows, &content).unwrap();
    let script = bank.world.path("copy.sql");
    let out = bank.world.path("out.csv");
    std::fs::write(
        &script,
        format!(
            "create table t (a int, b text);\n\\copy t from '{}' csv\n\\copy t to '{}' csv\n\\d t\n\\lo_import '{}'\n",
            rows.display(),
            out.display(),
            rows.display()
        ),
    )
    .unwrap();
    bank.psql(&["-v", "ON_ERROR_STOP=1", "-f", script.to_str().unwrap()])
        .exits(0);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), content);
    let digest = {
        use sha2::Digest as _;
        let hash: [u8; 32] = sha2::Sha256::digest(&content).into();
        ascribe_core::encoding::base64url(&hash)
    };
    let actions = wait_for("copies", PATIENCE, || {
        let mut actions = bank.actions();
        actions.retain(|action| {
            let command = action["what"]["command"].as_str().unwrap_or_default();
            command.starts_with("COPY") && !action["what"]["outcome"]["at"].is_null()
        });
        (actions.len() == 2).then_some(actions)
    });
    for (action, stream) in actions.iter().zip(["copied-in", "copied-out"]) {
        let outcome = &action["what"]["outcome"];
        assert_eq!(outcome["sql"]["rows"], 20_000, "{action}");
        assert_eq!(outcome["streams"][0]["stream"], stream);
        assert_eq!(outcome["streams"][0]["bytes"], content.len());
        assert!(
            outcome["streams"][0]["sha256"]
                .as_str()
                .unwrap()
                .contains(&digest),
            "{action}"
        );
    }
    let called = |action: &&Value| action["what"]["kind"] == "pg.call";
    assert!(
        bank.actions().iter().any(|a| called(&a)),
        "large objects are functions"
    );
}

#[test]
fn a_grant_bounds_classes_and_objects_and_scripts() {
    let bank = Bank::without_grant(&[]);
    bank.cluster.sql(
        "orders",
        "create table t (a int); insert into t values (1); alter table t owner to dba",
    );
    bank.grant(&["--reusable", "--class", "select", "--object", "public.t"]);
    let out = bank.psql(&["-c", "select a from public.t"]).exits(0);
    assert_eq!(out.stdout.trim(), "1");
    for outside in [
        "delete from public.t",
        "select * from pg_authid",
        "select a from t",
        "selec 1",
    ] {
        let out = bank.psql(&["-c", outside]).exits(1);
        assert!(
            out.stderr.contains("not recorded, so not run"),
            "{outside}: {}",
            out.stderr
        );
    }
    assert_eq!(bank.cluster.sql("orders", "select count(*) from t"), "1\n");
}

#[test]
fn exactly_the_approved_script_runs_and_once() {
    let bank = Bank::without_grant(&[]);
    bank.cluster.sql(
        "orders",
        "create table t (a int); alter table t owner to dba",
    );
    let script = bank.world.path("repair.sql");
    std::fs::write(
        &script,
        "-- the repair\ninsert into t values (1);\ninsert into t values (2);\n",
    )
    .unwrap();
    bank.grant(&["--script", script.to_str().unwrap()]);
    let other = bank.world.path("other.sql");
    std::fs::write(
        &other,
        "insert into t values (1);\ninsert into t values (3);\n",
    )
    .unwrap();
    let ask = "ask for it: ascribe request dba@orders-db --script FILE --for 1h";
    let run = "insert into t values (1)";
    let out = bank.psql(&[
        "-c",
        "select 1",
        "-c",
        run,
        "-c",
        run,
        "-f",
        other.to_str().unwrap(),
        "-f",
        script.to_str().unwrap(),
    ]);
    assert!(
        out.stderr.contains("not in the approved script") && out.stderr.contains(ask),
        "{}",
        out.stderr
    );
    assert_eq!(
        bank.cluster.sql(
            "orders",
            "select string_agg(a::text, ',' order by a) from t"
        ),
        "1,2\n"
    );
    // It was for one session.
    let out = bank.psql(&["-f", script.to_str().unwrap()]).exits(2);
    assert!(out.stderr.contains("was for one session"), "{}", out.stderr);
}

#[test]
fn ctrl_c_cancels_on_record() {
    is_cancelled_on_record(&Bank::open());
}

/// Ctrl-C in a client of this bank's.
pub(super) fn is_cancelled_on_record(bank: &Bank) {
    let mut psql = bank.psql_in_background(&["-c", "select pg_sleep(30)"]);
    wait_for("sleeping statement", PATIENCE, || {
        assert!(psql.ended().is_none(), "{}", psql.stderr());
        bank.cluster
            .log()
            .contains("select pg_sleep(30)")
            .then_some(())
    });
    psql.signal_group(Signal::INT);
    let out = psql.wait(Duration::from_secs(10));
    assert!(
        out.stderr
            .contains("canceling statement due to user request"),
        "{}",
        out.stderr
    );
    assert_eq!(
        bank.action("select pg_sleep(30)")["what"]["outcome"]["sql"]["sqlstate"],
        "57014"
    );
    let actions = bank.actions();
    let cancel = actions
        .iter()
        .find(|a| a["what"]["kind"] == "pg.cancel")
        .unwrap();
    assert_eq!(cancel["who"], bank.action("select pg_sleep(30)")["who"]);
}

#[test]
fn the_end_of_a_grant_is_told_and_stops_what_runs() {
    let bank = Bank::without_grant(&[]);
    let grant = bank.grant(&["--reusable"]);
    let mut psql = bank.psql_in_background(&["-c", "select pg_sleep(60)"]);
    wait_for("sleeping statement", PATIENCE, || {
        assert!(psql.ended().is_none(), "{}", psql.stderr());
        bank.cluster
            .log()
            .contains("select pg_sleep(60)")
            .then_some(())
    });
    bank.world
        .run_as(
            "approver",
            &["revoke", &grant, "--why", "the repair is over"],
        )
        .exits(0);
    let begun = Instant::now();
    let out = psql.wait(PATIENCE);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        out.stderr.contains("FATAL:  the grant was revoked"),
        "{}",
        out.stderr
    );
    assert!(
        out.stderr
            .contains("HINT:  to go on, ask anew: ascribe request dba@orders-db"),
        "{}",
        out.stderr
    );
    let ended = bank.action("select pg_sleep(60)");
    assert_eq!(ended["what"]["outcome"]["status"], "unknown");
    // The database was told to stop, too.
    wait_for("end of the statement", PATIENCE, || {
        let running =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%'";
        (bank.cluster.sql("orders", running) == "0\n").then_some(())
    });
}

#[test]
fn the_end_of_a_grant_by_the_clock_is_told_and_stops_what_runs() {
    let bank = Bank::without_grant(&[]);
    bank.grant_for("10s", &["--reusable"]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("select pg_sleep(300)"));
    let begun = Instant::now();
    let said = raw.rest();
    assert!(begun.elapsed() < Duration::from_secs(30));
    let last = said.last().unwrap();
    assert_eq!(last.code(), "57P01", "{said:?}");
    assert!(last.text().contains("has ended"), "{said:?}");
    let ended = bank.action("select pg_sleep(300)");
    assert_eq!(ended["what"]["outcome"]["status"], "unknown");
    super::large::gone(&bank);
}

/// In a group the server commits what comes before a COMMIT, and nothing else before its end.
#[test]
fn what_a_group_did_is_told_by_what_was_committed() {
    let bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "set role dba; create table one (a int primary key); \
         create table two (a int references one deferrable initially deferred)",
    );
    let (_tunnel, port) = bank.tunnel();
    let group = |texts: &[&str]| {
        let one = |text: &&str| [parse("", text), bind("", "", &[]), execute("")].concat();
        texts.iter().map(one).collect::<Vec<_>>().concat()
    };
    let told = |text: &str| {
        let outcome = bank.action(text)["what"]["outcome"].clone();
        let code = outcome["sql"]["sqlstate"].clone();
        (outcome["status"].clone(), outcome["notes"].clone(), code)
    };
    let mut raw = Raw::ready(port);
    let texts = [
        "begin",
        "insert into one values (1)",
        "commit",
        "insert into two values (7)",
    ];
    let said = raw.ask(&[group(&texts), sync()].concat());
    assert_eq!(
        said.iter().find(|said| said.kind == b'E').unwrap().code(),
        "23503"
    );
    let (status, notes, code) = told(texts[1]);
    assert_eq!(
        (status, notes, code),
        (json!("succeeded"), Value::Null, Value::Null)
    );
    let (status, notes, code) = told(texts[3]);
    assert_eq!(
        (status, notes, code),
        (json!("failed"), json!(["undone"]), json!("23503"))
    );
    assert_eq!(bank.cluster.sql("orders", "select a from one"), "1\n");
    // An error takes back what its group did before.
    let texts = ["insert into one values (2)", "select 1/0"];
    raw.ask(&[group(&texts), sync()].concat());
    let (status, notes, _) = told(texts[0]);
    assert_eq!(
        (status, notes),
        (json!("succeeded"), json!(["later-failed"]))
    );
    // Whoever leaves without the end of the group leaves nothing behind.
    let text = "insert into one values (3)";
    raw.say(&[group(&[text]), message(b'H', b"")].concat());
    raw.until(b'C');
    drop(raw);
    let (status, notes, _) = told(text);
    assert_eq!((status, notes), (json!("unknown"), json!(["unended"])));
    assert_eq!(bank.cluster.sql("orders", "select a from one"), "1\n");
}

/// A long text is prepared once, and run by many short messages that come together.
#[test]
fn short_messages_that_run_a_long_text_do_not_make_the_gateway_hold_it_for_each() {
    const TIMES: usize = 800;
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let text = format!("select 1 /*{}*/", "x".repeat(256 * 1024));
    let mut raw = Raw::ready(port);
    let said = raw.ask(&[parse("s", &text), sync()].concat());
    assert_eq!(kinds(&said), "1Z");
    let before = bank.peak();
    let runs = [bind("", "s", &[]), execute("").repeat(TIMES), sync()];
    let said = raw.ask(&runs.concat());
    let done = said.iter().filter(|said| said.kind == b'C').count();
    assert_eq!(done, TIMES, "{:?}", said.last());
    let more = bank.peak() - before;
    // Each of them held at once would be 200 MiB, several times over.
    assert!(more < 256 * 1024, "{more} KiB more are held at once");
}

#[test]
fn values_are_kept_as_the_rules_say() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let digest = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(r#"["it's","two"]"#);
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        format!("sha256:{}", digits.collect::<String>())
    };
    for (policy, kept) in [
        ("full", json!(r#"["it's","two"]"#)),
        ("commitment", json!(digest)),
        ("none", Value::Null),
    ] {
        bank.register(&["--values", policy]);
        let text = format!("select $1::text || $2::text as {policy}");
        let mut raw = Raw::ready(port);
        let all = [
            parse("", &text),
            bind("", "", &[b"it's", b"two"]),
            execute(""),
            sync(),
        ];
        assert_eq!(kinds(&raw.ask(&all.concat())), "12DCZ");
        let done = bank.action(&text);
        assert_eq!(done["what"]["kind"], "pg.execute");
        assert_eq!(done["what"]["sql"]["values"], kept, "{policy}");
        drop(raw);
        let bundle = bank.exported(&done);
        bank.world.checked_by_another(&bundle);
    }
}

/// Whatever the grant is for. What an entry cannot hold is left out, and the statement runs.
/// Names are what somebody typed: they are sealed with their statement, but where the grant asks for them.
#[test]
fn what_a_statement_names_is_sealed_with_it_unless_the_grant_asks() {
    let bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table \"hunter2 4111\" (id int); alter table \"hunter2 4111\" owner to dba",
    );
    let text = "select count(*) from \"hunter2 4111\"";
    bank.psql(&["-c", text]).exits(0);
    let done = bank.action(text);
    assert_eq!(done["what"]["sql"]["classes"], json!(["select"]));
    // Who may open the text is told from it.
    assert_eq!(done["what"]["sql"]["objects"], json!(["hunter2 4111"]));
    assert_eq!(done["what"]["sql"]["objects_from"], "text");
    let segment = std::fs::read(bank.world.data().join("segments/00000000.seg")).unwrap();
    let has = |word: &[u8]| segment.windows(word.len()).any(|part| part == word);
    assert!(has(b"\"classes\":[\"select\"]") && !has(b"hunter2"));
}

#[test]
fn psql_watches_until_it_is_interrupted() {
    let bank = Bank::open();
    let script = bank.world.path("watch.sql");
    std::fs::write(&script, "select 'seen'\n\\watch 0.2\n").unwrap();
    let mut psql = bank.psql_in_background(&["-f", script.to_str().unwrap()]);
    let seen = || {
        let mut seen = bank.actions();
        seen.retain(|action| {
            action["what"]["command"] == "select 'seen'"
                && action["what"]["outcome"]["status"] == "succeeded"
        });
        seen.len()
    };
    wait_for("three looks", PATIENCE, || {
        assert!(psql.ended().is_none(), "{}", psql.stderr());
        (seen() >= 3).then_some(())
    });
    psql.signal_group(Signal::INT);
    let out = psql.wait(Duration::from_secs(10));
    let shown = out.stdout.matches("seen").count();
    assert!(shown >= 3, "{out:?}");
    assert!(seen() >= shown, "{out:?}");
}

/// A client that says when it is there, and what it is told.
const OBEDIENT: &str = "#!/bin/sh\n\
    for signal in TERM HUP INT; do trap \"echo told $signal; exit 7\" $signal; done\n\
    echo there\nwhile :; do sleep 0.05; done\n";
const DEAF: &str = "#!/bin/sh\ntrap '' TERM\necho there\nwhile :; do sleep 0.05; done\n";

/// Who ends `ascribe psql` ends its client as well, and is told how that ended.
#[test]
fn a_client_ends_with_the_program_that_runs_it() {
    let bank = Bank::open();
    let asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'";
    let sleepers = |count: &str| {
        let is_so = || (bank.cluster.sql("orders", asleep).trim() == count).then_some(());
        wait_for("the sleep", PATIENCE, is_so);
    };
    let psql = bank.psql_in_background(&["-c", "select pg_sleep(600)"]);
    sleepers("1");
    psql.signal(Signal::TERM);
    let out = psql.wait(Duration::from_secs(5));
    assert_eq!(out.code, Some(128 + 15), "{out:?}");
    sleepers("0");

    let programs = bank.world.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let client = |text: &str, by: &[&str]| {
        let program = programs.join("psql");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let own = bank.psql_command(&[]);
        let mut command = Command::new(by.first().map_or(own.get_program(), OsStr::new));
        command.args(by.get(1..).unwrap_or_default());
        if !by.is_empty() {
            command.arg(own.get_program());
        }
        command.args(own.get_args()).env("PATH", &path);
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let running = Running::start(command, &bank.world.path("logs"), true);
        let there = || running.stdout().contains("there").then_some(());
        wait_for("the client", PATIENCE, there);
        running
    };
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        // It is at no terminal, from which it would come to the client anyway.
        (Signal::INT, "INT"),
    ] {
        let running = client(OBEDIENT, &[]);
        running.signal(signal);
        let out = running.wait(Duration::from_secs(5));
        assert_eq!(out.code, Some(7), "{name}: {out:?}");
        assert!(out.stdout.contains(&format!("told {name}\n")), "{out:?}");
    }
    let deaf = client(DEAF, &[]);
    deaf.signal(Signal::TERM);
    let out = deaf.wait(Duration::from_secs(20));
    assert_eq!(out.code, Some(128 + 9), "{out:?}");
    // What was ignored before stays ignored.
    let mut kept = client(OBEDIENT, &["nohup"]);
    kept.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(500));
    assert!(kept.ended().is_none());
    kept.signal(Signal::TERM);
    let out = kept.wait(Duration::from_secs(5));
    assert!(out.stdout.ends_with("there\ntold TERM\n"), "{out:?}");
}

#[test]
fn a_killed_server_leaves_nothing_executed_that_is_not_recorded() {
    let mut bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table t (a int); alter table t owner to dba",
    );
    let script = bank.world.path("many.sql");
    let many: String = (0..5000)
        .map(|n| format!("insert into t values ({n});\n"))
        .collect();
    std::fs::write(&script, many).unwrap();
    let psql = bank.psql_in_background(&["-q", "-f", script.to_str().unwrap()]);
    wait_for("some of the statements", PATIENCE, || {
        let count = bank.cluster.sql("orders", "select count(*) from t");
        (count.trim().parse::<u32>().unwrap() > 100).then_some(())
    });
    bank.server().signal(Signal::KILL);
    drop(psql);
    bank.restart();
    let recorded: std::collections::BTreeSet<String> = bank
        .actions()
        .iter()
        .filter_map(|action| Some(action["what"]["command"].as_str()?.to_owned()))
        .collect();
    let executed = bank.cluster.sql("orders", "select a from t order by a");
    for row in executed.lines() {
        let text = format!("insert into t values ({row})");
        assert!(
            recorded.contains(&text),
            "{text} was executed and is not on record"
        );
    }
    // Whether one was under way is chance; none is left without an end.
    let ended = |action: &Value| !action["what"]["outcome"]["at"].is_null();
    assert!(bank.actions().iter().all(ended));
    bank.psql(&["-c", "select 'on'"]).exits(0);
}
