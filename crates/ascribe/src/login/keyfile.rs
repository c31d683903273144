//! A session key in a file, for machines without an `ssh-agent`: OpenSSH's own format, encrypted
//! (bcrypt and AES-256-CTR, as `ssh-keygen` writes it), so that plain `ssh -i` reads it too.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ssh_key::{Cipher, Kdf, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::client::random;
use crate::exit::{Attempt as _, Done, Failure};
use crate::passphrase::Passphrase;

/// Rounds of bcrypt, as `ssh-keygen` takes them.
const ROUNDS: u32 = 24;

/// A place for a key. Nothing is there yet.
pub(crate) struct KeyFile {
    path: PathBuf,
    passphrase: Passphrase,
}

impl KeyFile {
    /// A place for a key that does not overwrite anything; asks for the passphrase.
    pub(crate) fn new(path: &Path) -> Done<Self> {
        let path = std::path::absolute(path).attempt("find the key file's place")?;
        let shown = path.display().to_string();
        if path.symlink_metadata().is_ok() {
            return Err(Failure::usage(format!("`{shown}` is there already"))
                .help("name another file; one that a login of this machine left goes with `ascribe logout`"));
        }
        let passphrase = crate::passphrase::choose(&shown)?;
        Ok(Self { path, passphrase })
    }

    /// Writes the key, for its owner's eyes, and syncs it.
    pub(crate) fn write(&self, key: &PrivateKey) -> Done {
        let what = format!("write `{}`", self.path.display());
        let kdf = Kdf::Bcrypt {
            salt: random::<16>()?.to_vec(),
            rounds: ROUNDS,
        };
        let check = u32::from_be_bytes(random()?);
        let sealed = key
            .encrypt_with(Cipher::Aes256Ctr, kdf, check, self.passphrase.as_bytes())
            .attempt("encrypt the session key")?;
        let text = sealed.to_openssh(LineEnding::LF).attempt(&what)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .attempt(&what)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        if written.is_err() {
            self.undo();
        }
        written.attempt(&what)
    }

    /// Takes back what was written, when there is no login after all.
    pub(crate) fn undo(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("{} stays: {error}", self.path.display());
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes a login's file, if it still holds this very key. What is there otherwise is somebody else's.
pub(crate) fn remove(path: &Path, public: &PublicKey) -> Done {
    let Ok(text) = std::fs::read_to_string(path).map(Zeroizing::new) else {
        return Ok(());
    };
    let holds = PrivateKey::from_openssh(text.as_bytes())
        .is_ok_and(|key| key.public_key().key_data() == public.key_data());
    if !holds {
        return Ok(());
    }
    std::fs::remove_file(path).attempt(format!("remove `{}`", path.display()))
}
