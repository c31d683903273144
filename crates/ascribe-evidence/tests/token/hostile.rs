//! Tokens that nobody may take: what is spoiled in a good login, and the code of the refusal. Apart from the
//! spoiled part each of them is good, and signed where the attacker can sign.

use ascribe_core::encoding::base64url;
use ascribe_core::identity::ProviderKind::{
    self, Circleci, Entra, Github, Gitlab, Kubernetes, Oidc, Spiffe, Workload,
};
use ascribe_core::statement::SshKey;
use ascribe_evidence::key_thumbprints;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::issuer::{ISSUER, Login, NOW, ORDER, RZ, STRANGER, commitment};

/// What is spoiled, in whose token, how, and the code of the refusal.
pub(super) type Case = (&'static str, ProviderKind, fn(&mut Login), &'static str);

pub(super) fn refused(cases: &[Case]) {
    for (name, kind, spoil, code) in cases {
        let mut login = Login::of(*kind);
        assert!(login.check().is_ok(), "{name}: {:?}", login.check());
        spoil(&mut login);
        match login.check() {
            Ok(claims) => panic!("{name}: {claims:?}"),
            Err(denied) => assert_eq!(denied.code, *code, "{name}: {denied}"),
        }
    }
}

/// Every code that a case here ends with.
pub(super) fn codes() -> Vec<&'static str> {
    [
        ALGORITHM, HEADER, FORM, JSON, KEYS, SIGNATURE, PARTIES, BINDING, TIMES, SUBJECT, PROVIDERS,
    ]
    .concat()
    .iter()
    .map(|case| case.3)
    .collect()
}

fn unsigned(login: &mut Login, alg: &str) {
    login.header["alg"] = json!(alg);
    login.provider.algorithms.push(alg.into());
    login.signature = Some(b"x".to_vec());
}

/// With the provider's public key as the secret that everybody knows.
fn hmac_with_public_key(login: &mut Login, secret: &[u8]) {
    login.header["alg"] = json!("HS256");
    login.provider.algorithms.push("HS256".into());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    login.signature = Some(
        hmac::sign(&key, login.message().as_bytes())
            .as_ref()
            .to_vec(),
    );
}

#[rustfmt::skip] // One case a line.
const ALGORITHM: &[Case] = &[
    ("alg none", Oidc, |l| unsigned(l, "none"), "token-alg"),
    ("alg None", Oidc, |l| unsigned(l, "None"), "token-alg"),
    ("alg NONE", Oidc, |l| unsigned(l, "NONE"), "token-alg"),
    ("alg empty", Oidc, |l| unsigned(l, ""), "token-alg"),
    ("alg none without a signature", Oidc, |l| {
        unsigned(l, "none");
        l.last = |t| t.rsplit_once('.').unwrap().0.to_owned() + ".";
    }, "token-form"),
    ("alg missing", Oidc, |l| drop(l.header.as_object_mut().unwrap().remove("alg")), "token-alg"),
    ("alg is a list", Oidc, |l| l.header["alg"] = json!(["RS256"]), "token-alg"),
    ("alg in lower case", Oidc, |l| unsigned(l, "rs256"), "token-alg"),
    ("HS256 with the RSA key as the secret", Oidc, |l| {
        let secret = ISSUER.rsa_numbers().0;
        hmac_with_public_key(l, &secret);
    }, "token-alg"),
    ("HS256 with the JWK as the secret", Oidc, |l| {
        let secret = ISSUER.jwk("RS256").to_string();
        hmac_with_public_key(l, secret.as_bytes());
    }, "token-alg"),
    ("an algorithm that the provider's entry lacks", Oidc, |l| {
        l.signed_with("ES256");
        l.provider.algorithms = vec!["RS256".into()];
    }, "token-alg"),
    ("RS256 in the header over a PSS signature", Oidc, |l| l.how = "PS256", "token-signature"),
];

#[rustfmt::skip] // One case a line.
const HEADER: &[Case] = &[
    ("jwk: the attacker's key comes along", Oidc, |l| {
        l.header["jwk"] = STRANGER.jwk("RS256");
        l.signer = &STRANGER;
    }, "token-header-key"),
    ("jku: the attacker's set", Oidc, |l| {
        l.header["jku"] = json!("https://id.example.attacker.example/keys");
        l.signer = &STRANGER;
    }, "token-header-key"),
    ("x5u", Oidc, |l| l.header["x5u"] = json!("https://id.example/cert"), "token-header-key"),
    ("x5c", Oidc, |l| l.header["x5c"] = json!(["MIIB"]), "token-header-key"),
    ("crit", Oidc, |l| l.header["crit"] = json!(["exp"]), "token-crit"),
    ("b64: an unencoded payload", Oidc, |l| l.header["b64"] = json!(false), "token-crit"),
    ("zip", Oidc, |l| l.header["zip"] = json!("DEF"), "token-zip"),
    ("typ at+jwt", Oidc, |l| l.header["typ"] = json!("at+jwt"), "token-typ"),
    ("typ of a logout token", Oidc, |l| l.header["typ"] = json!("logout+jwt"), "token-typ"),
    ("typ is a number", Oidc, |l| l.header["typ"] = json!(1), "token-typ"),
    ("typ JOSE, of a person", Oidc, |l| l.header["typ"] = json!("JOSE"), "token-typ"),
    ("kid is a path", Oidc, |l| l.header["kid"] = json!("../../../../dev/null"), "token-key"),
    ("kid is a query", Oidc, |l| l.header["kid"] = json!("key-RS256' OR '1'='1"), "token-key"),
    ("kid with NUL", Oidc, |l| l.header["kid"] = json!("key-RS256\0"), "token-kid"),
    ("kid is empty", Oidc, |l| l.header["kid"] = json!(""), "token-kid"),
    ("kid is a number", Oidc, |l| l.header["kid"] = json!(0), "token-kid"),
    ("kid is long", Oidc, |l| l.header["kid"] = json!("k".repeat(257)), "token-kid"),
];

#[rustfmt::skip] // One case a line.
const FORM: &[Case] = &[
    ("empty", Oidc, |l| l.last = |_| String::new(), "token-form"),
    ("two parts", Oidc, |l| l.last = |t| t.rsplit_once('.').unwrap().0.to_owned(), "token-form"),
    ("four parts", Oidc, |l| l.last = |t| t + ".e30", "token-form"),
    ("five parts, as encrypted tokens have", Oidc, |l| l.last = |t| t + ".e30.e30", "token-form"),
    ("a line end after it", Oidc, |l| l.last = |t| t + "\n", "token-form"),
    ("a space before it", Oidc, |l| l.last = |t| format!(" {t}"), "token-form"),
    ("padding", Oidc, |l| l.last = |t| t + "==", "token-form"),
    ("the other alphabet", Oidc, |l| l.last = |t| t.replacen('.', "+/.", 1), "token-form"),
    ("set bits after the last byte", Oidc, |l| l.last = other_tail, "token-form"),
    ("JSON serialization", Oidc, |l| {
        l.last = |t| {
            let parts: Vec<&str> = t.split('.').collect();
            json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]})
                .to_string()
        }
    }, "token-form"),
    ("a list of tokens", Oidc, |l| l.last = |t| format!("{t} {t}"), "token-form"),
    ("65,537 bytes", Oidc, |l| l.last = |t| t + &"A".repeat(65_537), "token-size"),
    ("claims of 64 KiB", Oidc, |l| l.claim("x", json!("x".repeat(65_536))), "token-size"),
];

/// The signature's last letter with a bit set that means nothing: another spelling of the same bytes.
fn other_tail(mut token: String) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = token.pop().unwrap();
    let last = ALPHABET
        .iter()
        .position(|b| char::from(*b) == last)
        .unwrap();
    // 256 bytes end in a letter of which four bits count for nothing.
    assert_eq!(last % 16, 0);
    token.push(char::from(ALPHABET[last + 1]));
    token
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({ "x": inner }))
}

#[rustfmt::skip] // One case a line.
const JSON: &[Case] = &[
    ("no JSON", Oidc, |l| l.claims_text = Some("sub".into()), "token-json"),
    ("a list", Oidc, |l| l.claims_text = Some(json!([l.claims]).to_string()), "token-json"),
    ("a byte order mark", Oidc, |l| l.claims_text = Some(format!("\u{feff}{}", l.claims)), "token-json"),
    ("something after it", Oidc, |l| l.claims_text = Some(format!("{}{{}}", l.claims)), "token-json"),
    ("a comma at the end", Oidc, |l| l.claims_text = Some(l.claims.to_string().replace('}', ",}")), "token-json"),
    ("half a surrogate pair", Oidc, |l| l.claims_text = Some(l.claims.to_string().replace("248289", "\\ud800")), "token-json"),
    ("NaN", Oidc, |l| l.claims_text = Some(l.claims.to_string().replace("1795003600", "NaN")), "token-json"),
    ("a number that is too large", Oidc, |l| l.claims_text = Some(l.claims.to_string().replace("1795003600", "1e999")), "token-json"),
    ("the header is no object", Oidc, |l| l.header_text = Some("\"RS256\"".into()), "token-json"),
    ("two subjects", Oidc, |l| l.claims_text = Some(l.claims.to_string().replacen('{', "{\"sub\":\"1\",", 1)), "token-duplicate"),
    ("two subjects, one with an escape", Oidc, |l| {
        l.claims_text = Some(
            l.claims
                .to_string()
                .replacen('{', "{\"s\\u0075b\":\"1\",", 1),
        );
    }, "token-duplicate"),
    ("two algorithms", Oidc, |l| l.header_text = Some(l.header.to_string().replacen('{', "{\"alg\":\"none\",", 1)), "token-duplicate"),
    ("two namespaces within an object", Kubernetes, |l| {
        l.claims_text = Some(l.claims.to_string().replacen(
            "{\"namespace\"",
            "{\"namespace\":\"x\",\"namespace\"",
            1,
        ));
    }, "token-duplicate"),
    ("257 claims", Oidc, |l| (0..257).for_each(|i| l.claim(&format!("x{i}"), json!(i))), "token-claims"),
    ("257 claims within an object", Oidc, |l| {
        l.claim(
            "x",
            (0..257)
                .map(|i| (format!("x{i}"), json!(i)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
    }, "token-claims"),
    ("nine levels", Oidc, |l| l.claim("x", nested(8)), "token-depth"),
    ("ten thousand levels", Oidc, |l| l.claims_text = Some(format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))), "token-depth"),
];

/// A key of the set is spoiled.
fn key(login: &mut Login, name: &str, value: Value) {
    login.jwk()[name] = value;
}

/// RSA with an exponent of 1: the padded message is its own signature.
fn exponent_one(login: &mut Login) {
    key(login, "e", json!(base64url(&[1])));
    // EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 9.2).
    let info = [
        0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20,
    ];
    let hash = digest(&SHA256, login.message().as_bytes());
    let padding = vec![0xff; 256 - 3 - info.len() - 32];
    login.signature = Some([&[0, 1][..], &padding, &[0], &info, hash.as_ref()].concat());
}

/// A public key of low order, and the one signature that is good under it for every message if nobody looks.
fn low_order(login: &mut Login, point: [u8; 32]) {
    login.signed_with("EdDSA");
    login.keys["keys"][3]["x"] = json!(base64url(&point));
    login.signature = Some([point, [0; 32]].concat());
}

fn off_the_curve(login: &mut Login) {
    login.signed_with("ES256");
    login.keys["keys"][1]["y"] = login.keys["keys"][1]["x"].clone();
}

#[rustfmt::skip] // One case a line.
const KEYS: &[Case] = &[
    ("the key is rotated away", Oidc, |l| l.keys = json!({"keys": [STRANGER.jwk("ES256")]}), "token-key"),
    ("the set is empty", Oidc, |l| l.keys = json!({"keys": []}), "token-key"),
    ("the set is of nobody", Oidc, |l| l.keys = json!({}), "keys-form"),
    ("the set is one key", Oidc, |l| l.keys = ISSUER.jwk("RS256"), "keys-form"),
    ("a key is a text", Oidc, |l| l.keys = json!({"keys": ["key-RS256"]}), "keys-form"),
    ("the set is HTML", Oidc, |l| l.keys_text = Some("<html>".into()), "keys-json"),
    ("the set has two lists", Oidc, |l| l.keys_text = Some(l.keys.to_string().replacen('{', "{\"keys\":[],", 1)), "keys-json"),
    ("65 keys", Oidc, |l| l.keys = json!({"keys": vec![ISSUER.jwk("RS256"); 65]}), "keys-count"),
    ("a set of more than 64 KiB", Oidc, |l| l.keys_text = Some(" ".repeat(65_537)), "keys-size"),
    ("use enc", Oidc, |l| key(l, "use", json!("enc")), "token-key-use"),
    ("use of another world", Oidc, |l| key(l, "use", json!("jwt-svid")), "token-key-use"),
    ("key_ops without verify", Oidc, |l| key(l, "key_ops", json!(["encrypt"])), "token-key-use"),
    ("the key is for another algorithm", Oidc, |l| key(l, "alg", json!("RS512")), "token-key-alg"),
    ("the key's algorithm is a number", Oidc, |l| key(l, "alg", json!(256)), "token-key-form"),
    ("Entra: a key for accounts of another kind", Entra, |l| {
        key(l, "issuer", json!("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"));
    }, "token-key-issuer"),
    ("Entra: a key of every tenant elsewhere", Entra, |l| {
        key(l, "issuer", json!("https://login.microsoftonline.us/{tenantid}/v2.0"));
    }, "token-key-issuer"),
    ("kid names a key of another type", Oidc, |l| l.header["kid"] = json!("key-ES256"), "token-key-type"),
    ("kid names a key of another curve", Oidc, |l| {
        l.signed_with("ES256");
        l.header["kid"] = json!("key-ES384");
    }, "token-key-type"),
    ("a symmetric key", Oidc, |l| l.keys = json!({"keys": [{"kty": "oct", "kid": "key-RS256", "k": "AAAA"}]}), "token-key"),
    ("RSA with 1024 bits", Oidc, |l| {
        let n = &ISSUER.rsa_numbers().0[128..];
        key(l, "n", json!(base64url(&[&[0x80], &n[1..]].concat())));
    }, "token-key-weak"),
    ("RSA with 16384 bits", Oidc, |l| key(l, "n", json!(base64url(&[0xff; 2048]))), "token-key-weak"),
    ("RSA with e = 1", Oidc, exponent_one, "token-key-weak"),
    ("RSA with e = 3", Oidc, |l| key(l, "e", json!("Aw")), "token-key-weak"),
    ("RSA with an even e", Oidc, |l| key(l, "e", json!(base64url(&[1, 0, 2]))), "token-key-weak"),
    ("RSA with a huge e", Oidc, |l| key(l, "e", json!(base64url(&[1; 5]))), "token-key-form"),
    ("RSA with a zero before e", Oidc, |l| key(l, "e", json!("AAEAAQ")), "token-key-form"),
    ("RSA with a zero before n", Oidc, |l| {
        let n = ISSUER.rsa_numbers().0;
        key(l, "n", json!(base64url(&[&[0], &n[..]].concat())));
    }, "token-key-form"),
    ("RSA with padding in n", Oidc, |l| {
        let n = format!("{}==", l.jwk()["n"].as_str().unwrap());
        key(l, "n", json!(n));
    }, "token-key-form"),
    ("a point that is not on the curve", Oidc, off_the_curve, "token-key-weak"),
    ("a short coordinate", Oidc, |l| {
        l.signed_with("ES256");
        l.keys["keys"][1]["x"] = json!("AAAA");
    }, "token-key-form"),
    ("Ed25519: the neutral point", Oidc, |l| {
        let mut point = [0; 32];
        point[0] = 1;
        low_order(l, point);
    }, "token-key-weak"),
    ("Ed25519: the point of order four", Oidc, |l| low_order(l, [0; 32]), "token-key-weak"),
    ("Ed25519: no point", Oidc, |l| {
        let mut point = [0; 32];
        point[0] = 2;
        low_order(l, point);
    }, "token-key-form"),
];

#[rustfmt::skip] // One case a line.
const SIGNATURE: &[Case] = &[
    ("another one's key", Oidc, |l| l.signer = &STRANGER, "token-signature"),
    ("another one's key without kid", Oidc, |l| {
        l.signer = &STRANGER;
        l.header.as_object_mut().unwrap().remove("kid");
    }, "token-signature"),
    ("a changed claim", Oidc, |l| {
        l.signature = Some(ISSUER.sign("RS256", l.message().as_bytes()));
        l.claim("sub", json!("248289761002"));
    }, "token-signature"),
    ("a changed header", Oidc, |l| {
        l.signature = Some(ISSUER.sign("RS256", l.message().as_bytes()));
        l.header.as_object_mut().unwrap().remove("typ");
    }, "token-signature"),
    ("a truncated signature", Oidc, |l| {
        l.signature = Some(ISSUER.sign("RS256", l.message().as_bytes())[..255].to_vec());
    }, "token-signature"),
    ("a signature of zeros", Oidc, |l| l.signature = Some(vec![0; 256]), "token-signature"),
    ("ES256 as TLS writes it", Oidc, |l| {
        l.signed_with("ES256");
        l.how = "DER";
    }, "token-signature"),
    ("ES256 with r = s = 0", Oidc, |l| {
        l.signed_with("ES256");
        l.signature = Some(vec![0; 64]);
    }, "token-signature"),
    ("ES256 with r and s of the curve's order", Oidc, |l| {
        l.signed_with("ES256");
        l.signature = Some([ORDER, ORDER].concat());
    }, "token-signature"),
    ("ES256 of another length", Oidc, |l| {
        l.signed_with("ES256");
        l.signature = Some([&[0], &ISSUER.sign("ES256", l.message().as_bytes())[..]].concat());
    }, "token-signature"),
    ("ES384 with zeros", Oidc, |l| {
        l.signed_with("ES384");
        l.signature = Some(vec![0; 96]);
    }, "token-signature"),
    ("EdDSA with zeros", Oidc, |l| {
        l.signed_with("EdDSA");
        l.signature = Some(vec![0; 64]);
    }, "token-signature"),
];

#[rustfmt::skip] // One case a line.
const PARTIES: &[Case] = &[
    ("issuer with a slash", Oidc, |l| l.claim("iss", json!("https://id.example/")), "token-iss"),
    ("issuer in upper case", Oidc, |l| l.claim("iss", json!("https://ID.example")), "token-iss"),
    ("issuer with userinfo", Oidc, |l| l.claim("iss", json!("https://id.example@attacker.example")), "token-iss"),
    ("issuer that goes on", Oidc, |l| l.claim("iss", json!("https://id.example.attacker.example")), "token-iss"),
    ("issuer that looks alike", Oidc, |l| l.claim("iss", json!("https://id.ex\u{430}mple")), "token-iss"),
    ("issuer without TLS", Oidc, |l| l.claim("iss", json!("http://id.example")), "token-iss"),
    ("issuer in a list", Oidc, |l| l.claim("iss", json!(["https://id.example"])), "token-iss"),
    ("issuer missing", Oidc, |l| l.no_claim("iss"), "token-iss"),
    ("issuer missing, of a trust domain elsewhere", Spiffe, |l| l.no_claim("iss"), "token-iss"),
    ("a token of another provider", Github, |l| l.claims = Login::of(Workload).claims, "token-iss"),
    ("audience of another client", Oidc, |l| l.claim("aud", json!("another")), "token-aud"),
    ("audience that goes on", Oidc, |l| l.claim("aud", json!("ascribe-test")), "token-aud"),
    ("audience cut short", Oidc, |l| l.claim("aud", json!("ascrib")), "token-aud"),
    ("audience in upper case", Oidc, |l| l.claim("aud", json!("ASCRIBE")), "token-aud"),
    ("audience empty", Oidc, |l| l.claim("aud", json!("")), "token-aud"),
    ("audience of nobody", Oidc, |l| l.claim("aud", json!([])), "token-aud"),
    ("audience missing", Oidc, |l| l.no_claim("aud"), "token-claim"),
    ("audience is an object", Oidc, |l| l.claim("aud", json!({"ascribe": 1})), "token-claim"),
    ("audience with a number", Oidc, |l| l.claim("aud", json!(["ascribe", 1])), "token-claim"),
    ("several audiences without azp", Oidc, |l| l.claim("aud", json!(["ascribe", "another"])), "token-azp"),
    ("several audiences, issued to another", Oidc, |l| {
        l.claim("aud", json!(["ascribe", "another"]));
        l.claim("azp", json!("another"));
    }, "token-azp"),
    ("our audience, issued to another", Oidc, |l| l.claim("azp", json!("another")), "token-azp"),
    ("azp is null", Oidc, |l| l.claim("azp", Value::Null), "token-azp"),
    ("a job's audience that goes on", Workload, |l| l.claim("aud", json!("ascribe.example")), "token-aud"),
    ("a job's token for several", Workload, |l| l.claim("aud", json!([format!("ascribe:{}", commitment()), "another"])), "token-aud"),
    ("an access token's permissions", Entra, |l| l.claim("scp", json!("openid")), "token-typ"),
    ("an access token's claim typ", Oidc, |l| l.claim("typ", json!("Bearer")), "token-typ"),
    ("a logout token's events", Oidc, |l| l.claim("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}})), "token-typ"),
];

const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJGDeEb7Xk3oVY3oTmh1fGhH9Wk4QyA0mCpzC7K8m8rv";

#[rustfmt::skip] // One case a line.
const BINDING: &[Case] = &[
    ("nonce for another key", Oidc, |l| l.key = SshKey(OTHER_KEY.into()), "token-nonce"),
    ("nonce is the key", Oidc, |l| l.claim("nonce", json!(l.key.0)), "token-nonce"),
    ("nonce is the random bytes", Oidc, |l| l.claim("nonce", json!(base64url(&RZ))), "token-nonce"),
    ("nonce is empty", Oidc, |l| l.claim("nonce", json!("")), "token-nonce"),
    ("nonce is null", Oidc, |l| l.claim("nonce", Value::Null), "token-nonce"),
    ("nonce in a list", Oidc, |l| l.claim("nonce", json!([commitment()])), "token-nonce"),
    ("a job's audience for another key", Github, |l| l.key = SshKey(OTHER_KEY.into()), "token-commitment"),
    ("a job's audience for no key", Github, |l| l.claim("aud", json!("ascribe:")), "token-commitment"),
    ("a job's audience for a key and more", Github, |l| l.claim("aud", json!(format!("ascribe:{}.", commitment()))), "token-commitment"),
    ("GitLab's audience with a key", Gitlab, |l| l.claim("aud", json!(format!("OPENPUBKEY-PKTOKEN:ascribe:{}", commitment()))), "token-aud"),
];

#[rustfmt::skip] // One case a line.
const TIMES: &[Case] = &[
    ("exp missing", Oidc, |l| l.no_claim("exp"), "token-time"),
    ("iat missing", Oidc, |l| l.no_claim("iat"), "token-time"),
    ("iat and nbf missing", Spiffe, |l| l.no_claim("iat"), "token-time"),
    ("nbf instead of iat, of a job", Github, |l| l.no_claim("iat"), "token-time"),
    ("exp before iat", Oidc, |l| l.claim("exp", json!(NOW - 1)), "token-time"),
    ("exp at iat", Oidc, |l| l.claim("exp", json!(NOW)), "token-time"),
    ("nbf after exp", Oidc, |l| l.claim("nbf", json!(NOW + 3600)), "token-time"),
    ("exp far away", Oidc, |l| l.claim("exp", json!(4_000_000_000_i64)), "token-life"),
    ("exp in milliseconds", Oidc, |l| l.claim("exp", json!((NOW + 3600) * 1000)), "token-time"),
    ("iat before there was ascribe", Oidc, |l| l.claim("iat", json!(0)), "token-time"),
    ("iat in the year 2200", Oidc, |l| l.claim("iat", json!(7_258_118_400_i64)), "token-time"),
    ("exp negative", Oidc, |l| l.claim("exp", json!(-1)), "token-time"),
    ("exp as a text", Oidc, |l| l.claim("exp", json!((NOW + 3600).to_string())), "token-time"),
    ("exp true", Oidc, |l| l.claim("exp", json!(true)), "token-time"),
    ("exp null", Oidc, |l| l.claim("exp", Value::Null), "token-time"),
    ("exp of 2^63", Oidc, |l| l.claim("exp", json!(1_u64 << 63)), "token-time"),
    ("exp of 2^64 and 3600 s", Oidc, |l| l.claims_text = Some(l.claims.to_string().replace("1795003600", "18446744075504555216")), "token-time"),
    ("exp of 1e300", Oidc, |l| l.claim("exp", json!(1e300)), "token-time"),
    ("auth_time negative", Oidc, |l| l.claim("auth_time", json!(-0.5)), "token-time"),
    ("a person's token of 25 hours", Oidc, |l| l.claim("exp", json!(NOW + 25 * 3600)), "token-life"),
    ("a job's token of 13 hours", Github, |l| l.claim("exp", json!(NOW + 13 * 3600)), "token-life"),
    ("a pod's token of two hours", Kubernetes, |l| l.claim("exp", json!(NOW + 2 * 3600)), "token-life"),
    ("a late nbf does not make it shorter", Kubernetes, |l| {
        l.claim("exp", json!(NOW + 3 * 3600));
        l.claim("nbf", json!(NOW + 3 * 3600 - 60));
    }, "token-life"),
];

#[rustfmt::skip] // One case a line.
const SUBJECT: &[Case] = &[
    ("sub missing", Oidc, |l| l.no_claim("sub"), "token-sub"),
    ("sub empty", Oidc, |l| l.claim("sub", json!("")), "token-sub"),
    ("sub a number", Oidc, |l| l.claim("sub", json!(248_289_761_001_i64)), "token-sub"),
    ("sub of 256 bytes", Oidc, |l| l.claim("sub", json!("x".repeat(256))), "token-sub"),
    ("sub of 128 letters in 256 bytes", Oidc, |l| l.claim("sub", json!("\u{e9}".repeat(128))), "token-sub"),
    ("sub with NUL", Oidc, |l| l.claim("sub", json!("248289761001\0")), "token-sub"),
    ("sub with a line end", Oidc, |l| l.claim("sub", json!("248289761001\n")), "token-sub"),
    ("sub with a C1 control", Oidc, |l| l.claim("sub", json!("248289761001\u{85}")), "token-sub"),
    ("Entra without tid", Entra, |l| l.no_claim("tid"), "token-sub"),
    ("Entra without oid", Entra, |l| l.no_claim("oid"), "token-sub"),
    ("Entra with another tid than the issuer's", Entra, |l| {
        l.claim("tid", json!("9188040d-6c67-4c5b-b112-36a304b66dad"));
    }, "token-sub"),
    ("Entra with a short oid", Entra, |l| l.claim("oid", json!("99999999")), "token-sub"),
    ("Entra with a slash in tid", Entra, |l| l.claim("tid", json!("a/b")), "token-sub"),
    ("acr with an escape sequence", Oidc, |l| l.claim("acr", json!("\u{1b}[2J")), "token-claim"),
    ("amr a text", Oidc, |l| l.claim("amr", json!("pwd")), "token-claim"),
    ("amr of numbers", Oidc, |l| l.claim("amr", json!([1])), "token-claim"),
    ("amr of many", Oidc, |l| l.claim("amr", json!(vec!["pwd"; 17])), "token-claim"),
    ("a fact that is a list", Oidc, |l| l.facts = vec!["groups"], "token-fact"),
    ("groups that are an object", Oidc, |l| {
        l.claim("groups", json!({"DBA": true}));
        l.groups = vec![("groups", "DBA")];
    }, "token-groups"),
    ("groups that somebody might have added to", Oidc, |l| {
        l.claim("roles", json!({"db": ["DBA"]}));
        l.claim("roles/db", json!([]));
        l.groups = vec![("roles/db", "DBA")];
    }, "token-groups"),
    ("a manager who is a list", Oidc, |l| {
        l.claim("manager", json!(["boss"]));
        l.managers = vec!["manager"];
    }, "token-manager"),
    ("two managers, of whom somebody might have added one", Oidc, |l| {
        l.claim("org", json!({"manager": "boss"}));
        l.claim("org/manager", json!("mallory"));
        l.managers = vec!["org/manager"];
    }, "token-manager"),
    ("a manager with NUL", Oidc, |l| {
        l.claim("manager", json!("boss\0"));
        l.managers = vec!["manager"];
    }, "token-manager"),
    ("a fact that is an object", Kubernetes, |l| l.facts = vec!["kubernetes.io/pod"], "token-fact"),
    ("a fact that is a fraction", Oidc, |l| {
        l.claim("x", json!(1.5));
        l.facts = vec!["x"];
    }, "token-fact"),
    ("a fact that is long", Oidc, |l| {
        l.claim("x", json!("x".repeat(1025)));
        l.facts = vec!["x"];
    }, "token-fact"),
    ("a fact of two claims", Kubernetes, |l| {
        l.claim("kubernetes.io/namespace", json!("default"));
        l.facts = vec!["kubernetes.io/namespace"];
    }, "token-fact"),
];

#[rustfmt::skip] // One case a line.
const PROVIDERS: &[Case] = &[
    ("GitHub without a run", Github, |l| l.no_claim("run_id"), "token-claim"),
    ("GitHub without an attempt", Github, |l| l.no_claim("run_attempt"), "token-claim"),
    ("GitHub without a repository", Github, |l| l.claim("repository_id", json!("")), "token-claim"),
    ("GitHub with a list for a commit", Github, |l| l.claim("sha", json!([])), "token-claim"),
    ("GitHub: a pull request, perhaps from a fork", Github, |l| l.claim("event_name", json!("pull_request_target")), "token-fork"),
    ("GitLab: a merge request from a fork", Gitlab, |l| l.claim("project_id", json!("21")), "token-fork"),
    ("GitLab without a job", Gitlab, |l| l.no_claim("job_id"), "token-claim"),
    ("CircleCI: a person has a shell in the job", Circleci, |l| l.claim("oidc.circleci.com/ssh-rerun", json!(true)), "token-ssh"),
    ("CircleCI: perhaps they have", Circleci, |l| l.claim("oidc.circleci.com/ssh-rerun", json!("false")), "token-ssh"),
    ("Kubernetes: the API server's audience", Kubernetes, |l| {
        l.claim(
            "aud",
            json!(["https://kubernetes.default.svc.cluster.local"]),
        );
    }, "token-cluster"),
    ("Kubernetes: ours and the API server's", Kubernetes, |l| {
        l.claim(
            "aud",
            json!([
                format!("ascribe:{}", commitment()),
                "https://kubernetes.default.svc"
            ]),
        );
    }, "token-cluster"),
    ("Kubernetes: the cluster's issuer is its audience", Kubernetes, |l| {
        l.claim(
            "aud",
            json!([
                format!("ascribe:{}", commitment()),
                "https://kubernetes.example"
            ]),
        );
    }, "token-cluster"),
    ("Kubernetes: a token whose life was extended", Kubernetes, |l| l.claims["kubernetes.io"]["warnafter"] = json!(NOW + 3607), "token-life"),
    ("Kubernetes: a pod without uid", Kubernetes, |l| drop(l.claims["kubernetes.io"]["pod"].as_object_mut().unwrap().remove("uid")), "token-claim"),
    ("SPIFFE: another scheme", Spiffe, |l| l.claim("sub", json!("https://example.org/ns/deploy")), "token-sub"),
    ("SPIFFE: upper case in the trust domain", Spiffe, |l| l.claim("sub", json!("spiffe://Example.org/a")), "token-sub"),
    ("SPIFFE: a port", Spiffe, |l| l.claim("sub", json!("spiffe://example.org:443/a")), "token-sub"),
    ("SPIFFE: userinfo", Spiffe, |l| l.claim("sub", json!("spiffe://x@example.org/a")), "token-sub"),
    ("SPIFFE: dots in the path", Spiffe, |l| l.claim("sub", json!("spiffe://example.org/a/../b")), "token-sub"),
    ("SPIFFE: an empty segment", Spiffe, |l| l.claim("sub", json!("spiffe://example.org/a//b")), "token-sub"),
    ("SPIFFE: a percent sign", Spiffe, |l| l.claim("sub", json!("spiffe://example.org/a%2fb")), "token-sub"),
    ("SPIFFE: a query", Spiffe, |l| l.claim("sub", json!("spiffe://example.org/a?b")), "token-sub"),
    ("SPIFFE: the trust domain alone", Spiffe, |l| l.claim("sub", json!("spiffe://example.org")), "token-sub"),
    ("SPIFFE: no trust domain", Spiffe, |l| l.claim("sub", json!("spiffe:///a")), "token-sub"),
];

#[test]
fn no_token_chooses_an_algorithm_that_nobody_allowed() {
    refused(ALGORITHM);
}

#[test]
fn no_header_says_where_the_key_is_or_what_the_token_is_for() {
    refused(HEADER);
}

#[test]
fn a_token_has_one_spelling() {
    refused(FORM);
}

#[test]
fn claims_are_one_small_object_with_each_name_once() {
    refused(JSON);
}

#[test]
fn keys_that_are_weak_malformed_or_for_something_else_sign_nothing() {
    refused(KEYS);
}

#[test]
fn only_the_providers_key_over_these_very_bytes_counts() {
    refused(SIGNATURE);
}

#[test]
fn a_token_counts_from_its_issuer_for_its_audience_alone() {
    refused(PARTIES);
}

#[test]
fn a_token_for_another_key_is_refused() {
    refused(BINDING);
}

#[test]
fn times_that_make_no_sense_are_refused() {
    refused(TIMES);
}

#[test]
fn subjects_and_facts_have_one_plain_form() {
    refused(SUBJECT);
}

#[test]
fn each_provider_has_refusals_of_its_own() {
    refused(PROVIDERS);
}

/// Every byte of a token counts: no change of one leaves it good.
#[test]
fn a_token_with_a_changed_byte_is_refused() {
    let token = Login::of(Oidc).token();
    for at in 0..token.len() {
        for with in ["A", "B", "_", ".", "=", " "] {
            let mut changed = token.clone();
            changed.replace_range(at..=at, with);
            if changed == token {
                continue;
            }
            let judged = super::issuer::judge(&Login::of(Oidc), changed.as_bytes());
            assert!(judged.is_err(), "byte {at} as {with:?}");
        }
    }
}

/// A key that cannot sign tokens is not among those that a provider publishes.
#[test]
fn keys_that_sign_nothing_have_no_thumbprint_listed() {
    let mut login = Login::of(Oidc);
    low_order(&mut login, [0; 32]);
    key(&mut login, "use", json!("enc"));
    let listed = key_thumbprints(login.keys_text().as_bytes()).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(key_thumbprints(b"{\"keys\":[]}").unwrap(), []);
    assert_eq!(key_thumbprints(b"[]").unwrap_err().code, "keys-json");
}

/// Why Ed25519 is not checked with the library that checks the rest: one signature for every message.
#[test]
fn aws_lc_takes_an_ed25519_key_of_low_order() {
    let mut point = [0; 32];
    point[0] = 1;
    let key = UnparsedPublicKey::new(&ED25519, point);
    let signature = [point, [0; 32]].concat();
    assert!(key.verify(b"one", &signature).is_ok());
    assert!(key.verify(b"another", &signature).is_ok());
}
