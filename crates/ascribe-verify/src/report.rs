//! What a verification found. Deterministic: no volatile field, no path.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use ascribe_core::attribution::ActionRecord;
use ascribe_core::entry::Status;
use ascribe_core::id::{ActionId, EntryHash, Root};
use ascribe_core::text::clean;
use serde::Serialize;

use crate::links::{Link, Names};
use crate::logins::LoginProof;
use crate::sessions::Sessions;
use crate::vouchers::Voucher;
use crate::witnesses::Witnessed;

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Something does not prove what it claims.
    Failed,
    /// Everything that was checked holds.
    Verified,
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `altered`, `missing`, `out_of_order`, `outside_grant`, `self_approved`, `unsigned`,
    /// `untrusted`, `unlawful` or `malformed`.
    pub code: &'static str,
    /// The entry, where it is about one.
    pub index: Option<u64>,
    /// The action, where it is about one.
    pub action: Option<ActionId>,
    /// The promise that is broken.
    pub promise: &'static str,
    /// What was found.
    pub message: String,
}

/// Something a reader should know, which breaks no promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// `outcome_unknown`, `not_sent`, `delegated`, `budget_elsewhere`, `login_sealed`, `key_unseen`, `directory_refused`, `login_refused`, `testimony`, `withheld`, `missing`,
    /// `time_claimed_by_log`, `witnessed`, `rollback_not_detectable` or, with an earlier checkpoint,
    /// `rollback_detectable_before`.
    pub code: &'static str,
    /// The action, where it is about one.
    pub action: Option<ActionId>,
    /// In words.
    pub message: Cow<'static, str>,
}

/// Entries of one version, whose rules judged them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which.
    pub version: u8,
    /// The first of them that was checked.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The log.
    pub origin: Option<String>,
    /// Size of the signed tree.
    pub size: Option<u64>,
    /// Its root.
    pub root: Option<Root>,
    /// The newest law entry: the verdict holds under this head.
    pub law_head: Option<EntryHash>,
    /// Size of the earlier checkpoint that this log was shown to continue, if one was given.
    pub continues: Option<u64>,
    /// What witnesses have seen of this log, if it is shown that any have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<Witnessed>,
    /// Entries that were checked.
    pub entries: u64,
    /// By the rules of which versions they were judged, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Judged>,
    /// Of a whole ledger, where no session is asked for: how many it has, and on whose word they rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// What does not hold.
    pub problems: Vec<Problem>,
    /// What a reader should know.
    pub notes: Vec<Note>,
    /// The actions.
    pub actions: Vec<ActionRecord>,
    /// Who signed what says who acted, delegated, asked or approved, where a login introduced their key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<LoginProof>,
    /// Who said that an approver was in the group, or the manager, that the approval needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vouchers: Vec<Voucher>,
    /// Of a bundle, or of the session that is asked for: every link of its chain, each after those that it rests on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The names that were disclosed, for the text.
    #[serde(skip)]
    pub(crate) names: Names,
}

impl Report {
    pub(crate) fn empty() -> Self {
        Self {
            verdict: Verdict::Failed,
            origin: None,
            size: None,
            root: None,
            law_head: None,
            continues: None,
            witnessed: None,
            entries: 0,
            versions: Vec::new(),
            sessions: None,
            problems: Vec::new(),
            notes: Vec::new(),
            actions: Vec::new(),
            logins: Vec::new(),
            vouchers: Vec::new(),
            links: Vec::new(),
            names: Names::new(),
        }
    }

    pub(crate) fn fail(mut self, problem: Problem) -> Self {
        self.problems.push(problem);
        self.finish()
    }

    /// Settles the verdict; a failed report claims no actions.
    pub(crate) fn finish(mut self) -> Self {
        if self.problems.is_empty() {
            self.verdict = Verdict::Verified;
            self.add_action_notes();
        } else {
            self.verdict = Verdict::Failed;
            self.actions.clear();
            self.logins.clear();
            self.vouchers.clear();
            self.links.clear();
            self.versions.clear();
            self.sessions = None;
        }
        self
    }

    fn add_action_notes(&mut self) {
        for action in &self.actions {
            let mut note = |code, message: &'static str| {
                self.notes.push(Note {
                    code,
                    action: Some(action.action_id),
                    message: message.into(),
                });
            };
            match action.what.outcome.status {
                Status::Unknown => note("outcome_unknown", "nobody knows how the action ended"),
                Status::NotSent => note("not_sent", "the action was recorded and then not sent"),
                Status::Denied | Status::Failed | Status::Succeeded => {}
            }
            match &*action.what.content {
                "withheld" => note("withheld", "the command is not disclosed here"),
                "missing" => note("missing", "the command's opening is absent"),
                _ => {}
            }
        }
        // Actions of one session share whose they are.
        let mut seen = HashSet::new();
        let actors = self.actions.iter().map(|action| &action.who);
        let actors = actors.filter(|who| seen.insert(Arc::as_ptr(who)));
        let chains: BTreeSet<String> = actors.filter_map(|who| who.links()).collect();
        for message in chains {
            self.notes.push(Note {
                code: "delegated",
                action: None,
                message: message.into(),
            });
        }
        // A signed opening is its actor's word. What was done after it stays the gateway's.
        let signed = self.actions.iter().all(|a| a.who.opened_by == "signed");
        if !self.actions.is_empty() {
            let message = if signed {
                "what was typed is the gateway's testimony; who opened the session is signed"
            } else {
                "session openings and what was typed are the gateway's testimony"
            };
            self.notes.push(Note {
                code: "testimony",
                action: None,
                message: message.into(),
            });
        }
        let (code, message) = match &self.witnessed {
            None => (
                "time_claimed_by_log",
                "times are claimed by the log; no witness bounds them".to_owned(),
            ),
            Some(seen) => ("witnessed", witnessed(seen, self.size)),
        };
        self.notes.push(Note {
            code,
            action: None,
            message: message.into(),
        });
        let (code, message) = match self.continues {
            None => (
                "rollback_not_detectable",
                "without an earlier checkpoint or a witness, a rolled-back log is not detectable"
                    .to_owned(),
            ),
            Some(size) => (
                "rollback_detectable_before",
                format!(
                    "the log continues the earlier checkpoint of size {size}; whether it was rolled back to there is not detectable"
                ),
            ),
        };
        self.notes.push(Note {
            code,
            action: None,
            message: message.into(),
        });
    }
}

fn witnessed(seen: &Witnessed, size: Option<u64>) -> String {
    let by: Vec<String> = seen.by.iter().map(|name| clean(name, 80)).collect();
    let whose = match seen.policy {
        "reader" => "of your policy",
        _ => "of the log's own policy",
    };
    let rest = match size.unwrap_or(0).saturating_sub(seen.size) {
        0 => String::new(),
        rest => format!(
            "; of the {rest} entries after that the log alone says when and that they are all"
        ),
    };
    format!(
        "{} had seen {} entries by {}, quorum `{}` {whose}{rest}",
        by.join(", "),
        seen.size,
        seen.before,
        clean(&seen.quorum, 80),
    )
}

/// A code of the law, as the verifier names it.
pub(crate) fn problem_of(
    denied: &ascribe_core::law::Denied,
    index: u64,
    action: Option<ActionId>,
) -> Problem {
    let (code, promise) = match denied.code {
        "signature" | "key" | "provider-key" | "logged-out" => {
            ("unsigned", "everyone signs their own link")
        }
        "self-approval" => ("self_approved", "nobody approves their own request"),
        "expired" | "revoked" | "not-yet" | "used" | "outside-grant" | "closed" | "window" => {
            ("outside_grant", "no action outside a grant that holds")
        }
        "outside-delegation" | "budget" | "not-accepted" => {
            ("outside_grant", "no action beyond what was delegated")
        }
        "quorum" | "grant" | "role" | "prose" | "ticket" | "break-glass" | "review-overdue" => {
            ("unlawful", "no change without the law's approvals")
        }
        "order" | "time" => ("out_of_order", "the log orders every entry"),
        "writer-chain" | "law-chain" | "count" | "links" | "head" | "no-session" | "no-action"
        | "no-grant" | "no-request" | "no-target" | "no-person" | "no-login" | "no-provider"
        | "no-workload" | "no-identity" | "no-delegation" | "provider-keys" => {
            ("missing", "no entry is dropped or replaced")
        }
        "key-unseen" => (
            "unlawful",
            "a login counts under keys that enough observers saw",
        ),
        "acr" | "amr" | "auth-time" => (
            "unlawful",
            "a login counts as its provider's entry asks people to prove themselves",
        ),
        "cosigned" | "witnesses" => ("untrusted", "witnesses sign their own word"),
        "unwitnessed" => ("unlawful", "what waits for witnesses waits"),
        "malformed" | "version" | "size" => ("malformed", "entries have one spelling"),
        _ => ("unlawful", "the law allows every entry"),
    };
    Problem {
        code,
        index: Some(index),
        action,
        promise,
        message: denied.message.clone(),
    }
}

/// Which versions judged, in a line of words.
fn versions_in_words(versions: &[Judged]) -> Option<String> {
    let (last, before) = versions.split_last()?;
    let before = before.iter();
    let before =
        before.map(|one| format!("of version {}: {} to {}", one.version, one.from, one.to));
    let last = match versions.len() {
        1 => format!("of version {}: all", last.version),
        _ => format!("of version {}: from {}", last.version, last.from),
    };
    let parts: Vec<String> = before.chain([last]).collect();
    Some(format!("  entries {}", parts.join("; ")))
}

/// The report for a person's terminal.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for action in &report.actions {
        let status = serde_json::to_value(action.what.outcome.status).ok();
        let status = status
            .as_ref()
            .and_then(|s| s.as_str())
            .unwrap_or("unknown");
        line(format!(
            "  {}  {}  {}@{}  {}  {}",
            action.when.at,
            action.who.shown(),
            clean(&action.what.account, 64),
            clean(&action.what.target, 64),
            clean(
                action.what.command.as_deref().unwrap_or(&action.what.kind),
                120
            ),
            status,
        ));
    }
    for link in &report.links {
        line(crate::links::in_words(link));
    }
    if report.links.is_empty() {
        for proof in &report.logins {
            line(crate::logins::in_words(proof, &report.names));
        }
        for voucher in &report.vouchers {
            line(crate::vouchers::in_words(voucher, &report.names));
        }
    }
    let counted = report.sessions.as_ref();
    let counted = counted.and_then(crate::sessions::in_words);
    for text in counted
        .into_iter()
        .chain(versions_in_words(&report.versions))
    {
        line(text);
    }
    for problem in &report.problems {
        let at = problem
            .index
            .map_or(String::new(), |i| format!(" entry {i}"));
        let action = problem
            .action
            .map_or(String::new(), |a| format!(" action {a}"));
        line(format!(
            "  FAILED {}{at}{action}: {} (promise: {})",
            problem.code,
            clean(&problem.message, 300),
            problem.promise
        ));
    }
    for note in &report.notes {
        let action = note.action.map_or(String::new(), |a| format!(" {a}:"));
        line(format!("  note{action} {}", note.message));
    }
    match report.verdict {
        Verdict::Verified => line(format!(
            "VERIFIED  {} action(s), {} entries, log {} at size {}",
            report.actions.len(),
            report.entries,
            clean(report.origin.as_deref().unwrap_or("?"), 255),
            report.size.unwrap_or(0),
        )),
        Verdict::Failed => line(format!(
            "PROOF FAILED  {} problem(s)",
            report.problems.len()
        )),
    }
    out
}
