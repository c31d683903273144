//! Making untrusted text safe to show: terminal escapes, control and direction characters become
//! visible escapes.

use std::fmt::Write as _;

/// Is this character unsafe to print: controls (C0, C1, DEL), line and paragraph separators,
/// bidirectional overrides, zero-width and tag characters.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{061c}')
}

/// The text with unsafe characters as `\u{..}` escapes, cut to `max` characters with a mark.
pub fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i >= max {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe(c) => {
                write!(out, "\\u{{{:x}}}", u32::from(c)).unwrap_or_default();
            }
            c => out.push(c),
        }
    }
    out
}

/// Bytes for a terminal: valid UTF-8 as [`clean`] shows it, other bytes as `\xNN`.
pub fn clean_bytes(bytes: &[u8], max: usize) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&clean(chunk.valid(), max));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").unwrap_or_default();
        }
        if out.len() > max.saturating_mul(10) {
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_visible() {
        assert_eq!(clean("a\x1b]52;c;x\x07b", 99), "a\\u{1b}]52;c;x\\u{7}b");
        assert_eq!(clean("x\u{202e}y", 99), "x\\u{202e}y");
        assert_eq!(clean("abc", 2), "ab…");
        assert_eq!(clean_bytes(b"ok\xff\n", 99), "ok\\xff\\n");
    }
}
