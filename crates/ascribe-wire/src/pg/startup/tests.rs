use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<First>, StartupError> {
    let mut bytes = BytesMut::from(bytes);
    first(&mut bytes)
}

fn startup(parameters: &[u8]) -> Vec<u8> {
    let length = u32::try_from(parameters.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat()
}

fn all() -> Vec<(Bytes, First)> {
    let pairs = [
        ("user", "dba@db1"),
        ("database", "orders"),
        ("application_name", "\u{e9}"),
    ];
    let bytes = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let parameters = pairs
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
    let cancel = |length| {
        let key = Secret::new(&vec![5; length]);
        First::Cancel(Cancel { process: 9, key })
    };
    vec![
        (ssl_request(), First::SslRequest),
        (
            Bytes::from_static(b"\0\0\0\x08\x04\xd2\x16\x30"),
            First::GssEncRequest,
        ),
        (cancel_request(9, &[5; 4]), cancel(4)),
        (cancel_request(9, &[5; 256]), cancel(256)),
        (
            startup_message(2, bytes),
            First::Startup(Startup {
                minor: 2,
                parameters,
            }),
        ),
    ]
}

#[test]
fn what_a_connection_begins_with() {
    for (bytes, expected) in all() {
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{expected:?} up to {end}");
        }
        // What comes behind it stays.
        let mut more = BytesMut::from(&[&bytes[..], b"more"].concat()[..]);
        assert_eq!(first(&mut more), Ok(Some(expected)));
        assert_eq!(&more[..], b"more");
    }
    let mut tls = BytesMut::from(&b"\x16\x03\x01"[..]);
    assert_eq!(first(&mut tls), Ok(Some(First::DirectTls)));
    assert_eq!(tls.len(), 3);
}

#[test]
fn a_server_agrees_to_an_older_version_and_nothing_else() {
    for (asked, version, options, agreed) in [
        (2, 0x3_0000, 0, true),
        (3, 0x3_0002, 0, true),
        (2, 0x3_0001, 0, false),
        (2, 0x3_0002, 0, false),
        (2, 0x3_0003, 0, false),
        (0, 0x3_0000, 0, false),
        (2, 0x2_0000, 0, false),
        (2, 0x4_0000, 0, false),
        (2, 0x3_0000, 1, false),
    ] {
        let options = vec![Bytes::from_static(b"_pq_.x"); options];
        assert_eq!(
            is_agreed(asked, version, &options),
            agreed,
            "{asked} {version:x}"
        );
    }
}

#[test]
fn what_cannot_be() {
    for length in [0, 7, 10_005, 0x4745_5420, u32::MAX] {
        assert_eq!(
            read(&length.to_be_bytes()),
            Err(StartupError::Length(length))
        );
    }
    let malformed = |bytes: &[u8]| match read(bytes) {
        Err(StartupError::Malformed(why) | StartupError::Cancel(why)) => why,
        other => panic!("{bytes:?}: {other:?}"),
    };
    for (parameters, why) in [
        (&b""[..], "a string without its end"),
        (b"user\0a", "a string without its end"),
        (b"user\0a\0", "a string without its end"),
        (b"user\0a\0\0x", "bytes are left over"),
        (b"user\0a\0user\0b\0\0", "a parameter is given twice"),
    ] {
        assert_eq!(malformed(&startup(parameters)), why);
    }
    for key in [0, 3, 257] {
        assert_eq!(
            malformed(&cancel_request(1, &vec![0; key])),
            "a cancel key has 4 to 256 bytes"
        );
    }
    assert_eq!(
        malformed(b"\0\0\0\x0a\x04\xd2\x16\x2e\0\0"),
        "it ends too early"
    );
    assert_eq!(
        malformed(b"\0\0\0\x0a\x04\xd2\x16\x2f\0\0"),
        "bytes are left over"
    );
    assert_eq!(
        read(b"\0\0\0\x08\0\x02\0\0"),
        Err(StartupError::Version(2, 0))
    );
    let longest = vec![b'x'; 10_000 - 4 - 3];
    let longest = startup(&[&longest[..], b"\0\0\0"].concat());
    assert!(matches!(read(&longest), Ok(Some(First::Startup(_)))));
}

#[test]
fn parameters_and_versions() {
    let parsed = |minor: u16, parameters: &[u8]| {
        let mut bytes = startup(parameters);
        bytes[6..8].copy_from_slice(&minor.to_be_bytes());
        match read(&bytes) {
            Ok(Some(First::Startup(startup))) => startup,
            other => panic!("{other:?}"),
        }
    };
    let begun = parsed(0, b"user\0a@b\0database\0\0options\0-c x=1\0\0");
    assert_eq!(begun.user().unwrap(), "a@b");
    assert_eq!(
        (begun.database(), begun.get("options").unwrap()),
        (None, &"-c x=1".into())
    );
    assert!(!begun.is_replication() && begun.negotiate(NEWEST).is_none());
    assert_eq!(parsed(0, b"\0").user(), None);
    for (value, replicates) in [
        ("true", true),
        ("database", true),
        ("", true),
        ("OFF", false),
        ("0", false),
    ] {
        let body = format!("replication\0{value}\0\0");
        assert_eq!(
            parsed(0, body.as_bytes()).is_replication(),
            replicates,
            "{value}"
        );
    }
    for (minor, newest, spoken, answered) in [
        (0, 2, 0, false),
        (1, 2, 0, true),
        (2, 2, 2, false),
        (9999, 2, 2, true),
        (2, 0, 0, true),
    ] {
        let begun = parsed(minor, b"\0");
        assert_eq!(
            (begun.spoken(newest), begun.negotiate(newest).is_some()),
            (spoken, answered)
        );
    }
    let options = parsed(0, b"_pq_.a\x001\0user\0x\0\0")
        .negotiate(NEWEST)
        .unwrap();
    assert_eq!(&options[5..], b"\0\x03\0\0\0\0\0\x01_pq_.a\0");
}

#[test]
fn user_names() {
    let user = user_name(b"app_owner@orders-db").unwrap();
    assert_eq!(
        (user.role.as_str(), user.target.as_str(), user.grant),
        ("app_owner", "orders-db", None)
    );
    let grant = GrantId::new([3; 16]);
    let user = user_name(format!("dba+{grant}@db1").as_bytes()).unwrap();
    assert_eq!((user.role.as_str(), user.grant), ("dba", Some(grant)));
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
    for (name, error) in [
        ("dba".to_owned(), UserNameError::Form),
        (String::new(), UserNameError::Form),
        ("@db1".to_owned(), UserNameError::Form),
        ("dba@".to_owned(), UserNameError::Form),
        ("dba:hunter2@db1".to_owned(), UserNameError::Secret),
        ("dba@db1:x".to_owned(), UserNameError::Secret),
        ("dba@secret@db1".to_owned(), UserNameError::Secret),
        (jwt.to_owned(), UserNameError::Secret),
        (format!("{jwt}@db1"), UserNameError::Secret),
        (format!("dba+{jwt}@db1"), UserNameError::Secret),
        (format!("{}@db1", "a1".repeat(20)), UserNameError::Secret),
        ("dba+x@db1".to_owned(), UserNameError::Grant),
        (format!("{}@db1", "a-".repeat(32)), UserNameError::Character),
        ("d ba@db1".to_owned(), UserNameError::Character),
    ] {
        assert_eq!(user_name(name.as_bytes()), Err(error), "{name}");
        assert!(name.len() < 8 || !error.to_string().contains(&name));
    }
    assert_eq!(user_name(b"dba\xff@db1"), Err(UserNameError::Character));
    // Names that are like secrets, but for what makes them so.
    for good in [
        "keyJob@db1",
        "v-token-readonly-x6q809467q98yp4yx4z4-1525378026@db1",
    ] {
        assert!(user_name(good.as_bytes()).is_ok(), "{good}");
    }
}

proptest! {
    #[test]
    fn foreign_bytes_are_taken_whole_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let all = startup(&bytes);
        let mut rest = BytesMut::from(&all[..]);
        if let Ok(Some(First::Startup(begun))) = first(&mut rest) {
            let parameters = begun.parameters.iter().map(|(name, value)| (&name[..], &value[..]));
            prop_assert_eq!(&startup_message(begun.minor, parameters)[..], &all[..]);
            prop_assert!(rest.is_empty());
        }
    }
}
