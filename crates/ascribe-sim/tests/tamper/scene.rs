//! A closed ledger to spoil, and how a spoilt copy of its directory is judged.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::Status;
use ascribe_core::id::ActionId;
use ascribe_ledger::{Ledger, Reader};
use ascribe_verify::{Asked, Report, Verdict, verify_asked};

use super::world::World;

pub(super) const BLOCK: usize = 512;
pub(super) const PAYLOAD: usize = BLOCK - 4;
/// Longest wait for what happens behind the writer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A closed ledger in several segments, and what it proves.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) report: Report,
    pub(super) note: String,
    pub(super) segments: Vec<Vec<u8>>,
}

/// What `ascribe verify DIR` does, perhaps with an earlier checkpoint.
pub(super) fn judge(world: &World, dir: &Path, earlier: Option<&str>) -> Result<Report, String> {
    let reader = Reader::open(dir).map_err(|e| e.to_string())?;
    let entries = reader.entries(0..reader.size()).unwrap();
    let mut openings = Vec::new();
    for index in 0..reader.size() {
        for opening in reader.openings(index).unwrap_or_default() {
            openings.push((index, opening));
        }
    }
    let asked = Asked {
        earlier: earlier.map(str::as_bytes),
        ..Asked::default()
    };
    Ok(verify_asked(
        asked,
        reader.checkpoint_note().as_bytes(),
        &entries,
        &openings,
        &world.trust(),
        "missing",
        &mut |_| {},
    ))
}

/// Copies a directory.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub(super) fn segment(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("segments/{number:08}.seg"))
}

/// Blocks at the beginning of a segment that were written.
pub(super) fn used(segment: &[u8]) -> usize {
    let last = segment.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| last / BLOCK + 1)
}

impl Scene {
    /// Everything still lies in segments.
    pub(super) fn new() -> Self {
        Self::of(World::new(0))
    }

    pub(super) fn of(world: World) -> Self {
        let scene = Self::with(world, 3, 20, |_| true);
        assert!(scene.segments.len() >= 3, "{}", scene.segments.len());
        scene
    }

    /// The older half lies in tiles and packs.
    pub(super) fn archived() -> Self {
        let scene = Self::with(World::new(0), 3, 60, |ledger| ledger.archived().0 > 256);
        assert!(
            scene.segments.is_empty(),
            "the first segment is still there"
        );
        scene
    }

    /// So many sessions of so many commands each, once the ledger is as wanted.
    fn with(
        world: World,
        sessions: usize,
        commands: usize,
        ready: impl Fn(&Ledger) -> bool,
    ) -> Self {
        let ledger = world.open(&world.data()).unwrap();
        let grant = world.grant(&ledger);
        for _ in 0..sessions {
            world.run(&ledger, grant, commands);
        }
        let begun = Instant::now();
        while !ready(&ledger) {
            assert!(begun.elapsed() < PATIENCE, "nothing is archived");
            std::thread::sleep(Duration::from_millis(5));
        }
        ledger.shutdown();
        let note = ledger.checkpoint_note();
        drop(ledger);
        let report = judge(&world, &world.data(), Some(&note)).unwrap();
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        assert_eq!(report.actions.len(), sessions * commands);
        assert!(report.actions.iter().all(|a| a.what.content == "present"));
        let segments: Vec<Vec<u8>> = (0..)
            .map_while(|n| fs::read(segment(&world.data(), n)).ok())
            .filter(|bytes| used(bytes) > 0)
            .collect();
        Self {
            world,
            report,
            note,
            segments,
        }
    }

    /// A copy of the directory to spoil.
    pub(super) fn copy(&self, name: &str) -> PathBuf {
        let dir = self.world.path(name);
        copy(&self.world.data(), &dir);
        dir
    }

    /// Shares work among threads, each with its own copy of the directory, which the check
    /// leaves as it was.
    pub(super) fn each(&self, items: usize, check: impl Fn(&Path, usize) + Sync) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for first in 0..threads {
                let (check, dir) = (&check, self.copy(&format!("copy{first}")));
                scope.spawn(move || {
                    (first..items)
                        .step_by(threads)
                        .for_each(|item| check(&dir, item));
                });
            }
        });
    }

    /// How the directory is judged now.
    pub(super) fn judge(&self, dir: &Path) -> Judged {
        let report = match judge(&self.world, dir, None) {
            Err(why) => return Judged::Refused(why),
            Ok(report) if report.verdict == Verdict::Failed => {
                assert!(report.actions.is_empty());
                return Judged::Refused(format!("{:?}", report.problems));
            }
            Ok(report) => report,
        };
        if report.size == self.report.size {
            assert_eq!(report.root, self.report.root);
            return self.same(report);
        }
        assert!(report.size < self.report.size);
        self.rolled_back(dir, &report);
        Judged::RolledBack
    }

    /// The same claims, apart from content that cannot be read.
    fn same(&self, mut report: Report) -> Judged {
        let mut lost = 0;
        for (action, was) in report.actions.iter_mut().zip(&self.report.actions) {
            let who = Arc::make_mut(&mut action.who);
            let (link, known) = (&mut who.chain[0], &was.who.chain[0]);
            if link.display.is_none() {
                link.display.clone_from(&known.display);
                lost += 1;
            }
            if action.why.justification.is_none() {
                let reason = &was.why.justification;
                let why = Arc::make_mut(&mut action.why);
                why.justification.clone_from(reason);
                lost += 1;
            }
            if action.what.content == "missing" {
                action.what = was.what.clone();
                lost += 1;
            }
        }
        assert_eq!(report.actions, self.report.actions);
        // Output is no part of an action's record; that it is missing is noted.
        let missing = report.notes.iter().any(|note| note.code == "missing");
        match lost {
            0 if !missing => Judged::Same,
            _ => Judged::Unreadable,
        }
    }

    /// An older state of the log: every claim was true then, and whoever remembers the newest
    /// checkpoint notices.
    fn rolled_back(&self, dir: &Path, report: &Report) {
        let known: HashMap<ActionId, _> = self
            .report
            .actions
            .iter()
            .map(|action| (action.action_id, action))
            .collect();
        for action in &report.actions {
            let mut action = action.clone();
            let was = known[&action.action_id];
            if action.what.outcome.status == Status::Unknown {
                action.what.outcome = was.what.outcome.clone();
            }
            action.integrity.tree_size = was.integrity.tree_size;
            action.integrity.root = was.integrity.root;
            assert_eq!(action, *was);
        }
        let codes: Vec<_> = report.notes.iter().map(|note| note.code).collect();
        assert!(codes.contains(&"rollback_not_detectable"), "{codes:?}");
        let found = judge(&self.world, dir, Some(&self.note)).unwrap();
        assert_eq!(found.verdict, Verdict::Failed);
        assert_eq!(found.problems[0].code, "missing", "{found:#?}");
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    Refused(String),
    Same,
    /// Some sealed content is missing, and the rest is the same.
    Unreadable,
    RolledBack,
}

/// Different positions for different items, the same in every run.
pub(super) fn pick(item: usize, below: usize) -> usize {
    (item.wrapping_mul(2_654_435_761) >> 7) % below
}

/// How often half of all written blocks are tried.
pub(super) fn rounds() -> usize {
    match std::env::var_os("ASCRIBE_LONG") {
        Some(_) => 40,
        None => 4,
    }
}

/// Checksums are no secret.
pub(super) fn reseal(segment: &mut [u8], block: usize) {
    // Magic and origin stand before the first index.
    let first: [u8; 8] = segment[49..57].try_into().unwrap();
    let here = &mut segment[block * BLOCK..][..BLOCK];
    let mut sum = crc32c::crc32c(&first);
    sum = crc32c::crc32c_append(sum, &(block as u64).to_le_bytes());
    sum = crc32c::crc32c_append(sum, &here[..PAYLOAD]).max(1);
    here[PAYLOAD..].copy_from_slice(&sum.to_le_bytes());
}
