//! Messages too large to be held.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::bank::Bank;
use super::raw::{Raw, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, wait_for};

const MIB: usize = 1 << 20;

fn digest(bytes: &[u8]) -> String {
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    ascribe_core::encoding::base64url(&hash)
}

/// Bytes without order.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn bank(options: &[&str]) -> Bank {
    let bank = Bank::without_grant(options);
    bank.grant(&["--reusable"]);
    bank.cluster.sql(
        "orders",
        "create table blobs (b bytea); alter table blobs owner to dba",
    );
    bank
}

fn count(bank: &Bank) -> String {
    let count = bank.cluster.sql("orders", "select count(*) from blobs");
    count.trim().to_owned()
}

/// The latest action of this kind with an outcome.
fn latest(bank: &Bank, kind: &str) -> Value {
    wait_for(kind, PATIENCE, || {
        let found = bank.actions().into_iter().rev();
        let mut found = found.filter(|action| action["what"]["kind"] == kind);
        let one = found.next()?;
        (!one["what"]["outcome"]["at"].is_null()).then_some(one)
    })
}

const INSERT: &str = "insert into blobs values ($1)";

/// `ASCRIBE_LONG=1` sends half a gigabyte.
#[test]
fn a_large_value_passes_in_bounded_memory_and_is_named_by_what_runs_with_it() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let size = if long { 500 * MIB } else { 8 * MIB };
    let bank = bank(&[]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.ask(&query("select 1"));
    let before = bank.peak();
    let value = noise(size);
    let large = bind("", "", &[&value]);
    raw.say(&parse("", INSERT));
    raw.say(&large);
    let said = raw.ask(&[execute(""), sync()].concat());
    assert_eq!(kinds(&said), "12CZ", "{said:?}");
    let more = bank.peak() - before;
    assert!(more < 96 * 1024, "{more} KiB more than before");
    let stored = bank.cluster.sql(
        "orders",
        "select length(b), encode(sha256(b), 'hex') from blobs",
    );
    let hash: [u8; 32] = sha2::Sha256::digest(&value).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(stored.trim(), format!("{size}|{hex}"));
    let taken = latest(&bank, "pg.message");
    let length = large.len();
    assert_eq!(taken["what"]["command"], format!("Bind of {length} bytes"));
    let outcome = &taken["what"]["outcome"];
    assert_eq!(outcome["status"], "succeeded");
    let stream = &outcome["streams"][0];
    assert_eq!(stream["bytes"], length);
    let sha256 = stream["sha256"].as_str().unwrap();
    assert!(sha256.contains(&digest(&large)), "{taken}");
    let run = bank.action(INSERT);
    assert_eq!(run["what"]["sql"]["flags"], Value::Null);
    let named = run["what"]["sql"]["values"].as_str().unwrap();
    let named: Value = serde_json::from_str(named).unwrap();
    assert_eq!(named["message"], taken["action_id"], "{run} {taken}");
    assert_eq!(named["bytes"], length);
    assert!(
        sha256.contains(named["sha256"].as_str().unwrap()),
        "{named}"
    );
}

#[test]
fn what_is_kept_of_a_large_message_is_up_to_the_targets_rules() {
    let bank = bank(&["--values", "none", "--cap", "1048576"]);
    let value = noise(2 * MIB);
    let insert = |bank: &Bank| {
        let (_tunnel, port) = bank.tunnel();
        let mut raw = Raw::ready(port);
        let all = [
            parse("", INSERT),
            bind("", "", &[&value]),
            execute(""),
            sync(),
        ];
        let said = raw.ask(&all.concat());
        let again = raw.ask(&query("select 'on'"));
        assert_eq!(kinds(&again), "TDCZ");
        said
    };
    // What is stored is in the session's bundle.
    let stored = |bank: &Bank| {
        let bundle = bank.exported(&latest(bank, "pg.message"));
        std::fs::metadata(bundle).unwrap().len() as usize / MIB
    };
    assert_eq!(kinds(&insert(&bank)), "12CZ");
    assert_eq!(stored(&bank), 0);
    bank.register(&[
        "--values",
        "full",
        "--cap",
        "1048576",
        "--over-cap",
        "digest",
    ]);
    assert_eq!(kinds(&insert(&bank)), "12CZ");
    assert_eq!(stored(&bank), 1);
    bank.register(&[
        "--values",
        "full",
        "--cap",
        "1048576",
        "--over-cap",
        "refuse",
    ]);
    let said = insert(&bank);
    assert_eq!(kinds(&said), "1EZ");
    assert!(
        said[1].text().contains("no more is let through"),
        "{said:?}"
    );
    assert_eq!(count(&bank), "2");
}

#[test]
fn a_large_text_is_not_read_so_it_runs_only_where_that_is_allowed() {
    let bank = bank(&[]);
    let padding = "x".repeat(2 * MIB);
    let text = format!("insert into blobs values ('a') -- {padding}");
    let function = {
        // lo_from_bytea(oid, bytea)
        let mut body = 3457_u32.to_be_bytes().to_vec();
        body.extend([0, 1, 0, 1, 0, 2]);
        body.extend([0, 0, 0, 4, 0, 0, 0, 0]);
        body.extend(u32::try_from(2 * MIB).unwrap().to_be_bytes());
        body.extend(noise(2 * MIB));
        body.extend([0, 1]);
        message(b'F', &body)
    };
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let said = raw.ask(&query(&text));
    assert_eq!(kinds(&said), "EZ");
    assert!(said[0].text().contains("cannot be read"), "{said:?}");
    let said = raw.ask(&[parse("", &text), bind("", "", &[]), execute(""), sync()].concat());
    assert_eq!(kinds(&said), "EZ");
    // A function has no text.
    let said = raw.ask(&function);
    assert_eq!(kinds(&said), "VZ", "{said:?}");
    assert_eq!(said[0].body.len(), 8);
    let called = latest(&bank, "pg.call");
    let taken = latest(&bank, "pg.message");
    let values = called["what"]["sql"]["values"].as_str().unwrap();
    assert!(values.contains(taken["action_id"].as_str().unwrap()));
    assert_eq!(kinds(&raw.ask(&query("select 'on'"))), "TDCZ");
    assert_eq!(count(&bank), "0");

    bank.register(&["--allow", "unread"]);
    let mut raw = Raw::ready(port);
    let said = raw.ask(&query(&text));
    assert_eq!(kinds(&said), "CZ", "{said:?}");
    let ran = latest(&bank, "pg.query");
    let taken = latest(&bank, "pg.message");
    let command = ran["what"]["command"].as_str().unwrap();
    assert!(command.contains(taken["action_id"].as_str().unwrap()));
    assert_eq!(ran["what"]["sql"]["flags"], json!(["unread"]));
    assert_eq!(ran["what"]["outcome"]["sql"]["tag"], "INSERT 0 1");
    let said = raw.ask(&[parse("s", &text), bind("", "s", &[]), execute(""), sync()].concat());
    assert_eq!(kinds(&said), "12CZ", "{said:?}");
    assert_eq!(kinds(&raw.ask(&query("select 'on'"))), "TDCZ");
    assert_eq!(count(&bank), "2");
}

/// The database must not take what the gateway says on its own for the end of the message.
#[test]
fn a_large_message_that_is_cut_off_does_not_run() {
    let bank = bank(&["--allow", "unread"]);
    let (_tunnel, port) = bank.tunnel();
    let padding = "x".repeat(2 * MIB);
    let text = query(&format!("insert into blobs values ('a') -- {padding}"));
    for missing in [1, 2, 5, MIB] {
        let mut raw = Raw::ready(port);
        raw.say(&text[..text.len() - missing]);
        wait_for("action", PATIENCE, || {
            let open = |action: &Value| action["what"]["outcome"]["at"].is_null();
            bank.actions().iter().any(open).then_some(())
        });
        drop(raw);
        let cut = latest(&bank, "pg.message");
        assert_eq!(cut["what"]["outcome"]["status"], "not_sent", "{cut}");
        assert_eq!(cut["what"]["outcome"]["notes"], json!(["cut-off"]));
    }
    gone(&bank);
    assert_eq!(count(&bank), "0");
}

#[test]
fn a_server_killed_within_a_large_message_leaves_nothing_that_ran() {
    let mut bank = bank(&["--allow", "unread"]);
    let (tunnel, port) = bank.tunnel();
    let padding = "x".repeat(2 * MIB);
    let text = query(&format!("insert into blobs values ('a') -- {padding}"));
    let mut raw = Raw::ready(port);
    raw.say(&text[..text.len() - 1]);
    wait_for("evidence", PATIENCE, || {
        let begun = |action: &Value| action["what"]["kind"] == "pg.message";
        bank.actions().iter().any(begun).then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    bank.server().signal(Signal::KILL);
    drop(tunnel);
    bank.restart();
    gone(&bank);
    assert_eq!(count(&bank), "0");
    let cut = latest(&bank, "pg.message");
    assert_eq!(cut["what"]["outcome"]["status"], "unknown", "{cut}");
    bank.psql(&["-c", "select 'on'"]).exits(0);
}

/// Waits until the database has nobody connected but us.
pub(super) fn gone(bank: &Bank) {
    wait_for("end of the sessions", PATIENCE, || {
        let others = "select count(*) from pg_stat_activity where usename = 'dba'";
        (bank.cluster.sql("orders", others).trim() == "0").then_some(())
    });
}
