//! Only the pre-check makes an `Authorized`.
use ascribe_core::gate::{Action, Authorized};

fn forge(action: Action, body: Vec<u8>) -> Authorized {
    Authorized { action, body }
}

fn main() {}
