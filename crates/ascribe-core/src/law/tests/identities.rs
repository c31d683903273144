//! Providers, logins, workloads: who counts, what a session key may, when it ends.

use super::*;
use crate::identity::{
    Binding, Code, Condition, Fact, IdentityLink, Login, Logout, Protection, ProviderKeys,
    ProviderKind, Run, Workload, key_commitment, subject, token_digest,
};

mod agents;
mod assurance;
mod authn;
mod bearers;
mod logins;
mod observers;
mod providers;
mod refusals;
mod workloads;

/// The one workload.
pub(super) const BOT: u8 = 80;

fn thumbprint(n: u8) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash([n; 32]))
}
pub(super) fn provider(name: &str, kind: ProviderKind) -> Provider {
    Provider {
        algorithms: vec!["ES256".to_owned()],
        audience: "ascribe".to_owned(),
        authn: None,
        issuer: format!("https://{name}.example"),
        jwks_uri: format!("https://{name}.example/keys"),
        kind,
        max_keys_age_seconds: None,
        name: name.to_owned(),
        observers: None,
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
pub(super) struct Draft {
    by: u8,
    key: SshKey,
    pub(super) login: Login,
    /// What the token says, where it is not what is stated.
    pub(super) token: Option<Claims>,
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
            managers: Vec::new(),
            missing: Vec::new(),
            protection: None,
            run: None,
            subject: link(REQ).subject,
            trigger: None,
        }
    }
    pub(super) fn draft(&mut self, by: u8) -> Draft {
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
            bearer: false,
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
    pub(super) fn hand_in(&mut self, draft: &Draft) -> Result<StatementId, Denied> {
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
        definition: None,
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    })
}
