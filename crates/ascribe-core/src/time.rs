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

/// Year, month and day of a day since 1970-01-01. Years begin in March here, so that a leap day is a year's
/// last; 400 of them are one cycle.
fn civil(days: i64) -> [i64; 3] {
    const CYCLE: i64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    [400 * cycle + year + next, month, day]
}

impl Timestamp {
    fn text(self) -> [u8; 24] {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let [year, month, day] = civil(days);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, ms) = (ms / 1000 % 60, ms % 1000);
        let mut out = *b"0000-00-00T00:00:00.000Z";
        for (mut number, digits) in [
            (year, 0..4),
            (month, 5..7),
            (day, 8..10),
            (hour, 11..13),
            (minute, 14..16),
            (second, 17..19),
            (ms, 20..23),
        ] {
            for digit in out.get_mut(digits).into_iter().flatten().rev() {
                *digit += u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        }
        out
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
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
        if time.text() == text.as_bytes() {
            Ok(time)
        } else {
            Err(TimeError(crate::text::clean(text, 60)))
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(std::str::from_utf8(&self.text()).unwrap_or_default())
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

    proptest::proptest! {
        #[test]
        fn a_time_is_written_as_a_library_of_calendars_does(ms in 0..=MAX_MS) {
            let known = jiff::Timestamp::from_millisecond(ms).unwrap();
            proptest::prop_assert_eq!(Timestamp(ms).to_string(), format!("{known:.3}"));
        }
    }

    #[test]
    fn the_first_and_the_last_of_every_month_are_written() {
        let mut day = jiff::civil::date(1970, 1, 1);
        while let Ok(next) = day.last_of_month().tomorrow() {
            for day in [day, day.last_of_month()] {
                let at = day.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
                let ours = Timestamp(at.as_millisecond());
                assert_eq!(ours.to_string(), format!("{at:.3}"));
            }
            day = next;
        }
        assert_eq!(Timestamp(MAX_MS).to_string(), "9999-12-31T23:59:59.999Z");
    }

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
