//! What is refused, what the client is told, and that the refusal is recorded.

use ascribe_core::entry::Body;

use super::people::ADMIN;
use super::raw::{answer, leave, raw, rest};
use super::world::{Setup, World, fed, free_port, ticket};

fn forwarding(w: &World) -> Vec<String> {
    let refusals = w.refusals().into_iter();
    refusals
        .filter(|(what, code, _)| (what.as_str(), code.as_str()) == ("forwarding", "not-allowed"))
        .map(|(_, _, detail)| detail)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_forwarding_is_refused_and_recorded() {
    let w = World::new().await;
    let port = free_port().to_string();
    let local = format!("{port}:127.0.0.1:{}", w.sshd_port);
    // The connections are made by the command itself, so the forwards are really tried.
    let probe = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; head -c 4 <&3'; true");
    for local in [local, format!("{port}:/nowhere/t")] {
        let out = w.ssh(&["-L", &local], &probe, b"").await;
        assert!(
            !out.stdout.starts_with(b"SSH-"),
            "the forward carried bytes"
        );
    }
    w.ssh(&["-R", "0:127.0.0.1:1"], "true", b"").await;
    w.ssh(&["-R", "/nowhere/s:127.0.0.1:1"], "true", b"").await;
    w.ssh(&["-W", "127.0.0.1:1"], "", b"").await;
    let handle = raw(&w).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.agent_forward(false).await.unwrap();
    channel
        .request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0)
        .await
        .unwrap();
    assert!(!answer(&mut channel).await);
    leave(&handle).await;
    let mut expected = vec![
        "auth-agent-req@openssh.com".to_owned(),
        "x11-req".to_owned(),
        format!("direct-tcpip 127.0.0.1:{}", w.sshd_port),
        "direct-tcpip 127.0.0.1:1".to_owned(),
        "tcpip-forward localhost:0".to_owned(),
        "streamlocal-forward@openssh.com /nowhere/s".to_owned(),
        "direct-streamlocal@openssh.com /nowhere/t".to_owned(),
    ];
    let mut found = super::world::until("refusals", || {
        let found = forwarding(&w);
        (found.len() >= expected.len()).then_some(found)
    })
    .await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_the_client_is_told_who_approves_and_what_to_type() {
    let w = World::with(Setup {
        grant: None,
        ..Setup::default()
    })
    .await;
    let place = format!("{}@db1", w.account);
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says(&format!(
        "ascribe: no access to {place}: you hold no grant for it\r\n  ask: ascribe request {place} \
         --for 1h --why \"...\"   (can approve: {ADMIN})\r\n"
    ));
    let length = std::time::Duration::from_secs(600);
    let asked = w
        .people
        .request(&w.door.ledger, &w.account, length, ticket())
        .await;
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says(&format!(
        "ascribe: your request `{id}` waits for approval\r\n  {ADMIN} can approve it: ascribe \
         approve {id}\r\n",
        id = asked.id
    ));
    let codes: Vec<String> = super::world::until("refusals", || {
        let codes: Vec<_> = w.refusals().into_iter().map(|(_, code, _)| code).collect();
        (codes.len() == 2).then_some(codes)
    })
    .await;
    assert_eq!(codes, ["no-grant", "pending"]);
    w.people.approve(&w.door.ledger, asked).await;
    w.ssh(&[], "true", b"").await.exits(0);
    let other = w.start_at(w.port, "nobody@db1@127.0.0.1", "client", &[], "id");
    let out = fed(other, b"").await.exits(254);
    out.says(&format!("its accounts are: {}", w.account));
    assert_eq!(
        w.found(|b| matches!(b, Body::SessionOpen(_)).then_some(()))
            .len(),
        1
    );
}

/// A shared connection stays where its first command was refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_counts_in_a_connection_that_was_refused_before() {
    let w = World::with(Setup {
        grant: None,
        ..Setup::default()
    })
    .await;
    let handle = raw(&w).await;
    let run = async || {
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, "exit 3").await.unwrap();
        rest(&mut channel).await.0
    };
    assert_eq!(run().await, Some(254));
    let length = std::time::Duration::from_secs(600);
    let asked = w
        .people
        .request(&w.door.ledger, &w.account, length, ticket())
        .await;
    assert_eq!(run().await, Some(254));
    w.people.approve(&w.door.ledger, asked).await;
    assert_eq!((run().await, run().await), (Some(3), Some(3)));
    leave(&handle).await;
    // One session, with both.
    assert_eq!(w.closed(0).await.actions, 2);
    let codes = w.refusals().into_iter().map(|(_, code, _)| code);
    assert_eq!(codes.collect::<Vec<_>>(), ["no-grant", "pending"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_a_zero_byte_or_beyond_the_limit_is_refused_and_recorded() {
    let w = World::new().await;
    let handle = raw(&w).await;
    let padded = |length: usize| {
        let mut command = b"echo ran #".to_vec();
        command.resize(length, b'x');
        command
    };
    for command in [b"echo ran\0; id".to_vec(), padded(65_537)] {
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        assert!(answer(&mut channel).await, "it is heard");
        assert_eq!(rest(&mut channel).await, (Some(254), Vec::new()));
    }
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, padded(65_536)).await.unwrap();
    assert!(answer(&mut channel).await);
    assert_eq!(rest(&mut channel).await, (Some(0), b"ran\n".to_vec()));
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 1);
    let details: Vec<_> = w
        .refusals()
        .into_iter()
        .map(|(_, _, detail)| detail)
        .collect();
    assert_eq!(
        details,
        [
            "the command has a zero byte",
            "the command is longer than 64 KiB; send it as standard input of a shell"
        ]
    );
    let long = String::from_utf8(padded(70_000)).unwrap();
    let out = w.ssh(&[], &long, b"").await.exits(254);
    out.says("ascribe: the command is longer than 64 KiB; send it as standard input of a shell");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_has_one_action_and_a_second_one_is_refused_and_recorded() {
    let w = World::new().await;
    let handle = raw(&w).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "read -r x; echo $x").await.unwrap();
    assert!(answer(&mut channel).await);
    channel.exec(true, "id").await.unwrap();
    assert!(!answer(&mut channel).await);
    channel.request_shell(true).await.unwrap();
    assert!(!answer(&mut channel).await);
    channel.request_subsystem(true, "sftp").await.unwrap();
    assert!(!answer(&mut channel).await);
    channel.data(&b"first\n"[..]).await.unwrap();
    assert_eq!(rest(&mut channel).await, (Some(0), b"first\n".to_vec()));
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, 1);
    let refusals = w.refusals();
    assert_eq!(refusals.len(), 3, "{refusals:?}");
    for (what, _, detail) in refusals {
        assert_eq!(
            (what.as_str(), detail.as_str()),
            ("request", "a second action on one channel")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_recorded_however_soon_the_client_leaves() {
    const ROUNDS: usize = 20;
    let w = World::new().await;
    for _ in 0..ROUNDS {
        let handle = raw(&w).await;
        let mut channel = handle.channel_open_session().await.unwrap();
        // The last one is not even waited for.
        channel.request_subsystem(true, "netconf").await.unwrap();
        assert!(!answer(&mut channel).await);
        channel.set_env(false, "A-B", "x").await.unwrap();
        leave(&handle).await;
    }
    let refused = super::world::until("refusals", || {
        let refusals = w.refusals();
        (refusals.len() == 2 * ROUNDS).then_some(refusals)
    });
    // Each is recorded by a task of its own, so in no order.
    let refused = refused.await;
    for wanted in [("subsystem", "netconf"), ("env", "A-B")] {
        let these = refused
            .iter()
            .filter(|(what, _, detail)| (what.as_str(), detail.as_str()) == wanted);
        assert_eq!(these.count(), ROUNDS, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_subsystems_are_refused_and_recorded() {
    let w = World::new().await;
    let out = w.ssh(&["-s"], "netconf", b"").await.exits(255);
    out.says("subsystem request failed");
    let refusal = super::world::until("refusal", || w.refusals().into_iter().next()).await;
    assert_eq!(
        refusal,
        ("subsystem".into(), "not-allowed".into(), "netconf".into())
    );
}
