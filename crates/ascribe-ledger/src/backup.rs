//! A copy of a data directory that holds no secret, or one that holds them all.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use ascribe_core::segment::{self, BLOCK, End, Record};

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
    let lock = Lock::take(from)?;
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
    copy(from, to, with_keys, &mut files)?;
    drop(lock);
    Ok(files)
}

fn copy(from: &Path, to: &Path, with_keys: bool, files: &mut u64) -> Result<(), LedgerError> {
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private.create(to).map_err(error::io("create", to))?;
    for entry in fs::read_dir(from).map_err(error::io("read", from))? {
        let entry = entry.map_err(error::io("read", from))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(error::io("read", &path))?;
        let name = entry.file_name();
        let extension = path.extension().unwrap_or_default().to_owned();
        let secret = name == "keys" || extension == "keys";
        if name == "lock" || extension == "tmp" || (secret && !with_keys) {
            continue;
        }
        if kind.is_dir() {
            copy(&path, &to, with_keys, files)?;
        } else if kind.is_file() {
            let bytes = fs::read(&path).map_err(error::io("read", &path))?;
            let bytes = match extension == "seg" && !with_keys {
                true => without_keys(&path, &bytes)?,
                false => bytes,
            };
            write(&to, &bytes).map_err(error::io("write", &to))?;
            *files += 1;
        } else {
            return Err(error::file(
                &path,
                "is neither a file nor a directory, so a copy would lack it; put it in place first",
            ));
        }
    }
    let dir = File::open(to).and_then(|dir| dir.sync_all());
    dir.map_err(error::io("sync", to))
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
