//! The inner door: within a connection that the gateway took, a second SSH server that answers for
//! one target under that target's name (`ssh -J`). Nothing here reaches for an address: a name that
//! is not registered leads nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::Door;
use ascribe_core::id::StatementId;
use ascribe_wire::request::Request;
use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::between::between;
use crate::connection::Connection;
use crate::entrance::{Entrance, Inner, Signed};
use crate::incoming::Held;
use crate::listen::{Shared, one, server_config};

/// The port that clients use where none is said.
const SSH_PORT: u32 = 22;
/// A client gets this long to take the last words.
const LAST: Duration = Duration::from_secs(1);
/// A host certificate is good for so long around now, in seconds: a client looks at it once, and its
/// clock may be off.
const CERTIFICATE_SECONDS: u64 = 300;

impl Connection {
    /// Goes on to a target's inner door. The channel is answered only for a registered name.
    pub(crate) async fn jump(
        self: Arc<Self>,
        host: String,
        port: u32,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
    ) {
        let within = self.hold();
        let shown = ascribe_core::text::clean(&host, 255);
        let fits = |own: u16| port == SSH_PORT || port == u32::from(own);
        let target = self.shared.common.recorder.target(&host);
        let found = match (target.filter(|t| fits(t.port)), self.login(), &within) {
            (None, _, _) | (_, None, _) => {
                Err(format!("no target is called {shown} with port {port}"))
            }
            (_, _, None) => Err("too many connections within this one".to_owned()),
            _ if self.shared.config.host_ca.is_none() => {
                Err("this gateway has no host CA, so it cannot show a target's name".to_owned())
            }
            (Some(target), Some(login), Some(_)) => Ok((target, login)),
        };
        let (target, login) = match found {
            Ok(found) => found,
            Err(why) => {
                self.refuse_request(Request::DirectTcpip, &format!("{shown}:{port}"));
                let reason = format!("ascribe: {why}");
                // 1 is prohibited (RFC 4254, 5.1). OpenSSH shows the reason.
                return reply
                    .reject(ChannelOpenFailure::Other { code: 1, reason })
                    .await;
            }
        };
        let inner = Inner {
            door: Door::Jump,
            person: login.person,
            fingerprint: login.fingerprint,
            target: target.name,
            signed: None,
            held: self.held_within.clone(),
        };
        reply.accept().await;
        let (near, far) = between();
        let (from, to) = channel.split();
        let carried = far.carry(from, to);
        let (shared, peer) = (Arc::clone(&self.shared), self.peer.clone());
        let served = serve(shared, near, peer, inner, self.over.clone());
        tokio::pin!(carried, served);
        tokio::select! {
            // The last words are on their way.
            () = &mut served => match tokio::time::timeout(LAST, carried).await {
                Ok(()) => tracing::trace!("an inner connection ended"),
                Err(_) => tracing::trace!("an inner connection ended, its client has not"),
            },
            () = &mut carried => {
                tracing::trace!("an outer channel ended");
                served.await;
            }
        }
    }
}

/// A connection whose opening the actor signed beforehand (`ascribe connect`).
#[derive(Debug)]
pub struct Arrival {
    /// The client; SSH begins with the next byte.
    pub stream: TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What was signed: it names person, key, target and account.
    pub opening: StatementId,
}

/// Serves a signed arrival. One that nobody signed, or that was used, is not answered.
pub(crate) async fn arrive(shared: Arc<Shared>, arrival: Arrival) {
    let Arrival {
        stream,
        peer,
        opening,
    } = arrival;
    let Some(signed) = shared.common.recorder.signed_opening(opening) else {
        tracing::debug!("{peer} shows an opening that is not there");
        return;
    };
    let inner = Inner {
        door: Door::Connect,
        person: signed.person,
        fingerprint: signed.key,
        target: signed.connect.target,
        signed: Some(Signed {
            opening,
            account: signed.connect.account,
            grant: signed.connect.grant,
        }),
        held: Held::new(),
    };
    let never = CancellationToken::new();
    serve(shared, stream, peer.to_string(), inner, never).await;
}

/// Serves one inner connection until it or `outer` ends.
pub(crate) async fn serve<S>(
    shared: Arc<Shared>,
    stream: S,
    peer: String,
    inner: Inner,
    outer: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The same for all of the connection: a client compares it when keys are renewed.
    let Some(certificate) = certificate(&shared, &inner.target) else {
        tracing::warn!("the inner door is shut: there is no host CA, see `ascribe init`");
        return;
    };
    let config = russh::server::Config {
        certificates: vec![certificate],
        ..server_config(&shared.config)
    };
    one(
        shared,
        Arc::new(config),
        stream,
        peer,
        Entrance::Inner(inner),
        outer,
    )
    .await;
}

/// A host certificate for exactly this name, over the gateway's host key.
fn certificate(shared: &Shared, name: &str) -> Option<Certificate> {
    let ca = shared.config.host_ca.as_ref()?;
    let mut nonce = [0; 32];
    (shared.common.fill)(&mut nonce);
    let now = shared.common.recorder.now().millis().unsigned_abs() / 1000;
    let (from, until) = (
        now.saturating_sub(CERTIFICATE_SECONDS),
        now.saturating_add(CERTIFICATE_SECONDS),
    );
    let key = shared.config.host_key.public_key().key_data().clone();
    let mut builder = Builder::new(nonce, key, from, until).ok()?;
    builder.serial(0).ok()?;
    builder.cert_type(CertType::Host).ok()?;
    builder.key_id(format!("ascribe target={name}")).ok()?;
    builder.valid_principal(name).ok()?;
    builder.sign(ca).ok()
}
