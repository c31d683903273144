//! X.509-SVIDs (SPIFFE X509-SVID): a workload's own key signs for the session key, or a handshake of TLS; its certificate
//! says whose it is, and a root of the trust domain's bundle vouches for that. Here too times are read and never compared.

use std::sync::Arc;

use ascribe_core::encoding::{self, Bytes};
use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{
    self, Binding, Claims, Provider, SvidProof, TlsProof, svid_message, tls_message,
};
use ascribe_core::law::{Denied, TokenAsked};

use super::certificate::{Authority, Certificate, refuse};
use super::json::{Json, Object};
use super::keys::{Keys, Shown, Signed};
use super::{algorithm, claims, provider};

/// Most certificates: the workload's and two authorities between it and a root.
const MAX_CHAIN: usize = 3;
/// How long the hash of a handshake is, in bytes (RFC 8446, B.4).
const HASHES: [usize; 2] = [32, 48];
/// Longest life, in seconds.
const MAX_LIFE: i64 = 24 * 3600;

pub(super) fn check(
    known: &Provider,
    bundle: impl FnOnce() -> Result<Arc<Keys>, Denied>,
    token: &[u8],
    asked: &TokenAsked<'_>,
) -> Result<Claims, Denied> {
    let proof = Proof::read(token, asked)?;
    if proof.chain.is_empty() || proof.chain.len() > MAX_CHAIN {
        return refuse("svid-chain", "an X.509-SVID is one to three certificates");
    }
    let ders = proof.chain.iter().map(|Bytes(der)| der);
    let chain = ders
        .map(|der| Certificate::read(der))
        .collect::<Result<Vec<_>, _>>()?;
    let [leaf, authorities @ ..] = chain.as_slice() else {
        return refuse("svid-chain", "an X.509-SVID is one to three certificates");
    };
    let id = leaf.workload(&known.issuer)?;
    let mut last = leaf;
    for (below, authority) in authorities.iter().enumerate() {
        follows(last, &authority.as_authority(), &known.issuer, below)?;
        last = authority;
    }
    let (root, root_life) = root(&*bundle()?, last, authorities.len(), &known.issuer)?;
    check_possession(known, leaf, &proof)?;

    let lives = chain.iter().map(Certificate::life).chain([root_life]);
    // The path holds while all of its certificates do.
    let (begins, ends) = lives.fold((i64::MIN, i64::MAX), |(from, to), (first, last)| {
        (from.max(first), to.min(last))
    });
    let sane = claims::SANE.contains(&begins) && claims::SANE.contains(&ends);
    if !sane || ends <= begins {
        return Err(claims::bad_time(
            "the certificates are never valid together",
        ));
    }
    if ends.saturating_sub(begins) > MAX_LIFE {
        let message = "the certificate is good for longer than 24 h";
        return Err(Denied::new("token-life", message)
            .with_help("give workloads shorter certificates (SPIRE: `default_x509_svid_ttl`)"));
    }
    let said = Object::from([("sub".into(), Json::Text(id.into()))]);
    let mut about = provider::spiffe();
    if proof.binding == Binding::Tls {
        about.miss(
            "which server and which connection the workload's key signed for is the gateway's word",
        );
    }
    Ok(Claims {
        acr: None,
        amr: vec![],
        auth_time: None,
        binding: proof.binding,
        code: None,
        expires: claims::instant(ends),
        facts: claims::facts(&said, asked.facts)?,
        groups: vec![],
        issued: claims::instant(begins),
        key: root,
        managers: vec![],
        missing: about.missing,
        protection: None,
        run: None,
        subject: identity::subject(&known.issuer, id),
        trigger: None,
    })
}

/// Is a certificate issued by this authority, and may it be?
fn follows(
    issued: &Certificate<'_>,
    authority: &Authority,
    domain: &str,
    below: usize,
) -> Result<(), Denied> {
    if !issued.names(authority) {
        return refuse(
            "svid-chain",
            "each certificate is followed by its issuer's, and this one is not",
        );
    }
    authority.check_authority(domain, below)?;
    issued.check_signature(authority)
}

/// Thumbprint and life of the root that issued the last certificate of a chain. Roots may share a name: all of
/// that name are tried.
fn root(
    bundle: &Keys,
    last: &Certificate<'_>,
    below: usize,
    domain: &str,
) -> Result<(ContentDigest, (i64, i64)), Denied> {
    let mut reason = Denied::new(
        "svid-root",
        "no root of the trust domain's bundle issued the workload's certificate",
    )
    .with_help(
        "see that `jwks_uri` publishes the bundle of this trust domain, with `x5c` in its keys",
    );
    for (thumbprint, root) in bundle.roots() {
        // RFC 7517, 4.7: the key of the certificate is the key of the entry.
        if root.thumbprint != thumbprint || !last.names(root) {
            continue;
        }
        match follows(last, root, domain, below) {
            Ok(()) => return Ok((thumbprint, root.life)),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

/// What takes the place of a token: certificates, and what the workload's key signed.
struct Proof {
    binding: Binding,
    alg: String,
    chain: Vec<Bytes>,
    message: Vec<u8>,
    sig: Bytes,
}

impl Proof {
    /// One that signed for a key of the workload's, or a handshake.
    fn read(token: &[u8], asked: &TokenAsked<'_>) -> Result<Self, Denied> {
        if let Some(TlsProof {
            alg,
            chain,
            sig,
            transcript,
        }) = TlsProof::read(token)
        {
            if !HASHES.contains(&transcript.0.len()) {
                return refuse("svid-tls", "a handshake's hash has 32 or 48 bytes");
            }
            if alg == "RS256" {
                return refuse("svid-tls", "TLS 1.3 does not sign in this way");
            }
            return Ok(Self {
                binding: Binding::Tls,
                alg,
                chain,
                message: tls_message(&transcript.0),
                sig,
            });
        }
        let SvidProof { alg, chain, sig } = encoding::decode(token).map_err(|error| {
            let message = format!("the proof of an X.509-SVID is malformed: {error}");
            Denied::new("svid-form", message)
        })?;
        Ok(Self {
            binding: Binding::Key,
            alg,
            chain,
            message: svid_message(&identity::key_commitment(asked.key, asked.rz)),
            sig,
        })
    }
}

/// Whoever has the certificate alone gets nothing: its key signed for exactly this session key, or this handshake.
fn check_possession(known: &Provider, leaf: &Certificate<'_>, proof: &Proof) -> Result<(), Denied> {
    let signed = Signed {
        algorithm: algorithm(known, &proof.alg)?,
        name: &proof.alg,
        message: &proof.message,
        shown: Shown::Signature(&proof.sig.0),
    };
    leaf.key.usable(&signed, known)?;
    if leaf.key.verify(&signed) {
        return Ok(());
    }
    let (message, help) = match proof.binding {
        Binding::Tls => (
            "the workload's key has not signed this handshake",
            "connect again: each connection is signed for itself",
        ),
        _ => (
            "the workload's key has not signed for this session key",
            "log in again: each login makes a key, and the SVID's key signs for it",
        ),
    };
    Err(Denied::new("svid-possession", message).with_help(help))
}
