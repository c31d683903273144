//! Verifying evidence offline: a bundle, a stopped server's directory, or a published tree. No server is asked.

use std::path::{Path, PathBuf};

use ascribe_ledger::{HeadCopy as _, LocalHead};
use ascribe_verify::{Asked, Report, TrustPolicy, Verdict, verify_asked};

use super::{remark, say, say_json};
use crate::cli::{Cli, Verify};
use crate::exit::{Attempt as _, Done, Failure, Kind};

pub(crate) fn verify(cli: &Cli, args: &Verify) -> Done {
    let text = std::fs::read_to_string(&args.trust)
        .attempt(format!("read the trust policy `{}`", args.trust.display()))?;
    let trust = TrustPolicy::parse(&text)
        .map_err(|e| Failure::usage(format!("`{}`: {e}", args.trust.display())))?;
    let newest = |file: &PathBuf| newest_checkpoint(file, &trust);
    let earlier = args.checkpoint.as_ref().map(newest).transpose()?;
    let report = if args.path.is_dir() {
        let asked = Asked {
            earlier: earlier.as_deref().map(str::as_bytes),
            session: args.session,
        };
        verify_dir(&args.path, &trust, asked)?
    } else if earlier.is_some() {
        return Err(
            Failure::usage("a bundle cannot show that its log continues a checkpoint")
                .help("leave out `--checkpoint`, or verify the whole ledger"),
        );
    } else if args.session.is_some() {
        return Err(Failure::usage(
            "a bundle is about one session, whose links are listed in any case",
        )
        .help("leave out `--session`, or verify the whole ledger"));
    } else {
        let bytes = std::fs::read(&args.path).attempt(format!("read `{}`", args.path.display()))?;
        ascribe_verify::verify_bundle(&bytes, &trust)
    };
    if cli.json() {
        say_json(&report)?;
    } else {
        say(ascribe_verify::render(&report).trim_end());
    }
    match report.verdict {
        Verdict::Verified => Ok(()),
        Verdict::Failed => Err(Failure::new(
            Kind::Proof,
            "the evidence does not prove what it claims",
        )),
    }
}

/// The newest trusted checkpoint of a file: one note, or a copy of the head.
fn newest_checkpoint(file: &Path, trust: &TrustPolicy) -> Done<String> {
    let name = file.display();
    std::fs::metadata(file).attempt(format!("read the checkpoint `{name}`"))?;
    let notes = LocalHead::new(file)
        .read()
        .attempt(format!("read the checkpoint `{name}`"))?;
    // It must continue what the log signed, whoever has seen that.
    let log_alone = TrustPolicy {
        quorum: ascribe_tlog::Quorum::None,
        ..trust.clone()
    };
    let size = |note: &String| {
        let opened = log_alone.open_checkpoint(note.as_bytes());
        opened.ok().map(|checkpoint| checkpoint.size)
    };
    notes
        .into_iter()
        .filter(|note| size(note).is_some())
        .max_by_key(size)
        .ok_or_else(|| {
            let why = format!("`{name}` holds no checkpoint of a log that the policy trusts");
            Failure::new(Kind::Proof, why)
        })
}

fn verify_dir(dir: &Path, trust: &TrustPolicy, asked: Asked<'_>) -> Done<Report> {
    let bar = indicatif::ProgressBar::new(0);
    let progress = &mut |done: u64| bar.set_position(done);
    if dir.join("config.json").exists() {
        let reader = match ascribe_ledger::Reader::open(dir) {
            Ok(reader) => reader,
            Err(e @ ascribe_ledger::LedgerError::Locked(_)) => {
                return Err(Failure::usage(e.to_string()).help(
                    "stop the server first, or verify what `ledger export` or `backup` wrote",
                ));
            }
            Err(e) => {
                return Err(Failure::new(
                    Kind::Proof,
                    format!("the directory does not add up: {e}"),
                ));
            }
        };
        reader.check_archive().map_err(|e| {
            Failure::new(Kind::Proof, format!("the directory does not add up: {e}"))
        })?;
        bar.set_length(reader.size());
        let entries = reader.entries(0..reader.size()).attempt("read entries")?;
        let mut openings = Vec::new();
        match reader.can_open() {
            Ok(()) => {
                for index in 0..reader.size() {
                    let found = reader.openings(index).map_err(|e| {
                        let why = format!(
                            "the sealed content of entry {index} is not what was stored: {e}"
                        );
                        Failure::new(Kind::Proof, why)
                    })?;
                    openings.extend(found.into_iter().map(|opening| (index, opening)));
                }
            }
            // The report calls it missing.
            Err(why) => remark(&format!("sealed content stays closed: {why}")),
        }
        let note = reader.checkpoint_note().to_owned();
        return Ok(verify_asked(
            asked,
            note.as_bytes(),
            &entries,
            &openings,
            trust,
            "missing",
            progress,
        ));
    }
    let (note, entries) =
        ascribe_verify::read_tree(dir, trust).map_err(|e| Failure::new(Kind::Proof, e))?;
    bar.set_length(entries.len() as u64);
    Ok(verify_asked(
        asked,
        &note,
        &entries,
        &[],
        trust,
        "withheld",
        progress,
    ))
}
