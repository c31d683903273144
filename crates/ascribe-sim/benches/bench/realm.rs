//! A log in memory with people, workloads and their providers, by the law alone: no disk, no server. The
//! signatures are real, the clock is not.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use ascribe_core::delegation::{Acceptance, Asserted, Delegation};
use ascribe_core::encoding::{Bytes, base64url, from_base64url};
use ascribe_core::entry::{
    Body, CloseReason, Door, Genesis, Intent, OpenedBy, Outcome, SessionClose, SessionOpen, Status,
    WriterKey,
};
use ascribe_core::id::{
    ActionId, ContentDigest, EntryHash, EntryId, GrantId, PersonId, Root, SessionId, StatementId,
    derived,
};
use ascribe_core::identity::{
    Condition, IdentityLink, Login, Provider, ProviderKeys, ProviderKind, Workload, key_commitment,
    subject, token_digest,
};
use ascribe_core::law::{Judge as _, SERVER, State, TokenAsked};
use ascribe_core::record::{Proposal, Scope};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{
    Answer, Connect, OverCap, PersonAdd, Request, Role, Say, Seen, Signed, SshKey, Statement,
    Target,
};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, dearmour, parse_public_key};
use ascribe_tlog::{Checkpoint, Frontier, Hash, SigningKey, leaf_hash};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::Plan;
use crate::identity::Bare;
use crate::read::Full;
use crate::svid::{self, Domain};

const ORIGIN: &str = "bench.example/actors";
/// Of each kind of actor.
const ACTORS: u8 = 16;
const GATEWAY: &str = "gateway";
const ADMIN: u8 = 255;
const HOUR: i64 = 3_600_000;
const RZ: [u8; 32] = [7; 32];
/// Steps of each chain of delegations.
const DEPTH: u8 = 4;

/// How somebody shows who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Key,
    PersonsLogin,
    WorkloadsLogin,
    /// A workload's X.509-SVID.
    Svid,
    /// The fourth agent in a chain that a person began.
    Agent,
}

/// Somebody who acts, under a grant.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) by: By,
    pub(crate) grant: GrantId,
    id: PersonId,
    n: u8,
}

/// The log and everybody's keys.
pub(crate) struct Realm {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    begun: Timestamp,
    entries: Vec<Vec<u8>>,
    log: SigningKey,
    count: u64,
    grants: Vec<(By, u8, GrantId)>,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    domain: Domain,
    /// Of each person the chain of delegations that they began: each one's id and its agent's seed.
    chains: Vec<Vec<(StatementId, [u8; 32])>>,
}

fn person(n: u8) -> PersonId {
    PersonId::new([n; 16])
}

fn workload(n: u8) -> PersonId {
    PersonId::new([n + ACTORS; 16])
}

fn service(n: u8) -> PersonId {
    PersonId::new([n + 2 * ACTORS; 16])
}

fn agent_seed(n: u8, step: u8) -> [u8; 32] {
    let mut seed = [n; 32];
    seed[31] = 200 + step;
    seed
}

fn ssh_key(seed: [u8; 32]) -> Result<(PrivateKey, SshKey)> {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let public = parse_public_key(&key.public_key().to_openssh()?)?;
    Ok((key, public))
}

fn provider(name: &str, kind: ProviderKind, algorithm: &str) -> Provider {
    Provider {
        algorithms: vec![algorithm.to_owned()],
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

fn repository(n: u8) -> String {
    (7000 + u32::from(n)).to_string()
}

fn prose(field: &str, text: &str) -> (Prose, Opening) {
    let opening = Opening::new(field, [9; 32], text.as_bytes().to_vec());
    (Prose::of(&opening), opening)
}

/// Modulus and exponent of a key of 2048 bits: at the same places in every such RSAPublicKey (RFC 8017, A.1.1).
fn rsa_jwk(key: &RsaKeyPair, kid: &str) -> Result<Value> {
    let der = key.public_key().as_ref();
    let (n, e) = der.get(9..265).zip(der.get(267..270)).context("key")?;
    let (n, e) = (base64url(n), base64url(e));
    Ok(json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e}))
}

fn p256_jwk(key: &EcdsaKeyPair, kid: &str) -> Result<Value> {
    let point = key.public_key().as_ref();
    let (x, y) = point.get(1..33).zip(point.get(33..65)).context("key")?;
    let (x, y) = (base64url(x), base64url(y));
    Ok(
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": x, "y": y}),
    )
}

fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

fn new_p256() -> Result<EcdsaKeyPair> {
    Ok(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)
}

impl Realm {
    /// People, workloads, one target, and a grant on it for each of them.
    pub(crate) fn new() -> Result<Self> {
        let mut realm = Self {
            state: State::new(ORIGIN),
            now: Timestamp::from_millis(0),
            begun: Timestamp::from_millis(0),
            entries: Vec::new(),
            log: SigningKey::from_seed(ORIGIN, &[1; 32])?,
            count: 0,
            grants: Vec::new(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048)?,
            p256: new_p256()?,
            domain: Domain::new(ACTORS)?,
            chains: Vec::new(),
        };
        // Certificates begin when they are made.
        realm.begun = Timestamp::from_millis(now()?);
        realm.now = realm.begun;
        realm.begin()?;
        realm.enrol()?;
        for n in 0..ACTORS {
            let grant = realm.grant(n, None)?;
            realm.grants.push((By::Key, n, grant));
            realm.grants.push((By::PersonsLogin, n, grant));
            realm.grants.push((By::Agent, n, grant));
            let grant = realm.grant(n, Some(workload(n)))?;
            realm.grants.push((By::WorkloadsLogin, n, grant));
            let grant = realm.grant(n, Some(service(n)))?;
            realm.grants.push((By::Svid, n, grant));
            realm.delegate(n)?;
        }
        Ok(realm)
    }

    fn begin(&mut self) -> Result<()> {
        let name = Opening::new("name", [3; 32], b"Ada".to_vec());
        let writer = |id: &str| -> Result<WriterKey> {
            let key = SigningKey::from_seed(id, &[2; 32])?;
            Ok(WriterKey {
                id: id.to_owned(),
                key: Bytes(key.verifier().public_key().to_vec()),
            })
        };
        let genesis = Genesis {
            log_key: self.log.verifier().to_string(),
            admins: vec![PersonAdd {
                person: person(ADMIN),
                name: name.commitment(),
                keys: vec![ssh_key([ADMIN; 32])?.1],
                roles: vec![Role::Admin, Role::Approver],
            }],
            admin_quorum: 1,
            writers: vec![writer(SERVER)?, writer(GATEWAY)?],
        };
        self.record(SERVER, Body::Genesis(genesis), vec![name])?;
        let target = Target {
            addresses: vec!["127.0.0.1".into()],
            loopback: true,
            max_seconds: 24 * 3600,
            min_justification: 10,
            review_seconds: 3600,
            stream_cap: 1 << 20,
            over_cap: OverCap::Refuse,
            actor_assurance: Some(2),
            approver_assurance: Some(2),
            ..Target::ssh(
                "db1",
                ("db1.example", 22),
                ssh_key([254; 32])?.1,
                "root",
                person(ADMIN),
            )
        };
        self.decree(Say::TargetSet(target), vec![])
    }

    /// People, the providers with two more keys each than are used, and whom their tokens mean.
    fn enrol(&mut self) -> Result<()> {
        let other = RsaKeyPair::generate(KeySize::Rsa2048)?;
        for (kind, name, algorithm) in [
            (ProviderKind::Oidc, "idp", "RS256"),
            (ProviderKind::Github, "ci", "ES256"),
        ] {
            let provider = provider(name, kind, algorithm);
            let uri = provider.jwks_uri.clone();
            self.decree(Say::ProviderSet(provider), vec![])?;
            let set = json!({"keys": [
                rsa_jwk(&other, "old")?,
                rsa_jwk(&self.rsa, "rsa")?,
                p256_jwk(&self.p256, "ec")?,
            ]});
            self.publish(name, uri, &set)?;
        }
        let root = Provider {
            issuer: svid::DOMAIN.to_owned(),
            ..provider("spire", ProviderKind::SpiffeX509, "ES256")
        };
        let uri = root.jwks_uri.clone();
        self.decree(Say::ProviderSet(root), vec![])?;
        let bundle = self.domain.bundle()?;
        self.publish("spire", uri, &bundle)?;
        for n in 0..ACTORS {
            let name = Opening::new("name", [n; 32], format!("person {n}").into_bytes());
            let add = PersonAdd {
                person: person(n),
                name: name.commitment(),
                keys: vec![ssh_key([n; 32])?.1],
                roles: vec![Role::Requester],
            };
            self.decree(Say::PersonAdd(add), vec![name])?;
            let link = IdentityLink {
                person: person(n),
                provider: "idp".to_owned(),
                subject: subject("https://idp.example", &format!("user-{n}")),
            };
            self.decree(Say::IdentityLink(link), vec![])?;
            let condition = |claim: &str, value: String| Condition {
                claim: claim.to_owned(),
                one_of: vec![value],
            };
            let deploy = Workload {
                conditions: vec![
                    condition("ref", "refs/heads/main".to_owned()),
                    condition("repository_id", repository(n)),
                ],
                confirmed: None,
                name: format!("deploy-{n}"),
                owner: person(n),
                provider: "ci".to_owned(),
                withdrawn: false,
                workload: workload(n),
            };
            self.decree(Say::WorkloadSet(deploy), vec![])?;
            let service = Workload {
                conditions: vec![condition("sub", svid::id(n))],
                confirmed: None,
                name: format!("service-{n}"),
                owner: person(n),
                provider: "spire".to_owned(),
                withdrawn: false,
                workload: service(n),
            };
            self.decree(Say::WorkloadSet(service), vec![])?;
        }
        Ok(())
    }

    fn publish(&mut self, name: &str, uri: String, set: &Value) -> Result<()> {
        let keys = ProviderKeys {
            body: Bytes(set.to_string().into_bytes()),
            fetched: self.now,
            headers: vec![],
            provider: name.to_owned(),
            uri,
        };
        self.record(SERVER, Body::ProviderKeys(keys), vec![])
    }

    /// A chain of four agents below a person, each of which took what the one above handed on.
    fn delegate(&mut self, n: u8) -> Result<()> {
        self.chains.push(Vec::new());
        for step in 1..=DEPTH {
            let seed = agent_seed(n, step);
            let (id, delegation) = self.handed_on(n, step, &seed)?;
            let entry = self.take(delegation)?;
            let acceptance = Say::Acceptance(Acceptance {
                asserted: Asserted::default(),
                entry,
                of: id,
            });
            let (_, acceptance) = self.statement(person(n), &seed, acceptance, vec![])?;
            self.take(acceptance)?;
            let chain = self.chains.last_mut().context("no chain")?;
            chain.push((id, seed));
        }
        Ok(())
    }

    /// What the agent above hands on at that step of a person's chain, to the key of that seed.
    fn handed_on(&mut self, n: u8, step: u8, to: &[u8; 32]) -> Result<(StatementId, Proposal)> {
        let chain = self.chains.get(usize::from(n)).context("no chain")?;
        let above = chain.get(..usize::from(step) - 1).and_then(<[_]>::last);
        let (parent, seed) = above
            .copied()
            .map_or((None, [n; 32]), |(id, seed)| (Some(id), seed));
        let (task, opening) = prose("task", "rotate the logs of the order database");
        let delegation = Say::Delegation(Delegation {
            actions: 1_000_000,
            agent: format!("bot-{step}"),
            depth: DEPTH - step,
            key: ssh_key(*to)?.1,
            kinds: vec!["ssh.exec".to_owned()],
            parent,
            targets: vec!["db1".to_owned()],
            task,
            until: self.begun.plus_millis(20 * HOUR),
        });
        self.statement(person(n), &seed, delegation, vec![opening])
    }

    /// The last step of an actor's chain, to a fresh agent.
    pub(crate) fn last_step(&mut self, actor: &Actor) -> Result<Proposal> {
        let seed = self.seed();
        Ok(self.handed_on(actor.n, DEPTH, &seed)?.1)
    }

    fn grant(&mut self, n: u8, beneficiary: Option<PersonId>) -> Result<GrantId> {
        let (justification, why) = prose("justification", "restart the stuck replica of orders");
        let request = Request {
            beneficiary,
            ..Request::plain(
                "db1",
                "root",
                (self.now, self.now.plus_millis(20 * HOUR)),
                justification,
            )
        };
        let (id, request) =
            self.statement(person(n), &[n; 32], Say::Request(request), vec![why])?;
        let entry = self.take(request)?;
        let answer = Answer {
            of: id,
            entry,
            remark: None,
        };
        let known: Vec<GrantId> = self.state.grants.keys().copied().collect();
        self.decree(Say::Approval(answer), vec![])?;
        let mut grants = self.state.grants.keys();
        let new = grants.find(|grant| !known.contains(grant));
        new.copied().context("no grant came of it")
    }

    /// The actors of one kind.
    pub(crate) fn actors(&self, by: By) -> Vec<Actor> {
        let own = self.grants.iter().filter(|(kind, ..)| *kind == by);
        own.map(|(by, n, grant)| Actor {
            by: *by,
            grant: *grant,
            id: match by {
                By::Key | By::PersonsLogin | By::Agent => person(*n),
                By::WorkloadsLogin => workload(*n),
                By::Svid => service(*n),
            },
            n: *n,
        })
        .collect()
    }

    fn fresh(&mut self) -> [u8; 16] {
        self.count += 1;
        derived("bench", &[&self.count.to_le_bytes()])
    }

    fn propose(&mut self, writer: &str, body: Body, openings: Vec<Opening>) -> Proposal {
        Proposal {
            id: EntryId::new(self.fresh()),
            writer: writer.to_owned(),
            body,
            openings,
            scope: Scope::None,
        }
    }

    /// The law takes it in. Returns the hash of its entry.
    fn take(&mut self, proposal: Proposal) -> Result<EntryHash> {
        let done = self.state.sequence(&SshSignatures, self.now, &proposal)?;
        let first = done.first().map(|entry| entry.hash);
        self.entries.extend(done.into_iter().map(|e| e.bytes));
        first.context("nothing was taken")
    }

    fn record(&mut self, writer: &str, body: Body, openings: Vec<Opening>) -> Result<()> {
        let proposal = self.propose(writer, body, openings);
        self.take(proposal).map(drop)
    }

    fn statement(
        &mut self,
        by: PersonId,
        seed: &[u8; 32],
        say: Say,
        openings: Vec<Opening>,
    ) -> Result<(StatementId, Proposal)> {
        let id = StatementId::new(self.fresh());
        let statement = Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by,
            at: self.now,
            id,
            seen: Seen {
                size: 0,
                root: Root(Hash::ZERO),
            },
            say,
        };
        let text = statement.to_text()?;
        let (key, _) = ssh_key(*seed)?;
        let namespace = statement.say.namespace();
        let sig = key.sign(&namespace, HashAlg::Sha512, text.as_bytes())?;
        let sig = Bytes(dearmour(&sig.to_pem(LineEnding::LF)?)?);
        let body = Body::Statement(Signed { text, sig });
        Ok((id, self.propose(SERVER, body, openings)))
    }

    /// A statement by an actor's enrolled key.
    pub(crate) fn says(&mut self, actor: &Actor, say: Say, with: Vec<Opening>) -> Result<Proposal> {
        Ok(self.statement(actor.id, &[actor.n; 32], say, with)?.1)
    }

    fn decree(&mut self, say: Say, openings: Vec<Opening>) -> Result<()> {
        let (_, proposal) = self.statement(person(ADMIN), &[ADMIN; 32], say, openings)?;
        self.take(proposal).map(drop)
    }

    fn token(&self, actor: &Actor, commitment: &str) -> Result<Vec<u8>> {
        if actor.by == By::Svid {
            return self.domain.proof(actor.n, commitment);
        }
        let now = self.now.millis() / 1000;
        let (header, claims) = if actor.by == By::PersonsLogin {
            let claims = json!({
                "acr": "urn:example:mfa", "amr": ["pwd", "otp"], "aud": "ascribe", "auth_time": now - 60,
                "email": "someone@mail.example", "email_verified": true, "exp": now + 3600,
                "groups": ["staff", "admins"], "iat": now, "iss": "https://idp.example",
                "nonce": commitment, "sub": format!("user-{}", actor.n),
            });
            (json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}), claims)
        } else {
            let claims = json!({
                "actor": "example-account", "actor_id": "12", "aud": format!("ascribe:{commitment}"),
                "check_run_id": "48765432101", "event_name": "workflow_dispatch", "exp": now + 300,
                "iat": now, "iss": "https://ci.example", "jti": commitment,
                "ref": "refs/heads/main", "repository": "example-org/app",
                "repository_id": repository(actor.n), "repository_owner_id": "65",
                "run_attempt": "1", "run_id": self.count.to_string(), "run_number": "10",
                "runner_environment": "github-hosted",
                "sha": "0123456789abcdef0123456789abcdef01234567",
                "sub": "repo:example-org@65/app@74:ref:refs/heads/main",
                "workflow_ref": "example-org/app/.github/workflows/ci.yml@refs/heads/main",
                "workflow_sha": "0123456789abcdef0123456789abcdef01234567",
            });
            (json!({"alg": "ES256", "kid": "ec", "typ": "JWT"}), claims)
        };
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let random = SystemRandom::new();
        let signature = if actor.by == By::PersonsLogin {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            let bytes = message.as_bytes();
            self.rsa
                .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)?;
            signature
        } else {
            let signature = self.p256.sign(&random, message.as_bytes())?;
            signature.as_ref().to_vec()
        };
        Ok(format!("{message}.{}", base64url(&signature)).into_bytes())
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [128; 32];
        for (to, from) in seed.iter_mut().zip(self.fresh()) {
            *to = from;
        }
        seed
    }

    /// A login with a token and a key of its own, which it returns.
    pub(crate) fn log_in(&mut self, actor: &Actor) -> Result<(Proposal, (StatementId, [u8; 32]))> {
        let seed = self.seed();
        let (_, key) = ssh_key(seed)?;
        let token = self.token(actor, &key_commitment(&key, &RZ))?;
        let provider = match actor.by {
            By::PersonsLogin => "idp",
            By::Svid => "spire",
            By::Key | By::WorkloadsLogin | By::Agent => "ci",
        };
        let known = self.state.providers.get(provider).context("no provider")?;
        let keys = known.keys.as_ref().context("no keys")?;
        let asked = TokenAsked {
            key: &key,
            rz: &RZ,
            groups: &[],
            managers: &[],
            facts: match actor.by {
                By::WorkloadsLogin => &["ref", "repository_id"],
                By::Svid => &["sub"],
                By::Key | By::PersonsLogin | By::Agent => &[],
            },
        };
        let claims = SshSignatures.token(&known.provider, &keys.body.0, &token, &asked)?;
        let sealed = Opening::new("token", [4; 32], token);
        let login = Login {
            bearer: false,
            digest: token_digest(&sealed.bytes.0),
            provider: provider.to_owned(),
            rz: Bytes(RZ.to_vec()),
            saw: Some(claims.key),
            claims,
            token: sealed.commitment(),
            until: self.now.plus_millis(HOUR),
        };
        let (id, login) =
            self.statement(actor.id, &seed, Say::Login(Box::new(login)), vec![sealed])?;
        Ok((login, (id, seed)))
    }

    /// The signatures that a login's token holds, each with the key that made it, parsed.
    pub(crate) fn bare(&self, actor: &Actor, proposal: &Proposal) -> Result<Vec<Bare>> {
        let token = proposal.openings.first().context("a login has its token")?;
        let token = &token.bytes.0;
        if actor.by == By::Svid {
            let Body::Statement(signed) = &proposal.body else {
                anyhow::bail!("not a statement");
            };
            let key =
                SshSignatures.sshsig("ascribe.login.v1", signed.text.as_bytes(), &signed.sig.0);
            let commitment = key_commitment(&key.context("signature")?, &RZ);
            return self.domain.bare(actor.n, &commitment, token);
        }
        let (message, signature) = std::str::from_utf8(token)?
            .rsplit_once('.')
            .context("token")?;
        let key = if actor.by == By::PersonsLogin {
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.rsa.public_key().as_ref())?
        } else {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.p256.public_key().as_ref())?
        };
        Ok(vec![Bare {
            key,
            message: message.as_bytes().to_vec(),
            signature: from_base64url(signature).context("no signature")?,
        }])
    }

    /// Namespace, text and signature of a proposed statement.
    pub(crate) fn signature(proposal: &Proposal) -> Result<(String, &[u8], &[u8])> {
        let Body::Statement(signed) = &proposal.body else {
            anyhow::bail!("not a statement");
        };
        let namespace = signed.statement()?.say.namespace();
        Ok((namespace, signed.text.as_bytes(), &signed.sig.0))
    }

    /// One session that its actor signed, after a login where there is one.
    fn session(&mut self, actor: &Actor, execs: usize) -> Result<()> {
        let (delegation, login, seed) = match actor.by {
            By::Key => (None, None, [actor.n; 32]),
            By::Agent => {
                let chain = self.chains.get(usize::from(actor.n));
                let (id, seed) = chain.and_then(|chain| chain.last()).context("no agent")?;
                (Some(*id), None, *seed)
            }
            By::PersonsLogin | By::WorkloadsLogin | By::Svid => {
                let (login, (id, seed)) = self.log_in(actor)?;
                self.take(login)?;
                (None, Some(id), seed)
            }
        };
        let connect = Say::Connect(Connect {
            definition: None,
            target: "db1".to_owned(),
            account: "root".to_owned(),
            grant: Some(actor.grant),
        });
        let (opening, connect) = self.statement(actor.id, &seed, connect, vec![])?;
        self.take(connect)?;
        let session = SessionId::new(self.fresh());
        let from = Opening::new("from", [6; 32], b"192.0.2.1".to_vec());
        let open = SessionOpen {
            delegation,
            session,
            grant: actor.grant,
            person: actor.id,
            key: ssh_key(seed)?.1.fingerprint(),
            target: "db1".to_owned(),
            account: "root".to_owned(),
            from: from.commitment(),
            certificate: None,
            door: Door::Connect,
            opened_by: OpenedBy::Signed,
            opening: Some(opening),
            login,
        };
        self.record(GATEWAY, Body::SessionOpen(open), vec![from])?;
        for n in 0..execs {
            self.exec(session, n)?;
        }
        let close = SessionClose {
            session,
            reason: CloseReason::Disconnected,
            actions: 0,
            entries: 0,
        };
        self.record(GATEWAY, Body::SessionClose(close), vec![])
    }

    fn exec(&mut self, session: SessionId, n: usize) -> Result<()> {
        let command = format!("systemctl restart replica@{n:04} && journalctl -n 20");
        let command = Opening::new("command", [8; 32], command.into_bytes());
        let action = ActionId::new(self.fresh());
        let intent = Intent {
            action,
            session,
            kind: "ssh.exec".to_owned(),
            command: Some(command.commitment()),
            env: None,
            lends: vec![],
            pty: None,
            forward_within_ms: 2000,
            within: None,
            sql: None,
        };
        self.record(GATEWAY, Body::Intent(intent), vec![command])?;
        let stdout = ascribe_core::entry::StreamTotal {
            stream: "stdout".to_owned(),
            bytes: 120,
            in_files: 0,
            stored: 0,
            sha256: ContentDigest(leaf_hash(b"")),
        };
        let outcome = Outcome {
            notes: vec![],
            action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            streams: vec![stdout],
            sql: None,
        };
        self.record(GATEWAY, Body::Outcome(outcome), vec![])
    }

    /// Sessions by everybody in turn, three a second, and all there is to prove about them.
    pub(crate) fn fill(mut self, plan: &Plan) -> Result<Full> {
        let mut everybody = Vec::new();
        for by in [
            By::Key,
            By::PersonsLogin,
            By::WorkloadsLogin,
            By::Svid,
            By::Agent,
        ] {
            everybody.extend(self.actors(by));
        }
        let execs = plan.deeds / plan.sessions;
        for actor in everybody.iter().cycle().take(plan.sessions) {
            self.session(actor, execs)?;
            self.now = self.now.plus_millis(333);
        }
        let mut tree = Frontier::new();
        for entry in &self.entries {
            tree.push(leaf_hash(entry));
        }
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size: self.entries.len() as u64,
            root: tree.root(),
        };
        let first = self.entries.first().context("no entries")?;
        Ok(Full {
            first_entry: leaf_hash(first),
            note: self.log.sign_note(&checkpoint.to_text())?,
            log_key: self.log.verifier(),
            entries: self.entries,
            actions: execs * plan.sessions,
            sessions: plan.sessions,
        })
    }
}
