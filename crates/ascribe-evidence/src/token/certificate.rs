//! One X.509 certificate (RFC 5280), with the rules of X509-SVID for workloads and for those who sign them.

use std::borrow::Cow;
use std::sync::OnceLock;

use ascribe_core::id::ContentDigest;
use ascribe_core::law::Denied;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{BasicConstraints, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::keys::{self, Key};
use super::provider::is_spiffe_id;

/// Largest certificate, in bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;
/// Most extensions of one.
const MAX_EXTENSIONS: usize = 32;
/// Longest SPIFFE ID, in bytes (SPIFFE ID, 2.3).
const MAX_ID: usize = 2048;

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const EC_KEY: &str = "1.2.840.10045.2.1";
const ED25519_KEY: &str = "1.3.101.112";
const RSA_KEY: &str = "1.2.840.113549.1.1.1";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const RSA_SHA384: &str = "1.2.840.113549.1.1.12";
const RSA_SHA512: &str = "1.2.840.113549.1.1.13";

/// A certificate whose form and key are good. Whether anybody signed it is another question.
pub(super) struct Certificate<'a> {
    inner: X509Certificate<'a>,
    pub(super) key: Key,
    authority: Option<BasicConstraints>,
    /// With whether it is critical.
    usage: Option<(bool, KeyUsage)>,
    /// Is it for clients, where it says what it is for?
    for_clients: Option<bool>,
    /// URIs among its subject alternative names.
    uris: Vec<String>,
}

/// Who signs certificates, as its own certificate says, without the bytes of that: the roots of a provider's keys are
/// kept in this form.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) thumbprint: ContentDigest,
    /// First and last second of its life.
    pub(super) life: (i64, i64),
    /// Its name in DER.
    subject: Vec<u8>,
    constraints: Option<BasicConstraints>,
    usage: Option<KeyUsage>,
    uris: Vec<String>,
    /// Type, curve and bytes of its key.
    key: (Cow<'static, str>, Cow<'static, str>, Vec<u8>),
    /// The key, made ready when a signature first comes that is made in one of these ways.
    ready: [OnceLock<Option<ParsedPublicKey>>; 3],
}

pub(super) fn refuse<T>(code: &'static str, message: &str) -> Result<T, Denied> {
    Err(Denied::new(code, message))
}

impl<'a> Certificate<'a> {
    pub(super) fn read(der: &'a [u8]) -> Result<Self, Denied> {
        if der.len() > MAX_CERTIFICATE {
            return refuse("svid-size", "a certificate is larger than 16 KiB");
        }
        let inner = match X509Certificate::from_der(der) {
            Ok(([], inner)) => inner,
            Ok(_) => return refuse("svid-der", "something follows a certificate"),
            Err(_) => return refuse("svid-der", "a certificate is not DER as X.509 has it"),
        };
        if inner.version() != X509Version::V3
            || inner.signature_algorithm != inner.tbs_certificate.signature
            || inner.signature_value.unused_bits != 0
        {
            let message = "a certificate is not of version 3, or contradicts itself";
            return refuse("svid-der", message);
        }
        let key = key_of(inner.public_key())?;
        let mut read = Self {
            inner,
            key,
            authority: None,
            usage: None,
            for_clients: None,
            uris: Vec::new(),
        };
        read.read_extensions()?;
        Ok(read)
    }

    fn read_extensions(&mut self) -> Result<(), Denied> {
        let extensions = self.inner.extensions();
        let mut seen = Vec::new();
        if extensions.len() > MAX_EXTENSIONS {
            return refuse("svid-size", "a certificate has more than 32 extensions");
        }
        for extension in extensions {
            if seen.contains(&&extension.oid) {
                return refuse("svid-der", "a certificate has an extension twice");
            }
            seen.push(&extension.oid);
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(read) => self.authority = Some(read.clone()),
                ParsedExtension::KeyUsage(read) => {
                    self.usage = Some((extension.critical, *read));
                }
                ParsedExtension::ExtendedKeyUsage(read) => {
                    self.for_clients = Some(read.any || read.client_auth);
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                            GeneralName::Invalid(..) => {
                                return refuse("svid-der", "a certificate's name is malformed");
                            }
                            _ => {}
                        }
                    }
                }
                // Whoever limits an authority means it, also where the limit is not marked as critical.
                ParsedExtension::NameConstraints(_) => {
                    let message = "a certificate limits names, which is not understood here";
                    return refuse("svid-critical", message);
                }
                ParsedExtension::ParseError { .. } => {
                    return refuse("svid-der", "an extension of a certificate is malformed");
                }
                _ if extension.critical => {
                    let message = format!(
                        "a certificate demands the extension {}, which is not understood here",
                        ascribe_core::text::clean(&extension.oid.to_id_string(), 80)
                    );
                    return refuse("svid-critical", &message);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The SPIFFE ID of a workload's certificate (X509-SVID, 2, 4 and 5.2).
    pub(super) fn workload(&self, domain: &str) -> Result<&str, Denied> {
        if self.authority.as_ref().is_some_and(|read| read.ca) {
            return refuse(
                "svid-ca",
                "the first certificate is an authority's, no workload's",
            );
        }
        match &self.usage {
            Some((true, usage))
                if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => {}
            _ => {
                let message =
                    "the workload's certificate is not for signatures, or signs certificates";
                return refuse("svid-usage", message);
            }
        }
        if self.for_clients == Some(false) {
            let message = "the workload's certificate is not for clients (`extendedKeyUsage`)";
            return refuse("svid-usage", message);
        }
        let [id] = self.uris.as_slice() else {
            let message = "the workload's certificate has no URI among its names, or several";
            return refuse("svid-id", message);
        };
        if id.len() > MAX_ID || !is_spiffe_id(id) {
            return refuse("svid-id", "the workload's name is no SPIFFE ID");
        }
        // The slash keeps `spiffe://a.example` from being taken for the beginning of `spiffe://a.example.org/x`.
        match id.strip_prefix(domain) {
            Some(path) if path.starts_with('/') => Ok(id),
            _ => refuse("svid-domain", "the workload is of another trust domain"),
        }
    }

    /// What it says of whoever signs certificates with its key.
    pub(super) fn as_authority(&self) -> Authority {
        let spki = self.inner.public_key();
        Authority {
            thumbprint: self.key.thumbprint,
            life: self.life(),
            subject: self.inner.subject().as_raw().to_vec(),
            constraints: self.authority.clone(),
            usage: self.usage.map(|(_, usage)| usage),
            uris: self.uris.clone(),
            key: (
                written(&spki.algorithm.algorithm),
                curve_of(spki).unwrap_or_default(),
                spki.subject_public_key.data.to_vec(),
            ),
            ready: Default::default(),
        }
    }

    /// Does it say that the other one issued it?
    pub(super) fn names(&self, authority: &Authority) -> bool {
        self.inner.issuer().as_raw() == authority.subject
    }

    /// Is it signed with the other one's key?
    pub(super) fn check_signature(&self, authority: &Authority) -> Result<(), Denied> {
        let (key, curve, bytes) = &authority.key;
        let signed_with = written(&self.inner.signature_algorithm.algorithm);
        let algorithm: &'static dyn VerificationAlgorithm =
            match (key.as_ref(), curve.as_ref(), signed_with.as_ref()) {
                (EC_KEY, P256, ECDSA_SHA256) => &ECDSA_P256_SHA256_ASN1,
                (EC_KEY, P256, ECDSA_SHA384) => &ECDSA_P256_SHA384_ASN1,
                (EC_KEY, P384, ECDSA_SHA256) => &ECDSA_P384_SHA256_ASN1,
                (EC_KEY, P384, ECDSA_SHA384) => &ECDSA_P384_SHA384_ASN1,
                (RSA_KEY, _, RSA_SHA256) => &RSA_PKCS1_2048_8192_SHA256,
                (RSA_KEY, _, RSA_SHA384) => &RSA_PKCS1_2048_8192_SHA384,
                (RSA_KEY, _, RSA_SHA512) => &RSA_PKCS1_2048_8192_SHA512,
                (ED25519_KEY, _, ED25519_KEY) => &ED25519,
                _ => {
                    let message = "a certificate is signed in a way that does not count here";
                    return refuse("svid-alg", message);
                }
            };
        // A key signs in up to three ways.
        let way = match signed_with.as_ref() {
            RSA_SHA512 => 2,
            ECDSA_SHA384 | RSA_SHA384 => 1,
            _ => 0,
        };
        let ready = authority.ready.get(way).and_then(|ready| {
            ready
                .get_or_init(|| ParsedPublicKey::new(algorithm, bytes).ok())
                .as_ref()
        });
        let signed = ready.is_some_and(|key| {
            let message = self.inner.tbs_certificate.as_ref();
            key.verify_sig(message, &self.inner.signature_value.data)
                .is_ok()
        });
        if signed {
            return Ok(());
        }
        refuse(
            "svid-signature",
            "a certificate is not signed with the key of the one that follows",
        )
    }

    /// First and last second of its life.
    pub(super) fn life(&self) -> (i64, i64) {
        let life = self.inner.validity();
        (life.not_before.timestamp(), life.not_after.timestamp())
    }
}

impl Authority {
    /// May it sign certificates, with so many authorities below it (X509-SVID, 3 and 4; RFC 5280, 4.2.1.9)?
    pub(super) fn check_authority(&self, domain: &str, below: usize) -> Result<(), Denied> {
        let Some(BasicConstraints {
            ca: true,
            path_len_constraint,
        }) = &self.constraints
        else {
            return refuse(
                "svid-ca",
                "a workload's certificate is signed by no authority",
            );
        };
        if path_len_constraint.is_some_and(|most| below > most as usize) {
            return refuse(
                "svid-path-length",
                "an authority allows fewer others below it",
            );
        }
        if !self.usage.is_some_and(|usage| usage.key_cert_sign()) {
            return refuse("svid-usage", "an authority's key is not for certificates");
        }
        // An authority need not have a name of its own; one that has is of the trust domain, without a path.
        match self.uris.as_slice() {
            [] => Ok(()),
            [name] if name == domain => Ok(()),
            _ => refuse("svid-domain", "an authority is of another trust domain"),
        }
    }
}

/// The first of a certificate's URIs that begins like a SPIFFE ID, in letters of any case. Nothing is checked.
pub(super) fn spiffe_id(der: &[u8]) -> Option<String> {
    const SCHEME: &str = "spiffe:";
    let certificate = X509Certificate::from_der(der).ok()?.1;
    let mut names = certificate.extensions().iter().filter_map(|extension| {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        }
    });
    names.find_map(|names| {
        names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => {
                let scheme = uri.get(..SCHEME.len())?;
                scheme
                    .eq_ignore_ascii_case(SCHEME)
                    .then(|| (*uri).to_owned())
            }
            _ => None,
        })
    })
}

/// An object identifier as it is written, without making the text of one that is known.
fn written(id: &Oid<'_>) -> Cow<'static, str> {
    let known = [
        (OID_KEY_TYPE_EC_PUBLIC_KEY, EC_KEY),
        (OID_EC_P256, P256),
        (OID_SIG_ECDSA_WITH_SHA256, ECDSA_SHA256),
        (OID_NIST_EC_P384, P384),
        (OID_SIG_ECDSA_WITH_SHA384, ECDSA_SHA384),
        (OID_PKCS1_RSAENCRYPTION, RSA_KEY),
        (OID_PKCS1_SHA256WITHRSA, RSA_SHA256),
    ];
    let found = known.into_iter().find(|(known, _)| known == id);
    found.map_or_else(|| id.to_id_string().into(), |(_, text)| text.into())
}

/// The curve of an elliptic-curve key.
fn curve_of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Cow<'static, str>> {
    let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
    Some(written(&curve))
}

/// The key, held to the same rules as those of a JWK Set.
fn key_of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Key, Denied> {
    let unknown = || {
        Denied::new(
            "svid-key",
            "a certificate's key is of a type that does not count here",
        )
    };
    let malformed = || Denied::new("svid-der", "a certificate's key is malformed");
    let bits = &spki.subject_public_key;
    if bits.unused_bits != 0 {
        return Err(malformed());
    }
    let name = written(&spki.algorithm.algorithm);
    let key = match name.as_ref() {
        RSA_KEY => match spki.parsed() {
            Ok(PublicKey::RSA(rsa)) => keys::from_rsa(rsa.modulus, rsa.exponent),
            _ => return Err(malformed()),
        },
        EC_KEY => {
            let curve = curve_of(spki);
            let (name, size) = match curve.as_deref() {
                Some(P256) => ("P-256", 32),
                Some(P384) => ("P-384", 48),
                _ => return Err(unknown()),
            };
            match bits.data.split_first() {
                Some((4, point)) if point.len() == 2 * size => {
                    let (x, y) = point.split_at(size);
                    keys::from_point(name, x, y)
                }
                _ => return Err(malformed()),
            }
        }
        ED25519_KEY => keys::from_ed25519(&bits.data),
        _ => return Err(unknown()),
    };
    key?.ok_or_else(unknown)
}
