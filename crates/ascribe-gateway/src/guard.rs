//! A client's stream that can be cut: by a deadline before login, by too many bytes before login,
//! and at any time from outside. The peer is not trusted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Most bytes that a client may send before it has logged in.
const PRE_AUTH_BYTES: u64 = 256 * 1024;

/// The switch of a [`Guarded`] socket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch {
    cut: CancellationToken,
    logged_in: Arc<AtomicBool>,
}

impl Switch {
    /// Cuts the connection now.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
    /// The client has logged in: the limits before login are lifted.
    pub(crate) fn log_in(&self) {
        self.logged_in.store(true, Ordering::Release);
    }
    pub(crate) fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Acquire)
    }
}

/// The socket.
pub(crate) struct Guarded<S> {
    socket: S,
    switch: Switch,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    received: AtomicU64,
}

impl<S> Guarded<S> {
    pub(crate) fn new(socket: S, switch: &Switch) -> Self {
        Self {
            socket,
            switch: switch.clone(),
            cut: Box::pin(switch.cut.clone().cancelled_owned()),
            received: AtomicU64::new(0),
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut")),
            Poll::Pending => Ok(()),
        }
    }
}

use std::future::Future as _;

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let got = buf.filled().len().saturating_sub(before) as u64;
        if !self.switch.is_logged_in() {
            let total = self.received.fetch_add(got, Ordering::Relaxed) + got;
            if total > PRE_AUTH_BYTES {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "too many bytes before login",
                )));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
