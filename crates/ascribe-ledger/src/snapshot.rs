//! The law's state and the leaves, signed by the log's key, so that a start need not replay
//! everything before it serves. It is bound to origin, size, root and this program's version; a
//! snapshot that does not fit is left alone, and everything is replayed.
//!
//! The replay goes on behind the server all the same ([`crate::archive`]) and stops it when a
//! snapshot says something else than the entries.

use ascribe_core::law::State;
use ascribe_tlog::{Hash, Note, SigningKey, Tree, VerifierKey};

use crate::error::LedgerError;
use crate::files::Files;

const NAME: &str = "snapshot";
const TITLE: &str = "ascribe snapshot v1";

/// What a snapshot says.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) tree: Tree,
    /// Of the state's bytes.
    pub(crate) digest: [u8; 32],
}

/// The snapshot that a start took, to be compared with the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Believed {
    pub(crate) size: u64,
    pub(crate) digest: [u8; 32],
}

fn text(origin: &str, size: u64, root: &Hash, content: &[u8; 32]) -> String {
    format!(
        "{TITLE}\n{origin}\n{size}\n{}\n{}\n{} {}\n",
        root.to_base64url(),
        Hash(*content).to_base64url(),
        env!("CARGO_PKG_VERSION"),
        ascribe_core::law::LAW_VERSION,
    )
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

/// Note, state and leaves, each with its length before it.
pub(crate) fn encode(
    key: &SigningKey,
    origin: &str,
    leaves: &[Hash],
    root: &Hash,
    state: &[u8],
) -> Vec<u8> {
    let mut content = Vec::with_capacity(state.len() + 32 * leaves.len() + 16);
    content.extend_from_slice(&(state.len() as u64).to_le_bytes());
    content.extend_from_slice(state);
    for leaf in leaves {
        content.extend_from_slice(&leaf.0);
    }
    let text = text(origin, leaves.len() as u64, root, &digest(&content));
    let note = key.verifier().note(&text, &key.sign_raw(text.as_bytes()));
    let mut out = (note.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(note.as_bytes());
    out.append(&mut content);
    out
}

pub(crate) fn decode(key: &VerifierKey, origin: &str, bytes: &[u8]) -> Option<Snapshot> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (note, content) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let note = Note::open(note, std::slice::from_ref(key)).ok()?;
    let (len, rest) = content.split_first_chunk::<8>()?;
    let (state, leaves) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let (leaves, []) = leaves.as_chunks::<32>() else {
        return None;
    };
    let mut tree = Tree::new();
    for leaf in leaves {
        tree.push(Hash(*leaf));
    }
    let said = text(origin, tree.size(), &tree.root(), &digest(content));
    if note.text() != said {
        return None;
    }
    let digest = digest(state);
    let state = State::from_snapshot(state)?;
    (state.origin == origin && state.size == tree.size()).then_some(Snapshot {
        state,
        tree,
        digest,
    })
}

/// The newest snapshot, if there is one that can be used.
pub(crate) fn load(files: &Files, key: &VerifierKey, origin: &str) -> Option<Snapshot> {
    let bytes = files.objects.get(NAME).ok()??;
    decode(key, origin, &bytes)
}

pub(crate) fn store(files: &Files, bytes: Vec<u8>) -> Result<(), LedgerError> {
    files
        .objects
        .put(&[(NAME.to_owned(), bytes)])
        .map_err(|source| LedgerError::Io {
            what: "write",
            path: files.objects.name(NAME),
            source,
        })
}
