//! Outcomes on their way to the record.
//!
//! They gather a little and are recorded together: each by itself would wake everybody on its way once
//! more, and what the session runs next would wait behind its sync. A server that is killed meanwhile
//! leaves them unknown, as it would in the middle of that sync.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ascribe_core::entry::Outcome;
use ascribe_core::id::{EntryId, SessionId};
use ascribe_core::record::Proposal;
use tokio::sync::Notify;

use crate::life::Life;

/// Outcomes that wait; with as many they are recorded at once, and the target is not read meanwhile.
const AT_ONCE: usize = 256;
/// How long the first of them waits for others.
const LINGER: Duration = Duration::from_millis(20);

/// The outcomes of a session that are not on record.
#[derive(Debug, Default)]
pub(super) struct Ended {
    waiting: Mutex<Waiting>,
    /// There are some.
    some: Notify,
}

/// They stay until they are on record, so that nobody who stops waiting for that loses one.
#[derive(Debug, Default)]
struct Waiting {
    /// In order.
    proposals: Vec<Proposal>,
    /// So many of them are proposed already.
    proposed: usize,
}

impl Waiting {
    /// These are on record, or never will be. Some of them may have been proposed by two, and are gone already.
    fn forget(&mut self, ids: &HashSet<EntryId>) {
        let Self {
            proposals,
            proposed,
        } = self;
        let mut at = 0;
        let mut before = 0;
        proposals.retain(|proposal| {
            let done = ids.contains(&proposal.id);
            before += usize::from(done && at < *proposed);
            at += 1;
            !done
        });
        *proposed -= before;
    }
}

impl Ended {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes outcomes, in order. They are recorded soon.
    pub(super) fn take(&self, life: &Life, session: SessionId, outcomes: Vec<Outcome>) {
        let mut waiting = self.waiting();
        let none = waiting.proposals.len() == waiting.proposed;
        let outcomes = outcomes.into_iter();
        let before = waiting.proposals.len();
        waiting
            .proposals
            .extend(outcomes.map(|outcome| life.outcome(session, outcome)));
        if none && waiting.proposals.len() > before {
            self.some.notify_one();
        }
    }

    /// Records them where there are many.
    pub(super) async fn if_many(&self, life: &Life) {
        let many = {
            let waiting = self.waiting();
            waiting.proposals.len() - waiting.proposed >= AT_ONCE
        };
        if many {
            self.record(life).await;
        }
    }

    /// Records those that nobody has proposed yet.
    pub(super) async fn record(&self, life: &Life) {
        let batch: Vec<Proposal> = {
            let mut waiting = self.waiting();
            let all = waiting.proposals.len();
            let begun = std::mem::replace(&mut waiting.proposed, all);
            waiting.proposals.iter().skip(begun).cloned().collect()
        };
        if batch.is_empty() {
            return;
        }
        let ids: HashSet<EntryId> = batch.iter().map(|proposal| proposal.id).collect();
        life.settle(batch).await;
        self.waiting().forget(&ids);
    }

    /// Records all of them, and those again that somebody may have proposed in vain: proposed twice, an
    /// entry is recorded once.
    pub(super) async fn finish(&self, life: &Life) {
        self.waiting().proposed = 0;
        self.record(life).await;
    }

    /// Records what waited long enough, until the session is over.
    pub(super) async fn linger(&self, life: &Life) {
        loop {
            tokio::select! {
                () = self.some.notified() => {}
                () = life.over.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = life.over.cancelled() => return,
            }
            self.record(life).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ascribe_core::entry::{Body, Status};
    use ascribe_core::id::ActionId;
    use ascribe_core::record::Scope;

    use super::*;
    use crate::pg::outcomes::outcome;

    #[test]
    fn what_two_have_proposed_is_forgotten_once_and_nothing_else() {
        let id = |n: u8| EntryId::new([n; 16]);
        let proposal = |n: u8| Proposal {
            id: id(n),
            writer: "gateway".to_owned(),
            body: Body::Outcome(outcome(ActionId::new([n; 16]), Status::Unknown, None)),
            openings: Vec::new(),
            scope: Scope::None,
        };
        // The first four are proposed: 1 and 2 by whoever was cut short, all by the last one, 3 and 4 by another.
        let mut waiting = Waiting {
            proposals: (1..=5).map(proposal).collect(),
            proposed: 4,
        };
        let left = |waiting: &Waiting| {
            let ids = waiting.proposals.iter().map(|proposal| proposal.id);
            (ids.collect::<Vec<_>>(), waiting.proposed)
        };
        waiting.forget(&[id(3), id(4)].into());
        assert_eq!(left(&waiting), (vec![id(1), id(2), id(5)], 2));
        waiting.forget(&[id(1), id(2), id(3), id(4)].into());
        assert_eq!(left(&waiting), (vec![id(5)], 0));
    }
}
