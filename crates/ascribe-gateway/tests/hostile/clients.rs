//! Clients: keys renewed all the time, half-closed streams, haste, channels without end.

use ascribe_core::entry::{Body, CloseReason, Status};
use russh::ChannelMsg;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::door::Stops;
use super::raw::{leave, raw, rest};
use super::world::{PATIENCE, Setup, World, until};

fn bytes(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_renewed_every_64_kib_by_both_sides_lose_nothing() {
    let w = World::with(Setup {
        sshd: "RekeyLimit 64K".to_owned(),
        ..Setup::default()
    })
    .await;
    let bytes = bytes(2_000_000);
    let renewed = ["-v", "-o", "RekeyLimit=64K"];
    let out = w.ssh(&renewed, "cat; exit 3", &bytes).await.exits(3);
    assert!(out.stdout == bytes, "{} bytes", out.stdout.len());
    let renewals = out.stderr.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(renewals > 20, "{renewals} renewals");
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
    assert_eq!(w.outcomes()[0].exit_code, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_half_closed_go_on_in_the_other_direction() {
    let w = World::new().await;
    let bytes = bytes(3_000_000);
    let file = w.path("kept");
    // The target has nothing more to say, and still reads.
    let command = format!("exec >&- 2>&-; cat >{}; exit 4", file.display());
    w.ssh(&[], &command, &bytes).await.exits(4);
    assert!(std::fs::read(&file).unwrap() == bytes);
    // The client has nothing more to say, and still reads.
    let out = w.ssh(
        &[],
        "cat >/dev/null; head -c 3000000 /dev/zero; exit 5",
        b"",
    );
    assert_eq!(out.await.exits(5).stdout.len(), 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_comes_before_the_decision_waits_for_it() {
    const INTENTS: Stops = |body| matches!(body, Body::Intent(_));
    let w = World::new().await;
    let marker = w.path("marker");
    w.door.close(INTENTS);
    let handle = raw(&w).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    // All at once, without waiting for any answer.
    let command = format!("tee {}; exit 6", marker.display());
    channel.exec(true, command).await.unwrap();
    let bytes = bytes(1_000_000);
    channel.data(&bytes[..]).await.unwrap();
    channel.eof().await.unwrap();
    until("intent that waits", || {
        (!w.door.waiting().is_empty()).then_some(())
    })
    .await;
    assert!(!marker.exists());
    w.door.open();
    let (code, out) = rest(&mut channel).await;
    assert_eq!((code, out == bytes), (Some(6), true));
    assert!(!w.door.ran_early() && std::fs::read(&marker).unwrap() == bytes);
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 1);
    let outcome = w.outcomes().remove(0);
    assert_eq!(outcome.status, Status::Failed);
    assert_eq!(outcome.streams[0].bytes, 1_000_000);
}

/// A client whose input has ended closes the channel when it reads the end of file.
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_comes_before_the_end_of_file_and_the_close_is_last() {
    let w = World::new().await;
    let handle = raw(&w).await;
    for command in ["exit 3", "exec >&- 2>&-; sleep 0.2; exit 3"] {
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(false, command).await.unwrap();
        channel.eof().await.unwrap();
        let mut order = Vec::new();
        while let Some(message) = tokio::time::timeout(PATIENCE, channel.wait())
            .await
            .unwrap()
        {
            match message {
                ChannelMsg::ExitStatus { exit_status } => order.push(exit_status.to_string()),
                ChannelMsg::Eof => order.push("end of file".to_owned()),
                ChannelMsg::Close => order.push("close".to_owned()),
                _ => {}
            }
        }
        assert_eq!(order, ["3", "end of file", "close"], "{command}");
    }
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_before_any_request_and_after_a_close_goes_nowhere() {
    let w = World::new().await;
    let handle = raw(&w).await;
    let mut early = handle.channel_open_session().await.unwrap();
    early.data(&b"rm -rf /nowhere\n"[..]).await.unwrap();
    early.exec(true, "cat; exit 7").await.unwrap();
    early.data(&b"heard\n"[..]).await.unwrap();
    early.eof().await.unwrap();
    assert_eq!(rest(&mut early).await, (Some(7), b"heard\n".to_vec()));
    let id = early.id();
    for _ in 0..100 {
        // The channel is gone; what still names it is nobody's.
        handle.data(id, &b"late"[..]).await.ok();
    }
    let mut next = handle.channel_open_session().await.unwrap();
    next.exec(true, "exit 8").await.unwrap();
    assert_eq!(rest(&mut next).await.0, Some(8));
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 2);
}

/// `ASCRIBE_LONG=1` goes to the limit of one connection's life.
#[tokio::test(flavor = "multi_thread")]
async fn channels_that_come_and_go_without_end_come_to_their_limit() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let count = if long { 10_000 } else { 1000 };
    let w = World::new().await;
    let handle = raw(&w).await;
    for nth in 0..count {
        let mut channel = handle.channel_open_session().await.unwrap();
        if nth % 500 == 0 {
            channel.exec(true, "exit 9").await.unwrap();
            assert_eq!(rest(&mut channel).await.0, Some(9));
        } else {
            channel.close().await.unwrap();
        }
    }
    let more = handle.channel_open_session().await;
    assert_eq!(more.is_err(), long, "{count} channels");
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, count / 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_talks_before_the_version_is_cut_off() {
    let w = World::with(Setup {
        pre_auth: PATIENCE * 10,
        ..Setup::default()
    })
    .await;
    for line in [&b"hello\r\n"[..], b"x"] {
        let mut socket = TcpStream::connect(("127.0.0.1", w.port)).await.unwrap();
        let flood = line.repeat(4096 / line.len());
        // The write fails once the gateway has had enough.
        let flooding = async { while socket.write_all(&flood).await.is_ok() {} };
        let flooded = tokio::time::timeout(PATIENCE, flooding).await;
        flooded.expect("the gateway takes any number of bytes");
    }
    w.ssh(&[], "exit 3", b"").await.exits(3);
}
