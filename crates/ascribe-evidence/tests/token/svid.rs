//! X.509-SVIDs as SPIRE shapes them, made with `openssl`, and what is spoiled in them with the code of the refusal.

use std::path::Path;
use std::process::{Command, Stdio};

use ascribe_core::encoding::{Bytes, base64_std, decode, encode};
use ascribe_core::identity::{
    Binding, Claims, Provider, ProviderKind, SvidProof, TlsProof, subject, svid_message,
    tls_message,
};
use ascribe_core::law::{Denied, Judge, TokenAsked};
use ascribe_core::statement::SshKey;
use ascribe_evidence::{Checker, SshSignatures, Unchecked, tls_proof};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::issuer::{RZ, commitment, session_key};

const ID: &str = "spiffe://example.org/ns/deploy/sa/Deployer";
const USAGE: &str = "keyUsage=critical,digitalSignature\n";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                         subjectAltName=URI:spiffe://example.org\n";

/// A good login until something of it is changed: root, one authority below it, workload.
struct Scene {
    dir: TempDir,
    /// Extensions of the workload's certificate, of the authority's and of the root's.
    leaf: String,
    middle: String,
    root: String,
    /// The workload's key, and how its certificate is signed.
    key: &'static str,
    digest: &'static str,
    /// Who signs the workload's certificate.
    signer: &'static str,
    days: &'static str,
    /// What becomes of the proof, of the bundle and of the bytes.
    edit: fn(&mut SvidProof),
    bundle: fn(&mut Value),
    last: fn(Vec<u8>) -> Vec<u8>,
    session: SshKey,
}

fn leaf(id: &str) -> String {
    format!(
        "{USAGE}extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=URI:{id}\n"
    )
}

fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let out = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("these tests need `openssl`");
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

impl Scene {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            leaf: leaf(ID),
            middle: AUTHORITY.into(),
            root: AUTHORITY.into(),
            key: "P-256",
            digest: "-sha256",
            signer: "middle",
            days: "1",
            edit: |_| {},
            bundle: |_| {},
            last: |bytes| bytes,
            session: session_key(),
        }
    }

    /// A certificate and its key, signed by an earlier one or by itself.
    fn make(
        &self,
        name: &str,
        subject: &str,
        extensions: &str,
        signer: &str,
        days: &str,
    ) -> Vec<u8> {
        let dir = self.dir.path();
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let (pem, list) = (format!("{name}.pem"), format!("{name}.ext"));
        let kind = if name == "leaf" { self.key } else { "P-256" };
        let (algorithm, option) = match kind.strip_prefix("rsa:") {
            Some(bits) => ("RSA", format!("rsa_keygen_bits:{bits}")),
            None => ("EC", format!("ec_paramgen_curve:{kind}")),
        };
        openssl(
            dir,
            &[
                "genpkey",
                "-algorithm",
                algorithm,
                "-pkeyopt",
                &option,
                "-out",
                &key,
            ],
        );
        let subject = format!("/O=SPIRE/CN={subject}");
        openssl(
            dir,
            &[
                "req", "-new", "-key", &key, "-subj", &subject, "-out", &request,
            ],
        );
        std::fs::write(dir.join(&list), extensions).unwrap();
        let digest = if name == "leaf" {
            self.digest
        } else {
            "-sha256"
        };
        let mut args = vec![
            "x509",
            "-req",
            "-in",
            &request,
            "-set_serial",
            "7",
            "-days",
            days,
        ];
        let (by, by_key) = (format!("{signer}.pem"), format!("{signer}.key"));
        if signer == name {
            args.extend(["-signkey", &key]);
        } else {
            args.extend(["-CA", &by, "-CAkey", &by_key]);
        }
        args.extend([digest, "-extfile", &list, "-out", &pem]);
        openssl(dir, &args);
        openssl(dir, &["x509", "-in", &pem, "-outform", "DER"])
    }

    /// The root, and the workload's certificate with the authority's where that signed it.
    fn certificates(&self) -> (Vec<u8>, Vec<Bytes>) {
        let root = self.make("root", "root", &self.root, "root", "30");
        self.make("stranger", "root", AUTHORITY, "stranger", "30");
        let middle = self.make("middle", "middle", &self.middle, "root", "20");
        let leaf = self.make("leaf", "workload", &self.leaf, self.signer, self.days);
        let mut chain = vec![Bytes(leaf)];
        if self.signer == "middle" {
            chain.push(Bytes(middle));
        }
        (root, chain)
    }

    /// The workload's private key.
    fn private(&self) -> Vec<u8> {
        let args = [
            "pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", "leaf.key",
        ];
        openssl(self.dir.path(), &args)
    }

    /// What the workload's key signed for the session key.
    fn proof(&self, chain: Vec<Bytes>) -> SvidProof {
        let message = svid_message(&commitment());
        let (alg, sig) = if self.key == "P-256" {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.private());
            let sig = pair.unwrap().sign(&SystemRandom::new(), &message).unwrap();
            ("ES256", sig.as_ref().to_vec())
        } else if let Ok(pair) = RsaKeyPair::from_pkcs8(&self.private()) {
            let mut sig = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut sig)
                .unwrap();
            ("RS256", sig)
        } else {
            ("RS256", vec![1; 128])
        };
        SvidProof {
            alg: alg.into(),
            chain,
            sig: Bytes(sig),
        }
    }

    fn check(&self) -> Result<Claims, Denied> {
        let (root, chain) = self.certificates();
        let mut proof = self.proof(chain);
        (self.edit)(&mut proof);
        self.judge(&root, (self.last)(encode(&proof).unwrap()))
    }

    /// What the workload's key signed as the client of a handshake with this hash, as TLS hands it over; then what is
    /// kept of it is changed.
    fn check_tls(
        &self,
        transcript: &[u8],
        edit: impl FnOnce(&mut TlsProof),
    ) -> Result<Claims, Denied> {
        let (root, chain) = self.certificates();
        let message = tls_message(transcript);
        let (scheme, sig) = if self.key == "P-256" {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.private());
            let sig = pair.unwrap().sign(&SystemRandom::new(), &message).unwrap();
            (0x0403, sig.as_ref().to_vec())
        } else {
            let pair = RsaKeyPair::from_pkcs8(&self.private()).unwrap();
            let mut sig = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &message, &mut sig)
                .unwrap();
            (0x0804, sig)
        };
        let chain: Vec<Vec<u8>> = chain.into_iter().map(|Bytes(der)| der).collect();
        let kept = tls_proof(&chain, scheme, &message, &sig)?;
        let mut kept: TlsProof = decode(&kept).unwrap();
        edit(&mut kept);
        self.judge(&root, encode(&kept).unwrap())
    }

    /// By whoever reads the bundle each time, and by whoever keeps it.
    fn judge(&self, root: &[u8], token: Vec<u8>) -> Result<Claims, Denied> {
        let found = self.judge_by(&SshSignatures, root, &token);
        let keeps = Checker::new();
        for _ in 0..2 {
            assert_eq!(self.judge_by(&keeps, root, &token), found);
        }
        found
    }

    fn judge_by(&self, judge: &dyn Judge, root: &[u8], token: &[u8]) -> Result<Claims, Denied> {
        let point = openssl(
            self.dir.path(),
            &["pkey", "-in", "root.key", "-pubout", "-outform", "DER"],
        );
        let (x, y) = point[point.len() - 64..].split_at(32);
        let b64 = ascribe_core::encoding::base64url;
        let mut bundle = json!({"spiffe_sequence": 1, "keys": [
            {"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y), "x5c": [base64_std(root)]}
        ]});
        (self.bundle)(&mut bundle);
        let asked = TokenAsked {
            key: &self.session,
            rz: &RZ,
            facts: &["sub"],
            groups: &[],
            managers: &[],
        };
        judge.token(&domain(), bundle.to_string().as_bytes(), token, &asked)
    }
}

#[test]
fn what_a_workload_signed_in_tls_names_it_and_binds_no_key() {
    for (key, hash) in [("P-256", 32), ("P-256", 48), ("rsa:2048", 32)] {
        let mut scene = Scene::new();
        scene.key = key;
        // Whatever key the gateway made for the connection.
        scene.session.0 = scene.session.0.replace("IOHU", "IOHV");
        let claims = scene.check_tls(&vec![7; hash], |_| ()).unwrap();
        assert_eq!(claims.binding, Binding::Tls);
        assert_eq!(claims.facts[0].value, ID);
        assert_eq!(claims.subject, subject("spiffe://example.org", ID));
        assert!(
            claims.missing[1].contains("the gateway's word"),
            "{claims:?}"
        );
    }
    // Two certificates name somebody before anything is checked, one nobody.
    let scene = Scene::new();
    let (root, chain) = scene.certificates();
    let said = Unchecked::of_certificate(&chain[0].0).unwrap();
    let of = |issuer: &str| {
        let issuer = issuer.to_owned();
        said.is_issued_by(&Provider { issuer, ..domain() })
    };
    assert!(of("spiffe://example.org"));
    assert!(!of("spiffe://example.com") && !of("spiffe://example") && !of("https://example.org"));
    assert_eq!(said.facts(&["sub"]).unwrap()[0].value, ID);
    assert!(Unchecked::of_certificate(&root).is_some());
    let mut scene = Scene::new();
    scene.leaf = leaf(ID).replace(&format!("URI:{ID}"), "URI:https://example.org");
    assert!(Unchecked::of_certificate(&scene.certificates().1[0].0).is_none());
    assert!(Unchecked::of_certificate(b"\x30\x03\x02\x01\x01").is_none());
}

#[test]
fn what_a_workload_signed_in_tls_is_good_for_nothing_else() {
    let spoiled = |edit: fn(&mut TlsProof)| {
        let refused = Scene::new().check_tls(&[7; 32], edit);
        refused.unwrap_err().code
    };
    for edit in [
        (|p| p.transcript.0[31] ^= 1) as fn(&mut TlsProof),
        |p| p.transcript.0.resize(48, 0),
        |p| p.sig.0[5] ^= 1,
        |p| p.sig.0.truncate(63),
        |p| p.alg = "PS256".into(),
    ] {
        let code = spoiled(edit);
        assert!(
            ["svid-possession", "token-key-type"].contains(&code),
            "{code}"
        );
    }
    assert_eq!(spoiled(|p| p.alg = "HS256".into()), "token-alg");
    assert_eq!(spoiled(|p| p.alg = "RS256".into()), "svid-tls");
    assert_eq!(spoiled(|p| p.transcript.0.truncate(31)), "svid-tls");
    assert_eq!(spoiled(|p| p.chain.truncate(1)), "svid-root");
    // What was signed for a session key is no handshake, nor the other way around.
    let scene = Scene::new();
    let (root, chain) = scene.certificates();
    let sign = |message: &[u8]| {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &scene.private());
        let sig = pair.unwrap().sign(&SystemRandom::new(), message).unwrap();
        Bytes(sig.as_ref().to_vec())
    };
    let proof = |sig| SvidProof {
        alg: "ES256".into(),
        chain: chain.clone(),
        sig,
    };
    let kept = |sig| TlsProof {
        alg: "ES256".into(),
        chain: chain.clone(),
        sig,
        transcript: Bytes(vec![7; 32]),
    };
    let (ours, tls) = (
        sign(&svid_message(&commitment())),
        sign(&tls_message(&[7; 32])),
    );
    let judge = |token: Vec<u8>| scene.judge(&root, token).map(|claims| claims.binding);
    assert_eq!(
        judge(encode(&proof(ours.clone())).unwrap()),
        Ok(Binding::Key)
    );
    assert_eq!(judge(encode(&kept(tls.clone())).unwrap()), Ok(Binding::Tls));
    for swapped in [encode(&proof(tls)).unwrap(), encode(&kept(ours)).unwrap()] {
        assert_eq!(judge(swapped).unwrap_err().code, "svid-possession");
    }
}

#[test]
fn a_root_that_is_kept_judges_each_certificate_by_itself() {
    let mut scene = Scene::new();
    let (root, _) = scene.certificates();
    let keeps = Checker::new();
    for (digest, signer, code) in [
        ("-sha256", "root", None),
        ("-sha256", "stranger", Some("svid-signature")),
        ("-sha384", "root", None),
        ("-sha512", "root", Some("svid-alg")),
        ("-sha384", "stranger", Some("svid-signature")),
        ("-sha256", "root", None),
    ] {
        scene.digest = digest;
        let leaf = scene.make("leaf", "workload", &scene.leaf, signer, "1");
        let token = encode(&scene.proof(vec![Bytes(leaf)])).unwrap();
        let found = scene.judge_by(&keeps, &root, &token);
        assert_eq!(found, scene.judge_by(&SshSignatures, &root, &token));
        assert_eq!(
            found.err().map(|denied| denied.code),
            code,
            "{digest} by {signer}"
        );
    }
}

#[test]
fn a_workload_is_its_spiffe_id() {
    let claims = Scene::new().check().unwrap();
    assert_eq!(claims.subject, subject("spiffe://example.org", ID));
    assert_eq!((claims.binding, claims.run), (Binding::Key, None));
    assert_eq!(claims.facts[0].value, ID);
    assert!(claims.expires > claims.issued && !claims.missing.is_empty());
    let mut scene = Scene::new();
    scene.key = "rsa:2048";
    scene.signer = "root";
    assert_eq!(scene.check().unwrap().binding, Binding::Key);
}

/// Who vouches for certificates.
fn domain() -> Provider {
    Provider {
        algorithms: vec!["ES256".into(), "PS256".into(), "RS256".into()],
        audience: "ascribe".into(),
        authn: None,
        issuer: "spiffe://example.org".into(),
        jwks_uri: "https://spire.example/bundle".into(),
        kind: ProviderKind::SpiffeX509,
        max_keys_age_seconds: None,
        name: "mesh".into(),
        observers: None,
        withdrawn: false,
    }
}

type Case = (&'static str, fn(&mut Scene), &'static str);

const CASES: [Case; 36] = [
    (
        "two ids",
        |s| s.leaf = leaf(&format!("{ID},URI:{ID}2")),
        "svid-id",
    ),
    ("no id", |s| s.leaf = USAGE.into(), "svid-id"),
    (
        "a name only",
        |s| s.leaf = leaf(ID).replace(&format!("URI:{ID}"), "DNS:example.org"),
        "svid-id",
    ),
    (
        "another trust domain",
        |s| s.leaf = leaf("spiffe://example.com/a"),
        "svid-domain",
    ),
    (
        "a longer trust domain",
        |s| s.leaf = leaf("spiffe://example.org.evil/a"),
        "svid-domain",
    ),
    (
        "upper case domain",
        |s| s.leaf = leaf("spiffe://EXAMPLE.org/a"),
        "svid-id",
    ),
    (
        "upper case scheme",
        |s| s.leaf = leaf("SPIFFE://example.org/a"),
        "svid-id",
    ),
    (
        "punycode is another domain",
        |s| s.leaf = leaf("spiffe://xn--exmple-cua.org/a"),
        "svid-domain",
    ),
    (
        "percent",
        |s| s.leaf = leaf("spiffe://example.org/a%2fb"),
        "svid-id",
    ),
    (
        "dots",
        |s| s.leaf = leaf("spiffe://example.org/a/../b"),
        "svid-id",
    ),
    (
        "no path",
        |s| s.leaf = leaf("spiffe://example.org"),
        "svid-id",
    ),
    (
        "a port",
        |s| s.leaf = leaf("spiffe://example.org:443/a"),
        "svid-id",
    ),
    (
        "an authority",
        |s| s.leaf = leaf(ID).replace("CA:FALSE", "CA:TRUE"),
        "svid-ca",
    ),
    (
        "signs certificates",
        |s| s.leaf = leaf(ID).replace("digitalSignature", "digitalSignature,keyCertSign"),
        "svid-usage",
    ),
    (
        "signs lists",
        |s| s.leaf = leaf(ID).replace("digitalSignature", "digitalSignature,cRLSign"),
        "svid-usage",
    ),
    (
        "signs nothing",
        |s| s.leaf = leaf(ID).replace("digitalSignature", "keyEncipherment"),
        "svid-usage",
    ),
    (
        "no usage",
        |s| s.leaf = leaf(ID).replace(USAGE, ""),
        "svid-usage",
    ),
    (
        "for servers alone",
        |s| s.leaf = leaf(ID).replace(",clientAuth", ""),
        "svid-usage",
    ),
    (
        "an unknown demand",
        |s| s.leaf.push_str("1.2.3.4=critical,ASN1:NULL\n"),
        "svid-critical",
    ),
    (
        "names limited",
        |s| {
            s.middle
                .push_str("nameConstraints=permitted;URI:example.org\n")
        },
        "svid-critical",
    ),
    (
        "an authority of another domain",
        |s| s.middle = AUTHORITY.replace("example.org", "example.com"),
        "svid-domain",
    ),
    (
        "no authority",
        |s| s.middle = leaf("spiffe://example.org/b"),
        "svid-ca",
    ),
    (
        "an authority for nothing",
        |s| s.middle = AUTHORITY.replace("keyCertSign,", ""),
        "svid-usage",
    ),
    (
        "too many below",
        |s| s.root = AUTHORITY.replace("CA:TRUE", "CA:TRUE,pathlen:0"),
        "svid-path-length",
    ),
    ("signed by itself", |s| s.signer = "leaf", "svid-root"),
    (
        "a root of the same name",
        |s| s.signer = "stranger",
        "svid-signature",
    ),
    (
        "the authority is missing",
        |s| s.edit = |p| p.chain.truncate(1),
        "svid-root",
    ),
    (
        "out of order",
        |s| s.edit = |p| p.chain.reverse(),
        "svid-ca",
    ),
    (
        "four certificates",
        |s| s.edit = |p| p.chain = vec![p.chain[1].clone(); 4],
        "svid-chain",
    ),
    ("none", |s| s.edit = |p| p.chain.clear(), "svid-chain"),
    (
        "bytes after it",
        |s| s.edit = |p| p.chain[0].0.push(0),
        "svid-der",
    ),
    (
        "a huge certificate",
        |s| s.edit = |p| p.chain[0].0.resize(17_000, 0),
        "svid-size",
    ),
    (
        "another session key",
        |s| s.session.0 = s.session.0.replace("IOHU", "IOHV"),
        "svid-possession",
    ),
    (
        "a spoiled signature",
        |s| s.edit = |p| p.sig.0[5] ^= 1,
        "svid-possession",
    ),
    ("SHA-1", |s| s.digest = "-sha1", "svid-alg"),
    ("a short key", |s| s.key = "rsa:1024", "token-key-weak"),
];

const MORE: [Case; 7] = [
    ("an unknown curve", |s| s.key = "secp256k1", "svid-key"),
    ("ten days", |s| s.days = "10", "token-life"),
    ("ends before it begins", |s| s.days = "-1", "token-time"),
    (
        "another root's entry",
        |s| s.bundle = |b| b["keys"][0]["x5c"] = json!(["AAAA"]),
        "svid-root",
    ),
    (
        "a key for tokens",
        |s| s.bundle = |b| b["keys"][0]["use"] = json!("jwt-svid"),
        "svid-root",
    ),
    (
        "an algorithm that does not count",
        |s| s.edit = |p| p.alg = "HS256".into(),
        "token-alg",
    ),
    (
        "spaces",
        |s| {
            s.last = |mut t| {
                t.push(b' ');
                t
            }
        },
        "svid-form",
    ),
];

pub(super) fn codes() -> Vec<&'static str> {
    let all = CASES.iter().chain(&MORE).map(|case| case.2);
    // Of what was signed in TLS.
    all.chain(["svid-tls"]).collect()
}

#[test]
fn what_is_spoiled_is_refused() {
    for (name, spoil, code) in CASES.iter().chain(&MORE) {
        let mut scene = Scene::new();
        spoil(&mut scene);
        match scene.check() {
            Ok(claims) => panic!("{name}: {claims:?}"),
            Err(denied) => assert_eq!(denied.code, *code, "{name}: {denied}"),
        }
    }
}
