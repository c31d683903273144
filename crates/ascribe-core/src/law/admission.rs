//! Which grant lets somebody in who logged in, and what they are told where none does.

use super::view::opens;
use super::{Ask, Asked, Denied, GrantState, State};
use crate::entry::Grant;
use crate::id::{PersonId, StatementId};
use crate::record::{Admission, GrantView, Wanted};
use crate::statement::Role;
use crate::time::Timestamp;

impl State {
    /// Which grant lets this actor in?
    pub fn admit(&self, at: Timestamp, wanted: &Wanted<'_>) -> Admission {
        match self.find_grant(at, wanted) {
            Ok(view) => Admission::Grant(Box::new(view)),
            Err(denied) => Admission::Refused(denied),
        }
    }

    fn find_grant(&self, at: Timestamp, wanted: &Wanted<'_>) -> Result<GrantView, Denied> {
        let Wanted {
            person,
            account,
            target,
            chosen,
            delegation,
        } = *wanted;
        let rules = &self.target(target)?.target;
        super::rules::check_account(rules, account)?;
        let fits = |grant: &Grant| {
            grant.person == person && grant.target == target && grant.account == account
        };
        let mine: Vec<&GrantState> = self
            .grants
            .values()
            .filter(|s| fits(&s.grant) && chosen.is_none_or(|c| c == s.grant.grant))
            // Break-glass is for the person alone.
            .filter(|s| delegation.is_none() || !s.grant.break_glass)
            .collect();
        let usable: Vec<&GrantState> = mine
            .iter()
            .copied()
            .filter(|s| self.is_usable(s, at))
            .collect();
        let preferred = self
            .chosen
            .get(&(person, account.to_owned(), target.to_owned()));
        let state = match usable.as_slice() {
            [] => return Err(self.no_grant(at, wanted, &mine)),
            [one] => *one,
            several => match several.iter().find(|s| Some(&s.grant.grant) == preferred) {
                Some(state) => state,
                None => return Err(self.ambiguous(at, wanted, several)),
            },
        };
        self.check_witnessed(state, rules, at)?;
        let window = state.grant.window_at(at);
        Ok(GrantView {
            grant: state.grant.grant,
            person,
            target: rules.clone(),
            account: account.to_owned(),
            not_before: window.map_or(state.grant.not_before, |w| w.from),
            not_after: window.map_or(state.grant.not_after, |w| w.until),
            ticket: state
                .ticket
                .as_ref()
                .map(|t| format!("{}:{}", t.system, t.id)),
            break_glass: state.grant.break_glass,
            forwards: state.grant.forwards.clone(),
            sql: state.grant.sql.clone(),
        })
    }

    fn no_grant(&self, at: Timestamp, wanted: &Wanted<'_>, mine: &[&GrantState]) -> Denied {
        let Wanted {
            person,
            account,
            target,
            delegation,
            ..
        } = *wanted;
        if let Some((id, ask)) = self.pending(at, wanted) {
            let who = listed(self.approvers(ask));
            return Denied::new("pending", format!("your request `{id}` waits for approval"))
                .with_help(format!("{who} can approve it: ascribe approve {id}"));
        }
        let newest = mine.iter().max_by_key(|s| s.grant.not_after);
        let (code, why) = match newest {
            None => ("no-grant", "you hold no grant for it".to_owned()),
            Some(s) if s.revoked.is_some() => ("revoked", "your grant was revoked".to_owned()),
            Some(s) if at >= s.grant.not_after => (
                "expired",
                format!("your grant ended at {}", s.grant.not_after),
            ),
            Some(s) => match s.grant.next_opening(at) {
                Some(next) => ("not-yet", format!("your grant {}", opens(&s.grant, next))),
                None => (
                    "used",
                    "your grant was for one session, which was opened".to_owned(),
                ),
            },
        };
        // Whoever asks: nobody approves their own request.
        let asks = self.answers_for(person);
        let approvers = self
            .people
            .iter()
            .filter(|(id, p)| p.may(Role::Approver) && Some(**id) != asks);
        let who = listed(approvers.map(|(id, _)| *id));
        let workload = self.workloads.get(&person).map(|w| &w.workload);
        let (asker, option) = match (workload, asks, delegation) {
            (Some(workload), Some(owner), _) => (
                format!("{owner} asks"),
                format!(" --workload {}", workload.name),
            ),
            (_, Some(principal), Some(_)) => (format!("{principal} asks"), String::new()),
            _ => ("ask".to_owned(), String::new()),
        };
        Denied::new(code, format!("no access to {account}@{target}: {why}")).with_help(format!(
            "{asker}: ascribe request {account}@{target}{option} --for 1h --why \"...\"   (can approve: {who})"
        ))
    }

    /// The request of theirs that would let them in, were it approved.
    fn pending(&self, at: Timestamp, wanted: &Wanted<'_>) -> Option<(StatementId, &Ask)> {
        self.open_asks().find(|(_, ask)| {
            matches!(&ask.asked, Asked::Request(request)
                if request.beneficiary.unwrap_or(ask.by) == wanted.person
                    && request.target == wanted.target
                    && request.account == wanted.account
                    && at < request.not_after)
        })
    }

    fn ambiguous(&self, at: Timestamp, wanted: &Wanted<'_>, several: &[&GrantState]) -> Denied {
        let Wanted {
            person,
            account,
            target,
            delegation,
            ..
        } = *wanted;
        let list: Vec<String> = several
            .iter()
            .map(|s| {
                let ticket = s
                    .ticket
                    .as_ref()
                    .map_or(String::new(), |t| format!(", {}:{}", t.system, t.id));
                let window = s.grant.window_at(at);
                let until = window.map_or(s.grant.not_after, |w| w.until);
                format!("{} (until {until}{ticket})", s.grant.grant)
            })
            .collect();
        let first = several
            .first()
            .map_or(String::new(), |s| s.grant.grant.to_string());
        // Workloads and agents say no `use`.
        let alone = delegation.is_none() && !self.workloads.contains_key(&person);
        let help = if alone {
            format!("choose one: ascribe use {first}   (or log in as {account}+{first}@{target})")
        } else {
            format!("choose one: log in as {account}+{first}@{target}")
        };
        Denied::new(
            "ambiguous",
            format!(
                "{} of your grants fit {account}@{target}: {}",
                list.len(),
                list.join("; ")
            ),
        )
        .with_help(help)
    }
}

fn listed(people: impl IntoIterator<Item = PersonId>) -> String {
    let people: Vec<String> = people.into_iter().map(|id| id.to_string()).collect();
    if people.is_empty() {
        return "nobody".to_owned();
    }
    people.join(", ")
}
