//! What led to the grant: delegations, the request, each yes, and the rules that were asked.

use ascribe_core::delegation::agent_id;
use ascribe_core::entry::SessionOpen;
use ascribe_core::id::PersonId;
use ascribe_core::law::{Approval, Ask, AskStatus, Asked};
use ascribe_core::statement::{Role, Say};

use super::{Listing, add};
use crate::links::{Link, LinkKind, Signer, Trusted, quoted};
use crate::vouchers;

impl Listing<'_> {
    pub(super) fn delegations(&mut self, open: &SessionOpen) -> Vec<Link> {
        let chain = open.delegation.map(|id| self.state.delegation_chain(id));
        let mut links = Vec::new();
        for (id, known) in chain.unwrap_or_default() {
            let agent = quoted(&known.delegation.agent, 63);
            let by = self.signer(known.person, &known.key);
            let (actions, until) = (known.delegation.actions, known.delegation.until);
            let targets = known.delegation.targets.iter();
            let targets: Vec<String> = targets.map(|target| quoted(target, 63)).collect();
            links.push(Link {
                link: LinkKind::Delegation,
                what: format!(
                    "{} lets {agent} act: {actions} action(s) on {} until {until}",
                    by.who(),
                    targets.join(", "),
                ),
                entries: vec![known.place.index],
                keys: Vec::new(),
                signed_by: vec![by],
                testimony: None,
                trust: self.holder(&known.key),
            });
            let Some(taken) = &known.accepted else {
                continue;
            };
            let said = taken.asserted.texts().next().is_some();
            let mut trust = vec![Trusted::holder()];
            if said {
                let what = "what the agent says of itself, which nobody checked";
                trust.push(Trusted::new("the same", what));
            }
            links.push(Link {
                link: LinkKind::Acceptance,
                what: format!("{agent} takes it"),
                entries: vec![taken.place.index],
                keys: Vec::new(),
                signed_by: vec![Signer {
                    principal: Some(agent_id(&self.state.origin, id)),
                    name: Some(known.delegation.agent.clone()),
                    with: "agent's key",
                    key: known.delegation.key.fingerprint(),
                }],
                testimony: None,
                trust,
            });
        }
        links
    }

    /// Request, approvals, extensions and the grant.
    pub(super) fn grant(&mut self, open: &SessionOpen) -> Vec<Link> {
        let Some(grant) = self.state.grants.get(&open.grant) else {
            return Vec::new();
        };
        let mut links = Vec::new();
        let Some(ask) = self.state.asks.get(&grant.request) else {
            return Vec::new();
        };
        let place = format!(
            "{}@{}",
            quoted(&grant.grant.account, 64),
            quoted(&grant.grant.target, 64)
        );
        let emergency = matches!(ask.asked, Asked::Emergency(_));
        let who = self.shown(ask.by);
        let what = match (emergency, grant.grant.person == ask.by) {
            (true, _) => format!("{who} took {place} in an emergency, which needs no yes"),
            (false, true) => format!("{who} asked for {place}"),
            (false, false) => format!(
                "{who} asked for {place} for {}",
                self.shown(grant.grant.person)
            ),
        };
        let role = (!emergency).then_some(Role::Requester);
        links.push(self.statement(LinkKind::Request, (ask, role), what));
        for yes in &grant.approvals {
            links.push(self.approval(yes, ask));
        }
        links.push(self.law(grant.place.index, &place, grant.grant.break_glass));
        let extension = |ask: &&Ask| {
            ask.status == AskStatus::Granted
                && matches!(&ask.asked, Asked::Extension(e) if e.grant == open.grant)
        };
        let mut extensions: Vec<&Ask> = self.state.asks.values().filter(extension).collect();
        extensions.sort_by_key(|ask| ask.place.index);
        for ask in extensions {
            let what = format!("{} asked for a later end of it", self.shown(ask.by));
            links.push(self.statement(LinkKind::Extension, (ask, None), what));
            for yes in &ask.approvals {
                links.push(self.approval(yes, ask));
            }
            if let Some(later) = self.kept.extended.get(&ask.place.index) {
                links.push(self.law(*later, "the later end", false));
            }
        }
        links
    }

    fn statement(
        &mut self,
        link: LinkKind,
        (ask, role): (&Ask, Option<Role>),
        what: String,
    ) -> Link {
        let mut trust = self.holder(&ask.key);
        if let Some(role) = role {
            trust.extend(self.role(ask.by, role, ask.place.index));
        }
        Link {
            link,
            what,
            entries: vec![ask.place.index],
            keys: Vec::new(),
            signed_by: vec![self.signer(ask.by, &ask.key)],
            testimony: None,
            trust,
        }
    }

    fn approval(&mut self, yes: &Approval, ask: &Ask) -> Link {
        let mut trust = self.holder(&yes.key);
        trust.extend(self.role(yes.by, Role::Approver, yes.place.index));
        let mut what = format!("{} said yes", self.shown(yes.by));
        let at = yes.place.index;
        let vouchers = self.vouchers;
        for voucher in vouchers.iter().filter(|voucher| voucher.approval == at) {
            let (depends, said, parties) = vouchers::parts(voucher, self.names);
            let entry = voucher.entry;
            what.push_str(&format!(", and {depends}: {said} (entry {entry})"));
            add(&mut trust, parties);
            let managed = voucher.groups.is_empty().then_some(ask.by);
            let word = (entry, &voucher.source);
            self.word(word, &voucher.groups, (yes.by, managed), at);
        }
        Link {
            link: LinkKind::Approval,
            what,
            entries: vec![yes.place.index],
            keys: Vec::new(),
            signed_by: vec![self.signer(yes.by, &yes.key)],
            testimony: None,
            trust,
        }
    }

    /// Whose word gave somebody a role that nobody enrolled them with.
    pub(super) fn role(&mut self, who: PersonId, role: Role, at: u64) -> Vec<Trusted> {
        let enrolled = self.state.people.get(&who);
        if enrolled.is_some_and(|person| person.roles.contains(&role)) {
            return Vec::new();
        }
        let role = format!("{role:?}").to_lowercase();
        let what = format!("the role `{role}`, which no administrator gave them by name");
        let (kept, mut trust) = (self.kept, Vec::new());
        for gave in kept.gave.get(&at).into_iter().flatten() {
            let source = self.words.source(self.state, self.logins, gave.entry);
            let Some(source) = source else { continue };
            let (_, parties) = vouchers::whom(&source, &what, self.names);
            let groups = std::slice::from_ref(&gave.group);
            self.word((gave.entry, &source), groups, (who, None), at);
            add(&mut trust, parties);
        }
        if trust.is_empty() {
            trust.push(Trusted::new("the log", what));
        }
        trust
    }

    /// That something follows, which nobody signs, with the entry that says so.
    pub(super) fn law(&mut self, entry: u64, place: &str, emergency: bool) -> Link {
        let rules = self.kept.judged.get(&entry);
        let rules = rules.and_then(|rules| self.proposal_at(*rules));
        let rules = rules.and_then(|ask| match &ask.asked {
            Asked::Proposal(Say::TargetSet(target)) => Some((ask, target.quorum)),
            _ => None,
        });
        let what = match rules {
            Some((ask, _)) if emergency => format!(
                "{place} follows from that by the target's rules in entry {}",
                ask.place.index
            ),
            Some((ask, needed)) => format!(
                "{place} follows from that: the target's rules in entry {} ask for {needed} yes",
                ask.place.index
            ),
            None => format!("{place} follows from that by rules that were not found here"),
        };
        let by = rules.map(|(ask, _)| self.administrators(ask));
        let trust = match by {
            Some(by) => self.by_quorum(&by, "the target's rules"),
            None => vec![Trusted::new("the log", "what the target's rules were")],
        };
        Link {
            link: LinkKind::Grant,
            what,
            entries: vec![entry],
            keys: Vec::new(),
            signed_by: Vec::new(),
            testimony: None,
            trust,
        }
    }
}
