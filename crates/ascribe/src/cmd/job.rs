//! Maintenance jobs: scripts and commands that are approved as they are, and run under a workload's own identity.
//!
//! A job is a grant for a script or a command. Whoever answers for the workload asks for it, the target's system
//! owner is among those who approve, and each run is a session of the workload. In one of a script exactly the
//! approved statements may be executed, in order; in those of a command, statements of the approved classes.

use ascribe_core::database::{SqlScope, command_definition};
use ascribe_core::id::StatementId;
use ascribe_core::text::clean;
use ascribe_wire::pg::startup::user_name;
use serde_json::json;

use super::ask::{self, script};
use super::command::{self, Bounds};
use super::{login, read, registry, remark, say, say_json, script as sql};
use crate::api::{Query, RunRow};
use crate::cli::database::{JobAdd, JobApprove, JobCommand, JobRun, SqlRequest};
use crate::cli::{self, Cli};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::registry::{AskRow, GrantRow, Registry};

/// A run's login counts for so long, in seconds.
const LASTS: u64 = 4 * 3600;

pub(crate) fn job(cli: &Cli, command: &JobCommand) -> Done {
    match command {
        JobCommand::Add(args) => add(cli, args),
        JobCommand::Approve(args) => approve(cli, args),
        JobCommand::Run(args) => run(cli, args),
        JobCommand::List => list(cli),
        JobCommand::Runs { name } => runs(cli, name),
    }
}

/// Where nobody knows the target, and the law will say so.
const SOME_TIME: u64 = 3600;

fn add(cli: &Cli, args: &JobAdd) -> Done {
    if args.definition.file.is_none() && args.classes.is_empty() {
        let why = "a command says of which classes its statements are: nothing else bounds them";
        return Err(Failure::usage(why)
            .help("for instance `--class select --class update`, before the `--` of the command"));
    }
    let known = registry(&cli.client(false)?)?;
    let on = args.place.rsplit_once('@').map(|(_, target)| target);
    let target = known.targets.iter().find(|target| on == Some(&target.name));
    let window = match (args.window, target) {
        (Some(window), _) => window,
        (None, Some(target)) => {
            remark(&format!(
                "it may run for {}, the longest that `{}` allows",
                super::lasting(target.max_seconds),
                clean(&target.name, 63)
            ));
            target.max_seconds
        }
        (None, None) => SOME_TIME,
    };
    tell_of_others(&known, args);
    let sql = SqlRequest {
        classes: args.classes.clone(),
        objects: args.objects.clone(),
        script: args.definition.file.clone(),
        job: Some((args.name.clone(), args.schedule.clone())),
        command: args.definition.command.clone(),
    };
    ask::request(
        cli,
        &cli::Request {
            what: args.place.clone(),
            window,
            from: None,
            windows: None,
            until: None,
            why: args.why.clone(),
            ticket: args.ticket.clone(),
            workload: Some(args.workload.clone()),
            reusable: true,
            forwards: Vec::new(),
            sql,
            break_glass: false,
        },
    )
}

/// Of jobs with the same name that there are already.
fn tell_of_others(known: &Registry, args: &JobAdd) {
    let name = clean(&args.name, 63);
    let same = |sql: &Option<ascribe_core::database::SqlScope>| {
        let job = sql.as_ref().and_then(|sql| sql.job.as_ref());
        job.is_some_and(|job| job.name == args.name)
    };
    let mine = known.workload(&args.workload).ok();
    let mine = mine.map(|row| row.workload.workload);
    let holds = |grant: &&GrantRow| {
        same(&grant.sql) && matches!(grant.status.as_str(), "active" | "not yet")
    };
    for grant in known.grants.iter().filter(holds) {
        let (who, id, until) = (known.shown(grant.person), grant.id, grant.not_after);
        remark(&match mine == Some(grant.person) {
            true => format!(
                "a job `{name}` is approved already (grant {id} until {until}): once this one is approved, it runs instead"
            ),
            false => format!("{who} has a job of the name `{name}` too (grant {id} until {until})"),
        });
    }
    let waits = known
        .asks
        .iter()
        .filter(|ask| ask.status == "open" && same(&ask.sql));
    for ask in waits {
        remark(&format!(
            "{} waits for approval under the name `{name}` too; if this one is to replace it: ascribe cancel {}",
            ask.id, ask.id
        ));
    }
}

fn approve(cli: &Cli, args: &JobApprove) -> Done {
    let known = registry(&cli.client(false)?)?;
    let bounds = Bounds {
        classes: args.classes.clone(),
        objects: args.objects.clone(),
    };
    let answer = cli::Answer {
        id: meant(&known, args, &bounds)?,
        remark: args.remark.clone(),
    };
    ask::approve(
        cli,
        &cli::Approve {
            answer,
            accept_windows: false,
            script: args.definition.file.clone(),
            unread: false,
            command: args.definition.command.clone(),
            bounds,
        },
    )
}

/// Is this place, `ROLE@TARGET`, the one that is asked for?
fn is_at(ask: &AskRow, place: &str) -> bool {
    let behind = ask.what.strip_prefix(place);
    behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(" for "))
}

/// Which request is meant: the one of this name; of several, the one for what was handed over, within these bounds.
fn meant(known: &Registry, args: &JobApprove, bounds: &Bounds) -> Done<StatementId> {
    let name = args.name.as_str();
    let open = known.asks.iter().filter(|ask| ask.status == "open");
    let named = open.filter(|ask| {
        let job = ask.sql.as_ref().and_then(|sql| sql.job.as_ref());
        job.is_some_and(|job| job.name == name)
    });
    let named: Vec<&AskRow> = named.collect();
    let there = |ask: &&AskRow| args.place.as_deref().is_none_or(|place| is_at(ask, place));
    if let (Some(one), false) = (named.first(), named.iter().any(there)) {
        let why = format!(
            "the job is asked for at {}, not there",
            clean(&one.what, 160)
        );
        return Err(Failure::new(Kind::Denied, why).help(format!(
            "`ascribe show {}` has all that is asked for",
            one.id
        )));
    }
    let named = named.into_iter().filter(there);
    let named = named.filter_map(|ask| Some((ask.id, ask.sql.as_ref()?)));
    let mut found: Vec<(StatementId, &SqlScope)> = named
        .filter(|(id, _)| args.request.is_none_or(|meant| meant == *id))
        .collect();
    match found.as_slice() {
        [] => return Err(no_job(name, "no job waits for approval that")),
        [(id, _)] => return Ok(*id),
        _ => {}
    }
    let listed = |found: &[(StatementId, &SqlScope)]| {
        let ids: Vec<String> = found.iter().map(|(id, _)| id.to_string()).collect();
        ids.join(", ")
    };
    let (all, shown) = (listed(&found), clean(name, 63));
    let (what, here) = match args.definition.file.as_deref() {
        Some(file) => ("script", script(file)?.definition),
        None => ("command", command_definition(&args.definition.command)),
    };
    let is_it = |sql: &SqlScope| sql.job.as_ref().is_some_and(|job| job.definition == here);
    found.retain(|(_, sql)| is_it(sql));
    if found.is_empty() {
        let why = format!("no request for a job `{shown}` is for this {what}: there are {all}");
        return Err(Failure::new(Kind::Denied, why)
            .help("compare it with whoever asked; a changed one needs a new request"));
    }
    if found.len() > 1 {
        let so = |(_, sql): &(StatementId, &SqlScope)| bounds.are_asked_for(sql).is_ok();
        let so: Vec<_> = found.iter().copied().filter(so).collect();
        found = if so.is_empty() { found } else { so };
    }
    match found.as_slice() {
        [(id, _)] => Ok(*id),
        several => {
            let several = listed(several);
            let why =
                format!("several requests for a job `{shown}` are for this {what}: {several}");
            Err(Failure::usage(why).help(
                "`ascribe show ID` has how they differ; then approve one of them: `--request ID`",
            ))
        }
    }
}

fn no_job(name: &str, what: &str) -> Failure {
    Failure::new(
        Kind::Failure,
        format!("{what} is called `{}`", clean(name, 63)),
    )
    .help("`ascribe job list` shows all")
}

/// The grant of a job that runs now: the newest one.
fn grant_of<'a>(grants: &'a [GrantRow], name: &str) -> Done<&'a GrantRow> {
    let named = |grant: &&GrantRow| {
        let job = grant.sql.as_ref().and_then(|sql| sql.job.as_ref());
        job.is_some_and(|job| job.name == name)
    };
    let newest = grants
        .iter()
        .filter(named)
        .max_by_key(|grant| grant.not_before);
    newest.ok_or_else(|| {
        let why = format!("no job that is called `{}` may run now", clean(name, 63));
        Failure::new(Kind::Denied, why)
            .help("its owner asks for it: `ascribe job add`; what waits, `ascribe job list` shows")
    })
}

fn run(cli: &Cli, args: &JobRun) -> Done {
    let script = args.definition.file.as_deref().map(script).transpose()?;
    let client = match &args.workload {
        Some(workload) => login::for_one_run(
            cli,
            &cli::Login {
                provider: None,
                device: false,
                no_browser: true,
                workload: Some(workload.clone()),
                token_file: args.token_file.clone(),
                token_command: args.token_command.clone(),
                svid: args.svid.clone(),
                svid_key: args.svid_key.clone(),
                spiffe_id: args.spiffe_id.clone(),
                key_file: None,
                lasts: LASTS,
            },
        )?,
        None => cli.client(false)?,
    };
    let jobs = client.hello()?.jobs;
    let grant = grant_of(&jobs, &args.name)?;
    let words = &args.definition.command;
    let approved = match &script {
        Some(script) => script.is_asked_for(grant.sql.as_ref()),
        None => command::is_asked_for(words, grant.sql.as_ref()),
    };
    approved.map_err(|changed| {
        let what = if script.is_some() {
            "script"
        } else {
            "command"
        };
        Failure::new(
            Kind::Denied,
            format!(
                "the job's {what} has changed since it was approved: {}",
                changed.message
            ),
        )
        .help("have it approved anew: ascribe job add")
    })?;
    let place = format!("{}+{}@{}", grant.account, grant.id, grant.target);
    let user = user_name(place.as_bytes())
        .map_err(|error| Failure::usage(format!("`{place}`: {error}")))?;
    let database = args.database.as_deref().unwrap_or(&grant.account);
    let Some(script) = script else {
        return command::run(client, &user, (&place, database), words);
    };
    let done = sql::run(client, &user, database, &script, |done| {
        if cli.json() {
            say_json(&json!({
                "statement": done.number, "of": done.of, "tag": done.tag,
            }))
        } else {
            say(&format!("{}/{}  {}", done.number, done.of, done.tag));
            Ok(())
        }
    });
    if done.is_ok() && !cli.json() {
        remark(&format!("next: ascribe job runs {}", clean(&args.name, 63)));
    }
    done
}

/// What it runs, in a few words.
fn extent(sql: &ascribe_core::database::SqlScope) -> String {
    match command::is_command(sql) {
        true => format!("a command ({})", clean(&sql.classes.join(", "), 200)),
        false => format!("{} statements", sql.script.len()),
    }
}

fn list(cli: &Cli) -> Done {
    let known = registry(&cli.client(true)?)?;
    let mut shown = 0;
    let granted = known.grants.iter().filter_map(|grant| {
        let sql = grant.sql.as_ref()?;
        let job = sql.job.as_ref()?;
        let by: Vec<String> = grant.approved_by.iter().map(|p| known.shown(*p)).collect();
        let place = format!("{}@{}", grant.account, grant.target);
        let row = json!({
            "name": job.name, "schedule": job.schedule, "definition": job.definition,
            "statements": sql.script.len(), "place": place, "workload": known.shown(grant.person),
            "status": grant.status, "approved_by": by, "until": grant.not_after,
            "grant": grant.id, "runs": grant.sessions.len(),
        });
        let line = format!(
            "{:<20} {:<10} {place}  by {}  {}  {}  approved by {} until {}  {} runs",
            clean(&job.name, 63),
            grant.status,
            known.shown(grant.person),
            clean(&job.schedule, 80),
            extent(sql),
            by.join(", "),
            grant.not_after,
            grant.sessions.len()
        );
        Some((row, line))
    });
    let waiting = known
        .asks
        .iter()
        .filter(|ask| ask.status == "open")
        .filter_map(|ask| {
            let sql = ask.sql.as_ref()?;
            let job = sql.job.as_ref()?;
            let row = json!({
                "name": job.name, "schedule": job.schedule, "definition": job.definition,
                "statements": sql.script.len(), "place": ask.what, "status": "waits for approval",
                "request": ask.id,
            });
            let line = format!(
                "{:<20} waits for approval  {}  {}  {}",
                clean(&job.name, 63),
                clean(&ask.what, 120),
                clean(&job.schedule, 80),
                extent(sql)
            );
            Some((row, line))
        });
    for (row, line) in granted.chain(waiting) {
        shown += 1;
        if cli.json() {
            say_json(&row)?;
        } else {
            say(&line);
        }
    }
    if shown == 0 && !cli.json() {
        say("no jobs; ask for one with `ascribe job add`");
    }
    Ok(())
}

fn runs(cli: &Cli, name: &str) -> Done {
    let query = Query::Runs {
        job: name.to_owned(),
    };
    let runs: Vec<RunRow> =
        serde_json::from_value(read::ask(cli, &query)?).attempt("read the answer")?;
    for run in &runs {
        if cli.json() {
            say_json(run)?;
            continue;
        }
        let of = run
            .run
            .as_ref()
            .map_or(String::new(), |id| format!(" run {}", clean(id, 80)));
        say(&format!(
            "{}  {}  {}{of}  {} statements, {} rows  {}",
            run.begun,
            run.session,
            clean(&run.who, 63),
            run.statements,
            run.rows,
            how_it_ended(run)
        ));
    }
    if runs.is_empty() && !cli.json() {
        say("no runs");
    }
    Ok(())
}

/// A run's end, with how much of the script was done where that is not all.
fn how_it_ended(run: &RunRow) -> String {
    if run.of == 0 {
        // A command has no steps.
        return match run.refused {
            0 => clean(&run.status, 20),
            refused => format!("{refused} refused"),
        };
    }
    let steps = format!("{} of {} steps", run.steps, run.of);
    match run.status.as_str() {
        "succeeded" => "succeeded".to_owned(),
        "partial" => steps,
        "refused" => format!("{} refused, {steps} done", run.refused),
        other => format!("{}, {steps} done", clean(other, 20)),
    }
}
