//! What a client sends, taken off the library's hands at once.
//!
//! The library reads a connection in one loop, and the loop waits for whoever does not take a channel's
//! messages. Then nothing else is read: neither other channels, nor the window that a channel's own
//! output waits for. So everything is taken at once and held here, and a client that sends faster than
//! its target reads is slowed down by its window; see `docs/decisions/0010-a-client-is-slowed-by-its-window.md`.

use std::sync::Arc;
use std::time::Duration;

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A channel's window: so much may come before the client waits for more.
pub(crate) const WINDOW: u32 = 2 << 20;
/// The window of all channels while too much is held: the library opens no window by half, but one of
/// nothing, and it asks again each time.
const NARROW: u32 = 2;
/// A client that sends through the narrow window is heard this often: what it sends then keeps the
/// line open, and nobody waits for it. At this pace a stalled channel needs more than two hours to
/// come from [`HELD`] to [`MOST`].
const NARROW_PACE: Duration = Duration::from_millis(20);
/// Bytes of one connection that are held before its windows become narrow.
const HELD: usize = 1 << 20;
/// Bytes of one connection that are held before it is not read any more. Only many channels at once,
/// hours, or a client that ignores its windows, come to this.
const MOST: usize = 32 << 20;
/// What a message costs beside its bytes.
const MESSAGE: usize = 64;

/// How much of a connection's input is held.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Semaphore>);

impl Held {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }

    fn too_much(&self) -> bool {
        self.0.available_permits() < MOST - HELD
    }

    /// The window that the library opens next.
    pub(crate) fn window(&self) -> u32 {
        if self.too_much() { NARROW } else { WINDOW }
    }

    /// Waits a moment where so many bytes came through a narrow window.
    pub(crate) async fn pace(&self, bytes: usize) {
        if bytes <= NARROW as usize && self.too_much() {
            tokio::time::sleep(NARROW_PACE).await;
        }
    }
}

/// A channel's input. Boxed, for a queue keeps places for many, and most are idle.
pub(crate) struct Incoming(mpsc::UnboundedReceiver<Box<(ChannelMsg, OwnedSemaphorePermit)>>);

impl Incoming {
    pub(crate) fn new(mut read: ChannelReadHalf, held: &Held) -> Self {
        let held = Arc::clone(&held.0);
        // The permits are its bound.
        let (queue, input) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = read.wait() => message,
                    () = queue.closed() => None,
                };
                let Some(message) = message else { return };
                let bytes = match &message {
                    ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => data.len(),
                    _ => 0,
                };
                let cost =
                    u32::try_from(bytes.saturating_add(MESSAGE).min(MOST)).unwrap_or(u32::MAX);
                let permit = tokio::select! {
                    permit = Arc::clone(&held).acquire_many_owned(cost) => permit,
                    () = queue.closed() => return,
                };
                let Ok(permit) = permit else { return };
                if queue.send(Box::new((message, permit))).is_err() {
                    return;
                }
            }
        });
        Self(input)
    }

    /// The next message; none at the connection's end.
    pub(crate) async fn wait(&mut self) -> Option<ChannelMsg> {
        self.0.recv().await.map(|held| held.0)
    }
}

/// Where a channel's messages come from.
pub(crate) trait Messages: Send {
    /// The next message; none at the connection's end.
    fn wait(&mut self) -> impl Future<Output = Option<ChannelMsg>> + Send;
}

impl Messages for Incoming {
    async fn wait(&mut self) -> Option<ChannelMsg> {
        Self::wait(self).await
    }
}

impl Messages for ChannelReadHalf {
    async fn wait(&mut self) -> Option<ChannelMsg> {
        Self::wait(self).await
    }
}
