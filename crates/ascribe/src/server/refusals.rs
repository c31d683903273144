//! What was refused, on record. To whoever is nobody here, requests over SCIM and logins: that is counted, and written
//! now and then, so that whoever asks for nothing but refusals fills no disk. The first of them is written within a
//! second, the next after a minute, and as long as it goes on after twice as long each time, up to an hour. To
//! somebody whom we know, what they signed: that is an entry each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::directory::{DirectoryRefusal, RefusedCount};
use ascribe_core::entry::{Body, Refusal};
use ascribe_core::id::{EntryId, PersonId};
use ascribe_core::identity::LoginRefusal;
use ascribe_core::law::{JUDGED_AGO_MS, Judge, SERVER, SIGNER_SKEW_MS, State};
use ascribe_core::record::{Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::statement::{Say, Signed};
use ascribe_core::time::Timestamp;
use ascribe_ledger::Ledger;
use ascribe_tlog::{Hash, leaf_hash};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
/// The reason of a login that was given up before it was decided on: by who asked, for want of time, or at a stop.
const GONE: &str = "gone";
/// Reasons that are failures of ours.
const OURS: [&str; 2] = ["internal", "ledger"];
/// A signed statement counts no longer than this after it first came: it may be from five minutes ahead, and is then good
/// for five more, and a little while it is judged.
const FRESH: Duration =
    Duration::from_millis(2 * SIGNER_SKEW_MS.unsigned_abs() + JUDGED_AGO_MS.unsigned_abs());
/// Most refusals of what people signed that are on record within that time, and most of one person.
const MOST: usize = 4096;
const MOST_OF_ONE: usize = 256;
/// What is being decided on when the server stops has this time to be counted.
const LAST: Duration = Duration::from_secs(5);

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
    /// What the ledger decides on, whether or not anybody waits for that.
    under_way: TaskTracker,
}

/// A login that came in. Whatever becomes of whoever asked, it is counted, unless it is taken in or the server failed.
#[must_use]
pub(super) struct Came {
    refusals: Arc<Refusals>,
    provider: Option<String>,
    code: Option<&'static str>,
}

impl Came {
    /// It is refused for this reason.
    pub(super) fn refused(mut self, code: &'static str) {
        self.code = Some(code);
    }

    /// What the ledger answered.
    pub(super) fn decided<T>(mut self, answer: &Result<T, RecordError>) {
        self.code = match answer {
            Err(RecordError::Denied(denied)) => Some(denied.code),
            Ok(_) | Err(RecordError::Unavailable(_)) => None,
        };
    }
}

impl Drop for Came {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            self.refusals.count(self.provider.as_deref(), code);
        }
    }
}

impl Refusals {
    pub(crate) fn new(of: Of, ledger: Arc<Ledger>) -> Self {
        Self {
            of,
            ledger,
            buckets: Mutex::default(),
            under_way: TaskTracker::new(),
        }
    }

    /// A login came in that names this registered provider, or none.
    pub(super) fn came(self: &Arc<Self>, provider: Option<String>) -> Came {
        Came {
            refusals: Arc::clone(self),
            provider,
            code: Some(GONE),
        }
    }

    /// Goes on with this when nobody waits for it any more.
    pub(super) fn go_on<T: Send + 'static>(
        &self,
        deciding: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.under_way.spawn(deciding)
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

    /// Writes whatever is left. Nothing comes in any more.
    pub(crate) async fn finish(&self) {
        self.under_way.close();
        if tokio::time::timeout(LAST, self.under_way.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "the ledger takes too long: some logins that were refused are not counted"
            );
        }
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

/// Refusals of what somebody signed whom we know: each is an entry that names them. Anybody may have a copy of what they
/// signed, so it has to be for this log and signed just now, and makes one entry, however often and by whichever way it
/// is brought.
pub(crate) struct OfSigned {
    ledger: Arc<Ledger>,
    judge: Arc<dyn Judge>,
    written: Mutex<Written>,
}

/// What is on record, as long as it could be brought again.
#[derive(Debug, Default)]
struct Written {
    /// By the digest of what was signed. The id alone would let somebody sign many things under one.
    all: BTreeMap<Hash, (PersonId, Instant)>,
    /// How many are not on record because there were too many.
    left_out: u64,
}

impl Written {
    /// Is it new, and is there room for it? It is not new any more then.
    fn takes(&mut self, text: Hash, by: PersonId, now: Instant) -> bool {
        self.all
            .retain(|_, (_, since)| now.saturating_duration_since(*since) <= FRESH);
        if self.all.contains_key(&text) {
            return false;
        }
        let theirs = self
            .all
            .values()
            .filter(|(person, _)| *person == by)
            .count();
        if self.all.len() >= MOST || theirs >= MOST_OF_ONE {
            self.left_out = self.left_out.saturating_add(1);
            // Who makes many fills no other log with them.
            if self.left_out.is_power_of_two() {
                let count = self.left_out;
                tracing::warn!(
                    "too much that people signed is refused: {count} refusal(s) so far are not on record"
                );
            }
            return false;
        }
        self.all.insert(text, (by, now));
        true
    }
}

impl OfSigned {
    pub(crate) fn new(ledger: Arc<Ledger>, judge: Arc<dyn Judge>) -> Self {
        Self {
            ledger,
            judge,
            written: Mutex::default(),
        }
    }

    /// Puts it on record, if it is new and theirs. A login is by nobody whom we know, whichever key it introduces.
    pub(super) async fn record(&self, signed: &Signed, code: &str) {
        let Ok(statement) = signed.statement() else {
            return;
        };
        // By these it was no statement for here and now.
        if ["clock", "future", "log", "replay", "version"].contains(&code) {
            return;
        }
        let (by, now) = (statement.by, self.ledger.now());
        let fresh = |state: &State| state.check_fresh(now, &statement).is_ok();
        if matches!(statement.say, Say::Login(_)) || !self.ledger.with_state(fresh) {
            return;
        }
        let (namespace, text) = (statement.say.namespace(), signed.text.as_bytes());
        let key = self.judge.sshsig(&namespace, text, &signed.sig.0);
        let Some(key) = key.map(|key| key.fingerprint()) else {
            return;
        };
        let agent = self.ledger.agent_by_key(&key);
        let person = self.ledger.person_by_key(&key);
        if person.or(agent.as_ref().map(|agent| agent.person)) != Some(by) {
            return;
        }
        let text = leaf_hash(text);
        let new = self.written().takes(text, by, Instant::now());
        let Some(entry) = random().ok().filter(|_| new) else {
            return;
        };
        let refusal = Refusal {
            delegation: agent.map(|agent| agent.delegation),
            person: by,
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
        if let Err(error) = self.ledger.record(proposal).await {
            tracing::error!("a refusal could not be recorded: {error}");
            self.written().all.remove(&text);
        }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Nobody has more on record than there is room for, nor takes the room of everybody else; and what was left out is not
    /// taken for written.
    #[test]
    fn what_is_on_record_of_what_people_signed_is_bounded() {
        let text = |nth: usize| leaf_hash(&nth.to_be_bytes());
        let person = |nth: u8| PersonId::new([nth; 16]);
        let begin = Instant::now();
        let mut written = Written::default();
        for nth in 0..MOST_OF_ONE {
            assert!(written.takes(text(nth), person(1), begin), "{nth}");
            assert!(!written.takes(text(nth), person(1), begin), "{nth}");
        }
        assert_eq!(written.left_out, 0);
        let (more, later) = (text(MOST), begin + FRESH);
        assert!(!written.takes(more, person(1), later));
        assert_eq!(written.left_out, 1);
        assert!(written.takes(more, person(2), later));
        for nth in 0..MOST - MOST_OF_ONE - 1 {
            let by = person(u8::try_from(3 + nth / MOST_OF_ONE).unwrap());
            assert!(written.takes(text(MOST + 1 + nth), by, later), "{nth}");
        }
        assert!(!written.takes(text(2 * MOST), person(99), later));
        assert_eq!((written.all.len(), written.left_out), (MOST, 2));
        // The first ones cannot be brought any more: they are too old.
        let end = later + Duration::from_millis(1);
        assert!(written.takes(text(2 * MOST), person(1), end));
        assert_eq!(written.all.len(), MOST - MOST_OF_ONE + 1);
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
