//! What either side may not do, and what becomes of what is open.

use sha2::Digest as _;

use super::*;

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

fn packet(kind: u8, id: u32, parts: &[&[u8]]) -> Bytes {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 5).unwrap();
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), &body]
        .concat()
        .into()
}

fn open(id: u32) -> Bytes {
    packet(3, id, &[&string(b"/f"), &3u32.to_be_bytes(), &[0; 4]])
}
fn close(id: u32, handle: &[u8]) -> Bytes {
    packet(4, id, &[&string(handle)])
}
fn read(id: u32, offset: u64) -> Bytes {
    packet(
        5,
        id,
        &[&string(b"h"), &offset.to_be_bytes(), &4u32.to_be_bytes()],
    )
}
fn write(id: u32, offset: u64, bytes: &[u8]) -> Bytes {
    packet(
        6,
        id,
        &[&string(b"h"), &offset.to_be_bytes(), &string(bytes)],
    )
}
fn status(id: u32, code: u32) -> Bytes {
    packet(101, id, &[&code.to_be_bytes()])
}
fn handle(id: u32, handle: &[u8]) -> Bytes {
    packet(102, id, &[&string(handle)])
}
fn data(id: u32, bytes: &[u8]) -> Bytes {
    packet(103, id, &[&string(bytes)])
}

const FIRST: ActionId = ActionId::new([1; 16]);

/// A transfer whose operations are recorded at once. The first has the id [`FIRST`].
struct Run {
    sftp: Sftp,
    operations: Vec<String>,
}

impl Run {
    /// After the versions.
    fn new() -> Self {
        Self::capped(u64::MAX)
    }
    fn capped(cap: u64) -> Self {
        let mut run = Self {
            sftp: Sftp::new(cap),
            operations: Vec::new(),
        };
        run.client(packet(1, 3, &[])).unwrap();
        run.target(packet(2, 3, &[])).unwrap();
        run
    }
    /// With one file open under the handle `h`.
    fn opened() -> Self {
        let mut run = Self::new();
        run.client(open(1)).unwrap();
        run.target(handle(1, b"h")).unwrap();
        run
    }
    /// What is handed on of this.
    fn pass(&mut self, from: From, bytes: Bytes) -> Result<Vec<u8>, String> {
        self.sftp.push(from, bytes);
        let mut out = Vec::new();
        loop {
            match self.sftp.step(from)? {
                Step::Forward(bytes) => return Ok([out, bytes.to_vec()].concat()),
                Step::Operate(earlier, operation) => {
                    out.extend_from_slice(&earlier);
                    out.extend_from_slice(&operation.packet);
                    self.operations.push(operation.text);
                    let count = u8::try_from(self.operations.len() % 256).unwrap();
                    self.sftp.sent(ActionId::new([count; 16]));
                }
                Step::Wait(_) => panic!("nothing waits in SFTP"),
            }
        }
    }
    fn client(&mut self, bytes: Bytes) -> Result<Vec<u8>, String> {
        self.pass(From::Client, bytes)
    }
    fn target(&mut self, bytes: Bytes) -> Result<Vec<u8>, String> {
        self.pass(From::Target, bytes)
    }
    /// The outcome of the first operation: status, streams and their bytes.
    fn end(&mut self) -> (Status, Vec<(String, u64)>) {
        let mut ended = self.sftp.ended();
        ended.extend(self.sftp.finish());
        let outcome = ended.into_iter().find(|o| o.action == FIRST).unwrap();
        let streams = outcome.streams.into_iter();
        (
            outcome.status,
            streams.map(|s| (s.stream, s.bytes)).collect(),
        )
    }
}

fn streams(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter()
        .map(|(name, bytes)| ((*name).to_owned(), *bytes))
        .collect()
}

#[test]
fn everything_is_handed_on_as_it_came() {
    let mut run = Run::opened();
    let all = [write(2, 0, b"abcd"), read(3, 0), close(4, b"h"), open(5)].concat();
    assert_eq!(run.client(all.clone().into()).unwrap(), all);
    let all = [status(2, OK), data(3, b"abcd"), status(4, OK), status(5, 2)].concat();
    assert_eq!(run.target(all.clone().into()).unwrap(), all);
    let text = "open \"/f\" read,write";
    assert_eq!(run.operations, [text, text]);
    assert_eq!(
        run.end(),
        (Status::Succeeded, streams(&[("read", 4), ("written", 4)]))
    );
    assert_eq!(run.sftp.room, WINDOW);
}

#[test]
fn a_file_ends_with_its_close_and_its_last_reply() {
    let mut run = Run::opened();
    run.client([read(2, 0), read(3, 4), close(4, b"h")].concat().into())
        .unwrap();
    // A target that answers out of order.
    run.target(status(4, OK)).unwrap();
    run.target(data(3, b"efgh")).unwrap();
    assert!(run.sftp.ended.is_empty());
    run.target(data(2, b"abcd")).unwrap();
    assert!(run.sftp.files.is_empty());
    assert_eq!(run.end(), (Status::Succeeded, streams(&[("read", 8)])));
}

#[test]
fn what_fails_or_does_not_end_is_told_apart() {
    let mut run = Run::opened();
    assert_eq!(run.end(), (Status::Unknown, vec![]));
    let mut run = Run::new();
    run.client(open(1)).unwrap();
    assert_eq!(run.end(), (Status::Unknown, vec![]), "nothing was answered");
    let mut run = Run::opened();
    run.client([write(2, 0, b"abcd"), close(3, b"h")].concat().into())
        .unwrap();
    run.target([status(2, 4), status(3, OK)].concat().into())
        .unwrap();
    assert_eq!(run.end(), (Status::Failed, streams(&[("written", 4)])));
    let mut run = Run::opened();
    run.client([read(2, 0), close(3, b"h")].concat().into())
        .unwrap();
    run.target([status(2, EOF), status(3, OK)].concat().into())
        .unwrap();
    assert_eq!(run.end(), (Status::Succeeded, vec![]), "an empty file");
    let mut run = Run::opened();
    run.client(close(3, b"h")).unwrap();
    run.target(status(3, 4)).unwrap();
    assert_eq!(run.end(), (Status::Failed, vec![]));
}

#[test]
fn what_is_appended_or_copied_by_the_target_is_no_content_from_the_first_byte() {
    let mut run = Run::new();
    let append = packet(3, 1, &[&string(b"/f"), &6u32.to_be_bytes(), &[0; 4]]);
    run.client(append).unwrap();
    run.target(handle(1, b"h")).unwrap();
    run.client(write(2, 0, b"ab")).unwrap();
    assert_eq!(run.end().1, streams(&[("written-parts", 2)]));
    let mut run = Run::opened();
    let (h, n) = (string(b"h"), [0; 8]);
    run.client(packet(200, 2, &[&string(b"copy-data"), &h, &n, &n, &h, &n]))
        .unwrap();
    assert_eq!(run.operations[1], "copy-data \"/f\" 0 0 \"/f\" 0");
    run.client(write(3, 0, b"ab")).unwrap();
    assert_eq!(run.end().1, streams(&[("written-parts", 2)]));
}

#[test]
fn a_client_cannot_go_beyond_the_protocol() {
    let opened: [(Vec<Bytes>, &str); 6] = [
        (vec![packet(1, 3, &[])], "begins twice"),
        (
            vec![read(2, 0), read(2, 4)],
            "two SFTP requests with one number",
        ),
        (
            vec![read(2, 0), open(2)],
            "two SFTP requests with one number",
        ),
        (
            vec![close(2, b"h"), write(3, 0, b"x")],
            "a handle that is not open",
        ),
        (vec![close(2, b"other")], "a handle that is not open"),
        (
            vec![packet(10, 2, &[&string(b"x"), &[0; 4]])],
            "a handle that is not open",
        ),
    ];
    for (packets, part) in opened {
        let mut run = Run::opened();
        let (last, first) = packets.split_last().unwrap();
        for packet in first {
            run.client(packet.clone()).unwrap();
        }
        let error = run.client(last.clone()).unwrap_err();
        let part = part.replace("a handle", "an SFTP handle");
        assert!(error.contains(&part), "{error}");
    }
    let mut early = Sftp::new(u64::MAX);
    early.push(
        From::Client,
        [&packet(1, 3, &[])[..], &open(1)].concat().into(),
    );
    let error = early.step(From::Client).err().unwrap();
    assert!(error.contains("before the version"), "{error}");
}

/// Bytes, those of them in files, and the digest.
fn sum(digest: crate::stream::Digest) -> (u64, u64, [u8; 32]) {
    let total = digest.total("stream", 0).unwrap();
    (total.bytes, total.in_files, total.sha256.0.0)
}

#[test]
fn contents_beyond_the_cap_are_digested_by_their_files_alone() {
    let begin = [packet(1, 3, &[]), open(1)].concat();
    let asked = [
        write(2, 0, b"abcd"),
        write(3, 4, b"efgh"),
        read(4, 0),
        close(5, b"h"),
        // What is not a whole packet, and never will be.
        Bytes::from_static(b"\0\0\0"),
    ];
    let sent = [begin.clone(), asked.concat()].concat();
    let versions = [packet(2, 3, &[]), handle(1, b"h")].concat();
    let answers = [status(2, OK), data(4, b"wxyz")].concat();
    let answered = [versions.clone(), answers.clone()].concat();
    let expect = |all: &[u8], left_out: &[&[u8]]| {
        let mut rest = all.to_vec();
        for content in left_out {
            let at = rest.windows(content.len()).position(|w| w == *content);
            rest.drain(at.unwrap()..at.unwrap() + content.len());
        }
        let digest: [u8; 32] = sha2::Sha256::digest(&rest).into();
        (all.len() as u64, (all.len() - rest.len()) as u64, digest)
    };
    // Up to the third byte of the first write.
    let third = begin.len() + asked[0].len() - 1;
    for (cap, of_sent, of_answered) in [
        (u64::MAX, &[][..], &[][..]),
        (third as u64, &[&b"d"[..], b"efgh"], &[]),
        (0, &[b"abcd", b"efgh"], &[&b"wxyz"[..]]),
    ] {
        for size in [1, 7, 1000] {
            let mut run = Run {
                sftp: Sftp::new(cap),
                operations: Vec::new(),
            };
            for (from, bytes) in [
                (From::Client, &begin[..begin.len() - open(1).len()]),
                (From::Target, &versions[..9]),
                (From::Client, &begin[begin.len() - open(1).len()..]),
                (From::Target, &versions[9..]),
                (From::Client, &sent[begin.len()..]),
                (From::Target, &answers),
            ] {
                for piece in bytes.chunks(size) {
                    run.pass(from, Bytes::copy_from_slice(piece)).unwrap();
                }
            }
            let Digests { client, target } = run.sftp.digests();
            assert_eq!(sum(client), expect(&sent, of_sent), "{cap} {size}");
            assert_eq!(sum(target), expect(&answered, of_answered), "{cap} {size}");
        }
    }
}

#[test]
fn what_ends_a_transfer_is_digested_too() {
    for cap in [0, u64::MAX] {
        let mut run = Run::capped(cap);
        let wrong = [write(2, 0, b"abcd"), packet(99, 3, &[])].concat();
        run.client(wrong.clone().into()).unwrap_err();
        let sent = [packet(1, 3, &[]).to_vec(), wrong].concat();
        let digest: [u8; 32] = sha2::Sha256::digest(&sent).into();
        let Digests { client, .. } = run.sftp.digests();
        assert_eq!(sum(client), (sent.len() as u64, 0, digest), "{cap}");
    }
}

#[test]
fn a_target_cannot_go_beyond_the_protocol() {
    for (reply, part) in [
        (status(9, OK), "nobody made"),
        (data(2, b"abcde"), "more of a file than was asked for"),
        (handle(2, b"x"), "does not fit"),
        (packet(105, 2, &[&[0; 4]]), "does not fit"),
        (handle(3, b"h"), "twice"),
        (data(3, b"x"), "does not fit"),
        (packet(104, 3, &[&[0; 4]]), "does not fit"),
        (packet(2, 3, &[]), "without being asked"),
    ] {
        let mut run = Run::opened();
        run.client([read(2, 0), open(3)].concat().into()).unwrap();
        let error = run.target(reply).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let mut run = Run::new();
    assert!(run.target(packet(2, 3, &[])).is_err(), "a second version");
    let mut unasked = Sftp::new(u64::MAX);
    unasked.push(From::Target, packet(2, 3, &[]));
    assert!(unasked.step(From::Target).is_err());
}

#[test]
fn handles_and_requests_are_bounded() {
    let mut run = Run::new();
    for id in 0..1024 {
        run.client(open(id)).unwrap();
        run.target(handle(id, &id.to_be_bytes())).unwrap();
    }
    let error = run.client(open(5000)).unwrap_err();
    assert!(error.contains("1,024 SFTP handles"), "{error}");
    let mut run = Run::opened();
    for id in 2..1026 {
        run.client(read(id, 0)).unwrap();
    }
    let error = run.client(read(5000, 0)).unwrap_err();
    assert!(error.contains("1,024 SFTP requests"), "{error}");
    let mut run = Run::new();
    for id in 0..1024 {
        run.client(open(id)).unwrap();
    }
    run.client(open(5000)).unwrap_err();
}
