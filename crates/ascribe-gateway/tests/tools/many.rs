//! Many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::{Body, Status};
use tokio::task::JoinSet;

use super::access::{Access, FORMS, sized};
use super::raw::{answer, leave, raw, rest};
use super::world::{Setup, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_at_once_all_run_and_all_are_recorded() {
    let count = sized(100, 1000);
    for form in FORMS {
        let access = Access::with(
            form,
            Setup {
                connections: 2000,
                pre_auth: Duration::from_secs(600),
                ..Setup::default()
            },
        )
        .await;
        let mut running = JoinSet::new();
        for n in 0..count {
            let mut ssh = access.program("ssh");
            ssh.args([
                "-o",
                "ConnectTimeout=600",
                "target",
                &format!("echo {n}; read -r x; exit 9"),
            ]);
            running.spawn(async move { (n, super::access::run(&mut ssh, b"go\n").await) });
        }
        while let Some(done) = running.join_next().await {
            let (n, out) = done.unwrap();
            assert_eq!(out.exits(9).text(), format!("{n}\n"));
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
    const AT_ONCE: usize = 16;
    let burst = sized(150, 1500);
    let w = World::with(Setup {
        sshd: "MaxSessions 1000",
        ..Setup::default()
    })
    .await;
    let handle = Arc::new(raw(&w).await);
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
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
