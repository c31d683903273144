//! The one function that writes to a target, and what it takes.

use std::io;

use ascribe_core::gate::{Action, Recorded};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt as _, WriteHalf};

use super::{GATHER, Stream};

/// What may be written to the target. The one function that writes takes these and nothing else.
pub(super) enum Cleared {
    /// Nothing is run by it.
    Free(Bytes),
    /// Everything that is run by it is on record.
    Recorded(Vec<Recorded>, Bytes),
}

impl Cleared {
    /// How much of it is gathered with others, in bytes.
    fn little(&self) -> usize {
        let (Self::Free(bytes) | Self::Recorded(_, bytes)) = self;
        if bytes.len() < GATHER { bytes.len() } else { 0 }
    }
}

/// Writes to the target.
pub(super) async fn forward(target: &mut WriteHalf<Stream>, burst: Vec<Cleared>) -> io::Result<()> {
    let little = burst.iter().map(Cleared::little).sum();
    let mut gathered = BytesMut::with_capacity(little);
    for cleared in burst {
        let bytes = match cleared {
            Cleared::Free(bytes) => bytes,
            Cleared::Recorded(recorded, bytes) => {
                for one in recorded {
                    let Action { .. } = one.into_action();
                }
                bytes
            }
        };
        if bytes.len() >= GATHER {
            if !gathered.is_empty() {
                target.write_all(&gathered.split()).await?;
            }
            target.write_all(&bytes).await?;
        } else {
            gathered.extend_from_slice(&bytes);
        }
    }
    if !gathered.is_empty() {
        target.write_all(&gathered).await?;
    }
    target.flush().await
}
