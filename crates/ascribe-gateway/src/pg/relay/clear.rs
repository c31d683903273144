//! Puts a burst on record as a whole, and says what of it may be forwarded and what goes in the place of the rest.

use std::collections::VecDeque;
use std::time::Instant;

use ascribe_core::entry::Status;
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::ActionId;
use ascribe_core::law::Denied;
use ascribe_core::record::GrantView;
use ascribe_wire::pg::encode;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::session::{End, Number};
use bytes::Bytes;

use super::super::door::{fatal, told};
use super::super::outcomes::outcome;
use super::burst::{Carries, Item};
use super::forward::Cleared;
use super::{Over, Relay, Unrecorded, lock};
use crate::life::Shut;

impl Relay<'_> {
    /// Records all of it at once, and says what may be forwarded.
    pub(super) async fn clear(
        &self,
        ready: Vec<(Item, Vec<Action>)>,
    ) -> Result<Vec<Cleared>, Over> {
        let life = &self.session.life;
        let begun = Instant::now();
        let actions = ready.iter().flat_map(|(_, actions)| actions).cloned();
        let actions: Vec<Action> = actions.collect();
        *lock(&self.unrecorded) = unrecorded(&ready, &actions);
        let gated = life.gate_all(actions).await;
        self.settle_unrecorded(&gated);
        let mut gated = gated.into_iter();
        let with_results = |(item, actions): (Item, Vec<Action>)| {
            let results: Vec<_> = gated.by_ref().take(actions.len()).collect();
            (item, actions, results)
        };
        let mut ready: VecDeque<_> = ready.into_iter().map(with_results).collect();
        let mut out = Vec::new();
        let mut dropping = false;
        while let Some((item, actions, results)) = ready.pop_front() {
            dropping &= !matches!(item.what, Carries::Sync);
            if dropping && !matches!(item.what, Carries::Flush) {
                self.not_sent(&actions, &results).await;
                continue;
            }
            let Some(number) = item.number else { continue };
            let refusal = match &item.what {
                Carries::Nothing | Carries::Sync | Carries::Flush => {
                    out.push(Cleared::Free(item.bytes));
                    continue;
                }
                Carries::Refused(code, why) => Some(error(code, why, None, None)),
                Carries::Runs(_) | Carries::Begins(_) | Carries::Readies(_, None) => {
                    self.refusal(&actions, &results, begun).await
                }
                // It goes where what runs it goes.
                Carries::Readies(_, Some(by)) => {
                    let run = ready.iter().find(|(later, ..)| later.number == Some(*by));
                    let (_, actions, results) =
                        run.ok_or_else(|| Over::Wrong("a message that is lost".to_owned()))?;
                    let refusal = self.refusal(actions, results, begun).await;
                    if refusal.is_none() {
                        out.push(Cleared::Free(item.bytes));
                        continue;
                    }
                    refusal
                }
            };
            let Some(report) = refusal else {
                let recorded: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
                let ids = recorded.iter().map(Recorded::id).collect();
                match &item.what {
                    Carries::Begins(action) => lock(&self.running).taken_in = Some(action.action),
                    _ => self.sent(number, ids),
                }
                out.push(Cleared::Recorded(recorded, item.bytes));
                continue;
            };
            self.not_sent(&actions, &results).await;
            if item.rest {
                return Err(Over::Wrong(String::from_utf8_lossy(&report.message).into()));
            }
            let denied = lock(&self.tracker).deny(number, encode::error_response(&report));
            let denied = denied.map_err(|error| Over::Wrong(error.to_string()))?;
            if !denied.instead.is_empty() {
                out.push(Cleared::Free(denied.instead));
            }
            dropping = denied.whole_group;
        }
        Ok(out)
    }

    /// What the ledger took in is known now; what it may not have is named to the client at the end.
    fn settle_unrecorded(&self, gated: &[Result<Recorded, Shut>]) {
        let mut unrecorded = lock(&self.unrecorded);
        let away = gated.iter().find_map(|result| match result {
            Err(Shut::NotSent(why)) => Some(why),
            _ => None,
        });
        match (&mut *unrecorded, away) {
            (Some(unrecorded), Some(why)) => unrecorded.why.clone_from(why),
            (unrecorded, _) => *unrecorded = None,
        }
    }

    /// What the client is told of what is not on record, where nothing before it waits for an answer, whose place that
    /// would take; and in any case what the end is to say of it.
    pub(super) fn of_unrecorded(&self) -> Option<(Option<Report>, String)> {
        let Unrecorded { from, action, why } = lock(&self.unrecorded).take()?;
        let before = from.0.checked_sub(1).map(Number);
        let tracker = lock(&self.tracker);
        let first = before.is_none_or(|before| tracker.is_answered(before));
        // It may have been told in its turn already.
        let first = first && !tracker.is_answered(from);
        let id = format!("action {action}");
        let report = first.then(|| error("58030", &why, Some(id.clone()), None));
        Some((
            report,
            format!("{id} is not known to be on record, and was not run"),
        ))
    }

    /// Something recorded is sent now. Where its group has failed meanwhile, the target throws it away.
    fn sent(&self, number: Number, ids: Vec<ActionId>) {
        let mut running = lock(&self.running);
        running.sent(number, ids);
        if !lock(&self.tracker).tell(number) {
            running.end(number, &End::Skipped);
        }
    }

    /// Why a message must not be forwarded, as its client is told, if so.
    async fn refusal(
        &self,
        actions: &[Action],
        results: &[Result<Recorded, Shut>],
        begun: Instant,
    ) -> Option<Report> {
        let life = &self.session.life;
        for (action, result) in actions.iter().zip(results) {
            let id = action.action;
            match result {
                Ok(_) => {}
                Err(Shut::NotRecorded(denied)) => {
                    if let Some(refusal) = life.refusal(action.kind, denied.code, &detail(action)) {
                        life.record_refusal(refusal).await;
                    }
                    return Some(denied_error(denied, &self.session.view, id));
                }
                Err(Shut::NotSent(why)) => {
                    let id = format!("action {id}");
                    return Some(error("58030", why, Some(id), None));
                }
            }
        }
        let first = results.first().and_then(|result| result.as_ref().ok())?;
        let why = life.too_late(first, begun)?;
        Some(error("57P01", why, None, None))
    }

    /// What was recorded of a message that is not forwarded is said to be so.
    async fn not_sent(&self, actions: &[Action], results: &[Result<Recorded, Shut>]) {
        let recorded = actions.iter().zip(results);
        let recorded = recorded.filter(|(_, result)| !matches!(result, Err(Shut::NotRecorded(_))));
        let outcomes = recorded.map(|(action, _)| outcome(action.action, Status::NotSent, None));
        self.report(outcomes.collect()).await;
    }
}

/// What a burst holds that the ledger has yet to take in.
fn unrecorded(ready: &[(Item, Vec<Action>)], actions: &[Action]) -> Option<Unrecorded> {
    let from = ready.iter().find_map(|(item, _)| item.number)?;
    let action = actions.first()?.action;
    let why = "not recorded, so not run: the ledger did not answer".to_owned();
    Some(Unrecorded { from, action, why })
}

/// An error that leaves the session as it is.
fn error(
    code: &'static str,
    message: &str,
    detail: Option<String>,
    hint: Option<String>,
) -> Report {
    Report {
        severity: Bytes::from_static(b"ERROR"),
        detail: detail.map(told),
        hint: hint.map(told),
        ..fatal(code, format!("ascribe: {message}"), "")
    }
}

fn denied_error(denied: &Denied, view: &GrantView, id: ActionId) -> Report {
    let hint = denied.help.clone().unwrap_or_else(|| how_to_ask(view));
    let message = format!("not recorded, so not run: {}", denied.message);
    error("42501", &message, Some(format!("action {id}")), Some(hint))
}

/// The way to a grant that is for more than this one.
fn how_to_ask(view: &GrantView) -> String {
    let scope = view.sql.as_ref();
    if let Some(job) = scope.and_then(|scope| scope.job.as_ref()) {
        return format!(
            "a job runs what was approved; have `{}` approved anew: ascribe job add",
            job.name
        );
    }
    let script = match scope.is_some_and(|scope| !scope.script.is_empty()) {
        true => " --script FILE",
        false => "",
    };
    format!(
        "ask for it: ascribe request {}@{}{script} --for 1h --why \"...\"",
        view.account, view.target.name
    )
}

/// What a refusal says of its statement: it is sealed.
fn detail(action: &Action) -> String {
    const SHOWN: usize = 4096;
    let text = action.command.as_deref().unwrap_or_default();
    let text = ascribe_core::text::clean_bytes(text, SHOWN);
    format!("action {} {text}", action.action)
}
