//! Making the list: from the session back to whatever its links rest on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::delegation::agent_id;
use ascribe_core::directory::{Directory, DirectoryGroup};
use ascribe_core::entry::{OpenedBy, SessionOpen};
use ascribe_core::id::{ContentDigest, PersonId, StatementId};
use ascribe_core::identity::{Condition, Provider, Workload};
use ascribe_core::law::{Approval, Ask, AskStatus, Asked, LoginLink, LoginState, SERVER, State};
use ascribe_core::statement::{Role, Say, SshKey};
use ascribe_tlog::VerifierKey;

use super::{
    Chain, Effect, Link, LinkKind, Links, Names, Signer, Trusted, Written, in_quotes, key_id, list,
    quoted, shown, ticked,
};
use crate::logins::{Logins, Observed, observers_in_words};
use crate::vouchers::{self, Source, Voucher, Vouchers};
use crate::witnesses::Witnessed;

/// Who made a key a person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    First,
    Proposal(StatementId),
}

#[derive(Debug)]
struct Enrolled {
    person: PersonId,
    touched: bool,
    source: By,
}

/// Every key that was ever enrolled: one key is enrolled once.
fn enrolled(state: &State) -> BTreeMap<String, Enrolled> {
    let mut all = BTreeMap::new();
    let mut put = |person: PersonId, key: &SshKey, source: By| {
        let touched = key.is_security_key();
        let known = Enrolled {
            person,
            touched,
            source,
        };
        all.insert(key.fingerprint(), known);
    };
    for admin in state.genesis.iter().flat_map(|genesis| &genesis.admins) {
        for key in &admin.keys {
            put(admin.person, key, By::First);
        }
    }
    let granted = |ask: &&Ask| ask.status == AskStatus::Granted;
    for (id, ask) in state.asks.iter().filter(|(_, ask)| granted(ask)) {
        match &ask.asked {
            Asked::Proposal(Say::PersonAdd(add)) => {
                for key in &add.keys {
                    put(add.person, key, By::Proposal(*id));
                }
            }
            Asked::Proposal(Say::KeyAdd(add)) => put(add.person, &add.key, By::Proposal(*id)),
            _ => {}
        }
    }
    all
}

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

    /// One line for all keys that the same people enrolled.
    fn enrolments(&mut self, mut keys: Vec<(By, PersonId, String)>) -> Vec<Link> {
        let place = |source: By| match source {
            By::First => 0,
            By::Proposal(id) => self.state.asks.get(&id).map_or(0, |ask| ask.place.index),
        };
        keys.sort_by_key(|(source, person, key)| (place(*source), *person, key.clone()));
        let mut links: Vec<Link> = Vec::new();
        for (source, person, key) in keys {
            let about = self.signer(person, &key);
            let (entry, signed_by) = match source {
                By::First => (0, Vec::new()),
                By::Proposal(id) => match self.state.asks.get(&id) {
                    Some(ask) => (ask.place.index, self.administrators(ask)),
                    None => continue,
                },
            };
            let same = links.iter_mut().find(|link| link.signed_by == signed_by);
            match same {
                Some(link) => {
                    link.keys.push(about);
                    if !link.entries.contains(&entry) {
                        link.entries.push(entry);
                    }
                }
                None => {
                    let trust = match source {
                        By::First => vec![Trusted::new(
                            "whoever gave you the trust policy",
                            "who the first people are: it pins the first entry",
                        )],
                        By::Proposal(_) => self.by_quorum(&signed_by, "whose keys those are"),
                    };
                    links.push(Link {
                        link: LinkKind::Enrolment,
                        what: String::new(),
                        entries: vec![entry],
                        keys: vec![about],
                        signed_by,
                        testimony: None,
                        trust,
                    });
                }
            }
        }
        for link in &mut links {
            let mut whose: Vec<String> = link.keys.iter().map(Signer::who).collect();
            whose.dedup();
            link.what = format!("keys of {}", list(&whose));
        }
        links
    }

    /// An outside authority, where the session came in with a certificate of it.
    fn authority(&mut self, open: &SessionOpen, at: u64) -> Option<Link> {
        let shown = open.certificate.as_ref()?;
        let is = |say: &Say| {
            let Say::CaSet(ca) = say else { return false };
            let mut people = ca.people.iter();
            ca.name == shown.ca_name
                && ca.keys.iter().any(|key| key.fingerprint() == shown.ca)
                && people.any(|m| m.person == open.person && m.principal == shown.principal)
        };
        let ask = self.proposal(at, is)?;
        let what = format!(
            "authority {} counts, and its principal {} is {}",
            ticked(&shown.ca_name, 63),
            ticked(&shown.principal, 256),
            self.shown(open.person)
        );
        let for_what = "whether it counts, and whom it names";
        Some(self.ruled(LinkKind::Authority, ask, what, for_what))
    }

    /// A login with what it rests on.
    fn login(&mut self, id: StatementId) {
        let Some(state) = self.state.logins.get(&id) else {
            return;
        };
        let provider = self.provider(state);
        self.put(provider);
        self.subject(state);
        let link = (self.kept.session, LoginLink::Session, id);
        let Some(proof) = self.logins.proof(self.state, link) else {
            return;
        };
        let seen = if proof.seen_by_client { "yes" } else { "no" };
        let what = format!(
            "{} by a token, {}, of provider key {} (keys entry {}, seen also by the client: {seen}{}), assurance {}",
            self.shown(state.by),
            proof.token,
            proof.provider_key,
            proof.keys_entry,
            observers_in_words(&proof, self.names),
            proof.assurance,
        );
        let issuer = quoted(&proof.issuer, 200);
        let mut trust = vec![Trusted::new(issuer, "who that is")];
        if let Some(what) = proof.holder_trusted_for {
            let who = "whatever the token passed through before it was proved";
            trust.push(Trusted::new(who, what));
        }
        let saw = proof.observers.iter().filter(|o| o.saw());
        let saw: Vec<String> = saw.map(|o: &Observed| self.shown(o.observer)).collect();
        if !proof.seen_by_client && !saw.is_empty() {
            let what = "whether the provider published this key";
            trust.push(Trusted::new(list(&saw), what));
        }
        if state.login.bearer {
            let what = "using the token for this connection alone";
            trust.push(Trusted::new("the gateway", what));
        }
        trust.push(Trusted::new("the log", proof.log_trusted_for.join("; ")));
        let provider = Signer::other(
            &proof.issuer,
            "provider key",
            proof.provider_key.to_string(),
        );
        let signed_by = vec![provider, self.signer(state.by, &proof.session_key)];
        self.put(Some(Link {
            link: LinkKind::Login,
            what,
            entries: vec![state.place.index],
            keys: Vec::new(),
            signed_by,
            testimony: None,
            trust,
        }));
    }

    fn provider(&mut self, login: &LoginState) -> Option<Link> {
        let provider: &Provider = &login.provider;
        let is = |say: &Say| matches!(say, Say::ProviderSet(set) if set == provider);
        let ask = self.proposal(login.place.index, is)?;
        let what = format!(
            "{} is {}, with the keys that the server fetched from {}",
            ticked(&provider.name, 63),
            quoted(&provider.issuer, 200),
            quoted(&provider.jwks_uri, 200),
        );
        let for_what = "whether it counts, and where its keys are";
        Some(self.ruled(LinkKind::Provider, ask, what, for_what))
    }

    /// What made a token's subject this actor.
    fn subject(&mut self, login: &LoginState) {
        let named = self.kept.named.get(&login.place.index);
        let Some(ask) = named.and_then(|named| self.proposal_at(*named)) else {
            return;
        };
        let link = match &ask.asked {
            Asked::Proposal(Say::IdentityLink(_)) => self.identity(ask),
            Asked::Proposal(Say::WorkloadSet(rule)) => {
                let what = self.rule(rule);
                let for_what = "whose tokens are the workload's";
                Some(self.ruled(LinkKind::Workload, ask, what, for_what))
            }
            _ => None,
        };
        self.put(link);
    }

    /// That a subject of a provider is this person.
    fn identity(&mut self, ask: &Ask) -> Option<Link> {
        let Asked::Proposal(Say::IdentityLink(link)) = &ask.asked else {
            return None;
        };
        let what = format!(
            "subject {} of {} is {}",
            link.subject,
            ticked(&link.provider, 63),
            self.shown(link.person)
        );
        let for_what = "whom the subject stands for, which the person does not sign";
        Some(self.ruled(LinkKind::Identity, ask, what, for_what))
    }

    /// That one of these subjects of a provider was this person; where none of them was, by what is known
    /// here, all that ever were.
    fn identities(&mut self, who: PersonId, provider: &str, told: &[ContentDigest], at: u64) {
        let is = |say: &Say| matches!(say, Say::IdentityLink(link) if link.person == who && link.provider == provider);
        let subject = |ask: &Ask| match &ask.asked {
            Asked::Proposal(Say::IdentityLink(link)) => Some(link.subject),
            _ => None,
        };
        let mut found = self.proposals(at, is);
        let is_told = |ask: &&Ask| subject(ask).is_some_and(|subject| told.contains(&subject));
        if found.iter().any(is_told) {
            found.retain(is_told);
        }
        let mut seen = BTreeSet::new();
        found.retain(|ask| seen.insert(subject(ask)));
        for ask in found {
            let link = self.identity(ask);
            self.put(link);
        }
    }

    /// What a directory's word rests on, besides whoever speaks for it. Returns whose subjects it knows.
    fn directory(&mut self, name: &str, at: u64) -> Option<&'a str> {
        let is = |say: &Say| matches!(say, Say::DirectorySet(set) if set.name == name);
        let ask = self.proposal(at, is)?;
        let Asked::Proposal(Say::DirectorySet(set)) = &ask.asked else {
            return None;
        };
        let what = self.speaks(set);
        let for_what = "whether it counts, and what its groups give";
        let link = self.ruled(LinkKind::Directory, ask, what, for_what);
        self.put(Some(link));
        Some(&set.provider)
    }

    /// What an entry says of somebody in a directory rests on: the directory's rules, whose the entry's subject is,
    /// and who signed it. Where it says who somebody's manager is, both are looked up.
    fn word(
        &mut self,
        (entry, source): (u64, &Source),
        groups: &[DirectoryGroup],
        (who, managed): (PersonId, Option<PersonId>),
        at: u64,
    ) {
        let mut names: BTreeSet<&str> = groups.iter().map(|g| g.directory.as_str()).collect();
        match source {
            Source::Scim { directory } | Source::File { directory, .. } => {
                names.insert(directory);
            }
            Source::Token { login, .. } => {
                let login = self.state.logins.get(login);
                self.wanted
                    .extend(login.map(|login| login.key.fingerprint()));
            }
        }
        let kept = self.kept;
        let told = kept.told.get(&entry);
        let subjects = told.map_or(&[][..], |told| &told.subjects);
        let managers = told.map_or(&[][..], |told| &told.managers);
        for name in names {
            let Some(provider) = self.directory(name, at) else {
                continue;
            };
            match managed {
                Some(managed) => {
                    self.identities(managed, provider, subjects, at);
                    self.identities(who, provider, managers, at);
                }
                None => self.identities(who, provider, subjects, at),
            }
        }
        if let Some((_, key)) = kept.files.get(&entry) {
            self.wanted.push(key.clone());
        }
    }

    fn speaks(&self, set: &Directory) -> String {
        let signers: Vec<String> = set.signers.iter().map(|id| self.shown(*id)).collect();
        let how = match (&set.claim, signers.is_empty()) {
            (Some(claim), _) => format!("by the claim {} of its tokens", ticked(claim, 128)),
            (None, false) => format!("by files that {} may sign", list(&signers)),
            (None, true) => "over SCIM, signed by nobody".to_owned(),
        };
        let gives = set.roles.iter();
        let gives = gives.map(|rule| {
            let role = format!("{:?}", rule.role).to_lowercase();
            format!("; {} gives `{role}`", ticked(&rule.group, 256))
        });
        format!(
            "{} speaks of people of {} {how}{}",
            ticked(&set.name, 63),
            ticked(&set.provider, 63),
            gives.collect::<String>()
        )
    }

    fn rule(&self, rule: &Workload) -> String {
        // Conditions are listed with spaces between them, and what meets one with bars.
        let word = |text: &String| match text.contains(' ') {
            true => in_quotes(text, 256),
            false => quoted(text, 256),
        };
        let condition = |condition: &Condition| {
            let one_of: Vec<String> = condition.one_of.iter().map(word).collect();
            format!("{}={}", word(&condition.claim), one_of.join("|"))
        };
        let conditions: Vec<String> = rule.conditions.iter().map(condition).collect();
        format!(
            "{} is whoever has tokens of {} with {}; {} answers for it",
            ticked(&rule.name, 63),
            ticked(&rule.provider, 63),
            conditions.join(" "),
            self.shown(rule.owner)
        )
    }

    fn delegations(&mut self, open: &SessionOpen) -> Vec<Link> {
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
    fn grant(&mut self, open: &SessionOpen) -> Vec<Link> {
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
    fn role(&mut self, who: PersonId, role: Role, at: u64) -> Vec<Trusted> {
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
    fn law(&mut self, entry: u64, place: &str, emergency: bool) -> Link {
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

    fn writer(&self, name: &str) -> Signer {
        let mut writers = self.state.genesis.iter().flat_map(|g| &g.writers);
        let key = writers.find(|writer| writer.id == name);
        let key = key.and_then(|writer| <[u8; 32]>::try_from(writer.key.0.as_slice()).ok());
        let key = key.and_then(|key| VerifierKey::from_public_key(name, &key).ok());
        Signer::other(
            name,
            "writer key",
            key.map_or_else(String::new, |key| key_id(name, key.key_id())),
        )
    }

    fn is_signed(&self, writer: &str, seq: u64) -> bool {
        let chain = self.kept.chains.get(writer);
        chain.is_some_and(|chain| chain.signed().contains(&seq))
    }

    fn opening(&mut self, open: &SessionOpen, at: u64) -> Option<Link> {
        let (writer, seq) = self.kept.opening.clone()?;
        let gateway = format!("the gateway (writer {})", ticked(&writer, 63));
        let actor = match &open.certificate {
            // It may have been enrolled since.
            Some(_) => Signer {
                principal: Some(open.person),
                name: self.names.get(&open.person).cloned(),
                with: "certified key",
                key: open.key.clone(),
            },
            None => self.signer(open.person, &open.key),
        };
        let door = serde_json::to_value(open.door).ok();
        let door = door.as_ref().and_then(|door| door.as_str()).unwrap_or("?");
        let mut link = Link {
            link: LinkKind::Opening,
            what: format!("{} came in by the door `{door}`", actor.who()),
            entries: vec![at],
            keys: Vec::new(),
            signed_by: Vec::new(),
            testimony: None,
            trust: Vec::new(),
        };
        if open.opened_by == OpenedBy::Signed {
            link.trust = self.holder(&open.key);
            let what = "opening no other connection with it";
            link.trust.push(Trusted::new(gateway, what));
            link.signed_by.push(actor);
            return Some(link);
        }
        link.testimony = Some("gateway");
        if self.is_signed(&writer, seq) {
            link.signed_by.push(self.writer(&writer));
        }
        if open.delegation.is_none() && open.certificate.is_none() {
            self.wanted.push(open.key.clone());
        }
        let key = quoted(&open.key, 200);
        link.what = format!("{} with {} {key}", link.what, actor.with);
        let mut saw = "whether whoever came in had that key";
        if let Some(certificate) = &open.certificate {
            let name = ticked(&certificate.ca_name, 63);
            link.what = format!(
                "{}, by certificate {} of {name}, key {}",
                link.what,
                certificate.serial.0,
                quoted(&certificate.ca, 200)
            );
            let who = format!("whoever holds that key of {name}");
            let what = "whom it certifies";
            link.trust.push(Trusted::new(who, what));
            saw = "whether it saw such a certificate, and whoever came in had its key";
        }
        link.trust.push(Trusted::new(gateway, saw));
        if link.signed_by.is_empty() {
            let what = "whose word that is: no signed head here covers it";
            link.trust.push(Trusted::new("the log", what));
        }
        Some(link)
    }

    /// What was done, by writer.
    fn record(&self) -> Vec<Link> {
        let one = |(name, wrote): (&String, &Written)| {
            let signed = self.kept.chains.get(name).map(Chain::signed);
            let signed = signed.unwrap_or_default();
            let all = wrote.entries.len();
            let fixed = wrote.entries.iter().filter(|(_, seq)| signed.contains(seq));
            let fixed = fixed.count();
            let what = [
                "intent(s)",
                "outcome(s)",
                "of evidence",
                "refusal(s)",
                "close",
            ];
            let parts = wrote.counts.iter().zip(what).filter(|(n, _)| **n > 0);
            let parts: Vec<String> = parts.map(|(n, what)| format!("{n} {what}")).collect();
            let (whose, who) = match name.as_str() {
                SERVER => ("server", "the server".to_owned()),
                _ => (
                    "gateway",
                    format!("the gateway (writer {})", ticked(name, 63)),
                ),
            };
            let mut trust = vec![Trusted::new(who, "what was done and what came of it")];
            if fixed < all {
                let which = match fixed {
                    0 => "these".to_owned(),
                    _ => format!("{} of these {all}", all - fixed),
                };
                let what = format!("whose {which} are: no signed head here covers them");
                trust.push(Trusted::new("the log", what));
            }
            Link {
                link: LinkKind::Record,
                what: list(&parts),
                entries: wrote.entries.iter().map(|(index, _)| *index).collect(),
                keys: Vec::new(),
                signed_by: (fixed > 0).then(|| self.writer(name)).into_iter().collect(),
                testimony: Some(whose),
                trust,
            }
        };
        self.kept.written.iter().map(one).collect()
    }

    fn order(&mut self, witnessed: Option<&Witnessed>) -> [Link; 2] {
        let order = Link {
            link: LinkKind::Order,
            what: "the order of these entries, and all of the session's".to_owned(),
            entries: Vec::new(),
            keys: Vec::new(),
            signed_by: self.kept.log.clone(),
            testimony: None,
            trust: vec![Trusted::new(
                "the log",
                "showing everybody the same entries, and whether this law was the newest",
            )],
        };
        let mut time = Link {
            link: LinkKind::Time,
            what: "every time, as the log states it".to_owned(),
            entries: Vec::new(),
            keys: Vec::new(),
            signed_by: Vec::new(),
            testimony: Some("log"),
            trust: vec![Trusted::new("the log", "when")],
        };
        let Some(seen) = witnessed else {
            return [order, time];
        };
        let whose = match seen.policy {
            "reader" => "of your policy",
            _ => "of the log's own policy",
        };
        time.what = format!("{} entries were there by {}", seen.size, seen.before);
        time.testimony = None;
        time.signed_by = seen
            .by
            .iter()
            .zip(&seen.keys)
            .map(|(name, key)| Signer::other(name, "witness key", key.clone()))
            .collect();
        let who = format!(
            "as many of them as quorum {} {whose} needs",
            ticked(&seen.quorum, 80)
        );
        time.trust = vec![
            Trusted::new(who, "the time, and for there being no other history"),
            Trusted::new("the log", "when before that"),
        ];
        if seen.policy != "reader" {
            let is = |say: &Say| matches!(say, Say::WitnessSet(_));
            if let Some(ask) = self.proposal(u64::MAX, is) {
                let by = self.administrators(ask);
                time.trust
                    .extend(self.by_quorum(&by, "who the witnesses are"));
            }
        }
        [order, time]
    }
}

#[cfg(test)]
mod tests {
    use ascribe_core::id::SessionId;
    use ascribe_tlog::TrustPolicy;

    use super::*;

    /// The law finds them: where this list does not, that is no reason to trust nobody.
    #[test]
    fn what_follows_by_rules_that_are_not_found_is_the_logs_word() {
        let kept = Links::new(SessionId::new([1; 16]), b"", &TrustPolicy::default());
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
        let role = listing.role(PersonId::new([2; 16]), Role::Approver, 7);
        assert_eq!(role.first().map(|trusted| &*trusted.who), Some("the log"));
    }
}
