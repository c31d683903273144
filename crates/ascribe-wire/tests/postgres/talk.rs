//! A client that writes several messages at once, and tells the types of what it is answered.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::server::{self, Message};
use ascribe_wire::pg::startup;
use bytes::{BufMut as _, Bytes, BytesMut};

/// What is sent at once, separated by `|`, and the answers: types of messages, and SQLSTATEs.
pub(crate) type Steps = &'static [(&'static str, &'static str)];

pub(crate) const CASES: &[(&str, Steps)] = &[
    (
        "groups in flight",
        &[(
            "P  SELECT 1|B  |E |S|P s SELECT 2|B  s|E |B p s|E p|S|Q SELECT 3; SELECT 4|S",
            "12DCZ12DC2DCZTDCTDCZZ",
        )],
    ),
    (
        "a failed group leaves names as they were",
        &[
            ("P s SELECT 1|S", "1Z"),
            ("P  bad|CSs|P s SELECT 2|S|B  s|E |S", "E42601Z2DCZ"),
            ("P s SELECT 3|S|B  s|E |S", "E42P05Z2DCZ"),
            ("CSs|P s SELECT 4|B  s|E |S", "312DCZ"),
        ],
    ),
    (
        "a query within a group",
        &[
            ("P  SELECT 1|B  |E |Q SELECT 2|B  |S", "12DCTDCZE26000Z"),
            ("P  SELECT 1|Q bad|P  SELECT 2|B  |E |S", "1E42601Z12DCZ"),
            ("P  bad|Q SELECT 1|S", "E42601Z"),
        ],
    ),
    (
        "names that SQL changes",
        &[
            ("P s SELECT 1|S", "1Z"),
            ("Q DEALLOCATE s|B  s|E |S", "CZE26000Z"),
            (
                "P s SELECT 1|S|Q DEALLOCATE s; PREPARE s AS SELECT 2",
                "1ZCCZ",
            ),
            ("Q DISCARD ALL", "CZ"),
            ("P t SELECT 1|S|Q DISCARD ALL|B  t|S", "1ZCZE26000Z"),
        ],
    ),
    (
        "portals",
        &[
            ("Q BEGIN", "CZ"),
            ("P s SELECT generate_series(1, 3)|B p s|E p 2|S", "12DsZ"),
            ("E p 2|E p 2|DPp|CPp|S", "DCCT3Z"),
            ("B p s|S|Q COMMIT|E p|S", "2ZCZE34000Z"),
        ],
    ),
    (
        "copying in the extended protocol, with two Syncs",
        &[
            ("Q CREATE TABLE c (a int PRIMARY KEY)", "CZ"),
            ("P  COPY c FROM STDIN|B  |E |S", "12G"),
            ("d 1|d 2|c|S", "CZ"),
            ("P  COPY c FROM STDIN|B  |E |S", "12G"),
            ("d bad|c|S|Q SELECT 1", "E22P02ZTDCZ"),
            ("P  COPY c FROM STDIN|B  |E |H", "12G"),
            ("d bad|c|S|Q SELECT 1", "E22P02ZTDCZ"),
            ("Q COPY c FROM STDIN", "G"),
            ("d 1|d 1|c|S|Q SELECT 1", "E23505ZZTDCZ"),
            ("Q COPY c FROM STDIN; COPY c TO STDOUT", "G"),
            ("d 7|f", "E57014Z"),
            ("P  COPY c TO STDOUT|B  |E |S", "12HdcCZ"),
        ],
    ),
    (
        "copying that fails before it reads",
        &[
            ("Q CREATE TABLE e (a int)", "CZ"),
            (
                "Q CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'",
                "CZ",
            ),
            (
                "Q CREATE TRIGGER no BEFORE INSERT ON e EXECUTE FUNCTION no()",
                "CZ",
            ),
            ("P  COPY e FROM STDIN|B  |E |S", "12GEP0001Z"),
            ("d 1|c|S|Q SELECT 1", "ZTDCZ"),
        ],
    ),
    (
        "a group that fails at its end",
        &[
            (
                "Q CREATE TABLE k (a int PRIMARY KEY, b int REFERENCES k DEFERRABLE INITIALLY DEFERRED)",
                "CZ",
            ),
            ("P  INSERT INTO k VALUES (1, 2)|B  |E |S", "12CE23503Z"),
        ],
    ),
    ("functions", &[("F 1598|F 0|S", "VZE42883ZZ")]),
    ("an empty text", &[("Q |P  |DS|B  |DP|E |S", "IZ1tn2nIZ")]),
];

pub(crate) const REFUSALS: &[(&str, Steps)] = &[
    (
        "in a group",
        &[
            ("Q CREATE TABLE r (a int)", "CZ"),
            (
                "P i INSERT INTO r VALUES (1)|B  i|E |P f SELECT 'forbidden'|B  f|E |B  i|E |S|Q SELECT * FROM r",
                "12C12E42501ZTCZ",
            ),
            ("B  i|E |S|Q SELECT * FROM r", "2CZTDCZ"),
        ],
    ),
    (
        "in an open transaction",
        &[
            (
                "Q BEGIN|Q SELECT 'forbidden'|Q SELECT 1",
                "CZE42501ZE25P02Z",
            ),
            ("Q ROLLBACK|Q SELECT 1", "CZTDCZ"),
        ],
    ),
    (
        "a group that goes on",
        &[
            ("P  SELECT 'forbidden'|B  |E |H", "12E42501"),
            ("P  SELECT 1|B  |E |H|S", "Z"),
            ("P  SELECT 1|B  |E |S", "12DCZ"),
        ],
    ),
    (
        "a name that is too long",
        &[(
            "P xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxa SELECT 1|S|Q SELECT 1",
            "E42501ZTDCZ",
        )],
    ),
];

fn message(said: &str) -> Vec<u8> {
    let kind = said.as_bytes()[0];
    let rest = said.get(1..).unwrap();
    let words: Vec<&str> = rest.trim_start_matches(' ').splitn(2, ' ').collect();
    let mut parts = rest.strip_prefix(' ').unwrap_or(rest).splitn(2, ' ');
    let mut part = || parts.next().unwrap_or_default();
    let mut body = BytesMut::new();
    let string = |body: &mut BytesMut, text: &str| {
        body.put_slice(text.as_bytes());
        body.put_u8(0);
    };
    match kind {
        b'Q' => string(&mut body, rest.strip_prefix(' ').unwrap_or_default()),
        b'P' | b'B' => {
            string(&mut body, part());
            string(&mut body, part());
            let zeroes = if kind == b'P' { 2 } else { 6 };
            body.put_bytes(0, zeroes);
        }
        b'E' => {
            string(&mut body, part());
            body.put_u32(part().parse().unwrap_or(0));
        }
        b'C' | b'D' => string(&mut body, rest),
        b'F' => {
            body.put_u32(words[0].parse().unwrap());
            body.put_bytes(0, 6);
        }
        b'd' => body.put_slice(format!("{}\n", part()).as_bytes()),
        b'f' => string(&mut body, ""),
        _ => {}
    }
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), &body].concat()
}

/// Logs in, plays the steps, and tells the answers.
pub(crate) fn play(port: u16, steps: Steps) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let login = [(&b"user"[..], &b"postgres"[..])];
    stream
        .write_all(&startup::startup_message(0, login))
        .unwrap();
    let mut frames = Frames::new(Side::Server);
    let mut told = String::new();
    while !told.ends_with('Z') {
        hear(&mut stream, &mut frames, &mut told);
    }
    let mut all = Vec::new();
    for (sent, expected) in steps {
        let bytes: Vec<u8> = sent.split('|').flat_map(message).collect();
        stream.write_all(&bytes).unwrap();
        let mut told = String::new();
        while told.len() < expected.len() && hear(&mut stream, &mut frames, &mut told) {}
        all.push(told);
    }
    stream.write_all(b"X\0\0\0\x04").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).ok();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    all
}

fn hear(stream: &mut TcpStream, frames: &mut Frames, told: &mut String) -> bool {
    let mut chunk = vec![0; 4096];
    let Ok(length @ 1..) = stream.read(&mut chunk) else {
        told.push_str("...");
        return false;
    };
    frames.push(Bytes::copy_from_slice(&chunk[..length]));
    while let Some(piece) = frames.next().unwrap() {
        match piece {
            Piece::Whole(frame) => match server::decode(&frame).unwrap() {
                Message::Error(report) => {
                    told.push_str(&format!("E{}", report.code.escape_ascii()));
                }
                Message::Notice(_) | Message::ParameterStatus(..) => {}
                _ => told.push(char::from(frame.kind)),
            },
            // Runs of one type are told once, however they come.
            Piece::Run(run) if run.begun > 0 && !told.ends_with(char::from(run.kind)) => {
                told.push(char::from(run.kind));
            }
            _ => {}
        }
    }
    true
}
