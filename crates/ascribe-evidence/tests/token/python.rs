//! Against an independent implementation: Python's `cryptography` package.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ascribe_core::identity::ProviderKind;
use serde_json::{Value, json};

use super::issuer::{Login, judge};

/// What both programs begin with: reading a line of JSON, keys of a JWK.
const COMMON: &str = r#"
import base64, json, sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

def dec(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
def enc(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
def num(value, size=None):
    return enc(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))

SHA = hashes.SHA256()
PADDING = {"RS256": padding.PKCS1v15(), "PS256": padding.PSS(padding.MGF1(SHA), 32)}
CURVES = {"ES256": ("P-256", ec.SECP256R1(), hashes.SHA256(), 32), "ES384": ("P-384", ec.SECP384R1(), hashes.SHA384(), 48)}
"#;

/// Prints the claims of each token whose signature is good.
const VERIFY: &str = r#"
for line in sys.stdin:
    job = json.loads(line)
    signed, signature = job["token"].rsplit(".", 1)
    head, claims = (json.loads(dec(part)) for part in signed.split("."))
    jwk = next(k for k in job["keys"] if k["kid"] == head["kid"])
    alg, signed, signature = head["alg"], signed.encode(), dec(signature)
    big = lambda name: int.from_bytes(dec(jwk[name]), "big")
    if alg in PADDING:
        rsa.RSAPublicNumbers(big("e"), big("n")).public_key().verify(signature, signed, PADDING[alg], SHA)
    elif alg in CURVES:
        _, curve, digest, size = CURVES[alg]
        der = utils.encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))
        ec.EllipticCurvePublicNumbers(big("x"), big("y"), curve).public_key().verify(der, signed, ec.ECDSA(digest))
    else:
        ed25519.Ed25519PublicKey.from_public_bytes(dec(jwk["x"])).verify(signature, signed)
    print(json.dumps(claims))
"#;

/// Prints a key and a token of it for each algorithm.
const SIGN: &str = r#"
for line in sys.stdin:
    job = json.loads(line)
    alg = job["alg"]
    signed = (enc(json.dumps({"alg": alg, "kid": "py"}).encode()) + "." + enc(json.dumps(job["claims"]).encode())).encode()
    if alg in PADDING:
        key = rsa.generate_private_key(65537, 3072)
        public = key.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": num(public.n), "e": num(public.e)}
        signature = key.sign(signed, PADDING[alg], SHA)
    elif alg in CURVES:
        name, curve, digest, size = CURVES[alg]
        key = ec.generate_private_key(curve)
        public = key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": name, "x": num(public.x, size), "y": num(public.y, size)}
        r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    else:
        key = ed25519.Ed25519PrivateKey.generate()
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": enc(key.public_key().public_bytes_raw())}
        signature = key.sign(signed)
    jwk["kid"] = "py"
    print(json.dumps({"jwk": jwk, "token": signed.decode() + "." + enc(signature)}))
"#;

const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

/// Each line of what the program prints, given these lines; none where Python or the package is missing.
fn python(program: &str, input: &[Value]) -> Option<Vec<Value>> {
    let run = |text: &str| {
        let mut command = Command::new("python3");
        command
            .args(["-c", text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn()
    };
    let there = run("import cryptography.hazmat.primitives.asymmetric.ed25519");
    if !there.is_ok_and(|child| child.wait_with_output().unwrap().status.success()) {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: tokens against Python, because it or its package `cryptography` is not installed\n")).unwrap();
        return None;
    }
    let mut child = run(&format!("{COMMON}{program}")).unwrap();
    let lines: String = input.iter().map(|value| format!("{value}\n")).collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

#[test]
fn what_the_issuer_here_signs_verifies_there() {
    let logins = ALGORITHMS.map(|alg| {
        let mut login = Login::of(ProviderKind::Oidc);
        login.signed_with(alg);
        if alg == "PS256" {
            login.header["kid"] = json!("key-RS256");
        }
        login
    });
    let jobs = logins
        .each_ref()
        .map(|login| json!({"keys": login.keys["keys"], "token": login.token()}));
    if let Some(claims) = python(VERIFY, &jobs) {
        assert_eq!(claims, logins.map(|login| login.claims));
    }
}

#[test]
fn what_python_signs_verifies_here() {
    let claims = Login::of(ProviderKind::Oidc).claims;
    let jobs = ALGORITHMS.map(|alg| json!({"alg": alg, "claims": claims}));
    let Some(made) = python(SIGN, &jobs) else {
        return;
    };
    assert_eq!(made.len(), ALGORITHMS.len());
    for (i, one) in made.iter().enumerate() {
        let mut login = Login::of(ProviderKind::Oidc);
        login.keys = json!({"keys": [one["jwk"]]});
        let token = one["token"].as_str().unwrap();
        assert!(
            judge(&login, token.as_bytes()).is_ok(),
            "{}: {:?}",
            ALGORITHMS[i],
            judge(&login, token.as_bytes())
        );
        // The next one's key did not sign it.
        login.keys = json!({"keys": [made[(i + 1) % made.len()]["jwk"]]});
        assert!(
            judge(&login, token.as_bytes()).is_err(),
            "{}",
            ALGORITHMS[i]
        );
    }
}
