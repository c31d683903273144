//! Canonical JSON (RFC 8785 restricted to objects, arrays, strings, booleans and integers below
//! 2^53). The stored bytes are what is hashed and signed; [`decode`] refuses every other spelling.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod canonical;

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
    /// A name in an object is not plain ASCII, or there twice.
    #[error("an object name is not plain ASCII, or there twice")]
    Name,
}

/// The canonical bytes of a value.
///
/// # Errors
/// [`EncodingError::Number`] and [`EncodingError::Name`] for what has no canonical form here.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodingError> {
    encode_about(1024, value)
}

/// The same of a value whose canonical bytes will be about so many.
pub(crate) fn encode_about<T: Serialize>(
    bytes: usize,
    value: &T,
) -> Result<Vec<u8>, EncodingError> {
    let mut out = Vec::with_capacity(bytes);
    canonical::write(value, &mut out)?;
    Ok(out)
}

/// Reads canonical bytes; any other spelling of the same value is refused.
///
/// # Errors
/// When the bytes are not JSON of this shape (unknown and duplicate names included) or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let value: T = serde_json::from_slice(bytes)?;
    if canonical::is_form_of(bytes, &value) {
        return Ok(value);
    }
    let mut spelling = Vec::with_capacity(bytes.len());
    canonical::write(&value, &mut spelling)?;
    if spelling == bytes {
        Ok(value)
    } else {
        Err(EncodingError::NotCanonical)
    }
}

/// Longest text of [`Bytes`] that is made at once.
const SHORT: usize = 512;

/// Bytes in JSON: base64url without padding, canonical only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // Keys, salts and most signatures are short.
        let mut short = [0; SHORT];
        let text = URL_SAFE_NO_PAD.encode_slice(&self.0, &mut short).ok();
        let text = text.and_then(|len| std::str::from_utf8(short.get(..len)?).ok());
        match text {
            Some(text) => s.serialize_str(text),
            None => s.collect_str(&Text(&self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(Visit(|text: &str| {
            from_base64url(text)
                .map(Bytes)
                .ok_or("not base64url without padding")
        }))
    }
}

/// Bytes written as base64url without padding.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64::display::Base64Display::new(self.0, &URL_SAFE_NO_PAD).fmt(f)
    }
}

/// Reads a text without keeping it.
struct Visit<F>(F);

impl<'de, T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'de> for Visit<F> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<R: serde::de::Error>(self, text: &str) -> Result<T, R> {
        (self.0)(text).map_err(R::custom)
    }
}

/// Reads a value from its text.
pub(crate) fn parsed<'de, T: FromStr<Err: fmt::Display>, D: Deserializer<'de>>(
    d: D,
) -> Result<T, D::Error> {
    d.deserialize_str(Visit(str::parse::<T>))
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

/// Adds standard base64 without its padding, as OpenSSH has it in fingerprints.
pub(crate) fn push_base64_unpadded(bytes: &[u8], to: &mut String) {
    base64::engine::general_purpose::STANDARD_NO_PAD.encode_string(bytes, to);
}

/// Reads standard base64 with padding.
pub fn from_base64_std(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// The same by way of a tree of values, whose objects are sorted maps.
    fn reference(value: &Value, out: &mut String) {
        match value {
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    reference(item, out);
                }
                out.push(']');
            }
            Value::Object(map) => {
                let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
                out.push('{');
                for (i, (name, item)) in sorted.into_iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    out.push_str(&Value::String(name.clone()).to_string());
                    out.push(':');
                    reference(item, out);
                }
                out.push('}');
            }
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (0..1_u64 << 53).prop_map(|n| json!(n)),
            (-(1_i64 << 53) + 1..0).prop_map(|n| json!(n)),
            any::<String>().prop_map(Value::String),
        ];
        plain.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::vec(("[ -~]{0,6}", inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Shapes {
        Unit,
        New(Option<u8>),
        Pair(u8, ()),
        Named { z: char, a: i8 },
    }

    proptest! {
        #[test]
        fn one_pass_writes_what_a_sorted_tree_of_values_gives(value in values()) {
            let mut expected = String::new();
            reference(&value, &mut expected);
            prop_assert_eq!(String::from_utf8(encode(&value).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn every_shape_of_value_is_sorted() {
        let shapes = [
            Shapes::Unit,
            Shapes::New(None),
            Shapes::Pair(1, ()),
            Shapes::Named { z: '"', a: -1 },
        ];
        let expected = r#"["unit",{"new":null},{"pair":[1,null]},{"named":{"a":-1,"z":"\""}}]"#;
        assert_eq!(encode(&shapes).unwrap(), expected.as_bytes());
    }

    proptest! {
        #[test]
        fn a_text_is_spelt_as_by_serde_json_and_found_so(text in r#"[ -~]{0,40}|["\\a]{0,8}|\PC{0,16}|[\x00-\x7f]{0,16}|[a-z"\\\n]{0,80}"#) {
            let expected = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(&encode(&text).unwrap(), &expected);
            prop_assert!(canonical::is_form_of(&expected, &text));
            for cut in 0..expected.len() {
                prop_assert!(!canonical::is_form_of(&expected[..cut], &text));
                let mut other = expected.clone();
                other[cut] ^= 1;
                prop_assert!(!canonical::is_form_of(&other, &text));
            }
        }

        #[test]
        fn bytes_have_one_text_whatever_their_length(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
            let expected = format!("\"{}\"", base64url(&bytes));
            let bytes = Bytes(bytes);
            prop_assert_eq!(encode(&bytes).unwrap(), expected.as_bytes());
            prop_assert!(canonical::is_form_of(expected.as_bytes(), &bytes));
            prop_assert_eq!(serde_json::to_string(&bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        assert!(encode(&0.5).is_err());
        assert!(encode(&(1_u64 << 53)).is_err());
        assert!(encode(&-(1_i64 << 53)).is_err());
        assert!(encode(&json!({ "\u{e9}": 1 })).is_err());
        assert!(encode(&std::collections::BTreeMap::from([(1, 1)])).is_err());
    }

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
