//! A maintenance job: approved as it is, run under its workload's own token, recorded as the run that it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::bank::{Bank, PLACE};
use super::idp::Idp;
use super::providers::Provider;
use super::world::Out;

const BEARER: &str = "runner-secret";
const NAME: &str = "close-orders";
const SCRIPT: &str = "-- close what is done\nupdate orders set open = false where done;\n\
                      insert into closings (at) values (now());\n";

/// A database with the tables of the script, and a workload that the operator answers for.
fn registered(issuer: &Idp) -> Bank {
    let bank = Bank::without_grant(&[]);
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
    bank.cluster.sql(
        "orders",
        "set role dba; create table orders (open bool, done bool); create table closings (at timestamptz); \
         insert into orders values (true, true), (true, false)",
    );
    bank
}

fn script(bank: &Bank, text: &str) -> PathBuf {
    let file = bank.world.path("job.sql");
    std::fs::write(&file, text).unwrap();
    file
}

fn add(bank: &Bank, file: &Path) {
    let file = file.to_str().unwrap();
    let add = [
        "job",
        "add",
        NAME,
        PLACE,
        "--file",
        file,
        "--schedule",
        "daily at 02:00 UTC",
        "--workload",
        "deploy-shop",
        "--why",
        "close the orders of the day",
        "--ticket",
        "demo:OPS-77",
        "--for",
        "8h",
    ];
    bank.world.run_as("operator", &add).exits(0);
}

fn approve(bank: &Bank, file: &Path) -> Out {
    let file = file.to_str().unwrap();
    bank.world
        .run_as("approver", &["job", "approve", NAME, "--file", file])
}

/// What cron starts: no key, no agent, nothing but what its runner gives it.
fn run(bank: &Bank, issuer: &Idp, file: &Path) -> Out {
    let mut command: Command = bank.world.ascribe(&["-o", "json", "job", "run", NAME]);
    command
        .arg("--file")
        .arg(file)
        .args(["--workload", "deploy-shop", "--database", "orders"])
        .env("HOME", bank.world.path("nowhere"))
        .env(
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            format!("{}/token?api-version=2", issuer.issuer),
        )
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER);
    bank.world.program(command)
}

#[test]
fn a_job_runs_with_nothing_but_its_own_token_and_each_statement_names_it() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer);
    let file = script(&bank, SCRIPT);
    add(&bank, &file);
    let early = run(&bank, &issuer, &file).exits(2);
    assert!(early.stderr.contains("may run now"), "{}", early.stderr);
    approve(&bank, &file).exits(0);
    let out = run(&bank, &issuer, &file).exits(0);
    let tags: Vec<_> = out.lines().iter().map(|line| line["tag"].clone()).collect();
    assert_eq!(tags, [json!("UPDATE 1"), json!("INSERT 0 1")]);
    assert_eq!(
        bank.cluster
            .sql("orders", "select count(*) from orders where open"),
        "1\n"
    );

    let done = bank.action("update orders set open = false where done");
    let actor = &done["who"]["chain"][0];
    assert_eq!(actor["kind"], "workload", "{done}");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["owner"], bank.world.person("operator").0.as_str());
    assert_eq!(actor["run"]["id"], "9120045511");
    let why = &done["why"];
    assert_eq!(why["job"]["name"], NAME);
    assert_eq!(why["job"]["schedule"], "daily at 02:00 UTC");
    assert_eq!(
        why["approvals"][0]["approver"],
        bank.world.person("approver").0.as_str()
    );
    assert_eq!(why["ticket"]["id"], "OPS-77");
    assert_eq!(
        done["what"]["system_owner"],
        bank.world.person("approver").0.as_str()
    );
    assert_eq!(done["what"]["sql"]["step"], 0);

    // It runs again, and is listed with what it did.
    run(&bank, &issuer, &file).exits(0);
    let runs = bank.world.json(&["job", "runs", NAME]).lines();
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(
            (&run["run"], &run["statements"], &run["status"]),
            (&json!("9120045511"), &json!(2), &json!("succeeded"))
        );
    }
    let jobs = bank.world.json(&["job", "list"]).lines();
    assert_eq!(
        (&jobs[0]["name"], &jobs[0]["statements"], &jobs[0]["runs"]),
        (&json!(NAME), &json!(2), &json!(2))
    );
    bank.stop();
    let policy = bank.world.policy();
    bank.world.verify(&bank.world.data(), &policy).exits(0);
}

#[test]
fn a_changed_script_does_not_run_and_the_wrong_one_is_not_approved() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let bank = registered(&issuer);
    let file = script(&bank, SCRIPT);
    add(&bank, &file);
    let other = bank.world.path("other.sql");
    std::fs::write(&other, SCRIPT.replace("where done", "")).unwrap();
    let out = approve(&bank, &other).exits(2);
    assert!(
        out.stderr.contains("from its statement 1"),
        "{}",
        out.stderr
    );
    approve(&bank, &file).exits(0);
    let out = run(&bank, &issuer, &other).exits(2);
    assert!(
        out.stderr.contains("has changed since it was approved"),
        "{}",
        out.stderr
    );
    // A client that does not look is stopped by the law.
    assert_eq!(
        bank.cluster.sql("orders", "select count(*) from closings"),
        "0\n"
    );
    run(&bank, &issuer, &file).exits(0);
}
