//! A client that does what the stock one would not.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Config, Handle, Handler, connect};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{ChannelMsg, Preferred, cipher};

use super::world::World;

/// Takes whatever host answers: it is ours.
pub(super) struct Anyone;

impl Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A cipher that leaves the lengths of packets in the clear, so that a proxy finds them.
pub(super) fn lengths_in_the_clear() -> Config {
    Config {
        preferred: Preferred {
            cipher: Cow::Borrowed(&[cipher::AES_256_GCM]),
            ..Preferred::default()
        },
        ..Config::default()
    }
}

/// Connects, and logs in as the operator where that is possible.
pub(super) async fn log_in(
    world: &World,
    port: u16,
    user: &str,
    config: Config,
) -> Option<Handle<Anyone>> {
    let key = load_secret_key(world.person("operator").1, None).unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let mut ssh = connect(Arc::new(config), ("127.0.0.1", port), Anyone)
        .await
        .unwrap();
    match ssh.authenticate_publickey(user, key).await {
        Ok(tried) => tried.success().then_some(ssh),
        // Hung up on.
        Err(_) => None,
    }
}

/// Runs a client; every wait of it is bounded.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bounded = tokio::time::timeout(Duration::from_secs(120), work);
        bounded.await.expect("the client got no answer")
    })
}

/// Runs a command on a channel of its own: exit status, and what was said beside the output.
pub(super) async fn exec(ssh: &Handle<Anyone>, command: &str) -> (Option<u32>, String) {
    let mut channel = ssh.channel_open_session().await.unwrap();
    channel.exec(true, command.as_bytes()).await.unwrap();
    let (mut status, mut said) = (None, String::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::ExtendedData { data, .. } => said.push_str(&String::from_utf8_lossy(&data)),
            _ => {}
        }
    }
    (status, said)
}
