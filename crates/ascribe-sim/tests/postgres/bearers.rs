//! A job with nothing but its own token, and a stock client: the token is the password.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::bank::{Bank, PLACE};
use super::idp::Idp;
use super::providers::Provider;
use super::world::{Out, need};

pub(super) const BEARER: &str = "runner-secret";
pub(super) const FULL: &str = "sslmode=verify-full";

/// A database, and a workload that holds a grant there.
pub(super) fn registered(issuer: &Idp, options: &[&str]) -> Bank {
    let bank = Bank::without_grant(options);
    let keys = format!("{}/jwks", issuer.issuer);
    bank.world.add_provider(&Provider {
        name: "github",
        kind: "github",
        issuer: &issuer.issuer,
        audience: "ascribe",
        jwks: Some(&keys),
    });
    bank.world
        .add_workload("github", &["repository_id=74001", "environment=production"]);
    allow(&bank);
    bank
}

/// The workload gets a grant, which its owner asks for.
pub(super) fn allow(bank: &Bank) {
    let ask = [
        "request",
        PLACE,
        "--workload",
        "deploy-shop",
        "--for",
        "30m",
        "--why",
        "close the orders of the day",
        "--ticket",
        "demo:OPS-77",
        "--reusable",
    ];
    let asked = bank.world.run_as("operator", &ask).exits(0).line();
    bank.world.approve(asked["request_id"].as_str().unwrap());
}

pub(super) fn ask(bank: &Bank, issuer: &Idp, path: &str, fields: &[&str]) -> String {
    let mut curl = Command::new(need("curl"));
    curl.args(["-sfG", "-H", &format!("Authorization: Bearer {BEARER}")]);
    for field in fields {
        curl.args(["--data-urlencode", field]);
    }
    curl.arg(format!("{}{path}", issuer.issuer));
    bank.world.program_as_is(&mut curl).exits(0).stdout
}

/// What GitHub gives a job for this audience.
pub(super) fn token(bank: &Bank, issuer: &Idp, audience: &str) -> String {
    let answer = ask(bank, issuer, "/token", &[&format!("audience={audience}")]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["value"].as_str().unwrap().to_owned()
}

/// The same with these claims instead.
pub(super) fn minted(bank: &Bank, issuer: &Idp, claims: &Value) -> String {
    let mut all = json!({
        "sub": "repo:example/shop:environment:production", "repository_id": "74001",
        "environment": "production", "run_id": "9120045511", "run_attempt": "1", "event_name": "push",
    });
    let changed = claims.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(changed);
    let claims = format!("claims={all}");
    ask(bank, issuer, "/mint", &["audience=ascribe", &claims])
}

pub(super) fn psql(bank: &Bank, password: &str, sql: &str) -> Out {
    bank.psql_at_the_port(password, FULL, sql)
}

/// How often a word is in a directory's files.
pub(super) fn occurrences(dir: &Path, word: &str) -> usize {
    let files = std::fs::read_dir(dir).unwrap();
    let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let word = word.as_bytes();
    let found = files.map(|bytes| bytes.windows(word.len()).filter(|w| *w == word).count());
    found.sum()
}

#[track_caller]
fn refused(bank: &Bank, password: &str, why: &str) {
    let out = psql(bank, password, "select 'let in'").exits(2);
    assert!(out.stderr.contains(why), "{why}: {}", out.stderr);
    assert!(!out.stderr.contains(password), "{}", out.stderr);
}

#[test]
fn a_jobs_own_token_is_a_password_and_the_record_says_what_that_proves() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer, &[]);
    let token = token(&bank, &issuer, "ascribe");
    let out = psql(&bank, &token, "select 6 * 7").exits(0);
    assert_eq!(out.stdout, "42\n");
    let done = bank.action("select 6 * 7");
    let who = &done["who"];
    assert_eq!(
        (&who["door"], &who["opened_by"]),
        (&json!("bearer"), &json!("testimony")),
        "{done}"
    );
    let actor = &who["chain"][0];
    assert_eq!(actor["kind"], "workload");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["owner"], bank.world.person("operator").0.as_str());
    assert_eq!(actor["assurance"], 1);
    assert_eq!(actor["run"]["id"], "9120045511");
    assert_eq!(
        actor["code"]["commit"],
        "8f2d6a5b7c3e4f90112233445566778899aabbcc"
    );
    assert_eq!(done["why"]["ticket"]["id"], "OPS-77");

    // A job has several connections, and a server that was started anew in between.
    psql(&bank, &format!("{token}\n"), "select 8").exits(0);
    bank.stop();
    bank.start();
    psql(&bank, &token, "select 9").exits(0);
    let sessions: std::collections::BTreeSet<String> = ["select 6 * 7", "select 8", "select 9"]
        .map(|text| bank.action(text)["session_id"].to_string())
        .into();
    assert_eq!(sessions.len(), 3);

    // The session's bundle verifies offline, and names what the log is trusted for.
    let session = done["session_id"].as_str().unwrap();
    bank.world.ended_session(session);
    let bundle = bank.world.path("job.bundle");
    bank.world
        .json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let policy = bank.world.policy();
    let report = bank.world.verify(&bundle, &policy).exits(0);
    assert!(
        report.stdout.contains("its key was the gateway's"),
        "{}",
        report.stdout
    );
    bank.stop();
    bank.world.verify(&bank.world.data(), &policy).exits(0);
}

#[test]
fn whoevers_token_it_is_not_gets_nothing() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer, &[]);
    let good = token(&bank, &issuer, "ascribe");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let old = json!({ "iat": now - 600, "nbf": now - 600, "exp": now - 5 });
    refused(&bank, &minted(&bank, &issuer, &old), "has expired");
    let early = json!({ "iat": now + 200, "nbf": now + 200, "exp": now + 400 });
    refused(&bank, &minted(&bank, &issuer, &early), "in the future");
    let elsewhere = token(&bank, &issuer, "elsewhere");
    refused(&bank, &elsewhere, "not meant for `ascribe` alone");
    let both = json!({ "aud": ["ascribe", "elsewhere"] });
    refused(&bank, &minted(&bank, &issuer, &both), "not meant for");
    // Another's key is in it.
    let bound = token(
        &bank,
        &issuer,
        "ascribe:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    );
    refused(&bank, &bound, "another key");
    let other = json!({ "repository_id": "74002", "sub": "repo:evil/shop:environment:production" });
    refused(
        &bank,
        &minted(&bank, &issuer, &other),
        "conditions of no workload",
    );
    let fork = json!({ "repository_id": "74001", "event_name": "pull_request" });
    refused(&bank, &minted(&bank, &issuer, &fork), "pull request");
    let foreign = json!({ "iss": "https://issuer.example" });
    refused(
        &bank,
        &minted(&bank, &issuer, &foreign),
        "no provider of workloads",
    );
    // What was signed, with a signature that is not; and other claims below a good one.
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let swapped: String = std::iter::once(other)
        .chain(signature.chars().skip(1))
        .collect();
    refused(&bank, &format!("{signed}.{swapped}"), "signature");
    let stranger = minted(&bank, &issuer, &json!({ "run_id": "1" }));
    let parts: Vec<&str> = stranger.split('.').collect();
    refused(
        &bank,
        &format!("{}.{}.{signature}", parts[0], parts[1]),
        "signature",
    );
    refused(&bank, &format!("{signed}."), "empty");
    refused(&bank, signed, "three parts");
    // Neither in the clear nor as a name.
    let clear = bank.psql_at_the_port(&good, "sslmode=disable", "select 'let in'");
    assert!(clear.exits(2).stderr.contains("over TLS only"));
    let named = bank.psql_at_the_port(
        "any",
        &format!("{FULL} user={good}@orders-db"),
        "select 'let in'",
    );
    let named = named.exits(2);
    assert!(
        named.stderr.contains("a password or a token"),
        "{}",
        named.stderr
    );
    assert!(!named.stderr.contains(signature), "{}", named.stderr);

    assert!(!bank.cluster.log().contains("let in"));
    assert!(bank.actions().is_empty());
    let said = bank.server().stderr();
    assert!(!said.contains("eyJ"), "{said}");
    psql(&bank, &good, "select 10").exits(0);
    // Why each was refused is on record.
    bank.stop();
    let report = bank.world.verify(&bank.world.data(), &bank.world.policy());
    let report = report.exits(0).line();
    let notes = report["notes"].as_array().unwrap();
    let notes = notes.iter().filter(|note| note["code"] == "login_refused");
    let said: Vec<&str> = notes.map(|n| n["message"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "3 login(s) that named no registered provider were refused: token-form 2, token-iss 1",
            "9 login(s) that named provider `github` were refused: conditions 1, token-aud 2, token-commitment 1, \
             token-fork 1, token-signature 2, token-time 2",
        ]
    );
}

#[test]
fn a_login_whose_session_is_refused_ends_and_a_target_may_want_more() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer, &["--actor-assurance", "2"]);
    let good = token(&bank, &issuer, "ascribe");
    refused(&bank, &good, "need assurance 2; this key has 1");
    bank.register(&["--signed-opening"]);
    refused(&bank, &good, "wants sessions that their actor signed");
    let elsewhere = |database: &str| {
        let options = format!("{FULL} dbname={database}");
        bank.psql_at_the_port(&good, &options, "select 'let in'")
    };
    bank.register(&["--database", "orders"]);
    let out = elsewhere("postgres").exits(2);
    assert!(
        out.stderr.contains("does not allow the database"),
        "{}",
        out.stderr
    );
    assert!(!bank.cluster.log().contains("let in"));
    psql(&bank, &good, "select 11").exits(0);
    let session = bank.action("select 11")["session_id"]
        .as_str()
        .unwrap()
        .to_owned();
    bank.world.ended_session(&session);
    bank.stop();
    // Each refused one's login was ended, the good one ended with its session.
    assert_eq!(
        occurrences(&bank.world.data().join("segments"), "logout"),
        3
    );
    let ledger = bank.world.verify(&bank.world.data(), &bank.world.policy());
    ledger.exits(0);
}
