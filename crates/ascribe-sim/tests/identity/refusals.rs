//! Logins that are refused leave counts with the reason, however many they are, and nothing of what was shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ascribe_core::encoding::{self, Bytes, base64url};
use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ContentDigest, PersonId, Root, StatementId};
use ascribe_core::identity::{
    Binding, Claims, Fact, Login, LoginRefusal, SvidProof, key_commitment, subject, svid_message,
    token_digest,
};
use ascribe_core::law::{Judge as _, TokenAsked};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Say, Seen, SshKey, Statement};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, dearmour, parse_public_key};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use ssh_key::{HashAlg, LineEnding};

use super::gitlab::call;
use super::idp::Idp;
use super::providers::Provider;
use super::spiffe::{AUTHORITY, DOMAIN, ID, USAGE, bundle, certify, publish};
use super::world::{World, need, snapshot};

const RZ: [u8; 32] = [5; 32];
/// What an attacker has written wherever they could.
const MARK: &str = "mallory-was-here";

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Somebody who logs in past the client, each time with a fresh key.
struct Attacker<'a> {
    world: &'a World,
    issuer: &'a Idp,
    by: PersonId,
    count: u8,
    /// How each try was refused, with the provider under which that is to be counted.
    refused: BTreeMap<Option<&'static str>, BTreeMap<String, u64>>,
}

/// One try.
struct Try {
    provider: String,
    by: PersonId,
    claims: Claims,
    shown: String,
    secret: PrivateKey,
}

impl Attacker<'_> {
    fn fresh(&mut self) -> (PrivateKey, SshKey, String) {
        self.count += 1;
        let secret = PrivateKey::from(Ed25519Keypair::from_seed(&[self.count; 32]));
        let key = parse_public_key(&secret.public_key().to_openssh().unwrap()).unwrap();
        let commitment = key_commitment(&key, &RZ);
        (secret, key, commitment)
    }

    /// The issuer's token for this audience, with these claims besides those of a good run.
    fn mint(&self, audience: &str, more: &Value) -> String {
        let mut claims = json!({
            "sub": "repo:example/shop:environment:production", "repository_id": "74001",
            "environment": "production", "run_id": "9120045511", "run_attempt": "1", "event_name": "push",
        });
        let more = more.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        let mut curl = Command::new(need("curl"));
        curl.args(["-sfG", "--max-time", "20"]);
        curl.args(["--data-urlencode", &format!("audience={audience}")]);
        curl.args(["--data-urlencode", &format!("claims={claims}")]);
        curl.arg(format!("{}/mint", self.issuer.issuer));
        self.world.program_as_is(&mut curl).exits(0).stdout
    }

    /// A login of the job with this token, which states what a good one says.
    fn job(&mut self, token: impl FnOnce(&Self, &str) -> String) -> Try {
        let (secret, _, commitment) = self.fresh();
        let shown = token(self, &format!("ascribe:{commitment}"));
        Try {
            provider: "github".to_owned(),
            by: self.by,
            claims: self.stated(&shown),
            shown,
            secret,
        }
    }

    /// What an honest client would state of a token, without looking whether it is good.
    fn stated(&self, token: &str) -> Claims {
        let said = token.split('.').nth(1).and_then(encoding::from_base64url);
        let said = said.and_then(|said| serde_json::from_slice::<Value>(&said).ok());
        let said = said.unwrap_or_else(|| json!({}));
        let at = |name: &str, or: i64| {
            let seconds = said[name].as_i64().unwrap_or(or);
            Timestamp::from_millis(seconds * 1000)
        };
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let fact = |name: &str| Fact {
            claim: name.to_owned(),
            value: text(name),
        };
        let claims = json!({
            "binding": "audience", "expires": at("exp", seconds() + 300), "issued": at("iat", seconds()),
            "key": self.thumbprint(), "subject": subject(&self.issuer.issuer, &text("sub")),
            "facts": [fact("environment"), fact("repository_id")],
            "missing": ["who ran it again, if somebody did"],
            "run": { "attempt": text("run_attempt"), "id": text("run_id"), "provider": "github" },
            "code": { "repo": text("repository_id") },
            "trigger": { "event": text("event_name") },
        });
        serde_json::from_value(claims).unwrap()
    }

    /// The same login, which states exactly what its token says.
    fn honest(&self, tried: Try) -> Try {
        let provider = self.world.json(&["provider", "show", "github"]).line();
        let provider = serde_json::from_value(provider["provider"].clone()).unwrap();
        let public = tried.secret.public_key().to_openssh().unwrap();
        let asked = TokenAsked {
            key: &parse_public_key(&public).unwrap(),
            rz: &RZ,
            facts: &["environment", "repository_id"],
            groups: &[],
            managers: &[],
        };
        let keys = self.keys();
        let claims =
            SshSignatures.token(&provider, keys.as_bytes(), tried.shown.as_bytes(), &asked);
        Try {
            claims: claims.unwrap(),
            ..tried
        }
    }

    fn keys(&self) -> String {
        let mut curl = Command::new(need("curl"));
        curl.arg("-sf").arg(format!("{}/jwks", self.issuer.issuer));
        self.world.program_as_is(&mut curl).exits(0).stdout
    }

    /// Of the issuer's one key.
    fn thumbprint(&self) -> ContentDigest {
        ascribe_evidence::key_thumbprints(self.keys().as_bytes()).unwrap()[0]
    }

    fn submit(&mut self, tried: &Try) -> Value {
        self.count += 1;
        let nth = self.count;
        let opening = Opening::new("token", [nth; 32], tried.shown.as_bytes().to_vec());
        let login = Login {
            bearer: false,
            digest: token_digest(tried.shown.as_bytes()),
            provider: tried.provider.clone(),
            rz: Bytes(RZ.to_vec()),
            saw: None,
            token: opening.commitment(),
            until: Timestamp::from_millis((seconds() + 3600) * 1000),
            claims: tried.claims.clone(),
        };
        let hello = call(
            self.world,
            &json!({ "op": "hello", "key": null, "seen": null }),
        );
        let statement = Statement {
            v: 1,
            log: hello["hello"]["origin"].as_str().unwrap().to_owned(),
            by: tried.by,
            at: Timestamp::from_millis(seconds() * 1000),
            id: StatementId::new([nth; 16]),
            seen: Seen {
                size: hello["hello"]["size"].as_u64().unwrap(),
                root: serde_json::from_value::<Root>(hello["hello"]["root"].clone()).unwrap(),
            },
            say: Say::Login(Box::new(login)),
        };
        let text = statement.to_text().unwrap();
        let namespace = statement.say.namespace();
        let sig = tried
            .secret
            .sign(&namespace, HashAlg::Sha512, text.as_bytes());
        let sig = Bytes(dearmour(&sig.unwrap().to_pem(LineEnding::LF).unwrap()).unwrap());
        let signed = json!({ "text": text, "sig": sig });
        call(
            self.world,
            &json!({ "op": "submit", "signed": signed, "openings": [opening] }),
        )
    }

    /// It is refused with this code, which must be counted under that provider.
    #[track_caller]
    fn refused(&mut self, counted: Option<&'static str>, code: &str, tried: &Try) {
        let answer = self.submit(tried);
        assert_eq!(answer["refused"]["code"], code, "{answer}");
        let counts = self.refused.entry(counted).or_default();
        *counts.entry(code.to_owned()).or_default() += 1;
    }
}

/// The same token with another header, which its signature was not made for.
fn with_header(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", base64url(header.to_string().as_bytes()))
}

/// The workload's certificate, with its own key's signature for the session key of this commitment.
fn proof(dir: &Path, commitment: &str) -> String {
    let pem = std::fs::read(dir.join("deploy.pem")).unwrap();
    let key = std::fs::read(dir.join("deploy.key")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
    let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_der(signing, key.secret_der()).unwrap();
    let sig = pair
        .sign(&SystemRandom::new(), &svid_message(commitment))
        .unwrap();
    let proof = SvidProof {
        alg: "ES256".to_owned(),
        chain: vec![Bytes(
            CertificateDer::from_pem_slice(&pem).unwrap().to_vec(),
        )],
        sig: Bytes(sig.as_ref().to_vec()),
    };
    String::from_utf8(encoding::encode(&proof).unwrap()).unwrap()
}

/// A pipeline's provider, a trust domain and a provider of people, each with somebody who may log in.
fn registered(issuer: &Idp) -> (World, PathBuf) {
    let world = World::new();
    let keys = format!("{}/jwks", issuer.issuer);
    for (name, kind, audience) in [("github", "github", "ascribe"), ("idp", "oidc", "client")] {
        world.add_provider(&Provider {
            name,
            kind,
            issuer: &issuer.issuer,
            audience,
            jwks: Some(&keys),
        });
    }
    world.add_workload("github", &["repository_id=74001", "environment=production"]);
    let dir = world.path("spire");
    std::fs::create_dir(&dir).unwrap();
    let authority = format!("{AUTHORITY}subjectAltName=URI:{DOMAIN}\n");
    certify(&dir, "root", &authority, "root");
    let extensions = format!("{USAGE}subjectAltName=URI:{ID}\n");
    certify(&dir, "deploy", &extensions, "root");
    world.add_provider(&Provider {
        name: "spire",
        kind: "spiffe-x509",
        issuer: DOMAIN,
        audience: "ascribe",
        jwks: Some(&publish(bundle(&dir))),
    });
    let operator = world.person("operator").0;
    let condition = format!("sub={ID}");
    let mut rule = vec!["workload", "add", "spiffe-shop", "--provider", "spire"];
    rule.extend(["--owner", &operator, "--when", &condition]);
    world.run_as("approver", &rule).exits(0);
    (world, dir)
}

fn workload(world: &World, name: &str) -> PersonId {
    let shown = world.json(&["workload", "show", name]).line();
    shown["workload"]["workload"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// All entries that say which logins were refused.
fn counted(world: &World) -> Vec<LoginRefusal> {
    let reader = ascribe_ledger::Reader::open(&world.data()).unwrap();
    let entries = reader.entries(0..reader.size()).unwrap();
    let entries = entries
        .iter()
        .map(|bytes| Entry::from_bytes(bytes).unwrap());
    entries
        .filter_map(|entry| match entry.body {
            Body::LoginRefusal(refusal) => Some(refusal),
            _ => None,
        })
        .collect()
}

fn checked_by_another(world: &World) {
    let tree = world.path("tree");
    world
        .run(&["ledger", "export", "--to", tree.to_str().unwrap()])
        .exits(0);
    world.checked_by_another(&tree);
}

/// Tokens of the job, each spoiled in one way.
fn spoil_the_jobs(mallory: &mut Attacker<'_>) {
    let github = Some("github");
    // A good one, so that each of the others is refused for what is spoiled in it. Its token is good once.
    let good = mallory.job(|m, audience| m.mint(audience, &json!({})));
    let said = mallory.submit(&good);
    // What it states is not all that its token says; that is refused, too, and by its own code.
    assert_eq!(said["refused"]["code"], "claims", "{said}");
    let counts = mallory.refused.entry(github).or_default();
    counts.insert("claims".to_owned(), 1);
    let good = mallory.honest(good);
    let said = mallory.submit(&good);
    assert!(!said["done"].is_null(), "{said}");
    mallory.refused(github, "token-replay", &good);

    let tried = mallory.job(|m, audience| m.mint(&format!("{MARK}-{audience}"), &json!({})));
    mallory.refused(github, "token-aud", &tried);
    let other = json!({ "repository_id": "74002", "sub": format!("repo:{MARK}/shop") });
    let tried = mallory.job(|m, audience| m.mint(audience, &other));
    let tried = mallory.honest(tried);
    mallory.refused(github, "conditions", &tried);
    let old = json!({ "iat": seconds() - 7200, "nbf": seconds() - 7200, "exp": seconds() - 3600 });
    let tried = mallory.job(|m, audience| m.mint(audience, &old));
    let tried = mallory.honest(tried);
    mallory.refused(github, "token-time", &tried);
    let none = json!({ "alg": "none", "typ": "JWT", "kid": MARK });
    let tried = mallory.job(|m, audience| with_header(&m.mint(audience, &json!({})), &none));
    mallory.refused(github, "token-alg", &tried);
    let jku =
        json!({ "alg": "RS256", "jku": format!("https://{MARK}.example/keys"), "typ": "JWT" });
    let tried = mallory.job(|m, audience| with_header(&m.mint(audience, &json!({})), &jku));
    mallory.refused(github, "token-header-key", &tried);
    let tried = mallory.job(|m, _| m.mint("ascribe:somebody-elses-key", &json!({})));
    mallory.refused(github, "token-commitment", &tried);
    let fork = json!({ "event_name": "pull_request" });
    let tried = mallory.job(|m, audience| m.mint(audience, &fork));
    mallory.refused(github, "token-fork", &tried);
    let mut tried = mallory.job(|m, audience| m.mint(audience, &json!({})));
    tried.shown = MARK.to_owned();
    mallory.refused(github, "token-form", &tried);
    // Signed by another key than it introduces is no login of that key's: the token commits to the other.
    let mut tried = mallory.job(|m, audience| m.mint(audience, &json!({})));
    tried.secret = mallory.fresh().0;
    mallory.refused(github, "token-commitment", &tried);
}

/// Logins at other providers, and at none.
fn spoil_others(mallory: &mut Attacker<'_>, dir: &Path, (svid, operator): (PersonId, PersonId)) {
    // A certificate whose key signed for another session key.
    let mut tried = mallory.job(|_, _| proof(dir, MARK));
    (tried.provider, tried.by) = ("spire".to_owned(), svid);
    tried.claims.binding = Binding::Key;
    mallory.refused(Some("spire"), "svid-possession", &tried);

    // A person whom nobody linked.
    let mut tried = mallory.job(|m, _| m.mint("client", &json!({ "sub": MARK })));
    (tried.provider, tried.by) = ("idp".to_owned(), operator);
    mallory.refused(Some("idp"), "no-identity", &tried);

    // Providers that there are not, each by another name: they share one count.
    for nth in 0..40 {
        let mut tried = mallory.job(|_, _| format!("{MARK}.{nth}.x"));
        tried.provider = format!("{MARK}-{nth}");
        mallory.refused(None, "no-provider", &tried);
    }
}

#[test]
fn each_hostile_login_is_refused_and_counted_by_its_reason_and_nothing_of_it_is_kept() {
    let Some(issuer) = Idp::of_jobs("nobody") else {
        return;
    };
    let (mut world, dir) = registered(&issuer);
    let by = workload(&world, "deploy-shop");
    let svid = workload(&world, "spiffe-shop");
    let operator: PersonId = world.person("operator").0.parse().unwrap();
    let mut mallory = Attacker {
        world: &world,
        issuer: &issuer,
        by,
        count: 0,
        refused: BTreeMap::new(),
    };

    spoil_the_jobs(&mut mallory);
    spoil_others(&mut mallory, &dir, (svid, operator));
    let refused = std::mem::take(&mut mallory.refused);
    world.stop();

    let entries = counted(&world);
    let mut found: BTreeMap<Option<&str>, BTreeMap<String, u64>> = BTreeMap::new();
    for refusal in &entries {
        let counts = found.entry(refusal.provider.as_deref()).or_default();
        for one in &refusal.refused {
            *counts.entry(one.code.clone()).or_default() += one.count;
        }
        assert!(refusal.from <= refusal.until);
    }
    assert_eq!(found, refused);
    // Of each provider, and of none, one within a second, and one at the stop.
    assert!((4..=8).contains(&entries.len()), "{entries:?}");
    for (path, (_, bytes)) in snapshot(&world.data()) {
        let mark = MARK.as_bytes();
        let kept = bytes.windows(mark.len()).any(|part| part == mark);
        assert!(!kept, "{}", path.display());
    }
    checked_by_another(&world);
    let report = world.verify(&world.data(), &world.policy()).exits(0).line();
    let notes = report["notes"].as_array().unwrap();
    let notes = notes.iter().filter(|note| note["code"] == "login_refused");
    let said: Vec<&str> = notes.map(|n| n["message"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "40 login(s) that named no registered provider were refused: no-provider 40",
            "11 login(s) that named provider `github` were refused: claims 1, conditions 1, token-alg 1, token-aud 1, \
             token-commitment 2, token-fork 1, token-form 1, token-header-key 1, token-replay 1, token-time 1",
            "1 login(s) that named provider `idp` were refused: no-identity 1",
            "1 login(s) that named provider `spire` were refused: svid-possession 1",
        ]
    );
}
