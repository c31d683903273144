//! An authorized action gives its action to nobody.
use ascribe_core::gate::{Action, Authorized};

fn send(authorized: Authorized) -> Action {
    authorized.into_action()
}

fn peek(authorized: Authorized) -> Action {
    authorized.action
}

fn main() {}
