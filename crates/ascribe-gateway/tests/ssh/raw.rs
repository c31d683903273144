//! A client of ours, for what a stock one never sends.

use std::sync::Arc;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};

use super::world::{PATIENCE, World};

pub(super) struct Raw;

impl russh::client::Handler for Raw {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

pub(super) type Connected = russh::client::Handle<Raw>;

pub(super) async fn raw(w: &World) -> Connected {
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", w.port);
    let mut handle = russh::client::connect(config, address, Raw).await.unwrap();
    let key = PrivateKey::read_openssh_file(w.path("client")).unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let login = format!("{}@db1", w.account);
    let result = handle.authenticate_publickey(login, key).await.unwrap();
    assert!(result.success());
    handle
}

pub(super) async fn leave(handle: &Connected) {
    let reason = russh::Disconnect::ByApplication;
    handle.disconnect(reason, "", "").await.unwrap();
}

/// The answer to the request that was just made.
pub(super) async fn answer(channel: &mut Channel<russh::client::Msg>) -> bool {
    let heard = async {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return true,
                Some(ChannelMsg::Failure) => return false,
                Some(_) => {}
                None => panic!("no answer"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap()
}

/// Exit code and output of a channel's command.
pub(super) async fn rest(channel: &mut Channel<russh::client::Msg>) -> (Option<u32>, Vec<u8>) {
    let (mut code, mut out) = (None, Vec::new());
    while let Some(message) = tokio::time::timeout(PATIENCE, channel.wait())
        .await
        .unwrap()
    {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
            _ => {}
        }
    }
    (code, out)
}
