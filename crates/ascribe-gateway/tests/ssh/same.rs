//! What passes through is what would pass without us.

use ascribe_core::entry::{Body, CloseReason, Status};

use super::world::{PATIENCE, Setup, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_after_its_intent_is_durable_and_its_end_is_recorded() {
    let w = World::new().await;
    let marker = w.path("marker");
    let command = format!("echo hi; echo no >&2; touch {}; exit 3", marker.display());
    let out = w.ssh(&[], &command, b"").await.exits(3).says("no\n");
    assert_eq!(out.text(), "hi\n");
    assert!(marker.exists() && !w.door.ran_early());
    std::fs::remove_file(&marker).unwrap();
    let bytes: Vec<u8> = (0..1_048_576u32).map(|i| (i * 31 % 251) as u8).collect();
    let out = w.ssh(&[], "cat", &bytes).await.exits(0);
    assert!(out.stdout == bytes, "{} bytes", out.stdout.len());
    for nth in [0, 1] {
        assert_eq!(w.closed(nth).await.reason, CloseReason::Disconnected);
    }
    let ends: Vec<_> = w
        .outcomes()
        .iter()
        .map(|o| (o.status, o.exit_code))
        .collect();
    assert_eq!(
        ends,
        [(Status::Failed, Some(3)), (Status::Succeeded, Some(0))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_a_terminal() {
    let w = World::new().await;
    let out = w.ssh(&["-tt"], "tty; exit 4", b"").await.exits(4);
    assert!(out.text().contains("/dev/pts"), "{}", out.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_whole_by_sftp_and_by_scp_and_each_is_an_action() {
    let w = World::new().await;
    let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 253) as u8).collect();
    std::fs::write(w.path("a"), &bytes).unwrap();
    for protocol in ["-s", "-O"] {
        for up in [true, false] {
            let remote = format!(
                "scp://{}%40db1@127.0.0.1:{}/{}",
                w.account,
                w.port,
                w.path("b").display()
            );
            let (from, to) = if up {
                (w.path("a").display().to_string(), remote)
            } else {
                (remote, w.path("c").display().to_string())
            };
            let run = tokio::process::Command::new("scp")
                .args(["-q", protocol])
                .args(w.options("client"))
                .args([from, to])
                .output();
            let out = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{protocol} {up} {said}");
        }
        assert!(std::fs::read(w.path("c")).unwrap() == bytes);
        std::fs::remove_file(w.path("b")).unwrap();
        std::fs::remove_file(w.path("c")).unwrap();
    }
    let kinds = w.found(|body| match body {
        Body::Intent(intent) => Some(intent.kind),
        _ => None,
    });
    assert_eq!(
        kinds,
        [
            "ssh.sftp",
            "sftp.open",
            "sftp.fsetstat",
            "ssh.sftp",
            "sftp.open",
            "ssh.scp",
            "scp.write",
            "ssh.scp",
            "scp.read"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_works_both_ways_and_each_is_an_action() {
    use std::io::Write as _;
    if tokio::process::Command::new("rsync")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        // Past the capture of a passing test's output.
        let mut loud = std::io::stderr().lock();
        writeln!(
            loud,
            "SKIPPED: rsync through the gateway, because rsync is not installed"
        )
        .unwrap();
        return;
    }
    let w = World::new().await;
    let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 253) as u8).collect();
    std::fs::write(w.path("a"), &bytes).unwrap();
    let ssh = format!("ssh -p {} {}", w.port, w.options("client").join(" "));
    let remote = format!("{}:{}", w.login(), w.path("b").display());
    let [a, c] = [w.path("a"), w.path("c")].map(|path| path.display().to_string());
    for (from, to) in [(&a, &remote), (&remote, &c)] {
        let run = tokio::process::Command::new("rsync")
            .args(["-e", &ssh, from, to])
            .output();
        let out = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{from} {to} {said}");
    }
    assert!(std::fs::read(w.path("c")).unwrap() == bytes);
    let kinds = w.found(|body| match body {
        Body::Intent(intent) => Some(intent.kind),
        _ => None,
    });
    assert_eq!(kinds, ["ssh.rsync", "ssh.rsync"]);
}

/// What stock `ssh` sees is the same with and without the gateway, apart from our own notices.
async fn same_as_direct(w: &World) {
    let script: &[u8] = b"echo one\ncat >/dev/null <<X\nline\nX\necho two >&2\nexit 9\n";
    let cases: [(&[&str], &str, &[u8]); 10] = [
        (&[], "true", b""),
        (&[], "exit 255", b""),
        (&[], "printf 'a\\0b\\377'", b""),
        (&[], "kill -TERM $$", b""),
        (&[], "kill -KILL $$", b""),
        (&["-o", "SetEnv=FOO=bar"], "printf %s $FOO", b""),
        (&[], "wc -c", b"12345"),
        (&[], "head -c 3000000 /dev/zero; echo end >&2", b""),
        (&["-T"], "", script),
        (&[], "exec 0<&-; echo closed", b"unread"),
    ];
    for (extra, command, input) in cases {
        let direct = w.direct(extra, command, input).await;
        let ours = w.ssh(extra, command, input).await;
        assert_eq!(ours.code, direct.code, "{command}: {ours:?} / {direct:?}");
        assert!(
            ours.stdout == direct.stdout,
            "{command}: {} and {} bytes",
            ours.stdout.len(),
            direct.stdout.len()
        );
        let own = |text: &str| {
            let notice = |l: &&str| {
                !l.starts_with("This system is") && !l.starts_with("Warning: Permanently")
            };
            text.lines()
                .filter(notice)
                .map(|l| l.trim_end().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(own(&ours.stderr), own(&direct.stderr), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_exit_codes_are_those_of_the_server_itself() {
    same_as_direct(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_exit_codes_are_the_same_with_a_key_that_the_target_knows() {
    let w = World::with(Setup {
        upstream_key: true,
        ..Setup::default()
    });
    let w = w.await;
    same_as_direct(&w).await;
    let log = w.sshd_log();
    assert!(!log.contains("-CERT"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_share_a_connection_and_a_session() {
    let w = World::new().await;
    let path = format!("ControlPath={}", w.path("mux").display());
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=5",
        "-o",
        path.as_str(),
    ];
    for n in 0..4u8 {
        let out = w.ssh(&master, &format!("echo {n}"), b"").await.exits(0);
        assert_eq!(out.text(), format!("{n}\n"));
    }
    let both = tokio::join!(
        w.ssh(&master, "sleep 1; echo a", b""),
        w.ssh(&master, "echo b", b"")
    );
    assert_eq!((both.0.text(), both.1.text()), ("a\n".into(), "b\n".into()));
    w.ssh(&["-o", &path, "-O", "exit"], "", b"").await;
    let close = w.closed(0).await;
    assert_eq!(close.actions, 6);
    let opens = w.found(|body| matches!(body, Body::SessionOpen(_)).then_some(()));
    assert_eq!(opens.len(), 1);
}
