//! Workloads: actors without keys of their own, whom exact claims of a token name and a living person
//! answers for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Denied, OWNERS_AND_FORKS, Person, Place, State, rules};
use crate::id::PersonId;
use crate::identity::{Condition, Fact, Login, ProviderKind, Workload};
use crate::statement::{Say, View};
use crate::text::is_unsafe;
use crate::time::Timestamp;

/// Most workloads, withdrawn ones included.
const MAX_WORKLOADS: usize = 4096;
/// Most conditions of one workload, and most values of one condition.
const MAX_CONDITIONS: usize = 16;
const MAX_VALUES: usize = 64;
/// Longest claim name and value, in bytes.
const MAX_CLAIM: usize = 128;
const MAX_VALUE: usize = 512;
/// Least characters of a confirmation.
const MIN_CONFIRMATION: u32 = 20;

/// A workload, as the law knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadState {
    /// When its present rule came to count: its provider, conditions and confirmation.
    pub at: Timestamp,
    /// The statement that set it.
    pub place: Place,
    /// Its rule.
    pub workload: Workload,
}

/// Claims that together identify one repository, project, service account or SPIFFE id: each list by
/// itself is enough.
fn identifying(kind: ProviderKind) -> &'static [&'static [&'static str]] {
    match kind {
        ProviderKind::Github => &[&["repository_id", "ref"], &["repository_id", "environment"]],
        ProviderKind::Gitlab => &[&["project_id"]],
        ProviderKind::Buildkite => &[
            &["pipeline_id"],
            &["pipeline_slug", "organization_slug"],
            &["pipeline_slug", "organization_id"],
        ],
        ProviderKind::Circleci => &[&["oidc.circleci.com/project-id"]],
        ProviderKind::Kubernetes => &[
            &[
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/name",
            ],
            &[
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/uid",
            ],
        ],
        ProviderKind::Spiffe | ProviderKind::SpiffeX509 | ProviderKind::Workload => &[&["sub"]],
        // Their tokens name people.
        ProviderKind::Entra | ProviderKind::Oidc => &[],
    }
}

const CIRCLECI_ORIGIN: &str = "oidc.circleci.com/vcs-origin";
const CIRCLECI_REF: &str = "oidc.circleci.com/vcs-ref";
const PROTECTED: &str = "ref_protected";

/// Claims that together say which of the project's code runs: each list by itself is enough. Without one, every branch meets the
/// rule, and where forks' pull requests are built, everybody's code. None where that is with what identifies, or code is not named.
fn bounding(kind: ProviderKind) -> &'static [&'static [&'static str]] {
    match kind {
        ProviderKind::Gitlab => &[
            &["ref_path"],
            &["ref", "ref_type"],
            &[PROTECTED],
            &["environment"],
        ],
        ProviderKind::Buildkite => &[&["build_branch"], &["build_tag"]],
        // A fork's pipeline names the fork's origin, and what the branch is called there.
        ProviderKind::Circleci => &[&[CIRCLECI_ORIGIN, CIRCLECI_REF]],
        ProviderKind::Github
        | ProviderKind::Kubernetes
        | ProviderKind::Spiffe
        | ProviderKind::SpiffeX509
        | ProviderKind::Workload
        | ProviderKind::Entra
        | ProviderKind::Oidc => &[],
    }
}

/// Is what ran evidently of a pull request, by the branch or reference that this provider names? Buildkite writes the fork's owner and
/// a colon, which no branch's name has, before the branch of a fork.
fn is_pull_request(kind: ProviderKind, reference: &str) -> bool {
    let begins = |words: &[&str]| words.iter().any(|word| reference.starts_with(word));
    match kind {
        ProviderKind::Buildkite => reference.contains(':') || begins(&["pull/", "refs/pull/"]),
        ProviderKind::Circleci => begins(&[
            "pull/",
            "refs/pull/",
            "refs/heads/pull/",
            "refs/merge-requests/",
        ]),
        _ => false,
    }
}

/// Could anybody who opens a pull request meet a condition with this value?
fn is_anybodys(kind: ProviderKind, claim: &str, value: &str) -> bool {
    match (kind, claim) {
        (ProviderKind::Gitlab, "pipeline_source") => {
            matches!(value, "merge_request_event" | "external_pull_request_event")
        }
        (ProviderKind::Gitlab, "ref_path" | "ref") => value.starts_with("refs/merge-requests/"),
        (ProviderKind::Buildkite, "build_branch") | (ProviderKind::Circleci, CIRCLECI_REF) => {
            is_pull_request(kind, value)
        }
        _ => false,
    }
}

fn one_of(lists: &[&[&str]]) -> String {
    let lists: Vec<String> = lists.iter().map(|claims| claims.join(" and ")).collect();
    lists.join(", or ")
}

/// Why a pull request could meet this rule, if one could.
fn open_to_pull_requests(kind: ProviderKind, conditions: &[Condition]) -> Option<String> {
    // What is not protected is every other branch.
    let says = |c: &&Condition| c.claim != PROTECTED || c.one_of.iter().all(|v| v == "true");
    let named = |claim: &&str| conditions.iter().filter(says).any(|c| c.claim == **claim);
    let lists = bounding(kind);
    if !lists.is_empty() && !lists.iter().any(|claims| claims.iter().all(named)) {
        return Some(format!(
            "every branch would meet the rule, and pull requests of forks where they are built: name {}",
            one_of(lists)
        ));
    }
    let anybodys = |c: &Condition| c.one_of.iter().any(|v| is_anybodys(kind, &c.claim, v));
    conditions
        .iter()
        .any(anybodys)
        .then(|| "anybody who can open a pull request would meet the rule".to_owned())
}

/// Why many could meet this rule, if they could.
fn too_wide(kind: ProviderKind, conditions: &[Condition]) -> Option<String> {
    let named = |claim: &&str| conditions.iter().any(|c| c.claim == **claim);
    let lists = identifying(kind);
    if !lists.iter().any(|claims| claims.iter().all(named)) {
        return Some(format!(
            "the rule does not say exactly whose tokens it means: name {}",
            one_of(lists)
        ));
    }
    let values = || conditions.iter().flat_map(|c| &c.one_of);
    if values().any(|value| value.contains('*')) {
        return Some("values are compared as they are: a `*` is no wildcard".to_owned());
    }
    let anybody = |c: &&Condition| match c.claim.as_str() {
        "event_name" => c.one_of.iter().any(|v| v.starts_with("pull_request")),
        "ref" => c.one_of.iter().any(|v| v.starts_with("refs/pull/")),
        _ => false,
    };
    if kind == ProviderKind::Github && conditions.iter().any(|c| anybody(&c)) {
        return Some("anybody who can open a pull request would meet the rule".to_owned());
    }
    None
}

fn check_conditions(conditions: &[Condition]) -> Result<(), Denied> {
    let refuse = |text: &str| Err(Denied::new("workload", text));
    let is_text = |text: &str, max| {
        (1..=max).contains(&text.len()) && text.trim() == text && !text.chars().any(is_unsafe)
    };
    if conditions.is_empty() || conditions.len() > MAX_CONDITIONS {
        return refuse("a workload has one to sixteen conditions");
    }
    let mut claims = BTreeSet::new();
    for condition in conditions {
        if !is_text(&condition.claim, MAX_CLAIM) || !claims.insert(&condition.claim) {
            return refuse("a condition names a claim of at most 128 bytes, each claim once");
        }
        let mut values = BTreeSet::new();
        let fits = |value: &String| is_text(value, MAX_VALUE) && values.insert(value.clone());
        let count = condition.one_of.len();
        if count == 0 || count > MAX_VALUES || !condition.one_of.iter().all(fits) {
            return refuse("a condition has one to 64 different values of at most 512 bytes");
        }
    }
    Ok(())
}

/// Do a token's facts meet every condition?
fn meets(conditions: &[Condition], facts: &[Fact]) -> bool {
    let facts: BTreeMap<&str, &String> = facts
        .iter()
        .map(|fact| (fact.claim.as_str(), &fact.value))
        .collect();
    conditions.iter().all(|condition| {
        let value = facts.get(condition.claim.as_str());
        value.is_some_and(|value| condition.one_of.contains(value))
    })
}

impl State {
    pub(super) fn workload(&self, id: PersonId) -> Result<&WorkloadState, Denied> {
        self.workloads.get(&id).ok_or_else(|| {
            Denied::new("no-workload", format!("no workload has the id `{id}`"))
                .with_help("`ascribe workload list` shows all")
        })
    }

    /// The workload of this name or id.
    pub fn workload_called(&self, name: &str) -> Option<(PersonId, &Workload)> {
        let mut all = self.workloads.iter();
        let found = all.find(|(id, w)| w.workload.name == name || id.to_string() == name);
        found.map(|(id, state)| (*id, &state.workload))
    }

    /// The workloads of this provider that a token means: each condition is met by the facts that `facts` finds
    /// in it of the claims it is asked for.
    pub fn workloads_meant(
        &self,
        provider: &str,
        facts: impl Fn(&[&str]) -> Option<Vec<Fact>>,
    ) -> Vec<PersonId> {
        let meant = |state: &WorkloadState| {
            let conditions = &state.workload.conditions;
            let names: Vec<&str> = conditions.iter().map(|c| c.claim.as_str()).collect();
            facts(&names).is_some_and(|facts| meets(conditions, &facts))
        };
        let all = self.workloads.iter();
        all.filter(|(_, state)| state.workload.provider == provider && !state.workload.withdrawn)
            .filter(|(_, state)| meant(state))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The living person who answers for an actor: a workload's owner, a person themself.
    pub(super) fn answers_for(&self, actor: PersonId) -> Option<PersonId> {
        match self.workloads.get(&actor) {
            Some(state) => Some(state.workload.owner),
            None => self.people.contains_key(&actor).then_some(actor),
        }
    }

    /// May this actor do nothing any more? So it is with a workload whose owner has left.
    pub(super) fn has_left(&self, actor: PersonId) -> bool {
        let withdrawn = self
            .workloads
            .get(&actor)
            .is_some_and(|state| state.workload.withdrawn);
        let person = self.answers_for(actor);
        let person = person.and_then(|person| self.people.get(&person));
        withdrawn || person.is_none_or(Person::is_away)
    }

    /// Why this actor does nothing any more.
    pub(super) fn away(&self, actor: PersonId) -> Denied {
        let person = self.answers_for(actor).and_then(|id| self.people.get(&id));
        match person.filter(|person| person.offboarded.is_none()) {
            Some(person) if !person.suspended.is_empty() => {
                let names: Vec<&str> = person.suspended.keys().map(String::as_str).collect();
                Denied::new(
                    "suspended",
                    format!("suspended by directory `{}`", names.join("`, `")),
                )
                .with_help("it ends when that directory calls the person active again")
            }
            Some(_) | None => Denied::new("offboarded", "the author has left"),
        }
    }

    /// Refuses an actor who may do nothing any more.
    pub(super) fn check_present(&self, actor: PersonId) -> Result<(), Denied> {
        if !self.has_left(actor) {
            return Ok(());
        }
        match self.workloads.get(&actor) {
            None => Err(self.away(actor)),
            Some(state) if state.workload.withdrawn => {
                Err(Denied::new("withdrawn", "the workload was withdrawn"))
            }
            Some(_) => Err(
                Denied::new("orphaned", "whoever answers for the workload has left").with_help(
                    "an administrator names another: `ascribe workload owner NAME PERSON`",
                ),
            ),
        }
    }

    /// The actor of that id, of whichever kind.
    pub(super) fn check_actor(&self, id: PersonId) -> Result<(), Denied> {
        if self.workloads.contains_key(&id) {
            return Ok(());
        }
        self.person(id).map(drop)
    }

    /// A workload acts. It asks, approves and changes nothing, and reads no more than its own sessions.
    pub(super) fn check_may_say(&self, by: PersonId, say: &Say) -> Result<(), Denied> {
        let allowed = match say {
            Say::Login(_) | Say::Logout(_) | Say::Connect(_) => true,
            Say::Read(read) => {
                let own = matches!(read.view, View::Actions | View::Replay | View::Export);
                own && read.session.is_some()
            }
            _ => false,
        };
        if allowed || !self.workloads.contains_key(&by) {
            return Ok(());
        }
        Err(Denied::new("workload", "a workload only acts").with_help(
            "its owner asks for it: `ascribe request ACCOUNT@TARGET --workload NAME --why ...`",
        ))
    }

    pub(super) fn check_workload(&self, workload: &Workload) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("workload", text));
        let known = self.workloads.get(&workload.workload);
        if known.is_none() && (workload.withdrawn || self.workloads.len() >= MAX_WORKLOADS) {
            return refuse("there is no such workload, or there are 4096 already");
        }
        if self.people.contains_key(&workload.workload) {
            return Err(Denied::new("duplicate", "a person has this id"));
        }
        if !rules::is_name(&workload.name) {
            return refuse(
                "a workload's name is 1 to 63 lower-case letters, digits, `-`, `.`, `_`",
            );
        }
        let mut others = self.workloads.iter();
        if others.any(|(id, w)| *id != workload.workload && w.workload.name == workload.name) {
            return Err(Denied::new("duplicate", "another workload has this name"));
        }
        check_conditions(&workload.conditions)?;
        if workload.withdrawn {
            // Whatever else has changed meanwhile: taking away is always possible.
            return Ok(());
        }
        let provider = &self.live_provider(&workload.provider)?.provider;
        if provider.kind.is_of_people() {
            return refuse("tokens of this provider name people");
        }
        if self.person(workload.owner)?.is_away() {
            return Err(Denied::new(
                "owner",
                "the owner has left or is suspended; name somebody who is there",
            ));
        }
        let (kind, conditions) = (provider.kind, &workload.conditions);
        let asks = self.version >= OWNERS_AND_FORKS;
        let of_pull_requests = || open_to_pull_requests(kind, conditions).filter(|_| asks);
        let wide = too_wide(kind, conditions).or_else(of_pull_requests);
        match (&workload.confirmed, wide) {
            (Some(confirmed), _) => rules::check_prose(confirmed, MIN_CONFIRMATION, "confirmation"),
            (None, Some(why)) => Err(Denied::new("wide-rule", why)
                .with_help("if it is meant, say why in writing: `--confirm TEXT`")),
            (None, None) => Ok(()),
        }
    }

    pub(super) fn take_workload(&mut self, workload: &Workload, at: Timestamp, place: Place) {
        // Another owner, or its end, changes nothing of whom the rule lets in.
        let same = |known: &&WorkloadState| {
            let old = &known.workload;
            !old.withdrawn
                && old.provider == workload.provider
                && old.conditions == workload.conditions
                && old.confirmed == workload.confirmed
        };
        let known = self.workloads.get(&workload.workload).filter(same);
        let state = WorkloadState {
            at: known.map_or(at, |known| known.at),
            place,
            workload: workload.clone(),
        };
        self.workloads.insert(workload.workload, state);
    }

    /// Does the login's token meet the workload's present rule?
    pub(super) fn check_workload_rule(&self, by: PersonId, login: &Login) -> Result<(), Denied> {
        let workload = &self.workload(by)?.workload;
        self.check_present(by)?;
        if workload.provider != login.provider {
            return Err(Denied::new(
                "workload",
                "the workload's tokens are of another provider",
            ));
        }
        if !meets(&workload.conditions, &login.claims.facts) {
            return Err(Denied::new(
                "conditions",
                "the token does not meet the workload's conditions",
            )
            .with_help(format!("`ascribe workload show {}`", workload.name)));
        }
        self.check_no_pull_request(workload, login)
    }

    /// A run that is evidently of a pull request enters by a rule that was confirmed in writing, or not at all. What GitHub's and
    /// GitLab's tokens show of that is looked at where they are read.
    fn check_no_pull_request(&self, workload: &Workload, login: &Login) -> Result<(), Denied> {
        let kind = self.provider(&workload.provider)?.provider.kind;
        let code = login.claims.code.as_ref();
        let reference = code.and_then(|code| code.reference.as_deref());
        let asks = self.version >= OWNERS_AND_FORKS && workload.confirmed.is_none();
        if !asks || !reference.is_some_and(|text| is_pull_request(kind, text)) {
            return Ok(());
        }
        Err(Denied::new(
            "token-fork",
            "the run is of a pull request, whose code may be anybody's",
        )
        .with_help(
            "give access to runs of protected branches; if pull requests are meant, say why in the rule: `--confirm TEXT`",
        ))
    }

    /// The same at the login, which states exactly the claims that the rule names. Returns name and
    /// owner.
    pub(super) fn check_workload_login(
        &self,
        by: PersonId,
        login: &Login,
    ) -> Result<(String, PersonId), Denied> {
        self.check_workload_rule(by, login)?;
        let workload = &self.workload(by)?.workload;
        let mut named: Vec<&String> = workload.conditions.iter().map(|c| &c.claim).collect();
        named.sort();
        let stated: Vec<&String> = login.claims.facts.iter().map(|fact| &fact.claim).collect();
        if named != stated {
            return Err(Denied::new(
                "claims",
                "a login states the claims that its workload's rule names, sorted, and no others",
            ));
        }
        Ok((workload.name.clone(), workload.owner))
    }

    /// Whom a request is for; checks that they may have it.
    pub(super) fn check_beneficiary(
        &self,
        by: PersonId,
        beneficiary: Option<PersonId>,
    ) -> Result<(), Denied> {
        let Some(id) = beneficiary else {
            return Ok(());
        };
        let workload = &self.workload(id)?.workload;
        if workload.withdrawn {
            return Err(Denied::new("withdrawn", "the workload was withdrawn"));
        }
        if workload.owner != by {
            return Err(
                Denied::new("owner", "only who answers for a workload asks for it").with_help(
                    format!("`ascribe workload show {}` says who", workload.name),
                ),
            );
        }
        Ok(())
    }
}
