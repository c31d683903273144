//! File transfers by stock `sftp` and `scp`: each operation is an action, with its digests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ascribe_core::entry::{Body, Outcome, Status};
use ascribe_core::statement::OverCap;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::world::{Out, PATIENCE, Setup, World, until};

/// What was done, in order of the intents: the command and what became of it.
fn done(w: &World) -> Vec<(String, Option<Outcome>)> {
    let outcomes = w.outcomes();
    let mut all = Vec::new();
    for (index, entry) in (0u64..).zip(w.entries()) {
        let Body::Intent(intent) = entry.body else {
            continue;
        };
        if intent.within.is_none() {
            continue;
        }
        let openings = w.door.ledger.openings(index).unwrap();
        let text = String::from_utf8(openings[0].bytes.0.clone()).unwrap();
        let family = intent.kind.split('.').next().unwrap();
        let verb = text.split(' ').next().unwrap();
        assert_eq!(intent.kind, format!("{family}.{verb}"));
        let outcome = outcomes.iter().find(|o| o.action == intent.action);
        all.push((text, outcome.cloned()));
    }
    all
}

/// The same without digests: command, status, streams and their bytes.
fn told(w: &World) -> Vec<(String, Status, String)> {
    let all = done(w).into_iter();
    all.map(|(text, outcome)| {
        let outcome = outcome.unwrap_or_else(|| panic!("{text} has no outcome"));
        let streams: Vec<String> = outcome
            .streams
            .iter()
            .map(|s| format!("{} {}", s.stream, s.bytes))
            .collect();
        (text, outcome.status, streams.join(","))
    })
    .collect()
}

/// The digest of the one stream of the first action with this beginning.
fn digest(w: &World, begin: &str) -> String {
    let all = done(w);
    let (_, outcome) = all
        .iter()
        .find(|(text, _)| text.starts_with(begin))
        .unwrap();
    let streams = &outcome.as_ref().unwrap().streams;
    assert_eq!(streams.len(), 1, "{begin}");
    hex(&streams[0].sha256.0.0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stock `sha256sum` says.
fn sha256sum(file: &Path) -> String {
    let out = std::process::Command::new("sha256sum").arg(file).output();
    let out = String::from_utf8(out.unwrap().stdout).unwrap();
    out.split(' ').next().unwrap().to_owned()
}

async fn run(program: &str, args: &[String], input: Option<PathBuf>) -> Out {
    let stdin = input.map_or(std::process::Stdio::null(), |file| {
        std::fs::File::open(file).unwrap().into()
    });
    let child = Command::new(program)
        .args(args)
        .stdin(stdin)
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(PATIENCE, child).await;
    let out = out.unwrap_or_else(|_| panic!("{program} hangs")).unwrap();
    Out {
        code: out.status.code(),
        stdout: out.stdout,
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Runs stock `sftp` with a batch.
async fn sftp(w: &World, batch: &str) -> Out {
    let file = w.path("batch");
    std::fs::write(&file, batch).unwrap();
    let mut args = w.options("client");
    args.extend(["-q", "-P", &w.port.to_string(), "-b"].map(ToOwned::to_owned));
    args.extend([file.display().to_string(), w.login()]);
    run("sftp", &args, None).await
}

/// Runs stock `scp`; `remote` goes before paths on the target.
async fn scp(w: &World, extra: &[&str], from: &str, to: &str) -> Out {
    let remote = format!("scp://{}%40db1@127.0.0.1:{}/", w.account, w.port);
    let mut args = w.options("client");
    args.push("-q".to_owned());
    args.extend(extra.iter().map(|s| (*s).to_owned()));
    args.extend([from, to].map(|path| path.replace("remote:", &remote)));
    run("scp", &args, None).await
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_sftp_is_an_action_with_its_outcome() {
    let w = World::new().await;
    let d = w.path("files").display().to_string();
    std::fs::write(w.path("a"), pattern(300_000)).unwrap();
    let a = w.path("a").display().to_string();
    let batch = format!(
        "mkdir {d}\nput {a} {d}/a\nget {d}/a {a}.back\nrename {d}/a {d}/b\nchmod 600 {d}/b\n\
         ln -s {d}/b {d}/s\nln {d}/b {d}/h\nls {d}\nrm {d}/s\nrm {d}/h\nrm {d}/b\nrmdir {d}\n"
    );
    sftp(&w, &batch).await.exits(0);
    assert!(std::fs::read(w.path("a.back")).unwrap() == pattern(300_000));
    w.closed(0).await;
    let told = told(&w);
    for (text, status, _) in &told {
        assert_eq!(*status, Status::Succeeded, "{text}");
    }
    let commands: Vec<String> = told
        .iter()
        .map(|(text, _, streams)| {
            let text = text.replace(&d, "D");
            format!("{text}; {streams}")
                .trim_end_matches("; ")
                .to_owned()
        })
        .collect();
    assert_eq!(
        commands,
        [
            "mkdir \"D\" mode=0777",
            "open \"D/a\" write,create,truncate mode=0644; written 300000",
            "open \"D/a\" read; read 300000",
            "posix-rename \"D/a\" \"D/b\"",
            "setstat \"D/b\" mode=0600",
            "symlink \"D/b\" \"D/s\"",
            "hardlink \"D/b\" \"D/h\"",
            "opendir \"D/\"",
            "remove \"D/s\"",
            "remove \"D/h\"",
            "remove \"D/b\"",
            "rmdir \"D\"",
        ]
    );
    let sum = sha256sum(&w.path("a"));
    assert_eq!(digest(&w, &format!("open \"{d}/a\" write")), sum);
    assert_eq!(digest(&w, &format!("open \"{d}/a\" read")), sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_scp_record_each_file_both_ways() {
    for protocol in ["-s", "-O"] {
        let w = World::new().await;
        let tree = w.path("tree");
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        let names = ["big", "a \"b", "sub/empty", "sub/c"];
        for (name, length) in names.iter().zip([400_000, 70_000, 0, 5]) {
            std::fs::write(tree.join(name), pattern(length)).unwrap();
        }
        let tree = tree.display().to_string();
        let copy = format!("remote:{}", w.path("copy").display());
        let back = w.path("back").display().to_string();
        let extra = [protocol, "-r", "-p"];
        scp(&w, &extra, &tree, &copy).await.exits(0);
        scp(&w, &extra, &copy, &back).await.exits(0);
        for name in names {
            let [old, new] = [&tree, &back].map(|dir| std::fs::read(format!("{dir}/{name}")));
            assert!(old.unwrap() == new.unwrap(), "{name}");
        }
        w.closed(1).await;
        let all = done(&w);
        for name in &names {
            let sum = sha256sum(&w.path("tree").join(name));
            let quoted = name.replace('"', "\\\"");
            for stream in ["written", "read"] {
                // The first record of scp names what is sent, SFTP where it goes.
                let (verb, begin) = match (protocol, stream) {
                    ("-O", "written") => ("write", "tree"),
                    ("-O", _) => ("read", "copy"),
                    (_, "written") => ("write,create", "copy"),
                    (_, _) => ("\" read", "copy"),
                };
                let of = |(text, outcome): &(String, Option<Outcome>)| {
                    let named = text.contains(&format!("{begin}/{quoted}\""));
                    (named && text.contains(verb)).then(|| outcome.clone().unwrap())
                };
                let found: Vec<Outcome> = all.iter().filter_map(of).collect();
                assert_eq!(found.len(), 1, "{protocol} {stream} {name}: {all:?}");
                assert_eq!(found[0].status, Status::Succeeded);
                let sums: Vec<_> = found[0]
                    .streams
                    .iter()
                    .map(|s| (s.stream.as_str(), hex(&s.sha256.0.0)))
                    .collect();
                if *name == "sub/empty" {
                    assert_eq!(sums, []);
                } else {
                    assert_eq!(sums, [(stream, sum.clone())], "{name}");
                }
            }
        }
        let kinds: Vec<&str> = all
            .iter()
            .map(|(text, _)| text.split(' ').next().unwrap())
            .collect();
        for kind in match protocol {
            "-O" => ["mkdir", "write", "opendir", "read"],
            _ => ["mkdir", "open", "opendir", "fsetstat"],
        } {
            assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_beyond_the_cap_is_digested_and_not_stored() {
    let w = World::with(Setup {
        cap: (1000, OverCap::Digest),
        ..Setup::default()
    })
    .await;
    std::fs::write(w.path("a"), pattern(3_000_000)).unwrap();
    let [a, b] = ["a", "b"].map(|name| w.path(name).display().to_string());
    sftp(&w, &format!("put {a} {b}\n")).await.exits(0);
    scp(&w, &["-O"], &a, &format!("remote:{b}")).await.exits(0);
    w.closed(1).await;
    let sum = sha256sum(&w.path("a"));
    assert_eq!(digest(&w, &format!("open \"{b}\" write")), sum);
    assert_eq!(digest(&w, "write \"a\" size=3000000"), sum);
    // The transfers leave out what only their files digest.
    let outcomes = w.outcomes();
    let inputs = outcomes.iter().flat_map(|outcome| &outcome.streams);
    let inputs: Vec<_> = inputs.filter(|s| s.stream == "stdin").collect();
    assert_eq!(inputs.len(), 2);
    for input in inputs {
        assert_eq!(input.stored, 1000);
        assert!(input.bytes > 3_000_000, "{input:?}");
        assert!(
            (2_999_000..3_000_000).contains(&input.in_files),
            "{input:?}"
        );
    }
    let stored: u64 = w
        .outcomes()
        .iter()
        .flat_map(|outcome| &outcome.streams)
        .map(|stream| stream.stored)
        .sum();
    assert!(stored <= 4000, "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_refuses_has_failed() {
    let w = World::new().await;
    std::fs::write(w.path("a"), b"x").unwrap();
    let d = w.dir.path().display().to_string();
    let batch = format!("-get {d}/none {d}/back\n-rmdir {d}\n-put {d}/a {d}/none/a\n");
    sftp(&w, &batch).await;
    scp(
        &w,
        &["-O"],
        &format!("remote:{d}/none"),
        &format!("{d}/back"),
    )
    .await;
    scp(
        &w,
        &["-O"],
        &format!("{d}/a"),
        &format!("remote:{d}/none/a"),
    )
    .await;
    w.closed(2).await;
    let told: Vec<_> = told(&w)
        .into_iter()
        .map(|(text, status, _)| (text, status))
        .collect();
    let failed = |text: String| (text, Status::Failed);
    // What is not there is not looked at by the client's second question.
    assert_eq!(
        told,
        [
            failed(format!("rmdir \"{d}\"")),
            failed(format!(
                "open \"{d}/none/a\" write,create,truncate mode=0644"
            )),
            failed("write \"a\" size=1 mode=0644".to_owned()),
        ]
    );
}

const PARTS: fn(&Body) -> bool =
    |body| matches!(body, Body::Intent(intent) if intent.within.is_some());

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_recorded_does_not_reach_the_target() {
    let w = World::new().await;
    std::fs::write(w.path("a"), b"x").unwrap();
    let [a, b] = ["a", "b"].map(|name| w.path(name).display().to_string());
    w.door.close(PARTS);
    let (by_sftp, by_scp) = (format!("put {a} {b}\n"), format!("remote:{b}"));
    let (one, two) = tokio::join!(sftp(&w, &by_sftp), scp(&w, &["-O"], &a, &by_scp));
    for out in [one, two] {
        assert_ne!(out.code, Some(0));
        out.says("not recorded, so not run");
    }
    assert_eq!(w.door.waiting().len(), 2);
    assert!(!w.path("b").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_recorded_too_late_is_not_sent() {
    let w = World::new().await;
    std::fs::write(w.path("a"), b"x").unwrap();
    let [a, b] = ["a", "b"].map(|name| w.path(name).display().to_string());
    w.door.close(PARTS);
    let batch = format!("put {a} {b}\n");
    let late = async {
        until("intent that waits", || {
            (!w.door.waiting().is_empty()).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        w.door.open();
    };
    let (out, ()) = tokio::join!(sftp(&w, &batch), late);
    out.says("it took too long; the action was not sent");
    w.closed(0).await;
    assert!(!w.path("b").exists());
    let told = told(&w);
    assert_eq!((told.len(), told[0].1), (1, Status::NotSent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_cut_off_has_the_totals_of_what_passed() {
    for classic in [false, true] {
        let w = World::new().await;
        std::fs::write(w.path("a"), pattern(8_000_000)).unwrap();
        let [a, b] = ["a", "b"].map(|name| w.path(name).display().to_string());
        let mut args = w.options("client");
        args.extend(["-q", "-l", "8000"].map(ToOwned::to_owned));
        args.push(if classic { "-O" } else { "-s" }.to_owned());
        args.push(a);
        args.push(format!(
            "scp://{}%40db1@127.0.0.1:{}/{b}",
            w.account, w.port
        ));
        let mut client = Command::new("scp")
            .args(args)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("part of the file", || {
            let there = std::fs::metadata(w.path("b")).ok()?.len();
            (there > 0).then_some(())
        })
        .await;
        client.kill().await.unwrap();
        w.closed(0).await;
        let all = done(&w);
        let outcome = all.last().unwrap().1.clone().unwrap();
        assert_eq!(outcome.status, Status::Unknown, "{all:?}");
        let written = &outcome.streams[0];
        assert_eq!(
            (outcome.streams.len(), written.stream.as_str()),
            (1, "written")
        );
        let passed = usize::try_from(written.bytes).unwrap();
        assert!(passed > 0 && passed < 8_000_000, "{passed}");
        let expected: [u8; 32] = Sha256::digest(&pattern(8_000_000)[..passed]).into();
        assert_eq!(written.sha256.0.0, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sftp_and_no_scp_ends_the_transfer() {
    let w = World::new().await;
    let init: &[u8] = b"\0\0\0\x05\x01\0\0\0\x03";
    let early = [init, b"\0\0\0\x0a\x0d\0\0\0\x01\0\0\0\x01x"].concat();
    let scripts: [(&[&str], &str, &[u8], &str); 5] = [
        (&["-s"], "sftp", b"id\nid\nid\n", "an SFTP packet of"),
        (
            &["-s"],
            "sftp",
            b"\0\0\0\x05\xfe\0\0\0\0",
            "of the unknown type 254",
        ),
        (&["-s"], "sftp", &early, "before the version is agreed on"),
        (&["-s", "-tt"], "sftp", init, "leave out -t"),
        (&[], "scp -t /", b"id\n", "no scp record begins with"),
    ];
    for (extra, command, input, says) in scripts {
        let mut client = w.start(extra, command);
        client.send(input).await;
        let out = client.end().await.says(says);
        assert_ne!(out.code, Some(0));
    }
    // All but the one with a terminal, which was refused at the door.
    for nth in 0..4 {
        w.closed(nth).await;
    }
    assert!(done(&w).is_empty());
    let refusals: Vec<_> = w
        .refusals()
        .into_iter()
        .map(|(what, code, _)| (what, code))
        .collect();
    let files = ("files".to_owned(), "not-understood".to_owned());
    assert_eq!(
        refusals.iter().filter(|refusal| **refusal == files).count(),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_answers_what_nobody_asked_is_cut_off() {
    for (sshd, says) in [
        // A version, then a status for a request with the number 7.
        (
            "ForceCommand head -c 9 >/dev/null; printf '\\000\\000\\000\\005\\002\\000\\000\\000\\003\\000\\000\\000\\011\\145\\000\\000\\000\\007\\000\\000\\000\\000'; sleep 60",
            "answers an SFTP request that nobody made",
        ),
        (
            "ForceCommand head -c 9 >/dev/null; printf '\\177\\377\\377\\377\\147'; sleep 60",
            "an SFTP packet of 2147483647 bytes",
        ),
        (
            "ForceCommand head -c 9 >/dev/null; printf '\\000\\000\\000\\005\\002\\000\\000\\000\\006'; sleep 60",
            "the target speaks SFTP version 6, and not 3",
        ),
        (
            "ForceCommand printf '\\000\\000\\000\\005\\002\\000\\000\\000\\003'; sleep 60",
            "the target begins SFTP without being asked",
        ),
    ] {
        let w = World::with(Setup {
            sshd: sshd.to_owned(),
            ..Setup::default()
        })
        .await;
        let mut client = w.start(&["-s"], "sftp");
        if !says.contains("without being asked") {
            client.send(b"\0\0\0\x05\x01\0\0\0\x03").await;
        }
        client.end().await.says(says);
        w.closed(0).await;
        assert_eq!(w.outcomes()[0].status, Status::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_small_files_are_a_thousand_actions() {
    let w = World::new().await;
    let (from, to) = (w.path("from"), w.path("to"));
    std::fs::create_dir(&from).unwrap();
    for n in 0..1000 {
        std::fs::write(from.join(n.to_string()), n.to_string()).unwrap();
    }
    let (from, to) = (from.display().to_string(), to.display().to_string());
    sftp(&w, &format!("put -r {from} {to}\n")).await.exits(0);
    w.closed(0).await;
    let all = done(&w);
    for n in 0..1000 {
        let begin = format!("open \"{to}/{n}\" write");
        let mut same = all.iter().filter(|(text, _)| text.starts_with(&begin));
        let outcome = same.next().unwrap().1.clone().unwrap();
        assert_eq!(outcome.status, Status::Succeeded);
        let expected: [u8; 32] = Sha256::digest(n.to_string()).into();
        assert_eq!(outcome.streams[0].sha256.0.0, expected);
        assert!(same.next().is_none());
    }
}

/// OpenSSH reads 2047 bytes of a message and takes the rest for a record.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_hides_a_record_writes_no_file() {
    let w = World::new().await;
    let dir = w.path("sink");
    std::fs::create_dir(&dir).unwrap();
    let mut input = vec![1];
    input.extend_from_slice(&[b'A'; 2046]);
    input.extend_from_slice(b"C0644 10 evil\n\x01;echo pwn\n\0zz\n");
    let command = format!("scp -t {}", dir.display());
    let out = w.ssh(&[], &command, &input).await;
    assert_ne!(out.code, Some(0), "{}", out.stderr);
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        0,
        "a file was written"
    );
}
