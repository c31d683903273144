//! Providers, logins, workloads: who counts, what a session key may, when it ends.

use super::*;
use crate::identity::{
    Binding, Code, Condition, Fact, IdentityLink, Login, Logout, ProviderKeys, ProviderKind, Run,
    Workload, key_commitment, subject, token_digest,
};

/// The one workload.
pub(super) const BOT: u8 = 80;

fn thumbprint(n: u8) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash([n; 32]))
}
pub(super) fn provider(name: &str, kind: ProviderKind) -> Provider {
    Provider {
        algorithms: vec!["ES256".to_owned()],
        audience: "ascribe".to_owned(),
        issuer: format!("https://{name}.example"),
        jwks_uri: format!("https://{name}.example/keys"),
        kind,
        name: name.to_owned(),
        withdrawn: false,
    }
}
pub(super) fn link(n: u8) -> IdentityLink {
    IdentityLink {
        person: person(n),
        provider: "idp".to_owned(),
        subject: subject("https://idp.example", &format!("user {n}")),
    }
}
fn condition(claim: &str, one_of: &[&str]) -> Condition {
    Condition {
        claim: claim.to_owned(),
        one_of: one_of.iter().map(|v| (*v).to_owned()).collect(),
    }
}
pub(super) fn deploy() -> Workload {
    Workload {
        conditions: vec![
            condition("repository_id", &["42"]),
            condition("ref", &["refs/heads/main", "refs/heads/hotfix"]),
        ],
        confirmed: None,
        name: "deploy".to_owned(),
        owner: person(REQ),
        provider: "ci".to_owned(),
        withdrawn: false,
        workload: person(BOT),
    }
}
pub(super) fn fact(claim: &str, value: &str) -> Fact {
    Fact {
        claim: claim.to_owned(),
        value: value.to_owned(),
    }
}

/// A login in the making: what is stated, and what the token says.
struct Draft {
    by: u8,
    key: SshKey,
    login: Login,
    /// What the token says, where it is not what is stated.
    token: Option<Claims>,
}

impl World {
    pub(super) fn with_providers() -> Self {
        let mut w = Self::plain();
        for say in [
            Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
            Say::ProviderSet(provider("ci", ProviderKind::Github)),
            Say::IdentityLink(link(REQ)),
            Say::IdentityLink(link(PAT)),
            Say::IdentityLink(link(ADA)),
            Say::WorkloadSet(deploy()),
        ] {
            let by = if matches!(&say, Say::IdentityLink(l) if l.person == person(ADA)) {
                BEN
            } else {
                ADA
            };
            w.say(by, say, Vec::new()).unwrap();
        }
        w.publish("idp", &[1, 2]).unwrap();
        w.publish("ci", &[3]).unwrap();
        w
    }
    pub(super) fn publish(&mut self, name: &str, keys: &[u8]) -> Result<(), Denied> {
        self.publish_as(SERVER, |_| (), name, keys)
    }
    fn publish_as(
        &mut self,
        writer: &str,
        edit: impl FnOnce(&mut ProviderKeys),
        name: &str,
        keys: &[u8],
    ) -> Result<(), Denied> {
        let keys: Vec<String> = keys.iter().map(|n| thumbprint(*n).to_string()).collect();
        let mut body = ProviderKeys {
            body: Bytes(keys.join("\n").into_bytes()),
            fetched: self.now,
            headers: vec!["cache-control: max-age=300".to_owned()],
            provider: name.to_owned(),
            uri: format!("https://{name}.example/keys"),
        };
        edit(&mut body);
        self.record(writer, Body::ProviderKeys(body), Vec::new())?;
        Ok(())
    }
    fn claims(&self, binding: Binding, key: u8) -> Claims {
        Claims {
            acr: None,
            amr: vec!["hwk".to_owned()],
            auth_time: None,
            binding,
            code: None,
            expires: self.now.plus_millis(5 * MIN),
            facts: Vec::new(),
            groups: Vec::new(),
            issued: self.now,
            key: thumbprint(key),
            missing: Vec::new(),
            run: None,
            subject: link(REQ).subject,
            trigger: None,
        }
    }
    fn draft(&mut self, by: u8) -> Draft {
        self.count += 1;
        let nth = u8::try_from(self.count % 250).unwrap();
        let (provider, claims) = if by == BOT {
            let claims = Claims {
                code: Some(Code {
                    commit: Some("0123456789abcdef".to_owned()),
                    ..Code::default()
                }),
                facts: vec![fact("ref", "refs/heads/main"), fact("repository_id", "42")],
                run: Some(Run {
                    id: "77".to_owned(),
                    provider: "github".to_owned(),
                    ..Run::default()
                }),
                subject: subject("https://ci.example", "repo:acme/shop"),
                ..self.claims(Binding::Audience, 3)
            };
            ("ci", claims)
        } else {
            let claims = Claims {
                subject: link(by).subject,
                ..self.claims(Binding::Nonce, 1)
            };
            ("idp", claims)
        };
        let login = Login {
            claims,
            digest: thumbprint(0),
            provider: provider.to_owned(),
            rz: Bytes(vec![7; 32]),
            saw: None,
            token: opening("token", "").commitment(),
            until: self.now.plus_millis(8 * HOUR),
        };
        Draft {
            by,
            key: key(240, nth),
            login,
            token: None,
        }
    }
    /// The token and the statement, handed in.
    fn hand_in(&mut self, draft: &Draft) -> Result<StatementId, Denied> {
        let said = draft.token.as_ref().unwrap_or(&draft.login.claims);
        let commitment = key_commitment(&draft.key, &draft.login.rz.0);
        let token = format!("{commitment}\n{}", serde_json::to_string(said).unwrap());
        self.hand_in_token(draft, &token, |_| ())
    }
    fn hand_in_token(
        &mut self,
        draft: &Draft,
        token: &str,
        edit: impl FnOnce(&mut Login),
    ) -> Result<StatementId, Denied> {
        let sealed = opening("token", token);
        let mut login = draft.login.clone();
        login.digest = token_digest(token.as_bytes());
        login.token = sealed.commitment();
        edit(&mut login);
        let statement = self.statement(draft.by, Say::Login(Box::new(login)));
        let signed = sign(&draft.key, &statement);
        self.submit(signed, vec![sealed])?;
        Ok(statement.id)
    }
    pub(super) fn log_in(
        &mut self,
        by: u8,
        edit: impl FnOnce(&mut Login),
    ) -> Result<(StatementId, SshKey), Denied> {
        let mut draft = self.draft(by);
        edit(&mut draft.login);
        let id = self.hand_in(&draft)?;
        Ok((id, draft.key))
    }
    fn open_with(
        &mut self,
        grant: GrantId,
        login: StatementId,
        key: &SshKey,
    ) -> Result<SessionId, Denied> {
        self.open_as(grant, |open| {
            (open.key, open.login) = (key.fingerprint(), Some(login));
        })
    }
    fn open_as(
        &mut self,
        grant: GrantId,
        edit: impl FnOnce(&mut SessionOpen),
    ) -> Result<SessionId, Denied> {
        let (mut open, from) = self.session_for(grant);
        edit(&mut open);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    pub(super) fn say_as(
        &mut self,
        by: u8,
        key: &SshKey,
        say: Say,
        openings: Vec<Opening>,
    ) -> Result<AskRef, Denied> {
        let statement = self.statement(by, say);
        let done = self.submit(sign(key, &statement), openings)?;
        Ok((statement.id, done[0].hash))
    }
    fn grant_for_bot(&mut self) -> GrantId {
        let ask = self
            .request(REQ, |request| request.beneficiary = Some(person(BOT)))
            .unwrap();
        self.approve(PAT, ask).unwrap();
        self.grant_of(ask).unwrap()
    }
}

fn connect() -> Say {
    Say::Connect(Connect {
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    })
}

#[test]
fn a_session_key_acts_like_a_key_until_its_end() {
    let mut w = World::with_providers();
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    let fingerprint = key.fingerprint();
    assert_eq!(
        w.state.person_by_key(w.now, &fingerprint),
        Some(person(REQ))
    );
    let until = w.state.logins[&login].login.until;
    assert_eq!(
        w.state.login_by_key(w.now, &fingerprint),
        Some((login, until))
    );
    assert_eq!(w.state.assurance(&fingerprint), 2);
    let (mut request, why) = w.request_for();
    request.not_before = w.now.plus_millis(7 * HOUR);
    request.not_after = w.now.plus_millis(9 * HOUR);
    let ask = w
        .say_as(REQ, &key, Say::Request(request), vec![why])
        .unwrap();
    w.approve(PAT, ask).unwrap();
    let grant = w.grant_of(ask).unwrap();
    w.after(7 * HOUR);
    // A session names its login; without it, or with another's, the key is nobody's.
    let (other, other_key) = w.log_in(REQ, |_| ()).unwrap();
    for (key, login, code) in [
        (&key, None, "key"),
        (&key, Some(other), "key"),
        (&other_key, Some(login), "key"),
        (&key, Some(StatementId::new([9; 16])), "no-login"),
    ] {
        let done = w.open_as(grant, |open| {
            (open.key, open.login) = (key.fingerprint(), login);
        });
        assert_eq!(no(done), code);
    }
    let session = w.open_with(grant, login, &key).unwrap();
    let end = w.state.logins[&login].login.until;
    assert_eq!(w.standing(session), Standing::Until(end));
    w.intent(session).unwrap();
    w.after(HOUR);
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open_with(grant, login, &key)), "expired");
    assert_eq!(no(w.say_as(REQ, &key, connect(), Vec::new())), "logged-out");
    assert_eq!(w.state.person_by_key(w.now, &fingerprint), None);
    // The enrolled key goes on.
    w.open(grant).unwrap();
}

#[test]
fn a_login_states_what_the_law_demands() {
    let edits: [Edit<Draft>; 25] = [
        (|d| d.by = PAT, "no-identity"),
        (|d| d.by = 99, "no-person"),
        (|d| d.by = BOT, "no-person"),
        (|d| d.login.provider = "ci".into(), "no-workload"),
        (|d| d.login.provider = "other".into(), "no-provider"),
        (
            |d| d.login.claims.subject = link(PAT).subject,
            "no-identity",
        ),
        (|d| d.login.claims.key = thumbprint(3), "token"),
        (|d| d.login.claims.binding = Binding::Audience, "binding"),
        (
            |d| d.login.claims.issued = d.login.claims.issued.plus_millis(MIN + 1),
            "token-time",
        ),
        (
            |d| d.login.claims.issued = d.login.claims.issued.plus_millis(-10 * MIN - 1),
            "token-time",
        ),
        (
            |d| {
                let c = &mut d.login.claims;
                (c.issued, c.expires) =
                    (c.issued.plus_millis(-9 * MIN), c.issued.plus_millis(-MIN));
            },
            "token-time",
        ),
        (
            |d| d.login.claims.expires = d.login.claims.issued.plus_millis(24 * HOUR + 1),
            "token-time",
        ),
        (
            |d| d.login.claims.expires = d.login.claims.issued,
            "token-time",
        ),
        (
            |d| d.login.until = d.login.claims.issued.plus_millis(12 * HOUR + 1),
            "until",
        ),
        (|d| d.login.until = d.login.claims.issued, "until"),
        (|d| d.login.claims.binding = Binding::None, "until"),
        (|d| d.login.rz.0.truncate(31), "rz"),
        (
            |d| d.login.claims.facts = vec![fact("groups", "x")],
            "claims",
        ),
        (|d| d.login.claims.acr = Some("a\u{202e}b".into()), "claims"),
        (|d| d.login.claims.amr = vec!["x".repeat(1025)], "claims"),
        (|d| d.login.claims.missing = vec!["x".into(); 17], "claims"),
        (|d| d.key = key(PAT, 0), "duplicate"),
        (|d| d.key.0.insert_str(0, "sk-"), "key-type"),
        (
            |d| d.key.0 = d.key.0.replace("ssh-ed25519", "ssh-rsa"),
            "key-type",
        ),
        // The token says something else than the login.
        (|d| d.token = Some(d.login.claims.clone()), "claims"),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut w = World::with_providers();
        let mut draft = w.draft(REQ);
        edit(&mut draft);
        if let Some(token) = &mut draft.token {
            token.issued = token.issued.plus_millis(1000);
        }
        assert_eq!(no(w.hand_in(&draft)), code, "{nth}");
    }
    // The edges are good.
    let mut w = World::with_providers();
    w.log_in(REQ, |l| {
        l.claims.issued = l.claims.issued.plus_millis(MIN);
        l.claims.expires = l.claims.issued.plus_millis(24 * HOUR);
        l.until = l.until.plus_millis(4 * HOUR);
    })
    .unwrap();
    w.log_in(REQ, |l| {
        let c = &mut l.claims;
        (c.issued, c.expires) = (
            c.issued.plus_millis(-10 * MIN),
            c.issued.plus_millis(1 - MIN),
        );
    })
    .unwrap();
}

#[test]
fn the_token_is_the_bearers_own_and_shown_once() {
    let mut w = World::with_providers();
    let draft = w.draft(REQ);
    let claims = serde_json::to_string(&draft.login.claims).unwrap();
    let bound = |key: &SshKey| format!("{}\n{claims}", key_commitment(key, &[7; 32]));
    // A thief has the token, and a key of their own.
    let stolen = Draft {
        key: key(241, 0),
        ..w.draft(REQ)
    };
    let token = bound(&draft.key);
    assert_eq!(no(w.hand_in_token(&stolen, &token, |_| ())), "token");
    // Other random bytes make another commitment.
    let done = w.hand_in_token(&draft, &token, |l| l.rz.0 = vec![8; 32]);
    assert_eq!(no(done), "token");
    // The digest names exactly this token, and the seal holds it.
    let done = w.hand_in_token(&draft, &token, |l| l.digest = thumbprint(9));
    assert_eq!(no(done), "token");
    let done = w.hand_in_token(&draft, &token, |l| {
        l.token = opening("token", "x").commitment()
    });
    assert_eq!(no(done), "openings");
    // Somebody else signs what the key's holder would.
    let mut login = draft.login.clone();
    let sealed = opening("token", &token);
    login.token = sealed.commitment();
    let statement = w.statement(REQ, Say::Login(Box::new(login)));
    let mut signed = sign(&draft.key, &statement);
    signed.sig = sign(&key(241, 0), &statement).sig;
    assert_eq!(no(w.submit(signed, vec![sealed])), "token");
    w.hand_in_token(&draft, &token, |_| ()).unwrap();
    // The same key again, with a fresh token.
    let mut again = w.draft(REQ);
    again.key = draft.key.clone();
    again.login.claims.expires = again.login.claims.expires.plus_millis(1);
    assert_eq!(no(w.hand_in(&again)), "duplicate");
    // An unbound token serves one key.
    let unbound = |w: &mut World| {
        let mut draft = w.draft(REQ);
        draft.login.claims.binding = Binding::None;
        draft.login.until = draft.login.claims.expires;
        draft
    };
    let (one, two) = (unbound(&mut w), unbound(&mut w));
    let token = format!("\n{}", serde_json::to_string(&one.login.claims).unwrap());
    w.hand_in_token(&one, &token, |_| ()).unwrap();
    assert_eq!(no(w.hand_in_token(&two, &token, |_| ())), "token-replay");
    // It is remembered for as long as it could be shown, and no longer.
    w.after(6 * MIN - 1);
    assert_eq!(no(w.hand_in_token(&two, &token, |_| ())), "until");
    w.after(1).log_in(PAT, |_| ()).unwrap();
    assert_eq!(w.state.spent.len(), 1);
}

#[test]
fn a_session_key_is_never_anything_else_and_nothing_else_becomes_one() {
    let mut w = World::with_providers();
    let (login, session_key) = w.log_in(REQ, |_| ()).unwrap();
    let enrol_it = |key: &SshKey| {
        Say::KeyAdd(PersonKey {
            person: person(PAT),
            key: key.clone(),
        })
    };
    let ca_of_it = |key: &SshKey| {
        let mut ca = authority("corp");
        ca.keys[0] = key.clone();
        Say::CaSet(ca)
    };
    for say in [enrol_it(&session_key), ca_of_it(&session_key)] {
        assert_eq!(no(w.say(ADA, say, Vec::new())), "duplicate");
    }
    w.say(REQ, Say::Logout(Logout { login }), Vec::new())
        .unwrap();
    assert_eq!(
        no(w.say(ADA, enrol_it(&session_key), Vec::new())),
        "duplicate"
    );
    w.say(ADA, ca_of_it(&key(242, 0)), Vec::new()).unwrap();
    let revoked = PersonKey {
        person: person(REQ),
        key: key(REQ, 1),
    };
    w.say(REQ, Say::KeyRevoke(revoked), Vec::new()).unwrap();
    for (key, code) in [
        (session_key, "duplicate"),
        (key(242, 0), "duplicate"),
        (key(REQ, 1), "revoked"),
    ] {
        let mut draft = w.draft(REQ);
        draft.login.claims.acr = Some("another token".to_owned());
        draft.key = key;
        assert_eq!(no(w.hand_in(&draft)), code);
    }
}

#[test]
fn whatever_a_login_rests_on_ends_it_for_good() {
    type End = fn(&mut World, StatementId) -> (u8, Say);
    let ends: [End; 7] = [
        |_, login| (REQ, Say::Logout(Logout { login })),
        |_, login| (BEN, Say::Logout(Logout { login })),
        |_, _| (REQ, Say::IdentityUnlink(link(REQ))),
        |_, _| (ADA, Say::IdentityUnlink(link(REQ))),
        |_, _| {
            let mut idp = provider("idp", ProviderKind::Oidc);
            idp.withdrawn = true;
            (ADA, Say::ProviderSet(idp))
        },
        |_, _| {
            let mut idp = provider("idp", ProviderKind::Oidc);
            idp.audience = "another".to_owned();
            (ADA, Say::ProviderSet(idp))
        },
        |_, _| {
            let person = person(REQ);
            (ADA, Say::Offboard(Offboard { person }))
        },
    ];
    for (nth, end) in ends.into_iter().enumerate() {
        let mut w = World::with_providers();
        let grant = w.grant(|_| ());
        let (login, key) = w.log_in(REQ, |_| ()).unwrap();
        let session = w.open_with(grant, login, &key).unwrap();
        let (by, say) = end(&mut w, login);
        w.say(by, say, Vec::new()).unwrap();
        let ended = Standing::Ended(CloseReason::Revoked);
        assert_eq!(w.standing(session), ended, "{nth}");
        assert_eq!(no(w.intent(session)), "revoked", "{nth}");
        assert_eq!(no(w.open_with(grant, login, &key)), "revoked", "{nth}");
        assert_eq!(w.state.person_by_key(w.now, &key.fingerprint()), None);
        let said = no(w.say_as(REQ, &key, connect(), Vec::new()));
        assert!(
            ["logged-out", "offboarded"].contains(&said),
            "{nth}: {said}"
        );
        // Its provider comes back, the login does not.
        w.say(
            ADA,
            Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
            vec![],
        )
        .unwrap();
        assert_eq!(w.standing(session), ended, "{nth}");
    }
}

#[test]
fn others_end_no_login_and_take_no_identity() {
    let mut w = World::with_providers();
    let (login, _) = w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(
        no(w.say(PAT, Say::Logout(Logout { login }), vec![])),
        "role"
    );
    assert_eq!(
        no(w.say(PAT, Say::IdentityUnlink(link(REQ)), vec![])),
        "role"
    );
    let unknown = Logout {
        login: StatementId::new([1; 16]),
    };
    assert_eq!(no(w.say(REQ, Say::Logout(unknown), vec![])), "no-login");
    let others = IdentityLink {
        person: person(PAT),
        ..link(REQ)
    };
    assert_eq!(
        no(w.say(PAT, Say::IdentityUnlink(others), vec![])),
        "no-identity"
    );
    w.say(REQ, Say::Logout(Logout { login }), vec![]).unwrap();
    assert_eq!(
        no(w.say(REQ, Say::Logout(Logout { login }), vec![])),
        "settled"
    );
    let (login, _) = w.log_in(REQ, |_| ()).unwrap();
    w.after(8 * HOUR);
    assert_eq!(
        no(w.say(REQ, Say::Logout(Logout { login }), vec![])),
        "settled"
    );
}

#[test]
fn an_identity_stands_for_one_person_by_others_word() {
    let mut w = World::with_providers();
    let edits: [Edit<IdentityLink>; 5] = [
        (|_| (), "duplicate"),
        (|l| l.person = person(REQ), "duplicate"),
        (|l| l.provider = "ci".into(), "provider"),
        (|l| l.provider = "other".into(), "no-provider"),
        (
            |l| {
                l.subject = thumbprint(7);
                l.person = person(BOT);
            },
            "no-person",
        ),
    ];
    for (edit, code) in edits {
        let mut identity = link(PAT);
        edit(&mut identity);
        assert_eq!(no(w.say(ADA, Say::IdentityLink(identity), vec![])), code);
    }
    assert_eq!(no(w.say(PAT, Say::IdentityLink(link(QUI)), vec![])), "role");
    // Nobody says of themself who they are.
    let mut w = World::new(2);
    let idp = Say::ProviderSet(provider("idp", ProviderKind::Oidc));
    let ask = w.say(ADA, idp, vec![]).unwrap();
    w.approve(BEN, ask).unwrap();
    let ask = w.say(BEN, Say::IdentityLink(link(ADA)), vec![]).unwrap();
    assert_eq!(no(w.approve(ADA, ask)), "self-approval");
}

#[test]
fn providers_and_their_keys_are_what_they_must_be() {
    let mut w = World::with_providers();
    let edits: [Edit<Provider>; 13] = [
        (|p| p.name = "Corp IdP".into(), "provider"),
        (|p| p.issuer = String::new(), "provider"),
        (|p| p.issuer = "https://a b".into(), "provider"),
        (|p| p.issuer = "https://a\u{200b}b".into(), "provider"),
        (|p| p.audience = String::new(), "provider"),
        (|p| p.audience = "x".repeat(256), "provider"),
        (
            |p| p.jwks_uri = "http://idp.example/keys".into(),
            "provider",
        ),
        (
            |p| p.jwks_uri = "http://localhost.evil/keys".into(),
            "provider",
        ),
        (|p| p.jwks_uri = "file:///etc/passwd".into(), "provider"),
        (|p| p.algorithms.clear(), "provider"),
        (|p| p.algorithms = vec!["none".into()], "provider"),
        (|p| p.algorithms = vec!["HS256".into()], "provider"),
        (|p| p.algorithms = vec!["ES256".into(); 2], "provider"),
    ];
    for (edit, code) in edits {
        let mut other = provider("other", ProviderKind::Oidc);
        edit(&mut other);
        assert_eq!(no(w.say(ADA, Say::ProviderSet(other), vec![])), code);
    }
    let idp = || provider("idp", ProviderKind::Oidc);
    assert_eq!(no(w.say(PAT, Say::ProviderSet(idp()), vec![])), "role");
    let gone = Provider {
        withdrawn: true,
        ..provider("never", ProviderKind::Oidc)
    };
    assert_eq!(
        no(w.say(ADA, Say::ProviderSet(gone), vec![])),
        "no-provider"
    );
    let edits: [Edit<ProviderKeys>; 6] = [
        (|k| k.provider = "other".into(), "no-provider"),
        (|k| k.uri.push('2'), "provider-keys"),
        (
            |k| k.fetched = k.fetched.plus_millis(-SIGNER_SKEW_MS - 1),
            "provider-keys",
        ),
        (|k| k.headers = vec!["x: y".into(); 17], "provider-keys"),
        (|k| k.headers = vec!["a\nb".into()], "provider-keys"),
        (|k| k.body.0.clear(), "jwks"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.publish_as(SERVER, edit, "idp", &[4])), code);
    }
    assert_eq!(no(w.publish_as("gw", |_| (), "idp", &[4])), "provider-keys");
    // A key that is rotated away counts no more, for new logins.
    let grant = w.grant(|_| ());
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    w.publish("idp", &[2]).unwrap();
    assert_eq!(no(w.log_in(REQ, |_| ())), "token");
    w.log_in(REQ, |l| l.claims.key = thumbprint(2)).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    w.intent(session).unwrap();
    // Another place to publish them starts anew.
    let moved = Provider {
        jwks_uri: "https://idp.example/new".to_owned(),
        ..idp()
    };
    w.say(ADA, Say::ProviderSet(moved), vec![]).unwrap();
    let done = w.log_in(REQ, |l| l.claims.key = thumbprint(2));
    assert_eq!(no(done), "provider-keys");
    w.intent(session).unwrap();
}

#[test]
fn a_replay_without_the_token_still_wants_a_key_that_was_published() {
    let mut w = World::with_providers();
    w.log_in(REQ, |_| ()).unwrap();
    let last = w.log.len() - 1;
    let entry = Entry::from_bytes(&w.log[last]).unwrap();
    let Body::Statement(signed) = &entry.body else {
        panic!("no statement")
    };
    let statement = signed.statement().unwrap();
    let mut forged = statement.clone();
    if let Say::Login(login) = &mut forged.say {
        login.claims.key = thumbprint(9);
    }
    let mut other = entry.clone();
    other.body = Body::Statement(sign(&key(243, 0), &forged));
    let mut state = State::new(ORIGIN);
    for bytes in &w.log[..last] {
        state.apply(&Fake, bytes).unwrap();
    }
    assert_eq!(
        no(state.apply(&Fake, &other.to_bytes().unwrap())),
        "provider-key"
    );
}

#[test]
fn gitlabs_tokens_are_refused() {
    let mut w = World::with_providers();
    let lab = Say::ProviderSet(provider("lab", ProviderKind::Gitlab));
    w.say(ADA, lab, vec![]).unwrap();
    w.publish("lab", &[3]).unwrap();
    let mut rule = deploy();
    rule.provider = "lab".to_owned();
    rule.conditions = vec![condition("project_id", &["7"])];
    w.say(ADA, Say::WorkloadSet(rule), vec![]).unwrap();
    let done = w.log_in(BOT, |l| {
        l.provider = "lab".to_owned();
        l.claims.facts = vec![fact("project_id", "7")];
    });
    assert_eq!(no(done), "gitlab");
}

#[test]
fn a_workload_acts_under_its_own_grant_and_its_owner_answers_for_it() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    assert_eq!(w.state.grants[&grant].grant.person, person(BOT));
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    w.intent(session).unwrap();
    // Signed openings are the workload's as well.
    w.say_as(BOT, &key, connect(), vec![]).unwrap();
    // Its grant lets nobody else in, not even its owner, and theirs not it.
    assert_eq!(
        no(w.open_as(grant, |open| open.person = person(REQ))),
        "outside-grant"
    );
    let own = w.grant(|_| ());
    assert_eq!(no(w.open_with(own, login, &key)), "key");
    // The owner asks for more, ends sessions and takes the grant away.
    let longer = w.now.plus_millis(2 * HOUR);
    let ask = w.extend(REQ, grant, longer).unwrap();
    assert_eq!(no(w.approve(REQ, ask)), "self-approval");
    w.approve(PAT, ask).unwrap();
    w.revoke(REQ, grant).unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
}

#[test]
fn only_the_owner_asks_and_others_say_yes() {
    let mut w = World::with_providers();
    let for_bot = |request: &mut Request| request.beneficiary = Some(person(BOT));
    assert_eq!(no(w.request(PAT, for_bot)), "owner");
    assert_eq!(
        no(w.request(REQ, |r| r.beneficiary = Some(person(PAT)))),
        "no-workload"
    );
    let ask = w.request(REQ, for_bot).unwrap();
    assert_eq!(no(w.approve(REQ, ask)), "self-approval");
    // Somebody else answers for it by now.
    let new_owner = Workload {
        owner: person(PAT),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(new_owner), vec![]).unwrap();
    assert_eq!(no(w.approve(QUI, ask)), "owner");
    let ask = w.request(PAT, for_bot).unwrap();
    assert_eq!(no(w.approve(PAT, ask)), "self-approval");
    w.approve(QUI, ask).unwrap();
}

#[test]
fn a_workload_without_a_living_owner_does_nothing() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let person = person(REQ);
    w.say(ADA, Say::Offboard(Offboard { person }), vec![])
        .unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open_with(grant, login, &key)), "revoked");
    assert_eq!(no(w.log_in(BOT, |_| ())), "orphaned");
    // Somebody adopts it: it logs in again.
    let adopted = Workload {
        owner: self::person(PAT),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(adopted), vec![]).unwrap();
    assert_eq!(no(w.open_with(grant, login, &key)), "revoked");
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    w.open_with(grant, login, &key).unwrap();
}

#[test]
fn a_workloads_token_meets_every_condition_exactly() {
    let edits: [Edit<Login>; 10] = [
        (
            |l| l.claims.facts[0].value = "refs/heads/main2".into(),
            "conditions",
        ),
        (
            |l| l.claims.facts[0].value = "refs/heads/MAIN".into(),
            "conditions",
        ),
        (|l| l.claims.facts[1].value = "042".into(), "conditions"),
        (|l| drop(l.claims.facts.remove(0)), "conditions"),
        (|l| l.claims.facts.clear(), "conditions"),
        (|l| l.claims.facts.push(fact("sub", "x")), "claims"),
        (|l| l.claims.facts.reverse(), "claims"),
        (
            |l| l.claims.facts.push(fact("repository_id", "42")),
            "claims",
        ),
        (|l| l.claims.binding = Binding::Nonce, "binding"),
        (|l| l.claims.binding = Binding::None, "until"),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut w = World::with_providers();
        assert_eq!(no(w.log_in(BOT, edit)), code, "{nth}");
    }
    let mut w = World::with_providers();
    w.log_in(BOT, |l| {
        l.claims.facts[0].value = "refs/heads/hotfix".into()
    })
    .unwrap();
    // A rule that gets narrower ends what it would not let in.
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let mut narrower = deploy();
    narrower.conditions[1].one_of.remove(1);
    w.say(ADA, Say::WorkloadSet(narrower.clone()), vec![])
        .unwrap();
    w.intent(session).unwrap();
    narrower.conditions[1].one_of = vec!["refs/heads/other".to_owned()];
    w.say(ADA, Say::WorkloadSet(narrower), vec![]).unwrap();
    assert_eq!(no(w.intent(session)), "revoked");
    let gone = Workload {
        withdrawn: true,
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(gone), vec![]).unwrap();
    assert_eq!(no(w.log_in(BOT, |_| ())), "withdrawn");
    let asked = w.request(REQ, |request| request.beneficiary = Some(person(BOT)));
    assert_eq!(no(asked), "withdrawn");
}

#[test]
fn a_rule_that_many_could_meet_is_confirmed_in_writing() {
    let rules: [(ProviderKind, &[&str], &str, Option<&str>); 23] = [
        (ProviderKind::Github, &["repository_id", "ref"], "42", None),
        (
            ProviderKind::Github,
            &["repository_id", "environment"],
            "42",
            None,
        ),
        (
            ProviderKind::Github,
            &["repository_id"],
            "42",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository", "ref"],
            "42",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["sub"],
            "repo:a/b:ref:main",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_owner"],
            "acme",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "*",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "refs/tags/*",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref", "event_name"],
            "push",
            None,
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref", "event_name"],
            "pull_request_target",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "refs/pull/7/merge",
            Some("wide-rule"),
        ),
        (ProviderKind::Gitlab, &["project_id"], "7", None),
        (
            ProviderKind::Gitlab,
            &["namespace_path"],
            "acme",
            Some("wide-rule"),
        ),
        (ProviderKind::Buildkite, &["pipeline_id"], "7", None),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug"],
            "x",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug", "organization_slug"],
            "x",
            None,
        ),
        (
            ProviderKind::Circleci,
            &["oidc.circleci.com/project-id"],
            "7",
            None,
        ),
        (
            ProviderKind::Circleci,
            &["oidc.circleci.com/org-id"],
            "7",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Kubernetes,
            &["kubernetes.io/namespace"],
            "x",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Kubernetes,
            &[
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/name",
            ],
            "x",
            None,
        ),
        (ProviderKind::Spiffe, &["sub"], "spiffe://a/b", None),
        (
            ProviderKind::Spiffe,
            &["sub"],
            "spiffe://a/*",
            Some("wide-rule"),
        ),
        (ProviderKind::Workload, &["scope"], "x", Some("wide-rule")),
    ];
    for (kind, claims, value, refused) in rules {
        let mut w = World::plain();
        w.say(ADA, Say::ProviderSet(provider("ci", kind)), vec![])
            .unwrap();
        let mut rule = deploy();
        rule.conditions = claims
            .iter()
            .map(|claim| condition(claim, &[value]))
            .collect();
        let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![]);
        assert_eq!(
            done.err().map(|d| d.code),
            refused,
            "{kind:?} {claims:?} {value}"
        );
        if refused.is_none() {
            continue;
        }
        let (short, short_text) = prose("confirmed", "yes");
        rule.confirmed = Some(short);
        let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![short_text]);
        assert_eq!(no(done), "prose");
        let (text, opening) = prose("confirmed", "every branch of this sandbox may deploy to it");
        rule.confirmed = Some(text);
        w.say(ADA, Say::WorkloadSet(rule), vec![opening]).unwrap();
    }
}

#[test]
fn a_workloads_rule_is_within_bounds() {
    let mut w = World::with_providers();
    let edits: [Edit<Workload>; 15] = [
        (|r| r.name = "Deploy".into(), "workload"),
        (|r| r.workload = person(81), "duplicate"),
        (|r| r.workload = person(PAT), "duplicate"),
        (|r| r.owner = person(99), "no-person"),
        (|r| r.owner = person(BOT), "no-person"),
        (|r| r.provider = "other".into(), "no-provider"),
        (|r| r.provider = "idp".into(), "workload"),
        (|r| r.conditions.clear(), "workload"),
        (
            |r| r.conditions = vec![r.conditions[0].clone(); 17],
            "workload",
        ),
        (|r| r.conditions.push(r.conditions[0].clone()), "workload"),
        (|r| r.conditions[0].claim = "a\u{202e}".into(), "workload"),
        (|r| r.conditions[0].one_of.clear(), "workload"),
        (|r| r.conditions[0].one_of.push("42".into()), "workload"),
        (|r| r.conditions[0].one_of = vec![" 42".into()], "workload"),
        (
            |r| r.conditions[0].one_of = vec!["x".repeat(513)],
            "workload",
        ),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut rule = deploy();
        edit(&mut rule);
        let done = w.say(ADA, Say::WorkloadSet(rule), vec![]);
        assert_eq!(no(done), code, "{nth}");
    }
    assert_eq!(no(w.say(PAT, Say::WorkloadSet(deploy()), vec![])), "role");
    let person = person(PAT);
    w.say(ADA, Say::Offboard(Offboard { person }), vec![])
        .unwrap();
    let left = Workload {
        owner: person,
        ..deploy()
    };
    assert_eq!(no(w.say(ADA, Say::WorkloadSet(left), vec![])), "owner");
    let (mut add, name) = enrol(BOT, &[]);
    add.person = self::person(BOT);
    assert_eq!(no(w.say(ADA, Say::PersonAdd(add), vec![name])), "duplicate");
}

#[test]
fn a_workload_only_acts() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let theirs = w.grant(|_| ());
    let others = w.open(theirs).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let (request, why) = w.request_for();
    let (reason, because) = prose("reason", "no longer needed");
    let query = opening("query", "q");
    let read = |view, session| {
        Say::Read(Read {
            view,
            query: query.commitment(),
            request: None,
            session,
        })
    };
    let refused: Vec<(Say, Vec<Opening>)> = vec![
        (Say::Request(request), vec![why]),
        (Say::Approval(answer(ask)), vec![]),
        (Say::Denial(answer(ask)), vec![]),
        (Say::Cancellation(answer(ask)), vec![]),
        (Say::Use(UseGrant { grant }), vec![]),
        (Say::Revocation(Revocation { grant, reason }), vec![because]),
        (Say::WorkloadSet(deploy()), vec![]),
        (Say::TargetSet(target("db2")), vec![]),
        (Say::IdentityUnlink(link(REQ)), vec![]),
        (read(View::Registry, None), vec![query.clone()]),
        (read(View::Actions, None), vec![query.clone()]),
        (read(View::Watch, Some(session)), vec![query.clone()]),
    ];
    for (say, openings) in refused {
        let tag = say.tag();
        assert_eq!(no(w.say_as(BOT, &key, say, openings)), "workload", "{tag}");
    }
    let done = w.say_as(
        BOT,
        &key,
        read(View::Replay, Some(others)),
        vec![query.clone()],
    );
    assert_eq!(no(done), "role");
    w.say_as(
        BOT,
        &key,
        read(View::Replay, Some(session)),
        vec![query.clone()],
    )
    .unwrap();
    // Nobody makes more of it than that.
    let pair = PersonKey {
        person: person(BOT),
        key: self::key(BOT, 0),
    };
    let leaver = Offboard {
        person: person(BOT),
    };
    let mut owned = target("db1");
    owned.break_glass = vec![person(BOT)];
    for say in [
        Say::KeyAdd(pair),
        Say::Offboard(leaver),
        Say::TargetSet(owned),
    ] {
        assert_eq!(no(w.say(ADA, say, vec![])), "no-person");
    }
    w.say_as(BOT, &key, Say::Logout(Logout { login }), vec![])
        .unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
}

#[test]
fn assurance_is_derived_and_targets_ask_for_it() {
    let mut w = World::with_providers();
    let unbound = |l: &mut Login| {
        l.claims.binding = Binding::None;
        l.until = l.claims.expires;
    };
    let (device, device_key) = w.log_in(REQ, unbound).unwrap();
    let (browser, browser_key) = w.log_in(REQ, |_| ()).unwrap();
    let (job, job_key) = w.log_in(BOT, unbound).unwrap();
    let (_, weak_pat) = w.log_in(PAT, unbound).unwrap();
    let (_, weak_ada) = w.log_in(ADA, unbound).unwrap();
    for (key, level) in [
        (&device_key, 0),
        (&browser_key, 2),
        (&job_key, 1),
        (&key(REQ, 0), 2),
        (&key(99, 0), 0),
    ] {
        assert_eq!(w.state.assurance(&key.fingerprint()), level);
    }
    let (grant, for_bot) = (w.grant(|_| ()), w.grant_for_bot());
    let mut strict = target("db1");
    strict.actor_assurance = Some(1);
    w.say(ADA, Say::TargetSet(strict.clone()), vec![]).unwrap();
    assert_eq!(no(w.open_with(grant, device, &device_key)), "assurance");
    w.open_with(for_bot, job, &job_key).unwrap();
    strict.actor_assurance = Some(2);
    strict.approver_assurance = Some(2);
    w.say(ADA, Say::TargetSet(strict.clone()), vec![]).unwrap();
    assert_eq!(no(w.open_with(for_bot, job, &job_key)), "assurance");
    w.open_with(grant, browser, &browser_key).unwrap();
    w.open(grant).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let yes = |ask| Say::Approval(answer(ask));
    assert_eq!(no(w.say_as(PAT, &weak_pat, yes(ask), vec![])), "assurance");
    let (_, strong_pat) = w.log_in(PAT, |_| ()).unwrap();
    w.say_as(PAT, &strong_pat, yes(ask), vec![]).unwrap();
    // What changes the law is never carried by a bearer token.
    let say = Say::TargetSet(strict.clone());
    assert_eq!(no(w.say_as(ADA, &weak_ada, say, vec![])), "assurance");
    // Nothing reaches 3 yet, so nobody is locked out by asking for it.
    strict.actor_assurance = Some(3);
    assert_eq!(no(w.say(ADA, Say::TargetSet(strict), vec![])), "target");
}

#[test]
fn a_proposal_is_not_carried_by_a_bearer_token() {
    let mut w = World::new(2);
    let both = |w: &mut World, by: u8, second: u8, say: Say| {
        let ask = w.say(by, say, vec![]).unwrap();
        w.approve(second, ask).unwrap();
    };
    both(
        &mut w,
        ADA,
        BEN,
        Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
    );
    let (add, name) = enrol(70, &[Role::Admin]);
    let ask = w.say(ADA, Say::PersonAdd(add), vec![name]).unwrap();
    w.approve(BEN, ask).unwrap();
    both(&mut w, ADA, 70, Say::IdentityLink(link(BEN)));
    w.publish("idp", &[1]).unwrap();
    let (_, weak) = w
        .log_in(BEN, |l| {
            l.claims.binding = Binding::None;
            l.until = l.claims.expires;
        })
        .unwrap();
    let ask = w.say(ADA, Say::TargetSet(target("db1")), vec![]).unwrap();
    let yes = Say::Approval(answer(ask));
    assert_eq!(no(w.say_as(BEN, &weak, yes.clone(), vec![])), "assurance");
    let (_, strong) = w.log_in(BEN, |_| ()).unwrap();
    w.say_as(BEN, &strong, yes, vec![]).unwrap();
}

#[test]
fn an_actor_has_a_bounded_number_of_logins() {
    let mut w = World::with_providers();
    let log_in = |w: &mut World, nth: u16| {
        let mut draft = w.draft(REQ);
        let blob = Sha256::digest(format!("session {nth}"));
        draft.key = SshKey(format!("ssh-ed25519 {}", encoding::base64_std(&blob)));
        draft.login.claims.expires = draft.login.claims.expires.plus_millis(i64::from(nth));
        w.hand_in(&draft)
    };
    for nth in 0..256 {
        log_in(&mut w, nth).unwrap();
    }
    assert_eq!(no(log_in(&mut w, 256)), "too-many");
    w.after(8 * HOUR);
    log_in(&mut w, 257).unwrap();
    assert_eq!(w.state.live_logins.len(), 1);
}

#[test]
fn logins_come_back_from_a_snapshot() {
    let mut w = World::with_providers();
    let (ended, _) = w.log_in(REQ, |_| ()).unwrap();
    w.log_in(BOT, |_| ()).unwrap();
    w.say(REQ, Say::Logout(Logout { login: ended }), vec![])
        .unwrap();
    let back = State::from_snapshot(&w.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(fingerprint(&back), fingerprint(&w.state));
}

#[test]
fn a_token_is_withheld_until_it_has_expired() {
    let mut w = World::with_providers();
    w.log_in(REQ, |_| ()).unwrap();
    let entry = Entry::from_bytes(w.log.last().unwrap()).unwrap();
    let until = withheld_until(&entry.body);
    assert_eq!(until, Some(w.now.plus_millis(6 * MIN)));
    let first = Entry::from_bytes(&w.log[0]).unwrap();
    assert_eq!(withheld_until(&first.body), None);
}

#[test]
fn the_issuer_of_x509_svids_is_their_trust_domain() {
    for (issuer, refused) in [
        ("spiffe://example.org", None),
        ("spiffe://", Some("provider")),
        ("spiffe://Example.org", Some("provider")),
        ("spiffe://example.org/a", Some("provider")),
        ("https://example.org", Some("provider")),
    ] {
        let mut w = World::plain();
        let mut mesh = provider("mesh", ProviderKind::SpiffeX509);
        mesh.issuer = issuer.into();
        let done = w.say(ADA, Say::ProviderSet(mesh), vec![]);
        assert_eq!(done.err().map(|d| d.code), refused, "{issuer}");
    }
}
