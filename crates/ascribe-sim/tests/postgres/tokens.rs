//! Workloads' own tokens as passwords, beside those of pipelines: a pod's of Kubernetes and a JWT-SVID; and drivers that
//! show one at the gateway's own port, over TLS, without a tunnel.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::bank::{Bank, PLACE};
use super::bearers::{BEARER, allow, ask, psql, registered, token};
use super::drivers::{SOURCES, installed, jdbc, says_done};
use super::idp::Idp;
use super::providers::Provider;
use super::spiffe::{DOMAIN, ID, OTHER};

/// A database, and a workload of this kind of provider that holds a grant there.
fn open(kind: &str, issuer: &str, keys: &Idp, when: &[&str]) -> Bank {
    let bank = Bank::without_grant(&[]);
    let keys = format!("{}/jwks", keys.issuer);
    bank.world.add_provider(&Provider {
        name: "platform",
        kind,
        issuer,
        audience: "ascribe",
        jwks: Some(&keys),
    });
    bank.world.add_workload("platform", when);
    allow(&bank);
    bank
}

fn mint(bank: &Bank, issuer: &Idp, audience: &str, claims: &Value) -> String {
    let fields = [format!("audience={audience}"), format!("claims={claims}")];
    ask(bank, issuer, "/mint", &[&fields[0], &fields[1]])
}

#[track_caller]
fn refused(bank: &Bank, password: &str, why: &str) {
    let out = psql(bank, password, "select 'let in'").exits(2);
    assert!(out.stderr.contains(why), "{why}: {}", out.stderr);
    assert!(!bank.cluster.log().contains("let in"));
}

/// Who did it, as the record says, once its session verifies by itself.
fn actor(bank: &mut Bank, text: &str) -> Value {
    let done = bank.action(text);
    assert_eq!(done["who"]["door"], "bearer", "{done}");
    assert_eq!(done["who"]["opened_by"], "testimony");
    let session = done["session_id"].as_str().unwrap();
    bank.world.ended_session(session);
    let bundle = bank.world.path("session.bundle");
    bank.world
        .json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let policy = bank.world.policy();
    let report = bank.world.verify(&bundle, &policy).exits(0);
    assert!(report.stdout.contains("login:platform"), "{report:?}");
    bank.stop();
    bank.world.verify(&bank.world.data(), &policy).exits(0);
    done["who"]["chain"][0].clone()
}

/// What a cluster says of a pod (Kubernetes, "Service account token volume projection").
fn pod(namespace: &str, account: &str, uid: &str) -> Value {
    json!({
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {
            "namespace": namespace,
            "node": { "name": "node-1", "uid": "6b0d9a5e-0f4e-4a1c-8a55-0d6f1c7f3b11" },
            "pod": { "name": "close-orders-28911", "uid": uid },
            "serviceaccount": { "name": account, "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798" },
        },
    })
}

#[test]
fn a_pods_bound_token_is_a_password() {
    const POD: &str = "778a530c-b3f4-47c0-9cd5-ab018fb64f33";
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let when = [
        "kubernetes.io/namespace=shop",
        "kubernetes.io/serviceaccount/name=deploy",
    ];
    let mut bank = open("kubernetes", &issuer.issuer, &issuer, &when);
    let good = mint(&bank, &issuer, "ascribe", &pod("shop", "deploy", POD));
    let out = psql(&bank, &good, "select 6 * 7").exits(0);
    assert_eq!(out.stdout, "42\n");
    for (namespace, account) in [("shop", "other"), ("other", "deploy")] {
        let other = mint(&bank, &issuer, "ascribe", &pod(namespace, account, POD));
        refused(&bank, &other, "conditions of no workload");
    }
    // What opens the cluster's own API is a credential there, and one whose life was lengthened is no proof.
    let live = mint(
        &bank,
        &issuer,
        "https://kubernetes.default.svc",
        &pod("shop", "deploy", POD),
    );
    refused(&bank, &live, "live credential");
    let mut longer = pod("shop", "deploy", POD);
    longer["kubernetes.io"]["warnafter"] = json!(1);
    refused(
        &bank,
        &mint(&bank, &issuer, "ascribe", &longer),
        "extended the token's life",
    );
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut old = pod("shop", "deploy", POD);
    old["exp"] = json!(now + 3700);
    refused(&bank, &mint(&bank, &issuer, "ascribe", &old), "longer");
    let actor = actor(&mut bank, "select 6 * 7");
    assert_eq!(
        (&actor["run"]["provider"], &actor["run"]["id"]),
        (&json!("kubernetes"), &json!(POD))
    );
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["assurance"], 1);
    assert!(
        actor["missing"]
            .to_string()
            .contains("neither the code that runs"),
        "{actor}"
    );
}

#[test]
fn a_jwt_svid_is_a_password() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = open("spiffe", DOMAIN, &issuer, &[&format!("sub={ID}")]);
    // One without an issuer is of the trust domain that its subject names.
    let svid =
        |subject: &str| json!({ "iss": null, "jti": null, "sub": subject, "aud": ["ascribe"] });
    let good = mint(&bank, &issuer, "ascribe", &svid(ID));
    let out = psql(&bank, &good, "select 6 * 7").exits(0);
    assert_eq!(out.stdout, "42\n");
    // So is one that names the domain, in the older form of time.
    let named = json!({ "iss": DOMAIN, "sub": ID, "iat": null });
    psql(&bank, &mint(&bank, &issuer, "ascribe", &named), "select 8").exits(0);
    refused(
        &bank,
        &mint(&bank, &issuer, "ascribe", &svid(OTHER)),
        "conditions of no workload",
    );
    let elsewhere = mint(
        &bank,
        &issuer,
        "ascribe",
        &svid("spiffe://other.example/ns/shop/sa/deploy"),
    );
    refused(&bank, &elsewhere, "no provider of workloads");
    let both = json!({ "iss": null, "sub": ID, "aud": ["ascribe", "elsewhere"] });
    refused(
        &bank,
        &mint(&bank, &issuer, "ascribe", &both),
        "not meant for",
    );
    let foreign = json!({ "iss": issuer.issuer, "sub": ID });
    refused(
        &bank,
        &mint(&bank, &issuer, "ascribe", &foreign),
        "no provider of workloads",
    );
    let actor = actor(&mut bank, "select 6 * 7");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["run"], Value::Null);
    assert!(
        actor["missing"]
            .to_string()
            .contains("a SPIFFE ID names a service"),
        "{actor}"
    );
}

/// A stock client at the gateway's own port, with nothing but a job's token.
fn direct(bank: &Bank, program: &Path, password: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", "localhost")
        .env("PGPORT", bank.port().to_string())
        .env("PGUSER", PLACE)
        .env("PGDATABASE", "orders")
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", bank.world.path("gateway.crt"))
        .env("PGPASSWORD", password);
    command
}

/// All that a driver does is on record, in sessions that its token opened.
#[track_caller]
fn does_all(name: &str, least: usize, arguments: impl Fn(&mut Command), program: &Path) {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let bank = registered(&issuer, &[]);
    let shown = token(&bank, &issuer, "ascribe");
    let mut command = direct(&bank, program, &shown);
    arguments(&mut command);
    says_done(&bank, command);
    let actions = bank.all_actions();
    let own = |action: &&Value| {
        let who = &action["who"];
        let run = &who["chain"][0]["run"]["id"];
        who["door"] == "bearer" && who["opened_by"] == "testimony" && run == "9120045511"
    };
    assert_eq!(actions.iter().find(|action| !own(action)), None, "{name}");
    assert!(actions.len() > least, "{name}: {}", actions.len());
    assert!(!bank.server().stderr().contains("eyJ"));
    // With another's password nobody gets in, whichever driver it is.
    psql(&bank, "eyJ.eyJ.", "select 1").exits(2);
    psql(&bank, &shown, "select 'on'").exits(0);
}

#[test]
fn psycopg_shows_a_token_over_tls() {
    let Some(python) = installed() else { return };
    let source = Path::new(SOURCES).join("psycopg_client.py");
    let with = |command: &mut Command| {
        command.arg(&source);
    };
    does_all("psycopg", 500, with, &python.join("bin/python"));
}

#[test]
fn asyncpg_shows_a_token_over_tls() {
    let Some(python) = installed() else { return };
    let source = Path::new(SOURCES).join("asyncpg_client.py");
    let with = |command: &mut Command| {
        command.arg(&source);
    };
    does_all("asyncpg", 500, with, &python.join("bin/python"));
}

#[test]
fn jdbc_shows_a_token_over_tls() {
    let Some((java, jar)) = jdbc() else { return };
    let source = Path::new(SOURCES).join("Jdbc.java");
    let with = |command: &mut Command| {
        command.arg("-cp").arg(jar).arg(&source);
    };
    does_all("jdbc", 1000, with, &java);
}
