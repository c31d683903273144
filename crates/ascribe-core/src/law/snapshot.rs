//! The state as bytes, so that a start need not replay everything first. Whoever reads it back must
//! know where the bytes come from: they are believed, not proven.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Ask, AskStatus, AuthorityState, DelegationState, DirectoryState, GrantState, LinkState,
    LoginState, OpenAction, Opener, Person, Place, ProviderState, SessionState, State, TargetState,
    Witnesses, WorkloadState, WriterState,
};
use crate::encoding::{self, EncodingError};
use crate::entry::Genesis;
use crate::id::{ActionId, ContentDigest, EntryId, GrantId, PersonId, SessionId, StatementId};
use crate::time::Timestamp;

/// Everything but the ids of entries, which follow as bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    origin: String,
    genesis: Cow<'a, Option<Genesis>>,
    size: u64,
    version: u8,
    last_at: Option<Timestamp>,
    law_head: Option<Place>,
    people: Cow<'a, BTreeMap<PersonId, Person>>,
    targets: Cow<'a, BTreeMap<String, TargetState>>,
    cas: Cow<'a, BTreeMap<String, AuthorityState>>,
    asks: Cow<'a, BTreeMap<StatementId, Ask>>,
    grants: Cow<'a, BTreeMap<GrantId, GrantState>>,
    sessions: Cow<'a, BTreeMap<SessionId, SessionState>>,
    delegations: Cow<'a, BTreeMap<StatementId, DelegationState>>,
    agents: Cow<'a, BTreeMap<String, StatementId>>,
    delegated: Cow<'a, BTreeMap<PersonId, BTreeSet<StatementId>>>,
    keys: Cow<'a, BTreeMap<String, PersonId>>,
    chosen: Vec<((PersonId, String, String), GrantId)>,
    openers: Cow<'a, BTreeMap<StatementId, Opener>>,
    open_actions: Cow<'a, BTreeMap<ActionId, OpenAction>>,
    statements: Cow<'a, BTreeSet<StatementId>>,
    writers: Cow<'a, BTreeMap<String, WriterState>>,
    revoked_keys: Cow<'a, BTreeSet<String>>,
    providers: Cow<'a, BTreeMap<String, ProviderState>>,
    links: Cow<'a, BTreeMap<String, BTreeMap<ContentDigest, LinkState>>>,
    workloads: Cow<'a, BTreeMap<PersonId, WorkloadState>>,
    logins: Cow<'a, BTreeMap<StatementId, Box<LoginState>>>,
    spent: Cow<'a, BTreeMap<ContentDigest, Timestamp>>,
    witnesses: Cow<'a, Witnesses>,
    directories: Cow<'a, BTreeMap<String, DirectoryState>>,
}

impl State {
    /// The state of a whole log. Equal states give equal bytes.
    ///
    /// # Errors
    /// When this is an excerpt, or a value has no canonical form.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, EncodingError> {
        let mut ids = vec![None; self.ids.len()];
        for (id, index) in &self.ids {
            let slot = usize::try_from(*index).ok().and_then(|i| ids.get_mut(i));
            *slot.ok_or(EncodingError::NotCanonical)? = Some(*id);
        }
        if self.excerpt.is_some() || ids.len() as u64 != self.size {
            return Err(EncodingError::NotCanonical);
        }
        // Every member is named, so that a new one is not forgotten here.
        let Self {
            origin,
            genesis,
            size,
            version,
            last_at,
            law_head,
            people,
            targets,
            cas,
            asks,
            grants,
            sessions,
            delegations,
            agents,
            delegated,
            keys,
            chosen,
            openers,
            open_actions,
            statements,
            ids: _,
            writers,
            excerpt: _,
            open_asks: _,
            awaited: _,
            live: _,
            revoked_keys,
            providers,
            links,
            workloads,
            logins,
            spent,
            directories,
            witnesses,
            spent_until: _,
            session_keys: _,
            live_logins: _,
            logins_of: _,
        } = self;
        let form = Form {
            origin: origin.clone(),
            genesis: Cow::Borrowed(genesis),
            size: *size,
            version: *version,
            last_at: *last_at,
            law_head: *law_head,
            people: Cow::Borrowed(people),
            targets: Cow::Borrowed(targets),
            cas: Cow::Borrowed(cas),
            asks: Cow::Borrowed(asks),
            grants: Cow::Borrowed(grants),
            sessions: Cow::Borrowed(sessions),
            delegations: Cow::Borrowed(delegations),
            agents: Cow::Borrowed(agents),
            delegated: Cow::Borrowed(delegated),
            keys: Cow::Borrowed(keys),
            chosen: chosen.clone().into_iter().collect(),
            openers: Cow::Borrowed(openers),
            open_actions: Cow::Borrowed(open_actions),
            statements: Cow::Borrowed(statements),
            writers: Cow::Borrowed(writers),
            revoked_keys: Cow::Borrowed(revoked_keys),
            providers: Cow::Borrowed(providers),
            links: Cow::Borrowed(links),
            workloads: Cow::Borrowed(workloads),
            logins: Cow::Borrowed(logins),
            spent: Cow::Borrowed(spent),
            witnesses: Cow::Borrowed(witnesses),
            directories: Cow::Borrowed(directories),
        };
        let text = encoding::encode(&form)?;
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.reserve(text.len() + ids.len() * 16);
        out.extend_from_slice(&text);
        for id in ids {
            out.extend_from_slice(id.ok_or(EncodingError::NotCanonical)?.bytes());
        }
        Ok(out)
    }

    /// Reads what [`State::to_snapshot`] wrote. Nothing when the bytes are something else.
    pub fn from_snapshot(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (text, rest) = rest.split_at_checked(len)?;
        let (ids, []) = rest.as_chunks::<16>() else {
            return None;
        };
        let form: Form<'_> = serde_json::from_slice(text).ok()?;
        if ids.len() as u64 != form.size {
            return None;
        }
        let ids = ids.iter().zip(0..);
        let mut state = Self {
            origin: form.origin,
            genesis: form.genesis.into_owned(),
            size: form.size,
            version: form.version,
            last_at: form.last_at,
            law_head: form.law_head,
            people: form.people.into_owned(),
            targets: form.targets.into_owned(),
            cas: form.cas.into_owned(),
            asks: form.asks.into_owned(),
            grants: form.grants.into_owned(),
            sessions: form.sessions.into_owned(),
            delegations: form.delegations.into_owned(),
            agents: form.agents.into_owned(),
            delegated: form.delegated.into_owned(),
            keys: form.keys.into_owned(),
            chosen: form.chosen.into_iter().collect(),
            openers: form.openers.into_owned(),
            open_actions: form.open_actions.into_owned(),
            statements: form.statements.into_owned(),
            ids: ids.map(|(id, index)| (EntryId::new(*id), index)).collect(),
            writers: form.writers.into_owned(),
            excerpt: None,
            open_asks: BTreeSet::new(),
            awaited: BTreeMap::new(),
            live: BTreeSet::new(),
            revoked_keys: form.revoked_keys.into_owned(),
            providers: form.providers.into_owned(),
            links: form.links.into_owned(),
            workloads: form.workloads.into_owned(),
            logins: form.logins.into_owned(),
            spent: form.spent.into_owned(),
            directories: form.directories.into_owned(),
            witnesses: form.witnesses.into_owned(),
            spent_until: BTreeSet::new(),
            session_keys: BTreeMap::new(),
            live_logins: BTreeSet::new(),
            logins_of: BTreeMap::new(),
        };
        state.find_logins();
        let live = state.sessions.iter().filter(|(_, s)| s.closed.is_none());
        state.live = live.map(|(id, _)| *id).collect();
        let open: Vec<(StatementId, Ask)> = state
            .asks
            .iter()
            .filter(|(_, ask)| ask.status == AskStatus::Open)
            .map(|(id, ask)| (*id, ask.clone()))
            .collect();
        for (id, ask) in open {
            state.remember(id, &ask);
        }
        Some(state)
    }
}
