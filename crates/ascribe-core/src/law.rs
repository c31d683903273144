//! The law: who may do what, as a fold over entries. Pure; the time is the entry's own `at`.
//!
//! [`State::sequence`] decides and orders what is proposed; [`State::apply`] replays what is
//! stored. Both go through the same checks, so a replay proves that no recorded action ran outside
//! a grant that held at that moment.

mod admission;
mod answers;
mod asks;
mod authn;
mod authorities;
mod bearers;
mod chain;
mod databases;
mod decide;
mod delegations;
mod directories;
mod groups;
mod identities;
mod observers;
mod people;
mod proposals;
mod providers;
mod refusals;
mod rules;
mod said;
mod sessions;
mod snapshot;
mod statements;
mod view;
mod witnesses;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::directory::DirectoryGroup;
use crate::entry::{Body, CloseReason, Entry, Genesis, Grant, SessionOpen};
use crate::id::{
    ActionId, ContentDigest, EntryHash, EntryId, GrantId, PersonId, SessionId, StatementId,
};
use crate::identity::{Claims, Provider};
use crate::statement::{
    BreakGlass, Connect, Extension, Request, Role, Say, Serial, SshKey, Statement, Target, Ticket,
};
use crate::time::Timestamp;

use said::Said;

pub use decide::{Sealable, commitments, step};
pub use delegations::{Accepted, DelegationLink, DelegationState};
pub use directories::{DirectoryState, MAX_RESOURCES, ResourceState};
pub use identities::{LinkState, LoginLink, LoginState, check_token, withheld_until};
pub use observers::Sighting;
pub use providers::{KeysState, ProviderState};
pub use rules::ticket_matches;
pub use witnesses::Witnesses;
pub use workloads::WorkloadState;

/// Counts up whenever the law or the form of its state changes: a snapshot of another one is not used.
pub const LAW_VERSION: u32 = 15;
/// Since this version of entries a grant needs a target's system owner who is there, and a rule that a fork's pull request could meet
/// needs a confirmation.
const OWNERS_AND_FORKS: u8 = 2;
/// Since this version nobody proved themself to a provider in the future.
const AUTH_TIMES: u8 = 3;
/// Since this version a manager's yes is one only if they were the manager when they gave it, and the newest word says who the manager is
/// also where it names somebody whom nothing is known of.
const MANAGERS: u8 = 3;
/// Since this version a job needs its target's system owner also to go on for longer, and a step of a script has its text.
const JOBS: u8 = 4;
/// The writer of everything that follows from the law itself.
pub const SERVER: &str = "server";
/// How far a signer's clock may be off, in milliseconds.
pub const SIGNER_SKEW_MS: i64 = 300_000;
/// How long ago a statement may have been judged that is asked about again, in milliseconds.
pub const JUDGED_AGO_MS: i64 = 60_000;
/// Longest break-glass grant, in milliseconds.
pub const BREAK_GLASS_MS: i64 = 3_600_000;
/// How many of a writer's newest entries a head may name.
const HEAD_WINDOW: usize = 16_384;

/// The law says no: a stable code, the reason, the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// Stable, for scripts.
    pub code: &'static str,
    /// Why.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Denied {
    /// A refusal without advice.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
        }
    }
    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Checks of signatures, pure.
pub trait Judge: Send + Sync {
    /// The key that signed `message` in SSHSIG form under `namespace`, if the signature is good.
    fn sshsig(&self, namespace: &str, message: &[u8], sig: &[u8]) -> Option<SshKey>;

    /// What a provider's token says, if one of `keys` (the bytes of a JWK Set) signed it and it is meant
    /// for us. `asked` says what else is looked for. Times are not compared with any clock here.
    ///
    /// # Errors
    /// When it is not such a token, with a stable code and the reason.
    fn token(
        &self,
        provider: &Provider,
        keys: &[u8],
        token: &[u8],
        asked: &TokenAsked<'_>,
    ) -> Result<Claims, Denied> {
        let _: (&Provider, &[u8], &[u8], &TokenAsked<'_>) = (provider, keys, token, asked);
        Err(Denied::new("token", "tokens are not read here"))
    }

    /// RFC 7638 thumbprints of the keys in a JWK Set that can sign tokens.
    ///
    /// # Errors
    /// When the bytes are no JWK Set, with a stable code and the reason.
    fn provider_keys(&self, body: &[u8]) -> Result<Vec<ContentDigest>, Denied> {
        let _: &[u8] = body;
        Err(Denied::new("keys", "keys of providers are not read here"))
    }
}

/// What a login looks for in a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenAsked<'a> {
    /// The session key, which the token should commit to.
    pub key: &'a SshKey,
    /// The random bytes of that commitment.
    pub rz: &'a [u8],
    /// Names of claims that become facts.
    pub facts: &'a [&'a str],
    /// Groups that are looked for in a person's token: the claim that lists them, and the group.
    pub groups: &'a [(&'a str, &'a str)],
    /// Names of claims that name a person's manager.
    pub managers: &'a [&'a str],
}

/// One finished entry.
#[derive(Debug, Clone)]
pub struct Sequenced {
    /// Parsed.
    pub entry: Entry,
    /// Stored.
    pub bytes: Vec<u8>,
    /// Leaf hash.
    pub hash: EntryHash,
}

/// Reads a stored entry. The law is not asked.
///
/// # Errors
/// When the bytes are not an entry.
pub fn read(bytes: &[u8]) -> Result<Entry, Denied> {
    if bytes.len() > crate::entry::MAX_ENTRY {
        return Err(Denied::new("size", "an entry is larger than 65,535 bytes"));
    }
    Entry::from_bytes(bytes).map_err(|e| Denied::new("malformed", e.to_string()))
}

/// An entry that was read, and the statement in it, if it is one. The law was not asked.
#[derive(Debug)]
pub struct Whole {
    /// The entry.
    pub entry: Entry,
    said: Said<'static>,
}

impl Whole {
    /// The statement in it.
    pub fn statement(&self) -> Option<&Statement> {
        self.said.statement.as_ref()
    }
}

/// Reads a stored entry with its statement. The law is not asked.
///
/// # Errors
/// When the bytes are not an entry, or its statement is none.
pub fn read_whole(bytes: &[u8]) -> Result<Whole, Denied> {
    let entry = read(bytes)?;
    let said = Said::by(&entry.body)?;
    Ok(Whole { entry, said })
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its hash.
    pub hash: EntryHash,
    /// Its index.
    pub index: u64,
}

/// A person, as the law knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Keys by fingerprint.
    pub keys: BTreeMap<String, SshKey>,
    /// Roles.
    pub roles: BTreeSet<Role>,
    /// When they left.
    pub offboarded: Option<Timestamp>,
    /// Since when which directory calls them inactive.
    pub suspended: BTreeMap<String, Timestamp>,
    /// Directories call them inactive, but too few administrators would be left.
    pub spared: bool,
    /// Roles by groups of directories.
    pub directory_roles: BTreeSet<Role>,
    /// The groups that they are in, and the newest entry that says so.
    pub groups: Vec<Membership>,
    /// Their manager.
    pub manager: Option<Manager>,
    /// Where they were enrolled.
    pub place: Place,
}

/// Somebody's place in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group: DirectoryGroup,
    /// The newest entry that says so.
    pub place: Place,
}

/// Somebody's manager, as a directory has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Who.
    pub person: PersonId,
    /// The newest entry that says so.
    pub place: Place,
}

impl Person {
    /// Has left, or is suspended.
    pub fn is_away(&self) -> bool {
        self.offboarded.is_some() || !self.suspended.is_empty()
    }

    /// Has this role and is there.
    pub fn may(&self, role: Role) -> bool {
        !self.is_away() && (self.roles.contains(&role) || self.directory_roles.contains(&role))
    }
}

/// A registered target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// Its rules.
    pub target: Target,
    /// The statement that set them.
    pub place: Place,
}

/// An outside certificate authority, as the law knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityState {
    /// Keys by fingerprint.
    pub keys: BTreeMap<String, SshKey>,
    /// People by principal.
    pub people: BTreeMap<String, PersonId>,
    /// Serials of revoked certificates.
    pub serials: BTreeSet<Serial>,
    /// Key ids of revoked certificates.
    pub key_ids: BTreeSet<String>,
    /// The statement that set it.
    pub place: Place,
}

/// One yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Whose.
    pub by: PersonId,
    /// When it was ordered.
    pub at: Timestamp,
    /// Fingerprint of the key that signed it.
    pub key: String,
    /// Where.
    pub place: Place,
    /// The entry that says that they were the manager of whoever asked, where the target wants the manager's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<Place>,
    /// Entries that say that they were in a group that it depended on: by the target's rules, or for the role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Place>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// A grant.
    Request(Request),
    /// A later end.
    Extension(Extension),
    /// Nothing: an emergency, which grants at once.
    Emergency(BreakGlass),
    /// A change of people, keys or targets.
    Proposal(Say),
}

/// Where an ask stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskStatus {
    /// Somebody said no.
    Denied,
    /// The asker withdrew.
    Cancelled,
    /// Waiting for approvals.
    Open,
    /// Took effect.
    Granted,
}

/// Something that needs other people's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks.
    pub by: PersonId,
    /// When it was ordered.
    pub at: Timestamp,
    /// Fingerprint of the key that signed it.
    pub key: String,
    /// What.
    pub asked: Asked,
    /// Where.
    pub place: Place,
    /// Entries that say that they were in a group that gave them the role for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Place>,
    /// Each person's newest yes, in order.
    pub approvals: Vec<Approval>,
    /// Where it stands.
    pub status: AskStatus,
}

/// A grant and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantState {
    /// As granted; `not_after` moves with extensions.
    pub grant: Grant,
    /// The request or break-glass statement.
    pub request: StatementId,
    /// Ticket, where there is one.
    pub ticket: Option<Ticket>,
    /// The approvals it rests on.
    pub approvals: Vec<Approval>,
    /// Where.
    pub place: Place,
    /// Each later end, in order.
    pub extensions: Vec<Extended>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Sessions opened under it.
    pub sessions: Vec<SessionId>,
    /// Break-glass only: when a review is due.
    pub review_due: Option<Timestamp>,
    /// When the review was closed.
    pub reviewed: Option<Timestamp>,
}

/// A later end of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The entry since which it holds.
    pub index: u64,
    /// The end before.
    pub before: Timestamp,
    /// The approvals it rests on.
    pub approvals: Vec<Approval>,
}

/// A session and what happened in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// As opened.
    pub open: SessionOpen,
    /// When it was opened.
    pub at: Timestamp,
    /// Where.
    pub place: Place,
    /// How strongly it was shown who opened it, 0 to 4. What came later changes that no more.
    pub assurance: u8,
    /// Who answered for the target when it was opened.
    pub owner: PersonId,
    /// When somebody ended it.
    pub terminated: Option<Timestamp>,
    /// Who watches it, in order.
    pub watchers: Vec<PersonId>,
    /// Intents so far.
    pub actions: u64,
    /// Intents, outcomes, evidence and refusals so far.
    pub entries: u64,
    /// The first statement of its approved script that may still be executed.
    pub next_step: u32,
    /// When and why it ended.
    pub closed: Option<(Timestamp, CloseReason)>,
}

/// A `connect` statement that no session has used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Opener {
    by: PersonId,
    at: Timestamp,
    key: String,
    connect: Connect,
    place: Place,
}

/// An action without outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OpenAction {
    session: SessionId,
    kind: String,
    place: Place,
    /// What it is a part of.
    within: Option<ActionId>,
    /// Bytes that the outcomes of its parts have digested so far.
    parts: PartBytes,
}

/// Contents of files, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct PartBytes {
    read: u64,
    written: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct WriterState {
    key: Vec<u8>,
    next: u64,
    recent: VecDeque<(u64, Place)>,
}

/// Everything that the entries so far establish.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The log.
    pub origin: String,
    /// The first entry, once there is one.
    pub genesis: Option<Genesis>,
    /// Entries so far (the next index).
    pub size: u64,
    /// Time of the newest entry.
    pub last_at: Option<Timestamp>,
    /// The newest law entry.
    pub law_head: Option<Place>,
    /// People.
    pub people: BTreeMap<PersonId, Person>,
    /// Targets by name.
    pub targets: BTreeMap<String, TargetState>,
    /// Outside certificate authorities by name.
    pub cas: BTreeMap<String, AuthorityState>,
    /// Requests, extensions and proposals.
    pub asks: BTreeMap<StatementId, Ask>,
    /// Grants.
    pub grants: BTreeMap<GrantId, GrantState>,
    /// Sessions.
    pub sessions: BTreeMap<SessionId, SessionState>,
    /// Providers of identities by name.
    pub providers: BTreeMap<String, ProviderState>,
    /// Workloads.
    pub workloads: BTreeMap<PersonId, WorkloadState>,
    /// Logins, also those that ended.
    pub logins: BTreeMap<StatementId, Box<LoginState>>,
    /// Whom subjects stand for, by provider.
    pub links: BTreeMap<String, BTreeMap<ContentDigest, LinkState>>,
    /// Directories by name.
    pub directories: BTreeMap<String, DirectoryState>,
    /// Tokens that were shown, until nobody could show them again.
    spent: BTreeMap<ContentDigest, Timestamp>,
    /// The same by when that is.
    spent_until: BTreeSet<(Timestamp, ContentDigest)>,
    /// Logins by their keys, and those that have not ended, by their ends and by their actors: found
    /// again without looking through all.
    session_keys: BTreeMap<String, StatementId>,
    live_logins: BTreeSet<(Timestamp, StatementId)>,
    logins_of: BTreeMap<PersonId, BTreeSet<StatementId>>,
    /// Delegations to agents.
    pub delegations: BTreeMap<StatementId, DelegationState>,
    /// Keys of agents that took a delegation. They stay an agent's.
    agents: BTreeMap<String, StatementId>,
    /// Each person's delegations, as far as they are not known to be over.
    delegated: BTreeMap<PersonId, BTreeSet<StatementId>>,
    keys: BTreeMap<String, PersonId>,
    chosen: BTreeMap<(PersonId, String, String), GrantId>,
    openers: BTreeMap<StatementId, Opener>,
    open_actions: BTreeMap<ActionId, OpenAction>,
    statements: BTreeSet<StatementId>,
    ids: HashMap<EntryId, u64>,
    writers: BTreeMap<String, WriterState>,
    excerpt: Option<SessionId>,
    /// The version of the newest entry: by its rules the law judges.
    version: u8,
    /// Asks that are open, and which of them would lead to which grant: found again without
    /// looking through all that ever were.
    open_asks: BTreeSet<StatementId>,
    awaited: BTreeMap<GrantId, StatementId>,
    /// Sessions that are open.
    live: BTreeSet<SessionId>,
    revoked_keys: BTreeSet<String>,
    /// The witnesses and what they have seen.
    pub witnesses: Witnesses,
}

impl State {
    /// The state before the first entry of the log `origin`.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            ..Self::default()
        }
    }

    /// The same, judging by the rules of the newest version, as the next entry is judged: to answer what it would meet.
    pub fn to_look_ahead(origin: &str) -> Self {
        Self {
            version: crate::entry::VERSION,
            ..Self::new(origin)
        }
    }

    /// The same for a bundle about one session: entries that are not law may be missing, but of
    /// that session none.
    pub fn excerpt(origin: &str, session: SessionId) -> Self {
        Self {
            excerpt: Some(session),
            ..Self::new(origin)
        }
    }

    /// Where the entry with this id is.
    pub fn index_of(&self, id: &EntryId) -> Option<u64> {
        self.ids.get(id).copied()
    }

    fn genesis_rules(&self) -> Result<&Genesis, Denied> {
        self.genesis
            .as_ref()
            .ok_or_else(|| Denied::new("no-genesis", "the log has no first entry"))
    }

    /// Checks one entry and takes it in, or refuses it and stays as it was.
    fn step(
        &mut self,
        judge: &dyn Judge,
        index: u64,
        entry: &Entry,
        said: &Said<'_>,
        hash: EntryHash,
    ) -> Result<(), Denied> {
        let place = Place { hash, index };
        self.check_frame(entry, index)?;
        let version = core::mem::replace(&mut self.version, entry.v);
        let expired = self.end_expired(entry.at);
        let taken = self.take_entry(judge, entry, said, place);
        if taken.is_err() {
            self.revive(expired);
            self.version = version;
        }
        taken
    }

    /// The same, of an entry in its place.
    fn take_entry(
        &mut self,
        judge: &dyn Judge,
        entry: &Entry,
        said: &Said<'_>,
        place: Place,
    ) -> Result<(), Denied> {
        let index = place.index;
        if entry.refs != self.refs_for(&entry.body, said)? {
            return Err(Denied::new(
                "links",
                "the entry's links are not what its kind demands",
            ));
        }
        let session = self.session_of_body(&entry.body)?;
        match &entry.body {
            Body::Genesis(genesis) => self.take_genesis(genesis, index, place)?,
            Body::Statement(signed) => self.take_statement(judge, entry.at, signed, said, place)?,
            Body::Grant(grant) => self.take_grant(grant, place)?,
            Body::GrantExtend(extend) => self.take_extend(extend, entry.at, index)?,
            Body::SessionOpen(open) => self.take_open(open, entry.at, place)?,
            Body::SessionClose(close) => self.take_close(close, entry.at)?,
            Body::Intent(intent) => self.take_intent(intent, entry.at, place)?,
            Body::Outcome(outcome) => self.take_outcome(outcome)?,
            Body::Evidence(evidence) => self.check_evidence(evidence)?,
            Body::Refusal(refusal) => self.check_refusal(refusal)?,
            Body::Head(head) => self.check_head(&entry.writer, head)?,
            Body::ProviderKeys(keys) => {
                self.take_provider_keys(judge, entry, keys, place)?;
            }
            Body::Cosigned(cosigned) => self.take_cosigned(cosigned, index, entry.at)?,
            Body::DirectoryChange(change) => self.take_directory_change(entry, change, place)?,
            Body::DirectoryRefusal(refusal) => self.check_directory_refusal(entry, refusal)?,
            Body::LoginRefusal(refusal) => self.check_login_refusal(entry, refusal)?,
        }
        if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
            session.entries += 1;
        }
        self.take_frame(entry, said, place);
        Ok(())
    }

    /// Replays one stored entry at the next index.
    ///
    /// # Errors
    /// When the bytes are not an entry, or the law did not allow it.
    pub fn apply(&mut self, judge: &dyn Judge, bytes: &[u8]) -> Result<Sequenced, Denied> {
        self.replay(judge, self.size, bytes)
    }

    /// Takes in the next entry, parsed already: another state of the same log has just sequenced it,
    /// or [`read`] read it. The checks are those of [`State::apply`].
    ///
    /// # Errors
    /// When the law did not allow it.
    pub fn follow(
        &mut self,
        judge: &dyn Judge,
        entry: &Entry,
        hash: EntryHash,
    ) -> Result<(), Denied> {
        self.step(judge, self.size, entry, &Said::by(&entry.body)?, hash)
    }

    /// The same of one that [`read_whole`] read.
    ///
    /// # Errors
    /// When the law did not allow it.
    pub fn follow_whole(
        &mut self,
        judge: &dyn Judge,
        whole: &Whole,
        hash: EntryHash,
    ) -> Result<(), Denied> {
        self.step(judge, self.size, &whole.entry, &whole.said, hash)
    }

    /// Replays one entry of an excerpt: entries that are not law may be missing in between.
    ///
    /// # Errors
    /// As [`State::apply`]; also when the index does not grow.
    pub fn apply_at(
        &mut self,
        judge: &dyn Judge,
        index: u64,
        bytes: &[u8],
    ) -> Result<Sequenced, Denied> {
        if index < self.size || (self.excerpt.is_none() && index != self.size) {
            return Err(Denied::new("order", "an entry is missing or out of order"));
        }
        self.replay(judge, index, bytes)
    }

    fn replay(&mut self, judge: &dyn Judge, index: u64, bytes: &[u8]) -> Result<Sequenced, Denied> {
        let entry = read(bytes)?;
        let hash = crate::entry::entry_hash(bytes);
        self.step(judge, index, &entry, &Said::by(&entry.body)?, hash)?;
        Ok(Sequenced {
            entry,
            bytes: bytes.to_vec(),
            hash,
        })
    }
}

#[cfg(test)]
mod tests;
