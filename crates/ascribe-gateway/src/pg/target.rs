//! The way to a target: its certificate, its password, its first words.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ascribe_core::database::Postgres;
use ascribe_core::statement::Target;
use ascribe_wire::pg::Secret;
use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::server::{self, Authentication, Message, Report};
use ascribe_wire::pg::startup::{cancel_request, is_agreed, ssl_request, startup_message};
use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Io;
use crate::upstream::{Reserved, dial_from};

/// A read's size, in bytes.
const PIECE: usize = 4096;
/// Most bytes that a target says before it is ready.
const MOST: usize = 256 * 1024;
/// SCRAM, and SCRAM bound to the TLS connection (RFC 5802, RFC 5929).
const SCRAM: &[u8] = b"SCRAM-SHA-256";
const SCRAM_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// Why a target cannot be reached. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// It is not there, or breaks off.
    #[error("it cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// It is not the one that was registered, or shows less than it must.
    #[error("{0}")]
    Untrusted(String),
    /// It turns the login away.
    #[error("it says: {}", String::from_utf8_lossy(&.0.message))]
    Refused(Box<Report>),
    /// The version of the protocol that it was asked for may be too new for it: it let nobody in, nor asked who comes.
    #[error("it does not take the version that it was asked for: {0}")]
    Version(Box<TargetError>),
    /// There is nothing to log in to it with. The reason is for operators.
    #[error("its credential cannot be had: {0}")]
    NoCredential(String),
}

fn untrusted(why: impl Into<String>) -> TargetError {
    TargetError::Untrusted(why.into())
}

/// A target that is ready.
pub(super) struct Ready {
    pub(super) stream: Box<dyn Io>,
    pub(super) frames: Frames,
    /// What it said of its settings, for the client.
    pub(super) settings: Vec<(Bytes, Bytes)>,
    /// What cancels its statements.
    pub(super) key: Option<(u32, Secret)>,
    /// The port that the connection comes from.
    pub(super) port: u16,
    /// The state of its transaction.
    pub(super) status: server::Status,
}

/// How the login at a target goes.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    /// The minor version of the protocol that is asked for. A target may say that it speaks an older one.
    pub(super) minor: u16,
    /// The role that logs in.
    pub(super) user: &'a str,
    pub(super) password: Option<&'a Secret>,
    /// All other parameters, in order.
    pub(super) parameters: &'a [(Bytes, Bytes)],
}

/// Connects, and encrypts where the target's rules have certificates for it. `ports` take in the port that the
/// connection comes from as soon as there is one.
pub(super) async fn connect(
    target: &Target,
    own: &[SocketAddr],
    from: &mut Reserved,
    ports: &mut Vec<u16>,
) -> Result<(Box<dyn Io>, Option<Bytes>, u16), TargetError> {
    let postgres = target
        .postgres
        .as_ref()
        .ok_or_else(|| untrusted("it is no database"))?;
    let mut tcp: TcpStream = dial_from(target, own, from)
        .await
        .map_err(|error| untrusted(error.to_string()))?;
    let port = tcp.local_addr()?.port();
    ports.push(port);
    if postgres.trust.is_empty() {
        return Ok((Box::new(tcp), None, port));
    }
    tcp.write_all(&ssl_request()).await?;
    if tcp.read_u8().await? != b'S' {
        return Err(untrusted("it does not offer TLS"));
    }
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| untrusted("its host is no name that a certificate can have"))?;
    let connector = TlsConnector::from(Arc::new(config(postgres)?));
    let stream = connector
        .connect(name, tcp)
        .await
        .map_err(|error| untrusted(format!("its TLS is not trusted: {error}")))?;
    let (_, tls) = stream.get_ref();
    let certificate = tls.peer_certificates().and_then(<[_]>::first);
    let bound = certificate.and_then(|certificate| end_point(certificate));
    Ok((Box::new(stream), bound, port))
}

/// The certificate's digest by which a login is bound to it (RFC 5929, 4.1); none where the
/// certificate's own digest is not known.
fn end_point(certificate: &[u8]) -> Option<Bytes> {
    use x509_parser::oid_registry as oid;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm.algorithm;
    let is = |known: &[oid::Oid<'static>]| known.contains(algorithm);
    if is(&[oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384]) {
        Some(Bytes::copy_from_slice(&Sha384::digest(certificate)))
    } else if is(&[oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512]) {
        Some(Bytes::copy_from_slice(&Sha512::digest(certificate)))
    } else if is(&[
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
        oid::OID_PKCS1_SHA1WITHRSA,
    ]) {
        Some(Bytes::copy_from_slice(&Sha256::digest(certificate)))
    } else {
        None
    }
}

fn config(postgres: &Postgres) -> Result<ClientConfig, TargetError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in &postgres.trust {
        let der = CertificateDer::from(certificate.0.clone());
        roots
            .add(der)
            .map_err(|_| untrusted("a certificate that it is registered with cannot be read"))?;
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| untrusted(error.to_string()))?;
    let verifier = Registered {
        pinned: postgres.trust.iter().map(|c| c.0.clone()).collect(),
        chain,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| untrusted(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Accepts what the target was registered with: its own certificate as it is, or one that is signed by
/// such a certificate and names the host.
#[derive(Debug)]
struct Registered {
    pinned: Vec<Vec<u8>>,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Registered {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self
            .pinned
            .iter()
            .any(|pinned| *pinned == end_entity.as_ref())
        {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Logs in and waits until the target is ready.
pub(super) async fn log_in(
    (stream, bound, port): (Box<dyn Io>, Option<Bytes>, u16),
    login: Login<'_>,
) -> Result<Ready, TargetError> {
    let mut talk = Talk {
        stream,
        frames: Frames::new(Side::Server),
        read: BytesMut::new(),
        heard: 0,
        understood: false,
    };
    let user = (&b"user"[..], login.user.as_bytes());
    let others = login.parameters.iter().map(|(n, v)| (&n[..], &v[..]));
    let startup = startup_message(login.minor, std::iter::once(user).chain(others));
    talk.stream.write_all(&startup).await?;
    talk.stream.flush().await?;
    if let Err(error) = talk.authenticate(login, bound).await {
        let is_new = login.minor > 0 && !talk.understood && may_be_of_the_version(&error);
        return Err(match is_new {
            true => TargetError::Version(Box::new(error)),
            false => error,
        });
    }
    let (mut settings, mut key) = (Vec::new(), None);
    loop {
        match talk.hear().await? {
            Message::ParameterStatus(name, value) => settings.push((name, value)),
            Message::BackendKeyData(process, secret) => key = Some((process, secret)),
            Message::ReadyForQuery(status) => {
                return Ok(Ready {
                    stream: talk.stream,
                    frames: talk.frames,
                    settings,
                    key,
                    port,
                    status,
                });
            }
            Message::Notice(_) => {}
            _ => return Err(untrusted("it says something out of turn")),
        }
    }
}

/// The conversation until the target is ready.
struct Talk {
    stream: Box<dyn Io>,
    frames: Frames,
    read: BytesMut,
    heard: usize,
    /// It said something that is no refusal.
    understood: bool,
}

impl Talk {
    async fn say(&mut self, bytes: &Bytes) -> Result<(), TargetError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message; an error of the target's is one here.
    async fn hear(&mut self) -> Result<Message, TargetError> {
        loop {
            let piece = self.frames.next();
            match piece.map_err(|error| untrusted(error.to_string()))? {
                Some(Piece::Whole(frame)) => {
                    let message = server::decode(&frame);
                    match message.map_err(|error| untrusted(error.to_string()))? {
                        Message::Error(report) => {
                            return Err(TargetError::Refused(Box::new(report)));
                        }
                        message => {
                            self.understood = true;
                            return Ok(message);
                        }
                    }
                }
                Some(_) => return Err(untrusted("it says something out of turn")),
                None => {
                    self.read.reserve(PIECE);
                    let count = self.stream.read_buf(&mut self.read).await?;
                    self.heard += count;
                    if count == 0 || self.heard > MOST {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    self.frames.push(self.read.split().freeze());
                }
            }
        }
    }

    async fn authenticate(
        &mut self,
        login: Login<'_>,
        bound: Option<Bytes>,
    ) -> Result<(), TargetError> {
        let mut agreed = None;
        loop {
            match self.hear().await? {
                Message::Authentication(Authentication::Ok) => return Ok(()),
                Message::Authentication(Authentication::Sasl(mechanisms)) => {
                    let password = login.password.ok_or_else(|| {
                        untrusted("it wants a password, and none is stored for the role")
                    })?;
                    return self.scram(&mechanisms, password, bound).await;
                }
                Message::Authentication(Authentication::CleartextPassword) => {
                    return Err(untrusted(
                        "it wants the password in the clear, which it does not get; set `scram-sha-256` in its pg_hba.conf",
                    ));
                }
                Message::Authentication(Authentication::Md5Password(_)) => {
                    return Err(untrusted(
                        "it wants an MD5 of the password, which it does not get; set `password_encryption = scram-sha-256` there and the password anew",
                    ));
                }
                // Some poolers say it twice.
                Message::Negotiate { version, options }
                    if is_agreed(login.minor, version, &options)
                        && agreed.is_none_or(|agreed| agreed == version) =>
                {
                    agreed = Some(version);
                }
                Message::Negotiate { .. } => {
                    return Err(untrusted("it wants a protocol that it was not asked for"));
                }
                Message::Notice(_) => {}
                _ => return Err(untrusted("it wants a way to log in that is not supported")),
            }
        }
    }

    async fn scram(
        &mut self,
        mechanisms: &[Bytes],
        password: &Secret,
        bound: Option<Bytes>,
    ) -> Result<(), TargetError> {
        let offers = |name: &[u8]| mechanisms.iter().any(|offered| offered == name);
        let (mechanism, binding) = match bound {
            Some(bound) if offers(SCRAM_PLUS) => (
                SCRAM_PLUS,
                ChannelBinding::tls_server_end_point(bound.to_vec()),
            ),
            Some(_) if offers(SCRAM) => (SCRAM, ChannelBinding::unrequested()),
            None if offers(SCRAM) => (SCRAM, ChannelBinding::unsupported()),
            _ => return Err(untrusted("it does not offer SCRAM-SHA-256")),
        };
        let mut scram = ScramSha256::new(password.expose(), binding);
        let first = scram.message();
        let mut body = BytesMut::with_capacity(64 + first.len());
        body.extend_from_slice(mechanism);
        body.extend_from_slice(&[0]);
        let length = u32::try_from(first.len()).map_err(io::Error::other)?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(first);
        self.say(&encode::password(&body)).await?;
        loop {
            match self.hear().await? {
                Message::Authentication(Authentication::SaslContinue(data)) => {
                    scram.update(&data)?;
                    self.say(&encode::password(scram.message())).await?;
                }
                Message::Authentication(Authentication::SaslFinal(data)) => {
                    scram
                        .finish(&data)
                        .map_err(|_| untrusted("it does not know the password that it checks"))?;
                    break;
                }
                // Without its last word the target has proven nothing.
                _ => return Err(untrusted("it breaks off the login")),
            }
        }
        match self.hear().await? {
            Message::Authentication(Authentication::Ok) => Ok(()),
            _ => Err(untrusted("it says something out of turn")),
        }
    }
}

/// Whoever does not negotiate refuses a newer version with one of these, `feature_not_supported` or `protocol_violation`; or by
/// closing, or in the form of a protocol before this one.
fn may_be_of_the_version(error: &TargetError) -> bool {
    match error {
        TargetError::Refused(report) => [&b"0A000"[..], b"08P01"].contains(&&report.code[..]),
        TargetError::Io(_) | TargetError::Untrusted(_) => true,
        TargetError::Version(_) | TargetError::NoCredential(_) => false,
    }
}

/// Asks the target to cancel what it runs.
pub(super) async fn cancel(
    target: &Target,
    own: &[SocketAddr],
    process: u32,
    key: &Secret,
) -> Result<(), TargetError> {
    let (mut stream, _, _) =
        connect(target, own, &mut Reserved::default(), &mut Vec::new()).await?;
    stream
        .write_all(&cancel_request(process, key.expose()))
        .await?;
    stream.flush().await?;
    // It answers by closing.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    Ok(())
}
