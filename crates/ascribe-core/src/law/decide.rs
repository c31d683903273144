//! Deciding on a proposal: finish the entry, check it by the law, add what follows from it.

use super::{Ask, AskStatus, Asked, Denied, Judge, SERVER, Said, Sequenced, State};
use crate::database::Step;
use crate::entry::{Body, Entry, MAX_ENTRY, VERSION, Writer, entry_hash};
use crate::id::{Commitment, EntryId, derived};
use crate::record::Proposal;
use crate::sealed::{Opening, Prose};
use crate::statement::{Say, Statement};
use crate::time::Timestamp;

/// A commitment in an entry, and what its opening must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealable {
    /// The opening's field name.
    pub field: String,
    /// The commitment.
    pub commit: Commitment,
    /// Facts about the text that the entry states in the clear.
    pub prose: Option<Prose>,
}

impl Sealable {
    fn plain(field: &str, commit: Commitment) -> Self {
        Self {
            field: field.to_owned(),
            commit,
            prose: None,
        }
    }
    fn prose(field: &str, prose: &Prose) -> Self {
        Self {
            field: field.to_owned(),
            commit: prose.commit,
            prose: Some(prose.clone()),
        }
    }
    /// Is this the content behind the commitment, and are the stated facts true of it?
    pub fn is_opened_by(&self, opening: &Opening) -> bool {
        opening.field == self.field
            && opening.salt.0.len() == 32
            && opening.commitment() == self.commit
            && self
                .prose
                .as_ref()
                .is_none_or(|prose| *prose == Prose::with(self.commit, &opening.bytes.0))
    }
}

/// Every commitment that an entry holds.
pub fn commitments(body: &Body) -> Vec<Sealable> {
    // What is no statement holds no commitments.
    let statement = match body {
        Body::Statement(signed) => signed.statement().ok(),
        _ => None,
    };
    commitments_of(body, statement.as_ref())
}

fn commitments_of(body: &Body, statement: Option<&Statement>) -> Vec<Sealable> {
    match body {
        Body::Genesis(genesis) => genesis
            .admins
            .iter()
            .map(|admin| Sealable::plain("name", admin.name))
            .collect(),
        Body::Statement(_) => statement.map(statement_commitments).unwrap_or_default(),
        Body::SessionOpen(open) => vec![Sealable::plain("from", open.from)],
        Body::Intent(intent) => {
            let command = intent.command.map(|c| Sealable::plain("command", c));
            let env = intent.env.map(|c| Sealable::plain("env", c));
            let sql = intent.sql.as_ref().and_then(|sql| sql.values);
            let values = sql.map(|c| Sealable::plain("values", c));
            command.into_iter().chain(env).chain(values).collect()
        }
        Body::Evidence(evidence) => evidence
            .chunks
            .iter()
            .map(|chunk| Sealable::plain(&format!("{}/{}", chunk.stream, chunk.seq), chunk.commit))
            .collect(),
        Body::Refusal(refusal) => refusal
            .detail
            .map(|c| Sealable::plain("detail", c))
            .into_iter()
            .collect(),
        Body::DirectoryChange(change) => change
            .resource
            .map(|c| Sealable::plain("resource", c))
            .into_iter()
            .collect(),
        Body::Grant(_)
        | Body::GrantExtend(_)
        | Body::SessionClose(_)
        | Body::Outcome(_)
        | Body::Head(_)
        | Body::ProviderKeys(_)
        | Body::DirectoryRefusal(_)
        | Body::LoginRefusal(_)
        | Body::Cosigned(_) => Vec::new(),
    }
}

fn statement_commitments(statement: &Statement) -> Vec<Sealable> {
    match &statement.say {
        Say::Request(request) => vec![Sealable::prose("justification", &request.justification)],
        Say::Approval(answer) | Say::Denial(answer) | Say::Cancellation(answer) => answer
            .remark
            .iter()
            .map(|remark| Sealable::prose("remark", remark))
            .collect(),
        Say::Extension(extension) => {
            vec![Sealable::prose("justification", &extension.justification)]
        }
        Say::Revocation(revocation) => vec![Sealable::prose("reason", &revocation.reason)],
        Say::Termination(termination) => vec![Sealable::prose("reason", &termination.reason)],
        Say::BreakGlass(emergency) => vec![Sealable::prose("emergency", &emergency.emergency)],
        Say::Review(review) => vec![Sealable::prose("finding", &review.finding)],
        Say::Reconciliation(compared) => vec![Sealable::plain("findings", compared.findings)],
        Say::PersonAdd(person) => vec![Sealable::plain("name", person.name)],
        Say::Read(read) => vec![Sealable::plain("query", read.query)],
        Say::Login(login) => vec![Sealable::plain("token", login.token)],
        Say::DirectoryFile(file) => vec![Sealable::plain("file", file.file)],
        Say::WorkloadSet(workload) => workload
            .confirmed
            .iter()
            .map(|confirmed| Sealable::prose("confirmed", confirmed))
            .collect(),
        Say::Delegation(delegation) => vec![Sealable::prose("task", &delegation.task)],
        Say::DelegationRevoke(revoke) => vec![Sealable::prose("reason", &revoke.reason)],
        Say::TargetSet(_)
        | Say::ProviderSet(_)
        | Say::DirectorySet(_)
        | Say::KeysSeen(_)
        | Say::IdentityLink(_)
        | Say::IdentityUnlink(_)
        | Say::Logout(_)
        | Say::KeyAdd(_)
        | Say::KeyRevoke(_)
        | Say::Offboard(_)
        | Say::CaSet(_)
        | Say::Acceptance(_)
        | Say::WitnessSet(_)
        | Say::Use(_)
        | Say::Connect(_) => Vec::new(),
    }
}

/// The statement of an approved script that an intent names, and the commitment to the text that must be it.
pub fn step(body: &Body) -> Option<(Commitment, Step)> {
    let Body::Intent(intent) = body else {
        return None;
    };
    let step = intent.sql.as_ref()?.step?;
    intent.command.map(|command| (command, step))
}

/// Each commitment has its opening and each opening its commitment.
fn check_openings(body: &Body, said: &Said<'_>, openings: &[Opening]) -> Result<(), Denied> {
    let sealed = commitments_of(body, said.statement.as_ref());
    let matched = sealed.len() == openings.len()
        && sealed
            .iter()
            .zip(openings)
            .all(|(sealable, opening)| sealable.is_opened_by(opening));
    if !matched {
        return Err(Denied::new(
            "openings",
            "the sealed content does not match the entry's commitments",
        ));
    }
    let Some((command, step)) = step(body) else {
        return Ok(());
    };
    let is = |opening: &Opening| opening.commitment() != command || step.is(&opening.bytes.0);
    if openings.iter().all(is) {
        Ok(())
    } else {
        Err(Denied::new(
            "openings",
            "the text is not the statement of the approved script that its intent names",
        ))
    }
}

impl State {
    /// Decides on a proposal and orders it: the finished entry first, then what follows from it.
    /// On refusal the state is as before.
    ///
    /// # Errors
    /// When the law says no.
    pub fn sequence(
        &mut self,
        judge: &dyn Judge,
        at: Timestamp,
        proposal: &Proposal,
    ) -> Result<Vec<Sequenced>, Denied> {
        let mut body = proposal.body.clone();
        if let Body::SessionClose(close) = &mut body {
            let session = self.session(close.session)?;
            (close.actions, close.entries) = (session.actions, session.entries);
        }
        if let Body::Cosigned(cosigned) = &mut body {
            let settled = self.settled_by(cosigned.size).into_iter();
            cosigned.settles = settled.map(|(id, _)| id).collect();
        }
        let mut said = Said::by(&body)?;
        check_openings(&body, &said, &proposal.openings)?;
        // A login has one commitment, so one opening: its token.
        said.token = proposal.openings.first().map(|token| &token.bytes.0[..]);
        let first = self.place_entry(judge, at, (proposal.id, &proposal.writer), body, &said)?;
        let follow = said.statement.as_ref().and_then(|s| self.follow_up(s));
        let mut done = vec![first];
        if let Some(body) = follow {
            let cause = done.first().map_or([0; 32], |s| s.hash.0.0);
            let id = EntryId::new(derived("ascribe/follow/v1", &[&cause]));
            // What follows was computed from the state that allowed its cause. Were it refused all
            // the same, leaving it out only leaves a grant unmade.
            let said = Said::default();
            if let Ok(next) = self.place_entry(judge, at, (id, SERVER), body, &said) {
                done.push(next);
            }
        }
        Ok(done)
    }

    fn place_entry(
        &mut self,
        judge: &dyn Judge,
        at: Timestamp,
        named: (EntryId, &str),
        body: Body,
        said: &Said<'_>,
    ) -> Result<Sequenced, Denied> {
        let at = self.last_at.map_or(at, |last| last.max(at));
        // What the entry links to is as it is at its own time, by the rules that it goes by.
        let version = core::mem::replace(&mut self.version, VERSION);
        let expired = self.end_expired(at);
        let placed = self.place_at(judge, at, named, body, said);
        if placed.is_err() {
            self.revive(expired);
            self.version = version;
        }
        placed
    }

    fn place_at(
        &mut self,
        judge: &dyn Judge,
        at: Timestamp,
        (id, writer): (EntryId, &str),
        body: Body,
        said: &Said<'_>,
    ) -> Result<Sequenced, Denied> {
        let writer: Writer = self.next_in_chain(writer);
        let entry = Entry {
            v: VERSION,
            log: self.origin.clone(),
            id,
            at,
            writer,
            law: self.law_head.map(|place| place.hash),
            refs: self.refs_for(&body, said)?,
            body,
        };
        let bytes = entry
            .to_bytes()
            .map_err(|e| Denied::new("malformed", e.to_string()))?;
        if bytes.len() > MAX_ENTRY {
            return Err(Denied::new(
                "size",
                "the entry would be larger than 65,535 bytes",
            ));
        }
        let hash = entry_hash(&bytes);
        self.step(judge, self.size, &entry, said, hash)?;
        Ok(Sequenced { entry, bytes, hash })
    }

    /// A grant follows from the approval that completes a quorum, and from a break-glass statement.
    fn follow_up(&self, statement: &Statement) -> Option<Body> {
        match &statement.say {
            Say::Approval(answer) => {
                let ask = self.ask(answer.of).ok()?;
                match &ask.asked {
                    Asked::Request(_) if self.is_carried(ask) => {
                        self.grant_from(answer.of).ok().map(Body::Grant)
                    }
                    Asked::Extension(extension) if self.is_carried(ask) => {
                        Some(Body::GrantExtend(crate::entry::GrantExtend {
                            grant: extension.grant,
                            not_after: extension.not_after,
                        }))
                    }
                    Asked::Request(_)
                    | Asked::Extension(_)
                    | Asked::Emergency(_)
                    | Asked::Proposal(_) => None,
                }
            }
            Say::BreakGlass(_) => self.grant_from(statement.id).ok().map(Body::Grant),
            _ => None,
        }
    }

    /// Has an open ask all the approvals that it needs?
    pub(super) fn is_carried(&self, ask: &Ask) -> bool {
        ask.status == AskStatus::Open
            && self
                .missing_approvals(ask)
                .is_ok_and(|missing| missing.is_empty())
    }
}
