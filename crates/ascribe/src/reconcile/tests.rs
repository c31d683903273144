use ascribe_core::attribution::{ActionRecord, RefusedRecord};
use ascribe_core::database::Compared;
use ascribe_core::encoding::base64url;
use ascribe_core::id::{ActionId, SessionId};
use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::{Format, Reader, Record};
use serde_json::{Value, json};

use super::*;

mod tried;

/// 2026-01-02T03:04:05Z.
const T0: u64 = 1_767_323_045;
const PID: u32 = 70;
const PORT: u16 = 40_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(T0.cast_signed() * 1000 + seconds * 1000)
}

fn action(session: u8, n: u8, kind: &str, text: &[u8], outcome: Value) -> ActionRecord {
    let hash = "A".repeat(43);
    let mut outcome = outcome;
    // As PostgreSQL's grammar names it; here the first word does.
    let class = String::from_utf8_lossy(text)
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let defaults = json!({ "exit_code": null, "signal": null, "at": at(1), "streams": [] });
    for (name, value) in defaults.as_object().unwrap() {
        outcome[name] = value.clone();
    }
    let st = format!("st-{}", "0".repeat(26));
    serde_json::from_value(json!({
        "v": 1,
        "action_id": ActionId::new([n; 16]),
        "session_id": SessionId::new([session; 16]),
        "who": { "chain": [], "opened_by": "signed", "door": "tunnel" },
        "what": {
            "kind": kind, "command": null, "command_b64": base64url(text), "content": "present",
            "within": null, "target": "orders-db", "account": "dba", "system_owner": null,
            "method": "gateway.postgres", "confidence": "observed",
            "sql": { "classes": [class] }, "outcome": outcome,
        },
        "when": { "at": at(i64::from(n)), "witnessed_before": null },
        "why": {
            "request_id": st, "grant_id": format!("g-{}", "0".repeat(26)), "justification": null,
            "ticket": null, "approvals": [], "not_before": at(0), "not_after": at(0), "break_glass": false,
        },
        "integrity": {
            "origin": "example.org/log", "index": 1, "entry_hash": hash, "tree_size": 2, "root": hash,
            "stage": "sequenced",
        },
    }))
    .unwrap()
}

fn connect(session: u8, pid: u32, port: u16) -> ActionRecord {
    let notes = [format!("port {port}"), format!("backend {pid}")];
    let outcome = json!({ "status": "succeeded", "notes": notes });
    action(session, 0, "pg.connect", b"database=orders", outcome)
}

/// A session of ours that came to nothing: from these ports, and what the target answered.
fn failed(session: u8, ports: &[u16], sqlstate: Option<&str>) -> ActionRecord {
    let notes: Vec<String> = ports.iter().map(|port| format!("tried {port}")).collect();
    let mut outcome = json!({ "status": "failed", "notes": notes });
    if let Some(code) = sqlstate {
        outcome["sql"] = json!({ "bytes": 0, "duration_us": 0, "rows": 0, "sqlstate": code });
    }
    action(session, 0, "pg.connect", b"database=nope", outcome)
}

/// One session with these texts, each with what became of it.
fn trail(texts: &[(&str, &str)]) -> Ours {
    let mut ours = Ours::default();
    ours.take(&connect(1, PID, PORT));
    for (n, (text, status)) in (1..).zip(texts) {
        let outcome = match *status {
            "skipped" => json!({ "status": "failed", "notes": ["skipped"] }),
            "failed" => json!({ "status": "failed", "sql": {
                "bytes": 0, "duration_us": 0, "rows": 0, "sqlstate": "22012" } }),
            status => json!({ "status": status }),
        };
        ours.take(&action(1, n, "pg.query", text.as_bytes(), outcome));
    }
    ours
}

/// A line of stderr.
fn line((start, pid, port): (u64, u32, u16), application: &str, said: &str) -> String {
    let said = said.replace('\n', "\n\t");
    let clock = "2026-01-02 03:04:30.000 UTC";
    format!("{clock} {pid} {start:x}.{pid:x} 127.0.0.1({port}) {application} {said}\n")
}

/// A session: let in, then these statements.
fn session(who: (u64, u32, u16), application: &str, texts: &[&str]) -> String {
    let (_, _, port) = who;
    let received = format!("LOG:  connection received: host=127.0.0.1 port={port}");
    let authorized = "LOG:  connection authorized: user=dba database=orders".to_owned();
    let said = texts.iter().map(|text| format!("LOG:  statement: {text}"));
    let begin = [received, authorized].map(|said| line(who, "[unknown]", &said));
    let said = said.map(|said| line(who, application, &said));
    // The log covers all of the day.
    let early = "2026-01-02 03:04:00.000 UTC 9 6956f000.9   LOG:  checkpoint starting: time\n";
    std::iter::once(early.to_owned())
        .chain(begin)
        .chain(said)
        .collect()
}

const OURS: (u64, u32, u16) = (T0, PID, PORT);

fn records(format: Format, log: &str) -> Vec<Record> {
    let mut reader = Reader::new(format);
    let mut records = reader.push(log.as_bytes());
    records.extend(reader.finish());
    records.into_iter().map(|record| record.unwrap()).collect()
}

fn joined(ours: Ours, log: &str, from: &[&str]) -> Report {
    let records = records(Format::Stderr, log);
    let mut extent = Extent::default();
    records.iter().for_each(|record| extent.take(record));
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    let mut join = Join::new(ours, &extent, &from);
    records.iter().for_each(|record| join.take(record));
    join.finish(&extent)
}

fn so_many(sessions: u64, statements: u64) -> Compared {
    Compared {
        sessions,
        statements,
    }
}

/// The log against these of ours: matched, only ours, only the database's.
fn sets(texts: &[(&str, &str)], logged: &[&str]) -> [u64; 3] {
    let report = joined(trail(texts), &session(OURS, "ascribe/1", logged), &[]);
    assert_eq!(
        (report.matched.sessions, report.database_only.sessions),
        (1, 0)
    );
    [report.matched, report.ours_only, report.database_only].map(|set| set.statements)
}

#[test]
fn a_session_is_ours_by_process_beginning_and_port_and_by_nothing_else() {
    let ours = || trail(&[("select 1", "succeeded")]);
    let report = joined(ours(), &session(OURS, "ascribe/1", &["select 1;"]), &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 1), so_many(0, 0))
    );
    assert!(report.comparable && report.findings.is_empty() && !report.partly_logged);
    let strangers = [
        (T0, PID + 1, PORT),
        (T0, PID, PORT + 1),
        (T0 - 3600, PID, PORT),
        (T0 + 3600, PID, PORT),
    ];
    // Whatever they call themselves and write into their texts.
    let name = format!("ascribe/{}", SessionId::new([1; 16]));
    let text = format!("/* ascribe='{}' */ select 1", ActionId::new([1; 16]));
    for who in strangers {
        let alone = joined(ours(), &session(who, &name, &[&text]), &[]);
        assert_eq!(
            (alone.matched, alone.database_only),
            (so_many(0, 0), so_many(1, 1))
        );
        let log = session(OURS, "ascribe/1", &["select 1"]) + &session(who, &name, &[&text]);
        let report = joined(ours(), &log, &[]);
        assert_eq!(
            (report.matched, report.database_only),
            (so_many(1, 1), so_many(1, 1))
        );
        let [finding] = &report.findings[..] else {
            panic!("{:?}", report.findings);
        };
        assert_eq!(
            (finding.pid, finding.port, finding.ours),
            (who.1, Some(who.2), None)
        );
        assert_eq!(finding.application.as_deref(), Some(name.as_str()));
        assert_eq!(finding.texts[0].text, text);
    }
}

#[test]
fn a_session_of_ours_is_one_session_of_the_log() {
    // The process was used again within the clocks' bounds, and the port too.
    let again = (T0 + 30, PID, PORT);
    let log = session(OURS, "a", &["select 1"]) + &session(again, "a", &["select 1"]);
    let report = joined(trail(&[("select 1", "succeeded")]), &log, &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 1), so_many(1, 1))
    );
}

#[test]
fn gateways_are_where_they_are_said_to_be() {
    let log = session(OURS, "a", &["select 1"]);
    let ours = || trail(&[("select 1", "succeeded")]);
    assert!(!joined(ours(), &log, &["10.0.0.1", "127.0.0.1"]).is_bypassed());
    let report = joined(ours(), &log, &["10.0.0.1"]);
    assert_eq!(
        (report.database_only, report.ours_only),
        (so_many(1, 1), so_many(1, 1))
    );
    assert_eq!(
        report.reasons.keys().collect::<Vec<_>>(),
        ["its session is not in the log"]
    );
}

#[test]
fn one_logged_text_can_be_several_actions() {
    let three = [
        ("create table t (a int)", "succeeded"),
        ("insert into t values (1)", "succeeded"),
        ("select 5", "skipped"),
    ];
    let text = "create table t (a int); /* and */\ninsert into t values (1);; select 5 ; -- end";
    let texts = [
        three[0],
        ("/* and */\ninsert into t values (1)", "succeeded"),
        three[2],
    ];
    // What was skipped is in the text, but was not executed.
    assert_eq!(sets(&texts, &[text]), [2, 1, 0]);
    assert_eq!(sets(&texts, &[text, text]), [2, 1, 1]);
    // Another end, another beginning, something in between.
    assert_eq!(
        sets(&texts, &["create table t (a int); drop table t"]),
        [0, 3, 1]
    );
    assert_eq!(
        sets(&[("select 1", "succeeded")], &["select 10"]),
        [0, 1, 1]
    );
    assert_eq!(
        sets(
            &[("select 1", "succeeded"), ("0", "succeeded")],
            &["select 10"]
        ),
        [0, 2, 1]
    );
}

#[test]
fn what_is_not_logged_is_ours_with_its_reason() {
    let texts = [
        ("selec 1", "failed"),
        ("select 1", "succeeded"),
        ("select 2", "not_sent"),
        ("select 3", "unknown"),
    ];
    let report = joined(
        trail(&texts),
        &session(OURS, "a", &["select 1", "select 2"]),
        &[],
    );
    // What was not sent and is in the log came from elsewhere.
    assert_eq!(report.database_only, so_many(0, 1));
    assert_eq!(
        (report.matched, report.ours_only),
        (so_many(1, 1), so_many(0, 3))
    );
    let reasons: Vec<_> = report
        .reasons
        .iter()
        .map(|(why, n)| (why.as_str(), *n))
        .collect();
    let expected = [
        ("failed with 22012", 1),
        ("not sent", 1),
        ("outcome unknown", 1),
    ];
    assert_eq!(reasons, expected);
    // The same text, refused first.
    let twice = [("select 1", "failed"), ("select 1", "succeeded")];
    let report = joined(trail(&twice), &session(OURS, "a", &["select 1"]), &[]);
    assert_eq!(
        report.reasons.keys().collect::<Vec<_>>(),
        ["failed with 22012"]
    );
    // `log_statement = 'mod'`.
    let read = [("select 1", "succeeded"), ("delete from t", "succeeded")];
    let report = joined(trail(&read), &session(OURS, "a", &["delete from t"]), &[]);
    assert!(report.partly_logged && !report.is_bypassed());
}

#[test]
fn a_statement_in_our_session_that_we_do_not_have_is_named() {
    // As `RAISE LOG` can make one.
    let log = session(OURS, "a", &["select 1", "drop table t"]);
    let report = joined(trail(&[("select 1", "succeeded")]), &log, &[]);
    assert_eq!(report.database_only, so_many(0, 1));
    assert_eq!(report.findings[0].ours, Some(SessionId::new([1; 16])));
    assert_eq!(report.findings[0].texts[0].text, "drop table t");
}

#[test]
fn letters_that_the_log_replaces_are_not_told_apart_and_others_are() {
    let mut ours = Ours::default();
    ours.take(&connect(1, PID, PORT));
    for (n, text) in (1..).zip([&b"select '\xe9t\xe9'"[..], b"select '\xe9'"]) {
        ours.take(&action(
            1,
            n,
            "pg.query",
            text,
            json!({ "status": "succeeded" }),
        ));
    }
    let log = session(OURS, "a", &["select 'été'", "select 'x'"]);
    let report = joined(ours, &log, &[]);
    assert_eq!(
        (report.matched.statements, report.database_only.statements),
        (1, 1)
    );
    assert_eq!(
        sets(&[("select 'été'", "succeeded")], &["select 'àtà'"]),
        [0, 1, 1]
    );
}

#[test]
fn who_only_knocks_is_counted_apart_and_only_if_the_log_would_tell() {
    let who = (T0, 90, 50_000);
    let received = line(
        who,
        "[unknown]",
        "LOG:  connection received: host=127.0.0.1 port=50000",
    );
    let refused = line(
        who,
        "[unknown]",
        "FATAL:  password authentication failed for user \"dba\"",
    );
    let ours = || trail(&[("select 1", "succeeded")]);
    let mine = session(OURS, "a", &["select 1"]);
    let knocked = joined(ours(), &format!("{mine}{received}{refused}"), &[]);
    assert_eq!((knocked.knocked, knocked.database_only), (1, so_many(0, 0)));
    // Without the beginnings of sessions, that could be the end of one.
    assert!(joined(ours(), &format!("{mine}{refused}"), &[]).is_bypassed());
    let quiet = mine.replace("connection authorized", "connection authenticated");
    let report = joined(ours(), &format!("{quiet}{received}"), &[]);
    assert_eq!(
        (report.database_only.sessions, report.findings.len()),
        (1, 1)
    );
    // A name that hides that somebody was let in hides nothing.
    let hidden = line(
        who,
        "[unknown]",
        "LOG:  connection authorized: user=dba application_name=x LOG:  y",
    );
    let report = joined(ours(), &format!("{mine}{received}{hidden}"), &[]);
    assert_eq!(report.database_only.sessions, 1);
    let debug = line(who, "x DEBUG:  y", "LOG:  statement: select 2");
    let report = joined(ours(), &format!("{mine}{received}{debug}"), &[]);
    assert_eq!(report.database_only.sessions, 1);
}

#[test]
fn pgaudit_stands_in_where_the_server_logs_no_statements() {
    let audit = |id: u32, sub: u32, text: &str| {
        format!(
            "LOG:  AUDIT: SESSION,{id},{sub},READ,SELECT,,,\"{}\",<none>",
            text.replace('"', "\"\"")
        )
    };
    let log = |lines: &[String]| {
        let lines = lines.iter().map(|said| line(OURS, "a", said));
        session(OURS, "a", &[]) + &lines.collect::<String>()
    };
    let texts = [
        ("select f()", "succeeded"),
        ("select 1", "succeeded"),
        ("select 2", "succeeded"),
        ("create role carol password 'x'", "succeeded"),
    ];
    let both = "select 1; select 2";
    let lines = [
        audit(1, 1, "select f()"),
        audit(1, 2, "insert into t values (1)"),
        audit(2, 1, both),
        audit(3, 1, both),
        audit(4, 1, "create role carol password <REDACTED>"),
    ];
    let report = joined(trail(&texts), &log(&lines), &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 4), so_many(0, 0))
    );
    let more = [
        &lines[..],
        &[audit(5, 1, "create role bob password <REDACTED>")],
    ]
    .concat();
    let report = joined(trail(&texts), &log(&more), &[]);
    assert_eq!(report.database_only, so_many(0, 1));
    // It shows what was prepared, not the name by which that is executed.
    let texts = [
        ("prepare p as select 3", "succeeded"),
        ("execute p", "succeeded"),
    ];
    let lines = [
        audit(1, 1, "prepare p as select 3"),
        audit(2, 1, "prepare p as select 3"),
    ];
    let report = joined(trail(&texts), &log(&lines), &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 2), so_many(0, 0))
    );
    // Beside the server's own lines they say the same again.
    let both = [
        audit(1, 1, "select f()"),
        "LOG:  statement: select f()".to_owned(),
    ];
    let report = joined(trail(&[("select f()", "succeeded")]), &log(&both), &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 1), so_many(0, 0))
    );
}

#[test]
fn a_log_without_statements_is_not_comparable() {
    let texts = [("select 1", "succeeded")];
    let report = joined(trail(&texts), &session(OURS, "a", &[]), &[]);
    assert!(!report.comparable && !report.is_bypassed() && !report.partly_logged);
    // Nothing was executed, so nothing had to be logged; but then it must show that nobody came.
    assert!(joined(trail(&[]), &session(OURS, "a", &[]), &[]).comparable);
    let idle = "2026-01-02 03:04:00.000 UTC 9 6956f000.9   LOG:  checkpoint starting: time\n";
    assert!(!joined(Ours::default(), idle, &[]).comparable);
}

#[test]
fn a_process_of_the_server_that_executes_is_named() {
    let idle = "2026-01-02 03:04:00.000 UTC 9 6956f000.9   LOG:  checkpoint starting: time\n";
    let by_itself = "2026-01-02 03:04:00.000 UTC 9 6956f000.9   LOG:  statement: drop table t\n";
    let report = joined(Ours::default(), &format!("{idle}{by_itself}"), &[]);
    assert_eq!(report.database_only, so_many(1, 1));
}

#[test]
fn all_are_counted_and_so_many_are_listed() {
    let mut log = session(OURS, "a", &["select 1"]);
    for pid in 1000..2500 {
        log += &line((T0, pid, 1), "b", "LOG:  statement: select 2");
    }
    let long = "x".repeat(5000);
    for _ in 0..30 {
        log += &line((T0, 5000, 1), "b", &format!("LOG:  statement: {long}"));
    }
    let report = joined(trail(&[("select 1", "succeeded")]), &log, &[]);
    assert_eq!(report.database_only, so_many(1501, 1530));
    assert_eq!(report.findings.len(), 1000);
}

#[test]
fn a_log_that_begins_within_a_session_is_compared_from_there() {
    let texts = [("select 1", "succeeded"), ("select 2", "succeeded")];
    let log = line(OURS, "a", "LOG:  statement: select 2");
    let report = joined(trail(&texts), &log, &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(1, 1), so_many(0, 0))
    );
    assert_eq!(report.ours_only, so_many(0, 0));
}

/// A refusal is no action; the list of what only we have names it by the id that its client was told.
#[test]
fn what_was_refused_is_ours_alone() {
    let refusal = |what: &str, detail: &str, seconds: i64| -> RefusedRecord {
        serde_json::from_value(json!({
            "v": 1, "index": 9, "at": at(seconds), "session_id": SessionId::new([1; 16]),
            "person": format!("p-{}", "0".repeat(26)), "account": "dba", "target": "orders-db",
            "what": what, "code": "flag", "detail": detail,
        }))
        .unwrap()
    };
    let id = ActionId::new([77; 16]);
    let mut ours = trail(&[("select 1", "succeeded"), ("select 2", "succeeded")]);
    ours.refuse(&refusal("pg.query", &format!("action {id} set role x"), 1));
    ours.refuse(&refusal("refusals", "further refusals are not listed", 1));
    // Neither is a statement, and one is not of the log's time.
    ours.refuse(&refusal("pg.cancel", "", 1));
    ours.refuse(&refusal("forwarding", "", 1));
    ours.refuse(&refusal("pg.query", "action ", 4_000_000));
    // Nor did what had no session reach a database.
    let mut opening = refusal("pg.query", "", 1);
    (opening.session_id, opening.account, opening.target) = (None, None, None);
    ours.refuse(&opening);
    let log = session(OURS, "x", &["select 1", "select 2"]);
    let report = joined(ours, &log, &[]);
    assert_eq!(report.ours_only.statements, 2);
    assert_eq!(report.reasons["refused: flag"], 2);
    let ids: Vec<_> = report.left.iter().map(|left| left.action_id).collect();
    assert_eq!(ids, [Some(id), None]);
    assert!(!report.is_bypassed());
}
