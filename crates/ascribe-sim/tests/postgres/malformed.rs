//! Messages that make no sense, of every type, wherever a session may be: each ends at most its own session, and nothing
//! reaches the database that is not on record.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::bank::Bank;
use super::kills::{Ran, logged};
use super::raw::{Raw, bind, execute, kinds, message, parse, query, secured, sync};
use super::tokio_driver::trusting;

/// Every state that a session has for its client (PostgreSQL's documentation, "Message Flow"), and those that are ours. Of
/// OAUTHBEARER see `oauth.rs`, of a message that is too large to be held `large.rs`.
const STATES: [&str; 19] = [
    // Before the first packet, through a tunnel and within TLS; and asked for the password.
    "startup",
    "tls",
    "password",
    // Between statements.
    "ready",
    "transaction",
    "failed",
    // Within a group: something is prepared and unanswered, prepared and answered, a portal is suspended.
    "group",
    "described",
    "suspended",
    // Behind an error until Sync: the database's, and our own refusal.
    "skipping",
    "denied",
    // Something runs.
    "running",
    "function",
    // Data is copied to the database by either protocol, behind some of it, and from it.
    "copy",
    "copy-group",
    "copying",
    "copy-out",
    // A copy failed at the database, which the client has not heard.
    "copy-failed",
    // The client has said that it leaves.
    "closing",
];

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// A client, wherever it is.
struct Client {
    raw: Raw<Box<dyn Both>>,
    socket: TcpStream,
}

impl Client {
    fn plain(raw: Raw) -> Self {
        let socket = raw.0.try_clone().unwrap();
        let raw = Raw(Box::new(raw.0) as Box<dyn Both>);
        Self { raw, socket }
    }

    fn in_tls(bank: &Bank) -> Self {
        let raw = secured(bank, trusting(&bank.world.path("gateway.crt")));
        let socket = raw.0.sock.try_clone().unwrap();
        let raw = Raw(Box::new(raw.0) as Box<dyn Both>);
        Self { raw, socket }
    }
}

fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// `lo_creat`, which makes a large object.
fn function() -> Vec<u8> {
    let mut body = 957_u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff, 0, 1]);
    message(b'F', &body)
}

fn brought_to(state: &str, bank: &Bank, port: u16) -> Client {
    let mut client = match state {
        "startup" => return Client::plain(Raw::open(port)),
        "tls" => return Client::in_tls(bank),
        "password" => {
            let mut client = Client::in_tls(bank);
            client.raw.begin(&[]);
            assert_eq!(client.raw.hear().unwrap().body, [0, 0, 0, 3]);
            return client;
        }
        _ => Client::plain(Raw::ready(port)),
    };
    let raw = &mut client.raw;
    let begins = |text: &str| [parse("", text), bind("", "", &[])].concat();
    match state {
        "ready" => {}
        "transaction" => drop(raw.ask(&query("begin"))),
        "failed" => drop(raw.ask(&query("begin; select 1/0"))),
        "group" => raw.say(&parse("s", "select $1::int")),
        "described" => {
            raw.say(
                &[
                    parse("s", "select $1::int"),
                    message(b'D', b"Ss\0"),
                    flush(),
                ]
                .concat(),
            );
            raw.until(b'T');
        }
        "suspended" => {
            let some = message(b'E', b"\0\0\0\0\x02");
            raw.say(&[begins("select generate_series(1, 9)"), some, flush()].concat());
            raw.until(b's');
        }
        "skipping" => {
            raw.say(&[parse("", "selec"), flush()].concat());
            raw.until(b'E');
        }
        "denied" => {
            raw.say(&[begins("set role postgres"), execute(""), flush()].concat());
            assert_eq!(raw.until(b'E').last().unwrap().code(), "42501");
        }
        "running" => raw.say(&query("select pg_sleep(0.1)")),
        "function" => raw.say(&function()),
        "copy" => {
            raw.say(&query("copy t from stdin"));
            raw.until(b'G');
        }
        "copying" => {
            raw.say(&query("copy t from stdin"));
            raw.until(b'G');
            raw.say(&message(b'd', b"a line\nand half"));
        }
        "copy-group" => {
            raw.say(&[begins("copy t from stdin"), execute("")].concat());
            raw.until(b'G');
        }
        "copy-failed" => {
            raw.say(&query("copy n from stdin"));
            raw.until(b'G');
            raw.say(&message(b'd', b"no number\n"));
        }
        "copy-out" => raw.say(&query(
            "copy (select repeat('x', 1000) from generate_series(1, 3000)) to stdout",
        )),
        "closing" => raw.say(&message(b'X', b"")),
        other => panic!("{other}"),
    }
    client
}

/// Messages of a type that are wrong. The last three are of no length that a message can have here, so nothing behind them
/// is a message.
fn wrong(kind: u8) -> [Vec<u8>; 6] {
    [
        message(kind, b""),
        message(kind, &[0xff; 40]),
        message(kind, b"\0\0\xff\xff\xff\xff\0\x01\0\0"),
        [&[kind][..], &3_u32.to_be_bytes(), b"abc"].concat(),
        [&[kind][..], &0xffff_ffff_u32.to_be_bytes(), &[b'a'; 64]].concat(),
        [&[kind][..], &0x3fff_ffff_u32.to_be_bytes(), &[b'a'; 64]].concat(),
    ]
}

/// Sends what is wrong and then what is not, and returns what was answered; the connection ends.
fn tried(mut client: Client, wrong: &[u8], fine: &str) -> String {
    let behind = [query(fine), sync()].concat();
    let said = client.raw.0.write_all(&[wrong, &behind].concat());
    let said = said.and_then(|()| client.raw.0.flush());
    // Who was cut off meanwhile may have been told why.
    drop(said);
    client.socket.shutdown(Shutdown::Write).unwrap_or_default();
    let begun = Instant::now();
    let rest = client.raw.rest();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{fine}: it did not end"
    );
    rest.iter().map(super::raw::Said::text).collect()
}

#[test]
fn malformed_messages_end_at_most_their_own_session_and_run_nothing() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let known = b"QPBEDCHSFXdcfp";
    let kinds_sent: Vec<u8> = if long {
        (0..=255).collect()
    } else {
        [&known[..], b"\0ZRKz\xff"].concat()
    };
    let mut bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table t (a text); alter table t owner to dba; create table n (a int); alter table n owner to dba",
    );
    let (_tunnel, port) = bank.tunnel();
    let mut other = Raw::ready(port);
    let mut number = 0;
    for state in STATES {
        for kind in &kinds_sent {
            for (n, bytes) in wrong(*kind).into_iter().enumerate() {
                number += 1;
                // Each state and type has two of the forms, unless there is time.
                if !long && (number + usize::from(*kind)) % 6 > 1 {
                    continue;
                }
                let fine = format!("select 'fine {number} ' || 'after'");
                let said = tried(brought_to(state, &bank, port), &bytes, &fine);
                let answered = said.contains(&format!("fine {number} after"));
                let is_message = n < 3;
                assert!(is_message || !answered, "{state} {kind} {n}: {said}");
                // Unknown types are none, whatever their length.
                assert!(
                    known.contains(kind) || !answered,
                    "{state} {kind} {n}: {said}"
                );
            }
            let said = other.ask(&query("select 'others'"));
            assert_eq!(kinds(&said), "TDCZ", "after {state} {kind}");
        }
    }
    assert!(bank.is_up());
    let log = bank.cluster.log();
    for complaint in [
        "invalid frontend message",
        "protocol violation",
        "lost synchronization",
        "invalid message length",
    ] {
        let line = log.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None);
    }
    assert_eq!(bank.cluster.sql("orders", "select count(*) from t"), "0\n");
    // What the database ran for us is on record, no more and no less often.
    let mut recorded: HashMap<Ran, usize> = HashMap::new();
    for action in bank.all_actions() {
        let session = action["session_id"].as_str().unwrap().to_owned();
        let text = action["what"]["command"].as_str().unwrap_or_default();
        *recorded.entry((session, text.to_owned())).or_default() += 1;
    }
    let ran = logged(&log);
    assert!(ran.len() > 100, "{}", ran.len());
    for (what, times) in ran {
        // A text of several is logged once, and each of them is an action.
        let known = match what.1.as_str() {
            "begin; select 1/0" => recorded.get(&(what.0.clone(), "begin".to_owned())),
            _ => recorded.get(&what),
        };
        let known = known.copied().unwrap_or_default();
        assert!(
            known >= times,
            "{what:?} ran {times} times, {known} are on record"
        );
    }
}
