//! Texts that differ in plain numbers alone, which clients without parameters send: the grammar takes all
//! whole numbers of up to nine digits alike, and nothing that is said about a statement depends on them
//! where they are operands, items of a list, or compared.
//!
//! Only what is certain has a shape: one statement that begins with `SELECT`, `INSERT`, `UPDATE` or `DELETE`,
//! in plain ASCII, without anything that could hide where its words begin and end (quotes, dollars,
//! backslashes, comments). Other texts have none and are known by all of their bytes.

use std::ops::Range;
use std::sync::Arc;

use crate::statement::Statement;

/// Longest text that has a shape, in bytes.
const MAX: usize = 4096;
/// Most digits of a number that counts as any other: all of these fit the grammar's 32 bits.
const DIGITS: usize = 9;
const BEGIN: [&[u8]; 4] = [b"select", b"insert", b"update", b"delete"];

/// A text with one digit for each of its plain numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) text: Vec<u8>,
    numbers: Vec<Number>,
}

#[derive(Debug, PartialEq, Eq)]
struct Number {
    /// Where its digit is in the shape.
    at: usize,
    /// Digits left out.
    left_out: usize,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// May these words and signs hide nothing?
fn is_plain(text: &[u8]) -> bool {
    let hides = |pair: &[u8]| matches!(pair, b"--" | b"/*");
    let plain = |byte: u8| {
        (byte.is_ascii_graphic() || is_space(byte)) && !matches!(byte, b'\'' | b'"' | b'$' | b'\\')
    };
    text.iter().copied().all(plain) && !text.windows(2).any(hides)
}

/// The word that ends here.
fn last_word(before: &[u8]) -> &[u8] {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let start = before.iter().rposition(|byte| !letter(byte));
    before
        .get(start.map_or(0, |at| at + 1)..)
        .unwrap_or_default()
}

/// Does what stands here, up to a number, make it an operand or an item of a list?
fn takes_any(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    match before.split_last() {
        Some((b'=' | b'<' | b'>' | b'+' | b'-' | b'*' | b'/' | b',', _)) => true,
        Some((b'(', before)) => {
            let before = before.trim_ascii_end();
            let word = last_word(before);
            before.ends_with(b",")
                || word.eq_ignore_ascii_case(b"values")
                || word.eq_ignore_ascii_case(b"in")
        }
        _ => false,
    }
}

/// May a number end before this?
fn ends(next: Option<&u8>) -> bool {
    next.is_none_or(|byte| {
        is_space(*byte)
            || matches!(
                byte,
                b',' | b')' | b';' | b'=' | b'<' | b'>' | b'+' | b'-' | b'*' | b'/'
            )
    })
}

impl Shape {
    /// The shape of a text that has one.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let begins = |word: &&[u8]| {
            let first = text.get(..word.len());
            first.is_some_and(|first| first.eq_ignore_ascii_case(word))
        };
        let rest = BEGIN
            .iter()
            .find(|word| begins(word))
            .map(|word| word.len());
        let one = text.trim_ascii_end().strip_suffix(b";").unwrap_or(text);
        let mut rest = text.get(rest?..)?;
        let goes_on = rest.first().copied().is_some_and(is_space);
        if text.len() > MAX || !goes_on || !is_plain(text) || one.contains(&b';') {
            return None;
        }
        let mut shape = Self {
            text: text.get(..text.len() - rest.len())?.to_vec(),
            numbers: Vec::new(),
        };
        while let Some((&byte, behind)) = rest.split_first() {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let last = shape.text.last().copied().unwrap_or(b' ');
            let within = last.is_ascii_alphanumeric() || matches!(last, b'_' | b'.');
            let number = (1..=DIGITS).contains(&digits) && !within;
            if number && ends(rest.get(digits)) && takes_any(&shape.text) {
                shape.numbers.push(Number {
                    at: shape.text.len(),
                    left_out: digits - 1,
                });
                shape.text.push(b'0');
                rest = rest.get(digits..)?;
            } else if digits > 0 {
                shape.text.extend_from_slice(rest.get(..digits)?);
                rest = rest.get(digits..)?;
            } else {
                shape.text.push(byte);
                rest = behind;
            }
        }
        // Without any, the text is its own.
        (!shape.numbers.is_empty()).then_some(shape)
    }

    /// What is said of the text, as it is said of its shape.
    pub(crate) fn abstracted(&self, statements: &[Statement]) -> Option<Arc<[Statement]>> {
        let place = |offset: usize| {
            let mut left_out = 0;
            for number in &self.numbers {
                let start = number.at + left_out;
                if offset <= start {
                    break;
                }
                // Nothing begins or ends within a number.
                if offset <= start + number.left_out {
                    return None;
                }
                left_out += number.left_out;
            }
            Some(offset - left_out)
        };
        moved(statements, place)
    }

    /// What is said of its shape, as it is said of the text.
    pub(crate) fn restored(&self, statements: &[Statement]) -> Option<Arc<[Statement]>> {
        let place = |offset: usize| {
            let before = self.numbers.iter().take_while(|n| n.at < offset);
            Some(offset + before.map(|n| n.left_out).sum::<usize>())
        };
        moved(statements, place)
    }
}

fn moved(
    statements: &[Statement],
    place: impl Fn(usize) -> Option<usize>,
) -> Option<Arc<[Statement]>> {
    let one = |statement: &Statement| {
        let Range { start, end } = statement.range;
        Some(Statement {
            range: place(start)?..place(end)?,
            ..statement.clone()
        })
    };
    statements.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, Reading, read};

    const READING: Reading = Reading {
        encoding: Encoding::Utf8,
        standard_conforming_strings: true,
        replication: false,
    };

    fn shape(text: &str) -> Option<String> {
        Shape::of(text.as_bytes()).map(|shape| String::from_utf8(shape.text).unwrap())
    }

    #[test]
    fn plain_numbers_are_left_out_and_nothing_else_is() {
        for (text, expected) in [
            (
                "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
                "SELECT abalance FROM pgbench_accounts WHERE aid = 0;",
            ),
            (
                "update t1 set a = a + -12 where b=345",
                "update t1 set a = a + -0 where b=0",
            ),
            (
                "insert into h (a, b) values (10, 20), (30, x(40))",
                "insert into h (a, b) values (0, 0), (0, x(40))",
            ),
            (
                "delete from t where a in (12,\n13)",
                "delete from t where a in (0,\n0)",
            ),
            // Numbers in names, of other kinds, where the grammar looks at them, or too long.
            (
                "select a1 + 1.5, 2e3, 0x1f, 1_000, b.12 from t2",
                "select a1 + 1.5, 2e3, 0x1f, 1_000, b.12 from t2",
            ),
            (
                "select x::float(30) limit 12",
                "select x::float(30) limit 12",
            ),
            ("select 12, a = 1234567890", "select 12, a = 1234567890"),
        ] {
            let expected = (text != expected).then_some(expected);
            assert_eq!(shape(text).as_deref(), expected, "{text}");
        }
        for none in [
            "select 'it' = 1",
            "select \"a\" = 1",
            "select $1 = 1",
            "select $$a$$ = 1",
            "select a = 1 -- 2",
            "select a = 1 /* 2 */",
            "select a = 1; drop table t",
            "select a = 1;;",
            "select \u{e9} = 1",
            "select a = 1\0",
            "select\u{b}a = 1",
            "selecta = 1",
            "set a = 1",
            "explain (analyze 0) select 1",
            "",
        ] {
            assert_eq!(shape(none), None, "{none}");
        }
        assert_eq!(shape(&format!("select a = 1{}", " ".repeat(MAX))), None);
    }

    /// Pieces of statements; `#` stands for a number.
    const PIECES: [&str; 40] = [
        "select",
        "SELECT",
        "insert into",
        "update",
        "delete from",
        "t",
        "t1",
        "a",
        "b.c",
        "f(",
        "(",
        ")",
        ",",
        ",#",
        "=",
        "= #",
        "<> #",
        ">=#",
        "-#",
        "+ #",
        "* #",
        "/#",
        "#",
        "where",
        "from",
        "set",
        "values (#, #)",
        "in (#,#)",
        "limit #",
        "float(#)",
        "::float(#)",
        "::numeric(#, #)",
        "group by #",
        "order by #, #",
        "returning",
        ";",
        "set_config(#, #)",
        "pg_read_file(#)",
        "with x as (select #)",
        "interval(#)",
    ];

    const OPERANDS: [&str; 6] = [
        "= #",
        "in (#, #)",
        "< -#",
        "+ # = #",
        "> x.f(#, #)",
        "= #::float(#)",
    ];
    const NUMBERS: [&str; 10] = [
        "0",
        "1",
        "7",
        "42",
        "007",
        "99",
        "123456789",
        "2147483648",
        "4294967296",
        "1.5",
    ];

    /// The same in every run (Marsaglia's xorshift).
    struct Draws(u64);

    impl Draws {
        fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            of[usize::try_from(self.0 % of.len() as u64).unwrap()]
        }
    }

    /// Whatever is said of one text is what is said of every other text of its shape.
    #[test]
    fn texts_of_one_shape_are_said_to_be_the_same() {
        let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
        let (mut compared, mut parsed) = (0, 0);
        for case in 0..20_000 {
            // Some are of the grammar, others mostly not.
            let mut template = draws.one_of(&PIECES[..5]).to_owned();
            if case % 4 == 0 {
                let (one, other) = (draws.one_of(&OPERANDS), draws.one_of(&OPERANDS));
                template = format!("select a {one}, b {other} from t where c {one} and d {other}");
            } else {
                for _ in 0..case % 8 {
                    template = format!("{template} {}", draws.one_of(&PIECES));
                }
            }
            let mut filled = || {
                let parts = template.split('#').map(str::to_owned);
                let filled = parts.reduce(|text, part| text + draws.one_of(&NUMBERS) + &part);
                filled.unwrap()
            };
            let (one, other) = (filled(), filled());
            let shapes = (Shape::of(one.as_bytes()), Shape::of(other.as_bytes()));
            let (Some(of_one), Some(of_other)) = shapes else {
                continue;
            };
            if of_one.text != of_other.text {
                continue;
            }
            compared += 1;
            let known = read(one.as_bytes(), READING);
            let real = read(other.as_bytes(), READING);
            assert_eq!(known.is_ok(), real.is_ok(), "{one} {other}");
            if let (Ok(known), Ok(real)) = (known, real) {
                parsed += usize::from(one != other);
                let known = of_one.abstracted(&known).unwrap();
                let restored = of_other.restored(&known).unwrap();
                assert_eq!(&restored[..], &real[..], "{one} {other}");
            }
        }
        assert!(compared > 1000 && parsed > 100, "{compared} {parsed}");
    }
}
