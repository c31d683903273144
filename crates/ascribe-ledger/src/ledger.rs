//! The ledger, as the server uses it.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ascribe_core::entry::{Body, Certificate};
use ascribe_core::id::{PersonId, SessionId, StatementId};
use ascribe_core::law::{Denied, State};
use ascribe_core::record::{
    Admission, AgentLogin, BoxFuture, Proposal, Receipt, RecordError, Recorder, ShownCertificate,
    SignedOpening, Standing, Wanted,
};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Target;
use ascribe_core::time::Timestamp;
use ascribe_tlog::{Checkpoint, Hash, VerifierKey};
use tokio::sync::{Semaphore, oneshot};

use crate::archive::Archiver;
use crate::clock::{Clock, ClockGuard};
use crate::config::{Config, Keys, segments_dir};
use crate::durable::{Alarm, Shared};
use crate::error::LedgerError;
use crate::init::{self, InitOptions, Made};
use crate::objects::LocalObjects;
use crate::recovery::{self, Drivers, Stores};
use crate::reply::{Part, Reply, parts};
use crate::sequencer::{Command, Draft, GROUP_PROPOSALS, QUEUE};
use crate::store::{LocalHead, LocalJournal, Lock};

/// An open data directory. There is one per directory.
pub struct Ledger {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// A stepped clock moves no grant's end, in neither direction.
    guard: Mutex<ClockGuard>,
    log_key: VerifierKey,
    commands: Sender<Command>,
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    #[expect(dead_code, reason = "held as long as the ledger is open")]
    locks: (Lock, Option<Lock>),
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("log_key", &self.log_key)
            .finish_non_exhaustive()
    }
}

fn gone<E>(_: E) -> RecordError {
    RecordError::Unavailable("the ledger is shut down".to_owned())
}

fn draft(proposal: Proposal) -> Box<Draft> {
    Box::new(Draft {
        proposal,
        scopes: None,
    })
}

impl Ledger {
    /// Makes a ledger in an empty directory.
    ///
    /// # Errors
    /// When the directory has content, a key file exists, or a write fails.
    pub fn init(dir: &Path, options: &InitOptions, drivers: &Drivers) -> Result<Made, LedgerError> {
        init::init(dir, options, drivers)
    }

    /// Opens a data directory: proves all of it, drops what was never acknowledged, and writes the
    /// end of whatever was open.
    ///
    /// # Errors
    /// When it is in use, damaged, older than the head's copy, or against the law; the message
    /// names file and offset.
    pub fn open(dir: &Path, drivers: &Drivers) -> Result<Self, LedgerError> {
        let config = Config::load(dir)?;
        let head = config
            .head
            .as_deref()
            .map(|path| Box::new(LocalHead::new(path)) as _);
        let journal = Arc::new(LocalJournal::new(&segments_dir(dir), true));
        let objects = Arc::new(LocalObjects::new(dir));
        Self::open_with(
            dir,
            &config,
            Stores {
                journal,
                objects,
                head,
            },
            drivers,
        )
    }

    /// The same on other storage.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with(
        dir: &Path,
        config: &Config,
        stores: Stores,
        drivers: &Drivers,
    ) -> Result<Self, LedgerError> {
        let head = config.head.as_deref();
        let locks = (
            Lock::take(dir)?,
            head.map(Lock::take_head).transpose()?.flatten(),
        );
        let (mut core, believed) = recovery::open(dir, config, stores, drivers)?;
        let shared = Arc::clone(&core.shared);
        let log_key = core.keys.log.verifier();
        let (commands, queue) = mpsc::channel();
        let (wake, woken) = mpsc::sync_channel(1);
        core.committer
            .start(wake)
            .map_err(|source| LedgerError::Io {
                what: "start a thread for",
                path: dir.display().to_string(),
                source,
            })?;
        let oldest = shared.read().loaded.places.first().map(|p| p.segment);
        let archiver = Archiver {
            key: Keys::load(dir, &config.origin)?.log,
            origin: config.origin.clone(),
            state: State::new(&config.origin),
            believed,
            left: std::collections::VecDeque::new(),
            stored: believed.map_or(0, |b| b.size),
            next: oldest.unwrap_or(0),
            seen: 0,
            unpublished: None,
            // One that is damaged is written anew; `fsck` reports it.
            published: shared
                .files
                .published(&shared.read().loaded)
                .unwrap_or(None),
            shared: Arc::clone(&shared),
        };
        let judge = Arc::clone(&drivers.judge);
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(run).map_err(|source| LedgerError::Io {
                what: "start a thread for",
                path: dir.display().to_string(),
                source,
            })
        };
        let (first, second) = (Alarm(Arc::clone(&shared)), Alarm(Arc::clone(&shared)));
        let sequence = move || {
            let _alarm = first;
            core.run(&queue);
        };
        let archive = move || {
            let _alarm = second;
            archiver.run(&*judge, &woken);
        };
        let threads = vec![
            start("sequencer", Box::new(sequence))?,
            start("archiver", Box::new(archive))?,
        ];
        Ok(Self {
            shared,
            clock: Arc::clone(&drivers.clock),
            guard: Mutex::new(ClockGuard::new(&*drivers.clock)),
            log_key,
            commands,
            room: Arc::new(Semaphore::new(QUEUE)),
            threads: Mutex::new(threads),
            locks,
        })
    }

    /// What a signer had seen of this log must be durable here: a statement that says otherwise
    /// was signed for another history, and recording it would stop every later verification.
    fn check_seen(&self, proposal: &Proposal) -> Result<(), Denied> {
        let Body::Statement(signed) = &proposal.body else {
            return Ok(());
        };
        // What cannot be read is refused by the law.
        let Ok(seen) = signed.statement().map(|statement| statement.seen) else {
            return Ok(());
        };
        let root = self.shared.read().loaded.tree.root_at(seen.size);
        if seen.size == 0 || root == Some(seen.root.0) {
            return Ok(());
        }
        Err(Denied::new(
            "seen",
            "the signer has seen a checkpoint that this log does not have",
        )
        .with_help(
            "keep what the client remembers and tell an auditor: the log may have been rolled back",
        ))
    }

    /// Witnesses may have seen only this tree: the law checks their signatures, and has no tree.
    fn check_cosigned(&self, proposal: &Proposal) -> Result<(), Denied> {
        let Body::Cosigned(cosigned) = &proposal.body else {
            return Ok(());
        };
        let checkpoint = Checkpoint::open(
            cosigned.note.as_bytes(),
            std::slice::from_ref(&self.log_key),
        )
        .map_err(|e| Denied::new("cosigned", e.to_string()))?;
        let root = self.shared.read().loaded.tree.root_at(checkpoint.size);
        if root == Some(checkpoint.root) {
            return Ok(());
        }
        Err(Denied::new(
            "cosigned",
            "the witnesses cosigned a checkpoint that this log does not have",
        ))
    }

    async fn propose(&self, draft: Box<Draft>) -> Result<Receipt, RecordError> {
        self.check(&draft.proposal)?;
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(gone)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Record {
            draft,
            reply: Reply::One(reply),
            permit: Some(permit),
        };
        self.commands.send(command).map_err(gone)?;
        answer.await.map_err(gone)?
    }

    /// What the law cannot check, which has no tree.
    fn check(&self, proposal: &Proposal) -> Result<(), Denied> {
        self.check_seen(proposal)?;
        self.check_cosigned(proposal)
    }

    /// Several at once; each answer in its place.
    async fn propose_all<T>(
        &self,
        proposals: Vec<Proposal>,
        reply: fn(Part<T>) -> Reply,
    ) -> Vec<Result<T, RecordError>> {
        let mut answers = Vec::with_capacity(proposals.len());
        let mut proposals = proposals.into_iter().peekable();
        while proposals.peek().is_some() {
            let some: Vec<Proposal> = proposals.by_ref().take(GROUP_PROPOSALS).collect();
            let count = some.len();
            match self.propose_some(some, reply).await {
                Ok(some) => answers.extend(some),
                Err(error) => answers.extend((0..count).map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    /// The same, of as many as fit the queue.
    async fn propose_some<T>(
        &self,
        proposals: Vec<Proposal>,
        reply: fn(Part<T>) -> Reply,
    ) -> Result<Vec<Result<T, RecordError>>, RecordError> {
        let count = u32::try_from(proposals.len()).map_err(gone)?;
        let room = Arc::clone(&self.room).acquire_many_owned(count);
        let mut permit = room.await.map_err(gone)?;
        let (parts, answers) = parts(proposals.len());
        let mut commands = Vec::with_capacity(proposals.len());
        for (proposal, part) in proposals.into_iter().zip(parts) {
            match self.check(&proposal) {
                Ok(()) => commands.push(Command::Record {
                    draft: draft(proposal),
                    reply: reply(part),
                    permit: permit.split(1),
                }),
                Err(denied) => reply(part).refuse(denied.into()),
            }
        }
        self.commands
            .send(Command::Together(commands))
            .map_err(gone)?;
        answers.await.map_err(gone)
    }

    /// Signs the head of a writer's chain. Happens by itself when a session opens or closes, and
    /// at most a second after the chain moved.
    ///
    /// # Errors
    /// When the ledger cannot record, or this process has no such writer.
    pub async fn sign_head(&self, writer: &str) -> Result<Receipt, RecordError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::SignHead {
                writer: writer.to_owned(),
                reply: Reply::One(reply),
            })
            .map_err(gone)?;
        answer.await.map_err(gone)?
    }

    /// The newest durable checkpoint, a signed note.
    pub fn checkpoint_note(&self) -> String {
        self.shared.read().loaded.note.clone()
    }

    /// Proves that the newest checkpoint extends the tree of `old` entries.
    pub fn consistency_proof(&self, old: u64) -> Option<Vec<Hash>> {
        let durable = self.shared.read();
        durable
            .loaded
            .tree
            .consistency_proof(old, durable.loaded.tree.size())
    }

    /// Proves that the tree of `size` entries holds entry `index`.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        self.shared.read().loaded.tree.inclusion_proof(index, size)
    }

    /// Proves that the tree of `new` entries extends the tree of `old` entries.
    pub fn consistency_between(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.shared.read().loaded.tree.consistency_proof(old, new)
    }

    /// Durable entries, as far as there are any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, LedgerError> {
        self.shared.entries(range.start, range.end)
    }

    /// Looks at the durable state. Looking again from inside may hang.
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.read().state)
    }

    /// The openings of one entry, decrypted.
    ///
    /// # Errors
    /// When they cannot be read or decrypted.
    pub fn openings(&self, index: u64) -> Result<Vec<Opening>, LedgerError> {
        self.shared.openings(index)
    }

    /// The receipt of a durable entry, against the newest checkpoint.
    ///
    /// # Errors
    /// When there is no such entry.
    pub fn receipt(&self, index: u64) -> Result<Receipt, LedgerError> {
        self.shared.receipt(index, None)
    }

    /// The log's key.
    pub fn log_key(&self) -> VerifierKey {
        self.log_key.clone()
    }

    /// Why nothing is recorded any more, if so. The process must then stop.
    pub fn failure(&self) -> Option<String> {
        self.shared.fatal.get().cloned()
    }

    /// Waits until nothing is recorded any more, and says why. The process must then stop.
    pub async fn failed(&self) -> String {
        loop {
            let told = self.shared.failed.notified();
            if let Some(why) = self.failure() {
                return why;
            }
            told.await;
        }
    }

    /// Did the last copy of the head succeed? While it does not, rollback can go unnoticed.
    pub fn head_is_current(&self) -> bool {
        self.shared.head_current.load(Ordering::Relaxed)
    }

    /// How many of the oldest entries have left the segments for tiles and packs, and why no more
    /// of them do, if something is in the way.
    pub fn archived(&self) -> (u64, Option<String>) {
        let base = self.shared.read().loaded.base;
        (base, self.shared.why_behind())
    }

    /// Signs what heads are due, stops the sequencer, waits for it.
    pub fn shutdown(&self) {
        // A sequencer that is gone needs no telling.
        self.commands.send(Command::Shutdown).unwrap_or_default();
        self.shared.stopping.store(true, Ordering::Relaxed);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            thread.join().unwrap_or_default();
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Recorder for Ledger {
    fn record(&self, proposal: Proposal) -> BoxFuture<'_, Result<Receipt, RecordError>> {
        // A proposal is large, and what holds it is moved.
        Box::pin(self.propose(draft(proposal)))
    }
    fn record_all(
        &self,
        proposals: Vec<Proposal>,
    ) -> BoxFuture<'_, Vec<Result<Receipt, RecordError>>> {
        Box::pin(self.propose_all(proposals, Reply::Of))
    }
    fn settle_all(&self, proposals: Vec<Proposal>) -> BoxFuture<'_, Result<(), RecordError>> {
        Box::pin(async {
            let settled = self.propose_all(proposals, Reply::Done).await;
            settled.into_iter().collect()
        })
    }
    fn person_by_key(&self, fingerprint: &str) -> Option<PersonId> {
        let now = self.now();
        self.with_state(|state| state.person_by_key(now, fingerprint))
    }
    fn login_by_key(&self, fingerprint: &str) -> Option<(StatementId, Timestamp)> {
        let now = self.now();
        self.with_state(|state| state.login_by_key(now, fingerprint))
    }
    fn agent_by_key(&self, fingerprint: &str) -> Option<AgentLogin> {
        let now = self.now();
        self.with_state(|state| state.agent_by_key(now, fingerprint))
    }
    fn ca_keys(&self) -> Vec<String> {
        self.with_state(State::ca_keys)
    }
    fn person_by_certificate(
        &self,
        shown: &ShownCertificate,
    ) -> Result<(PersonId, Certificate), Denied> {
        self.with_state(|state| state.person_by_certificate(shown))
    }
    fn admit(&self, wanted: &Wanted<'_>) -> Admission {
        let now = self.now();
        self.with_state(|state| state.admit(now, wanted))
    }
    fn standing(&self, session: SessionId) -> Standing {
        let now = self.now();
        self.with_state(|state| state.standing(now, session))
    }
    fn signed_opening(&self, statement: StatementId) -> Option<SignedOpening> {
        self.with_state(|state| state.signed_opening(statement))
    }
    fn target(&self, name: &str) -> Option<Target> {
        self.with_state(|state| state.targets.get(name).map(|t| t.target.clone()))
    }
    fn watchers(&self, session: SessionId) -> Vec<String> {
        let watchers = self.with_state(|state| state.watchers(session));
        watchers.iter().map(ToString::to_string).collect()
    }
    fn now(&self) -> Timestamp {
        let last = self.shared.last_at();
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = guard.read(&*self.clock, last.millis());
        last.max(Timestamp::from_millis(reading.at))
    }
}
