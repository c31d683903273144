//! Answers by the digest of their texts, bounded by what they take of memory.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::pool::Answer;
use crate::statement::{Encoding, Reading, Statement};

/// What an answer depends on: the text and how it is read.
pub(crate) type Key = [u8; 32];

/// The key of a text, or of what is the same for several.
pub(crate) fn key(is_shape: bool, text: &[u8], reading: Reading) -> Key {
    let encoding = match reading.encoding {
        Encoding::Utf8 => 0,
        Encoding::AsciiSafe => 1,
        Encoding::Other => 2,
    };
    let strings = u8::from(reading.standard_conforming_strings);
    let mut hash = Sha256::new();
    let replication = u8::from(reading.replication);
    hash.update([u8::from(is_shape), encoding, strings, replication]);
    hash.update(text);
    hash.finalize().into()
}

/// The least recently used are forgotten first.
#[derive(Debug)]
pub(crate) struct Cache {
    answers: HashMap<Key, (Answer, u64)>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    most: usize,
}

impl Cache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            answers: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            most,
        }
    }

    pub(crate) fn get(&mut self, key: &Key) -> Option<Answer> {
        let (answer, used) = self.answers.get_mut(key)?;
        self.order.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.order.insert(self.uses, *key);
        Some(answer.clone())
    }

    pub(crate) fn put(&mut self, key: Key, answer: Answer) {
        let size = size(&answer);
        if size > self.most / 4 || self.answers.contains_key(&key) {
            return;
        }
        while self.bytes + size > self.most && self.forget() {}
        self.uses += 1;
        self.bytes += size;
        self.order.insert(self.uses, key);
        self.answers.insert(key, (answer, self.uses));
    }

    /// Forgets the one that was not used for longest. Whether there was one.
    fn forget(&mut self) -> bool {
        let oldest = self.order.pop_first();
        if let Some((answer, _)) = oldest.and_then(|(_, key)| self.answers.remove(&key)) {
            self.bytes -= size(&answer);
            return true;
        }
        false
    }
}

/// About what an answer takes, with its place in the two maps.
fn size(answer: &Answer) -> usize {
    let content = match answer {
        Ok(statements) => statements.iter().map(size_of_one).sum(),
        Err(error) => error.to_string().len(),
    };
    256 + content
}

fn size_of_one(statement: &Statement) -> usize {
    let names = |object: &crate::Object| {
        size_of_val(object) + object.name.len() + object.schema.as_ref().map_or(0, String::len)
    };
    let objects: usize = statement.objects.iter().map(names).sum();
    size_of_val(statement) + statement.classes.len() + statement.flags.len() + objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unparsed;

    fn answer(text: &str) -> Answer {
        Err(Unparsed::Syntax(text.to_owned()))
    }

    #[test]
    fn the_least_recently_used_is_forgotten_and_the_bound_holds() {
        let mut cache = Cache::new(1300);
        for name in 0..3 {
            cache.put([name; 32], answer("0123456789"));
        }
        assert!(cache.get(&[0; 32]).is_some());
        cache.put([3; 32], answer(""));
        cache.put([4; 32], answer(""));
        assert!(cache.bytes <= 1300);
        assert_eq!(cache.get(&[1; 32]), None);
        assert_eq!(cache.get(&[0; 32]), Some(answer("0123456789")));
        for name in 0..200 {
            cache.put([name; 32], answer("0123456789"));
            assert!(cache.bytes <= 1300);
            assert_eq!(cache.order.len(), cache.answers.len());
        }
        cache.put([250; 32], answer(&"x".repeat(1000)));
        assert_eq!(cache.get(&[250; 32]), None);
    }

    #[test]
    fn what_is_read_differently_has_another_key() {
        let reading = Reading {
            encoding: Encoding::Utf8,
            standard_conforming_strings: true,
            replication: false,
        };
        let others = [
            Reading {
                encoding: Encoding::AsciiSafe,
                ..reading
            },
            Reading {
                encoding: Encoding::Other,
                ..reading
            },
            Reading {
                standard_conforming_strings: false,
                ..reading
            },
            Reading {
                replication: true,
                ..reading
            },
        ];
        for other in others {
            for is_shape in [false, true] {
                let one = |reading| key(is_shape, b"select 1", reading);
                assert_ne!(one(reading), one(other));
            }
        }
        let key = |is_shape, text| key(is_shape, text, reading);
        assert_ne!(key(false, b"select 1"), key(false, b"select 2"));
        assert_ne!(key(false, b"select 1"), key(true, b"select 1"));
    }
}
