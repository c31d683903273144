//! A copy of a data directory that holds no secret, or one that holds them all.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use ascribe_core::segment::{self, BLOCK, End, Record};
use ascribe_tlog::parse_tile_path;

use crate::error::{self, LedgerError};
use crate::store::Lock;

/// Copies the stopped ledger in `from` to the new directory `to`; says how many files it wrote.
///
/// With keys the copy is complete and runs like the original. Without, neither the signing keys nor
/// any wrapped evidence key is in it: everything in it verifies, nothing sealed in it can be read,
/// not even with the wrapping key. A torn tail, which was never acknowledged, is left out.
///
/// # Errors
/// When the ledger is in use, `to` exists, or something cannot be read or written.
pub fn backup(from: &Path, to: &Path, with_keys: bool) -> Result<u64, LedgerError> {
    let lock = Lock::share(from)?;
    if to.exists() {
        return Err(error::file(to, "exists; name a directory that does not"));
    }
    let above = to.parent().filter(|dir| !dir.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    let above = fs::canonicalize(above).map_err(error::io("find", above))?;
    if above.starts_with(fs::canonicalize(from).map_err(error::io("find", from))?) {
        return Err(error::file(
            to,
            "lies in what is copied; name another place",
        ));
    }
    let mut files = 0;
    copy(from, to, Path::new(""), with_keys, &mut files)?;
    // The config comes last: a copy that broke off is no data directory.
    copy_file(from, to, Path::new(CONFIG), with_keys)?;
    let dir = File::open(to).and_then(|dir| dir.sync_all());
    dir.map_err(error::io("sync", to))?;
    drop(lock);
    Ok(files + 1)
}

const CONFIG: &str = "config.json";

/// Is this file one that a copy without secrets needs? What is not known may be anything.
fn is_known(path: &Path) -> bool {
    let numbered = |name: &str, end: &str| {
        let number = name.strip_suffix(end);
        number.is_some_and(|n| n.len() >= 8 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["snapshot" | "trust-policy.txt"] | ["tree", "checkpoint"] => true,
        ["segments", name] => numbered(name, ".seg"),
        ["evidence", name] => numbered(name, ".pack"),
        ["tree", "tile", ..] => {
            let tile = parts.get(1..).map(|tile| tile.join("/"));
            tile.is_some_and(|tile| parse_tile_path(&tile).is_ok())
        }
        _ => false,
    }
}

fn copy_file(from: &Path, to: &Path, path: &Path, with_keys: bool) -> Result<(), LedgerError> {
    let (from, to) = (from.join(path), to.join(path));
    let bytes = fs::read(&from).map_err(error::io("read", &from))?;
    let bytes = match path.starts_with("segments") && !with_keys {
        true => without_keys(&from, &bytes)?,
        false => bytes,
    };
    write(&to, &bytes).map_err(error::io("write", &to))
}

/// Everything in and below `path`, except for the config.
fn copy(
    from: &Path,
    to: &Path,
    path: &Path,
    with_keys: bool,
    files: &mut u64,
) -> Result<(), LedgerError> {
    let (dir, copied) = (from.join(path), to.join(path));
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private
        .create(&copied)
        .map_err(error::io("create", &copied))?;
    for entry in fs::read_dir(&dir).map_err(error::io("read", &dir))? {
        let entry = entry.map_err(error::io("read", &dir))?;
        let part = path.join(entry.file_name());
        let kind = entry
            .file_type()
            .map_err(error::io("read", &entry.path()))?;
        let left_out = part == Path::new(CONFIG)
            || part == Path::new("lock")
            || part.extension().is_some_and(|e| e == "tmp")
            || (part == Path::new("keys") && !with_keys);
        if left_out {
            continue;
        }
        if kind.is_dir() {
            copy(from, to, &part, with_keys, files)?;
        } else if kind.is_file() {
            if with_keys || is_known(&part) {
                copy_file(from, to, &part, with_keys)?;
                *files += 1;
            }
        } else {
            return Err(error::file(
                &entry.path(),
                "is neither a file nor a directory, so a copy would lack it; put it in place first",
            ));
        }
    }
    let dir = File::open(&copied).and_then(|dir| dir.sync_all());
    dir.map_err(error::io("sync", &copied))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The same segment, its batches written anew without the keys. What the log signed is unchanged.
fn without_keys(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, LedgerError> {
    let damaged = |offset, why: &str| LedgerError::Damaged {
        path: path.display().to_string(),
        offset,
        why: why.to_owned(),
    };
    let scan = segment::scan(bytes);
    if let End::Corrupt(corrupt) = scan.end {
        return Err(damaged(corrupt.offset, corrupt.why));
    }
    let Some(header) = scan.header else {
        return Ok(vec![0; bytes.len()]);
    };
    let mut out = header.to_block();
    for batch in scan.batches {
        let kept: Vec<Record> = batch
            .records
            .into_iter()
            .filter(|record| !matches!(record, Record::Key { .. }))
            .collect();
        let block = (out.len() / BLOCK) as u64;
        let batch = segment::encode_batch(header.first, block, batch.number, &kept, &batch.commit)
            .map_err(|e| damaged(batch.block * BLOCK as u64, &e.to_string()))?;
        out.extend_from_slice(&batch);
    }
    out.resize(bytes.len(), 0);
    Ok(out)
}
