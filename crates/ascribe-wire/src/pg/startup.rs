//! A connection's first packet, which has no type, and the user name in it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use ascribe_core::id::GrantId;

use super::encode::{counted, string};
use super::fields::Secret;
use super::server::CANCEL_KEY;
use crate::user;

/// Largest first packet without its length, in bytes (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP: u32 = 10_000;
/// The newest minor version that is spoken; 1 was never used.
pub const NEWEST: u16 = 2;
/// Longest name of a role, in bytes: PostgreSQL cuts longer ones.
pub const MAX_ROLE: usize = 63;

/// The first byte of a TLS handshake, which no packet begins with.
const TLS_HANDSHAKE: u8 = 0x16;
const MAJOR: u32 = 3;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// TLS, without being asked. Nothing was taken of it.
    DirectTls,
    /// The client asks for TLS: to be answered with `S` or `N`. Bytes that came behind it are to be
    /// refused, for they are not from within TLS (CVE-2021-23214, CVE-2021-23222).
    SslRequest,
    /// The client asks for GSSAPI encryption.
    GssEncRequest,
    /// A statement is to be cancelled.
    Cancel(Cancel),
    /// A session begins.
    Startup(Startup),
}

/// A request to cancel what a session runs. Whoever has the key may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// The process, as BackendKeyData gave it.
    pub process: u32,
    /// The key.
    pub key: Secret,
}

/// How a session is to begin. Names and values are bytes in no known encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Minor version of protocol 3.
    pub minor: u16,
    /// Names and values in order, each name once, options of the protocol among them.
    pub parameters: Vec<(Bytes, Bytes)>,
}

/// Why a first packet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Its length cannot be.
    #[error("a first packet of {0} bytes; one has 8 bytes to 10,004")]
    Length(u32),
    /// Another protocol.
    #[error("protocol {0}.{1} is not spoken; use a client that speaks PostgreSQL's protocol 3")]
    Version(u16, u16),
    /// It does not have its form.
    #[error("a first packet that is malformed: {0}")]
    Malformed(&'static str),
    /// It asks to cancel, and does not have the form of that. Nobody waits for an answer.
    #[error("a request to cancel that is malformed: {0}")]
    Cancel(&'static str),
}

/// The number of this minor version.
pub(super) fn version(minor: u16) -> u32 {
    MAJOR << 16 | u32::from(minor)
}

/// Takes the first packet from the front, if all of it is there.
///
/// # Errors
/// When it is not understood.
pub fn first(bytes: &mut BytesMut) -> Result<Option<First>, StartupError> {
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return Ok(Some(First::DirectTls));
    }
    let Some(length) = number(bytes, 0) else {
        return Ok(None);
    };
    if !(8..=MAX_STARTUP + 4).contains(&length) {
        return Err(StartupError::Length(length));
    }
    if bytes.len() < length as usize {
        return Ok(None);
    }
    let packet = bytes.split_to(length as usize).freeze();
    let code = number(&packet, 4).unwrap_or_default();
    let rest = packet.slice(8..);
    match code {
        SSL | GSS if !rest.is_empty() => Err(StartupError::Malformed("bytes are left over")),
        SSL => Ok(Some(First::SslRequest)),
        GSS => Ok(Some(First::GssEncRequest)),
        CANCEL => cancel(&rest).map(First::Cancel).map(Some),
        _ if code >> 16 == MAJOR => {
            let minor = code as u16;
            let parameters = parameters(rest)?;
            Ok(Some(First::Startup(Startup { minor, parameters })))
        }
        _ => Err(StartupError::Version((code >> 16) as u16, code as u16)),
    }
}

/// The number at this place, if it is there.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let (bytes, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

fn cancel(rest: &Bytes) -> Result<Cancel, StartupError> {
    let (Some(process), Some(key)) = (number(rest, 0), rest.get(4..)) else {
        return Err(StartupError::Cancel("it ends too early"));
    };
    if !CANCEL_KEY.contains(&key.len()) {
        let why = "a cancel key has 4 to 256 bytes";
        return Err(StartupError::Cancel(why));
    }
    let key = Secret::new(key);
    Ok(Cancel { process, key })
}

fn parameters(mut rest: Bytes) -> Result<Vec<(Bytes, Bytes)>, StartupError> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    loop {
        let name = cut_string(&mut rest)?;
        if name.is_empty() {
            break;
        }
        // Servers take the last one; whoever reads the record might take the first.
        if all.iter().any(|(known, _)| *known == name) {
            return Err(StartupError::Malformed("a parameter is given twice"));
        }
        all.push((name, cut_string(&mut rest)?));
    }
    match rest.is_empty() {
        true => Ok(all),
        false => Err(StartupError::Malformed("bytes are left over")),
    }
}

fn cut_string(rest: &mut Bytes) -> Result<Bytes, StartupError> {
    let end = rest.iter().position(|byte| *byte == 0);
    let end = end.ok_or(StartupError::Malformed("a string without its end"))?;
    let text = rest.split_to(end);
    rest.advance(1);
    Ok(text)
}

impl Startup {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        let mut all = self.parameters.iter();
        all.find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// Who logs in; none if nobody is named, which servers refuse.
    pub fn user(&self) -> Option<&Bytes> {
        self.get("user").filter(|user| !user.is_empty())
    }

    /// To which database: the user's name stands for it where none is named.
    pub fn database(&self) -> Option<&Bytes> {
        self.get("database").filter(|name| !name.is_empty())
    }

    /// Does the session replicate? Anything but a spelling of `false` counts.
    pub fn is_replication(&self) -> bool {
        self.get("replication").is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            !matches!(&value[..], b"false" | b"off" | b"no" | b"0")
        })
    }

    /// Names of the protocol's own options.
    pub fn protocol_options(&self) -> impl Iterator<Item = &Bytes> {
        let names = self.parameters.iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with(b"_pq_."))
    }

    /// What to answer before anything else: NegotiateProtocolVersion, where the client wants a newer
    /// version than `newest` or options, none of which is understood; else nothing.
    pub fn negotiate(&self, newest: u16) -> Option<Bytes> {
        let options: Vec<Bytes> = self.protocol_options().cloned().collect();
        let minor = self.spoken(newest);
        let needed = minor != self.minor || !options.is_empty();
        needed.then(|| super::encode::negotiate(minor, &options))
    }

    /// The minor version that is spoken with this client; 1 was never used.
    pub fn spoken(&self, newest: u16) -> u16 {
        match self.minor.min(newest) {
            0 | 1 => 0,
            minor => minor,
        }
    }
}

/// May a server that was asked for this minor version, without options, negotiate that? It names an older version than was asked
/// for, and one that was used; and it cannot have missed options.
pub fn is_agreed(asked: u16, version: u32, options: &[Bytes]) -> bool {
    let minor = version as u16;
    version >> 16 == MAJOR && minor < asked && minor != 1 && options.is_empty()
}

/// StartupMessage of this minor version with exactly these parameters.
pub fn startup_message<'a>(
    minor: u16,
    parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Bytes {
    packet(version(minor), |out| {
        for (name, value) in parameters {
            string(out, name);
            string(out, value);
        }
        out.put_u8(0);
    })
}

/// SSLRequest.
pub fn ssl_request() -> Bytes {
    packet(SSL, |_| {})
}

/// CancelRequest.
pub fn cancel_request(process: u32, key: &[u8]) -> Bytes {
    packet(CANCEL, |out| {
        out.put_u32(process);
        out.put_slice(key);
    })
}

fn packet(code: u32, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    counted(&mut out, |out| {
        out.put_u32(code);
        body(out);
    });
    out.freeze()
}

/// The user name at the gateway's door: `role@target`, or `role+GRANT@target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    /// The role at the target.
    pub role: String,
    /// The target's name.
    pub target: String,
    /// The grant that is meant, where one is named.
    pub grant: Option<GrantId>,
}

/// Why a user name is refused. The name itself is never shown: it might be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// No role and target.
    #[error("the user name is not ROLE@TARGET; connect with user=ROLE@TARGET")]
    Form,
    /// It is too long, or not made of visible characters of UTF-8.
    #[error(
        "the user name has more than 255 bytes, a role of more than 63, or characters that are not allowed"
    )]
    Character,
    /// What follows `+` is not a grant.
    #[error("what follows `+` in the user name is not a grant id")]
    Grant,
    /// It looks like a secret, which would be in logs.
    #[error(
        "the user name looks as if it held a password or a token; give that as the password and connect with user=ROLE@TARGET"
    )]
    Secret,
}

/// Parses a user name.
///
/// A name that may hold a secret is refused: one with `:`, with more than one `@`, with a part that
/// begins like a JSON Web Token (`eyJ`), or with 40 letters and digits in a row.
///
/// # Errors
/// When it is refused.
pub fn user_name(bytes: &[u8]) -> Result<UserName, UserNameError> {
    let text = std::str::from_utf8(bytes).map_err(|_| UserNameError::Character)?;
    // First, so that a malformed name with a secret says so.
    if is_secret(text) {
        return Err(UserNameError::Secret);
    }
    let user = user::parse(text).map_err(|error| match error {
        user::UserError::Grant => UserNameError::Grant,
        user::UserError::Form => UserNameError::Form,
        user::UserError::Length if text.is_empty() => UserNameError::Form,
        user::UserError::Length | user::UserError::Character => UserNameError::Character,
    })?;
    if user.account.len() > MAX_ROLE {
        return Err(UserNameError::Character);
    }
    Ok(UserName {
        role: user.account,
        target: user.target,
        grant: user.grant,
    })
}

fn is_secret(text: &str) -> bool {
    let parts = || text.split(|c: char| !c.is_ascii_alphanumeric());
    text.contains(':')
        || text.matches('@').count() > 1
        || parts().any(|part| part.starts_with("eyJ") || part.len() >= 40)
}

#[cfg(test)]
mod tests;
