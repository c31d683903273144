//! What people sign. A statement is exact JSON bytes, signed in SSHSIG form (OpenSSH
//! `PROTOCOL.sshsig`) under one namespace per statement type, so stock `ssh-keygen -Y verify`
//! checks any of them.

use serde::{Deserialize, Serialize};

use crate::database::{Postgres, Reconciliation, SqlScope};
use crate::delegation::{Acceptance, Delegation, DelegationRevoke};
use crate::directory::{Directory, DirectoryFile, DirectoryGroup};
use crate::encoding::{self, Bytes, EncodingError};
use crate::id::{
    Commitment, ContentDigest, EntryHash, GrantId, PersonId, Root, SessionId, StatementId,
};
use crate::identity::{IdentityLink, KeysSeen, Login, Logout, Provider, Workload};
use crate::sealed::Prose;
use crate::time::Timestamp;
use crate::witness::WitnessSet;

/// An SSH public key as OpenSSH writes it, `type base64`, without comment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SshKey(pub String);

/// Types of keys that somebody has to touch.
const SECURITY_KEYS: [&str; 2] = [
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl SshKey {
    /// The key's type as its blob names it (RFC 4253, 6.6): what stands before it in the text is only said.
    pub fn kind(&self) -> Option<String> {
        let blob = encoding::from_base64_std(self.0.split(' ').nth(1)?)?;
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        String::from_utf8(rest.get(..length)?.to_vec()).ok()
    }

    /// A key that signs only when somebody touches it (OpenSSH `PROTOCOL.u2f`).
    pub fn is_security_key(&self) -> bool {
        self.kind()
            .is_some_and(|kind| SECURITY_KEYS.contains(&kind.as_str()))
    }

    /// `SHA256:` and the unpadded base64 digest of the key blob, as OpenSSH prints it.
    pub fn fingerprint(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let blob = self
            .0
            .split(' ')
            .nth(1)
            .and_then(encoding::from_base64_std)
            .unwrap_or_default();
        let mut fingerprint = String::with_capacity(50);
        fingerprint.push_str("SHA256:");
        encoding::push_base64_unpadded(&Sha256::digest(blob), &mut fingerprint);
        fingerprint
    }
}

/// The last checkpoint the signer had seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Tree root.
    pub root: Root,
    /// Tree size.
    pub size: u64,
}

/// One statement, as signed. Members are declared in canonical order, so that its spelling is checked without
/// writing it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The signer's clock.
    pub at: Timestamp,
    /// The person who signs, or in whose name an agent does.
    pub by: PersonId,
    /// Random; a log takes each id once.
    pub id: StatementId,
    /// Origin of the log that this statement is for.
    pub log: String,
    /// What is said.
    pub say: Say,
    /// What the signer knew of the log.
    pub seen: Seen,
    /// Version of this form: 1.
    pub v: u8,
}

impl Statement {
    /// The exact bytes to sign.
    ///
    /// # Errors
    /// When a value has no canonical form.
    pub fn to_text(&self) -> Result<String, EncodingError> {
        String::from_utf8(encoding::encode(self)?).map_err(|_| EncodingError::NotCanonical)
    }
}

/// How often a grant may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uses {
    /// One session.
    Single,
    /// Any number of sessions inside the window.
    Reusable,
}

/// A reference into another system that holds the business reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// For instance `jira`.
    pub system: String,
    /// For instance `OPS-42`.
    pub id: String,
}

/// What a person can be allowed to do in ascribe itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May ask for grants.
    Requester,
    /// May approve what others ask.
    Approver,
    /// May read sealed content.
    Auditor,
    /// May propose and approve changes of people, keys and targets.
    Admin,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// First instant.
    pub from: Timestamp,
    /// First instant that is too late.
    pub until: Timestamp,
}

impl Window {
    /// Is this instant inside?
    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// Windows by a rule in local time. The law looks at the instants alone: it has no zone data. Rule,
/// zone and version say how the asker's client came to them, so that others can work them out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recurrence {
    /// For instance `Tue,Thu 08:00-18:00`.
    pub rule: String,
    /// The zone's name in the IANA database, for instance `Europe/Berlin`.
    pub zone: String,
    /// Version of the zone data that was used, or `unknown`.
    pub tzdata: String,
    /// What is asked for, in order.
    pub windows: Vec<Window>,
}

/// A request for a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Target name.
    pub target: String,
    /// Account on the target.
    pub account: String,
    /// First instant.
    pub not_before: Timestamp,
    /// First instant that is too late.
    pub not_after: Timestamp,
    /// Single use or reusable.
    pub uses: Uses,
    /// Why, sealed.
    pub justification: Prose,
    /// The ticket, where one exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
    /// What may be forwarded besides, and whereto.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// Several windows instead of one from `not_before` until `not_after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrence: Option<Recurrence>,
    /// The workload that will act; its owner asks.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "for")]
    pub beneficiary: Option<PersonId>,
    /// What statements may be executed, where the target is a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlScope>,
}

impl Request {
    /// Asks for one account of a target from now on, as often as wanted, with nothing forwarded.
    pub fn plain(
        target: &str,
        account: &str,
        (not_before, not_after): (Timestamp, Timestamp),
        justification: Prose,
    ) -> Self {
        Self {
            target: target.to_owned(),
            account: account.to_owned(),
            not_before,
            not_after,
            uses: Uses::Reusable,
            justification,
            ticket: None,
            forwards: Vec::new(),
            recurrence: None,
            beneficiary: None,
            sql: None,
        }
    }
}

/// One kind of forwarding that a grant allows, with its only destination. Nothing else is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// A connection from the client through the target to this destination (`ssh -L`).
    Local(Destination),
    /// The same to any destination, each recorded (`ssh -D`).
    Dynamic(Anywhere),
    /// The same to a socket on the target.
    Socket(SocketPath),
    /// The target listens on its loopback port and connects back to the client (`ssh -R`).
    Remote(Listen),
    /// The target listens on a socket and connects back to the client.
    RemoteSocket(SocketPath),
    /// Programs on the target may use the client's ssh-agent.
    Agent(Anywhere),
    /// Programs on the target may use the client's X11 display.
    X11(Anywhere),
}

impl Forward {
    /// Kinds of actions that this allows.
    pub fn kinds(&self) -> &'static [&'static str] {
        match self {
            Self::Local(_) => &["ssh.forward.local"],
            Self::Dynamic(_) => &["ssh.forward.dynamic"],
            Self::Socket(_) => &["ssh.forward.socket"],
            Self::Remote(_) => &["ssh.forward.listen", "ssh.forward.remote"],
            Self::RemoteSocket(_) => &["ssh.forward.listen-socket", "ssh.forward.remote-socket"],
            Self::Agent(_) => &["ssh.forward.agent"],
            Self::X11(_) => &["ssh.forward.x11"],
        }
    }
}

/// As people ask for it: `local:NAME=ADDRESS:PORT`, `agent` and so on.
impl core::fmt::Display for Forward {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Local(to) => match &to.address {
                Some(address) => write!(f, "local:{}={address}:{}", to.host, to.port),
                None => write!(f, "local:{}:{}", to.host, to.port),
            },
            Self::Dynamic(_) => f.write_str("dynamic"),
            Self::Socket(to) => write!(f, "socket:{}", to.path),
            Self::Remote(at) => write!(f, "remote:{}", at.port),
            Self::RemoteSocket(at) => write!(f, "remote-socket:{}", at.path),
            Self::Agent(_) => f.write_str("agent"),
            Self::X11(_) => f.write_str("x11"),
        }
    }
}

/// A destination behind a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Host name or address, as the client writes it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The address that a name stands for: the target is asked for this and never for the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A port on the target's loopback; 0 lets the target choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// TCP port.
    pub port: u16,
}

/// A socket's path on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketPath {
    /// Absolute.
    pub path: String,
}

/// No destination to name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anywhere {}

/// Names the entry that this statement answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The hash of the entry that holds it.
    pub entry: EntryHash,
    /// The statement that is answered.
    pub of: StatementId,
    /// An optional remark, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<Prose>,
}

/// Asks that a grant end later. Takes effect when approved like a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// Which grant.
    pub grant: GrantId,
    /// The new end.
    pub not_after: Timestamp,
    /// Why, sealed.
    pub justification: Prose,
}

/// Ends a grant and its sessions at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Which grant.
    pub grant: GrantId,
    /// Why, sealed.
    pub reason: Prose,
}

/// Ends one session at once; its grant goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Termination {
    /// Which session.
    pub session: SessionId,
    /// Why, sealed.
    pub reason: Prose,
}

/// Opens a session: the actor's own link. Good for one session, within five minutes, with the key
/// that signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Account on the target.
    pub account: String,
    /// What a maintenance job runs, as whoever runs it has it: SHA-256 of its file or command. It opens a session only
    /// if it is the one that was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<ContentDigest>,
    /// Which grant, where several fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// Target name.
    pub target: String,
}

/// Starts a grant without approval, in an emergency. Leaves a review that somebody else closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// Target name.
    pub target: String,
    /// Account on the target.
    pub account: String,
    /// First instant that is too late; at most one hour away.
    pub not_after: Timestamp,
    /// The emergency, sealed.
    pub emergency: Prose,
    /// The ticket, where one exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
}

/// Closes the review of a break-glass grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Which grant.
    pub grant: GrantId,
    /// Was it justified?
    pub verdict: Verdict,
    /// The finding, sealed.
    pub finding: Prose,
}

/// What a review found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was not.
    Unjustified,
    /// It was.
    Justified,
}

/// Registers or replaces a target and its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name, as people type it.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// What the host stood for when the target was registered: the gateway connects to these, in
    /// order, and asks no resolver.
    pub addresses: Vec<String>,
    /// The gateway's own machine is meant: loopback addresses are allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub loopback: bool,
    /// TCP port.
    pub port: u16,
    /// Pinned host keys; none of a database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<SshKey>,
    /// Accounts that may be asked for.
    pub accounts: Vec<String>,
    /// Who answers for the target.
    pub system_owner: PersonId,
    /// Approvals needed, at least 1.
    pub quorum: u32,
    /// People each of whom must be among the approvers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_approvers: Vec<PersonId>,
    /// Longest window, in seconds.
    pub max_seconds: u64,
    /// Least visible characters of a justification.
    pub min_justification: u32,
    /// Ticket rule, where a ticket is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketRule>,
    /// People who may break glass here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<PersonId>,
    /// Seconds a break-glass review may stay open.
    pub review_seconds: u64,
    /// Most bytes of one stream that are stored.
    pub stream_cap: u64,
    /// What happens to a stream beyond the cap.
    pub over_cap: OverCap,
    /// Sessions open only with a statement that the actor signed (`ascribe connect`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub signed_opening: bool,
    /// A watched person is told so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub watch_notice: bool,
    /// SSH within a forwarded connection is cut off; otherwise it is noted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub refuse_inner_ssh: bool,
    /// Least assurance of whoever opens a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_assurance: Option<u8>,
    /// Least assurance of whoever approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver_assurance: Option<u8>,
    /// Sessions open only while no entry is older than this that witnesses have not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unwitnessed_seconds: Option<u64>,
    /// Whoever approves is in one of these groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approver_groups: Vec<DirectoryGroup>,
    /// The manager of whoever asks is among the approvers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub manager_approves: bool,
    /// What a PostgreSQL server has besides; it is reached by that protocol and has no host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
}

impl Target {
    /// A host reached by SSH, with the rules that hold where nobody says otherwise: one approval, eight
    /// hours at most, streams stored up to 16 MiB and digested beyond, no way to break glass.
    pub fn ssh(
        name: &str,
        (host, port): (&str, u16),
        host_key: SshKey,
        account: &str,
        system_owner: PersonId,
    ) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            addresses: vec![host.to_owned()],
            loopback: false,
            port,
            host_keys: vec![host_key],
            accounts: vec![account.to_owned()],
            system_owner,
            quorum: 1,
            required_approvers: Vec::new(),
            max_seconds: 8 * 3600,
            min_justification: 12,
            ticket: None,
            break_glass: Vec::new(),
            review_seconds: 3 * 86_400,
            stream_cap: 16 << 20,
            over_cap: OverCap::Digest,
            signed_opening: false,
            watch_notice: false,
            refuse_inner_ssh: false,
            actor_assurance: None,
            approver_assurance: None,
            max_unwitnessed_seconds: None,
            approver_groups: Vec::new(),
            manager_approves: false,
            postgres: None,
        }
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// What happens to a stream beyond the target's cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverCap {
    /// The action is stopped.
    Refuse,
    /// The rest is digested, not stored.
    Digest,
}

/// A ticket id is the prefix, a dash and digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRule {
    /// For instance `jira`.
    pub system: String,
    /// Pattern: literal text, `#` for one or more digits, `@` for one or more ASCII letters,
    /// `*` for one or more letters, digits, `-` or `_`. Matches the whole id.
    pub pattern: String,
}

/// A key of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonKey {
    /// Whose.
    pub person: PersonId,
    /// The key.
    pub key: SshKey,
}

/// Enrols a person. The name is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonAdd {
    /// The pseudonym.
    pub person: PersonId,
    /// Commitment to the display name.
    pub name: Commitment,
    /// Keys.
    pub keys: Vec<SshKey>,
    /// Roles.
    pub roles: Vec<Role>,
}

/// Ends everything a person may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offboard {
    /// Who leaves.
    pub person: PersonId,
}

/// Registers or replaces an outside certificate authority: whoever shows a user certificate by one
/// of its keys is the person that the certificate's principal stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Its public keys; none withdraws it.
    pub keys: Vec<SshKey>,
    /// Name, as records show it.
    pub name: String,
    /// Whom its principals stand for; others count for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub people: Vec<Mapping>,
    /// Certificates of it that no longer count.
    #[serde(default, skip_serializing_if = "RevokedCertificates::is_empty")]
    pub revoked: RevokedCertificates,
}

/// Whom a principal stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The enrolled person.
    pub person: PersonId,
    /// The exact principal.
    pub principal: String,
}

/// Certificates that no longer count, each way of naming them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedCertificates {
    /// By key id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_ids: Vec<String>,
    /// By serial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serials: Vec<Serial>,
}

impl RevokedCertificates {
    /// Is nothing revoked?
    pub fn is_empty(&self) -> bool {
        self.key_ids.is_empty() && self.serials.is_empty()
    }
}

/// A certificate's serial. Written as a text of digits, for it may be larger than a JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u64);

impl Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let number: Option<u64> = text.parse().ok();
        // `+1` and `01` are other spellings of 1.
        number
            .filter(|number| number.to_string() == text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a serial is written in decimal digits"))
    }
}

/// Chooses among several grants that fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UseGrant {
    /// The grant that is meant.
    pub grant: GrantId,
}

/// A call that reads. Reading sealed content is itself an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// What is read.
    pub view: View,
    /// Commitment to the exact query, which may hold sealed text.
    pub query: Commitment,
    /// The request that is read, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<StatementId>,
    /// The session that is read, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The registry: people, targets, requests, grants, sessions, without sealed content.
    Registry,
    /// One request with its justification, for whoever may approve it or made it.
    Request,
    /// Actions with their commands.
    Actions,
    /// A terminal transcript.
    Replay,
    /// A session while it runs.
    Watch,
    /// A bundle.
    Export,
}

impl View {
    /// Is the read itself an entry?
    pub fn is_recorded(self) -> bool {
        match self {
            Self::Registry => false,
            Self::Request | Self::Actions | Self::Replay | Self::Watch | Self::Export => true,
        }
    }
}

macro_rules! say {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $tag:literal;)*) => {
        /// What a statement says; the tag is the statement's type.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Say {
            $($(#[$doc])* #[serde(rename = $tag)] $name($body),)*
        }
        impl Say {
            /// The type's name.
            pub fn tag(&self) -> &'static str {
                match self { $(Self::$name(_) => $tag,)* }
            }
            /// Every type there is.
            pub const TAGS: &'static [&'static str] = &[$($tag,)*];
        }
    };
}

say! {
    /// Asks for a grant.
    Request(Request) = "request";
    /// A yes to a request, an extension or a proposal.
    Approval(Answer) = "approval";
    /// A no.
    Denial(Answer) = "denial";
    /// The asker withdraws.
    Cancellation(Answer) = "cancellation";
    /// Asks for a later end.
    Extension(Extension) = "extension";
    /// Ends a grant.
    Revocation(Revocation) = "revocation";
    /// Ends one session.
    Termination(Termination) = "termination";
    /// Opens a session.
    Connect(Connect) = "connect";
    /// Emergency access.
    BreakGlass(BreakGlass) = "break-glass";
    /// Closes a break-glass review.
    Review(Review) = "review";
    /// Says what came of comparing a database's own log with this one.
    Reconciliation(Reconciliation) = "reconciliation";
    /// Registers a target. A proposal.
    TargetSet(Target) = "target-set";
    /// Enrols a person. A proposal.
    PersonAdd(PersonAdd) = "person-add";
    /// Adds a key. A proposal.
    KeyAdd(PersonKey) = "key-add";
    /// Takes a key away: by its holder or any one admin, at once.
    KeyRevoke(PersonKey) = "key-revoke";
    /// A person leaves. A proposal.
    Offboard(Offboard) = "offboard";
    /// Registers or withdraws an outside certificate authority. A proposal.
    CaSet(Authority) = "ca-set";
    /// Registers or withdraws a provider of identities. A proposal.
    ProviderSet(Provider) = "provider-set";
    /// Says what one of a provider's observers saw published: at once.
    KeysSeen(KeysSeen) = "keys-seen";
    /// Says whom a provider's subject stands for. A proposal.
    IdentityLink(IdentityLink) = "identity-link";
    /// Takes that back: by the person or any one admin, at once.
    IdentityUnlink(IdentityLink) = "identity-unlink";
    /// Enrols, changes or withdraws a workload. A proposal.
    WorkloadSet(Workload) = "workload-set";
    /// Registers, changes or withdraws a directory. A proposal.
    DirectorySet(Directory) = "directory-set";
    /// Says who is in a directory that speaks by files: by one of its signers, at once.
    DirectoryFile(DirectoryFile) = "directory-file";
    /// Introduces the session key that signs it.
    Login(Box<Login>) = "login";
    /// Ends a session key: by its actor, the workload's owner or any one admin, at once.
    Logout(Logout) = "logout";
    /// Lets an agent act within one's grants.
    Delegation(Delegation) = "delegation";
    /// The agent takes it: signed with the agent's own key.
    Acceptance(Acceptance) = "acceptance";
    /// Ends a delegation and everything under it.
    DelegationRevoke(DelegationRevoke) = "delegation-revoke";
    /// Names the witnesses and what waits for them. A proposal.
    WitnessSet(WitnessSet) = "witness-set";
    /// Which of several fitting grants is meant from now on.
    Use(UseGrant) = "use";
    /// A call that reads.
    Read(Read) = "read";
}

impl Say {
    /// The SSHSIG namespace of this type.
    pub fn namespace(&self) -> String {
        format!("ascribe.{}.v1", self.tag())
    }

    /// Does this take effect only under the administrators' quorum?
    pub fn is_proposal(&self) -> bool {
        matches!(
            self,
            Self::TargetSet(_)
                | Self::PersonAdd(_)
                | Self::KeyAdd(_)
                | Self::Offboard(_)
                | Self::CaSet(_)
                | Self::ProviderSet(_)
                | Self::IdentityLink(_)
                | Self::WorkloadSet(_)
                | Self::WitnessSet(_)
                | Self::DirectorySet(_)
        )
    }
}

/// A statement with its signature, as an entry carries it. Members in canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The SSHSIG blob (the bytes between the armour lines, decoded).
    pub sig: Bytes,
    /// The exact signed bytes.
    pub text: String,
}

impl Signed {
    /// The statement inside. Its signature is checked by the law, not here.
    ///
    /// # Errors
    /// When the text is not a canonical statement.
    pub fn statement(&self) -> Result<Statement, EncodingError> {
        encoding::decode(self.text.as_bytes())
    }

    /// The signature as `ssh-keygen -Y verify` reads it.
    pub fn armoured(&self) -> String {
        let body = encoding::base64_std(&self.sig.0);
        let lines: Vec<&str> = body
            .as_bytes()
            .chunks(70)
            .filter_map(|c| std::str::from_utf8(c).ok())
            .collect();
        format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
            lines.join("\n")
        )
    }
}
