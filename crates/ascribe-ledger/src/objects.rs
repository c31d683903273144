//! Whole files by name: tiles, packs, snapshots. What is durable here may be dropped from the
//! journal.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file and its content.
pub type Object = (String, Vec<u8>);

/// Objects by name. Each is there whole or not at all; once `put` returned, all that it was given
/// are on stable storage.
pub trait Objects: Send + Sync + fmt::Debug {
    /// Writes objects, replacing what has the same name.
    ///
    /// # Errors
    /// When storage fails; then each may be there or not.
    fn put(&self, objects: &[Object]) -> io::Result<()>;
    /// An object, if there is one.
    ///
    /// # Errors
    /// When storage fails.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// An object's length, if there is one.
    ///
    /// # Errors
    /// When storage fails.
    fn len(&self, name: &str) -> io::Result<Option<u64>>;
    /// Exactly so many bytes of an object.
    ///
    /// # Errors
    /// When storage fails or the object ends before.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Removes an object; none is no error.
    ///
    /// # Errors
    /// When storage fails.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// An object's name for messages.
    fn name(&self, name: &str) -> String;
}

/// Objects in a local directory, each a file.
#[derive(Debug)]
pub struct LocalObjects {
    dir: PathBuf,
}

impl LocalObjects {
    /// Below this directory.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }
}

fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Objects for LocalObjects {
    fn put(&self, objects: &[Object]) -> io::Result<()> {
        let mut dirs = BTreeSet::new();
        for (name, bytes) in objects {
            let path = self.dir.join(name);
            let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            if !dir.exists() {
                fs::create_dir_all(dir)?;
            }
            let mut tmp = path.clone().into_os_string();
            tmp.push(".tmp");
            let put = || {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&tmp)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                fs::rename(&tmp, &path)
            };
            // Half a file must not keep the room that a full disk has left.
            put().inspect_err(|_| fs::remove_file(&tmp).unwrap_or_default())?;
            // New directories are entries of the ones above.
            let above = dir.ancestors().take_while(|d| d.starts_with(&self.dir));
            dirs.extend(above.map(Path::to_owned));
        }
        for dir in dirs {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if_found(fs::read(self.dir.join(name)))
    }
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(if_found(fs::metadata(self.dir.join(name)))?.map(|m| m.len()))
    }
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(self.dir.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if_found(fs::remove_file(self.dir.join(name))).map(|_| ())
    }
    fn name(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}
