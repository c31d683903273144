//! Attribution: from entries and openings to the one record that answers who, what, when and why.
//!
//! A fold. The server and the offline verifier show actions through this same code.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::database::{Job, SqlOutcome};
use crate::delegation::agent_id;
use crate::encoding::base64url;
use crate::entry::{
    Body, Door, Entry, Evidence, Intent, OpenedBy, Outcome, Pty, SessionOpen, Status, StreamTotal,
};
use crate::id::{
    ActionId, Commitment, ContentDigest, EntryHash, GrantId, PersonId, SessionId, StatementId,
};
use crate::identity::{Authn, Claims, Code, Protection, Run, Trigger};
use crate::law::{GrantState, Place, State};
use crate::sealed::Opening;
use crate::statement::{Statement, Ticket, Window};
use crate::text::{clean, clean_bytes};
use crate::time::Timestamp;
use crate::witness::seen_by;

mod besides;

pub use besides::{ReconciliationRecord, RefusedRecord};

/// Longest command that is shown, in characters; the exact bytes stand beside it.
const SHOWN: usize = 4096;

/// One action, in the shape that scripts rely on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Version of this shape: 1.
    pub v: u8,
    /// The action.
    pub action_id: ActionId,
    /// Its session.
    pub session_id: SessionId,
    /// Who: the same for all actions of a session.
    pub who: Arc<Who>,
    /// What.
    pub what: What,
    /// When.
    pub when: When,
    /// Why.
    pub why: Arc<Why>,
    /// What proves it.
    pub integrity: Integrity,
}

/// Who: the chain from whoever is answerable to whoever acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// In order.
    pub chain: Vec<Link>,
    /// `signed` or `testimony`.
    pub opened_by: String,
    /// By which door the session came in: `direct`, `jump` or `connect`, to a database `tunnel`, `password`, `bearer`
    /// or `mtls`.
    pub door: Door,
}

impl Who {
    /// All of the chain, for a terminal: `Olu Operator > deploy-bot`.
    pub fn shown(&self) -> String {
        let names: Vec<String> = self.chain.iter().map(Link::shown).collect();
        names.join(" > ")
    }

    /// Who signed which link of the chain, where it has several.
    pub fn links(&self) -> Option<String> {
        let link = |pair: &[Link]| match pair {
            [from, to] => Some(format!(
                "{} signed {}, {} signed its acceptance",
                from.shown(),
                to.evidence,
                to.shown()
            )),
            _ => None,
        };
        let links: Vec<String> = self.chain.windows(2).filter_map(link).collect();
        (!links.is_empty()).then(|| links.join("; "))
    }
}

/// One principal of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its id.
    pub principal: PersonId,
    /// Its name, where it is disclosed.
    pub display: Option<String>,
    /// `person`, `workload` or `agent`.
    pub kind: String,
    /// Who answers for a workload or an agent; none for a person.
    pub owner: Option<PersonId>,
    /// How strongly it was proven, 0 to 4: never more than the link before it.
    pub assurance: u8,
    /// By what.
    pub evidence: String,
    /// How a person proved themself to the provider, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authn: Option<Authn>,
    /// The run that acted; none for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The code that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// How what ran was protected, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// What the provider does not say, and why it matters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What an agent said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted: Option<Assertion>,
    /// What an agent is for, where it is disclosed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

impl Link {
    /// Its name or id, for a terminal.
    pub fn shown(&self) -> String {
        let name = self.display.clone();
        clean(&name.unwrap_or_else(|| self.principal.to_string()), 60)
    }
}

/// What somebody said, which nobody checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Who said it: `agent`.
    pub by: String,
    /// The program that drives the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The model's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// `ssh.exec`, `ssh.shell`, ...
    pub kind: String,
    /// The command, escaped for display.
    pub command: Option<String>,
    /// Its exact bytes.
    pub command_b64: Option<String>,
    /// `present`, `withheld`, `erased` or `missing`.
    pub content: Cow<'static, str>,
    /// The action that it is a part of: the file transfer of a file's operation.
    pub within: Option<ActionId>,
    /// On which target.
    pub target: String,
    /// As which account.
    pub account: String,
    /// Who answers for the target.
    pub system_owner: Option<PersonId>,
    /// How it was observed.
    pub method: String,
    /// How far that can be relied on.
    pub confidence: Cow<'static, str>,
    /// What kind of statement it is, of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlRecord>,
    /// What became of it.
    pub outcome: OutcomeRecord,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlRecord {
    /// What kinds of statement it is.
    pub classes: Vec<String>,
    /// What makes it dangerous by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// What it names, where the grant bounds that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Where `objects` are from: the `record`, or its `text`, as whoever shows this read it. None where they are not
    /// told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects_from: Option<String>,
    /// Functions and procedures that its text names, as whoever shows this read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// Why what it names is not told from its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// The values that it was executed with, as the target's rules keep them, where they are disclosed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Which statement of an approved script it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// Of a connection: the gateway's port that it was to come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The status.
    pub status: Status,
    /// Exit code, where there was one.
    pub exit_code: Option<u32>,
    /// Signal, where one ended it.
    pub signal: Option<String>,
    /// What was noticed on the way, such as `ssh-inside`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What a database answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlOutcome>,
    /// When the outcome was recorded.
    pub at: Option<Timestamp>,
    /// What passed.
    pub streams: Vec<StreamRecord>,
}

/// One stream's bytes in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its name.
    pub stream: String,
    /// Bytes that passed.
    pub bytes: u64,
    /// Of these, those that only the digests of the files within have.
    #[serde(default, skip_serializing_if = "crate::entry::is_zero")]
    pub in_files: u64,
    /// Of all bytes that passed, without those in files.
    pub sha256: ContentDigest,
    /// Bytes that are kept, sealed.
    #[serde(default)]
    pub stored: u64,
}

impl StreamRecord {
    fn of(total: &StreamTotal) -> Self {
        Self {
            stream: total.stream.clone(),
            bytes: total.bytes,
            in_files: total.in_files,
            sha256: total.sha256,
            stored: total.stored,
        }
    }
}

/// When.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// The log's time of the intent.
    pub at: Timestamp,
    /// The time by which a witness had seen it.
    pub witnessed_before: Option<Timestamp>,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The request.
    pub request_id: StatementId,
    /// The grant.
    pub grant_id: GrantId,
    /// The justification, where it is disclosed.
    pub justification: Option<String>,
    /// The ticket.
    pub ticket: Option<Ticket>,
    /// Each yes.
    pub approvals: Vec<ApprovalRecord>,
    /// The grant's first instant.
    pub not_before: Timestamp,
    /// The grant's end.
    pub not_after: Timestamp,
    /// Was it taken without approval?
    pub break_glass: bool,
    /// The one of the grant's windows that the session was opened in, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The maintenance job that was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// One yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    /// Whose.
    pub approver: PersonId,
    /// How it is proven.
    pub method: String,
    /// When it was recorded.
    pub at: Timestamp,
    /// The approval's entry.
    pub entry_hash: EntryHash,
}

/// What proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrity {
    /// The log.
    pub origin: Arc<str>,
    /// The intent's index.
    pub index: u64,
    /// The intent's entry.
    pub entry_hash: EntryHash,
    /// Size of the tree that was read.
    pub tree_size: u64,
    /// Its root.
    pub root: crate::id::Root,
    /// `sequenced`.
    pub stage: Cow<'static, str>,
}

/// Which actions are wanted. Everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Principal id, or part of the name.
    pub actor: Option<String>,
    /// An agent's id or exact name, wherever in the chain it is.
    pub agent: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Target.
    pub target: Option<String>,
    /// Session.
    pub session: Option<SessionId>,
    /// Grant.
    pub grant: Option<GrantId>,
    /// Ticket id, or `SYSTEM:ID`.
    pub ticket: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Part of the command or the justification.
    pub text: Option<String>,
    /// The run's id at its provider.
    pub run: Option<String>,
    /// The commit that ran; at least its first seven letters.
    pub commit: Option<String>,
    /// The maintenance job that was approved, by name.
    pub job: Option<String>,
}

#[derive(Debug, Clone)]
struct Seen {
    intent: Intent,
    at: Timestamp,
    place: Place,
    outcome: Option<(Outcome, Timestamp)>,
    evidence: Vec<(u64, Evidence)>,
}

/// The fold: push each entry once, in order, then ask.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    names: BTreeMap<PersonId, Commitment>,
    workloads: BTreeMap<PersonId, String>,
    reasons: HashMap<StatementId, Commitment>,
    tasks: HashMap<StatementId, Commitment>,
    sessions: HashMap<SessionId, SessionOpen>,
    actions: Vec<Seen>,
    by_id: HashMap<ActionId, usize>,
    openings: HashMap<Commitment, Opening>,
    /// What witnesses had seen by when, in order.
    witnessed: Vec<(u64, Timestamp)>,
    refused: Vec<besides::Refused>,
    compared: Vec<besides::Compared>,
}

impl Fold {
    /// An empty fold.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one entry.
    pub fn push(&mut self, index: u64, entry: &Entry, hash: EntryHash) {
        let statement = match &entry.body {
            Body::Statement(signed) => signed.statement().ok(),
            _ => None,
        };
        self.push_with(index, entry, statement.as_ref(), hash);
    }

    /// The same, with its statement read already.
    pub fn push_with(
        &mut self,
        index: u64,
        entry: &Entry,
        statement: Option<&Statement>,
        hash: EntryHash,
    ) {
        match &entry.body {
            Body::Genesis(genesis) => {
                self.names.extend(
                    genesis
                        .admins
                        .iter()
                        .map(|admin| (admin.person, admin.name)),
                );
            }
            Body::Statement(_) => {
                use crate::statement::Say;
                let Some(statement) = statement else {
                    return;
                };
                match &statement.say {
                    Say::PersonAdd(person) => {
                        self.names.insert(person.person, person.name);
                    }
                    Say::WorkloadSet(workload) => {
                        let name = workload.name.clone();
                        self.workloads.insert(workload.workload, name);
                    }
                    Say::Request(request) => {
                        self.reasons
                            .insert(statement.id, request.justification.commit);
                    }
                    Say::BreakGlass(emergency) => {
                        self.reasons
                            .insert(statement.id, emergency.emergency.commit);
                    }
                    Say::Delegation(delegation) => {
                        self.tasks.insert(statement.id, delegation.task.commit);
                    }
                    Say::Reconciliation(said) => {
                        let compared = besides::Compared::new(index, entry, statement, said);
                        self.compared.push(compared);
                    }
                    _ => {}
                }
            }
            Body::SessionOpen(open) => {
                self.sessions.insert(open.session, open.clone());
            }
            Body::Intent(intent) => {
                self.by_id.insert(intent.action, self.actions.len());
                self.actions.push(Seen {
                    intent: intent.clone(),
                    at: entry.at,
                    place: Place { hash, index },
                    outcome: None,
                    evidence: Vec::new(),
                });
            }
            Body::Outcome(outcome) => {
                if let Some(seen) = self.seen_mut(outcome.action) {
                    seen.outcome = Some((outcome.clone(), entry.at));
                }
            }
            Body::Evidence(evidence) => {
                if let Some(seen) = self.seen_mut(evidence.action) {
                    seen.evidence.push((index, evidence.clone()));
                }
            }
            Body::Grant(_)
            | Body::GrantExtend(_)
            | Body::SessionClose(_)
            | Body::Head(_)
            | Body::ProviderKeys(_)
            | Body::DirectoryChange(_)
            | Body::DirectoryRefusal(_)
            | Body::LoginRefusal(_) => {}
            Body::Refusal(refusal) => {
                let refused = besides::Refused::new(index, entry, refusal);
                self.refused.push(refused);
            }
            Body::Cosigned(cosigned) => {
                let seen = (cosigned.size, seen_by(cosigned.before));
                self.witnessed.push(seen);
            }
        }
    }

    /// The time by which witnesses had seen this entry.
    fn witnessed_before(&self, index: u64) -> Option<Timestamp> {
        let covering = self.witnessed.partition_point(|(size, _)| *size <= index);
        self.witnessed.get(covering).map(|(_, before)| *before)
    }

    fn seen_mut(&mut self, action: ActionId) -> Option<&mut Seen> {
        let at = *self.by_id.get(&action)?;
        self.actions.get_mut(at)
    }

    /// Takes in the content behind a commitment.
    pub fn open(&mut self, opening: Opening) {
        self.openings.insert(opening.commitment(), opening);
    }

    /// The content behind a commitment, if it was disclosed.
    pub fn opened(&self, commit: Commitment) -> Option<&Opening> {
        self.openings.get(&commit)
    }

    /// The names that were disclosed; workloads' are not sealed.
    pub fn names(&self) -> BTreeMap<PersonId, String> {
        let shown = |commit: &Commitment| {
            self.opened(*commit)
                .map(|o| String::from_utf8_lossy(&o.bytes.0).into_owned())
        };
        self.names
            .iter()
            .filter_map(|(id, commit)| Some((*id, shown(commit)?)))
            .chain(self.workloads.iter().map(|(id, name)| (*id, name.clone())))
            .collect()
    }

    /// The justification of a request or emergency, if it was disclosed.
    pub fn justification(&self, request: StatementId) -> Option<String> {
        let opening = self.opened(*self.reasons.get(&request)?)?;
        Some(String::from_utf8_lossy(&opening.bytes.0).into_owned())
    }

    /// The task of a delegation, if it was disclosed.
    pub fn task(&self, delegation: StatementId) -> Option<String> {
        let opening = self.opened(*self.tasks.get(&delegation)?)?;
        Some(String::from_utf8_lossy(&opening.bytes.0).into_owned())
    }

    /// Actions whose intent is before `size`, in order. `absent` says what an absent opening means:
    /// `withheld` in a bundle, `missing` in a directory.
    pub fn actions(
        &self,
        state: &State,
        filter: &Filter,
        root: ascribe_tlog::Hash,
        size: u64,
        absent: &'static str,
    ) -> Vec<ActionRecord> {
        let mut report = Reporting {
            fold: self,
            state,
            names: self.names(),
            absent,
            known: HashMap::new(),
            origin: state.origin.as_str().into(),
            tree_size: size,
            root: crate::id::Root(root),
        };
        let everything = *filter == Filter::default();
        let mut records = Vec::with_capacity(if everything { self.actions.len() } else { 0 });
        let wanted = self
            .actions
            .iter()
            .filter(|seen| seen.place.index < size)
            .filter(|seen| filter.session.is_none_or(|s| s == seen.intent.session))
            .filter(|seen| filter.since.is_none_or(|t| seen.at >= t))
            .filter(|seen| filter.until.is_none_or(|t| seen.at < t))
            .filter_map(|seen| report.record(seen))
            .filter(|record| fits(record, filter));
        records.extend(wanted);
        records
    }

    /// The person, and then each agent with what it was delegated by.
    fn chain(
        &self,
        state: &State,
        open: &SessionOpen,
        names: &BTreeMap<PersonId, String>,
    ) -> Vec<Link> {
        let delegated = open.delegation.map(|id| state.delegation_chain(id));
        let delegated = delegated.unwrap_or_default();
        let mut actor = link(state, open, names);
        if let Some((_, first)) = delegated.first() {
            // The person did not log in: their key signed the first delegation.
            actor.evidence = format!("ssh-key {}", first.key);
            actor.assurance = first.assurance;
        }
        let mut chain = vec![actor];
        for (id, link) in delegated {
            let said = link.accepted.as_ref().map(|accepted| &accepted.asserted);
            chain.push(Link {
                principal: agent_id(&state.origin, id),
                display: Some(link.delegation.agent.clone()),
                kind: "agent".to_owned(),
                owner: Some(open.person),
                assurance: link.assurance,
                evidence: format!("delegation:{id}"),
                authn: None,
                run: None,
                code: None,
                trigger: None,
                protection: None,
                missing: Vec::new(),
                asserted: said
                    .filter(|said| said.texts().next().is_some())
                    .map(|said| Assertion {
                        by: "agent".to_owned(),
                        harness: said.harness.clone(),
                        model: said.model.clone(),
                        run: said.run.clone(),
                        version: said.version.clone(),
                    }),
                task: self.task(id),
            });
        }
        chain
    }

    fn what(
        &self,
        state: &State,
        seen: &Seen,
        open: &SessionOpen,
        method: String,
        absent: &'static str,
    ) -> What {
        let opening = seen.intent.command.and_then(|commit| self.opened(commit));
        // An action is its command with its environment: one that is not disclosed counts.
        let sql = seen.intent.sql.as_ref();
        let values = sql.and_then(|sql| sql.values);
        let sealed = seen.intent.command.into_iter().chain(seen.intent.env);
        let sealed = sealed.chain(values);
        let whole = sealed
            .into_iter()
            .all(|commit| self.opened(commit).is_some());
        let content = if whole { "present" } else { absent };
        let outcome = match &seen.outcome {
            Some((outcome, at)) => OutcomeRecord {
                status: outcome.status,
                exit_code: outcome.exit_code,
                signal: outcome.signal.clone(),
                notes: outcome.notes.clone(),
                sql: outcome.sql.clone(),
                at: Some(*at),
                streams: outcome.streams.iter().map(StreamRecord::of).collect(),
            },
            None => OutcomeRecord {
                status: Status::Unknown,
                exit_code: None,
                signal: None,
                notes: Vec::new(),
                sql: None,
                at: None,
                streams: Vec::new(),
            },
        };
        What {
            kind: seen.intent.kind.clone(),
            command: opening.map(|o| clean_bytes(&o.bytes.0, SHOWN)),
            command_b64: opening.map(|o| base64url(&o.bytes.0)),
            content: content.into(),
            within: seen.intent.within,
            target: open.target.clone(),
            account: open.account.clone(),
            system_owner: state
                .sessions
                .get(&open.session)
                .map(|session| session.owner),
            method,
            confidence: "observed".into(),
            sql: sql.map(|sql| SqlRecord {
                classes: sql.classes.clone(),
                flags: sql.flags.clone(),
                objects: sql.objects.clone(),
                objects_from: (!sql.objects.is_empty()).then(|| "record".to_owned()),
                functions: Vec::new(),
                unread: None,
                values: values
                    .and_then(|commit| self.opened(commit))
                    .map(|opening| clean_bytes(&opening.bytes.0, SHOWN)),
                step: sql.step.map(|step| step.number),
                port: sql.port,
            }),
            outcome,
        }
    }

    /// Actions whose streams were recorded and are not disclosed in full.
    pub fn sealed_streams(&self) -> impl Iterator<Item = ActionId> {
        let sealed = |seen: &&Seen| {
            let mut chunks = seen.evidence.iter().flat_map(|(_, e)| &e.chunks);
            chunks.any(|chunk| self.opened(chunk.commit).is_none())
        };
        self.actions
            .iter()
            .filter(sealed)
            .map(|seen| seen.intent.action)
    }

    /// Indexes of a session's evidence entries.
    pub fn evidence_of(&self, session: SessionId) -> Vec<u64> {
        self.actions
            .iter()
            .filter(|seen| seen.intent.session == session)
            .flat_map(|seen| seen.evidence.iter().map(|(index, _)| *index))
            .collect()
    }

    /// A session's actions that had a terminal: with the milliseconds after its first action.
    pub fn terminals(&self, session: SessionId) -> Vec<(ActionId, u64, Pty)> {
        let own = |seen: &&Seen| seen.intent.session == session;
        let first = self.actions.iter().find(own).map(|seen| seen.at);
        let after = |seen: &Seen| first.map_or(0, |first| seen.at.since(first)).max(0);
        let actions = self.actions.iter().filter(own);
        actions
            .filter_map(|seen| {
                let pty = seen.intent.pty.clone()?;
                Some((seen.intent.action, after(seen).unsigned_abs(), pty))
            })
            .collect()
    }

    /// The disclosed chunks of a session's streams, in order: action, stream, milliseconds, bytes.
    pub fn transcript(
        &self,
        session: SessionId,
        action: Option<ActionId>,
    ) -> Vec<(ActionId, String, u64, Option<Vec<u8>>)> {
        let first = self
            .actions
            .iter()
            .find(|seen| seen.intent.session == session)
            .map(|seen| seen.at);
        self.actions
            .iter()
            .filter(|seen| seen.intent.session == session)
            .filter(|seen| action.is_none_or(|a| a == seen.intent.action))
            .flat_map(|seen| {
                let offset = first
                    .map_or(0, |first| seen.at.since(first))
                    .max(0)
                    .unsigned_abs();
                seen.evidence
                    .iter()
                    .flat_map(|(_, e)| &e.chunks)
                    .map(move |chunk| {
                        let bytes = self.opened(chunk.commit).map(|o| o.bytes.0.clone());
                        (
                            seen.intent.action,
                            chunk.stream.clone(),
                            offset + chunk.after_ms,
                            bytes,
                        )
                    })
            })
            .collect()
    }
}

/// Records of actions in the making.
struct Reporting<'a> {
    fold: &'a Fold,
    state: &'a State,
    names: BTreeMap<PersonId, String>,
    absent: &'static str,
    /// What is the same for many actions: by session, and by how many extensions of its grant there were.
    known: HashMap<(SessionId, usize), (Arc<Who>, Arc<Why>)>,
    origin: Arc<str>,
    tree_size: u64,
    root: crate::id::Root,
}

impl Reporting<'_> {
    fn record(&mut self, seen: &Seen) -> Option<ActionRecord> {
        let (fold, session) = (self.fold, seen.intent.session);
        let open = fold.sessions.get(&session)?;
        let grant = self.state.grants.get(&open.grant)?;
        // As it stood when the action was recorded: what came later changes no older record. The
        // log's order decides; two entries may bear the same time.
        let held = grant
            .extensions
            .partition_point(|extended| extended.index < seen.place.index);
        let (who, why) = match self.known.get(&(session, held)) {
            Some(known) => known.clone(),
            None => {
                let made = (
                    Arc::new(self.who(open)),
                    Arc::new(self.why(open, grant, held)),
                );
                self.known.insert((session, held), made.clone());
                made
            }
        };
        let method = match seen.intent.kind.split_once('.') {
            Some(("ssh", what)) => ["gateway.", what].concat(),
            Some((files @ ("sftp" | "scp"), _)) => ["gateway.", files].concat(),
            Some(("pg", _)) => "gateway.postgres".to_owned(),
            Some(_) | None => "gateway.other".to_owned(),
        };
        Some(ActionRecord {
            v: 1,
            action_id: seen.intent.action,
            session_id: session,
            who,
            what: fold.what(self.state, seen, open, method, self.absent),
            when: When {
                at: seen.at,
                witnessed_before: fold.witnessed_before(seen.place.index),
            },
            why,
            integrity: Integrity {
                origin: Arc::clone(&self.origin),
                index: seen.place.index,
                entry_hash: seen.place.hash,
                tree_size: self.tree_size,
                root: self.root,
                stage: "sequenced".into(),
            },
        })
    }

    fn who(&self, open: &SessionOpen) -> Who {
        Who {
            chain: self.fold.chain(self.state, open, &self.names),
            opened_by: match open.opened_by {
                OpenedBy::Signed => "signed".to_owned(),
                OpenedBy::Testimony => "testimony".to_owned(),
            },
            door: open.door,
        }
    }

    /// When so many of the grant's extensions had been given.
    fn why(&self, open: &SessionOpen, grant: &GrantState, held: usize) -> Why {
        let (held, later) = grant.extensions.split_at(held);
        let not_after = later
            .first()
            .map_or(grant.grant.not_after, |extended| extended.before);
        let session = self.state.sessions.get(&open.session);
        let opened = session.and_then(|session| grant.grant.window_at(session.at));
        let approvals = grant
            .approvals
            .iter()
            .chain(held.iter().flat_map(|extended| &extended.approvals));
        Why {
            request_id: grant.request,
            grant_id: open.grant,
            justification: self.fold.justification(grant.request),
            ticket: grant.ticket.clone(),
            approvals: approvals
                .map(|approval| ApprovalRecord {
                    approver: approval.by,
                    method: "sshsig".to_owned(),
                    at: approval.at,
                    entry_hash: approval.place.hash,
                })
                .collect(),
            not_before: grant.grant.not_before,
            not_after,
            break_glass: grant.grant.break_glass,
            window: opened.filter(|_| !grant.grant.windows.is_empty()),
            job: grant.grant.sql.as_ref().and_then(|sql| sql.job.clone()),
        }
    }
}

/// Who acted, as it was when they logged in.
fn link(state: &State, open: &SessionOpen, names: &BTreeMap<PersonId, String>) -> Link {
    let login = open.login.and_then(|id| state.logins.get(&id));
    let workload = login.and_then(|login| login.workload.as_ref());
    let claims = login.map(|login| &login.login.claims);
    Link {
        principal: open.person,
        display: match workload {
            Some((name, _)) => Some(name.clone()),
            None => names.get(&open.person).cloned(),
        },
        kind: if workload.is_some() {
            "workload"
        } else {
            "person"
        }
        .to_owned(),
        owner: workload.map(|(_, owner)| *owner),
        assurance: state
            .sessions
            .get(&open.session)
            .map_or(0, |session| session.assurance),
        evidence: login_evidence(state, open),
        authn: claims.and_then(Claims::authn),
        run: claims.and_then(|claims| claims.run.clone()),
        code: claims.and_then(|claims| claims.code.clone()),
        trigger: claims.and_then(|claims| claims.trigger.clone()),
        protection: claims.and_then(|claims| claims.protection.clone()),
        missing: claims.map_or_else(Vec::new, missing),
        asserted: None,
        task: None,
    }
}

/// What a token leaves unsaid.
fn missing(claims: &Claims) -> Vec<String> {
    let mut missing = claims.missing.clone();
    if claims.run.is_some() && claims.protection.is_none() {
        missing.push("the login does not say whether what ran was protected".to_owned());
    }
    missing
}

/// What proved at the door whose login it was. The key id may hold spaces, what follows it does not.
fn login_evidence(state: &State, open: &SessionOpen) -> String {
    let login = open.login.and_then(|id| state.logins.get(&id));
    match (&open.certificate, login) {
        (None, Some(login)) => format!("login:{}", login.login.provider),
        (None, None) => format!("ssh-key {}", open.key),
        (Some(c), _) => format!(
            "ssh-cert {} {} serial {} principal {}",
            c.ca_name, c.key_id, c.serial.0, c.principal
        ),
    }
}

fn fits(record: &ActionRecord, filter: &Filter) -> bool {
    let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
    let holds =
        |text: &Option<String>, part: &str| text.as_deref().is_some_and(|t| t.contains(part));
    let actor = filter.actor.as_deref().is_none_or(|wanted| {
        record.who.chain.iter().any(|link| {
            let name = link.display.as_deref().unwrap_or_default().to_lowercase();
            link.principal.to_string() == wanted || name.contains(&wanted.to_lowercase())
        })
    });
    let agent = filter.agent.as_deref().is_none_or(|wanted| {
        let agents = record.who.chain.iter().filter(|link| link.kind == "agent");
        let named = |link: &Link| link.display.as_deref() == Some(wanted);
        let mut agents = agents.map(|link| named(link) || link.principal.to_string() == wanted);
        agents.any(|fits| fits)
    });
    let ticket = filter.ticket.as_deref().is_none_or(|wanted| {
        record
            .why
            .ticket
            .as_ref()
            .is_some_and(|t| t.id == wanted || format!("{}:{}", t.system, t.id) == wanted)
    });
    let text = filter.text.as_deref().is_none_or(|part| {
        // All of the command: what is shown of it is cut off.
        let exact = record.what.command_b64.as_deref();
        let exact = exact.and_then(crate::encoding::from_base64url);
        exact.is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains(part))
            || holds(&record.what.command, part)
            || holds(&record.why.justification, part)
            || record.who.chain.iter().any(|link| holds(&link.task, part))
    });
    let who = || record.who.chain.iter();
    let run = filter.run.as_deref().is_none_or(|wanted| {
        who().any(|link| link.run.as_ref().is_some_and(|run| run.id == wanted))
    });
    let commit = filter.commit.as_deref().is_none_or(|wanted| {
        let of = |link: &Link| link.code.as_ref()?.commit.clone();
        who()
            .filter_map(of)
            .any(|commit| commit == wanted || (wanted.len() >= 7 && commit.starts_with(wanted)))
    });
    let job = filter.job.as_deref().is_none_or(|wanted| {
        let job = record.why.job.as_ref();
        job.is_some_and(|job| job.name == wanted)
    });
    actor
        && agent
        && job
        && ticket
        && run
        && commit
        && text
        && same(&filter.account, &record.what.account)
        && same(&filter.target, &record.what.target)
        && filter.grant.is_none_or(|g| g == record.why.grant_id)
}
