//! Reads a stopped server's data directory; writes nothing.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ascribe_core::record::Scope;
use ascribe_core::sealed::Opening;
use ascribe_tlog::{Tree, VerifierKey};

use crate::config::{Config, segments_dir};
use crate::error::LedgerError;
use crate::files::Files;
use crate::keys::{Opener, Secret};
use crate::load::{self, Loaded, Signatures};
use crate::objects::LocalObjects;
use crate::store::{LocalJournal, Lock};

/// A data directory, read-only. Blocks, roots and signatures were checked; the law was not.
#[derive(Debug)]
pub struct Reader {
    files: Files,
    loaded: Loaded,
    config: Config,
    opener: Result<Opener, String>,
    #[expect(dead_code, reason = "held as long as the directory is read")]
    lock: Option<Lock>,
}

impl Reader {
    /// Reads everything and checks it. A torn last batch is left where it is and not shown.
    ///
    /// # Errors
    /// When a server has it open, or it is damaged; the message names file and offset.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let config = Config::load(dir)?;
        let lock = Lock::share(dir)?;
        let journal = Arc::new(LocalJournal::new(&segments_dir(dir), false));
        let files = Files::new(journal, Arc::new(LocalObjects::new(dir)));
        let nothing = (Tree::new(), None);
        let loaded = load::load(
            &files,
            &config.origin,
            nothing,
            Signatures::All,
            &mut |_, _| Ok(()),
        )?;
        let opener = Secret::load(&config.wrap_key)
            .map(|wrap| Opener::new(&config.origin, wrap))
            .map_err(|e| e.to_string());
        Ok(Self {
            files,
            loaded,
            config,
            opener,
            lock,
        })
    }

    /// The directory's config.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// The newest checkpoint, a signed note.
    pub fn checkpoint_note(&self) -> &str {
        &self.loaded.note
    }
    /// The log's key, as the first entry names it.
    pub fn log_key(&self) -> Option<&VerifierKey> {
        self.loaded.log_key.as_ref()
    }
    /// The Merkle tree.
    pub fn tree(&self) -> &Tree {
        &self.loaded.tree
    }
    /// Every wrapped key.
    #[cfg(test)]
    pub(crate) fn loaded_keys(&self) -> Vec<&Vec<u8>> {
        self.loaded.keys.values().map(|key| &key.wrapped).collect()
    }
    /// How many entries there are.
    pub fn size(&self) -> u64 {
        self.loaded.tree.size()
    }
    /// Entries, as far as there are any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found = Vec::new();
        let mut index = range.start;
        while index < range.end {
            let some = self
                .files
                .some_entries(&|i| self.loaded.find(i), index, range.end)?;
            if some.is_empty() {
                break;
            }
            index += some.len() as u64;
            found.extend(some);
        }
        Ok(found)
    }
    /// Can sealed content be read?
    ///
    /// # Errors
    /// Why the wrapping key is not at hand.
    pub fn can_open(&self) -> Result<(), &str> {
        self.opener.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// Checks what opening the directory does not need: every byte of every pack, every tile of
    /// hashes, and the checkpoint beside them.
    ///
    /// # Errors
    /// When something is missing or damaged; the message names the file.
    pub fn check_archive(&self) -> Result<(), LedgerError> {
        for span in &self.loaded.packs {
            self.files.pack(span.segment)?;
        }
        let Some(size) = self.files.published(&self.loaded)? else {
            return Ok(());
        };
        for path in ascribe_tlog::tiles_of(size) {
            let ascribe_tlog::TileKind::Hashes(level) = path.kind else {
                continue;
            };
            let expected = self.loaded.tree.tile(level, path.n, path.width);
            self.files.check_tile(&path, expected.as_deref())?;
        }
        Ok(())
    }

    /// The openings of one entry.
    ///
    /// # Errors
    /// When the wrapping key cannot be read, or something does not decrypt.
    pub fn openings(&self, index: u64) -> Result<Vec<Opening>, LedgerError> {
        match &self.opener {
            Ok(opener) => {
                let key_of = |scope: &Scope| self.loaded.keys.get(scope).cloned();
                self.files
                    .openings(&|i| self.loaded.find(i), &key_of, opener, index)
            }
            Err(why) => Err(LedgerError::File {
                path: self.config.wrap_key.display().to_string(),
                why: format!("is needed to read sealed content: {why}"),
            }),
        }
    }
}
