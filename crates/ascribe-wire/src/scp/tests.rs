use proptest::prelude::*;

use super::*;

/// What a source's bytes and a sink's answers make, step by step: the source's pieces as text, each
/// with an answer from `answers` where one is asked for.
fn told(direction: Direction, source: &[u8], answers: &[u8], chunk: usize) -> (String, Vec<u8>) {
    let (mut scp, mut text, mut out) = (Scp::new(direction), String::new(), Vec::new());
    let mut answers = answers.iter();
    for part in source.chunks(chunk.max(1)) {
        scp.source.push(Bytes::copy_from_slice(part));
        loop {
            match scp.next_source() {
                Ok(None) => break,
                Ok(Some(Source::Wait)) => {
                    out.extend_from_slice(&scp.source.ready());
                    let Some(answer) = answers.next() else {
                        return (text + "waits", out);
                    };
                    let answer = if *answer == 0 {
                        &b"\0"[..]
                    } else {
                        b"\x01no\n"
                    };
                    scp.sink.push(Bytes::from_static(answer));
                    assert!(matches!(scp.next_sink(), Ok(Some(Sink::Answer(..)))));
                    assert_eq!(scp.sink.ready(), answer);
                }
                Ok(Some(Source::Data(bytes))) => {
                    // However it is split.
                    text.push_str(&String::from_utf8_lossy(&bytes));
                }
                Ok(Some(piece)) => {
                    out.extend_from_slice(&scp.source.earlier());
                    text.push_str(&match piece {
                        Source::Transfer(transfer) => format!("{}|", transfer.text()),
                        other => format!("{other:?}|"),
                    });
                }
                Err(error) => return (format!("{text}{error}"), out),
            }
        }
        out.extend_from_slice(&scp.source.ready());
    }
    (text, out)
}

const TREE: &[u8] =
    b"T1183828267 0 1183828268 0\nD0755 0 sub\nC0644 5 a \"b\nhello\0C4755 0 \xff\n\0E\nC0600 1 c\nx\0";

#[test]
fn a_tree_is_told_record_by_record() {
    let answers = [0; 20];
    let text = "Times|mkdir \"sub\" mode=0755 atime=1183828268 mtime=1183828267|\
                write \"sub/a \\\"b\" size=5 mode=0644|helloDone(true)|\
                write \"sub/\\xff\" size=0 mode=4755|Done(true)|End|\
                write \"c\" size=1 mode=0600|xDone(true)|";
    for chunk in [1, 2, 7, usize::MAX] {
        let (found, out) = told(Direction::ToTarget, TREE, &answers, chunk);
        assert_eq!(found, text);
        assert_eq!(out, TREE);
    }
    let (found, _) = told(Direction::FromTarget, TREE, &answers, 3);
    let read = text.replace("mkdir", "opendir").replace("write", "read");
    assert_eq!(found, read);
}

#[test]
fn nothing_goes_on_before_the_sink_has_answered() {
    for (answered, there) in [(0, 0), (1, 27), (2, 39), (3, 52), (4, 58), (5, 68)] {
        let (found, out) = told(Direction::ToTarget, TREE, &[0; 20][..answered], usize::MAX);
        assert!(found.ends_with("waits"), "{found}");
        assert_eq!(out.len(), there, "{answered} answers");
    }
}

#[test]
fn after_a_no_the_bytes_of_a_file_are_no_file() {
    // The target refused `a`, so it reads what follows as records, and so do we.
    let source = b"C0644 12 a\nC0644 1 b\nx\0\0";
    let (found, _) = told(Direction::ToTarget, source, &[0, 1, 0, 0], usize::MAX);
    assert_eq!(
        found,
        "write \"a\" size=12 mode=0644|write \"b\" size=1 mode=0644|xDone(true)|\
         no scp record begins with the byte 0"
    );
    let (found, _) = told(Direction::ToTarget, b"C0644 5 a\nhello\0", &[0, 1], 4);
    assert!(found.ends_with("begins with the byte 104"), "{found}");
    // A refused directory has no end.
    let (found, _) = told(Direction::ToTarget, b"D0755 0 d\nE\n", &[0, 1], 4);
    assert!(found.ends_with("the end of no directory"), "{found}");
}

#[test]
fn errors_of_a_source_pass_and_are_noted() {
    let source = b"\x01scp: x: no such file\nC0644 2 a\nxx\x01scp: a: Input/output error\n";
    let (found, out) = told(Direction::FromTarget, source, &[0; 4], 5);
    assert_eq!(found, "Error|read \"a\" size=2 mode=0644|xxDone(false)|");
    assert_eq!(out, source);
}

#[test]
fn what_is_not_understood_is_not_handed_on() {
    let long = format!("C0644 1 {}\n", "x".repeat(MAX_LINE));
    let endless = "x".repeat(MAX_LINE + 1);
    for (bad, part) in [
        ("#!/bin/sh\n", "byte 35"),
        ("\0", "byte 0"),
        ("E\n", "the end of no directory"),
        ("Ex\n", "the end of no directory"),
        ("C644 1 a\n", "four digits"),
        ("C0648 1 a\n", "a number"),
        ("C+644 1 a\n", "a number"),
        ("C0644 -1 a\n", "a number"),
        ("C0644 9223372036854775808 a\n", "a number"),
        ("C0644 1 \n", "the name"),
        ("C0644 1\n", "the name"),
        ("C0644 1 ..\n", "the name"),
        ("D0755 0 .\n", "the name"),
        ("C0644 1 a/b\n", "the name"),
        ("C0644 1 a\0b\n", "the name"),
        ("T1 0 1\n", "too few times"),
        ("T1 0 1 0 0\n", "too many times"),
        ("T1 0 x 0\n", "a number"),
        (&long, "does not end"),
        (&format!("C{endless}"), "does not end"),
        ("C0644 1 a\nxy", "no zero byte after a file"),
    ] {
        for chunk in [1, 100, usize::MAX] {
            let (found, out) = told(Direction::ToTarget, bad.as_bytes(), &[0; 9], chunk);
            assert!(found.contains(part), "{bad:?}: {found}");
            assert!(!out.ends_with(b"y") && bad.as_bytes().starts_with(&out));
        }
    }
    let deep = "D0755 0 d\n".repeat(MAX_DEPTH + 1);
    let (found, _) = told(Direction::ToTarget, deep.as_bytes(), &[0; 999], 64);
    assert!(found.ends_with("more than 256 directories within each other"));
}

#[test]
fn a_sink_answers_what_was_asked_and_nothing_else() {
    let mut scp = Scp::new(Direction::ToTarget);
    scp.sink.push(Bytes::from_static(b"\0\0"));
    assert_eq!(scp.next_sink(), Ok(Some(Sink::Answer(Asked::Begin, true))));
    assert_eq!(scp.next_sink(), Err(ScpError::Unasked));
    let mut scp = Scp::new(Direction::ToTarget);
    scp.sink.push(Bytes::from_static(b"\x01a"));
    assert_eq!(scp.next_sink(), Ok(None));
    assert!(scp.sink.ready().is_empty());
    scp.sink.push(Bytes::from_static(b"b\n\x02late\n"));
    assert_eq!(scp.next_sink(), Ok(Some(Sink::Answer(Asked::Begin, false))));
    assert_eq!(scp.next_sink(), Ok(Some(Sink::Remark)));
    assert_eq!(scp.sink.ready(), &b"\x01ab\n\x02late\n"[..]);
    scp.sink.push(Bytes::from_static(b"# "));
    assert_eq!(scp.next_sink(), Err(ScpError::Answer(b'#')));
}

proptest! {
    #[test]
    fn a_source_reads_the_same_however_it_is_split(
        start in proptest::sample::select(vec![0usize, 27, 39, 80]),
        noise in proptest::collection::vec(any::<u8>(), 0..30),
        answers in proptest::collection::vec(0u8..2, 0..12),
        chunk in 1usize..40,
    ) {
        let source = [&TREE[start.min(TREE.len())..], &noise].concat();
        let whole = told(Direction::ToTarget, &source, &answers, usize::MAX);
        let split = told(Direction::ToTarget, &source, &answers, chunk);
        prop_assert_eq!(&whole.0, &split.0);
        prop_assert!(source.starts_with(&whole.1) && source.starts_with(&split.1));
    }
}

/// OpenSSH's sink reads 2047 bytes of a line and takes the rest for a record of its own.
#[test]
fn a_message_that_a_sink_would_read_as_a_message_and_a_record_is_refused() {
    let filler = "A".repeat(2046);
    for message in [
        format!("\u{1}{filler}C0644 10 evil\n"),
        format!("\u{2}{filler}D0755 0 evil\n"),
        "\u{1}short\u{2}C0644 10 evil\n".to_owned(),
    ] {
        let mut scp = Scp::new(Direction::ToTarget);
        // The sink says that it is there.
        scp.sink.push(Bytes::from_static(b"\0"));
        assert!(scp.next_sink().unwrap().is_some());
        scp.source.push(Bytes::from(message.clone()));
        assert!(scp.next_source().is_err(), "{message:?}");
    }
}
