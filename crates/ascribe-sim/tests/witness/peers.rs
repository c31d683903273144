//! Witnesses that we did not write: Debian's `sigsum-go` (0.11, bookworm-backports) and `sunlight`
//! (0.8, sid).

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use ascribe_tlog::{Note, SigningKey, WitnessKey, cosignature_lines, recorded_size};
use ssh_key::PrivateKey;
use tempfile::TempDir;

use super::kit::{Answer, Log, free_address, http};
use super::world::{PATIENCE, Running, maybe, wait_for};

/// Past the capture of tests that pass.
fn skipped(what: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}, because {why}").unwrap();
}

fn output(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{out:#?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Happy, stale, forked: through the same messages that the server sends and reads.
fn judge(log: &mut Log, fork: &mut Log, key: &WitnessKey, ask: impl Fn(&Log, u64) -> Answer) {
    let cosigned = |log: &Log, answer: &Answer| {
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        let known = [log.key.verifier()];
        let lines = cosignature_lines(&answer.body).unwrap();
        let note = log.request(0).note;
        let by = lines.iter().filter_map(|line| {
            let note = Note::open(format!("{note}{line}").as_bytes(), &known).unwrap();
            key.cosigned(&note).unwrap()
        });
        assert_eq!(by.count(), 1, "{lines:?}");
    };
    log.grow(5);
    cosigned(log, &ask(log, 0));
    log.grow(300);
    let stale = ask(log, 0);
    assert_eq!(
        (stale.status, recorded_size(&stale.body)),
        (409, Ok(5)),
        "{stale:?}"
    );
    assert_eq!(stale.content_type, "text/x.tlog.size");
    cosigned(log, &ask(log, 5));
    // The same again.
    cosigned(log, &ask(log, 300));
    fork.grow(301);
    assert_eq!(ask(fork, 300).status, 422);
    log.grow(301);
    cosigned(log, &ask(log, 300));
}

#[test]
fn sigsums_witness_takes_what_we_send_and_we_what_it_says() {
    let (Some(witness), Some(keys)) = (maybe("sigsum-witness"), maybe("sigsum-key")) else {
        let why = "sigsum-go is not installed (Debian: bookworm-backports or later)";
        skipped("sigsum's witness", why);
        return;
    };
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let vkey = |name: &str| {
        output(Command::new(&keys).args(["generate", "-o"]).arg(path(name)));
        let public = path(&format!("{name}.pub"));
        output(Command::new(&keys).args(["to-vkey", "-k"]).arg(public))
    };
    // It names a log, and itself, by the hash of the key.
    let origin = vkey("log").split('+').next().unwrap().to_owned();
    let key = || {
        let text = std::fs::read_to_string(path("log")).unwrap();
        let key = PrivateKey::from_openssh(text).unwrap();
        let seed = key.key_data().ed25519().unwrap().private.to_bytes();
        SigningKey::from_seed(&origin, &seed).unwrap()
    };
    let own = vkey("witness");
    let hash = own.split('+').next().unwrap().rsplit('/').next().unwrap();
    let public = std::fs::read_to_string(path("witness.pub")).unwrap();
    let public = ssh_key::PublicKey::from_openssh(&public).unwrap();
    let public = public.key_data().ed25519().unwrap().0;
    let name = format!("sigsum.org/v1/witness/{hash}");
    let verifier = WitnessKey::from_public_key(&name, &public).unwrap();

    let at = free_address();
    let mut run = Command::new(witness);
    run.arg("--signing-key").arg(path("witness"));
    run.arg("--log-key").arg(path("log.pub"));
    run.arg("--state-file").arg(path("state"));
    run.arg(at.to_string()).env("GODEBUG", "httpmuxgo121=0");
    let _running = started(run, dir.path(), at);
    let (mut log, mut fork) = (Log::new(key(), "a"), Log::new(key(), "b"));
    judge(&mut log, &mut fork, &verifier, |log, old| {
        let body = log.request(old).to_text();
        http(at, "POST", "/add-checkpoint", body.as_bytes()).unwrap()
    });
}

/// A program that listens.
fn started(command: Command, logs: &Path, at: SocketAddr) -> Running {
    let mut running = Running::start(command, logs, false);
    wait_for("witness", PATIENCE, || {
        assert!(running.ended().is_none(), "it ended: {}", running.stderr());
        std::net::TcpStream::connect(at).ok()
    });
    running
}
