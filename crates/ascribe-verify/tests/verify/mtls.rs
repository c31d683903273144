//! A workload that showed its X.509-SVID in TLS: what is checked of it years later, and what stays the log's word.

use ascribe_core::bundle::Bundle;
use ascribe_core::database::{Postgres, Values};
use ascribe_core::encoding::{Bytes, base64_std, base64url, decode, encode};
use ascribe_core::entry::{Body, Door};
use ascribe_core::identity::{
    Binding, Condition, Login, Provider, ProviderKeys, ProviderKind, TlsProof, Workload,
    tls_message, token_digest,
};
use ascribe_core::law::{Judge as _, TokenAsked};
use ascribe_core::statement::Say;
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, tls_proof};
use ascribe_tlog::SigningKey;
use ascribe_verify::{Verdict, render, verify_bundle};

use super::bundles::refused;
use super::forge::{Forge, MINUTE, Who, sealed};
use super::logins::{RZ, provider};

const ID: &str = "spiffe://shop.example/ns/shop/sa/deploy";
/// Ed25519 (RFC 8410).
const ED25519: [u8; 7] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("x509", &[seed; 32]).unwrap()
}

/// A DER element with this tag.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match (high, low) {
        (0, ..0x80) => vec![low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, &content].concat()
}

/// An extension that is critical (RFC 5280, 4.2): the last arc of its OID, and its content.
fn extension(arc: u8, content: &[u8]) -> Vec<u8> {
    let (oid, critical) = (der(6, &[&[0x55, 0x1d, arc]]), [1, 1, 0xff]);
    der(0x30, &[&oid, &critical, &der(4, &[content])])
}

/// A certificate that counts for an hour, by whoever has that seed.
fn certificate(name: &str, seed: u8, signer: (&str, u8), at: Timestamp, more: &[u8]) -> Vec<u8> {
    let named = |name: &str| {
        let text = der(0x0c, &[name.as_bytes()]);
        let part = der(0x30, &[&[6, 3, 0x55, 4, 3], &text]);
        der(0x30, &[&der(0x31, &[&part])])
    };
    let time = |at: Timestamp| {
        let digits: String = at
            .to_string()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        der(
            0x17,
            &[format!("{}Z", digits.get(2..14).unwrap()).as_bytes()],
        )
    };
    let life = der(0x30, &[&time(at), &time(at.plus_millis(60 * MINUTE))]);
    let public = der(3, &[&[0], &key(seed).verifier().public_key()]);
    let to_sign = der(
        0x30,
        &[
            &der(0xa0, &[&[2, 1, 2]]),
            &[2, 1, 7],
            &ED25519,
            &named(signer.0),
            &life,
            &named(name),
            &der(0x30, &[&ED25519, &public]),
            &der(0xa3, &[&der(0x30, &[more])]),
        ],
    );
    let signature = der(3, &[&[0], &key(signer.1).sign_raw(&to_sign)]);
    der(0x30, &[&to_sign, &ED25519, &signature])
}

const ROOT: u8 = 21;
const LEAF: u8 = 22;

/// What the gateway kept of a handshake, and the bundle of the trust domain.
fn shown(log: &Forge) -> (Vec<u8>, Vec<u8>) {
    let authority = [
        extension(19, &[0x30, 3, 1, 1, 0xff]),
        extension(15, &[3, 2, 2, 4]),
    ];
    let at = log.now;
    let root = certificate("root", ROOT, ("root", ROOT), at, &authority.concat());
    let names = der(0x30, &[&der(0x86, &[ID.as_bytes()])]);
    let workload = [extension(15, &[3, 2, 7, 0x80]), extension(17, &names)];
    let leaf = certificate("leaf", LEAF, ("root", ROOT), at, &workload.concat());
    let message = tls_message(&[9; 48]);
    let signature = key(LEAF).sign_raw(&message);
    let proof = tls_proof(&[leaf], 0x0807, &message, &signature).unwrap();
    let (x, x5c) = (
        base64url(&key(ROOT).verifier().public_key()),
        base64_std(&root),
    );
    let bundle = format!(
        r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","use":"x509-svid","x":"{x}","x5c":["{x5c}"]}}]}}"#
    );
    (proof, bundle.into_bytes())
}

/// A session that somebody entered by it, as the log's operator tells it.
fn entered(door: Door, edit: impl FnOnce(&mut TlsProof)) -> (Forge, Bundle) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let target = log.target_with(|target| {
        target.host_keys = Vec::new();
        target.postgres = Some(Postgres {
            allow: Vec::new(),
            databases: Vec::new(),
            trust: vec![Bytes(vec![0x30; 64])],
            values: Values::Full,
        });
    });
    let domain = Provider {
        issuer: "spiffe://shop.example".into(),
        kind: ProviderKind::SpiffeX509,
        ..provider()
    };
    let (_, registered) = log.say(Who::Ada, &[], Say::ProviderSet(domain.clone()), vec![]);
    let (proof, bundle) = shown(&log);
    let keys = ProviderKeys {
        body: Bytes(bundle.clone()),
        fetched: log.now,
        headers: vec![],
        provider: "idp".into(),
        uri: domain.jwks_uri.clone(),
    };
    let parents = [("provider", registered)];
    let keys = log.record("server", &parents, Body::ProviderKeys(keys), vec![]);
    let rule = Say::WorkloadSet(Workload {
        conditions: vec![Condition {
            claim: "sub".into(),
            one_of: vec![ID.into()],
        }],
        confirmed: None,
        name: "deploy".into(),
        owner: Who::Olu.id(),
        provider: "idp".into(),
        withdrawn: false,
        workload: Who::Bot.id(),
    });
    let (_, enrolled) = log.say(Who::Ada, &parents, rule, vec![]);
    let (ask, mut body) = log.request_with(target, |r| r.beneficiary = Some(Who::Bot.id()));
    body.person = Who::Bot.id();
    let yes = log.approve(Who::Ada, ask);
    let granted = log.grant(ask, &[yes], body);

    // The gateway's own key, made for this connection.
    let session_key = Who::Bot.key(0);
    let asked = TokenAsked {
        key: &session_key,
        rz: &RZ,
        facts: &["sub"],
        groups: &[],
        managers: &[],
    };
    let claims = SshSignatures
        .token(&domain, &bundle, &proof, &asked)
        .unwrap();
    assert_eq!(claims.binding, Binding::Tls);
    let mut kept: TlsProof = decode(&proof).unwrap();
    edit(&mut kept);
    let kept = encode(&kept).unwrap();
    let opening = sealed("token", &kept);
    let login = Login {
        bearer: true,
        digest: token_digest(&kept),
        provider: "idp".into(),
        rz: Bytes(RZ.to_vec()),
        saw: None,
        until: claims.expires,
        claims,
        token: opening.commitment(),
    };
    let parents = [("keys", keys), ("actor", enrolled)];
    let (login, place) = log.say(
        Who::Bot,
        &parents,
        Say::Login(Box::new(login)),
        vec![opening],
    );
    let session = log.open_with(&granted, &[("login", place)], |open| {
        open.key = session_key.fingerprint();
        (open.login, open.door) = (Some(login), door);
    });
    log.head("gw");
    let id = log.close(session);
    let bundle = log.bundle(id);
    (log, bundle)
}

#[test]
fn what_a_workload_signed_in_tls_is_checked_and_whose_connection_it_was_is_the_logs_word() {
    let (log, bundle) = entered(Door::Mtls, |_| ());
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let [proof] = report.logins.as_slice() else {
        panic!("{report:#?}")
    };
    assert_eq!((proof.token, proof.assurance), ("checked", 1));
    assert_eq!(proof.workload.as_deref(), Some("deploy"));
    assert_eq!(proof.issuer, "spiffe://shop.example");
    let [when, published, connection] = proof.log_trusted_for.as_slice() else {
        panic!("{proof:#?}")
    };
    assert_eq!(*when, "when it was shown");
    assert_eq!(*published, "that the provider published this key");
    assert!(connection.contains("was this connection's"), "{connection}");
    assert!(render(&report).contains(connection));
}

/// Without the workload's key there is no handshake that it signed, whatever the log's operator writes.
#[test]
fn a_log_that_makes_a_handshake_up_does_not_verify() {
    for edit in [
        (|kept| kept.transcript.0[0] ^= 1) as fn(&mut TlsProof),
        |kept| kept.sig.0[0] ^= 1,
        |kept| {
            let message = tls_message(&kept.transcript.0);
            kept.sig = Bytes(key(ROOT).sign_raw(&message).to_vec());
        },
    ] {
        let (log, bundle) = entered(Door::Mtls, edit);
        let code = refused(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(code, "unsigned");
    }
    let (log, bundle) = entered(Door::Bearer, |_| ());
    let code = refused(&bundle.to_bytes().unwrap(), &log.policy());
    assert_ne!(code, "unsigned");
}
