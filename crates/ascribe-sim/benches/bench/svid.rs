//! A trust domain whose root vouches for one workload a certificate, made with `openssl`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use ascribe_core::encoding::{Bytes, base64_std, base64url, encode};
use ascribe_core::identity::{SvidProof, svid_message};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    KeyPair as _, ParsedPublicKey,
};
use serde_json::{Value, json};

use crate::identity::Bare;

pub(crate) const DOMAIN: &str = "spiffe://bench.example";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                         subjectAltName=URI:spiffe://bench.example\n";
const USAGE: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n";

/// A certificate in DER, and its key.
struct Certified {
    der: Vec<u8>,
    key: EcdsaKeyPair,
}

/// The root and the workloads.
pub(crate) struct Domain {
    root: Certified,
    leaves: Vec<Certified>,
}

pub(crate) fn id(n: u8) -> String {
    format!("{DOMAIN}/ns/shop/sa/deploy-{n}")
}

fn openssl(dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let mut openssl = Command::new("openssl");
    let out = openssl.args(args).current_dir(dir).stdin(Stdio::null());
    let out = out.output().context("run `openssl`")?;
    ensure!(out.status.success(), "openssl {args:?}");
    Ok(out.stdout)
}

fn certify(dir: &Path, name: &str, extensions: &str) -> Result<Certified> {
    let file = |end: &str| format!("{name}.{end}");
    let (key, request, pem) = (file("key"), file("csr"), file("pem"));
    let curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key];
    openssl(
        dir,
        &[&["genpkey", "-algorithm", "EC"], &curve[..]].concat(),
    )?;
    let subject = format!("/O=SPIRE/CN={name}");
    let new = ["req", "-new", "-key", &key, "-subj", &subject];
    openssl(dir, &[&new[..], &["-out", &request]].concat())?;
    std::fs::write(dir.join("extensions"), extensions)?;
    let mut args = vec!["x509", "-req", "-in", &request, "-set_serial", "7"];
    args.extend(["-days", "1", "-sha256", "-extfile", "extensions"]);
    args.extend(["-out", &pem]);
    match name {
        "root" => args.extend(["-signkey", &key]),
        _ => args.extend(["-CA", "root.pem", "-CAkey", "root.key"]),
    }
    openssl(dir, &args)?;
    let plain = [
        "pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", &key,
    ];
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &openssl(dir, &plain)?)?;
    let der = openssl(dir, &["x509", "-in", &pem, "-outform", "DER"])?;
    Ok(Certified { der, key })
}

/// The first element of DER: itself as a whole, its content, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = usize::from(*der.get(1)?);
    let (head, len) = match first {
        0..=127 => (2, first),
        _ => {
            let bytes = der.get(2..2 + (first & 127))?;
            let len = bytes.iter().fold(0, |len, b| len << 8 | usize::from(*b));
            (2 + bytes.len(), len)
        }
    };
    let (whole, rest) = der.split_at_checked(head + len)?;
    Some((whole, whole.get(head..)?, rest))
}

impl Domain {
    pub(crate) fn new(workloads: u8) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = certify(dir.path(), "root", AUTHORITY)?;
        let leaves = (0..workloads).map(|n| {
            let extensions = format!("{USAGE}subjectAltName=URI:{}\n", id(n));
            certify(dir.path(), &format!("deploy-{n}"), &extensions)
        });
        Ok(Self {
            leaves: leaves.collect::<Result<_>>()?,
            root,
        })
    }

    /// The trust bundle.
    pub(crate) fn bundle(&self) -> Result<Value> {
        let point = self.root.key.public_key().as_ref();
        let (x, y) = point.get(1..33).zip(point.get(33..65)).context("key")?;
        Ok(json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "x509-svid",
            "x": base64url(x), "y": base64url(y), "x5c": [base64_std(&self.root.der)],
        }] }))
    }

    /// What stands in the place of a token.
    pub(crate) fn proof(&self, n: u8, commitment: &str) -> Result<Vec<u8>> {
        let leaf = self.leaves.get(usize::from(n)).context("no workload")?;
        let message = svid_message(commitment);
        let sig = leaf.key.sign(&SystemRandom::new(), &message)?;
        Ok(encode(&SvidProof {
            alg: "ES256".to_owned(),
            chain: vec![Bytes(leaf.der.clone())],
            sig: Bytes(sig.as_ref().to_vec()),
        })?)
    }

    /// The signatures in it: the workload's own, and the root's of its certificate.
    pub(crate) fn bare(&self, n: u8, commitment: &str, proof: &[u8]) -> Result<Vec<Bare>> {
        let leaf = self.leaves.get(usize::from(n)).context("no workload")?;
        let proof: SvidProof = ascribe_core::encoding::decode(proof)?;
        let own = leaf.key.public_key().as_ref();
        let root = self.root.key.public_key().as_ref();
        let parts = || {
            let (_, inner, _) = element(&leaf.der)?;
            let (signed, _, rest) = element(inner)?;
            let (_, _, rest) = element(rest)?;
            // A bit string begins with how many bits are unused: none.
            let (_, bits, _) = element(rest)?;
            Some((signed.to_vec(), bits.get(1..)?.to_vec()))
        };
        let (signed, signature) = parts().context("certificate")?;
        Ok(vec![
            Bare {
                key: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, own)?,
                message: svid_message(commitment),
                signature: proof.sig.0,
            },
            Bare {
                key: ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, root)?,
                message: signed,
                signature,
            },
        ])
    }
}
