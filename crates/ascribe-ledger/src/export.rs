//! A plain C2SP tlog-tiles tree: any static file server publishes it.

use std::path::Path;

use ascribe_tlog::{Tree, encode_entry_bundle, entries_path, tile_path};

use crate::error::{self, LedgerError};
use crate::ledger::Ledger;
use crate::reader::Reader;
use crate::store::write_file;

const WIDTH: u64 = 256;

/// What can be exported.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A running ledger.
    Ledger(&'a Ledger),
    /// A stopped server's directory.
    Reader(&'a Reader),
}

impl Source<'_> {
    fn note_and_size(&self) -> (String, u64) {
        match self {
            Self::Ledger(ledger) => {
                let durable = ledger.shared().read();
                (durable.loaded.note.clone(), durable.loaded.tree.size())
            }
            Self::Reader(reader) => (reader.checkpoint_note().to_owned(), reader.size()),
        }
    }
    fn entries(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        match self {
            Self::Ledger(ledger) => ledger.entries(start..end),
            Self::Reader(reader) => reader.entries(start..end),
        }
    }
    fn tile(&self, level: u8, n: u64, width: u16) -> Option<Vec<u8>> {
        let read = |tree: &Tree| tree.tile(level, n, width);
        match self {
            Self::Ledger(ledger) => read(&ledger.shared().read().loaded.tree),
            Self::Reader(reader) => read(reader.tree()),
        }
    }
}

/// The tiles of one level: number and width of each.
fn tiles(nodes: u64) -> impl Iterator<Item = (u64, u16)> {
    (0..nodes.div_ceil(WIDTH)).map(move |n| {
        let width = (nodes - n * WIDTH).min(WIDTH);
        (n, u16::try_from(width).unwrap_or(256))
    })
}

/// Writes tiles, entry bundles and, last, the checkpoint. Full tiles that exist are kept: they
/// never change.
///
/// # Errors
/// When something cannot be read or written.
pub fn export_tlog(source: Source<'_>, to: &Path) -> Result<(), LedgerError> {
    let (note, size) = source.note_and_size();
    export_tlog_at(source, &note, size, to)
}

/// The same for the tree of `size` entries, which `note` is the signed checkpoint of.
///
/// # Errors
/// When something cannot be read or written.
pub fn export_tlog_at(
    source: Source<'_>,
    note: &str,
    size: u64,
    to: &Path,
) -> Result<(), LedgerError> {
    let put = |path: String, width: u16, make: &dyn Fn() -> Result<Vec<u8>, LedgerError>| {
        let path = to.join(path);
        if u64::from(width) == WIDTH && path.exists() {
            return Ok(());
        }
        write_file(&path, &make()?, 0o644)
    };
    for (n, width) in tiles(size) {
        put(entries_path(n, width), width, &|| {
            let start = n * WIDTH;
            let entries = source.entries(start, start + u64::from(width))?;
            encode_entry_bundle(&entries).map_err(|e| error::file(to, format!("cannot hold: {e}")))
        })?;
    }
    let mut level = 0;
    let mut nodes = size;
    while nodes > 0 {
        for (n, width) in tiles(nodes) {
            put(tile_path(level, n, width), width, &|| {
                let tile = source.tile(level, n, width);
                tile.ok_or_else(|| error::file(to, format!("lacks tile {level}/{n}")))
            })?;
        }
        nodes /= WIDTH;
        level += 1;
    }
    write_file(&to.join("checkpoint"), note.as_bytes(), 0o644)
}
