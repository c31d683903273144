//! One session: opened and connected on record, relayed, closed on record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::database::{SqlScope, Values};
use ascribe_core::entry::{Body, CloseReason, Door, OpenedBy, Outcome, SessionOpen, Status};
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::{ActionId, EntryId, PersonId, SessionId, StatementId};
use ascribe_core::law::Denied;
use ascribe_core::record::{
    Admission, GrantView, Proposal, RecordError, Scope, SignedOpening, Wanted,
};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Connect, Target};
use ascribe_core::time::Timestamp;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::startup::{NEWEST, Startup, UserName};
use ascribe_wire::pg::{Secret, encode};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use super::action::{action_of, connecting};
use super::budget::Share;
use super::door::{fatal, told};
use super::outcomes::{outcome, refused as answered};
use super::target::{self, Login, Ready, TargetError};
use super::{ActsAs, Bearer, Credential, Io, Lease, Shared, relay};
use crate::life::{Actor, Holder, Life, Shut};
use crate::upstream::Reserved;

/// A target gets this long until it is ready.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A cancel gets this long.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// SQLSTATE of a password that is not the role's.
const WRONG_PASSWORD: &[u8] = b"28P01";
/// SQLSTATE of a database that there is not.
const NO_DATABASE: &[u8] = b"3D000";
/// What a session is called at its target: the gateway says it, not the client.
const APPLICATION: &[u8] = b"application_name";

/// Who may ask for a session, and for which.
pub(super) struct Entrant {
    pub(super) person: PersonId,
    /// The fingerprint of their key.
    pub(super) key: String,
    pub(super) connect: Connect,
    pub(super) door: Door,
    /// What they signed for it; none where all they did was to show a token.
    opening: Option<StatementId>,
    /// Ends their login where no session does.
    logout: Option<Proposal>,
}

impl Entrant {
    /// Somebody who signed for exactly this session.
    pub(super) fn signed(opening: StatementId, signed: SignedOpening, door: Door) -> Self {
        Self {
            person: signed.person,
            key: signed.key,
            connect: signed.connect,
            door,
            opening: Some(opening),
            logout: None,
        }
    }

    /// A workload that showed its token or its certificate, with what the user name asks for.
    pub(super) fn shown(bearer: Bearer, user: &UserName, door: Door) -> Self {
        Self {
            person: bearer.workload,
            key: bearer.key,
            connect: Connect {
                definition: None,
                target: user.target.clone(),
                account: user.role.clone(),
                grant: user.grant,
            },
            door,
            opening: None,
            logout: Some(bearer.logout),
        }
    }
}

/// Somebody who asks for a session.
pub(super) struct Guest {
    pub(super) stream: Box<dyn Io>,
    /// What came behind the login.
    pub(super) read: BytesMut,
    pub(super) peer: SocketAddr,
    pub(super) startup: Startup,
    pub(super) entrant: Entrant,
}

/// An open session.
pub(super) struct Session {
    pub(super) life: Life,
    pub(super) id: SessionId,
    pub(super) view: GrantView,
    /// What of it may be revoked, as its client is told.
    pub(super) rests_on: &'static str,
    /// What cancels its statements at the target.
    key: Option<(u32, Secret)>,
    /// One cancel at a time.
    cancelling: Semaphore,
}

impl Session {
    pub(super) fn scope(&self) -> Option<&SqlScope> {
        self.view.sql.as_ref()
    }

    pub(super) fn values(&self) -> Values {
        let postgres = self.view.target.postgres.as_ref();
        postgres.map_or(Values::None, |postgres| postgres.values)
    }

    pub(super) fn action_id(&self) -> ActionId {
        ActionId::new(self.life.random())
    }

    /// Cancels what runs, on record. Who asks while another cancel is under way has been heard with it.
    pub(super) async fn cancel(&self, shared: &Arc<Shared>) {
        let Ok(_turn) = self.cancelling.try_acquire() else {
            return;
        };
        let action = action_of(self.id, self.action_id(), "pg.cancel", None, None);
        let id = action.action;
        let begun = Instant::now();
        let recorded = match self.life.gate(action).await {
            Ok(recorded) => recorded,
            Err(Shut::NotRecorded(denied)) => {
                if let Some(refusal) = self.life.refusal("pg.cancel", denied.code, "") {
                    self.life.record_refusal(refusal).await;
                }
                return;
            }
            Err(Shut::NotSent(_)) => {
                return self.report(outcome(id, Status::NotSent, None)).await;
            }
        };
        let status = match self.life.too_late(&recorded, begun) {
            Some(_) => Status::NotSent,
            None => match self.send_cancel(shared, Some(recorded)).await {
                true => Status::Succeeded,
                false => Status::Unknown,
            },
        };
        self.report(outcome(id, status, None)).await;
    }

    /// Stops what runs because the session ends. That is no action of the actor's: the close says why.
    pub(super) async fn stop(&self, shared: &Arc<Shared>) {
        self.send_cancel(shared, None).await;
    }

    /// Did the target take it?
    async fn send_cancel(&self, shared: &Arc<Shared>, recorded: Option<Recorded>) -> bool {
        drop(recorded.map(Recorded::into_action));
        let Some((process, key)) = &self.key else {
            return false;
        };
        let asked = target::cancel(&self.view.target, &shared.config.own, *process, key);
        matches!(
            tokio::time::timeout(CANCEL_TIMEOUT, asked).await,
            Ok(Ok(()))
        )
    }

    pub(super) async fn report(&self, outcome: Outcome) {
        self.life.report(self.id, outcome).await;
    }
}

/// What a client is told of a refusal.
fn refused(denied: &Denied) -> Report {
    let hint = denied.help.clone().unwrap_or_default();
    fatal("28000", denied.message.clone(), &hint)
}

/// From the login to the session's last entry.
pub(super) async fn run(shared: Arc<Shared>, guest: Guest) {
    let life = Life::new(Arc::clone(&shared.common));
    let Guest {
        mut stream,
        read,
        peer,
        startup,
        entrant,
    } = guest;
    let share = Share::open(&shared.budget).ok_or_else(crowded);
    let opened = match share {
        Ok(share) => open(&shared, &life, &startup, &entrant, peer)
            .await
            .map(|opened| (opened, share)),
        Err(report) => Err(report),
    };
    let (Opened { id, view, rests_on }, share) = match opened {
        Ok(opened) => opened,
        Err(report) => {
            leave(&shared, entrant.logout).await;
            life.close().await;
            return turn_away(&mut stream, &report).await;
        }
    };
    let connected = connect_or_end(&shared, &life, (id, &view), &startup).await;
    let Reached {
        target,
        ready,
        lease,
    } = match connected {
        Ok(connected) => connected,
        Err(report) => {
            life.close().await;
            return turn_away(&mut stream, &report).await;
        }
    };
    let Ready {
        stream: up,
        frames,
        settings,
        key,
        status,
        ..
    } = ready;
    let view = GrantView { target, ..view };
    let session = Arc::new(Session {
        life,
        id,
        view,
        rests_on,
        key,
        cancelling: Semaphore::new(1),
    });
    let minor = startup.spoken(NEWEST);
    // Where the target gave no key, there is none.
    let kept = session
        .key
        .as_ref()
        .map(|_| shared.cancels.keep(&shared, &session, minor));
    let mut greeting = BytesMut::new();
    greeting.extend_from_slice(&encode::authentication_ok());
    for (name, value) in &settings {
        greeting.extend_from_slice(&encode::parameter_status(name, value));
    }
    if let Some((_, process, key)) = &kept {
        greeting.extend_from_slice(&encode::backend_key_data(*process, key.expose()));
    }
    greeting.extend_from_slice(&encode::ready_for_query(status));
    let ends = relay::Ends {
        client: stream,
        read,
        target: up,
        frames,
        greeting: greeting.freeze(),
        settings,
        replication: startup.is_replication(),
        share,
    };
    let lent = async {
        if let Some(lease) = &lease {
            lease.over.cancelled().await;
            session.life.end(CloseReason::Expired);
        }
        // What ends the session is the relay.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = relay::run(&shared, &session, ends) => {}
        () = lent => {}
    }
    drop(lease);
    drop(kept);
    session.life.close().await;
}

/// Connects, unless the session ends before that.
async fn connect_or_end(
    shared: &Arc<Shared>,
    life: &Life,
    of: (SessionId, &GrantView),
    startup: &Startup,
) -> Result<Reached, Report> {
    let mut going = Going::default();
    let ended = tokio::select! {
        connected = connect(shared, life, of, startup, &mut going) => return connected,
        () = life.over.cancelled() => "the session has ended",
        () = life.pulse(|| ()) => "the session has ended",
        () = shared.common.stop.cancelled() => {
            life.end(CloseReason::Interrupted);
            "the gateway stops"
        }
    };
    let report = match life.reason() {
        Some(CloseReason::LedgerUnavailable) => unrecorded("the ledger does not answer"),
        _ => fatal("57P01", ended, ""),
    };
    // The target may have let it in already.
    if let Some(id) = going.sent.take() {
        let outcome = Outcome {
            notes: going.in_vain(),
            ..outcome(id, Status::Unknown, None)
        };
        life.report(of.0, outcome).await;
    }
    Err(report)
}

/// What a client is told where the ledger does not take a session in.
pub(super) fn unrecorded(why: &str) -> Report {
    let why = format!("no session without a record: {why}");
    fatal("58030", why, "try again when the ledger is back")
}

/// A way to the target, as far as it has come.
#[derive(Debug, Default)]
struct Going {
    /// On record, and without an outcome.
    sent: Option<ActionId>,
    /// Who logs in, and by which lease.
    who: Vec<String>,
    /// The ports that connections to the target came from, in order.
    ports: Vec<u16>,
    /// The one that is on record.
    from: Reserved,
}

impl Going {
    /// Notes of connections that came to nothing. By their ports the target's own log is joined with ours.
    fn in_vain(&mut self) -> Vec<String> {
        let tried = self.ports.iter().map(|port| format!("tried {port}"));
        std::mem::take(&mut self.who)
            .into_iter()
            .chain(tried)
            .collect()
    }
}

/// A session that is on record.
struct Opened {
    id: SessionId,
    view: GrantView,
    rests_on: &'static str,
}

/// What may be revoked and end a session.
fn rests_on(holder: &Holder) -> &'static str {
    match holder {
        Holder { agent: Some(_), .. } => "the grant or a delegation",
        Holder {
            session_key: Some(_),
            ..
        } => "the grant or the login",
        Holder { .. } => "the grant",
    }
}

/// What a client is told where there is no memory for another session.
fn crowded() -> Report {
    let hint = "sessions that end make room; the gateway's administrator may give it more memory";
    fatal(
        "53300",
        "the gateway has no memory for another session",
        hint,
    )
}

/// Ends a login that no session was opened with. Without the ledger it ends by itself, with its token.
async fn leave(shared: &Shared, logout: Option<Proposal>) {
    let Some(logout) = logout else { return };
    if let Err(error) = shared.common.recorder.record(logout).await {
        tracing::warn!(
            "a login of a connection that was refused goes on until its token ends: {error}"
        );
    }
}

async fn turn_away(stream: &mut Box<dyn Io>, report: &Report) {
    let said = async {
        stream.write_all(&encode::error_response(report)).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(relay::GOODBYE, said).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a client left before it was told why: {error}"),
        Err(_) => tracing::debug!("a client did not take why it was turned away"),
    }
}

/// Opens the session on record; or what the client is told.
async fn open(
    shared: &Shared,
    life: &Life,
    startup: &Startup,
    entrant: &Entrant,
    peer: SocketAddr,
) -> Result<Opened, Report> {
    let recorder = &*shared.common.recorder;
    let holder = Holder::of(recorder, &entrant.key).filter(|h| h.person == entrant.person);
    let holder =
        holder.ok_or_else(|| fatal("28000", "the key of this login is nobody's any more", ""))?;
    life.is_by(Actor {
        person: holder.person,
        delegation: holder.delegation(),
    });
    let (account, target) = (&entrant.connect.account, &entrant.connect.target);
    let refuse = |denied: Denied| {
        let place = format!("{account}@{target}");
        let refusal = life.refusal("session", denied.code, &place);
        (refused(&denied), refusal)
    };
    let admitted = recorder.admit(&Wanted {
        person: holder.person,
        account,
        target,
        chosen: entrant.connect.grant,
        delegation: holder.delegation(),
    });
    let opened = match admitted {
        Admission::Grant(mut view) => {
            let ends = holder.ends();
            view.not_after = ends.into_iter().fold(view.not_after, Timestamp::min);
            match check_database(&view, startup) {
                Ok(()) => Ok(*view),
                Err(denied) => Err(refuse(denied)),
            }
        }
        Admission::Refused(denied) => Err(refuse(denied)),
    };
    let view = match opened {
        Ok(view) => view,
        Err((report, refusal)) => return record_and(life, report, refusal).await,
    };
    let id = SessionId::new(life.random());
    let from = Opening::new("from", life.random(), peer.to_string().into_bytes());
    let open = SessionOpen {
        session: id,
        grant: view.grant,
        person: holder.person,
        key: entrant.key.clone(),
        target: target.clone(),
        account: account.clone(),
        from: from.commitment(),
        certificate: None,
        delegation: holder.delegation(),
        door: entrant.door,
        login: holder.session_key.map(|(login, _)| login),
        opened_by: match entrant.opening {
            Some(_) => OpenedBy::Signed,
            None => OpenedBy::Testimony,
        },
        opening: entrant.opening,
    };
    let proposal = Proposal {
        id: EntryId::new(life.random()),
        writer: life.writer().to_owned(),
        body: Body::SessionOpen(open),
        openings: vec![from],
        scope: Scope::Session(id),
    };
    match life.record(proposal).await {
        Ok(_) => {}
        Err(RecordError::Denied(denied)) => {
            let (report, refusal) = refuse(denied);
            return record_and(life, report, refusal).await;
        }
        Err(error) => return Err(unrecorded(&error.to_string())),
    }
    life.opened(id);
    let rests_on = rests_on(&holder);
    Ok(Opened { id, view, rests_on })
}

async fn record_and<T>(
    life: &Life,
    report: Report,
    refusal: Option<Proposal>,
) -> Result<T, Report> {
    if let Some(refusal) = refusal {
        life.record_refusal(refusal).await;
    }
    Err(report)
}

/// Does the target's rule allow this database?
fn check_database(view: &GrantView, startup: &Startup) -> Result<(), Denied> {
    let Some(postgres) = &view.target.postgres else {
        let why = format!("`{}` is no database", view.target.name);
        return Err(Denied::new("door", why).with_help("log in to it with ssh"));
    };
    let name = database(startup, &view.account);
    let listed = |known: &String| known.as_bytes() == &name[..];
    if postgres.databases.is_empty() || postgres.databases.iter().any(listed) {
        return Ok(());
    }
    let shown = ascribe_core::text::clean(&String::from_utf8_lossy(&name), 64);
    let why = format!("the target does not allow the database `{shown}`");
    let listed = postgres.databases.join(", ");
    Err(Denied::new("database", why).with_help(format!("it allows: {listed}")))
}

/// The database that is meant: by itself the one that is called like the role.
fn database(startup: &Startup, account: &str) -> Bytes {
    let user = startup.user();
    match startup.database() {
        // Clients put the user name where no database is named, and ours is longer than the role.
        Some(name) if Some(name) != user => name.clone(),
        Some(_) | None => Bytes::copy_from_slice(account.as_bytes()),
    }
}

/// Connects to the target, on record; or what the client is told.
async fn connect(
    shared: &Arc<Shared>,
    life: &Life,
    (session, view): (SessionId, &GrantView),
    startup: &Startup,
    going: &mut Going,
) -> Result<Reached, Report> {
    let name = database(startup, &view.account);
    let (command, mut sql) = connecting(startup, &name);
    // Should we end before the outcome is on record, this says whose session the target's own log has.
    going.from = Reserved::for_target(&view.target);
    sql.port = going.from.port();
    let id = ActionId::new(life.random());
    let action = action_of(session, id, "pg.connect", Some(command), Some(sql));
    let begun = Instant::now();
    let recorded = gate(life, action).await?;
    if let Some(why) = life.too_late(&recorded, begun) {
        life.report(session, outcome(id, Status::NotSent, None))
            .await;
        return Err(fatal("57P01", why, ""));
    }
    going.sent = Some(id);
    let reaching = reach(shared, recorded, view, (startup, name, session), going);
    let reached = match tokio::time::timeout(CONNECT_TIMEOUT, reaching).await {
        Ok(reached) => reached,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    };
    going.sent = None;
    match reached {
        Ok(reached) => {
            // The last one is the one that was let in.
            going.ports.pop();
            let mut notes = going.in_vain();
            // By these its own log is joined with ours.
            notes.push(format!("port {}", reached.ready.port));
            let key = reached.ready.key.iter();
            notes.extend(key.map(|(process, _)| format!("backend {process}")));
            let outcome = Outcome {
                notes,
                ..outcome(id, Status::Succeeded, None)
            };
            life.report(session, outcome).await;
            Ok(reached)
        }
        Err(error) => {
            let sql = match &error {
                TargetError::Refused(report) => Some(answered(report, begun)),
                _ => None,
            };
            let outcome = Outcome {
                notes: going.in_vain(),
                sql,
                ..outcome(id, Status::Failed, None)
            };
            life.report(session, outcome).await;
            life.end(CloseReason::TargetFailed);
            let place = format!("{}@{}", view.account, view.target.name);
            tracing::warn!("{place} was not reached: {error}");
            Err(match error {
                // Its own words, as a client knows them.
                TargetError::Refused(report) => explained(*report, startup),
                TargetError::NoCredential(_) => fatal(
                    "08001",
                    format!("cannot reach {place}: its credential cannot be had"),
                    "the gateway's own log says why",
                ),
                error => fatal("08001", format!("cannot reach {place}: {error}"), ""),
            })
        }
    }
}

/// What a target says, and what its client may not know: which database is meant where none is named.
fn explained(report: Report, startup: &Startup) -> Report {
    let named = startup.database().is_some() && startup.database() != startup.user();
    if named || report.code != NO_DATABASE || report.hint.is_some() {
        return report;
    }
    let hint = "no database was named, so the one called like the role was meant; name one, for instance with `-d DATABASE`";
    Report {
        hint: Some(told(hint.to_owned())),
        ..report
    }
}

/// The gate, for what has no answer of its own.
async fn gate(life: &Life, action: Action) -> Result<Recorded, Report> {
    let (id, session) = (action.action, action.session);
    match life.gate(action).await {
        Ok(recorded) => Ok(recorded),
        Err(Shut::NotRecorded(denied)) => {
            let refusal = life.refusal("pg.connect", denied.code, "");
            record_and(life, refused(&denied), refusal).await
        }
        Err(Shut::NotSent(why)) => {
            life.report(session, outcome(id, Status::NotSent, None))
                .await;
            Err(fatal("58030", why, ""))
        }
    }
}

/// A target that was reached.
struct Reached {
    target: Target,
    ready: Ready,
    /// What its credential is lent by.
    lease: Option<Lease>,
}

/// Goes to the target with what was recorded, and no sooner.
async fn reach(
    shared: &Arc<Shared>,
    recorded: Recorded,
    view: &GrantView,
    (startup, database, session): (&Startup, Bytes, SessionId),
    going: &mut Going,
) -> Result<Reached, TargetError> {
    let Action { .. } = recorded.into_action();
    // As it is registered now: what an administrator replaced is not reached any more.
    let target = shared.common.recorder.target(&view.target.name);
    let target = target
        .ok_or_else(|| TargetError::Untrusted("the target is registered no more".to_owned()))?;
    let way = Way {
        shared,
        target: &target,
        account: &view.account,
        parameters: parameters(startup, database, session),
    };
    let mut credential = way.credential(going).await?;
    let ready = match way.log_in(credential.as_ref(), going).await {
        Err(TargetError::Refused(report)) if report.code == WRONG_PASSWORD => {
            // It may have been changed since it was read.
            let newer = way.credential(going).await?;
            if !is_newer(newer.as_ref(), credential.as_ref()) {
                return Err(TargetError::Refused(report));
            }
            credential = newer;
            way.log_in(credential.as_ref(), going).await?
        }
        done => done?,
    };
    let lease = credential.and_then(|credential| credential.lease);
    Ok(Reached {
        target,
        ready,
        lease,
    })
}

/// Is there another password than the one that was tried?
fn is_newer(newer: Option<&Credential>, tried: Option<&Credential>) -> bool {
    let differs = |newer: &Credential| {
        tried.is_none_or(|tried| tried.password.expose() != newer.password.expose())
    };
    newer.is_some_and(differs)
}

/// The parameters of the startup message, but for who logs in.
fn parameters(startup: &Startup, database: Bytes, session: SessionId) -> Vec<(Bytes, Bytes)> {
    let own = |name: &[u8]| {
        [&b"user"[..], b"database", b"replication"].contains(&name)
            // The server takes the last one, in letters of any case.
            || name.eq_ignore_ascii_case(APPLICATION)
            || name.starts_with(b"_pq_.")
    };
    let mut parameters = vec![
        (Bytes::from_static(b"database"), database),
        (
            Bytes::from_static(APPLICATION),
            told(format!("ascribe/{session}")),
        ),
    ];
    let others = startup.parameters.iter().filter(|(name, _)| !own(name));
    parameters.extend(others.cloned());
    if startup.is_replication() {
        let value = startup.get("replication").cloned().unwrap_or_default();
        parameters.push((Bytes::from_static(b"replication"), value));
    }
    parameters
}

/// How an account of a target is logged in to.
struct Way<'a> {
    shared: &'a Shared,
    target: &'a Target,
    account: &'a str,
    parameters: Vec<(Bytes, Bytes)>,
}

impl Way<'_> {
    async fn credential(&self, going: &mut Going) -> Result<Option<Credential>, TargetError> {
        let credentials = &self.shared.config.credentials;
        let asked = credentials.credential(&self.target.name, self.account);
        let found = asked.await.map_err(TargetError::NoCredential)?;
        let who = &mut going.who;
        who.clear();
        if let Some(Credential { login, lease, .. }) = &found {
            who.extend(login.iter().map(|login| format!("login {}", login.name)));
            who.extend(lease.iter().map(|lease| format!("lease {}", lease.digest)));
        }
        Ok(found)
    }

    async fn log_in(
        &self,
        credential: Option<&Credential>,
        going: &mut Going,
    ) -> Result<Ready, TargetError> {
        let role = credential.and_then(|credential| credential.login.as_ref());
        let account = self.account.as_bytes();
        let mut parameters = Vec::with_capacity(self.parameters.len() + 1);
        // Before the client's own, which are let through only where the target allows it.
        if role.is_some_and(|role| role.acts_as == ActsAs::Account) {
            let name = Bytes::from_static(b"role");
            parameters.push((name, Bytes::copy_from_slice(account)));
        }
        parameters.extend_from_slice(&self.parameters);
        let newest = Login {
            minor: NEWEST,
            user: role.map_or(self.account, |role| &role.name),
            password: credential.map(|credential| &credential.password),
            parameters: &parameters,
        };
        let own = &self.shared.config.own;
        let Going { from, ports, .. } = going;
        let connection = target::connect(self.target, own, from, ports).await?;
        match target::log_in(connection, newest).await {
            // One that does not negotiate is asked for what all of them speak.
            Err(TargetError::Version(error)) => {
                tracing::debug!("{} is asked once more: {error}", self.target.name);
                let connection = target::connect(self.target, own, from, ports).await?;
                target::log_in(connection, Login { minor: 0, ..newest }).await
            }
            done => done,
        }
    }
}
