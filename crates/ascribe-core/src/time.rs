//! UTC instants in milliseconds. Nothing here reads a clock, a zone or the environment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A UTC instant, milliseconds since 1970-01-01T00:00:00Z, written as RFC 3339 with exactly three
/// fraction digits and `Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// A text is not an RFC 3339 UTC instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UTC time such as `2026-01-31T12:00:00Z`")]
pub struct TimeError(String);

const MAX_MS: i64 = 253_402_300_799_999; // 9999-12-31T23:59:59.999Z

impl Timestamp {
    /// From milliseconds since the epoch, clamped to the years 1970 to 9999.
    pub fn from_millis(ms: i64) -> Self {
        Self(ms.clamp(0, MAX_MS))
    }
    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }
    /// Later by so many milliseconds.
    #[must_use]
    pub fn plus_millis(self, ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(ms))
    }
    /// Milliseconds from `earlier` to here; negative when `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
    /// Reads a time as a person writes it: RFC 3339 with `Z` or a numeric offset.
    ///
    /// # Errors
    /// When the text names no instant (a local time without offset is refused).
    pub fn parse_human(text: &str) -> Result<Self, TimeError> {
        let instant: jiff::Timestamp = text
            .parse()
            .map_err(|_| TimeError(crate::text::clean(text, 60)))?;
        Ok(Self::from_millis(instant.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let time = Self::parse_human(text)?;
        if time.to_string() == text {
            Ok(time)
        } else {
            Err(TimeError(crate::text::clean(text, 60)))
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::encoding::parsed(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_read_back() {
        let t = Timestamp::from_millis(1_764_000_000_123);
        assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t);
        assert_eq!(
            Timestamp::from_millis(0).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        for bad in [
            "2026-01-01T00:00:00Z",
            "2026-01-01 00:00:00.000Z",
            "2026-01-01T02:00:00.000+02:00",
            "now",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
        assert!(
            Timestamp::parse_human("2026-01-01T00:00:00").is_err(),
            "local time names no instant"
        );
    }
}
