//! The API's messages. One verb does everything: submit a signed statement with the content behind
//! its commitments, and get receipts and an answer. Frames are a 4-byte big-endian length and JSON.

use ascribe_core::attribution::ActionRecord;
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::CloseReason;
use ascribe_core::id::{ActionId, ContentDigest, GrantId, PersonId, Root, SessionId, StatementId};
use ascribe_core::identity::{Fact, Provider};
use ascribe_core::law::Denied;
use ascribe_core::record::Receipt;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Signed, View};
use ascribe_core::time::Timestamp;
use ascribe_core::witness::Demand;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Kind};
use crate::registry::{DelegationRow, GrantRow};
use crate::witness::client::WitnessRow;

/// Largest request, in bytes.
pub(crate) const MAX_REQUEST: usize = 256 * 1024;
/// Largest answer, in bytes.
pub(crate) const MAX_ANSWER: usize = 512 * 1024 * 1024;

/// What a connection to the API's address begins with when it is not TLS: a signed opening by its
/// id, then a line feed, then SSH (`ascribe connect`). TLS begins with another byte.
pub(crate) const OPENING: &str = "ascribe-opening ";

/// The SSHSIG namespace of a caller's proof.
pub(crate) const HELLO: &str = "ascribe.hello.v1";

/// What a caller signs: a value that both ends of this TLS connection have and nobody else
/// (RFC 9266 has the same idea).
///
/// # Errors
/// Before the handshake is complete.
pub(crate) fn hello_text<T>(tls: &rustls::ConnectionCommon<T>) -> Result<Vec<u8>, rustls::Error> {
    let mut text = b"ascribe hello ".to_vec();
    let secret = tls.export_keying_material([0; 32], b"EXPORTER-ascribe-hello", None)?;
    text.extend_from_slice(ascribe_core::encoding::base64url(&secret).as_bytes());
    Ok(text)
}

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Call {
    /// Which log is this, how long is it, and who am I?
    Hello {
        /// Proof of the caller's key: its signature over [`hello_text`] of this connection, in SSHSIG
        /// form. Only who gives it learns whose key it is; on another connection it is worth nothing.
        key: Option<Bytes>,
        /// The size the caller last saw, for a consistency proof.
        seen: Option<u64>,
    },
    /// What is this provider, and whom does it name? Asked before there is a key to sign with.
    Provider(ProviderAsk),
    /// A way to a database: after the reply the connection is the gateway's.
    Tunnel {
        /// The signed opening. It is put on record when the session is asked for: one that is on record
        /// already is anybody's who reads the log.
        signed: Signed,
    },
    /// A signed statement.
    Submit {
        /// The statement.
        signed: Signed,
        /// The content behind its commitments.
        openings: Vec<Opening>,
    },
}

/// What somebody who logs in has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderAsk {
    /// The provider's name; none where there is only one, or where the workload has it.
    pub(crate) provider: Option<String>,
    /// Whom does the provider mean by it?
    pub(crate) subject: Option<ContentDigest>,
    /// The workload that logs in, by name or id.
    pub(crate) workload: Option<String>,
}

/// What the server says to [`Call::Provider`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderView {
    /// The actor that logs in: the workload, or whom the subject is linked to.
    pub(crate) actor: Option<PersonId>,
    /// Names of the claims that the workload's rule looks at.
    pub(crate) facts: Vec<String>,
    /// Groups that directories look for in tokens of this provider, with the claim that lists them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<Fact>,
    /// Claims that directories take for the name of a person's manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) managers: Vec<String>,
    /// The provider.
    pub(crate) provider: Provider,
}

/// What the server says to [`Call::Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    pub(crate) origin: String,
    pub(crate) log_key: String,
    pub(crate) first_entry: String,
    pub(crate) checkpoint: String,
    pub(crate) size: u64,
    pub(crate) root: Root,
    pub(crate) person: Option<PersonId>,
    /// Why the holder of a key that is known may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nobody: Option<Nobody>,
    /// Delegations to the caller's key, where it is no person's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) delegations: Vec<DelegationRow>,
    /// The grants of the caller's jobs, where the caller is a workload, which may read nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) jobs: Vec<GrantRow>,
    /// From the size that the caller last saw.
    pub(crate) consistency: Vec<String>,
    /// Where the SSH gateway listens.
    pub(crate) ssh: String,
    /// The gateway's host key.
    pub(crate) ssh_host_key: String,
    /// The CA of the names of targets behind it.
    pub(crate) ssh_host_ca: String,
    /// The server's clock, milliseconds since the epoch.
    pub(crate) now: i64,
    /// What witnesses have seen, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) witnessed: Option<Witnessed>,
}

/// Why somebody whom a key names may do nothing: suspended, gone, logged out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nobody {
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

/// What witnesses have seen of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Witnessed {
    /// So many entries, by their recorded word.
    pub(crate) size: u64,
    /// By when.
    pub(crate) before: Option<Timestamp>,
    /// When the oldest entry was ordered that they have not seen.
    pub(crate) unseen_since: Option<Timestamp>,
    /// Who must have cosigned.
    pub(crate) quorum: String,
    /// What waits for them.
    pub(crate) demand: Vec<Demand>,
    /// The newest checkpoint that enough of them cosigned since the server started.
    pub(crate) checkpoint: Option<String>,
    /// Each with its last answer; none where the caller is nobody known.
    pub(crate) witnesses: Vec<WitnessRow>,
}

impl Hello {
    /// In whose name the caller signs: their own, or that of the person whose agent they are.
    pub(crate) fn author(&self) -> Option<PersonId> {
        self.person.or(self.delegated().map(|row| row.person))
    }

    /// The delegation that the caller, an agent, has taken.
    pub(crate) fn delegated(&self) -> Option<&DelegationRow> {
        let mut rows = self.delegations.iter();
        rows.find(|row| row.accepted.is_some())
    }
}

/// A receipt on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireReceipt {
    pub(crate) index: u64,
    pub(crate) entry: Bytes,
    pub(crate) proof: Vec<Root>,
    pub(crate) checkpoint: String,
}

impl From<Receipt> for WireReceipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            index: receipt.index,
            entry: Bytes(receipt.entry),
            proof: receipt.proof.into_iter().map(Root).collect(),
            checkpoint: receipt.checkpoint,
        }
    }
}

/// What is read; the exact bytes are what the statement's `query` commits to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Query {
    /// People, targets, requests, grants, sessions: without sealed content other than names.
    Registry,
    /// One request with its justification.
    Request {
        /// Which.
        id: StatementId,
    },
    /// Actions.
    Actions {
        /// Which.
        filter: Box<ascribe_core::attribution::Filter>,
    },
    /// What was refused in sessions.
    Refusals {
        /// Which.
        filter: Box<ascribe_core::attribution::Filter>,
    },
    /// Runs of a maintenance job, as far as nothing of them is sealed.
    Runs {
        /// Its name.
        job: String,
    },
    /// Comparisons of databases' own logs with ours.
    Reconciliations {
        /// This one with its sealed list; all without theirs.
        id: Option<StatementId>,
    },
    /// A transcript.
    Replay {
        /// Of which session.
        session: SessionId,
        /// Of which action; all of the session without.
        action: Option<ActionId>,
    },
    /// A session while it runs. After the answer come frames of [`News`] until it has ended.
    Watch {
        /// Which.
        session: SessionId,
    },
    /// A bundle.
    Export {
        /// Of which session.
        session: SessionId,
    },
}

impl Query {
    /// What a read statement must say in the clear for this query: the law decides on that.
    pub(crate) fn shape(&self) -> (View, Option<SessionId>, Option<StatementId>) {
        match self {
            // Nothing of either is sealed. Who may see runs is decided where they are gathered.
            Self::Registry | Self::Runs { .. } => (View::Registry, None, None),
            Self::Request { id } => (View::Request, None, Some(*id)),
            Self::Actions { filter } | Self::Refusals { filter } => {
                (View::Actions, filter.session, None)
            }
            Self::Reconciliations { .. } => (View::Actions, None, None),
            Self::Replay { session, .. } => (View::Replay, Some(*session), None),
            Self::Watch { session } => (View::Watch, Some(*session), None),
            Self::Export { session } => (View::Export, Some(*session), None),
        }
    }
}

/// A run of a job: a session under its grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRow {
    pub(crate) session: SessionId,
    pub(crate) begun: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) grant: GrantId,
    /// Who ran it: the workload's name.
    pub(crate) who: String,
    /// The run's id at its provider.
    pub(crate) run: Option<String>,
    /// Statements that were sent to the database.
    pub(crate) statements: usize,
    /// Statements of the script that succeeded, of so many.
    pub(crate) steps: usize,
    pub(crate) of: usize,
    pub(crate) rows: u64,
    /// How many were refused.
    pub(crate) refused: usize,
    /// `succeeded`, `partial`, `refused`, `failed`, `unknown` or `running`.
    pub(crate) status: String,
}

/// What is new in a watched session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct News {
    /// Actions that were recorded.
    pub(crate) actions: Vec<ActionRecord>,
    /// What passed.
    pub(crate) chunks: Vec<ShownChunk>,
    /// Why the session ended, once it has.
    pub(crate) ended: Option<CloseReason>,
}

/// A piece of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShownChunk {
    pub(crate) action: ActionId,
    pub(crate) stream: String,
    /// Milliseconds since the session's first action.
    pub(crate) after_ms: u64,
    /// None where they are withheld, erased or missing.
    pub(crate) bytes: Option<Bytes>,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// To a hello.
    Hello(Box<Hello>),
    /// To somebody who is about to log in.
    Provider(Box<ProviderView>),
    /// To a submitted statement.
    Done {
        /// The statement's receipt; none for a read that is not recorded.
        receipt: Option<WireReceipt>,
        /// What a read reads, or what followed.
        answer: serde_json::Value,
    },
    /// It was not done.
    Refused {
        /// `denied`, `invalid` or `failure`.
        kind: String,
        /// Stable code.
        code: String,
        /// Why.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl Reply {
    pub(crate) fn denied(denied: &Denied) -> Self {
        Self::Refused {
            kind: "denied".into(),
            code: denied.code.into(),
            message: denied.message.clone(),
            help: denied.help.clone(),
        }
    }
    pub(crate) fn failure(kind: &str, code: &str, message: impl Into<String>) -> Self {
        Self::Refused {
            kind: kind.into(),
            code: code.into(),
            message: message.into(),
            help: None,
        }
    }
    /// The success, or the refusal as a failure.
    pub(crate) fn ok(self) -> Result<Self, Failure> {
        match self {
            Self::Refused {
                kind,
                message,
                help,
                ..
            } => {
                let kind = match kind.as_str() {
                    "denied" => Kind::Denied,
                    "invalid" => Kind::Usage,
                    _ => Kind::Failure,
                };
                Err(Failure {
                    kind,
                    message,
                    help,
                })
            }
            other @ (Self::Hello(_) | Self::Provider(_) | Self::Done { .. }) => Ok(other),
        }
    }
}
