//! The samples are one run of PostgreSQL 15 with pgaudit 1.7, logged in all three formats at once.

use super::*;

const SAMPLES: [(Format, &[u8]); 3] = [
    (Format::Csv, include_bytes!("../../testdata/pglog/pg15.csv")),
    (
        Format::Json,
        include_bytes!("../../testdata/pglog/pg15.json"),
    ),
    (
        Format::Stderr,
        include_bytes!("../../testdata/pglog/pg15.log"),
    ),
];

fn all(format: Format, bytes: &[u8]) -> Records {
    let mut reader = Reader::new(format);
    let mut records = reader.push(bytes);
    records.extend(reader.finish());
    records
}

fn good(format: Format, bytes: &[u8]) -> Vec<Record> {
    let read = all(format, bytes).into_iter().map(|record| record.unwrap());
    read.collect()
}

fn one(format: Format, text: &str) -> Record {
    let mut records = good(format, text.as_bytes());
    assert_eq!(records.len(), 1, "{text}");
    records.remove(0)
}

fn ran(record: &Record) -> &Ran {
    match &record.kind {
        Kind::Ran(ran) => ran,
        other => panic!("{other:?}"),
    }
}

fn audit(record: &Record) -> &Audit {
    match &record.kind {
        Kind::Audit(audit) => audit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_three_formats_say_the_same() {
    let [csv, json, stderr] = SAMPLES.map(|(format, bytes)| good(format, bytes));
    assert_eq!(csv.len(), 59);
    assert_eq!(csv.len(), json.len());
    assert_eq!(csv.len(), stderr.len());
    for ((csv, mut json), mut stderr) in csv.into_iter().zip(json).zip(stderr) {
        // jsonlog leaves out what csvlog says: that nothing went wrong.
        if json.sqlstate.is_none() {
            json.sqlstate = Some("00000".to_owned());
        }
        assert_eq!(csv, json);
        assert!(csv.at.is_some() && csv.session.is_some() && csv.remote.is_some());
        if stderr.ambiguous {
            continue;
        }
        // What stderr does not have, or has in the message.
        stderr.user.clone_from(&csv.user);
        stderr.database.clone_from(&csv.database);
        stderr.sqlstate.clone_from(&csv.sqlstate);
        stderr.message = stderr.message.replace(" at character 8", "");
        if stderr.application.as_deref() == Some("[unknown]") && csv.application.is_none() {
            stderr.application = None;
        }
        assert_eq!(csv, stderr);
    }
}

#[test]
fn what_ran_and_what_was_audited_is_found() {
    for (format, bytes) in SAMPLES {
        let records = good(format, bytes);
        let find = |text: &str| {
            let found = records.iter().find(|record| record.message.contains(text));
            found.unwrap_or_else(|| panic!("{text}"))
        };
        let insert = ran(find("statement: INSERT"));
        assert_eq!(
            insert.text,
            "INSERT INTO orders VALUES (1, 'a, \"quoted\"\nand a new line');"
        );
        assert_eq!((insert.from, insert.took), (From::Simple, None));
        let select = ran(find("statement: SELECT *"));
        assert_eq!(
            select.text,
            "SELECT *\n\tFROM orders -- tab, comment\n WHERE note = 'x';"
        );
        // A space at the end is part of the text.
        assert_eq!(
            ran(find("statement: COPY")).text,
            "COPY  orders FROM STDIN "
        );
        let audited = audit(find("AUDIT: SESSION,2,1,WRITE"));
        assert_eq!(audited.statement.as_deref(), Some(insert.text.as_str()));
        assert_eq!((audited.statement_id, audited.substatement_id), (2, 1));
        assert_eq!(
            (audited.class.as_str(), audited.command.as_str()),
            ("WRITE", "INSERT")
        );
        assert_eq!(audited.parameters, None);

        let prepared = ran(find("execute P_0: SELECT note FROM orders WHERE id = 1"));
        assert_eq!(
            (prepared.from, prepared.name.as_deref()),
            (From::Execute, Some("P_0"))
        );
        let bound = find("execute <unnamed>: SELECT note FROM orders WHERE id = $1");
        assert_eq!(ran(bound).name, None);
        assert_eq!(bound.detail.as_deref(), Some("parameters: $1 = '7'"));
        let audited = audit(find(",,,SELECT note FROM orders WHERE id = $1;,7"));
        assert_eq!(audited.parameters.as_deref(), Some("7"));

        let parsed = ran(find("  parse P_0: SELECT"));
        assert_eq!((parsed.from, parsed.took), (From::Parse, Some(344)));
        assert_eq!(ran(find("  bind P_0: SELECT")).from, From::Bind);
        let slow = ran(find("ms  statement: SELECT 3"));
        assert_eq!((slow.text.as_str(), slow.took), ("SELECT 3", Some(259)));
        assert_eq!(find("duration: 4.324 ms").kind, Kind::Duration(4324));

        let error = find("no_such_column\" does not exist");
        assert_eq!(error.kind, Kind::Error);
        assert_eq!(
            error.statement.as_deref(),
            Some("SELECT no_such_column FROM orders;")
        );
        assert_eq!(error.application.as_deref(), Some("ascribe/01jtest"));
        let session = Session {
            start: 0x6b0c_ad80,
            pid: 1971,
        };
        assert_eq!((error.session, error.pid), (Some(session), 1971));
        let remote = Remote {
            host: "127.0.0.1".to_owned(),
            port: Some(52928),
        };
        assert_eq!(error.remote, Some(remote));
        assert_eq!(error.at.unwrap().to_string(), "2026-11-29T22:56:00.440Z");
        let local = find("statement: ALTER SYSTEM SET log_statement");
        let remote = Remote {
            host: "[local]".to_owned(),
            port: None,
        };
        assert_eq!(local.remote, Some(remote));
        assert_eq!(find("connection received: ").kind, Kind::Connection);
        assert_eq!(find("disconnection: ").kind, Kind::Disconnection);
        assert_eq!(find("database \"nope\"").severity, "FATAL");
    }
}

/// The sample's second session calls itself `x LOG:  statement: DROP TABLE orders`.
#[test]
fn a_name_that_looks_like_a_message_is_told_apart_or_said_to_be_ambiguous() {
    for (format, bytes) in SAMPLES {
        for record in good(format, bytes) {
            let forged = record.pid == 1976 && !record.message.starts_with("connection received");
            assert_eq!(
                record.ambiguous,
                forged && format == Format::Stderr,
                "{record:?}"
            );
            if forged && format != Format::Stderr {
                assert!(!record.message.starts_with("statement: DROP"), "{record:?}");
            }
        }
    }
}

#[test]
fn pieces_of_any_size_give_the_same() {
    for (format, bytes) in SAMPLES {
        let whole = all(format, bytes);
        for size in [1, 2, 3, 7, 64, 1000] {
            let mut reader = Reader::new(format);
            let mut records: Records = Vec::new();
            for piece in bytes.chunks(size) {
                records.extend(reader.push(piece));
            }
            records.extend(reader.finish());
            assert_eq!(records, whole, "{format:?} by {size}");
        }
    }
}

#[test]
fn columns_of_other_versions() {
    let thirteen = "2026-01-31 12:00:00.001 GMT,\"bob\",\"d\",7,\"2001:db8::1:5432\",66f2a1b0.7,1,\
        \"SELECT\",2026-01-31 12:00:00 GMT,3/4,0,LOG,00000,\"execute a/b: select 1\",,,,,,,,,\"\",\"client backend\"\n";
    let record = one(Format::Csv, thirteen);
    assert_eq!(ran(&record).name.as_deref(), Some("a/b"));
    let remote = Remote {
        host: "2001:db8::1".to_owned(),
        port: Some(5432),
    };
    assert_eq!(record.remote, Some(remote));
    assert_eq!(record.application, None);
    let zone = one(Format::Csv, &thirteen.replace("GMT,\"bob", "+0530,\"bob"));
    assert_eq!(zone.at.unwrap().to_string(), "2026-01-31T06:30:00.001Z");
    assert_eq!(
        one(Format::Csv, &thirteen.replace("GMT,\"bob", "CET,\"bob")).at,
        None
    );
    let fetch = one(
        Format::Csv,
        &thirteen.replace("execute a/b", "execute fetch from a/b"),
    );
    assert_eq!(
        (ran(&fetch).from, ran(&fetch).text.as_str()),
        (From::Fetch, "select 1")
    );
    let rows = one(
        Format::Csv,
        &thirteen.replace(
            "execute a/b: select 1",
            "AUDIT: OBJECT,1,2,READ,SELECT,TABLE,s.t,<previously logged>,<not logged>,5",
        ),
    );
    let audited = audit(&rows);
    assert_eq!(audited.object_name.as_deref(), Some("s.t"));
    assert_eq!((&audited.statement, &audited.parameters), (&None, &None));
    for bytes in ["é", "\u{1f600}"] {
        let latin1 = one(Format::Csv, &thirteen.replace("select 1", bytes));
        assert_eq!(ran(&latin1).text, bytes);
    }
}

#[test]
fn what_is_no_record_is_said_to_be_none_and_the_next_is_read() {
    let problem = |format, text: &str| match all(format, text.as_bytes()).remove(0) {
        Err(error) => error.problem,
        Ok(record) => panic!("{record:?}"),
    };
    let malformed = |format, text: &str| {
        let problem = problem(format, text);
        assert!(
            matches!(problem, Problem::Malformed(_)),
            "{text}: {problem:?}"
        );
    };
    let line =
        "2026-01-31 12:00:00.001 UTC 7 66f2a1b0.7 10.0.0.1(5) app LOG:  statement: select 1\n";
    assert_eq!(
        one(Format::Stderr, line).application.as_deref(),
        Some("app")
    );
    for (from, to) in [
        ("66f2a1b0.7", "66f2a1b0"),
        ("66f2a1b0.7", "+6f2a1b0.7"),
        ("10.0.0.1(5)", "10.0.0.1"),
        ("10.0.0.1(5)", "10.0.0.1(70000)"),
        (" 7 ", " x "),
        ("LOG:  ", "LOG: "),
        ("statement: select 1", "AUDIT: SESSION,1"),
        (
            "statement: select 1",
            "AUDIT: SESSION,x,1,READ,SELECT,,,a,b",
        ),
        (
            "statement: select 1",
            "AUDIT: SESSION,1,1,READ,SELECT,,,\"a,b",
        ),
    ] {
        malformed(Format::Stderr, &line.replace(from, to));
    }
    malformed(Format::Stderr, "sh: 1: no such program\n");
    malformed(Format::Json, "{\"pid\":1}\n");
    malformed(Format::Json, "{\"pid\":-1,\"error_severity\":\"LOG\"}\n");
    malformed(Format::Json, "nothing\n");
    malformed(Format::Csv, "a,b\n");
    malformed(Format::Csv, &format!("{}\n", "\"a\"b,".repeat(25)));
    malformed(Format::Csv, &format!("{}\n", ",".repeat(40)));
    for (format, bytes) in SAMPLES {
        assert_eq!(problem(format, "x"), Problem::CutOff);
        let cut = all(format, bytes.get(..bytes.len() - 1).unwrap());
        let error = cut.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.problem, Problem::CutOff);
        assert_eq!(cut.len(), all(format, bytes).len());
        assert!(all(format, b"").is_empty() && all(format, b"\n\n").is_empty());
    }
    let mixed = format!("nothing\n{line}sh: 1: no such program\n{line}");
    let records = all(Format::Stderr, mixed.as_bytes());
    let oks: Vec<bool> = records.iter().map(Result::is_ok).collect();
    assert_eq!(oks, [false, true, false, true]);
    assert_eq!(records[2].as_ref().unwrap_err().line, 3);
}

#[test]
fn a_record_that_is_too_long_is_passed_over_to_its_end() {
    let long = "x\n".repeat(9 << 20);
    let sample = |n: usize| std::str::from_utf8(SAMPLES[n].1).unwrap();
    let csv = format!("2026,\"{long}\n2026-01-31 forged\"\n{}", sample(0));
    let stderr = format!(
        "{}{}",
        long.replace('\n', "\n\t").trim_end_matches('\t'),
        sample(2)
    );
    let json = format!("{}\n{}", long.replace('\n', " "), sample(1));
    for (format, text) in [
        (Format::Csv, csv),
        (Format::Stderr, stderr),
        (Format::Json, json),
    ] {
        let records = all(format, text.as_bytes());
        assert_eq!(records.len(), 60, "{format:?}");
        assert_eq!(records[0].as_ref().unwrap_err().problem, Problem::TooLong);
        assert!(records[1..].iter().all(Result::is_ok));
    }
}
