//! The copy of the head outside the data directory: rollback shows at the next start.

use ascribe_tlog::{Checkpoint, VerifierKey};

use crate::error::LedgerError;
use crate::load::Loaded;
use crate::store::HeadCopy;

/// The recovered tree must contain what the copy says was acknowledged.
pub(crate) fn check(copy: &dyn HeadCopy, loaded: &Loaded) -> Result<(), LedgerError> {
    let path = copy.name();
    let notes = copy.read().map_err(|source| LedgerError::Io {
        what: "read",
        path: path.clone(),
        source,
    })?;
    let keys: Vec<VerifierKey> = loaded.log_key.iter().cloned().collect();
    let mut newest: Option<Checkpoint> = None;
    let mut bad = None;
    for note in &notes {
        match Checkpoint::open(note.as_bytes(), &keys) {
            Ok(known) if newest.as_ref().is_some_and(|n| n.size >= known.size) => {}
            Ok(known) => newest = Some(known),
            Err(error) => bad = Some(error),
        }
    }
    let known = match (newest, bad) {
        (Some(known), _) => known,
        (None, None) => return Ok(()),
        (None, Some(error)) => {
            return Err(LedgerError::File {
                path,
                why: format!(
                    "holds no checkpoint of this log ({error}); if you know why, move it away"
                ),
            });
        }
    };
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
