//! How long it takes until witnesses have seen what was done, while much is done: the binary's own
//! demo, two witnesses as processes of their own, stock `sftp` clients, each request an action.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ascribe_core::entry::{Body, Entry};
use ascribe_ledger::Reader;
use serde_json::Value;

use crate::Plan;
use crate::ssh::{Server, binary, free_port, text, wait_for};
use crate::table::Row;

/// Clients at once; each waits for the answer to its last request.
const CLIENTS: usize = 24;
const NAMES: [&str; 2] = ["w1.bench.example", "w2.bench.example"];
/// The bar: seconds, and actions a second meanwhile.
const OLDEST: f64 = 5.0;
const BUSY: f64 = 1000.0;
/// A round of the witnesses and some more.
const AFTERWARDS: Duration = Duration::from_secs(6);

struct Bed {
    dir: tempfile::TempDir,
    ready: Value,
    demo: Child,
    _witnesses: Vec<Server>,
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}

impl Bed {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("ready.json");
        let demo = Command::new(binary()?)
            .arg("--data")
            .arg(dir.path().join("data"))
            .args(["demo", "--ssh-port", "0", "--ready-file"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut bed = Self {
            dir,
            ready: Value::Null,
            demo,
            _witnesses: Vec::new(),
        };
        wait_for("demo", || file.exists().then_some(()))?;
        bed.ready = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        bed.witnesses()?;
        Ok(bed)
    }

    fn ascribe(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.arg("--data").arg(self.data());
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Two of them, both demanded.
    fn witnesses(&mut self) -> Result<()> {
        let path = |name: &str| self.dir.path().join(name);
        let log = path("log.policy");
        std::fs::write(&log, output(self.ascribe()?.args(["ledger", "policy"]))?)?;
        let mut policy = String::new();
        let mut running = Vec::new();
        for name in NAMES {
            let (key, port) = (path(&format!("{name}.key")), free_port()?);
            let mut init = Command::new(binary()?);
            init.args(["witness", "init", "--name", name, "--key"])
                .arg(&key);
            let line = output(&mut init)?;
            let line = line.lines().next().context("no line of the witness")?;
            writeln!(
                policy,
                "{}",
                line.replace("https://HOST", &format!("http://127.0.0.1:{port}"))
            )?;
            let witness = Command::new(binary()?)
                .args(["witness", "run", "--key"])
                .arg(&key)
                .arg("--state")
                .arg(path(&format!("{name}.state")))
                .arg("--log")
                .arg(&log)
                .args(["--listen", &format!("127.0.0.1:{port}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            running.push(Server(witness));
        }
        let [one, two] = NAMES;
        writeln!(policy, "group both 2 {one} {two}\nquorum both")?;
        let file = path("witnesses.policy");
        std::fs::write(&file, policy)?;
        let mut set = self.ascribe()?;
        set.arg("--key")
            .arg(text(&self.ready, "/people/1/key_file")?);
        output(set.args(["witness", "set"]).arg(&file))?;
        self._witnesses = running;
        Ok(())
    }

    /// So many requests by each of the clients at once.
    fn act(&self, requests: usize) -> Result<f64> {
        let (touched, batch) = (
            self.dir.path().join("touched"),
            self.dir.path().join("batch"),
        );
        std::fs::write(&touched, "")?;
        std::fs::write(
            &batch,
            format!("chmod 600 {}\n", touched.display()).repeat(requests),
        )?;
        let begun = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut sftp = Command::new("sftp");
            sftp.arg("-F").arg(text(&self.ready, "/ssh/config_file")?);
            sftp.arg("-q").arg("-b").arg(&batch);
            sftp.arg(text(&self.ready, "/ssh/destination")?);
            let sftp = sftp.stdin(Stdio::null()).stdout(Stdio::null());
            clients.push(sftp.stderr(Stdio::null()).spawn()?);
        }
        for client in &mut clients {
            ensure!(client.wait()?.success(), "a client failed");
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Ends the demo, so that its ledger can be read.
    fn ended(&mut self) -> Result<Reader> {
        let process = self.demo.id().to_string();
        output(Command::new("kill").args(["-TERM", &process]))?;
        self.demo.wait()?;
        Ok(Reader::open(&self.data())?)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.demo.kill().unwrap_or_default();
        self.demo.wait().map(drop).unwrap_or_default();
    }
}

/// Of each action in the ledger, the seconds until an entry says that all witnesses had seen it.
fn ages(ledger: &Reader) -> Result<Vec<f64>> {
    let mut waiting: Vec<(u64, i64)> = Vec::new();
    let mut ages = Vec::new();
    for (index, bytes) in (0..).zip(ledger.entries(0..ledger.size())?) {
        let entry = Entry::from_bytes(&bytes)?;
        let at = entry.at.millis();
        match entry.body {
            Body::Intent(_) => waiting.push((index, at)),
            Body::Cosigned(cosigned) => waiting.retain(|(index, since)| {
                let seen = *index < cosigned.size;
                if seen {
                    ages.push((at - since) as f64 / 1000.0);
                }
                !seen
            }),
            _ => {}
        }
    }
    ensure!(
        waiting.is_empty(),
        "{} actions were never witnessed",
        waiting.len()
    );
    Ok(ages)
}

/// The row.
pub(crate) fn row(plan: &Plan) -> Result<Row> {
    let mut bed = Bed::new()?;
    let took = bed.act(plan.requests)?;
    std::thread::sleep(AFTERWARDS);
    let mut ages = ages(&bed.ended()?)?;
    ages.sort_by(f64::total_cmp);
    let oldest = ages.last().copied().context("no action was recorded")?;
    let rate = ages.len() as f64 / took;
    Ok(Row {
        what: "oldest action that two witnesses had not seen",
        value: oldest,
        unit: "s",
        peer: None,
        ratio: Some(oldest / OLDEST),
        bar: "< 5 s at 1,000 actions/s",
        met: (rate >= BUSY).then_some(oldest < OLDEST),
        note: format!(
            "{CLIENTS} sftp clients at once on one machine with gateway, target and witnesses; until the entry \
             that says so"
        ),
        parts: vec![
            ("actions", ages.len() as f64),
            ("actions/s", rate),
            ("s, median", crate::table::median(&ages)),
        ],
    })
}
