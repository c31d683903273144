//! Golden vectors: each file's name says how it is judged, and the first words of a refusal's name
//! are the code of what is found. `ASCRIBE_BLESS=1` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use ascribe_core::bundle::Bundle;
use ascribe_core::entry::{Grant, Status};
use ascribe_core::id::SessionId;
use ascribe_core::law::Place;
use ascribe_core::statement::Uses;
use ascribe_tlog::TrustPolicy;
use ascribe_verify::{Report, Verdict, render, verify_bundle};

use super::forge::{Forge, MINUTE, Pen, Who};
use super::scenes::{Ask, COMMAND, Granted, plain};

/// What a refusal can find.
const CODES: &[&str] = &[
    "altered",
    "malformed",
    "missing",
    "out_of_order",
    "outside_grant",
    "self_approved",
    "unlawful",
    "unsigned",
    "untrusted",
];
/// What an accepted bundle can note.
const NOTES: &[&str] = &[
    "budget_elsewhere",
    "delegated",
    "not_sent",
    "outcome_unknown",
    "rollback_not_detectable",
    "testimony",
    "time_claimed_by_log",
    "withheld",
];

pub(super) type Vector = (&'static str, Vec<u8>);

fn log() -> Forge {
    Forge::new(100, &[Who::Ada, Who::Olu])
}

fn file(bundle: &Bundle) -> Vec<u8> {
    bundle.to_bytes().unwrap()
}

/// A session under a grant, with whatever happens in it.
fn story(tell: impl FnOnce(&mut Forge, &Granted) -> SessionId) -> Vec<u8> {
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let session = tell(&mut log, &grant);
    file(&log.bundle(session))
}

/// One command that ends so.
fn ending(status: Status, exit_code: Option<u32>) -> Vec<u8> {
    story(|log, grant| {
        let mut session = log.open(grant, "root");
        let action = log.intent(&mut session, COMMAND, None);
        log.outcome(&mut session, action, status, exit_code, None);
        log.close(session)
    })
}

fn session(log: &mut Forge, grant: &Granted) -> SessionId {
    let mut session = log.open(grant, "root");
    log.run(&mut session);
    log.close(session)
}

fn accepted() -> Vec<Vector> {
    let (log_of_plain, id) = plain();
    let whole = log_of_plain.bundle(id);
    let mut sealed = whole.clone();
    sealed.openings.clear();
    let mut anonymous = whole.clone();
    anonymous.openings.retain(|o| o.opening.field != "name");
    let rolled_back = {
        let mut log = log();
        let grant = log.granted(Uses::Single);
        let id = session(&mut log, &grant);
        let before = log.size();
        log.revoke(&grant);
        file(&log.bundle_at(before, id))
    };
    let break_glass = {
        let mut log = log();
        let target = log.target();
        let grant = log.emergency(target);
        let id = session(&mut log, &grant);
        file(&log.bundle(id))
    };
    let extended = {
        let mut log = log();
        let grant = log.granted(Uses::Single);
        let mut running = log.open(&grant, "root");
        log.extend(&grant, Who::Ada);
        log.wait(80 * MINUTE).run(&mut running);
        let id = log.close(running);
        file(&log.bundle(id))
    };
    let output = {
        let mut log = log();
        let grant = log.granted(Uses::Single);
        let mut running = log.open(&grant, "root");
        let action = log.intent(&mut running, COMMAND, None);
        log.evidence(&mut running, action, "restarted\n");
        log.outcome(&mut running, action, Status::Succeeded, Some(0), None);
        let id = log.close(running);
        let mut bundle = log.bundle(id);
        bundle.openings.retain(|o| o.opening.field != "stdout/0");
        file(&bundle)
    };
    vec![
        ("accept-approved-command", file(&whole)),
        ("accept-note-withheld-output", output),
        ("accept-break-glass", break_glass),
        ("accept-action-in-the-extension-of-its-grant", extended),
        ("accept-names-withheld", file(&anonymous)),
        ("accept-note-testimony", ending(Status::Succeeded, Some(0))),
        ("accept-note-not-sent", ending(Status::NotSent, None)),
        ("accept-note-outcome-unknown", ending(Status::Unknown, None)),
        (
            "accept-note-outcome-unknown-without-outcome",
            story(|log, grant| {
                let mut session = log.open(grant, "root");
                log.intent(&mut session, COMMAND, None);
                log.close(session)
            }),
        ),
        ("accept-note-withheld", file(&sealed)),
        ("accept-note-rollback-not-detectable", rolled_back),
        (
            "accept-every-kind-of-a-session",
            story(|log, grant| {
                let mut session = log.open(grant, "root");
                let action = log.intent(&mut session, COMMAND, Some("LANG=C\0"));
                log.evidence(&mut session, action, "restarted\n");
                log.outcome(&mut session, action, Status::Failed, Some(3), None);
                log.head("gw");
                log.refusal(&mut session);
                log.close(session)
            }),
        ),
    ]
}

/// What whoever holds the file can do to it.
fn changed_files() -> Vec<Vector> {
    let (log, id) = plain();
    let whole = log.bundle(id);
    let at = |kind: &str| {
        let tag = format!("\"body\":{{\"{kind}\":");
        let found = whole.entries.iter().position(|e| e.entry.contains(&tag));
        found.unwrap()
    };
    let with = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = whole.clone();
        change(&mut bundle);
        assert_ne!(bundle, whole);
        file(&bundle)
    };
    let without = |kind: &str| {
        with(&|bundle| {
            let gone = bundle.entries.remove(at(kind));
            bundle.openings.retain(|o| o.index != gone.index);
        })
    };
    let text = |from: &str, to: &str| {
        let text = String::from_utf8(file(&whole)).unwrap();
        text.replace(from, to).into_bytes()
    };
    vec![
        (
            "refuse-altered-exit-code",
            with(&|b| {
                let entry = &mut b.entries[at("outcome")].entry;
                *entry = entry.replace("\"exit_code\":0", "\"exit_code\":1");
            }),
        ),
        (
            "refuse-altered-actor",
            with(&|b| {
                let entry = &mut b.entries[at("session.open")].entry;
                *entry = entry.replace(&Who::Olu.id().to_string(), &Who::Ada.id().to_string());
            }),
        ),
        (
            "refuse-altered-proof",
            with(&|b| b.entries[3].proof.swap(0, 1)),
        ),
        (
            "refuse-altered-command",
            with(&|b| b.openings.last_mut().unwrap().opening.bytes.0[0] ^= 1),
        ),
        (
            "refuse-altered-checkpoint-of-another-size",
            with(&|b| b.checkpoint = log.checkpoint(log.size() - 1)),
        ),
        ("refuse-missing-intent-and-outcome", {
            with(&|b| {
                b.entries.remove(at("outcome"));
                let intent = b.entries.remove(at("intent"));
                b.openings.retain(|o| o.index != intent.index);
            })
        }),
        ("refuse-missing-outcome", without("outcome")),
        ("refuse-missing-end-of-session", without("session.close")),
        ("refuse-missing-grant", without("grant")),
        ("refuse-missing-session", without("session.open")),
        (
            "refuse-out-of-order-entries",
            with(&|b| b.entries.swap(1, 2)),
        ),
        (
            "refuse-out-of-order-repeated-opening",
            with(&|b| b.openings.extend(b.openings.last().cloned())),
        ),
        ("refuse-untrusted-without-first-entry", without("genesis")),
        (
            "refuse-untrusted-unsigned-checkpoint",
            with(&|b| {
                let text = b.checkpoint.split_once("\n\n").unwrap().0.to_owned();
                b.checkpoint = text + "\n";
            }),
        ),
        ("refuse-malformed-other-line-ends", text("\n", "\r\n")),
        (
            "refuse-malformed-newer-version",
            text("{\"bundle\":1,", "{\"bundle\":2,"),
        ),
        (
            "refuse-malformed-another-spelling",
            text("{\"bundle\":1,", "{\"bundle\": 1,"),
        ),
    ]
}

/// What whoever holds every key of the server can do, short of people's keys.
fn lying_logs() -> Vec<Vector> {
    let after = |ms: i64| {
        story(|log, grant| {
            let mut session = log.open(grant, "root");
            log.wait(ms).run(&mut session);
            log.close(session)
        })
    };
    let mut another_history = Forge::new(100, &[Who::Olu]);
    let target = another_history.target();
    let grant = another_history.emergency(target);
    let another_history_id = session(&mut another_history, &grant);
    let mut own_keys = Forge::new(77, &[Who::Ada, Who::Olu]);
    let grant = own_keys.granted(Uses::Single);
    let own_keys_id = session(&mut own_keys, &grant);
    vec![
        (
            "refuse-untrusted-its-own-keys-only",
            file(&own_keys.bundle(own_keys_id)),
        ),
        (
            "refuse-untrusted-another-first-entry",
            file(&another_history.bundle(another_history_id)),
        ),
        ("refuse-outside-grant-after-its-end", after(60 * MINUTE)),
        (
            "refuse-outside-grant-before-it-begins",
            approved(|log, target| {
                let begin = log.now.plus_millis(10 * MINUTE);
                log.request_with(target, |request| request.not_before = begin)
            }),
        ),
        (
            "refuse-outside-grant-after-revocation",
            story(|log, grant| {
                let mut session = log.open(grant, "root");
                log.revoke(grant);
                log.run(&mut session);
                log.close(session)
            }),
        ),
        (
            "refuse-outside-grant-other-account",
            story(|log, grant| {
                let mut session = log.open(grant, "app");
                log.run(&mut session);
                log.close(session)
            }),
        ),
        (
            "refuse-outside-grant-second-session-of-single-use",
            story(|log, grant| {
                session(log, grant);
                session(log, grant)
            }),
        ),
        (
            "refuse-outside-grant-after-the-session-closed",
            story(|log, grant| {
                let mut session = log.open(grant, "root");
                log.close(session);
                log.run(&mut session);
                session.id
            }),
        ),
        (
            "refuse-out-of-order-time-goes-back",
            story(|log, grant| {
                let mut session = log.open(grant, "root");
                log.wait(-2 * MINUTE).run(&mut session);
                log.close(session)
            }),
        ),
        (
            "refuse-altered-justification-is-shorter-than-stated",
            approved(|log, target| {
                log.request_with(target, |request| request.justification.chars += 40)
            }),
        ),
    ]
}

/// A session under whatever was asked for, which Ada approves.
fn approved(ask: impl FnOnce(&mut Forge, Place) -> (Ask, Grant)) -> Vec<u8> {
    let mut log = log();
    let target = log.target();
    let (ask, body) = ask(&mut log, target);
    let yes = log.approve(Who::Ada, ask);
    let grant = log.grant(ask, &[yes], body);
    let id = session(&mut log, &grant);
    file(&log.bundle(id))
}

/// Approvals that are none.
fn false_approvals() -> Vec<Vector> {
    let by = |pen: Pen| {
        let mut log = log();
        let target = log.target();
        let (ask, body) = log.request(target, Uses::Single);
        let yes = log.approve(pen, ask);
        let grant = log.grant(ask, &[yes], body);
        let id = session(&mut log, &grant);
        file(&log.bundle(id))
    };
    let granted = |approve: bool, longer: i64| {
        let mut log = log();
        let target = log.target();
        let (ask, mut body) = log.request(target, Uses::Single);
        let yes = approve.then(|| log.approve(Who::Ada, ask));
        body.not_after = body.not_after.plus_millis(longer);
        let grant = log.grant(ask, yes.as_slice(), body);
        let id = session(&mut log, &grant);
        file(&log.bundle(id))
    };
    let self_extended = {
        let mut log = log();
        let grant = log.granted(Uses::Single);
        let mut running = log.open(&grant, "root");
        log.extend(&grant, Who::Olu);
        log.wait(80 * MINUTE).run(&mut running);
        let id = log.close(running);
        file(&log.bundle(id))
    };
    let (ada, olu) = (Pen::from(Who::Ada), Pen::from(Who::Olu));
    vec![
        ("refuse-self-approved-request", by(olu)),
        (
            "refuse-self-approved-request-with-a-second-key",
            by(Pen { key: 1, ..olu }),
        ),
        ("refuse-self-approved-extension", self_extended),
        (
            "refuse-unsigned-approval-with-the-requesters-key",
            by(Pen {
                signer: Who::Olu,
                ..ada
            }),
        ),
        (
            "refuse-unsigned-approval-signed-as-another-type",
            by(Pen {
                other_type: true,
                ..ada
            }),
        ),
        (
            "refuse-unsigned-approval-with-a-key-nobody-enrolled",
            by(Pen {
                signer: Who::Pat,
                ..ada
            }),
        ),
        ("refuse-unlawful-grant-without-approval", granted(false, 0)),
        (
            "refuse-unlawful-grant-longer-than-approved",
            granted(true, MINUTE),
        ),
    ]
}

fn vectors() -> Vec<Vector> {
    let agents = super::agents::vectors();
    [
        accepted(),
        changed_files(),
        lying_logs(),
        false_approvals(),
        agents,
    ]
    .concat()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// Compares with a golden file, or writes it.
pub(super) fn golden(name: &str, found: &[u8]) {
    let path = path(name);
    if std::env::var_os("ASCRIBE_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read(&path).unwrap();
    assert!(
        expected == found,
        "{name} differs; if it should, run with ASCRIBE_BLESS=1:\n{}",
        String::from_utf8_lossy(found)
    );
}

fn stored(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn trust() -> TrustPolicy {
    let text = String::from_utf8(stored("trust.policy")).unwrap();
    TrustPolicy::parse(&text).unwrap()
}

fn names() -> BTreeSet<String> {
    let dir = std::fs::read_dir(path("")).unwrap();
    dir.map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".bundle").map(str::to_owned))
        .collect()
}

fn judged() -> Vec<(String, Report)> {
    let trust = trust();
    let judge = |name: String| {
        let report = verify_bundle(&stored(&format!("{name}.bundle")), &trust);
        (name, report)
    };
    names().into_iter().map(judge).collect()
}

#[test]
fn the_vectors_are_what_their_stories_give() {
    golden("trust.policy", log().policy().to_text().as_bytes());
    for (name, bytes) in vectors() {
        golden(&format!("{name}.bundle"), &bytes);
    }
    let told: Vec<&str> = vectors().iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<String> = told.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(known.len(), told.len(), "a name is given twice");
    assert_eq!(names(), known, "a vector without a story, or the reverse");
}

#[test]
fn each_vector_is_judged_as_its_name_says() {
    for (name, report) in judged() {
        let spelled = name.replace('-', "_");
        if let Some(claim) = spelled.strip_prefix("refuse_") {
            let code = CODES.iter().find(|code| claim.starts_with(**code)).unwrap();
            assert_eq!(report.verdict, Verdict::Failed, "{name}");
            assert_eq!(report.problems[0].code, *code, "{name}: {report:#?}");
            assert!(report.actions.is_empty(), "{name}");
            let named = report.problems[0].action.is_some();
            let of_an_action = claim.starts_with("outside_grant_after");
            assert!(named || !of_an_action, "{name}: no action is named");
        } else {
            assert!(spelled.starts_with("accept_"), "{name}");
            assert_eq!(report.verdict, Verdict::Verified, "{name}: {report:#?}");
            assert_eq!(report.actions.len(), 1, "{name}");
            let Some(claim) = spelled.strip_prefix("accept_note_") else {
                continue;
            };
            let code = NOTES.iter().find(|code| claim.starts_with(**code)).unwrap();
            let noted = report.notes.iter().any(|note| note.code == *code);
            assert!(noted, "{name}: {report:#?}");
        }
    }
}

#[test]
fn every_code_and_every_note_of_a_bundle_has_a_vector() {
    let mut problems = BTreeSet::new();
    let mut notes = BTreeSet::new();
    for (_, report) in judged() {
        problems.extend(report.problems.iter().map(|problem| problem.code));
        notes.extend(report.notes.iter().map(|note| note.code));
    }
    assert_eq!(problems, CODES.iter().copied().collect());
    assert_eq!(notes, NOTES.iter().copied().collect());
}

/// What people read, action and promise included.
#[test]
fn the_verdicts_read_as_they_are_written_down() {
    let mut text = String::new();
    for (name, report) in judged() {
        writeln!(text, "{name}\n{}", render(&report)).unwrap();
    }
    golden("verdicts.txt", text.as_bytes());
}
