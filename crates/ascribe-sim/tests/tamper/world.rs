//! A real data directory in small segments, made by two people with real keys.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{
    Body, Chunk, CloseReason, Door, Evidence, Intent, OpenedBy, Outcome, SessionClose, SessionOpen,
    Status,
};
use ascribe_core::id::{ActionId, EntryId, GrantId, PersonId, Root, SessionId, StatementId};
use ascribe_core::record::{Proposal, Receipt, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::{Opening, Prose};
use ascribe_core::statement::{
    Answer, PersonAdd, Request, Role, Say, Seen, Signed, SshKey, Statement, Target,
};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, dearmour, parse_public_key};
use ascribe_ledger::{Clock, Drivers, InitOptions, Ledger, LedgerError, MIN_SEGMENT, Made, Rng};
use ascribe_tlog::{Checkpoint, TrustPolicy, leaf_hash};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use tempfile::TempDir;

pub(super) const ORIGIN: &str = "log.test/a";
const BEGIN: i64 = 1_764_000_000_000;

/// Moves when it is told to.
#[derive(Debug)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic_millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The same bytes in every run, and never the same twice in a world.
#[derive(Debug)]
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

/// Administers and approves, or asks and acts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    Ada = 1,
    Olu = 2,
}

impl Who {
    fn id(self) -> PersonId {
        PersonId::new([self as u8; 16])
    }
    fn secret(self) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[self as u8; 32]))
    }
    fn key(self) -> SshKey {
        parse_public_key(&self.secret().public_key().to_openssh().unwrap()).unwrap()
    }
    fn enrolment(self) -> (PersonAdd, Opening) {
        let (name, roles) = match self {
            Self::Ada => ("Ada Approver", vec![Role::Admin, Role::Approver]),
            Self::Olu => ("Olu Operator", vec![Role::Requester]),
        };
        let name = Opening::new("name", [self as u8; 32], name.into());
        let add = PersonAdd {
            person: self.id(),
            name: name.commitment(),
            keys: vec![self.key()],
            roles,
        };
        (add, name)
    }
}

/// A directory and whoever writes into it.
pub(super) struct World {
    tmp: TempDir,
    clock: Arc<Hands>,
    drivers: Drivers,
    ids: AtomicU64,
    made: Made,
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

impl World {
    /// A new one; the seed decides the server's keys.
    pub(super) fn new(seed: u64) -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands(BEGIN.into()));
        let drivers = Drivers {
            judge: Arc::new(SshSignatures),
            clock: Arc::clone(&clock) as _,
            rng: Arc::new(Counting((seed << 32).into())),
        };
        let options = InitOptions {
            admins: vec![Who::Ada.enrolment(), Who::Olu.enrolment()],
            head: Some(tmp.path().join("head")),
            segment_bytes: MIN_SEGMENT,
            ..InitOptions::new(ORIGIN, &tmp.path().join("wrap.key"))
        };
        let made = Ledger::init(&tmp.path().join("data"), &options, &drivers).unwrap();
        Self {
            tmp,
            clock,
            drivers,
            ids: AtomicU64::new(0),
            made,
        }
    }
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }
    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }
    /// Opens it, or any of the directories that were made from it.
    pub(super) fn open(&self, dir: &Path) -> Result<Ledger, LedgerError> {
        // Until it is another program, a child of another test's thread holds every lock of ours.
        for _ in 0..1000 {
            match Ledger::open(dir, &self.drivers) {
                Err(LedgerError::Locked(_)) => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened,
            }
        }
        Ledger::open(dir, &self.drivers)
    }
    /// The policy of whoever trusts this log.
    pub(super) fn trust(&self) -> TrustPolicy {
        TrustPolicy {
            logs: vec![self.made.log_key.clone()],
            first_entry: Some(self.made.first_entry.0),
            ..TrustPolicy::default()
        }
    }
    fn id(&self) -> [u8; 16] {
        let n = self.ids.fetch_add(1, Ordering::SeqCst);
        ascribe_core::id::derived("test", &[&n.to_le_bytes()])
    }
    fn salt(&self) -> [u8; 32] {
        leaf_hash(&self.id()).0
    }
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now_millis())
    }
    fn record(
        &self,
        ledger: &Ledger,
        body: Body,
        openings: Vec<Opening>,
        scope: Scope,
    ) -> Result<Receipt, RecordError> {
        self.clock.0.fetch_add(50, Ordering::SeqCst);
        let writer = match body {
            Body::Statement(_) => "server",
            _ => "gateway",
        };
        block_on(ledger.record(Proposal {
            id: EntryId::new(self.id()),
            writer: writer.to_owned(),
            body,
            openings,
            scope,
        }))
    }
    /// A statement whose signer saw this of the log.
    pub(super) fn say(
        &self,
        ledger: &Ledger,
        (by, seen): (Who, Seen),
        say: Say,
        opening: Option<Opening>,
    ) -> Result<(StatementId, Receipt), RecordError> {
        let id = StatementId::new(self.id());
        let statement = Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: by.id(),
            at: self.now(),
            id,
            seen,
            say,
        };
        let text = statement.to_text().unwrap();
        let namespace = statement.say.namespace();
        let sig = by
            .secret()
            .sign(&namespace, HashAlg::Sha512, text.as_bytes());
        let sig = Bytes(dearmour(&sig.unwrap().to_pem(LineEnding::LF).unwrap()).unwrap());
        let body = Body::Statement(Signed { text, sig });
        let openings = opening.into_iter().collect();
        let receipt = self.record(ledger, body, openings, Scope::Request(id))?;
        Ok((id, receipt))
    }
    /// The log as it is.
    pub(super) fn seen(&self, ledger: &Ledger) -> Seen {
        let note = ledger.checkpoint_note();
        let checkpoint = Checkpoint::open(note.as_bytes(), &[ledger.log_key()]).unwrap();
        Seen {
            size: checkpoint.size,
            root: Root(checkpoint.root),
        }
    }
    pub(super) fn target(&self) -> Target {
        Target {
            max_seconds: 14_400,
            min_justification: 10,
            review_seconds: 3600,
            stream_cap: 1 << 20,
            ..Target::ssh(
                "db1",
                ("192.0.2.1", 22),
                Who::Ada.key(),
                "root",
                Who::Ada.id(),
            )
        }
    }
    /// Asked for by Olu, approved by Ada.
    pub(super) fn grant(&self, ledger: &Ledger) -> GrantId {
        let say = |who, say, opening| {
            let seen = self.seen(ledger);
            self.say(ledger, (who, seen), say, opening).unwrap()
        };
        say(Who::Ada, Say::TargetSet(self.target()), None);
        let why = Opening::new("justification", self.salt(), b"restart the replica".into());
        let request = Request::plain(
            "db1",
            "root",
            (self.now(), self.now().plus_millis(3_600_000)),
            Prose::of(&why),
        );
        let (of, asked) = say(Who::Olu, Say::Request(request), Some(why));
        let entry = ascribe_core::entry::entry_hash(&asked.entry);
        let answer = Answer {
            of,
            entry,
            remark: None,
        };
        say(Who::Ada, Say::Approval(answer), None);
        ledger.with_state(|state| *state.grants.keys().next().unwrap())
    }
    pub(super) fn session(&self, ledger: &Ledger, grant: GrantId) -> SessionId {
        let session = SessionId::new(self.id());
        let from = Opening::new("from", self.salt(), b"192.0.2.7:4022".into());
        let open = Body::SessionOpen(SessionOpen {
            session,
            grant,
            person: Who::Olu.id(),
            key: Who::Olu.key().fingerprint(),
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
        self.record(ledger, open, vec![from], scope).unwrap();
        session
    }
    pub(super) fn intent(&self, ledger: &Ledger, session: SessionId, command: &str) -> ActionId {
        let command = Opening::new("command", self.salt(), command.into());
        let action = ActionId::new(self.id());
        let intent = Body::Intent(Intent {
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
        self.record(ledger, intent, vec![command], scope).unwrap();
        action
    }
    /// Output, then success.
    pub(super) fn finish(&self, ledger: &Ledger, session: SessionId, action: ActionId) {
        let output = format!("done: {action}\n").into_bytes();
        let length = output.len() as u64;
        let output = Opening::new("stdout/0", self.salt(), output);
        let chunk = Chunk {
            stream: "stdout".to_owned(),
            seq: 0,
            bytes: length,
            after_ms: 4,
            commit: output.commitment(),
        };
        let chunks = vec![chunk];
        let evidence = Body::Evidence(Evidence { action, chunks });
        let scope = Scope::Session(session);
        self.record(ledger, evidence, vec![output], scope).unwrap();
        let outcome = Body::Outcome(Outcome {
            notes: Vec::new(),
            action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            streams: vec![],
            sql: None,
        });
        self.record(ledger, outcome, vec![], Scope::None).unwrap();
    }
    pub(super) fn close(&self, ledger: &Ledger, session: SessionId) {
        let close = Body::SessionClose(SessionClose {
            session,
            reason: CloseReason::Disconnected,
            actions: 0,
            entries: 0,
        });
        self.record(ledger, close, vec![], Scope::None).unwrap();
    }
    /// A session of so many commands.
    pub(super) fn run(&self, ledger: &Ledger, grant: GrantId, commands: usize) -> SessionId {
        let session = self.session(ledger, grant);
        for n in 0..commands {
            let action = self.intent(ledger, session, &format!("systemctl restart replica@{n}"));
            self.finish(ledger, session, action);
        }
        self.close(ledger, session);
        session
    }

    /// Runs the binary, away from this machine's own configuration.
    pub(super) fn ascribe(&self, args: &[&str]) -> Output {
        Command::new(binary())
            .args(args)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("ASCRIBE_SERVER")
            .output()
            .unwrap()
    }
}

/// The binary, built once.
fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // TARGET/PROFILE/deps/THIS
        let this = std::env::current_exe().unwrap();
        let place = this.parent().unwrap().parent().unwrap();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--locked", "-p", "ascribe"])
            .arg("--target-dir")
            .arg(place.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let profile = place.file_name().unwrap().to_str().unwrap();
        if profile != "debug" {
            build.args(["--profile", profile]);
        }
        assert!(build.status().unwrap().success(), "the binary is not built");
        place.join("ascribe")
    })
}
