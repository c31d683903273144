//! The client's side of the protocol: login, channels, and everything that is refused.

use std::collections::HashSet;
use std::sync::Arc;

use ascribe_wire::command;
use ascribe_wire::request::Request;
use ascribe_wire::user;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure};

use crate::channel::{env_fits, terminal_fits};
use crate::connection::{Connection, Login};

/// Shown before login: nothing that helps a stranger.
const BANNER: &str = "This system is for authorised use. Sessions are recorded.\r\n";

/// Most channels of one connection, over its life.
const MAX_CHANNELS: u32 = 10_000;

/// One client.
///
/// Channel requests are answered here, while the library still knows which request an answer
/// belongs to: it keeps one flag a channel, so a late answer would pass for the next request's.
pub(crate) struct Downstream {
    connection: Arc<Connection>,
    channels: u32,
    /// Channels that have their action. A channel has one.
    acting: HashSet<ChannelId>,
}

impl Downstream {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            channels: 0,
            acting: HashSet::new(),
        }
    }

    /// Refuses a kind of request, as the table of requests says.
    fn refuse(&self, request: Request, detail: &str) {
        self.connection.refuse_request(request, detail);
    }
}

fn accepted(key: &PublicKey) -> bool {
    // Security keys are refused: the library does not say whether the holder touched them.
    matches!(
        key.algorithm(),
        Algorithm::Ed25519
            | Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256
            }
    )
}

impl Downstream {
    fn look_up(&self, user: &str, key: &PublicKey) -> Option<Login> {
        let user = user::parse(user).ok()?;
        if !accepted(key) {
            return None;
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let person = self
            .connection
            .shared
            .recorder
            .person_by_key(&fingerprint)?;
        Some(Login {
            person,
            fingerprint,
            user,
        })
    }
}

impl Handler for Downstream {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(Some(BANNER.to_owned()))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.look_up(user, offer.public_key).is_some() {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        match self.look_up(user, key.public_key) {
            Some(login) => {
                self.connection.log_in(login);
                Ok(Auth::Accept)
            }
            None => Ok(Auth::reject()),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels = self.channels.saturating_add(1);
        if self.channels > MAX_CHANNELS || self.connection.tasks.len() > 256 {
            self.connection
                .refuse("channel", "too-many", "too many channels");
            let reason = "too many channels in this connection".to_owned();
            // 4 is a shortage of resources (RFC 4254, 5.1).
            let failure = ChannelOpenFailure::Other { code: 4, reason };
            reply.reject(failure).await;
            return Ok(());
        }
        reply.accept().await;
        let connection = Arc::clone(&self.connection);
        self.connection
            .tasks
            .spawn(crate::channel::run(connection, channel, session.handle()));
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(Request::X11Channel, "");
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(
            Request::DirectTcpip,
            &format!("{}:{port}", ascribe_core::text::clean(host, 255)),
        );
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(
            Request::DirectStreamlocal,
            &ascribe_core::text::clean(path, 255),
        );
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.refuse(
            Request::TcpipForward,
            &format!("{}:{port}", ascribe_core::text::clean(host, 255)),
        );
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.refuse(
            Request::StreamlocalForward,
            &ascribe_core::text::clean(path, 255),
        );
        Ok(false)
    }

    async fn agent_request(
        &mut self,
        _channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.refuse(Request::AgentForward, "");
        Ok(false)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let good = !self.acting.contains(&channel) && env_fits(name, value);
        answer(session, channel, good)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        _cols: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let good = !self.acting.contains(&channel) && terminal_fits(term);
        answer(session, channel, good)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(Request::X11, "");
        answer(session, channel, false)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        answer(session, channel, self.acting.insert(channel))
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Yes to hearing it. Whether it runs is said on the channel.
        answer(session, channel, self.acting.insert(channel))
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let good = command::subsystem_kind(name).is_some() && self.acting.insert(channel);
        answer(session, channel, good)
    }

    async fn data(
        &mut self,
        _channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.connection.held.pace(data.len()).await;
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.connection.held.window()
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.acting.remove(&channel);
        Ok(())
    }
}

fn answer(session: &mut Session, channel: ChannelId, good: bool) -> Result<(), russh::Error> {
    if good {
        session.channel_success(channel)
    } else {
        session.channel_failure(channel)
    }
}
