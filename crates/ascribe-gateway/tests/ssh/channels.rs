//! Channels under strain: sizes that change, keys that are renewed, ends without warning.

use ascribe_core::entry::{Body, CloseReason, Status};
use russh::{ChannelMsg, ChannelOpenFailure};

use super::raw::{answer, leave, raw, rest};
use super::world::{PATIENCE, Setup, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_window_size_reaches_the_target() {
    let w = World::new().await;
    let handle = raw(&w).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel
        .request_pty(true, "xterm", 80, 24, 0, 0, &[])
        .await
        .unwrap();
    assert!(answer(&mut channel).await);
    let command = "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done";
    channel.exec(true, command).await.unwrap();
    assert!(answer(&mut channel).await);
    let first = async {
        loop {
            let message = channel.wait().await.expect("the channel ended");
            if let ChannelMsg::Data { data } = message {
                return data.to_vec();
            }
        }
    };
    let first = tokio::time::timeout(PATIENCE, first).await.unwrap();
    assert_eq!(first, b"24 80\r\n");
    channel.window_change(100, 50, 0, 0).await.unwrap();
    assert_eq!(rest(&mut channel).await, (Some(3), b"50 100\r\n".to_vec()));
    leave(&handle).await;
    w.closed(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_renewed_on_both_sides_while_bytes_flow() {
    let w = World::with(Setup {
        sshd: "RekeyLimit 1M".to_owned(),
        ..Setup::default()
    })
    .await;
    let bytes: Vec<u8> = (0..6_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let out = w
        .ssh(&["-o", "RekeyLimit=1M"], "cat", &bytes)
        .await
        .exits(0);
    assert!(out.stdout == bytes, "{} bytes", out.stdout.len());
    let close = w.closed(0).await;
    assert_eq!(close.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_breaks_off_ends_the_session_with_that_reason() {
    let w = World::new().await;
    let out = w
        .ssh(
            &[],
            "echo going; sleep 1; kill -9 $PPID; exec sleep 60",
            b"",
        )
        .await;
    let out = out.exits(255).says("the target broke off");
    assert_eq!(out.text(), "going\n");
    assert_eq!(w.closed(0).await.reason, CloseReason::TargetFailed);
    assert_eq!(w.outcomes()[0].status, Status::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_leaves_an_unknown_outcome_and_an_end() {
    let w = World::new().await;
    let client = w.start(&[], "echo running; exec sleep 60");
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    // Dropped, it is killed.
    drop(client);
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
    assert_eq!(w.outcomes()[0].status, Status::Unknown);
}

/// A stock client of a stock server makes another connection then.
#[tokio::test(flavor = "multi_thread")]
async fn more_commands_run_at_once_than_the_target_has_channels_in_a_login() {
    let w = World::with(Setup {
        sshd: "MaxSessions 3".to_owned(),
        ..Setup::default()
    })
    .await;
    let handle = raw(&w).await;
    for round in 0..3 {
        let mut open = Vec::new();
        for _ in 0..8 {
            let channel = handle.channel_open_session().await.unwrap();
            channel.exec(true, "cat; exit 3").await.unwrap();
            open.push(channel);
        }
        for channel in &mut open {
            channel.data(&b"heard"[..]).await.unwrap();
            channel.eof().await.unwrap();
            assert_eq!(rest(channel).await, (Some(3), b"heard".to_vec()), "{round}");
        }
    }
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 24);
    // A login that has room again is used again.
    let logins = w.sshd_log().matches("Accepted certificate").count();
    let logins = logins.max(w.sshd_log().matches("Accepted publickey").count());
    assert!((3..=8).contains(&logins), "{logins} logins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_limited_number_of_channels_at_once() {
    let w = World::new().await;
    let handle = raw(&w).await;
    let mut open = Vec::new();
    let refused = loop {
        match handle.channel_open_session().await {
            Ok(channel) => open.push(channel),
            Err(error) => break error,
        }
        assert!(open.len() <= 300, "no limit");
    };
    assert!(open.len() >= 256, "{} channels: {refused}", open.len());
    let russh::Error::ChannelOpenFailure(refused) = refused else {
        panic!("{refused}")
    };
    assert_eq!(refused, ChannelOpenFailure::ResourceShortage);
    // Those that are open go on.
    let mut last = open.pop().unwrap();
    last.exec(true, "echo good").await.unwrap();
    assert!(answer(&mut last).await);
    assert_eq!(rest(&mut last).await, (Some(0), b"good\n".to_vec()));
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 1);
    let limits = w.found(|body| match body {
        Body::Refusal(refusal) if refusal.code == "too-many" => Some(refusal.what),
        _ => None,
    });
    assert_eq!(limits, ["channel"]);
}
