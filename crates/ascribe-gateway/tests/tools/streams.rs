//! Long streams, readers that stall, and ends that must not get lost.

use std::process::Stdio;
use std::time::Duration;

use ascribe_core::entry::Status;
use ascribe_core::statement::OverCap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::access::{Access, FORMS, sized};
use super::world::{PATIENCE, Setup};

/// Long streams are digested; a ledger of several gigabytes shows nothing more.
fn digested() -> Setup {
    Setup {
        cap: (1 << 20, OverCap::Digest),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_always_ends_with_its_exit_status() {
    for form in FORMS {
        let access = Access::with(form, digested()).await;
        let times = sized(3, 100);
        for _ in 0..times {
            let out = access
                .ssh(&[], "head -c 300000000 /dev/zero; exit 7", b"")
                .await;
            let out = out.exits(7);
            assert_eq!(out.stdout.len(), 300_000_000);
        }
        let outcomes = access.complete(times).await;
        for outcome in outcomes {
            assert_eq!(
                (outcome.status, outcome.exit_code),
                (Status::Failed, Some(7))
            );
            assert_eq!(outcome.streams[0].bytes, 300_000_000);
        }
    }
}

/// More than every window and buffer on the way, in both directions.
const MUCH: usize = 24_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_while_input_flows_gets_everything_once_it_reads() {
    for form in FORMS {
        let access = Access::with(form, digested()).await;
        let mut child = access
            .program("ssh")
            .args(["target", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = tokio::spawn(async move {
            stdin.write_all(&vec![b'x'; MUCH]).await.unwrap();
        });
        // By now everything on the way is full, in both directions.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut out = Vec::new();
        let mut stdout = child.stdout.take().unwrap();
        let read = tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut out)).await;
        read.unwrap_or_else(|_| panic!("stuck after {} bytes", out.len()))
            .unwrap();
        writer.await.unwrap();
        assert_eq!(out.len(), MUCH);
        assert!(child.wait().await.unwrap().success());
        let outcomes = access.complete(1).await;
        assert_eq!(outcomes[0].status, Status::Succeeded);
    }
}
