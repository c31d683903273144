//! A ledger on the disk at hand with one person, one target and one grant; what happens is made
//! up, the signatures are not.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use ascribe_core::database::{Postgres, Values};
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{
    Body, CloseReason, Door, Intent, OpenedBy, Outcome, SessionClose, SessionOpen, Status,
    StreamTotal,
};
use ascribe_core::id::{
    ActionId, ContentDigest, EntryId, GrantId, PersonId, Root, SessionId, StatementId,
};
use ascribe_core::record::{Proposal, Receipt, Recorder as _, Scope};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{
    BreakGlass, Connect, OverCap, PersonAdd, Role, Say, Seen, Signed, SshKey, Statement, Target,
};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, dearmour, parse_public_key};
use ascribe_ledger::{
    Config, Drivers, HeadCopy, InitOptions, Journal, Ledger, LocalHead, LocalJournal, LocalObjects,
    Made, Stores, SystemClock, SystemRng,
};
use ascribe_tlog::Hash;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use tempfile::TempDir;

const ORIGIN: &str = "bench.example/log";
/// Under the hour that such a grant may last.
const GRANT_MS: i64 = 3_500_000;

/// Segments, and what was done to them.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: LocalJournal,
    /// Does it sync? Only here can that be left out, to see what it costs.
    synced: bool,
    counts: [AtomicU64; 6],
}

/// What was done to the segments so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) batches: f64,
    pub(crate) bytes: f64,
    pub(crate) write_us: f64,
    pub(crate) sync_us: f64,
    pub(crate) allocate_us: f64,
    pub(crate) head_us: f64,
}

impl Counted {
    fn timed<T>(&self, slot: usize, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        let done = act();
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.add(slot, took);
        done
    }
    fn add(&self, slot: usize, by: u64) {
        if let Some(count) = self.counts.get(slot) {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }
    /// So far.
    pub(crate) fn counts(&self) -> Counts {
        let [batches, bytes, write, sync, allocate, head] = &self.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        Counts {
            batches: get(batches),
            bytes: get(bytes),
            write_us: get(write) / 1e3,
            sync_us: get(sync) / 1e3,
            allocate_us: get(allocate) / 1e3,
            head_us: get(head) / 1e3,
        }
    }
}

impl Journal for Counted {
    fn segments(&self) -> io::Result<Vec<u64>> {
        self.inner.segments()
    }
    fn allocate(&self, segment: u64, bytes: u64) -> io::Result<()> {
        self.timed(4, || self.inner.allocate(segment, bytes))
    }
    fn bytes(&self, segment: u64) -> io::Result<u64> {
        self.inner.bytes(segment)
    }
    fn read(&self, segment: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.inner.read(segment, offset, len)
    }
    fn write_at(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.add(0, 1);
        self.add(1, bytes.len() as u64);
        self.timed(2, || self.inner.write_at(segment, offset, bytes))
    }
    fn sync(&self, segment: u64) -> io::Result<()> {
        if !self.synced {
            return Ok(());
        }
        self.timed(3, || self.inner.sync(segment))
    }
    fn remove(&self, segment: u64) -> io::Result<()> {
        self.inner.remove(segment)
    }
    fn name(&self, segment: u64) -> String {
        self.inner.name(segment)
    }
}

/// The head's copy, timed.
#[derive(Debug)]
struct TimedHead {
    inner: LocalHead,
    journal: Arc<Counted>,
}

impl HeadCopy for TimedHead {
    fn read(&self) -> io::Result<Vec<String>> {
        self.inner.read()
    }
    fn write(&mut self, note: &str) -> io::Result<()> {
        let Self { inner, journal } = self;
        journal.timed(5, || inner.write(note))
    }
    fn name(&self) -> String {
        self.inner.name()
    }
}

/// A ledger's directory and whoever may sign there.
pub(crate) struct World {
    tmp: TempDir,
    key: PrivateKey,
    public: SshKey,
    drivers: Drivers,
    ids: AtomicU64,
    /// What the directory began with.
    pub(crate) made: Made,
    /// What is done to its segments.
    pub(crate) journal: Arc<Counted>,
}

fn person() -> PersonId {
    PersonId::new([1; 16])
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        Self::synced(true)
    }

    pub(crate) fn synced(synced: bool) -> Result<Self> {
        let tmp = tempfile::tempdir()?;
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let public = parse_public_key(&key.public_key().to_openssh()?)?;
        let drivers = Drivers {
            judge: Arc::new(SshSignatures),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
        };
        let name = Opening::new("name", [3; 32], b"Ada".to_vec());
        let admin = PersonAdd {
            person: person(),
            name: name.commitment(),
            keys: vec![public.clone()],
            roles: vec![Role::Admin, Role::Requester, Role::Approver],
        };
        let options = InitOptions {
            admins: vec![(admin, name)],
            head: Some(tmp.path().join("head")),
            ..InitOptions::new(ORIGIN, &tmp.path().join("wrap.key"))
        };
        let dir = tmp.path().join("data");
        let made = Ledger::init(&dir, &options, &drivers)?;
        let journal = Arc::new(Counted {
            inner: LocalJournal::new(&dir.join("segments"), true),
            synced,
            counts: Default::default(),
        });
        Ok(Self {
            tmp,
            key,
            public,
            drivers,
            ids: AtomicU64::new(0),
            made,
            journal,
        })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.tmp.path().join("data")
    }

    /// A file beside the ledger, so on the same disk.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    /// Opens it, counting.
    pub(crate) fn open(&self) -> Result<Ledger> {
        let config = Config::load(&self.dir())?;
        let stores = Stores {
            journal: Arc::clone(&self.journal) as _,
            objects: Arc::new(LocalObjects::new(&self.dir())),
            head: Some(Box::new(TimedHead {
                inner: LocalHead::new(&self.beside("head")),
                journal: Arc::clone(&self.journal),
            })),
        };
        Ok(Ledger::open_with(
            &self.dir(),
            &config,
            stores,
            &self.drivers,
        )?)
    }

    fn id(&self) -> [u8; 16] {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        ascribe_core::id::derived("bench", &[&n.to_le_bytes()])
    }

    fn now(&self) -> i64 {
        self.drivers.clock.now_millis()
    }

    fn proposal(&self, body: Body, openings: Vec<Opening>, scope: Scope) -> Proposal {
        Proposal {
            id: EntryId::new(self.id()),
            writer: "gateway".to_owned(),
            body,
            openings,
            scope,
        }
    }

    fn statement(&self, say: Say, openings: Vec<Opening>) -> Result<Proposal> {
        let id = StatementId::new(self.id());
        let statement = Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: person(),
            at: Timestamp::from_millis(self.now()),
            id,
            seen: Seen {
                size: 0,
                root: Root(Hash::ZERO),
            },
            say,
        };
        let text = statement.to_text()?;
        let namespace = statement.say.namespace();
        let sig = self
            .key
            .sign(&namespace, HashAlg::Sha512, text.as_bytes())?;
        let sig = Bytes(dearmour(&sig.to_pem(LineEnding::LF)?)?);
        let body = Body::Statement(Signed { text, sig });
        Ok(self.proposal(body, openings, Scope::Request(id)))
    }

    /// A target and a grant on it.
    pub(crate) async fn furnish(&self, ledger: &Ledger) -> Result<GrantId> {
        self.furnish_with(ledger, self.target()).await
    }

    /// A database on this machine, and a grant on it.
    pub(crate) async fn furnish_database(&self, ledger: &Ledger, port: u16) -> Result<GrantId> {
        let target = Target {
            port,
            host_keys: Vec::new(),
            postgres: Some(Postgres {
                allow: Vec::new(),
                databases: Vec::new(),
                trust: Vec::new(),
                values: Values::Full,
            }),
            over_cap: OverCap::Digest,
            ..self.target()
        };
        self.furnish_with(ledger, target).await
    }

    /// What a person signs before a connection.
    pub(crate) fn connect(&self) -> Result<Signed> {
        let connect = Connect {
            definition: None,
            target: "db1".to_owned(),
            account: "root".to_owned(),
            grant: None,
        };
        match self.statement(Say::Connect(connect), vec![])?.body {
            Body::Statement(signed) => Ok(signed),
            _ => anyhow::bail!("no statement"),
        }
    }

    fn target(&self) -> Target {
        Target {
            addresses: vec!["127.0.0.1".into()],
            loopback: true,
            max_seconds: 3600,
            min_justification: 10,
            break_glass: vec![person()],
            review_seconds: 3600,
            stream_cap: 1 << 20,
            over_cap: OverCap::Refuse,
            ..Target::ssh(
                "db1",
                ("db1.example", 22),
                self.public.clone(),
                "root",
                person(),
            )
        }
    }

    async fn furnish_with(&self, ledger: &Ledger, target: Target) -> Result<GrantId> {
        ledger
            .record(self.statement(Say::TargetSet(target), vec![])?)
            .await?;
        let why = b"the primary is down and nobody is here".to_vec();
        let why = Opening::new("emergency", [5; 32], why);
        let emergency = BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after: Timestamp::from_millis(self.now() + GRANT_MS),
            emergency: Prose::of(&why),
            ticket: None,
        };
        ledger
            .record(self.statement(Say::BreakGlass(emergency), vec![why])?)
            .await?;
        let grant = ledger.with_state(|s| s.grants.keys().next().copied());
        grant.context("no grant came of it")
    }

    pub(crate) async fn session(&self, ledger: &Ledger, grant: GrantId) -> Result<SessionId> {
        let session = SessionId::new(self.id());
        let from = Opening::new("from", [6; 32], b"192.0.2.1".to_vec());
        let body = Body::SessionOpen(SessionOpen {
            session,
            grant,
            person: person(),
            key: self.public.fingerprint(),
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
        let scope = Scope::Session(session);
        ledger
            .record(self.proposal(body, vec![from], scope))
            .await?;
        Ok(session)
    }

    pub(crate) fn intent(&self, session: SessionId, command: Vec<u8>) -> (ActionId, Proposal) {
        let command = Opening::new("command", [8; 32], command);
        let action = ActionId::new(self.id());
        let body = Body::Intent(Intent {
            action,
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
        (action, self.proposal(body, vec![command], scope))
    }

    fn outcome(&self, action: ActionId) -> Proposal {
        let stdout = StreamTotal {
            stream: "stdout".to_owned(),
            bytes: 120,
            in_files: 0,
            stored: 0,
            sha256: ContentDigest(ascribe_tlog::leaf_hash(b"")),
        };
        let body = Body::Outcome(Outcome {
            notes: Vec::new(),
            action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            streams: vec![stdout],
            sql: None,
        });
        self.proposal(body, vec![], Scope::None)
    }

    /// One session that runs so many commands, one after the other.
    pub(crate) async fn run(&self, ledger: &Ledger, grant: GrantId, execs: usize) -> Result<()> {
        let session = self.session(ledger, grant).await?;
        for n in 0..execs {
            let command = format!("systemctl restart replica@{n:04} && journalctl -n 20");
            let (action, intent) = self.intent(session, command.into_bytes());
            ledger.record(intent).await?;
            ledger.record(self.outcome(action)).await?;
        }
        let close = Body::SessionClose(SessionClose {
            session,
            reason: CloseReason::Disconnected,
            actions: 0,
            entries: 0,
        });
        let _: Receipt = ledger
            .record(self.proposal(close, vec![], Scope::None))
            .await?;
        Ok(())
    }
}
