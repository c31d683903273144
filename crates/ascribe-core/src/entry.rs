//! Ledger entries: canonical JSON objects, at most 65,535 bytes, linked by hash.

use ascribe_tlog::{Hash, leaf_hash};
use serde::{Deserialize, Serialize};

use crate::database::{SqlIntent, SqlOutcome, SqlScope};
use crate::directory::{DirectoryChange, DirectoryRefusal};
use crate::encoding::{self, Bytes, EncodingError};
use crate::id::{
    ActionId, Commitment, ContentDigest, EntryHash, EntryId, GrantId, PersonId, SessionId,
    StatementId,
};
use crate::identity::{LoginRefusal, ProviderKeys};
use crate::statement::{Forward, PersonAdd, Serial, Signed, Uses, Window};
use crate::time::Timestamp;
use crate::witness::Cosigned;

mod frame;

/// Largest entry, in bytes (C2SP tlog-tiles).
pub const MAX_ENTRY: usize = 65_535;

/// The version of entries that are written. Version 1 has the same form; of what an entry of version 2 says the law demands more
/// (see `docs/spec/entry.md`).
pub const VERSION: u8 = 4;

/// One entry. Members are declared in canonical order, here and below, so that writing them needs
/// no sorting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When the sequencer ordered it; never decreases.
    pub at: Timestamp,
    /// What it says.
    pub body: Body,
    /// Chosen by the proposer; a log takes each id once.
    pub id: EntryId,
    /// The newest law entry before this one; absent in the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub law: Option<EntryHash>,
    /// Origin of the log.
    pub log: String,
    /// Parents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<Ref>,
    /// Version: 1 to [`VERSION`].
    pub v: u8,
    /// Who wrote it, and its place in that writer's chain.
    pub writer: Writer,
}

/// A place in a writer's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writer {
    /// The writer's name.
    pub id: String,
    /// Hash of the writer's previous entry; absent at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<EntryHash>,
    /// Counts from 0.
    pub seq: u64,
}

/// A link to a parent, which has a smaller index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ref {
    /// The parent.
    pub hash: EntryHash,
    /// Where it is; a hint.
    pub index: u64,
    /// What the parent is to this entry, for instance `session`.
    pub rel: String,
}

/// The first entry: who may change anything, and who may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The log's verifier key (C2SP signed-note).
    pub log_key: String,
    /// The first administrators.
    pub admins: Vec<PersonAdd>,
    /// Admin signatures that a proposal needs, its proposer's included.
    pub admin_quorum: u32,
    /// Who may write entries.
    pub writers: Vec<WriterKey>,
}

/// A writer and its Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriterKey {
    /// The writer's name.
    pub id: String,
    /// 32 bytes.
    pub key: Bytes,
}

/// Permission that follows from a request and its approvals, or from a break-glass statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Derived from the request.
    pub grant: GrantId,
    /// Who may act.
    pub person: PersonId,
    /// On which target.
    pub target: String,
    /// As which account.
    pub account: String,
    /// First instant.
    pub not_before: Timestamp,
    /// First instant that is too late.
    pub not_after: Timestamp,
    /// Single use or reusable.
    pub uses: Uses,
    /// Was it taken without approval?
    pub break_glass: bool,
    /// What may be forwarded besides, and whereto.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// The request's windows, where it names several. Outside them the grant allows nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// What statements may be executed, where the target is a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlScope>,
}

impl Grant {
    fn whole(&self) -> Window {
        Window {
            from: self.not_before,
            until: self.not_after,
        }
    }

    /// The window that this instant is in.
    pub fn window_at(&self, at: Timestamp) -> Option<Window> {
        let whole = [self.whole()];
        let windows = if self.windows.is_empty() {
            &whole[..]
        } else {
            &self.windows
        };
        windows.iter().find(|window| window.holds(at)).copied()
    }

    /// The window to wait for: none inside one, none after the last.
    pub fn next_opening(&self, at: Timestamp) -> Option<Window> {
        if self.window_at(at).is_some() {
            return None;
        }
        let whole = self.whole();
        let first = self.windows.is_empty().then_some(&whole);
        let mut windows = self.windows.iter().chain(first);
        windows.find(|window| at < window.from).copied()
    }
}

/// A grant's later end, approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantExtend {
    /// Which grant.
    pub grant: GrantId,
    /// The new end.
    pub not_after: Timestamp,
}

/// How the opening of a session is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenedBy {
    /// The actor's key signed a `connect` statement for exactly this target and account.
    Signed,
    /// The gateway checked the login and says so.
    Testimony,
}

/// By which door a session came in. The rest of its record is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// With a workload's own token as the password, at a database gateway's own port: nobody signed.
    Bearer,
    /// Through `ascribe connect`, which opens with a signed statement.
    Connect,
    /// With a signed statement as the password, at a database gateway's own port.
    Password,
    /// Through `ascribe tunnel` or `ascribe psql`, which open with a signed statement.
    Tunnel,
    /// `ssh ACCOUNT@TARGET@GATEWAY`.
    Direct,
    /// `ssh -J GATEWAY ACCOUNT@TARGET`.
    Jump,
    /// With a workload's X.509-SVID as the client's certificate in TLS, at a database gateway's own port: what it
    /// signed is the handshake.
    Mtls,
}

impl Door {
    /// Does it open only with a statement that the actor signed?
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Connect | Self::Password | Self::Tunnel)
    }
}

/// A session begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOpen {
    /// As whom.
    pub account: String,
    /// The outside authority's certificate that says whose the key is, where the key itself is not
    /// enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The delegation whose agent acts, where it is not the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<StatementId>,
    /// By which door.
    pub door: Door,
    /// The client's address, sealed.
    pub from: Commitment,
    /// Under which grant.
    pub grant: GrantId,
    /// Fingerprint of the key that logged in.
    pub key: String,
    /// The `login` statement that introduced the key, where it is not enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<StatementId>,
    /// How the opening is proven.
    pub opened_by: OpenedBy,
    /// The `connect` statement that opens it, where the actor signed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<StatementId>,
    /// Who, or in whose name.
    pub person: PersonId,
    /// The session.
    pub session: SessionId,
    /// Where.
    pub target: String,
}

/// A user certificate by an outside authority, as the gateway saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Fingerprint of the authority's key that signed it.
    pub ca: String,
    /// The authority's name.
    pub ca_name: String,
    /// The certificate's key id.
    pub key_id: String,
    /// First instant at which it no longer counts; absent where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The principal that stands for the person.
    pub principal: String,
    /// Its serial.
    pub serial: Serial,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The actor left.
    Disconnected,
    /// The grant's window ended, or the login, its certificate or its delegation did; or the lease of the
    /// target's credential.
    Expired,
    /// The grant, the login, its key, certificate or delegation was revoked, or the person left.
    Revoked,
    /// Nothing moved for too long.
    Idle,
    /// The target could not be reached or broke off.
    TargetFailed,
    /// Somebody with the right to ended this one session.
    Terminated,
    /// The ledger could not record.
    LedgerUnavailable,
    /// The gateway stopped; written by whoever recovered.
    Interrupted,
}

/// A session ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClose {
    /// Intents that the session recorded. The sequencer fills it in.
    pub actions: u64,
    /// All entries of the session between its opening and this one: intents, outcomes, evidence,
    /// refusals. The sequencer fills it in; an excerpt that lacks one does not add up.
    pub entries: u64,
    /// Why.
    pub reason: CloseReason,
    /// The session.
    pub session: SessionId,
}

/// A terminal, as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pty {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
    /// Terminal type.
    pub term: String,
}

/// An action is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The action.
    pub action: ActionId,
    /// Commitment to the exact command bytes; absent where there is none (a shell).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Commitment>,
    /// Commitment to the environment that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Commitment>,
    /// Milliseconds after which the gateway must not send it any more.
    pub forward_within_ms: u64,
    /// `ssh.exec`, `ssh.shell`, `ssh.sftp`, `sftp.open`, `pg.query`, ...
    pub kind: String,
    /// What of the client's its programs may use: `agent`, `x11`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lends: Vec<String>,
    /// The terminal, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// The session that it belongs to.
    pub session: SessionId,
    /// What kind of statement it is, of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlIntent>,
    /// The action that it is a part of: a file transfer, of a file's operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<ActionId>,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The action was refused.
    Denied,
    /// It ran and said it failed.
    Failed,
    /// It was recorded and then not sent.
    NotSent,
    /// Nobody knows.
    Unknown,
    /// It ran and said it succeeded.
    Succeeded,
}

/// One direction of an action's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTotal {
    /// Bytes that passed.
    pub bytes: u64,
    /// Of these, contents of files that are beyond the target's cap: the digests of the operations
    /// within the action have them, and this one leaves them out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_files: u64,
    /// Of all bytes that passed, without those in files.
    pub sha256: ContentDigest,
    /// Bytes that are stored.
    pub stored: u64,
    /// `stdin`, `stdout`, `stderr` or `terminal`; of a forwarded connection `sent` and `received`; of
    /// a file's operation `read`, `written`, `read-parts` or `written-parts`; of a database `copied-in`,
    /// `copied-out` and, of one that is an action by itself, `message`.
    pub stream: String,
}

pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The action.
    pub action: ActionId,
    /// Exit code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u32>,
    /// What was noticed on the way: `ssh-inside`, SSH within a forwarded connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Signal name, where one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// What a database answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlOutcome>,
    /// What became of it.
    pub status: Status,
    /// What passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamTotal>,
}

/// Bytes of a stream, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The action whose stream this is.
    pub action: ActionId,
    /// Chunks, in order.
    pub chunks: Vec<Chunk>,
}

/// One sealed chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// Milliseconds since the action's intent was recorded, when the chunk's first byte passed.
    pub after_ms: u64,
    /// Length.
    pub bytes: u64,
    /// Commitment to the bytes; the field name is `STREAM/SEQ`.
    pub commit: Commitment,
    /// Counts from 0 within the stream.
    pub seq: u64,
    /// `stdin`, `stdout`, `stderr` or `terminal`.
    pub stream: String,
}

/// Something was asked for and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The delegation whose agent asked, where it was not the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<StatementId>,
    /// Who asked, or in whose name.
    pub person: PersonId,
    /// What was asked: `session`, `forwarding`, a statement type, an action kind.
    pub what: String,
    /// A stable code.
    pub code: String,
    /// The session, where one was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Commitment to the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Commitment>,
}

/// A writer signs the head of its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Its hash.
    pub hash: EntryHash,
    /// The newest entry that is covered.
    pub seq: u64,
    /// Ed25519 over [`head_message`].
    pub sig: Bytes,
}

/// What a writer signs for a chain head.
pub fn head_message(log: &str, writer: &str, seq: u64, hash: &EntryHash) -> Vec<u8> {
    format!("ascribe/head/v1\n{log}\n{writer}\n{seq}\n{hash}\n").into_bytes()
}

macro_rules! body {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $tag:literal;)*) => {
        /// What an entry says; the tag is the entry's kind.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Body {
            $($(#[$doc])* #[serde(rename = $tag)] $name($body),)*
        }
        impl Body {
            /// The kind's name.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => $tag,)* }
            }
            /// Every kind there is.
            pub const KINDS: &'static [&'static str] = &[$($tag,)*];
        }
    };
}

body! {
    /// The first entry.
    Genesis(Genesis) = "genesis";
    /// A signed statement.
    Statement(Signed) = "statement";
    /// A grant came to be.
    Grant(Grant) = "grant";
    /// A grant ends later.
    GrantExtend(GrantExtend) = "grant.extend";
    /// A session begins.
    SessionOpen(SessionOpen) = "session.open";
    /// A session ends.
    SessionClose(SessionClose) = "session.close";
    /// Before an action.
    Intent(Intent) = "intent";
    /// After an action.
    Outcome(Outcome) = "outcome";
    /// Bytes of a stream.
    Evidence(Evidence) = "evidence";
    /// Something was refused.
    Refusal(Refusal) = "refusal";
    /// A writer's signed chain head.
    Head(Head) = "head";
    /// A provider's published keys.
    ProviderKeys(ProviderKeys) = "provider.keys";
    /// Witnesses have seen the log.
    Cosigned(Cosigned) = "cosigned";
    /// A directory changed a user or a group.
    DirectoryChange(DirectoryChange) = "directory.change";
    /// Requests of directories were refused.
    DirectoryRefusal(DirectoryRefusal) = "directory.refusal";
    /// Logins were refused.
    LoginRefusal(LoginRefusal) = "login.refusal";
}

impl Entry {
    /// The bytes that are stored, hashed and proven.
    ///
    /// # Errors
    /// When a value has no canonical form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodingError> {
        // A statement's text is the most of its entry, with a backslash before each quote.
        let text = match &self.body {
            Body::Statement(signed) => signed.text.len(),
            _ => 0,
        };
        encoding::encode_about(1024 + text + text / 4, self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When they are not one canonical entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EncodingError> {
        encoding::decode(bytes)
    }

    /// The parent of that relation.
    pub fn parent(&self, rel: &str) -> Option<EntryHash> {
        self.refs.iter().find(|r| r.rel == rel).map(|r| r.hash)
    }
}

/// The hash by which entries name each other: RFC 6962 leaf hash of the stored bytes.
pub fn entry_hash(bytes: &[u8]) -> EntryHash {
    let hash: Hash = leaf_hash(bytes);
    EntryHash(hash)
}
