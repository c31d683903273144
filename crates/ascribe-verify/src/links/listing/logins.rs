//! Logins, and what administrators and directories said of whoever logged in.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::directory::{Directory, DirectoryGroup};
use ascribe_core::id::{ContentDigest, PersonId, StatementId};
use ascribe_core::identity::{Condition, Login, Provider, Workload};
use ascribe_core::law::{Ask, Asked, LoginLink, LoginState};
use ascribe_core::statement::Say;

use super::Listing;
use crate::links::{Link, LinkKind, Signer, Trusted, in_quotes, list, quoted, ticked};
use crate::logins::{Observed, authn_in_words, observers_in_words};
use crate::vouchers::Source;

impl<'a> Listing<'a> {
    /// A login with what it rests on.
    pub(super) fn login(&mut self, id: StatementId) {
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
            "{} by a token, {}, of provider key {} (keys entry {}, seen also by the client: {seen}{}), assurance {}{}",
            self.shown(state.by),
            proof.token,
            proof.provider_key,
            proof.keys_entry,
            observers_in_words(&proof, self.names),
            proof.assurance,
            authn_in_words(&proof),
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
    pub(super) fn word(
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
                // The rules that named the manager's claim.
                if let Some(login) = login.filter(|_| managed.is_some()) {
                    names.extend(self.naming_managers(&login.login, at));
                }
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

    /// The directories by whose rules the managers count whom a login names, at that time.
    fn naming_managers(&self, login: &Login, at: u64) -> BTreeSet<&'a str> {
        let mut newest: BTreeMap<&str, &Directory> = BTreeMap::new();
        for ask in self.proposals(at, |say| matches!(say, Say::DirectorySet(_))) {
            if let Asked::Proposal(Say::DirectorySet(set)) = &ask.asked {
                newest.entry(&set.name).or_insert(set);
            }
        }
        let named = |set: &&Directory| {
            let mut stated = login.claims.managers.iter();
            stated.any(|manager| set.manager_claim.as_ref() == Some(&manager.claim))
        };
        let live = newest.into_values().filter(|set| !set.withdrawn);
        let live = live
            .filter(|set| set.provider == login.provider)
            .filter(named);
        live.map(|set| set.name.as_str()).collect()
    }

    fn speaks(&self, set: &Directory) -> String {
        let signers: Vec<String> = set.signers.iter().map(|id| self.shown(*id)).collect();
        let claims = set.claim.iter().chain(&set.manager_claim);
        let claims: Vec<String> = claims.map(|claim| ticked(claim, 128)).collect();
        let how = match (claims.as_slice(), signers.is_empty()) {
            ([claim], _) => format!("by the claim {claim} of its tokens"),
            ([_, ..], _) => format!("by the claims {} of its tokens", list(&claims)),
            ([], false) => format!("by files that {} may sign", list(&signers)),
            ([], true) => "over SCIM, signed by nobody".to_owned(),
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
}
