//! Answering reads: folds over a ledger, whether it runs or is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ascribe_core::attribution::{ActionRecord, Filter, Fold};
use ascribe_core::bundle::{Bundle, DisclosedOpening, Header, ProvenEntry};
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Entry, entry_hash};
use ascribe_core::id::{ActionId, EntryHash, PersonId, Root, SessionId, StatementId};
use ascribe_core::law::{DirectoryState, State, withheld_until};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_core::time::Timestamp;
use ascribe_ledger::{Ledger, Reader};
use ascribe_tlog::{Checkpoint, Hash, VerifierKey};
use serde_json::{Value, json};

use crate::api::{News, Query, ShownChunk};
use crate::cast::Terminal;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// What a view reads from.
pub(crate) trait Source: Sync {
    fn size(&self) -> u64;
    fn note(&self) -> String;
    fn log_key(&self) -> VerifierKey;
    fn entries(&self, from: u64, to: u64) -> Done<Vec<Vec<u8>>>;
    fn openings(&self, index: u64) -> Done<Vec<Opening>>;
    fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>>;
    fn look(&self, look: &mut dyn FnMut(&State));
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
    /// The newest checkpoint that enough witnesses cosigned, with its size.
    pub(crate) fn witnessed(&self) -> Done<Option<(u64, String)>> {
        if self.state.witnesses.size == 0 {
            return Ok(None);
        }
        let mut end = self.reader.size();
        while end > 0 {
            let start = end.saturating_sub(STEP);
            for bytes in self.entries(start, end)?.iter().rev() {
                let entry = Entry::from_bytes(bytes).attempt("read an entry")?;
                if let Body::Cosigned(cosigned) = entry.body {
                    return Ok(Some((cosigned.size, cosigned.note)));
                }
            }
            end = start;
        }
        Ok(None)
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

/// The fold over a source, brought up to date at each question. Whoever reads holds a fold that
/// nobody changes, so one who reads for long keeps nobody waiting.
#[derive(Debug, Default)]
pub(crate) struct View {
    current: Mutex<Current>,
    /// One at a time brings it up to date.
    catching_up: Mutex<()>,
}

#[derive(Debug, Default)]
struct Current {
    fold: Arc<Fold>,
    next: u64,
}

/// Entries that are read at once.
const STEP: u64 = 1024;

/// An entry with the content behind it.
struct Loaded {
    entry: Entry,
    hash: EntryHash,
    openings: Vec<Opening>,
}

fn load(source: &dyn Source, index: u64, bytes: &[u8]) -> Done<Loaded> {
    let entry = Entry::from_bytes(bytes).attempt("read an entry")?;
    // Streams are opened when somebody reads them; they may be large. Tokens are credentials.
    let sealed = !ascribe_core::law::commitments(&entry.body).is_empty()
        && !matches!(entry.body, Body::Evidence(_) | Body::DirectoryChange(_))
        && withheld_until(&entry.body).is_none();
    let openings = if sealed {
        source.openings(index)?
    } else {
        Vec::new()
    };
    Ok(Loaded {
        entry,
        hash: entry_hash(bytes),
        openings,
    })
}

/// The same for one session alone.
fn copied_for(source: &dyn Source, session: SessionId) -> State {
    let mut copy = State::default();
    source.look(&mut |state| {
        copy = State::new(&state.origin);
        copy.size = state.size;
        let Some(found) = state.sessions.get(&session) else {
            return;
        };
        if let Some(grant) = state.grants.get(&found.open.grant) {
            copy.grants.insert(found.open.grant, grant.clone());
        }
        if let Some((id, login)) = found
            .open
            .login
            .and_then(|id| state.logins.get_key_value(&id))
        {
            copy.logins.insert(*id, login.clone());
        }
        let chain = found.open.delegation.map(|id| state.delegation_chain(id));
        for (id, link) in chain.unwrap_or_default() {
            copy.delegations.insert(id, link.clone());
        }
        copy.sessions.insert(session, found.clone());
    });
    copy
}

/// Directories without what they keep.
fn directories_of(state: &State) -> BTreeMap<String, DirectoryState> {
    let bare = |known: &DirectoryState| DirectoryState {
        directory: known.directory.clone(),
        place: known.place,
        listed: BTreeMap::new(),
        resources: BTreeMap::new(),
        subjects: BTreeMap::new(),
    };
    let all = state.directories.iter();
    all.map(|(name, known)| (name.clone(), bare(known)))
        .collect()
}

/// What answers need of the law's state. It is a copy, and not of all: while an answer is made
/// from it, whoever records does not wait.
fn copied(source: &dyn Source) -> State {
    let mut copy = State::default();
    source.look(&mut |state| {
        copy = State::to_look_ahead(&state.origin);
        copy.genesis.clone_from(&state.genesis);
        copy.size = state.size;
        copy.last_at = state.last_at;
        copy.law_head = state.law_head;
        copy.people.clone_from(&state.people);
        copy.targets.clone_from(&state.targets);
        copy.cas.clone_from(&state.cas);
        copy.asks.clone_from(&state.asks);
        copy.grants.clone_from(&state.grants);
        copy.sessions.clone_from(&state.sessions);
        copy.providers.clone_from(&state.providers);
        copy.links.clone_from(&state.links);
        copy.workloads.clone_from(&state.workloads);
        copy.logins.clone_from(&state.logins);
        copy.delegations.clone_from(&state.delegations);
        copy.witnesses.clone_from(&state.witnesses);
        copy.directories = directories_of(state);
    });
    copy
}

impl View {
    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fold over everything that the source has now.
    pub(crate) fn caught_up(&self, source: &dyn Source) -> Done<Arc<Fold>> {
        let one_at_a_time = self.catching_up.lock();
        let size = source.size();
        loop {
            let next = self.current().next;
            if next >= size {
                break;
            }
            let entries = source.entries(next, size.min(next + STEP))?;
            let loaded = (next..)
                .zip(entries)
                .map(|(index, bytes)| load(source, index, &bytes))
                .collect::<Done<Vec<_>>>()?;
            if loaded.is_empty() {
                return Err(Failure::new(Kind::Failure, "the ledger lacks an entry"));
            }
            let mut current = self.current();
            // Copied only while somebody reads the old one.
            let fold = Arc::make_mut(&mut current.fold);
            let mut index = next;
            for Loaded {
                entry,
                hash,
                openings,
            } in loaded
            {
                fold.push(index, &entry, hash);
                openings.into_iter().for_each(|opening| fold.open(opening));
                index += 1;
            }
            current.next = index;
        }
        drop(one_at_a_time);
        Ok(Arc::clone(&self.current().fold))
    }

    /// People's names. One that cannot be read is shown as its id.
    pub(crate) fn names(&self, source: &dyn Source) -> BTreeMap<PersonId, String> {
        let fold = self.caught_up(source);
        fold.map(|fold| fold.names()).unwrap_or_default()
    }

    /// Answers a query with what was sequenced before `before`, to somebody, or to whoever has the files.
    pub(crate) fn answer(
        &self,
        source: &dyn Source,
        query: &Query,
        by: Option<PersonId>,
        before: u64,
        now: Timestamp,
    ) -> Done<Value> {
        let fold = &*self.caught_up(source)?;
        match query {
            Query::Registry => {
                let (names, state) = (fold.names(), copied(source));
                let registry = crate::registry::registry(&state, &names, by, now);
                serde_json::to_value(registry).attempt("write the registry")
            }
            Query::Request { id } => {
                Ok(json!({ "id": id, "justification": fold.justification(*id) }))
            }
            Query::Actions { filter } => actions(fold, source, filter, before),
            Query::Refusals { filter } => {
                serde_json::to_value(fold.refusals(filter, before)).attempt("write the refusals")
            }
            Query::Runs { job } => {
                let found = runs::runs(fold, &copied(source), job, by, before);
                serde_json::to_value(found).attempt("write the runs")
            }
            Query::Reconciliations { id } => {
                let found = fold.reconciliations(*id, before);
                serde_json::to_value(found).attempt("write the reconciliations")
            }
            Query::Replay { session, action } => {
                let wanted = fold.evidence_of(*session);
                let shown = Shown::read(fold, source, *session, &wanted)?;
                let (chunks, terminals) =
                    (shown.chunks(*session, *action), shown.terminals(*session));
                Ok(json!({ "chunks": chunks, "terminals": terminals }))
            }
            // What there is to see comes in frames of its own.
            Query::Watch { .. } => Ok(Value::Null),
            Query::Export { session } => {
                let bundle = bundle(source, *session, now)?;
                let bytes = bundle.to_bytes().attempt("write the bundle")?;
                let text = String::from_utf8(bytes).attempt("write the bundle")?;
                Ok(json!({ "bundle": text }))
            }
        }
    }
}

fn actions(fold: &Fold, source: &dyn Source, filter: &Filter, before: u64) -> Done<Value> {
    let checkpoint = Checkpoint::open(source.note().as_bytes(), &[source.log_key()])
        .attempt("read the checkpoint")?;
    let root = checkpoint.root;
    let mut records = fold.actions(&copied(source), filter, root, before, "missing");
    for record in &mut records {
        record.integrity.tree_size = checkpoint.size;
    }
    serde_json::to_value(records).attempt("write the actions")
}

/// What of a session is shown: the evidence at `wanted` with its actions. It is opened for this alone
/// and forgotten afterwards.
struct Shown {
    fold: Fold,
    records: Vec<ActionRecord>,
}

impl Shown {
    fn read(fold: &Fold, source: &dyn Source, session: SessionId, wanted: &[u64]) -> Done<Self> {
        let filter = Filter {
            session: Some(session),
            ..Filter::default()
        };
        let state = copied_for(source, session);
        let records = fold.actions(&state, &filter, Hash::ZERO, u64::MAX, "missing");
        let intents = records.iter().map(|record| record.integrity.index);
        let mut wanted: Vec<u64> = wanted.iter().copied().chain(intents).collect();
        wanted.sort_unstable();
        let mut fold = Fold::new();
        for index in wanted {
            for bytes in source.entries(index, index + 1)? {
                let entry = Entry::from_bytes(&bytes).attempt("read an entry")?;
                fold.push(index, &entry, entry_hash(&bytes));
                if matches!(entry.body, Body::Evidence(_)) {
                    for opening in source.openings(index)? {
                        fold.open(opening);
                    }
                }
            }
        }
        Ok(Self { fold, records })
    }

    fn chunks(&self, session: SessionId, action: Option<ActionId>) -> Vec<ShownChunk> {
        let chunks = self.fold.transcript(session, action).into_iter();
        chunks
            .map(|(action, stream, after_ms, bytes)| ShownChunk {
                action,
                stream,
                after_ms,
                bytes: bytes.map(Bytes),
            })
            .collect()
    }

    fn terminals(&self, session: SessionId) -> Vec<Terminal> {
        let terminals = self.fold.terminals(session).into_iter();
        terminals
            .filter_map(|(action, begins_ms, pty)| {
                let mut records = self.records.iter();
                let record = records.find(|record| record.action_id == action)?;
                let name = record.who.shown();
                let what = &record.what;
                Some(Terminal {
                    action,
                    title: format!("{}@{} by {name}", what.account, what.target),
                    command: what.command.clone(),
                    pty,
                    at: record.when.at,
                    begins_ms,
                    ended: what.outcome.at,
                    exit_code: what.outcome.exit_code,
                })
            })
            .collect()
    }
}

/// Entries that are looked at for one frame of a watched session.
const NEWS: u64 = 512;

/// What is new in one session, frame after frame. Entries of other sessions cost only their reading.
pub(crate) struct NewsOf {
    session: SessionId,
    actions: BTreeSet<ActionId>,
    next: Option<u64>,
}

impl NewsOf {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            actions: BTreeSet::new(),
            next: None,
        }
    }

    /// What came since the last time; and whether there is more at once.
    pub(crate) fn next(&mut self, view: &View, source: &dyn Source) -> Done<(News, bool)> {
        let session = self.session;
        // The state is read before the entries: once it says that the session has ended, they are all
        // there.
        let (mut ended, mut begins) = (None, None);
        source.look(&mut |state| {
            if let Some(session) = state.sessions.get(&session) {
                begins = Some(session.place.index);
                ended = session.closed.map(|(_, reason)| reason);
            }
        });
        let size = source.size();
        let from = self.next.or(begins).unwrap_or(size);
        let to = size.min(from.saturating_add(NEWS));
        let (mut intents, mut evidence) = (false, Vec::new());
        for (index, bytes) in (from..to).zip(source.entries(from, to)?) {
            match Entry::from_bytes(&bytes).attempt("read an entry")?.body {
                Body::Intent(intent) if intent.session == session => {
                    self.actions.insert(intent.action);
                    intents = true;
                }
                Body::Evidence(body) if self.actions.contains(&body.action) => evidence.push(index),
                _ => {}
            }
        }
        self.next = Some(to);
        let mut news = News {
            ended: ended.filter(|_| to == size),
            ..News::default()
        };
        if intents || !evidence.is_empty() {
            let fold = view.caught_up(source)?;
            let shown = Shown::read(&fold, source, session, &evidence)?;
            news.chunks = shown.chunks(session, None);
            news.actions = shown.records;
            news.actions
                .retain(|record| (from..to).contains(&record.integrity.index));
        }
        Ok((news, to < size))
    }
}

/// Everything that proves one session.
fn bundle(source: &dyn Source, session: SessionId, now: Timestamp) -> Done<Bundle> {
    let open_note = |note: &str| {
        Checkpoint::open(note.as_bytes(), &[source.log_key()]).attempt("read the checkpoint")
    };
    let mut note = source.note();
    let mut checkpoint = open_note(&note)?;
    let mut reasons = BTreeSet::new();
    source.look(&mut |state| {
        let open = state.sessions.get(&session).map(|s| &s.open);
        let grant = open.and_then(|open| state.grants.get(&open.grant));
        let chain = open.and_then(|open| Some(state.delegation_chain(open.delegation?)));
        let chain = chain.unwrap_or_default().into_iter().map(|(id, _)| id);
        let logins = open.map_or_else(BTreeSet::new, |open| state.logins_behind(open));
        let vouching = open.map_or_else(BTreeSet::new, |open| state.logins_vouching(open));
        let logins = logins.into_iter().map(|(_, login)| login).chain(vouching);
        let request = grant.map(|g| g.request);
        reasons = request.into_iter().chain(chain).chain(logins).collect();
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
    let mut pick = Pick::new(session, reasons);
    let mut picked = Vec::new();
    let mut step = Vec::new().into_iter();
    for index in 0..checkpoint.size {
        if index % STEP == 0 {
            step = source
                .entries(index, checkpoint.size.min(index + STEP))?
                .into_iter();
        }
        let Some(bytes) = step.next() else {
            return Err(Failure::new(Kind::Failure, "the ledger lacks an entry"));
        };
        let entry = Entry::from_bytes(&bytes).attempt("read an entry")?;
        if let Some(disclose) = pick.wants(index, &entry) {
            // A token that could still be shown elsewhere goes to nobody.
            let withheld = withheld_until(&entry.body).is_some_and(|until| now < until);
            picked.push((index, bytes, disclose && !withheld));
        }
    }
    if !pick.found {
        return Err(Failure::new(
            Kind::Failure,
            format!("no session has the id `{session}`"),
        ));
    }
    // Witnesses say more than the log alone: their newest checkpoint is taken where the session had
    // ended by then, and nothing that came later.
    let witnessed = pick.witnessed.take();
    let witnessed = witnessed.filter(|(size, _)| pick.closed_by(*size));
    if let Some((size, cosigned)) = witnessed {
        checkpoint = open_note(&cosigned)?;
        note = cosigned;
        picked.retain(|(index, _, _)| *index < size);
    }
    let mut entries = Vec::new();
    let mut openings = Vec::new();
    for (index, bytes, disclose) in picked {
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

/// Chooses a session's entries: all law entries, the session's own, and writers' heads, those while it was open and
/// those after it that fix what was written last. What lies between is not in a bundle where it is another session's:
/// of what comes before that, no head after it shows whose it is.
struct Pick {
    session: SessionId,
    /// Its request, its delegations and the logins behind it: why and by whom they were made is disclosed.
    reasons: BTreeSet<StatementId>,
    found: bool,
    closed: Option<u64>,
    /// Whoever wrote something of it, with the number of the newest in their chain, and of the last that follows it in
    /// the bundle without a gap, until a head names one of these.
    unfixed: BTreeMap<String, (u64, u64)>,
    actions: BTreeSet<ActionId>,
    /// Entries of which it matters when witnesses saw them, and that no witnesses' word covers yet.
    unseen: Vec<u64>,
    /// The newest checkpoint that enough witnesses cosigned.
    witnessed: Option<(u64, String)>,
}

impl Pick {
    fn new(session: SessionId, reasons: BTreeSet<StatementId>) -> Self {
        Self {
            session,
            reasons,
            found: false,
            closed: None,
            unfixed: BTreeMap::new(),
            actions: BTreeSet::new(),
            unseen: Vec::new(),
            witnessed: None,
        }
    }

    /// Had the session ended in the tree of that size?
    fn closed_by(&self, size: u64) -> bool {
        self.closed.is_some_and(|index| index < size)
    }

    /// Is it something of the session?
    fn is_of_session(&self, body: &Body) -> bool {
        match body {
            Body::SessionOpen(open) => open.session == self.session,
            Body::SessionClose(close) => close.session == self.session,
            Body::Intent(intent) => intent.session == self.session,
            Body::Outcome(outcome) => self.actions.contains(&outcome.action),
            Body::Evidence(evidence) => self.actions.contains(&evidence.action),
            Body::Refusal(refusal) => refusal.session == Some(self.session),
            _ => false,
        }
    }

    /// Is the entry in the bundle, and are its openings?
    fn wants(&mut self, index: u64, entry: &Entry) -> Option<bool> {
        let mine = self.is_of_session(&entry.body);
        let wanted = self.chosen(mine, index, entry);
        let writer = &entry.writer;
        if mine {
            let newest = (writer.seq, writer.seq);
            self.unfixed.insert(writer.id.clone(), newest);
        } else if wanted.is_some()
            && let Some((_, last)) = self.unfixed.get_mut(&writer.id)
            && *last + 1 == writer.seq
        {
            *last = writer.seq;
        }
        wanted
    }

    /// The same, of an entry that is one of the session or not.
    fn chosen(&mut self, mine: bool, index: u64, entry: &Entry) -> Option<bool> {
        match &entry.body {
            Body::Genesis(_) => Some(true),
            Body::Grant(grant) => {
                if grant.break_glass {
                    self.unseen.push(index);
                }
                Some(false)
            }
            Body::GrantExtend(_) => Some(false),
            Body::Statement(signed) => {
                let statement = signed.statement().ok()?;
                match statement.say {
                    Say::Read(_) => None,
                    // Names make a bundle readable, and the reasons of the session's own request and
                    // delegations; the token of its login proves it. What other people wrote or
                    // showed stays sealed.
                    Say::PersonAdd(_) => Some(true),
                    Say::Request(_) | Say::BreakGlass(_) | Say::Delegation(_) | Say::Login(_) => {
                        Some(self.reasons.contains(&statement.id))
                    }
                    _ => Some(false),
                }
            }
            Body::SessionOpen(_) => {
                self.found |= mine;
                Some(mine)
            }
            Body::SessionClose(_) => {
                if mine {
                    self.closed = Some(index);
                }
                Some(false)
            }
            Body::Intent(intent) => {
                if mine {
                    self.actions.insert(intent.action);
                    self.unseen.push(index);
                }
                mine.then_some(true)
            }
            Body::Outcome(_) | Body::Evidence(_) | Body::Refusal(_) => mine.then_some(true),
            Body::ProviderKeys(_) | Body::DirectoryChange(_) => Some(false),
            Body::DirectoryRefusal(_) | Body::LoginRefusal(_) => None,
            Body::Head(head) => {
                let goes_on = self.found && self.closed.is_none();
                // After its close, those that fix what was written last.
                let newest = self.unfixed.get(&entry.writer.id);
                let fixes = newest.is_some_and(|(own, last)| (*own..=*last).contains(&head.seq));
                if fixes {
                    self.unfixed.remove(&entry.writer.id);
                }
                (goes_on || fixes).then_some(false)
            }
            Body::Cosigned(cosigned) => {
                self.witnessed = Some((cosigned.size, cosigned.note.clone()));
                let waiting = self.unseen.len();
                self.unseen.retain(|index| *index >= cosigned.size);
                // What settles something is law; of the others those that cover what matters here.
                let needed = !cosigned.settles.is_empty() || self.unseen.len() < waiting;
                needed.then_some(false)
            }
        }
    }
}

pub(crate) mod runs;
#[cfg(test)]
mod tests;
