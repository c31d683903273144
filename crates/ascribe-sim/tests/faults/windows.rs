//! Grants with several windows: asked for by a rule, approved as instants, and held to the second.

use std::path::Path;
use std::process::Command;

use ascribe_core::statement::{Recurrence, Say, Window};
use serde_json::Value;

use super::api;
use super::kit::text;
use super::world::{Out, PATIENCE, World, binary, copy, wait_for};

fn session_of(world: &World, grant: &str) -> Option<String> {
    let sessions = world.json(&["sessions"]).lines();
    let open = sessions
        .iter()
        .find(|s| s["grant"] == grant && s["ended"].is_null())?;
    Some(text(open, "/id").to_owned())
}

#[test]
fn a_window_that_ends_closes_the_session_and_the_next_one_lets_in_again() {
    let mut world = World::new();
    // A rule has minutes; these windows have seconds, so their approver is told of the difference.
    let (mut statement, why) = api::request(&world);
    let begin = api::now();
    let windows = [(0, 12_000), (22_000, 180_000)].map(|(from, until)| Window {
        from: begin.plus_millis(from),
        until: begin.plus_millis(until),
    });
    let Say::Request(asked) = &mut statement.say else {
        panic!("{statement:?}");
    };
    (asked.not_before, asked.not_after) = (windows[0].from, windows[1].until);
    asked.recurrence = Some(Recurrence {
        rule: "Mon 08:00-18:00".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        tzdata: "unknown".to_owned(),
        windows: windows.to_vec(),
    });
    let signed = api::sign(&world, "operator", &statement);
    let done = api::submit(&world, &signed, &[why]);
    assert!(done["done"].is_object(), "{done}");
    let request = statement.id.to_string();
    let said = world.run_as("approver", &["approve", &request]).exits(1);
    assert!(said.stderr.contains("gives other windows"), "{said:?}");
    assert!(said.stderr.contains("--accept-windows"), "{said:?}");
    let yes = ["approve", &request, "--accept-windows"];
    let yes = world.run_as("approver", &yes).exits(0).line();
    let grant = text(&yes, "/grant_id").to_owned();
    let (account, target) = (world.field("account"), world.field("target"));
    let user = format!("{account}+{grant}@{target}");

    let running = world.ssh_in_background(&user, "sleep 60");
    let first = wait_for("session", PATIENCE, || session_of(&world, &grant));
    let ended = running.wait(PATIENCE);
    assert!(ended.code != Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the grant has ended"), "{ended:?}");
    assert_eq!(world.ended_session(&first)["reason"], "expired");

    let out = world.ssh(&user, "echo ran").exits(254);
    assert!(!out.stdout.contains("ran"), "{out:?}");
    let next = windows[1].from.to_string();
    assert!(out.stderr.contains(&next), "{out:?}");
    let grants = world.json(&["grants"]).lines();
    let row = grants.iter().find(|g| g["id"] == *grant).unwrap();
    assert_eq!(row["status"], "between windows");
    assert_eq!(row["next"]["from"], *next);
    let can = world.run_as("operator", &["can"]).exits(0);
    assert!(!can.stdout.contains(&grant), "{can:?}");

    wait_for("next window", PATIENCE, || {
        (api::now() >= windows[1].from).then_some(())
    });
    let ran = world.ssh(&user, "echo again").exits(0);
    assert_eq!(ran.stdout, "again\n");
    let extend = [
        "extend",
        &grant,
        "--by",
        "1h",
        "--why",
        "the contractor needs longer",
    ];
    let said = world.run_as("operator", &extend).exits(2);
    assert!(said.stderr.contains("is not extended"), "{said:?}");

    let actions = world.actions(&["--grant", &grant]);
    let of: Vec<&Value> = actions
        .iter()
        .map(|a| &a["why"]["window"]["from"])
        .collect();
    let from = windows.map(|w| Value::String(w.from.to_string()));
    assert_eq!(of, [&from[0], &from[1]]);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

const RULE: &str = "Tue,Thu 08:00-12:00 Europe/Berlin";

/// Asks as the operator, with these options.
fn ask(world: &World, rest: &[&str]) -> Out {
    let place = world.place();
    let what = [
        "request",
        &place,
        "--why",
        "look after the order database",
        "--ticket",
        "demo:OPS-9",
    ];
    world.run_as("operator", &[&what[..], rest].concat())
}

#[test]
fn windows_that_are_asked_for_wrongly_are_refused() {
    let mut world = World::new();
    for (rest, code) in [
        ("--windows|RULE", 3),
        ("--until|2031-04-03", 3),
        ("--windows|RULE|--until|2031-04-03|--for|2h", 3),
        ("--windows|RULE|--until|2031-04-03|--break-glass", 3),
        ("--windows|Tue 08:00-12:00 Mars/Base|--until|2031-04-03", 3),
        // More than 90 days, and longer than the target allows.
        ("--windows|RULE|--from|2031-01-01|--until|2031-04-10", 3),
        (
            "--windows|daily 08:00-16:01 UTC|--from|2031-04-01|--until|2031-04-03",
            2,
        ),
    ] {
        let rest = rest.replace("RULE", RULE);
        let rest: Vec<&str> = rest.split('|').collect();
        let said = ask(&world, &rest);
        assert_eq!(said.code, Some(code), "{rest:?}: {said:?}");
    }
    world.stop();
}

/// As somebody, with the zone data of a directory.
fn with_zones(world: &World, zones: &Path, role: &str, args: &[&str]) -> Out {
    let mut command = Command::new(binary());
    command.env("TZDIR", zones).arg("--data").arg(world.data());
    command.arg("--key").arg(world.person(role).1).args(args);
    world.program(command)
}

#[test]
fn an_approver_with_other_zone_data_is_told_before_anything_is_signed() {
    let mut world = World::new();
    let asked = ask(
        &world,
        &[
            "--windows",
            RULE,
            "--from",
            "2031-03-25",
            "--until",
            "2031-04-03",
        ],
    );
    let asked = asked.exits(0).line();
    // Summer time begins on 2031-03-30.
    let begins = asked["recurrence"]["windows"].as_array().unwrap();
    let begins: Vec<&str> = begins.iter().map(|w| text(w, "/from")).collect();
    assert_eq!(
        begins,
        [
            "2031-03-25T07:00:00.000Z",
            "2031-03-27T07:00:00.000Z",
            "2031-04-01T06:00:00.000Z",
            "2031-04-03T06:00:00.000Z"
        ]
    );
    let request = text(&asked, "/request_id");

    // A machine on which Berlin has no summer time any more, one without Berlin, one without a zone.
    let usual = Path::new("/usr/share/zoneinfo");
    let [other, without, empty] = ["other", "without", "empty"].map(|name| world.path(name));
    for dir in [&other, &without, &empty] {
        std::fs::create_dir(dir).unwrap();
    }
    copy(&usual.join("Africa"), &without.join("Africa"));
    std::fs::create_dir(other.join("Europe")).unwrap();
    std::fs::copy(usual.join("Africa/Algiers"), other.join("Europe/Berlin")).unwrap();
    std::fs::write(other.join("+VERSION"), "2031b\n").unwrap();
    let said = with_zones(&world, &other, "approver", &["approve", request]).exits(1);
    for part in [
        "4 of Tue,Thu 08:00-12:00 Europe/Berlin",
        "only here:  Tue 2031-04-01 08:00:00 +01:00",
        "only asked: Tue 2031-04-01 07:00:00 +01:00",
        "(2031b) gives other windows",
    ] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
    assert!(!said.stderr.contains("signing"), "{said:?}");
    for dir in [&without, &empty] {
        let said = with_zones(&world, dir, "approver", &["approve", request]);
        assert!(said.code != Some(0), "{said:?}");
        assert!(!said.stderr.contains("signing"), "{said:?}");
    }
    let waits = world.json(&["requests"]).lines();
    assert!(waits.iter().any(|ask| ask["id"] == request), "{waits:?}");

    // With the same data it is approved, and everything says when it holds.
    let yes = world
        .run_as("approver", &["approve", request])
        .exits(0)
        .line();
    let grant = text(&yes, "/grant_id");
    let can = with_zones(&world, usual, "operator", &["can"]).exits(0);
    let show = world.run(&["show", grant]).exits(0);
    let grants = world.run(&["grants"]).exits(0);
    for out in [&can, &grants, &show] {
        assert!(out.stdout.contains(RULE), "{out:?}");
        assert!(out.stdout.contains("2031-03-25T07:00:00.000Z"), "{out:?}");
    }
    let local = "Tue 2031-04-01 08:00:00 +02:00 until Tue 2031-04-01 12:00:00 +02:00";
    assert!(show.stdout.contains(local), "{show:?}");
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn a_recorded_terminal_becomes_a_file_for_players() {
    let mut world = World::new();
    let command = "printf 'caf\\303\\251 \\377\\n'; exit 7";
    let terminal = ["-tt", "-o", "SetEnv=TERM=xterm-256color"];
    world.ssh_with(&terminal, &world.place(), command).exits(7);
    let action = world.actions(&[]).remove(0);
    let session = text(&action, "/session_id").to_owned();
    world.ended_session(&session);
    let file = world.path("terminal.cast");
    let cast = ["replay", &session, "--asciicast", file.to_str().unwrap()];
    world.run(&cast).exits(0);
    let written = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["version"], 3);
    assert_eq!(lines[0]["command"], command);
    assert!(text(&lines[0], "/title").ends_with("by Olu Operator"));
    let output = lines[1..].iter().filter(|event| event[1] == "o");
    let output: String = output.map(|event| event[2].as_str().unwrap()).collect();
    assert!(output.contains("caf\u{e9} \u{fffd}\r\n"), "{output:?}");
    let last = lines.last().unwrap();
    assert_eq!((&last[1], &last[2]), (&"x".into(), &"7".into()));
    // A command without terminal is none.
    let user = world.place();
    world.ssh(&user, "echo plain").exits(0);
    let plain = world.actions(&["--text", "echo plain"]).remove(0);
    let plain = text(&plain, "/session_id").to_owned();
    world.ended_session(&plain);
    let cast = ["replay", &plain, "--asciicast", file.to_str().unwrap()];
    let said = world.run(&cast).exits(3);
    assert!(said.stderr.contains("no terminal"), "{said:?}");
    // Nor is one terminal chosen of several.
    let session = two_terminals(&world);
    let cast = ["replay", &session, "--asciicast", file.to_str().unwrap()];
    let said = world.run(&cast).exits(3);
    assert!(said.stderr.contains("2 terminals"), "{said:?}");
    for action in world.actions(&["--session", &session]) {
        let id = text(&action, "/action_id");
        world.run(&[&cast[..], &["--action", id]].concat()).exits(0);
        let written = std::fs::read_to_string(&file).unwrap();
        let header: Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
        assert_eq!(header["command"], action["what"]["command"]);
    }
    world.stop();
}

/// Two terminals of one session: two channels of one connection.
fn two_terminals(world: &World) -> String {
    let control = world.path("control");
    let path = format!("ControlPath={}", control.display());
    let began = world.path("began");
    let go = world.path("go");
    let first = format!(
        "touch '{}'; for n in $(seq 300); do test -e '{}' && exit 0; sleep 0.1; done; exit 9",
        began.display(),
        go.display()
    );
    std::thread::scope(|scope| {
        let options = ["-tt", "-o", "ControlMaster=yes", "-o", &path];
        let place = world.place();
        let master = scope.spawn(move || world.ssh_with(&options, &place, &first));
        wait_for("first terminal", PATIENCE, || began.exists().then_some(()));
        let options = ["-tt", "-o", "ControlMaster=no", "-o", &path];
        world
            .ssh_with(&options, &world.place(), "echo second")
            .exits(0);
        std::fs::write(&go, "").unwrap();
        master.join().unwrap().exits(0);
    });
    let action = world.actions(&["--text", "echo second"]).remove(0);
    let session = text(&action, "/session_id").to_owned();
    world.ended_session(&session);
    session
}
