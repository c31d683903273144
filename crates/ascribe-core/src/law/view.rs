//! Grants, sessions, actions; and what callers ask of the state.

use super::Approval;
use super::identities::need_assurance;
use super::{
    Ask, AskStatus, Asked, Denied, GrantState, JOBS, MANAGERS, Manager, OpenAction, Opener,
    PartBytes, Person, Place, SessionState, State, TargetState, databases,
};
use crate::database::Job;
use crate::entry::{
    Body, CloseReason, Door, Evidence, Grant, GrantExtend, Intent, OpenedBy, Outcome, SessionClose,
    SessionOpen,
};
use crate::id::{ActionId, GrantId, PersonId, SessionId, StatementId, derived};
use crate::record::{SignedOpening, Standing};
use crate::statement::{Role, Ticket, Uses, Window};
use crate::time::Timestamp;

/// What a session does, apart from the parts of transfers.
pub(super) const KINDS: [&str; 14] = [
    "ssh.exec",
    "ssh.shell",
    "ssh.sftp",
    "ssh.scp",
    "ssh.rsync",
    "ssh.forward.local",
    "ssh.forward.dynamic",
    "ssh.forward.socket",
    "ssh.forward.listen",
    "ssh.forward.listen-socket",
    "ssh.forward.remote",
    "ssh.forward.remote-socket",
    "ssh.forward.agent",
    "ssh.forward.x11",
];

/// Is this a kind of a part of a transfer?
pub(super) fn is_part(kind: &str) -> bool {
    let fits =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    matches!(kind.split_once('.'), Some(("sftp" | "scp", name)) if fits(name))
}

impl State {
    pub(super) fn person(&self, id: PersonId) -> Result<&Person, Denied> {
        self.people
            .get(&id)
            .ok_or_else(|| Denied::new("no-person", format!("nobody has the id `{id}`")))
    }
    pub(super) fn target(&self, name: &str) -> Result<&TargetState, Denied> {
        self.targets.get(name).ok_or_else(|| {
            Denied::new(
                "no-target",
                format!("no target is called `{}`", crate::text::clean(name, 64)),
            )
            .with_help("`ascribe target list` shows all")
        })
    }
    pub(super) fn ask(&self, id: StatementId) -> Result<&Ask, Denied> {
        self.asks.get(&id).ok_or_else(|| {
            Denied::new("no-request", format!("no request has the id `{id}`"))
                .with_help("`ascribe requests` lists them")
        })
    }
    pub(super) fn grant(&self, id: GrantId) -> Result<&GrantState, Denied> {
        self.grants.get(&id).ok_or_else(|| {
            Denied::new("no-grant", format!("no grant has the id `{id}`"))
                .with_help("`ascribe grants` lists them")
        })
    }
    pub(super) fn session(&self, id: SessionId) -> Result<&SessionState, Denied> {
        self.sessions.get(&id).ok_or_else(|| {
            Denied::new("no-session", format!("no session has the id `{id}`"))
                .with_help("`ascribe sessions` lists them")
        })
    }
    pub(super) fn need(&self, by: PersonId, role: Role) -> Result<(), Denied> {
        if self.person(by)?.may(role) {
            return Ok(());
        }
        let name = format!("{role:?}").to_lowercase();
        Err(Denied::new("role", format!("this needs the role `{name}`")))
    }

    /// People who may approve this ask and have not, or may do so again.
    pub fn approvers(&self, ask: &Ask) -> Vec<PersonId> {
        let role = if matches!(ask.asked, Asked::Proposal(_)) {
            Role::Admin
        } else {
            Role::Approver
        };
        self.people
            .iter()
            .filter(|(id, person)| {
                person.may(role) && **id != ask.by && self.may_still_approve(**id, ask)
            })
            .filter(|(id, _)| self.check_approver_group(**id, ask).is_ok())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The job that is asked for, or that is to go on for longer.
    fn job_of<'a>(&'a self, ask: &'a Ask) -> Option<&'a Job> {
        let scope = match &ask.asked {
            Asked::Request(request) => request.sql.as_ref(),
            Asked::Extension(extension) if self.version >= JOBS => {
                self.grants.get(&extension.grant)?.grant.sql.as_ref()
            }
            Asked::Extension(_) | Asked::Emergency(_) | Asked::Proposal(_) => None,
        };
        scope?.job.as_ref()
    }

    /// What still lacks: one item per missing approval, naming a person where one is required.
    ///
    /// # Errors
    /// When the target is gone.
    pub fn missing_approvals(&self, ask: &Ask) -> Result<Vec<Option<PersonId>>, Denied> {
        let target = self.target_of(ask)?;
        let (quorum, required) = match (&ask.asked, target) {
            (Asked::Emergency(_), _) => return Ok(Vec::new()),
            (_, Some(target)) => (target.quorum, target.required_approvers.as_slice()),
            (_, None) => (
                self.genesis_rules()?.admin_quorum.saturating_sub(1),
                &[][..],
            ),
        };
        // A job runs unattended: whoever answers for its target is among those who said yes.
        let owner = self.job_of(ask).and(target);
        let owner = owner.map(|target| target.system_owner);
        let needs_manager = target.is_some_and(|target| target.manager_approves);
        let manager = needs_manager.then(|| self.manager_of(ask.by));
        let given = |person: &PersonId| ask.approvals.iter().any(|a| a.by == *person);
        let owner = owner.filter(|owner| !required.contains(owner));
        let mut missing: Vec<Option<PersonId>> = required
            .iter()
            .chain(&owner)
            .filter(|p| !given(p))
            .map(|p| Some(*p))
            .collect();
        let as_manager = |person: &PersonId| {
            let mut given = ask.approvals.iter().filter(|a| a.by == *person);
            given.any(|a| a.manager.is_some() || self.version < MANAGERS)
        };
        match manager {
            Some(Some(Manager { person, .. }))
                if as_manager(person) || missing.contains(&Some(*person)) => {}
            Some(manager) => missing.push(manager.map(|manager| manager.person)),
            None => {}
        }
        // Whoever says yes again is one of the quorum already.
        let again = missing.iter().flatten().filter(|person| given(person));
        let lacking = (quorum as usize).saturating_sub(ask.approvals.len()) + again.count();
        while missing.len() < lacking {
            missing.push(None);
        }
        Ok(missing)
    }

    /// The grant's id follows from the request's.
    pub(super) fn grant_id(&self, request: StatementId) -> GrantId {
        GrantId::new(derived(
            "ascribe/grant/v1",
            &[self.origin.as_bytes(), request.bytes()],
        ))
    }

    /// The grant that follows from a carried request or an emergency.
    pub(super) fn grant_from(&self, request: StatementId) -> Result<Grant, Denied> {
        let ask = self.ask(request)?;
        let id = self.grant_id(request);
        match &ask.asked {
            Asked::Request(request) => Ok(Grant {
                grant: id,
                person: request.beneficiary.unwrap_or(ask.by),
                target: request.target.clone(),
                account: request.account.clone(),
                not_before: request.not_before,
                not_after: request.not_after,
                uses: request.uses,
                break_glass: false,
                forwards: request.forwards.clone(),
                windows: request
                    .recurrence
                    .as_ref()
                    .map_or(Vec::new(), |recurrence| recurrence.windows.clone()),
                sql: request.sql.clone(),
            }),
            Asked::Emergency(emergency) => Ok(Grant {
                grant: id,
                person: ask.by,
                target: emergency.target.clone(),
                account: emergency.account.clone(),
                not_before: ask.at,
                not_after: emergency.not_after,
                uses: Uses::Reusable,
                break_glass: true,
                forwards: Vec::new(),
                windows: Vec::new(),
                sql: None,
            }),
            Asked::Extension(_) | Asked::Proposal(_) => Err(Denied::new(
                "grant",
                "only a request or an emergency leads to a grant",
            )),
        }
    }

    /// The carried request that a grant rests on.
    pub(super) fn basis(
        &self,
        grant: &Grant,
    ) -> Result<(StatementId, Place, Vec<Approval>), Denied> {
        let found = self.awaited.get(&grant.grant);
        match found.and_then(|id| Some((id, self.asks.get(id)?))) {
            Some((id, ask)) if self.is_carried(ask) => Ok((*id, ask.place, ask.approvals.clone())),
            Some(_) => Err(Denied::new("quorum", "the grant lacks approvals")),
            None => Err(Denied::new("grant", "the grant rests on no open request")),
        }
    }

    pub(super) fn take_grant(&mut self, grant: &Grant, place: Place) -> Result<(), Denied> {
        let (request, _, approvals) = self.basis(grant)?;
        if self.grant_from(request)? != *grant {
            return Err(Denied::new(
                "grant",
                "the grant says something else than its request",
            ));
        }
        let target = &self.target(&grant.target)?.target;
        super::rules::check_account(target, &grant.account)?;
        self.check_system_owner(target)?;
        let review_ms = i64::try_from(target.review_seconds)
            .unwrap_or(0)
            .saturating_mul(1000);
        let review_due = grant
            .break_glass
            .then(|| grant.not_before.plus_millis(review_ms));
        let ticket: Option<Ticket> = match &self.ask(request)?.asked {
            Asked::Request(request) => request.ticket.clone(),
            Asked::Emergency(emergency) => emergency.ticket.clone(),
            Asked::Extension(_) | Asked::Proposal(_) => None,
        };
        let state = GrantState {
            grant: grant.clone(),
            request,
            ticket,
            approvals,
            place,
            extensions: Vec::new(),
            revoked: None,
            sessions: Vec::new(),
            review_due,
            reviewed: None,
        };
        self.settle(request, AskStatus::Granted);
        self.grants.insert(grant.grant, state);
        Ok(())
    }

    fn carried_extension(&self, extend: &GrantExtend) -> Result<(StatementId, &Ask), Denied> {
        let fits = |ask: &Ask| {
            matches!(&ask.asked, Asked::Extension(e) if e.grant == extend.grant && e.not_after == extend.not_after)
                && self.is_carried(ask)
        };
        self.open_asks()
            .find(|(_, ask)| fits(ask))
            .ok_or_else(|| Denied::new("quorum", "the extension lacks approvals"))
    }

    pub(super) fn extension_basis(
        &self,
        extend: &GrantExtend,
    ) -> Result<(Place, Vec<Approval>), Denied> {
        self.carried_extension(extend)
            .map(|(_, ask)| (ask.place, ask.approvals.clone()))
    }

    pub(super) fn take_extend(
        &mut self,
        extend: &GrantExtend,
        at: Timestamp,
        index: u64,
    ) -> Result<(), Denied> {
        let (id, _) = self.carried_extension(extend)?;
        if self.grant_ended(self.grant(extend.grant)?, at).is_some() {
            return Err(Denied::new("ended", "the grant ended before its extension"));
        }
        let target = &self.grant(extend.grant)?.grant.target;
        self.check_system_owner(&self.target(target)?.target)?;
        let approvals = self.ask(id)?.approvals.clone();
        self.settle(id, AskStatus::Granted);
        if let Some(state) = self.grants.get_mut(&extend.grant) {
            let before = state.grant.not_after;
            state.extensions.push(super::Extended {
                index,
                before,
                approvals,
            });
            state.grant.not_after = extend.not_after;
        }
        Ok(())
    }

    /// Why a grant does not hold at this moment, if it does not.
    fn grant_ended(&self, state: &GrantState, at: Timestamp) -> Option<CloseReason> {
        if state.revoked.is_some() || self.has_left(state.grant.person) {
            Some(CloseReason::Revoked)
        } else if at >= state.grant.not_after {
            Some(CloseReason::Expired)
        } else {
            None
        }
    }

    pub(super) fn take_open(
        &mut self,
        open: &SessionOpen,
        at: Timestamp,
        place: Place,
    ) -> Result<(), Denied> {
        if self.sessions.contains_key(&open.session) {
            return Err(Denied::new("duplicate", "a session with this id exists"));
        }
        let state = self.grant(open.grant)?;
        let grant = &state.grant;
        let fits = grant.person == open.person
            && grant.target == open.target
            && grant.account == open.account;
        if !fits {
            return Err(Denied::new(
                "outside-grant",
                "the session is not what the grant allows",
            ));
        }
        if grant.break_glass && open.delegation.is_some() {
            return Err(Denied::new(
                "break-glass",
                "a break-glass grant is for the person alone, not for their agents",
            ));
        }
        match self.grant_ended(state, at) {
            Some(CloseReason::Revoked) => {
                return Err(Denied::new("revoked", "the grant was revoked"));
            }
            Some(_) => return Err(Denied::new("expired", "the grant has expired")),
            None => {}
        }
        if let Some(next) = grant.next_opening(at) {
            return Err(Denied::new(
                "not-yet",
                format!("the grant {}", opens(grant, next)),
            ));
        }
        if grant.uses == Uses::Single && !state.sessions.is_empty() {
            return Err(Denied::new(
                "used",
                "the grant was for one session, which was opened",
            ));
        }
        self.check_witnessed(state, &self.target(&open.target)?.target, at)?;
        match open.delegation {
            Some(delegation) => self.check_agent_open(open, delegation, at)?,
            None => self.check_login_key(open, at)?,
        }
        let level = self.assurance_of(open);
        let needed = self.target(&open.target)?.target.actor_assurance;
        need_assurance(needed, level, "sessions on this target need")?;
        self.check_opening(open, at)?;
        self.check_definition(open)?;
        let owner = self.target(&open.target)?.target.system_owner;
        let session = SessionState {
            open: open.clone(),
            at,
            place,
            assurance: level,
            owner,
            terminated: None,
            watchers: Vec::new(),
            actions: 0,
            entries: 0,
            next_step: 0,
            closed: None,
        };
        self.sessions.insert(open.session, session);
        self.live.insert(open.session);
        if let Some(opening) = open.opening {
            self.openers.remove(&opening);
        }
        if let Some(state) = self.grants.get_mut(&open.grant) {
            state.sessions.push(open.session);
        }
        Ok(())
    }

    /// Is the key that logged in the actor's?
    fn check_login_key(&self, open: &SessionOpen, at: Timestamp) -> Result<(), Denied> {
        let refuse = || Err(Denied::new("key", "the login key is not the person's"));
        match (&open.certificate, open.login) {
            (Some(certificate), None) => {
                self.check_certificate(open.person, &open.key, certificate)?;
                if certificate.not_after.is_some_and(|end| at >= end) {
                    return Err(Denied::new(
                        "expired",
                        "the login's certificate has expired",
                    ));
                }
                Ok(())
            }
            (None, Some(login)) => self.check_login(login, open.person, &open.key, at),
            (None, None) => match self.people.get(&open.person) {
                Some(person) if person.keys.contains_key(&open.key) => Ok(()),
                Some(_) | None => refuse(),
            },
            (Some(_), Some(_)) => refuse(),
        }
    }

    pub(super) fn opener(&self, id: StatementId) -> Result<&Opener, Denied> {
        self.openers.get(&id).ok_or_else(|| {
            Denied::new(
                "opening",
                "the signed opening was used, is too old or does not exist",
            )
            .with_help("connect again")
        })
    }

    /// Is the session's opening what it says it is, and enough for its target?
    fn check_opening(&self, open: &SessionOpen, at: Timestamp) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("opening", text).with_help("connect again"));
        if open.opened_by == OpenedBy::Signed && open.certificate.is_some() {
            return refuse("a signed opening is by an enrolled key, not by a certificate");
        }
        let target = &self.target(&open.target)?.target;
        let database = matches!(
            open.door,
            Door::Tunnel | Door::Password | Door::Bearer | Door::Mtls
        );
        if database != target.postgres.is_some() {
            return Err(databases::wrong_door(target));
        }
        self.check_bearer_open(open)?;
        let Some(id) = open.opening else {
            return if open.opened_by == OpenedBy::Signed || open.door.is_signed() {
                refuse("a signed opening names the statement that was signed")
            } else if target.signed_opening {
                let help = match target.postgres {
                    Some(_) => {
                        "a job logs in with its token first: `ascribe login --workload`, then `ascribe psql`"
                    }
                    None => {
                        "set ssh up for it once: `ascribe ssh-config --write`, then `ssh` as usual"
                    }
                };
                Err(Denied::new(
                    "unsigned",
                    format!(
                        "target `{}` wants sessions that their actor signed",
                        target.name
                    ),
                )
                .with_help(help))
            } else {
                Ok(())
            };
        };
        let opener = self.opener(id)?;
        let connect = &opener.connect;
        let same = opener.by == open.person
            && opener.key == open.key
            && connect.target == open.target
            && connect.account == open.account
            && connect.grant.is_none_or(|grant| grant == open.grant);
        if open.opened_by != OpenedBy::Signed || !open.door.is_signed() || !same {
            refuse("the session is not the one that its actor signed")
        } else if !super::sessions::is_fresh(at, opener.at) {
            refuse("the signed opening is too old")
        } else {
            Ok(())
        }
    }

    pub(super) fn take_intent(
        &mut self,
        intent: &Intent,
        at: Timestamp,
        place: Place,
    ) -> Result<(), Denied> {
        match self.standing(at, intent.session) {
            Standing::Until(_) => {}
            Standing::Ended(CloseReason::Expired) => {
                return Err(self.expired(at, intent.session));
            }
            Standing::Ended(CloseReason::Revoked) => {
                return Err(Denied::new(
                    "revoked",
                    "the session's grant, login or delegation was revoked",
                ));
            }
            Standing::Ended(CloseReason::Terminated) => {
                return Err(Denied::new(
                    "terminated",
                    "the session was ended by somebody else",
                ));
            }
            Standing::Ended(_) => return Err(Denied::new("closed", "the session is not open")),
        }
        if self.open_actions.contains_key(&intent.action) {
            return Err(Denied::new("duplicate", "an action with this id is open"));
        }
        self.check_kind(intent)?;
        self.check_delegated(intent)?;
        self.count_delegated(intent);
        self.take_step(intent);
        self.open_actions.insert(
            intent.action,
            OpenAction {
                session: intent.session,
                kind: intent.kind.clone(),
                place,
                within: intent.within,
                parts: PartBytes::default(),
            },
        );
        if let Some(session) = self.sessions.get_mut(&intent.session) {
            session.actions += 1;
        }
        Ok(())
    }

    /// Is this a kind of action that may be here: by itself, as a part of that other, under this grant?
    fn check_kind(&self, intent: &Intent) -> Result<(), Denied> {
        let whole = match intent.within {
            None => None,
            Some(whole) => {
                let open = self.open_actions.get(&whole);
                let open = open.filter(|open| open.session == intent.session);
                Some(open.map(|open| open.kind.as_str()).ok_or_else(|| {
                    Denied::new(
                        "within",
                        "the action that this one is a part of is not open in this session",
                    )
                })?)
            }
        };
        let kind = intent.kind.as_str();
        let database = self.is_database(intent.session)?;
        let fits = match (kind.split_once('.'), whole) {
            (Some(("pg", _)), None) => databases::KINDS.contains(&kind) && database,
            _ if database || intent.sql.is_some() => false,
            (Some(("ssh", _)), None) => KINDS.contains(&kind),
            (Some(("sftp", _)), Some("ssh.sftp")) | (Some(("scp", _)), Some("ssh.scp")) => {
                is_part(kind)
            }
            _ => false,
        };
        if !fits {
            return Err(Denied::new("kind", "no such action may be recorded here"));
        }
        if database {
            return self.check_statement(intent);
        }
        let session = self.session(intent.session)?;
        let granted = &self.grant(session.open.grant)?.grant.forwards;
        let needed = intent
            .lends
            .iter()
            .map(|lent| format!("ssh.forward.{lent}"));
        let needed = needed.chain(kind.starts_with("ssh.forward.").then(|| kind.to_owned()));
        for kind in needed {
            if !granted
                .iter()
                .any(|forward| forward.kinds().contains(&kind.as_str()))
            {
                return Err(Denied::new(
                    "outside-grant",
                    "the grant allows no such forwarding",
                ));
            }
        }
        Ok(())
    }

    fn expired(&self, at: Timestamp, session: SessionId) -> Denied {
        let session = self.sessions.get(&session);
        let grant = session.and_then(|s| self.grants.get(&s.open.grant));
        let Some(state) = grant.filter(|s| self.grant_ended(s, at).is_none()) else {
            return Denied::new("expired", "the session's grant has expired");
        };
        let delegation = session.and_then(|s| s.open.delegation);
        if delegation.is_some_and(|id| self.delegation_ended(id, at).is_some()) {
            return Denied::new("expired", "the agent's delegation has ended");
        }
        let next = state.grant.next_opening(at).or(state.grant.window_at(at));
        let next = next.map_or(String::new(), |w| {
            format!("; the next is from {} until {}", w.from, w.until)
        });
        let why = format!("the session's window has ended{next}");
        Denied::new("expired", why).with_help("connect again in it")
    }

    pub(super) fn take_outcome(&mut self, outcome: &Outcome) -> Result<(), Denied> {
        databases::check_answer(outcome)?;
        // The links were checked, so the action is open.
        let Some(open) = self.open_actions.get(&outcome.action) else {
            return Ok(());
        };
        for total in &outcome.streams {
            let digested = match total.stream.as_str() {
                "stdin" => open.parts.written,
                "stdout" => open.parts.read,
                _ => 0,
            };
            if total.in_files > digested.min(total.bytes.saturating_sub(total.stored)) {
                return Err(Denied::new(
                    "in-files",
                    "a stream leaves out bytes that the outcomes of its files do not have",
                ));
            }
        }
        let within = open.within;
        self.open_actions.remove(&outcome.action);
        if let Some(whole) = within.and_then(|whole| self.open_actions.get_mut(&whole)) {
            for total in &outcome.streams {
                let parts = match total.stream.as_str() {
                    "read" | "read-parts" => &mut whole.parts.read,
                    "written" | "written-parts" => &mut whole.parts.written,
                    _ => continue,
                };
                *parts = parts.saturating_add(total.bytes);
            }
        }
        Ok(())
    }

    pub(super) fn take_close(&mut self, close: &SessionClose, at: Timestamp) -> Result<(), Denied> {
        let session = self.session(close.session)?;
        if session.closed.is_some() {
            return Err(Denied::new("closed", "the session was closed before"));
        }
        // An excerpt about another session need not hold this one's entries.
        let whole = self.excerpt.is_none_or(|about| about == close.session);
        if whole && (session.actions, session.entries) != (close.actions, close.entries) {
            return Err(Denied::new(
                "count",
                "the session's entries do not add up to what its close counts",
            ));
        }
        if let Some(session) = self.sessions.get_mut(&close.session) {
            session.closed = Some((at, close.reason));
        }
        let login = self.session(close.session)?.open.login;
        self.end_bearer(login, at);
        self.live.remove(&close.session);
        // What has no outcome by now stays without: nobody knows what became of it.
        self.open_actions
            .retain(|_, action| action.session != close.session);
        Ok(())
    }

    /// The open session that an intent, an outcome, evidence or a refusal belongs to.
    pub(super) fn session_of_body(&self, body: &Body) -> Result<Option<SessionId>, Denied> {
        let id = match body {
            Body::Intent(intent) => Some(intent.session),
            Body::Outcome(outcome) => self.session_of(outcome.action),
            Body::Evidence(evidence) => self.session_of(evidence.action),
            Body::Refusal(refusal) => refusal.session,
            _ => None,
        };
        if let Some(id) = id
            && self.session(id)?.closed.is_some()
        {
            return Err(Denied::new("closed", "the session was closed before"));
        }
        Ok(id)
    }

    pub(super) fn check_evidence(&self, evidence: &Evidence) -> Result<(), Denied> {
        if evidence.chunks.is_empty() {
            return Err(Denied::new(
                "evidence",
                "an evidence entry holds at least one chunk",
            ));
        }
        Ok(())
    }

    /// Whose key is this: enrolled, or introduced by a login that counts?
    pub fn person_by_key(&self, at: Timestamp, fingerprint: &str) -> Option<PersonId> {
        let login = || self.logins.get(&self.login_by_key(at, fingerprint)?.0);
        let enrolled = self.keys.get(fingerprint).copied();
        let id = enrolled.or_else(|| login().map(|login| login.by))?;
        (!self.has_left(id)).then_some(id)
    }

    /// Is this session still lawful?
    pub fn standing(&self, at: Timestamp, session: SessionId) -> Standing {
        let Some(session) = self.sessions.get(&session) else {
            return Standing::Ended(CloseReason::Interrupted);
        };
        if let Some((_, reason)) = session.closed {
            return Standing::Ended(reason);
        }
        let Some(grant) = self.grants.get(&session.open.grant) else {
            return Standing::Ended(CloseReason::Revoked);
        };
        let SessionOpen {
            person,
            key,
            certificate,
            delegation,
            login,
            ..
        } = &session.open;
        let login = login.and_then(|id| self.logins.get(&id));
        let delegation_ended = delegation.and_then(|id| self.delegation_ended(id, at));
        let login_gone = match (certificate, login) {
            _ if delegation.is_some() => delegation_ended == Some(CloseReason::Revoked),
            (Some(certificate), _) => self.check_certificate(*person, key, certificate).is_err(),
            (None, Some(login)) => login.was_cut(),
            (None, None) => self
                .people
                .get(person)
                .is_none_or(|p| !p.keys.contains_key(key)),
        };
        let ends = [
            certificate.as_ref().and_then(|c| c.not_after),
            login.map(|login| login.login.until),
            delegation.and_then(|id| self.delegated_until(id)),
        ];
        let end = ends
            .into_iter()
            .flatten()
            .fold(grant.grant.not_after, Timestamp::min);
        match self.grant_ended(grant, at) {
            Some(reason) => Standing::Ended(reason),
            None if session.terminated.is_some() => Standing::Ended(CloseReason::Terminated),
            None if login_gone => Standing::Ended(CloseReason::Revoked),
            // A session ends with the window that it was opened in: whoever looks too seldom to see
            // the time between two windows sees its end all the same.
            None => match grant.grant.window_at(session.at) {
                Some(window) if at < window.until.min(end) => {
                    Standing::Until(window.until.min(end))
                }
                Some(_) | None => Standing::Ended(CloseReason::Expired),
            },
        }
    }

    /// A signed opening that no session has used yet.
    pub fn signed_opening(&self, statement: StatementId) -> Option<SignedOpening> {
        let opener = self.openers.get(&statement)?;
        Some(SignedOpening {
            person: opener.by,
            key: opener.key.clone(),
            connect: opener.connect.clone(),
        })
    }

    /// Who watches a session, in order.
    pub fn watchers(&self, session: SessionId) -> Vec<PersonId> {
        let session = self.sessions.get(&session);
        session.map_or_else(Vec::new, |session| session.watchers.clone())
    }

    /// Does a grant let its holder open a session now?
    pub fn is_usable(&self, state: &GrantState, at: Timestamp) -> bool {
        self.grant_ended(state, at).is_none()
            && state.grant.window_at(at).is_some()
            && (state.grant.uses == Uses::Reusable || state.sessions.is_empty())
    }

    /// Actions that have no outcome yet.
    pub fn open_actions(&self) -> Vec<ActionId> {
        self.open_actions.keys().copied().collect()
    }

    /// The session that an open action belongs to.
    pub fn session_of(&self, action: ActionId) -> Option<SessionId> {
        self.open_actions.get(&action).map(|open| open.session)
    }

    /// Sessions that are not closed.
    pub fn open_sessions(&self) -> Vec<SessionId> {
        self.live.iter().copied().collect()
    }

    /// How many actions and sessions are open: each of them has an end to be recorded.
    pub fn open_ends(&self) -> usize {
        self.open_actions.len() + self.live.len()
    }
}

/// When a grant opens, in words.
pub(super) fn opens(grant: &Grant, next: Window) -> String {
    if grant.windows.is_empty() {
        return format!("begins at {}", next.from);
    }
    format!(
        "is between its windows; the next is from {} until {}",
        next.from, next.until
    )
}
