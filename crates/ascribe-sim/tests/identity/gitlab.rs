//! A job of GitLab logs in with a proof of its token. The token itself, which whoever sees it could bind to a key of
//! their own, stays in the job.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ascribe_core::encoding::{Bytes, base64_std, base64url, from_base64url};
use ascribe_core::id::{PersonId, Root, StatementId};
use ascribe_core::identity::{Binding, Login, Provider as Registered, ProviderKind, token_digest};
use ascribe_core::law::{Judge as _, TokenAsked};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Say, Seen, SshKey, Statement};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, dearmour, parse_public_key, prove_token};
use serde_json::{Value, json};
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use ssh_key::{HashAlg, LineEnding};

use super::agent::Agent;
use super::dial::dial;
use super::idp::Idp;
use super::providers::Provider;
use super::recorder::{Lie, Recorder};
use super::world::{Out, World, binary, need, snapshot};

const AUDIENCE: &str = "OPENPUBKEY-PKTOKEN:ascribe";

/// What GitLab's documentation says of a job's token, apart from what every token has.
const CLAIMS: &str = r#"{"sub":"project_path:example/shop:ref_type:branch:ref:main","namespace_id":"72",
"namespace_path":"example","project_id":"20","project_path":"example/shop","user_id":"1","user_login":"sample",
"pipeline_id":"574","pipeline_source":"push","job_id":"302","ref":"main","ref_type":"branch",
"ref_path":"refs/heads/main","ref_protected":"true","runner_id":1,"runner_environment":"gitlab-hosted",
"sha":"714a629c0b401fdce83e847fc9589983fc6f46bc","project_visibility":"public",
"ci_config_ref_uri":"gitlab.example/example/shop//.gitlab-ci.yml@refs/heads/main",
"ci_config_sha":"714a629c0b401fdce83e847fc9589983fc6f46bc"}"#;

/// A demo with GitLab registered and a workload that the operator answers for, which has a grant.
fn registered(gitlab: &Idp) -> World {
    let world = World::new();
    world.add_provider(&Provider {
        name: "lab",
        kind: "gitlab",
        issuer: &gitlab.issuer,
        audience: AUDIENCE,
        jwks: Some(&format!("{}/jwks", gitlab.issuer)),
    });
    world.add_workload("lab", &["project_id=20", "ref_path=refs/heads/main"]);
    world.grant_workload();
    world
}

fn curl(world: &World, args: &[&str]) -> String {
    let mut curl = Command::new(need("curl"));
    curl.args(["-sfG", "--max-time", "20"]).args(args);
    world.program_as_is(&mut curl).exits(0).stdout
}

/// The token that GitLab puts into a job's environment.
fn mint(world: &World, gitlab: &Idp, audience: &str) -> String {
    let (address, audience) = (
        format!("{}/mint", gitlab.issuer),
        format!("audience={audience}"),
    );
    let claims = format!("claims={CLAIMS}");
    let encoded = ["--data-urlencode", &audience, "--data-urlencode", &claims];
    curl(world, &[&[address.as_str()][..], &encoded].concat())
}

/// A machine that knows the recorder for the server, and nothing of the server's directory.
struct Runner<'a> {
    world: &'a World,
    recorder: &'a Recorder,
    agent: &'a Agent,
}

impl Runner<'_> {
    fn command(&self, args: &[&str]) -> Command {
        // An agent's command has its socket; the machine is another one.
        let agents = self.agent.command(self.world, &[]);
        let mut command = Command::new(binary());
        let socket = agents.get_envs().find(|(name, _)| *name == "SSH_AUTH_SOCK");
        command
            .args(args)
            .env("SSH_AUTH_SOCK", socket.unwrap().1.unwrap())
            .env("XDG_CONFIG_HOME", self.world.path(&self.recorder.api))
            .env("ASCRIBE_SERVER", &self.recorder.api)
            .env_remove("ASCRIBE_ID_TOKEN");
        command
    }

    fn join(&self) {
        let file = std::fs::read_to_string(self.world.data().join("server.json")).unwrap();
        let server: Value = serde_json::from_str(&file).unwrap();
        let key = server["log_key"].as_str().unwrap();
        let args = [
            "join",
            &self.recorder.api,
            "--log-key",
            key,
            "--pin",
            &self.recorder.pin,
        ];
        self.world.program_as_is(&mut self.command(&args)).exits(0);
    }

    fn log_in(&self, token: &str) -> Out {
        let mut login = self.command(&["login", "--workload", "deploy-shop"]);
        self.world
            .program_as_is(login.env("ASCRIBE_ID_TOKEN", token))
    }
}

/// Every spelling in which a signature could pass, alone or within what is encoded once more.
fn spellings(token: &str) -> Vec<Vec<u8>> {
    let (_, text) = token.rsplit_once('.').unwrap();
    let bytes = from_base64url(text).unwrap();
    let mut spellings = vec![bytes.clone(), text.into(), base64_std(&bytes).into_bytes()];
    spellings.push(
        bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
            .into_bytes(),
    );
    for inner in [text.as_bytes(), &bytes] {
        for skipped in 0..3 {
            // Whatever stands before it: at one of three places in what is encoded.
            let whole = (inner.len() - skipped) / 3 * 3;
            let inner = &inner[skipped..skipped + whole];
            spellings.extend([
                base64url(inner).into_bytes(),
                base64_std(inner).into_bytes(),
            ]);
        }
    }
    spellings
}

fn holds(place: &[u8], what: &[u8]) -> bool {
    place.windows(what.len()).any(|part| part == what)
}

#[track_caller]
fn nowhere(token: &str, place: &[u8], named: &str) {
    for spelling in spellings(token) {
        assert!(
            !holds(place, &spelling),
            "the token's signature is in {named}"
        );
    }
}

#[test]
fn the_token_itself_never_leaves_the_job() {
    let Some(gitlab) = Idp::of_jobs("nobody") else {
        return;
    };
    let world = registered(&gitlab);
    let (recorder, agent) = (Recorder::start(&world, |said| said), Agent::start(&world));
    let job = Runner {
        world: &world,
        recorder: &recorder,
        agent: &agent,
    };
    job.join();
    let token = mint(&world, &gitlab, AUDIENCE);
    let out = job.log_in(&token).exits(0);
    assert!(out.stderr.contains("counts for less"), "{out:?}");
    agent.ssh(&world, "echo deployed").exits(0);

    // What the server received is the proof of this very token.
    let calls = recorder.calls();
    let parsed = calls
        .iter()
        .map(|call| serde_json::from_slice::<Value>(call).unwrap());
    let submitted: Vec<Value> = parsed.filter(|call| call["op"] == "submit").collect();
    assert_eq!(submitted.len(), 1, "{submitted:#?}");
    let shown = submitted[0]["openings"][0]["bytes"].as_str().unwrap();
    let shown = String::from_utf8(from_base64url(shown).unwrap()).unwrap();
    let (proof, raw): (Vec<&str>, Vec<&str>) =
        (shown.split('.').collect(), token.split('.').collect());
    let header: Value = serde_json::from_slice(&from_base64url(proof[0]).unwrap()).unwrap();
    assert_eq!(
        (&header["alg"], &header["kid"]),
        (&json!("GQ256"), &json!(raw[0]))
    );
    assert_eq!(proof[1], raw[1]);
    // The search finds what is there: the proof's own signature, as it was sent.
    let found = |part: &[u8]| calls.iter().any(|call| holds(call, part));
    let sent = spellings(&shown);
    assert!(sent.iter().any(|spelling| found(spelling)));
    for call in &calls {
        nowhere(&token, call, "a call");
    }
    nowhere(&token, shown.as_bytes(), "what was shown");
    for (path, (_, content)) in snapshot(&world.data()) {
        nowhere(&token, &content, &path.display().to_string());
    }

    // Another proof of the same token introduces no other key.
    let again = job.log_in(&token).exits(2);
    assert!(again.stderr.contains("shown before"), "{again:?}");

    let by_run = world.actions(&["--run", "574"]);
    let actor = &by_run[0]["who"]["chain"][0];
    assert_eq!(
        (&actor["display"], &actor["assurance"]),
        (&json!("deploy-shop"), &json!(1))
    );
    assert_eq!(actor["run"]["job"], "302");
    assert_eq!(
        actor["code"]["commit"],
        "714a629c0b401fdce83e847fc9589983fc6f46bc"
    );
    assert_eq!(
        actor["protection"],
        json!({ "ref_protected": "true", "runner_environment": "gitlab-hosted" })
    );
    assert!(
        actor["missing"]
            .to_string()
            .contains("bound the token to no key"),
        "{actor}"
    );
    let session = by_run[0]["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("job.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    drop(gitlab);
    let report = world.verify(&bundle, &world.policy()).exits(0);
    assert!(
        report
            .stdout
            .contains("nobody but the workload itself had the token"),
        "{report:?}"
    );
}

#[test]
fn a_server_that_lies_about_the_provider_is_not_shown_the_token() {
    let Some(gitlab) = Idp::of_jobs("nobody") else {
        return;
    };
    let world = registered(&gitlab);
    let lies: [Lie; 5] = [
        |said| {
            said.replace(r#""kind":"gitlab""#, r#""kind":"workload""#)
                .replace(AUDIENCE, "OPENPUBKEY-PKTOKEN")
        },
        |said| said.replace(r#""kind":"gitlab""#, r#""kind":"github""#),
        |said| {
            said.replace(r#""kind":"gitlab""#, r#""kind":"spiffe""#)
                .replace(AUDIENCE, "OPENPUBKEY")
        },
        |said| said.replace(r#""kind":"gitlab""#, r#""kind":"oidc""#),
        |said| said.replace(AUDIENCE, "ascribe"),
    ];
    for (nth, lie) in lies.into_iter().enumerate() {
        let (recorder, agent) = (Recorder::start(&world, lie), Agent::start(&world));
        let job = Runner {
            world: &world,
            recorder: &recorder,
            agent: &agent,
        };
        job.join();
        let token = mint(&world, &gitlab, AUDIENCE);
        let print = ["--token-command", "printenv ASCRIBE_ID_TOKEN"];
        let mut login =
            job.command(&[&["login", "--workload", "deploy-shop"][..], &print].concat());
        let out = world.program_as_is(login.env("ASCRIBE_ID_TOKEN", &token));
        assert_ne!(out.code, Some(0), "{nth}: {out:?}");
        let calls = recorder.calls();
        assert!(!calls.is_empty());
        for call in &calls {
            nowhere(&token, call, &format!("a call, lie {nth}"));
            assert!(!holds(call, br#""op":"submit""#), "{nth}: {out:?}");
        }
        std::fs::remove_file(world.path("agent")).unwrap_or_default();
    }
}

/// Whoever sends the token itself, with everything else as it must be, has spent nothing but the token's secrecy.
#[test]
fn the_token_itself_introduces_no_key() {
    let Some(gitlab) = Idp::of_jobs("nobody") else {
        return;
    };
    let world = registered(&gitlab);
    let token = mint(&world, &gitlab, AUDIENCE);
    let keys = curl(&world, &[&format!("{}/jwks", gitlab.issuer)]);
    let secret = PrivateKey::from(Ed25519Keypair::from_seed(&[9; 32]));
    let key: SshKey = parse_public_key(&secret.public_key().to_openssh().unwrap()).unwrap();
    let provider = Registered {
        algorithms: vec!["ES256".into(), "RS256".into()],
        audience: AUDIENCE.into(),
        authn: None,
        issuer: gitlab.issuer.clone(),
        jwks_uri: format!("{}/jwks", gitlab.issuer),
        kind: ProviderKind::Gitlab,
        max_keys_age_seconds: None,
        name: "lab".into(),
        observers: None,
        withdrawn: false,
    };
    let asked = TokenAsked {
        key: &key,
        rz: &[5; 32],
        facts: &["project_id", "ref_path"],
        groups: &[],
        managers: &[],
    };
    let mut random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).is_ok();
    let proof = prove_token(
        &provider,
        keys.as_bytes(),
        token.as_bytes(),
        &asked,
        &mut random,
    );
    let proof = proof.unwrap();
    let claims = SshSignatures.token(&provider, keys.as_bytes(), proof.as_bytes(), &asked);
    let claims = claims.unwrap();
    assert_eq!(claims.binding, Binding::Proof);
    let workload = world.json(&["workload", "list"]).line();
    let by: PersonId = workload["workload"]["workload"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let submit = |shown: &str, nth: u8| {
        let opening = Opening::new("token", [nth; 32], shown.as_bytes().to_vec());
        let login = Login {
            bearer: false,
            digest: token_digest(shown.as_bytes()),
            provider: "lab".into(),
            rz: Bytes(vec![5; 32]),
            saw: Some(claims.key),
            token: opening.commitment(),
            until: claims.expires,
            claims: claims.clone(),
        };
        let hello = call(&world, &json!({ "op": "hello", "key": null, "seen": null }));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let statement = Statement {
            v: 1,
            log: hello["hello"]["origin"].as_str().unwrap().to_owned(),
            by,
            at: Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap()),
            id: StatementId::new([nth; 16]),
            seen: Seen {
                size: hello["hello"]["size"].as_u64().unwrap(),
                root: serde_json::from_value::<Root>(hello["hello"]["root"].clone()).unwrap(),
            },
            say: Say::Login(Box::new(login)),
        };
        let text = statement.to_text().unwrap();
        let sig = secret.sign(&statement.say.namespace(), HashAlg::Sha512, text.as_bytes());
        let sig = Bytes(dearmour(&sig.unwrap().to_pem(LineEnding::LF).unwrap()).unwrap());
        let signed = json!({ "text": text, "sig": sig });
        call(
            &world,
            &json!({ "op": "submit", "signed": signed, "openings": [opening] }),
        )
    };
    let refused = submit(&token, 1);
    assert_eq!(refused["refused"]["code"], "token-raw", "{refused}");
    // The proof of the same token in its place is taken.
    let taken = submit(&proof, 2);
    assert!(
        taken["refused"].is_null() && !taken["done"].is_null(),
        "{taken}"
    );
}

/// One call and its answer.
pub(super) fn call(world: &World, call: &Value) -> Value {
    let body = serde_json::to_vec(call).unwrap();
    let mut stream = dial(world);
    let len = u32::try_from(body.len()).unwrap();
    stream
        .write_all(&[&len.to_be_bytes()[..], &body].concat())
        .unwrap();
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer).unwrap();
    serde_json::from_slice(&answer).unwrap()
}
