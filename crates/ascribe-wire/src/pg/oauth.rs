//! The server's side of SASL's `OAUTHBEARER` (RFC 7628), as PostgreSQL 18 and its clients speak it. What comes in is
//! untrusted.

use serde_json::{Map, Value};

use super::fields::{Malformed, Secret};

/// The mechanism's name.
pub const MECHANISM: &str = "OAUTHBEARER";
/// What stands between the parts of a message, and is all of the client's answer to a failure.
const SEPARATOR: u8 = 0x01;
/// The scheme of a token that whoever holds it may use (RFC 6750, 2.1), in letters of any case.
const SCHEME: &[u8] = b"Bearer";

/// What a client shows first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing yet: it wants to know where tokens come from (RFC 7628, 4.3).
    Nothing,
    /// A token.
    Token(Secret),
}

fn malformed<T>(why: &'static str) -> Result<T, Malformed> {
    Err(Malformed { kind: b'p', why })
}

/// Reads a client's initial response. Pairs other than `auth` are for servers that know them (RFC 7628, 3.1).
///
/// # Errors
/// When it has another form, speaks for somebody else, or holds no token of RFC 6750.
pub fn initial(data: &[u8]) -> Result<Shown, Malformed> {
    let pairs = match data {
        [b'n' | b'y', b',', b',', SEPARATOR, rest @ ..] => rest,
        [b'p', b'=', ..] => {
            return malformed("a binding to the channel, which this mechanism has not");
        }
        [b'n' | b'y', b',', b'a', b'=', ..] => return malformed("it is to act as somebody else"),
        _ => return malformed("it does not begin as GS2 has it"),
    };
    // The last pair, too, ends with a separator, and the list with another.
    let Some(pairs) = pairs.strip_suffix(&[SEPARATOR]) else {
        return malformed("it does not end as it should");
    };
    let mut shown = None;
    if !pairs.is_empty() {
        let Some(pairs) = pairs.strip_suffix(&[SEPARATOR]) else {
            return malformed("its last pair has no end");
        };
        for pair in pairs.split(|byte| *byte == SEPARATOR) {
            let (name, value) = read_pair(pair)?;
            if name == b"auth" && shown.replace(read_auth(value)?).is_some() {
                return malformed("it has two tokens");
            }
        }
    }
    match shown {
        Some(shown) => Ok(shown),
        None => malformed("it has no `auth`"),
    }
}

fn read_pair(pair: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let Some(end) = pair.iter().position(|byte| *byte == b'=') else {
        return malformed("a pair without `=`");
    };
    let (name, value) = pair.split_at(end);
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !name.iter().all(u8::is_ascii_alphabetic) {
        return malformed("a pair's name is not made of letters");
    }
    let allowed = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    if !value.iter().all(allowed) {
        return malformed("a pair's value has bytes that are not allowed");
    }
    Ok((name, value))
}

fn read_auth(value: &[u8]) -> Result<Shown, Malformed> {
    if value.is_empty() {
        return Ok(Shown::Nothing);
    }
    let (scheme, rest) = value.split_at(SCHEME.len().min(value.len()));
    if !scheme.eq_ignore_ascii_case(SCHEME) || rest.first().is_some_and(|byte| *byte != b' ') {
        return malformed("its token is of another scheme than `Bearer`");
    }
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let token = rest.get(spaces..).unwrap_or_default();
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = token.get(..token.len() - padding).unwrap_or_default();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if body.is_empty() || !body.iter().all(allowed) {
        return malformed("its token is none, or has characters that no token has");
    }
    Ok(Shown::Token(Secret::new(token)))
}

/// What a client is told whose token does not count, or who asked where tokens come from: the document of whoever
/// issues them (OpenID Connect Discovery 1.0, 4), and the scope to ask for.
pub fn failure(configuration: Option<&str>, scope: Option<&str>) -> Vec<u8> {
    let mut told = Map::new();
    // The one status after which clients get a token and try again.
    told.insert("status".to_owned(), "invalid_token".into());
    for (name, value) in [("openid-configuration", configuration), ("scope", scope)] {
        if let Some(value) = value {
            told.insert(name.to_owned(), value.into());
        }
    }
    Value::Object(told).to_string().into_bytes()
}

/// Checks the client's answer to a failure: one separator (RFC 7628, 3.2.3).
///
/// # Errors
/// When it is anything else.
pub fn after_failure(data: &[u8]) -> Result<(), Malformed> {
    match data {
        [SEPARATOR] => Ok(()),
        _ => malformed("it goes on after a failure"),
    }
}

#[cfg(test)]
mod tests;
