//! The real binary, a stock `ssh`, a real `sshd`: what we promise, end to end.

#[cfg(test)]
mod e2e {
    mod authorities;
    mod identities;
    mod security_keys;
    mod token;
    #[expect(dead_code, reason = "each crate of tests uses its part")]
    mod world;

    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use ascribe_core::bundle::Bundle;
    use ascribe_core::encoding::{base64_std, from_base64url};
    use ascribe_tlog::TrustPolicy;
    use ascribe_verify::{Verdict, verify_bundle};
    use rustix::process::Signal;
    use serde_json::Value;

    use self::world::{PATIENCE, Running, World, copy, end, maybe, need, snapshot, wait_for};

    /// The shape of an action that scripts rely on.
    const ACTION: &[&str] = &[
        "v",
        "action_id",
        "session_id",
        "who.chain[].principal",
        "who.chain[].display",
        "who.chain[].kind",
        "who.chain[].owner",
        "who.chain[].assurance",
        "who.chain[].evidence",
        "who.door",
        "who.opened_by",
        "what.kind",
        "what.command",
        "what.command_b64",
        "what.content",
        "what.within",
        "what.target",
        "what.account",
        "what.system_owner",
        "what.method",
        "what.confidence",
        "what.outcome.status",
        "what.outcome.exit_code",
        "what.outcome.signal",
        "what.outcome.at",
        "what.outcome.streams[].stream",
        "what.outcome.streams[].bytes",
        "what.outcome.streams[].sha256",
        "what.outcome.streams[].stored",
        "when.at",
        "when.witnessed_before",
        "why.request_id",
        "why.grant_id",
        "why.justification",
        "why.ticket.system",
        "why.ticket.id",
        "why.approvals[].approver",
        "why.approvals[].method",
        "why.approvals[].at",
        "why.approvals[].entry_hash",
        "why.not_before",
        "why.not_after",
        "why.break_glass",
        "integrity.origin",
        "integrity.index",
        "integrity.entry_hash",
        "integrity.tree_size",
        "integrity.root",
        "integrity.stage",
        "names[].id",
        "names[].name",
    ];

    /// Where each value without parts lies.
    fn leaves(at: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let dot = if at.is_empty() { "" } else { "." };
                    leaves(&format!("{at}{dot}{key}"), value, found);
                }
            }
            Value::Array(list) => {
                assert!(!list.is_empty(), "{at} is empty");
                for value in list {
                    leaves(&format!("{at}[]"), value, found);
                }
            }
            _ => drop(found.insert(at.to_owned())),
        }
    }

    fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
    }

    fn commands(actions: &[Value]) -> BTreeMap<&str, &str> {
        actions
            .iter()
            .map(|a| (text(a, "/what/command"), text(a, "/what/outcome/status")))
            .collect()
    }

    fn parse_policy(path: &Path) -> TrustPolicy {
        TrustPolicy::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn main_job() {
        let world = World::new();
        let why = "restart the stuck replica";
        let request = world.request(why);
        world.run_as("operator", &["approve", &request]).exits(2);
        let grant = world.approve(&request);
        let user = format!(
            "{}+{grant}@{}",
            world.field("account"),
            world.field("target")
        );
        let command = "echo 'replica restarted'; exit 7";
        let ran = world.ssh(&user, command).exits(7);
        assert_eq!(ran.stdout, "replica restarted\n");

        let actions = world.actions(&["--grant", &grant]);
        assert_eq!(actions.len(), 1);
        let action = &actions[0];
        let mut found = BTreeSet::new();
        leaves("", action, &mut found);
        assert_eq!(found, ACTION.iter().map(|&s| s.to_owned()).collect());
        let (operator, approver) = (world.person("operator").0, world.person("approver").0);
        let account = world.field("account");
        for (pointer, expected) in [
            ("/who/chain/0/principal", operator.as_str()),
            ("/what/kind", "ssh.exec"),
            ("/what/command", command),
            ("/what/content", "present"),
            ("/what/account", &account),
            ("/what/system_owner", &approver),
            ("/what/outcome/status", "failed"),
            ("/why/request_id", &request),
            ("/why/grant_id", &grant),
            ("/why/justification", why),
            ("/why/ticket/id", "OPS-42"),
            ("/why/approvals/0/approver", &approver),
        ] {
            assert_eq!(text(action, pointer), expected, "{pointer}");
        }
        let exact = from_base64url(text(action, "/what/command_b64")).unwrap();
        assert_eq!(exact, command.as_bytes());
        assert_eq!(action["what"]["outcome"]["exit_code"], 7);
        assert_eq!(action["why"]["approvals"].as_array().unwrap().len(), 1);
        assert_eq!(action["why"]["break_glass"], false);

        let session = text(action, "/session_id");
        assert_eq!(world.ended_session(session)["reason"], "disconnected");
        let bundle = world.path("bundle");
        world
            .run(&["export", session, "-f", bundle.to_str().unwrap()])
            .exits(0);
        let report = world.verify(&bundle, &world.policy()).exits(0);
        assert_eq!(
            report.chain(),
            [
                "enrolment",
                "enrolment",
                "request",
                "approval",
                "grant",
                "opening",
                "record",
                "order",
                "time"
            ]
        );
        for (kind, role) in [("request", "operator"), ("approval", "approver")] {
            let signer = &report.link(kind)["signed_by"][0];
            assert_eq!(signer["principal"], world.person(role).0.as_str());
            assert_eq!(signer["with"], "enrolled key");
        }
        assert_eq!(report.link("opening")["testimony"], "gateway");
        let report = report.line();
        assert_eq!(report["verdict"], "verified");
        assert_eq!(
            text(&report, "/actions/0/action_id"),
            text(action, "/action_id")
        );
        for name in others(&world) {
            let refused = world.verify(&bundle, &world.path(&name)).exits(4);
            assert_eq!(refused.line()["problems"][0]["code"], "untrusted", "{name}");
        }
        no_changed_byte_changes_what_is_proven(&bundle, &world.policy());
        no_missing_line_hides_anything(&bundle, &world.policy());
    }

    /// Trust policies with another key, another first entry, or both.
    fn others(world: &World) -> [String; 3] {
        let admin = world.person("approver").1.with_extension("pub");
        let mut init = Command::new(world::binary());
        init.arg("--data")
            .arg(world.path("other"))
            .args(["init", "--origin"]);
        init.args(["demo.invalid/ascribe", "--wrap-key"])
            .arg(world.path("other.key"));
        init.arg("--admin").arg(format!("Ada={}", admin.display()));
        world.program(init).exits(0);
        let ours = std::fs::read_to_string(world.policy()).unwrap();
        let theirs = std::fs::read_to_string(world.path("other/trust-policy.txt")).unwrap();
        let line = |text: &str, start: &str| {
            let line = text.lines().find(|l| l.starts_with(start));
            line.unwrap().to_owned()
        };
        let (pin, key) = ("# ascribe-first-entry ", "log ");
        [
            ("key", line(&ours, pin), line(&theirs, key)),
            ("pin", line(&theirs, pin), line(&ours, key)),
            ("both", line(&theirs, pin), line(&theirs, key)),
        ]
        .map(|(name, pin, key)| {
            let name = format!("other-{name}.txt");
            let policy = format!("{pin}\n{key}\nquorum none\n");
            std::fs::write(world.path(&name), policy).unwrap();
            name
        })
    }

    fn no_changed_byte_changes_what_is_proven(bundle: &Path, policy: &Path) {
        let policy = parse_policy(policy);
        let bytes = std::fs::read(bundle).unwrap();
        let original = verify_bundle(&bytes, &policy);
        assert_eq!(original.verdict, Verdict::Verified);
        assert_eq!(original.actions.len(), 1);
        let (mut tried, mut refused) = (0, 0);
        // What is disclosed is no part of the tree: look closer there.
        let disclosed = std::str::from_utf8(&bytes)
            .unwrap()
            .find("\n{\"index\"")
            .unwrap();
        let places = (0..bytes.len()).step_by(97);
        for at in places.chain((disclosed..bytes.len()).step_by(7)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let report = verify_bundle(&changed, &policy);
            tried += 1;
            if report.verdict == Verdict::Verified {
                assert_eq!(report.actions, original.actions, "byte {at}");
            } else {
                refused += 1;
            }
        }
        assert!(
            tried > 100 && refused * 10 > tried * 9,
            "{refused} of {tried}"
        );
    }

    /// Lines are dropped, cut off, doubled and swapped. What still verifies must claim the same; only
    /// disclosed content may be withheld.
    fn no_missing_line_hides_anything(bundle: &Path, policy: &Path) {
        let policy = parse_policy(policy);
        let whole = std::fs::read_to_string(bundle).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let original = verify_bundle(whole.as_bytes(), &policy);
        let claims = |report: &ascribe_verify::Report| -> Vec<_> {
            let claim = |action: &ascribe_core::attribution::ActionRecord| {
                (
                    action.action_id,
                    action.what.outcome.clone(),
                    action.when.clone(),
                    action.why.approvals.clone(),
                    action.integrity.clone(),
                )
            };
            report.actions.iter().map(claim).collect()
        };
        let expected = claims(&original);
        let mut variants: Vec<Vec<&str>> = Vec::new();
        for at in 0..lines.len() {
            let (before, after) = lines.split_at(at);
            variants.push([before, &after[1..]].concat());
            variants.push(before.to_vec());
            variants.push([before, &after[..1], after].concat());
            if let [first, second, rest @ ..] = after {
                variants.push([before, &[*second, *first], rest].concat());
            }
        }
        let mut refused = 0;
        for variant in &variants {
            let mut text = variant.join("\n");
            text.push('\n');
            let report = verify_bundle(text.as_bytes(), &policy);
            match report.verdict {
                Verdict::Verified => assert_eq!(claims(&report), expected, "{}", variant.len()),
                Verdict::Failed => {
                    refused += 1;
                    assert!(report.actions.is_empty(), "a failed report claims nothing");
                }
            }
        }
        assert!(
            refused * 2 > variants.len(),
            "{refused} of {}",
            variants.len()
        );
    }

    #[test]
    fn two_grants_are_ambiguous() {
        let world = World::new();
        let second = world.approve(&world.request("look at the order database"));
        let grants = world.json(&["grants"]).lines();
        let ids: Vec<&str> = grants.iter().map(|g| text(g, "/id")).collect();
        assert_eq!(ids.len(), 2);
        let refused = world.ssh(&world.place(), "echo ran").exits(254);
        assert!(!refused.stdout.contains("ran"), "{refused:?}");
        for id in &ids {
            assert!(
                refused.stderr.contains(id),
                "{id} is not listed: {refused:?}"
            );
        }
        assert!(world.actions(&[]).is_empty());
        for id in [second.as_str(), ids[0], ids[1]] {
            world.run_as("operator", &["use", id]).exits(0);
            world.ssh(&world.place(), &format!("echo {id}")).exits(0);
            let actions = world.actions(&["--text", id]);
            assert_eq!(text(actions.last().unwrap(), "/why/grant_id"), id);
        }
    }

    #[test]
    fn revoked_mid_session() {
        let world = World::new();
        let mut sleeper = world.sleeper();
        let sessions = world.json(&["sessions"]).lines();
        assert_eq!(sessions.len(), 1);
        assert!(sessions[0]["ended"].is_null());
        let grant = text(&sessions[0], "/grant");
        world
            .run_as("approver", &["revoke", grant, "--why", "it was a mistake"])
            .exits(0);
        let ended = sleeper.ssh.take().unwrap().wait(Duration::from_secs(10));
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
        assert!(ended.stderr.contains("revoked"), "{ended:?}");
        let session = world.ended_session(text(&sessions[0], "/id"));
        assert_eq!(session["reason"], "revoked");
        let refused = world.ssh(&world.place(), "echo ran").exits(254);
        assert!(!refused.stdout.contains("ran"), "{refused:?}");
    }

    #[test]
    fn kill_nine_loses_nothing_acknowledged() {
        let mut world = World::new();
        let sleeper = world.sleeper();
        let markers = world.path("markers");
        std::fs::create_dir(&markers).unwrap();
        let marker = |thread: usize, n: usize| {
            let file = markers.join(format!("{thread}-{n}"));
            (format!("echo >'{}'", file.display()), file)
        };
        let place = world.place();
        for n in 0..3 {
            let (command, file) = marker(0, n);
            world.ssh(&place, &command).exits(0);
            assert!(file.exists());
        }
        // Three more clients go on until the server is no more.
        let killed = AtomicBool::new(false);
        let mut tried = Vec::new();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (1..4)
                .map(|thread| {
                    let (world, killed, marker, place) = (&world, &killed, &marker, &place);
                    scope.spawn(move || {
                        let mut n = 0;
                        while !killed.load(Ordering::Relaxed) {
                            world.ssh(place, &marker(thread, n).0);
                            n += 1;
                        }
                        n
                    })
                })
                .collect();
            for thread in 1..4 {
                wait_for("marker", PATIENCE, || {
                    marker(thread, 3).1.exists().then_some(())
                });
            }
            world.signal_server(Signal::KILL);
            killed.store(true, Ordering::Relaxed);
            for (client, thread) in clients.into_iter().zip(1..) {
                tried.push((thread, client.join().unwrap()));
            }
        });
        world.server_is_gone();
        tried.push((0, 3));

        let check = |actions: &[Value]| {
            let known = commands(actions);
            assert_eq!(known.get(sleeper.command.as_str()), Some(&"unknown"));
            for (thread, n) in &tried {
                for (command, file) in (0..*n).map(|n| marker(*thread, n)) {
                    let status = known.get(command.as_str());
                    assert!(!file.exists() || status.is_some(), "{command} is lost");
                    assert!(file.exists() || status != Some(&"succeeded"), "{command}");
                }
            }
            for n in 0..3 {
                assert!(known.contains_key(marker(0, n).0.as_str()), "{n}");
            }
        };
        let report = world.verify(&world.data(), &world.policy()).exits(0).line();
        check(report["actions"].as_array().unwrap());
        let read = world.json(&["actions"]);
        assert!(read.stderr.contains("offline"), "{read:?}");
        check(&read.lines());

        let server = world.serve(None);
        let actions = world.actions(&[]);
        check(&actions);
        let asleep = actions
            .iter()
            .find(|a| text(a, "/what/command") == sleeper.command)
            .unwrap();
        assert!(asleep["what"]["outcome"]["at"].is_string(), "{asleep}");
        let session = world.ended_session(text(asleep, "/session_id"));
        assert_eq!(session["reason"], "interrupted");
        world.ssh(&place, "echo the next one").exits(0);
        end(server);
        let report = world.verify(&world.data(), &world.policy()).exits(0).line();
        check(report["actions"].as_array().unwrap());
    }

    #[test]
    fn a_stopped_servers_directory_lists_the_links_of_the_session_that_is_asked_for() {
        let mut world = World::new();
        let bundle = world.bundle("echo once");
        world.bundle("echo twice");
        let actions = world.actions(&["--text", "echo once"]);
        let session = text(&actions[0], "/session_id").to_owned();
        let of_bundle = world.verify(&bundle, &world.policy()).exits(0);
        // No writer's word is missing in a whole session: whoever wrote its close has signed that it did.
        let record = of_bundle.link("record");
        assert_eq!(record["signed_by"][0]["with"], "writer key", "{record}");
        assert_eq!(record["trust"].as_array().unwrap().len(), 1, "{record}");
        world.stop();
        let verify = |path: &Path, session: &str| {
            let (path, policy) = (path.to_str().unwrap(), world.policy());
            let trust = ["--trust", policy.to_str().unwrap()];
            let args = ["-o", "json", "verify", path, "--session", session];
            world.run(&[&args[..], &trust].concat())
        };
        let of_one = verify(&world.data(), &session).exits(0);
        assert_eq!(of_one.chain(), of_bundle.chain());
        for kind in ["request", "approval", "grant", "opening", "record"] {
            assert_eq!(of_one.link(kind), of_bundle.link(kind));
        }
        let actions = of_one.line()["actions"].as_array().unwrap().clone();
        assert_eq!(actions.len(), 1, "{actions:?}");
        let of_all = world.verify(&world.data(), &world.policy()).exits(0).line();
        assert!(of_all["links"].is_null(), "{of_all}");
        assert_eq!(
            (&of_all["sessions"]["all"], &of_all["sessions"]["log_alone"]),
            (&2.into(), &0.into())
        );
        assert_eq!(of_all["versions"].as_array().unwrap().len(), 1);
        // A session that is not there, and one of a bundle, which is about one.
        let missing = verify(&world.data(), "s-00000000000000000000000000").exits(4);
        assert!(missing.stdout.contains("missing"), "{missing:?}");
        verify(&bundle, &session).exits(3);
    }

    #[test]
    fn offline_reads_say_so() {
        let mut world = World::new();
        let bundle = world.bundle("echo once");
        let session = text(&world.actions(&[])[0], "/session_id").to_owned();
        world.stop();
        let places = [world.data(), world.path("data.demo")];
        let before = places.clone().map(|dir| snapshot(&dir));
        let again = world.path("again.bundle");
        let again = again.to_str().unwrap();
        for args in [
            &["actions"][..],
            &["show", &session],
            &["replay", "--speed", "0", &session],
            &["export", &session, "-f", again],
        ] {
            let read = world.run(args).exits(0);
            assert!(read.stderr.contains("offline"), "{args:?}: {read:?}");
            let known = read.stdout.contains("once") || args[0] == "export";
            assert!(known, "{args:?}: {read:?}");
        }
        let report = world.verify(Path::new(again), &world.policy()).exits(0);
        let earlier = world.verify(&bundle, &world.policy()).exits(0);
        let id = |report: &Value| text(report, "/actions/0/action_id").to_owned();
        assert_eq!(id(&report.line()), id(&earlier.line()));
        assert!(before == places.map(|dir| snapshot(&dir)), "a read wrote");
    }

    #[test]
    fn statements_verify_with_stock_ssh_keygen() {
        let world = World::new();
        let bytes = std::fs::read(world.bundle("true")).unwrap();
        let bundle = Bundle::parse(&bytes).unwrap();
        let mut checked = 0;
        for (kind, namespace, role, wrong) in [
            ("request", "ascribe.request.v1", "operator", "approver"),
            ("approval", "ascribe.approval.v1", "approver", "operator"),
        ] {
            for entry in &bundle.entries {
                let entry: Value = serde_json::from_str(&entry.entry).unwrap();
                let Some(signed) = entry.pointer("/body/statement") else {
                    continue;
                };
                let statement: Value = serde_json::from_str(text(signed, "/text")).unwrap();
                if statement["say"].get(kind).is_none() {
                    continue;
                }
                checked += 1;
                let verify = |namespace: &str, role: &str| keygen(&world, signed, namespace, role);
                assert!(verify(namespace, role), "{kind}");
                assert!(!verify("ascribe.revocation.v1", role), "{kind}");
                assert!(!verify(namespace, wrong), "{kind}");
            }
        }
        assert_eq!(checked, 2);
    }

    /// Does stock `ssh-keygen` say that this person signed it under this namespace?
    fn keygen(world: &World, signed: &Value, namespace: &str, role: &str) -> bool {
        let blob = base64_std(&from_base64url(text(signed, "/sig")).unwrap());
        let mut armour = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
        for line in blob.as_bytes().chunks(70) {
            armour.push_str(std::str::from_utf8(line).unwrap());
            armour.push('\n');
        }
        armour.push_str("-----END SSH SIGNATURE-----\n");
        let (signature, message) = (world.path("statement.sig"), world.path("statement"));
        std::fs::write(&signature, armour).unwrap();
        std::fs::write(&message, text(signed, "/text")).unwrap();
        let key = std::fs::read_to_string(world.person(role).1.with_extension("pub")).unwrap();
        let allowed = world.path("allowed_signers");
        std::fs::write(&allowed, format!("{role} {key}")).unwrap();
        let mut check = Command::new("sh");
        check
            .args(["-c", r#"message=$1; shift; exec "$@" <"$message""#, "sh"])
            .args([&message, &need("ssh-keygen")])
            .args(["-Y", "verify", "-n", namespace, "-I", role, "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(&signature);
        let said = world.program(check);
        let good = said.code == Some(0);
        assert_eq!(good, said.stdout.starts_with("Good "), "{said:?}");
        good
    }

    #[test]
    fn restored_old_directory_is_refused() {
        let mut world = World::new();
        let place = world.place();
        world.ssh(&place, "echo before the copy").exits(0);
        world.stop();
        let saved = world.path("saved");
        copy(&world.data(), &saved);
        world.start_target();
        let server = world.serve(None);
        world.ssh(&place, "echo after the copy").exits(0);
        end(server);
        let newer = world.path("newer");
        std::fs::rename(world.data(), &newer).unwrap();
        std::fs::rename(&saved, world.data()).unwrap();
        let refused = world.serve_refused().exits(3);
        let head = world.path("data.demo/head");
        for part in ["rollback", head.to_str().unwrap()] {
            assert!(refused.stderr.contains(part), "{refused:?}");
        }
        // The newer one still serves.
        std::fs::rename(world.data(), &saved).unwrap();
        std::fs::rename(&newer, world.data()).unwrap();
        let server = world.serve(None);
        assert_eq!(world.actions(&["--text", "the copy"]).len(), 2);
        end(server);
    }

    #[test]
    fn exported_tree_verifies() {
        let mut world = World::new();
        world.ssh(&world.place(), "echo in the tree").exits(0);
        // Each refused forward is an entry: past the first full tile.
        let forwards: Vec<String> = (0..64)
            .map(|n| format!("-R{}:127.0.0.1:1", 2000 + n))
            .collect();
        let forwards: Vec<&str> = forwards.iter().map(String::as_str).collect();
        for _ in 0..5 {
            world.ssh_with(&forwards, &world.place(), ":").exits(0);
        }
        world.stop();
        let status = world.json(&["ledger", "status"]).line();
        let size = status["size"].as_u64().unwrap();
        assert!((257..512).contains(&size), "{size}");
        let tree = world.path("tree");
        let to = tree.to_str().unwrap();
        world.run(&["ledger", "export", "--to", to]).exits(0);
        let rest = size - 256;
        let note = std::fs::read_to_string(tree.join("checkpoint")).unwrap();
        assert!(
            note.starts_with(&format!("demo.invalid/ascribe\n{size}\n")),
            "{note}"
        );
        for (name, hashes) in [
            ("tile/0/000".to_owned(), 256),
            (format!("tile/0/001.p/{rest}"), rest),
            ("tile/1/000.p/1".to_owned(), 1),
        ] {
            let tile = std::fs::read(tree.join(&name)).unwrap();
            assert_eq!(tile.len() as u64, 32 * hashes, "{name}");
        }
        let last = format!("tile/entries/001.p/{rest}");
        for name in ["tile/entries/000", &last] {
            assert!(tree.join(name).is_file(), "{name}");
        }
        let report = world.verify(&tree, &world.policy()).exits(0).line();
        assert_eq!(report["size"], size);
        assert_eq!(report["actions"].as_array().unwrap().len(), 6);
        for name in ["tile/entries/000", &last] {
            let file = tree.join(name);
            let good = std::fs::read(&file).unwrap();
            let mut bad = good.clone();
            bad[good.len() / 2] ^= 1;
            std::fs::write(&file, bad).unwrap();
            world.verify(&tree, &world.policy()).exits(4);
            std::fs::write(&file, good).unwrap();
        }
        world.verify(&tree, &world.policy()).exits(0);
    }

    #[test]
    fn operations_on_files_are_listed_shown_and_proven() {
        let world = World::new();
        let file = world.path("file");
        std::fs::write(&file, "content\n").unwrap();
        let [from, to] = [file, world.path("copy")].map(|path| path.display().to_string());
        world.sftp(&format!("put {from} {to}\nrm {to}\n")).exits(0);
        let open = format!("open \"{to}\" write");
        let actions = world.actions(&["--text", &open]);
        let [action] = &actions[..] else {
            panic!("{actions:?}");
        };
        let session = text(action, "/session_id");
        world.ended_session(session);
        let all = world.actions(&["--session", session]);
        let kinds: Vec<&str> = all.iter().map(|a| text(a, "/what/kind")).collect();
        assert_eq!(kinds, ["ssh.sftp", "sftp.open", "sftp.remove"]);
        for part in &all[1..] {
            assert_eq!(part["what"]["within"], all[0]["action_id"]);
            assert_eq!(text(part, "/what/method"), "gateway.sftp");
            assert_eq!(text(part, "/what/outcome/status"), "succeeded");
        }
        // `printf 'content\n' | sha256sum`
        let sum = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";
        let shown = world.run(&["show", session]).exits(0).stdout;
        let line = format!("stream     written: 8 bytes, SHA-256 {sum}");
        assert!(shown.contains(&line), "{shown}");
        let listed = world
            .run(&["actions", "--session", session])
            .exits(0)
            .stdout;
        assert!(listed.contains(&format!("sftp: {open}")), "{listed}");
        assert!(listed.contains("succeeded  written 8 bytes"), "{listed}");
        assert!(
            listed.contains("  stdin "),
            "the transfer's totals: {listed}"
        );
        let bundle = world.path("files.bundle");
        let bundle_arg = bundle.to_str().unwrap();
        world.run(&["export", session, "-f", bundle_arg]).exits(0);
        world.verify(&bundle, &world.policy()).exits(0);
    }

    #[test]
    fn a_refused_variable_does_not_stop_the_command() {
        let world = World::new();
        for n in 0..5 {
            let option = format!("SetEnv=not-a-name-{n}=x");
            let ran = world.ssh_with(&["-o", &option], &world.place(), "echo ran");
            assert_eq!(ran.exits(0).stdout, "ran\n");
        }
    }

    #[test]
    fn refused_agent_forwarding_does_not_stop_the_command() {
        let world = World::new();
        let socket = world.path("agent");
        let mut agent = Command::new(need("ssh-agent"));
        agent.arg("-D").arg("-a").arg(&socket);
        let _agent = Running::start(agent, &world.path("logs"), false);
        wait_for("agent", PATIENCE, || socket.exists().then_some(()));
        let option = format!("IdentityAgent={}", socket.display());
        for _ in 0..10 {
            let ran = world.ssh_with(&["-A", "-o", &option], &world.place(), "echo ran");
            assert_eq!(ran.exits(0).stdout, "ran\n");
        }
    }

    /// One call to the system in a trace.
    struct Call {
        name: String,
        line: String,
        begun: f64,
        ended: f64,
    }

    /// Reads `strace -f -ttt -T`: calls that others interrupt stand on two lines.
    fn calls(trace: &str) -> Vec<Call> {
        let mut open = BTreeMap::new();
        let mut found = Vec::new();
        for line in trace.lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(at)) = (words.next(), words.next()) else {
                continue;
            };
            let at: f64 = at.parse().unwrap();
            let what = line.split_once(" <... ").map(|(_, rest)| rest);
            if let Some(rest) = what.filter(|rest| rest.contains(" resumed>")) {
                let (begun, start): (f64, String) = open.remove(thread).unwrap();
                let name = start.split('(').next().unwrap().to_owned();
                found.push(Call {
                    name,
                    line: format!("{start} {rest}"),
                    begun,
                    ended: at,
                });
                continue;
            }
            let Some(call) = words.next().filter(|w| w.contains('(')) else {
                continue;
            };
            let from = line.find(call).unwrap();
            let (_, shown) = line.split_at(from);
            if shown.ends_with("<unfinished ...>") {
                open.insert(thread.to_owned(), (at, shown.to_owned()));
                continue;
            }
            let took = shown.rsplit_once('<').map(|(_, t)| t.trim_end_matches('>'));
            let took: f64 = took.and_then(|t| t.parse().ok()).unwrap_or(0.0);
            found.push(Call {
                name: call.split('(').next().unwrap().to_owned(),
                line: shown.to_owned(),
                begun: at,
                ended: at + took,
            });
        }
        found
    }

    #[test]
    fn sync_precedes_acknowledgement() {
        let Some(strace) = maybe("strace") else {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: strace missing\n"),
            )
            .unwrap();
            return;
        };
        let mut world = World::new();
        world.stop();
        world.start_target();
        let trace = world.path("trace");
        let mut under = Command::new(strace);
        under.args(["-f", "-ttt", "-T", "-s", "65536", "-yy", "-o"]);
        under.arg(&trace);
        under.args([
            "-e",
            "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg,connect",
        ]);
        let server = world.serve(Some(under));
        let ran = world.ssh(&world.place(), "date +%s.%N").exits(0);
        end(server);
        let ran_at: f64 = ran.stdout.trim().parse().unwrap();

        let calls = calls(&std::fs::read_to_string(&trace).unwrap());
        let intents: Vec<&Call> = calls
            .iter()
            .filter(|c| c.name == "pwrite64" && c.line.contains(r#"{\"intent\":"#))
            .collect();
        assert_eq!(intents.len(), 1);
        let written = intents[0];
        let synced = calls
            .iter()
            .filter(|c| c.name == "fdatasync" && c.line.contains(".seg>"))
            .filter(|c| c.begun >= written.ended)
            .min_by(|a, b| a.begun.total_cmp(&b.begun))
            .unwrap();
        assert!(synced.line.contains("= 0"), "{}", synced.line);
        assert!(
            synced.ended < ran_at,
            "it ran before it was on stable storage"
        );

        let port = world.target_port();
        let to_target: Vec<&Call> = calls
            .iter()
            .filter(|c| matches!(c.name.as_str(), "write" | "writev" | "sendto" | "sendmsg"))
            .filter(|c| c.line.contains(&format!("->127.0.0.1:{port}]>")))
            .collect();
        let between = |from: f64, to: f64| {
            let inside = to_target.iter().filter(|c| c.ended > from && c.begun < to);
            inside.count()
        };
        assert!(between(0.0, written.begun) > 0, "no handshake is seen");
        assert_eq!(
            between(written.begun, synced.ended),
            0,
            "sent before the sync"
        );
        assert!(between(synced.ended, ran_at) > 0, "the command is not seen");
    }
}
