//! What kind of action a request is. The exact bytes are recorded in any case.

use crate::scp::Direction;

/// Longest command, in bytes, that is taken.
pub const MAX_COMMAND: usize = 65_536;

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Longer than [`MAX_COMMAND`].
    #[error("the command is longer than 64 KiB; send it as standard input of a shell")]
    Length,
    /// A zero byte: a server that ends the command there would run another one than is recorded.
    #[error("the command has a zero byte")]
    Zero,
}

/// May this command become an action?
///
/// # Errors
/// When it is too long, or may not run as it is recorded.
pub fn check(command: &[u8]) -> Result<(), CommandError> {
    if command.len() > MAX_COMMAND {
        return Err(CommandError::Length);
    }
    if command.contains(&0) {
        return Err(CommandError::Zero);
    }
    Ok(())
}

/// The kind of an exec request. A delegation may be for one kind alone, so a command has a kind of its
/// own only where it is one call of that program and nothing else.
pub fn exec_kind(command: &[u8]) -> &'static str {
    match call(command) {
        Some(Call::Scp(_)) => "ssh.scp",
        Some(Call::SftpServer) => "ssh.sftp",
        Some(Call::Rsync) => "ssh.rsync",
        None => "ssh.exec",
    }
}

/// Which way files go in the command of an scp server; none where this is not clearly one. Then nothing
/// is taken for records of scp that may be a shell's input.
pub fn scp_direction(command: &[u8]) -> Option<Direction> {
    match call(command)? {
        Call::Scp(direction) => Some(direction),
        Call::SftpServer | Call::Rsync => None,
    }
}

/// A server of files, as its client has it called.
enum Call {
    Scp(Direction),
    SftpServer,
    Rsync,
}

fn call(command: &[u8]) -> Option<Call> {
    let words = words(command)?;
    let (program, arguments) = words.split_first()?;
    match (system_program(program)?, arguments) {
        (b"scp", options) => direction(options).map(Call::Scp),
        // With options it could do something else.
        (b"sftp-server", []) => Some(Call::SftpServer),
        (b"rsync", [first, ..]) if first == b"--server" => Some(Call::Rsync),
        _ => None,
    }
}

/// The name of a program that is the system's own: one that the shell finds, or one in the system's
/// directories. Elsewhere anybody can give a program any name.
fn system_program(word: &[u8]) -> Option<&[u8]> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-".contains(b);
    if !word.iter().all(plain) || word.windows(2).any(|two| two == b"..") {
        return None;
    }
    match word.iter().rposition(|&b| b == b'/') {
        None => Some(word),
        Some(end) => {
            let ours = [&b"/bin/"[..], b"/usr/", b"/opt/"];
            let system = ours.iter().any(|directory| word.starts_with(directory));
            word.get(end + 1..).filter(|_| system)
        }
    }
}

/// Which way files go by the options of `scp`. They end before the first other word, and at `--`.
fn direction(words: &[Vec<u8>]) -> Option<Direction> {
    let options = words
        .iter()
        .take_while(|w| w.len() > 1 && w.starts_with(b"-") && *w != b"--");
    let (mut to, mut from) = (false, false);
    for option in options {
        to |= option.contains(&b't');
        from |= option.contains(&b'f');
    }
    match (to, from) {
        (true, false) => Some(Direction::ToTarget),
        (false, true) => Some(Direction::FromTarget),
        _ => None,
    }
}

/// The words of a command that is one call of one program; none where it may be more than that, or
/// where shells disagree about what it is. Quotes are read as in POSIX (XCU 2.2), and patterns stay
/// as they are written. What separates commands is not taken within quotes either: that is rare, and
/// some shells have other quotes.
fn words(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = command.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b'\'' | b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        end if end == byte => break,
                        b'\\' => return None,
                        b'$' | b'(' | b')' if byte == b'"' => return None,
                        other if separates(other) => return None,
                        other => word.push(other),
                    }
                }
            }
            b'\\' => {
                let literal = bytes.next().filter(|b| !separates(*b))?;
                word.get_or_insert_default().push(literal);
            }
            b'$' | b'(' | b')' => return None,
            other if separates(other) => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

/// May this byte end a command, and begin another?
fn separates(byte: u8) -> bool {
    b";|&<>`\n\r\x0b\x0c".contains(&byte)
}

/// The kind of a subsystem request; none for a subsystem that is refused.
pub fn subsystem_kind(name: &str) -> Option<&'static str> {
    (name == "sftp").then_some("ssh.sftp")
}

/// The kind of a shell request.
pub const SHELL: &str = "ssh.shell";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds() {
        for (command, kind) in [
            ("scp -t /tmp", "ssh.scp"),
            ("scp -r -f x", "ssh.scp"),
            ("scp -qrt -- /tmp", "ssh.scp"),
            ("scp a b", "ssh.exec"),
            ("scp a -t", "ssh.exec"),
            ("scp -t -f a", "ssh.exec"),
            ("scp -t /tmp; bash", "ssh.exec"),
            ("scp -f $(id)", "ssh.exec"),
            ("scp -f \"$HOME\"", "ssh.exec"),
            ("scp -t '/tmp/a (1) $x.txt'", "ssh.scp"),
            ("scp -t /tmp/a\\ \\(1\\)\\ \\$x.txt", "ssh.scp"),
            ("scp -f \"/tmp/a'b\" ~/*.txt {a,b}", "ssh.scp"),
            ("scp '-t' x", "ssh.scp"),
            ("scp -t 'a", "ssh.exec"),
            ("scp -t a\\", "ssh.exec"),
            ("scp -t 'a;b'", "ssh.exec"),
            ("scp -t 'a\\' 'b; bash; c'", "ssh.exec"),
            ("scp -t (x)", "ssh.exec"),
            ("/usr/bin/scp -t x", "ssh.scp"),
            ("/tmp/scp -t x", "ssh.exec"),
            ("./scp -t x", "ssh.exec"),
            ("/usr/../tmp/scp -t x", "ssh.exec"),
            ("PATH=/tmp/scp -t x", "ssh.exec"),
            ("~/scp -t x", "ssh.exec"),
            ("rsync --server -e.LsfxCIvu . /x", "ssh.rsync"),
            ("rsync x --server", "ssh.exec"),
            ("/usr/bin/rsync --server .", "ssh.rsync"),
            ("rsync --server . /a\\ \\(1\\)", "ssh.rsync"),
            ("rsync --server . ; bash", "ssh.exec"),
            ("rsync --server . & bash", "ssh.exec"),
            ("rsync --server $(bash)", "ssh.exec"),
            ("rsync --server `bash`", "ssh.exec"),
            ("rsync --server .\nbash", "ssh.exec"),
            ("PATH=/tmp/rsync --server", "ssh.exec"),
            ("/tmp/rsync --server .", "ssh.exec"),
            ("/usr/lib/openssh/sftp-server", "ssh.sftp"),
            ("sftp-server; bash", "ssh.exec"),
            ("sftp-server -e", "ssh.exec"),
            ("/tmp/sftp-server", "ssh.exec"),
            ("X=/sftp-server", "ssh.exec"),
            ("id", "ssh.exec"),
            ("", "ssh.exec"),
        ] {
            assert_eq!(exec_kind(command.as_bytes()), kind, "{command}");
        }
        assert_eq!(subsystem_kind("sftp"), Some("ssh.sftp"));
        assert_eq!(subsystem_kind("netconf"), None);
    }

    #[test]
    fn a_command_is_taken_up_to_the_limit_and_not_beyond() {
        let long = vec![b'x'; MAX_COMMAND + 1];
        assert_eq!(check(&long[..MAX_COMMAND]), Ok(()));
        assert_eq!(check(&long), Err(CommandError::Length));
        assert_eq!(check(b""), Ok(()));
    }

    #[test]
    fn a_command_with_a_zero_byte_anywhere_is_refused() {
        for command in [&b"\0"[..], b"\0id", b"id\0", b"id\0; reboot"] {
            assert_eq!(check(command), Err(CommandError::Zero), "{command:?}");
        }
        for command in [&b"printf '\\0'"[..], b"\xff\x01\n\r\t"] {
            assert_eq!(check(command), Ok(()), "{command:?}");
        }
    }

    #[test]
    fn the_kind_of_a_command_of_the_greatest_length_is_that_of_its_program() {
        for filler in [b' ', b'x', b'\t', 0xff] {
            let mut command = b"rsync --server ".to_vec();
            command.resize(MAX_COMMAND, filler);
            assert_eq!(exec_kind(&command), "ssh.rsync");
            assert_eq!(exec_kind(&vec![filler; MAX_COMMAND]), "ssh.exec");
        }
        // Options come before everything else.
        let far = format!("scp {}-t /", "x ".repeat(64));
        assert_eq!(exec_kind(far.as_bytes()), "ssh.exec");
    }

    proptest! {
        #[test]
        fn what_is_taken_has_no_zero_byte_and_fits(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            times in 0usize..2000,
        ) {
            let bytes = bytes.repeat(times);
            let fits = bytes.len() <= MAX_COMMAND && !bytes.contains(&0);
            prop_assert_eq!(check(&bytes).is_ok(), fits);
        }

        #[test]
        fn any_bytes_have_a_kind(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(["ssh.exec", "ssh.scp", "ssh.rsync", "ssh.sftp"].contains(&exec_kind(&bytes)));
        }
    }
}
