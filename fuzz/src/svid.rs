//! X.509-SVIDs. The private keys are the seeds below, so that what is behind the signatures is reached.

use ascribe_core::encoding::{self, Bytes, base64_std, base64url};
use ascribe_core::identity::{
    Binding, Claims, Provider, ProviderKind, SvidProof, TlsProof, key_commitment, svid_message,
    tls_message,
};
use ascribe_core::law::{Denied, Judge as _, TokenAsked};
use ascribe_core::statement::SshKey;
use ascribe_evidence::{SshSignatures, Unchecked, tls_proof};
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
        authn: None,
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
        managers: &[],
    };
    SshSignatures.token(&provider, bundle, proof, &asked)
}

/// Signs what the input holds of certificates and asks what they prove: the length of the workload's in two
/// bytes, the workload's, and the authority's between it and the root if there is more. None for what is not
/// in this form.
pub fn signed_svid(data: &[u8]) -> Option<Result<Claims, Denied>> {
    let message = svid_message(&key_commitment(&SshKey(SESSION_KEY.into()), &[7; 32]));
    let proof = SvidProof {
        alg: "EdDSA".into(),
        chain: chain(data)?,
        sig: Bytes(key(LEAF_SEED).sign(&message).to_bytes().to_vec()),
    };
    Some(check(&encoding::encode(&proof).ok()?, bundle().as_bytes()))
}

/// The same where the workload's key signed a handshake of TLS.
pub fn shown_in_tls(data: &[u8]) -> Option<Result<Claims, Denied>> {
    let chain: Vec<Vec<u8>> = chain(data)?.into_iter().map(|Bytes(der)| der).collect();
    let message = tls_message(&[7; 32]);
    let signature = key(LEAF_SEED).sign(&message).to_bytes();
    let proof = tls_proof(&chain, 0x0807, &message, &signature).ok()?;
    Some(check(&proof, bundle().as_bytes()))
}

fn chain(data: &[u8]) -> Option<Vec<Bytes>> {
    let (len, rest) = data.split_first_chunk::<2>()?;
    let (leaf, middle) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    Some(match middle {
        [] => vec![certificate(leaf, ROOT_SEED)],
        _ => vec![
            certificate(leaf, MIDDLE_SEED),
            certificate(middle, ROOT_SEED),
        ],
    })
}

fn bundle() -> String {
    let x = base64url(key(ROOT_SEED).verifying_key().as_bytes());
    let x5c = base64_std(ROOT);
    format!(
        r#"{{"keys":[{{"crv":"Ed25519","kty":"OKP","use":"x509-svid","x":"{x}","x5c":["{x5c}"]}}]}}"#
    )
}

/// X.509-SVIDs: proofs as they come, and certificates with the signatures that they need.
pub fn svid(data: &[u8]) {
    // No root vouches for any of it: certificates are read, and refused.
    assert!(judge(ProviderKind::SpiffeX509, b"{\"keys\":[]}", data).is_err());
    drop(Unchecked::of_certificate(data));
    // A signature of ECDSA as TLS has it, in one form.
    if let Ok(proof) = tls_proof(&[], 0x0403, &tls_message(&[7; 32]), data) {
        let proof: Result<TlsProof, _> = encoding::decode(&proof);
        assert!(proof.is_ok_and(|proof| proof.sig.0.len() == 64));
    }
    let (ours, tls) = (signed_svid(data), shown_in_tls(data));
    let good = |read: &Option<Result<Claims, Denied>>| read.as_ref().is_some_and(Result::is_ok);
    assert_eq!(good(&ours), good(&tls));
    if let (Some(Ok(claims)), Some(Ok(tls))) = (ours, tls) {
        assert_eq!(tls.binding, Binding::Tls);
        assert!(claims.issued < claims.expires);
        assert_eq!(claims.binding, Binding::Key);
        let id = claims.facts.first().map(|fact| fact.value.as_str());
        assert!(id.is_some_and(|id| id.starts_with("spiffe://example.org/")));
    }
}
