//! The connection to the target: strict host key, certificate or key login.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ascribe_core::id::SessionId;
use ascribe_core::law::Denied;
use ascribe_core::record::GrantView;
use russh::client::{self, AuthResult, Handle, Handler};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{
    Certificate, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};

use super::{Shared, UpstreamAuth};

const CONNECT: Duration = Duration::from_secs(15);
const CERTIFICATE_SECONDS: u64 = 300;

pub(crate) type Upstream = Handle<Pinned>;

/// Accepts the pinned host keys and nothing else.
pub(crate) struct Pinned(Vec<PublicKey>);

impl Handler for Pinned {
    type Error = russh::Error;
    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self
                .0
                .iter()
                .any(|pinned| pinned.key_data() == key.key_data()),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

pub(crate) async fn connect(
    shared: &Shared,
    grant: &GrantView,
    session: SessionId,
) -> Result<Upstream, Denied> {
    match tokio::time::timeout(CONNECT, connect_now(shared, grant, session)).await {
        Ok(result) => result,
        Err(_) => Err(Denied::new(
            "target-unreachable",
            "the target does not answer",
        )),
    }
}

async fn connect_now(
    shared: &Shared,
    grant: &GrantView,
    session: SessionId,
) -> Result<Upstream, Denied> {
    let target = &grant.target;
    let pinned: Vec<PublicKey> = target
        .host_keys
        .iter()
        .filter_map(|k| PublicKey::from_openssh(&k.0).ok())
        .collect();
    let mut config = client::Config {
        channel_buffer_size: 8,
        nodelay: true,
        ..client::Config::default()
    };
    config.preferred.key = pinned
        .iter()
        .map(PublicKey::algorithm)
        .collect::<Vec<_>>()
        .into();
    config.preferred.compression = vec![russh::compression::NONE].into();
    let addr = (target.host.as_str(), target.port);
    let mut handle = client::connect(Arc::new(config), addr, Pinned(pinned))
        .await
        .map_err(|error| match error {
            russh::Error::UnknownKey | russh::Error::NoCommonAlgo { .. } => Denied::new(
                "host-key-mismatch",
                "the target's host key is not the registered one; nothing was sent",
            ),
            other => Denied::new(
                "target-unreachable",
                format!("the target cannot be reached: {other}"),
            ),
        })?;
    let failed = |error: String| {
        Denied::new(
            "target-login",
            format!("the target refused the gateway's login: {error}"),
        )
    };
    let answer = match &shared.config.upstream {
        UpstreamAuth::Key(key) => {
            let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
            handle.authenticate_publickey(&grant.account, key).await
        }
        UpstreamAuth::UserCa(ca) => {
            let key = PrivateKey::from(Ed25519Keypair::from_seed(&shared.random()));
            let cert =
                certificate(shared, ca, &key, grant, session).map_err(|e| failed(e.to_string()))?;
            handle
                .authenticate_openssh_cert(&grant.account, Arc::new(key), cert)
                .await
        }
    };
    match answer {
        Ok(AuthResult::Success) => Ok(handle),
        Ok(AuthResult::Failure { .. }) => Err(failed("access denied".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn certificate(
    shared: &Shared,
    ca: &PrivateKey,
    key: &PrivateKey,
    grant: &GrantView,
    session: SessionId,
) -> Result<Certificate, russh::keys::ssh_key::Error> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let nonce: [u8; 32] = shared.random();
    let mut builder = Builder::new(
        nonce.to_vec(),
        key.public_key(),
        now.saturating_sub(30),
        now + CERTIFICATE_SECONDS,
    )?;
    builder.cert_type(CertType::User)?;
    builder.key_id(format!("ascribe session={session} person={}", grant.person))?;
    builder.valid_principal(&grant.account)?;
    builder.extension("permit-pty", "")?;
    builder.sign(ca)
}
