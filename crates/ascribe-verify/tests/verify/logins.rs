//! Sessions by login, in logs whose operator writes what they like: a token is the provider's word, a
//! login the session key's, and neither can be made without its key.

use ascribe_core::attribution::{Filter, Fold};
use ascribe_core::bundle::Bundle;
use ascribe_core::encoding::{Bytes, base64url};
use ascribe_core::entry::{Body, Entry, Status};
use ascribe_core::id::{SessionId, StatementId};
use ascribe_core::identity::{
    Binding, Condition, IdentityLink, KeysSeen, Login, Observers, Provider, ProviderKeys,
    ProviderKind, Workload, key_commitment, keys_digest, subject, token_digest,
};
use ascribe_core::law::{Judge as _, LoginLink, Place, State, TokenAsked};
use ascribe_core::statement::{Say, SshKey, Uses};
use ascribe_evidence::{SshSignatures, prove_token};
use ascribe_tlog::SigningKey;
use ascribe_verify::{Observed, Verdict, Word, render, verify_bundle, verify_entries};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

use super::attribution::told;
use super::bundles::refused;
use super::forge::{Forge, MINUTE, Pen, Who, sealed};
use super::scenes::Running;

/// Which of Olu's keys is the session key. Nobody enrolled it.
pub(super) const SESSION: u8 = 5;
pub(super) const RZ: [u8; 32] = [7; 32];

fn issuer(seed: u8) -> SigningKey {
    SigningKey::from_seed("idp.example", &[seed; 32]).unwrap()
}

pub(super) fn jwks(seed: u8) -> Vec<u8> {
    let x = base64url(&issuer(seed).verifier().public_key());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"1","x":"{x}"}}]}}"#).into_bytes()
}

pub(super) fn provider() -> Provider {
    Provider {
        algorithms: vec!["EdDSA".into()],
        audience: "ascribe".into(),
        authn: None,
        issuer: "https://idp.example".into(),
        jwks_uri: "https://idp.example/keys".into(),
        kind: ProviderKind::Oidc,
        max_keys_age_seconds: None,
        name: "idp".into(),
        observers: None,
        withdrawn: false,
    }
}

/// Olu's token for this session key, signed by the issuer's key of that seed.
fn token(log: &Forge, key: &SshKey, seed: u8) -> String {
    let (now, nonce) = (log.now.millis() / 1000, key_commitment(key, &RZ));
    let claims = format!(
        r#"{{"iss":"https://idp.example","aud":"ascribe","sub":"olu","nonce":"{nonce}","iat":{now},"exp":{}}}"#,
        now + 300
    );
    signed(&claims, seed)
}

pub(super) fn signed(claims: &str, seed: u8) -> String {
    let header = base64url(br#"{"alg":"EdDSA","kid":"1"}"#);
    let signed = format!("{header}.{}", base64url(claims.as_bytes()));
    let signature = issuer(seed).sign_raw(signed.as_bytes());
    format!("{signed}.{}", base64url(&signature))
}

/// What an honest client states of such a token.
fn stated(log: &Forge, key: &SshKey) -> Login {
    let token = token(log, key, 1);
    let claims = SshSignatures
        .token(&provider(), &jwks(1), token.as_bytes(), &asked(key, &[]))
        .unwrap();
    Login {
        bearer: false,
        digest: token_digest(token.as_bytes()),
        provider: "idp".into(),
        rz: Bytes(RZ.to_vec()),
        saw: Some(claims.key),
        claims,
        token: sealed("token", &token).commitment(),
        until: log.now.plus_millis(60 * MINUTE),
    }
}

/// What the operator of the log writes instead of the truth.
struct Story {
    /// Seed of the issuer's key that signs the token; 1 is the published one.
    signer: u8,
    /// Whose key the token commits to.
    bound: SshKey,
    edit: fn(&mut Login),
}

impl Default for Story {
    fn default() -> Self {
        Self {
            signer: 1,
            bound: Who::Olu.key(SESSION),
            edit: |_| (),
        }
    }
}

/// A log with one session by login whose provider has published another key since, and its bundle.
pub(super) fn session_before_a_rotation() -> (Forge, Bundle) {
    let (mut log, bundle) = session_by_login(&Story::default());
    let is_set = |entry: &&Entry| matches!(&entry.body, Body::ProviderKeys(_));
    let keys = log.entries.iter().find(is_set).unwrap();
    let registered = Place {
        hash: keys.refs[0].hash,
        index: keys.refs[0].index,
    };
    publish(&mut log, jwks(2), registered);
    let bundle = log.bundle(bundle.header.session);
    (log, bundle)
}

/// A log with one session by login, and its bundle.
fn session_by_login(story: &Story) -> (Forge, Bundle) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let (keys, link) = registered(&mut log);
    let login = log_in(&mut log, story, keys, link);
    let key = Who::Olu.key(SESSION);
    let mut session = log.open_by(&granted, "root", &key, Some(login));
    let action = log.intent(&mut session, "id -un", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    log.head("gw");
    let id = log.close(session);
    let bundle = log.bundle(id);
    (log, bundle)
}

/// The provider's keys and Olu's identity there.
pub(super) fn registered(log: &mut Forge) -> (Place, Place) {
    registered_as(log, provider())
}

/// The same of this provider.
pub(super) fn registered_as(log: &mut Forge, provider: Provider) -> (Place, Place) {
    let (_, registered) = log.say(Who::Ada, &[], Say::ProviderSet(provider), vec![]);
    let keys = ProviderKeys {
        body: Bytes(jwks(1)),
        fetched: log.now,
        headers: vec![],
        provider: "idp".into(),
        uri: "https://idp.example/keys".into(),
    };
    let keys = log.record(
        "server",
        &[("provider", registered)],
        Body::ProviderKeys(keys),
        vec![],
    );
    let link = Say::IdentityLink(IdentityLink {
        person: Who::Olu.id(),
        provider: "idp".into(),
        subject: subject("https://idp.example", "olu"),
    });
    let (_, link) = log.say(Who::Ada, &[("provider", registered)], link, vec![]);
    (keys, link)
}

/// The session key's hand.
pub(super) fn session_pen() -> Pen {
    Pen {
        key: SESSION,
        ..Pen::from(Who::Olu)
    }
}

fn log_in(log: &mut Forge, story: &Story, keys: Place, link: Place) -> (StatementId, Place) {
    let token = token(log, &story.bound, story.signer);
    let mut login = stated(log, &Who::Olu.key(SESSION));
    login.digest = token_digest(token.as_bytes());
    let opening = sealed("token", &token);
    login.token = opening.commitment();
    (story.edit)(&mut login);
    let parents = [("keys", keys), ("actor", link)];
    log.say(
        session_pen(),
        &parents,
        Say::Login(Box::new(login)),
        vec![opening],
    )
}

#[test]
fn a_disclosed_token_is_checked_and_the_report_says_whom_to_trust() {
    let (log, mut bundle) = session_by_login(&Story::default());
    let trust = log.policy();
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let [proof] = report.logins.as_slice() else {
        panic!("{report:#?}")
    };
    assert_eq!((proof.token, proof.assurance), ("checked", 2));
    assert!(proof.seen_by_client);
    assert_eq!(proof.holder_trusted_for, None);
    assert_eq!(proof.issuer, "https://idp.example");
    assert_eq!(proof.session_key, Who::Olu.key(SESSION).fingerprint());
    assert_eq!(proof.log_trusted_for, ["when it was shown"]);
    let link = &report.actions[0].who.chain[0];
    assert_eq!(link.evidence, "login:idp");
    assert_eq!(link.display.as_deref(), Some("Olu Operator"));
    let text = render(&report);
    let trusted =
        "one must trust: https://idp.example for who that is, and the log for when it was shown";
    assert!(text.contains(trusted), "{text}");
    // The same of the whole ledger.
    let note = log.checkpoint(log.size());
    let openings = log.openings.as_slice();
    let whole = verify_entries(
        note.as_bytes(),
        &log.bytes,
        openings,
        &trust,
        "missing",
        &mut |_| (),
    );
    assert_eq!(whole.logins, report.logins);
    let text = render(&whole);
    assert!(text.contains(": Olu Operator, token checked"), "{text}");
    assert!(!text.contains(&Who::Olu.id().to_string()), "{text}");
    // Where the token stays sealed, one trusts the log for what it says.
    bundle.openings.retain(|o| o.opening.field != "token");
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let proof = &report.logins[0];
    assert_eq!(proof.token, "sealed");
    let more = "that the token says what is stated";
    assert_eq!(proof.log_trusted_for, ["when it was shown", more]);
}

#[test]
fn a_login_behind_a_grant_is_shown_and_others_are_counted() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let target = log.target();
    let (keys, link) = registered(&mut log);
    log_in(&mut log, &Story::default(), keys, link);
    let mut sessions = Vec::new();
    // The grant that the session key asked for, and one that the enrolled key did.
    for pen in [session_pen(), Pen::from(Who::Olu)] {
        let (ask, body) = log.request_by(pen, target, |r| r.uses = Uses::Reusable);
        let yes = log.approve(Who::Ada, ask);
        let granted = log.grant(ask, &[yes], body);
        let mut session = log.open(&granted, "root");
        let action = log.intent(&mut session, "id -un", None);
        log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
        sessions.push(log.close(session));
    }
    log.head("gw");
    let report = |session, sealed: bool| {
        let mut bundle = log.bundle(session);
        bundle
            .openings
            .retain(|o| !sealed || o.opening.field != "token");
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let others = report.notes.iter().any(|note| note.code == "login_sealed");
        (report.logins.clone(), others, render(&report))
    };
    let (asked, others, text) = report(sessions[0], false);
    assert_eq!(
        (asked[0].link, asked[0].token),
        (LoginLink::Request, "checked")
    );
    let words = "asked for root@db1 (entry 6); signed by Olu Operator with session key";
    assert!(!others && text.contains(words), "{text}");
    let (asked, others, _) = report(sessions[0], true);
    assert_eq!(asked[0].token, "sealed");
    assert!(!others, "it is shown by itself");
    // Whoever runs the log could have made that login, and what its key signed.
    let (asked, others, text) = report(sessions[1], true);
    assert!(asked.is_empty() && others, "{text}");
    assert!(
        text.contains("1 login(s) whose tokens are not disclosed here"),
        "{text}"
    );
    assert!(!report(sessions[1], false).1);
}

#[test]
fn a_key_that_the_client_did_not_see_stands_out() {
    let unseen: [fn(&mut Login); 2] = [
        |login| login.saw = None,
        |login| login.saw = Some(login.claims.subject),
    ];
    for edit in unseen {
        let story = Story {
            edit,
            ..Story::default()
        };
        let (log, bundle) = session_by_login(&story);
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let proof = &report.logins[0];
        assert!(!proof.seen_by_client);
        let more = "that the provider published this key";
        assert_eq!(proof.log_trusted_for, ["when it was shown", more]);
        let notes = report.notes.iter().filter(|n| n.code == "key_unseen");
        let [note] = notes.collect::<Vec<_>>()[..] else {
            panic!("{report:#?}")
        };
        assert!(
            note.message.starts_with("NOBODY BUT THE SERVER"),
            "{note:?}"
        );
        assert!(note.message.contains("1 login(s)"), "{note:?}");
    }
    let (log, bundle) = session_by_login(&Story::default());
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert!(report.notes.iter().all(|n| n.code != "key_unseen"));
}

/// Ada and Olu observe; one of them is enough.
fn observed_provider() -> Provider {
    let people = vec![Who::Ada.id(), Who::Olu.id()];
    Provider {
        observers: Some(Observers { needed: 1, people }),
        ..provider()
    }
}

fn look(log: &mut Forge, who: Who, registered: Place, seed: u8) {
    let keys = SshSignatures.provider_keys(&jwks(seed)).unwrap();
    let seen = KeysSeen {
        digest: keys_digest(&jwks(seed)),
        fetched: log.now,
        issuer: "https://idp.example".into(),
        keys,
        provider: "idp".into(),
        uri: "https://idp.example/keys".into(),
    };
    log.say(
        who,
        &[("provider", registered)],
        Say::KeysSeen(seen),
        vec![],
    );
}

#[test]
fn observers_are_named_with_what_they_saw_before_and_after_a_login() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let (keys, link) = registered(&mut log);
    let rule = Say::ProviderSet(observed_provider());
    let (_, rule) = log.say(Who::Ada, &[], rule, vec![]);
    look(&mut log, Who::Ada, rule, 1);
    look(&mut log, Who::Olu, rule, 3);
    let saw = log.size() - 2;
    let unseen = Story {
        edit: |login| login.saw = None,
        ..Story::default()
    };
    let login = log_in(&mut log, &unseen, keys, link);
    let after = log.size();
    log.now = log.now.plus_millis(1);
    look(&mut log, Who::Ada, rule, 2);
    let key = Who::Olu.key(SESSION);
    let mut session = log.open_by(&granted, "root", &key, Some(login));
    let action = log.intent(&mut session, "id -un", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    log.head("gw");
    let id = log.close(session);
    let bundle = log.bundle(id);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let proof = &report.logins[0];
    let word = |entry, saw| Some(Word { entry, saw });
    let mut expected = vec![
        Observed {
            observer: Who::Ada.id(),
            before: word(saw, true),
            after: word(after, false),
        },
        Observed {
            observer: Who::Olu.id(),
            before: word(saw + 1, false),
            after: None,
        },
    ];
    expected.sort_by_key(|observed| observed.observer);
    assert_eq!(proof.observers, expected);
    // Whoever saw it need not be the client.
    assert!(!proof.seen_by_client);
    assert_eq!(proof.log_trusted_for, ["when it was shown"]);
    assert!(report.notes.iter().all(|n| n.code != "key_unseen"));
    let text = render(&report);
    for part in [
        format!(
            "observer Ada Approver saw it before, entry {saw} and DID NOT SEE IT after, entry {after}"
        ),
        format!(
            "observer Olu Operator DID NOT SEE IT before, entry {}",
            saw + 1
        ),
        "Ada Approver for whether the provider published this key".to_owned(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn a_login_by_a_key_that_no_observer_saw_is_refused_whoever_wrote_it() {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let granted = log.granted(Uses::Reusable);
    let (keys, link) = registered(&mut log);
    let rule = Say::ProviderSet(observed_provider());
    let (_, rule) = log.say(Who::Ada, &[], rule, vec![]);
    // They looked, and it was not there.
    look(&mut log, Who::Ada, rule, 2);
    let login = log_in(&mut log, &Story::default(), keys, link);
    let key = Who::Olu.key(SESSION);
    let mut session = log.open_by(&granted, "root", &key, Some(login));
    let action = log.intent(&mut session, "id -un", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    log.head("gw");
    let id = log.close(session);
    let bundle = log.bundle(id).to_bytes().unwrap();
    assert_eq!(refused(&bundle, &log.policy()), "unlawful");
    let problems = verify_bundle(&bundle, &log.policy()).problems;
    assert_eq!(
        problems[0].promise,
        "a login counts under keys that enough observers saw"
    );
}

#[test]
fn whoever_runs_the_log_makes_no_login() {
    let stories = [
        (
            "a key that the provider did not publish signed the token",
            Story {
                signer: 2,
                ..Story::default()
            },
        ),
        (
            "the token is for another key",
            Story {
                bound: Who::Pat.key(0),
                ..Story::default()
            },
        ),
        (
            "the login says more than the token",
            Story {
                edit: |login| login.claims.amr = vec!["hwk".into()],
                ..Story::default()
            },
        ),
        (
            "the login is about another token",
            Story {
                edit: |login| login.digest = login.claims.subject,
                ..Story::default()
            },
        ),
        (
            "the login names a key that was not published",
            Story {
                edit: |login| login.claims.key = login.claims.subject,
                ..Story::default()
            },
        ),
    ];
    for (what, story) in stories {
        let (log, bundle) = session_by_login(&story);
        let code = refused(&bundle.to_bytes().unwrap(), &log.policy());
        assert_eq!(code, "unsigned", "{what}");
        let note = log.checkpoint(log.size());
        let report = verify_entries(
            note.as_bytes(),
            &log.bytes,
            &log.openings,
            &log.policy(),
            "missing",
            &mut |_| (),
        );
        assert_eq!(report.verdict, Verdict::Failed, "{what}");
        assert!(report.logins.is_empty(), "{what}");
    }
}

/// A job of GitHub Actions, as its token has it.
fn job_token(log: &Forge, key: &SshKey) -> String {
    let (now, bound) = (log.now.millis() / 1000, key_commitment(key, &RZ));
    let claims = format!(
        r#"{{"iss":"https://idp.example","aud":"ascribe:{bound}","iat":{now},"exp":{},
        "sub":"repo:acme/shop:ref:refs/heads/main","repository":"acme/shop","repository_id":"42",
        "repository_owner_id":"65","ref":"refs/heads/main","sha":"0123456789abcdef0123456789abcdef01234567",
        "workflow_ref":"acme/shop/.github/workflows/deploy.yml@refs/heads/main",
        "workflow_sha":"0123456789abcdef0123456789abcdef01234567","event_name":"push","actor":"olu-dev",
        "actor_id":"12","run_id":"16501001","run_attempt":"2","run_number":"10","check_run_id":"48765432101"}}"#,
        now + 300
    );
    signed(&claims, 1)
}

/// A job and its login.
struct Job {
    provider: Provider,
    /// The provider's published keys.
    keys: Vec<u8>,
    conditions: [(&'static str, &'static str); 2],
    /// In milliseconds.
    lasts: i64,
}

/// Olu's workload does something, by a token made now: what is shown, and what of it is stated. Gives the session and
/// the provider's entry.
fn ran(
    log: &mut Forge,
    job: &Job,
    token: impl FnOnce(&Forge) -> (String, String),
) -> (Running, Place) {
    let target = log.target();
    let provider = Say::ProviderSet(job.provider.clone());
    let (_, registered) = log.say(Who::Ada, &[], provider, vec![]);
    let parents = [("provider", registered)];
    let keys = publish(log, job.keys.clone(), registered);
    let condition = |(claim, value): (&str, &str)| Condition {
        claim: claim.into(),
        one_of: vec![value.into()],
    };
    let rule = Say::WorkloadSet(Workload {
        conditions: job.conditions.map(condition).into(),
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
    let key = Who::Bot.key(0);
    let (shown, stated) = token(log);
    let facts = job.conditions.map(|(claim, _)| claim);
    let claims = SshSignatures
        .token(
            &job.provider,
            &job.keys,
            stated.as_bytes(),
            &asked(&key, &facts),
        )
        .unwrap();
    let bound = match job.provider.takes_proofs() {
        true => Binding::Proof,
        false => Binding::Audience,
    };
    assert_eq!(claims.binding, bound);
    let opening = sealed("token", &shown);
    let login = Login {
        bearer: false,
        digest: token_digest(shown.as_bytes()),
        provider: "idp".into(),
        rz: Bytes(RZ.to_vec()),
        saw: Some(claims.key),
        claims,
        token: opening.commitment(),
        until: log.now.plus_millis(job.lasts),
    };
    let parents = [("keys", keys), ("actor", enrolled)];
    let say = Say::Login(Box::new(login));
    let login = log.say(Who::Bot, &parents, say, vec![opening]);
    let mut session = log.open_by(&granted, "root", &key, Some(login));
    let action = log.intent(&mut session, "deploy --all", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    (session, registered)
}

fn publish(log: &mut Forge, body: Vec<u8>, provider: Place) -> Place {
    let keys = ProviderKeys {
        body: Bytes(body),
        fetched: log.now,
        headers: vec![],
        provider: "idp".into(),
        uri: "https://idp.example/keys".into(),
    };
    let parents = [("provider", provider)];
    log.record("server", &parents, Body::ProviderKeys(keys), vec![])
}

pub(super) fn asked<'a>(key: &'a SshKey, facts: &'a [&'a str]) -> TokenAsked<'a> {
    TokenAsked {
        key,
        rz: &RZ,
        facts,
        groups: &[],
        managers: &[],
    }
}

/// A log in which a job of GitHub Actions did something.
fn job() -> Forge {
    session_of_a_job().0
}

/// The same with the session.
pub(super) fn session_of_a_job() -> (Forge, SessionId) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let job = Job {
        provider: Provider {
            kind: ProviderKind::Github,
            ..provider()
        },
        keys: jwks(1),
        conditions: [("repository_id", "42"), ("ref", "refs/heads/main")],
        lasts: 60 * MINUTE,
    };
    let (session, _) = ran(&mut log, &job, |log| {
        let token = job_token(log, &Who::Bot.key(0));
        (token.clone(), token)
    });
    let session = log.close(session);
    (log, session)
}

/// A log in which a job of GitLab did something, which showed a proof of its token, or the token itself.
fn job_of_gitlab(raw: bool) -> (Forge, SessionId) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let lab = Provider {
        algorithms: vec!["RS256".into()],
        audience: "OPENPUBKEY-PKTOKEN:ascribe".into(),
        kind: ProviderKind::Gitlab,
        ..provider()
    };
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RSAPublicKey (RFC 8017, A.1.1): 9 bytes stand before the modulus.
    let n = base64url(&pair.public_key().as_ref()[9..265]);
    let keys = format!(r#"{{"keys":[{{"kty":"RSA","kid":"1","n":"{n}","e":"AQAB"}}]}}"#);
    let job = Job {
        provider: lab,
        keys: keys.into_bytes(),
        conditions: [("project_id", "20"), ("ref_path", "refs/heads/main")],
        lasts: 30 * MINUTE,
    };
    let (session, registered) = ran(&mut log, &job, |log| {
        let now = log.now.millis() / 1000;
        let claims = format!(
            r#"{{"iss":"https://idp.example","aud":"OPENPUBKEY-PKTOKEN:ascribe","iat":{now},"exp":{},
            "sub":"project_path:acme/shop:ref_type:branch:ref:main","project_id":"20","pipeline_id":"574","job_id":"302",
            "ref_path":"refs/heads/main","sha":"0123456789abcdef0123456789abcdef01234567","pipeline_source":"push",
            "user_id":"12","jti":"235b3a54-b797-45c7-ae9a-f72d7bc6ef5b"}}"#,
            now + 3600
        );
        let header = base64url(br#"{"alg":"RS256","kid":"1","typ":"JWT"}"#);
        let signed = format!("{header}.{}", base64url(claims.as_bytes()));
        let mut signature = vec![0; 256];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .unwrap();
        let token = format!("{signed}.{}", base64url(&signature));
        let key = Who::Bot.key(0);
        let mut random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).is_ok();
        let asked = asked(&key, &[]);
        let proof = prove_token(
            &job.provider,
            &job.keys,
            token.as_bytes(),
            &asked,
            &mut random,
        )
        .unwrap();
        (if raw { token } else { proof.clone() }, proof)
    });
    // From now on the provider signs with other keys.
    publish(&mut log, jwks(7), registered);
    log.head("gw");
    let session = log.close(session);
    (log, session)
}

/// Long after the provider has withdrawn its key.
#[test]
fn a_proof_of_a_token_is_checked_and_who_had_the_token_must_be_trusted() {
    let (log, session) = job_of_gitlab(false);
    let bundle = log.bundle(session);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let [proof] = report.logins.as_slice() else {
        panic!("{report:#?}")
    };
    assert_eq!((proof.token, proof.assurance), ("checked", 1));
    assert_eq!(proof.log_trusted_for, ["when it was shown"]);
    let what = proof.holder_trusted_for.unwrap();
    assert!(
        what.contains("could have bound a key of their own"),
        "{what}"
    );
    let text = render(&report);
    assert!(text.contains(what), "{text}");
    let link = &report.actions[0].who.chain[0];
    assert_eq!(link.run.as_ref().unwrap().job.as_deref(), Some("302"));
    assert!(link.missing[0].contains("bound the token to no key"));
}

/// Whatever else the log's operator states: the token itself is not what was shown.
#[test]
fn a_log_whose_server_took_the_token_itself_does_not_verify() {
    let (log, session) = job_of_gitlab(true);
    let bundle = log.bundle(session);
    let code = refused(&bundle.to_bytes().unwrap(), &log.policy());
    assert_eq!(code, "unsigned");
}

#[test]
fn an_action_of_a_pipeline_names_run_code_trigger_and_owner() {
    let log = job();
    let actions = told("workload", &log);
    let link = &actions[0].who.chain[0];
    assert_eq!(link.kind, "workload");
    assert_eq!(link.display.as_deref(), Some("deploy"));
    assert_eq!((link.owner, link.assurance), (Some(Who::Olu.id()), 2));
    let (run, code) = (link.run.as_ref().unwrap(), link.code.as_ref().unwrap());
    assert_eq!(
        (run.provider.as_str(), run.id.as_str()),
        ("github", "16501001")
    );
    assert_eq!(run.attempt.as_deref(), Some("2"));
    assert_eq!(code.repo.as_deref(), Some("42"));
    let trigger = link.trigger.as_ref().unwrap();
    assert_eq!(trigger.event.as_deref(), Some("push"));
    // The provider names who started the first attempt, and not who started this one.
    assert!(!link.missing.is_empty());
}

#[test]
fn actions_are_found_by_run_and_by_commit() {
    let log = job();
    let (mut state, mut fold) = (State::new(super::forge::ORIGIN), Fold::new());
    for (index, bytes) in (0..).zip(&log.bytes) {
        let done = state.apply(&SshSignatures, bytes).unwrap();
        fold.push(index, &done.entry, done.hash);
    }
    let found = |run: Option<&str>, commit: Option<&str>| {
        let filter = Filter {
            run: run.map(str::to_owned),
            commit: commit.map(str::to_owned),
            ..Filter::default()
        };
        let root = log.tree(log.size()).root();
        fold.actions(&state, &filter, root, log.size(), "missing")
            .len()
    };
    for (run, commit, number) in [
        (None, None, 1),
        (Some("16501001"), None, 1),
        (Some("1650100"), None, 0),
        (None, Some("0123456789abcdef0123456789abcdef01234567"), 1),
        (None, Some("0123456"), 1),
        (None, Some("012345"), 0),
        (None, Some("0123457"), 0),
        (Some("16501001"), Some("0123456"), 1),
        (Some("1"), Some("0123456"), 0),
    ] {
        assert_eq!(found(run, commit), number, "{run:?} {commit:?}");
    }
}
