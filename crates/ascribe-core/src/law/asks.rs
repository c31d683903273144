//! What people ask for, and what becomes of a grant: requests, extensions, emergencies, and then
//! revocations, reviews and the choice among several.

use super::{Ask, AskStatus, Asked, BREAK_GLASS_MS, Denied, JOBS, Place, State, rules};
use crate::id::{PersonId, StatementId};
use crate::statement::{BreakGlass, Extension, Request, Review, Revocation, Role, SshKey};
use crate::time::Timestamp;

impl State {
    pub(super) fn put_ask(
        &mut self,
        (id, by, key): (StatementId, PersonId, &SshKey),
        at: Timestamp,
        asked: Asked,
        place: Place,
    ) {
        let groups = match asked {
            Asked::Request(_) => self.role_words(by, Role::Requester),
            Asked::Extension(_) | Asked::Emergency(_) | Asked::Proposal(_) => Vec::new(),
        };
        let ask = Ask {
            by,
            at,
            key: key.fingerprint(),
            asked,
            place,
            groups,
            approvals: Vec::new(),
            status: AskStatus::Open,
        };
        self.remember(id, &ask);
        self.asks.insert(id, ask);
    }

    /// Puts an open ask where it is found again.
    pub(super) fn remember(&mut self, id: StatementId, ask: &Ask) {
        self.open_asks.insert(id);
        if matches!(ask.asked, Asked::Request(_) | Asked::Emergency(_)) {
            let grant = self.grant_id(id);
            self.awaited.insert(grant, id);
        }
    }

    pub(super) fn forget(&mut self, id: StatementId) {
        self.open_asks.remove(&id);
        let grant = self.grant_id(id);
        self.awaited.remove(&grant);
    }

    /// Asks that wait for something.
    pub(super) fn open_asks(&self) -> impl Iterator<Item = (StatementId, &Ask)> {
        let open = self.open_asks.iter();
        open.filter_map(|id| Some((*id, self.asks.get(id)?)))
    }

    pub(super) fn check_request(
        &self,
        by: PersonId,
        at: Timestamp,
        request: &Request,
    ) -> Result<(), Denied> {
        self.need(by, Role::Requester)?;
        let target = &self.target(&request.target)?.target;
        rules::check_account(target, &request.account)?;
        match &request.recurrence {
            None => rules::check_window(target, request.not_before, request.not_after, at)?,
            Some(windows) => rules::check_recurrence(target, request, windows, at)?,
        }
        self.check_system_owner(target)?;
        self.check_beneficiary(by, request.beneficiary)?;
        self.check_manager(by, target)?;
        rules::check_ticket(target, request.ticket.as_ref())?;
        rules::check_forwards(&request.forwards)?;
        super::databases::check_scope(target, request)?;
        self.check_job_owner(by, target, request.sql.as_ref())?;
        rules::check_prose(
            &request.justification,
            target.min_justification,
            "justification",
        )
    }

    pub(super) fn check_extension(
        &self,
        by: PersonId,
        at: Timestamp,
        extension: &Extension,
    ) -> Result<(), Denied> {
        let state = self.grant(extension.grant)?;
        let grant = &state.grant;
        if self.answers_for(grant.person) != Some(by) {
            return Err(Denied::new(
                "not-yours",
                "only the grant's holder asks for its extension",
            ));
        }
        if grant.break_glass {
            return Err(
                Denied::new("break-glass", "a break-glass grant is not extended")
                    .with_help("ask for an ordinary grant with `ascribe request`"),
            );
        }
        if !grant.windows.is_empty() {
            return Err(
                Denied::new("windows", "a grant with windows is not extended")
                    .with_help("ask for a new one with `ascribe request --windows`"),
            );
        }
        if state.revoked.is_some() || at >= grant.not_after {
            return Err(Denied::new("ended", "the grant has ended")
                .with_help("ask for a new one with `ascribe request`"));
        }
        if extension.not_after <= grant.not_after {
            return Err(Denied::new(
                "window",
                "the new end is not later than the present one",
            ));
        }
        let target = &self.target(&grant.target)?.target;
        self.check_system_owner(target)?;
        self.check_manager(by, target)?;
        if self.version >= JOBS {
            self.check_job_owner(by, target, grant.sql.as_ref())?;
        }
        rules::check_window(target, grant.not_before, extension.not_after, at)?;
        rules::check_prose(
            &extension.justification,
            target.min_justification,
            "justification",
        )
    }

    pub(super) fn check_break_glass(
        &self,
        by: PersonId,
        at: Timestamp,
        emergency: &BreakGlass,
    ) -> Result<(), Denied> {
        let target = &self.target(&emergency.target)?.target;
        rules::check_account(target, &emergency.account)?;
        if !target.break_glass.contains(&by) {
            return Err(Denied::new(
                "break-glass",
                "you are not named for break-glass on this target",
            )
            .with_help("ask for a grant with `ascribe request`"));
        }
        self.check_system_owner(target)?;
        if emergency.not_after <= at || emergency.not_after.since(at) > BREAK_GLASS_MS {
            return Err(Denied::new(
                "window",
                "break-glass lasts at most one hour from now",
            ));
        }
        let overdue = self.grants.iter().find(|(_, g)| {
            g.grant.person == by
                && g.reviewed.is_none()
                && g.review_due.is_some_and(|due| at >= due)
        });
        if let Some((id, _)) = overdue {
            return Err(Denied::new(
                "review-overdue",
                format!("the review of your break-glass grant `{id}` is overdue"),
            )
            .with_help(format!(
                "somebody else closes it with `ascribe review {id}`"
            )));
        }
        rules::check_ticket(target, emergency.ticket.as_ref())?;
        rules::check_prose(&emergency.emergency, target.min_justification, "emergency")
    }

    pub(super) fn take_revocation(
        &mut self,
        by: PersonId,
        at: Timestamp,
        revocation: &Revocation,
    ) -> Result<(), Denied> {
        let state = self.grant(revocation.grant)?;
        let person = self.person(by)?;
        let own = self.answers_for(state.grant.person) == Some(by);
        if !own && !person.may(Role::Approver) && !person.may(Role::Admin) {
            return Err(Denied::new(
                "role",
                "a grant is revoked by its holder, an approver or an admin",
            ));
        }
        if state.revoked.is_some() {
            return Err(Denied::new("settled", "the grant was revoked before"));
        }
        if let Some(state) = self.grants.get_mut(&revocation.grant) {
            state.revoked = Some(at);
        }
        Ok(())
    }

    pub(super) fn take_review(
        &mut self,
        by: PersonId,
        at: Timestamp,
        review: &Review,
    ) -> Result<(), Denied> {
        let state = self.grant(review.grant)?;
        if state.review_due.is_none() || state.reviewed.is_some() {
            return Err(Denied::new("settled", "this grant has no open review"));
        }
        if state.grant.person == by {
            return Err(Denied::new(
                "self-approval",
                "nobody reviews their own break-glass grant",
            ));
        }
        let person = self.person(by)?;
        if ![Role::Approver, Role::Auditor, Role::Admin]
            .iter()
            .any(|role| person.may(*role))
        {
            return Err(Denied::new(
                "role",
                "a review is closed by an approver, an auditor or an admin",
            ));
        }
        rules::check_prose(&review.finding, 1, "finding")?;
        if let Some(state) = self.grants.get_mut(&review.grant) {
            state.reviewed = Some(at);
        }
        Ok(())
    }

    pub(super) fn take_choice(
        &mut self,
        by: PersonId,
        grant: crate::id::GrantId,
    ) -> Result<(), Denied> {
        let state = self.grant(grant)?;
        if state.grant.person != by {
            return Err(Denied::new("not-yours", "the grant is somebody else's"));
        }
        let key = (by, state.grant.account.clone(), state.grant.target.clone());
        self.chosen.insert(key, grant);
        Ok(())
    }
}
