//! `ascribe connect`, which opens a session that the actor signed, and `ascribe ssh-config`, which
//! makes stock `ssh` use it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use ascribe_core::statement::{Connect, Say};
use ascribe_core::text::is_unsafe;
use serde_json::json;

use super::{registry, say, say_json};
use crate::api::{Hello, OPENING};
use crate::cli::{self, Cli};
use crate::client::config_dir;
use crate::exit::{Attempt as _, Done, Failure};
use crate::registry::Registry;

/// What one reads at once, in bytes.
const PIECE: usize = 64 * 1024;

/// Signs the opening, then lends the connection to whoever called: `ssh`, by way of its
/// `ProxyCommand`.
pub(crate) fn connect(cli: &Cli, args: &cli::Connect) -> Done {
    let (account, target) = args.place.rsplit_once('@').ok_or_else(|| {
        Failure::usage(format!("`{}` is not ACCOUNT@TARGET", args.place))
            .help("it is meant as ssh's ProxyCommand: `ascribe ssh-config` writes it")
    })?;
    let (account, grant) = match account.split_once('+') {
        Some((account, grant)) => {
            let grant = grant.parse().map_err(|_| {
                Failure::usage(format!("`{grant}` is no grant")).help("`ascribe grants` lists them")
            })?;
            (account, Some(grant))
        }
        None => (account, None),
    };
    let client = cli.client(false)?;
    let statement = Say::Connect(Connect {
        definition: None,
        target: target.to_owned(),
        account: account.to_owned(),
        grant,
    });
    let (opening, _, _) = client.submit(&client.hello()?, statement, Vec::new())?;
    let mut tcp = TcpStream::connect(client.address()).attempt("reach the gateway")?;
    tcp.set_nodelay(true).attempt("set up the connection")?;
    tcp.write_all(format!("{OPENING}{opening}\n").as_bytes())
        .attempt("talk to the gateway")?;
    if args.pass {
        return pass(&tcp);
    }
    carry(tcp)
}

/// Hands the connection itself over standard output (`ProxyUseFdpass yes`), so that no byte goes
/// through this program.
fn pass(tcp: &TcpStream) -> Done {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [tcp.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Failure::usage("the connection cannot be handed over"));
    }
    let bytes = [std::io::IoSlice::new(&[0])];
    sendmsg(std::io::stdout(), &bytes, &mut control, SendFlags::empty())
        .map(drop)
        .attempt("hand the connection over")
}

/// Carries bytes between standard input and output and the connection.
fn carry(tcp: TcpStream) -> Done {
    let mut up = tcp.try_clone().attempt("set up the connection")?;
    // It ends with the process: standard input may never end.
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        let mut stdin = std::io::stdin().lock();
        while let Ok(n @ 1..) = stdin.read(&mut piece) {
            let sent = piece.get(..n).map(|bytes| up.write_all(bytes));
            if !matches!(sent, Some(Ok(()))) {
                return;
            }
        }
        up.shutdown(Shutdown::Write).unwrap_or_default();
    });
    let (mut down, mut stdout) = (tcp, std::io::stdout().lock());
    let mut piece = vec![0; PIECE];
    loop {
        let n = down.read(&mut piece).attempt("hear from the gateway")?;
        let Some(bytes @ [_, ..]) = piece.get(..n) else {
            return Ok(());
        };
        stdout.write_all(bytes).attempt("hand on what came")?;
        stdout.flush().attempt("hand on what came")?;
    }
}

/// The files that stock `ssh` reads.
struct Files {
    config: String,
    known_hosts: String,
}

/// A word of an ssh_config line.
fn quoted(text: &str) -> String {
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c))
    {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// A word of a shell command, as it can be typed and without anything that a terminal would act on. No two texts
/// are written alike.
pub(crate) fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    if !text.chars().any(is_unsafe) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    // As POSIX has it since 2024, and bash, ksh and zsh since long before.
    let mut word = "$'".to_owned();
    for c in text.chars() {
        match c {
            '\n' => word.push_str("\\n"),
            '\t' => word.push_str("\\t"),
            '\r' => word.push_str("\\r"),
            '\'' | '\\' => word.extend(['\\', c]),
            c if is_unsafe(c) => {
                let bytes = c.to_string().into_bytes();
                word.extend(bytes.iter().map(|byte| format!("\\{byte:03o}")));
            }
            c => word.push(c),
        }
    }
    word + "'"
}

/// The names that the person may want to type: all targets, exactly as they are registered.
fn names(known: &Registry) -> Vec<(String, u16)> {
    known
        .targets
        .iter()
        .map(|target| (target.name.clone(), target.port))
        .collect()
}

/// The `known_hosts` lines: the gateway's key, and the CA for exactly these names.
pub(crate) fn known_hosts(hello: &Hello, names: &[(String, u16)]) -> String {
    let (host, port) = gateway(hello);
    let mut lines = format!("[{host}]:{port} {}\n", hello.ssh_host_key.trim());
    let patterns: Vec<String> = names
        .iter()
        .flat_map(|(name, port)| [name.clone(), format!("[{name}]:{port}")])
        .collect();
    if !patterns.is_empty() {
        lines.push_str(&format!(
            "@cert-authority {} {}\n",
            patterns.join(","),
            hello.ssh_host_ca.trim()
        ));
    }
    lines
}

/// Where the gateway listens.
fn gateway(hello: &Hello) -> (String, String) {
    let (host, port) = hello
        .ssh
        .rsplit_once(':')
        .unwrap_or((hello.ssh.as_str(), "7022"));
    (host.trim_matches(['[', ']']).to_owned(), port.to_owned())
}

fn files(
    cli: &Cli,
    args: &cli::SshConfig,
    hello: &Hello,
    known: &Registry,
    dir: &Path,
) -> Done<Files> {
    let (host, port) = gateway(hello);
    let names = names(known);
    let trust = quoted(&dir.join("known_hosts").display().to_string());
    let identity = cli.key.as_ref().map_or(Done::Ok(String::new()), |key| {
        let key = std::path::absolute(key).attempt("find the key")?;
        let key = quoted(&key.display().to_string());
        Ok(format!("  IdentityFile {key}\n  IdentitiesOnly yes\n"))
    })?;
    let common = format!("{identity}  UserKnownHostsFile {trust}\n  StrictHostKeyChecking yes\n");
    let mut config = format!(
        "# ssh -J ascribe ACCOUNT@TARGET, or ssh ACCOUNT@TARGET@ascribe\n\
         Host ascribe\n  HostName {host}\n  Port {port}\n{common}"
    );
    if !names.is_empty() {
        let hosts: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        let way = if args.jump {
            "  ProxyJump ascribe\n".to_owned()
        } else {
            format!("  ProxyCommand {}\n  ProxyUseFdpass yes\n", proxy(cli)?)
        };
        config.push_str(&format!(
            "\n# ssh ACCOUNT@TARGET\nHost {}\n{way}{common}",
            hosts.join(" ")
        ));
    }
    Ok(Files {
        config,
        known_hosts: known_hosts(hello, &names),
    })
}

/// The command that `ssh` runs to reach a target.
fn proxy(cli: &Cli) -> Done<String> {
    let program = std::env::current_exe().attempt("find this program")?;
    let mut words = vec![shell(&program.display().to_string())];
    for (option, path) in [("--data", &cli.data), ("--key", &cli.key)] {
        if let Some(path) = path {
            let path: PathBuf = std::path::absolute(path).attempt("find a file")?;
            words.extend([option.to_owned(), shell(&path.display().to_string())]);
        }
    }
    words.extend(["connect", "--pass", "--", "%r@%n"].map(str::to_owned));
    Ok(words.join(" "))
}

pub(crate) fn ssh_config(cli: &Cli, args: &cli::SshConfig) -> Done {
    let client = cli.client(true)?;
    let hello = client.hello()?;
    let known = registry(&client)?;
    let dir = config_dir()?;
    let files = files(cli, args, &hello, &known, &dir)?;
    if cli.json() {
        return say_json(&json!({ "config": files.config, "known_hosts": files.known_hosts }));
    }
    if !args.write {
        say(&format!(
            "# into ~/.ssh/config (or `ascribe ssh-config --write`)\n{}\n# into {}\n{}",
            files.config,
            dir.join("known_hosts").display(),
            files.known_hosts.trim_end()
        ));
        return Ok(());
    }
    std::fs::create_dir_all(&dir).attempt("make the configuration's directory")?;
    for (name, text) in [
        ("known_hosts", &files.known_hosts),
        ("ssh_config", &files.config),
    ] {
        let file = dir.join(name);
        std::fs::write(&file, text).attempt(format!("write `{}`", file.display()))?;
    }
    say(&format!(
        "written. As the first line of ~/.ssh/config:\n  Include {}\nagain when targets are added",
        quoted(&dir.join("ssh_config").display().to_string())
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_a_shell_reads_them() {
        for (text, word) in [
            ("/usr/bin/tidy", "/usr/bin/tidy"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            // What is typed as a backslash and a letter is not what stands for a line's end.
            ("a\\nb", "'a\\nb'"),
            ("a\nb", "$'a\\nb'"),
            ("\\\n'", "$'\\\\\\n\\''"),
            ("\u{1b}[2Jé\u{202e}", "$'\\033[2Jé\\342\\200\\256'"),
        ] {
            assert_eq!(shell(text), word);
        }
        let long = "x".repeat(100_000);
        assert_eq!(shell(&long), long);
    }

    /// What bash makes of it is the word again.
    #[test]
    fn bash_reads_words_as_they_were() {
        let all: String = (1..=0x7f_u32)
            .filter_map(char::from_u32)
            .chain(['é', '\u{85}', '\u{200b}', '\u{e0041}', '7'])
            .collect();
        for text in ["", "a b", "it's", "a\\nb", "a\nb", "\u{1b}7", &all] {
            let line = format!("printf %s {}", shell(text));
            let mut bash = std::process::Command::new("bash");
            let said = bash.args(["-c", &line]).output().unwrap();
            assert_eq!(said.stdout, text.as_bytes(), "{line}");
        }
    }
}
