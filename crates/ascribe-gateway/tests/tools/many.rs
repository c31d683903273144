//! Many at once.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::{Body, Status};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::access::{Access, FORMS, sized};
use super::raw::{answer, leave, raw, rest};
use super::world::{Setup, World, until};

/// Clients that log in at once. More of them would wait for the processor, not for each other.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_are_open_at_once_and_all_are_recorded() {
    let count = sized(100, 1000);
    for form in FORMS {
        let access = Access::with(
            form,
            Setup {
                connections: 2000,
                idle: Duration::from_secs(900),
                ..Setup::default()
            },
        )
        .await;
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = JoinSet::new();
        for n in 0..count {
            let mut ssh = access.program("ssh");
            let command = format!("echo {n}; read -r line; exit 9");
            ssh.args(["target", &command]).stderr(Stdio::null());
            ssh.stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true);
            let places = Arc::clone(&places);
            opening.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                let mut child = ssh.spawn().unwrap();
                let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
                let line = lines.next_line().await.unwrap();
                assert_eq!(line, Some(n.to_string()));
                child
            });
        }
        let mut open = Vec::new();
        while let Some(opened) = opening.join_next().await {
            open.push(opened.unwrap());
        }
        // All of them run now.
        assert!(access.w.outcomes().is_empty());
        for child in &mut open {
            child
                .stdin
                .take()
                .unwrap()
                .write_all(b"go\n")
                .await
                .unwrap();
        }
        for mut child in open {
            assert_eq!(child.wait().await.unwrap().code(), Some(9));
        }
        access.complete(count).await;
        let ends = || {
            access
                .w
                .found(|b| matches!(b, Body::SessionClose(_)).then_some(()))
        };
        until("end of every session", || {
            (ends().len() == count).then_some(())
        })
        .await;
        let commands: BTreeSet<_> = access.commands().into_iter().collect();
        assert_eq!(commands.len(), count);
    }
}

/// As fast as the client can ask and the target can start them, over one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_commands_is_recorded_in_full() {
    let burst = sized(150, 1500);
    let w = World::with(Setup {
        sshd: "MaxSessions 1000".to_owned(),
        ..Setup::default()
    })
    .await;
    let handle = Arc::new(raw(&w).await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for n in 0..burst {
        let (handle, places) = (handle.clone(), places.clone());
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let mut channel = handle.channel_open_session().await.unwrap();
            channel
                .exec(true, format!("exit {}", n % 200))
                .await
                .unwrap();
            assert!(answer(&mut channel).await);
            let (code, _) = rest(&mut channel).await;
            assert_eq!(code, Some(u32::try_from(n % 200).unwrap()));
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    leave(&handle).await;
    assert_eq!(w.closed(0).await.actions, burst as u64);
    let intents = w.found(|b| matches!(b, Body::Intent(_)).then_some(()));
    assert_eq!(intents.len(), burst);
    let outcomes = w.outcomes();
    assert_eq!(outcomes.len(), burst);
    assert!(
        outcomes
            .iter()
            .all(|o| o.status != Status::Unknown && o.exit_code.is_some())
    );
}
