//! What arrives at the port: from strangers, and from who has logged in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use ascribe_core::encoding::from_base64url;
use russh::client::Config;
use russh::{ChannelMsg, ChannelOpenFailure, Error};
use rustix::process::Pid;

use super::client::{log_in, run};
use super::kit::{Marks, demo_port, server_pid, text};
use super::world::{PATIENCE, World};

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

/// A packet before there are keys.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8 + 4;
    let padding = if padding >= 12 { padding - 8 } else { padding };
    let len = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut out = len.to_be_bytes().to_vec();
    out.push(u8::try_from(padding).unwrap());
    out.extend_from_slice(payload);
    out.resize(out.len() + padding, 0);
    out
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

/// A client's first packet, with these methods of exchanging keys.
fn kexinit(methods: &str) -> Vec<u8> {
    let mut out = vec![20];
    out.extend_from_slice(&[7; 16]);
    let cipher = "aes256-gcm@openssh.com";
    for list in [
        methods,
        "ssh-ed25519",
        cipher,
        cipher,
        "",
        "",
        "none",
        "none",
        "",
        "",
    ] {
        out.extend_from_slice(&string(list.as_bytes()));
    }
    out.extend_from_slice(&[0; 5]);
    packet(&out)
}

const VERSION: &[u8] = b"SSH-2.0-stranger\r\n";

fn stranger(world: &World) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", demo_port(world))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends it, and reads what comes until the server hangs up. Fails when it does not.
fn until_hung_up(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut socket = stranger(world);
    // It may hang up before it has heard all of it.
    socket.write_all(bytes).unwrap_or_default();
    let mut heard = Vec::new();
    match socket.read_to_end(&mut heard) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
    }
    heard
}

/// Packets of a server before there are keys: their payloads.
fn packets(heard: &[u8]) -> Vec<Vec<u8>> {
    let end = heard.iter().position(|b| *b == b'\n').unwrap();
    let (_, mut left) = heard.split_at(end + 1);
    let mut found = Vec::new();
    while let Some((len, rest)) = left.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let Some((body, rest)) = rest.split_at_checked(len) else {
            break;
        };
        let padding = usize::from(body[0]);
        found.push(body[1..len - padding].to_vec());
        left = rest;
    }
    found
}

#[test]
fn malformed_and_oversized_packets_before_login_end_the_connection_alone() {
    let mut world = World::new();
    let kex = kexinit("curve25519-sha256");
    let then = |rest: &[u8]| [VERSION, kex.as_slice(), rest].concat();
    let mut wrong_padding = kex.clone();
    wrong_padding[4] = 255;
    let mut short_list = kex.clone();
    short_list[22..26].copy_from_slice(&u32::MAX.to_be_bytes());
    for (what, bytes) in [
        ("no version", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an old version", b"SSH-1.5-stranger\r\n".to_vec()),
        (
            "a version without end",
            [b"SSH-2.0-".to_vec(), vec![b'x'; 70_000]].concat(),
        ),
        ("zeroes", vec![0; 4096]),
        ("a packet of length 0", [VERSION, &[0; 64]].concat()),
        ("a packet of length 2^32-1", [VERSION, &[0xff; 64]].concat()),
        (
            "padding larger than its packet",
            [VERSION, &wrong_padding].concat(),
        ),
        (
            "a list longer than its packet",
            [VERSION, &short_list].concat(),
        ),
        (
            "nothing in common",
            [VERSION, &kexinit("none-such")].concat(),
        ),
        ("an empty packet", then(&packet(&[]))),
        ("a second first packet", then(&kex)),
        (
            "a key that is no point",
            then(&packet(&[vec![30], string(&[1; 5])].concat())),
        ),
        (
            "a login before keys",
            then(&packet(&[vec![50], string(b"root@demo-host")].concat())),
        ),
        (
            "a channel before login",
            then(&packet(&[vec![90], string(b"session")].concat())),
        ),
        ("new keys out of nowhere", then(&packet(&[21]))),
        (
            "more than anybody needs",
            then(&packet(&[2; 30_000]).repeat(40)),
        ),
    ] {
        let heard = until_hung_up(&world, &bytes);
        assert!(heard.len() < 8192, "{what}: {} bytes", heard.len());
        world.ssh(&world.place(), "true").exits(0);
    }
    let sessions = world.json(&["sessions", "--all"]).lines();
    assert_eq!(sessions.len(), 16, "a stranger has a session");
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

/// The attack of CVE-2023-48795 begins with a packet slipped in before there are keys.
#[test]
fn a_packet_slipped_in_before_the_keys_ends_a_strict_exchange() {
    let world = World::new();
    let strict = "curve25519-sha256,kex-strict-c-v00@openssh.com";
    let ignore = packet(&[vec![2], string(b"")].concat());
    // The base point: as good a public key as any.
    let mut point = [0; 32];
    point[0] = 9;
    let ask = packet(&[vec![30], string(&point)].concat());
    let answered = |first: &[u8], methods: &str, second: &[u8]| {
        let mut bytes = [VERSION, first, &kexinit(methods), second, &ask].concat();
        // What ends the connection when nothing else does.
        bytes.extend_from_slice(&[0xff; 64]);
        let heard = packets(&until_hung_up(&world, &bytes));
        let offer = String::from_utf8_lossy(&heard[0]).into_owned();
        assert!(offer.contains("kex-strict-s-v00@openssh.com"), "{offer}");
        heard.iter().any(|payload| payload.first() == Some(&31))
    };
    assert!(answered(&[], strict, &[]), "a strict exchange works");
    assert!(
        !answered(&[], strict, &ignore),
        "slipped in after the first packet"
    );
    assert!(
        !answered(&ignore, strict, &[]),
        "slipped in before the first packet"
    );
    // Without the word of a strict client it may stand there: the refusals above are about that.
    assert!(answered(&[], "curve25519-sha256", &ignore));
}

/// Most memory that the process ever had, in KiB.
fn peak(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let (number, _) = line.unwrap().trim().split_once(' ').unwrap();
    number.parse().unwrap()
}

#[test]
fn ten_thousand_channels_are_bounded_refused_by_name_and_cost_no_memory() {
    let mut world = World::new();
    world.ssh(&world.place(), "true").exits(0);
    let before = peak(server_pid(&world));
    run(async {
        let port = demo_port(&world);
        let ssh = log_in(&world, port, &world.place(), Config::default()).await;
        let ssh = ssh.unwrap();
        let mut kept = Vec::new();
        let refused = loop {
            match ssh.channel_open_session().await {
                Ok(channel) => kept.push(channel),
                Err(error) => break error,
            }
            assert!(kept.len() < 1000, "there is no limit");
        };
        let shortage = |error: &Error| {
            matches!(
                error,
                Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage)
            )
        };
        assert!(shortage(&refused), "{refused}");
        let most = kept.len();
        // Others are served meanwhile.
        world.ssh(&world.place(), "true").exits(0);
        for channel in kept {
            channel.close().await.unwrap();
        }
        let (mut opened, mut tries) = (most, most + 1);
        let last = loop {
            tries += 1;
            match ssh.channel_open_session().await {
                Ok(channel) => {
                    channel.close().await.unwrap();
                    opened += 1;
                }
                Err(error) if tries > 10_000 => break error,
                // The server has not forgotten the closed ones yet.
                Err(error) => assert!(shortage(&error), "{error}"),
            }
            assert!(tries < 11_000, "there is no limit");
        };
        assert!(shortage(&last), "{last}");
        assert!(opened > 9000, "{opened} channels");
        // None of them said what it is for, so there is no session and no action.
        let sessions = world.json(&["sessions", "--all"]).lines();
        assert_eq!(sessions.len(), 2, "{sessions:?}");
        let channel = log_in(&world, port, &world.place(), Config::default()).await;
        let mut channel = channel.unwrap().channel_open_session().await.unwrap();
        channel.exec(true, "echo served").await.unwrap();
        let mut said = Vec::new();
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                said.extend_from_slice(&data);
            }
        }
        assert_eq!(said, b"served\n");
    });
    let grown = peak(server_pid(&world)).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more than before");
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn requests_larger_than_anybody_needs_are_refused_and_run_nothing() {
    let mut world = World::new();
    let mark = world.path("mark");
    let touch = format!("touch '{}'", mark.display());
    let port = demo_port(&world);
    // A command that fits is recorded whole, and runs.
    let fits = format!(": {}", "x".repeat(20_000));
    world.ssh(&world.place(), &fits).exits(0);
    let recorded = world.actions(&[]);
    let exact = from_base64url(text(&recorded[0], "/what/command_b64")).unwrap();
    assert!(exact == fits.as_bytes(), "{} bytes", exact.len());
    run(async {
        for size in [70_000, 200_000, 300_000] {
            let ssh = log_in(&world, port, &world.place(), Config::default()).await;
            let ssh = ssh.unwrap();
            let mut channel = ssh.channel_open_session().await.unwrap();
            let end = format!("this is {size}");
            let command = format!("{touch}; : {} {end}", "x".repeat(size));
            channel
                .exec(true, command.as_bytes())
                .await
                .unwrap_or_default();
            let mut ended = false;
            let mut said = String::new();
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::ExitStatus { exit_status } => ended = exit_status == 0,
                    ChannelMsg::ExtendedData { data, .. } => {
                        said.push_str(&String::from_utf8_lossy(&data));
                    }
                    _ => {}
                }
            }
            let ran = mark.exists();
            assert_eq!(ended, ran, "{size}: {said}");
            // Whatever was sent to the target is recorded, whole, and found by its end.
            let shown = world.actions(&["--text", &end]);
            assert!(shown.len() == 1 || !ran, "{size}: {said}");
            assert!(
                shown.len() == 1 || said.contains("ascribe: ") || ssh.is_closed(),
                "{size}: {said}"
            );
            std::fs::remove_file(&mark).unwrap_or_default();
        }
        let ssh = log_in(&world, port, &world.place(), Config::default()).await;
        let ssh = ssh.unwrap();
        let mut channel = ssh.channel_open_session().await.unwrap();
        let long = "x".repeat(30_000);
        for (name, value) in [
            ("A", long.as_str()),
            (long.as_str(), "a"),
            ("A\nB", "c"),
            ("A", "\0"),
        ] {
            channel.set_env(true, name, value).await.unwrap();
            let answer = wait_answer(&mut channel).await;
            assert!(matches!(answer, ChannelMsg::Failure), "{answer:?}");
        }
        for term in [long.as_str(), "x\u{1b}[2J", "x\ny"] {
            channel
                .request_pty(true, term, 80, 24, 0, 0, &[])
                .await
                .unwrap();
            let answer = wait_answer(&mut channel).await;
            assert!(matches!(answer, ChannelMsg::Failure), "{answer:?}");
        }
        channel.request_subsystem(true, "no-such").await.unwrap();
        let answer = wait_answer(&mut channel).await;
        assert!(matches!(answer, ChannelMsg::Failure), "{answer:?}");
    });
    world.ssh(&world.place(), "true").exits(0);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

async fn wait_answer(channel: &mut russh::Channel<russh::client::Msg>) -> ChannelMsg {
    loop {
        let message = channel.wait().await.expect("the channel ended");
        if matches!(message, ChannelMsg::Success | ChannelMsg::Failure) {
            return message;
        }
    }
}

/// One channel, one action: what else is asked on it, before or after, goes nowhere.
#[test]
fn what_a_client_asks_beside_its_one_action_runs_nothing() {
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    let port = demo_port(&world);
    let second = marks.command("second");
    run(async {
        let place = world.place();
        let ssh = log_in(&world, port, &place, Config::default()).await;
        let ssh = ssh.unwrap();
        let mut channel = ssh.channel_open_session().await.unwrap();
        channel.signal(russh::Sig::KILL).await.unwrap();
        channel.window_change(1, 1, 1, 1).await.unwrap();
        channel.data(second.as_bytes()).await.unwrap();
        channel
            .exec(true, "read line; echo \"$line\"; sleep 1")
            .await
            .unwrap();
        channel.exec(true, second.as_bytes()).await.unwrap();
        channel.request_shell(true).await.unwrap();
        channel.request_subsystem(true, "sftp").await.unwrap();
        channel.data(&b"input\n"[..]).await.unwrap();
        let (mut status, mut said) = (None, Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                ChannelMsg::Data { data } => said.extend_from_slice(&data),
                _ => {}
            }
        }
        let said = String::from_utf8(said).unwrap();
        assert_eq!((status, said.as_str()), (Some(0), "input\n"));
    });
    assert!(!marks.has("second"));
    assert_eq!(world.actions(&[]).len(), 1);
    world.stop();
    marks.verify(&world);
}
