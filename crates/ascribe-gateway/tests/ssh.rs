//! Real OpenSSH client, our gateway, real sshd.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::allow_attributes,
        clippy::indexing_slicing,
        reason = "tests"
    )
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ascribe_core::entry::{Body, CloseReason, Entry, Status, Writer};
use ascribe_core::id::{GrantId, PersonId, SessionId};
use ascribe_core::law::Denied;
use ascribe_core::record::{
    Admission, BoxFuture, GrantView, Proposal, Receipt, RecordError, Recorder, Standing,
};
use ascribe_core::statement::{OverCap, SshKey, Target};
use ascribe_core::time::Timestamp;
use ascribe_gateway::{GatewayConfig, UpstreamAuth, serve};
use ascribe_tlog::{Checkpoint, SigningKey, Tree, leaf_hash};
use russh::keys::PrivateKey;
use tokio_util::sync::CancellationToken;

struct Fake {
    key: SigningKey,
    state: Mutex<(Tree, Vec<Body>)>,
    known: String,
    target: Target,
    account: String,
    fail: AtomicBool,
    revoked: AtomicBool,
    marker: PathBuf,
}

fn now() -> Timestamp {
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    Timestamp::from_millis(i64::try_from(ms).unwrap())
}

impl Recorder for Fake {
    fn record(&self, p: Proposal) -> BoxFuture<'_, Result<Receipt, RecordError>> {
        Box::pin(async move {
            if matches!(p.body, Body::Intent(_)) {
                assert!(!self.marker.exists(), "the command ran before its intent");
                if self.fail.load(Ordering::SeqCst) {
                    return Err(RecordError::Unavailable("disk".into()));
                }
            }
            let mut state = self.state.lock().unwrap();
            let entry = Entry {
                v: 1,
                log: self.key.name().into(),
                id: p.id,
                at: now(),
                writer: Writer {
                    id: p.writer,
                    seq: 0,
                    prev: None,
                },
                law: None,
                refs: vec![],
                body: p.body.clone(),
            };
            let bytes = entry.to_bytes().unwrap();
            assert!(bytes.len() < 60_000);
            state.0.push(leaf_hash(&bytes));
            state.1.push(p.body);
            let size = state.0.size();
            let cp = Checkpoint {
                origin: self.key.name().into(),
                size,
                root: state.0.root(),
            };
            Ok(Receipt {
                index: size - 1,
                entry: bytes,
                proof: state.0.inclusion_proof(size - 1, size).unwrap(),
                checkpoint: self.key.sign_note(&cp.to_text()).unwrap(),
            })
        })
    }
    fn person_by_key(&self, f: &str) -> Option<PersonId> {
        (f == self.known).then(|| PersonId::new([1; 16]))
    }
    fn admit(
        &self,
        person: PersonId,
        account: &str,
        target: &str,
        _: Option<GrantId>,
    ) -> Admission {
        if account != self.account || target != "db1" {
            return Admission::Refused(
                Denied::new("no-grant", "no grant fits").with_help("ask for one"),
            );
        }
        Admission::Grant(Box::new(GrantView {
            grant: GrantId::new([2; 16]),
            person,
            target: self.target.clone(),
            account: account.into(),
            not_before: now(),
            not_after: now().plus_millis(600_000),
            ticket: None,
            break_glass: false,
        }))
    }
    fn standing(&self, _: SessionId) -> Standing {
        if self.revoked.load(Ordering::SeqCst) {
            Standing::Ended(CloseReason::Revoked)
        } else {
            Standing::Until(now().plus_millis(600_000))
        }
    }
    fn now(&self) -> Timestamp {
        now()
    }
}

fn keygen(path: &Path) -> PrivateKey {
    let ok = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(ok.success());
    PrivateKey::read_openssh_file(path).unwrap()
}

struct World {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    port: u16,
    _sshd: tokio::process::Child,
    stop: CancellationToken,
    account: String,
    /// Where the real server listens: for the same command without the gateway.
    sshd_port: u16,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[expect(clippy::too_many_lines, reason = "one world, made in order")]
async fn world(wrong_host_key: bool) -> World {
    assert!(
        Path::new("/usr/sbin/sshd").exists(),
        "these tests need sshd"
    );
    std::fs::create_dir_all("/run/sshd").ok();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path().to_path_buf();
    let (host, client, up, gate) = (
        keygen(&d.join("host")),
        keygen(&d.join("client")),
        keygen(&d.join("up")),
        keygen(&d.join("gate")),
    );
    keygen(&d.join("stranger"));
    std::fs::copy(d.join("up.pub"), d.join("auth")).unwrap();
    let sshd_port = free_port();
    std::fs::write(d.join("cfg"), format!("ListenAddress 127.0.0.1\nHostKey {0}/host\nUsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin yes\nAcceptEnv FOO\nAuthorizedKeysFile {0}/auth\nSubsystem sftp internal-sftp\n", d.display())).unwrap();
    let sshd = tokio::process::Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(d.join("cfg"))
        .args(["-p", &sshd_port.to_string()])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(("127.0.0.1", sshd_port))
            .await
            .is_ok()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let account = String::from_utf8(
        std::process::Command::new("id")
            .arg("-un")
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap()
    .trim()
    .to_owned();
    let pin = if wrong_host_key { &gate } else { &host };
    let mut public = pin.public_key().clone();
    public.set_comment("");
    let target = Target {
        name: "db1".into(),
        host: "127.0.0.1".into(),
        port: sshd_port,
        host_keys: vec![SshKey(public.to_openssh().unwrap().trim().into())],
        accounts: vec![account.clone()],
        system_owner: PersonId::new([9; 16]),
        quorum: 1,
        required_approvers: vec![],
        max_seconds: 3600,
        min_justification: 1,
        ticket: None,
        break_glass: vec![],
        review_seconds: 60,
        stream_cap: 1 << 30,
        over_cap: OverCap::Digest,
    };
    let key = SigningKey::from_seed("log.test/a", &[5; 32]).unwrap();
    let log_key = key.verifier();
    let fake = Arc::new(Fake {
        key,
        state: Mutex::new((Tree::new(), vec![])),
        known: client.fingerprint(russh::keys::HashAlg::Sha256).to_string(),
        target,
        account: account.clone(),
        fail: false.into(),
        revoked: false.into(),
        marker: d.join("marker"),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = GatewayConfig {
        writer: "gateway".into(),
        log_key,
        host_key: gate,
        upstream: UpstreamAuth::Key(up),
        idle_timeout: Duration::from_secs(60),
        pre_auth_timeout: Duration::from_secs(5),
        max_connections_per_addr: 8,
    };
    let stop = CancellationToken::new();
    let counter = std::sync::atomic::AtomicU64::new(1);
    let rng = Arc::new(move |out: &mut [u8]| {
        let n = counter.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        for (o, b) in out.iter_mut().zip(n.iter().cycle()) {
            *o = *b;
        }
    });
    tokio::spawn(serve(listener, fake.clone(), config, rng, stop.clone()));
    World {
        dir,
        fake,
        port,
        _sshd: sshd,
        stop,
        account,
        sshd_port,
    }
}

async fn ssh(
    w: &World,
    key: &str,
    extra: &[&str],
    command: &str,
    input: &[u8],
) -> (Option<i32>, Vec<u8>, String) {
    let login = format!("{}@db1@127.0.0.1", w.account);
    run_ssh(w, w.port, &login, key, extra, command, input).await
}

async fn run_ssh(
    w: &World,
    port: u16,
    login: &str,
    key: &str,
    extra: &[&str],
    command: &str,
    input: &[u8],
) -> (Option<i32>, Vec<u8>, String) {
    use tokio::io::AsyncWriteExt as _;
    let mut child = tokio::process::Command::new("ssh")
        .args([
            "-F",
            "none",
            "-p",
            &port.to_string(),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-i",
        ])
        .arg(w.dir.path().join(key))
        .args(extra)
        .arg(login)
        .args((!command.is_empty()).then_some(command))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        stdin.write_all(&input).await.ok();
    });
    let out = tokio::time::timeout(Duration::from_secs(15), child.wait_with_output())
        .await
        .expect("ssh hangs")
        .unwrap();
    (
        out.status.code(),
        out.stdout,
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_is_the_same_and_recorded_first() {
    let w = world(false).await;
    let marker = w.dir.path().join("marker");
    let (code, out, err) = ssh(
        &w,
        "client",
        &[],
        &format!("echo hi; echo no >&2; touch {}; exit 3", marker.display()),
        b"",
    )
    .await;
    assert_eq!(
        (code, out.as_slice()),
        (Some(3), b"hi\n".as_slice()),
        "{err}"
    );
    assert!(err.contains("no\n") && marker.exists(), "{err}");
    std::fs::remove_file(&marker).unwrap();
    let bytes: Vec<u8> = (0..1_048_576u32).map(|i| (i * 31 % 251) as u8).collect();
    let (code, out, err) = ssh(&w, "client", &[], "cat", &bytes).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out == bytes, "{} bytes", out.len());
    w.stop.cancel();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let state = w.fake.state.lock().unwrap();
    let ends: Vec<_> = state
        .1
        .iter()
        .filter_map(|b| match b {
            Body::Outcome(o) => Some((o.status, o.exit_code)),
            _ => None,
        })
        .collect();
    assert_eq!(
        ends,
        [(Status::Failed, Some(3)), (Status::Succeeded, Some(0))]
    );
    assert_eq!(
        state
            .1
            .iter()
            .filter(|b| matches!(b, Body::SessionClose(_)))
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let w = world(false).await;
    w.fake.fail.store(true, Ordering::SeqCst);
    let marker = w.dir.path().join("marker");
    let (code, _, err) = ssh(
        &w,
        "client",
        &[],
        &format!("touch {}", marker.display()),
        b"",
    )
    .await;
    assert_eq!(code, Some(254), "{err}");
    assert!(!marker.exists() && err.contains("not run"), "{err}");
    assert_eq!(ssh(&w, "stranger", &[], "id", b"").await.0, Some(255));
    w.fake.fail.store(false, Ordering::SeqCst);
    let (fake, started) = (w.fake.clone(), std::time::Instant::now());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fake.revoked.store(true, Ordering::SeqCst);
    });
    let (code, _, err) = ssh(&w, "client", &[], "sleep 12", b"").await;
    assert!(
        started.elapsed() < Duration::from_secs(4) && err.contains("revoked"),
        "{code:?} {err}"
    );
    let wrong = world(true).await;
    let (code, _, err) = ssh(&wrong, "client", &[], "id", b"").await;
    assert!(
        code == Some(254) && err.contains("host key"),
        "{code:?} {err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal() {
    let w = world(false).await;
    let (code, out, err) = ssh(&w, "client", &["-tt"], "tty; exit 4", b"").await;
    assert_eq!(code, Some(4), "{err}");
    assert!(
        String::from_utf8_lossy(&out).contains("/dev/pts") && err.contains("recorded; grant"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_forwarding() {
    let w = world(false).await;
    let d = w.dir.path();
    let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 253) as u8).collect();
    std::fs::write(d.join("a"), &bytes).unwrap();
    for legacy in ["-s", "-O"] {
        for up in [true, false] {
            let remote = format!(
                "scp://{}%40db1@127.0.0.1:{}/{}",
                w.account,
                w.port,
                d.join("b").display()
            );
            let (from, to) = if up {
                (d.join("a").display().to_string(), remote)
            } else {
                (remote, d.join("c").display().to_string())
            };
            let run = tokio::process::Command::new("scp")
                .args([
                    "-q",
                    legacy,
                    "-F",
                    "none",
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-o",
                    "BatchMode=yes",
                    "-i",
                ])
                .arg(d.join("client"))
                .args([from, to])
                .output();
            let out = tokio::time::timeout(Duration::from_secs(15), run)
                .await
                .unwrap()
                .unwrap();
            assert!(
                out.status.success(),
                "{legacy} {up} {}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        assert!(std::fs::read(d.join("c")).unwrap() == bytes);
    }
    let (_, _, err) = ssh(&w, "client", &["-R", "0:127.0.0.1:1"], "sleep 1", b"").await;
    let state = w.fake.state.lock().unwrap();
    assert!(
        state
            .1
            .iter()
            .any(|b| matches!(b, Body::Refusal(r) if r.what == "forwarding")),
        "{err}"
    );
}

/// What stock `ssh` sees is the same with and without the gateway, apart from our own notices.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_exit_codes_are_those_of_the_server_itself() {
    let w = world(false).await;
    let script: &[u8] = b"echo one\ncat >/dev/null <<X\nline\nX\necho two >&2\nexit 9\n";
    let cases: [(&[&str], &str, &[u8]); 10] = [
        (&[], "true", b""),
        (&[], "exit 255", b""),
        (&[], "printf 'a\\0b\\377'", b""),
        (&[], "kill -TERM $$", b""),
        (&[], "kill -KILL $$", b""),
        (&["-o", "SetEnv=FOO=bar"], "printf %s $FOO", b""),
        (&[], "wc -c", b"12345"),
        (&[], "head -c 3000000 /dev/zero; echo end >&2", b""),
        (&["-T"], "", script),
        (&[], "exec 0<&-; echo closed", b"unread"),
    ];
    for (extra, command, input) in cases {
        let direct = run_ssh(
            &w,
            w.sshd_port,
            &format!("{}@127.0.0.1", w.account),
            "up",
            extra,
            command,
            input,
        )
        .await;
        let ours = ssh(&w, "client", extra, command, input).await;
        assert_eq!(ours.0, direct.0, "{command}: {} / {}", ours.2, direct.2);
        assert!(
            ours.1 == direct.1,
            "{command}: {} and {} bytes",
            ours.1.len(),
            direct.1.len()
        );
        let own = |text: &str| {
            let notice = |l: &&str| {
                !l.starts_with("This system is") && !l.starts_with("Warning: Permanently")
            };
            text.lines()
                .filter(notice)
                .map(|l| l.trim_end().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(own(&ours.2), own(&direct.2), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_forwarding_is_refused_and_recorded() {
    let w = world(false).await;
    let port = free_port().to_string();
    let local = format!("{port}:127.0.0.1:{}", w.sshd_port);
    // The connection is made by the command itself, so the forward is really tried.
    let probe = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; head -c 4 <&3'; true");
    let (_, out, _) = ssh(&w, "client", &["-L", &local], &probe, b"").await;
    assert!(!out.starts_with(b"SSH-"), "the forward carried bytes");
    ssh(&w, "client", &["-A"], "true", b"").await;
    ssh(&w, "client", &["-W", "127.0.0.1:1"], "", b"").await;
    let state = w.fake.state.lock().unwrap();
    let refused = state
        .1
        .iter()
        .filter(|b| matches!(b, Body::Refusal(r) if r.what == "forwarding"));
    assert!(refused.count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_share_a_connection_and_a_session() {
    let w = world(false).await;
    let control = w.dir.path().join("mux");
    let path = format!("ControlPath={}", control.display());
    let master = [
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=5",
        "-o",
        path.as_str(),
    ];
    for n in 0..4u8 {
        let (code, out, err) = ssh(&w, "client", &master, &format!("echo {n}"), b"").await;
        assert_eq!(
            (code, out),
            (Some(0), format!("{n}\n").into_bytes()),
            "{err}"
        );
    }
    let both = tokio::join!(
        ssh(&w, "client", &master, "sleep 1; echo a", b""),
        ssh(&w, "client", &master, "echo b", b"")
    );
    assert_eq!(
        (both.0.1.as_slice(), both.1.1.as_slice()),
        (b"a\n".as_slice(), b"b\n".as_slice())
    );
    ssh(&w, "client", &["-o", &path, "-O", "exit"], "", b"").await;
    let state = w.fake.state.lock().unwrap();
    let count = |wanted: fn(&Body) -> bool| state.1.iter().filter(|b| wanted(b)).count();
    assert_eq!(count(|b| matches!(b, Body::SessionOpen(_))), 1);
    assert_eq!(count(|b| matches!(b, Body::Intent(_))), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_exactly_what_passed() {
    use sha2::{Digest as _, Sha256};
    let w = world(false).await;
    let input: Vec<u8> = (0..200_000u32).map(|i| (i % 247) as u8).collect();
    let (code, out, err) = ssh(&w, "client", &[], "cat; echo note >&2", &input).await;
    assert_eq!((code, out == input), (Some(0), true), "{err}");
    w.stop.cancel();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let state = w.fake.state.lock().unwrap();
    let outcome = state.1.iter().find_map(|b| match b {
        Body::Outcome(outcome) => Some(outcome.clone()),
        _ => None,
    });
    let digest: [u8; 32] = Sha256::digest(&input).into();
    let totals: Vec<_> = outcome
        .unwrap()
        .streams
        .into_iter()
        .map(|s| (s.stream, s.bytes, s.stored, s.sha256.0.0 == digest))
        .collect();
    assert_eq!(
        totals,
        [
            ("stdin".to_owned(), 200_000, 200_000, true),
            ("stdout".to_owned(), 200_000, 200_000, true),
            ("stderr".to_owned(), 5, 5, false),
        ]
    );
    let sealed: u64 = state
        .1
        .iter()
        .filter_map(|b| match b {
            Body::Evidence(e) => Some(e.chunks.iter().map(|c| c.bytes).sum::<u64>()),
            _ => None,
        })
        .sum();
    assert_eq!(sealed, 400_005);
}

/// Reads until the gateway hangs up; fails when it does not.
async fn until_closed(mut socket: tokio::net::TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let read = async {
        let mut sink = [0; 4096];
        while matches!(socket.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the gateway does not hang up");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_flooding_strangers_are_cut_off_and_others_are_served() {
    use tokio::io::AsyncWriteExt as _;
    let w = world(false).await;
    let connect = || tokio::net::TcpStream::connect(("127.0.0.1", w.port));
    let silent = connect().await.unwrap();
    let mut half = connect().await.unwrap();
    half.write_all(b"SSH-2.0-half\r\n").await.unwrap();
    let mut huge = connect().await.unwrap();
    // A packet that claims to be 1 GiB long.
    huge.write_all(b"SSH-2.0-huge\r\n\x40\x00\x00\x00")
        .await
        .unwrap();
    let mut flood = connect().await.unwrap();
    flood.write_all(b"SSH-2.0-flood\r\n").await.unwrap();
    let (code, out, err) = ssh(&w, "client", &[], "echo served", b"").await;
    assert_eq!(
        (code, out.as_slice()),
        (Some(0), b"served\n".as_slice()),
        "{err}"
    );
    let flooding = async {
        // Small well-formed-looking packets; the write fails once the gateway has had enough.
        let packet = [0, 0, 0, 12, 10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..64 * 1024 {
            if flood.write_all(&packet).await.is_err() {
                return None;
            }
        }
        Some(flood)
    };
    let flood = tokio::time::timeout(Duration::from_secs(20), flooding)
        .await
        .unwrap();
    for socket in [Some(silent), Some(half), Some(huge), flood]
        .into_iter()
        .flatten()
    {
        until_closed(socket).await;
    }
    assert!(
        w.fake
            .state
            .lock()
            .unwrap()
            .1
            .iter()
            .all(|b| !matches!(b, Body::Refusal(_)))
    );
}
