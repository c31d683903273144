//! Windows by a rule in local time: `Tue,Thu 08:00-18:00 Europe/Berlin`. Clients resolve a rule to
//! instants, with the zone data of their machine; the law and the server only ever see the instants.
//!
//! A window begins, and ends, at the first instant at which the zone's clock has reached that time.
//! A time that the clock skips is thus reached when the gap ends; one that it shows twice counts when
//! first shown. Windows never overlap, and one that lies in a gap, or would begin on a date that the
//! zone skips, is left out.

use std::path::{Path, PathBuf};

use ascribe_core::statement::{Recurrence, Window};
use ascribe_core::time::Timestamp;
use jiff::ToSpan as _;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::exit::{Attempt as _, Done, Failure};

/// Days that a rule is resolved over at most: the law allows 90, and the bounds may lie on the days
/// before and after.
const MAX_DAYS: i64 = 94;
/// Where systems keep the zone data.
const DIRECTORIES: [&str; 3] = [
    "/usr/share/zoneinfo",
    "/usr/share/lib/zoneinfo",
    "/etc/zoneinfo",
];
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// Days of the week, and from when until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    days: Vec<Weekday>,
    begin: Time,
    /// The time of the end, and how many days after the beginning's it is.
    end: (Time, i64),
}

impl std::str::FromStr for Rule {
    type Err = Failure;

    /// `DAYS HH:MM-HH:MM`, where DAYS is `daily`, or days and ranges of days with commas between.
    fn from_str(text: &str) -> Done<Self> {
        let bad = || {
            let shown = ascribe_core::text::clean(text, 80);
            Failure::usage(format!("`{shown}` is no rule for windows")).help(
                "write days and times, for instance `Tue,Thu 08:00-18:00`, `Mon-Fri 22:00-06:00` or `daily 00:00-24:00`",
            )
        };
        let (days, times) = text.split_once(' ').ok_or_else(bad)?;
        let (begin, end) = times.split_once('-').ok_or_else(bad)?;
        let (begin, end) = (clock(begin).ok_or_else(bad)?, clock(end).ok_or_else(bad)?);
        let (begin, 0) = begin else {
            return Err(bad());
        };
        let end = match end {
            (time, 0) if time < begin => (time, 1),
            (time, 0) if time == begin => return Err(bad()),
            end => end,
        };
        let days = weekdays(days).ok_or_else(bad)?;
        Ok(Self { days, begin, end })
    }
}

/// `HH:MM`, and the days that it goes beyond its own: `24:00` is midnight a day later.
fn clock(text: &str) -> Option<(Time, i64)> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<i8>().ok()).flatten()
    };
    match (two(hour)?, two(minute)?) {
        (24, 0) => Some((Time::midnight(), 1)),
        (hour, minute) => Some((Time::new(hour, minute, 0, 0).ok()?, 0)),
    }
}

fn weekdays(text: &str) -> Option<Vec<Weekday>> {
    if text == "daily" {
        return Some(DAYS.map(|(_, day)| day).to_vec());
    }
    let day = |name: &str| DAYS.iter().find(|(n, _)| *n == name).map(|(_, day)| *day);
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut next, last) = (day(first)?, day(last)?);
        loop {
            if days.contains(&next) {
                return None;
            }
            days.push(next);
            if next == last {
                break;
            }
            next = next.next();
        }
    }
    Some(days)
}

/// Where windows begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The windows of this day, and none before or after it.
    Day(Date),
    /// A window under way is cut here.
    Instant(Timestamp),
}

impl std::str::FromStr for Bound {
    type Err = Failure;

    fn from_str(text: &str) -> Done<Self> {
        if let Ok(day) = Date::strptime("%Y-%m-%d", text) {
            return Ok(Self::Day(day));
        }
        Timestamp::parse_human(text)
            .map(Self::Instant)
            .map_err(|_| {
                let shown = ascribe_core::text::clean(text, 60);
                Failure::usage(format!("`{shown}` is neither a day nor a UTC time"))
                    .help("write `2026-12-18`, or a time such as `2026-12-18T12:00:00Z`")
            })
    }
}

impl Bound {
    /// The day that certainly has every window which this bound lets through on its side.
    fn day(self, zone: &TimeZone, slack: i64) -> Done<Date> {
        match self {
            Self::Day(day) => Ok(day),
            Self::Instant(at) => {
                let local = zone.to_datetime(instant(at)?).date();
                local.checked_add(slack.days()).attempt("count days")
            }
        }
    }
}

/// The zone data of this machine.
pub(crate) struct Zones {
    database: TimeZoneDatabase,
    /// Its version, or `unknown`.
    pub(crate) version: String,
}

impl Zones {
    /// From the directory that `TZDIR` names, or where systems keep it.
    pub(crate) fn here() -> Done<Self> {
        let named = std::env::var_os("TZDIR").map(PathBuf::from);
        let usual = DIRECTORIES.iter().map(PathBuf::from);
        let dir = named.or_else(|| usual.into_iter().find(|dir| dir.is_dir()));
        let dir = dir.ok_or_else(|| {
            Failure::usage("this machine has no time zone data")
                .help("install the package `tzdata`, or name its directory in `TZDIR`")
        })?;
        Self::of(&dir)
    }

    fn of(dir: &Path) -> Done<Self> {
        let database = TimeZoneDatabase::from_dir(dir)
            .attempt(format!("read the time zone data in `{}`", dir.display()))?;
        let version = version(dir).unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { database, version })
    }

    fn zone(&self, name: &str) -> Done<TimeZone> {
        self.database.get(name).map_err(|_| {
            let shown = ascribe_core::text::clean(name, 80);
            Failure::usage(format!("this machine knows no time zone `{shown}`"))
                .help("write a name of the IANA database, for instance `Europe/Berlin`")
        })
    }

    /// What a rule with its zone, `Tue,Thu 08:00-18:00 Europe/Berlin`, means between two bounds.
    pub(crate) fn recurrence(&self, text: &str, from: Bound, until: Bound) -> Done<Recurrence> {
        let (rule, name) = text.rsplit_once(' ').ok_or_else(|| {
            Failure::usage("windows are days, times and a time zone")
                .help("for instance `Tue,Thu 08:00-18:00 Europe/Berlin`")
        })?;
        let zone = self.zone(name)?;
        let windows = resolve(&rule.parse()?, &zone, from, until)?;
        if windows.is_empty() {
            return Err(Failure::usage("no window lies between these bounds")
                .help("give a later `--until`"));
        }
        Ok(Recurrence {
            rule: rule.to_owned(),
            zone: zone.iana_name().unwrap_or(name).to_owned(),
            tzdata: self.version.clone(),
            windows,
        })
    }

    /// The same windows as this machine works them out.
    pub(crate) fn again(&self, asked: &Recurrence) -> Done<Vec<Window>> {
        let (Some(first), Some(last)) = (asked.windows.first(), asked.windows.last()) else {
            return Ok(Vec::new());
        };
        let (from, until) = (Bound::Instant(first.from), Bound::Instant(last.until));
        resolve(&asked.rule.parse()?, &self.zone(&asked.zone)?, from, until)
    }

    /// A window in its zone's time and in UTC; in UTC alone where this machine lacks the zone.
    pub(crate) fn shown(&self, zone: &str, window: &Window) -> String {
        let local = |at: Timestamp| {
            let at = instant(at).ok()?.to_zoned(self.database.get(zone).ok()?);
            Some(at.strftime("%a %F %T %:z").to_string())
        };
        let utc = format!("{} until {}", window.from, window.until);
        match (local(window.from), local(window.until)) {
            (Some(from), Some(until)) => format!("{from} until {until}   ({utc})"),
            _ => utc,
        }
    }
}

/// The version of the zone data in a directory: Debian has it in the first line of `tzdata.zi`,
/// other systems in `+VERSION`.
fn version(dir: &Path) -> Option<String> {
    let read = |name: &str| {
        use std::io::Read as _;
        let file = std::fs::File::open(dir.join(name)).ok()?;
        let mut bytes = Vec::new();
        file.take(80).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().next().map(str::to_owned)
    };
    let line = read("tzdata.zi").and_then(|l| l.strip_prefix("# version ").map(str::to_owned));
    let version = line.or_else(|| read("+VERSION"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let fits = (1..=32).contains(&version.len()) && version.chars().all(plain);
    fits.then_some(version)
}

fn instant(at: Timestamp) -> Done<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(at.millis()).attempt("read a time")
}

/// The first instant at which the zone's clock has reached this time of this day.
fn reached(zone: &TimeZone, day: Date, time: Time) -> Done<jiff::Timestamp> {
    let local = zone.to_ambiguous_timestamp(day.to_datetime(time));
    let skipped = matches!(local.offset(), AmbiguousOffset::Gap { .. });
    let earlier = local.earlier().attempt("resolve a local time")?;
    if !skipped {
        return Ok(earlier);
    }
    // In a gap, `earlier` lies before it: the clock has reached the time when it has jumped.
    let jump = zone.following(earlier).next();
    Ok(jump.map_or(earlier, |jump| jump.timestamp()))
}

fn resolve(rule: &Rule, zone: &TimeZone, from: Bound, until: Bound) -> Done<Vec<Window>> {
    // A window of the day before may reach into the first, and a zone may skip a date.
    let (first, last) = (from.day(zone, -2)?, until.day(zone, 1)?);
    let long = last.since(first).attempt("count days")?.get_days();
    if i64::from(long) > MAX_DAYS {
        return Err(Failure::usage("windows reach over at most 90 days")
            .help("give an earlier `--until`, and ask again then"));
    }
    let mut windows = Vec::new();
    for day in first.series(1.day()).take_while(|day| *day <= last) {
        if !rule.days.contains(&day.weekday()) {
            continue;
        }
        let (time, later) = rule.end;
        let end = day.checked_add(later.days()).attempt("count days")?;
        let begin = reached(zone, day, rule.begin)?;
        if zone.to_datetime(begin).date() != day {
            continue;
        }
        let end = reached(zone, end, time)?;
        let mut window = Window {
            from: Timestamp::from_millis(begin.as_millisecond()),
            until: Timestamp::from_millis(end.as_millisecond()),
        };
        if let Bound::Instant(at) = from {
            window.from = window.from.max(at);
        }
        if let Bound::Instant(at) = until {
            window.until = window.until.min(at);
        }
        if window.from < window.until {
            windows.push(window);
        }
    }
    Ok(windows)
}

#[cfg(test)]
mod tests;
