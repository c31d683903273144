//! A database that only security keys enter, which somebody touches for each session.

use serde_json::Value;

use super::bank::{Bank, PLACE};
use super::token::Enrolled;

#[test]
fn a_database_asks_for_a_touch() {
    let bank = Bank::open();
    let token = Enrolled::of(&bank.world, "operator");
    bank.register(&["--actor-assurance", "3"]);
    let plain = bank.psql(&["-c", "select 'by a file'"]);
    assert!(plain.stderr.contains("security key"), "{plain:?}");
    let psql = |flags, sql| {
        let args = [
            "psql", PLACE, "--", "-X", "-A", "-t", "-d", "orders", "-c", sql,
        ];
        token.run(&bank.world, flags, &args)
    };
    let untouched = psql(0, "select 'untouched'");
    assert!(untouched.stderr.contains("nobody touched"), "{untouched:?}");
    assert_eq!(psql(1, "select 'touched'").exits(0).stdout, "touched\n");
    // Of the connection and of the statement.
    let levels = || -> Vec<u64> {
        let of = |action: &Value| action["who"]["chain"][0]["assurance"].as_u64().unwrap();
        bank.actions().iter().map(of).collect()
    };
    assert_eq!(levels(), [3, 3]);
    let action = bank.action("select 'touched'");
    assert_eq!(action["who"]["opened_by"], "signed");
    let session = action["session_id"].as_str().unwrap();
    let shown = bank.world.run_as("operator", &["show", session]).exits(0);
    assert!(shown.stdout.contains("\"assurance\":3"), "{shown:?}");
    // What came later changes no older record.
    let person = bank.world.person("operator").0;
    let revoke = ["key", "revoke", &person, "--public-key", &token.public];
    bank.world.run_as("approver", &revoke).exits(0);
    assert_eq!(levels(), [3, 3]);
    bank.world.ended_session(session);
    let file = bank.world.path("touched.bundle");
    let file = file.to_str().unwrap();
    bank.world.json(&["export", session, "-f", file]);
    let report = bank
        .world
        .verify(std::path::Path::new(file), &bank.world.policy())
        .exits(0);
    assert!(report.stdout.contains("\"assurance\":3"), "{report:?}");
}
