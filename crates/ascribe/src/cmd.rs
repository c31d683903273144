//! The commands.

pub(crate) mod ask;
pub(crate) mod ca;
pub(crate) mod command;
pub(crate) mod connect;
pub(crate) mod delegate;
pub(crate) mod demo;
pub(crate) mod directory;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod manual;
pub(crate) mod observe;
pub(crate) mod probe;
pub(crate) mod psql;
pub(crate) mod read;
pub(crate) mod reconcile;
pub(crate) mod script;
pub(crate) mod serve;
pub(crate) mod setup;
pub(crate) mod tunnel;
pub(crate) mod verify;
pub(crate) mod witness;
pub(crate) mod workload;

use std::path::Path;

use ascribe_core::id::PersonId;
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::time::Timestamp;
use serde::Serialize;

use crate::api::Query;
use crate::cli::{Cli, Output};
use crate::client::{Client, Server, config_dir, random, read_json};
use crate::exit::{Done, Failure};
use crate::registry::{AskRow, Registry};
use crate::signer::Signer;

/// What a running server leaves in its data directory for local commands.
pub(crate) const SERVER_FILE: &str = "server.json";
/// Written by the demo: the key that reading commands sign with.
pub(crate) const READER_FILE: &str = "reader.json";

/// The demo's reader.
#[derive(Debug, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReaderKey {
    pub(crate) key_file: std::path::PathBuf,
}

/// Prints a line on standard output. A reader that has gone away ends the command quietly.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(i32::from(crate::exit::Kind::Failure.code()));
    }
}

/// Prints a remark on standard error. Nobody may be listening.
pub(crate) fn remark(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
}

/// Prints a value as one JSON line.
pub(crate) fn say_json<T: Serialize>(value: &T) -> Done {
    use crate::exit::Attempt as _;
    say(&spelled_out(
        &serde_json::to_string(value).attempt("encode the result")?,
    ));
    Ok(())
}

/// The same JSON without characters that a terminal obeys or hides. They only stand in strings.
pub(crate) fn spelled_out(json: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if ascribe_core::text::is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap_or_default();
            }
        } else {
            out.push(c);
        }
    }
    out
}

impl Cli {
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// The server's data directory, which this command needs.
    pub(crate) fn data_dir(&self) -> Done<&Path> {
        self.data
            .as_deref()
            .ok_or_else(|| Failure::usage("which ledger?").help("give `--data DIR`"))
    }

    /// Whoever signs; reading commands may fall back to the reader of a demo's directory.
    pub(crate) fn signer(&self, reading: bool) -> Done<Signer> {
        if let Some(key) = &self.key {
            return Signer::from_file(key);
        }
        if let (true, Some(dir)) = (reading, &self.data) {
            let file = dir.join(READER_FILE);
            if file.exists() {
                let reader: ReaderKey = read_json(&file)?;
                return Signer::from_file(&reader.key_file);
            }
        }
        if let Some(login) = self.server().ok().and_then(|s| login::current(&s)) {
            return login.signer();
        }
        Signer::from_agent(None)
    }

    /// The server: by `--data`, by `ASCRIBE_SERVER`, or the only one joined.
    pub(crate) fn server(&self) -> Done<Server> {
        if let Some(dir) = &self.data {
            let file = dir.join(SERVER_FILE);
            if !file.exists() || !is_locked(dir) {
                return Err(
                    Failure::usage(format!("no server runs on `{}`", dir.display()))
                        .help("start it: ascribe serve --data DIR --ssh HOST:PORT --api HOST:PORT"),
                );
            }
            return read_json(&file);
        }
        let known = config_dir()?.join("servers");
        if let Some(api) = std::env::var_os("ASCRIBE_SERVER") {
            let api = api.to_string_lossy().into_owned();
            let file = known.join(setup::file_name(&api));
            if !file.exists() {
                return Err(
                    Failure::usage(format!("this machine has not joined `{api}`")).help(format!(
                        "join it: ascribe join {api} --log-key KEY --pin KEY"
                    )),
                );
            }
            return read_json(&file);
        }
        let mut files: Vec<_> = std::fs::read_dir(&known)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .collect();
        match (files.pop(), files.is_empty()) {
            (Some(file), true) => read_json(&file),
            (Some(_), false) => Err(Failure::usage("this machine has joined several servers")
                .help("choose one: ASCRIBE_SERVER=HOST:PORT")),
            (None, _) => Err(Failure::usage("which server?").help(
                "give `--data DIR`, or join one: ascribe join HOST:PORT --log-key KEY --pin KEY",
            )),
        }
    }

    pub(crate) fn client(&self, reading: bool) -> Done<Client> {
        Client::new(self.server()?, Some(self.signer(reading)?))
    }

    /// Is the data directory's server stopped, so that we read the files? Its lock tells: a file
    /// left by a crash does not count.
    pub(crate) fn is_offline(&self) -> bool {
        self.data.as_deref().is_some_and(|dir| !is_locked(dir))
    }
}

/// Does a process hold the data directory's lock?
fn is_locked(dir: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let Ok(lock) = std::fs::File::open(dir.join("lock")) else {
        return false;
    };
    // Closing the file gives the probe up again.
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

/// The registry, from the server.
pub(crate) fn registry(client: &Client) -> Done<Registry> {
    use crate::exit::Attempt as _;
    let value = client.read(&Query::Registry)?;
    serde_json::from_value(value).attempt("read the server's answer")
}

impl Registry {
    /// A person by id, or by a name that only one person has.
    pub(crate) fn person(&self, text: &str) -> Done<PersonId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let found: Vec<_> = self
            .people
            .iter()
            .filter(|p| p.name.eq_ignore_ascii_case(text))
            .collect();
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => Err(Failure::usage(format!("nobody is called `{text}`"))
                .help("`ascribe person list` shows all")),
            several => Err(
                Failure::usage(format!("{} people are called `{text}`", several.len()))
                    .help("use the id"),
            ),
        }
    }

    /// Says in short that witnesses have not seen all of what is shown, which is from these times, and since when.
    pub(crate) fn tell_unwitnessed(&self, shown: impl IntoIterator<Item = Timestamp>) {
        let Some(since) = self.witnesses.and_then(|seen| seen.unseen_since) else {
            return;
        };
        // The oldest is known to the second.
        if shown.into_iter().any(|at| at >= since) {
            let age = self.now.since(since).max(0).unsigned_abs() / 1000;
            remark(&format!(
                "not witnessed yet: what was recorded since {since}, {} ago",
                lasting(age)
            ));
        }
    }

    /// Those without whose yes an ask does not take effect; some of them have to say it once more.
    pub(crate) fn must_approve(&self, ask: &AskRow) -> Vec<String> {
        let must = ask.must_approve.iter().map(|person| {
            let name = self.shown(*person);
            match ask.approved_by.contains(person) {
                true => format!("{name} (again, as the manager: they were not when they approved)"),
                false => name,
            }
        });
        let lacks = "the manager of whoever asks (no directory says who that is)";
        must.chain(ask.lacks_manager.then(|| lacks.to_owned()))
            .collect()
    }

    /// How a person is shown.
    pub(crate) fn shown(&self, id: PersonId) -> String {
        ascribe_core::text::clean(self.name(id).unwrap_or(&id.to_string()), 60)
    }

    /// The name of a person or workload, where it is known.
    pub(crate) fn name(&self, id: PersonId) -> Option<&str> {
        let person = self.people.iter().find(|p| p.id == id);
        let workload = self.workloads.iter().find(|w| w.workload.workload == id);
        person
            .map(|p| p.name.as_str())
            .or(workload.map(|w| w.workload.name.as_str()))
    }
}

/// So many seconds, in the two largest units.
pub(crate) fn lasting(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut words = Vec::new();
    for (unit, name) in units {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            words.push(format!("{count} {name}"));
        } else if !words.is_empty() {
            break;
        }
    }
    words.truncate(2);
    match words.is_empty() {
        true => "0 s".to_owned(),
        false => words.join(" "),
    }
}

/// Sealed prose with its opening.
pub(crate) fn prose(field: &str, text: &str) -> Done<(Prose, Opening)> {
    let opening = Opening::new(field, random()?, text.as_bytes().to_vec());
    Ok((Prose::of(&opening), opening))
}
