//! How a workload shows its X.509-SVID: the key of its certificate signs for the session key. It comes from the
//! agent's socket, or from the files that spiffe-helper writes.

use std::io::Read as _;
use std::path::Path;

use ascribe_core::encoding::{self, Bytes};
use ascribe_core::identity::{Provider, SvidProof, svid_message};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::Token;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// An X.509-SVID with its key. Not to be printed.
pub(crate) struct Svid {
    /// Certificates in DER, each one's issuer after it.
    pub(crate) chain: Vec<Bytes>,
    /// The private key of the first, in DER.
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl Svid {
    /// Reads the files that spiffe-helper writes.
    pub(crate) fn from_files(chain: &Path, key: &Path) -> Done<Self> {
        let certificates = CertificateDer::pem_slice_iter(&contents(chain)?)
            .map(|read| read.map(|der| Bytes(der.to_vec())))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unreadable(chain, &format!("{error:?}")))?;
        if certificates.is_empty() {
            return Err(unreadable(chain, "it holds no certificate"));
        }
        let read = PrivateKeyDer::from_pem_slice(&contents(key)?)
            .map_err(|error| unreadable(key, &format!("{error:?}")))?;
        Ok(Self {
            chain: certificates,
            key: Zeroizing::new(read.secret_der().to_vec()),
        })
    }

    /// What takes the place of a token.
    pub(crate) fn proof(self, provider: &Provider, commitment: &str) -> Done<Token> {
        let message = svid_message(commitment);
        let (alg, sig) = signed(&self.key, &provider.algorithms, &message).ok_or_else(|| {
            Failure::new(
                Kind::Failure,
                "the X.509-SVID has no RSA, P-256, P-384 or Ed25519 key that can be read",
            )
            .help("keys in files are unencrypted")
        })?;
        let proof = SvidProof {
            alg: alg.to_owned(),
            chain: self.chain,
            sig: Bytes(sig),
        };
        let text = encoding::encode(&proof).attempt("write the proof of the X.509-SVID")?;
        let text = String::from_utf8(text).attempt("write the proof of the X.509-SVID")?;
        Ok(Token::new(text))
    }
}

fn contents(path: &Path) -> Done<Zeroizing<Vec<u8>>> {
    let shown = format!("read `{}`", path.display());
    let file = std::fs::File::open(path).attempt(&shown)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .attempt(&shown)?;
    Ok(bytes)
}

fn unreadable(path: &Path, why: &str) -> Failure {
    Failure::new(
        Kind::Failure,
        format!("`{}` cannot be used: {why}", path.display()),
    )
    .help("give the files that spiffe-helper writes (`svid.pem`, `svid_key.pem`)")
}

/// The algorithm's name and the signature; none for a key of no known type.
fn signed(der: &[u8], algorithms: &[String], message: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let random = SystemRandom::new();
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some(("EdDSA", pair.sign(message).as_ref().to_vec()));
    }
    for (name, algorithm) in [
        ("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm, der) {
            return Some((name, pair.sign(&random, message).ok()?.as_ref().to_vec()));
        }
    }
    let pair = RsaKeyPair::from_pkcs8(der)
        .or_else(|_| RsaKeyPair::from_der(der))
        .ok()?;
    // One that the provider's entry has; if it has none, the server says so.
    let (name, padding): (_, &'static dyn aws_lc_rs::signature::RsaEncoding) =
        if algorithms.iter().any(|known| known == "RS256") {
            ("RS256", &RSA_PKCS1_SHA256)
        } else {
            ("PS256", &RSA_PSS_SHA256)
        };
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &random, message, &mut signature).ok()?;
    Some((name, signature))
}
