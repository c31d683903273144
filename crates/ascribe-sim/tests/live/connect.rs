//! Plain `ssh ACCOUNT@TARGET` with what `ascribe ssh-config` writes, signed and not.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::world::{Out, World, need, wait_for};

/// Has `ssh-config` write; gives the file to be included.
fn written(world: &World, extra: &[&str]) -> PathBuf {
    let mut command = world.ascribe(&["--key"]);
    command
        .arg(world.person("operator").1)
        .args(["ssh-config", "--write"])
        .args(extra);
    let out = world.program(command).exits(0);
    let file = world.path("config/ascribe/ssh_config");
    assert!(out.stdout.contains(file.to_str().unwrap()), "{out:?}");
    file
}

fn ssh(world: &World, config: &PathBuf, args: &[&str]) -> Out {
    let mut ssh = Command::new(need("ssh"));
    ssh.arg("-F")
        .arg(config)
        .args(["-o", "BatchMode=yes"])
        .args(args);
    world.program(ssh)
}

fn action(world: &World, text: &str) -> Value {
    let found = || world.actions(&["--text", text]).into_iter().next();
    wait_for("action", super::world::PATIENCE, || {
        found().filter(|action| !action["what"]["outcome"]["at"].is_null())
    })
}

#[test]
fn plain_ssh_opens_a_session_that_the_actor_signed_and_a_bundle_proves_it() {
    let world = World::new();
    let config = written(&world, &[]);
    let place = world.place();
    ssh(&world, &config, &[&place, "echo signed"]).exits(0);
    let signed = action(&world, "echo signed");
    assert_eq!(signed["who"]["opened_by"], "signed", "{signed}");
    assert_eq!(signed["who"]["door"], "connect");
    // The same by the two other doors: equal records apart from door and opening.
    let jump = world.field_of_ssh("jump_host");
    let demo = PathBuf::from(world.field_of_ssh("config_file"));
    ssh(&world, &demo, &["-J", &jump, &place, "echo jumped"]).exits(0);
    world.ssh(&place, "echo direct").exits(0);
    let mut all = vec![
        signed.clone(),
        action(&world, "echo jumped"),
        action(&world, "echo direct"),
    ];
    let doors: Vec<Value> = all.iter().map(|a| a["who"]["door"].clone()).collect();
    assert_eq!(doors, ["connect", "jump", "direct"]);
    for action in &mut all {
        for (part, names) in [
            ("who", &["door", "opened_by"][..]),
            ("what", &["command", "command_b64", "outcome"]),
            ("when", &["at"]),
        ] {
            for name in names {
                action[part][*name] = Value::Null;
            }
        }
        for part in ["action_id", "session_id", "integrity"] {
            action[part] = Value::Null;
        }
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[1], all[2]);
    // Offline, the opening is the actor's own word.
    let session = signed["session_id"].as_str().unwrap();
    world.ended_session(session);
    let file = world.path("signed.bundle");
    world
        .run(&["export", session, "-f", file.to_str().unwrap()])
        .exits(0);
    let report = world.verify(&file, &world.policy()).exits(0);
    assert!(!report.stdout.contains("session openings"), "{report:?}");
    assert!(
        report
            .stdout
            .contains("what was typed is the gateway's testimony"),
        "{report:?}"
    );
    let opening = report.link("opening");
    assert_eq!(opening["signed_by"][0]["with"], "enrolled key", "{opening}");
    assert!(opening.get("testimony").is_none(), "{opening}");
}

#[test]
fn what_ssh_config_writes_is_enough_for_every_tool() {
    let world = World::new();
    let config = written(&world, &[]);
    let config = config.to_str().unwrap();
    let place = world.place();
    let (from, there, back) = (world.path("from"), world.path("there"), world.path("back"));
    std::fs::write(&from, vec![7; 3_000_000]).unwrap();
    let remote = format!("{place}:{}", there.display());
    let shell = format!("ssh -F {config}");
    for (program, options) in [("scp", ["-F", config]), ("rsync", ["-e", &shell])] {
        for path in [&there, &back] {
            std::fs::remove_file(path).ok();
        }
        let mut put = Command::new(need(program));
        put.args(options).arg(&from).arg(&remote);
        world.program(put).exits(0);
        let mut get = Command::new(need(program));
        get.args(options).arg(&remote).arg(&back);
        world.program(get).exits(0);
        assert_eq!(std::fs::read(&back).unwrap().len(), 3_000_000, "{program}");
    }
}

#[test]
fn without_ascribe_on_the_client_the_jump_variant_does() {
    let world = World::new();
    let config = written(&world, &["--jump"]);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("ProxyJump ascribe") && !text.contains("ProxyCommand"),
        "{text}"
    );
    ssh(&world, &config, &[&world.place(), "echo plain"]).exits(0);
    assert_eq!(action(&world, "echo plain")["who"]["door"], "jump");
}

#[test]
fn a_connection_can_also_be_carried_and_a_grant_named() {
    let world = World::new();
    let config = written(&world, &[]);
    let text = std::fs::read_to_string(&config).unwrap();
    let carried = text
        .replace("--pass ", "")
        .replace("ProxyUseFdpass yes", "ProxyUseFdpass no");
    assert_ne!(carried, text);
    let file = world.path("carried");
    std::fs::write(&file, carried).unwrap();
    let grant = world.approve(&world.request("a second grant for the same account"));
    let place = world.place();
    let named = place.replacen('@', &format!("+{grant}@"), 1);
    let input = "head -c 2000000 /dev/zero | wc -c";
    let out = ssh(&world, &file, &[&named, input]).exits(0);
    assert_eq!(out.stdout.trim(), "2000000");
    let action = action(&world, input);
    assert_eq!(action["why"]["grant_id"], grant.as_str());
    // Two fit and none is named: the client is told how to choose.
    let unclear = ssh(&world, &file, &[&place, "true"]).exits(254);
    assert!(unclear.stderr.contains("ascribe use"), "{unclear:?}");
}

#[test]
fn a_target_that_wants_signed_sessions_refuses_others_and_says_what_to_do() {
    let world = World::new();
    world.change_target(&["--signed-opening"]);
    let place = world.place();
    let refused = world.ssh(&place, "echo unsigned").exits(254);
    assert!(refused.stderr.contains("ascribe ssh-config"), "{refused:?}");
    let config = written(&world, &[]);
    ssh(&world, &config, &[&place, "echo signed"]).exits(0);
}

#[test]
fn an_opening_that_nobody_signed_leads_nowhere() {
    use std::io::{Read as _, Write as _};
    let world = World::new();
    let api: Value =
        serde_json::from_str(&std::fs::read_to_string(world.data().join("server.json")).unwrap())
            .unwrap();
    for line in [
        "ascribe-opening st-00000000000000000000000000\n",
        "ascribe-opening nonsense\n",
        "ascribe-opening \n",
        "another thing\n",
        &"a".repeat(5000),
    ] {
        let mut tcp = std::net::TcpStream::connect(api["api"].as_str().unwrap()).unwrap();
        tcp.set_read_timeout(Some(super::world::PATIENCE)).unwrap();
        tcp.write_all(line.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Closed, perhaps with what was sent still unread.
        tcp.read_to_end(&mut answer).ok();
        assert!(!answer.starts_with(b"SSH-"), "{line}");
    }
    world.ssh(&world.place(), "true").exits(0);
}

#[test]
fn a_target_that_lets_people_in_directly_is_reported_when_it_is_registered() {
    let world = World::new();
    let quiet = world.change_target(&[]);
    assert!(!quiet.stderr.contains("directly"), "{quiet:?}");
    // A server that knows the operator's key, and the demo's target's host key.
    let operator = world.person("operator").1;
    let dir = world.path("open");
    std::fs::create_dir(&dir).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = dir.join("sshd_config");
    let mut keygen = Command::new(need("ssh-keygen"));
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(dir.join("host"));
    world.program(keygen).exits(0);
    std::fs::write(
        &config,
        format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nUsePAM no\nStrictModes no\n\
             PidFile none\nPermitRootLogin yes\nAuthorizedKeysFile {1}.pub\n",
            dir.display(),
            operator.display()
        ),
    )
    .unwrap();
    let mut sshd = Command::new(need("sshd"));
    sshd.args(["-D", "-e", "-f"]).arg(&config);
    let sshd = super::world::Running::start(sshd, &world.path("logs"), false);
    wait_for("open server", super::world::PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let add = |keys: &str| {
        let address = format!("127.0.0.1:{port}");
        world.run_as(
            "approver",
            &[
                "target",
                "add",
                "open",
                "--address",
                &address,
                "--allow-loopback",
                "--host-keys",
                keys,
                "--account",
                &world.field("account"),
                "--owner",
                "Ada Approver",
            ],
        )
    };
    let host = dir.join("host.pub");
    let told = add(host.to_str().unwrap()).exits(0);
    assert!(
        told.stderr.contains("lets Olu Operator in directly"),
        "{told:?}"
    );
    assert!(!told.stderr.contains("lets Ada"), "{told:?}");
    // Another host key than the pinned one is not asked anything.
    let told = add(&format!("{}.pub", operator.display())).exits(0);
    assert!(told.stderr.contains("not known whether"), "{told:?}");
    drop(sshd);
}
