//! A provider's published keys (RFC 7517) and signatures by them (RFC 7518, RFC 8037).

use std::sync::OnceLock;

use ascribe_core::encoding::{base64url, from_base64_std, from_base64url};
use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{self, Provider, ProviderKind};
use ascribe_core::law::Denied;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents,
};

use super::certificate::{Authority, Certificate};
use super::gq;
use super::json::{self, Object};

/// Largest JWK Set, in bytes.
const MAX_SET: usize = 64 * 1024;
/// Most keys in it.
const MAX_KEYS: usize = 64;
/// Most members in it, those of all its objects together.
const MAX_MEMBERS: usize = 2048;

/// What a trust domain's bundle marks its roots with.
const ROOT: &str = "x509-svid";

/// A signature algorithm. Nothing else is one, whatever a provider's entry says: no `none`, and no HMAC,
/// whose key would be a secret that the verifier shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "PS256" => Self::Ps256,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// An RSA key, which is made ready for each way of padding when the first such signature comes.
#[derive(Debug)]
struct Rsa {
    parts: RsaPublicKeyComponents<Vec<u8>>,
    pkcs1: OnceLock<Option<ParsedPublicKey>>,
    pss: OnceLock<Option<ParsedPublicKey>>,
}

impl Rsa {
    fn new(n: Vec<u8>, e: Vec<u8>) -> Self {
        Self {
            parts: RsaPublicKeyComponents { n, e },
            pkcs1: OnceLock::new(),
            pss: OnceLock::new(),
        }
    }

    fn verify(
        &self,
        ready: &OnceLock<Option<ParsedPublicKey>>,
        how: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let key = ready.get_or_init(|| self.parts.to_parsed_public_key(how).ok());
        key.as_ref()
            .is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

/// A public key that passed every check of its own.
#[derive(Debug)]
enum Material {
    Rsa(Rsa),
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    /// Not with AWS-LC, which takes keys of low order.
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl Material {
    fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::Rsa(_), Algorithm::Rs256 | Algorithm::Ps256)
                | (Self::P256(_), Algorithm::Es256)
                | (Self::P384(_), Algorithm::Es384)
                | (Self::Ed25519(_), Algorithm::EdDsa)
        )
    }
}

/// One key of a set.
#[derive(Debug)]
pub(super) struct Key {
    /// The algorithm that it is for, where it says so.
    alg: Option<String>,
    /// The issuer that it is of, where the set says so.
    issuer: Option<String>,
    /// Its id, where it has one.
    kid: Option<String>,
    /// `use` and `key_ops` allow checking signatures.
    verifies: bool,
    /// `use`, where it says so.
    used: Option<String>,
    material: Material,
    pub(super) thumbprint: ContentDigest,
    /// The root of a trust domain whose key it is.
    root: Option<Root>,
}

/// A root of a trust domain.
#[derive(Debug)]
struct Root {
    /// Its certificate, in DER (X509-SVID, 6.2).
    der: Vec<u8>,
    /// What that says, read when it is first asked for; none where it is no good.
    read: OnceLock<Option<Authority>>,
}

impl Root {
    /// A bundle is checked as strictly as a chain; what fails vouches for nobody.
    fn authority(&self) -> Option<&Authority> {
        let read = || {
            let read = Certificate::read(&self.der).ok()?;
            Some(read.as_authority())
        };
        self.read.get_or_init(read).as_ref()
    }
}

/// A JWK Set's keys, and why others of it do not count.
#[derive(Debug)]
pub(crate) struct Keys {
    good: Vec<Key>,
    /// Of which key id each is, where it says so.
    bad: Vec<(Option<String>, Denied)>,
}

impl Keys {
    /// Reads a set. Keys of types that are not known are passed over; of the others each is checked, and
    /// one that fails is never tried. With a key id only keys of that id are read, and all of them: ids are not
    /// unique.
    pub(crate) fn read(body: &[u8], kid: Option<&str>) -> Result<Self, Denied> {
        if body.len() > MAX_SET {
            return Err(Denied::new("keys-size", "a JWK Set is larger than 64 KiB"));
        }
        let set = json::object(body, MAX_MEMBERS, "the provider's keys")
            .map_err(|e| Denied::new("keys-json", e.message))?;
        let list = set
            .get("keys")
            .and_then(json::Json::list)
            .ok_or_else(|| Denied::new("keys-form", "a JWK Set has no list `keys`"))?;
        if list.len() > MAX_KEYS {
            return Err(Denied::new("keys-count", "a JWK Set has more than 64 keys"));
        }
        let mut keys = Self {
            good: vec![],
            bad: vec![],
        };
        for item in list {
            let jwk = item
                .object()
                .ok_or_else(|| Denied::new("keys-form", "a key of a JWK Set is no object"))?;
            let own = jwk.get("kid").and_then(json::Json::text);
            if kid.is_some() && own != kid {
                continue;
            }
            match key(jwk) {
                Ok(Some(key)) => keys.good.push(key),
                Ok(None) => {}
                Err(reason) => keys.bad.push((own.map(str::to_owned), reason)),
            }
        }
        Ok(keys)
    }

    /// Thumbprints of the keys that may sign, in the set's order, each once.
    pub(crate) fn thumbprints(&self) -> Vec<ContentDigest> {
        let mut found = Vec::new();
        for key in self.good.iter().filter(|key| key.verifies) {
            if !found.contains(&key.thumbprint) {
                found.push(key.thumbprint);
            }
        }
        found
    }

    /// Roots of a trust domain: each one's thumbprint, and what its certificate says.
    pub(super) fn roots(&self) -> impl Iterator<Item = (ContentDigest, &Authority)> {
        let roots = self.good.iter().filter(|key| key.verifies);
        roots.filter_map(|key| Some((key.thumbprint, key.root.as_ref()?.authority()?)))
    }

    /// The one among these keys, with a key id among those of that id, that signed. All that fit are tried.
    pub(super) fn signer(
        &self,
        signed: &Signed<'_>,
        kid: Option<&str>,
        provider: &Provider,
    ) -> Result<&Key, Denied> {
        let named = |own: &Option<String>| kid.is_none() || own.as_deref() == kid;
        let mut reason = None;
        let mut tried = false;
        for key in self.good.iter().filter(|key| named(&key.kid)) {
            if let Err(e) = key.usable(signed, provider) {
                reason = Some(e);
                continue;
            }
            tried = true;
            if key.verify(signed) {
                return Ok(key);
            }
        }
        if tried {
            return Err(Denied::new(
                "token-signature",
                "the token's signature is not by the provider's key",
            )
            .with_help("give the ID token exactly as the provider issued it"));
        }
        Err(reason
            .or_else(|| {
                let mut bad = self.bad.iter();
                bad.find_map(|(own, reason)| named(own).then(|| reason.clone()))
            })
            .unwrap_or_else(|| {
                Denied::new("token-key", "the provider publishes no key that the token names")
                    .with_help("get a new token; if that has the same key, have the provider's keys fetched again")
            }))
    }
}

/// What was signed, and how the header says it was.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) name: &'a str,
    pub(super) message: &'a [u8],
    pub(super) shown: Shown<'a>,
}

/// What shows that it was signed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown<'a> {
    Signature(&'a [u8]),
    /// A proof that somebody knows the signature by this key, over a message of theirs.
    Proof {
        key: ContentDigest,
        proof: &'a [u8],
        over: &'a [u8],
    },
}

impl Key {
    pub(super) fn usable(&self, signed: &Signed<'_>, provider: &Provider) -> Result<(), Denied> {
        // A trust domain's bundle marks its keys for tokens in its own word (SPIFFE trust domain and bundle, 4.2.2).
        let used = match self.used.as_deref() {
            None | Some("sig") => true,
            Some("jwt-svid") => provider.kind == ProviderKind::Spiffe,
            Some(_) => false,
        };
        if !used || !self.verifies {
            return Err(Denied::new(
                "token-key-use",
                "the key that the token names is not for signatures",
            ));
        }
        if !self.material.fits(signed.algorithm) {
            let message = format!("the key that the token names is not for {}", signed.name);
            return Err(Denied::new("token-key-type", message));
        }
        if provider.kind == ProviderKind::Entra
            && !self
                .issuer
                .as_deref()
                .is_none_or(|known| covers(known, &provider.issuer))
        {
            return Err(Denied::new(
                "token-key-issuer",
                "the key that the token names is another issuer's",
            ));
        }
        if let Shown::Proof { key, .. } = signed.shown {
            let refuse = |why: &str| Err(Denied::new("token-proof-key", why));
            // Before anything is computed: a proof is checked under one key, whoever made it.
            if key != self.thumbprint {
                return refuse("the proof is for another key (`jkt`) than the provider's");
            }
            if self.proofs().is_none() {
                return refuse("proofs are read for RSA keys with the exponent 65537 alone");
            }
        }
        match self.alg.as_deref() {
            Some(alg) if alg != signed.name => {
                let message = format!(
                    "the key that the token names is for another algorithm than {}",
                    signed.name
                );
                Err(Denied::new("token-key-alg", message))
            }
            _ => Ok(()),
        }
    }

    /// The key that proofs of its signatures are made and checked with, if it is one.
    pub(super) fn proofs(&self) -> Option<gq::Key<'_>> {
        match &self.material {
            Material::Rsa(key) => gq::Key::new(&key.parts.n, &key.parts.e),
            _ => None,
        }
    }

    pub(super) fn verify(&self, signed: &Signed<'_>) -> bool {
        let message = signed.message;
        let signature = match signed.shown {
            Shown::Signature(signature) => signature,
            Shown::Proof { proof, over, .. } => {
                let key = self.proofs();
                return signed.algorithm == Algorithm::Rs256
                    && key.is_some_and(|key| key.verify(message, over, proof));
            }
        };
        match (&self.material, signed.algorithm) {
            (Material::Rsa(key), Algorithm::Rs256) => {
                key.verify(&key.pkcs1, &RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Material::Rsa(key), Algorithm::Ps256) => {
                key.verify(&key.pss, &RSA_PSS_2048_8192_SHA256, message, signature)
            }
            (Material::P256(key), Algorithm::Es256) | (Material::P384(key), Algorithm::Es384) => {
                key.verify_sig(message, signature).is_ok()
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => {
                ed25519_dalek::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            _ => false,
        }
    }
}

/// Entra publishes keys of several issuers in one set, and says of each whose it is. Most are every tenant's.
fn covers(known: &str, issuer: &str) -> bool {
    let Some((before, after)) = known.split_once("{tenantid}") else {
        return known == issuer;
    };
    let tenant = issuer
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    tenant.is_some_and(|tenant| !tenant.contains('/'))
}

/// A member that is a text, or absent.
fn optional(jwk: &Object<'_>, name: &str) -> Result<Option<String>, Denied> {
    match jwk.get(name) {
        None => Ok(None),
        Some(value) => value
            .text()
            .map(|text| Some(text.to_owned()))
            .ok_or_else(|| malformed(name)),
    }
}

fn malformed(name: &str) -> Denied {
    Denied::new(
        "token-key-form",
        format!("the key that the token names has a malformed `{name}`"),
    )
}

fn weak(why: &str) -> Denied {
    Denied::new(
        "token-key-weak",
        format!("the key that the token names is too weak: {why}"),
    )
}

/// Bytes of a member in base64url, and how it is written: canonical, so that a key has one thumbprint.
fn bytes<'a>(jwk: &'a Object<'a>, name: &str) -> Result<(Vec<u8>, &'a str), Denied> {
    let text = jwk
        .get(name)
        .and_then(json::Json::text)
        .ok_or_else(|| malformed(name))?;
    let bytes = from_base64url(text).ok_or_else(|| malformed(name))?;
    Ok((bytes, text))
}

/// None for a type or a curve that is not known.
fn key(jwk: &Object<'_>) -> Result<Option<Key>, Denied> {
    let curve = jwk.get("crv").and_then(json::Json::text);
    let (material, members) = match (jwk.get("kty").and_then(json::Json::text), curve) {
        (Some("RSA"), _) => rsa(jwk)?,
        (Some("EC"), Some(curve @ ("P-256" | "P-384"))) => ec(jwk, curve)?,
        (Some("OKP"), Some("Ed25519")) => ed25519(jwk)?,
        _ => return Ok(None),
    };
    let operations = jwk.get("key_ops").map(|ops| {
        let verify = json::Json::Text("verify".into());
        ops.list().is_some_and(|ops| ops.contains(&verify))
    });
    let used = optional(jwk, "use")?;
    let kid = optional(jwk, "kid")?;
    Ok(Some(Key {
        alg: optional(jwk, "alg")?,
        issuer: optional(jwk, "issuer")?,
        kid,
        verifies: operations.unwrap_or(true)
            && matches!(used.as_deref(), None | Some("sig" | "jwt-svid" | ROOT)),
        root: match used.as_deref() {
            Some(ROOT) => Some(root(jwk)?),
            _ => None,
        },
        used,
        material,
        // RFC 7638, 3: the required members in the order of their names, without spaces. All of them are base64url or
        // fixed words, so nothing is to be escaped.
        thumbprint: identity::thumbprint(&members),
    }))
}

/// The one certificate of a root (X509-SVID, 6.2), in the base64 of RFC 7517, 4.7.
fn root(jwk: &Object<'_>) -> Result<Root, Denied> {
    let chain = jwk.get("x5c").and_then(json::Json::list);
    let der = match chain {
        Some([json::Json::Text(one)]) => from_base64_std(one).ok_or_else(|| malformed("x5c"))?,
        _ => return Err(malformed("x5c")),
    };
    Ok(Root {
        der,
        read: OnceLock::new(),
    })
}

/// A key that comes with a certificate, as if it were a JWK of these members: the same rules hold for both.
fn from_members(members: &[(&str, &str)], bytes: &[(&str, &[u8])]) -> Result<Option<Key>, Denied> {
    let words = members
        .iter()
        .map(|(name, word)| ((*name).into(), json::Json::Text((*word).into())));
    let values = bytes
        .iter()
        .map(|(name, bytes)| ((*name).into(), json::Json::Text(base64url(bytes).into())));
    key(&words.chain(values).collect())
}

/// Modulus and exponent as DER has them, perhaps with a zero before the first byte.
pub(super) fn from_rsa(n: &[u8], e: &[u8]) -> Result<Option<Key>, Denied> {
    let plain = |number| <[u8]>::strip_prefix(number, &[0]).unwrap_or(number);
    from_members(&[("kty", "RSA")], &[("n", plain(n)), ("e", plain(e))])
}

pub(super) fn from_point(curve: &str, x: &[u8], y: &[u8]) -> Result<Option<Key>, Denied> {
    let (x_text, y_text) = (base64url(x), base64url(y));
    let (material, members) = point(curve, (x, &x_text), (y, &y_text))?;
    Ok(Some(Key {
        alg: None,
        issuer: None,
        kid: None,
        verifies: true,
        used: None,
        material,
        thumbprint: identity::thumbprint(&members),
        root: None,
    }))
}

pub(super) fn from_ed25519(x: &[u8]) -> Result<Option<Key>, Denied> {
    from_members(&[("kty", "OKP"), ("crv", "Ed25519")], &[("x", x)])
}

fn rsa(jwk: &Object<'_>) -> Result<(Material, String), Denied> {
    let ((n, n_text), (e, e_text)) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    // RFC 7518, 6.3.1: the fewest bytes, and so one spelling.
    let (Some(&top), Some(&last)) = (n.first(), n.last()) else {
        return Err(malformed("n"));
    };
    if top == 0 || last % 2 == 0 {
        return Err(malformed("n"));
    }
    let bits = n
        .len()
        .saturating_mul(8)
        .saturating_sub(top.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(weak(&format!(
            "RSA with {bits} bits; 2048 to 8192 are accepted"
        )));
    }
    if e.first() == Some(&0) || e.len() > 4 {
        return Err(malformed("e"));
    }
    let exponent = e
        .iter()
        .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    if exponent < 65_537 || exponent % 2 == 0 {
        return Err(weak("its RSA exponent is even or below 65537"));
    }
    let members = format!(r#"{{"e":"{e_text}","kty":"RSA","n":"{n_text}"}}"#);
    Ok((Material::Rsa(Rsa::new(n, e)), members))
}

fn ec(jwk: &Object<'_>, curve: &str) -> Result<(Material, String), Denied> {
    let ((x, x_text), (y, y_text)) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    point(curve, (&x, x_text), (&y, y_text))
}

/// A point of that curve, `P-256` or `P-384`, each coordinate with how it is written.
fn point(
    curve: &str,
    (x, x_text): (&[u8], &str),
    (y, y_text): (&[u8], &str),
) -> Result<(Material, String), Denied> {
    let size = if curve == "P-256" { 32 } else { 48 };
    // RFC 7518, 6.2.1.2: always the curve's full length.
    if x.len() != size || y.len() != size {
        return Err(malformed("x"));
    }
    let point = [&[4][..], x, y].concat();
    let algorithm = if curve == "P-256" {
        &ECDSA_P256_SHA256_FIXED
    } else {
        &ECDSA_P384_SHA384_FIXED
    };
    let key = ParsedPublicKey::new(algorithm, point)
        .map_err(|_| weak("its point is not on the curve"))?;
    let members = format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x_text}","y":"{y_text}"}}"#);
    let material = if curve == "P-256" {
        Material::P256(key)
    } else {
        Material::P384(key)
    };
    Ok((material, members))
}

fn ed25519(jwk: &Object<'_>) -> Result<(Material, String), Denied> {
    let (x, x_text) = bytes(jwk, "x")?;
    let key = <[u8; 32]>::try_from(x)
        .ok()
        .and_then(|x| ed25519_dalek::VerifyingKey::from_bytes(&x).ok())
        .ok_or_else(|| malformed("x"))?;
    // Under such a key one signature is good for every message.
    if key.is_weak() {
        return Err(weak("its point has a low order"));
    }
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x_text}"}}"#);
    Ok((Material::Ed25519(key), members))
}
