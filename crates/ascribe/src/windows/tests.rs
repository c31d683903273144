use proptest::prelude::*;

use super::*;

fn zones() -> Zones {
    // Loudly absent: these tests are about the data that systems have.
    Zones::here().unwrap_or_else(|e| panic!("these tests need the package tzdata: {}", e.message))
}

/// The windows of days, each as `FROM UNTIL` in UTC without date where it does not change.
fn windows(text: &str, from: &str, until: &str) -> Vec<String> {
    let asked = zones().recurrence(text, from.parse().unwrap(), until.parse().unwrap());
    let asked = asked.unwrap_or_else(|e| panic!("{text}: {}", e.message));
    assert_eq!(zones().again(&asked).unwrap(), asked.windows, "{text}");
    for pair in asked.windows.windows(2) {
        assert!(pair[0].until <= pair[1].from, "{text}: {pair:?}");
    }
    let short = |at: Timestamp| at.to_string().replace(":00.000Z", "");
    let windows = asked.windows.iter();
    windows
        .map(|w| format!("{} {}", short(w.from), short(w.until)))
        .collect()
}

fn none(text: &str, from: &str, until: &str) {
    let asked = zones().recurrence(text, from.parse().unwrap(), until.parse().unwrap());
    let refused = asked.unwrap_err();
    assert!(refused.message.contains("no window"), "{}", refused.message);
}

#[test]
fn days_and_times_of_a_zone_become_instants() {
    assert_eq!(
        windows(
            "Tue,Thu 08:00-18:00 Europe/Berlin",
            "2026-11-23",
            "2026-12-03"
        ),
        [
            "2026-11-24T07:00 2026-11-24T17:00",
            "2026-11-26T07:00 2026-11-26T17:00",
            "2026-12-01T07:00 2026-12-01T17:00",
            "2026-12-03T07:00 2026-12-03T17:00",
        ]
    );
    // Summer time ends on the Sunday between.
    assert_eq!(
        windows(
            "Fri-Mon 08:00-18:00 Europe/Berlin",
            "2026-10-24",
            "2026-10-26"
        ),
        [
            "2026-10-24T06:00 2026-10-24T16:00",
            "2026-10-25T07:00 2026-10-25T17:00",
            "2026-10-26T07:00 2026-10-26T17:00",
        ]
    );
}

#[test]
fn a_time_that_the_clock_skips_is_reached_when_it_has_jumped() {
    // 2026-03-29 in Berlin: 01:59:59 is followed by 03:00:00, at 01:00 UTC.
    let day = |text: &str| windows(text, "2026-03-29", "2026-03-29");
    let one = |from: &str, until: &str| [format!("2026-03-29T{from} 2026-03-29T{until}")];
    assert_eq!(
        day("daily 01:30-02:30 Europe/Berlin"),
        one("00:30", "01:00")
    );
    assert_eq!(
        day("daily 02:30-03:30 Europe/Berlin"),
        one("01:00", "01:30")
    );
    assert_eq!(
        day("daily 02:30-03:10 Europe/Berlin"),
        one("01:00", "01:10")
    );
    assert_eq!(
        day("daily 01:00-04:00 Europe/Berlin"),
        one("00:00", "02:00")
    );
    none(
        "daily 02:00-03:00 Europe/Berlin",
        "2026-03-29",
        "2026-03-29",
    );
    none(
        "daily 02:15-02:45 Europe/Berlin",
        "2026-03-29",
        "2026-03-29",
    );
    let whole = windows(
        "daily 00:00-24:00 Europe/Berlin",
        "2026-03-29",
        "2026-03-29",
    );
    assert_eq!(whole, ["2026-03-28T23:00 2026-03-29T22:00"], "23 hours");
}

#[test]
fn a_time_that_the_clock_shows_twice_counts_when_first_shown() {
    // 2026-10-25 in Berlin: 02:59:59 is followed by 02:00:00, at 01:00 UTC.
    let day = |text: &str| windows(text, "2026-10-25", "2026-10-25");
    let one = |from: &str, until: &str| [format!("2026-10-25T{from} 2026-10-25T{until}")];
    assert_eq!(
        day("daily 01:00-02:30 Europe/Berlin"),
        ["2026-10-24T23:00 2026-10-25T00:30"]
    );
    assert_eq!(
        day("daily 02:15-02:45 Europe/Berlin"),
        one("00:15", "00:45")
    );
    assert_eq!(
        day("daily 02:30-03:30 Europe/Berlin"),
        one("00:30", "02:30")
    );
    let whole = day("daily 00:00-24:00 Europe/Berlin");
    assert_eq!(whole, ["2026-10-24T22:00 2026-10-25T23:00"], "25 hours");
    // Where one window ends when the next begins they never overlap.
    assert_eq!(
        windows(
            "daily 02:45-02:30 Europe/Berlin",
            "2026-10-24",
            "2026-10-25"
        ),
        [
            "2026-10-24T00:45 2026-10-25T00:30",
            "2026-10-25T00:45 2026-10-26T01:30"
        ]
    );
}

#[test]
fn half_an_hour_of_summer_time() {
    // Lord Howe: 2026-04-05 02:00 (+11) shows 01:30 again; 2026-10-04 02:00 (+10:30) jumps to 02:30.
    let zone = "Australia/Lord_Howe";
    let back = windows(
        &format!("daily 01:45-02:15 {zone}"),
        "2026-04-05",
        "2026-04-05",
    );
    assert_eq!(back, ["2026-04-04T14:45 2026-04-04T15:45"]);
    let gone = windows(
        &format!("daily 01:45-02:15 {zone}"),
        "2026-10-04",
        "2026-10-04",
    );
    assert_eq!(gone, ["2026-10-03T15:15 2026-10-03T15:30"]);
    none(
        &format!("daily 02:00-02:30 {zone}"),
        "2026-10-04",
        "2026-10-04",
    );
}

#[test]
fn a_date_that_a_zone_skips_has_no_window() {
    // Samoa went from 2011-12-29 24:00 (-10) to 2011-12-31 00:00 (+14): one instant, 10:00 UTC.
    let zone = "Pacific/Apia";
    assert_eq!(
        windows(
            &format!("daily 08:00-18:00 {zone}"),
            "2011-12-29",
            "2011-12-31"
        ),
        [
            "2011-12-29T18:00 2011-12-30T04:00",
            "2011-12-30T18:00 2011-12-31T04:00"
        ]
    );
    none(
        &format!("Fri 08:00-18:00 {zone}"),
        "2011-12-30",
        "2011-12-30",
    );
    none(
        &format!("Fri 22:00-06:00 {zone}"),
        "2011-12-30",
        "2011-12-30",
    );
    // One that would end on it ends with the day before.
    assert_eq!(
        windows(
            &format!("daily 22:00-06:00 {zone}"),
            "2011-12-29",
            "2011-12-31"
        ),
        [
            "2011-12-30T08:00 2011-12-30T10:00",
            "2011-12-31T08:00 2011-12-31T16:00"
        ]
    );
}

#[test]
fn a_window_may_cross_midnight() {
    assert_eq!(
        windows(
            "Sat,Sun 22:00-06:00 Europe/Berlin",
            "2026-03-28",
            "2026-03-29"
        ),
        [
            // The night to summer time is an hour shorter.
            "2026-03-28T21:00 2026-03-29T04:00",
            "2026-03-29T20:00 2026-03-30T04:00"
        ]
    );
    // A day as bound names the windows that begin on it, a time cuts.
    assert_eq!(
        windows("daily 22:00-06:00 UTC", "2026-11-24", "2026-11-24"),
        ["2026-11-24T22:00 2026-11-25T06:00"]
    );
    assert_eq!(
        windows(
            "daily 22:00-06:00 UTC",
            "2026-11-24T02:00:00Z",
            "2026-11-25T00:30:00+02:00"
        ),
        [
            "2026-11-24T02:00 2026-11-24T06:00",
            "2026-11-24T22:00 2026-11-24T22:30"
        ]
    );
}

#[test]
fn what_is_no_rule_is_refused() {
    for good in [
        "Mon 00:00-24:00",
        "Sat-Mon,Wed 08:00-18:00",
        "daily 23:59-00:00",
        "Mon-Sun 10:00-09:59",
    ] {
        good.parse::<Rule>()
            .unwrap_or_else(|e| panic!("{good}: {}", e.message));
    }
    for bad in [
        "",
        "Mon",
        "Mon 08:00",
        "mon 08:00-18:00",
        "Mon,Mon 08:00-18:00",
        "Mon-Wed,Tue 08:00-18:00",
        "Mon- 08:00-18:00",
        ",Mon 08:00-18:00",
        "Mon 8:00-18:00",
        "Mon 08:00-18:0",
        "Mon 08:00-24:01",
        "Mon 24:00-08:00",
        "Mon 08:60-18:00",
        "Mon +8:00-18:00",
        "Mon 08:00-08:00",
        "Mon  08:00-18:00",
        "Mon 08:00-18:00 ",
        "Mon 08:00:00-18:00:00",
        "daily,Mon 08:00-18:00",
    ] {
        assert!(bad.parse::<Rule>().is_err(), "{bad}");
    }
    let ask = |text: &str, from: &str, until: &str| {
        zones().recurrence(text, from.parse().unwrap(), until.parse().unwrap())
    };
    for (text, until) in [
        ("Mon 08:00-18:00", "2026-12-18"),
        ("Mon 08:00-18:00 Europe/Atlantis", "2026-12-18"),
        ("Mon 08:00-18:00 ../../etc/passwd", "2026-12-18"),
        ("Mon 08:00-18:00 UTC", "2027-12-18"),
        ("Mon 08:00-18:00 UTC", "2026-11-01"),
    ] {
        assert!(ask(text, "2026-11-24", until).is_err(), "{text} {until}");
    }
    for bad in ["", "tomorrow", "2026-02-30", "2026-12-18T12:00:00", "12:00"] {
        assert!(bad.parse::<Bound>().is_err(), "{bad}");
    }
}

#[test]
fn the_version_of_the_zone_data_is_read_or_unknown() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(version(dir.path()), None);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("+VERSION", "2026a\n");
    assert_eq!(version(dir.path()).as_deref(), Some("2026a"));
    write("tzdata.zi", "# version 2026b\n# This zic input file\n");
    assert_eq!(version(dir.path()).as_deref(), Some("2026b"));
    for odd in [
        "# version \u{1b}[2J\n",
        "# version \n",
        "# version 2026b or so\n",
    ] {
        write("tzdata.zi", odd);
        assert_eq!(version(dir.path()), None, "{odd:?}");
    }
}

/// Zones, and days on which their clocks jump: by a day, an hour or half of one, at midnight or later.
const JUMPS: [(&str, [i16; 3]); 12] = [
    ("UTC", [2026, 3, 29]),
    ("Europe/Berlin", [2026, 3, 29]),
    ("Europe/Berlin", [2026, 10, 25]),
    ("America/New_York", [2026, 3, 8]),
    ("America/New_York", [2026, 11, 1]),
    ("America/Sao_Paulo", [2016, 10, 16]),
    ("America/Sao_Paulo", [2017, 2, 19]),
    ("Asia/Tehran", [2019, 3, 22]),
    ("Africa/Casablanca", [2026, 2, 15]),
    ("Australia/Lord_Howe", [2026, 4, 5]),
    ("Australia/Lord_Howe", [2026, 10, 4]),
    ("Pacific/Apia", [2011, 12, 30]),
];

/// The first minute at which the clock shows this time or a later one, found by looking at all.
fn looked_up(zone: &TimeZone, day: Date, hour: i8, minute: i8) -> jiff::Timestamp {
    let wanted = day.at(hour, minute, 0, 0);
    let noon = TimeZone::UTC.to_timestamp(day.at(12, 0, 0, 0)).unwrap();
    (-40 * 60..40 * 60)
        .map(|minute| noon + jiff::SignedDuration::from_mins(minute))
        .find(|at| zone.to_datetime(*at) >= wanted)
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_window_is_what_a_look_at_every_minute_finds(
        (zone, near) in prop::sample::select(&JUMPS[..]),
        off in prop_oneof![4 => Just(0_i64), 1 => -1..=1_i64],
        // Mostly the hours in which clocks jump.
        (h1, h2) in (prop_oneof![4 => 0..4_i8, 1 => 0..24_i8], prop_oneof![4 => 0..4_i8, 1 => 0..24_i8]),
        (m1, m2) in (0..60_i8, 0..60_i8),
    ) {
        prop_assume!((h1, m1) != (h2, m2));
        let zones = zones();
        let tz = zones.zone(zone).unwrap();
        let near = Date::new(near[0], near[1] as i8, near[2] as i8).unwrap();
        let day = near.checked_add(off.days()).unwrap();
        let rule = format!("daily {h1:02}:{m1:02}-{h2:02}:{m2:02}");
        let found = resolve(&rule.parse().unwrap(), &tz, Bound::Day(day), Bound::Day(day)).unwrap();
        let next = if (h2, m2) < (h1, m1) { day.tomorrow().unwrap() } else { day };
        let from = looked_up(&tz, day, h1, m1);
        let until = looked_up(&tz, next, h2, m2);
        let there = from < until && tz.to_datetime(from).date() == day;
        let expected: Vec<Window> = there
            .then(|| Window {
                from: Timestamp::from_millis(from.as_millisecond()),
                until: Timestamp::from_millis(until.as_millisecond()),
            })
            .into_iter()
            .collect();
        prop_assert_eq!(found, expected, "{} {} {}", zone, day, rule);
        // And over some days they never overlap, and come out again the same.
        let (first, last) = (Bound::Day(near.checked_sub(9.days()).unwrap()), Bound::Day(near.checked_add(9.days()).unwrap()));
        let asked = zones.recurrence(&format!("{rule} {zone}"), first, last).unwrap();
        prop_assert!(asked.windows.windows(2).all(|pair| pair[0].until <= pair[1].from), "{:?}", asked);
        prop_assert_eq!(zones.again(&asked).unwrap(), asked.windows);
    }

    #[test]
    fn no_text_ends_the_reading_of_rules(text in "[A-Za-z0-9:,+. -]{0,40}|\\PC{0,40}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert!((1..=7).contains(&rule.days.len()));
        }
        text.parse::<Bound>().map(drop).unwrap_or_default();
    }
}
