//! What every connection has, whatever it speaks: its place in the ledger, its end, and the tasks that
//! its last entry waits for.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, CloseReason, Outcome, Refusal, SessionClose};
use ascribe_core::gate::{Action, Authorized, FORWARD_WITHIN_MS, GateError, Log, Recorded, Salts};
use ascribe_core::id::{EntryId, PersonId, SessionId, StatementId};
use ascribe_core::law::Denied;
use ascribe_core::record::{AgentLogin, Proposal, Receipt, RecordError, Recorder, Scope, Standing};
use ascribe_core::sealed::Opening;
use ascribe_core::time::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::random::Ahead;

/// A ledger that does not answer for so long is away.
const LEDGER_AWAY: Duration = Duration::from_secs(10);
/// How long a ledger that is away is waited for again, and any ledger once the gateway stops. What
/// is proposed stays proposed.
const LEDGER_LAST: Duration = Duration::from_secs(1);
/// How often a session's standing is looked at.
pub(crate) const PULSE: Duration = Duration::from_millis(250);
/// Most refusals of one connection that become entries.
const MAX_REFUSALS: u32 = 100;

/// Fills bytes with randomness.
pub type Fill = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// What all connections of a gateway share.
pub(crate) struct Common {
    pub(crate) recorder: Arc<dyn Recorder>,
    /// The writer that entries are chained under.
    pub(crate) writer: String,
    /// The log whose receipts count.
    pub(crate) log: Log,
    pub(crate) fill: Fill,
    pub(crate) stop: CancellationToken,
    pub(crate) idle_timeout: Duration,
}

impl Common {
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        (self.fill)(&mut out);
        out
    }
}

/// Why there is no recorded action.
pub(crate) enum Shut {
    /// It is not in the ledger.
    NotRecorded(Denied),
    /// It may be in the ledger, and is not sent.
    NotSent(String),
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRecorded(denied) => write!(f, "not recorded, so not run: {denied}"),
            Self::NotSent(why) => f.write_str(why),
        }
    }
}

/// Who acts, or in whose name, and the delegation whose agent it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor {
    pub(crate) person: PersonId,
    pub(crate) delegation: Option<StatementId>,
}

/// Whose key it is that logged in, and what else it takes for it to count.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) person: PersonId,
    /// The login that introduced the key, and its end, where it is a session key.
    pub(crate) session_key: Option<(StatementId, Timestamp)>,
    /// In whose name and by which delegation, where the key is an agent's.
    pub(crate) agent: Option<AgentLogin>,
}

impl Holder {
    /// Whose key is this, if anybody's?
    pub(crate) fn of(recorder: &dyn Recorder, fingerprint: &str) -> Option<Self> {
        let person = recorder.person_by_key(fingerprint);
        let agent = match person {
            Some(_) => None,
            None => recorder.agent_by_key(fingerprint),
        };
        Some(Self {
            person: person.or(agent.as_ref().map(|agent| agent.person))?,
            session_key: recorder.login_by_key(fingerprint),
            agent,
        })
    }

    /// The first instant at which the key no longer counts, where it has one.
    pub(crate) fn ends(&self) -> Option<Timestamp> {
        let login = self.session_key.map(|(_, until)| until);
        let agent = self.agent.as_ref().map(|agent| agent.until);
        login.into_iter().chain(agent).min()
    }

    pub(crate) fn delegation(&self) -> Option<StatementId> {
        self.agent.as_ref().map(|agent| agent.delegation)
    }
}

/// One connection's life.
pub(crate) struct Life {
    pub(crate) common: Arc<Common>,
    /// Cancelled with that of all; who waits here waits beside no other session.
    stop: CancellationToken,
    actor: Mutex<Option<Actor>>,
    opened: Mutex<Option<SessionId>>,
    reason: Mutex<Option<CloseReason>>,
    refusals: AtomicU32,
    ledger_away: AtomicBool,
    begun: Instant,
    moved_ms: AtomicU64,
    random: Ahead,
    /// Cancelled when the session must end.
    pub(crate) over: CancellationToken,
    /// What the session's last entry waits for.
    pub(crate) tasks: TaskTracker,
}

impl Life {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self {
            stop: common.stop.child_token(),
            common,
            actor: Mutex::new(None),
            opened: Mutex::new(None),
            reason: Mutex::new(None),
            refusals: AtomicU32::new(0),
            ledger_away: AtomicBool::new(false),
            begun: Instant::now(),
            moved_ms: AtomicU64::new(0),
            random: Ahead::default(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn writer(&self) -> &str {
        &self.common.writer
    }

    /// For ids and salts. Keys are drawn for themselves.
    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        self.random.take(&*self.common.fill)
    }

    /// From now on refusals name somebody.
    pub(crate) fn is_by(&self, actor: Actor) {
        *self.actor.lock().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }

    /// From now on there is a session to be closed.
    pub(crate) fn opened(&self, session: SessionId) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        self.moved();
    }

    fn session_id(&self) -> Option<SessionId> {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something moved: the session is not idle.
    pub(crate) fn moved(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }

    /// Ends the session; the first reason counts.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        self.over.cancel();
    }

    pub(crate) fn reason(&self) -> Option<CloseReason> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records one entry. A ledger that does not answer ends the session; ending it does not need
    /// the ledger.
    pub(crate) async fn record(&self, proposal: Proposal) -> Result<Receipt, RecordError> {
        self.in_time(self.common.recorder.record(proposal)).await?
    }

    /// The same of several together; each answer in its place.
    async fn record_all(&self, mut proposals: Vec<Proposal>) -> Vec<Result<Receipt, RecordError>> {
        let count = proposals.len();
        let recorder = &self.common.recorder;
        if count < 2 {
            let Some(one) = proposals.pop() else {
                return Vec::new();
            };
            let one = self.in_time(recorder.record(one)).await;
            return vec![one.and_then(|one| one)];
        }
        let recorded = self.in_time(recorder.record_all(proposals)).await;
        recorded.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// What the ledger answers, if it does so in time.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, RecordError> {
        let late = tokio::select! {
            biased;
            answer = answer => return Ok(answer),
            () = self.patience() => RecordError::Unavailable("it did not answer in time".to_owned()),
        };
        self.ledger_away.store(true, Ordering::Relaxed);
        self.end(CloseReason::LedgerUnavailable);
        Err(late)
    }

    /// How long the ledger may take.
    async fn patience(&self) {
        if self.ledger_away.load(Ordering::Relaxed) {
            return tokio::time::sleep(LEDGER_LAST).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LEDGER_AWAY) => {}
            () = self.stop.cancelled() => tokio::time::sleep(LEDGER_LAST).await,
        }
    }

    /// Why a recorded action must not be sent any more, if so.
    pub(crate) fn too_late(&self, recorded: &Recorded, begun: Instant) -> Option<&'static str> {
        let recorder = &self.common.recorder;
        let stands = matches!(recorder.standing(recorded.session()), Standing::Until(_))
            && recorder.now() < recorded.until()
            && !self.over.is_cancelled();
        if !stands {
            Some("the session has ended; the action was not sent")
        } else if begun.elapsed() > Duration::from_millis(FORWARD_WITHIN_MS) {
            Some("it took too long; the action was not sent")
        } else {
            None
        }
    }

    /// Authorise, record, check the receipt.
    pub(crate) async fn gate(&self, action: Action) -> Result<Recorded, Shut> {
        let (authorized, proposal) = self.authorize(action)?;
        self.opened_by(authorized, self.record(proposal).await)
    }

    /// The same of several, which are recorded together, in order; each result in its place.
    pub(crate) async fn gate_all(&self, actions: Vec<Action>) -> Vec<Result<Recorded, Shut>> {
        let mut proposals = Vec::with_capacity(actions.len());
        let mut authorized = Vec::with_capacity(actions.len());
        for action in actions {
            authorized.push(self.authorize(action).map(|(one, proposal)| {
                proposals.push(proposal);
                one
            }));
        }
        let mut receipts = self.record_all(proposals).await.into_iter();
        let missing = || Err(RecordError::Unavailable("it did not answer".to_owned()));
        let mut open = |one| self.opened_by(one, receipts.next().unwrap_or_else(missing));
        authorized.into_iter().map(|one| open(one?)).collect()
    }

    fn authorize(&self, action: Action) -> Result<(Authorized, Proposal), Shut> {
        let recorder = &self.common.recorder;
        let salts = Salts {
            command: self.random(),
            env: self.random(),
            values: self.random(),
            entry: self.random(),
        };
        let standing = recorder.standing(action.session);
        let checked = Authorized::check(action, self.writer(), standing, recorder.now(), salts);
        checked.map_err(|error| {
            let code = match error {
                GateError::Ended => "ended",
                GateError::Form(_) | GateError::Receipt(_) => "malformed",
            };
            Shut::NotRecorded(Denied::new(code, error.to_string()))
        })
    }

    /// The gate, with what the ledger answered.
    fn opened_by(
        &self,
        authorized: Authorized,
        answer: Result<Receipt, RecordError>,
    ) -> Result<Recorded, Shut> {
        let receipt = match answer {
            Ok(receipt) => receipt,
            Err(RecordError::Denied(denied)) => return Err(Shut::NotRecorded(denied)),
            // It may still become durable: whatever waits in the ledger's queue is not taken back.
            Err(error @ RecordError::Unavailable(_)) => {
                return Err(Shut::NotSent(format!("not recorded, so not run: {error}")));
            }
        };
        authorized
            .recorded(&receipt, &self.common.log)
            .map_err(|error| Shut::NotSent(format!("not run: {error}")))
    }

    /// The entry that says what became of an action.
    pub(crate) fn outcome(&self, session: SessionId, outcome: Outcome) -> Proposal {
        Proposal {
            id: EntryId::new(self.random()),
            writer: self.writer().to_owned(),
            body: Body::Outcome(outcome),
            openings: Vec::new(),
            scope: Scope::Session(session),
        }
    }

    /// Records what became of an action. Without that the session ends.
    pub(crate) async fn report(&self, session: SessionId, outcome: Outcome) {
        self.settle(vec![self.outcome(session, outcome)]).await;
    }

    /// Records outcomes' entries, together. Without that the session ends.
    pub(crate) async fn settle(&self, proposals: Vec<Proposal>) {
        let settled = self.common.recorder.settle_all(proposals);
        let settled = self.in_time(settled).await.and_then(|settled| settled);
        if let Err(error) = settled {
            tracing::error!("an outcome could not be recorded, the session ends: {error}");
            self.end(CloseReason::LedgerUnavailable);
        }
    }

    /// The entry that says what was refused, if there is anybody to name and room for it.
    pub(crate) fn refusal(&self, what: &str, code: &str, detail: &str) -> Option<Proposal> {
        let actor = *self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        let actor = actor?;
        let (what, code, detail) = match self.refusals.fetch_add(1, Ordering::Relaxed) {
            count if count < MAX_REFUSALS => (what, code, detail),
            MAX_REFUSALS => (
                "refusals",
                "suppressed",
                "further refusals of this connection are not listed",
            ),
            _ => return None,
        };
        let opening = Opening::new("detail", self.random(), detail.as_bytes().to_vec());
        let session = self.session_id();
        let refusal = Refusal {
            delegation: actor.delegation,
            person: actor.person,
            what: what.to_owned(),
            code: code.to_owned(),
            session,
            detail: Some(opening.commitment()),
        };
        Some(Proposal {
            id: EntryId::new(self.random()),
            writer: self.writer().to_owned(),
            body: Body::Refusal(refusal),
            openings: vec![opening],
            scope: session.map_or(Scope::Person(actor.person), Scope::Session),
        })
    }

    /// Records a refusal. Without that the session ends.
    pub(crate) async fn record_refusal(&self, proposal: Proposal) {
        self.record_refusals(vec![proposal]).await;
    }

    /// Records several, together. Without that the session ends.
    pub(crate) async fn record_refusals(&self, proposals: Vec<Proposal>) {
        let recorded = self.record_all(proposals).await.into_iter();
        if let Some(error) = recorded.filter_map(Result::err).next() {
            tracing::error!("a refusal could not be recorded, the session ends: {error}");
            self.end(CloseReason::LedgerUnavailable);
        }
    }

    /// Ends the session when its standing ends or nothing moves; returns when it is over. `each` is
    /// called at every look.
    pub(crate) async fn pulse(&self, mut each: impl FnMut()) {
        let mut tick = tokio::time::interval(PULSE);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.over.cancelled() => return,
            }
            let recorder = &self.common.recorder;
            match self.session_id().map(|session| recorder.standing(session)) {
                Some(Standing::Until(end)) if recorder.now() >= end => {
                    self.end(CloseReason::Expired);
                }
                Some(Standing::Ended(reason)) => self.end(reason),
                Some(Standing::Until(_)) | None => {}
            }
            each();
            let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            if self.begun.elapsed().saturating_sub(moved) > self.common.idle_timeout {
                self.end(CloseReason::Idle);
            }
        }
    }

    /// Waits for every task, then closes the session in the ledger.
    pub(crate) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        let Some(session) = self.session_id() else {
            return;
        };
        let close = SessionClose {
            session,
            reason: self.reason().unwrap_or(CloseReason::Disconnected),
            // The sequencer counts.
            actions: 0,
            entries: 0,
        };
        let proposal = Proposal {
            id: EntryId::new(self.random()),
            writer: self.writer().to_owned(),
            body: Body::SessionClose(close),
            openings: Vec::new(),
            scope: Scope::None,
        };
        if let Err(error) = self.record(proposal).await {
            // Recovery closes it as interrupted: an open session in the ledger is never forgotten.
            tracing::error!("a session's end could not be recorded: {error}");
        }
    }
}
