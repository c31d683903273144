//! What workloads show at databases' own doors, a token as the password or a certificate in TLS: the gateway makes a key
//! for one connection and logs in with it, so the actor signed nothing of ours, and the record says so.

use super::{Denied, State};
use crate::entry::{Door, SessionOpen};
use crate::id::{ContentDigest, StatementId};
use crate::identity::{Binding, Login, ProviderKind, as_password};
use crate::statement::Say;
use crate::time::Timestamp;

/// A login that the gateway made for whoever showed the token as a password says nothing that would be
/// the bearer's to say, and no more than such a token is worth.
pub(super) fn check_bearer(kind: ProviderKind, login: &Login) -> Result<(), Denied> {
    let in_tls = login.claims.binding == Binding::Tls;
    if !login.bearer && in_tls {
        return Err(Denied::new(
            "bearer",
            "what was signed in TLS introduces no key but the gateway's",
        )
        .with_help("let the SVID's key sign for one: `ascribe login --svid`"));
    }
    let shown = in_tls || login.claims.binding == Binding::None;
    if login.bearer && (kind.is_of_people() || !shown || login.saw.is_some()) {
        return Err(Denied::new(
            "bearer",
            "only a workload's token that binds no key is a password",
        )
        .with_help("with any other log in first: `ascribe login`"));
    }
    Ok(())
}

/// The door that such a login opens sessions by.
fn door_of(login: &Login) -> Option<Door> {
    let door = match login.claims.binding {
        Binding::Tls => Door::Mtls,
        _ => Door::Bearer,
    };
    login.bearer.then_some(door)
}

/// What a login's token is remembered by.
pub(super) fn spent(login: &Login) -> ContentDigest {
    match door_of(login) {
        Some(Door::Bearer) => as_password(&login.digest),
        // Of one handshake there is one connection.
        _ => login.digest,
    }
}

impl State {
    /// A token introduces a key once, and then is good for nothing else. As a password it is shown again and
    /// again, and introduces no key any more.
    pub(super) fn check_unspent(&self, login: &Login) -> Result<(), Denied> {
        let shown = |what| {
            Err(Denied::new("token-replay", what).with_help("log in again, for a fresh one"))
        };
        if self.spent.contains_key(&login.digest) {
            return shown("this token was shown before");
        }
        if !login.bearer && self.spent.contains_key(&as_password(&login.digest)) {
            return shown("this token was used as a password before");
        }
        Ok(())
    }

    /// What the key of a bearer's login signs: nothing but its end.
    pub(super) fn check_bearer_says(&self, fingerprint: &str, say: &Say) -> Result<(), Denied> {
        let login = self.login_of_key(fingerprint);
        if !login.is_some_and(|login| login.login.bearer) || matches!(say, Say::Logout(_)) {
            return Ok(());
        }
        Err(Denied::new(
            "bearer",
            "the gateway made this key for one connection, and it signs nothing else",
        ))
    }

    /// A token that was a password opens a session on a database by its own door, as what was signed in TLS does by
    /// its own, and nothing else does.
    pub(super) fn check_bearer_open(&self, open: &SessionOpen) -> Result<(), Denied> {
        let login = open.login.and_then(|id| self.logins.get(&id));
        let its_own = login.and_then(|login| door_of(&login.login));
        let by_door = matches!(open.door, Door::Bearer | Door::Mtls).then_some(open.door);
        if its_own == by_door && (by_door.is_none() || open.delegation.is_none()) {
            return Ok(());
        }
        Err(Denied::new(
            "bearer",
            "what was shown at a database's door opens sessions there: a token by the door `bearer`, a certificate by `mtls`",
        ))
    }

    /// A bearer's login ends with its session.
    pub(super) fn end_bearer(&mut self, login: Option<StatementId>, at: Timestamp) {
        let Some(id) = login else { return };
        let login = self.logins.get(&id);
        if login.is_some_and(|login| login.login.bearer && login.counts(at)) {
            self.end_login(id, at);
        }
    }
}
