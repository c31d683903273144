//! C2SP tlog-witness v1: what a log asks of a witness, and what comes back.

use crate::hash::Hash;

/// Largest request that is read, in bytes.
pub const MAX_ADD_CHECKPOINT: usize = 64 * 1024;
/// Most hashes of a consistency proof.
const MAX_PROOF: usize = 63;
/// Largest answer that is read, in bytes, and most lines of it.
pub const MAX_COSIGNATURES: usize = 16 * 1024;
const MAX_LINES: usize = 16;

/// Why a request or an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct WitnessError(&'static str);

/// A request to cosign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness is thought to have seen; 0 for none.
    pub old: u64,
    /// Proves that the checkpoint continues the tree of that size.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

impl AddCheckpoint {
    /// The body of the request.
    pub fn to_text(&self) -> String {
        let mut out = format!("old {}\n", self.old);
        for hash in &self.proof {
            out.push_str(&hash.to_base64());
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.note);
        out
    }

    /// Reads the body of a request. The note inside is read by [`crate::Checkpoint::open`].
    ///
    /// # Errors
    /// When it is not one, in its one spelling.
    pub fn parse(body: &[u8]) -> Result<Self, WitnessError> {
        if body.len() > MAX_ADD_CHECKPOINT {
            return Err(WitnessError("larger than 64 KiB"));
        }
        let text = core::str::from_utf8(body).map_err(|_| WitnessError("not UTF-8"))?;
        let (head, note) = text
            .split_once("\n\n")
            .ok_or(WitnessError("no blank line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old
            .and_then(decimal)
            .ok_or(WitnessError("the line of the old size"))?;
        let proof: Option<Vec<Hash>> = lines.take(MAX_PROOF + 1).map(Hash::from_base64).collect();
        let proof = proof.ok_or(WitnessError("a line of the proof"))?;
        if proof.len() > MAX_PROOF {
            return Err(WitnessError("more than 63 hashes"));
        }
        if note.is_empty() {
            return Err(WitnessError("no checkpoint"));
        }
        Ok(Self {
            old,
            proof,
            note: note.to_owned(),
        })
    }
}

/// The signature lines of a witness's answer, each with its newline. None of them is verified.
///
/// # Errors
/// When the answer is no list of lines that each begin as a signature line does.
pub fn cosignature_lines(body: &[u8]) -> Result<Vec<&str>, WitnessError> {
    if body.len() > MAX_COSIGNATURES {
        return Err(WitnessError("larger than 16 KiB"));
    }
    let text = core::str::from_utf8(body).map_err(|_| WitnessError("not UTF-8"))?;
    if !text.ends_with('\n') {
        return Err(WitnessError("no final newline"));
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.len() > MAX_LINES {
        return Err(WitnessError("more than 16 lines"));
    }
    if lines.iter().all(|line| line.starts_with("\u{2014} ")) {
        Ok(lines)
    } else {
        Err(WitnessError("a line that is no signature"))
    }
}

/// The size in the answer of a witness that has seen another one than it was asked with.
///
/// # Errors
/// When it is no decimal number on a line of its own.
pub fn recorded_size(body: &[u8]) -> Result<u64, WitnessError> {
    let text = core::str::from_utf8(body).ok();
    text.and_then(|text| decimal(text.strip_suffix('\n')?))
        .ok_or(WitnessError("not a size"))
}

/// A number in its one spelling.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> AddCheckpoint {
        AddCheckpoint {
            old: 7,
            proof: vec![Hash([1; 32]), Hash([2; 32])],
            note: "example.org/log\n9\nroot\n\n\u{2014} example.org/log AAAA\n".to_owned(),
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let whole = request();
        assert_eq!(AddCheckpoint::parse(whole.to_text().as_bytes()), Ok(whole));
        let first = AddCheckpoint {
            old: 0,
            proof: Vec::new(),
            ..request()
        };
        assert_eq!(AddCheckpoint::parse(first.to_text().as_bytes()), Ok(first));
    }

    #[test]
    fn other_spellings_of_a_request_are_refused() {
        let text = request().to_text();
        let long = AddCheckpoint {
            proof: vec![Hash([3; 32]); 64],
            ..request()
        };
        for bad in [
            String::new(),
            text.replace("old 7", "old 07"),
            text.replace("old 7", "old +7"),
            text.replace("old 7", "old"),
            text.replace("old 7\n", "old 7\n="),
            text.replace("\n\n", "\n"),
            "old 0\n\n".to_owned(),
            long.to_text(),
            format!("{text}{}", "x".repeat(MAX_ADD_CHECKPOINT)),
        ] {
            assert!(AddCheckpoint::parse(bad.as_bytes()).is_err(), "{bad:.80}");
        }
        assert!(AddCheckpoint::parse(b"old 0\n\n\xff").is_err());
    }

    #[test]
    fn answers_are_lines_of_signatures_or_a_size() {
        let line = "\u{2014} w AAAA\n";
        assert_eq!(cosignature_lines(line.as_bytes()), Ok(vec![line]));
        for bad in ["", "\n", "w AAAA\n", "\u{2014} w AAAA", &line.repeat(17)] {
            assert!(cosignature_lines(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(recorded_size(b"12\n"), Ok(12));
        for bad in [&b""[..], b"12", b"012\n", b"-1\n", b"12\n\n", b"\xff\n"] {
            assert!(recorded_size(bad).is_err(), "{bad:?}");
        }
    }
}
