//! A wall clock that is stepped, under a real gateway, a stock `ssh` and a real `sshd`. The vDSO
//! answers a process's questions for the time, so the clock of another process cannot be stepped
//! for it alone: the ledger and the gateway run in this one.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ascribe_core::entry::Entry;
use ascribe_core::time::Timestamp;
use ascribe_evidence::SshSignatures;
use ascribe_gateway::{GatewayConfig, UpstreamAuth, serve};
use ascribe_ledger::{Clock, Drivers, Ledger, Rng as _, SystemClock, SystemRng};
use russh::keys::load_secret_key;
use tokio_util::sync::CancellationToken;

use super::kit::{Marks, demo_port, text};
use super::world::{Out, PATIENCE, Running, World, need, wait_for};

const DAY: i64 = 86_400_000;

/// The machine's clocks, the wall's off by so many milliseconds.
#[derive(Debug, Default)]
struct Stepped {
    real: SystemClock,
    off: AtomicI64,
}

impl Clock for Stepped {
    fn now_millis(&self) -> i64 {
        self.real.now_millis() + self.off.load(Ordering::SeqCst)
    }
    fn monotonic_millis(&self) -> i64 {
        self.real.monotonic_millis()
    }
}

/// The gateway on the world's directory, in this process.
struct Gateway {
    runtime: tokio::runtime::Runtime,
    ledger: Arc<Ledger>,
    clock: Arc<Stepped>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    port: u16,
}

impl Gateway {
    fn new(world: &World) -> Self {
        let clock = Arc::new(Stepped::default());
        let drivers = Drivers {
            judge: Arc::new(SshSignatures),
            clock: Arc::clone(&clock) as _,
            rng: Arc::new(SystemRng),
        };
        let keys = world.data().join("keys");
        let key = |name: &str| load_secret_key(keys.join(name), None).unwrap();
        let ledger = Arc::new(Ledger::open(&world.data(), &drivers).unwrap());
        let config = GatewayConfig {
            writer: "gateway".to_owned(),
            log_key: ledger.log_key(),
            host_key: key("ssh_host_ed25519_key"),
            host_ca: None,
            upstream: UpstreamAuth::UserCa(key("user_ca_ed25519_key")),
            own: Vec::new(),
            idle_timeout: Duration::from_secs(1800),
            pre_auth_timeout: Duration::from_secs(10),
            max_connections_per_addr: 256,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let bound = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bound).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let (recorder, until) = (Arc::clone(&ledger), stop.clone());
        let task = runtime.spawn(async move {
            let fill = Arc::new(|out: &mut [u8]| SystemRng.fill(out).unwrap());
            serve(
                listener,
                tokio::sync::mpsc::channel(1).1,
                recorder,
                config,
                fill,
                until,
            )
            .await
            .unwrap();
        });
        Self {
            runtime,
            ledger,
            clock,
            stop,
            task,
            port,
        }
    }

    /// The wall clock is off by so much from now on.
    fn step(&self, off: i64) {
        self.clock.off.store(off, Ordering::SeqCst);
    }

    fn command(&self, world: &World, user: &str, command: &str) -> Command {
        let mut ssh = Command::new(need("ssh"));
        ssh.arg("-F").arg(world.path("data.demo/ssh_config"));
        ssh.args(["-p", &self.port.to_string(), "-o"]);
        ssh.arg(format!("HostKeyAlias=[127.0.0.1]:{}", demo_port(world)));
        ssh.arg(format!("{user}@ascribe-demo")).arg(command);
        ssh
    }

    fn ssh(&self, world: &World, command: &str) -> Out {
        world.program(self.command(world, &world.place(), command))
    }

    fn start(&self, world: &World, user: &str, command: &str) -> Running {
        let command = self.command(world, user, command);
        Running::start(command, &world.path("logs"), false)
    }

    /// Ends sessions and the ledger.
    fn end(self) {
        self.stop.cancel();
        self.runtime.block_on(self.task).unwrap();
        drop(self.ledger);
    }
}

/// Times of the entries, in their order.
fn times(gateway: &Gateway) -> Vec<Timestamp> {
    let entries = gateway.ledger.entries(0..u64::MAX).unwrap();
    let at = |bytes: &Vec<u8>| Entry::from_bytes(bytes).unwrap().at;
    entries.iter().map(at).collect()
}

#[test]
fn a_stepped_clock_stops_new_actions_and_moves_neither_records_nor_windows() {
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    // Half an hour ends neither with a day more nor with a day less.
    let longer = world.request("look at the order database");
    let longer = world.approve(&longer);
    let user = format!(
        "{}+{longer}@{}",
        world.field("account"),
        world.field("target")
    );
    world.stop();
    world.start_target();
    for (way, off) in [
        ("forward", DAY),
        ("back", -DAY),
        ("far back", -50 * 365 * DAY),
    ] {
        let gateway = Gateway::new(&world);
        let go = world.path(&format!("go-{way}"));
        let began = world.path(&format!("began-{way}"));
        let wait = format!(
            "touch '{}'; for n in $(seq 600); do test -e '{}' && exit 7; sleep 0.1; done",
            began.display(),
            go.display()
        );
        let running = gateway.start(&world, &user, &wait);
        wait_for("running command", PATIENCE, || began.exists().then_some(()));
        gateway.step(off);
        let name = format!("while-{way}");
        let user_command = marks.command(&name);
        let out = gateway.start(&world, &user, &user_command).wait(PATIENCE);
        assert_eq!(out.code, Some(254), "{out:?}");
        assert!(out.stderr.contains("clock is not to be trusted"), "{out:?}");
        assert!(!marks.has(&name));
        // What runs goes on, and its end is recorded.
        std::fs::write(&go, "").unwrap();
        assert_eq!(running.wait(PATIENCE).code, Some(7), "{way}");
        gateway.step(0);
        let name = format!("after-{way}");
        let user_command = marks.command(&name);
        let out = gateway.start(&world, &user, &user_command).wait(PATIENCE);
        assert_eq!(out.code, Some(0), "{out:?}");
        assert!(marks.has(&name));
        let times = times(&gateway);
        assert!(times.is_sorted(), "{times:?}");
        // The whole test takes less than an hour: no record has the time of a stepped clock.
        let took = times.last().unwrap().since(*times.first().unwrap());
        assert!(took < 3_600_000, "{times:?}");
        gateway.end();
        marks.verify(&world);
    }
    let report = world.verify(&world.data(), &world.policy()).exits(0).line();
    let actions = report["actions"].as_array().unwrap();
    let sevens = actions
        .iter()
        .filter(|a| a["what"]["outcome"]["exit_code"] == 7);
    assert_eq!(sevens.count(), 3);
}

#[test]
fn a_clock_set_back_lets_no_session_outlive_its_grant() {
    let mut world = World::new();
    let place = world.place();
    let ask = [
        "request",
        &place,
        "--for",
        "8s",
        "--why",
        "look at the stuck replica",
    ];
    let asked = world.run_as(
        "operator",
        &[&ask[..], &["--ticket", "demo:OPS-4"]].concat(),
    );
    let request = text(&asked.exits(0).line(), "/request_id").to_owned();
    let grant = world.approve(&request);
    let user = format!(
        "{}+{grant}@{}",
        world.field("account"),
        world.field("target")
    );
    world.stop();
    world.start_target();
    let gateway = Gateway::new(&world);
    let began = world.path("began");
    let silent = format!("touch '{}'; exec sleep 60", began.display());
    let running = gateway.start(&world, &user, &silent);
    wait_for("running command", PATIENCE, || began.exists().then_some(()));
    gateway.step(-DAY);
    let ended = running.wait(PATIENCE);
    assert!(ended.code != Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the grant has ended"), "{ended:?}");
    gateway.end();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn a_clock_that_is_slewed_or_off_by_a_second_stops_nothing() {
    let mut world = World::new();
    world.stop();
    world.start_target();
    let gateway = Gateway::new(&world);
    for (n, off) in [1500, 0, -400, 1400, 100].into_iter().enumerate() {
        gateway.step(off);
        let out = gateway.ssh(&world, &format!("echo {n}")).exits(0);
        assert_eq!(out.stdout, format!("{n}\n"));
    }
    let times = times(&gateway);
    assert!(times.is_sorted(), "{times:?}");
    gateway.end();
    world.verify(&world.data(), &world.policy()).exits(0);
}
