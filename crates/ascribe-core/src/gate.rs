//! The gate: a privileged action becomes sendable only by walking
//! `Action -> Authorized -> Recorded -> Outcome`, by value.
//!
//! [`Authorized`] and [`Recorded`] have private fields, cannot be cloned, and are made only here.
//! [`Authorized::recorded`] checks the receipt's inclusion proof and the log's signature itself,
//! so nothing is sent on the word of whoever answered.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use ascribe_tlog::{Checkpoint, VerifierKey, leaf_hash, verify_inclusion};

use crate::database::{SqlIntent, Step};
use crate::encoding::{self, EncodingError};
use crate::entry::{Body, Entry, Intent, Pty};
use crate::id::{ActionId, EntryHash, EntryId, SessionId};
use crate::record::{Proposal, Receipt, Scope, Standing};
use crate::sealed::Opening;
use crate::time::Timestamp;

/// A recorded action must be sent within this many milliseconds, or not at all.
pub const FORWARD_WITHIN_MS: u64 = 2_000;

/// A parsed privileged action, exactly as it will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Random.
    pub action: ActionId,
    /// In which session.
    pub session: SessionId,
    /// `ssh.exec`, `ssh.shell`, `ssh.sftp`, `sftp.open`, ...
    pub kind: &'static str,
    /// The exact command bytes, where there are any.
    pub command: Option<Vec<u8>>,
    /// The environment asked for, in order.
    pub env: Vec<(String, String)>,
    /// The terminal asked for.
    pub pty: Option<Pty>,
    /// What of the client's its programs may use: `agent`, `x11`.
    pub lends: Vec<String>,
    /// The action that it is a part of.
    pub within: Option<ActionId>,
    /// What kind of statement it is, of a database.
    pub sql: Option<Sql>,
}

/// What is said of a statement; see [`SqlIntent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// Its classes.
    pub classes: Vec<String>,
    /// Its flags.
    pub flags: Vec<String>,
    /// What it names, where the grant bounds that.
    pub objects: Vec<String>,
    /// Of a connection: the port that it is to come from.
    pub port: Option<u16>,
    /// Which statement of an approved script it is.
    pub step: Option<Step>,
    /// What is kept of its values.
    pub values: Option<Vec<u8>>,
}

/// Random values that the gate needs, drawn by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Salts {
    /// For the command.
    pub command: [u8; 32],
    /// For the environment.
    pub env: [u8; 32],
    /// For a statement's values.
    pub values: [u8; 32],
    /// For the entry.
    pub entry: [u8; 16],
}

/// Why the gate stays shut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The session ended before the action.
    #[error("the session has ended")]
    Ended,
    /// The action cannot be written as an entry.
    #[error("the action has no canonical form: {0}")]
    Form(String),
    /// The receipt is for something else, or proves nothing.
    #[error("the ledger's receipt does not prove this action: {0}")]
    Receipt(&'static str),
}

/// Checkpoints that are remembered: those of batches whose receipts are looked at side by side.
const CHECKED: usize = 8;

/// The log whose receipts count. Receipts of one batch have the same checkpoint, so those whose
/// signatures were checked last are remembered.
#[derive(Debug)]
pub struct Log {
    key: VerifierKey,
    /// The newest at the end.
    checked: Mutex<VecDeque<(String, Checkpoint)>>,
}

impl Log {
    /// The log with this key.
    pub fn new(key: VerifierKey) -> Self {
        Self {
            key,
            checked: Mutex::default(),
        }
    }

    fn checkpoint(&self, note: &str) -> Result<Checkpoint, GateError> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, checkpoint)) = checked.iter().rev().find(|(known, _)| known == note) {
            return Ok(checkpoint.clone());
        }
        let checkpoint = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&self.key))
            .map_err(|_| GateError::Receipt("checkpoint not signed by the log"))?;
        if checked.len() == CHECKED {
            checked.pop_front();
        }
        checked.push_back((note.to_owned(), checkpoint.clone()));
        Ok(checkpoint)
    }
}

/// An action that the local pre-check did not refuse. It cannot be sent yet.
#[must_use = "an authorized action does nothing until it is recorded"]
#[derive(Debug)]
pub struct Authorized {
    action: Action,
    id: EntryId,
    writer: String,
    /// The canonical form of the intent, as a body.
    body: Vec<u8>,
    until: Timestamp,
}

/// An action whose intent is durable. The only thing that can be sent.
#[must_use = "a recorded action must be sent or reported as not sent"]
#[derive(Debug)]
pub struct Recorded {
    action: Action,
    entry: EntryHash,
    index: u64,
    at: Timestamp,
    until: Timestamp,
}

/// The environment's bytes, as they are committed to: `NAME=value` and a zero byte each.
pub fn env_bytes(env: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in env {
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    }
    out
}

impl Authorized {
    /// The local pre-check, and what to give to the recorder. It can only refuse; the receipt alone
    /// allows.
    ///
    /// # Errors
    /// [`GateError::Ended`] when the session's grant no longer holds, [`GateError::Form`] for what cannot
    /// be an entry.
    pub fn check(
        action: Action,
        writer: &str,
        standing: Standing,
        now: Timestamp,
        salts: Salts,
    ) -> Result<(Self, Proposal), GateError> {
        let until = match standing {
            Standing::Until(until) if now < until => until,
            Standing::Until(_) | Standing::Ended(_) => return Err(GateError::Ended),
        };
        let mut openings = Vec::new();
        let mut seal = |field: &str, salt, bytes| {
            let opening = Opening::new(field, salt, bytes);
            let commitment = opening.commitment();
            openings.push(opening);
            commitment
        };
        let command = action
            .command
            .clone()
            .map(|c| seal("command", salts.command, c));
        let env = (!action.env.is_empty()).then(|| seal("env", salts.env, env_bytes(&action.env)));
        let sql = action.sql.as_ref().map(|sql| SqlIntent {
            classes: sql.classes.clone(),
            flags: sql.flags.clone(),
            objects: sql.objects.clone(),
            port: sql.port,
            step: sql.step,
            values: sql.values.clone().map(|v| seal("values", salts.values, v)),
        });
        let intent = Intent {
            action: action.action,
            session: action.session,
            sql,
            kind: action.kind.to_owned(),
            command,
            env,
            lends: action.lends.clone(),
            pty: action.pty.clone(),
            forward_within_ms: FORWARD_WITHIN_MS,
            within: action.within,
        };
        let proposal = Proposal {
            id: EntryId::new(salts.entry),
            writer: writer.to_owned(),
            body: Body::Intent(intent),
            openings,
            scope: Scope::Session(action.session),
        };
        let authorized = Self {
            action,
            id: proposal.id,
            writer: proposal.writer.clone(),
            body: encoding::encode(&proposal.body)
                .map_err(|error: EncodingError| GateError::Form(error.to_string()))?,
            until,
        };
        Ok((authorized, proposal))
    }

    /// Opens the gate, if the receipt proves that exactly this intent is in the log.
    ///
    /// # Errors
    /// [`GateError::Receipt`] when it does not.
    pub fn recorded(self, receipt: &Receipt, log: &Log) -> Result<Recorded, GateError> {
        let frame = Entry::frame_of(&receipt.entry, self.id, &self.body);
        let Some(frame) = frame.filter(|frame| frame.writer == self.writer) else {
            return Err(GateError::Receipt(
                match Entry::from_bytes(&receipt.entry) {
                    Ok(_) => "another entry",
                    Err(_) => "not an entry",
                },
            ));
        };
        let checkpoint = log.checkpoint(&receipt.checkpoint)?;
        if checkpoint.origin != frame.log {
            return Err(GateError::Receipt("another log"));
        }
        let leaf = leaf_hash(&receipt.entry);
        verify_inclusion(
            &leaf,
            receipt.index,
            checkpoint.size,
            &receipt.proof,
            &checkpoint.root,
        )
        .map_err(|_| GateError::Receipt("inclusion proof fails"))?;
        Ok(Recorded {
            action: self.action,
            entry: EntryHash(leaf),
            index: receipt.index,
            at: frame.at,
            until: self.until,
        })
    }
}

impl Recorded {
    /// The action, given up for sending. Each protocol has one function that calls this, right
    /// before it writes to the target.
    pub fn into_action(self) -> Action {
        self.action
    }
    /// In which session.
    pub fn session(&self) -> SessionId {
        self.action.session
    }
    /// Which action.
    pub fn id(&self) -> ActionId {
        self.action.action
    }
    /// The intent's entry.
    pub fn entry(&self) -> (EntryHash, u64) {
        (self.entry, self.index)
    }
    /// When it was ordered.
    pub fn at(&self) -> Timestamp {
        self.at
    }
    /// When the grant ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }
}
