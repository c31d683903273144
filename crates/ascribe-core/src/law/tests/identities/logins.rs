//! Logins: what they state, what they allow and what ends them.

use super::*;

#[test]
fn a_session_key_acts_like_a_key_until_its_end() {
    let mut w = World::with_providers();
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    let fingerprint = key.fingerprint();
    assert_eq!(
        w.state.person_by_key(w.now, &fingerprint),
        Some(person(REQ))
    );
    let until = w.state.logins[&login].login.until;
    assert_eq!(
        w.state.login_by_key(w.now, &fingerprint),
        Some((login, until))
    );
    assert_eq!(w.state.assurance(&fingerprint), 2);
    let (mut request, why) = w.request_for();
    request.not_before = w.now.plus_millis(7 * HOUR);
    request.not_after = w.now.plus_millis(9 * HOUR);
    let ask = w
        .say_as(REQ, &key, Say::Request(request), vec![why])
        .unwrap();
    w.approve(PAT, ask).unwrap();
    let grant = w.grant_of(ask).unwrap();
    w.after(7 * HOUR);
    // A session names its login; without it, or with another's, the key is nobody's.
    let (other, other_key) = w.log_in(REQ, |_| ()).unwrap();
    for (key, login, code) in [
        (&key, None, "key"),
        (&key, Some(other), "key"),
        (&other_key, Some(login), "key"),
        (&key, Some(StatementId::new([9; 16])), "no-login"),
    ] {
        let done = w.open_as(grant, |open| {
            (open.key, open.login) = (key.fingerprint(), login);
        });
        assert_eq!(no(done), code);
    }
    let session = w.open_with(grant, login, &key).unwrap();
    let end = w.state.logins[&login].login.until;
    assert_eq!(w.standing(session), Standing::Until(end));
    w.intent(session).unwrap();
    w.after(HOUR);
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open_with(grant, login, &key)), "expired");
    assert_eq!(no(w.say_as(REQ, &key, connect(), Vec::new())), "logged-out");
    assert_eq!(w.state.person_by_key(w.now, &fingerprint), None);
    // The enrolled key goes on.
    w.open(grant).unwrap();
}

#[test]
fn a_login_states_what_the_law_demands() {
    let edits: [Edit<Draft>; 25] = [
        (|d| d.by = PAT, "no-identity"),
        (|d| d.by = 99, "no-person"),
        (|d| d.by = BOT, "no-person"),
        (|d| d.login.provider = "ci".into(), "no-workload"),
        (|d| d.login.provider = "other".into(), "no-provider"),
        (
            |d| d.login.claims.subject = link(PAT).subject,
            "no-identity",
        ),
        (|d| d.login.claims.key = thumbprint(3), "token"),
        (|d| d.login.claims.binding = Binding::Audience, "binding"),
        (
            |d| d.login.claims.issued = d.login.claims.issued.plus_millis(MIN + 1),
            "token-time",
        ),
        (
            |d| d.login.claims.issued = d.login.claims.issued.plus_millis(-10 * MIN - 1),
            "token-time",
        ),
        (
            |d| {
                let c = &mut d.login.claims;
                (c.issued, c.expires) =
                    (c.issued.plus_millis(-9 * MIN), c.issued.plus_millis(-MIN));
            },
            "token-time",
        ),
        (
            |d| d.login.claims.expires = d.login.claims.issued.plus_millis(24 * HOUR + 1),
            "token-time",
        ),
        (
            |d| d.login.claims.expires = d.login.claims.issued,
            "token-time",
        ),
        (
            |d| d.login.until = d.login.claims.issued.plus_millis(12 * HOUR + 1),
            "until",
        ),
        (|d| d.login.until = d.login.claims.issued, "until"),
        (|d| d.login.claims.binding = Binding::None, "until"),
        (|d| d.login.rz.0.truncate(31), "rz"),
        (
            |d| d.login.claims.facts = vec![fact("groups", "x")],
            "claims",
        ),
        (|d| d.login.claims.acr = Some("a\u{202e}b".into()), "claims"),
        (|d| d.login.claims.amr = vec!["x".repeat(1025)], "claims"),
        (|d| d.login.claims.missing = vec!["x".into(); 17], "claims"),
        (|d| d.key = key(PAT, 0), "duplicate"),
        (|d| d.key.0.insert_str(0, "sk-"), "key-type"),
        (
            |d| d.key.0 = d.key.0.replace("ssh-ed25519", "ssh-rsa"),
            "key-type",
        ),
        // The token says something else than the login.
        (|d| d.token = Some(d.login.claims.clone()), "claims"),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut w = World::with_providers();
        let mut draft = w.draft(REQ);
        edit(&mut draft);
        if let Some(token) = &mut draft.token {
            token.issued = token.issued.plus_millis(1000);
        }
        assert_eq!(no(w.hand_in(&draft)), code, "{nth}");
    }
    // The edges are good.
    let mut w = World::with_providers();
    w.log_in(REQ, |l| {
        l.claims.issued = l.claims.issued.plus_millis(MIN);
        l.claims.expires = l.claims.issued.plus_millis(24 * HOUR);
        l.until = l.until.plus_millis(4 * HOUR);
    })
    .unwrap();
    w.log_in(REQ, |l| {
        let c = &mut l.claims;
        (c.issued, c.expires) = (
            c.issued.plus_millis(-10 * MIN),
            c.issued.plus_millis(1 - MIN),
        );
    })
    .unwrap();
}

#[test]
fn the_token_is_the_bearers_own_and_shown_once() {
    let mut w = World::with_providers();
    let draft = w.draft(REQ);
    let claims = serde_json::to_string(&draft.login.claims).unwrap();
    let bound = |key: &SshKey| format!("{}\n{claims}", key_commitment(key, &[7; 32]));
    // A thief has the token, and a key of their own.
    let stolen = Draft {
        key: key(241, 0),
        ..w.draft(REQ)
    };
    let token = bound(&draft.key);
    assert_eq!(no(w.hand_in_token(&stolen, &token, |_| ())), "token");
    // Other random bytes make another commitment.
    let done = w.hand_in_token(&draft, &token, |l| l.rz.0 = vec![8; 32]);
    assert_eq!(no(done), "token");
    // The digest names exactly this token, and the seal holds it.
    let done = w.hand_in_token(&draft, &token, |l| l.digest = thumbprint(9));
    assert_eq!(no(done), "token");
    let done = w.hand_in_token(&draft, &token, |l| {
        l.token = opening("token", "x").commitment()
    });
    assert_eq!(no(done), "openings");
    // Somebody else signs what the key's holder would.
    let mut login = draft.login.clone();
    let sealed = opening("token", &token);
    login.token = sealed.commitment();
    let statement = w.statement(REQ, Say::Login(Box::new(login)));
    let mut signed = sign(&draft.key, &statement);
    signed.sig = sign(&key(241, 0), &statement).sig;
    assert_eq!(no(w.submit(signed, vec![sealed])), "token");
    w.hand_in_token(&draft, &token, |_| ()).unwrap();
    // The same key again, with a fresh token.
    let mut again = w.draft(REQ);
    again.key = draft.key.clone();
    again.login.claims.expires = again.login.claims.expires.plus_millis(1);
    assert_eq!(no(w.hand_in(&again)), "duplicate");
    // An unbound token serves one key.
    let unbound = |w: &mut World| {
        let mut draft = w.draft(REQ);
        draft.login.claims.binding = Binding::None;
        draft.login.until = draft.login.claims.expires;
        draft
    };
    let (one, two) = (unbound(&mut w), unbound(&mut w));
    let token = format!("\n{}", serde_json::to_string(&one.login.claims).unwrap());
    w.hand_in_token(&one, &token, |_| ()).unwrap();
    assert_eq!(no(w.hand_in_token(&two, &token, |_| ())), "token-replay");
    // It is remembered for as long as it could be shown, and no longer.
    w.after(6 * MIN - 1);
    assert_eq!(no(w.hand_in_token(&two, &token, |_| ())), "until");
    w.after(1).log_in(PAT, |_| ()).unwrap();
    assert_eq!(w.state.spent.len(), 1);
}

#[test]
fn a_session_key_is_never_anything_else_and_nothing_else_becomes_one() {
    let mut w = World::with_providers();
    let (login, session_key) = w.log_in(REQ, |_| ()).unwrap();
    let enrol_it = |key: &SshKey| {
        Say::KeyAdd(PersonKey {
            person: person(PAT),
            key: key.clone(),
        })
    };
    let ca_of_it = |key: &SshKey| {
        let mut ca = authority("corp");
        ca.keys[0] = key.clone();
        Say::CaSet(ca)
    };
    for say in [enrol_it(&session_key), ca_of_it(&session_key)] {
        assert_eq!(no(w.say(ADA, say, Vec::new())), "duplicate");
    }
    w.say(REQ, Say::Logout(Logout { login }), Vec::new())
        .unwrap();
    assert_eq!(
        no(w.say(ADA, enrol_it(&session_key), Vec::new())),
        "duplicate"
    );
    w.say(ADA, ca_of_it(&key(242, 0)), Vec::new()).unwrap();
    let revoked = PersonKey {
        person: person(REQ),
        key: key(REQ, 1),
    };
    w.say(REQ, Say::KeyRevoke(revoked), Vec::new()).unwrap();
    for (key, code) in [
        (session_key, "duplicate"),
        (key(242, 0), "duplicate"),
        (key(REQ, 1), "revoked"),
    ] {
        let mut draft = w.draft(REQ);
        draft.login.claims.acr = Some("another token".to_owned());
        draft.key = key;
        assert_eq!(no(w.hand_in(&draft)), code);
    }
}

#[test]
fn whatever_a_login_rests_on_ends_it_for_good() {
    type End = fn(&mut World, StatementId) -> (u8, Say);
    let ends: [End; 7] = [
        |_, login| (REQ, Say::Logout(Logout { login })),
        |_, login| (BEN, Say::Logout(Logout { login })),
        |_, _| (REQ, Say::IdentityUnlink(link(REQ))),
        |_, _| (ADA, Say::IdentityUnlink(link(REQ))),
        |_, _| {
            let mut idp = provider("idp", ProviderKind::Oidc);
            idp.withdrawn = true;
            (ADA, Say::ProviderSet(idp))
        },
        |_, _| {
            let mut idp = provider("idp", ProviderKind::Oidc);
            idp.audience = "another".to_owned();
            (ADA, Say::ProviderSet(idp))
        },
        |_, _| {
            let person = person(REQ);
            (ADA, Say::Offboard(Offboard { person }))
        },
    ];
    for (nth, end) in ends.into_iter().enumerate() {
        let mut w = World::with_providers();
        let grant = w.grant(|_| ());
        let (login, key) = w.log_in(REQ, |_| ()).unwrap();
        let session = w.open_with(grant, login, &key).unwrap();
        let (by, say) = end(&mut w, login);
        w.say(by, say, Vec::new()).unwrap();
        let ended = Standing::Ended(CloseReason::Revoked);
        assert_eq!(w.standing(session), ended, "{nth}");
        assert_eq!(no(w.intent(session)), "revoked", "{nth}");
        assert_eq!(no(w.open_with(grant, login, &key)), "revoked", "{nth}");
        assert_eq!(w.state.person_by_key(w.now, &key.fingerprint()), None);
        let said = no(w.say_as(REQ, &key, connect(), Vec::new()));
        assert!(
            ["logged-out", "offboarded"].contains(&said),
            "{nth}: {said}"
        );
        // Its provider comes back, the login does not.
        w.say(
            ADA,
            Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
            vec![],
        )
        .unwrap();
        assert_eq!(w.standing(session), ended, "{nth}");
    }
}

#[test]
fn others_end_no_login_and_take_no_identity() {
    let mut w = World::with_providers();
    let (login, _) = w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(
        no(w.say(PAT, Say::Logout(Logout { login }), vec![])),
        "role"
    );
    assert_eq!(
        no(w.say(PAT, Say::IdentityUnlink(link(REQ)), vec![])),
        "role"
    );
    let unknown = Logout {
        login: StatementId::new([1; 16]),
    };
    assert_eq!(no(w.say(REQ, Say::Logout(unknown), vec![])), "no-login");
    let others = IdentityLink {
        person: person(PAT),
        ..link(REQ)
    };
    assert_eq!(
        no(w.say(PAT, Say::IdentityUnlink(others), vec![])),
        "no-identity"
    );
    w.say(REQ, Say::Logout(Logout { login }), vec![]).unwrap();
    assert_eq!(
        no(w.say(REQ, Say::Logout(Logout { login }), vec![])),
        "settled"
    );
    let (login, _) = w.log_in(REQ, |_| ()).unwrap();
    w.after(8 * HOUR);
    assert_eq!(
        no(w.say(REQ, Say::Logout(Logout { login }), vec![])),
        "settled"
    );
}

#[test]
fn an_identity_stands_for_one_person_by_others_word() {
    let mut w = World::with_providers();
    let edits: [Edit<IdentityLink>; 5] = [
        (|_| (), "duplicate"),
        (|l| l.person = person(REQ), "duplicate"),
        (|l| l.provider = "ci".into(), "provider"),
        (|l| l.provider = "other".into(), "no-provider"),
        (
            |l| {
                l.subject = thumbprint(7);
                l.person = person(BOT);
            },
            "no-person",
        ),
    ];
    for (edit, code) in edits {
        let mut identity = link(PAT);
        edit(&mut identity);
        assert_eq!(no(w.say(ADA, Say::IdentityLink(identity), vec![])), code);
    }
    assert_eq!(no(w.say(PAT, Say::IdentityLink(link(QUI)), vec![])), "role");
    // Nobody says of themself who they are.
    let mut w = World::new(2);
    let idp = Say::ProviderSet(provider("idp", ProviderKind::Oidc));
    let ask = w.say(ADA, idp, vec![]).unwrap();
    w.approve(BEN, ask).unwrap();
    let ask = w.say(BEN, Say::IdentityLink(link(ADA)), vec![]).unwrap();
    assert_eq!(no(w.approve(ADA, ask)), "self-approval");
}

#[test]
fn an_actor_has_a_bounded_number_of_logins() {
    let mut w = World::with_providers();
    let log_in = |w: &mut World, nth: u16| {
        let mut draft = w.draft(REQ);
        let blob = Sha256::digest(format!("session {nth}"));
        draft.key = SshKey(format!("ssh-ed25519 {}", encoding::base64_std(&blob)));
        draft.login.claims.expires = draft.login.claims.expires.plus_millis(i64::from(nth));
        w.hand_in(&draft)
    };
    for nth in 0..256 {
        log_in(&mut w, nth).unwrap();
    }
    assert_eq!(no(log_in(&mut w, 256)), "too-many");
    w.after(8 * HOUR);
    log_in(&mut w, 257).unwrap();
    assert_eq!(w.state.live_logins.len(), 1);
}

#[test]
fn logins_come_back_from_a_snapshot() {
    let mut w = World::with_providers();
    let (ended, _) = w.log_in(REQ, |_| ()).unwrap();
    w.log_in(BOT, |_| ()).unwrap();
    w.say(REQ, Say::Logout(Logout { login: ended }), vec![])
        .unwrap();
    let back = State::from_snapshot(&w.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(fingerprint(&back), fingerprint(&w.state));
}

#[test]
fn a_token_is_withheld_until_it_has_expired() {
    let mut w = World::with_providers();
    w.log_in(REQ, |_| ()).unwrap();
    let entry = Entry::from_bytes(w.log.last().unwrap()).unwrap();
    let until = withheld_until(&entry.body);
    assert_eq!(until, Some(w.now.plus_millis(6 * MIN)));
    let first = Entry::from_bytes(&w.log[0]).unwrap();
    assert_eq!(withheld_until(&first.body), None);
}

#[test]
fn whoever_is_nobody_any_more_learns_why() {
    let mut w = World::with_providers();
    let why = |w: &World, key: &SshKey| {
        let denied = w.state.why_nobody(w.now, &key.fingerprint());
        denied.map(|denied| denied.code)
    };
    let (login, session) = w.log_in(REQ, |_| ()).unwrap();
    let (_, other) = w
        .log_in(REQ, |l| l.until = l.claims.issued.plus_millis(HOUR))
        .unwrap();
    let (_, job) = w.log_in(BOT, |_| ()).unwrap();
    let enrolled = key(REQ, 0);
    for key in [&enrolled, &session, &other, &job, &key(99, 0)] {
        assert_eq!(why(&w, key), None);
    }
    w.say(REQ, Say::Logout(Logout { login }), vec![]).unwrap();
    w.after(HOUR);
    assert_eq!(why(&w, &session), Some("logged-out"));
    assert_eq!(why(&w, &other), Some("logged-out"));
    let leaver = Offboard {
        person: person(REQ),
    };
    w.say(ADA, Say::Offboard(leaver), vec![]).unwrap();
    for key in [&enrolled, &session] {
        assert_eq!(why(&w, key), Some("offboarded"));
    }
    assert_eq!(why(&w, &job), Some("orphaned"));
    let pair = PersonKey {
        person: person(PAT),
        key: key(PAT, 0),
    };
    w.say(PAT, Say::KeyRevoke(pair), vec![]).unwrap();
    assert_eq!(why(&w, &key(PAT, 0)), Some("revoked"));
}

#[test]
fn every_session_of_a_login_ends_with_it_and_none_of_another() {
    let mut w = World::with_providers();
    let grant = w.grant(|_| ());
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    let (other, other_key) = w.log_in(REQ, |_| ()).unwrap();
    let ours = [
        w.open_with(grant, login, &key).unwrap(),
        w.open_with(grant, login, &key).unwrap(),
    ];
    assert_eq!(no(w.open_with(grant, login, &other_key)), "key");
    let theirs = w.open_with(grant, other, &other_key).unwrap();
    w.say(REQ, Say::Logout(Logout { login }), vec![]).unwrap();
    for session in ours {
        assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
        assert_eq!(no(w.intent(session)), "revoked");
    }
    w.intent(theirs).unwrap();
}
