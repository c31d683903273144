//! The server killed at any moment: what PostgreSQL's own log says it ran is on record.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;

use super::bank::Bank;
use super::drivers::client;
use super::large::gone;
use super::world::{PATIENCE, Running, need, wait_for};

/// A session's statement.
type Ran = (String, String);

/// What the database says was run in sessions of ours, and how often.
fn logged(log: &str) -> HashMap<Ran, usize> {
    let mut ran = HashMap::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let Some(session) = words.find_map(|word| word.strip_prefix("ascribe/")) else {
            continue;
        };
        let text = match line.split_once("LOG:  statement: ") {
            Some((_, text)) => text,
            None => match line.split_once("LOG:  execute ") {
                Some((_, named)) => named.split_once(": ").unwrap().1,
                None => continue,
            },
        };
        let text = text.trim_end_matches(';').to_owned();
        *ran.entry((session.to_owned(), text)).or_default() += 1;
    }
    ran
}

#[test]
fn nothing_runs_unrecorded_when_the_server_is_killed_under_load() {
    let long = std::env::var_os("ASCRIBE_LONG").is_some();
    let rounds = if long { 10 } else { 1 };
    let mut bank = Bank::open();
    bank.cluster
        .tool("pgbench", &["-i", "-q", "-s", "1", "orders"]);
    for round in 0..rounds {
        for (mode, more) in [("simple", 37), ("extended", 203), ("prepared", 411)] {
            let (tunnel, port) = bank.tunnel();
            let done = || {
                let count = "select count(*) from pgbench_history";
                bank.cluster
                    .sql("orders", count)
                    .trim()
                    .parse::<usize>()
                    .unwrap()
            };
            let before = done();
            let mut command = client(&need("pgbench"), port);
            command.args(["-n", "-M", mode, "-c", "4", "-j", "2", "-T", "60"]);
            let load = Running::start(command, &bank.world.path("logs"), true);
            wait_for("load", PATIENCE, || (done() > before + 10).then_some(()));
            std::thread::sleep(Duration::from_millis(more * (1 + round) % 700));
            bank.server().signal(Signal::KILL);
            drop((load, tunnel));
            bank.restart();
            gone(&bank);
        }
    }
    let mut recorded: HashMap<Ran, usize> = HashMap::new();
    for action in bank.all_actions() {
        let session = action["session_id"].as_str().unwrap().to_owned();
        let text = action["what"]["command"].as_str().unwrap_or_default();
        *recorded.entry((session, text.to_owned())).or_default() += 1;
    }
    let ran = logged(&bank.cluster.log());
    assert!(ran.values().sum::<usize>() > 100, "{ran:?}");
    for (what, times) in ran {
        let known = recorded.get(&what).copied().unwrap_or_default();
        assert!(
            known >= times,
            "{what:?} ran {times} times, {known} are on record"
        );
    }
}
