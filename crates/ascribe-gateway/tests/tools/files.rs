//! Files and repositories: rsync, git, sftp, sshfs.

use std::fmt::Write as _;

use ascribe_core::statement::OverCap;
use tokio::process::Command;

use super::access::{Access, FORMS, have, run, sized};
use super::world::Setup;

fn bytes(length: usize) -> Vec<u8> {
    // Nothing that a delta would shorten.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_carries_a_large_file_both_ways() {
    if !have("rsync") {
        return;
    }
    let length = sized(50_000_000, 1_000_000_000);
    for form in FORMS {
        let access = Access::with(
            form,
            Setup {
                cap: (1 << 20, OverCap::Digest),
                ..Setup::default()
            },
        )
        .await;
        let [a, b, c] = ["a", "b", "c"].map(|name| access.file(name));
        std::fs::write(&a, bytes(length)).unwrap();
        let remote = format!("target:{b}");
        for (from, to) in [(&a, &remote), (&remote, &c)] {
            let mut rsync = Command::new("rsync");
            rsync.args(["--whole-file", "-e", &access.ssh_words(), from, to]);
            run(&mut rsync, b"").await.exits(0);
        }
        let same = run(Command::new("cmp").args([&a, &c]), b"").await;
        same.exits(0);
        access.complete(2).await;
        let kinds: Vec<String> = access.intents().into_iter().map(|i| i.kind).collect();
        assert_eq!(kinds, ["ssh.rsync", "ssh.rsync"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    if !have("git") {
        return;
    }
    for form in FORMS {
        let access = Access::new(form).await;
        let [bare, clone] = ["bare.git", "clone"].map(|name| access.file(name));
        let ssh = access.ssh_words();
        let git = async |words: &[&str]| {
            let mut git = Command::new("git");
            git.args(words)
                .env("GIT_SSH_COMMAND", &ssh)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_SYSTEM", "/dev/null");
            let out = run(&mut git, b"").await;
            assert_eq!(out.code, Some(0), "{words:?}: {}", out.stderr);
            out.text()
        };
        git(&["init", "-q", "--bare", "-b", "main", &bare]).await;
        let url = format!("target:{bare}");
        git(&["clone", "-q", &url, &clone]).await;
        std::fs::write(access.w.path("clone/file"), bytes(6_000_000)).unwrap();
        let within = [
            "-C",
            &clone,
            "-c",
            "user.name=Olu",
            "-c",
            "user.email=olu@example.org",
        ];
        git(&[&within[..], &["add", "file"]].concat()).await;
        git(&[&within[..], &["commit", "-q", "-m", "a file"]].concat()).await;
        git(&[&within[..], &["push", "-q", "origin", "HEAD:main"]].concat()).await;
        let again = access.file("again");
        git(&["clone", "-q", &url, &again]).await;
        assert!(std::fs::read(access.w.path("again/file")).unwrap() == bytes(6_000_000));
        access.complete(3).await;
        let commands = access.commands().into_iter().map(|(_, text)| text.unwrap());
        let wanted = ["git-upload-pack", "git-receive-pack", "git-upload-pack"];
        let wanted = wanted.map(|program| format!("{program} '{bare}'"));
        assert_eq!(commands.collect::<Vec<_>>(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_carries_many_small_files() {
    let count = sized(500, 10_000);
    for form in FORMS {
        let access = Access::new(form).await;
        let [from, to, back] = ["from", "to", "back"].map(|name| access.file(name));
        for dir in [&from, &to, &back] {
            std::fs::create_dir(dir).unwrap();
        }
        let mut batch = String::new();
        for n in 0..count {
            std::fs::write(format!("{from}/{n}"), format!("file {n}")).unwrap();
            writeln!(batch, "put {from}/{n} {to}/{n}\nget {to}/{n} {back}/{n}").unwrap();
        }
        let mut sftp = access.program("sftp");
        sftp.args(["-q", "-b", "-", "target"]);
        access.run(&mut sftp, batch.as_bytes()).await.exits(0);
        for n in 0..count {
            let file = std::fs::read_to_string(format!("{back}/{n}"));
            assert_eq!(file.unwrap(), format!("file {n}"));
        }
        access.complete(1).await;
        // Each file is opened twice, to be written and to be read.
        let opened = access.intents().into_iter();
        let opened = opened.filter(|intent| intent.kind == "sftp.open");
        assert_eq!(opened.count(), 2 * count);
    }
}
