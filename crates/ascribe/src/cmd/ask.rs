//! Asking and answering: request, approve, deny, cancel, extend, revoke, review, use.

use std::path::Path;

use ascribe_core::database::{Job, SqlScope, bare, command_definition, object_name};
use ascribe_core::id::{ContentDigest, PersonId, StatementId};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{
    Answer, BreakGlass, Extension, Forward, Recurrence, Request, Review, Revocation, Say, Target,
    Termination, Ticket, UseGrant, Uses,
};
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::command::{self, Bounds};
use super::connect::shell;
use super::{prose, registry, remark, say, say_json};
use crate::api::Hello;
use crate::cli::{self, Cli};
use crate::client::{Client, now};
use crate::exit::{Attempt as _, Done, Failure};
use crate::registry::{AskRow, Registry};
use crate::windows::{Bound, Zones};

/// Submits, and returns the statement's id with the server's answer.
pub(super) fn submit(
    client: &Client,
    hello: &Hello,
    statement: Say,
    openings: Vec<Opening>,
) -> Done<(StatementId, serde_json::Value)> {
    remark(&format!(
        "signing {} with {}",
        statement.tag(),
        client.signer()?.fingerprint()?
    ));
    let (id, _, answer) = client.submit(hello, statement, openings)?;
    Ok((id, answer))
}

fn ticket(text: &str) -> Done<Ticket> {
    match text.split_once(':') {
        Some((system, id)) if !system.is_empty() && !id.is_empty() => Ok(Ticket {
            system: system.to_owned(),
            id: id.to_owned(),
        }),
        _ => Err(Failure::usage(format!("`{text}` is no ticket"))
            .help("write `SYSTEM:ID`, for instance `jira:OPS-42`")),
    }
}

/// Each host name with an address, so that what was approved stays what is reached.
fn pinned(forwards: &[Forward]) -> Done<Vec<Forward>> {
    use std::net::{IpAddr, ToSocketAddrs as _};
    let mut out = forwards.to_vec();
    for forward in &mut out {
        let Forward::Local(to) = forward else {
            continue;
        };
        if to.address.is_some() || to.host.parse::<IpAddr>().is_ok() {
            continue;
        }
        let found = (to.host.as_str(), to.port).to_socket_addrs();
        let found = found.ok().and_then(|mut all| all.next());
        let address = found.ok_or_else(|| {
            Failure::usage(format!("`{}` has no address here", to.host)).help(format!(
                "give the one that it has behind the target: --forward local:{}=ADDRESS:{}",
                to.host, to.port
            ))
        })?;
        to.address = Some(address.ip().to_string());
        super::remark(&format!("{} is pinned to {}", to.host, address.ip()));
    }
    Ok(out)
}

/// The windows that were asked for, as instants.
fn recurrence(args: &cli::Request, now: i64) -> Done<Option<Recurrence>> {
    let (Some(rule), Some(until)) = (&args.windows, &args.until) else {
        return Ok(None);
    };
    let from = match &args.from {
        Some(text) => text.parse()?,
        None => Bound::Instant(Timestamp::from_millis(now)),
    };
    Zones::here()?
        .recurrence(rule, from, until.parse()?)
        .map(Some)
}

/// First instant and end of what is asked for.
fn span(
    args: &cli::Request,
    recurrence: Option<&Recurrence>,
    now: i64,
) -> Done<(Timestamp, Timestamp)> {
    if let Some([first, .., last] | [first @ last]) = recurrence.map(|r| r.windows.as_slice()) {
        return Ok((first.from, last.until));
    }
    let begin = match &args.from {
        Some(text) => Timestamp::parse_human(text).map_err(|e| Failure::usage(e.to_string()))?,
        None => Timestamp::from_millis(now),
    };
    let window = i64::try_from(args.window)
        .unwrap_or(i64::MAX / 2)
        .saturating_mul(1000);
    Ok((begin, begin.plus_millis(window)))
}

/// Rule and windows, in the zone's time and in UTC.
pub(crate) fn windows_in_words(recurrence: &Recurrence) -> String {
    let Recurrence {
        rule,
        zone,
        tzdata,
        windows,
    } = recurrence;
    let mut lines = vec![format!(
        "windows    {} of {} {}, zone data {}",
        windows.len(),
        clean(rule, 80),
        clean(zone, 80),
        clean(tzdata, 40)
    )];
    let zones = Zones::here().ok();
    lines.extend(windows.iter().map(|window| match &zones {
        Some(zones) => format!("           {}", zones.shown(zone, window)),
        None => format!("           {} until {}", window.from, window.until),
    }));
    lines.join("\n")
}

/// Does this machine come to the same windows? What is approved is what was asked for, so another
/// opinion about a zone must be seen before.
fn check_windows(recurrence: &Recurrence) -> Done {
    let help = "if they are what you mean: `ascribe approve --accept-windows`; or deny them";
    let here = Zones::here()?;
    let own = here.again(recurrence).map_err(|failure| {
        let why = format!("the windows cannot be compared: {}", failure.message);
        Failure::new(crate::exit::Kind::Failure, why).help(help)
    })?;
    if own == recurrence.windows {
        return Ok(());
    }
    for window in own.iter().filter(|w| !recurrence.windows.contains(w)) {
        let shown = here.shown(&recurrence.zone, window);
        remark(&format!("only here:  {shown}"));
    }
    for window in recurrence.windows.iter().filter(|w| !own.contains(w)) {
        let shown = here.shown(&recurrence.zone, window);
        remark(&format!("only asked: {shown}"));
    }
    let why = format!(
        "this machine's zone data ({}) gives other windows than were asked for with {}",
        here.version,
        clean(&recurrence.tzdata, 40)
    );
    Err(Failure::new(crate::exit::Kind::Failure, why).help(help))
}

/// A script, as it is approved.
pub(crate) struct Script {
    /// SHA-256 of the file.
    pub(crate) definition: ContentDigest,
    /// Of each statement.
    pub(crate) statements: Vec<ContentDigest>,
    /// Each statement's text.
    pub(crate) texts: Vec<Vec<u8>>,
    /// What each is.
    found: Vec<ascribe_sql::Statement>,
}

impl Script {
    /// Is it the one that is asked for?
    pub(crate) fn is_asked_for(&self, scope: Option<&SqlScope>) -> Done {
        let asked = scope.map_or(&[][..], |scope| scope.script.as_slice());
        let job = scope.and_then(|scope| scope.job.as_ref());
        if asked == self.statements && job.is_none_or(|job| job.definition == self.definition) {
            return Ok(());
        }
        let differs = asked.iter().zip(&self.statements);
        let differs = differs.take_while(|(asked, here)| asked == here).count();
        let text = self.texts.get(differs).map_or_else(
            || "it has fewer statements".to_owned(),
            |text| clean(&String::from_utf8_lossy(text), 200),
        );
        let why = if asked.is_empty() {
            "no script was asked for".to_owned()
        } else if asked == self.statements {
            "the file differs from the one that was asked for, though not in its statements"
                .to_owned()
        } else {
            format!(
                "the file is not the one that was asked for; from its statement {}: {text}",
                differs + 1
            )
        };
        Err(Failure::new(crate::exit::Kind::Denied, why)
            .help("compare it with whoever asked; a changed script needs a new request"))
    }
}

impl Script {
    /// Does nothing in it meet a rule, of the target or of what is asked for, that would refuse it at every run?
    fn could_run(&self, target: &Target, asked: &cli::database::SqlRequest) -> Done {
        let Some(postgres) = &target.postgres else {
            return Ok(());
        };
        for (nth, statement) in self.found.iter().enumerate() {
            let refuse = |what: String, help: String| {
                let nth = nth + 1;
                let why =
                    format!("statement {nth} of the script would be refused at every run: {what}");
                Err(Failure::new(crate::exit::Kind::Denied, why).help(help))
            };
            let flags = statement.flags.iter();
            let mut flags = flags.filter(|flag| **flag != ascribe_sql::Flag::ChangesReading);
            if let Some(flag) = flags.find(|flag| postgres.allow.iter().all(|a| a != flag.as_str()))
            {
                let (flag, name) = (flag.as_str(), clean(&target.name, 63));
                return refuse(
                    format!("`{name}` does not allow `{flag}`"),
                    format!(
                        "take it out, or have administrators register `{name}` with `--allow {flag}`"
                    ),
                );
            }
            let mut classes = statement.classes.iter().map(|class| class.as_str());
            let other = classes.find(|class| asked.classes.iter().all(|asked| asked != class));
            if let (Some(class), false) = (other, asked.classes.is_empty()) {
                return refuse(
                    format!("it is of class `{class}`, which is not asked for"),
                    format!("ask for it too: `--class {class}`"),
                );
            }
            let scope = SqlScope {
                objects: asked.objects.clone(),
                ..SqlScope::default()
            };
            let named = statement.objects.iter();
            let mut named = named
                .filter(|object| object.access != ascribe_sql::Access::Call)
                .map(|object| object_name(object.schema.as_deref(), &object.name));
            let other = named.find(|object| !scope.holds(object));
            if let (Some(object), false) = (other, asked.objects.is_empty()) {
                let object = clean(&object, 120);
                return refuse(
                    format!("it names `{object}`, which is not asked for"),
                    "objects are compared as they are written: SCHEMA.TABLE, in the script and with `--object`"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Reads a script and takes it apart as the gateway will.
pub(crate) fn script(file: &Path) -> Done<Script> {
    let text = std::fs::read(file).attempt(format!("read `{}`", file.display()))?;
    let reading = ascribe_sql::Reading {
        encoding: ascribe_sql::Encoding::Utf8,
        standard_conforming_strings: true,
        replication: false,
    };
    let found = ascribe_sql::read(&text, reading).map_err(|error| {
        Failure::usage(format!("`{}` cannot be read: {error}", file.display())).help(
            "a script holds SQL alone, in UTF-8; psql's own commands, such as \\i, are not SQL",
        )
    })?;
    let digest = |bytes: &[u8]| ContentDigest(ascribe_tlog::Hash(Sha256::digest(bytes).into()));
    let whole = found.into_iter().filter_map(|statement| {
        let text = bare(text.get(statement.range.clone())?).to_vec();
        (!text.is_empty()).then_some((text, statement))
    });
    let (texts, found): (Vec<_>, Vec<_>) = whole.unzip();
    if texts.is_empty() {
        return Err(Failure::usage(format!(
            "`{}` holds no statement",
            file.display()
        )));
    }
    Ok(Script {
        definition: digest(&text),
        statements: texts.iter().map(|text| digest(text)).collect(),
        texts,
        found,
    })
}

/// What statements are asked for.
fn scope(args: &cli::database::SqlRequest, script: Option<Script>) -> Option<SqlScope> {
    let definition = match &script {
        Some(script) => script.definition,
        None => command_definition(&args.command),
    };
    let job = args.job.as_ref().map(|(name, schedule)| Job {
        definition,
        name: name.clone(),
        schedule: schedule.clone(),
    });
    let scope = SqlScope {
        classes: args.classes.clone(),
        objects: args.objects.clone(),
        job,
        script: script.map_or(Vec::new(), |script| script.statements),
    };
    (scope != SqlScope::default()).then_some(scope)
}

/// Who has to say yes: those who must, and how many of the others.
fn who_approves(known: &Registry, ask: &AskRow) -> String {
    let names = |people: &mut dyn Iterator<Item = &PersonId>| {
        let names: Vec<String> = people.map(|person| known.shown(*person)).collect();
        names.join(", ")
    };
    let must = known.must_approve(ask);
    let others = ask.can_approve.iter();
    let others = names(&mut others.filter(|person| !ask.must_approve.contains(person)));
    let number = ask.missing.saturating_sub(must.len());
    let more = number > 0;
    let number = match number {
        1 => "one".to_owned(),
        number => number.to_string(),
    };
    let (none, must) = (must.is_empty(), must.join(", "));
    match (none, more) {
        (true, _) if others.is_empty() => "(nobody yet)".to_owned(),
        (true, _) => format!("{number} of {others}"),
        (false, false) => must,
        (false, true) if others.is_empty() => format!("{must}, and {number} more (nobody yet)"),
        (false, true) => format!("{must}, and {number} of {others},"),
    }
}

/// What whoever approves types; of what they compare, first what shows all that is asked for.
fn how_to_approve(ask: StatementId, sql: &cli::database::SqlRequest) -> String {
    let how = match (&sql.job, &sql.script) {
        (Some((name, _)), Some(file)) => format!(
            "ascribe job approve {} --request {ask} --file {}",
            shell(name),
            shell(&file.to_string_lossy())
        ),
        (_, Some(file)) => format!(
            "ascribe approve {ask} --script {}",
            shell(&file.to_string_lossy())
        ),
        (Some((name, _)), None) => {
            let classes = sql.classes.iter().map(|class| ("class", class));
            let objects = sql.objects.iter().map(|object| ("object", object));
            let bounds = classes.chain(objects);
            let bounds = bounds.map(|(option, value)| format!(" --{option} {}", shell(value)));
            format!(
                "ascribe job approve {} --request {ask}{} -- {}",
                shell(name),
                bounds.collect::<String>(),
                command::shown(&sql.command)
            )
        }
        (None, None) => return format!("`ascribe approve {ask}`"),
    };
    format!("`ascribe show {ask}`, then `{how}`")
}

pub(crate) fn request(cli: &Cli, args: &cli::Request) -> Done {
    let (account, target) = args.what.rsplit_once('@').ok_or_else(|| {
        Failure::usage(format!("`{}` is not ACCOUNT@TARGET", args.what))
            .help("for instance `root@db1`")
    })?;
    let ticket = args.ticket.as_deref().map(ticket).transpose()?;
    let client = cli.client(false)?;
    let script = args.sql.script.as_deref().map(script).transpose()?;
    let mut beneficiary = None;
    if args.workload.is_some() || script.is_some() {
        let known = registry(&client)?;
        if let Some(name) = &args.workload {
            beneficiary = Some(known.workload(name)?.workload.workload);
        }
        let known = known.targets.iter().find(|known| known.name == target);
        if let (Some(script), Some(known)) = (&script, known) {
            script.could_run(known, &args.sql)?;
        }
    }
    let hello = client.hello()?;
    let recurrence = recurrence(args, hello.now)?;
    let (begin, not_after) = span(args, recurrence.as_ref(), hello.now)?;
    let (account, target) = (account.to_owned(), target.to_owned());
    let (statement, opening) = if args.break_glass {
        let (emergency, opening) = prose("emergency", &args.why)?;
        (
            Say::BreakGlass(BreakGlass {
                target,
                account,
                not_after,
                emergency,
                ticket,
            }),
            opening,
        )
    } else {
        let (justification, opening) = prose("justification", &args.why)?;
        let uses = if args.reusable || recurrence.is_some() {
            Uses::Reusable
        } else {
            Uses::Single
        };
        let request = Request {
            forwards: pinned(&args.forwards)?,
            target,
            account,
            not_before: begin,
            not_after,
            uses,
            justification,
            ticket,
            recurrence: recurrence.clone(),
            beneficiary,
            sql: scope(&args.sql, script),
        };
        (Say::Request(request), opening)
    };
    let (id, _) = submit(&client, &hello, statement, vec![opening])?;
    let registry = registry(&client)?;
    let grant = registry.grants.iter().find(|grant| grant.request == id);
    let ask = registry.asks.iter().find(|ask| ask.id == id);
    if cli.json() {
        let who = ask.iter().flat_map(|ask| &ask.can_approve);
        let who: Vec<String> = who.map(|p| registry.shown(*p)).collect();
        return say_json(&json!({
            "request_id": id, "grant_id": grant.map(|g| g.id),
            "not_before": begin, "not_after": not_after, "can_approve": who,
            "recurrence": recurrence,
        }));
    }
    if let Some(recurrence) = &recurrence {
        say(&windows_in_words(recurrence));
    }
    match grant {
        Some(grant) => say(&format!(
            "break-glass grant {} until {}\nevery action is marked; somebody else reviews it: ascribe review {}",
            grant.id, grant.not_after, grant.id
        )),
        None => say(&format!(
            "request {id} for {} from {begin} until {not_after}\nnext: {} runs {}",
            args.what,
            ask.map_or("(nobody yet)".to_owned(), |ask| who_approves(
                &registry, ask
            )),
            how_to_approve(id, &args.sql),
        )),
    }
    Ok(())
}

/// Which answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Approve,
    Deny,
    Cancel,
}

pub(crate) fn approve(cli: &Cli, args: &cli::Approve) -> Done {
    let wanted = Wanted {
        accept_windows: args.accept_windows,
        script: args.script.as_deref().map(script).transpose()?,
        unread: args.unread,
        command: args.command.clone(),
        bounds: args.bounds.clone(),
    };
    give(cli, &args.answer, Kind::Approve, &wanted)
}

/// What whoever approves made sure of.
#[derive(Default)]
struct Wanted {
    accept_windows: bool,
    script: Option<Script>,
    unread: bool,
    command: Vec<String>,
    bounds: Bounds,
}

pub(crate) fn answer(cli: &Cli, args: &cli::Answer, kind: Kind) -> Done {
    give(cli, args, kind, &Wanted::default())
}

/// What is asked for, before it is answered.
fn tell(known: &Registry, ask: &AskRow) {
    remark(&format!(
        "{} by {}: {}{}",
        ask.kind,
        known.shown(ask.by),
        clean(&ask.what, 120),
        ask.not_after
            .map_or(String::new(), |end| format!(" until {end}")),
    ));
    if let Some(ticket) = &ask.ticket {
        let ticket = format!("{}:{}", ticket.system, ticket.id);
        remark(&format!("  ticket {}", clean(&ticket, 80)));
    }
    for detail in &ask.details {
        remark(&format!("  {}", clean(detail, 4000)));
    }
    known.tell_unwitnessed([ask.at]);
}

/// A script or a command is approved by whoever has read it, or says that they have not.
fn check_read(ask: &AskRow, wanted: &Wanted) -> Done {
    let sql = ask.sql.as_ref();
    let is_bounded_so = || sql.map_or(Ok(()), |sql| wanted.bounds.are_asked_for(sql));
    if let Some(script) = &wanted.script {
        script.is_asked_for(sql)?;
        return is_bounded_so();
    }
    if !wanted.command.is_empty() {
        remark(&format!("  command {}", command::shown(&wanted.command)));
        command::is_asked_for(&wanted.command, sql)?;
        if wanted.bounds.classes.is_empty() {
            let why = "the classes of a command's statements are all that bounds it: state those that it may have";
            return Err(Failure::usage(why).help(format!(
                "`ascribe show {}` has those that are asked for: --class CLASS, for each of them",
                ask.id
            )));
        }
        return is_bounded_so();
    }
    let Some(sql) = sql.filter(|sql| !sql.script.is_empty() || command::is_command(sql)) else {
        return Ok(());
    };
    if wanted.unread {
        remark("approved unread: nobody here compared it with a script or a command");
        return Ok(());
    }
    if let Some(job) = sql.job.as_ref().filter(|_| command::is_command(sql)) {
        let name = clean(&job.name, 63);
        let why = "a command is asked for, and the ledger has only its digest";
        return Err(Failure::usage(why).help(format!(
            "give the command that you read, and it is compared: `ascribe job approve {name} --class CLASS -- PROGRAM ARGUMENT ...`; \
             or say that you have not: `--unread`"
        )));
    }
    let how = match &sql.job {
        Some(job) => format!("ascribe job approve {} --file FILE", clean(&job.name, 63)),
        None => format!("ascribe approve {} --script FILE", ask.id),
    };
    let why = "a script is asked for, and the ledger has only the digests of its statements";
    Err(Failure::usage(why).help(format!(
        "give the file that you read, and it is compared: `{how}`; or say that you have not: `--unread`"
    )))
}

/// What runs a job; of a command, with the words that are known of it.
fn how_to_run(name: &str, who: &str, command: Option<&[String]>) -> String {
    let (file, words) = match command {
        None => (" --file FILE", String::new()),
        Some([]) => ("", " -- PROGRAM ARGUMENT ...".to_owned()),
        Some(words) => ("", format!(" -- {}", command::shown(words))),
    };
    let name = clean(name, 63);
    format!("runs it: ascribe job run {name}{file} --workload {who} --database DATABASE{words}")
}

fn give(cli: &Cli, args: &cli::Answer, kind: Kind, wanted: &Wanted) -> Done {
    let client = cli.client(false)?;
    let known = registry(&client)?;
    let ask = known
        .asks
        .iter()
        .find(|ask| ask.id == args.id)
        .ok_or_else(|| {
            Failure::new(
                crate::exit::Kind::Failure,
                format!("no request has the id `{}`", args.id),
            )
            .help("`ascribe requests` lists them")
        })?;
    tell(&known, ask);
    if kind == Kind::Approve {
        check_read(ask, wanted)?;
    }
    if kind == Kind::Approve && ask.kind == "request" {
        let query = crate::api::Query::Request { id: args.id };
        let shown = client.read(&query)?;
        let why = shown
            .get("justification")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("(withheld)");
        remark(&format!("because: {}", clean(why, 2000)));
        if let Some(recurrence) = &ask.recurrence {
            remark(&windows_in_words(recurrence));
            if !wanted.accept_windows {
                check_windows(recurrence)?;
            }
        }
    }
    let hello = client.hello()?;
    let mut openings = Vec::new();
    let mut sealed = None;
    if let Some(text) = &args.remark {
        let (prose, opening) = prose("remark", text)?;
        openings.push(opening);
        sealed = Some(prose);
    }
    let body = Answer {
        of: args.id,
        entry: ask.entry,
        remark: sealed,
    };
    let statement = match kind {
        Kind::Approve => Say::Approval(body),
        Kind::Deny => Say::Denial(body),
        Kind::Cancel => Say::Cancellation(body),
    };
    submit(&client, &hello, statement, openings)?;
    let known = registry(&client)?;
    let ask = known.asks.iter().find(|ask| ask.id == args.id);
    let grant = known.grants.iter().find(|grant| grant.request == args.id);
    let missing = ask.map_or(0, |ask| if ask.status == "open" { ask.missing } else { 0 });
    if cli.json() {
        return say_json(&json!({
            "request_id": args.id, "status": ask.map(|a| a.status.clone()),
            "grant_id": grant.map(|g| g.id), "missing_approvals": missing,
        }));
    }
    match (kind, grant, missing) {
        (Kind::Approve, Some(grant), _) => {
            let place = format!("{}@{}", grant.account, grant.target);
            let database = known
                .targets
                .iter()
                .any(|target| target.name == grant.target && target.postgres.is_some());
            let who = known.shown(grant.person);
            let job = grant.sql.as_ref().and_then(|sql| sql.job.as_ref());
            let how = match (job, hello.ssh.rsplit_once(':')) {
                (Some(job), _) => {
                    let is_command = grant.sql.as_ref().is_some_and(command::is_command);
                    let command = is_command.then_some(&wanted.command[..]);
                    how_to_run(&job.name, &who, command)
                }
                _ if database => format!("connects: ascribe psql {place} -- -d DATABASE"),
                (None, Some((host, port))) => format!("connects: ssh -p {port} {place}@{host}"),
                (None, None) => format!("connects: ssh {place}@{}", hello.ssh),
            };
            say(&format!(
                "grant {} for {place} {}\nnext: {who} {how}",
                grant.id,
                grant.when(),
            ));
        }
        (Kind::Approve, None, 0) if ask.is_some_and(|ask| ask.status == "open") => {
            say("approved; it takes effect once enough witnesses have seen that")
        }
        (Kind::Approve, None, 0) => say("approved; it took effect"),
        (Kind::Approve, None, missing) => say(&format!(
            "approved; {missing} more approval(s) needed: {}",
            ask.map_or(String::new(), |ask| who_approves(&known, ask))
        )),
        (Kind::Deny, _, _) => say("denied"),
        (Kind::Cancel, _, _) => say("withdrawn"),
    }
    Ok(())
}

pub(crate) fn extend(cli: &Cli, args: &cli::Extend) -> Done {
    let client = cli.client(false)?;
    let known = registry(&client)?;
    let grant = known
        .grants
        .iter()
        .find(|grant| grant.id == args.grant)
        .ok_or_else(|| no_grant(args.grant))?;
    let by = i64::try_from(args.by)
        .unwrap_or(i64::MAX / 2)
        .saturating_mul(1000);
    let not_after = grant.not_after.plus_millis(by);
    let (justification, opening) = prose("justification", &args.why)?;
    let statement = Say::Extension(Extension {
        grant: args.grant,
        not_after,
        justification,
    });
    let (id, _) = submit(&client, &client.hello()?, statement, vec![opening])?;
    if cli.json() {
        return say_json(
            &json!({ "request_id": id, "grant_id": args.grant, "not_after": not_after }),
        );
    }
    say(&format!(
        "asked to extend {} until {not_after}\nnext: an approver runs `ascribe approve {id}`",
        args.grant
    ));
    Ok(())
}

fn no_grant(id: ascribe_core::id::GrantId) -> Failure {
    Failure::new(
        crate::exit::Kind::Failure,
        format!("no grant has the id `{id}`"),
    )
    .help("`ascribe grants --all` lists them")
}

pub(crate) fn revoke(cli: &Cli, args: &cli::Revoke) -> Done {
    let client = cli.client(false)?;
    let (reason, opening) = prose("reason", &args.why)?;
    let statement = Say::Revocation(Revocation {
        grant: args.grant,
        reason,
    });
    submit(&client, &client.hello()?, statement, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "grant_id": args.grant, "revoked": now() }));
    }
    say("revoked; its sessions end within 2 s");
    Ok(())
}

pub(crate) fn terminate(cli: &Cli, args: &cli::Terminate) -> Done {
    let client = cli.client(false)?;
    let (reason, opening) = prose("reason", &args.reason)?;
    let statement = Say::Termination(Termination {
        session: args.session,
        reason,
    });
    submit(&client, &client.hello()?, statement, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "session_id": args.session, "terminated": now() }));
    }
    say("ended; its channels close within 2 s. The grant goes on: `ascribe revoke` ends it");
    Ok(())
}

pub(crate) fn review(cli: &Cli, args: &cli::Review) -> Done {
    let client = cli.client(false)?;
    let (finding, opening) = prose("finding", &args.finding)?;
    let statement = Say::Review(Review {
        grant: args.grant,
        verdict: args.verdict,
        finding,
    });
    submit(&client, &client.hello()?, statement, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "grant_id": args.grant, "reviewed": true }));
    }
    say("review closed");
    Ok(())
}

pub(crate) fn choose(cli: &Cli, grant: ascribe_core::id::GrantId) -> Done {
    let client = cli.client(false)?;
    submit(
        &client,
        &client.hello()?,
        Say::Use(UseGrant { grant }),
        Vec::new(),
    )?;
    if cli.json() {
        return say_json(&json!({ "grant_id": grant }));
    }
    say(&format!("{grant} is meant from now on"));
    Ok(())
}
