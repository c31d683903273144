//! Canonical JSON (RFC 8785 restricted to objects, arrays, strings, booleans and integers below
//! 2^53). The stored bytes are what is hashed and signed; [`decode`] refuses every other spelling.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _,
};
use serde_json::Value;

/// Why bytes are not a canonical record, or a value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum EncodingError {
    /// Not JSON of the expected shape.
    #[error("not a valid record: {0}")]
    Shape(#[from] serde_json::Error),
    /// The same value has another, canonical spelling.
    #[error("not in canonical form")]
    NotCanonical,
    /// A fraction, or an integer of 2^53 or more.
    #[error("a number is a fraction or 2^53 or more")]
    Number,
    /// A name in an object is not plain ASCII.
    #[error("an object name is not plain ASCII")]
    Name,
}

const LIMIT: u64 = 1 << 53;

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), EncodingError> {
    match value {
        Value::Null | Value::Bool(_) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::String(text) => serde_json::to_writer(&mut *out, text)?,
        Value::Number(n) => {
            let small = n.as_u64().is_some_and(|n| n < LIMIT)
                || n.as_i64()
                    .is_some_and(|n| n < 0 && n.unsigned_abs() < LIMIT);
            if !small {
                return Err(EncodingError::Number);
            }
            out.extend_from_slice(n.to_string().as_bytes());
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // The map's own order depends on build features of the JSON library: sort here.
            // For ASCII names byte order is RFC 8785's UTF-16 order.
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (i, (name, item)) in names.into_iter().enumerate() {
                if !name.is_ascii() {
                    return Err(EncodingError::Name);
                }
                if i > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, name)?;
                out.push(b':');
                write(item, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// The canonical bytes of a value.
///
/// # Errors
/// [`EncodingError::Number`] and [`EncodingError::Name`] for what has no canonical form here.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodingError> {
    let mut out = Vec::with_capacity(512);
    write(&serde_json::to_value(value)?, &mut out)?;
    Ok(out)
}

/// Reads canonical bytes; any other spelling of the same value is refused.
///
/// # Errors
/// When the bytes are not JSON of this shape (unknown and duplicate names included) or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let value: T = serde_json::from_slice(bytes)?;
    if encode(&value)? == bytes {
        Ok(value)
    } else {
        Err(EncodingError::NotCanonical)
    }
}

/// Bytes in JSON: base64url without padding, canonical only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&base64url(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        from_base64url(&text)
            .map(Bytes)
            .ok_or_else(|| D::Error::custom("not base64url"))
    }
}

/// base64url without padding (RFC 4648 section 5).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding; non-canonical trailing bits are refused.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Standard base64 with padding, as OpenSSH and C2SP files have it.
pub fn base64_std(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Reads standard base64 with padding.
pub fn from_base64_std(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        b: u64,
        a: String,
    }

    #[test]
    fn only_one_spelling_is_accepted() {
        let good = br#"{"a":"x\u001b","b":7}"#;
        let value: Sample = decode(good).unwrap();
        assert_eq!(encode(&value).unwrap(), good);
        for bad in [
            r#"{"b":7,"a":"x"}"#,
            r#"{"a":"x","b":7} "#,
            r#"{"a":"x","a":"x","b":7}"#,
            r#"{"a":"x","b":7.0}"#,
            r#"{"a":"\u0078","b":7}"#,
            r#"{"a":"x","b":7,"c":1}"#,
            r#"{"a":"x","b":9007199254740992}"#,
            "",
            "[]",
        ] {
            assert!(decode::<Sample>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
