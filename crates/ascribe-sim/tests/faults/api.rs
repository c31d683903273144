//! Statements that are not what they must be, over the real API; and calls that are no calls.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ascribe_core::encoding::Bytes;
use ascribe_core::id::{Root, StatementId};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{Answer, Request, Say, Seen, Signed, Statement, Ticket};
use ascribe_core::time::Timestamp;
use serde_json::{Value, json};

use super::dial::dial;
use super::kit::text;
use super::world::{World, end, need};

/// Sends these bytes as they are; `None` where the server hangs up without an answer.
fn send(world: &World, bytes: &[u8]) -> Option<Value> {
    let mut stream = dial(world);
    stream.write_all(bytes).ok()?;
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer).ok()?;
    Some(serde_json::from_slice(&answer).unwrap())
}

fn frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes(), body].concat()
}

pub(super) fn submit(world: &World, signed: &Signed, openings: &[Opening]) -> Value {
    let call = json!({ "op": "submit", "signed": signed, "openings": openings });
    send(world, &frame(&serde_json::to_vec(&call).unwrap())).unwrap()
}

fn size(world: &World) -> u64 {
    let call = json!({ "op": "hello", "key": null, "seen": null });
    let hello = send(world, &frame(&serde_json::to_vec(&call).unwrap())).unwrap();
    hello["hello"]["size"].as_u64().unwrap()
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// A number that no other call returns.
fn fresh() -> [u8; 16] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    ascribe_core::id::derived("faults", &[&n, &now().millis().to_be_bytes()])
}

fn statement(world: &World, role: &str, say: Say) -> Statement {
    Statement {
        v: 1,
        log: "demo.invalid/ascribe".to_owned(),
        by: world.person(role).0.parse().unwrap(),
        at: now(),
        id: StatementId::new(fresh()),
        seen: Seen {
            size: 0,
            root: Root(ascribe_tlog::empty_root()),
        },
        say,
    }
}

/// A request that the demo's rules allow.
pub(super) fn request(world: &World) -> (Statement, Opening) {
    let why = Opening::new(
        "justification",
        [9; 32],
        b"restart the stuck replica".to_vec(),
    );
    let say = Say::Request(Request {
        ticket: Some(Ticket {
            system: "demo".to_owned(),
            id: "OPS-7".to_owned(),
        }),
        ..Request::plain(
            &world.field("target"),
            &world.field("account"),
            (now(), now().plus_millis(600_000)),
            Prose::of(&why),
        )
    });
    (statement(world, "operator", say), why)
}

/// Signed by stock `ssh-keygen`.
fn sign_as(world: &World, key: &Path, namespace: &str, text: &str) -> Signed {
    let file = world.path("to-sign");
    std::fs::write(&file, text).unwrap();
    let signature = world.path("to-sign.sig");
    if signature.exists() {
        std::fs::remove_file(&signature).unwrap();
    }
    let mut keygen = Command::new(need("ssh-keygen"));
    keygen.args(["-Y", "sign", "-n", namespace, "-f"]);
    keygen.arg(key).arg(&file);
    world.program(keygen).exits(0);
    let armoured = std::fs::read_to_string(&signature).unwrap();
    Signed {
        text: text.to_owned(),
        sig: Bytes(ascribe_evidence::dearmour(&armoured).unwrap()),
    }
}

pub(super) fn sign(world: &World, role: &str, statement: &Statement) -> Signed {
    let key = world.person(role).1;
    let text = statement.to_text().unwrap();
    sign_as(world, &key, &statement.say.namespace(), &text)
}

fn asks(world: &World) -> usize {
    world.json(&["requests", "--all"]).lines().len()
}

/// One change to a statement, and the code of the refusal that it meets.
type Edit = (fn(&mut Statement), &'static str);

#[test]
fn a_statement_counts_only_from_its_author_here_and_now() {
    let mut world = World::new();
    let (good, why) = request(&world);
    let before = asks(&world);
    let edits: [Edit; 6] = [
        (|s| s.log = "demo.invalid/other".to_owned(), "log"),
        (|s| s.at = s.at.plus_millis(-301_000), "clock"),
        (|s| s.at = s.at.plus_millis(301_000), "clock"),
        (|s| s.seen.size = 1 << 40, "seen"),
        (|s| s.v = 2, "version"),
        (
            |s| s.by = ascribe_core::id::PersonId::new([7; 16]),
            "no-person",
        ),
    ];
    for (edit, code) in edits {
        let mut other = good.clone();
        edit(&mut other);
        let refused = submit(
            &world,
            &sign(&world, "operator", &other),
            std::slice::from_ref(&why),
        );
        assert_eq!(text(&refused, "/refused/code"), code, "{refused}");
    }
    let text_of = good.to_text().unwrap();
    let key = world.person("operator").1;
    let by_another = sign(&world, "approver", &good);
    let elsewhere = sign_as(&world, &key, "ascribe.approval.v1", &text_of);
    let mut altered = sign(&world, "operator", &good);
    altered.text = altered.text.replace("OPS-7", "OPS-8");
    let mut cut = sign(&world, "operator", &good);
    cut.sig.0.pop();
    for (signed, code) in [
        (by_another, "key"),
        (elsewhere, "signature"),
        (altered, "signature"),
        (cut, "signature"),
    ] {
        let refused = submit(&world, &signed, std::slice::from_ref(&why));
        assert_eq!(text(&refused, "/refused/code"), code, "{refused}");
    }
    assert_eq!(
        asks(&world),
        before,
        "a refused statement asked for something"
    );
    // The statement itself is good: only what was changed was refused.
    let accepted = submit(&world, &sign(&world, "operator", &good), &[why]);
    assert!(accepted["done"]["receipt"].is_object(), "{accepted}");
    assert_eq!(asks(&world), before + 1);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn a_replayed_statement_has_no_second_effect_here_and_none_on_another_ledger() {
    let (mut world, other) = (World::new(), World::new());
    let (asked, why) = request(&world);
    let signed = sign(&world, "operator", &asked);
    let openings = [why];
    let first = submit(&world, &signed, &openings);
    let entry = &first["done"]["receipt"]["entry"];
    let entry: Bytes = serde_json::from_value(entry.clone()).unwrap();
    let say = Say::Approval(Answer {
        of: asked.id,
        entry: ascribe_core::entry::entry_hash(&entry.0),
        remark: None,
    });
    let yes = sign(&world, "approver", &statement(&world, "approver", say));
    let approved = submit(&world, &yes, &[]);
    let grants = world.json(&["grants"]).lines();
    let grant = grants
        .iter()
        .find(|g| text(g, "/request") == asked.id.to_string())
        .unwrap();
    let grant = text(grant, "/id").to_owned();
    world
        .run_as("approver", &["revoke", &grant, "--why", "it was a mistake"])
        .exits(0);
    let (entries, open) = (size(&world), world.json(&["grants", "--all"]).lines().len());
    for (signed, openings, receipt, unknown) in [
        (&signed, &openings[..], &first, "no-person"),
        (&yes, &[], &approved, "no-request"),
    ] {
        let again = submit(&world, signed, openings);
        for part in ["index", "entry"] {
            let (was, is) = (
                &receipt["done"]["receipt"][part],
                &again["done"]["receipt"][part],
            );
            assert!(!was.is_null() && was == is, "{again}");
        }
        let refused = submit(&other, signed, openings);
        assert_eq!(text(&refused, "/refused/code"), unknown, "{refused}");
    }
    // Each of the two writers may have signed its head meanwhile.
    assert!(size(&world) <= entries + 2, "a replay was recorded");
    assert_eq!(world.json(&["grants", "--all"]).lines().len(), open);
    let user = format!(
        "{}+{grant}@{}",
        world.field("account"),
        world.field("target")
    );
    let refused = world.ssh(&user, "echo ran").exits(254);
    assert!(refused.stderr.contains("revoked"), "{refused:?}");
    assert!(!refused.stdout.contains("ran"));
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn malformed_and_oversized_calls_are_refused_and_others_are_served() {
    let mut world = World::new();
    world.stop();
    world.start_target();
    let server = world.serve(None);
    let entries = size(&world);
    let deep = [vec![b'['; 200_000], vec![b']'; 50_000]].concat();
    let sealed = vec![b'x'; 255 * 1024];
    for (bytes, code) in [
        (frame(b""), "malformed"),
        (frame(b"null"), "malformed"),
        (frame(b"{\"op\":\"shutdown\"}"), "malformed"),
        (
            frame(b"{\"op\":\"hello\",\"key\":null,\"seen\":-1}"),
            "malformed",
        ),
        (frame(b"\xff\xfe\x00"), "malformed"),
        (frame(&deep), "malformed"),
        (frame(&sealed), "malformed"),
        ((256 * 1024 + 1u32).to_be_bytes().to_vec(), "size"),
        (u32::MAX.to_be_bytes().to_vec(), "size"),
    ] {
        let refused = send(&world, &bytes).unwrap();
        assert_eq!(text(&refused, "/refused/code"), code, "{refused}");
        assert_eq!(text(&refused, "/refused/kind"), "invalid", "{refused}");
    }
    // Less than what was announced, then silence: hung up on.
    assert_eq!(send(&world, &[0, 0, 1, 0, b'{']), None);
    let file = std::fs::read_to_string(world.data().join("server.json")).unwrap();
    let known: Value = serde_json::from_str(&file).unwrap();
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut tcp = TcpStream::connect(text(&known, "/api")).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        tcp.write_all(junk).unwrap();
        let mut left = Vec::new();
        // A reset is an end too.
        tcp.read_to_end(&mut left).unwrap_or_default();
        assert!(left.len() < 64, "{left:?}");
    }
    // Each of the two writers may have signed its head meanwhile.
    assert!(size(&world) <= entries + 2, "something was recorded");
    world.ssh(&world.place(), "true").exits(0);
    end(server);
    world.verify(&world.data(), &world.policy()).exits(0);
}
