//! `ascribe ledger ...` and `ascribe backup`.

use std::path::Path;

use serde_json::json;

use super::{say, say_json};
use crate::answer::{Offline, Source as _};
use crate::cli::{Backup, Cli, LedgerCommand};
use crate::exit::{Attempt as _, Done, Failure, Kind};

pub(crate) fn run(cli: &Cli, command: &LedgerCommand) -> Done {
    match command {
        LedgerCommand::Status => status(cli),
        LedgerCommand::Export { to, witnessed } => export(cli, to, *witnessed),
        LedgerCommand::Fsck => fsck(cli),
        LedgerCommand::Policy => {
            let file = cli.data_dir()?.join(super::init::POLICY_FILE);
            let text =
                std::fs::read_to_string(&file).attempt(format!("read `{}`", file.display()))?;
            say(text.trim_end());
            Ok(())
        }
    }
}

fn status(cli: &Cli) -> Done {
    if cli.is_offline() {
        let source = Offline::open(cli.data_dir()?)?;
        let (origin, key) = (
            source.reader().config().origin.clone(),
            source.log_key().to_string(),
        );
        let size = source.size();
        let mut seen = 0;
        source.look(&mut |state| seen = state.witnesses.size);
        if cli.json() {
            return say_json(
                &json!({ "origin": origin, "size": size, "log_key": key, "running": false, "witnessed_size": seen }),
            );
        }
        say(&format!(
            "log      {origin}\nentries  {size}, of which witnesses have seen {seen}\nlog key  {key}\nstopped"
        ));
        return Ok(());
    }
    let server = cli.server()?;
    let signer = cli.signer(true).ok();
    let hello = crate::client::Client::new(server.clone(), signer)?.hello()?;
    if cli.json() {
        return say_json(&json!({
            "origin": hello.origin, "size": hello.size, "root": hello.root, "log_key": hello.log_key,
            "api": server.api, "pin": server.pin, "ssh": hello.ssh, "first_entry": hello.first_entry, "running": true,
            "witnessed": hello.witnessed,
        }));
    }
    say(&format!(
        "log      {}\nentries  {}\nroot     {}\nlog key  {}\nssh      {}\njoin     ascribe join {} --log-key '{}' --pin '{}'",
        hello.origin,
        hello.size,
        hello.root,
        hello.log_key,
        hello.ssh,
        server.api,
        hello.log_key,
        server.pin
    ));
    if let Some(witnessed) = &hello.witnessed {
        super::witness::show(witnessed, hello.now);
        if hello.person.is_none() {
            super::remark(
                "what each witness says is told to people who are enrolled: give a key of one with `--key FILE`",
            );
        }
    }
    Ok(())
}

/// The stopped server's directory; a running one is asked to stop first.
fn stopped(cli: &Cli) -> Done<Offline> {
    let dir = cli.data_dir()?;
    if !cli.is_offline() {
        return Err(
            Failure::usage("the server is running").help("stop it first: this reads its files")
        );
    }
    Offline::open(dir)
}

fn export(cli: &Cli, to: &Path, witnessed: bool) -> Done {
    if to.exists() {
        return Err(Failure::usage(format!("`{}` exists", to.display()))
            .help("name a directory that does not exist"));
    }
    let source = Offline::open(cli.data_dir()?)?;
    let (size, note) = match witnessed {
        true => source.witnessed()?.ok_or_else(|| {
            Failure::usage("no witnesses have seen this log")
                .help("name some: `ascribe witness set`")
        })?,
        false => (source.size(), source.note()),
    };
    let reader = ascribe_ledger::Source::Reader(source.reader());
    ascribe_ledger::export_tlog_at(reader, &note, size, to).attempt("write the tree")?;
    if cli.json() {
        return say_json(&json!({ "size": size }));
    }
    say(&format!(
        "wrote {} entries to {}\nnext: ascribe verify {} --trust POLICY",
        size,
        to.display(),
        to.display()
    ));
    Ok(())
}

fn fsck(cli: &Cli) -> Done {
    let dir = cli.data_dir()?;
    drop(stopped(cli)?);
    let reader = ascribe_ledger::Reader::open(dir)
        .map_err(|e| Failure::new(Kind::Proof, format!("the directory does not add up: {e}")))?;
    reader
        .check_archive()
        .map_err(|e| Failure::new(Kind::Proof, format!("the directory does not add up: {e}")))?;
    let tree = reader.tree();
    let root = ascribe_core::id::Root(tree.root());
    if cli.json() {
        return say_json(&json!({ "size": tree.size(), "root": root, "ok": true }));
    }
    say(&format!("ok: {} entries, root {root}", tree.size()));
    Ok(())
}

pub(crate) fn backup(cli: &Cli, args: &Backup) -> Done {
    let dir = cli.data_dir()?;
    drop(stopped(cli)?);
    if args.to.exists() {
        return Err(Failure::usage(format!("`{}` exists", args.to.display()))
            .help("name a directory that does not exist"));
    }
    let files = ascribe_ledger::backup(dir, &args.to, args.with_keys).attempt("copy")?;
    if cli.json() {
        return say_json(&json!({ "files": files, "with_keys": args.with_keys }));
    }
    let (to, with) = (args.to.display(), args.with_keys);
    say(&match with {
        true => format!(
            "copied {files} file(s) with all keys to {to}; whoever also holds the wrap key reads sealed content"
        ),
        false => format!(
            "copied {files} file(s) to {to}, without keys: it verifies, and sealed content in it stays closed for ever\nto be able to go on from a copy: ascribe backup --with-keys"
        ),
    });
    Ok(())
}
