//! A database's client that sends several statements at once: none of them leaves before all are on record.
//! The server is scripted; it lets in and keeps what it is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ascribe_core::database::{Postgres, Values};
use ascribe_core::entry::Body;
use ascribe_core::law::Denied;
use ascribe_core::record::{BoxFuture, Scope};
use ascribe_core::statement::{Connect, Say, Signed, Target};
use ascribe_gateway::{
    Bearer, Bearers, Credential, Credentials, PgArrival, PgConfig, serve_postgres,
};
use ascribe_ledger::{Rng as _, SystemRng};
use ascribe_sql::Classifier;
use ascribe_wire::pg::server::Status;
use ascribe_wire::pg::startup::{First, first, startup_message};
use ascribe_wire::pg::{Secret, encode};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::door::Stops;
use super::people::{ADMIN, OPERATOR};
use super::world::{PATIENCE, Setup, World, until};

const READY: &[u8] = b"Z\0\0\0\x05I";
const DELETES: Stops = |body| match body {
    Body::Intent(intent) => {
        let sql = intent.sql.as_ref();
        sql.is_some_and(|sql| sql.classes == ["delete"])
    }
    _ => false,
};

/// No target asks for a password, and nobody shows a token.
struct Nothing;

impl Credentials for Nothing {
    fn credential<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async { Ok(None) })
    }
}

impl Bearers for Nothing {
    fn log_in<'a>(&'a self, _: &'a Secret) -> BoxFuture<'a, Result<Bearer, Denied>> {
        Box::pin(async { Err(Denied::new("password", "no token is taken here")) })
    }

    fn refused<'a>(&'a self, _signed: &'a Signed, _code: &'static str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// A server, and what it was sent after it let in.
async fn server() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = BytesMut::new();
        while !matches!(first(&mut read).unwrap(), Some(First::Startup(_))) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        let mut said = BytesMut::new();
        said.extend_from_slice(&encode::authentication_ok());
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ] {
            said.extend_from_slice(&encode::parameter_status(name.as_bytes(), value.as_bytes()));
        }
        said.extend_from_slice(&encode::ready_for_query(Status::Idle));
        stream.write_all(&said).await.unwrap();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut some).await {
            kept.lock().unwrap().extend_from_slice(&some[..count]);
        }
    });
    (port, sent)
}

/// A client that the gateway let in to that server.
async fn client(w: &World, port: u16) -> DuplexStream {
    let ledger = &w.door.ledger;
    let target = Target {
        host_keys: Vec::new(),
        postgres: Some(Postgres {
            allow: Vec::new(),
            databases: Vec::new(),
            trust: Vec::new(),
            values: Values::Full,
        }),
        ..w.people.target("root", port)
    };
    let say = Say::TargetSet(target);
    w.people.say(ledger, ADMIN, say, vec![], Scope::None).await;
    w.people
        .break_glass(ledger, "root", super::world::ticket())
        .await;
    let config = PgConfig {
        writer: "gateway".to_owned(),
        log_key: ledger.log_key(),
        tls: None,
        credentials: Arc::new(Nothing),
        bearers: Arc::new(Nothing),
        oauth: Vec::new(),
        classifier: Classifier::new(1).unwrap(),
        own: Vec::new(),
        idle_timeout: PATIENCE,
        pre_auth_timeout: PATIENCE,
        max_connections_per_addr: 4,
        memory: 1 << 28,
    };
    let (arrive, arrivals) = tokio::sync::mpsc::channel(1);
    let door = Arc::clone(&w.door) as _;
    let fill = Arc::new(|out: &mut [u8]| SystemRng.fill(out).unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(serve_postgres(None, arrivals, door, config, fill, stop));
    let connect = Say::Connect(Connect {
        definition: None,
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    });
    let (mut client, stream) = tokio::io::duplex(1 << 16);
    let arrival = PgArrival {
        stream: Box::new(stream),
        peer: ([127, 0, 0, 1], 1).into(),
        signed: w.people.sign(ledger, OPERATOR, connect).1,
    };
    arrive.send(arrival).await.unwrap();
    let parameters: [(&[u8], &[u8]); 1] = [(b"user", b"root@db1")];
    client
        .write_all(&startup_message(0, parameters))
        .await
        .unwrap();
    let mut read = BytesMut::new();
    while !read.ends_with(READY) {
        let some = tokio::time::timeout(PATIENCE, client.read_buf(&mut read)).await;
        assert!(some.unwrap().unwrap() > 0, "{}", read.escape_ascii());
    }
    // The gateway goes on for the arrival that it has.
    drop(arrive);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_a_burst_leaves_before_all_are_on_record() {
    let w = World::with(Setup {
        grant: None,
        ..Setup::default()
    })
    .await;
    let (port, sent) = server().await;
    let mut client = client(&w, port).await;
    w.door.close(DELETES);
    let burst =
        ["select 1", "delete from t", "select 2"].map(|text| encode::query(text.as_bytes()));
    let burst = burst.concat();
    client.write_all(&burst).await.unwrap();
    until("statement that waits", || {
        (!w.door.waiting().is_empty()).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(sent.lock().unwrap().is_empty());
    w.door.open();
    until("burst", || (*sent.lock().unwrap() == burst).then_some(())).await;
    let intents = w
        .entries()
        .into_iter()
        .filter_map(|entry| match entry.body {
            Body::Intent(intent) => intent.sql.filter(|_| intent.kind == "pg.query"),
            _ => None,
        });
    let classes: Vec<_> = intents.map(|sql| sql.classes).collect();
    assert_eq!(classes, [["select"], ["delete"], ["select"]]);
}
