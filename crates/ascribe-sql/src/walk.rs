//! From the parser's tree to what is said about a statement. Everything in the tree is visited.

use pg_query::protobuf::{
    AExprKind, AlterTableType, DiscardMode, ObjectType, OnConflictAction, VariableSetKind,
};

use crate::statement::{Access, Class, Flag, MAX_OBJECTS, Object};
use crate::tree::{Tree, Value};

/// What has been found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) classes: Vec<Class>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) objects: Vec<Object>,
    /// More than may be named.
    pub(crate) more: bool,
    /// Names of `WITH` that can be seen from here, those of the innermost last.
    scope: Vec<String>,
    /// The setting that is meant by the column `name` in the innermost `SELECT`.
    setting: Option<String>,
}

/// Where in a statement a node stands.
#[derive(Clone, Copy)]
struct Place {
    /// What is done with a relation that is named here.
    access: Access,
    /// Whether a statement within is run now, rather than defined for later.
    run: bool,
}

/// What one statement does.
pub(crate) fn found(statement: &Tree) -> Found {
    let mut found = Found::default();
    found.statement(statement, true);
    found.sort();
    found
}

impl Found {
    pub(crate) fn sort(&mut self) {
        self.classes.sort_unstable();
        self.classes.dedup();
        self.flags.sort_unstable();
        self.flags.dedup();
        self.objects.sort_unstable();
    }

    fn statement(&mut self, tree: &Tree, run: bool) {
        let class = class(tree);
        if run {
            self.classes_of(tree, class);
        }
        self.flags_of(tree);
        self.named(tree, class);
        let visible = self.scope.len();
        if let Some(with) = tree.node("with_clause") {
            self.with(with, run);
        }
        let outside = std::mem::replace(&mut self.setting, setting(tree).map(str::to_owned));
        let within = run && !defines(tree, class);
        for (field, value) in &tree.fields {
            if *field != "with_clause" {
                let access = access(tree, class, field);
                let place = Place {
                    access,
                    run: within,
                };
                self.value(value, place);
            }
        }
        self.scope.truncate(visible);
        self.setting = outside;
    }

    fn classes_of(&mut self, tree: &Tree, class: Class) {
        match tree.name {
            // Rows that are written out, as those of an `INSERT` mostly are, read nothing.
            "SelectStmt" if tree.has("values_lists") && !self.classes.is_empty() => {}
            "SelectStmt" if tree.has("into_clause") => self.classes.extend([class, Class::Ddl]),
            "ExplainStmt" if analyzes(tree) => {}
            "CopyStmt" if tree.has("is_program") => {
                self.classes.extend([class, Class::CopyProgram]);
            }
            "AlterTableStmt" if changes_who_may(tree) => {
                self.classes.extend([class, Class::Privilege]);
            }
            "InsertStmt" if updates(tree) => self.classes.extend([class, Class::Update]),
            _ => self.classes.push(class),
        }
    }

    fn flags_of(&mut self, tree: &Tree) {
        match tree.name {
            "AlterSystemStmt" => self.flags.push(Flag::AlterSystem),
            "LoadStmt" => self.flags.push(Flag::Load),
            "DoStmt" => self.flags.push(Flag::Do),
            "CreatePLangStmt" if tree.has("plhandler") || !is_trusted(tree.text("plname")) => {
                self.flags.push(Flag::Load);
            }
            "CopyStmt" if tree.has("is_program") => self.flags.push(Flag::CopyProgram),
            "CopyStmt" if tree.has("filename") => self.flags.push(Flag::ServerFile),
            "DiscardStmt" if tree.number("target") == i64::from(DiscardMode::DiscardAll as i32) => {
                self.flags
                    .extend([Flag::SetSessionAuthorization, Flag::ChangesReading]);
            }
            "VariableSetStmt" if is_kind(tree, VariableSetKind::VarResetAll) => {
                self.flags.push(Flag::ChangesReading);
            }
            "VariableSetStmt" => self.flags.extend(parameter(tree.text("name"))),
            _ => {}
        }
    }

    /// Names of a `WITH`, and what they stand for. A name is seen by what comes after it, and by all
    /// where it is recursive (PostgreSQL manual, 7.8).
    fn with(&mut self, with: &Tree, run: bool) {
        let place = Place {
            access: Access::Read,
            run,
        };
        if with.has("recursive") {
            with.nodes("ctes").for_each(|cte| self.name(cte));
        }
        for cte in with.nodes("ctes") {
            self.fields(cte, place);
            if !with.has("recursive") {
                self.name(cte);
            }
        }
    }

    /// A name that is one too many is taken for a relation.
    fn name(&mut self, cte: &Tree) {
        if self.scope.len() == MAX_OBJECTS {
            self.more = true;
        } else {
            self.scope.push(cte.text("ctename").to_owned());
        }
    }

    fn value(&mut self, value: &Value, place: Place) {
        match value {
            Value::Empty | Value::Text(_) | Value::Number(_) => {}
            Value::List(list) => list.iter().for_each(|value| self.value(value, place)),
            Value::Node(tree) => self.node(tree, place),
        }
    }

    fn node(&mut self, tree: &Tree, place: Place) {
        match tree.name {
            "RangeVar" => self.relation(tree, place.access),
            // Names there are those of the relations that are read anyway.
            "LockingClause" => {}
            "FuncCall" => {
                self.call(tree);
                self.fields(tree, place);
            }
            "DefElem" => {
                self.option(tree);
                self.fields(tree, place);
            }
            name if name.ends_with("Stmt") => self.statement(tree, place.run),
            _ => self.fields(tree, place),
        }
    }

    /// An option of a definition: a function's language, or where a foreign table has its rows from.
    fn option(&mut self, tree: &Tree) {
        let values = strings(tree.get("arg"));
        match tree.text("defname") {
            "language" if !values.iter().all(|name| is_trusted(name)) => {
                self.flags.push(Flag::Load);
            }
            "filename" => self.flags.push(Flag::ServerFile),
            "program" => self.flags.push(Flag::CopyProgram),
            _ => {}
        }
    }

    fn fields(&mut self, tree: &Tree, place: Place) {
        for (_, value) in &tree.fields {
            self.value(value, place);
        }
    }

    fn relation(&mut self, tree: &Tree, access: Access) {
        let (schema, name) = (tree.text("schemaname"), tree.text("relname"));
        if access == Access::Write && is_parameters(schema, name) {
            self.flags.push(Flag::ChangesReading);
        }
        let read = access == Access::Read && schema.is_empty();
        if !(read && self.scope.iter().any(|known| known == name)) {
            self.add(schema, name, access);
        }
    }

    fn call(&mut self, tree: &Tree) {
        let names = strings(tree.get("funcname"));
        self.qualified(&names, Access::Call);
        match names.last() {
            Some(&"set_config") => {
                let first = tree.nodes("args").next();
                let by_column = || {
                    self.setting
                        .as_deref()
                        .filter(|_| first.is_some_and(is_name))
                };
                match first.and_then(constant).or_else(by_column) {
                    Some(name) => self.flags.extend(parameter(name)),
                    None => self.flags.extend(ANY_PARAMETER),
                }
            }
            Some(name) => self.built_in(name),
            None => {}
        }
    }

    /// A function of PostgreSQL's own that does what its name alone says to be dangerous.
    pub(crate) fn built_in(&mut self, name: &str) {
        if RUN_TEXTS.contains(&name) {
            self.flags.extend(ANY_PARAMETER);
            self.more = true;
        }
        self.more |= READ_BY_NAME.iter().any(|known| name.starts_with(known));
        if FILES.contains(&name) {
            self.flags.push(Flag::ServerFile);
        }
    }

    /// Objects of a definition that are no relations, which [`relation`](Self::relation) finds.
    fn named(&mut self, tree: &Tree, class: Class) {
        if !matches!(class, Class::Ddl | Class::Privilege) {
            return;
        }
        for field in ["objects", "object"] {
            match tree.get(field) {
                Value::List(list) if field == "objects" => {
                    list.iter().for_each(|value| self.object(value, tree));
                }
                value => self.object(value, tree),
            }
        }
        for field in ["funcname", "type_name", "domainname", "defnames"] {
            self.qualified(&strings(tree.get(field)), Access::Ddl);
        }
        for field in ["schemaname", "dbname", "extname"] {
            self.qualified(&[tree.text(field)], Access::Ddl);
        }
    }

    fn object(&mut self, value: &Value, statement: &Tree) {
        let mut names = match value {
            Value::Node(tree) if tree.name == "ObjectWithArgs" => strings(tree.get("objname")),
            Value::Node(tree) if tree.name == "TypeName" => strings(tree.get("names")),
            other => strings(other),
        };
        if within_a_relation(statement) {
            names.pop();
        }
        self.qualified(&names, Access::Ddl);
    }

    fn qualified(&mut self, names: &[&str], access: Access) {
        match names {
            [] => {}
            [name] => self.add("", name, access),
            [.., schema, name] => self.add(schema, name, access),
        }
    }

    fn add(&mut self, schema: &str, name: &str, access: Access) {
        if name.is_empty() {
            return;
        }
        let object = Object {
            schema: (!schema.is_empty()).then(|| schema.to_owned()),
            name: name.to_owned(),
            access,
        };
        if self.objects.contains(&object) {
            return;
        }
        if self.objects.len() == MAX_OBJECTS {
            self.more = true;
        } else {
            self.objects.push(object);
        }
    }
}

/// Flags of a parameter whose name is not known.
pub(crate) const ANY_PARAMETER: [Flag; 3] = [
    Flag::SetRole,
    Flag::SetSessionAuthorization,
    Flag::ChangesReading,
];

/// Functions that every server has and that run a text which they are given (PostgreSQL manual, 9.15.3
/// and 12.4).
const RUN_TEXTS: [&str; 5] = [
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "ts_rewrite",
    "ts_stat",
];
/// Those that read relations which they are given by name (PostgreSQL manual, 9.15.3).
const READ_BY_NAME: [&str; 3] = ["table_to_xml", "schema_to_xml", "database_to_xml"];
/// Those that read or write files of the server (PostgreSQL manual, 9.28.9 and 33.4; in version 16, F.1).
pub(crate) const FILES: [&str; 10] = [
    "lo_export",
    "lo_import",
    "pg_file_rename",
    "pg_file_sync",
    "pg_file_unlink",
    "pg_file_write",
    "pg_ls_dir",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_stat_file",
];

/// Languages that keep a function within the database (PostgreSQL manual, 40.1: trusted). What is written in
/// another one does what the server's own process can: it is a library, or as good as one.
const TRUSTED: [&str; 5] = ["plperl", "plpgsql", "pltcl", "plv8", "sql"];

/// Whether a function in this language does no more than its role may.
fn is_trusted(language: &str) -> bool {
    let is = |known: &&str| language.eq_ignore_ascii_case(known);
    TRUSTED.iter().any(is)
}

/// Whether a relation is the view that sets parameters when it is updated. It does not show the role
/// and the session's user, so it cannot set them.
pub(crate) fn is_parameters(schema: &str, name: &str) -> bool {
    name == "pg_settings" && matches!(schema, "" | "pg_catalog")
}

/// The setting that `SELECT … FROM pg_settings WHERE name = 'setting'` is about. Dumps set parameters so that
/// only some servers have.
fn setting(select: &Tree) -> Option<&str> {
    let mut from = select.nodes("from_clause");
    let (table, only) = (from.next()?, from.next().is_none());
    let parameters =
        table.name == "RangeVar" && is_parameters(table.text("schemaname"), table.text("relname"));
    let condition = select.node("where_clause")?;
    let equal = condition.name == "AExpr"
        && condition.number("kind") == i64::from(AExprKind::AexprOp as i32)
        && strings(condition.get("name")) == ["="]
        && condition.node("lexpr").is_some_and(is_name);
    if select.name != "SelectStmt" || !only || !parameters || !equal {
        return None;
    }
    constant(condition.node("rexpr")?)
}

/// The column `name`.
fn is_name(tree: &Tree) -> bool {
    tree.name == "ColumnRef" && strings(tree.get("fields")) == ["name"]
}

/// What setting a parameter means. Names are compared as the server does, without case.
fn parameter(name: &str) -> Option<Flag> {
    let is = |known| name.eq_ignore_ascii_case(known);
    if is("role") {
        Some(Flag::SetRole)
    } else if is("session_authorization") {
        Some(Flag::SetSessionAuthorization)
    } else if is("standard_conforming_strings") || is("client_encoding") {
        Some(Flag::ChangesReading)
    } else if is("local_preload_libraries") || is("session_preload_libraries") {
        // For connections to come: what is set so for a role or a database is loaded by them.
        Some(Flag::Load)
    } else {
        None
    }
}

/// The strings of a list of names, or the one name.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::List(list) => list.iter().flat_map(strings).collect(),
        Value::Node(tree) if tree.name == "String" => vec![tree.text("sval")],
        Value::Node(tree) if tree.name == "List" => strings(tree.get("items")),
        _ => Vec::new(),
    }
}

/// A literal string, also one that is cast.
fn constant(tree: &Tree) -> Option<&str> {
    match tree.name {
        "AConst" => match tree.node("val") {
            Some(val) if val.name == "String" => Some(val.text("sval")),
            _ => None,
        },
        "TypeCast" => tree.node("arg").and_then(constant),
        _ => None,
    }
}

/// Whether the last name of an object is that of a part of a relation.
fn within_a_relation(statement: &Tree) -> bool {
    let kind = ["remove_type", "objtype", "rename_type", "object_type"]
        .into_iter()
        .map(|field| statement.number(field))
        .find(|kind| *kind != 0)
        .and_then(|kind| ObjectType::try_from(i32::try_from(kind).ok()?).ok());
    matches!(
        kind,
        Some(
            ObjectType::ObjectColumn
                | ObjectType::ObjectPolicy
                | ObjectType::ObjectRule
                | ObjectType::ObjectTabconstraint
                | ObjectType::ObjectTrigger
        )
    )
}

fn is_kind(tree: &Tree, kind: VariableSetKind) -> bool {
    tree.number("kind") == i64::from(kind as i32)
}

/// Whether `EXPLAIN` has the option, whatever its value.
fn analyzes(tree: &Tree) -> bool {
    tree.nodes("options")
        .any(|option| option.text("defname") == "analyze")
}

/// Whether an `INSERT` updates what is there already.
fn updates(tree: &Tree) -> bool {
    let action = tree
        .node("on_conflict_clause")
        .map_or(0, |clause| clause.number("action"));
    action == i64::from(OnConflictAction::OnconflictUpdate as i32)
}

/// Whether an `ALTER TABLE` changes the owner or whether row policies hold.
fn changes_who_may(tree: &Tree) -> bool {
    tree.nodes("cmds").any(|command| {
        let kind = i32::try_from(command.number("subtype")).unwrap_or(0);
        matches!(
            AlterTableType::try_from(kind),
            Ok(AlterTableType::AtChangeOwner
                | AlterTableType::AtEnableRowSecurity
                | AlterTableType::AtDisableRowSecurity
                | AlterTableType::AtForceRowSecurity
                | AlterTableType::AtNoForceRowSecurity)
        )
    })
}

/// Whether statements within are not run, but kept for later or only planned.
fn defines(tree: &Tree, class: Class) -> bool {
    match tree.name {
        "CreateTableAsStmt" => false,
        "ExplainStmt" => !analyzes(tree),
        _ => matches!(class, Class::Ddl | Class::Privilege | Class::AlterSystem),
    }
}

/// What is done with the relations that a field of a statement names.
fn access(tree: &Tree, class: Class, field: &str) -> Access {
    match (tree.name, field) {
        ("InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt", "relation")
        | ("TruncateStmt" | "LockStmt", _) => Access::Write,
        ("CopyStmt", "relation") if tree.has("is_from") => Access::Write,
        ("SelectStmt", "into_clause") => Access::Ddl,
        _ => match class {
            Class::Ddl | Class::Privilege | Class::Maintenance => Access::Ddl,
            _ => Access::Read,
        },
    }
}

/// The class of one statement, by the name of its node.
fn class(tree: &Tree) -> Class {
    match tree.name {
        "SelectStmt" | "ReturnStmt" | "PLAssignStmt" => Class::Select,
        "InsertStmt" => Class::Insert,
        "UpdateStmt" => Class::Update,
        "DeleteStmt" => Class::Delete,
        "MergeStmt" => Class::Merge,
        "TruncateStmt" => Class::Truncate,
        "CopyStmt" if tree.has("is_from") => Class::CopyIn,
        "CopyStmt" => Class::CopyOut,
        "VariableSetStmt" => class_of_set(tree),
        "ConstraintsSetStmt" | "DiscardStmt" => Class::Set,
        "VariableShowStmt" => Class::Show,
        "AlterSystemStmt" => Class::AlterSystem,
        "LoadStmt" => Class::Load,
        "DoStmt" => Class::Do,
        "CallStmt" => Class::Call,
        "TransactionStmt" => Class::Transaction,
        "PrepareStmt" => Class::Prepare,
        "ExecuteStmt" => Class::Execute,
        "DeallocateStmt" => Class::Deallocate,
        "DeclareCursorStmt" | "FetchStmt" | "ClosePortalStmt" => Class::Cursor,
        "ListenStmt" | "UnlistenStmt" | "NotifyStmt" => Class::Notify,
        "ExplainStmt" => Class::Explain,
        "VacuumStmt" | "ClusterStmt" | "ReindexStmt" | "CheckPointStmt" => Class::Maintenance,
        "LockStmt" => Class::Lock,
        "GrantStmt"
        | "GrantRoleStmt"
        | "AlterDefaultPrivilegesStmt"
        | "CreateRoleStmt"
        | "AlterRoleStmt"
        | "AlterRoleSetStmt"
        | "DropRoleStmt"
        | "DropOwnedStmt"
        | "ReassignOwnedStmt"
        | "AlterOwnerStmt"
        | "CreatePolicyStmt"
        | "AlterPolicyStmt"
        | "SecLabelStmt" => Class::Privilege,
        "IndexStmt"
        | "ViewStmt"
        | "RuleStmt"
        | "DefineStmt"
        | "RenameStmt"
        | "CommentStmt"
        | "CompositeTypeStmt"
        | "RefreshMatViewStmt"
        | "ImportForeignSchemaStmt"
        | "ReplicaIdentityStmt" => Class::Ddl,
        name if ["Create", "Alter", "Drop"]
            .iter()
            .any(|verb| name.starts_with(verb)) =>
        {
            Class::Ddl
        }
        _ => Class::Other,
    }
}

/// `SET TRANSACTION` and `SET SESSION CHARACTERISTICS` are the only ones of several parameters.
fn class_of_set(tree: &Tree) -> Class {
    if is_kind(tree, VariableSetKind::VarSetMulti) {
        return Class::Transaction;
    }
    match parameter(tree.text("name")) {
        Some(Flag::SetRole) => Class::SetRole,
        Some(Flag::SetSessionAuthorization) => Class::SetSessionAuthorization,
        _ => Class::Set,
    }
}
