//! Providers, identities and workloads, as administrators and owners see them. Logins themselves are
//! tested with issuers of their own.

use super::text;
use super::world::World;

const SUBJECT: &str = "248289761001";

fn add_provider(world: &World, name: &str, kind: &str, more: &[&str]) {
    let issuer = format!("https://{name}.invalid");
    let keys = format!("{issuer}/keys");
    let mut args = vec![
        "provider",
        "add",
        name,
        "--kind",
        kind,
        "--issuer",
        &issuer,
        "--audience",
        "ascribe",
        "--jwks",
        &keys,
    ];
    args.extend(more);
    world.run_as("approver", &args).exits(0);
}

#[test]
fn identities_are_linked_by_an_administrator_and_taken_back_by_the_person() {
    let world = World::new();
    let operator = world.person("operator").0;
    add_provider(&world, "idp", "oidc", &["--algorithm", "RS256"]);
    let listed = world.json(&["provider", "list"]).line();
    assert_eq!(text(&listed, "/provider/issuer"), "https://idp.invalid");
    assert_eq!(
        listed["provider"]["algorithms"],
        serde_json::json!(["RS256"])
    );
    assert!(listed["keys_entry"].is_null(), "{listed}");
    let named = |verb| {
        let operator = operator.as_str();
        [
            "identity",
            verb,
            operator,
            "--provider",
            "idp",
            "--subject",
            SUBJECT,
        ]
    };
    world.run_as("operator", &named("link")).exits(2);
    world.run_as("approver", &named("link")).exits(0);
    world.run_as("approver", &named("link")).exits(2);
    let listed = world.json(&["identity", "list"]).line();
    assert_eq!(text(&listed, "/person"), operator);
    // A digest stands for the subject.
    assert!(!listed.to_string().contains(SUBJECT), "{listed}");
    world.run_as("operator", &named("unlink")).exits(0);
    assert!(world.json(&["identity", "list"]).lines().is_empty());
    world
        .run_as("approver", &["provider", "withdraw", "idp"])
        .exits(0);
    world.run_as("approver", &named("link")).exits(2);
    let shown = world.run(&["provider", "list"]).exits(0).stdout;
    assert!(shown.contains("WITHDRAWN"), "{shown}");
}

#[test]
fn a_provider_keeps_its_observers_until_an_administrator_changes_them() {
    let world = World::new();
    let (operator, approver) = (world.person("operator").0, world.person("approver").0);
    let observers =
        || world.json(&["provider", "show", "idp"]).line()["provider"]["observers"].clone();
    add_provider(&world, "idp", "oidc", &["--observer", &approver]);
    assert_eq!(observers()["needed"], 1);
    // Whoever replaces the provider and says nothing of them leaves them as they are.
    add_provider(&world, "idp", "oidc", &["--max-keys-age", "2h"]);
    assert_eq!(observers()["people"], serde_json::json!([approver]));
    let change = |role: &str, more: &[&str]| {
        world.run_as(role, &[&["provider", "observers", "idp"], more].concat())
    };
    let both = ["--observer", &approver, "--observer", &operator];
    change("operator", &both).exits(2);
    change("approver", &both).exits(0);
    assert_eq!(observers()["needed"], 2);
    change(
        "approver",
        &[&both[..], &["--observers-needed", "1"]].concat(),
    )
    .exits(0);
    assert_eq!(observers()["needed"], 1);
    change(
        "approver",
        &[&both[..], &["--observers-needed", "3"]].concat(),
    )
    .exits(2);
    change("approver", &["--observer", "nobody"]).exits(3);
    // Nothing said, or both.
    change("approver", &[]).exits(3);
    change("approver", &[&both[..], &["--none"]].concat()).exits(3);
    let shown = world.run(&["provider", "show", "idp"]).exits(0).stdout;
    assert_eq!(shown.matches("has not looked").count(), 2, "{shown}");
    // Nothing answers there: nothing is signed.
    let observe = ["provider", "observe", "idp"];
    world.run_as("approver", &observe).exits(1);
    change("approver", &["--none"]).exits(0);
    assert!(observers().is_null());
    let none = world.run_as("approver", &observe).exits(3);
    assert!(none.stderr.contains("provider observers"), "{none:?}");
}

#[test]
fn a_workload_is_enrolled_exactly_and_its_owner_asks_for_it() {
    let world = World::new();
    let operator = world.person("operator").0;
    let approver = world.person("approver").0;
    add_provider(&world, "github", "github", &[]);
    let mut add = vec![
        "workload",
        "add",
        "deploy",
        "--provider",
        "github",
        "--owner",
        &operator,
        "--when",
        "repository_id=42",
    ];
    // The repository alone: anybody's branch.
    let refused = world.run_as("approver", &add).exits(2);
    assert!(refused.stderr.contains("--confirm"), "{}", refused.stderr);
    add.extend([
        "--when",
        "ref=refs/heads/main",
        "--when",
        "ref=refs/heads/hotfix",
    ]);
    world.run_as("operator", &add).exits(2);
    world.run_as("approver", &add).exits(0);
    let listed = world.json(&["workload", "list"]).line();
    let id = text(&listed, "/workload/workload").to_owned();
    assert_eq!(text(&listed, "/workload/owner"), operator);
    let values = listed.pointer("/workload/conditions/1/one_of").unwrap();
    assert_eq!(values.as_array().unwrap().len(), 2);
    assert!(listed["last_login"].is_null() && listed["orphaned"] == false);

    let place = world.place();
    let why = "deploy what was merged to the main branch";
    let ask = [
        "request",
        &place,
        "--workload",
        "deploy",
        "--why",
        why,
        "--ticket",
        "demo:OPS-9",
        "--reusable",
    ];
    world.run_as("approver", &ask).exits(2);
    let asked = world.run_as("operator", &ask).exits(0).line();
    let request = text(&asked, "/request_id").to_owned();
    world.run_as("operator", &["approve", &request]).exits(2);
    let waiting = world.run(&["requests"]).exits(0).stdout;
    assert!(waiting.contains("for workload deploy"), "{waiting}");
    let grant = world.approve(&request);
    let grants = world.run(&["grants"]).exits(0).stdout;
    assert!(grants.contains("deploy"), "{grants}");
    let shown = world.run(&["workload", "show", "deploy"]).exits(0).stdout;
    for part in ["ref is refs/heads/main or refs/heads/hotfix", "never used"] {
        assert!(shown.contains(part), "{shown}");
    }
    // It is the workload's grant, not its owner's.
    let (account, target) = (world.field("account"), world.field("target"));
    let user = format!("{account}+{grant}@{target}");
    world.ssh(&user, "id").exits(254);

    world
        .run_as("approver", &["workload", "owner", "deploy", &approver])
        .exits(0);
    let row = world.json(&["workload", "show", &id]).line();
    assert_eq!(text(&row, "/workload/owner"), approver);
    assert_eq!(row["grants"].as_array().unwrap().len(), 1);
    world
        .run_as("approver", &["workload", "withdraw", "deploy"])
        .exits(0);
    let shown = world.run(&["workload", "list"]).exits(0).stdout;
    assert!(shown.contains("WITHDRAWN"), "{shown}");
    world.run_as("operator", &ask).exits(2);
    assert!(world.json(&["actions", "--run", "77"]).lines().is_empty());
    assert!(
        world
            .json(&["actions", "--commit", "0123456"])
            .lines()
            .is_empty()
    );
}

#[test]
fn what_is_listed_says_who_is_there_and_what_will_do() {
    let world = World::new();
    add_provider(&world, "idp", "oidc", &["--algorithm", "RS256"]);
    let listed = world.run(&["provider", "list"]).exits(0).stdout;
    assert!(listed.contains("the first login fetches them"), "{listed}");
    let short = world.run(&["actions", "--commit", "8f2d"]).exits(3);
    assert!(short.stderr.contains("seven letters at least"), "{short:?}");
    let help = world.run(&["delegate", "--help"]).exits(0).stdout;
    assert!(help.contains("`pg`"), "{help}");
    let help = world.run(&["witness", "run", "--help"]).exits(0).stdout;
    assert!(help.contains("the witness's own"), "{help}");
    // An argument too many, behind the command that is one.
    let login = [
        "login",
        "--workload",
        "x",
        "--token-command",
        "printenv",
        "TOKEN",
    ];
    let swallowed = world.run(&login).exits(3);
    assert!(
        swallowed.stderr.contains("quote the program together"),
        "{swallowed:?}"
    );

    let (target, owner) = (world.field("target"), world.person("operator").0);
    world
        .change_target(&["--max-unwitnessed", "90s", "--owner", &owner])
        .exits(0);
    let shown = || world.run(&["target", "show", &target]).exits(0).stdout;
    let before = shown();
    assert!(before.contains("owner Olu Operator  "), "{before}");
    assert!(before.contains("unwitnessed at most 90 s"), "{before}");
    world
        .run_as("approver", &["person", "offboard", &owner])
        .exits(0);
    let after = shown();
    assert!(after.contains("owner Olu Operator (HAS LEFT)"), "{after}");
    let gone = world.tell("operator", &["workload", "list"]).exits(2);
    for part in [
        "the author has left",
        "SHA256:",
        "help: sign with the key of somebody",
    ] {
        assert!(gone.stderr.contains(part), "{gone:?}");
    }
}
