//! The boundary to whoever records: what is proposed, what comes back.

use std::future::Future;
use std::pin::Pin;

use crate::database::SqlScope;
use crate::entry::Body;
use crate::entry::Certificate;
use crate::entry::CloseReason;
use crate::id::{EntryId, GrantId, PersonId, ResourceId, SessionId, StatementId, derived};
use crate::law::SERVER;
use crate::sealed::Opening;
use crate::statement::{Connect, Forward, Serial, Signed, Target};
use crate::time::Timestamp;

/// Under which evidence key openings are encrypted. Destroying that key erases them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Nothing to open.
    None,
    /// A person's name.
    Person(PersonId),
    /// A request's justification, and what answers it.
    Request(StatementId),
    /// A session's commands and streams.
    Session(SessionId),
    /// A login's token.
    Login(StatementId),
    /// What a directory says of a user or a group.
    Resource(ResourceId),
}

/// An entry somebody wants recorded. The sequencer fills in time, chain and links.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Same id, same receipt.
    pub id: EntryId,
    /// Who writes.
    pub writer: String,
    /// What it says.
    pub body: Body,
    /// The content behind the body's commitments.
    pub openings: Vec<Opening>,
    /// Under which key the openings go.
    pub scope: Scope,
}

impl Proposal {
    /// A signed statement as an entry. Its id follows from the statement's, so that one that is handed
    /// in again gets the same receipt.
    pub fn of_statement(
        id: StatementId,
        signed: Signed,
        openings: Vec<Opening>,
        scope: Scope,
    ) -> Self {
        Self {
            id: EntryId::new(derived("ascribe/statement/v1", &[id.bytes()])),
            writer: SERVER.to_owned(),
            body: Body::Statement(signed),
            openings,
            scope,
        }
    }
}

/// Proof that one entry is durable: it is in the tree that the log signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where it is.
    pub index: u64,
    /// The exact entry.
    pub entry: Vec<u8>,
    /// RFC 6962 inclusion proof to the checkpoint's root.
    pub proof: Vec<ascribe_tlog::Hash>,
    /// The signed checkpoint (a C2SP note).
    pub checkpoint: String,
}

/// What somebody who logged in wants to open.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// In whose name.
    pub person: PersonId,
    /// The account on the target.
    pub account: &'a str,
    /// The target's name.
    pub target: &'a str,
    /// The grant that they name, where several fit.
    pub chosen: Option<GrantId>,
    /// The delegation, where the person's agent logged in.
    pub delegation: Option<StatementId>,
}

/// Why something was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The law says no.
    #[error(transparent)]
    Denied(#[from] crate::law::Denied),
    /// The ledger cannot record now; nothing was acknowledged.
    #[error("the ledger cannot record: {0}")]
    Unavailable(String),
}

/// A future as trait objects have it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A grant that matches what a person asks for at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantView {
    /// Which.
    pub grant: GrantId,
    /// Whose.
    pub person: PersonId,
    /// On which target.
    pub target: Target,
    /// As which account.
    pub account: String,
    /// First instant of the present window.
    pub not_before: Timestamp,
    /// Its first instant that is too late.
    pub not_after: Timestamp,
    /// Ticket id, where there is one.
    pub ticket: Option<String>,
    /// Was it taken without approval?
    pub break_glass: bool,
    /// What may be forwarded besides.
    pub forwards: Vec<Forward>,
    /// What statements may be executed, where the target is a database.
    pub sql: Option<SqlScope>,
}

/// What the door needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// One grant fits.
    Grant(Box<GrantView>),
    /// None, or more than one: the reason with its way out.
    Refused(crate::law::Denied),
}

/// What an actor signed to open a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOpening {
    /// Who signed.
    pub person: PersonId,
    /// With which key: its fingerprint.
    pub key: String,
    /// For which target and account.
    pub connect: Connect,
}

/// An agent that may log in now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLogin {
    /// In whose name.
    pub person: PersonId,
    /// The delegation that it took.
    pub delegation: StatementId,
    /// First instant at which it, or one above it, no longer holds.
    pub until: Timestamp,
}

/// A user certificate whose signatures and window were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Fingerprint of the key that signed it.
    pub ca: String,
    /// Fingerprint of the key that it certifies.
    pub key: String,
    /// Its key id.
    pub key_id: String,
    /// First instant at which it no longer counts, where it has an end.
    pub not_after: Option<Timestamp>,
    /// Its principals, in order.
    pub principals: Vec<String>,
    /// Its serial.
    pub serial: Serial,
}

/// Is a session still lawful?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Until this instant, unless revoked.
    Until(Timestamp),
    /// No longer; why.
    Ended(CloseReason),
}

/// Whoever records, here or far away.
///
/// Every method reads or extends durable state. An `Ok` of [`Recorder::record`] means: synced to
/// stable storage together with the openings and a signed tree head. Any error means: treat it as
/// not recorded, and do not act. Retrying with the same entry id is safe.
pub trait Recorder: Send + Sync {
    /// Records one entry, waits until it is durable.
    fn record(&self, proposal: Proposal) -> BoxFuture<'_, Result<Receipt, RecordError>>;
    /// Records several, decided on in order, and waits until all are durable or refused: together, so
    /// that they share a sync. The answers are in the same order.
    fn record_all(
        &self,
        proposals: Vec<Proposal>,
    ) -> BoxFuture<'_, Vec<Result<Receipt, RecordError>>>;
    /// The same where nobody asks for receipts; the first error, if there is one.
    fn settle_all(&self, proposals: Vec<Proposal>) -> BoxFuture<'_, Result<(), RecordError>>;
    /// Whose key is this (OpenSSH fingerprint)?
    fn person_by_key(&self, fingerprint: &str) -> Option<PersonId>;
    /// The login that introduced this key and its end, where it is a session key.
    fn login_by_key(&self, fingerprint: &str) -> Option<(StatementId, Timestamp)>;
    /// Whose agent's key is this, as long as its delegation holds?
    fn agent_by_key(&self, fingerprint: &str) -> Option<AgentLogin>;
    /// The target of this name.
    fn target(&self, name: &str) -> Option<Target>;
    /// Fingerprints of the keys of all outside certificate authorities.
    fn ca_keys(&self) -> Vec<String>;
    /// Whose certificate is this, and how does an entry name it?
    ///
    /// # Errors
    /// When it is nobody's, with the reason.
    fn person_by_certificate(
        &self,
        shown: &ShownCertificate,
    ) -> Result<(PersonId, Certificate), crate::law::Denied>;
    /// Which grant lets this actor in?
    fn admit(&self, wanted: &Wanted<'_>) -> Admission;
    /// Is this session still lawful?
    fn standing(&self, session: SessionId) -> Standing;
    /// The signed opening of that id, if no session has used it yet.
    fn signed_opening(&self, statement: StatementId) -> Option<SignedOpening>;
    /// Who watches this session, in order, as the watched person is told?
    fn watchers(&self, session: SessionId) -> Vec<String>;
    /// The sequencer's clock.
    fn now(&self) -> Timestamp;
}
