//! People, keys, targets, and setting up clients.

use std::path::Path;

use ascribe_core::database::Postgres;
use ascribe_core::directory::DirectoryGroup;
use ascribe_core::encoding::Bytes;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Offboard, PersonAdd, PersonKey, Say, SshKey, Target, TicketRule};
use ascribe_core::text::clean;
use serde_json::json;

use super::probe::{Found, probe};
use super::{registry, remark, say, say_json};
use crate::cli::database::PostgresTarget;
use crate::cli::{Cli, Join, KeyCommand, PersonCommand, TargetAdd, TargetCommand};
use crate::client::{Client, Server, config_dir, new_person, random, write_json};
use crate::exit::{Attempt as _, Done, Failure};
use crate::registry::Registry;

/// The file in which a joined server is kept.
pub(crate) fn file_name(api: &str) -> String {
    let safe: String = api
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{safe}.json")
}

/// Reads one public key file.
pub(crate) fn public_key(file: &Path) -> Done<SshKey> {
    let text = std::fs::read_to_string(file).attempt(format!("read `{}`", file.display()))?;
    ascribe_evidence::parse_public_key(text.trim())
        .map_err(|e| Failure::usage(format!("`{}`: {e}", file.display())))
}

/// Submits a change and says whether it took effect or waits for other admins.
pub(crate) fn propose(
    cli: &Cli,
    client: &Client,
    statement: Say,
    openings: Vec<Opening>,
    done: &str,
    value: serde_json::Value,
) -> Done {
    remark(&format!(
        "signing {} with {}",
        statement.tag(),
        client.signer()?.fingerprint()?
    ));
    let (id, _, _) = client.submit(&client.hello()?, statement, openings)?;
    let known = registry(client)?;
    let waits = known
        .asks
        .iter()
        .find(|ask| ask.id == id && ask.status == "open");
    if cli.json() {
        return say_json(
            &json!({ "statement_id": id, "in_effect": waits.is_none(), "result": value }),
        );
    }
    match waits {
        None => say(done),
        Some(ask) if ask.missing == 0 => {
            say("approved; it takes effect once enough witnesses have seen that")
        }
        Some(ask) => say(&format!(
            "proposed; {} more administrator(s) must run `ascribe approve {id}`",
            ask.missing
        )),
    }
    Ok(())
}

pub(crate) fn person(cli: &Cli, command: &PersonCommand) -> Done {
    let client = cli.client(false)?;
    match command {
        PersonCommand::Add { name, keys, roles } => {
            let keys = keys
                .iter()
                .map(|file| public_key(file))
                .collect::<Done<Vec<_>>>()?;
            let person = new_person()?;
            let opening = Opening::new("name", random()?, name.as_bytes().to_vec());
            let body = PersonAdd {
                person,
                name: opening.commitment(),
                keys,
                roles: roles.clone(),
            };
            let done = format!(
                "{} is enrolled as {person}",
                ascribe_core::text::clean(name, 60)
            );
            propose(
                cli,
                &client,
                Say::PersonAdd(body),
                vec![opening],
                &done,
                json!({ "person": person }),
            )
        }
        PersonCommand::Offboard { person } => {
            let person = registry(&client)?.person(person)?;
            let done = "offboarded; grants and sessions have ended";
            propose(
                cli,
                &client,
                Say::Offboard(Offboard { person }),
                Vec::new(),
                done,
                json!({ "person": person }),
            )
        }
        PersonCommand::List => list_people(cli, &registry(&client)?),
    }
}

fn list_people(cli: &Cli, known: &Registry) -> Done {
    for person in &known.people {
        if cli.json() {
            say_json(person)?;
            continue;
        }
        let roles: Vec<String> = person
            .roles
            .iter()
            .map(|r| format!("{r:?}").to_lowercase())
            .collect();
        let suspended: Vec<&str> = person.suspended.keys().map(String::as_str).collect();
        let left = if person.offboarded.is_some() {
            "  (left)".to_owned()
        } else if !suspended.is_empty() {
            format!("  SUSPENDED by {}", suspended.join(", "))
        } else if person.spared {
            "  (a directory calls them inactive; kept, for too few administrators would be left)"
                .to_owned()
        } else {
            String::new()
        };
        say(&format!(
            "{}  {:<20} {}{left}",
            person.id,
            ascribe_core::text::clean(&person.name, 40),
            roles.join(",")
        ));
        for DirectoryGroup { directory, group } in &person.groups {
            say(&format!("  group    {directory}:{}", clean(group, 256)));
        }
        if let Some(manager) = person.manager {
            say(&format!("  manager  {}", known.shown(manager)));
        }
    }
    Ok(())
}

pub(crate) fn key(cli: &Cli, command: &KeyCommand) -> Done {
    let client = cli.client(false)?;
    let known = registry(&client)?;
    match command {
        KeyCommand::Add { person, file } => {
            let body = PersonKey {
                person: known.person(person)?,
                key: public_key(file)?,
            };
            propose(
                cli,
                &client,
                Say::KeyAdd(body),
                Vec::new(),
                "the key is enrolled",
                json!({}),
            )
        }
        KeyCommand::Revoke { person, file } => {
            let body = PersonKey {
                person: known.person(person)?,
                key: public_key(file)?,
            };
            propose(
                cli,
                &client,
                Say::KeyRevoke(body),
                Vec::new(),
                "the key is revoked; its sessions end within 2 s",
                json!({}),
            )
        }
    }
}

pub(crate) fn target(cli: &Cli, command: &TargetCommand) -> Done {
    let client = cli.client(!matches!(command, TargetCommand::Add(_)))?;
    let known = registry(&client)?;
    match command {
        TargetCommand::Add(args) => {
            let target = build_target(&known, args)?;
            for key in &target.host_keys {
                remark(&format!("pinning host key {}", key.fingerprint()));
            }
            remark(&format!("pinning address {}", target.addresses.join(", ")));
            report_bypass(&known, &target)?;
            let done = format!(
                "target `{}` is registered\nnext: ascribe request {}@{} --for 1h --why \"...\"",
                target.name,
                target.accounts.first().map_or("ACCOUNT", String::as_str),
                target.name
            );
            let name = target.name.clone();
            propose(
                cli,
                &client,
                Say::TargetSet(target),
                Vec::new(),
                &done,
                json!({ "target": name }),
            )
        }
        TargetCommand::List => {
            for target in &known.targets {
                show_target(cli, &known, target)?;
            }
            Ok(())
        }
        TargetCommand::Show { name } => {
            let target = known
                .targets
                .iter()
                .find(|t| t.name == *name)
                .ok_or_else(|| {
                    Failure::new(
                        crate::exit::Kind::Failure,
                        format!("no target is called `{name}`"),
                    )
                    .help("`ascribe target list` shows all")
                })?;
            show_target(cli, &known, target)?;
            if !cli.json() {
                known.tell_unwitnessed([known.now]);
            }
            Ok(())
        }
    }
}

/// Says who could still log in to the target directly, past ascribe.
fn report_bypass(known: &Registry, target: &Target) -> Done {
    if target.postgres.is_some() {
        remark(
            "its own log shows who comes past ascribe: see `log_line_prefix` in the documentation",
        );
        return Ok(());
    }
    let present = known.people.iter().filter(|p| p.offboarded.is_none());
    let holders: Vec<_> = present
        .flat_map(|person| person.public_keys.iter().map(move |key| (person, key)))
        .collect();
    let keys: Vec<SshKey> = holders.iter().map(|(_, key)| (*key).clone()).collect();
    match probe(target, &keys)? {
        Found::Unknown(why) => remark(&format!(
            "not known whether people can log in directly: {}",
            ascribe_core::text::clean(&why, 200)
        )),
        Found::Answers { let_in, all } => {
            for (account, nth) in &let_in {
                let Some((person, key)) = holders.get(*nth) else {
                    continue;
                };
                remark(&format!(
                    "warning: the target lets {} in directly as {account}, past ascribe: take the key {} out of its \
                     authorized_keys",
                    ascribe_core::text::clean(&person.name, 60),
                    key.fingerprint()
                ));
            }
            if !all {
                remark(
                    "not every enrolled key was asked about: there are too many, or it takes too long",
                );
            }
        }
    }
    Ok(())
}

/// The least assurance of somebody, where the target asks for one.
fn level(whose: &str, needed: Option<u8>) -> String {
    needed.map_or(String::new(), |needed| {
        format!("  {whose}' assurance {needed}")
    })
}

/// Of which groups its approvers are, where it says so.
fn groups(target: &Target) -> String {
    let groups = target.approver_groups.iter();
    groups
        .map(|group| {
            format!(
                "  approvers of {}:{}",
                group.directory,
                clean(&group.group, 256)
            )
        })
        .collect()
}

fn show_target(cli: &Cli, known: &Registry, target: &Target) -> Done {
    if cli.json() {
        return say_json(target);
    }
    say(&format!(
        "{:<20} {}:{}  accounts {}  owner {}{}  quorum {}  longest {} s{}{}{}{}{}",
        target.name,
        target.host,
        target.port,
        target.accounts.join(","),
        known.shown(target.system_owner),
        away(known, target.system_owner),
        target.quorum,
        target.max_seconds,
        target.ticket.as_ref().map_or(String::new(), |t| format!(
            "  ticket {}:{}",
            t.system, t.pattern
        )),
        level("actors", target.actor_assurance),
        level("approvers", target.approver_assurance),
        groups(target),
        target
            .max_unwitnessed_seconds
            .map_or(String::new(), |most| format!(
                "  unwitnessed at most {most} s"
            )),
    ));
    Ok(())
}

/// A mark, where nobody is there to answer for something.
fn away(known: &Registry, id: ascribe_core::id::PersonId) -> &'static str {
    let person = known.people.iter().find(|person| person.id == id);
    match person {
        Some(person) if person.offboarded.is_some() => " (HAS LEFT)",
        Some(person) if !person.suspended.is_empty() && !person.spared => " (SUSPENDED)",
        Some(_) | None => "",
    }
}

/// Host keys from `.pub` lines or `ssh-keyscan` output.
pub(crate) fn host_keys(file: &Path) -> Done<Vec<SshKey>> {
    let text = std::fs::read_to_string(file).attempt(format!("read `{}`", file.display()))?;
    let mut keys = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let start = words
            .iter()
            .position(|w| w.starts_with("ssh-") || w.starts_with("ecdsa-"));
        let pair = start.and_then(|i| Some((words.get(i)?, words.get(i + 1)?)));
        let Some((kind, blob)) = pair else {
            return Err(Failure::usage(format!("`{}` holds a line that is no host key", file.display()))
                .help("make it with: ssh-keyscan -t ed25519 HOST, and compare the fingerprint with the host's own"));
        };
        if *kind != "ssh-rsa" {
            keys.push(SshKey(format!("{kind} {blob}")));
        }
    }
    Ok(keys)
}

/// What a host stands for now. From here on nobody asks again.
fn resolve(host: &str, port: u16) -> Done<Vec<String>> {
    use std::net::ToSocketAddrs as _;
    let found = (host, port).to_socket_addrs().map_err(|e| {
        Failure::usage(format!("`{host}` has no address: {e}"))
            .help("give one with `--address ADDRESS:PORT`")
    })?;
    let mut addresses: Vec<String> = Vec::new();
    for address in found {
        let address = address.ip().to_canonical().to_string();
        if !addresses.contains(&address) && addresses.len() < 16 {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// What a database has besides.
fn postgres(args: &PostgresTarget) -> Done<Option<Postgres>> {
    if !args.postgres {
        return Ok(None);
    }
    let mut trust = Vec::new();
    for file in &args.tls_ca {
        let found = crate::server::postgres::certificates(file)?;
        trust.extend(found.into_iter().map(Bytes));
    }
    Ok(Some(Postgres {
        allow: args.allow.clone(),
        databases: args.databases.clone(),
        trust,
        values: args.values.into(),
    }))
}

fn build_target(known: &Registry, args: &TargetAdd) -> Done<Target> {
    let (host, port) = match args.address.rsplit_once(':') {
        Some((host, port)) => {
            let port = port
                .parse()
                .map_err(|_| Failure::usage(format!("`{port}` is no port")))?;
            (host.trim_matches(['[', ']']).to_owned(), port)
        }
        None if args.database.postgres => (args.address.clone(), 5432),
        None => (args.address.clone(), 22),
    };
    let people = |names: &[String]| {
        names
            .iter()
            .map(|n| known.person(n))
            .collect::<Done<Vec<_>>>()
    };
    let ticket = args
        .ticket
        .as_deref()
        .map(|text| match text.split_once(':') {
            Some((system, pattern)) => Ok(TicketRule {
                system: system.to_owned(),
                pattern: pattern.to_owned(),
            }),
            None => Err(Failure::usage(format!("`{text}` is no ticket rule"))
                .help("write `SYSTEM:PATTERN`, for instance `jira:OPS-#`")),
        });
    let required = people(&args.approvers)?;
    let addresses = resolve(&host, port)?;
    Ok(Target {
        name: args.name.clone(),
        host,
        addresses,
        loopback: args.allow_loopback,
        port,
        host_keys: args
            .host_keys
            .as_deref()
            .map(host_keys)
            .transpose()?
            .unwrap_or_default(),
        accounts: args.accounts.clone(),
        system_owner: known.person(&args.owner)?,
        quorum: args
            .quorum
            .max(u32::try_from(required.len()).unwrap_or(u32::MAX)),
        required_approvers: required,
        max_seconds: args.max,
        min_justification: args.min_justification,
        ticket: ticket.transpose()?,
        break_glass: people(&args.break_glass)?,
        review_seconds: args.review,
        stream_cap: args.cap,
        over_cap: args.over_cap,
        signed_opening: args.signed_opening,
        watch_notice: args.watch_notice,
        refuse_inner_ssh: args.refuse_inner_ssh,
        actor_assurance: args.actor_assurance,
        approver_assurance: args.approver_assurance,
        max_unwitnessed_seconds: args.max_unwitnessed,
        approver_groups: args.approver_groups.clone(),
        manager_approves: args.manager_approves,
        postgres: postgres(&args.database)?,
    })
}

pub(crate) fn join(cli: &Cli, args: &Join) -> Done {
    let server = Server {
        api: args.server.clone(),
        pin: args.pin.clone(),
        log_key: args.log_key.clone(),
    };
    let signer = cli.signer(false).ok();
    let client = Client::new(server.clone(), signer)?;
    let hello = client.hello()?;
    write_json(
        &config_dir()?.join("servers").join(file_name(&args.server)),
        &server,
    )?;
    if cli.json() {
        return say_json(
            &json!({ "origin": hello.origin, "size": hello.size, "person": hello.person }),
        );
    }
    say(&format!("joined {} ({} entries)", hello.origin, hello.size));
    match hello.person {
        Some(person) => say(&format!("you are {person}\nnext: ascribe can")),
        None => say(
            "your key is not enrolled yet; an admin runs: ascribe person add NAME --public-key FILE.pub --role requester",
        ),
    }
    Ok(())
}
