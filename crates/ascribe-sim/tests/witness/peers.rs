//! Witnesses that we did not write: Debian's `sigsum-go` (0.11, bookworm-backports) and `sunlight`
//! (0.8, sid), which `script/test` fetches.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ascribe_tlog::{Note, SigningKey, WitnessKey, cosignature_lines, recorded_size};
use ssh_key::PrivateKey;
use tempfile::TempDir;

use super::kit::{Answer, Log, all_seen, demanding, free_address, http, http_to, set_witnesses};
use super::world::{PATIENCE, Running, World, maybe, wait_for};

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

/// A program of Sunlight's, installed, or unpacked beside what is built.
fn wished(program: &str) -> Option<PathBuf> {
    let unpacked = || {
        // TARGET/PROFILE/deps/THIS
        let this = std::env::current_exe().unwrap();
        let target = this.ancestors().nth(3).unwrap();
        let file = target.join("wishes/sunlight/usr/bin").join(program);
        file.is_file().then_some(file)
    };
    maybe(program).or_else(unpacked)
}

/// Sunlight as a witness of one log. It wants to be a log of certificates besides.
struct Sunlight {
    at: SocketAddr,
    verifier: WitnessKey,
    _running: Running,
}

impl Sunlight {
    fn start(dir: &Path, log: &str) -> Option<Self> {
        let (Some(sunlight), Some(keygen)) = (wished("sunlight"), wished("sunlight-keygen")) else {
            let why = "sunlight is neither installed (Debian: sid) nor fetched (`script/test`)";
            skipped("Sunlight's witness", why);
            return None;
        };
        let path = |name: &str| dir.join(name);
        // Made by us: what its own program makes cannot be removed again.
        for (name, byte) in [("witness.seed", 1), ("log.seed", 2)] {
            std::fs::write(path(name), [byte; 32]).unwrap();
        }
        std::fs::write(path("roots.pem"), "").unwrap();
        let said = output(
            Command::new(keygen)
                .arg("-f")
                .arg(path("witness.seed"))
                .args(["-witness", "w.example/sunlight"]),
        );
        // One of its keys may be of a kind that we do not check.
        let mut keys = said.split_whitespace().filter_map(|word| word.parse().ok());
        let verifier = keys.find(WitnessKey::is_supported).unwrap();
        let checkpoints = rusqlite::Connection::open(path("checkpoints.db")).unwrap();
        let table = "CREATE TABLE checkpoints (logID BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT";
        checkpoints.execute(table, ()).unwrap();
        let list = format!("logs/v0\nvkey {log}\nqpd 86400\ncontact tests\n");
        let (at, list) = (free_address(), serve_text(list));
        let today = output(Command::new("date").args(["-u", "+%F"]));
        let config = format!(
            "listen: ['{at}']\n\
             checkpoints: {0}/checkpoints.db\n\
             witness:\n  name: w.example/sunlight\n  submissionprefix: https://localhost\n  \
             monitoringprefix: https://localhost/seen\n  secret: {0}/witness.seed\n  \
             loglists: ['http://{list}/']\n  localdirectory: {0}/witness\n\
             logs:\n  - shortname: other\n    inception: '{1}'\n    \
             submissionprefix: https://ct.example/other\n    \
             monitoringprefix: http://{list}/other\n    roots: {0}/roots.pem\n    \
             secret: {0}/log.seed\n    cache: {0}/cache.db\n    localdirectory: {0}/other\n    \
             notafterstart: '2026-01-01T00:00:00Z'\n    notafterlimit: '2027-01-01T00:00:00Z'\n",
            dir.display(),
            today.trim_end()
        );
        std::fs::write(path("sunlight.yaml"), config).unwrap();
        let mut run = Command::new(sunlight);
        run.arg("-c")
            .arg(path("sunlight.yaml"))
            .env("GODEBUG", "httpmuxgo121=0");
        let running = started(run, dir, at);
        wait_for("log in the witness's list", PATIENCE, || {
            let said = running.stderr();
            said.contains("adding new log").then_some(())
        });
        Some(Self {
            at,
            verifier,
            _running: running,
        })
    }
}

/// The same text to whoever asks for anything.
fn serve_text(text: String) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().filter_map(Result::ok) {
            // Whatever is asked fits in one read.
            let _: usize = std::io::Read::read(&mut tcp, &mut [0; 4096]).unwrap_or(0);
            tcp.write_all(answer.as_bytes()).unwrap_or_default();
        }
    });
    at
}

#[test]
fn sunlights_witness_takes_what_we_send_and_we_what_it_says() {
    let dir = TempDir::new().unwrap();
    let key = || SigningKey::from_seed("example.org/log", &[5; 32]).unwrap();
    let Some(witness) = Sunlight::start(dir.path(), &key().verifier().to_string()) else {
        return;
    };
    let (mut log, mut fork) = (Log::new(key(), "a"), Log::new(key(), "b"));
    judge(&mut log, &mut fork, &witness.verifier, |log, old| {
        let body = log.request(old).to_text();
        // It is chosen by name.
        let host = format!("localhost:{}", witness.at.port());
        http_to(
            witness.at,
            &host,
            "POST",
            "/add-checkpoint",
            body.as_bytes(),
        )
        .unwrap()
    });
}

#[test]
fn sunlights_witness_is_one_of_a_real_server() {
    let world = World::new();
    let policy = std::fs::read_to_string(world.policy()).unwrap();
    let log = policy.lines().find_map(|line| line.strip_prefix("log "));
    let dir = world.path("sunlight");
    std::fs::create_dir(&dir).unwrap();
    let Some(witness) = Sunlight::start(&dir, log.unwrap()) else {
        return;
    };
    let (key, port) = (&witness.verifier, witness.at.port());
    let lines = format!("witness sunlight {key} http://localhost:{port}\nquorum sunlight\n");
    set_witnesses(&world, &lines, &["break-glass", "keys", "people", "policy"]);
    all_seen(&world);
    let bundle = world.bundle("echo seen");
    let session = world.actions(&["--text", "echo seen"])[0]["session_id"].clone();
    all_seen(&world);
    std::fs::remove_file(&bundle).unwrap();
    let args = [
        "export",
        session.as_str().unwrap(),
        "-f",
        bundle.to_str().unwrap(),
    ];
    world.run(&args).exits(0);
    let report = world
        .verify(&bundle, &demanding(&world, &lines))
        .exits(0)
        .line();
    assert_eq!(report["witnessed"]["by"], serde_json::json!(["sunlight"]));
}
