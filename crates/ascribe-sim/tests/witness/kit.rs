//! Witnesses of the tests' own, the binary as a witness, and logs in memory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ascribe_tlog::{
    AddCheckpoint, Checkpoint, Hash, SigningKey, Tree, VerifierKey, empty_root, leaf_hash,
    verify_consistency,
};
use serde_json::Value;

use super::world::{PATIENCE, Running, World, binary, wait_for};

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: content_type.to_owned(),
            body: body.into(),
        }
    }
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One request, one connection.
pub(super) fn http(at: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    http_to(at, &at.to_string(), method, path, body)
}

/// The same to a host of that name.
pub(super) fn http_to(
    at: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> Option<Answer> {
    let mut tcp = TcpStream::connect_timeout(&at, PATIENCE).ok()?;
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tcp.write_all(head.as_bytes()).ok()?;
    tcp.write_all(body).ok()?;
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).ok()?;
    let split = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(all[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let types = head.lines().filter_map(|line| line.split_once(": "));
    let mut types = types.filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let content_type = types.next().map_or("", |(_, value)| value).to_owned();
    Some(Answer {
        status,
        content_type,
        body: all[split + 4..].to_vec(),
    })
}

/// A port that was free a moment ago.
pub(super) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A log in memory.
pub(super) struct Log {
    pub(super) key: SigningKey,
    pub(super) tree: Tree,
    name: &'static str,
}

impl Log {
    pub(super) fn new(key: SigningKey, name: &'static str) -> Self {
        Self {
            key,
            tree: Tree::new(),
            name,
        }
    }
    pub(super) fn grow(&mut self, to: u64) {
        for n in self.tree.size()..to {
            self.tree
                .push(leaf_hash(format!("{} {n}", self.name).as_bytes()));
        }
    }
    /// Asks to cosign the tree as it is, for a witness that has seen `old` entries.
    pub(super) fn request(&self, old: u64) -> AddCheckpoint {
        let size = self.tree.size();
        let checkpoint = Checkpoint {
            origin: self.key.name().to_owned(),
            size,
            root: self.tree.root(),
        };
        let proof = match old {
            0 => Vec::new(),
            old if old > size => Vec::new(),
            old => self.tree.consistency_proof(old, size).unwrap(),
        };
        AddCheckpoint {
            old,
            proof,
            note: self.key.sign_note(&checkpoint.to_text()).unwrap(),
        }
    }
}

/// What a witness of the tests' own does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should.
    Honest,
    /// Remembers what it cosigned and says nothing.
    Mute,
    /// Cosigns with a key that nobody named.
    OtherKey,
    /// Its own name and key id over another tree.
    OtherTree,
    /// Says that it has seen one entry less each time.
    Wavers,
    /// Says that it has seen more than there is.
    Ahead,
    /// Sends everybody elsewhere.
    Redirects,
    /// Answers with a megabyte.
    Huge,
    /// Answers with something that is no HTTP.
    Garbage,
    /// Answers with lines that are no signatures.
    Prose,
    /// Takes the request and never answers.
    Silent,
    /// Refuses with this status.
    Refuses(u16),
}

pub(super) struct Fake {
    pub(super) key: SigningKey,
    pub(super) at: SocketAddr,
    pub(super) manner: Mutex<Manner>,
    seen: Mutex<(u64, Hash)>,
    /// How often it was asked, how often from a wrong size, and whether it remembers more than it said.
    pub(super) asked: AtomicUsize,
    pub(super) conflicts: AtomicUsize,
    pub(super) mute: AtomicBool,
}

impl Fake {
    pub(super) fn start(name: &str, manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let seed = leaf_hash(name.as_bytes()).0;
        let fake = Arc::new(Self {
            key: SigningKey::from_seed(&format!("{name}.example"), &seed).unwrap(),
            at: listener.local_addr().unwrap(),
            manner: Mutex::new(manner),
            seen: Mutex::new((0, empty_root())),
            asked: AtomicUsize::new(0),
            conflicts: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
        });
        let shared = Arc::clone(&fake);
        // It ends with the process.
        std::thread::spawn(move || {
            for tcp in listener.incoming().filter_map(Result::ok) {
                let fake = Arc::clone(&shared);
                std::thread::spawn(move || fake.serve(tcp));
            }
        });
        fake
    }

    fn serve(&self, mut tcp: TcpStream) -> Option<()> {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("post /add-checkpoint "), "{head}");
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        tcp.read_exact(&mut body).ok()?;
        let request = AddCheckpoint::parse(&body).unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let manner = *self.manner.lock().unwrap();
        if manner == Manner::Garbage {
            return tcp.write_all(b"\x00\xff what?\r\n\r\n").ok();
        }
        let Some(answer) = self.answer(&request, manner) else {
            // Nothing more is said; the other side gives up first.
            let _: usize = tcp.read(&mut [0]).ok()?;
            return None;
        };
        let moved = match manner {
            Manner::Redirects => "Location: http://127.0.0.1:1/add-checkpoint\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {} x\r\nContent-Type: {}\r\nContent-Length: {}\r\n{moved}Connection: close\r\n\r\n",
            answer.status,
            answer.content_type,
            answer.body.len()
        );
        tcp.write_all(head.as_bytes()).ok()?;
        tcp.write_all(&answer.body).ok()
    }

    fn answer(&self, request: &AddCheckpoint, manner: Manner) -> Option<Answer> {
        let text = request.note.split("\n\n").next().unwrap();
        let checkpoint = Checkpoint::parse(&format!("{text}\n")).unwrap();
        let text = |status, body: String| Some(Answer::new(status, "text/plain", body));
        let size = |size: u64| Some(Answer::new(409, "text/x.tlog.size", format!("{size}\n")));
        let cosign = |key: &SigningKey, checkpoint: &Checkpoint| {
            key.cosign(&checkpoint.to_text(), 1_764_000_000).unwrap()
        };
        match manner {
            Manner::Honest | Manner::Mute => {
                let mut seen = self.seen.lock().unwrap();
                if request.old != seen.0 {
                    self.conflicts.fetch_add(1, Ordering::SeqCst);
                    return size(seen.0);
                }
                let continues = match request.old {
                    0 => request.proof.is_empty(),
                    old => {
                        let (new, root) = (checkpoint.size, &checkpoint.root);
                        verify_consistency(old, &seen.1, new, root, &request.proof).is_ok()
                    }
                };
                assert!(continues, "the log showed another history: {request:?}");
                *seen = (checkpoint.size, checkpoint.root);
                if manner == Manner::Mute {
                    self.mute.store(true, Ordering::SeqCst);
                    return None;
                }
                text(200, cosign(&self.key, &checkpoint))
            }
            Manner::OtherKey => {
                let other = SigningKey::from_seed(self.key.name(), &[77; 32]).unwrap();
                text(200, cosign(&other, &checkpoint))
            }
            Manner::OtherTree => {
                let other = Checkpoint {
                    root: Hash([7; 32]),
                    ..checkpoint
                };
                text(200, cosign(&self.key, &other))
            }
            Manner::Wavers => size(checkpoint.size - 1 - request.old % 2),
            Manner::Ahead => size(checkpoint.size + 1000),
            Manner::Redirects => text(307, String::new()),
            Manner::Huge => text(200, "\u{2014} x AAAA\n".repeat(100_000)),
            Manner::Prose => text(200, "thank you\n".to_owned()),
            Manner::Refuses(status) => text(status, "\u{1b}[31mno\n".to_owned()),
            Manner::Silent | Manner::Garbage => None,
        }
    }

    /// Its line of a policy.
    pub(super) fn line(&self, name: &str) -> String {
        let key = self.key.witness().unwrap();
        format!("witness {name} {key} http://{}\n", self.at)
    }
}

/// The binary as a witness.
pub(super) struct Own {
    pub(super) at: SocketAddr,
    key: PathBuf,
    state: PathBuf,
    logs: PathBuf,
    pub(super) verifier: String,
    dir: PathBuf,
}

impl Own {
    /// A key and a directory for a witness of the logs in this policy. It does not run yet.
    pub(super) fn new(dir: &Path, name: &str, policy: &Path) -> Self {
        let key = dir.join(format!("{name}.key"));
        let mut init = Command::new(binary());
        init.args(["-o", "json", "witness", "init", "--name"])
            .arg(format!("{name}.example"))
            .arg("--key")
            .arg(&key);
        let made = Running::start(init, dir, false)
            .wait(PATIENCE)
            .exits(0)
            .line();
        Self {
            at: free_address(),
            key,
            state: dir.join(format!("{name}.state")),
            logs: policy.to_owned(),
            verifier: made["verifier_key"].as_str().unwrap().to_owned(),
            dir: dir.to_owned(),
        }
    }
    pub(super) fn state(&self) -> &Path {
        &self.state
    }
    fn command(&self) -> Command {
        let mut run = Command::new(binary());
        run.args(["witness", "run", "--listen", &self.at.to_string()]);
        run.arg("--key").arg(&self.key);
        run.arg("--state").arg(&self.state);
        run.arg("--log").arg(&self.logs);
        run
    }
    pub(super) fn run(&self) -> Running {
        let mut running = Running::start(self.command(), &self.dir, false);
        wait_for("witness", PATIENCE, || {
            assert!(
                running.ended().is_none(),
                "no witness: {}",
                running.stderr()
            );
            running.stderr().contains("\nhttp ").then_some(())
        });
        running
    }
    pub(super) fn line(&self, name: &str) -> String {
        format!("witness {name} {} http://{}\n", self.verifier, self.at)
    }
    pub(super) fn add(&self, request: &AddCheckpoint) -> Option<Answer> {
        http(
            self.at,
            "POST",
            "/add-checkpoint",
            request.to_text().as_bytes(),
        )
    }
}

/// A policy that names one log.
pub(super) fn policy_of(key: &VerifierKey, to: &Path) {
    std::fs::write(to, format!("log {key}\nquorum none\n")).unwrap();
}

/// Names witnesses in the demo's ledger.
pub(super) fn set_witnesses(world: &World, lines: &str, demand: &[&str]) -> Value {
    let file = world.path("witnesses.policy");
    std::fs::write(&file, lines).unwrap();
    let mut args = vec!["witness", "set", file.to_str().unwrap()];
    args.extend(demand.iter().flat_map(|demand| ["--demand", demand]));
    world.run_as("approver", &args).exits(0).line()
}

/// What the server says of its witnesses.
pub(super) fn witnessed(world: &World) -> Value {
    world.json(&["ledger", "status"]).line()["witnessed"].clone()
}

/// Waits until nothing is left that the witnesses have not seen.
pub(super) fn all_seen(world: &World) -> Value {
    wait_for("word of the witnesses", PATIENCE, || {
        let found = witnessed(world);
        let seen = found["unseen_since"].is_null() && found["size"].as_u64() > Some(0);
        seen.then_some(found)
    })
}

/// The policy of the ledger, with witnesses and another quorum.
pub(super) fn demanding(world: &World, lines: &str) -> PathBuf {
    let ours = std::fs::read_to_string(world.policy()).unwrap();
    let file = world.path("demanding.policy");
    let text = ours.replace("quorum none\n", lines);
    assert_ne!(text, ours);
    std::fs::write(&file, text).unwrap();
    file
}

/// A little while that differs each time.
pub(super) fn pause(nth: u64) -> Duration {
    Duration::from_micros(500 + nth * 7919 % 30_000)
}
