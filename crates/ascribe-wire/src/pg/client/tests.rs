use super::*;

fn frame(kind: u8, parts: &[&[u8]]) -> Frame {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).unwrap();
    let bytes = [&[kind][..], &length.to_be_bytes(), &body].concat().into();
    Frame { kind, bytes }
}

fn text(text: &'static str) -> Text {
    Text::Here(Bytes::from_static(text.as_bytes()))
}

const B: fn(&'static str) -> Bytes = |text| Bytes::from_static(text.as_bytes());

/// A message of every type, and what it is.
fn all() -> Vec<(Frame, Message)> {
    let values = Values::Here {
        formats: vec![Format::Text, Format::Binary],
        values: vec![Some(B("v")), None],
    };
    vec![
        (
            frame(b'Q', &[b"SELECT '\xe9'\0"]),
            Message::Query(Text::Here(Bytes::from_static(b"SELECT '\xe9'"))),
        ),
        (
            frame(b'P', &[b"n\0SELECT $1\0", &[0, 2, 0, 0, 0, 23, 0, 0, 0, 0]]),
            Message::Parse {
                name: B("n"),
                text: text("SELECT $1"),
                types: vec![23, 0],
            },
        ),
        (
            frame(
                b'B',
                &[
                    b"p\0s\0",
                    &[0, 2, 0, 0, 0, 1],
                    &[0, 2, 0, 0, 0, 1],
                    b"v",
                    &[255; 4],
                    &[0, 1, 0, 1],
                ],
            ),
            Message::Bind {
                portal: B("p"),
                statement: B("s"),
                values: values.clone(),
                results: vec![Format::Binary],
            },
        ),
        (
            frame(b'D', &[b"Sn\0"]),
            Message::Describe(Named::Statement, B("n")),
        ),
        (
            frame(b'D', &[b"P\0"]),
            Message::Describe(Named::Portal, B("")),
        ),
        (
            frame(b'E', &[b"p\0", &[0, 0, 0, 7]]),
            Message::Execute {
                portal: B("p"),
                max_rows: 7,
            },
        ),
        (
            frame(b'E', &[b"\0", &[255; 4]]),
            Message::Execute {
                portal: B(""),
                max_rows: 0,
            },
        ),
        (
            frame(b'C', &[b"Pn\0"]),
            Message::Close(Named::Portal, B("n")),
        ),
        (frame(b'H', &[]), Message::Flush),
        (frame(b'S', &[]), Message::Sync),
        (
            frame(
                b'F',
                &[
                    &[0, 0, 3, 184],
                    &[0, 2, 0, 0, 0, 1],
                    &[0, 2, 0, 0, 0, 1],
                    b"v",
                    &[255; 4],
                    &[0, 1],
                ],
            ),
            Message::FunctionCall {
                function: 952,
                arguments: values,
            },
        ),
        (frame(b'c', &[]), Message::CopyDone),
        (frame(b'f', &[b"why\0"]), Message::CopyFail(B("why"))),
        (frame(b'X', &[]), Message::Terminate),
    ]
}

/// The same body, longer or shorter.
fn resized(frame: &Frame, body: &[u8]) -> Frame {
    let length = u32::try_from(body.len() + 4).unwrap();
    let bytes = [&[frame.kind][..], &length.to_be_bytes(), body]
        .concat()
        .into();
    Frame {
        kind: frame.kind,
        bytes,
    }
}

#[test]
fn every_message_is_read_to_its_last_byte_and_no_further() {
    for (frame, message) in all() {
        assert_eq!(decode(&frame), Ok(message.clone()));
        let body = frame.body();
        for end in 0..body.len() {
            let cut = decode(&resized(&frame, &body[..end]));
            assert!(cut.is_err(), "{message:?} up to {end}: {cut:?}");
        }
        for more in [&b"\0"[..], b"x", b"\0\0\0\0"] {
            let longer = decode(&resized(&frame, &[&body, more].concat()));
            assert!(longer.is_err(), "{message:?} and {more:?}: {longer:?}");
        }
    }
}

#[test]
fn what_does_not_add_up() {
    for (kind, body, why) in [
        // A server would run what is before the zero byte.
        (b'Q', &b"SELECT 1\0; DROP\0"[..], "bytes are left over"),
        (b'Q', b"", "a string without its end"),
        (b'P', b"\0\0\xff\xff", "it counts more than it has"),
        (b'B', b"\0\0\0\0\xff\xff", "it counts more than it has"),
        (
            b'B',
            b"\0\0\0\x02\0\0\0\0\0\x01\xff\xff\xff\xff\0\0",
            "it has neither one format nor as many as values",
        ),
        (
            b'B',
            b"\0\0\0\x01\0\x02\0\0\0\0",
            "a format that is neither text nor binary",
        ),
        (
            b'B',
            b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0",
            "a value of negative length",
        ),
        (
            b'B',
            b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0",
            "it ends too early",
        ),
        (b'D', b"Xn\0", "neither a statement nor a portal"),
        (b'p', b"secret\0", "nobody asked for a password"),
        (b'd', b"", "it has no place here"),
    ] {
        assert_eq!(
            decode(&frame(kind, &[body])),
            Err(Malformed { kind, why }),
            "{body:?}"
        );
    }
}

#[test]
fn large_messages_have_names() {
    let large = |kind: u8, body: &[u8]| {
        let bytes = [&[kind, 0, 1, 0, 0][..], body].concat().into();
        decode_large(&Large {
            kind,
            length: 70_000,
            bytes,
        })
    };
    assert_eq!(
        large(b'Q', b"SELECT"),
        Ok(Message::Query(Text::Spooled(70_000)))
    );
    let parse = Message::Parse {
        name: B("n"),
        text: Text::Spooled(70_000),
        types: vec![],
    };
    assert_eq!(large(b'P', b"n\0SELECT"), Ok(parse));
    let bind = Message::Bind {
        portal: B("p"),
        statement: B("s"),
        values: Values::Spooled(70_000),
        results: vec![],
    };
    assert_eq!(large(b'B', b"p\0s\0\0\0"), Ok(bind));
    let call = Message::FunctionCall {
        function: 952,
        arguments: Values::Spooled(70_000),
    };
    assert_eq!(large(b'F', b"\0\0\x03\xb8"), Ok(call));
    for (kind, body) in [
        (b'P', &[b'x'; 1024][..]),
        (b'B', b"p\0ssss"),
        (b'E', b"p\0"),
        (b'F', b"\0"),
    ] {
        assert!(large(kind, body).is_err());
    }
}

#[test]
fn secrets_are_read_and_not_shown() {
    let token = [&[b'x'; 65_000][..], b"\0"].concat();
    assert_eq!(
        password(&frame(b'p', &[&token])).unwrap().expose().len(),
        65_000
    );
    for bad in [&b"\0"[..], b"", b"a\0b\0", b"a"] {
        assert!(password(&frame(b'p', &[bad])).is_err());
    }
    assert!(password(&frame(b'Q', &[b"a\0"])).is_err());
    let (mechanism, data) = sasl_initial(&frame(b'p', &[b"OAUTHBEARER\0\0\0\0\x03n,,"])).unwrap();
    assert_eq!(
        (&mechanism[..], data.unwrap().expose()),
        (&b"OAUTHBEARER"[..], &b"n,,"[..])
    );
    let (_, none) = sasl_initial(&frame(b'p', &[b"X\0\xff\xff\xff\xff"])).unwrap();
    assert!(none.is_none());
    assert!(sasl_initial(&frame(b'p', &[b"X\0\0\0\0\x01"])).is_err());
    let response = frame(b'p', &[b"hunter2"]);
    let secret = sasl_response(&response).unwrap();
    assert_eq!(secret.expose(), b"hunter2");
    let shown = format!("{response:?} {secret:?}");
    assert_eq!(shown, "Frame(p, 12 bytes) Secret(..)");
}
