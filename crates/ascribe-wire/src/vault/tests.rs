use proptest::prelude::*;
use serde_json::json;

use super::*;

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn a_secret_is_the_named_field_of_its_version() {
    // As OpenBao 2.7 answers, with what its encoder escapes.
    let second = br#"{"request_id":"54fa","lease_id":"","renewable":false,"lease_duration":0,
        "data":{"data":{"password":"a\"\u003cb\\ \u00e9","port":5432},"metadata":{"version":1,"destroyed":false}},"auth":null}"#;
    let found = kv2(second, "password").unwrap();
    assert_eq!(found.expose(), "a\"<b\\ é".as_bytes());
    let first = bytes(&json!({"data": {"password": "p", "data": "d"}}));
    assert_eq!(kv1(&first, "password").unwrap().expose(), b"p");
    // Not one for the other.
    assert_eq!(
        kv2(&first, "password").unwrap_err(),
        VaultError::Lacks("data.data")
    );
    let no_field = |field: &str| VaultError::NoField(field.to_owned());
    assert_eq!(kv1(second, "password").unwrap_err(), no_field("password"));
    // Numbers, nothing, what is empty or cannot be said.
    assert_eq!(kv2(second, "port").unwrap_err(), no_field("port"));
    for bad in ["", "a\0b", &"x".repeat(MAX_PASSWORD + 1)] {
        let answer = bytes(&json!({"data": {"password": bad}}));
        assert_eq!(kv1(&answer, "password").unwrap_err(), no_field("password"));
    }
    // A secret that was deleted has no data, as the API says with 404, or null.
    let deleted = bytes(&json!({"data": {"data": null, "metadata": {}}}));
    assert_eq!(
        kv2(&deleted, "password").unwrap_err(),
        VaultError::Lacks("data.data")
    );
}

#[test]
fn a_lent_role_has_a_name_a_password_and_a_lease() {
    let whole = json!({
        "lease_id": "database/creds/dba/u7Fq", "lease_duration": 3600, "renewable": true,
        "data": {"username": "v-approle-dba-x", "password": "p"},
    });
    let issued = dynamic(&bytes(&whole)).unwrap();
    assert_eq!(issued.user, "v-approle-dba-x");
    assert_eq!(issued.password.expose(), b"p");
    let lease = Lease {
        id: "database/creds/dba/u7Fq".to_owned(),
        seconds: 3600,
        renewable: true,
    };
    assert_eq!(issued.lease, Some(lease));
    let long = "u".repeat(64);
    for (path, bad) in [
        ("/lease_id", json!("")),
        ("/lease_id", json!("a b")),
        ("/lease_duration", json!(-1)),
        ("/lease_duration", json!("3600")),
        ("/data", json!(null)),
        ("/data/username", json!("")),
        ("/data/username", json!("a\nb")),
        ("/data/username", json!(long)),
        ("/data/password", json!(7)),
    ] {
        let mut changed = whole.clone();
        *changed.pointer_mut(path).unwrap() = bad;
        assert!(dynamic(&bytes(&changed)).is_err(), "{path}");
    }
    // One that stays has no lease.
    let stays = json!({"data": {"username": "etl", "password": "p", "ttl": 5}});
    assert_eq!(fixed(&bytes(&stays)).unwrap().lease, None);
    assert_eq!(
        dynamic(&bytes(&stays)).unwrap_err(),
        VaultError::Lacks("lease_id")
    );
}

#[test]
fn a_login_gives_a_token_that_fits_a_header() {
    let auth = |token: &str| {
        let auth = json!({"client_token": token, "lease_duration": u64::MAX, "renewable": true, "token_type": "batch"});
        bytes(&json!({"auth": auth}))
    };
    let given = token(&auth("s.abc")).unwrap();
    assert_eq!(given.secret.expose(), b"s.abc");
    assert!(given.batch && given.renewable && given.seconds == MAX_SECONDS);
    for bad in [
        "",
        "a b",
        "a\r\nX-Other: b",
        "é",
        &"t".repeat(MAX_TOKEN + 1),
    ] {
        assert!(token(&auth(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn errors_are_told_in_one_line_and_without_what_was_sent() {
    let errors =
        json!({"errors": ["1 error occurred:\n\t* permission denied\n\n", 7, "\u{1b}[2J"]});
    assert_eq!(
        told(&bytes(&errors), &[]),
        "1 error occurred: * permission denied ; \\u{1b}[2J"
    );
    let secret = Secret::new(b"s.abc");
    let repeated = bytes(&json!({"errors": ["no such token: s.abcdef"]}));
    let said = told(&repeated, &[&Secret::new(b""), &secret]);
    assert!(!said.contains("s.abc"), "{said}");
    assert_eq!(told(b"<html>", &[]), "");
    let long = bytes(&json!({"errors": ["x".repeat(10_000)]}));
    assert!(told(&long, &[]).len() < 2 * MAX_TOLD);
}

#[test]
fn too_much_is_not_read() {
    let mut answer = bytes(&json!({"data": {"password": "p"}}));
    answer.resize(MAX_ANSWER, b' ');
    assert!(kv1(&answer, "password").is_ok());
    answer.push(b' ');
    assert_eq!(kv1(&answer, "password").unwrap_err(), VaultError::NotJson);
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer_or_an_error(body: Vec<u8>, field: String) {
        drop((kv1(&body, &field), kv2(&body, &field), dynamic(&body), fixed(&body), token(&body)));
        drop((renewed(&body), renewed_token(&body), told(&body, &[&Secret::new(field.as_bytes())])));
    }

    #[test]
    fn what_is_told_never_holds_a_secret(before: String, secret in "[!-~]{8,40}", after: String) {
        let body = bytes(&json!({"errors": [format!("{before}{secret}{after}")]}));
        let said = told(&body, &[&Secret::new(secret.as_bytes())]);
        prop_assert!(!said.contains(&secret));
    }
}
