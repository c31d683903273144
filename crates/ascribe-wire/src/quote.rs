//! Names of files as text, so that the exact bytes can be had back.

use std::fmt::Write as _;

use ascribe_core::text::is_unsafe;

/// The bytes in double quotes. `\\`, `\"` and `\xNN` stand for what would mislead a reader or is no
/// UTF-8; everything else stands for itself. Different bytes have different texts.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => {
                    out.push('\\');
                    out.push(c);
                }
                c if is_unsafe(c) => escape(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out.push('"');
    out
}

fn escape(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(out, "\\x{byte:02x}").unwrap_or_default();
    }
}

/// The bytes that [`quote`] wrote; none for any other text.
pub fn unquote(text: &str) -> Option<Vec<u8>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = Vec::new();
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next()? {
            byte @ (b'\\' | b'"') => out.push(byte),
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
            }
            _ => return None,
        }
    }
    (quote(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        for (bytes, text) in [
            (&b"/etc/passwd"[..], r#""/etc/passwd""#),
            (b"", r#""""#),
            (b"a \"b\\", r#""a \"b\\""#),
            (b"\x1b]0;x\n\0", r#""\x1b]0;x\x0a\x00""#),
            ("grün \u{202e}".as_bytes(), r#""grün \xe2\x80\xae""#),
            (b"\xff\xc3", r#""\xff\xc3""#),
        ] {
            assert_eq!(quote(bytes), text);
            assert_eq!(unquote(text).as_deref(), Some(bytes));
        }
        for text in [
            "",
            "\"",
            "a",
            r#""\x61""#,
            r#""\xFF""#,
            r#""\n""#,
            r#""a"b""#,
        ] {
            assert_eq!(unquote(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = quote(&bytes);
            prop_assert!(!text.chars().any(is_unsafe));
            prop_assert_eq!(unquote(&text), Some(bytes));
        }
    }
}
