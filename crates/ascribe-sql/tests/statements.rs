//! Statements, and what is said about them.

#![cfg(test)]

use ascribe_sql::{Access, Encoding, Flag, MAX_OBJECTS, Reading, Statement, Unparsed, read};

const PLAIN: Reading = Reading {
    encoding: Encoding::Utf8,
    standard_conforming_strings: true,
    replication: false,
};

fn one(text: &str) -> Statement {
    let mut all = read(text.as_bytes(), PLAIN).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

/// Classes, flags and objects in one line.
fn told(statement: &Statement) -> String {
    let classes: Vec<_> = statement.classes.iter().map(|c| c.as_str()).collect();
    let flags: Vec<_> = statement.flags.iter().map(|f| f.as_str()).collect();
    let objects = statement.objects.iter().map(|object| {
        let access = match object.access {
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Ddl => 'd',
            Access::Call => 'c',
        };
        let schema = object.schema.as_deref().map(|s| format!("{s}."));
        format!("{access}:{}{}", schema.unwrap_or_default(), object.name)
    });
    let mut objects: Vec<_> = objects.collect();
    objects.sort();
    format!(
        "{} | {} | {}",
        classes.join(" "),
        flags.join(" "),
        objects.join(" ")
    )
}

/// A statement, its classes, its flags, its objects: `r` read, `w` written, `d` defined, `c` called.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("SELECT 1", "select", "", ""),
    ("TABLE s.t", "select", "", "r:s.t"),
    ("VALUES (1), (2)", "select", "", ""),
    (
        r#"select * from "Big".T a join only u on a.x = u.x"#,
        "select",
        "",
        "r:Big.t r:u",
    ),
    ("SELECT * FROM a FOR UPDATE OF a", "select", "", "r:a"),
    ("SELECT * FROM a x FOR UPDATE OF x", "select", "", "r:a"),
    (
        "SELECT (SELECT x FROM b) FROM a WHERE EXISTS (SELECT FROM c)",
        "select",
        "",
        "r:a r:b r:c",
    ),
    (
        "SELECT a.f(x) FROM t TABLESAMPLE g(1)",
        "select",
        "",
        "c:a.f r:t",
    ),
    ("SELECT 1 INTO n.t2 FROM t", "select ddl", "", "d:n.t2 r:t"),
    (
        "SELECT * FROM a UNION SELECT * FROM b",
        "select",
        "",
        "r:a r:b",
    ),
    ("INSERT INTO t VALUES (1)", "insert", "", "w:t"),
    ("INSERT INTO t DEFAULT VALUES", "insert", "", "w:t"),
    (
        "INSERT INTO t SELECT * FROM u",
        "select insert",
        "",
        "r:u w:t",
    ),
    (
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "insert",
        "",
        "w:t",
    ),
    (
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
        "insert update",
        "",
        "w:t",
    ),
    (
        "UPDATE t SET a = u.a FROM u WHERE t.i = u.i",
        "update",
        "",
        "r:u w:t",
    ),
    (
        "UPDATE t SET a = (SELECT max(x) FROM v)",
        "select update",
        "",
        "c:max r:v w:t",
    ),
    (
        "DELETE FROM t USING u WHERE t.i = u.i",
        "delete",
        "",
        "r:u w:t",
    ),
    (
        "MERGE INTO t USING u ON t.i = u.i WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "merge",
        "",
        "r:u w:t",
    ),
    ("TRUNCATE a, b.c", "truncate", "", "w:a w:b.c"),
    // Names of `WITH`.
    (
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "select delete",
        "",
        "w:t",
    ),
    (
        "WITH f AS (SELECT * FROM f) SELECT * FROM f",
        "select",
        "",
        "r:f",
    ),
    (
        "WITH RECURSIVE f AS (SELECT 1 UNION SELECT * FROM f) SELECT * FROM f",
        "select",
        "",
        "",
    ),
    (
        "WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b",
        "select",
        "",
        "r:b",
    ),
    (
        "WITH x AS (SELECT 1) SELECT * FROM s.x",
        "select",
        "",
        "r:s.x",
    ),
    (
        "WITH x AS (SELECT 1) UPDATE x SET a = 1",
        "select update",
        "",
        "w:x",
    ),
    (
        "SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x",
        "select",
        "",
        "r:x",
    ),
    (
        "WITH a AS (INSERT INTO p SELECT * FROM q RETURNING 1), b AS (UPDATE r SET i = 1 RETURNING 1) TABLE a",
        "select insert update",
        "",
        "r:q w:p w:r",
    ),
    // COPY.
    ("COPY t FROM STDIN", "copy-in", "", "w:t"),
    (
        "COPY t (a, b) TO STDOUT WITH (FORMAT csv)",
        "copy-out",
        "",
        "r:t",
    ),
    (
        "COPY (SELECT * FROM t) TO STDOUT",
        "select copy-out",
        "",
        "r:t",
    ),
    (
        "COPY (DELETE FROM t RETURNING *) TO STDOUT",
        "delete copy-out",
        "",
        "w:t",
    ),
    (
        "COPY t TO PROGRAM 'cat'",
        "copy-out copy-program",
        "copy-program",
        "r:t",
    ),
    (
        "COPY t FROM PROGRAM 'id'",
        "copy-in copy-program",
        "copy-program",
        "w:t",
    ),
    ("COPY t FROM '/etc/passwd'", "copy-in", "server-file", "w:t"),
    // Definitions.
    (
        "CREATE TABLE s.t (a int DEFAULT f(), b int REFERENCES u)",
        "ddl",
        "",
        "c:f d:s.t d:u",
    ),
    (
        "CREATE TEMP TABLE t AS SELECT * FROM u",
        "select ddl",
        "",
        "d:t r:u",
    ),
    ("CREATE TABLE t AS EXECUTE p", "ddl execute", "", "d:t"),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM u",
        "select ddl",
        "",
        "d:m r:u",
    ),
    ("REFRESH MATERIALIZED VIEW m", "ddl", "", "d:m"),
    ("CREATE VIEW v AS SELECT * FROM t", "ddl", "", "d:v r:t"),
    (
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD DELETE FROM u",
        "ddl",
        "",
        "d:t w:u",
    ),
    (
        "CREATE INDEX CONCURRENTLY i ON t (lower(a))",
        "ddl",
        "",
        "c:lower d:t",
    ),
    ("ALTER TABLE t ADD COLUMN a int", "ddl", "", "d:t"),
    ("ALTER TABLE t RENAME TO u", "ddl", "", "d:t"),
    ("ALTER FUNCTION s.f(int) RENAME TO g", "ddl", "", "d:s.f"),
    (
        "DROP TABLE IF EXISTS a.b, c CASCADE",
        "ddl",
        "",
        "d:a.b d:c",
    ),
    ("DROP FUNCTION s.f(int)", "ddl", "", "d:s.f"),
    ("DROP TRIGGER g ON s.t", "ddl", "", "d:s.t"),
    ("DROP SCHEMA s CASCADE", "ddl", "", "d:s"),
    ("DROP TYPE s.e", "ddl", "", "d:s.e"),
    ("COMMENT ON COLUMN s.t.c IS 'x'", "ddl", "", "d:s.t"),
    (
        "CREATE SCHEMA s CREATE TABLE t (a int)",
        "ddl",
        "",
        "d:s d:t",
    ),
    ("CREATE EXTENSION pgcrypto", "ddl", "", "d:pgcrypto"),
    ("CREATE TYPE s.e AS ENUM ('a')", "ddl", "", "d:s.e"),
    ("CREATE DATABASE d", "ddl", "", "d:d"),
    (
        "CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'DELETE FROM t'",
        "ddl",
        "",
        "d:s.f",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM t; SELECT 1; END",
        "ddl",
        "",
        "d:f w:t",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET role = 'postgres' AS 'SELECT 1'",
        "ddl",
        "set-role",
        "d:f",
    ),
    // Privileges.
    ("GRANT SELECT ON s.t TO bob", "privilege", "", "d:s.t"),
    (
        "GRANT ALL ON FUNCTION f(int) TO bob",
        "privilege",
        "",
        "d:f",
    ),
    ("GRANT USAGE ON SCHEMA s TO bob", "privilege", "", "d:s"),
    ("REVOKE admin FROM bob", "privilege", "", ""),
    ("CREATE ROLE bob SUPERUSER", "privilege", "", ""),
    (
        "ALTER ROLE bob SET role = 'alice'",
        "privilege",
        "set-role",
        "",
    ),
    ("ALTER TABLE t OWNER TO bob", "ddl privilege", "", "d:t"),
    (
        "ALTER TABLE t NO FORCE ROW LEVEL SECURITY",
        "ddl privilege",
        "",
        "d:t",
    ),
    ("ALTER SCHEMA s OWNER TO bob", "privilege", "", "d:s"),
    ("CREATE POLICY p ON t USING (true)", "privilege", "", "d:t"),
    // Parameters.
    ("SET search_path = a", "set", "", ""),
    ("SHOW search_path", "show", "", ""),
    ("SET ROLE bob", "set-role", "set-role", ""),
    ("SET LOCAL ROLE NONE", "set-role", "set-role", ""),
    (r#"set session "ROLE" = 'bob'"#, "set-role", "set-role", ""),
    ("RESET ROLE", "set-role", "set-role", ""),
    (
        "SET SESSION AUTHORIZATION bob",
        "set-session-authorization",
        "set-session-authorization",
        "",
    ),
    (
        "RESET SESSION AUTHORIZATION",
        "set-session-authorization",
        "set-session-authorization",
        "",
    ),
    (
        "set session_authorization to bob",
        "set-session-authorization",
        "set-session-authorization",
        "",
    ),
    (
        "SELECT set_config('role', 'bob', false)",
        "select",
        "set-role",
        "c:set_config",
    ),
    (
        "SELECT pg_catalog.set_config('Role'::text, 'bob', false)",
        "select",
        "set-role",
        "c:pg_catalog.set_config",
    ),
    (
        r#"SELECT U&"\0073et_config"('role', 'bob', false)"#,
        "select",
        "set-role",
        "c:set_config",
    ),
    (
        "SELECT set_config('search_path', 'a', false)",
        "select",
        "",
        "c:set_config",
    ),
    (
        "SELECT COALESCE(NULL, ARRAY[set_config('ro' || 'le', 'bob', false)])",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config",
    ),
    // So do dumps.
    (
        "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
        "select",
        "",
        "c:set_config r:pg_settings",
    ),
    (
        "SELECT set_config(name, 'bob', false) FROM pg_catalog.pg_settings WHERE name = 'role'",
        "select",
        "set-role",
        "c:set_config r:pg_catalog.pg_settings",
    ),
    (
        "SELECT set_config(name, 'bob', false) FROM pg_settings WHERE name <> 'a'",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config r:pg_settings",
    ),
    (
        "SELECT set_config(name, 'bob', false) FROM pg_settings, t WHERE name = 'a'",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config r:pg_settings r:t",
    ),
    (
        "SELECT (SELECT set_config(name, 'bob', false) FROM t) FROM pg_settings WHERE name = 'a'",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config r:pg_settings r:t",
    ),
    (
        "SELECT set_config(setting, 'bob', false) FROM pg_settings WHERE name = 'a'",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config r:pg_settings",
    ),
    (
        "UPDATE pg_settings SET setting = 'off' WHERE name ~ 'strings'",
        "update",
        "changes-reading",
        "w:pg_settings",
    ),
    (
        "SELECT set_config($1, $2, $3)",
        "select",
        "set-role set-session-authorization changes-reading",
        "c:set_config",
    ),
    // Functions of PostgreSQL's own that touch the server's files; what is to be loaded.
    (
        "SELECT pg_catalog.pg_read_file('/etc/passwd')",
        "select",
        "server-file",
        "c:pg_catalog.pg_read_file",
    ),
    (
        r#"SELECT U&"lo\005fimport"('/etc/passwd')"#,
        "select",
        "server-file",
        "c:lo_import",
    ),
    (
        "ALTER ROLE bob SET local_preload_libraries = 'evil'",
        "privilege",
        "load",
        "",
    ),
    ("SET NAMES 'LATIN1'", "set", "changes-reading", ""),
    (
        "SET standard_conforming_strings = off",
        "set",
        "changes-reading",
        "",
    ),
    ("RESET ALL", "set", "changes-reading", ""),
    (
        "DISCARD ALL",
        "set",
        "set-session-authorization changes-reading",
        "",
    ),
    ("DISCARD PLANS", "set", "", ""),
    (
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "transaction",
        "",
        "",
    ),
    ("SET CONSTRAINTS ALL DEFERRED", "set", "", ""),
    (
        "ALTER SYSTEM SET work_mem = '1GB'",
        "alter-system",
        "alter-system",
        "",
    ),
    ("LOAD 'evil'", "load", "load", ""),
    // A library by another name, files and programs by another.
    (
        "CREATE FUNCTION run(text) RETURNS int AS '/lib/libc.so.6', 'system' LANGUAGE c",
        "ddl",
        "load",
        "d:run",
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE 'internal' AS 'x'",
        "ddl",
        "load",
        "d:f",
    ),
    (
        "CREATE OR REPLACE PROCEDURE p() LANGUAGE plpython3u AS 'import os'",
        "ddl",
        "load",
        "d:p",
    ),
    ("DO LANGUAGE plperlu 'unlink 1'", "do", "load do", ""),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE PLpgSQL AS 'begin end'",
        "ddl",
        "",
        "d:f",
    ),
    ("CREATE FUNCTION f() RETURNS int RETURN 1", "ddl", "", "d:f"),
    ("CREATE LANGUAGE mine HANDLER h", "ddl", "load", ""),
    (
        "CREATE FOREIGN TABLE t (a text) SERVER s OPTIONS (filename '/etc/passwd')",
        "ddl",
        "server-file",
        "d:t",
    ),
    (
        "ALTER FOREIGN TABLE t OPTIONS (DROP filename, ADD program 'id')",
        "ddl",
        "copy-program server-file",
        "d:t",
    ),
    (
        "SELECT pg_catalog.pg_file_write('a', 'b', false)",
        "select",
        "server-file",
        "c:pg_catalog.pg_file_write",
    ),
    (
        "DO $x$ BEGIN EXECUTE 'SET ROLE bob'; END $x$",
        "do",
        "do",
        "",
    ),
    ("CALL s.p(1)", "call", "", "c:s.p"),
    // The rest.
    ("BEGIN", "transaction", "", ""),
    ("COMMIT PREPARED 'x'", "transaction", "", ""),
    ("SAVEPOINT a", "transaction", "", ""),
    (
        "PREPARE p AS DELETE FROM t WHERE i = $1",
        "delete prepare",
        "",
        "w:t",
    ),
    (
        "EXECUTE p(set_config('role', 'bob', true))",
        "execute",
        "set-role",
        "c:set_config",
    ),
    ("DEALLOCATE ALL", "deallocate", "", ""),
    (
        "DECLARE c CURSOR FOR SELECT * FROM t",
        "select cursor",
        "",
        "r:t",
    ),
    ("FETCH 10 FROM c", "cursor", "", ""),
    ("CLOSE c", "cursor", "", ""),
    ("LISTEN a", "notify", "", ""),
    ("NOTIFY a, 'b'", "notify", "", ""),
    ("EXPLAIN DELETE FROM t", "explain", "", "w:t"),
    ("EXPLAIN ANALYZE DELETE FROM t", "delete", "", "w:t"),
    (
        "EXPLAIN (VERBOSE, ANALYZE) SELECT * FROM t",
        "select",
        "",
        "r:t",
    ),
    ("EXPLAIN (ANALYZE off) DELETE FROM t", "delete", "", "w:t"),
    (
        "EXPLAIN ANALYZE CREATE TABLE n AS SELECT * FROM t",
        "select ddl",
        "",
        "d:n r:t",
    ),
    (
        "EXPLAIN SELECT set_config('role', 'bob', true)",
        "explain",
        "set-role",
        "c:set_config",
    ),
    ("VACUUM FULL t", "maintenance", "", "d:t"),
    ("ANALYZE", "maintenance", "", ""),
    ("CLUSTER t USING i", "maintenance", "", "d:t"),
    ("REINDEX TABLE t", "maintenance", "", "d:t"),
    ("CHECKPOINT", "maintenance", "", ""),
    ("LOCK TABLE t IN SHARE MODE", "lock", "", "w:t"),
];

#[test]
fn statements_are_told_by_the_servers_grammar() {
    for (text, classes, flags, objects) in TABLE {
        let statement = one(text);
        assert_eq!(
            told(&statement),
            format!("{classes} | {flags} | {objects}"),
            "{text}"
        );
        assert!(statement.complete && !statement.approximate, "{text}");
        assert_eq!(statement.range, 0..text.len(), "{text}");
    }
}

#[test]
fn a_text_is_cut_into_its_statements_without_a_change() {
    let text = "  -- first; comment\n SELECT ';', E'it\\'s; ', \"a;b\" /* ; /* nested; */ */ ;;\n\
        DO $x$ BEGIN; $y$;$y$ END $x$ ;\tDELETE FROM ü WHERE a = 'é;'; \u{b}";
    let all = read(text.as_bytes(), PLAIN).unwrap();
    let texts: Vec<&str> = all
        .iter()
        .map(|one| text.get(one.range.clone()).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "SELECT ';', E'it\\'s; ', \"a;b\" /* ; /* nested; */ */",
            "DO $x$ BEGIN; $y$;$y$ END $x$",
            "DELETE FROM ü WHERE a = 'é;'",
        ]
    );
    assert_eq!(told(&all[2]), "delete |  | w:ü");
    for empty in ["", " ;; ", "-- nothing", "/* ; */"] {
        assert_eq!(read(empty.as_bytes(), PLAIN), Ok(Vec::new()), "{empty}");
    }
}

#[test]
fn functions_that_read_by_name_name_nothing_themselves() {
    for text in [
        "SELECT table_to_xml('s.t', true, true, '')",
        "SELECT query_to_xml_and_xmlschema('table s.t', true, true, '')",
        "SELECT * FROM ts_stat('table s.t')",
        "SELECT database_to_xmlschema(true, true, '')",
    ] {
        let all = read(text.as_bytes(), PLAIN).unwrap();
        assert!(all.iter().all(|one| !one.complete), "{text}");
        let runs = text.contains("'table");
        assert_eq!(
            all.iter().any(|one| one.flags.contains(&Flag::SetRole)),
            runs,
            "{text}"
        );
    }
}

/// `SYSTEM_USER` is reserved since PostgreSQL 16, so servers before it read this, and run it.
#[test]
fn what_another_grammar_may_have_is_told_by_its_words() {
    let text = "create temp table system_user (a int); set role postgres";
    let error = read(text.as_bytes(), PLAIN).unwrap_err();
    assert!(matches!(error, Unparsed::Syntax(_)), "{error:?}");
    for text in [
        text,
        "selec 1;SET LOCAL ROLE a",
        "selec 1; do $$ begin end $$",
        "selec 1;/**/Load 'x'",
        "selec 1;copy t to '/tmp/x'",
        "selec set_config('role', 'a', true)",
        r#"selec 1; set u&"r\006fle" = 'a'"#,
        "selec lo_import('/etc/passwd')",
        "selec 1; discard all",
        "selec 1; alter system reset all",
        "é role",
    ] {
        assert!(ascribe_sql::may_be_flagged(text.as_bytes()), "{text}");
    }
    for text in [
        "selec 1",
        "update t set a = '",
        "select doing, roles from",
        "selec u & 1",
    ] {
        assert!(!ascribe_sql::may_be_flagged(text.as_bytes()), "{text}");
    }
}

#[test]
fn what_is_not_in_the_grammar_is_unparsed() {
    for text in [
        "SELEC 1",
        "SELECT 1; DROP",
        "SELECT 'open",
        "IDENTIFY_SYSTEM",
        "$$",
        "SELECT E'\\",
    ] {
        let error = read(text.as_bytes(), PLAIN).unwrap_err();
        assert!(matches!(error, Unparsed::Syntax(_)), "{text}: {error:?}");
    }
    assert_eq!(
        read(b"SELECT '\0'", PLAIN),
        Err(Unparsed::Syntax("a zero byte".to_owned()))
    );
    let large = vec![b' '; ascribe_sql::MAX_TEXT + 1];
    assert_eq!(read(&large, PLAIN), Err(Unparsed::TooLarge(large.len())));
    let many = ";SELECT 1".repeat(10_001);
    assert_eq!(read(many.as_bytes(), PLAIN), Err(Unparsed::TooMany(10_001)));
}

#[test]
fn backslashes_that_escape_quotes_are_not_guessed_at() {
    let off = Reading {
        standard_conforming_strings: false,
        ..PLAIN
    };
    assert_eq!(read(br"SELECT '\\'", off), Err(Unparsed::Backslashes));
    // Without a backslash it is the same text.
    assert_eq!(read(b"SELECT 'a'", off), read(b"SELECT 'a'", PLAIN));
}

#[test]
fn other_encodings_are_parsed_where_a_quote_is_always_a_quote() {
    let safe = Reading {
        encoding: Encoding::AsciiSafe,
        ..PLAIN
    };
    let other = Reading {
        encoding: Encoding::Other,
        ..PLAIN
    };
    // LATIN1; not UTF-8.
    let latin1 = b"SELECT '\xe9;' AS \xe9; DELETE FROM t\xfc -- \xff\n";
    assert_eq!(read(latin1, PLAIN), Err(Unparsed::NotUtf8));
    assert_eq!(read(latin1, other), Err(Unparsed::Encoding));
    let all = read(latin1, safe).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(&latin1[all[0].range.clone()], b"SELECT '\xe9;' AS \xe9");
    assert_eq!(&latin1[all[1].range.clone()], b"DELETE FROM t\xfc -- \xff");
    assert!(all[0].approximate && all[1].approximate);
    assert_eq!(told(&all[1]), "delete |  | w:tü");
    // A byte beyond ASCII before a quote makes a name of what would be a hexadecimal string.
    assert!(read(b"SELECT \xe9'00'", safe).unwrap()[0].approximate);
    assert!(read(b"SELECT x'00'", other).is_ok());
    assert!(!read(b"SELECT 1", other).unwrap()[0].approximate);
    // The same in UTF-8, but said to be something else.
    assert!(read("SELECT 'é'".as_bytes(), safe).unwrap()[0].approximate);
    assert_eq!(Encoding::of_client(b"UTF8"), Encoding::Utf8);
    assert_eq!(Encoding::of_client(b"LATIN1"), Encoding::AsciiSafe);
    for name in [
        "SJIS",
        "BIG5",
        "GBK",
        "GB18030",
        "UHC",
        "JOHAB",
        "SHIFT_JIS_2004",
        "new",
    ] {
        assert_eq!(
            Encoding::of_client(name.as_bytes()),
            Encoding::Other,
            "{name}"
        );
    }
}

#[test]
fn replication_commands_count_only_where_the_connection_says_so() {
    let replication = Reading {
        replication: true,
        ..PLAIN
    };
    for text in [
        "IDENTIFY_SYSTEM",
        " base_backup ( LABEL 'x' )",
        "START_REPLICATION SLOT s LOGICAL 0/0;",
        "CREATE_REPLICATION_SLOT s LOGICAL pgoutput",
    ] {
        assert!(read(text.as_bytes(), PLAIN).is_err(), "{text}");
        let all = read(text.as_bytes(), replication).unwrap();
        assert_eq!(told(&all[0]), "replication | replication | ", "{text}");
    }
    let sql = read(b"SELECT base_backup", replication).unwrap();
    assert_eq!(told(&sql[0]), "select |  | ");
}

#[test]
fn more_objects_than_are_named_are_said_to_be_more() {
    let tables = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
        one(&format!("SELECT FROM {}", names.join(", ")))
    };
    let all = tables(MAX_OBJECTS);
    assert!(all.complete && all.objects.len() == MAX_OBJECTS);
    let more = tables(MAX_OBJECTS + 1);
    assert!(!more.complete && more.objects.len() == MAX_OBJECTS);
}
