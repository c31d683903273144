//! Who comes in, and who does not.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ascribe_core::entry::{Body, Entry};
use ascribe_ledger::Reader;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::bank::{Bank, PLACE, certificate, done, unprivileged};
use super::raw::{Raw, kinds, secured};
use super::tokio_driver::trusting;
use super::world::need;

/// First packets that ask for encryption by GSSAPI and by TLS, and one that begins a session of version 3.0.
const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const BEGIN: [u8; 16] = *b"\0\0\0\x10\0\x03\0\0user\0u\0\0";

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

/// A signed statement that the ledger does not take opens nothing, and is on record as refused: once, however often it is
/// brought, since anybody may have a copy, and never for a copy of one that is on record.
#[test]
fn a_signed_statement_that_is_refused_is_on_record_under_its_signer() {
    let mut bank = Bank::open();
    let token = bank
        .world
        .run_as("operator", &["token", "nobody@orders-db"]);
    let token = token.exits(0).line()["password"]
        .as_str()
        .unwrap()
        .to_owned();
    for _ in 0..3 {
        let out = bank.psql_at_the_port(&token, "sslmode=verify-full", "select 12");
        assert!(
            out.exits(2).stderr.contains("nobody"),
            "the account is told"
        );
    }
    // It had no session, so it is not among those on a target; the list says so.
    let told = bank.world.run(&["actions", "--refused"]).exits(0).stdout;
    assert!(
        told.contains("Olu Operator  (no session)  connect  refused (account)"),
        "{told}"
    );
    let there = ["actions", "--refused", "--target", "orders-db"];
    assert_eq!(bank.world.json(&there).lines().len(), 0);
    let good = bank.token();
    bank.psql_at_the_port(&good, "sslmode=verify-full", "select 13")
        .exits(0);
    bank.psql_at_the_port(&good, "sslmode=verify-full", "select 13")
        .exits(2);
    assert!(!bank.cluster.log().contains("select 12"));
    bank.stop();
    let reader = Reader::open(&bank.world.data()).unwrap();
    let entries = reader.entries(0..reader.size()).unwrap();
    let entries = entries.iter().map(|bytes| Entry::from_bytes(bytes));
    let refusals = entries.filter_map(|entry| match entry.unwrap().body {
        Body::Refusal(refusal) => Some(refusal),
        _ => None,
    });
    let refused = refusals.map(|one| (one.person.to_string(), one.what, one.code));
    let operator = bank.world.person("operator").0;
    let once = (operator, "connect".to_owned(), "account".to_owned());
    assert_eq!(refused.collect::<Vec<_>>(), [once]);
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

/// What comes in the clear behind a request for encryption is not taken for what came within it.
#[test]
fn bytes_in_front_of_tls_are_refused() {
    let bank = Bank::open();
    for first in [GSS, SSL] {
        for behind in [&b"x"[..], &SSL, &GSS, &BEGIN, &[0x16, 3, 1]] {
            let mut raw = Raw::open(bank.port());
            raw.say(&[&first[..], behind].concat());
            let said = raw.rest();
            assert_eq!(kinds(&said), "E", "{said:?}");
            assert_eq!(said[0].code(), "08P01");
            assert!(said[0].text().contains("behind the request for encryption"));
        }
    }
    // One after the other they are answered.
    let mut raw = Raw::open(bank.port());
    for (asked, answered) in [(GSS, b'N'), (SSL, b'S')] {
        raw.say(&asked);
        let mut answer = [0];
        raw.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [answered]);
    }
}

#[test]
fn who_speaks_something_else_is_told_if_an_answer_means_anything_there() {
    let bank = Bank::open();
    let said = |bytes: &[u8]| {
        let mut raw = Raw::open(bank.port());
        raw.say(bytes);
        raw.rest()
    };
    let older = said(b"\0\0\0\x09\0\x02\0\0\0");
    assert_eq!(kinds(&older), "E");
    assert_eq!(older[0].code(), "0A000");
    assert!(
        older[0].text().contains("protocol 2.0 is not spoken"),
        "{older:?}"
    );
    let malformed = said(b"\0\0\0\x0c\0\x03\0\0user");
    assert_eq!(malformed[0].code(), "08P01", "{malformed:?}");
    assert_eq!(said(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []);
    let clear = said(&BEGIN);
    assert_eq!(clear[0].code(), "28000");
    assert!(clear[0].text().contains("over TLS only"));
}

/// Another protocol's client could be led to this port, and its first line be taken for ours.
#[test]
fn tls_from_the_first_byte_names_the_protocol_or_is_closed() {
    let bank = Bank::open();
    let direct = |named: &[&[u8]]| {
        let mut config = trusting(&bank.world.path("gateway.crt"));
        config.alpn_protocols = named.iter().map(|name| name.to_vec()).collect();
        let name = "localhost".try_into().unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Raw(rustls::StreamOwned::new(tls, Raw::open(bank.port()).0))
    };
    let mut nameless = direct(&[]);
    assert_eq!(nameless.rest(), []);
    assert!(!nameless.0.conn.is_handshaking());
    let mut other = direct(&[b"http/1.1"]);
    assert_eq!(other.rest(), []);
    let mut named = direct(&[b"postgresql"]);
    named.begin(&[]);
    assert_eq!(named.hear().map(|said| said.kind), Some(b'R'));
}

#[test]
fn what_is_wrong_with_a_user_name_is_said_once_and_in_full() {
    let bank = Bank::open();
    let mut raw = secured(&bank, trusting(&bank.world.path("gateway.crt")));
    raw.begin(&[("user", "dba")]);
    let said = raw.rest();
    assert_eq!(kinds(&said), "E");
    assert_eq!(said[0].text().matches("ROLE@TARGET").count(), 2, "{said:?}");
    assert!(
        !said[0].text().contains("the user name is ROLE@TARGET"),
        "{said:?}"
    );
    // A tunnel for any grant is none for this one.
    let (_tunnel, port) = bank.tunnel();
    let grant = format!("g-{}", "0".repeat(26));
    let user = format!("dba+{grant}@orders-db");
    let said = Raw::begun(port, &[("user", &user)]).rest();
    let why = format!("the opening was signed for {PLACE}, not for {user}");
    assert!(said[0].text().contains(&why), "{said:?}");
    // Which database is meant where none is named.
    let mut command = bank.world.ascribe(&["--key"]);
    command.arg(bank.world.person("operator").1);
    command.args(["psql", PLACE, "--", "-X", "-c", "select 1"]);
    let out = bank.world.program(command).exits(2);
    assert!(
        out.stderr.contains("\"dba\" does not exist"),
        "{}",
        out.stderr
    );
    assert!(out.stderr.contains("`-d DATABASE`"), "{}", out.stderr);
    let out = bank.psql(&["-d", "nowhere", "-c", "select 1"]).exits(2);
    assert!(!out.stderr.contains("HINT"), "{}", out.stderr);
}

/// With the gateway away, as psql is by itself: it asks for TLS first.
#[test]
fn a_tunnel_without_its_gateway_says_so() {
    let mut bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    bank.stop();
    for mode in ["prefer", "disable"] {
        let mut command = Command::new(need("psql"));
        command
            .env("PGSSLMODE", mode)
            .args(["-X", "-h", "127.0.0.1", "-d", "orders", "-c", "select 1"])
            .args(["-U", PLACE, "-p", &port.to_string()]);
        let out = bank.world.program(command).exits(2);
        assert!(out.stderr.contains("FATAL:"), "{mode}: {}", out.stderr);
        assert!(out.stderr.contains("cannot"), "{mode}: {}", out.stderr);
        assert!(
            !out.stderr.contains("SSL exchange"),
            "{mode}: {}",
            out.stderr
        );
    }
}

/// A tunnel is its user's alone, and others are told so.
#[test]
fn another_users_program_is_told_whose_the_tunnel_is() {
    if !rustix::process::getuid().is_root() {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: only root can be another user\n"),
        )
        .unwrap();
        return;
    }
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    for mode in ["prefer", "disable"] {
        let mut command = unprivileged(&need("psql"));
        command
            .env("PGSSLMODE", mode)
            .args(["-X", "-h", "127.0.0.1", "-d", "orders", "-c", "select 1"])
            .args(["-U", PLACE, "-p", &port.to_string()]);
        let out = bank.world.program(command).exits(2);
        let told = "FATAL:  this tunnel takes programs of the user who runs it";
        assert!(out.stderr.contains(told), "{mode}: {}", out.stderr);
    }
    let connected = bank.actions();
    assert!(connected.is_empty(), "{connected:?}");
}

/// A certificate and its key that this authority signed for a host of this name.
fn signed(dir: &Path, name: &str, host: &str) {
    let file = |ending: &str| dir.join(format!("{name}.{ending}"));
    std::fs::write(
        file("ext"),
        format!("subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n"),
    )
    .unwrap();
    done(
        Command::new(need("openssl"))
            .args([
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args(["-subj", "/CN=database", "-keyout"])
            .arg(file("key"))
            .arg("-out")
            .arg(file("csr")),
    );
    done(
        Command::new(need("openssl"))
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
            .arg(file("csr"))
            .arg("-CA")
            .arg(dir.join("authority.crt"))
            .arg("-CAkey")
            .arg(dir.join("authority.key"))
            .arg("-extfile")
            .arg(file("ext"))
            .arg("-out")
            .arg(file("crt")),
    );
}

/// An authority signs for many: only the certificate with the target's name is the target's.
#[test]
fn a_certificate_for_another_host_is_not_the_targets() {
    let bank = Bank::open();
    let dir = bank.world.path("");
    certificate(&dir, "authority");
    signed(&dir, "right", "localhost");
    signed(&dir, "other", "other.example");
    let trust = dir.join("authority.crt");
    bank.register_at(bank.cluster.port, &trust);
    let shows = |name: &str| {
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        bank.cluster.recertify(&file("crt"), &file("key"));
    };
    for (name, comes_in) in [("right", true), ("other", false), ("right", true)] {
        shows(name);
        let text = format!("select '{name}'");
        let out = super::world::wait_for(name, super::world::PATIENCE, || {
            // It takes the server a moment to show the other one.
            let out = bank.psql(&["-c", &text]);
            ((out.code == Some(0)) == comes_in).then_some(out)
        });
        if !comes_in {
            assert!(out.stderr.contains("TLS is not trusted"), "{}", out.stderr);
            assert!(out.stderr.contains("not valid for name"), "{}", out.stderr);
        }
    }
    assert!(!bank.cluster.log().contains("select 'other'"));
}

/// Ends TLS with its own certificate before a server, and begins it anew behind.
fn between(server: u16, own: (&Path, &Path), trusted: &Path) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(own.0).unwrap()];
    let key = PrivateKeyDer::from_pem_file(own.1).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let near = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let far = tokio_rustls::TlsConnector::from(Arc::new(trusting(trusted)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let carry = async move |mut client: TcpStream| -> std::io::Result<()> {
        let mut asked = [0; 8];
        client.read_exact(&mut asked).await?;
        client.write_all(b"S").await?;
        let mut client = near.accept(client).await?;
        let mut target = TcpStream::connect(("127.0.0.1", server)).await?;
        target.write_all(&SSL).await?;
        target.read_exact(&mut [0]).await?;
        let mut target = far.connect("localhost".try_into().unwrap(), target).await?;
        copy_bidirectional(&mut client, &mut target).await.map(drop)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // One at a time is enough.
                carry(client).await.unwrap_or_default();
            }
        });
    });
    port
}

/// The password is proven for one TLS connection (SCRAM-SHA-256-PLUS): who ends that with a certificate of their own
/// cannot pass the proof on, even where that certificate is trusted.
#[test]
fn a_login_at_the_target_is_bound_to_its_certificate() {
    let bank = Bank::open();
    let dir = bank.world.path("");
    certificate(&dir, "between");
    let (mine, key) = (dir.join("between.crt"), dir.join("between.key"));
    let theirs = bank.cluster.certificate();
    // With the server's own certificate it does not matter who carries the bytes.
    let same = between(bank.cluster.port, (&theirs, &bank.cluster.key()), &theirs);
    bank.register_at(same, &theirs);
    bank.psql(&["-c", "select 'same'"]).exits(0);
    let other = between(bank.cluster.port, (&mine, &key), &theirs);
    bank.register_at(other, &mine);
    let out = bank.psql(&["-c", "select 'other'"]).exits(2);
    assert!(
        out.stderr.contains("channel binding check failed"),
        "{}",
        out.stderr
    );
    let log = bank.cluster.log();
    assert!(log.contains("select 'same'") && !log.contains("select 'other'"));
}
