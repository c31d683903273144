//! SASL's OAUTHBEARER, as libpq 18 has it: where the server is told to, the token is asked for by that.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::bank::Bank;
use super::bearers::{BEARER, FULL, minted, psql, registered, token};
use super::drivers::{SOURCES, server};
use super::idp::Idp;
use super::raw::{Raw, Secured, kinds, message, secured};
use super::tokio_driver::trusting;
use super::world::{Out, maybe, need};

const OAUTH: [&str; 2] = ["--postgres-oauth", "orders-db=github:openid ascribe"];

/// The library of the clients of this version.
fn libpq(version: u8) -> Option<PathBuf> {
    maybe("python3")?;
    let bin = server(version)?;
    Some(bin.parent().unwrap().join("lib/libpq.so.5"))
}

/// A bank whose database is entered by OAUTHBEARER, and who issues the tokens.
fn open() -> Option<(Bank, Idp)> {
    let issuer = Idp::of_jobs(BEARER)?;
    let mut bank = registered(&issuer, &[]);
    bank.start_with(&OAUTH);
    Some((bank, issuer))
}

/// Connects with a library that is given this token when it asks for one.
fn connect(bank: &Bank, library: &Path, token: Option<&str>, options: &str, sql: &str) -> Out {
    let mut command = Command::new(need("python3"));
    command
        .arg(Path::new(SOURCES).join("oauth_client.py"))
        .arg(library)
        .arg(sql)
        // The issuer of these tests has no certificate.
        .env("PGOAUTHDEBUG", "UNSAFE")
        .env("CONNECT", bank.at_the_port(&format!("{FULL} {options}")));
    if let Some(token) = token {
        command.env("TOKEN", token);
    }
    bank.world.program(command)
}

#[test]
fn libpq_18_is_told_where_tokens_come_from_and_logs_in_with_one() {
    let (Some(library), Some((bank, issuer))) = (libpq(18), open()) else {
        return;
    };
    let good = token(&bank, &issuer, "ascribe");
    let document = format!("{}/.well-known/openid-configuration", issuer.issuer);
    let known = |issuer: &str| format!("oauth_issuer={issuer} oauth_client_id=job");
    let asked = known(&issuer.issuer);
    let go = |token: Option<&str>, options: &str, sql: &str| {
        connect(&bank, &library, token, options, sql)
    };
    // It shows nothing first, and learns from that. In TLS from the first byte it does the same.
    for (options, sql) in [
        ("", "select 6 * 7"),
        (" sslnegotiation=direct", "select 42"),
    ] {
        let out = go(
            Some(&good),
            &format!("{asked} require_auth=oauth{options}"),
            sql,
        )
        .exits(0);
        assert_eq!(out.stdout, "42\n");
        assert_eq!(
            out.stderr.trim(),
            format!("asked {document} openid ascribe")
        );
    }
    // It knows where, and shows the token at once.
    let out = go(Some(&good), &known(&document), "select 8").exits(0);
    assert_eq!(out.stderr.trim(), format!("asked {document} -"));
    let done = bank.action("select 6 * 7");
    let who = &done["who"];
    assert_eq!(
        (
            &who["door"],
            &who["opened_by"],
            &who["chain"][0]["assurance"]
        ),
        (&json!("bearer"), &json!("testimony"), &json!(1)),
        "{done}"
    );
    assert_eq!(who["chain"][0]["display"], "deploy-shop");

    let refused = |token: Option<&str>, options: &str, why: &str| {
        let out = go(token, options, "select 'let in'").exits(2);
        assert!(out.stderr.contains(why), "{why}: {}", out.stderr);
        assert!(!out.stderr.contains("eyJ"), "{}", out.stderr);
    };
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let swapped: String = std::iter::once(first)
        .chain(signature.chars().skip(1))
        .collect();
    let forged = format!("{signed}.{swapped}");
    let stranger =
        json!({ "repository_id": "74002", "sub": "repo:evil/shop:environment:production" });
    let stranger = minted(&bank, &issuer, &stranger);
    for asked in [&asked, &known(&document)] {
        refused(Some(&forged), asked, "signature");
        refused(Some(&stranger), asked, "conditions of no workload");
        refused(Some("secret"), asked, "no workload's token");
    }
    refused(None, &asked, "no OAuth flows are available");
    refused(Some(&good), &known("https://other.example"), "incompatible");
    refused(Some(&good), "", "oauth_issuer and oauth_client_id");
    assert!(!bank.cluster.log().contains("let in"));
    let said = bank.server().stderr();
    assert!(!said.contains("eyJ"), "{said}");
}

#[test]
fn where_it_is_asked_for_is_said_by_target_and_role() {
    let (Some(library), Some((mut bank, issuer))) = (libpq(18), open()) else {
        return;
    };
    let good = token(&bank, &issuer, "ascribe");
    let document = format!("{}/.well-known/openid-configuration", issuer.issuer);
    let known = |issuer: &str| format!("oauth_issuer={issuer} oauth_client_id=job");
    let asked = known(&issuer.issuer);
    // Somebody who signed for it shows that.
    let mine = bank.world.person("operator").0;
    bank.grant(&["--reusable"]);
    connect(
        &bank,
        &library,
        Some(&bank.token()),
        &known(&document),
        "select 9",
    )
    .exits(0);
    let who = &bank.action("select 9")["who"];
    assert_eq!(
        (&who["door"], &who["opened_by"]),
        (&json!("password"), &json!("signed"))
    );
    assert_eq!(who["chain"][0]["principal"], mine.as_str());

    // Other roles, and other targets, are asked for the password as ever.
    bank.start_with(&[
        "--postgres-oauth",
        "app@orders-db=github",
        "--postgres-oauth",
        "other=github",
    ]);
    let out = connect(
        &bank,
        &library,
        Some(&good),
        &format!("{asked} require_auth=oauth"),
        "select 10",
    );
    let said = out.exits(2).stderr;
    assert!(said.contains("requirement \"oauth\" failed"), "{said}");
    psql(&bank, &good, "select 11").exits(0);
    // The role that is named comes before the target as a whole, and a provider may be missing.
    let named = [
        "--postgres-oauth",
        "orders-db=github",
        "--postgres-oauth",
        "dba@orders-db=nobody",
    ];
    bank.start_with(&named);
    let out = connect(&bank, &library, Some(&good), &asked, "select 12").exits(2);
    assert!(
        out.stderr.contains("no discovery metadata"),
        "{}",
        out.stderr
    );
    connect(&bank, &library, Some(&good), &known(&document), "select 12").exits(0);
    assert!(
        bank.server()
            .stderr()
            .contains("`nobody`, which is not registered")
    );
}

#[test]
fn clients_that_know_no_oauthbearer_are_asked_for_the_password_or_told() {
    let Some((bank, issuer)) = open() else {
        return;
    };
    let good = token(&bank, &issuer, "ascribe");
    // This machine's psql names no protocol in TLS.
    let old = psql(&bank, &good, "select 1").exits(0);
    assert_eq!(old.stdout, "1\n");
    let none = psql(&bank, "", "select 1").exits(2);
    assert!(
        none.stderr.contains("no password supplied"),
        "{}",
        none.stderr
    );
    let wrong = psql(&bank, "secret", "select 1").exits(2);
    assert!(
        wrong.stderr.contains("no workload's token"),
        "{}",
        wrong.stderr
    );
    // libpq 17 names it and knows no OAUTHBEARER; 16 is as old as this machine's.
    for (version, why) in [
        (17, "none of the server's SASL authentication mechanisms"),
        (16, ""),
    ] {
        let Some(library) = libpq(version) else {
            return;
        };
        let options = format!("password={good}");
        let out = connect(&bank, &library, None, &options, "select 2");
        if why.is_empty() {
            assert_eq!(out.exits(0).stdout, "2\n");
        } else {
            let out = out.exits(2);
            assert!(out.stderr.contains(why), "{}", out.stderr);
        }
    }
}

/// Within TLS that names the protocol, ready for the answer to what was asked.
fn asked(bank: &Bank) -> Raw<Secured> {
    let mut raw = secured(bank, trusting(&bank.world.path("gateway.crt")));
    raw.begin(&[]);
    let said = raw.hear().unwrap();
    assert_eq!(
        (said.kind, &said.body[..]),
        (b'R', &b"\0\0\0\x0aOAUTHBEARER\0\0"[..])
    );
    raw
}

fn initial(mechanism: &str, data: Option<&[u8]>) -> Vec<u8> {
    let length = data.map_or(u32::MAX, |data| u32::try_from(data.len()).unwrap());
    let data = data.unwrap_or_default();
    message(
        b'p',
        &[mechanism.as_bytes(), b"\0", &length.to_be_bytes(), data].concat(),
    )
}

#[test]
fn what_is_no_oauthbearer_ends_the_connection_with_a_word() {
    let Some((bank, issuer)) = open() else {
        return;
    };
    let good = token(&bank, &issuer, "ascribe");
    let shown = format!("n,,\x01auth=Bearer {good}\x01\x01");
    let shown = shown.as_bytes();
    let large = format!("n,,\x01auth=Bearer {}\x01\x01", "a".repeat(65_400));
    let other = initial("SCRAM-SHA-256", Some(shown));
    let cut = initial("OAUTHBEARER", Some(&shown[..shown.len() - 1]));
    let longer = [&initial("OAUTHBEARER", Some(shown))[..], b""].concat();
    let mut short = longer.clone();
    short[4 + 1 + 12 + 3] ^= 1;
    for (said, why) in [
        (other, "another mechanism"),
        (cut, "no end"),
        (short, "malformed"),
        (initial("OAUTHBEARER", Some(b"")), "GS2"),
        (
            initial("OAUTHBEARER", Some(b"n,a=dba,\x01auth=\x01\x01")),
            "somebody else",
        ),
        (message(b'p', b"OAUTHBEARER"), "string without its end"),
        (
            message(b'Q', b"select 'let in'\0"),
            "a password was asked for",
        ),
    ] {
        let mut raw = asked(&bank);
        raw.say(&said);
        let rest = raw.rest();
        assert_eq!(kinds(&rest), "E", "{why}: {rest:?}");
        let text = rest[0].text();
        assert!(
            text.contains("08P01") && text.contains(why),
            "{why}: {text}"
        );
    }
    // As large as a token may be, it is read and refused as one; larger, the connection ends.
    let mut raw = asked(&bank);
    raw.say(&initial("OAUTHBEARER", Some(large.as_bytes())));
    let failed = raw.hear().unwrap();
    let told: Value = serde_json::from_slice(&failed.body[4..]).unwrap();
    assert_eq!(told["status"], "invalid_token");
    raw.say(&message(b'p', b"\x01"));
    let rest = raw.rest();
    assert!(rest[0].text().contains("no workload's token"), "{rest:?}");
    let mut raw = asked(&bank);
    let larger = large.replace("aaaa", "aaaaa");
    raw.say(&initial("OAUTHBEARER", Some(larger.as_bytes())));
    assert!(raw.rest().is_empty());

    // Who goes on after a failure instead of ending it is not heard: no second token is tried.
    for (second, why) in [
        (shown, "goes on"),
        (&b"\x01\x01"[..], "goes on"),
        (b"", "goes on"),
    ] {
        let mut raw = asked(&bank);
        raw.say(&initial("OAUTHBEARER", Some(b"n,,\x01auth=\x01\x01")));
        assert_eq!(raw.hear().unwrap().body[..4], [0, 0, 0, 11]);
        raw.say(&message(b'p', second));
        let rest = raw.rest();
        assert_eq!(kinds(&rest), "E");
        assert!(rest[0].text().contains(why), "{rest:?}");
    }
    // Without an initial response there is an empty challenge, and then it is said.
    let mut raw = asked(&bank);
    raw.say(&initial("OAUTHBEARER", None));
    assert_eq!(raw.hear().unwrap().body, [0, 0, 0, 11]);
    raw.say(&message(b'p', shown));
    let said = raw.until(b'Z');
    assert_eq!(said[0].body, [0; 4], "{said:?}");
    assert!(!bank.cluster.log().contains("let in"));
}
