//! Approvers by group: as a provider's tokens list it, and as a signed file does.

use std::process::Command;

use super::agent::Agent;
use super::idp::{CLIENT, Idp, SUBJECT};
use super::login::log_in;
use super::world::{World, need};

const GROUP: &str = "DB approvers";
const WHY: &str = "a look at the stuck replica";

/// A demo whose approver is the provider's account.
fn linked(idp: &Idp) -> World {
    let world = World::new();
    let issuer = idp.issuer.as_str();
    let add = [
        "provider", "add", "idp", "--kind", "oidc", "--issuer", issuer,
    ];
    world
        .run_as("approver", &[&add[..], &["--audience", CLIENT]].concat())
        .exits(0);
    let approver = world.person("approver").0;
    let link = ["identity", "link", &approver, "--provider", "idp"];
    world
        .run_as("approver", &[&link[..], &["--subject", SUBJECT]].concat())
        .exits(0);
    world
}

fn directory(world: &World, name: &str, options: &[&str]) {
    let role = format!("{GROUP}=approver");
    let add = [
        "directory",
        "add",
        name,
        "--provider",
        "idp",
        "--role",
        &role,
    ];
    world
        .run_as("approver", &[&add[..], options].concat())
        .exits(0);
}

#[test]
fn a_group_of_the_providers_token_approves_while_the_login_lasts() {
    let Some(mut idp) = Idp::start() else { return };
    let world = linked(&idp);
    let group = format!("sso:{GROUP}");
    directory(&world, "sso", &["--claim", "groups"]);
    world.change_target(&["--approver-group", &group]);

    let refused = |request: &str| {
        let no = world.run_as("approver", &["approve", request]).exits(2);
        assert!(no.stderr.contains(GROUP), "{no:?}");
    };
    let request = world.request(WHY);
    refused(&request);
    // A login without the group changes nothing.
    let agent = Agent::start(&world);
    let login = ["login", "--no-browser", "--for", "1h"];
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    refused(&request);
    idp.groups(&["Everybody", GROUP]);
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    let yes = agent.run(&world, &["-o", "json", "approve", &request]);
    let grant = yes.exits(0).line()["grant_id"].as_str().unwrap().to_owned();

    // The bundle holds the login that says so, and verifies without the provider.
    let place = world.place();
    let (account, target) = place.split_once('@').unwrap();
    world
        .ssh(&format!("{account}+{grant}@{target}"), "echo by group")
        .exits(0);
    let action = world.actions(&["--text", "by group"]).remove(0);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("group.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let bytes = std::fs::read_to_string(&bundle).unwrap();
    assert!(bytes.contains("group"), "the approval names the login");
    let report = world.verify(&bundle, &world.policy()).exits(0);
    // Nobody who acted logged in: the login is the approver's.
    let chain = [
        "enrolment",
        "enrolment",
        "provider",
        "identity",
        "directory",
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
    let approval = report.link("approval");
    let what = approval["what"].as_str().unwrap();
    assert!(
        what.contains(&format!("is in `{GROUP}` of `sso`")),
        "{approval}"
    );
    let issuer = &report.link("login")["signed_by"][0]["name"];
    let trust = approval["trust"].as_array().unwrap();
    assert!(
        trust.iter().any(|party| party["who"] == *issuer),
        "{approval}"
    );
    let approver = world.person("approver").0;
    assert_eq!(
        report.link("directory")["signed_by"][0]["principal"],
        approver.as_str()
    );

    // With the login ends the group.
    agent.run(&world, &["logout"]).exits(0);
    refused(&world.request(WHY));
}

#[test]
fn a_manager_whom_the_providers_token_names_approves_while_the_login_lasts() {
    let Some(mut idp) = Idp::start() else { return };
    let world = super::login::linked(&idp);
    let approver = world.person("approver").0;
    let operator = world.person("operator").0;
    let add = ["directory", "add", "org", "--provider", "idp"];
    let managers = ["--manager-claim", "manager"];
    world
        .run_as("approver", &[&add[..], &managers].concat())
        .exits(0);
    let listed = world.run(&["directory", "list"]).exits(0).stdout;
    assert!(listed.contains("by the claim manager"), "{listed}");
    world.change_target(&["--manager-approves"]);
    let ask = ["request", &world.place(), "--for", "30m", "--why", WHY];
    let refused = |why: &str| {
        let no = world.run_as("operator", &ask).exits(2);
        assert!(no.stderr.contains(why), "{no:?}");
    };
    refused("no directory says who that is");
    let agent = Agent::start(&world);
    let login = ["login", "--no-browser", "--for", "1h"];
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    refused("no directory says who that is");
    // Whom nobody is linked to is nobody's manager, and that is said.
    idp.manager("00u-boss");
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    refused("linked to nobody");
    let boss = ["identity", "link", &approver, "--provider", "idp"];
    world
        .run_as(
            "approver",
            &[&boss[..], &["--subject", "00u-boss"]].concat(),
        )
        .exits(0);
    let grant = world.approve(&world.request(WHY));
    let people = world.run_as("approver", &["person", "list"]).exits(0);
    let people = people.lines();
    let row = people.iter().find(|row| row["id"] == operator.as_str());
    assert_eq!(row.unwrap()["manager"], approver.as_str());

    let place = world.place();
    let (account, target) = place.split_once('@').unwrap();
    let user = format!("{account}+{grant}@{target}");
    world.ssh(&user, "echo by manager").exits(0);
    let action = world.actions(&["--text", "by manager"]).remove(0);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("manager.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let report = world.verify(&bundle, &world.policy()).exits(0);
    let approval = report.link("approval");
    let what = approval["what"].as_str().unwrap();
    assert!(
        what.contains("is the manager of whoever asked"),
        "{approval}"
    );
    let issuer = &report.link("login")["signed_by"][0]["name"];
    let trust = approval["trust"].as_array().unwrap();
    assert!(
        trust.iter().any(|party| party["who"] == *issuer),
        "{approval}"
    );

    // The next login names somebody else, and with the last one ends what it said.
    idp.manager("00u-other");
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    refused("linked to nobody");
    agent.run(&world, &["logout"]).exits(0);
    refused("no directory says who that is");
}

/// Whoever asks has a token that calls another the manager, after that one said yes.
#[test]
fn who_becomes_the_manager_after_their_yes_says_it_again() {
    let Some(mut idp) = Idp::start() else { return };
    let world = super::login::linked(&idp);
    let approver = world.person("approver").0;
    let by_approver = |args: &[&str]| world.run_as("approver", args);
    let key = world.path("cat");
    let mut keygen = Command::new(need("ssh-keygen"));
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key);
    world.program(keygen).exits(0);
    let public = key.with_extension("pub");
    let add = ["person", "add", "Cat", "--role", "approver", "--public-key"];
    by_approver(&[&add[..], &[public.to_str().unwrap()]].concat()).exits(0);
    let add = ["directory", "add", "org", "--provider", "idp"];
    by_approver(&[&add[..], &["--manager-claim", "manager"]].concat()).exits(0);
    for (who, subject) in [("Cat", "00u-cat"), (&approver, "00u-boss")] {
        let link = ["identity", "link", who, "--provider", "idp"];
        by_approver(&[&link[..], &["--subject", subject]].concat()).exits(0);
    }
    world.change_target(&["--manager-approves"]);
    let agent = Agent::start(&world);
    let login = ["login", "--no-browser", "--for", "1h"];
    idp.manager("00u-cat");
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    let request = world.request(WHY);
    let asked = || {
        let told = world.tell("approver", &["requests"]).exits(0).stdout;
        let row = by_approver(&["requests"]).exits(0).line();
        (told, row)
    };
    let (told, row) = asked();
    assert!(told.contains("; Cat must be among them"), "{told}");
    assert_eq!(row["missing"], 1);
    let yes = world.tell("approver", &["approve", &request]).exits(0);
    let said = yes.stdout.trim_end().to_owned();
    assert!(said.ends_with("1 more approval(s) needed: Cat"), "{said}");
    let again = by_approver(&["approve", &request]).exits(2);
    assert!(again.stderr.contains("you approved this before"));

    // That gives nothing effect, and what is awaited is said as it is.
    idp.manager("00u-boss");
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    let (told, row) = asked();
    assert!(
        told.contains("(again, as the manager: they were not when they approved) must be"),
        "{told}"
    );
    assert!(!told.contains("witnesses"), "{told}");
    assert_eq!(row["must_approve"][0], approver.as_str());
    agent.run(&world, &["logout"]).exits(0);
    let (told, row) = asked();
    assert!(
        told.contains("the manager of whoever asks (no directory says who that is) must be"),
        "{told}"
    );
    assert_eq!(
        (&row["missing"], &row["lacks_manager"]),
        (&1.into(), &true.into())
    );
    log_in(&world, &idp, agent.command(&world, &login)).exits(0);
    let grant = world.approve(&request);
    assert!(grant.starts_with("g-"), "{grant}");
}

#[test]
fn a_signed_file_says_who_approves_and_who_is_gone() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let operator = world.person("operator").0;
    let link = ["identity", "link", &operator, "--provider", "idp"];
    world
        .run_as(
            "approver",
            &[&link[..], &["--subject", "00u-other"]].concat(),
        )
        .exits(0);
    let signer = world.person("approver").0;
    directory(&world, "hr", &["--signer", &signer, "--suspend"]);
    let group = format!("hr:{GROUP}");
    world.change_target(&["--approver-group", &group, "--manager-approves"]);
    let file = world.path("people.tsv");
    let sign = |role: &str, text: &str| {
        std::fs::write(&file, text).unwrap();
        world.run_as(role, &["directory", "file", "hr", file.to_str().unwrap()])
    };
    let both = format!(
        "# who is here\n{SUBJECT}\tEverybody\t{GROUP}\n\n00u-other\tEverybody\tmanager={SUBJECT}\n"
    );
    let ask = ["request", &world.place(), "--for", "30m", "--why", WHY];
    let nobody = world.run_as("operator", &ask).exits(2);
    assert!(nobody.stderr.contains("manager"), "{nobody:?}");
    sign("operator", &both).exits(2);
    assert!(
        sign("approver", "a\na\n")
            .exits(3)
            .stderr
            .contains("line 2")
    );
    let twice = format!("a\tmanager={SUBJECT}\tmanager=b\n");
    sign("approver", &twice).exits(3);
    assert_eq!(sign("approver", &both).exits(0).line()["users"], 2);
    world.approve(&world.request(WHY));
    let people = world
        .run_as("approver", &["person", "list"])
        .exits(0)
        .lines();
    let row = |id: &str| people.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(row(&signer)["groups"][0]["group"], GROUP);
    assert_eq!(row(&operator)["manager"], signer.as_str());
    // Whoever is listed no longer is suspended, with what they asked for.
    sign("approver", &format!("{SUBJECT}\t{GROUP}\n")).exits(0);
    world.run_as("operator", &ask).exits(2);
    sign("approver", &both).exits(0);
    world.request(WHY);
}
