//! What somebody lets an agent do in their name, and that the agent takes it. Whether a chain of these
//! holds is law (`law/delegations.rs`).

use serde::{Deserialize, Serialize};

use crate::id::{EntryHash, PersonId, StatementId, derived};
use crate::sealed::Prose;
use crate::statement::SshKey;
use crate::time::Timestamp;

/// Lets an agent act within the grants of the person at the head of the chain. Members in canonical
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// So many actions at most, those of the agent's own agents included. What is a part of a file
    /// transfer is not counted by itself.
    pub actions: u64,
    /// The agent's name, as records show it.
    pub agent: String,
    /// So many further steps may follow: 0 lets the agent delegate nothing.
    pub depth: u8,
    /// The agent's key, which nobody else has.
    pub key: SshKey,
    /// Kinds of actions: exact ones, or whole classes (`ssh`, `sftp`, `scp`, `forward`).
    pub kinds: Vec<String>,
    /// The delegation that this one narrows, where an agent delegates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<StatementId>,
    /// On these targets.
    pub targets: Vec<String>,
    /// What for, sealed.
    pub task: Prose,
    /// First instant that is too late.
    pub until: Timestamp,
}

/// The agent takes a delegation, with the key that the delegation names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// What the agent says of itself. Nobody checks it.
    pub asserted: Asserted,
    /// The hash of the entry that holds the delegation.
    pub entry: EntryHash,
    /// The delegation.
    pub of: StatementId,
}

/// What an agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asserted {
    /// The program that drives the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harness: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The model's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Asserted {
    /// Every text that is given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.harness, &self.model, &self.run, &self.version]
            .into_iter()
            .filter_map(|text| text.as_deref())
    }
}

/// Ends a delegation, everything that was delegated under it, and their sessions, at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegationRevoke {
    /// Which.
    pub delegation: StatementId,
    /// Why, sealed.
    pub reason: Prose,
}

/// The class that a kind of action belongs to, each to one.
pub fn class_of(kind: &str) -> Option<&'static str> {
    match kind.split_once('.')? {
        ("ssh", "sftp") | ("sftp", _) => Some("sftp"),
        ("ssh", "scp") | ("scp", _) => Some("scp"),
        ("ssh", what) if what.starts_with("forward.") => Some("forward"),
        ("ssh", _) => Some("ssh"),
        ("pg", _) => Some("pg"),
        _ => None,
    }
}

/// Is this kind among those, by itself or by its class? A class is only by itself.
pub fn covers(kinds: &[String], kind: &str) -> bool {
    let named = |name: &str| kinds.iter().any(|known| known == name);
    named(kind) || class_of(kind).is_some_and(named)
}

/// How records call an agent where they need an id as people have one. It follows from the delegation,
/// so nobody chooses it, and it is nobody's in the registry.
pub fn agent_id(log: &str, delegation: StatementId) -> PersonId {
    let parts = [log.as_bytes(), delegation.bytes()];
    PersonId::new(derived("ascribe/agent/v1", &parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_covered_by_itself_or_by_its_one_class() {
        let kinds = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (list, kind, fits) in [
            (&["ssh.exec"][..], "ssh.exec", true),
            (&["ssh.exec"], "ssh.shell", false),
            (&["ssh"], "ssh.shell", true),
            (&["ssh"], "ssh.rsync", true),
            (&["ssh"], "ssh.sftp", false),
            (&["ssh"], "ssh.forward.agent", false),
            (&["forward"], "ssh.forward.agent", true),
            (&["sftp"], "ssh.sftp", true),
            (&["sftp"], "sftp.remove", true),
            (&["sftp"], "scp.write", false),
            (&["ssh.sftp", "sftp.open"], "sftp.remove", false),
            (&["scp"], "ssh.scp", true),
            (&["ssh.exec"], "ssh", false),
            (&["ssh"], "ssh", true),
            (&[], "ssh.exec", false),
            (&["SSH"], "ssh.exec", false),
        ] {
            assert_eq!(covers(&kinds(list), kind), fits, "{list:?} {kind}");
        }
    }
}
