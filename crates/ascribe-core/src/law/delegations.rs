//! Delegations to agents: who may hand on what, and whether a chain of them still holds.
//!
//! A chain begins with a person and each step only narrows it. Its agents sign with keys that are
//! nobody's else, and say little: what is here is all that an agent may say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::identities::BOUND;
use super::{Denied, Person, Place, State, databases, rules, view};
use crate::delegation::{Acceptance, Asserted, Delegation, DelegationRevoke, covers};
use crate::entry::{CloseReason, Intent, Refusal, SessionOpen};
use crate::id::{PersonId, StatementId};
use crate::record::AgentLogin;
use crate::statement::{Role, Say, SshKey, Statement};
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Most delegations of one person that hold at a time, those of their agents included.
const MAX_LIVE: usize = 64;
/// Most targets, and most kinds, of one delegation.
const MAX_LISTED: usize = 32;
/// Most steps that may follow the first.
const MAX_DEPTH: u8 = 8;
/// Most actions of one delegation.
const MAX_ACTIONS: u64 = 1_000_000;
/// Longest time, as of any target's windows.
const MAX_MS: i64 = 90 * 24 * 3_600_000;
/// Least visible characters of a task.
const MIN_TASK: u32 = 12;
/// Longest text that an agent says of itself, in bytes.
const MAX_ASSERTED: usize = 128;
/// What stands for several kinds of actions.
const CLASSES: [&str; 5] = ["ssh", "sftp", "scp", "forward", "pg"];

/// A delegation and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationState {
    /// The person at the head of its chain.
    pub person: PersonId,
    /// As delegated.
    pub delegation: Delegation,
    /// Fingerprint of the key that signed it.
    pub key: String,
    /// How strongly whoever signed it was proven: its agent is proven no more strongly.
    pub assurance: u8,
    /// Where.
    pub place: Place,
    /// That its agent took it.
    pub accepted: Option<Accepted>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Actions so far, those of the agent's own agents included.
    pub used: u64,
}

/// An agent took a delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What it says of itself.
    pub asserted: Asserted,
    /// When it was ordered.
    pub at: Timestamp,
    /// Where.
    pub place: Place,
}

/// A link of a chain, with its delegation's id.
pub type DelegationLink<'a> = (StatementId, &'a DelegationState);

impl DelegationState {
    fn left(&self) -> u64 {
        self.delegation.actions.saturating_sub(self.used)
    }
}

fn outside(text: impl Into<String>) -> Denied {
    Denied::new("outside-delegation", text)
}

fn is_within<T: PartialEq>(few: &[T], many: impl Fn(&T) -> bool) -> bool {
    few.iter().all(many)
}

fn is_kind(kind: &str) -> bool {
    CLASSES.contains(&kind)
        || view::KINDS.contains(&kind)
        || databases::KINDS.contains(&kind)
        || view::is_part(kind)
}

impl State {
    pub(super) fn delegation(&self, id: StatementId) -> Result<&DelegationState, Denied> {
        self.delegations.get(&id).ok_or_else(|| {
            Denied::new("no-delegation", format!("no delegation has the id `{id}`"))
                .with_help("`ascribe delegations` lists them")
        })
    }

    /// A delegation and all above it, the person's own first.
    pub fn delegation_chain(&self, id: StatementId) -> Vec<DelegationLink<'_>> {
        let find = |id: StatementId| Some((id, self.delegations.get(&id)?));
        // A parent was there before its child: this comes to an end.
        let chain = std::iter::successors(find(id), |(_, link)| find(link.delegation.parent?));
        let mut chain: Vec<_> = chain.collect();
        chain.reverse();
        chain
    }

    /// Why a delegation does not hold at this moment, if it does not: itself, or one above it.
    pub fn delegation_ended(&self, id: StatementId, at: Timestamp) -> Option<CloseReason> {
        let chain = self.delegation_chain(id);
        let signs = |(_, head): &DelegationLink<'_>| self.still_signs(head);
        if !chain.first().is_some_and(signs) || chain.iter().any(|(_, l)| l.revoked.is_some()) {
            Some(CloseReason::Revoked)
        } else if self.until(&chain).is_none_or(|until| at >= until) {
            Some(CloseReason::Expired)
        } else {
            None
        }
    }

    /// Does a delegation hold at this moment, itself and all above it? As [`State::delegation_ended`], for many:
    /// `above` remembers what was found of those that handed something on, for most have siblings.
    pub(super) fn holds(
        &self,
        id: StatementId,
        at: Timestamp,
        above: &mut BTreeMap<StatementId, bool>,
    ) -> bool {
        let Some(state) = self.delegations.get(&id) else {
            return false;
        };
        if state.revoked.is_some() || at >= state.delegation.until {
            return false;
        }
        let parent = state.delegation.parent;
        if let Some(known) = parent.and_then(|parent| above.get(&parent)) {
            return *known;
        }
        let Some(parent) = parent.filter(|parent| self.delegations.contains_key(parent)) else {
            let login = self.login_of_key(&state.key);
            return login.is_none_or(|login| at < login.login.until) && self.still_signs(state);
        };
        // A parent was there before its child: this comes to an end.
        let holds = self.holds(parent, at, above);
        above.insert(parent, holds);
        holds
    }

    /// Is the key that signed a chain's head still its person's, its login's end apart? One that was
    /// taken away leaves no agents behind.
    fn still_signs(&self, head: &DelegationState) -> bool {
        let person = self.people.get(&head.person);
        let enrolled = |person: &Person| person.keys.contains_key(&head.key);
        let logged_in = || self.login_of_key(&head.key).is_some_and(|l| !l.was_cut());
        !self.has_left(head.person) && (person.is_some_and(enrolled) || logged_in())
    }

    fn check_holds(&self, id: StatementId, at: Timestamp) -> Result<(), Denied> {
        match self.delegation_ended(id, at) {
            None => Ok(()),
            Some(CloseReason::Expired) => Err(Denied::new(
                "expired",
                "the delegation, or one above it, has ended",
            )),
            Some(_) => Err(Denied::new(
                "revoked",
                "the delegation, or one above it, was revoked",
            )),
        }
    }

    /// First instant at which a chain that holds now holds no longer: a session key's ends with its
    /// login.
    pub fn delegated_until(&self, id: StatementId) -> Option<Timestamp> {
        self.until(&self.delegation_chain(id))
    }

    fn until(&self, chain: &[DelegationLink<'_>]) -> Option<Timestamp> {
        let login = chain.first().and_then(|(_, l)| self.login_of_key(&l.key));
        let login = login.map(|login| login.login.until);
        let links = chain.iter().map(|(_, link)| link.delegation.until);
        links.chain(login).min()
    }

    /// Ends what somebody delegated, for good.
    pub(super) fn end_delegations(&mut self, person: PersonId, at: Timestamp) {
        for id in self.delegated.get(&person).into_iter().flatten() {
            if let Some(state) = self.delegations.get_mut(id) {
                state.revoked.get_or_insert(at);
            }
        }
    }

    /// Whose agent's key is this, as long as its delegation holds?
    pub fn agent_by_key(&self, at: Timestamp, fingerprint: &str) -> Option<AgentLogin> {
        let delegation = *self.agents.get(fingerprint)?;
        self.check_holds(delegation, at).ok()?;
        Some(AgentLogin {
            person: self.delegations.get(&delegation)?.person,
            delegation,
            until: self.delegated_until(delegation)?,
        })
    }

    /// Delegations that name this key: the one it took, and those that it may take.
    pub fn delegations_to<'a>(
        &'a self,
        key: &'a SshKey,
    ) -> impl Iterator<Item = DelegationLink<'a>> {
        let all = self.delegated.values().flatten();
        let all = all.filter_map(|id| Some((*id, self.delegations.get(id)?)));
        all.filter(move |(_, state)| state.delegation.key == *key)
    }

    /// The delegation whose agent signed this, where no key of the person did. An agent hands on and
    /// gives back what it has, and opens sessions; it says nothing else.
    pub(super) fn check_agent_signature(
        &self,
        at: Timestamp,
        statement: &Statement,
        (key, fingerprint): (&SshKey, &str),
    ) -> Result<StatementId, Denied> {
        let stranger = || {
            Denied::new(
                "key",
                "the statement is signed by a key that is not its author's",
            )
        };
        let id = match &statement.say {
            Say::Acceptance(acceptance) => acceptance.of,
            _ => *self.agents.get(fingerprint).ok_or_else(stranger)?,
        };
        let state = self.delegation(id)?;
        if state.delegation.key != *key || state.person != statement.by {
            return Err(stranger());
        }
        let may = matches!(
            &statement.say,
            Say::Acceptance(_) | Say::Delegation(_) | Say::DelegationRevoke(_) | Say::Connect(_)
        );
        if !may {
            return Err(
                Denied::new("agent", "an agent does not ask, answer, administer or read")
                    .with_help("the person whose agent it is does this with their own key"),
            );
        }
        self.check_holds(id, at)?;
        Ok(id)
    }

    /// `agent` is the delegation whose agent signed, where it was not the person.
    pub(super) fn take_delegation(
        &mut self,
        statement: &Statement,
        at: Timestamp,
        fingerprint: &str,
        agent: Option<StatementId>,
        place: Place,
    ) -> Result<(), Denied> {
        let (person, id) = (statement.by, statement.id);
        let Say::Delegation(delegation) = &statement.say else {
            return Err(Denied::new("internal", "not a delegation"));
        };
        self.check_delegation(at, delegation)?;
        if delegation.parent != agent {
            return Err(Denied::new(
                "delegation",
                "a person delegates by themself, an agent what was delegated to it",
            ));
        }
        let assurance = match agent {
            Some(parent) => {
                self.check_narrows(parent, delegation)?;
                self.delegation(parent)?.assurance
            }
            // Nobody touches anything when an agent acts.
            None => self.assurance(fingerprint).min(BOUND),
        };
        let (mut live, mut over, mut above) = (0, Vec::new(), BTreeMap::new());
        for known in self.delegated.get(&person).into_iter().flatten() {
            if self.holds(*known, at, &mut above) {
                live += 1;
            } else {
                over.push(*known);
            }
        }
        if live >= MAX_LIVE {
            return Err(Denied::new(
                "too-many",
                format!("a person has at most {MAX_LIVE} delegations at a time"),
            )
            .with_help("end one: `ascribe delegate revoke`"));
        }
        let known = self.delegated.entry(person).or_default();
        for id in over {
            known.remove(&id);
        }
        known.insert(id);
        let state = DelegationState {
            person,
            delegation: delegation.clone(),
            key: fingerprint.to_owned(),
            assurance,
            place,
            accepted: None,
            revoked: None,
            used: 0,
        };
        self.delegations.insert(id, state);
        Ok(())
    }

    fn check_delegation(&self, at: Timestamp, delegation: &Delegation) -> Result<(), Denied> {
        let refuse = |text: String| Err(Denied::new("delegation", text));
        let Delegation {
            actions,
            agent,
            depth,
            key,
            kinds,
            parent: _,
            targets,
            task,
            until,
        } = delegation;
        if !rules::is_name(agent) {
            return refuse(
                "an agent's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`".to_owned(),
            );
        }
        if !(1..=MAX_ACTIONS).contains(actions) || *depth > MAX_DEPTH {
            return refuse(format!(
                "a delegation is for 1 to {MAX_ACTIONS} actions and at most {MAX_DEPTH} further steps"
            ));
        }
        if *until <= at || until.since(at) > MAX_MS {
            return refuse("a delegation ends within the next 90 days".to_owned());
        }
        for list in [targets, kinds] {
            let distinct: BTreeSet<&String> = list.iter().collect();
            if list.is_empty() || list.len() > MAX_LISTED || distinct.len() < list.len() {
                return refuse(format!(
                    "a delegation names 1 to {MAX_LISTED} targets and kinds of actions, none twice"
                ));
            }
        }
        for target in targets {
            self.target(target)?;
        }
        if let Some(other) = kinds.iter().find(|kind| !is_kind(kind)) {
            let shown = crate::text::clean(other, 40);
            return Err(
                Denied::new("delegation", format!("`{shown}` is no kind of action")).with_help(
                    format!(
                        "name kinds such as `ssh.exec`, or a class: {}",
                        CLASSES.join(", ")
                    ),
                ),
            );
        }
        self.check_new_key(key)?;
        rules::check_prose(task, MIN_TASK, "task")
    }

    /// Is this no more than what was delegated to the agent that hands it on?
    fn check_narrows(&self, parent: StatementId, child: &Delegation) -> Result<(), Denied> {
        let wider = |what: &str| {
            Err(Denied::new(
                "wider",
                format!("an agent hands on no more {what} than it has"),
            ))
        };
        let chain = self.delegation_chain(parent);
        // Records would show two actors alike.
        if chain.iter().any(|(_, l)| l.delegation.agent == child.agent) {
            return Err(Denied::new(
                "delegation",
                "an agent above it has this name already",
            ));
        }
        for (_, link) in &chain {
            let above = &link.delegation;
            if child.depth >= above.depth {
                return wider("steps");
            }
            if !is_within(&child.targets, |target| above.targets.contains(target)) {
                return wider("targets");
            }
            if !is_within(&child.kinds, |kind| covers(&above.kinds, kind)) {
                return wider("kinds of actions");
            }
            if child.until > above.until {
                return wider("time");
            }
            if child.actions > link.left() {
                return wider("actions");
            }
        }
        Ok(())
    }

    pub(super) fn take_acceptance(
        &mut self,
        acceptance: &Acceptance,
        at: Timestamp,
        agent: Option<StatementId>,
        place: Place,
    ) -> Result<(), Denied> {
        // Its signature was checked against the key of the delegation that it names.
        if agent != Some(acceptance.of) {
            return Err(Denied::new(
                "key",
                "a delegation is accepted with the agent's own key",
            ));
        }
        let state = self.delegation(acceptance.of)?;
        if state.place.hash != acceptance.entry {
            return Err(Denied::new(
                "links",
                "the acceptance names another entry than the one it is about",
            ));
        }
        if state.accepted.is_some() {
            return Err(Denied::new("settled", "the delegation was accepted before"));
        }
        // Since it was delegated, the key may have become somebody's.
        self.check_new_key(&state.delegation.key)?;
        let is_line =
            |text: &str| (1..=MAX_ASSERTED).contains(&text.len()) && !text.chars().any(is_unsafe);
        if !acceptance.asserted.texts().all(is_line) {
            return Err(Denied::new(
                "asserted",
                format!("what an agent says of itself is a line of 1 to {MAX_ASSERTED} bytes each"),
            ));
        }
        let key = state.delegation.key.fingerprint();
        if let Some(state) = self.delegations.get_mut(&acceptance.of) {
            state.accepted = Some(Accepted {
                asserted: acceptance.asserted.clone(),
                at,
                place,
            });
        }
        self.agents.insert(key, acceptance.of);
        Ok(())
    }

    pub(super) fn take_delegation_revoke(
        &mut self,
        by: PersonId,
        at: Timestamp,
        revoke: &DelegationRevoke,
        agent: Option<StatementId>,
    ) -> Result<(), Denied> {
        let state = self.delegation(revoke.delegation)?;
        let may = match agent {
            // Its own, or one below.
            Some(agent) => {
                let chain = self.delegation_chain(revoke.delegation);
                chain.iter().any(|(id, _)| *id == agent)
            }
            None => state.person == by || self.person(by)?.may(Role::Admin),
        };
        if !may {
            return Err(Denied::new(
                "role",
                "a delegation is ended by its person, its agent, one above it, or an admin",
            ));
        }
        if state.revoked.is_some() {
            return Err(Denied::new("settled", "the delegation was revoked before"));
        }
        rules::check_reason(&revoke.reason)?;
        if let Some(state) = self.delegations.get_mut(&revoke.delegation) {
            state.revoked = Some(at);
        }
        Ok(())
    }

    /// Where an agent took its delegation.
    pub(super) fn acceptance_place(&self, id: StatementId) -> Result<Place, Denied> {
        let accepted = self.delegation(id)?.accepted.as_ref();
        accepted.map(|accepted| accepted.place).ok_or_else(|| {
            Denied::new("not-accepted", "the agent has not accepted the delegation").with_help(
                format!("the agent does, with its own key: `ascribe delegate accept {id}`"),
            )
        })
    }

    /// May this delegation's agent open this session?
    pub(super) fn check_agent_open(
        &self,
        open: &SessionOpen,
        id: StatementId,
        at: Timestamp,
    ) -> Result<(), Denied> {
        let state = self.delegation(id)?;
        self.acceptance_place(id)?;
        let own = state.person == open.person && state.delegation.key.fingerprint() == open.key;
        if !own || open.certificate.is_some() || open.login.is_some() {
            return Err(Denied::new("key", "the login key is not that agent's"));
        }
        self.check_holds(id, at)?;
        for (_, link) in self.delegation_chain(id) {
            if !link.delegation.targets.contains(&open.target) {
                return Err(outside("the delegation is not for this target"));
            }
            check_budget(link)?;
        }
        Ok(())
    }

    /// Is this what every delegation of the session's chain allows?
    pub(super) fn check_delegated(&self, intent: &Intent) -> Result<(), Denied> {
        let Some(id) = self.session(intent.session)?.open.delegation else {
            return Ok(());
        };
        let lent = intent.lends.iter();
        let mut kinds: Vec<String> = lent.map(|what| format!("ssh.forward.{what}")).collect();
        kinds.push(intent.kind.clone());
        for (_, link) in self.delegation_chain(id) {
            let other = kinds.iter().find(|k| !covers(&link.delegation.kinds, k));
            if let Some(kind) = other {
                return Err(outside(format!("the delegation is not for `{kind}`")));
            }
            if intent.within.is_none() {
                check_budget(link)?;
            }
        }
        Ok(())
    }

    /// Counts an action against every budget above its agent.
    pub(super) fn count_delegated(&mut self, intent: &Intent) {
        let session = self.sessions.get(&intent.session);
        let mut next = session.and_then(|session| session.open.delegation);
        if intent.within.is_some() {
            return;
        }
        while let Some(state) = next.and_then(|id| self.delegations.get_mut(&id)) {
            state.used += 1;
            next = state.delegation.parent;
        }
    }

    pub(super) fn check_refusal(&self, refusal: &Refusal) -> Result<(), Denied> {
        self.check_actor(refusal.person)?;
        match refusal.delegation {
            Some(id) if self.delegation(id)?.person != refusal.person => Err(Denied::new(
                "links",
                "the refused agent is another person's",
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn check_budget(link: &DelegationState) -> Result<(), Denied> {
    if link.left() > 0 {
        return Ok(());
    }
    let Delegation { actions, agent, .. } = &link.delegation;
    Err(Denied::new(
        "budget",
        format!("all {actions} actions that were delegated to `{agent}` are used"),
    )
    .with_help("whoever delegated them may delegate anew: `ascribe delegate`"))
}
