//! What the relay is told to do with what a client says.

use std::sync::Arc;

use bytes::Bytes;

use super::super::client::{Message, Text, Values};
use super::Portal;

/// A message that was handed in, counted from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

/// What is to be recorded before it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its number.
    pub number: Number,
    /// What it runs.
    pub runs: Runs,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// A text of one or several statements.
    Query(Text),
    /// A portal, as it was when it was bound.
    Portal {
        /// The portal.
        portal: Arc<Portal>,
        /// As many rows at most; 0 is no limit.
        max_rows: u32,
    },
    /// This portal, unless SQL that ran since has put another in its place.
    DoubtfulPortal {
        /// The portal.
        portal: Arc<Portal>,
        /// As many rows at most; 0 is no limit.
        max_rows: u32,
    },
    /// A portal that no Bind of this session made: a cursor of SQL, or one of messages so entangled that they
    /// were not followed.
    UnknownPortal {
        /// Its name.
        name: Bytes,
        /// As many rows at most; 0 is no limit.
        max_rows: u32,
    },
    /// A function.
    Function {
        /// Its OID.
        function: u32,
        /// Its arguments.
        arguments: Values,
    },
}

/// What to do with a message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing is run by it: forward it in its place.
    Forward(Number),
    /// Record it, then forward it in its place; or [deny](super::Tracker::deny) it.
    Record(Executed),
    /// Forward it: it belongs to what this statement copies.
    Copy(Number),
    /// It must not be forwarded: [deny](super::Tracker::deny) it.
    Refuse(Number, Refusal),
    /// Do not forward it: the server would throw it away.
    Drop,
    /// Hand it in again when the server has said more. It is handed back, except copied data.
    Wait(Option<Message>),
}

/// Why a message must be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name might be taken for another one.
    #[error("names of statements and portals have up to 63 ASCII characters")]
    Name,
    /// Too many, or too large ones.
    #[error(
        "too many prepared statements, or too long ones; close those that are not needed any more"
    )]
    Statements,
    /// Too many, or too large ones.
    #[error("too many portals, or too large ones; close those that are not needed any more")]
    Portals,
}

/// Why a session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The server said something that answers nothing.
    #[error("the server sent {said} where {awaited} was to come")]
    Unexpected {
        /// What it said.
        said: &'static str,
        /// What was awaited.
        awaited: &'static str,
    },
    /// The client sent something else than copied data.
    #[error("a message that is not allowed while data is copied to the server")]
    DuringCopy,
    /// A message with the given number is not to be denied.
    #[error("a message was denied that was never handed in, or that cannot be denied")]
    Deny,
}

/// What is forwarded in place of a denied message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Denied {
    /// To be forwarded instead. Empty where the server throws the message away anyway.
    pub instead: Bytes,
    /// What was to be recorded behind it and is now not to be forwarded, with all else of its group up to the
    /// Sync. A Flush may be forwarded.
    pub dropped: Vec<Number>,
    /// Everything up to the next Sync goes with it.
    pub whole_group: bool,
}
