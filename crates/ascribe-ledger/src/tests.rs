//! A small world to record in, and what happens to it.

mod archive;
mod basic;
mod crash;
mod disk;
mod hostile;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ascribe_core::encoding::{Bytes, base64_std};
use ascribe_core::entry::{
    Body, CloseReason, Door, Intent, OpenedBy, Outcome, SessionClose, SessionOpen, Status,
};
use ascribe_core::id::{
    ActionId, EntryHash, EntryId, GrantId, PersonId, Root, SessionId, StatementId,
};
use ascribe_core::law::Judge;
use ascribe_core::record::{Proposal, Receipt, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{
    BreakGlass, OverCap, PersonAdd, Role, Say, Seen, Signed, SshKey, Statement, Target,
};
use ascribe_core::time::Timestamp;
use ascribe_tlog::{Checkpoint, Hash, leaf_hash, verify_inclusion};

use crate::{Clock, Drivers, InitOptions, Ledger, LedgerError, Made, Rng};

const ORIGIN: &str = "ledger.example/test";
const SEGMENT: u64 = 2 << 20;
const START: i64 = 1_764_000_000_000;

/// Takes the signature to be the key itself.
struct Naive;

impl Judge for Naive {
    fn sshsig(&self, _: &str, _: &[u8], sig: &[u8]) -> Option<SshKey> {
        String::from_utf8(sig.to_vec()).ok().map(SshKey)
    }
}

#[derive(Debug)]
struct Hands {
    wall: AtomicI64,
    mono: AtomicI64,
}

impl Hands {
    fn step(&self, ms: i64) {
        self.wall.fetch_add(ms, Ordering::SeqCst);
        self.mono.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now_millis(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }
    fn monotonic_millis(&self) -> i64 {
        self.mono.load(Ordering::SeqCst)
    }
}

/// Different bytes every time, the same in every run.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Rng for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), LedgerError> {
        for chunk in bytes.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&leaf_hash(&n.to_le_bytes()).0[..chunk.len()]);
        }
        Ok(())
    }
}

struct World {
    tmp: tempfile::TempDir,
    clock: Arc<Hands>,
    drivers: Drivers,
    ids: AtomicU64,
    grant: Option<GrantId>,
}

fn person() -> PersonId {
    PersonId::new([1; 16])
}

fn key() -> SshKey {
    SshKey(format!("ssh-ed25519 {}", base64_std(&[7; 51])))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Hands {
            wall: START.into(),
            mono: 0.into(),
        });
        let rng = Arc::new(Counting::default());
        let drivers = Drivers {
            judge: Arc::new(Naive),
            clock: Arc::clone(&clock) as _,
            rng,
        };
        let tmp = tempfile::tempdir().unwrap();
        Self {
            tmp,
            clock,
            drivers,
            ids: AtomicU64::new(0),
            grant: None,
        }
    }
    fn dir(&self) -> PathBuf {
        self.tmp.path().join("data")
    }
    fn head(&self) -> PathBuf {
        self.tmp.path().join("head")
    }
    fn options(&self) -> InitOptions {
        let name = Opening::new("name", [3; 32], b"Ada".to_vec());
        let admin = PersonAdd {
            person: person(),
            name: name.commitment(),
            keys: vec![key()],
            roles: vec![Role::Admin, Role::Requester, Role::Approver],
        };
        InitOptions {
            admins: vec![(admin, name)],
            head: Some(self.head()),
            segment_bytes: SEGMENT,
            ..InitOptions::new(ORIGIN, &self.tmp.path().join("wrap.key"))
        }
    }
    fn init(&self) -> Made {
        Ledger::init(&self.dir(), &self.options(), &self.drivers).unwrap()
    }
    fn open(&self) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.dir(), &self.drivers)
    }
    fn id(&self) -> [u8; 16] {
        let n = self.ids.fetch_add(1, Ordering::SeqCst);
        ascribe_core::id::derived("test", &[&n.to_le_bytes()])
    }
    fn proposal(&self, body: Body) -> Proposal {
        Proposal {
            id: EntryId::new(self.id()),
            writer: "gateway".to_owned(),
            body,
            openings: Vec::new(),
            scope: Scope::None,
        }
    }
    fn statement(&self, say: Say, openings: Vec<Opening>) -> Proposal {
        let id = StatementId::new(self.id());
        let statement = Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: person(),
            at: Timestamp::from_millis(self.clock.now_millis()),
            id,
            seen: Seen {
                size: 0,
                root: Root(Hash::ZERO),
            },
            say,
        };
        let text = statement.to_text().unwrap();
        let body = Body::Statement(Signed {
            text,
            sig: Bytes(key().0.into_bytes()),
        });
        Proposal {
            openings,
            scope: Scope::Request(id),
            ..self.proposal(body)
        }
    }
    /// A target and a grant on it.
    fn furnish(&mut self, ledger: &Ledger) {
        let target = Target {
            addresses: vec!["127.0.0.1".into()],
            loopback: true,
            max_seconds: 3600,
            min_justification: 10,
            break_glass: vec![person()],
            review_seconds: 3600,
            stream_cap: 1 << 20,
            over_cap: OverCap::Refuse,
            ..Target::ssh("db1", ("db1.example", 22), key(), "root", person())
        };
        record(ledger, self.statement(Say::TargetSet(target), vec![])).unwrap();
        let why = Opening::new(
            "emergency",
            [5; 32],
            b"the primary is down and nobody is here".to_vec(),
        );
        let emergency = BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after: Timestamp::from_millis(self.clock.now_millis() + 3_500_000),
            emergency: Prose::of(&why),
            ticket: None,
        };
        record(
            ledger,
            self.statement(Say::BreakGlass(emergency), vec![why]),
        )
        .unwrap();
        self.grant = ledger.with_state(|s| s.grants.keys().next().copied());
    }
    fn session(&self, ledger: &Ledger) -> SessionId {
        let (session, open) = self.opening();
        record(ledger, open).unwrap();
        session
    }
    /// A session, and what opens it.
    fn opening(&self) -> (SessionId, Proposal) {
        let session = SessionId::new(self.id());
        let from = Opening::new("from", [6; 32], b"192.0.2.1".to_vec());
        let body = Body::SessionOpen(SessionOpen {
            session,
            grant: self.grant.unwrap(),
            person: person(),
            key: key().fingerprint(),
            target: "db1".to_owned(),
            account: "root".to_owned(),
            from: from.commitment(),
            certificate: None,
            delegation: None,
            door: Door::Direct,
            opened_by: OpenedBy::Testimony,
            opening: None,
            login: None,
        });
        let open = Proposal {
            openings: vec![from],
            scope: Scope::Session(session),
            ..self.proposal(body)
        };
        (session, open)
    }
    fn intent(&self, session: SessionId, command: &str) -> Proposal {
        self.intent_of(session, command.as_bytes().to_vec())
    }
    fn intent_of(&self, session: SessionId, command: Vec<u8>) -> Proposal {
        let command = Opening::new("command", [8; 32], command);
        let body = Body::Intent(Intent {
            action: ActionId::new(self.id()),
            session,
            kind: "ssh.exec".to_owned(),
            command: Some(command.commitment()),
            env: None,
            lends: Vec::new(),
            pty: None,
            forward_within_ms: 2000,
            within: None,
            sql: None,
        });
        let scope = Scope::Session(session);
        Proposal {
            openings: vec![command],
            scope,
            ..self.proposal(body)
        }
    }
    fn outcome(&self, intent: &Proposal) -> Proposal {
        let Body::Intent(intent) = &intent.body else {
            panic!("no intent")
        };
        self.proposal(Body::Outcome(Outcome {
            notes: Vec::new(),
            action: intent.action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            streams: vec![],
            sql: None,
        }))
    }
    fn close(&self, session: SessionId) -> Proposal {
        let reason = CloseReason::Disconnected;
        self.proposal(Body::SessionClose(SessionClose {
            session,
            reason,
            actions: 0,
            entries: 0,
        }))
    }
    fn segment(&self) -> PathBuf {
        self.dir().join("segments").join("00000000.seg")
    }
}

fn record(ledger: &Ledger, proposal: Proposal) -> Result<Receipt, RecordError> {
    block_on(ledger.record(proposal))
}

/// All at once, on this thread.
async fn join_all<T>(
    futures: Vec<std::pin::Pin<Box<dyn Future<Output = T> + Send + '_>>>,
) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|f| (Some(f), None)).collect();
    std::future::poll_fn(move |cx| {
        let mut open = false;
        for (future, done) in &mut futures {
            if let Some(f) = future {
                match f.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => (*future, *done) = (None, Some(value)),
                    std::task::Poll::Pending => open = true,
                }
            }
        }
        if open {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(
            futures
                .iter_mut()
                .filter_map(|(_, done)| done.take())
                .collect(),
        )
    })
    .await
}

/// What the gate checks.
fn check(ledger: &Ledger, receipt: &Receipt) -> Checkpoint {
    let checkpoint = Checkpoint::open(receipt.checkpoint.as_bytes(), &[ledger.log_key()]).unwrap();
    let leaf = leaf_hash(&receipt.entry);
    verify_inclusion(
        &leaf,
        receipt.index,
        checkpoint.size,
        &receipt.proof,
        &checkpoint.root,
    )
    .unwrap();
    checkpoint
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn hash(bytes: &[u8]) -> EntryHash {
    ascribe_core::entry::entry_hash(bytes)
}
