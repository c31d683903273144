//! PostgreSQL through the gateway, next to the database itself, a pooler, the database's own audit and
//! a record that the client writes first: `pgbench` and `psql`, all in the same run, interleaved.

mod bed;
pub(crate) mod gateway;
mod idle;
pub(crate) mod relay;

use anyhow::{Context as _, Result};

use self::bed::{Bed, Way};
use crate::Plan;
use crate::table::{Row, median};

/// What `pgbench` runs.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    /// `-M`.
    mode: &'static str,
    select: bool,
    clients: usize,
}

const fn select(name: &'static str, mode: &'static str, clients: usize) -> Load {
    Load {
        name,
        mode,
        select: true,
        clients,
    }
}

const SELECTS: [Load; 6] = [
    select("-S simple, 8 clients", "simple", 8),
    select("-S extended, 8 clients", "extended", 8),
    select("-S prepared, 8 clients", "prepared", 8),
    select("-S simple, 32 clients", "simple", 32),
    select("-S extended, 32 clients", "extended", 32),
    select("-S prepared, 32 clients", "prepared", 32),
];

const TPCB: [Load; 2] = [
    Load {
        name: "TPC-B simple, 8 clients",
        mode: "simple",
        select: false,
        clients: 8,
    },
    Load {
        name: "TPC-B prepared, 32 clients",
        mode: "prepared",
        select: false,
        clients: 32,
    },
];

/// Transactions a second, and microseconds on the processors for each: of what lies between client and
/// database, and of that what writes the ledger.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    tps: f64,
    cpu: f64,
    journal: f64,
}

/// Medians of a load by each way.
fn paces(bed: &Bed, plan: &Plan, load: Load, ways: &[Way]) -> Result<Vec<(Way, Pace)>> {
    let mut rounds: Vec<Vec<Pace>> = vec![Vec::new(); ways.len()];
    for round in 0..plan.pg_rounds {
        for n in 0..ways.len() {
            let at = (n + round) % ways.len();
            if let (Some(way), Some(of)) = (ways.get(at), rounds.get_mut(at)) {
                of.push(bed.pgbench(*way, load, plan.pg_seconds)?);
            }
        }
    }
    let middle =
        |of: &[Pace], part: fn(&Pace) -> f64| median(&of.iter().map(part).collect::<Vec<_>>());
    Ok(ways
        .iter()
        .zip(rounds)
        .map(|(way, of)| {
            let pace = Pace {
                tps: middle(&of, |p| p.tps),
                cpu: middle(&of, |p| p.cpu),
                journal: middle(&of, |p| p.journal),
            };
            (*way, pace)
        })
        .collect())
}

fn of(paces: &[(Way, Pace)], way: Way) -> Pace {
    let found = paces.iter().find(|(of, _)| *of == way);
    found.map_or_else(Pace::default, |(_, pace)| *pace)
}

const HOW: &str = "pgbench with two threads, scale 10, fsync on, over TCP on loopback; medians of interleaved rounds";

/// What a way is measured against, and what is demanded.
fn against(
    load: Load,
    paces: &[(Way, Pace)],
    (what, way): (&str, Way),
    (peer, at): (&'static str, Way),
    (bar, least): (&'static str, Option<f64>),
) -> Row {
    let (own, other) = (of(paces, way), of(paces, at));
    let direct = of(paces, Way::Direct).tps;
    let ratio = own.tps / other.tps;
    Row {
        what: format!("{what}, {}", load.name).leak(),
        value: own.tps,
        unit: "tx/s",
        peer: Some((peer, other.tps)),
        ratio: Some(ratio),
        bar,
        met: least.map(|least| ratio >= least),
        note: HOW.to_owned(),
        parts: vec![
            ("direct, tx/s", direct),
            ("of direct", own.tps / direct),
            ("CPU of it, us/tx", own.cpu),
            ("of that the ledger's threads, us/tx", own.journal),
            ("CPU of the peer, us/tx", other.cpu),
        ],
    }
}

fn cpu(load: Load, paces: &[(Way, Pace)]) -> Row {
    let (own, synced) = (of(paces, Way::Unsynced), of(paces, Way::Durable));
    let value = synced.cpu - synced.journal;
    Row {
        what: format!("gateway CPU a transaction, {}", load.name).leak(),
        value,
        unit: "us",
        peer: Some(("pgbouncer", of(paces, Way::Pgbouncer).cpu)),
        ratio: Some(value / 40.0),
        bar: "<= 40 us",
        met: Some(value <= 40.0),
        note: "time on processors of the gateway's process, without the threads that decide, write and archive the ledger".to_owned(),
        parts: vec![
            ("the ledger's threads besides", synced.journal),
            ("without sync", own.cpu - own.journal),
            ("the ledger's threads besides, without sync", own.journal),
            ("relay only", of(paces, Way::Relay).cpu),
        ],
    }
}

/// Each row's median latency by both ways, next to one sync of the same disk.
fn latency(bed: &Bed, plan: &Plan) -> Result<Row> {
    let load = select("-S prepared, 1 client", "prepared", 1);
    let (mut direct, mut through, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.pg_rounds {
        direct.push(bed.p50(Way::Direct, load, plan.pg_seconds)?);
        through.push(bed.p50(Way::Durable, load, plan.pg_seconds)?);
        sync.push(bed.sync()?);
    }
    let (direct, through, sync) = (median(&direct), median(&through), median(&sync));
    let added = through - direct;
    Ok(Row {
        what: "added to a statement, p50, one client",
        value: added,
        unit: "ms",
        peer: Some(("one fdatasync", sync)),
        ratio: Some(added / (sync + 0.15)),
        bar: "<= sync + 0.15 ms",
        met: Some(added <= sync + 0.15),
        note: "pgbench's own log of latencies; fdatasync after a write of 4096 bytes into a file of zeros beside the ledger".to_owned(),
        parts: vec![("direct, ms", direct), ("through the gateway, ms", through)],
    })
}

fn copies(bed: &Bed, plan: &Plan) -> Result<Vec<Row>> {
    let ways = [Way::Direct, Way::Pgbouncer, Way::Relay, Way::Durable];
    let mut rows = Vec::new();
    for (what, inward) in [
        ("COPY out, 1,000,000 rows", false),
        ("COPY in, 1,000,000 rows", true),
    ] {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..plan.pg_rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                times.push(bed.copy(*way, inward)?);
            }
        }
        let [direct, pgbouncer, relay, own] = times.map(|times| median(&times));
        let ratio = direct / own;
        rows.push(Row {
            what,
            value: own,
            unit: "s",
            peer: Some(("direct", direct)),
            ratio: Some(ratio),
            bar: ">= 0.9 of direct",
            met: Some(ratio >= 0.9),
            note: "psql; with SHA-256 over what is copied; in: into an unlogged table".to_owned(),
            parts: vec![("pgbouncer, s", pgbouncer), ("relay only, s", relay)],
        });
    }
    Ok(rows)
}

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    // Before others' memory is taken.
    let idle = idle::row(plan)?;
    let bed = Bed::new().context("set the database up")?;
    let mut rows = Vec::new();
    let (mut bare, mut durable, mut unsynced, mut time) = (vec![], vec![], vec![], vec![]);
    for load in SELECTS {
        let ways = [
            Way::Direct,
            Way::Pgbouncer,
            Way::Pgaudit,
            Way::InsertFirst,
            Way::Relay,
            Way::Unsynced,
            Way::Durable,
        ];
        let paces = paces(&bed, plan, load, &ways)?;
        let pooler = ("pgbouncer", Way::Pgbouncer);
        let above = ("> 1 of pgbouncer", Some(1.0));
        bare.push(against(
            load,
            &paces,
            ("relay only", Way::Relay),
            pooler,
            above,
        ));
        let first = ("insert first", Way::InsertFirst);
        let least = (load.clients >= 32).then_some(1.5);
        let bar = least.map_or("-", |_| ">= 1.5 of insert first");
        durable.push(against(
            load,
            &paces,
            ("recorded", Way::Durable),
            first,
            (bar, least),
        ));
        let audit = ("pgaudit", Way::Pgaudit);
        let above = ("> 1 of pgaudit", Some(1.0));
        unsynced.push(against(
            load,
            &paces,
            ("without sync", Way::Unsynced),
            audit,
            above,
        ));
        time.push(cpu(load, &paces));
    }
    for part in [bare, durable, unsynced, time] {
        rows.extend(part);
    }
    for load in TPCB {
        let ways = [Way::Direct, Way::Pgbouncer, Way::Pgaudit, Way::Durable];
        let paces = paces(&bed, plan, load, &ways)?;
        let own = ("recorded", Way::Durable);
        rows.push(against(
            load,
            &paces,
            own,
            ("direct", Way::Direct),
            ("-", None),
        ));
    }
    rows.push(latency(&bed, plan)?);
    rows.extend(copies(&bed, plan)?);
    rows.push(idle);
    Ok(rows)
}
