//! Clocks and randomness, injected.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rustix::time::{ClockId, clock_gettime};

use crate::error::LedgerError;

/// How far the clock may be off before new intents are refused, in milliseconds.
pub const CLOCK_LIMIT_MS: i64 = 2_000;

/// Reads time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970, as the machine believes.
    fn now_millis(&self) -> i64;
    /// Milliseconds since some moment; never set back.
    fn monotonic_millis(&self) -> i64;
}

/// Draws random bytes.
pub trait Rng: Send + Sync + fmt::Debug {
    /// Fills the buffer.
    ///
    /// # Errors
    /// When the system has no randomness.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), LedgerError>;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Clock for SystemClock {
    fn now_millis(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, millis)
    }
    /// Also counts while the machine sleeps, as the wall clock does.
    fn monotonic_millis(&self) -> i64 {
        let since_boot = clock_gettime(ClockId::Boottime);
        since_boot
            .tv_sec
            .saturating_mul(1000)
            .saturating_add(since_boot.tv_nsec / 1_000_000)
    }
}

/// The machine's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), LedgerError> {
        SystemRandom::new()
            .fill(bytes)
            .map_err(|_| LedgerError::Crypto("draw random bytes"))
    }
}

/// What the clock is worth right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// For `at`, before it is made non-decreasing.
    pub(crate) at: i64,
    /// May new intents rely on it?
    pub(crate) trusted: bool,
}

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    wall: i64,
    mono: i64,
}

impl ClockGuard {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now_millis(),
            mono: clock.monotonic_millis(),
        }
    }

    /// While the wall clock is off, time goes on by the monotonic clock, so that outcomes and
    /// closes carry no wrong time into the log.
    pub(crate) fn read(&mut self, clock: &dyn Clock, last_at: i64) -> Reading {
        let (wall, mono) = (clock.now_millis(), clock.monotonic_millis());
        let expected = self.wall.saturating_add(mono.saturating_sub(self.mono));
        if wall.abs_diff(expected) > CLOCK_LIMIT_MS.unsigned_abs() {
            return Reading {
                at: expected,
                trusted: false,
            };
        }
        (self.wall, self.mono) = (wall, mono);
        Reading {
            at: wall,
            trusted: last_at.saturating_sub(wall) <= CLOCK_LIMIT_MS,
        }
    }
}
