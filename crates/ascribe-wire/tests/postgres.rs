//! The tracker between real clients and a real server: what it tells is compared with the server's own
//! log.

#![cfg(test)]

#[path = "postgres/relay.rs"]
mod relay;
#[path = "postgres/server.rs"]
mod server;
#[path = "postgres/talk.rs"]
mod talk;

use std::process::{Command, Stdio};
use std::sync::Arc;

use relay::{Relay, Session};
use server::{Server, tool};

/// Everything that was recorded ended, and what the server logged is what was recorded, in order.
fn check(server: &Server, session: &Session) {
    assert_eq!(session.error, None, "{session:?}");
    assert_eq!(session.open, 0, "{session:?}");
    let logged = server.logged(session.process);
    let mut recorded = session.recorded.iter();
    for text in &logged {
        let found = recorded.any(|(_, known, _)| known == text);
        assert!(
            found,
            "the server ran {text:?}, which was not recorded in its turn: {session:?}"
        );
    }
    for (number, text, done) in &session.recorded {
        let known = logged.contains(text) || text.trim().is_empty() || text == "function";
        assert!(
            known || !done,
            "{number} is told as done, but the server did not run {text:?}"
        );
    }
}

/// Runs a client against the relay; its output, and the sessions that it had.
fn run(relay: &Relay, name: &str, arguments: &[&str], input: &str) -> (String, Vec<Session>) {
    let before = relay.sessions().len();
    let port = relay.port.to_string();
    let mut client = Command::new(tool(name))
        .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
        .args(arguments)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
    drop(stdin);
    let out = client.wait_with_output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let sessions = relay.settled().split_off(before);
    (String::from_utf8_lossy(&text).into_owned(), sessions)
}

fn started() -> Option<(Arc<Server>, Relay)> {
    let server = Server::shared();
    if server.is_none() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "SKIPPED: the tracker before PostgreSQL, because its server is not installed\n"
            ),
        )
        .unwrap();
    }
    let server = server?;
    let relay = Relay::start(server.port);
    Some((server, relay))
}

#[test]
fn psql() {
    let Some((server, relay)) = started() else {
        return;
    };
    let script = r"
CREATE TABLE t (a int PRIMARY KEY, b text);
INSERT INTO t VALUES (1, 'one'), (2, 'two') RETURNING a;
SELECT 1\; SELECT 2\; SELECT * FROM t;
SELECT bad;
BEGIN; SELECT 1/0; SELECT 1; ROLLBACK;
\d t
\copy t to pstdout
COPY t FROM STDIN;
3	three
4	four
\.
COPY t FROM STDIN;
1	again
\.
COPY (SELECT * FROM generate_series(1, 20000)) TO STDOUT;
\lo_import /etc/hostname
\lo_export :LASTOID /dev/null
\lo_unlink :LASTOID
PREPARE p AS SELECT a FROM t WHERE a = $1;
EXECUTE p(3);
DO $$ BEGIN RAISE NOTICE 'x'; END $$;
LISTEN x; NOTIFY x;
SET client_encoding = 'LATIN1';
DECLARE c CURSOR WITH HOLD FOR SELECT 1; FETCH c;
\set FETCH_COUNT 7
SELECT * FROM generate_series(1, 50);
;
";
    let (text, sessions) = run(&relay, "psql", &["-X", "-d", "postgres"], script);
    assert!(
        text.contains("duplicate key") && text.contains("lo_import"),
        "{text}"
    );
    let [session] = &sessions[..] else {
        panic!("{sessions:?}")
    };
    check(&server, session);
    let functions = session.recorded.iter();
    assert!(functions.filter(|(_, text, _)| text == "function").count() > 4);
}

#[test]
fn pgbench() {
    let Some((server, relay)) = started() else {
        return;
    };
    let (text, sessions) = run(&relay, "pgbench", &["-i", "-q", "postgres"], "");
    assert!(text.contains("done in"), "{text}");
    sessions.iter().for_each(|session| check(&server, session));
    let script = std::env::temp_dir().join(format!("ascribe-pipeline-{}", std::process::id()));
    let pipeline = "\\startpipeline\nSELECT 1;\nSELECT 2;\nSELECT 3;\n\\endpipeline\n";
    std::fs::write(&script, pipeline).unwrap();
    let file = ["-f", script.to_str().unwrap()];
    for (mode, more) in [
        ("simple", &[][..]),
        ("extended", &[]),
        ("prepared", &[]),
        ("extended", &file),
        ("prepared", &file),
    ] {
        let mut options = vec!["-M", mode, "-n", "-c", "4", "-j", "2", "-t", "30"];
        options.extend(more);
        options.push("postgres");
        let (text, sessions) = run(&relay, "pgbench", &options, "");
        assert!(text.contains("processed: 120/120"), "{text}");
        assert!(sessions.len() >= 4);
        sessions.iter().for_each(|session| check(&server, session));
    }
    std::fs::remove_file(script).unwrap();
}

/// Messages too large to be kept go through in both directions; of an error what it is is still told.
#[test]
fn large_messages() {
    let Some((_server, relay)) = started() else {
        return;
    };
    let large = "x".repeat(200_000);
    let script = format!(
        "SELECT length('{large}');\nSELECT '{large}'::int;\nSELECT length(repeat('y', 300000));\n\
         SELECT repeat('z', 100000)::int;\n"
    );
    let (text, sessions) = run(&relay, "psql", &["-X", "-At", "-d", "postgres"], &script);
    assert!(text.contains("200000\n300000\n"), "{}", text.len());
    assert!(text.contains(&format!("integer: \"{large}\"")));
    let [session] = &sessions[..] else {
        panic!("{sessions:?}")
    };
    assert_eq!((&session.error, session.open), (&None, 0));
    let failed: Vec<bool> = session.recorded.iter().map(|(_, _, done)| !done).collect();
    assert_eq!(failed, [false, true, false, true]);
}

/// Copies both ways, and several results and copies of one query.
#[test]
fn replication() {
    let Some((_server, relay)) = started() else {
        return;
    };
    let dir = std::env::temp_dir().join(format!("ascribe-backup-{}", std::process::id()));
    let to = dir.to_str().unwrap();
    let (text, mut sessions) = run(
        &relay,
        "pg_basebackup",
        &["-c", "fast", "-X", "stream", "-D", to],
        "",
    );
    assert!(dir.join("PG_VERSION").exists(), "{text}");
    std::fs::remove_dir_all(&dir).unwrap();
    let slot = ["-d", "postgres", "-S", "s", "--create-slot"];
    sessions.extend(run(&relay, "pg_recvlogical", &slot, "").1);
    let start = [
        "-d", "postgres", "-S", "s", "--start", "-f", "-", "-E", "0/FFFFFF", "-n",
    ];
    sessions.extend(run(&relay, "pg_recvlogical", &start, "").1);
    assert!(sessions.len() >= 4);
    for session in sessions {
        assert_eq!((&session.error, session.open), (&None, 0), "{session:?}");
    }
}

fn play(server: &Server, relay: &Relay, cases: &[(&str, talk::Steps)]) -> Vec<Session> {
    let mut all = Vec::new();
    for (case, steps) in cases {
        let answers = talk::play(relay.port, steps);
        let session = relay.settled().pop().unwrap();
        for (given, (sent, expected)) in answers.iter().zip(*steps) {
            assert_eq!(given, expected, "{case}: {sent}: {session:?}");
        }
        check(server, &session);
        all.push(session);
    }
    all
}

/// Groups that fail, names that fail, copying that fails, in one write each.
#[test]
fn what_a_server_does_is_what_the_tracker_tells() {
    if let Some((server, relay)) = started() {
        play(&server, &relay, talk::CASES);
    }
}

/// A refused statement of a group: the client sees the refusal in its place, and the server has rolled
/// back what came before it in the group.
#[test]
fn refusals() {
    let Some((server, relay)) = started() else {
        return;
    };
    for session in play(&server, &relay, talk::REFUSALS) {
        let logged = server.logged(session.process);
        let forbidden = logged.iter().any(|text| text.contains("forbidden"));
        assert!(!forbidden, "{logged:?}");
    }
}
