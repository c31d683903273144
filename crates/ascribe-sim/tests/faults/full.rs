//! A disk that is really full.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::kit::{Marks, have, skipped, text};
use super::world::{PATIENCE, Running, World, binary, copy, end, wait_for};

/// A small file system of its own, in namespaces that a process of ours holds. Its content is
/// reached by way of that process.
struct Small {
    holder: Running,
    root: PathBuf,
}

impl Small {
    /// `None` where the kernel forbids it.
    fn new(world: &World, megabytes: u32) -> Option<Self> {
        let (at, pid) = (world.path("small"), world.path("small.pid"));
        std::fs::create_dir(&at).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["-U", "-r", "-m", "sh", "-c"]);
        unshare.arg(r#"mount -t tmpfs -o "size=$1m" small "$2" && echo $$ >"$3.new" && mv "$3.new" "$3" && exec sleep 600"#);
        unshare
            .arg("sh")
            .arg(megabytes.to_string())
            .arg(&at)
            .arg(&pid);
        let mut holder = Running::start(unshare, &world.path("logs"), true);
        let found = wait_for("small file system", PATIENCE, || {
            if holder.ended().is_some() {
                return Some(None);
            }
            let text = std::fs::read_to_string(&pid).ok()?;
            Some(Some(text.trim().to_owned()))
        });
        let Some(pid) = found else {
            skipped(&format!(
                "no small file system in a namespace: {}",
                holder.stderr().trim()
            ));
            return None;
        };
        let inside = at.strip_prefix("/").unwrap();
        let root = PathBuf::from(format!("/proc/{pid}/root")).join(inside);
        Some(Self { holder, root })
    }
}

/// Writes until nothing fits any more.
fn fill(file: &std::path::Path) {
    use std::io::Write as _;
    let mut filler = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        while filler.write(&vec![1; size]).is_ok() {}
    }
}

/// Kills a server, and starts it again at the same addresses.
fn crashed(world: &World, server: Running) -> Running {
    let said = server.stderr();
    let address = |what: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(what));
        line.unwrap().trim().to_owned()
    };
    let (ssh, api) = (address("ssh "), address("api "));
    server.signal_group(Signal::KILL);
    server.wait(PATIENCE);
    let mut again = Command::new(binary());
    again.arg("--data").arg(world.data());
    again.args(["serve", "--ssh", &ssh, "--api", &api]);
    let mut server = Running::start(again, &world.path("logs"), true);
    wait_for("server", PATIENCE, || {
        let said = server.stderr();
        assert!(server.ended().is_none(), "no server: {said}");
        said.contains("\napi ").then_some(())
    });
    server
}

#[test]
fn a_full_disk_refuses_new_actions_records_ends_and_goes_on_when_freed() {
    if !have("unshare") {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    marks.runs(&world, "on-the-large-disk");
    world.stop();
    world.start_target();
    // One segment and no second one, with or without the filler.
    let Some(small) = Small::new(&world, 40) else {
        return;
    };
    let moved = small.root.join("data");
    copy(&world.data(), &moved);
    std::fs::rename(world.data(), world.path("large")).unwrap();
    std::os::unix::fs::symlink(&moved, world.data()).unwrap();
    let filler = small.root.join("filler");
    let server = world.serve(None);
    marks.runs(&world, "with-space");
    let next = world.data().join("segments/00000001.seg");
    assert!(!next.exists(), "the next segment came too early");
    fill(&filler);

    // Two sessions run: one sleeps until it is told, one says so much that the disk is full.
    let go = world.path("go");
    // Bounded, so that nothing is left behind whatever happens.
    let wait = format!(
        "for n in $(seq 600); do test -e '{}' && exit 7; sleep 0.1; done",
        go.display()
    );
    let waiting = world.ssh_in_background(&world.place(), &wait);
    let session = wait_for("session", PATIENCE, || {
        let sessions = world.json(&["sessions"]).lines();
        let open = sessions.iter().find(|s| s["ended"].is_null())?;
        Some(text(open, "/id").to_owned())
    });
    let grant = text(&world.json(&["grants"]).lines()[0], "/id").to_owned();
    for size in [3_000_000, 300_000, 30_000, 3000, 1] {
        wait_for("full disk", 4 * PATIENCE, || {
            let out = world.ssh(&world.place(), &format!("head -c {size} /dev/urandom"));
            (out.code != Some(0)).then_some(())
        });
    }
    marks.is_refused(&world, "while-full", "disk full");
    assert!(!next.exists(), "there was space");
    let read = world.run(&["actions"]);
    assert_eq!(read.code, Some(1), "a read is an entry: {read:#?}");
    assert!(read.stderr.contains("disk full"), "{read:#?}");

    // What ends is still recorded: an outcome, a session's close, a revocation.
    std::fs::write(&go, "").unwrap();
    assert_eq!(waiting.wait(PATIENCE).code, Some(7));
    assert_eq!(world.ended_session(&session)["reason"], "disconnected");
    // A start needs no space, also after a crash.
    end(server);
    let server = world.serve(None);
    marks.is_refused(&world, "full-after-a-stop", "disk full");
    fill(&small.root.join("rest"));
    let server = crashed(&world, server);
    marks.is_refused(&world, "full-after-a-crash", "disk full");
    let revoke = ["revoke", &grant, "--why", "the disk is full of it"];
    let second = world.run_as("approver", &revoke);
    assert_eq!(second.code, Some(0), "{second:#?}");

    std::fs::remove_file(&filler).unwrap();
    std::fs::remove_file(small.root.join("rest")).unwrap();
    let again = wait_for("next request", PATIENCE, || {
        let asked = world.run_as(
            "operator",
            &[
                "request",
                &world.place(),
                "--for",
                "30m",
                "--why",
                "there is space again",
                "--ticket",
                "demo:OPS-43",
                "--reusable",
            ],
        );
        let found = asked.code == Some(0);
        found.then(|| text(&asked.line(), "/request_id").to_owned())
    });
    world.approve(&again);
    marks.runs(&world, "with-space-again");
    assert!(next.exists());
    let actions = world.actions(&[]);
    marks.agree_with(&actions);
    let waited = actions
        .iter()
        .find(|a| text(a, "/what/command") == wait)
        .unwrap();
    assert_eq!(waited["what"]["outcome"]["exit_code"], 7, "{waited}");
    end(server);
    marks.verify(&world);
    small.holder.signal_group(Signal::TERM);
}
