//! Measures what ascribe promises about speed and size, each next to its peer in the same run.
//!
//! Everything is on the disk of the temporary directory; `TMPDIR` chooses another.

mod append;
mod floor;
mod identity;
mod pg;
mod read;
mod realm;
mod relay;
mod sqlite;
mod ssh;
mod start;
mod svid;
mod table;
mod witnessed;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "usage: script/bench [--json FILE] [--quick] [--only append|alone|read|identity|start|ssh|witnessed|postgres]";

/// How much is done.
struct Plan {
    /// Of every measurement; medians are of these.
    rounds: usize,
    /// Entries a round with many writers.
    appends: usize,
    /// Entries of one writer alone.
    singles: usize,
    /// Actions of the ledger that is verified.
    actions: usize,
    /// Logins and statements a round.
    logins: usize,
    /// Actions by all kinds of actors, and the sessions that they are in.
    deeds: usize,
    sessions: usize,
    /// Actions of the ledger that is started.
    large: usize,
    /// Entries that are hashed a round.
    hashes: usize,
    /// Bytes of one stream; a file is twice as large.
    stream: u64,
    /// Clients that connect at once.
    crowd: usize,
    /// Sessions that do nothing.
    idle: usize,
    /// Requests of each client while witnesses look on.
    requests: usize,
    /// Rounds of the database's clients, their seconds, and its sessions that do nothing.
    pg_rounds: usize,
    pg_seconds: usize,
    pg_idle: usize,
}

const FULL: Plan = Plan {
    rounds: 11,
    appends: 4096,
    singles: 1000,
    actions: 32_000,
    logins: 1_024,
    deeds: 1_000_000,
    sessions: 10_000,
    large: 497_000,
    hashes: 1_000_000,
    stream: 500_000_000,
    crowd: 200,
    idle: 1_000,
    requests: 2_000,
    pg_rounds: 5,
    pg_seconds: 3,
    pg_idle: 5_000,
};

const QUICK: Plan = Plan {
    rounds: 5,
    appends: 1024,
    singles: 100,
    actions: 1_600,
    logins: 128,
    deeds: 20_000,
    sessions: 200,
    large: 64_000,
    hashes: 100_000,
    stream: 50_000_000,
    crowd: 20,
    idle: 20,
    requests: 100,
    pg_rounds: 3,
    pg_seconds: 2,
    pg_idle: 5_000,
};

fn main() -> Result<()> {
    let mut json: Option<PathBuf> = None;
    let mut quick = false;
    let mut only: Option<String> = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = Some(args.next().context(USAGE)?.into()),
            "--quick" => quick = true,
            "--only" => only = Some(args.next().context(USAGE)?),
            // A process of its own, so that its memory is.
            "--relay" => return relay::serve(&args.collect::<Vec<_>>()),
            "--pg-relay" => return pg::relay::run(&args.collect::<Vec<_>>()),
            "--pg-gateway" => return pg::gateway::run(&args.collect::<Vec<_>>()),
            // Cargo says so to every benchmark.
            "--bench" => {}
            _ => bail!(USAGE),
        }
    }
    let plan = if quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("append") {
        rows.extend(append::many(&runtime, &plan)?);
    }
    if wanted("alone") {
        rows.push(append::alone(&runtime, &plan)?);
    }
    if wanted("read") {
        rows.extend(read::rows(&runtime, &plan)?);
    }
    if wanted("identity") {
        rows.extend(identity::rows(&plan)?);
    }
    if wanted("start") {
        rows.extend(start::rows(&runtime, &plan)?);
    }
    if wanted("ssh") {
        rows.extend(ssh::rows(&plan)?);
    }
    if wanted("witnessed") {
        rows.push(witnessed::row(&plan)?);
    }
    if wanted("postgres") {
        rows.extend(pg::rows(&plan)?);
    }
    if rows.is_empty() {
        bail!(USAGE);
    }
    print!("{}", table::text(&rows));
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&table::json(&rows, quick))?;
        std::fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
