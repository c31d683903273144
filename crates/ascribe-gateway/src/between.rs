//! What lies between an outer connection's channel and the inner connection that runs through it:
//! room in each direction, in which bytes wait uncopied.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSemaphore;

/// Room in each direction, in bytes. The outer connection takes no output while its input waits for
/// room, and the inner one the other way round: with room of their own between them they do not wait
/// for each other.
const ROOM: usize = 1 << 20;
/// Most that is handed on at once, in bytes.
const PIECE: usize = 64 << 10;

/// Bytes that wait, with the room that they take.
type Waiting = (Bytes, OwnedSemaphorePermit);

/// The inner connection's end.
#[derive(Debug)]
pub(crate) struct Near {
    input: mpsc::UnboundedReceiver<Waiting>,
    reading: Bytes,
    /// None once nothing more is written.
    output: Option<mpsc::UnboundedSender<Waiting>>,
    room: PollSemaphore,
}

/// The outer channel's end.
#[derive(Debug)]
pub(crate) struct Far {
    input: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
    output: mpsc::UnboundedReceiver<Waiting>,
}

/// Both ends.
pub(crate) fn between() -> (Near, Far) {
    // The permits are their bounds.
    let (to_near, from_far) = mpsc::unbounded_channel();
    let (to_far, from_near) = mpsc::unbounded_channel();
    let near = Near {
        input: from_far,
        reading: Bytes::new(),
        output: Some(to_far),
        room: PollSemaphore::new(Arc::new(Semaphore::new(ROOM))),
    };
    let far = Far {
        input: to_near,
        room: Arc::new(Semaphore::new(ROOM)),
        output: from_near,
    };
    (near, far)
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.reading.is_empty() {
            match ready!(self.input.poll_recv(cx)) {
                // Its room is free from now on: what is being read is one piece.
                Some((bytes, _room)) => self.reading = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.reading.len().min(buf.remaining());
        if let Some(bytes) = self.reading.get(..taken) {
            buf.put_slice(bytes);
        }
        self.reading.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Near {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or(bytes);
        let cost = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let room = ready!(self.room.poll_acquire_many(cx, cost));
        let sent = match (&self.output, room) {
            (Some(output), Some(room)) => {
                output.send((Bytes::copy_from_slice(piece), room)).is_ok()
            }
            _ => false,
        };
        Poll::Ready(if sent {
            Ok(piece.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output = None;
        Poll::Ready(Ok(()))
    }
}

impl Far {
    /// Carries both directions until each has ended, or one side is gone.
    pub(crate) async fn carry(
        self,
        from: ChannelReadHalf,
        to: ChannelWriteHalf<russh::server::Msg>,
    ) {
        let Self {
            input,
            room,
            output,
        } = self;
        tokio::join!(inwards(from, input, room), outwards(output, &to));
        if to.close().await.is_err() {
            tracing::trace!("the outer channel is gone");
        }
    }
}

/// From the outer channel.
async fn inwards(
    mut from: ChannelReadHalf,
    to: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
) {
    loop {
        let message = tokio::select! {
            message = from.wait() => message,
            () = to.closed() => None,
        };
        let mut data = match message {
            Some(ChannelMsg::Data { data }) => data,
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return,
            Some(_) => continue,
        };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let cost = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let room = tokio::select! {
                room = Arc::clone(&room).acquire_many_owned(cost) => room,
                () = to.closed() => return,
            };
            let Ok(room) = room else { return };
            if to.send((piece, room)).is_err() {
                return;
            }
        }
    }
}

/// To the outer channel.
async fn outwards(
    mut from: mpsc::UnboundedReceiver<Waiting>,
    to: &ChannelWriteHalf<russh::server::Msg>,
) {
    while let Some((piece, _room)) = from.recv().await {
        if to.data_bytes(piece).await.is_err() {
            return;
        }
    }
    if to.eof().await.is_err() {
        tracing::trace!("the outer channel is gone");
    }
}
