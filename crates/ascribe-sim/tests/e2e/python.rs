//! Programs in Python, with packages that tests run against.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::world::maybe;

/// The packages of this file, installed once beside what is built; none where they cannot be.
pub(super) fn packages(name: &str, sources: &Path) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = place.join("done");
    let wanted = std::fs::read(sources).unwrap();
    if std::fs::read(&done).is_ok_and(|had| had == wanted) {
        return Some(place);
    }
    let run = |command: &mut Command| {
        let status = command.stdin(Stdio::null()).status();
        status.ok().filter(std::process::ExitStatus::success)
    };
    run(Command::new(maybe("python3")?)
        .args(["-m", "venv"])
        .arg(&place))?;
    run(Command::new(place.join("bin/pip"))
        .args(["install", "--quiet", "--only-binary", ":all:", "-r"])
        .arg(sources))?;
    std::fs::write(&done, wanted).unwrap();
    Some(place)
}
