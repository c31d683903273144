//! Taking the action out for sending uses the `Recorded` up.
use ascribe_core::gate::{Action, Recorded};

fn twice(recorded: Recorded) -> (Action, Action) {
    let first = recorded.into_action();
    (first, recorded.into_action())
}

fn main() {}
