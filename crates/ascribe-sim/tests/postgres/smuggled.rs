//! What is dangerous, said so that it does not look like it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::bank::{Bank, PLACE};
use super::world::{PATIENCE, Running, wait_for};

/// A message of the protocol.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

/// Bind without values, and Execute.
fn run(statement: &str) -> Vec<u8> {
    let bind = format!("\0{statement}\0\0\0\0\0\0\0");
    [message(b'B', bind.as_bytes()), message(b'E', &[0; 5])].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// FunctionCall with texts, and the result as a text.
fn call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    message(b'F', &body)
}

/// A client that says what it is told to, through a tunnel.
struct Client {
    stream: TcpStream,
    _tunnel: Running,
}

impl Client {
    fn new(bank: &Bank) -> Self {
        let key = bank.world.person("operator").1;
        let mut command = bank.world.ascribe(&["-o", "json", "--key"]);
        command.arg(key).args(["tunnel", PLACE]);
        let tunnel = Running::start(command, &bank.world.path("logs"), true);
        let port = wait_for("tunnel", PATIENCE, || {
            let said: serde_json::Value = serde_json::from_str(tunnel.stdout().trim()).ok()?;
            u16::try_from(said["port"].as_u64()?).ok()
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = format!("\0\u{3}\0\0user\0{PLACE}\0database\0orders\0\0");
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        stream
            .write_all(&[&length[..], body.as_bytes()].concat())
            .unwrap();
        let mut client = Self {
            stream,
            _tunnel: tunnel,
        };
        client.until_ready();
        client
    }

    /// What is answered up to ReadyForQuery, roughly as text.
    #[track_caller]
    fn until_ready(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header).expect(&all);
            let [kind, length @ ..] = header;
            let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
            self.stream.read_exact(&mut body).unwrap();
            let text = String::from_utf8_lossy(&body).replace('\0', " ");
            all.push_str(&format!("{} {text}\n", char::from(kind)));
            if kind == b'Z' {
                return all;
            }
        }
    }

    #[track_caller]
    fn ask(&mut self, bytes: &[u8]) -> String {
        self.stream.write_all(bytes).unwrap();
        self.until_ready()
    }

    #[track_caller]
    fn is_refused(&mut self, bytes: &[u8]) {
        let said = self.ask(bytes);
        assert!(said.contains("not recorded, so not run"), "{said}");
        let user = self.ask(&query("select current_user"));
        assert!(user.contains("dba"), "{user}");
    }
}

/// The database is older than our grammar: it has no reserved word `system_user`.
#[test]
fn what_only_the_servers_grammar_has_hides_nothing() {
    let bank = Bank::open();
    let mut client = Client::new(&bank);
    let hidden = "create temp table system_user (a int); set role postgres";
    client.is_refused(&query(hidden));
    client.is_refused(&[parse("", "selec 1 as role"), run(""), sync()].concat());
    client.is_refused(&[parse("", "selec 1 as role"), sync()].concat());
    // What is merely no SQL is the server's to refuse.
    let said = client.ask(&query("selec 1"));
    assert!(said.contains("syntax error"), "{said}");
}

#[test]
fn a_function_called_by_its_number_sets_no_role() {
    let bank = Bank::open();
    let mut client = Client::new(&bank);
    // set_config, pg_read_file, query_to_xml.
    client.is_refused(&call(2078, &["role", "postgres", "f"]));
    client.is_refused(&call(3826, &["PG_VERSION"]));
    client.is_refused(&call(2924, &["select 1", "t", "t", ""]));
    client.is_refused(&query("select pg_read_file('PG_VERSION')"));
    client.is_refused(&query(
        "select query_to_xml('select set_config(''role'', ''postgres'', false)', true, true, '')",
    ));
}

/// With backslashes that escape, the call is no part of a string; without them it is.
#[test]
fn a_statement_is_what_it_was_when_it_was_prepared() {
    const TEXT: &str = r"select 'a\', ', set_config($$role$$, $$postgres$$, false) --'";
    let set = |to: &str| format!("set standard_conforming_strings = {to}");
    let bank = Bank::open();
    let mut client = Client::new(&bank);
    client.ask(&query(&set("off")));
    client.is_refused(&[parse("s", TEXT), sync()].concat());
    client.ask(&query(&set("on")));
    // The same within a group, at whose end nothing has changed.
    let (off, on) = (set("off"), set("on"));
    let group = [
        [parse("", &off), run(""), parse("t", TEXT)].concat(),
        [parse("", &on), run(""), sync()].concat(),
    ];
    client.is_refused(&group.concat());
    let said = client.ask(&[run("t"), sync()].concat());
    assert!(said.contains("does not exist"), "{said}");
    // Where such texts are allowed, it is not taken for what it would be now.
    bank.register(&["--allow", "unread"]);
    client.ask(&query(&off));
    client.ask(&[parse("u", TEXT), sync()].concat());
    client.ask(&query(&on));
    client.ask(&[run("u"), sync()].concat());
    let mut actions = bank.actions();
    actions.retain(|action| action["what"]["command"] == TEXT);
    let classes = |kind: &str| {
        let of = |action: &&serde_json::Value| action["what"]["kind"] == kind;
        actions.iter().find(of).unwrap()["what"]["sql"]["classes"].clone()
    };
    assert_eq!(classes("pg.prepare"), serde_json::json!(["unparsed"]));
    assert_eq!(classes("pg.execute"), serde_json::json!(["unparsed"]));
    // What is prepared as it is read now, is read.
    let said = client.ask(&[parse("v", r"select 'a\'"), run("v"), sync()].concat());
    assert!(said.contains("SELECT 1"), "{said}");
}

/// How texts are read changes without a word of it: by the end of a transaction, and by functions.
#[test]
fn a_text_is_read_as_it_is_once_all_before_it_is_done() {
    let bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table t (a text); alter table t owner to dba; \
         create function quietly() returns text language sql as \
         $$select set_config('standard_conforming_strings', 'off', false)$$",
    );
    // With backslashes that escape, the string ends behind `$$`, and what follows is a statement of its own.
    let touched = |n: u8| format!("/tmp/ascribe-{}-{n}", std::process::id());
    let program = |n: u8| {
        let file = touched(n);
        format!(r"select '\', $$'; copy t to program $x$touch {file}$x$ --$$")
    };
    let set = |value: &str| format!("set standard_conforming_strings = {value}");
    let group = |texts: &[&str]| -> Vec<u8> {
        let one = |text: &&str| [parse("", text), run("")].concat();
        [texts.iter().map(one).collect::<Vec<_>>().concat(), sync()].concat()
    };
    let queries = |texts: &[&str]| -> Vec<u8> {
        let all: Vec<_> = texts.iter().map(|text| query(text)).collect();
        all.concat()
    };
    // What is answered up to so many ReadyForQuery.
    let refused = |client: &mut Client, bytes: &[u8], groups: usize| {
        client.stream.write_all(bytes).unwrap();
        let said: String = (0..groups).map(|_| client.until_ready()).collect();
        assert!(said.contains("not recorded, so not run"), "{said}");
    };
    let mut n = 0;
    let mut next = || {
        n += 1;
        program(n)
    };
    for end in ["rollback", "rollback to s"] {
        let mut client = Client::new(&bank);
        client.ask(&query(&set("off")));
        client.ask(&query("begin; savepoint s"));
        client.ask(&query(&set("on")));
        refused(&mut client, &queries(&[end, &next()]), 2);
        client.ask(&query("rollback"));
        client.ask(&query("begin; savepoint s"));
        client.ask(&query(&set("on")));
        refused(&mut client, &[group(&[end]), group(&[&next()])].concat(), 2);
        client.ask(&query("rollback"));
        client.ask(&query("begin; savepoint s"));
        client.ask(&query(&set("on")));
        // Within a group nothing is answered before its end.
        refused(&mut client, &group(&[end, &next()]), 1);
    }
    // Committed as it was set for the transaction alone.
    let mut client = Client::new(&bank);
    client.ask(&query(&set("off")));
    client.ask(&query("begin; set local standard_conforming_strings = on"));
    refused(&mut client, &queries(&["commit", &next()]), 2);
    // By a function, a prepared statement and a cursor.
    let mut client = Client::new(&bank);
    refused(&mut client, &queries(&["select quietly()", &next()]), 2);
    let mut client = Client::new(&bank);
    let quietly = "select set_config('standard_conforming_strings', $1, false)";
    client.ask(&query(&format!("prepare x as {quietly}")));
    refused(&mut client, &queries(&["execute x('off')", &next()]), 2);
    client.ask(&query(&set("on")));
    client.ask(&query("begin"));
    client.ask(&query("declare c cursor for select quietly()"));
    refused(&mut client, &queries(&["fetch c", &next()]), 2);
    // Whoever changes nothing is not slowed down within a group, nor refused.
    let mut client = Client::new(&bank);
    let said = client.ask(&group(&["select 'é'", r"select 'a\b'", r"select E'a\'b'"]));
    assert_eq!(said.matches("SELECT 1").count(), 3, "{said}");
    for n in 1..=n {
        assert!(!std::path::Path::new(&touched(n)).exists());
    }
}

/// Copying that begins with what changes how texts are read needs the client's data before it is answered.
#[test]
fn what_is_copied_behind_a_change_of_reading_is_not_waited_for() {
    let bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table t (a text); alter table t owner to dba",
    );
    let mut client = Client::new(&bank);
    let copy = query("set standard_conforming_strings = off; copy t from stdin");
    let data = [message(b'd', b"one\n"), message(b'c', b"")].concat();
    let said = client.ask(&[copy, data].concat());
    assert!(said.contains("COPY 1"), "{said}");
    assert_eq!(bank.cluster.sql("orders", "select a from t"), "one\n");
}

/// A server reads literals when it prepares, by a domain's own check; it plans when it binds, and calls
/// what it was told is immutable.
#[test]
fn nothing_runs_by_preparing_that_is_not_on_record() {
    let bank = Bank::without_grant(&[]);
    bank.cluster.sql(
        "orders",
        "create table t (a text); \
         create function write(a text) returns bool language sql volatile as 'insert into t values (a) returning true'; \
         create function fixed(a text) returns bool language plpgsql immutable as 'begin return write(a); end'; \
         create domain evil as text check (write(value)); \
         alter table t owner to dba",
    );
    bank.grant(&["--reusable", "--class", "select"]);
    let rows = || bank.cluster.sql("orders", "select a from t order by a");
    let mut client = Client::new(&bank);
    // The last one binds, and runs nothing.
    let bind = |statement: &str| {
        let mut both = run(statement);
        both.truncate(both.len() - 10);
        both
    };
    client.ask(&[parse("", r"select '{one}'::evil[]"), sync()].concat());
    client.ask(&[parse("s", "select fixed('two')"), sync()].concat());
    client.ask(&[bind("s"), sync()].concat());
    assert_eq!(rows(), "one\ntwo\n");
    let one = bank.action("select '{one}'::evil[]");
    assert_eq!(one["what"]["kind"], "pg.prepare");
    assert_eq!(one["what"]["outcome"]["status"], "succeeded");
    let mut two = bank.actions();
    two.retain(|action| action["what"]["command"] == "select fixed('two')");
    assert_eq!(two.len(), 2, "{two:?}");
    // What is refused does not reach the server by its preparation either, alone or not.
    let refused = parse("", "delete from t where '{three}'::evil[] is null");
    client.is_refused(&[&refused[..], &sync()].concat());
    client.is_refused(&[&refused[..], &run(""), &sync()].concat());
    assert_eq!(rows(), "one\ntwo\n");
    assert!(!bank.cluster.log().contains("three"));
    // What is run at once is one action.
    let said = client.ask(&[parse("", "select fixed('four')"), run(""), sync()].concat());
    assert!(said.contains("SELECT 1"), "{said}");
    let mut four = bank.actions();
    four.retain(|action| action["what"]["command"] == "select fixed('four')");
    assert_eq!(four.len(), 1, "{four:?}");
    // Preparing what fails has an outcome, too.
    client.ask(&[parse("", "select nothing"), sync()].concat());
    let failed = bank.action("select nothing");
    assert_eq!(failed["what"]["outcome"]["sql"]["sqlstate"], "42703");
}

#[test]
fn a_bounded_grant_is_not_led_elsewhere() {
    let bank = Bank::without_grant(&[]);
    bank.cluster.sql(
        "orders",
        "set role dba; create table t (a int); create schema elsewhere; \
         create table elsewhere.t (a int); create table \"public.t\" (a int); \
         create schema \"public.x\"; create table \"public.x\".t (a int)",
    );
    bank.grant(&["--reusable", "--object", "public.*"]);
    bank.psql(&["-c", "select * from public.t"]).exits(0);
    for outside in [
        "select * from \"public.t\"",
        "select * from \"public.x\".t",
        "select table_to_xml('elsewhere.t', true, true, '')",
    ] {
        let out = bank.psql(&["-c", outside]).exits(1);
        let refused = out.stderr.contains("the grant is not for");
        assert!(refused, "{outside}: {}", out.stderr);
    }
}

#[test]
fn a_script_means_what_it_meant_to_its_approver() {
    let bank = Bank::without_grant(&[]);
    bank.cluster.sql(
        "orders",
        "set role dba; create table t (a int); create schema elsewhere; create table elsewhere.t (a int)",
    );
    let script = bank.world.path("repair.sql");
    std::fs::write(&script, "insert into t values (1);\n").unwrap();
    let script = script.to_str().unwrap();
    bank.grant(&["--reusable", "--script", script]);
    let at = |options: &str| {
        let token = bank.token();
        let text = std::fs::read_to_string(script).unwrap();
        bank.psql_at_the_port(&token, &format!("sslmode=verify-full {options}"), &text)
    };
    let out = at("options=-csearch_path=elsewhere").exits(2);
    assert!(out.stderr.contains("sets parameters"), "{}", out.stderr);
    assert_eq!(bank.cluster.sql("orders", "select * from elsewhere.t"), "");
    at("").exits(0);
    assert_eq!(bank.cluster.sql("orders", "select * from t"), "1\n");
}
