//! Answers of HashiCorp Vault's and OpenBao's HTTP API, as far as credentials of databases need them: KV secrets,
//! the database secrets engine, logins, leases.
//!
//! What an answer holds is wiped when it was read, but for what is returned. Source: the HTTP API of OpenBao 2.7
//! (`/secret`, `/database`, `/auth/approle`, `/auth/jwt`, `/sys/leases`), which is that of Vault.

use ascribe_core::text::{clean, is_unsafe};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use crate::pg::Secret;

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 4096;
/// Longest token, in bytes: those that hold all they say ("batch") are long.
const MAX_TOKEN: usize = 8192;
/// Longest name of a role, in bytes: a server cuts longer ones (`NAMEDATALEN`).
const MAX_USER: usize = 63;
/// Longest id of a lease, in bytes.
const MAX_LEASE: usize = 1024;
/// Longest that something said to be valid for a time is believed to be, in seconds: a year.
const MAX_SECONDS: u64 = 366 * 24 * 3600;
/// Most characters of what is told of an error.
const MAX_TOLD: usize = 300;

/// An answer is not what was asked for. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It is no JSON object, or too long.
    #[error("it answers with something that is not its API's JSON")]
    NotJson,
    /// Something is absent or not of its kind.
    #[error("its answer has no usable {0}")]
    Lacks(&'static str),
    /// The secret has no such field.
    #[error("the secret has no usable field `{0}`")]
    NoField(String),
}

/// A role that logs in, and its password.
#[derive(Debug)]
pub struct Issued {
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// What it is lent by; none of a role that stays.
    pub lease: Option<Lease>,
}

/// What a credential is lent by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// How long it lasts from now, in seconds.
    pub seconds: u64,
    /// May it be made longer?
    pub renewable: bool,
}

/// What a login gives.
#[derive(Debug)]
pub struct Token {
    /// The token.
    pub secret: Secret,
    /// How long it lasts from now, in seconds; zero for good.
    pub seconds: u64,
    /// May it be made longer?
    pub renewable: bool,
    /// A "batch" token is stored nowhere: it cannot be revoked.
    pub batch: bool,
}

/// An answer's object; wiped when dropped.
struct Object(Map<String, Value>);

impl Drop for Object {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

/// Wipes what a value holds, as deep as it goes: parsing bounds that.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(all) => all.iter_mut().for_each(wipe),
        Value::Object(all) => all.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Object {
    fn read(body: &[u8]) -> Result<Self, VaultError> {
        if body.len() > MAX_ANSWER {
            return Err(VaultError::NotJson);
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(all)) => Ok(Self(all)),
            Ok(mut other) => {
                wipe(&mut other);
                Err(VaultError::NotJson)
            }
            Err(_) => Err(VaultError::NotJson),
        }
    }

    fn part(&self, name: &'static str) -> Result<&Map<String, Value>, VaultError> {
        let part = self.0.get(name).and_then(Value::as_object);
        part.ok_or(VaultError::Lacks(name))
    }
}

/// The secret of version 1 of the KV engine: its field.
///
/// # Errors
/// Where there is none.
pub fn kv1(body: &[u8], field: &str) -> Result<Secret, VaultError> {
    field_of(Object::read(body)?.part("data")?, field)
}

/// The secret of version 2 of the KV engine: its field.
///
/// # Errors
/// Where there is none.
pub fn kv2(body: &[u8], field: &str) -> Result<Secret, VaultError> {
    let answer = Object::read(body)?;
    let secret = answer.part("data")?.get("data").and_then(Value::as_object);
    field_of(secret.ok_or(VaultError::Lacks("data.data"))?, field)
}

fn field_of(secret: &Map<String, Value>, field: &str) -> Result<Secret, VaultError> {
    let found = secret.get(field).and_then(Value::as_str);
    found
        .and_then(password)
        .ok_or_else(|| VaultError::NoField(clean(field, 64)))
}

/// Not empty, not too long, and nothing that cannot be in a password.
fn password(text: &str) -> Option<Secret> {
    let fits = (1..=MAX_PASSWORD).contains(&text.len()) && !text.contains('\0');
    fits.then(|| Secret::new(text.as_bytes()))
}

/// What `database/creds/ROLE` gives: a role that was made just now, with its lease.
///
/// # Errors
/// Where a part of it is absent.
pub fn dynamic(body: &[u8]) -> Result<Issued, VaultError> {
    let answer = Object::read(body)?;
    let lease = lease_of(&answer)?;
    let issued = issued(&answer)?;
    Ok(Issued {
        lease: Some(lease),
        ..issued
    })
}

/// The lease alone, where the rest of an answer is of no use: it is given back.
///
/// # Errors
/// Where there is none.
pub fn lease(body: &[u8]) -> Result<Lease, VaultError> {
    lease_of(&Object::read(body)?)
}

fn lease_of(answer: &Object) -> Result<Lease, VaultError> {
    let id = answer.0.get("lease_id").and_then(Value::as_str);
    let fits =
        |id: &&str| (1..=MAX_LEASE).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    Ok(Lease {
        id: id
            .filter(fits)
            .ok_or(VaultError::Lacks("lease_id"))?
            .to_owned(),
        seconds: seconds(&answer.0)?,
        renewable: is_renewable(&answer.0),
    })
}

/// What `database/static-creds/ROLE` gives: a role that stays.
///
/// # Errors
/// Where a part of it is absent.
pub fn fixed(body: &[u8]) -> Result<Issued, VaultError> {
    issued(&Object::read(body)?)
}

fn issued(answer: &Object) -> Result<Issued, VaultError> {
    let data = answer.part("data")?;
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let user = text("username").filter(|user| is_user(user));
    Ok(Issued {
        user: user.ok_or(VaultError::Lacks("username"))?.to_owned(),
        password: text("password")
            .and_then(password)
            .ok_or(VaultError::Lacks("password"))?,
        lease: None,
    })
}

fn is_user(text: &str) -> bool {
    (1..=MAX_USER).contains(&text.len()) && !text.chars().any(is_unsafe)
}

/// What a login gives.
///
/// # Errors
/// Where a part of it is absent.
pub fn token(body: &[u8]) -> Result<Token, VaultError> {
    let answer = Object::read(body)?;
    let auth = answer.part("auth")?;
    let text = |name: &str| auth.get(name).and_then(Value::as_str);
    let token = text("client_token").and_then(|token| held_token(token.as_bytes()));
    Ok(Token {
        secret: token.ok_or(VaultError::Lacks("auth.client_token"))?,
        seconds: seconds(auth)?,
        renewable: is_renewable(auth),
        batch: text("token_type") == Some("batch"),
    })
}

/// A token that can be shown in a header.
pub fn held_token(token: &[u8]) -> Option<Secret> {
    let fits = (1..=MAX_TOKEN).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    fits.then(|| Secret::new(token))
}

/// How long a lease lasts from now, in seconds, after it was renewed.
///
/// # Errors
/// Where that is not said.
pub fn renewed(body: &[u8]) -> Result<u64, VaultError> {
    seconds(&Object::read(body)?.0)
}

/// The same of a token.
///
/// # Errors
/// Where that is not said.
pub fn renewed_token(body: &[u8]) -> Result<u64, VaultError> {
    seconds(Object::read(body)?.part("auth")?)
}

fn seconds(all: &Map<String, Value>) -> Result<u64, VaultError> {
    let seconds = all.get("lease_duration").and_then(Value::as_u64);
    let seconds = seconds.ok_or(VaultError::Lacks("lease_duration"))?;
    Ok(seconds.min(MAX_SECONDS))
}

fn is_renewable(all: &Map<String, Value>) -> bool {
    all.get("renewable") == Some(&Value::Bool(true))
}

/// What an answer says went wrong, in one line that can be shown; empty where it says nothing. Nothing is told
/// where it holds one of these secrets.
pub fn told(body: &[u8], secrets: &[&Secret]) -> String {
    let Ok(answer) = Object::read(body) else {
        return String::new();
    };
    let errors = answer.0.get("errors").and_then(Value::as_array);
    let errors: Vec<&str> = errors
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let text = errors.join("; ");
    let holds = |secret: &&Secret| {
        let secret = secret.expose();
        let windows = text.as_bytes().windows(secret.len().max(1));
        !secret.is_empty() && windows.into_iter().any(|part| part == secret)
    };
    if secrets.iter().any(holds) {
        return "it repeats a secret, which is not told".to_owned();
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    clean(&words.join(" "), MAX_TOLD)
}

#[cfg(test)]
mod tests;
