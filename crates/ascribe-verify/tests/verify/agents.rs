//! Agents in a log whose operator lies: only the keys of people and of their agents are their own.

use ascribe_core::delegation::{Acceptance, Asserted, Delegation, DelegationRevoke};
use ascribe_core::id::{SessionId, StatementId};
use ascribe_core::law::Place;
use ascribe_core::sealed::Prose;
use ascribe_core::statement::{Say, Uses};

use super::forge::{Forge, MINUTE, Pen, Who, sealed};
use super::scenes::{Granted, Running};
use super::vectors::{Vector, golden};

/// Whoever holds the nth agent's key, in the name of Olu.
fn agent(n: u8) -> Pen {
    Pen {
        signer: Who::Pat,
        key: n,
        ..Pen::from(Who::Olu)
    }
}

/// A delegation and where its agent took it.
#[derive(Debug, Clone, Copy)]
struct Link {
    n: u8,
    id: StatementId,
    said: Place,
    taken: Place,
}

/// A log in which Olu has a grant.
struct Story {
    log: Forge,
    target: Place,
    grant: Granted,
}

impl Story {
    fn new() -> Self {
        let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
        let target = log.target();
        let (ask, body) = log.request(target, Uses::Reusable);
        let yes = log.wait(MINUTE).approve(Who::Ada, ask);
        let grant = log.grant(ask, &[yes], body);
        Self { log, target, grant }
    }

    fn delegate(
        &mut self,
        pen: Pen,
        above: Option<Link>,
        n: u8,
        change: impl FnOnce(&mut Delegation),
    ) -> (StatementId, Place) {
        let task = sealed("task", "rotate the logs of the order database");
        let mut delegation = Delegation {
            actions: 2,
            agent: format!("bot-{n}"),
            depth: u8::from(above.is_none()),
            key: Who::Pat.key(n),
            kinds: vec!["ssh.exec".to_owned()],
            parent: above.map(|link| link.id),
            targets: vec!["db1".to_owned()],
            task: Prose::of(&task),
            until: self.grant.body.not_after,
        };
        change(&mut delegation);
        let above = above.map(|link| ("acceptance", link.taken));
        let parents: Vec<_> = above.into_iter().chain([("target", self.target)]).collect();
        self.log
            .say(pen, &parents, Say::Delegation(delegation), vec![task])
    }

    fn accept(&mut self, pen: Pen, n: u8, (id, said): (StatementId, Place)) -> Link {
        let say = Say::Acceptance(Acceptance {
            asserted: Asserted {
                model: Some("example-large".to_owned()),
                ..Asserted::default()
            },
            entry: said.hash,
            of: id,
        });
        let (_, taken) = self.log.say(pen, &[("delegation", said)], say, vec![]);
        Link { n, id, said, taken }
    }

    /// Olu's agent, and its agent.
    fn links(&mut self) -> [Link; 2] {
        let said = self.delegate(Who::Olu.into(), None, 2, |_| ());
        let top = self.accept(agent(2), 2, said);
        let said = self.delegate(agent(2), Some(top), 3, |_| ());
        [top, self.accept(agent(3), 3, said)]
    }

    fn open(&mut self, link: Link) -> Running {
        let parents = [("acceptance", link.taken)];
        self.log.open_with(&self.grant, &parents, |open| {
            open.delegation = Some(link.id);
            open.key = Who::Pat.key(link.n).fingerprint();
        })
    }

    fn revoke(&mut self, link: Link) {
        let why = sealed("reason", "no longer needed");
        let say = Say::DelegationRevoke(DelegationRevoke {
            delegation: link.id,
            reason: Prose::of(&why),
        });
        let parents = [("delegation", link.said)];
        self.log.say(Who::Olu, &parents, say, vec![why]);
    }
}

fn story(tell: impl FnOnce(&mut Story) -> SessionId) -> Vec<u8> {
    let mut story = Story::new();
    let session = tell(&mut story);
    story.log.bundle(session).to_bytes().unwrap()
}

/// A log in which an agent's agent did something.
pub(super) fn session_of_an_agent() -> (Forge, SessionId) {
    let mut story = Story::new();
    let [_, below] = story.links();
    let mut session = story.open(below);
    story.log.run(&mut session);
    let id = story.log.close(session);
    (story.log, id)
}

/// The same where somebody had delegated to the key of the first of them before, and gave it another name.
pub(super) fn session_of_an_agent_with_a_namesake() -> (Forge, SessionId) {
    let mut story = Story::new();
    story.delegate(Who::Ada.into(), None, 2, |delegation| {
        delegation.agent = "impostor".to_owned();
    });
    let [top, _] = story.links();
    let mut session = story.open(top);
    story.log.run(&mut session);
    let id = story.log.close(session);
    (story.log, id)
}

/// One command by an agent that was made so.
fn by(make: impl FnOnce(&mut Story) -> Link) -> Vec<u8> {
    story(|story| {
        let link = make(story);
        let mut session = story.open(link);
        story.log.run(&mut session);
        story.log.close(session)
    })
}

pub(super) fn vectors() -> Vec<Vector> {
    vec![
        (
            "accept-note-delegated-twice",
            by(|story| {
                let [_, below] = story.links();
                below
            }),
        ),
        (
            "refuse-unsigned-delegation-by-another-key",
            by(|story| {
                let said = story.delegate(agent(5), None, 2, |_| ());
                story.accept(agent(2), 2, said)
            }),
        ),
        (
            "refuse-unsigned-acceptance-by-its-person",
            by(|story| {
                let said = story.delegate(Who::Olu.into(), None, 2, |_| ());
                story.accept(Who::Olu.into(), 2, said)
            }),
        ),
        (
            "refuse-unsigned-acceptance-by-another-agent",
            by(|story| {
                let [top, _] = story.links();
                let said = story.delegate(agent(2), Some(top), 4, |_| ());
                story.accept(agent(3), 4, said)
            }),
        ),
        (
            "refuse-unsigned-session-with-an-agents-key-as-its-persons",
            story(|story| {
                story.links();
                let mut session = story.log.open_with(&story.grant, &[], |open| {
                    open.key = Who::Pat.key(2).fingerprint();
                });
                story.log.run(&mut session);
                story.log.close(session)
            }),
        ),
        (
            "refuse-missing-acceptance",
            by(|story| {
                let [top, below] = story.links();
                // As if the lower one's acceptance were the upper one's.
                Link {
                    taken: top.taken,
                    ..below
                }
            }),
        ),
        (
            "refuse-unlawful-wider-than-what-was-delegated",
            by(|story| {
                let [top, _] = story.links();
                let wider = |d: &mut Delegation| d.actions = 3;
                let said = story.delegate(agent(2), Some(top), 4, wider);
                story.accept(agent(4), 4, said)
            }),
        ),
        (
            "refuse-outside-grant-of-another-kind-than-delegated",
            story(|story| {
                let [top, _] = story.links();
                let mut session = story.open(top);
                story.log.shell(&mut session);
                story.log.close(session)
            }),
        ),
        (
            "refuse-outside-grant-after-the-budget-is-used",
            story(|story| {
                let [top, below] = story.links();
                let mut session = story.open(top);
                let mut other = story.open(below);
                story.log.run(&mut session);
                story.log.run(&mut other);
                story.log.close(other);
                story.log.run(&mut session);
                story.log.run(&mut session);
                story.log.close(session)
            }),
        ),
        (
            "refuse-outside-grant-after-the-upper-delegation-was-revoked",
            story(|story| {
                let [top, below] = story.links();
                let mut session = story.open(below);
                story.revoke(top);
                story.log.run(&mut session);
                story.log.close(session)
            }),
        ),
    ]
}

#[test]
fn the_record_of_an_agents_action_names_every_link() {
    let (log, id) = session_of_an_agent();
    let bundle = log.bundle(id).to_bytes().unwrap();
    let report = ascribe_verify::verify_bundle(&bundle, &log.policy());
    let mut text = serde_json::to_string_pretty(&report.actions).unwrap();
    text.push('\n');
    golden("attribution-agents.json", text.as_bytes());
}

/// A bundle lacks what an agent's other sessions used; the whole ledger has it.
#[test]
fn what_other_sessions_used_of_a_budget_shows_in_the_whole_ledger_alone() {
    let mut story = Story::new();
    let [top, below] = story.links();
    let mut other = story.open(below);
    story.log.run(&mut other);
    story.log.run(&mut other);
    story.log.close(other);
    let mut session = story.open(top);
    story.log.run(&mut session);
    let id = story.log.close(session);
    let (log, trust) = (&story.log, story.log.policy());
    let bundle = log.bundle(id).to_bytes().unwrap();
    let report = ascribe_verify::verify_bundle(&bundle, &trust);
    assert_eq!(report.verdict, ascribe_verify::Verdict::Verified);
    let noted = |code| report.notes.iter().any(|note| note.code == code);
    assert!(noted("budget_elsewhere"), "{report:#?}");
    let note = log.checkpoint(log.size());
    let whole = ascribe_verify::verify_entries(
        note.as_bytes(),
        &log.bytes,
        &log.openings,
        &trust,
        "missing",
        &mut |_| {},
    );
    assert_eq!(whole.verdict, ascribe_verify::Verdict::Failed);
    assert_eq!(whole.problems[0].code, "outside_grant");
}
