//! Grants with several windows.

use super::*;
use crate::statement::{Recurrence, Window};

/// Begins and ends after the world's first moment, in minutes.
fn recurrence(minutes: &[(i64, i64)]) -> Recurrence {
    let at = |minute: i64| time(T0 + minute * MIN);
    let windows = minutes.iter().map(|(from, until)| Window {
        from: at(*from),
        until: at(*until),
    });
    Recurrence {
        rule: "Tue,Thu 08:00-18:00".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        tzdata: "2026a".to_owned(),
        windows: windows.collect(),
    }
}

fn ask_for(request: &mut Request, recurrence: Recurrence) {
    if let (Some(first), Some(last)) = (recurrence.windows.first(), recurrence.windows.last()) {
        (request.not_before, request.not_after) = (first.from, last.until);
    }
    request.recurrence = Some(recurrence);
}

/// Two windows: minutes 10 to 60, and 100 to 160.
fn two(w: &mut World) -> GrantId {
    w.grant(|r| ask_for(r, recurrence(&[(10, 60), (100, 160)])))
}

#[test]
fn a_session_lives_in_one_window_to_the_millisecond() {
    let mut w = World::plain();
    let grant = two(&mut w);
    let at = |minute: i64| time(T0 + minute * MIN);
    w.now = at(10).plus_millis(-1);
    assert_eq!(no(w.open(grant)), "not-yet");
    assert_eq!(no(w.admit(None)), "not-yet");
    w.now = at(10);
    let first = w.open(grant).unwrap();
    assert_eq!(w.standing(first), Standing::Until(at(60)));
    w.now = at(60).plus_millis(-1);
    assert_eq!(w.admit(None), Ok(grant));
    let last = w.intent(first).unwrap();
    w.now = at(60);
    assert_eq!(w.standing(first), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(first)), "expired");
    assert_eq!(no(w.open(grant)), "not-yet");
    w.outcome(last).unwrap();
    w.now = at(100).plus_millis(-1);
    assert_eq!(no(w.open(grant)), "not-yet");
    // The next window lets in a new session; the old one stays at its end.
    w.now = at(100);
    assert_eq!(w.standing(first), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(first)), "expired");
    w.close(first).unwrap();
    let second = w.open(grant).unwrap();
    assert_eq!(w.standing(second), Standing::Until(at(160)));
    w.intent(second).unwrap();
    w.now = at(160);
    assert_eq!(no(w.intent(second)), "expired");
    assert_eq!(no(w.open(grant)), "expired");
    assert_eq!(no(w.admit(None)), "expired");
}

#[test]
fn windows_that_touch_still_end_the_session() {
    let mut w = World::plain();
    let grant = w.grant(|r| ask_for(r, recurrence(&[(0, 60), (60, 120)])));
    let session = w.open(grant).unwrap();
    w.after(HOUR);
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    let next = w.open(grant).unwrap();
    w.intent(next).unwrap();
}

#[test]
fn a_refusal_names_the_next_window_and_an_admission_the_end_of_the_present_one() {
    let mut w = World::plain();
    let grant = two(&mut w);
    let (from, until) = (time(T0 + 100 * MIN), time(T0 + 160 * MIN));
    let next = format!("from {from} until {until}");
    w.after(10 * MIN);
    let session = w.open(grant).unwrap();
    let Admission::Grant(view) = w.state.admit(w.now, &wanted(REQ)) else {
        panic!("no way in");
    };
    assert_eq!(view.not_before, time(T0 + 10 * MIN));
    assert_eq!(view.not_after, time(T0 + 60 * MIN));
    w.after(HOUR);
    for denied in [
        w.admit(None).unwrap_err(),
        w.open(grant).unwrap_err(),
        w.intent(session).unwrap_err(),
    ] {
        assert!(denied.message.contains(&next), "{denied}");
    }
    w.revoke(PAT, grant).unwrap();
    assert_eq!(no(w.admit(None)), "revoked");
    assert_eq!(no(w.open(grant)), "revoked");
    assert_eq!(no(w.intent(session)), "revoked");
}

#[test]
fn windows_are_checked_when_asked_for() {
    let many = |n: i64| -> Vec<(i64, i64)> { (0..n).map(|i| (2 * i, 2 * i + 1)).collect() };
    let day = 24 * 60;
    for (minutes, good) in [
        (vec![(10, 60), (100, 160)], true),
        (vec![(-60, 60), (100, 160)], true),
        (vec![(-60, -30), (100, 160)], true),
        (vec![(0, 240), (240, 480)], true),
        (many(128), true),
        (vec![(0, 1), (90 * day - 1, 90 * day)], true),
        (many(129), false),
        (vec![], false),
        (vec![(0, 241)], false),
        (vec![(100, 160), (10, 60)], false),
        (vec![(10, 60), (59, 90)], false),
        (vec![(10, 60), (100, 100)], false),
        (vec![(10, 60), (100, 90)], false),
        (vec![(-60, -30), (-20, 0)], false),
        (vec![(0, 1), (90 * day, 90 * day + 1)], false),
    ] {
        let mut w = World::plain();
        let asked = w.request(REQ, |r| ask_for(r, recurrence(&minutes)));
        match asked {
            Ok(_) => assert!(good, "{minutes:?}"),
            Err(denied) => assert!(!good && denied.code == "window", "{minutes:?} {denied}"),
        }
    }
}

#[test]
fn a_request_agrees_with_its_windows() {
    let edits: [fn(&mut Request); 7] = [
        |r| r.uses = Uses::Single,
        |r| r.not_before = r.not_before.plus_millis(-1),
        |r| r.not_after = r.not_after.plus_millis(1),
        |r| r.recurrence.as_mut().unwrap().rule = String::new(),
        |r| r.recurrence.as_mut().unwrap().zone = "Europe/\u{202e}Berlin".to_owned(),
        |r| r.recurrence.as_mut().unwrap().tzdata = "x".repeat(257),
        |r| r.recurrence.as_mut().unwrap().windows[0].until = r.not_after,
    ];
    let mut w = World::plain();
    for edit in edits {
        let asked = w.request(REQ, |r| {
            ask_for(r, recurrence(&[(10, 60), (100, 160)]));
            edit(r);
        });
        assert_eq!(no(asked), "window");
    }
}

#[test]
fn a_grant_with_windows_is_not_extended() {
    let mut w = World::plain();
    let grant = two(&mut w);
    let denied = w.extend(REQ, grant, time(T0 + 200 * MIN)).unwrap_err();
    assert_eq!(denied.code, "windows");
    assert!(denied.help.is_some_and(|help| help.contains("--windows")));
}

#[test]
fn a_grant_with_other_windows_than_its_request_is_refused() {
    let mut w = World::plain();
    two(&mut w);
    let (last, before) = w.log.split_last().unwrap();
    let edits: [fn(&mut Grant); 4] = [
        |g| g.windows.clear(),
        |g| g.windows.truncate(1),
        |g| g.windows[0].until = g.windows[0].until.plus_millis(1),
        |g| g.windows[1].from = g.windows[0].until,
    ];
    for edit in edits {
        let mut replay = State::new(ORIGIN);
        for bytes in before {
            replay.apply(&Fake, bytes).unwrap();
        }
        let mut entry = Entry::from_bytes(last).unwrap();
        let Body::Grant(grant) = &mut entry.body else {
            panic!("{entry:?}");
        };
        edit(grant);
        let forged = entry.to_bytes().unwrap();
        assert_eq!(no(replay.apply(&Fake, &forged)), "grant");
        replay.apply(&Fake, last).unwrap();
    }
}
