//! A maintenance job: approved as it is, run under its workload's own token, recorded as the run that it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::bank::{Bank, PLACE};
use super::bearers::BEARER;
use super::idp::Idp;
use super::providers::Provider;
use super::world::{Out, PATIENCE, wait_for};

const NAME: &str = "close-orders";
const SCRIPT: &str = "-- close what is done\nupdate orders set open = false where done;\n\
                      insert into closings (at) values (now());\n";

/// A database with the tables of the script, and a workload that the operator answers for.
pub(super) fn registered(issuer: &Idp) -> Bank {
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

pub(super) fn add(bank: &Bank, file: &Path) {
    bank.world
        .run_as("operator", &asking(file.to_str().unwrap()))
        .exits(0);
}

/// Asks for the job for as long as the target allows.
fn asking(file: &str) -> [&str; 14] {
    [
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
    ]
}

pub(super) fn approve(bank: &Bank, file: &Path) -> Out {
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
        .env("HOME", bank.world.path("nowhere"));
    bank.world.program(in_a_job(command, issuer))
}

/// What a runner gives a job that may ask for tokens.
pub(super) fn in_a_job(mut command: Command, issuer: &Idp) -> Command {
    command
        .env(
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            format!("{}/token?api-version=2", issuer.issuer),
        )
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER);
    command
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
    // Who answers for the workload or the target sees the same, and no text of a statement. One line names all.
    for role in ["operator", "approver"] {
        let runs = bank.world.run_as(role, &["job", "runs", NAME]).exits(0);
        assert_eq!(runs.lines().len(), 2, "{runs:?}");
        assert!(!runs.stdout.contains("update orders"), "{runs:?}");
    }
    // Who has nothing to do with the job sees nothing.
    let key = bank.world.path("eve");
    let mut made = Command::new("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    bank.world.program(made).exits(0);
    let public = key.with_extension("pub");
    let enrol = ["person", "add", "Eve", "--role", "approver", "--public-key"];
    let enrol = [&enrol[..], &[public.to_str().unwrap()]].concat();
    bank.world.run_as("approver", &enrol).exits(0);
    let mut eve = bank.world.ascribe(&["--key"]);
    eve.arg(&key).args(["job", "runs", NAME]);
    let eve = bank.world.program(eve).exits(2);
    assert!(
        eve.stderr.contains("none whose runs are told to you"),
        "{eve:?}"
    );
    let told = bank.world.run(&["actions", "--target", "orders-db"]);
    let why = "    run 9120045511 of github, job close-orders ";
    let line = told.stdout.lines().find(|line| line.starts_with(why));
    assert!(
        line.is_some_and(|line| {
            line.ends_with(", owner Olu Operator, approved by Ada Approver, ticket demo:OPS-77")
        }),
        "{told:?}"
    );
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
    // Of one that does not look, see `commands.rs`.
    assert_eq!(
        bank.cluster.sql("orders", "select count(*) from closings"),
        "0\n"
    );
    run(&bank, &issuer, &file).exits(0);
}

#[test]
fn who_adds_and_approves_a_job_is_told_what_it_is_and_what_comes_next() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let bank = registered(&issuer);
    let file = script(&bank, SCRIPT);
    let shown = file.to_str().unwrap().to_owned();
    let added = bank.world.tell("operator", &asking(&shown)).exits(0);
    let request = bank.world.run_as("operator", &["requests"]).line();
    let id = request["id"].as_str().unwrap();
    let next = format!(
        "next: Ada Approver runs `ascribe show {id}`, then `ascribe job approve {NAME} --request {id} --file {shown}`",
    );
    assert!(added.stdout.contains(&next), "{added:?}");
    assert!(
        added
            .stderr
            .contains("may run for 8 h, the longest that `orders-db` allows"),
        "{added:?}"
    );
    let again = bank.world.tell("operator", &asking(&shown)).exits(0);
    assert!(
        again.stderr.contains("waits for approval under the name"),
        "{again:?}"
    );
    let requests = bank.world.run_as("operator", &["requests"]).lines();
    let ids: Vec<&str> = requests.iter().map(|r| r["id"].as_str().unwrap()).collect();
    bank.world.run_as("operator", &["cancel", ids[1]]).exits(0);
    for args in [&["requests"][..], &["show", ids[0]]] {
        let told = bank.world.tell("approver", args).exits(0).stdout;
        for part in [
            "job close-orders, daily at 02:00 UTC",
            "exactly 2 statements",
            "demo:OPS-77",
        ] {
            assert!(told.contains(part), "{args:?}: {told}");
        }
    }
    // Nobody approves what they have not read without saying so.
    let blind = bank.world.tell("approver", &["approve", ids[0]]).exits(3);
    for way in ["ascribe job approve close-orders --file FILE", "--unread"] {
        assert!(blind.stderr.contains(way), "{blind:?}");
    }
    // Where it is to run is compared, if it is said.
    let elsewhere = [
        "job",
        "approve",
        NAME,
        "postgres@orders-db",
        "--file",
        &shown,
    ];
    let elsewhere = bank.world.tell("approver", &elsewhere).exits(2);
    let where_it_is = "the job is asked for at dba@orders-db for workload deploy-shop, not there";
    assert!(elsewhere.stderr.contains(where_it_is), "{elsewhere:?}");
    let yes = ["job", "approve", NAME, PLACE, "--file", &shown];
    let yes = bank.world.tell("approver", &yes).exits(0);
    let next = format!(
        "next: deploy-shop runs it: ascribe job run {NAME} --file FILE --workload deploy-shop"
    );
    assert!(yes.stdout.contains(&next), "{yes:?}");
    let again = bank.world.tell("operator", &asking(&shown)).exits(0);
    assert!(again.stderr.contains("it runs instead"), "{again:?}");
    let id = bank.world.run_as("operator", &["requests"]).line();
    let unread = ["approve", id["id"].as_str().unwrap(), "--unread"];
    let unread = bank.world.tell("approver", &unread).exits(0);
    assert!(unread.stderr.contains("approved unread"), "{unread:?}");
}

#[test]
fn what_could_never_run_is_not_asked_for() {
    let bank = Bank::without_grant(&[]);
    let file = script(&bank, "set role postgres;\n");
    let file = file.to_str().unwrap();
    let refused = bank.world.tell("operator", &asking(file));
    let ask = ["request", PLACE, "--why", "repair what broke this morning"];
    let with = |more: &[&str]| bank.world.tell("operator", &[&ask[..], more].concat());
    for refused in [
        with(&["--script", file]),
        with(&["--script", file, "--class", "select"]),
    ] {
        let refused = refused.exits(2);
        assert!(
            refused.stderr.contains("does not allow `set-role`"),
            "{refused:?}"
        );
    }
    // The workload is nobody's here, which is said first.
    refused.exits(3);
    std::fs::write(file, "select 1; delete from t").unwrap();
    let other = with(&["--script", file, "--class", "select"]).exits(2);
    assert!(
        other.stderr.contains("statement 2") && other.stderr.contains("class `delete`"),
        "{other:?}"
    );
    let other = with(&["--script", file, "--object", "public.t"]).exits(2);
    assert!(other.stderr.contains("names `t`"), "{other:?}");
    let slip = with(&["--class", "slect"]).exits(3);
    assert!(
        slip.stderr.contains("classes are select, insert"),
        "{slip:?}"
    );
}

#[test]
fn a_run_that_did_not_do_all_is_no_success() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let bank = registered(&issuer);
    bank.register(&["--allow", "do"]);
    let text = "update orders set open = false where done;\ndo $$ begin perform 1/0; end $$;\n";
    let file = script(&bank, text);
    add(&bank, &file);
    approve(&bank, &file).exits(0);
    run(&bank, &issuer, &file).exits(1);
    // The target's rules change: what was approved is refused now.
    bank.register(&[]);
    run(&bank, &issuer, &file).exits(2);
    let runs = wait_for("both runs", PATIENCE, || {
        let runs = bank.world.json(&["job", "runs", NAME]).lines();
        (runs.last()?["status"] == "refused").then_some(runs)
    });
    let of = |run: &Value| {
        (
            run["steps"].clone(),
            run["of"].clone(),
            run["refused"].clone(),
        )
    };
    assert_eq!(runs[0]["status"], "failed", "{runs:?}");
    assert_eq!(of(&runs[0]), (json!(1), json!(2), json!(0)));
    assert_eq!(of(&runs[1]), (json!(1), json!(2), json!(1)));
    let told = bank
        .world
        .tell("operator", &["job", "runs", NAME])
        .exits(0)
        .stdout;
    assert!(told.contains("failed, 1 of 2 steps done"), "{told}");
    assert!(told.contains("1 refused, 1 of 2 steps done"), "{told}");
}
