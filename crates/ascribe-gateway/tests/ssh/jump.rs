//! The jump form: a stock client goes through the gateway to a target's own name, strict about host
//! keys all the way.

use std::process::Stdio;

use ascribe_core::entry::{Body, CloseReason, Door, OpenedBy, SessionOpen, Status};
use tokio::process::Command;

use super::world::{Out, PATIENCE, Setup, World, keygen, until};

/// What a person's configuration says: the gateway's key, and the CA for exactly the target's name.
fn configure(w: &World, ca: &str, key: &str) -> String {
    let line = |file: &str| {
        let text = std::fs::read_to_string(w.path(&format!("{file}.pub"))).unwrap();
        text.trim().to_owned()
    };
    let known = format!(
        "[127.0.0.1]:{} {}\n@cert-authority db1,[db1]:{} {}\n",
        w.port,
        line("gate"),
        w.sshd_port,
        line(ca)
    );
    std::fs::write(w.path("known_hosts"), known).unwrap();
    let d = w.dir.path().display();
    format!(
        "Host gw\n HostName 127.0.0.1\n Port {}\nHost *\n IdentityFile {d}/{key}\n IdentitiesOnly yes\n \
         IdentityAgent none\n BatchMode yes\n UserKnownHostsFile {d}/known_hosts\n \
         StrictHostKeyChecking yes\n User {}\n",
        w.port, w.account
    )
}

/// Writes a configuration; gives its path.
fn config(w: &World, extra: &str) -> String {
    let text = configure(w, "host_ca", "client");
    let path = w.path("ssh_config");
    std::fs::write(&path, format!("{extra}\n{text}")).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn run(program: &str, args: &[&str], input: &[u8]) -> Out {
    use tokio::io::AsyncWriteExt as _;
    let mut child = Command::new(program)
        .args(args)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        stdin.write_all(&input).await.ok();
    });
    let out = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let out = out.unwrap_or_else(|_| panic!("{program} hangs")).unwrap();
    Out {
        code: out.status.code(),
        stdout: out.stdout,
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

fn opens(w: &World) -> Vec<SessionOpen> {
    w.found(|body| match body {
        Body::SessionOpen(open) => Some(open),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_runs_the_same_command_and_leaves_the_same_record_apart_from_the_door() {
    let w = World::new().await;
    let config = config(&w, "");
    let command = "cat; echo to-stderr >&2; exit 3";
    let out = run(
        "ssh",
        &["-F", &config, "-J", "gw", "db1", command],
        b"input",
    )
    .await;
    assert_eq!(
        (out.code, out.text().as_str()),
        (Some(3), "input"),
        "{out:?}"
    );
    let out = out.says("to-stderr");
    assert!(!out.stderr.contains("Warning"), "{out:?}");
    w.ssh(&[], command, b"input").await.exits(3);
    until("two ends", || (w.outcomes().len() == 2).then_some(())).await;
    let [jump, direct] = &opens(&w)[..] else {
        panic!("two sessions");
    };
    assert_eq!((jump.door, direct.door), (Door::Jump, Door::Direct));
    for open in [jump, direct] {
        assert_eq!(open.opened_by, OpenedBy::Testimony);
        assert_eq!(
            (open.target.as_str(), open.account.as_str()),
            ("db1", w.account.as_str())
        );
    }
    assert_eq!(
        (jump.person, &jump.key, jump.grant),
        (direct.person, &direct.key, direct.grant)
    );
    let kinds = w.found(|body| match body {
        Body::Intent(intent) => Some((intent.kind, intent.env, intent.pty)),
        _ => None,
    });
    assert_eq!(kinds[0], kinds[1]);
    let [a, b] = &w.outcomes()[..] else {
        panic!("two outcomes");
    };
    assert_eq!(
        (a.status, a.exit_code, &a.streams),
        (b.status, b.exit_code, &b.streams)
    );
    assert!(w.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plain_tool_works_through_a_jump() {
    let w = World::new().await;
    let config = config(&w, "Host db1\n ProxyJump gw");
    let (from, back) = (w.path("from"), w.path("back"));
    let bytes: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&from, &bytes).unwrap();
    let there = w.path("there");
    let (from, back, there) = (
        from.to_str().unwrap(),
        back.to_str().unwrap(),
        there.to_str().unwrap(),
    );
    let remote = format!("db1:{there}");
    let shell = format!("ssh -F {config}");
    for (program, there_args, back_args) in [
        (
            "scp",
            vec!["-F", &config, from, &remote],
            vec!["-F", &config, &remote, back],
        ),
        (
            "scp",
            vec!["-O", "-F", &config, from, &remote],
            vec!["-O", "-F", &config, &remote, back],
        ),
        (
            "rsync",
            vec!["-e", &shell, from, &remote],
            vec!["-e", &shell, &remote, back],
        ),
    ] {
        std::fs::remove_file(there).ok();
        std::fs::remove_file(back).ok();
        run(program, &there_args, b"").await.exits(0);
        run(program, &back_args, b"").await.exits(0);
        assert_eq!(std::fs::read(back).unwrap(), bytes, "{program}");
    }
    let batch = format!("put {from} {there}.2\nrename {there}.2 {there}.3\nget {there}.3 {back}\n");
    run("sftp", &["-F", &config, "-b", "-", "db1"], batch.as_bytes())
        .await
        .exits(0);
    let out = run(
        "ssh",
        &["-F", &config, "-tt", "db1", "tty && stty size"],
        b"",
    )
    .await
    .exits(0);
    assert!(out.text().contains("/dev/pts/"), "{out:?}");
    let out = run(
        "ssh",
        &["-F", &config, "db1"],
        b"echo from-a-shell\nexit 4\n",
    )
    .await
    .exits(4);
    assert!(out.text().contains("from-a-shell"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_shared_on_either_layer() {
    let w = World::new().await;
    let d = w.dir.path().display().to_string();
    let extra = format!(
        "Host db1\n ProxyJump gw\nHost gw db1\n ControlMaster auto\n ControlPath {d}/ctl-%n\n ControlPersist 60"
    );
    let config = config(&w, &extra);
    let jobs = (0..6).map(|n| {
        let config = config.clone();
        tokio::spawn(async move {
            let command = format!("echo {n}; sleep 0.2; exit {n}");
            run("ssh", &["-F", &config, "db1", &command], b"")
                .await
                .exits(n)
        })
    });
    run("ssh", &["-F", &config, "db1", "true"], b"")
        .await
        .exits(0);
    for (n, job) in jobs.enumerate() {
        assert_eq!(job.await.unwrap().text(), format!("{n}\n"));
    }
    until("seven ends", || (w.outcomes().len() == 7).then_some(())).await;
    assert_eq!(opens(&w).len(), 1, "one connection is one session");
    for name in ["db1", "gw"] {
        run("ssh", &["-F", &config, "-O", "exit", name], b"").await;
    }
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registered_port_may_be_named_and_no_other() {
    let w = World::new().await;
    let config = config(&w, "");
    let own = w.sshd_port.to_string();
    run(
        "ssh",
        &["-F", &config, "-J", "gw", "-p", &own, "db1", "true"],
        b"",
    )
    .await
    .exits(0);
    run(
        "ssh",
        &["-F", &config, "-J", "gw", "-p", "23", "db1", "true"],
        b"",
    )
    .await
    .exits(255);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_registered_target_is_jumped_to() {
    let w = World::new().await;
    let config = config(&w, "");
    let gate = w.port.to_string();
    let sshd = w.sshd_port.to_string();
    let places = [
        ("127.0.0.1", gate.as_str()),
        ("127.0.0.1", &sshd),
        ("localhost", &sshd),
        ("::1", &sshd),
        ("::ffff:127.0.0.1", &sshd),
        ("0", &sshd),
        ("0177.0.0.1", &sshd),
        ("169.254.169.254", "80"),
        ("db2", "22"),
        ("db1.", "22"),
        ("db1", &gate),
    ];
    for (host, port) in places {
        let to = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let out = run("ssh", &["-F", &config, "-W", &to, "gw"], b"x").await;
        assert!(
            out.stdout.is_empty() && out.code != Some(0),
            "{to}: {out:?}"
        );
        out.says("no target is called");
    }
    let refused = || (w.refusals().len() == places.len()).then_some(());
    until("refusals", refused).await;
    assert!(opens(&w).is_empty() && w.sshd_log().matches("Connection from").count() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outer_login_does_nothing_but_jump() {
    let w = World::new().await;
    let config = config(&w, "");
    let out = run("ssh", &["-F", &config, "gw", "id"], b"")
        .await
        .exits(254);
    assert!(out.says("ssh -J").stdout.is_empty());
    run("ssh", &["-F", &config, "gw"], b"id\n").await.exits(254);
    for (option, spec) in [("-R", "0:127.0.0.1:1"), ("-R", "/nowhere/x:127.0.0.1:1")] {
        let strict = "ExitOnForwardFailure=yes";
        let out = run(
            "ssh",
            &["-F", &config, "-N", "-o", strict, option, spec, "gw"],
            b"",
        )
        .await;
        assert_eq!(out.code, Some(255), "{out:?}");
    }
    assert!(opens(&w).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inner_login_is_the_outer_persons_with_the_outer_key() {
    let w = World::new().await;
    // Another key of the same person, and another person's.
    let second = keygen(&w.path("second"));
    w.people.key_add(&w.door.ledger, &second).await;
    for key in ["second", "admin", "stranger"] {
        let inner = format!(
            "Host db1\n ProxyJump gw\n IdentityFile {}\n",
            w.path(key).display()
        );
        let outer = configure(&w, "host_ca", "client");
        // The jump host's own block comes first, so each hop has one key.
        let text = format!("{inner}{}", outer.replace("Host *\n", "Host gw\n"));
        let common = format!(
            "Host *\n IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n UserKnownHostsFile {}\n \
             StrictHostKeyChecking yes\n User {}\n",
            w.path("known_hosts").display(),
            w.account
        );
        let path = w.path("two_keys");
        std::fs::write(&path, format!("{text}{common}")).unwrap();
        let out = run("ssh", &["-F", path.to_str().unwrap(), "db1", "true"], b"").await;
        assert!(out.exits(255).stderr.contains("Permission denied"), "{key}");
    }
    assert!(opens(&w).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_another_ca_refuses_the_name() {
    let w = World::new().await;
    let text = configure(&w, "ca", "client");
    let path = w.path("ssh_config");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let out = run("ssh", &["-F", path, "-J", "gw", "db1", "true"], b"")
        .await
        .exits(255);
    out.says("Host key verification failed");
    assert!(opens(&w).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_outlives_the_renewal_of_keys() {
    let w = World::new().await;
    let config = config(&w, "");
    let limit = "RekeyLimit=256K";
    let out = run(
        "ssh",
        &[
            "-F",
            &config,
            "-o",
            limit,
            "-J",
            "gw",
            "db1",
            "head -c 5000000 /dev/zero",
        ],
        b"",
    )
    .await;
    assert_eq!(out.exits(0).stdout.len(), 5_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_outer_connection_or_of_the_gateway_ends_the_inner_session() {
    let mut w = World::new().await;
    let d = w.dir.path().display().to_string();
    let extra = format!("Host db1\n ProxyCommand ssh -F {d}/ssh_config -W %h:%p gw");
    let config = config(&w, &extra);
    let start = || {
        Command::new("ssh")
            .args(["-F", &config, "db1", "echo up; sleep 30"])
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut client = start();
    let acted = |n: usize| {
        let intents = w.found(|body| matches!(body, Body::Intent(_)).then_some(()));
        (intents.len() == n).then_some(())
    };
    until("action", || acted(1)).await;
    client.kill().await.unwrap();
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
    let client = start();
    until("action", || acted(2)).await;
    w.stop().await;
    drop(client);
    assert_eq!(w.closed(1).await.reason, CloseReason::Interrupted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outer_connection_is_not_idle_while_an_inner_one_works() {
    let w = World::with(Setup {
        idle: std::time::Duration::from_secs(3),
        ..Setup::default()
    })
    .await;
    let config = config(&w, "");
    let busy = "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done";
    let out = run("ssh", &["-F", &config, "-J", "gw", "db1", busy], b"").await;
    assert_eq!(out.exits(0).text().lines().count(), 6);
    until("end", || {
        w.outcomes()
            .first()
            .filter(|o| o.status == Status::Succeeded)
            .map(|_| ())
    })
    .await;
}
