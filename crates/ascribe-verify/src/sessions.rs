//! How many sessions a whole ledger has, and on whose word they rest.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ascribe_core::attribution::ActionRecord;
use ascribe_core::entry::{Body, Entry, OpenedBy};
use ascribe_core::id::{ActionId, EntryHash, SessionId};
use ascribe_core::law::State;
use serde::Serialize;

use crate::witnesses::Witnessed;

/// Counts of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// All.
    pub all: u64,
    /// Those that have ended as witnesses saw, and of which opening, record and close are all under heads that their
    /// writers signed. On whose word the rest of their chains rests, is not looked at.
    pub signed_and_seen: u64,
    /// Those whose opening no actor signed: who came in is testimony, as what was done always is.
    pub testimony: u64,
    /// Those with entries that no signed head covers: the log alone says whose these are.
    pub log_alone: u64,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy)]
enum About {
    Session(SessionId),
    Action(ActionId),
    Else,
}

/// One entry in its writer's chain.
#[derive(Debug, Clone, Copy)]
struct Place {
    seq: u64,
    hash: EntryHash,
    about: About,
}

/// What is kept of a whole log to count its sessions.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Each writer's newest entries, which no head covers yet.
    uncovered: BTreeMap<String, VecDeque<Place>>,
    closed: HashMap<SessionId, u64>,
}

impl Kept {
    pub(crate) fn keep(&mut self, index: u64, entry: &Entry, hash: EntryHash) {
        let about = match &entry.body {
            Body::SessionOpen(open) => About::Session(open.session),
            Body::SessionClose(close) => {
                self.closed.insert(close.session, index);
                About::Session(close.session)
            }
            Body::Intent(intent) => About::Session(intent.session),
            Body::Refusal(refusal) => refusal.session.map_or(About::Else, About::Session),
            Body::Outcome(outcome) => About::Action(outcome.action),
            Body::Evidence(evidence) => About::Action(evidence.action),
            _ => About::Else,
        };
        let writer = &entry.writer;
        let place = Place {
            seq: writer.seq,
            hash,
            about,
        };
        let Some(chain) = self.uncovered.get_mut(&writer.id) else {
            let chain = VecDeque::from([place]);
            self.uncovered.insert(writer.id.clone(), chain);
            return;
        };
        if let Body::Head(head) = &entry.body {
            // A chain of a whole log has no gap. What a head names by a wrong hash it does not cover.
            let named = chain.binary_search_by_key(&head.seq, |place| place.seq);
            let named = named.ok().filter(|at| {
                let place = chain.get(*at);
                place.is_some_and(|place| place.hash == head.hash)
            });
            chain.drain(..named.map_or(0, |at| at + 1));
        }
        chain.push_back(place);
    }

    /// The counts, of a log with these actions.
    pub(crate) fn count(
        &self,
        state: &State,
        actions: &[ActionRecord],
        witnessed: Option<&Witnessed>,
    ) -> Sessions {
        let (mut alone, mut parts) = (BTreeSet::new(), BTreeSet::new());
        for place in self.uncovered.values().flatten() {
            match place.about {
                About::Session(session) => drop(alone.insert(session)),
                About::Action(action) => drop(parts.insert(action)),
                About::Else => {}
            }
        }
        if !parts.is_empty() {
            let of = actions.iter().filter(|a| parts.contains(&a.action_id));
            alone.extend(of.map(|action| action.session_id));
        }
        let seen = witnessed.map_or(0, |witnessed| witnessed.size);
        let mut counts = Sessions::default();
        for (id, session) in &state.sessions {
            counts.all += 1;
            let testimony = session.open.opened_by == OpenedBy::Testimony;
            counts.testimony += u64::from(testimony);
            let log_alone = alone.contains(id);
            counts.log_alone += u64::from(log_alone);
            let ended = self.closed.get(id).is_some_and(|index| *index < seen);
            counts.signed_and_seen += u64::from(ended && !log_alone);
        }
        counts
    }
}

/// In a line of words; nothing where there are none.
pub(crate) fn in_words(sessions: &Sessions) -> Option<String> {
    (sessions.all > 0).then(|| {
        format!(
            "  sessions  {} in all; every entry of {} is under a head that its writer signed, and witnesses saw the end \
             of these; {} began with TESTIMONY, signed by no actor; of {} the log alone says whose some entries are",
            sessions.all, sessions.signed_and_seen, sessions.testimony, sessions.log_alone
        )
    })
}
