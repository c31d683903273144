//! Transparency-log formats of C2SP, pure: RFC 6962 SHA-256 tree, tlog-tiles, signed-note,
//! tlog-checkpoint, tlog-policy.
//!
//! In scope: hashing, proofs, notes, checkpoints, tile paths, entry bundles, trust policies.
//! Out of scope: I/O, clocks, randomness, and what entries mean.
//!
//! Start from [`Tree`], [`Note`] and [`Checkpoint`].

mod checkpoint;
mod hash;
mod note;
mod policy;
mod tile;
mod tree;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use hash::{Hash, empty_root, leaf_hash, node_hash};
pub use note::{Note, NoteError, SigningKey, VerifierKey};
pub use policy::{PolicyError, TrustPolicy};
pub use tile::{
    MAX_ENTRY_SIZE, TileError, decode_entry_bundle, encode_entry_bundle, entries_path, tile_path,
};
pub use tree::{Frontier, ProofError, Tree, verify_consistency, verify_inclusion};
