use super::*;

fn frame(kind: u8, body: &[u8]) -> Frame {
    let length = u32::try_from(body.len() + 4).unwrap();
    let bytes = [&[kind][..], &length.to_be_bytes(), body].concat().into();
    Frame { kind, bytes }
}

const B: fn(&'static str) -> Bytes = |text| Bytes::from_static(text.as_bytes());

fn all() -> Vec<(Frame, Message)> {
    let auth = |body: &[u8], what| (frame(b'R', body), Message::Authentication(what));
    let report = Report {
        severity: B("ERROR"),
        code: B("42601"),
        message: B("no"),
        detail: Some(B("d")),
        hint: Some(B("h")),
    };
    let fields = b"SFEHLER\0VERROR\0C42601\0Mno\0Dd\0Hh\0P1\0Fscan.l\0\0";
    let done = |text: &'static str, rows| {
        let body = [text.as_bytes(), b"\0"].concat();
        (
            frame(b'C', &body),
            Message::CommandComplete { tag: B(text), rows },
        )
    };
    let negotiate = Message::Negotiate {
        version: 0x0003_0000,
        options: vec![B("_pq_.x")],
    };
    let key = [&[0, 0, 0, 9][..], &[7; 32]].concat();
    vec![
        auth(&[0, 0, 0, 0], Authentication::Ok),
        auth(&[0, 0, 0, 3], Authentication::CleartextPassword),
        auth(b"\0\0\0\x05salt", Authentication::Md5Password(*b"salt")),
        auth(
            b"\0\0\0\x0aA\0B\0\0",
            Authentication::Sasl(vec![B("A"), B("B")]),
        ),
        (
            frame(b'S', b"TimeZone\0UTC\0"),
            Message::ParameterStatus(B("TimeZone"), B("UTC")),
        ),
        (
            frame(b'K', &key[..8]),
            Message::BackendKeyData(9, Secret::new(&[7; 4])),
        ),
        (frame(b'Z', b"I"), Message::ReadyForQuery(Status::Idle)),
        (
            frame(b'Z', b"T"),
            Message::ReadyForQuery(Status::InTransaction),
        ),
        (frame(b'Z', b"E"), Message::ReadyForQuery(Status::Failed)),
        done("INSERT 0 5", Some(5)),
        done("COPY 77", Some(77)),
        done("BEGIN", None),
        done("CREATE TABLE", None),
        (frame(b'E', fields), Message::Error(report.clone())),
        (frame(b'N', fields), Message::Notice(report)),
        (frame(b'1', b""), Message::ParseComplete),
        (frame(b'2', b""), Message::BindComplete),
        (frame(b'3', b""), Message::CloseComplete),
        (frame(b'n', b""), Message::NoData),
        (frame(b's', b""), Message::PortalSuspended),
        (frame(b'I', b""), Message::EmptyQuery),
        (frame(b'G', b"\x01\0\x02\0\x01\0\x01"), Message::CopyIn),
        (frame(b'H', b"\0\0\x01\0\0"), Message::CopyOut),
        (frame(b'W', b"\0\0\0"), Message::CopyBoth),
        (frame(b'c', b""), Message::CopyDone),
        (frame(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0"), negotiate),
    ]
}

#[test]
fn every_message_is_read_to_its_last_byte_and_no_further() {
    for (whole, message) in all() {
        assert_eq!(decode(&whole), Ok(message.clone()));
        let body = whole.body();
        for end in 0..body.len() {
            assert!(
                decode(&frame(whole.kind, &body[..end])).is_err(),
                "{message:?} up to {end}"
            );
        }
        // A key has no stated length.
        if whole.kind != b'K' {
            assert!(
                decode(&frame(whole.kind, &[&body, &b"\0"[..]].concat())).is_err(),
                "{message:?}"
            );
        }
    }
}

#[test]
fn what_cannot_be() {
    for (kind, body) in [
        (b'Z', &b"X"[..]),
        (b'K', b"\0\0\0\x01"),
        (b'G', b"\x02\0\0"),
        (b'G', b"\0\0\x01\0\x01"),
        (b'G', b"\0\0\x01\0\x02"),
        (b'v', b"\0\x03\0\0\xff\xff\xff\xff"),
        (b'x', b""),
        (b'D', b"\0\0"),
    ] {
        assert!(decode(&frame(kind, body)).is_err(), "{kind} {body:?}");
    }
    let key = |length: usize| decode(&frame(b'K', &vec![0; 4 + length])).is_ok();
    assert_eq!([3, 4, 256, 257].map(key), [false, true, true, false]);
    let other = Message::Authentication(Authentication::Other(7));
    assert_eq!(decode(&frame(b'R', b"\0\0\0\x07")), Ok(other));
    let more = Message::Authentication(Authentication::SaslContinue(B("r=1")));
    assert_eq!(decode(&frame(b'R', b"\0\0\0\x0br=1")), Ok(more));
}

#[test]
fn of_a_large_error_the_beginning_is_enough() {
    let large = |kind, bytes: &'static [u8]| {
        decode_large(&Large {
            kind,
            length: 70_000,
            bytes: Bytes::from_static(bytes),
        })
    };
    let body = b"E\0\x01\0\0SERROR\0VERROR\0C22P02\0Minvalid";
    let report = Report {
        severity: B("ERROR"),
        code: B("22P02"),
        ..Report::default()
    };
    assert_eq!(large(b'E', body), Ok(Message::Error(report.clone())));
    assert_eq!(large(b'N', body), Ok(Message::Notice(report)));
    assert!(matches!(
        large(b'S', b"S\0\x01\0\0path\0x"),
        Ok(Message::ParameterStatus(..))
    ));
    assert!(large(b'C', b"C\0\x01\0\0SELECT").is_err());
}
