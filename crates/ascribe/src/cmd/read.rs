//! Reading evidence: actions, show, replay, export. On a stopped server's directory these
//! work offline with the wrap key, write nothing, and say so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ascribe_core::attribution::{ActionRecord, Filter, Link, RefusedRecord, StreamRecord};
use ascribe_core::entry::Status;
use ascribe_core::id::{PersonId, SessionId};
use ascribe_core::identity::{Code, Protection, Run, Trigger};
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{remark, say, say_json};
use crate::answer::{Offline, Source as _, View};
use crate::api::{News, Query};
use crate::cast::{Piece, Terminal, asciicast};
use crate::cli::{Actions, Cli, Export, Replay};
use crate::client::Flow;
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::registry::Registry;

/// Asks the server, or the files of a stopped one.
pub(crate) fn ask(cli: &Cli, query: &Query) -> Done<Value> {
    let [answer] = ask_all(cli, [query])?;
    Ok(answer)
}

/// The same for several questions, in order.
fn ask_all<const N: usize>(cli: &Cli, queries: [&Query; N]) -> Done<[Value; N]> {
    let mut answers = [const { Value::Null }; N];
    if !cli.is_offline() {
        let client = cli.client(true)?;
        for (answer, query) in answers.iter_mut().zip(queries) {
            *answer = client.read(query)?;
        }
        return Ok(answers);
    }
    let dir = cli.data_dir()?;
    let source = Offline::open(dir)?;
    remark(&format!(
        "offline: reading the files of `{}`; this read is not recorded",
        dir.display()
    ));
    let (view, now) = (View::default(), crate::client::now());
    for (answer, query) in answers.iter_mut().zip(queries) {
        *answer = view.answer(&source, query, None, source.size(), now)?;
    }
    Ok(answers)
}

fn registry_of(answer: Value) -> Done<Registry> {
    serde_json::from_value(answer).attempt("read the answer")
}

/// Something that is on record, with the names of those whose ids stand in it.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    record: &'a T,
    names: Vec<Name>,
}

/// Whose id it is.
#[derive(Serialize)]
struct Name {
    id: PersonId,
    name: String,
}

/// The same with names, as far as they are known to whoever reads.
fn named<'a>(record: &'a ActionRecord, known: &Registry) -> Named<'a, ActionRecord> {
    let chain = record.who.chain.iter();
    let chain = chain.flat_map(|link| [Some(link.principal), link.owner]);
    let approvers = record.why.approvals.iter().map(|yes| Some(yes.approver));
    let all = chain.chain(approvers).chain([record.what.system_owner]);
    Named {
        record,
        names: names_of(all.flatten(), known),
    }
}

fn names_of(people: impl Iterator<Item = PersonId>, known: &Registry) -> Vec<Name> {
    let people: BTreeSet<PersonId> = people.collect();
    let name = |id: PersonId| {
        let name = known.name(id)?.to_owned();
        Some(Name { id, name })
    };
    people.into_iter().filter_map(name).collect()
}

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
    let records: Vec<ActionRecord> = serde_json::from_value(answer).attempt("read the answer")?;
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
fn refused_action(record: &RefusedRecord) -> (Option<&str>, &str) {
    let detail = record.detail.as_deref().unwrap_or_default();
    let action = detail
        .strip_prefix("action ")
        .map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
    match action {
        Some((id, text)) => (Some(id), text),
        None => (None, detail),
    }
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
        say(&format!(
            "{}  {}  {}@{}  {} `{}`  refused ({})  {}",
            record.at,
            known.shown(record.person),
            clean(&record.account, 64),
            clean(&record.target, 64),
            clean(&record.what, 40),
            clean(text, 100),
            clean(&record.code, 40),
            clean(id.unwrap_or_default(), 60),
        ));
    }
    if records.is_empty() && !cli.json() {
        say("nothing was refused");
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
        "{:<10} {} ({})\n{:<10} {} `{}`\n{:<10} {}@{}\n{:<10} refused ({}); it never ran\n{:<10} {}\n{:<10} {}\n{:<10} entry {}",
        "who",
        known.shown(record.person),
        record.person,
        "what",
        clean(&record.what, 40),
        clean(refused_action(record).1, 2000),
        "where",
        clean(&record.account, 64),
        clean(&record.target, 64),
        "outcome",
        clean(&record.code, 40),
        "when",
        record.at,
        "session",
        record.session_id,
        "proof",
        record.index,
    ));
    Ok(true)
}

pub(crate) fn fetch(cli: &Cli, filter: Filter) -> Done<Vec<ActionRecord>> {
    let filter = Box::new(filter);
    let answer = ask(cli, &Query::Actions { filter })?;
    serde_json::from_value(answer).attempt("read the answer")
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Denied => "denied",
        Status::Failed => "failed",
        Status::NotSent => "not sent",
        Status::Unknown => "unknown",
        Status::Succeeded => "succeeded",
    }
}

/// One action in one line.
fn line(record: &ActionRecord) -> String {
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

/// One stream's total, with the digest as `sha256sum` prints it.
fn moved(total: &StreamRecord) -> String {
    let digest = total.sha256.0.0.iter().map(|byte| format!("{byte:02x}"));
    let (stream, digest) = (clean(&total.stream, 20), digest.collect::<String>());
    let rest = match total.in_files {
        0 => String::new(),
        bytes => format!(" (without {bytes} bytes of files, which have their own)"),
    };
    format!("{stream}: {} bytes, SHA-256 {digest}{rest}", total.bytes)
}

/// A job's own account of itself, as its token had it.
fn run_in_words(run: &Run) -> String {
    let part = |label: &str, text: &Option<String>| {
        text.as_ref()
            .map(|text| format!(" {label} {text}"))
            .unwrap_or_default()
    };
    let text = format!(
        "{} {}{}{}",
        run.provider,
        run.id,
        part("attempt", &run.attempt),
        part("job", &run.job)
    );
    clean(&text, 400)
}

fn code_in_words(code: &Code) -> String {
    let parts = [
        ("repository", &code.repo),
        ("ref", &code.reference),
        ("commit", &code.commit),
        ("workflow", &code.workflow),
        ("of commit", &code.workflow_commit),
    ];
    let known = parts.iter().filter_map(|(label, text)| {
        let text = text.as_ref()?;
        Some(format!("{label} {text}"))
    });
    clean(&known.collect::<Vec<_>>().join(" "), 1000)
}

fn trigger_in_words(trigger: &Trigger) -> String {
    let event = trigger.event.as_deref().unwrap_or("unknown");
    let by = trigger
        .id
        .as_ref()
        .map_or(String::new(), |id| format!(" by {id}"));
    clean(&format!("{event}{by}"), 400)
}

/// Who acted; of a job what its token says of it, of an agent what it says of itself.
fn who_in_words(
    link: &Link,
    opened_by: Option<&str>,
    name: &dyn Fn(PersonId) -> String,
) -> Vec<(&'static str, String)> {
    let agent = link.kind == "agent";
    let shown = match (&link.display, link.owner) {
        _ if agent => link.shown(),
        (Some(display), Some(owner)) => {
            format!("workload {} of {}", clean(display, 63), name(owner))
        }
        _ => name(link.principal),
    };
    let opened = opened_by.map_or_else(String::new, |by| format!(", opening is {by}"));
    let who = format!(
        "{shown} ({}), proven by {} (assurance {}){opened}",
        link.principal, link.evidence, link.assurance
    );
    let mut lines = vec![(if agent { "agent" } else { "who" }, who)];
    lines.extend(link.run.as_ref().map(|run| ("run", run_in_words(run))));
    lines.extend(link.code.as_ref().map(|code| ("code", code_in_words(code))));
    let trigger = link.trigger.as_ref();
    lines.extend(trigger.map(|trigger| ("trigger", trigger_in_words(trigger))));
    let protection = link.protection.iter().flat_map(Protection::parts);
    let protection: Vec<String> = protection
        .map(|(name, text)| format!("{name} {text}"))
        .collect();
    let protected = (!protection.is_empty()).then(|| clean(&protection.join(", "), 600));
    lines.extend(protected.map(|text| ("protected", text)));
    let missing = link.missing.iter();
    lines.extend(missing.map(|text| ("missing", clean(text, 300))));
    if let Some(said) = &link.asserted {
        let said = [
            ("model", &said.model),
            ("version", &said.version),
            ("harness", &said.harness),
            ("run", &said.run),
        ];
        let said = said
            .iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)));
        let said: Vec<String> = said.map(|(name, text)| format!("{name} {text}")).collect();
        lines.push(("it says", clean(&said.join(", "), 600)));
    }
    if agent {
        let task = link.task.as_deref().unwrap_or("(sealed)");
        lines.push(("task", clean(task, 2000)));
    }
    lines
}

/// What is known of a statement, a line each.
fn sql_in_words(record: &ActionRecord) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(sql) = &record.what.sql {
        let flags = sql.flags.iter().map(|flag| format!("{flag} (!)"));
        let classes: Vec<String> = sql.classes.iter().cloned().chain(flags).collect();
        lines.push(("class", clean(&classes.join(", "), 600)));
        if !sql.objects.is_empty() {
            lines.push(("objects", clean(&sql.objects.join(", "), 600)));
        }
        let values = sql.values.as_ref();
        lines.extend(values.map(|values| ("values", clean(values, 2000))));
        let step = sql
            .step
            .map(|step| format!("statement {} of the approved script", step + 1));
        lines.extend(step.map(|step| ("script", step)));
    }
    if let Some(answer) = &record.what.outcome.sql {
        let code = answer
            .sqlstate
            .as_ref()
            .map(|code| format!("SQLSTATE {code}"));
        let words = answer.tag.clone().into_iter().chain(code);
        let counted = format!(
            "{} rows, {} bytes, {} ms",
            answer.rows,
            answer.bytes,
            answer.duration_us.div_ceil(1000)
        );
        let words: Vec<String> = words.chain([counted]).collect();
        lines.push(("answer", clean(&words.join(", "), 400)));
    }
    if !record.what.outcome.notes.is_empty() {
        lines.push(("noted", clean(&record.what.outcome.notes.join(", "), 400)));
    }
    lines
}

/// Why somebody could do it, a line each.
fn why_in_words(
    record: &ActionRecord,
    name: &dyn Fn(PersonId) -> String,
) -> Vec<(&'static str, String)> {
    let why = record.why.justification.as_deref().unwrap_or("(sealed)");
    let mut lines = vec![("why", clean(why, 2000))];
    let mut add = |label: &'static str, text: String| lines.push((label, text));
    if let Some(ticket) = &record.why.ticket {
        add(
            "ticket",
            clean(&format!("{}:{}", ticket.system, ticket.id), 200),
        );
    }
    if let Some(job) = &record.why.job {
        let (name, schedule) = (clean(&job.name, 63), clean(&job.schedule, 128));
        add(
            "job",
            format!("{name} ({schedule}), definition {}", job.definition),
        );
    }
    for approval in &record.why.approvals {
        add(
            "approved",
            format!("{} at {}", name(approval.approver), approval.at),
        );
    }
    if record.why.break_glass {
        add("approved", "nobody: BREAK-GLASS".to_owned());
    }
    add(
        "grant",
        format!(
            "{} from {} until {}",
            record.why.grant_id, record.why.not_before, record.why.not_after
        ),
    );
    if let Some(window) = &record.why.window {
        add(
            "window",
            format!("from {} until {}", window.from, window.until),
        );
    }
    lines
}

/// The whole sentence about one action.
fn sentence(record: &ActionRecord, known: &Registry) -> String {
    let name = &|person: PersonId| known.shown(person);
    let mut out = String::new();
    let mut add = |label: &str, text: String| out.push_str(&format!("{label:<10} {text}\n"));
    let mut chain = record.who.chain.iter().peekable();
    while let Some(link) = chain.next() {
        // The last one acted, and so opened the session.
        let opened = chain
            .peek()
            .is_none()
            .then_some(record.who.opened_by.as_str());
        for (label, text) in who_in_words(link, opened, name) {
            add(label, text);
        }
    }
    let command = record
        .what
        .command
        .as_deref()
        .map_or_else(|| record.what.content.to_string(), |c| clean(c, 2000));
    add("what", format!("{} `{command}`", record.what.kind));
    add(
        "where",
        format!(
            "{}@{}",
            clean(&record.what.account, 64),
            clean(&record.what.target, 64)
        ),
    );
    add(
        "outcome",
        format!(
            "{}{}",
            status(record.what.outcome.status),
            record
                .what
                .outcome
                .exit_code
                .map_or(String::new(), |c| format!(", exit code {c}"))
        ),
    );
    for (label, text) in sql_in_words(record) {
        add(label, text);
    }
    for total in &record.what.outcome.streams {
        add("stream", moved(total));
    }
    if let Some(within) = record.what.within {
        add("within", within.to_string());
    }
    let bound = match record.when.witnessed_before {
        Some(before) => format!("witnesses had seen it by {before}"),
        None => match known.witnesses {
            Some(_) => format!(
                "time claimed by the log; not witnessed yet, {} later",
                super::lasting(known.now.since(record.when.at).max(0).unsigned_abs() / 1000)
            ),
            None => "time claimed by the log".to_owned(),
        },
    };
    add("when", format!("{} ({bound})", record.when.at));
    for (label, text) in why_in_words(record, name) {
        add(label, text);
    }
    add(
        "proof",
        format!(
            "entry {} {} of {} in tree {}",
            record.integrity.index,
            record.integrity.entry_hash,
            record.integrity.origin,
            record.integrity.tree_size
        ),
    );
    out
}

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
    let records: Vec<ActionRecord> = serde_json::from_value(answer).attempt("read the answer")?;
    let mut shown = 0;
    for record in records
        .iter()
        .filter(|r| session.is_some() || r.action_id.to_string() == id)
    {
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
            say(&super::ask::windows_in_words(recurrence));
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

pub(crate) fn watch(cli: &Cli, session: SessionId) -> Done {
    let client = cli.client(true)?;
    client.follow(&Query::Watch { session }, |news: News| {
        if cli.json() {
            say_json(&news)?;
        } else {
            for record in &news.actions {
                remark(&line(record));
            }
            for chunk in &news.chunks {
                // What is typed shows in the output; input streams are files and pipes.
                if let (Some(bytes), true) = (&chunk.bytes, chunk.stream != "stdin") {
                    std::io::stdout()
                        .write_all(neutral(&bytes.0).as_bytes())
                        .attempt("print")?;
                }
            }
            std::io::stdout().flush().attempt("print")?;
        }
        let Some(reason) = news.ended else {
            return Ok(Flow::On);
        };
        if !cli.json() {
            let reason = serde_json::to_value(reason).attempt("print")?;
            remark(&format!(
                "the session has ended: {}",
                reason.as_str().unwrap_or("?")
            ));
        }
        Ok(Flow::Enough)
    })
}

pub(crate) fn replay(cli: &Cli, args: &Replay) -> Done {
    let answer = ask(
        cli,
        &Query::Replay {
            session: args.session,
            action: args.action,
        },
    )?;
    let chunks = answer
        .get("chunks")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if let Some(file) = &args.asciicast {
        return cast(cli, args, &answer, file);
    }
    if chunks.is_empty() {
        return Err(Failure::new(
            Kind::Failure,
            "the session has no recorded output",
        ));
    }
    let mut clock = 0u64;
    let idle = Duration::try_from_secs_f64(args.idle.max(0.0)).unwrap_or(Duration::from_secs(2));
    let seek = (args.seek.max(0.0) * 1000.0) as u64;
    for chunk in &chunks {
        if cli.json() {
            say_json(chunk)?;
            continue;
        }
        let after = chunk.get("after_ms").and_then(Value::as_u64).unwrap_or(0);
        if args.speed > 0.0 && after >= seek {
            let pause = Duration::from_millis(after.saturating_sub(clock.max(seek)));
            std::thread::sleep(pause.min(idle).div_f64(args.speed));
        }
        clock = after;
        let bytes = chunk
            .get("bytes")
            .and_then(Value::as_str)
            .and_then(ascribe_core::encoding::from_base64url);
        let Some(bytes) = bytes else {
            say("(a chunk is withheld, erased or missing)");
            continue;
        };
        std::io::stdout()
            .write_all(neutral(&bytes).as_bytes())
            .attempt("print")?;
    }
    std::io::stdout().flush().attempt("print")
}

/// Writes one terminal for players.
fn cast(cli: &Cli, args: &Replay, answer: &Value, file: &Path) -> Done {
    let part = |name: &str| {
        answer
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::Array(Vec::new()))
    };
    let pieces: Vec<Piece> = serde_json::from_value(part("chunks")).attempt("read the answer")?;
    let mut all: Vec<Terminal> =
        serde_json::from_value(part("terminals")).attempt("read the answer")?;
    all.retain(|terminal| args.action.is_none_or(|action| action == terminal.action));
    let terminal = match all.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::usage("no terminal was recorded there")
                .help("leave out `--asciicast`: `ascribe replay` prints the output of commands"));
        }
        several => {
            let ids: Vec<String> = several.iter().map(|t| t.action.to_string()).collect();
            return Err(Failure::usage(format!(
                "the session has {} terminals: {}",
                ids.len(),
                ids.join(", ")
            ))
            .help("choose one with `--action`"));
        }
    };
    let text = asciicast(terminal, &pieces).attempt("write the recording")?;
    write_private(file, &text).attempt(format!("write `{}`", file.display()))?;
    if cli.json() {
        return say_json(&serde_json::json!({ "action_id": terminal.action, "bytes": text.len() }));
    }
    say(&format!(
        "wrote {} ({} bytes); for players, not as evidence: that is `ascribe export`",
        file.display(),
        text.len()
    ));
    Ok(())
}

/// Private modes that only tell a terminal how to paste or which keys to send; left out.
const QUIET: [&str; 4] = ["\u{1b}[?2004h", "\u{1b}[?2004l", "\u{1b}[?1h", "\u{1b}[?1l"];

/// Recorded output for a terminal: colours stay, everything else that a terminal acts on is shown.
fn neutral(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut rest = text.as_ref();
    while let Some(c) = rest.chars().next() {
        if let Some(after) = QUIET.iter().find_map(|mode| rest.strip_prefix(mode)) {
            rest = after;
            continue;
        }
        if let Some(len) = colour(rest) {
            let (sequence, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
            out.push_str(sequence);
            rest = after;
            continue;
        }
        match c {
            '\n' | '\r' | '\t' | '\u{8}' => out.push(c),
            c if ascribe_core::text::is_unsafe(c) => out.push_str(&clean(&c.to_string(), 1)),
            c => out.push(c),
        }
        rest = rest.get(c.len_utf8()..).unwrap_or("");
    }
    out
}

/// The length of a colour sequence (`ESC [ digits ; ... m`) at the beginning.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[")?;
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (body.get(end..)?.starts_with('m') && end <= 32).then_some(end + 3)
}

/// Writes what was opened for its reader: nobody else reads it.
fn write_private(file: &Path, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(text.as_ref())
}

pub(crate) fn export(cli: &Cli, args: &Export) -> Done {
    let answer = ask(
        cli,
        &Query::Export {
            session: args.session,
        },
    )?;
    let bundle = answer
        .get("bundle")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::new(Kind::Failure, "the server sent no bundle"))?;
    write_private(&args.file, bundle).attempt(format!("write `{}`", args.file.display()))?;
    if cli.json() {
        return say_json(&serde_json::json!({ "session_id": args.session, "bytes": bundle.len() }));
    }
    say(&format!(
        "wrote {} ({} bytes)\nnext: ascribe verify {} --trust POLICY",
        args.file.display(),
        bundle.len(),
        args.file.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_output_cannot_drive_the_terminal() {
        assert_eq!(
            neutral(b"\x1b[1;31mred\x1b[0m\r\n"),
            "\x1b[1;31mred\x1b[0m\r\n"
        );
        for hostile in [
            &b"\x1b]52;c;eA==\x07"[..],
            b"\x1b[2J",
            b"\x1bP1\x1b\\",
            b"\xc2\x9b2J",
            b"\x1b[6n",
        ] {
            let shown = neutral(hostile);
            assert!(
                !shown.contains('\u{1b}') && !shown.contains('\u{9b}'),
                "{shown:?}"
            );
        }
    }
}
