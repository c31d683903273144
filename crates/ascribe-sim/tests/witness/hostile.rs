//! Witnesses that nobody should have: none of them stops the server or is believed.

use std::sync::Arc;

use super::kit::{Fake, Manner, all_seen, set_witnesses, witnessed};
use super::world::{PATIENCE, World, wait_for};

const ALL: &[(&str, Manner, &str)] = &[
    ("otherkey", Manner::OtherKey, "no cosignature by the key"),
    ("othertree", Manner::OtherTree, "does not verify"),
    ("wavers", Manner::Wavers, "another size each time"),
    ("ahead", Manner::Ahead, "rolled back"),
    ("redirects", Manner::Redirects, "answers 307"),
    ("huge", Manner::Huge, "more than 16384 bytes"),
    ("garbage", Manner::Garbage, "does not answer"),
    ("prose", Manner::Prose, "malformed"),
    ("silent", Manner::Silent, "does not answer"),
    ("r403", Manner::Refuses(403), "answers 403"),
    ("r404", Manner::Refuses(404), "answers 404"),
    ("r422", Manner::Refuses(422), "answers 422"),
    ("r500", Manner::Refuses(500), "answers 500"),
];

#[test]
fn none_of_them_is_believed_or_holds_anything_up_and_sessions_stop_by_the_rule() {
    let world = World::new();
    world.change_target(&["--max-unwitnessed", "5s"]);
    // Without any witness the rule keeps the target shut.
    let shut = world.ssh(&world.place(), "echo ran").exits(254);
    assert!(shut.stderr.contains("this log has none"), "{shut:?}");
    let fakes: Vec<Arc<Fake>> = ALL
        .iter()
        .map(|(name, how, _)| Fake::start(name, *how))
        .collect();
    let lines: String = ALL
        .iter()
        .zip(&fakes)
        .map(|((name, _, _), f)| f.line(name))
        .collect();
    let names: Vec<&str> = ALL.iter().map(|(name, _, _)| *name).collect();
    let any = format!("{lines}group any any {}\nquorum any\n", names.join(" "));
    set_witnesses(&world, &any, &[]);
    let status = wait_for("answers of all", PATIENCE, || {
        let found = witnessed(&world);
        let mut rows = found["witnesses"].as_array()?.iter();
        rows.all(|row| row["said"] != "not asked yet")
            .then_some(found)
    });
    assert_eq!(status["size"], 0);
    for (row, (name, _, why)) in status["witnesses"].as_array().unwrap().iter().zip(ALL) {
        let said = row["said"].as_str().unwrap();
        assert!(
            said.contains(why) && !said.contains('\u{1b}'),
            "{name}: {said}"
        );
        assert!(row["size"].is_null(), "{row}");
    }
    let refused = wait_for("rule of the target", PATIENCE, || {
        let tried = world.ssh(&world.place(), "echo ran");
        (tried.code == Some(254)).then_some(tried)
    });
    assert!(
        refused.stderr.contains("no witnesses have seen"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("ledger status"), "{refused:?}");
    // Whoever looks is told so, and so is whoever runs the server.
    let target = world.field("target");
    for args in [&["target", "show", &target][..], &["requests", "--all"]] {
        let told = world.run(args).exits(0).stderr;
        assert!(
            told.contains("not witnessed yet: what was recorded since "),
            "{args:?}: {told}"
        );
    }
    let status = world.run(&["ledger", "status"]).exits(0).stdout;
    assert!(status.contains("unseen   for "), "{status}");
    wait_for("warning of the server", PATIENCE, || {
        let mut logs = std::fs::read_dir(world.path("logs")).unwrap();
        let warns = |text: Vec<u8>| String::from_utf8_lossy(&text).contains("not witnessed for ");
        let warned = logs.any(|file| std::fs::read(file.unwrap().path()).is_ok_and(warns));
        warned.then_some(())
    });
    // One that is honest is enough, beside all of them.
    let honest = Fake::start("honest", Manner::Honest);
    let lines = format!("{lines}{}", honest.line("honest"));
    let any = format!(
        "{lines}group any any {} honest\nquorum any\n",
        names.join(" ")
    );
    set_witnesses(&world, &any, &[]);
    all_seen(&world);
    wait_for("session", PATIENCE, || {
        (world.ssh(&world.place(), "echo back").code == Some(0)).then_some(())
    });
    // And with a quorum that needs two of them nobody's word counts.
    let two = format!(
        "{lines}group two 2 {} honest\nquorum two\n",
        names.join(" ")
    );
    let size = all_seen(&world)["size"].clone();
    set_witnesses(&world, &two, &[]);
    wait_for("rule of the target", PATIENCE, || {
        (world.ssh(&world.place(), "echo ran").code == Some(254)).then_some(())
    });
    let now = witnessed(&world);
    let grown = now["size"].as_u64().unwrap() - size.as_u64().unwrap();
    // What was under way when they were named anew may still have counted.
    assert!(grown < 20 && !now["unseen_since"].is_null(), "{now}");
}
