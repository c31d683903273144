//! A model beside the law: it keeps only facts, and works everything out again from all of them.

use super::*;
use crate::statement::{Recurrence, Window};

/// What a snapshot brings back is the same, down to what is only an index.
fn snapshot_is_the_same(state: &State) {
    let again = State::from_snapshot(&state.to_snapshot().unwrap()).unwrap();
    assert_eq!(fingerprint(&again), fingerprint(state));
}

#[derive(Debug, Clone)]
enum Cmd {
    Ask {
        by: u8,
        two: bool,
        from: i64,
        long: i64,
        single: bool,
        /// Twice, with so much between.
        again: Option<i64>,
    },
    Extend {
        by: u8,
        grant: usize,
        more: i64,
    },
    Yes {
        by: u8,
        ask: usize,
    },
    No {
        by: u8,
        ask: usize,
    },
    Withdraw {
        by: u8,
        ask: usize,
    },
    Revoke {
        by: u8,
        grant: usize,
    },
    Open {
        grant: usize,
    },
    Act {
        session: usize,
    },
    Leave {
        who: u8,
    },
    Wait {
        ms: i64,
    },
}

#[derive(Debug, Clone)]
enum Fact {
    Asked {
        by: u8,
        quorum: usize,
        from: i64,
        until: i64,
        single: bool,
        of: Option<usize>,
        /// First instants and ends, where there are several.
        windows: Vec<(i64, i64)>,
    },
    Yes {
        by: u8,
        ask: usize,
    },
    Ended {
        ask: usize,
    },
    Revoked {
        ask: usize,
    },
    Opened {
        ask: usize,
        at: i64,
    },
    Left {
        who: u8,
    },
}

/// The four people: a requester, two who request and approve, an approver.
const WORLD: [(&[Role], u8); 4] = [
    (&[Role::Requester], 11),
    (&[Role::Requester, Role::Approver], 12),
    (&[Role::Requester, Role::Approver], 13),
    (&[Role::Approver], 14),
];
const LONGEST: i64 = 2 * HOUR;

/// Facts in order; asks and sessions are numbered as they come.
#[derive(Default)]
struct Model {
    facts: Vec<Fact>,
}

impl Model {
    fn asks(&self) -> Vec<&Fact> {
        let asked = |fact: &&Fact| matches!(fact, Fact::Asked { .. });
        self.facts.iter().filter(asked).collect()
    }
    /// Asker, approvals needed, first instant, end, single use, the grant to extend.
    fn ask(&self, n: usize) -> (u8, usize, i64, i64, bool, Option<usize>) {
        match self.asks()[n] {
            Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
                windows: _,
            } => (*by, *quorum, *from, *until, *single, *of),
            other => panic!("{other:?}"),
        }
    }
    fn windows(&self, n: usize) -> &[(i64, i64)] {
        match self.asks()[n] {
            Fact::Asked { windows, .. } => windows,
            other => panic!("{other:?}"),
        }
    }
    /// The end of the window that this instant is in.
    fn window_end(&self, grant: usize, at: i64) -> Option<i64> {
        let whole = (self.ask(grant).2, self.end(grant));
        let one = [whole];
        let windows = match self.windows(grant) {
            [] => &one[..],
            several => several,
        };
        let inside = |(from, until): &&(i64, i64)| *from <= at && at < *until;
        windows.iter().find(inside).map(|(_, until)| *until)
    }
    /// Grants that sessions were opened under, and when.
    fn sessions(&self) -> Vec<(usize, i64)> {
        let opened = |fact: &Fact| match fact {
            Fact::Opened { ask, at } => Some((*ask, *at)),
            _ => None,
        };
        self.facts.iter().filter_map(opened).collect()
    }
    fn voices(&self, n: usize) -> BTreeSet<u8> {
        let voice = |fact: &Fact| match fact {
            Fact::Yes { by, ask } if *ask == n => Some(*by),
            _ => None,
        };
        self.facts.iter().filter_map(voice).collect()
    }
    fn carried(&self, n: usize) -> bool {
        self.voices(n).len() >= self.ask(n).1
    }
    fn settled(&self, n: usize) -> bool {
        let over = |fact: &Fact| matches!(fact, Fact::Ended { ask } if *ask == n);
        self.carried(n) || self.facts.iter().any(over)
    }
    fn left(&self, person: u8) -> bool {
        let gone = |fact: &Fact| matches!(fact, Fact::Left { who } if *who == person);
        self.facts.iter().any(gone)
    }
    fn is(&self, person: u8, role: Role) -> bool {
        WORLD[usize::from(person)].0.contains(&role) && !self.left(person)
    }
    fn end(&self, grant: usize) -> i64 {
        let later = (0..self.asks().len())
            .filter(|n| self.ask(*n).5 == Some(grant) && self.carried(*n))
            .map(|n| self.ask(n).3);
        later.max().unwrap_or(0).max(self.ask(grant).3)
    }
    fn grants(&self) -> Vec<usize> {
        (0..self.asks().len())
            .filter(|n| self.ask(*n).5.is_none() && self.carried(*n))
            .collect()
    }
    fn revoked(&self, grant: usize) -> bool {
        let taken = |fact: &Fact| matches!(fact, Fact::Revoked { ask } if *ask == grant);
        self.facts.iter().any(taken)
    }
    /// May something run under this grant now?
    fn holds(&self, grant: usize, now: i64) -> bool {
        self.carried(grant)
            && !self.revoked(grant)
            && !self.left(self.ask(grant).0)
            && now < self.end(grant)
    }
    fn may_answer(&self, by: u8, n: usize) -> bool {
        !self.settled(n) && self.is(by, Role::Approver) && self.ask(n).0 != by
    }
    fn may_say_yes(&self, by: u8, n: usize, now: i64) -> bool {
        let (_, _, _, until, _, of) = self.ask(n);
        let in_time = match of {
            None => now < until,
            Some(grant) => !self.revoked(grant) && now < self.end(grant) && until > self.end(grant),
        };
        let fresh = !self.voices(n).contains(&by);
        self.may_answer(by, n) && fresh && in_time && !self.left(self.ask(n).0)
    }
    fn may_extend(&self, by: u8, grant: usize, until: i64, now: i64) -> bool {
        self.ask(grant).0 == by
            && self.holds(grant, now)
            && self.windows(grant).is_empty()
            && until > self.end(grant)
            && until - self.ask(grant).2 <= LONGEST
    }
    fn may_open(&self, grant: usize, now: i64) -> bool {
        let used = self.sessions().iter().any(|(of, _)| *of == grant);
        let open = self.window_end(grant, now).is_some();
        self.holds(grant, now) && open && !(self.ask(grant).4 && used)
    }
    /// May something run in this session now?
    fn may_act(&self, session: usize, now: i64) -> bool {
        let (grant, at) = self.sessions()[session];
        let end = self.window_end(grant, at);
        self.holds(grant, now) && end.is_some_and(|end| now < end)
    }
}

/// The machine, and what it calls the model's asks and sessions.
struct Pair {
    model: Model,
    world: World,
    asks: Vec<AskRef>,
    sessions: Vec<SessionId>,
    ran: usize,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::empty();
        let mut people = vec![enrol(ADA, &[Role::Admin])];
        people.extend(WORLD.iter().map(|(roles, n)| enrol(*n, roles)));
        let names = people.iter().map(|(_, name)| name.clone()).collect();
        world
            .record(SERVER, Body::Genesis(genesis(1, &people)), names)
            .unwrap();
        for (name, quorum) in [("one", 1), ("two", 2)] {
            let mut rules = target(name);
            (rules.quorum, rules.max_seconds, rules.break_glass) = (quorum, 7200, vec![]);
            world.say(ADA, Say::TargetSet(rules), Vec::new()).unwrap();
        }
        Self {
            model: Model::default(),
            world,
            asks: Vec::new(),
            sessions: Vec::new(),
            ran: 0,
        }
    }
    fn grant_id(&self, n: usize) -> GrantId {
        self.world.grant_of(self.asks[n]).unwrap()
    }
    /// What the machine did, what the model says, and the fact that follows.
    fn run(&mut self, cmd: &Cmd) {
        let now = self.world.now.millis();
        // Mostly the newest.
        let pick = |n: usize, of: usize| (of > 0).then(|| of - 1 - n % of);
        let (done, expected, fact) = match *cmd {
            Cmd::Wait { ms } => {
                self.world.after(ms);
                return;
            }
            Cmd::Ask {
                by,
                two,
                from,
                long,
                single,
                again,
            } => {
                return self.ask(by, two, now + from, long, single, again);
            }
            Cmd::Extend { by, grant, more } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()) else {
                    return;
                };
                return self.extend(by, grants[n], more);
            }
            Cmd::Yes { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let done = self.world.approve(WORLD[usize::from(by)].1, self.asks[n]);
                let expected = self.model.may_say_yes(by, n, now);
                (done.is_ok(), expected, Fact::Yes { by, ask: n })
            }
            Cmd::No { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let say = Say::Denial(answer(self.asks[n]));
                let done = self.world.say(WORLD[usize::from(by)].1, say, Vec::new());
                (
                    done.is_ok(),
                    self.model.may_answer(by, n),
                    Fact::Ended { ask: n },
                )
            }
            Cmd::Withdraw { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let say = Say::Cancellation(answer(self.asks[n]));
                let done = self.world.say(WORLD[usize::from(by)].1, say, Vec::new());
                let model = &self.model;
                let expected = model.ask(n).0 == by && !model.settled(n) && !model.left(by);
                (done.is_ok(), expected, Fact::Ended { ask: n })
            }
            Cmd::Revoke { by, grant } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()).map(|n| grants[n]) else {
                    return;
                };
                let id = self.grant_id(n);
                let done = self.world.revoke(WORLD[usize::from(by)].1, id);
                let model = &self.model;
                let entitled = model.ask(n).0 == by || model.is(by, Role::Approver);
                let expected = entitled && !model.left(by) && !model.revoked(n);
                (done.is_ok(), expected, Fact::Revoked { ask: n })
            }
            Cmd::Open { grant } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()).map(|n| grants[n]) else {
                    return;
                };
                let id = self.grant_id(n);
                let done = self.world.open(id);
                self.sessions.extend(done.as_ref().ok());
                (
                    done.is_ok(),
                    self.model.may_open(n, now),
                    Fact::Opened { ask: n, at: now },
                )
            }
            Cmd::Act { session } => {
                let Some(n) = pick(session, self.sessions.len()) else {
                    return;
                };
                let done = self.world.intent(self.sessions[n]).is_ok();
                assert_eq!(done, self.model.may_act(n, now), "{cmd:?}");
                self.ran += usize::from(done);
                return;
            }
            Cmd::Leave { who } => {
                let leaver = person(WORLD[usize::from(who)].1);
                let say = Say::Offboard(Offboard { person: leaver });
                let done = self.world.say(ADA, say, Vec::new());
                (done.is_ok(), !self.model.left(who), Fact::Left { who })
            }
        };
        assert_eq!(done, expected, "{cmd:?}");
        if done {
            self.model.facts.push(fact);
        }
    }
    fn ask(&mut self, by: u8, two: bool, from: i64, long: i64, single: bool, again: Option<i64>) {
        let now = self.world.now.millis();
        let begins = [Some(from), again.map(|gap| from + long + gap)];
        let begins = begins.into_iter().flatten();
        let windows: Vec<(i64, i64)> = begins.map(|at| (at, at + long)).collect();
        let until = windows[windows.len() - 1].1;
        let recurs = again.is_some();
        let single = single && !recurs;
        let done = self.world.request(WORLD[usize::from(by)].1, |r| {
            r.target = if two { "two" } else { "one" }.to_owned();
            (r.not_before, r.not_after) = (time(from), time(until));
            r.uses = if single { Uses::Single } else { Uses::Reusable };
            r.recurrence = recurs.then(|| Recurrence {
                rule: "daily 08:00-18:00".to_owned(),
                zone: "Europe/Berlin".to_owned(),
                tzdata: "2026a".to_owned(),
                windows: windows
                    .iter()
                    .map(|(from, until)| Window {
                        from: time(*from),
                        until: time(*until),
                    })
                    .collect(),
            });
        });
        let lengths = windows.iter().map(|(from, until)| until - from);
        let ordered = windows.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        let in_window =
            until > now && ordered && lengths.into_iter().all(|l| l > 0 && l <= LONGEST);
        let expected = self.model.is(by, Role::Requester) && in_window;
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if let Ok(ask) = done {
            self.asks.push(ask);
            let quorum = if two { 2 } else { 1 };
            let of = None;
            self.model.facts.push(Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
                windows: if recurs { windows } else { Vec::new() },
            });
        }
    }
    fn extend(&mut self, by: u8, grant: usize, more: i64) {
        let now = self.world.now.millis();
        let until = self.model.end(grant) + more;
        let id = self.grant_id(grant);
        let done = self.world.extend(WORLD[usize::from(by)].1, id, time(until));
        let expected = self.model.may_extend(by, grant, until, now);
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if let Ok(ask) = done {
            self.asks.push(ask);
            let (_, quorum, from, _, single, _) = self.model.ask(grant);
            let of = Some(grant);
            self.model.facts.push(Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
                windows: Vec::new(),
            });
        }
    }
}

fn commands() -> impl Strategy<Value = Vec<Cmd>> {
    let who = prop_oneof![0..4u8, 1..4u8];
    let nth = prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => 2..8usize];
    let windows = prop_oneof![Just(0), Just(10 * MIN), Just(-MIN)];
    let lengths =
        prop_oneof![4 => Just(HOUR), 4 => Just(LONGEST), 1 => Just(LONGEST + 1), 1 => Just(0)];
    let waits = prop_oneof![
        Just(1),
        Just(10 * MIN - 1),
        Just(HOUR - 10 * MIN),
        Just(MIN)
    ];
    let again = prop_oneof![
        4 => Just(None),
        2 => Just(Some(20 * MIN)),
        1 => Just(Some(0)),
        1 => Just(Some(-1)),
    ];
    let ask = (
        0..3u8,
        any::<bool>(),
        windows,
        lengths,
        any::<bool>(),
        again,
    );
    let more = prop_oneof![Just(MIN), Just(HOUR), Just(0), Just(LONGEST)];
    let one = prop_oneof![
        9 => ask.prop_map(|(by, two, from, long, single, again)| Cmd::Ask { by, two, from, long, single, again }),
        6 => (who.clone(), nth.clone(), more).prop_map(|(by, grant, more)| Cmd::Extend { by, grant, more }),
        18 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::Yes { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::No { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::Withdraw { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, grant)| Cmd::Revoke { by, grant }),
        12 => nth.clone().prop_map(|grant| Cmd::Open { grant }),
        18 => nth.prop_map(|session| Cmd::Act { session }),
        1 => (0..4u8).prop_map(|who| Cmd::Leave { who }),
        4 => waits.prop_map(|ms| Cmd::Wait { ms }),
    ];
    proptest::collection::vec(one, 1..100)
}

#[test]
fn the_law_and_the_model_agree_on_every_command() {
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ran = std::cell::Cell::new(0);
    proptest!(config, |(commands in commands())| {
        let mut pair = Pair::new();
        for cmd in &commands {
            pair.run(cmd);
            snapshot_is_the_same(&pair.world.state);
        }
        // Dropping the world replays its bytes and compares the states.
        ran.set(ran.get() + pair.ran);
    });
    assert!(ran.get() > 200, "only {} intents ran", ran.get());
}
