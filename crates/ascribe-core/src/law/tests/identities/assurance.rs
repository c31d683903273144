//! How strongly a key shows who signs, and where that is asked.

use super::*;

#[test]
fn assurance_is_derived_and_targets_ask_for_it() {
    let mut w = World::with_providers();
    let unbound = |l: &mut Login| {
        l.claims.binding = Binding::None;
        l.until = l.claims.expires;
    };
    let (device, device_key) = w.log_in(REQ, unbound).unwrap();
    let (browser, browser_key) = w.log_in(REQ, |_| ()).unwrap();
    let (job, job_key) = w.log_in(BOT, unbound).unwrap();
    let (_, weak_pat) = w.log_in(PAT, unbound).unwrap();
    let (_, weak_ada) = w.log_in(ADA, unbound).unwrap();
    for (key, level) in [
        (&device_key, 0),
        (&browser_key, 2),
        (&job_key, 1),
        (&key(REQ, 0), 2),
        (&key(99, 0), 0),
    ] {
        assert_eq!(w.state.assurance(&key.fingerprint()), level);
    }
    let (grant, for_bot) = (w.grant(|_| ()), w.grant_for_bot());
    let mut strict = target("db1");
    strict.actor_assurance = Some(1);
    w.say(ADA, Say::TargetSet(strict.clone()), vec![]).unwrap();
    assert_eq!(no(w.open_with(grant, device, &device_key)), "assurance");
    w.open_with(for_bot, job, &job_key).unwrap();
    strict.actor_assurance = Some(2);
    strict.approver_assurance = Some(2);
    w.say(ADA, Say::TargetSet(strict.clone()), vec![]).unwrap();
    assert_eq!(no(w.open_with(for_bot, job, &job_key)), "assurance");
    w.open_with(grant, browser, &browser_key).unwrap();
    w.open(grant).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let yes = |ask| Say::Approval(answer(ask));
    assert_eq!(no(w.say_as(PAT, &weak_pat, yes(ask), vec![])), "assurance");
    let (_, strong_pat) = w.log_in(PAT, |_| ()).unwrap();
    w.say_as(PAT, &strong_pat, yes(ask), vec![]).unwrap();
    // What changes the law is never carried by a bearer token.
    let say = Say::TargetSet(strict.clone());
    assert_eq!(no(w.say_as(ADA, &weak_ada, say, vec![])), "assurance");
    // Nobody is locked out by asking for what nothing reaches.
    strict.actor_assurance = Some(3);
    assert_eq!(
        no(w.say(ADA, Say::TargetSet(strict.clone()), vec![])),
        "target"
    );
    (strict.actor_assurance, strict.approver_assurance) = (None, Some(4));
    assert_eq!(no(w.say(ADA, Say::TargetSet(strict), vec![])), "target");
}

/// A security key's text: type, public key and application.
fn security_key(kind: &str) -> SshKey {
    let mut blob = Vec::new();
    for part in [kind.as_bytes(), &[7; 32], b"ssh:"] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend_from_slice(part);
    }
    SshKey(format!("{kind} {}", encoding::base64_std(&blob)))
}

#[test]
fn a_touched_key_counts_for_more_and_is_a_persons_alone() {
    let mut w = World::with_providers();
    let touched = security_key("sk-ssh-ed25519@openssh.com");
    let add = |person, key: &SshKey| {
        Say::KeyAdd(PersonKey {
            person,
            key: key.clone(),
        })
    };
    // What stands before the blob is only said, and does not make a security key.
    let plain = key(77, 0).0;
    let blob = plain.split(' ').nth(1).unwrap();
    let said = SshKey(format!("sk-ssh-ed25519@openssh.com {blob}"));
    let real = touched.0.split(' ').nth(1).unwrap();
    let other = SshKey(format!("sk-ecdsa-sha2-nistp256@openssh.com {real}"));
    for bad in [said, other, security_key("sk-ssh-ed25519@example.org")] {
        let done = w.say(ADA, add(person(PAT), &bad), vec![]);
        assert_eq!(no(done), "key-type");
    }
    w.say(ADA, add(person(PAT), &touched), vec![]).unwrap();
    assert_eq!(w.state.assurance(&touched.fingerprint()), 3);
    assert_eq!(w.state.assurance(&key(PAT, 0).fingerprint()), 2);
    let mut strict = target("db1");
    strict.approver_assurance = Some(3);
    w.say(ADA, Say::TargetSet(strict), vec![]).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let yes = || Say::Approval(answer(ask));
    assert_eq!(no(w.say(PAT, yes(), vec![])), "assurance");
    w.say_as(PAT, &touched, yes(), vec![]).unwrap();
}

#[test]
fn a_proposal_is_not_carried_by_a_bearer_token() {
    let mut w = World::new(2);
    let both = |w: &mut World, by: u8, second: u8, say: Say| {
        let ask = w.say(by, say, vec![]).unwrap();
        w.approve(second, ask).unwrap();
    };
    both(
        &mut w,
        ADA,
        BEN,
        Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
    );
    let (add, name) = enrol(70, &[Role::Admin]);
    let ask = w.say(ADA, Say::PersonAdd(add), vec![name]).unwrap();
    w.approve(BEN, ask).unwrap();
    both(&mut w, ADA, 70, Say::IdentityLink(link(BEN)));
    w.publish("idp", &[1]).unwrap();
    let (_, weak) = w
        .log_in(BEN, |l| {
            l.claims.binding = Binding::None;
            l.until = l.claims.expires;
        })
        .unwrap();
    let ask = w.say(ADA, Say::TargetSet(target("db1")), vec![]).unwrap();
    let yes = Say::Approval(answer(ask));
    assert_eq!(no(w.say_as(BEN, &weak, yes.clone(), vec![])), "assurance");
    let (_, strong) = w.log_in(BEN, |_| ()).unwrap();
    w.say_as(BEN, &strong, yes, vec![]).unwrap();
}

#[test]
fn a_key_that_somebody_else_could_have_introduced_gives_nobody_access() {
    let mut w = World::with_providers();
    let unbound = |l: &mut Login| {
        l.claims.binding = Binding::None;
        l.until = l.claims.expires;
    };
    let (_, weak_pat) = w.log_in(PAT, unbound).unwrap();
    let (_, weak_req) = w.log_in(REQ, unbound).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let yes = Say::Approval(answer(ask));
    let glass = |w: &mut World, key: &SshKey| {
        let (emergency, opening) = prose("emergency", "the database is down for all");
        let say = Say::BreakGlass(BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after: w.now.plus_millis(HOUR / 2),
            emergency,
            ticket: None,
        });
        w.say_as(REQ, key, say, vec![opening])
    };
    // The target asks no level.
    assert_eq!(w.state.targets["db1"].target.approver_assurance, None);
    assert_eq!(
        no(w.say_as(PAT, &weak_pat, yes.clone(), vec![])),
        "assurance"
    );
    assert_eq!(no(glass(&mut w, &weak_req)), "assurance");
    // No is a word that anybody may have.
    let other = w.request(REQ, |_| ()).unwrap();
    let no_to = Say::Denial(answer(other));
    w.say_as(PAT, &weak_pat, no_to, vec![]).unwrap();
    // A target may say that they are enough.
    let mut lax = target("db1");
    lax.approver_assurance = Some(0);
    w.say(ADA, Say::TargetSet(lax), vec![]).unwrap();
    w.say_as(PAT, &weak_pat, yes, vec![]).unwrap();
    glass(&mut w, &weak_req).unwrap();
}

#[test]
fn such_a_key_reads_what_its_person_did_and_nothing_else() {
    let mut w = World::with_providers();
    w.say(ADA, Say::IdentityLink(link(AUD)), vec![]).unwrap();
    let unbound = |l: &mut Login| {
        l.claims.binding = Binding::None;
        l.until = l.claims.expires;
    };
    let (_, auditor) = w.log_in(AUD, unbound).unwrap();
    let (_, actor) = w.log_in(REQ, unbound).unwrap();
    let (_, strong) = w.log_in(AUD, |_| ()).unwrap();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let read = |w: &mut World, by: u8, key: &SshKey, view: View, session| {
        let query = opening("query", "{}");
        let say = Say::Read(Read {
            view,
            query: query.commitment(),
            request: None,
            session,
        });
        w.say_as(by, key, say, vec![query])
    };
    for view in [View::Actions, View::Replay, View::Watch] {
        let of = Some(session);
        assert_eq!(no(read(&mut w, AUD, &auditor, view, of)), "assurance");
        read(&mut w, AUD, &strong, view, of).unwrap();
        read(&mut w, REQ, &actor, view, of).unwrap();
    }
    assert_eq!(
        no(read(&mut w, AUD, &auditor, View::Actions, None)),
        "assurance"
    );
    read(&mut w, AUD, &auditor, View::Registry, None).unwrap();
}
