//! A large ledger: how long its server takes to start, and what an action takes on the disk once
//! segments became tiles and packs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;

use crate::Plan;
use crate::append::crowd;
use crate::table::{Row, median};
use crate::world::World;

const PEOPLE: usize = 16;
const EXECS: usize = 100;
/// Packing has come to its end when it stands still for so long.
const STILL: Duration = Duration::from_secs(3);

/// Bytes of all files below.
fn bytes_below(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            bytes_below(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
}

/// Both rows.
pub(crate) fn rows(runtime: &Runtime, plan: &Plan) -> Result<Vec<Row>> {
    let world = Arc::new(World::new()?);
    let ledger = Arc::new(world.open()?);
    let grant = runtime.block_on(world.furnish(&ledger))?;
    let sessions = plan.large.div_ceil(PEOPLE * EXECS);
    let begun = Instant::now();
    crowd(runtime, &world, &ledger, grant, PEOPLE, sessions, EXECS)?;
    let filled = begun.elapsed().as_secs_f64();
    let size = ledger.with_state(|state| state.size);
    let ended = Instant::now();
    let (mut base, mut moved) = (0, ended);
    while moved.elapsed() < STILL || base == 0 {
        let (now, why) = ledger.archived();
        ensure!(why.is_none(), "packing is stuck: {why:?}");
        ensure!(
            ended.elapsed() < Duration::from_secs(900),
            "packing takes too long"
        );
        if now != base {
            (base, moved) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let packed = moved.saturating_duration_since(ended).as_secs_f64();
    ledger.shutdown();
    drop(ledger);
    let dir = world.dir();
    let [tree, evidence] = ["tree", "evidence"].map(|name| bytes_below(&dir.join(name)));
    let snapshot = std::fs::metadata(dir.join("snapshot"))?.len() as f64;
    let actions = (sessions * PEOPLE * EXECS) as f64;
    let packed_actions = actions * base as f64 / size as f64;
    let kib = |bytes: f64| bytes / 1024.0 / packed_actions;
    let (tree, evidence) = (kib(tree? as f64), kib(evidence? as f64));
    let disk = tree + evidence;

    let mut times = Vec::new();
    for _ in 0..plan.rounds.min(5) {
        let begun = Instant::now();
        let ledger = world.open()?;
        times.push(begun.elapsed().as_secs_f64());
        ledger.shutdown();
    }
    let start = median(&times);
    let full = size >= 1_000_000;
    Ok(vec![
        Row {
            what: "start of a large ledger",
            value: start,
            unit: "s",
            peer: None,
            ratio: Some(start / 2.0),
            bar: "< 2 s on 1 M",
            met: full.then_some(start < 2.0),
            note: format!(
                "{} starts on {size} entries, from a snapshot of its state; the replay that goes \
                 on behind it is left out; files were read before, so they are in memory",
                times.len()
            ),
            parts: vec![
                ("s, recording it", filled),
                ("s, packing after the last entry", packed),
                ("MiB, snapshot", snapshot / f64::from(1 << 20)),
            ],
        },
        Row {
            what: "disk per action, compacted",
            value: disk,
            unit: "KiB",
            peer: None,
            ratio: Some(disk / 3.0),
            bar: "<= 3 KiB",
            met: Some(disk <= 3.0),
            note: format!(
                "tiles, entries, sealed commands and keys of {packed_actions:.0} actions, \
                 {EXECS} of a session: opening, intents, outcomes, heads, close; streams left out"
            ),
            parts: vec![
                ("KiB an action, tree", tree),
                ("KiB an action, evidence", evidence),
            ],
        },
    ])
}
