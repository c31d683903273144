//! What can go wrong, naming the file and the way out.

use std::io;
use std::path::Path;

use ascribe_core::law::Denied;

/// Why the ledger cannot be made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("`{0}` is in use by another process; stop that one, or use another data directory")]
    Locked(String),
    /// A new ledger needs an empty directory.
    #[error("`{0}` is not empty; a new ledger needs an empty directory")]
    NotEmpty(String),
    /// A file of the data directory does not make sense.
    #[error("`{path}` {why}")]
    File {
        /// Which.
        path: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Stored data is damaged or was changed.
    #[error(
        "`{path}` is damaged at offset {offset}: {why}; restore it from a copy, nothing was changed"
    )]
    Damaged {
        /// Which segment.
        path: String,
        /// Where.
        offset: u64,
        /// How.
        why: String,
    },
    /// The data directory is older than what was acknowledged.
    #[error(
        "rollback: the ledger has {size} entries, but `{head}` records {known}{why}; \
         restore the newer data directory"
    )]
    Rollback {
        /// The copy of the head.
        head: String,
        /// Entries found.
        size: u64,
        /// Entries that were acknowledged.
        known: u64,
        /// More.
        why: &'static str,
    },
    /// The law does not allow it.
    #[error("the law refuses: {0}")]
    Denied(#[from] Denied),
    /// A write or a sync failed; nothing is recorded until a restart.
    #[error("the ledger stopped: {0}; restart to recover")]
    Stopped(String),
    /// No space for this.
    #[error("disk full: no next segment can be allocated; free space")]
    Full,
    /// A cryptographic operation failed.
    #[error("cannot {0}")]
    Crypto(&'static str),
}

pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.display().to_string();
    move |source| LedgerError::Io { what, path, source }
}

pub(crate) fn file(path: &Path, why: impl Into<String>) -> LedgerError {
    LedgerError::File {
        path: path.display().to_string(),
        why: why.into(),
    }
}
