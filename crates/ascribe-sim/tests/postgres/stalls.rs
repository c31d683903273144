//! A ledger whose disk does not answer: what is not on record does not run, nothing waits between the record and the
//! target, and nobody is told of what ran that it did not.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bank::Bank;
use super::raw::{Raw, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, Running, maybe, wait_for};

fn skipped(why: &str) {
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n")).unwrap();
}

/// From now on each sync of the ledger, or from so manieth on, takes so many seconds more.
fn stalled(bank: &Bank, seconds: u32, from: u32) -> Option<Running> {
    let Some(strace) = maybe("strace") else {
        skipped("`strace` is not installed");
        return None;
    };
    let mut command = Command::new(strace);
    command
        .args(["-f", "-o"])
        .arg(bank.world.path("trace"))
        .arg("-P")
        .arg(bank.world.data().join("segments/00000000.seg"))
        .arg("-e")
        .arg(format!(
            "inject=fdatasync:delay_enter={seconds}000000:when={from}+"
        ))
        .args(["-p", &bank.server().id().to_string()]);
    let mut tracer = Running::start(command, &bank.world.path("logs"), false);
    let attached = wait_for("tracer", PATIENCE, || {
        let attached = tracer.stderr().contains(" attached");
        (attached || tracer.ended().is_some()).then_some(attached)
    });
    if !attached {
        let why = tracer.stderr();
        skipped(&format!("strace may not attach here: {}", why.trim()));
    }
    attached.then_some(tracer)
}

/// Nothing of what the ledger does not take in reaches the server, and its client is told so.
#[test]
fn without_the_ledger_nothing_is_forwarded_and_that_is_said() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.ask(&query("select 'before'"));
    let Some(_stalled) = stalled(&bank, 60, 1) else {
        return;
    };
    raw.say(&query("select 'unrecorded'"));
    let begun = Instant::now();
    let said = raw.rest();
    assert!(begun.elapsed() < Duration::from_secs(25));
    // The statement is refused in its own name, and then the session ends.
    let [refused, last] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(
        (refused.code(), last.code()),
        ("58030".to_owned(), "58030".to_owned())
    );
    let text = refused.text();
    assert!(
        text.contains("SERROR") && text.contains("not recorded, so not run"),
        "{text}"
    );
    assert!(text.contains("Daction a-"), "{text}");
    let text = last.text();
    assert!(
        text.contains("SFATAL") && text.contains("the ledger cannot record"),
        "{text}"
    );
    assert!(
        text.contains("is not known to be on record, and was not run"),
        "{text}"
    );
    // Nor is anybody let in, which they are told.
    let said = Raw::begun(port, &[]).rest();
    let [refused] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(refused.code(), "58030");
    assert!(
        refused.text().contains("no session without a record"),
        "{refused:?}"
    );
    let log = bank.cluster.log();
    assert!(log.contains("select 'before'") && !log.contains("select 'unrecorded'"));
}

/// The session's last word alone, which names what was not run.
fn only_the_end(raw: &mut Raw) {
    let said = raw.rest();
    let [last] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(last.code(), "58030");
    let text = last.text();
    assert!(
        text.contains("SFATAL") && text.contains("is not known to be on record, and was not run"),
        "{text}"
    );
}

/// A statement runs when the next one cannot be recorded: what is refused is not said in the place of what ran.
#[test]
fn without_the_ledger_a_statement_that_runs_is_not_said_to_be_refused() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.ask(&query("select 'before'"));
    raw.say(&query("select pg_sleep(60)"));
    wait_for("the sleep", PATIENCE, || {
        let asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
        (bank.cluster.sql("orders", asleep).trim() == "1").then_some(())
    });
    let Some(_stalled) = stalled(&bank, 60, 1) else {
        return;
    };
    raw.say(&query("select 'unrecorded'"));
    only_the_end(&mut raw);
    assert!(!bank.cluster.log().contains("select 'unrecorded'"));
}

/// The end of a copy, and that of a group, go with what cannot be recorded: neither is sent once the session has ended, and
/// neither is told the other's refusal.
#[test]
fn without_the_ledger_what_was_begun_is_not_finished() {
    let bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table lines (line text); alter table lines owner to dba",
    );
    let (_tunnel, port) = bank.tunnel();
    let mut copying = Raw::ready(port);
    copying.say(&query("copy lines from stdin"));
    copying.until(b'G');
    copying.say(&message(b'd', b"copied\n"));
    let mut inserting = Raw::ready(port);
    let insert = [
        parse("", "insert into lines values ('inserted')"),
        bind("", "", &[]),
        execute(""),
        message(b'H', b""),
    ];
    inserting.say(&insert.concat());
    assert_eq!(kinds(&inserting.until(b'C')), "12C");
    // What was copied is sealed when it is a second old, and outcomes are recorded.
    std::thread::sleep(Duration::from_secs(3));
    let Some(_stalled) = stalled(&bank, 60, 1) else {
        return;
    };
    let unrecorded = query("select 'unrecorded'");
    copying.say(&[message(b'c', b""), unrecorded.clone()].concat());
    inserting.say(&[sync(), unrecorded].concat());
    only_the_end(&mut copying);
    only_the_end(&mut inserting);
    assert_eq!(
        bank.cluster
            .sql("orders", "select count(*) from lines")
            .trim(),
        "0"
    );
    assert!(!bank.cluster.log().contains("select 'unrecorded'"));
}

/// The record of a refusal takes its time: what was recorded with it, before it, is not sent after that.
#[test]
fn what_waits_for_the_record_of_a_refusal_is_not_sent_late() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.ask(&query("select 'before'"));
    // The sync of the intents is the first.
    let Some(stalled) = stalled(&bank, 4, 2) else {
        return;
    };
    let burst = [query("select 'late'"), query("do $$ begin end $$")].concat();
    let late = raw.ask(&burst);
    assert_eq!(kinds(&late), "EZ", "{late:?}");
    assert_eq!(late[0].code(), "57P01", "{late:?}");
    assert!(late[0].text().contains("took too long"), "{late:?}");
    let refused = raw.until(b'Z');
    assert_eq!(refused[0].code(), "42501", "{refused:?}");
    stalled.signal(Signal::TERM);
    drop(stalled);
    raw.ask(&query("select 'after'"));
    let log = bank.cluster.log();
    assert!(log.contains("select 'after'") && !log.contains("select 'late'"));
    let late = bank.action("select 'late'");
    assert_eq!(late["what"]["outcome"]["status"], "not_sent", "{late}");
}

/// The same where the ledger is gone by then: the client is told that nothing may run, and nothing does.
#[test]
fn what_waits_for_the_record_of_a_refusal_is_not_sent_without_the_ledger() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.ask(&query("select 'before'"));
    let Some(_stalled) = stalled(&bank, 14, 2) else {
        return;
    };
    raw.say(&[query("select 'late'"), query("do $$ begin end $$")].concat());
    let said = raw.rest();
    let codes: Vec<String> = said.iter().map(super::raw::Said::code).collect();
    // Should something else have been the first sync, the statements are not on record either, and told so.
    assert!(codes.iter().all(|code| code == "58030"), "{said:?}");
    let last = said.last().unwrap().text();
    assert!(
        last.contains("SFATAL") && last.contains("nothing may run"),
        "{said:?}"
    );
    // The stall is over by then.
    std::thread::sleep(Duration::from_secs(6));
    assert!(!bank.cluster.log().contains("select 'late'"));
}

/// What a target did for a client that left is heard.
#[test]
fn what_ran_for_a_client_that_left_has_its_outcome() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let texts: Vec<String> = (0..4)
        .map(|n| format!("select {n}, pg_sleep(0.3)"))
        .collect();
    let burst: Vec<u8> = texts.iter().flat_map(|text| query(text)).collect();
    raw.say(&burst);
    raw.until(b'T');
    drop(raw);
    let statuses = wait_for("the end of the session", PATIENCE, || {
        let outcomes = texts.iter().map(|text| {
            let action = bank.action(text);
            action["what"]["outcome"]["status"]
                .as_str()
                .map(str::to_owned)
        });
        outcomes.collect::<Option<Vec<String>>>()
    });
    assert_eq!(statuses, ["succeeded"; 4]);
}
