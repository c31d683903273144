//! Providers and the keys that they publish.

use super::*;

#[test]
fn providers_and_their_keys_are_what_they_must_be() {
    let mut w = World::with_providers();
    let edits: [Edit<Provider>; 15] = [
        (|p| p.max_keys_age_seconds = Some(3_599), "provider"),
        (|p| p.max_keys_age_seconds = Some(604_801), "provider"),
        (|p| p.name = "Corp IdP".into(), "provider"),
        (|p| p.issuer = String::new(), "provider"),
        (|p| p.issuer = "https://a b".into(), "provider"),
        (|p| p.issuer = "https://a\u{200b}b".into(), "provider"),
        (|p| p.audience = String::new(), "provider"),
        (|p| p.audience = "x".repeat(256), "provider"),
        (
            |p| p.jwks_uri = "http://idp.example/keys".into(),
            "provider",
        ),
        (
            |p| p.jwks_uri = "http://localhost.evil/keys".into(),
            "provider",
        ),
        (|p| p.jwks_uri = "file:///etc/passwd".into(), "provider"),
        (|p| p.algorithms.clear(), "provider"),
        (|p| p.algorithms = vec!["none".into()], "provider"),
        (|p| p.algorithms = vec!["HS256".into()], "provider"),
        (|p| p.algorithms = vec!["ES256".into(); 2], "provider"),
    ];
    for (edit, code) in edits {
        let mut other = provider("other", ProviderKind::Oidc);
        edit(&mut other);
        assert_eq!(no(w.say(ADA, Say::ProviderSet(other), vec![])), code);
    }
    let idp = || provider("idp", ProviderKind::Oidc);
    assert_eq!(no(w.say(PAT, Say::ProviderSet(idp()), vec![])), "role");
    let gone = Provider {
        withdrawn: true,
        ..provider("never", ProviderKind::Oidc)
    };
    assert_eq!(
        no(w.say(ADA, Say::ProviderSet(gone), vec![])),
        "no-provider"
    );
    let edits: [Edit<ProviderKeys>; 6] = [
        (|k| k.provider = "other".into(), "no-provider"),
        (|k| k.uri.push('2'), "provider-keys"),
        (
            |k| k.fetched = k.fetched.plus_millis(-SIGNER_SKEW_MS - 1),
            "provider-keys",
        ),
        (|k| k.headers = vec!["x: y".into(); 17], "provider-keys"),
        (|k| k.headers = vec!["a\nb".into()], "provider-keys"),
        (|k| k.body.0.clear(), "jwks"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.publish_as(SERVER, edit, "idp", &[4])), code);
    }
    assert_eq!(no(w.publish_as("gw", |_| (), "idp", &[4])), "provider-keys");
    // A key that is rotated away counts no more, for new logins.
    let grant = w.grant(|_| ());
    let (login, key) = w.log_in(REQ, |_| ()).unwrap();
    w.publish("idp", &[2]).unwrap();
    assert_eq!(no(w.log_in(REQ, |_| ())), "token");
    w.log_in(REQ, |l| l.claims.key = thumbprint(2)).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    w.intent(session).unwrap();
    // Another place to publish them starts anew.
    let moved = Provider {
        jwks_uri: "https://idp.example/new".to_owned(),
        ..idp()
    };
    w.say(ADA, Say::ProviderSet(moved), vec![]).unwrap();
    let done = w.log_in(REQ, |l| l.claims.key = thumbprint(2));
    assert_eq!(no(done), "provider-keys");
    assert_eq!(no(w.intent(session)), "revoked");
}

#[test]
fn a_provider_that_means_less_than_it_did_ends_its_logins() {
    type Change = fn(&mut Provider);
    let edits: [(Change, bool); 8] = [
        (|p| p.max_keys_age_seconds = Some(7_200), true),
        (|p| p.algorithms.push("RS256".into()), true),
        (|p| p.algorithms = vec!["RS256".into()], false),
        (|p| p.audience.push('2'), false),
        (|p| p.issuer.push('2'), false),
        (|p| p.jwks_uri.push('2'), false),
        (|p| p.kind = ProviderKind::Entra, false),
        (|p| p.withdrawn = true, false),
    ];
    for (edit, goes_on) in edits {
        let mut w = World::with_providers();
        let grant = w.grant(|_| ());
        let (login, key) = w.log_in(REQ, |_| ()).unwrap();
        let session = w.open_with(grant, login, &key).unwrap();
        let mut now = provider("idp", ProviderKind::Oidc);
        edit(&mut now);
        w.say(ADA, Say::ProviderSet(now), vec![]).unwrap();
        assert_eq!(w.intent(session).is_ok(), goes_on);
        // As it was: what had ended stays ended.
        let before = Say::ProviderSet(provider("idp", ProviderKind::Oidc));
        w.say(ADA, before, vec![]).unwrap();
        assert_eq!(w.intent(session).is_ok(), goes_on);
    }
}

#[test]
fn a_replay_without_the_token_still_wants_a_key_that_was_published() {
    let mut w = World::with_providers();
    w.log_in(REQ, |_| ()).unwrap();
    let last = w.log.len() - 1;
    let entry = Entry::from_bytes(&w.log[last]).unwrap();
    let Body::Statement(signed) = &entry.body else {
        panic!("no statement")
    };
    let statement = signed.statement().unwrap();
    let mut forged = statement.clone();
    if let Say::Login(login) = &mut forged.say {
        login.claims.key = thumbprint(9);
    }
    let mut other = entry.clone();
    other.body = Body::Statement(sign(&key(243, 0), &forged));
    let mut state = State::new(ORIGIN);
    for bytes in &w.log[..last] {
        state.apply(&Fake, bytes).unwrap();
    }
    assert_eq!(
        no(state.apply(&Fake, &other.to_bytes().unwrap())),
        "provider-key"
    );
}

/// GitLab's jobs, where the provider has this audience.
fn of_gitlab(audience: &str) -> World {
    let mut w = World::with_providers();
    let mut lab = provider("lab", ProviderKind::Gitlab);
    lab.audience = audience.to_owned();
    w.say(ADA, Say::ProviderSet(lab), vec![]).unwrap();
    w.publish("lab", &[3]).unwrap();
    let mut rule = deploy();
    rule.provider = "lab".to_owned();
    rule.conditions = vec![
        condition("project_id", &["7"]),
        condition("ref_path", &["refs/heads/main"]),
    ];
    w.say(ADA, Say::WorkloadSet(rule), vec![]).unwrap();
    w
}

fn job_of_gitlab(login: &mut Login, binding: Binding) {
    login.provider = "lab".to_owned();
    login.claims.facts = vec![fact("project_id", "7"), fact("ref_path", "refs/heads/main")];
    login.claims.binding = binding;
    login.until = login.claims.expires;
}

#[test]
fn gitlabs_tokens_count_by_proofs_alone_and_no_longer_than_they_do() {
    let lab = || of_gitlab("OPENPUBKEY-PKTOKEN:ascribe");
    for binding in [
        Binding::None,
        Binding::Audience,
        Binding::Key,
        Binding::Nonce,
    ] {
        let done = lab().log_in(BOT, |l| job_of_gitlab(l, binding));
        assert_eq!(no(done), "binding", "{binding:?}");
    }
    let mut w = lab();
    let (_, key) = w.log_in(BOT, |l| job_of_gitlab(l, Binding::Proof)).unwrap();
    // Whoever else came by the token could have bound a key of theirs.
    assert_eq!(w.state.assurance(&key.fingerprint()), 1);
    let longer = w.log_in(BOT, |l| {
        job_of_gitlab(l, Binding::Proof);
        l.until = l.until.plus_millis(1);
    });
    assert_eq!(no(longer), "until");
    let password = w.log_in(BOT, |l| {
        job_of_gitlab(l, Binding::Proof);
        l.bearer = true;
    });
    assert_eq!(no(password), "bearer");
    // Nobody said of such a token that it may be turned into a proof.
    let mut w = of_gitlab("ascribe");
    let done = w.log_in(BOT, |l| job_of_gitlab(l, Binding::Proof));
    assert_eq!(no(done), "gitlab");
    // Elsewhere it takes the provider's audience to make proofs count.
    let done = World::with_providers().log_in(BOT, |l| {
        l.claims.binding = Binding::Proof;
        l.until = l.claims.expires;
    });
    assert_eq!(no(done), "binding");
}

#[test]
fn the_issuer_of_x509_svids_is_their_trust_domain() {
    for (issuer, refused) in [
        ("spiffe://example.org", None),
        ("spiffe://", Some("provider")),
        ("spiffe://Example.org", Some("provider")),
        ("spiffe://example.org/a", Some("provider")),
        ("https://example.org", Some("provider")),
    ] {
        let mut w = World::plain();
        let mut mesh = provider("mesh", ProviderKind::SpiffeX509);
        mesh.issuer = issuer.into();
        let done = w.say(ADA, Say::ProviderSet(mesh), vec![]);
        assert_eq!(done.err().map(|d| d.code), refused, "{issuer}");
    }
}

#[test]
fn keys_that_nobody_saw_published_for_too_long_let_nobody_in() {
    const DAY: i64 = 24 * HOUR;
    let mut w = World::with_providers();
    w.after(DAY - 1);
    w.log_in(REQ, |_| ()).unwrap();
    w.after(1);
    assert_eq!(no(w.log_in(REQ, |_| ())), "provider-keys-age");
    assert_eq!(no(w.log_in(BOT, |_| ())), "provider-keys-age");
    // The same keys, seen again, count again; another provider's are as old as they were.
    w.publish("idp", &[1, 2]).unwrap();
    w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(no(w.log_in(BOT, |_| ())), "provider-keys-age");
    // An hour for this one; what it makes too old is too old at once.
    let mut strict = provider("idp", ProviderKind::Oidc);
    strict.max_keys_age_seconds = Some(3_600);
    w.after(HOUR);
    w.say(ADA, Say::ProviderSet(strict), vec![]).unwrap();
    assert_eq!(no(w.log_in(REQ, |_| ())), "provider-keys-age");
    w.publish("idp", &[1, 2]).unwrap();
    w.log_in(REQ, |_| ()).unwrap();
}

#[test]
fn a_replay_without_the_token_still_wants_keys_that_are_fresh() {
    let mut w = World::with_providers();
    w.log_in(REQ, |_| ()).unwrap();
    let last = w.log.len() - 1;
    let mut entry = Entry::from_bytes(&w.log[last]).unwrap();
    let Body::Statement(signed) = &entry.body else {
        panic!("no statement")
    };
    let mut late = signed.statement().unwrap();
    let day = 24 * HOUR;
    if let Say::Login(login) = &mut late.say {
        login.claims.issued = login.claims.issued.plus_millis(day);
        login.claims.expires = login.claims.expires.plus_millis(day);
        login.until = login.until.plus_millis(day);
    }
    late.at = late.at.plus_millis(day);
    entry.at = entry.at.plus_millis(day);
    entry.body = Body::Statement(sign(&key(243, 0), &late));
    let mut state = State::new(ORIGIN);
    for bytes in &w.log[..last] {
        state.apply(&Fake, bytes).unwrap();
    }
    let done = state.apply(&Fake, &entry.to_bytes().unwrap());
    assert_eq!(no(done), "provider-keys-age");
}
