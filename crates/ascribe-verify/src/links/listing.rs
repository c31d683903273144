//! Making the list: from the session back to whatever its links rest on.

mod enrolments;
mod grants;
mod logins;
mod session;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::delegation::agent_id;
use ascribe_core::entry::SessionOpen;
use ascribe_core::id::{PersonId, StatementId};
use ascribe_core::law::{Ask, Asked, State};
use ascribe_core::statement::Say;

use super::{Effect, Link, LinkKind, Links, Names, Signer, Trusted, list, quoted, shown};
use crate::logins::Logins;
use crate::vouchers::{Voucher, Vouchers};
use crate::witnesses::Witnessed;
use enrolments::{By, Enrolled, enrolled};

/// Nobody is named twice for the same thing.
fn add(trust: &mut Vec<Trusted>, parties: Vec<Trusted>) {
    for party in parties {
        if !trust.contains(&party) {
            trust.push(party);
        }
    }
}

/// A list in the making.
pub(super) struct Listing<'a> {
    kept: &'a Links,
    state: &'a State,
    logins: &'a Logins,
    words: &'a Vouchers,
    vouchers: &'a [Voucher],
    names: &'a Names,
    enrolled: BTreeMap<String, Enrolled>,
    session_keys: BTreeMap<String, StatementId>,
    /// The entries with which proposals had all the approvals that they needed.
    carried: BTreeSet<u64>,
    /// Keys that signed something that is listed: whose they are is to be listed, too.
    wanted: Vec<String>,
    /// Logins, and what administrators set that links rest on.
    rules: Vec<Link>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(
        kept: &'a Links,
        state: &'a State,
        logins: &'a Logins,
        (words, vouchers): (&'a Vouchers, &'a [Voucher]),
        names: &'a Names,
    ) -> Self {
        let logged_in = state.logins.iter();
        Self {
            kept,
            state,
            logins,
            words,
            vouchers,
            names,
            enrolled: enrolled(state),
            session_keys: logged_in
                .map(|(id, login)| (login.key.fingerprint(), *id))
                .collect(),
            carried: kept.effects.values().map(|effect| effect.place).collect(),
            wanted: Vec::new(),
            rules: Vec::new(),
        }
    }

    pub(super) fn list(
        mut self,
        open: &SessionOpen,
        at: u64,
        witnessed: Option<&Witnessed>,
    ) -> Vec<Link> {
        let mut links = Vec::new();
        links.extend(self.delegations(open));
        links.extend(self.grant(open));
        links.extend(self.opening(open, at));
        links.extend(self.record());
        links.extend(self.order(witnessed));
        // Whoever enrolled, registered and linked signed with keys as well.
        let authority = self.authority(open, at);
        let (mut seen, mut people) = (BTreeSet::new(), Vec::new());
        while let Some(key) = self.wanted.pop() {
            if !seen.insert(key.clone()) {
                continue;
            }
            if let Some(id) = self.session_keys.get(&key).copied() {
                self.login(id);
            } else if let Some(known) = self.enrolled.get(&key) {
                let (person, source) = (known.person, known.source);
                if let By::Proposal(id) = source
                    && let Some(ask) = self.state.asks.get(&id)
                {
                    self.administrators(ask);
                }
                people.push((source, person, key));
            }
        }
        // Each rests on earlier ones.
        let mut rules = std::mem::take(&mut self.rules);
        rules.sort_by_key(|link| (link.entries.first().copied(), link.link));
        let chain = self.enrolments(people).into_iter().chain(authority);
        chain.chain(rules).chain(links).collect()
    }

    /// Several links may rest on the same one.
    fn put(&mut self, link: Option<Link>) {
        if let Some(link) = link
            && !self.rules.contains(&link)
        {
            self.rules.push(link);
        }
    }

    fn shown(&self, id: PersonId) -> String {
        shown(self.names, id)
    }

    fn signer(&self, by: PersonId, key: &str) -> Signer {
        let principal = |id: PersonId, with| Signer {
            principal: Some(id),
            name: self.names.get(&id).cloned(),
            with,
            key: key.to_owned(),
        };
        if let Some(known) = self.enrolled.get(key) {
            return match known.touched {
                true => principal(by, "enrolled security key"),
                false => principal(by, "enrolled key"),
            };
        }
        let login = self.session_keys.get(key);
        if let Some(login) = login.and_then(|id| self.state.logins.get(id)) {
            return match login.login.bearer {
                true => principal(by, "key that the gateway made for one connection"),
                false => principal(by, "session key"),
            };
        }
        // Anybody may delegate to any key: it is an agent's with what that agent took.
        let mut agents = self.state.delegations.iter();
        let agent = agents.find(|(_, known)| {
            known.accepted.is_some() && known.delegation.key.fingerprint() == key
        });
        match agent {
            Some((id, known)) => Signer {
                name: Some(known.delegation.agent.clone()),
                ..principal(agent_id(&self.state.origin, *id), "agent's key")
            },
            None => principal(by, "certified key"),
        }
    }

    /// What one must believe of whoever holds a key, where a statement is signed with it.
    fn holder(&mut self, key: &str) -> Vec<Trusted> {
        self.wanted.push(key.to_owned());
        let mut trust = vec![Trusted::holder()];
        let login = self.session_keys.get(key);
        if let Some(login) = login.and_then(|id| self.state.logins.get(id)) {
            let issuer = quoted(&login.provider.issuer, 200);
            trust.push(Trusted::new(issuer, "whose key that is, by its login"));
        }
        trust
    }

    /// Whose signatures a proposal had that took effect, its proposer first. While it waited for witnesses others may
    /// have said yes as well, which it did not need.
    fn administrators(&mut self, ask: &Ask) -> Vec<Signer> {
        let yes = ask.approvals.iter();
        let yes = yes.map(|yes| (yes.by, &yes.key, yes.place.index));
        let mut signed = Vec::new();
        for (by, key, place) in [(ask.by, &ask.key, ask.place.index)].into_iter().chain(yes) {
            self.wanted.push(key.clone());
            signed.push(self.signer(by, key));
            if self.carried.contains(&place) {
                break;
            }
        }
        signed
    }

    fn quorum(&self) -> u32 {
        self.state
            .genesis
            .as_ref()
            .map_or(0, |genesis| genesis.admin_quorum)
    }

    /// What administrators are trusted for.
    fn by_quorum(&self, signed_by: &[Signer], what: &str) -> Vec<Trusted> {
        let who: Vec<String> = signed_by.iter().map(Signer::who).collect();
        let needed = match self.quorum() {
            1 => "one administrator is enough".to_owned(),
            quorum => format!("{quorum} administrators are needed"),
        };
        vec![Trusted::new(list(&who), format!("{what}: {needed}"))]
    }

    /// The proposals of that content that held by that entry, the newest first.
    fn proposals(&self, by: u64, is: impl Fn(&Say) -> bool) -> Vec<&'a Ask> {
        let (state, effects) = (self.state, self.kept.effects.iter());
        let held = effects.filter(|(_, effect)| effect.since <= by);
        let held = held.filter_map(|(id, effect)| Some((effect, state.asks.get(id)?)));
        let mut that: Vec<(&Effect, &Ask)> = held
            .filter(|(_, ask)| matches!(&ask.asked, Asked::Proposal(say) if is(say)))
            .collect();
        // What one word of witnesses settles takes effect in the order in which it was approved.
        that.sort_by_key(|(effect, _)| Reverse((effect.since, effect.place)));
        that.into_iter().map(|(_, ask)| ask).collect()
    }

    /// The newest of them.
    fn proposal(&self, by: u64, is: impl Fn(&Say) -> bool) -> Option<&'a Ask> {
        self.proposals(by, is).first().copied()
    }

    /// The proposal that other entries link to at this one.
    fn proposal_at(&self, place: u64) -> Option<&'a Ask> {
        let mut effects = self.kept.effects.iter();
        let (id, _) = effects.find(|(_, effect)| effect.place == place)?;
        self.state.asks.get(id)
    }

    /// A link that administrators made under their quorum.
    fn ruled(&mut self, link: LinkKind, ask: &Ask, what: String, trusted_for: &str) -> Link {
        let signed_by = self.administrators(ask);
        let trust = self.by_quorum(&signed_by, trusted_for);
        Link {
            link,
            what,
            entries: vec![ask.place.index],
            keys: Vec::new(),
            signed_by,
            testimony: None,
            trust,
        }
    }
}

#[cfg(test)]
mod tests {
    use ascribe_core::id::SessionId;
    use ascribe_core::statement::Role;
    use ascribe_tlog::TrustPolicy;

    use super::*;
    use crate::links::Whole;

    /// The law finds them: where this list does not, that is no reason to trust nobody.
    #[test]
    fn what_follows_by_rules_that_are_not_found_is_the_logs_word() {
        let session = SessionId::new([1; 16]);
        let kept = Links::new(Whole::No, session, b"", &TrustPolicy::default());
        let (state, logins, words) = (State::new("x"), Logins::default(), Vouchers::default());
        let names = Names::new();
        let mut listing = Listing::new(&kept, &state, &logins, (&words, &[]), &names);
        let link = listing.law(7, "root@db1", false);
        let line = crate::links::in_words(&link);
        assert!(line.contains("rules that were not found here"), "{line}");
        assert!(
            line.ends_with("the log for what the target's rules were"),
            "{line}"
        );
        // Nor is somebody's role nobody's word.
        let role = listing.role((PersonId::new([2; 16]), "key"), Role::Approver, 7);
        assert_eq!(role.first().map(|trusted| &*trusted.who), Some("the log"));
    }
}
