//! The start. Every start is a recovery: there is no other path.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use ascribe_core::entry::{Body, CloseReason, Outcome, SessionClose, Status};
use ascribe_core::id::EntryId;
use ascribe_core::law::{Judge, SERVER, State};
use ascribe_core::record::{Proposal, Scope};
use ascribe_core::segment::BLOCK;
use ascribe_tlog::Tree;
use tokio::sync::oneshot;

use crate::clock::{Clock, ClockGuard, Rng};
use crate::commit::{Allocation, write};
use crate::committer::{Committer, Writer};
use crate::config::{Config, Keys};
use crate::durable::Shared;
use crate::error::{self, LedgerError};
use crate::files::Files;
use crate::gather::Gathering;
use crate::head;
use crate::keys::{Opener, Secret, Vault};
use crate::load::{self, Cursor, Loaded, Signatures};
use crate::objects::Objects;
use crate::reply::Reply;
use crate::sequencer::{Command, Core, Draft, Group, JudgeDebug, SharedJudge};
use crate::snapshot::{self, Believed};
use crate::store::{HeadCopy, Journal};

/// What the ledger stands on.
#[derive(Debug)]
pub struct Stores {
    /// Segments.
    pub journal: Arc<dyn Journal>,
    /// Tiles, packs and snapshots.
    pub objects: Arc<dyn Objects>,
    /// The head's copy, where there is one.
    pub head: Option<Box<dyn HeadCopy>>,
}

/// What drives the ledger.
#[derive(Clone)]
pub struct Drivers {
    /// Checks signatures.
    pub judge: Arc<dyn Judge>,
    /// Reads time.
    pub clock: Arc<dyn Clock>,
    /// Draws random bytes.
    pub rng: Arc<dyn Rng>,
}

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drivers")
            .field("clock", &self.clock)
            .field("rng", &self.rng)
            .finish_non_exhaustive()
    }
}

/// A torn tail was never acknowledged: zeros, durably, before anything new is written.
fn drop_tail(journal: &dyn Journal, segment: u64, block: u64) -> Result<(), LedgerError> {
    let fail = |what| {
        move |source| LedgerError::Io {
            what,
            path: journal.name(segment),
            source,
        }
    };
    let len = journal.bytes(segment).map_err(fail("read"))?;
    let mut offset = block * BLOCK as u64;
    while offset < len {
        let part = usize::try_from((len - offset).min(1 << 20)).unwrap_or(1 << 20);
        let dirty = journal
            .read(segment, offset, part)
            .map_err(fail("read"))?
            .iter()
            .any(|&b| b != 0);
        if dirty {
            journal
                .write_at(segment, offset, &vec![0; part])
                .map_err(fail("write"))?;
        }
        offset += part as u64;
    }
    journal.sync(segment).map_err(fail("sync"))
}

/// After a failed sync the system may show what never reached the disk, and no later sync writes
/// it. Only the last batch or header can be that, so it is written once more before anything rests
/// on it.
fn keep_last(journal: &dyn Journal, loaded: &Loaded) -> Result<(), LedgerError> {
    let Some(cursor) = &loaded.cursor else {
        return Ok(());
    };
    let segment = cursor.segment;
    let last = loaded.places.last().filter(|p| p.segment == segment);
    let (block, blocks) = last.map_or((0, 1), |p| (p.block, p.blocks));
    let len = usize::try_from(blocks)
        .unwrap_or(usize::MAX)
        .saturating_mul(BLOCK);
    let bytes = journal
        .read(segment, block * BLOCK as u64, len)
        .map_err(|source| LedgerError::Io {
            what: "read",
            path: journal.name(segment),
            source,
        })?;
    write(journal, segment, block, &bytes)
}

/// The recovered ledger, and the snapshot that it believes.
pub(crate) fn open(
    dir: &Path,
    config: &Config,
    stores: Stores,
    drivers: &Drivers,
) -> Result<(Core, Option<Believed>), LedgerError> {
    let keys = Keys::load(dir, &config.origin)?;
    let wrap = Secret::load(&config.wrap_key)?;
    let log_key = keys.log.verifier();
    let files = Files::new(stores.journal, stores.objects);
    let (mut state, tree, believed) = match snapshot::load(&files, &log_key, &config.origin) {
        Some(found) => {
            let believed = Believed {
                size: found.state.size,
                digest: found.digest,
            };
            (found.state, found.tree, Some(believed))
        }
        None => (State::new(&config.origin), Tree::new(), None),
    };
    let signer = believed.is_some().then(|| log_key.clone());
    let mut replay = |_, bytes: &[u8]| {
        state.apply(&*drivers.judge, bytes)?;
        Ok(())
    };
    let mut loaded = load::load(
        &files,
        &config.origin,
        (tree, signer),
        Signatures::Last,
        &mut replay,
    )?;
    if loaded.log_key.as_ref() != Some(&keys.log.verifier()) {
        let path = dir.join("keys").join("log.seed");
        return Err(error::file(
            &path,
            "is not the key of this log; restore the right one",
        ));
    }
    if let Some(copy) = &stores.head {
        head::check(&**copy, &loaded)?;
    }
    if let Some((segment, block)) = loaded.torn.take() {
        drop_tail(&*files.journal, segment, block)?;
    }
    keep_last(&*files.journal, &loaded)?;
    let mut core = build(
        config,
        (files, stores.head),
        drivers,
        keys,
        wrap,
        state,
        loaded,
    )?;
    let note = core.shared.read().loaded.note.clone();
    core.committer.copy_head(&note);
    core.prepare_next();
    close_what_was_open(&mut core)?;
    Ok((core, believed))
}

pub(crate) fn build(
    config: &Config,
    (files, head): (Files, Option<Box<dyn HeadCopy>>),
    drivers: &Drivers,
    keys: Keys,
    wrap: Secret,
    state: State,
    loaded: Loaded,
) -> Result<Core, LedgerError> {
    let cursor = loaded.cursor.ok_or(LedgerError::Crypto("find a segment"))?;
    let frontier = loaded.tree.frontier();
    let opener = Arc::new(Opener::new(&config.origin, wrap));
    let shared = Shared::new(state.clone(), loaded, files, Arc::clone(&opener));
    let shared = Arc::new(shared);
    let judge: Arc<dyn JudgeDebug> = Arc::new(SharedJudge(Arc::clone(&drivers.judge)));
    let committer = Committer::new(Writer {
        shared: Arc::clone(&shared),
        judge: Arc::clone(&judge),
        head,
        archive: None,
    });
    Ok(Core {
        origin: config.origin.clone(),
        judge,
        clock: Arc::clone(&drivers.clock),
        rng: Arc::clone(&drivers.rng),
        committer,
        pending: Group::default(),
        gathering: Gathering::default(),
        shared,
        state,
        frontier,
        keys,
        vault: Vault::new(opener),
        cursor,
        segment_bytes: config.segment_bytes,
        guard: ClockGuard::new(&*drivers.clock),
        moved: std::collections::BTreeMap::new(),
        allocation: Allocation::default(),
        allocate_at: i64::MIN,
    })
}

pub(crate) fn first_cursor(total: u64) -> Cursor {
    Cursor {
        segment: 0,
        base: 0,
        block: 1,
        total: total / BLOCK as u64,
        number: 0,
        next: false,
    }
}

/// Nobody knows what became of actions that were open, and sessions did not survive.
fn close_what_was_open(core: &mut Core) -> Result<(), LedgerError> {
    let mut bodies = Vec::new();
    for action in core.state.open_actions() {
        bodies.push(Body::Outcome(Outcome {
            notes: Vec::new(),
            action,
            status: Status::Unknown,
            exit_code: None,
            signal: None,
            streams: Vec::new(),
            sql: None,
        }));
    }
    for session in core.state.open_sessions() {
        // The law fills in the number of actions.
        let reason = CloseReason::Interrupted;
        bodies.push(Body::SessionClose(SessionClose {
            session,
            reason,
            actions: 0,
            entries: 0,
        }));
    }
    record_now(core, bodies)
}

/// Records as the server, on this thread.
pub(crate) fn record_now(core: &mut Core, bodies: Vec<Body>) -> Result<(), LedgerError> {
    let mut backlog = VecDeque::new();
    let mut answers = Vec::new();
    for body in bodies {
        let mut id = [0; 16];
        core.rng.fill(&mut id)?;
        let proposal = Proposal {
            id: EntryId::new(id),
            writer: SERVER.to_owned(),
            body,
            openings: Vec::new(),
            scope: Scope::None,
        };
        let (reply, answer) = oneshot::channel();
        let draft = Box::new(Draft {
            proposal,
            scopes: None,
        });
        backlog.push_back(Command::Record {
            draft,
            reply: Reply::One(reply),
            permit: None,
        });
        answers.push(answer);
    }
    while !backlog.is_empty() {
        core.serve(&mut backlog, false);
    }
    for mut answer in answers {
        match answer.try_recv() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(LedgerError::Stopped(format!("recovery failed: {error}")));
            }
            Err(_) => return Err(LedgerError::Stopped("recovery got no answer".to_owned())),
        }
    }
    Ok(())
}
