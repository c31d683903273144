//! Pure checking of what others signed: SSHSIG signatures, SSH public keys and tokens of identity providers.
//!
//! In scope: parsing and verifying, and the one proof whose form is nobody else's ([`prove_token`]). Out of scope: who
//! may sign what (that is the law), and I/O.
//! Start from [`SshSignatures`]; whoever judges many logins takes a [`Checker`].

mod token;

use std::sync::{Arc, Mutex, PoisonError};

use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{Claims, Provider};
use ascribe_core::law::{Denied, Judge, TokenAsked};
use ascribe_core::statement::SshKey;
use ssh_key::{Algorithm, EcdsaCurve, LineEnding, PublicKey, SshSig};
use token::Keys;
pub use token::{Unchecked, key_thumbprints, prove_token, tls_proof};

/// Largest SSHSIG blob that is looked at, in bytes.
const MAX_SIGNATURE: usize = 4096;
/// The flag of FIDO's user presence.
const USER_PRESENT: u8 = 1;

/// Why a key or a signature cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not a line of a `.pub` file.
    #[error("not an OpenSSH public key (a line of a `.pub` file)")]
    PublicKey,
    /// The key's type is not accepted.
    #[error(
        "keys of type `{0}` are not accepted; use Ed25519 or ECDSA P-256, alone or as a security key"
    )]
    KeyType(String),
    /// Not an armoured SSHSIG signature.
    #[error("not an SSH signature as `ssh-keygen -Y sign` writes it")]
    Armour,
}

fn accepted(key: &PublicKey) -> bool {
    matches!(
        key.algorithm(),
        Algorithm::Ed25519
            | Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256
            }
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
    )
}

/// Did somebody touch the key for this signature? Other keys cannot tell. A security key signs flags and a
/// counter with the message and they end its signature, a byte and four (OpenSSH `PROTOCOL.u2f`); the
/// library checks the signature and no flag.
fn touched(key: &PublicKey, sig: &SshSig) -> bool {
    if !matches!(
        key.algorithm(),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    ) {
        return true;
    }
    let ending = sig.signature_bytes().last_chunk::<5>();
    ending.is_some_and(|[flags, ..]| flags & USER_PRESENT != 0)
}

fn plain(key: &PublicKey) -> Option<SshKey> {
    let line = PublicKey::from(key.key_data().clone()).to_openssh().ok()?;
    let mut words = line.split(' ');
    Some(SshKey(format!("{} {}", words.next()?, words.next()?)))
}

/// Reads one line of a `.pub` file; the comment is dropped.
///
/// # Errors
/// When it is not a public key, or of a type that is not accepted.
pub fn parse_public_key(line: &str) -> Result<SshKey, EvidenceError> {
    let key = PublicKey::from_openssh(line.trim()).map_err(|_| EvidenceError::PublicKey)?;
    if !accepted(&key) {
        return Err(EvidenceError::KeyType(key.algorithm().as_str().to_owned()));
    }
    plain(&key).ok_or(EvidenceError::PublicKey)
}

/// The blob inside the armour of `ssh-keygen -Y sign`.
///
/// # Errors
/// When the armour or its base64 is damaged.
pub fn dearmour(text: &str) -> Result<Vec<u8>, EvidenceError> {
    let body = text
        .trim()
        .strip_prefix("-----BEGIN SSH SIGNATURE-----")
        .and_then(|rest| rest.strip_suffix("-----END SSH SIGNATURE-----"))
        .ok_or(EvidenceError::Armour)?;
    let joined: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    ascribe_core::encoding::from_base64_std(&joined).ok_or(EvidenceError::Armour)
}

/// Checks SSHSIG signatures (OpenSSH `PROTOCOL.sshsig`) and tokens of identity providers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SshSignatures;

impl Judge for SshSignatures {
    fn sshsig(&self, namespace: &str, message: &[u8], sig: &[u8]) -> Option<SshKey> {
        // The version is not among the signed bytes, and the library lets version 0 pass.
        if sig.len() > MAX_SIGNATURE || !sig.starts_with(b"SSHSIG\x00\x00\x00\x01") {
            return None;
        }
        let armoured = ascribe_core::statement::Signed {
            text: String::new(),
            sig: ascribe_core::encoding::Bytes(sig.to_vec()),
        }
        .armoured();
        let parsed = SshSig::from_pem(armoured.as_bytes()).ok()?;
        // One signature has one spelling: what the library would write is what was given.
        if dearmour(&parsed.to_pem(LineEnding::LF).ok()?).ok()? != sig {
            return None;
        }
        let key = PublicKey::from(parsed.public_key().clone());
        if !accepted(&key) {
            return None;
        }
        key.verify(namespace, message, &parsed).ok()?;
        if touched(&key, &parsed) {
            plain(&key)
        } else {
            None
        }
    }

    fn token(
        &self,
        provider: &Provider,
        keys: &[u8],
        token: &[u8],
        asked: &TokenAsked<'_>,
    ) -> Result<Claims, Denied> {
        let read = |kid: Option<&str>| Keys::read(keys, kid).map(Arc::new);
        token::check(provider, read, token, asked)
    }

    fn provider_keys(&self, body: &[u8]) -> Result<Vec<ContentDigest>, Denied> {
        key_thumbprints(body)
    }
}

/// Sets of keys that a [`Checker`] keeps: as many as a log has providers.
const MAX_SETS: usize = 64;

/// Checks what [`SshSignatures`] checks, and keeps the newest sets of providers' keys parsed: whoever judges
/// many logins reads the same set again and again.
#[derive(Debug, Default)]
pub struct Checker {
    /// The bytes of each set and what they say, the newest in use last.
    sets: Mutex<Vec<(Vec<u8>, Arc<Keys>)>>,
}

impl Checker {
    /// None of them kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn keys(&self, body: &[u8]) -> Result<Arc<Keys>, Denied> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = sets.iter().rposition(|(known, _)| known == body) {
            let known = sets.remove(at);
            let keys = Arc::clone(&known.1);
            sets.push(known);
            return Ok(keys);
        }
        let keys = Arc::new(Keys::read(body, None)?);
        if sets.len() >= MAX_SETS {
            sets.remove(0);
        }
        sets.push((body.to_vec(), Arc::clone(&keys)));
        Ok(keys)
    }
}

impl Judge for Checker {
    fn sshsig(&self, namespace: &str, message: &[u8], sig: &[u8]) -> Option<SshKey> {
        SshSignatures.sshsig(namespace, message, sig)
    }

    fn token(
        &self,
        provider: &Provider,
        keys: &[u8],
        token: &[u8],
        asked: &TokenAsked<'_>,
    ) -> Result<Claims, Denied> {
        token::check(provider, |_| self.keys(keys), token, asked)
    }

    fn provider_keys(&self, body: &[u8]) -> Result<Vec<ContentDigest>, Denied> {
        Ok(self.keys(body)?.thumbprints())
    }
}

#[cfg(test)]
mod tests;
