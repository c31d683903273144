//! What kind of action a request is. Only a label: the exact bytes are recorded in any case.

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

/// The kind of an exec request.
pub fn exec_kind(command: &[u8]) -> &'static str {
    let mut words = command
        .split(|b| b.is_ascii_whitespace())
        .filter(|w| !w.is_empty())
        .take(64);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit(|&b| b == b'/').next().unwrap_or_default();
    match program {
        b"scp" if scp_direction(command).is_some() => "ssh.scp",
        // What follows is a shell's only where there is more than the program.
        b"sftp-server" if words.next().is_none() => "ssh.sftp",
        b"rsync" if words.next() == Some(b"--server") => "ssh.rsync",
        _ => "ssh.exec",
    }
}

/// Which way files go in the command of an scp server; none where this is not clearly one. A command
/// that is more than that is a command like any other, so that nothing is taken for records of scp
/// that may be a shell's input.
pub fn scp_direction(command: &[u8]) -> Option<Direction> {
    let more = |byte: &u8| b";|&<>`$()\n\r".contains(byte);
    if command.iter().any(more) {
        return None;
    }
    let words = command
        .split(|b| b.is_ascii_whitespace())
        .filter(|w| !w.is_empty())
        .take(64);
    // Options end before the first other word, and `--` ends them.
    let options = words
        .skip(1)
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
            ("rsync --server -e.LsfxCIvu . /x", "ssh.rsync"),
            ("rsync x --server", "ssh.exec"),
            ("/usr/bin/rsync --server .", "ssh.rsync"),
            ("/usr/lib/openssh/sftp-server", "ssh.sftp"),
            ("sftp-server; bash", "ssh.exec"),
            ("sftp-server -e", "ssh.exec"),
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
        // Words beyond the first 64 do not count.
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
