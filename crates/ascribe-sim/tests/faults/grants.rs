//! Grants outside their window, a person with two keys, a target that is not what it was.

use std::process::Command;

use ascribe_core::bundle::Bundle;

use super::kit::{Marks, text};
use super::world::{PATIENCE, World, end, need, wait_for};

/// Asks as the operator, with these options; returns the approved grant's user name for `ssh`.
fn granted(world: &World, options: &[&str]) -> String {
    let place = world.place();
    let ask = [
        "request",
        &place,
        "--why",
        "look at the stuck replica",
        "--ticket",
        "demo:OPS-4",
    ];
    let asked = world.run_as("operator", &[&ask[..], options].concat());
    let request = text(&asked.exits(0).line(), "/request_id").to_owned();
    let grant = world.approve(&request);
    format!(
        "{}+{grant}@{}",
        world.field("account"),
        world.field("target")
    )
}

fn refused(world: &World, user: &str, why: &str) {
    let out = world.ssh(user, "echo ran").exits(254);
    assert!(!out.stdout.contains("ran"), "{out:?}");
    assert!(out.stderr.contains(why), "{why}: {out:?}");
}

#[test]
fn a_grant_allows_nothing_before_its_window_and_nothing_after_it() {
    let mut world = World::new();
    let hour = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    let hour = hour.duration_since(std::time::UNIX_EPOCH).unwrap();
    let hour = i64::try_from(hour.as_millis()).unwrap();
    let hour = ascribe_core::time::Timestamp::from_millis(hour).to_string();
    let later = granted(&world, &["--from", &hour, "--for", "30m"]);
    refused(&world, &later, &hour);
    // Long enough to begin something, too short to finish it.
    let short = granted(&world, &["--for", "5s", "--reusable"]);
    let running = world.ssh_in_background(&short, "sleep 30");
    let session = wait_for("session", PATIENCE, || {
        let sessions = world.json(&["sessions"]).lines();
        let open = sessions.iter().find(|s| s["ended"].is_null())?;
        Some(text(open, "/id").to_owned())
    });
    let ended = running.wait(PATIENCE);
    assert!(ended.code != Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the grant has ended"), "{ended:?}");
    assert_eq!(world.ended_session(&session)["reason"], "expired");
    refused(&world, &short, "ended");
    let actions = world.actions(&[]);
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert_eq!(text(&actions[0], "/session_id"), session);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn nobody_approves_their_own_request_with_a_second_key() {
    let mut world = World::new();
    let keys = ["first", "second"].map(|name| {
        let mut keygen = Command::new(need("ssh-keygen"));
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        keygen.arg(world.path(name));
        world.program(keygen).exits(0);
        world.path(name)
    });
    let public = keys.each_ref().map(|key| key.with_extension("pub"));
    let [first, second] = public.each_ref().map(|key| key.to_str().unwrap());
    let roles = ["--role", "requester", "--role", "approver"];
    let add = ["person", "add", "carol", "--public-key", first];
    world
        .run_as("approver", &[&add[..], &roles].concat())
        .exits(0);
    let add = ["key", "add", "carol", "--public-key", second];
    world.run_as("approver", &add).exits(0);
    let with = |key: usize, args: &[&str]| {
        let mut command = Command::new(super::world::binary());
        command.arg("--data").arg(world.data()).arg("--key");
        command.arg(&keys[key]).args(["-o", "json"]).args(args);
        world.program(command)
    };
    let place = world.place();
    let ask = [
        "request",
        &place,
        "--why",
        "look at the stuck replica",
        "--ticket",
        "demo:OPS-4",
    ];
    let asked = with(0, &ask).exits(0).line();
    let request = text(&asked, "/request_id");
    for key in [0, 1] {
        for verb in ["approve", "deny"] {
            let said = with(key, &[verb, request]).exits(2);
            assert!(said.stderr.contains("their own request"), "{said:?}");
        }
    }
    // The same key serves to answer somebody else.
    let other = world.request("look at the order database");
    with(1, &["approve", &other]).exits(0);
    world.approve(request);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn a_target_that_is_down_or_has_another_host_key_is_sent_nothing() {
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    let server = world.serve(None);
    marks.is_refused(&world, "down", "cannot reach");
    let host_key = world.path("data.demo/sshd_host_key");
    let saved = std::fs::read(&host_key).unwrap();
    let mut keygen = Command::new(need("ssh-keygen"));
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
    keygen.arg(world.path("impostor"));
    world.program(keygen).exits(0);
    std::fs::write(&host_key, std::fs::read(world.path("impostor")).unwrap()).unwrap();
    world.start_target();
    marks.is_refused(&world, "impostor", "host key");
    std::fs::write(&host_key, saved).unwrap();
    world.start_target();
    marks.runs(&world, "itself");
    let sessions = wait_for("ends", PATIENCE, || {
        let sessions = world.json(&["sessions", "--all"]).lines();
        sessions
            .iter()
            .all(|s| !s["ended"].is_null())
            .then_some(sessions)
    });
    let reasons: Vec<&str> = sessions.iter().map(|s| text(s, "/reason")).collect();
    let failed = reasons.iter().filter(|r| **r == "target-failed");
    assert_eq!((sessions.len(), failed.count()), (3, 2), "{reasons:?}");
    end(server);
    marks.verify(&world);
}

#[test]
fn the_environment_is_recorded_as_the_target_got_it() {
    let mut world = World::new();
    let odd = "two words; $(id) \u{1b}[2J = \u{e9}";
    let option = format!("SetEnv=LC_ODD=\"{odd}\"");
    let ran = world.ssh_with(
        &["-o", &option, "-o", "SendEnv=-*"],
        &world.place(),
        "printf %s \"$LC_ODD\"",
    );
    assert_eq!(ran.exits(0).stdout, odd);
    let action = world.actions(&[]).remove(0);
    let session = text(&action, "/session_id");
    world.ended_session(session);
    let file = world.path("session.bundle");
    let export = ["export", session, "-f", file.to_str().unwrap()];
    world.run(&export).exits(0);
    let bundle = Bundle::parse(&std::fs::read(&file).unwrap()).unwrap();
    let sealed = bundle.openings.iter().filter(|o| o.opening.field == "env");
    let sealed: Vec<&[u8]> = sealed.map(|o| o.opening.bytes.0.as_slice()).collect();
    assert_eq!(sealed, [format!("LC_ODD={odd}\0").as_bytes()]);
    // And the intent commits to exactly that.
    world.verify(&file, &world.policy()).exits(0);
    let mut other = bundle.clone();
    for disclosed in &mut other.openings {
        if disclosed.opening.field == "env" {
            disclosed.opening.bytes.0[8] ^= 1;
        }
    }
    std::fs::write(&file, other.to_bytes().unwrap()).unwrap();
    world.verify(&file, &world.policy()).exits(4);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}
