//! A workload logs in with its X.509-SVID, whose own key signs, and reaches a host with plain `ssh`.

use std::path::PathBuf;

use super::agent::Agent;
use super::providers::Provider;
use super::spiffe::{AUTHORITY, DOMAIN, ID, OTHER, USAGE, bundle, certify, publish};
use super::world::World;

/// A demo whose workload is [`ID`], which has a grant. In the directory are its SVID, `deploy`, and `other`, that of
/// another workload.
pub(super) fn issued(world: &World) -> PathBuf {
    let dir = world.path("spire");
    std::fs::create_dir(&dir).unwrap();
    let authority = format!("{AUTHORITY}subjectAltName=URI:{DOMAIN}\n");
    certify(&dir, "root", &authority, "root");
    for (name, id) in [("deploy", ID), ("other", OTHER)] {
        let extensions = format!("{USAGE}subjectAltName=URI:{id}\n");
        certify(&dir, name, &extensions, "root");
    }
    let bundle = publish(bundle(&dir));
    world.add_provider(&Provider {
        name: "spire",
        kind: "spiffe-x509",
        issuer: DOMAIN,
        audience: "ascribe",
        jwks: Some(&bundle),
    });
    world.add_workload("spire", &[&format!("sub={ID}")]);
    world.grant_workload();
    dir
}

#[test]
fn a_workload_acts_by_its_svid_and_another_one_of_the_domain_does_not() {
    let world = World::new();
    let dir = issued(&world);

    let agent = Agent::start(&world);
    let log_in = |name: &str| {
        let (pem, key) = (
            dir.join(format!("{name}.pem")),
            dir.join(format!("{name}.key")),
        );
        let args = [
            "login",
            "--workload",
            "deploy-shop",
            "--for",
            "1h",
            "--svid",
            pem.to_str().unwrap(),
            "--svid-key",
            key.to_str().unwrap(),
        ];
        agent.run(&world, &args)
    };
    log_in("other").exits(2);
    agent.ssh(&world, "id").exits(255);
    log_in("deploy").exits(0);
    agent.ssh(&world, "echo by svid").exits(0);
    let action = world.actions(&["--text", "by svid"]).remove(0);
    let actor = &action["who"]["chain"][0];
    assert_eq!(actor["kind"], "workload", "{action}");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["assurance"], 2);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let file = world.path("svid.bundle");
    world.json(&["export", session, "-f", file.to_str().unwrap()]);
    let report = world.verify(&file, &world.policy()).exits(0);
    assert!(report.stdout.contains("login:spire"), "{report:?}");
}
