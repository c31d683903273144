//! Security keys are refused, for nothing says whether their holder touched them.

use std::sync::Arc;

use ascribe_core::encoding::base64_std;
use ascribe_core::statement::{Authority, Mapping, RevokedCertificates, SshKey};
use ascribe_tlog::SigningKey;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, Handler, VerifiedPublicKey};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::certificates::{read, sign};
use super::people::OPERATOR;
use super::raw::Raw;
use super::world::{World, keygen, public};

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

/// A security key whose holder never touches it.
struct Untouched(SigningKey);

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

impl Untouched {
    fn new() -> Self {
        Self(SigningKey::from_seed("example.org/key", &[7; 32]).unwrap())
    }
    fn line(&self) -> String {
        let key = self.0.verifier().public_key();
        let blob = strings(&[KIND.as_bytes(), &key, APPLICATION.as_bytes()]);
        format!("{KIND} {}", base64_std(&blob))
    }
}

impl russh::Signer for Untouched {
    type Error = russh::SendError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        // No flag is set, not even that of a touch; then a counter (OpenSSH PROTOCOL.u2f).
        let flags = [0, 0, 0, 0, 1];
        let application = Sha256::digest(APPLICATION);
        let message = Sha256::digest(&to_sign);
        let signed = [&application[..], &flags, &message[..]].concat();
        let mut signature = strings(&[KIND.as_bytes(), &self.0.sign_raw(&signed)]);
        signature.extend(flags);
        Ok([to_sign, strings(&[&signature])].concat())
    }
}

/// A server of the library alone, which takes any key whose signature the library finds good.
struct Trusting;

impl Handler for Trusting {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }
}

async fn offer(port: u16, user: &str) -> AuthResult {
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", port);
    let mut handle = russh::client::connect(config, address, Raw).await.unwrap();
    let mut key = Untouched::new();
    let public = PublicKey::from_openssh(&key.line()).unwrap();
    let result = handle.authenticate_publickey_with(user, public, None, &mut key);
    result.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_lets_a_security_key_in_that_nobody_touched() {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(russh::server::Config {
        keys: vec![keygen(&dir.path().join("host"))],
        ..russh::server::Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(config, socket, Trusting).await;
        running.unwrap().await.ok();
    });
    // Once this fails, the library tells a touch from none, and decision 5 can be looked at again.
    assert!(offer(port, "root").await.success());
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_key_is_refused_alone_and_with_a_certificate() {
    let w = World::new().await;
    let login = format!("{}@db1", w.account);
    let corp = keygen(&w.path("corp"));
    let authority = Authority {
        keys: vec![public(&corp)],
        name: "corp".into(),
        people: vec![Mapping {
            person: OPERATOR,
            principal: "olu".into(),
        }],
        revoked: RevokedCertificates::default(),
    };
    w.people.ca_set(&w.door.ledger, authority).await;
    let line = SshKey(Untouched::new().line());
    // Even the operator's own, which signs statements.
    w.people.enrol_key(&w.door.ledger, line).await;
    assert!(!offer(w.port, &login).await.success());
    let mut key = Untouched::new();
    std::fs::write(w.path("token.pub"), key.line()).unwrap();
    sign(&w, "corp", "token", &["-n", "olu", "-V", "-5m:+1h"]);
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", w.port);
    let mut handle = russh::client::connect(config, address, Raw).await.unwrap();
    let certificate = read(&w, "token");
    let result = handle.authenticate_certificate_with(&login, certificate, None, &mut key);
    assert!(!result.await.unwrap().success());
    // The same authority's certificate for an ordinary key is taken.
    std::fs::copy(w.path("stranger.pub"), w.path("plain.pub")).unwrap();
    sign(&w, "corp", "plain", &["-n", "olu", "-V", "-5m:+1h"]);
    let plain = Arc::new(PrivateKey::read_openssh_file(w.path("stranger")).unwrap());
    let result = handle.authenticate_openssh_cert(&login, plain, read(&w, "plain"));
    assert!(result.await.unwrap().success());
}
