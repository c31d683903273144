//! What SCIM clients write in filters and paths (RFC 7644, 3.4.2.2 and 3.5.2), as far as ascribe understands
//! it. Anything else is refused, never guessed at.

/// Longest filter or path, in bytes.
pub const MAX_TEXT: usize = 1024;

/// `ATTRIBUTE eq "VALUE"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The attribute, without its core schema.
    pub attribute: String,
    /// The value, unescaped.
    pub value: String,
}

/// What an operation of a PATCH is about: `ATTRIBUTE`, `ATTRIBUTE.SUB`, `ATTRIBUTE[SUB eq "VALUE"]` or
/// `ATTRIBUTE[SUB eq "VALUE"].SUB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The extension that the attribute belongs to.
    pub schema: Option<String>,
    /// The attribute.
    pub attribute: String,
    /// Which of its values.
    pub filter: Option<Filter>,
    /// Which part of them.
    pub sub: Option<String>,
}

/// This text is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only `ATTRIBUTE eq \"VALUE\"` is understood, and paths made of it")]
pub struct ScimError;

/// Schemas whose attributes need no prefix.
const CORE: [&str; 2] = [
    "urn:ietf:params:scim:schemas:core:2.0:User",
    "urn:ietf:params:scim:schemas:core:2.0:Group",
];

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'$')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn is_schema(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'.');
    text.len() <= 256 && text.bytes().all(fits)
}

/// The schema in front of an attribute, where there is one: it ends in a resource's name.
fn without_schema(text: &str) -> Result<(Option<&str>, &str), ScimError> {
    let is_urn = text
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("urn:"));
    if !is_urn {
        return Ok((None, text));
    }
    let end = [":User:", ":Group:"].iter().find_map(|mark| {
        let at = text.find(mark)?;
        Some(at + mark.len() - 1)
    });
    let end = end.ok_or(ScimError)?;
    let schema = text.get(..end).filter(|schema| is_schema(schema));
    let schema = schema.ok_or(ScimError)?;
    let rest = text.get(end + 1..).ok_or(ScimError)?;
    let core = CORE.iter().any(|core| core.eq_ignore_ascii_case(schema));
    Ok(((!core).then_some(schema), rest))
}

/// The quoted value at the beginning, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), ScimError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next().and_then(Result::ok).ok_or(ScimError)?;
    let rest = text.get(values.byte_offset()..).ok_or(ScimError)?;
    Ok((value, rest))
}

/// A comparison at the beginning, and what follows it.
fn comparison(text: &str) -> Result<(Filter, &str), ScimError> {
    let (attribute, rest) = text.split_once(' ').ok_or(ScimError)?;
    let (operator, rest) = rest
        .trim_start_matches(' ')
        .split_once(' ')
        .ok_or(ScimError)?;
    let (schema, attribute) = without_schema(attribute)?;
    let plain = attribute.split('.').all(is_name) && schema.is_none();
    if !plain || !operator.eq_ignore_ascii_case("eq") {
        return Err(ScimError);
    }
    let (value, rest) = quoted(rest.trim_start_matches(' '))?;
    let attribute = attribute.to_owned();
    Ok((Filter { attribute, value }, rest))
}

impl Filter {
    /// Reads a list's filter.
    ///
    /// # Errors
    /// When it is anything else than one comparison.
    pub fn parse(text: &str) -> Result<Self, ScimError> {
        let text = Some(text)
            .filter(|text| text.len() <= MAX_TEXT)
            .ok_or(ScimError)?;
        match comparison(text.trim_matches(' '))? {
            (filter, "") => Ok(filter),
            _ => Err(ScimError),
        }
    }
}

impl Path {
    /// Reads an operation's path.
    ///
    /// # Errors
    /// When it is none of the four forms.
    pub fn parse(text: &str) -> Result<Self, ScimError> {
        let text = Some(text)
            .filter(|text| text.len() <= MAX_TEXT)
            .ok_or(ScimError)?;
        let (schema, text) = without_schema(text)?;
        let end = text.find(['[', '.']).unwrap_or(text.len());
        let (attribute, rest) = text.split_at_checked(end).ok_or(ScimError)?;
        let (filter, rest) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (filter, rest) = comparison(inside.trim_start_matches(' '))?;
                let rest = rest.trim_start_matches(' ').strip_prefix(']');
                (Some(filter), rest.ok_or(ScimError)?)
            }
            None => (None, rest),
        };
        let sub = match rest.strip_prefix('.') {
            Some(sub) => Some(sub.to_owned()),
            None if rest.is_empty() => None,
            None => return Err(ScimError),
        };
        if !is_name(attribute) || !sub.as_deref().is_none_or(is_name) {
            return Err(ScimError);
        }
        Ok(Self {
            schema: schema.map(str::to_owned),
            attribute: attribute.to_owned(),
            filter,
            sub,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_one_comparison() {
        for (text, attribute, value) in [
            (
                "userName eq \"ada@example.org\"",
                "userName",
                "ada@example.org",
            ),
            ("USERNAME EQ \"a\"", "USERNAME", "a"),
            (" externalId  eq  \"a b\" ", "externalId", "a b"),
            (
                "userName eq \"a\\\" or 1 eq \\\"1\"",
                "userName",
                "a\" or 1 eq \"1",
            ),
            (
                "urn:ietf:params:scim:schemas:core:2.0:User:userName eq \"\u{e9}\"",
                "userName",
                "\u{e9}",
            ),
        ] {
            let found = Filter::parse(text).unwrap();
            assert_eq!((&*found.attribute, &*found.value), (attribute, value));
        }
        for bad in [
            "",
            "userName",
            "userName eq",
            "userName eq a",
            "userName eq 'a'",
            "userName eq \"a",
            "userName co \"a\"",
            "userName eq \"a\" or active eq true",
            "userName eq \"a\" \"b\"",
            "not (userName eq \"a\")",
            "user name eq \"a\"",
            "userName eq [\"a\"]",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        let long = format!("userName eq \"{}\"", "a".repeat(MAX_TEXT));
        assert!(Filter::parse(&long).is_err());
    }

    #[test]
    fn paths_have_four_forms() {
        let path = |text: &str| Path::parse(text).unwrap();
        assert_eq!(path("active").attribute, "active");
        assert_eq!(path("name.givenName").sub.as_deref(), Some("givenName"));
        let member = path("members[value eq \"r-1\"]");
        assert_eq!(member.filter.unwrap().value, "r-1");
        let mail = path("emails[type eq \"work\"].value");
        assert_eq!(
            (mail.filter.unwrap().value, mail.sub.unwrap()),
            ("work".into(), "value".into())
        );
        let extension = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
        let department = path(&format!("{extension}:department"));
        assert_eq!(department.schema.as_deref(), Some(extension));
        assert_eq!(path(&format!("{}:active", CORE[0])).schema, None);
        for bad in [
            "",
            ".",
            "a.",
            "a..b",
            "a.b.c",
            "a[",
            "a[]",
            "a[b eq \"c\"",
            "a[b eq \"c\"]x",
            "a[b eq \"c\"].",
            "a]b",
            "a[b eq \"]\"]]",
            "urn:x",
            "a b",
            "members[value eq \"1\" or value eq \"2\"]",
        ] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(path("a[b eq \"]\"]").filter.unwrap().value, "]");
    }
}
