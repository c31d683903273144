//! The server killed at any moment: what PostgreSQL's own log says it ran is on record.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::bank::Bank;
use super::drivers::client;
use super::large::gone;
use super::raw::{Raw, bind, execute, parse, query, sync};
use super::world::{PATIENCE, Running, need, wait_for};

/// A session's statement.
pub(super) type Ran = (String, String);

/// What the database says was run in sessions of ours, and how often.
pub(super) fn logged(log: &str) -> HashMap<Ran, usize> {
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

/// What lies between the gateway and the server, and kills the gateway when the first bytes of a statement arrive.
struct Between {
    port: u16,
    /// The gateway's process.
    gateway: Arc<AtomicU32>,
}

/// What the statement begins with.
const MARK: &[u8] = b"insert into held";

impl Between {
    /// The server gets the statement once the gateway is dead, or never.
    fn start(server: u16, passes_on: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&gateway);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (mut from, mut to) = (target.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let told = Arc::clone(&told);
                std::thread::spawn(move || forward(client, target, passes_on, &told));
            }
        });
        Self { port, gateway }
    }
}

fn forward(mut client: TcpStream, mut target: TcpStream, passes_on: bool, gateway: &AtomicU32) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut piece) {
        let said = &piece[..count];
        if said.windows(MARK.len()).any(|part| part == MARK) {
            let process = gateway.load(Ordering::Relaxed).cast_signed();
            kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
            if !passes_on {
                break;
            }
        }
        if target.write_all(said).is_err() {
            break;
        }
    }
    // What it has it may do, and then nobody is there.
    target.shutdown(Shutdown::Write).unwrap_or_default();
}

/// At the very moment at which the first byte of a statement arrives at the server, and before the server has it,
/// the gateway dies: the statement is on record, whether it is executed after that or not.
#[test]
fn what_arrives_at_the_server_is_on_record_already() {
    let mut bank = Bank::open();
    bank.cluster.sql(
        "orders",
        "create table held (n int); alter table held owner to dba",
    );
    let mut expected = 0;
    for (round, passes_on) in [true, false, true, false].into_iter().enumerate() {
        let extended = round >= 2;
        let between = Between::start(bank.cluster.port, passes_on);
        bank.register_bare(between.port);
        let (tunnel, port) = bank.tunnel();
        let mut raw = Raw::ready(port);
        between.gateway.store(bank.server().id(), Ordering::Relaxed);
        let text = format!("insert into held values ({round})");
        raw.say(&match extended {
            true => [parse("", &text), bind("", "", &[]), execute(""), sync()].concat(),
            false => query(&text),
        });
        raw.rest();
        drop(tunnel);
        bank.restart();
        gone(&bank);
        expected += usize::from(passes_on);
        let count = || bank.cluster.sql("orders", "select count(*) from held");
        assert_eq!(count().trim(), expected.to_string(), "{round}");
        let recorded = bank.action(&text);
        assert_eq!(
            recorded["what"]["outcome"]["status"], "unknown",
            "{recorded}"
        );
        let kind = if extended { "pg.execute" } else { "pg.query" };
        assert_eq!(recorded["what"]["kind"], kind);
    }
}
