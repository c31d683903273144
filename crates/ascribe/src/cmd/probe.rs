//! Does a target let people in past ascribe? It is asked about each enrolled key, and nothing is signed:
//! a server says beforehand whether it would take a key (RFC 4252, 7).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::statement::{SshKey, Target};
use russh::client::{Config, Handler, connect};
use russh::keys::agent::AgentIdentity;
use russh::keys::{HashAlg, PublicKey, PublicKeyOrCertificate};
use tokio::sync::oneshot;

use crate::exit::{Attempt as _, Done};

/// Most keys and accounts that are asked about.
const MOST: usize = 256;
/// How long one question may take, and all of them.
const ONE: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Accounts and keys that are let in; and whether every one was asked about.
    Answers {
        /// Account, and the place of the key among those that were asked about.
        let_in: Vec<(String, usize)>,
        /// Were all asked about?
        all: bool,
    },
    /// It does not answer, or shows another host key; why.
    Unknown(String),
}

/// Takes the pinned host keys alone.
struct Pinned(Vec<SshKey>);

impl Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            return Ok(false);
        };
        let line = key.to_openssh().unwrap_or_default();
        let words: Vec<&str> = line.split(' ').take(2).collect();
        Ok(self.0.contains(&SshKey(words.join(" "))))
    }
}

/// Stands where a private key would: it is reached only when the server would take the key.
struct WouldSign(Option<oneshot::Sender<()>>);

/// Nothing was sent: the connection is gone.
#[derive(Debug)]
struct Gone;

impl From<russh::SendError> for Gone {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for WouldSign {
    type Error = Gone;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        _to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        if let Some(asked) = self.0.take() {
            asked.send(()).unwrap_or_default();
        }
        // Nothing is signed: whoever asks leaves now.
        std::future::pending().await
    }
}

async fn asks(target: &Target, account: &str, key: &PublicKey) -> Result<bool, String> {
    let address = target.addresses.first().and_then(|text| text.parse().ok());
    let address = address.ok_or("it has no address")?;
    let at = SocketAddr::new(address, target.port);
    let pinned = Pinned(target.host_keys.clone());
    let asked = async {
        let handle = connect(Arc::new(Config::default()), at, pinned).await;
        let mut handle = handle.map_err(|error| error.to_string())?;
        let (would_sign, taken) = oneshot::channel();
        let mut signer = WouldSign(Some(would_sign));
        let answer = handle.authenticate_publickey_with(account, key.clone(), None, &mut signer);
        tokio::select! {
            answer = answer => match answer {
                Ok(_) => Ok(false),
                Err(Gone) => Err("it broke off".to_owned()),
            },
            Ok(()) = taken => Ok(true),
        }
    };
    let late = || Err(format!("it did not answer within {} s", ONE.as_secs()));
    tokio::time::timeout(ONE, asked)
        .await
        .unwrap_or_else(|_| late())
}

/// Asks a target about these keys.
pub(crate) fn probe(target: &Target, keys: &[SshKey]) -> Done<Found> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .attempt("start the runtime")?;
    let pairs = target.accounts.iter().flat_map(|account| {
        keys.iter()
            .enumerate()
            .map(move |(n, key)| (account, n, key))
    });
    let pairs: Vec<_> = pairs.collect();
    runtime.block_on(async {
        let begun = tokio::time::Instant::now();
        let mut let_in = Vec::new();
        let mut all = pairs.len() <= MOST;
        for (account, nth, key) in pairs.into_iter().take(MOST) {
            if begun.elapsed() > ALL {
                all = false;
                break;
            }
            let key = PublicKey::from_openssh(&key.0).attempt("read an enrolled key")?;
            match asks(target, account, &key).await {
                Ok(true) => let_in.push((account.clone(), nth)),
                Ok(false) => {}
                Err(why) => return Ok(Found::Unknown(why)),
            }
        }
        Ok(Found::Answers { let_in, all })
    })
}
