//! The registry as an answer: people, targets, asks, grants, sessions. A view over the law's state.

use std::collections::BTreeMap;

use ascribe_core::database::SqlScope;
use ascribe_core::delegation::Asserted;
use ascribe_core::directory::{Directory, DirectoryGroup};
use ascribe_core::entry::CloseReason;
use ascribe_core::id::{ContentDigest, EntryHash, GrantId, PersonId, SessionId, StatementId};
use ascribe_core::identity::{Provider, Workload};
use ascribe_core::law::{
    AskStatus, Asked, DelegationState, GrantState, Person, ProviderState, State, WorkloadState,
};
use ascribe_core::statement::{Authority, Recurrence, Role, SshKey, Target, Ticket, Uses, Window};
use ascribe_core::time::Timestamp;
use ascribe_core::witness::WitnessSet;
use ascribe_tlog::{Quorum, TrustPolicy};
use serde::{Deserialize, Serialize};

/// Most jobs that a workload is told of.
const MAX_JOBS: usize = 64;

/// Everything that is not sealed, and people's names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registry {
    pub(crate) now: Timestamp,
    pub(crate) you: Option<PersonId>,
    pub(crate) people: Vec<PersonRow>,
    pub(crate) targets: Vec<Target>,
    pub(crate) authorities: Vec<Authority>,
    #[serde(default)]
    pub(crate) providers: Vec<ProviderRow>,
    #[serde(default)]
    pub(crate) identities: Vec<IdentityRow>,
    #[serde(default)]
    pub(crate) workloads: Vec<WorkloadRow>,
    #[serde(default)]
    pub(crate) directories: Vec<Directory>,
    pub(crate) asks: Vec<AskRow>,
    pub(crate) grants: Vec<GrantRow>,
    pub(crate) sessions: Vec<SessionRow>,
    #[serde(default)]
    pub(crate) delegations: Vec<DelegationRow>,
    /// What witnesses have seen; none where there are no witnesses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) witnesses: Option<SeenRow>,
}

/// How far witnesses have seen the log.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SeenRow {
    /// So many entries.
    pub(crate) size: u64,
    /// When the oldest entry was ordered that they have not seen, to the second.
    pub(crate) unseen_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PersonRow {
    pub(crate) id: PersonId,
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) keys: Vec<String>,
    /// The keys themselves: for administrators, who hold targets against them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) public_keys: Vec<SshKey>,
    pub(crate) offboarded: Option<Timestamp>,
    /// The directories that call them inactive, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) suspended: BTreeMap<String, Timestamp>,
    /// They would be suspended, but too few administrators would be left.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) spared: bool,
    /// The groups that directories put them into now, as far as rules name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<DirectoryGroup>,
    /// Who manages them, as a directory has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manager: Option<PersonId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProviderRow {
    pub(crate) provider: Provider,
    /// The entry of its newest keys, with when they were fetched; none before the first.
    pub(crate) keys_entry: Option<u64>,
    pub(crate) fetched: Option<Timestamp>,
    /// Thumbprints of those keys.
    pub(crate) keys: Vec<ContentDigest>,
    /// The observers that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) observers: Vec<ObserverRow>,
}

/// The newest word of one observer of a provider's keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObserverRow {
    pub(crate) person: PersonId,
    /// The entry of that word, with when the keys were fetched; none before the first.
    pub(crate) entry: Option<u64>,
    pub(crate) fetched: Option<Timestamp>,
    /// Thumbprints of what they saw.
    pub(crate) keys: Vec<ContentDigest>,
    /// Does the word count now? Not if it is too old, or the observer has left.
    pub(crate) counts: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct IdentityRow {
    pub(crate) provider: String,
    pub(crate) subject: ContentDigest,
    pub(crate) person: PersonId,
}

/// A workload with what shows whether it is still needed, and whether somebody answers for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkloadRow {
    pub(crate) workload: Workload,
    /// When its present rule came to count.
    pub(crate) since: Timestamp,
    pub(crate) last_login: Option<Timestamp>,
    pub(crate) last_session: Option<Timestamp>,
    /// Grants that hold, and those of them that a session was opened under.
    pub(crate) grants: Vec<GrantId>,
    pub(crate) used: Vec<GrantId>,
    /// Nobody who is still here answers for it: it does nothing.
    pub(crate) orphaned: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AskRow {
    pub(crate) id: StatementId,
    pub(crate) entry: EntryHash,
    pub(crate) by: PersonId,
    pub(crate) at: Timestamp,
    pub(crate) kind: String,
    pub(crate) what: String,
    /// All that a yes would allow beside that, a line each.
    #[serde(default)]
    pub(crate) details: Vec<String>,
    pub(crate) status: String,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) not_after: Option<Timestamp>,
    pub(crate) recurrence: Option<Recurrence>,
    /// What statements are asked for, where anything bounds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sql: Option<SqlScope>,
    pub(crate) approved_by: Vec<PersonId>,
    pub(crate) can_approve: Vec<PersonId>,
    pub(crate) missing: usize,
    /// Those whose yes is missing and who must give it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) must_approve: Vec<PersonId>,
    /// The manager of whoever asks must, too, and no directory says who that is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lacks_manager: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GrantRow {
    pub(crate) id: GrantId,
    pub(crate) request: StatementId,
    pub(crate) person: PersonId,
    pub(crate) target: String,
    pub(crate) account: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// What may be forwarded besides.
    #[serde(default)]
    pub(crate) forwards: Vec<String>,
    /// Its rule, zone and windows, where it has several.
    pub(crate) recurrence: Option<Recurrence>,
    /// The window to wait for: none inside one, none after the last.
    pub(crate) next: Option<Window>,
    /// The window that is open now.
    pub(crate) present: Option<Window>,
    pub(crate) uses: Uses,
    pub(crate) break_glass: bool,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) approved_by: Vec<PersonId>,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) status: String,
    pub(crate) review_due: Option<Timestamp>,
    pub(crate) reviewed: Option<Timestamp>,
    /// What statements it allows, where anything bounds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sql: Option<SqlScope>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) id: SessionId,
    pub(crate) grant: GrantId,
    pub(crate) person: PersonId,
    /// The chain of agents, where it was not the person who acted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) agents: Vec<String>,
    pub(crate) target: String,
    pub(crate) account: String,
    pub(crate) at: Timestamp,
    pub(crate) actions: u64,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) reason: Option<String>,
}

/// A delegation to an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DelegationRow {
    pub(crate) id: StatementId,
    pub(crate) entry: EntryHash,
    /// At the head of its chain.
    pub(crate) person: PersonId,
    pub(crate) parent: Option<StatementId>,
    pub(crate) agent: String,
    /// The agent's key: its fingerprint.
    pub(crate) key: String,
    pub(crate) targets: Vec<String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) depth: u8,
    pub(crate) actions: u64,
    pub(crate) used: u64,
    /// What is left of its own budget and of all above.
    pub(crate) left: u64,
    pub(crate) until: Timestamp,
    pub(crate) accepted: Option<Timestamp>,
    pub(crate) asserted: Option<Asserted>,
    /// `waiting` for its agent, `active`, `used`, `expired` or `revoked`, by one above too.
    pub(crate) status: String,
}

impl DelegationRow {
    /// Is it over for good?
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "expired" | "revoked")
    }
}

/// One delegation, as it stands now.
pub(crate) fn delegation_row(
    state: &State,
    id: StatementId,
    link: &DelegationState,
    now: Timestamp,
) -> DelegationRow {
    let chain = state.delegation_chain(id);
    let left = chain
        .iter()
        .map(|(_, l)| l.delegation.actions.saturating_sub(l.used));
    let left = left.min().unwrap_or(0);
    let status = match state.delegation_ended(id, now) {
        Some(CloseReason::Expired) => "expired",
        Some(_) => "revoked",
        None if link.accepted.is_none() => "waiting",
        None if left == 0 => "used",
        None => "active",
    };
    let delegation = &link.delegation;
    DelegationRow {
        id,
        entry: link.place.hash,
        person: link.person,
        parent: delegation.parent,
        agent: delegation.agent.clone(),
        key: delegation.key.fingerprint(),
        targets: delegation.targets.clone(),
        kinds: delegation.kinds.clone(),
        depth: delegation.depth,
        actions: delegation.actions,
        used: link.used,
        left,
        until: delegation.until,
        accepted: link.accepted.as_ref().map(|accepted| accepted.at),
        asserted: link.accepted.as_ref().map(|a| a.asserted.clone()),
        status: status.to_owned(),
    }
}

/// Names of a delegation's chain of agents.
fn agents(state: &State, delegation: Option<StatementId>) -> Vec<String> {
    let chain = delegation.map(|id| state.delegation_chain(id));
    let chain = chain.unwrap_or_default().into_iter();
    chain
        .map(|(_, link)| link.delegation.agent.clone())
        .collect()
}

/// A person's name, or the id where the name is not known.
pub(crate) fn name_of(names: &BTreeMap<PersonId, String>, id: PersonId) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

fn ask_rows(state: &State) -> Vec<AskRow> {
    let mut rows: Vec<AskRow> = state
        .asks
        .iter()
        .map(|(id, ask)| {
            let missing = state.missing_approvals(ask).unwrap_or_default();
            let mut row = AskRow {
                id: *id,
                entry: ask.place.hash,
                by: ask.by,
                at: ask.at,
                kind: String::new(),
                what: String::new(),
                details: Vec::new(),
                status: match ask.status {
                    AskStatus::Open => "open",
                    AskStatus::Granted => "granted",
                    AskStatus::Denied => "denied",
                    AskStatus::Cancelled => "cancelled",
                }
                .to_owned(),
                ticket: None,
                not_before: None,
                not_after: None,
                recurrence: None,
                sql: None,
                approved_by: ask.approvals.iter().map(|a| a.by).collect(),
                can_approve: state.approvers(ask),
                missing: missing.len(),
                must_approve: missing.into_iter().flatten().collect(),
                lacks_manager: ask.status == AskStatus::Open && state.lacks_manager(ask),
            };
            match &ask.asked {
                Asked::Request(request) => {
                    row.kind = "request".into();
                    row.what = format!("{}@{}", request.account, request.target);
                    if let Some(id) = request.beneficiary {
                        let workload = state.workloads.get(&id).map(|w| &w.workload);
                        let name = workload.map_or_else(|| id.to_string(), |w| w.name.clone());
                        row.what.push_str(&format!(" for workload {name}"));
                    }
                    row.ticket.clone_from(&request.ticket);
                    row.not_before = Some(request.not_before);
                    row.not_after = Some(request.not_after);
                    row.recurrence.clone_from(&request.recurrence);
                    let forwards = request.forwards.iter();
                    row.details = forwards.map(|f| format!("forwarding {f}")).collect();
                    row.details.extend(request.sql.iter().flat_map(sql_details));
                    row.sql.clone_from(&request.sql);
                }
                Asked::Emergency(emergency) => {
                    row.kind = "break-glass".into();
                    row.what = format!("{}@{}", emergency.account, emergency.target);
                    row.ticket.clone_from(&emergency.ticket);
                    row.not_after = Some(emergency.not_after);
                }
                Asked::Extension(extension) => {
                    row.kind = "extension".into();
                    row.what = extension.grant.to_string();
                    row.not_after = Some(extension.not_after);
                    let grant = state.grants.get(&extension.grant).map(|known| &known.grant);
                    let sql = grant.and_then(|grant| grant.sql.as_ref());
                    row.details = sql.into_iter().flat_map(sql_details).collect();
                }
                Asked::Proposal(say) => {
                    row.kind = say.tag().into();
                    row.what = proposal_subject(say);
                    row.details = proposal_details(say);
                }
            }
            row
        })
        .collect();
    rows.sort_by_key(|row| (row.at, row.id));
    rows
}

/// What statements a yes would allow, a line each.
fn sql_details(scope: &SqlScope) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(job) = &scope.job {
        lines.push(format!(
            "job {}, {}: {}",
            job.name, job.schedule, job.definition
        ));
    }
    if !scope.classes.is_empty() {
        lines.push(format!("statements of class {}", scope.classes.join(", ")));
    }
    if !scope.objects.is_empty() {
        lines.push(format!("statements on {}", scope.objects.join(", ")));
    }
    if scope.job.is_some() && scope.script.is_empty() {
        lines.push("a command, known by its digest: any statement of these classes".to_owned());
    }
    if !scope.script.is_empty() {
        lines.push(match scope.script.len() {
            1 => "exactly 1 statement".to_owned(),
            count => format!("exactly {count} statements"),
        });
    }
    lines
}

fn proposal_subject(say: &ascribe_core::statement::Say) -> String {
    use ascribe_core::statement::Say;
    match say {
        Say::TargetSet(target) => target.name.clone(),
        Say::PersonAdd(person) => person.person.to_string(),
        Say::KeyAdd(key) => format!("{} {}", key.person, key.key.fingerprint()),
        Say::Offboard(leaver) => leaver.person.to_string(),
        Say::CaSet(authority) => authority_subject(authority),
        Say::ProviderSet(provider) => match provider.withdrawn {
            false => format!("{} {}", provider.name, provider.issuer),
            true => format!("{}, withdrawn", provider.name),
        },
        Say::IdentityLink(link) => format!("{}={} {}", link.person, link.provider, link.subject),
        Say::WorkloadSet(workload) => match workload.withdrawn {
            false => format!("{} of {}", workload.name, workload.provider),
            true => format!("{}, withdrawn", workload.name),
        },
        Say::WitnessSet(set) => witness_subject(set),
        Say::DirectorySet(directory) => match directory.withdrawn {
            false => format!("{} of {}", directory.name, directory.provider),
            true => format!("{}, withdrawn", directory.name),
        },
        _ => String::new(),
    }
}

/// What an administrator approves: witnesses, quorum, and what waits for them.
fn witness_subject(set: &WitnessSet) -> String {
    let policy = TrustPolicy::parse(&set.policy).unwrap_or_default();
    let names = policy.witnesses.iter().map(|w| w.name.as_str());
    let names: Vec<&str> = names.collect();
    let quorum = match &policy.quorum {
        Quorum::None => return "no witnesses".to_owned(),
        Quorum::Name(name) => name,
    };
    let demands: Vec<String> = set.demand.iter().map(crate::cli::word_of).collect();
    format!(
        "{}; quorum {quorum}; {} wait for them",
        names.join(" "),
        if demands.is_empty() {
            "none".to_owned()
        } else {
            demands.join(" ")
        }
    )
}

/// Every member of a proposal, as it is signed.
fn proposal_details(say: &ascribe_core::statement::Say) -> Vec<String> {
    let value = serde_json::to_value(say).unwrap_or_default();
    let body = value.as_object().and_then(|say| say.values().next());
    let members = body.and_then(serde_json::Value::as_object);
    let members = members.into_iter().flatten();
    members
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

fn recurrence_of(state: &State, request: StatementId) -> Option<Recurrence> {
    match &state.asks.get(&request)?.asked {
        Asked::Request(request) => request.recurrence.clone(),
        Asked::Emergency(_) | Asked::Extension(_) | Asked::Proposal(_) => None,
    }
}

/// What an administrator approves: keys and people, or that they go.
fn authority_subject(authority: &Authority) -> String {
    if authority.keys.is_empty() {
        return format!("{}, withdrawn", authority.name);
    }
    let keys: Vec<String> = authority.keys.iter().map(|key| key.fingerprint()).collect();
    let people = authority.people.iter();
    let people: Vec<String> = people
        .map(|m| format!("{}={}", m.person, m.principal))
        .collect();
    let revoked = &authority.revoked;
    format!(
        "{} {} for {}; revoked: {}",
        authority.name,
        keys.join(" "),
        people.join(" "),
        revoked.serials.len() + revoked.key_ids.len()
    )
}

/// Grants of a workload's jobs that count now.
pub(crate) fn job_rows(state: &State, actor: PersonId, now: Timestamp) -> Vec<GrantRow> {
    if !state.workloads.contains_key(&actor) {
        return Vec::new();
    }
    let mut rows = grant_rows(state, now);
    rows.retain(|row| {
        let job = row.sql.as_ref().is_some_and(|sql| sql.job.is_some());
        job && row.person == actor && row.status == "active"
    });
    rows.truncate(MAX_JOBS);
    rows
}

fn grant_rows(state: &State, now: Timestamp) -> Vec<GrantRow> {
    let mut rows: Vec<GrantRow> = state
        .grants
        .values()
        .map(|g| {
            let status = if g.revoked.is_some() {
                "revoked"
            } else if now >= g.grant.not_after {
                "expired"
            } else if now < g.grant.not_before {
                "not yet"
            } else if g.grant.next_opening(now).is_some() {
                "between windows"
            } else if state.is_usable(g, now) {
                "active"
            } else {
                "used"
            };
            GrantRow {
                id: g.grant.grant,
                request: g.request,
                person: g.grant.person,
                target: g.grant.target.clone(),
                account: g.grant.account.clone(),
                not_before: g.grant.not_before,
                not_after: g.grant.not_after,
                forwards: g.grant.forwards.iter().map(ToString::to_string).collect(),
                recurrence: recurrence_of(state, g.request),
                next: g.grant.next_opening(now),
                present: g.grant.window_at(now),
                uses: g.grant.uses,
                break_glass: g.grant.break_glass,
                ticket: g.ticket.clone(),
                approved_by: g.approvals.iter().map(|a| a.by).collect(),
                sessions: g.sessions.clone(),
                status: status.to_owned(),
                sql: g.grant.sql.clone(),
                review_due: g.review_due,
                reviewed: g.reviewed,
            }
        })
        .collect();
    rows.sort_by_key(|row| (row.not_before, row.id));
    rows
}

impl GrantRow {
    /// When it allows something: until its end, or by its rule, the present window and the next.
    pub(crate) fn when(&self) -> String {
        let Some(recurrence) = &self.recurrence else {
            let begin = self
                .next
                .map_or(String::new(), |w| format!("from {} ", w.from));
            return format!("{begin}until {}", self.not_after);
        };
        let window = match (self.present, self.next) {
            (Some(now), _) => format!(", this one until {}", now.until),
            (None, Some(next)) => format!(", next from {} until {}", next.from, next.until),
            (None, None) => String::new(),
        };
        let rule = format!("{} {}", recurrence.rule, recurrence.zone);
        let rule = ascribe_core::text::clean(&rule, 120);
        format!("{rule} until {}{window}", self.not_after)
    }
}

fn observer_row(state: &State, known: &ProviderState, id: PersonId, now: Timestamp) -> ObserverRow {
    let word = known.seen.get(&id);
    ObserverRow {
        person: id,
        entry: word.map(|word| word.place.index),
        fetched: word.map(|word| word.fetched),
        keys: word.iter().flat_map(|word| &word.keys).copied().collect(),
        counts: state.observes(now, known, id),
    }
}

fn provider_rows(state: &State, now: Timestamp) -> Vec<ProviderRow> {
    let row = |known: &ProviderState| ProviderRow {
        provider: known.provider.clone(),
        keys_entry: known.keys.as_ref().map(|keys| keys.place.index),
        fetched: known.keys.as_ref().map(|keys| keys.fetched),
        keys: known
            .keys
            .iter()
            .flat_map(|keys| &keys.thumbprints)
            .copied()
            .collect(),
        observers: known
            .provider
            .observers
            .iter()
            .flat_map(|observers| &observers.people)
            .map(|id| observer_row(state, known, *id, now))
            .collect(),
    };
    state.providers.values().map(row).collect()
}

fn workload_rows(state: &State, now: Timestamp) -> Vec<WorkloadRow> {
    let row = |(id, known): (&PersonId, &WorkloadState)| {
        let logins = state.logins.values().filter(|login| login.by == *id);
        let sessions = state.sessions.values().filter(|s| s.open.person == *id);
        let holds = |g: &&GrantState| {
            g.grant.person == *id && g.revoked.is_none() && now < g.grant.not_after
        };
        let held: Vec<&GrantState> = state.grants.values().filter(holds).collect();
        let owner = state.people.get(&known.workload.owner);
        WorkloadRow {
            workload: known.workload.clone(),
            since: known.at,
            last_login: logins.map(|login| login.at).max(),
            last_session: sessions.map(|session| session.at).max(),
            grants: held.iter().map(|g| g.grant.grant).collect(),
            used: held
                .iter()
                .filter(|g| !g.sessions.is_empty())
                .map(|g| g.grant.grant)
                .collect(),
            orphaned: owner.is_none_or(Person::is_away),
        }
    };
    state.workloads.iter().map(row).collect()
}

/// The registry at this moment.
pub(crate) fn registry(
    state: &State,
    names: &BTreeMap<PersonId, String>,
    you: Option<PersonId>,
    now: Timestamp,
) -> Registry {
    let admin = you
        .and_then(|id| state.people.get(&id))
        .is_some_and(|person| person.may(Role::Admin));
    let people = state
        .people
        .iter()
        .map(|(id, person)| PersonRow {
            id: *id,
            name: name_of(names, *id),
            roles: person
                .roles
                .union(&person.directory_roles)
                .copied()
                .collect(),
            keys: person.keys.keys().cloned().collect(),
            public_keys: person.keys.values().filter(|_| admin).cloned().collect(),
            offboarded: person.offboarded,
            suspended: person.suspended.clone(),
            spared: person.spared,
            groups: person.groups.iter().map(|own| own.group.clone()).collect(),
            manager: person.manager.as_ref().map(|manager| manager.person),
        })
        .collect();
    let mut sessions: Vec<SessionRow> = state
        .sessions
        .iter()
        .map(|(id, s)| SessionRow {
            id: *id,
            grant: s.open.grant,
            person: s.open.person,
            agents: agents(state, s.open.delegation),
            target: s.open.target.clone(),
            account: s.open.account.clone(),
            at: s.at,
            actions: s.actions,
            ended: s.closed.map(|(at, _)| at),
            reason: s.closed.map(|(_, reason)| {
                serde_json::to_value(reason)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default()
            }),
        })
        .collect();
    sessions.sort_by_key(|row| (row.at, row.id));
    // In the order of the log: whoever hands on stands before what is handed on.
    let mut delegations: Vec<_> = state.delegations.iter().collect();
    delegations.sort_by_key(|(_, link)| link.place.index);
    let delegations = delegations.into_iter();
    let delegations = delegations
        .map(|(id, link)| delegation_row(state, *id, link, now))
        .collect();
    Registry {
        now,
        you,
        people,
        targets: state.targets.values().map(|t| t.target.clone()).collect(),
        authorities: state
            .cas
            .iter()
            .map(|(name, ca)| ca.authority(name))
            .collect(),
        providers: provider_rows(state, now),
        identities: state
            .identities()
            .map(|(provider, subject, person)| IdentityRow {
                provider: provider.clone(),
                subject: *subject,
                person,
            })
            .collect(),
        workloads: workload_rows(state, now),
        directories: state
            .directories
            .values()
            .map(|d| d.directory.clone())
            .collect(),
        asks: ask_rows(state),
        grants: grant_rows(state, now),
        sessions,
        delegations,
        witnesses: state.witnesses.set.as_ref().map(|_| SeenRow {
            size: state.witnesses.size,
            unseen_since: state.witnesses.unseen_since(),
        }),
    }
}
