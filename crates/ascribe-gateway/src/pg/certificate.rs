//! A client's certificate in TLS: asked for, never demanded, and kept with what its key signed. Whose it is, and whether
//! anybody vouches for it, is said by who takes it ([`super::Bearers`]); here only the signature is checked.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConnection};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::Bearers;

/// What a client showed in TLS. That its key signed is checked, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Its certificate, then what it sent of those above it, in DER.
    pub chain: Vec<Vec<u8>>,
    /// What its key signed; none before TLS 1.3, where it signs something else.
    pub signed: Option<TlsSignature>,
}

/// What a client's key signed in a handshake of TLS 1.3 (RFC 8446, 4.4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSignature {
    /// The signature scheme's number.
    pub scheme: u16,
    /// All that was signed: 64 spaces, the context, a zero byte and the hash of the handshake.
    pub message: Vec<u8>,
    /// The signature, as it came.
    pub signature: Vec<u8>,
}

/// Asks one connection for a certificate.
pub(super) struct Asking {
    bearers: Arc<dyn Bearers>,
    algorithms: WebPkiSupportedAlgorithms,
    signed: Mutex<Option<TlsSignature>>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl Asking {
    /// The same server, asking for a certificate, for one connection.
    pub(super) fn of(
        server: &ServerConfig,
        bearers: &Arc<dyn Bearers>,
    ) -> Result<(ServerConfig, Arc<Self>), rustls::Error> {
        let provider = Arc::clone(server.crypto_provider());
        let asking = Arc::new(Self {
            bearers: Arc::clone(bearers),
            algorithms: provider.signature_verification_algorithms,
            signed: Mutex::new(None),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::clone(&asking) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&server.cert_resolver));
        config.alpn_protocols.clone_from(&server.alpn_protocols);
        // A handshake that resumes another one signs nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((config, asking))
    }

    /// What the client showed in this connection, if it did.
    pub(super) fn shown(&self, connection: &ServerConnection) -> Option<ShownCertificate> {
        let chain = connection.peer_certificates()?;
        Some(ShownCertificate {
            chain: chain.iter().map(|der| der.to_vec()).collect(),
            signed: self.kept().take(),
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<TlsSignature>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Whoever issued it: a list of names would be as long as all trust domains have roots.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Nobody is let in by this: who vouches for it is on record, and asked when the client says where it wants to go.
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.bearers.names_a_workload(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Another's is not looked at, and nothing rests on it: many that lie about are of a form that is refused here.
        if !self.bearers.names_a_workload(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let valid = verify_tls13_signature(message, cert, dss, &self.algorithms)?;
        *self.kept() = Some(TlsSignature {
            scheme: u16::from(dss.scheme),
            message: message.to_vec(),
            signature: dss.signature().to_vec(),
        });
        Ok(valid)
    }

    /// Those that records have names for, so that a key of another kind is not shown at all.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
