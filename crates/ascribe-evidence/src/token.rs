//! Tokens of identity providers: a compact JWS (RFC 7515) over claims (RFC 7519), checked against the bytes of
//! a JWK Set. Pure: times are read, and never compared with a clock.
//!
//! The signature is checked before any claim is read. See docs/spec/token.md for the rules and their sources.

mod certificate;
mod claims;
mod gq;
mod json;
mod keys;
mod proof;
mod provider;
mod svid;
mod tls;

use std::sync::Arc;

use ascribe_core::encoding::from_base64url;
use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{Claims, Fact, Provider, ProviderKind};
use ascribe_core::law::{Denied, TokenAsked};

use json::{Json, Object};
pub(crate) use keys::Keys;
use keys::{Algorithm, Shown, Signed};
pub use tls::tls_proof;
use zeroize::Zeroizing;

/// Largest token, in bytes.
const MAX_TOKEN: usize = 64 * 1024;
/// Most members in header or claims, those of all their objects together.
const MAX_MEMBERS: usize = 256;
/// Longest key id, in bytes.
const MAX_KID: usize = 256;

/// RFC 7638 thumbprints of the keys of a JWK Set (RFC 7517, 5) that can sign tokens, each once, in the set's order.
/// An empty list is what a provider publishes that withdraws all of them.
///
/// # Errors
/// When the bytes are no JWK Set, or a larger one than any provider publishes.
pub fn key_thumbprints(body: &[u8]) -> Result<Vec<ContentDigest>, Denied> {
    Ok(Keys::read(body, None)?.thumbprints())
}

/// See [`ascribe_core::law::Judge::token`]. `keys` reads the provider's keys, at least those of a key id.
pub(crate) fn check(
    provider: &Provider,
    keys: impl FnOnce(Option<&str>) -> Result<Arc<Keys>, Denied>,
    token: &[u8],
    asked: &TokenAsked<'_>,
) -> Result<Claims, Denied> {
    check_size(token)?;
    if provider.kind == ProviderKind::SpiffeX509 {
        return svid::check(provider, || keys(None), token, asked);
    }
    let parts = Parts::split(token)?;
    let header = json::object(&parts.header, MAX_MEMBERS, "the token's header")?;
    if provider.takes_proofs() {
        return proof::check(provider, keys, (&parts, &header), asked);
    }
    let name = header.get("alg").and_then(Json::text).unwrap_or_default();
    let algorithm = algorithm(provider, name)?;
    check_header(provider.kind, &header)?;
    let kid = kid(&header)?;
    let signed = Signed {
        algorithm,
        name,
        message: parts.signed,
        shown: Shown::Signature(&parts.signature),
    };
    let key = keys(kid)?.signer(&signed, kid, provider)?.thumbprint;
    let payload = json::object(&parts.payload, MAX_MEMBERS, "the token's claims")?;
    claims::read(provider, &payload, (key, None), asked)
}

/// Turns a token that binds no key into a proof that whoever made it held the token, for exactly the session key of
/// `asked` (OpenPubkey's `GQ256`). The provider's signature stays here; what comes out is no token any more, and
/// binds no other key. `random` fills a slice with random bytes, or says false.
///
/// # Errors
/// When it is no token of this provider that is signed with RS256 by one of `keys`.
pub fn prove_token(
    provider: &Provider,
    keys: &[u8],
    token: &[u8],
    asked: &TokenAsked<'_>,
    random: &mut dyn FnMut(&mut [u8]) -> bool,
) -> Result<String, Denied> {
    check_size(token)?;
    proof::make(provider, keys, token, asked, random)
}

fn check_size(token: &[u8]) -> Result<(), Denied> {
    if token.len() > MAX_TOKEN {
        return Err(Denied::new("token-size", "a token is larger than 64 KiB"));
    }
    Ok(())
}

/// What a token says of itself, of which nothing was checked: it tells whose token to check it as, and no more.
#[derive(Debug)]
pub struct Unchecked(Object<'static>);

impl Unchecked {
    /// Reads a token's claims.
    ///
    /// # Errors
    /// When it is no token in form.
    pub fn read(token: &[u8]) -> Result<Self, Denied> {
        check_size(token)?;
        let parts = Parts::split(token)?;
        let claims = json::object(&parts.payload, MAX_MEMBERS, "the token's claims")?;
        Ok(Self(json::owned(claims)))
    }

    /// Reads the SPIFFE ID that a certificate begins its URIs with; none for a certificate that names none.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let id = certificate::spiffe_id(der)?;
        Some(Self(Object::from([("sub".into(), Json::Text(id.into()))])))
    }

    /// Does it call itself one of this provider?
    pub fn is_issued_by(&self, provider: &Provider) -> bool {
        claims::is_issued_by(provider, &self.0)
    }

    /// The same, and meant for us?
    pub fn is_meant_for(&self, provider: &Provider) -> bool {
        claims::is_meant_for(provider, &self.0)
    }

    /// The claims of these names, as [`ascribe_core::law::Judge::token`] has them; none where it would refuse.
    pub fn facts(&self, names: &[&str]) -> Option<Vec<Fact>> {
        claims::facts(&self.0, names).ok()
    }
}

/// A compact JWS, taken apart (RFC 7515, 7.1).
struct Parts<'a> {
    header: Vec<u8>,
    payload: Vec<u8>,
    /// Where the token binds no key, whoever knows it can.
    signature: Zeroizing<Vec<u8>>,
    /// What was signed: header and payload as they are written.
    signed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(token: &'a [u8]) -> Result<Self, Denied> {
        let malformed = |message: &str| {
            Denied::new("token-form", message)
                .with_help("give the ID token as it was issued, without quotes or line ends")
        };
        let text = std::str::from_utf8(token).map_err(|_| malformed("a token is not text"))?;
        let parts: Vec<&str> = text.split('.').collect();
        let &[header, payload, signature] = parts.as_slice() else {
            return Err(malformed("a token is not three parts with dots between"));
        };
        let decode = |part: &str| {
            from_base64url(part)
                .filter(|bytes| !bytes.is_empty())
                .ok_or_else(|| {
                    malformed(
                        "a part of the token is empty or not canonical base64url without padding",
                    )
                })
        };
        Ok(Self {
            header: decode(header)?,
            payload: decode(payload)?,
            signature: Zeroizing::new(decode(signature)?),
            signed: text
                .rsplit_once('.')
                .map_or(&[][..], |(signed, _)| signed.as_bytes()),
        })
    }

    /// Header and payload as they are written.
    fn texts(&self) -> (&'a str, &'a str) {
        let text = std::str::from_utf8(self.signed).unwrap_or_default();
        text.split_once('.').unwrap_or_default()
    }
}

/// The algorithm that the token names, if the provider's entry has it (RFC 8725, 3.1).
fn algorithm(provider: &Provider, name: &str) -> Result<Algorithm, Denied> {
    if provider.algorithms.iter().any(|known| known == name)
        && let Some(algorithm) = Algorithm::named(name)
    {
        return Ok(algorithm);
    }
    let shown = ascribe_core::text::clean(name, 40);
    let message = format!(
        "the token is signed with `{shown}`, which does not count for {}",
        provider.name
    );
    Err(Denied::new("token-alg", message))
}

/// Nothing in a header may say where the key is, how else the token is to be read, or that it is no ID token.
fn check_header(kind: ProviderKind, header: &Object<'_>) -> Result<(), Denied> {
    for (name, code, why) in [
        (
            "crit",
            "token-crit",
            "demands extensions; none is known here",
        ),
        (
            "b64",
            "token-crit",
            "demands extensions; none is known here",
        ),
        ("zip", "token-zip", "says that it is compressed"),
        ("jwk", "token-header-key", "brings a key of its own"),
        ("jku", "token-header-key", "says where its key is"),
        ("x5c", "token-header-key", "brings a key of its own"),
        ("x5u", "token-header-key", "says where its key is"),
    ] {
        if header.contains_key(name) {
            return Err(Denied::new(code, format!("the token {why} (`{name}`)")));
        }
    }
    match header.get("typ").map(Json::text) {
        None => Ok(()),
        Some(Some(typ)) if typ.eq_ignore_ascii_case("JWT") => Ok(()),
        // JWT-SVID, 2.2.
        Some(Some("JOSE")) if kind == ProviderKind::Spiffe => Ok(()),
        Some(_) => Err(claims::no_identity("its type (`typ`) is not `JWT`")),
    }
}

/// The key's id: a name to compare, never a place to look at.
fn kid<'a>(header: &'a Object<'_>) -> Result<Option<&'a str>, Denied> {
    let Some(kid) = header.get("kid") else {
        return Ok(None);
    };
    match kid.text() {
        Some(kid) if (1..=MAX_KID).contains(&kid.len()) && !kid.contains(char::is_control) => {
            Ok(Some(kid))
        }
        _ => Err(Denied::new(
            "token-kid",
            "the token's key id (`kid`) is not a short text",
        )),
    }
}
