//! How somebody comes by a token that binds a session key: people through their provider in the
//! browser or on another device, jobs through what runs them.

pub(crate) mod browser;
pub(crate) mod device;
mod discovery;
pub(crate) mod job;
pub(crate) mod keyfile;
pub(crate) mod svid;
pub(crate) mod workload_api;

pub(crate) use discovery::{Metadata, discover, published_keys};

use ascribe_core::identity::Provider;
use ascribe_core::text::clean;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::exit::{Done, Failure, Kind};
use crate::http::{Answer, Http};

/// Largest answer of a provider that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// A token: who holds it may be able to show it elsewhere.
pub(crate) type Token = Zeroizing<String>;

/// An answer of a token endpoint (RFC 6749, 5). Access and refresh tokens are not even looked at.
#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What a token endpoint said no with.
struct Refused {
    code: String,
    failure: Failure,
}

/// Asks a token endpoint.
async fn ask_for_token(
    http: &Http,
    endpoint: &str,
    form: &[(&str, &str)],
) -> Done<Result<Token, Refused>> {
    let answer = http
        .post(
            endpoint,
            "application/x-www-form-urlencoded",
            encoded(form),
            MAX_ANSWER,
        )
        .await?;
    let parsed: TokenAnswer = read(&answer, "the provider's token")?;
    if let Some(token) = parsed.id_token {
        return Ok(Ok(Token::new(token)));
    }
    let code = parsed.error.unwrap_or_else(|| "no-id-token".to_owned());
    let more = parsed.error_description.unwrap_or_default();
    let text = format!(
        "the provider gives no ID token: {} {}",
        clean(&code, 80),
        clean(&more, 200)
    );
    let failure = Failure::new(Kind::Denied, text.trim_end());
    Ok(Err(Refused { code, failure }))
}

/// A JSON answer. Errors of OAuth come with status 400 and JSON as well.
fn read<T: for<'de> Deserialize<'de>>(answer: &Answer, what: &str) -> Done<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(
            Kind::Failure,
            format!(
                "{what} cannot be read (HTTP status {}): {error}",
                answer.status
            ),
        )
    })
}

/// What a request asks a provider for, of how a person proves themself (OpenID Connect Core 1.0, 3.1.2.1). There is no such
/// parameter for means (`amr`).
fn wanted(provider: &Provider) -> Vec<(&'static str, String)> {
    let Some(rule) = &provider.authn else {
        return Vec::new();
    };
    let classes = (!rule.acr.is_empty()).then(|| ("acr_values", rule.acr.join(" ")));
    let age = rule.max_age_seconds;
    let age = age.map(|seconds| ("max_age", seconds.to_string()));
    classes.into_iter().chain(age).collect()
}

/// `application/x-www-form-urlencoded`, also the query of a URL.
fn encoded(form: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        escape(&mut out, name);
        out.push('=');
        escape(&mut out, value);
    }
    out
}

/// Percent-encodes all but the unreserved characters (RFC 3986, 2.3).
fn escape(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

/// The parameters of a query.
pub(crate) fn decoded(query: &str) -> Vec<(String, String)> {
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        Some((unescaped(name)?, unescaped(value)?))
    };
    query.split('&').filter_map(pair).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            b'+' => {
                out.push(b' ');
                rest = after;
            }
            other => {
                out.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::{decoded, encoded};

    #[test]
    fn forms_come_back_as_they_were() {
        let form = [("a", "x y&z=+%"), ("state", "é☃"), ("empty", "")];
        let text = encoded(&form);
        assert_eq!(text, "a=x%20y%26z%3D%2B%25&state=%C3%A9%E2%98%83&empty=");
        let back = decoded(&text);
        let back: Vec<_> = back.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(back, form);
        assert_eq!(decoded("a=%zz&b=%4&c=1+2"), [("c".into(), "1 2".into())]);
    }
}
