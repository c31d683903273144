//! Changed bundles: bytes, lines, splices, checkpoints.

use std::sync::Arc;

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::Status;
use ascribe_core::statement::Uses;
use ascribe_tlog::TrustPolicy;
use ascribe_verify::{Report, Verdict, verify_bundle};

use super::forge::{Forge, MINUTE, Who};
use super::scenes::{COMMAND, plain, small};

/// A bundle that the exhaustive flips can afford.
const SMALL: usize = 8 * 1024;

fn accepted(bundle: &Bundle, trust: &TrustPolicy) -> Report {
    let report = verify_bundle(&bundle.to_bytes().unwrap(), trust);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    report
}

/// The code of the refusal; a refusal claims nothing.
pub(super) fn refused(bytes: &[u8], trust: &TrustPolicy) -> &'static str {
    let report = verify_bundle(bytes, trust);
    assert_eq!(report.verdict, Verdict::Failed, "{report:#?}");
    assert!(report.actions.is_empty() && report.notes.is_empty());
    assert_eq!(report.problems.len(), 1);
    report.problems[0].code
}

/// Two verified reports claim the same, apart from what the first withholds.
fn agree(report: &Report, whole: &Report) -> bool {
    let mut actions = report.actions.clone();
    for (action, was) in actions.iter_mut().zip(&whole.actions) {
        let who = Arc::make_mut(&mut action.who);
        let (link, known) = (&mut who.chain[0], &was.who.chain[0]);
        link.display = link.display.take().or_else(|| known.display.clone());
        let why = &mut Arc::make_mut(&mut action.why).justification;
        *why = why.take().or_else(|| was.why.justification.clone());
        let what = &mut action.what;
        if what.content == "withheld" {
            what.content.clone_from(&was.what.content);
            what.command = what.command.take().or_else(|| was.what.command.clone());
            let bytes = what.command_b64.take();
            what.command_b64 = bytes.or_else(|| was.what.command_b64.clone());
        }
    }
    let log = |report: &Report| (report.origin.clone(), report.size, report.root);
    report.verdict == Verdict::Verified && log(report) == log(whole) && actions == whole.actions
}

fn lines(bundle: &Bundle) -> Vec<String> {
    let text = String::from_utf8(bundle.to_bytes().unwrap()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn file(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

/// Two sessions under one grant: opened contents, refused forwarding, environment, output.
fn two_sessions() -> (Forge, Bundle, Bundle) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let grant = log.granted(Uses::Reusable);
    let mut ids = Vec::new();
    for command in ["uptime", "id -un"] {
        let mut session = log.wait(MINUTE).open(&grant, "root");
        let action = log.intent(&mut session, command, Some("LANG=C\0"));
        log.evidence(&mut session, action, "up 3 days");
        log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
        log.head("gw");
        log.refusal(&mut session);
        ids.push(log.close(session));
    }
    log.revoke(&grant);
    let bundles = (log.bundle(ids[0]), log.bundle(ids[1]));
    (log, bundles.0, bundles.1)
}

/// Shares work among threads, item by item.
fn each(items: usize, check: impl Fn(usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let check = &check;
            scope.spawn(move || (first..items).step_by(threads).for_each(check));
        }
    });
}

fn small_bundle() -> (TrustPolicy, Vec<u8>) {
    let (log, session) = small();
    let mut bundle = log.bundle(session);
    bundle.openings.retain(|o| o.opening.field != "from");
    let bytes = bundle.to_bytes().unwrap();
    assert!(bytes.len() <= SMALL, "{} bytes", bytes.len());
    let trust = log.policy();
    let report = verify_bundle(&bytes, &trust);
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let action = &report.actions[0];
    assert_eq!(action.what.command.as_deref(), Some(COMMAND));
    assert_eq!(action.who.chain[0].display.as_deref(), Some("Olu Operator"));
    (trust, bytes)
}

/// Every byte, three of its bits; all of them in the long run.
#[test]
fn no_flipped_bit_of_a_small_bundle_is_accepted() {
    let (trust, bytes) = small_bundle();
    let bits: &[u8] = match std::env::var_os("ASCRIBE_LONG") {
        Some(_) => &[0, 1, 2, 3, 4, 5, 6, 7],
        None => &[0, 5, 7],
    };
    each(bytes.len(), |at| {
        let mut changed = bytes.clone();
        for bit in bits {
            changed[at] = bytes[at] ^ (1 << bit);
            let report = verify_bundle(&changed, &trust);
            assert_eq!(report.verdict, Verdict::Failed, "byte {at}, bit {bit}");
            assert!(report.actions.is_empty() && !report.problems.is_empty());
        }
    });
}

#[test]
fn no_byte_is_dropped_or_put_in() {
    let (trust, bytes) = small_bundle();
    each(bytes.len(), |at| {
        let (before, after) = bytes.split_at(at);
        refused(&[before, &after[1..]].concat(), &trust);
        refused(&[before, b"\n", after].concat(), &trust);
    });
    for tail in [&b"\n"[..], b" ", b"\0", b"{}\n", &bytes] {
        refused(&[&bytes, tail].concat(), &trust);
    }
}

/// What is cut off after a whole line of the openings is withheld. Every other end is refused.
#[test]
fn no_truncated_bundle_is_accepted_unless_it_withholds() {
    let (trust, bytes) = small_bundle();
    let text = std::str::from_utf8(&bytes).unwrap();
    let disclosed = text.find("\n{\"index\"").unwrap();
    let mut kept = 0;
    for at in 0..bytes.len() {
        if at > disclosed && bytes[at - 1] == b'\n' {
            let report = verify_bundle(&bytes[..at], &trust);
            assert_eq!(report.verdict, Verdict::Verified, "{at}");
            assert!(report.notes.iter().any(|note| note.code == "withheld"));
            kept += 1;
        } else {
            refused(&bytes[..at], &trust);
        }
    }
    assert_eq!(kept, text.matches("\n{\"index\"").count());
}

/// Only what is disclosed may be left out, and heads, which sign what is proven anyway, and what
/// the law did after the session.
#[test]
fn a_dropped_line_is_refused_or_withholds_and_nothing_more() {
    let (log, bundle, _) = two_sessions();
    let trust = log.policy();
    let whole = lines(&bundle);
    let original = accepted(&bundle, &trust);
    let mut left_out = 0;
    for at in 0..whole.len() {
        let mut lines = whole.clone();
        let gone = lines.remove(at);
        let head = gone.contains("{\\\"head\\\":");
        let last_of_law = at == 1 + bundle.entries.len();
        if last_of_law {
            // With what it committed to.
            lines.pop();
        }
        let report = verify_bundle(&file(&lines), &trust);
        if gone.starts_with("{\"index\":") {
            left_out += 1;
            assert!(agree(&report, &original), "line {at}: {gone}");
        } else if head || last_of_law {
            assert_eq!(report.actions, original.actions, "line {at}");
        } else {
            assert_eq!(report.verdict, Verdict::Failed, "line {at}: {gone}");
        }
    }
    assert_eq!(left_out, bundle.openings.len());
}

#[test]
fn a_doubled_line_is_refused() {
    let (log, bundle, _) = two_sessions();
    let whole = lines(&bundle);
    for at in 0..whole.len() {
        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        refused(&file(&twice), &log.policy());
        twice.remove(at);
        twice.push(whole[at].clone());
        refused(&file(&twice), &log.policy());
    }
}

#[test]
fn two_swapped_lines_are_refused() {
    let (log, bundle, _) = two_sessions();
    let whole = lines(&bundle);
    for a in 0..whole.len() {
        for b in a + 1..whole.len() {
            let mut swapped = whole.clone();
            swapped.swap(a, b);
            refused(&file(&swapped), &log.policy());
        }
    }
}

#[test]
fn entries_out_of_order_are_called_so() {
    let (log, bundle, _) = two_sessions();
    let mut swapped = bundle.clone();
    swapped.entries.swap(3, 4);
    let bytes = swapped.to_bytes().unwrap();
    assert_eq!(refused(&bytes, &log.policy()), "out_of_order");
    let mut swapped = bundle;
    swapped.openings.swap(0, 1);
    let bytes = swapped.to_bytes().unwrap();
    assert_eq!(refused(&bytes, &log.policy()), "out_of_order");
}

#[test]
fn a_line_of_another_bundle_changes_no_claim() {
    let (log, first, second) = two_sessions();
    let trust = log.policy();
    let original = accepted(&first, &trust);
    let (ours, theirs) = (lines(&first), lines(&second));
    let (mut refusals, mut added) = (0, 0);
    for at in 1..ours.len() {
        for foreign in &theirs {
            let mut replaced = ours.clone();
            replaced[at] = foreign.clone();
            let mut longer = ours.clone();
            longer.insert(at, foreign.clone());
            for lines in [&replaced, &longer] {
                let report = verify_bundle(&file(lines), &trust);
                if report.verdict == Verdict::Failed {
                    refusals += 1;
                } else {
                    assert!(agree(&report, &original), "line {at}: {foreign}");
                    added += usize::from(lines.len() > ours.len());
                }
            }
        }
    }
    // What both hold is refused everywhere but in its own place.
    assert!(refusals > ours.len() * theirs.len(), "{refusals}");
    assert!(added > 0, "another session's entries are true as well");
}

#[test]
fn a_head_of_one_bundle_on_the_body_of_another_is_refused() {
    let (log, first, second) = two_sessions();
    for (header, body) in [(&first, &second), (&second, &first)] {
        let mut spliced = body.clone();
        spliced.header = header.header.clone();
        let bytes = spliced.to_bytes().unwrap();
        assert_eq!(refused(&bytes, &log.policy()), "missing");
    }
}

#[test]
fn both_sessions_in_one_bundle_prove_each_its_own() {
    let (log, first, second) = two_sessions();
    let trust = log.policy();
    for (own, other) in [(&first, &second), (&second, &first)] {
        let mut union = own.clone();
        union.entries.extend(other.entries.clone());
        union.entries.sort_by_key(|entry| entry.index);
        union.entries.dedup();
        assert!(union.entries.len() > own.entries.len());
        let report = accepted(&union, &trust);
        assert_eq!(report.actions, accepted(own, &trust).actions);
    }
}

#[test]
fn a_checkpoint_of_another_size_or_another_log_is_refused() {
    let (log, bundle, _) = two_sessions();
    let trust = log.policy();
    accepted(&bundle, &trust);
    for size in 1..log.size() {
        let mut other = bundle.clone();
        other.checkpoint = log.checkpoint(size);
        let bytes = other.to_bytes().unwrap();
        assert_eq!(refused(&bytes, &trust), "altered", "size {size}");
    }
    let stranger = Forge::new(77, &[Who::Ada, Who::Olu]);
    let mut other = bundle.clone();
    other.checkpoint = stranger.checkpoint(1);
    let bytes = other.to_bytes().unwrap();
    assert_eq!(refused(&bytes, &trust), "untrusted");
    let mut unsigned = bundle;
    let text = unsigned.checkpoint.split_once("\n\n").unwrap().0.to_owned();
    unsigned.checkpoint = text + "\n";
    let bytes = unsigned.to_bytes().unwrap();
    assert_eq!(refused(&bytes, &trust), "untrusted");
}

#[test]
fn a_session_of_two_logs_with_the_same_keys_is_not_mixed() {
    let (log, bundle, _) = two_sessions();
    let (other, session) = plain();
    let trust = log.policy();
    let foreign = other.bundle(session);
    assert_eq!(foreign.entries[0].entry, bundle.entries[0].entry);
    for (at, entry) in foreign.entries.iter().enumerate() {
        let mut spliced = bundle.clone();
        let same = spliced.entries[at].entry == entry.entry;
        spliced.entries[at].entry = entry.entry.clone();
        let bytes = spliced.to_bytes().unwrap();
        let report = verify_bundle(&bytes, &trust);
        assert_eq!(report.verdict == Verdict::Verified, same, "entry {at}");
    }
}
