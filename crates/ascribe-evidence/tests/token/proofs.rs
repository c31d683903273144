//! Proofs that stand in for tokens: OpenPubkey's and ours, and those that nobody may take.
//!
//! `openpubkey/theirs.json` was written by `openpubkey/main.go` with OpenPubkey's code of July 2026 (commit 7020763):
//! keys, tokens and OpenPubkey's proofs of them, for the session key of these tests. `openpubkey/ours.json` was written
//! by the ignored test here for the same tokens, and OpenPubkey's verifier found each proof in it good.

use ascribe_core::encoding::{base64url, from_base64url};
use ascribe_core::identity::ProviderKind::{Github, Gitlab, Kubernetes, Oidc, Workload};
use ascribe_core::identity::{Binding, key_commitment, token_digest};
use ascribe_core::statement::SshKey;
use serde_json::{Value, json};

use super::hostile::{Case, refused};
use super::issuer::{ISSUER, Login, RZ, STRANGER, judge};

const THEIRS: &str = include_str!("openpubkey/theirs.json");
const OURS: &str = include_str!("openpubkey/ours.json");
const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0vWfpVvDHbyHJG4kqQJrg6QPgqyXKYwa0y6sJm9cQe";
/// Bytes of all challenges.
const CHALLENGES: usize = 32;

/// Keys, tokens and proofs of them.
fn vectors(text: &str) -> Vec<Value> {
    let vectors: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(vectors.len(), 3);
    vectors
}

/// A login with this token, of the provider with this key.
fn with(vector: &Value) -> Login {
    let mut login = Login::of(Gitlab);
    let (n, e) = (&vector["n"], &vector["e"]);
    login.keys = json!({"keys": [{"kty": "RSA", "kid": "key", "alg": "RS256", "n": n, "e": e}]});
    let token = vector["token"].as_str().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let text = |part: &str| String::from_utf8(from_base64url(part).unwrap()).unwrap();
    login.header_text = Some(text(parts[0]));
    login.claims_text = Some(text(parts[1]));
    login.signature = Some(from_base64url(parts[2]).unwrap());
    login
}

#[test]
fn openpubkeys_proofs_are_good_here() {
    for vector in vectors(THEIRS) {
        let mut login = with(&vector);
        login.shown = Some(vector["proof"].as_str().unwrap().to_owned());
        let claims = login.check().unwrap();
        assert_eq!(claims.binding, Binding::Proof, "{}", vector["bits"]);
        assert_eq!(claims.run.unwrap().id, "574");
        // For another key they are not.
        login.key = SshKey(OTHER_KEY.into());
        assert_eq!(login.check().unwrap_err().code, "token-commitment");
    }
}

/// What OpenPubkey's verifier found good is still what is written here, but for randomness.
#[test]
fn proofs_have_the_form_that_openpubkey_takes() {
    for (theirs, ours) in vectors(THEIRS).iter().zip(vectors(OURS)) {
        let mut login = with(theirs);
        let made = login.proof().unwrap();
        let recorded = ours["proof"].as_str().unwrap();
        let signed = |proof: &str| proof.rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(signed(&made), signed(recorded));
        assert_eq!(signed(&made), signed(theirs["proof"].as_str().unwrap()));
        assert_eq!(made.len(), recorded.len());
        assert_ne!(made, recorded);
        for proof in [&made, recorded] {
            login.shown = Some(proof.to_owned());
            login.check().unwrap();
        }
    }
}

/// `cargo test -p ascribe-evidence --test token write_ours -- --ignored --nocapture > ours.json`, from the first `[`
/// on; then `go run . check < ours.json`.
#[test]
#[ignore = "writes vectors for OpenPubkey's verifier"]
fn write_ours() {
    let mut vectors = vectors(THEIRS);
    for vector in &mut vectors {
        vector["proof"] = json!(with(vector).proof().unwrap());
    }
    println!("{}", serde_json::to_string_pretty(&vectors).unwrap());
}

#[test]
fn other_providers_take_proofs_where_their_audience_says_so() {
    for kind in [Kubernetes, Workload, Github] {
        let login = Login::by_proof(kind);
        assert_eq!(login.check().unwrap().binding, Binding::Proof, "{kind:?}");
        let denied = judge(&login, login.raw().as_bytes()).unwrap_err();
        assert_eq!(denied.code, "token-raw", "{kind:?}");
    }
}

/// However many proofs are made of a token, and for whichever keys: it is the same token, and itself.
#[test]
fn all_proofs_of_a_token_count_as_that_token() {
    let mut login = Login::of(Gitlab);
    let digest = token_digest(login.raw().as_bytes());
    let (first, again) = (login.proof().unwrap(), login.proof().unwrap());
    assert_ne!(first, again);
    login.key = SshKey(OTHER_KEY.into());
    let other = login.proof().unwrap();
    for proof in [first, again, other] {
        assert_eq!(token_digest(proof.as_bytes()), digest);
    }
    login.claim("jti", json!("another"));
    assert_ne!(token_digest(login.proof().unwrap().as_bytes()), digest);
}

/// Neither the token nor its signature is in a proof.
#[test]
fn a_proof_does_not_hold_the_signature() {
    let login = Login::of(Gitlab);
    let raw = login.raw();
    let signature = from_base64url(raw.rsplit_once('.').unwrap().1).unwrap();
    for _ in 0..8 {
        let proof = login.proof().unwrap();
        let bytes = from_base64url(proof.rsplit_once('.').unwrap().1).unwrap();
        assert!(
            bytes
                .windows(64)
                .all(|part| !signature.windows(64).any(|own| own == part))
        );
        assert!(!proof.contains(raw.rsplit_once('.').unwrap().1));
    }
}

#[test]
fn a_proof_is_made_only_of_what_the_provider_signed() {
    let code = |spoil: fn(&mut Login)| {
        let mut login = Login::of(Gitlab);
        spoil(&mut login);
        login.proof().unwrap_err().code
    };
    assert_eq!(code(|l| l.signer = &STRANGER), "token-signature");
    assert_eq!(code(|l| l.signed_with("ES256")), "token-proof-alg");
    assert_eq!(
        code(|l| l.header["alg"] = json!("PS256")),
        "token-proof-alg"
    );
    assert_eq!(code(|l| l.header["alg"] = json!("none")), "token-alg");
    assert_eq!(
        code(|l| l.signature = Some(vec![0; 256])),
        "token-signature"
    );
    assert_eq!(code(|l| l.keys["keys"] = json!([])), "token-key");
    assert_eq!(code(|l| l.jwk()["e"] = json!("AQAD")), "token-signature");
}

/// Changes a proof's bytes: challenges, then an answer of 256 bytes for each.
fn bytes(login: &mut Login, change: impl FnOnce(&mut Vec<u8>)) {
    let proof = login.proof().unwrap();
    let (signed, proof) = proof.rsplit_once('.').unwrap();
    let mut proof = from_base64url(proof).unwrap();
    assert_eq!(proof.len(), CHALLENGES + 16 * 256);
    change(&mut proof);
    login.shown = Some(format!("{signed}.{}", base64url(&proof)));
}

/// Changes a proof's header, without making the proof again.
fn header(login: &mut Login, change: impl FnOnce(&str) -> String) {
    let proof = login.proof().unwrap();
    let (header, rest) = proof.split_once('.').unwrap();
    let text = String::from_utf8(from_base64url(header).unwrap()).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    login.shown = Some(format!("{}.{rest}", base64url(changed.as_bytes())));
}

/// Sets a member of its header.
fn member(login: &mut Login, name: &str, value: Value) {
    header(login, |text| {
        let mut header: Value = serde_json::from_str(text).unwrap();
        header[name] = value;
        header.to_string()
    });
}

/// Says that the provider's header was another one.
fn own_header(login: &mut Login, own: &Value) {
    member(login, "kid", json!(base64url(own.to_string().as_bytes())));
}

/// Puts another part in, of three.
fn part(login: &mut Login, nth: usize, with: &str) {
    let proof = login.proof().unwrap();
    let mut parts: Vec<&str> = proof.split('.').collect();
    parts[nth] = with;
    login.shown = Some(parts.join("."));
}

/// Proves with other keys than those that count.
fn under(login: &mut Login, keys: Value) {
    login.shown = Some(login.proof().unwrap());
    login.keys = json!({ "keys": keys });
}

#[rustfmt::skip] // One case a line.
const PROOFS: &[Case] = &[
    ("the token itself", Gitlab, |l| l.shown = Some(l.raw()), "token-raw"),
    ("the token without its signature", Gitlab, |l| l.shown = Some(l.message() + ".AA"), "token-raw"),
    ("a bit of a challenge", Gitlab, |l| bytes(l, |b| b[31] ^= 1), "token-signature"),
    ("a bit of the first answer", Gitlab, |l| bytes(l, |b| b[CHALLENGES] ^= 0x80), "token-signature"),
    ("a bit of the last answer", Gitlab, |l| bytes(l, |b| b[CHALLENGES + 4095] ^= 1), "token-signature"),
    ("two rounds in another order", Gitlab, |l| bytes(l, |b| b[CHALLENGES..CHALLENGES + 512].rotate_left(256)), "token-signature"),
    ("an answer of zero", Gitlab, |l| bytes(l, |b| b[CHALLENGES..CHALLENGES + 256].fill(0)), "token-signature"),
    ("challenges and answers of zero", Gitlab, |l| bytes(l, |b| b.fill(0)), "token-signature"),
    ("answers of one to challenges of zero", Gitlab, |l| bytes(l, |b| { b.fill(0); (1..=16).for_each(|n| b[CHALLENGES + n * 256 - 1] = 1); }), "token-signature"),
    ("an answer of the modulus", Gitlab, |l| bytes(l, |b| b[CHALLENGES..CHALLENGES + 256].copy_from_slice(&ISSUER.rsa_numbers().0)), "token-signature"),
    ("an answer above the modulus", Gitlab, |l| bytes(l, |b| b[CHALLENGES..CHALLENGES + 256].fill(0xff)), "token-signature"),
    ("one round", Gitlab, |l| bytes(l, |b| { b.truncate(CHALLENGES + 256); b.drain(2..CHALLENGES); }), "token-signature"),
    ("one round and all challenges", Gitlab, |l| bytes(l, |b| b.truncate(CHALLENGES + 256)), "token-signature"),
    ("fifteen rounds", Gitlab, |l| bytes(l, |b| b.truncate(CHALLENGES + 15 * 256)), "token-signature"),
    ("seventeen rounds", Gitlab, |l| bytes(l, |b| b.extend([1; 256])), "token-signature"),
    ("no round", Gitlab, |l| bytes(l, |b| b.truncate(CHALLENGES)), "token-signature"),
    ("a byte less", Gitlab, |l| bytes(l, |b| b.truncate(CHALLENGES + 4095)), "token-signature"),
    ("a byte more", Gitlab, |l| bytes(l, |b| b.push(0)), "token-signature"),
    ("the signature as it was", Gitlab, |l| part(l, 2, l.raw().rsplit_once('.').unwrap().1), "token-signature"),
    ("padding", Gitlab, |l| l.shown = Some(l.proof().unwrap() + "="), "token-form"),
    ("bits after the last byte", Gitlab, |l| part(l, 2, "AAB"), "token-form"),
    ("other claims", Gitlab, |l| part(l, 1, &base64url(l.claims.to_string().replace("574", "575").as_bytes())), "token-signature"),
    ("for another session key", Gitlab, |l| { l.shown = Some(l.proof().unwrap()); l.key = SshKey(OTHER_KEY.into()); }, "token-commitment"),
    ("another commitment over the same proof", Gitlab, |l| member(l, "cic", json!(key_commitment(&SshKey(OTHER_KEY.into()), &RZ))), "token-signature"),
    ("a short thumbprint", Gitlab, |l| member(l, "jkt", json!("AAAA")), "token-proof-form"),
    ("another thumbprint over the same proof", Gitlab, |l| member(l, "jkt", json!("A".repeat(43))), "token-proof-key"),
    ("a member more", Gitlab, |l| header(l, |t| t.replace("}", ",\"x\":\"y\"}")), "token-proof-form"),
    ("a member less", Gitlab, |l| header(l, |t| t.replace(",\"typ\":\"JWT\"", "")), "token-proof-form"),
    ("members in another order", Gitlab, |l| header(l, |t| t.replace(",\"typ\":\"JWT\"", "").replacen('{', "{\"typ\":\"JWT\",", 1)), "token-proof-form"),
    ("a space", Gitlab, |l| header(l, |t| t.replacen(':', ": ", 1)), "token-proof-form"),
    ("a name twice", Gitlab, |l| header(l, |t| t.replace("}", ",\"typ\":\"JWT\"}")), "token-duplicate"),
    ("another type", Gitlab, |l| member(l, "typ", json!("CIC")), "token-proof-form"),
    ("another algorithm", Gitlab, |l| member(l, "alg", json!("GQ128")), "token-raw"),
    ("the algorithm in lower case", Gitlab, |l| member(l, "alg", json!("gq256")), "token-raw"),
    ("no commitment", Gitlab, |l| member(l, "cic", Value::Null), "token-proof-form"),
    ("the provider's header with padding", Gitlab, |l| member(l, "kid", json!("e30=")), "token-proof-form"),
    ("no header of the provider", Gitlab, |l| member(l, "kid", json!("")), "token-proof-form"),
    ("the provider's header is a list", Gitlab, |l| own_header(l, &json!([])), "token-json"),
    ("the provider signed PS256", Gitlab, |l| own_header(l, &json!({"alg": "PS256", "kid": "key-RS256"})), "token-proof-alg"),
    ("the provider signed ES256", Gitlab, |l| own_header(l, &json!({"alg": "ES256", "kid": "key-ES256"})), "token-proof-alg"),
    ("the provider signed EdDSA", Gitlab, |l| own_header(l, &json!({"alg": "EdDSA", "kid": "key-EdDSA"})), "token-proof-alg"),
    ("the provider signed nothing", Gitlab, |l| own_header(l, &json!({"alg": "none"})), "token-alg"),
    ("a proof of a proof", Gitlab, |l| own_header(l, &json!({"alg": "GQ256", "kid": "key-RS256"})), "token-alg"),
    ("the provider's header brings a key", Gitlab, |l| own_header(l, &json!({"alg": "RS256", "jwk": STRANGER.jwk("RS256")})), "token-header-key"),
    ("the provider's header is of an access token", Gitlab, |l| own_header(l, &json!({"alg": "RS256", "typ": "at+jwt"})), "token-typ"),
    ("another header of the provider", Gitlab, |l| own_header(l, &json!({"alg": "RS256", "kid": "key-RS256"})), "token-signature"),
    ("RS256 does not count", Gitlab, |l| { l.shown = Some(l.proof().unwrap()); l.provider.algorithms = vec!["ES256".into(), "PS256".into()]; }, "token-alg"),
    ("another issuer's key", Gitlab, |l| under(l, json!([STRANGER.jwk("RS256")])), "token-proof-key"),
    ("another issuer's token", Gitlab, |l| { l.signer = &STRANGER; l.keys = json!({"keys": [STRANGER.jwk("RS256")]}); under(l, json!([ISSUER.jwk("RS256")])); }, "token-proof-key"),
    ("no key any more", Gitlab, |l| under(l, json!([])), "token-key"),
    ("the key is for encryption", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["use"] = json!("enc"); under(l, json!([key])); }, "token-key-use"),
    ("the key is for PS256", Gitlab, |l| { let mut key = ISSUER.jwk("PS256"); key["kid"] = json!("key-RS256"); under(l, json!([key])); }, "token-key-alg"),
    ("the key is no RSA key", Gitlab, |l| { let mut key = ISSUER.jwk("ES256"); key["kid"] = json!("key-RS256"); under(l, json!([key])); }, "token-key-type"),
    ("an exponent of 3", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["e"] = json!("Aw"); under(l, json!([key])); }, "token-key-weak"),
    ("an exponent of 65539", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["e"] = json!("AQAD"); under(l, json!([key])); }, "token-proof-key"),
    ("a modulus of 1024 bits", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["n"] = json!(base64url(&[0xff; 128])); under(l, json!([key])); }, "token-key-weak"),
    ("a modulus of 8200 bits", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["n"] = json!(base64url(&[0xff; 1025])); under(l, json!([key])); }, "token-key-weak"),
    ("a modulus of 8192 bits", Gitlab, |l| { let mut key = ISSUER.jwk("RS256"); key["n"] = json!(base64url(&[0xff; 1024])); under(l, json!([key])); }, "token-proof-key"),
    ("a provider registered without the prefix", Gitlab, |l| { l.provider.audience = "ascribe".into(); l.claim("aud", json!("ascribe")); }, "token-aud"),
    ("an audience without the prefix", Gitlab, |l| l.claim("aud", json!("ascribe")), "token-aud"),
    ("another audience with the prefix", Gitlab, |l| l.claim("aud", json!("OPENPUBKEY-PKTOKEN:other")), "token-aud"),
    ("a longer audience", Gitlab, |l| l.claim("aud", json!("OPENPUBKEY-PKTOKEN:ascribe2")), "token-aud"),
    ("the prefix in lower case", Gitlab, |l| l.claim("aud", json!("openpubkey-pktoken:ascribe")), "token-aud"),
    ("another audience besides", Gitlab, |l| l.claim("aud", json!(["OPENPUBKEY-PKTOKEN:ascribe", "vault"])), "token-aud"),
    ("another issuer", Gitlab, |l| l.claim("iss", json!("https://gitlab.example")), "token-iss"),
    ("a proof where tokens count", Github, |l| { let lab = Login::of(Gitlab); l.shown = Some(lab.proof().unwrap()); }, "token-alg"),
    ("a proof of a person's token", Oidc, |l| { let mut job = Login::by_proof(Workload); job.claims = l.claims.clone(); l.shown = Some(job.proof().unwrap()); }, "token-alg"),
];

/// Every code that a case here ends with.
pub(super) fn codes() -> Vec<&'static str> {
    PROOFS.iter().map(|case| case.3).collect()
}

#[test]
fn only_a_whole_proof_for_this_key_under_the_providers_counts() {
    refused(PROOFS);
}

/// Every byte of a proof counts: no change of one leaves it good.
#[test]
fn a_proof_with_a_changed_byte_is_refused() {
    let login = Login::of(Gitlab);
    let proof = login.proof().unwrap();
    let long = proof.rfind('.').unwrap();
    // Of the long part some bytes of each round.
    let places = (0..long).chain((long..proof.len()).step_by(61));
    for (nth, at) in places.enumerate() {
        let with = ["A", "_", ".", "="][nth % 4];
        let mut changed = proof.clone();
        changed.replace_range(at..=at, with);
        if changed != proof {
            assert!(login.accepts(&changed).is_err(), "byte {at} as {with:?}");
        }
    }
}
