//! What the claims say, whoever the provider is: issuer, audience, key, times, subject and facts.

use std::collections::BTreeSet;

use ascribe_core::directory::subject_of;
use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{
    self, Binding, Claims, Fact, PROOF_AUDIENCE, Provider, ProviderKind, StatedManager,
};
use ascribe_core::law::{Denied, TokenAsked};
use ascribe_core::time::Timestamp;

use super::json::{Json, Object};
use super::provider::{self, About};

/// Longest text of a claim that is kept, in bytes.
const MAX_TEXT: usize = 1024;
/// Longest subject, in bytes (OpenID Connect Core 1.0, 2).
const MAX_SUB: usize = 255;
/// Longest SPIFFE ID, in bytes (SPIFFE ID, 2.3).
const MAX_SPIFFE: usize = 2048;
/// Times that make sense, in seconds: 2017 to 2100.
pub(super) const SANE: std::ops::RangeInclusive<i64> = 1_483_228_800..=4_102_444_800;
/// Most methods (`amr`) that are kept.
const MAX_METHODS: usize = 16;

/// Reads claims whose signature is good by the key of this thumbprint. Where it was proved and not shown, the
/// proof's commitment comes along.
pub(super) fn read(
    provider: &Provider,
    claims: &Object<'_>,
    (key, proved): (ContentDigest, Option<&str>),
    asked: &TokenAsked<'_>,
) -> Result<Claims, Denied> {
    let people = provider.kind.is_of_people();
    check_issuer(provider, claims)?;
    if people {
        check_purpose(claims)?;
    }
    let binding = binding(provider, claims, proved, asked)?;
    let (issued, expires) = times(provider.kind, claims)?;
    let subject = subject(provider, claims)?;
    let facts = facts(claims, asked.facts)?;
    let About {
        code,
        missing,
        protection,
        run,
        trigger,
    } = provider::about(provider.kind, claims, asked.facts, binding)?;
    Ok(Claims {
        acr: if people { text(claims, "acr")? } else { None },
        amr: if people { methods(claims)? } else { vec![] },
        auth_time: if people {
            time(claims, "auth_time")?
        } else {
            None
        },
        binding,
        code,
        expires,
        facts,
        groups: if people {
            groups(claims, asked.groups)?
        } else {
            vec![]
        },
        issued,
        key,
        managers: if people {
            managers(provider, claims, asked.managers)?
        } else {
            vec![]
        },
        missing,
        protection,
        run,
        subject,
        trigger,
    })
}

/// Might it be a token of this provider, by what it says itself?
pub(super) fn is_issued_by(provider: &Provider, claims: &Object<'_>) -> bool {
    check_issuer(provider, claims).is_ok()
}

/// The same, and is it meant for us, with or without a key?
pub(super) fn is_meant_for(provider: &Provider, claims: &Object<'_>) -> bool {
    let audiences = audiences(claims).unwrap_or_default();
    let ours = |audience: &&str| {
        let rest = audience.strip_prefix(provider.audience.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    is_issued_by(provider, claims) && audiences.iter().any(ours)
}

/// A token that is good for something else, but not for saying who somebody is.
pub(super) fn no_identity(why: &str) -> Denied {
    Denied::new("token-typ", format!("the token is no ID token: {why}"))
        .with_help("give the ID token, not an access token, a refresh token or a logout token")
}

pub(super) fn malformed(name: &str) -> Denied {
    Denied::new(
        "token-claim",
        format!("the token's claim `{name}` is missing or malformed"),
    )
}

fn short(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.contains(char::is_control)
}

/// A claim that may be absent and is a text when it is there.
fn text(claims: &Object<'_>, name: &str) -> Result<Option<String>, Denied> {
    match claims.get(name).map(Json::text) {
        None => Ok(None),
        Some(Some(text)) if short(text, MAX_TEXT) => Ok(Some(text.to_owned())),
        Some(_) => Err(malformed(name)),
    }
}

/// A text as it is, a number in digits, `true` or `false`; none for `null`.
pub(super) fn plain(name: &str, value: &Json<'_>) -> Result<Option<String>, Denied> {
    match value {
        Json::Null => Ok(None),
        Json::Bool(value) => Ok(Some(value.to_string())),
        Json::Integer(value) => Ok(Some(value.to_string())),
        Json::Text(text) if text.is_empty() || short(text, MAX_TEXT) => Ok(Some(text.to_string())),
        _ => Err(malformed(name)),
    }
}

/// The issuer, character by character (RFC 8725, 3.8). A trust domain is issuer of what is in it, and of nothing
/// else; then a JWT-SVID may do without the claim (JWT-SVID, 3).
fn check_issuer(provider: &Provider, claims: &Object<'_>) -> Result<(), Denied> {
    let spiffe = matches!(
        provider.kind,
        ProviderKind::Spiffe | ProviderKind::SpiffeX509
    );
    let domain = spiffe && provider.issuer.starts_with("spiffe://");
    let inside = || {
        let sub = claims.get("sub").and_then(Json::text);
        let path = sub.and_then(|sub| sub.strip_prefix(&provider.issuer));
        path.is_some_and(|path| path.starts_with('/'))
    };
    let named = match claims.get("iss") {
        Some(issuer) => issuer.text() == Some(&provider.issuer),
        None => domain,
    };
    let good = named && (!domain || inside());
    if good {
        return Ok(());
    }
    let message = format!("the token is not issued by `{}`", provider.issuer);
    Err(Denied::new("token-iss", message))
}

/// Access tokens and logout tokens are signed with the same keys, often without a type in their header.
fn check_purpose(claims: &Object<'_>) -> Result<(), Denied> {
    if claims.contains_key("scp") {
        return Err(no_identity("it carries permissions (`scp`)"));
    }
    if claims.contains_key("events") {
        return Err(no_identity("it reports events (`events`)"));
    }
    match claims.get("typ") {
        Some(typ) if typ.text() != Some("ID") => Err(no_identity("its claim `typ` is not `ID`")),
        _ => Ok(()),
    }
}

/// Whom the token is meant for, one or several.
fn audiences<'a>(claims: &'a Object<'_>) -> Result<Vec<&'a str>, Denied> {
    let all: Option<Vec<&str>> = match claims.get("aud") {
        Some(Json::Text(one)) => Some(vec![one.as_ref()]),
        Some(Json::List(items)) => items.iter().map(Json::text).collect(),
        _ => None,
    };
    all.ok_or_else(|| malformed("aud"))
}

fn not_for_us(provider: &Provider) -> Denied {
    let message = format!("the token is not meant for `{}` alone", provider.audience);
    Denied::new("token-aud", message).with_help("ask the provider for a token with this audience")
}

/// Checks audience and key.
fn binding(
    provider: &Provider,
    claims: &Object<'_>,
    proved: Option<&str>,
    asked: &TokenAsked<'_>,
) -> Result<Binding, Denied> {
    let audiences = audiences(claims)?;
    let commitment = identity::key_commitment(asked.key, asked.rz);
    if provider.kind.is_of_people() {
        check_parties(provider, claims, &audiences)?;
        return match claims.get("nonce") {
            // The device flow drops it: the provider does not vouch for the key then.
            None => Ok(Binding::None),
            Some(nonce) if nonce.text() == Some(&commitment) => Ok(Binding::Nonce),
            Some(_) => Err(Denied::new(
                "token-nonce",
                "the token was asked for with another key (`nonce`)",
            )
            .with_help("log in again: each login makes a key and gets a token for it")),
        };
    }
    if provider.kind == ProviderKind::Kubernetes {
        provider::check_cluster(provider, &audiences)?;
    }
    // One audience only: no other recipient may hand the token on.
    let &[audience] = audiences.as_slice() else {
        return Err(not_for_us(provider));
    };
    let Some(rest) = audience.strip_prefix(provider.audience.as_str()) else {
        return Err(not_for_us(provider));
    };
    let another = |why: &str| {
        Denied::new("token-commitment", why)
            .with_help("log in again: each login makes a key and gets a token for it")
    };
    if let Some(cic) = proved {
        // The token was minted before there was a key, and said that it may be turned into a proof.
        if !rest.is_empty() || !audience.starts_with(PROOF_AUDIENCE) {
            return Err(not_for_us(provider));
        }
        return (cic == commitment)
            .then_some(Binding::Proof)
            .ok_or_else(|| {
                another("the proof of the token was made for another key (its `cic` says which)")
            });
    }
    if rest.is_empty() {
        return Ok(Binding::None);
    }
    match rest.strip_prefix(':') {
        Some(other) if other != commitment => Err(another(
            "the token was asked for with another key (its audience says which)",
        )),
        Some(_) => Ok(Binding::Audience),
        None => Err(not_for_us(provider)),
    }
}

/// OpenID Connect Core 1.0, 3.1.3.7 (3 to 5).
fn check_parties(
    provider: &Provider,
    claims: &Object<'_>,
    audiences: &[&str],
) -> Result<(), Denied> {
    if !audiences.contains(&provider.audience.as_str()) {
        return Err(not_for_us(provider));
    }
    let good = match claims.get("azp") {
        Some(party) => party.text() == Some(&provider.audience),
        None => audiences.len() == 1,
    };
    if good {
        return Ok(());
    }
    let message = format!(
        "the token was issued to another party than `{}` (`azp`)",
        provider.audience
    );
    Err(Denied::new("token-azp", message))
}

/// A time in seconds (RFC 7519, 2); fractions are cut off.
fn seconds(claims: &Object<'_>, name: &str) -> Result<Option<i64>, Denied> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(Json::Integer(seconds)) => Some(*seconds),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
        Some(Json::Number(seconds)) if (0.0..=4e9).contains(seconds) => Some(*seconds as i64),
        Some(_) => None,
    };
    match seconds.filter(|seconds| *seconds >= 0 && seconds <= SANE.end()) {
        None => Err(bad_time(&format!("`{name}` is no time in seconds"))),
        Some(seconds) => Ok(Some(seconds)),
    }
}

pub(super) fn bad_time(why: &str) -> Denied {
    Denied::new(
        "token-time",
        format!("the token's times make no sense: {why}"),
    )
}

pub(super) fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

fn time(claims: &Object<'_>, name: &str) -> Result<Option<Timestamp>, Denied> {
    Ok(seconds(claims, name)?.map(instant))
}

/// Since when and until when the token counts.
fn times(kind: ProviderKind, claims: &Object<'_>) -> Result<(Timestamp, Timestamp), Denied> {
    let not_before = seconds(claims, "nbf")?;
    let issued = match (seconds(claims, "iat")?, not_before) {
        (Some(issued), _) => issued,
        // A JWT-SVID must have an end only (JWT-SVID, 3). Without any beginning its life has no bound.
        (None, Some(not_before)) if kind == ProviderKind::Spiffe => not_before,
        (None, _) => return Err(bad_time("`iat` is missing")),
    };
    let expires = seconds(claims, "exp")?.ok_or_else(|| bad_time("`exp` is missing"))?;
    if !SANE.contains(&issued) {
        return Err(bad_time("`iat` is long ago or far away"));
    }
    let begins = issued.max(not_before.unwrap_or(issued));
    if expires <= begins {
        return Err(bad_time("it ends before it begins"));
    }
    let hours = match kind {
        ProviderKind::Entra | ProviderKind::Oidc => 24,
        ProviderKind::Kubernetes => 1,
        _ => 12,
    };
    if expires.saturating_sub(issued) > hours * 3600 {
        let message = format!("the token is good for longer than {hours} h");
        return Err(
            Denied::new("token-life", message).with_help("ask the provider for a shorter one")
        );
    }
    Ok((instant(begins), instant(expires)))
}

/// Whom the token is about: never an e-mail address and never a name, which change hands.
fn subject(provider: &Provider, claims: &Object<'_>) -> Result<ContentDigest, Denied> {
    let most = match provider.kind {
        ProviderKind::Spiffe => MAX_SPIFFE,
        _ => MAX_SUB,
    };
    let bad = |why: &str| Denied::new("token-sub", format!("the token names no subject: {why}"));
    let sub = claims
        .get("sub")
        .and_then(Json::text)
        .filter(|sub| short(sub, most))
        .ok_or_else(|| bad("`sub` is no text of 1 to 255 bytes without control characters"))?;
    match provider.kind {
        ProviderKind::Spiffe if !provider::is_spiffe_id(sub) => Err(bad("`sub` is no SPIFFE ID")),
        ProviderKind::Entra => {
            // `sub` is another one for each client; these two are the account (Microsoft's ID token claims reference).
            let id = |name: &str| {
                let text = claims.get(name).and_then(Json::text)?;
                let plain = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                (plain && text.len() == 36).then_some(text)
            };
            let (Some(tenant), Some(object)) = (id("tid"), id("oid")) else {
                return Err(bad("at Entra `tid` and `oid` do, and both must be there"));
            };
            if !provider.issuer.split('/').any(|part| part == tenant) {
                return Err(bad("`tid` is not the issuer's tenant"));
            }
            Ok(identity::subject(
                &provider.issuer,
                &format!("{tenant}/{object}"),
            ))
        }
        _ => Ok(identity::subject(&provider.issuer, sub)),
    }
}

fn methods(claims: &Object<'_>) -> Result<Vec<String>, Denied> {
    let Some(value) = claims.get("amr") else {
        return Ok(vec![]);
    };
    let items = value.list().filter(|items| items.len() <= MAX_METHODS);
    let texts = items.and_then(|items| {
        let text = |item: &Json<'_>| {
            item.text()
                .filter(|text| short(text, 64))
                .map(str::to_owned)
        };
        items.iter().map(text).collect()
    });
    texts.ok_or_else(|| malformed("amr"))
}

/// The claims that conditions name, sorted by name. One that is missing, or `null`, is no fact.
pub(super) fn facts(claims: &Object<'_>, asked: &[&str]) -> Result<Vec<Fact>, Denied> {
    let names: BTreeSet<&str> = asked.iter().copied().collect();
    let mut facts = Vec::new();
    for name in names {
        let mut found = Vec::new();
        find(claims, name, &mut found);
        let value = match found.as_slice() {
            [] => None,
            [one] => plain(name, one).map_err(|_| {
                let message =
                    format!("the token's claim `{name}` is no text, whole number or truth value");
                Denied::new("token-fact", message)
            })?,
            // Somebody might have a say in one of them.
            _ => {
                let message = format!("the token has more than one claim `{name}`");
                return Err(Denied::new("token-fact", message));
            }
        };
        facts.extend(value.map(|value| Fact {
            claim: name.to_owned(),
            value,
        }));
    }
    Ok(facts)
}

/// Those of the groups asked for that the token lists, sorted. Some providers write a single group as a text.
fn groups(claims: &Object<'_>, asked: &[(&str, &str)]) -> Result<Vec<Fact>, Denied> {
    let asked: BTreeSet<(&str, &str)> = asked.iter().copied().collect();
    let mut groups = Vec::new();
    for (name, group) in asked {
        let mut found = Vec::new();
        find(claims, name, &mut found);
        let is_in = |value: &Json<'_>| match (value.list(), value.text()) {
            (Some(items), _) => Some(items.iter().any(|item| item.text() == Some(group))),
            (None, text) => text.map(|text| text == group),
        };
        let listed = match found.as_slice() {
            [] | [Json::Null] => Some(false),
            [one] => is_in(one),
            _ => None,
        };
        let listed = listed.ok_or_else(|| {
            let message = format!("the token's claim `{name}` is no list of groups");
            Denied::new("token-groups", message)
        })?;
        if listed {
            groups.push(Fact {
                claim: name.to_owned(),
                value: group.to_owned(),
            });
        }
    }
    Ok(groups)
}

/// Whom the claims asked for call the person's manager, at the same issuer; sorted by claim. One that is missing, empty or
/// `null` calls nobody that.
fn managers(
    provider: &Provider,
    claims: &Object<'_>,
    asked: &[&str],
) -> Result<Vec<StatedManager>, Denied> {
    let names: BTreeSet<&str> = asked.iter().copied().collect();
    let mut managers = Vec::new();
    for name in names {
        let mut found = Vec::new();
        find(claims, name, &mut found);
        let sub = match found.as_slice() {
            [] | [Json::Null] => Some(""),
            [one] => one
                .text()
                .filter(|sub| sub.is_empty() || short(sub, MAX_SUB)),
            _ => None,
        };
        let sub = sub.ok_or_else(|| {
            let message =
                format!("the token's claim `{name}` names no one manager by their subject");
            Denied::new("token-manager", message)
        })?;
        if !sub.is_empty() {
            managers.push(StatedManager {
                claim: name.to_owned(),
                subject: subject_of(provider, sub),
            });
        }
    }
    Ok(managers)
}

/// Every claim that `name` may mean: a slash is part of a name, or goes into an object.
fn find<'a>(claims: &'a Object<'a>, name: &str, found: &mut Vec<&'a Json<'a>>) {
    found.extend(claims.get(name));
    for (at, _) in name.match_indices('/') {
        let Some((outer, inner)) = name.split_at_checked(at) else {
            continue;
        };
        if let Some(members) = claims.get(outer).and_then(Json::object) {
            find(members, inner.strip_prefix('/').unwrap_or(inner), found);
        }
    }
}
