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
    let rules: [(ProviderKind, &[&str], &str, Option<&str>); 20] = [
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
        (
            ProviderKind::Gitlab,
            &["namespace_path"],
            "acme",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug"],
            "x",
            Some("wide-rule"),
        ),
        (
            ProviderKind::Buildkite,
            &["pipeline_slug", "organization_slug", "build_branch"],
            "x",
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
        let values = [value];
        let conditions: Vec<(&str, &[&str])> =
            claims.iter().map(|claim| (*claim, &values[..])).collect();
        judge_rule(kind, &conditions, refused);
    }
}

/// Is a rule of these conditions refused like this, and taken when it is confirmed?
fn judge_rule(kind: ProviderKind, conditions: &[(&str, &[&str])], refused: Option<&str>) {
    let mut w = World::plain();
    w.say(ADA, Say::ProviderSet(provider("ci", kind)), vec![])
        .unwrap();
    let mut rule = deploy();
    rule.conditions = conditions
        .iter()
        .map(|(claim, one_of)| condition(claim, one_of))
        .collect();
    let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![]);
    let code = done.err().map(|d| d.code);
    assert_eq!(code, refused, "{kind:?} {conditions:?}");
    if refused.is_none() {
        return;
    }
    let (short, short_text) = prose("confirmed", "yes");
    rule.confirmed = Some(short);
    let done = w.say(ADA, Say::WorkloadSet(rule.clone()), vec![short_text]);
    assert_eq!(no(done), "prose");
    let (text, opening) = prose("confirmed", "every branch of this sandbox may deploy to it");
    rule.confirmed = Some(text);
    w.say(ADA, Say::WorkloadSet(rule), vec![opening]).unwrap();
}

const ORIGIN_OF: &str = "oidc.circleci.com/vcs-origin";
const REF_OF: &str = "oidc.circleci.com/vcs-ref";
const PROJECT_OF: &str = "oidc.circleci.com/project-id";

/// Conditions, and whether a rule of them needs a confirmation.
type Judged<'a> = (&'a [(&'a str, &'a [&'a str])], bool);

fn judge_rules(kind: ProviderKind, rules: &[Judged<'_>]) {
    for (conditions, wide) in rules {
        judge_rule(kind, conditions, wide.then_some("wide-rule"));
    }
}

#[test]
fn a_gitlab_rule_that_every_branch_or_a_merge_request_meets_is_confirmed_in_writing() {
    let project: (&str, &[&str]) = ("project_id", &["7"]);
    let main: (&str, &[&str]) = ("ref", &["main"]);
    let rules: &[Judged<'_>] = &[
        (&[project], true),
        (&[project, main], true),
        (&[project, main, ("ref_type", &["branch"])], false),
        (&[project, ("ref_path", &["refs/heads/main"])], false),
        (&[project, ("environment", &["production"])], false),
        (&[project, ("ref_protected", &["true"])], false),
        (&[project, ("ref_protected", &["false"])], true),
        (&[project, ("ref_protected", &["true", "false"])], true),
        (
            &[project, ("ref_path", &["refs/merge-requests/1/head"])],
            true,
        ),
        (
            &[
                project,
                ("environment", &["review"]),
                ("pipeline_source", &["push", "merge_request_event"]),
            ],
            true,
        ),
    ];
    judge_rules(ProviderKind::Gitlab, rules);
}

#[test]
fn a_buildkite_rule_that_a_forks_branch_meets_is_confirmed_in_writing() {
    let pipeline: (&str, &[&str]) = ("pipeline_id", &["7"]);
    let organization: (&str, &[&str]) = ("organization_slug", &["acme"]);
    let rules: &[Judged<'_>] = &[
        (&[pipeline], true),
        (&[("pipeline_slug", &["shop"]), organization], true),
        // Forks' builds and pushes both begin with a webhook.
        (&[pipeline, ("build_source", &["webhook"])], true),
        (&[pipeline, ("build_branch", &["main"])], false),
        (&[pipeline, ("build_tag", &["v1"])], false),
        (&[pipeline, ("build_branch", &["main", "evil:main"])], true),
        (&[pipeline, ("build_branch", &["pull/9/head"])], true),
    ];
    judge_rules(ProviderKind::Buildkite, rules);
}

#[test]
fn a_circleci_rule_that_a_forks_pipeline_meets_is_confirmed_in_writing() {
    let project: (&str, &[&str]) = (PROJECT_OF, &["7"]);
    let origin: (&str, &[&str]) = (ORIGIN_OF, &["github.com/acme/shop"]);
    let main: (&str, &[&str]) = (REF_OF, &["refs/heads/main"]);
    let rules: &[Judged<'_>] = &[
        (&[project], true),
        // A fork has a branch of that name as well.
        (&[project, main], true),
        (&[project, origin], true),
        (&[project, origin, main], false),
        (&[project, origin, (REF_OF, &["refs/pull/9/head"])], true),
    ];
    judge_rules(ProviderKind::Circleci, rules);
}

/// A login of the workload, whose token names this code.
fn of_code(w: &mut World, facts: &[(&str, &str)], reference: &str) -> Result<(), Denied> {
    let facts = facts.iter().map(|(claim, value)| fact(claim, value));
    let facts: Vec<Fact> = facts.collect();
    let code = Code {
        reference: Some(reference.to_owned()),
        ..Code::default()
    };
    let edit = |login: &mut Login| (login.claims.facts, login.claims.code) = (facts, Some(code));
    w.log_in(BOT, edit).map(drop)
}

#[test]
fn a_run_that_is_evidently_of_a_fork_enters_by_a_confirmed_rule_alone() {
    let build: (ProviderKind, &[(&str, &str)]) = (
        ProviderKind::Buildkite,
        &[("build_tag", "v1"), ("pipeline_id", "7")],
    );
    let circle: (ProviderKind, &[(&str, &str)]) = (
        ProviderKind::Circleci,
        &[
            (PROJECT_OF, "7"),
            (ORIGIN_OF, "github.com/acme/shop"),
            (REF_OF, "refs/heads/main"),
        ],
    );
    for ((kind, facts), forks, own) in [
        (
            build,
            ["evil:main", "pull/9/head", "refs/pull/9/merge"],
            ["main", "pulled/main"],
        ),
        (
            circle,
            [
                "refs/pull/9/head",
                "refs/heads/pull/9",
                "refs/merge-requests/9/head",
            ],
            ["refs/heads/main", "refs/tags/v1"],
        ),
    ] {
        let mut w = World::plain();
        w.say(ADA, Say::ProviderSet(provider("ci", kind)), vec![])
            .unwrap();
        w.publish("ci", &[3]).unwrap();
        let mut rule = deploy();
        let conditions = facts
            .iter()
            .map(|(claim, value)| condition(claim, &[value]));
        rule.conditions = conditions.collect();
        w.say(ADA, Say::WorkloadSet(rule.clone()), vec![]).unwrap();
        for fork in forks {
            assert_eq!(no(of_code(&mut w, facts, fork)), "token-fork", "{fork}");
        }
        for own in own {
            of_code(&mut w, facts, own).unwrap();
        }
        let (text, opening) = prose("confirmed", "pull requests try this sandbox out");
        rule.confirmed = Some(text);
        w.say(ADA, Say::WorkloadSet(rule), vec![opening]).unwrap();
        of_code(&mut w, facts, forks[0]).unwrap();
    }
}

#[test]
fn an_older_log_keeps_its_rules_and_its_forks_until_a_newer_entry() {
    let mut w = World::empty();
    let people = everybody();
    w.record_as_once(Body::Genesis(genesis(1, &people)))
        .unwrap();
    let circle = Say::ProviderSet(provider("ci", ProviderKind::Circleci));
    w.say_as_once(ADA, circle).unwrap();
    let mut rule = deploy();
    rule.conditions = vec![condition(PROJECT_OF, &["7"])];
    w.say_as_once(ADA, Say::WorkloadSet(rule.clone())).unwrap();
    w.publish("ci", &[3]).unwrap();
    // By now it is not made so any more, lets nobody else's code in, and still whom it meant.
    let done = w.say(ADA, Say::WorkloadSet(rule), vec![]);
    assert_eq!(no(done), "wide-rule");
    let facts = [(PROJECT_OF, "7")];
    let fork = of_code(&mut w, &facts, "refs/pull/9/head");
    assert_eq!(no(fork), "token-fork");
    of_code(&mut w, &facts, "refs/heads/main").unwrap();
}

#[test]
fn a_rules_age_is_that_of_what_it_lets_in() {
    let mut w = World::with_providers();
    let since = |w: &World| w.state.workloads[&person(BOT)].at;
    let first = since(&w);
    let set = |w: &mut World, edit: fn(&mut Workload)| {
        let mut rule = deploy();
        edit(&mut rule);
        w.after(MIN)
            .say(ADA, Say::WorkloadSet(rule), vec![])
            .unwrap();
    };
    set(&mut w, |rule| rule.owner = person(PAT));
    set(&mut w, |rule| rule.name = "shop".to_owned());
    set(&mut w, |rule| rule.withdrawn = true);
    assert_eq!(since(&w), first);
    // It is let in anew, or others are.
    set(&mut w, |_| ());
    let second = since(&w);
    assert!(second > first);
    set(&mut w, |rule| drop(rule.conditions[1].one_of.remove(1)));
    assert!(since(&w) > second);
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

#[test]
fn a_login_repeats_how_its_run_was_protected() {
    let protected = |word: &str| {
        Some(Protection {
            ref_protected: Some(word.to_owned()),
            ..Protection::default()
        })
    };
    let mut w = World::with_providers();
    let mut draft = w.draft(BOT);
    let mut said = draft.login.claims.clone();
    said.protection = protected("false");
    draft.token = Some(said.clone());
    // Kept back, or made up.
    assert_eq!(no(w.hand_in(&draft)), "claims");
    draft.login.claims.protection = protected("true");
    assert_eq!(no(w.hand_in(&draft)), "claims");
    draft.login.claims.protection = protected("\u{202e}");
    assert_eq!(no(w.hand_in(&draft)), "claims");
    draft.login.claims.protection = protected("false");
    w.hand_in(&draft).unwrap();
    // Whoever checks years later takes a login of a log that knew of none, and nothing made up.
    let commitment = key_commitment(&draft.key, &draft.login.rz.0);
    let token = format!("{commitment}\n{}", serde_json::to_string(&said).unwrap());
    let known = &w.state.providers["ci"];
    let keys = known.keys.as_ref().unwrap();
    let mut login = draft.login.clone();
    login.digest = token_digest(token.as_bytes());
    for (states, good) in [
        (protected("false"), true),
        (None, true),
        (protected("true"), false),
    ] {
        login.claims.protection = states;
        let (provider, keys) = (&known.provider, &keys.body.0);
        let done = check_token(
            &Fake,
            provider,
            keys,
            &draft.key,
            &login,
            token.as_bytes(),
            &[],
        );
        assert_eq!(done.is_ok(), good);
    }
}
