//! Approvals that depended on a group or on a manager: which entry says so, and whom one must trust for it.

use std::collections::BTreeMap;

use ascribe_core::directory::DirectoryGroup;
use ascribe_core::entry::{Body, Entry, Ref};
use ascribe_core::id::{PersonId, SessionId, StatementId};
use ascribe_core::law::State;
use ascribe_core::statement::{Answer, Say, Statement};
use serde::Serialize;

use crate::links::{self, Names, Trusted, quoted, shown, ticked};
use crate::logins::Logins;

/// Who said what an approval depended on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Voucher {
    /// The session whose grant was approved.
    pub session: SessionId,
    /// Who approved.
    pub approver: PersonId,
    /// The approval's entry.
    pub approval: u64,
    /// The groups that the target takes approvers of and the approver was in; none where they approved as a
    /// manager.
    pub groups: Vec<DirectoryGroup>,
    /// The entry that says so.
    pub entry: u64,
    /// Who said it.
    pub source: Source,
}

/// Whose word it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The holder of the directory's SCIM token, as the server testifies.
    Scim {
        /// The directory.
        directory: String,
    },
    /// Whoever signed the directory's file.
    File {
        /// The directory.
        directory: String,
        /// The signer.
        signer: PersonId,
    },
    /// The provider, in the token of a login.
    Token {
        /// The login.
        login: StatementId,
        /// The provider's issuer.
        issuer: String,
        /// `checked` here against the provider's key, or `sealed`.
        token: &'static str,
    },
}

/// What a log's entry says of somebody's groups.
#[derive(Debug)]
enum Word {
    Change(String),
    File(String, PersonId),
}

/// An approval's link to such an entry.
#[derive(Debug)]
struct Leant {
    entry: u64,
    groups: Vec<DirectoryGroup>,
}

/// What is kept of a log to name them.
#[derive(Debug, Default)]
pub(crate) struct Vouchers {
    words: BTreeMap<u64, Word>,
    approvals: BTreeMap<u64, Vec<Leant>>,
}

impl Vouchers {
    /// Keeps an entry that `state` has just taken in.
    pub(crate) fn keep(
        &mut self,
        state: &State,
        index: u64,
        entry: &Entry,
        said: Option<&Statement>,
    ) {
        if let Body::DirectoryChange(change) = &entry.body {
            let word = Word::Change(change.directory.clone());
            self.words.insert(index, word);
        }
        let Some(statement) = said else {
            return;
        };
        let told = ["directory", "group", "manager"];
        if !entry.refs.iter().any(|link| told.contains(&&*link.rel)) {
            return;
        }
        match &statement.say {
            Say::DirectoryFile(file) => {
                let word = Word::File(file.directory.clone(), statement.by);
                self.words.insert(index, word);
            }
            Say::Approval(answer) => {
                let refs = entry.refs.iter();
                let leant = refs.filter_map(|link| leant(state, statement.by, answer, link));
                self.approvals.insert(index, leant.collect());
            }
            _ => {}
        }
    }

    /// One for each link that an approval behind one of these sessions has, in the log's order of sessions.
    pub(crate) fn of(
        &self,
        state: &State,
        logins: &Logins,
        wanted: impl Fn(&SessionId) -> bool,
    ) -> Vec<Voucher> {
        let mut sessions: Vec<_> = state.sessions.iter().filter(|(id, _)| wanted(id)).collect();
        sessions.sort_by_key(|(_, session)| session.place.index);
        let mut found = Vec::new();
        for (session, opened) in sessions {
            let grant = state.grants.get(&opened.open.grant).into_iter();
            let approvals = grant.flat_map(|grant| {
                let extended = grant.extensions.iter().flat_map(|e| &e.approvals);
                grant.approvals.iter().chain(extended)
            });
            for approval in approvals {
                let leant = self.approvals.get(&approval.place.index);
                for leant in leant.into_iter().flatten() {
                    let Some(source) = self.source(state, logins, leant.entry) else {
                        continue;
                    };
                    found.push(Voucher {
                        session: *session,
                        approver: approval.by,
                        approval: approval.place.index,
                        groups: leant.groups.clone(),
                        entry: leant.entry,
                        source,
                    });
                }
            }
        }
        found
    }

    /// Who says what an entry says of somebody's groups.
    pub(crate) fn source(&self, state: &State, logins: &Logins, entry: u64) -> Option<Source> {
        if let Some((login, token)) = logins.at(entry) {
            let issuer = state.logins.get(&login)?.provider.issuer.clone();
            return Some(Source::Token {
                login,
                issuer,
                token,
            });
        }
        Some(match self.words.get(&entry)? {
            Word::Change(directory) => Source::Scim {
                directory: directory.clone(),
            },
            Word::File(directory, signer) => Source::File {
                directory: directory.clone(),
                signer: *signer,
            },
        })
    }
}

/// The law demanded these links and derived them itself; which groups they stand for is in its state.
fn leant(state: &State, by: PersonId, answer: &Answer, link: &Ref) -> Option<Leant> {
    let groups = match link.rel.as_str() {
        "manager" => Vec::new(),
        "group" => {
            let target = state.target_of(state.asks.get(&answer.of)?).ok()??;
            let own = state.people.get(&by)?.groups.iter();
            let own = own.filter(|own| own.place.index == link.index);
            own.filter(|own| target.approver_groups.contains(&own.group))
                .map(|own| own.group.clone())
                .collect()
        }
        _ => return None,
    };
    Some(Leant {
        entry: link.index,
        groups,
    })
}

/// What an approval depended on, who said so, and whom one must trust for that.
pub(crate) fn parts(voucher: &Voucher, names: &Names) -> (String, String, Vec<Trusted>) {
    let groups = voucher.groups.iter();
    let groups: Vec<String> = groups
        .map(|group| {
            let (group, directory) = (&group.group, &group.directory);
            format!("{} of {}", ticked(group, 256), ticked(directory, 63))
        })
        .collect();
    let (depends, so) = if groups.is_empty() {
        let depends = "is the manager of whoever asked".to_owned();
        (depends, "who the manager is")
    } else {
        (format!("is in {}", groups.join(" and ")), "who is in it")
    };
    let (said, trust) = whom(&voucher.source, so, names);
    (depends, said, trust)
}

/// Who said something of somebody's groups, and whom one must trust for it.
pub(crate) fn whom(source: &Source, so: &str, names: &Names) -> (String, Vec<Trusted>) {
    match source {
        Source::Scim { directory } => {
            let directory = ticked(directory, 63);
            let said = format!("directory {directory} said so over SCIM");
            let who = format!("directory {directory} and whoever has its token");
            let log = Trusted::alone("the log, which alone says that it was said");
            (said, vec![Trusted::new(who, so), log])
        }
        Source::File { directory, signer } => {
            let said = format!("a file of directory {} says so", ticked(directory, 63));
            let who = format!("{}, who signed the file", shown(names, *signer));
            (said, vec![Trusted::new(who, so)])
        }
        Source::Token {
            login,
            issuer,
            token,
        } => {
            let said = format!("the token of login {login} says so, {token}");
            let mut trust = vec![Trusted::new(quoted(issuer, 200), so)];
            if *token != "checked" {
                trust.push(Trusted::new("the log", "what the token says"));
            }
            (said, trust)
        }
    }
}

/// A voucher in words.
pub(crate) fn in_words(voucher: &Voucher, names: &Names) -> String {
    let (what, said, trust) = parts(voucher, names);
    format!(
        "  who approved {}: {} {what} (approval entry {}): {said} (entry {}); one must trust: {}",
        voucher.session,
        shown(names, voucher.approver),
        voucher.approval,
        voucher.entry,
        links::parties(&trust),
    )
}
