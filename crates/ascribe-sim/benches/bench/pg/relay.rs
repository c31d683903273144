//! What the gateway does between client and server, without the record: its framing and tracking of
//! messages in a loop of this benchmark's own. The gateway itself cannot be had without the record.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use ascribe_wire::pg::client;
use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::server;
use ascribe_wire::pg::session::{Step, Tracker};
use ascribe_wire::pg::startup::{First, first};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// As the gateway has it.
const PIECE: usize = 16 * 1024;
const GATHER: usize = 4096;
/// A server that awaits its first statement.
const READY: &[u8] = b"Z\0\0\0\x05I";

#[derive(Default)]
struct Shared {
    tracker: Mutex<Tracker>,
    answered: Notify,
}

impl Shared {
    fn track<T>(&self, step: impl FnOnce(&mut Tracker) -> T) -> T {
        step(&mut self.tracker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves until standard input ends: `TARGET-PORT`. Its own port is on standard output.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [target] = words else {
        bail!("a relay is told its target's port");
    };
    let target: u16 = target.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = relay(client, target).await {
                    eprintln!("a connection was not relayed: {error}");
                }
            });
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn relay(mut client: TcpStream, target: u16) -> Result<()> {
    client.set_nodelay(true)?;
    let mut target = TcpStream::connect(("127.0.0.1", target)).await?;
    target.set_nodelay(true)?;
    let mut read = BytesMut::new();
    loop {
        let before = read.clone();
        match first(&mut read)? {
            Some(First::Startup(_)) => {
                let length = before.len() - read.len();
                target
                    .write_all(before.get(..length).context("a startup message")?)
                    .await?;
                break;
            }
            Some(First::SslRequest | First::GssEncRequest) => client.write_all(b"N").await?,
            Some(_) => bail!("no startup message"),
            None if client.read_buf(&mut read).await? == 0 => return Ok(()),
            None => {}
        }
    }
    let mut greeting = BytesMut::new();
    while !greeting.ends_with(READY) {
        if target.read_buf(&mut greeting).await? == 0 {
            bail!("the server lets nobody in");
        }
    }
    client.write_all(&greeting).await?;
    let shared = Arc::new(Shared::default());
    let (client_read, client_write) = client.into_split();
    let (target_read, target_write) = target.into_split();
    let down = tokio::spawn(down(Arc::clone(&shared), target_read, client_write));
    up(&shared, client_read, target_write).await?;
    down.await?
}

/// What was read. A little of it is copied, as the gateway does, so that the same few lines of memory are
/// read into again.
fn taken(read: &mut BytesMut) -> Bytes {
    if read.len() >= GATHER {
        return read.split().freeze();
    }
    let some = Bytes::copy_from_slice(read);
    read.clear();
    some
}

async fn up(shared: &Shared, mut client: OwnedReadHalf, mut target: OwnedWriteHalf) -> Result<()> {
    let mut frames = Frames::new(Side::Client);
    let mut read = BytesMut::new();
    loop {
        read.reserve(PIECE);
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        frames.push(taken(&mut read));
        let mut gathered = BytesMut::with_capacity(frames.unread());
        while let Some(piece) = frames.next()? {
            loop {
                let step = match &piece {
                    Piece::Whole(frame) => {
                        let message = client::decode(frame)?;
                        shared.track(|tracker| tracker.client(message))?
                    }
                    Piece::Run(run) => {
                        shared.track(|tracker| tracker.copy_data(run.begun, run.bytes.len() as u64))
                    }
                    Piece::Large(_) | Piece::Part(_) => bail!("a large message"),
                };
                if !matches!(step, Step::Wait(_)) {
                    break;
                }
                target.write_all(&gathered.split()).await?;
                shared.answered.notified().await;
            }
            gathered.extend_from_slice(piece.bytes());
        }
        target.write_all(&gathered).await?;
    }
}

async fn down(
    shared: Arc<Shared>,
    mut target: OwnedReadHalf,
    mut client: OwnedWriteHalf,
) -> Result<()> {
    let mut frames = Frames::new(Side::Server);
    let mut read = BytesMut::new();
    loop {
        read.reserve(PIECE);
        if target.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        frames.push(taken(&mut read));
        let mut gathered = BytesMut::with_capacity(frames.unread());
        while let Some(piece) = frames.next()? {
            let message = match &piece {
                Piece::Whole(frame) => Some(server::decode(frame)?),
                Piece::Large(large) => Some(server::decode_large(large)?),
                Piece::Run(run) => Some(server::passing(run)?),
                Piece::Part(_) => None,
            };
            let bytes = piece.bytes();
            if let Some(message) = message {
                drop(shared.track(|tracker| tracker.server(&message, bytes.len()))?);
            }
            gathered.extend_from_slice(bytes);
        }
        shared.answered.notify_one();
        client.write_all(&gathered).await?;
    }
}
