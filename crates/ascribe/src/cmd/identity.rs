//! Providers of identities, and whom their subjects stand for.

use ascribe_core::identity::{IdentityLink, PROOF_AUDIENCE, Provider, ProviderKind, subject};
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use serde_json::json;

use super::serve::runtime;
use super::setup::propose;
use super::{registry, say, say_json};
use crate::cli::{Cli, IdentityArgs, IdentityCommand, ProviderAdd, ProviderCommand};
use crate::exit::{Done, Failure};
use crate::http::Http;
use crate::login::discover;
use crate::registry::{ProviderRow, Registry};

impl Registry {
    /// A provider by its name.
    pub(crate) fn provider(&self, name: &str) -> Done<&ProviderRow> {
        let found = self.providers.iter().find(|row| row.provider.name == name);
        found.ok_or_else(|| {
            Failure::usage(format!("no provider is called `{}`", clean(name, 63)))
                .help("`ascribe provider list` shows all")
        })
    }
}

pub(crate) fn provider(cli: &Cli, command: &ProviderCommand) -> Done {
    let client = cli.client(matches!(command, ProviderCommand::List))?;
    let known = registry(&client)?;
    let (provider, done) = match command {
        ProviderCommand::List => return list_providers(cli, &known),
        ProviderCommand::Add(args) => {
            let provider = built(args)?;
            let done = format!("provider `{}` is registered", clean(&args.name, 63));
            (provider, done)
        }
        ProviderCommand::Withdraw { name } => {
            let mut provider = known.provider(name)?.provider.clone();
            provider.withdrawn = true;
            let done = "the provider is withdrawn; sessions by its logins end within 2 s";
            (provider, done.to_owned())
        }
    };
    let value = json!({ "provider": provider.name });
    propose(
        cli,
        &client,
        Say::ProviderSet(provider),
        Vec::new(),
        &done,
        value,
    )
}

fn built(args: &ProviderAdd) -> Done<Provider> {
    if args.kind == ProviderKind::Gitlab && !args.audience.starts_with(PROOF_AUDIENCE) {
        return Err(Failure::usage(
            "GitLab's tokens bind no key: a job makes a proof of one that is meant for that",
        )
        .help(format!(
            "give `--audience {PROOF_AUDIENCE}NAME`, and the job's token the same `aud`"
        )));
    }
    let jwks_uri = match &args.jwks {
        Some(uri) => uri.clone(),
        None if args.kind == ProviderKind::SpiffeX509 => {
            return Err(Failure::usage("a trust domain does not say where its bundle is").help(
                "give `--jwks URL`: the trust domain's bundle endpoint (SPIRE: `federation.bundle_endpoint`)",
            ));
        }
        None => published_at(&args.issuer)?,
    };
    Ok(Provider {
        algorithms: args.algorithms.clone(),
        audience: args.audience.clone(),
        issuer: args.issuer.clone(),
        jwks_uri,
        kind: args.kind,
        max_keys_age_seconds: args.max_keys_age,
        name: args.name.clone(),
        withdrawn: false,
    })
}

/// Where the issuer itself says that its keys are.
fn published_at(issuer: &str) -> Done<String> {
    let found = runtime()?.block_on(async { discover(&Http::new()?, issuer).await });
    found.map(|metadata| metadata.jwks_uri).map_err(|failure| {
        failure.help("if it has no configuration of its own, say where its keys are: `--jwks URL`")
    })
}

fn list_providers(cli: &Cli, known: &Registry) -> Done {
    for row in &known.providers {
        if cli.json() {
            say_json(row)?;
            continue;
        }
        let provider = &row.provider;
        let kind = serde_json::to_value(provider.kind).unwrap_or_default();
        let mark = if provider.withdrawn {
            "  WITHDRAWN"
        } else {
            ""
        };
        say(&format!(
            "{:<20} {:<10} {}  audience {}{mark}",
            provider.name,
            kind.as_str().unwrap_or_default(),
            clean(&provider.issuer, 200),
            clean(&provider.audience, 100),
        ));
        match (row.keys_entry, row.fetched) {
            (Some(entry), Some(at)) => say(&format!("  keys     entry {entry}, fetched {at}")),
            _ => say("  keys     not on record yet: nobody can log in"),
        }
        for key in &row.keys {
            say(&format!("  key      {key}"));
        }
    }
    if known.providers.is_empty() && !cli.json() {
        say("no providers of identities");
    }
    Ok(())
}

pub(crate) fn identity(cli: &Cli, command: &IdentityCommand) -> Done {
    let client = cli.client(matches!(command, IdentityCommand::List))?;
    let known = registry(&client)?;
    let (link, statement, done): (_, fn(IdentityLink) -> Say, _) = match command {
        IdentityCommand::List => return list_identities(cli, &known),
        IdentityCommand::Link(args) => {
            let done = "the identity is linked; they log in with `ascribe login`";
            (named(&known, args)?, Say::IdentityLink, done)
        }
        IdentityCommand::Unlink(args) => {
            let done = "the identity is unlinked; sessions by its logins end within 2 s";
            (named(&known, args)?, Say::IdentityUnlink, done)
        }
    };
    let value = json!({ "person": link.person, "subject": link.subject });
    propose(cli, &client, statement(link), Vec::new(), done, value)
}

fn named(known: &Registry, args: &IdentityArgs) -> Done<IdentityLink> {
    let provider = &known.provider(&args.provider)?.provider;
    Ok(IdentityLink {
        person: known.person(&args.person)?,
        provider: provider.name.clone(),
        subject: subject(&provider.issuer, &args.subject),
    })
}

fn list_identities(cli: &Cli, known: &Registry) -> Done {
    for row in &known.identities {
        if cli.json() {
            say_json(row)?;
        } else {
            let person = known.shown(row.person);
            say(&format!(
                "{person:<24} {:<20} {}",
                row.provider, row.subject
            ));
        }
    }
    if known.identities.is_empty() && !cli.json() {
        say("no identities are linked");
    }
    Ok(())
}
