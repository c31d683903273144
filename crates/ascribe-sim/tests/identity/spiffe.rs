//! A trust domain as SPIRE shapes it: certificates, and the bundle that says who vouches for them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use ascribe_core::encoding::{base64_std, base64url};

use super::world::need;

pub(super) const DOMAIN: &str = "spiffe://demo.example";
pub(super) const ID: &str = "spiffe://demo.example/ns/shop/sa/deploy";
/// Somebody else of the domain.
pub(super) const OTHER: &str = "spiffe://demo.example/ns/shop/sa/deploy-2";
/// What a workload's certificate is for.
pub(super) const USAGE: &str = "basicConstraints=critical,CA:FALSE\n\
    keyUsage=critical,digitalSignature,keyEncipherment,keyAgreement\nextendedKeyUsage=serverAuth,clientAuth\n";
/// What an authority's is for.
pub(super) const AUTHORITY: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

pub(super) fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut openssl = Command::new(need("openssl"));
    let out = openssl.args(args).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
    out.stdout
}

/// A P-256 key with a certificate, as SPIRE shapes it: by `signer`, or by itself.
pub(super) fn certify(dir: &Path, name: &str, extensions: &str, signer: &str) {
    let (key, request, pem) = (
        format!("{name}.key"),
        format!("{name}.csr"),
        format!("{name}.pem"),
    );
    let curve = "ec_paramgen_curve:P-256";
    openssl(
        dir,
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            curve,
            "-out",
            &key,
        ],
    );
    let subject = format!("/O=SPIRE/CN={name}");
    openssl(
        dir,
        &[
            "req", "-new", "-key", &key, "-subj", &subject, "-out", &request,
        ],
    );
    std::fs::write(dir.join("extensions"), extensions).unwrap();
    let (by, by_key) = (format!("{signer}.pem"), format!("{signer}.key"));
    let mut args = vec![
        "x509",
        "-req",
        "-in",
        &request,
        "-set_serial",
        "7",
        "-days",
        "1",
    ];
    args.extend(["-sha256", "-extfile", "extensions", "-out", &pem]);
    if signer == name {
        args.extend(["-signkey", &key]);
    } else {
        args.extend(["-CA", &by, "-CAkey", &by_key]);
    }
    openssl(dir, &args);
}

/// The trust bundle of the domain, as SPIFFE federation publishes it.
pub(super) fn bundle(dir: &Path) -> String {
    let der = openssl(dir, &["x509", "-in", "root.pem", "-outform", "DER"]);
    let key = ["pkey", "-in", "root.key", "-pubout", "-outform", "DER"];
    let key = openssl(dir, &key);
    // A P-256 key ends with the point: x and y.
    let point = &key[key.len() - 64..];
    serde_json::json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "x509-svid",
        "x": base64url(&point[..32]), "y": base64url(&point[32..]), "x5c": [base64_std(&der)],
    }] })
    .to_string()
}

/// Answers every request with the same document, until the test ends. Gives its address.
pub(super) fn publish(document: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut heard = [0; 4096];
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{document}",
                document.len()
            );
            if stream.read(&mut heard).is_ok() {
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        }
    });
    format!("http://{address}/bundle")
}
