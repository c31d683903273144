//! One receipt sends one action.
use ascribe_core::gate::Recorded;

fn twice(recorded: &Recorded) -> Recorded {
    recorded.clone()
}

fn main() {}
