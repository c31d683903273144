//! Session keys that a provider's token introduced, with a stock client: what they open, and what ends
//! it. Tokens are signed and checked for real; only who issues them is this file.

use ascribe_core::encoding::{Bytes, base64url};
use ascribe_core::entry::{Body, CloseReason, SessionOpen};
use ascribe_core::id::{EntryId, PersonId, StatementId};
use ascribe_core::identity::{
    Binding, Condition, IdentityLink, Login, Logout, Provider, ProviderKeys, ProviderKind,
    Workload, key_commitment, subject, token_digest,
};
use ascribe_core::law::{Judge as _, SERVER, TokenAsked};
use ascribe_core::record::{Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_evidence::SshSignatures;
use ascribe_tlog::SigningKey;
use russh::keys::PrivateKey;

use super::people::{ADMIN, OPERATOR, random};
use super::world::{Client, Setup, World, fed, keygen, public, ticket, until};

const LONG: &str = "echo running; exec sleep 120";
const BOT: PersonId = PersonId::new([8; 16]);
const SUB: &str = "spiffe://example.org/deploy";

/// Who issues tokens: an Ed25519 key, and its set.
fn issuer() -> SigningKey {
    SigningKey::from_seed("idp.example", &[5; 32]).unwrap()
}

fn jwks() -> Vec<u8> {
    let x = base64url(&issuer().verifier().public_key());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"1","use":"sig","x":"{x}"}}]}}"#)
        .into_bytes()
}

fn token(claims: &str) -> String {
    let header = base64url(br#"{"alg":"EdDSA","kid":"1","typ":"JWT"}"#);
    let signed = format!("{header}.{}", base64url(claims.as_bytes()));
    let signature = issuer().sign_raw(signed.as_bytes());
    format!("{signed}.{}", base64url(&signature))
}

fn provider(name: &str, kind: ProviderKind) -> Provider {
    Provider {
        algorithms: vec!["EdDSA".into()],
        audience: "ascribe".into(),
        authn: None,
        issuer: format!("https://{name}.example"),
        jwks_uri: format!("https://{name}.example/keys"),
        kind,
        max_keys_age_seconds: None,
        name: name.into(),
        observers: None,
        withdrawn: false,
    }
}

fn identity() -> IdentityLink {
    IdentityLink {
        person: OPERATOR,
        provider: "idp".into(),
        subject: subject("https://idp.example", "olu"),
    }
}

fn workload() -> Workload {
    Workload {
        conditions: vec![Condition {
            claim: "sub".into(),
            one_of: vec![SUB.into()],
        }],
        confirmed: None,
        name: "deploy".into(),
        owner: OPERATOR,
        provider: "ci".into(),
        withdrawn: false,
        workload: BOT,
    }
}

async fn admin_says(w: &World, say: Say) {
    let ledger = &w.door.ledger;
    w.people.say(ledger, ADMIN, say, vec![], Scope::None).await;
}

async fn publish(w: &World, name: &str) {
    let keys = ProviderKeys {
        body: Bytes(jwks()),
        fetched: w.door.ledger.now(),
        headers: vec![],
        provider: name.into(),
        uri: format!("https://{name}.example/keys"),
    };
    let proposal = Proposal {
        id: EntryId::new(random()),
        writer: SERVER.into(),
        body: Body::ProviderKeys(keys),
        openings: vec![],
        scope: Scope::None,
    };
    w.door.ledger.record(proposal).await.unwrap();
}

/// A world with a provider of people and one of workloads.
async fn world() -> World {
    let w = World::with(Setup::default()).await;
    for (name, kind) in [("idp", ProviderKind::Oidc), ("ci", ProviderKind::Workload)] {
        admin_says(&w, Say::ProviderSet(provider(name, kind))).await;
        publish(&w, name).await;
    }
    admin_says(&w, Say::IdentityLink(identity())).await;
    admin_says(&w, Say::WorkloadSet(workload())).await;
    w
}

/// A fresh session key, in a file of that name, and the token's login with it.
async fn log_in(
    w: &World,
    name: &str,
    by: PersonId,
    edit: impl FnOnce(&mut Login),
) -> Result<(StatementId, PrivateKey), RecordError> {
    let (ledger, key) = (&w.door.ledger, keygen(&w.path(name)));
    let (rz, now) = (random::<32>(), ledger.now().millis() / 1000);
    let commitment = key_commitment(&public(&key), &rz);
    let times = format!(r#""iat":{now},"exp":{}"#, now + 300);
    let (from, claims, facts) = if by == BOT {
        let claims = format!(
            r#"{{"iss":"https://ci.example","aud":"ascribe:{commitment}","sub":"{SUB}",{times}}}"#
        );
        (provider("ci", ProviderKind::Workload), claims, &["sub"][..])
    } else {
        let claims = format!(
            r#"{{"iss":"https://idp.example","aud":"ascribe","sub":"olu","nonce":"{commitment}",{times}}}"#
        );
        (provider("idp", ProviderKind::Oidc), claims, &[][..])
    };
    let token = token(&claims);
    let asked = TokenAsked {
        key: &public(&key),
        rz: &rz,
        facts,
        groups: &[],
        managers: &[],
    };
    let claims = SshSignatures
        .token(&from, &jwks(), token.as_bytes(), &asked)
        .unwrap();
    let sealed = Opening::new("token", random(), token.clone().into_bytes());
    let mut login = Login {
        bearer: false,
        digest: token_digest(token.as_bytes()),
        provider: from.name,
        rz: Bytes(rz.to_vec()),
        saw: Some(claims.key),
        claims,
        token: sealed.commitment(),
        until: ledger.now().plus_millis(3_600_000),
    };
    edit(&mut login);
    let scope = Scope::Login(StatementId::new([0; 16]));
    let say = Say::Login(Box::new(login));
    let done = w
        .people
        .say_with(ledger, (by, &key), say, vec![sealed], scope);
    Ok((done.await?.0, key))
}

fn opened(w: &World) -> Vec<SessionOpen> {
    w.found(|body| match body {
        Body::SessionOpen(open) => Some(open),
        _ => None,
    })
}

fn start(w: &World, name: &str, command: &str) -> Client {
    w.start_at(w.port, &w.login(), name, &[], command)
}

async fn running(w: &World, name: &str) -> Client {
    let client = start(w, name, LONG);
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_acts_with_the_key_that_a_token_introduced() {
    let w = world().await;
    keygen(&w.path("unknown"));
    let out = fed(start(&w, "unknown", "id"), b"").await;
    assert_eq!(out.code, Some(255));
    let (login, key) = log_in(&w, "session", OPERATOR, |_| ()).await.unwrap();
    let out = fed(start(&w, "session", "echo in"), b"").await.exits(0);
    assert_eq!(out.text(), "in\n");
    let open = opened(&w).remove(0);
    assert_eq!((open.person, open.login), (OPERATOR, Some(login)));
    assert_eq!(open.key, public(&key).fingerprint());
    // An enrolled key names no login.
    w.ssh(&[], "true", b"").await.exits(0);
    assert_eq!(opened(&w).remove(1).login, None);
    // A login that states something else than its token says is none.
    let forged = log_in(&w, "forged", OPERATOR, |login| {
        login.claims.amr = vec!["hwk".into()];
    });
    let Err(RecordError::Denied(denied)) = forged.await else {
        panic!("taken")
    };
    assert_eq!(denied.code, "claims");
    let out = fed(start(&w, "forged", "id"), b"").await;
    assert_eq!(out.code, Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_login_rests_on_ends_its_sessions() {
    let ends: [fn(StatementId) -> Say; 3] = [
        |login| Say::Logout(Logout { login }),
        |_| Say::IdentityUnlink(identity()),
        |_| {
            let mut idp = provider("idp", ProviderKind::Oidc);
            idp.withdrawn = true;
            Say::ProviderSet(idp)
        },
    ];
    let w = world().await;
    for (nth, end) in ends.into_iter().enumerate() {
        let name = format!("session{nth}");
        let (login, _) = log_in(&w, &name, OPERATOR, |_| ()).await.unwrap();
        let client = running(&w, &name).await;
        admin_says(&w, end(login)).await;
        let out = client.end().await;
        out.says("the grant or the login was revoked");
        assert_eq!(w.closed(nth).await.reason, CloseReason::Revoked, "{nth}");
        assert_eq!(fed(start(&w, &name, "id"), b"").await.code, Some(255));
        // For the next one.
        admin_says(&w, Say::ProviderSet(provider("idp", ProviderKind::Oidc))).await;
        publish(&w, "idp").await;
        let linked = w.door.ledger.with_state(|state| {
            let IdentityLink {
                provider, subject, ..
            } = identity();
            state.linked(&provider, &subject)
        });
        if linked.is_none() {
            admin_says(&w, Say::IdentityLink(identity())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_outlive_its_login() {
    let w = world().await;
    let soon = |login: &mut Login| login.until = login.until.plus_millis(-3_600_000 + 4000);
    log_in(&w, "short", OPERATOR, soon).await.unwrap();
    let client = running(&w, "short").await;
    let out = client.end().await;
    out.says("the grant or the login has ended");
    assert_eq!(w.closed(0).await.reason, CloseReason::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_acts_under_a_grant_that_its_owner_asked_for() {
    let w = world().await;
    let ledger = &w.door.ledger;
    let (login, _) = log_in(&w, "job", BOT, |_| ()).await.unwrap();
    let bound = ledger.with_state(|state| state.logins[&login].login.claims.binding);
    assert_eq!(bound, Binding::Audience);
    // Its owner's grant is not its own.
    let out = fed(start(&w, "job", "id"), b"").await;
    assert_ne!(out.code, Some(0));
    assert!(opened(&w).is_empty());
    let asked = w
        .people
        .request_for(ledger, &w.account, BOT, ticket())
        .await;
    w.people.approve(ledger, asked).await;
    let out = fed(start(&w, "job", "echo deployed"), b"").await.exits(0);
    assert_eq!(out.text(), "deployed\n");
    assert_eq!(opened(&w).remove(0).person, BOT);
    let client = running(&w, "job").await;
    let gone = Workload {
        withdrawn: true,
        ..workload()
    };
    admin_says(&w, Say::WorkloadSet(gone)).await;
    client.end().await.says("was revoked");
    assert_eq!(w.closed(1).await.reason, CloseReason::Revoked);
}
