//! Writing: many writers, and one writer.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ascribe_core::record::{Proposal, Recorder as _};
use ascribe_ledger::Ledger;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Plan;
use crate::floor::{Loop, append_to, zeros};
use crate::sqlite::insert_into;
use crate::table::{Row, median};
use crate::world::World;

const WRITERS: usize = 64;
const COMMAND: usize = 1024;

fn command(n: usize) -> Vec<u8> {
    let mut command = format!("run-{n:08} ").into_bytes();
    command.resize(COMMAND, b'x');
    command
}

/// Waits for all tasks.
async fn join(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Entries a second when every writer records its proposals, each once the one before is durable.
async fn through_ledger(ledger: &Arc<Ledger>, work: Vec<Vec<Proposal>>) -> Result<f64> {
    let count: usize = work.iter().map(Vec::len).sum();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for proposals in work {
        let ledger = Arc::clone(ledger);
        tasks.spawn(async move {
            for proposal in proposals {
                ledger.record(proposal).await?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// The same through a bare loop.
async fn through_loop(bare: Loop, each: usize, bytes: usize) -> Result<f64> {
    let work: Vec<Vec<Vec<u8>>> = (0..WRITERS)
        .map(|_| (0..each).map(|_| vec![b'x'; bytes]).collect())
        .collect();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for entries in work {
        let writer = bare.writer();
        tasks.spawn(async move {
            for entry in entries {
                writer.put(entry).await?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    let took = begun.elapsed().as_secs_f64();
    bare.finish()?;
    Ok((WRITERS * each) as f64 / took)
}

/// Many writers, against the floor and against `SQLite`.
pub(crate) fn many(runtime: &Runtime, plan: &Plan) -> Result<Vec<Row>> {
    let world = World::new()?;
    let ledger = Arc::new(world.open()?);
    let grant = runtime.block_on(world.furnish(&ledger))?;
    let session = runtime.block_on(world.session(&ledger, grant))?;
    let each = plan.appends / WRITERS;
    let (mut ours, mut floors, mut sqlites) = (Vec::new(), Vec::new(), Vec::new());
    let mut spent: Vec<[f64; 6]> = Vec::new();
    let mut per_entry = 0.0;
    for round in 0..=plan.rounds {
        let work = (0..WRITERS)
            .map(|w| {
                let proposal = |n| world.intent(session, command(w * each + n)).1;
                (0..each).map(proposal).collect()
            })
            .collect();
        let before = world.journal.counts();
        let rate = runtime.block_on(through_ledger(&ledger, work))?;
        let after = world.journal.counts();
        let entries = (each * WRITERS) as f64;
        per_entry = (after.bytes - before.bytes) / entries;
        let bytes = per_entry.round() as usize;

        let path = world.beside("floor");
        let file = zeros(&path, bytes * each * WRITERS)?;
        let bare = Loop::start(append_to(file))?;
        let floor = runtime.block_on(through_loop(bare, each, bytes))?;
        std::fs::remove_file(&path)?;

        let path = world.beside(&format!("peer-{round}.db"));
        let bare = Loop::start(insert_into(&path)?)?;
        let sqlite = runtime.block_on(through_loop(bare, each, bytes))?;
        if round == 0 {
            // The first round warms up.
            continue;
        }
        ours.push(rate);
        floors.push(floor);
        sqlites.push(sqlite);
        spent.push([
            1e6 / rate,
            (after.write_us - before.write_us) / entries,
            (after.sync_us - before.sync_us) / entries,
            (after.head_us - before.head_us) / entries,
            (after.allocate_us - before.allocate_us) / entries,
            entries / (after.batches - before.batches),
        ]);
    }
    let names = [
        "us an entry, all (mean)",
        "us an entry, writing (mean)",
        "us an entry, syncing (mean)",
        "us an entry, copying the head (mean)",
        "us an entry, zeroing segments (mean)",
        "entries a batch (mean)",
    ];
    let mut parts = names.map(|name| (name, 0.0)).to_vec();
    for round in &spent {
        for ((_, sum), value) in parts.iter_mut().zip(round) {
            *sum += value / spent.len() as f64;
        }
    }
    ledger.shutdown();
    let note = format!(
        "{} rounds of {} intents with an opening of {COMMAND} bytes, {per_entry:.0} bytes an entry \
         on disk; the peer writes as many bytes an entry, in groups of at most 64; \
         the ratio is the median of the rounds' ratios",
        plan.rounds,
        each * WRITERS,
    );
    let row = |peer, peers: &[f64], bar, least: f64| {
        let ratios: Vec<f64> = ours.iter().zip(peers).map(|(a, b)| a / b).collect();
        let ratio = median(&ratios);
        Row {
            what: "durable append, 1 KiB, 64 writers",
            value: median(&ours),
            unit: "entries/s",
            peer: Some((peer, median(peers))),
            ratio: Some(ratio),
            bar,
            met: Some(ratio >= least),
            note: note.clone(),
            parts: parts.clone(),
        }
    };
    Ok(vec![
        row("bare group commit", &floors, "ratio >= 0.7", 0.7),
        row("SQLite WAL FULL", &sqlites, "ratio > 1", 1.0),
    ])
}

/// One writer alone, against one bare sync.
pub(crate) fn alone(runtime: &Runtime, plan: &Plan) -> Result<Row> {
    let world = World::new()?;
    let ledger = world.open()?;
    let grant = runtime.block_on(world.furnish(&ledger))?;
    let session = runtime.block_on(world.session(&ledger, grant))?;
    let file = zeros(&world.beside("floor"), 4096 * plan.singles)?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let before = world.journal.counts();
    for n in 0..plan.singles {
        let (_, proposal) = world.intent(session, command(n));
        let begun = Instant::now();
        runtime.block_on(ledger.record(proposal))?;
        ours.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        file.write_all_at(&[b'x'; 4096], 4096 * n as u64)?;
        file.sync_data()?;
        bare.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let after = world.journal.counts();
    let n = plan.singles as f64;
    let parts = vec![
        (
            "us an entry, syncing (mean)",
            (after.sync_us - before.sync_us) / n,
        ),
        (
            "us an entry, writing (mean)",
            (after.write_us - before.write_us) / n,
        ),
        (
            "us an entry, copying the head (mean)",
            (after.head_us - before.head_us) / n,
        ),
        (
            "us an entry, zeroing segments (mean)",
            (after.allocate_us - before.allocate_us) / n,
        ),
        ("us an entry, all (mean)", ours.iter().sum::<f64>() / n),
        ("us a bare sync (mean)", bare.iter().sum::<f64>() / n),
    ];
    let (ours, bare) = (median(&ours), median(&bare));
    Ok(Row {
        what: "one append alone, p50",
        value: ours,
        unit: "us",
        peer: Some(("one bare fdatasync of 4 KiB", bare)),
        ratio: Some(ours / bare),
        bar: "ratio <= 1.5",
        met: Some(ours <= 1.5 * bare),
        note: format!(
            "{} appends with an opening of {COMMAND} bytes, each followed by one bare write and \
             sync of 4 KiB in a pre-written file",
            plan.singles
        ),
        parts,
    })
}

/// So many people at once, each with so many sessions of so many commands.
pub(crate) fn crowd(
    runtime: &Runtime,
    world: &Arc<World>,
    ledger: &Arc<Ledger>,
    grant: ascribe_core::id::GrantId,
    people: usize,
    sessions: usize,
    execs: usize,
) -> Result<()> {
    runtime
        .block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..people {
                let (world, ledger) = (Arc::clone(world), Arc::clone(ledger));
                tasks.spawn(async move {
                    for _ in 0..sessions {
                        world.run(&ledger, grant, execs).await?;
                    }
                    Ok(())
                });
            }
            join(tasks).await
        })
        .context("record sessions")
}
