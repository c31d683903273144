//! Calls to the file system that fail, one after the other.

use std::process::Command;

use russh::client::Config;

use super::client::{exec, log_in, run};
use super::kit::{Marks, can_trace, demo_port, inject, lift, text, under};
use super::world::{PATIENCE, World, end, wait_for};

/// A call, how it fails, and the system's words for it.
const WRITES: [(&str, &str, &str); 6] = [
    ("pwrite64", "error=EIO", "Input/output error"),
    ("pwrite64", "error=ENOSPC", "No space left"),
    ("pwrite64", "retval=512", "only 512 of"),
    ("pwrite64", "retval=0", "only 0 of"),
    ("fdatasync", "error=EIO", "Input/output error"),
    ("fdatasync", "error=ENOSPC", "No space left"),
];

/// The session's start, the intent, what follows it: each is once the first that cannot be written.
#[test]
fn a_write_or_sync_that_fails_stops_the_server_and_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    marks.runs(&world, "first");
    world.stop();
    world.start_target();
    let segment = world.data().join("segments/00000000.seg");
    let segment = segment.to_str().unwrap();
    for (call, fails, said) in WRITES {
        for nth in 1..=4 {
            let case = format!("{call}-{fails}-{nth}");
            let server = world.serve(None);
            marks.runs(&world, &format!("before-{case}"));
            let fault = format!("inject={call}:{fails}:when={nth}+");
            let tracer = inject(&world, &["-P", segment, "-e", &fault]);
            let out = marks.run(&world, &case);
            if !marks.has(&case) {
                assert_ne!(out.code, Some(0), "{case}: {out:#?}");
                // The server may fail at something of its own first: then nobody listens, or hangs
                // up before anything was asked.
                let told = ["ascribe: ", "Connection refused", "closed by"]
                    .iter()
                    .any(|words| out.stderr.contains(words));
                assert!(told, "{case}: {out:#?}");
            }
            let ended = server.wait(PATIENCE);
            assert_eq!(ended.code, Some(1), "{case}: {ended:#?}");
            for part in ["the ledger failed and the server stops", segment, said] {
                assert!(ended.stderr.contains(part), "{case}: {ended:#?}");
            }
            drop(tracer);
            marks.verify(&world);
        }
    }
    let server = world.serve(None);
    marks.runs(&world, "last");
    marks.agree_with(&world.actions(&[]));
    end(server);
    marks.verify(&world);
}

/// Which call on which file fails while the next segment is made.
const ALLOCATION: [(&str, &str, &str); 7] = [
    ("openat", "error=EIO", "00000001.tmp"),
    ("openat", "error=ENOSPC", "00000001.tmp"),
    ("write", "error=EIO", "00000001.tmp"),
    ("write", "error=ENOSPC", "00000001.tmp"),
    ("fsync", "error=EIO", "00000001.tmp"),
    ("rename", "error=EIO", "00000001.tmp"),
    ("fsync", "error=EIO", ""),
];

/// Nothing needs the next segment yet: work goes on, and it is made later.
#[test]
fn a_next_segment_that_cannot_be_made_is_tried_again_and_stops_nothing() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    let segments = world.data().join("segments");
    let next = segments.join("00000001.seg");
    // Past the middle of the first segment.
    world
        .ssh(&world.place(), "head -c 7000000 /dev/urandom")
        .exits(0);
    wait_for("next segment", PATIENCE, || next.exists().then_some(()));
    world.stop();
    world.start_target();
    for (call, fails, file) in ALLOCATION {
        // As a crash before the allocation left it.
        std::fs::remove_file(&next).unwrap();
        let case = format!("{call}-{fails}-{file}");
        let path = segments.join(file);
        let fault = format!("inject={call}:{fails}");
        let path = path.to_str().unwrap().trim_end_matches('/');
        let strace = under(&world, &["-P", path, "-e", &fault]);
        let server = world.serve(Some(strace));
        marks.runs(&world, &case);
        // Only what failed after the renaming left a segment, and it is a whole one.
        if file.is_empty() {
            wait_for("next segment", PATIENCE, || next.exists().then_some(()));
        } else {
            assert!(!next.exists(), "{case}");
        }
        end(server);
        marks.verify(&world);
        let server = world.serve(None);
        wait_for(&case, PATIENCE, || next.exists().then_some(()));
        marks.agree_with(&world.actions(&[]));
        end(server);
    }
    marks.verify(&world);
}

/// The first write to the next segment is its header: what comes after a restart goes on from there.
#[test]
fn a_next_segment_that_cannot_be_begun_stops_the_server_and_loses_nothing() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    world.start_target();
    let next = world.data().join("segments/00000001.seg");
    let path = next.to_str().unwrap();
    let large = "head -c 7000000 /dev/urandom";
    let server = world.serve(None);
    world.ssh(&world.place(), large).exits(0);
    wait_for("next segment", PATIENCE, || next.exists().then_some(()));
    end(server);
    for call in ["pwrite64", "fdatasync"] {
        let server = world.serve(None);
        marks.runs(&world, &format!("before-{call}"));
        let tracer = inject(
            &world,
            &["-P", path, "-e", &format!("inject={call}:error=EIO")],
        );
        let out = world.ssh(&world.place(), large);
        assert_ne!(out.code, Some(0), "{call}: {}", out.stderr);
        let said = out.stderr.contains("the ledger cannot record");
        assert!(said, "{call}: {}", out.stderr);
        let ended = server.wait(PATIENCE);
        assert_eq!(ended.code, Some(1), "{call}: {ended:#?}");
        for part in ["the ledger failed and the server stops", path] {
            assert!(ended.stderr.contains(part), "{call}: {ended:#?}");
        }
        drop(tracer);
        marks.verify(&world);
    }
    let server = world.serve(None);
    world.ssh(&world.place(), large).exits(0);
    marks.runs(&world, "in-the-next-segment");
    marks.agree_with(&world.actions(&[]));
    end(server);
    marks.verify(&world);
    let begun = std::fs::read(&next).unwrap();
    assert!(begun.starts_with(b"ascribe-segment-1"));
}

/// A disk that stalls for longer than anybody waits.
#[test]
fn nothing_runs_while_its_record_is_late() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    world.start_target();
    let server = world.serve(None);
    let ticks = world.path("ticks");
    // It ends when nobody listens any more.
    let talk = format!(
        "while sleep 0.2 && date && echo >>'{}'; do :; done",
        ticks.display()
    );
    let talker = world.ssh_in_background(&world.place(), &talk);
    wait_for("talking command", PATIENCE, || ticks.exists().then_some(()));
    let session = world.json(&["sessions"]).line();
    let session = text(&session, "/id").to_owned();
    let tracer = inject(
        &world,
        &[
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:delay_enter=12000000",
        ],
    );
    let out = marks.run(&world, "late").exits(254);
    assert!(out.stderr.contains("it did not answer"), "{out:#?}");
    assert!(!marks.has("late"));
    let ended = talker.wait(PATIENCE);
    assert!(ended.code != Some(0), "{ended:#?}");
    assert!(
        ended.stderr.contains("the ledger cannot record"),
        "{ended:#?}"
    );
    // It stops although the disk still stalls.
    server.signal_group(rustix::process::Signal::TERM);
    let stopped = server.wait(3 * PATIENCE);
    assert_eq!(stopped.code, Some(0), "{stopped:#?}");
    assert!(!marks.has("late"));
    drop(tracer);
    marks.verify(&world);
    let server = world.serve(None);
    assert_eq!(
        world.ended_session(&session)["reason"],
        "ledger-unavailable"
    );
    marks.runs(&world, "after");
    marks.agree_with(&world.actions(&[]));
    end(server);
    marks.verify(&world);
}

/// The same where the session is open already: the intent itself is late. It may be recorded after
/// all, and then so is that it was not sent.
#[test]
fn an_intent_that_is_recorded_too_late_is_known_as_not_sent() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    let command = marks.command("late");
    let tracer = run(async {
        let port = demo_port(&world);
        let ssh = log_in(&world, port, &world.place(), Config::default()).await;
        let ssh = ssh.unwrap();
        assert_eq!(exec(&ssh, "true").await.0, Some(0));
        let tracer = inject(
            &world,
            &[
                "-e",
                "trace=fdatasync",
                "-e",
                "inject=fdatasync:delay_enter=12000000",
            ],
        );
        let (status, said) = exec(&ssh, &command).await;
        assert_eq!(status, Some(254), "{said}");
        assert!(said.contains("it did not answer"), "{said}");
        tracer
    });
    assert!(!marks.has("late"));
    // Lifted, so that what waits is written at once.
    lift(tracer);
    world.stop();
    world.start_target();
    let server = world.serve(None);
    let late = world.actions(&["--text", "late"]);
    assert_eq!(late.len(), 1);
    assert_eq!(text(&late[0], "/what/outcome/status"), "not_sent");
    end(server);
    marks.verify(&world);
}

/// What is not needed for recording may fail: the copy of the head lags, and says nothing wrong.
#[test]
fn a_head_copy_that_cannot_be_written_stops_nothing_and_is_caught_up() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    world.stop();
    world.start_target();
    let head = world.path("data.demo/head");
    let before = std::fs::read(&head).unwrap();
    let server = world.serve(None);
    let copy = world.path("data.demo/head.tmp");
    let copy = copy.to_str().unwrap();
    let tracer = inject(
        &world,
        &["-P", copy, "-e", "inject=openat,rename:error=EIO"],
    );
    marks.runs(&world, "without-copy");
    lift(tracer);
    marks.runs(&world, "with-copy");
    end(server);
    assert_ne!(std::fs::read(&head).unwrap(), before);
    marks.verify(&world);
    end(world.serve(None));
}

/// A directory that cannot be read or locked is a refusal to start, and changes nothing.
#[test]
fn a_start_that_cannot_read_or_lock_is_refused() {
    if !can_trace() {
        return;
    }
    let mut world = World::new();
    let mut marks = Marks::new(&world);
    marks.runs(&world, "first");
    world.stop();
    let segment = world.data().join("segments/00000000.seg");
    let lock = world.data().join("lock");
    for (path, fault) in [
        (&segment, "inject=openat:error=EIO"),
        (&segment, "inject=read,pread64:error=EIO"),
        (&lock, "inject=flock:error=EIO"),
        (&lock, "inject=openat:error=EROFS"),
    ] {
        let path = path.to_str().unwrap();
        let mut strace: Command = under(&world, &["-P", path, "-e", fault]);
        strace
            .arg(super::world::binary())
            .arg("--data")
            .arg(world.data());
        strace.args(["serve", "--ssh", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        let refused = world.program(strace).exits(3);
        assert!(refused.stderr.contains(path), "{fault}: {refused:#?}");
    }
    marks.verify(&world);
    world.start_target();
    let server = world.serve(None);
    marks.runs(&world, "last");
    end(server);
    marks.verify(&world);
}
