//! What kind of action a request is. Only a label: the exact bytes are recorded in any case.

/// Longest command, in bytes, that is taken.
pub const MAX_COMMAND: usize = 65_536;

/// The kind of an exec request.
pub fn exec_kind(command: &[u8]) -> &'static str {
    let mut words = command
        .split(|b| b.is_ascii_whitespace())
        .filter(|w| !w.is_empty())
        .take(64);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit(|&b| b == b'/').next().unwrap_or_default();
    match program {
        b"scp" if words.any(|w| w == b"-t" || w == b"-f") => "ssh.scp",
        b"rsync" if words.next() == Some(b"--server") => "ssh.rsync",
        _ => "ssh.exec",
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
            ("scp a b", "ssh.exec"),
            ("rsync --server -e.LsfxCIvu . /x", "ssh.rsync"),
            ("rsync x --server", "ssh.exec"),
            ("/usr/bin/rsync --server .", "ssh.rsync"),
            ("id", "ssh.exec"),
            ("", "ssh.exec"),
        ] {
            assert_eq!(exec_kind(command.as_bytes()), kind, "{command}");
        }
        assert_eq!(subsystem_kind("sftp"), Some("ssh.sftp"));
        assert_eq!(subsystem_kind("netconf"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_kind(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(["ssh.exec", "ssh.scp", "ssh.rsync"].contains(&exec_kind(&bytes)));
        }
    }
}
