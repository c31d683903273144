//! X.509-SVIDs. The private keys are the seeds below, so that what is behind the signatures is reached.

use ascribe_core::encoding::{self, Bytes, base64_std, base64url};
use ascribe_core::identity::{
    Binding, Claims, Provider, ProviderKind, SvidProof, key_commitment, svid_message,
};
use ascribe_core::law::{Denied, Judge as _, TokenAsked};
use ascribe_core::statement::SshKey;
use ascribe_evidence::SshSignatures;
use ed25519_dalek::{Signer as _, SigningKey};

use super::{SESSION_KEY, judge};

/// The root of the corpus's certificates; they are made with `openssl` from these seeds, repeated 32 times.
const ROOT: &[u8] = include_bytes!("../svid-root.der");
const ROOT_SEED: u8 = 9;
const MIDDLE_SEED: u8 = 6;
const LEAF_SEED: u8 = 8;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A DER element with this tag.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short < 0x80 => out.push(short),
        (_, Ok(long)) => out.extend([&[0x82], long.to_be_bytes().as_slice()].concat()),
        _ => return Vec::new(),
    }
    out.extend_from_slice(content);
    out
}

/// What is to be signed, as a certificate that is signed with Ed25519.
fn certificate(tbs: &[u8], signer: u8) -> Bytes {
    let signature = key(signer).sign(tbs).to_bytes();
    let bits = der(3, &[&[0], signature.as_slice()].concat());
    let algorithm = der(0x30, &der(6, &[0x2b, 0x65, 0x70]));
    Bytes(der(0x30, &[tbs, &algorithm, &bits].concat()))
}

fn check(proof: &[u8], bundle: &[u8]) -> Result<Claims, Denied> {
    let provider = Provider {
        algorithms: vec!["EdDSA".into()],
        audience: String::new(),
        issuer: "spiffe://example.org".into(),
        jwks_uri: String::new(),
        kind: ProviderKind::SpiffeX509,
        max_keys_age_seconds: None,
        name: String::new(),
        observers: None,
        withdrawn: false,
    };
    let asked = TokenAsked {
        key: &SshKey(SESSION_KEY.into()),
        rz: &[7; 32],
        facts: &["sub"],
        groups: &[],
    };
    SshSignatures.token(&provider, bundle, proof, &asked)
}

/// Signs what the input holds of certificates and asks what they prove: the length of the workload's in two
/// bytes, the workload's, and the authority's between it and the root if there is more. None for what is not
/// in this form.
pub fn signed_svid(data: &[u8]) -> Option<Result<Claims, Denied>> {
    let (len, rest) = data.split_first_chunk::<2>()?;
    let (leaf, middle) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let chain = match middle {
        [] => vec![certificate(leaf, ROOT_SEED)],
        _ => vec![
            certificate(leaf, MIDDLE_SEED),
            certificate(middle, ROOT_SEED),
        ],
    };
    let message = svid_message(&key_commitment(&SshKey(SESSION_KEY.into()), &[7; 32]));
    let proof = SvidProof {
        alg: "EdDSA".into(),
        chain,
        sig: Bytes(key(LEAF_SEED).sign(&message).to_bytes().to_vec()),
    };
    let x = base64url(key(ROOT_SEED).verifying_key().as_bytes());
    let x5c = base64_std(ROOT);
    let bundle = format!(
        r#"{{"keys":[{{"crv":"Ed25519","kty":"OKP","use":"x509-svid","x":"{x}","x5c":["{x5c}"]}}]}}"#
    );
    Some(check(&encoding::encode(&proof).ok()?, bundle.as_bytes()))
}

/// X.509-SVIDs: proofs as they come, and certificates with the signatures that they need.
pub fn svid(data: &[u8]) {
    // No root vouches for any of it: certificates are read, and refused.
    assert!(judge(ProviderKind::SpiffeX509, b"{\"keys\":[]}", data).is_err());
    if let Some(Ok(claims)) = signed_svid(data) {
        assert!(claims.issued < claims.expires);
        assert_eq!(claims.binding, Binding::Key);
        let id = claims.facts.first().map(|fact| fact.value.as_str());
        assert!(id.is_some_and(|id| id.starts_with("spiffe://example.org/")));
    }
}
