//! A maintenance job that is a command: its words are approved, its statements are bounded, and a client that does not
//! look at what was approved is stopped by the law.

use std::path::Path;
use std::process::Command;

use ascribe_core::database::command_definition;
use ascribe_core::encoding::{Bytes, base64url, from_base64url};
use ascribe_core::id::ContentDigest;
use ascribe_core::statement::{Say, Signed};
use serde_json::{Value, json};

use super::agent::Agent;
use super::bank::{Bank, PLACE};
use super::bearers::{BEARER, FULL, occurrences};
use super::idp::Idp;
use super::jobs::{in_a_job, registered};
use super::world::{Out, PATIENCE, need, wait_for};

const NAME: &str = "tidy";
const SQL: &str = "update orders set open = false where done;\nselect count(*) from orders;\n";

/// A client of PostgreSQL's that does what a file says.
fn words(file: &Path) -> Vec<String> {
    let words = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"];
    let words = words.iter().map(ToString::to_string);
    words.chain([file.display().to_string()]).collect()
}

fn file(bank: &Bank, text: &str) -> std::path::PathBuf {
    let file = bank.world.path("tidy.sql");
    std::fs::write(&file, text).unwrap();
    file
}

fn add(bank: &Bank, classes: &[&str], words: &[String]) -> Out {
    let asked = [
        "job",
        "add",
        NAME,
        PLACE,
        "--schedule",
        "daily at 02:00 UTC",
        "--workload",
        "deploy-shop",
        "--why",
        "tidy the orders of the day",
        "--ticket",
        "demo:OPS-77",
    ];
    let classes = classes.iter().flat_map(|class| ["--class", class]);
    let asked: Vec<&str> = asked.into_iter().chain(classes).chain(["--"]).collect();
    let words = words.iter().map(String::as_str);
    bank.world.tell(
        "operator",
        &asked.into_iter().chain(words).collect::<Vec<_>>(),
    )
}

/// Approves these words with these options.
fn approve(bank: &Bank, options: &[&str], words: &[String]) -> Out {
    let words = words.iter().map(String::as_str);
    let yes = ["job", "approve", NAME].into_iter();
    let yes = yes.chain(options.iter().copied()).chain(["--"]);
    bank.world
        .tell("approver", &yes.chain(words).collect::<Vec<_>>())
}

/// What a command of two classes is approved with.
const BOTH: [&str; 4] = ["--class", "update", "--class", "select"];

/// What a line of cron's does: the same words again.
fn run(bank: &Bank, issuer: &Idp, words: &[String]) -> Out {
    let mut command: Command = bank.world.ascribe(&["job", "run", NAME]);
    command
        .args(["--workload", "deploy-shop", "--database", "orders", "--"])
        .args(words)
        .env("HOME", bank.world.path("nowhere"));
    bank.world.program(in_a_job(command, issuer))
}

/// Who approves gives the words that they read, or says that they have not.
fn is_approved_by_its_words(bank: &Bank, words: &[String], typed: &str) {
    let request = bank.world.run_as("operator", &["requests"]).line();
    let id = request["id"].as_str().unwrap();
    let shown = bank.world.tell("approver", &["show", id]).exits(0).stdout;
    for part in [
        "job tidy, daily at 02:00 UTC",
        "a command",
        "class select, update",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let blind = bank.world.tell("approver", &["approve", id]).exits(3);
    for way in ["job approve tidy --class CLASS -- PROGRAM", "--unread"] {
        assert!(blind.stderr.contains(way), "{blind:?}");
    }
    let mut other = words.to_vec();
    other.push("-e".to_owned());
    let wrong = approve(bank, &BOTH, &other).exits(2);
    assert!(
        wrong
            .stderr
            .contains("is not the command that was asked for"),
        "{wrong:?}"
    );
    let script = ["approve", id, "--script", words.last().unwrap().as_str()];
    bank.world.tell("approver", &script).exits(2);
    // The words say nothing of what it may do.
    let unbounded = approve(bank, &[], words).exits(3);
    assert!(
        unbounded.stderr.contains("all that bounds it"),
        "{unbounded:?}"
    );
    let narrow = approve(bank, &BOTH[2..], words).exits(2);
    let why = "statements of class update are asked for too, which you did not state";
    assert!(narrow.stderr.contains(why), "{narrow:?}");
    let wide = [&BOTH[..], &["--class", "ddl"]].concat();
    let wide = approve(bank, &wide, words).exits(2);
    let why = "statements of class ddl are not asked for";
    assert!(wide.stderr.contains(why), "{wide:?}");
    let objects = [&BOTH[..], &["--object", "public.orders"]].concat();
    let objects = approve(bank, &objects, words).exits(2);
    let why = "statements on public.orders are not asked for";
    assert!(objects.stderr.contains(why), "{objects:?}");
    let yes = approve(bank, &BOTH, words).exits(0);
    assert!(yes.stderr.contains(&format!("command {typed}")), "{yes:?}");
    assert!(
        yes.stdout
            .contains(&format!("--database DATABASE -- {typed}")),
        "{yes:?}"
    );
}

#[test]
fn a_command_is_approved_by_its_words_and_bounded_by_its_classes() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer);
    let file = file(&bank, SQL);
    let words = words(&file);
    let unbounded = add(&bank, &[], &words).exits(3);
    assert!(
        unbounded.stderr.contains("of which classes"),
        "{unbounded:?}"
    );
    let typed = words
        .join(" ")
        .replace("ON_ERROR_STOP=1", "'ON_ERROR_STOP=1'");
    let added = add(&bank, &["select", "update"], &words).exits(0);
    let request = bank.world.run_as("operator", &["requests"]).line();
    let id = request["id"].as_str().unwrap();
    let next = format!(
        "next: Ada Approver runs `ascribe show {id}`, then `ascribe job approve {NAME} --request {id} --class select --class update -- {typed}`",
    );
    assert!(added.stdout.contains(&next), "{added:?}");

    is_approved_by_its_words(&bank, &words, &typed);
    let done = run(&bank, &issuer, &words).exits(0);
    assert_eq!(done.stdout, "UPDATE 1\n2\n", "{done:?}");
    let action = bank.action("update orders set open = false where done");
    let definition = json!(command_definition(&words));
    assert_eq!(action["why"]["job"]["name"], NAME, "{action}");
    assert_eq!(action["why"]["job"]["definition"], definition);
    assert_eq!(action["who"]["chain"][0]["display"], "deploy-shop");
    assert_eq!(action["who"]["opened_by"], "signed");
    let listed = bank
        .world
        .tell("operator", &["job", "list"])
        .exits(0)
        .stdout;
    assert!(listed.contains("a command (select, update)"), "{listed}");

    // Other words do not run.
    let mut other = words.clone();
    other.push("-e".to_owned());
    let changed = run(&bank, &issuer, &other).exits(2);
    assert!(
        changed
            .stderr
            .contains("command has changed since it was approved"),
        "{changed:?}"
    );
    // What it does with the same words is bounded all the same, and its own code is that of the run.
    std::fs::write(&file, "select 1;\ndelete from orders;\n").unwrap();
    let refused = run(&bank, &issuer, &words).exits(3);
    assert!(
        refused
            .stderr
            .contains("not for statements of class `delete`"),
        "{refused:?}"
    );
    assert_eq!(
        bank.cluster.sql("orders", "select count(*) from orders"),
        "2\n"
    );
    let runs = wait_for("the runs' ends", PATIENCE, || {
        let runs = bank.world.json(&["job", "runs", NAME]).lines();
        let open = runs.iter().any(|run| run["status"] == "running");
        (!open).then_some(runs)
    });
    let statuses: Vec<&Value> = runs.iter().map(|run| &run["status"]).collect();
    assert_eq!(
        statuses,
        [&json!("succeeded"), &json!("refused")],
        "{runs:?}"
    );
    let missing = ["/nowhere/program".to_owned()];
    add(&bank, &["select"], &missing).exits(0);
    approve(&bank, &["--class", "select"], &missing).exits(0);
    run(&bank, &issuer, &missing).exits(3);
    bank.stop();
    bank.world
        .verify(&bank.world.data(), &bank.world.policy())
        .exits(0);
}

/// Who asks under a name that is waited for already keeps nobody from approving what they read.
#[test]
fn of_several_requests_of_one_name_the_one_that_was_read_is_approved() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let bank = registered(&issuer);
    let words = |of: &[&str]| -> Vec<String> { of.iter().map(ToString::to_string).collect() };
    let (read, other) = (words(&["tidy", "", "a\nb"]), words(&["tidy", "", "a\\nb"]));
    let asked = |classes: &[&str], words: &[String]| -> String {
        let out = add(&bank, classes, words).exits(0).stdout;
        let id = out.split_whitespace().find(|word| word.starts_with("st-"));
        id.unwrap_or_else(|| panic!("{out}")).to_owned()
    };
    let first = asked(&["select"], &read);
    asked(&["select"], &other);
    let select = ["--class", "select"];
    let unknown = approve(&bank, &select, &words(&["tidy"])).exits(2);
    assert!(
        unknown.stderr.contains("is for this command"),
        "{unknown:?}"
    );
    let yes = approve(&bank, &select, &read).exits(0);
    assert!(yes.stderr.contains("command tidy '' $'a\\nb'\n"), "{yes:?}");
    assert!(yes.stdout.contains("-- tidy '' $'a\\nb'"), "{yes:?}");
    let open = || -> Vec<String> {
        let rows = bank
            .world
            .run_as("operator", &["requests"])
            .exits(0)
            .lines();
        let ids = rows
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect()
    };
    assert!(!open().contains(&first));
    // The same words with other classes; and the same altogether, where only the id tells which.
    let wider = asked(&["select", "delete"], &other);
    let both = ["--class", "select", "--class", "delete"];
    approve(&bank, &both, &other).exits(0);
    assert!(!open().contains(&wider));
    let twin = asked(&["select"], &other);
    let which = approve(&bank, &select, &other).exits(3);
    assert!(
        which.stderr.contains(&twin) && which.stderr.contains("--request ID"),
        "{which:?}"
    );
    approve(
        &bank,
        &[&select[..], &["--request", &first]].concat(),
        &other,
    )
    .exits(1);
    approve(
        &bank,
        &[&select[..], &["--request", &twin]].concat(),
        &other,
    )
    .exits(0);
    let left = open();
    assert!(left.len() == 1 && left[0] != twin, "{left:?}");
    // A script is told from commands of its name by itself, too.
    let file = file(&bank, SQL);
    let file = file.to_str().unwrap();
    let script = ["job", "approve", NAME, "--file", file];
    bank.world.tell("approver", &script).exits(2);
}

/// A client that does not look: the workload's own key, with whatever it wants to state.
struct Liar<'a> {
    bank: &'a Bank,
    agent: Agent,
}

impl<'a> Liar<'a> {
    fn log_in(bank: &'a Bank, issuer: &Idp) -> Self {
        let agent = Agent::start(&bank.world);
        let login = agent.command(
            &bank.world,
            &["login", "--workload", "deploy-shop", "--for", "1h"],
        );
        let mut login = in_a_job(login, issuer);
        bank.world.program_as_is(&mut login).exits(0);
        Self { bank, agent }
    }

    /// A signed statement that states this.
    fn states(&self, definition: Option<ContentDigest>) -> String {
        let made = self
            .agent
            .run(&self.bank.world, &["-o", "json", "token", PLACE]);
        let made = made.exits(0).line();
        let password = made["password"].as_str().unwrap();
        let signed = from_base64url(password.strip_prefix("ascribe-v1.").unwrap()).unwrap();
        let signed: Signed = serde_json::from_slice(&signed).unwrap();
        let mut statement = signed.statement().unwrap();
        let Say::Connect(connect) = &mut statement.say else {
            panic!("{statement:?}")
        };
        assert_eq!(connect.definition, None);
        connect.definition = definition;
        let text = statement.to_text().unwrap();
        let path = |name: &str| self.bank.world.path(name);
        std::fs::write(path("said"), &text).unwrap();
        let in_agent = |program: &str, args: &[&str]| {
            let mut command = Command::new(need(program));
            command.args(args).env("SSH_AUTH_SOCK", path("agent"));
            self.bank.world.program_as_is(&mut command).exits(0)
        };
        let keys = in_agent("ssh-add", &["-L"]).stdout;
        std::fs::write(path("own.pub"), keys.lines().next().unwrap()).unwrap();
        let (own, said) = (path("own.pub"), path("said"));
        let namespace = statement.say.namespace();
        let sign = ["-Y", "sign", "-n", &namespace, "-f", own.to_str().unwrap()];
        in_agent(
            "ssh-keygen",
            &[&sign[..], &[said.to_str().unwrap()]].concat(),
        );
        let armoured = std::fs::read_to_string(path("said.sig")).unwrap();
        std::fs::remove_file(path("said.sig")).unwrap();
        let sig = Bytes(ascribe_evidence::dearmour(&armoured).unwrap());
        let signed = serde_json::to_vec(&Signed { sig, text }).unwrap();
        format!("ascribe-v1.{}", base64url(&signed))
    }

    fn connects(&self, definition: Option<ContentDigest>, sql: &str) -> Out {
        self.bank
            .psql_at_the_port(&self.states(definition), FULL, sql)
    }
}

/// How many openings were refused for what they stated, by the ledger itself.
fn refused_openings(bank: &mut Bank) -> usize {
    bank.stop();
    let found = occurrences(
        &bank.world.data().join("segments"),
        "\"code\":\"definition\"",
    );
    bank.world
        .verify(&bank.world.data(), &bank.world.policy())
        .exits(0);
    found
}

#[test]
fn a_client_that_does_not_look_is_stopped_by_the_law_where_a_command_was_approved() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer);
    let file = file(&bank, SQL);
    let words = words(&file);
    add(&bank, &["select"], &words).exits(0);
    approve(&bank, &["--class", "select"], &words).exits(0);
    let liar = Liar::log_in(&bank, &issuer);
    let other = command_definition(&["psql"]);
    let out = liar.connects(Some(other), "select 'let in'").exits(2);
    assert!(
        out.stderr.contains("has changed since it was approved"),
        "{out:?}"
    );
    let out = liar.connects(None, "select 'let in'").exits(2);
    assert!(out.stderr.contains("none was stated"), "{out:?}");
    // A token that is shown says nothing of what runs.
    let token = super::bearers::token(&bank, &issuer, "ascribe");
    let out = bank
        .psql_at_the_port(&token, FULL, "select 'let in'")
        .exits(2);
    assert!(out.stderr.contains("none was stated"), "{out:?}");
    assert!(!bank.cluster.log().contains("let in"));
    // Who states what was approved may do what the classes allow, and no more.
    let approved = command_definition(&words);
    liar.connects(Some(approved), "select 'stated'").exits(0);
    let out = liar.connects(Some(approved), "delete from orders").exits(1);
    assert!(out.stderr.contains("class `delete`"), "{out:?}");
    drop(liar);
    assert_eq!(refused_openings(&mut bank), 3);
}

#[test]
fn a_client_that_does_not_look_is_stopped_by_the_law_where_a_script_was_approved() {
    let Some(issuer) = Idp::of_jobs(BEARER) else {
        return;
    };
    let mut bank = registered(&issuer);
    let file = file(&bank, "select 'one';\n");
    super::jobs::add(&bank, &file);
    super::jobs::approve(&bank, &file).exits(0);
    let liar = Liar::log_in(&bank, &issuer);
    let out = liar
        .connects(Some(command_definition(&["psql"])), "select 'one'")
        .exits(2);
    assert!(
        out.stderr.contains("has changed since it was approved"),
        "{out:?}"
    );
    let out = liar.connects(None, "select 'two'").exits(1);
    assert!(out.stderr.contains("not in the approved script"), "{out:?}");
    liar.connects(None, "select 'one'").exits(0);
    drop(liar);
    let refused = bank.world.json(&["actions", "--refused"]).lines();
    let two = refused.iter().find(|one| {
        one["detail"]
            .as_str()
            .is_some_and(|d| d.ends_with("select 'two'"))
    });
    assert_eq!(two.unwrap()["code"], "outside-grant", "{refused:?}");
    assert!(!bank.cluster.log().contains("select 'two'"));
    assert_eq!(refused_openings(&mut bank), 1);
}
