//! A log that has witnesses.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::kit::{Fake, Manner, Own, all_seen, demanding, set_witnesses, witnessed};
use super::world::{PATIENCE, World, copy, end, maybe, wait_for};

/// Two of ours, and a third that is away.
fn three(world: &World) -> (Own, Own, String) {
    let make = |name| Own::new(&world.path(""), name, &world.policy());
    let (one, two, away) = (make("one"), make("two"), make("away"));
    let lines = [one.line("one"), two.line("two"), away.line("away")].concat();
    let lines = format!("{lines}group most 2 one two away\nquorum most\n");
    (one, two, lines)
}

#[test]
fn a_session_is_witnessed_and_its_bundle_and_its_log_say_so_offline() {
    let mut world = World::new();
    let (one, two, lines) = three(&world);
    let _running = (one.run(), two.run());
    let set = set_witnesses(&world, &lines, &[]);
    assert_eq!(set["in_effect"], true);
    let status = all_seen(&world);
    let rows = status["witnesses"].as_array().unwrap();
    let said = |nth: usize| rows[nth]["said"].as_str().unwrap();
    assert!(
        said(0).starts_with("cosigned ") && said(1).starts_with("cosigned "),
        "{rows:?}"
    );
    assert!(said(2).contains("does not answer"), "{rows:?}");

    let bundle = world.bundle("echo witnessed");
    all_seen(&world);
    let told = world.run(&["actions"]).exits(0);
    assert!(!told.stderr.contains("not witnessed"), "{told:?}");
    let action = &world.actions(&["--text", "echo witnessed"])[0];
    assert!(action["when"]["witnessed_before"].is_string(), "{action}");
    let session = action["session_id"].as_str().unwrap();
    std::fs::remove_file(&bundle).unwrap();
    world
        .run(&["export", session, "-f", bundle.to_str().unwrap()])
        .exits(0);

    let demanding = demanding(&world, &lines);
    let report = world.verify(&bundle, &demanding).exits(0);
    let chain = [
        "enrolment",
        "enrolment",
        "request",
        "approval",
        "grant",
        "opening",
        "record",
        "order",
        "time",
    ];
    assert_eq!(report.chain(), chain, "{report:?}");
    let (order, time) = (report.link("order"), report.link("time"));
    assert_eq!(order["signed_by"][0]["with"], "log key");
    let signers = time["signed_by"].as_array().unwrap();
    let names: Vec<_> = signers.iter().map(|signer| &signer["name"]).collect();
    assert_eq!(names, ["one", "two"], "{time}");
    assert!(time.get("testimony").is_none(), "{time}");
    let report = report.line();
    let seen = &report["witnessed"];
    assert_eq!(
        (&seen["by"], &seen["policy"]),
        (&serde_json::json!(["one", "two"]), &"reader".into())
    );
    assert!(report["actions"][0]["when"]["witnessed_before"].is_string());
    assert!(
        report["notes"].to_string().contains("one, two had seen"),
        "{report}"
    );
    // Under the plain policy the log's own counts, and says whose it is.
    let report = world.verify(&bundle, &world.policy()).exits(0).line();
    assert_eq!(report["witnessed"]["policy"], "log");
    // A reader whose witnesses never saw it does not take the log's for them.
    let others = lines.replace("quorum most", "quorum away");
    let others = super::kit::demanding(&world, &others);
    assert_eq!(
        world.verify(&bundle, &others).exits(4).line()["problems"][0]["code"],
        "untrusted"
    );

    world.stop();
    let demanding = super::kit::demanding(&world, &lines);
    let whole = world.verify(&world.data(), &demanding).exits(0).line();
    assert!(whole["witnessed"]["size"].as_u64() < whole["size"].as_u64());
    let tree = world.path("tree");
    world
        .run(&[
            "ledger",
            "export",
            "--to",
            tree.to_str().unwrap(),
            "--witnessed",
        ])
        .exits(0);
    let report = world.verify(&tree, &demanding).exits(0).line();
    assert_eq!(report["witnessed"]["size"], report["size"]);
    assert_eq!(report["size"], whole["witnessed"]["size"]);
    let (plain, others) = (world.policy(), lines.replace("quorum most", "quorum away"));
    another_program_agrees(&plain, &[&tree, &bundle]);
    let others = super::kit::demanding(&world, &others);
    for path in [world.data(), tree] {
        let refused = world.verify(&path, &others).exits(4);
        assert_eq!(
            refused.line()["problems"][0]["code"],
            "untrusted",
            "{path:?}"
        );
    }
}

/// `peers/check.py`, written from the specifications, on the same files.
fn another_program_agrees(policy: &Path, paths: &[&Path]) {
    let Some(python) = maybe("python3") else {
        let why = "python3 is not installed";
        writeln!(
            std::io::stderr(),
            "SKIPPED: the check in Python, because {why}"
        )
        .unwrap();
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/check.py");
    let mut check = Command::new(python);
    check.arg(script).arg(policy).args(paths);
    let out = check.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let accepted = said.lines().filter(|line| line.starts_with("ok "));
    assert_eq!(accepted.count(), paths.len(), "{out:#?}");
}

/// The grants that may be used.
fn grants(world: &World) -> Vec<Value> {
    world.json(&["grants"]).lines()
}

#[test]
fn break_glass_waits_until_it_is_seen_and_a_change_takes_effect_then() {
    let world = World::new();
    let witness = Fake::start("late", Manner::Refuses(503));
    let demand = ["break-glass", "policy"];
    set_witnesses(
        &world,
        &format!("{}quorum late\n", witness.line("late")),
        &demand,
    );
    let operator = world.person("operator").0;
    // The target's rules change, and wait.
    let changed = world.change_target(&["--break-glass", &operator]).line();
    assert_eq!(changed["in_effect"], false);
    *witness.manner.lock().unwrap() = Manner::Honest;
    wait_for("changed target", PATIENCE, || {
        let shown = world
            .json(&["target", "show", &world.field("target")])
            .line();
        (shown["break_glass"].as_array()?.len() == 1).then_some(())
    });
    for grant in grants(&world) {
        let id = grant["id"].as_str().unwrap();
        world
            .run_as("approver", &["revoke", id, "--why", "not this one"])
            .exits(0);
    }
    all_seen(&world);
    *witness.manner.lock().unwrap() = Manner::Refuses(503);
    let place = world.place();
    let why = [
        "--break-glass",
        "--why",
        "the database is down for all",
        "--for",
        "30m",
    ];
    world
        .run_as("operator", &[&["request", &place], &why[..]].concat())
        .exits(0);
    let refused = world.ssh(&place, "echo ran").exits(254);
    assert!(
        refused.stderr.contains("waits until enough witnesses"),
        "{refused:?}"
    );
    assert!(world.actions(&["--text", "echo ran"]).is_empty());
    *witness.manner.lock().unwrap() = Manner::Honest;
    wait_for("session", PATIENCE, || {
        (world.ssh(&place, "echo ran").code == Some(0)).then_some(())
    });
    let action = &world.actions(&["--text", "echo ran"])[0];
    assert_eq!(action["why"]["break_glass"], true);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    // Its bundle holds what shows that it was seen in time.
    let bundle = world.path("emergency.bundle");
    world
        .run(&["export", session, "-f", bundle.to_str().unwrap()])
        .exits(0);
    world.verify(&bundle, &world.policy()).exits(0);
    let whole = std::fs::read_to_string(&bundle).unwrap();
    let lines = whole
        .lines()
        .filter(|line| !line.contains("\\\"body\\\":{\\\"cosigned\\\""));
    let without: String = lines.map(|line| format!("{line}\n")).collect();
    assert!(without.len() < whole.len());
    std::fs::write(&bundle, without).unwrap();
    world.verify(&bundle, &world.policy()).exits(4);
}

#[test]
fn a_server_killed_between_cosignature_and_entry_goes_on() {
    let mut world = World::new();
    let witness = Fake::start("mute", Manner::Mute);
    set_witnesses(
        &world,
        &format!("{}quorum mute\n", witness.line("mute")),
        &[],
    );
    wait_for("cosignature that nobody hears of", PATIENCE, || {
        witness.mute.load(Ordering::SeqCst).then_some(())
    });
    world.signal_server(Signal::KILL);
    world.server_is_gone();
    *witness.manner.lock().unwrap() = Manner::Honest;
    let server = world.serve(None);
    let status = all_seen(&world);
    assert!(status["size"].as_u64() > Some(1), "{status}");
    // It had seen more than the new process knew, and said so; never another history.
    assert!(witness.conflicts.load(Ordering::SeqCst) > 0);
    let held = world.path("held");
    end(server);
    copy(&world.data(), &held);
    world.verify(&held, &world.policy()).exits(0);
}

#[test]
fn nothing_is_asked_and_recorded_while_nothing_happens() {
    let world = World::new();
    let witness = Fake::start("calm", Manner::Honest);
    set_witnesses(
        &world,
        &format!("{}quorum calm\n", witness.line("calm")),
        &[],
    );
    all_seen(&world);
    // Two looks further on it has not been asked again, and the log has not grown: heads aside, which
    // are signed within a second of what they cover.
    let before = wait_for("quiet log", PATIENCE, || {
        let size = || world.json(&["ledger", "status"]).line()["size"].as_u64();
        let now = size();
        std::thread::sleep(Duration::from_secs(2));
        (size() == now).then_some(witness.asked.load(Ordering::SeqCst))
    });
    for _ in 0..3 {
        assert!(witnessed(&world)["unseen_since"].is_null());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(witness.asked.load(Ordering::SeqCst), before);
}
