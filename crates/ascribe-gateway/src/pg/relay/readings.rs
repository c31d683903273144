//! How the target reads the texts of a session: that changes, and what was prepared stays as it was read.

use std::collections::VecDeque;

use ascribe_sql::{Encoding, Reading};
use ascribe_wire::pg::session::Number;

/// So many changes of how prepared texts are read are remembered; what was prepared before is not
/// understood any more.
const MAX_READINGS: usize = 256;

/// Nothing is known of how texts are read.
pub(super) const UNCLEAR: Reading = Reading {
    encoding: Encoding::Other,
    standard_conforming_strings: false,
    replication: false,
};

/// How the target reads texts, as far as this setting tells.
pub(super) fn read_as(reading: &mut Reading, name: &[u8], value: &[u8]) {
    if name == b"client_encoding" {
        reading.encoding = Encoding::of_client(value);
    } else if name == b"standard_conforming_strings" {
        reading.standard_conforming_strings = value == b"on";
    }
}

/// How prepared texts were read: the server reads one when it is prepared, not when it runs.
#[derive(Debug, Default)]
pub(super) struct Readings(VecDeque<(Number, Reading)>);

impl Readings {
    /// What is prepared by this message, and those after it, is read so.
    pub(super) fn prepared(&mut self, number: Number, reading: Reading) {
        if self.0.back().is_some_and(|(_, known)| *known == reading) {
            return;
        }
        if self.0.len() == MAX_READINGS {
            self.0.pop_front();
        }
        self.0.push_back((number, reading));
    }

    /// How what was prepared by this message was read.
    pub(super) fn of(&self, number: Number) -> Reading {
        let at = self.0.partition_point(|(since, _)| *since <= number);
        let known = at.checked_sub(1).and_then(|at| self.0.get(at));
        known.map_or(UNCLEAR, |(_, reading)| *reading)
    }
}
