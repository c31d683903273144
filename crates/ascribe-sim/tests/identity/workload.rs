//! A pipeline's job logs in with its own token, reaches a host with plain `ssh`, and is recorded as the run that
//! it is.

use std::process::Command;

use super::agent::Agent;
use super::idp::Idp;
use super::providers::Provider;
use super::world::{Out, World};

const BEARER: &str = "runner-secret";

/// A demo with the issuer registered and a workload that the operator answers for.
fn registered(issuer: &Idp) -> World {
    let world = World::new();
    let keys = format!("{}/jwks", issuer.issuer);
    world.add_provider(&Provider {
        name: "github",
        kind: "github",
        issuer: &issuer.issuer,
        audience: "ascribe",
        jwks: Some(&keys),
    });
    world.add_workload("github", &["repository_id=74001", "environment=production"]);
    world
}

/// What GitHub gives a job that may ask for tokens.
fn in_a_job(mut command: Command, issuer: &Idp) -> Command {
    command
        .env(
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            format!("{}/token?api-version=2", issuer.issuer),
        )
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER);
    command
}

fn log_in(agent: &Agent, world: &World, issuer: &Idp) -> Out {
    let args = ["login", "--workload", "deploy-shop", "--for", "1h"];
    let mut login = in_a_job(agent.command(world, &args), issuer);
    world.program_as_is(&mut login)
}

#[test]
fn a_pipelines_job_acts_under_its_own_name_with_run_commit_and_owner() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let world = registered(&issuer);
    let agent = Agent::start(&world);
    let out = log_in(&agent, &world, &issuer).exits(0);
    assert!(
        out.stdout.starts_with("logged in as deploy-shop until "),
        "{out:?}"
    );
    // It has a name, and no grant yet.
    let early = agent.ssh(&world, "id").exits(254);
    assert!(early.stderr.contains("no access"), "{early:?}");
    world.grant_workload();
    agent.ssh(&world, "echo deployed").exits(0);
    let by_run = world.actions(&["--run", "9120045511"]);
    let by_commit = world.actions(&["--commit", "8f2d6a5b7c3e4f90112233445566778899aabbcc"]);
    assert_eq!((by_run.len(), by_commit.len()), (1, 1));
    let action = &by_run[0];
    let actor = &action["who"]["chain"][0];
    assert_eq!(actor["kind"], "workload", "{action}");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["owner"], world.person("operator").0.as_str());
    assert_eq!(actor["assurance"], 2);
    assert_eq!(actor["run"]["provider"], "github");
    assert_eq!(actor["run"]["attempt"], "2");
    assert_eq!(actor["code"]["repo"], "74001");
    assert_eq!(actor["code"]["ref"], "refs/heads/main");
    assert_eq!(actor["trigger"]["event"], "push");
    assert_eq!(actor["trigger"]["id"], "5501");
    // Who ran it again is not in the token, and the record says so.
    assert!(actor["missing"].to_string().contains("again"), "{action}");
    assert_eq!(action["why"]["ticket"]["id"], "OPS-77");
    assert!(world.actions(&["--run", "9120045512"]).is_empty());

    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("job.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    drop(issuer);
    let report = world.verify(&bundle, &world.policy()).exits(0);
    assert!(report.stdout.contains("login:github"), "{report:?}");
    let chain = [
        "enrolment",
        "enrolment",
        "provider",
        "workload",
        "login",
        "request",
        "approval",
        "grant",
        "opening",
        "record",
        "order",
        "time",
    ];
    assert_eq!(report.chain(), chain, "{report:?}");
    let rule = report.link("workload");
    let approver = world.person("approver").0;
    assert_eq!(rule["signed_by"][0]["principal"], approver.as_str());
    let what = rule["what"].as_str().unwrap();
    assert!(what.contains("Olu Operator answers for it"), "{rule}");
    let asked = report.link("request");
    let operator = world.person("operator").0;
    assert_eq!(asked["signed_by"][0]["principal"], operator.as_str());
}

#[test]
fn another_repositorys_job_is_not_the_workload() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut world = registered(&issuer);
    world.grant_workload();
    let agent = Agent::start(&world);
    let mint = r#"curl -sfG "$ISSUER/mint" --data-urlencode "audience=$ASCRIBE_AUDIENCE" --data-urlencode "claims=$CLAIMS""#;
    let mint = format!("sh -c '{mint}'");
    let args = [
        "login",
        "--workload",
        "deploy-shop",
        "--token-command",
        &mint,
    ];
    let mut codes = Vec::new();
    for claims in [
        r#"{"sub":"repo:evil/shop:environment:production","repository_id":"74002","environment":"production","run_id":"1","run_attempt":"1","event_name":"push"}"#,
        r#"{"sub":"repo:example/shop:ref:refs/heads/x","repository_id":"74001","run_id":"1","run_attempt":"1","event_name":"push"}"#,
        r#"{"sub":"repo:example/shop:environment:production","repository_id":"74001 ","environment":"production","run_id":"1","run_attempt":"1","event_name":"push"}"#,
        r#"{"sub":"repo:example/shop:environment:production","repository_id":"74001","environment":"Production","run_id":"1","run_attempt":"1","event_name":"push"}"#,
    ] {
        let mut login = agent.command(&world, &args);
        login.env("ISSUER", &issuer.issuer).env("CLAIMS", claims);
        let out = world.program_as_is(&mut login);
        codes.push(out.code);
        assert!(
            out.stderr
                .contains("does not meet the workload's conditions"),
            "{claims}: {out:?}"
        );
    }
    assert_eq!(codes, [Some(2); 4]);
    agent.ssh(&world, "id").exits(255);
    assert!(
        world
            .actions(&[])
            .iter()
            .all(|a| a["who"]["chain"][0]["kind"] == "person")
    );
    // Why each was refused is on record, without a session.
    world.stop();
    let report = world.verify(&world.data(), &world.policy()).exits(0).line();
    let notes = report["notes"].as_array().unwrap();
    let note = notes.iter().find(|note| note["code"] == "login_refused");
    assert_eq!(
        note.unwrap()["message"],
        "4 login(s) that named provider `github` were refused: conditions 4"
    );
}

#[test]
fn a_rule_that_many_could_meet_is_refused_unless_confirmed_in_writing() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let world = registered(&issuer);
    let operator = world.person("operator").0;
    let rule = |when: &'static str| {
        vec![
            "workload",
            "add",
            "wide",
            "--provider",
            "github",
            "--owner",
            &operator,
            "--when",
            when,
        ]
    };
    for wide in [
        "repository_owner_id=1001",
        "repository_id=*",
        "event_name=pull_request",
        "ref=refs/heads/main",
    ] {
        let out = world.run_as("approver", &rule(wide)).exits(2);
        assert!(out.stderr.contains("--confirm"), "{wide}: {out:?}");
    }
    let mut confirmed = rule("repository_owner_id=1001");
    confirmed.extend([
        "--confirm",
        "all repositories of the organisation deploy to the test fleet",
    ]);
    world.run_as("approver", &confirmed).exits(0);
    let listed = world.json(&["workload", "list"]).lines();
    assert_eq!(listed.len(), 2);
}

#[test]
fn a_workload_whose_owner_has_left_gets_in_no_more() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let world = registered(&issuer);
    world.grant_workload();
    let agent = Agent::start(&world);
    log_in(&agent, &world, &issuer).exits(0);
    agent.ssh(&world, "true").exits(0);
    let operator = world.person("operator").0;
    world
        .run_as("approver", &["person", "offboard", &operator])
        .exits(0);
    let out = agent.ssh(&world, "id").exits(255);
    assert!(!out.stderr.is_empty());
    log_in(&agent, &world, &issuer).exits(2);
    let shown = world.json(&["workload", "list"]).line();
    assert_eq!(shown["orphaned"], true, "{shown}");
}
