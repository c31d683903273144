use proptest::prelude::*;

use super::*;

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// A packet of these parts.
fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], &body].concat()
}

const ID: &[u8] = &7u32.to_be_bytes();
const ZERO: &[u8] = &0u32.to_be_bytes();

/// One direction, with all that was cut and the bytes that may be handed on.
macro_rules! read_all {
    ($name:ident, $reader:ty, $piece:ty, $bulk:path) => {
        /// Pieces of a stream that comes in chunks, bulk joined; what was handed on; the error.
        fn $name(bytes: &[u8], chunk: usize) -> (Vec<$piece>, Vec<u8>, Option<SftpError>) {
            let (mut reader, mut pieces, mut out) = (<$reader>::default(), Vec::new(), Vec::new());
            for part in bytes.chunks(chunk.max(1)) {
                reader.bytes.push(Bytes::copy_from_slice(part));
                loop {
                    match reader.next() {
                        Ok(Some($bulk(more))) => {
                            if let Some($bulk(bulk)) = pieces.last_mut() {
                                *bulk = [&bulk[..], &more].concat().into();
                            } else {
                                pieces.push($bulk(more));
                            }
                        }
                        Ok(Some(piece)) => {
                            out.extend_from_slice(&reader.bytes.earlier());
                            pieces.push(piece);
                        }
                        Ok(None) => break,
                        Err(error) => return (pieces, out, Some(error)),
                    }
                }
                out.extend_from_slice(&reader.bytes.ready());
            }
            (pieces, out, None)
        }
    };
}

read_all!(requests, Requests, Request, Request::Data);
read_all!(replies, Replies, Reply, Reply::Bytes);

/// The only request, as it is told.
fn told(packet: &[u8]) -> String {
    let (pieces, out, error) = requests(packet, usize::MAX);
    assert_eq!((out.as_slice(), error), (packet, None));
    match &pieces[..] {
        [Request::Operate(7, operation)] => {
            let path = |handle: &[u8]| (handle == b"h").then_some(&b"/open"[..]);
            format!("{}: {}", operation.kind, operation.text(path))
        }
        [other] => format!("{other:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_of_a_real_client_are_understood() {
    // `put` by OpenSSH 9.2: open, fsetstat, close; `rename` and `ln` with its extensions.
    let open = b"\0\0\0\x1b\x03\0\0\0\x07\0\0\0\x06/tmp/a\0\0\0\x1a\0\0\0\x04\0\0\x01\xa4";
    assert_eq!(
        told(open),
        "sftp.open: open \"/tmp/a\" write,create,truncate mode=0644"
    );
    let fsetstat = b"\0\0\0\x12\x0a\0\0\0\x07\0\0\0\x01h\0\0\0\x04\0\0\x81\xa4";
    assert_eq!(
        told(fsetstat),
        "sftp.fsetstat: fsetstat \"/open\" mode=100644"
    );
    let init = b"\0\0\0\x05\x01\0\0\0\x03";
    assert_eq!(told(init), "Init(3)");
    let close = b"\0\0\0\x0a\x04\0\0\0\x07\0\0\0\x01h";
    assert_eq!(told(close), "Close(7, b\"h\")");
    let read = b"\0\0\0\x16\x05\0\0\0\x07\0\0\0\x01h\0\0\0\0\0\0\x80\0\0\0\x40\0";
    assert_eq!(
        told(read),
        "Read { id: 7, handle: b\"h\", offset: 32768, length: 16384 }"
    );
    let rename =
        b"\0\0\0\x2b\xc8\0\0\0\x07\0\0\0\x18posix-rename@openssh.com\0\0\0\x01a\0\0\0\x01b";
    assert_eq!(told(rename), "sftp.posix-rename: posix-rename \"a\" \"b\"");
}

#[test]
fn every_operation_is_told_exactly() {
    let (a, b, h) = (string(b"a\"\xff"), string(b"/b c"), string(b"h"));
    let times = [
        &8u32.to_be_bytes()[..],
        &1u32.to_be_bytes(),
        &2u32.to_be_bytes(),
    ]
    .concat();
    let all = [
        &0xfu32.to_be_bytes()[..],
        &9u64.to_be_bytes(),
        &1u32.to_be_bytes(),
        &2u32.to_be_bytes(),
        &0o4755u32.to_be_bytes(),
        &3u32.to_be_bytes(),
        &4u32.to_be_bytes(),
    ]
    .concat();
    let nine = &9u64.to_be_bytes()[..];
    let flags = &0x3fu32.to_be_bytes()[..];
    let extended = |name: &[u8], parts: &[&[u8]]| {
        let name = string(name);
        let parts = [&[ID, &name], parts].concat();
        packet(200, &parts)
    };
    for (packet, text) in [
        (
            packet(3, &[ID, &b, flags, ZERO]),
            "sftp.open: open \"/b c\" read,write,append,create,truncate,exclusive",
        ),
        (packet(3, &[ID, &b, ZERO, ZERO]), "sftp.open: open \"/b c\""),
        (
            packet(9, &[ID, &a, &all]),
            "sftp.setstat: setstat \"a\\\"\\xff\" size=9 uid=1 gid=2 mode=4755 atime=3 mtime=4",
        ),
        (
            packet(10, &[ID, &h, &times]),
            "sftp.fsetstat: fsetstat \"/open\" atime=1 mtime=2",
        ),
        (packet(11, &[ID, &b]), "sftp.opendir: opendir \"/b c\""),
        (packet(13, &[ID, &b]), "sftp.remove: remove \"/b c\""),
        (packet(14, &[ID, &b, ZERO]), "sftp.mkdir: mkdir \"/b c\""),
        (packet(15, &[ID, &b]), "sftp.rmdir: rmdir \"/b c\""),
        (
            packet(18, &[ID, &a, &b]),
            "sftp.rename: rename \"a\\\"\\xff\" \"/b c\"",
        ),
        (
            packet(20, &[ID, &a, &b]),
            "sftp.symlink: symlink \"a\\\"\\xff\" \"/b c\"",
        ),
        (
            extended(b"posix-rename@openssh.com", &[&a, &b]),
            "sftp.posix-rename: posix-rename \"a\\\"\\xff\" \"/b c\"",
        ),
        (
            extended(b"hardlink@openssh.com", &[&a, &b]),
            "sftp.hardlink: hardlink \"a\\\"\\xff\" \"/b c\"",
        ),
        (
            extended(b"lsetstat@openssh.com", &[&b, &times]),
            "sftp.lsetstat: lsetstat \"/b c\" atime=1 mtime=2",
        ),
        (
            extended(b"copy-data", &[&h, nine, nine, &h, nine]),
            "sftp.copy-data: copy-data \"/open\" 9 9 \"/open\" 9",
        ),
        (packet(7, &[ID, &b]), "Ask(7, None)"),
        (packet(8, &[ID, &h]), "Ask(7, Some(b\"h\"))"),
        (packet(12, &[ID, &h]), "Ask(7, Some(b\"h\"))"),
        (packet(16, &[ID, &b]), "Ask(7, None)"),
        (packet(17, &[ID, &b]), "Ask(7, None)"),
        (packet(19, &[ID, &b]), "Ask(7, None)"),
        (extended(b"statvfs@openssh.com", &[&b]), "Ask(7, None)"),
        (
            extended(b"fstatvfs@openssh.com", &[&h]),
            "Ask(7, Some(b\"h\"))",
        ),
        (
            extended(b"fsync@openssh.com", &[&h]),
            "Ask(7, Some(b\"h\"))",
        ),
        (extended(b"limits@openssh.com", &[]), "Ask(7, None)"),
        (extended(b"expand-path@openssh.com", &[&b]), "Ask(7, None)"),
        (extended(b"home-directory", &[&b]), "Ask(7, None)"),
        (
            extended(b"users-groups-by-id@openssh.com", &[&a, &b]),
            "Ask(7, None)",
        ),
    ] {
        assert_eq!(told(&packet), text);
        // Not with a byte more, and not with one less.
        let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
        let mut longer = [&packet[..], b"\0"].concat();
        longer[..4].copy_from_slice(&(length + 1).to_be_bytes());
        assert!(requests(&longer, 9).2.is_some(), "{text}");
        let mut shorter = packet[..packet.len() - 1].to_vec();
        shorter[..4].copy_from_slice(&(length - 1).to_be_bytes());
        assert!(requests(&shorter, 9).2.is_some(), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_not_handed_on() {
    let long = string(&[b'x'; MAX_PATH + 1]);
    let handle = string(&[b'x'; MAX_HANDLE + 1]);
    let good = packet(13, &[ID, &string(b"x")]);
    let eight = &8u64.to_be_bytes()[..];
    for (bad, error) in [
        (vec![0; 9], SftpError::Length(0)),
        (vec![0, 4, 0, 1], SftpError::Length(MAX_PACKET + 1)),
        (
            b"SSH-2.0-x\n".to_vec(),
            SftpError::Length(u32::from_be_bytes(*b"SSH-")),
        ),
        (packet(2, &[ID]), SftpError::Type(2)),
        (packet(21, &[ID]), SftpError::Type(21)),
        (packet(101, &[ID, ZERO]), SftpError::Type(101)),
        (
            packet(3, &[ID, &string(b"x"), &64u32.to_be_bytes(), ZERO]),
            SftpError::Malformed(3, "it opens in a way that version 3 does not have"),
        ),
        (
            packet(13, &[ID, &long]),
            SftpError::Malformed(13, "a path is longer than 4,096 bytes"),
        ),
        (
            packet(13, &[ID, &string(b"a\0b")]),
            SftpError::Malformed(13, "a path has a zero byte"),
        ),
        (
            packet(4, &[ID, &handle]),
            SftpError::Malformed(4, "a handle is longer than 256 bytes"),
        ),
        (
            packet(6, &[ID, &handle, eight, ZERO]),
            SftpError::Malformed(6, "a handle is longer than 256 bytes"),
        ),
        (
            packet(6, &[ID]),
            SftpError::Malformed(6, "it ends too early"),
        ),
        (
            packet(6, &[ID, &string(b"h"), eight]),
            SftpError::Malformed(6, "it ends too early"),
        ),
        (
            packet(6, &[ID, &string(b"h"), eight, &string(b"ab"), b"c"]),
            SftpError::Malformed(6, "its data is not as long as it says"),
        ),
        (
            packet(9, &[ID, &string(b"x"), &0x8000_0000u32.to_be_bytes(), ZERO]),
            SftpError::Malformed(9, "attributes that are not of version 3, or extended ones"),
        ),
        (
            packet(200, &[ID, &string(b"x\n@y")]),
            SftpError::Extension("\"x\\x0a@y\"".to_owned()),
        ),
    ] {
        for chunk in [1, 4, usize::MAX] {
            let bytes = [&good[..], &bad].concat();
            let (pieces, out, found) = requests(&bytes, chunk);
            assert_eq!((pieces.len(), found), (1, Some(error.clone())), "{bad:?}");
            assert!(good.starts_with(&out), "{out:?}");
        }
    }
    for (bad, error) in [
        (packet(3, &[ID]), SftpError::Type(3)),
        (
            packet(101, &[ID]),
            SftpError::Malformed(101, "it ends too early"),
        ),
        (
            packet(102, &[ID, &handle]),
            SftpError::Malformed(102, "a handle is longer than 256 bytes"),
        ),
        (
            packet(103, &[ID, &string(b"ab"), b"c"]),
            SftpError::Malformed(103, "its data is not as long as it says"),
        ),
        (
            packet(103, &[ID]),
            SftpError::Malformed(103, "it ends too early"),
        ),
        (
            packet(104, &[&ID[..3]]),
            SftpError::Malformed(104, "it ends too early"),
        ),
        (vec![0xff; 5], SftpError::Length(u32::MAX)),
    ] {
        assert_eq!(replies(&bad, 3).2, Some(error), "{bad:?}");
    }
}

#[test]
fn contents_pass_through_without_a_copy() {
    let head = packet(6, &[ID, &string(b"h"), &[0; 8], &string(&[9; 1000])]);
    let chunk = Bytes::from(head);
    let mut reader = Requests::default();
    reader.bytes.push(chunk.clone());
    assert!(matches!(
        reader.next(),
        Ok(Some(Request::Write { length: 1000, .. }))
    ));
    assert!(matches!(reader.next(), Ok(Some(Request::Data(bytes))) if bytes.len() == 1000));
    let ready = reader.bytes.ready();
    assert_eq!((ready.as_ptr(), ready.len()), (chunk.as_ptr(), chunk.len()));
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let text = proptest::collection::vec(1u8.., 0..40);
    let data = proptest::collection::vec(any::<u8>(), 0..600);
    prop_oneof![
        text.clone()
            .prop_map(|path| packet(13, &[ID, &string(&path)])),
        (text.clone(), text).prop_map(|(a, b)| packet(18, &[ID, &string(&a), &string(&b)])),
        data.prop_map(|data| packet(6, &[ID, &string(b"h"), &[0; 8], &string(&data)])),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn any_reply() -> impl Strategy<Value = Vec<u8>> {
    let data = proptest::collection::vec(any::<u8>(), 0..600);
    prop_oneof![
        Just(packet(101, &[ID, ZERO, &string(b"Success"), &string(b"")])),
        Just(packet(102, &[ID, &string(b"h")])),
        data.clone()
            .prop_map(|data| packet(103, &[ID, &string(&data)])),
        data.prop_map(|data| packet(104, &[ID, &data])),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn requests_read_the_same_however_they_are_split(
        packets in proptest::collection::vec(any_request(), 0..6),
        chunk in 1usize..300,
    ) {
        let bytes = packets.concat();
        let whole = requests(&bytes, usize::MAX);
        for chunk in [1, chunk] {
            let split = requests(&bytes, chunk);
            prop_assert_eq!(&split.0, &whole.0);
            prop_assert_eq!(&split.2, &whole.2);
            prop_assert!(bytes.starts_with(&split.1));
        }
    }

    #[test]
    fn replies_read_the_same_however_they_are_split(
        packets in proptest::collection::vec(any_reply(), 0..6),
        chunk in 1usize..300,
    ) {
        let bytes = packets.concat();
        let whole = replies(&bytes, usize::MAX);
        for chunk in [1, chunk] {
            let split = replies(&bytes, chunk);
            prop_assert_eq!(&split.0, &whole.0);
            prop_assert_eq!(&split.2, &whole.2);
            prop_assert!(bytes.starts_with(&split.1));
        }
    }
}

#[test]
fn every_type_is_an_operation_or_on_the_list_of_what_is_not_recorded() {
    let (path, eight) = (string(b"x"), [0; 8]);
    let names = "close read write lstat fstat readdir realpath stat readlink";
    let types: [u8; 9] = [4, 5, 6, 7, 8, 12, 16, 17, 19];
    let mut plain: Vec<&str> = vec!["init"];
    for (name, kind) in names.split(' ').zip(types) {
        let rest: Vec<&[u8]> = match kind {
            5 | 6 => vec![ID, &path, &eight, ZERO],
            _ => vec![ID, &path],
        };
        let (pieces, _, error) = requests(&packet(kind, &rest), usize::MAX);
        assert!(error.is_none(), "{name}");
        assert!(!matches!(pieces[0], Request::Operate(..)), "{name}");
        plain.push(name);
    }
    for (name, _) in UNRECORDED {
        let forms: [&[&[u8]]; 3] = [&[], &[&path], &[&path, &path]];
        let asked = forms.iter().any(|rest| {
            let name = string(name.as_bytes());
            let parts = [&[ID, &name], *rest].concat();
            let (pieces, _, _) = requests(&packet(200, &parts), usize::MAX);
            matches!(pieces[..], [Request::Ask(..)])
        });
        assert!(asked != plain.contains(name), "{name}");
    }
    let understood = |kind: &u8| {
        let (_, _, error) = requests(&packet(*kind, &[ID]), usize::MAX);
        error != Some(SftpError::Type(*kind))
    };
    let known: Vec<u8> = (0..=u8::MAX).filter(understood).collect();
    let operations = [3, 9, 10, 11, 13, 14, 15, 18, 20];
    let expected: std::collections::BTreeSet<u8> = [1, 200]
        .into_iter()
        .chain(types)
        .chain(operations)
        .collect();
    assert_eq!(known, expected.into_iter().collect::<Vec<_>>());
}
