//! Many clients at once that mean no good: they get what is theirs, and no more.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::bank::Bank;
use super::raw::{Raw, Said, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, Running, maybe, need, wait_for};

/// What each of the greedy prepares again and again.
const STATEMENT: usize = 60_000;

fn code(said: &[Said]) -> Option<String> {
    let error = said.iter().find(|said| said.kind == b'E')?;
    let mut fields = error.body.split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C"))?;
    Some(String::from_utf8_lossy(code).into_owned())
}

/// Prepares until it is refused; how often, and what it is told.
fn hoards(raw: &mut Raw, most: usize) -> (usize, Vec<Said>) {
    let text = format!("select 1 -- {}", "x".repeat(STATEMENT));
    for n in 0..most {
        let said = raw.ask(&[parse(&format!("s{n}"), &text), sync()].concat());
        if kinds(&said) != "1Z" {
            return (n, said);
        }
    }
    panic!("{most} of {STATEMENT} bytes were not refused");
}

#[test]
fn what_clients_make_the_gateway_hold_is_bounded_over_all_of_them() {
    const MIB: usize = 8;
    let mut bank = Bank::served_with(&["--postgres-memory", &MIB.to_string()]);
    let (_tunnel, port) = bank.tunnel();
    let before = bank.peak();
    let mut greedy: Vec<Raw> = (0..12).map(|_| Raw::ready(port)).collect();
    let mut held = 0;
    for raw in &mut greedy {
        let (times, said) = hoards(raw, MIB * 1024 * 1024 / STATEMENT);
        assert_eq!(kinds(&said), "EZ");
        assert_eq!(code(&said).as_deref(), Some("53200"), "{said:?}");
        assert!(
            said[0].text().contains("no memory for this now"),
            "{said:?}"
        );
        // What it has goes on, and it may do what takes nothing.
        if times > 0 {
            let run = [bind("", "s0", &[]), execute(""), sync()].concat();
            assert_eq!(kinds(&raw.ask(&run)), "2DCZ");
        }
        assert_eq!(kinds(&raw.ask(&query("select 'on'"))), "TDCZ");
        held += times * STATEMENT;
    }
    assert!(held < MIB << 20, "{held} bytes are held");
    assert!(held > MIB << 18, "{held} bytes are held");
    // Who comes last with little is served.
    let mut modest = Raw::ready(port);
    let all = [
        parse("s", "select $1::int"),
        bind("", "s", &[&[0, 0, 0, 7]]),
        execute(""),
        sync(),
    ];
    assert_eq!(kinds(&modest.ask(&all.concat())), "12DCZ");
    // A large message takes memory on its way: then there is none for it, and the session goes on.
    let said = modest.ask(&query(&format!("select 1 -- {}", "x".repeat(900_000))));
    assert_eq!(kinds(&said), "EZ", "{said:?}");
    assert_eq!(code(&said).as_deref(), Some("53200"), "{said:?}");
    assert_eq!(kinds(&modest.ask(&query("select 'still on'"))), "TDCZ");
    // What is closed makes room, at once.
    let close = message(b'Q', b"deallocate all\0");
    let said = greedy[0].ask(&close);
    assert_eq!(kinds(&said), "CZ", "{said:?}");
    greedy.truncate(1);
    wait_for("room", PATIENCE, || {
        let said = modest.ask(&query(&format!("select 1 -- {}", "x".repeat(300_000))));
        (kinds(&said) == "TDCZ").then_some(())
    });
    let more = bank.peak() - before;
    assert!(more < 192 * 1024, "{more} KiB more");
    assert!(bank.is_up());
}

#[test]
fn a_session_for_which_there_is_no_memory_is_refused_before_it_is_opened() {
    let bank = Bank::served_with(&["--postgres-memory", "8", "--per-address", "1000"]);
    let (_tunnel, port) = bank.tunnel();
    // They take what they can; what is left is for sessions.
    let mut greedy: Vec<Raw> = (0..8).map(|_| Raw::ready(port)).collect();
    greedy.iter_mut().for_each(|raw| drop(hoards(raw, 200)));
    let mut waiting = Vec::new();
    let said = loop {
        let mut raw = Raw::begun(port, &[]);
        let said = raw.hear().unwrap();
        if said.kind == b'E' {
            break said;
        }
        waiting.push(raw);
        assert!(waiting.len() < 90, "nobody is refused");
    };
    assert_eq!(code(std::slice::from_ref(&said)).as_deref(), Some("53300"));
    assert!(
        said.text().contains("no memory for another session"),
        "{said:?}"
    );
    drop(greedy);
    wait_for("room", PATIENCE, || {
        let said = Raw::begun(port, &[]).hear()?;
        (said.kind == b'R').then_some(())
    });
}

/// The same password from many at once: one of them comes in.
#[test]
fn a_password_that_many_show_at_once_lets_one_in() {
    let bank = Bank::open();
    for round in 0..3 {
        let token = bank.token();
        let text = format!("select 'in', {round}");
        let show = || {
            let mut command = Command::new(need("psql"));
            command
                .env("PGPASSWORD", &token)
                .args(["-X", "-A", "-t", "-c", &text])
                .arg(bank.at_the_port("sslmode=verify-full"))
                .stdin(Stdio::null());
            command.output().unwrap()
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let shown: Vec<_> = (0..8).map(|_| scope.spawn(show)).collect();
            shown.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (inside, outside): (Vec<_>, Vec<_>) = all.iter().partition(|out| out.status.success());
        assert_eq!(inside.len(), 1, "{all:?}");
        for out in outside {
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(
                said.contains("used before") || said.contains("was used"),
                "{said}"
            );
        }
        let ran = bank.actions();
        let ran = ran
            .iter()
            .filter(|action| action["what"]["command"] == text.as_str());
        assert_eq!(ran.count(), 1);
    }
}

/// A step waits for an answer when its grant is revoked: it does not run.
#[test]
fn what_waits_for_an_answer_does_not_run_once_its_grant_is_revoked() {
    let bank = Bank::without_grant(&[]);
    let grant = bank.grant(&["--reusable"]);
    bank.cluster.sql(
        "orders",
        "create table t (a int); alter table t owner to dba",
    );
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    // The name is one that an unanswered group gives.
    let first = [
        parse("s", "insert into t values (1)"),
        parse("", "select pg_sleep(60)"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ];
    let second = [bind("", "s", &[]), execute(""), sync()];
    raw.say(
        &[
            first.concat(),
            second.concat(),
            query("insert into t values (2)"),
        ]
        .concat(),
    );
    wait_for("the sleep", PATIENCE, || {
        let asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
        (bank.cluster.sql("orders", asleep).trim() == "1").then_some(())
    });
    let revoke = ["revoke", grant.as_str(), "--why", "the repair is over"];
    bank.world.run_as("approver", &revoke).exits(0);
    let said = raw.rest();
    let last = said.last().unwrap();
    assert!(
        last.kind == b'E' && last.text().contains("revoked"),
        "{said:?}"
    );
    super::large::gone(&bank);
    assert_eq!(
        bank.cluster.sql("orders", "select count(*) from t").trim(),
        "0"
    );
    let log = bank.cluster.log();
    assert!(!log.contains("insert into t values (2)"));
    let executed = |line: &&str| line.contains("execute") && line.contains("insert into t");
    assert_eq!(log.lines().find(executed), None);
}

/// Whatever is on record of a message is bounded, and so is what it may cost.
#[test]
fn messages_whose_record_is_larger_than_they_are_are_run_on_record_or_refused() {
    let mut bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let before = bank.peak();
    let mut raw = Raw::ready(port);
    let on = |raw: &mut Raw, said: &[Said], what: &str| {
        let fine =
            ["1Z", "12DCZ", "TDCZ", "EZ", "1EZ", "12EZ", "12CZ"].contains(&kinds(said).as_str());
        let told = said.iter().find(|said| said.kind == b'E').map(Said::text);
        assert!(fine, "{what}: {} {told:?}", kinds(said));
        assert_eq!(kinds(&raw.ask(&query("select 'on'"))), "TDCZ", "{what}");
    };
    // As JSON, each byte is six.
    let value = vec![1_u8; 1_000_000];
    let ask = [
        parse("", "select length($1::text)"),
        bind("", "", &[&value]),
        execute(""),
        sync(),
    ];
    let said = raw.ask(&ask.concat());
    on(&mut raw, &said, "a value of control characters");
    // As many values as can be.
    let mut body = b"\0\0\0\0\xff\xff".to_vec();
    body.extend([0, 0, 0, 0].repeat(65_535));
    body.extend([0, 0]);
    let said = raw.ask(
        &[
            parse("", "select 1"),
            message(b'B', &body),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    on(&mut raw, &said, "65535 values");
    // As many statements, and as many names, as there is room for.
    let said = raw.ask(&query(&"select 1;".repeat(100_000)));
    on(&mut raw, &said, "100000 statements");
    let names: Vec<String> = (0..4000)
        .map(|n| format!("\"{}{n:04}\".\"{}\"", "\"\"".repeat(27), "\"\"".repeat(31)))
        .collect();
    let said = raw.ask(&query(&format!("select 1 from {}", names.join(", "))));
    on(&mut raw, &said, "4000 names");
    let said = raw.ask(&query(&format!(
        "select {}1{}",
        "(".repeat(50_000),
        ")".repeat(50_000)
    )));
    on(&mut raw, &said, "50000 parentheses");
    let types = [&b"\0select 1\0\xff\xff"[..], &[0; 4 * 65_535]].concat();
    let said = raw.ask(&[message(b'P', &types), sync()].concat());
    on(&mut raw, &said, "65535 types");
    let more = bank.peak() - before;
    assert!(more < 400 * 1024, "{more} KiB more");
    assert!(bank.is_up());
    bank.stop();
    let (data, policy) = (bank.world.data(), bank.world.policy());
    bank.world.verify(&data, &policy).exits(0);
}

/// The ledger can no longer be written in the middle of bursts: nothing that is not on record runs.
#[test]
fn a_ledger_that_fails_within_a_burst_runs_nothing_that_it_has_not() {
    let Some(strace) = maybe("strace") else {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: `strace` is not installed\n"),
        )
        .unwrap();
        return;
    };
    let mut bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table t (a int); alter table t owner to dba",
    );
    for (round, call) in [
        "fdatasync:error=EIO",
        "pwrite64:error=ENOSPC",
        "fdatasync:signal=KILL",
    ]
    .into_iter()
    .enumerate()
    {
        let (tunnel, port) = bank.tunnel();
        let mut raw = Raw::ready(port);
        raw.ask(&query("select 'before'"));
        let mut command = Command::new(&strace);
        let segment = bank.world.data().join("segments/00000000.seg");
        command
            .args(["-f", "-o"])
            .arg(bank.world.path("trace"))
            .arg("-P")
            .arg(&segment)
            .args(["-e", &format!("inject={call}:when=9+")])
            .args(["-p", &bank.server().id().to_string()]);
        let mut tracer = Running::start(command, &bank.world.path("logs"), false);
        let attached = wait_for("tracer", PATIENCE, || {
            let attached = tracer.stderr().contains(" attached");
            (attached || tracer.ended().is_some()).then_some(attached)
        });
        if !attached {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!(
                    "SKIPPED: strace may not attach here: {}\n",
                    tracer.stderr().trim()
                ),
            )
            .unwrap();
            return;
        }
        // Bursts of fifty, without waiting for any answer.
        for burst in 0..200 {
            let one = |n: usize| {
                let text = format!(
                    "insert into t values ({})",
                    round * 100_000 + burst * 50 + n
                );
                [parse("", &text), bind("", "", &[]), execute(""), sync()].concat()
            };
            let all: Vec<u8> = (0..50).flat_map(one).collect();
            if std::io::Write::write_all(&mut raw.0, &all).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        raw.rest();
        drop((tracer, tunnel));
        bank.restart();
        super::large::gone(&bank);
    }
    let recorded = bank.actions();
    let recorded: std::collections::HashSet<&str> = recorded
        .iter()
        .filter(|action| action["what"]["kind"] == "pg.execute")
        .filter_map(|action| action["what"]["command"].as_str())
        .collect();
    let log = bank.cluster.log();
    let ran: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("LOG:  execute "))
        .filter_map(|line| Some(line.split_once("insert into t values ")?.1))
        .collect();
    assert!(ran.len() > 50, "{}", ran.len());
    for value in ran {
        let text = format!("insert into t values {value}");
        assert!(
            recorded.contains(text.as_str()),
            "{text} ran and is not on record"
        );
    }
    let unended = |action: &&Value| action["what"]["outcome"]["status"].is_null();
    assert_eq!(bank.actions().iter().find(unended), None);
}
