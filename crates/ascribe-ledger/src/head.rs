//! The copy of the head outside the data directory: rollback shows at the next start.

use ascribe_tlog::{Checkpoint, VerifierKey};

use crate::error::LedgerError;
use crate::load::Loaded;
use crate::store::HeadCopy;

/// The recovered tree must contain what the copy says was acknowledged.
pub(crate) fn check(copy: &dyn HeadCopy, loaded: &Loaded) -> Result<(), LedgerError> {
    let path = copy.name();
    let note = copy.read().map_err(|source| LedgerError::Io {
        what: "read",
        path: path.clone(),
        source,
    })?;
    let Some(note) = note else { return Ok(()) };
    let keys: Vec<VerifierKey> = loaded.log_key.iter().cloned().collect();
    let known = Checkpoint::open(note.as_bytes(), &keys).map_err(|e| LedgerError::File {
        path: path.clone(),
        why: format!("is no checkpoint of this log ({e}); if you know why, move it away"),
    })?;
    let size = loaded.tree.size();
    let rollback = |why| LedgerError::Rollback {
        head: path.clone(),
        size,
        known: known.size,
        why,
    };
    match loaded.tree.root_at(known.size) {
        _ if known.origin != loaded.origin => Err(rollback(" of another log")),
        None => Err(rollback("")),
        Some(root) if root != known.root => Err(rollback(" with other content")),
        Some(_) => Ok(()),
    }
}
