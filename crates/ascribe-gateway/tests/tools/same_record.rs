//! The same work leaves the same record, whatever client and whatever way it came by.

use ascribe_core::entry::{Body, SessionOpen, Status};
use tokio::process::Command;

use super::access::{Access, FORMS, have, run};
use super::world::until;

const COMMAND: &str = "echo the same; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_leaves_the_same_record() {
    for form in FORMS {
        let access = Access::new(form).await;
        let mut expected = Vec::new();
        access.ssh(&[], COMMAND, b"").await.exits(3);
        expected.push(("ssh.exec", Some(COMMAND)));
        access.ssh(&["-T"], "", COMMAND.as_bytes()).await.exits(3);
        expected.push(("ssh.shell", None));
        access.ssh(&["-tt"], COMMAND, b"").await.exits(3);
        expected.push(("ssh.exec", Some(COMMAND)));
        let shared = access.shared();
        let options: Vec<&str> = shared.iter().map(String::as_str).collect();
        for _ in 0..2 {
            access.ssh(&options, COMMAND, b"").await.exits(3);
            expected.push(("ssh.exec", Some(COMMAND)));
        }
        access.unshare().await;
        let mut sessions = 4;
        if have("ansible") {
            let mut ansible = Command::new("ansible");
            ansible
                .args(["all", "-i", "target,", "-m", "raw", "-a", COMMAND])
                .env(
                    "ANSIBLE_SSH_ARGS",
                    format!("-F {} -o ControlMaster=no", access.config().display()),
                )
                .env("ANSIBLE_HOME", access.file("home"))
                .env("ANSIBLE_LOCAL_TEMP", access.file("local"));
            run(&mut ansible, b"").await.exits(2);
            sessions += 1;
            // Ansible asks for a terminal here, and quotes nothing.
            expected.push(("ssh.exec", Some(COMMAND)));
        }
        let outcomes = access.complete(expected.len()).await;
        let commands = access.commands();
        let commands: Vec<_> = commands
            .iter()
            .map(|(kind, text)| (kind.as_str(), text.as_deref()))
            .collect();
        assert_eq!(commands, expected);
        for outcome in outcomes {
            assert_eq!(
                (outcome.status, outcome.exit_code),
                (Status::Failed, Some(3))
            );
        }
        let opens = until("every session", || {
            let opens = access.w.found(|body| match body {
                Body::SessionOpen(open) => Some(open),
                _ => None,
            });
            (opens.len() == sessions).then_some(opens)
        })
        .await;
        let first = &opens[0];
        for open in &opens {
            // Only the session and the sealed address differ.
            let same = SessionOpen {
                session: first.session,
                from: first.from,
                ..open.clone()
            };
            assert_eq!(&same, first);
        }
    }
}
