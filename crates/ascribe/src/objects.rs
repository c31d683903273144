//! What statements name, told from their opened texts. Where a grant bounds objects they are on record. Elsewhere they
//! are part of what somebody typed, and sealed with it: whoever has the text takes it apart by the grammar that the
//! gateway had.

use ascribe_core::attribution::{ActionRecord, SqlRecord};
use ascribe_core::database::{EMPTY, UNPARSED, object_name, object_parts};
use ascribe_core::encoding::from_base64url;
use ascribe_core::text::clean;
use ascribe_gateway::{functions, relations};
use ascribe_sql::{Answer, Class, Classifier, Encoding, Reading, Statement};

use crate::cmd::remark;
use crate::cmd::serve::runtime;
use crate::exit::{Attempt as _, Done};

/// What has a statement's text as its command.
const WITH_TEXT: [&str; 3] = ["pg.query", "pg.prepare", "pg.execute"];
/// A text beyond this many bytes counts as large.
const LARGE: usize = 64 * 1024;
/// So many bytes of large texts are taken apart for one list, so that reading it ends.
const MOST_LARGE: usize = 8 << 20;
/// Stands for objects that a statement names and that cannot be told.
const UNTOLD: &str = "*";

/// Tells of each statement what its text names, as far as its text is open.
pub(crate) fn tell(records: &mut [ActionRecord]) -> Done {
    let texts = records.iter_mut().filter_map(text_of);
    let mut texts: Vec<_> = texts.collect();
    if texts.is_empty() {
        return Ok(());
    }
    let classifier = Classifier::new(1).attempt("read the statements")?;
    let mut left = MOST_LARGE;
    runtime()?.block_on(async {
        for (sql, text) in &mut texts {
            if sql.classes.iter().any(|class| class == UNPARSED) {
                sql.unread = Some("it could not be taken apart when it was recorded".to_owned());
                continue;
            }
            if text.len() > LARGE {
                if text.len() > left {
                    let why =
                        "so many large texts are not read at once: `ascribe show` with its id does";
                    sql.unread = Some(why.to_owned());
                    continue;
                }
                left -= text.len();
            }
            let (reading, certain) = (reading_of(sql, text), text.is_ascii());
            let found = classifier.classify(std::mem::take(text).into(), reading);
            read_from(sql, found.await, certain);
        }
    });
    Ok(())
}

/// A statement with its text, where that is open and not empty.
fn text_of(record: &mut ActionRecord) -> Option<(&mut SqlRecord, Vec<u8>)> {
    if !WITH_TEXT.contains(&record.what.kind.as_str()) {
        return None;
    }
    let text = record
        .what
        .command_b64
        .as_deref()
        .and_then(from_base64url)?;
    let sql = record.what.sql.as_mut()?;
    let empty = sql.classes.iter().all(|class| class == EMPTY);
    (!empty).then_some((sql, text))
}

/// How the gateway read it, as far as that makes a difference: what it took apart has no backslash that could have been
/// read in two ways, and bytes beyond ASCII only of an encoding that hides no quote. Which letters these are is not
/// on record: what is UTF-8 by its form may be two letters to the server where one is shown.
fn reading_of(sql: &SqlRecord, text: &[u8]) -> Reading {
    let replication = Class::Replication.as_str();
    Reading {
        encoding: match std::str::from_utf8(text) {
            Ok(_) => Encoding::Utf8,
            Err(_) => Encoding::AsciiSafe,
        },
        standard_conforming_strings: true,
        replication: sql.classes.iter().any(|class| class == replication),
    }
}

/// Takes over what the text names, if it reads as it did when it was recorded; `certain` where its letters are.
fn read_from(sql: &mut SqlRecord, found: Answer, certain: bool) {
    let by_name = sql.classes == [Class::Execute.as_str()];
    let one = match &found {
        Ok(list) => match &list[..] {
            [one] if is_recorded(&sql.classes, one) => Ok(one),
            _ => Err("it reads otherwise now than when it was recorded".to_owned()),
        },
        Err(why) => Err(clean(&why.to_string(), 200)),
    };
    match one {
        Ok(one) => {
            sql.functions = functions(one);
            if sql.objects.is_empty() {
                sql.objects = relations(one);
                if !certain && !sql.objects.iter().any(|name| name == UNTOLD) {
                    sql.objects.push(UNTOLD.to_owned());
                }
                sql.objects_from = Some("text".to_owned());
            }
        }
        Err(_) if by_name => {
            let why = "it was run by a name, and its text is on record where that was prepared";
            sql.unread = Some(why.to_owned());
        }
        Err(why) => sql.unread = Some(why),
    }
}

/// Is it of the recorded classes? What SQL may have put something else in the place of is recorded as `execute` besides.
fn is_recorded(classes: &[String], one: &Statement) -> bool {
    let now = one.classes.iter().map(|class| class.as_str());
    let besides = [Class::Execute.as_str()];
    let recorded = || classes.iter().map(String::as_str);
    recorded().eq(now.clone()) || recorded().eq(now.chain(besides))
}

/// An object that is asked for: `SCHEMA.NAME`, or all of a schema. As in SQL, a name without quotes is in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    schema: String,
    name: Option<String>,
    /// It was written with capitals and without quotes, which may have been meant otherwise.
    folded: bool,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (schema, name) = object_parts(text).ok_or("objects are SCHEMA.NAME or SCHEMA.*")?;
        let capitals = |part: &str| !part.starts_with('"') && part != part.to_ascii_lowercase();
        Ok(Self {
            schema: part(schema),
            name: (name != UNTOLD).then(|| part(name)),
            folded: capitals(schema) || capitals(name),
        })
    }
}

/// A part of a name as it is recorded: folded unless it is quoted, with quotes only where it needs them.
fn part(written: &str) -> String {
    let quoted = written.strip_prefix('"');
    match quoted.and_then(|rest| rest.strip_suffix('"')) {
        Some(within) => object_name(None, &within.replace("\"\"", "\"")),
        None => written.to_ascii_lowercase(),
    }
}

impl Wanted {
    /// May this be it? A name that is written without its schema may be in any.
    fn is(&self, named: &str) -> bool {
        match (object_parts(named), &self.name) {
            (Some((schema, name)), Some(wanted)) => schema == self.schema && name == wanted,
            (Some((schema, _)), None) => schema == self.schema,
            (None, Some(wanted)) => named == wanted,
            (None, None) => false,
        }
    }
}

/// Keeps the statements that name this, and says of how many that is not known.
pub(crate) fn keep(records: &mut Vec<ActionRecord>, wanted: &Wanted) {
    let mut untold = 0_usize;
    records.retain(|record| {
        let Some(sql) = &record.what.sql else {
            return false;
        };
        let mut names = sql.objects.iter().chain(&sql.functions);
        let fits = names.any(|name| wanted.is(name));
        let open = record.what.command.is_some() && sql.unread.is_none();
        let all = open && !sql.objects.iter().any(|name| name == UNTOLD);
        untold += usize::from(!fits && !all);
        fits
    });
    if wanted.folded {
        let name = wanted.name.as_deref().unwrap_or(UNTOLD);
        let name = clean(&format!("{}.{name}", wanted.schema), 200);
        remark(&format!(
            "looking for `{name}`: names are in lower case unless they are quoted, as in --object 'public.\"Orders\"'"
        ));
    }
    if untold > 0 {
        remark(&format!(
            "of {untold} more it is not known what they name, in full or at all: without `--object` they are listed"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: &[&str], text: &str) -> SqlRecord {
        let mut sql = SqlRecord {
            classes: classes.iter().map(ToString::to_string).collect(),
            flags: Vec::new(),
            objects: Vec::new(),
            objects_from: None,
            functions: Vec::new(),
            unread: None,
            values: None,
            step: None,
            port: None,
        };
        let found = ascribe_sql::read(text.as_bytes(), reading_of(&sql, text.as_bytes()));
        read_from(&mut sql, found.map(Into::into), text.is_ascii());
        sql
    }

    /// The same letters are others to a server whose client said LATIN1.
    #[test]
    fn what_is_not_ascii_is_approximate() {
        assert_eq!(
            of(&["select"], "select 1 from größe").objects,
            ["größe", "*"]
        );
        let literal = of(&["select"], "select 'é' from t");
        assert_eq!(
            (literal.objects, literal.unread),
            (vec!["t".to_owned(), "*".to_owned()], None)
        );
        let mut sql = SqlRecord {
            objects: Vec::new(),
            objects_from: None,
            ..of(&["select"], "select 1")
        };
        let text = b"select 1 from gr\xf6\xdfe";
        let found = ascribe_sql::read(text, reading_of(&sql, text));
        read_from(&mut sql, found.map(Into::into), text.is_ascii());
        assert_eq!(sql.objects, ["größe", "*"]);
    }

    #[test]
    fn a_text_tells_what_it_names() {
        let sql = of(
            &["select", "insert"],
            "insert into public.orders select lower(a) from audit.\"a.b\", t",
        );
        assert_eq!(sql.unread, None);
        assert_eq!(sql.objects, ["audit.\"a.b\"", "public.orders", "t"]);
        assert_eq!(sql.objects_from.as_deref(), Some("text"));
        assert_eq!(sql.functions, ["lower"]);
        // What SQL may have replaced is recorded as `execute` besides.
        assert_eq!(of(&["select", "execute"], "select 1 from t").objects, ["t"]);
    }

    #[test]
    fn what_reads_otherwise_now_names_nothing() {
        for (classes, text, why) in [
            (&["select"][..], "delete from t", "otherwise"),
            (&["select"], "select 1; select 2", "otherwise"),
            (&["select"], "selec", "syntax error"),
            (&["execute"], "s1", "by a name"),
        ] {
            let sql = of(classes, text);
            assert_eq!((sql.objects.len(), sql.objects_from), (0, None), "{text}");
            assert!(sql.unread.unwrap().contains(why), "{text}");
        }
    }

    #[test]
    fn what_is_on_record_stays_as_it_is() {
        let mut sql = SqlRecord {
            objects: vec!["public.a".to_owned()],
            objects_from: Some("record".to_owned()),
            ..of(&["select"], "select 1")
        };
        let text = b"select f() from public.a, b";
        let found = ascribe_sql::read(text, reading_of(&sql, text));
        read_from(&mut sql, found.map(Into::into), true);
        assert_eq!(sql.objects, ["public.a"]);
        assert_eq!(sql.objects_from.as_deref(), Some("record"));
        assert_eq!(sql.functions, ["f"]);
    }

    #[test]
    fn a_name_without_its_schema_may_be_in_any() {
        let one: Wanted = "public.orders".parse().unwrap();
        let all: Wanted = "public.*".parse().unwrap();
        for (named, is_one, is_all) in [
            ("public.orders", true, true),
            ("orders", true, false),
            ("audit.orders", false, false),
            ("public.\"*\"", false, true),
            ("*", false, false),
        ] {
            assert_eq!((one.is(named), all.is(named)), (is_one, is_all), "{named}");
        }
        for (written, same) in [
            ("Public.ORDERS", "public.orders"),
            ("public.\"orders\"", "public.orders"),
            ("\"public\".*", "public.*"),
        ] {
            let (written, same): (Wanted, Wanted) =
                (written.parse().unwrap(), same.parse().unwrap());
            assert_eq!((&written.schema, &written.name), (&same.schema, &same.name));
        }
        let quoted: Wanted = "public.\"Orders\"".parse().unwrap();
        assert!(quoted.is("public.Orders") && !quoted.is("public.orders") && !quoted.folded);
        let dotted: Wanted = "public.\"a.B\"\"\"".parse().unwrap();
        assert!(dotted.is("public.\"a.B\"\"\""));
        assert!("Public.t".parse::<Wanted>().unwrap().folded && !one.folded);
        for wrong in ["orders", "*", "", ".a"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }
}
