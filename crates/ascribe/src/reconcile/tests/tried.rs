//! Connections of ours that came to nothing: which of the log's sessions they are, and that no other is taken for one of them.

use ascribe_core::attribution::ActionRecord;
use ascribe_core::id::SessionId;
use ascribe_wire::pglog::Format;
use serde_json::json;

use super::super::{Extent, Join, Ours, Report};
use super::{
    OURS, PID, PORT, T0, action, at, failed, joined, line, records, session, so_many, trail,
};

/// A session of the log that came from here, with what it says of it.
fn turned_away(who: (u64, u32, u16), said: &[&str]) -> String {
    let (_, _, port) = who;
    let received = format!("LOG:  connection received: host=127.0.0.1 port={port}");
    let authorized = "LOG:  connection authorized: user=dba database=nope";
    let said = [&[received.as_str(), authorized], said].concat();
    said.iter()
        .map(|said| line(who, "[unknown]", said))
        .collect()
}

const REFUSED: &str = "FATAL:  database \"nope\" does not exist";

/// One of ours that the server let in and then refused is ours, and stands for no other session.
#[test]
fn a_session_that_the_server_refused_is_ours_by_its_port_once() {
    let who = (T0, 90, 50_000);
    let ours = |sqlstate| {
        let mut ours = trail(&[("select 1", "succeeded")]);
        ours.take(&failed(2, &[50_000], sqlstate));
        ours
    };
    let mine = session(OURS, "a", &["select 1"]);
    let compared = |log: &str, from: &[&str]| {
        let report = joined(ours(Some("3D000")), &format!("{mine}{log}"), from);
        (
            report.matched.sessions,
            report.database_only,
            report.findings.len(),
        )
    };
    let refused = turned_away(who, &[REFUSED]);
    assert_eq!(compared(&refused, &["127.0.0.1"]), (2, so_many(0, 0), 0));
    let passes = |log: &str, statements: u64| {
        assert_eq!(compared(log, &[]), (1, so_many(1, statements), 1), "{log}");
    };
    // Not what did anything, was let in for good, came from elsewhere or at another time.
    let did = ["LOG:  statement: drop table t", REFUSED];
    passes(&turned_away(who, &did), 1);
    let was_open = "LOG:  disconnection: session time: 0:00:00.1 user=dba database=orders";
    passes(&turned_away(who, &[REFUSED, was_open]), 0);
    passes(&turned_away(who, &[was_open]), 0);
    passes(&turned_away(who, &[]), 0);
    passes(
        &turned_away(who, &["ERROR:  relation \"t\" does not exist", REFUSED]),
        0,
    );
    passes(&turned_away(who, &["LOG:  duration: 5.000 ms", REFUSED]), 0);
    let cut = "FATAL:  terminating connection due to administrator command";
    passes(&turned_away(who, &[cut]), 0);
    passes(&turned_away((T0, 90, 50_001), &[REFUSED]), 0);
    passes(&turned_away((T0 + 3600, 90, 50_000), &[REFUSED]), 0);
    passes(&turned_away((T0 - 3600, 90, 50_000), &[REFUSED]), 0);
    let report = joined(
        ours(Some("3D000")),
        &format!("{mine}{refused}"),
        &["10.0.0.1"],
    );
    assert_eq!(report.database_only.sessions, 2);
    // One of two, whichever came first; and the one that did something is named.
    let again = (T0 + 20, 91, 50_000);
    assert_eq!(
        compared(&format!("{refused}{}", turned_away(again, &[REFUSED])), &[]),
        (2, so_many(1, 0), 1)
    );
    for (first, second) in [(who, again), (again, who)] {
        let log = turned_away(first, &["LOG:  statement: drop table t"])
            + &turned_away(second, &[REFUSED]);
        let report = joined(ours(Some("3D000")), &format!("{mine}{log}"), &[]);
        assert_eq!(report.database_only, so_many(1, 1));
        assert_eq!(report.findings[0].pid, first.1);
        assert_eq!(report.findings[0].user, None);
    }
    // Ours was not let in at all: then another one that was is not taken for it.
    let knock = |who: (u64, u32, u16)| {
        let (_, _, port) = who;
        let received = format!("LOG:  connection received: host=127.0.0.1 port={port}");
        line(who, "[unknown]", &received)
            + &line(
                who,
                "[unknown]",
                "FATAL:  password authentication failed for user \"dba\"",
            )
    };
    for (knocker, other) in [(who, again), (again, who)] {
        let log = knock(knocker) + &turned_away(other, &[REFUSED]);
        let report = joined(ours(Some("28P01")), &format!("{mine}{log}"), &[]);
        assert_eq!((report.database_only, report.knocked), (so_many(1, 0), 0));
        assert_eq!(report.findings[0].pid, other.1);
    }
    // We broke off: it may have been let in for good, and did nothing.
    let broken = turned_away(
        who,
        &["LOG:  could not send data to client: Broken pipe", was_open],
    );
    let broken = said_at("06.000", &broken);
    let report = joined(ours(None), &format!("{mine}{broken}"), &[]);
    assert_eq!((report.matched.sessions, report.is_bypassed()), (2, false));
    let did = turned_away(who, &["LOG:  statement: select 1", was_open]);
    assert!(joined(ours(None), &format!("{mine}{did}"), &[]).is_bypassed());
}

/// The gateway was killed before it could say what came of its connection: by the port that was on record before, what the
/// server has of it is ours, as long as that is nothing but its beginning and its end. A gateway that lives says when it
/// was over, and nothing later is ours.
#[test]
fn a_session_of_which_nobody_knows_what_came_is_ours_while_it_was_connecting() {
    let lost = |port: Option<u16>, until: Option<i64>| {
        let outcome = json!({ "status": "unknown", "notes": [] });
        let mut record = action(2, 0, "pg.connect", b"database=orders", outcome);
        record.what.outcome.at = until.map(at);
        record.what.sql.as_mut().unwrap().port = port;
        let mut ours = Ours::default();
        ours.take(&record);
        ours
    };
    let who = (T0, 90, 50_000);
    let ends = |seconds: &str, texts: &[&str]| {
        let log = session(who, "ascribe/s-0", texts);
        let end = line(
            who,
            "ascribe/s-0",
            "LOG:  disconnection: session time: 0:00:00.1 user=dba database=orders",
        );
        let log = log.replace("03:04:30.000", "03:04:06.000") + &end;
        log.replace("03:04:30.000", seconds)
            + "2026-01-02 03:05:30.000 UTC 9 6956f000.9   LOG:  checkpoint complete: x\n"
    };
    // Recovery says it much later, if anything does.
    let of = |port, log: &str| joined(lost(port, Some(3600)), log, &[]);
    for (soon, until) in [
        ("03:04:06.100", Some(3600)),
        ("03:04:15.000", Some(3600)),
        ("03:04:15.000", None),
        ("03:04:06.100", Some(1)),
    ] {
        let log = ends(soon, &[]);
        let report = joined(lost(Some(50_000), until), &log, &[]);
        assert_eq!(
            (report.matched.sessions, report.is_bypassed()),
            (1, false),
            "{soon} {until:?}"
        );
    }
    let later = joined(lost(Some(50_000), Some(1)), &ends("03:04:15.000", &[]), &[]);
    assert!(later.is_bypassed(), "it was over, and somebody stayed");
    for (port, log) in [
        // From another port, or none that is known; with a statement; or it stayed.
        (Some(50_001), ends("03:04:06.100", &[])),
        (None, ends("03:04:06.100", &[])),
        (Some(50_000), ends("03:04:06.100", &["select 1"])),
        (Some(50_000), ends("03:04:40.000", &[])),
        // Another role.
        (
            Some(50_000),
            ends("03:04:06.100", &[]).replace("user=dba", "user=app"),
        ),
    ] {
        let report = of(port, &log);
        assert!(report.is_bypassed(), "{log}");
        assert_eq!(report.database_only.sessions, 1);
    }
}

/// A role that was lent is on record with what came of the connection. Of one of which nobody knows that, the server's log says whose
/// session it is, behind the role and the database.
#[test]
fn a_role_that_was_lent_for_a_connection_of_which_nobody_knows_what_came_is_ours_by_the_sessions_name()
 {
    let ours = SessionId::new([2; 16]);
    let other = SessionId::new([3; 16]);
    let lost = |notes: &[&str], port: Option<u16>| {
        let outcome = json!({ "status": "unknown", "notes": notes });
        let command = b"database=nope client_encoding=UTF8";
        let mut record = action(2, 0, "pg.connect", command, outcome);
        record.what.sql.as_mut().unwrap().port = port;
        record
    };
    let lent = |notes: &[&str]| lost(notes, Some(50_000));
    for (record, user, database, told, mine) in [
        (
            lent(&[]),
            "lent",
            "nope",
            format!("ascribe/{ours} SSL enabled"),
            true,
        ),
        (lent(&[]), "lent", "nope", format!("ascribe/{ours}"), true),
        (lent(&[]), "dba", "nope", "x".to_owned(), true),
        // Another session's name, or one that only begins like it.
        (lent(&[]), "lent", "nope", format!("ascribe/{other}"), false),
        (lent(&[]), "lent", "nope", format!("ascribe/{ours}x"), false),
        (
            lent(&[]),
            "lent",
            "nope",
            format!("x application_name=ascribe/{ours}"),
            false,
        ),
        // Another database; a name that looks like what is behind it.
        (
            lent(&[]),
            "lent",
            "orders",
            format!("ascribe/{ours}"),
            false,
        ),
        (
            lent(&[]),
            "lent database=nope",
            "orders",
            format!("ascribe/{ours}"),
            false,
        ),
        // The gateway lived, and says which role it was; or knows another port.
        (
            lent(&["login lent"]),
            "lent",
            "nope",
            format!("ascribe/{ours}"),
            true,
        ),
        (
            lent(&["login lent"]),
            "postgres",
            "nope",
            format!("ascribe/{ours}"),
            false,
        ),
        (
            lent(&["tried 50000"]),
            "postgres",
            "nope",
            format!("ascribe/{ours}"),
            false,
        ),
        (
            lost(&[], Some(50_001)),
            "lent",
            "nope",
            format!("ascribe/{ours}"),
            false,
        ),
        (
            lost(&[], None),
            "lent",
            "nope",
            format!("ascribe/{ours}"),
            false,
        ),
    ] {
        let let_in = format!("user={user} database={database}");
        let told = format!("{let_in} application_name={told}");
        let csv = named(90, user, database, false).replace(&let_in, &told);
        assert_eq!(against(&record, &csv).is_bypassed(), !mine, "{csv}");
        let knocked = line(
            (T0, 90, 50_000),
            "[unknown]",
            "LOG:  connection received: host=127.0.0.1 port=50000",
        );
        let ended = "LOG:  disconnection: session time: 0";
        let authorized = format!("LOG:  connection authorized: {told}");
        let said =
            [authorized.as_str(), ended].map(|said| line((T0, 90, 50_000), "[unknown]", said));
        let stderr = said_at("05.500", &(knocked + &said.concat()));
        let mut trail = trail(&[("select 1", "succeeded")]);
        trail.take(&record);
        let log = session(OURS, "a", &["select 1"]) + &stderr;
        let report = joined(trail, &log, &[]);
        // That log has no role but there.
        assert_eq!(report.is_bypassed(), !mine, "{log}");
    }
}

/// Where the log says how it ended, that is compared as well.
#[test]
fn a_session_that_the_server_refused_otherwise_is_not_the_one_of_ours() {
    let log = |code: &str| {
        let clock = "2026-01-02 03:04:05.500 UTC";
        let one = |said: &str, severity: &str, code: &str| {
            format!(
                "{clock},\"dba\",\"nope\",90,\"127.0.0.1:50000\",{T0:x}.5a,1,\"startup\",{clock},3/1,0,\
                 {severity},{code},\"{said}\",,,,,,,,,\"\",\"client backend\",,0\n"
            )
        };
        one(
            "connection received: host=127.0.0.1 port=50000",
            "LOG",
            "00000",
        ) + &one(
            "connection authorized: user=dba database=nope",
            "LOG",
            "00000",
        ) + &one("no", "FATAL", code)
    };
    for (told, logged, ours) in [
        ("3D000", "3D000", true),
        ("42501", "42501", true),
        ("3D000", "57P01", false),
        ("28P01", "3D000", false),
    ] {
        let mut trail = Ours::default();
        trail.take(&failed(2, &[50_000], Some(told)));
        let records = records(Format::Csv, &log(logged));
        let mut extent = Extent::default();
        records.iter().for_each(|record| extent.take(record));
        let mut join = Join::new(trail, &extent, &[]);
        records.iter().for_each(|record| join.take(record));
        let report = join.finish(&extent);
        assert_eq!(report.is_bypassed(), !ours, "{told} {logged}");
    }
}

/// A password that was changed: what was tried first is known by its port, and what came of the second is ours.
#[test]
fn a_log_with_nothing_but_a_wrong_password_of_ours_reconciles() {
    let knock = |who: (u64, u32, u16)| {
        let (_, _, port) = who;
        let received = format!("LOG:  connection received: host=127.0.0.1 port={port}");
        line(who, "[unknown]", &received)
            + &line(
                who,
                "[unknown]",
                "FATAL:  password authentication failed for user \"dba\"",
            )
    };
    let mut ours = Ours::default();
    ours.take(&failed(2, &[50_000, 50_002], Some("28P01")));
    let log = knock((T0, 90, 50_000)) + &knock((T0 + 1, 91, 50_002));
    let log = said_at("05.500", &log);
    let report = joined(ours, &log, &[]);
    assert_eq!(
        (report.matched, report.database_only),
        (so_many(2, 0), so_many(0, 0))
    );
    assert!(report.comparable && report.connections && report.findings.is_empty());
    // Somebody else's knock is not ours, and nothing says that they were not let in.
    let mut ours = Ours::default();
    ours.take(&failed(2, &[50_000], Some("28P01")));
    let report = joined(ours, &log, &[]);
    assert_eq!(
        (report.database_only, report.findings.len()),
        (so_many(1, 0), 1)
    );
    assert_eq!(report.findings[0].port, Some(50_002));
    // The second try was let in.
    let mut ours = Ours::default();
    let notes = [
        "tried 50000".to_owned(),
        format!("port {PORT}"),
        format!("backend {PID}"),
    ];
    let outcome = json!({ "status": "succeeded", "notes": notes });
    ours.take(&action(1, 0, "pg.connect", b"database=orders", outcome));
    let log = knock((T0, 90, 50_000)) + &session(OURS, "a", &[]);
    let report = joined(ours, &log, &[]);
    assert_eq!(
        (
            report.matched.sessions,
            report.knocked,
            report.is_bypassed()
        ),
        (2, 0, false)
    );
}

/// What the log has of one that came, and nothing of what it was let do.
fn came(who: (u64, u32, u16), said: &[&str]) -> String {
    let (_, _, port) = who;
    let received = format!("LOG:  connection received: host=127.0.0.1 port={port}");
    let said = std::iter::once(received.as_str()).chain(said.iter().copied());
    said.map(|said| line(who, "[unknown]", said)).collect()
}

/// The same log, with what it says at half a minute said at this second.
fn said_at(second: &str, log: &str) -> String {
    log.replace("03:04:30.000", &format!("03:04:{second}"))
}

const IDLE: &str = "2026-01-02 03:04:30.000 UTC 9 6956f000.9   LOG:  checkpoint starting: time\n";
const WAS_OPEN: &str = "LOG:  disconnection: session time: 0:00:00.1 user=dba database=nope";

/// A log that does not say who was let in, as PostgreSQL 18 writes it with `log_connections = 'receipt'`: what is in
/// the log from before is not what came from the same port later.
#[test]
fn what_came_to_nothing_before_the_log_began_explains_nothing_in_it() {
    let compared = |sqlstate, log: &str| {
        let mut ours = Ours::default();
        ours.take(&failed(2, &[50_000], sqlstate));
        let report = joined(ours, log, &[]);
        assert_eq!(report.findings.len() as u64, report.database_only.sessions);
        (report.matched.sessions, report.database_only.sessions)
    };
    let (ours, other) = ((T0, 90, 50_000), (T0 + 20, 91, 50_000));
    let early = said_at("00.000", IDLE);
    let around = |log: &str| format!("{early}{log}{IDLE}");
    // We connected from 05 to 06.
    let later = said_at("20.000", IDLE);
    for said in [&[][..], &[REFUSED], &[WAS_OPEN]] {
        for sqlstate in [Some("3D000"), None] {
            let log = later.clone() + &came(other, said);
            assert_eq!(compared(sqlstate, &log), (0, 1), "{said:?} {sqlstate:?}");
        }
    }
    // All of it is in the log: ours is what was refused, and not what may have stayed.
    let refused = said_at("05.500", &came(ours, &[REFUSED]));
    assert_eq!(compared(Some("3D000"), &around(&refused)), (1, 0));
    assert_eq!(compared(None, &around(&refused)), (1, 0));
    let stayed = came(other, &[]);
    for log in [refused.clone() + &stayed, stayed.clone() + &refused] {
        assert_eq!(compared(Some("3D000"), &around(&log)), (1, 1));
    }
    for said in [&[][..], &[WAS_OPEN]] {
        let log = around(&said_at("05.500", &came(ours, said)));
        assert_eq!(compared(Some("3D000"), &log), (0, 1), "{said:?}");
    }
    // It begins or ends meanwhile: what came then is ours, and not what came later or sooner.
    let begun = said_at("05.200", IDLE);
    let ended = |log: &str| format!("{early}{log}{begun}");
    assert_eq!(compared(Some("3D000"), &(begun.clone() + &refused)), (1, 0));
    assert_eq!(compared(Some("3D000"), &refused), (1, 0));
    assert_eq!(compared(Some("3D000"), &ended(&refused)), (1, 0));
    let next = said_at("07.000", &came((T0 + 2, 91, 50_000), &[REFUSED]));
    assert_eq!(compared(Some("3D000"), &(begun.clone() + &next)), (0, 1));
    let before = said_at("03.000", &came((T0 - 2, 89, 50_000), &[REFUSED]));
    assert_eq!(compared(Some("3D000"), &ended(&before)), (0, 1));
}

/// The same in a log that says who was let in.
#[test]
fn a_log_that_begins_while_we_connect_does_not_have_ours_later() {
    let compared = |log: &str| {
        let mut ours = Ours::default();
        ours.take(&failed(2, &[50_000], Some("3D000")));
        joined(ours, log, &[]).database_only.sessions
    };
    let begun = said_at("05.200", IDLE);
    let at = |second, start| said_at(second, &turned_away((start, 90, 50_000), &[REFUSED]));
    assert_eq!(compared(&(begun.clone() + &at("05.500", T0) + IDLE)), 0);
    assert_eq!(compared(&(begun + &at("07.000", T0 + 2) + IDLE)), 1);
}

/// A session of csvlog, with its names: the server refused it, or it ended by itself.
fn named(pid: u32, user: &str, database: &str, refused: bool) -> String {
    let clock = "2026-01-02 03:04:05.500 UTC";
    let one = |names: &str, severity: &str, code: &str, said: &str| {
        format!(
            "{clock},{names},{pid},\"127.0.0.1:50000\",{T0:x}.{pid:x},1,\"startup\",{clock},3/1,0,\
             {severity},{code},\"{said}\",,,,,,,,,\"\",\"client backend\",,0\n"
        )
    };
    let names = format!("\"{user}\",\"{database}\"");
    let let_in = format!("connection authorized: user={user} database={database}");
    let received = "connection received: host=127.0.0.1 port=50000";
    let end = match refused {
        true => one(&names, "FATAL", "3D000", "no"),
        false => one(&names, "LOG", "00000", "disconnection: session time: 0"),
    };
    one(",", "LOG", "00000", received) + &one(&names, "LOG", "00000", &let_in) + &end
}

/// One of ours that was refused or that we broke off, to the database that this command names and with the role that
/// was lent, against what csvlog says.
fn compared(command: &str, role: Option<&str>, refused: bool, said: &str) -> Report {
    let mut notes = vec!["tried 50000".to_owned()];
    notes.extend(role.map(|role| format!("login {role}")));
    let mut outcome = json!({ "status": "failed", "notes": notes });
    if refused {
        outcome["sql"] = json!({ "bytes": 0, "duration_us": 0, "rows": 0, "sqlstate": "3D000" });
    }
    let command = command.as_bytes();
    against(&action(2, 0, "pg.connect", command, outcome), said)
}

/// A connection of ours against what csvlog says, which was kept long before and after.
fn against(connected: &ActionRecord, said: &str) -> Report {
    let mut trail = Ours::default();
    trail.take(connected);
    let idle = |second: &str| {
        format!(
            "2026-01-02 03:04:{second}.000 UTC,,,9,,6956f000.9,1,,2026-01-02 00:00:00 UTC,,0,LOG,00000,\"idle\",\
             ,,,,,,,,\"\",\"x\",,0\n"
        )
    };
    let records = records(Format::Csv, &format!("{}{said}{}", idle("00"), idle("30")));
    let mut extent = Extent::default();
    records.iter().for_each(|record| extent.take(record));
    let mut join = Join::new(trail, &extent, &[]);
    records.iter().for_each(|record| join.take(record));
    join.finish(&extent)
}

/// Whoever came from our port with another role, or to another database, is not ours.
#[test]
fn one_of_another_role_or_to_another_database_is_not_the_one_of_ours() {
    let whole = format!("database={}", "n".repeat(70));
    let (cut, shorter) = ("n".repeat(63), "n".repeat(62));
    for refused in [true, false] {
        for (command, role, user, database, ours) in [
            ("database=nope", None, "dba", "nope", true),
            ("database=nope", None, "postgres", "nope", false),
            ("database=nope", None, "dba", "orders", false),
            ("database=nope", None, "dba", "nop", false),
            ("database=nope", None, "dba", "nope2", false),
            ("database=nope", Some("lent"), "lent", "nope", true),
            ("database=nope", Some("lent"), "dba", "nope", false),
            (
                "database=nope client_encoding=UTF8 a.b=c d",
                None,
                "dba",
                "nope",
                true,
            ),
            (
                "database=nope client_encoding=UTF8",
                None,
                "dba",
                "nop",
                false,
            ),
            (
                "database=no pe client_encoding=UTF8",
                None,
                "dba",
                "no pe",
                true,
            ),
            (
                "database=no pe client_encoding=UTF8",
                None,
                "dba",
                "no",
                false,
            ),
            (&whole, None, "dba", &cut, true),
            (&whole, None, "dba", &shorter, false),
        ] {
            let report = compared(command, role, refused, &named(90, user, database, refused));
            assert_eq!(
                report.is_bypassed(),
                !ours,
                "{command} {role:?} {user} {database}"
            );
        }
        // Ours stands beside the other one, whichever came first.
        for other in [89, 91] {
            let both =
                named(90, "dba", "nope", refused) + &named(other, "postgres", "nope", refused);
            let report = compared("database=nope", None, refused, &both);
            assert_eq!(
                (report.matched.sessions, report.database_only),
                (1, so_many(1, 0))
            );
            assert_eq!(report.findings[0].pid, other);
        }
    }
}

/// A log on stderr has the names where it says who was let in.
#[test]
fn names_are_compared_by_what_the_log_says_of_who_was_let_in() {
    for (let_in, ours) in [
        ("user=dba database=nope application_name=x", true),
        ("user=postgres database=nope", false),
        ("user=dba database=orders", false),
        ("user=dba2 database=nope", false),
        ("user=dba database=nope2", false),
    ] {
        let mut trail = trail(&[("select 1", "succeeded")]);
        trail.take(&failed(2, &[50_000], Some("3D000")));
        let one = turned_away((T0, 90, 50_000), &[REFUSED]);
        let log =
            session(OURS, "a", &["select 1"]) + &one.replace("user=dba database=nope", let_in);
        assert_eq!(joined(trail, &log, &[]).is_bypassed(), !ours, "{let_in}");
    }
}

/// A password that was wrong may have been another role's: only the last one is noted.
#[test]
fn what_was_tried_before_another_role_was_lent_is_ours() {
    let compared = |user: &str, ports: &[u16]| {
        let mut notes = vec!["login lent".to_owned()];
        notes.extend(ports.iter().map(|port| format!("tried {port}")));
        let outcome = json!({ "status": "failed", "notes": notes, "sql": {
            "bytes": 0, "duration_us": 0, "rows": 0, "sqlstate": "28P01" } });
        let mut ours = trail(&[("select 1", "succeeded")]);
        ours.take(&action(2, 0, "pg.connect", b"database=nope", outcome));
        let one = turned_away((T0, 90, 50_000), &["FATAL:  no"]).replace("user=dba", user);
        let log = session(OURS, "a", &["select 1"]) + &one;
        joined(ours, &log, &[]).is_bypassed()
    };
    assert!(!compared("user=before", &[50_000, 50_002]));
    assert!(compared("user=before", &[50_002, 50_000]));
    assert!(!compared("user=lent", &[50_002, 50_000]));
}

/// What we broke off ended then; one from the same port that stayed, or of which the log has no end, is not that.
#[test]
fn one_that_stayed_is_not_what_we_broke_off() {
    let compared = |who: (u64, u32, u16), ended: &str, said: &[&str]| {
        let mut ours = trail(&[("select 1", "succeeded")]);
        ours.take(&failed(2, &[50_000], None));
        let log = said_at(ended, &turned_away(who, said));
        joined(ours, &(session(OURS, "a", &["select 1"]) + &log), &[]).database_only
    };
    let who = (T0, 90, 50_000);
    for ended in ["06.000", "05.100", "10.900"] {
        assert_eq!(compared(who, ended, &[WAS_OPEN]), so_many(0, 0), "{ended}");
        assert_eq!(compared(who, ended, &[REFUSED]), so_many(0, 0), "{ended}");
    }
    for ended in ["11.100", "29.000", "00.900"] {
        assert_eq!(compared(who, ended, &[WAS_OPEN]), so_many(1, 0), "{ended}");
    }
    assert_eq!(compared(who, "06.000", &[]), so_many(1, 0));
    // It had been there long before.
    let before = (T0 - 100, 90, 50_000);
    assert_eq!(compared(before, "06.000", &[WAS_OPEN]), so_many(1, 0));
}

/// However many of ours come to nothing, what passed by is named.
#[test]
fn what_is_ours_does_not_fill_the_list() {
    let mut ours = trail(&[("select 1", "succeeded")]);
    let mut log = session(OURS, "a", &["select 1"]);
    for n in 0..1500_u16 {
        ours.take(&failed(2, &[20_000 + n], Some("3D000")));
        log += &turned_away((T0, 1000 + u32::from(n), 20_000 + n), &[REFUSED]);
    }
    log += &session((T0, 9000, 60_000), "x", &["drop table t"]);
    let report = joined(ours, &log, &[]);
    assert_eq!(report.matched.sessions, 1501);
    assert_eq!(report.database_only, so_many(1, 1));
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].pid, 9000);
}
