//! What people sign about sessions: opening them, ending them, reading and watching them.

use super::identities::{BOUND, need_assurance};
use super::{Asked, Denied, Opener, Place, SIGNER_SKEW_MS, State, rules};
use crate::entry::SessionOpen;
use crate::id::{PersonId, SessionId};
use crate::statement::{Connect, Read, Role, SshKey, Termination, View};
use crate::time::Timestamp;

/// Most signed openings of one person that wait for their session.
const MAX_OPENERS: usize = 256;

/// Does a signed opening of that time still open a session?
pub(super) fn is_fresh(now: Timestamp, opened: Timestamp) -> bool {
    now.since(opened) <= SIGNER_SKEW_MS
}

impl State {
    pub(super) fn take_termination(
        &mut self,
        by: PersonId,
        at: Timestamp,
        termination: &Termination,
    ) -> Result<(), Denied> {
        let session = self.session(termination.session)?;
        let person = self.person(by)?;
        let own = self.answers_for(session.open.person) == Some(by);
        if !own && !person.may(Role::Approver) && !person.may(Role::Admin) {
            return Err(Denied::new(
                "role",
                "a session is ended by its actor, an approver or an admin",
            ));
        }
        if session.closed.is_some() || session.terminated.is_some() {
            return Err(Denied::new("settled", "the session has ended already"));
        }
        rules::check_reason(&termination.reason)?;
        if let Some(session) = self.sessions.get_mut(&termination.session) {
            session.terminated = Some(at);
        }
        Ok(())
    }

    pub(super) fn check_connect(
        &self,
        by: PersonId,
        at: Timestamp,
        connect: &Connect,
        key: String,
        place: Place,
    ) -> Result<Opener, Denied> {
        let target = &self.target(&connect.target)?.target;
        rules::check_account(target, &connect.account)?;
        // An agent that opens too often does not shut out its person.
        let is_agents = |key: &str| self.agents.contains_key(key);
        let agent = is_agents(&key);
        let waiting = self
            .openers
            .values()
            .filter(|o| o.by == by && is_agents(&o.key) == agent && is_fresh(at, o.at));
        if waiting.count() >= MAX_OPENERS {
            return Err(Denied::new(
                "too-many",
                "too many of your signed openings wait for their session",
            )
            .with_help("try again in five minutes"));
        }
        Ok(Opener {
            by,
            at,
            key,
            connect: connect.clone(),
            place,
        })
    }

    /// What others did is not shown to whoever could get a code confirmed on another device.
    pub(super) fn check_read_key(
        &self,
        by: PersonId,
        key: &SshKey,
        read: &Read,
    ) -> Result<(), Denied> {
        let asked = read.request.and_then(|id| self.asks.get(&id));
        let session = read.session.and_then(|id| self.sessions.get(&id));
        let own = match read.view {
            View::Registry => true,
            View::Request => asked.is_some_and(|ask| ask.by == by),
            View::Actions | View::Replay | View::Export | View::Watch => {
                session.is_some_and(|session| session.open.person == by)
            }
        };
        let needed = (!own).then_some(BOUND);
        let level = self.assurance(&key.fingerprint());
        need_assurance(needed, level, "reading what others did needs")
    }

    pub(super) fn take_read(&mut self, by: PersonId, read: &Read) -> Result<(), Denied> {
        self.check_read(by, read)?;
        let watched = read.session.filter(|_| read.view == View::Watch);
        if let Some(session) = watched.and_then(|id| self.sessions.get_mut(&id))
            && !session.watchers.contains(&by)
        {
            session.watchers.push(by);
        }
        Ok(())
    }

    /// May this person look on while the session runs? Auditors, its actor, and whoever said yes to
    /// its grant.
    pub fn may_watch(&self, by: PersonId, session: SessionId) -> bool {
        let grant = |open: &SessionOpen| self.grants.get(&open.grant);
        match (self.people.get(&by), self.sessions.get(&session)) {
            (Some(person), Some(state)) if !person.is_away() => {
                let approved = grant(&state.open)
                    .is_some_and(|grant| grant.approvals.iter().any(|a| a.by == by));
                person.may(Role::Auditor)
                    || state.open.person == by
                    || (approved && person.may(Role::Approver))
            }
            _ => false,
        }
    }

    fn check_read(&self, by: PersonId, read: &Read) -> Result<(), Denied> {
        let may = |role| self.people.get(&by).is_some_and(|person| person.may(role));
        let own = |session: SessionId| {
            self.sessions
                .get(&session)
                .is_some_and(|s| s.open.person == by)
        };
        let allowed = match read.view {
            View::Registry => true,
            View::Request => {
                let ask = read.request.and_then(|id| self.asks.get(&id));
                let proposal = ask.is_some_and(|ask| matches!(ask.asked, Asked::Proposal(_)));
                ask.is_some_and(|ask| ask.by == by)
                    || may(Role::Approver)
                    || may(Role::Auditor)
                    || (proposal && may(Role::Admin))
            }
            View::Actions | View::Replay | View::Export => {
                may(Role::Auditor) || read.session.is_some_and(own)
            }
            View::Watch => {
                let session = read
                    .session
                    .ok_or_else(|| Denied::new("no-session", "whoever watches names a session"))?;
                if self.session(session)?.closed.is_some() {
                    return Err(Denied::new("closed", "the session has ended")
                        .with_help(format!("look back with `ascribe replay {session}`")));
                }
                self.may_watch(by, session)
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(Denied::new(
                "role",
                "sealed content is read by auditors, and by actors of their own sessions",
            )
            .with_help("name one of your own sessions, or ask an auditor"))
        }
    }
}
