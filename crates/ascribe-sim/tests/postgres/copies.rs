//! Data that is copied to the target: digested, and sealed as the target's rules say.

use serde_json::Value;
use sha2::Digest as _;

use super::bank::Bank;
use super::raw::{Raw, bind, execute, kinds, message, parse, query, sync};
use super::world::{PATIENCE, wait_for};

const MIB: usize = 1 << 20;

fn bank(options: &[&str]) -> Bank {
    let bank = Bank::without_grant(options);
    bank.grant(&["--reusable"]);
    bank.cluster.sql(
        "orders",
        "create table lines (line text); alter table lines owner to dba; \
         create table numbers (number int); alter table numbers owner to dba",
    );
    bank
}

fn data(text: &str) -> Vec<u8> {
    message(b'd', text.as_bytes())
}

fn done() -> Vec<u8> {
    message(b'c', b"")
}

/// Rows of the table, and the copies on record, each with its outcome.
fn copies(bank: &Bank, count: usize) -> Vec<Value> {
    wait_for("copies", PATIENCE, || {
        let mut actions = bank.actions();
        actions.retain(|action| {
            let command = action["what"]["command"].as_str().unwrap_or_default();
            command.starts_with("copy") && !action["what"]["outcome"]["at"].is_null()
        });
        (actions.len() == count).then_some(actions)
    })
}

/// How much the bundle of this action's session holds besides, in MiB; it verifies.
fn exported(bank: &Bank, action: &Value) -> usize {
    std::fs::metadata(bank.exported(action)).unwrap().len() as usize / MIB
}

fn count(bank: &Bank, table: &str) -> String {
    let count = bank
        .cluster
        .sql("orders", &format!("select count(*) from {table}"));
    count.trim().to_owned()
}

#[test]
fn what_is_kept_of_copied_data_is_up_to_the_targets_rules() {
    let bank = bank(&["--values", "full", "--cap", "2097152"]);
    let lines: String = (0..64 * 1024).map(|n| format!("{n:063}\n")).collect();
    assert_eq!(lines.len(), 4 * MIB);
    let file = bank.world.path("lines.txt");
    std::fs::write(&file, &lines).unwrap();
    let copy = format!("\\copy lines from '{}'", file.display());
    let digest: [u8; 32] = sha2::Sha256::digest(&lines).into();
    let digest = ascribe_core::encoding::base64url(&digest);
    let mut copied = 0;
    let mut copy_again = |options: &[&str], stored: usize| {
        bank.register(options);
        bank.psql(&["-c", &copy]).exits(0);
        copied += 1;
        assert_eq!(count(&bank, "lines"), (copied * 64 * 1024).to_string());
        let all = wait_for("copies", PATIENCE, || {
            let mut actions = bank.actions();
            actions.retain(|action| {
                let command = action["what"]["command"].as_str().unwrap_or_default();
                command.starts_with("COPY") && !action["what"]["outcome"]["at"].is_null()
            });
            (actions.len() == copied).then_some(actions)
        });
        let stream = &all[copied - 1]["what"]["outcome"]["streams"][0];
        assert_eq!(stream["stream"], "copied-in");
        assert_eq!(stream["bytes"], 4 * MIB, "{stream}");
        assert_eq!(stream["stored"], stored, "{stream}");
        assert!(stream["sha256"].as_str().unwrap().contains(&digest));
        let held = exported(&bank, &all[copied - 1]);
        assert!(
            (stored / MIB..=2 * stored / MIB).contains(&held),
            "{held} MiB"
        );
    };
    copy_again(&["--values", "full", "--cap", "2097152"], 2 * MIB);
    copy_again(&["--values", "full", "--cap", "16777216"], 4 * MIB);
    copy_again(&["--values", "commitment"], 0);
    copy_again(&["--values", "none"], 0);

    // More than is kept is not let through, and then none of it is in the table.
    let refuse = [
        "--values",
        "full",
        "--cap",
        "1048576",
        "--over-cap",
        "refuse",
    ];
    bank.register(&refuse);
    let out = bank.psql(&["-c", &copy]);
    assert_ne!(out.code, Some(0), "{}", out.stderr);
    assert!(
        out.stderr.contains("no more is let through"),
        "{}",
        out.stderr
    );
    assert_eq!(count(&bank, "lines"), (copied * 64 * 1024).to_string());
}

#[test]
fn copying_that_is_interrupted_or_comes_several_times_is_kept_in_order() {
    let bank = bank(&["--values", "full"]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    // A server reads over these while it is copied to.
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    raw.say(&data("1\n"));
    raw.say(&[message(b'H', b""), message(b'S', b"")].concat());
    raw.say(&data("2\n"));
    assert_eq!(kinds(&raw.ask(&done())), "CZ");
    // Two of one text are two actions.
    raw.say(&query(
        "copy numbers from stdin; copy lines from stdin; select 1",
    ));
    raw.until(b'G');
    raw.say(&[data("3\n"), done()].concat());
    raw.until(b'G');
    assert_eq!(kinds(&raw.ask(&[data("a\nb\n"), done()].concat())), "CTDCZ");
    // What fails at the target meanwhile, and what the client gives up.
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    let wrong = raw.ask(&[data("x\n"), data("y\n"), done()].concat());
    assert_eq!(kinds(&wrong), "EZ");
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    let given_up = raw.ask(&[data("4\n"), message(b'f', b"no\0")].concat());
    assert_eq!(kinds(&given_up), "EZ");
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    assert_eq!(kinds(&raw.ask(&[data("5\n"), done()].concat())), "CZ");
    drop(raw);
    assert_eq!(count(&bank, "numbers"), "4");
    assert_eq!(count(&bank, "lines"), "2");
    let all = copies(&bank, 6);
    let stored: Vec<_> = all
        .iter()
        .map(|action| {
            let outcome = &action["what"]["outcome"];
            (
                outcome["status"].clone(),
                outcome["streams"][0]["stored"].clone(),
            )
        })
        .collect();
    let kept = |bytes: u64| (Value::from("succeeded"), Value::from(bytes));
    let failed = (Value::from("failed"), Value::Null);
    let expected = [kept(4), kept(2), kept(4), failed.clone(), failed, kept(2)];
    assert_eq!(stored, expected);
    exported(&bank, &all[0]);
}

/// A target reads a message to its end, whatever became of the copying, and would take for that end
/// whatever came instead: so it could be made to run what nobody recorded.
#[test]
fn the_rest_of_a_cut_message_goes_where_its_beginning_went() {
    let bank = bank(&["--values", "full"]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    for extended in [false, true] {
        if extended {
            raw.say(
                &[
                    parse("", "copy numbers from stdin"),
                    bind("", "", &[]),
                    execute(""),
                    sync(),
                ]
                .concat(),
            );
        } else {
            raw.say(&query("copy numbers from stdin"));
        }
        raw.until(b'G');
        // The first row fails; of a second message there is the header alone.
        let hidden = [query("create table hidden ()"), vec![b'd', 0, 0, 4, 0]].concat();
        let cut = message(
            b'd',
            &[&vec![b' '; 1024 - hidden.len()][..], &hidden].concat(),
        );
        let (head, rest) = cut.split_at(5);
        raw.say(&[&data("x\n"), head].concat());
        let failed = raw.until(b'E');
        assert!(
            failed.last().unwrap().text().contains("22P02"),
            "{failed:?}"
        );
        raw.say(rest);
        if extended {
            raw.say(&sync());
        }
        raw.until(b'Z');
        // What comes next is what the target reads next.
        let after = raw.ask(&query("select 'after'"));
        assert_eq!(kinds(&after), "TDCZ", "{after:?}");
    }
    let hidden = bank
        .cluster
        .sql("orders", "select to_regclass('hidden') is null");
    assert_eq!(hidden.trim(), "t");
    // The same where the beginning went nowhere.
    raw.say(&[&message(b'd', b"1\n")[..], &[b'd', 0, 0, 0, 8, b'2']].concat());
    raw.say(b"3\n4");
    let after = raw.ask(&query("select 'after'"));
    assert_eq!(kinds(&after), "TDCZ", "{after:?}");
    // And where the client leaves in the middle.
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    raw.say(&[&data("5\n")[..], &[b'd', 0, 0, 0, 8, b'6']].concat());
    drop(raw);
    let left = copies(&bank, 3).pop().unwrap();
    let outcome = &left["what"]["outcome"];
    assert_ne!(outcome["status"], "succeeded", "{outcome}");
    assert_eq!(count(&bank, "numbers"), "0");
    exported(&bank, &left);
}

#[test]
fn what_was_copied_before_a_client_left_is_on_record() {
    let bank = bank(&["--values", "full"]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("copy lines from stdin"));
    raw.until(b'G');
    let line = format!("{}\n", "x".repeat(999));
    let lines = line.repeat(3 * 1000);
    for row in lines.as_bytes().chunks(64 * 1000) {
        raw.say(&message(b'd', row));
    }
    // All of it is with the target.
    wait_for("rows at the target", PATIENCE, || {
        let seen = bank.cluster.sql(
            "orders",
            "select coalesce(sum(tuples_processed), 0) from pg_stat_progress_copy",
        );
        (seen.trim() == "3000").then_some(())
    });
    drop(raw);
    let left = copies(&bank, 1).pop().unwrap();
    assert_ne!(left["what"]["outcome"]["status"], "succeeded", "{left}");
    assert_eq!(count(&bank, "lines"), "0");
    // Its bundle has all three million bytes.
    let held = exported(&bank, &left);
    assert!((2..=4).contains(&held), "{held} MiB");
}

#[test]
fn a_copy_that_fails_at_the_target_leaves_the_session_and_its_record_as_they_are() {
    let bank = bank(&["--values", "full"]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    raw.say(&data("no number\n"));
    // More than any queue holds comes behind it.
    let more = data(&"1\n".repeat(16 * 1000));
    for _ in 0..256 {
        raw.say(&more);
    }
    raw.say(&done());
    raw.until(b'Z');
    let after = raw.ask(&query("select 'after'"));
    assert_eq!(kinds(&after), "TDCZ", "{after:?}");
    raw.say(&query("copy numbers from stdin"));
    raw.until(b'G');
    assert_eq!(kinds(&raw.ask(&[data("7\n"), done()].concat())), "CZ");
    drop(raw);
    let all = copies(&bank, 2);
    let stored = |at: usize| all[at]["what"]["outcome"]["streams"][0]["stored"].clone();
    assert_eq!((stored(0), stored(1)), (Value::Null, Value::from(2)));
    let after = bank.action("select 'after'");
    assert_eq!(
        after["what"]["outcome"]["streams"],
        Value::from(Vec::<Value>::new())
    );
    exported(&bank, &all[0]);
}

/// What comes slowly is sealed while it comes, in no more entries than seconds, and is there when the gateway dies.
#[test]
fn copied_data_that_trickles_is_sealed_while_it_comes() {
    const LINE: &str = "one of many lines\n";
    let mut bank = bank(&[]);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    let text = "copy lines from stdin";
    raw.say(&query(text));
    raw.until(b'G');
    let begun = std::time::Instant::now();
    let pause = std::time::Duration::from_millis(200);
    let lines = 15;
    for _ in 0..lines {
        raw.say(&data(LINE));
        std::thread::sleep(pause);
    }
    let session = wait_for("the copy", PATIENCE, || {
        let mut actions = bank.actions();
        actions.retain(|action| action["what"]["command"] == text);
        Some(actions.pop()?["session_id"].as_str()?.to_owned())
    });
    // It is still copied.
    let sealed = |bank: &Bank| -> Vec<Vec<u8>> {
        let out = bank.world.json(&["replay", &session]);
        if out.code != Some(0) {
            return Vec::new();
        }
        let bytes = |chunk: &Value| {
            assert_eq!(chunk["stream"], "copied-in");
            ascribe_core::encoding::from_base64url(chunk["bytes"].as_str().unwrap()).unwrap()
        };
        out.lines().iter().map(bytes).collect()
    };
    let all = wait_for("all that came", PATIENCE, || {
        let sealed = sealed(&bank);
        (sealed.concat().len() == lines * LINE.len()).then_some(sealed)
    });
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!(
        (2..=seconds).contains(&all.len()),
        "{} in {seconds} s",
        all.len()
    );
    bank.server().signal(rustix::process::Signal::KILL);
    bank.restart();
    assert_eq!(sealed(&bank).concat(), LINE.repeat(lines).as_bytes());
    assert_eq!(count(&bank, "lines"), "0");
    let copy = &copies(&bank, 1)[0];
    assert_eq!(copy["what"]["outcome"]["status"], "unknown", "{copy}");
}
