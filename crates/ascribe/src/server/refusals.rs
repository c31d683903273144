//! What was refused to whoever is nobody here, on record: requests over SCIM, and logins. It is counted, and written
//! now and then, so that whoever asks for nothing but refusals fills no disk. The first of them is written within a
//! second, the next after a minute, and as long as it goes on after twice as long each time, up to an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::directory::{DirectoryRefusal, RefusedCount};
use ascribe_core::entry::{Body, Refusal};
use ascribe_core::id::EntryId;
use ascribe_core::identity::LoginRefusal;
use ascribe_core::law::{Judge, SERVER};
use ascribe_core::record::{Proposal, Recorder as _, Scope};
use ascribe_core::statement::Signed;
use ascribe_core::time::Timestamp;
use ascribe_ledger::Ledger;
use tokio_util::sync::CancellationToken;

use crate::client::random;
use crate::exit::{Attempt as _, Done};

/// How often what is due is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Least and longest time between two entries of one directory or provider.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Most reasons that are counted apart; what is refused for any other is in one sum.
const MAX_CODES: usize = 63;
const OTHER: &str = "other";
/// Reasons by which somebody's statement is refused who need not have brought it now: it is on record here or elsewhere, and
/// whoever reads that has a copy.
const ANYBODYS: [&str; 3] = ["clock", "log", "replay"];
/// Reasons that are failures of ours.
const OURS: [&str; 2] = ["internal", "ledger"];

/// What was refused since the last entry.
#[derive(Debug)]
struct Tally {
    /// How often, by code.
    counts: BTreeMap<&'static str, u64>,
    from: Timestamp,
    until: Timestamp,
}

/// The refusals of one directory or provider.
#[derive(Debug, Default)]
struct Bucket {
    tally: Option<Tally>,
    /// Not before this time is there another entry, which comes so long after the last one.
    ready: Option<(Instant, Duration)>,
}

impl Bucket {
    fn count(&mut self, code: &'static str, count: u64, at: Timestamp) {
        let tally = self.tally.get_or_insert_with(|| Tally {
            counts: BTreeMap::new(),
            from: at,
            until: at,
        });
        (tally.from, tally.until) = (tally.from.min(at), tally.until.max(at));
        let apart = tally.counts.contains_key(code) || tally.counts.len() < MAX_CODES;
        let code = if apart { code } else { OTHER };
        let known = tally.counts.entry(code).or_default();
        *known = known.saturating_add(count);
    }

    /// What is to be written now.
    fn due(&mut self, now: Instant) -> Option<Tally> {
        if self.ready.is_some_and(|(ready, _)| now < ready) {
            return None;
        }
        let tally = self.tally.take()?;
        let pause = self
            .ready
            .map_or(PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        self.ready = Some((now + pause, pause));
        Some(tally)
    }

    /// Has nothing been refused for an hour beyond its pause? Then it begins anew.
    fn is_over(&self, now: Instant) -> bool {
        let over = |(ready, _): (Instant, Duration)| now >= ready + LONGEST_PAUSE;
        self.tally.is_none() && self.ready.is_none_or(over)
    }
}

/// What is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    /// Requests over SCIM, by directory.
    Directories,
    /// Logins, by provider.
    Logins,
}

impl Of {
    fn as_str(self) -> &'static str {
        match self {
            Self::Directories => "requests over SCIM",
            Self::Logins => "logins",
        }
    }

    fn body(
        self,
        whose: Option<String>,
        (from, until): (Timestamp, Timestamp),
        refused: Vec<RefusedCount>,
    ) -> Body {
        match self {
            Self::Directories => Body::DirectoryRefusal(DirectoryRefusal {
                directory: whose,
                from,
                refused,
                until,
            }),
            Self::Logins => Body::LoginRefusal(LoginRefusal {
                from,
                provider: whose,
                refused,
                until,
            }),
        }
    }
}

/// Counts and writes refusals.
pub(crate) struct Refusals {
    of: Of,
    ledger: Arc<Ledger>,
    /// By directory or provider, and of those who named no registered one: as many as there are, and one.
    buckets: Mutex<BTreeMap<Option<String>, Bucket>>,
}

impl Refusals {
    pub(crate) fn new(of: Of, ledger: Arc<Ledger>) -> Self {
        Self {
            of,
            ledger,
            buckets: Mutex::default(),
        }
    }

    /// Counts a refusal. What the server failed to do is none. Whoever calls this has found that a directory or a
    /// provider of this name is registered: the names of others would be anybody's to make.
    pub(super) fn count(&self, whose: Option<&str>, code: &'static str) {
        if OURS.contains(&code) {
            return;
        }
        let now = self.ledger.now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(whose.map(str::to_owned)).or_default();
        bucket.count(code, 1, now);
    }

    /// Writes what is due until `stop`, and then whatever is left.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.write(|bucket| bucket.due(Instant::now())).await;
        }
    }

    /// Writes whatever is left.
    pub(crate) async fn finish(&self) {
        self.write(|bucket| bucket.tally.take()).await;
    }

    async fn write(&self, mut due: impl FnMut(&mut Bucket) -> Option<Tally>) {
        let tallies: Vec<(Option<String>, Tally)> = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            buckets.retain(|_, bucket| !bucket.is_over(now));
            let buckets = buckets.iter_mut();
            buckets
                .filter_map(|(name, bucket)| Some((name.clone(), due(bucket)?)))
                .collect()
        };
        for (whose, tally) in tallies {
            let Err(failure) = self.record(whose.clone(), &tally).await else {
                continue;
            };
            let what = self.of.as_str();
            tracing::warn!("which {what} were refused is not on record yet: {failure}");
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = buckets.entry(whose).or_default();
            for (code, count) in tally.counts {
                bucket.count(code, count, tally.from);
                bucket.count(code, 0, tally.until);
            }
        }
    }

    async fn record(&self, whose: Option<String>, tally: &Tally) -> Done {
        let refused = tally.counts.iter();
        let refused = refused.map(|(code, count)| RefusedCount {
            code: (*code).to_owned(),
            count: *count,
        });
        // The clock may have been set back since.
        let now = self.ledger.now();
        let times = (tally.from.min(now), tally.until.min(now));
        let proposal = Proposal {
            id: EntryId::new(random()?),
            writer: SERVER.to_owned(),
            body: self.of.body(whose, times, refused.collect()),
            openings: Vec::new(),
            scope: Scope::None,
        };
        let done = self.ledger.record(proposal).await;
        done.map(drop).attempt("record what was refused")
    }
}

/// A refusal of what somebody whom we know signed is an entry that names them.
pub(crate) async fn record(ledger: &Ledger, judge: &dyn Judge, signed: &Signed, code: &str) {
    let Ok(statement) = signed.statement() else {
        return;
    };
    let (namespace, text) = (statement.say.namespace(), signed.text.as_bytes());
    let key = judge.sshsig(&namespace, text, &signed.sig.0);
    let Some(key) = key.map(|key| key.fingerprint()) else {
        return;
    };
    let agent = ledger.agent_by_key(&key);
    let person = ledger.person_by_key(&key);
    let person = person.or(agent.as_ref().map(|agent| agent.person));
    if person != Some(statement.by) || ANYBODYS.contains(&code) {
        return;
    }
    let Ok(entry) = random() else { return };
    let refusal = Refusal {
        delegation: agent.map(|agent| agent.delegation),
        person: statement.by,
        what: statement.say.tag().to_owned(),
        code: code.to_owned(),
        session: None,
        detail: None,
    };
    let proposal = Proposal {
        id: EntryId::new(entry),
        writer: SERVER.to_owned(),
        body: Body::Refusal(refusal),
        openings: Vec::new(),
        scope: Scope::None,
    };
    if let Err(error) = ledger.record(proposal).await {
        tracing::error!("a refusal could not be recorded: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    /// The seconds of a day in which an entry is written, where refusals come when `asks` says so, given how
    /// many entries there are and when the last pause ends. Also how many refusals all entries count, and all
    /// there were.
    fn a_day(asks: impl Fn(usize, i64, i64) -> bool) -> (Vec<i64>, u64, u64) {
        let begin = Instant::now();
        let mut bucket = Bucket::default();
        let (mut written, mut counted, mut came) = (Vec::new(), 0, 0);
        for second in 0..DAY {
            let now = begin + Duration::from_secs(second.unsigned_abs());
            if bucket.is_over(now) {
                bucket = Bucket::default();
            }
            let ready = bucket.ready.map_or(0, |(ready, _)| {
                i64::try_from((ready - begin).as_secs()).unwrap_or(DAY)
            });
            if asks(written.len(), second, ready) {
                bucket.count("token", 10, Timestamp::from_millis(second * 1000));
                came += 10;
            }
            if let Some(tally) = bucket.due(now) {
                counted += tally.counts["token"];
                written.push(second);
            }
        }
        counted += bucket.tally.take().map_or(0, |tally| tally.counts["token"]);
        (written, counted, came)
    }

    #[test]
    fn what_is_refused_for_too_many_reasons_is_told_in_one_sum() {
        const LETTERS: &str =
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        let mut bucket = Bucket::default();
        let codes = (1..=70).map(|length| LETTERS.split_at(length).0);
        for code in codes.clone().chain(codes) {
            bucket.count(code, 1, Timestamp::from_millis(0));
        }
        let counts = bucket.tally.unwrap().counts;
        assert_eq!((counts.len(), counts[OTHER]), (64, 14));
        assert_eq!(counts.values().sum::<u64>(), 140);
    }

    #[test]
    fn however_much_is_refused_there_are_few_entries_and_none_is_lost() {
        let (written, counted, came) = a_day(|_, _, _| true);
        assert_eq!((counted, came), (864_000, 864_000));
        assert_eq!(written[..7], [0, 60, 180, 420, 900, 1860, 3780]);
        assert!(written.len() < 32, "{}", written.len());
    }

    #[test]
    fn whoever_pauses_so_that_it_begins_anew_gains_little() {
        for burst in 1..10 {
            // So many entries one after the other, then quiet until all is forgotten.
            let (written, counted, came) = a_day(|entries, second, ready| {
                entries % burst != 0 || second >= ready + 3600 || entries == 0
            });
            assert_eq!(counted, came);
            assert!(
                (20..100).contains(&written.len()),
                "{burst}: {}",
                written.len()
            );
        }
    }
}
