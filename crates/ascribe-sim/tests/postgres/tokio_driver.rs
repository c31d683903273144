//! tokio-postgres, which sends without waiting by itself: through a tunnel, and at the gateway's own port.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::sync::mpsc::Receiver;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tokio_rustls::TlsConnector;

use super::bank::{Bank, PLACE};

/// TLS as this driver wants to be given it.
#[derive(Clone)]
struct Tls(TlsConnector);

/// The same for a server of this name.
struct Named(TlsConnector, ServerName<'static>);

struct Encrypted(tokio_rustls::client::TlsStream<Socket>);

impl Tls {
    fn trusting(certificate: &std::path::Path) -> Self {
        Self(TlsConnector::from(Arc::new(trusting(certificate))))
    }
}

/// A client's side of TLS with the server that has this certificate.
pub(super) fn trusting(certificate: &std::path::Path) -> rustls::ClientConfig {
    checking(certificate).with_no_client_auth()
}

/// The same, before it is said what the client shows.
pub(super) fn checking(
    certificate: &std::path::Path,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let only = CertificateDer::from_pem_file(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Only(only, provider)))
}

/// Takes this certificate alone: it signed itself, which a chain must not.
#[derive(Debug)]
struct Only(CertificateDer<'static>, Arc<CryptoProvider>);

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::CertificateError::UnknownIssuer;
        match *end_entity == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(unknown)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.1.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.1.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Named;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        Ok(Named(
            self.0.clone(),
            ServerName::try_from(domain.to_owned())?,
        ))
    }
}

impl TlsConnect<Socket> for Named {
    type Stream = Encrypted;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let Self(connector, name) = self;
        Box::pin(async move { connector.connect(name, stream).await.map(Encrypted) })
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl tokio::io::AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Drives a connection; its notifications arrive here.
fn drive<T>(mut connection: tokio_postgres::Connection<Socket, T>) -> Receiver<String>
where
    T: TlsStream + Unpin + Send + 'static,
{
    let (told, heard) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let next = std::future::poll_fn(|context| connection.poll_message(context)).await;
            match next {
                Some(Ok(AsyncMessage::Notification(note))) => {
                    told.send(note.payload().to_owned()).await.unwrap();
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
    heard
}

/// Many at once on one connection; an error in the middle hits nobody else.
async fn pipelines(client: &Client) {
    let plus = client
        .prepare_typed("select $1 + 1", &[Type::INT4])
        .await
        .unwrap();
    let asked = (0..200_i32).map(|n| {
        let plus = &plus;
        async move { client.query_one(plus, &[&n]).await.unwrap().get(0) }
    });
    let answers: Vec<i32> = join_all(asked).await;
    assert_eq!(answers, (1..=200).collect::<Vec<i32>>());
    let divide = client.prepare("select 10 / $1::int").await.unwrap();
    let (fails, works) = tokio::join!(
        client.query_one(&divide, &[&0]),
        client.query_one(&divide, &[&1])
    );
    assert_eq!(fails.unwrap_err().code(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(works.unwrap().get::<_, i32>(0), 10);
    // A refusal among them is an error in its place.
    let (before, refused, behind) = tokio::join!(
        client.query_one("select 'before'", &[]),
        client.execute("set role postgres", &[]),
        client.query_one("select 'behind'", &[])
    );
    assert_eq!(before.unwrap().get::<_, &str>(0), "before");
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert_eq!(behind.unwrap().get::<_, &str>(0), "behind");
}

async fn copies(client: &Client) {
    let make = "create temp table pairs (a int primary key, b text)";
    client.batch_execute(make).await.unwrap();
    let fill = |rows: Vec<Bytes>| async move {
        let sink = client.copy_in("copy pairs from stdin").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for row in rows {
            sink.send(row).await?;
        }
        sink.finish().await
    };
    let row = |n: usize| Bytes::from(format!("{n}\t{}\n", "x".repeat(n % 100)));
    let copied = fill((0..5000).map(row).collect()).await;
    assert_eq!(copied.unwrap(), 5000);
    let twice = fill(vec![row(1), row(1)]).await.unwrap_err();
    assert_eq!(twice.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let stream = client.copy_out("copy pairs to stdout").await.unwrap();
    let rows: Vec<_> = stream.collect().await;
    let bytes: usize = rows.iter().map(|row| row.as_ref().unwrap().len()).sum();
    let sent: usize = (0..5000).map(|n| row(n).len()).sum();
    assert_eq!(bytes, sent);
}

async fn transactions(client: &mut Client) {
    let undone = client.transaction().await.unwrap();
    undone.execute("delete from pairs", &[]).await.unwrap();
    undone.rollback().await.unwrap();
    let done = client.transaction().await.unwrap();
    let portal = done
        .bind("select a from pairs order by a", &[])
        .await
        .unwrap();
    let mut seen = 0;
    loop {
        let rows = done.query_portal(&portal, 700).await.unwrap();
        seen += rows.len();
        if rows.len() < 700 {
            break;
        }
    }
    assert_eq!(seen, 5000);
    done.commit().await.unwrap();
}

/// What this driver is used for, on one connection.
async fn works(client: &mut Client, notes: &mut Receiver<String>) {
    pipelines(client).await;
    copies(client).await;
    transactions(client).await;
    client.batch_execute("listen news").await.unwrap();
    for n in 0..20 {
        let text = format!("number {n}");
        client
            .execute("select pg_notify('news', $1)", &[&text])
            .await
            .unwrap();
        assert_eq!(notes.recv().await, Some(text));
    }
    let all = client.simple_query("select 1; select 2; select 3").await;
    assert!(all.unwrap().len() >= 6);
}

/// What runs is cancelled by another connection, which goes the same way.
async fn cancels<T: MakeTlsConnect<Socket>>(client: &Client, tls: T) {
    let token = client.cancel_token();
    let begun = Instant::now();
    let (slept, asked) = tokio::join!(client.query("select pg_sleep(60)", &[]), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel_query(tls).await
    });
    asked.unwrap();
    assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert!(begun.elapsed() < Duration::from_secs(30));
    let on = client.query_one("select 'on'", &[]).await.unwrap();
    assert_eq!(on.get::<_, &str>(0), "on");
}

fn config(host: &str, port: u16) -> Config {
    let mut config = Config::new();
    config.host(host).port(port).user(PLACE).dbname("orders");
    config
}

/// All of it is on record, in order.
fn is_recorded(bank: &Bank) {
    let ran = bank.actions();
    let ran: Vec<&str> = ran
        .iter()
        .filter(|action| action["what"]["kind"] == "pg.execute")
        .filter_map(|action| action["what"]["command"].as_str())
        .collect();
    let times = |text: &str| ran.iter().filter(|ran| **ran == text).count();
    assert_eq!(times("select $1 + 1"), 200);
    assert_eq!(times("select 10 / $1::int"), 2);
    assert_eq!(times("select pg_notify('news', $1)"), 20);
    assert_eq!(times("select pg_sleep(60)"), 1);
    assert!(!bank.cluster.log().contains("set role postgres"));
}

#[test]
fn tokio_postgres_works_through_a_tunnel() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    runtime().block_on(async {
        let mut config = config("127.0.0.1", port);
        config.ssl_mode(SslMode::Disable);
        let (mut client, connection) = config.connect(NoTls).await.unwrap();
        let mut notes = drive(connection);
        works(&mut client, &mut notes).await;
        cancels(&client, NoTls).await;
    });
    is_recorded(&bank);
}

#[test]
fn tokio_postgres_works_with_a_password() {
    let bank = Bank::open();
    let tls = Tls::trusting(&bank.world.path("gateway.crt"));
    runtime().block_on(async {
        let mut config = config("localhost", bank.port());
        config.ssl_mode(SslMode::Require).password(bank.token());
        let (mut client, connection) = config.connect(tls.clone()).await.unwrap();
        let mut notes = drive(connection);
        works(&mut client, &mut notes).await;
        cancels(&client, tls).await;
    });
    is_recorded(&bank);
}
