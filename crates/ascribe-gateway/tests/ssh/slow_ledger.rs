//! A ledger that does not answer: nothing runs unrecorded, and ending a session does not need it.

use std::time::Duration;

use ascribe_core::entry::{Body, CloseReason, Status};

use super::door::Stops;
use super::world::{World, until};

const EVIDENCE: Stops = |body| matches!(body, Body::Evidence(_));
const INTENTS: Stops = |body| matches!(body, Body::Intent(_));
const ALL: Stops = |_| true;

async fn waits(w: &World) {
    until("entry that waits", || {
        (!w.door.waiting().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_stops_while_a_seal_is_overdue_and_goes_on_afterwards() {
    let w = World::new().await;
    let file = w.path("typed");
    let mut client = w.start(&[], &format!("cat >{}", file.display()));
    w.door.close(EVIDENCE);
    client.send(b"first\n").await;
    waits(&w).await;
    // Now a seal is under way; a second later it is overdue.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send(b"second\n").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"first\n");
    w.door.open();
    drop(client.stdin.take());
    client.end().await.exits(0);
    assert_eq!(std::fs::read(&file).unwrap(), b"first\nsecond\n");
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_runs_ahead_of_sealed_evidence_by_a_bounded_window() {
    for (extra, command, most) in [
        (&["-tt"][..], "yes | head -c 5000000; sleep 120", 64 * 1024),
        (&[], "head -c 40000000 /dev/zero; sleep 120", 8 << 20),
    ] {
        let w = World::new().await;
        w.door.close(EVIDENCE);
        let client = w.start(extra, command);
        waits(&w).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ahead = client.stdout().len();
        assert!(ahead > 0 && ahead <= most, "{ahead} bytes ahead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_seconds_without_evidence_end_the_session() {
    let w = World::new().await;
    w.door.close(EVIDENCE);
    let out = w.ssh(&[], "echo started; exec sleep 120", b"").await;
    out.exits(255).says("the ledger cannot record");
    let close = w.closed(0).await;
    assert_eq!(close.reason, CloseReason::LedgerUnavailable);
    assert_eq!(w.outcomes()[0].status, Status::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_without_an_answer_never_runs() {
    let w = World::new().await;
    w.door.close(INTENTS);
    let marker = w.path("marker");
    let out = w
        .ssh(&[], &format!("touch {}", marker.display()), b"")
        .await;
    out.exits(254).says("not recorded, so not run");
    w.door.open();
    assert_eq!(w.closed(0).await.reason, CloseReason::LedgerUnavailable);
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_is_durable_too_late_is_recorded_as_not_sent() {
    let w = World::new().await;
    w.door.close(INTENTS);
    let marker = w.path("marker");
    let client = w.start(&[], &format!("touch {}", marker.display()));
    waits(&w).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    w.door.open();
    let out = client.end().await.exits(254);
    out.says("it took too long; the action was not sent");
    let close = w.closed(0).await;
    assert_eq!(
        (close.reason, close.actions),
        (CloseReason::Disconnected, 1)
    );
    assert_eq!(w.outcomes()[0].status, Status::NotSent);
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_opening_is_durable_too_late_is_closed() {
    let w = World::new().await;
    w.door.close(ALL);
    let out = w.ssh(&[], "id", b"").await.exits(254);
    out.says("no session without a record");
    until("end that waits too", || {
        let waiting = w.door.waiting();
        matches!(waiting[..], [Body::SessionOpen(_), Body::SessionClose(_)]).then_some(())
    })
    .await;
    w.door.open();
    let close = w.closed(0).await;
    assert_eq!(
        (close.reason, close.actions),
        (CloseReason::LedgerUnavailable, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_a_session_without_the_ledgers_help() {
    let w = World::new().await;
    let client = w.start(&[], "echo running; exec sleep 120");
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    w.door.close(ALL);
    // The statement goes to the ledger itself; only the gateway's entries wait.
    w.people.revoke(&w.door.ledger, w.grant.unwrap()).await;
    client.end().await.exits(255).says("the grant was revoked");
    w.door.open();
    assert_eq!(w.closed(0).await.reason, CloseReason::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_gateway_does_not_need_the_ledger() {
    let mut w = World::new().await;
    let client = w.start(&[], "echo running; exec sleep 120");
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    w.door.close(ALL);
    w.stop().await;
    client.end().await.exits(255).says("the gateway stops");
    let closes = w.found(|body| matches!(body, Body::SessionClose(_)).then_some(()));
    assert!(closes.is_empty(), "the door was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_has_failed_runs_nothing() {
    let w = World::new().await;
    let path = format!("ControlPath={}", w.path("mux").display());
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=30",
        "-o",
        &path,
    ];
    w.ssh(&master, "true", b"").await.exits(0);
    let marker = w.path("marker");
    let touch = format!("touch {}", marker.display());
    w.door.ledger.shutdown();
    // In the open session, and in a new one.
    w.ssh(&master, &touch, b"").await.exits(254).says("not run");
    w.ssh(&["-S", "none"], &touch, b"")
        .await
        .exits(254)
        .says("no session without a record");
    assert!(!marker.exists());
}
