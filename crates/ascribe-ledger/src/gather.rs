//! How long proposals gather before they are handed over to be written together.
//!
//! Each batch costs two signatures, a sync and some changes of thread, however many share it. So where several
//! shared the newest one, the next may take twice as long to gather as that one took to be written, unless as
//! many are there as are usual by then. Nobody waits who was alone; and where a sync takes long by itself,
//! enough come meanwhile.

use std::time::{Duration, Instant};

/// Longest time that proposals gather.
const LONGEST: Duration = Duration::from_millis(1);
/// Longest time until what came meanwhile is looked at.
const LOOK: Duration = Duration::from_micros(100);

/// What is known of those who share batches.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// So many waited for the newest batch.
    newest: usize,
    /// So many are usual: the most that waited for one, which wears off.
    usual: usize,
    /// When the group began that is pending.
    begun: Option<Instant>,
}

impl Gathering {
    /// There is a group at this time, or none.
    pub(crate) fn look(&mut self, some: bool, now: Instant) {
        self.begun = some.then(|| self.begun.unwrap_or(now));
    }

    /// How much longer a group for which so many wait gathers, where the batch before took so long to be
    /// written.
    pub(crate) fn left(&self, waiting: usize, took: Duration, now: Instant) -> Duration {
        if self.newest < 2 || waiting >= self.usual {
            return Duration::ZERO;
        }
        let gathered = self.begun.map(|begun| now.saturating_duration_since(begun));
        let time = took.saturating_mul(2).min(LONGEST);
        time.saturating_sub(gathered.unwrap_or_default()).min(LOOK)
    }

    /// A group for which so many wait is handed over.
    pub(crate) fn handed_over(&mut self, waiting: usize) {
        self.newest = waiting;
        self.usual = (self.usual - self.usual.div_ceil(8)).max(waiting);
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROS: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn who_was_alone_waits_for_nobody() {
        let mut gathering = Gathering::default();
        let now = Instant::now();
        gathering.look(true, now);
        assert_eq!(gathering.left(1, MICROS(500), now), Duration::ZERO);
        gathering.handed_over(8);
        gathering.handed_over(1);
        gathering.look(true, now);
        assert_eq!(gathering.left(1, MICROS(500), now), Duration::ZERO);
    }

    #[test]
    fn a_group_gathers_until_the_usual_number_is_there_or_its_time_is_over() {
        let mut gathering = Gathering::default();
        gathering.handed_over(8);
        let now = Instant::now();
        gathering.look(true, now);
        let later = now + MICROS(150);
        gathering.look(true, later);
        assert_eq!(gathering.left(7, MICROS(100), now), LOOK);
        assert_eq!(gathering.left(7, MICROS(100), later), MICROS(50));
        assert_eq!(
            gathering.left(7, MICROS(100), now + MICROS(200)),
            Duration::ZERO
        );
        assert_eq!(gathering.left(8, MICROS(100), now), Duration::ZERO);
        // A sync that takes long by itself is waited for, and no more than that.
        let slow = Duration::from_millis(5);
        assert_eq!(gathering.left(7, slow, now + LONGEST), Duration::ZERO);
    }

    #[test]
    fn those_who_left_are_soon_not_waited_for() {
        let mut gathering = Gathering::default();
        gathering.handed_over(32);
        let batches = std::iter::repeat_with(|| {
            gathering.handed_over(2);
            gathering.usual
        });
        assert!(batches.take(24).any(|usual| usual == 2));
    }
}
