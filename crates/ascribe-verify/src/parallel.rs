//! Hashing and parsing on every core; the law itself is one fold and stays in order.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use ascribe_core::law::{self, Denied, Whole};
use ascribe_tlog::{Hash, leaf_hash};

/// Entries that go from thread to thread together.
const CHUNK: usize = 256;
/// Chunks that each thread may be ahead.
const AHEAD: usize = 4;

fn threads(entries: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.min(entries.div_ceil(CHUNK)).clamp(1, 16)
}

/// The leaf hash of each entry, in order.
pub(crate) fn leaf_hashes(entries: &[Vec<u8>]) -> Vec<Hash> {
    let hash = |part: &[Vec<u8>]| {
        part.iter()
            .map(|entry| leaf_hash(entry))
            .collect::<Vec<_>>()
    };
    let each = entries.len().div_ceil(threads(entries.len())).max(1);
    thread::scope(|scope| {
        let others: Vec<_> = entries
            .chunks(each)
            .map(|part| (part, scope.spawn(move || hash(part))))
            .collect();
        let mut all = Vec::with_capacity(entries.len());
        for (part, thread) in others {
            // A thread that panicked has its work done again here.
            all.extend(thread.join().unwrap_or_else(|_| hash(part)));
        }
        all
    })
}

/// An entry, or why the bytes are none.
pub(crate) type Parsed = Result<Whole, Denied>;
type Chunk = Vec<Parsed>;

/// Parses every `of`th chunk. What was used comes back: memory is cheapest freed where it was taken.
fn parse(
    entries: &[Vec<u8>],
    (which, of): (usize, usize),
    to: &SyncSender<Chunk>,
    used: &Receiver<Chunk>,
) {
    for chunk in entries.chunks(CHUNK).skip(which).step_by(of) {
        let parsed = chunk.iter().map(|bytes| law::read_whole(bytes)).collect();
        if to.send(parsed).is_err() {
            // Nobody wants more.
            return;
        }
        used.try_iter().for_each(drop);
    }
}

/// Parses all entries and gives each, in order, to `each`, until that says stop.
pub(crate) fn for_each<E>(
    entries: &[Vec<u8>],
    mut each: impl FnMut(u64, &Parsed) -> Result<(), E>,
) -> Result<(), E> {
    let of = threads(entries.len());
    thread::scope(|scope| {
        let queues: Vec<(Receiver<Chunk>, Sender<Chunk>)> = (0..of)
            .map(|which| {
                let (to, queue) = sync_channel(AHEAD);
                let (back, used) = channel();
                let thread = thread::Builder::new().name("parse".to_owned());
                let run = move || parse(entries, (which, of), &to, &used);
                // Without a thread the queue is closed at once, and the work is done below.
                drop(thread.spawn_scoped(scope, run));
                (queue, back)
            })
            .collect();
        let mut index = 0;
        for (chunk, (queue, back)) in entries.chunks(CHUNK).zip(queues.iter().cycle()) {
            // A thread that panicked has its work done again here.
            let parsed = queue
                .recv()
                .unwrap_or_else(|_| chunk.iter().map(|bytes| law::read_whole(bytes)).collect());
            for read in &parsed {
                each(index, read)?;
                index += 1;
            }
            // A thread that has ended takes nothing back.
            back.send(parsed).unwrap_or_default();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_in_order_and_stops_when_asked() {
        let entries: Vec<Vec<u8>> = (0..3000u32).map(|n| n.to_string().into_bytes()).collect();
        let hashes: Vec<Hash> = entries.iter().map(|e| leaf_hash(e)).collect();
        assert_eq!(leaf_hashes(&entries), hashes);
        assert!(leaf_hashes(&[]).is_empty());
        let mut seen = Vec::new();
        let stopped = for_each(&entries, |index, read| {
            assert!(read.is_err(), "no entry");
            seen.push(index);
            if index == 2000 { Err("enough") } else { Ok(()) }
        });
        assert_eq!(stopped, Err("enough"));
        assert_eq!(seen, (0..=2000).collect::<Vec<_>>());
        let mut count = 0;
        for_each(&entries, |_, _| {
            count += 1;
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(count, entries.len());
    }
}
