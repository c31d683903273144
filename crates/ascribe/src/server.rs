//! The API's server: bounded frames over TLS, each call checked by the law.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::Body;
use ascribe_core::id::{PersonId, Root, SessionId, StatementId};
use ascribe_core::identity::Login;
use ascribe_core::law::commitments;
use ascribe_core::record::{Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Read, Say, Signed, Statement};
use ascribe_gateway::{Arrival, PgArrival, Places};
use ascribe_ledger::Ledger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::answer::{NewsOf, Source as _, View, runs};
use crate::api::{Call, HELLO, Hello, MAX_REQUEST, Nobody, OPENING, Query, Reply, hello_text};
use crate::registry::{delegation_row, job_rows};

/// Most calls that are heard or answered at once.
const MAX_CALLS: usize = 512;
/// Most of them from one address, and most that wait for that.
const CALLS_PER_ADDRESS: usize = 32;
const WAITING_PER_ADDRESS: usize = 128;
/// Most reads that are worked on at once: each may hold a view of its own.
const MAX_READS: usize = 4;
/// A call waits so long for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// A caller must have said all of it within this time, handshake included.
const HEAR_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer must be found within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A caller takes an answer at least so fast, in bytes per second, after the first seconds.
const SLOWEST: u64 = 64 * 1024;
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a watched session is looked at, and how many are watched at once.
const LOOK: Duration = Duration::from_millis(200);
const MAX_WATCHES: usize = 64;
/// Most delegations that a key is told of.
const MAX_DELEGATIONS: usize = 64;
/// What goes on when the server stops has this time to end.
const LAST: Duration = Duration::from_secs(2);

/// What the API serves.
pub(crate) struct Api {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) judge: Arc<dyn ascribe_core::law::Judge>,
    pub(crate) first_entry: String,
    pub(crate) ssh: String,
    pub(crate) ssh_host_key: String,
    pub(crate) ssh_host_ca: String,
    /// The way of signed connections to the gateway.
    pub(crate) arrivals: tokio::sync::mpsc::Sender<Arrival>,
    /// The same to databases.
    pub(crate) tunnels: tokio::sync::mpsc::Sender<PgArrival>,
    pub(crate) view: View,
    pub(crate) reads: Semaphore,
    pub(crate) watches: Semaphore,
    pub(crate) keeper: Arc<providers::Keeper>,
    /// Which logins were refused.
    pub(crate) refused: Arc<refusals::Refusals>,
    /// What people signed that was refused.
    pub(crate) refused_signed: Arc<refusals::OfSigned>,
    /// What the log's witnesses said.
    pub(crate) witnesses: Arc<crate::witness::client::Seen>,
}

/// The places of those who watch.
pub(crate) fn watches() -> Semaphore {
    Semaphore::new(MAX_WATCHES)
}

/// The places of reads.
pub(crate) fn reads() -> Semaphore {
    Semaphore::new(MAX_READS)
}

/// Accepts calls until `stop`.
pub(crate) async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: tokio_util::sync::CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(MAX_CALLS));
    let places = Places::new(CALLS_PER_ADDRESS, WAITING_PER_ADDRESS);
    let tracker = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A tunnel's answers are small and follow each other: none waits for the client's word of the last.
        if tcp.set_nodelay(true).is_err() {
            continue;
        }
        let Some(turn) = places.take(from.ip()) else {
            tracing::debug!("{from} has too many API calls");
            continue;
        };
        let (api, acceptor, slots) = (Arc::clone(&api), acceptor.clone(), Arc::clone(&slots));
        let stop = stop.clone();
        tracker.spawn(async move {
            let turn = tokio::time::timeout(TURN_TIMEOUT, async {
                let place = turn.place().await?;
                Some((place, slots.acquire_owned().await.ok()?))
            });
            let last = async {
                stop.cancelled().await;
                tokio::time::sleep(LAST).await;
            };
            let call = async {
                match turn.await {
                    Ok(Some(_turn)) => one_call(&api, acceptor, tcp, from).await,
                    Ok(None) | Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                }
            };
            tokio::select! {
                done = call => if let Err(error) = done {
                    tracing::debug!("API call ended: {error}");
                },
                () = last => tracing::debug!("API call was cut short"),
            }
        });
    }
    tracker.close();
    tracker.wait().await;
}

/// One call: heard, answered, taken; each within its time.
async fn one_call(
    api: &Arc<Api>,
    acceptor: TlsAcceptor,
    mut tcp: TcpStream,
    peer: std::net::SocketAddr,
) -> std::io::Result<()> {
    let opening = tokio::time::timeout(HEAR_TIMEOUT, opening(&mut tcp)).await??;
    if let Some(opening) = opening {
        let arrival = Arrival {
            stream: tcp,
            peer,
            opening,
        };
        // The gateway has places of its own.
        return api
            .arrivals
            .try_send(arrival)
            .map_err(std::io::Error::other);
    }
    let heard = async {
        let mut stream = acceptor.accept(tcp).await?;
        let len = stream.read_u32().await? as usize;
        if len > MAX_REQUEST {
            let reply = Reply::failure("invalid", "size", "the call is larger than 256 KiB");
            return Ok((stream, Err(reply)));
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        let call = serde_json::from_slice(&body).map_err(|error| {
            Reply::failure(
                "invalid",
                "malformed",
                format!("the call is malformed: {error}"),
            )
        });
        Ok::<_, std::io::Error>((stream, call))
    };
    let (mut stream, call) = tokio::time::timeout(HEAR_TIMEOUT, heard).await??;
    if let Ok(Call::Tunnel { signed }) = call {
        let answer = serde_json::Value::Null;
        let receipt = None;
        send(&mut stream, Reply::Done { receipt, answer }).await?;
        let stream = Box::new(stream);
        let arrival = PgArrival {
            stream,
            peer,
            signed,
        };
        // That gateway, too, has places of its own.
        return api
            .tunnels
            .try_send(arrival)
            .map_err(|_| std::io::ErrorKind::ConnectionRefused.into());
    }
    let answered = async {
        match call {
            Ok(Call::Hello { key, seen }) => {
                let text = hello_text(stream.get_ref().1).map_err(std::io::Error::other)?;
                let reply = hello(api, key.as_ref().map(|proof| (proof, text)), seen);
                Ok((reply, None))
            }
            Ok(Call::Provider(ask)) => Ok((providers::view(&api.ledger, &ask), None)),
            Ok(Call::Submit { signed, openings }) => Ok(submit(api, signed, openings).await),
            // Taken before.
            Ok(Call::Tunnel { .. }) => Ok((
                Reply::failure("invalid", "malformed", "no tunnel here"),
                None,
            )),
            Err(reply) => Ok::<_, std::io::Error>((reply, None)),
        }
    };
    let (reply, watch) = tokio::time::timeout(ANSWER_TIMEOUT, answered).await??;
    send(&mut stream, reply).await?;
    if let Some(watch) = watch {
        follow(api, &mut stream, watch).await?;
    }
    tokio::time::timeout(TAKE_TIMEOUT, stream.shutdown()).await?
}

/// The signed opening that a connection begins with; none where it is TLS. No more is read of it
/// than that.
async fn opening(tcp: &mut TcpStream) -> std::io::Result<Option<StatementId>> {
    let malformed = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut first = [0; 1];
    let _: usize = tcp.peek(&mut first).await?;
    if first.first() != OPENING.as_bytes().first() {
        return Ok(None);
    }
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() > OPENING.len() + 64 {
            return Err(malformed());
        }
        line.push(tcp.read_u8().await?);
    }
    let line = String::from_utf8(line).map_err(|_| malformed())?;
    let id = line.trim_end_matches('\n').strip_prefix(OPENING);
    let id = id.and_then(|id| id.parse().ok()).ok_or_else(malformed)?;
    Ok(Some(id))
}

/// One frame, taken in time.
async fn send<T: serde::Serialize + Send + 'static>(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    frame: T,
) -> std::io::Result<()> {
    // It may be large.
    let bytes = tokio::task::spawn_blocking(move || serde_json::to_vec(&frame)).await??;
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    let taken = async {
        stream.write_u32(len).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    let limit = TAKE_TIMEOUT + Duration::from_secs(u64::from(len) / SLOWEST);
    tokio::time::timeout(limit, taken).await?
}

/// Who watches which session.
struct Watch {
    by: PersonId,
    /// The key that signed: taken away, it sees nothing more.
    key: String,
    session: SessionId,
}

/// Sends what is new in a session until it has ended, the watcher leaves or may not look any more.
async fn follow(
    api: &Arc<Api>,
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    watch: Watch,
) -> std::io::Result<()> {
    let Ok(_place) = api.watches.try_acquire() else {
        return Err(std::io::Error::other("too many sessions are watched"));
    };
    let Watch { by, key, session } = watch;
    let mut news_of = NewsOf::new(session);
    loop {
        let now = api.ledger.now();
        let still = |state: &ascribe_core::law::State| {
            state.may_watch(by, session) && state.person_by_key(now, &key) == Some(by)
        };
        if !api.ledger.with_state(still) {
            return Ok(());
        }
        let place = api.reads.acquire().await.map_err(std::io::Error::other)?;
        let reader = Arc::clone(api);
        let look = move || {
            let news = news_of.next(&reader.view, &*reader.ledger);
            (news, news_of)
        };
        let (news, of) = tokio::task::spawn_blocking(look).await?;
        drop(place);
        news_of = of;
        let (news, more) = news.map_err(|failure| std::io::Error::other(failure.message))?;
        let ended = news.ended.is_some();
        if ended || !news.actions.is_empty() || !news.chunks.is_empty() {
            send(stream, news).await?;
        }
        if ended {
            return Ok(());
        }
        let pause = if more { Duration::ZERO } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A watcher says nothing: whatever comes is its end.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}

/// `proof` is the caller's signature and the text that it must be over.
fn hello(api: &Api, proof: Option<(&Bytes, Vec<u8>)>, seen: Option<u64>) -> Reply {
    let note = api.checkpoint_note();
    let parsed = ascribe_tlog::Checkpoint::open(note.as_bytes(), &[api.ledger.log_key()]);
    let Ok(checkpoint) = parsed else {
        return Reply::failure("failure", "internal", "the log has no valid checkpoint");
    };
    let consistency = seen
        .filter(|old| *old <= checkpoint.size)
        .and_then(|old| api.ledger.consistency_between(old, checkpoint.size))
        .unwrap_or_default();
    let key = proof.and_then(|(sig, text)| api.judge.sshsig(HELLO, &text, &sig.0));
    let named = key.as_ref();
    let person = named.and_then(|key| api.ledger.person_by_key(&key.fingerprint()));
    let agents = named.filter(|_| person.is_none());
    let nobody = agents.and_then(|key| {
        let now = api.ledger.now();
        let why = |state: &ascribe_core::law::State| state.why_nobody(now, &key.fingerprint());
        api.ledger.with_state(why)
    });
    let delegations = agents.map_or_else(Vec::new, |key| {
        let now = api.ledger.now();
        api.ledger.with_state(|state| {
            let rows = state.delegations_to(key);
            rows.map(|(id, link)| delegation_row(state, id, link, now))
                .filter(|row| !row.is_over())
                .take(MAX_DELEGATIONS)
                .collect()
        })
    });
    let jobs = person.map_or_else(Vec::new, |actor| {
        let now = api.ledger.now();
        api.ledger.with_state(|state| job_rows(state, actor, now))
    });
    Reply::Hello(Box::new(Hello {
        origin: checkpoint.origin,
        log_key: api.ledger.log_key().to_string(),
        first_entry: api.first_entry.clone(),
        checkpoint: note,
        size: checkpoint.size,
        root: Root(checkpoint.root),
        person,
        nobody: nobody.map(|denied| Nobody {
            message: denied.message,
            help: denied.help,
        }),
        delegations,
        jobs,
        consistency: consistency
            .iter()
            .map(ascribe_tlog::Hash::to_base64url)
            .collect(),
        ssh: api.ssh.clone(),
        ssh_host_key: api.ssh_host_key.clone(),
        ssh_host_ca: api.ssh_host_ca.clone(),
        now: api.ledger.now().millis(),
        witnessed: witnessed(api, person.is_some()),
    }))
}

/// What witnesses have seen. Where they are and what they answer is told to people who are enrolled.
fn witnessed(api: &Api, enrolled: bool) -> Option<crate::api::Witnessed> {
    let shown = api.witnesses.shown();
    let rows = if enrolled {
        shown.witnesses
    } else {
        Vec::new()
    };
    api.ledger.with_state(|state| {
        let witnesses = &state.witnesses;
        let set = witnesses.set.as_ref()?;
        let quorum = match witnesses.policy()?.quorum {
            ascribe_tlog::Quorum::Name(name) => name,
            ascribe_tlog::Quorum::None => return None,
        };
        Some(crate::api::Witnessed {
            size: witnesses.size,
            before: witnesses.before,
            unseen_since: witnesses.unseen_since(),
            quorum,
            demand: set.demand.clone(),
            checkpoint: shown.note,
            witnesses: rows,
        })
    })
}

async fn submit(api: &Arc<Api>, signed: Signed, openings: Vec<Opening>) -> (Reply, Option<Watch>) {
    let watched = match signed.statement() {
        Ok(Statement {
            by,
            say: Say::Read(read),
            ..
        }) if read.view == ascribe_core::statement::View::Watch => {
            let judged = api.judge.sshsig(
                &Say::Read(read.clone()).namespace(),
                signed.text.as_bytes(),
                &signed.sig.0,
            );
            let key = judged.map(|key| key.fingerprint());
            read.session
                .zip(key)
                .map(|(session, key)| Watch { by, key, session })
        }
        Ok(_) | Err(_) => None,
    };
    let reply = take(api, signed, openings).await;
    let watched = watched.filter(|_| matches!(reply, Reply::Done { .. }));
    (reply, watched)
}

async fn take(api: &Arc<Api>, signed: Signed, openings: Vec<Opening>) -> Reply {
    let statement = match signed.statement() {
        Ok(statement) => statement,
        Err(error) => {
            return Reply::failure("invalid", "malformed", format!("the statement is {error}"));
        }
    };
    if let Say::Login(login) = &statement.say {
        let proposal = proposal(&statement, signed, openings);
        return log_in(api, login, proposal).await;
    }
    let body = Body::Statement(signed.clone());
    let query = match &statement.say {
        Say::Read(read) => match read_query(read, &body, &openings) {
            Ok(query) => Some(query),
            Err(reply) => return reply,
        },
        _ => None,
    };
    if let (Some(query), Say::Read(read)) = (&query, &statement.say)
        && !read.view.is_recorded()
    {
        // Nothing sealed is read: the signature is checked, the read is not an entry.
        let now = api.ledger.now();
        let checked = api
            .ledger
            .with_state(|state| state.check_signed(&*api.judge, now, &signed));
        let checked = checked.and_then(|statement| {
            if let Query::Runs { job } = query {
                let (namespace, text) = (statement.say.namespace(), signed.text.as_bytes());
                let key = api.judge.sshsig(&namespace, text, &signed.sig.0);
                let may = |state: &ascribe_core::law::State| {
                    let level = key.map_or(0, |key| state.assurance(&key.fingerprint()));
                    runs::check(state, (statement.by, level), job)
                };
                api.ledger.with_state(may)?;
            }
            Ok(statement)
        });
        return match checked {
            Ok(statement) => {
                let (query, before) = (Some(query.clone()), api.ledger.size());
                done(api, None, query, statement.by, before).await
            }
            Err(denied) => Reply::denied(&api.named(denied)),
        };
    }
    let proposal = proposal(&statement, signed.clone(), openings);
    // The same statement twice gets the same receipt, but a read is answered once.
    let known = api
        .ledger
        .with_state(|state| state.index_of(&proposal.id).is_some());
    if query.is_some() && known {
        return Reply::failure(
            "denied",
            "replay",
            "this read was answered before; sign it again",
        );
    }
    match api.ledger.record(proposal).await {
        Ok(receipt) => {
            // A read sees everything sequenced before it.
            let before = receipt.index;
            done(api, Some(receipt.into()), query, statement.by, before).await
        }
        Err(error) => {
            if let RecordError::Denied(denied) = &error {
                api.refused_signed.record(&signed, denied.code).await;
            }
            not_recorded(api, error)
        }
    }
}

/// Takes in a login. Once the ledger is asked it is decided, whether or not anybody waits for that.
async fn log_in(api: &Arc<Api>, login: &Login, proposal: Proposal) -> Reply {
    let came = api.came(login);
    if login.bearer {
        came.refused("bearer");
        let why = "only the gateway logs in whoever shows a token as a password";
        return Reply::failure("denied", "bearer", why);
    }
    // One that is on record is answered as it was.
    let known = |state: &ascribe_core::law::State| state.index_of(&proposal.id).is_some();
    if !api.ledger.with_state(known) {
        api.keeper.before(login).await;
    }
    let ledger = Arc::clone(&api.ledger);
    let decided = api.refused.go_on(async move {
        let answer = ledger.record(proposal).await;
        came.decided(&answer);
        answer
    });
    match decided.await {
        Ok(Ok(receipt)) => Reply::Done {
            receipt: Some(receipt.into()),
            answer: serde_json::Value::Null,
        },
        Ok(Err(error)) => not_recorded(api, error),
        Err(_) => Reply::failure("failure", "internal", "the server stops"),
    }
}

fn not_recorded(api: &Api, error: RecordError) -> Reply {
    match error {
        RecordError::Denied(denied) => Reply::denied(&api.named(denied)),
        RecordError::Unavailable(why) => Reply::failure(
            "failure",
            "unavailable",
            format!("the ledger cannot record: {why}"),
        ),
    }
}

/// The query behind a read statement: the opening that its commitment names, and nothing else.
fn read_query(read: &Read, body: &Body, openings: &[Opening]) -> Result<Query, Reply> {
    let malformed = || {
        Reply::failure(
            "invalid",
            "query",
            "the query is not what the statement commits to",
        )
    };
    let [opening] = openings else {
        return Err(malformed());
    };
    let sealed = commitments(body);
    if !sealed
        .first()
        .is_some_and(|sealable| sealable.is_opened_by(opening))
    {
        return Err(malformed());
    }
    let query: Query = serde_json::from_slice(&opening.bytes.0).map_err(|_| malformed())?;
    // The law decides on what the statement says in the clear, so the query must be exactly that.
    if query.shape() == (read.view, read.session, read.request) {
        Ok(query)
    } else {
        Err(malformed())
    }
}

fn proposal(statement: &Statement, signed: Signed, openings: Vec<Opening>) -> Proposal {
    let scope = match &statement.say {
        Say::Request(_) | Say::Extension(_) | Say::BreakGlass(_) => Scope::Request(statement.id),
        Say::Approval(answer) | Say::Denial(answer) | Say::Cancellation(answer) => {
            Scope::Request(answer.of)
        }
        Say::PersonAdd(person) => Scope::Person(person.person),
        Say::Read(_)
        | Say::Revocation(_)
        | Say::Termination(_)
        | Say::Review(_)
        | Say::Reconciliation(_)
        | Say::WorkloadSet(_)
        | Say::Delegation(_)
        | Say::DelegationRevoke(_) => Scope::Request(statement.id),
        Say::DirectoryFile(_) => Scope::Request(statement.id),
        // A key of its own: destroying it leaves nothing else unreadable.
        Say::Login(_) => Scope::Login(statement.id),
        Say::TargetSet(_)
        | Say::KeyAdd(_)
        | Say::KeyRevoke(_)
        | Say::Offboard(_)
        | Say::CaSet(_)
        | Say::ProviderSet(_)
        | Say::DirectorySet(_)
        | Say::KeysSeen(_)
        | Say::IdentityLink(_)
        | Say::IdentityUnlink(_)
        | Say::Logout(_)
        | Say::Acceptance(_)
        | Say::WitnessSet(_)
        | Say::Use(_)
        | Say::Connect(_) => Scope::None,
    };
    Proposal::of_statement(statement.id, signed, openings, scope)
}

/// The answer, found beside the event loop.
async fn done(
    api: &Arc<Api>,
    receipt: Option<crate::api::WireReceipt>,
    query: Option<Query>,
    by: PersonId,
    before: u64,
) -> Reply {
    let Some(query) = query else {
        return Reply::Done {
            receipt,
            answer: serde_json::Value::Null,
        };
    };
    let Ok(_place) = api.reads.acquire().await else {
        return Reply::failure("failure", "internal", "the server stops");
    };
    let reader = Arc::clone(api);
    let read = move || {
        let now = reader.ledger.now();
        reader
            .view
            .answer(&*reader.ledger, &query, Some(by), before, now)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(answer)) => Reply::Done { receipt, answer },
        Ok(Err(failure)) => Reply::failure("failure", "view", failure.message),
        Err(_) => Reply::failure("failure", "internal", "the read broke off"),
    }
}

impl Api {
    /// The newest checkpoint, with the witnesses' lines where they have cosigned this very one.
    fn checkpoint_note(&self) -> String {
        let plain = self.ledger.checkpoint_note();
        let cosigned = self.witnesses.shown().note;
        cosigned
            .filter(|note| note.starts_with(&plain))
            .unwrap_or(plain)
    }

    /// Puts names in the place of ids, for a person to read.
    fn named(&self, mut denied: ascribe_core::law::Denied) -> ascribe_core::law::Denied {
        // It reads what was added since the last time; other tasks go on meanwhile.
        let names = tokio::task::block_in_place(|| self.view.names(&*self.ledger));
        denied.message = name_people(&denied.message, &names);
        denied.help = denied.help.map(|help| name_people(&help, &names));
        denied
    }

    /// A login is by nobody whom we know, so that it came is what is kept of one that is refused.
    fn came(&self, login: &Login) -> refusals::Came {
        let name = login.provider.as_str();
        let known = self
            .ledger
            .with_state(|state| state.providers.contains_key(name));
        self.refused.came(known.then(|| name.to_owned()))
    }
}

/// Replaces person ids by names.
pub(crate) fn name_people(text: &str, names: &BTreeMap<PersonId, String>) -> String {
    let mut out = text.to_owned();
    for (id, name) in names {
        let id = id.to_string();
        if out.contains(&id) {
            out = out.replace(&id, &ascribe_core::text::clean(name, 60));
        }
    }
    out
}

/// Names for the gateway's messages.
pub(crate) struct Naming {
    pub(crate) api: Arc<Api>,
}

impl Naming {
    pub(crate) fn denied(&self, denied: ascribe_core::law::Denied) -> ascribe_core::law::Denied {
        self.api.named(denied)
    }
    pub(crate) fn text(&self, text: &str) -> String {
        let api = &self.api;
        let names = tokio::task::block_in_place(|| api.view.names(&*api.ledger));
        name_people(text, &names)
    }
}

pub(crate) mod bearers;
pub(crate) mod postgres;
pub(crate) mod providers;
pub(crate) mod refusals;
pub(crate) mod scim;
#[cfg(test)]
mod tests;
pub(crate) mod vault;
