//! What a log says of logins that it refused: told, and never taken from anybody but its server.

use ascribe_core::directory::RefusedCount;
use ascribe_core::entry::{Body, Status};
use ascribe_core::identity::LoginRefusal;
use ascribe_core::law::Place;
use ascribe_core::statement::Uses;
use ascribe_verify::{Report, Verdict, render, verify_bundle, verify_entries};

use super::forge::{Forge, Who};
use super::logins::registered;

fn refused(log: &Forge, provider: Option<&str>, counts: &[(&str, u64)]) -> LoginRefusal {
    let count = |(code, count): &(&str, u64)| RefusedCount {
        code: (*code).to_owned(),
        count: *count,
    };
    LoginRefusal {
        from: log.now,
        provider: provider.map(str::to_owned),
        refused: counts.iter().map(count).collect(),
        until: log.now,
    }
}

/// A log with a provider, and the statement that registered it.
fn log() -> (Forge, Place) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let (keys, _) = registered(&mut log);
    let keys = usize::try_from(keys.index).unwrap();
    let provider = Place {
        hash: log.entries[keys].refs[0].hash,
        index: log.entries[keys].refs[0].index,
    };
    (log, provider)
}

fn verdict(log: &Forge) -> Report {
    let note = log.checkpoint(log.size());
    let openings = log.openings.as_slice();
    let (bytes, trust) = (&log.bytes, log.policy());
    verify_entries(
        note.as_bytes(),
        bytes,
        openings,
        &trust,
        "missing",
        &mut |_| (),
    )
}

#[test]
fn what_was_refused_is_told_of_a_whole_log_and_of_a_bundle() {
    let (mut log, provider) = log();
    let parents = [("provider", provider)];
    for counts in [
        &[("no-identity", 2), ("token-aud", 1)][..],
        &[("token-aud", 40)],
    ] {
        let refusal = refused(&log, Some("idp"), counts);
        log.record("server", &parents, Body::LoginRefusal(refusal), vec![]);
    }
    let refusal = refused(&log, None, &[("no-provider", (1 << 53) - 1)]);
    log.record("server", &[], Body::LoginRefusal(refusal.clone()), vec![]);
    log.record("server", &[], Body::LoginRefusal(refusal), vec![]);
    let granted = log.granted(Uses::Reusable);
    let mut session = log.open(&granted, "root");
    let action = log.intent(&mut session, "id -un", None);
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    let session = log.close(session);
    let bundle = log.bundle(session).to_bytes().unwrap();
    for report in [verdict(&log), verify_bundle(&bundle, &log.policy())] {
        assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
        let notes = report.notes.iter().filter(|n| n.code == "login_refused");
        let said: Vec<&str> = notes.map(|note| &*note.message).collect();
        assert_eq!(
            said,
            [
                "18014398509481982 login(s) that named no registered provider were refused: no-provider 18014398509481982",
                "43 login(s) that named provider `idp` were refused: no-identity 2, token-aud 41",
            ]
        );
        assert!(render(&report).contains("no-identity 2, token-aud 41"));
    }
}

/// What is wrong, and how.
type Forgery = (&'static str, fn(&mut LoginRefusal));

#[test]
fn a_forged_or_malformed_one_is_refused() {
    let good = |log: &Forge| refused(log, Some("idp"), &[("token-aud", 1)]);
    let forged: [Forgery; 6] = [
        ("another writer", |_| ()),
        ("no such provider", |r| r.provider = Some("other".into())),
        ("no parent", |r| r.provider = None),
        ("a count of none", |r| r.refused[0].count = 0),
        ("prose", |r| r.refused[0].code = "token aud".into()),
        ("in the future", |r| r.until = r.until.plus_millis(1)),
    ];
    for (what, forge) in forged {
        let (mut log, provider) = log();
        let mut refusal = good(&log);
        forge(&mut refusal);
        let writer = if what == "another writer" {
            "gw"
        } else {
            "server"
        };
        let parents = [("provider", provider)];
        log.record(writer, &parents, Body::LoginRefusal(refusal), vec![]);
        let report = verdict(&log);
        assert_eq!(report.verdict, Verdict::Failed, "{what}");
        assert_eq!(report.problems.len(), 1, "{what}: {report:#?}");
        assert!(
            report.notes.iter().all(|n| n.code != "login_refused"),
            "{what}"
        );
    }
    let (mut log, provider) = log();
    let refusal = good(&log);
    let parents = [("provider", provider)];
    log.record("server", &parents, Body::LoginRefusal(refusal), vec![]);
    assert_eq!(verdict(&log).verdict, Verdict::Verified);
    // A member that nobody knows.
    let last = log.bytes.len() - 1;
    let text = String::from_utf8(log.bytes[last].clone()).unwrap();
    log.bytes[last] = text
        .replace("{\"from\"", "{\"evil\":1,\"from\"")
        .into_bytes();
    assert_eq!(verdict(&log).verdict, Verdict::Failed);
}
