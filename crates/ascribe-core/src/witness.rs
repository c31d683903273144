//! Witnesses: parties outside the operator's control who remember how far the log had grown
//! (C2SP tlog-witness). What people say of them, and what comes of it.

use serde::{Deserialize, Serialize};

use crate::id::StatementId;
use crate::time::Timestamp;

/// What takes effect only when the witnesses have seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Sessions under a break-glass grant.
    BreakGlass,
    /// New keys of people.
    Keys,
    /// People who come or leave.
    People,
    /// Every other change under the administrators' quorum: targets, authorities, the witnesses themselves.
    Policy,
}

/// Says who the witnesses are and what waits for them. The newest one that took effect counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessSet {
    /// What waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub demand: Vec<Demand>,
    /// A C2SP tlog-policy for this log alone, with an address for each witness. With `quorum none` there are no witnesses.
    pub policy: String,
}

/// Enough witnesses have seen the log at some size. The signatures are theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cosigned {
    /// The latest time in their cosignatures, which are in whole seconds.
    pub before: Timestamp,
    /// The checkpoint, a C2SP note: signed by the log, cosigned by the witnesses.
    pub note: String,
    /// Proposals that are settled with it: their approvals are complete and seen by the witnesses. The
    /// sequencer fills it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settles: Vec<StatementId>,
    /// The checkpoint's size: the entries before it are covered.
    pub size: u64,
}

/// By when whoever cosigned at this time had seen what they cosigned: the end of that second, which is all that a cosignature says.
pub fn seen_by(cosigned: Timestamp) -> Timestamp {
    cosigned.plus_millis(1000)
}
