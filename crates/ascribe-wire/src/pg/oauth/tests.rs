use super::*;

fn read(data: &[u8]) -> Result<Shown, &'static str> {
    initial(data).map_err(|error| error.why)
}

fn token(data: &[u8]) -> Option<Vec<u8>> {
    match read(data) {
        Ok(Shown::Token(token)) => Some(token.expose().to_vec()),
        _ => None,
    }
}

#[test]
fn what_clients_send_is_read() {
    // libpq's first question, and its token.
    assert_eq!(read(b"n,,\x01auth=\x01\x01"), Ok(Shown::Nothing));
    let sent = b"n,,\x01auth=Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln\x01\x01";
    assert_eq!(token(sent).unwrap(), b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln");
    // The examples of RFC 7628, 4.1, without the identity that it acts as.
    let sent = b"n,,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
    assert_eq!(
        token(sent).unwrap(),
        b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    );
    // Who could bind the channel and thinks that we cannot.
    assert!(token(b"y,,\x01auth=bearer   a.b~c+d/e_f-g\x01\x01").is_some());
    assert!(token(b"n,,\x01auth=BEARER a\x01host=\t\r\n ~\x01\x01").is_some());
}

#[test]
fn whatever_else_they_send_is_refused() {
    for (sent, why) in [
        (&b""[..], "GS2"),
        (b"n", "GS2"),
        (b"n,,", "GS2"),
        (b"n,\x01auth=\x01\x01", "GS2"),
        (b"x,,\x01auth=\x01\x01", "GS2"),
        (b"N,,\x01auth=\x01\x01", "GS2"),
        (b"n,,auth=Bearer a\x01\x01", "GS2"),
        (b"\0n,,\x01auth=\x01\x01", "GS2"),
        (
            b"p=tls-server-end-point,,\x01auth=Bearer a\x01\x01",
            "channel",
        ),
        (b"n,a=admin,\x01auth=Bearer a\x01\x01", "somebody else"),
        (b"y,a=,\x01auth=Bearer a\x01\x01", "somebody else"),
        (b"n,,\x01", "end as it should"),
        (b"n,,\x01auth=Bearer a", "end as it should"),
        (b"n,,\x01auth=Bearer a\x01", "no end"),
        (b"n,,\x01auth=Bearer a\x01\x01\0", "end as it should"),
        (b"n,,\x01auth=Bearer a\x01\x01\x01", "without `=`"),
        (b"n,,\x01\x01auth=Bearer a\x01\x01", "without `=`"),
        (b"n,,\x01auth\x01\x01", "without `=`"),
        (b"n,,\x01\x01", "no `auth`"),
        (b"n,,\x01\x01\x01", "without `=`"),
        (b"n,,\x01Auth=Bearer a\x01\x01", "no `auth`"),
        (b"n,,\x01host=a\x01\x01", "no `auth`"),
        (b"n,,\x01=Bearer a\x01\x01", "letters"),
        (b"n,,\x01au th=Bearer a\x01\x01", "letters"),
        (
            b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
            "two tokens",
        ),
        (b"n,,\x01auth=\x01auth=Bearer b\x01\x01", "two tokens"),
        (b"n,,\x01host=\xff\x01auth=Bearer a\x01\x01", "not allowed"),
        (b"n,,\x01auth=Bearer a\0b\x01\x01", "not allowed"),
        (b"n,,\x01auth=Basic YTpi\x01\x01", "another scheme"),
        (b"n,,\x01auth=Bear\x01\x01", "another scheme"),
        (b"n,,\x01auth=Bearera\x01\x01", "another scheme"),
        (b"n,,\x01auth= Bearer a\x01\x01", "another scheme"),
        (b"n,,\x01auth=Bearer\x01\x01", "is none"),
        (b"n,,\x01auth=Bearer   \x01\x01", "is none"),
        (b"n,,\x01auth=Bearer ==\x01\x01", "is none"),
        (b"n,,\x01auth=Bearer a=b\x01\x01", "is none"),
        (b"n,,\x01auth=Bearer a b\x01\x01", "is none"),
        (b"n,,\x01auth=Bearer a \x01\x01", "is none"),
        (b"n,,\x01auth=Bearer a\n\x01\x01", "is none"),
        (b"n,,\x01auth=Bearer a,b\x01\x01", "is none"),
    ] {
        let refused = read(sent).unwrap_err();
        assert!(refused.contains(why), "{}: {refused}", sent.escape_ascii());
    }
}

#[test]
fn every_beginning_of_a_message_is_refused() {
    let whole = b"n,,\x01host=db\x01auth=Bearer abc.def==\x01\x01";
    assert!(read(whole).is_ok());
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_token_is_never_shown() {
    let shown = initial(b"n,,\x01auth=Bearer hunter2\x01\x01");
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
    let malformed = initial(b"n,,\x01auth=Bearer hunter2 \x01\x01").unwrap_err();
    assert!(!format!("{malformed:?} {malformed}").contains("hunter2"));
}

#[test]
fn a_failure_says_where_tokens_come_from() {
    let url = "https://issuer.example/.well-known/openid-configuration";
    let told = failure(Some(url), Some("openid db"));
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(
        told,
        serde_json::json!({"status": "invalid_token", "openid-configuration": url, "scope": "openid db"})
    );
    assert_eq!(failure(None, None), br#"{"status":"invalid_token"}"#);
    assert_eq!(after_failure(b"\x01"), Ok(()));
    for other in [&b""[..], b"\x01\x01", b"n,,\x01auth=Bearer a\x01\x01"] {
        assert!(after_failure(other).is_err());
    }
}
