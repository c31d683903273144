//! A Vault that is no Vault: what it answers fails the one session that asked, in words that say why, and holds
//! nobody up.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::Signal;

use super::bank::{Bank, PASSWORD, done};
use super::vault::{fails, says};
use super::world::{PATIENCE, Running, maybe, need, wait_for};

const TOKEN: &str = "s.hostile-vault-token";

/// What is answered next; the last one again and again.
type Answers = Arc<Mutex<Vec<Vec<u8>>>>;

/// Answers as it is told, whatever it is asked.
struct Hostile {
    port: u16,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hostile {
    fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, asked) = (Answers::default(), Arc::<Mutex<Vec<String>>>::default());
        let (to_give, heard) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to_give, heard) = (Arc::clone(&to_give), Arc::clone(&heard));
                std::thread::spawn(move || serve(stream, &to_give, &heard));
            }
        });
        Self {
            port,
            answers,
            asked,
        }
    }

    fn answers(&self, all: &[Vec<u8>]) {
        *self.answers.lock().unwrap() = all.to_vec();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Tells this bank's server of it, and of this credential.
    fn tell(&self, bank: &Bank, credential: &str) {
        let dir = bank.world.path("vault");
        let text = format!(
            "address http://127.0.0.1:{}\nauth token token\ncredential dba@orders-db {credential}\n",
            self.port
        );
        std::fs::write(dir.join("vault.conf"), text).unwrap();
    }
}

/// One request for each connection.
fn serve(mut stream: TcpStream, answers: &Mutex<Vec<Vec<u8>>>, asked: &Mutex<Vec<String>>) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        request.push(byte[0]);
    }
    let text = String::from_utf8(request).unwrap();
    let line = text.lines().next().unwrap_or_default().to_owned();
    asked.lock().unwrap().push(line);
    let answer = {
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    };
    // The other side may have had enough of it.
    stream.write_all(&answer).unwrap_or_default();
    if answer.is_empty() {
        // Silent, until the other side goes.
        stream.read(&mut byte).map(drop).unwrap_or_default();
    }
}

/// An answer with this status and body.
fn says_with(status: u16, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    )
    .into_bytes()
}

fn secret(password: &str) -> Vec<u8> {
    let body = serde_json::json!({"data": {"password": password}});
    says_with(200, "", &body.to_string())
}

/// A bank whose server asks such a Vault.
fn open() -> (Bank, Hostile) {
    let mut bank = Bank::open();
    std::fs::remove_dir_all(bank.world.data().join("credentials")).unwrap();
    let dir = bank.world.path("vault");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("token"), TOKEN).unwrap();
    done(Command::new("chmod").arg("600").arg(dir.join("token")));
    let hostile = Hostile::begin();
    hostile.tell(&bank, "kv1 old dba password");
    let told = dir.join("vault.conf");
    bank.start_with(&["--vault", told.to_str().unwrap()]);
    (bank, hostile)
}

#[test]
fn whatever_vault_answers_fails_one_session_and_says_why() {
    let (bank, hostile) = open();
    hostile.answers(&[secret(PASSWORD)]);
    says(&bank, "good");
    assert_eq!(hostile.asked(), ["GET /v1/old/dba HTTP/1.1"]);
    let living = bank.psql_in_background(&["-c", "select pg_sleep(20)", "-c", "select 'went on'"]);
    wait_for("a session", PATIENCE, || {
        bank.cluster.log().contains("pg_sleep").then_some(())
    });
    let metadata = TcpListener::bind("127.0.0.1:0").unwrap();
    metadata.set_nonblocking(true).unwrap();
    let elsewhere = metadata.local_addr().unwrap();
    let to = format!("location: http://{elsewhere}/latest/meta-data\r\n");
    let huge = "x".repeat(1 << 20);
    for (answer, why) in [
        (says_with(200, "", "<html>"), "not its API's JSON"),
        (says_with(200, "", "[1]"), "not its API's JSON"),
        (says_with(200, "", "{}"), "no usable data"),
        (
            says_with(200, "", r#"{"data":{"password":7}}"#),
            "no usable field `password`",
        ),
        (
            says_with(200, "", r#"{"data":{"password":"a\u0000b"}}"#),
            "no usable field",
        ),
        (
            says_with(200, "", &huge),
            "answers with more than 65536 bytes",
        ),
        (
            b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            "breaks off",
        ),
        (b"\x16\x03\x01 no HTTP\r\n\r\n".to_vec(), "does not answer"),
        (
            says_with(302, &to, ""),
            "it redirects, which is not followed",
        ),
        (
            says_with(307, &to, ""),
            "it redirects, which is not followed",
        ),
        (
            says_with(404, "", r#"{"errors":[]}"#),
            "there is nothing (status 404)",
        ),
        (says_with(429, "", ""), "asked too often, or is a standby"),
        (says_with(473, "", ""), "a standby that does not answer"),
        (says_with(503, "", ""), "it is sealed or being maintained"),
        (
            says_with(500, "", r#"{"errors":["broken\npipe"]}"#),
            "status 500: broken pipe)",
        ),
        (
            says_with(403, "", &format!(r#"{{"errors":["bad token {TOKEN}"]}}"#)),
            "it repeats a secret, which is not told",
        ),
    ] {
        hostile.answers(&[answer]);
        fails(&bank, why);
    }
    let followed = metadata.accept().map(drop);
    assert!(followed.is_err(), "a redirect was followed");
    // Silence takes four seconds of the one who asked.
    hostile.answers(&[Vec::new()]);
    let begun = Instant::now();
    fails(&bank, "does not answer");
    assert!(
        (4..9).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
    // As often as it answers with rubbish, the session before goes on, and one after is let in.
    assert!(living.wait(PATIENCE).exits(0).stdout.ends_with("went on\n"));
    hostile.answers(&[secret(PASSWORD)]);
    says(&bank, "good again");
    let said = bank.server().stderr();
    assert!(!said.contains(TOKEN), "{said}");
    assert!(!bank.cluster.log().contains("let in"));
}

#[test]
fn a_password_that_changes_between_reading_and_using_it_is_read_again() {
    let (bank, hostile) = open();
    hostile.answers(&[secret("the old one"), secret(PASSWORD)]);
    says(&bank, "second time");
    assert_eq!(hostile.asked().len(), 2);
    // One that stays wrong is tried once.
    hostile.answers(&[secret("wrong")]);
    let knocks = || {
        let log = bank.cluster.log();
        log.matches("password authentication failed for user")
            .count()
    };
    let before = knocks();
    let out = bank.psql(&["-c", "select 'let in'"]).exits(2);
    assert!(
        out.stderr.contains("password authentication failed"),
        "{}",
        out.stderr
    );
    wait_for("the refusal", PATIENCE, || {
        (knocks() == before + 1).then_some(())
    });
    assert_eq!(hostile.asked().len(), 4);
}

#[test]
fn what_is_lent_to_nobody_is_given_back() {
    let (bank, hostile) = open();
    hostile.tell(&bank, "dynamic database dba");
    let lent = |seconds: u64, user: &str| {
        let body = serde_json::json!({
            "lease_id": "database/creds/dba/1", "lease_duration": seconds, "renewable": true,
            "data": {"username": user, "password": "p"},
        });
        says_with(200, "", &body.to_string())
    };
    let gone = || says_with(204, "", "");
    let revoked = |count: usize| {
        wait_for("a lease that is given back", PATIENCE, || {
            let asked = hostile.asked();
            let revoked = asked
                .iter()
                .filter(|line| line.starts_with("POST /v1/sys/leases/revoke "));
            (revoked.count() == count).then_some(())
        });
    };
    // Too short; not usable; refused by the database.
    hostile.answers(&[lent(9, "lent"), gone()]);
    fails(&bank, "lasts less than the 10 s");
    revoked(1);
    hostile.answers(&[lent(60, ""), gone()]);
    fails(&bank, "no usable username");
    revoked(2);
    // It is asked for anew, in case that the password had changed meanwhile.
    hostile.answers(&[lent(60, "nobody"), lent(60, "nobody"), gone()]);
    let out = bank.psql(&["-c", "select 'let in'"]).exits(2);
    assert!(
        out.stderr
            .contains("authentication failed for user \"nobody\""),
        "{}",
        out.stderr
    );
    revoked(4);
    // The record says who was to log in.
    let failed = bank.actions().pop().unwrap();
    assert_eq!(failed["what"]["outcome"]["status"], "failed");
    assert_eq!(failed["what"]["outcome"]["notes"][0], "login nobody");
}

/// A command whose process has no more powers over another of the same user than any: root's own are taken away.
fn powerless(program: &Path) -> Option<Command> {
    if !rustix::process::getuid().is_root() {
        return Some(Command::new(program));
    }
    let mut command = Command::new(maybe("setpriv")?);
    command.arg("--bounding-set=-sys_ptrace").arg(program);
    Some(command)
}

#[test]
fn a_servers_memory_goes_into_no_core_dump_and_to_no_other_process() {
    let mut bank = Bank::open();
    bank.stop();
    let serve = bank
        .world
        .ascribe(&["serve", "--ssh", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    let Some(mut command) = powerless(Path::new(serve.get_program())) else {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: root without `setpriv` may read everything\n"),
        )
        .unwrap();
        return;
    };
    command.args(serve.get_args());
    let logs = bank.world.path("logs");
    let mut server = Running::start(command, &logs, true);
    wait_for("server", PATIENCE, || {
        server.stderr().contains("\napi ").then_some(())
    });
    let mut other = powerless(&need("sleep")).unwrap();
    other.arg("60");
    let other = Running::start(other, &logs, true);
    let reads = |process: &Running| {
        let mut open = powerless(&need("dd")).unwrap();
        open.arg(format!("if=/proc/{}/mem", process.id()))
            .arg("count=0");
        open.output().unwrap().status.success()
    };
    // It has become `sleep` a moment after its start.
    wait_for("a process that may be read", PATIENCE, || {
        reads(&other).then_some(())
    });
    assert!(!reads(&server));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    server.signal(Signal::ABORT);
    let status = wait_for("its end", PATIENCE, || server.ended());
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}
