//! Comparing a database's own log with the ledger, and putting on record what came of it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ascribe_core::attribution::{Filter, ReconciliationRecord, RefusedRecord};
use ascribe_core::database::{Compared, LogFile, Reconciliation};
use ascribe_core::id::{ContentDigest, StatementId};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use ascribe_tlog::Hash;
use ascribe_wire::pglog::{Format, LogError, Reader, Record};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::ask::submit;
use super::read::{ask, fetch};
use super::{remark, say, say_json};
use crate::api::Query;
use crate::cli::Cli;
use crate::cli::database::{LogFormat, Reconcile, ReconcilePostgres};
use crate::client::random;
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::reconcile::{Extent, Finding, Join, MAX_SEALED, Ours, Report, SKEW_MS};

/// How much of a file is read at once.
const PIECE: usize = 1 << 20;
/// Records that cannot be read are named up to so many.
const MAX_NAMED: u64 = 20;
/// Actions are asked for in pieces of at least so long, in milliseconds, and of so many.
const HOUR_MS: i64 = 3_600_000;
const MAX_ASKED: i64 = 64;

/// A file that was read once.
struct Log<'a> {
    path: &'a Path,
    file: LogFile,
    extent: Extent,
}

pub(crate) fn reconcile(cli: &Cli, command: &Reconcile) -> Done {
    match command {
        Reconcile::Postgres(args) => postgres(cli, args),
        Reconcile::List => list(cli),
        Reconcile::Show { id } => shown(cli, *id),
    }
}

fn postgres(cli: &Cli, args: &ReconcilePostgres) -> Done {
    if cli.is_offline() && !args.dry_run {
        return Err(
            Failure::usage("a stopped server's ledger takes no record of this")
                .help("give `--dry-run`, or start the server"),
        );
    }
    let format = format(args)?;
    let targets = targets(cli, &args.targets)?;
    let logs = survey(&args.logs, format)?;
    let mut extent = Extent::default();
    logs.iter().for_each(|log| extent.and(&log.extent));
    let (Some(first), Some(last)) = (extent.first, extent.last) else {
        let why = match extent.records {
            0 => "the log holds no record that can be read",
            _ => "the log's times are in a zone that has only a name",
        };
        return Err(Failure::usage(why).help(
            "log with log_timezone = 'UTC'; docs/guide/databases.md says what else the server must be told",
        ));
    };
    let ours = trail(cli, &targets, extent.began.unwrap_or(first), last)?;
    let mut join = Join::new(ours, &extent, &args.from);
    let unreadable = compare(&logs, format, &mut join)?;
    let report = join.finish(&extent);
    show(cli, &report, unreadable, (first, last))?;
    if !args.dry_run {
        let listed = listed(&report.findings)?;
        let findings = Opening::new("findings", random()?, listed);
        let statement = Reconciliation {
            comparable: report.comparable,
            database_only: report.database_only,
            files: logs.iter().map(|log| log.file).collect(),
            findings: findings.commitment(),
            from: first,
            matched: report.matched,
            ours_only: report.ours_only,
            targets,
            unreadable,
            until: last,
        };
        record(cli, statement, findings)?;
    }
    verdict(&report, unreadable)
}

/// Exit code 4 unless everything was compared and nothing passed the gateway by.
fn verdict(report: &Report, unreadable: u64) -> Done {
    let refuse = |why: String, help: &str| Err(Failure::new(Kind::Proof, why).help(help));
    if report.is_bypassed() {
        let Compared {
            sessions,
            statements,
        } = report.database_only;
        return refuse(
            format!("the gateway was passed by: {sessions} sessions, {statements} statements"),
            "who holds the role's credential besides the gateway, and from where may it log in?",
        );
    }
    if unreadable > 0 {
        return refuse(
            format!("{unreadable} records of the log cannot be read: what they say is not known"),
            "csvlog and jsonlog have no lines that are not the server's own",
        );
    }
    if !report.comparable {
        return refuse(
            "not comparable: the log does not show which statements were executed".to_owned(),
            "set log_connections = on and log_statement = 'all', or load pgaudit with pgaudit.log = 'all'",
        );
    }
    Ok(())
}

fn format(args: &ReconcilePostgres) -> Done<Format> {
    let of = |path: &PathBuf| match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Format::Csv,
        Some("json") => Format::Json,
        _ => Format::Stderr,
    };
    if let Some(format) = args.format {
        return Ok(match format {
            LogFormat::Csv => Format::Csv,
            LogFormat::Json => Format::Json,
            LogFormat::Stderr => Format::Stderr,
        });
    }
    let formats: Vec<Format> = args.logs.iter().map(of).collect();
    match formats.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => Ok(*first),
        _ => Err(Failure::usage("the files are of several formats")
            .help("one format at a time: the others say the same again")),
    }
}

/// The targets that are meant, in order.
fn targets(cli: &Cli, named: &[String]) -> Done<Vec<String>> {
    let registry: crate::registry::Registry =
        serde_json::from_value(ask(cli, &Query::Registry)?).attempt("read the answer")?;
    let databases = registry
        .targets
        .into_iter()
        .filter(|t| t.postgres.is_some());
    let mut known: Vec<String> = databases.map(|target| target.name).collect();
    known.sort_unstable();
    if let Some(other) = named.iter().find(|name| !known.contains(name)) {
        let why = format!("no database is registered as `{}`", clean(other, 63));
        return Err(Failure::usage(why).help("`ascribe target list` shows all"));
    }
    match (named, known.len()) {
        ([], 0) => Err(Failure::usage("no database is registered")),
        ([], 1) => Ok(known),
        ([], _) => {
            let why = format!("whose log is it? Registered are {}", known.join(", "));
            Err(Failure::usage(clean(&why, 1000)).help("name it: `--target NAME`"))
        }
        (named, _) => {
            let mut named = named.to_vec();
            named.sort_unstable();
            named.dedup();
            Ok(named)
        }
    }
}

/// Reads all files once: what they hold, and when they are from. The oldest comes first.
fn survey(paths: &[PathBuf], format: Format) -> Done<Vec<Log<'_>>> {
    let mut logs = Vec::new();
    for path in paths {
        let mut extent = Extent::default();
        let file = read(path, format, u64::MAX, |record| {
            if let Ok(record) = record {
                extent.take(&record);
            }
        })?;
        logs.push(Log { path, file, extent });
    }
    logs.sort_by_key(|log| (log.extent.first, log.extent.last));
    let mut digests: Vec<LogFile> = logs.iter().map(|log| log.file).collect();
    digests.sort_unstable();
    if digests
        .windows(2)
        .any(|pair| matches!(pair, [one, next] if one == next))
    {
        return Err(Failure::usage("a file of the log is named twice"));
    }
    Ok(logs)
}

/// Reads them again, exactly what was read before, and compares. How many records could not be read.
fn compare(logs: &[Log<'_>], format: Format, join: &mut Join) -> Done<u64> {
    let mut unreadable = 0;
    for log in logs {
        let file = read(log.path, format, log.file.bytes, |record| match record {
            Ok(record) => join.take(&record),
            Err(error) => {
                unreadable += 1;
                if unreadable <= MAX_NAMED {
                    remark(&format!(
                        "`{}`: {error}",
                        clean(&log.path.display().to_string(), 200)
                    ));
                }
            }
        })?;
        if file != log.file {
            let why = format!("`{}` changed while it was read", log.path.display());
            return Err(Failure::new(Kind::Failure, why)
                .help("only a log that grows can be read while it is written; or read a copy"));
        }
    }
    Ok(unreadable)
}

/// Reads a file to its end, or so far.
fn read(
    path: &Path,
    format: Format,
    most: u64,
    mut take: impl FnMut(Result<Record, LogError>),
) -> Done<LogFile> {
    let what = || format!("read `{}`", path.display());
    let mut file = File::open(path).attempt(what())?.take(most);
    let (mut reader, mut hash, mut bytes) = (Reader::new(format), Sha256::new(), 0_u64);
    let mut piece = vec![0; PIECE];
    loop {
        let len = file.read(&mut piece).attempt(what())?;
        if len == 0 {
            break;
        }
        let read = piece.get(..len).unwrap_or_default();
        hash.update(read);
        bytes += len as u64;
        reader.push(read).into_iter().for_each(&mut take);
    }
    reader.finish().into_iter().for_each(&mut take);
    let sha256 = ContentDigest(Hash(hash.finalize().into()));
    Ok(LogFile { bytes, sha256 })
}

/// What the ledger has of these targets, from the beginning of the oldest session in the log. Each piece is
/// a read on record.
fn trail(cli: &Cli, targets: &[String], began: Timestamp, last: Timestamp) -> Done<Ours> {
    let (mut since, end) = (began.plus_millis(-SKEW_MS), last.plus_millis(SKEW_MS));
    let step = HOUR_MS.max(end.since(since) / MAX_ASKED + 1);
    let mut ours = Ours::default();
    while since < end {
        let until = since.plus_millis(step).min(end);
        for target in targets {
            let filter = Filter {
                target: Some(target.clone()),
                since: Some(since),
                until: Some(until),
                ..Filter::default()
            };
            let filter = Box::new(filter);
            let refused = ask(
                cli,
                &Query::Refusals {
                    filter: filter.clone(),
                },
            )?;
            let refused: Vec<RefusedRecord> =
                serde_json::from_value(refused).attempt("read the answer")?;
            refused.iter().for_each(|record| ours.refuse(record));
            fetch(cli, *filter)?
                .iter()
                .for_each(|record| ours.take(record));
        }
        since = until;
    }
    Ok(ours)
}

/// As much of the list as is sealed.
fn listed(findings: &[Finding]) -> Done<Vec<u8>> {
    let mut most = findings.len();
    loop {
        let listed = serde_json::to_vec(findings.get(..most).unwrap_or_default());
        let listed = listed.attempt("write the findings")?;
        if listed.len() <= MAX_SEALED {
            return Ok(listed);
        }
        most = most * 3 / 4;
    }
}

fn record(cli: &Cli, statement: Reconciliation, findings: Opening) -> Done {
    let client = cli.client(false)?;
    let say_it = Say::Reconciliation(statement);
    let (id, _) = submit(&client, &client.hello()?, say_it, vec![findings])?;
    if cli.json() {
        return say_json(&json!({ "kind": "recorded", "statement_id": id }));
    }
    say(&format!("recorded as {id}"));
    Ok(())
}

fn show(
    cli: &Cli,
    report: &Report,
    unreadable: u64,
    (from, until): (Timestamp, Timestamp),
) -> Done {
    if cli.json() {
        for finding in &report.findings {
            say_json(&json!({ "kind": "database-only", "finding": finding }))?;
        }
        for left in &report.left {
            say_json(&json!({ "kind": "ours-only", "action": left }))?;
        }
        return say_json(&json!({
            "kind": "summary", "v": 1, "from": from, "until": until,
            "unreadable": unreadable, "report": report,
        }));
    }
    say(&format!("the log is from {from} until {until}"));
    count("matched", report.matched);
    count("ours only", report.ours_only);
    for (reason, times) in &report.reasons {
        say(&format!("  {times} {}", clean(reason, 100)));
    }
    count("database only", report.database_only);
    report
        .findings
        .iter()
        .for_each(|finding| say(&in_words(finding)));
    if report.knocked > 0 {
        say(&format!(
            "{} clients came and were not let in: cancels, health checks, wrong passwords",
            report.knocked
        ));
    }
    if report.partly_logged {
        remark(
            "the log does not have all statements, so it may lack some that passed the gateway by",
        );
    }
    if !report.connections {
        remark("the log does not have the beginnings of sessions: set log_connections = on");
    }
    Ok(())
}

/// A finding in lines of its own.
fn in_words(finding: &Finding) -> String {
    let known = |text: &Option<String>| {
        text.as_ref()
            .map_or_else(|| "?".to_owned(), |text| clean(text, 100))
    };
    let port = finding
        .port
        .map_or(String::new(), |port| format!(":{port}"));
    let application = finding.application.as_ref();
    let application = application.map_or(String::new(), |text| format!("  {}", clean(text, 64)));
    let ours = finding.ours.map_or(String::new(), |id| {
        format!("  statements that are not on record, in our session {id}")
    });
    let mut lines = vec![format!(
        "BYPASS  {}  user {}  database {}  from {}{port}  process {}{application}{ours}",
        finding.began,
        known(&finding.user),
        known(&finding.database),
        known(&finding.remote),
        finding.pid,
    )];
    for shown in &finding.texts {
        let at = shown.at.map_or(String::new(), |at| format!("{at}  "));
        let mark = if shown.ambiguous {
            "  (can be read in two ways)"
        } else {
            ""
        };
        lines.push(format!("  {at}{}{mark}", clean(&shown.text, 200)));
    }
    let more = finding
        .statements
        .saturating_sub(finding.texts.len() as u64);
    if more > 0 {
        lines.push(format!("  and {more} more statements"));
    }
    lines.join("\n")
}

/// Counts in a line.
fn count(what: &str, count: Compared) {
    let Compared {
        sessions,
        statements,
    } = count;
    say(&format!(
        "{what:<14} {sessions} sessions, {statements} statements"
    ));
}

/// What is on record, of this one with its list.
fn recorded(cli: &Cli, id: Option<StatementId>) -> Done<Vec<ReconciliationRecord>> {
    let answer = ask(cli, &Query::Reconciliations { id })?;
    serde_json::from_value(answer).attempt("read the answer")
}

fn list(cli: &Cli) -> Done {
    let all = recorded(cli, None)?;
    for one in &all {
        if cli.json() {
            say_json(one)?;
            continue;
        }
        let said = &one.said;
        let passed = said.database_only;
        let verdict = match (said.comparable, said.unreadable) {
            _ if passed != Compared::default() => format!(
                "PASSED BY: {} sessions, {} statements",
                passed.sessions, passed.statements
            ),
            (_, 1..) => format!("{} records not readable", said.unreadable),
            (false, _) => "not comparable".to_owned(),
            (true, _) => format!("nothing passed by, {} matched", said.matched.statements),
        };
        say(&format!(
            "{}  {}  {}  {}  {} until {}  {verdict}",
            one.at,
            one.statement_id,
            who(one),
            clean(&said.targets.join(","), 200),
            said.from,
            said.until,
        ));
    }
    if !cli.json() {
        match all.last() {
            None => say("no database's log was compared, `ascribe reconcile postgres` does it"),
            Some(last) => say(&format!(
                "\nnext: ascribe reconcile show {}",
                last.statement_id
            )),
        }
    }
    Ok(())
}

fn who(one: &ReconciliationRecord) -> String {
    let id = || one.by.to_string();
    one.name.as_ref().map_or_else(id, |name| clean(name, 64))
}

fn shown(cli: &Cli, id: StatementId) -> Done {
    let Some(one) = recorded(cli, Some(id))?.pop() else {
        return Err(Failure::usage(format!("no reconciliation is `{id}`"))
            .help("`ascribe reconcile list` shows all"));
    };
    let findings: Option<Vec<Finding>> = one
        .findings
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .attempt("read the sealed list")?;
    if cli.json() {
        return say_json(&json!({
            "v": 1, "index": one.index, "at": one.at, "statement_id": one.statement_id, "by": one.by,
            "name": one.name, "said": one.said, "findings": findings,
        }));
    }
    let said = &one.said;
    say(&format!(
        "{} compared the log of {} on {}, as entry {}",
        who(&one),
        clean(&said.targets.join(", "), 1000),
        one.at,
        one.index
    ));
    for file in &said.files {
        say(&format!(
            "file           {} bytes, SHA-256 {}",
            file.bytes, file.sha256
        ));
    }
    say(&format!(
        "the log is from {} until {}",
        said.from, said.until
    ));
    count("matched", said.matched);
    count("ours only", said.ours_only);
    count("database only", said.database_only);
    if said.unreadable > 0 {
        say(&format!("{} records could not be read", said.unreadable));
    }
    if !said.comparable {
        say("the log does not show which statements were executed");
    }
    match &findings {
        Some(findings) => findings.iter().for_each(|finding| say(&in_words(finding))),
        None => remark("the sealed list is not there"),
    }
    Ok(())
}
