//! Observers of providers' keys: whose word counts, for what, and for how long.

use super::*;
use crate::identity::{KeysSeen, Observers, keys_digest};

const WATCHERS: [u8; 3] = [PAT, QUI, AUD];

/// Two of three must have seen a key of `idp`, within an hour.
fn watched() -> Provider {
    Provider {
        max_keys_age_seconds: Some(3_600),
        observers: Some(Observers {
            needed: 2,
            people: WATCHERS.map(person).to_vec(),
        }),
        ..provider("idp", ProviderKind::Oidc)
    }
}

impl World {
    fn watched() -> Self {
        let mut w = Self::with_providers();
        w.say(ADA, Say::ProviderSet(watched()), vec![]).unwrap();
        w
    }
    fn sighting(&self, keys: &[u8]) -> KeysSeen {
        let body: Vec<String> = keys.iter().map(|n| thumbprint(*n).to_string()).collect();
        KeysSeen {
            digest: keys_digest(body.join("\n").as_bytes()),
            fetched: self.now,
            issuer: "https://idp.example".to_owned(),
            keys: keys.iter().map(|n| thumbprint(*n)).collect(),
            provider: "idp".to_owned(),
            uri: "https://idp.example/keys".to_owned(),
        }
    }
    fn look(&mut self, by: u8, keys: &[u8]) -> Result<AskRef, Denied> {
        let seen = self.sighting(keys);
        self.say(by, Say::KeysSeen(seen), vec![])
    }
    /// Does a login by that key count now? One that does is ended again.
    fn lets_in(&mut self, key: u8) -> Result<(), Denied> {
        self.after(1).lets_in_now(key)
    }
    fn lets_in_now(&mut self, key: u8) -> Result<(), Denied> {
        let (login, _) = self.log_in(REQ, |l| l.claims.key = thumbprint(key))?;
        self.say(REQ, Say::Logout(Logout { login }), vec![])
            .unwrap();
        Ok(())
    }
}

#[test]
fn a_login_waits_until_enough_observers_saw_its_key() {
    let mut w = World::watched();
    // Only the server says that it is the provider's.
    let refused = w.lets_in(1).unwrap_err();
    assert_eq!(refused.code, "key-unseen");
    assert!(refused.message.starts_with("0 of the 2"), "{refused}");
    assert!(refused.help.unwrap().contains("provider observe idp"));
    // The same observer counts once, however often.
    w.look(PAT, &[1, 2]).unwrap();
    w.after(1).look(PAT, &[1, 2]).unwrap();
    let refused = w.lets_in(1).unwrap_err();
    assert!(refused.message.starts_with("1 of the 2"), "{refused}");
    assert!(refused.message.contains("has not looked"), "{refused}");
    w.look(QUI, &[1]).unwrap();
    w.lets_in(1).unwrap();
    assert_eq!(no(w.lets_in(2)), "key-unseen");
    // Another provider names nobody, and its logins are as they were.
    w.log_in(BOT, |_| ()).unwrap();
    // What the client says it saw is its own word, and no observer's.
    let done = w.log_in(REQ, |l| {
        (l.claims.key, l.saw) = (thumbprint(2), Some(thumbprint(2)));
    });
    assert_eq!(no(done), "key-unseen");
}

#[test]
fn an_observers_word_is_exact_fresh_and_their_own() {
    let mut w = World::watched();
    w.say(
        ADA,
        Say::ProviderSet(provider("other", ProviderKind::Oidc)),
        vec![],
    )
    .unwrap();
    let edits: [Edit<KeysSeen>; 13] = [
        (|s| s.provider = "none".into(), "no-provider"),
        // Another provider's keys, or this one's from elsewhere.
        (|s| s.provider = "other".into(), "role"),
        (|s| s.issuer = "https://other.example".into(), "keys-seen"),
        (|s| s.uri = "https://other.example/keys".into(), "keys-seen"),
        (|s| s.uri.push('/'), "keys-seen"),
        // The edges of the clock.
        (
            |s| s.fetched = s.fetched.plus_millis(SIGNER_SKEW_MS + 1),
            "keys-seen",
        ),
        (
            |s| s.fetched = s.fetched.plus_millis(-SIGNER_SKEW_MS - 1),
            "keys-seen",
        ),
        (|s| s.keys = vec![thumbprint(2), thumbprint(1)], "keys-seen"),
        (|s| s.keys = vec![thumbprint(1); 2], "keys-seen"),
        (|s| s.keys = (0..65).map(thumbprint).collect(), "keys-seen"),
        // These bytes are on record: a lie about what is in them shows.
        (|s| s.keys = vec![thumbprint(1)], "keys-seen"),
        (|s| s.keys = Vec::new(), "keys-seen"),
        (|s| s.keys.push(thumbprint(9)), "keys-seen"),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut seen = w.sighting(&[1, 2]);
        edit(&mut seen);
        assert_eq!(no(w.say(PAT, Say::KeysSeen(seen), vec![])), code, "{nth}");
    }
    // Whoever is not named, a workload, and a session key that the provider's own key introduced.
    assert_eq!(no(w.look(REQ, &[1, 2])), "role");
    assert_eq!(no(w.look(ADA, &[1, 2])), "role");
    let mut plain = watched();
    plain.observers = None;
    w.say(ADA, Say::ProviderSet(plain), vec![]).unwrap();
    assert_eq!(no(w.look(PAT, &[1, 2])), "role");
    let (_, session_key) = w.log_in(PAT, |_| ()).unwrap();
    let (_, job) = w.log_in(BOT, |_| ()).unwrap();
    w.say(ADA, Say::ProviderSet(watched()), vec![]).unwrap();
    let seen = w.sighting(&[1, 2]);
    let by_login = w.say_as(PAT, &session_key, Say::KeysSeen(seen.clone()), vec![]);
    assert_eq!(no(by_login), "key");
    let by_job = w.say_as(BOT, &job, Say::KeysSeen(seen.clone()), vec![]);
    assert_eq!(no(by_job), "workload");
    // Somebody else's signature under an observer's name.
    let statement = w.statement(PAT, Say::KeysSeen(seen.clone()));
    let forged = sign(&key(QUI, 0), &statement);
    assert_eq!(no(w.submit(forged, vec![])), "key");
    // Both edges are good, and a fork is theirs to report: other bytes may hold anything.
    let mut early = w.sighting(&[7]);
    early.fetched = early.fetched.plus_millis(-SIGNER_SKEW_MS);
    w.say(PAT, Say::KeysSeen(early), vec![]).unwrap();
    let mut late = w.sighting(&[1, 2]);
    late.fetched = late.fetched.plus_millis(SIGNER_SKEW_MS);
    w.say(PAT, Say::KeysSeen(late), vec![]).unwrap();
}

#[test]
fn an_old_word_is_not_taken_again_and_the_newest_counts() {
    let mut w = World::watched();
    w.look(QUI, &[1, 2]).unwrap();
    let old = w.sighting(&[1, 2]);
    let statement = w.statement(PAT, Say::KeysSeen(old.clone()));
    let signed = sign(&key(PAT, 0), &statement);
    w.submit(signed.clone(), vec![]).unwrap();
    w.lets_in(1).unwrap();
    // The provider withdraws key 1, and one observer says so. The operator keeps it, and shows what was
    // said before.
    w.look(PAT, &[2]).unwrap();
    assert_eq!(no(w.submit(signed, vec![])), "replay");
    let mut again = old;
    assert_eq!(
        no(w.say(PAT, Say::KeysSeen(again.clone()), vec![])),
        "stale"
    );
    again.fetched = w.state.providers["idp"].seen[&person(PAT)].fetched;
    assert_eq!(no(w.say(PAT, Say::KeysSeen(again), vec![])), "stale");
    let refused = w.lets_in(1).unwrap_err();
    assert_eq!(refused.code, "key-unseen");
    assert!(refused.message.contains("saw other keys at"), "{refused}");
    w.lets_in(2).unwrap();
    // What was held back for longer than five minutes is too old for anybody.
    let statement = w.statement(AUD, Say::KeysSeen(w.sighting(&[1, 2])));
    let signed = sign(&key(AUD, 0), &statement);
    w.after(SIGNER_SKEW_MS + 1);
    assert_eq!(no(w.submit(signed, vec![])), "clock");
}

#[test]
fn a_word_counts_until_it_is_as_old_as_keys_may_be() {
    let mut w = World::watched();
    w.look(PAT, &[1, 2]).unwrap();
    w.after(10 * MIN).look(QUI, &[1, 2]).unwrap();
    w.after(50 * MIN - 2);
    w.publish("idp", &[1, 2]).unwrap();
    w.lets_in(1).unwrap();
    let refused = w.lets_in(1).unwrap_err();
    assert_eq!(refused.code, "key-unseen");
    assert!(refused.message.contains("too long ago"), "{refused}");
    w.look(AUD, &[1, 2]).unwrap();
    w.lets_in(1).unwrap();
}

#[test]
fn whoever_is_away_or_no_longer_named_observes_nothing() {
    type Change = fn() -> (u8, Say);
    let changes: [Change; 4] = [
        || {
            let person = person(PAT);
            (ADA, Say::Offboard(Offboard { person }))
        },
        || {
            let pair = PersonKey {
                person: person(PAT),
                key: key(PAT, 0),
            };
            (ADA, Say::KeyRevoke(pair))
        },
        || {
            let mut other = watched();
            let people = vec![person(QUI), person(AUD)];
            other.observers = Some(Observers { needed: 2, people });
            (ADA, Say::ProviderSet(other))
        },
        || {
            let mut moved = watched();
            moved.jwks_uri.push('2');
            (ADA, Say::ProviderSet(moved))
        },
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let mut w = World::watched();
        w.look(PAT, &[1, 2]).unwrap();
        w.look(QUI, &[1, 2]).unwrap();
        w.lets_in(1).unwrap();
        let (by, say) = change();
        w.say(by, say, vec![]).unwrap();
        // The same again brings back nothing that was forgotten.
        w.say(ADA, Say::ProviderSet(watched()), vec![]).unwrap();
        w.publish("idp", &[1, 2]).unwrap();
        assert_eq!(no(w.lets_in(1)), "key-unseen", "{nth}");
        w.look(AUD, &[1, 2]).unwrap();
        if nth == 3 {
            w.look(QUI, &[1, 2]).unwrap();
        }
        w.lets_in(1).unwrap();
    }
    // Suspended by a directory, and back.
    let mut w = World::watched();
    w.say(ADA, Say::DirectorySet(directories::directory()), vec![])
        .unwrap();
    w.look(PAT, &[1, 2]).unwrap();
    w.look(QUI, &[1, 2]).unwrap();
    w.hear(PAT, |change| change.active = false).unwrap();
    let refused = w.lets_in(1).unwrap_err();
    assert_eq!(refused.code, "key-unseen");
    assert!(refused.message.contains("counts no longer"), "{refused}");
    assert_eq!(no(w.look(PAT, &[1, 2])), "suspended");
}

#[test]
fn a_provider_names_observers_that_can_be_enough() {
    let mut w = World::watched();
    let edits: [Edit<Observers>; 6] = [
        (|o| o.needed = 0, "observers"),
        (|o| o.needed = 4, "observers"),
        (|o| o.people = vec![person(PAT); 2], "observers"),
        (|o| o.people = (0..17).map(person).collect(), "observers"),
        (|o| o.people = vec![person(PAT), person(99)], "no-person"),
        (|o| o.people = vec![person(PAT), person(BOT)], "no-person"),
    ];
    for (edit, code) in edits {
        let mut idp = watched();
        edit(idp.observers.as_mut().unwrap());
        assert_eq!(no(w.say(ADA, Say::ProviderSet(idp), vec![])), code);
    }
    // Who asks for more of them ends no login that began before.
    w.look(PAT, &[1, 2]).unwrap();
    w.look(QUI, &[1, 2]).unwrap();
    let grant = w.grant(|_| ());
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let mut all = watched();
    all.observers.as_mut().unwrap().needed = 3;
    w.say(ADA, Say::ProviderSet(all), vec![]).unwrap();
    w.intent(session).unwrap();
    assert_eq!(no(w.lets_in(1)), "key-unseen");
    w.look(AUD, &[1, 2]).unwrap();
    w.lets_in(1).unwrap();
    let gone = Provider {
        withdrawn: true,
        ..watched()
    };
    w.say(ADA, Say::ProviderSet(gone), vec![]).unwrap();
    assert_eq!(no(w.after(1).look(PAT, &[1, 2])), "withdrawn");
}

#[test]
fn keys_may_change_twice_a_minute() {
    let mut w = World::watched();
    for newest in 3..9 {
        let keys = [newest - 1, newest];
        w.after(MIN / 2);
        w.publish("idp", &keys).unwrap();
        assert_eq!(no(w.lets_in(newest)), "key-unseen");
        for observer in [PAT, AUD] {
            w.after(1).look(observer, &keys).unwrap();
        }
        w.lets_in(newest).unwrap();
        w.lets_in(newest - 1).unwrap();
        assert_eq!(no(w.lets_in(newest - 2)), "token");
    }
}

#[test]
fn a_replay_refuses_a_login_by_a_key_that_nobody_but_the_server_saw() {
    let mut w = World::watched();
    w.look(PAT, &[1]).unwrap();
    w.look(QUI, &[1]).unwrap();
    w.log_in(REQ, |_| ()).unwrap();
    let back = State::from_snapshot(&w.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(fingerprint(&back), fingerprint(&w.state));
    let last = w.log.len() - 1;
    let mut entry = Entry::from_bytes(&w.log[last]).unwrap();
    let Body::Statement(signed) = &entry.body else {
        panic!("no statement")
    };
    let mut forged = signed.statement().unwrap();
    if let Say::Login(login) = &mut forged.say {
        login.claims.key = thumbprint(2);
    }
    entry.body = Body::Statement(sign(&key(243, 0), &forged));
    let mut state = State::new(ORIGIN);
    for bytes in &w.log[..last] {
        state.apply(&Fake, bytes).unwrap();
    }
    let done = state.apply(&Fake, &entry.to_bytes().unwrap());
    assert_eq!(no(done), "key-unseen");
}

/// What may happen around a provider's keys, which are 1 to 3.
#[derive(Debug, Clone)]
enum Event {
    Wait { ms: i64 },
    Publish { keys: Vec<u8> },
    Look { nth: usize, keys: Vec<u8>, ago: i64 },
    Leave { nth: usize },
    LogIn { key: u8 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let keys = || proptest::sample::subsequence(vec![1, 2, 3], 1..=3);
    let waits = prop_oneof![Just(1), Just(MIN), Just(20 * MIN), Just(HOUR - 1)];
    let ago = prop_oneof![4 => Just(0), 1 => Just(MIN), 1 => Just(-MIN)];
    let one = prop_oneof![
        2 => waits.prop_map(|ms| Event::Wait { ms }),
        3 => keys().prop_map(|keys| Event::Publish { keys }),
        8 => (0..3usize, keys(), ago).prop_map(|(nth, keys, ago)| Event::Look { nth, keys, ago }),
        1 => (0..3usize).prop_map(|nth| Event::Leave { nth }),
        10 => (1..4u8).prop_map(|key| Event::LogIn { key }),
    ];
    proptest::collection::vec(one, 1..40)
}

#[test]
fn a_login_counts_exactly_when_the_key_is_published_and_enough_saw_it() {
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let tried = std::cell::Cell::new((0, 0));
    proptest!(config, |(events in events())| {
        let mut w = World::watched();
        let (mut published, mut at) = (vec![1, 2], w.now);
        let mut words: [Option<(Timestamp, Vec<u8>)>; 3] = [const { None }; 3];
        let mut left = [false; 3];
        for event in &events {
            w.after(1);
            match event {
                Event::Wait { ms } => {
                    w.after(*ms);
                }
                Event::Publish { keys } => {
                    w.publish("idp", keys).unwrap();
                    (published, at) = (keys.clone(), w.now);
                }
                Event::Look { nth, keys, ago } => {
                    let mut seen = w.sighting(keys);
                    seen.fetched = seen.fetched.plus_millis(-ago);
                    let newer = words[*nth].as_ref().is_none_or(|(old, _)| *old < seen.fetched);
                    let fetched = seen.fetched;
                    let done = w.say(WATCHERS[*nth], Say::KeysSeen(seen), vec![]);
                    assert_eq!(done.is_ok(), newer && !left[*nth], "{done:?}");
                    if done.is_ok() {
                        words[*nth] = Some((fetched, keys.clone()));
                    }
                }
                Event::Leave { nth } => {
                    let person = person(WATCHERS[*nth]);
                    let done = w.say(ADA, Say::Offboard(Offboard { person }), vec![]);
                    assert_eq!(done.is_ok(), !left[*nth]);
                    left[*nth] = true;
                }
                Event::LogIn { key } => {
                    w.after(1);
                    let now = w.now;
                    let fresh = |then: Timestamp| now.since(then) < HOUR;
                    let saw = (0..3).filter(|nth| {
                        !left[*nth] && words[*nth].as_ref().is_some_and(|(then, keys)| {
                            fresh(*then) && keys.contains(key)
                        })
                    });
                    let expected = published.contains(key) && fresh(at) && saw.count() >= 2;
                    let done = w.lets_in_now(*key);
                    assert_eq!(done.is_ok(), expected, "{done:?}");
                    let (yes, no) = tried.get();
                    tried.set((yes + usize::from(expected), no + usize::from(!expected)));
                }
            }
        }
    });
    let (yes, no) = tried.get();
    assert!(yes > 20 && no > 200, "{yes} logins, {no} refused");
}
