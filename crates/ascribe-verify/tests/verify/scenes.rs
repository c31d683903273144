//! What happens in a log: each step with the links that its kind demands.

use ascribe_core::entry::{
    Body, Chunk, CloseReason, Door, Evidence, Grant, GrantExtend, Intent, OpenedBy, Outcome,
    Refusal, SessionClose, SessionOpen, Status,
};
use ascribe_core::id::{ActionId, GrantId, SessionId, StatementId, derived};
use ascribe_core::law::Place;
use ascribe_core::sealed::Prose;
use ascribe_core::statement::{
    Answer, BreakGlass, Extension, Request, Revocation, Say, SshKey, Target, Ticket, Uses,
};

use super::forge::{Forge, MINUTE, ORIGIN, Pen, Who, sealed};

pub(super) const COMMAND: &str = "uptime -p";
const WHY: &str = "restart the stuck replica";

/// A request, an extension or an emergency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) id: StatementId,
    pub(super) place: Place,
}

/// A grant as it is written into the log.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) body: Grant,
    pub(super) place: Place,
}

/// A session that goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) id: SessionId,
    pub(super) place: Place,
    actions: u64,
    entries: u64,
}

impl Forge {
    /// Registers `db1`.
    pub(super) fn target(&mut self) -> Place {
        self.target_with(|_| ())
    }

    pub(super) fn target_with(&mut self, change: impl FnOnce(&mut Target)) -> Place {
        let mut target = Target {
            addresses: vec!["10.0.0.1".to_owned()],
            max_seconds: 14_400,
            min_justification: 10,
            break_glass: vec![Who::Olu.id()],
            review_seconds: 3600,
            stream_cap: 1024,
            ..Target::ssh("db1", ("db", 22), Who::Pat.key(1), "root", self.admin.id())
        };
        change(&mut target);
        self.say(self.admin, &[], Say::TargetSet(target), vec![]).1
    }

    /// Olu asks for `root@db1` for an hour.
    pub(super) fn request(&mut self, target: Place, uses: Uses) -> (Ask, Grant) {
        self.request_with(target, |request| request.uses = uses)
    }

    /// The same, changed. Returns the grant that a yes would lead to.
    pub(super) fn request_with(
        &mut self,
        target: Place,
        change: impl FnOnce(&mut Request),
    ) -> (Ask, Grant) {
        self.request_by(Who::Olu, target, change)
    }

    /// The same with another key of Olu's.
    pub(super) fn request_by(
        &mut self,
        pen: impl Into<Pen>,
        target: Place,
        change: impl FnOnce(&mut Request),
    ) -> (Ask, Grant) {
        let why = sealed("justification", WHY);
        let mut request = Request {
            uses: Uses::Single,
            ticket: Some(Ticket {
                system: "jira".to_owned(),
                id: "OPS-42".to_owned(),
            }),
            ..Request::plain(
                "db1",
                "root",
                (self.now, self.now.plus_millis(60 * MINUTE)),
                Prose::of(&why),
            )
        };
        change(&mut request);
        let say = Say::Request(request.clone());
        let (id, place) = self.say(pen, &[("target", target)], say, vec![why]);
        let grant = Grant {
            forwards: Vec::new(),
            grant: grant_id(id),
            person: Who::Olu.id(),
            target: request.target,
            account: request.account,
            not_before: request.not_before,
            not_after: request.not_after,
            uses: request.uses,
            break_glass: false,
            windows: Vec::new(),
            sql: None,
        };
        (Ask { id, place }, grant)
    }

    pub(super) fn approve(&mut self, pen: impl Into<Pen>, ask: Ask) -> Place {
        self.approve_by(pen, ask, &[])
    }

    /// The same with more parents.
    pub(super) fn approve_by(
        &mut self,
        pen: impl Into<Pen>,
        ask: Ask,
        more: &[(&str, Place)],
    ) -> Place {
        let answer = Answer {
            of: ask.id,
            entry: ask.place.hash,
            remark: None,
        };
        let parents = [&[("answers", ask.place)], more].concat();
        self.say(pen, &parents, Say::Approval(answer), vec![]).1
    }

    pub(super) fn grant(&mut self, ask: Ask, approvals: &[Place], body: Grant) -> Granted {
        let mut parents = vec![("request", ask.place)];
        parents.extend(approvals.iter().map(|place| ("approval", *place)));
        let place = self.record("server", &parents, Body::Grant(body.clone()), vec![]);
        Granted { body, place }
    }

    /// Asked, approved, granted.
    pub(super) fn granted(&mut self, uses: Uses) -> Granted {
        let target = self.target();
        let (ask, body) = self.request(target, uses);
        let yes = self.wait(MINUTE).approve(Who::Ada, ask);
        self.grant(ask, &[yes], body)
    }

    /// Olu takes an emergency grant.
    pub(super) fn emergency(&mut self, target: Place) -> Granted {
        let why = sealed("emergency", "database down for all");
        let not_after = self.now.plus_millis(30 * MINUTE);
        let say = Say::BreakGlass(BreakGlass {
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_after,
            emergency: Prose::of(&why),
            ticket: None,
        });
        let (id, place) = self.say(Who::Olu, &[("target", target)], say, vec![why]);
        let body = Grant {
            forwards: Vec::new(),
            grant: grant_id(id),
            person: Who::Olu.id(),
            target: "db1".to_owned(),
            account: "root".to_owned(),
            not_before: self.now,
            not_after,
            uses: Uses::Reusable,
            break_glass: true,
            windows: Vec::new(),
            sql: None,
        };
        self.grant(Ask { id, place }, &[], body)
    }

    /// An hour more, asked for by Olu and approved.
    pub(super) fn extend(&mut self, granted: &Granted, approver: impl Into<Pen>) -> Place {
        let why = sealed("justification", "the replica needs another hour");
        let not_after = granted.body.not_after.plus_millis(60 * MINUTE);
        let say = Say::Extension(Extension {
            grant: granted.body.grant,
            not_after,
            justification: Prose::of(&why),
        });
        let (id, place) = self.say(Who::Olu, &[("grant", granted.place)], say, vec![why]);
        let yes = self.approve(approver, Ask { id, place });
        let parents = [
            ("grant", granted.place),
            ("extension", place),
            ("approval", yes),
        ];
        let body = GrantExtend {
            grant: granted.body.grant,
            not_after,
        };
        self.record("server", &parents, Body::GrantExtend(body), vec![])
    }

    pub(super) fn revoke(&mut self, granted: &Granted) -> Place {
        let why = sealed("reason", "no longer needed");
        let say = Say::Revocation(Revocation {
            grant: granted.body.grant,
            reason: Prose::of(&why),
        });
        let parents = [("grant", granted.place)];
        self.say(Who::Ada, &parents, say, vec![why]).1
    }

    /// Olu logs in as `account`.
    pub(super) fn open(&mut self, granted: &Granted, account: &str) -> Running {
        self.open_with(granted, &[], |open| open.account = account.to_owned())
    }

    /// The same with that key, which a login introduced.
    pub(super) fn open_by(
        &mut self,
        granted: &Granted,
        account: &str,
        key: &SshKey,
        login: Option<(StatementId, Place)>,
    ) -> Running {
        let parent: Vec<_> = login
            .map(|(_, place)| ("login", place))
            .into_iter()
            .collect();
        self.open_with(granted, &parent, |open| {
            open.account = account.to_owned();
            open.key = key.fingerprint();
            open.login = login.map(|(id, _)| id);
        })
    }

    /// The same as root, changed, with more parents.
    pub(super) fn open_with(
        &mut self,
        granted: &Granted,
        more: &[(&str, Place)],
        change: impl FnOnce(&mut SessionOpen),
    ) -> Running {
        let from = sealed("from", "192.0.2.7:4022");
        let id = self.session();
        let mut open = SessionOpen {
            session: id,
            grant: granted.body.grant,
            person: granted.body.person,
            key: Who::Olu.key(0).fingerprint(),
            target: "db1".to_owned(),
            account: "root".to_owned(),
            from: from.commitment(),
            certificate: None,
            delegation: None,
            door: Door::Direct,
            opened_by: OpenedBy::Testimony,
            opening: None,
            login: None,
        };
        change(&mut open);
        let parents = [&[("grant", granted.place)], more].concat();
        let place = self.record("gw", &parents, Body::SessionOpen(open), vec![from]);
        Running {
            id,
            place,
            actions: 0,
            entries: 0,
        }
    }

    pub(super) fn intent(
        &mut self,
        session: &mut Running,
        command: impl AsRef<[u8]>,
        env: Option<&str>,
    ) -> (ActionId, Place) {
        let command = sealed("command", command);
        let env = env.map(|env| sealed("env", env));
        let action = self.action();
        session.actions += 1;
        session.entries += 1;
        let intent = Intent {
            action,
            session: session.id,
            kind: "ssh.exec".to_owned(),
            command: Some(command.commitment()),
            env: env.as_ref().map(|env| env.commitment()),
            lends: Vec::new(),
            pty: None,
            forward_within_ms: 2000,
            within: None,
            sql: None,
        };
        let openings = [command].into_iter().chain(env).collect();
        let parents = [("session", session.place)];
        let place = self.record("gw", &parents, Body::Intent(intent), openings);
        (action, place)
    }

    pub(super) fn shell(&mut self, session: &mut Running) -> (ActionId, Place) {
        let action = self.action();
        session.actions += 1;
        session.entries += 1;
        let intent = Intent {
            action,
            session: session.id,
            kind: "ssh.shell".to_owned(),
            command: None,
            env: None,
            lends: Vec::new(),
            pty: None,
            forward_within_ms: 2000,
            within: None,
            sql: None,
        };
        let parents = [("session", session.place)];
        let place = self.record("gw", &parents, Body::Intent(intent), vec![]);
        (action, place)
    }

    pub(super) fn evidence(&mut self, session: &mut Running, of: (ActionId, Place), text: &str) {
        session.entries += 1;
        let bytes = sealed("stdout/0", text);
        let chunk = Chunk {
            stream: "stdout".to_owned(),
            seq: 0,
            bytes: text.len() as u64,
            after_ms: 4,
            commit: bytes.commitment(),
        };
        let evidence = Evidence {
            action: of.0,
            chunks: vec![chunk],
        };
        let parents = [("intent", of.1)];
        self.record("gw", &parents, Body::Evidence(evidence), vec![bytes]);
    }

    pub(super) fn outcome(
        &mut self,
        session: &mut Running,
        of: (ActionId, Place),
        status: Status,
        exit_code: Option<u32>,
        signal: Option<&str>,
    ) {
        session.entries += 1;
        let outcome = Outcome {
            notes: Vec::new(),
            action: of.0,
            status,
            exit_code,
            signal: signal.map(str::to_owned),
            streams: vec![],
            sql: None,
        };
        self.record("gw", &[("intent", of.1)], Body::Outcome(outcome), vec![]);
    }

    /// A command that succeeds.
    pub(super) fn run(&mut self, session: &mut Running) -> ActionId {
        let action = self.wait(MINUTE).intent(session, COMMAND, None);
        self.wait(250)
            .outcome(session, action, Status::Succeeded, Some(0), None);
        action.0
    }

    pub(super) fn refusal(&mut self, session: &mut Running) {
        session.entries += 1;
        let refusal = Refusal {
            delegation: None,
            person: Who::Olu.id(),
            what: "forwarding".to_owned(),
            code: "forwarding".to_owned(),
            session: Some(session.id),
            detail: None,
        };
        let parents = [("session", session.place)];
        self.record("gw", &parents, Body::Refusal(refusal), vec![]);
    }

    pub(super) fn close(&mut self, session: Running) -> SessionId {
        let close = SessionClose {
            session: session.id,
            reason: CloseReason::Disconnected,
            actions: session.actions,
            entries: session.entries,
        };
        let parents = [("session", session.place)];
        self.record("gw", &parents, Body::SessionClose(close), vec![]);
        session.id
    }
}

fn grant_id(request: StatementId) -> GrantId {
    GrantId::new(derived(
        "ascribe/grant/v1",
        &[ORIGIN.as_bytes(), request.bytes()],
    ))
}

/// One approved command, and its session.
pub(super) fn plain() -> (Forge, SessionId) {
    let mut log = Forge::new(100, &[Who::Ada, Who::Olu]);
    let grant = log.granted(Uses::Single);
    let mut session = log.wait(MINUTE).open(&grant, "root");
    log.run(&mut session);
    let id = log.close(session);
    (log, id)
}

/// One command in an emergency, by somebody who is alone: the smallest bundle there is.
pub(super) fn small() -> (Forge, SessionId) {
    let mut log = Forge::new(100, &[Who::Olu]);
    let target = log.target();
    let grant = log.emergency(target);
    let mut session = log.open(&grant, "root");
    log.run(&mut session);
    let id = log.close(session);
    (log, id)
}
