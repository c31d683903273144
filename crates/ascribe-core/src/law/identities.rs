//! Logins: whom providers' subjects stand for, and the session keys that their tokens introduce.
//! The law reads what a login states; [`check_token`] holds it against the token.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::providers::is_line;
use super::{
    AUTH_TIMES, Denied, Judge, Manager, Membership, Person, Place, State, TokenAsked, authn,
    bearers, rules,
};
use crate::entry::{Body, SessionOpen};
use crate::id::{ContentDigest, PersonId, StatementId};
use crate::identity::{
    Binding, Claims, IdentityLink, Login, Logout, PROOF_AUDIENCE, Provider, ProviderKind,
    token_digest,
};
use crate::statement::{Role, Say, Signed, SshKey, Target};
use crate::time::Timestamp;

/// How far a provider's clock may be off, in milliseconds.
pub(super) const PROVIDER_SKEW_MS: i64 = 60_000;
/// Longest life of a session key.
const MAX_LOGIN_MS: i64 = 12 * 3_600_000;
/// Longest life of a token.
const MAX_TOKEN_MS: i64 = 24 * 3_600_000;
/// A person's token was issued at most this long ago: they were there just now.
const MAX_AUTH_MS: i64 = 600_000;
/// Most subjects that stand for one person.
const MAX_LINKS: usize = 32;
/// Most logins of one actor that have not ended.
const MAX_LOGINS: usize = 256;
/// The assurance of a key that an outside authority certified: the gateway alone saw that.
const CERTIFIED: u8 = 1;
/// The assurance of a key that is enrolled, or that a provider bound its token to.
pub(super) const BOUND: u8 = 2;
/// The assurance of an enrolled key that somebody touched for this very signature.
const TOUCHED: u8 = 3;

/// Whom a subject stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// The enrolled person.
    pub person: PersonId,
    /// The statement that says so.
    pub place: Place,
}

/// A login and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginState {
    /// When it was ordered.
    pub at: Timestamp,
    /// Who.
    pub by: PersonId,
    /// When it ended: by somebody, with what it rests on, or at its own end once that was noticed.
    pub ended: Option<Timestamp>,
    /// The session key.
    pub key: SshKey,
    /// The entry that holds the provider's keys of that moment.
    pub keys: Place,
    /// As signed.
    pub login: Login,
    /// Where.
    pub place: Place,
    /// The provider as it was then.
    pub provider: Provider,
    /// Did its key sign something besides its own sessions, reads and end?
    pub vouched: bool,
    /// The workload's name and owner as they were then; none for a person.
    pub workload: Option<(String, PersonId)>,
}

/// What a login's key signed for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginLink {
    /// It opened the session.
    Session,
    /// It signed the first delegation of the agent's chain.
    Delegation,
    /// It asked for the grant.
    Request,
    /// It approved the grant, or an extension.
    Approval,
}

impl LoginState {
    /// How strongly it shows who signs with its key.
    pub fn assurance(&self) -> u8 {
        match self.login.claims.binding {
            Binding::Nonce | Binding::Audience | Binding::Key => BOUND,
            Binding::None if self.provider.kind.is_of_people() => 0,
            // Whoever came by the token first chose the key of a proof, too.
            // Which connection it was that a workload signed for is the gateway's word.
            Binding::None | Binding::Proof | Binding::Tls => 1,
        }
    }

    /// Did something end it before its own end?
    pub(super) fn was_cut(&self) -> bool {
        self.ended.is_some_and(|ended| ended < self.login.until)
    }

    /// Does its key count at this moment?
    pub(super) fn counts(&self, at: Timestamp) -> bool {
        self.ended.is_none() && at < self.login.until
    }
}

/// Logins that ended by themselves, and what people had before.
#[must_use]
pub(super) struct Expired {
    logins: Vec<StatementId>,
    people: Vec<(PersonId, Before)>,
}

/// What somebody had before a login of theirs ended by itself.
pub(super) struct Before {
    pub(super) roles: BTreeSet<Role>,
    pub(super) groups: Vec<Membership>,
    pub(super) manager: Option<Manager>,
}

/// Until when nobody may be shown what this entry seals: a token is a credential until it has expired.
pub fn withheld_until(body: &Body) -> Option<Timestamp> {
    let Body::Statement(signed) = body else {
        return None;
    };
    match signed.statement().ok()?.say {
        Say::Login(login) => Some(login.claims.expires.plus_millis(PROVIDER_SKEW_MS)),
        _ => None,
    }
}

/// Does this token, shown with that key, say what the login states, by the provider's keys of then? A login that says nothing
/// of protection may be of a log that knew of none. `managers` are the claims that directories at the provider took for the name of a
/// person's manager when the login was taken: what the token has of them, the login states.
///
/// # Errors
/// When it does not, with the reason.
pub fn check_token(
    judge: &dyn Judge,
    provider: &Provider,
    keys: &[u8],
    key: &SshKey,
    login: &Login,
    token: &[u8],
    managers: &[&str],
) -> Result<(), Denied> {
    let whole = false;
    says(
        judge,
        (provider, keys),
        (key, login),
        token,
        managers,
        whole,
    )
}

/// The same; a login is whole if it says all that this version of the law makes use of.
fn says(
    judge: &dyn Judge,
    (provider, keys): (&Provider, &[u8]),
    (key, login): (&SshKey, &Login),
    token: &[u8],
    managers: &[&str],
    whole: bool,
) -> Result<(), Denied> {
    if token_digest(token) != login.digest {
        return Err(Denied::new(
            "token",
            "the token is another one than the login names",
        ));
    }
    let facts: Vec<&str> = login
        .claims
        .facts
        .iter()
        .map(|fact| fact.claim.as_str())
        .collect();
    let groups = login.claims.groups.iter();
    let groups: Vec<(&str, &str)> = groups
        .map(|group| (group.claim.as_str(), group.value.as_str()))
        .collect();
    let asked = TokenAsked {
        key,
        rz: &login.rz.0,
        facts: &facts,
        groups: &groups,
        managers,
    };
    let mut said = judge.token(provider, keys, token, &asked)?;
    // Logins of earlier logs do not repeat it.
    if login.claims.protection.is_none() && !whole {
        said.protection = None;
    }
    if said == login.claims {
        return Ok(());
    }
    Err(Denied::new(
        "claims",
        "the login states something else than its token says",
    ))
}

/// Texts that a token says can be shown as they are, and are not endless.
fn check_texts(claims: &Claims) -> Result<(), Denied> {
    let Claims {
        acr,
        amr,
        auth_time: _,
        binding: _,
        code,
        expires: _,
        facts,
        groups,
        issued: _,
        key: _,
        managers,
        missing,
        protection,
        run,
        subject: _,
        trigger,
    } = claims;
    let mut texts: Vec<&String> = acr.iter().chain(amr).chain(missing).collect();
    for fact in facts.iter().chain(groups) {
        texts.extend([&fact.claim, &fact.value]);
    }
    texts.extend(managers.iter().map(|manager| &manager.claim));
    if let Some(code) = code {
        let parts = [&code.commit, &code.reference, &code.repo, &code.workflow];
        texts.extend(parts.into_iter().chain([&code.workflow_commit]).flatten());
    }
    if let Some(run) = run {
        texts.extend([&run.id, &run.provider]);
        texts.extend([&run.attempt, &run.job].into_iter().flatten());
    }
    if let Some(protection) = protection {
        texts.extend(protection.parts().map(|(_, text)| text));
    }
    if let Some(trigger) = trigger {
        texts.extend([&trigger.event, &trigger.id].into_iter().flatten());
    }
    let fits = |text: &&String| text.is_empty() || is_line(text);
    if amr.len() > 16 || missing.len() > 16 || !texts.iter().all(fits) {
        return Err(Denied::new(
            "claims",
            "the token says more, or other characters, than can be shown",
        ));
    }
    Ok(())
}

/// Times that a login states.
fn check_times(at: Timestamp, login: &Login, people: bool) -> Result<(), Denied> {
    let claims = &login.claims;
    let again = |code, text: &str| Err(Denied::new(code, text).with_help("log in again"));
    if claims.expires.since(claims.issued) > MAX_TOKEN_MS || claims.expires <= claims.issued {
        return again("token-time", "a token counts for a day at most");
    }
    if claims.issued.since(at) > PROVIDER_SKEW_MS {
        return again("token-time", "the token was issued in the future");
    }
    if at.since(claims.expires) >= PROVIDER_SKEW_MS {
        return again("token-time", "the token has expired");
    }
    if people && at.since(claims.issued) > MAX_AUTH_MS {
        return again(
            "token-time",
            "the token was issued more than ten minutes ago",
        );
    }
    if login.until <= at || login.until.since(at) > MAX_LOGIN_MS {
        return again("until", "a session key counts for twelve hours at most");
    }
    if !claims.binding.is_the_providers() && login.until > claims.expires {
        return again(
            "until",
            "the provider did not bind the key, so the key counts no longer than the token",
        );
    }
    Ok(())
}

/// Would whatever a provider signed count now as it did then? Its tokens are read alike, its keys are
/// published where they were, and no algorithm was given up.
fn means_no_less(now: &Provider, then: &Provider) -> bool {
    now.issuer == then.issuer
        && now.audience == then.audience
        && now.kind == then.kind
        && now.jwks_uri == then.jwks_uri
        && then.algorithms.iter().all(|a| now.algorithms.contains(a))
}

/// Does the token's binding fit its provider?
fn check_binding(provider: &Provider, binding: Binding) -> Result<(), Denied> {
    let (kind, proofs) = (provider.kind, provider.takes_proofs());
    let fits = match binding {
        Binding::None => !proofs,
        Binding::Nonce => kind.is_of_people(),
        Binding::Audience => !kind.is_of_people() && kind != ProviderKind::SpiffeX509 && !proofs,
        Binding::Key | Binding::Tls => kind == ProviderKind::SpiffeX509,
        Binding::Proof => proofs,
    };
    if fits {
        return Ok(());
    }
    Err(Denied::new(
        "binding",
        "tokens of this provider do not bind a key in this way",
    ))
}

impl State {
    pub(super) fn login(&self, id: StatementId) -> Result<&LoginState, Denied> {
        let login = self.logins.get(&id);
        login
            .map(Box::as_ref)
            .ok_or_else(|| Denied::new("no-login", format!("no login has the id `{id}`")))
    }

    pub(super) fn identity(&self, link: &IdentityLink) -> Result<&LinkState, Denied> {
        self.identity_of(link.person, &link.provider, &link.subject)
    }

    fn identity_of(
        &self,
        person: PersonId,
        provider: &str,
        subject: &ContentDigest,
    ) -> Result<&LinkState, Denied> {
        let known = self.links.get(provider);
        known
            .and_then(|known| known.get(subject))
            .filter(|known| known.person == person)
            .ok_or_else(|| {
                Denied::new("no-identity", "the person has no such identity")
                    .with_help("`ascribe identity list` shows all")
            })
    }

    /// Whom a subject stands for.
    pub fn linked(&self, provider: &str, subject: &ContentDigest) -> Option<PersonId> {
        Some(self.links.get(provider)?.get(subject)?.person)
    }

    /// Each subject that stands for somebody: provider, subject, person.
    pub fn identities(&self) -> impl Iterator<Item = (&String, &ContentDigest, PersonId)> {
        self.links.iter().flat_map(|(provider, links)| {
            let links = links.iter();
            links.map(move |(subject, link)| (provider, subject, link.person))
        })
    }

    pub(super) fn check_identity(&self, link: &IdentityLink) -> Result<(), Denied> {
        let known = self.live_provider(&link.provider)?;
        if !known.provider.kind.is_of_people() {
            return Err(
                Denied::new("provider", "tokens of this provider name no people")
                    .with_help("enrol a workload: `ascribe workload add`"),
            );
        }
        if self.person(link.person)?.offboarded.is_some() {
            return Err(Denied::new("offboarded", "the person has left"));
        }
        if self.linked(&link.provider, &link.subject).is_some() {
            return Err(Denied::new(
                "duplicate",
                "the subject stands for somebody already",
            ));
        }
        let own = self.identities().filter(|(_, _, who)| *who == link.person);
        if own.count() >= MAX_LINKS {
            return Err(Denied::new(
                "too-many",
                "the person has 32 identities already",
            ));
        }
        Ok(())
    }

    pub(super) fn take_identity(&mut self, link: &IdentityLink, place: Place) {
        let state = LinkState {
            person: link.person,
            place,
        };
        let links = self.links.entry(link.provider.clone()).or_default();
        links.insert(link.subject, state);
    }

    pub(super) fn take_unlink(
        &mut self,
        by: PersonId,
        at: Timestamp,
        link: &IdentityLink,
    ) -> Result<(), Denied> {
        self.identity(link)?;
        // Nobody escapes the directory that may suspend them by dropping the identity it knows.
        if by != link.person || self.is_overseen(&link.provider) {
            self.need(by, Role::Admin)?;
        }
        if let Some(links) = self.links.get_mut(&link.provider) {
            links.remove(&link.subject);
        }
        self.hear_directories(at);
        self.end_logins(at);
        Ok(())
    }

    /// The entries that a login rests on: the provider's keys, and what says whose its subject is.
    pub(super) fn login_basis(
        &self,
        by: PersonId,
        login: &Login,
    ) -> Result<(Place, Place), Denied> {
        let known = self.live_provider(&login.provider)?;
        let meant_for_proofs = known.provider.audience.starts_with(PROOF_AUDIENCE);
        if known.provider.takes_proofs() && !meant_for_proofs {
            return Err(Denied::new(
                "gitlab",
                "GitLab's tokens bind no key: a job makes a proof of one that is meant for that",
            )
            .with_help(format!(
                "register the provider, and ask for the job's token, with an audience that begins with `{PROOF_AUDIENCE}`"
            )));
        }
        let keys = known.keys.as_ref().ok_or_else(|| {
            Denied::new("provider-keys", "the provider's keys are not on record yet")
                .with_help("see the server's log for why it cannot fetch them")
        })?;
        let actor = if known.provider.kind.is_of_people() {
            self.person(by)?;
            let subject = &login.claims.subject;
            self.identity_of(by, &login.provider, subject)?.place
        } else {
            self.workload(by)?.place
        };
        Ok((keys.place, actor))
    }

    pub(super) fn take_login(
        &mut self,
        id: StatementId,
        by: PersonId,
        at: Timestamp,
        (login, key, fingerprint): (&Login, SshKey, String),
        place: Place,
    ) -> Result<(), Denied> {
        let (keys, _) = self.login_basis(by, login)?;
        let known = self.live_provider(&login.provider)?;
        let published = known.keys.iter().flat_map(|keys| &keys.thumbprints);
        if !published.into_iter().any(|key| *key == login.claims.key) {
            return Err(Denied::new(
                "provider-key",
                "the token is signed with a key that the provider does not publish",
            )
            .with_help("log in again"));
        }
        self.check_observed(at, known, &login.claims.key)?;
        let people = known.provider.kind.is_of_people();
        check_times(at, login, people)?;
        if let Some(proved) = login.claims.auth_time
            && self.version >= AUTH_TIMES
        {
            authn::check_not_after(at, proved)?;
        }
        authn::check_proved(&known.provider, &login.claims)?;
        check_binding(&known.provider, login.claims.binding)?;
        check_texts(&login.claims)?;
        if login.rz.0.len() != 32 {
            return Err(Denied::new("rz", "the random bytes of a login are 32"));
        }
        bearers::check_bearer(known.provider.kind, login)?;
        self.check_unspent(login)?;
        rules::check_key(&key)?;
        self.check_unknown(&fingerprint)?;
        self.check_groups(login)?;
        self.check_stated_managers(login)?;
        let workload = if people {
            if !login.claims.facts.is_empty() {
                return Err(Denied::new("claims", "a person's login states no facts"));
            }
            None
        } else {
            Some(self.check_workload_login(by, login)?)
        };
        // Those that are over were taken out when this entry's time came.
        let own = self.logins_of.get(&by).map_or(0, BTreeSet::len);
        if own >= MAX_LOGINS {
            return Err(Denied::new("too-many", "too many logins have not ended")
                .with_help("end some: `ascribe logout`"));
        }
        let state = LoginState {
            at,
            by,
            ended: None,
            key,
            keys,
            login: login.clone(),
            place,
            provider: known.provider.clone(),
            vouched: false,
            workload,
        };
        self.forget_expired(at);
        let until = login.claims.expires.plus_millis(PROVIDER_SKEW_MS);
        let spent = bearers::spent(login);
        self.spent.insert(spent, until);
        self.spent_until.insert((until, spent));
        self.session_keys.insert(fingerprint, id);
        self.live_logins.insert((login.until, id));
        self.logins_of.entry(by).or_default().insert(id);
        self.logins.insert(id, Box::new(state));
        self.hear_logins(at);
        Ok(())
    }

    /// Ends the logins that are over by now, with the groups and managers that their tokens named. Says what
    /// was before, for an entry that is refused changes nothing.
    pub(super) fn end_expired(&mut self, at: Timestamp) -> Expired {
        let mut logins = Vec::new();
        while let Some((until, id)) = self.live_logins.first().copied()
            && until <= at
        {
            self.end_login(id, at);
            logins.push(id);
        }
        let people = self.lose_words(&logins);
        Expired { logins, people }
    }

    /// Takes that back.
    pub(super) fn revive(&mut self, expired: Expired) {
        for id in expired.logins {
            if let Some(login) = self.logins.get_mut(&id) {
                login.ended = None;
                self.live_logins.insert((login.login.until, id));
                self.logins_of.entry(login.by).or_default().insert(id);
            }
        }
        for (by, before) in expired.people {
            if let Some(person) = self.people.get_mut(&by) {
                person.directory_roles = before.roles;
                person.groups = before.groups;
                person.manager = before.manager;
            }
        }
    }

    /// Forgets the tokens that nobody could show again.
    fn forget_expired(&mut self, at: Timestamp) {
        while let Some((until, token)) = self.spent_until.first().copied()
            && until <= at
        {
            self.spent_until.pop_first();
            self.spent.remove(&token);
        }
    }

    pub(super) fn take_logout(
        &mut self,
        by: PersonId,
        at: Timestamp,
        logout: &Logout,
    ) -> Result<(), Denied> {
        let login = self.login(logout.login)?;
        if login.by != by && self.answers_for(login.by) != Some(by) {
            self.need(by, Role::Admin)?;
        }
        if !login.counts(at) {
            return Err(Denied::new("settled", "the login has ended already"));
        }
        self.end_login(logout.login, at);
        self.hear_logins(at);
        Ok(())
    }

    pub(super) fn end_login(&mut self, id: StatementId, at: Timestamp) {
        let Some(login) = self.logins.get_mut(&id) else {
            return;
        };
        login.ended = Some(at.min(login.login.until));
        self.live_logins.remove(&(login.login.until, id));
        if let Some(own) = self.logins_of.get_mut(&login.by) {
            own.remove(&id);
            if own.is_empty() {
                self.logins_of.remove(&login.by);
            }
        }
    }

    /// Ends the logins that rest on something that is so no more, and those that are over. What
    /// comes back later does not bring them back.
    pub(super) fn end_logins(&mut self, at: Timestamp) {
        let live = self.live_logins.iter();
        let over: Vec<StatementId> = live
            .map(|(_, id)| *id)
            .filter(|id| {
                let login = self.logins.get(id);
                !login.is_some_and(|login| login.counts(at) && self.has_basis(login))
            })
            .collect();
        for id in over {
            self.end_login(id, at);
        }
    }

    fn has_basis(&self, state: &LoginState) -> bool {
        let LoginState { by, login, .. } = state;
        let counts = self.live_provider(&login.provider).is_ok_and(|now| {
            means_no_less(&now.provider, &state.provider)
                && authn::check_proved(&now.provider, &login.claims).is_ok()
        });
        let still = match &state.workload {
            None => {
                self.linked(&login.provider, &login.claims.subject) == Some(*by)
                    && !self.has_left(*by)
            }
            Some(_) => self.check_workload_rule(*by, login).is_ok(),
        };
        counts && still
    }

    /// Finds the logins again, in a state that was read back.
    pub(super) fn find_logins(&mut self) {
        for (id, login) in self.logins.iter().filter(|(_, l)| l.ended.is_none()) {
            self.live_logins.insert((login.login.until, *id));
            self.logins_of.entry(login.by).or_default().insert(*id);
        }
        let spent = self.spent.iter();
        self.spent_until = spent.map(|(token, until)| (*until, *token)).collect();
        let keys = self.logins.iter();
        self.session_keys = keys
            .map(|(id, login)| (login.key.fingerprint(), *id))
            .collect();
    }

    /// The login that introduced this key, whatever became of it.
    pub(super) fn login_of_key(&self, fingerprint: &str) -> Option<&LoginState> {
        let login = self.logins.get(self.session_keys.get(fingerprint)?)?;
        Some(login)
    }

    /// The login that introduced this key and its end, if it counts.
    pub fn login_by_key(
        &self,
        at: Timestamp,
        fingerprint: &str,
    ) -> Option<(StatementId, Timestamp)> {
        let id = self.session_keys.get(fingerprint)?;
        let login = self.logins.get(id)?;
        (login.counts(at) && !self.has_left(login.by)).then_some((*id, login.login.until))
    }

    /// Why the holder of this key may do nothing at this moment, where the key is known and they may not.
    pub fn why_nobody(&self, at: Timestamp, fingerprint: &str) -> Option<Denied> {
        if let Some(person) = self.keys.get(fingerprint) {
            return self.check_present(*person).err();
        }
        if self.revoked_keys.contains(fingerprint) {
            return Some(Denied::new("revoked", "the key was revoked"));
        }
        let login = self.login_of_key(fingerprint)?;
        let ended = || (!login.counts(at)).then(logged_out);
        self.check_present(login.by).err().or_else(ended)
    }

    /// Is this key one of the actor's, enrolled or introduced by a login?
    pub(super) fn check_key_of(
        &self,
        by: PersonId,
        at: Timestamp,
        (key, fingerprint): (&SshKey, &str),
    ) -> Result<(), Denied> {
        let enrolled = |person: &Person| person.keys.get(fingerprint) == Some(key);
        if self.people.get(&by).is_some_and(enrolled) {
            return Ok(());
        }
        match self.login_of_key(fingerprint) {
            Some(login) if login.by == by && login.counts(at) => Ok(()),
            Some(login) if login.by == by => Err(logged_out()),
            Some(_) | None => Err(Denied::new(
                "key",
                "the statement is signed by a key that is not its author's",
            )),
        }
    }

    /// The login of a session that names one: still as when the session opened?
    pub(super) fn check_login(
        &self,
        id: StatementId,
        by: PersonId,
        key: &str,
        at: Timestamp,
    ) -> Result<(), Denied> {
        let login = self.login(id)?;
        if login.by != by || login.key.fingerprint() != key {
            return Err(Denied::new("key", "the login is another actor's or key's"));
        }
        if at >= login.login.until {
            return Err(Denied::new("expired", "the login has expired")
                .with_help("log in again: `ascribe login`"));
        }
        if login.ended.is_some() {
            return Err(Denied::new("revoked", "the login was ended")
                .with_help("log in again: `ascribe login`"));
        }
        Ok(())
    }

    pub(super) fn take_vouched(&mut self, fingerprint: &str) {
        let id = self.session_keys.get(fingerprint);
        if let Some(login) = id.and_then(|id| self.logins.get_mut(id)) {
            login.vouched = true;
        }
    }

    /// The logins whose keys signed what a session rests on, each with what that was.
    pub fn logins_behind(&self, open: &SessionOpen) -> BTreeSet<(LoginLink, StatementId)> {
        let chain = open.delegation.map(|id| self.delegation_chain(id));
        let head = chain.as_ref().and_then(|chain| chain.first());
        let grant = self.grants.get(&open.grant);
        let ask = grant.and_then(|grant| self.asks.get(&grant.request));
        let extended = grant.into_iter().flat_map(|grant| &grant.extensions);
        let approvals = grant.into_iter().flat_map(|grant| &grant.approvals);
        let approvals = approvals.chain(extended.flat_map(|extended| &extended.approvals));
        let keys = head
            .map(|(_, head)| (LoginLink::Delegation, &head.key))
            .into_iter()
            .chain(ask.map(|ask| (LoginLink::Request, &ask.key)))
            .chain(approvals.map(|approval| (LoginLink::Approval, &approval.key)));
        let behind = keys.filter_map(|(link, key)| Some((link, *self.session_keys.get(key)?)));
        let own = open.login.map(|id| (LoginLink::Session, id));
        behind.chain(own).collect()
    }

    /// The logins whose tokens say what those who signed the request or an approval of it needed: that they were in a group, or the
    /// manager of whoever asked.
    pub fn logins_vouching(&self, open: &SessionOpen) -> BTreeSet<StatementId> {
        let grant = self.grants.get(&open.grant);
        let ask = grant.and_then(|grant| self.asks.get(&grant.request));
        let extended = grant.into_iter().flat_map(|grant| &grant.extensions);
        let approvals = grant.into_iter().flat_map(|grant| &grant.approvals);
        let approvals = approvals.chain(extended.flat_map(|extended| &extended.approvals));
        let said = approvals.flat_map(|yes| yes.groups.iter().chain(&yes.manager));
        let said = said.chain(ask.into_iter().flat_map(|ask| &ask.groups));
        let said: BTreeSet<u64> = said.map(|place| place.index).collect();
        let logins = self.logins.iter();
        let vouching = logins.filter(|(_, login)| said.contains(&login.place.index));
        vouching.map(|(id, _)| *id).collect()
    }

    /// How strongly a key shows who signs with it, 0 to 4: its login's, or that of an enrolled key.
    pub fn assurance(&self, fingerprint: &str) -> u8 {
        match self.login_of_key(fingerprint) {
            Some(login) => login.assurance(),
            None => self.assurance_of_enrolled(fingerprint).unwrap_or(0),
        }
    }

    fn assurance_of_enrolled(&self, fingerprint: &str) -> Option<u8> {
        let person = self.people.get(self.keys.get(fingerprint)?)?;
        let touched = person.keys.get(fingerprint)?.is_security_key();
        Some(if touched { TOUCHED } else { BOUND })
    }

    /// The same of whoever opens a session.
    pub(super) fn assurance_of(&self, open: &SessionOpen) -> u8 {
        if let Some(delegation) = open.delegation.and_then(|id| self.delegations.get(&id)) {
            return delegation.assurance;
        }
        match (
            &open.certificate,
            open.login.and_then(|id| self.logins.get(&id)),
        ) {
            (Some(_), _) => CERTIFIED,
            (None, Some(login)) => login.assurance(),
            // The law let in nothing else than an enrolled key.
            (None, None) => {
                let level = self.assurance_of_enrolled(&open.key).unwrap_or(BOUND);
                // Without its signature there is the gateway's word for a touch.
                let signed = open.opening.is_some();
                if signed { level } else { level.min(BOUND) }
            }
        }
    }

    /// Does a key carry changes of the law?
    pub(super) fn check_carries_law(&self, key: &SshKey) -> Result<(), Denied> {
        need_assurance(
            Some(BOUND),
            self.assurance(&key.fingerprint()),
            "changes of people, targets and rules need",
        )
    }

    /// Is the token behind a login what the login says it is? Asked where the token is at hand.
    pub(super) fn check_login_token(
        &self,
        judge: &dyn Judge,
        by: PersonId,
        key: &SshKey,
        login: &Login,
        token: Option<&[u8]>,
    ) -> Result<(), Denied> {
        let Some(token) = token else {
            return Ok(());
        };
        self.login_basis(by, login)?;
        let known = self.live_provider(&login.provider)?;
        let Some(keys) = &known.keys else {
            return Err(Denied::new(
                "provider-keys",
                "the provider's keys are not on record yet",
            ));
        };
        let published = (&known.provider, &keys.body.0[..]);
        let managers = self.wanted_managers(&login.provider);
        let managers: Vec<&str> = managers.into_iter().collect();
        says(judge, published, (key, login), token, &managers, true)
    }
}

fn logged_out() -> Denied {
    Denied::new("logged-out", "the login that introduced this key has ended")
        .with_help("log in again: `ascribe login`")
}

/// Who signed a statement.
pub(super) fn signer(judge: &dyn Judge, signed: &Signed, say: &Say) -> Result<SshKey, Denied> {
    let key = judge.sshsig(&say.namespace(), signed.text.as_bytes(), &signed.sig.0);
    key.ok_or_else(|| Denied::new("signature", "the statement's signature does not verify"))
}

/// Refuses what is less than needed, and says how to reach it.
pub(super) fn need_assurance(needed: Option<u8>, level: u8, what: &str) -> Result<(), Denied> {
    if needed.is_none_or(|needed| level >= needed) {
        return Ok(());
    }
    let needed = needed.unwrap_or(0);
    let help = if needed > BOUND {
        "sign with an enrolled security key, which you touch: `ssh-keygen -t ed25519-sk`"
    } else {
        "use an enrolled key, or a login whose provider binds the session key: `ascribe login` without `--device`, a job's \
         token asked for with the audience that ascribe names"
    };
    Err(Denied::new(
        "assurance",
        format!("{what} assurance {needed}; this key has {level}"),
    )
    .with_help(help))
}

/// Levels that a target asks for can be reached.
pub(super) fn check_levels(target: &Target) -> Result<(), Denied> {
    // Plain SSH is not opened by a touch.
    let of_actors = if target.postgres.is_some() {
        TOUCHED
    } else {
        BOUND
    };
    for (who, level, most) in [
        ("sessions", target.actor_assurance, of_actors),
        ("approvals", target.approver_assurance, TOUCHED),
    ] {
        if level.is_some_and(|level| level > most) {
            let text = format!("{who} on this target reach assurance {most} at most");
            return Err(Denied::new("target", text));
        }
    }
    Ok(())
}
