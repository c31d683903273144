//! Messages that the gateway itself writes, to either side.
//!
//! Strings end at a zero byte, and a caller's string is cut at its first.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::server::{Report, Status};

/// A message of this type, with the body that is written.
fn message(kind: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(kind);
    counted(&mut out, body);
    out.freeze()
}

/// Length, itself included, and body.
pub(super) fn counted(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let begin = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(begin..begin + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

pub(super) fn string(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().take_while(|byte| **byte != 0));
    out.put_u8(0);
}

fn authentication(code: u32, rest: &[u8]) -> Bytes {
    message(b'R', |out| {
        out.put_u32(code);
        out.put_slice(rest);
    })
}

/// AuthenticationOk.
pub fn authentication_ok() -> Bytes {
    authentication(0, b"")
}

/// AuthenticationCleartextPassword.
pub fn cleartext_password() -> Bytes {
    authentication(3, b"")
}

/// AuthenticationSASL with these mechanisms.
pub fn sasl(mechanisms: &[&str]) -> Bytes {
    message(b'R', |out| {
        out.put_u32(10);
        for name in mechanisms {
            string(out, name.as_bytes());
        }
        out.put_u8(0);
    })
}

/// AuthenticationSASLContinue.
pub fn sasl_continue(data: &[u8]) -> Bytes {
    authentication(11, data)
}

/// AuthenticationSASLFinal.
pub fn sasl_final(data: &[u8]) -> Bytes {
    authentication(12, data)
}

/// ParameterStatus.
pub fn parameter_status(name: &[u8], value: &[u8]) -> Bytes {
    message(b'S', |out| {
        string(out, name);
        string(out, value);
    })
}

/// BackendKeyData: what the client cancels with.
pub fn backend_key_data(process: u32, key: &[u8]) -> Bytes {
    message(b'K', |out| {
        out.put_u32(process);
        out.put_slice(key);
    })
}

/// ReadyForQuery.
pub fn ready_for_query(status: Status) -> Bytes {
    message(b'Z', |out| out.put_u8(status.byte()))
}

/// ErrorResponse.
pub fn error_response(report: &Report) -> Bytes {
    message(b'E', |out| fields(out, report))
}

/// NoticeResponse.
pub fn notice_response(report: &Report) -> Bytes {
    message(b'N', |out| fields(out, report))
}

fn fields(out: &mut BytesMut, report: &Report) {
    let (detail, hint) = (report.detail.as_ref(), report.hint.as_ref());
    let all = [
        (b'S', Some(&report.severity)),
        (b'V', Some(&report.severity)),
        (b'C', Some(&report.code)),
        (b'M', Some(&report.message)),
        (b'D', detail),
        (b'H', hint),
    ];
    for (kind, value) in all {
        if let Some(value) = value {
            out.put_u8(kind);
            string(out, value);
        }
    }
    out.put_u8(0);
}

/// NegotiateProtocolVersion: the version that is spoken instead, and the options that are not
/// understood. The field holds major and minor version, as servers write it and libpq reads it.
pub fn negotiate(minor: u16, options: &[Bytes]) -> Bytes {
    message(b'v', |out| {
        out.put_u32(super::startup::version(minor));
        out.put_u32(u32::try_from(options.len()).unwrap_or(u32::MAX));
        for option in options {
            string(out, option);
        }
    })
}

/// Query.
pub fn query(text: &[u8]) -> Bytes {
    message(b'Q', |out| string(out, text))
}

/// Parse without types of parameters.
pub fn parse(name: &[u8], text: &[u8]) -> Bytes {
    message(b'P', |out| {
        string(out, name);
        string(out, text);
        out.put_u16(0);
    })
}

/// CopyFail: ends copied data from the client.
pub fn copy_fail(why: &[u8]) -> Bytes {
    message(b'f', |out| string(out, why))
}

/// Terminate.
pub fn terminate() -> Bytes {
    message(b'X', |_| {})
}

/// PasswordMessage, SASLInitialResponse or SASLResponse, whose body is given. What comes back holds
/// a secret: it should be written and dropped.
pub fn password(body: &[u8]) -> Bytes {
    message(b'p', |out| out.put_slice(body))
}

#[cfg(test)]
mod tests;
