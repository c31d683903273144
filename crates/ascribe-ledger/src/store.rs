//! Storage, split by guarantee.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::error::{self, LedgerError};

/// Segments. After `sync` returned without error, what was written is on stable storage. After an
/// error of `write_at` or `sync` nothing is known, and the process must stop using the journal.
pub trait Journal: Send + Sync + fmt::Debug {
    /// Numbers of the segments there are, ascending.
    ///
    /// # Errors
    /// When storage fails.
    fn segments(&self) -> io::Result<Vec<u64>>;
    /// Makes a zero-filled segment, durably.
    ///
    /// # Errors
    /// When storage fails or is full; then there is no such segment.
    fn allocate(&self, segment: u64, bytes: u64) -> io::Result<()>;
    /// A segment's length.
    ///
    /// # Errors
    /// When storage fails.
    fn bytes(&self, segment: u64) -> io::Result<u64>;
    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// When storage fails or ends before.
    fn read(&self, segment: u64, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Writes inside the segment, in one call to the system. A short write is an error.
    ///
    /// # Errors
    /// When storage fails.
    fn write_at(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written to the segment durable.
    ///
    /// # Errors
    /// When storage fails; never retried.
    fn sync(&self, segment: u64) -> io::Result<()>;
    /// Removes a segment that nothing needs any more; none is no error.
    ///
    /// # Errors
    /// When storage fails.
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// The segment's name for messages.
    fn name(&self, segment: u64) -> String;
}

/// The copy of the newest checkpoint outside the data directory. Not synced: it is written only
/// after its checkpoint is durable, so it may lag and never leads.
pub trait HeadCopy: Send + fmt::Debug {
    /// Every copy there is. One that a crash cut short may be among them; the log's signature
    /// tells.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> io::Result<Vec<String>>;
    /// Writes a copy. The one before it stays whole.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&mut self, note: &str) -> io::Result<()>;
    /// Its name for messages.
    fn name(&self) -> String;
}

/// Segments in a local directory.
#[derive(Debug)]
pub struct LocalJournal {
    dir: PathBuf,
    writable: bool,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
}

impl LocalJournal {
    /// The segments in this directory.
    pub fn new(dir: &Path, writable: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            writable,
            open: Mutex::default(),
        }
    }
    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:08}.seg"))
    }
    fn file(&self, segment: u64) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(self.writable)
            .open(self.path(segment))?;
        let file = Arc::new(file);
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }
}

impl Journal for LocalJournal {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|n| n.strip_suffix(".seg"))
                .and_then(|n| n.parse().ok());
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }
    fn allocate(&self, segment: u64, bytes: u64) -> io::Result<()> {
        let tmp = self.dir.join(format!("{segment:08}.tmp"));
        let done = fill(&tmp, bytes).and_then(|()| fs::rename(&tmp, self.path(segment)));
        if done.is_err() {
            fs::remove_file(&tmp).unwrap_or_default();
        }
        done.and_then(|()| File::open(&self.dir)?.sync_all())
    }
    fn bytes(&self, segment: u64) -> io::Result<u64> {
        Ok(self.file(segment)?.metadata()?.len())
    }
    fn read(&self, segment: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file(segment)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
    fn write_at(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = rustix::io::pwrite(&*self.file(segment)?, bytes, offset)?;
        if written == bytes.len() {
            Ok(())
        } else {
            let why = format!("only {written} of {} bytes were written", bytes.len());
            Err(io::Error::new(io::ErrorKind::WriteZero, why))
        }
    }
    fn sync(&self, segment: u64) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&*self.file(segment)?)?)
    }
    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&segment);
        drop(open);
        match fs::remove_file(self.path(segment)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => File::open(&self.dir)?.sync_all(),
        }
    }
    fn name(&self, segment: u64) -> String {
        self.path(segment).display().to_string()
    }
}

/// Real zeros, not a hole: later syncs then change no file metadata.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(zeros.get(..len).unwrap_or_default())?;
        left -= len as u64;
    }
    file.sync_all()
}

/// Room for one note: three lines of text and a signature, with an origin of at most 255 bytes.
const SLOT: usize = 2048;

/// A head copy in a local file: two slots, each a note and zeros, written in turn and in place.
#[derive(Debug)]
pub struct LocalHead {
    path: PathBuf,
    /// The file, with its device and number.
    open: Option<(File, (u64, u64))>,
    second: bool,
}

impl LocalHead {
    /// In this file.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: None,
            second: false,
        }
    }

    /// What each slot holds.
    fn slots(&self) -> io::Result<Vec<String>> {
        let bytes = match fs::read(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let note = |slot: &[u8]| {
            let text = slot.split(|&b| b == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        Ok(bytes.chunks(SLOT).map(note).collect())
    }

    /// Which slot must stay whole at the first write after a start.
    fn newest_is_first(&self) -> bool {
        let size = |note: &String| note.lines().nth(1).and_then(|n| n.parse::<u64>().ok());
        let slots = self.slots().unwrap_or_default();
        let age = |n: usize| slots.get(n).map(|note| (!note.is_empty(), size(note)));
        age(0).is_some_and(|(there, _)| there) && age(0) >= age(1)
    }

    /// The file that has the name now: somebody may have moved it away.
    fn file(&mut self) -> io::Result<&File> {
        let named = fs::metadata(&self.path).map(|m| (m.dev(), m.ino())).ok();
        if named.is_none() || named != self.open.as_ref().map(|(_, id)| *id) {
            self.open = None;
        }
        match &mut self.open {
            Some((file, _)) => Ok(file),
            open => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&self.path)?;
                let found = file.metadata()?;
                Ok(&open.insert((file, (found.dev(), found.ino()))).0)
            }
        }
    }
}

impl HeadCopy for LocalHead {
    fn read(&self) -> io::Result<Vec<String>> {
        let mut notes = self.slots()?;
        notes.retain(|note| !note.is_empty());
        Ok(notes)
    }
    fn write(&mut self, note: &str) -> io::Result<()> {
        let mut slot = note.as_bytes().to_vec();
        if slot.len() >= SLOT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        slot.resize(SLOT, 0);
        if self.open.is_none() {
            self.second = self.newest_is_first();
        }
        let offset = if self.second { SLOT as u64 } else { 0 };
        self.file()?.write_all_at(&slot, offset)?;
        self.second = !self.second;
        Ok(())
    }
    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Held by the one process that writes.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "dropping it releases the lock")] File);

impl Lock {
    /// On a data directory.
    pub(crate) fn take(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("lock");
        let file = lock_file(&path).map_err(error::io("open", &path))?;
        Self::hold(file, &path, dir)
    }

    /// Of somebody who only reads, beside others who do. Where nobody ever wrote there is nothing to
    /// lock.
    pub(crate) fn share(dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = dir.join("lock");
        let Ok(file) = File::open(&path) else {
            return Ok(None);
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LedgerError::Locked(dir.display().to_string()))
            }
            Err(e) => Err(error::io("lock", &path)(e.into())),
        }
    }

    /// On the copy of a head: a copied data directory names the same one. Where there is no place
    /// for a copy there is nothing to lock.
    pub(crate) fn take_head(head: &Path) -> Result<Option<Self>, LedgerError> {
        let mut name = head.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        match lock_file(&path) {
            Ok(file) => Self::hold(file, &path, head).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error::io("open", &path)(e)),
        }
    }

    fn hold(file: File, path: &Path, what: &Path) -> Result<Self, LedgerError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LedgerError::Locked(what.display().to_string()))
            }
            Err(e) => Err(error::io("lock", path)(e.into())),
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Writes a file whole: temporary file, sync, rename, sync of the directory.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), LedgerError> {
    let write = || {
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let tmp = PathBuf::from(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(error::io("write", path))
}
