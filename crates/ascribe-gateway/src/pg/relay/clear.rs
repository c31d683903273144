//! Puts a burst on record as a whole, and says what of it may be forwarded and what goes in the place of the rest.

use std::collections::VecDeque;
use std::time::Instant;

use ascribe_core::entry::{CloseReason, Status};
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::ActionId;
use ascribe_core::law::Denied;
use ascribe_core::record::{GrantView, Proposal};
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

/// A message, what it is recorded as, and what became of that.
type Judged = (Item, Vec<Action>, Vec<Result<Recorded, Shut>>);

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
        let silent = "not recorded, so not run: the ledger did not answer";
        *lock(&self.unrecorded) = unrecorded(&ready, 0, silent);
        self.ended.if_many(life).await;
        let gated = life.gate_all(actions).await;
        self.settle_unrecorded(&ready, &gated);
        let mut gated = gated.into_iter();
        let with_results = |(item, actions): (Item, Vec<Action>)| {
            let results: Vec<_> = gated.by_ref().take(actions.len()).collect();
            (item, actions, results)
        };
        let mut ready: VecDeque<Judged> = ready.into_iter().map(with_results).collect();
        life.record_refusals(self.refusals(&ready)).await;
        if life.over.is_cancelled() {
            for (_, actions, results) in &ready {
                self.not_sent(actions, results);
            }
            return Err(Over::Ended);
        }
        // From here to the target nothing waits: what is not too late now goes now.
        let mut out = Vec::new();
        let mut dropping = false;
        while let Some((item, actions, results)) = ready.pop_front() {
            dropping &= !matches!(item.what, Carries::Sync);
            if dropping && !matches!(item.what, Carries::Flush) {
                self.not_sent(&actions, &results);
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
                    self.refusal(&actions, &results, begun)
                }
                // It goes where what runs it goes.
                Carries::Readies(_, Some(by)) => {
                    let (_, actions, results) = run(&ready, *by)
                        .ok_or_else(|| Over::Wrong("a message that is lost".to_owned()))?;
                    let refusal = self.refusal(actions, results, begun);
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
            self.not_sent(&actions, &results);
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

    /// What the ledger took in is known now. Where it may not have all of it, nothing more is run, and what it may not have
    /// is named to the client at the end.
    fn settle_unrecorded(&self, ready: &[(Item, Vec<Action>)], gated: &[Result<Recorded, Shut>]) {
        let away = gated
            .iter()
            .enumerate()
            .find_map(|(at, result)| match result {
                Err(Shut::NotSent(why)) => Some((at, why)),
                _ => None,
            });
        *lock(&self.unrecorded) = away.and_then(|(at, why)| unrecorded(ready, at, why));
        if away.is_some() {
            self.session.life.end(CloseReason::LedgerUnavailable);
        }
    }

    /// The entries that say what of a burst was refused. What is thrown away behind a refusal is none.
    fn refusals(&self, ready: &VecDeque<Judged>) -> Vec<Proposal> {
        let mut found = Vec::new();
        let mut dropping = false;
        for (item, actions, results) in ready {
            dropping &= !matches!(item.what, Carries::Sync);
            let Some(number) = item.number.filter(|_| !dropping) else {
                continue;
            };
            let judged = match &item.what {
                Carries::Nothing | Carries::Sync | Carries::Flush => continue,
                Carries::Refused(..) => None,
                Carries::Runs(_) | Carries::Begins(_) | Carries::Readies(_, None) => {
                    Some((actions, results))
                }
                Carries::Readies(_, Some(by)) => {
                    run(ready, *by).map(|(_, actions, results)| (actions, results))
                }
            };
            let refused = judged.map(|(actions, results)| first_refused(actions, results));
            if let Some(Some((action, Shut::NotRecorded(denied)))) = refused {
                let life = &self.session.life;
                found.extend(life.refusal(action.kind, denied.code, &detail(action)));
            }
            let stays = matches!(refused, Some(None));
            dropping = !stays && lock(&self.tracker).is_denied_as_group(number);
        }
        found
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
    fn refusal(
        &self,
        actions: &[Action],
        results: &[Result<Recorded, Shut>],
        begun: Instant,
    ) -> Option<Report> {
        let life = &self.session.life;
        match first_refused(actions, results) {
            Some((action, Shut::NotRecorded(denied))) => {
                return Some(denied_error(denied, &self.session.view, action.action));
            }
            Some((action, Shut::NotSent(why))) => {
                let id = format!("action {}", action.action);
                return Some(error("58030", why, Some(id), None));
            }
            None => {}
        }
        let first = results.first().and_then(|result| result.as_ref().ok())?;
        let why = life.too_late(first, begun)?;
        Some(error("57P01", why, None, None))
    }

    /// What was recorded of a message that is not forwarded is said to be so.
    fn not_sent(&self, actions: &[Action], results: &[Result<Recorded, Shut>]) {
        let recorded = actions.iter().zip(results);
        let recorded = recorded.filter(|(_, result)| !matches!(result, Err(Shut::NotRecorded(_))));
        let outcomes = recorded.map(|(action, _)| outcome(action.action, Status::NotSent, None));
        self.report(outcomes.collect());
    }
}

/// The message that runs it.
fn run(ready: &VecDeque<Judged>, by: Number) -> Option<&Judged> {
    ready.iter().find(|(later, ..)| later.number == Some(by))
}

/// The first action of a message that must not be sent, and why.
fn first_refused<'a>(
    actions: &'a [Action],
    results: &'a [Result<Recorded, Shut>],
) -> Option<(&'a Action, &'a Shut)> {
    let mut judged = actions.iter().zip(results);
    judged.find_map(|(action, result)| Some((action, result.as_ref().err()?)))
}

/// Of a burst, what the ledger has not taken in, or may not have: the action that is the `at`th of all. What readies it goes with it.
fn unrecorded(ready: &[(Item, Vec<Action>)], at: usize, why: &str) -> Option<Unrecorded> {
    let mut actions = ready
        .iter()
        .flat_map(|(item, actions)| actions.iter().map(move |action| (item, action)));
    let (item, action) = actions.nth(at)?;
    let number = item.number?;
    let readies = |item: &Item| matches!(item.what, Carries::Readies(_, Some(by)) if by == number);
    let first = ready.iter().find(|(item, _)| readies(item));
    Some(Unrecorded {
        from: first.and_then(|(item, _)| item.number).unwrap_or(number),
        action: action.action,
        why: why.to_owned(),
    })
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
