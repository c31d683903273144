//! C2SP tlog-policy: which logs a verifier accepts. Our first-entry pin is a comment line
//! `# ascribe-first-entry HASH` (base64url leaf hash), which other tools ignore.

use crate::hash::Hash;
use crate::note::VerifierKey;

const PIN: &str = "# ascribe-first-entry ";
const MAX_LOGS: usize = 32;

/// What a verifier trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPolicy {
    /// Keys of accepted logs.
    pub logs: Vec<VerifierKey>,
    /// The pinned leaf hash of the first entry.
    pub first_entry: Option<Hash>,
}

/// Why a trust policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A line says nothing that is known.
    #[error("line {0}: not a line of a trust policy")]
    Line(usize),
    /// A key is damaged.
    #[error("line {0}: the key is not a verifier key")]
    Key(usize),
    /// Something is said twice.
    #[error("line {0}: said twice")]
    Twice(usize),
    /// More is demanded than this verifier can check.
    #[error("line {0}: a quorum of witnesses is demanded, which this verifier cannot check yet")]
    Witnesses(usize),
    /// No log is named.
    #[error("the trust policy names no log")]
    Empty,
}

impl TrustPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// When a line is not understood: an unknown demand is never ignored.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self {
            logs: Vec::new(),
            first_entry: None,
        };
        for (i, line) in text.lines().enumerate() {
            let number = i + 1;
            if let Some(pin) = line.strip_prefix(PIN) {
                let hash = Hash::from_base64url(pin.trim()).ok_or(PolicyError::Key(number))?;
                if policy.first_entry.replace(hash).is_some() {
                    return Err(PolicyError::Twice(number));
                }
                continue;
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (None, _) => {}
                (Some(word), _) if word.starts_with('#') => {}
                (Some("log"), Some(key)) => {
                    let key = key.parse().map_err(|_| PolicyError::Key(number))?;
                    if policy.logs.contains(&key) || policy.logs.len() == MAX_LOGS {
                        return Err(PolicyError::Twice(number));
                    }
                    policy.logs.push(key);
                }
                // Witness and group lines only give names; the quorum line makes the demand.
                (Some("witness" | "group"), Some(_)) | (Some("quorum"), Some("none")) => {}
                (Some("quorum"), Some(_)) => return Err(PolicyError::Witnesses(number)),
                _ => return Err(PolicyError::Line(number)),
            }
        }
        if policy.logs.is_empty() {
            Err(PolicyError::Empty)
        } else {
            Ok(policy)
        }
    }

    /// The policy as a file.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if let Some(hash) = &self.first_entry {
            out.push_str(&format!("{PIN}{}\n", hash.to_base64url()));
        }
        for log in &self.logs {
            out.push_str(&format!("log {log}\n"));
        }
        out + "quorum none\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SigningKey;

    #[test]
    fn a_policy_is_read_strictly() {
        let key = SigningKey::from_seed("example.org/log", &[1; 32])
            .unwrap()
            .verifier();
        let policy = TrustPolicy {
            logs: vec![key.clone()],
            first_entry: Some(Hash([9; 32])),
        };
        let text = policy.to_text();
        assert_eq!(TrustPolicy::parse(&text).unwrap(), policy);
        for bad in [
            "",
            "nonsense x\n",
            "log x\n",
            &format!("{text}quorum w\n"),
            &format!("{text}{text}"),
        ] {
            assert!(TrustPolicy::parse(bad).is_err(), "{bad:?}");
        }
    }
}
