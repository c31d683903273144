//! Who comes in, and who does not.

use super::bank::{Bank, PLACE};

#[test]
fn a_session_names_the_person_and_nobody_holds_the_roles_password() {
    let mut bank = Bank::open();
    let out = bank.psql(&["-c", "select current_user, 6 * 7"]).exits(0);
    assert_eq!(out.stdout.trim(), "dba|42");
    let done = bank.action("select current_user, 6 * 7");
    assert_eq!(done["what"]["kind"], "pg.query");
    assert_eq!(done["what"]["account"], "dba");
    assert_eq!(done["what"]["method"], "gateway.postgres");
    assert_eq!(
        done["what"]["sql"]["classes"],
        serde_json::json!(["select"])
    );
    let outcome = &done["what"]["outcome"];
    assert_eq!(outcome["status"], "succeeded");
    assert_eq!(outcome["sql"]["tag"], "SELECT 1");
    assert_eq!(outcome["sql"]["rows"], 1);
    let who = &done["who"];
    assert_eq!(who["opened_by"], "signed");
    assert_eq!(who["door"], "tunnel");
    let operator = bank.world.person("operator").0;
    assert_eq!(who["chain"][0]["principal"], operator.as_str());
    assert_eq!(
        done["why"]["justification"],
        "repair what broke this morning"
    );
    // The database names the session, and its process is on record.
    let session = done["session_id"].as_str().unwrap();
    let line = |line: &&str| line.contains("select current_user, 6 * 7");
    let log = bank.cluster.log();
    let line = log.lines().find(line).unwrap();
    assert!(line.contains(&format!("ascribe/{session}")), "{line}");
    let process = line.split_whitespace().nth(3).unwrap();
    let actions = bank.actions();
    let connected = actions
        .iter()
        .find(|a| a["what"]["kind"] == "pg.connect")
        .unwrap();
    let notes = connected["what"]["outcome"]["notes"].to_string();
    assert!(
        notes.contains(&format!("backend {process}")),
        "{notes} {line}"
    );
    // What is stored verifies offline, and the ended session's bundle too.
    bank.world.ended_session(session);
    let bundle = bank.world.path("session.bundle");
    bank.world
        .run(&["export", session, "-f", bundle.to_str().unwrap()])
        .exits(0);
    let policy = bank.world.policy();
    bank.world.verify(&bundle, &policy).exits(0);
    bank.stop();
    bank.world.verify(&bank.world.data(), &policy).exits(0);
}

#[test]
fn a_signed_statement_is_a_password_once() {
    let bank = Bank::open();
    let token = bank.token();
    let full = "sslmode=verify-full";
    let out = bank.psql_at_the_port(&token, full, "select 7").exits(0);
    assert_eq!(out.stdout.trim(), "7");
    assert_eq!(bank.action("select 7")["who"]["door"], "password");
    let again = bank.psql_at_the_port(&token, full, "select 8").exits(2);
    assert!(again.stderr.contains("used before"), "{}", again.stderr);
    // Another's words, and nobody's.
    for wrong in ["secret", "ascribe-v1.e30", "ascribe-v1.%%"] {
        let out = bank.psql_at_the_port(wrong, full, "select 8").exits(2);
        assert!(out.stderr.contains("no signed statement"), "{}", out.stderr);
        assert!(
            out.stderr.contains("ascribe token dba@orders-db"),
            "{}",
            out.stderr
        );
    }
    let clear = bank.psql_at_the_port(&bank.token(), "sslmode=disable", "select 8");
    assert!(clear.exits(2).stderr.contains("over TLS only"));
    assert!(!bank.cluster.log().contains("select 8"));
}

/// Whoever reads the log could bring what is on record.
#[test]
fn a_signed_statement_that_is_on_record_is_no_password() {
    let bank = Bank::without_grant(&[]);
    let (token, full) = (bank.token(), "sslmode=verify-full");
    let out = bank.psql_at_the_port(&token, full, "select 11").exits(2);
    assert!(out.stderr.contains("you hold no grant"), "{}", out.stderr);
    bank.grant(&["--reusable"]);
    let copy = bank.psql_at_the_port(&token, full, "select 11").exits(2);
    assert!(copy.stderr.contains("used before"), "{}", copy.stderr);
    bank.psql_at_the_port(&bank.token(), full, "select 11")
        .exits(0);
}

#[test]
fn without_a_grant_nobody_comes_in() {
    let bank = Bank::without_grant(&["--database", "orders"]);
    let out = bank.psql(&["-c", "select 9"]).exits(2);
    assert!(out.stderr.contains("you hold no grant"), "{}", out.stderr);
    assert!(
        out.stderr.contains("ascribe request dba@orders-db"),
        "{}",
        out.stderr
    );
    bank.grant(&["--reusable"]);
    // Another database than the rules allow.
    let out = bank.psql(&["-d", "postgres", "-c", "select 9"]).exits(2);
    assert!(
        out.stderr.contains("does not allow the database"),
        "{}",
        out.stderr
    );
    // A connection may not set what a statement may not.
    let mut command = bank.world.ascribe(&["--key"]);
    command.arg(bank.world.person("operator").1);
    command.args(["psql", PLACE, "--", "-d", "orders", "-c", "select 9"]);
    command.env("PGOPTIONS", "-c role=postgres");
    let out = bank.world.program(command).exits(2);
    assert!(
        out.stderr.contains("does not allow `set-role`"),
        "{}",
        out.stderr
    );
    assert!(!bank.cluster.log().contains("select 9"));
    bank.psql(&["-c", "select 10"]).exits(0);
}

#[test]
fn a_server_with_another_certificate_is_not_logged_in_to() {
    let bank = Bank::open();
    let other = bank.world.path("gateway.crt");
    bank.register(&["--tls-ca", other.to_str().unwrap()]);
    bank.psql(&["-c", "select 1"]).exits(0);
    // Registered with the other one alone.
    let owner = bank.world.person("approver").0;
    let address = format!("localhost:{}", bank.cluster.port);
    let add = [
        "target",
        "add",
        "orders-db",
        "--postgres",
        "--address",
        &address,
        "--allow-loopback",
        "--tls-ca",
        other.to_str().unwrap(),
        "--account",
        "dba",
        "--owner",
        &owner,
    ];
    bank.world.run_as("approver", &add).exits(0);
    let out = bank.psql(&["-c", "select 2"]).exits(2);
    assert!(out.stderr.contains("TLS is not trusted"), "{}", out.stderr);
    assert!(!bank.cluster.log().contains("select 2"));
}
