//! An outside certificate authority, from its registration to a bundle that names the certificate.

use std::path::Path;
use std::process::Command;

use super::text;
use super::world::{Out, World, need};

/// A key with a certificate beside it, as a company's authority issues them.
fn certify(world: &World, ca: &Path, name: &str, serial: &str) {
    let key = world.path(name);
    keygen(world, &["-t", "ed25519", "-N", "", "-f"], &key);
    let options = [
        "-I",
        "olu laptop",
        "-n",
        "olu",
        "-V",
        "-5m:+1h",
        "-z",
        serial,
    ];
    let mut sign = Command::new(need("ssh-keygen"));
    sign.args(["-q", "-s"]).arg(ca).args(options);
    sign.arg(key.with_extension("pub"));
    world.program(sign).exits(0);
}

fn keygen(world: &World, options: &[&str], key: &Path) {
    let mut make = Command::new(need("ssh-keygen"));
    make.arg("-q").args(options).arg(key);
    world.program(make).exits(0);
}

/// Stock ssh with this key, its certificate and nothing else.
fn ssh(world: &World, name: &str, command: &str) -> Out {
    let key = world.path(name).display().to_string();
    let options = "-F none -oHostName=127.0.0.1 -oStrictHostKeyChecking=no -oBatchMode=yes \
                   -oUserKnownHostsFile=/dev/null -oIdentitiesOnly=yes -oIdentityAgent=none -i";
    let mut options: Vec<&str> = options.split(' ').collect();
    options.push(&key);
    world.ssh_with(&options, &world.place(), command)
}

#[test]
fn an_authority_is_registered_used_revoked_and_withdrawn() {
    let world = World::new();
    let ca = world.path("corp");
    keygen(&world, &["-t", "ecdsa", "-b", "256", "-N", "", "-f"], &ca);
    certify(&world, &ca, "laptop", "7");
    certify(&world, &ca, "phone", "18446744073709551615");
    ssh(&world, "laptop", "id").exits(255);

    let operator = world.person("operator").0;
    let public = ca.with_extension("pub").display().to_string();
    let person = format!("{operator}=olu");
    let set = [
        "ca",
        "set",
        "corp",
        "--public-key",
        &public,
        "--person",
        &person,
    ];
    world.run_as("operator", &set).exits(2);
    world.run_as("approver", &set[..3]).exits(3);
    let done = world.run_as("approver", &set).exits(0).line();
    assert_eq!(done["in_effect"], true);
    let listed = world.json(&["ca", "list"]).line();
    assert_eq!(listed["people"][0]["principal"], "olu");

    ssh(&world, "laptop", "echo by certificate").exits(0);
    let actions = world.actions(&["--text", "by certificate"]);
    assert_eq!(
        text(&actions[0], "/who/chain/0/evidence"),
        "ssh-cert corp olu laptop serial 7 principal olu"
    );
    assert_eq!(text(&actions[0], "/who/chain/0/principal"), operator);
    let session = text(&actions[0], "/session_id");
    world.ended_session(session);
    let bundle = world.path("session.bundle");
    let file = bundle.display().to_string();
    world.json(&["export", session, "-f", &file]);
    let verified = world.verify(&bundle, &world.policy()).exits(0);
    assert!(
        verified.stdout.contains("ssh-cert corp"),
        "{}",
        verified.stdout
    );
    // Whoever registered the authority said whom its principals stand for; the certificate is testimony.
    let authority = verified.link("authority");
    let approver = world.person("approver").0;
    assert_eq!(authority["signed_by"][0]["principal"], approver.as_str());
    let opening = verified.link("opening");
    assert_eq!(opening["testimony"], "gateway");
    let trust = opening["trust"].to_string();
    assert!(
        trust.contains("whoever holds that key of `corp`"),
        "{trust}"
    );

    // What is not given stays as it was.
    let revoke = ["ca", "set", "corp", "--revoke-serial", "7"];
    world.run_as("approver", &revoke).exits(0);
    ssh(&world, "laptop", "id").exits(255);
    ssh(&world, "phone", "true").exits(0);
    let revoke = ["ca", "set", "corp", "--revoke-key-id", "olu laptop"];
    world.run_as("approver", &revoke).exits(0);
    ssh(&world, "phone", "id").exits(255);
    let shown = world.run(&["ca", "list"]).exits(0).stdout;
    assert!(shown.contains("revoked  serial 7"), "{shown}");

    let withdraw = ["ca", "withdraw", "corp"];
    world.run_as("approver", &withdraw).exits(0);
    world.run_as("approver", &withdraw).exits(2);
    assert!(world.json(&["ca", "list"]).lines().is_empty());
}
