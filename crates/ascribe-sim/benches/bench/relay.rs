//! A bare relay of the jump form, for its memory alone: an SSH server within a channel of another, and
//! a login to the target for each. It asks nobody and records nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use russh::keys::{Certificate, PrivateKey, PublicKeyOrCertificate};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelMsg, client, server};
use tokio::net::TcpListener;

/// What every connection shares.
struct Shared {
    config: Arc<server::Config>,
    key: Arc<PrivateKey>,
    certificate: Certificate,
    account: String,
    target: u16,
}

struct Relay(Arc<Shared>);

/// The target's key is not looked at: this is a measurement on loopback.
struct Anything;

impl client::Handler for Anything {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Handler for Relay {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let config = Arc::clone(&shared.config);
            if let Ok(inner) = server::run_stream(config, channel.into_stream(), Self(shared)).await
            {
                inner.await.ok();
            }
        });
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        tokio::spawn(relay(Arc::clone(&self.0), channel));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: russh::ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }
}

async fn relay(shared: Arc<Shared>, channel: Channel<Msg>) -> Result<()> {
    let at = ("127.0.0.1", shared.target);
    let mut target = client::connect(Arc::default(), at, Anything).await?;
    target
        .authenticate_openssh_cert(
            &shared.account,
            Arc::clone(&shared.key),
            shared.certificate.clone(),
        )
        .await?;
    let target = target.channel_open_session().await?;
    let (mut from_client, to_client) = channel.split();
    let (mut from_target, to_target) = target.split();
    loop {
        tokio::select! {
            message = from_client.wait() => match message {
                Some(ChannelMsg::Exec { command, .. }) => to_target.exec(false, command).await?,
                Some(ChannelMsg::Data { data }) => to_target.data_bytes(data).await?,
                Some(ChannelMsg::Eof) => to_target.eof().await?,
                Some(_) => {}
                None => return Ok(()),
            },
            message = from_target.wait() => match message {
                Some(ChannelMsg::Data { data }) => to_client.data_bytes(data).await?,
                Some(ChannelMsg::ExitStatus { exit_status }) => to_client.exit_status(exit_status).await?,
                Some(ChannelMsg::Close) | None => return Ok(to_client.close().await?),
                Some(_) => {}
            },
        }
    }
}

/// Serves until the process ends: `PORT TARGET-PORT ACCOUNT KEY HOST-KEY`.
pub(crate) fn serve(words: &[String]) -> Result<()> {
    let [port, target, account, key, host] = words else {
        anyhow::bail!("a relay is told its port, the target's, the account, a key and a host key");
    };
    let read =
        |file: &str| -> Result<PrivateKey> { Ok(PrivateKey::read_openssh_file(Path::new(file))?) };
    let config = server::Config {
        keys: vec![read(host)?],
        channel_buffer_size: 8,
        inactivity_timeout: None,
        auth_rejection_time_initial: Some(std::time::Duration::ZERO),
        nodelay: true,
        ..server::Config::default()
    };
    let shared = Arc::new(Shared {
        config: Arc::new(config),
        key: Arc::new(read(key)?),
        certificate: Certificate::read_file(Path::new(&format!("{key}-cert.pub")))?,
        account: account.clone(),
        target: target.parse()?,
    });
    let port: u16 = port.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (socket, _) = listener.accept().await.context("accept")?;
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let config = Arc::clone(&shared.config);
                if let Ok(outer) = server::run_stream(config, socket, Relay(shared)).await {
                    outer.await.ok();
                }
            });
        }
    })
}
