//! How sessions end that do not end by themselves, and that the reason is recorded.

use std::time::Duration;

use ascribe_core::entry::{CloseReason, Status};

use super::world::{PATIENCE, Setup, World, fed, keygen_of, until};

/// Says that it runs, and then runs longer than anybody waits here.
const LONG: &str = "echo running; exec sleep 120";

async fn running(w: &World, extra: &[&str]) -> super::world::Client {
    let client = w.start(extra, LONG);
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_a_running_command_and_a_running_terminal() {
    for extra in [&[][..], &["-tt"]] {
        let w = World::new().await;
        let client = running(&w, extra).await;
        w.people.revoke(&w.door.ledger, w.grant.unwrap()).await;
        let out = client.end().await.exits(255);
        let said = format!("{}{}", out.text(), out.stderr);
        assert!(
            said.contains("the grant was revoked, or whoever answers for it has left or is suspended. Processes left"),
            "{said}"
        );
        let close = w.closed(0).await;
        assert_eq!(close.reason, CloseReason::Revoked);
        assert_eq!(w.outcomes()[0].status, Status::Unknown);
        w.ssh(&[], "id", b"")
            .await
            .exits(254)
            .says("your grant was revoked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_given_up_ends_its_own_sessions_alone() {
    let w = World::new().await;
    let key = keygen_of("ecdsa", &w.path("second"));
    w.people.key_add(&w.door.ledger, &key).await;
    let first = running(&w, &[]).await;
    let second = w.start_at(w.port, &w.login(), "second", &[], LONG);
    until("running command", || {
        second.stdout().contains("running").then_some(())
    })
    .await;
    w.people.key_revoke(&w.door.ledger, &key).await;
    second.end().await.exits(255).says("the grant was revoked");
    assert_eq!(w.closed(0).await.reason, CloseReason::Revoked);
    let again = w.start_at(w.port, &w.login(), "second", &[], "id");
    fed(again, b"").await.exits(255).says("Permission denied");
    // The other goes on until its own end.
    assert_eq!(w.outcomes().len(), 1);
    drop(first);
    assert_eq!(w.closed(1).await.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grants_end_ends_a_running_command() {
    let w = World::with(Setup {
        grant: Some(Duration::from_secs(8)),
        ..Setup::default()
    })
    .await;
    let client = running(&w, &[]).await;
    client.end().await.exits(255).says("the grant has ended");
    assert_eq!(w.closed(0).await.reason, CloseReason::Expired);
    w.ssh(&[], "id", b"")
        .await
        .exits(254)
        .says("your grant ended at");
}

fn idle(seconds: u64) -> Setup {
    Setup {
        idle: Duration::from_secs(seconds),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminals_output_does_not_keep_an_absent_persons_session_open() {
    let w = World::with(idle(2)).await;
    let endless = "while :; do echo tick; sleep 0.1; done";
    let out = w.start(&["-tt"], endless).end().await;
    let out = out.exits(255).says("nothing moved for too long");
    assert!(out.text().contains("tick"));
    assert_eq!(w.closed(0).await.reason, CloseReason::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_types_keeps_a_terminal_open() {
    let w = World::with(idle(5)).await;
    let mut client = w.start(
        &["-tt"],
        "while read -r x; do test $x = end && exit 7; done",
    );
    for _ in 0..16 {
        client.send(b"more\n").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    client.send(b"end\n").await;
    client.end().await.exits(7);
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_says_something_now_and_then_is_not_idle() {
    let w = World::with(idle(5)).await;
    let build = "for i in $(seq 16); do echo step; sleep 0.5; done; exit 6";
    let out = w.ssh(&[], build, b"").await.exits(6);
    assert_eq!(out.text().lines().count(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_which_nothing_moves_ends_as_idle() {
    let w = World::with(idle(2)).await;
    let out = running(&w, &[]).await.end().await;
    out.exits(255).says("nothing moved for too long");
    assert_eq!(w.closed(0).await.reason, CloseReason::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_gateway_ends_running_sessions_with_a_record() {
    let mut w = World::new().await;
    let (command, terminal) = (running(&w, &[]).await, running(&w, &["-tt"]).await);
    w.stop().await;
    command.end().await.exits(255).says("the gateway stops");
    terminal.end().await.exits(255).says("the gateway stops");
    for nth in [0, 1] {
        assert_eq!(w.closed(nth).await.reason, CloseReason::Interrupted);
    }
    let ends: Vec<_> = w.outcomes().iter().map(|o| o.status).collect();
    assert_eq!(ends, [Status::Unknown, Status::Unknown]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_gateway_waits_for_nobody_who_has_not_logged_in() {
    let mut w = World::with(Setup {
        connections: 1,
        pre_auth: PATIENCE * 10,
        ..Setup::default()
    })
    .await;
    // One is served and says nothing, the others wait for its place.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(
            tokio::net::TcpStream::connect(("127.0.0.1", w.port))
                .await
                .unwrap(),
        );
    }
    let waiting = w.start(&[], "true");
    w.stop().await;
    assert_eq!(fed(waiting, b"").await.code, Some(255));
}
