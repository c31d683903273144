//! The bundle: one file that proves one session, or one ledger, offline.
//!
//! UTF-8 lines, each one canonical JSON object, in this order: a header, the signed checkpoint,
//! entries with inclusion proofs by ascending index, openings by ascending index. A bundle carries
//! chosen openings, never a key.

use serde::{Deserialize, Serialize};

use crate::encoding::{self, EncodingError};
use crate::id::{Root, SessionId};
use crate::sealed::Opening;

/// Largest bundle that is read, in bytes.
pub const MAX_BUNDLE: usize = 1 << 30;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of this form: 1.
    pub bundle: u8,
    /// Origin of the log.
    pub log: String,
    /// The session that the bundle is about.
    pub session: SessionId,
}

/// The second line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: String,
}

/// An entry with its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenEntry {
    /// The exact entry.
    pub entry: String,
    /// Its index.
    pub index: u64,
    /// RFC 6962 inclusion proof to the checkpoint's root.
    pub proof: Vec<Root>,
}

/// Content of an entry's commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisclosedOpening {
    /// The entry that commits to it.
    pub index: u64,
    /// The content.
    pub opening: Opening,
}

/// A whole bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What it is about.
    pub header: Header,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// Entries by ascending index.
    pub entries: Vec<ProvenEntry>,
    /// Openings by ascending index.
    pub openings: Vec<DisclosedOpening>,
}

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Too large.
    #[error("the bundle is larger than 1 GiB")]
    Size,
    /// Not UTF-8 lines that end with a newline.
    #[error("the bundle is not text of whole lines")]
    Text,
    /// A line is not what stands in its place.
    #[error("line {0}: {1}")]
    Line(usize, EncodingError),
    /// Header or checkpoint are missing.
    #[error("the bundle ends before its checkpoint")]
    Short,
    /// The form's version is unknown.
    #[error("the bundle has an unknown version")]
    Version,
    /// Entries or openings are out of order.
    #[error("line {0}: out of order")]
    Order(usize),
}

impl Bundle {
    /// The file.
    ///
    /// # Errors
    /// When a value has no canonical form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodingError> {
        let mut out = encoding::encode(&self.header)?;
        let mut add = |line: Vec<u8>| {
            out.push(b'\n');
            out.extend_from_slice(&line);
        };
        add(encoding::encode(&CheckpointLine {
            checkpoint: self.checkpoint.clone(),
        })?);
        for entry in &self.entries {
            add(encoding::encode(entry)?);
        }
        for opening in &self.openings {
            add(encoding::encode(opening)?);
        }
        out.push(b'\n');
        Ok(out)
    }

    /// Reads a file. Strict: one spelling, one order, nothing else.
    ///
    /// # Errors
    /// When the bytes are not exactly a bundle.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE {
            return Err(BundleError::Size);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BundleError::Text)?;
        let text = text.strip_suffix('\n').ok_or(BundleError::Text)?;
        let mut lines = text
            .split('\n')
            .enumerate()
            .map(|(i, line)| (i + 1, line.as_bytes()));
        let (n, line) = lines.next().ok_or(BundleError::Short)?;
        let header: Header = encoding::decode(line).map_err(|e| BundleError::Line(n, e))?;
        if header.bundle != 1 {
            return Err(BundleError::Version);
        }
        let (n, line) = lines.next().ok_or(BundleError::Short)?;
        let checkpoint: CheckpointLine =
            encoding::decode(line).map_err(|e| BundleError::Line(n, e))?;
        let mut bundle = Self {
            header,
            checkpoint: checkpoint.checkpoint,
            entries: Vec::new(),
            openings: Vec::new(),
        };
        for (n, line) in lines {
            if line.starts_with(b"{\"entry\":") && bundle.openings.is_empty() {
                let entry: ProvenEntry =
                    encoding::decode(line).map_err(|e| BundleError::Line(n, e))?;
                if bundle
                    .entries
                    .last()
                    .is_some_and(|last| last.index >= entry.index)
                {
                    return Err(BundleError::Order(n));
                }
                bundle.entries.push(entry);
            } else {
                let opening: DisclosedOpening =
                    encoding::decode(line).map_err(|e| BundleError::Line(n, e))?;
                if bundle
                    .openings
                    .last()
                    .is_some_and(|last| last.index > opening.index)
                {
                    return Err(BundleError::Order(n));
                }
                bundle.openings.push(opening);
            }
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_one_spelling() {
        let bundle = Bundle {
            header: Header {
                bundle: 1,
                log: "example.org/log".into(),
                session: SessionId::new([1; 16]),
            },
            checkpoint: "x\n".into(),
            entries: vec![ProvenEntry {
                entry: "{}".into(),
                index: 3,
                proof: vec![],
            }],
            openings: vec![DisclosedOpening {
                index: 3,
                opening: Opening::new("command", [0; 32], b"id".to_vec()),
            }],
        };
        let bytes = bundle.to_bytes().unwrap();
        assert_eq!(Bundle::parse(&bytes).unwrap(), bundle);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for bad in [
            String::new(),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}{}\n", lines[2]),
            [lines[1], lines[0], lines[2], lines[3], ""].join("\n"),
            text.replace("\"bundle\":1", "\"bundle\":2"),
            text.replace('\n', "\r\n"),
        ] {
            assert!(Bundle::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
