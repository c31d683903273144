//! Yes and no to what was asked: who may give them, and what a yes that completes a quorum does.

use super::identities::{BOUND, need_assurance};
use super::{Approval, Ask, AskStatus, Asked, Denied, MANAGERS, Place, State};
use crate::id::{PersonId, StatementId};
use crate::statement::{Answer, Role, Say, SshKey, Target};
use crate::time::Timestamp;

impl State {
    fn open_ask(&self, answer: &Answer) -> Result<&Ask, Denied> {
        let ask = self.ask(answer.of)?;
        if ask.place.hash != answer.entry {
            return Err(Denied::new(
                "links",
                "the answer names another entry than the one it is about",
            ));
        }
        if matches!(ask.asked, Asked::Emergency(_)) {
            return Err(Denied::new(
                "break-glass",
                "break-glass is reviewed, not approved",
            ));
        }
        match ask.status {
            AskStatus::Open => Ok(ask),
            AskStatus::Granted => Err(Denied::new("settled", "this was granted already")),
            AskStatus::Denied => Err(Denied::new("settled", "this was denied")),
            AskStatus::Cancelled => Err(Denied::new("settled", "this was withdrawn")),
        }
    }

    fn check_answerer(&self, by: PersonId, ask: &Ask) -> Result<(), Denied> {
        if ask.by == by || self.beneficiary(ask) == Some(by) {
            return Err(
                Denied::new("self-approval", "nobody answers their own request")
                    .with_help("somebody else has to; `ascribe can` lists who may"),
            );
        }
        self.need(
            by,
            if matches!(ask.asked, Asked::Proposal(_)) {
                Role::Admin
            } else {
                Role::Approver
            },
        )
    }

    fn beneficiary(&self, ask: &Ask) -> Option<PersonId> {
        match &ask.asked {
            Asked::Extension(extension) => {
                self.grants.get(&extension.grant).map(|g| g.grant.person)
            }
            Asked::Proposal(Say::KeyAdd(key)) => Some(key.person),
            Asked::Proposal(Say::IdentityLink(link)) => Some(link.person),
            Asked::Request(_) | Asked::Emergency(_) | Asked::Proposal(_) => None,
        }
    }

    pub(super) fn take_approval(
        &mut self,
        (by, key): (PersonId, &SshKey),
        at: Timestamp,
        answer: &Answer,
        place: Place,
    ) -> Result<(), Denied> {
        let ask = self.open_ask(answer)?;
        self.check_answerer(by, ask)?;
        self.check_approver_key(ask, key)?;
        if !self.may_still_approve(by, ask) {
            return Err(Denied::new("duplicate", "you approved this before")
                .with_help("`ascribe requests` says whose approval it waits for"));
        }
        if self.person(ask.by)?.is_away() {
            return Err(Denied::new("left", "whoever asked for this has left"));
        }
        self.check_still_owned(ask)?;
        if let Some(target) = self.target_of(ask)? {
            self.check_system_owner(target)?;
        }
        let late = match &ask.asked {
            Asked::Request(request) => at >= request.not_after,
            Asked::Extension(extension) => {
                let state = self.grant(extension.grant)?;
                let end = state.grant.not_after;
                // Another extension may have gone further: this one would shorten the grant.
                state.revoked.is_some() || at >= end || extension.not_after <= end
            }
            Asked::Emergency(_) | Asked::Proposal(_) => false,
        };
        if late {
            return Err(Denied::new(
                "window",
                "what was asked for has ended already",
            ));
        }
        let manager = self.as_manager(by, ask)?;
        let mut groups = match &ask.asked {
            Asked::Proposal(_) => Vec::new(),
            Asked::Request(_) | Asked::Extension(_) | Asked::Emergency(_) => {
                self.role_words(by, Role::Approver)
            }
        };
        let group = self.check_approver_group(by, ask)?;
        groups.extend(group.filter(|place| !groups.contains(place)));
        let mut carried = ask.clone();
        // Of two of the same person the second counts.
        carried.approvals.retain(|approval| approval.by != by);
        carried.approvals.push(Approval {
            by,
            at,
            key: key.fingerprint(),
            place,
            manager,
            groups,
        });
        if let Asked::Proposal(say) = &carried.asked
            && self.is_carried(&carried)
        {
            let say = say.clone();
            self.check_change(&say)?;
            if !self.waits_for_witnesses(answer.of, &say, place) {
                self.take_change(&say, at, place);
                carried.status = AskStatus::Granted;
            }
        }
        if carried.status != AskStatus::Open {
            self.forget(answer.of);
        }
        self.asks.insert(answer.of, carried);
        Ok(())
    }

    /// Has this person not said yes yet, or may they once more? Whoever is the manager of whoever asked may, and was not when they
    /// said it; and where nothing lacks any more since a manager or the target's rules changed, everybody may, so that it carries.
    pub(super) fn may_still_approve(&self, by: PersonId, ask: &Ask) -> bool {
        let Some(own) = ask.approvals.iter().find(|own| own.by == by) else {
            return true;
        };
        if self.version < MANAGERS || matches!(ask.asked, Asked::Proposal(_)) {
            return false;
        }
        let as_manager = self.as_manager(by, ask).is_ok_and(|place| place.is_some());
        (as_manager && own.manager.is_none()) || self.is_carried(ask)
    }

    /// The rules of the target that a request or an extension is about.
    ///
    /// # Errors
    /// When there is no such target or grant.
    pub fn target_of(&self, ask: &Ask) -> Result<Option<&Target>, Denied> {
        let name = match &ask.asked {
            Asked::Request(request) => &request.target,
            Asked::Extension(extension) => &self.grant(extension.grant)?.grant.target,
            Asked::Proposal(_) | Asked::Emergency(_) => return Ok(None),
        };
        Ok(Some(&self.target(name)?.target))
    }

    /// Is the approver's key strong enough for what is asked?
    fn check_approver_key(&self, ask: &Ask, key: &SshKey) -> Result<(), Denied> {
        if matches!(ask.asked, Asked::Proposal(_)) {
            return self.check_carries_law(key);
        }
        match self.target_of(ask)? {
            Some(target) => self.check_gives(&target.name, key),
            None => Ok(()),
        }
    }

    /// Is this key strong enough to give access to the target? Where that says nothing else, whoever
    /// could get a code confirmed on another device must not be able to.
    pub(super) fn check_gives(&self, target: &str, key: &SshKey) -> Result<(), Denied> {
        let target = &self.target(target)?.target;
        let needed = target.approver_assurance.unwrap_or(BOUND);
        let level = self.assurance(&key.fingerprint());
        need_assurance(
            Some(needed),
            level,
            "approvals and break-glass for this target need",
        )
    }

    /// Does whoever asked for a workload still answer for it?
    fn check_still_owned(&self, ask: &Ask) -> Result<(), Denied> {
        match &ask.asked {
            Asked::Request(request) => self.check_beneficiary(ask.by, request.beneficiary),
            Asked::Extension(extension) => {
                let holder = self.grant(extension.grant)?.grant.person;
                self.check_beneficiary(ask.by, Some(holder).filter(|id| *id != ask.by))
            }
            Asked::Emergency(_) | Asked::Proposal(_) => Ok(()),
        }
    }

    pub(super) fn take_denial(&mut self, by: PersonId, answer: &Answer) -> Result<(), Denied> {
        let ask = self.open_ask(answer)?;
        self.check_answerer(by, ask)?;
        self.settle(answer.of, AskStatus::Denied);
        Ok(())
    }

    pub(super) fn take_cancellation(
        &mut self,
        by: PersonId,
        answer: &Answer,
    ) -> Result<(), Denied> {
        if self.open_ask(answer)?.by != by {
            return Err(Denied::new("not-yours", "only who asked withdraws")
                .with_help("say no with `ascribe deny`"));
        }
        self.settle(answer.of, AskStatus::Cancelled);
        Ok(())
    }

    pub(super) fn settle(&mut self, ask: StatementId, status: AskStatus) {
        self.forget(ask);
        if let Some(ask) = self.asks.get_mut(&ask) {
            ask.status = status;
        }
    }
}
