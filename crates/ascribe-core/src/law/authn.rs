//! How people proved themselves to their provider, as its tokens tell it, and what the provider's entry asks of that.

use std::collections::BTreeSet;

use super::providers::is_word;
use super::{Denied, identities::PROVIDER_SKEW_MS};
use crate::identity::{AuthnRule, Claims, Provider};
use crate::text::clean;
use crate::time::Timestamp;

/// Most classes and means that a rule names.
const MAX_NAMED: usize = 16;
/// Longest of them, in bytes.
const MAX_CLASS: usize = 255;
const MAX_MEANS: usize = 64;
/// A proof may be at most so old, in seconds: a minute to thirty days.
const AGE: core::ops::RangeInclusive<u64> = 60..=2_592_000;

/// Is this a rule that a token could meet?
pub(super) fn check_rule(provider: &Provider) -> Result<(), Denied> {
    let Some(rule) = &provider.authn else {
        return Ok(());
    };
    let refuse = |text: &str| Err(Denied::new("provider", text));
    if !provider.kind.is_of_people() {
        return refuse("only tokens of people say how somebody proved themself");
    }
    let AuthnRule {
        acr,
        amr,
        max_age_seconds,
    } = rule;
    if acr.is_empty() && amr.is_empty() && max_age_seconds.is_none() {
        return refuse("a rule for how people prove themselves asks for something");
    }
    // In a request classes stand with spaces between (OpenID Connect Core 1.0, 3.1.2.1).
    let named = |names: &[String], most: usize| {
        let mut seen = BTreeSet::new();
        let fits = |name: &String| is_word(name) && name.len() <= most;
        names.len() <= MAX_NAMED && names.iter().all(|name| fits(name) && seen.insert(name))
    };
    if !named(acr, MAX_CLASS) || !named(amr, MAX_MEANS) {
        return refuse(
            "a rule names 16 different `acr` and 16 different `amr` at most, each a word",
        );
    }
    if max_age_seconds.is_some_and(|age| !AGE.contains(&age)) {
        return refuse("people may have proved themselves a minute to thirty days before");
    }
    Ok(())
}

/// Did whoever these claims are about prove themself as the provider's entry asks? No clock is read: what was so at the
/// login stays so.
pub(super) fn check_proved(provider: &Provider, claims: &Claims) -> Result<(), Denied> {
    let Some(rule) = &provider.authn else {
        return Ok(());
    };
    let name = &provider.name;
    let acr = claims.acr.as_ref();
    if !rule.acr.is_empty() && !acr.is_some_and(|acr| rule.acr.contains(acr)) {
        let said = match acr {
            Some(acr) => format!("you proved yourself in the way `{}` (acr)", clean(acr, 100)),
            None => "nothing of the way in which you proved yourself (acr)".to_owned(),
        };
        let message = format!(
            "`{name}` says {said}, and {} is needed",
            listed(&rule.acr, " or ")
        );
        return Err(Denied::new("acr", message).with_help(
            "log in again: `ascribe login` asks for it; if the provider does not take you there, its administrator sets that up",
        ));
    }
    let lacks = |means: &&String| !claims.amr.contains(means);
    let lacking: Vec<String> = rule.amr.iter().filter(lacks).cloned().collect();
    if !lacking.is_empty() {
        let said = match claims.amr.as_slice() {
            [] => "nothing of the means by which you proved yourself (amr)".to_owned(),
            means => format!("you proved yourself by {} (amr)", listed(means, ", ")),
        };
        let message = format!(
            "`{name}` says {said}, and {} is needed",
            listed(&lacking, " and ")
        );
        let help = format!("log in again by {}", listed(&rule.amr, " and "));
        return Err(Denied::new("amr", message).with_help(help));
    }
    let Some(most) = rule.max_age_seconds else {
        return Ok(());
    };
    let Some(at) = claims.auth_time else {
        let message = format!("`{name}` does not say when you proved yourself (auth_time)");
        return Err(Denied::new("auth-time", message).with_help(
            "log in again: `ascribe login` asks for it; a provider that does not answer cannot be asked for `--max-auth-age`",
        ));
    };
    check_not_after(claims.issued, at)?;
    let most_ms = i64::try_from(most).unwrap_or(i64::MAX).saturating_mul(1000);
    let age = claims.issued.since(at);
    if age > most_ms {
        let message = format!(
            "you proved yourself to `{name}` {} s before your token was issued, and {most} s are allowed",
            age / 1000
        );
        return Err(Denied::new("auth-time", message)
            .with_help("log in again, and prove yourself anew where the provider asks for it"));
    }
    Ok(())
}

/// Nobody proved themself later than now, by clocks that may differ a little.
pub(super) fn check_not_after(now: Timestamp, proved: Timestamp) -> Result<(), Denied> {
    if proved.since(now) <= PROVIDER_SKEW_MS {
        return Ok(());
    }
    Err(Denied::new(
        "auth-time",
        "the provider says that you proved yourself in the future (auth_time)",
    )
    .with_help("log in again"))
}

fn listed(names: &[String], between: &str) -> String {
    let names = names.iter().map(|name| format!("`{}`", clean(name, 100)));
    let names: Vec<String> = names.collect();
    names.join(between)
}
