//! One client connection and its session: opened at the first action, closed with a reason.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ascribe_core::entry::{Body, Certificate, CloseReason, SessionOpen};
use ascribe_core::id::{EntryId, PersonId, SessionId, StatementId};
use ascribe_core::record::{
    Admission, AgentLogin, GrantView, Proposal, RecordError, Scope, Wanted,
};
use ascribe_core::sealed::Opening;
use ascribe_core::time::Timestamp;
use ascribe_wire::request::{Policy, Request};
use russh::server::Handle;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entrance::{Entrance, Wish};
use crate::forward::Listening;
use crate::guard::Switch;
use crate::incoming::Held;
use crate::life::{Actor, Life, PULSE};
use crate::listen::Shared;
use crate::upstream::Upstream;

/// Most connections within one at once.
const MAX_INNER: u32 = 64;
/// Most logins of a session for commands, and as many for terminals.
const MAX_LOGINS: usize = 64;
/// How long channels may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(1000);
/// How long the client may take to leave by itself.
const LINGER: Duration = Duration::from_millis(500);

/// A grant's end closes every channel within 2 s.
const _: () = assert!(PULSE.as_millis() + GOODBYE.as_millis() + LINGER.as_millis() < 2000);

/// Who logged in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) person: PersonId,
    pub(crate) fingerprint: String,
    /// What says whose the key is, where it is not enrolled.
    pub(crate) certificate: Option<Certificate>,
    /// The login that introduced the key, and its end, where it is a session key.
    pub(crate) session_key: Option<(StatementId, Timestamp)>,
    /// In whose name and by which delegation, where the key is an agent's.
    pub(crate) agent: Option<AgentLogin>,
    pub(crate) wish: Wish,
}

/// An open session. It logs in to its target once for commands and once for terminals, each when
/// first needed: only the second login may have a terminal. Where one serves no more, it has further.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) view: GrantView,
    plain: Mutex<Vec<TargetLogin>>,
    terminal: Mutex<Vec<TargetLogin>>,
}

/// A login to the target, made when first needed.
type TargetLogin = Arc<OnceCell<Result<Arc<Upstream>, String>>>;

impl Session {
    /// The login for the next action: a new one, where those that there are take no more.
    fn target_login(&self, pty: bool) -> TargetLogin {
        let logins = if pty { &self.terminal } else { &self.plain };
        let mut logins = logins.lock().unwrap_or_else(PoisonError::into_inner);
        let takes_more = |login: &&TargetLogin| match login.get() {
            Some(Ok(upstream)) => !upstream.is_spent(),
            Some(Err(_)) => false,
            None => true,
        };
        let found = logins.iter().find(takes_more);
        let found = found.or(logins.first().filter(|_| logins.len() >= MAX_LOGINS));
        if let Some(login) = found {
            return Arc::clone(login);
        }
        let login = TargetLogin::default();
        logins.push(Arc::clone(&login));
        login
    }

    /// Has it a login to its target?
    fn is_logged_in(&self) -> bool {
        [&self.plain, &self.terminal].into_iter().any(|logins| {
            let logins = logins.lock().unwrap_or_else(PoisonError::into_inner);
            logins
                .iter()
                .any(|login| matches!(login.get(), Some(Ok(_))))
        })
    }
}

/// One connection.
pub(crate) struct Connection {
    /// What it has as any connection has; its tasks are channels and refusals.
    life: Life,
    pub(crate) shared: Arc<Shared>,
    pub(crate) switch: Switch,
    pub(crate) held: Held,
    /// The same for all connections within this one together. What carries them is not held.
    pub(crate) held_within: Held,
    pub(crate) peer: String,
    pub(crate) entrance: Entrance,
    login: Mutex<Option<Login>>,
    session: OnceCell<Arc<Session>>,
    /// Who watches, where the target's rule has the actor told.
    pub(crate) watchers: watch::Sender<Vec<String>>,
    /// The way to channels that open towards the client.
    client: OnceLock<Handle>,
    /// Cut the logins to the target.
    targets: Mutex<Vec<Switch>>,
    /// What the target listens at for the client.
    listening: Mutex<Vec<Listening>>,
    /// Connections within this one.
    inner: AtomicU32,
    watch: TaskTracker,
    gone: CancellationToken,
}

/// A connection within another.
pub(crate) struct Within(Arc<Connection>);

impl Drop for Within {
    fn drop(&mut self) {
        self.0.inner.fetch_sub(1, Ordering::Relaxed);
        self.0.moved();
    }
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        switch: Switch,
        peer: String,
        entrance: Entrance,
    ) -> Self {
        // Connections within the same one share what is held of them.
        let held = match &entrance {
            Entrance::Inner(inner) => inner.held.clone(),
            Entrance::Outer => Held::new(),
        };
        Self {
            life: Life::new(Arc::clone(&shared.common)),
            shared,
            switch,
            held,
            held_within: Held::new(),
            peer,
            entrance,
            login: Mutex::new(None),
            session: OnceCell::new(),
            watchers: watch::Sender::new(Vec::new()),
            client: OnceLock::new(),
            targets: Mutex::default(),
            listening: Mutex::default(),
            inner: AtomicU32::new(0),
            watch: TaskTracker::new(),
            gone: CancellationToken::new(),
        }
    }

    /// The client's address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let peer: SocketAddr = self.peer.parse().ok()?;
        Some(peer.ip())
    }

    /// The one login of this connection. Nothing of a failed attempt is kept.
    pub(crate) fn log_in(&self, login: Login) {
        self.is_by(Actor {
            person: login.person,
            delegation: login.agent.as_ref().map(|agent| agent.delegation),
        });
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(login);
        self.switch.log_in();
    }

    pub(crate) fn login(&self) -> Option<Login> {
        self.login
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps the way to the client.
    pub(crate) fn meet(&self, client: Handle) {
        self.client.get_or_init(|| client);
    }
    pub(crate) fn client(&self) -> Option<Handle> {
        self.client.get().cloned()
    }

    /// A new login's switch.
    pub(crate) fn target_switch(&self) -> Switch {
        let switch = Switch::default();
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.push(switch.clone());
        switch
    }

    /// Whatever still waits for the target waits no longer.
    fn cut_targets(&self) {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().for_each(Switch::cut);
    }

    fn listening(&self) -> std::sync::MutexGuard<'_, Vec<Listening>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
    /// Remembers what the target listens at. The grant bounds how much that is.
    pub(crate) fn listen(&self, at: Listening) {
        let mut listening = self.listening();
        if !listening.contains(&at) {
            listening.push(at);
        }
    }
    /// Forgets it; was it there?
    pub(crate) fn unlisten(&self, at: &Listening) -> bool {
        let mut listening = self.listening();
        let before = listening.len();
        listening.retain(|known| known != at);
        listening.len() < before
    }
    pub(crate) fn listens(&self, at: &Listening) -> bool {
        self.listening().contains(at)
    }

    /// What the session ends with.
    pub(crate) fn rests_on(&self) -> &'static str {
        match self.login() {
            Some(login) if login.certificate.is_some() => "the grant or the certificate",
            Some(login) if login.session_key.is_some() => "the grant or the login",
            Some(login) if login.agent.is_some() => "the grant or a delegation",
            Some(_) | None => "the grant",
        }
    }

    /// The delegation whose agent logged in.
    pub(crate) fn delegation(&self) -> Option<StatementId> {
        Some(self.login()?.agent?.delegation)
    }

    /// The session, opened at the first call; or what the client is told. Whoever was refused may have
    /// been approved since: a shared connection outlives the refusal.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, String> {
        self.session.get_or_try_init(|| self.open()).await.cloned()
    }

    async fn open(self: &Arc<Self>) -> Result<Arc<Session>, String> {
        let Some(login) = self.login() else {
            return Err("not logged in".to_owned());
        };
        let Wish::Session(user) = &login.wish else {
            return Err(
                "this login only leads on to targets: ssh -J THIS_HOST ACCOUNT@TARGET\r\n  \
                 or log in as ACCOUNT@TARGET"
                    .to_owned(),
            );
        };
        let delegation = login.agent.as_ref().map(|agent| agent.delegation);
        let admission = self.shared.common.recorder.admit(&Wanted {
            person: login.person,
            account: &user.account,
            target: &user.target,
            chosen: user.grant,
            delegation,
        });
        let view = match admission {
            Admission::Grant(mut view) => {
                // The session ends with its certificate, its login, and its agent's delegation.
                let certified = login.certificate.as_ref().and_then(|c| c.not_after);
                let until = login.session_key.map(|(_, until)| until);
                let delegated = login.agent.as_ref().map(|agent| agent.until);
                let ends = certified.into_iter().chain(until).chain(delegated);
                view.not_after = ends.fold(view.not_after, Timestamp::min);
                *view
            }
            Admission::Refused(denied) => {
                self.refuse(
                    "session",
                    denied.code,
                    &format!("{}@{}", user.account, user.target),
                );
                return Err(told(&denied));
            }
        };
        let id = SessionId::new(self.random());
        let from = Opening::new("from", self.random(), self.peer.clone().into_bytes());
        let (door, opened_by, opening) = self.entrance.opened();
        let open = SessionOpen {
            session: id,
            grant: view.grant,
            person: login.person,
            key: login.fingerprint.clone(),
            target: user.target.clone(),
            account: user.account.clone(),
            from: from.commitment(),
            certificate: login.certificate.clone(),
            delegation,
            door,
            login: login.session_key.map(|(login, _)| login),
            opened_by,
            opening,
        };
        let proposal = Proposal {
            id: EntryId::new(self.random()),
            writer: self.writer().to_owned(),
            body: Body::SessionOpen(open),
            openings: vec![from],
            scope: Scope::Session(id),
        };
        match self.record(proposal).await {
            Ok(_) => {}
            Err(RecordError::Denied(denied)) => {
                self.refuse(
                    "session",
                    denied.code,
                    &format!("{}@{}", user.account, user.target),
                );
                return Err(told(&denied));
            }
            Err(error) => {
                // It may still become durable. Then it is closed with this connection, which serves no
                // other one.
                self.opened(id);
                self.end(CloseReason::LedgerUnavailable);
                return Err(format!("no session without a record: {error}"));
            }
        }
        self.opened(id);
        Ok(Arc::new(Session {
            id,
            view,
            plain: Mutex::default(),
            terminal: Mutex::default(),
        }))
    }

    /// The session's login to its target, made at the first call; or what the client is told.
    pub(crate) async fn upstream(
        self: &Arc<Self>,
        session: &Arc<Session>,
        pty: bool,
    ) -> Result<Arc<Upstream>, String> {
        session
            .target_login(pty)
            .get_or_init(|| async {
                let connected = tokio::select! {
                    connected = Upstream::connect(self, session, pty) => connected,
                    () = self.over.cancelled() => return Err("the session has ended".to_owned()),
                };
                connected.map(Arc::new).map_err(|error| {
                    self.refuse("target", "unreachable", &error.to_string());
                    // What runs in another login goes on.
                    if !session.is_logged_in() {
                        self.end(CloseReason::TargetFailed);
                    }
                    let view = &session.view;
                    format!(
                        "cannot reach {}@{}: {error}",
                        view.account, view.target.name
                    )
                })
            })
            .await
            .clone()
    }

    /// Watches the connection from its first byte to its last.
    pub(crate) fn watch(self: &Arc<Self>) {
        self.watch.spawn(Arc::clone(self).watched());
    }

    /// One more connection within this one; it ends no sooner for want of movement.
    /// None when there are too many.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Within> {
        let before = self.inner.fetch_add(1, Ordering::Relaxed);
        let within = Within(Arc::clone(self));
        (before < MAX_INNER).then_some(within)
    }

    /// Watches grant, revocation and idleness.
    async fn watched(self: Arc<Self>) {
        let look = || {
            self.look_for_watchers();
            if self.inner.load(Ordering::Relaxed) > 0 {
                self.moved();
            }
        };
        tokio::select! {
            () = self.pulse(look) => {}
            () = self.gone.cancelled() => return,
        }
        // Channels say goodbye, which must reach the client; who does not leave is cut off. With the
        // pulse all of it stays within 2 s.
        self.settle().await;
        self.cut_targets();
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = tokio::time::sleep(LINGER) => {}
        }
        self.switch.cut();
    }

    fn look_for_watchers(&self) {
        let Some(session) = self.session.get() else {
            return;
        };
        if session.view.target.watch_notice {
            let now = self.shared.common.recorder.watchers(session.id);
            self.watchers.send_if_modified(|known| {
                let more = now.len() > known.len();
                *known = now;
                more
            });
        }
    }

    /// Gives channels a moment to end.
    async fn settle(&self) {
        self.tasks.close();
        if tokio::time::timeout(GOODBYE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::debug!("a channel did not end in time");
        }
    }

    /// Records that a kind of request was refused.
    pub(crate) fn refuse_request(self: &Arc<Self>, request: Request, detail: &str) {
        debug_assert!(
            matches!(
                request.policy(),
                Policy::RefusedAndRecorded | Policy::RecordedIfGranted
            ),
            "the table says so"
        );
        let detail = format!("{} {detail}", request.wire());
        self.refuse("forwarding", "not-allowed", detail.trim_end());
    }

    /// Records that something was refused, without holding up the connection.
    pub(crate) fn refuse(self: &Arc<Self>, what: &str, code: &str, detail: &str) {
        let Some(refusal) = self.refusal(what, code, detail) else {
            return;
        };
        let connection = Arc::clone(self);
        self.tasks
            .spawn(async move { connection.record_refusal(refusal).await });
    }

    /// The connection is over: waits for every task, then closes the session in the ledger.
    pub(crate) async fn finish(&self) {
        self.gone.cancel();
        self.over.cancel();
        self.settle().await;
        self.cut_targets();
        self.tasks.wait().await;
        self.watch.close();
        self.watch.wait().await;
        self.life.close().await;
    }
}

/// A connection is a life with SSH around it.
impl std::ops::Deref for Connection {
    type Target = Life;

    fn deref(&self) -> &Life {
        &self.life
    }
}

/// A refusal, as the client's terminal shows it.
fn told(denied: &ascribe_core::law::Denied) -> String {
    let help = denied
        .help
        .as_ref()
        .map_or(String::new(), |help| format!("\r\n  {help}"));
    format!("{}{help}", denied.message)
}
