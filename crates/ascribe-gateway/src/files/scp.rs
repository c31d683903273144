//! The classic scp protocol: each file and each directory is an action.

use ascribe_core::entry::{Outcome, Status};
use ascribe_core::id::ActionId;
use ascribe_wire::scp::{Asked, Direction, Scp, Sink, Source};
use bytes::Bytes;

use super::digest::Flow;
use super::{Digests, From, Operation, Step, Tracker, outcome};

/// What is on its way.
struct Current {
    action: ActionId,
    flow: Flow,
    failed: bool,
}

/// One transfer.
pub(super) struct Copy {
    scp: Scp,
    direction: Direction,
    current: Option<Current>,
    ended: Vec<Outcome>,
    digests: Digests,
}

impl Copy {
    /// `cap` is up to where all that passes is digested in the stream itself.
    pub(super) fn new(direction: Direction, cap: u64) -> Self {
        Self {
            scp: Scp::new(direction),
            direction,
            current: None,
            ended: Vec::new(),
            digests: Digests::new(cap),
        }
    }

    fn is_source(&self, from: From) -> bool {
        (self.direction == Direction::ToTarget) == (from == From::Client)
    }

    /// The end of what is on its way.
    fn end(&mut self, status: Status) {
        let Some(current) = self.current.take() else {
            return;
        };
        let stream = match self.direction {
            Direction::ToTarget => "written",
            Direction::FromTarget => "read",
        };
        let status = if current.failed {
            Status::Failed
        } else {
            status
        };
        self.ended.push(Outcome {
            streams: current.flow.total(stream, &mut 0).into_iter().collect(),
            ..outcome(current.action, status)
        });
    }

    fn source(&mut self, from: From) -> Result<Step, String> {
        loop {
            let next = self.scp.next_source().map_err(|error| error.to_string())?;
            let in_file = matches!(next, Some(Source::Data(_))) && self.current.is_some();
            self.digests.take(from, &mut self.scp.source, in_file);
            match next {
                None => return Ok(Step::Forward(self.scp.source.ready())),
                Some(Source::Wait) => return Ok(Step::Wait(self.scp.source.ready())),
                Some(Source::Transfer(transfer)) => {
                    let earlier = self.scp.source.earlier();
                    let operation = Operation {
                        kind: transfer.kind,
                        text: transfer.text(),
                        packet: self.scp.source.ready(),
                    };
                    return Ok(Step::Operate(earlier, operation));
                }
                Some(Source::Data(bytes)) => {
                    if let Some(current) = &mut self.current {
                        let next = current.flow.next();
                        current.flow.take(next, &bytes, &mut 0);
                    }
                }
                Some(Source::Done(whole)) => {
                    if let Some(current) = &mut self.current {
                        current.failed |= !whole;
                    }
                }
                Some(Source::Times | Source::End | Source::Error) => {}
            }
        }
    }

    fn sink(&mut self, from: From) -> Result<Step, String> {
        while let Some(next) = self.scp.next_sink().map_err(|error| error.to_string())? {
            self.digests.take(from, &mut self.scp.sink, false);
            let Sink::Answer(asked, good) = next else {
                continue;
            };
            match (asked, good) {
                (Asked::Directory | Asked::Done, true) => self.end(Status::Succeeded),
                (Asked::File(_) | Asked::Directory | Asked::Done, false) => {
                    self.end(Status::Failed);
                }
                _ => {}
            }
        }
        Ok(Step::Forward(self.scp.sink.ready()))
    }
}

impl Tracker for Copy {
    fn push(&mut self, from: From, bytes: Bytes) {
        if self.is_source(from) {
            self.scp.source.push(bytes);
        } else {
            self.scp.sink.push(bytes);
        }
    }

    fn step(&mut self, from: From) -> Result<Step, String> {
        if self.is_source(from) {
            self.source(from)
        } else {
            self.sink(from)
        }
    }

    fn sent(&mut self, action: ActionId) {
        self.current = Some(Current {
            action,
            flow: Flow::default(),
            failed: false,
        });
    }

    fn ended(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.ended)
    }

    fn finish(&mut self) -> Vec<Outcome> {
        self.end(Status::Unknown);
        self.ended()
    }

    fn digests(&mut self) -> Digests {
        for from in [From::Client, From::Target] {
            let bytes = if self.is_source(from) {
                &self.scp.source
            } else {
                &self.scp.sink
            };
            self.digests.take_rest(from, bytes);
        }
        std::mem::replace(&mut self.digests, Digests::new(0))
    }
}
