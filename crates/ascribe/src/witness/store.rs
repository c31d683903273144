//! What a witness remembers: of each log the largest checkpoint that it cosigned. It is on disk before
//! the cosignature leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ascribe_tlog::{
    AddCheckpoint, Checkpoint, CheckpointError, Hash, Note, NoteError, SigningKey, TrustPolicy,
    VerifierKey, WitnessKey, empty_root, verify_consistency,
};
use rustix::fs::{FlockOperation, flock};

use crate::exit::{Attempt as _, Done, Failure};

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: body.into(),
        }
    }
}

/// A checkpoint that we cosigned.
#[derive(Debug)]
struct Seen {
    size: u64,
    root: Hash,
    /// With the log's signature and ours.
    note: String,
}

/// A log that we are a witness of. Whoever decides on a checkpoint of it holds the lock until the
/// decision is on disk.
#[derive(Debug)]
struct Log {
    keys: Vec<VerifierKey>,
    file: PathBuf,
    seen: Mutex<Option<Seen>>,
}

/// All of it. One process at a time has a directory.
#[derive(Debug)]
pub(super) struct Store {
    key: SigningKey,
    dir: PathBuf,
    /// By origin.
    logs: BTreeMap<String, Log>,
    #[expect(dead_code, reason = "held as long as the directory is used")]
    lock: File,
}

/// The name under which a log is kept and shown: SHA-256 of its origin, in hexadecimal.
fn name_of(origin: &str) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, origin.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

impl Store {
    /// Opens a directory, for the logs that these policies name.
    pub(super) fn open(dir: &Path, key: SigningKey, policies: &[TrustPolicy]) -> Done<Self> {
        std::fs::create_dir_all(dir).attempt(format!("make `{}`", dir.display()))?;
        let lock = File::create(dir.join("lock")).attempt("lock the state")?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::usage(format!("another witness uses `{}`", dir.display()))
                .help("give each witness a directory of its own")
        })?;
        let own = key.witness().attempt("use the key")?;
        let mut logs: BTreeMap<String, Log> = BTreeMap::new();
        for log in policies.iter().flat_map(|policy| &policy.logs) {
            let entry = logs.entry(log.name().to_owned());
            let file = dir.join(format!("{}.checkpoint", name_of(log.name())));
            let known = entry.or_insert_with(|| Log {
                keys: Vec::new(),
                file,
                seen: Mutex::new(None),
            });
            if !known.keys.contains(log) {
                known.keys.push(log.clone());
            }
        }
        for log in logs.values_mut() {
            let seen = remembered(log, &own)?;
            log.seen = Mutex::new(seen);
        }
        Ok(Self {
            key,
            dir: dir.to_owned(),
            logs,
            lock,
        })
    }

    /// The newest checkpoint of the log of that name that we cosigned.
    pub(super) fn monitored(&self, name: &str) -> Option<String> {
        let (_, log) = self
            .logs
            .iter()
            .find(|(origin, _)| name_of(origin) == name)?;
        let seen = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().map(|seen| seen.note.clone())
    }

    /// Cosigns a checkpoint at `time` if it continues what we have seen. The checks are in the order of
    /// the specification.
    pub(super) fn add(&self, body: &[u8], time: u64) -> Answer {
        let request = match AddCheckpoint::parse(body) {
            Ok(request) => request,
            Err(error) => return Answer::text(400, format!("{error}\n")),
        };
        // Its signatures say nothing before its log is known.
        let origin = request.note.split('\n').next().unwrap_or_default();
        let Some(log) = self.logs.get(origin) else {
            return Answer::text(404, "this witness does not know the log\n");
        };
        let checkpoint = match Checkpoint::open(request.note.as_bytes(), &log.keys) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                let refused = matches!(
                    error,
                    CheckpointError::Origin
                        | CheckpointError::Note(NoteError::Signature(_) | NoteError::Untrusted)
                );
                return Answer::text(if refused { 403 } else { 400 }, format!("{error}\n"));
            }
        };
        if request.old > checkpoint.size {
            return Answer::text(400, "the old size is larger than the checkpoint's\n");
        }
        let mut seen = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, root) = seen
            .as_ref()
            .map_or((0, empty_root()), |s| (s.size, s.root));
        if request.old != size {
            return Answer {
                status: 409,
                content_type: "text/x.tlog.size",
                body: format!("{size}\n"),
            };
        }
        if !continues(&request, (size, root), &checkpoint) {
            return Answer::text(
                422,
                "the checkpoint does not continue the one of the old size\n",
            );
        }
        let known = Note::open(request.note.as_bytes(), &log.keys);
        let cosigned = known.and_then(|note| {
            let line = self.key.cosign(note.text(), time.max(1))?;
            // Of the note only what was checked is kept: the log's own signatures.
            let logs = log
                .keys
                .iter()
                .filter_map(|key| Some((key, note.signature_of(key)?)));
            let mut signed = String::new();
            for (key, signature) in logs {
                let whole = key.note(note.text(), &signature);
                let head = if signed.is_empty() {
                    0
                } else {
                    note.text().len() + 1
                };
                signed.push_str(whole.get(head..).unwrap_or_default());
            }
            Ok((format!("{signed}{line}"), line))
        });
        let (note, line) = match cosigned {
            Ok(cosigned) => cosigned,
            Err(error) => return Answer::text(500, format!("{error}\n")),
        };
        if let Err(error) = replace(&self.dir, &log.file, note.as_bytes()) {
            tracing::error!("the state cannot be written, nothing is cosigned: {error}");
            return Answer::text(500, "the witness cannot write\n");
        }
        *seen = Some(Seen {
            size: checkpoint.size,
            root: checkpoint.root,
            note,
        });
        Answer::text(200, line)
    }
}

fn continues(request: &AddCheckpoint, (size, root): (u64, Hash), new: &Checkpoint) -> bool {
    if new.size == 0 {
        return request.proof.is_empty() && new.root == empty_root();
    }
    if size == 0 || size == new.size {
        return request.proof.is_empty() && (size == 0 || root == new.root);
    }
    verify_consistency(size, &root, new.size, &new.root, &request.proof).is_ok()
}

/// What an earlier process wrote. A file that cannot be read is no beginning: whoever cosigned from
/// nothing again would help a log to rewrite its history.
fn remembered(log: &Log, own: &WitnessKey) -> Done<Option<Seen>> {
    let shown = log.file.display();
    let text = match std::fs::read_to_string(&log.file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).attempt(format!("read `{shown}`")),
    };
    let damaged = || {
        Failure::usage(format!(
            "`{shown}` is not a checkpoint that this key cosigned"
        ))
        .help("bring the file back; if it is lost, make a new key: one that forgets is no witness")
    };
    let note = Note::open(text.as_bytes(), &log.keys).map_err(|_| damaged())?;
    let checkpoint = Checkpoint::open(text.as_bytes(), &log.keys).map_err(|_| damaged())?;
    match own.cosigned(&note) {
        Ok(Some(_)) => Ok(Some(Seen {
            size: checkpoint.size,
            root: checkpoint.root,
            note: text,
        })),
        Ok(None) | Err(_) => Err(damaged()),
    }
}

/// The old content or the new, whatever happens in between; the new once this returns.
fn replace(dir: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = File::create(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
