//! Workloads: whose tokens they are, who answers for them, what they may.

use super::*;

#[test]
fn a_workload_acts_under_its_own_grant_and_its_owner_answers_for_it() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    assert_eq!(w.state.grants[&grant].grant.person, person(BOT));
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    w.intent(session).unwrap();
    // Signed openings are the workload's as well.
    w.say_as(BOT, &key, connect(), vec![]).unwrap();
    // Its grant lets nobody else in, not even its owner, and theirs not it.
    assert_eq!(
        no(w.open_as(grant, |open| open.person = person(REQ))),
        "outside-grant"
    );
    let own = w.grant(|_| ());
    assert_eq!(no(w.open_with(own, login, &key)), "key");
    // The owner asks for more, ends sessions and takes the grant away.
    let longer = w.now.plus_millis(2 * HOUR);
    let ask = w.extend(REQ, grant, longer).unwrap();
    assert_eq!(no(w.approve(REQ, ask)), "self-approval");
    w.approve(PAT, ask).unwrap();
    w.revoke(REQ, grant).unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
}

#[test]
fn only_the_owner_asks_and_others_say_yes() {
    let mut w = World::with_providers();
    let for_bot = |request: &mut Request| request.beneficiary = Some(person(BOT));
    assert_eq!(no(w.request(PAT, for_bot)), "owner");
    assert_eq!(
        no(w.request(REQ, |r| r.beneficiary = Some(person(PAT)))),
        "no-workload"
    );
    let ask = w.request(REQ, for_bot).unwrap();
    assert_eq!(no(w.approve(REQ, ask)), "self-approval");
    // Somebody else answers for it by now.
    let new_owner = Workload {
        owner: person(PAT),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(new_owner), vec![]).unwrap();
    assert_eq!(no(w.approve(QUI, ask)), "owner");
    let ask = w.request(PAT, for_bot).unwrap();
    assert_eq!(no(w.approve(PAT, ask)), "self-approval");
    w.approve(QUI, ask).unwrap();
}

#[test]
fn a_workload_without_a_living_owner_does_nothing() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let person = person(REQ);
    w.say(ADA, Say::Offboard(Offboard { person }), vec![])
        .unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open_with(grant, login, &key)), "revoked");
    assert_eq!(no(w.log_in(BOT, |_| ())), "orphaned");
    // Somebody adopts it: it logs in again.
    let adopted = Workload {
        owner: self::person(PAT),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(adopted), vec![]).unwrap();
    assert_eq!(no(w.open_with(grant, login, &key)), "revoked");
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    w.open_with(grant, login, &key).unwrap();
}

#[test]
fn a_workloads_token_meets_every_condition_exactly() {
    let edits: [Edit<Login>; 10] = [
        (
            |l| l.claims.facts[0].value = "refs/heads/main2".into(),
            "conditions",
        ),
        (
            |l| l.claims.facts[0].value = "refs/heads/MAIN".into(),
            "conditions",
        ),
        (|l| l.claims.facts[1].value = "042".into(), "conditions"),
        (|l| drop(l.claims.facts.remove(0)), "conditions"),
        (|l| l.claims.facts.clear(), "conditions"),
        (|l| l.claims.facts.push(fact("sub", "x")), "claims"),
        (|l| l.claims.facts.reverse(), "claims"),
        (
            |l| l.claims.facts.push(fact("repository_id", "42")),
            "claims",
        ),
        (|l| l.claims.binding = Binding::Nonce, "binding"),
        (|l| l.claims.binding = Binding::None, "until"),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut w = World::with_providers();
        assert_eq!(no(w.log_in(BOT, edit)), code, "{nth}");
    }
    let mut w = World::with_providers();
    w.log_in(BOT, |l| {
        l.claims.facts[0].value = "refs/heads/hotfix".into()
    })
    .unwrap();
    // A rule that gets narrower ends what it would not let in.
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let mut narrower = deploy();
    narrower.conditions[1].one_of.remove(1);
    w.say(ADA, Say::WorkloadSet(narrower.clone()), vec![])
        .unwrap();
    w.intent(session).unwrap();
    narrower.conditions[1].one_of = vec!["refs/heads/other".to_owned()];
    w.say(ADA, Say::WorkloadSet(narrower), vec![]).unwrap();
    assert_eq!(no(w.intent(session)), "revoked");
    let gone = Workload {
        withdrawn: true,
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(gone), vec![]).unwrap();
    assert_eq!(no(w.log_in(BOT, |_| ())), "withdrawn");
    let asked = w.request(REQ, |request| request.beneficiary = Some(person(BOT)));
    assert_eq!(no(asked), "withdrawn");
}

#[test]
fn a_rule_that_many_could_meet_is_confirmed_in_writing() {
    let rules: [(ProviderKind, &[&str], &str, Option<&str>); 23] = [
        (ProviderKind::Github, &["repository_id", "ref"], "42", None),
        (
            ProviderKind::Github,
            &["repository_id", "environment"],
            "42",
            None,
        ),
        (
            ProviderKind::Github,
            &["repository_id"],
            "42",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository", "ref"],
            "42",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["sub"],
            "repo:a/b:ref:main",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_owner"],
            "acme",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "*",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "refs/tags/*",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref", "event_name"],
            "push",
            None,
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref", "event_name"],
            "pull_request_target",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Github,
            &["repository_id", "ref"],
            "refs/pull/7/merge",
            Some("wide-rule"),
        ),
        (ProviderKind::Gitlab, &["project_id"], "7", None),
        (
            ProviderKind::Gitlab,
            &["namespace_path"],
            "acme",
            Some("wide-rule"),
        ),
        (ProviderKind::Buildkite, &["pipeline_id"], "7", None),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug"],
            "x",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug", "organization_slug"],
            "x",
            None,
        ),
        (
            ProviderKind::Circleci,
            &["oidc.circleci.com/project-id"],
            "7",
            None,
        ),
        (
            ProviderKind::Circleci,
            &["oidc.circleci.com/org-id"],
            "7",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Kubernetes,
            &["kubernetes.io/namespace"],
            "x",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Kubernetes,
            &[
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/name",
            ],
            "x",
            None,
        ),
        (ProviderKind::Spiffe, &["sub"], "spiffe://a/b", None),
        (
            ProviderKind::Spiffe,
            &["sub"],
            "spiffe://a/*",
            Some("wide-rule"),
        ),
        (ProviderKind::Workload, &["scope"], "x", Some("wide-rule")),
    ];
    for (kind, claims, value, refused) in rules {
        let mut w = World::plain();
        w.say(ADA, Say::ProviderSet(provider("ci", kind)), vec![])
            .unwrap();
        let mut rule = deploy();
        rule.conditions = claims
            .iter()
            .map(|claim| condition(claim, &[value]))
            .collect();
        let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![]);
        assert_eq!(
            done.err().map(|d| d.code),
            refused,
            "{kind:?} {claims:?} {value}"
        );
        if refused.is_none() {
            continue;
        }
        let (short, short_text) = prose("confirmed", "yes");
        rule.confirmed = Some(short);
        let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![short_text]);
        assert_eq!(no(done), "prose");
        let (text, opening) = prose("confirmed", "every branch of this sandbox may deploy to it");
        rule.confirmed = Some(text);
        w.say(ADA, Say::WorkloadSet(rule), vec![opening]).unwrap();
    }
}

#[test]
fn a_workloads_rule_is_within_bounds() {
    let mut w = World::with_providers();
    let edits: [Edit<Workload>; 15] = [
        (|r| r.name = "Deploy".into(), "workload"),
        (|r| r.workload = person(81), "duplicate"),
        (|r| r.workload = person(PAT), "duplicate"),
        (|r| r.owner = person(99), "no-person"),
        (|r| r.owner = person(BOT), "no-person"),
        (|r| r.provider = "other".into(), "no-provider"),
        (|r| r.provider = "idp".into(), "workload"),
        (|r| r.conditions.clear(), "workload"),
        (
            |r| r.conditions = vec![r.conditions[0].clone(); 17],
            "workload",
        ),
        (|r| r.conditions.push(r.conditions[0].clone()), "workload"),
        (|r| r.conditions[0].claim = "a\u{202e}".into(), "workload"),
        (|r| r.conditions[0].one_of.clear(), "workload"),
        (|r| r.conditions[0].one_of.push("42".into()), "workload"),
        (|r| r.conditions[0].one_of = vec![" 42".into()], "workload"),
        (
            |r| r.conditions[0].one_of = vec!["x".repeat(513)],
            "workload",
        ),
    ];
    for (nth, (edit, code)) in edits.into_iter().enumerate() {
        let mut rule = deploy();
        edit(&mut rule);
        let done = w.say(ADA, Say::WorkloadSet(rule), vec![]);
        assert_eq!(no(done), code, "{nth}");
    }
    assert_eq!(no(w.say(PAT, Say::WorkloadSet(deploy()), vec![])), "role");
    let person = person(PAT);
    w.say(ADA, Say::Offboard(Offboard { person }), vec![])
        .unwrap();
    let left = Workload {
        owner: person,
        ..deploy()
    };
    assert_eq!(no(w.say(ADA, Say::WorkloadSet(left), vec![])), "owner");
    let (mut add, name) = enrol(BOT, &[]);
    add.person = self::person(BOT);
    assert_eq!(no(w.say(ADA, Say::PersonAdd(add), vec![name])), "duplicate");
}

#[test]
fn a_workload_only_acts() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    let (login, key) = w.log_in(BOT, |_| ()).unwrap();
    let session = w.open_with(grant, login, &key).unwrap();
    let theirs = w.grant(|_| ());
    let others = w.open(theirs).unwrap();
    let ask = w.request(REQ, |_| ()).unwrap();
    let (request, why) = w.request_for();
    let (reason, because) = prose("reason", "no longer needed");
    let query = opening("query", "q");
    let read = |view, session| {
        Say::Read(Read {
            view,
            query: query.commitment(),
            request: None,
            session,
        })
    };
    let refused: Vec<(Say, Vec<Opening>)> = vec![
        (Say::Request(request), vec![why]),
        (Say::Approval(answer(ask)), vec![]),
        (Say::Denial(answer(ask)), vec![]),
        (Say::Cancellation(answer(ask)), vec![]),
        (Say::Use(UseGrant { grant }), vec![]),
        (Say::Revocation(Revocation { grant, reason }), vec![because]),
        (Say::WorkloadSet(deploy()), vec![]),
        (Say::TargetSet(target("db2")), vec![]),
        (Say::IdentityUnlink(link(REQ)), vec![]),
        (read(View::Registry, None), vec![query.clone()]),
        (read(View::Actions, None), vec![query.clone()]),
        (read(View::Watch, Some(session)), vec![query.clone()]),
    ];
    for (say, openings) in refused {
        let tag = say.tag();
        assert_eq!(no(w.say_as(BOT, &key, say, openings)), "workload", "{tag}");
    }
    let done = w.say_as(
        BOT,
        &key,
        read(View::Replay, Some(others)),
        vec![query.clone()],
    );
    assert_eq!(no(done), "role");
    w.say_as(
        BOT,
        &key,
        read(View::Replay, Some(session)),
        vec![query.clone()],
    )
    .unwrap();
    // Nobody makes more of it than that.
    let pair = PersonKey {
        person: person(BOT),
        key: self::key(BOT, 0),
    };
    let leaver = Offboard {
        person: person(BOT),
    };
    let mut owned = target("db1");
    owned.break_glass = vec![person(BOT)];
    for say in [
        Say::KeyAdd(pair),
        Say::Offboard(leaver),
        Say::TargetSet(owned),
    ] {
        assert_eq!(no(w.say(ADA, say, vec![])), "no-person");
    }
    w.say_as(BOT, &key, Say::Logout(Logout { login }), vec![])
        .unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
}

#[test]
fn a_token_of_one_workload_is_no_login_of_another() {
    let mut w = World::with_providers();
    let other = Workload {
        conditions: vec![
            condition("repository_id", &["43"]),
            condition("ref", &["refs/heads/main"]),
        ],
        name: "report".to_owned(),
        workload: person(BOT + 1),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(other), vec![]).unwrap();
    // The job of `deploy` calls itself `report`, with what its token says and with what it does not.
    let mut draft = w.draft(BOT);
    draft.by = BOT + 1;
    assert_eq!(no(w.hand_in(&draft)), "conditions");
    let mut draft = w.draft(BOT);
    draft.by = BOT + 1;
    draft.token = Some(draft.login.claims.clone());
    draft.login.claims.facts = vec![fact("ref", "refs/heads/main"), fact("repository_id", "43")];
    assert_eq!(no(w.hand_in(&draft)), "claims");
    // What was refused was not spent: it is still the token of whom it names.
    let draft = w.draft(BOT);
    w.hand_in(&draft).unwrap();
}
