//! Outside certificate authorities: who counts, how a session names its certificate, how it ends.

use super::*;
use crate::entry::Certificate;
use crate::record::ShownCertificate;

/// The key that the authority certified; nobody enrolled it.
fn certified() -> String {
    key(220, 0).fingerprint()
}

fn shown() -> ShownCertificate {
    ShownCertificate {
        ca: key(210, 0).fingerprint(),
        key: certified(),
        key_id: "req laptop 7".to_owned(),
        not_after: Some(time(T0).plus_millis(HOUR / 2)),
        principals: vec!["staff".to_owned(), "req".to_owned()],
        serial: Serial(u64::MAX),
    }
}

/// The authority, set once more and otherwise.
fn changed(edit: impl FnOnce(&mut Authority)) -> Say {
    let mut ca = authority("corp");
    edit(&mut ca);
    Say::CaSet(ca)
}

impl World {
    fn set(&mut self, edit: impl FnOnce(&mut Authority)) -> Result<AskRef, Denied> {
        self.say(ADA, changed(edit), Vec::new())
    }
    fn with_ca() -> Self {
        let mut world = Self::plain();
        world.set(|_| ()).unwrap();
        world
    }
    /// Opens a session with the certificate that [`shown`] is.
    fn open_by(
        &mut self,
        grant: GrantId,
        edit: impl FnOnce(&mut SessionOpen),
    ) -> Result<SessionId, Denied> {
        let (mut open, from) = self.session_for(grant);
        let (_, certificate) = self.state.person_by_certificate(&shown()).unwrap();
        (open.key, open.certificate) = (certified(), Some(certificate));
        edit(&mut open);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
}

fn change(open: &mut SessionOpen, edit: impl FnOnce(&mut Certificate)) {
    edit(open.certificate.as_mut().unwrap());
}

#[test]
fn a_certificate_is_the_person_that_its_principal_stands_for() {
    let w = World::with_ca();
    let (who, named) = w.state.person_by_certificate(&shown()).unwrap();
    assert_eq!(who, person(REQ));
    assert_eq!(
        (named.ca_name.as_str(), named.principal.as_str()),
        ("corp", "req")
    );
    assert_eq!(w.state.ca_keys().len(), 2);
    let edits: [Edit<ShownCertificate>; 8] = [
        (|c| c.ca = key(211, 0).fingerprint(), "ca"),
        (|c| c.ca = key(REQ, 0).fingerprint(), "ca"),
        (|c| c.principals.clear(), "principal"),
        (
            |c| c.principals = vec!["REQ".into(), "req ".into()],
            "principal",
        ),
        (|c| c.key_id = "a\u{202e}b".into(), "key-id"),
        (|c| c.key_id = "x".repeat(257), "key-id"),
        (|c| c.key = key(PAT, 0).fingerprint(), "key"),
        (|c| c.key = key(210, 1).fingerprint(), "key"),
    ];
    for (edit, code) in edits {
        let mut other = shown();
        edit(&mut other);
        assert_eq!(no(w.state.person_by_certificate(&other)), code, "{other:?}");
    }
}

#[test]
fn a_certificate_of_two_people_is_nobodys() {
    let mut w = World::plain();
    let pat = Mapping {
        person: person(PAT),
        principal: "staff".to_owned(),
    };
    w.set(|ca| ca.people.push(pat)).unwrap();
    assert_eq!(no(w.state.person_by_certificate(&shown())), "principal");
}

#[test]
fn a_session_by_certificate_is_what_the_registry_says() {
    let mut w = World::with_ca();
    let grant = w.grant(|_| ());
    // Without its certificate the key is nobody's.
    assert_eq!(no(w.open_by(grant, |open| open.certificate = None)), "key");
    let edits: [Edit<SessionOpen>; 8] = [
        (|o| change(o, |c| c.ca = key(211, 0).fingerprint()), "ca"),
        (|o| change(o, |c| c.ca_name = "other".into()), "ca"),
        (|o| change(o, |c| c.principal = "staff".into()), "principal"),
        (|o| change(o, |c| c.key_id = "a\nb".into()), "key-id"),
        (|o| change(o, |c| c.not_after = Some(time(T0))), "expired"),
        (|o| o.key = key(PAT, 0).fingerprint(), "key"),
        (|o| o.person = person(PAT), "outside-grant"),
        (|o| o.opened_by = OpenedBy::Signed, "opening"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.open_by(grant, edit)), code);
    }
    let session = w.open_by(grant, |_| ()).unwrap();
    let end = time(T0).plus_millis(HOUR / 2);
    assert_eq!(w.standing(session), Standing::Until(end));
    w.intent(session).unwrap();
}

#[test]
fn a_session_does_not_outlive_its_certificate() {
    let mut w = World::with_ca();
    let grant = w.grant(|_| ());
    let session = w.open_by(grant, |_| ()).unwrap();
    w.after(HOUR / 2 - 1).intent(session).unwrap();
    w.after(1);
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open_by(grant, |_| ())), "expired");
    // One without an end lasts as long as its grant.
    let forever = |open: &mut SessionOpen| change(open, |c| c.not_after = None);
    let session = w.open_by(grant, forever).unwrap();
    let end = w.state.grants[&grant].grant.not_after;
    assert_eq!(w.standing(session), Standing::Until(end));
}

#[test]
fn withdrawing_unmapping_revoking_and_leaving_end_sessions_by_certificate() {
    let ends: [fn() -> Say; 8] = [
        || changed(|ca| (ca.keys, ca.people) = (vec![], vec![])),
        // The key that signed it is taken away, the other stays.
        || changed(|ca| drop(ca.keys.remove(0))),
        || changed(|ca| ca.people.clear()),
        || changed(|ca| ca.people[0].person = person(PAT)),
        || changed(|ca| ca.revoked.serials = vec![Serial(1), Serial(u64::MAX)]),
        || changed(|ca| ca.revoked.key_ids = vec!["req laptop 7".into()]),
        || {
            let person = person(REQ);
            Say::Offboard(Offboard { person })
        },
        // Somebody else enrols the key, so that it names two people.
        || {
            let (person, key) = (person(PAT), key(220, 0));
            Say::KeyAdd(PersonKey { person, key })
        },
    ];
    for (nth, end) in ends.into_iter().enumerate() {
        let mut w = World::with_ca();
        let grant = w.grant(|_| ());
        let session = w.open_by(grant, |_| ()).unwrap();
        w.say(ADA, end(), Vec::new()).unwrap();
        let ended = Standing::Ended(CloseReason::Revoked);
        assert_eq!(w.standing(session), ended, "{nth}");
        assert_eq!(no(w.intent(session)), "revoked", "{nth}");
        let now = w.state.person_by_certificate(&shown());
        assert!(now.is_err() || now.unwrap().0 == person(PAT), "{nth}");
    }
}

#[test]
fn a_revoked_key_does_not_come_back_by_certificate() {
    let mut w = World::with_ca();
    let (person, key) = (person(REQ), key(REQ, 1));
    let login = key.fingerprint();
    w.say(ADA, Say::KeyRevoke(PersonKey { person, key }), Vec::new())
        .unwrap();
    let stolen = ShownCertificate {
        key: login,
        ..shown()
    };
    assert_eq!(no(w.state.person_by_certificate(&stolen)), "revoked");
}

#[test]
fn an_authority_is_set_by_administrators_within_bounds() {
    let mut w = World::plain();
    assert_eq!(
        no(w.say(PAT, Say::CaSet(authority("corp")), Vec::new())),
        "role"
    );
    let edits: [Edit<Authority>; 14] = [
        (|ca| ca.name = "Corp CA".into(), "ca"),
        (|ca| ca.keys = (0..17).map(|n| key(230, n)).collect(), "ca"),
        (|ca| ca.keys.push(key(210, 0)), "ca"),
        (|ca| ca.keys.clear(), "ca"),
        (|ca| ca.keys[0] = key(REQ, 0), "duplicate"),
        (|ca| ca.keys[0].0.insert_str(0, "sk-"), "key-type"),
        (
            |ca| ca.keys[0].0 = ca.keys[0].0.replace("ssh-ed25519", "ssh-rsa"),
            "key-type",
        ),
        (|ca| ca.people[0].person = person(99), "no-person"),
        (|ca| ca.people[0].principal = "a b".into(), "ca"),
        (|ca| ca.people[0].principal = String::new(), "ca"),
        (|ca| ca.people.push(ca.people[0].clone()), "ca"),
        (|ca| ca.revoked.serials = vec![Serial(0); 2], "ca"),
        (
            |ca| ca.revoked.serials = (0..1025).map(Serial).collect(),
            "ca",
        ),
        (|ca| ca.revoked.key_ids = vec!["a\u{1b}[2J".into()], "ca"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.set(edit)), code);
    }
    w.set(|_| ()).unwrap();
    // The same again, with less: the newest one counts.
    w.set(|ca| drop(ca.keys.pop())).unwrap();
    assert_eq!(w.state.ca_keys(), [key(210, 0).fingerprint()]);
    let known = w.state.cas["corp"].authority("corp");
    assert_eq!(
        (known.keys.len(), known.people),
        (1, authority("corp").people)
    );
    // One key belongs to one authority, and to nobody.
    let other = Say::CaSet(authority("other"));
    assert_eq!(no(w.say(ADA, other, Vec::new())), "duplicate");
    let enrolled = Say::KeyAdd(PersonKey {
        person: person(REQ),
        key: key(210, 0),
    });
    assert_eq!(no(w.say(ADA, enrolled, Vec::new())), "duplicate");
    // Whoever withdraws it names nobody.
    assert_eq!(no(w.set(|ca| ca.keys.clear())), "ca");
    w.set(|ca| (ca.keys, ca.people) = (vec![], vec![])).unwrap();
    assert!(w.state.ca_keys().is_empty());
}

#[test]
fn under_admin_quorum_two_an_authority_waits_for_the_second_admin() {
    let mut w = World::new(2);
    let ask = w.set(|_| ()).unwrap();
    assert!(w.state.person_by_certificate(&shown()).is_err());
    w.approve(BEN, ask).unwrap();
    assert!(w.state.person_by_certificate(&shown()).is_ok());
}

#[test]
fn an_authority_and_its_sessions_are_in_the_snapshot() {
    let mut w = World::with_ca();
    let grant = w.grant(|_| ());
    w.open_by(grant, |_| ()).unwrap();
    w.set(|ca| ca.revoked.serials = vec![Serial(3)]).unwrap();
    let again = State::from_snapshot(&w.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(fingerprint(&again), fingerprint(&w.state));
}

#[test]
fn a_serial_has_one_spelling() {
    let read = |text: &str| serde_json::from_str::<Serial>(text).ok();
    assert_eq!(read("\"18446744073709551615\""), Some(Serial(u64::MAX)));
    for bad in [
        "\"01\"",
        "\"+1\"",
        "\"\"",
        "1",
        "\"18446744073709551616\"",
        "\"-0\"",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn the_record_names_the_certificate_as_evidence() {
    let mut w = World::with_ca();
    let grant = w.grant(|_| ());
    let session = w.open_by(grant, |_| ()).unwrap();
    w.intent(session).unwrap();
    let mut fold = crate::attribution::Fold::new();
    for (index, bytes) in (0..).zip(&w.log) {
        let entry = read(bytes).unwrap();
        fold.push(index, &entry, crate::entry::entry_hash(bytes));
    }
    let root = ascribe_tlog::empty_root();
    let filter = crate::attribution::Filter::default();
    let records = fold.actions(&w.state, &filter, root, w.state.size, "missing");
    let who = &records[0].who.chain[0];
    assert_eq!(who.principal, person(REQ));
    assert_eq!(
        who.evidence,
        format!(
            "ssh-cert corp req laptop 7 serial {} principal req",
            u64::MAX
        )
    );
}
