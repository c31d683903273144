use super::super::client::{self, Text};
use super::super::frame::{Frame, Frames, Piece, Side};
use super::super::server::{Authentication, Message, decode};
use super::*;

/// The only message in these bytes.
fn framed(from: Side, bytes: Bytes) -> Frame {
    let mut frames = Frames::new(from);
    frames.push(bytes);
    let Ok(Some(Piece::Whole(frame))) = frames.next() else {
        panic!("no message")
    };
    assert!(frames.is_between());
    frame
}

#[test]
fn what_is_written_to_the_client_is_read_back() {
    let read = |bytes| decode(&framed(Side::Server, bytes)).unwrap();
    let auth = Message::Authentication;
    assert_eq!(read(authentication_ok()), auth(Authentication::Ok));
    assert_eq!(
        read(cleartext_password()),
        auth(Authentication::CleartextPassword)
    );
    let mechanisms = vec![Bytes::from_static(b"OAUTHBEARER")];
    assert_eq!(
        read(sasl(&["OAUTHBEARER"])),
        auth(Authentication::Sasl(mechanisms))
    );
    let data = Bytes::from_static(b"{}");
    assert_eq!(
        read(sasl_continue(b"{}")),
        auth(Authentication::SaslContinue(data.clone()))
    );
    assert_eq!(
        read(sasl_final(b"{}")),
        auth(Authentication::SaslFinal(data))
    );
    let setting = Message::ParameterStatus("a".into(), "b".into());
    assert_eq!(read(parameter_status(b"a", b"b")), setting);
    let key = read(backend_key_data(7, &[1; 32]));
    assert_eq!(
        key,
        Message::BackendKeyData(7, super::super::Secret::new(&[1; 32]))
    );
    for status in [Status::Idle, Status::InTransaction, Status::Failed] {
        assert_eq!(
            read(ready_for_query(status)),
            Message::ReadyForQuery(status)
        );
    }
    let mut report = Report {
        severity: "FATAL".into(),
        code: "57P01".into(),
        message: "the grant has ended".into(),
        detail: None,
        hint: Some("ask".into()),
    };
    assert_eq!(
        read(error_response(&report)),
        Message::Error(report.clone())
    );
    assert_eq!(
        read(notice_response(&report)),
        Message::Notice(report.clone())
    );
    // A zero byte does not begin another field.
    report.message = "a\0b".into();
    let Message::Error(read) = read(error_response(&report)) else {
        panic!("no error")
    };
    assert_eq!(read.message, "a");
    let options = ["_pq_.a".into(), "_pq_.b".into()];
    let version = 0x0003_0002;
    let negotiated = decode(&framed(Side::Server, negotiate(2, &options))).unwrap();
    assert_eq!(
        negotiated,
        Message::Negotiate {
            version,
            options: options.to_vec()
        }
    );
}

#[test]
fn what_is_written_to_the_server_is_read_back() {
    let read = |bytes| client::decode(&framed(Side::Client, bytes)).unwrap();
    let text = || Text::Here("SELECT 1".into());
    assert_eq!(read(query(b"SELECT 1")), client::Message::Query(text()));
    let parse = parse(b"n", b"SELECT 1");
    let (name, text, types) = ("n".into(), text(), vec![]);
    assert_eq!(read(parse), client::Message::Parse { name, text, types });
    assert_eq!(
        read(copy_fail(b"why")),
        client::Message::CopyFail("why".into())
    );
    assert_eq!(read(terminate()), client::Message::Terminate);
    let frame = framed(Side::Client, password(b"secret\0"));
    assert_eq!(client::password(&frame).unwrap().expose(), b"secret");
}
