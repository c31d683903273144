//! Shows the log to its witnesses. In rounds: all are asked to cosign the same checkpoint, and when
//! enough of them have, that is an entry. Each is asked one thing at a time; one that is slow, silent
//! or wrong holds up only itself, and the round only where the quorum needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::entry::Body;
use ascribe_core::id::EntryId;
use ascribe_core::law::SERVER;
use ascribe_core::record::{Proposal, Recorder as _, Scope};
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use ascribe_core::witness::Cosigned;
use ascribe_ledger::Ledger;
use ascribe_tlog::{
    AddCheckpoint, Checkpoint, MAX_COSIGNATURES, Note, TrustPolicy, VerifierKey, WitnessKey,
    cosignature_lines, recorded_size,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::Http;

/// How often we look whether there is something new.
const LOOK: Duration = Duration::from_millis(250);
/// The least time between the beginnings of two rounds.
const PACE: Duration = Duration::from_secs(2);
/// A round is over by then; an answer that comes later counts for nothing.
const ROUND: Duration = Duration::from_secs(12);
/// A witness that did not cosign is left alone for a while, longer each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where no target says how old what they have not seen may be, this is too old.
const TOO_OLD: Duration = Duration::from_secs(300);

/// What is to be seen of the witnesses from outside.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Shown>);

/// The newest checkpoint that enough witnesses cosigned, and what each of them said last.
#[derive(Debug, Default, Clone)]
pub(crate) struct Shown {
    pub(crate) note: Option<String>,
    pub(crate) witnesses: Vec<WitnessRow>,
}

/// A witness and its last answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WitnessRow {
    pub(crate) name: String,
    pub(crate) url: String,
    /// What it cosigned last in this process.
    pub(crate) size: Option<u64>,
    /// Its last answer, or why there is none.
    pub(crate) said: String,
    pub(crate) at: Option<Timestamp>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn shown(&self) -> Shown {
        self.lock().clone()
    }
}

/// A witness's word for one checkpoint.
#[derive(Debug, Clone)]
struct Cosignature {
    line: String,
    /// POSIX seconds.
    time: u64,
}

/// A witness as we know it.
struct Peer {
    name: String,
    key: WitnessKey,
    url: String,
    /// The size that it has seen, as far as we know.
    known: u64,
    busy: bool,
    /// Not asked before then.
    rests_until: Instant,
    pause: Duration,
}

/// What all witnesses are asked to cosign.
struct Round {
    size: u64,
    note: String,
    began: Instant,
    cosigned: BTreeMap<usize, Cosignature>,
    /// Witnesses that are being asked.
    open: BTreeSet<usize>,
    recorded: bool,
}

/// What became of one question.
struct Answered {
    policy: u64,
    peer: usize,
    size: u64,
    result: Result<Cosignature, String>,
}

struct Client {
    ledger: Arc<Ledger>,
    log_key: VerifierKey,
    seen: Arc<Seen>,
    http: Http,
    /// Counts the policies that there were in this process; and the present one.
    number: u64,
    text: Option<String>,
    policy: TrustPolicy,
    peers: Vec<Peer>,
    round: Option<Round>,
    asked: JoinSet<Answered>,
    /// What they have not seen is known, and said, to be too old.
    late: bool,
}

/// Goes on until `stop`.
pub(crate) async fn run(ledger: Arc<Ledger>, seen: Arc<Seen>, stop: CancellationToken) {
    let http = loop {
        match Http::new() {
            Ok(http) => break http,
            Err(error) => tracing::error!("no witness can be asked: {error:#}"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LONGEST_PAUSE) => {}
        }
    };
    let mut client = Client {
        log_key: ledger.log_key(),
        ledger,
        seen,
        http,
        number: 0,
        text: None,
        policy: TrustPolicy::default(),
        peers: Vec::new(),
        round: None,
        asked: JoinSet::new(),
        late: false,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            Some(answered) = client.asked.join_next() => if let Ok(answered) = answered {
                client.take(answered);
            },
        }
        client.follow_policy();
        client.record().await;
        client.begin();
        client.watch_age();
    }
}

impl Client {
    /// Whom to ask is law and may change.
    fn follow_policy(&mut self) {
        let look = |state: &ascribe_core::law::State| {
            state.witnesses.set.as_ref().map(|set| set.policy.clone())
        };
        let text = self.ledger.with_state(look);
        if text == self.text {
            return;
        }
        let policy = text.as_deref().map(TrustPolicy::parse);
        self.policy = policy.and_then(Result::ok).unwrap_or_default();
        self.text = text;
        self.number += 1;
        self.round = None;
        self.asked.abort_all();
        let witnesses = self.policy.witnesses.iter();
        self.peers = witnesses
            .filter_map(|witness| {
                Some(Peer {
                    name: witness.name.clone(),
                    key: witness.key.clone(),
                    url: witness.url.clone()?,
                    known: 0,
                    busy: false,
                    rests_until: Instant::now(),
                    pause: PAUSE,
                })
            })
            .collect();
        let rows = self.peers.iter().map(|peer| WitnessRow {
            name: peer.name.clone(),
            url: peer.url.clone(),
            size: None,
            said: "not asked yet".to_owned(),
            at: None,
        });
        *self.seen.lock() = Shown {
            note: None,
            witnesses: rows.collect(),
        };
    }

    fn take(&mut self, answered: Answered) {
        let Answered {
            policy,
            peer: nth,
            size,
            result,
        } = answered;
        let Some(peer) = self.peers.get_mut(nth).filter(|_| policy == self.number) else {
            return;
        };
        peer.busy = false;
        let now = Instant::now();
        let said = match &result {
            Ok(_) => {
                (peer.known, peer.pause, peer.rests_until) = (size, PAUSE, now);
                format!("cosigned {size} entries")
            }
            Err(why) => {
                peer.rests_until = now + peer.pause;
                peer.pause = (peer.pause * 2).min(LONGEST_PAUSE);
                clean(why, 300)
            }
        };
        let at = Some(self.ledger.now());
        if let Some(row) = self.seen.lock().witnesses.get_mut(nth) {
            if result.is_err() && row.said != said {
                tracing::warn!("witness {}: {said}", row.name);
            }
            row.size = result.as_ref().map_or(row.size, |_| Some(size));
            (row.said, row.at) = (said, at);
        }
        if let Some(round) = self.round.as_mut().filter(|round| round.size == size) {
            round.open.remove(&nth);
            if let Ok(cosignature) = result {
                round.cosigned.insert(nth, cosignature);
            }
        }
    }

    /// Once enough witnesses have cosigned, their word is an entry. One that comes after that adds its
    /// line to the checkpoint that we show.
    async fn record(&mut self) {
        let Some(round) = &mut self.round else { return };
        let names = round.cosigned.keys().filter_map(|nth| self.peers.get(*nth));
        let names: Vec<&str> = names.map(|peer| peer.name.as_str()).collect();
        if !self.policy.quorum_met(&names) {
            return;
        }
        let lines = round.cosigned.values().map(|c| c.line.as_str());
        let note: String = std::iter::once(round.note.as_str()).chain(lines).collect();
        self.seen.lock().note = Some(note.clone());
        if std::mem::replace(&mut round.recorded, true) {
            return;
        }
        let latest = round.cosigned.values().map(|c| c.time).max();
        let latest = i64::try_from(latest.unwrap_or(0)).unwrap_or(i64::MAX);
        let Ok(id) = crate::client::random() else {
            return;
        };
        let proposal = Proposal {
            id: EntryId::new(id),
            writer: SERVER.to_owned(),
            body: Body::Cosigned(Cosigned {
                before: Timestamp::from_millis(latest.saturating_mul(1000)),
                note,
                settles: Vec::new(),
                size: round.size,
            }),
            openings: Vec::new(),
            scope: Scope::None,
        };
        if let Err(error) = self.ledger.record(proposal).await {
            tracing::error!("the witnesses' word could not be recorded: {error}");
        }
    }

    /// Says so once when what they have not seen is older than it may be, and once when that is over.
    fn watch_age(&mut self) {
        let now = self.ledger.now();
        let (set, age) = self.ledger.with_state(|state| {
            let limits = state.targets.values();
            let limits = limits.filter_map(|known| known.target.max_unwitnessed_seconds);
            let limit = limits.min().unwrap_or(TOO_OLD.as_secs());
            let since = state.witnesses.unseen_since();
            let age = since.map(|since| now.since(since).max(0).unsigned_abs());
            let old = age.filter(|age| *age > limit.saturating_mul(1000));
            (
                state.witnesses.set.is_some(),
                old.map(|age| (age / 1000, limit)),
            )
        });
        match age {
            Some((age, limit)) if !self.late => tracing::warn!(
                "not witnessed for {age} s, which is more than {limit} s: what is recorded since then rests on the log alone"
            ),
            None if self.late && set => tracing::warn!("witnessed again"),
            None if self.late => tracing::warn!("no witnesses are asked any more"),
            Some(_) | None => {}
        }
        self.late = age.is_some();
    }

    /// Begins a round when the one before is over and something is new.
    fn begin(&mut self) {
        let now = Instant::now();
        if let Some(round) = &self.round {
            let begun = now.duration_since(round.began);
            let over = round.recorded || round.open.is_empty() || begun >= ROUND;
            if !over || begun < PACE {
                return;
            }
        }
        let is_new = |state: &ascribe_core::law::State| state.witnesses.unseen_since().is_some();
        let ready = |peer: &Peer| !peer.busy && peer.rests_until <= now;
        if !self.ledger.with_state(is_new) || !self.peers.iter().any(ready) {
            return;
        }
        let note = self.ledger.checkpoint_note();
        let known = std::slice::from_ref(&self.log_key);
        let Ok(checkpoint) = Checkpoint::open(note.as_bytes(), known) else {
            tracing::error!("the log has no valid checkpoint");
            return;
        };
        let size = checkpoint.size;
        let mut open = BTreeSet::new();
        let peers = self.peers.iter_mut().enumerate();
        for (nth, peer) in peers.filter(|(_, peer)| ready(peer)) {
            peer.busy = true;
            open.insert(nth);
            let question = Question {
                ledger: Arc::clone(&self.ledger),
                log_key: self.log_key.clone(),
                http: self.http.clone(),
                url: format!("{}/add-checkpoint", peer.url.trim_end_matches('/')),
                key: peer.key.clone(),
                known: peer.known,
                size,
                note: note.clone(),
            };
            let policy = self.number;
            self.asked.spawn(async move {
                Answered {
                    policy,
                    peer: nth,
                    size,
                    result: question.ask().await,
                }
            });
        }
        self.round = Some(Round {
            size,
            note,
            began: now,
            cosigned: BTreeMap::new(),
            open,
            recorded: false,
        });
    }
}

/// One witness, asked to cosign one checkpoint.
struct Question {
    ledger: Arc<Ledger>,
    log_key: VerifierKey,
    http: Http,
    url: String,
    key: WitnessKey,
    known: u64,
    size: u64,
    note: String,
}

impl Question {
    async fn ask(self) -> Result<Cosignature, String> {
        let mut old = self.known;
        // It may have seen more or less than we remember: it says so once.
        for _ in 0..2 {
            let proof = match old {
                0 => Some(Vec::new()),
                old => self.ledger.consistency_between(old, self.size),
            };
            let request = AddCheckpoint {
                old,
                proof: proof.ok_or("there is no proof from the size that it has seen")?,
                note: self.note.clone(),
            };
            let body = request.to_text();
            let answer = self
                .http
                .post(
                    &self.url,
                    "text/plain; charset=utf-8",
                    body,
                    MAX_COSIGNATURES,
                )
                .await
                .map_err(|error| format!("{error:#}"))?;
            match answer.status {
                200 => return self.check(&answer.body),
                409 if answer.header("content-type") == Some("text/x.tlog.size") => {}
                status => {
                    let said = String::from_utf8_lossy(&answer.body);
                    return Err(format!("it answers {status}: {}", clean(&said, 200)));
                }
            }
            let size = recorded_size(&answer.body).map_err(|e| format!("its size: {e}"))?;
            if size > self.size {
                return Err(format!(
                    "it has seen {size} entries of this log, which has {}: the log was rolled back",
                    self.size
                ));
            }
            old = size;
        }
        Err("it names another size each time that it is asked".to_owned())
    }

    /// The lines of its answer that are its own cosignatures of this checkpoint; others are left out.
    fn check(&self, body: &[u8]) -> Result<Cosignature, String> {
        let lines = cosignature_lines(body).map_err(|e| format!("its answer: {e}"))?;
        let known = std::slice::from_ref(&self.log_key);
        for line in lines {
            let note = format!("{}{line}", self.note);
            let time = Note::open(note.as_bytes(), known).and_then(|note| self.key.cosigned(&note));
            match time {
                Ok(Some(time)) => {
                    return Ok(Cosignature {
                        line: line.to_owned(),
                        time,
                    });
                }
                Ok(None) => {}
                Err(error) => return Err(format!("its answer: {error}")),
            }
        }
        Err("its answer holds no cosignature by the key in the policy".to_owned())
    }
}
