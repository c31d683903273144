//! Providers of identities, and whom their subjects stand for.

use ascribe_core::identity::{
    AuthnRule, IdentityLink, Observers, PROOF_AUDIENCE, Provider, ProviderKind, subject,
};
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use serde_json::json;

use super::serve::runtime;
use super::setup::propose;
use super::{observe, registry, say, say_json};
use crate::cli::{
    AuthnArgs, Cli, IdentityArgs, IdentityCommand, ObserversArgs, ProviderAdd, ProviderCommand,
};
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
    let reading = matches!(
        command,
        ProviderCommand::List | ProviderCommand::Show { .. }
    );
    let client = cli.client(reading)?;
    let known = registry(&client)?;
    let (provider, done) = match command {
        ProviderCommand::List => return observe::list(cli, &known),
        ProviderCommand::Observe { name, every } => {
            return observe::observe(cli, &client, name, *every);
        }
        ProviderCommand::Show { name } => return observe::show(cli, &known, known.provider(name)?),
        ProviderCommand::Add(args) => {
            let mut provider = built(args)?;
            provider.observers = named_observers(&known, &args.observers)?;
            let mut before = known.providers.iter().map(|row| &row.provider);
            if let Some(before) = before.find(|before| before.name == args.name) {
                let observers = || before.observers.clone();
                provider.observers = provider.observers.or_else(observers);
                if !args.authn.no_authn && provider.kind.is_of_people() {
                    provider.authn = provider.authn.or_else(|| before.authn.clone());
                }
            }
            let done = format!("provider `{}` is registered", clean(&args.name, 63));
            (provider, done)
        }
        ProviderCommand::Observers {
            name, observers, ..
        } => {
            let mut provider = known.provider(name)?.provider.clone();
            provider.observers = named_observers(&known, observers)?;
            let done = match &provider.observers {
                Some(observers) => format!(
                    "logins count under keys that {} of {} observers saw; next: each runs `ascribe provider observe {}`",
                    observers.needed,
                    observers.people.len(),
                    clean(name, 63)
                ),
                None => "the provider has no observers".to_owned(),
            };
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

fn named_observers(known: &Registry, args: &ObserversArgs) -> Done<Option<Observers>> {
    let people = args.observers.iter().map(|person| known.person(person));
    let people = people.collect::<Done<Vec<_>>>()?;
    let all = u32::try_from(people.len()).unwrap_or(u32::MAX);
    Ok((!people.is_empty()).then(|| Observers {
        needed: args.needed.unwrap_or(all),
        people,
    }))
}

/// How people must have proved themselves, where anything is asked of that.
fn asked_of(args: &AuthnArgs) -> Option<AuthnRule> {
    let rule = AuthnRule {
        acr: args.acr.clone(),
        amr: args.amr.clone(),
        max_age_seconds: args.max_auth_age,
    };
    (rule != AuthnRule::default()).then_some(rule)
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
        authn: asked_of(&args.authn),
        issuer: args.issuer.clone(),
        jwks_uri,
        kind: args.kind,
        max_keys_age_seconds: args.max_keys_age,
        name: args.name.clone(),
        observers: None,
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
