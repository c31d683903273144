//! The target's side: strict host keys, a short-lived certificate, channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ascribe_core::gate::Recorded;
use ascribe_core::record::Standing;
use ascribe_core::statement::SshKey;
use russh::client::{AuthResult, ChannelOpenHandle, Config, Handle, Handler, Msg, connect};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{
    Algorithm, EcdsaCurve, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelMsg, Preferred, cipher};

use crate::connection::{Connection, Session};
use crate::listen::UpstreamAuth;

/// A target must be reached and logged in to within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long holds up whoever else is served by the same login.
const STALLED: Duration = Duration::from_millis(250);
/// A certificate lives this many seconds at most: it is used at once.
const CERTIFICATE_SECONDS: u64 = 300;
/// Ciphers, best first. The first two withstand a cut handshake (CVE-2023-48795) by themselves.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Why a target is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("it does not answer ({0})")]
    Connect(String),
    #[error("its host key is not the pinned one; if that is right, an admin registers it again")]
    HostKey,
    #[error("it does not let the gateway in; does it trust the gateway's user CA?")]
    Login,
    #[error(
        "it has neither strict key exchange nor AES-GCM (CVE-2023-48795); update its SSH server"
    )]
    KeyExchange,
    #[error("the session has ended")]
    Ended,
    #[error("it did not answer within 10 s")]
    Timeout,
    #[error("a certificate could not be made ({0})")]
    Certificate(String),
}

/// Accepts the pinned host keys and no other.
struct Pinned {
    keys: Vec<SshKey>,
}

impl Handler for Pinned {
    type Error = UpstreamError;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            return Err(UpstreamError::HostKey);
        };
        let line = key.to_openssh().map_err(|_| UpstreamError::HostKey)?;
        let mut words = line.split(' ');
        let plain = match (words.next(), words.next()) {
            (Some(kind), Some(blob)) => SshKey(format!("{kind} {blob}")),
            _ => return Err(UpstreamError::HostKey),
        };
        if self.keys.contains(&plain) {
            Ok(true)
        } else {
            Err(UpstreamError::HostKey)
        }
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        let sound = [cipher::AES_256_GCM, cipher::AES_128_GCM].contains(&names.cipher);
        if names.strict_kex() || sound {
            Ok(())
        } else {
            Err(UpstreamError::KeyExchange)
        }
    }

    // A target opens no channel: nobody asked for forwarding. An answer that is dropped is a no.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut russh::client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl From<russh::Error> for UpstreamError {
    fn from(error: russh::Error) -> Self {
        Self::Connect(error.to_string())
    }
}

/// A login to a target.
///
/// The library reads it in one loop, which waits for whoever does not take a channel's messages. So a
/// client that takes nothing holds up every other channel of the login.
pub(crate) struct Upstream {
    handle: Handle<Pinned>,
    /// Channels whose client takes nothing.
    stalled: AtomicUsize,
}

/// A channel whose client takes nothing, as long as it lives.
struct Stalled<'a>(&'a AtomicUsize);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    pub(crate) async fn connect(
        connection: &Arc<Connection>,
        session: &Session,
        pty: bool,
    ) -> Result<Self, UpstreamError> {
        tokio::time::timeout(CONNECT, Self::log_in(connection, session, pty))
            .await
            .map_err(|_| UpstreamError::Timeout)?
    }

    async fn log_in(
        connection: &Arc<Connection>,
        session: &Session,
        pty: bool,
    ) -> Result<Self, UpstreamError> {
        let view = &session.view;
        let key = std::borrow::Cow::Borrowed(
            &[
                Algorithm::Ed25519,
                Algorithm::Ecdsa {
                    curve: EcdsaCurve::NistP256,
                },
            ][..],
        );
        let config = Config {
            preferred: Preferred {
                key,
                cipher: std::borrow::Cow::Borrowed(CIPHERS),
                ..Preferred::DEFAULT
            },
            inactivity_timeout: None,
            keepalive_interval: Some(Duration::from_secs(30)),
            channel_buffer_size: 8,
            nodelay: true,
            ..Config::default()
        };
        let target = &view.target;
        let pinned = Pinned {
            keys: target.host_keys.clone(),
        };
        let mut handle = connect(
            Arc::new(config),
            (target.host.as_str(), target.port),
            pinned,
        )
        .await?;
        let result = match &connection.shared.config.upstream {
            UpstreamAuth::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
                handle.authenticate_publickey(&view.account, key).await?
            }
            UpstreamAuth::UserCa(ca) => {
                let (key, certificate) = certificate(connection, session, pty, ca)?;
                handle
                    .authenticate_openssh_cert(&view.account, Arc::new(key), certificate)
                    .await?
            }
        };
        if matches!(result, AuthResult::Success) {
            let stalled = AtomicUsize::new(0);
            Ok(Self { handle, stalled })
        } else {
            Err(UpstreamError::Login)
        }
    }

    /// Waits until a client has taken something.
    pub(crate) async fn taken<T>(&self, taking: impl Future<Output = T>) -> T {
        tokio::pin!(taking);
        tokio::select! {
            biased;
            taken = &mut taking => return taken,
            () = tokio::time::sleep(STALLED) => {}
        }
        self.stalled.fetch_add(1, Ordering::Relaxed);
        let _stalled = Stalled(&self.stalled);
        taking.await
    }

    /// Does a client hold up this login?
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0
    }

    pub(crate) async fn channel(&self) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_session().await
    }
}

/// A certificate for one login: it names session and person, lives no longer than the grant, and
/// allows a terminal only where one was asked for.
fn certificate(
    connection: &Connection,
    session: &Session,
    pty: bool,
    ca: &PrivateKey,
) -> Result<(PrivateKey, russh::keys::Certificate), UpstreamError> {
    let wrong = |e: russh::keys::ssh_key::Error| UpstreamError::Certificate(e.to_string());
    let recorder = &connection.shared.recorder;
    let Standing::Until(until) = recorder.standing(session.id) else {
        return Err(UpstreamError::Ended);
    };
    let view = &session.view;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&connection.random()));
    let now = recorder.now().millis().unsigned_abs() / 1000;
    let nonce: [u8; 32] = connection.random();
    let public = key.public_key().key_data().clone();
    let until = until.millis().unsigned_abs().div_ceil(1000);
    let end = until.min(now.saturating_add(CERTIFICATE_SECONDS));
    let mut builder = Builder::new(nonce, public, now.saturating_sub(60), end).map_err(wrong)?;
    builder.serial(0).map_err(wrong)?;
    builder.cert_type(CertType::User).map_err(wrong)?;
    builder
        .key_id(format!(
            "ascribe session={} person={}",
            session.id, view.person
        ))
        .map_err(wrong)?;
    builder
        .valid_principal(view.account.clone())
        .map_err(wrong)?;
    if pty {
        builder.extension("permit-pty", "").map_err(wrong)?;
    }
    let certificate = builder.sign(ca).map_err(wrong)?;
    Ok((key, certificate))
}

/// What became of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Yes,
    /// The target gives no terminal, so the action itself was not sent.
    NoTerminal,
    /// The target is gone.
    Broken,
}

/// The one function that sends an action to a target. It takes the recorded action by value; what
/// was not recorded cannot be given to it.
pub(crate) async fn forward(
    recorded: Recorded,
    answers: &mut russh::ChannelReadHalf,
    channel: &russh::ChannelWriteHalf<Msg>,
    modes: &[(russh::Pty, u32)],
) -> Sent {
    let action = recorded.into_action();
    for (name, value) in &action.env {
        if channel
            .set_env(false, name.as_str(), value.as_str())
            .await
            .is_err()
        {
            return Sent::Broken;
        }
    }
    if let Some(pty) = &action.pty {
        let asked = channel
            .request_pty(true, &pty.term, pty.cols, pty.rows, 0, 0, modes)
            .await;
        if asked.is_err() {
            return Sent::Broken;
        }
        // Without a terminal the same input would run unseen: what was recorded is not this.
        loop {
            match answers.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) => return Sent::NoTerminal,
                Some(ChannelMsg::Close) | None => return Sent::Broken,
                Some(_) => {}
            }
        }
    }
    let written = match (action.kind, action.command) {
        ("ssh.shell", _) => channel.request_shell(true).await,
        ("ssh.sftp", None) => channel.request_subsystem(true, "sftp").await,
        (_, Some(command)) => channel.exec(true, command).await,
        (_, None) => return Sent::Broken,
    };
    if written.is_ok() {
        Sent::Yes
    } else {
        Sent::Broken
    }
}
