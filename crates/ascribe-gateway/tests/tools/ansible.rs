//! Ansible, with and without pipelining, with and without a shared connection.
//!
//! Pipelining over a shared connection is what fails where an exit status gets lost: see
//! `docs/decisions/0006-exit-status-before-end-of-file.md`.

use ascribe_core::entry::Body;
use tokio::process::Command;

use super::access::{Access, FORMS, have, sized};
use super::world::until;

/// A module with an input that is larger than a channel's window, where it is pipelined.
const LONG_INPUT: usize = 3_000_000;

/// How often the tasks run in one run of the program, whose start takes as long as they do.
const ROUNDS: usize = 5;

fn playbook(access: &Access) -> String {
    let [copied, source, long] = ["copied", "source", "long.py"].map(|name| access.file(name));
    let play = format!(
        "- hosts: all
  gather_facts: false
  tasks:
  - raw: echo raw-ok
    register: said
    failed_when: said.stdout_lines != ['raw-ok']
  - ping:
  - command: printf %s command-ok
    register: ran
    failed_when: ran.stdout != 'command-ok'
  - copy: {{src: {source}, dest: {copied}.ROUND}}
  - shell: python3 -
    args: {{stdin: \"{{{{ lookup('ansible.builtin.file', '{long}') }}}}\"}}
    register: long
    failed_when: long.stdout != 'long-ok'
"
    );
    (0..ROUNDS)
        .map(|round| play.replace("ROUND", &round.to_string()))
        .collect()
}

fn ansible(access: &Access, pipelining: bool, shared: bool) -> Command {
    let master = if shared {
        // The default of Ansible, with a path of ours.
        format!(
            "-F {} -o ControlMaster=auto -o ControlPersist=60s -o ControlPath={}",
            access.config().display(),
            access.file("mux")
        )
    } else {
        format!("-F {} -o ControlMaster=no", access.config().display())
    };
    let mut command = Command::new("ansible-playbook");
    command
        .args(["-i", "target,", &access.file("play.yml")])
        .env("ANSIBLE_SSH_ARGS", master)
        .env("ANSIBLE_PIPELINING", if pipelining { "1" } else { "0" })
        .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_SSH_RETRIES", "0")
        .env("ANSIBLE_LOCAL_TEMP", access.file("local"))
        .env("ANSIBLE_REMOTE_TEMP", access.file("remote"))
        .env("ANSIBLE_HOME", access.file("home"))
        .env("LC_ALL", "C.UTF-8");
    command
}

async fn plays(pipelining: bool, shared: bool) {
    if !have("ansible-playbook") {
        return;
    }
    for form in FORMS {
        let access = Access::new(form).await;
        std::fs::write(access.file("play.yml"), playbook(&access)).unwrap();
        let source: Vec<u8> = (0..200_000u32).map(|i| b'a' + (i % 23) as u8).collect();
        std::fs::write(access.file("source"), &source).unwrap();
        let padding = "# padding\n".repeat(LONG_INPUT / 10);
        std::fs::write(
            access.file("long.py"),
            format!("print('long-ok')\n{padding}"),
        )
        .unwrap();
        let runs = sized(1, 10);
        for nth in 0..runs {
            let out = access
                .run(&mut ansible(&access, pipelining, shared), b"")
                .await;
            assert_eq!(
                out.code,
                Some(0),
                "{form:?} {nth}: {} {}",
                out.text(),
                out.stderr
            );
            assert!(
                out.text().contains("unreachable=0    failed=0"),
                "{}",
                out.text()
            );
            for round in 0..ROUNDS {
                let copied = access.file(&format!("copied.{round}"));
                assert!(std::fs::read(&copied).unwrap() == source);
                // So that the next run copies it again.
                std::fs::remove_file(&copied).unwrap();
            }
        }
        let actions = access.intents();
        let actions = actions.iter().filter(|i| i.within.is_none()).count();
        if shared {
            access.unshare().await;
        }
        let outcomes = access.complete(actions).await;
        assert!(
            outcomes.iter().all(|o| o.exit_code.is_some()),
            "{outcomes:?}"
        );
        let commands = access.commands();
        let is = |what: &str| {
            commands
                .iter()
                .filter(|(_, text)| text.as_deref() == Some(what))
                .count()
        };
        assert_eq!(is("echo raw-ok"), ROUNDS * runs);
        until("end of every session", || {
            let open = access
                .w
                .found(|b| matches!(b, Body::SessionOpen(_)).then_some(()));
            let ends = access
                .w
                .found(|b| matches!(b, Body::SessionClose(_)).then_some(()));
            (open.len() == ends.len()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pipelining_and_without_a_shared_connection() {
    plays(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pipelining_over_a_shared_connection() {
    plays(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_pipelining_and_without_a_shared_connection() {
    plays(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_pipelining_over_a_shared_connection() {
    plays(true, true).await;
}
