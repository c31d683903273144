//! Connections to the server's API, past the client.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::encoding::from_base64_std;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::world::World;

/// Knows the server by the key in its own file, as the real client does.
#[derive(Debug)]
struct Pinned(Vec<u8>, Arc<CryptoProvider>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(key.as_ref(), self.0, "another server answers");
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let known = &self.1.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, known)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Where the server says that it is, and its key.
pub(super) fn server(world: &World) -> (String, Vec<u8>) {
    let file = std::fs::read_to_string(world.data().join("server.json")).unwrap();
    let server: Value = serde_json::from_str(&file).unwrap();
    let pin = from_base64_std(server["pin"].as_str().unwrap()).unwrap();
    (server["api"].as_str().unwrap().to_owned(), pin)
}

/// A connection to the API.
pub(super) fn dial(world: &World) -> StreamOwned<ClientConnection, TcpStream> {
    let (api, pin) = server(world);
    dial_to(&api, pin)
}

/// The same, to this address and key.
pub(super) fn dial_to(api: &str, pin: Vec<u8>) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(pin, provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("ascribe").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(api).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    StreamOwned::new(tls, tcp)
}
