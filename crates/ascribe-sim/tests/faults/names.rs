//! Names that want to be more than names: for people, targets, accounts and tickets, on the command
//! line and at the gateway's door.

use ascribe_core::text::is_unsafe;
use russh::ChannelMsg;
use russh::client::Config;

use super::client::{log_in, run};
use super::kit::{demo_port, text};
use super::world::{Out, World};

/// Terminal escapes, line ends, other directions of writing, paths, options, shell.
const HOSTILE: [&str; 14] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\u{202e}b",
    "a\u{200b}b",
    "a\u{85}b",
    "..",
    "../../etc/passwd",
    "a/../b",
    "-oProxyCommand=touch",
    "$(touch owned)",
    "`id`",
    "a b",
];

/// What a terminal must never be sent.
fn is_plain(out: &Out) {
    for shown in [&out.stdout, &out.stderr] {
        let bad = shown.chars().find(|c| is_unsafe(*c) && *c != '\n');
        assert_eq!(bad, None, "{out:?}");
    }
}

fn keygen(world: &World) -> String {
    let mut keygen = std::process::Command::new(super::world::need("ssh-keygen"));
    let file = world.path("key");
    if file.exists() {
        std::fs::remove_file(&file).unwrap();
    }
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&file);
    world.program(keygen).exits(0);
    file.with_extension("pub").to_str().unwrap().to_owned()
}

#[test]
fn hostile_names_on_the_command_line_are_refused_or_shown_harmlessly() {
    let mut world = World::new();
    let place = world.place();
    let (account, target) = (world.field("account"), world.field("target"));
    let pin = world.path("pin");
    let host = std::fs::read(world.path("data.demo/sshd_host_key.pub"));
    let host = host.unwrap_or_else(|_| std::fs::read(keygen(&world)).unwrap());
    std::fs::write(&pin, host).unwrap();
    let pin = pin.to_str().unwrap();
    let before = world.json(&["grants", "--all"]).lines().len();
    for bad in HOSTILE {
        // The text may be a person's name; it is sealed, and shown with its controls spelled out.
        let key = keygen(&world);
        let name = format!("--public-key={key}");
        let add = ["person", "add", &name, "--role=auditor", "--", bad];
        let added = world.run_as("approver", &add);
        assert!(matches!(added.code, Some(0 | 2 | 3)), "{added:?}");
        is_plain(&added);
        let shown = world.run_as("auditor", &["person", "list"]).exits(0);
        is_plain(&shown);

        let add = |name: &str, account: &str, address: &str, ticket: &str| {
            let options = [
                format!("--account={account}"),
                format!("--address={address}"),
                format!("--ticket={ticket}"),
            ];
            let options = options.each_ref().map(String::as_str);
            let start = ["target", "add", "--host-keys", pin, "--owner=Ada Approver"];
            world.run_as("approver", &[&start[..], &options, &["--", name]].concat())
        };
        let address = "192.0.2.10:22";
        for refused in [
            add(bad, "root", address, "demo:OPS-#"),
            add("db9", bad, address, "demo:OPS-#"),
        ] {
            assert_eq!(refused.code, Some(2), "{bad:?}: {refused:?}");
            is_plain(&refused);
        }
        for tried in [
            add("db9", "root", &format!("{bad}:22"), "demo:OPS-#"),
            add("db9", "root", address, &format!("demo:{bad}")),
        ] {
            // A host that has no address is a matter of usage.
            assert!(matches!(tried.code, Some(0 | 2 | 3)), "{bad:?} {tried:?}");
            is_plain(&tried);
        }
        is_plain(&world.run(&["target", "list"]).exits(0));

        let ask = |what: &str, ticket: &str| {
            let ticket = format!("--ticket={ticket}");
            let ask = [
                "request",
                "--why=look at the stuck replica",
                &ticket,
                "--",
                what,
            ];
            world.run_as("operator", &ask)
        };
        for (what, ticket) in [
            (format!("{bad}@{target}"), "demo:OPS-1".to_owned()),
            (format!("{account}@{bad}"), "demo:OPS-1".to_owned()),
            (place.clone(), format!("demo:{bad}")),
            (place.clone(), format!("{bad}:OPS-1")),
        ] {
            let refused = ask(&what, &ticket);
            assert!(matches!(refused.code, Some(2 | 3)), "{what:?} {refused:?}");
            is_plain(&refused);
        }
        for filter in ["--actor", "--target", "--account", "--ticket", "--text"] {
            let found = world.run(&["actions", &format!("{filter}={bad}")]);
            assert_eq!(
                (found.code, found.stdout.as_str()),
                (Some(0), "no action fits\n"),
                "{found:?}"
            );
            is_plain(&found);
        }
        for args in [["show", bad], ["target", bad], ["person", bad]] {
            is_plain(&world.run(&args));
        }
    }
    assert_eq!(world.json(&["grants", "--all"]).lines().len(), before);
    for people in world.run_as("auditor", &["person", "list"]).lines() {
        assert!(text(&people, "/id").starts_with("p-"));
    }
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}

#[test]
fn hostile_user_names_do_not_get_past_the_door() {
    let mut world = World::new();
    let (account, target) = (world.field("account"), world.field("target"));
    let port = demo_port(&world);
    // The stock client would not even send some of these.
    run(async {
        for bad in HOSTILE {
            for user in [
                format!("{bad}@{target}"),
                format!("{account}@{bad}"),
                format!("{account}+{bad}@{target}"),
                format!("{account}@{target}\0{bad}"),
                bad.to_owned(),
                bad.repeat(100),
            ] {
                let Some(ssh) = log_in(&world, port, &user, Config::default()).await else {
                    continue;
                };
                // A name of the right form: that there is no such target is said on the channel.
                let mut channel = ssh.channel_open_session().await.unwrap();
                channel.exec(true, "echo ran").await.unwrap();
                let mut status = None;
                while let Some(message) = channel.wait().await {
                    match message {
                        ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                        ChannelMsg::Data { data } => panic!("{user:?}: {data:?}"),
                        ChannelMsg::ExtendedData { data, .. } => {
                            let said = String::from_utf8_lossy(&data).replace("\r\n", "\n");
                            assert!(!said.contains(|c| c != '\n' && is_unsafe(c)), "{said:?}");
                        }
                        _ => {}
                    }
                }
                assert_eq!(status, Some(254), "{user:?}");
                assert!(
                    !user.contains(is_unsafe) && !user.contains(".."),
                    "{user:?}"
                );
            }
        }
    });
    assert!(world.actions(&[]).is_empty());
    assert!(world.json(&["sessions", "--all"]).lines().is_empty());
    world.ssh(&world.place(), "true").exits(0);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}
