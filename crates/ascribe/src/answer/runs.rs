//! Runs of maintenance jobs: when, which run, how much and how it ended. None of that is sealed, so whoever has
//! to do with a job sees it, without the texts of its statements.

use std::collections::BTreeSet;

use ascribe_core::attribution::{ActionRecord, Filter, Fold};
use ascribe_core::entry::Status;
use ascribe_core::id::PersonId;
use ascribe_core::law::{Denied, GrantState, State};
use ascribe_core::statement::Role;
use ascribe_tlog::Hash;

use crate::api::RunRow;
use crate::registry::name_of;

/// What runs a statement on a database.
const EXECUTES: [&str; 2] = ["pg.query", "pg.execute"];

fn grants_of<'a>(state: &'a State, name: &'a str) -> impl Iterator<Item = &'a GrantState> {
    state.grants.values().filter(move |grant| {
        let job = grant.grant.sql.as_ref().and_then(|sql| sql.job.as_ref());
        job.is_some_and(|job| job.name == name)
    })
}

/// May they see this job's runs: as auditors, because they answer for its workload or its target, or because they
/// asked for it or approved it? Whoever has the files is nobody, and sees all.
fn may_see(state: &State, by: Option<PersonId>, grant: &GrantState) -> bool {
    let Some(by) = by else { return true };
    let Some(person) = state.people.get(&by).filter(|person| !person.is_away()) else {
        return false;
    };
    let owner = state.workloads.get(&grant.grant.person);
    let target = state.targets.get(&grant.grant.target);
    person.may(Role::Auditor)
        || owner.is_some_and(|known| known.workload.owner == by)
        || target.is_some_and(|known| known.target.system_owner == by)
        || state
            .asks
            .get(&grant.request)
            .is_some_and(|ask| ask.by == by)
        || grant.approvals.iter().any(|approval| approval.by == by)
}

/// How surely somebody must have shown who they are, to be told what others did.
const ASSURANCE: u8 = 2;

/// Refuses those who may see no run of a job that there is, and those whose key shows too little of who they are.
pub(crate) fn check(state: &State, (by, level): (PersonId, u8), name: &str) -> Result<(), Denied> {
    if level < ASSURANCE {
        let why = format!(
            "reading what others did needs assurance {ASSURANCE}, and this login has {level}"
        );
        let help = "log in with a browser, or use an enrolled key";
        return Err(Denied::new("assurance", why).with_help(help));
    }
    let person = state.people.get(&by).filter(|person| !person.is_away());
    let all = person.is_some_and(|person| person.may(Role::Auditor));
    if all || grants_of(state, name).any(|grant| may_see(state, Some(by), grant)) {
        return Ok(());
    }
    // Which jobs there are is told to nobody by this.
    let why = "no job of this name, or none whose runs are told to you: they are to whoever asked for it, approved it or \
               answers for its workload or its target, and to auditors";
    Err(Denied::new("role", why).with_help("`ascribe job list` names jobs; else ask one of them"))
}

/// The runs of a job that they may see, in order.
pub(super) fn runs(
    fold: &Fold,
    state: &State,
    name: &str,
    by: Option<PersonId>,
    before: u64,
) -> Vec<RunRow> {
    let filter = Filter {
        job: Some(name.to_owned()),
        ..Filter::default()
    };
    let records = fold.actions(state, &filter, Hash::ZERO, before, "missing");
    let refusals = fold.refusals(&Filter::default(), before);
    let names = fold.names();
    let mut rows = Vec::new();
    for grant in grants_of(state, name).filter(|grant| may_see(state, by, grant)) {
        for id in &grant.sessions {
            let Some(session) = state.sessions.get(id).filter(|s| s.place.index < before) else {
                continue;
            };
            let login = session
                .open
                .login
                .and_then(|login| state.logins.get(&login));
            let run = login.and_then(|login| login.login.claims.run.as_ref());
            let own = records.iter().filter(|record| record.session_id == *id);
            let refused = refusals
                .iter()
                .filter(|refusal| refusal.session_id == Some(*id));
            let mut row = RunRow {
                session: *id,
                begun: session.at,
                ended: session.closed.map(|(at, _)| at),
                grant: grant.grant.grant,
                who: name_of(&names, grant.grant.person),
                run: run.map(|run| run.id.clone()),
                statements: 0,
                steps: 0,
                of: grant.grant.sql.as_ref().map_or(0, |sql| sql.script.len()),
                rows: 0,
                refused: refused.count(),
                status: String::new(),
            };
            count(&mut row, &own.collect::<Vec<_>>());
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| (row.begun, row.session));
    rows
}

/// What its actions say of a run. Only one in which all of the script succeeded is a success; of a command, one that has
/// ended and in which nothing failed.
fn count(row: &mut RunRow, records: &[&ActionRecord]) {
    let mut steps = BTreeSet::new();
    let (mut failed, mut unknown) = (false, false);
    for record in records {
        let outcome = &record.what.outcome;
        let sent = outcome.status != Status::NotSent;
        if sent && EXECUTES.contains(&record.what.kind.as_str()) {
            row.statements += 1;
            row.rows += outcome.sql.as_ref().map_or(0, |sql| sql.rows);
            let step = record.what.sql.as_ref().and_then(|sql| sql.step);
            steps.extend(step.filter(|_| outcome.status == Status::Succeeded));
        }
        match outcome.status {
            Status::Succeeded => {}
            Status::Unknown => unknown = true,
            Status::Failed | Status::Denied | Status::NotSent => failed = true,
        }
    }
    row.steps = steps.len();
    let whole = row.steps >= row.of;
    row.status = if row.refused > 0 {
        "refused"
    } else if failed {
        "failed"
    } else if row.ended.is_none() && (!whole || row.of == 0) {
        "running"
    } else if unknown {
        "unknown"
    } else if whole {
        "succeeded"
    } else {
        "partial"
    }
    .to_owned();
}
