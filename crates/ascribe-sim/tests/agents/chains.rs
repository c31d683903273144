//! Chains of agents: what they may, what records show of them, how they end.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use ascribe_core::entry::{Body, Entry};
use serde_json::Value;

use super::world::{Out, PATIENCE, Running, World, need, wait_for};

const TASK: &str = "rotate the logs of the order database";

/// An agent: its key lies in `ssh-agent`, of which a public key file is left.
struct Agent<'a> {
    world: &'a World,
    name: &'static str,
    public: PathBuf,
    socket: PathBuf,
    _holder: Running,
}

impl<'a> Agent<'a> {
    fn new(world: &'a World, name: &'static str) -> Self {
        let key = world.path(name);
        let mut make = Command::new(need("ssh-keygen"));
        make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
        world.program(make).exits(0);
        let socket = world.path(&format!("{name}.socket"));
        let mut holder = Command::new(need("ssh-agent"));
        holder.arg("-D").arg("-a").arg(&socket);
        let holder = Running::start(holder, &world.path("logs"), false);
        wait_for("ssh-agent", PATIENCE, || UnixStream::connect(&socket).ok());
        let agent = Self {
            world,
            name,
            public: key.with_extension("pub"),
            socket,
            _holder: holder,
        };
        let mut add = agent.with_socket(need("ssh-add").as_path());
        add.arg("-q").arg(&key);
        world.program(add).exits(0);
        // From here on the key is nowhere else.
        std::fs::remove_file(&key).unwrap();
        agent
    }

    /// A program that finds this `ssh-agent`.
    fn with_socket(&self, program: &Path) -> Command {
        let mut command = Command::new(need("env"));
        command
            .arg(format!("SSH_AUTH_SOCK={}", self.socket.display()))
            .arg(program);
        command
    }

    /// The binary, signing with the agent's key.
    fn run(&self, args: &[&str]) -> Out {
        let plain = self.world.ascribe(&["-o", "json"]);
        let mut command = self.with_socket(Path::new(plain.get_program()));
        command.args(plain.get_args()).arg("--key");
        command.arg(&self.public).args(args);
        self.world.program(command)
    }

    fn accept(&self, delegation: &str) -> Out {
        self.run(&[
            "delegate",
            "accept",
            delegation,
            "--model",
            "example-large",
            "--harness",
            "example-cli",
            "--run",
            "run-7",
        ])
    }

    fn options(&self, more: &str) -> Vec<String> {
        let options = format!(
            "-F none -oHostName=127.0.0.1 -oStrictHostKeyChecking=no -oBatchMode=yes \
             -oUserKnownHostsFile=/dev/null -oIdentitiesOnly=yes -oIdentityAgent={} -i {} {more}",
            self.socket.display(),
            self.public.display(),
        );
        options.split_whitespace().map(str::to_owned).collect()
    }

    /// Stock ssh to the demo's target.
    fn ssh(&self, command: &str) -> Out {
        let options = self.options("");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.world.ssh_with(&options, &self.world.place(), command)
    }

    fn ssh_in_background(&self, command: &str) -> Running {
        let options = self.options("");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let world = self.world;
        let command = world.ssh_command(&options, &world.place(), command);
        Running::start(command, &world.path("logs"), false)
    }
}

/// `delegate AGENT` with a task, and what else is given.
fn args<'a>(agent: &'a Agent<'_>, target: &'a str, more: &'a str) -> Vec<&'a str> {
    let public = agent.public.to_str().unwrap();
    let args = [
        "delegate",
        agent.name,
        "--public-key",
        public,
        "--task",
        TASK,
        "--target",
        target,
    ];
    args.into_iter().chain(more.split(' ')).collect()
}

fn id(out: Out) -> String {
    let line = out.exits(0).line();
    line["delegation_id"].as_str().unwrap().to_owned()
}

fn export(world: &World, action: &Value) -> PathBuf {
    let session = action["session_id"].as_str().unwrap();
    world.ended_session(session);
    let file = world.path(&format!("{session}.bundle"));
    world.json(&["export", session, "-f", file.to_str().unwrap()]);
    file
}

fn chain(action: &Value) -> Vec<&str> {
    let chain = action["who"]["chain"].as_array().unwrap().iter();
    let names = chain.map(|link| link["display"].as_str().unwrap());
    names.collect()
}

/// The operator's agent, which may have one of its own, and that one.
struct Two<'a> {
    top: Agent<'a>,
    below: Agent<'a>,
    delegation: String,
    handed_on: String,
}

impl<'a> Two<'a> {
    fn new(world: &'a World) -> Self {
        let target = world.field("target");
        let top = Agent::new(world, "deploy-bot");
        let below = Agent::new(world, "log-bot");
        let all = "--kind ssh --for 30m --actions 5 --depth 1";
        let delegation = id(world.run_as("operator", &args(&top, &target, all)));
        top.accept(&delegation).exits(0);
        let less = "--kind ssh.exec --for 10m --actions 3";
        let handed_on = id(top.run(&args(&below, &target, less)));
        below.accept(&handed_on).exits(0);
        Self {
            top,
            below,
            delegation,
            handed_on,
        }
    }
}

#[test]
fn an_agent_acts_once_it_has_accepted_and_its_record_names_its_person_too() {
    let world = World::new();
    let target = world.field("target");
    let (agent, other) = (
        Agent::new(&world, "deploy-bot"),
        Agent::new(&world, "log-bot"),
    );
    agent.ssh("id").exits(255);
    let what = args(&agent, &target, "--kind ssh --for 30m");
    let delegation = id(world.run_as("operator", &what));
    // Nobody accepts for it, and it does not act before.
    let accept = ["delegate", "accept", &delegation];
    world.run_as("operator", &accept).exits(2);
    other.accept(&delegation).exits(2);
    agent.ssh("id").exits(255);
    agent.accept(&delegation).exits(0);
    agent.accept(&delegation).exits(2);

    let said = agent.ssh("echo by the agent").exits(0).stdout;
    assert_eq!(said, "by the agent\n");
    let action = &world.actions(&["--text", "by the agent"])[0];
    let operator = world.person("operator").0;
    let person = &action["who"]["chain"][0];
    assert_eq!(chain(action), ["Olu Operator", "deploy-bot"]);
    assert_eq!(
        (&person["kind"], &person["principal"]),
        (&"person".into(), &operator.clone().into())
    );
    let link = &action["who"]["chain"][1];
    assert_eq!(
        (&link["kind"], &link["owner"]),
        (&"agent".into(), &operator.into())
    );
    assert_eq!(link["evidence"], format!("delegation:{delegation}"));
    assert_eq!(link["task"], TASK);
    assert_eq!(link["assurance"], person["assurance"]);
    let said = &link["asserted"];
    assert_eq!(
        (&said["by"], &said["run"]),
        (&"agent".into(), &"run-7".into())
    );
    assert_eq!(said["model"], "example-large");
    // The person's own actions are told as ever.
    world.ssh(&world.place(), "echo by hand").exits(0);
    let own = &world.actions(&["--text", "by hand"])[0];
    assert_eq!(chain(own), ["Olu Operator"]);
    assert_eq!(own["who"]["chain"][0].as_object().unwrap().len(), 6);
}

#[test]
fn an_agent_hands_on_less_and_both_end_with_the_upper_one() {
    let world = World::new();
    let target = world.field("target");
    let Two {
        top,
        below,
        delegation,
        handed_on,
    } = Two::new(&world);
    let third = Agent::new(&world, "third-bot");
    for wider in ["--kind ssh --for 2h", "--kind sftp --for 10m --actions 1"] {
        top.run(&args(&third, &target, wider)).exits(2);
    }
    top.ssh("echo above").exits(0);
    below.ssh("echo below").exits(0);
    let action = &world.actions(&["--agent", "log-bot"])[0];
    assert_eq!(chain(action), ["Olu Operator", "deploy-bot", "log-bot"]);
    // Both are found under the upper one's name, and under the person's.
    assert_eq!(world.actions(&["--agent", "deploy-bot"]).len(), 2);
    assert!(world.actions(&["--agent", "deploy"]).is_empty());
    let operator = world.person("operator").0;
    assert_eq!(world.actions(&["--actor", &operator]).len(), 2);
    let text = world
        .run(&["actions", "--agent", "log-bot"])
        .exits(0)
        .stdout;
    assert!(
        text.contains("Olu Operator > deploy-bot > log-bot"),
        "{text}"
    );
    // A shell is no `ssh.exec`.
    let shell = below.options("-tt");
    let shell: Vec<&str> = shell.iter().map(String::as_str).collect();
    let refused = world.ssh_with(&shell, &world.place(), "").stderr;
    assert!(
        refused.contains("the delegation is not for `ssh.shell`"),
        "{refused}"
    );
    let shown = world.run(&["delegations"]).exits(0).stdout;
    let used = format!("    {handed_on}  log-bot  active");
    assert!(
        shown.contains(&used) && shown.contains("3 of 5 actions left"),
        "{shown}"
    );

    // The lower one works when the upper one is revoked.
    let marker = world.path("runs");
    let file = marker.display();
    let script = format!("touch '{file}'; while [ -e '{file}' ]; do sleep 0.1; done");
    let running = below.ssh_in_background(&script);
    wait_for("running command", PATIENCE, || {
        marker.exists().then_some(())
    });
    let reason = "the task is done";
    let revoke = ["delegate", "revoke", &delegation, "--reason", reason];
    below.run(&revoke).exits(2);
    world.run_as("operator", &revoke).exits(0);
    let ended = running.wait(PATIENCE);
    assert_ne!(ended.code, Some(0), "{ended:?}");
    let told = "the grant or a delegation was revoked";
    assert!(ended.stderr.contains(told), "{ended:?}");
    std::fs::remove_file(&marker).unwrap();
    let action = world.actions(&["--text", "while"]).remove(0);
    let session = action["session_id"].as_str().unwrap();
    let took = world.ended_after(session, "delegation-revoke");
    assert!((0..=2000).contains(&took), "{took} ms");
    let session = world.ended_session(session);
    assert_eq!(session["reason"], "revoked");
    let agents: Vec<Value> = ["deploy-bot", "log-bot"].map(Value::from).into();
    assert_eq!(session["agents"], Value::from(agents));
    for agent in [&top, &below] {
        agent.ssh("id").exits(255);
    }
    assert!(world.json(&["delegations"]).lines().is_empty());
    assert_eq!(world.json(&["delegations", "--all"]).lines().len(), 2);
}

#[test]
fn offline_every_link_is_there_and_as_it_was_signed() {
    let world = World::new();
    let Two {
        below,
        delegation,
        handed_on,
        ..
    } = Two::new(&world);
    below.ssh("echo below").exits(0);
    let bundle = export(&world, &world.actions(&["--agent", "log-bot"])[0]);
    let verified = world.verify(&bundle, &world.policy()).exits(0);
    let chain = [
        "enrolment",
        "enrolment",
        "delegation",
        "acceptance",
        "delegation",
        "acceptance",
        "request",
        "approval",
        "grant",
        "opening",
        "record",
        "order",
        "time",
    ];
    assert_eq!(verified.chain(), chain, "{verified:?}");
    let (said, taken) = (verified.link("delegation"), verified.link("acceptance"));
    let operator = world.person("operator").0;
    assert_eq!(said["signed_by"][0]["principal"], operator.as_str());
    assert_eq!(taken["signed_by"][0]["name"], "deploy-bot");
    assert_eq!(taken["signed_by"][0]["with"], "agent's key");
    let opening = verified.link("opening");
    assert_eq!(opening["testimony"], "gateway");
    assert!(
        opening["what"].as_str().unwrap().contains("log-bot"),
        "{opening}"
    );
    let verified = verified.stdout;
    for link in [
        format!("Olu Operator signed delegation:{delegation}, deploy-bot signed its acceptance"),
        format!("deploy-bot signed delegation:{handed_on}, log-bot signed its acceptance"),
    ] {
        assert!(verified.contains(&link), "{verified}");
    }
    let whole = std::fs::read_to_string(&bundle).unwrap();
    let mut links = 0;
    for (at, line) in whole.lines().enumerate() {
        let is_a = |kind: &str| line.contains(&format!(r#"\\\"{kind}\\\":{{"#));
        if !is_a("delegation") && !is_a("acceptance") {
            continue;
        }
        links += 1;
        let mut lines: Vec<&str> = whole.lines().collect();
        let changed = line.replace("-bot", "-bat").replace("run-7", "run-8");
        assert_ne!(changed, line);
        lines[at] = &changed;
        let altered = lines.join("\n") + "\n";
        lines.remove(at);
        for forged in [altered, lines.join("\n") + "\n"] {
            let file = world.path("forged.bundle");
            std::fs::write(&file, forged).unwrap();
            world.verify(&file, &world.policy()).exits(4);
        }
    }
    assert_eq!(links, 4);
}

#[test]
fn an_agent_that_may_copy_files_runs_nothing_else_by_it() {
    let world = World::new();
    let target = world.field("target");
    let agent = Agent::new(&world, "copy-bot");
    let kinds = "--kind ssh.rsync --kind ssh.scp --kind ssh.sftp --for 30m --actions 20";
    let delegation = id(world.run_as("operator", &args(&agent, &target, kinds)));
    agent.accept(&delegation).exits(0);
    // Programs of the agent's own, by the names of those that it may run.
    let (mark, own) = (world.path("mark"), world.path("own"));
    std::fs::create_dir_all(&own).unwrap();
    let (mark, own) = (mark.to_str().unwrap(), own.to_str().unwrap());
    for name in ["scp", "rsync", "sftp-server", "--server"] {
        let path = format!("{own}/{name}");
        std::fs::write(&path, format!("#!/bin/sh\ntouch {mark}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    for command in [
        format!("rsync --server . ; touch {mark}"),
        format!("rsync --server . & touch {mark}"),
        format!("rsync --server $(touch {mark})"),
        format!("rsync --server `touch {mark}`"),
        format!("scp -t x\ntouch {mark}"),
        format!("{own}/rsync --server ."),
        format!("{own}/scp -t x"),
        format!("{own}/sftp-server"),
        format!("PATH={own}/rsync --server"),
        format!("PATH={own}:/rsync --server"),
    ] {
        let refused = agent.ssh(&command);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(
            said.contains("the delegation is not for `ssh.exec`"),
            "{command}: {said}"
        );
        assert!(!Path::new(mark).exists(), "{command}");
    }
    // A copy is one.
    let copy = agent.ssh("scp -f '/nowhere (1)'");
    assert!(!copy.stderr.contains("delegation"), "{}", copy.stderr);
    assert_eq!(world.actions(&["--text", "nowhere"]).len(), 1);
}

#[test]
fn agents_share_a_budget_to_the_last_action_and_ask_for_nothing() {
    let mut world = World::new();
    let target = world.field("target");
    let agent = Agent::new(&world, "deploy-bot");
    let kinds = "--kind ssh.exec --for 30m --actions 2";
    let delegation = id(world.run_as("operator", &args(&agent, &target, kinds)));
    agent.accept(&delegation).exits(0);
    agent.ssh("echo one").exits(0);
    agent.ssh("echo two").exits(0);
    let refused = agent.ssh("echo three");
    assert_ne!(refused.code, Some(0));
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("all 2 actions"), "{said}");
    assert!(world.actions(&["--text", "three"]).is_empty());
    let row = agent.run(&["delegations"]).exits(0).line();
    assert_eq!((&row["status"], &row["left"]), (&"used".into(), &0.into()));

    let place = world.place();
    let waits = world.request("for somebody else to approve");
    for said in [
        &["request", &place, "--why", "because I want to go on"][..],
        &["approve", &waits],
        &["deny", &waits],
        &["requests"],
        &["grants"],
        &["actions"],
        &["person", "list"],
    ] {
        agent.run(said).exits(2);
    }
    // A second delegation for the same key is nobody's to accept.
    world
        .run_as("operator", &args(&agent, &target, kinds))
        .exits(2);
    drop(agent);
    world.stop();

    // What was refused is on record as the agent's, and the whole ledger is lawful.
    let reader = ascribe_ledger::Reader::open(&world.data()).unwrap();
    let entries = reader.entries(0..reader.size()).unwrap();
    let entries = entries
        .iter()
        .map(|bytes| Entry::from_bytes(bytes).unwrap());
    let refused: Vec<(String, String)> = entries
        .filter_map(|entry| match entry.body {
            Body::Refusal(refusal) => Some(refusal),
            _ => None,
        })
        .filter(|refusal| {
            refusal
                .delegation
                .is_some_and(|id| id.to_string() == delegation)
        })
        .map(|refusal| (refusal.what, refusal.code))
        .collect();
    let has = |what: &str, code: &str| refused.contains(&(what.to_owned(), code.to_owned()));
    assert!(
        has("request", "agent") && has("session", "budget"),
        "{refused:?}"
    );
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn an_agent_signs_its_own_opening() {
    let world = World::new();
    let (target, place) = (world.field("target"), world.place());
    world.change_target(&["--signed-opening"]);
    let agent = Agent::new(&world, "deploy-bot");
    let kinds = "--kind ssh.exec --for 30m";
    let delegation = id(world.run_as("operator", &args(&agent, &target, kinds)));
    agent.accept(&delegation).exits(0);
    agent.ssh("echo unsigned").exits(254);
    let plain = world.ascribe(&["--key", agent.public.to_str().unwrap(), "connect", &place]);
    let mut proxy = agent.with_socket(Path::new(plain.get_program()));
    proxy.args(plain.get_args());
    let words = [proxy.get_program()].into_iter().chain(proxy.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let proxy = format!("-oProxyCommand={}", words.join(" "));
    let mut options = agent.options("");
    options.push(proxy);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let account = world.field("account");
    world.ssh_with(&options, &account, "echo signed").exits(0);
    let action = world.actions(&["--text", "echo signed"]).remove(0);
    assert_eq!(action["who"]["opened_by"], "signed");
    assert_eq!(chain(&action), ["Olu Operator", "deploy-bot"]);
    let bundle = export(&world, &action);
    let opening = world
        .verify(&bundle, &world.policy())
        .exits(0)
        .link("opening");
    assert_eq!(opening["signed_by"][0]["name"], "deploy-bot", "{opening}");
    assert!(opening.get("testimony").is_none(), "{opening}");
}

#[test]
fn an_agent_comes_in_by_the_jump_door_too() {
    let world = World::new();
    let target = world.field("target");
    let agent = Agent::new(&world, "deploy-bot");
    let kinds = "--kind ssh.exec --for 30m";
    let delegation = id(world.run_as("operator", &args(&agent, &target, kinds)));
    agent.accept(&delegation).exits(0);
    let outer = agent.options("").join(" ");
    let port = world.port();
    let jump = format!("ssh {outer} -p {port} -W {target}:22 jump@127.0.0.1");
    let mut inner = agent.options("");
    inner.retain(|option| !option.starts_with("-oHostName"));
    inner.push(format!("-oHostName={target}"));
    inner.push(format!("-oProxyCommand={jump}"));
    let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
    let account = world.field("account");
    world.ssh_with(&inner, &account, "echo jumped").exits(0);
    let action = world.actions(&["--text", "echo jumped"]).remove(0);
    assert_eq!(action["who"]["door"], "jump");
    assert_eq!(chain(&action), ["Olu Operator", "deploy-bot"]);
}
