//! A relay as simple as can be: two threads a connection around one tracker. It refuses texts with the
//! word `forbidden`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ascribe_wire::pg::client::{self, Text};
use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::server::{self, Message, Report};
use ascribe_wire::pg::session::{Event, Executed, Origin, Runs, Step, Tracker, Turn, What};
use ascribe_wire::pg::{encode, startup};
use bytes::{Bytes, BytesMut};

/// What a session has told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    /// The server's process.
    pub(crate) process: u32,
    /// Number, text, and whether it, or a statement of it, was done.
    pub(crate) recorded: Vec<(u64, String, bool)>,
    /// How often each number ended.
    ended: BTreeMap<u64, u32>,
    /// How many have not ended at the end.
    pub(crate) open: usize,
    pub(crate) error: Option<String>,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    sessions: Arc<Mutex<Vec<Arc<Shared>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<(Tracker, Session)>,
    heard: Condvar,
}

impl Relay {
    pub(crate) fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let known = Arc::clone(&sessions);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (
                    client.unwrap(),
                    TcpStream::connect(("127.0.0.1", target)).unwrap(),
                );
                let shared = Arc::new(Shared::default());
                known.lock().unwrap().push(Arc::clone(&shared));
                std::thread::spawn(move || serve(&shared, client, server));
            }
        });
        Self { port, sessions }
    }

    pub(crate) fn sessions(&self) -> Vec<Session> {
        let sessions = self.sessions.lock().unwrap();
        sessions
            .iter()
            .map(|one| one.state.lock().unwrap().1.clone())
            .collect()
    }

    /// All sessions, when they are over.
    pub(crate) fn settled(&self) -> Vec<Session> {
        loop {
            let sessions = self.sessions();
            if sessions.iter().all(|one| one.over) {
                return sessions;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve(shared: &Arc<Shared>, mut client: TcpStream, mut server: TcpStream) {
    let mut first = BytesMut::new();
    let mut chunk = vec![0; 16 * 1024];
    // Clients here ask for no encryption, so that this is the startup message.
    let begun = loop {
        let length = client.read(&mut chunk).unwrap();
        first.extend_from_slice(&chunk[..length]);
        let startup = startup::first(&mut first).unwrap();
        match startup {
            Some(startup::First::Startup(startup)) => break startup,
            _ if length == 0 => {
                shared.state.lock().unwrap().1.over = true;
                return;
            }
            _ => {}
        }
    };
    let parameters = begun
        .parameters
        .iter()
        .map(|(name, value)| (&name[..], &value[..]));
    server
        .write_all(&startup::startup_message(begun.minor, parameters))
        .unwrap();
    let (up, down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let other = Arc::clone(shared);
    let answers = std::thread::spawn(move || finish(&other, from_server(&other, server, down)));
    finish(shared, from_client(shared, client, up));
    answers.join().unwrap();
    let mut state = shared.state.lock().unwrap();
    state.1.open = state.0.unanswered().count();
    state.1.over = true;
}

fn finish(shared: &Shared, done: Result<(), String>) {
    if let Err(error) = done {
        shared.state.lock().unwrap().1.error.get_or_insert(error);
    }
    shared.heard.notify_all();
}

fn told<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

fn from_client(
    shared: &Shared,
    mut client: TcpStream,
    mut server: TcpStream,
) -> Result<(), String> {
    let mut frames = Frames::new(Side::Client);
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let length = client.read(&mut chunk).unwrap_or(0);
        if length == 0 {
            server.shutdown(Shutdown::Write).ok();
            return Ok(());
        }
        frames.push(Bytes::copy_from_slice(&chunk[..length]));
        // A whole burst is taken before anything of it is denied, as a gateway does.
        let mut burst: Vec<(Step, u8, Bytes)> = Vec::new();
        while let Some(piece) = frames.next().map_err(told)? {
            let step = loop {
                let mut state = shared.state.lock().unwrap();
                let step = match &piece {
                    Piece::Whole(frame) => state.0.client(client::decode(frame).map_err(told)?),
                    Piece::Large(large) => {
                        state.0.client(client::decode_large(large).map_err(told)?)
                    }
                    Piece::Run(run) => Ok(state.0.copy_data(run.begun, run.bytes.len() as u64)),
                    Piece::Part(_) => Ok(Step::Copy(Default::default())),
                };
                assert!(state.0.adds_up());
                let Step::Wait(_) = step.as_ref().map_err(told)? else {
                    break step.map_err(told)?;
                };
                if !burst.is_empty() {
                    drop(state);
                    forward(shared, &mut server, std::mem::take(&mut burst))?;
                    continue;
                }
                let (state, out) = shared
                    .heard
                    .wait_timeout(state, Duration::from_secs(20))
                    .unwrap();
                if out.timed_out() || state.1.error.is_some() {
                    return Err("the server is waited for in vain".to_owned());
                }
            };
            if let Step::Record(executed) = &step {
                let mut state = shared.state.lock().unwrap();
                state
                    .1
                    .recorded
                    .push((executed.number.0, text(executed), false));
            }
            let kind = piece.bytes()[0];
            burst.push((step, kind, piece.bytes().clone()));
        }
        forward(shared, &mut server, burst)?;
    }
}

fn forward(
    shared: &Shared,
    server: &mut TcpStream,
    burst: Vec<(Step, u8, Bytes)>,
) -> Result<(), String> {
    let (mut out, mut whole_group) = (Vec::new(), false);
    for (step, kind, bytes) in burst {
        whole_group &= kind != b'S';
        if whole_group {
            continue;
        }
        let refused = match &step {
            Step::Refuse(number, _) => Some(*number),
            Step::Record(executed) => text(executed)
                .contains("forbidden")
                .then_some(executed.number),
            _ => None,
        };
        if let Some(number) = refused {
            let reply = encode::error_response(&Report {
                severity: "ERROR".into(),
                code: "42501".into(),
                message: "refused".into(),
                ..Report::default()
            });
            let denied = shared
                .state
                .lock()
                .unwrap()
                .0
                .deny(number, reply)
                .map_err(told)?;
            whole_group = denied.whole_group;
            out.extend_from_slice(&denied.instead);
        } else if step != Step::Drop {
            out.extend_from_slice(&bytes);
        }
    }
    server.write_all(&out).map_err(told)
}

fn text(executed: &Executed) -> String {
    let text = match &executed.runs {
        Runs::Query(text) => text,
        Runs::Portal { portal, .. } => match &portal.statement {
            Origin::Known(statement) => &statement.text,
            Origin::Doubtful(_) | Origin::Unknown(_) => return "unknown".to_owned(),
        },
        Runs::DoubtfulPortal { .. } | Runs::UnknownPortal { .. } => return "unknown".to_owned(),
        Runs::Function { .. } => return "function".to_owned(),
    };
    match text {
        Text::Here(text) => String::from_utf8_lossy(text).into_owned(),
        Text::Spooled(length) => format!("{length} bytes"),
    }
}

fn from_server(
    shared: &Shared,
    mut server: TcpStream,
    mut client: TcpStream,
) -> Result<(), String> {
    let mut frames = Frames::new(Side::Server);
    let mut chunk = vec![0; 16 * 1024];
    let mut ready = false;
    loop {
        let length = server.read(&mut chunk).unwrap_or(0);
        if length == 0 {
            client.shutdown(Shutdown::Both).ok();
            return Ok(());
        }
        frames.push(Bytes::copy_from_slice(&chunk[..length]));
        let mut out = Vec::new();
        while let Some(piece) = frames.next().map_err(told)? {
            let message = match &piece {
                Piece::Whole(frame) => server::decode(frame).map_err(told)?,
                Piece::Large(large) => server::decode_large(large).map_err(told)?,
                Piece::Run(run) => server::passing(run).map_err(told)?,
                Piece::Part(_) => {
                    out.extend_from_slice(piece.bytes());
                    continue;
                }
            };
            let mut state = shared.state.lock().unwrap();
            if ready {
                let outcomes = state
                    .0
                    .server(&message, piece.bytes().len())
                    .map_err(told)?;
                assert!(state.0.adds_up());
                outcomes
                    .events
                    .into_iter()
                    .for_each(|event| note(&mut state.1, event));
                match outcomes.turn {
                    Turn::Forward => out.extend_from_slice(piece.bytes()),
                    Turn::Replace(with) => out.extend_from_slice(&with),
                }
            } else {
                if let Message::BackendKeyData(process, _) = message {
                    state.1.process = process;
                }
                ready = matches!(message, Message::ReadyForQuery(_));
                out.extend_from_slice(piece.bytes());
            }
        }
        shared.heard.notify_all();
        if client.write_all(&out).is_err() {
            return Ok(());
        }
    }
}

fn note(session: &mut Session, event: Event) {
    let number = event.number.0;
    match event.what {
        What::Done(_) => {
            let mut all = session.recorded.iter_mut();
            all.find(|(known, _, _)| *known == number).unwrap().2 = true;
        }
        What::End(_) => {
            let count = session.ended.entry(number).or_default();
            *count += 1;
            assert_eq!(*count, 1, "{number} ended twice");
        }
        What::GroupFailed { .. } => {}
    }
}
