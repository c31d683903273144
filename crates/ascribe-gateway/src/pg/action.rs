//! From what is executed to the actions that are recorded: one for each statement, with what it is by
//! PostgreSQL's own grammar.

use std::sync::Arc;

use ascribe_core::database::{
    CONNECT, EMPTY, SET, SqlScope, Step, UNPARSED, UNREAD, Values as Policy, bare, object_name,
};
use ascribe_core::encoding::base64_std;
use ascribe_core::gate::{Action, Sql};
use ascribe_core::id::{ActionId, ContentDigest, SessionId};
use ascribe_sql::{Access, Classifier, Flag, Reading, Statement, Unparsed, may_be_flagged};
use ascribe_tlog::Hash;
use ascribe_wire::pg::client::{Text, Values};
use ascribe_wire::pg::session::{Executed, Number, Origin, Portal, Runs, Statement as Prepared};
use ascribe_wire::pg::startup::Startup;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::relay::Messages;

/// Stands for objects that a statement names and that cannot be told. No grant is for it.
const UNTOLD: &str = "*";
/// The class of what SQL prepared by name.
const EXECUTE: &str = "execute";
/// What clients set of themselves, and what only ends what takes too long. Anything else that a
/// connection sets may change what a statement means, such as `search_path`.
const USUAL: [&str; 13] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "replication",
    "statement_timeout",
    "timezone",
];
/// Hexadecimal digits of a digest.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What decides how actions are recorded, besides what is executed.
pub(super) struct Recording<'a> {
    pub(super) session: SessionId,
    pub(super) classifier: &'a Classifier,
    pub(super) reading: Reading,
    pub(super) scope: Option<&'a SqlScope>,
    pub(super) values: Policy,
    pub(super) messages: &'a Messages,
}

/// What a message readies for running. A server may run functions for that alone: those of a domain's
/// check when it reads a literal, those it was told are immutable when it plans.
pub(super) enum Readies {
    Statement(Arc<Prepared>),
    Portal(Arc<Portal>),
}

impl Readies {
    pub(super) fn number(&self) -> Number {
        match self {
            Self::Statement(statement) => statement.number,
            Self::Portal(portal) => portal.number,
        }
    }
}

/// Actions, and what follows from them for what comes behind.
pub(super) struct Drafted {
    /// In order; at least one.
    pub(super) actions: Vec<Action>,
    /// How later texts are read depends on the outcome.
    pub(super) changes_reading: bool,
}

impl Recording<'_> {
    /// The actions of what is executed. `next` is the first statement of an approved script that may
    /// still come, and moves on.
    pub(super) async fn draft(
        &self,
        executed: &Executed,
        next: &mut u32,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        match &executed.runs {
            Runs::Query(Text::Here(text)) => self.texts("pg.query", text, None, next, id).await,
            Runs::Portal { portal, .. } | Runs::DoubtfulPortal { portal, .. } => {
                let values = self.kept(portal.number, &portal.values);
                let known = matches!(executed.runs, Runs::Portal { .. });
                match &portal.statement {
                    Origin::Known(statement) if known => {
                        self.prepared(statement, values, next, id).await
                    }
                    Origin::Known(statement) | Origin::Doubtful(statement) => {
                        self.doubtful(statement, values, id).await
                    }
                    Origin::Unknown(name) => self.by_name(name, values, id),
                }
            }
            Runs::UnknownPortal { name, .. } => self.by_name(name, None, id),
            Runs::Query(Text::Spooled(body)) => {
                let text = self.messages.name(executed.number, *body);
                self.unread("pg.query", text, None, id)
            }
            Runs::Function {
                function,
                arguments,
            } => {
                let sql = call(*function, self.kept(executed.number, arguments));
                let command = format!("function {function}").into_bytes();
                Drafted {
                    actions: vec![self.action(id(), "pg.call", command, Some(sql))],
                    changes_reading: false,
                }
            }
        }
    }

    /// The action of what is readied and not run with it. It is not a script's going on.
    pub(super) async fn draft_readied(
        &self,
        readies: &Readies,
        mut next: u32,
        id: &mut impl FnMut() -> ActionId,
    ) -> Vec<Action> {
        let drafted = match readies {
            Readies::Statement(statement) => self.prepared(statement, None, &mut next, id).await,
            Readies::Portal(portal) => {
                let values = self.kept(portal.number, &portal.values);
                match &portal.statement {
                    Origin::Known(statement) => {
                        self.prepared(statement, values, &mut next, id).await
                    }
                    Origin::Doubtful(statement) => self.doubtful(statement, values, id).await,
                    Origin::Unknown(name) => self.by_name(name, values, id),
                }
            }
        };
        let ready = |action| Action {
            kind: "pg.prepare",
            ..action
        };
        drafted.actions.into_iter().map(ready).collect()
    }

    /// What a Parse of this session prepared.
    async fn prepared(
        &self,
        statement: &Prepared,
        values: Option<Vec<u8>>,
        next: &mut u32,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        match &statement.text {
            Text::Here(text) => self.texts("pg.execute", text, values, next, id).await,
            Text::Spooled(body) => {
                let text = self.messages.name(statement.number, *body);
                self.unread("pg.execute", text, values, id)
            }
        }
    }

    /// The same, unless SQL put another in its place: that one's text is on record by itself. So it is
    /// recorded as both, and is no step of a script.
    async fn doubtful(
        &self,
        statement: &Prepared,
        values: Option<Vec<u8>>,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        let mut past = u32::MAX;
        let mut drafted = self.prepared(statement, values, &mut past, id).await;
        for action in &mut drafted.actions {
            if let Some(sql) = &mut action.sql {
                sql.classes.push(EXECUTE.to_owned());
            }
        }
        drafted
    }

    /// What only SQL can have made under this name: what it does is on record where that was made.
    fn by_name(
        &self,
        name: &[u8],
        values: Option<Vec<u8>>,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        let sql = Sql {
            classes: vec![EXECUTE.to_owned()],
            flags: Vec::new(),
            objects: self.untold(),
            port: None,
            step: None,
            values,
        };
        Drafted {
            actions: vec![self.action(id(), "pg.execute", name.to_vec(), Some(sql))],
            changes_reading: true,
        }
    }

    /// Objects that are not told, where the grant bounds them.
    fn untold(&self) -> Vec<String> {
        let bounded = self.scope.is_some_and(|scope| !scope.objects.is_empty());
        bounded.then(|| UNTOLD.to_owned()).into_iter().collect()
    }

    async fn texts(
        &self,
        kind: &'static str,
        text: &Bytes,
        values: Option<Vec<u8>>,
        next: &mut u32,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        let found = self.classifier.classify(text.clone(), self.reading).await;
        let mut drafted = Drafted {
            actions: Vec::new(),
            changes_reading: false,
        };
        let statements = match found {
            Ok(statements) => statements,
            Err(why) => {
                let sql = Sql {
                    classes: vec![UNPARSED.to_owned()],
                    // What is not in the grammar, the server refuses too, unless its own is older or
                    // newer. The rest may do anything.
                    flags: match why {
                        Unparsed::Syntax(_) if !may_be_flagged(text) => Vec::new(),
                        _ => vec![UNREAD.to_owned()],
                    },
                    objects: Vec::new(),
                    port: None,
                    step: self.step(text, next),
                    values,
                };
                drafted.changes_reading = true;
                let action = self.action(id(), kind, text.to_vec(), Some(sql));
                drafted.actions.push(action);
                return drafted;
            }
        };
        for statement in statements.iter() {
            let own = text.get(statement.range.clone()).unwrap_or(text);
            let sql = Sql {
                step: self.step(own, next),
                // Only a query has several, and it has no values.
                values: values.clone(),
                ..self.sql(statement)
            };
            drafted.changes_reading |= statement.flags.contains(&Flag::ChangesReading);
            let action = self.action(id(), kind, own.to_vec(), Some(sql));
            drafted.actions.push(action);
        }
        if drafted.actions.is_empty() {
            let sql = Sql {
                classes: vec![EMPTY.to_owned()],
                flags: Vec::new(),
                objects: Vec::new(),
                port: None,
                step: None,
                values,
            };
            let action = self.action(id(), kind, text.to_vec(), Some(sql));
            drafted.actions.push(action);
        }
        drafted
    }

    fn sql(&self, statement: &Statement) -> Sql {
        let flags = statement.flags.iter();
        let flags = flags.filter(|flag| **flag != Flag::ChangesReading);
        let bounded = self.scope.is_some_and(|scope| !scope.objects.is_empty());
        let objects = match bounded {
            true => relations(statement),
            false => Vec::new(),
        };
        Sql {
            classes: statement
                .classes
                .iter()
                .map(|c| c.as_str().to_owned())
                .collect(),
            flags: flags.map(|flag| flag.as_str().to_owned()).collect(),
            objects,
            port: None,
            step: None,
            values: None,
        }
    }

    /// Which statement of the approved script this is, where there is one.
    fn step(&self, text: &[u8], next: &mut u32) -> Option<Step> {
        let script = &self.scope?.script;
        if script.is_empty() {
            return None;
        }
        let sha256 = ContentDigest(Hash(Sha256::digest(bare(text)).into()));
        let skip = *next as usize;
        let found = script
            .iter()
            .skip(skip)
            .position(|known| *known == sha256)?;
        let number = u32::try_from(skip + found).ok()?;
        *next = number.saturating_add(1);
        Some(Step { number, sha256 })
    }

    /// Something whose text is not known.
    fn unread(
        &self,
        kind: &'static str,
        command: Vec<u8>,
        values: Option<Vec<u8>>,
        id: &mut impl FnMut() -> ActionId,
    ) -> Drafted {
        let sql = Sql { values, ..unread() };
        Drafted {
            actions: vec![self.action(id(), kind, command, Some(sql))],
            changes_reading: true,
        }
    }

    /// What the target's rules keep of values.
    fn kept(&self, number: Number, values: &Values) -> Option<Vec<u8>> {
        let values = match values {
            Values::Here { values, .. } => values,
            Values::Spooled(body) => return Some(self.messages.name(number, *body)),
        };
        let shown = || shown(values).into_bytes();
        match self.values {
            _ if values.is_empty() => None,
            Policy::None => None,
            Policy::Full => Some(shown()),
            Policy::Commitment => {
                let digest = Sha256::digest(shown());
                let mut text = b"sha256:".to_vec();
                text.extend(digest.iter().flat_map(|byte| {
                    let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or_default();
                    [digit(byte >> 4), digit(byte & 15)]
                }));
                Some(text)
            }
        }
    }

    pub(super) fn action(
        &self,
        action: ActionId,
        kind: &'static str,
        command: Vec<u8>,
        sql: Option<Sql>,
    ) -> Action {
        action_of(self.session, action, kind, Some(command), sql)
    }
}

/// What a statement names, as intents have it: its relations in order, and `*` where not all of them can be told. A
/// function is not bounded by its name: it may reach anything.
#[must_use]
pub fn relations(statement: &Statement) -> Vec<String> {
    let mut objects = named(statement, |access| access != Access::Call);
    if !statement.complete || statement.approximate {
        objects.push(UNTOLD.to_owned());
    }
    objects
}

/// The functions and procedures that a statement names, in order.
#[must_use]
pub fn functions(statement: &Statement) -> Vec<String> {
    named(statement, |access| access == Access::Call)
}

fn named(statement: &Statement, is: impl Fn(Access) -> bool) -> Vec<String> {
    let named = statement.objects.iter().filter(|object| is(object.access));
    let names = named.map(|o| object_name(o.schema.as_deref(), &o.name));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A text that nobody has read.
pub(super) fn unread() -> Sql {
    Sql {
        classes: vec![UNPARSED.to_owned()],
        flags: vec![UNREAD.to_owned()],
        objects: Vec::new(),
        port: None,
        step: None,
        values: None,
    }
}

/// A function's call.
pub(super) fn call(function: u32, values: Option<Vec<u8>>) -> Sql {
    Sql {
        classes: vec!["function-call".to_owned()],
        flags: called(function),
        objects: Vec::new(),
        port: None,
        step: None,
        values,
    }
}

/// An action on a database.
pub(super) fn action_of(
    session: SessionId,
    action: ActionId,
    kind: &'static str,
    command: Option<Vec<u8>>,
    sql: Option<Sql>,
) -> Action {
    Action {
        action,
        session,
        kind,
        command,
        env: Vec::new(),
        pty: None,
        lends: Vec::new(),
        within: None,
        sql,
    }
}

/// Values as a JSON array: a string where the bytes are UTF-8, `null`, and an object with `base64`
/// otherwise.
fn shown(values: &[Option<Bytes>]) -> String {
    let one = |value: &Option<Bytes>| match value {
        None => serde_json::Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::Value::from(text),
            Err(_) => serde_json::json!({ "base64": base64_std(bytes) }),
        },
    };
    serde_json::Value::from(values.iter().map(one).collect::<Vec<_>>()).to_string()
}

/// The connection itself as an action: what its startup message sets takes effect before any
/// statement, so what is dangerous in a statement is dangerous in it.
pub(super) fn connecting(startup: &Startup, database: &[u8]) -> (Vec<u8>, Sql) {
    let mut command = b"database=".to_vec();
    command.extend_from_slice(database);
    let (mut flags, mut sets) = (Vec::new(), false);
    for (name, value) in &startup.parameters {
        let own = [&b"user"[..], b"database"].contains(&&name[..]);
        if own || name.starts_with(b"_pq_.") {
            continue;
        }
        command.push(b' ');
        command.extend_from_slice(name);
        command.push(b'=');
        command.extend_from_slice(value);
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        sets |= !USUAL.iter().any(is);
        let text = if name.eq_ignore_ascii_case(b"options") {
            value
        } else {
            name
        };
        flags.extend(set_by(text));
    }
    if startup.is_replication() {
        flags.push(Flag::Replication);
    }
    flags.sort_unstable();
    flags.dedup();
    let mut classes = vec![CONNECT.to_owned()];
    if sets {
        classes.push(SET.to_owned());
    }
    let sql = Sql {
        classes,
        flags: flags.iter().map(|flag| flag.as_str().to_owned()).collect(),
        objects: Vec::new(),
        port: None,
        step: None,
        values: None,
    };
    (command, sql)
}

/// What calling a function by its number means. Clients do so for large objects alone, whose functions
/// have the same numbers on every server (PostgreSQL's `pg_proc.dat`); any other may do anything, such as
/// setting a role or running a text.
fn called(function: u32) -> Vec<String> {
    match function {
        // lo_import, lo_export.
        764 | 765 | 767 => vec![Flag::ServerFile.as_str().to_owned()],
        // lo_create, lo_open to lo_tell, lo_unlink, lo_truncate.
        715 | 952..=958 | 964 | 1004
        // lo_lseek64 to lo_truncate64, lo_from_bytea, lo_get, lo_put.
        | 3170..=3172 | 3457..=3460 => Vec::new(),
        _ => vec![UNREAD.to_owned()],
    }
}

/// What settings on a command line, or one name of a setting, may set that is dangerous. The server
/// reads a backslash as quoting what follows, `-` in a name as `_`, and letters in either case.
fn set_by(text: &[u8]) -> Vec<Flag> {
    let plain: Vec<u8> = text
        .iter()
        .filter(|byte| **byte != b'\\')
        .map(|byte| {
            if *byte == b'-' {
                b'_'
            } else {
                byte.to_ascii_lowercase()
            }
        })
        .collect();
    let names = |name: &[u8]| plain.windows(name.len()).any(|part| part == name);
    let mut flags = Vec::new();
    if names(b"role") {
        flags.push(Flag::SetRole);
    }
    if names(b"session_authorization") {
        flags.push(Flag::SetSessionAuthorization);
    }
    // `local_preload_libraries` and `session_preload_libraries`, which are loaded at once.
    if names(b"preload_libraries") {
        flags.push(Flag::Load);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&'static str, &'static str)]) -> Startup {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        Startup {
            minor: 0,
            parameters: parameters
                .iter()
                .map(|(n, v)| (bytes(n), bytes(v)))
                .collect(),
        }
    }

    #[test]
    fn what_a_connection_sets_is_flagged_like_a_statement() {
        for (parameters, flags) in [
            (
                &[("user", "dba@orders"), ("application_name", "psql")][..],
                &[][..],
            ),
            (&[("role", "postgres")], &["set-role"]),
            (&[("ROLE", "postgres")], &["set-role"]),
            (&[("options", "-c statement_timeout=5s")], &[]),
            (&[("options", "-c role=postgres")], &["set-role"]),
            (&[("options", "-c ro\\le=postgres")], &["set-role"]),
            (
                &[("options", "--session-authorization=x")],
                &["set-session-authorization"],
            ),
            (&[("Session_Preload_Libraries", "x")], &["load"]),
            (&[("options", "--local-preload\\-libraries=x")], &["load"]),
            (&[("replication", "database")], &["replication"]),
            (&[("replication", "off")], &[]),
        ] {
            let (_, sql) = connecting(&startup(parameters), b"orders");
            assert_eq!(sql.flags, flags, "{parameters:?}");
        }
        let all = [
            ("user", "dba@orders"),
            ("database", "x"),
            ("options", "-c a=b"),
        ];
        let (command, sql) = connecting(&startup(&all), b"orders");
        assert_eq!(command, b"database=orders options=-c a=b");
        assert_eq!(sql.classes, ["connect", "set"]);
        let usual = [("client_encoding", "UTF8"), ("TimeZone", "UTC")];
        let (_, sql) = connecting(&startup(&usual), b"orders");
        assert_eq!(sql.classes, ["connect"]);
    }

    #[test]
    fn only_functions_of_large_objects_are_known_by_number() {
        // lo_creat, lo_open, loread, lo_import; set_config, pg_read_file, query_to_xml; one of the user's.
        for (function, flags) in [
            (957, &[][..]),
            (952, &[]),
            (954, &[]),
            (764, &["server-file"]),
            (2078, &["unread"]),
            (2624, &["unread"]),
            (2922, &["unread"]),
            (16_384, &["unread"]),
        ] {
            assert_eq!(called(function), flags, "{function}");
        }
    }

    #[test]
    fn values_are_shown_exactly() {
        let values = [
            Some(Bytes::from_static(b"it's \"one\"")),
            None,
            Some(Bytes::from_static(&[0xff, 0])),
        ];
        assert_eq!(shown(&values), r#"["it's \"one\"",null,{"base64":"/wA="}]"#);
    }
}
