//! The binary as a witness of other logs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ascribe_tlog::{Note, SigningKey, WitnessKey};
use rustix::process::Signal;
use tempfile::TempDir;

use super::kit::{Log, Own, http, pause, policy_of};
use super::world::{PATIENCE, binary, need};

fn log(name: &'static str) -> Log {
    Log::new(
        SigningKey::from_seed("example.org/log", &[5; 32]).unwrap(),
        name,
    )
}

fn own(dir: &TempDir) -> Own {
    need("ssh");
    assert!(binary().is_file());
    let policy = dir.path().join("log.policy");
    policy_of(&log("a").key.verifier(), &policy);
    Own::new(dir.path(), "own", &policy)
}

#[test]
fn it_speaks_http_as_the_specification_says_and_bounds_what_it_hears() {
    let dir = TempDir::new().unwrap();
    let own = own(&dir);
    let running = own.run();
    let mut log = log("a");
    log.grow(3);
    let signed = own.add(&log.request(0)).unwrap();
    assert_eq!(signed.status, 200, "{signed:?}");
    let note = format!("{}{}", log.request(0).note, signed.text());
    let note = Note::open(note.as_bytes(), &[log.key.verifier()]).unwrap();
    let key: WitnessKey = own.verifier.parse().unwrap();
    assert!(key.cosigned(&note).unwrap() > Some(1_700_000_000));
    let stale = own.add(&log.request(0)).unwrap();
    assert_eq!((stale.status, stale.text()), (409, "3\n"));
    assert_eq!(stale.content_type, "text/x.tlog.size");
    // It shows what it cosigned under the name of the file: SHA-256 of the origin.
    let files = std::fs::read_dir(own.state()).unwrap().map(|f| f.unwrap());
    let mut names = files.filter_map(|f| f.file_name().into_string().ok());
    let name = names.find_map(|n| Some(n.strip_suffix(".checkpoint")?.to_owned()));
    let name = name.unwrap();
    assert_eq!(name.len(), 64);
    let monitored = |name: &str| http(own.at, "GET", &format!("/{name}/checkpoint"), b"").unwrap();
    assert_eq!(
        monitored(&name).body,
        format!("{}{}", log.request(0).note, signed.text()).as_bytes()
    );
    assert_eq!(monitored(&format!("0{name}")).status, 404);
    let huge = vec![b'x'; 100_000];
    assert_eq!(
        http(own.at, "POST", "/add-checkpoint", &huge).map(|a| a.status),
        Some(400)
    );
    assert_eq!(
        http(own.at, "GET", "/add-checkpoint", b"").unwrap().status,
        404
    );
    assert_eq!(http(own.at, "POST", "/elsewhere", b"").unwrap().status, 404);
    // Somebody who begins and never ends takes no more than their place.
    let mut idle = TcpStream::connect(own.at).unwrap();
    idle.write_all(b"POST /add-checkpoint HTTP/1.1\r\n")
        .unwrap();
    log.grow(4);
    assert_eq!(own.add(&log.request(3)).unwrap().status, 200);
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    drop(running);
}

#[test]
fn killed_at_any_moment_it_never_forgets_what_it_cosigned() {
    let dir = TempDir::new().unwrap();
    let own = own(&dir);
    let (mut log, mut fork) = (log("a"), log("b"));
    // What the log holds in its hand: cosigned up to here.
    let mut cosigned = 0;
    for round in 0..12 {
        let running = Mutex::new(Some(own.run()));
        let dead = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(pause(round));
                let running = running.lock().unwrap().take().unwrap();
                running.signal(Signal::KILL);
                running.wait(PATIENCE);
                dead.store(true, Ordering::SeqCst);
            });
            let mut old = cosigned;
            while !dead.load(Ordering::SeqCst) {
                log.grow(cosigned.max(old) + 1);
                let Some(answer) = own.add(&log.request(old)) else {
                    continue;
                };
                match answer.status {
                    200 => (cosigned, old) = (log.tree.size(), log.tree.size()),
                    409 => {
                        old = answer.text().trim_end().parse().unwrap();
                        assert!(old >= cosigned, "it forgot: {old} after {cosigned}");
                    }
                    status => panic!("{status}: {}", answer.text()),
                }
            }
        });
        let running = own.run();
        // It cannot have seen this yet.
        log.grow(log.tree.size() + 1);
        let known = own.add(&log.request(log.tree.size())).unwrap();
        assert_eq!(known.status, 409, "{known:?}");
        let known: u64 = known.text().trim_end().parse().unwrap();
        assert!(known >= cosigned, "it forgot: {known} after {cosigned}");
        if known > 0 {
            fork.grow(known + 1);
            let refused = own.add(&fork.request(known)).unwrap();
            assert_eq!(refused.status, 422, "{refused:?}");
        }
        cosigned = known;
        drop(running);
    }
    assert!(cosigned > 0);
}
