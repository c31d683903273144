//! C2SP tlog-proof v1: an offline proof that an entry is in a log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::note::{MAX_NOTE, VerifierKey};
use crate::policy::{TrustError, TrustPolicy};
use crate::tree::{ProofError, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A tree of at most 2^64 - 1 leaves has no longer proofs.
const MAX_HASHES: usize = 64;
/// Largest extra data, in bytes as base64.
const MAX_EXTRA: usize = 1_000_000;

/// Index and inclusion proof of an entry, with the signed checkpoint that they lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Data of an application, which nothing authenticates.
    pub extra: Option<Vec<u8>>,
    /// The entry's index, from zero.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, with all its cosignatures.
    pub checkpoint_note: String,
}

/// Why a proof file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// It has not the form of one.
    #[error("malformed proof: {0}")]
    Form(&'static str),
    /// Its checkpoint is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The entry is not where the proof says.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl From<CheckpointError> for TlogProofError {
    fn from(error: CheckpointError) -> Self {
        Self::Trust(error.into())
    }
}

impl TlogProof {
    /// A proof without extra data.
    pub fn new(index: u64, hashes: Vec<Hash>, checkpoint_note: String) -> Self {
        Self {
            extra: None,
            index,
            hashes,
            checkpoint_note,
        }
    }

    /// The proof as a file. Empty extra data is left out.
    pub fn to_text(&self) -> String {
        let mut out = format!("{HEADER}\n");
        if let Some(extra) = self.extra.as_ref().filter(|extra| !extra.is_empty()) {
            out.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        out.push_str(&format!("index {}\n", self.index));
        for hash in &self.hashes {
            out.push_str(&hash.to_base64());
            out.push('\n');
        }
        out.push('\n');
        out + &self.checkpoint_note
    }

    /// Reads a file. The checkpoint is looked at only when the proof is verified.
    ///
    /// # Errors
    /// When it is not in the one canonical form.
    pub fn parse(text: &str) -> Result<Self, TlogProofError> {
        let form = TlogProofError::Form;
        let (head, note) = text.split_once("\n\n").ok_or(form("no checkpoint"))?;
        if note.is_empty() {
            return Err(form("no checkpoint"));
        }
        if note.len() > MAX_NOTE {
            return Err(form("the checkpoint is larger than 1 MB"));
        }
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(form("not a proof of version 1"));
        }
        let mut line = lines.next();
        let mut extra = None;
        if let Some(data) = line.and_then(|line| line.strip_prefix("extra ")) {
            extra = Some(parse_extra(data)?);
            line = lines.next();
        }
        let digits = line
            .and_then(|line| line.strip_prefix("index "))
            .ok_or(form("no index"))?;
        let index: u64 = digits.parse().map_err(|_| form("the index"))?;
        if index.to_string() != digits {
            return Err(form("the index is not canonical"));
        }
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == MAX_HASHES {
                return Err(form("more than 64 hashes"));
            }
            hashes.push(Hash::from_base64(line).ok_or(form("a hash"))?);
        }
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint_note: note.to_owned(),
        })
    }

    /// Verifies that the entry with this leaf hash is in a log that one of the keys signs for, and
    /// returns the checkpoint that shows it. No witnesses are asked for.
    ///
    /// # Errors
    /// When the checkpoint is not trusted or the proof does not lead to its root.
    pub fn verify(&self, leaf: &Hash, logs: &[VerifierKey]) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::open(self.checkpoint_note.as_bytes(), logs)?;
        self.included(leaf, checkpoint)
    }

    /// The same under a whole trust policy, with its quorum of witnesses.
    ///
    /// # Errors
    /// When the checkpoint is not trusted or the proof does not lead to its root.
    pub fn verify_under(
        &self,
        leaf: &Hash,
        policy: &TrustPolicy,
    ) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = policy.open_checkpoint(self.checkpoint_note.as_bytes())?;
        self.included(leaf, checkpoint)
    }

    fn included(&self, leaf: &Hash, checkpoint: Checkpoint) -> Result<Checkpoint, TlogProofError> {
        let (size, root) = (checkpoint.size, &checkpoint.root);
        verify_inclusion(leaf, self.index, size, &self.hashes, root)?;
        Ok(checkpoint)
    }
}

fn parse_extra(data: &str) -> Result<Vec<u8>, TlogProofError> {
    if data.is_empty() || data.len() > MAX_EXTRA {
        return Err(TlogProofError::Form("the extra data is empty or too large"));
    }
    STANDARD
        .decode(data)
        .map_err(|_| TlogProofError::Form("the extra data is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf_hash;
    use crate::note::SigningKey;
    use crate::tree::Tree;

    fn log() -> SigningKey {
        SigningKey::from_seed("example.org/log", &[1; 32]).unwrap()
    }

    fn proof(index: u64, size: u64) -> TlogProof {
        let mut tree = Tree::new();
        (0..size).for_each(|i| tree.push(leaf_hash(&i.to_be_bytes())));
        let checkpoint = Checkpoint {
            origin: log().name().to_owned(),
            size,
            root: tree.root(),
        };
        let note = log().sign_note(&checkpoint.to_text()).unwrap();
        TlogProof::new(index, tree.inclusion_proof(index, size).unwrap(), note)
    }

    #[test]
    fn a_proof_verifies_for_its_entry_only() {
        let keys = [log().verifier()];
        for (index, size) in [(0, 1), (0, 2), (5, 7), (6, 7), (299, 300)] {
            let mut proof = proof(index, size);
            let leaf = leaf_hash(&index.to_be_bytes());
            let text = proof.to_text();
            assert_eq!(TlogProof::parse(&text).unwrap(), proof);
            assert_eq!(proof.verify(&leaf, &keys).unwrap().size, size);
            assert!(proof.verify(&leaf_hash(b"other"), &keys).is_err());
            let other = SigningKey::from_seed("example.org/log", &[2; 32]).unwrap();
            assert!(proof.verify(&leaf, &[other.verifier()]).is_err());
            proof.extra = Some(b"extra".to_vec());
            assert_eq!(TlogProof::parse(&proof.to_text()).unwrap(), proof);
            proof.index += 1;
            assert!(proof.verify(&leaf, &keys).is_err());
        }
    }

    #[test]
    fn a_proof_is_verified_under_a_policy() {
        let witness = SigningKey::from_seed("w", &[3; 32]).unwrap();
        let policy = TrustPolicy::parse(&format!(
            "log {}\nwitness w {}\nquorum w\n",
            log().verifier(),
            witness.witness().unwrap()
        ))
        .unwrap();
        let mut proof = proof(3, 9);
        let leaf = leaf_hash(&3u64.to_be_bytes());
        assert_eq!(
            proof.verify_under(&leaf, &policy),
            Err(TlogProofError::Trust(TrustError::Quorum))
        );
        let (text, _) = proof.checkpoint_note.split_once("\n\n").unwrap();
        let line = witness.cosign(&format!("{text}\n"), 7).unwrap();
        proof.checkpoint_note += &line;
        assert_eq!(proof.verify_under(&leaf, &policy).unwrap().size, 9);
        assert!(proof.verify_under(&leaf_hash(b""), &policy).is_err());
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let good = proof(5, 7).to_text();
        let (head, note) = good.split_once("\n\n").unwrap();
        let hash = Hash::ZERO.to_base64();
        for bad in [
            String::new(),
            head.to_owned(),
            format!("{head}\n\n"),
            format!("{head}\n{note}"),
            format!("\n{good}"),
            good.replace("@v1", "@v2"),
            good.replace("index 5", "index 05"),
            good.replace("index 5", "index +5"),
            good.replace("index 5", "index 5 "),
            good.replace("index 5", "index 18446744073709551616"),
            good.replace("index 5\n", ""),
            good.replace("index 5", "extra \nindex 5"),
            good.replace("index 5", "extra AA\nindex 5"),
            good.replace("index 5", "extra AA==\nextra AA==\nindex 5"),
            good.replace("index 5", "index 5\nextra AA=="),
            good.replace("index 5", "index 5\nAA=="),
            good.replace(
                "index 5",
                &format!("index 5\n{}", [hash.as_str(); 64].join("\n")),
            ),
            good.replace('\n', "\r\n"),
        ] {
            assert!(TlogProof::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
