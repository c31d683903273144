//! Reading: hashes and root, and the whole proof.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ascribe_core::entry::{Body, Entry, head_message};
use ascribe_core::law::{Judge as _, State};
use ascribe_core::statement::Signed;
use ascribe_evidence::SshSignatures;
use ascribe_tlog::{Checkpoint, Frontier, Hash, TrustPolicy, VerifierKey, leaf_hash};
use ascribe_verify::{Verdict, verify_entries};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::append::crowd;
use crate::table::{Row, median};
use crate::world::World;

const PEOPLE: usize = 16;
const EXECS: usize = 100;
const MILLION: f64 = 1e6;

/// A ledger that is full, and all there is to prove about it.
pub(crate) struct Full {
    pub(crate) first_entry: Hash,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) note: String,
    pub(crate) log_key: VerifierKey,
    pub(crate) actions: usize,
    pub(crate) sessions: usize,
}

fn fill(runtime: &Runtime, plan: &Plan) -> Result<Full> {
    let world = Arc::new(World::new()?);
    let ledger = Arc::new(world.open()?);
    let grant = runtime.block_on(world.furnish(&ledger))?;
    let sessions = plan.actions.div_ceil(PEOPLE * EXECS);
    crowd(runtime, &world, &ledger, grant, PEOPLE, sessions, EXECS)?;
    ledger.shutdown();
    let note = ledger.checkpoint_note();
    let log_key = ledger.log_key();
    let size = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&log_key))?.size;
    let entries = ledger.entries(0..size)?;
    ensure!(entries.len() as u64 == size, "entries are missing");
    Ok(Full {
        first_entry: world.made.first_entry.0,
        entries,
        note,
        log_key,
        actions: sessions * PEOPLE * EXECS,
        sessions: sessions * PEOPLE,
    })
}

fn seconds(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    act()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Leaf hashes and root of the entries, over and over until so many are done.
fn hash(entries: &[Vec<u8>], count: usize) {
    let mut tree = Frontier::new();
    for entry in entries.iter().cycle().take(count) {
        tree.push(leaf_hash(entry));
    }
    black_box(tree.root());
}

/// Hashes and root.
fn fsck(full: &Full, plan: &Plan) -> Result<Row> {
    let mut rates = Vec::new();
    for _ in 0..plan.rounds {
        let took = seconds(|| {
            hash(&full.entries, plan.hashes);
            Ok(())
        })?;
        rates.push(plan.hashes as f64 / took);
    }
    let value = median(&rates);
    let bytes: usize = full.entries.iter().map(Vec::len).sum();
    Ok(Row {
        what: "fsck: hashes and root, warm, no JSON",
        value,
        unit: "entries/s/core",
        peer: None,
        ratio: Some(value / MILLION),
        bar: ">= 1000000",
        met: Some(value >= MILLION),
        note: format!(
            "{} rounds over {} entries in memory, {} bytes each on average, one thread; reading \
             and checking blocks left out",
            plan.rounds,
            plan.hashes,
            bytes / full.entries.len().max(1)
        ),
        parts: vec![],
    })
}

/// Everything that a proof of the entries must do at least.
struct Primitives {
    heads: Vec<(VerifierKey, Vec<u8>, Vec<u8>)>,
    statements: Vec<(String, Signed)>,
}

fn primitives(entries: &[Vec<u8>]) -> Result<Primitives> {
    let mut heads = Vec::new();
    let mut statements = Vec::new();
    let mut writers = Vec::new();
    for bytes in entries {
        let entry = Entry::from_bytes(bytes)?;
        match entry.body {
            Body::Genesis(genesis) => writers = genesis.writers,
            Body::Statement(signed) => {
                statements.push((signed.statement()?.say.namespace(), signed));
            }
            Body::Head(head) => {
                let id = entry.writer.id;
                let writer = writers.iter().find(|w| w.id == id).context("no writer")?;
                let key: [u8; 32] = writer.key.0.as_slice().try_into()?;
                let message = head_message(&entry.log, &id, head.seq, &head.hash);
                let key = VerifierKey::from_public_key(&id, &key)?;
                heads.push((key, message, head.sig.0));
            }
            _ => {}
        }
    }
    Ok(Primitives { heads, statements })
}

fn signatures(of: &Primitives, full: &Full) -> Result<()> {
    for (key, message, sig) in &of.heads {
        ensure!(key.verify_raw(message, sig), "a head does not verify");
    }
    for (namespace, signed) in &of.statements {
        let judge = SshSignatures;
        let key = judge.sshsig(namespace, signed.text.as_bytes(), &signed.sig.0);
        ensure!(key.is_some(), "a statement does not verify");
    }
    Checkpoint::open(full.note.as_bytes(), std::slice::from_ref(&full.log_key))?;
    Ok(())
}

fn parse(entries: &[Vec<u8>]) -> Result<()> {
    for bytes in entries {
        black_box(serde_json::from_slice::<Entry>(bytes)?);
    }
    Ok(())
}

fn decode(entries: &[Vec<u8>]) -> Result<()> {
    for bytes in entries {
        black_box(Entry::from_bytes(bytes)?);
    }
    Ok(())
}

fn law(full: &Full) -> Result<()> {
    let mut state = State::new(full.log_key.name());
    for bytes in &full.entries {
        state.apply(&SshSignatures, bytes)?;
    }
    black_box(state.size);
    Ok(())
}

/// The whole proof, against what its parts cost alone.
pub(crate) fn whole(what: &'static str, full: &Full, plan: &Plan) -> Result<Row> {
    let trust = TrustPolicy {
        logs: vec![full.log_key.clone()],
        first_entry: Some(full.first_entry),
        ..TrustPolicy::default()
    };
    let of = primitives(&full.entries)?;
    let mut samples: [Vec<f64>; 6] = Default::default();
    for _ in 0..plan.rounds {
        let round = [
            seconds(|| {
                let note = full.note.as_bytes();
                let report =
                    verify_entries(note, &full.entries, &[], &trust, "withheld", &mut |_| {});
                let proven = report.verdict == Verdict::Verified;
                ensure!(proven, "does not verify: {:?}", report.problems);
                ensure!(report.actions.len() == full.actions, "actions are missing");
                Ok(())
            })?,
            seconds(|| {
                hash(&full.entries, full.entries.len());
                Ok(())
            })?,
            seconds(|| signatures(&of, full))?,
            seconds(|| parse(&full.entries))?,
            seconds(|| decode(&full.entries))?,
            seconds(|| law(full))?,
        ];
        for (samples, took) in samples.iter_mut().zip(round) {
            samples.push(took);
        }
    }
    let n = full.entries.len() as f64;
    let [whole, hash, signatures, parse, decode, law] =
        samples.map(|samples| median(&samples) / n * 1e6);
    let floor = hash + signatures + parse;
    Ok(Row {
        what,
        value: 1e6 / whole,
        unit: "entries/s",
        peer: Some(("hash + signatures + parse", 1e6 / floor)),
        ratio: Some(floor / whole),
        bar: "ratio >= 0.7",
        met: Some(floor >= 0.7 * whole),
        note: format!(
            "{} rounds over {} entries of {} actions in {} sessions, no openings; {} signed heads, \
             {} statements, 1 checkpoint",
            plan.rounds,
            full.entries.len(),
            full.actions,
            full.sessions,
            of.heads.len(),
            of.statements.len(),
        ),
        parts: vec![
            ("us an entry, all", whole),
            ("us an entry, hashes and root", hash),
            ("us an entry, signatures", signatures),
            ("us an entry, parse once", parse),
            ("us an entry, parse once and check the spelling", decode),
            ("us an entry, law replay with parse and signatures", law),
        ],
    })
}

/// All rows that read one ledger.
pub(crate) fn rows(runtime: &Runtime, plan: &Plan) -> Result<Vec<Row>> {
    let full = fill(runtime, plan)?;
    let what = "whole verify with the law";
    Ok(vec![fsck(&full, plan)?, whole(what, &full, plan)?])
}
