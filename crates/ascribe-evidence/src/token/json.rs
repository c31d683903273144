//! JSON of strangers: one value a name, bounded depth and number of members, nothing after the end.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use ascribe_core::law::Denied;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deepest nesting; the outermost object is the first level.
const MAX_DEPTH: u8 = 8;

/// An object's members. What needs no escapes is not copied from the bytes that were read.
pub(crate) type Object<'a> = BTreeMap<Cow<'a, str>, Json<'a>>;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number with a fraction or an exponent, or one that is no `i64`.
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
}

impl<'a> Json<'a> {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The items, if it is a list.
    pub(crate) fn list(&self) -> Option<&[Json<'a>]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
    /// The members, if it is an object.
    pub(crate) fn object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The same with all texts of its own.
    fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Integer(value) => Json::Integer(value),
            Self::Number(value) => Json::Number(value),
            Self::Text(text) => Json::Text(text.into_owned().into()),
            Self::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(members) => Json::Object(owned(members)),
        }
    }
}

/// Members that outlive the bytes that were read.
pub(crate) fn owned(members: Object<'_>) -> Object<'static> {
    let owned = |(name, value): (Cow<'_, str>, Json<'_>)| {
        (Cow::Owned(name.into_owned()), value.into_owned())
    };
    members.into_iter().map(owned).collect()
}

/// Reads one object with at most so many members, those of all its objects counted together. `what` says
/// whose it is.
pub(crate) fn object<'a>(
    bytes: &'a [u8],
    members: usize,
    what: &str,
) -> Result<Object<'a>, Denied> {
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

/// A name.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Cow<'de, str>, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
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
    type Value = Json<'de>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Json<'de>, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        // What does not fit is refused wherever a number is read: as a float it is no whole number.
        Ok(i64::try_from(value).map_or(Json::Number(f64::INFINITY), Json::Integer))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let inside = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json<'de>, A::Error> {
        let inside = self.deeper()?;
        let mut object = Object::new();
        while let Some(name) = members.next_key_seed(Text)? {
            let left = self.limits.left.get().checked_sub(1).ok_or_else(|| {
                let message = "more members than any provider writes";
                self.limits.broken::<A::Error>("token-claims", message)
            })?;
            self.limits.left.set(left);
            match object.entry(name) {
                Entry::Vacant(place) => place.insert(members.next_value_seed(inside)?),
                Entry::Occupied(known) => {
                    let message = format!("`{}` is there twice", known.key().escape_debug());
                    return Err(self.limits.broken("token-duplicate", &message));
                }
            };
        }
        Ok(Json::Object(object))
    }
}
