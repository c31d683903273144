//! The door: logins and channel openings.

use std::sync::Arc;

use russh::keys::{HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelOpenFailure};

use super::session::{Connection, Login};

const BANNER: &str = "This system is recorded by ascribe. Commands, input and output are stored.\n";

pub(crate) struct Door {
    connection: Arc<Connection>,
    login: Option<Login>,
}

impl Door {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            login: None,
        }
    }

    fn login(&self, user: &str, key: &PublicKey) -> Option<Login> {
        if !super::key_algorithms().contains(&key.algorithm()) {
            return None;
        }
        let user = ascribe_wire::user::parse(user).ok()?;
        let key = key.fingerprint(HashAlg::Sha256).to_string();
        let person = self.connection.shared.recorder.person_by_key(&key)?;
        Some(Login { user, person, key })
    }

    async fn refuse(&self, what: &str, reply: ChannelOpenHandle) {
        self.connection
            .refuse_later("forwarding", "forwarding-refused", what);
        reply
            .reject(ChannelOpenFailure::AdministrativelyProhibited)
            .await;
    }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(Some(BANNER.to_owned()))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.login = None;
        let known = self.login(user, offer.public_key).is_some();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.login = self.login(user, key.public_key);
        Ok(if self.login.is_some() {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        let login = self.login.take().ok_or(russh::Error::NotAuthenticated)?;
        self.connection
            .login
            .set(login)
            .map_err(|_| russh::Error::NotAuthenticated)?;
        self.connection.authenticated.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(place) = self.connection.channels.clone().try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        reply.accept().await;
        let (connection, handle) = (self.connection.clone(), session.handle());
        self.connection.tasks.spawn(async move {
            super::channel::run(connection, channel, handle).await;
            drop(place);
        });
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse("x11", reply).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(&format!("direct-tcpip {host}:{port}"), reply)
            .await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(&format!("forwarded-tcpip {host}:{port}"), reply)
            .await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse(&format!("direct-streamlocal {path}"), reply)
            .await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.connection.refuse_later(
            "forwarding",
            "forwarding-refused",
            &format!("tcpip-forward {address}:{port}"),
        );
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.connection.refuse_later(
            "forwarding",
            "forwarding-refused",
            &format!("streamlocal-forward {path}"),
        );
        Ok(false)
    }
}
