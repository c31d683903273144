//! Prepared statements and portals by name: as the server has them, and as they will be when it has
//! done what it was sent. See [`super`] for why what is found is never another one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::client::{Text, Values};
use super::super::fields::Format;
use super::{Number, Runs};

/// Longest name that a server tells from others (`NAMEDATALEN` less one), in bytes.
const MAX_NAME: usize = 63;
/// What a name costs beside its contents, in bytes.
const EACH: usize = 256;

/// How much a client may have prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many statements.
    pub statements: usize,
    /// How many bytes they have in all.
    pub statement_bytes: usize,
    /// How many portals.
    pub portals: usize,
    /// How many bytes their values have in all.
    pub portal_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statements: 20_000,
            statement_bytes: 64 << 20,
            portals: 1_000,
            portal_bytes: 16 << 20,
        }
    }
}

/// A prepared statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The number of its Parse.
    pub number: Number,
    /// Its name; empty for the unnamed one.
    pub name: Bytes,
    /// Its text.
    pub text: Text,
    /// Type OIDs of its parameters as far as the client gave them.
    pub types: Vec<u32>,
    words: Words,
}

impl Statement {
    /// A copy: what arrived in the same buffer is not kept by it.
    pub(super) fn new(number: Number, name: &[u8], text: Text, types: Vec<u32>) -> Self {
        let words = Words::of(&text);
        let text = match text {
            Text::Here(text) => Text::Here(Bytes::copy_from_slice(&text)),
            spooled @ Text::Spooled(_) => spooled,
        };
        let name = Bytes::copy_from_slice(name);
        Self {
            number,
            name,
            text,
            types,
            words,
        }
    }
}

/// Which statement a portal is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This one.
    Known(Arc<Statement>),
    /// This one, unless SQL that ran since has put another in its place.
    Doubtful(Arc<Statement>),
    /// One of this name, which no Parse of this session gave. SQL may have, or messages so entangled
    /// that they were not followed.
    Unknown(Bytes),
}

/// A statement with its values, as it was bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portal {
    /// The number of its Bind.
    pub number: Number,
    /// Its name; empty for the unnamed one.
    pub name: Bytes,
    /// What it is of.
    pub statement: Origin,
    /// Its values.
    pub values: Values,
    /// In which formats results are wanted.
    pub results: Vec<Format>,
}

impl Portal {
    /// The unnamed one shares the buffer that it arrived in, for it does not last. Others are copied.
    pub(super) fn new(
        number: Number,
        name: &[u8],
        statement: Origin,
        values: Values,
        results: Vec<Format>,
    ) -> Self {
        let values = match values {
            Values::Here { formats, values } if !name.is_empty() => {
                let copy = |value: Bytes| Bytes::copy_from_slice(&value);
                let values = values.into_iter().map(|value| value.map(copy)).collect();
                Values::Here { formats, values }
            }
            values => values,
        };
        let name = Bytes::copy_from_slice(name);
        Self {
            number,
            name,
            statement,
            values,
            results,
        }
    }
}

/// Can no other name be taken for this one?
pub(super) fn is_name(name: &[u8]) -> bool {
    name.len() <= MAX_NAME && name.is_ascii()
}

/// How much something takes, in bytes.
pub(super) trait Size {
    /// About so much.
    fn size(&self) -> usize;
}

impl Size for Statement {
    fn size(&self) -> usize {
        let text = match &self.text {
            Text::Here(text) => text.len(),
            Text::Spooled(_) => 0,
        };
        EACH + self.name.len() + text + 4 * self.types.len()
    }
}

impl Size for Portal {
    fn size(&self) -> usize {
        let values = match &self.values {
            Values::Here { values, .. } => values
                .iter()
                .map(|value| 32 + value.as_ref().map_or(0, Bytes::len))
                .sum(),
            Values::Spooled(_) => 0,
        };
        EACH + self.name.len() + values + self.results.len()
    }
}

/// What has a name.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// This.
    Here(Arc<T>),
    /// Nothing.
    Nowhere,
    /// It depends on what the server has not answered.
    Later,
}

/// What has a name on the server, and what the latest unanswered message makes of it.
#[derive(Debug)]
struct Slot<T> {
    server: Option<Arc<T>>,
    latest: Option<Latest<T>>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            server: None,
            latest: None,
        }
    }
}

impl<T> Slot<T> {
    fn is_empty(&self) -> bool {
        self.server.is_none() && self.latest.is_none()
    }
}

#[derive(Debug)]
struct Latest<T> {
    number: Number,
    group: u64,
    value: Option<Arc<T>>,
}

/// Statements or portals.
#[derive(Debug)]
pub(super) struct Map<T> {
    /// Of the empty name, which most have.
    unnamed: Slot<T>,
    named: HashMap<Bytes, Slot<T>>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl<T: Size> Map<T> {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            unnamed: Slot::default(),
            named: HashMap::new(),
            bytes: 0,
            most,
            most_bytes,
        }
    }

    fn slot(&self, name: &[u8]) -> Option<&Slot<T>> {
        match name.is_empty() {
            true => Some(&self.unnamed),
            false => self.named.get(name),
        }
    }

    fn slot_mut(&mut self, name: &[u8]) -> Option<&mut Slot<T>> {
        match name.is_empty() {
            true => Some(&mut self.unnamed),
            false => self.named.get_mut(name),
        }
    }

    /// What has this name for a message in this group.
    pub(super) fn find(&self, name: &[u8], group: u64) -> Found<T> {
        let Some(slot) = self.slot(name) else {
            return Found::Nowhere;
        };
        let value = match &slot.latest {
            Some(latest) if latest.group != group => return Found::Later,
            Some(latest) => &latest.value,
            None => &slot.server,
        };
        value.clone().map_or(Found::Nowhere, Found::Here)
    }

    /// What the latest unanswered message makes of this name.
    pub(super) fn latest(&self, name: &[u8]) -> Option<Arc<T>> {
        self.slot(name)?.latest.as_ref()?.value.clone()
    }

    /// Is there room for one more?
    pub(super) fn fits(&self, name: &[u8], value: &T) -> bool {
        let bytes = self.bytes.saturating_add(value.size());
        let room = self.len() < self.most || self.slot(name).is_some_and(|slot| !slot.is_empty());
        room && bytes <= self.most_bytes
    }

    fn len(&self) -> usize {
        self.named.len() + usize::from(!self.unnamed.is_empty())
    }

    /// A message makes this of the name, or drops it, once the server has answered.
    pub(super) fn put(&mut self, name: Bytes, number: Number, group: u64, value: Option<Arc<T>>) {
        self.bytes += size(&value);
        let slot = match name.is_empty() {
            true => &mut self.unnamed,
            false => self.named.entry(name).or_default(),
        };
        let latest = Latest {
            number,
            group,
            value,
        };
        // What is replaced was never answered. When it is, it is not known any more.
        if let Some(before) = slot.latest.replace(latest) {
            self.bytes -= size(&before.value);
        }
    }

    /// The server did what this message says.
    pub(super) fn confirm(&mut self, name: &[u8], number: Number) {
        let Some(slot) = self.slot_mut(name) else {
            return;
        };
        let done = slot.latest.take_if(|latest| latest.number == number);
        let now = done.and_then(|latest| latest.value);
        let before = std::mem::replace(&mut slot.server, now);
        self.bytes -= size(&before);
        self.tidy(name);
    }

    /// The server did not do it.
    pub(super) fn fail(&mut self, name: &[u8], number: Number) {
        let Some(slot) = self.slot_mut(name) else {
            return;
        };
        if let Some(failed) = slot.latest.take_if(|latest| latest.number == number) {
            self.bytes -= size(&failed.value);
        }
        self.tidy(name);
    }

    /// The server has none any more, but what is on its way.
    pub(super) fn clear(&mut self) {
        let bytes = &mut self.bytes;
        *bytes -= size(&self.unnamed.server.take());
        self.named.retain(|_, slot| {
            *bytes -= size(&slot.server.take());
            slot.latest.is_some()
        });
    }

    fn tidy(&mut self, name: &[u8]) {
        if !name.is_empty() && self.named.get(name).is_some_and(Slot::is_empty) {
            self.named.remove(name);
        }
    }

    /// Is what is counted what is there, and nothing on its way?
    fn adds_up(&self, quiet: bool) -> bool {
        let latest = |slot: &Slot<T>| slot.latest.as_ref().map_or(0, |one| size(&one.value));
        let slots = || self.named.values().chain([&self.unnamed]);
        let all: usize = slots().map(|slot| size(&slot.server) + latest(slot)).sum();
        let settled = slots().all(|slot| slot.latest.is_none());
        all == self.bytes && (settled || !quiet) && self.bytes <= self.most_bytes
    }
}

fn size<T: Size>(value: &Option<Arc<T>>) -> usize {
    value.as_ref().map_or(0, |value| value.size())
}

/// All names of a session.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) statements: Map<Statement>,
    pub(super) portals: Map<Portal>,
}

impl Names {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            statements: Map::new(limits.statements, limits.statement_bytes),
            portals: Map::new(limits.portals, limits.portal_bytes),
        }
    }

    /// How much all of them take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.statements.bytes + self.portals.bytes
    }

    pub(super) fn adds_up(&self, quiet: bool) -> bool {
        self.statements.adds_up(quiet) && self.portals.adds_up(quiet)
    }
}

/// Which words a text has with which SQL gives a name to something else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Words {
    prepare: bool,
    declare: bool,
}

impl Words {
    pub(super) fn of(text: &Text) -> Self {
        match text {
            Text::Here(text) => Self {
                prepare: has(text, b"prepare"),
                declare: has(text, b"declare"),
            },
            Text::Spooled(_) => Self {
                prepare: true,
                declare: true,
            },
        }
    }
}

/// Is the word, which is in small letters, in the text, in letters of any case?
fn has(text: &[u8], word: &[u8]) -> bool {
    let first = word.first();
    text.windows(word.len()).any(|part| {
        part.first().map(u8::to_ascii_lowercase).as_ref() == first
            && part.eq_ignore_ascii_case(word)
    })
}

/// When something was last run that has such a word.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    prepare: Number,
    declare: Number,
    /// What any statement had that was ever parsed.
    parsed: Words,
}

impl Mentions {
    pub(super) fn parse(&mut self, statement: &Statement) {
        self.parsed.prepare |= statement.words.prepare;
        self.parsed.declare |= statement.words.declare;
    }

    pub(super) fn run(&mut self, number: Number, runs: &Runs) {
        let words = match runs {
            Runs::Query(text) => Words::of(text),
            Runs::Portal { portal, .. } => match &portal.statement {
                Origin::Known(statement) => statement.words,
                Origin::Doubtful(_) | Origin::Unknown(_) => self.parsed,
            },
            // Neither PREPARE nor DECLARE gives a name to anything that could give names, so it
            // is a statement that was parsed, or it has none of these words.
            Runs::DoubtfulPortal { .. } | Runs::UnknownPortal { .. } => self.parsed,
            Runs::Function { .. } => Words::default(),
        };
        if words.prepare {
            self.prepare = number;
        }
        if words.declare {
            self.declare = number;
        }
    }

    /// SQL cannot name what has no name.
    pub(super) fn doubt_statement(&self, statement: &Statement) -> bool {
        !statement.name.is_empty() && statement.number < self.prepare
    }

    pub(super) fn doubt_portal(&self, portal: &Portal) -> bool {
        !portal.name.is_empty() && portal.number < self.declare
    }
}
