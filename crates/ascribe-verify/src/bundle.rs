//! Verifying one bundle.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ascribe_core::attribution::{Filter, Fold};
use ascribe_core::bundle::{Bundle, BundleError};
use ascribe_core::database::Step;
use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ActionId, Commitment, EntryHash, Root, SessionId};
use ascribe_core::law::{self, Sealable, State, commitments, step};
use ascribe_core::statement::Statement;
use ascribe_evidence::SshSignatures;
use ascribe_tlog::{Checkpoint, TrustPolicy, leaf_hash, verify_inclusion};

use crate::links::{Links, Whole};
use crate::logins::Logins;
use crate::parallel::Parsed;
use crate::refusals::Refusals;
use crate::report::{Judged, Note, Problem, Report, problem_of};
use crate::sessions;
use crate::vouchers::Vouchers;
use crate::witnesses;

pub(crate) fn problem(
    code: &'static str,
    promise: &'static str,
    message: impl Into<String>,
) -> Problem {
    Problem {
        code,
        index: None,
        action: None,
        promise,
        message: message.into(),
    }
}

/// The action that an entry is about.
pub(crate) fn action_of(entry: &Entry) -> Option<ActionId> {
    match &entry.body {
        Body::Intent(intent) => Some(intent.action),
        Body::Outcome(outcome) => Some(outcome.action),
        Body::Evidence(evidence) => Some(evidence.action),
        _ => None,
    }
}

/// Opens a checkpoint under a trust policy.
pub(crate) fn trusted_checkpoint(note: &[u8], trust: &TrustPolicy) -> Result<Checkpoint, Problem> {
    trust.open_checkpoint(note).map_err(|e| {
        problem(
            "untrusted",
            "only a trusted log proves anything",
            format!("the checkpoint is not trusted: {e}"),
        )
    })
}

/// The first entry must be the pinned one.
pub(crate) fn check_pin(first: Option<&[u8]>, trust: &TrustPolicy) -> Result<(), Problem> {
    let untrusted = |message: &str| {
        Err(problem(
            "untrusted",
            "the trust policy pins the first entry",
            message,
        ))
    };
    match (trust.first_entry, first) {
        (None, _) => untrusted("the trust policy lacks the line `# ascribe-first-entry HASH`"),
        (Some(_), None) => untrusted("the first entry is absent"),
        (Some(pin), Some(entry)) if leaf_hash(entry) == pin => Ok(()),
        (Some(_), Some(_)) => untrusted("the first entry is not the pinned one"),
    }
}

/// Verifies a bundle under a trust policy.
#[must_use]
pub fn verify_bundle(bytes: &[u8], trust: &TrustPolicy) -> Report {
    let mut report = Report::empty();
    let bundle = match Bundle::parse(bytes) {
        Ok(bundle) => bundle,
        Err(e) => {
            let (code, promise) = match e {
                BundleError::Order(_) => ("out_of_order", "a bundle has one order"),
                _ => ("malformed", "a bundle has one spelling"),
            };
            return report.fail(problem(code, promise, e.to_string()));
        }
    };
    let checkpoint = match trusted_checkpoint(bundle.checkpoint.as_bytes(), trust) {
        Ok(checkpoint) => checkpoint,
        Err(problem) => return report.fail(problem),
    };
    if checkpoint.origin != bundle.header.log {
        let message = "the bundle names another log than its checkpoint";
        return report.fail(problem("altered", "a bundle is about one log", message));
    }
    report.origin = Some(checkpoint.origin.clone());
    report.size = Some(checkpoint.size);
    report.root = Some(Root(checkpoint.root));
    let first = bundle
        .entries
        .first()
        .filter(|e| e.index == 0)
        .map(|e| e.entry.as_bytes());
    if let Err(problem) = check_pin(first, trust) {
        return report.fail(problem);
    }
    let note = bundle.checkpoint.as_bytes();
    let session = bundle.header.session;
    let mut replay = Replay::new(State::excerpt(&checkpoint.origin, session));
    replay.links = Some(Links::new(Whole::No, session, note, trust));
    for entry in &bundle.entries {
        report.entries += 1;
        let proof: Vec<ascribe_tlog::Hash> = entry.proof.iter().map(|r| r.0).collect();
        let leaf = leaf_hash(entry.entry.as_bytes());
        if verify_inclusion(
            &leaf,
            entry.index,
            checkpoint.size,
            &proof,
            &checkpoint.root,
        )
        .is_err()
        {
            let mut found = problem(
                "altered",
                "every entry is in the signed tree",
                "the inclusion proof fails",
            );
            found.index = Some(entry.index);
            // As the entry itself has it.
            let claimed = Entry::from_bytes(entry.entry.as_bytes()).ok();
            found.action = claimed.as_ref().and_then(action_of);
            return report.fail(found);
        }
        if let Err(problem) = replay.entry(entry.index, entry.entry.as_bytes()) {
            return report.fail(problem);
        }
    }
    for disclosed in &bundle.openings {
        if let Err(problem) = replay.opening(disclosed.index, disclosed.opening.clone()) {
            return report.fail(problem);
        }
    }
    let missing = |message: &str| problem("missing", "a bundle holds its whole session", message);
    match replay.state.sessions.get(&session) {
        None => return report.fail(missing("the bundle's session is absent")),
        // The close counts the session's entries; without it nothing shows that all are here.
        Some(state) if state.closed.is_none() => {
            return report.fail(missing("the session's close is absent"));
        }
        Some(_) => {}
    }
    let filter = Filter {
        session: Some(session),
        ..Filter::default()
    };
    // Inclusion proofs lead to this checkpoint's root: what witnesses have seen of it, they have seen of
    // these entries. Of a checkpoint within an entry a bundle cannot show that.
    report.witnessed = witnesses::shown_by(note, trust, &replay.state);
    replay.finish(&mut report, &filter, &checkpoint, "withheld");
    if report.actions.iter().any(|a| a.who.links().is_some()) {
        report.notes.push(Note {
            code: "budget_elsewhere",
            action: None,
            message: "what an agent's other sessions used of its budgets is not in a bundle".into(),
        });
    }
    let before = report.witnessed.as_ref().map(|witnessed| witnessed.before);
    for action in &mut report.actions {
        action.when.witnessed_before = before;
    }
    report.finish()
}

/// The law replayed over entries, with their openings.
pub(crate) struct Replay {
    pub(crate) state: State,
    fold: Fold,
    logins: Logins,
    vouchers: Vouchers,
    /// Of a bundle, and where a session is asked for.
    pub(crate) links: Option<Links>,
    /// Of a whole ledger, where none is.
    pub(crate) sessions: Option<sessions::Kept>,
    versions: Vec<Judged>,
    refusals: Refusals,
    sealed: BTreeMap<u64, Sealed>,
    /// The entries whose openings will come; of any, where that is not known.
    opened: Option<HashSet<u64>>,
}

/// An entry's commitments, and how many of them are behind the newest opening.
struct Sealed {
    commitments: Vec<Sealable>,
    /// The text that must be this statement of an approved script.
    step: Option<(Commitment, Step)>,
    passed: usize,
    action: Option<ActionId>,
}

impl Replay {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            fold: Fold::new(),
            logins: Logins::default(),
            vouchers: Vouchers::default(),
            links: None,
            sessions: None,
            versions: Vec::new(),
            refusals: Refusals::default(),
            sealed: BTreeMap::new(),
            opened: None,
        }
    }

    /// The same where openings come only of these entries.
    pub(crate) fn opening_only(state: State, opened: HashSet<u64>) -> Self {
        Self {
            opened: Some(opened),
            ..Self::new(state)
        }
    }

    /// Checks the next entry of a whole log by the law.
    pub(crate) fn next<'e>(
        &mut self,
        index: u64,
        read: &'e Parsed,
        hash: EntryHash,
    ) -> Result<&'e law::Whole, Problem> {
        let whole = match read {
            Ok(whole) => whole,
            Err(denied) => return Err(problem_of(denied, index, None)),
        };
        self.state
            .follow_whole(&SshSignatures, whole, hash)
            .map_err(|denied| problem_of(&denied, index, action_of(&whole.entry)))?;
        self.keep(index, &whole.entry, whole.statement(), hash);
        Ok(whole)
    }

    /// Checks one entry by the law.
    pub(crate) fn entry(&mut self, index: u64, bytes: &[u8]) -> Result<Entry, Problem> {
        let done = self
            .state
            .apply_at(&SshSignatures, index, bytes)
            .map_err(|denied| {
                let action = Entry::from_bytes(bytes).ok().as_ref().and_then(action_of);
                problem_of(&denied, index, action)
            })?;
        let statement = match &done.entry.body {
            Body::Statement(signed) => signed.statement().ok(),
            _ => None,
        };
        self.keep(index, &done.entry, statement.as_ref(), done.hash);
        Ok(done.entry)
    }

    fn keep(&mut self, index: u64, entry: &Entry, said: Option<&Statement>, hash: EntryHash) {
        match self.versions.last_mut() {
            Some(newest) if newest.version == entry.v => newest.to = index,
            _ => self.versions.push(Judged {
                version: entry.v,
                from: index,
                to: index,
            }),
        }
        if let Some(sessions) = &mut self.sessions {
            sessions.keep(index, entry, hash);
        }
        self.fold.push_with(index, entry, said, hash);
        self.logins.keep(&self.state, index, entry, said);
        self.vouchers.keep(&self.state, index, entry, said);
        if let Some(links) = &mut self.links {
            links.keep(&self.state, index, entry, said, hash);
        }
        self.refusals.keep(&entry.body);
        if self.opened.as_ref().is_some_and(|of| !of.contains(&index)) {
            return;
        }
        let commitments = commitments(&entry.body);
        if !commitments.is_empty() {
            let sealed = Sealed {
                commitments,
                step: step(&entry.body),
                passed: 0,
                action: action_of(entry),
            };
            self.sealed.insert(index, sealed);
        }
    }

    /// Checks that an opening is the content of a commitment of its entry. An entry's openings
    /// come in the order of its commitments, each once.
    pub(crate) fn opening(
        &mut self,
        index: u64,
        opening: ascribe_core::sealed::Opening,
    ) -> Result<(), Problem> {
        let sealed = self.sealed.get_mut(&index);
        let action = sealed.as_ref().and_then(|sealed| sealed.action);
        let fail = |code, promise, message: &str| {
            let mut found = problem(code, promise, message);
            found.index = Some(index);
            found.action = action;
            found
        };
        let opens = |s: &Sealable| s.is_opened_by(&opening);
        let step = sealed.as_ref().and_then(|sealed| sealed.step);
        if let Some((text, step)) = step
            && text == opening.commitment()
            && !step.is(&opening.bytes.0)
        {
            return Err(fail(
                "altered",
                "a step of a script is the statement that was approved",
                "the recorded text is another one",
            ));
        }
        let place = sealed.and_then(|sealed| {
            let (before, ahead) = sealed.commitments.split_at_checked(sealed.passed)?;
            match ahead.iter().position(opens) {
                Some(at) => {
                    sealed.passed += at + 1;
                    Some(true)
                }
                None => before.iter().any(opens).then_some(false),
            }
        });
        match place {
            Some(true) => {
                let forged = self
                    .logins
                    .check(&self.state, index, &opening.bytes.0)
                    .err();
                if let Some(denied) = forged {
                    let promise = "a login is what its provider signed";
                    return Err(fail("unsigned", promise, &denied.message));
                }
                self.fold.open(opening);
                Ok(())
            }
            Some(false) => Err(fail(
                "out_of_order",
                "a bundle has one order",
                "an opening is repeated or stands before an earlier one",
            )),
            None => Err(fail(
                "altered",
                "disclosed content is what was committed to",
                "an opening does not match its entry",
            )),
        }
    }

    pub(crate) fn finish(
        self,
        report: &mut Report,
        filter: &Filter,
        checkpoint: &Checkpoint,
        absent: &'static str,
    ) {
        report.law_head = self.state.law_head.map(|place| place.hash);
        report.versions.clone_from(&self.versions);
        report.actions = self.fold.actions(
            &self.state,
            filter,
            checkpoint.root,
            checkpoint.size,
            absent,
        );
        let wanted = |id: &SessionId| filter.session.is_none_or(|wanted| wanted == *id);
        report.logins = self.logins.proofs(&self.state, wanted);
        report.vouchers = self.vouchers.of(&self.state, &self.logins, wanted);
        report.names = self.fold.names();
        if let Some(links) = &self.links {
            let (logins, words, names) = (&self.logins, &self.vouchers, &report.names);
            let seen = report.witnessed.as_ref();
            report.links = links.of(&self.state, logins, words, &report.vouchers, names, seen);
        }
        let seen = report.witnessed.as_ref();
        let sessions = self.sessions.as_ref();
        report.sessions = sessions.map(|kept| kept.count(&self.state, &report.actions, seen));
        report.notes.extend(self.logins.unseen(&self.state));
        report.notes.extend(self.refusals.notes());
        let unchecked = self.logins.unchecked(&self.state, &report.logins);
        report.notes.extend((unchecked > 0).then(|| Note {
            code: "login_sealed",
            action: None,
            message: format!(
                "{unchecked} login(s) whose tokens are not disclosed here introduced keys that signed requests, approvals, \
                 delegations or changes; the log must be trusted for whose they were"
            )
            .into(),
        }));
        let sealed: BTreeSet<ActionId> = self.fold.sealed_streams().collect();
        let (code, message) = match absent {
            "missing" => ("missing", "part of what its streams carried is absent"),
            _ => (
                "withheld",
                "part of what its streams carried is not disclosed here",
            ),
        };
        let shown = report.actions.iter().map(|action| action.action_id);
        report
            .notes
            .extend(shown.filter(|id| sealed.contains(id)).map(|id| Note {
                code,
                action: Some(id),
                message: message.into(),
            }));
    }
}

#[cfg(test)]
mod tests {
    use ascribe_core::entry::{Intent, Writer};
    use ascribe_core::id::EntryId;
    use ascribe_core::sealed::Opening;
    use ascribe_core::time::Timestamp;

    use super::*;

    #[test]
    fn the_text_of_a_step_is_the_one_that_was_approved() {
        // SHA-256 of "abc" (FIPS 180-2, B.1).
        let approved = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        for (text, is) in [("abc", true), ("/* now */ abc;", true), ("abd", false)] {
            let text = Opening::new("command", [7; 32], text.as_bytes().to_vec());
            let intent: Intent = serde_json::from_value(serde_json::json!({
                "action": ascribe_core::id::ActionId::new([1; 16]),
                "command": text.commitment(),
                "forward_within_ms": 2000,
                "kind": "pg.query",
                "session": SessionId::new([2; 16]),
                "sql": { "classes": ["select"], "step": { "number": 0, "sha256": approved } },
            }))
            .unwrap();
            let entry = Entry {
                at: Timestamp::from_millis(0),
                body: Body::Intent(intent),
                id: EntryId::new([3; 16]),
                law: None,
                log: String::new(),
                refs: Vec::new(),
                v: 1,
                writer: Writer {
                    id: "gw".to_owned(),
                    prev: None,
                    seq: 0,
                },
            };
            let mut replay = Replay::new(State::new("test"));
            replay.keep(5, &entry, None, EntryHash(ascribe_tlog::Hash([0; 32])));
            let opened = replay.opening(5, text);
            assert_eq!(
                opened.err().map(|problem| problem.code),
                (!is).then_some("altered")
            );
        }
    }
}
