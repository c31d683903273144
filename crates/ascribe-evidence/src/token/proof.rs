//! Proofs that stand in for tokens which bind no key (OpenPubkey's `GQ256`): the token's own header and claims, a header
//! that commits to the session key, and in the signature's place a proof over both by somebody who knew it.

use std::sync::Arc;

use ascribe_core::encoding::{base64url, encode, from_base64url};
use ascribe_core::identity::{self, Claims, ProofHeader, Provider};
use ascribe_core::law::{Denied, TokenAsked};

use super::gq::Random;
use super::json::{self, Json, Object};
use super::keys::{Algorithm, Keys, Shown, Signed};
use super::{MAX_MEMBERS, Parts, algorithm, check_header, claims, kid};

fn malformed(why: &str) -> Denied {
    Denied::new("token-proof-form", format!("the proof of a token {why}"))
        .with_help("make it anew: `ascribe login --workload NAME`")
}

/// What it says, where the header of `parts` is `header`.
pub(super) fn check(
    provider: &Provider,
    keys: impl FnOnce(Option<&str>) -> Result<Arc<Keys>, Denied>,
    (parts, header): (&Parts<'_>, &Object<'_>),
    asked: &TokenAsked<'_>,
) -> Result<Claims, Denied> {
    if header.get("alg").and_then(Json::text) != Some(ProofHeader::ALG) {
        return Err(Denied::new(
            "token-raw",
            "the token is as its provider signed it, and whoever is shown it could bind a key of their own",
        )
        .with_help(
            "only a proof counts that was made inside the job: `ascribe login --workload NAME`, with a new token",
        ));
    }
    let header = ProofHeader::read(&parts.header)
        .ok_or_else(|| malformed("has another header than `alg`, `cic`, `jkt`, `kid`, `typ`"))?;
    let own = from_base64url(&header.kid).filter(|own| !own.is_empty());
    let own = own.ok_or_else(|| malformed("has no token's header for its `kid`"))?;
    let own = json::object(&own, MAX_MEMBERS, "the token's header")?;
    let kid = provable(provider, &own)?;
    let (_, payload) = parts.texts();
    let message = format!("{}.{payload}", header.kid);
    let signed = Signed {
        algorithm: Algorithm::Rs256,
        name: "RS256",
        message: message.as_bytes(),
        shown: Shown::Proof {
            key: header.jkt,
            proof: &parts.signature,
            over: parts.signed,
        },
    };
    let keys = keys(kid)?;
    let key = keys.signer(&signed, kid, provider)?;
    let payload = json::object(&parts.payload, MAX_MEMBERS, "the token's claims")?;
    claims::read(
        provider,
        &payload,
        (key.thumbprint, Some(&header.cic)),
        asked,
    )
}

/// Checks a token's own header, and that its signature is of the kind that can be proved. Gives the key's id.
fn provable<'a>(provider: &Provider, own: &'a Object<'a>) -> Result<Option<&'a str>, Denied> {
    let name = own.get("alg").and_then(Json::text).unwrap_or_default();
    if algorithm(provider, name)? != Algorithm::Rs256 {
        return Err(Denied::new(
            "token-proof-alg",
            "only an RS256 signature can be proved without being shown",
        ));
    }
    check_header(provider.kind, own)?;
    kid(own)
}

/// See [`crate::prove_token`].
pub(super) fn make(
    provider: &Provider,
    keys: &[u8],
    token: &[u8],
    asked: &TokenAsked<'_>,
    random: Random<'_>,
) -> Result<String, Denied> {
    let parts = Parts::split(token)?;
    let own = json::object(&parts.header, MAX_MEMBERS, "the token's header")?;
    let kid = provable(provider, &own)?;
    let keys = Keys::read(keys, kid)?;
    let signed = Signed {
        algorithm: Algorithm::Rs256,
        name: "RS256",
        message: parts.signed,
        shown: Shown::Signature(&parts.signature),
    };
    let key = keys.signer(&signed, kid, provider)?;
    let commitment = identity::key_commitment(asked.key, asked.rz);
    let (own, payload) = parts.texts();
    let header = ProofHeader::new(commitment, key.thumbprint, own);
    let failed = || {
        Denied::new(
            "token-proof-key",
            "no proof can be made under the provider's key",
        )
    };
    let header = encode(&header).map_err(|_| failed())?;
    let over = format!("{}.{payload}", base64url(&header));
    let proof = key
        .proofs()
        .and_then(|key| key.prove(&parts.signature, over.as_bytes(), random));
    Ok(format!("{over}.{}", base64url(&proof.ok_or_else(failed)?)))
}

#[cfg(test)]
mod tests {
    use ascribe_core::id::ContentDigest;
    use ascribe_core::identity::ProviderKind;
    use ascribe_core::statement::SshKey;
    use aws_lc_rs::rand::{SystemRandom, fill};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

    use super::super::gq;
    use super::*;

    /// Only whoever holds the token can prove it over a thumbprint of their choice.
    #[test]
    fn a_proof_that_names_another_key_than_it_is_under_is_refused() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let n = &pair.public_key().as_ref()[9..265];
        let set = format!(
            r#"{{"keys":[{{"kty":"RSA","n":"{}","e":"AQAB"}}]}}"#,
            base64url(n)
        );
        let own = base64url(br#"{"alg":"RS256"}"#);
        let payload = base64url(br#"{"aud":"OPENPUBKEY-PKTOKEN:ascribe"}"#);
        let mut signature = vec![0; 256];
        let message = format!("{own}.{payload}");
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            message.as_bytes(),
            &mut signature,
        )
        .unwrap();
        let provider = Provider {
            algorithms: vec!["RS256".into()],
            audience: "OPENPUBKEY-PKTOKEN:ascribe".into(),
            authn: None,
            issuer: "https://gitlab.example".into(),
            jwks_uri: "https://gitlab.example/keys".into(),
            kind: ProviderKind::Gitlab,
            max_keys_age_seconds: None,
            name: "lab".into(),
            observers: None,
            withdrawn: false,
        };
        let asked = TokenAsked {
            key: &SshKey("ssh-ed25519 AAAA".into()),
            rz: &[7; 32],
            facts: &[],
            groups: &[],
            managers: &[],
        };
        let code = |jkt: ContentDigest| {
            let commitment = identity::key_commitment(asked.key, asked.rz);
            let header = encode(&ProofHeader::new(commitment, jkt, &own)).unwrap();
            let over = format!("{}.{payload}", base64url(&header));
            let key = gq::Key::new(n, &[1, 0, 1]).unwrap();
            let proof = key.prove(&signature, over.as_bytes(), &mut |bytes| {
                fill(bytes).is_ok()
            });
            let shown = format!("{over}.{}", base64url(&proof.unwrap()));
            let read = |kid: Option<&str>| Keys::read(set.as_bytes(), kid).map(Arc::new);
            super::super::check(&provider, read, shown.as_bytes(), &asked)
                .unwrap_err()
                .code
        };
        let known = Keys::read(set.as_bytes(), None).unwrap().thumbprints()[0];
        // The right one gets as far as the claims.
        assert_eq!(code(known), "token-iss");
        assert_eq!(code(identity::thumbprint("another")), "token-proof-key");
    }
}
