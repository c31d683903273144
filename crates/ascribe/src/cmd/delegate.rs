//! Agents: delegate, accept, revoke, list.

use ascribe_core::delegation::{Acceptance, Asserted, Delegation, DelegationRevoke};
use ascribe_core::id::StatementId;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use serde_json::json;

use super::ask::submit;
use super::setup::public_key;
use super::{prose, registry, remark, say, say_json};
use crate::api::Hello;
use crate::cli::{self, Cli, DelegateCommand, Listing};
use crate::client::now;
use crate::exit::{Done, Failure, Kind};
use crate::registry::DelegationRow;

pub(crate) fn delegate(cli: &Cli, args: &cli::Delegate) -> Done {
    match (&args.command, &args.new) {
        (Some(DelegateCommand::Accept(args)), _) => accept(cli, args),
        (Some(DelegateCommand::Revoke { delegation, reason }), _) => {
            revoke(cli, *delegation, reason)
        }
        (None, Some(new)) => give(cli, new),
        (None, None) => Err(Failure::usage("which agent?").help("see `ascribe delegate --help`")),
    }
}

fn give(cli: &Cli, args: &cli::NewDelegation) -> Done {
    let key = public_key(&args.public_key)?;
    let client = cli.client(false)?;
    let hello = client.hello()?;
    let window = i64::try_from(args.window)
        .unwrap_or(i64::MAX / 2)
        .saturating_mul(1000);
    let until = Timestamp::from_millis(hello.now).plus_millis(window);
    let (task, opening) = prose("task", &args.task)?;
    let statement = Say::Delegation(Delegation {
        actions: args.actions,
        agent: args.agent.clone(),
        depth: args.depth,
        key,
        kinds: args.kinds.clone(),
        parent: args.within.or(hello.delegated().map(|row| row.id)),
        targets: args.targets.clone(),
        task,
        until,
    });
    let (id, _) = submit(&client, &hello, statement, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "delegation_id": id, "agent": args.agent, "until": until }));
    }
    say(&format!(
        "delegation {id} to {} until {until}\nnext: the agent takes it with its own key: ascribe --key KEYFILE delegate accept {id}",
        clean(&args.agent, 63)
    ));
    Ok(())
}

fn accept(cli: &Cli, args: &cli::Accept) -> Done {
    let client = cli.client(false)?;
    let hello = client.hello()?;
    let mut rows = hello.delegations.iter();
    let row = rows.find(|row| row.id == args.delegation).ok_or_else(|| {
        let key = client.signer().and_then(crate::signer::Signer::fingerprint);
        let why = format!(
            "no delegation `{}` waits for the key {}",
            args.delegation,
            key.unwrap_or_default()
        );
        Failure::new(Kind::Denied, why).help("sign with the key that it names: `--key FILE`")
    })?;
    remark(&format!("{} {}", row.agent, allowed(row)));
    let statement = Say::Acceptance(Acceptance {
        asserted: Asserted {
            harness: args.harness.clone(),
            model: args.model.clone(),
            run: args.run.clone(),
            version: args.model_version.clone(),
        },
        entry: row.entry,
        of: row.id,
    });
    // An agent signs in the name of the person whose delegation it takes.
    let author = Hello {
        person: Some(row.person),
        ..hello.clone()
    };
    submit(&client, &author, statement, Vec::new())?;
    if cli.json() {
        return say_json(
            &json!({ "delegation_id": row.id, "agent": row.agent, "until": row.until }),
        );
    }
    let (host, port) = hello.ssh.rsplit_once(':').unwrap_or((&hello.ssh, "22"));
    let target = row.targets.first().map_or("TARGET", String::as_str);
    say(&format!(
        "accepted until {}\nnext: ssh -p {port} -i KEYFILE ACCOUNT@{target}@{host}",
        row.until
    ));
    Ok(())
}

fn revoke(cli: &Cli, delegation: StatementId, reason: &str) -> Done {
    let client = cli.client(false)?;
    let (reason, opening) = prose("reason", reason)?;
    let statement = Say::DelegationRevoke(DelegationRevoke { delegation, reason });
    submit(&client, &client.hello()?, statement, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "delegation_id": delegation, "revoked": now() }));
    }
    say("revoked; sessions of its agent and of all below it end within 2 s");
    Ok(())
}

/// What a delegation allows, in words.
fn allowed(row: &DelegationRow) -> String {
    let steps = match row.depth {
        0 => String::new(),
        depth => format!(", and {depth} step(s) further"),
    };
    format!(
        "may {} on {} until {}, {} of {} actions left{steps}",
        row.kinds.join(", "),
        row.targets.join(", "),
        row.until,
        row.left,
        row.actions
    )
}

pub(crate) fn list(cli: &Cli, args: &Listing) -> Done {
    let client = cli.client(true)?;
    let hello = client.hello()?;
    let mine = hello.person.is_none() && !hello.delegations.is_empty();
    // An agent is told of its own alone: it reads nothing.
    let known = if mine { None } else { Some(registry(&client)?) };
    let rows = known
        .as_ref()
        .map_or(&hello.delegations, |k| &k.delegations);
    let rows: Vec<&DelegationRow> = rows
        .iter()
        .filter(|row| args.all || !row.is_over())
        .collect();
    if cli.json() {
        return rows.iter().try_for_each(say_json);
    }
    if rows.is_empty() {
        say("no current delegations (`--all` shows what is over)");
    }
    let shown = |parent| rows.iter().any(|row| row.id == parent);
    for row in rows.iter().filter(|row| !row.parent.is_some_and(shown)) {
        let person = known
            .as_ref()
            .map_or_else(|| row.person.to_string(), |known| known.shown(row.person));
        say(&person);
        tree(&rows, row, 1);
    }
    Ok(())
}

/// One delegation with all below it. A chain is at most nine long.
fn tree(rows: &[&DelegationRow], row: &DelegationRow, level: usize) {
    let indent = "  ".repeat(level);
    let agent = clean(&row.agent, 63);
    say(&format!(
        "{indent}{}  {agent}  {}  {}",
        row.id,
        row.status,
        allowed(row)
    ));
    for below in rows.iter().filter(|below| below.parent == Some(row.id)) {
        tree(rows, below, level + 1);
    }
}
