//! What witnesses have seen of the tree that is verified: by the reader's policy where it names
//! witnesses, otherwise by the one that the log's own administrators signed.

use ascribe_core::law::State;
use ascribe_core::time::Timestamp;
use ascribe_core::witness::seen_by;
use ascribe_tlog::{Note, Quorum, TrustPolicy};
use serde::Serialize;

use crate::links;

/// What they have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Witnessed {
    /// So many entries.
    pub size: u64,
    /// By then: the end of the second in the latest of their cosignatures.
    pub before: Timestamp,
    /// Who cosigned: names in the policy.
    pub by: Vec<String>,
    /// The ids of their keys, in the same order.
    #[serde(skip)]
    pub keys: Vec<String>,
    /// Who must have.
    pub quorum: String,
    /// Whose policy that is: `reader` or `log`.
    pub policy: &'static str,
}

/// Does the reader demand witnesses?
pub(crate) fn demanded(trust: &TrustPolicy) -> bool {
    trust.quorum != Quorum::None
}

/// The reader's policy without its demand for witnesses.
pub(crate) fn log_alone(trust: &TrustPolicy) -> TrustPolicy {
    TrustPolicy {
        quorum: Quorum::None,
        ..trust.clone()
    }
}

/// What a checkpoint shows, if enough witnesses cosigned it.
pub(crate) fn shown_by(note: &[u8], trust: &TrustPolicy, state: &State) -> Option<Witnessed> {
    if demanded(trust) {
        return under(note, trust, "reader");
    }
    under(note, &state.witnesses.policy()?, "log")
}

fn under(note: &[u8], policy: &TrustPolicy, whose: &'static str) -> Option<Witnessed> {
    let Quorum::Name(quorum) = &policy.quorum else {
        return None;
    };
    let size = policy.open_checkpoint(note).ok()?.size;
    let note = Note::open(note, &policy.logs).ok()?;
    let by = policy.cosigners(&note).ok()?;
    let times = policy
        .witnesses
        .iter()
        .filter_map(|w| w.key.cosigned(&note).ok()?);
    let keys = by.iter().map(|name| {
        let mut known = policy.witnesses.iter();
        let known = known.find(|witness| witness.name == *name);
        known.map_or_else(String::new, |w| links::key_id(w.key.name(), w.key.key_id()))
    });
    let keys = keys.collect();
    let latest = i64::try_from(times.max()?).ok()?;
    Some(Witnessed {
        size,
        before: seen_by(Timestamp::from_millis(latest.saturating_mul(1000))),
        keys,
        by: by.into_iter().map(str::to_owned).collect(),
        quorum: quorum.clone(),
        policy: whose,
    })
}
