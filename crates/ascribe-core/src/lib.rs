//! The domain of privileged session attribution and its law.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no task. Times and ids come in as
//! arguments. The server runs [`law::State`] live; the offline verifier folds the same entries
//! with the same code.
//!
//! In scope: entries, signed statements, the law, the gate, commitments, on-disk codecs.
//! Out of scope: durability (`ascribe-ledger`), checking signatures (`ascribe-evidence`), networks.
//!
//! Start from [`entry::Entry`], [`law::State`] and [`gate::Recorded`].

pub mod attribution;
mod binary;
pub mod bundle;
pub mod database;
pub mod delegation;
pub mod directory;
pub mod encoding;
pub mod entry;
pub mod gate;
pub mod id;
pub mod identity;
pub mod law;
pub mod pack;
pub mod record;
pub mod sealed;
pub mod segment;
pub mod statement;
pub mod text;
pub mod time;
pub mod witness;
