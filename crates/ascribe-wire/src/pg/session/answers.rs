//! Which answer of the server is whose.

use bytes::Bytes;

use super::super::client::Named;
use super::super::server::{Message, Passing, Report, Status};
use super::{Awaits, Copying, Number, Pending, SessionError, Tracker};

/// What to do with a message of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Pass it on.
    #[default]
    Forward,
    /// Pass this on in its place.
    Replace(Bytes),
}

/// What a message of the server means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcomes {
    /// What to do with it.
    pub turn: Turn,
    /// What became of what was executed, in order.
    pub events: Vec<Event>,
    /// The server is ready, with a transaction in this state.
    pub ready: Option<Status>,
    /// A group has failed before its end: what was done in it before has no effect, outside of explicit transactions.
    pub failed: bool,
}

/// Something about what was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub number: Number,
    /// What about it.
    pub what: What,
}

/// What became of something. What is recorded has one [`What::End`], unless it is denied or the
/// connection is lost before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A statement of it is done; a query can have several. That is not to say that it is committed.
    Done(Done),
    /// Nothing more comes of it.
    End(End),
    /// The end of a group has failed: what was done in it since `after`, outside of explicit transactions, has no
    /// effect. The number is that of the Sync.
    GroupFailed {
        /// The Sync before.
        after: Number,
        /// Why.
        why: Report,
    },
}

/// A statement that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// How.
    pub how: How,
    /// Rows that the server sent, or messages of copied data in either direction.
    pub rows: u64,
    /// Their bytes, with types and lengths of messages.
    pub bytes: u64,
}

/// How a statement is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Completed, with this tag, and the rows that it tells.
    Complete {
        /// The tag.
        tag: Bytes,
        /// Rows returned, changed or copied.
        rows: Option<u64>,
    },
    /// The limit of rows was reached; the portal can be run again.
    Suspended,
    /// The text was empty.
    Empty,
    /// A function has returned.
    Returned,
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With success.
    Completed,
    /// With this error.
    Failed(Report),
    /// The server threw it away, since something before it in its group had failed.
    Skipped,
}

impl Tracker {
    /// Takes a message of the server: what it is, and how many bytes it or its run has.
    ///
    /// # Errors
    /// When it answers nothing. The session cannot go on, and it must not be passed on.
    pub fn server(&mut self, message: &Message, bytes: usize) -> Result<Outcomes, SessionError> {
        let mut out = Outcomes::default();
        match message {
            Message::Notice(_)
            | Message::ParameterStatus(..)
            | Message::Pass(Passing::Notification, _) => return Ok(out),
            // More of what was let through.
            Message::Pass(passing, 0) => self.count(*passing, 0, bytes),
            Message::ReadyForQuery(status) => self.ready(*status, &mut out)?,
            Message::Error(report) => self.error(report, &mut out)?,
            _ => self.answer(message, bytes, &mut out)?,
        }
        Ok(out)
    }

    /// The first of what is pending that is not a Sync that copying may have read over.
    fn front(&mut self) -> Option<&mut Pending> {
        while self.spare > 0 && self.pending.len() > 1 {
            match self.pending.front() {
                Some(first) if matches!(first.awaits, Awaits::Sync) => {
                    self.spare -= 1;
                    self.pop();
                }
                _ => break,
            }
        }
        self.pending.front_mut()
    }

    fn pop(&mut self) -> Option<Pending> {
        let one = self.pending.pop_front()?;
        self.recorded -= usize::from(one.awaits.is_recorded());
        Some(one)
    }

    fn count(&mut self, passing: Passing, begun: u64, bytes: usize) {
        if matches!(passing, Passing::DataRow | Passing::CopyData) {
            self.rows = self.rows.saturating_add(begun);
            self.bytes = self.bytes.saturating_add(bytes as u64);
        }
    }

    fn done(&mut self, how: How) -> What {
        let rows = std::mem::take(&mut self.rows);
        let bytes = std::mem::take(&mut self.bytes);
        What::Done(Done { how, rows, bytes })
    }

    /// An answer that is neither an error nor the end of a group.
    fn answer(
        &mut self,
        message: &Message,
        bytes: usize,
        out: &mut Outcomes,
    ) -> Result<(), SessionError> {
        let Some(first) = self.front() else {
            return unexpected(message, "nothing");
        };
        let number = first.number;
        let awaited = awaited(&first.awaits);
        match (&mut first.awaits, message) {
            (Awaits::Parse(_), Message::ParseComplete)
            | (Awaits::Bind(_), Message::BindComplete) => {
                if first.told {
                    let what = What::End(End::Completed);
                    out.events.push(Event { number, what });
                }
                self.succeed();
            }
            (Awaits::Close(..), Message::CloseComplete)
            | (Awaits::Describe { .. }, Message::NoData) => self.succeed(),
            (
                Awaits::Describe(Named::Statement),
                Message::Pass(Passing::ParameterDescription, 1),
            ) => {}
            // Answers to several in a row can come in one run.
            (Awaits::Describe(_), Message::Pass(Passing::RowDescription, begun)) => {
                for _ in 0..*begun {
                    match self.pending.front().map(|first| &first.awaits) {
                        Some(Awaits::Describe(_)) => self.succeed(),
                        Some(Awaits::Query { failed: false }) => {}
                        _ => return unexpected(message, awaited),
                    }
                }
            }
            (Awaits::Execute | Awaits::Query { failed: false }, _) => {
                return self.running(message, bytes, number, out);
            }
            (Awaits::Function { failed: false }, Message::Pass(Passing::FunctionResult, 1)) => {
                let what = self.done(How::Returned);
                out.events.push(Event { number, what });
            }
            _ => return unexpected(message, awaited),
        }
        Ok(())
    }

    /// The first of what is pending has done what it asks for.
    fn succeed(&mut self) {
        if let Some(one) = self.pop() {
            self.confirm(one.number, &one.awaits);
        }
    }

    /// An answer to what is run: a portal or a query.
    fn running(
        &mut self,
        message: &Message,
        bytes: usize,
        number: Number,
        out: &mut Outcomes,
    ) -> Result<(), SessionError> {
        let is_query = self
            .pending
            .front()
            .is_some_and(|first| matches!(first.awaits, Awaits::Query { .. }));
        let how = match message {
            Message::Pass(Passing::RowDescription, _) if is_query => return Ok(()),
            Message::Pass(Passing::DataRow, begun) if !self.is_copying() => {
                self.count(Passing::DataRow, *begun, bytes);
                return Ok(());
            }
            Message::Pass(Passing::CopyData, begun) if self.is_copying_out() => {
                self.count(Passing::CopyData, *begun, bytes);
                return Ok(());
            }
            Message::CopyIn | Message::CopyBoth if self.copying.is_none() => {
                return self.copy(message);
            }
            Message::CopyOut if self.copying.is_none_or(Copying::is_sent) => {
                return self.copy(message);
            }
            // Results, or more to copy, can follow in a replication connection.
            Message::CopyDone if self.is_copying_out() => {
                if let Some(copying) = &mut self.copying {
                    copying.from_server = false;
                }
                return Ok(());
            }
            Message::CommandComplete { tag, rows } if !self.is_copying() => How::Complete {
                tag: tag.clone(),
                rows: *rows,
            },
            Message::EmptyQuery if !self.is_copying() => How::Empty,
            Message::PortalSuspended if !is_query && !self.is_copying() => How::Suspended,
            _ => return unexpected(message, "the outcome of a statement"),
        };
        self.copying = None;
        let what = self.done(how);
        out.events.push(Event { number, what });
        if !is_query {
            self.pop();
            let what = What::End(End::Completed);
            out.events.push(Event { number, what });
        }
        Ok(())
    }

    /// Copied data is awaited from either side.
    fn is_copying(&self) -> bool {
        self.is_copying_in() || self.is_copying_out()
    }

    fn is_copying_out(&self) -> bool {
        self.copying.is_some_and(|copying| copying.from_server)
    }

    /// Data is copied from now on.
    fn copy(&mut self, message: &Message) -> Result<(), SessionError> {
        let mut copying = Copying {
            from_client: !matches!(message, Message::CopyOut),
            from_server: !matches!(message, Message::CopyIn),
            client_ended: false,
            syncs: 0,
        };
        if copying.from_client {
            // What was sent before the client knew: the server reads over Syncs, and fails at all else.
            let mut behind = self.pending.iter().skip(1);
            if behind.any(|one| !matches!(one.awaits, Awaits::Sync)) {
                return Err(SessionError::DuringCopy);
            }
            copying.syncs = self.pending.len().saturating_sub(1);
            self.pending.truncate(1);
        }
        self.copying = Some(copying);
        Ok(())
    }

    fn ready(&mut self, status: Status, out: &mut Outcomes) -> Result<(), SessionError> {
        let message = Message::ReadyForQuery(status);
        let Some(one) = self.pending.front() else {
            return unexpected(&message, "nothing");
        };
        match one.awaits {
            Awaits::Sync => self.synced = one.number,
            Awaits::Query { failed } if !self.is_copying() => {
                self.end_unless(failed, out);
            }
            Awaits::Function { failed } => self.end_unless(failed, out),
            Awaits::Denied {
                simple: true,
                told: true,
                ..
            } => {}
            ref other => return unexpected(&message, awaited(other)),
        }
        self.succeed();
        self.unclear = false;
        let is_sync = |one: &&Pending| matches!(one.awaits, Awaits::Sync);
        if self.spare > 0 {
            let syncs = self.pending.iter().take_while(is_sync).count();
            self.spare = self.spare.min(syncs);
        }
        if status == Status::Idle {
            // No portal outlives its transaction.
            self.names.portals.clear();
        }
        (self.rows, self.bytes) = (0, 0);
        self.status = status;
        out.ready = Some(status);
        Ok(())
    }

    /// The first of what is pending is over.
    fn end_unless(&self, failed: bool, out: &mut Outcomes) {
        if let (Some(one), false) = (self.pending.front(), failed) {
            let (number, what) = (one.number, What::End(End::Completed));
            out.events.push(Event { number, what });
        }
    }

    fn error(&mut self, report: &Report, out: &mut Outcomes) -> Result<(), SessionError> {
        let copying = self.copying.take();
        (self.rows, self.bytes) = (0, 0);
        let Some(first) = self.front() else {
            // The server ends the connection by itself.
            return match report.is_fatal() {
                true => Ok(()),
                false => unexpected(&Message::Error(report.clone()), "nothing"),
            };
        };
        let number = first.number;
        out.failed = !matches!(first.awaits, Awaits::Sync);
        let failed = What::End(End::Failed(report.clone()));
        match &mut first.awaits {
            Awaits::Query { failed: told } | Awaits::Function { failed: told } => {
                if !std::mem::replace(told, true) {
                    let what = failed;
                    out.events.push(Event { number, what });
                }
                self.copy_failed(copying, 1);
                return Ok(());
            }
            Awaits::Denied { reply, told, .. } if report.is_fatal() => {
                drop(std::mem::take(reply));
                *told = true;
                return Ok(());
            }
            Awaits::Denied {
                reply,
                simple,
                told,
            } => {
                if !std::mem::replace(told, true) {
                    out.turn = Turn::Replace(std::mem::take(reply));
                }
                if *simple {
                    return Ok(());
                }
            }
            Awaits::Sync => {
                let (after, why) = (self.synced, report.clone());
                let what = What::GroupFailed { after, why };
                out.events.push(Event { number, what });
                return Ok(());
            }
            Awaits::Execute => {
                let what = failed;
                out.events.push(Event { number, what });
            }
            Awaits::Parse(_) | Awaits::Bind(_) if first.told => {
                let what = failed;
                out.events.push(Event { number, what });
            }
            Awaits::Parse(_) | Awaits::Bind(_) | Awaits::Describe(_) | Awaits::Close(..) => {}
            Awaits::Refuse => {
                return unexpected(&Message::Error(report.clone()), "nothing");
            }
        }
        if let Some(one) = self.pop() {
            self.forget(one.number, &one.awaits);
        }
        self.copy_failed(copying, 0);
        self.skip(out);
        Ok(())
    }

    /// Copying from the client has failed. Syncs that came before its end may have been read over, or
    /// not: they are pending again, behind so many others, and any of them may stay so.
    fn copy_failed(&mut self, copying: Option<Copying>, behind: usize) {
        let syncs = copying.map_or(0, |copying| copying.syncs);
        if syncs == 0 {
            return;
        }
        // INVARIANT: behind these there is nothing but Syncs, for everything else has waited.
        let number = self.pending.front().map_or(self.last, |one| one.number);
        for _ in 0..syncs {
            let sync = Pending {
                number,
                awaits: Awaits::Sync,
                told: false,
            };
            self.pending.insert(behind.min(self.pending.len()), sync);
        }
        self.spare = syncs;
        self.unclear = true;
    }

    /// The server throws away the rest of the group.
    fn skip(&mut self, out: &mut Outcomes) {
        while let Some(one) = self.pending.front() {
            if matches!(one.awaits, Awaits::Sync) {
                return;
            }
            let Some(one) = self.pop() else { return };
            self.forget(one.number, &one.awaits);
            if one.told || one.awaits.is_recorded() {
                let (number, what) = (one.number, What::End(End::Skipped));
                out.events.push(Event { number, what });
            }
        }
        self.dropping = true;
    }
}

/// What is awaited, for who reads the error.
fn awaited(awaits: &Awaits) -> &'static str {
    match awaits {
        Awaits::Parse(_) => "ParseComplete",
        Awaits::Bind(_) => "BindComplete",
        Awaits::Describe(_) => "a description",
        Awaits::Close(..) => "CloseComplete",
        Awaits::Execute => "the outcome of a portal",
        Awaits::Query { .. } => "the outcome of a query",
        Awaits::Function { .. } => "the outcome of a function",
        Awaits::Sync => "ReadyForQuery",
        Awaits::Refuse | Awaits::Denied { .. } => "an error",
    }
}

fn unexpected<T>(message: &Message, awaited: &'static str) -> Result<T, SessionError> {
    let said = match message {
        Message::Authentication(_) => "a request to log in",
        Message::ParameterStatus(..) => "ParameterStatus",
        Message::BackendKeyData(..) => "BackendKeyData",
        Message::ReadyForQuery(_) => "ReadyForQuery",
        Message::CommandComplete { .. } => "CommandComplete",
        Message::Error(_) => "an error",
        Message::Notice(_) => "a notice",
        Message::ParseComplete => "ParseComplete",
        Message::BindComplete => "BindComplete",
        Message::CloseComplete => "CloseComplete",
        Message::NoData => "NoData",
        Message::PortalSuspended => "PortalSuspended",
        Message::EmptyQuery => "EmptyQueryResponse",
        Message::CopyIn => "CopyInResponse",
        Message::CopyOut => "CopyOutResponse",
        Message::CopyBoth => "CopyBothResponse",
        Message::CopyDone => "CopyDone",
        Message::Negotiate { .. } => "NegotiateProtocolVersion",
        Message::Pass(Passing::RowDescription, _) => "RowDescription",
        Message::Pass(Passing::DataRow, _) => "DataRow",
        Message::Pass(Passing::ParameterDescription, _) => "ParameterDescription",
        Message::Pass(Passing::FunctionResult, _) => "FunctionCallResponse",
        Message::Pass(Passing::CopyData, _) => "CopyData",
        Message::Pass(Passing::Notification, _) => "NotificationResponse",
    };
    Err(SessionError::Unexpected { said, awaited })
}
