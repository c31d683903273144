//! Verifying a whole ledger.

use std::path::Path;

use ascribe_core::attribution::Filter;
use ascribe_core::entry::Body;
use ascribe_core::id::{EntryHash, Root, SessionId};
use ascribe_core::law::{State, Whole};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Statement;
use ascribe_core::witness::Cosigned;
use ascribe_tlog::{
    Checkpoint, TileKind, Tree, TrustPolicy, decode_entry_bundle, entries_path, leaf_hash,
    tile_path, tiles_of,
};

use crate::bundle::{Replay, check_pin, problem, trusted_checkpoint};
use crate::links::{self, Links};
use crate::parallel;
use crate::report::{Problem, Report};
use crate::sessions;
use crate::witnesses;

/// A plain C2SP tree on disk: the checkpoint and every entry. Its tiles of hashes must be those of
/// its entries.
///
/// # Errors
/// A sentence that says which file is absent or damaged, by its name inside the tree.
pub fn read_tree(dir: &Path, trust: &TrustPolicy) -> Result<(Vec<u8>, Vec<Vec<u8>>), String> {
    let read = |name: &str| {
        std::fs::read(dir.join(name)).map_err(|e| format!("cannot read `{name}`: {}", e.kind()))
    };
    let note = read("checkpoint")?;
    // Whether enough witnesses have seen it is found in the entries.
    let size = trusted_checkpoint(&note, &witnesses::log_alone(trust))
        .map_err(|p| p.message)?
        .size;
    let mut entries = Vec::new();
    while (entries.len() as u64) < size {
        let done = entries.len() as u64;
        let width = u16::try_from((size - done).min(256)).unwrap_or(256);
        let name = entries_path(done / 256, width);
        let bundle = decode_entry_bundle(&read(&name)?).map_err(|e| format!("`{name}`: {e}"))?;
        if bundle.len() != usize::from(width) {
            return Err(format!(
                "`{name}` holds {} entries instead of {width}",
                bundle.len()
            ));
        }
        entries.extend(bundle);
    }
    let mut tree = Tree::new();
    for entry in &entries {
        tree.push(leaf_hash(entry));
    }
    for path in tiles_of(size) {
        let TileKind::Hashes(level) = path.kind else {
            continue;
        };
        let name = tile_path(level, path.n, path.width);
        if tree.tile(level, path.n, path.width) != Some(read(&name)?) {
            return Err(format!(
                "`{name}` holds other hashes than those of the entries"
            ));
        }
    }
    Ok((note, entries))
}

/// The checkpoint that the signer of a statement had seen must be one of this tree: otherwise
/// somebody was shown another history. A size of 0 says that none was known.
fn check_seen(tree: &Tree, index: u64, whole: &Whole) -> Result<(), Problem> {
    let Some(Statement { seen, .. }) = whole.statement() else {
        return Ok(());
    };
    if seen.size == 0 || tree.root_at(seen.size) == Some(seen.root.0) {
        return Ok(());
    }
    let mut found = problem(
        "altered",
        "everybody sees the same log",
        "the statement's signer had seen another history of this log",
    );
    found.index = Some(index);
    Err(found)
}

/// What the witnesses cosigned must be this tree. Their signatures were checked by the law.
fn check_cosigned(tree: &Tree, index: u64, cosigned: &Cosigned) -> Result<(), Problem> {
    let text = cosigned.note.split("\n\n").next().unwrap_or_default();
    let checkpoint = Checkpoint::parse(&format!("{text}\n"));
    if checkpoint.is_ok_and(|seen| tree.root_at(seen.size) == Some(seen.root)) {
        return Ok(());
    }
    let mut found = problem(
        "altered",
        "everybody sees the same log",
        "the witnesses cosigned another history of this log",
    );
    found.index = Some(index);
    Err(found)
}

/// An earlier checkpoint, from a witness, a copy of the head, or what somebody remembers, must be
/// one of this tree. Returns its size.
fn check_earlier(
    earlier: &[u8],
    tree: &Tree,
    origin: &str,
    trust: &TrustPolicy,
) -> Result<u64, Problem> {
    // That the log signed it is enough: it must continue what it signed, whoever has seen that.
    let earlier = trusted_checkpoint(earlier, &witnesses::log_alone(trust))?;
    let promise = "the log only grows";
    match tree.root_at(earlier.size) {
        _ if earlier.origin != origin => {
            let message = "the earlier checkpoint is of another log";
            Err(problem("untrusted", promise, message))
        }
        None => {
            let (size, was) = (tree.size(), earlier.size);
            let message = format!("the log was rolled back: it has {size} entries and had {was}");
            Err(problem("missing", promise, message))
        }
        Some(root) if root != earlier.root => {
            let message = "the log does not continue the earlier checkpoint: two histories";
            Err(problem("altered", promise, message))
        }
        Some(_) => Ok(earlier.size),
    }
}

/// Verifies a whole ledger: every leaf, the root, every chain, every signature, and the law.
/// `progress` hears how many entries are done.
#[must_use]
pub fn verify_entries(
    note: &[u8],
    entries: &[Vec<u8>],
    openings: &[(u64, Opening)],
    trust: &TrustPolicy,
    absent: &'static str,
    progress: &mut dyn FnMut(u64),
) -> Report {
    let asked = Asked::default();
    verify_asked(asked, note, entries, openings, trust, absent, progress)
}

/// What else is asked of a whole ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// That it continues this earlier signed checkpoint, so that what it held by then was not rolled back.
    pub earlier: Option<&'a [u8]>,
    /// That it holds this session: the report is on that one alone then, and lists its links as of a bundle. Everything
    /// else is checked all the same.
    pub session: Option<SessionId>,
}

/// The same with more that is asked.
#[must_use]
pub fn verify_asked(
    asked: Asked<'_>,
    note: &[u8],
    entries: &[Vec<u8>],
    openings: &[(u64, Opening)],
    trust: &TrustPolicy,
    absent: &'static str,
    progress: &mut dyn FnMut(u64),
) -> Report {
    let mut report = Report::empty();
    let checkpoint = match trusted_checkpoint(note, &witnesses::log_alone(trust)) {
        Ok(checkpoint) => checkpoint,
        Err(problem) => return report.fail(problem),
    };
    report.origin = Some(checkpoint.origin.clone());
    report.size = Some(checkpoint.size);
    report.root = Some(Root(checkpoint.root));
    let mut tree = Tree::new();
    for leaf in parallel::leaf_hashes(entries) {
        tree.push(leaf);
    }
    if tree.size() != checkpoint.size || tree.root() != checkpoint.root {
        let message = "the entries do not hash to the signed root";
        return report.fail(problem(
            "altered",
            "every entry is in the signed tree",
            message,
        ));
    }
    let continues = asked
        .earlier
        .map(|earlier| check_earlier(earlier, &tree, &checkpoint.origin, trust))
        .transpose();
    match continues {
        Ok(size) => report.continues = size,
        Err(problem) => return report.fail(problem),
    }
    if let Err(problem) = check_pin(entries.first().map(Vec::as_slice), trust) {
        return report.fail(problem);
    }
    let opened = openings.iter().map(|(index, _)| *index).collect();
    let mut replay = Replay::opening_only(State::new(&checkpoint.origin), opened);
    match asked.session {
        Some(session) => {
            replay.links = Some(Links::new(links::Whole::Yes, session, note, trust));
        }
        None => replay.sessions = Some(sessions::Kept::default()),
    }
    let checked = parallel::for_each(entries, |index, read| {
        report.entries += 1;
        let leaf = tree.leaf(index).ok_or_else(|| {
            let promise = "every entry is in the signed tree";
            problem("altered", promise, "there are more entries than leaves")
        })?;
        let whole = replay.next(index, read, EntryHash(leaf))?;
        check_seen(&tree, index, whole)?;
        if let Body::Cosigned(cosigned) = &whole.entry.body {
            check_cosigned(&tree, index, cosigned)?;
            let shown = witnesses::shown_by(cosigned.note.as_bytes(), trust, &replay.state);
            report.witnessed = shown.or(report.witnessed.take());
        }
        if index.is_multiple_of(1024) {
            progress(index);
        }
        Ok(())
    });
    if let Err(problem) = checked {
        return report.fail(problem);
    }
    let shown = witnesses::shown_by(note, trust, &replay.state);
    report.witnessed = shown.or(report.witnessed.take());
    if witnesses::demanded(trust) && report.witnessed.is_none() {
        let message = "neither the checkpoint nor an entry shows that the policy's witnesses have seen this log";
        return report.fail(problem(
            "untrusted",
            "only a trusted log proves anything",
            message,
        ));
    }
    for (index, opening) in openings {
        if let Err(problem) = replay.opening(*index, opening.clone()) {
            return report.fail(problem);
        }
    }
    let is_there = |session| replay.state.sessions.contains_key(&session);
    if !asked.session.is_none_or(is_there) {
        let message = "no session of this ledger has the id that was asked for";
        let promise = "a ledger holds every session that it admitted";
        return report.fail(problem("missing", promise, message));
    }
    let filter = Filter {
        session: asked.session,
        ..Filter::default()
    };
    replay.finish(&mut report, &filter, &checkpoint, absent);
    report.finish()
}
