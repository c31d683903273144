//! What statements name: on record where a grant bounds it, told from their opened texts elsewhere.

use serde_json::{Value, json};

use super::bank::Bank;
use super::raw::{Raw, bind, execute, message, parse, query, sync};

fn tables(bank: &Bank) {
    bank.cluster.sql(
        "orders",
        "create schema audit authorization dba; set role dba; create table orders (id int, open bool); \
         create table audit.log (id int); create function audit.count() returns bigint language sql \
         as 'select count(*) from audit.log'",
    );
}

/// What is shown of a statement's text.
fn sql(bank: &Bank, text: &str) -> Value {
    bank.action(text)["what"]["sql"].clone()
}

/// What names an object is listed by it, and how many may is said.
fn is_found_by_what_it_names(bank: &Bank, joined: &str, insert: &str) {
    let by = |object: &str| -> Vec<String> {
        let actions = bank.world.actions(&["--object", object]);
        actions
            .iter()
            .map(|action| action["what"]["command"].as_str().unwrap().to_owned())
            .collect()
    };
    let touched = by("public.orders");
    for text in [joined, insert, "delete from orders"] {
        assert!(touched.iter().any(|one| one == text), "{text}: {touched:?}");
    }
    assert!(
        !touched.iter().any(|one| one.contains("truncate")),
        "{touched:?}"
    );
    assert_eq!(by("audit.count"), [joined]);
    assert_eq!(by("PUBLIC.Orders"), touched);
    let folded = ["actions", "--object", "public.Orders"];
    let folded = bank.world.run(&folded).exits(0);
    assert!(
        folded.stderr.contains("looking for `public.orders`"),
        "{folded:?}"
    );
    let quoted = ["actions", "--object", "public.\"Orders\""];
    let quoted = bank.world.run(&quoted).exits(0);
    assert_eq!(quoted.stdout.trim(), "no action fits", "{quoted:?}");
    assert_eq!(by("public.nothing"), <[String; 0]>::default());
    let shown = bank.world.run(&["actions", "--object", "public.nothing"]);
    assert!(
        shown.stderr.contains("it is not known what they name"),
        "{shown:?}"
    );
}

#[test]
fn whoever_may_open_a_text_is_told_what_it_names() {
    let bank = Bank::open();
    tables(&bank);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let insert = "insert into audit.log select id from public.orders where lower('A') = $1";
    let (joined, gone) = ("select audit.count() from orders o", "selec * from orders");
    raw.ask(&query(joined));
    raw.ask(&query(gone));
    raw.ask(
        &[
            parse("", insert),
            bind("", "", &[b"a"]),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    // In a text of several, each names its own.
    raw.ask(&query("delete from orders; truncate audit.log"));
    // As PostgreSQL folds and quotes names, and in another encoding.
    raw.ask(&query("create table \"Caf\u{e9}.x\" (a int)"));
    raw.ask(&query("select * from \"Caf\u{e9}.x\", ORDERS"));
    raw.ask(&query("prepare p as select 1 from orders"));
    raw.ask(&[bind("", "p", &[]), execute(""), sync()].concat());
    raw.ask(&query("set client_encoding = 'LATIN1'"));
    raw.ask(&message(b'Q', b"select '\xe9' from audit.log\0"));

    let told = sql(&bank, joined);
    assert_eq!(told["objects"], json!(["orders"]), "{told}");
    assert_eq!(told["objects_from"], "text");
    assert_eq!(told["functions"], json!(["audit.count"]));
    let told = sql(&bank, insert);
    assert_eq!(
        told["objects"],
        json!(["audit.log", "public.orders"]),
        "{told}"
    );
    assert_eq!(told["functions"], json!(["lower"]));
    assert_eq!(
        sql(&bank, "delete from orders")["objects"],
        json!(["orders"])
    );
    assert_eq!(
        sql(&bank, "truncate audit.log")["objects"],
        json!(["audit.log"])
    );
    let quoted = sql(&bank, "select * from \"Caf\u{e9}.x\", ORDERS");
    assert_eq!(
        quoted["objects"],
        json!(["\"Caf\u{e9}.x\"", "orders", "*"]),
        "which letters these were to the server is not on record: {quoted}"
    );
    // What was not taken apart then is not now; what ran by a name says so.
    let told = sql(&bank, gone);
    assert_eq!(told["objects"], Value::Null, "{told}");
    assert!(
        told["unread"]
            .as_str()
            .unwrap()
            .contains("could not be taken apart"),
        "{told}"
    );
    let told = sql(&bank, "p");
    assert!(
        told["unread"].as_str().unwrap().contains("by a name"),
        "{told}"
    );
    let told = bank.actions();
    let latin = told.iter().find(|action| {
        action["what"]["command"]
            .as_str()
            .is_some_and(|text| text.ends_with("from audit.log") && text.starts_with("select '"))
    });
    // Names beyond ASCII would be approximate here, so not all is told for certain.
    assert_eq!(
        latin.unwrap()["what"]["sql"]["objects"],
        json!(["audit.log", "*"])
    );

    is_found_by_what_it_names(&bank, joined, insert);
    let id = bank.action(joined)["action_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = bank.world.run(&["show", &id]).exits(0).stdout;
    assert!(shown.contains("objects    orders (by its text)"), "{shown}");
    assert!(
        shown.contains("functions  audit.count (by its text)"),
        "{shown}"
    );
    // None of it is in the clear.
    let data = bank.world.data().join("segments");
    let clear = std::fs::read_dir(data)
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let name = b"audit.log";
    assert!(
        !clear
            .flatten()
            .collect::<Vec<u8>>()
            .windows(name.len())
            .any(|part| part == name)
    );
}

#[test]
fn what_a_grant_bounds_is_told_from_the_record() {
    let bank = Bank::without_grant(&[]);
    tables(&bank);
    bank.grant(&["--reusable", "--object", "public.orders"]);
    let text = "select lower('A') from public.orders";
    bank.psql(&["-c", text]).exits(0);
    let told = sql(&bank, text);
    assert_eq!(told["objects"], json!(["public.orders"]), "{told}");
    assert_eq!(told["objects_from"], "record");
    assert_eq!(told["functions"], json!(["lower"]));
}

/// Texts that are as large as they may be take time: reading a list of them ends nonetheless.
#[test]
fn a_list_of_large_texts_is_read_in_part_and_one_by_itself_in_full() {
    let bank = Bank::open();
    tables(&bank);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    for n in 0..10 {
        let text = format!("select {n} from orders -- {}", "x".repeat(1_000_000));
        raw.ask(&query(&text));
    }
    let large = |action: &Value| {
        action["what"]["command_b64"]
            .as_str()
            .unwrap_or_default()
            .len()
            > 1_000_000
    };
    let mut all = bank.all_actions();
    all.retain(large);
    assert_eq!(all.len(), 10);
    let unread: Vec<&Value> = all
        .iter()
        .filter(|one| !one["what"]["sql"]["unread"].is_null())
        .collect();
    assert!((1..10).contains(&unread.len()), "{}", unread.len());
    let id = unread[0]["action_id"].as_str().unwrap();
    let one = bank.world.json(&["show", id]).line();
    assert_eq!(one["what"]["sql"]["objects"], json!(["orders"]));
}
