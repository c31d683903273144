//! Listings: requests, grants, sessions, and what I may do.

use ascribe_core::statement::Role;
use ascribe_core::text::clean;
use serde_json::json;

use super::{registry, say, say_json};
use crate::cli::{Cli, Listing};
use crate::exit::{Done, Failure, Kind};
use crate::registry::{AskRow, Registry};

pub(crate) fn requests(cli: &Cli, args: &Listing) -> Done {
    let known = registry(&cli.client(true)?)?;
    let mut shown = 0;
    for ask in known
        .asks
        .iter()
        .filter(|ask| args.all || ask.status == "open")
    {
        shown += 1;
        if cli.json() {
            say_json(ask)?;
            continue;
        }
        let wait = match ask.status.as_str() {
            "open" => waits(&known, ask),
            status => status.to_owned(),
        };
        let ticket = ask.ticket.as_ref().map_or(String::new(), |t| {
            clean(&format!("  {}:{}", t.system, t.id), 80)
        });
        say(&format!(
            "{}  {:<11} {:<20} by {}{ticket}  {wait}",
            ask.id,
            ask.kind,
            clean(&ask.what, 60),
            known.shown(ask.by)
        ));
        // A proposal's are all members of what is signed: `show` has them.
        for detail in ask.details.iter().filter(|_| ask.kind == "request") {
            say(&format!("    {}", clean(detail, 400)));
        }
    }
    if shown == 0 && !cli.json() {
        say("nothing waits for approval");
    }
    if !cli.json() {
        let shown = known
            .asks
            .iter()
            .filter(|ask| args.all || ask.status == "open");
        known.tell_unwitnessed(shown.map(|ask| ask.at));
    }
    Ok(())
}

/// What an open request waits for.
fn waits(known: &Registry, ask: &AskRow) -> String {
    let who: Vec<String> = ask.can_approve.iter().map(|p| known.shown(*p)).collect();
    let who = who.join(", ");
    let of_grant = matches!(ask.kind.as_str(), "request" | "extension");
    match (ask.missing, of_grant) {
        // A manager or the target's rules changed.
        (0, true) => {
            format!(
                "lacks no approval any more: the next one gives it effect, also another of {who}"
            )
        }
        (0, false) => "waits until witnesses have seen its approvals".to_owned(),
        (missing, _) => {
            let must = known.must_approve(ask);
            let must = match must.is_empty() {
                true => String::new(),
                false => format!("; {} must be among them", must.join(", ")),
            };
            format!("waits for {missing} of {who}{must}")
        }
    }
}

pub(crate) fn grants(cli: &Cli, args: &Listing) -> Done {
    let known = registry(&cli.client(true)?)?;
    let current = |status: &str| matches!(status, "active" | "not yet" | "between windows");
    let mut shown = 0;
    for grant in known
        .grants
        .iter()
        .filter(|g| args.all || current(&g.status))
    {
        shown += 1;
        if cli.json() {
            say_json(grant)?;
            continue;
        }
        let ticket = grant.ticket.as_ref().map_or(String::new(), |t| {
            clean(&format!("  {}:{}", t.system, t.id), 80)
        });
        let mark = if grant.break_glass {
            "  BREAK-GLASS"
        } else {
            ""
        };
        say(&format!(
            "{}  {}@{}  {}  {} {}{ticket}{mark}{}",
            grant.id,
            grant.account,
            grant.target,
            known.shown(grant.person),
            grant.status,
            grant.when(),
            grant
                .forwards
                .iter()
                .map(|f| format!("  +{}", clean(f, 300)))
                .collect::<String>()
        ));
    }
    if shown == 0 && !cli.json() {
        say("no current grants (`--all` shows what is over)");
    }
    Ok(())
}

pub(crate) fn sessions(cli: &Cli, args: &Listing) -> Done {
    let known = registry(&cli.client(true)?)?;
    // Sessions are evidence: ended ones are listed too, newest last; `--all` lifts the limit.
    let skip = if args.all {
        0
    } else {
        known.sessions.len().saturating_sub(50)
    };
    for session in known.sessions.iter().skip(skip) {
        if cli.json() {
            say_json(session)?;
            continue;
        }
        let end = match (&session.ended, &session.reason) {
            (Some(at), Some(reason)) => format!("{reason} at {at}"),
            _ => "open".to_owned(),
        };
        let agents = session.agents.iter();
        let agents: String = agents.map(|a| format!(" > {}", clean(a, 63))).collect();
        say(&format!(
            "{}  {}@{}  {}{agents}  {}  {} action(s)  {end}",
            session.id,
            session.account,
            session.target,
            known.shown(session.person),
            session.at,
            session.actions
        ));
    }
    if known.sessions.is_empty() && !cli.json() {
        say("no sessions yet");
    }
    if !cli.json() {
        // One that is open may have said something just now.
        let newest = known.sessions.iter().skip(skip);
        known.tell_unwitnessed(newest.map(|session| session.ended.unwrap_or(known.now)));
    }
    Ok(())
}

pub(crate) fn can(cli: &Cli) -> Done {
    let known = registry(&cli.client(false)?)?;
    let Some(me) = known.people.iter().find(|p| Some(p.id) == known.you) else {
        return Err(Failure::new(Kind::Denied, "your key is not enrolled"));
    };
    let mine = |status: &str| -> Vec<_> {
        let fits = |g: &&crate::registry::GrantRow| g.person == me.id && g.status == status;
        known.grants.iter().filter(fits).collect()
    };
    let may_now = mine("active");
    if cli.json() {
        return say_json(&json!({
            "person": me.id, "roles": me.roles, "grants": may_now,
            "targets": known.targets.iter().map(|t| json!({"target": t.name, "accounts": t.accounts, "break_glass": t.break_glass.contains(&me.id)})).collect::<Vec<_>>(),
        }));
    }
    let roles: Vec<String> = me
        .roles
        .iter()
        .map(|r| format!("{r:?}").to_lowercase())
        .collect();
    say(&format!(
        "you are {} ({}), roles: {}",
        clean(&me.name, 60),
        me.id,
        roles.join(", ")
    ));
    for grant in &may_now {
        let place = format!("{}@{}", grant.account, grant.target);
        let mut targets = known.targets.iter();
        let database = targets.any(|t| t.name == grant.target && t.postgres.is_some());
        let how = match database {
            true => format!("ascribe psql {place} -- -d DATABASE"),
            false => format!("ssh {place}@GATEWAY"),
        };
        say(&format!("now:  {how}   {} ({})", grant.when(), grant.id));
    }
    for grant in mine("not yet").iter().chain(&mine("between windows")) {
        say(&format!(
            "later: {}@{}   {} ({})",
            grant.account,
            grant.target,
            grant.when(),
            grant.id
        ));
    }
    if me.roles.contains(&Role::Requester) {
        for target in &known.targets {
            let mark = if target.break_glass.contains(&me.id) {
                "   (also --break-glass)"
            } else {
                ""
            };
            say(&format!(
                "ask:  ascribe request {}@{} --why \"...\"{mark}",
                target.accounts.join("|"),
                target.name
            ));
        }
    }
    let waiting = known
        .asks
        .iter()
        .filter(|a| a.status == "open" && a.can_approve.contains(&me.id))
        .count();
    if waiting > 0 {
        say(&format!(
            "{waiting} request(s) wait for you: ascribe requests"
        ));
    }
    Ok(())
}
