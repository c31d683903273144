//! What a server receives, in the clear: it stands in for the server with a key of its own, hands on every call and
//! answer, and keeps the calls. It can lie in its answers.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ascribe_core::encoding::base64_std;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::dial::{dial_to, server};
use super::world::World;

/// What it says instead of what the server said.
pub(super) type Lie = fn(String) -> String;

/// Ends with the test: its threads wait for callers that do not come.
pub(super) struct Recorder {
    /// `HOST:PORT`.
    pub(super) api: String,
    /// Its key, as clients pin it.
    pub(super) pin: String,
    calls: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    /// Before this world's server.
    pub(super) fn start(world: &World, lie: Lie) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
        let key = sign::any_supported_type(&der).unwrap();
        let public = key.public_key().unwrap().to_vec();
        let certified = CertifiedKey::new(vec![CertificateDer::from(public.clone())], key);
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(
                certified,
            ))));
        let (config, behind) = (Arc::new(config), server(world));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Self {
            api: listener.local_addr().unwrap().to_string(),
            pin: base64_std(&public),
            calls: Arc::default(),
        };
        let calls = Arc::clone(&recorder.calls);
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                hand_on(caller, &config, behind.clone(), (&calls, lie));
            }
        });
        recorder
    }

    /// Every call so far.
    pub(super) fn calls(&self) -> Vec<Vec<u8>> {
        self.calls.lock().unwrap().clone()
    }
}

/// One call and its answer. A caller who hangs up said nothing.
fn hand_on(
    caller: TcpStream,
    config: &Arc<ServerConfig>,
    (api, pin): (String, Vec<u8>),
    (calls, lie): (&Mutex<Vec<Vec<u8>>>, Lie),
) {
    caller
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let tls = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut caller = StreamOwned::new(tls, caller);
    let Some(call) = frame(&mut caller) else {
        return;
    };
    calls.lock().unwrap().push(call.clone());
    let mut behind = dial_to(&api, pin);
    behind.write_all(&framed(&call)).unwrap();
    let answer = frame(&mut behind).expect("the server answers");
    let answer = lie(String::from_utf8(answer).unwrap());
    caller.write_all(&framed(answer.as_bytes())).unwrap();
}

fn frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes(), body].concat()
}
