//! What only bytes show: how messages may be strung together, and how they may not.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bank::Bank;
use super::raw::{Raw, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, wait_for};

#[test]
fn messages_behind_one_that_changes_how_texts_are_read_are_not_lost() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let texts = ["selec 1", "set client_encoding = 'LATIN1'", "select 3"];
    raw.say(&texts.map(query).concat());
    let said: String = texts.iter().map(|_| kinds(&raw.until(b'Z'))).collect();
    assert_eq!(said.replace('S', ""), "EZCZTDCZ");
    // The same by the other protocol, in one burst.
    let run = |text: &str| [parse("", text), bind("", "", &[]), execute(""), sync()].concat();
    let texts = ["set client_encoding = 'UTF8'", "selec 1", "select 3"];
    raw.say(&texts.map(run).concat());
    let said: String = texts.iter().map(|_| kinds(&raw.until(b'Z'))).collect();
    assert_eq!(said.replace('S', ""), "12CZEZ12DCZ");
}

/// What was sent is what is on record, byte for byte, in any encoding.
#[test]
fn texts_that_are_not_utf_8_are_recorded_as_they_were_sent() {
    let bank = Bank::open();
    for (name, encoding) in [("latin", "LATIN1"), ("ascii", "SQL_ASCII")] {
        let make =
            format!("create database {name} encoding '{encoding}' template template0 owner dba");
        bank.cluster.sql("postgres", &make);
    }
    let (_tunnel, port) = bank.tunnel();
    for (database, encoding, text) in [
        ("orders", "LATIN1", &b"select 'caf\xe9' as one"[..]),
        ("latin", "LATIN1", b"select 'caf\xe9' as two"),
        ("ascii", "SQL_ASCII", b"select '\xff\xfe\xe9' as three"),
        ("ascii", "SQL_ASCII", b"select $1::text as \"\xc3\x28\""),
    ] {
        let set = [("database", database), ("client_encoding", encoding)];
        let mut raw = Raw::begun(port, &set);
        raw.until(b'Z');
        let said = if text.contains(&b'$') {
            let named = [b"\0", text, b"\0\0\0"].concat();
            let all = [message(b'P', &named), bind("", "", &[b"\xff\x80"])];
            raw.ask(&[&all.concat()[..], &execute(""), &sync()].concat())
        } else {
            raw.ask(&message(b'Q', &[text, b"\0"].concat()))
        };
        let row = said.iter().find(|said| said.kind == b'D').unwrap();
        let value = text.split(|byte| *byte == b'\'').nth(1);
        assert!(row.body.ends_with(value.unwrap_or(b"\xff\x80")), "{row:?}");
        let wanted = ascribe_core::encoding::base64url(text);
        let action = wait_for(encoding, PATIENCE, || {
            let mut actions = bank.actions();
            actions.retain(|action| action["what"]["command_b64"] == wanted.as_str());
            actions.pop()
        });
        if text.contains(&b'$') {
            let values = action["what"]["sql"]["values"].as_str().unwrap();
            assert_eq!(values, "[{\"base64\":\"/4A=\"}]");
        }
    }
}

/// In portions that a driver would send.
#[test]
fn ten_thousand_prepared_statements_are_told_apart() {
    const MANY: usize = 10_000;
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let (before, mut wrong) = (bank.peak(), 0);
    for part in (0..MANY).collect::<Vec<_>>().chunks(500) {
        let text = |n: &usize| parse(&format!("s{n}"), &format!("select {n} + $1::int"));
        let said = raw.ask(&[part.iter().map(text).collect::<Vec<_>>().concat(), sync()].concat());
        assert_eq!(said.len(), part.len() + 1);
    }
    let some: Vec<usize> = (0..MANY).step_by(97).collect();
    for n in &some {
        let all = [
            bind("", &format!("s{n}"), &[&7_u32.to_be_bytes()]),
            execute(""),
            sync(),
        ];
        let said = raw.ask(&all.concat());
        let row = said.iter().find(|said| said.kind == b'D').unwrap();
        wrong += usize::from(!row.body.ends_with((n + 7).to_string().as_bytes()));
    }
    assert_eq!(wrong, 0);
    let texts: BTreeSet<String> = bank
        .all_actions()
        .iter()
        .filter_map(|action| Some(action["what"]["command"].as_str()?.to_owned()))
        .collect();
    for n in &some {
        assert!(texts.contains(&format!("select {n} + $1::int")), "{n}");
    }
    let more = bank.peak() - before;
    // Preparing one is an action with its outcome, so most of it is the ledger's.
    assert!(more < 256 * 1024, "{more} KiB for {MANY} statements");
    assert_eq!(
        kinds(&raw.ask(&query("discard all"))),
        "EZ",
        "it sets the role"
    );
}

/// Cancels with right and wrong keys, while two sessions run.
#[test]
fn a_storm_of_cancels_reaches_only_whose_key_it_has() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let rounds = if long { 400 } else { 40 };
    let mut bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::begun(port, &[]);
    let said = raw.until(b'Z');
    let key = said
        .into_iter()
        .find(|said| said.kind == b'K')
        .unwrap()
        .body;
    let mut other = Raw::ready(port);
    let own = bank.port();
    let cancel = move |key: &[u8]| {
        let mut stream = Raw::open(own);
        let length = u32::try_from(8 + key.len()).unwrap().to_be_bytes();
        stream.say(&[&length[..], &80_877_102_u32.to_be_bytes(), key].concat());
        // It ends when the cancel was sent.
        assert_eq!(stream.rest(), []);
    };
    let storm: Vec<_> = (0..4_u8)
        .map(|of| {
            let key = key.clone();
            std::thread::spawn(move || {
                for round in 0..rounds {
                    let mut wrong = key.clone();
                    wrong[4 + usize::from(of)] ^= 1 << (round % 8);
                    cancel(&wrong);
                    cancel(&key[..6 + usize::from(of) / 2]);
                    if of == 0 {
                        cancel(&key);
                    }
                }
            })
        })
        .collect();
    let (mut cancelled, mut answered) = (0, 0);
    while !storm.iter().all(std::thread::JoinHandle::is_finished) {
        let said = raw.ask(&query("select pg_sleep(0.02)"));
        match kinds(&said).as_str() {
            "TDCZ" => answered += 1,
            "EZ" | "TEZ" => cancelled += 1,
            other => panic!("{other} {said:?}"),
        }
        let said = other.ask(&query("select pg_sleep(0.001)"));
        assert_eq!(kinds(&said), "TDCZ", "another session was cancelled");
    }
    storm.into_iter().for_each(|one| one.join().unwrap());
    assert!(cancelled > 0, "{answered} were answered");
    assert_eq!(kinds(&raw.ask(&query("select 'on'"))), "TDCZ");
    assert!(bank.is_up());
}

#[test]
fn slow_readers_and_slow_writers_and_a_slow_database_take_bounded_memory() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let megabytes = if long { 1000 } else { 150 };
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    bank.psql(&["-c", "create table t (a text)"]).exits(0);
    let before = bank.peak();
    let more = |what: &str, least: u64| {
        let more = bank.peak() - before;
        assert!(more < least * 1024, "{what}: {more} KiB more");
    };
    // One that does not read.
    let mut reader = Raw::ready(port);
    reader.say(&query(&format!(
        "select repeat('x', 10000) from generate_series(1, {megabytes}00)"
    )));
    std::thread::sleep(Duration::from_secs(2));
    more("a client that does not read", 64);
    // One byte at a time.
    let mut writer = Raw::ready(port);
    for byte in [query("select 'slow'"), query("select 'slower'")].concat() {
        writer.say(&[byte]);
    }
    assert_eq!(kinds(&writer.until(b'Z')), "TDCZ");
    assert_eq!(kinds(&writer.until(b'Z')), "TDCZ");
    let rows = reader.until(b'Z').len() - 3;
    assert_eq!(rows, megabytes * 100);
    // A database that does not take what is copied.
    let mut holder = Raw::ready(port);
    holder.ask(&query("begin; lock table t"));
    let mut copier = Raw::ready(port);
    copier.say(&query("copy t from stdin"));
    let sender = {
        let mut stream = Raw(copier.0.try_clone().unwrap());
        std::thread::spawn(move || {
            let line = [&vec![b'y'; 10_000][..], b"\n"].concat();
            let data = message(b'd', &line);
            for _ in 0..megabytes * 100 {
                stream.say(&data);
            }
            stream.say(&message(b'c', b""));
        })
    };
    std::thread::sleep(Duration::from_secs(2));
    assert!(!sender.is_finished(), "nothing held it up");
    holder.ask(&query("rollback"));
    sender.join().unwrap();
    let said = copier.until(b'Z');
    assert_eq!(kinds(&said), "GCZ", "{said:?}");
    // What is copied is sealed besides, as a large value is.
    more("a database that does not read", 96);
    let count = bank.cluster.sql("orders", "select count(*) from t");
    assert_eq!(count.trim(), (megabytes * 100).to_string());
}

#[test]
fn notifications_come_to_whoever_listens_and_waits() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let mut listener = Raw::ready(port);
    assert_eq!(kinds(&listener.ask(&query("listen news"))), "CZ");
    let mut teller = Raw::ready(port);
    for n in 0..50 {
        teller.ask(&query(&format!("notify news, 'number {n}'")));
        let said = listener.hear().unwrap();
        assert_eq!(said.kind, b'A');
        assert!(said.text().contains(&format!("number {n} ")), "{said:?}");
    }
    assert_eq!(kinds(&listener.ask(&query("unlisten *"))), "CZ");
}
