//! Proofs of tokens: of a token that is signed and proved here, so that what comes after the proof is reached; and
//! whatever else calls itself one.

use ascribe_core::encoding;
use ascribe_core::identity::{Claims, ProofHeader, ProviderKind, token_digest};
use ascribe_core::law::Denied;
use ascribe_core::statement::SshKey;
use ascribe_evidence::prove_token;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

use super::{SESSION_KEY, asked, judge, provider};

/// Whom the tokens are meant for.
pub(crate) const AUDIENCE: &str = "OPENPUBKEY-PKTOKEN:ascribe";
/// A key that everybody knows.
const KEY: &[u8] = include_bytes!("../rsa.der");
/// A proof that is good under it.
const KNOWN: &[u8] = include_bytes!("../corpus/proof/whole");

/// The set with the public key. Its modulus has 2048 bits.
fn keys(pair: &RsaKeyPair) -> String {
    // RSAPublicKey (RFC 8017, A.1.1): 9 bytes before the modulus, 5 after it with the exponent 65537.
    let modulus = pair.public_key().as_ref().get(9..265).unwrap_or_default();
    let n = encoding::base64url(modulus);
    format!(r#"{{"keys":[{{"e":"AQAB","kid":"k","kty":"RSA","n":"{n}"}}]}}"#)
}

fn pair() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(KEY).expect("a key in PKCS #8")
}

/// A proof of this header and these claims; none where no proof of them can be made.
pub fn proved(header: &[u8], claims: &[u8]) -> Result<String, Denied> {
    let (pair, key) = (pair(), SshKey(SESSION_KEY.into()));
    let signed = format!(
        "{}.{}",
        encoding::base64url(header),
        encoding::base64url(claims)
    );
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(
        &RSA_PKCS1_SHA256,
        &random,
        signed.as_bytes(),
        &mut signature,
    )
    .expect("a signature");
    let token = format!("{signed}.{}", encoding::base64url(&signature));
    let provider = provider(ProviderKind::Gitlab);
    // A run is the same again.
    let mut fixed = |bytes: &mut [u8]| {
        bytes.fill(0x5a);
        true
    };
    let (keys, asked) = (keys(&pair), asked(&key));
    let proof = prove_token(
        &provider,
        keys.as_bytes(),
        token.as_bytes(),
        &asked,
        &mut fixed,
    )?;
    assert_eq!(
        token_digest(proof.as_bytes()),
        token_digest(token.as_bytes())
    );
    Ok(proof)
}

/// What a proof of this header and these claims says.
pub(crate) fn signed(header: &[u8], claims: &[u8]) -> Result<Claims, Denied> {
    shown(proved(header, claims)?.as_bytes())
}

/// What this says, as a proof.
pub fn shown(proof: &[u8]) -> Result<Claims, Denied> {
    judge(ProviderKind::Gitlab, keys(&pair()).as_bytes(), proof)
}

/// A whole proof, the header of one, or the bytes in the signature's place.
pub fn proof(data: &[u8]) {
    if let Some(header) = ProofHeader::read(data) {
        assert!(encoding::encode(&header).is_ok_and(|bytes| bytes == data));
    }
    // Nothing is good but what was proved then, whatever stands beside it.
    assert!(shown(data).is_err() || data == KNOWN);
    let last = KNOWN.iter().rposition(|byte| *byte == b'.').unwrap_or(0);
    let (signed, known) = KNOWN.split_at(last + 1);
    let bytes = encoding::base64url(data).into_bytes();
    let other = [signed, &bytes].concat();
    assert!(shown(&other).is_err() || bytes == known);
}
