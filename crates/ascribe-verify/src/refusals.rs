//! What was refused to whoever is nobody: counted by the log, and told in notes.

use std::collections::BTreeMap;

use ascribe_core::directory::RefusedCount;
use ascribe_core::entry::Body;
use ascribe_core::text::clean;

use crate::report::Note;

/// All that was counted so far.
#[derive(Default)]
pub(crate) struct Refusals {
    /// Requests over SCIM, by directory; of nobody's under none.
    directories: BTreeMap<Option<String>, u64>,
    /// Logins, by provider and reason; those of no registered one under none.
    logins: BTreeMap<Option<String>, BTreeMap<String, u64>>,
}

impl Refusals {
    pub(crate) fn keep(&mut self, body: &Body) {
        match body {
            Body::DirectoryRefusal(refusal) => {
                let known = self
                    .directories
                    .entry(refusal.directory.clone())
                    .or_default();
                let counts = refusal.refused.iter().map(|one| one.count);
                *known = counts.fold(*known, u64::saturating_add);
            }
            Body::LoginRefusal(refusal) => {
                let known = self.logins.entry(refusal.provider.clone()).or_default();
                for RefusedCount { code, count } in &refusal.refused {
                    let known = known.entry(code.clone()).or_default();
                    *known = known.saturating_add(*count);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = Note> {
        let directories = self.directories.iter().map(|(directory, count)| {
            let whose = match directory {
                Some(name) => format!("with the token of directory `{}`", clean(name, 63)),
                None => "without a directory's token".to_owned(),
            };
            let message = format!("{count} request(s) over SCIM {whose} were refused");
            note("directory_refused", message)
        });
        let logins = self.logins.iter().map(|(provider, counts)| {
            let all = counts.values().copied().fold(0, u64::saturating_add);
            let whose = match provider {
                // Whoever asks chooses what they name.
                Some(name) => format!("that named provider `{}`", clean(name, 63)),
                None => "that named no registered provider".to_owned(),
            };
            let why: Vec<String> = counts
                .iter()
                .map(|(code, count)| format!("{code} {count}"))
                .collect();
            let message = format!("{all} login(s) {whose} were refused: {}", why.join(", "));
            note("login_refused", message)
        });
        directories.chain(logins)
    }
}

fn note(code: &'static str, message: String) -> Note {
    Note {
        code,
        action: None,
        message: message.into(),
    }
}
