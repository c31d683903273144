//! The parser's tree, without types: every node with its name and the fields that are set.
//!
//! The parser's own iterator passes over kinds of nodes, and what it passes over could hide a call.
//! Its types can be serialized, and serialization leaves nothing out, so the tree is made that way.

use serde::ser::{self, Impossible, Serialize};

/// A field's value.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing: absent, empty, zero or false.
    Empty,
    /// A string that is not empty.
    Text(String),
    /// A number or truth that is not zero.
    Number(i64),
    /// A list that is not empty.
    List(Vec<Value>),
    /// A node.
    Node(Tree),
}

/// A node of the parser's tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Its type, as PostgreSQL names it: `SelectStmt`.
    pub(crate) name: &'static str,
    /// Fields that are not empty, in the grammar's order.
    pub(crate) fields: Vec<(&'static str, Value)>,
}

impl Tree {
    /// A field, or that it is empty.
    pub(crate) fn get(&self, field: &str) -> &Value {
        let found = self.fields.iter().find(|(name, _)| *name == field);
        found.map_or(&Value::Empty, |(_, value)| value)
    }

    /// Whether a field is set.
    pub(crate) fn has(&self, field: &str) -> bool {
        !matches!(self.get(field), Value::Empty)
    }

    /// A field of text, or the empty text.
    pub(crate) fn text(&self, field: &str) -> &str {
        match self.get(field) {
            Value::Text(text) => text,
            _ => "",
        }
    }

    /// A field that is a number or an enumeration, or zero.
    pub(crate) fn number(&self, field: &str) -> i64 {
        match self.get(field) {
            Value::Number(number) => *number,
            _ => 0,
        }
    }

    /// A field that is a node.
    pub(crate) fn node(&self, field: &str) -> Option<&Tree> {
        match self.get(field) {
            Value::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The nodes of a field that is a list.
    pub(crate) fn nodes(&self, field: &str) -> impl Iterator<Item = &Tree> {
        let list = match self.get(field) {
            Value::List(list) => list.as_slice(),
            _ => &[],
        };
        list.iter().filter_map(|value| match value {
            Value::Node(node) => Some(node),
            _ => None,
        })
    }
}

/// The tree of what the parser made.
pub(crate) fn tree<T: Serialize>(parsed: &T) -> Result<Value, Strange> {
    parsed.serialize(Builder)
}

/// Something that the parser's types do not have today.
#[derive(Debug, thiserror::Error)]
#[error("a parse tree of a form that is not known")]
pub(crate) struct Strange;

impl ser::Error for Strange {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Builder;

/// What is between the brackets of a list or a node.
struct Parts<T> {
    name: &'static str,
    parts: Vec<T>,
}

impl ser::SerializeSeq for Parts<Value> {
    type Ok = Value;
    type Error = Strange;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Strange> {
        self.parts.push(value.serialize(Builder)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Strange> {
        let empty = self.parts.is_empty();
        Ok(if empty {
            Value::Empty
        } else {
            Value::List(self.parts)
        })
    }
}

impl ser::SerializeStruct for Parts<(&'static str, Value)> {
    type Ok = Value;
    type Error = Strange;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Strange> {
        match value.serialize(Builder)? {
            Value::Empty => {}
            value => self.parts.push((key, value)),
        }
        Ok(())
    }

    /// `Node` is only what holds another.
    fn end(mut self) -> Result<Value, Strange> {
        if self.name == "Node" {
            return Ok(self.parts.pop().map_or(Value::Empty, |(_, inner)| inner));
        }
        Ok(Value::Node(Tree {
            name: self.name,
            fields: self.parts,
        }))
    }
}

fn number(number: i64) -> Result<Value, Strange> {
    Ok(if number == 0 {
        Value::Empty
    } else {
        Value::Number(number)
    })
}

/// Kinds of values that the parser's types do not have.
macro_rules! strange {
    ($($name:ident($($kind:ty),*);)*) => {
        $(fn $name(self, $(_: $kind),*) -> Result<Value, Strange> {
            Err(Strange)
        })*
    };
}

impl ser::Serializer for Builder {
    type Ok = Value;
    type Error = Strange;
    type SerializeSeq = Parts<Value>;
    type SerializeTuple = Impossible<Value, Strange>;
    type SerializeTupleStruct = Impossible<Value, Strange>;
    type SerializeTupleVariant = Impossible<Value, Strange>;
    type SerializeMap = Impossible<Value, Strange>;
    type SerializeStruct = Parts<(&'static str, Value)>;
    type SerializeStructVariant = Impossible<Value, Strange>;

    fn serialize_bool(self, value: bool) -> Result<Value, Strange> {
        number(i64::from(value))
    }
    fn serialize_i32(self, value: i32) -> Result<Value, Strange> {
        number(i64::from(value))
    }
    fn serialize_i64(self, value: i64) -> Result<Value, Strange> {
        number(value)
    }
    fn serialize_u32(self, value: u32) -> Result<Value, Strange> {
        number(i64::from(value))
    }
    /// Sets of columns and hashes of queries. Nothing looks at them.
    fn serialize_u64(self, _: u64) -> Result<Value, Strange> {
        Ok(Value::Empty)
    }
    /// Estimates of a plan. Nothing looks at them.
    fn serialize_f64(self, _: f64) -> Result<Value, Strange> {
        Ok(Value::Empty)
    }
    fn serialize_str(self, value: &str) -> Result<Value, Strange> {
        Ok(if value.is_empty() {
            Value::Empty
        } else {
            Value::Text(value.to_owned())
        })
    }
    fn serialize_none(self) -> Result<Value, Strange> {
        Ok(Value::Empty)
    }
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Value, Strange> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Strange> {
        value.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Strange> {
        let parts = Vec::with_capacity(len.unwrap_or(0));
        Ok(Parts { name: "", parts })
    }
    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, Strange> {
        let parts = Vec::new();
        Ok(Parts { name, parts })
    }

    strange! {
        serialize_i8(i8); serialize_i16(i16); serialize_u8(u8); serialize_u16(u16); serialize_f32(f32);
        serialize_char(char); serialize_bytes(&[u8]); serialize_unit(); serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }
    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<Value, Strange> {
        Err(Strange)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Strange> {
        Err(Strange)
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Strange> {
        Err(Strange)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Strange> {
        Err(Strange)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Strange> {
        Err(Strange)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Strange> {
        Err(Strange)
    }
}
