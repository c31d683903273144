//! What a peer may make the gateway remember. The gateway runs in the process whose memory is read, so
//! each of these has a process of its own: beside others it would be their memory too that counts.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use ascribe_core::entry::Body;
use ascribe_core::statement::OverCap;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::world::{Setup, World, until};

/// Names the test that a process is there for.
const ALONE: &str = "ASCRIBE_TEST_ALONE";

/// Far above what one connection may hold, far below what is thrown at it.
const MOST: u64 = 120 << 20;

/// Memory in use, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Runs a test of this file in a process of its own.
fn alone(name: &str, test: impl Future<Output = ()>) {
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    if std::env::var_os(ALONE).is_some_and(|alone| *alone == *name) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(test);
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&*name, "--exact", "--nocapture"])
        .env(ALONE, &name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "no such test: {said}");
}

fn digested() -> Setup {
    Setup {
        cap: (1 << 12, OverCap::Digest),
        ..Setup::default()
    }
}

#[test]
fn a_client_that_stops_reading_fills_no_memory() {
    alone(
        "a_client_that_stops_reading_fills_no_memory",
        client_stops_reading(),
    );
}

async fn client_stops_reading() {
    let w = World::with(digested()).await;
    let before = memory();
    let mut child = Command::new("ssh")
        .args(w.options("client"))
        .args(["-p", &w.port.to_string(), &w.login()])
        .arg("head -c 300000000 /dev/zero; exit 3")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Nothing is read of what comes.
    let stdout = child.stdout.take().unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = memory().saturating_sub(before);
        assert!(more < MOST, "{more} bytes");
    }
    drop(stdout);
    child.kill().await.unwrap();
    w.closed(0).await;
}

#[test]
fn a_target_that_stops_reading_fills_no_memory() {
    alone(
        "a_target_that_stops_reading_fills_no_memory",
        target_stops_reading(),
    );
}

async fn target_stops_reading() {
    let w = World::with(digested()).await;
    let before = memory();
    let mut client = w.start(&[], "exec sleep 8");
    let mut stdin = client.stdin.take().unwrap();
    let writer = tokio::spawn(async move {
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..300 {
            stdin.write_all(&chunk).await?;
        }
        std::io::Result::Ok(())
    });
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = memory().saturating_sub(before);
        assert!(more < MOST, "{more} bytes");
    }
    client.end().await.exits(0);
    assert!(writer.await.unwrap().is_err(), "the target took everything");
}

/// Each channel has a window of its own: this is more than the connection may have held for it.
#[test]
fn many_channels_whose_input_nobody_takes_fill_no_memory() {
    alone(
        "many_channels_whose_input_nobody_takes_fill_no_memory",
        nobody_takes_input(),
    );
}

async fn nobody_takes_input() {
    const CHANNELS: usize = 80;
    let w = World::with(Setup {
        sshd: "MaxSessions 1000".to_owned(),
        ..digested()
    })
    .await;
    let shared = format!("ControlPath={}", w.path("mux").display());
    let shared = ["-o", &*shared, "-o", "ControlMaster=auto"];
    let master = w.start(&shared, "echo; exec sleep 100");
    until("shared connection", || {
        (!master.stdout().is_empty()).then_some(())
    })
    .await;
    let before = memory();
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let child = Command::new("ssh")
            .args(w.options("client"))
            .args(["-p", &w.port.to_string()])
            .args(shared)
            .args([&*w.login(), "exec sleep 100"])
            .stdin(std::fs::File::open("/dev/zero").unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        channels.push(child);
    }
    until("commands", || {
        let begun = w.found(|body| matches!(body, Body::Intent(_)).then_some(()));
        (begun.len() > CHANNELS).then_some(())
    })
    .await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let more = memory().saturating_sub(before);
        assert!(more < MOST, "{more} bytes");
    }
    // Others are served.
    w.ssh(&[], "exit 3", b"").await.exits(3);
}
