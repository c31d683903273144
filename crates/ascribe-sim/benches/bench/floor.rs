//! The floor: a bare group-commit loop. One thread takes what waits, writes it with one call into
//! a file of real zeros, syncs once, answers. Nothing is parsed, hashed, signed or encrypted.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// Most entries in one group.
const GROUP: usize = 64;

/// One entry and who waits for it.
struct Put {
    bytes: Vec<u8>,
    reply: oneshot::Sender<()>,
}

/// A loop that makes entries durable in groups.
pub(crate) struct Loop {
    queue: Sender<Put>,
    thread: JoinHandle<Result<()>>,
}

impl Loop {
    /// `flush` makes one group durable.
    pub(crate) fn start(
        mut flush: impl FnMut(&[&[u8]]) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (queue, puts) = mpsc::channel();
        let thread = std::thread::Builder::new().spawn(move || run(&puts, &mut flush))?;
        Ok(Self { queue, thread })
    }

    /// Whoever writes.
    pub(crate) fn writer(&self) -> Writer {
        Writer(self.queue.clone())
    }

    /// Ends the loop once all writers are gone.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.queue);
        let done = self.thread.join();
        done.ok().context("the loop broke")?
    }
}

/// One of many writers.
pub(crate) struct Writer(Sender<Put>);

impl Writer {
    /// Waits until the entry is durable.
    pub(crate) async fn put(&self, bytes: Vec<u8>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Put { bytes, reply }).ok().context("no loop")?;
        Ok(answer.await?)
    }
}

fn run(puts: &Receiver<Put>, flush: &mut impl FnMut(&[&[u8]]) -> Result<()>) -> Result<()> {
    while let Ok(first) = puts.recv() {
        let mut group = vec![first];
        group.extend(puts.try_iter().take(GROUP - 1));
        let bytes: Vec<&[u8]> = group.iter().map(|put| put.bytes.as_slice()).collect();
        flush(&bytes)?;
        for put in group {
            put.reply.send(()).ok().context("a writer is gone")?;
        }
    }
    Ok(())
}

/// A file of that many real zeros, on stable storage.
pub(crate) fn zeros(path: &Path, bytes: usize) -> Result<File> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()?;
    Ok(file)
}

/// Appends each group to `file`: one write, one sync.
pub(crate) fn append_to(file: File) -> impl FnMut(&[&[u8]]) -> Result<()> + Send + 'static {
    let mut at = 0;
    move |group| {
        let bytes = group.concat();
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += bytes.len() as u64;
        Ok(())
    }
}
