//! A good token of each provider, and what is read of it.

use ascribe_core::encoding;
use ascribe_core::id::ContentDigest;
use ascribe_core::identity::{
    Binding, Claims, Code, Fact, ProviderKind, Run, Trigger, subject, token_digest,
};
use ascribe_core::law::Judge as _;
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, key_thumbprints};
use serde_json::{Value, json};

use super::issuer::{ISSUER, Login, NOW, ORDER, STRANGER, judge};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// The claims; they can be recorded as they are.
fn good(login: &Login) -> Claims {
    let claims = login.check().unwrap();
    let bytes = encoding::encode(&claims).unwrap();
    assert_eq!(encoding::decode::<Claims>(&bytes).unwrap(), claims);
    claims
}

fn thumbprint(jwk: Value) -> ContentDigest {
    key_thumbprints(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()[0]
}

#[test]
fn a_person_is_issuer_and_subject_and_bound_to_their_key() {
    let mut login = Login::of(ProviderKind::Oidc);
    let expected = Claims {
        acr: some("urn:example:mfa"),
        amr: vec!["pwd".into(), "otp".into()],
        auth_time: Some(at(NOW - 60)),
        binding: Binding::Nonce,
        code: None,
        expires: at(NOW + 3600),
        facts: vec![],
        groups: vec![],
        issued: at(NOW),
        key: thumbprint(ISSUER.jwk("RS256")),
        managers: vec![],
        missing: vec![],
        protection: None,
        run: None,
        subject: subject("https://id.example", "248289761001"),
        trigger: None,
    };
    assert_eq!(good(&login), expected);
    // The device flow drops the nonce.
    login.no_claim("nonce");
    let claims = good(&login);
    assert_eq!(claims.binding, Binding::None);
    assert_eq!(
        claims.missing,
        ["the token is bound to no key: whoever saw it could use it"]
    );
}

#[test]
fn a_person_at_entra_is_tenant_and_object() {
    let mut login = Login::of(ProviderKind::Entra);
    let name = "11111111-2222-4333-8444-555555555555/99999999-8888-4777-8666-555555555555";
    let expected = subject(&login.provider.issuer, name);
    assert_eq!(good(&login).subject, expected);
    // Keys are every tenant's, or one's own.
    for issuer in [
        "https://login.microsoftonline.com/{tenantid}/v2.0",
        &*login.provider.issuer.clone(),
    ] {
        login.jwk()["issuer"] = json!(issuer);
        assert_eq!(good(&login).subject, expected);
    }
    // Another client sees another `sub` of the same account.
    login.claim("sub", json!("another"));
    assert_eq!(good(&login).subject, expected);
}

#[test]
fn a_job_of_github_names_run_code_and_trigger() {
    let mut login = Login::of(ProviderKind::Github);
    login.facts = vec!["repository_id", "environment", "repository_id", "absent"];
    let claims = good(&login);
    let run = Run {
        attempt: some("1"),
        id: "16501001".into(),
        job: some("48765432101"),
        provider: "github".into(),
    };
    let code = Code {
        commit: some(SHA),
        reference: some("refs/heads/main"),
        repo: some("74"),
        workflow: some("example-org/shared/.github/workflows/deploy.yml@refs/heads/main"),
        workflow_commit: some("89abcdef0123456789abcdef0123456789abcdef"),
    };
    assert_eq!(claims.run, Some(run));
    assert_eq!(claims.code, Some(code));
    assert_eq!(
        claims.trigger,
        Some(Trigger {
            event: some("workflow_dispatch"),
            id: some("12")
        })
    );
    let fact = |claim: &str, value: &str| Fact {
        claim: claim.into(),
        value: value.into(),
    };
    assert_eq!(
        claims.facts,
        [fact("environment", "prod"), fact("repository_id", "74")]
    );
    assert_eq!(
        (claims.binding, claims.missing),
        (Binding::Audience, vec![])
    );
    assert_eq!(
        (claims.acr, claims.amr.len(), claims.auth_time),
        (None, 0, None)
    );
}

#[test]
fn how_a_run_was_protected_is_said_in_the_providers_words() {
    let words = |login: &Login| {
        let protection = good(login).protection.unwrap_or_default();
        let parts = protection.parts();
        let parts: Vec<String> = parts.map(|(name, text)| format!("{name} {text}")).collect();
        parts.join(", ")
    };
    let mut job = Login::of(ProviderKind::Github);
    assert_eq!(
        words(&job),
        "environment prod, ref_protected true, runner_environment github-hosted"
    );
    for claim in ["environment", "ref_protected", "runner_environment"] {
        job.no_claim(claim);
    }
    assert_eq!(good(&job).protection, None);
    let mut job = Login::of(ProviderKind::Gitlab);
    job.claim("environment", json!("production/eu"));
    job.claim("environment_protected", json!("false"));
    job.claim("deployment_tier", json!("production"));
    assert_eq!(
        words(&job),
        "deployment_tier production, environment production/eu, environment_protected false, ref_protected true, runner_environment gitlab-hosted"
    );
    // A list is no word of a provider's.
    job.claim("ref_protected", json!(["true"]));
    assert_eq!(job.check().unwrap_err().code, "token-claim");
    for kind in [
        ProviderKind::Buildkite,
        ProviderKind::Circleci,
        ProviderKind::Kubernetes,
    ] {
        let mut job = Login::of(kind);
        job.claim("ref_protected", json!("true"));
        assert_eq!(good(&job).protection, None, "{kind:?}");
    }
}

#[test]
fn who_ran_a_job_again_and_who_planned_it_is_not_taken_for_who_started_it() {
    let mut login = Login::of(ProviderKind::Github);
    login.claim("run_attempt", json!("2"));
    login.no_claim("check_run_id");
    let again = [
        "GitHub names who started the first run, not who ran it again",
        "the token does not name the job",
    ];
    assert_eq!(good(&login).missing, again);

    let mut login = Login::of(ProviderKind::Github);
    login.claim("event_name", json!("schedule"));
    let claims = good(&login);
    assert_eq!(
        claims.trigger,
        Some(Trigger {
            event: some("schedule"),
            id: None
        })
    );
    let planned =
        ["a schedule started the run: the account that GitHub names last changed the schedule"];
    assert_eq!(claims.missing, planned);

    let mut login = Login::of(ProviderKind::Gitlab);
    login.claim("pipeline_source", json!("schedule"));
    assert_eq!(
        good(&login).trigger,
        Some(Trigger {
            event: some("schedule"),
            id: None
        })
    );
}

#[test]
fn a_pull_request_counts_only_for_a_rule_about_events() {
    for (name, value) in [
        ("event_name", "pull_request"),
        ("event_name", "pull_request_target"),
        ("ref", "refs/pull/7/merge"),
    ] {
        let mut login = Login::of(ProviderKind::Github);
        login.claim(name, json!(value));
        assert_eq!(login.check().unwrap_err().code, "token-fork", "{value}");
        login.facts = vec!["event_name"];
        assert_eq!(good(&login).facts[0].claim, "event_name", "{value}");
    }
    let mut login = Login::of(ProviderKind::Gitlab);
    login.claim("pipeline_source", json!("merge_request_event"));
    good(&login);
    login.claim("project_id", json!("21"));
    assert_eq!(login.check().unwrap_err().code, "token-fork");
    // Older servers do not name the job's project.
    login.no_claim("job_project_id");
    assert_eq!(good(&login).code.unwrap().repo, some("21"));
}

#[test]
fn a_job_of_gitlab_bound_its_token_itself_and_that_is_said() {
    let mut login = Login::of(ProviderKind::Gitlab);
    let claims = good(&login);
    let run = Run {
        attempt: None,
        id: "574".into(),
        job: some("302"),
        provider: "gitlab".into(),
    };
    let code = Code {
        commit: some(SHA),
        reference: some("refs/heads/main"),
        repo: some("20"),
        workflow: some("gitlab.com/example-group/app//.gitlab-ci.yml@refs/heads/main"),
        workflow_commit: some(SHA),
    };
    assert_eq!((claims.run, claims.code), (Some(run), Some(code)));
    assert_eq!(
        claims.trigger,
        Some(Trigger {
            event: some("push"),
            id: some("1")
        })
    );
    assert_eq!(claims.binding, Binding::Proof);
    assert_eq!(
        claims.missing,
        [
            "the provider bound the token to no key, whoever proved it did: whoever else had it before that could have"
        ]
    );
    // The configuration may come from outside of GitLab.
    login.claim("ci_config_sha", Value::Null);
    login.no_claim("ref_path");
    let code = good(&login).code.unwrap();
    assert_eq!((code.workflow_commit, code.reference), (None, some("main")));
}

#[test]
fn a_job_of_buildkite_names_nobody() {
    let mut login = Login::of(ProviderKind::Buildkite);
    let claims = good(&login);
    let job = "01890000-0000-4000-8000-000000000002";
    let run = Run {
        attempt: None,
        id: "1".into(),
        job: some(job),
        provider: "buildkite".into(),
    };
    let repo = some("01890000-0000-4000-8000-000000000004");
    let code = Code {
        commit: some(SHA),
        reference: some("main"),
        repo,
        ..Code::default()
    };
    assert_eq!((claims.run, claims.code), (Some(run), Some(code)));
    assert_eq!(
        claims.trigger,
        Some(Trigger {
            event: some("ui"),
            id: None
        })
    );
    assert_eq!(
        claims.missing,
        ["Buildkite names nobody who started the build"]
    );

    login.claim("build_commit", json!("HEAD"));
    login.claim("build_id", json!("01890000-0000-4000-8000-000000000009"));
    let claims = good(&login);
    assert_eq!(claims.code.unwrap().commit, None);
    assert_eq!(
        claims.run.unwrap().id,
        "01890000-0000-4000-8000-000000000009"
    );
    assert_eq!(claims.missing[1], "the token does not name the commit");
}

#[test]
fn a_job_of_circleci_names_its_user_but_no_commit() {
    let mut login = Login::of(ProviderKind::Circleci);
    login.facts = vec![
        "oidc.circleci.com/project-id",
        "oidc.circleci.com/ssh-rerun",
    ];
    let id = |n: u8| format!("5ad0c2bd-0000-4000-8000-00000000000{n}");
    let claims = good(&login);
    let run = Run {
        attempt: None,
        id: id(6),
        job: Some(id(3)),
        provider: "circleci".into(),
    };
    let code = Code {
        reference: some("refs/heads/main"),
        repo: Some(id(5)),
        ..Code::default()
    };
    assert_eq!((claims.run, claims.code), (Some(run), Some(code)));
    assert_eq!(
        claims.trigger,
        Some(Trigger {
            event: None,
            id: Some(id(7))
        })
    );
    assert_eq!(claims.missing, ["CircleCI does not name the commit"]);
    assert_eq!(
        (claims.facts[0].value.clone(), &*claims.facts[1].value),
        (id(5), "false")
    );
    // Newer tokens go on after the user.
    let sub = format!(
        "org/{}/project/{}/user/{}/vcs-ref/refs/heads/main",
        id(1),
        id(5),
        id(7)
    );
    login.claim("sub", json!(sub));
    assert_eq!(
        good(&login).trigger,
        Some(Trigger {
            event: None,
            id: Some(id(7))
        })
    );
}

#[test]
fn a_pod_is_its_uid() {
    let mut login = Login::of(ProviderKind::Kubernetes);
    login.facts = vec![
        "kubernetes.io/serviceaccount/name",
        "kubernetes.io/namespace",
        "kubernetes.io/pod/absent",
    ];
    let claims = good(&login);
    let uid = "5e0bd49b-f040-43b0-99b7-22765a53f7f3";
    let run = Run {
        attempt: None,
        id: uid.into(),
        job: None,
        provider: "kubernetes".into(),
    };
    assert_eq!(claims.run, Some(run));
    let facts: Vec<&str> = claims
        .facts
        .iter()
        .map(|fact| fact.value.as_str())
        .collect();
    assert_eq!(facts, ["deploy", "deployer"]);
    assert_eq!(
        claims.missing,
        ["Kubernetes names neither the code that runs nor who started it"]
    );

    login.claims["kubernetes.io"]
        .as_object_mut()
        .unwrap()
        .remove("pod");
    let claims = good(&login);
    assert_eq!(claims.run, None);
    assert_eq!(claims.missing[0], "the token is bound to no pod");
}

#[test]
fn a_spiffe_id_is_a_service() {
    let mut login = Login::of(ProviderKind::Spiffe);
    login.header["typ"] = json!("JOSE");
    login.jwk()["use"] = json!("jwt-svid");
    let claims = good(&login);
    let sub = "spiffe://example.org/ns/deploy/sa/Deployer";
    assert_eq!(claims.subject, subject("https://spire.example", sub));
    assert_eq!((claims.binding, claims.run), (Binding::Audience, None));
    let missing = "a SPIFFE ID names a service, not its run, its code or who started it";
    assert_eq!(claims.missing, [missing]);
    // Neither issuer nor beginning has to be there: then the trust domain is the issuer, and `nbf` the beginning.
    login.no_claim("iss");
    login.no_claim("iat");
    login.claim("nbf", json!(NOW));
    login.provider.issuer = "spiffe://example.org".into();
    assert_eq!(good(&login).issued, at(NOW));
    for other in ["spiffe://example.or", "spiffe://example.com"] {
        login.provider.issuer = other.into();
        assert_eq!(login.check().unwrap_err().code, "token-iss");
        login.claim("iss", json!(other));
        assert_eq!(login.check().unwrap_err().code, "token-iss");
        login.no_claim("iss");
    }
}

#[test]
fn any_other_workload_is_its_subject() {
    let mut login = Login::of(ProviderKind::Workload);
    let claims = good(&login);
    assert_eq!(claims.subject, subject("https://tokens.example", "job/7"));
    assert_eq!(
        (claims.run, claims.code, claims.trigger),
        (None, None, None)
    );
    assert_eq!(
        (claims.binding, claims.missing),
        (Binding::Audience, vec![])
    );
    login.claim("aud", json!("ascribe"));
    let claims = good(&login);
    assert_eq!(claims.binding, Binding::None);
    assert_eq!(
        claims.missing,
        ["the token is bound to no key: whoever saw it could use it"]
    );
}

#[test]
fn every_algorithm_verifies_and_names_its_key() {
    for alg in ["RS256", "ES256", "ES384", "EdDSA"] {
        let mut login = Login::of(ProviderKind::Oidc);
        login.signed_with(alg);
        assert_eq!(good(&login).key, thumbprint(ISSUER.jwk(alg)), "{alg}");
        login.header.as_object_mut().unwrap().remove("kid");
        assert_eq!(
            good(&login).key,
            thumbprint(ISSUER.jwk(alg)),
            "{alg} without key id"
        );
    }
    let mut login = Login::of(ProviderKind::Oidc);
    login.signed_with("PS256");
    login.header["kid"] = json!("key-RS256");
    login.jwk()["alg"] = json!("PS256");
    good(&login);
}

#[test]
fn all_keys_of_one_id_are_tried_and_unknown_ones_passed_over() {
    let mut login = Login::of(ProviderKind::Oidc);
    let (other, unknown) = (
        STRANGER.jwk("RS256"),
        json!({"kty": "AKP", "kid": "key-RS256", "alg": "ML-DSA-44", "pub": "AA"}),
    );
    login.keys =
        json!({"keys": [unknown, other, ISSUER.jwk("RS256"), {"kty": "EC", "crv": "secp256k1"}]});
    assert_eq!(good(&login).key, thumbprint(ISSUER.jwk("RS256")));
    let listed = SshSignatures
        .provider_keys(login.keys_text().as_bytes())
        .unwrap();
    assert_eq!(
        listed,
        [
            thumbprint(STRANGER.jwk("RS256")),
            thumbprint(ISSUER.jwk("RS256"))
        ]
    );
}

/// The example of RFC 7638, 3.1.
#[test]
fn thumbprints_are_those_of_the_rfc() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
             tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI\
             SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    assert_eq!(
        thumbprint(jwk).to_string(),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

/// RFC 8037, A.2 to A.4: an Ed25519 key, its thumbprint, and a signature over what is no set of claims.
#[test]
fn the_ed25519_example_of_the_rfc_verifies() {
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(
        thumbprint(jwk.clone()).to_string(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
    let mut login = Login::of(ProviderKind::Oidc);
    login.keys = json!({"keys": [jwk]});
    login.last = |_| {
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".into()
    };
    assert_eq!(login.check().unwrap_err().code, "token-json");
}

#[test]
fn times_are_whole_seconds_and_begin_with_the_later_of_two() {
    let mut login = Login::of(ProviderKind::Oidc);
    login.claims_text = Some(
        login
            .claims
            .to_string()
            .replace("\"iat\":1795000000", "\"iat\":1795000000.9"),
    );
    assert!(login.claims_text.as_ref().unwrap().contains(".9"));
    assert_eq!(good(&login).issued, at(NOW));
    let mut login = Login::of(ProviderKind::Oidc);
    login.claim("nbf", json!(NOW + 30));
    assert_eq!(good(&login).issued, at(NOW + 30));
    login.claim("nbf", json!(0));
    assert_eq!(good(&login).issued, at(NOW));
}

/// Subjects that look alike are different people.
#[test]
fn subjects_are_compared_byte_by_byte() {
    let mut seen = std::collections::BTreeSet::new();
    let spellings = [
        "jose\u{301}",
        "jos\u{e9}",
        "Jos\u{e9}",
        "jos\u{e9} ",
        "j\u{43e}s\u{e9}",
        "jos\u{e9}\u{200b}",
        "JOS\u{c9}",
    ];
    for sub in spellings {
        let mut login = Login::of(ProviderKind::Oidc);
        login.claim("sub", json!(sub));
        assert!(seen.insert(good(&login).subject), "{sub:?}");
    }
}

/// From (r, s) anybody can make (r, n - s), which is as good: it does not make another token.
#[test]
fn a_token_whose_signature_is_written_anew_is_the_same_token() {
    let mut login = Login::of(ProviderKind::Oidc);
    login.signed_with("ES256");
    let token = login.token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = encoding::from_base64url(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let less = i32::from(ORDER[at]) - i32::from(signature[32 + at]) - borrow;
        borrow = i32::from(less < 0);
        signature[32 + at] = u8::try_from(less.rem_euclid(256)).unwrap();
    }
    let anew = format!("{signed}.{}", encoding::base64url(&signature));
    assert_ne!(anew, token);
    assert!(judge(&login, anew.as_bytes()).is_ok());
    assert_eq!(
        token_digest(anew.as_bytes()),
        token_digest(token.as_bytes())
    );
    login.claim("iat", json!(NOW + 1));
    assert_ne!(
        token_digest(login.token().as_bytes()),
        token_digest(token.as_bytes())
    );
}
