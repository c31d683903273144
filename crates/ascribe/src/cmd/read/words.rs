//! One action in words, line by line.

use ascribe_core::attribution::{ActionRecord, Link, SqlRecord, StreamRecord};
use ascribe_core::entry::Status;
use ascribe_core::id::PersonId;
use ascribe_core::identity::{Code, Protection, Run, Trigger};
use ascribe_core::text::clean;

use crate::registry::Registry;

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Denied => "denied",
        Status::Failed => "failed",
        Status::NotSent => "not sent",
        Status::Unknown => "unknown",
        Status::Succeeded => "succeeded",
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
    let authn = link.authn.as_ref();
    lines.extend(authn.map(|authn| ("proved", authn.in_words())));
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

/// What a statement names, a line each.
fn objects_in_words(sql: &SqlRecord) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let from_text = sql.objects_from.as_deref() == Some("text");
    let by = if from_text { " (by its text)" } else { "" };
    if !sql.objects.is_empty() {
        let named = clean(&sql.objects.join(", "), 600);
        lines.push(("objects", format!("{named}{by}")));
    }
    if !sql.functions.is_empty() {
        let named = clean(&sql.functions.join(", "), 600);
        lines.push(("functions", format!("{named} (by its text)")));
    }
    let unread = sql.unread.as_ref();
    lines.extend(unread.map(|why| ("objects", format!("not told: {}", clean(why, 300)))));
    lines
}

/// What is known of a statement, a line each.
fn sql_in_words(record: &ActionRecord) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(sql) = &record.what.sql {
        let flags = sql.flags.iter().map(|flag| format!("{flag} (!)"));
        let classes: Vec<String> = sql.classes.iter().cloned().chain(flags).collect();
        lines.push(("class", clean(&classes.join(", "), 600)));
        lines.extend(objects_in_words(sql));
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
pub(super) fn sentence(record: &ActionRecord, known: &Registry) -> String {
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
                crate::cmd::lasting(known.now.since(record.when.at).max(0).unsigned_abs() / 1000)
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
