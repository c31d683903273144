//! Seeing a session again, or while it goes on.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ascribe_core::id::SessionId;
use ascribe_core::text::clean;
use serde_json::Value;

use super::actions::line;
use super::{ask, write_private};
use crate::api::{News, Query};
use crate::cast::{Piece, Terminal, asciicast};
use crate::cli::{Cli, Replay};
use crate::client::Flow;
use crate::cmd::{remark, say, say_json};
use crate::exit::{Attempt as _, Done, Failure, Kind};

pub(crate) fn watch(cli: &Cli, session: SessionId) -> Done {
    let client = cli.client(true)?;
    client.follow(&Query::Watch { session }, |news: News| {
        if cli.json() {
            say_json(&news)?;
        } else {
            for record in &news.actions {
                remark(&line(record));
            }
            for chunk in &news.chunks {
                // What is typed shows in the output; input streams are files and pipes.
                if let (Some(bytes), true) = (&chunk.bytes, chunk.stream != "stdin") {
                    std::io::stdout()
                        .write_all(neutral(&bytes.0).as_bytes())
                        .attempt("print")?;
                }
            }
            std::io::stdout().flush().attempt("print")?;
        }
        let Some(reason) = news.ended else {
            return Ok(Flow::On);
        };
        if !cli.json() {
            let reason = serde_json::to_value(reason).attempt("print")?;
            remark(&format!(
                "the session has ended: {}",
                reason.as_str().unwrap_or("?")
            ));
        }
        Ok(Flow::Enough)
    })
}

pub(crate) fn replay(cli: &Cli, args: &Replay) -> Done {
    let answer = ask(
        cli,
        &Query::Replay {
            session: args.session,
            action: args.action,
        },
    )?;
    let chunks = answer
        .get("chunks")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if let Some(file) = &args.asciicast {
        return cast(cli, args, &answer, file);
    }
    if chunks.is_empty() {
        return Err(Failure::new(
            Kind::Failure,
            "the session has no recorded output",
        ));
    }
    let mut clock = 0u64;
    let idle = Duration::try_from_secs_f64(args.idle.max(0.0)).unwrap_or(Duration::from_secs(2));
    let seek = (args.seek.max(0.0) * 1000.0) as u64;
    for chunk in &chunks {
        if cli.json() {
            say_json(chunk)?;
            continue;
        }
        let after = chunk.get("after_ms").and_then(Value::as_u64).unwrap_or(0);
        if args.speed > 0.0 && after >= seek {
            let pause = Duration::from_millis(after.saturating_sub(clock.max(seek)));
            std::thread::sleep(pause.min(idle).div_f64(args.speed));
        }
        clock = after;
        let bytes = chunk
            .get("bytes")
            .and_then(Value::as_str)
            .and_then(ascribe_core::encoding::from_base64url);
        let Some(bytes) = bytes else {
            say("(a chunk is withheld, erased or missing)");
            continue;
        };
        std::io::stdout()
            .write_all(neutral(&bytes).as_bytes())
            .attempt("print")?;
    }
    std::io::stdout().flush().attempt("print")
}

/// Writes one terminal for players.
fn cast(cli: &Cli, args: &Replay, answer: &Value, file: &Path) -> Done {
    let part = |name: &str| {
        answer
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::Array(Vec::new()))
    };
    let pieces: Vec<Piece> = serde_json::from_value(part("chunks")).attempt("read the answer")?;
    let mut all: Vec<Terminal> =
        serde_json::from_value(part("terminals")).attempt("read the answer")?;
    all.retain(|terminal| args.action.is_none_or(|action| action == terminal.action));
    let terminal = match all.as_slice() {
        [one] => one,
        [] => {
            return Err(Failure::usage("no terminal was recorded there")
                .help("leave out `--asciicast`: `ascribe replay` prints the output of commands"));
        }
        several => {
            let ids: Vec<String> = several.iter().map(|t| t.action.to_string()).collect();
            return Err(Failure::usage(format!(
                "the session has {} terminals: {}",
                ids.len(),
                ids.join(", ")
            ))
            .help("choose one with `--action`"));
        }
    };
    let text = asciicast(terminal, &pieces).attempt("write the recording")?;
    write_private(file, &text).attempt(format!("write `{}`", file.display()))?;
    if cli.json() {
        return say_json(&serde_json::json!({ "action_id": terminal.action, "bytes": text.len() }));
    }
    say(&format!(
        "wrote {} ({} bytes); for players, not as evidence: that is `ascribe export`",
        file.display(),
        text.len()
    ));
    Ok(())
}

/// Private modes that only tell a terminal how to paste or which keys to send; left out.
const QUIET: [&str; 4] = ["\u{1b}[?2004h", "\u{1b}[?2004l", "\u{1b}[?1h", "\u{1b}[?1l"];

/// Recorded output for a terminal: colours stay, everything else that a terminal acts on is shown.
fn neutral(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut rest = text.as_ref();
    while let Some(c) = rest.chars().next() {
        if let Some(after) = QUIET.iter().find_map(|mode| rest.strip_prefix(mode)) {
            rest = after;
            continue;
        }
        if let Some(len) = colour(rest) {
            let (sequence, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
            out.push_str(sequence);
            rest = after;
            continue;
        }
        match c {
            '\n' | '\r' | '\t' | '\u{8}' => out.push(c),
            c if ascribe_core::text::is_unsafe(c) => out.push_str(&clean(&c.to_string(), 1)),
            c => out.push(c),
        }
        rest = rest.get(c.len_utf8()..).unwrap_or("");
    }
    out
}

/// The length of a colour sequence (`ESC [ digits ; ... m`) at the beginning.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[")?;
    let end = body.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (body.get(end..)?.starts_with('m') && end <= 32).then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_output_cannot_drive_the_terminal() {
        assert_eq!(
            neutral(b"\x1b[1;31mred\x1b[0m\r\n"),
            "\x1b[1;31mred\x1b[0m\r\n"
        );
        for hostile in [
            &b"\x1b]52;c;eA==\x07"[..],
            b"\x1b[2J",
            b"\x1bP1\x1b\\",
            b"\xc2\x9b2J",
            b"\x1b[6n",
        ] {
            let shown = neutral(hostile);
            assert!(
                !shown.contains('\u{1b}') && !shown.contains('\u{9b}'),
                "{shown:?}"
            );
        }
    }
}
