//! One connection and its one session.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ascribe_core::entry::{Body, CloseReason, OpenedBy, Refusal, SessionClose, SessionOpen};
use ascribe_core::id::{EntryId, PersonId, SessionId};
use ascribe_core::law::Denied;
use ascribe_core::record::{Admission, GrantView, Proposal, Receipt, RecordError, Scope, Standing};
use ascribe_core::sealed::Opening;
use ascribe_wire::user::User;
use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::{Shared, upstream};

const MAX_CHANNELS: usize = 64;
const MAX_REFUSALS: u32 = 100;

#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) user: User,
    pub(crate) person: PersonId,
    pub(crate) key: String,
}

pub(crate) struct Live {
    pub(crate) id: SessionId,
    pub(crate) grant: GrantView,
    pub(crate) target: upstream::Upstream,
}

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    peer: String,
    pub(crate) login: OnceLock<Login>,
    pub(crate) authenticated: Notify,
    pub(crate) channels: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    live: OnceCell<Result<Live, String>>,
    opened: OnceLock<SessionId>,
    refusals: AtomicU32,
    ended: watch::Sender<Option<CloseReason>>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, peer: String) -> Self {
        Self {
            shared,
            peer,
            login: OnceLock::new(),
            authenticated: Notify::new(),
            channels: Arc::new(Semaphore::new(MAX_CHANNELS)),
            tasks: TaskTracker::new(),
            live: OnceCell::new(),
            opened: OnceLock::new(),
            refusals: AtomicU32::new(0),
            ended: watch::Sender::new(None),
        }
    }

    pub(crate) async fn record(
        &self,
        body: Body,
        openings: Vec<Opening>,
        scope: Scope,
    ) -> Result<Receipt, RecordError> {
        let proposal = Proposal {
            id: EntryId::new(self.shared.random()),
            writer: self.shared.config.writer.clone(),
            body,
            openings,
            scope,
        };
        self.shared.recorder.record(proposal).await
    }

    pub(crate) fn refuse_later(
        self: &Arc<Self>,
        what: &'static str,
        code: &'static str,
        detail: &str,
    ) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) >= MAX_REFUSALS {
            return;
        }
        let (this, detail) = (self.clone(), ascribe_core::text::clean(detail, 500));
        self.tasks
            .spawn(async move { this.refuse(what, code, detail).await });
    }

    async fn refuse(&self, what: &str, code: &str, detail: String) {
        let Some(login) = self.login.get() else {
            return;
        };
        let session = self.opened.get().copied();
        let opening = Opening::new("detail", self.shared.random(), detail.into_bytes());
        let scope = session.map_or(Scope::Person(login.person), Scope::Session);
        let body = Body::Refusal(Refusal {
            person: login.person,
            what: what.to_owned(),
            code: code.to_owned(),
            session,
            detail: Some(opening.commitment()),
        });
        if let Err(error) = self.record(body, vec![opening], scope).await {
            tracing::warn!(%error, "a refusal was not recorded");
        }
    }

    /// The session, opened on first use.
    pub(crate) async fn live(self: &Arc<Self>) -> Result<&Live, &str> {
        let live = self
            .live
            .get_or_init(|| async { self.open().await.map_err(|d| explain(&d)) })
            .await;
        live.as_ref().map_err(String::as_str)
    }

    async fn open(self: &Arc<Self>) -> Result<Live, Denied> {
        let login = self
            .login
            .get()
            .ok_or_else(|| Denied::new("no-login", "nobody is logged in"))?;
        let user = &login.user;
        let recorder = &self.shared.recorder;
        let grant = match recorder.admit(login.person, &user.account, &user.target, user.grant) {
            Admission::Grant(grant) => *grant,
            Admission::Refused(denied) => {
                self.refuse("session", denied.code, explain(&denied)).await;
                return Err(denied);
            }
        };
        let id = SessionId::new(self.shared.random());
        let from = Opening::new("from", self.shared.random(), self.peer.clone().into_bytes());
        let body = Body::SessionOpen(SessionOpen {
            session: id,
            grant: grant.grant,
            person: login.person,
            key: login.key.clone(),
            target: grant.target.name.clone(),
            account: grant.account.clone(),
            from: from.commitment(),
            opened_by: OpenedBy::Testimony,
        });
        self.record(body, vec![from], Scope::Session(id))
            .await
            .map_err(|error| match error {
                RecordError::Denied(denied) => denied,
                other => Denied::new("ledger-unavailable", other.to_string()),
            })?;
        if self.opened.set(id).is_err() {
            return Err(Denied::new("session-open", "the session is already open"));
        }
        self.watch(id);
        match upstream::connect(&self.shared, &grant, id).await {
            Ok(target) => Ok(Live { id, grant, target }),
            Err(denied) => {
                self.refuse("session", denied.code, explain(&denied)).await;
                self.end(CloseReason::TargetFailed);
                Err(denied)
            }
        }
    }

    fn watch(self: &Arc<Self>, id: SessionId) {
        let this = self.clone();
        self.shared.tasks.spawn(async move {
            let mut ended = this.ended.subscribe();
            loop {
                let reason = match this.shared.recorder.standing(id) {
                    Standing::Ended(reason) => Some(reason),
                    Standing::Until(until) => (this.shared.recorder.now() >= until).then_some(CloseReason::Expired),
                };
                if let Some(reason) = reason {
                    return this.end(reason);
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                    () = this.shared.shutdown.cancelled() => return this.end(CloseReason::Interrupted),
                    _ = ended.wait_for(Option::is_some) => return,
                }
            }
        });
    }

    /// Ends the session; the first reason stays.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.ended.send_if_modified(|old| {
            let first = old.is_none();
            old.get_or_insert(reason);
            first
        });
    }

    /// Waits until the session is ended from this side.
    pub(crate) async fn ended(&self) -> CloseReason {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => (*reason).unwrap_or(CloseReason::Interrupted),
            Err(_) => CloseReason::Interrupted,
        }
    }

    /// Waits for the end, and then a little for channels to say so.
    pub(crate) async fn wait_end(&self) {
        tokio::select! {
            _ = self.ended() => {}
            () = self.shared.shutdown.cancelled() => self.end(CloseReason::Interrupted),
        }
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }

    /// Records the session's end once everything before it is recorded.
    pub(crate) async fn finish(&self) {
        self.end(CloseReason::Disconnected);
        self.tasks.close();
        self.tasks.wait().await;
        let Some(&session) = self.opened.get() else {
            return;
        };
        let reason = self.ended().await;
        let body = Body::SessionClose(SessionClose {
            session,
            reason,
            actions: 0,
            entries: 0,
        });
        if let Err(error) = self.record(body, Vec::new(), Scope::Session(session)).await {
            tracing::warn!(%error, "a session's end was not recorded");
        }
    }
}

fn explain(denied: &Denied) -> String {
    match &denied.help {
        Some(help) => format!("{}\n{help}", denied.message),
        None => denied.message.clone(),
    }
}
