//! Two servers with one key.

use std::process::Command;

use super::kit::Marks;
use super::world::{World, binary, copy, end};

fn serve_at(world: &World, data: &str) -> Command {
    let mut serve = Command::new(binary());
    serve.arg("--data").arg(world.path(data));
    serve.args(["serve", "--ssh", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    serve
}

#[test]
fn a_second_server_on_the_directory_or_on_a_copy_of_it_is_refused() {
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    world.start_target();
    copy(&world.data(), &world.path("copy"));
    let server = world.serve(None);
    for (data, held) in [("data", "data"), ("copy", "data.demo/head")] {
        let refused = world.program(serve_at(&world, data)).exits(3);
        let held = world.path(held);
        for part in [held.to_str().unwrap(), "in use"] {
            assert!(refused.stderr.contains(part), "{data}: {refused:?}");
        }
    }
    marks.runs(&world, "still-served");
    end(server);
    // The copy lacks what was recorded meanwhile.
    let refused = world.program(serve_at(&world, "copy")).exits(3);
    assert!(refused.stderr.contains("rollback"), "{refused:?}");
    marks.verify(&world);
}

/// Where the copy was given another head copy, nothing on the machine tells the two apart; a
/// client that saw one refuses the other.
#[test]
fn clients_refuse_a_fork_of_the_ledger_that_they_know() {
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    world.start_target();
    let (here, there) = (world.data(), world.path("copy"));
    copy(&here, &there);
    let config = there.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let head = world.path("data.demo/head");
    let (from, to) = (head.to_str().unwrap(), world.path("copy-head"));
    assert!(text.contains(from), "{text}");
    std::fs::write(&config, text.replace(from, to.to_str().unwrap())).unwrap();
    let server = world.serve(None);
    marks.runs(&world, "here");
    world.actions(&[]);
    end(server);
    // The other one goes its own way, as far and further.
    std::fs::rename(&here, world.path("kept")).unwrap();
    std::fs::rename(&there, &here).unwrap();
    let server = world.serve(None);
    let refused = world.run(&["sessions"]).exits(4);
    assert!(
        refused.stderr.contains("rolled back or forked"),
        "{refused:?}"
    );
    for n in 0..6 {
        world
            .ssh(&world.place(), &format!("echo there {n}"))
            .exits(0);
    }
    let refused = world.run(&["sessions"]).exits(4);
    assert!(refused.stderr.contains("does not continue"), "{refused:?}");
    end(server);
    // The head copy of the one refuses the other.
    let config = here.join("config.json");
    std::fs::write(&config, text).unwrap();
    let refused = world.serve_refused().exits(3);
    assert!(refused.stderr.contains("with other content"), "{refused:?}");
    std::fs::rename(&here, world.path("fork")).unwrap();
    std::fs::rename(world.path("kept"), &here).unwrap();
    let server = world.serve(None);
    marks.runs(&world, "here-again");
    end(server);
    marks.verify(&world);
}
