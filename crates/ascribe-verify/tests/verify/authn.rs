//! How people proved themselves to their provider: what a provider's entry asks of that is checked again, and whoever
//! writes a log cannot claim it.

use ascribe_core::bundle::Bundle;
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::Status;
use ascribe_core::identity::{AuthnRule, Claims, Login, Provider, key_commitment, token_digest};
use ascribe_core::law::Judge as _;
use ascribe_core::statement::{Say, Uses};
use ascribe_evidence::SshSignatures;
use ascribe_verify::{LinkKind, Verdict, render, verify_bundle};

use super::bundles::refused;
use super::forge::{Forge, MINUTE, Who, sealed};
use super::logins::{RZ, SESSION, asked, jwks, provider, registered_as, session_pen, signed};

/// A provider that asks for a second factor, just now.
fn asking() -> Provider {
    let rule = AuthnRule {
        acr: vec!["mfa".into(), "phr".into()],
        amr: vec!["otp".into()],
        max_age_seconds: Some(600),
    };
    Provider {
        authn: Some(rule),
        ..provider()
    }
}

/// A session by a login whose token says this besides, that many seconds after the person proved themself, with its
/// bundle. The statement says of it what `edit` leaves.
fn session(more: &str, ago: i64, edit: impl FnOnce(&mut Claims)) -> (Forge, Bundle) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let (keys, link) = registered_as(&mut log, asking());
    let key = Who::Olu.key(SESSION);
    let (now, nonce) = (log.now.millis() / 1000, key_commitment(&key, &RZ));
    let token = format!(
        r#"{{"iss":"https://idp.example","aud":"ascribe","sub":"olu","nonce":"{nonce}","iat":{now},"exp":{},"auth_time":{}{more}}}"#,
        now + 300,
        now - ago
    );
    let token = signed(&token, 1);
    let claims = SshSignatures.token(&asking(), &jwks(1), token.as_bytes(), &asked(&key, &[]));
    let mut claims = claims.unwrap();
    edit(&mut claims);
    let opening = sealed("token", &token);
    let login = Login {
        bearer: false,
        digest: token_digest(token.as_bytes()),
        provider: "idp".into(),
        rz: Bytes(RZ.to_vec()),
        saw: Some(claims.key),
        claims,
        token: opening.commitment(),
        until: log.now.plus_millis(60 * MINUTE),
    };
    let parents = [("keys", keys), ("actor", link)];
    let say = Say::Login(Box::new(login));
    let login = log.say(session_pen(), &parents, say, vec![opening]);
    let mut session = log.open_by(&granted, "root", &key, Some(login));
    let action = log.intent(&mut session, "id -un", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    log.head("gw");
    let id = log.close(session);
    let bundle = log.bundle(id);
    (log, bundle)
}

const GOOD: &str = r#","acr":"mfa","amr":["pwd","otp"]"#;

#[test]
fn how_somebody_proved_themself_is_told_with_the_login() {
    let (log, bundle) = session(GOOD, 60, |_| ());
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let proof = &report.logins[0];
    let authn = proof.authn.as_ref().unwrap();
    assert_eq!(
        (proof.token, authn.acr.as_deref()),
        ("checked", Some("mfa"))
    );
    assert_eq!(authn.amr, ["pwd", "otp"]);
    let told = &report.actions[0].who.chain[0].authn;
    assert_eq!(told.as_ref(), Some(authn));
    let json = serde_json::to_value(&report.actions[0]).unwrap();
    let at = serde_json::to_value(authn.at).unwrap();
    assert_eq!(
        json["who"]["chain"][0]["authn"],
        serde_json::json!({ "acr": "mfa", "amr": ["pwd", "otp"], "at": at })
    );
    let words = format!("acr mfa; by pwd, otp; at {}", authn.at.unwrap());
    assert!(render(&report).contains(&words), "{}", render(&report));
    let link = report.links.iter().find(|l| l.link == LinkKind::Login);
    assert!(link.unwrap().what.contains(&words), "{link:?}");
}

#[test]
fn a_login_that_does_not_do_is_refused_whoever_took_it() {
    for (more, ago) in [
        ("", 60),
        (r#","acr":"pwd","amr":["otp"]"#, 60),
        (r#","acr":"mfa""#, 60),
        (r#","acr":"mfa","amr":["pwd"]"#, 60),
        (GOOD, 601),
        (GOOD, -61),
    ] {
        let (log, bundle) = session(more, ago, |_| ());
        let code = refused(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(code, "unlawful", "{more} {ago}");
    }
    for ago in [0, 600, -60] {
        let (log, bundle) = session(GOOD, ago, |_| ());
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{ago}: {report:#?}");
    }
}

#[test]
fn what_is_stated_and_not_in_the_token_passes_only_while_the_token_is_sealed() {
    let forged: [fn(&mut Claims); 3] = [
        |claims| claims.acr = Some("mfa".into()),
        |claims| claims.amr = vec!["otp".into()],
        |claims| claims.auth_time = Some(claims.issued),
    ];
    let honest = [
        (r#","acr":"pwd","amr":["otp"]"#, 60),
        (r#","acr":"mfa","amr":["pwd"]"#, 60),
        (GOOD, 3600),
    ];
    for ((more, ago), forge) in honest.into_iter().zip(forged) {
        let (log, mut bundle) = session(more, ago, forge);
        let trust = log.policy();
        let code = refused(&bundle.to_bytes().unwrap(), &trust);
        assert_eq!(code, "unsigned", "{more}");
        bundle
            .openings
            .retain(|opened| opened.opening.field != "token");
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let trusted = &report.logins[0].log_trusted_for;
        assert!(trusted.contains(&"that the token says what is stated"));
    }
}
