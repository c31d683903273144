//! Targets that lie, stall and break off. What they do costs their own session, nothing is told that they did not
//! answer, and the gateway goes on in bounded memory.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bank::Bank;
use super::raw::{Raw, Said, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, wait_for};

/// Code of a request to cancel (PostgreSQL manual, 54.7).
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// A target that lets everybody in and then does what it is told to.
struct Liar {
    port: u16,
    /// So many cancels came.
    cancels: Arc<AtomicUsize>,
}

/// What it says before it does that.
fn greeting() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"client_encoding\0UTF8\0"),
        message(b'S', b"standard_conforming_strings\0on\0"),
        message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
        ready(),
    ]
    .concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A row of one column.
fn row(length: usize) -> Vec<u8> {
    let size = u32::try_from(length).unwrap().to_be_bytes();
    message(b'D', &[&[0, 1], &size[..], &vec![b'x'; length]].concat())
}

fn complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

impl Liar {
    /// `greets`, then hands its connections to `lie`.
    fn start(greets: bool, lie: impl Fn(&mut TcpStream) + Copy + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cancels = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cancels);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cancels = Arc::clone(&counted);
                std::thread::spawn(move || serve(stream, greets, lie, &cancels));
            }
        });
        Self { port, cancels }
    }
}

fn serve(mut stream: TcpStream, greets: bool, lie: impl Fn(&mut TcpStream), cancels: &AtomicUsize) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    if stream.read_exact(&mut rest).is_err() {
        return;
    }
    if rest.starts_with(&CANCEL) {
        cancels.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if !greets || stream.write_all(&greeting()).is_ok() {
        lie(&mut stream);
    }
}

/// What a client said up to here, at least one message.
fn asked(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 4096]).unwrap_or_default()
}

/// Says this; the gateway may have gone.
fn says(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// Reads until the gateway has gone.
fn drain(stream: &mut TcpStream) {
    while asked(stream) > 0 {}
}

/// A bank whose target is this one.
fn bank(liar: &Liar) -> Bank {
    let bank = Bank::open();
    bank.register_bare(liar.port);
    bank
}

/// The only action with this text, once it has an outcome.
#[track_caller]
fn outcome(bank: &Bank, text: &str) -> Value {
    bank.action(text)["what"]["outcome"].clone()
}

/// What a client is told of one statement, up to the end of its connection.
fn last_words(port: u16, text: &str) -> Vec<Said> {
    let mut raw = Raw::ready(port);
    raw.say(&query(text));
    raw.rest()
}

#[test]
fn an_answer_before_its_question_ends_the_session() {
    // What it says unasked, in the hope that it passes for the answer to what is asked next.
    let lies: [fn() -> Vec<u8>; 5] = [
        || [complete(), ready()].concat(),
        ready,
        || row(4),
        || message(b'1', b""),
        || message(b'G', &[0, 0, 0]),
    ];
    let mut bank = Bank::open();
    for lie in lies {
        let liar = Liar::start(true, move |stream| {
            says(stream, &lie());
            drain(stream);
        });
        bank.register_bare(liar.port);
        let (_tunnel, port) = bank.tunnel();
        let mut raw = Raw::begun(port, &[]);
        let said = raw.rest();
        // The greeting may be there; nothing of the lie is.
        assert!(
            said.iter().all(|said| b"RSKZE".contains(&said.kind)),
            "{said:?}"
        );
        let readies = said.iter().filter(|said| said.kind == b'Z').count();
        assert!(readies <= 1, "{said:?}");
    }
    assert!(bank.is_up());
}

#[test]
fn more_answers_than_questions_end_the_session_and_serve_nobody() {
    let liar = Liar::start(true, |stream| {
        asked(stream);
        // The second half is meant for what comes next.
        let one = [complete(), ready()].concat();
        says(stream, &one.repeat(2));
        drain(stream);
    });
    let mut bank = bank(&liar);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("select 'asked'"));
    let said = raw.rest();
    let readies = said.iter().filter(|said| said.kind == b'Z').count();
    assert!(readies <= 1, "{said:?}");
    // By the extended protocol: an Execute is answered once.
    let liar = Liar::start(true, |stream| {
        asked(stream);
        let twice = [complete(), complete()].concat();
        let all = [message(b'1', b""), message(b'2', b""), twice, ready()];
        says(stream, &all.concat());
        drain(stream);
    });
    bank.register_bare(liar.port);
    let mut raw = Raw::ready(port);
    raw.say(
        &[
            parse("", "select 'once'"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    let said = raw.rest();
    let told = said.iter().filter(|said| said.kind == b'C').count();
    assert!(
        told <= 1 && !said.iter().any(|said| said.kind == b'Z'),
        "{said:?}"
    );
    assert!(bank.is_up());
}

#[test]
fn rows_without_end_end_with_their_reader_in_bounded_memory() {
    let liar = Liar::start(true, |stream| {
        asked(stream);
        says(
            stream,
            &message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\0\0\0\0\0\0"),
        );
        let rows = row(1000).repeat(100);
        while says(stream, &rows) {}
    });
    let bank = Bank::without_grant(&[]);
    let grant = bank.grant(&["--reusable"]);
    bank.register_bare(liar.port);
    let (_tunnel, port) = bank.tunnel();
    let before = bank.peak();
    let mut raw = Raw::ready(port);
    raw.say(&query("select 'without end'"));
    for _ in 0..50_000 {
        raw.hear().unwrap();
    }
    // It does not read for a while, and then it is gone.
    std::thread::sleep(Duration::from_secs(1));
    drop(raw);
    let ended = outcome(&bank, "select 'without end'");
    assert_eq!(ended["status"], "unknown", "{ended}");
    let more = bank.peak() - before;
    assert!(more < 64 * 1024, "{more} KiB more");
    // Who waits for the end of one may be stopped by the end of the grant.
    let mut raw = Raw::ready(port);
    raw.say(&query("select 'until revoked'"));
    raw.until(b'D');
    let revoke = ["revoke", grant.as_str(), "--why", "it never ends"];
    bank.world.run_as("approver", &revoke).exits(0);
    let begun = Instant::now();
    raw.rest();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let ended = outcome(&bank, "select 'until revoked'");
    assert_eq!(ended["status"], "unknown", "{ended}");
}

#[test]
fn a_target_that_breaks_off_within_a_message_leaves_what_it_ran_unknown() {
    let liar = Liar::start(true, |stream| {
        asked(stream);
        let cut = row(1000);
        says(stream, &cut[..100]);
    });
    let mut bank = bank(&liar);
    let (_tunnel, port) = bank.tunnel();
    assert_eq!(last_words(port, "select 'cut'"), []);
    let ended = outcome(&bank, "select 'cut'");
    assert_eq!(ended["status"], "unknown", "{ended}");
    // The length of an answer is claimed, and nothing is kept for it.
    let liar = Liar::start(true, |stream| {
        asked(stream);
        let claimed = [&b"E"[..], &0x3fff_fff0_u32.to_be_bytes(), &[b'M'; 5000]].concat();
        says(stream, &claimed);
    });
    bank.register_bare(liar.port);
    let before = bank.peak();
    last_words(port, "select 'claimed'");
    let ended = outcome(&bank, "select 'claimed'");
    assert_ne!(ended["status"], "succeeded", "{ended}");
    assert!(bank.peak() - before < 64 * 1024);
    assert!(bank.is_up());
}

#[test]
fn a_target_that_stalls_holds_nobody_for_long() {
    // Before it greets, and while it greets without end.
    let mute: fn(&mut TcpStream) = drain;
    let endless: fn(&mut TcpStream) = |stream| {
        let parameter = message(b'S', b"a\0b\0").repeat(100);
        while says(stream, &parameter) {}
    };
    let mut bank = Bank::open();
    for lie in [mute, endless] {
        let liar = Liar::start(false, lie);
        bank.register_bare(liar.port);
        let (_tunnel, port) = bank.tunnel();
        let begun = Instant::now();
        let said = Raw::begun(port, &[]).rest();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(kinds(&said), "E");
        assert!(
            said[0].text().contains("cannot reach dba@orders-db"),
            "{said:?}"
        );
    }
    // What it was asked it never answers: whoever leaves is not held, and what runs is cancelled.
    let liar = Liar::start(true, drain);
    bank.register_bare(liar.port);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("select 'never answered'"));
    wait_for("intent", PATIENCE, || {
        let asked = |action: &Value| action["what"]["command"] == "select 'never answered'";
        bank.actions().iter().any(asked).then_some(())
    });
    drop(raw);
    let ended = outcome(&bank, "select 'never answered'");
    assert_eq!(ended["status"], "unknown", "{ended}");
    wait_for("cancel", PATIENCE, || {
        (liar.cancels.load(Ordering::Relaxed) > 0).then_some(())
    });
    assert!(bank.is_up());
    let stalled = bank.action("select 'never answered'");
    let session = stalled["session_id"].as_str().unwrap();
    bank.world.ended_session(session);
}

/// Without one nothing can be cancelled, and no client is led to think so.
#[test]
fn a_target_that_names_no_key_has_clients_without_one() {
    let liar = Liar::start(false, |stream| {
        says(stream, &[message(b'R', &[0; 4]), ready()].concat());
        drain(stream);
    });
    let bank = bank(&liar);
    let (_tunnel, port) = bank.tunnel();
    let said = Raw::begun(port, &[]).until(b'Z');
    assert_eq!(kinds(&said), "RZ", "{said:?}");
}

/// So many bytes were said to a target that wants a password in a form that gives it away.
static GIVEN_AWAY: AtomicUsize = AtomicUsize::new(0);

/// AuthenticationCleartextPassword and AuthenticationMD5Password.
#[test]
fn a_target_that_wants_the_password_or_its_md5_gets_neither() {
    let clear: fn(&mut TcpStream) = |stream| wants(stream, &[0, 0, 0, 3]);
    let md5: fn(&mut TcpStream) = |stream| wants(stream, &[0, 0, 0, 5, 1, 2, 3, 4]);
    fn wants(stream: &mut TcpStream, how: &[u8]) {
        says(stream, &message(b'R', how));
        GIVEN_AWAY.fetch_add(asked(stream), Ordering::Relaxed);
    }
    let bank = Bank::open();
    for (lie, why) in [
        (clear, "wants the password in the clear"),
        (md5, "wants an MD5 of the password"),
    ] {
        let liar = Liar::start(false, lie);
        bank.register_bare(liar.port);
        let (_tunnel, port) = bank.tunnel();
        let said = Raw::begun(port, &[]).rest();
        assert_eq!(kinds(&said), "E");
        assert_eq!(said[0].code(), "08001");
        assert!(said[0].text().contains(why), "{said:?}");
    }
    assert_eq!(GIVEN_AWAY.load(Ordering::Relaxed), 0);
}

/// A target that asks for data where nobody copies: what the client says next is not taken for data.
#[test]
fn a_question_is_not_led_to_be_taken_for_copied_data() {
    let liar = Liar::start(true, |stream| {
        asked(stream);
        says(stream, &message(b'G', &[0, 0, 0]));
        drain(stream);
    });
    let mut bank = bank(&liar);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("select 'plain'"));
    assert_eq!(raw.hear().map(|said| said.kind), Some(b'G'));
    raw.say(&query("delete from t"));
    let said = raw.rest();
    assert_eq!(kinds(&said), "E", "{said:?}");
    let texts = bank.actions();
    let deleted = |action: &Value| action["what"]["command"] == "delete from t";
    assert!(!texts.iter().any(deleted), "{texts:?}");
    assert!(bank.is_up());
}
