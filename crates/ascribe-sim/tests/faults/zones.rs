//! Time zones and languages of the environment change nothing.

use std::process::Command;

use super::kit::text;
use super::world::{Out, World, binary, end};

/// Zones at both ends of the earth, no zone at all, a file that is none, and languages whose
/// letters and numbers go their own ways.
const PLACES: [[&str; 2]; 6] = [
    ["TZ=UTC", "LC_ALL=C"],
    ["TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8"],
    ["TZ=Etc/GMT+12", "LC_ALL=ar_EG.UTF-8"],
    ["TZ=<x>-26:00:00", "LC_ALL=de_DE.UTF-8"],
    ["TZ=:/etc/passwd", "LC_ALL=no_such_LANGUAGE"],
    ["TZ=\u{1}%s", "LC_ALL="],
];

fn at(world: &World, place: [&str; 2], args: &[&str]) -> Out {
    let mut env = Command::new("env");
    env.args(place)
        .arg(format!("LANG={}", place[1].trim_start_matches("LC_ALL=")));
    env.arg(binary()).arg("--data").arg(world.data()).args(args);
    world.program(env)
}

#[test]
fn no_zone_and_no_language_moves_a_window_or_changes_what_is_printed() {
    let mut world = World::new();
    world.stop();
    world.start_target();
    let operator = world.person("operator").1;
    let approver = world.person("approver").1;
    let (operator, approver) = (operator.to_str().unwrap(), approver.to_str().unwrap());
    let what = world.place();
    for place in PLACES {
        let mut env = Command::new("env");
        env.args(place);
        let server = world.serve(Some(env));
        let ask = |from: &str| {
            let ask = [
                "--key", operator, "-o", "json", "request", &what, "--for", "15m",
            ];
            let rest = [
                "--why",
                "restart the stuck replica",
                "--ticket",
                "demo:OPS-1",
            ];
            at(
                &world,
                place,
                &[&ask[..], &["--from", from], &rest].concat(),
            )
        };
        // The same instant, written in two ways; a local time names none.
        for from in ["2031-01-31T23:30:00Z", "2031-02-01T13:30:00+14:00"] {
            let asked = ask(from).exits(0).line();
            assert_eq!(text(&asked, "/not_before"), "2031-01-31T23:30:00.000Z");
            assert_eq!(text(&asked, "/not_after"), "2031-01-31T23:45:00.000Z");
            let request = text(&asked, "/request_id");
            let yes = at(&world, place, &["--key", approver, "approve", request]).exits(0);
            let until = "until 2031-01-31T23:45:00.000Z";
            assert!(yes.stdout.contains(until), "{place:?}: {yes:?}");
        }
        for local in ["2031-01-31T23:30:00", "2031-01-31 23:30", "23:30"] {
            let refused = ask(local).exits(3);
            assert!(refused.stderr.contains("is not a UTC time"), "{refused:?}");
        }
        let grants = world.json(&["grants"]).lines();
        let own = text(grants.first().unwrap(), "/id").to_owned();
        let user = format!("{}+{own}@{}", world.field("account"), world.field("target"));
        world.ssh(&user, "date +%Z").exits(0);
        end(server);
        // What is printed of what is recorded is the same everywhere.
        let (data, policy) = (world.data(), world.policy());
        let verify = [
            "verify",
            data.to_str().unwrap(),
            "--trust",
            policy.to_str().unwrap(),
        ];
        for args in [&["actions"][..], &["actions", "-o", "json"], &verify] {
            let expected = at(&world, PLACES[0], args).exits(0);
            assert!(expected.stdout.contains("T"), "{expected:?}");
            for other in PLACES {
                let got = at(&world, other, args).exits(0);
                assert_eq!(got.stdout, expected.stdout, "{other:?} {args:?}");
            }
        }
    }
    assert_eq!(world.actions(&[]).len(), PLACES.len());
}
