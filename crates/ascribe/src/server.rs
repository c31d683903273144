//! The API's server: bounded frames over TLS, each call checked by the law.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ascribe_core::entry::Body;
use ascribe_core::id::{EntryId, PersonId, Root};
use ascribe_core::law::{SERVER, commitments};
use ascribe_core::record::{Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Read, Say, Signed, Statement};
use ascribe_ledger::Ledger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::answer::{Names as _, Source as _, View};
use crate::api::{Call, Hello, MAX_REQUEST, Query, Reply};

/// Most calls that are answered at once.
const MAX_CALLS: usize = 512;
/// A call must be complete within this time.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A caller must have said all of it within this time.
const HEAR_TIMEOUT: Duration = Duration::from_secs(5);

/// What the API serves.
pub(crate) struct Api {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) judge: Arc<dyn ascribe_core::law::Judge>,
    pub(crate) first_entry: String,
    pub(crate) ssh: String,
    pub(crate) ssh_host_key: String,
    pub(crate) view: Mutex<View>,
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
    let tracker = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let (api, acceptor) = (Arc::clone(&api), acceptor.clone());
        tracker.spawn(async move {
            let done = tokio::time::timeout(CALL_TIMEOUT, one_call(&api, acceptor, tcp)).await;
            match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("API call ended: {error}"),
                Err(_) => tracing::debug!("API call took too long"),
            }
            drop(slot);
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn one_call(api: &Arc<Api>, acceptor: TlsAcceptor, tcp: TcpStream) -> std::io::Result<()> {
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
    let reply = match call {
        Ok(call) => answer_call(api, call).await,
        Err(reply) => reply,
    };
    let bytes = serde_json::to_vec(&reply)?;
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_u32(len).await?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

async fn answer_call(api: &Arc<Api>, call: Call) -> Reply {
    match call {
        Call::Hello { key, seen } => hello(api, key.as_deref(), seen),
        Call::Submit { signed, openings } => submit(api, signed, openings).await,
    }
}

fn hello(api: &Api, key: Option<&str>, seen: Option<u64>) -> Reply {
    let note = api.ledger.checkpoint_note();
    let parsed = ascribe_tlog::Checkpoint::open(note.as_bytes(), &[api.ledger.log_key()]);
    let Ok(checkpoint) = parsed else {
        return Reply::failure("failure", "internal", "the log has no valid checkpoint");
    };
    let consistency = seen
        .filter(|old| *old <= checkpoint.size)
        .and_then(|old| api.ledger.consistency_between(old, checkpoint.size))
        .unwrap_or_default();
    Reply::Hello(Box::new(Hello {
        origin: checkpoint.origin,
        log_key: api.ledger.log_key().to_string(),
        first_entry: api.first_entry.clone(),
        checkpoint: note,
        size: checkpoint.size,
        root: Root(checkpoint.root),
        person: key.and_then(|key| api.ledger.person_by_key(key)),
        consistency: consistency
            .iter()
            .map(ascribe_tlog::Hash::to_base64url)
            .collect(),
        ssh: api.ssh.clone(),
        ssh_host_key: api.ssh_host_key.clone(),
        now: api.ledger.now().millis(),
    }))
}

async fn submit(api: &Arc<Api>, signed: Signed, openings: Vec<Opening>) -> Reply {
    let statement = match signed.statement() {
        Ok(statement) => statement,
        Err(error) => {
            return Reply::failure("invalid", "malformed", format!("the statement is {error}"));
        }
    };
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
        let checked = api
            .ledger
            .with_state(|state| state.check_signed(&*api.judge, api.ledger.now(), &signed));
        return match checked {
            Ok(statement) => done(
                api,
                None,
                Some(query.clone()),
                statement.by,
                api.ledger.size(),
            ),
            Err(denied) => Reply::denied(&api.named(denied)),
        };
    }
    let proposal = match proposal(&statement, body, openings) {
        Ok(proposal) => proposal,
        Err(reply) => return reply,
    };
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
            done(api, Some(receipt.into()), query, statement.by, before)
        }
        Err(RecordError::Denied(denied)) => {
            api.record_refusal(&statement, &signed, denied.code).await;
            Reply::denied(&api.named(denied))
        }
        Err(RecordError::Unavailable(why)) => Reply::failure(
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

fn proposal(statement: &Statement, body: Body, openings: Vec<Opening>) -> Result<Proposal, Reply> {
    let scope = match &statement.say {
        Say::Request(_) | Say::Extension(_) | Say::BreakGlass(_) => Scope::Request(statement.id),
        Say::Approval(answer) | Say::Denial(answer) | Say::Cancellation(answer) => {
            Scope::Request(answer.of)
        }
        Say::PersonAdd(person) => Scope::Person(person.person),
        Say::Read(_) | Say::Revocation(_) | Say::Review(_) => Scope::Request(statement.id),
        Say::TargetSet(_) | Say::KeyAdd(_) | Say::KeyRevoke(_) | Say::Offboard(_) | Say::Use(_) => {
            Scope::None
        }
    };
    // The entry's id follows from the statement's: a retried statement gets the same receipt.
    let id = EntryId::new(ascribe_core::id::derived(
        "ascribe/statement/v1",
        &[statement.id.bytes()],
    ));
    Ok(Proposal {
        id,
        writer: SERVER.to_owned(),
        body,
        openings,
        scope,
    })
}

fn done(
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
    let Ok(mut view) = api.view.lock() else {
        return Reply::failure(
            "failure",
            "internal",
            "the view is damaged; restart the server",
        );
    };
    match view.answer(&*api.ledger, &query, by, before, api.ledger.now()) {
        Ok(answer) => Reply::Done { receipt, answer },
        Err(failure) => Reply::failure("failure", "view", failure.message),
    }
}

impl Api {
    /// Puts names in the place of ids, for a person to read.
    fn named(&self, mut denied: ascribe_core::law::Denied) -> ascribe_core::law::Denied {
        if let Ok(mut view) = self.view.lock() {
            let names: BTreeMap<PersonId, String> = view.names(&*self.ledger);
            denied.message = name_people(&denied.message, &names);
            denied.help = denied.help.map(|help| name_people(&help, &names));
        }
        denied
    }

    /// A refusal of an authenticated person is an entry.
    async fn record_refusal(&self, statement: &Statement, signed: &Signed, code: &str) {
        let authentic = self
            .judge
            .sshsig(
                &statement.say.namespace(),
                signed.text.as_bytes(),
                &signed.sig.0,
            )
            .is_some_and(|key| self.ledger.person_by_key(&key.fingerprint()) == Some(statement.by));
        let Ok(entry) = crate::client::random() else {
            return;
        };
        if !authentic || code == "replay" {
            return;
        }
        let refusal = ascribe_core::entry::Refusal {
            person: statement.by,
            what: statement.say.tag().to_owned(),
            code: code.to_owned(),
            session: None,
            detail: None,
        };
        let proposal = Proposal {
            id: EntryId::new(entry),
            writer: SERVER.to_owned(),
            body: Body::Refusal(refusal),
            openings: Vec::new(),
            scope: Scope::None,
        };
        if let Err(error) = self.ledger.record(proposal).await {
            tracing::error!("a refusal could not be recorded: {error}");
        }
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
}

#[cfg(test)]
mod tests {
    use ascribe_core::encoding::Bytes;
    use ascribe_core::id::{Root, SessionId, StatementId};
    use ascribe_core::statement::{Seen, View};

    use super::*;

    fn body(read: Read) -> Body {
        let statement = Statement {
            v: 1,
            log: "example.org/log".into(),
            by: PersonId::new([1; 16]),
            at: ascribe_core::time::Timestamp::from_millis(0),
            id: StatementId::new([2; 16]),
            seen: Seen {
                size: 0,
                root: Root(ascribe_tlog::Hash::ZERO),
            },
            say: Say::Read(read),
        };
        Body::Statement(Signed {
            text: statement.to_text().unwrap(),
            sig: Bytes(Vec::new()),
        })
    }

    #[test]
    fn a_query_that_is_not_what_the_statement_says_is_refused() {
        let session = SessionId::new([3; 16]);
        let export = Query::Export { session };
        let opening = Opening::new("query", [0; 32], serde_json::to_vec(&export).unwrap());
        let query = opening.commitment();
        let honest = Read {
            view: View::Export,
            query,
            request: None,
            session: Some(session),
        };
        assert!(
            read_query(
                &honest,
                &body(honest.clone()),
                std::slice::from_ref(&opening)
            )
            .is_ok()
        );
        for lie in [
            Read {
                view: View::Registry,
                session: None,
                ..honest.clone()
            },
            Read {
                session: Some(SessionId::new([4; 16])),
                ..honest.clone()
            },
            Read {
                view: View::Replay,
                ..honest.clone()
            },
        ] {
            assert!(
                read_query(&lie, &body(lie.clone()), std::slice::from_ref(&opening)).is_err(),
                "{lie:?}"
            );
        }
        let other = Opening::new("query", [1; 32], opening.bytes.0.clone());
        assert!(read_query(&honest, &body(honest.clone()), &[other]).is_err());
        assert!(read_query(&honest, &body(honest.clone()), &[]).is_err());
    }
}
