//! Targets that stop answering, at every step, or never stop talking.

use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::{CloseReason, Status};
use ascribe_core::statement::{Forward, Listen};
use russh::keys::{Certificate, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::raw::raw;
use super::world::{PATIENCE, Setup, World};

/// Where the target may listen for the client. Nothing does.
const LISTENS: u16 = 4000;

/// The step that is never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silent {
    Login,
    Channel,
    Exec,
    Cancel,
}

impl Silent {
    async fn at(self, step: Self) {
        if self == step {
            std::future::pending::<()>().await;
        }
    }
}

impl Handler for Silent {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        _certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        self.at(Self::Login).await;
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.at(Self::Channel).await;
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        _channel: ChannelId,
        _command: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.at(Self::Exec).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _address: &str,
        _port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.at(Self::Cancel).await;
        Ok(true)
    }
}

async fn listening(idle: u64) -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let w = World::with(Setup {
        target_port: Some(listener.local_addr().unwrap().port()),
        idle: Duration::from_secs(idle),
        forwards: vec![Forward::Remote(Listen { port: LISTENS })],
        ..Setup::default()
    })
    .await;
    (w, listener)
}

async fn silent(step: Silent, idle: u64) -> (World, tokio::task::JoinHandle<()>) {
    let (w, listener) = listening(idle).await;
    let config = Arc::new(russh::server::Config {
        keys: vec![PrivateKey::read_openssh_file(w.path("host")).unwrap()],
        ..russh::server::Config::default()
    });
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(session) = russh::server::run_stream(config, socket, step).await {
            session.await.ok();
        }
    });
    (w, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_says_its_version_is_given_up() {
    let (w, listener) = listening(60).await;
    let client = w.start(&[], "id");
    let silent = listener.accept().await.unwrap();
    client.end().await.exits(254).says("cannot reach");
    drop(silent);
    assert_eq!(w.closed(0).await.actions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_answers_a_login_is_given_up() {
    let (w, server) = silent(Silent::Login, 60).await;
    w.start(&[], "id")
        .end()
        .await
        .exits(254)
        .says("cannot reach");
    assert_eq!(w.closed(0).await.actions, 0);
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_opens_no_channel_gets_no_action() {
    let (w, server) = silent(Silent::Channel, 60).await;
    let out = w.start(&[], "id").end().await.exits(254);
    out.says("the target took too long; the action was not sent");
    assert_eq!(w.closed(0).await.actions, 1);
    assert_eq!(w.outcomes()[0].status, Status::NotSent);
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_answers_an_action_is_left_when_nothing_moves() {
    let (w, server) = silent(Silent::Exec, 3).await;
    let out = w.start(&[], "id").end().await.exits(255);
    out.says("nothing moved for too long");
    assert_eq!(w.closed(0).await.reason, CloseReason::Idle);
    assert_eq!(w.outcomes()[0].status, Status::Unknown);
    server.abort();
}

/// The client's connection is not read while such a request is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_stops_listening_holds_up_no_client() {
    let (w, server) = silent(Silent::Cancel, 120).await;
    let handle = raw(&w).await;
    let port = u32::from(LISTENS);
    handle.tcpip_forward("localhost", port).await.unwrap();
    let cancel = handle.cancel_tcpip_forward("localhost", port);
    let answer = tokio::time::timeout(PATIENCE, cancel).await;
    assert!(answer.expect("the connection is stuck").is_err());
    handle.channel_open_session().await.unwrap();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_talks_without_end_before_its_version_is_given_up() {
    for line in [&b"hello\r\n"[..], b"x"] {
        let (w, listener) = listening(60).await;
        let client = w.start(&[], "id");
        let (mut socket, _) = listener.accept().await.unwrap();
        let flood = line.repeat(4096 / line.len());
        // Nobody reads it once the gateway has had enough.
        while socket.write_all(&flood).await.is_ok() {}
        client.end().await.exits(254).says("cannot reach");
        assert_eq!(w.closed(0).await.reason, CloseReason::TargetFailed);
    }
}

/// Its window is wide and its socket full: the library waits for the socket, and all that waits for
/// the library must not.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_stops_reading_ends_with_its_session_and_holds_up_no_stop() {
    let mut w = World::with(Setup {
        idle: Duration::from_secs(3),
        ..Setup::default()
    })
    .await;
    // The command stops the server's process for this connection, and with it all its reading.
    let stop = "kill -STOP $PPID; sleep 20; kill -CONT $PPID";
    let mut client = w.start(&[], stop);
    let mut stdin = client.stdin.take().unwrap();
    let writing = tokio::spawn(async move {
        let piece = vec![7; 1 << 20];
        // Until the client is cut off.
        while stdin.write_all(&piece).await.is_ok() {}
    });
    client.end().await.exits(255);
    assert_eq!(w.closed(0).await.reason, CloseReason::Idle);
    assert_eq!(w.outcomes()[0].status, Status::Unknown);
    w.stop().await;
    writing.abort();
}
