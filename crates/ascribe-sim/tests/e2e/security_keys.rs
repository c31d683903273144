//! A security key approves what only a touch may approve.

use super::token::Enrolled;
use super::world::World;

#[test]
fn a_target_asks_for_a_touch() {
    let world = World::new();
    let token = Enrolled::of(&world, "approver");
    world.change_target(&["--approver-assurance", "3"]);
    let request = world.request("the primary is down, by a touch alone");
    let plain = world.run_as("approver", &["approve", &request]).exits(2);
    assert!(plain.stderr.contains("ed25519-sk"), "{}", plain.stderr);
    let approve = ["approve", request.as_str()];
    let untouched = token.run(&world, 0, &approve).exits(2);
    assert!(
        untouched.stderr.contains("nobody touched"),
        "{}",
        untouched.stderr
    );
    let approved = token.run(&world, 1, &approve).exits(0).line();
    let grant = approved["grant_id"].as_str().unwrap();
    world.run_as("operator", &["use", grant]).exits(0);
    let ran = world.ssh(&world.place(), "echo approved").exits(0);
    assert_eq!(ran.stdout, "approved\n");
    let bundle = world.bundle("echo again");
    let approval = world
        .verify(&bundle, &world.policy())
        .exits(0)
        .link("approval");
    assert_eq!(approval["signed_by"][0]["with"], "enrolled security key");
}
