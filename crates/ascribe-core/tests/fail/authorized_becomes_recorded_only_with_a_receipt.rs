//! The local pre-check alone opens nothing.
use ascribe_core::gate::{Authorized, GateError, Recorded};
use ascribe_tlog::VerifierKey;

fn without(authorized: Authorized, log: &VerifierKey) -> Result<Recorded, GateError> {
    authorized.recorded(log)
}

fn converted(authorized: Authorized) -> Recorded {
    authorized.into()
}

fn main() {}
