//! File transfers by stock `sftp` and `scp`: each operation is an action, with its digests.

use std::path::{Path, PathBuf};

use ascribe_core::entry::{Body, Outcome, Status};
use ascribe_core::statement::OverCap;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::world::{Out, PATIENCE, Setup, World};

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
