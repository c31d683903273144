//! Asking for the passphrase of a key file, as `ssh` does: on the terminal without echo, or through the
//! program in `SSH_ASKPASS`. It is never taken from the command line or the environment, which others read.

use std::fs::File;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use ssh_key::PrivateKey;
use zeroize::Zeroizing;

use crate::exit::{Attempt as _, Done, Failure, Kind};

/// A passphrase.
pub(crate) type Passphrase = Zeroizing<String>;

/// Longest passphrase that is read, in bytes.
const MAX: usize = 1024;
/// Shortest passphrase that a new file may have, in characters.
const MIN: usize = 8;
/// How often a wrong one is forgiven.
const TRIES: usize = 3;

/// A new passphrase, asked for twice.
pub(crate) fn choose(file: &str) -> Done<Passphrase> {
    let chosen = ask(&format!("New passphrase for `{file}`: "))?;
    if chosen.chars().count() < MIN {
        return Err(Failure::usage(format!(
            "the passphrase has fewer than {MIN} characters"
        )));
    }
    if ask("The same again: ")? != chosen {
        return Err(Failure::usage("the two passphrases differ"));
    }
    Ok(chosen)
}

/// Opens an encrypted key.
pub(crate) fn open(key: &PrivateKey, file: &str) -> Done<PrivateKey> {
    for _ in 0..TRIES {
        let passphrase = ask(&format!("Passphrase for `{file}`: "))?;
        match key.decrypt(passphrase.as_bytes()) {
            Ok(open) => return Ok(open),
            Err(error) => tracing::debug!("the key does not open: {error}"),
        }
    }
    Err(Failure::usage(format!(
        "`{file}` does not open with this passphrase"
    )))
}

/// `SSH_ASKPASS_REQUIRE` means what it means to `ssh`: `force` and `prefer` pass the terminal by.
fn ask(prompt: &str) -> Done<Passphrase> {
    let require = std::env::var("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    let terminal = match require.as_str() {
        "force" | "prefer" => None,
        _ => File::options().read(true).write(true).open("/dev/tty").ok(),
    };
    if let Some(terminal) = terminal {
        return ask_terminal(terminal, prompt);
    }
    let program = std::env::var_os("SSH_ASKPASS").filter(|_| require != "never");
    let Some(program) = program else {
        return Err(
            Failure::usage("a passphrase is needed, and there is no terminal to ask on")
                .help("add the key to an ssh-agent, or name a program in SSH_ASKPASS"),
        );
    };
    let mut child = Command::new(&program)
        .arg(prompt)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .attempt(format!("run `{}`", program.to_string_lossy()))?;
    let mut said = Zeroizing::new(Vec::with_capacity(MAX + 1));
    if let Some(out) = child.stdout.take() {
        out.take(MAX as u64 + 1)
            .read_to_end(&mut said)
            .attempt("hear the passphrase")?;
    }
    if !child.wait().attempt("hear the passphrase")?.success() {
        return Err(Failure::new(Kind::Failure, "no passphrase was given"));
    }
    line(said.as_slice())
}

/// Gives the terminal its echo back, whatever happens.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> Done<Self> {
        let before = tcgetattr(terminal).attempt("ask on the terminal")?;
        let mut quiet = before.clone();
        // Without signals an interrupt is a character: the echo comes back before the program ends.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Flush, &quiet).attempt("ask on the terminal")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, OptionalActions::Flush, &self.before) {
            tracing::debug!("the terminal stays without echo: {error}");
        }
    }
}

fn ask_terminal(mut terminal: File, prompt: &str) -> Done<Passphrase> {
    let given = {
        let _quiet = Quiet::new(&terminal)?;
        (&terminal)
            .write_all(prompt.as_bytes())
            .attempt("ask on the terminal")?;
        line(&terminal)
    };
    terminal.write_all(b"\n").attempt("write to the terminal")?;
    given
}

/// One line, with the keys that edit it.
fn line(mut from: impl Read) -> Done<Passphrase> {
    // Its size never changes: nothing is left behind where it was before.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX + 1));
    let mut byte = Zeroizing::new([0u8; 1]);
    while from.read(byte.as_mut()).attempt("read the passphrase")? == 1 {
        let [typed] = *byte;
        match typed {
            b'\r' | b'\n' => break,
            // Interrupt, end of file.
            0x03 | 0x04 => return Err(Failure::new(Kind::Failure, "no passphrase was given")),
            0x08 | 0x7f => while text.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Kill the line.
            0x15 => text.clear(),
            _ if text.len() == MAX => {
                return Err(Failure::usage("the passphrase is too long"));
            }
            other => text.push(other),
        }
    }
    let text = std::str::from_utf8(&text)
        .map_err(|_| Failure::usage("the passphrase is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{MAX, line};

    #[test]
    fn a_line_ends_where_it_ends_and_can_be_edited() {
        let read = |typed: &[u8]| line(typed).ok().map(|text| text.as_str().to_owned());
        for (typed, meant) in [
            ("long enough\nnext", "long enough"),
            ("with return\r", "with return"),
            ("ends", "ends"),
            ("", ""),
            ("wrom\u{7f}ng", "wrong"),
            ("grü\u{7f}un\u{8}", "gru"),
            ("\u{7f}\u{7f}x", "x"),
            ("all of it\u{15}anew", "anew"),
        ] {
            assert_eq!(read(typed.as_bytes()).as_deref(), Some(meant), "{typed:?}");
        }
        for bad in [&b"secret\x03"[..], b"\x04", b"\xff\n", &[b'a'; MAX + 1]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert!(read(&[b'a'; MAX]).is_some());
    }
}
