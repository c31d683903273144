//! Resources as attributes, and the operations of a PATCH on them (RFC 7644, 3.5.2). Names of attributes are
//! compared without case; Entra's spellings are understood.

use ascribe_wire::scim::{Filter, Path};
use serde_json::{Map, Value};

use super::Fault;

pub(super) type Body = Map<String, Value>;

/// Most operations of one PATCH.
const MAX_OPERATIONS: usize = 1000;
/// What nobody writes: it follows from the rest, or says what the resource is.
const READ_ONLY: [&str; 2] = ["meta", "groups"];
/// What a directory may send and is not kept.
const NOT_KEPT: [&str; 4] = ["id", "schemas", "meta", "password"];
/// Names as they are written in answers.
const KNOWN: [&str; 5] = ["userName", "externalId", "displayName", "active", "members"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Replace,
}

/// The attribute as it is kept: as it is there already, or as schemas write it.
fn name_in(body: &Body, name: &str) -> String {
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    let there = body.keys().find(|known| same(known)).cloned();
    let known = || {
        KNOWN
            .iter()
            .find(|known| same(known))
            .map(|k| (*k).to_owned())
    };
    there.or_else(known).unwrap_or_else(|| name.to_owned())
}

pub(super) fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Value> {
    let mut all = body.iter();
    all.find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// What a POST or PUT sends, as it is kept. `id` is the resource's, where it has one.
pub(super) fn received(sent: &Body, id: Option<&str>) -> Result<Body, Fault> {
    let mut body = Body::new();
    for (name, value) in sent {
        check_id(name, value, id)?;
        // On PUT, what is only read is ignored (RFC 7644, 3.5.1).
        let ignored = NOT_KEPT
            .iter()
            .chain(&READ_ONLY)
            .any(|n| n.eq_ignore_ascii_case(name));
        if ignored || value.is_null() {
            continue;
        }
        if body.insert(name_in(&body, name), value.clone()).is_some() {
            return Err(Fault::syntax("an attribute is there twice"));
        }
    }
    Ok(body)
}

fn check_id(name: &str, value: &Value, id: Option<&str>) -> Result<(), Fault> {
    let other = id.is_some_and(|id| value.as_str() != Some(id));
    if name.eq_ignore_ascii_case("id") && other {
        return Err(Fault::mutability("a resource keeps its `id`"));
    }
    Ok(())
}

/// The resource after a PATCH.
pub(super) fn patched(body: &Body, patch: &Body, id: &str) -> Result<Body, Fault> {
    let operations = attribute(patch, "Operations").and_then(Value::as_array);
    let operations = operations.ok_or_else(|| Fault::syntax("a PATCH has `Operations`"))?;
    if operations.is_empty() || operations.len() > MAX_OPERATIONS {
        return Err(Fault::syntax("a PATCH has 1 to 1000 operations"));
    }
    let mut body = body.clone();
    for operation in operations {
        let operation = operation
            .as_object()
            .ok_or_else(|| Fault::syntax("an operation is an object"))?;
        apply(&mut body, operation, id)?;
    }
    body.retain(|_, value| !value.is_null());
    Ok(body)
}

fn apply(body: &mut Body, operation: &Body, id: &str) -> Result<(), Fault> {
    let op = attribute(operation, "op")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let op = match op.to_ascii_lowercase().as_str() {
        "add" => Op::Add,
        "remove" => Op::Remove,
        "replace" => Op::Replace,
        _ => return Err(Fault::syntax("`op` is add, remove or replace")),
    };
    let value = attribute(operation, "value");
    match attribute(operation, "path") {
        Some(Value::String(path)) => set(body, op, path, value, id),
        Some(_) => Err(Fault::path()),
        None if op == Op::Remove => Err(Fault::new(400, "noTarget", "a removal names its `path`")),
        None => {
            let all = value.and_then(Value::as_object);
            let all = all.ok_or_else(|| Fault::syntax("without `path`, the value is an object"))?;
            all.iter()
                .try_for_each(|(path, value)| set(body, op, path, Some(value), id))
        }
    }
}

fn set(body: &mut Body, op: Op, path: &str, value: Option<&Value>, id: &str) -> Result<(), Fault> {
    let path = Path::parse(path)
        .or_else(|_| whole(path))
        .map_err(|_| Fault::path())?;
    let is = |name: &&str| path.schema.is_none() && name.eq_ignore_ascii_case(&path.attribute);
    if is(&"id") {
        let value = value.filter(|_| op != Op::Remove).unwrap_or(&Value::Null);
        return check_id("id", value, Some(id));
    }
    if READ_ONLY.iter().any(&is) {
        return Err(Fault::mutability("this attribute is only read"));
    }
    if NOT_KEPT.iter().any(is) {
        return Ok(());
    }
    if op != Op::Remove && value.is_none() {
        return Err(Fault::syntax("the operation has no `value`"));
    }
    let holder = match &path.schema {
        None => body,
        Some(schema) => object_in(body, schema)?,
    };
    let name = name_in(holder, &path.attribute);
    match (&path.filter, &path.sub) {
        (None, None) => change(holder, op, &name, value),
        (None, Some(sub)) => {
            if op == Op::Remove && !holder.contains_key(&name) {
                return Ok(());
            }
            let inner = object_in(holder, &name)?;
            let sub = name_in(inner, sub);
            change(inner, op, &sub, value)
        }
        (Some(filter), sub) => change_some(holder, op, &name, (filter, sub.as_deref()), value),
    }
}

/// An extension's own name as a path: all of it.
fn whole(path: &str) -> Result<Path, ascribe_wire::scim::ScimError> {
    let is_urn = path
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("urn:"));
    let plain = path.len() <= 256 && !path.contains(['[', ']', '"', ' ']);
    if !(is_urn && plain) {
        return Err(ascribe_wire::scim::ScimError);
    }
    Ok(Path {
        schema: None,
        attribute: path.to_owned(),
        filter: None,
        sub: None,
    })
}

fn object_in<'a>(body: &'a mut Body, name: &str) -> Result<&'a mut Body, Fault> {
    let name = name_in(body, name);
    let value = body
        .entry(name)
        .or_insert_with(|| Value::Object(Body::new()));
    value
        .as_object_mut()
        .ok_or_else(|| Fault::value("the attribute has no parts"))
}

fn change(body: &mut Body, op: Op, name: &str, value: Option<&Value>) -> Result<(), Fault> {
    let value = value.cloned().unwrap_or_default();
    match (op, body.get_mut(name)) {
        // Entra names the values to remove beside the path.
        (Op::Remove, Some(Value::Array(old))) if value.is_array() || value.is_object() => {
            let gone = listed(value);
            old.retain(|kept| !gone.iter().any(|gone| is_same(kept, gone)));
        }
        (Op::Remove, _) => {
            body.remove(name);
        }
        (Op::Add, Some(Value::Array(old))) => {
            for new in listed(value) {
                if !old.iter().any(|known| is_same(known, &new)) {
                    old.push(new);
                }
            }
        }
        (Op::Add | Op::Replace, Some(Value::Object(old))) if value.is_object() => {
            for (part, value) in value.as_object().into_iter().flatten() {
                old.insert(name_in(old, part), value.clone());
            }
        }
        (Op::Add | Op::Replace, _) => {
            body.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        one => vec![one],
    }
}

/// Values of an attribute are the same when their `value` is.
fn is_same(one: &Value, other: &Value) -> bool {
    let named = |value: &Value| {
        value
            .as_object()
            .and_then(|v| attribute(v, "value"))
            .cloned()
    };
    match (named(one), named(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Changes those values that a filter finds; where it finds none, they are made.
fn change_some(
    body: &mut Body,
    op: Op,
    name: &str,
    (filter, sub): (&Filter, Option<&str>),
    value: Option<&Value>,
) -> Result<(), Fault> {
    let fits = |known: &Value| {
        let part = known
            .as_object()
            .and_then(|known| attribute(known, &filter.attribute));
        match part {
            Some(Value::String(text)) => *text == filter.value,
            Some(Value::Bool(flag)) => flag.to_string().eq_ignore_ascii_case(&filter.value),
            _ => false,
        }
    };
    if op == Op::Remove && !body.contains_key(name) {
        return Ok(());
    }
    let all = body.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    let all = all
        .as_array_mut()
        .ok_or_else(|| Fault::value("the attribute has one value only"))?;
    if op == Op::Remove && sub.is_none() {
        all.retain(|known| !fits(known));
        return Ok(());
    }
    if op != Op::Remove && !all.iter().any(fits) {
        let mut new = Body::new();
        new.insert(
            filter.attribute.clone(),
            Value::String(filter.value.clone()),
        );
        all.push(Value::Object(new));
    }
    for known in all.iter_mut().filter(|known| fits(known)) {
        let Some(parts) = known.as_object_mut() else {
            continue;
        };
        match sub {
            Some(sub) => {
                let sub = name_in(parts, sub);
                change(parts, op, &sub, value)?;
            }
            None => {
                let new = value.and_then(Value::as_object);
                let new = new.ok_or_else(|| Fault::value("the value is an object"))?;
                parts.extend(new.clone());
            }
        }
    }
    Ok(())
}

/// `true` and `false`, also as Entra's texts.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
