//! Directories: who may say over SCIM which people are there, and what that changes.

use ascribe_core::directory::{Directory, bearer_digest};
use ascribe_core::encoding::base64url;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use serde_json::json;

use super::setup::propose;
use super::{registry, say, say_json};
use crate::cli::{Cli, DirectoryCommand};
use crate::client::random;
use crate::exit::{Done, Failure};
use crate::registry::Registry;

impl Registry {
    fn directory(&self, name: &str) -> Done<&Directory> {
        let found = self.directories.iter().find(|known| known.name == name);
        found.ok_or_else(|| {
            Failure::usage(format!("no directory is called `{}`", clean(name, 63)))
                .help("`ascribe directory list` shows all")
        })
    }
}

pub(crate) fn directory(cli: &Cli, command: &DirectoryCommand) -> Done {
    let client = cli.client(matches!(command, DirectoryCommand::List))?;
    let known = registry(&client)?;
    let token = format!("ascribe-scim-{}", base64url(&random::<32>()?));
    let (directory, is_new_token) = match command {
        DirectoryCommand::List => return list(cli, &known),
        DirectoryCommand::Add(args) => {
            let live = known.directory(&args.name).ok().filter(|d| !d.withdrawn);
            let digest = live.map_or_else(|| bearer_digest(token.as_bytes()), |d| d.token);
            let directory = Directory {
                name: args.name.clone(),
                provider: args.provider.clone(),
                roles: args.roles.clone(),
                suspend: args.suspend,
                token: digest,
                withdrawn: false,
            };
            (directory, live.is_none())
        }
        DirectoryCommand::Token { name } => {
            let mut directory = known.directory(name)?.clone();
            if directory.withdrawn {
                return Err(Failure::usage("the directory was withdrawn")
                    .help("register it again: `ascribe directory add`"));
            }
            directory.token = bearer_digest(token.as_bytes());
            (directory, true)
        }
        DirectoryCommand::Withdraw { name } => {
            let mut directory = known.directory(name)?.clone();
            directory.withdrawn = true;
            (directory, false)
        }
    };
    let name = clean(&directory.name, 63);
    let done = if directory.withdrawn {
        format!("directory `{name}` is withdrawn; whom it suspended is back")
    } else {
        format!("directory `{name}` is registered; the server needs `--scim HOST:PORT`")
    };
    let value = match is_new_token {
        true => json!({ "directory": directory.name, "token": token }),
        false => json!({ "directory": directory.name }),
    };
    let say_set = Say::DirectorySet(directory);
    propose(cli, &client, say_set, Vec::new(), &done, value)?;
    if is_new_token && !cli.json() {
        say(&format!(
            "token    {token}\n         shown this once: give it to the directory as bearer token, with the address \
             https://YOUR-PROXY/scim/v2"
        ));
    }
    Ok(())
}

fn list(cli: &Cli, known: &Registry) -> Done {
    for directory in &known.directories {
        if cli.json() {
            say_json(directory)?;
            continue;
        }
        let suspends = if directory.suspend {
            "suspends"
        } else {
            "suspends nobody"
        };
        let mark = if directory.withdrawn {
            "  WITHDRAWN"
        } else {
            ""
        };
        say(&format!(
            "{:<20} {:<20} {suspends}{mark}",
            directory.name, directory.provider
        ));
        for rule in &directory.roles {
            let role = format!("{:?}", rule.role).to_lowercase();
            say(&format!(
                "  group    {} gives {role}",
                clean(&rule.group, 256)
            ));
        }
    }
    if known.directories.is_empty() && !cli.json() {
        say("no directories");
    }
    Ok(())
}
