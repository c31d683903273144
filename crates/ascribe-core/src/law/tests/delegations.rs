//! Delegations to agents: each step narrows, every link signs, the budget is shared, any end ends all.

use super::*;
use crate::delegation::{Acceptance, Asserted, Delegation, DelegationRevoke, agent_id};
use crate::statement::{Anywhere, Connect, Forward, UseGrant};

impl State {
    /// Whether many delegations hold is found as for each by itself, now and whenever one of them ends.
    pub(super) fn check_holding(&self, now: Timestamp) {
        let ends = self.delegations.values().map(|link| link.delegation.until);
        for at in ends.chain([now]).flat_map(|at| [at.plus_millis(-1), at]) {
            let mut above = BTreeMap::new();
            for id in self.delegations.keys() {
                let ended = self.delegation_ended(*id, at);
                assert_eq!(
                    self.holds(*id, at, &mut above),
                    ended.is_none(),
                    "{id} at {at}"
                );
            }
        }
    }
}

/// A key that only an agent has.
pub(super) fn bot(n: u8) -> SshKey {
    key(100 + n, 0)
}

pub(super) fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

impl World {
    /// Two targets.
    fn with_two() -> Self {
        let mut w = Self::plain();
        w.say(ADA, Say::TargetSet(target("db2")), Vec::new())
            .unwrap();
        w
    }
    pub(super) fn delegation_to(&self, n: u8) -> (Delegation, Opening) {
        let (task, opening) = prose("task", "rotate the logs of the order database");
        let delegation = Delegation {
            actions: 10,
            agent: format!("bot-{n}"),
            depth: 2,
            key: bot(n),
            kinds: strings(&["ssh", "sftp"]),
            parent: None,
            targets: strings(&["db1", "db2"]),
            task,
            until: self.now.plus_millis(HOUR / 2),
        };
        (delegation, opening)
    }
    pub(super) fn said_with(
        &mut self,
        by: u8,
        key: &SshKey,
        say: Say,
        openings: Vec<Opening>,
    ) -> Result<AskRef, Denied> {
        let statement = self.statement(by, say);
        let done = self.submit(sign(key, &statement), openings)?;
        Ok((statement.id, done[0].hash))
    }
    /// By the requester.
    pub(super) fn delegate(
        &mut self,
        n: u8,
        edit: impl FnOnce(&mut Delegation),
    ) -> Result<AskRef, Denied> {
        let (mut delegation, opening) = self.delegation_to(n);
        edit(&mut delegation);
        self.say(REQ, Say::Delegation(delegation), vec![opening])
    }
    pub(super) fn accept_with(&mut self, key: &SshKey, ask: AskRef) -> Result<AskRef, Denied> {
        let say = Say::Acceptance(Acceptance {
            asserted: Asserted::default(),
            entry: ask.1,
            of: ask.0,
        });
        self.said_with(REQ, key, say, Vec::new())
    }
    pub(super) fn agent(&mut self, n: u8, edit: impl FnOnce(&mut Delegation)) -> StatementId {
        let ask = self.delegate(n, edit).unwrap();
        self.accept_with(&bot(n), ask).unwrap();
        ask.0
    }
    /// By an agent, to another: a step deeper and otherwise the same.
    fn hand_on(
        &mut self,
        from: u8,
        parent: StatementId,
        n: u8,
        edit: impl FnOnce(&mut Delegation),
    ) -> Result<AskRef, Denied> {
        let (_, opening) = self.delegation_to(n);
        let mut delegation = self.state.delegations[&parent].delegation.clone();
        delegation.parent = Some(parent);
        delegation.agent = format!("bot-{n}");
        delegation.key = bot(n);
        delegation.depth = delegation.depth.saturating_sub(1);
        edit(&mut delegation);
        self.said_with(REQ, &bot(from), Say::Delegation(delegation), vec![opening])
    }
    fn sub_agent(
        &mut self,
        from: u8,
        parent: StatementId,
        n: u8,
        edit: impl FnOnce(&mut Delegation),
    ) -> StatementId {
        let ask = self.hand_on(from, parent, n, edit).unwrap();
        self.accept_with(&bot(n), ask).unwrap();
        ask.0
    }
    fn undelegate(
        &mut self,
        by: u8,
        key: &SshKey,
        delegation: StatementId,
    ) -> Result<AskRef, Denied> {
        self.undelegate_for("no longer needed", by, key, delegation)
    }
    fn undelegate_for(
        &mut self,
        why: &str,
        by: u8,
        key: &SshKey,
        delegation: StatementId,
    ) -> Result<AskRef, Denied> {
        let (reason, opening) = prose("reason", why);
        let say = Say::DelegationRevoke(DelegationRevoke { delegation, reason });
        self.said_with(by, key, say, vec![opening])
    }
    pub(super) fn open_by_agent(
        &mut self,
        grant: GrantId,
        delegation: StatementId,
        edit: impl FnOnce(&mut SessionOpen),
    ) -> Result<SessionId, Denied> {
        let (mut open, from) = self.session_for(grant);
        let known = self.state.delegations.get(&delegation);
        open.key = known.map_or_else(String::new, |d| d.delegation.key.fingerprint());
        open.delegation = Some(delegation);
        edit(&mut open);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    /// Two agents, one below the other: each acts, the upper one is revoked.
    pub(super) fn agents_act(&mut self, grant: GrantId) {
        let top = self.agent(1, |d| d.targets = strings(&["db1"]));
        let below = self.sub_agent(1, top, 2, |_| ());
        for delegation in [top, below] {
            let session = self.open_by_agent(grant, delegation, |_| ()).unwrap();
            let action = self.intent(session).unwrap();
            self.outcome(action).unwrap();
            self.close(session).unwrap();
        }
        self.undelegate(REQ, &key(REQ, 0), top).unwrap();
    }
    fn used(&self, delegation: StatementId) -> u64 {
        self.state.delegations[&delegation].used
    }
}

#[test]
fn an_agent_acts_under_its_persons_grant_and_its_acceptance_is_the_sessions_parent() {
    let mut w = World::with_two();
    let grant = w.grant(|_| ());
    let ask = w.delegate(1, |_| ()).unwrap();
    assert_eq!(w.state.agent_by_key(w.now, &bot(1).fingerprint()), None);
    assert_eq!(no(w.open_by_agent(grant, ask.0, |_| ())), "not-accepted");
    let accepted = w.accept_with(&bot(1), ask).unwrap();
    let login = w.state.agent_by_key(w.now, &bot(1).fingerprint()).unwrap();
    assert_eq!((login.person, login.delegation), (person(REQ), ask.0));
    // It is an agent's key and not the person's.
    assert_eq!(w.state.person_by_key(w.now, &bot(1).fingerprint()), None);
    let session = w.open_by_agent(grant, ask.0, |_| ()).unwrap();
    let entry = Entry::from_bytes(w.log.last().unwrap()).unwrap();
    assert_eq!(entry.parent("acceptance"), Some(accepted.1));
    assert_eq!(w.standing(session), Standing::Until(login.until));
    w.intent(session).unwrap();
    assert_eq!(w.used(ask.0), 1);
    let edits: [Edit<SessionOpen>; 6] = [
        (|o| o.key = key(REQ, 0).fingerprint(), "key"),
        (|o| o.key = bot(2).fingerprint(), "key"),
        (|o| o.person = person(PAT), "outside-grant"),
        (|o| o.delegation = None, "key"),
        (
            |o| o.delegation = Some(StatementId::new([9; 16])),
            "no-delegation",
        ),
        (|o| o.opened_by = OpenedBy::Signed, "opening"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.open_by_agent(grant, ask.0, edit)), code);
    }
    // Without a grant of the person there is nothing to act under.
    let theirs = w.request(PAT, |_| ()).unwrap();
    w.approve(REQ, theirs).unwrap();
    let theirs = w.grant_of(theirs).unwrap();
    assert_eq!(no(w.open_by_agent(theirs, ask.0, |_| ())), "key");
}

#[test]
fn a_delegation_is_within_bounds() {
    let mut w = World::with_two();
    let edits: [Edit<Delegation>; 26] = [
        (|d| d.agent = String::new(), "delegation"),
        (|d| d.agent = "Bot".into(), "delegation"),
        (|d| d.agent = "b\u{f6}t".into(), "delegation"),
        (|d| d.agent = "b\u{43e}t".into(), "delegation"),
        (|d| d.agent = "bot\u{200b}".into(), "delegation"),
        (|d| d.agent = "bot ".into(), "delegation"),
        (|d| d.actions = 0, "delegation"),
        (|d| d.actions = 1_000_001, "delegation"),
        (|d| d.depth = 9, "delegation"),
        (|d| d.until = time(T0), "delegation"),
        (
            |d| d.until = time(T0).plus_millis(90 * 24 * HOUR + 1),
            "delegation",
        ),
        (|d| d.targets.clear(), "delegation"),
        (|d| d.targets = vec!["db1".into(); 2], "delegation"),
        (
            |d| d.kinds = (1..34).map(|n| format!("sftp.{}", "a".repeat(n))).collect(),
            "delegation",
        ),
        (|d| d.targets = vec!["DB1".into()], "no-target"),
        (|d| d.kinds.clear(), "delegation"),
        (|d| d.kinds = vec!["ssh.*".into()], "delegation"),
        (|d| d.kinds = vec!["SSH".into()], "delegation"),
        (|d| d.kinds = vec!["ssh.exe".into()], "delegation"),
        (|d| d.kinds = vec!["sftp.".into()], "delegation"),
        (|d| d.key = key(REQ, 0), "duplicate"),
        (|d| d.key = key(PAT, 0), "duplicate"),
        (|d| d.key = key(210, 0), "duplicate"),
        (|d| d.key.0.insert_str(0, "sk-"), "key-type"),
        (|d| d.key.0.push_str(" comment"), "key"),
        (
            |d| d.parent = Some(StatementId::new([9; 16])),
            "no-delegation",
        ),
    ];
    w.say(ADA, Say::CaSet(authority("corp")), Vec::new())
        .unwrap();
    for (edit, code) in edits {
        assert_eq!(no(w.delegate(1, edit)), code);
    }
    let weak = opening("task", "do it");
    let said = |d: &mut Delegation| d.task = Prose::of(&weak);
    let (mut delegation, _) = w.delegation_to(1);
    said(&mut delegation);
    let done = w.say(REQ, Say::Delegation(delegation), vec![weak.clone()]);
    assert_eq!(no(done), "prose");
    w.delegate(1, |d| {
        d.kinds = strings(&["ssh.exec", "sftp.open", "forward"])
    })
    .unwrap();
    // Whoever left delegates nothing.
    let leaver = Offboard {
        person: person(REQ),
    };
    w.say(ADA, Say::Offboard(leaver), Vec::new()).unwrap();
    assert_eq!(no(w.delegate(2, |_| ())), "offboarded");
}

#[test]
fn no_revocation_fails_on_its_wording() {
    let mut w = World::with_two();
    for why in ["done", "x", "\u{65e0}"] {
        let ask = w.delegate(1, |_| ()).unwrap();
        for empty in ["", " \t"] {
            let done = w.undelegate_for(empty, REQ, &key(REQ, 0), ask.0);
            assert_eq!(no(done), "prose");
        }
        w.undelegate_for(why, REQ, &key(REQ, 0), ask.0).unwrap();
    }
}

#[test]
fn a_delegation_is_accepted_once_with_its_own_key() {
    let mut w = World::with_two();
    let ask = w.delegate(1, |_| ()).unwrap();
    for other in [key(REQ, 0), bot(2), key(PAT, 0)] {
        assert_eq!(no(w.accept_with(&other, ask)), "key");
    }
    let elsewhere = (ask.0, EntryHash(ascribe_tlog::Hash([1; 32])));
    assert_eq!(no(w.accept_with(&bot(1), elsewhere)), "links");
    let unknown = (StatementId::new([9; 16]), ask.1);
    assert_eq!(no(w.accept_with(&bot(1), unknown)), "no-delegation");
    // In another person's name.
    let acceptance = |asserted| {
        Say::Acceptance(Acceptance {
            asserted,
            entry: ask.1,
            of: ask.0,
        })
    };
    let say = acceptance(Asserted::default());
    assert_eq!(no(w.said_with(PAT, &bot(1), say, Vec::new())), "key");
    for bad in ["", "a\nb", "a\u{202e}b", &"x".repeat(129)] {
        let say = acceptance(Asserted {
            model: Some(bad.to_owned()),
            ..Asserted::default()
        });
        assert_eq!(no(w.said_with(REQ, &bot(1), say, Vec::new())), "asserted");
    }
    w.accept_with(&bot(1), ask).unwrap();
    assert_eq!(no(w.accept_with(&bot(1), ask)), "settled");
}

#[test]
fn an_acceptance_counts_only_while_the_delegation_and_its_key_do() {
    // Over.
    let mut w = World::with_two();
    let ask = w.delegate(1, |_| ()).unwrap();
    w.after(HOUR / 2);
    assert_eq!(no(w.accept_with(&bot(1), ask)), "expired");
    // Revoked before it was accepted.
    let ask = w.delegate(1, |_| ()).unwrap();
    w.undelegate(REQ, &key(REQ, 0), ask.0).unwrap();
    assert_eq!(no(w.accept_with(&bot(1), ask)), "revoked");
    // Enrolled in between: a delegation alone reserves nobody's key.
    let ask = w.delegate(1, |_| ()).unwrap();
    let enrolled = PersonKey {
        person: person(PAT),
        key: bot(1),
    };
    w.say(ADA, Say::KeyAdd(enrolled), Vec::new()).unwrap();
    assert_eq!(no(w.accept_with(&bot(1), ask)), "duplicate");
    // Taken by another delegation in between.
    let (one, two) = (
        w.delegate(2, |_| ()).unwrap(),
        w.delegate(2, |_| ()).unwrap(),
    );
    w.accept_with(&bot(2), one).unwrap();
    assert_eq!(no(w.accept_with(&bot(2), two)), "duplicate");
}

#[test]
fn an_agents_key_stays_an_agents() {
    let mut w = World::with_two();
    let first = w.agent(1, |_| ());
    for ended in [false, true] {
        if ended {
            w.undelegate(REQ, &key(REQ, 0), first).unwrap();
        }
        assert_eq!(no(w.delegate(1, |d| d.agent = "other".into())), "duplicate");
        let add = PersonKey {
            person: person(REQ),
            key: bot(1),
        };
        assert_eq!(no(w.say(ADA, Say::KeyAdd(add), Vec::new())), "duplicate");
        let mut ca = authority("corp");
        ca.keys = vec![bot(1)];
        assert_eq!(no(w.say(ADA, Say::CaSet(ca), Vec::new())), "duplicate");
    }
    // Nor does a certificate make it a person's.
    w.say(ADA, Say::CaSet(authority("corp")), Vec::new())
        .unwrap();
    let shown = crate::record::ShownCertificate {
        ca: key(210, 0).fingerprint(),
        key: bot(1).fingerprint(),
        key_id: "laptop".to_owned(),
        not_after: None,
        principals: strings(&["req"]),
        serial: Serial(1),
    };
    assert_eq!(no(w.state.person_by_certificate(&shown)), "key");
    // A key that was revoked as a person's does not come back as an agent's.
    let old = PersonKey {
        person: person(REQ),
        key: key(REQ, 1),
    };
    w.say(REQ, Say::KeyRevoke(old), Vec::new()).unwrap();
    assert_eq!(no(w.delegate(2, |d| d.key = key(REQ, 1))), "revoked");
}

#[test]
fn each_step_only_narrows() {
    let mut w = World::with_two();
    let top = w.agent(1, |d| {
        d.targets = strings(&["db1"]);
        d.kinds = strings(&["ssh.exec", "sftp"]);
    });
    let edits: [Edit<Delegation>; 11] = [
        (|d| d.targets = strings(&["db2"]), "wider"),
        (|d| d.targets = strings(&["db1", "db2"]), "wider"),
        (|d| d.kinds = strings(&["ssh"]), "wider"),
        (|d| d.kinds = strings(&["ssh.shell"]), "wider"),
        (|d| d.kinds = strings(&["ssh.exec", "scp.write"]), "wider"),
        (|d| d.until = d.until.plus_millis(1), "wider"),
        (|d| d.actions = 11, "wider"),
        (|d| d.depth = 2, "wider"),
        (|d| d.agent = "bot-1".into(), "delegation"),
        (|d| d.key = bot(1), "duplicate"),
        (|d| d.parent = None, "delegation"),
    ];
    for (edit, code) in edits {
        assert_eq!(no(w.hand_on(1, top, 2, edit)), code);
    }
    // The person narrows nothing for its agent, nor do other agents.
    let (mut by_person, opening) = w.delegation_to(2);
    by_person.parent = Some(top);
    let done = w.say(REQ, Say::Delegation(by_person), vec![opening]);
    assert_eq!(no(done), "delegation");
    let other = w.agent(3, |_| ());
    assert_eq!(no(w.hand_on(3, top, 2, |_| ())), "delegation");
    assert_eq!(no(w.hand_on(2, other, 4, |_| ())), "key");
    let middle = w.sub_agent(1, top, 2, |d| d.kinds = strings(&["ssh.exec", "sftp.open"]));
    // Two steps above counts too.
    let last = w.sub_agent(2, middle, 4, |_| ());
    assert_eq!(no(w.hand_on(4, last, 5, |_| ())), "wider");
    let chain = w.state.delegation_chain(last);
    let ids: Vec<StatementId> = chain.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [top, middle, last]);
    assert_ne!(agent_id(ORIGIN, top), agent_id(ORIGIN, last));
}

#[test]
fn a_chain_is_at_most_nine_long() {
    let mut w = World::with_two();
    let mut last = w.agent(0, |d| d.depth = 8);
    for n in 1..=8 {
        last = w.sub_agent(n - 1, last, n, |_| ());
    }
    assert_eq!(w.state.delegation_chain(last).len(), 9);
    assert_eq!(no(w.hand_on(8, last, 9, |_| ())), "wider");
}

#[test]
fn an_agent_asks_nothing_answers_nothing_and_reads_nothing() {
    let mut w = World::with_two();
    let grant = w.grant(|_| ());
    let top = w.agent(1, |_| ());
    let ask = w.request(PAT, |_| ()).unwrap();
    let session = w.open(grant).unwrap();
    let (request, justification) = w.request_for();
    let (reason, because) = prose("reason", "no longer needed");
    let query = opening("query", "{}");
    let read = |view| Read {
        view,
        query: query.commitment(),
        request: None,
        session: Some(session),
    };
    let (add, name) = enrol(50, &[Role::Admin]);
    let none = Vec::new;
    let said: Vec<(Say, Vec<Opening>)> = vec![
        (Say::Request(request), vec![justification]),
        // The requester is an approver too; their agent is not.
        (Say::Approval(answer(ask)), none()),
        (Say::Denial(answer(ask)), none()),
        (Say::Cancellation(answer(ask)), none()),
        (Say::Use(UseGrant { grant }), none()),
        (Say::Revocation(Revocation { grant, reason }), vec![because]),
        (Say::Read(read(View::Actions)), vec![query.clone()]),
        (Say::Read(read(View::Registry)), vec![query.clone()]),
        (Say::TargetSet(target("db3")), none()),
        (Say::PersonAdd(add), vec![name]),
        (
            Say::KeyAdd(PersonKey {
                person: person(REQ),
                key: key(120, 0),
            }),
            none(),
        ),
        (
            Say::KeyRevoke(PersonKey {
                person: person(REQ),
                key: key(REQ, 1),
            }),
            none(),
        ),
    ];
    for (say, openings) in said {
        let tag = say.tag();
        assert_eq!(
            no(w.said_with(REQ, &bot(1), say, openings)),
            "agent",
            "{tag}"
        );
    }
    // Its own opening it does sign, in its person's name and nobody else's.
    let connect = || {
        Say::Connect(Connect {
            definition: None,
            target: "db1".to_owned(),
            account: "root".to_owned(),
            grant: None,
        })
    };
    assert_eq!(no(w.said_with(PAT, &bot(1), connect(), none())), "key");
    let opening = w.said_with(REQ, &bot(1), connect(), none()).unwrap().0;
    let signed = |open: &mut SessionOpen| {
        (open.door, open.opened_by) = (Door::Connect, OpenedBy::Signed);
        open.opening = Some(opening);
    };
    // The person's own session is not opened by it, nor another agent's.
    let mine = w.open_by_agent(grant, top, |open| {
        signed(open);
        (open.key, open.delegation) = (key(REQ, 0).fingerprint(), None);
    });
    assert_eq!(no(mine), "opening");
    let other = w.agent(2, |_| ());
    assert_eq!(no(w.open_by_agent(grant, other, signed)), "opening");
    w.open_by_agent(grant, top, signed).unwrap();
    // An agent that opens too often does not shut out its person.
    for _ in 0..256 {
        w.said_with(REQ, &bot(1), connect(), none()).unwrap();
    }
    let more = w.said_with(REQ, &bot(2), connect(), none());
    assert_eq!(no(more), "too-many");
    w.said_with(REQ, &key(REQ, 0), connect(), none()).unwrap();
}

#[test]
fn what_an_agent_does_is_of_the_kinds_and_on_the_targets_of_every_link() {
    let mut w = World::with_two();
    let grant = w.grant(|r| r.forwards = vec![Forward::Agent(Anywhere {})]);
    let top = w.agent(1, |d| {
        d.kinds = strings(&["ssh.exec", "ssh.sftp", "sftp.open"])
    });
    let below = w.sub_agent(1, top, 2, |d| {
        d.targets = strings(&["db2"]);
        d.kinds = strings(&["ssh.exec"]);
    });
    assert_eq!(
        no(w.open_by_agent(grant, below, |_| ())),
        "outside-delegation"
    );
    let session = w.open_by_agent(grant, top, |_| ()).unwrap();
    let outside = "outside-delegation";
    for kind in ["ssh.shell", "ssh.scp", "ssh.rsync", "ssh.forward.agent"] {
        assert_eq!(no(w.intent_of(kind, session, |_| ())), outside, "{kind}");
    }
    // What it lends is looked at like what it does.
    let lend = |i: &mut Intent| i.lends = strings(&["agent"]);
    assert_eq!(no(w.intent_of("ssh.exec", session, lend)), outside);
    let whole = w.intent_of("ssh.sftp", session, |_| ()).unwrap();
    let part = |w: &mut World, kind| w.intent_of(kind, session, |i| i.within = Some(whole));
    part(&mut w, "sftp.open").unwrap();
    assert_eq!(no(part(&mut w, "sftp.remove")), outside);
    // The person themself is not bound by what they delegated.
    let own = w.open(grant).unwrap();
    w.intent_of("ssh.shell", own, |_| ()).unwrap();
    assert_eq!(w.used(top), 1, "the transfer, without its parts");
}

#[test]
fn a_budget_is_used_up_exactly_and_by_all_below_together() {
    let mut w = World::with_two();
    let grant = w.grant(|_| ());
    let top = w.agent(1, |d| d.actions = 5);
    let below = w.sub_agent(1, top, 2, |d| d.actions = 3);
    let one = w.open_by_agent(grant, top, |_| ()).unwrap();
    let two = w.open_by_agent(grant, below, |_| ()).unwrap();
    let three = w.open_by_agent(grant, below, |_| ()).unwrap();
    w.intent(two).unwrap();
    w.intent(three).unwrap();
    w.intent(two).unwrap();
    // The lower budget is gone for all its sessions, the upper one is not.
    for session in [two, three] {
        assert_eq!(no(w.intent(session)), "budget");
    }
    assert_eq!(no(w.open_by_agent(grant, below, |_| ())), "budget");
    assert_eq!((w.used(top), w.used(below)), (3, 3));
    // No more is handed on than is left.
    assert_eq!(no(w.hand_on(1, top, 3, |d| d.actions = 3)), "wider");
    let late = w.sub_agent(1, top, 3, |d| d.actions = 2);
    w.intent(one).unwrap();
    let four = w.open_by_agent(grant, late, |_| ()).unwrap();
    let whole = w.intent_of("ssh.sftp", four, |_| ()).unwrap();
    assert_eq!((w.used(top), w.used(late)), (5, 1));
    // The upper one is used up: the lower one's remainder is worth nothing. What has begun goes on.
    assert_eq!(no(w.intent(four)), "budget");
    assert_eq!(no(w.intent(one)), "budget");
    w.intent_within(four, Some(whole)).unwrap();
    assert!(matches!(w.standing(one), Standing::Until(_)));
}

#[test]
fn any_link_that_is_revoked_ends_what_is_below_it_and_nothing_above() {
    // By whom, with which key, which one of three.
    let yes: [(u8, SshKey, usize); 7] = [
        (REQ, key(REQ, 0), 0),
        (REQ, key(REQ, 1), 2),
        (ADA, key(ADA, 0), 1),
        (REQ, bot(1), 0),
        (REQ, bot(1), 2),
        (REQ, bot(2), 1),
        (REQ, bot(3), 2),
    ];
    for (by, key, which) in yes {
        let mut w = World::with_two();
        let grant = w.grant(|_| ());
        let top = w.agent(1, |_| ());
        let middle = w.sub_agent(1, top, 2, |_| ());
        let last = w.sub_agent(2, middle, 3, |_| ());
        let chain = [top, middle, last];
        let sessions = chain.map(|id| w.open_by_agent(grant, id, |_| ()).unwrap());
        let own = w.open(grant).unwrap();
        assert_eq!(no(w.undelegate(PAT, &super::key(PAT, 0), top)), "role");
        w.undelegate(by, &key, chain[which]).unwrap();
        for (n, session) in sessions.into_iter().enumerate() {
            if n < which {
                w.intent(session).unwrap();
            } else {
                let ended = Standing::Ended(CloseReason::Revoked);
                assert_eq!(w.standing(session), ended, "{which} {n}");
                assert_eq!(no(w.intent(session)), "revoked");
                assert_eq!(no(w.open_by_agent(grant, chain[n], |_| ())), "revoked");
            }
        }
        w.intent(own).unwrap();
        let gone = w.state.agent_by_key(w.now, &bot(3).fingerprint());
        assert_eq!(gone, None);
    }
}

#[test]
fn an_agent_ends_nothing_above_or_beside_itself() {
    let mut w = World::with_two();
    let top = w.agent(1, |_| ());
    let middle = w.sub_agent(1, top, 2, |_| ());
    let beside = w.sub_agent(1, top, 3, |_| ());
    assert_eq!(no(w.undelegate(REQ, &bot(2), top)), "role");
    assert_eq!(no(w.undelegate(REQ, &bot(2), beside)), "role");
    w.undelegate(REQ, &bot(2), middle).unwrap();
    // Its word counts no longer, and nobody revokes twice.
    assert_eq!(no(w.undelegate(REQ, &bot(2), middle)), "revoked");
    assert_eq!(no(w.undelegate(REQ, &key(REQ, 0), middle)), "settled");
    assert_eq!(no(w.hand_on(2, middle, 4, |_| ())), "revoked");
    assert_eq!(
        no(w.undelegate(REQ, &key(REQ, 0), StatementId::new([9; 16]))),
        "no-delegation"
    );
}

#[test]
fn a_session_ends_with_the_first_link_that_does() {
    let mut w = World::with_two();
    let grant = w.grant(|_| ());
    let top = w.agent(1, |_| ());
    let below = w.sub_agent(1, top, 2, |d| d.until = d.until.plus_millis(-MIN));
    let (one, two) = (
        w.open_by_agent(grant, top, |_| ()).unwrap(),
        w.open_by_agent(grant, below, |_| ()).unwrap(),
    );
    w.after(HOUR / 2 - MIN - 1).intent(two).unwrap();
    w.after(1);
    assert_eq!(w.standing(two), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(two)), "expired");
    assert_eq!(no(w.open_by_agent(grant, below, |_| ())), "expired");
    w.intent(one).unwrap();
    w.after(MIN);
    assert_eq!(w.standing(one), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.hand_on(1, top, 3, |_| ())), "expired");
    // The grant goes on.
    let own = w.open(grant).unwrap();
    w.intent(own).unwrap();
}

#[test]
fn a_grants_end_a_persons_leaving_and_their_keys_end_end_its_agents() {
    let ends: [fn(&mut World, GrantId); 3] = [
        |w, grant| {
            w.revoke(REQ, grant).unwrap();
        },
        |w, _| {
            let leaver = Offboard {
                person: person(REQ),
            };
            w.say(ADA, Say::Offboard(leaver), Vec::new()).unwrap();
        },
        // Whoever stole the key leaves no agents behind.
        |w, _| {
            let stolen = PersonKey {
                person: person(REQ),
                key: key(REQ, 0),
            };
            w.say(ADA, Say::KeyRevoke(stolen), Vec::new()).unwrap();
        },
    ];
    for end in ends {
        let mut w = World::with_two();
        let grant = w.grant(|_| ());
        let top = w.agent(1, |_| ());
        let below = w.sub_agent(1, top, 2, |_| ());
        let session = w.open_by_agent(grant, below, |_| ()).unwrap();
        end(&mut w, grant);
        assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
        assert_eq!(no(w.intent(session)), "revoked");
    }
}

#[test]
fn a_person_has_so_many_delegations_at_a_time() {
    let mut w = World::with_two();
    let first = w.delegate(0, |_| ()).unwrap();
    for n in 1..64 {
        w.delegate(n, |_| ()).unwrap();
    }
    assert_eq!(no(w.delegate(64, |_| ())), "too-many");
    w.undelegate(REQ, &key(REQ, 0), first.0).unwrap();
    let last = w.agent(64, |_| ());
    assert_eq!(no(w.hand_on(64, last, 65, |_| ())), "too-many");
    // Others have their own.
    let (delegation, opening) = w.delegation_to(66);
    w.say(PAT, Say::Delegation(delegation), vec![opening])
        .unwrap();
    w.after(HOUR);
    w.delegate(67, |_| ()).unwrap();
}

#[test]
fn a_refused_agent_is_named_as_such() {
    let mut w = World::with_two();
    let top = w.agent(1, |_| ());
    let refusal = |n, delegation| Refusal {
        delegation: Some(delegation),
        person: person(n),
        what: "session".to_owned(),
        code: "no-grant".to_owned(),
        session: None,
        detail: None,
    };
    let mut refused = |n, id| {
        w.record("gw", Body::Refusal(refusal(n, id)), Vec::new())
            .map(drop)
    };
    refused(REQ, top).unwrap();
    assert_eq!(no(refused(PAT, top)), "links");
    assert_eq!(no(refused(REQ, StatementId::new([9; 16]))), "no-delegation");
}

/// A step of somebody who tries everything.
#[derive(Debug, Clone)]
enum Step {
    Delegate {
        from: usize,
        targets: u8,
        kinds: u8,
        until: i64,
        actions: u64,
        depth: u8,
        accept: bool,
        /// Takes back what would be wider than the one above.
        tame: bool,
    },
    Revoke {
        by: usize,
        which: usize,
    },
    Open {
        which: usize,
        target: bool,
    },
    Act {
        session: usize,
        kind: usize,
    },
    Wait {
        ms: i64,
    },
}

const TARGETS: [&str; 2] = ["db1", "db2"];
const ACTS: [&str; 4] = ["ssh.exec", "ssh.shell", "ssh.rsync", "ssh.sftp"];
const NAMED: [&str; 5] = ["ssh", "sftp", "ssh.exec", "ssh.shell", "ssh.sftp"];

fn chosen(list: &[&str], bits: u8) -> Vec<String> {
    let named = list.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
    named.map(|(_, name)| (*name).to_owned()).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nth = || prop_oneof![3 => Just(0usize), 2 => Just(1), 2 => 2..12usize];
    let delegate = (
        nth(),
        0..4u8,
        0..32u8,
        prop_oneof![Just(HOUR), Just(HOUR / 2), 1..HOUR],
        1..8u64,
        0..5u8,
        prop_oneof![6 => Just(true), 1 => Just(false)],
        prop_oneof![2 => Just(true), 1 => Just(false)],
    );
    let one = prop_oneof![
        10 => delegate.prop_map(|(from, targets, kinds, until, actions, depth, accept, tame)| {
            Step::Delegate { from, targets, kinds, until, actions, depth, accept, tame }
        }),
        1 => (nth(), nth()).prop_map(|(by, which)| Step::Revoke { by, which }),
        8 => (nth(), any::<bool>()).prop_map(|(which, target)| Step::Open { which, target }),
        16 => (nth(), 0..4usize).prop_map(|(session, kind)| Step::Act { session, kind }),
        2 => prop_oneof![Just(1), Just(MIN), Just(HOUR / 4)].prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(one, 1..80)
}

/// Brings a delegation within the one above it, where that can be.
fn narrow(own: &mut Delegation, above: &Delegation) {
    let keep = |own: &mut Vec<String>, above: &Vec<String>| {
        own.retain(|name| above.contains(name));
        if own.is_empty() {
            own.clone_from(above);
        }
    };
    keep(&mut own.targets, &above.targets);
    keep(&mut own.kinds, &above.kinds);
    own.until = own.until.min(above.until);
    own.actions = own.actions.min(above.actions);
    own.depth = own.depth.min(above.depth.saturating_sub(1));
}

/// What was recorded of one attempt, kept beside the law: each delegation with its parent's number.
#[derive(Default)]
struct Seen {
    delegations: Vec<(StatementId, Option<usize>, Delegation)>,
    accepted: BTreeSet<usize>,
    revoked: BTreeSet<usize>,
    sessions: Vec<(SessionId, usize, &'static str)>,
    /// By which delegation.
    acts: Vec<usize>,
}

impl Seen {
    fn root_of(&self, mut n: usize) -> (usize, u8) {
        let mut steps = 0;
        while let Some(parent) = self.delegations[n].1 {
            (n, steps) = (parent, steps + 1);
        }
        (n, steps)
    }
    fn line(&self, n: usize) -> Vec<usize> {
        std::iter::successors(Some(n), |n| self.delegations[*n].1).collect()
    }
    /// A delegation that the law took is no wider than its root in anything.
    fn within_root(&self, n: usize) {
        let (root, steps) = self.root_of(n);
        let (root, own) = (&self.delegations[root].2, &self.delegations[n].2);
        assert!(own.targets.iter().all(|t| root.targets.contains(t)));
        // Whatever it may do by its words, its root may.
        for kind in ACTS.iter().chain(&["sftp.open", "ssh.forward.agent"]) {
            let may = |d: &Delegation| crate::delegation::covers(&d.kinds, kind);
            assert!(may(root) || !may(own), "{kind}");
        }
        assert!(own.until <= root.until && own.actions <= root.actions);
        assert!(own.depth + steps <= root.depth);
    }
    /// An action that the law took.
    fn acted(&mut self, session: usize, kind: &str, now: Timestamp) {
        let (_, by, target) = self.sessions[session];
        self.acts.push(by);
        for n in self.line(by) {
            let link = &self.delegations[n].2;
            assert!(self.accepted.contains(&n) && !self.revoked.contains(&n));
            assert!(now < link.until && link.targets.iter().any(|t| t == target));
            assert!(link.kinds.iter().any(|k| {
                let classed = kind == "ssh.sftp" && k == "sftp";
                let plain = kind != "ssh.sftp" && k == "ssh";
                k == kind || classed || plain
            }));
            let below = self.acts.iter().filter(|by| self.line(**by).contains(&n));
            assert!(below.count() as u64 <= link.actions);
        }
    }
}

#[test]
fn no_chain_that_can_be_reached_goes_beyond_its_root() {
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let (acts, deep) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    proptest!(config, |(steps in steps())| {
        let mut w = World::with_two();
        let grants = TARGETS.map(|name| w.grant(|r| {
            r.target = name.to_owned();
            r.not_after = r.not_before.plus_millis(4 * HOUR);
        }));
        let mut seen = Seen::default();
        for (n, step) in steps.iter().enumerate() {
            let n = u8::try_from(n).unwrap();
            // 0 is the person; the rest are delegations, the newest first.
            let pick = |at: usize, of: usize| (of > 0).then(|| of - 1 - at % of);
            match step.clone() {
                Step::Delegate { from, targets, kinds, until, actions, depth, accept, tame } => {
                    let parent = from.checked_sub(1).and_then(|n| pick(n, seen.delegations.len()));
                    let (mut delegation, opening) = w.delegation_to(n);
                    delegation.targets = chosen(&TARGETS, targets);
                    delegation.kinds = chosen(&NAMED, kinds);
                    delegation.until = w.now.plus_millis(until);
                    (delegation.actions, delegation.depth) = (actions, depth);
                    if let (Some(above), true) = (parent, tame) {
                        narrow(&mut delegation, &seen.delegations[above].2);
                    }
                    delegation.parent = parent.map(|n| seen.delegations[n].0);
                    let signer = parent.map_or(key(REQ, 0), |n| seen.delegations[n].2.key.clone());
                    let say = Say::Delegation(delegation.clone());
                    let Ok(ask) = w.said_with(REQ, &signer, say, vec![opening]) else { continue };
                    seen.delegations.push((ask.0, parent, delegation));
                    let at = seen.delegations.len() - 1;
                    seen.within_root(at);
                    deep.set(deep.get() + usize::from(parent.is_some()));
                    if accept {
                        w.accept_with(&bot(n), ask).unwrap();
                        seen.accepted.insert(at);
                    }
                }
                Step::Revoke { by, which } => {
                    let Some(which) = pick(which, seen.delegations.len()) else { continue };
                    let by = by.checked_sub(1).and_then(|n| pick(n, seen.delegations.len()));
                    let signer = by.map_or(key(REQ, 0), |n| seen.delegations[n].2.key.clone());
                    if w.undelegate(REQ, &signer, seen.delegations[which].0).is_ok() {
                        assert!(by.is_none_or(|by| seen.line(which).contains(&by)));
                        seen.revoked.insert(which);
                    }
                }
                Step::Open { which, target } => {
                    let Some(which) = pick(which, seen.delegations.len()) else { continue };
                    let at = usize::from(target);
                    let id = seen.delegations[which].0;
                    if let Ok(session) = w.open_by_agent(grants[at], id, |_| ()) {
                        seen.sessions.push((session, which, TARGETS[at]));
                    }
                }
                Step::Act { session, kind } => {
                    let Some(session) = pick(session, seen.sessions.len()) else { continue };
                    let kind = ACTS[kind];
                    if w.intent_of(kind, seen.sessions[session].0, |_| ()).is_ok() {
                        seen.acted(session, kind, w.now);
                        acts.set(acts.get() + 1);
                    }
                }
                Step::Wait { ms } => drop(w.after(ms)),
            }
        }
        // What a snapshot brings back is the same.
        let again = State::from_snapshot(&w.state.to_snapshot().unwrap()).unwrap();
        assert_eq!(fingerprint(&again), fingerprint(&w.state));
    });
    let (acts, deep) = (acts.get(), deep.get());
    assert!(
        acts > 200 && deep > 50,
        "only {acts} actions, {deep} handed on"
    );
}
