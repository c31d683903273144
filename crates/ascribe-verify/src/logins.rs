//! Sessions by login: who signed each link of who acted, and whom one must trust for it.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ContentDigest, PersonId, SessionId, StatementId};
use ascribe_core::identity::Binding;
use ascribe_core::law::{Denied, LoginLink, LoginState, State, check_token};
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_evidence::SshSignatures;
use serde::Serialize;

/// Who signed what says who acted in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoginProof {
    /// The session.
    pub session: SessionId,
    /// What the login's key signed for it.
    pub link: LoginLink,
    /// The login.
    pub login: StatementId,
    /// Who logged in.
    pub actor: PersonId,
    /// Its name, where it is a workload.
    pub workload: Option<String>,
    /// How strongly that is shown, 0 to 4.
    pub assurance: u8,
    /// The provider's name.
    pub provider: String,
    /// The issuer, who must be trusted.
    pub issuer: String,
    /// RFC 7638 thumbprint of the provider's key that signed the token.
    pub provider_key: ContentDigest,
    /// The entry that holds the provider's keys of that moment.
    pub keys_entry: u64,
    /// Did the bearer see that key published as well, by their own word?
    pub seen_by_client: bool,
    /// Fingerprint of the session key, which signed the login.
    pub session_key: String,
    /// `checked` here against the provider's key; `sealed` where the bundle does not disclose it.
    pub token: &'static str,
    /// For what whoever came by the token must be trusted, where it was they who bound the key.
    pub holder_trusted_for: Option<&'static str>,
    /// For what the log, and whoever runs it, must be trusted.
    pub log_trusted_for: Vec<&'static str>,
}

/// What is kept of a log to check logins.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    /// Providers' keys by the entry that holds them.
    keys: BTreeMap<u64, Bytes>,
    /// Logins by their entry.
    statements: BTreeMap<u64, StatementId>,
    checked: BTreeSet<StatementId>,
}

impl Logins {
    pub(crate) fn keep(&mut self, index: u64, entry: &Entry) {
        match &entry.body {
            Body::ProviderKeys(keys) => {
                self.keys.insert(index, keys.body.clone());
            }
            Body::Statement(signed) => {
                if let Ok(statement) = signed.statement()
                    && matches!(statement.say, Say::Login(_))
                {
                    self.statements.insert(index, statement.id);
                }
            }
            _ => {}
        }
    }

    /// Checks a disclosed token against the provider's keys as they were recorded before its login.
    pub(crate) fn check(&mut self, state: &State, index: u64, token: &[u8]) -> Result<(), Denied> {
        let Some(id) = self.statements.get(&index) else {
            return Ok(());
        };
        let absent = || Denied::new("no-login", "the login or its provider's keys are absent");
        let login = state.logins.get(id).ok_or_else(absent)?;
        let keys = self.keys.get(&login.keys.index).ok_or_else(absent)?;
        let (provider, key) = (&login.provider, &login.key);
        check_token(&SshSignatures, provider, &keys.0, key, &login.login, token)?;
        self.checked.insert(*id);
        Ok(())
    }

    /// One for each login whose key signed something that one of these sessions rests on, in the log's
    /// order of sessions.
    pub(crate) fn proofs(
        &self,
        state: &State,
        wanted: impl Fn(&SessionId) -> bool,
    ) -> Vec<LoginProof> {
        let mut sessions: Vec<_> = state.sessions.iter().filter(|(id, _)| wanted(id)).collect();
        sessions.sort_by_key(|(_, session)| session.place.index);
        let behind = sessions.into_iter().flat_map(|(session, found)| {
            let behind = state.logins_behind(&found.open).into_iter();
            behind.map(move |(link, id)| (*session, link, id))
        });
        behind
            .filter_map(|(session, link, id)| {
                let login = state.logins.get(&id)?;
                Some(proof(
                    (session, link, id),
                    login,
                    self.checked.contains(&id),
                ))
            })
            .collect()
    }

    /// How many other logins' keys signed requests, approvals, delegations or changes, while their
    /// tokens were not checked here.
    pub(crate) fn unchecked(&self, state: &State, shown: &[LoginProof]) -> usize {
        let shown: BTreeSet<StatementId> = shown.iter().map(|proof| proof.login).collect();
        let logins = state.logins.iter();
        logins
            .filter(|(id, login)| {
                login.vouched && !self.checked.contains(id) && !shown.contains(id)
            })
            .count()
    }
}

fn proof(
    (session, link, id): (SessionId, LoginLink, StatementId),
    state: &LoginState,
    checked: bool,
) -> LoginProof {
    let claims = &state.login.claims;
    let seen_by_client = state.login.saw == Some(claims.key);
    let mut log_trusted_for = vec!["when it was shown"];
    for (needed, what) in [
        (!seen_by_client, "that the provider published this key"),
        (!checked, "that the token says what is stated"),
        (
            claims.binding == Binding::None,
            "that whoever showed the token was who it names: it binds no key",
        ),
        (
            state.login.bearer,
            "that this connection showed it: its key was the gateway's",
        ),
    ] {
        if needed {
            log_trusted_for.push(what);
        }
    }
    LoginProof {
        session,
        link,
        login: id,
        actor: state.by,
        workload: state.workload.as_ref().map(|(name, _)| name.clone()),
        assurance: state.assurance(),
        provider: state.login.provider.clone(),
        issuer: state.provider.issuer.clone(),
        provider_key: claims.key,
        keys_entry: state.keys.index,
        seen_by_client,
        session_key: state.key.fingerprint(),
        token: if checked { "checked" } else { "sealed" },
        holder_trusted_for: (claims.binding == Binding::Proof).then_some(
            "that nobody but the workload itself had the token while no proof of it was shown: they could have bound a \
             key of their own",
        ),
        log_trusted_for,
    }
}

/// A proof in words.
pub(crate) fn in_words(proof: &LoginProof) -> String {
    let actor = proof.actor.to_string();
    let who = proof.workload.as_deref().unwrap_or(&actor);
    let seen = if proof.seen_by_client { "yes" } else { "no" };
    let link = match proof.link {
        LoginLink::Session => "who",
        LoginLink::Delegation => "who delegated for",
        LoginLink::Request => "who asked for",
        LoginLink::Approval => "who approved",
    };
    let holder = proof.holder_trusted_for.map_or(String::new(), |what| {
        format!(", whatever the token passed through before it was proved for {what}")
    });
    format!(
        "  {link} {}: {who}, token {} and signed by provider key {} (keys entry {}, seen also by the client: {seen}), login \
         signed by session key {}; one must trust: {} for who that is{holder}, and the log for {}",
        proof.session,
        proof.token,
        proof.provider_key,
        proof.keys_entry,
        proof.session_key,
        clean(&proof.issuer, 200),
        proof.log_trusted_for.join("; "),
    )
}
