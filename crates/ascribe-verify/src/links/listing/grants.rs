//! What led to the grant: delegations, the request, each yes, and the rules that were asked.

use ascribe_core::delegation::agent_id;
use ascribe_core::entry::SessionOpen;
use ascribe_core::id::PersonId;
use ascribe_core::law::{Approval, Ask, AskStatus, Asked, Person};
use ascribe_core::statement::{Role, Say};

use super::enrolments::By;
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
            links.push(self.approval(yes, ask, Some(grant.place.index)));
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
            let later = self.kept.extended.get(&ask.place.index).copied();
            for yes in &ask.approvals {
                links.push(self.approval(yes, ask, later));
            }
            if let Some(later) = later {
                links.push(self.law(later, "the later end", false));
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
            trust.extend(self.role((ask.by, &ask.key), role, ask.place.index));
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

    /// A yes, and the rules that it was one by, where they are others than those by which the entry `led_to` follows.
    fn approval(&mut self, yes: &Approval, ask: &Ask, led_to: Option<u64>) -> Link {
        let mut trust = self.holder(&yes.key);
        let at = yes.place.index;
        add(
            &mut trust,
            self.role((yes.by, &yes.key), Role::Approver, at),
        );
        let mut what = format!("{} said yes", self.shown(yes.by));
        let judged = &self.kept.judged;
        let (then, later) = (judged.get(&at), led_to.and_then(|entry| judged.get(&entry)));
        if then != later {
            let rules = then.and_then(|rules| self.proposal_at(*rules));
            let for_what = "the target's rules at that time";
            let by = match rules {
                Some(rules) => {
                    let entry = rules.place.index;
                    what.push_str(&format!(" by the target's rules in entry {entry}"));
                    let by = self.administrators(rules);
                    self.by_quorum(&by, for_what)
                }
                None => vec![Trusted::new("the log", for_what)],
            };
            add(&mut trust, by);
        }
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

    /// Who enrolled somebody with a role, where the link of the key does not say it: it came by a login, or later.
    fn enrolled_as(&mut self, key: &str, person: &Person, role: &str) -> Vec<Trusted> {
        let place = person.place.index;
        let with_it = self.enrolled.get(key).is_some_and(|known| {
            let effect = match known.source {
                By::First => Some(0),
                By::Proposal(id) => self.kept.effects.get(&id).map(|effect| effect.place),
            };
            effect == Some(place)
        });
        if with_it {
            return Vec::new();
        }
        let what = format!("the role `{role}`");
        match self.proposal_at(place) {
            Some(ask) => {
                let by = self.administrators(ask);
                let what = format!("{what}, given in entry {}", ask.place.index);
                self.by_quorum(&by, &what)
            }
            None if place == 0 => {
                vec![Trusted::new("whoever gave you the trust policy", what)]
            }
            None => vec![Trusted::new("the log", what)],
        }
    }

    /// Whose word gave somebody a role.
    pub(super) fn role(
        &mut self,
        (who, key): (PersonId, &str),
        role: Role,
        at: u64,
    ) -> Vec<Trusted> {
        let (name, enrolled) = (format!("{role:?}").to_lowercase(), &self.state.people);
        if let Some(person) = enrolled.get(&who)
            && person.roles.contains(&role)
        {
            return self.enrolled_as(key, person, &name);
        }
        let role = name;
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
