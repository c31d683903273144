//! C2SP tlog-checkpoint v1.0.0.

use crate::hash::Hash;
use crate::note::{Note, NoteError, VerifierKey};

/// Origin, size and root of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not origin, size and root.
    #[error("malformed checkpoint: {0}")]
    Form(&'static str),
    /// No key of the origin's name signed.
    #[error("the checkpoint is not signed by its own log")]
    Origin,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn to_text(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            self.root.to_base64()
        )
    }

    /// Reads the text. Extension lines are refused.
    ///
    /// # Errors
    /// When it is not exactly three canonical lines.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let form = CheckpointError::Form;
        let body = text.strip_suffix('\n').ok_or(form("no final newline"))?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(form("not three lines"));
        };
        if origin.is_empty() {
            return Err(form("no origin"));
        }
        if origin.contains(|c: char| c < ' ') {
            return Err(form("a control character in the origin"));
        }
        let parsed: u64 = size.parse().map_err(|_| form("the size"))?;
        if parsed.to_string() != size {
            return Err(form("the size is not canonical"));
        }
        let root = Hash::from_base64(root).ok_or(form("the root"))?;
        Ok(Self {
            origin: origin.to_owned(),
            size: parsed,
            root,
        })
    }

    /// Opens a signed checkpoint: a known key named like its origin must have signed.
    ///
    /// # Errors
    /// When it is malformed or not signed by the log.
    pub fn open(note: &[u8], known: &[VerifierKey]) -> Result<Self, CheckpointError> {
        Self::of_note(&Note::open(note, known)?)
    }

    /// The checkpoint in an opened note, when one of the note's verified keys has its origin's name.
    pub(crate) fn of_note(note: &Note) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(note.text())?;
        if note.verified_by().contains(&checkpoint.origin) {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Origin)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_a_checkpoint() {
        let good = Checkpoint {
            origin: "example.org/log".into(),
            size: 10,
            root: Hash([3; 32]),
        };
        let text = good.to_text();
        assert_eq!(Checkpoint::parse(&text).unwrap(), good);
        for bad in [
            text.replace("\n10\n", "\n010\n"),
            text.replace("\n10\n", "\n+10\n"),
            text.replace("example.org/log", ""),
            format!("{text}extension\n"),
            text.trim_end().to_owned(),
            text.replace('=', ""),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
