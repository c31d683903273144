//! Workloads' tokens as databases' passwords: the gateway makes a key for one connection and logs in with it, so the
//! actor signed nothing, and the record says so.

use super::identities::LoginState;
use super::{Denied, State};
use crate::entry::{Door, SessionOpen};
use crate::id::{ContentDigest, StatementId};
use crate::identity::{Binding, Login, ProviderKind, as_password};
use crate::statement::{Say, SshKey};
use crate::time::Timestamp;

/// A login that the gateway made for whoever showed the token as a password says nothing that would be
/// the bearer's to say, and no more than such a token is worth.
pub(super) fn check_bearer(kind: ProviderKind, login: &Login) -> Result<(), Denied> {
    if !login.bearer {
        return Ok(());
    }
    if kind.is_of_people() || login.claims.binding != Binding::None || login.saw.is_some() {
        return Err(Denied::new(
            "bearer",
            "only a workload's token that binds no key is a password",
        )
        .with_help("with any other log in first: `ascribe login`"));
    }
    Ok(())
}

/// What a login's token is remembered by.
pub(super) fn spent(login: &Login) -> ContentDigest {
    match login.bearer {
        true => as_password(&login.digest),
        false => login.digest,
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
    pub(super) fn check_bearer_says(&self, key: &SshKey, say: &Say) -> Result<(), Denied> {
        let login = self.login_of_key(&key.fingerprint());
        if !login.is_some_and(|login| login.login.bearer) || matches!(say, Say::Logout(_)) {
            return Ok(());
        }
        Err(Denied::new(
            "bearer",
            "the gateway made this key for one connection, and it signs nothing else",
        ))
    }

    /// A token that was a password opens a session on a database by its own door, and nothing else
    /// does.
    pub(super) fn check_bearer_open(&self, open: &SessionOpen) -> Result<(), Denied> {
        let login = open.login.and_then(|id| self.logins.get(&id));
        let bearer = login.is_some_and(|login| login.login.bearer);
        let by_door = open.door == Door::Bearer;
        if bearer == by_door && (!by_door || open.delegation.is_none()) {
            return Ok(());
        }
        Err(Denied::new(
            "bearer",
            "a token that was a password opens sessions on databases, by the door `bearer`",
        ))
    }

    /// A bearer's login ends with its session.
    pub(super) fn end_bearer(&mut self, login: Option<StatementId>, at: Timestamp) {
        let Some(id) = login else { return };
        let ends = |login: &LoginState| login.login.bearer && login.counts(at);
        if self.logins.get(&id).is_some_and(ends) {
            self.end_login(id, at);
        }
    }
}
