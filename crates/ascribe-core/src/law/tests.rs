//! The law, claim by claim; a model beside it; and what a replay refuses.
//!
//! Every [`World`] checks by itself that a refusal changes nothing, and, when it ends, that a
//! fresh replay of its bytes arrives at the same state.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_tlog::SigningKey;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::encoding::{self, Bytes};
use crate::entry::{
    Chunk, Evidence, Head, Intent, OpenedBy, Outcome, Refusal, SessionClose, Status, WriterKey,
    head_message,
};
use crate::record::{Admission, Proposal, Scope, Standing};
use crate::sealed::{Opening, Prose};
use crate::statement::{
    Answer, Offboard, OverCap, PersonAdd, PersonKey, Read, Review, Revocation, Seen, Signed,
    Statement, TicketRule, UseGrant, Uses, Verdict, View,
};

const ORIGIN: &str = "example.org/log";
const T0: i64 = 1_764_000_000_000;
const MIN: i64 = 60_000;
const HOUR: i64 = 60 * MIN;
const WHY: &str = "restart the stuck replica";

// People: two administrators, a requester who also approves, two approvers, an auditor.
const ADA: u8 = 1;
const BEN: u8 = 2;
const REQ: u8 = 3;
const PAT: u8 = 4;
const QUI: u8 = 5;
const AUD: u8 = 6;

type AskRef = (StatementId, EntryHash);
/// A change and the code of the refusal that it meets.
type Edit<T> = (fn(&mut T), &'static str);

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}
fn person(n: u8) -> PersonId {
    PersonId::new([n; 16])
}
fn key(n: u8, nth: u8) -> SshKey {
    let blob = Sha256::digest([n, nth]);
    SshKey(format!("ssh-ed25519 {}", encoding::base64_std(&blob)))
}
fn writer_key(id: &str) -> SigningKey {
    let seed: [u8; 32] = Sha256::digest(id).into();
    SigningKey::from_seed(id, &seed).unwrap()
}

/// A signature here is the key's text and a hash over namespace and message.
struct Fake;

fn fake_sig(key: &SshKey, namespace: &str, message: &[u8]) -> Vec<u8> {
    let hash = Sha256::new()
        .chain_update(&key.0)
        .chain_update([0])
        .chain_update(namespace)
        .chain_update([0])
        .chain_update(message)
        .finalize();
    let mut sig = key.0.clone().into_bytes();
    sig.push(0);
    sig.extend_from_slice(&hash);
    sig
}

impl Judge for Fake {
    fn sshsig(&self, namespace: &str, message: &[u8], sig: &[u8]) -> Option<SshKey> {
        let end = sig.iter().position(|b| *b == 0)?;
        let key = SshKey(String::from_utf8(sig[..end].to_vec()).ok()?);
        (fake_sig(&key, namespace, message) == sig).then_some(key)
    }
}

/// Everything in the state, in a stable order.
fn fingerprint(state: &State) -> String {
    let State {
        origin,
        genesis,
        size,
        last_at,
        law_head,
        people,
        targets,
        asks,
        grants,
        sessions,
        keys,
        chosen,
        open_actions,
        statements,
        ids,
        writers,
        ..
    } = state;
    let ids: BTreeMap<_, _> = ids.iter().collect();
    format!(
        "{:?}",
        (
            (
                origin, genesis, size, last_at, law_head, people, targets, asks
            ),
            (
                grants,
                sessions,
                keys,
                chosen,
                open_actions,
                statements,
                ids,
                writers
            ),
        )
    )
}

fn opening(field: &str, text: &str) -> Opening {
    let salt: [u8; 32] = Sha256::digest(format!("{field}/{text}")).into();
    Opening::new(field, salt, text.as_bytes().to_vec())
}
fn prose(field: &str, text: &str) -> (Prose, Opening) {
    let opening = opening(field, text);
    (Prose::of(&opening), opening)
}
fn enrol(n: u8, roles: &[Role]) -> (PersonAdd, Opening) {
    let name = opening("name", &format!("person {n}"));
    let add = PersonAdd {
        person: person(n),
        name: name.commitment(),
        keys: vec![key(n, 0), key(n, 1)],
        roles: roles.to_vec(),
    };
    (add, name)
}
fn everybody() -> Vec<(PersonAdd, Opening)> {
    vec![
        enrol(ADA, &[Role::Admin]),
        enrol(BEN, &[Role::Admin]),
        enrol(REQ, &[Role::Requester, Role::Approver]),
        enrol(PAT, &[Role::Approver, Role::Requester]),
        enrol(QUI, &[Role::Approver]),
        enrol(AUD, &[Role::Auditor]),
    ]
}
fn genesis(admin_quorum: u32, people: &[(PersonAdd, Opening)]) -> Genesis {
    Genesis {
        log_key: writer_key(ORIGIN).verifier().to_string(),
        admins: people.iter().map(|(add, _)| add.clone()).collect(),
        admin_quorum,
        writers: [SERVER, "gw"]
            .iter()
            .map(|id| WriterKey {
                id: (*id).to_owned(),
                key: Bytes(writer_key(id).verifier().public_key().to_vec()),
            })
            .collect(),
    }
}
fn target(name: &str) -> Target {
    Target {
        name: name.to_owned(),
        host: "10.0.0.1".to_owned(),
        port: 22,
        host_keys: vec![key(200, 0)],
        accounts: vec!["root".to_owned(), "app".to_owned()],
        system_owner: person(ADA),
        quorum: 1,
        required_approvers: Vec::new(),
        max_seconds: 4 * 3600,
        min_justification: 12,
        ticket: None,
        break_glass: vec![person(REQ)],
        review_seconds: 2 * 3600,
        stream_cap: 1 << 20,
        over_cap: OverCap::Digest,
    }
}
fn sign(key: &SshKey, statement: &Statement) -> Signed {
    let text = statement.to_text().unwrap();
    let sig = fake_sig(key, &statement.say.namespace(), text.as_bytes());
    Signed {
        text,
        sig: Bytes(sig),
    }
}
fn answer(ask: AskRef) -> Answer {
    Answer {
        of: ask.0,
        entry: ask.1,
        remark: None,
    }
}

struct World {
    state: State,
    log: Vec<Vec<u8>>,
    now: Timestamp,
    count: u64,
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
    fn empty() -> Self {
        Self {
            state: State::new(ORIGIN),
            log: Vec::new(),
            now: time(T0),
            count: 0,
        }
    }
    fn new(admin_quorum: u32) -> Self {
        let mut world = Self::empty();
        let people = everybody();
        let names = people.iter().map(|(_, name)| name.clone()).collect();
        let first = Body::Genesis(genesis(admin_quorum, &people));
        world.record(SERVER, first, names).unwrap();
        world
    }
    /// One target `db1`, changed as said.
    fn with(edit: impl FnOnce(&mut Target)) -> Self {
        let mut world = Self::new(1);
        let mut db1 = target("db1");
        edit(&mut db1);
        world.say(ADA, Say::TargetSet(db1), Vec::new()).unwrap();
        world
    }
    fn plain() -> Self {
        Self::with(|_| ())
    }
    fn fresh(&mut self) -> [u8; 16] {
        self.count += 1;
        crate::id::derived("test", &[&self.count.to_be_bytes()])
    }
    fn after(&mut self, ms: i64) -> &mut Self {
        self.now = self.now.plus_millis(ms);
        self
    }
    fn record(
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
    fn statement(&mut self, by: u8, say: Say) -> Statement {
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
    fn submit(&mut self, signed: Signed, openings: Vec<Opening>) -> Result<Vec<Sequenced>, Denied> {
        self.record(SERVER, Body::Statement(signed), openings)
    }
    fn say(&mut self, by: u8, say: Say, openings: Vec<Opening>) -> Result<AskRef, Denied> {
        self.say_with(by, 0, say, openings)
    }
    fn say_with(
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
    fn request_for(&self) -> (Request, Opening) {
        let (justification, opening) = prose("justification", WHY);
        let request = Request {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_before: self.now,
            not_after: self.now.plus_millis(HOUR),
            uses: Uses::Reusable,
            justification,
            ticket: None,
        };
        (request, opening)
    }
    fn request(&mut self, by: u8, edit: impl FnOnce(&mut Request)) -> Result<AskRef, Denied> {
        let (mut request, opening) = self.request_for();
        edit(&mut request);
        self.say(by, Say::Request(request), vec![opening])
    }
    fn approve(&mut self, by: u8, ask: AskRef) -> Result<AskRef, Denied> {
        self.say(by, Say::Approval(answer(ask)), Vec::new())
    }
    fn grant_of(&self, ask: AskRef) -> Option<GrantId> {
        let found = self.state.grants.iter().find(|(_, g)| g.request == ask.0);
        found.map(|(id, _)| *id)
    }
    fn grant(&mut self, edit: impl FnOnce(&mut Request)) -> GrantId {
        let ask = self.request(REQ, edit).unwrap();
        self.approve(PAT, ask).unwrap();
        self.grant_of(ask).unwrap()
    }
    fn extend(&mut self, by: u8, grant: GrantId, until: Timestamp) -> Result<AskRef, Denied> {
        let (justification, opening) = prose("justification", WHY);
        let extension = Extension {
            grant,
            not_after: until,
            justification,
        };
        self.say(by, Say::Extension(extension), vec![opening])
    }
    fn revoke(&mut self, by: u8, grant: GrantId) -> Result<AskRef, Denied> {
        let (reason, opening) = prose("reason", "no longer needed");
        let say = Say::Revocation(Revocation { grant, reason });
        self.say(by, say, vec![opening])
    }
    fn break_glass(&mut self, by: u8, ms: i64) -> Result<AskRef, Denied> {
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
    fn review(&mut self, by: u8, grant: GrantId) -> Result<AskRef, Denied> {
        let (finding, opening) = prose("finding", "it was a real outage");
        let review = Review {
            grant,
            verdict: Verdict::Justified,
            finding,
        };
        self.say(by, Say::Review(review), vec![opening])
    }
    fn session_for(&mut self, grant: GrantId) -> (SessionOpen, Opening) {
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
            opened_by: OpenedBy::Testimony,
        };
        (open, from)
    }
    fn open(&mut self, grant: GrantId) -> Result<SessionId, Denied> {
        let (open, from) = self.session_for(grant);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    fn intent(&mut self, session: SessionId) -> Result<ActionId, Denied> {
        let command = opening("command", "uptime");
        let action = ActionId::new(self.fresh());
        let intent = Intent {
            action,
            session,
            kind: "ssh.exec".to_owned(),
            command: Some(command.commitment()),
            env: None,
            pty: None,
            forward_within_ms: 2000,
        };
        self.record("gw", Body::Intent(intent), vec![command])?;
        Ok(action)
    }
    fn outcome(&mut self, action: ActionId) -> Result<(), Denied> {
        let outcome = Outcome {
            action,
            status: Status::Succeeded,
            exit_code: Some(0),
            signal: None,
            streams: Vec::new(),
        };
        self.record("gw", Body::Outcome(outcome), Vec::new())?;
        Ok(())
    }
    fn evidence(&mut self, action: ActionId) -> Result<(), Denied> {
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
    fn close(&mut self, session: SessionId) -> Result<(), Denied> {
        let close = SessionClose {
            session,
            reason: CloseReason::Disconnected,
            actions: 0,
            entries: 0,
        };
        self.record("gw", Body::SessionClose(close), Vec::new())?;
        Ok(())
    }
    fn refuse_forwarding(&mut self, session: SessionId) -> Result<(), Denied> {
        let refusal = Refusal {
            person: person(REQ),
            what: "forwarding".to_owned(),
            code: "forwarding".to_owned(),
            session: Some(session),
            detail: None,
        };
        self.record("gw", Body::Refusal(refusal), Vec::new())?;
        Ok(())
    }
    fn head(&mut self, writer: &str) -> Result<(), Denied> {
        let (seq, hash) = self.state.chain_head(writer).unwrap();
        let message = head_message(ORIGIN, writer, seq, &hash);
        let sig = Bytes(writer_key(writer).sign_raw(&message).to_vec());
        self.record(writer, Body::Head(Head { seq, hash, sig }), Vec::new())?;
        Ok(())
    }
    fn standing(&self, session: SessionId) -> Standing {
        self.state.standing(self.now, session)
    }
    fn admit(&self, chosen: Option<GrantId>) -> Result<GrantId, Denied> {
        let admission = self
            .state
            .admit(self.now, person(REQ), "root", "db1", chosen);
        match admission {
            Admission::Grant(view) => Ok(view.grant),
            Admission::Refused(denied) => Err(denied),
        }
    }
}

/// The refusal's code.
fn no<T: std::fmt::Debug>(result: Result<T, Denied>) -> &'static str {
    result.unwrap_err().code
}

/// A ledger with every kind of entry.
fn full_path() -> World {
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
    w.head("gw").unwrap();
    w.head(SERVER).unwrap();
    w
}

#[test]
fn the_full_path_holds_every_kind_and_replays_to_the_same_state() {
    let w = full_path();
    let kinds: BTreeSet<&str> = w
        .log
        .iter()
        .map(|bytes| Entry::from_bytes(bytes).unwrap().body.kind())
        .collect();
    assert_eq!(kinds, Body::KINDS.iter().copied().collect());
    let session = w.state.sessions.values().next().unwrap();
    assert_eq!((session.actions, session.entries), (2, 6));
    assert!(w.state.open_actions().is_empty() && w.state.open_sessions().is_empty());
    let grant = w.state.grants.values().next().unwrap();
    assert_eq!(grant.approvals[0].by, person(PAT));
    assert_eq!(grant.sessions.len(), 1);
}

#[test]
fn requester_is_never_approver_with_any_key() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    for nth in [0, 1] {
        let yes = Say::Approval(answer(ask));
        assert_eq!(no(w.say_with(REQ, nth, yes, Vec::new())), "self-approval");
        let deny = Say::Denial(answer(ask));
        assert_eq!(no(w.say_with(REQ, nth, deny, Vec::new())), "self-approval");
    }
    for (by, code) in [(ADA, "role"), (AUD, "role")] {
        assert_eq!(no(w.approve(by, ask)), code);
    }
    assert_eq!(w.grant_of(ask), None);
    w.approve(PAT, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
}

#[test]
fn quorum_two_needs_two_different_people() {
    let mut w = World::with(|t| t.quorum = 2);
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.grant_of(ask), None);
    assert_eq!(no(w.approve(PAT, ask)), "duplicate");
    let again = Say::Approval(answer(ask));
    assert_eq!(no(w.say_with(PAT, 1, again, Vec::new())), "duplicate");
    assert_eq!(no(w.admit(None)), "pending");
    w.approve(QUI, ask).unwrap();
    let grant = w.grant_of(ask).unwrap();
    assert_eq!(w.state.grants[&grant].approvals.len(), 2);
    assert_eq!(no(w.approve(QUI, ask)), "settled");
}

#[test]
fn a_required_approver_must_be_among_the_approvers() {
    let mut w = World::with(|t| {
        t.required_approvers = vec![person(QUI)];
    });
    let ask = w.request(REQ, |_| ()).unwrap();
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.grant_of(ask), None, "the quorum alone is not enough");
    w.approve(QUI, ask).unwrap();
    assert!(w.grant_of(ask).is_some());
}

#[test]
fn the_window_holds_to_the_millisecond() {
    let mut w = World::plain();
    let start = w.now.plus_millis(10 * MIN);
    let end = start.plus_millis(HOUR);
    let grant = w.grant(|r| (r.not_before, r.not_after) = (start, end));
    w.now = start.plus_millis(-1);
    assert_eq!(no(w.open(grant)), "not-yet");
    assert_eq!(no(w.admit(None)), "not-yet");
    w.now = start;
    let session = w.open(grant).unwrap();
    w.now = end.plus_millis(-1);
    assert_eq!(w.admit(None), Ok(grant));
    w.open(grant).unwrap();
    let last = w.intent(session).unwrap();
    w.now = end;
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Expired));
    assert_eq!(no(w.intent(session)), "expired");
    assert_eq!(no(w.open(grant)), "expired");
    assert_eq!(no(w.admit(None)), "expired");
    w.outcome(last).unwrap();
    w.close(session).unwrap();
    assert_eq!(no(w.close(session)), "closed");
    assert_eq!(no(w.intent(session)), "closed");
}

#[test]
fn windows_are_checked_when_asked_for() {
    let mut w = World::plain();
    let now = w.now;
    let max = 4 * HOUR;
    for (from, until, good) in [
        (now, now.plus_millis(max), true),
        (now, now.plus_millis(max + 1), false),
        (now, now, false),
        (now.plus_millis(-HOUR), now, false),
        (now.plus_millis(-HOUR), now.plus_millis(1), true),
        (now.plus_millis(MIN), now, false),
    ] {
        let asked = w.request(REQ, |r| (r.not_before, r.not_after) = (from, until));
        match asked {
            Ok(_) => assert!(good, "{from} {until}"),
            Err(denied) => assert!(!good && denied.code == "window", "{from} {until}"),
        }
    }
    let ask = w.request(REQ, |_| ()).unwrap();
    w.after(HOUR);
    assert_eq!(no(w.approve(PAT, ask)), "window", "too late to approve");
}

#[test]
fn single_use_is_one_session_and_reusable_is_many() {
    let mut w = World::plain();
    let once = w.grant(|r| r.uses = Uses::Single);
    let first = w.open(once).unwrap();
    assert_eq!(no(w.open(once)), "used");
    w.close(first).unwrap();
    assert_eq!(no(w.open(once)), "used", "a closed session counts");
    assert_eq!(no(w.admit(None)), "used");
    let many = w.grant(|_| ());
    for _ in 0..3 {
        w.open(many).unwrap();
    }
}

#[test]
fn a_session_is_exactly_what_its_grant_allows() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let edits: [Edit<SessionOpen>; 5] = [
        (|o| o.person = person(PAT), "outside-grant"),
        (|o| o.account = "app".to_owned(), "outside-grant"),
        (|o| o.target = "db2".to_owned(), "outside-grant"),
        (|o| o.key = key(PAT, 0).fingerprint(), "key"),
        (|o| o.grant = GrantId::new([9; 16]), "no-grant"),
    ];
    for (edit, code) in edits {
        let (mut open, from) = w.session_for(grant);
        edit(&mut open);
        let done = w.record("gw", Body::SessionOpen(open), vec![from]);
        assert_eq!(no(done), code);
    }
    let stray = SessionId::new([7; 16]);
    assert_eq!(no(w.intent(stray)), "no-session");
    assert_eq!(no(w.outcome(ActionId::new([7; 16]))), "no-action");
    assert_eq!(no(w.close(stray)), "no-session");
}

#[test]
fn a_revoked_grant_refuses_intents_and_sessions() {
    for (by, allowed) in [
        (REQ, true),
        (PAT, true),
        (QUI, true),
        (ADA, true),
        (AUD, false),
    ] {
        let mut w = World::plain();
        let grant = w.grant(|_| ());
        let session = w.open(grant).unwrap();
        w.intent(session).unwrap();
        let done = w.revoke(by, grant);
        if !allowed {
            assert_eq!(no(done), "role");
            w.intent(session).unwrap();
            continue;
        }
        done.unwrap();
        assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
        assert_eq!(no(w.intent(session)), "revoked");
        assert_eq!(no(w.open(grant)), "revoked");
        assert_eq!(no(w.admit(None)), "revoked");
        assert_eq!(no(w.revoke(by, grant)), "settled");
    }
}

#[test]
fn an_extension_needs_somebody_elses_yes() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let end = w.state.grants[&grant].grant.not_after;
    assert_eq!(no(w.extend(PAT, grant, end.plus_millis(1))), "not-yours");
    assert_eq!(no(w.extend(REQ, grant, end)), "window");
    assert_eq!(
        no(w.extend(REQ, grant, end.plus_millis(3 * HOUR + 1))),
        "window"
    );
    let longer = w.extend(REQ, grant, end.plus_millis(HOUR)).unwrap();
    let shorter = w.extend(REQ, grant, end.plus_millis(MIN)).unwrap();
    assert_eq!(no(w.approve(REQ, longer)), "self-approval");
    assert_eq!(w.state.grants[&grant].grant.not_after, end);
    w.approve(PAT, longer).unwrap();
    assert_eq!(no(w.approve(PAT, shorter)), "window", "never shortens");
    let moved = w.state.grants[&grant].grant.not_after;
    assert_eq!(moved, end.plus_millis(HOUR));
    w.now = end;
    w.intent(session).unwrap();
    let last = w.extend(REQ, grant, end.plus_millis(2 * HOUR)).unwrap();
    w.now = moved;
    assert_eq!(
        no(w.approve(PAT, last)),
        "window",
        "an ended grant stays so"
    );
    assert_eq!(no(w.extend(REQ, grant, end.plus_millis(3 * HOUR))), "ended");
}

#[test]
fn only_the_asker_withdraws_and_a_denial_is_final() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    let withdraw = || Say::Cancellation(answer(ask));
    assert_eq!(no(w.say(PAT, withdraw(), Vec::new())), "not-yours");
    assert_eq!(no(w.say(ADA, withdraw(), Vec::new())), "not-yours");
    w.say(REQ, withdraw(), Vec::new()).unwrap();
    assert_eq!(no(w.approve(PAT, ask)), "settled");
    let ask = w.request(REQ, |_| ()).unwrap();
    w.say(PAT, Say::Denial(answer(ask)), Vec::new()).unwrap();
    assert_eq!(no(w.approve(QUI, ask)), "settled");
    let withdraw = Say::Cancellation(answer(ask));
    assert_eq!(no(w.say(REQ, withdraw, Vec::new())), "settled");
    let wrong = (ask.0, EntryHash(ascribe_tlog::Hash([1; 32])));
    assert_eq!(no(w.approve(QUI, wrong)), "links");
    assert_eq!(no(w.admit(None)), "no-grant");
}

#[test]
fn break_glass_is_for_the_named_lasts_an_hour_and_is_marked() {
    let mut w = World::plain();
    assert_eq!(no(w.break_glass(PAT, HOUR)), "break-glass");
    assert_eq!(no(w.break_glass(REQ, HOUR + 1)), "window");
    assert_eq!(no(w.break_glass(REQ, 0)), "window");
    let ask = w.break_glass(REQ, HOUR).unwrap();
    let grant = w.grant_of(ask).unwrap();
    let state = w.state.grants[&grant].clone();
    assert!(state.grant.break_glass && state.review_due.is_some());
    assert_eq!(no(w.approve(PAT, ask)), "break-glass");
    assert_eq!(
        no(w.extend(REQ, grant, w.now.plus_millis(2 * HOUR))),
        "break-glass"
    );
    let session = w.open(grant).unwrap();
    w.intent(session).unwrap();
    let Admission::Grant(view) = w.state.admit(w.now, person(REQ), "root", "db1", None) else {
        panic!("no way in");
    };
    assert!(view.break_glass);
    w.after(HOUR);
    assert_eq!(no(w.intent(session)), "expired");
}

#[test]
fn a_break_glass_review_is_somebody_elses_and_an_overdue_one_blocks() {
    let mut w = World::plain();
    let first = w.break_glass(REQ, MIN).unwrap();
    let first = w.grant_of(first).unwrap();
    let due = w.state.grants[&first].review_due.unwrap();
    w.now = due.plus_millis(-1);
    w.break_glass(REQ, MIN).unwrap();
    w.now = due;
    assert_eq!(no(w.break_glass(REQ, MIN)), "review-overdue");
    assert_eq!(no(w.review(REQ, first)), "self-approval");
    w.review(AUD, first).unwrap();
    assert_eq!(no(w.review(PAT, first)), "settled");
    w.break_glass(REQ, MIN).unwrap();
    let plain = w.grant(|_| ());
    assert_eq!(no(w.review(PAT, plain)), "settled");
}

#[test]
fn a_trivial_justification_is_refused() {
    let mut w = World::plain();
    for text in [
        "",
        "because",
        "aaaaaaaa aaaaaaaaaaa",
        "fix it",
        "x x x x x x x x x x x x x",
    ] {
        let (trivial, opening) = prose("justification", text);
        let (mut request, _) = w.request_for();
        request.justification = trivial;
        let done = w.say(REQ, Say::Request(request), vec![opening]);
        assert_eq!(no(done), "prose", "{text}");
    }
    // Facts about the text that are not true of it are no way round.
    let (mut request, _) = w.request_for();
    let opening = opening("justification", "because");
    request.justification = Prose {
        commit: opening.commitment(),
        ..request.justification
    };
    let done = w.say(REQ, Say::Request(request), vec![opening]);
    assert_eq!(no(done), "openings");
}

#[test]
fn a_ticket_follows_the_targets_rule() {
    let mut w = World::with(|t| {
        t.ticket = Some(TicketRule {
            system: "jira".to_owned(),
            pattern: "OPS-#".to_owned(),
        });
    });
    let ticket = |system: &str, id: &str| {
        Some(Ticket {
            system: system.to_owned(),
            id: id.to_owned(),
        })
    };
    for (given, good) in [
        (None, false),
        (ticket("jira", "OPS-42"), true),
        (ticket("jira", "OPS-x"), false),
        (ticket("jira", "OPS-42 "), false),
        (ticket("snow", "OPS-42"), false),
    ] {
        let done = w.request(REQ, |r| r.ticket = given.clone());
        match done {
            Ok(_) => assert!(good, "{given:?}"),
            Err(denied) => assert!(!good && denied.code == "ticket", "{given:?}"),
        }
    }
    assert_eq!(no(w.break_glass(REQ, MIN)), "ticket");
    assert_eq!(
        no(w.request(REQ, |r| r.account = "nobody".to_owned())),
        "account"
    );
    assert_eq!(
        no(w.request(REQ, |r| r.target = "db9".to_owned())),
        "no-target"
    );
}

#[test]
fn two_fitting_grants_are_listed_and_one_is_chosen() {
    let mut w = World::plain();
    let (a, b) = (w.grant(|_| ()), w.grant(|_| ()));
    let denied = w.admit(None).unwrap_err();
    assert_eq!(denied.code, "ambiguous");
    for id in [a, b] {
        assert!(denied.message.contains(&id.to_string()));
        assert_eq!(w.admit(Some(id)), Ok(id));
    }
    let choose = Say::Use(UseGrant { grant: b });
    assert_eq!(no(w.say(PAT, choose.clone(), Vec::new())), "not-yours");
    w.say(REQ, choose, Vec::new()).unwrap();
    assert_eq!(w.admit(None), Ok(b));
    w.revoke(REQ, b).unwrap();
    assert_eq!(w.admit(None), Ok(a));
    assert_eq!(no(w.admit(Some(b))), "revoked");
}

#[test]
fn a_key_is_revoked_by_its_holder_or_any_one_admin() {
    for (by, code) in [
        (REQ, None),
        (ADA, None),
        (BEN, None),
        (PAT, Some("role")),
        (AUD, Some("role")),
    ] {
        // Two admins are the quorum here; a stolen key needs only one.
        let mut w = World::new(2);
        let stolen = Say::KeyRevoke(PersonKey {
            person: person(REQ),
            key: key(REQ, 1),
        });
        let done = w.say(by, stolen.clone(), Vec::new());
        let owner = w.state.person_by_key(&key(REQ, 1).fingerprint());
        match code {
            None => {
                done.unwrap();
                assert_eq!(owner, None);
                assert_eq!(no(w.say(by, stolen, Vec::new())), "key");
                let late = Say::KeyRevoke(PersonKey {
                    person: person(REQ),
                    key: key(REQ, 0),
                });
                assert_eq!(no(w.say_with(REQ, 1, late, Vec::new())), "key");
            }
            Some(code) => {
                assert_eq!(no(done), code);
                assert_eq!(owner, Some(person(REQ)));
            }
        }
    }
}

#[test]
fn revoking_keys_neither_locks_everybody_out_nor_lets_a_key_return() {
    let revoke = |n, nth| {
        let (person, key) = (person(n), key(n, nth));
        Say::KeyRevoke(PersonKey { person, key })
    };
    let mut w = World::new(2);
    for nth in 0.. {
        let state = &w.state.people[&person(BEN)];
        if !state.keys.contains_key(&key(BEN, nth).fingerprint()) {
            break;
        }
        let last = state.keys.len() == 1;
        let done = w.say(ADA, revoke(BEN, nth), Vec::new());
        assert_eq!(
            done.is_err(),
            last,
            "the last key of the last second admin stays"
        );
    }
    w.say(ADA, revoke(REQ, 1), Vec::new()).unwrap();
    let (person, key) = (person(REQ), key(REQ, 1));
    let again = Say::KeyAdd(PersonKey { person, key });
    assert_eq!(no(w.say(ADA, again, Vec::new())), "revoked");
}

#[test]
fn a_request_is_read_by_who_made_it_may_approve_it_or_audits() {
    let mut w = World::plain();
    let ask = w.request(REQ, |_| ()).unwrap();
    let query = opening("query", "why");
    for (by, good) in [(REQ, true), (PAT, true), (AUD, true), (ADA, false)] {
        let read = Read {
            view: View::Request,
            query: query.commitment(),
            request: Some(ask.0),
            session: None,
        };
        let done = w.say(by, Say::Read(read), vec![query.clone()]);
        assert_eq!(done.is_ok(), good, "{by}");
    }
}

#[test]
fn a_revoked_login_key_ends_its_sessions() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let say = Say::KeyRevoke(PersonKey {
        person: person(REQ),
        key: key(REQ, 0),
    });
    w.say(ADA, say, Vec::new()).unwrap();
    assert_eq!(w.standing(session), Standing::Ended(CloseReason::Revoked));
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open(grant)), "key");
}

#[test]
fn offboarding_ends_sessions_and_grants() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let leave = |n| Say::Offboard(Offboard { person: person(n) });
    assert_eq!(no(w.say(PAT, leave(REQ), Vec::new())), "role");
    w.say(ADA, leave(REQ), Vec::new()).unwrap();
    assert_eq!(no(w.intent(session)), "revoked");
    assert_eq!(no(w.open(grant)), "revoked");
    assert!(w.admit(None).is_err());
    assert_eq!(w.state.person_by_key(&key(REQ, 0).fingerprint()), None);
    assert_eq!(no(w.request(REQ, |_| ())), "offboarded");
    assert_eq!(no(w.say(ADA, leave(REQ), Vec::new())), "settled");
    w.close(session).unwrap();
    w.say(BEN, leave(ADA), Vec::new()).unwrap();
    assert_eq!(no(w.say(BEN, leave(BEN), Vec::new())), "quorum");
}

#[test]
fn a_statement_counts_once_here_now_and_from_its_author() {
    let mut w = World::plain();
    let (request, opening) = w.request_for();
    let base = w.statement(REQ, Say::Request(request));
    let edits: [Edit<Statement>; 7] = [
        (|s| s.v = 2, "version"),
        (|s| s.log = "example.org/other".to_owned(), "log"),
        (|s| s.at = s.at.plus_millis(SIGNER_SKEW_MS + 1), "clock"),
        (|s| s.at = s.at.plus_millis(-SIGNER_SKEW_MS - 1), "clock"),
        (|s| s.by = person(PAT), "key"),
        (|s| s.by = person(99), "no-person"),
        (|s| s.seen.size = 1000, "future"),
    ];
    for (edit, code) in edits {
        let mut statement = base.clone();
        edit(&mut statement);
        let signed = sign(&key(REQ, 0), &statement);
        assert_eq!(no(w.submit(signed, vec![opening.clone()])), code);
    }
    let stranger = sign(&key(PAT, 0), &base);
    assert_eq!(no(w.submit(stranger, vec![opening.clone()])), "key");
    let text = base.to_text().unwrap();
    let elsewhere = Signed {
        sig: Bytes(fake_sig(
            &key(REQ, 0),
            "ascribe.approval.v1",
            text.as_bytes(),
        )),
        text: text.clone(),
    };
    assert_eq!(no(w.submit(elsewhere, vec![opening.clone()])), "signature");
    let mut spaced = sign(&key(REQ, 0), &base);
    spaced.text.push(' ');
    assert_eq!(no(w.submit(spaced, Vec::new())), "malformed");
    let mut edge = base.clone();
    edge.at = edge.at.plus_millis(SIGNER_SKEW_MS);
    let signed = sign(&key(REQ, 0), &edge);
    w.submit(signed.clone(), vec![opening.clone()]).unwrap();
    assert_eq!(no(w.submit(signed, vec![opening])), "replay");
}

#[test]
fn openings_must_be_there_and_match() {
    let mut w = World::plain();
    let (request, good) = w.request_for();
    let mut other_salt = good.clone();
    other_salt.salt.0[0] ^= 1;
    let mut short_salt = good.clone();
    short_salt.salt.0.pop();
    let mut other_field = good.clone();
    other_field.field = "remark".to_owned();
    let mut other_text = good.clone();
    other_text.bytes.0.push(b'!');
    for bad in [
        vec![],
        vec![other_salt],
        vec![short_salt],
        vec![other_field],
        vec![other_text],
        vec![good.clone(), good.clone()],
    ] {
        let done = w.say(REQ, Say::Request(request.clone()), bad);
        assert_eq!(no(done), "openings");
    }
    let mut weak = good.clone();
    weak.salt.0.truncate(16);
    let guessable = Request {
        justification: Prose::of(&weak),
        ..request.clone()
    };
    let done = w.say(REQ, Say::Request(guessable), vec![weak]);
    assert_eq!(no(done), "openings", "a salt is 32 bytes");
    let ask = w
        .say(REQ, Say::Request(request), vec![good.clone()])
        .unwrap();
    let extra = w.say(PAT, Say::Approval(answer(ask)), vec![good]);
    assert_eq!(no(extra), "openings");
}

#[test]
fn under_admin_quorum_two_a_proposal_waits_for_the_second_admin() {
    let mut w = World::new(2);
    let ask = w
        .say(ADA, Say::TargetSet(target("db1")), Vec::new())
        .unwrap();
    assert!(w.state.targets.is_empty());
    assert_eq!(no(w.approve(ADA, ask)), "self-approval");
    for by in [PAT, AUD] {
        assert_eq!(no(w.approve(by, ask)), "role");
    }
    w.approve(BEN, ask).unwrap();
    assert!(w.state.targets.contains_key("db1"));
    let own = Say::KeyAdd(PersonKey {
        person: person(BEN),
        key: key(BEN, 2),
    });
    let ask = w.say(ADA, own, Vec::new()).unwrap();
    assert_eq!(no(w.approve(BEN, ask)), "self-approval");
    let leave = Say::Offboard(Offboard {
        person: person(BEN),
    });
    assert_eq!(no(w.say(ADA, leave, Vec::new())), "quorum");
}

#[test]
fn an_auditor_is_not_an_admin_and_an_admin_is_not_an_auditor() {
    let mut w = World::plain();
    for by in [AUD, PAT, REQ] {
        let done = w.say(by, Say::TargetSet(target("db2")), Vec::new());
        assert_eq!(no(done), "role");
        let (add, name) = enrol(50, &[Role::Admin]);
        assert_eq!(no(w.say(by, Say::PersonAdd(add), vec![name])), "role");
    }
    let grant = w.grant(|_| ());
    let own = w.open(grant).unwrap();
    let query = opening("query", "all");
    for (by, view, session, good) in [
        (AUD, View::Actions, None, true),
        (AUD, View::Export, Some(own), true),
        (ADA, View::Actions, None, false),
        (ADA, View::Replay, Some(own), false),
        (PAT, View::Actions, Some(own), false),
        (REQ, View::Actions, Some(own), true),
        (REQ, View::Actions, None, false),
        (ADA, View::Registry, None, true),
    ] {
        let read = Read {
            view,
            query: query.commitment(),
            request: None,
            session,
        };
        let done = w.say(by, Say::Read(read), vec![query.clone()]);
        assert_eq!(done.is_ok(), good, "{by} {view:?} {session:?}");
    }
    for by in [ADA, AUD, QUI] {
        assert_eq!(no(w.request(by, |_| ())), "role");
    }
}

#[test]
fn enrolment_takes_each_person_and_key_once() {
    let mut w = World::new(1);
    let (add, name) = enrol(50, &[Role::Requester]);
    w.say(ADA, Say::PersonAdd(add.clone()), vec![name.clone()])
        .unwrap();
    let edits: [Edit<PersonAdd>; 6] = [
        (|_| (), "duplicate"),
        (|a| a.person = person(51), "duplicate"),
        (|a| (a.person, a.keys) = (person(51), vec![]), "key"),
        (
            |a| (a.person, a.keys) = (person(51), vec![key(51, 0), key(51, 0)]),
            "duplicate",
        ),
        (
            |a| (a.person, a.keys) = (person(51), vec![SshKey("ssh-ed25519 x y".to_owned())]),
            "key",
        ),
        (
            |a| {
                let weak = key(51, 0).0.replace("ssh-ed25519", "ssh-dss");
                (a.person, a.keys) = (person(51), vec![SshKey(weak)]);
            },
            "key-type",
        ),
    ];
    for (edit, code) in edits {
        let mut add = add.clone();
        edit(&mut add);
        let done = w.say(ADA, Say::PersonAdd(add), vec![name.clone()]);
        assert_eq!(no(done), code);
    }
}

#[test]
fn a_first_entry_is_complete_or_refused() {
    let people = everybody();
    let names: Vec<Opening> = people.iter().map(|(_, name)| name.clone()).collect();
    let edits: [Edit<Genesis>; 8] = [
        (|g| g.log_key = "x".to_owned(), "genesis"),
        (
            |g| g.log_key = writer_key("example.org/other").verifier().to_string(),
            "genesis",
        ),
        (|g| g.admin_quorum = 0, "genesis"),
        (|g| g.admin_quorum = 3, "genesis"),
        (|g| g.writers.retain(|w| w.id != SERVER), "genesis"),
        (|g| g.writers.push(g.writers[0].clone()), "genesis"),
        (|g| g.admins[1].person = g.admins[0].person, "duplicate"),
        (|g| g.admins[1].keys = g.admins[0].keys.clone(), "duplicate"),
    ];
    for (edit, code) in edits {
        let mut first = genesis(1, &people);
        edit(&mut first);
        let mut w = World::empty();
        assert_eq!(
            no(w.record(SERVER, Body::Genesis(first), names.clone())),
            code
        );
    }
    let mut w = World::empty();
    let first = Body::Genesis(genesis(1, &people));
    assert_eq!(
        no(w.record("nobody", first.clone(), names.clone())),
        "writer"
    );
    w.record(SERVER, first.clone(), names.clone()).unwrap();
    assert_eq!(no(w.record(SERVER, first, names)), "genesis");
}

#[test]
fn only_registered_writers_write_and_only_they_sign_their_heads() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let (open, from) = w.session_for(grant);
    let done = w.record("gw2", Body::SessionOpen(open), vec![from]);
    assert_eq!(no(done), "writer");
    w.open(grant).unwrap();
    let (seq, hash) = w.state.chain_head("gw").unwrap();
    let message = head_message(ORIGIN, "gw", seq, &hash);
    let good = writer_key("gw").sign_raw(&message).to_vec();
    let other = writer_key(SERVER).sign_raw(&message).to_vec();
    for (seq, sig) in [(seq, other), (seq + 1, good.clone()), (seq, vec![])] {
        let sig = Bytes(sig);
        let done = w.record("gw", Body::Head(Head { seq, hash, sig }), Vec::new());
        assert_eq!(no(done), "head");
    }
    let hash = EntryHash(ascribe_tlog::Hash([1; 32]));
    let message = head_message(ORIGIN, "gw", seq, &hash);
    let sig = Bytes(writer_key("gw").sign_raw(&message).to_vec());
    let done = w.record("gw", Body::Head(Head { seq, hash, sig }), Vec::new());
    assert_eq!(no(done), "head", "signed, and not the chain's entry");
}

#[test]
fn time_never_runs_back_and_each_entry_id_counts_once() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    w.after(HOUR - 1);
    let session = w.open(grant).unwrap();
    w.now = time(T0);
    w.intent(session).unwrap();
    let last = Entry::from_bytes(w.log.last().unwrap()).unwrap();
    assert_eq!(last.at, time(T0 + HOUR - 1));
    let (newest, before) = w.log.split_last().unwrap();
    let mut early = State::new(ORIGIN);
    for bytes in before {
        early.apply(&Fake, bytes).unwrap();
    }
    let mut backdated = Entry::from_bytes(newest).unwrap();
    backdated.at = time(T0);
    let bytes = backdated.to_bytes().unwrap();
    assert_eq!(no(early.apply(&Fake, &bytes)), "time");
    let close = SessionClose {
        session,
        reason: CloseReason::Idle,
        actions: 0,
        entries: 0,
    };
    let again = Proposal {
        id: last.id,
        writer: "gw".to_owned(),
        body: Body::SessionClose(close),
        openings: Vec::new(),
        scope: Scope::None,
    };
    let before = fingerprint(&w.state);
    assert_eq!(no(w.state.sequence(&Fake, w.now, &again)), "duplicate");
    assert_eq!(before, fingerprint(&w.state));
}

#[test]
fn the_server_alone_makes_no_grant_and_moves_no_end() {
    let mut w = World::with(|t| t.quorum = 2);
    let ask = w.request(REQ, |_| ()).unwrap();
    let forged = w.state.grant_from(ask.0).unwrap();
    let try_it =
        |w: &mut World, grant: &Grant| no(w.record(SERVER, Body::Grant(grant.clone()), Vec::new()));
    assert_eq!(try_it(&mut w, &forged), "quorum");
    w.approve(PAT, ask).unwrap();
    assert_eq!(try_it(&mut w, &forged), "quorum");
    w.approve(QUI, ask).unwrap();
    assert_eq!(try_it(&mut w, &forged), "grant", "made once");
    let longer = Body::GrantExtend(crate::entry::GrantExtend {
        grant: forged.grant,
        not_after: forged.not_after.plus_millis(1),
    });
    let mut w2 = World::plain();
    let grant = w2.grant(|_| ());
    assert_eq!(no(w.record(SERVER, longer, Vec::new())), "quorum");
    let end = w2.state.grants[&grant].grant.not_after.plus_millis(1);
    w2.extend(REQ, grant, end).unwrap();
    let longer = Body::GrantExtend(crate::entry::GrantExtend {
        grant,
        not_after: end,
    });
    assert_eq!(no(w2.record(SERVER, longer, Vec::new())), "quorum");

    // Approved, and not yet granted: the grant says what the request said, or is refused.
    let made = w.log.pop().unwrap();
    let mut state = State::new(ORIGIN);
    for bytes in &w.log {
        state.apply(&Fake, bytes).unwrap();
    }
    w.log.push(made);
    let edits: [fn(&mut Grant); 6] = [
        |g| g.person = person(PAT),
        |g| g.account = "app".to_owned(),
        |g| g.not_before = g.not_before.plus_millis(-1),
        |g| g.not_after = g.not_after.plus_millis(1),
        |g| g.uses = Uses::Single,
        |g| g.break_glass = true,
    ];
    for edit in edits {
        let mut other = forged.clone();
        edit(&mut other);
        let proposal = Proposal {
            id: EntryId::new([1; 16]),
            writer: SERVER.to_owned(),
            body: Body::Grant(other),
            openings: Vec::new(),
            scope: Scope::None,
        };
        assert_eq!(no(state.sequence(&Fake, w.now, &proposal)), "grant");
    }
}

#[test]
fn a_proposal_is_checked_again_when_it_takes_effect() {
    let mut w = World::new(2);
    let pair = |n| {
        Say::KeyAdd(PersonKey {
            person: person(n),
            key: key(60, 0),
        })
    };
    let first = w.say(ADA, pair(REQ), Vec::new()).unwrap();
    let second = w.say(ADA, pair(PAT), Vec::new()).unwrap();
    w.approve(BEN, first).unwrap();
    assert_eq!(no(w.approve(BEN, second)), "duplicate");
    let owner = w.state.person_by_key(&key(60, 0).fingerprint());
    assert_eq!(owner, Some(person(REQ)));
}

#[test]
fn entries_of_a_session_add_up_to_what_its_close_counts() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let action = w.intent(session).unwrap();
    w.outcome(action).unwrap();
    w.close(session).unwrap();
    // An excerpt may leave out entries that are not law, but none of the session it is about.
    let other = SessionId::new([9; 16]);
    let last = w.log.len() as u64 - 1;
    let code = |mut state: State, skipped: &[u64]| {
        (0..)
            .zip(&w.log)
            .filter(|(i, _)| !skipped.contains(i))
            .map(|(i, bytes)| state.apply_at(&Fake, i, bytes))
            .find_map(Result::err)
            .map(|denied| denied.code)
    };
    let excerpt = |session| State::excerpt(ORIGIN, session);
    assert_eq!(code(excerpt(session), &[]), None);
    assert_eq!(code(excerpt(session), &[last - 1]), Some("count"));
    assert_eq!(code(excerpt(session), &[last - 2]), Some("no-action"));
    assert_eq!(code(excerpt(session), &[last - 2, last - 1]), Some("count"));
    assert_eq!(code(excerpt(other), &[last - 2, last - 1]), None);
    assert_eq!(code(excerpt(other), &[last - 3]), Some("law-chain"));
    assert_eq!(code(State::new(ORIGIN), &[last - 1]), Some("order"));
}

// What a replay refuses.

/// Paths of all leaves of a JSON value.
fn leaves(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, item) in map {
                leaves(item, &format!("{path}/{name}"), out);
            }
        }
        serde_json::Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{i}"), out);
            }
        }
        _ => out.push(path.to_owned()),
    }
}

/// Other values of the same type.
fn others(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Bool(b) => vec![Value::Bool(!b)],
        Value::Number(n) => {
            let n = n.as_u64().unwrap();
            let mut out = vec![Value::from(n + 1)];
            out.extend(n.checked_sub(1).map(Value::from));
            out
        }
        Value::String(text) => {
            let mut out = vec![Value::from(format!("{text}x")), Value::from("")];
            for at in [0, 3, text.len() / 2, text.len().saturating_sub(2)] {
                let mut bytes = text.clone().into_bytes();
                let Some(byte) = bytes.get_mut(at) else {
                    continue;
                };
                *byte = match *byte {
                    b'1' => b'2',
                    b'a' => b'b',
                    b if b.is_ascii_digit() => b'1',
                    _ => b'a',
                };
                out.extend(String::from_utf8(bytes).ok().map(Value::from));
            }
            out.extend(
                [
                    "single", "reusable", "server", "gw", "idle", "expired", "unknown",
                ]
                .map(Value::from),
            );
            out.retain(|other| other != value);
            out
        }
        _ => vec![],
    }
}

/// Does a replay of these entries, from this state on, refuse one of them?
fn refuses(mut state: State, entries: &[Vec<u8>]) -> bool {
    entries
        .iter()
        .any(|bytes| state.apply(&Fake, bytes).is_err())
}

#[test]
fn every_changed_field_of_every_entry_is_refused_in_replay() {
    // Nothing of its writer follows the newest head of each chain, so only the tree and the
    // signed checkpoint protect what its signature does not cover.
    let w = full_path();
    let count = w.log.len();
    let uncovered = |i: usize, path: &str| i + 2 >= count && ["/id", "/at"].contains(&path);
    let mut state = State::new(ORIGIN);
    let mut changes = 0;
    for (i, bytes) in w.log.iter().enumerate() {
        let entry: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let mut paths = Vec::new();
        leaves(&entry, "", &mut paths);
        for path in paths {
            for other in others(entry.pointer(&path).unwrap()) {
                let mut changed = entry.clone();
                *changed.pointer_mut(&path).unwrap() = other.clone();
                let mut rest = w.log[i..].to_vec();
                rest[0] = encoding::encode(&changed).unwrap();
                let refused = refuses(state.clone(), &rest);
                assert!(
                    refused || uncovered(i, &path),
                    "entry {i}: {path} became {other}"
                );
                changes += 1;
            }
        }
        state.apply(&Fake, bytes).unwrap();
    }
    assert!(changes > 1000, "{changes}");
}

#[test]
fn a_missing_doubled_or_swapped_entry_is_refused_in_replay() {
    let w = full_path();
    let count = w.log.len();
    for i in 0..count {
        let mut doubled = w.log.clone();
        doubled.insert(i, w.log[i].clone());
        assert!(refuses(State::new(ORIGIN), &doubled), "doubled {i}");
        let mut missing = w.log.clone();
        missing.remove(i);
        // The two newest heads are the ends of their chains: a shorter log is a true one.
        let refused = refuses(State::new(ORIGIN), &missing);
        assert!(refused || i + 2 >= count, "missing {i}");
        if i + 1 < count {
            let mut swapped = w.log.clone();
            swapped.swap(i, i + 1);
            // Neighbours of two writers that name nothing of each other may come in any order;
            // their order is the tree's claim.
            let (a, b) = (
                Entry::from_bytes(&w.log[i]).unwrap(),
                Entry::from_bytes(&w.log[i + 1]).unwrap(),
            );
            let free = a.writer.id != b.writer.id
                && a.law == b.law
                && a.at == b.at
                && !b.refs.iter().any(|r| r.index == i as u64);
            let refused = refuses(State::new(ORIGIN), &swapped);
            assert!(refused || free, "swapped {i}");
        }
    }
    let mut state = State::new(ORIGIN);
    for junk in [&b""[..], b"{}", b"null", &[0xff; 70_000]] {
        assert!(state.apply(&Fake, junk).is_err());
    }
}

// Golden lists.

fn golden(text: &str) -> Vec<Vec<&str>> {
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        assert!(columns.iter().all(|c| !c.is_empty()), "{line}");
        lines.push(columns);
    }
    lines
}

#[test]
fn entry_kinds_without_a_persons_signature_are_listed_with_a_reason() {
    let list = golden(include_str!("../../testdata/unsigned_kinds.txt"));
    assert!(list.iter().all(|columns| columns.len() == 2));
    let listed: Vec<&str> = list.iter().map(|columns| columns[0]).collect();
    let kinds: Vec<&str> = Body::KINDS
        .iter()
        .copied()
        .filter(|kind| *kind != "statement")
        .collect();
    assert_eq!(listed, kinds);
}

#[test]
fn statement_types_are_listed_with_who_and_under_which_quorum() {
    let list = golden(include_str!("../../testdata/statement_types.txt"));
    assert!(list.iter().all(|columns| columns.len() == 3));
    let listed: Vec<&str> = list.iter().map(|columns| columns[0]).collect();
    assert_eq!(listed, Say::TAGS);
    let (add, _) = enrol(50, &[]);
    let pair = PersonKey {
        person: person(REQ),
        key: key(REQ, 2),
    };
    let leaver = Offboard {
        person: person(REQ),
    };
    let proposals = [
        Say::TargetSet(target("db1")),
        Say::PersonAdd(add),
        Say::KeyAdd(pair),
        Say::Offboard(leaver),
    ];
    let by_quorum: Vec<&str> = list
        .iter()
        .filter(|columns| columns[2] == "administrators' quorum")
        .map(|columns| columns[0])
        .collect();
    assert!(proposals.iter().all(Say::is_proposal));
    assert_eq!(proposals.map(|say| say.tag()).as_slice(), by_quorum);
}

// A model beside the law: it keeps only facts, and works everything out again from all of them.

#[derive(Debug, Clone)]
enum Cmd {
    Ask {
        by: u8,
        two: bool,
        from: i64,
        long: i64,
        single: bool,
    },
    Extend {
        by: u8,
        grant: usize,
        more: i64,
    },
    Yes {
        by: u8,
        ask: usize,
    },
    No {
        by: u8,
        ask: usize,
    },
    Withdraw {
        by: u8,
        ask: usize,
    },
    Revoke {
        by: u8,
        grant: usize,
    },
    Open {
        grant: usize,
    },
    Act {
        session: usize,
    },
    Leave {
        who: u8,
    },
    Wait {
        ms: i64,
    },
}

#[derive(Debug, Clone)]
enum Fact {
    Asked {
        by: u8,
        quorum: usize,
        from: i64,
        until: i64,
        single: bool,
        of: Option<usize>,
    },
    Yes {
        by: u8,
        ask: usize,
    },
    Ended {
        ask: usize,
    },
    Revoked {
        ask: usize,
    },
    Opened {
        ask: usize,
    },
    Left {
        who: u8,
    },
}

/// The four people: a requester, two who request and approve, an approver.
const WORLD: [(&[Role], u8); 4] = [
    (&[Role::Requester], 11),
    (&[Role::Requester, Role::Approver], 12),
    (&[Role::Requester, Role::Approver], 13),
    (&[Role::Approver], 14),
];
const LONGEST: i64 = 2 * HOUR;

/// Facts in order; asks and sessions are numbered as they come.
#[derive(Default)]
struct Model {
    facts: Vec<Fact>,
}

impl Model {
    fn asks(&self) -> Vec<&Fact> {
        let asked = |fact: &&Fact| matches!(fact, Fact::Asked { .. });
        self.facts.iter().filter(asked).collect()
    }
    /// Asker, approvals needed, first instant, end, single use, the grant to extend.
    fn ask(&self, n: usize) -> (u8, usize, i64, i64, bool, Option<usize>) {
        match self.asks()[n] {
            Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
            } => (*by, *quorum, *from, *until, *single, *of),
            other => panic!("{other:?}"),
        }
    }
    fn sessions(&self) -> Vec<usize> {
        let opened = |fact: &Fact| match fact {
            Fact::Opened { ask } => Some(*ask),
            _ => None,
        };
        self.facts.iter().filter_map(opened).collect()
    }
    fn voices(&self, n: usize) -> BTreeSet<u8> {
        let voice = |fact: &Fact| match fact {
            Fact::Yes { by, ask } if *ask == n => Some(*by),
            _ => None,
        };
        self.facts.iter().filter_map(voice).collect()
    }
    fn carried(&self, n: usize) -> bool {
        self.voices(n).len() >= self.ask(n).1
    }
    fn settled(&self, n: usize) -> bool {
        let over = |fact: &Fact| matches!(fact, Fact::Ended { ask } if *ask == n);
        self.carried(n) || self.facts.iter().any(over)
    }
    fn left(&self, person: u8) -> bool {
        let gone = |fact: &Fact| matches!(fact, Fact::Left { who } if *who == person);
        self.facts.iter().any(gone)
    }
    fn is(&self, person: u8, role: Role) -> bool {
        WORLD[usize::from(person)].0.contains(&role) && !self.left(person)
    }
    fn end(&self, grant: usize) -> i64 {
        let later = (0..self.asks().len())
            .filter(|n| self.ask(*n).5 == Some(grant) && self.carried(*n))
            .map(|n| self.ask(n).3);
        later.max().unwrap_or(0).max(self.ask(grant).3)
    }
    fn grants(&self) -> Vec<usize> {
        (0..self.asks().len())
            .filter(|n| self.ask(*n).5.is_none() && self.carried(*n))
            .collect()
    }
    fn revoked(&self, grant: usize) -> bool {
        let taken = |fact: &Fact| matches!(fact, Fact::Revoked { ask } if *ask == grant);
        self.facts.iter().any(taken)
    }
    /// May something run under this grant now?
    fn holds(&self, grant: usize, now: i64) -> bool {
        self.carried(grant)
            && !self.revoked(grant)
            && !self.left(self.ask(grant).0)
            && now < self.end(grant)
    }
    fn may_answer(&self, by: u8, n: usize) -> bool {
        !self.settled(n) && self.is(by, Role::Approver) && self.ask(n).0 != by
    }
    fn may_say_yes(&self, by: u8, n: usize, now: i64) -> bool {
        let (_, _, _, until, _, of) = self.ask(n);
        let in_time = match of {
            None => now < until,
            Some(grant) => !self.revoked(grant) && now < self.end(grant) && until > self.end(grant),
        };
        self.may_answer(by, n) && !self.voices(n).contains(&by) && in_time
    }
    fn may_extend(&self, by: u8, grant: usize, until: i64, now: i64) -> bool {
        self.ask(grant).0 == by
            && self.holds(grant, now)
            && until > self.end(grant)
            && until - self.ask(grant).2 <= LONGEST
    }
    fn may_open(&self, grant: usize, now: i64) -> bool {
        let (_, _, from, _, single, _) = self.ask(grant);
        self.holds(grant, now) && now >= from && !(single && self.sessions().contains(&grant))
    }
}

/// The machine, and what it calls the model's asks and sessions.
struct Pair {
    model: Model,
    world: World,
    asks: Vec<AskRef>,
    sessions: Vec<SessionId>,
    ran: usize,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::empty();
        let mut people = vec![enrol(ADA, &[Role::Admin])];
        people.extend(WORLD.iter().map(|(roles, n)| enrol(*n, roles)));
        let names = people.iter().map(|(_, name)| name.clone()).collect();
        world
            .record(SERVER, Body::Genesis(genesis(1, &people)), names)
            .unwrap();
        for (name, quorum) in [("one", 1), ("two", 2)] {
            let mut rules = target(name);
            (rules.quorum, rules.max_seconds, rules.break_glass) = (quorum, 7200, vec![]);
            world.say(ADA, Say::TargetSet(rules), Vec::new()).unwrap();
        }
        Self {
            model: Model::default(),
            world,
            asks: Vec::new(),
            sessions: Vec::new(),
            ran: 0,
        }
    }
    fn grant_id(&self, n: usize) -> GrantId {
        self.world.grant_of(self.asks[n]).unwrap()
    }
    /// What the machine did, what the model says, and the fact that follows.
    fn run(&mut self, cmd: &Cmd) {
        let now = self.world.now.millis();
        // Mostly the newest.
        let pick = |n: usize, of: usize| (of > 0).then(|| of - 1 - n % of);
        let (done, expected, fact) = match *cmd {
            Cmd::Wait { ms } => {
                self.world.after(ms);
                return;
            }
            Cmd::Ask {
                by,
                two,
                from,
                long,
                single,
            } => {
                return self.ask(by, two, now + from, now + from + long, single);
            }
            Cmd::Extend { by, grant, more } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()) else {
                    return;
                };
                return self.extend(by, grants[n], more);
            }
            Cmd::Yes { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let done = self.world.approve(WORLD[usize::from(by)].1, self.asks[n]);
                let expected = self.model.may_say_yes(by, n, now);
                (done.is_ok(), expected, Fact::Yes { by, ask: n })
            }
            Cmd::No { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let say = Say::Denial(answer(self.asks[n]));
                let done = self.world.say(WORLD[usize::from(by)].1, say, Vec::new());
                (
                    done.is_ok(),
                    self.model.may_answer(by, n),
                    Fact::Ended { ask: n },
                )
            }
            Cmd::Withdraw { by, ask } => {
                let Some(n) = pick(ask, self.asks.len()) else {
                    return;
                };
                let say = Say::Cancellation(answer(self.asks[n]));
                let done = self.world.say(WORLD[usize::from(by)].1, say, Vec::new());
                let model = &self.model;
                let expected = model.ask(n).0 == by && !model.settled(n) && !model.left(by);
                (done.is_ok(), expected, Fact::Ended { ask: n })
            }
            Cmd::Revoke { by, grant } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()).map(|n| grants[n]) else {
                    return;
                };
                let id = self.grant_id(n);
                let done = self.world.revoke(WORLD[usize::from(by)].1, id);
                let model = &self.model;
                let entitled = model.ask(n).0 == by || model.is(by, Role::Approver);
                let expected = entitled && !model.left(by) && !model.revoked(n);
                (done.is_ok(), expected, Fact::Revoked { ask: n })
            }
            Cmd::Open { grant } => {
                let grants = self.model.grants();
                let Some(n) = pick(grant, grants.len()).map(|n| grants[n]) else {
                    return;
                };
                let id = self.grant_id(n);
                let done = self.world.open(id);
                self.sessions.extend(done.as_ref().ok());
                (
                    done.is_ok(),
                    self.model.may_open(n, now),
                    Fact::Opened { ask: n },
                )
            }
            Cmd::Act { session } => {
                let Some(n) = pick(session, self.sessions.len()) else {
                    return;
                };
                let done = self.world.intent(self.sessions[n]).is_ok();
                let grant = self.model.sessions()[n];
                assert_eq!(done, self.model.holds(grant, now), "{cmd:?}");
                self.ran += usize::from(done);
                return;
            }
            Cmd::Leave { who } => {
                let leaver = person(WORLD[usize::from(who)].1);
                let say = Say::Offboard(Offboard { person: leaver });
                let done = self.world.say(ADA, say, Vec::new());
                (done.is_ok(), !self.model.left(who), Fact::Left { who })
            }
        };
        assert_eq!(done, expected, "{cmd:?}");
        if done {
            self.model.facts.push(fact);
        }
    }
    fn ask(&mut self, by: u8, two: bool, from: i64, until: i64, single: bool) {
        let now = self.world.now.millis();
        let done = self.world.request(WORLD[usize::from(by)].1, |r| {
            r.target = if two { "two" } else { "one" }.to_owned();
            (r.not_before, r.not_after) = (time(from), time(until));
            r.uses = if single { Uses::Single } else { Uses::Reusable };
        });
        let in_window = until > now && until > from && until - from <= LONGEST;
        let expected = self.model.is(by, Role::Requester) && in_window;
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if let Ok(ask) = done {
            self.asks.push(ask);
            let quorum = if two { 2 } else { 1 };
            let of = None;
            self.model.facts.push(Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
            });
        }
    }
    fn extend(&mut self, by: u8, grant: usize, more: i64) {
        let now = self.world.now.millis();
        let until = self.model.end(grant) + more;
        let id = self.grant_id(grant);
        let done = self.world.extend(WORLD[usize::from(by)].1, id, time(until));
        let expected = self.model.may_extend(by, grant, until, now);
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if let Ok(ask) = done {
            self.asks.push(ask);
            let (_, quorum, from, _, single, _) = self.model.ask(grant);
            let of = Some(grant);
            self.model.facts.push(Fact::Asked {
                by,
                quorum,
                from,
                until,
                single,
                of,
            });
        }
    }
}

fn commands() -> impl Strategy<Value = Vec<Cmd>> {
    let who = prop_oneof![0..4u8, 1..4u8];
    let nth = prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => 2..8usize];
    let windows = prop_oneof![Just(0), Just(10 * MIN), Just(-MIN)];
    let lengths =
        prop_oneof![4 => Just(HOUR), 4 => Just(LONGEST), 1 => Just(LONGEST + 1), 1 => Just(0)];
    let waits = prop_oneof![
        Just(1),
        Just(10 * MIN - 1),
        Just(HOUR - 10 * MIN),
        Just(MIN)
    ];
    let ask = (0..3u8, any::<bool>(), windows, lengths, any::<bool>());
    let more = prop_oneof![Just(MIN), Just(HOUR), Just(0), Just(LONGEST)];
    let one = prop_oneof![
        9 => ask.prop_map(|(by, two, from, long, single)| Cmd::Ask { by, two, from, long, single }),
        6 => (who.clone(), nth.clone(), more).prop_map(|(by, grant, more)| Cmd::Extend { by, grant, more }),
        18 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::Yes { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::No { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, ask)| Cmd::Withdraw { by, ask }),
        3 => (who.clone(), nth.clone()).prop_map(|(by, grant)| Cmd::Revoke { by, grant }),
        12 => nth.clone().prop_map(|grant| Cmd::Open { grant }),
        18 => nth.prop_map(|session| Cmd::Act { session }),
        1 => (0..4u8).prop_map(|who| Cmd::Leave { who }),
        4 => waits.prop_map(|ms| Cmd::Wait { ms }),
    ];
    proptest::collection::vec(one, 1..100)
}

#[test]
fn the_law_and_the_model_agree_on_every_command() {
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ran = std::cell::Cell::new(0);
    proptest!(config, |(commands in commands())| {
        let mut pair = Pair::new();
        for cmd in &commands {
            pair.run(cmd);
        }
        // Dropping the world replays its bytes and compares the states.
        ran.set(ran.get() + pair.ran);
    });
    assert!(ran.get() > 200, "only {} intents ran", ran.get());
}

#[test]
fn a_later_extension_or_owner_changes_no_older_record() {
    use crate::attribution::{Filter, Fold};
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    w.after(MIN);
    let session = w.open(grant).unwrap();
    let first = w.intent(session).unwrap();
    w.outcome(first).unwrap();
    let records = |w: &World| {
        let mut fold = Fold::new();
        for (index, bytes) in (0u64..).zip(&w.log) {
            let entry = Entry::from_bytes(bytes).unwrap();
            fold.push(index, &entry, crate::entry::entry_hash(bytes));
        }
        let root = ascribe_tlog::Hash::ZERO;
        fold.actions(&w.state, &Filter::default(), root, u64::MAX, "withheld")
    };
    let before = records(&w);
    let until = w.state.grants[&grant].grant.not_after.plus_millis(HOUR);
    let longer = w.extend(REQ, grant, until).unwrap();
    w.after(5).approve(QUI, longer).unwrap();
    let mut changed = target("db1");
    changed.system_owner = person(AUD);
    w.say(ADA, Say::TargetSet(changed), Vec::new()).unwrap();
    w.after(5);
    let second = w.intent(session).unwrap();
    w.outcome(second).unwrap();
    let after = records(&w);
    assert_eq!(after[..1], before[..]);
    assert_eq!(after[1].why.not_after, until);
    assert_eq!(
        after[1].why.approvals.len(),
        after[0].why.approvals.len() + 1
    );
}

#[test]
fn one_enrolment_of_a_person_waits_at_a_time() {
    let mut w = World::new(2);
    let (add, name) = enrol(50, &[Role::Requester]);
    let first = w
        .say(ADA, Say::PersonAdd(add.clone()), vec![name.clone()])
        .unwrap();
    let other = opening("name", "somebody else");
    let second = PersonAdd {
        name: other.commitment(),
        ..add
    };
    assert_eq!(
        no(w.say(BEN, Say::PersonAdd(second), vec![other])),
        "duplicate"
    );
    w.approve(BEN, first).unwrap();
    assert!(w.state.people.contains_key(&person(50)));
}
