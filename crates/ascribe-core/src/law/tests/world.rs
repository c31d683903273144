//! A ledger of entries in memory, with its state beside it.

use super::*;

pub(super) struct World {
    pub(super) state: State,
    pub(super) log: Vec<Vec<u8>>,
    pub(super) now: Timestamp,
    pub(super) count: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut replay = State::new(ORIGIN);
        for bytes in &self.log {
            replay.apply(&Fake, bytes).unwrap();
        }
        assert_eq!(fingerprint(&replay), fingerprint(&self.state));
    }
}

impl World {
    pub(super) fn empty() -> Self {
        Self {
            state: State::new(ORIGIN),
            log: Vec::new(),
            now: time(T0),
            count: 0,
        }
    }
    pub(super) fn new(admin_quorum: u32) -> Self {
        let mut world = Self::empty();
        let people = everybody();
        let names = people.iter().map(|(_, name)| name.clone()).collect();
        let first = Body::Genesis(genesis(admin_quorum, &people));
        world.record(SERVER, first, names).unwrap();
        world
    }
    /// One target `db1`, changed as said.
    pub(super) fn with(edit: impl FnOnce(&mut Target)) -> Self {
        let mut world = Self::new(1);
        let mut db1 = target("db1");
        edit(&mut db1);
        world.say(ADA, Say::TargetSet(db1), Vec::new()).unwrap();
        world
    }
    pub(super) fn plain() -> Self {
        Self::with(|_| ())
    }
    pub(super) fn fresh(&mut self) -> [u8; 16] {
        self.count += 1;
        crate::id::derived("test", &[&self.count.to_be_bytes()])
    }
    pub(super) fn after(&mut self, ms: i64) -> &mut Self {
        self.now = self.now.plus_millis(ms);
        self
    }
    pub(super) fn record(
        &mut self,
        writer: &str,
        body: Body,
        openings: Vec<Opening>,
    ) -> Result<Vec<Sequenced>, Denied> {
        let proposal = Proposal {
            id: EntryId::new(self.fresh()),
            writer: writer.to_owned(),
            body,
            openings,
            scope: Scope::None,
        };
        let before = fingerprint(&self.state);
        let done = self.state.sequence(&Fake, self.now, &proposal);
        match &done {
            Ok(entries) => self.log.extend(entries.iter().map(|e| e.bytes.clone())),
            Err(denied) => {
                assert_eq!(before, fingerprint(&self.state), "changed by {denied}");
            }
        }
        done
    }
    /// An entry of version 1, as a log has it that is older than version 2.
    pub(super) fn record_as_once(&mut self, body: Body) -> Result<EntryHash, Denied> {
        let said = Said::by(&body)?;
        let entry = Entry {
            at: self.now,
            id: EntryId::new(self.fresh()),
            law: self.state.law_head.map(|place| place.hash),
            log: ORIGIN.to_owned(),
            refs: self.state.refs_for(&body, &said)?,
            v: 1,
            writer: self.state.next_in_chain(SERVER),
            body,
        };
        let bytes = entry.to_bytes().unwrap();
        let before = fingerprint(&self.state);
        match self.state.apply(&Fake, &bytes) {
            Ok(done) => {
                self.log.push(bytes);
                Ok(done.hash)
            }
            Err(denied) => {
                assert_eq!(before, fingerprint(&self.state), "changed by {denied}");
                Err(denied)
            }
        }
    }
    pub(super) fn say_as_once(&mut self, by: u8, say: Say) -> Result<AskRef, Denied> {
        let statement = self.statement(by, say);
        let signed = sign(&key(by, 0), &statement);
        let hash = self.record_as_once(Body::Statement(signed))?;
        Ok((statement.id, hash))
    }
    pub(super) fn statement(&mut self, by: u8, say: Say) -> Statement {
        Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: person(by),
            at: self.now,
            id: StatementId::new(self.fresh()),
            seen: Seen {
                size: 0,
                root: crate::id::Root(ascribe_tlog::empty_root()),
            },
            say,
        }
    }
    pub(super) fn submit(
        &mut self,
        signed: Signed,
        openings: Vec<Opening>,
    ) -> Result<Vec<Sequenced>, Denied> {
        let done = self.record(SERVER, Body::Statement(signed), openings);
        self.state.check_holding(self.now);
        done
    }
    pub(super) fn say(
        &mut self,
        by: u8,
        say: Say,
        openings: Vec<Opening>,
    ) -> Result<AskRef, Denied> {
        self.say_with(by, 0, say, openings)
    }
    pub(super) fn say_with(
        &mut self,
        by: u8,
        nth: u8,
        say: Say,
        openings: Vec<Opening>,
    ) -> Result<AskRef, Denied> {
        let statement = self.statement(by, say);
        let signed = sign(&key(by, nth), &statement);
        let done = self.submit(signed, openings)?;
        Ok((statement.id, done[0].hash))
    }
    pub(super) fn request_for(&self) -> (Request, Opening) {
        let (justification, opening) = prose("justification", WHY);
        let window = (self.now, self.now.plus_millis(HOUR));
        let request = Request::plain("db1", "root", window, justification);
        (request, opening)
    }
    pub(super) fn request(
        &mut self,
        by: u8,
        edit: impl FnOnce(&mut Request),
    ) -> Result<AskRef, Denied> {
        let (mut request, opening) = self.request_for();
        edit(&mut request);
        self.say(by, Say::Request(request), vec![opening])
    }
    pub(super) fn approve(&mut self, by: u8, ask: AskRef) -> Result<AskRef, Denied> {
        self.say(by, Say::Approval(answer(ask)), Vec::new())
    }
    pub(super) fn grant_of(&self, ask: AskRef) -> Option<GrantId> {
        let found = self.state.grants.iter().find(|(_, g)| g.request == ask.0);
        found.map(|(id, _)| *id)
    }
    pub(super) fn grant(&mut self, edit: impl FnOnce(&mut Request)) -> GrantId {
        let ask = self.request(REQ, edit).unwrap();
        self.approve(PAT, ask).unwrap();
        self.grant_of(ask).unwrap()
    }
    pub(super) fn extend(
        &mut self,
        by: u8,
        grant: GrantId,
        until: Timestamp,
    ) -> Result<AskRef, Denied> {
        let (justification, opening) = prose("justification", WHY);
        let extension = Extension {
            grant,
            not_after: until,
            justification,
        };
        self.say(by, Say::Extension(extension), vec![opening])
    }
    pub(super) fn revoke(&mut self, by: u8, grant: GrantId) -> Result<AskRef, Denied> {
        let (reason, opening) = prose("reason", "no longer needed");
        let say = Say::Revocation(Revocation { grant, reason });
        self.say(by, say, vec![opening])
    }
    pub(super) fn break_glass(&mut self, by: u8, ms: i64) -> Result<AskRef, Denied> {
        let (emergency, opening) = prose("emergency", "the database is down for all");
        let say = Say::BreakGlass(BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after: self.now.plus_millis(ms),
            emergency,
            ticket: None,
        });
        self.say(by, say, vec![opening])
    }
    pub(super) fn review(&mut self, by: u8, grant: GrantId) -> Result<AskRef, Denied> {
        let (finding, opening) = prose("finding", "it was a real outage");
        let review = Review {
            grant,
            verdict: Verdict::Justified,
            finding,
        };
        self.say(by, Say::Review(review), vec![opening])
    }
    pub(super) fn session_for(&mut self, grant: GrantId) -> (SessionOpen, Opening) {
        let from = opening("from", "192.0.2.7:4022");
        let granted = self.state.grants[&grant].grant.clone();
        let open = SessionOpen {
            session: SessionId::new(self.fresh()),
            grant,
            person: granted.person,
            key: key(granted.person.bytes()[0], 0).fingerprint(),
            target: granted.target,
            account: granted.account,
            from: from.commitment(),
            certificate: None,
            delegation: None,
            door: Door::Direct,
            opened_by: OpenedBy::Testimony,
            opening: None,
            login: None,
        };
        (open, from)
    }
    pub(super) fn open(&mut self, grant: GrantId) -> Result<SessionId, Denied> {
        let (open, from) = self.session_for(grant);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    pub(super) fn intent(&mut self, session: SessionId) -> Result<ActionId, Denied> {
        self.intent_of("ssh.exec", session, |_| ())
    }
    /// A part of a transfer.
    pub(super) fn intent_within(
        &mut self,
        session: SessionId,
        within: Option<ActionId>,
    ) -> Result<ActionId, Denied> {
        self.intent_of("sftp.open", session, |intent| intent.within = within)
    }
    pub(super) fn intent_of(
        &mut self,
        kind: &str,
        session: SessionId,
        edit: impl FnOnce(&mut Intent),
    ) -> Result<ActionId, Denied> {
        self.intent_with(kind, session, "uptime", edit)
    }
    pub(super) fn intent_with(
        &mut self,
        kind: &str,
        session: SessionId,
        command: &str,
        edit: impl FnOnce(&mut Intent),
    ) -> Result<ActionId, Denied> {
        let command = opening("command", command);
        let action = ActionId::new(self.fresh());
        let mut intent = Intent {
            action,
            session,
            kind: kind.to_owned(),
            command: Some(command.commitment()),
            env: None,
            lends: Vec::new(),
            pty: None,
            forward_within_ms: 2000,
            within: None,
            sql: None,
        };
        edit(&mut intent);
        let openings = intent.command.map(|_| command);
        let openings = openings.into_iter().collect();
        self.record("gw", Body::Intent(intent), openings)?;
        Ok(action)
    }
    pub(super) fn outcome(&mut self, action: ActionId) -> Result<(), Denied> {
        self.outcome_with(action, Vec::new())
    }
    pub(super) fn outcome_with(
        &mut self,
        action: ActionId,
        streams: Vec<StreamTotal>,
    ) -> Result<(), Denied> {
        let outcome = Outcome {
            notes: Vec::new(),
            action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            sql: None,
            streams,
        };
        self.record("gw", Body::Outcome(outcome), Vec::new())?;
        Ok(())
    }
    pub(super) fn evidence(&mut self, action: ActionId) -> Result<(), Denied> {
        let bytes = opening("stdout/0", "up 3 days");
        let chunk = Chunk {
            stream: "stdout".to_owned(),
            seq: 0,
            bytes: 9,
            after_ms: 4,
            commit: bytes.commitment(),
        };
        let evidence = Evidence {
            action,
            chunks: vec![chunk],
        };
        self.record("gw", Body::Evidence(evidence), vec![bytes])?;
        Ok(())
    }
    pub(super) fn close(&mut self, session: SessionId) -> Result<(), Denied> {
        let close = SessionClose {
            session,
            reason: CloseReason::Disconnected,
            actions: 0,
            entries: 0,
        };
        self.record("gw", Body::SessionClose(close), Vec::new())?;
        Ok(())
    }
    pub(super) fn refuse_forwarding(&mut self, session: SessionId) -> Result<(), Denied> {
        let refusal = Refusal {
            delegation: None,
            person: person(REQ),
            what: "forwarding".to_owned(),
            code: "forwarding".to_owned(),
            session: Some(session),
            detail: None,
        };
        self.record("gw", Body::Refusal(refusal), Vec::new())?;
        Ok(())
    }
    pub(super) fn head(&mut self, writer: &str) -> Result<(), Denied> {
        let (seq, hash) = self.state.chain_head(writer).unwrap();
        let message = head_message(ORIGIN, writer, seq, &hash);
        let sig = Bytes(writer_key(writer).sign_raw(&message).to_vec());
        self.record(writer, Body::Head(Head { seq, hash, sig }), Vec::new())?;
        Ok(())
    }
    pub(super) fn standing(&self, session: SessionId) -> Standing {
        self.state.standing(self.now, session)
    }
    pub(super) fn admit(&self, chosen: Option<GrantId>) -> Result<GrantId, Denied> {
        self.admit_as(REQ, None, chosen)
    }
    /// The same for somebody else, or for their agent.
    pub(super) fn admit_as(
        &self,
        by: u8,
        delegation: Option<StatementId>,
        chosen: Option<GrantId>,
    ) -> Result<GrantId, Denied> {
        let wanted = Wanted {
            chosen,
            delegation,
            ..wanted(by)
        };
        match self.state.admit(self.now, &wanted) {
            Admission::Grant(view) => Ok(view.grant),
            Admission::Refused(denied) => Err(denied),
        }
    }
}

pub(super) fn wanted(by: u8) -> Wanted<'static> {
    Wanted {
        person: person(by),
        account: "root",
        target: "db1",
        chosen: None,
        delegation: None,
    }
}

/// The refusal's code.
pub(super) fn no<T: std::fmt::Debug>(result: Result<T, Denied>) -> &'static str {
    result.unwrap_err().code
}

/// A ledger with every kind of entry.
pub(super) fn full_path() -> World {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    w.after(MIN);
    let session = w.open(grant).unwrap();
    let first = w.intent(session).unwrap();
    w.after(5).evidence(first).unwrap();
    w.outcome(first).unwrap();
    let until = w.state.grants[&grant].grant.not_after.plus_millis(HOUR);
    let longer = w.extend(REQ, grant, until).unwrap();
    w.approve(QUI, longer).unwrap();
    w.refuse_forwarding(session).unwrap();
    let second = w.intent(session).unwrap();
    w.outcome(second).unwrap();
    w.after(1).close(session).unwrap();
    let query = opening("query", "session");
    let read = Read {
        view: View::Actions,
        query: query.commitment(),
        request: None,
        session: Some(session),
    };
    w.say(AUD, Say::Read(read), vec![query]).unwrap();
    let idp = identities::provider("idp", crate::identity::ProviderKind::Oidc);
    w.say(ADA, Say::ProviderSet(idp), Vec::new()).unwrap();
    w.publish("idp", &[1]).unwrap();
    let corp = directories::directory();
    w.say(ADA, Say::DirectorySet(corp), Vec::new()).unwrap();
    w.hear(REQ, |_| ()).unwrap();
    w.refuse_directory(SERVER, |_| ()).unwrap();
    w.refuse_logins(SERVER, |_| ()).unwrap();
    w.agents_act(grant);
    w.witnessed_change();
    w.head("gw").unwrap();
    w.head(SERVER).unwrap();
    w
}
