//! A provider of people that asks how they prove themselves: its own server is asked for that, and who did not stays out.

use serde_json::json;

use super::agent::Agent;
use super::idp::{CLIENT, Idp};
use super::login::{linked, log_in};
use super::world::{Out, PATIENCE, Running, World, wait_for};

const PWD: &str = "urn:example:pwd";
const MFA: &str = "urn:example:mfa";

/// The provider is registered anew with these options besides.
fn register(world: &World, idp: &Idp, more: &[&str]) -> Out {
    let mut add = vec!["provider", "add", "idp", "--kind", "oidc"];
    add.extend(["--issuer", &idp.issuer, "--audience", CLIENT]);
    world.run_as("approver", &[&add, more].concat())
}

/// A login in a browser that the provider does not know yet.
fn fresh(world: &World, idp: &Idp, agent: &Agent) -> Out {
    std::fs::remove_file(world.path("cookies")).unwrap_or_default();
    log_in(
        world,
        idp,
        agent.command(world, &["login", "--no-browser", "--for", "1h"]),
    )
}

#[test]
fn people_get_in_by_what_the_provider_says_of_how_they_proved_themselves() {
    let Some(mut idp) = Idp::start() else { return };
    let mut world = linked(&idp);
    let agent = Agent::start(&world);
    // Nothing is asked for: nothing is said that nobody asked for, and anything will do.
    idp.proves(PWD, &["pwd"], 7200);
    fresh(&world, &idp, &agent).exits(0);
    agent.ssh(&world, "echo as ever").exits(0);
    let action = world.actions(&["--text", "as ever"]).remove(0);
    let told = &action["who"]["chain"][0]["authn"];
    assert_eq!(told, &json!({ "amr": ["pwd"] }), "{action}");

    let asked = [
        "--acr",
        MFA,
        "--acr",
        "urn:example:phr",
        "--amr",
        "pwd",
        "--amr",
        "otp",
        "--max-auth-age",
        "10m",
    ];
    register(&world, &idp, &asked).exits(0);
    let listed = world.run(&["provider", "list"]).exits(0).stdout;
    assert!(
        listed.contains("asks     acr urn:example:mfa or urn:example:phr; amr pwd and otp; proved at most 600 s before"),
        "{listed}"
    );
    // Who is in by less is out.
    agent.ssh(&world, "id").exits(255);
    for (acr, amr, ago, why) in [
        (
            PWD,
            &["pwd", "otp"][..],
            0,
            "`urn:example:mfa` or `urn:example:phr` is needed",
        ),
        (MFA, &["pwd"], 0, "`otp` is needed"),
        (MFA, &["pwd", "otp"], 3600, "600 s are allowed"),
        (MFA, &["pwd", "otp"], 0, ""),
    ] {
        idp.proves(acr, amr, ago);
        let out = fresh(&world, &idp, &agent);
        assert_eq!(
            out.code,
            Some(if why.is_empty() { 0 } else { 2 }),
            "{out:?}"
        );
        assert!(out.stderr.contains(why), "{why}: {out:?}");
        assert!(
            why.is_empty() || out.stderr.contains("help: log in again"),
            "{out:?}"
        );
    }
    agent.ssh(&world, "echo by two").exits(0);
    let action = world.actions(&["--text", "by two"]).remove(0);
    let told = &action["who"]["chain"][0]["authn"];
    assert_eq!(
        (&told["acr"], &told["amr"]),
        (&json!(MFA), &json!(["pwd", "otp"]))
    );
    let at = told["at"].as_str().unwrap();
    let shown = world
        .run(&["show", action["action_id"].as_str().unwrap()])
        .exits(0);
    let words = format!("acr {MFA}; by pwd, otp; at {at}");
    assert!(shown.stdout.contains(&words), "{shown:?}");
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("authn.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let report = world.verify(&bundle, &world.policy()).exits(0);
    let login = report.link("login");
    assert!(login["what"].as_str().unwrap().contains(&words), "{login}");

    // Who replaces the provider and says nothing of it keeps what is asked for.
    register(&world, &idp, &["--max-keys-age", "2h"]).exits(0);
    let rule = || world.json(&["provider", "show", "idp"]).line()["provider"]["authn"].clone();
    assert_eq!(rule()["max_age_seconds"], 600);
    let both = ["--no-authn", "--amr", "otp"];
    register(&world, &idp, &both).exits(3);
    register(&world, &idp, &["--max-auth-age", "59s"]).exits(2);
    register(&world, &idp, &["--no-authn"]).exits(0);
    assert!(rule().is_null());
    idp.proves(PWD, &["pwd"], 7200);
    fresh(&world, &idp, &agent).exits(0);

    world.stop();
    let report = world.verify(&world.data(), &world.policy()).exits(0).line();
    let notes = report["notes"].as_array().unwrap();
    let note = notes.iter().find(|note| note["code"] == "login_refused");
    assert_eq!(
        note.unwrap()["message"],
        "3 login(s) that named provider `idp` were refused: acr 1, amr 1, auth-time 1"
    );
}

#[test]
fn a_login_on_another_device_is_asked_for_the_same() {
    let Some(mut idp) = Idp::start() else { return };
    let world = linked(&idp);
    let agent = Agent::start(&world);
    let asked = ["--acr", MFA, "--amr", "otp", "--max-auth-age", "10m"];
    register(&world, &idp, &asked).exits(0);
    for (amr, code) in [(&["pwd"][..], 2), (&["pwd", "otp"], 0)] {
        std::fs::remove_file(world.path("cookies")).unwrap_or_default();
        idp.proves(MFA, amr, 0);
        let login = agent.command(&world, &["login", "--device", "--for", "1h"]);
        let login = Running::start(login, &world.path("logs"), false);
        let (address, shown) = wait_for("code", PATIENCE, || {
            let said = login.stderr();
            let line = said.lines().find(|line| line.starts_with("open http"))?;
            let mut words = line.split(' ');
            Some((words.nth(1)?.to_owned(), words.next_back()?.to_owned()))
        });
        idp.confirm(&world, &address, &shown);
        login.wait(PATIENCE).exits(code);
    }
    agent.ssh(&world, "echo by device").exits(0);
    let action = world.actions(&["--text", "by device"]).remove(0);
    let told = &action["who"]["chain"][0]["authn"];
    assert_eq!(told["acr"], MFA, "{action}");
    assert!(told["at"].is_string(), "{action}");
}
