//! Completions and manual pages, both made from the command line's own description.

use std::path::Path;

use clap::CommandFactory as _;

use super::say;
use crate::cli::Cli;
use crate::exit::{Attempt as _, Done, Failure};

pub(crate) fn completions(shell: clap_complete::Shell) -> Done {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ascribe", &mut out);
    let text = String::from_utf8(out).attempt("write the completions")?;
    say(text.trim_end());
    Ok(())
}

pub(crate) fn pages(cli: &Cli, dir: &Path) -> Done {
    if !dir.is_dir() {
        return Err(
            Failure::usage(format!("`{}` is no directory", dir.display()))
                .help("make it first, for instance `mkdir -p ~/.local/share/man/man1`"),
        );
    }
    clap_mangen::generate_to(Cli::command(), dir)
        .attempt(format!("write manual pages into `{}`", dir.display()))?;
    if cli.json() {
        return super::say_json(&serde_json::json!({ "dir": dir }));
    }
    say(&format!(
        "wrote ascribe.1 and a page for each command into `{}`",
        dir.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the pages that a command and those below it have.
    fn names(command: &clap::Command, prefix: &str, found: &mut Vec<String>) {
        let name = format!("{prefix}{}", command.get_name());
        for below in command.get_subcommands() {
            names(below, &format!("{name}-"), found);
        }
        found.push(format!("{name}.1"));
    }

    #[test]
    fn every_command_has_a_page_with_what_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        names(&Cli::command(), "", &mut expected);
        clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
        let found = std::fs::read_dir(dir.path()).unwrap();
        let mut found: Vec<String> = found
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert!(found.len() > 30, "{found:?}");
        let page = std::fs::read_to_string(dir.path().join("ascribe-request.1")).unwrap();
        for part in [".TH ", "\\-\\-windows", "Europe/Berlin", "Ask for a grant"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn bash_takes_the_completions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ascribe.bash");
        let mut out = Vec::new();
        let shell = clap_complete::Shell::Bash;
        clap_complete::generate(shell, &mut Cli::command(), "ascribe", &mut out);
        std::fs::write(&file, out).unwrap();
        // As an interactive bash calls it: the words so far, and which of them is completed.
        let script = r#"set -eu; source "$1"; COMP_WORDS=(ascribe req); COMP_CWORD=1; COMPREPLY=()
            _ascribe ascribe req ascribe; printf '%s\n' "${COMPREPLY[@]}"
            COMP_WORDS=(ascribe request --win); COMP_CWORD=2; COMPREPLY=()
            _ascribe ascribe --win request; printf '%s\n' "${COMPREPLY[@]}""#;
        let out = std::process::Command::new("bash")
            .args(["--norc", "-c", script, "bash"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{said} {:?}", out.stderr);
        assert_eq!(said, "request\nrequests\n--windows\n");
    }
}
