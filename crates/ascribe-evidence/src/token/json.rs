//! JSON of strangers: one value a name, bounded depth and number of members, nothing after the end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use ascribe_core::law::Denied;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting; the outermost object is the first level.
const MAX_DEPTH: u8 = 8;

/// An object's members.
pub(crate) type Object = BTreeMap<String, Json>;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number with a fraction or an exponent, or one that is no `i64`.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

impl Json {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The items, if it is a list.
    pub(crate) fn list(&self) -> Option<&[Json]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
    /// The members, if it is an object.
    pub(crate) fn object(&self) -> Option<&Object> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
}

/// Reads one object with at most so many members, those of all its objects counted together. `what` says
/// whose it is.
pub(crate) fn object(bytes: &[u8], members: usize, what: &str) -> Result<Object, Denied> {
    let limits = Limits {
        left: Cell::new(members),
        broken: Cell::new(None),
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Reader {
        limits: &limits,
        depth: MAX_DEPTH,
    }
    .deserialize(&mut reader);
    let problem = match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(Json::Object(members)) => return Ok(members),
        Ok(_) => "not an object".to_owned(),
        Err(e) => e.to_string(),
    };
    let code = limits.broken.get().unwrap_or("token-json");
    Err(Denied::new(code, format!("{what}: {problem}")))
}

struct Limits {
    left: Cell<usize>,
    /// The code of the limit that was broken; the message is the parser's error.
    broken: Cell<Option<&'static str>>,
}

impl Limits {
    fn broken<E: Error>(&self, code: &'static str, message: &str) -> E {
        self.broken.set(Some(code));
        E::custom(message)
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    limits: &'a Limits,
    depth: u8,
}

impl Reader<'_> {
    /// For what is inside.
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| {
            self.limits
                .broken("token-depth", "nested deeper than 8 levels")
        })?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Json, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        // What does not fit is refused wherever a number is read: as a float it is no whole number.
        Ok(i64::try_from(value).map_or(Json::Number(f64::INFINITY), Json::Integer))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let inside = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let inside = self.deeper()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            let left = self.limits.left.get().checked_sub(1).ok_or_else(|| {
                let message = "more members than any provider writes";
                self.limits.broken::<A::Error>("token-claims", message)
            })?;
            self.limits.left.set(left);
            if object.contains_key(&name) {
                let message = format!("`{}` is there twice", name.escape_debug());
                return Err(self.limits.broken("token-duplicate", &message));
            }
            let value = members.next_value_seed(inside)?;
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}
