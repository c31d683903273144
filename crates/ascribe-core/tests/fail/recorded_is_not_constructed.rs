//! Only a proven receipt makes a `Recorded`.
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::EntryHash;
use ascribe_core::time::Timestamp;

fn forge(action: Action, entry: EntryHash, at: Timestamp) -> Recorded {
    Recorded {
        action,
        entry,
        index: 0,
        at,
        until: at,
    }
}

fn main() {}
