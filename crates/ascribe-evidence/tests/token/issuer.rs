//! An issuer of tokens: its keys, its JWK Set, and what a provider of each kind writes into a token.

use std::sync::LazyLock;

use ascribe_core::encoding::base64url;
use ascribe_core::identity::{Claims, PROOF_AUDIENCE, Provider, ProviderKind, key_commitment};
use ascribe_core::law::{Denied, Judge as _, TokenAsked};
use ascribe_core::statement::SshKey;
use ascribe_evidence::{Checker, SshSignatures, prove_token};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

/// When every token here is issued.
pub(super) const NOW: i64 = 1_795_000_000;
/// The random bytes of the commitment.
pub(super) const RZ: [u8; 32] = [7; 32];

/// The order of P-256 (SEC 2, 2.4.2).
pub(super) const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Shared by all tests, so that sets push each other out.
static CHECKER: LazyLock<Checker> = LazyLock::new(Checker::new);

pub(super) fn session_key() -> SshKey {
    SshKey(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOHU8jiIKT4KL4NzRwX9lPp7HrRgmnONpiNqoZ9HM0oI".into(),
    )
}

/// What the token of a good login commits to.
pub(super) fn commitment() -> String {
    key_commitment(&session_key(), &RZ)
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) rsa: RsaKeyPair,
    p256: Vec<u8>,
    p384: Vec<u8>,
    ed25519: Ed25519KeyPair,
}

/// The provider, and somebody else with keys of their own.
pub(super) static ISSUER: LazyLock<Issuer> = LazyLock::new(Issuer::new);
pub(super) static STRANGER: LazyLock<Issuer> = LazyLock::new(Issuer::new);

impl Issuer {
    fn new() -> Self {
        let pkcs8 = |algorithm| {
            let key = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
            key.as_ref().to_vec()
        };
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn ec(&self, algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        let key = if algorithm == &ECDSA_P384_SHA384_FIXED_SIGNING {
            &self.p384
        } else {
            &self.p256
        };
        EcdsaKeyPair::from_pkcs8(algorithm, key).unwrap()
    }

    fn sign_ec(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let signature = self
            .ec(algorithm)
            .sign(&SystemRandom::new(), message)
            .unwrap();
        signature.as_ref().to_vec()
    }

    /// A signature; `DER` is ES256 in the form that TLS has and JWS has not.
    pub(super) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rsa = |encoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(encoding, &SystemRandom::new(), message, &mut signature)
                .unwrap();
            signature
        };
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.sign_ec(&ECDSA_P256_SHA256_FIXED_SIGNING, message),
            "DER" => self.sign_ec(&ECDSA_P256_SHA256_ASN1_SIGNING, message),
            "ES384" => self.sign_ec(&ECDSA_P384_SHA384_FIXED_SIGNING, message),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            other => panic!("{other}"),
        }
    }

    /// Modulus and exponent.
    pub(super) fn rsa_numbers(&self) -> (Vec<u8>, Vec<u8>) {
        // RSAPublicKey of RFC 8017, A.1.1: a sequence of two integers.
        let mut der = self.rsa.public_key().as_ref();
        let sequence = der_value(&mut der, 0x30);
        let mut inside = sequence.as_slice();
        (der_value(&mut inside, 2), der_value(&mut inside, 2))
    }

    /// The public key for an algorithm, as the set has it; its id is `key-` and the algorithm.
    pub(super) fn jwk(&self, alg: &str) -> Value {
        let mut jwk = match alg {
            "RS256" | "PS256" => {
                let (n, e) = self.rsa_numbers();
                json!({"kty": "RSA", "n": base64url(&n), "e": base64url(&e)})
            }
            "ES256" | "ES384" => {
                let (algorithm, crv) = match alg {
                    "ES256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
                    _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
                };
                let key = self.ec(algorithm);
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y)})
            }
            "EdDSA" => {
                let x = self.ed25519.public_key().as_ref();
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(x)})
            }
            other => panic!("{other}"),
        };
        jwk["kid"] = json!(format!("key-{alg}"));
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(alg);
        jwk
    }
}

/// One value in DER with its tag; the sign byte of an integer is dropped.
fn der_value(der: &mut &[u8], tag: u8) -> Vec<u8> {
    assert_eq!(der[0], tag);
    let (size, head) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) * 256 + usize::from(der[3]), 4),
        other => panic!("{other}"),
    };
    let value = der[head..head + size].to_vec();
    *der = &der[head + size..];
    if tag == 2 && value[0] == 0 {
        value[1..].to_vec()
    } else {
        value
    }
}

/// One login: everything that it consists of, good until something of it is changed.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) provider: Provider,
    pub(super) keys: Value,
    pub(super) header: Value,
    pub(super) claims: Value,
    /// Who signs, and how.
    pub(super) signer: &'static Issuer,
    pub(super) how: &'static str,
    /// The signature instead.
    pub(super) signature: Option<Vec<u8>>,
    /// Texts instead of `keys`, `header` and `claims`.
    pub(super) keys_text: Option<String>,
    pub(super) header_text: Option<String>,
    pub(super) claims_text: Option<String>,
    /// What becomes of the finished token.
    pub(super) last: fn(String) -> String,
    pub(super) facts: Vec<&'static str>,
    pub(super) groups: Vec<(&'static str, &'static str)>,
    pub(super) managers: Vec<&'static str>,
    pub(super) key: SshKey,
    /// What is shown instead.
    pub(super) shown: Option<String>,
}

impl Login {
    /// A good login with a token of this kind of provider.
    pub(super) fn of(kind: ProviderKind) -> Self {
        let mut claims = claims(kind);
        let audience = match kind {
            ProviderKind::Gitlab => format!("{PROOF_AUDIENCE}ascribe"),
            _ => "ascribe".to_owned(),
        };
        claims["aud"] = if kind.is_of_people() || kind == ProviderKind::Gitlab {
            json!(audience)
        } else {
            json!(format!("{audience}:{}", commitment()))
        };
        if kind.is_of_people() {
            claims["nonce"] = json!(commitment());
        }
        let keys = ["RS256", "ES256", "ES384", "EdDSA"].map(|alg| ISSUER.jwk(alg));
        Self {
            provider: Provider {
                algorithms: ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
                    .map(String::from)
                    .into(),
                audience,
                authn: None,
                issuer: claims["iss"].as_str().unwrap().to_owned(),
                jwks_uri: "https://id.example/keys".into(),
                kind,
                max_keys_age_seconds: None,
                name: "provider".into(),
                observers: None,
                withdrawn: false,
            },
            keys: json!({"keys": keys}),
            header: json!({"alg": "RS256", "kid": "key-RS256", "typ": "JWT"}),
            claims,
            signer: &ISSUER,
            how: "RS256",
            signature: None,
            keys_text: None,
            header_text: None,
            claims_text: None,
            last: |token| token,
            facts: vec![],
            groups: vec![],
            managers: vec![],
            key: session_key(),
            shown: None,
        }
    }

    /// For a provider of whose tokens proofs count: its audience is all of the token's.
    pub(super) fn by_proof(kind: ProviderKind) -> Self {
        let mut login = Self::of(kind);
        login.provider.audience = format!("{PROOF_AUDIENCE}ascribe");
        login.claims["aud"] = json!(login.provider.audience);
        login
    }

    /// Sets a claim.
    pub(super) fn claim(&mut self, name: &str, value: Value) {
        self.claims[name] = value;
    }
    /// Takes a claim out.
    pub(super) fn no_claim(&mut self, name: &str) {
        self.claims.as_object_mut().unwrap().remove(name).unwrap();
    }
    /// The key that signs good tokens, as the set has it.
    pub(super) fn jwk(&mut self) -> &mut Value {
        &mut self.keys["keys"][0]
    }
    /// Signs with another algorithm of the same issuer, and says so.
    pub(super) fn signed_with(&mut self, how: &'static str) {
        self.how = how;
        self.header["alg"] = json!(how);
        self.header["kid"] = json!(format!("key-{how}"));
    }

    fn header_text(&self) -> String {
        self.header_text
            .clone()
            .unwrap_or_else(|| self.header.to_string())
    }
    /// What is signed.
    pub(super) fn message(&self) -> String {
        let claims = self
            .claims_text
            .clone()
            .unwrap_or_else(|| self.claims.to_string());
        format!(
            "{}.{}",
            base64url(self.header_text().as_bytes()),
            base64url(claims.as_bytes())
        )
    }
    /// What the provider signed.
    pub(super) fn raw(&self) -> String {
        let message = self.message();
        let signature = match &self.signature {
            Some(signature) => signature.clone(),
            None => self.signer.sign(self.how, message.as_bytes()),
        };
        format!("{message}.{}", base64url(&signature))
    }
    /// A proof of it.
    pub(super) fn proof(&self) -> Result<String, Denied> {
        let (provider, keys, raw) = (&self.provider, self.keys_text(), self.raw());
        let mut random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).is_ok();
        prove_token(
            provider,
            keys.as_bytes(),
            raw.as_bytes(),
            &self.asked(),
            &mut random,
        )
    }
    /// What is shown.
    pub(super) fn token(&self) -> String {
        let shown = match &self.shown {
            Some(shown) => shown.clone(),
            None if self.provider.takes_proofs() => self.proof().unwrap(),
            None => self.raw(),
        };
        (self.last)(shown)
    }
    fn asked(&self) -> TokenAsked<'_> {
        TokenAsked {
            key: &self.key,
            rz: &RZ,
            facts: &self.facts,
            groups: &self.groups,
            managers: &self.managers,
        }
    }
    pub(super) fn keys_text(&self) -> String {
        self.keys_text
            .clone()
            .unwrap_or_else(|| self.keys.to_string())
    }

    /// What these bytes say, judged once.
    pub(super) fn accepts(&self, token: &str) -> Result<Claims, Denied> {
        let keys = self.keys_text();
        SshSignatures.token(
            &self.provider,
            keys.as_bytes(),
            token.as_bytes(),
            &self.asked(),
        )
    }

    pub(super) fn check(&self) -> Result<Claims, Denied> {
        judge(self, self.token().as_bytes())
    }
}

/// What these bytes say, where the login's own token should be.
pub(super) fn judge(login: &Login, token: &[u8]) -> Result<Claims, Denied> {
    let asked = login.asked();
    let keys = login.keys_text();
    let judged = SshSignatures.token(&login.provider, keys.as_bytes(), token, &asked);
    // Whoever keeps keys parsed says the same, the first time and again.
    for _ in 0..2 {
        let kept = CHECKER.token(&login.provider, keys.as_bytes(), token, &asked);
        assert_eq!(kept, judged);
    }
    judged
}

/// A token's claims as this kind of provider writes them, for a job of a few minutes, apart from what the
/// bearer asks for: audience and nonce.
fn claims(kind: ProviderKind) -> Value {
    let text = match kind {
        ProviderKind::Buildkite => include_str!("claims/buildkite.json"),
        ProviderKind::Circleci => include_str!("claims/circleci.json"),
        ProviderKind::Entra => include_str!("claims/entra.json"),
        ProviderKind::Github => include_str!("claims/github.json"),
        ProviderKind::Gitlab => include_str!("claims/gitlab.json"),
        ProviderKind::Kubernetes => include_str!("claims/kubernetes.json"),
        ProviderKind::Oidc => include_str!("claims/oidc.json"),
        // An X.509-SVID has no claims; its tests are in `svid`.
        ProviderKind::Spiffe | ProviderKind::SpiffeX509 => include_str!("claims/spiffe.json"),
        ProviderKind::Workload => include_str!("claims/workload.json"),
    };
    serde_json::from_str(text).unwrap()
}
