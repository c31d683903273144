//! A recorded terminal as an asciicast v3 file, for players. It is a rendering: the recorded bytes
//! stay the evidence. Changes of the terminal's size are not recorded, so there are none here.

use std::fmt::Write as _;

use ascribe_core::entry::Pty;
use ascribe_core::id::ActionId;
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An action that had a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Terminal {
    pub(crate) action: ActionId,
    /// Who, and where.
    pub(crate) title: String,
    /// Nothing for a shell.
    pub(crate) command: Option<String>,
    pub(crate) pty: Pty,
    pub(crate) at: Timestamp,
    /// Milliseconds after the session's first action, from which chunks count.
    pub(crate) begins_ms: u64,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) exit_code: Option<u32>,
}

/// A piece of recorded output; without bytes where it is withheld, erased or missing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) action: ActionId,
    pub(crate) stream: String,
    pub(crate) after_ms: u64,
    /// base64url.
    pub(crate) bytes: Option<String>,
}

#[derive(Serialize)]
struct Header<'a> {
    version: u8,
    term: Term<'a>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    title: &'a str,
}

#[derive(Serialize)]
struct Term<'a> {
    cols: u32,
    rows: u32,
    #[serde(rename = "type")]
    kind: &'a str,
}

/// Events with the time since the one before.
#[derive(Default)]
struct Events {
    lines: String,
    last_ms: u64,
}

impl Events {
    fn push(&mut self, at_ms: u64, code: char, data: &str) -> Result<(), serde_json::Error> {
        let pause = at_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(at_ms);
        let data = crate::cmd::spelled_out(&serde_json::to_string(data)?);
        let (s, ms) = (pause / 1000, pause % 1000);
        writeln!(self.lines, "[{s}.{ms:03}, \"{code}\", {data}]").unwrap_or_default();
        Ok(())
    }
}

/// Text out of bytes in pieces. A character that two pieces share is held back until it is whole;
/// what is not UTF-8 becomes U+FFFD, as the format has text alone.
#[derive(Default)]
struct Joined(Vec<u8>);

impl Joined {
    fn take(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = Vec::new();
        let mut chunks = self.0.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let last = chunks.peek().is_none();
            match std::str::from_utf8(chunk.invalid()) {
                Ok(_) => {}
                Err(error) if last && error.error_len().is_none() => {
                    rest = chunk.invalid().to_vec()
                }
                Err(_) => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.0 = rest;
        text
    }

    /// What never became whole.
    fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.0).is_empty() {
            ""
        } else {
            "\u{fffd}"
        }
    }
}

/// The file.
pub(crate) fn asciicast(
    terminal: &Terminal,
    pieces: &[Piece],
) -> Result<String, serde_json::Error> {
    let or = |size: u32, usual: u32| if size == 0 { usual } else { size };
    let term = clean(&terminal.pty.term, 64);
    let header = Header {
        version: 3,
        term: Term {
            cols: or(terminal.pty.cols, 80),
            rows: or(terminal.pty.rows, 24),
            kind: &term,
        },
        timestamp: terminal.at.millis() / 1000,
        command: terminal.command.as_deref().map(|text| clean(text, 2000)),
        title: &clean(&terminal.title, 200),
    };
    let mut events = Events::default();
    let mut joined = Joined::default();
    let own = |p: &&Piece| p.action == terminal.action && p.stream == "terminal";
    for piece in pieces.iter().filter(own) {
        let at = piece.after_ms.saturating_sub(terminal.begins_ms);
        let bytes = piece
            .bytes
            .as_deref()
            .and_then(ascribe_core::encoding::from_base64url);
        let Some(bytes) = bytes else {
            let cut = joined.end();
            if !cut.is_empty() {
                events.push(at, 'o', cut)?;
            }
            events.push(at, 'm', "output is withheld, erased or missing here")?;
            continue;
        };
        let text = joined.take(&bytes);
        if !text.is_empty() {
            events.push(at, 'o', &text)?;
        }
    }
    let cut = joined.end();
    if !cut.is_empty() {
        events.push(events.last_ms, 'o', cut)?;
    }
    if let Some(code) = terminal.exit_code {
        let ended = terminal.ended.map_or(0, |ended| ended.since(terminal.at));
        let ended = u64::try_from(ended).unwrap_or(0);
        events.push(ended, 'x', &code.to_string())?;
    }
    let header = crate::cmd::spelled_out(&serde_json::to_string(&header)?);
    Ok(format!("{header}\n{}", events.lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(action: u8) -> Terminal {
        Terminal {
            action: ActionId::new([action; 16]),
            title: "root@db1 by Olu \"O\" Operator".to_owned(),
            command: Some("printf '\u{1b}[2J\"'\n\\".to_owned()),
            pty: Pty {
                cols: 120,
                rows: 0,
                term: "xterm-256color".to_owned(),
            },
            at: Timestamp::from_millis(1_764_000_000_900),
            begins_ms: 5000,
            ended: Some(Timestamp::from_millis(1_764_000_004_000)),
            exit_code: Some(3),
        }
    }

    fn piece(action: u8, stream: &str, after_ms: u64, bytes: Option<&[u8]>) -> Piece {
        Piece {
            action: ActionId::new([action; 16]),
            stream: stream.to_owned(),
            after_ms,
            bytes: bytes.map(ascribe_core::encoding::base64url),
        }
    }

    #[test]
    fn a_terminal_is_written_as_the_format_has_it() {
        let pieces = [
            piece(1, "terminal", 5248, Some(b"\x1b[1;31mred\x1b[0m \"q\"\r\n")),
            // The euro sign comes in three pieces; alone it makes no event.
            piece(1, "terminal", 6000, Some(b"5 \xe2")),
            piece(1, "terminal", 6100, Some(b"\x82")),
            piece(2, "terminal", 6150, Some(b"another action")),
            piece(1, "stderr", 6160, Some(b"no terminal")),
            piece(1, "terminal", 6200, Some(b"\xac\n")),
            // Not UTF-8, a lone surrogate, a C1 control, and one that is cut off for good.
            piece(
                1,
                "terminal",
                6200,
                Some(b"\xff|\xed\xa0\x80|\xc2\x9b2J|\xf0\x9f"),
            ),
            piece(1, "terminal", 7500, None),
            piece(1, "terminal", 7600, Some(b"end \xe2\x82")),
        ];
        let written = asciicast(&terminal(1), &pieces).unwrap();
        assert_eq!(written, include_str!("../testdata/terminal.cast"));
        // Every line is JSON of its own, and the text is what the bytes say.
        let lines: Vec<serde_json::Value> = written
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["version"], 3);
        let text: String = lines[1..]
            .iter()
            .filter(|event| event[1] == "o")
            .map(|event| event[2].as_str().unwrap())
            .collect();
        assert!(text.contains("5 \u{20ac}\n"), "{text:?}");
    }

    #[test]
    fn no_cut_changes_the_text() {
        let whole = "a\u{e9}\u{20ac}\u{1f512}z".repeat(3);
        let bytes = whole.as_bytes();
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut joined = Joined::default();
                let mut text = joined.take(&bytes[..first]);
                text += &joined.take(&bytes[first..second]);
                text += &joined.take(&bytes[second..]);
                text += joined.end();
                assert_eq!(text, whole, "{first} {second}");
            }
        }
    }
}
