//! Agents of people who logged in: they have no more than the login, and end with it.

use super::*;
use crate::law::tests::delegations::bot;
use crate::witness::Demand;

impl World {
    /// An agent of somebody who is logged in with this key, for two hours.
    fn agent_of(&mut self, n: u8, key: &SshKey) -> StatementId {
        let (mut delegation, opening) = self.delegation_to(n);
        delegation.targets = vec!["db1".to_owned()];
        delegation.until = self.now.plus_millis(2 * HOUR);
        let say = Say::Delegation(delegation);
        let ask = self.said_with(REQ, key, say, vec![opening]).unwrap();
        self.accept_with(&bot(n), ask).unwrap();
        ask.0
    }
}

#[test]
fn an_agent_of_a_session_key_ends_with_its_login() {
    let mut w = World::with_providers();
    let grant = w.grant(|r| r.not_after = r.not_before.plus_millis(3 * HOUR));
    let end = w.now.plus_millis(HOUR);
    let (_, key) = w.log_in(REQ, |l| l.until = end).unwrap();
    let agent = w.agent_of(1, &key);
    let login = w.state.agent_by_key(w.now, &bot(1).fingerprint()).unwrap();
    assert_eq!(login.until, end);
    let session = w.open_by_agent(grant, agent, |_| ()).unwrap();
    assert_eq!(w.standing(session), Standing::Until(end));
    w.after(HOUR - 1);
    w.intent(session).unwrap();
    w.after(1);
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open_by_agent(grant, agent, |_| ())), "expired");
    // Whoever logs in again delegates again.
    w.publish("idp", &[1, 2]).unwrap();
    w.log_in(REQ, |_| ()).unwrap();
    assert_eq!(no(w.open_by_agent(grant, agent, |_| ())), "expired");
}

#[test]
fn whatever_ends_a_login_early_ends_its_agents_for_good() {
    type End = fn(&mut World, StatementId);
    let ends: [End; 3] = [
        |w, login| {
            w.say(REQ, Say::Logout(Logout { login }), vec![]).unwrap();
        },
        |w, _| {
            w.say(REQ, Say::IdentityUnlink(link(REQ)), vec![]).unwrap();
            w.say(ADA, Say::IdentityLink(link(REQ)), vec![]).unwrap();
        },
        |w, _| {
            let mut gone = provider("idp", ProviderKind::Oidc);
            gone.withdrawn = true;
            w.say(ADA, Say::ProviderSet(gone), vec![]).unwrap();
            let back = Say::ProviderSet(provider("idp", ProviderKind::Oidc));
            w.say(ADA, back, vec![]).unwrap();
        },
    ];
    for end in ends {
        let mut w = World::with_providers();
        let grant = w.grant(|_| ());
        let (login, key) = w.log_in(REQ, |_| ()).unwrap();
        let agent = w.agent_of(1, &key);
        let enrolled = w.agent(2, |d| d.targets = vec!["db1".to_owned()]);
        let ours = w.open_by_agent(grant, agent, |_| ()).unwrap();
        let other = w.open_by_agent(grant, enrolled, |_| ()).unwrap();
        end(&mut w, login);
        assert_eq!(w.standing(ours), Standing::Ended(CloseReason::Revoked));
        assert_eq!(no(w.intent(ours)), "revoked");
        w.log_in(REQ, |_| ()).unwrap();
        assert_eq!(no(w.open_by_agent(grant, agent, |_| ())), "revoked");
        // The agent of an enrolled key has nothing to do with it.
        w.intent(other).unwrap();
    }
}

#[test]
fn an_agent_is_proven_no_more_strongly_than_whoever_delegated() {
    let mut w = World::with_providers();
    let grant = w.grant(|_| ());
    let (_, device) = w
        .log_in(REQ, |l| {
            l.claims.binding = Binding::None;
            l.until = l.claims.expires;
        })
        .unwrap();
    let agent = w.agent_of(1, &device);
    w.open_by_agent(grant, agent, |_| ()).unwrap();
    let mut strict = target("db1");
    strict.actor_assurance = Some(1);
    w.say(ADA, Say::TargetSet(strict), vec![]).unwrap();
    assert_eq!(no(w.open_by_agent(grant, agent, |_| ())), "assurance");
}

#[test]
fn a_break_glass_grant_is_for_the_person_alone() {
    let mut w = World::with_providers();
    let agent = w.agent(1, |d| d.targets = vec!["db1".to_owned()]);
    let ask = w.break_glass(REQ, HOUR / 2).unwrap();
    let emergency = w.grant_of(ask).unwrap();
    let denied = w.open_by_agent(emergency, agent, |_| ());
    assert_eq!(no(denied), "break-glass");
    assert_eq!(w.admit_as(REQ, None, None), Ok(emergency));
    assert_eq!(no(w.admit_as(REQ, Some(agent), None)), "no-grant");
    assert_eq!(
        no(w.admit_as(REQ, Some(agent), Some(emergency))),
        "no-grant"
    );
    // An ordinary grant is not ambiguous beside it.
    let ordinary = w.grant(|_| ());
    assert_eq!(w.admit_as(REQ, Some(agent), None), Ok(ordinary));
    w.open_by_agent(ordinary, agent, |_| ()).unwrap();
}

#[test]
fn a_refusal_says_who_can_ask_and_how() {
    let mut w = World::with_providers();
    let agent = w.agent(1, |d| d.targets = vec!["db1".to_owned()]);
    let help = |done: Result<GrantId, Denied>| done.unwrap_err().help.unwrap();
    let (req, pat) = (person(REQ).to_string(), person(PAT).to_string());
    let (how, who) = help(w.admit_as(BOT, None, None))
        .split_once("(can approve: ")
        .map(|(how, who)| (how.to_owned(), who.to_owned()))
        .unwrap();
    let asked = format!("{req} asks: ascribe request root@db1 --workload deploy --for");
    assert!(how.starts_with(&asked), "{how}");
    // The owner, an approver too, is not named for their own request.
    assert!(who.contains(&pat) && !who.contains(&req), "{who}");
    let told = help(w.admit_as(REQ, Some(agent), None));
    assert!(told.starts_with(&format!("{req} asks: ascribe request root@db1 --for")));
    assert!(help(w.admit_as(REQ, None, None)).starts_with("ask: ascribe request root@db1 --for"));
    // Workloads and agents choose by how they log in: they sign no `use`.
    let several = [w.grant_for_bot(), w.grant_for_bot()];
    let told = help(w.admit_as(BOT, None, None));
    assert!(
        told.contains("log in as root+") && !told.contains("ascribe use"),
        "{told}"
    );
    assert_eq!(w.admit_as(BOT, None, Some(several[1])), Ok(several[1]));
}

#[test]
fn logins_and_delegations_wait_for_no_witness_and_count_as_unseen() {
    let mut w = World::with_witnesses(1, &[Demand::Keys, Demand::People]);
    for say in [
        Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
        Say::ProviderSet(provider("ci", ProviderKind::Github)),
        Say::IdentityLink(link(REQ)),
    ] {
        w.say(ADA, say, vec![]).unwrap();
    }
    w.set_target(|t| t.max_unwitnessed_seconds = Some(10))
        .unwrap();
    w.publish("idp", &[1]).unwrap();
    assert_eq!(no(w.log_in(REQ, |_| ())), "no-identity");
    w.now_seen().unwrap();
    let grant = w.grant(|_| ());
    w.now_seen().unwrap();
    type Step = fn(&mut World);
    let steps: [Step; 3] = [
        |w| {
            w.log_in(REQ, |_| ()).unwrap();
        },
        |w| {
            w.agent(1, |d| d.targets = vec!["db1".to_owned()]);
        },
        |w| w.publish("idp", &[1, 2]).unwrap(),
    ];
    for step in steps {
        w.after(60_000);
        w.open(grant).unwrap();
        w.now_seen().unwrap();
        step(&mut w);
        w.after(11_000);
        assert_eq!(no(w.open(grant)), "unwitnessed");
        w.now_seen().unwrap();
    }
}
