//! What waits until witnesses have seen it. The law checks their signatures, that they are enough,
//! and that what they have seen only grows. Whether they have seen this very tree is for whoever has
//! the tree: the ledger before it records their word, the verifier afterwards.

use std::collections::{BTreeSet, VecDeque};

use ascribe_tlog::{Note, Quorum, TrustPolicy};
use serde::{Deserialize, Serialize};

use super::{AskStatus, Asked, Denied, GrantState, Place, State};
use crate::entry::Body;
use crate::id::StatementId;
use crate::statement::{Say, Target};
use crate::text::is_unsafe;
use crate::time::Timestamp;
use crate::witness::{Cosigned, Demand, WitnessSet, seen_by};

/// Largest policy, in bytes: it is within one entry.
const MAX_POLICY: usize = 16 * 1024;
/// Most witnesses: their cosignatures are within one entry.
const MAX_WITNESSES: usize = 32;
/// Longest address of a witness.
const MAX_URL: usize = 512;
/// Most proposals that wait at once: one entry settles them all.
const MAX_WAITING: usize = 64;
/// Most marks of time of what no witness has seen.
const MAX_MARKS: usize = 4096;

/// The witnesses and what they have seen, as the law knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Witnesses {
    /// Who they are and what waits for them; none where there never were any or they were withdrawn.
    pub set: Option<WitnessSet>,
    /// The entries before this index are covered.
    pub size: u64,
    /// By when the witnesses had seen that.
    pub before: Option<Timestamp>,
    /// The seconds in which the entries behind that were ordered: the first time in each, and the last
    /// index. What happens of itself, heads and the witnesses' word, is left out.
    unseen: VecDeque<(Timestamp, u64)>,
    /// Proposals whose approvals are complete, in the order in which they were, with the last of them.
    waiting: Vec<(StatementId, Place)>,
}

impl Witnesses {
    /// The policy of the present witnesses.
    pub fn policy(&self) -> Option<TrustPolicy> {
        TrustPolicy::parse(&self.set.as_ref()?.policy).ok()
    }

    /// When the oldest entry was ordered that they have not seen, to the second.
    pub fn unseen_since(&self) -> Option<Timestamp> {
        self.unseen.front().map(|(at, _)| *at)
    }

    /// Does this proposal wait for them, its approvals being complete?
    pub fn is_awaited(&self, proposal: StatementId) -> bool {
        self.waiting.iter().any(|(id, _)| *id == proposal)
    }

    fn demands(&self, demand: Demand) -> bool {
        let set = self.set.as_ref();
        set.is_some_and(|set| set.demand.contains(&demand))
    }

    /// Remembers when an entry was ordered.
    pub(super) fn mark(&mut self, index: u64, at: Timestamp, body: &Body) {
        if self.set.is_none() || matches!(body, Body::Head(_) | Body::Cosigned(_)) {
            return;
        }
        let second = |at: Timestamp| at.millis() / 1000;
        match self.unseen.back_mut() {
            Some((first, last)) if second(*first) == second(at) => *last = index,
            Some(_) | None => self.unseen.push_back((at, index)),
        }
        if self.unseen.len() > MAX_MARKS {
            self.thin();
        }
    }

    /// Forgets when the entries before `size` were ordered.
    pub(super) fn drop_seen(&mut self, size: u64) {
        while self.unseen.front().is_some_and(|(_, last)| *last < size) {
            self.unseen.pop_front();
        }
    }

    #[cfg(test)]
    pub(super) fn marks(&self) -> usize {
        self.unseen.len()
    }

    /// Makes one mark of each two. What is merged counts as old as the older: nothing passes for newer
    /// than it is.
    fn thin(&mut self) {
        let mut thinned: VecDeque<(Timestamp, u64)> = VecDeque::new();
        for (nth, (at, last)) in self.unseen.drain(..).enumerate() {
            match thinned.back_mut() {
                Some((_, before)) if nth % 2 == 1 => *before = last,
                Some(_) | None => thinned.push_back((at, last)),
            }
        }
        self.unseen = thinned;
    }
}

/// Which demand a proposal falls under. One that is not named here is of the last kind.
fn demand_of(say: &Say) -> Demand {
    match say {
        Say::KeyAdd(_) | Say::IdentityLink(_) => Demand::Keys,
        Say::PersonAdd(_) | Say::Offboard(_) | Say::WorkloadSet(_) | Say::DirectorySet(_) => {
            Demand::People
        }
        _ => Demand::Policy,
    }
}

fn refuse<T>(text: &str) -> Result<T, Denied> {
    Err(Denied::new("witnesses", text))
}

fn unwitnessed(why: String) -> Denied {
    Denied::new("unwitnessed", why).with_help(
        "try again once enough witnesses have answered: `ascribe ledger status` shows which do not",
    )
}

impl State {
    pub(super) fn check_witness_set(&self, set: &WitnessSet) -> Result<(), Denied> {
        let distinct: BTreeSet<Demand> = set.demand.iter().copied().collect();
        if distinct.len() != set.demand.len() {
            return refuse("a demand is named twice");
        }
        let bad = |c: char| is_unsafe(c) && c != '\n';
        if set.policy.len() > MAX_POLICY || set.policy.chars().any(bad) {
            return refuse("a policy is at most 16 KiB of text");
        }
        let policy = TrustPolicy::parse(&set.policy)
            .map_err(|e| Denied::new("witnesses", format!("the policy is refused: {e}")))?;
        let log = &self.genesis_rules()?.log_key;
        if !matches!(policy.logs.as_slice(), [one] if one.to_string() == *log) {
            return refuse("a policy of witnesses names this log's key and no other");
        }
        if policy.quorum == Quorum::None {
            return match set.demand.is_empty() {
                true => Ok(()),
                false => refuse("with `quorum none` nothing can be demanded of witnesses"),
            };
        }
        if policy.witnesses.len() > MAX_WITNESSES {
            return refuse("a policy names at most 32 witnesses");
        }
        if !policy.witnesses.iter().all(|w| w.key.is_supported()) {
            return refuse("a witness has an Ed25519 key: others are not checked yet");
        }
        let is_url = |url: &str| {
            (url.starts_with("https://") || url.starts_with("http://")) && url.len() <= MAX_URL
        };
        let mut urls = policy.witnesses.iter().map(|w| w.url.as_deref());
        if !urls.all(|url| url.is_some_and(is_url)) {
            return refuse("each witness has the URL that checkpoints are submitted to");
        }
        Ok(())
    }

    pub(super) fn take_witness_set(&mut self, set: &WitnessSet) {
        let known = TrustPolicy::parse(&set.policy);
        let withdrawn = known.is_ok_and(|policy| policy.quorum == Quorum::None);
        self.witnesses.set = (!withdrawn).then(|| set.clone());
        if withdrawn {
            // What waited for them stays open: it can be approved or proposed again.
            self.witnesses.unseen.clear();
            self.witnesses.waiting.clear();
        }
    }

    /// Is there room for one more proposal that waits, if this one would?
    pub(super) fn check_may_wait(&self, say: &Say) -> Result<(), Denied> {
        let witnesses = &self.witnesses;
        if witnesses.waiting.len() < MAX_WAITING || !witnesses.demands(demand_of(say)) {
            return Ok(());
        }
        let why = format!("{MAX_WAITING} proposals wait for witnesses already");
        Err(unwitnessed(why))
    }

    /// Its approvals are complete with the entry at `place`. Does it wait for witnesses to see that?
    pub(super) fn waits_for_witnesses(&mut self, id: StatementId, say: &Say, place: Place) -> bool {
        let witnesses = &mut self.witnesses;
        let waits = witnesses.demands(demand_of(say));
        if waits && !witnesses.is_awaited(id) {
            witnesses.waiting.push((id, place));
        }
        waits
    }

    /// The open proposals that are settled once the entries before `size` are covered, in order.
    pub(super) fn settled_by(&self, size: u64) -> Vec<(StatementId, Place)> {
        let is_open = |id| {
            let ask = self.asks.get(id);
            ask.is_some_and(|ask| ask.status == AskStatus::Open)
        };
        let waiting = self.witnesses.waiting.iter();
        waiting
            .filter(|(id, place)| place.index < size && is_open(id))
            .copied()
            .collect()
    }

    pub(super) fn take_cosigned(
        &mut self,
        cosigned: &Cosigned,
        index: u64,
        at: Timestamp,
    ) -> Result<(), Denied> {
        self.check_cosigned(cosigned, index)?;
        let settled = self.settled_by(cosigned.size);
        let witnesses = &mut self.witnesses;
        witnesses.size = cosigned.size;
        witnesses.before = Some(seen_by(cosigned.before));
        witnesses.drop_seen(cosigned.size);
        witnesses
            .waiting
            .retain(|(_, place)| place.index >= cosigned.size);
        for (id, place) in settled {
            let say = match self.asks.get(&id).map(|ask| &ask.asked) {
                Some(Asked::Proposal(say)) => say.clone(),
                Some(_) | None => continue,
            };
            // Something else may have changed meanwhile, so that this is not lawful any more.
            let status = match self.check_change(&say) {
                Ok(()) => {
                    self.take_change(&say, at, place);
                    AskStatus::Granted
                }
                Err(_) => AskStatus::Denied,
            };
            self.settle(id, status);
        }
        Ok(())
    }

    fn check_cosigned(&self, cosigned: &Cosigned, index: u64) -> Result<(), Denied> {
        let Some(policy) = self.witnesses.policy() else {
            return refuse("this log has no witnesses");
        };
        let malformed = |e: &dyn core::fmt::Display| Denied::new("cosigned", e.to_string());
        let bytes = cosigned.note.as_bytes();
        let checkpoint = policy.open_checkpoint(bytes).map_err(|e| malformed(&e))?;
        let note = Note::open(bytes, &policy.logs).map_err(|e| malformed(&e))?;
        let mut times = Vec::new();
        for witness in &policy.witnesses {
            times.extend(witness.key.cosigned(&note).map_err(|e| malformed(&e))?);
        }
        let latest = times
            .iter()
            .max()
            .and_then(|time| i64::try_from(*time).ok());
        let before = latest.map(|time| Timestamp::from_millis(time.saturating_mul(1000)));
        if checkpoint.size != cosigned.size || before != Some(cosigned.before) {
            return refuse("size and time are not those of the cosigned checkpoint");
        }
        // The log's signature and one of each witness: nothing that nobody checks.
        if note.signatures().len() != times.len() + 1 {
            return refuse("the checkpoint has a signature that is no witness's");
        }
        if cosigned.size > index || cosigned.size <= self.witnesses.size {
            return refuse("what the witnesses have seen grows, and is there already");
        }
        let settled = self.settled_by(cosigned.size);
        let settled: Vec<StatementId> = settled.into_iter().map(|(id, _)| id).collect();
        if settled != cosigned.settles {
            return refuse("it settles other proposals than those that waited for it");
        }
        Ok(())
    }

    /// Have witnesses seen enough of the log for a session under this grant?
    pub(super) fn check_witnessed(
        &self,
        state: &GrantState,
        target: &Target,
        at: Timestamp,
    ) -> Result<(), Denied> {
        let witnesses = &self.witnesses;
        if state.grant.break_glass
            && witnesses.demands(Demand::BreakGlass)
            && state.place.index >= witnesses.size
        {
            let why = "the break-glass grant waits until enough witnesses have seen it";
            return Err(unwitnessed(why.to_owned()));
        }
        let Some(most) = target.max_unwitnessed_seconds else {
            return Ok(());
        };
        if witnesses.set.is_none() {
            return Err(Denied::new(
                "unwitnessed",
                format!(
                    "target `{}` demands witnesses and this log has none",
                    target.name
                ),
            )
            .with_help("an administrator names them: `ascribe witness set`"));
        }
        // An excerpt lacks entries, and so cannot tell how old the oldest was.
        let oldest = witnesses.unseen_since().filter(|_| self.excerpt.is_none());
        let age = oldest
            .map_or(0, |oldest| at.since(oldest))
            .max(0)
            .unsigned_abs();
        if age <= most.saturating_mul(1000) {
            return Ok(());
        }
        Err(unwitnessed(format!(
            "no witnesses have seen what was recorded {} s ago; target `{}` allows {most} s",
            age / 1000,
            target.name
        )))
    }
}
