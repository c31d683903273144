//! Workloads: enrolling them, and an inventory of what they hold and use.

use ascribe_core::id::GrantId;
use ascribe_core::identity::{Condition, Workload};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use serde_json::json;

use super::setup::propose;
use super::{prose, registry, say, say_json};
use crate::cli::{Cli, WorkloadAdd, WorkloadCommand};
use crate::client::new_person;
use crate::exit::{Done, Failure};
use crate::registry::{Registry, WorkloadRow};

impl Registry {
    /// A workload by name or id.
    pub(crate) fn workload(&self, text: &str) -> Done<&WorkloadRow> {
        let called = |row: &&WorkloadRow| {
            row.workload.name == text || row.workload.workload.to_string() == text
        };
        self.workloads.iter().find(called).ok_or_else(|| {
            Failure::usage(format!("no workload is called `{}`", clean(text, 63)))
                .help("`ascribe workload list` shows all")
        })
    }
}

pub(crate) fn workload(cli: &Cli, command: &WorkloadCommand) -> Done {
    let reading = matches!(
        command,
        WorkloadCommand::List | WorkloadCommand::Show { .. }
    );
    let client = cli.client(reading)?;
    let known = registry(&client)?;
    let (workload, openings, done) = match command {
        WorkloadCommand::List => return list(cli, &known),
        WorkloadCommand::Show { name } => return show(cli, &known, known.workload(name)?),
        WorkloadCommand::Add(args) => {
            let (workload, openings) = built(&known, args)?;
            let name = clean(&args.name, 63);
            let done = format!(
                "workload `{name}` is enrolled\nnext: its owner asks: ascribe request ACCOUNT@TARGET --workload {name} --why \"...\""
            );
            (workload, openings, done)
        }
        WorkloadCommand::Owner { name, person } => {
            let mut workload = known.workload(name)?.workload.clone();
            workload.owner = known.person(person)?;
            let done = format!("{} answers for it now", known.shown(workload.owner));
            // What was confirmed in writing was so by the owner of then.
            if workload.confirmed.take().is_some() {
                return Err(Failure::usage(
                    "its rule was confirmed in writing, which the new owner has to do as well",
                )
                .help(format!(
                    "`ascribe workload add {} ... --confirm TEXT`",
                    workload.name
                )));
            }
            (workload, Vec::new(), done)
        }
        WorkloadCommand::Withdraw { name } => {
            let mut workload = known.workload(name)?.workload.clone();
            workload.withdrawn = true;
            workload.confirmed = None;
            let done = "the workload is withdrawn; its sessions end within 2 s";
            (workload, Vec::new(), done.to_owned())
        }
    };
    let value = json!({ "workload": workload.workload });
    propose(
        cli,
        &client,
        Say::WorkloadSet(workload),
        openings,
        &done,
        value,
    )
}

fn built(known: &Registry, args: &WorkloadAdd) -> Done<(Workload, Vec<Opening>)> {
    let before = known.workload(&args.name).ok();
    let mut conditions: Vec<Condition> = Vec::new();
    for (claim, value) in &args.conditions {
        match conditions.iter_mut().find(|c| c.claim == *claim) {
            Some(condition) => condition.one_of.push(value.clone()),
            None => conditions.push(Condition {
                claim: claim.clone(),
                one_of: vec![value.clone()],
            }),
        }
    }
    let confirmed = args.confirm.as_deref().map(|text| prose("confirmed", text));
    let (confirmed, opening) = confirmed.transpose()?.unzip();
    let workload = Workload {
        conditions,
        confirmed,
        name: args.name.clone(),
        owner: known.person(&args.owner)?,
        provider: args.provider.clone(),
        withdrawn: false,
        workload: match before {
            Some(before) => before.workload.workload,
            None => new_person()?,
        },
    };
    Ok((workload, opening.into_iter().collect()))
}

/// How long ago, in the largest whole unit.
fn age(now: Timestamp, then: Timestamp) -> String {
    let minutes = now.since(then).max(0) / 60_000;
    match (minutes / 1440, minutes / 60) {
        (0, 0) => format!("{minutes} min"),
        (0, hours) => format!("{hours} h"),
        (days, _) => format!("{days} d"),
    }
}

fn line(known: &Registry, row: &WorkloadRow) -> String {
    let workload = &row.workload;
    let ago =
        |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| age(known.now, at) + " ago");
    let mut marks = String::new();
    for (is, mark) in [
        (row.orphaned, "  ORPHANED"),
        (workload.withdrawn, "  WITHDRAWN"),
        (workload.confirmed.is_some(), "  WIDE RULE, confirmed"),
    ] {
        if is {
            marks.push_str(mark);
        }
    }
    format!(
        "{:<20} {:<16} owner {}  rule {} old  grants {} held, {} used  last login {}, session {}{marks}",
        workload.name,
        workload.provider,
        known.shown(workload.owner),
        age(known.now, row.since),
        row.grants.len(),
        row.used.len(),
        ago(row.last_login),
        ago(row.last_session),
    )
}

fn list(cli: &Cli, known: &Registry) -> Done {
    for row in &known.workloads {
        if cli.json() {
            say_json(row)?;
        } else {
            say(&line(known, row));
        }
    }
    if known.workloads.is_empty() && !cli.json() {
        say("no workloads");
    }
    Ok(())
}

fn show(cli: &Cli, known: &Registry, row: &WorkloadRow) -> Done {
    if cli.json() {
        return say_json(row);
    }
    say(&line(known, row));
    say(&format!("  id       {}", row.workload.workload));
    for condition in &row.workload.conditions {
        let values = condition.one_of.join(" or ");
        say(&format!(
            "  when     {} is {}",
            clean(&condition.claim, 128),
            clean(&values, 1000)
        ));
    }
    for grant in &row.grants {
        say(&grant_line(known, row, *grant));
    }
    Ok(())
}

fn grant_line(known: &Registry, row: &WorkloadRow, id: GrantId) -> String {
    let used = if row.used.contains(&id) {
        "used"
    } else {
        "never used"
    };
    let grant = known.grants.iter().find(|grant| grant.id == id);
    let what = grant.map_or(String::new(), |g| {
        format!(" {}@{} {}", g.account, g.target, g.when())
    });
    format!("  grant    {id}{what}, {used}")
}
