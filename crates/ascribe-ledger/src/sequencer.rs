//! One thread decides and orders. It takes everything that waits, decides on each proposal in turn,
//! and hands the entries, the new evidence keys, the encrypted openings and the signed tree head
//! over as one batch, for one write and one sync ([`crate::committer`]). Nobody is answered before
//! that sync. There is no timer while nothing happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Entry, Head, head_message};
use ascribe_core::id::EntryId;
use ascribe_core::law::{Denied, Judge, Sequenced, State};
use ascribe_core::record::{Proposal, RecordError, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::segment::Record;
use ascribe_core::time::Timestamp;
use ascribe_tlog::Frontier;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::{Clock, ClockGuard, Reading, Rng};
use crate::commit::Allocation;
use crate::committer::{Batch, Committer, who_wait};
use crate::config::Keys;
use crate::durable::Shared;
use crate::error::LedgerError;
use crate::gather::Gathering;
use crate::keys::Vault;
use crate::load::Cursor;
use crate::reply::Reply;

/// Most proposals that wait.
pub(crate) const QUEUE: usize = 4096;
/// Most proposals that are decided on at once.
pub(crate) const GROUP_PROPOSALS: usize = 1024;
/// A writer's chain head is signed at most this long after the chain moved.
const HEAD_DELAY_MS: i64 = 900;

/// An entry to be written, with its sealed content by scope.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) proposal: Proposal,
    /// For each opening of the proposal, where the scope is not the proposal's.
    pub(crate) scopes: Option<Vec<Scope>>,
}

/// What the sequencer is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Record {
        draft: Box<Draft>,
        reply: Reply,
        permit: Option<OwnedSemaphorePermit>,
    },
    SignHead {
        writer: String,
        reply: Reply,
    },
    /// These in order, none before all of them are there: so they share a sync as far as a batch holds them.
    Together(Vec<Command>),
    Shutdown,
}

/// Who waits for which entry.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) index: u64,
    pub(crate) reply: Reply,
    /// The id was taken before: the entry must be the one that is proposed again.
    pub(crate) again: Option<Proposal>,
}

/// Does the entry say what is proposed? What the sequencer fills in is not compared.
pub(crate) fn is_same(bytes: &[u8], proposal: &Proposal) -> bool {
    Entry::from_bytes(bytes).is_ok_and(|entry| {
        let body = match (&entry.body, &proposal.body) {
            (Body::SessionClose(old), Body::SessionClose(new)) => {
                old.session == new.session && old.reason == new.reason
            }
            (Body::Cosigned(old), Body::Cosigned(new)) => old.note == new.note,
            (old, new) => old == new,
        };
        entry.writer.id == proposal.writer && body
    })
}

/// One batch in the making.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) entries: Vec<Sequenced>,
    pub(crate) extra: Vec<Record>,
    pub(crate) keys: BTreeMap<Scope, Vec<u8>>,
    pub(crate) bytes: usize,
    waiting: Vec<Waiting>,
    permits: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) origin: String,
    pub(crate) judge: Arc<dyn JudgeDebug>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) committer: Committer,
    /// Decided, and not handed over yet because the committer is busy or more may come.
    pub(crate) pending: Group,
    pub(crate) gathering: Gathering,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: State,
    pub(crate) frontier: Frontier,
    pub(crate) keys: Keys,
    pub(crate) vault: Vault,
    pub(crate) cursor: Cursor,
    pub(crate) segment_bytes: u64,
    pub(crate) guard: ClockGuard,
    /// Writers whose chain moved, and when (monotonic).
    pub(crate) moved: BTreeMap<String, i64>,
    /// The next segment in the making.
    pub(crate) allocation: Allocation,
    /// When allocating the next segment is tried again (monotonic).
    pub(crate) allocate_at: i64,
}

/// A judge, as the sequencer keeps it.
pub(crate) trait JudgeDebug: Send + Sync + std::fmt::Debug {
    fn judge(&self) -> &dyn Judge;
}

pub(crate) struct SharedJudge(pub(crate) Arc<dyn Judge>);

impl std::fmt::Debug for SharedJudge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}

impl JudgeDebug for SharedJudge {
    fn judge(&self) -> &dyn Judge {
        &*self.0
    }
}

/// Only these are kept back when the clock is wrong or the disk is full: what ends something is
/// always recorded.
fn begins_something(body: &Body) -> bool {
    matches!(body, Body::Intent(_) | Body::SessionOpen(_))
}

pub(crate) fn unavailable(why: impl Into<String>) -> RecordError {
    RecordError::Unavailable(why.into())
}

impl Group {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.waiting.is_empty()
    }
}

impl Core {
    /// The thread's life.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        let mut backlog = VecDeque::new();
        loop {
            let mut open = true;
            if backlog.is_empty() && !self.pending.is_empty() {
                match self.committer.is_busy() {
                    true => self.committer.pause(),
                    false => std::thread::sleep(self.gathers(&self.pending)),
                }
            } else if backlog.is_empty() {
                match self.next(commands) {
                    Ok(command) => {
                        queue(&mut backlog, command);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            }
            while backlog.len() < GROUP_PROPOSALS
                && let Ok(command) = commands.try_recv()
            {
                queue(&mut backlog, command);
            }
            open &= !self.serve(&mut backlog, !open);
            if !open {
                break;
            }
        }
    }

    fn next(&self, commands: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        match self.moved.values().min() {
            Some(moved) if self.shared.fatal.get().is_none() => {
                let due = moved + HEAD_DELAY_MS - self.clock.monotonic_millis();
                let wait = Duration::from_millis(due.clamp(0, HEAD_DELAY_MS).unsigned_abs());
                commands.recv_timeout(wait)
            }
            _ => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Takes what waits into the group, and hands it over when the committer is free and nobody is waited
    /// for; until then the group grows. True when a shutdown was asked for.
    pub(crate) fn serve(&mut self, backlog: &mut VecDeque<Command>, mut last: bool) -> bool {
        let mut group = std::mem::take(&mut self.pending);
        let last_at = self.state.last_at.map_or(0, Timestamp::millis);
        let reading = self.guard.read(&*self.clock, last_at);
        while let Some(command) = backlog.pop_front() {
            match command {
                Command::Shutdown => last = true,
                // Taken apart when it came.
                Command::Together(commands) => {
                    commands
                        .into_iter()
                        .rev()
                        .for_each(|one| backlog.push_front(one));
                }
                Command::SignHead { writer, reply } => {
                    self.take_head(&mut group, &writer, reply, reading)
                }
                Command::Record {
                    draft,
                    reply,
                    permit,
                } => {
                    if !group.entries.is_empty() && self.is_full(&group, &draft) {
                        backlog.push_front(Command::Record {
                            draft,
                            reply,
                            permit,
                        });
                        break;
                    }
                    group.permits.extend(permit);
                    self.take(&mut group, &draft, reply, reading);
                }
            }
        }
        self.due_heads(&mut group, reading, last);
        self.gathering.look(!group.is_empty(), Instant::now());
        let grows = self.committer.is_busy() || !self.gathers(&group).is_zero();
        if last || !backlog.is_empty() || !grows {
            self.finish(group);
        } else {
            self.pending = group;
        }
        last
    }

    /// How much longer the group is to grow.
    fn gathers(&self, group: &Group) -> Duration {
        let waiting = who_wait(&group.waiting);
        let took = self.committer.took();
        self.gathering.left(waiting, took, Instant::now())
    }

    fn take(&mut self, group: &mut Group, draft: &Draft, reply: Reply, reading: Reading) {
        if let Some(index) = self.state.index_of(&draft.proposal.id) {
            let again = Some(draft.proposal.clone());
            group.waiting.push(Waiting {
                index,
                reply,
                again,
            });
            return;
        }
        match self.decide(group, draft, reading) {
            Ok(index) => group.waiting.push(Waiting {
                index,
                reply,
                again: None,
            }),
            Err(error) => reply.refuse(error),
        }
    }

    /// The index of the entry that the draft became.
    fn decide(
        &mut self,
        group: &mut Group,
        draft: &Draft,
        reading: Reading,
    ) -> Result<u64, RecordError> {
        self.shared
            .stopped()
            .map_err(|e| unavailable(e.to_string()))?;
        let proposal = &draft.proposal;
        if begins_something(&proposal.body) && !reading.trusted {
            return Err(unavailable("the clock is not to be trusted; set it right"));
        }
        self.make_space(group, draft)?;
        let at = Timestamp::from_millis(reading.at);
        let index = self.state.size;
        let done = self.state.sequence(self.judge.judge(), at, proposal)?;
        if let Err(error) = self.seal(group, index, draft) {
            // The decision stands in the state but cannot be written.
            return Err(unavailable(self.fail(error.to_string())));
        }
        for entry in done {
            self.push(group, entry);
        }
        if matches!(proposal.body, Body::SessionOpen(_) | Body::SessionClose(_)) {
            // Failing, the chain still counts as moved, and its head is signed a little later.
            self.head_of(group, &proposal.writer, reading)
                .unwrap_or_default();
        }
        Ok(index)
    }

    fn push(&mut self, group: &mut Group, entry: Sequenced) {
        self.frontier.push(entry.hash.0);
        group.bytes += entry.bytes.len() + 5;
        if !matches!(entry.entry.body, Body::Head(_))
            && self.keys.writers.contains_key(&entry.entry.writer.id)
        {
            let now = self.clock.monotonic_millis();
            self.moved
                .entry(entry.entry.writer.id.clone())
                .or_insert(now);
        }
        group.entries.push(entry);
    }

    fn seal(&mut self, group: &mut Group, index: u64, draft: &Draft) -> Result<(), LedgerError> {
        let mut by_scope: BTreeMap<&Scope, Vec<&Opening>> = BTreeMap::new();
        for (i, opening) in draft.proposal.openings.iter().enumerate() {
            let own = draft.scopes.as_ref().and_then(|scopes| scopes.get(i));
            by_scope
                .entry(own.unwrap_or(&draft.proposal.scope))
                .or_default()
                .push(opening);
        }
        for (scope, openings) in by_scope {
            if self.vault.is_full() {
                // Keys that no reader sees yet are known here only.
                self.committer.drain();
                self.vault.forget();
            }
            let sealed = self.vault.seal(&*self.rng, scope, index, &openings, || {
                match group.keys.get(scope) {
                    Some(wrapped) => Some(wrapped.clone()),
                    None => {
                        let durable = self.shared.read();
                        durable
                            .loaded
                            .keys
                            .get(scope)
                            .map(|key| key.wrapped.clone())
                    }
                }
            })?;
            if let Some(wrapped) = sealed.new_key {
                group.extra.push(Record::Key {
                    scope: scope.clone(),
                    wrapped: wrapped.clone(),
                });
                group.keys.insert(scope.clone(), wrapped);
            }
            group.bytes += sealed.ciphertext.len() + 128;
            group.extra.push(Record::Openings {
                index,
                scope: scope.clone(),
                nonce: sealed.nonce,
                ciphertext: sealed.ciphertext,
            });
        }
        Ok(())
    }

    fn head_of(
        &mut self,
        group: &mut Group,
        writer: &str,
        reading: Reading,
    ) -> Result<Option<u64>, RecordError> {
        let (Some(key), Some((seq, hash))) =
            (self.keys.writers.get(writer), self.state.chain_head(writer))
        else {
            return Ok(None);
        };
        let sig = key.sign_raw(&head_message(&self.origin, writer, seq, &hash));
        let mut id = [0; 16];
        self.rng
            .fill(&mut id)
            .map_err(|e| unavailable(e.to_string()))?;
        let proposal = Proposal {
            id: EntryId::new(id),
            writer: writer.to_owned(),
            body: Body::Head(Head {
                seq,
                hash,
                sig: Bytes(sig.to_vec()),
            }),
            openings: Vec::new(),
            scope: Scope::None,
        };
        let index = self.state.size;
        let at = Timestamp::from_millis(reading.at);
        for entry in self.state.sequence(self.judge.judge(), at, &proposal)? {
            self.push(group, entry);
        }
        self.moved.remove(writer);
        Ok(Some(index))
    }

    fn take_head(&mut self, group: &mut Group, writer: &str, reply: Reply, reading: Reading) {
        let result = self
            .shared
            .stopped()
            .map_err(|e| unavailable(e.to_string()));
        let result = result
            .and_then(|()| self.space_for_head(group))
            .and_then(|()| {
                self.head_of(group, writer, reading)?.ok_or_else(|| {
                    Denied::new(
                        "writer",
                        format!("this process has no key or chain of `{writer}`"),
                    )
                    .into()
                })
            });
        match result {
            Ok(index) => group.waiting.push(Waiting {
                index,
                reply,
                again: None,
            }),
            Err(error) => reply.refuse(error),
        }
    }

    fn due_heads(&mut self, group: &mut Group, reading: Reading, all: bool) {
        let now = self.clock.monotonic_millis();
        let due = |moved: &i64| all || now.saturating_sub(*moved) >= HEAD_DELAY_MS;
        let writers: Vec<String> = self
            .moved
            .iter()
            .filter(|(_, moved)| due(moved))
            .map(|(w, _)| w.clone())
            .collect();
        for writer in writers {
            let signed = self.shared.stopped().is_ok()
                && self.space_for_head(group).is_ok()
                && self.head_of(group, &writer, reading).is_ok();
            if !signed {
                // Tried again later, not at once.
                self.moved.insert(writer, now);
            }
        }
    }

    /// Hands the group over to be written and answered.
    fn finish(&mut self, group: Group) {
        if group.is_empty() {
            return;
        }
        let Group {
            entries,
            extra,
            keys,
            waiting,
            permits,
            ..
        } = group;
        let new = match entries.is_empty() {
            true => None,
            // Failing stops the ledger, and so whatever waits is told that.
            false => match self.encode(entries, extra, keys) {
                Ok(new) => Some(new),
                Err(error) => {
                    self.fail(error.to_string());
                    None
                }
            },
        };
        let batch = Batch {
            new,
            waiting,
            permits,
        };
        self.gathering.handed_over(who_wait(&batch.waiting));
        self.committer.take(batch);
        self.prepare_next();
    }

    /// Nothing is recorded from here on.
    pub(crate) fn fail(&self, why: String) -> String {
        self.shared.fail(why)
    }
}

/// Puts a command behind those that wait.
fn queue(backlog: &mut VecDeque<Command>, command: Command) {
    match command {
        Command::Together(commands) => backlog.extend(commands),
        command => backlog.push_back(command),
    }
}
