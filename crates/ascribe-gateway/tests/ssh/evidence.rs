//! Streams as evidence: what passed, and no more than the target's cap.

use ascribe_core::entry::{Body, Outcome, Status};
use ascribe_core::statement::OverCap;
use sha2::{Digest as _, Sha256};

use super::world::{Setup, World, until};

/// One stream's sealed bytes, in order.
fn sealed(w: &World, stream: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, entry) in (0u64..).zip(w.entries()) {
        if matches!(entry.body, Body::Evidence(_)) {
            for opening in w.door.ledger.openings(index).unwrap() {
                if opening.field.split('/').next() == Some(stream) {
                    out.extend(opening.bytes.0);
                }
            }
        }
    }
    out
}

/// Stream, bytes that passed, bytes that are stored.
fn totals(outcome: &Outcome) -> Vec<(&str, u64, u64)> {
    let streams = outcome.streams.iter();
    streams
        .map(|s| (s.stream.as_str(), s.bytes, s.stored))
        .collect()
}

fn digest(outcome: &Outcome, stream: &str) -> [u8; 32] {
    let mut streams = outcome.streams.iter();
    streams.find(|s| s.stream == stream).unwrap().sha256.0.0
}

fn capped(bytes: u64, over: OverCap) -> Setup {
    Setup {
        cap: (bytes, over),
        ..Setup::default()
    }
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i % 247) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_exactly_what_passed() {
    let w = World::new().await;
    let input = pattern(200_000);
    let out = w.ssh(&[], "cat; echo note >&2", &input).await.exits(0);
    assert!(out.stdout == input);
    w.closed(0).await;
    let outcome = w.outcomes().remove(0);
    assert_eq!(
        totals(&outcome),
        [
            ("stdin", 200_000, 200_000),
            ("stdout", 200_000, 200_000),
            ("stderr", 5, 5),
        ]
    );
    let whole: [u8; 32] = Sha256::digest(&input).into();
    for stream in ["stdin", "stdout"] {
        assert_eq!(digest(&outcome, stream), whole);
        assert!(sealed(&w, stream) == input, "{stream}");
    }
    assert_eq!(sealed(&w, "stderr"), b"note\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_a_stream_is_digested_and_goes_on() {
    let w = World::with(capped(1000, OverCap::Digest)).await;
    let input = pattern(200_000);
    let out = w.ssh(&[], "cat", &input).await.exits(0);
    assert!(out.stdout == input);
    w.closed(0).await;
    let outcome = w.outcomes().remove(0);
    assert_eq!(
        (outcome.status, totals(&outcome)),
        (
            Status::Succeeded,
            vec![("stdin", 200_000, 1000), ("stdout", 200_000, 1000)]
        )
    );
    let whole: [u8; 32] = Sha256::digest(&input).into();
    for stream in ["stdin", "stdout"] {
        assert_eq!(digest(&outcome, stream), whole);
        assert!(sealed(&w, stream) == input[..1000], "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_a_stream_is_stopped_where_the_target_refuses_more() {
    let w = World::with(capped(10_000, OverCap::Refuse)).await;
    let out = w.ssh(&[], "head -c 10000 /dev/zero", b"").await.exits(0);
    assert_eq!(out.stdout.len(), 10_000);
    let out = w.ssh(&[], "head -c 50000 /dev/zero; sleep 60", b"").await;
    let out = out.exits(255).says("larger than the target allows");
    assert!(out.stdout.len() <= 10_000, "{} bytes", out.stdout.len());
    let marker = w.path("sum");
    let command = format!("wc -c >{}", marker.display());
    let out = w.ssh(&[], &command, &pattern(50_000)).await;
    out.exits(255).says("larger than the target allows");
    w.closed(2).await;
    let outcomes = w.outcomes();
    let ends: Vec<_> = outcomes.iter().map(|outcome| outcome.status).collect();
    assert_eq!(ends, [Status::Succeeded, Status::Unknown, Status::Unknown]);
    for outcome in &outcomes {
        for (stream, bytes, stored) in totals(outcome) {
            assert!(bytes <= 10_000 && bytes == stored, "{stream} {bytes}");
        }
    }
    let passed = until("end of the command", || {
        let text = std::fs::read_to_string(&marker).ok()?;
        text.trim().parse::<u64>().ok()
    });
    assert!(passed.await <= 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminals_output_is_evidence_and_its_input_is_stored_nowhere() {
    let w = World::new().await;
    let mut client = w.start(
        &["-tt"],
        "stty -echo; echo ready; read -r x; echo got ${#x}",
    );
    until("prompt", || client.stdout().contains("ready").then_some(())).await;
    client.send(b"correct-horse\n").await;
    let out = client.end().await.exits(0);
    assert!(out.text().contains("got 13"), "{}", out.text());
    w.closed(0).await;
    assert!(sealed(&w, "terminal") == out.stdout);
    let openings = (0..w.entries().len() as u64)
        .flat_map(|index| w.door.ledger.openings(index).unwrap_or_default());
    let secret = b"correct-horse";
    let typed = openings
        .filter(|opening| opening.bytes.0.windows(secret.len()).any(|w| w == secret))
        .count();
    assert_eq!(typed, 0);
}
