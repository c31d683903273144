//! Only the pre-check makes an `Authorized`.
use ascribe_core::entry::Intent;
use ascribe_core::gate::{Action, Authorized};

fn forge(action: Action, intent: Intent) -> Authorized {
    Authorized { action, intent }
}

fn main() {}
