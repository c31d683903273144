//! Outside certificate authorities.

use ascribe_core::statement::{Authority, Mapping, RevokedCertificates, Say, Serial};
use ascribe_core::text::clean;
use serde_json::json;

use super::setup::{propose, public_key};
use super::{registry, remark, say, say_json};
use crate::cli::{CaCommand, CaSet, Cli};
use crate::exit::{Done, Failure};
use crate::registry::Registry;

pub(crate) fn ca(cli: &Cli, command: &CaCommand) -> Done {
    let client = cli.client(matches!(command, CaCommand::List))?;
    let known = registry(&client)?;
    let (authority, done) = match command {
        CaCommand::List => return list(cli, &known),
        CaCommand::Set(args) => {
            let authority = changed(&known, args)?;
            for key in &authority.keys {
                remark(&format!("certificates count by {}", key.fingerprint()));
            }
            let done = format!("authority `{}` is registered", clean(&args.name, 63));
            (authority, done)
        }
        CaCommand::Withdraw { name } => {
            let authority = Authority {
                keys: Vec::new(),
                name: name.clone(),
                people: Vec::new(),
                revoked: RevokedCertificates::default(),
            };
            let done = "the authority is withdrawn; sessions by its certificates end within 2 s";
            (authority, done.to_owned())
        }
    };
    let value = json!({ "authority": authority.name });
    propose(
        cli,
        &client,
        Say::CaSet(authority),
        Vec::new(),
        &done,
        value,
    )
}

/// The authority as it would be then.
fn changed(known: &Registry, args: &CaSet) -> Done<Authority> {
    let before = known.authorities.iter().find(|ca| ca.name == args.name);
    let mut authority = before.cloned().unwrap_or_else(|| Authority {
        keys: Vec::new(),
        name: args.name.clone(),
        people: Vec::new(),
        revoked: RevokedCertificates::default(),
    });
    if !args.keys.is_empty() {
        let keys = args.keys.iter().map(|file| public_key(file));
        authority.keys = keys.collect::<Done<_>>()?;
    }
    if !args.people.is_empty() {
        let people = args.people.iter().map(|text| mapping(known, text));
        authority.people = people.collect::<Done<_>>()?;
    }
    let RevokedCertificates { key_ids, serials } = &mut authority.revoked;
    key_ids.extend(args.key_ids.iter().cloned());
    serials.extend(args.serials.iter().copied().map(Serial));
    key_ids.sort();
    key_ids.dedup();
    serials.sort();
    serials.dedup();
    if authority.keys.is_empty() {
        let name = clean(&args.name, 63);
        return Err(Failure::usage(format!("no authority is called `{name}`"))
            .help("to register it, give its keys: --public-key CA.pub"));
    }
    Ok(authority)
}

fn mapping(known: &Registry, text: &str) -> Done<Mapping> {
    let Some((person, principal)) = text.split_once('=') else {
        return Err(
            Failure::usage(format!("`{}` names no principal", clean(text, 80)))
                .help("write PERSON=PRINCIPAL, for instance `--person bob=bob@example.org`"),
        );
    };
    Ok(Mapping {
        person: known.person(person)?,
        principal: principal.to_owned(),
    })
}

fn list(cli: &Cli, known: &Registry) -> Done {
    // One that was withdrawn is known only for what it revoked.
    let here: Vec<_> = known
        .authorities
        .iter()
        .filter(|ca| !ca.keys.is_empty())
        .collect();
    for ca in &here {
        if cli.json() {
            say_json(ca)?;
            continue;
        }
        say(&ca.name);
        for key in &ca.keys {
            say(&format!("  key      {}", key.fingerprint()));
        }
        for Mapping { person, principal } in &ca.people {
            let (person, principal) = (known.shown(*person), clean(principal, 256));
            say(&format!("  person   {person} by principal {principal}"));
        }
        for serial in &ca.revoked.serials {
            say(&format!("  revoked  serial {}", serial.0));
        }
        for id in &ca.revoked.key_ids {
            say(&format!("  revoked  key id {}", clean(id, 256)));
        }
    }
    if here.is_empty() && !cli.json() {
        say("no outside certificate authorities");
    }
    Ok(())
}
