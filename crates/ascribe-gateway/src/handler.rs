//! The client's side of the protocol: login, channels, and everything that is refused.

use std::collections::HashSet;
use std::sync::Arc;

use ascribe_wire::command;
use ascribe_wire::request::Request;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure};

use crate::channel::{env_fits, terminal_fits};
use crate::connection::{Connection, Login};
use crate::entrance::Wish;
use crate::forward::{Destination, Lent, Listening, lends};
use crate::life::Holder;

/// Shown before login: nothing that helps a stranger.
const BANNER: &str = "This system is for authorised use. Sessions are recorded.\r\n";

/// Most channels of one connection, over its life.
const MAX_CHANNELS: u32 = 10_000;

/// One client.
///
/// What is rare and large is boxed here: the library's loop for each connection has room for the largest
/// of these functions, twice.
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

    /// A connection through the target, beside the event loop.
    fn forward_out(
        &mut self,
        to: Destination,
        request: Request,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &Session,
    ) {
        if !self.may_open() {
            return;
        }
        self.connection.meet(session.handle());
        let connection = Arc::clone(&self.connection);
        let carried = connection.forward_out(to, request, channel, reply);
        self.connection.tasks.spawn(carried);
    }

    async fn listen_back(&self, at: Listening, request: Request) -> Option<u32> {
        match Box::pin(self.connection.listen_back(at)).await {
            Ok(port) => Some(port),
            Err(why) => {
                self.refuse(request, &why);
                None
            }
        }
    }

    /// May the client lend this to programs on the target? Asked before the action, or not at all.
    async fn lend(&self, channel: ChannelId, what: Lent, request: Request) -> bool {
        if self.acting.contains(&channel) {
            return false;
        }
        let granted = match Box::pin(self.connection.session()).await {
            Ok(session) => lends(&session.view, what),
            // Whoever opens no session is told so at the action.
            Err(_) => return false,
        };
        if !granted {
            self.refuse(request, "");
        }
        granted
    }

    /// Has the connection room for one more channel?
    fn may_open(&mut self) -> bool {
        self.channels = self.channels.saturating_add(1);
        let room = self.channels <= MAX_CHANNELS && self.connection.tasks.len() <= 256;
        if !room {
            self.connection
                .refuse("channel", "too-many", "too many channels");
        }
        room
    }

    /// May a channel begin its action? Refused here and not beside the event loop: a client that is told
    /// no may be gone at once.
    fn may_act(&mut self, channel: ChannelId) -> bool {
        let first = self.acting.insert(channel);
        if !first {
            let text = "a second action on one channel";
            self.connection.refuse("request", "not-allowed", text);
        }
        first
    }

    /// Refuses a kind of request, as the table of requests says.
    fn refuse(&self, request: Request, detail: &str) {
        self.connection.refuse_request(request, detail);
    }
}

pub(crate) fn accepted(key: &PublicKey) -> bool {
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
        let wish = self.connection.entrance.wish(user)?;
        if !accepted(key) {
            return None;
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let recorder = &self.connection.shared.common.recorder;
        let Holder {
            person,
            session_key,
            agent,
        } = Holder::of(&**recorder, &fingerprint)?;
        let welcome = self.connection.entrance.lets_in(person, &fingerprint);
        welcome.then_some(Login {
            person,
            fingerprint,
            certificate: None,
            session_key,
            agent,
            wish,
        })
    }

    /// Tells the operator why a registered authority's certificate was refused: the client is told
    /// nothing. Anybody's own certificates are not worth a line, for they would fill the log.
    fn note_refused(&self, certificate: &Certificate, why: &str) {
        let ca = certificate.signature_key().fingerprint(HashAlg::Sha256);
        let known = self.connection.shared.common.recorder.ca_keys();
        if known.contains(&ca.to_string()) {
            let id = ascribe_core::text::clean(certificate.key_id(), 256);
            let serial = certificate.serial();
            tracing::warn!("the certificate `{id}`, serial {serial}, by {ca} was refused: {why}");
        }
    }

    /// The login by a certificate of an outside authority; or why there is none.
    fn certified(&self, user: &str, certificate: &Certificate) -> Result<Login, String> {
        let wish = self.connection.entrance.wish(user);
        let wish = wish.ok_or("the user name is none for this door")?;
        let recorder = self.connection.shared.common.recorder.as_ref();
        let from = self.connection.address();
        let (person, named) = crate::certificate::holder(recorder, certificate, from)?;
        let key = certificate.public_key().fingerprint(HashAlg::Sha256);
        let fingerprint = key.to_string();
        if !self.connection.entrance.lets_in(person, &fingerprint) {
            return Err("it is another login than outside".to_owned());
        }
        Ok(Login {
            person,
            fingerprint,
            certificate: Some(named),
            session_key: None,
            agent: None,
            wish,
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
        // An offer does not say whether the key comes with a certificate. Where authorities are
        // registered it may, so that such a key is told after its signature, not before.
        let may_be_certified = || {
            let recorder = &self.connection.shared.common.recorder;
            self.connection.entrance.wish(user).is_some()
                && accepted(offer.public_key)
                && !recorder.ca_keys().is_empty()
        };
        let welcome = self.look_up(user, offer.public_key).is_some() || may_be_certified();
        Ok(if welcome {
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

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        match self.certified(user, certificate) {
            Ok(login) => {
                self.connection.log_in(login);
                Ok(Auth::Accept)
            }
            Err(why) => {
                self.note_refused(certificate, &why);
                Ok(Auth::reject())
            }
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if !self.may_open() {
            let reason = "too many channels in this connection".to_owned();
            // 4 is a shortage of resources (RFC 4254, 5.1).
            let failure = ChannelOpenFailure::Other { code: 4, reason };
            reply.reject(failure).await;
            return Ok(());
        }
        reply.accept().await;
        self.connection.meet(session.handle());
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
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self
            .connection
            .login()
            .is_some_and(|l| l.wish == Wish::Jump)
        {
            if self.may_open() {
                let connection = Arc::clone(&self.connection);
                let jump = connection.jump(host.to_owned(), port, channel, reply);
                self.connection.tasks.spawn(jump);
            }
            return Ok(());
        }
        let to = Destination::Tcp(host.to_owned(), port);
        self.forward_out(to, Request::DirectTcpip, channel, reply, session);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let to = Destination::Socket(path.to_owned());
        self.forward_out(to, Request::DirectStreamlocal, channel, reply, session);
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let at = Listening::Port(host.to_owned(), *port);
        self.connection.meet(session.handle());
        let chosen = self.listen_back(at, Request::TcpipForward).await;
        if let Some(chosen) = chosen {
            *port = chosen;
        }
        Ok(chosen.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let at = Listening::Port(host.to_owned(), port);
        Ok(Box::pin(self.connection.stop_listening(at)).await)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let at = Listening::Socket(path.to_owned());
        self.connection.meet(session.handle());
        let listens = self.listen_back(at, Request::StreamlocalForward);
        Ok(listens.await.is_some())
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let at = Listening::Socket(path.to_owned());
        Ok(Box::pin(self.connection.stop_listening(at)).await)
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.lend(channel, Lent::Agent, Request::AgentForward).await)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let fits = env_fits(name, value);
        if !fits {
            let name = ascribe_core::text::clean(name, 256);
            self.connection.refuse("env", "not-allowed", &name);
        }
        let good = fits && !self.acting.contains(&channel);
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
        let good = self.lend(channel, Lent::X11, Request::X11).await;
        answer(session, channel, good)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        answer(session, channel, self.may_act(channel))
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Yes to hearing it. Whether it runs is said on the channel.
        answer(session, channel, self.may_act(channel))
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let known = command::subsystem_kind(name).is_some();
        if !known {
            let name = ascribe_core::text::clean(name, 256);
            self.connection.refuse("subsystem", "not-allowed", &name);
        }
        let good = known && self.may_act(channel);
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
