//! What counts as a call of a file server is just that to shells as they are.

#[cfg(test)]
mod shells {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;

    use ascribe_wire::command::exec_kind;
    use proptest::prelude::*;

    /// Commands with much that means something to a shell.
    fn commands() -> impl Strategy<Value = String> {
        let pieces = [
            "a", " ", "\t", "'", "\"", "\\", "$", "(", ")", ";", "&", "|", "<", ">", "`", "\n",
            "\r", "*", "~", "#", "!", "{", "}", "=", "[", "]", "?", "%", "^", "@", "scp", "-f",
            "$(scp)", "\u{2019}",
        ];
        let rest = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12);
        rest.prop_map(|rest| format!("scp -t{}", rest.concat()))
    }

    /// A directory with an `scp` that counts how often it is called, and an empty one in it.
    fn bin() -> &'static Path {
        static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
            let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shells");
            std::fs::remove_dir_all(&bin).ok();
            std::fs::create_dir_all(bin.join("place")).unwrap();
            let scp = bin.join("scp");
            std::fs::write(&scp, "#!/bin/sh\necho >>\"$LOG\"\nexit 7\n").unwrap();
            std::fs::set_permissions(&scp, std::fs::Permissions::from_mode(0o700)).unwrap();
            bin
        });
        &BIN
    }

    /// How often `shell` calls `scp` for a command, and with what it ends. Nothing else can be called.
    fn runs(shell: &str, bin: &Path, command: &str) -> (u64, Option<i32>) {
        let log = bin.join("log");
        std::fs::write(&log, "").unwrap();
        let place = bin.join("place");
        let done = Command::new(shell)
            .args(["-c", command])
            .env_clear()
            .env("PATH", bin)
            .env("LOG", &log)
            .env("HOME", &place)
            .current_dir(&place)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let made = std::fs::read_dir(&place).unwrap().count();
        assert_eq!(made, 0, "{command:?} makes a file");
        (std::fs::metadata(&log).unwrap().len(), done.code())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_counts_as_a_copy_is_one_call_and_nothing_else(command in commands()) {
            if exec_kind(command.as_bytes()) == "ssh.scp" {
                for shell in ["/bin/sh", "/bin/bash"] {
                    let ran = runs(shell, bin(), &command);
                    prop_assert_eq!(ran, (1, Some(7)), "{} {:?}", shell, command);
                }
            }
        }
    }
}
