//! Observing the keys that providers publish, and showing who saw which.

use std::collections::BTreeSet;
use std::time::Duration;

use ascribe_core::id::{ContentDigest, StatementId};
use ascribe_core::identity::{AuthnRule, KeysSeen, keys_digest};
use ascribe_core::law::Judge as _;
use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use ascribe_evidence::SshSignatures;
use serde::Serialize;

use super::serve::runtime;
use super::{registry, remark, say, say_json};
use crate::cli::Cli;
use crate::client::{Client, now};
use crate::exit::{Done, Failure};
use crate::http::Http;
use crate::login::published_keys;
use crate::registry::{ObserverRow, ProviderRow, Registry};

/// Looks once, or again and again: then a look that fails is told, and the next one comes all the same.
pub(crate) fn observe(cli: &Cli, client: &Client, name: &str, every: Option<u64>) -> Done {
    loop {
        let done = look(cli, client, name);
        let Some(every) = every else { return done };
        if let Err(failure) = done {
            remark(&format!("error: {failure}"));
        }
        std::thread::sleep(Duration::from_secs(every.max(1)));
    }
}

/// What came of a look.
#[derive(Debug, Serialize)]
struct Looked<'a> {
    provider: &'a str,
    digest: ContentDigest,
    keys: BTreeSet<ContentDigest>,
    /// Keys that the server has on record and that are not published here.
    only_on_record: Vec<ContentDigest>,
    /// When the same was signed already, where that is fresh enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<Timestamp>,
    /// The statement and its entry, where one was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<StatementId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
}

fn look(cli: &Cli, client: &Client, name: &str) -> Done {
    let known = registry(client)?;
    let row = known.provider(name)?;
    let provider = &row.provider;
    let own = row.observers.iter().find(|o| Some(o.person) == known.you);
    let own = own.ok_or_else(|| {
        let name = clean(name, 63);
        Failure::usage(format!("you are no observer of provider `{name}`"))
            .help("an administrator names observers: `ascribe provider observers`")
    })?;
    let published = runtime()?.block_on(async { published_keys(&Http::new()?, provider).await })?;
    let fetched = now();
    let keys = SshSignatures.provider_keys(&published.body)?;
    let keys: BTreeSet<ContentDigest> = keys.into_iter().collect();
    let only_on_record = row.keys.iter().filter(|key| !keys.contains(key));
    let only_on_record: Vec<ContentDigest> = only_on_record.copied().collect();
    for key in &only_on_record {
        remark(&format!(
            "WARNING: the server has key {key} on record, which is not published at `{}`",
            clean(&provider.jwks_uri, 200)
        ));
    }
    let half = provider.max_keys_age_ms() / 2;
    let same = own.counts && own.keys.iter().eq(&keys);
    let said = own.fetched;
    let said = said.filter(|said| same && fetched.since(*said) < half);
    let digest = keys_digest(&published.body);
    let mut looked = Looked {
        provider: &provider.name,
        digest,
        keys,
        only_on_record,
        said,
        statement: None,
        entry: None,
    };
    if said.is_none() {
        let seen = KeysSeen {
            digest,
            fetched,
            issuer: provider.issuer.clone(),
            keys: looked.keys.iter().copied().collect(),
            provider: provider.name.clone(),
            uri: provider.jwks_uri.clone(),
        };
        let say_seen = Say::KeysSeen(seen);
        let (id, receipt, _) = client.submit(&client.hello()?, say_seen, Vec::new())?;
        looked.statement = Some(id);
        looked.entry = receipt.map(|receipt| receipt.index);
    }
    tell(cli, &looked)
}

fn tell(cli: &Cli, looked: &Looked<'_>) -> Done {
    if cli.json() {
        return say_json(looked);
    }
    let (name, count) = (clean(looked.provider, 63), looked.keys.len());
    match (looked.said, looked.entry) {
        (Some(at), _) => say(&format!(
            "provider `{name}` publishes the same {count} keys as you signed at {at}"
        )),
        (None, Some(entry)) => say(&format!(
            "signed what provider `{name}` publishes: {count} keys, entry {entry}"
        )),
        (None, None) => say(&format!(
            "signed what provider `{name}` publishes: {count} keys"
        )),
    }
    Ok(())
}

pub(crate) fn list(cli: &Cli, known: &Registry) -> Done {
    for row in &known.providers {
        if cli.json() {
            say_json(row)?;
        } else {
            show_row(known, row);
        }
    }
    if known.providers.is_empty() && !cli.json() {
        say("no providers of identities");
    }
    Ok(())
}

pub(crate) fn show(cli: &Cli, known: &Registry, row: &ProviderRow) -> Done {
    if cli.json() {
        return say_json(row);
    }
    show_row(known, row);
    for observer in &row.observers {
        say(&format!("  observer {}", word_of(known, row, observer)));
    }
    Ok(())
}

/// What an observer saw last, against what the server has on record.
fn word_of(known: &Registry, row: &ProviderRow, observer: &ObserverRow) -> String {
    let name = known.shown(observer.person);
    let (Some(entry), Some(fetched)) = (observer.entry, observer.fetched) else {
        return format!(
            "{name} has not looked: `ascribe provider observe {}`",
            row.provider.name
        );
    };
    let others = observer.keys.iter().filter(|key| !row.keys.contains(key));
    let others: Vec<String> = others.map(ToString::to_string).collect();
    let mut word = format!(
        "{name} saw {} keys at {fetched}, entry {entry}",
        observer.keys.len()
    );
    if !others.is_empty() {
        word.push_str(&format!("; not on record: {}", others.join(" ")));
    }
    if !observer.counts {
        word.push_str("; COUNTS NO LONGER");
    }
    word
}

/// Whose words make a key count.
fn seen_by(known: &Registry, row: &ProviderRow, key: &ContentDigest) -> String {
    let Some(rule) = &row.provider.observers else {
        return String::new();
    };
    let saw = row.observers.iter();
    let saw = saw.filter(|observer| observer.counts && observer.keys.contains(key));
    let names: Vec<String> = saw.map(|observer| known.shown(observer.person)).collect();
    let needed = rule.needed as usize;
    match names.len() {
        0 => "  SEEN BY THE SERVER ALONE: no login counts under it".to_owned(),
        n if n < needed => format!(
            "  seen by {}: {n} of {needed}, no login counts under it",
            names.join(", ")
        ),
        _ => format!("  seen by {}", names.join(", ")),
    }
}

/// How people must have proved themselves.
fn asked_in_words(rule: &AuthnRule) -> String {
    let named = |what: &str, names: &[String], between: &str| {
        let names: Vec<String> = names.iter().map(|name| clean(name, 100)).collect();
        (!names.is_empty()).then(|| format!("{what} {}", names.join(between)))
    };
    let asked = [
        named("acr", &rule.acr, " or "),
        named("amr", &rule.amr, " and "),
        rule.max_age_seconds
            .map(|most| format!("proved at most {most} s before")),
    ];
    let asked: Vec<String> = asked.into_iter().flatten().collect();
    asked.join("; ")
}

fn show_row(known: &Registry, row: &ProviderRow) {
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
    if let Some(rule) = &provider.authn {
        say(&format!("  asks     {}", asked_in_words(rule)));
    }
    match (row.keys_entry, row.fetched) {
        (Some(entry), Some(at)) => say(&format!("  keys     entry {entry}, fetched {at}")),
        _ => say("  keys     not on record yet: the first login fetches them"),
    }
    for key in &row.keys {
        say(&format!("  key      {key}{}", seen_by(known, row, key)));
    }
}
