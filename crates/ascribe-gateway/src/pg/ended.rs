//! Outcomes on their way to the record.
//!
//! They gather a little and are recorded together: each by itself would wake everybody on its way once
//! more, and what the session runs next would wait behind its sync. A server that is killed meanwhile
//! leaves them unknown, as it would in the middle of that sync.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ascribe_core::entry::Outcome;
use ascribe_core::id::SessionId;
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
        let Some(first) = batch.first().map(|proposal| proposal.id) else {
            return;
        };
        let count = batch.len();
        life.settle(batch).await;
        let waiting = &mut *self.waiting();
        let at = waiting.proposals.iter().position(|p| p.id == first);
        if let Some(at) = at {
            waiting.proposals.drain(at..at + count);
            waiting.proposed = waiting.proposed.saturating_sub(count);
        }
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
