//! The frame of every entry: order, time, writer chains, law chain, links.

use ascribe_tlog::VerifierKey;

use super::{Denied, HEAD_WINDOW, Place, Said, State, WriterState};
use crate::entry::{Body, Entry, Genesis, Head, Ref, VERSION, head_message};
use crate::id::{ActionId, EntryHash, GrantId, SessionId, StatementId};
use crate::statement::{Role, Say, Statement};

fn link(rel: &str, place: Place) -> Ref {
    Ref {
        rel: rel.to_owned(),
        hash: place.hash,
        index: place.index,
    }
}

/// Is this one of the entries that decide who may do what? They form a chain of their own.
pub(super) fn is_law(body: &Body, said: &Said<'_>) -> bool {
    match body {
        Body::Genesis(_)
        | Body::Grant(_)
        | Body::GrantExtend(_)
        | Body::SessionOpen(_)
        | Body::SessionClose(_)
        | Body::ProviderKeys(_)
        | Body::DirectoryChange(_) => true,
        Body::Statement(_) => {
            !matches!(said.statement.as_ref().map(|s| &s.say), Some(Say::Read(_)))
        }
        Body::Intent(_)
        | Body::Outcome(_)
        | Body::Evidence(_)
        | Body::Refusal(_)
        | Body::DirectoryRefusal(_)
        | Body::LoginRefusal(_)
        | Body::Head(_) => false,
        Body::Cosigned(cosigned) => !cosigned.settles.is_empty(),
    }
}

impl State {
    pub(super) fn check_frame(&self, entry: &Entry, index: u64) -> Result<(), Denied> {
        let refuse = |code, text: &str| Err(Denied::new(code, text));
        if !(1..=VERSION).contains(&entry.v) {
            return refuse("version", "unknown entry version");
        }
        // Whoever writes entries chooses no laxer rules for a new one.
        if entry.v < self.version {
            return refuse("version", "the entry's version is before its predecessor's");
        }
        if entry.log != self.origin {
            return refuse("log", "the entry is for another log");
        }
        if self.last_at.is_some_and(|last| entry.at < last) {
            return refuse("time", "the entry's time is before its predecessor's");
        }
        if self.ids.contains_key(&entry.id) {
            return refuse("duplicate", "an entry with this id exists");
        }
        if entry.law != self.law_head.map(|place| place.hash) {
            return refuse(
                "law-chain",
                "the entry does not follow the newest law entry",
            );
        }
        if index == 0 {
            let first = entry.writer.seq == 0 && entry.writer.prev.is_none();
            return if !first {
                refuse("writer-chain", "the first entry starts no chain")
            } else if entry.writer.id == super::SERVER {
                Ok(())
            } else {
                refuse("writer", "the first entry is written by `server`")
            };
        }
        let Some(writer) = self.writers.get(&entry.writer.id) else {
            return refuse("writer", "the entry's writer is not registered");
        };
        let whole = self.excerpt.is_none();
        let newest = writer.recent.back();
        let follows = match newest {
            Some((seq, place)) if *seq + 1 == entry.writer.seq => {
                entry.writer.prev == Some(place.hash)
            }
            None if entry.writer.seq == 0 => entry.writer.prev.is_none(),
            Some(_) | None => {
                !whole && entry.writer.seq >= writer.next && entry.writer.prev.is_some()
            }
        };
        if follows {
            Ok(())
        } else {
            refuse("writer-chain", "the entry breaks its writer's chain")
        }
    }

    pub(super) fn take_frame(&mut self, entry: &Entry, said: &Said<'_>, place: Place) {
        self.size = place.index + 1;
        self.last_at = Some(entry.at);
        self.witnesses.mark(place.index, entry.at, &entry.body);
        self.ids.insert(entry.id, place.index);
        if is_law(&entry.body, said) {
            self.law_head = Some(place);
        }
        if let Some(writer) = self.writers.get_mut(&entry.writer.id) {
            writer.next = entry.writer.seq + 1;
            writer.recent.push_back((entry.writer.seq, place));
            if writer.recent.len() > HEAD_WINDOW {
                writer.recent.pop_front();
            }
        }
    }

    pub(super) fn take_genesis(
        &mut self,
        genesis: &Genesis,
        index: u64,
        place: Place,
    ) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("genesis", text));
        if index != 0 || self.genesis.is_some() {
            return refuse("a log has one first entry");
        }
        match genesis.log_key.parse::<VerifierKey>() {
            Ok(key) if key.name() == self.origin => {}
            Ok(_) | Err(_) => return refuse("the log key does not name the log"),
        }
        let admins = genesis
            .admins
            .iter()
            .filter(|a| a.roles.contains(&Role::Admin))
            .count();
        if genesis.admin_quorum == 0 || admins < genesis.admin_quorum as usize {
            return refuse("there are fewer administrators than the quorum needs");
        }
        if !genesis.writers.iter().any(|w| w.id == super::SERVER) {
            return refuse("no writer is named `server`");
        }
        let mut next = Self {
            excerpt: self.excerpt,
            version: self.version,
            ..Self::new(&self.origin)
        };
        for writer in &genesis.writers {
            let state = WriterState {
                key: writer.key.0.clone(),
                ..WriterState::default()
            };
            if next.writers.insert(writer.id.clone(), state).is_some() {
                return refuse("a writer is named twice");
            }
        }
        for admin in &genesis.admins {
            next.check_person(admin)?;
            next.take_person(admin, place);
        }
        next.genesis = Some(genesis.clone());
        *self = next;
        Ok(())
    }

    /// The links that an entry of this kind must have, in order.
    pub(super) fn refs_for(&self, body: &Body, said: &Said<'_>) -> Result<Vec<Ref>, Denied> {
        Ok(match body {
            Body::Genesis(_) => Vec::new(),
            Body::Statement(_) => match &said.statement {
                Some(statement) => self.statement_refs(statement)?,
                None => Vec::new(),
            },
            Body::Grant(grant) => {
                let (request, place, approvals) = self.basis(grant)?;
                let _: StatementId = request;
                let mut refs = vec![link("request", place)];
                refs.extend(approvals.iter().map(|a| link("approval", a.place)));
                refs
            }
            Body::GrantExtend(extend) => {
                let (ask, approvals) = self.extension_basis(extend)?;
                let mut refs = vec![
                    link("grant", self.grant_place(extend.grant)?),
                    link("extension", ask),
                ];
                refs.extend(approvals.iter().map(|a| link("approval", a.place)));
                refs
            }
            Body::SessionOpen(open) => {
                let opener = open.opening.map(|id| self.opener(id)).transpose()?;
                let agent = open.delegation.map(|id| self.acceptance_place(id));
                let mut refs = vec![link("grant", self.grant_place(open.grant)?)];
                refs.extend(agent.transpose()?.map(|place| link("acceptance", place)));
                refs.extend(opener.map(|opener| link("opening", opener.place)));
                let login = open.login.map(|id| self.login(id)).transpose()?;
                refs.extend(login.map(|login| link("login", login.place)));
                refs
            }
            Body::SessionClose(close) => vec![link("session", self.session_place(close.session)?)],
            Body::Intent(intent) => vec![link("session", self.session_place(intent.session)?)],
            Body::Outcome(outcome) => vec![link("intent", self.action_place(outcome.action)?)],
            Body::Evidence(evidence) => vec![link("intent", self.action_place(evidence.action)?)],
            Body::Refusal(refusal) => match refusal.session {
                Some(session) => vec![link("session", self.session_place(session)?)],
                None => Vec::new(),
            },
            Body::Head(_) => Vec::new(),
            Body::ProviderKeys(keys) => {
                vec![link("provider", self.provider(&keys.provider)?.place)]
            }
            Body::Cosigned(cosigned) => {
                let settled = self.settled_by(cosigned.size);
                settled
                    .iter()
                    .map(|(_, place)| link("settles", *place))
                    .collect()
            }
            Body::DirectoryChange(change) => {
                vec![link("directory", self.directory(&change.directory)?.place)]
            }
            Body::DirectoryRefusal(refusal) => {
                let known = refusal.directory.as_ref().map(|name| self.directory(name));
                let known = known.transpose()?.into_iter();
                known.map(|known| link("directory", known.place)).collect()
            }
            Body::LoginRefusal(refusal) => {
                let known = refusal.provider.as_ref().map(|name| self.provider(name));
                let known = known.transpose()?.into_iter();
                known.map(|known| link("provider", known.place)).collect()
            }
        })
    }

    fn statement_refs(&self, statement: &Statement) -> Result<Vec<Ref>, Denied> {
        Ok(match &statement.say {
            Say::Request(request) => vec![link("target", self.target(&request.target)?.place)],
            Say::BreakGlass(emergency) => {
                vec![link("target", self.target(&emergency.target)?.place)]
            }
            Say::Approval(answer) => {
                let ask = self.ask(answer.of)?;
                let group = self.check_approver_group(statement.by, ask)?;
                let group = group.map(|place| link("group", place));
                let manager = self.as_manager(statement.by, ask)?;
                let manager = manager.map(|place| link("manager", place));
                let answers = [link("answers", ask.place)];
                answers.into_iter().chain(group).chain(manager).collect()
            }
            Say::Denial(answer) | Say::Cancellation(answer) => {
                vec![link("answers", self.ask(answer.of)?.place)]
            }
            Say::Extension(extension) => vec![link("grant", self.grant_place(extension.grant)?)],
            Say::Revocation(revocation) => vec![link("grant", self.grant_place(revocation.grant)?)],
            Say::Termination(termination) => {
                vec![link("session", self.session_place(termination.session)?)]
            }
            Say::Delegation(delegation) => {
                let parent = delegation.parent.map(|id| self.acceptance_place(id));
                let parent = parent.transpose()?.map(|place| link("acceptance", place));
                let mut refs: Vec<Ref> = parent.into_iter().collect();
                for target in &delegation.targets {
                    refs.push(link("target", self.target(target)?.place));
                }
                refs
            }
            Say::Acceptance(acceptance) => {
                vec![link("delegation", self.delegation(acceptance.of)?.place)]
            }
            Say::DelegationRevoke(revoke) => {
                vec![link(
                    "delegation",
                    self.delegation(revoke.delegation)?.place,
                )]
            }
            Say::Connect(connect) => vec![link("target", self.target(&connect.target)?.place)],
            Say::Review(review) => vec![link("grant", self.grant_place(review.grant)?)],
            Say::Reconciliation(compared) => compared
                .targets
                .iter()
                .map(|target| Ok(link("target", self.target(target)?.place)))
                .collect::<Result<_, Denied>>()?,
            Say::Use(chosen) => vec![link("grant", self.grant_place(chosen.grant)?)],
            Say::Read(read) => match read.session {
                Some(session) => vec![link("session", self.session_place(session)?)],
                None => Vec::new(),
            },
            Say::KeysSeen(seen) => vec![link("provider", self.provider(&seen.provider)?.place)],
            Say::IdentityLink(identity) => {
                vec![link("provider", self.provider(&identity.provider)?.place)]
            }
            Say::IdentityUnlink(identity) => vec![link("identity", self.identity(identity)?.place)],
            Say::WorkloadSet(workload) => {
                vec![link("provider", self.provider(&workload.provider)?.place)]
            }
            Say::DirectorySet(directory) => {
                vec![link("provider", self.provider(&directory.provider)?.place)]
            }
            Say::DirectoryFile(file) => {
                vec![link("directory", self.directory(&file.directory)?.place)]
            }
            Say::Login(login) => {
                let (keys, actor) = self.login_basis(statement.by, login)?;
                vec![link("keys", keys), link("actor", actor)]
            }
            Say::Logout(logout) => vec![link("login", self.login(logout.login)?.place)],
            Say::ProviderSet(_)
            | Say::TargetSet(_)
            | Say::PersonAdd(_)
            | Say::KeyAdd(_)
            | Say::KeyRevoke(_)
            | Say::Offboard(_)
            | Say::CaSet(_)
            | Say::WitnessSet(_) => Vec::new(),
        })
    }

    pub(super) fn grant_place(&self, grant: GrantId) -> Result<Place, Denied> {
        Ok(self.grant(grant)?.place)
    }

    pub(super) fn session_place(&self, session: SessionId) -> Result<Place, Denied> {
        Ok(self.session(session)?.place)
    }

    fn action_place(&self, action: ActionId) -> Result<Place, Denied> {
        self.open_actions
            .get(&action)
            .map(|open| open.place)
            .ok_or_else(|| {
                Denied::new("no-action", format!("no open action has the id `{action}`"))
            })
    }

    pub(super) fn check_head(&self, at: &crate::entry::Writer, head: &Head) -> Result<(), Denied> {
        let refuse = |text: &str| Err(Denied::new("head", text));
        let writer = at.id.as_str();
        let Some(state) = self.writers.get(writer) else {
            return refuse("the writer is not registered");
        };
        let known = state.recent.iter().rev().find(|(seq, _)| *seq == head.seq);
        match known {
            Some((_, place)) if place.hash == head.hash => {}
            Some(_) => return refuse("the signed head is not the writer's entry of that number"),
            // An excerpt need not hold the covered entry; the signature is checked all the same.
            None if head.seq < at.seq => {}
            None => return refuse("the signed head names an entry that does not exist"),
        }
        let key: Option<[u8; 32]> = state.key.as_slice().try_into().ok();
        let key = key.and_then(|key| VerifierKey::from_public_key(writer, &key).ok());
        let message = head_message(&self.origin, writer, head.seq, &head.hash);
        match key {
            Some(key) if key.verify_raw(&message, &head.sig.0) => Ok(()),
            Some(_) | None => Err(Denied::new(
                "signature",
                "the head's signature does not verify",
            )),
        }
    }

    /// The newest entry of a writer's chain, for signing its head.
    pub fn chain_head(&self, writer: &str) -> Option<(u64, EntryHash)> {
        self.writers
            .get(writer)?
            .recent
            .back()
            .map(|(seq, place)| (*seq, place.hash))
    }

    /// The place that the next entry of this writer takes.
    pub(super) fn next_in_chain(&self, writer: &str) -> crate::entry::Writer {
        let state = self.writers.get(writer);
        crate::entry::Writer {
            id: writer.to_owned(),
            seq: state.map_or(0, |w| w.next),
            prev: state
                .and_then(|w| w.recent.back())
                .map(|(_, place)| place.hash),
        }
    }
}
