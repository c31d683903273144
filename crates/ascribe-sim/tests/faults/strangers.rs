//! What arrives at the port: from strangers, and from who has logged in.

use super::kit::Marks;
use super::world::World;

/// Strangers are cut off after 10 s, and nobody else is.
#[test]
fn a_session_outlives_the_time_before_login() {
    let world = World::new();
    let mut marks = Marks::new(&world);
    let mark = marks.command("late");
    let out = world.ssh(&world.place(), &format!("sleep 12; {mark}; echo done"));
    assert_eq!(out.exits(0).stdout, "done\n");
    assert!(marks.has("late"));
}
