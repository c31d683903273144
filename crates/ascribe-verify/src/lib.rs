//! Offline verifier of ascribe bundles and ledgers: no network, no runtime, no clock.
//!
//! In scope: tree, checkpoints, writer chains, links, signatures of people, openings, and then the
//! law replayed in order. Out of scope: deciding whom to trust; the caller brings a
//! [`TrustPolicy`].
//!
//! Start from [`verify_bundle`] and [`verify_entries`].

mod bundle;
mod ledger;
mod links;
mod logins;
mod parallel;
mod refusals;
mod report;
mod sessions;
mod vouchers;
mod witnesses;

pub use ascribe_tlog::TrustPolicy;
pub use bundle::verify_bundle;
pub use ledger::{Asked, read_tree, verify_asked, verify_entries};
pub use links::{Link, LinkKind, Signer, Trusted};
pub use logins::{LoginProof, Observed, Word};
pub use report::{Judged, Note, Problem, Report, Verdict, render};
pub use sessions::Sessions;
pub use vouchers::{Source, Voucher};
pub use witnesses::Witnessed;
