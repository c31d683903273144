//! Only the pre-check makes an `Authorized`.
use ascribe_core::gate::{Action, Authorized};
use ascribe_core::record::Proposal;

fn forge(action: Action, proposal: Proposal) -> Authorized {
    Authorized { action, proposal }
}

fn main() {}
