//! Sessions by login: who signed each link of who acted, and whom one must trust for it.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ContentDigest, PersonId, SessionId, StatementId};
use ascribe_core::identity::{Authn, Binding, KeysSeen};
use ascribe_core::law::{Denied, LoginLink, LoginState, State, check_token};
use ascribe_core::statement::{Say, Statement};
use ascribe_core::text::clean;
use ascribe_evidence::SshSignatures;
use serde::Serialize;

use crate::links::{Names, quoted, shown};
use crate::report::Note;

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
    /// How a person proved themself to the provider, where its token says anything of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authn: Option<Authn>,
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
    /// What each of the provider's observers saw around the login.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<Observed>,
    /// Fingerprint of the session key, which signed the login.
    pub session_key: String,
    /// `checked` here against the provider's key; `sealed` where the bundle does not disclose it.
    pub token: &'static str,
    /// For what whoever came by the token must be trusted, where it was they who bound the key.
    pub holder_trusted_for: Option<&'static str>,
    /// For what the log, and whoever runs it, must be trusted.
    pub log_trusted_for: Vec<&'static str>,
}

/// What one observer of a provider's keys said around a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Who.
    pub observer: PersonId,
    /// Their last word before the login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Word>,
    /// Their first word after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Word>,
}

impl Observed {
    /// Did they see the login's key, before or after?
    pub fn saw(&self) -> bool {
        let words = [self.before, self.after];
        words.iter().flatten().any(|word| word.saw)
    }
}

/// One look at a provider's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Word {
    /// The entry that holds it.
    pub entry: u64,
    /// Was the login's key among what was published?
    pub saw: bool,
}

/// What is kept of a log to check logins.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    /// Providers' keys by the entry that holds them.
    keys: BTreeMap<u64, Bytes>,
    /// Logins by their entry.
    statements: BTreeMap<u64, StatementId>,
    /// The claims by which a login had to name the person's manager, by its entry, where there were any.
    managers: BTreeMap<u64, Vec<String>>,
    /// What observers saw, by provider and observer, in order.
    words: BTreeMap<String, BTreeMap<PersonId, Vec<(u64, KeysSeen)>>>,
    checked: BTreeSet<StatementId>,
}

impl Logins {
    /// Keeps an entry that `state` has just taken in.
    pub(crate) fn keep(
        &mut self,
        state: &State,
        index: u64,
        entry: &Entry,
        said: Option<&Statement>,
    ) {
        match &entry.body {
            Body::ProviderKeys(keys) => {
                self.keys.insert(index, keys.body.clone());
            }
            Body::Statement(_) => {
                let Some(statement) = said else {
                    return;
                };
                match &statement.say {
                    Say::Login(login) => {
                        self.statements.insert(index, statement.id);
                        let wanted = state.wanted_managers(&login.provider).into_iter();
                        let wanted: Vec<String> = wanted.map(str::to_owned).collect();
                        if !wanted.is_empty() {
                            self.managers.insert(index, wanted);
                        }
                    }
                    Say::KeysSeen(seen) => {
                        let words = self.words.entry(seen.provider.clone()).or_default();
                        words
                            .entry(statement.by)
                            .or_default()
                            .push((index, seen.clone()));
                    }
                    _ => {}
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
        let managers = self.managers.get(&index).into_iter().flatten();
        let managers: Vec<&str> = managers.map(String::as_str).collect();
        let (judge, login) = (&SshSignatures, &login.login);
        check_token(judge, provider, &keys.0, key, login, token, &managers)?;
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
        behind.filter_map(|link| self.proof(state, link)).collect()
    }

    /// That of one login.
    pub(crate) fn proof(
        &self,
        state: &State,
        link: (SessionId, LoginLink, StatementId),
    ) -> Option<LoginProof> {
        let login = state.logins.get(&link.2)?;
        let checked = self.checked.contains(&link.2);
        Some(proof(link, login, checked, self.observed(login)))
    }

    /// The login at that entry, and whether its token was checked here.
    pub(crate) fn at(&self, entry: u64) -> Option<(StatementId, &'static str)> {
        let login = *self.statements.get(&entry)?;
        Some((login, token_word(self.checked.contains(&login))))
    }

    /// What each observer said around a login of the keys at the place where its provider publishes them.
    fn observed(&self, state: &LoginState) -> Vec<Observed> {
        let provider = &state.provider;
        let word = |(entry, seen): &(u64, KeysSeen)| {
            let here = (&seen.issuer, &seen.uri) == (&provider.issuer, &provider.jwks_uri);
            here.then(|| Word {
                entry: *entry,
                saw: seen.keys.contains(&state.login.claims.key),
            })
        };
        let observers = self.words.get(&state.login.provider).into_iter().flatten();
        let observed = observers.map(|(observer, words)| {
            let next = words.partition_point(|(entry, _)| *entry < state.place.index);
            let (before, after) = words.split_at(next);
            Observed {
                observer: *observer,
                before: before.last().and_then(word),
                after: after.first().and_then(word),
            }
        });
        observed
            .filter(|o| o.before.is_some() || o.after.is_some())
            .collect()
    }

    /// Has an observer ever seen this key published?
    fn was_seen(&self, provider: &str, key: &ContentDigest) -> bool {
        let words = self.words.get(provider).into_iter().flatten();
        words
            .flat_map(|(_, words)| words)
            .any(|(_, seen)| seen.keys.contains(key))
    }

    /// A note for each key of a provider under which logins counted and that neither a client nor an
    /// observer ever saw.
    pub(crate) fn unseen(&self, state: &State) -> Vec<Note> {
        let mut keys: BTreeMap<(&str, ContentDigest), (u64, usize)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for login in state.logins.values() {
            let key = (login.login.provider.as_str(), login.login.claims.key);
            if login.login.saw == Some(key.1) {
                seen.insert(key);
            }
            let (entry, count) = keys.entry(key).or_insert((login.keys.index, 0));
            *entry = login.keys.index.min(*entry);
            *count += 1;
        }
        keys.retain(|key, _| !seen.contains(key) && !self.was_seen(key.0, &key.1));
        let note = |((provider, key), (entry, count)): ((&str, ContentDigest), _)| {
            Note {
            code: "key_unseen",
            action: None,
            message: format!(
                "NOBODY BUT THE SERVER is on record as having seen key {key} of provider `{}` published (keys entry {entry}); \
                 {count} login(s) counted under it: ask the provider whether it is theirs",
                clean(provider, 63)
            )
            .into(),
        }
        };
        keys.into_iter().map(note).collect()
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

fn token_word(checked: bool) -> &'static str {
    if checked { "checked" } else { "sealed" }
}

fn proof(
    (session, link, id): (SessionId, LoginLink, StatementId),
    state: &LoginState,
    checked: bool,
    observers: Vec<Observed>,
) -> LoginProof {
    let claims = &state.login.claims;
    let seen_by_client = state.login.saw == Some(claims.key);
    let mut log_trusted_for = vec!["when it was shown"];
    for (needed, what) in [
        (
            !seen_by_client && !observers.iter().any(Observed::saw),
            "that the provider published this key",
        ),
        (!checked, "that the token says what is stated"),
        (
            claims.binding == Binding::None,
            "that whoever showed the token was who it names: it binds no key",
        ),
        (
            state.login.bearer && claims.binding == Binding::None,
            "that this connection showed it: its key was the gateway's",
        ),
        (
            claims.binding == Binding::Tls,
            "that the TLS 1.3 handshake that the workload's key signed was this connection's, and not one with another \
             server: what it signed names none",
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
        authn: claims.authn(),
        provider: state.login.provider.clone(),
        issuer: state.provider.issuer.clone(),
        provider_key: claims.key,
        keys_entry: state.keys.index,
        seen_by_client,
        observers,
        session_key: state.key.fingerprint(),
        token: token_word(checked),
        holder_trusted_for: (claims.binding == Binding::Proof).then_some(
            "that nobody but the workload itself had the token while no proof of it was shown: they could have bound a \
             key of their own",
        ),
        log_trusted_for,
    }
}

pub(crate) fn observers_in_words(proof: &LoginProof, names: &Names) -> String {
    let word = |when: &str, word: Option<Word>| {
        let word = word?;
        let saw = if word.saw { "saw it" } else { "DID NOT SEE IT" };
        Some(format!("{saw} {when}, entry {}", word.entry))
    };
    let observers = proof.observers.iter().map(|observed| {
        let words = [
            word("before", observed.before),
            word("after", observed.after),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        format!(
            "; observer {} {}",
            shown(names, observed.observer),
            words.join(" and ")
        )
    });
    observers.collect()
}

/// How a person proved themself to the provider.
pub(crate) fn authn_in_words(proof: &LoginProof) -> String {
    let authn = proof.authn.as_ref().map(Authn::in_words);
    authn.map_or_else(String::new, |words| {
        format!(", whose provider says how they proved themself ({words})")
    })
}

/// A proof in words.
pub(crate) fn in_words(proof: &LoginProof, names: &Names) -> String {
    let actor = shown(names, proof.actor);
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
        "  {link} {}: {who}{}, token {} and signed by provider key {} (keys entry {}, seen also by the client: {seen}{}), login \
         signed by session key {}; one must trust: {} for who that is{holder}, and the log for {}",
        proof.session,
        authn_in_words(proof),
        proof.token,
        proof.provider_key,
        proof.keys_entry,
        observers_in_words(proof, names),
        proof.session_key,
        quoted(&proof.issuer, 200),
        proof.log_trusted_for.join("; "),
    )
}
