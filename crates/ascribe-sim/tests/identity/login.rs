//! A person logs in at their provider, and the record and its proof outlive the provider's keys.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::{Body, Entry};

use super::agent::Agent;
use super::idp::{CLIENT, Idp, SUBJECT};
use super::providers::Provider;
use super::world::{Out, PATIENCE, Running, World, need, wait_for};

impl Agent {
    fn log_in(&self, world: &World, idp: &Idp) -> Out {
        let args = ["login", "--no-browser", "--for", "1h"];
        log_in(world, idp, self.command(world, &args))
    }
}

/// Logs in, with the browser played.
pub(super) fn log_in(world: &World, idp: &Idp, command: Command) -> Out {
    let login = Running::start(command, &world.path("logs"), false);
    let address = wait_for("address", PATIENCE, || {
        let said = login.stderr();
        let found = said.lines().find(|line| line.starts_with("http://"))?;
        said.ends_with('\n').then(|| found.to_owned())
    });
    let page = idp.browse(world, &address);
    assert!(page.contains("You are logged in"), "{page}");
    login.wait(PATIENCE)
}

/// A machine without an agent: a program that knows the passphrase stands in for its owner.
struct Owner {
    program: PathBuf,
}

impl Owner {
    fn new(world: &World, name: &str, passphrase: &str) -> Self {
        let program = world.path(name);
        let text = format!("#!/bin/sh\nprintf '%s\\n' '{passphrase}'\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { program }
    }

    fn answers(&self, mut command: Command) -> Command {
        command
            .env("SSH_ASKPASS", &self.program)
            .env("SSH_ASKPASS_REQUIRE", "force");
        command
    }

    fn run(&self, world: &World, args: &[&str]) -> Out {
        world.program_as_is(&mut self.answers(world.ascribe(args)))
    }

    fn ssh(&self, world: &World, key: &Path, command: &str) -> Out {
        let mut ssh = Command::new(need("ssh"));
        ssh.args(["-F", "none", "-oHostName=127.0.0.1", "-oIdentityAgent=none"])
            .args([
                "-oStrictHostKeyChecking=no",
                "-oUserKnownHostsFile=/dev/null",
            ])
            .arg("-i")
            .arg(key)
            .args(["-p", &world.port().to_string()])
            .arg(format!("{}@ascribe-demo", world.place()))
            .arg(command);
        world.program_as_is(&mut self.answers(ssh))
    }
}

#[test]
fn without_an_agent_the_key_is_in_an_encrypted_file_that_ends_with_the_login() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let owner = Owner::new(&world, "owner", "correct horse");
    let stranger = Owner::new(&world, "stranger", "wrong horse");
    let file = world.path("session key");
    let login = [
        "login",
        "--no-browser",
        "--for",
        "1h",
        "--key-file",
        file.to_str().unwrap(),
    ];
    // Nobody to ask, no agent, a short passphrase: refused before the browser is.
    world.run(&["login", "--no-browser"]).exits(3);
    let mut alone = world.ascribe(&login);
    alone
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env_remove("SSH_ASKPASS");
    world.program_as_is(&mut alone).exits(3);
    let short = Owner::new(&world, "short", "short");
    assert!(
        short
            .run(&world, &login)
            .exits(3)
            .stderr
            .contains("8 characters")
    );
    assert!(!file.exists());

    log_in(&world, &idp, owner.answers(world.ascribe(&login))).exits(0);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // OpenSSH itself takes it for an encrypted key.
    let opens = |passphrase: &str| {
        let mut keygen = Command::new(need("ssh-keygen"));
        keygen.args(["-y", "-P", passphrase, "-f"]).arg(&file);
        world.program_as_is(&mut keygen).code == Some(0)
    };
    assert!(opens("correct horse") && !opens("wrong horse") && !opens(""));
    owner.ssh(&world, &file, "echo from a file").exits(0);
    stranger.ssh(&world, &file, "id").exits(255);
    let place = world.place();
    let ask = [
        "request",
        &place,
        "--for",
        "30m",
        "--why",
        "a look at the stuck replica",
        "--ticket",
        "demo:OPS-42",
    ];
    owner.run(&world, &ask).exits(0);
    assert!(
        stranger
            .run(&world, &ask)
            .exits(3)
            .stderr
            .contains("does not open")
    );
    // What is there already is not overwritten.
    assert!(
        owner
            .run(&world, &login)
            .exits(3)
            .stderr
            .contains("there already")
    );

    owner.run(&world, &["logout"]).exits(0);
    assert!(!file.exists());
    log_in(&world, &idp, owner.answers(world.ascribe(&login))).exits(0);
    // Of an own file nothing is removed.
    let kept = world.path("kept");
    std::fs::rename(&file, &kept).unwrap();
    std::fs::copy(world.person("operator").1, &file).unwrap();
    let key = kept.to_str().unwrap();
    owner.run(&world, &["--key", key, "logout"]).exits(0);
    assert!(file.exists());
    owner.ssh(&world, &kept, "id").exits(255);
}

/// A demo with the provider registered, and the operator linked to its account.
pub(super) fn linked(idp: &Idp) -> World {
    let world = World::new();
    world.add_provider(&Provider {
        name: "idp",
        kind: "oidc",
        issuer: &idp.issuer,
        audience: CLIENT,
        jwks: None,
    });
    world.link_operator(SUBJECT);
    world
}

#[test]
fn a_person_logs_in_reaches_a_host_and_the_proof_outlives_the_providers_keys() {
    let Some(mut idp) = Idp::start() else { return };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    let place = world.place();
    agent.ssh(&world, "id").exits(255);
    let said = agent.log_in(&world, &idp).exits(0).stdout;
    assert!(
        said.starts_with("logged in as Olu Operator until "),
        "{said}"
    );
    agent.ssh(&world, "echo after login").exits(0);
    let action = world.actions(&["--text", "after login"]).remove(0);
    let actor = &action["who"]["chain"][0];
    assert_eq!(actor["principal"], world.person("operator").0.as_str());
    assert_eq!(actor["kind"], "person");
    assert_eq!(actor["assurance"], 2, "{action}");
    assert!(
        actor["evidence"].as_str().unwrap().starts_with("login:idp"),
        "{action}"
    );
    // The session key signs statements as well.
    let ask = [
        "-o",
        "json",
        "request",
        &place,
        "--for",
        "30m",
        "--why",
        "a look at the stuck replica",
        "--ticket",
        "demo:OPS-42",
    ];
    agent.run(&world, &ask).exits(0);

    // The provider's key is gone; what it signed stays proven, and who logs in now is known again.
    idp.rotate();
    agent.log_in(&world, &idp).exits(0);
    agent.ssh(&world, "echo rotated").exits(0);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("login.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    drop(idp);
    let report = world.verify(&bundle, &world.policy()).exits(0);
    assert!(report.stdout.contains("login:idp"), "{report:?}");
    // Who signed what, also what nobody but the administrators knew.
    let chain = [
        "enrolment",
        "enrolment",
        "provider",
        "identity",
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
    let approver = world.person("approver").0;
    for kind in ["provider", "identity"] {
        let link = report.link(kind);
        assert_eq!(link["signed_by"][0]["principal"], approver.as_str());
        assert!(link["trust"].to_string().contains("Ada Approver"), "{link}");
    }
    let login = report.link("login");
    let [provider, session] = [&login["signed_by"][0], &login["signed_by"][1]];
    assert_eq!(
        (&provider["with"], &session["with"]),
        (&"provider key".into(), &"session key".into())
    );
    assert_eq!(provider["name"], login["trust"][0]["who"], "{login}");
    assert_eq!(session["principal"], world.person("operator").0.as_str());
}

/// What a bundle's report says of the token of its login.
fn token(report: &Out) -> serde_json::Value {
    let report = report.line();
    let logins = report["logins"].as_array().unwrap();
    assert_eq!(logins.len(), 1, "{report}");
    logins[0]["token"].clone()
}

/// A token goes to nobody while it could be shown elsewhere. Afterwards it is proof, under a key that its provider has
/// dropped, as long as there is a record of that.
#[test]
fn an_expired_token_is_checked_against_a_key_that_its_provider_has_dropped() {
    let Some(mut idp) = Idp::of_short_tokens("15") else {
        return;
    };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    agent.log_in(&world, &idp).exits(0);
    let begun = Instant::now();
    idp.rotate();
    drop(idp);
    agent.ssh(&world, "echo by a dropped key").exits(0);
    let action = world.actions(&["--text", "dropped key"]).remove(0);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let export = |name: &str| {
        let file = world.path(name);
        world.json(&["export", session, "-f", file.to_str().unwrap()]);
        file
    };
    let early = export("early.bundle");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "too late to tell"
    );
    let report = world.verify(&early, &world.policy()).exits(0);
    assert_eq!(token(&report), "sealed", "{report:?}");
    let link = report.link("login");
    assert!(link["what"].as_str().unwrap().contains("a token, sealed"));
    // Its fifteen seconds and a minute.
    let late = wait_for("token", Duration::from_secs(120), || {
        std::thread::sleep(Duration::from_secs(2));
        let file = export("late.bundle");
        let bundle = Bundle::parse(&std::fs::read(&file).unwrap()).unwrap();
        let mut openings = bundle.openings.into_iter();
        openings.any(|o| o.opening.field == "token").then_some(file)
    });
    assert!(begun.elapsed() > Duration::from_secs(60), "too early");
    let report = world.verify(&late, &world.policy()).exits(0);
    assert_eq!(token(&report), "checked", "{report:?}");
    let link = report.link("login");
    assert!(link["what"].as_str().unwrap().contains("a token, checked"));

    // Without the keys as they were recorded there is nothing to check it against.
    let bundle = Bundle::parse(&std::fs::read(&late).unwrap()).unwrap();
    let keys = |entry: &str| {
        let entry = Entry::from_bytes(entry.as_bytes()).unwrap();
        matches!(entry.body, Body::ProviderKeys(_))
    };
    let mut lost = bundle.clone();
    lost.entries.retain(|proven| !keys(&proven.entry));
    assert!(lost.entries.len() < bundle.entries.len());
    let mut emptied = bundle.clone();
    for proven in emptied.entries.iter_mut().filter(|p| keys(&p.entry)) {
        let mut entry = Entry::from_bytes(proven.entry.as_bytes()).unwrap();
        if let Body::ProviderKeys(keys) = &mut entry.body {
            keys.body.0 = br#"{"keys":[]}"#.to_vec();
        }
        proven.entry = String::from_utf8(entry.to_bytes().unwrap()).unwrap();
    }
    for (name, spoilt) in [("lost", lost), ("emptied", emptied)] {
        let file = world.path(name);
        std::fs::write(&file, spoilt.to_bytes().unwrap()).unwrap();
        let out = world.verify(&file, &world.policy()).exits(4);
        assert!(out.line()["logins"].is_null(), "{name}: {out:?}");
    }
}

/// What a provider's login introduced signs an opening as an enrolled key does.
#[test]
fn a_session_that_the_logins_key_signed_is_its_actors_word() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    agent.log_in(&world, &idp).exits(0);
    world.change_target(&["--signed-opening"]);
    let refused = agent.ssh(&world, "echo unsigned").exits(254);
    assert!(refused.stderr.contains("ascribe ssh-config"), "{refused:?}");
    agent.run(&world, &["ssh-config", "--write"]).exits(0);
    let config = world.path("config/ascribe/ssh_config");
    let ssh = |place: &str| {
        let mut ssh = agent.beside(&world, need("ssh"));
        ssh.arg("-F").arg(&config);
        ssh.args(["-oBatchMode=yes", "-oIdentityFile=none", place]);
        ssh.arg("echo signed by a session key");
        world.program_as_is(&mut ssh)
    };
    ssh(&world.place()).exits(0);
    let action = world.actions(&["--text", "session key"]).remove(0);
    assert_eq!(action["who"]["door"], "connect", "{action}");
    assert_eq!(action["who"]["opened_by"], "signed");
    let actor = &action["who"]["chain"][0];
    let evidence = actor["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("login:idp"), "{action}");
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let file = world.path("signed.bundle");
    world.json(&["export", session, "-f", file.to_str().unwrap()]);
    let report = world.verify(&file, &world.policy()).exits(0);
    let opening = report.link("opening");
    assert_eq!(opening["signed_by"][0]["with"], "session key", "{opening}");
    assert!(opening.get("testimony").is_none(), "{opening}");
    // The key goes with the login, and so does what it could sign.
    agent.run(&world, &["logout"]).exits(0);
    ssh(&world.place()).exits(255);
}

#[test]
fn a_logout_ends_what_the_key_opened() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    agent.log_in(&world, &idp).exits(0);
    let file = world.path("there");
    let command = format!("touch {}; exec sleep 30", file.display());
    let mut ssh = Command::new(need("ssh"));
    ssh.args(agent.options())
        .args(["-p", &world.port().to_string()])
        .arg(format!("{}@ascribe-demo", world.place()))
        .arg(&command);
    let ssh = Running::start(ssh, &world.path("logs"), false);
    wait_for("running command", PATIENCE, || file.exists().then_some(()));
    agent.run(&world, &["logout"]).exits(0);
    let out = ssh.wait(PATIENCE);
    assert_ne!(out.code, Some(0), "{out:?}");
    assert!(out.stderr.contains("revoked"), "{out:?}");
    let action = world.actions(&["--text", "touch"]).remove(0);
    let took = world.ended_after(action["session_id"].as_str().unwrap(), "logout");
    assert!((0..=2000).contains(&took), "{took} ms");
    agent.ssh(&world, "id").exits(255);
}

#[test]
fn a_login_on_another_device_counts_for_less() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    let login = agent.command(&world, &["login", "--device", "--for", "1h"]);
    let login = Running::start(login, &world.path("logs"), false);
    let (address, code) = wait_for("code", PATIENCE, || {
        let said = login.stderr();
        let line = said.lines().find(|line| line.starts_with("open http"))?;
        let mut words = line.split(' ');
        Some((words.nth(1)?.to_owned(), words.next_back()?.to_owned()))
    });
    idp.confirm(&world, &address, &code);
    let out = login.wait(PATIENCE);
    assert!(out.stderr.contains("counts for less"), "{out:?}");
    out.exits(0);
    agent.ssh(&world, "echo by device").exits(0);
    let action = world.actions(&["--text", "by device"]).remove(0);
    assert_eq!(action["who"]["chain"][0]["assurance"], 0, "{action}");
}

#[test]
fn somebody_whom_nobody_linked_is_nobody() {
    let Some(idp) = Idp::start() else { return };
    let world = linked(&idp);
    let operator = world.person("operator").0;
    let unlink = [
        "identity",
        "unlink",
        &operator,
        "--provider",
        "idp",
        "--subject",
        SUBJECT,
    ];
    world.run_as("approver", &unlink).exits(0);
    let agent = Agent::start(&world);
    let out = agent.log_in(&world, &idp).exits(2);
    assert!(out.stderr.contains("identity link"), "{out:?}");
    agent.ssh(&world, "id").exits(255);
}
