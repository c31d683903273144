//! `ascribe watch` and `ascribe terminate`.

use serde_json::Value;

use super::world::{PATIENCE, Running, World, wait_for};

/// The one session that is open.
fn open_session(world: &World) -> String {
    let sessions = world.json(&["sessions"]).lines();
    let open = |s: &&Value| s["ended"].is_null();
    let open: Vec<&Value> = sessions.iter().filter(open).collect();
    assert_eq!(open.len(), 1, "{sessions:?}");
    open[0]["id"].as_str().unwrap().to_owned()
}

fn watch(world: &World, role: &str, session: &str) -> Running {
    let mut command = world.ascribe(&["watch", session, "--key"]);
    command.arg(world.person(role).1);
    Running::start(command, &world.path("logs"), false)
}

#[test]
fn whoever_may_sees_a_session_while_it_runs_and_that_is_on_record() {
    let world = World::new();
    let go = world.path("go");
    // It says something at once, and something later, when it is already watched.
    let script = format!(
        "echo before; until [ -e '{0}' ]; do sleep 0.05; done; printf 'after \\033]0;x\\007end\\n'",
        go.display()
    );
    let mut ssh = world.ssh_in_background(&world.place(), &script);
    let session = wait_for("open session", PATIENCE, || {
        assert!(ssh.ended().is_none(), "ssh ended: {}", ssh.stderr());
        let sessions = world.json(&["sessions"]).lines();
        let open = sessions.iter().find(|s| s["ended"].is_null());
        open.map(|s| s["id"].as_str().unwrap().to_owned())
    });
    let watching = watch(&world, "approver", &session);
    wait_for("what was said before", PATIENCE, || {
        watching.stdout().contains("before\n").then_some(())
    });
    std::fs::write(&go, "").unwrap();
    assert_eq!(ssh.wait(PATIENCE).code, Some(0));
    let seen = watching.wait(PATIENCE).exits(0);
    // What would drive the watcher's terminal is shown, not obeyed.
    assert!(
        seen.stdout.contains("after ") && seen.stdout.contains("end"),
        "{seen:?}"
    );
    assert!(!seen.stdout.contains('\u{7}'), "{seen:?}");
    assert!(seen.stderr.contains("disconnected"), "{seen:?}");
    // Afterwards there is nothing to watch, and the watcher's statement is in the ledger.
    let late = watch(&world, "approver", &session).wait(PATIENCE).exits(2);
    assert!(late.stderr.contains("replay"), "{late:?}");
    let file = world.path("watched.bundle");
    world
        .run(&["export", &session, "-f", file.to_str().unwrap()])
        .exits(0);
    world.verify(&file, &world.policy()).exits(0);
}

#[test]
fn a_terminated_session_ends_within_two_seconds_and_its_grant_goes_on() {
    let world = World::new();
    let mut sleeper = world.sleeper();
    let session = open_session(&world);
    let ended = world.run_as(
        "approver",
        &["terminate", &session, "--reason", "not what was agreed"],
    );
    ended.exits(0);
    let out = sleeper.ssh.take().unwrap().wait(PATIENCE);
    assert_ne!(out.code, Some(0));
    assert!(out.stderr.contains("ended this session"), "{out:?}");
    let closed = world.ended_session(&session);
    assert_eq!(closed["reason"], "terminated", "{closed}");
    let again = world.run_as("approver", &["terminate", &session, "--reason", "again"]);
    again.exits(2);
    world.ssh(&world.place(), "true").exits(0);
}

#[test]
fn a_watched_person_is_told_where_the_target_says_so() {
    let world = World::new();
    world.change_target(&["--watch-notice"]);
    let sleeper = world.sleeper();
    let session = open_session(&world);
    let watching = watch(&world, "approver", &session);
    let ssh = sleeper.ssh.as_ref().unwrap();
    wait_for("notice", PATIENCE, || {
        ssh.stderr().contains("watches this session").then_some(())
    });
    assert!(
        ssh.stderr().contains("Ada Approver watches"),
        "{}",
        ssh.stderr()
    );
    drop(watching);
}
