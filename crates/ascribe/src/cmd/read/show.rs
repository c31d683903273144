//! Showing what has an id: an action, a session, a request or a grant.

use ascribe_core::attribution::{ActionRecord, Filter, RefusedRecord};
use ascribe_core::id::SessionId;
use ascribe_core::text::clean;
use serde_json::Value;

use super::actions::{refused_action, refused_where};
use super::words::sentence;
use super::{Named, ask, ask_all, named, names_of, registry_of};
use crate::api::Query;
use crate::cli::Cli;
use crate::cmd::{say, say_json};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::objects;
use crate::registry::Registry;

pub(crate) fn show(cli: &Cli, id: &str) -> Done {
    if id.starts_with("st-") || id.starts_with("g-") {
        return show_why(cli, id);
    }
    let session: Option<SessionId> = id.parse().ok();
    if session.is_none() && !id.starts_with("a-") {
        return Err(Failure::usage(format!("`{}` is no id", clean(id, 60)))
            .help("ids begin with st- (request), g- (grant), s- (session) or a- (action)"));
    }
    let filter = Box::new(Filter {
        session,
        ..Filter::default()
    });
    let [known, answer] = ask_all(cli, [&Query::Registry, &Query::Actions { filter }])?;
    let known = registry_of(known)?;
    let mut records: Vec<ActionRecord> =
        serde_json::from_value(answer).attempt("read the answer")?;
    records.retain(|r| session.is_some() || r.action_id.to_string() == id);
    objects::tell(&mut records)?;
    let mut shown = 0;
    for record in &records {
        shown += 1;
        if cli.json() {
            say_json(&named(record, &known))?
        } else {
            say(&sentence(record, &known))
        }
    }
    if shown == 0 && (session.is_some() || !show_refused(cli, id, &known)?) {
        return Err(Failure::new(
            Kind::Failure,
            format!("nothing has the id `{}`", clean(id, 60)),
        )
        .help(
            "`ascribe sessions` and `ascribe actions` list ids; what was refused, `ascribe actions --refused`",
        ));
    }
    Ok(())
}

/// A statement that was refused by the id that its client was told: it never became an action.
fn show_refused(cli: &Cli, id: &str, known: &Registry) -> Done<bool> {
    let filter = Box::default();
    let answer = ask(cli, &Query::Refusals { filter })?;
    let records: Vec<RefusedRecord> = serde_json::from_value(answer).attempt("read the answer")?;
    let mut found = records.iter();
    let Some(record) = found.find(|record| refused_action(record).0 == Some(id)) else {
        return Ok(false);
    };
    if cli.json() {
        let names = names_of([record.person].into_iter(), known);
        say_json(&Named { record, names })?;
        return Ok(true);
    }
    say(&format!(
        "{:<10} {} ({})\n{:<10} {} `{}`\n{:<10} {}\n{:<10} refused ({}); it never ran\n{:<10} {}\n{:<10} {}\n{:<10} entry {}",
        "who",
        known.shown(record.person),
        record.person,
        "what",
        clean(&record.what, 40),
        clean(refused_action(record).1, 2000),
        "where",
        refused_where(record).unwrap_or_default(),
        "outcome",
        clean(&record.code, 40),
        "when",
        record.at,
        "session",
        record
            .session_id
            .map_or_else(String::new, |id| id.to_string()),
        "proof",
        record.index,
    ));
    Ok(true)
}

fn show_why(cli: &Cli, id: &str) -> Done {
    let known = registry_of(ask(cli, &Query::Registry)?)?;
    let grant = known.grants.iter().find(|g| g.id.to_string() == id);
    let request = grant.map_or_else(|| id.to_owned(), |g| g.request.to_string());
    let request = request
        .parse()
        .map_err(|e: ascribe_core::id::IdError| Failure::usage(e.to_string()))?;
    let ask_row = known.asks.iter().find(|a| a.id == request);
    if grant.is_none() && ask_row.is_none() {
        return Err(Failure::new(
            Kind::Failure,
            format!("nothing has the id `{}`", clean(id, 60)),
        ));
    }
    let why = ask(cli, &Query::Request { id: request })?;
    let why = why.get("justification").and_then(Value::as_str);
    if cli.json() {
        return say_json(
            &serde_json::json!({ "request": ask_row, "grant": grant, "justification": why }),
        );
    }
    if let Some(row) = ask_row {
        say(&format!(
            "request    {} ({})\nby         {}\nfor        {}\nstatus     {}",
            row.id,
            row.kind,
            known.shown(row.by),
            clean(&row.what, 120),
            row.status
        ));
        if let Some(ticket) = &row.ticket {
            let ticket = format!("{}:{}", ticket.system, ticket.id);
            say(&format!("ticket     {}", clean(&ticket, 80)));
        }
        for detail in &row.details {
            say(&format!("asks       {}", clean(detail, 4000)));
        }
        if let Some(recurrence) = &row.recurrence {
            say(&crate::cmd::ask::windows_in_words(recurrence));
        }
    }
    if let Some(grant) = grant {
        say(&format!(
            "grant      {} {} from {} until {}",
            grant.id, grant.status, grant.not_before, grant.not_after
        ));
        for person in &grant.approved_by {
            say(&format!("approved   {}", known.shown(*person)));
        }
    }
    say(&format!(
        "why        {}",
        clean(why.unwrap_or("(sealed)"), 2000)
    ));
    known.tell_unwitnessed(ask_row.map(|row| row.at));
    Ok(())
}
