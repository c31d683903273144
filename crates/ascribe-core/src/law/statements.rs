//! Signed statements: who may say what, and what it changes.

use std::collections::{BTreeMap, BTreeSet};

use super::identities::{BOUND, check_levels, need_assurance, signer};
use super::{
    Approval, Ask, AskStatus, Asked, BREAK_GLASS_MS, Denied, Judge, Opener, Person, Place,
    SIGNER_SKEW_MS, Said, State, TargetState, rules,
};
use crate::entry::SessionOpen;
use crate::id::{PersonId, SessionId, StatementId};
use crate::statement::{
    Answer, BreakGlass, Connect, Extension, Offboard, PersonAdd, PersonKey, Read, Request, Review,
    Revocation, Role, Say, Signed, SshKey, Statement, Target, Termination, View,
};
use crate::time::Timestamp;

/// Most signed openings of one person that wait for their session.
const MAX_OPENERS: usize = 256;

/// Does a signed opening of that time still open a session?
pub(super) fn is_fresh(now: Timestamp, opened: Timestamp) -> bool {
    now.since(opened) <= SIGNER_SKEW_MS
}

/// A statement with whoever signed it.
struct Author {
    key: SshKey,
    /// The delegation whose agent signed, where it was not the person.
    agent: Option<StatementId>,
}

impl State {
    pub(super) fn take_statement(
        &mut self,
        judge: &dyn Judge,
        at: Timestamp,
        signed: &Signed,
        said: &Said<'_>,
        place: Place,
    ) -> Result<(), Denied> {
        let Some(statement) = &said.statement else {
            return Err(Denied::new("internal", "the statement was not read"));
        };
        let Author { key, agent } =
            self.check_signed_at(judge, at, (signed, statement), place.index)?;
        let (by, id) = (statement.by, statement.id);
        let own = matches!(
            &statement.say,
            Say::Login(_) | Say::Logout(_) | Say::Connect(_) | Say::Read(_)
        );
        let vouches = (!own).then(|| key.fingerprint());
        match &statement.say {
            Say::Request(request) => {
                self.check_request(by, at, request)?;
                self.put_ask((id, by, &key), at, Asked::Request(request.clone()), place);
            }
            Say::Extension(extension) => {
                self.check_extension(by, at, extension)?;
                self.put_ask(
                    (id, by, &key),
                    at,
                    Asked::Extension(extension.clone()),
                    place,
                );
            }
            Say::BreakGlass(emergency) => {
                self.check_break_glass(by, at, emergency)?;
                self.check_gives(&emergency.target, &key)?;
                self.put_ask(
                    (id, by, &key),
                    at,
                    Asked::Emergency(emergency.clone()),
                    place,
                );
            }
            Say::Approval(answer) => self.take_approval((by, &key), at, answer, place)?,
            Say::Denial(answer) => self.take_denial(by, answer)?,
            Say::Cancellation(answer) => self.take_cancellation(by, answer)?,
            Say::Revocation(revocation) => self.take_revocation(by, at, revocation)?,
            Say::Review(review) => self.take_review(by, at, review)?,
            Say::Reconciliation(compared) => self.check_reconciliation(by, compared)?,
            Say::Use(chosen) => self.take_choice(by, chosen.grant)?,
            Say::KeyRevoke(revoked) => self.take_key_revoke(by, revoked)?,
            Say::IdentityUnlink(link) => self.take_unlink(by, at, link)?,
            Say::Login(login) => {
                self.check_keys_age(at, &login.provider)?;
                self.check_login_token(judge, by, &key, login, said.token)?;
                self.take_login(id, by, at, (login, key), place)?;
            }
            Say::Logout(logout) => self.take_logout(by, at, logout)?,
            Say::Termination(termination) => self.take_termination(by, at, termination)?,
            Say::Connect(connect) => {
                let opener = self.check_connect(by, at, connect, key, place)?;
                self.openers.retain(|_, old| is_fresh(at, old.at));
                self.openers.insert(id, opener);
            }
            Say::Read(read) => {
                self.check_read_key(by, &key, read)?;
                self.take_read(by, read)?;
            }
            Say::Delegation(_) => self.take_delegation(statement, at, &key, agent, place)?,
            Say::Acceptance(acceptance) => self.take_acceptance(acceptance, at, agent, place)?,
            Say::DelegationRevoke(revoke) => self.take_delegation_revoke(by, at, revoke, agent)?,
            Say::DirectoryFile(file) => self.take_directory_file((by, &key), at, file, place)?,
            Say::KeysSeen(seen) => self.take_keys_seen((by, &key), at, seen, place)?,
            Say::TargetSet(_)
            | Say::PersonAdd(_)
            | Say::KeyAdd(_)
            | Say::Offboard(_)
            | Say::CaSet(_)
            | Say::ProviderSet(_)
            | Say::IdentityLink(_)
            | Say::WorkloadSet(_)
            | Say::DirectorySet(_)
            | Say::WitnessSet(_) => {
                self.check_carries_law(&key)?;
                self.take_proposal(statement, &key, at, place)?;
            }
        }
        if let Some(key) = vouches {
            self.take_vouched(&key);
        }
        self.statements.insert(id);
        Ok(())
    }

    /// Is this a statement for this log, now, signed by an active key of the person it names, or of an
    /// agent of theirs that may say this?
    ///
    /// # Errors
    /// When it is not.
    pub fn check_signed(
        &self,
        judge: &dyn Judge,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Statement, Denied> {
        let statement = signed
            .statement()
            .map_err(|e| Denied::new("malformed", format!("the statement is {e}")))?;
        self.check_signed_at(judge, at, (signed, &statement), self.size)?;
        Ok(statement)
    }

    /// The same, read already. Says who signed it.
    fn check_signed_at(
        &self,
        judge: &dyn Judge,
        at: Timestamp,
        (signed, statement): (&Signed, &Statement),
        index: u64,
    ) -> Result<Author, Denied> {
        if statement.v != 1 {
            return Err(Denied::new("version", "unknown statement version"));
        }
        if statement.log != self.origin {
            return Err(Denied::new("log", "the statement is for another ledger"));
        }
        if at.since(statement.at).abs() > SIGNER_SKEW_MS {
            return Err(Denied::new(
                "clock",
                "the signer's clock is more than 5 minutes off the ledger's",
            )
            .with_help("set the clock, then sign again"));
        }
        if statement.seen.size > index {
            return Err(Denied::new(
                "future",
                "the signer has seen more of this log than there is",
            ));
        }
        if self.statements.contains(&statement.id) {
            return Err(Denied::new("replay", "this statement was taken before"));
        }
        let key = signer(judge, signed, &statement.say)?;
        self.check_actor(statement.by)?;
        let of_agent = self.agents.contains_key(&key.fingerprint());
        let agent = match &statement.say {
            // A login introduces its key; whose it is, is looked at there.
            Say::Login(_) => None,
            Say::Acceptance(_) => Some(self.check_agent_signature(at, statement, &key)?),
            _ if of_agent => Some(self.check_agent_signature(at, statement, &key)?),
            _ => {
                self.check_key_of(statement.by, at, &key)?;
                self.check_bearer_says(&key, &statement.say)?;
                None
            }
        };
        self.check_present(statement.by)?;
        self.check_may_say(statement.by, &statement.say)?;
        Ok(Author { key, agent })
    }

    fn put_ask(
        &mut self,
        (id, by, key): (StatementId, PersonId, &SshKey),
        at: Timestamp,
        asked: Asked,
        place: Place,
    ) {
        let ask = Ask {
            by,
            at,
            key: key.fingerprint(),
            asked,
            place,
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

    fn forget(&mut self, id: StatementId) {
        self.open_asks.remove(&id);
        let grant = self.grant_id(id);
        self.awaited.remove(&grant);
    }

    /// Asks that wait for something.
    pub(super) fn open_asks(&self) -> impl Iterator<Item = (StatementId, &Ask)> {
        let open = self.open_asks.iter();
        open.filter_map(|id| Some((*id, self.asks.get(id)?)))
    }

    fn check_request(&self, by: PersonId, at: Timestamp, request: &Request) -> Result<(), Denied> {
        self.need(by, Role::Requester)?;
        let target = &self.target(&request.target)?.target;
        rules::check_account(target, &request.account)?;
        match &request.recurrence {
            None => rules::check_window(target, request.not_before, request.not_after, at)?,
            Some(windows) => rules::check_recurrence(target, request, windows, at)?,
        }
        self.check_beneficiary(by, request.beneficiary)?;
        self.check_manager(by, target)?;
        rules::check_ticket(target, request.ticket.as_ref())?;
        rules::check_forwards(&request.forwards)?;
        super::databases::check_scope(target, request)?;
        self.check_job_owner(by, target, request)?;
        rules::check_prose(
            &request.justification,
            target.min_justification,
            "justification",
        )
    }

    fn check_extension(
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
        self.check_manager(by, target)?;
        rules::check_window(target, grant.not_before, extension.not_after, at)?;
        rules::check_prose(
            &extension.justification,
            target.min_justification,
            "justification",
        )
    }

    fn check_break_glass(
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

    fn take_approval(
        &mut self,
        (by, key): (PersonId, &SshKey),
        at: Timestamp,
        answer: &Answer,
        place: Place,
    ) -> Result<(), Denied> {
        let ask = self.open_ask(answer)?;
        self.check_answerer(by, ask)?;
        self.check_approver_key(ask, key)?;
        if ask.approvals.iter().any(|approval| approval.by == by) {
            return Err(Denied::new("duplicate", "you approved this before"));
        }
        if self.person(ask.by)?.is_away() {
            return Err(Denied::new("left", "whoever asked for this has left"));
        }
        self.check_still_owned(ask)?;
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
        let mut carried = ask.clone();
        carried.approvals.push(Approval {
            by,
            at,
            key: key.fingerprint(),
            place,
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
    fn check_gives(&self, target: &str, key: &SshKey) -> Result<(), Denied> {
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

    fn take_denial(&mut self, by: PersonId, answer: &Answer) -> Result<(), Denied> {
        let ask = self.open_ask(answer)?;
        self.check_answerer(by, ask)?;
        self.settle(answer.of, AskStatus::Denied);
        Ok(())
    }

    fn take_cancellation(&mut self, by: PersonId, answer: &Answer) -> Result<(), Denied> {
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

    fn take_revocation(
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

    fn take_termination(
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
        rules::check_prose(&termination.reason, 1, "reason")?;
        if let Some(session) = self.sessions.get_mut(&termination.session) {
            session.terminated = Some(at);
        }
        Ok(())
    }

    fn check_connect(
        &self,
        by: PersonId,
        at: Timestamp,
        connect: &Connect,
        key: SshKey,
        place: Place,
    ) -> Result<Opener, Denied> {
        let target = &self.target(&connect.target)?.target;
        rules::check_account(target, &connect.account)?;
        // An agent that opens too often does not shut out its person.
        let is_agents = |key: &str| self.agents.contains_key(key);
        let agent = is_agents(&key.fingerprint());
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
            key: key.fingerprint(),
            connect: connect.clone(),
            place,
        })
    }

    fn take_review(&mut self, by: PersonId, at: Timestamp, review: &Review) -> Result<(), Denied> {
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

    fn take_choice(&mut self, by: PersonId, grant: crate::id::GrantId) -> Result<(), Denied> {
        let state = self.grant(grant)?;
        if state.grant.person != by {
            return Err(Denied::new("not-yours", "the grant is somebody else's"));
        }
        let key = (by, state.grant.account.clone(), state.grant.target.clone());
        self.chosen.insert(key, grant);
        Ok(())
    }

    fn take_key_revoke(&mut self, by: PersonId, key: &PersonKey) -> Result<(), Denied> {
        if by != key.person {
            self.need(by, Role::Admin)?;
        }
        let fingerprint = key.key.fingerprint();
        let last =
            |person: &Person| person.keys.len() == 1 && person.keys.contains_key(&fingerprint);
        if self.people.get(&key.person).is_some_and(last) {
            self.check_admins_without(key.person)?;
        }
        let removed = self
            .people
            .get_mut(&key.person)
            .and_then(|p| p.keys.remove(&fingerprint));
        if removed.is_none() {
            return Err(Denied::new("key", "the person has no such key"));
        }
        self.keys.remove(&fingerprint);
        self.revoked_keys.insert(fingerprint);
        Ok(())
    }

    /// What others did is not shown to whoever could get a code confirmed on another device.
    fn check_read_key(&self, by: PersonId, key: &SshKey, read: &Read) -> Result<(), Denied> {
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

    fn take_read(&mut self, by: PersonId, read: &Read) -> Result<(), Denied> {
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

    fn take_proposal(
        &mut self,
        statement: &Statement,
        key: &SshKey,
        at: Timestamp,
        place: Place,
    ) -> Result<(), Denied> {
        self.need(statement.by, Role::Admin)?;
        self.check_change(&statement.say)?;
        // One proposal at a time for each new person: there is one name to approve.
        let waits = |add: &PersonAdd| {
            self.open_asks().any(|(_, ask)| {
                matches!(&ask.asked, Asked::Proposal(Say::PersonAdd(other)) if other.person == add.person)
            })
        };
        if matches!(&statement.say, Say::PersonAdd(add) if waits(add)) {
            return Err(Denied::new(
                "duplicate",
                "this person's enrolment waits for approval",
            ));
        }
        let asked = Asked::Proposal(statement.say.clone());
        self.put_ask((statement.id, statement.by, key), at, asked, place);
        if self
            .asks
            .get(&statement.id)
            .is_some_and(|ask| self.is_carried(ask))
            && !self.waits_for_witnesses(statement.id, &statement.say, place)
        {
            self.take_change(&statement.say, at, place);
            self.settle(statement.id, AskStatus::Granted);
        }
        Ok(())
    }

    pub(super) fn check_change(&self, say: &Say) -> Result<(), Denied> {
        self.check_may_wait(say)?;
        match say {
            Say::TargetSet(target) => self.check_target(target),
            Say::PersonAdd(person) => self.check_person(person),
            Say::KeyAdd(key) => {
                self.person(key.person)?;
                self.check_new_key(&key.key)
            }
            Say::Offboard(leaver) => self.check_offboard(leaver),
            Say::CaSet(authority) => self.check_authority(authority),
            Say::ProviderSet(provider) => self.check_provider_set(provider),
            Say::IdentityLink(link) => self.check_identity(link),
            Say::WorkloadSet(workload) => self.check_workload(workload),
            Say::WitnessSet(set) => self.check_witness_set(set),
            Say::DirectorySet(directory) => self.check_directory(directory),
            _ => Err(Denied::new("internal", "not a proposal")),
        }
    }

    pub(super) fn take_change(&mut self, say: &Say, at: Timestamp, place: Place) {
        match say {
            Say::TargetSet(target) => {
                let state = TargetState {
                    target: target.clone(),
                    place,
                };
                self.targets.insert(target.name.clone(), state);
            }
            Say::PersonAdd(person) => self.take_person(person, place),
            Say::KeyAdd(key) => {
                let fingerprint = key.key.fingerprint();
                self.keys.insert(fingerprint.clone(), key.person);
                if let Some(person) = self.people.get_mut(&key.person) {
                    person.keys.insert(fingerprint, key.key.clone());
                }
            }
            Say::Offboard(leaver) => {
                if let Some(person) = self.people.get_mut(&leaver.person) {
                    person.offboarded = Some(at);
                }
            }
            Say::CaSet(authority) => self.take_authority(authority, place),
            Say::ProviderSet(provider) => self.take_provider(provider, place),
            Say::IdentityLink(link) => self.take_identity(link, place),
            Say::WorkloadSet(workload) => self.take_workload(workload, at, place),
            Say::WitnessSet(set) => self.take_witness_set(set),
            Say::DirectorySet(directory) => self.take_directory(directory, place),
            _ => {}
        }
        self.hear_directories(at);
        self.end_logins(at);
    }

    fn check_target(&self, target: &Target) -> Result<(), Denied> {
        rules::check_target(target)?;
        check_levels(target)?;
        self.person(target.system_owner)?;
        for person in target.required_approvers.iter().chain(&target.break_glass) {
            self.person(*person)?;
        }
        self.check_named_groups(target)
    }

    pub(super) fn check_new_key(&self, key: &SshKey) -> Result<(), Denied> {
        rules::check_key(key)?;
        if self.revoked_keys.contains(&key.fingerprint()) {
            return Err(
                Denied::new("revoked", "the key was revoked; make a new one")
                    .with_help("make one: ssh-keygen -t ed25519"),
            );
        }
        if self.keys.contains_key(&key.fingerprint()) {
            return Err(Denied::new(
                "duplicate",
                "the key is enrolled already; one key names one person",
            ));
        }
        if self.session_keys.contains_key(&key.fingerprint()) {
            return Err(Denied::new("duplicate", "the key is or was a session key")
                .with_help("make one: ssh-keygen -t ed25519"));
        }
        if self.agents.contains_key(&key.fingerprint()) {
            return Err(
                Denied::new("duplicate", "the key is or was an agent's; make a new one")
                    .with_help("make one: ssh-keygen -t ed25519"),
            );
        }
        if self.authority_of(&key.fingerprint()).is_some() {
            return Err(Denied::new(
                "duplicate",
                "the key is a certificate authority's; it names nobody",
            ));
        }
        Ok(())
    }

    pub(super) fn check_person(&self, person: &PersonAdd) -> Result<(), Denied> {
        if self.people.contains_key(&person.person) || self.workloads.contains_key(&person.person) {
            return Err(Denied::new("duplicate", "a person with this id exists"));
        }
        if person.keys.is_empty() || person.keys.len() > 16 {
            return Err(Denied::new("key", "a person has one to sixteen keys"));
        }
        let mut seen = BTreeSet::new();
        for key in &person.keys {
            self.check_new_key(key)?;
            if !seen.insert(key.fingerprint()) {
                return Err(Denied::new("duplicate", "a key is named twice"));
            }
        }
        Ok(())
    }

    pub(super) fn take_person(&mut self, person: &PersonAdd, place: Place) {
        let keys = person
            .keys
            .iter()
            .map(|key| (key.fingerprint(), key.clone()));
        for (fingerprint, _) in keys.clone() {
            self.keys.insert(fingerprint, person.person);
        }
        let state = Person {
            keys: keys.collect(),
            roles: person.roles.iter().copied().collect(),
            offboarded: None,
            suspended: BTreeMap::new(),
            spared: false,
            directory_roles: BTreeSet::new(),
            groups: Vec::new(),
            manager: None,
            place,
        };
        self.people.insert(person.person, state);
    }

    fn check_offboard(&self, leaver: &Offboard) -> Result<(), Denied> {
        if self.person(leaver.person)?.offboarded.is_some() {
            return Err(Denied::new("settled", "the person has left already"));
        }
        self.check_admins_without(leaver.person)
    }

    /// Without this person, enough administrators must be left who can sign.
    pub(super) fn check_admins_without(&self, leaver: PersonId) -> Result<(), Denied> {
        let quorum = self.genesis_rules()?.admin_quorum as usize;
        let signs = |person: &Person| person.may(Role::Admin) && !person.keys.is_empty();
        let left = self
            .people
            .iter()
            .filter(|(id, person)| **id != leaver && signs(person))
            .count();
        if left < quorum && self.people.get(&leaver).is_some_and(signs) {
            return Err(
                Denied::new("quorum", "too few administrators would be left").with_help(
                    "enrol another administrator first: `ascribe person add --role admin`",
                ),
            );
        }
        Ok(())
    }
}
