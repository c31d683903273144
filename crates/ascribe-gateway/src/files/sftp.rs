//! SFTP: which requests are under way, and what is open.

use std::collections::HashMap;

use ascribe_core::entry::{Outcome, Status};
use ascribe_core::id::ActionId;
use ascribe_wire::sftp::{
    EOF, OK, Operation as Packet, Replies, Reply, Request, Requests, VERSION,
};
use bytes::Bytes;

use super::digest::{Flow, WINDOW};
use super::{Digests, From, Operation, Step, Tracker, outcome};

/// Handles that may be open, and requests that may be under way.
const MAX_OPEN: usize = 1024;
const MAX_ASKED: usize = 1024;

/// A request that has no reply yet.
#[derive(Debug)]
enum Asked {
    /// A question.
    Nothing,
    /// An operation that is done when it is answered.
    Operation(ActionId),
    /// An operation that opens something.
    Open(ActionId, Opens),
    Read {
        file: u64,
        offset: u64,
        length: u32,
    },
    Write {
        file: u64,
    },
    Close {
        file: u64,
    },
}

/// What an operation opens.
#[derive(Debug, Clone)]
struct Opens {
    path: Vec<u8>,
    append: bool,
}

/// Something that is open.
#[derive(Debug)]
struct Open {
    action: ActionId,
    path: Vec<u8>,
    read: Flow,
    written: Flow,
    /// Reads, writes and closes that have no reply yet.
    asked: usize,
    failed: bool,
    closed: bool,
}

/// One transfer.
pub(super) struct Sftp {
    requests: Requests,
    replies: Replies,
    greeted: bool,
    agreed: bool,
    asked: HashMap<u32, Asked>,
    /// Requests among them that open something.
    opening: usize,
    handles: HashMap<Vec<u8>, u64>,
    files: HashMap<u64, Open>,
    /// Names the next file.
    count: u64,
    /// What may still wait for bytes before it.
    room: usize,
    /// Where the bytes of the write go that comes in: file, offset.
    writing: Option<(u64, u64)>,
    /// Where the bytes of the reply come from that comes in: file, offset, bytes left.
    reading: Option<(u64, u64, u32)>,
    /// The operation that is being recorded.
    next: Option<(u32, Option<Opens>)>,
    ended: Vec<Outcome>,
    digests: Digests,
}

impl Sftp {
    /// `cap` is up to where all that passes is digested in the stream itself.
    pub(super) fn new(cap: u64) -> Self {
        Self {
            requests: Requests::default(),
            replies: Replies::default(),
            greeted: false,
            agreed: false,
            asked: HashMap::new(),
            opening: 0,
            handles: HashMap::new(),
            files: HashMap::new(),
            count: 0,
            room: WINDOW,
            writing: None,
            reading: None,
            next: None,
            ended: Vec::new(),
            digests: Digests::new(cap),
        }
    }
}

fn wrong<T>(text: &str) -> Result<T, String> {
    Err(text.to_owned())
}

impl Sftp {
    /// May a request with this id go out?
    fn check(&self, id: u32) -> Result<(), String> {
        if !self.agreed {
            return wrong("an SFTP request before the version is agreed on");
        }
        if self.asked.len() >= MAX_ASKED {
            return wrong("more than 1,024 SFTP requests without a reply");
        }
        if self.asked.contains_key(&id) {
            return wrong("two SFTP requests with one number");
        }
        Ok(())
    }

    fn ask(&mut self, id: u32, asked: Asked) -> Result<(), String> {
        self.check(id)?;
        self.asked.insert(id, asked);
        Ok(())
    }

    /// The file that is open under a handle.
    fn file(&mut self, handle: &[u8]) -> Result<(u64, &mut Open), String> {
        let file = self.handles.get(handle).copied();
        file.and_then(|file| Some((file, self.files.get_mut(&file)?)))
            .ok_or_else(|| "an SFTP handle that is not open".to_owned())
    }

    /// Takes in a request that is no operation. Says whether a file's digest has it.
    fn request(&mut self, request: Request) -> Result<bool, String> {
        match request {
            Request::Init(_) if self.greeted => return wrong("SFTP begins twice"),
            Request::Init(_) => self.greeted = true,
            Request::Ask(id, handle) => {
                if let Some(handle) = handle {
                    self.file(&handle)?;
                }
                self.ask(id, Asked::Nothing)?;
            }
            Request::Close(id, handle) => {
                let (file, open) = self.file(&handle)?;
                open.asked += 1;
                self.handles.remove(&*handle);
                self.ask(id, Asked::Close { file })?;
            }
            Request::Read {
                id,
                handle,
                offset,
                length,
            } => {
                let (file, open) = self.file(&handle)?;
                open.asked += 1;
                self.ask(
                    id,
                    Asked::Read {
                        file,
                        offset,
                        length,
                    },
                )?;
            }
            Request::Write {
                id, handle, offset, ..
            } => {
                let (file, open) = self.file(&handle)?;
                open.asked += 1;
                self.writing = Some((file, offset));
                self.ask(id, Asked::Write { file })?;
            }
            Request::Data(bytes) => {
                if let Some((file, offset)) = &mut self.writing
                    && let Some(open) = self.files.get_mut(file)
                {
                    open.written.take(*offset, &bytes, &mut self.room);
                    *offset = offset.saturating_add(bytes.len() as u64);
                    return Ok(true);
                }
            }
            Request::Operate(..) => {}
        }
        Ok(false)
    }

    /// Makes ready for an operation, and says what it is.
    fn operate(&mut self, id: u32, packet: &Packet) -> Result<String, String> {
        self.check(id)?;
        let opens = packet.opens().map(|(path, append)| Opens {
            path: path.to_vec(),
            append,
        });
        if opens.is_some() && self.handles.len() + self.opening >= MAX_OPEN {
            return wrong("more than 1,024 SFTP handles are open");
        }
        for handle in packet.handles() {
            self.file(handle)?;
        }
        // What a server copies by itself is not seen.
        if packet.kind == "sftp.copy-data"
            && let Some(to) = packet
                .handles()
                .last()
                .and_then(|to| self.handles.get(&**to))
            && let Some(open) = self.files.get_mut(to)
        {
            open.written.part(&mut self.room);
        }
        self.next = Some((id, opens));
        Ok(packet.text(|handle| {
            let open = self.files.get(self.handles.get(handle)?)?;
            Some(&open.path)
        }))
    }

    /// Takes in a reply. Says whether a file's digest has it.
    fn reply(&mut self, reply: Reply) -> Result<bool, String> {
        let id = match reply {
            Reply::Bytes(bytes) => return Ok(self.reply_bytes(&bytes)),
            Reply::Version(version) => {
                if !self.greeted || self.agreed {
                    return wrong("the target begins SFTP without being asked");
                }
                if version != VERSION {
                    return Err(format!(
                        "the target speaks SFTP version {version}, and not 3"
                    ));
                }
                self.agreed = true;
                return Ok(false);
            }
            Reply::Status(id, _)
            | Reply::Handle(id, _)
            | Reply::Data(id, _)
            | Reply::Answer(id) => id,
        };
        self.reading = None;
        let Some(asked) = self.asked.remove(&id) else {
            return wrong("the target answers an SFTP request that nobody made");
        };
        if matches!(asked, Asked::Open(..)) {
            self.opening -= 1;
        }
        match (asked, reply) {
            (Asked::Nothing, Reply::Status(..) | Reply::Answer(_)) => {}
            (Asked::Operation(action) | Asked::Open(action, _), Reply::Status(_, code)) => {
                let status = if code == OK {
                    Status::Succeeded
                } else {
                    Status::Failed
                };
                self.ended.push(outcome(action, status));
            }
            (Asked::Open(action, opens), Reply::Handle(_, handle)) => {
                self.open(action, opens, &handle)?;
            }
            (
                Asked::Read {
                    file,
                    offset,
                    length,
                },
                Reply::Data(_, there),
            ) => {
                if there > length {
                    return wrong("the target sends more of a file than was asked for");
                }
                self.reading = Some((file, offset, there));
                self.reply_bytes(&[]);
            }
            (Asked::Read { file, .. }, Reply::Status(_, code)) => {
                self.settle(file, code != OK && code != EOF, false);
            }
            (Asked::Write { file }, Reply::Status(_, code)) => self.settle(file, code != OK, false),
            (Asked::Close { file }, Reply::Status(_, code)) => self.settle(file, code != OK, true),
            _ => return wrong("the target's SFTP reply does not fit the request"),
        }
        Ok(false)
    }

    fn open(&mut self, action: ActionId, opens: Opens, handle: &[u8]) -> Result<(), String> {
        let file = self.count;
        self.count += 1;
        if self.handles.insert(handle.to_vec(), file).is_some() {
            return wrong("the target gives out an SFTP handle twice");
        }
        let mut open = Open {
            action,
            path: opens.path,
            read: Flow::default(),
            written: Flow::default(),
            asked: 0,
            failed: false,
            closed: false,
        };
        if opens.append {
            // Where the bytes go is the end of the file, whatever offset they name.
            open.written.part(&mut self.room);
        }
        self.files.insert(file, open);
        Ok(())
    }

    /// Bytes of a reply, of a file's content where it is that. Says whether a file's digest has them.
    fn reply_bytes(&mut self, bytes: &[u8]) -> bool {
        let Some((file, offset, left)) = &mut self.reading else {
            return false;
        };
        let file = *file;
        let open = self.files.get_mut(&file);
        let in_file = open.is_some();
        if let Some(open) = open {
            open.read.take(*offset, bytes, &mut self.room);
        }
        *offset = offset.saturating_add(bytes.len() as u64);
        *left = left.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if *left == 0 {
            self.reading = None;
            self.settle(file, false, false);
        }
        in_file
    }

    /// One request about an open file is answered. After its close, and when nothing is left to be
    /// answered, it has ended.
    fn settle(&mut self, file: u64, failed: bool, closed: bool) {
        let Some(open) = self.files.get_mut(&file) else {
            return;
        };
        open.asked -= 1;
        open.failed |= failed;
        open.closed |= closed;
        if open.closed
            && open.asked == 0
            && let Some(open) = self.files.remove(&file)
        {
            let ended = self.total(open, Status::Succeeded);
            self.ended.push(ended);
        }
    }

    fn total(&mut self, open: Open, status: Status) -> Outcome {
        let read = open.read.total("read", &mut self.room);
        let written = open.written.total("written", &mut self.room);
        let status = if open.failed { Status::Failed } else { status };
        Outcome {
            streams: read.into_iter().chain(written).collect(),
            ..outcome(open.action, status)
        }
    }
}

impl Tracker for Sftp {
    fn push(&mut self, from: From, bytes: Bytes) {
        match from {
            From::Client => self.requests.bytes.push(bytes),
            From::Target => self.replies.bytes.push(bytes),
        }
    }

    fn step(&mut self, from: From) -> Result<Step, String> {
        if from == From::Target {
            while let Some(reply) = self.replies.next().map_err(|error| error.to_string())? {
                let in_file = self.reply(reply)?;
                self.digests.take(from, &mut self.replies.bytes, in_file);
            }
            return Ok(Step::Forward(self.replies.bytes.ready()));
        }
        while let Some(request) = self.requests.next().map_err(|error| error.to_string())? {
            let Request::Operate(id, packet) = request else {
                let in_file = self.request(request)?;
                self.digests.take(from, &mut self.requests.bytes, in_file);
                continue;
            };
            self.digests.take(from, &mut self.requests.bytes, false);
            let earlier = self.requests.bytes.earlier();
            let operation = Operation {
                kind: packet.kind,
                text: self.operate(id, &packet)?,
                packet: self.requests.bytes.ready(),
            };
            return Ok(Step::Operate(earlier, operation));
        }
        Ok(Step::Forward(self.requests.bytes.ready()))
    }

    fn sent(&mut self, action: ActionId) {
        let Some((id, opens)) = self.next.take() else {
            return;
        };
        let asked = match opens {
            Some(opens) => {
                self.opening += 1;
                Asked::Open(action, opens)
            }
            None => Asked::Operation(action),
        };
        self.asked.insert(id, asked);
    }

    fn ended(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.ended)
    }

    fn finish(&mut self) -> Vec<Outcome> {
        let mut left = Vec::new();
        for (_, asked) in self.asked.drain() {
            if let Asked::Operation(action) | Asked::Open(action, _) = asked {
                left.push(outcome(action, Status::Unknown));
            }
        }
        for open in std::mem::take(&mut self.files).into_values() {
            left.push(self.total(open, Status::Unknown));
        }
        left
    }

    fn digests(&mut self) -> Digests {
        self.digests.take_rest(From::Client, &self.requests.bytes);
        self.digests.take_rest(From::Target, &self.replies.bytes);
        std::mem::replace(&mut self.digests, Digests::new(0))
    }
}

#[cfg(test)]
mod tests;
