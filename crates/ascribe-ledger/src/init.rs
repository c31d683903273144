//! A new ledger.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Genesis, WriterKey};
use ascribe_core::id::{EntryHash, EntryId};
use ascribe_core::law::{SERVER, State};
use ascribe_core::record::{Proposal, Receipt, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::PersonAdd;
use ascribe_tlog::{VerifierKey, empty_root};
use tokio::sync::oneshot;

use crate::commit::{header, write};
use crate::config::{Config, DEFAULT_SEGMENT, Keys, segments_dir};
use crate::error::{self, LedgerError};
use crate::files::Files;
use crate::keys::Secret;
use crate::load::Loaded;
use crate::objects::LocalObjects;
use crate::recovery::{self, Drivers, Stores};
use crate::reply::Reply;
use crate::sequencer::{Command, Draft};
use crate::store::{LocalHead, LocalJournal, Lock};

/// What a new ledger begins with.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Origin of the log.
    pub origin: String,
    /// The first administrators, each with the opening of the name.
    pub admins: Vec<(PersonAdd, Opening)>,
    /// Admin signatures that a proposal needs.
    pub admin_quorum: u32,
    /// Where the wrapping key goes, outside the data directory.
    pub wrap_key: PathBuf,
    /// Where the copy of the head goes, outside the data directory.
    pub head: Option<PathBuf>,
    /// Size of a segment.
    pub segment_bytes: u64,
}

impl InitOptions {
    /// The usual sizes.
    pub fn new(origin: &str, wrap_key: &Path) -> Self {
        Self {
            origin: origin.to_owned(),
            admins: Vec::new(),
            admin_quorum: 1,
            wrap_key: wrap_key.to_owned(),
            head: None,
            segment_bytes: DEFAULT_SEGMENT,
        }
    }
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The log's key, for trust policies.
    pub log_key: VerifierKey,
    /// Hash of the first entry, for trust policies.
    pub first_entry: EntryHash,
    /// The first entry's receipt.
    pub receipt: Receipt,
}

/// Where a path leads, as far as it exists: links and `..` are followed.
fn resolved(path: &Path) -> PathBuf {
    let found = path
        .ancestors()
        .find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match found {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(path)),
        None => path.to_owned(),
    }
}

fn outside(dir: &Path, path: &Path) -> Result<PathBuf, LedgerError> {
    let absolute = std::path::absolute(path).map_err(error::io("find", path))?;
    let dir = std::path::absolute(dir).map_err(error::io("find", dir))?;
    if absolute.starts_with(&dir) || resolved(&absolute).starts_with(resolved(&dir)) {
        return Err(error::file(
            &absolute,
            "must lie outside the data directory; choose another place",
        ));
    }
    Ok(absolute)
}

fn prepare(dir: &Path) -> Result<(), LedgerError> {
    fs::create_dir_all(dir).map_err(error::io("create", dir))?;
    let mut content = fs::read_dir(dir).map_err(error::io("read", dir))?;
    if content.next().is_some() {
        return Err(LedgerError::NotEmpty(dir.display().to_string()));
    }
    private(dir)
}

fn private(dir: &Path) -> Result<(), LedgerError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(error::io("protect", dir))
}

fn genesis(options: &InitOptions, keys: &Keys) -> Body {
    let writers = keys.writers.iter().map(|(id, key)| WriterKey {
        id: id.clone(),
        key: Bytes(key.verifier().public_key().to_vec()),
    });
    Body::Genesis(Genesis {
        log_key: keys.log.verifier().to_string(),
        admins: options
            .admins
            .iter()
            .map(|(admin, _)| admin.clone())
            .collect(),
        admin_quorum: options.admin_quorum,
        writers: writers.collect(),
    })
}

/// Makes a ledger in an empty directory. The config is written last: a directory without one was
/// not finished.
pub(crate) fn init(
    dir: &Path,
    options: &InitOptions,
    drivers: &Drivers,
) -> Result<Made, LedgerError> {
    let config = Config {
        v: 1,
        origin: options.origin.clone(),
        wrap_key: outside(dir, &options.wrap_key)?,
        head: options
            .head
            .as_deref()
            .map(|path| outside(dir, path))
            .transpose()?,
        segment_bytes: options.segment_bytes,
    };
    config.check(&dir.join("config.json"))?;
    if config.head.as_ref() == Some(&config.wrap_key) {
        let why = "is to be the wrapping key and the head copy; choose two places";
        return Err(error::file(&config.wrap_key, why));
    }
    prepare(dir)?;
    let lock = Lock::take(dir)?;
    let segments = segments_dir(dir);
    for path in [&segments, &dir.join("keys")] {
        fs::create_dir(path).map_err(error::io("create", path))?;
        private(path)?;
    }
    Secret::draw(&*drivers.rng)?.store(&config.wrap_key)?;
    Keys::create(dir, &*drivers.rng)?;
    let head = config
        .head
        .as_deref()
        .map(|path| Box::new(LocalHead::new(path)) as _);
    let journal = Arc::new(LocalJournal::new(&segments, true));
    let objects = Arc::new(LocalObjects::new(dir));
    let made = begin(
        dir,
        options,
        &config,
        Stores {
            journal,
            objects,
            head,
        },
        drivers,
    )?;
    config.store(dir)?;
    drop(lock);
    Ok(made)
}

pub(crate) fn begin(
    dir: &Path,
    options: &InitOptions,
    config: &Config,
    stores: Stores,
    drivers: &Drivers,
) -> Result<Made, LedgerError> {
    let keys = Keys::load(dir, &config.origin)?;
    let log_key = keys.log.verifier();
    let body = genesis(options, &keys);
    let journal = Arc::clone(&stores.journal);
    journal
        .allocate(0, config.segment_bytes)
        .map_err(|source| LedgerError::Io {
            what: "allocate",
            path: journal.name(0),
            source,
        })?;
    write(
        &*journal,
        0,
        0,
        &header(&config.origin, 0, 0, empty_root()).to_block(),
    )?;
    let loaded = Loaded {
        origin: config.origin.clone(),
        log_key: Some(log_key.clone()),
        cursor: Some(recovery::first_cursor(config.segment_bytes)),
        ..Loaded::default()
    };
    let files = Files::new(stores.journal, stores.objects);
    let wrap = Secret::load(&config.wrap_key)?;
    let state = State::new(&config.origin);
    let mut core = recovery::build(
        config,
        (files, stores.head),
        drivers,
        keys,
        wrap,
        state,
        loaded,
    )?;
    let mut id = [0; 16];
    drivers.rng.fill(&mut id)?;
    let proposal = Proposal {
        id: EntryId::new(id),
        writer: SERVER.to_owned(),
        body,
        openings: options
            .admins
            .iter()
            .map(|(_, name)| name.clone())
            .collect(),
        scope: Scope::None,
    };
    let scopes = options
        .admins
        .iter()
        .map(|(admin, _)| Scope::Person(admin.person))
        .collect();
    let draft = Box::new(Draft {
        proposal,
        scopes: Some(scopes),
    });
    let (reply, mut answer) = oneshot::channel();
    let mut backlog = VecDeque::from([Command::Record {
        draft,
        reply: Reply::One(reply),
        permit: None,
    }]);
    core.serve(&mut backlog, false);
    let receipt = match answer.try_recv() {
        Ok(Ok(receipt)) => receipt,
        Ok(Err(ascribe_core::record::RecordError::Denied(denied))) => return Err(denied.into()),
        Ok(Err(error)) => return Err(LedgerError::Stopped(error.to_string())),
        Err(_) => return Err(LedgerError::Stopped("no answer".to_owned())),
    };
    let first_entry = ascribe_core::entry::entry_hash(&receipt.entry);
    Ok(Made {
        log_key,
        first_entry,
        receipt,
    })
}
