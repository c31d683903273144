//! Evidence keys: openings are encrypted with AES-256-GCM under one key per request, session and
//! person. Those keys lie wrapped in the journal; the key that wraps them lies outside the data
//! directory. Destroying a wrapped key erases what it opens.
//!
//! Associated data binds the log, the scope and the entry; the openings' field names are inside
//! the ciphertext and are bound once more by the entry's commitments.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use ascribe_core::encoding;
use ascribe_core::record::Scope;
use ascribe_core::sealed::Opening;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::clock::Rng;
use crate::error::{self, LedgerError};

/// A 32-byte secret. Cleared on drop; says nothing of itself.
pub struct Secret(Zeroizing<[u8; 32]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(crate) fn draw(rng: &dyn Rng) -> Result<Self, LedgerError> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill(&mut *bytes)?;
        Ok(Self(bytes))
    }
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Reads exactly 32 bytes.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn load(path: &Path) -> Result<Self, LedgerError> {
        let mode = fs::metadata(path)
            .map_err(error::io("read the key", path))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(error::file(path, "can be read by others; `chmod 600` it"));
        }
        let bytes = Zeroizing::new(fs::read(path).map_err(error::io("read the key", path))?);
        let key: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| error::file(path, "is not a key of 32 bytes"))?;
        Ok(Self(Zeroizing::new(key)))
    }
    /// Writes a new file that only its owner can read.
    pub(crate) fn store(&self, path: &Path) -> Result<(), LedgerError> {
        let write = || {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&*self.0)?;
            file.sync_all()?;
            // The name must outlast a power loss too.
            match path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => fs::File::open(dir)?.sync_all(),
                Some(_) | None => fs::File::open(".")?.sync_all(),
            }
        };
        write().map_err(error::io("create the key", path))
    }
    fn aead(&self) -> Result<LessSafeKey, LedgerError> {
        let key = UnboundKey::new(&AES_256_GCM, &*self.0);
        key.map(LessSafeKey::new)
            .map_err(|_| LedgerError::Crypto("use an evidence key"))
    }
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plain: Vec<u8>,
    ) -> Result<Vec<u8>, LedgerError> {
        let mut buffer = plain;
        self.aead()?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut buffer,
            )
            .map_err(|_| LedgerError::Crypto("encrypt sealed content"))?;
        Ok(buffer)
    }
    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, LedgerError> {
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let len = self
            .aead()?
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                buffer.as_mut_slice(),
            )
            .map_err(|_| {
                LedgerError::Crypto("decrypt sealed content: wrong key, or it was changed")
            })?
            .len();
        buffer.truncate(len);
        Ok(buffer)
    }
}

fn scope_name(scope: &Scope) -> String {
    match scope {
        Scope::None => "none".to_owned(),
        Scope::Person(id) => id.to_string(),
        Scope::Request(id) => id.to_string(),
        Scope::Session(id) => id.to_string(),
        Scope::Login(id) => format!("login {id}"),
        Scope::Resource(id) => id.to_string(),
    }
}

fn key_aad(origin: &str, scope: &Scope) -> Vec<u8> {
    format!("ascribe/key/v1\0{origin}\0{}", scope_name(scope)).into_bytes()
}

fn opening_aad(origin: &str, scope: &Scope, index: u64) -> Vec<u8> {
    format!(
        "ascribe/opening/v1\0{origin}\0{}\0{index}",
        scope_name(scope)
    )
    .into_bytes()
}

/// Reads openings; needs only the wrapping key.
#[derive(Debug)]
pub struct Opener {
    origin: String,
    wrap: Secret,
}

impl Opener {
    /// For the log `origin`.
    pub fn new(origin: &str, wrap: Secret) -> Self {
        Self {
            origin: origin.to_owned(),
            wrap,
        }
    }
    fn unwrap(&self, scope: &Scope, wrapped: &[u8]) -> Result<Secret, LedgerError> {
        let bad = LedgerError::Crypto("unwrap an evidence key: it is malformed");
        let Some((nonce, sealed)) = wrapped.split_first_chunk::<NONCE_LEN>() else {
            return Err(bad);
        };
        let plain = self
            .wrap
            .open(*nonce, &key_aad(&self.origin, scope), sealed)?;
        let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| bad)?;
        Ok(Secret(Zeroizing::new(key)))
    }
    /// The openings of entry `index`, from one encrypted bundle and its scope's wrapped key.
    ///
    /// # Errors
    /// When a key is wrong or something was changed.
    pub fn open(
        &self,
        wrapped: &[u8],
        index: u64,
        scope: &Scope,
        nonce: [u8; NONCE_LEN],
        ciphertext: &[u8],
    ) -> Result<Vec<Opening>, LedgerError> {
        let key = self.unwrap(scope, wrapped)?;
        let plain = key.open(nonce, &opening_aad(&self.origin, scope, index), ciphertext)?;
        encoding::decode(&plain)
            .map_err(|_| LedgerError::Crypto("read sealed content: it is malformed"))
    }
}

/// One encrypted bundle, and the scope's wrapped key when it is new.
pub(crate) struct Sealed {
    pub(crate) new_key: Option<Vec<u8>>,
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) ciphertext: Vec<u8>,
}

const CACHE: usize = 4096;

/// Seals openings.
pub(crate) struct Vault {
    pub(crate) opener: std::sync::Arc<Opener>,
    cache: HashMap<Scope, Secret>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    pub(crate) fn new(opener: std::sync::Arc<Opener>) -> Self {
        Self {
            opener,
            cache: HashMap::new(),
        }
    }

    fn nonce(rng: &dyn Rng) -> Result<[u8; NONCE_LEN], LedgerError> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce)?;
        Ok(nonce)
    }

    /// Is it time to [`Vault::forget`]?
    pub(crate) fn is_full(&self) -> bool {
        self.cache.len() >= CACHE
    }

    /// Forgets all keys. Every one of them must be found by `stored` from then on.
    pub(crate) fn forget(&mut self) {
        self.cache.clear();
    }

    /// `stored` finds the scope's wrapped key, if the journal or this batch has it already. It is
    /// asked only about scopes that are not known here.
    pub(crate) fn seal(
        &mut self,
        rng: &dyn Rng,
        scope: &Scope,
        index: u64,
        openings: &[&Opening],
        stored: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Sealed, LedgerError> {
        let mut new_key = None;
        if !self.cache.contains_key(scope) {
            let key = match stored() {
                Some(wrapped) => self.opener.unwrap(scope, &wrapped)?,
                None => {
                    let key = Secret::draw(rng)?;
                    let nonce = Self::nonce(rng)?;
                    let aad = key_aad(&self.opener.origin, scope);
                    let mut wrapped = nonce.to_vec();
                    wrapped.extend(self.opener.wrap.seal(nonce, &aad, key.bytes().to_vec())?);
                    new_key = Some(wrapped);
                    key
                }
            };
            self.cache.insert(scope.clone(), key);
        }
        let key = self
            .cache
            .get(scope)
            .ok_or(LedgerError::Crypto("find an evidence key"))?;
        let plain = encoding::encode(&openings)
            .map_err(|_| LedgerError::Crypto("encode sealed content"))?;
        let nonce = Self::nonce(rng)?;
        let aad = opening_aad(&self.opener.origin, scope, index);
        Ok(Sealed {
            new_key,
            nonce,
            ciphertext: key.seal(nonce, &aad, plain)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ascribe_core::id::SessionId;

    use super::*;
    use crate::SystemRng;

    #[test]
    fn a_bundle_opens_only_where_it_belongs() {
        let scope = Scope::Session(SessionId::new([1; 16]));
        let opening = Opening::new("command", [2; 32], b"id".to_vec());
        let wrap = [9; 32];
        let opener = |origin: &str| Opener::new(origin, Secret(Zeroizing::new(wrap)));
        let mut vault = Vault::new(Arc::new(opener("a")));
        let sealed = vault
            .seal(&SystemRng, &scope, 5, &[&opening], || None)
            .unwrap();
        let key = sealed.new_key.unwrap();
        let open = |opener: &Opener, index, scope: &Scope, bytes: &[u8]| {
            opener.open(&key, index, scope, sealed.nonce, bytes)
        };
        assert_eq!(
            open(&opener("a"), 5, &scope, &sealed.ciphertext).unwrap(),
            [opening]
        );
        let other = Scope::Session(SessionId::new([2; 16]));
        let mut changed = sealed.ciphertext.clone();
        changed[0] ^= 1;
        assert!(open(&opener("b"), 5, &scope, &sealed.ciphertext).is_err());
        assert!(open(&opener("a"), 6, &scope, &sealed.ciphertext).is_err());
        assert!(open(&opener("a"), 5, &other, &sealed.ciphertext).is_err());
        assert!(open(&opener("a"), 5, &scope, &changed).is_err());
        assert!(
            opener("a")
                .open(&key[..20], 5, &scope, sealed.nonce, &sealed.ciphertext)
                .is_err()
        );
    }

    #[test]
    fn secrets_say_nothing() {
        let secret = Secret(Zeroizing::new([0x41; 32]));
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(
            format!("{:?}", Opener::new("a", secret)),
            "Opener { origin: \"a\", wrap: Secret }"
        );
    }
}
