//! A workload logs in with its X.509-SVID, whose own key signs, and reaches a host with plain `ssh`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use ascribe_core::encoding::{base64_std, base64url};

use super::agent::Agent;
use super::providers::Provider;
use super::world::{World, need};

const DOMAIN: &str = "spiffe://demo.example";
pub(super) const ID: &str = "spiffe://demo.example/ns/shop/sa/deploy";
/// Somebody else of the domain.
pub(super) const OTHER: &str = "spiffe://demo.example/ns/shop/sa/deploy-2";

pub(super) fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut openssl = Command::new(need("openssl"));
    let out = openssl.args(args).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
    out.stdout
}

/// A P-256 key with a certificate, as SPIRE shapes it: by `signer`, or by itself.
fn certify(dir: &Path, name: &str, extensions: &str, signer: &str) {
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
fn bundle(dir: &Path) -> String {
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
fn publish(document: String) -> String {
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

/// A demo whose workload is [`ID`], which has a grant. In the directory are its SVID, `deploy`, and `other`, that of
/// another workload.
pub(super) fn issued(world: &World) -> PathBuf {
    let dir = world.path("spire");
    std::fs::create_dir(&dir).unwrap();
    let authority = format!(
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectAltName=URI:{DOMAIN}\n"
    );
    certify(&dir, "root", &authority, "root");
    let usage = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment,keyAgreement\n\
                 extendedKeyUsage=serverAuth,clientAuth\n";
    for (name, id) in [("deploy", ID), ("other", OTHER)] {
        let extensions = format!("{usage}subjectAltName=URI:{id}\n");
        certify(&dir, name, &extensions, "root");
    }
    let bundle = publish(bundle(&dir));
    world.add_provider(&Provider {
        name: "spire",
        kind: "spiffe-x509",
        issuer: DOMAIN,
        audience: "ascribe",
        jwks: Some(&bundle),
    });
    world.add_workload("spire", &[&format!("sub={ID}")]);
    world.grant_workload();
    dir
}

#[test]
fn a_workload_acts_by_its_svid_and_another_one_of_the_domain_does_not() {
    let world = World::new();
    let dir = issued(&world);

    let agent = Agent::start(&world);
    let log_in = |name: &str| {
        let (pem, key) = (
            dir.join(format!("{name}.pem")),
            dir.join(format!("{name}.key")),
        );
        let args = [
            "login",
            "--workload",
            "deploy-shop",
            "--for",
            "1h",
            "--svid",
            pem.to_str().unwrap(),
            "--svid-key",
            key.to_str().unwrap(),
        ];
        agent.run(&world, &args)
    };
    log_in("other").exits(2);
    agent.ssh(&world, "id").exits(255);
    log_in("deploy").exits(0);
    agent.ssh(&world, "echo by svid").exits(0);
    let action = world.actions(&["--text", "by svid"]).remove(0);
    let actor = &action["who"]["chain"][0];
    assert_eq!(actor["kind"], "workload", "{action}");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(actor["assurance"], 2);
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let file = world.path("svid.bundle");
    world.json(&["export", session, "-f", file.to_str().unwrap()]);
    let report = world.verify(&file, &world.policy()).exits(0);
    assert!(report.stdout.contains("login:spire"), "{report:?}");
}
