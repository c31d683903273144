//! When a text in the database's log is what we recorded.

use ascribe_core::database::bare;
use ascribe_wire::pglog::{Audit, From, Ran};

use super::ours::{Statement, Way};

/// What pgaudit puts in the place of a password and all behind it.
const REDACTED: &str = "<REDACTED>";

/// Was it executed? Preparing is logged only when it takes long.
pub(super) fn is_executed(ran: &Ran) -> bool {
    !matches!(ran.from, From::Parse | From::Bind)
}

/// Is this pgaudit's first line about a statement, with its text? What functions do within it follows.
pub(super) fn is_first(audit: &Audit) -> bool {
    audit.source == "SESSION" && audit.substatement_id == 1 && audit.statement.is_some()
}

/// A statement as the database's log has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged<'a> {
    pub(super) text: &'a str,
    /// The same without what surrounds statements.
    bare: &'a [u8],
    /// By pgaudit, it is not told.
    pub(super) from: Option<From>,
    /// Of the prepared statement, and of the portal after a slash.
    pub(super) name: Option<&'a str>,
}

impl<'a> Logged<'a> {
    pub(super) fn of_ran(ran: &'a Ran) -> Self {
        Self {
            text: &ran.text,
            bare: bare(ran.text.as_bytes()),
            from: Some(ran.from),
            name: ran.name.as_deref(),
        }
    }

    pub(super) fn of_audit(audit: &'a Audit) -> Option<Self> {
        let text = audit.statement.as_deref()?;
        Some(Self {
            text,
            bare: bare(text.as_bytes()),
            from: None,
            name: None,
        })
    }

    /// How many of our statements, from the first of these on, are what was logged: one text can hold
    /// several. 0 where they are not.
    pub(super) fn covers(&self, ours: &[Statement]) -> usize {
        let Some(first) = ours.first() else {
            return 0;
        };
        match (first.way, self.from) {
            (Way::Call, None | Some(From::Function)) => usize::from(self.is_call(&first.text)),
            (Way::Execute, None | Some(From::Execute | From::Fetch)) => {
                let whole = self.runs(ours.get(..1).unwrap_or_default()) == 1;
                usize::from(whole || (first.by_name && self.is_named(&first.text)))
            }
            (Way::Query, None | Some(From::Simple)) => self.runs(ours),
            _ => 0,
        }
    }

    /// The texts of ours in a row, with nothing but comments and semicolons between them and behind.
    fn runs(&self, ours: &[Statement]) -> usize {
        if let Some(begins) = self.text.strip_suffix(REDACTED) {
            let first = ours.first();
            let hidden = first.is_some_and(|one| starts(&one.text, bare(begins.as_bytes())));
            return usize::from(self.from.is_none() && hidden);
        }
        let mut rest = self.bare;
        for (count, one) in (1..).zip(ours) {
            if one.way != Way::Query && count > 1 {
                break;
            }
            let own = bare(&one.text);
            let Some(after) = strip(rest, own) else {
                break;
            };
            rest = bare(after);
            if rest.is_empty() {
                return count;
            }
            // A statement ends where the next one begins, not within a word.
            if !after.trim_ascii_start().starts_with(b";") {
                break;
            }
        }
        0
    }

    /// `function NUMBER` with us, `"name" (OID NUMBER)` in the log.
    fn is_call(&self, ours: &[u8]) -> bool {
        let number = std::str::from_utf8(ours).ok();
        number
            .and_then(|text| text.strip_prefix("function "))
            .is_some_and(|number| self.text.ends_with(&format!("(OID {number})")))
    }

    /// What only SQL made under a name: we know the name alone.
    fn is_named(&self, ours: &[u8]) -> bool {
        let Some(name) = self.name else {
            return false;
        };
        let (statement, portal) = name.split_once('/').unwrap_or((name, ""));
        [name, statement, portal]
            .iter()
            .any(|name| name.as_bytes() == ours)
    }
}

fn starts(text: &[u8], with: &[u8]) -> bool {
    strip(bare(text), with).is_some()
}

/// What follows `own` in a text of the log. The log has the database's encoding, and what is not UTF-8 is
/// replaced in it: where ours is not UTF-8 either, letters outside ASCII are not told apart.
fn strip<'a>(logged: &'a [u8], own: &[u8]) -> Option<&'a [u8]> {
    if std::str::from_utf8(own).is_ok() {
        return logged.strip_prefix(own);
    }
    let (mut logged, mut own) = (logged, own);
    while let Some((byte, after)) = own.split_first() {
        let (found, behind) = logged.split_first()?;
        if byte.is_ascii() {
            if byte != found {
                return None;
            }
            (own, logged) = (after, behind);
        } else {
            if found.is_ascii() {
                return None;
            }
            (own, logged) = (foreign(own), foreign(logged));
        }
    }
    Some(logged)
}

/// What follows the bytes that are not ASCII at the beginning.
fn foreign(text: &[u8]) -> &[u8] {
    let end = text.iter().position(u8::is_ascii).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}
