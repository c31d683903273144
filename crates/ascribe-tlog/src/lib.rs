//! Transparency-log formats of C2SP, pure: RFC 6962 SHA-256 tree, tlog-tiles, signed-note,
//! tlog-checkpoint, tlog-cosignature (Ed25519), tlog-witness (messages), tlog-proof, tlog-policy.
//!
//! In scope: hashing, proofs, notes, checkpoints, cosignatures, tile paths, entry bundles, proof
//! files, trust policies.
//! Out of scope: I/O, clocks, randomness, and what entries mean.
//!
//! Start from [`Tree`], [`Note`], [`Checkpoint`] and [`TrustPolicy`].

mod checkpoint;
mod cosign;
mod hash;
mod note;
mod policy;
mod proof;
mod tile;
mod tree;
mod witness;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosign::WitnessKey;
pub use hash::{Hash, empty_root, leaf_hash, node_hash};
pub use note::{Note, NoteError, SignatureLine, SigningKey, VerifierKey};
pub use policy::{Group, PolicyError, Quorum, TrustError, TrustPolicy, Witness};
pub use proof::{TlogProof, TlogProofError};
pub use tile::{
    MAX_ENTRY_SIZE, TileError, TileKind, TilePath, decode_entry_bundle, encode_entry_bundle,
    entries_path, parse_tile_path, tile_path, tiles_of,
};
pub use tree::{Frontier, ProofError, Tree, verify_consistency, verify_inclusion};
pub use witness::{
    AddCheckpoint, MAX_ADD_CHECKPOINT, MAX_COSIGNATURES, WitnessError, cosignature_lines,
    recorded_size,
};
