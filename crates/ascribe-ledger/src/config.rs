//! `config.json` and the keys of a data directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ascribe_tlog::SigningKey;
use serde::{Deserialize, Serialize};

use crate::error::{self, LedgerError};
use crate::keys::Secret;
use crate::store::write_file;

/// Smallest segment. The largest entry with sealed content needs 2 MiB.
pub const MIN_SEGMENT: u64 = 64 << 10;
/// The usual segment.
pub const DEFAULT_SEGMENT: u64 = 16 << 20;
/// Largest segment.
pub const MAX_SEGMENT: u64 = 1 << 30;

/// What a data directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this form: 1.
    pub v: u8,
    /// Origin of the log.
    pub origin: String,
    /// The file that holds the wrapping key; outside the data directory.
    pub wrap_key: PathBuf,
    /// The copy of the head; outside the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<PathBuf>,
    /// Size of a new segment.
    pub segment_bytes: u64,
}

impl Config {
    fn path(dir: &Path) -> PathBuf {
        dir.join("config.json")
    }
    /// Reads a data directory's config.
    ///
    /// # Errors
    /// When there is none, or it makes no sense.
    pub fn load(dir: &Path) -> Result<Self, LedgerError> {
        let path = Self::path(dir);
        let bytes = fs::read(&path).map_err(error::io("read", &path))?;
        let config: Self = serde_json::from_slice(&bytes)
            .map_err(|e| error::file(&path, format!("is not a ledger's config: {e}")))?;
        config.check(&path)?;
        Ok(config)
    }
    pub(crate) fn check(&self, path: &Path) -> Result<(), LedgerError> {
        if self.v != 1 {
            return Err(error::file(
                path,
                "has an unknown version; use a newer ascribe",
            ));
        }
        let size = self.segment_bytes;
        if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&size) || !size.is_multiple_of(512) {
            return Err(error::file(
                path,
                "needs `segment_bytes` between 64 KiB and 1 GiB, a multiple of 512",
            ));
        }
        Ok(())
    }
    pub(crate) fn store(&self, dir: &Path) -> Result<(), LedgerError> {
        let path = Self::path(dir);
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| error::file(&path, format!("cannot be encoded: {e}")))?;
        bytes.push(b'\n');
        write_file(&path, &bytes, 0o600)
    }
}

pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// Writers whose keys this process holds.
pub(crate) const WRITERS: [&str; 2] = [ascribe_core::law::SERVER, "gateway"];

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) log: SigningKey,
    pub(crate) writers: BTreeMap<String, SigningKey>,
}

fn seed_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("keys").join(format!("{name}.seed"))
}

fn signing_key(path: &Path, name: &str) -> Result<SigningKey, LedgerError> {
    let seed = Secret::load(path)?;
    SigningKey::from_seed(name, seed.bytes())
        .map_err(|e| error::file(path, format!("cannot be used: {e}")))
}

impl Keys {
    pub(crate) fn create(dir: &Path, rng: &dyn crate::clock::Rng) -> Result<(), LedgerError> {
        for name in ["log"].iter().chain(&WRITERS) {
            Secret::draw(rng)?.store(&seed_path(dir, name))?;
        }
        Ok(())
    }
    pub(crate) fn load(dir: &Path, origin: &str) -> Result<Self, LedgerError> {
        let mut writers = BTreeMap::new();
        for name in WRITERS {
            writers.insert(name.to_owned(), signing_key(&seed_path(dir, name), name)?);
        }
        Ok(Self {
            log: signing_key(&seed_path(dir, "log"), origin)?,
            writers,
        })
    }
}
