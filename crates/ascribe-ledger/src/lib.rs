//! Durability and order: segments, the sequencer, evidence encryption, recovery.
//!
//! An entry is acknowledged when it lies in a preallocated segment after one sync, together with
//! its encrypted openings and a signed tree head. After a failed write or sync the ledger refuses
//! everything: the process must stop and recover through the normal start.
//!
//! In scope: one data directory with one writer, its reading and its export as C2SP tlog-tiles.
//! Out of scope: what is lawful (`ascribe-core`), networks, the offline verifier's verdicts.
//!
//! Start from [`Ledger`] and [`Reader`].

mod archive;
mod backup;
mod clock;
mod commit;
mod committer;
mod config;
mod durable;
mod error;
mod export;
mod files;
mod gather;
mod head;
mod init;
mod keys;
mod ledger;
mod load;
mod objects;
mod reader;
mod recovery;
mod reply;
mod sequencer;
mod snapshot;
mod space;
mod store;
#[cfg(test)]
mod tests;

pub use backup::backup;
pub use clock::{CLOCK_LIMIT_MS, Clock, Rng, SystemClock, SystemRng};
pub use config::{Config, DEFAULT_SEGMENT, MAX_SEGMENT, MIN_SEGMENT};
pub use error::LedgerError;
pub use export::{Source, export_tlog, export_tlog_at};
pub use init::{InitOptions, Made};
pub use keys::{Opener, Secret};
pub use ledger::Ledger;
pub use objects::{LocalObjects, Object, Objects};
pub use reader::Reader;
pub use recovery::{Drivers, Stores};
pub use store::{HeadCopy, Journal, LocalHead, LocalJournal};
