//! Observers of a real provider's keys: until enough of them looked, nobody logs in.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::agent::Agent;
use super::idp::Idp;
use super::login::{linked, log_in};
use super::world::{Out, World, need};

/// A machine that only looks: enrolled without a role.
struct Probe(PathBuf);

impl Probe {
    fn enrolled(world: &World) -> Self {
        let key = world.path("probe");
        let mut keygen = Command::new(need("ssh-keygen"));
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key);
        world.program(keygen).exits(0);
        let public = key.with_extension("pub");
        let public = public.to_str().unwrap();
        world
            .run_as(
                "approver",
                &["person", "add", "probe", "--public-key", public],
            )
            .exits(0);
        Self(key)
    }

    fn looks(&self, world: &World) -> Out {
        look(world, &self.0)
    }
}

fn look(world: &World, key: &Path) -> Out {
    let mut command = world.ascribe(&["-o", "json", "--key"]);
    command.arg(key).args(["provider", "observe", "idp"]);
    world.program(command)
}

#[test]
fn nobody_logs_in_under_a_key_that_too_few_observers_saw() {
    let Some(mut idp) = Idp::start() else { return };
    let world = linked(&idp);
    let probe = Probe::enrolled(&world);
    let (approver, approvers_key) = world.person("approver");
    let rule = ["provider", "observers", "idp", "--observer", &approver];
    world
        .run_as("approver", &[&rule[..], &["--observer", "probe"]].concat())
        .exits(0);
    let agent = Agent::start(&world);
    let login = || {
        let command = ["login", "--no-browser", "--for", "1h"];
        log_in(&world, &idp, agent.command(&world, &command))
    };
    let refused = login().exits(2).stderr;
    for part in [
        "0 of the 2 observers",
        "probe has not looked",
        "ascribe provider observe idp",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    agent.ssh(&world, "id").exits(255);
    // Nobody else's word is asked for.
    let operators_key = world.person("operator").1;
    look(&world, &operators_key).exits(3);
    let first = look(&world, &approvers_key).exits(0).line();
    assert!(first["entry"].is_u64(), "{first}");
    assert!(login().exits(2).stderr.contains("1 of the 2 observers"));
    // The same again is said already, and would count once.
    let again = look(&world, &approvers_key).exits(0).line();
    assert!(again["statement"].is_null(), "{again}");
    probe.looks(&world).exits(0);
    login().exits(0);
    agent.ssh(&world, "echo observed").exits(0);
    let shown = world.run(&["provider", "show", "idp"]).exits(0).stdout;
    assert!(
        shown.contains("seen by ") && !shown.contains("ALONE"),
        "{shown}"
    );

    // The provider rotates: the new key waits for the observers, what was opened goes on.
    idp.rotate();
    let login = || {
        let command = ["login", "--no-browser", "--for", "1h"];
        log_in(&world, &idp, agent.command(&world, &command))
    };
    let refused = login().exits(2).stderr;
    assert!(refused.contains("saw other keys at"), "{refused}");
    let shown = world.run(&["provider", "show", "idp"]).exits(0).stdout;
    assert!(shown.contains("SEEN BY THE SERVER ALONE"), "{shown}");
    agent.ssh(&world, "echo still").exits(0);
    let looked = look(&world, &approvers_key).exits(0).line();
    assert_eq!(
        looked["only_on_record"].as_array().unwrap().len(),
        0,
        "{looked}"
    );
    probe.looks(&world).exits(0);
    login().exits(0);

    // A key that is on record and not published any more: whoever looks is told.
    idp.rotate();
    let looked = look(&world, &approvers_key).exits(0);
    assert!(
        looked.stderr.contains("WARNING: the server has key"),
        "{looked:?}"
    );
    assert_eq!(looked.line()["only_on_record"].as_array().unwrap().len(), 1);

    // Whoever has the bundle reads who saw the key of the first login, before it and after.
    let action = world.actions(&["--text", "echo observed"]).remove(0);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let bundle = world.path("observed.bundle");
    world.json(&["export", session, "-f", bundle.to_str().unwrap()]);
    drop(idp);
    let report = world.verify(&bundle, &world.policy()).exits(0).line();
    let observers = report["logins"][0]["observers"].as_array().unwrap();
    assert_eq!(observers.len(), 2, "{report}");
    for observer in observers {
        assert_eq!(observer["before"]["saw"], true, "{observer}");
        assert_eq!(observer["after"]["saw"], false, "{observer}");
    }
    let entry = first["entry"].as_u64();
    assert!(
        observers
            .iter()
            .any(|o| o["before"]["entry"].as_u64() == entry),
        "{report}"
    );
}
