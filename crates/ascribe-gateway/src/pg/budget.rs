//! The memory that clients can make the gateway hold, bounded over all sessions: prepared statements, portals,
//! what waits for an answer, messages on their way in.
//!
//! Each session has a little from the beginning, and a quarter of it all is for nothing else. Up to a small part
//! more it gets out of the next quarter. Half is for those who hold much, and each of them must leave as much of
//! that half as it holds: one alone gets half of it, and none so much that nobody else gets any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a session has from the beginning, in bytes: about as much as one takes that only waits.
const EACH: usize = 64 * 1024;
/// A small part of it all: one in so many.
const SMALL: usize = 64;
/// More is taken and given back in such steps, in bytes, so that few messages change what is shared.
const STEP: usize = 64 * 1024;

/// All of it, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    taken: AtomicUsize,
}

/// One session's part; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    /// So much of the budget.
    own: usize,
    /// What its statements, portals and unanswered messages take.
    held: usize,
    /// What messages take that are on their way in.
    passing: usize,
}

impl Budget {
    pub(super) fn new(total: usize) -> Self {
        let taken = AtomicUsize::new(0);
        Self { total, taken }
    }

    /// How much must still be free once somebody holds so much, in bytes.
    fn spare(&self, holds: usize) -> usize {
        if holds <= EACH {
            0
        } else if holds <= self.total / SMALL {
            self.total / 4
        } else {
            (self.total / 2).saturating_add(holds)
        }
    }

    /// Takes more for somebody who then holds so much.
    fn take(&self, more: usize, holds: usize) -> bool {
        let spare = self.spare(holds);
        let take = |taken: usize| {
            let after = taken.checked_add(more)?;
            let free = self.total.checked_sub(after)?;
            (free >= spare).then_some(after)
        };
        let taken = &self.taken;
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

impl Share {
    /// What a new session begins with, if there is as much.
    pub(super) fn open(budget: &Arc<Budget>) -> Option<Self> {
        budget.take(EACH, EACH).then(|| Self {
            budget: Arc::clone(budget),
            own: EACH,
            held: 0,
            passing: 0,
        })
    }

    /// The session holds so many bytes now; is there room for that?
    pub(super) fn hold(&mut self, held: usize) -> bool {
        self.held = held;
        self.fits()
    }

    /// A message of which so many bytes are held comes in; if there is no room for it, it must not.
    pub(super) fn pass(&mut self, bytes: usize) -> bool {
        self.passing = self.passing.saturating_add(bytes);
        let fits = self.fits();
        if !fits {
            self.passing -= bytes;
        }
        fits
    }

    /// So many bytes of what came in are gone.
    pub(super) fn unpass(&mut self, bytes: usize) {
        self.passed(self.passing.saturating_sub(bytes));
    }

    /// Of messages on their way in, so many bytes are left.
    pub(super) fn passed(&mut self, left: usize) {
        self.passing = left;
        self.fits();
    }

    /// Takes what is needed, or gives back what is not.
    fn fits(&mut self) -> bool {
        let needed = self.held.saturating_add(self.passing).max(EACH);
        if needed > self.own {
            let after = needed.div_ceil(STEP).saturating_mul(STEP);
            let taken = self.budget.take(after - self.own, after);
            if taken {
                self.own = after;
            }
            return taken;
        }
        if self.own - needed >= 2 * STEP {
            let after = needed.div_ceil(STEP) * STEP;
            self.budget
                .taken
                .fetch_sub(self.own - after, Ordering::Relaxed);
            self.own = after;
        }
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn free(budget: &Budget) -> usize {
        budget.total - budget.taken.load(Ordering::Relaxed)
    }

    #[test]
    fn nobody_holds_more_than_is_left_for_others() {
        let budget = Arc::new(Budget::new(64 * MIB));
        let mut greedy: Vec<Share> = (0..100).filter_map(|_| Share::open(&budget)).collect();
        assert_eq!(greedy.len(), 100);
        for (n, share) in greedy.iter_mut().enumerate() {
            let mut held = 0;
            while share.hold(held + STEP) {
                held += STEP;
            }
            // The first get much, and everybody after them a small part, as long as there is a quarter.
            assert!(
                held <= 16 * MIB && (n > 14 || held >= MIB),
                "{n}: {share:?}"
            );
            share.hold(held);
        }
        // What is left is for those who come with little.
        assert!(free(&budget) >= 16 * MIB);
        let modest: Vec<Share> = std::iter::from_fn(|| Share::open(&budget)).collect();
        assert!(modest.len() >= 256, "{}", modest.len());
        // What is closed is there for others.
        drop(modest);
        greedy.truncate(2);
        assert!(greedy[1].hold(8 * MIB));
        assert!(greedy[0].hold(0) && greedy[0].own == EACH);
        drop(greedy);
        assert_eq!(free(&budget), 64 * MIB);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let budget = Arc::new(Budget::new(4 * MIB));
        let mut share = Share::open(&budget).unwrap();
        assert!(share.pass(MIB));
        assert!(!share.pass(MIB) && !share.pass(usize::MAX));
        assert!(!share.hold(usize::MAX));
        assert!(share.hold(0));
        share.passed(0);
        assert_eq!(free(&budget), 4 * MIB - EACH);
        let all: Vec<Share> = std::iter::from_fn(|| Share::open(&budget)).collect();
        assert_eq!(all.len(), 4 * MIB / EACH - 1);
    }
}
