//! The local pre-check alone opens nothing.
use ascribe_core::gate::{Authorized, GateError, Recorded};
use ascribe_core::gate::Log;

fn without(authorized: Authorized, log: &Log) -> Result<Recorded, GateError> {
    authorized.recorded(log)
}

fn converted(authorized: Authorized) -> Recorded {
    authorized.into()
}

fn main() {}
