//! What the server refused to whoever is nobody here, counted: testimony that changes nothing.

use super::{Denied, SERVER, State};
use crate::directory::{DirectoryRefusal, RefusedCount};
use crate::entry::Entry;
use crate::identity::LoginRefusal;
use crate::time::Timestamp;

/// Most reasons that refusals are counted by.
const MAX_CODES: usize = 64;

impl State {
    /// What was refused over SCIM. The directory is looked for where the entry's links are.
    pub(super) fn check_directory_refusal(
        &self,
        entry: &Entry,
        refusal: &DirectoryRefusal,
    ) -> Result<(), Denied> {
        check_counted(entry, (refusal.from, refusal.until), &refusal.refused)
    }

    /// Which logins were. The provider is looked for where the entry's links are.
    pub(super) fn check_login_refusal(
        &self,
        entry: &Entry,
        refusal: &LoginRefusal,
    ) -> Result<(), Denied> {
        check_counted(entry, (refusal.from, refusal.until), &refusal.refused)
    }
}

fn check_counted(
    entry: &Entry,
    (from, until): (Timestamp, Timestamp),
    refused: &[RefusedCount],
) -> Result<(), Denied> {
    let refuse = |code, text: &str| Err(Denied::new(code, text));
    if entry.writer.id != SERVER {
        return refuse("writer", "refusals are counted by `server`");
    }
    if from > until || until > entry.at {
        return refuse("time", "what was refused was refused before this entry");
    }
    let is_code = |code: &str| {
        (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-')
    };
    if !(1..=MAX_CODES).contains(&refused.len())
        || !refused.is_sorted_by(|one, next| one.code < next.code)
        || !refused
            .iter()
            .all(|one| one.count > 0 && is_code(&one.code))
    {
        return refuse(
            "refusal",
            "refusals are counted by 1 to 64 different codes, sorted",
        );
    }
    Ok(())
}
