//! Listing actions, and what was refused.

use ascribe_core::attribution::{ActionRecord, Filter, RefusedRecord};
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;

use super::words::status;
use super::{Named, ask_all, named, names_of, registry_of};
use crate::api::Query;
use crate::cli::{Actions, Cli};
use crate::cmd::{say, say_json};
use crate::exit::{Attempt as _, Done, Failure};
use crate::objects;
use crate::registry::Registry;

fn time(text: Option<&String>) -> Done<Option<Timestamp>> {
    text.map(|t| Timestamp::parse_human(t).map_err(|e| Failure::usage(e.to_string())))
        .transpose()
}

pub(crate) fn actions(cli: &Cli, args: &Actions) -> Done {
    let filter = Filter {
        actor: args.actor.clone(),
        agent: args.agent.clone(),
        account: args.account.clone(),
        target: args.target.clone(),
        session: args.session,
        grant: args.grant,
        ticket: args.ticket.clone(),
        since: time(args.since.as_ref())?,
        until: time(args.until.as_ref())?,
        text: args.text.clone(),
        run: args.run.clone(),
        commit: args.commit.clone(),
        job: args.job.clone(),
    };
    let filter = Box::new(filter);
    if args.refused {
        return list_refused(cli, filter);
    }
    let [answer, known] = ask_all(cli, [&Query::Actions { filter }, &Query::Registry])?;
    let known = registry_of(known)?;
    let mut records: Vec<ActionRecord> =
        serde_json::from_value(answer).attempt("read the answer")?;
    objects::tell(&mut records)?;
    if let Some(wanted) = &args.object {
        objects::keep(&mut records, wanted);
    }
    for record in &records {
        if cli.json() {
            say_json(&named(record, &known))?;
            continue;
        }
        say(&line(record));
        let database = args.target.is_some() && record.what.kind.starts_with("pg.");
        if args.why || database {
            say(&format!("    {}", why_in_line(record, &known)));
        }
    }
    if !cli.json() {
        tell_unwitnessed(&records, &known);
        match records.last() {
            None => say("no action fits"),
            Some(record) => say(&format!(
                "\nnext: ascribe export {} -f FILE",
                record.session_id
            )),
        }
    }
    Ok(())
}

fn tell_unwitnessed(records: &[ActionRecord], known: &Registry) {
    let unseen = records.iter().map(|record| &record.when);
    let unseen = unseen.filter(|when| when.witnessed_before.is_none());
    known.tell_unwitnessed(unseen.map(|when| when.at));
}

/// By which run and job, on whose approval and for which ticket, in one line.
fn why_in_line(record: &ActionRecord, known: &Registry) -> String {
    let mut parts = Vec::new();
    let first = record.who.chain.first();
    if let Some(run) = first.and_then(|link| link.run.as_ref()) {
        parts.push(format!(
            "run {} of {}",
            clean(&run.id, 80),
            clean(&run.provider, 63)
        ));
    }
    if let Some(job) = &record.why.job {
        parts.push(format!("job {} {}", clean(&job.name, 63), job.definition));
    }
    if let Some(owner) = first.and_then(|link| link.owner) {
        parts.push(format!("owner {}", known.shown(owner)));
    }
    let approvers = record.why.approvals.iter();
    let approvers: Vec<String> = approvers.map(|yes| known.shown(yes.approver)).collect();
    parts.push(match (record.why.break_glass, approvers.is_empty()) {
        (true, _) => "approved by nobody: BREAK-GLASS".to_owned(),
        (false, true) => "approved by nobody".to_owned(),
        (false, false) => format!("approved by {}", approvers.join(", ")),
    });
    parts.push(match &record.why.ticket {
        Some(ticket) => format!(
            "ticket {}",
            clean(&format!("{}:{}", ticket.system, ticket.id), 80)
        ),
        None => "no ticket".to_owned(),
    });
    parts.join(", ")
}

/// The action that a refusal is of, with its text: so its sealed details begin.
pub(super) fn refused_action(record: &RefusedRecord) -> (Option<&str>, &str) {
    let detail = record.detail.as_deref().unwrap_or_default();
    let action = detail
        .strip_prefix("action ")
        .map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
    match action {
        Some((id, text)) => (Some(id), text),
        None => (None, detail),
    }
}

/// The account and target of its session, if it had one.
pub(super) fn refused_where(record: &RefusedRecord) -> Option<String> {
    let (account, target) = record.account.as_ref().zip(record.target.as_ref())?;
    Some(format!("{}@{}", clean(account, 64), clean(target, 64)))
}

fn list_refused(cli: &Cli, filter: Box<Filter>) -> Done {
    let [answer, known] = ask_all(cli, [&Query::Refusals { filter }, &Query::Registry])?;
    let known = registry_of(known)?;
    let records: Vec<RefusedRecord> = serde_json::from_value(answer).attempt("read the answer")?;
    for record in &records {
        if cli.json() {
            let names = names_of([record.person].into_iter(), &known);
            say_json(&Named { record, names })?;
            continue;
        }
        let (id, text) = refused_action(record);
        let text = match text {
            "" if record.session_id.is_none() => String::new(),
            text => format!(" `{}`", clean(text, 100)),
        };
        say(&format!(
            "{}  {}  {}  {}{text}  refused ({})  {}",
            record.at,
            known.shown(record.person),
            refused_where(record).unwrap_or_else(|| "(no session)".to_owned()),
            clean(&record.what, 40),
            clean(&record.code, 40),
            clean(id.unwrap_or_default(), 60),
        ));
    }
    if records.is_empty() && !cli.json() {
        say("nothing was refused");
    }
    Ok(())
}

/// One action in one line.
pub(super) fn line(record: &ActionRecord) -> String {
    let command = match (&record.what.command, &*record.what.content) {
        // An operation within a transfer is no command: its kind stands before it.
        (Some(text), _) if record.what.within.is_some() => {
            let family = record.what.kind.split('.').next().unwrap_or_default();
            format!("{}: {}", clean(family, 20), clean(text, 100))
        }
        (Some(command), _) => clean(command, 100),
        (None, "present") => format!("({})", record.what.kind),
        (None, other) => format!("({other})"),
    };
    let ticket = record.why.ticket.as_ref().map_or(String::new(), |t| {
        clean(&format!("  {}:{}", t.system, t.id), 80)
    });
    let mark = if record.why.break_glass {
        "  BREAK-GLASS"
    } else {
        ""
    };
    format!(
        "{}  {}  {}@{}  {}  {}{}{}{ticket}{mark}",
        record.when.at,
        record.who.shown(),
        clean(&record.what.account, 64),
        clean(&record.what.target, 64),
        command,
        status(record.what.outcome.status),
        record
            .what
            .outcome
            .exit_code
            .map_or(String::new(), |c| format!("({c})")),
        transferred(record),
    )
}

/// How much a transfer of files moved, in a line.
fn transferred(record: &ActionRecord) -> String {
    let kinds = ["ssh.sftp", "ssh.scp", "ssh.rsync"];
    if record.what.within.is_none() && !kinds.contains(&record.what.kind.as_str()) {
        return String::new();
    }
    let streams = record.what.outcome.streams.iter();
    let streams: Vec<String> = streams
        .map(|s| format!("{} {} bytes", clean(&s.stream, 20), s.bytes))
        .collect();
    if streams.is_empty() {
        String::new()
    } else {
        format!("  {}", streams.join(", "))
    }
}
