//! The PostgreSQL gateway in a process of its own, so that its memory and its time on the processors
//! are its. Whoever connects is taken as having signed for it: the password of a person is for one
//! connection, and a benchmark has many.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ascribe_core::law::Denied;
use ascribe_core::record::BoxFuture;
use ascribe_core::statement::Signed;
use ascribe_gateway::{
    Bearer, Bearers, Credential, Credentials, PgArrival, PgConfig, serve_postgres,
};
use ascribe_ledger::{Rng as _, SystemRng};
use ascribe_sql::Classifier;
use ascribe_wire::pg::Secret;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// As the server has it.
const CLASSIFIERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);
const MANY: usize = 20_000;

/// The target asks for no password.
struct NoPassword;

impl Credentials for NoPassword {
    fn credential<'a>(
        &'a self,
        _target: &'a str,
        _account: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        Box::pin(async { Ok(None) })
    }
}

/// Nobody shows a token.
struct NoBearers;

impl Bearers for NoBearers {
    fn log_in<'a>(&'a self, _token: &'a Secret) -> BoxFuture<'a, Result<Bearer, Denied>> {
        Box::pin(async { Err(Denied::new("password", "no token is taken here")) })
    }

    fn refused<'a>(&'a self, _signed: &'a Signed, _code: &'static str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

fn fill(bytes: &mut [u8]) {
    assert!(SystemRng.fill(bytes).is_ok(), "the system has randomness");
}

/// Serves until standard input ends: `TARGET-PORT sync|no-sync`. Its own port is on standard output.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [target, sync] = words else {
        anyhow::bail!("a gateway is told its target's port, and whether it syncs");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let world = Arc::new(World::synced(sync == "sync")?);
    let ledger = Arc::new(world.open()?);
    let target: u16 = target.parse()?;
    runtime.block_on(world.furnish_database(&ledger, target))?;
    let config = PgConfig {
        writer: "gateway".to_owned(),
        log_key: ledger.log_key(),
        tls: None,
        credentials: Arc::new(NoPassword),
        bearers: Arc::new(NoBearers),
        oauth: Vec::new(),
        classifier: Classifier::new(CLASSIFIERS)?,
        own: Vec::new(),
        idle_timeout: Duration::from_secs(3600),
        pre_auth_timeout: PATIENCE,
        max_connections_per_addr: MANY,
        memory: 1 << 30,
    };
    let stop = CancellationToken::new();
    let (arrivals, arriving) = mpsc::channel(64);
    let recorder = Arc::clone(&ledger) as _;
    let ended = stop.clone();
    let served = runtime.spawn(async move {
        serve_postgres(None, arriving, recorder, config, Arc::new(fill), ended).await;
    });
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    runtime.spawn(accept(listener, world, arrivals));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    stop.cancel();
    Ok(runtime.block_on(served)?)
}

async fn accept(
    listener: TcpListener,
    world: Arc<World>,
    arrivals: mpsc::Sender<PgArrival>,
) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        let (world, arrivals) = (Arc::clone(&world), arrivals.clone());
        tokio::spawn(async move {
            if let Err(error) = arrive(stream, peer, &world, &arrivals).await {
                eprintln!("a connection did not arrive: {error}");
            }
        });
    }
}

async fn arrive(
    stream: TcpStream,
    peer: SocketAddr,
    world: &World,
    arrivals: &mpsc::Sender<PgArrival>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let arrival = PgArrival {
        stream: Box::new(stream),
        peer,
        signed: world.connect()?,
    };
    arrivals.send(arrival).await.ok().context("no gateway")
}
