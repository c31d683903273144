//! Directories: who may say which people are there and in which groups, and what that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ascribe_core::directory::{Directory, DirectoryFile, FileUser, bearer_digest, subject_of};
use ascribe_core::encoding::base64url;
use ascribe_core::identity::Provider;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use serde_json::json;

use super::setup::propose;
use super::{registry, say, say_json};
use crate::cli::{Cli, DirectoryCommand};
use crate::client::{Client, random};
use crate::exit::{Attempt as _, Done, Failure};
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
            let by_claims = args.claim.is_some() || args.manager_claim.is_some();
            let speaks_scim = !by_claims && args.signers.is_empty();
            let before = live.and_then(|live| live.token);
            let fresh = speaks_scim && before.is_none();
            let digest = before.unwrap_or_else(|| bearer_digest(token.as_bytes()));
            let signers = args.signers.iter().map(|name| known.person(name));
            let directory = Directory {
                claim: args.claim.clone(),
                manager_claim: args.manager_claim.clone(),
                name: args.name.clone(),
                provider: args.provider.clone(),
                roles: args.roles.clone(),
                signers: signers.collect::<Done<_>>()?,
                suspend: args.suspend,
                token: speaks_scim.then_some(digest),
                withdrawn: false,
            };
            (directory, fresh)
        }
        DirectoryCommand::File { name, file } => {
            return sign_file(cli, &client, &known, name, file);
        }
        DirectoryCommand::Token { name } => {
            let mut directory = known.directory(name)?.clone();
            if directory.withdrawn {
                return Err(Failure::usage("the directory was withdrawn")
                    .help("register it again: `ascribe directory add`"));
            }
            if directory.token.is_none() {
                return Err(Failure::usage(
                    "only a directory that speaks SCIM has a token",
                ));
            }
            directory.token = Some(bearer_digest(token.as_bytes()));
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
        match directory.token {
            Some(_) => {
                format!("directory `{name}` is registered; the server needs `--scim HOST:PORT`")
            }
            None if directory.is_of_tokens() => {
                format!(
                    "directory `{name}` is registered; whoever logs in from now on brings what their token says"
                )
            }
            None => format!(
                "directory `{name}` is registered\nnext: ascribe directory file {name} FILE"
            ),
        }
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

/// What begins the part of a line that names the manager's subject.
const MANAGER: &str = "manager=";

/// Who is there: a line for each subject, then each group, and the manager, after a tab.
fn parse_file(text: &str, provider: &Provider, named: &BTreeSet<&str>) -> Done<Vec<FileUser>> {
    let mut users = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.split('\t').map(str::trim);
        let subject = parts.next().unwrap_or_default();
        let (managers, groups): (Vec<&str>, BTreeSet<&str>) = (
            parts
                .clone()
                .filter_map(|part| part.strip_prefix(MANAGER))
                .collect(),
            parts.filter(|group| named.contains(group)).collect(),
        );
        if subject.is_empty() {
            return Err(Failure::usage(format!(
                "line {number} begins with no subject"
            )));
        }
        if managers.len() > 1 {
            return Err(Failure::usage(format!(
                "line {number} names several managers"
            )));
        }
        let subject = subject_of(provider, subject);
        let user = FileUser {
            groups: groups.into_iter().map(str::to_owned).collect(),
            manager: managers
                .first()
                .map(|manager| subject_of(provider, manager)),
            subject,
        };
        if users.insert(subject, user).is_some() {
            return Err(Failure::usage(format!(
                "line {number} is about a subject that an earlier line is about"
            )));
        }
    }
    Ok(users.into_values().collect())
}

fn sign_file(cli: &Cli, client: &Client, known: &Registry, name: &str, file: &Path) -> Done {
    let directory = known.directory(name)?;
    let mut providers = known.providers.iter().map(|row| &row.provider);
    let provider = providers
        .find(|provider| provider.name == directory.provider)
        .ok_or_else(|| Failure::usage("the directory's provider is not registered"))?;
    let what = format!("read `{}`", file.display());
    let text = std::fs::read_to_string(file).attempt(&what)?;
    let named = directory.roles.iter().map(|rule| rule.group.as_str());
    let users = parse_file(&text, provider, &named.collect())?;
    let count = users.len();
    let opening = Opening::new("file", random()?, text.into_bytes());
    let say_file = Say::DirectoryFile(DirectoryFile {
        directory: name.to_owned(),
        file: opening.commitment(),
        users,
    });
    let (id, _, _) = client.submit(&client.hello()?, say_file, vec![opening])?;
    if cli.json() {
        return say_json(&json!({ "directory": name, "statement": id, "users": count }));
    }
    say(&format!(
        "directory `{}` lists {count} people now; whom an earlier file listed and this one does not is inactive",
        clean(name, 63)
    ));
    Ok(())
}

/// How a directory speaks.
fn way(directory: &Directory) -> String {
    let claims = directory.claim.iter().chain(&directory.manager_claim);
    let claims: Vec<String> = claims.map(|claim| clean(claim, 256)).collect();
    match (claims.as_slice(), directory.token) {
        ([_, ..], _) => format!("claim {}", claims.join(", ")),
        ([], Some(_)) => "SCIM".to_owned(),
        ([], None) => "signed files".to_owned(),
    }
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
            "{:<20} {:<20} {:<14} {suspends}{mark}",
            directory.name,
            directory.provider,
            way(directory)
        ));
        if let Some(claim) = &directory.manager_claim {
            say(&format!("  manager  by the claim {}", clean(claim, 256)));
        }
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
