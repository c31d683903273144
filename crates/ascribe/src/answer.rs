//! Answering reads: folds over a ledger, whether it runs or is stopped.

use std::collections::BTreeMap;

use ascribe_core::attribution::{Filter, Fold};
use ascribe_core::bundle::{Bundle, DisclosedOpening, Header, ProvenEntry};
use ascribe_core::entry::{Body, Entry, entry_hash};
use ascribe_core::id::{ActionId, PersonId, Root, SessionId};
use ascribe_core::law::State;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_core::time::Timestamp;
use ascribe_ledger::{Ledger, Reader};
use ascribe_tlog::{Checkpoint, Hash, VerifierKey};
use serde_json::{Value, json};

use crate::api::Query;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// What a view reads from.
pub(crate) trait Source {
    fn size(&self) -> u64;
    fn note(&self) -> String;
    fn log_key(&self) -> VerifierKey;
    fn entries(&self, from: u64, to: u64) -> Done<Vec<Vec<u8>>>;
    fn openings(&self, index: u64) -> Done<Vec<Opening>>;
    fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>>;
    fn look(&self, look: &mut dyn FnMut(&State));
}

/// What the API needs of its view.
pub(crate) trait Names {
    /// People's names.
    fn names(&mut self, source: &dyn Source) -> BTreeMap<PersonId, String>;
}

impl Source for Ledger {
    fn size(&self) -> u64 {
        self.with_state(|state| state.size)
    }
    fn note(&self) -> String {
        self.checkpoint_note()
    }
    fn log_key(&self) -> VerifierKey {
        Ledger::log_key(self)
    }
    fn entries(&self, from: u64, to: u64) -> Done<Vec<Vec<u8>>> {
        Ledger::entries(self, from..to).attempt("read entries")
    }
    fn openings(&self, index: u64) -> Done<Vec<Opening>> {
        Ledger::openings(self, index).attempt("read sealed content")
    }
    fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        self.inclusion_proof(index, size)
    }
    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.with_state(|state| look(state));
    }
}

/// A stopped server's directory with its law replayed.
pub(crate) struct Offline {
    reader: Reader,
    state: State,
    log_key: VerifierKey,
}

impl Offline {
    pub(crate) fn open(dir: &std::path::Path) -> Done<Self> {
        let reader = Reader::open(dir).attempt(format!("read `{}`", dir.display()))?;
        let log_key = reader
            .log_key()
            .cloned()
            .ok_or_else(|| Failure::usage(format!("`{}` holds no ledger", dir.display())))?;
        let mut state = State::new(&reader.config().origin);
        for entry in reader.entries(0..reader.size()).attempt("read entries")? {
            state
                .apply(&ascribe_evidence::SshSignatures, &entry)
                .map_err(|e| {
                    Failure::new(Kind::Proof, format!("the ledger breaks the law: {e}"))
                })?;
        }
        Ok(Self {
            reader,
            state,
            log_key,
        })
    }
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl Source for Offline {
    fn size(&self) -> u64 {
        self.reader.size()
    }
    fn note(&self) -> String {
        self.reader.checkpoint_note().to_owned()
    }
    fn log_key(&self) -> VerifierKey {
        self.log_key.clone()
    }
    fn entries(&self, from: u64, to: u64) -> Done<Vec<Vec<u8>>> {
        self.reader.entries(from..to).attempt("read entries")
    }
    fn openings(&self, index: u64) -> Done<Vec<Opening>> {
        self.reader.openings(index).attempt("read sealed content")
    }
    fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        self.reader.tree().inclusion_proof(index, size)
    }
    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(&self.state);
    }
}

/// The fold over a source, brought up to date at each question.
#[derive(Debug, Default)]
pub(crate) struct View {
    fold: Fold,
    next: u64,
}

/// Entries that are read at once.
const STEP: u64 = 1024;

impl View {
    fn catch_up(&mut self, source: &dyn Source) -> Done {
        let size = source.size();
        while self.next < size {
            let end = size.min(self.next + STEP);
            for bytes in source.entries(self.next, end)? {
                let entry = Entry::from_bytes(&bytes).attempt("read an entry")?;
                self.fold.push(self.next, &entry, entry_hash(&bytes));
                // Streams are opened when somebody reads them; they may be large.
                if !ascribe_core::law::commitments(&entry.body).is_empty()
                    && !matches!(entry.body, Body::Evidence(_))
                {
                    for opening in source.openings(self.next)? {
                        self.fold.open(opening);
                    }
                }
                self.next += 1;
            }
        }
        Ok(())
    }

    /// Answers a query with what was sequenced before `before`.
    pub(crate) fn answer(
        &mut self,
        source: &dyn Source,
        query: &Query,
        by: PersonId,
        before: u64,
        now: Timestamp,
    ) -> Done<Value> {
        self.catch_up(source)?;
        match query {
            Query::Registry => {
                let names = self.fold.names();
                let mut answer = Value::Null;
                source.look(&mut |state| {
                    let registry = crate::registry::registry(state, &names, Some(by), now);
                    answer = serde_json::to_value(registry).unwrap_or_default();
                });
                Ok(answer)
            }
            Query::Request { id } => {
                Ok(json!({ "id": id, "justification": self.fold.justification(*id) }))
            }
            Query::Actions { filter } => self.actions(source, filter, before),
            Query::Replay { session, action } => self.replay(source, *session, *action),
            Query::Export { session } => {
                let bundle = self.bundle(source, *session)?;
                let bytes = bundle.to_bytes().attempt("write the bundle")?;
                let text = String::from_utf8(bytes).attempt("write the bundle")?;
                Ok(json!({ "bundle": text }))
            }
        }
    }

    fn actions(&self, source: &dyn Source, filter: &Filter, before: u64) -> Done<Value> {
        let checkpoint = Checkpoint::open(source.note().as_bytes(), &[source.log_key()])
            .attempt("read the checkpoint")?;
        let mut answer = Value::Null;
        source.look(&mut |state| {
            let mut records = self
                .fold
                .actions(state, filter, checkpoint.root, before, "missing");
            for record in &mut records {
                record.integrity.tree_size = checkpoint.size;
            }
            answer = serde_json::to_value(records).unwrap_or_default();
        });
        Ok(answer)
    }

    fn replay(
        &mut self,
        source: &dyn Source,
        session: SessionId,
        action: Option<ActionId>,
    ) -> Done<Value> {
        for index in self.fold.evidence_of(session) {
            for opening in source.openings(index)? {
                self.fold.open(opening);
            }
        }
        let chunks: Vec<Value> = self
            .fold
            .transcript(session, action)
            .into_iter()
            .map(|(action, stream, after_ms, bytes)| {
                let bytes = bytes.map(|b| ascribe_core::encoding::base64url(&b));
                json!({ "action": action, "stream": stream, "after_ms": after_ms, "bytes": bytes })
            })
            .collect();
        Ok(json!({ "chunks": chunks }))
    }

    /// Everything that proves one session.
    fn bundle(&self, source: &dyn Source, session: SessionId) -> Done<Bundle> {
        let note = source.note();
        let checkpoint = Checkpoint::open(note.as_bytes(), &[source.log_key()])
            .attempt("read the checkpoint")?;
        let mut request = None;
        source.look(&mut |state| {
            let grant = state
                .sessions
                .get(&session)
                .and_then(|s| state.grants.get(&s.open.grant));
            request = grant.map(|g| g.request);
        });
        let mut open = false;
        source.look(&mut |state| {
            open = state
                .sessions
                .get(&session)
                .is_some_and(|s| s.closed.is_none());
        });
        if open {
            return Err(Failure::new(
                Kind::Failure,
                "the session is still open; a bundle proves a whole session",
            )
            .help("export it when it has ended"));
        }
        let mut pick = Pick::new(session, request);
        let mut entries = Vec::new();
        let mut openings = Vec::new();
        for (index, bytes) in (0u64..).zip(source.entries(0, checkpoint.size)?) {
            let entry = Entry::from_bytes(&bytes).attempt("read an entry")?;
            let Some(disclose) = pick.wants(&entry) else {
                continue;
            };
            let proof = source
                .inclusion(index, checkpoint.size)
                .ok_or_else(|| Failure::new(Kind::Failure, "the log moved on; try again"))?;
            let entry = String::from_utf8(bytes).attempt("read an entry")?;
            entries.push(ProvenEntry {
                entry,
                index,
                proof: proof.into_iter().map(Root).collect(),
            });
            if disclose {
                openings.extend(
                    source
                        .openings(index)?
                        .into_iter()
                        .map(|opening| DisclosedOpening { index, opening }),
                );
            }
        }
        if !pick.found {
            return Err(Failure::new(
                Kind::Failure,
                format!("no session has the id `{session}`"),
            ));
        }
        let header = Header {
            bundle: 1,
            log: checkpoint.origin,
            session,
        };
        Ok(Bundle {
            header,
            checkpoint: note,
            entries,
            openings,
        })
    }
}

impl Names for View {
    fn names(&mut self, source: &dyn Source) -> BTreeMap<PersonId, String> {
        // A name that cannot be read is shown as its id.
        if self.catch_up(source).is_err() {
            return BTreeMap::new();
        }
        self.fold.names()
    }
}

/// Chooses a session's entries: all law entries, the session's own, and its writer's heads.
struct Pick {
    session: SessionId,
    request: Option<ascribe_core::id::StatementId>,
    found: bool,
    closed: bool,
    actions: std::collections::BTreeSet<ActionId>,
}

impl Pick {
    fn new(session: SessionId, request: Option<ascribe_core::id::StatementId>) -> Self {
        Self {
            session,
            request,
            found: false,
            closed: false,
            actions: std::collections::BTreeSet::new(),
        }
    }

    /// Is the entry in the bundle, and are its openings?
    fn wants(&mut self, entry: &Entry) -> Option<bool> {
        match &entry.body {
            Body::Genesis(_) => Some(true),
            Body::Grant(_) | Body::GrantExtend(_) => Some(false),
            Body::Statement(signed) => match signed.statement().ok()?.say {
                Say::Read(_) => None,
                // Names make a bundle readable, and the reason of the session's own request. What
                // other people wrote stays sealed.
                Say::PersonAdd(_) => Some(true),
                Say::Request(_) | Say::BreakGlass(_) => {
                    Some(signed.statement().is_ok_and(|s| Some(s.id) == self.request))
                }
                _ => Some(false),
            },
            Body::SessionOpen(open) => {
                let mine = open.session == self.session;
                self.found |= mine;
                Some(mine)
            }
            Body::SessionClose(close) => {
                self.closed |= close.session == self.session;
                Some(false)
            }
            Body::Intent(intent) => {
                let mine = intent.session == self.session;
                if mine {
                    self.actions.insert(intent.action);
                }
                mine.then_some(true)
            }
            Body::Outcome(outcome) => self.actions.contains(&outcome.action).then_some(true),
            Body::Evidence(evidence) => self.actions.contains(&evidence.action).then_some(true),
            Body::Refusal(refusal) => (refusal.session == Some(self.session)).then_some(true),
            Body::Head(_) => (self.found && !self.closed).then_some(false),
        }
    }
}
