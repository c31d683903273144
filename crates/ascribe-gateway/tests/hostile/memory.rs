//! What a peer may make the gateway remember. The gateway runs in this process, whose memory is read.

use std::process::Stdio;
use std::time::Duration;

use ascribe_core::statement::OverCap;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::raw::{answer, raw};
use super::world::{Setup, World};

/// One at a time: each looks at the memory of the whole process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Far above what one connection may hold, far below what is thrown at it.
const MOST: u64 = 120 << 20;

/// Memory in use, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn digested() -> Setup {
    Setup {
        cap: (1 << 12, OverCap::Digest),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_fills_no_memory() {
    let _alone = ALONE.lock().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stops_reading_fills_no_memory() {
    let _alone = ALONE.lock().await;
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
#[tokio::test(flavor = "multi_thread")]
async fn many_channels_whose_input_nobody_takes_fill_no_memory() {
    const CHANNELS: usize = 80;
    static INPUT: [u8; 4_000_000] = [b'x'; 4_000_000];
    let _alone = ALONE.lock().await;
    let w = World::with(Setup {
        sshd: "MaxSessions 1000".to_owned(),
        ..digested()
    })
    .await;
    let handle = raw(&w).await;
    let before = memory();
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, "exec sleep 100").await.unwrap();
        assert!(answer(&mut channel).await);
        channels.push(channel);
    }
    let mut sending = tokio::task::JoinSet::new();
    for channel in channels {
        sending.spawn(async move {
            // What cannot be sent at the end is what this is about.
            channel.data(&INPUT[..]).await.ok();
        });
    }
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let more = memory().saturating_sub(before);
        assert!(more < MOST, "{more} bytes");
    }
    // Others are served.
    w.ssh(&[], "exit 3", b"").await.exits(3);
    sending.abort_all();
    drop(handle);
}
