//! How people proved themselves to their provider: what its entry asks of that.

use super::*;
use crate::identity::{Authn, AuthnRule};

const MFA: &str = "urn:example:mfa";

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn rule() -> AuthnRule {
    AuthnRule {
        acr: texts(&[MFA, "urn:example:phr"]),
        amr: texts(&["hwk", "pin"]),
        max_age_seconds: Some(600),
    }
}

impl World {
    /// The people's provider asks for this from now on.
    fn ask(&mut self, authn: Option<AuthnRule>) -> Result<AskRef, Denied> {
        let idp = Provider {
            authn,
            ..provider("idp", ProviderKind::Oidc)
        };
        self.say(ADA, Say::ProviderSet(idp), vec![])
    }
}

/// What a token says that meets the rule.
fn proved(login: &mut Login) {
    let claims = &mut login.claims;
    claims.acr = Some(MFA.to_owned());
    claims.amr = texts(&["pwd", "pin", "hwk"]);
    claims.auth_time = Some(claims.issued.plus_millis(-5 * MIN));
}

#[test]
fn a_rule_asks_for_something_that_a_token_could_say() {
    let mut w = World::with_providers();
    let bad: [fn(&mut AuthnRule); 10] = [
        |r| *r = AuthnRule::default(),
        |r| r.acr[0].clear(),
        |r| r.acr[0] = "two words".to_owned(),
        |r| r.acr[1] = r.acr[0].clone(),
        |r| r.acr = (0..17).map(|n| n.to_string()).collect(),
        |r| r.acr[0] = "x".repeat(256),
        |r| r.amr[0] = "x".repeat(65),
        |r| r.amr[1] = r.amr[0].clone(),
        |r| r.max_age_seconds = Some(59),
        |r| r.max_age_seconds = Some(2_592_001),
    ];
    for (nth, edit) in bad.into_iter().enumerate() {
        let mut rule = rule();
        edit(&mut rule);
        assert_eq!(no(w.ask(Some(rule))), "provider", "{nth}");
    }
    let jobs = Provider {
        authn: Some(rule()),
        ..provider("ci", ProviderKind::Github)
    };
    assert_eq!(no(w.say(ADA, Say::ProviderSet(jobs), vec![])), "provider");
    w.ask(Some(rule())).unwrap();
}

#[test]
fn who_did_not_prove_themself_as_the_provider_asks_does_not_get_in() {
    let mut w = World::with_providers();
    w.ask(Some(rule())).unwrap();
    let bad: [Edit<Login>; 12] = [
        (|l| l.claims.acr = None, "acr"),
        (|l| l.claims.acr = Some("urn:example:pwd".into()), "acr"),
        (|l| l.claims.acr = Some(MFA.to_uppercase()), "acr"),
        (|l| l.claims.acr = Some(format!("{MFA} ")), "acr"),
        (|l| l.claims.acr = Some(String::new()), "acr"),
        (|l| l.claims.amr.clear(), "amr"),
        (|l| l.claims.amr.truncate(2), "amr"),
        (|l| l.claims.amr = vec!["hwk pin".into()], "amr"),
        (|l| l.claims.auth_time = None, "auth-time"),
        (
            |l| l.claims.auth_time = Some(l.claims.issued.plus_millis(-10 * MIN - 1)),
            "auth-time",
        ),
        (
            |l| l.claims.auth_time = Some(l.claims.issued.plus_millis(MIN + 1)),
            "auth-time",
        ),
        (|l| l.claims.auth_time = Some(time(0)), "auth-time"),
    ];
    for (nth, (edit, code)) in bad.into_iter().enumerate() {
        let done = w.log_in(REQ, |login| {
            proved(login);
            edit(login);
        });
        assert_eq!(no(done), code, "{nth}");
    }
    // At the edges, by the other class and with more means than are asked for.
    for edge in [-10 * MIN, 0, MIN] {
        let login = w.log_in(REQ, |login| {
            proved(login);
            login.claims.acr = Some("urn:example:phr".to_owned());
            login.claims.auth_time = Some(login.claims.issued.plus_millis(edge));
        });
        login.unwrap();
    }
    // What is stated is what the token must say: a rule is not met by stating it.
    let mut draft = w.draft(REQ);
    draft.token = Some(draft.login.claims.clone());
    proved(&mut draft.login);
    assert_eq!(no(w.hand_in(&draft)), "claims");
    // Each part by itself.
    for part in [
        AuthnRule {
            acr: texts(&[MFA]),
            ..AuthnRule::default()
        },
        AuthnRule {
            amr: texts(&["pin"]),
            ..AuthnRule::default()
        },
        AuthnRule {
            max_age_seconds: Some(600),
            ..AuthnRule::default()
        },
    ] {
        w.ask(Some(part)).unwrap();
        let (id, _) = w.log_in(REQ, proved).unwrap();
        let said = w.state.logins[&id].login.claims.authn().unwrap();
        let Authn { acr, amr, at } = &said;
        assert_eq!((acr.as_deref(), amr.len()), (Some(MFA), 3));
        assert!(at.is_some() && said.in_words().contains("by pwd, pin, hwk"));
        assert!(w.log_in(REQ, |l| l.claims.amr.clear()).is_err());
    }
    w.ask(None).unwrap();
    w.log_in(REQ, |l| l.claims.amr.clear()).unwrap();
}

#[test]
fn a_provider_that_asks_for_more_ends_the_logins_that_would_not_do() {
    let mut w = World::with_providers();
    let grant = w.grant(|r| r.uses = Uses::Reusable);
    let (poor, poor_key) = w.log_in(REQ, |_| ()).unwrap();
    let (rich, rich_key) = w.log_in(REQ, proved).unwrap();
    let one = w.open_with(grant, poor, &poor_key).unwrap();
    let other = w.open_with(grant, rich, &rich_key).unwrap();
    w.ask(Some(rule())).unwrap();
    assert_eq!(no(w.intent(one)), "revoked");
    w.intent(other).unwrap();
    // What comes back later does not bring it back.
    w.ask(None).unwrap();
    assert_eq!(no(w.intent(one)), "revoked");
    w.intent(other).unwrap();
}

#[test]
fn nobody_proved_themself_in_the_future_but_in_older_logs() {
    let future = |login: &mut Login| {
        login.claims.auth_time = Some(login.claims.issued.plus_millis(MIN + 1));
    };
    let mut w = World::with_providers();
    assert_eq!(no(w.log_in(REQ, future)), "auth-time");
    let edge = w.log_in(REQ, |l| {
        l.claims.auth_time = Some(l.claims.issued.plus_millis(MIN))
    });
    edge.unwrap();

    // An entry of an earlier version is judged as it was.
    let mut draft = w.draft(REQ);
    future(&mut draft.login);
    for (version, code) in [(3, Some("auth-time")), (2, None)] {
        let mut state = w.state.clone();
        state.version = version;
        let done = state.take_login(
            StatementId::new([9; 16]),
            person(REQ),
            w.now,
            (&draft.login, draft.key.clone(), draft.key.fingerprint()),
            Place {
                hash: EntryHash(ascribe_tlog::Hash([1; 32])),
                index: state.size,
            },
        );
        assert_eq!(done.err().map(|denied| denied.code), code, "{version}");
    }
}
