//! How a session opens, who may look on, who may end it, and what it may forward.

use super::*;
use crate::entry::OpenedBy;
use crate::statement::{Anywhere, Connect, Destination, Forward, Listen, SocketPath, Termination};

fn connect() -> Connect {
    Connect {
        definition: None,
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    }
}

impl World {
    fn sign_opening(&mut self, by: u8, nth: u8) -> Result<StatementId, Denied> {
        let say = Say::Connect(connect());
        self.say_with(by, nth, say, Vec::new()).map(|ask| ask.0)
    }
    fn open_signed(
        &mut self,
        grant: GrantId,
        opening: StatementId,
        edit: impl FnOnce(&mut SessionOpen),
    ) -> Result<SessionId, Denied> {
        let (mut open, from) = self.session_for(grant);
        open.door = Door::Connect;
        open.opened_by = OpenedBy::Signed;
        open.opening = Some(opening);
        edit(&mut open);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    fn terminate(&mut self, by: u8, session: SessionId, reason: &str) -> Result<AskRef, Denied> {
        let (reason, opening) = prose("reason", reason);
        let say = Say::Termination(Termination { session, reason });
        self.say(by, say, vec![opening])
    }
    fn watch(&mut self, by: u8, session: Option<SessionId>) -> Result<AskRef, Denied> {
        let query = opening("query", "{}");
        let read = Read {
            view: View::Watch,
            query: query.commitment(),
            request: None,
            session,
        };
        self.say(by, Say::Read(read), vec![query])
    }
}

#[test]
fn a_signed_opening_opens_one_session_and_is_its_parent() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let opening = w.sign_opening(REQ, 0).unwrap();
    assert_eq!(w.state.signed_opening(opening).unwrap().connect, connect());
    let session = w.open_signed(grant, opening, |_| ()).unwrap();
    let entry = Entry::from_bytes(w.log.last().unwrap()).unwrap();
    let rels: Vec<&str> = entry.refs.iter().map(|r| r.rel.as_str()).collect();
    assert_eq!(rels, ["grant", "opening"]);
    assert!(matches!(w.standing(session), Standing::Until(_)));
    assert_eq!(w.state.signed_opening(opening), None);
    assert_eq!(no(w.open_signed(grant, opening, |_| ())), "opening");
}

#[test]
fn a_signed_opening_is_good_for_what_it_says_and_nothing_else() {
    let edits: [Edit<SessionOpen>; 5] = [
        (|open| open.key = key(REQ, 1).fingerprint(), "opening"),
        (|open| open.door = Door::Direct, "opening"),
        (|open| open.door = Door::Jump, "opening"),
        (|open| open.opened_by = OpenedBy::Testimony, "opening"),
        (|open| open.opening = None, "opening"),
    ];
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let opening = w.sign_opening(REQ, 0).unwrap();
    for (edit, code) in edits {
        assert_eq!(no(w.open_signed(grant, opening, edit)), code);
    }
    let app = w.grant(|request| request.account = "app".to_owned());
    assert_eq!(no(w.open_signed(app, opening, |_| ())), "opening");
    let theirs = w.sign_opening(PAT, 0).unwrap();
    assert_eq!(no(w.open_signed(grant, theirs, |_| ())), "opening");
    // Named, it must be that grant.
    let chosen = Connect {
        grant: Some(app),
        ..connect()
    };
    let chosen = w.say(REQ, Say::Connect(chosen), Vec::new()).unwrap().0;
    assert_eq!(no(w.open_signed(grant, chosen, |_| ())), "opening");
    w.open_signed(grant, opening, |_| ()).unwrap();
}

#[test]
fn a_signed_opening_grows_old_and_people_do_not_pile_them_up() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let opening = w.sign_opening(REQ, 0).unwrap();
    w.after(5 * MIN + 1);
    assert_eq!(no(w.open_signed(grant, opening, |_| ())), "opening");
    for _ in 0..256 {
        w.sign_opening(REQ, 0).unwrap();
    }
    assert_eq!(no(w.sign_opening(REQ, 0)), "too-many");
    w.sign_opening(PAT, 0).unwrap();
    w.after(5 * MIN + 1);
    w.sign_opening(REQ, 0).unwrap();
}

#[test]
fn a_target_may_demand_signed_openings() {
    let mut w = World::with(|target| target.signed_opening = true);
    let grant = w.grant(|_| ());
    assert_eq!(no(w.open(grant)), "unsigned");
    let opening = w.sign_opening(REQ, 0).unwrap();
    w.open_signed(grant, opening, |_| ()).unwrap();
}

#[test]
fn a_session_is_ended_by_its_actor_an_approver_or_an_admin_and_by_nobody_else() {
    for by in [REQ, PAT, QUI, ADA] {
        let mut w = World::plain();
        let grant = w.grant(|_| ());
        let session = w.open(grant).unwrap();
        let action = w.intent(session).unwrap();
        assert_eq!(no(w.terminate(AUD, session, "looks wrong")), "role");
        w.terminate(by, session, "looks wrong").unwrap();
        assert_eq!(no(w.terminate(by, session, "again")), "settled");
        let ended = Standing::Ended(CloseReason::Terminated);
        assert_eq!(w.standing(session), ended);
        assert_eq!(no(w.intent(session)), "terminated");
        // What was under way is still told, and the grant goes on.
        w.outcome(action).unwrap();
        w.close(session).unwrap();
        w.open(grant).unwrap();
    }
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    for empty in ["", " \n"] {
        assert_eq!(no(w.terminate(PAT, session, empty)), "prose");
    }
    w.close(session).unwrap();
    assert_eq!(no(w.terminate(PAT, session, "too late")), "settled");
    // Nobody looks for words while something has to end.
    let session = w.open(grant).unwrap();
    w.terminate(PAT, session, "now").unwrap();
}

#[test]
fn a_session_is_watched_while_it_runs_by_whoever_may_and_the_law_remembers() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    assert_eq!(no(w.watch(AUD, None)), "no-session");
    // QUI approves too, but did not approve this.
    for by in [QUI, ADA] {
        assert_eq!(no(w.watch(by, Some(session))), "role");
    }
    for by in [AUD, PAT, AUD, REQ] {
        w.watch(by, Some(session)).unwrap();
    }
    let watchers = [AUD, PAT, REQ].map(person);
    assert_eq!(w.state.watchers(session), watchers);
    w.close(session).unwrap();
    assert_eq!(no(w.watch(AUD, Some(session))), "closed");
}

fn to(host: &str, port: u16, address: Option<&str>) -> Forward {
    Forward::Local(Destination {
        host: host.to_owned(),
        port,
        address: address.map(str::to_owned),
    })
}

fn path(text: &str) -> SocketPath {
    SocketPath {
        path: text.to_owned(),
    }
}

#[test]
fn what_may_be_forwarded_is_asked_for_approved_and_in_the_grant() {
    let all = vec![
        to("10.0.0.9", 5432, None),
        to("reports", 443, Some("10.0.0.10")),
        Forward::Dynamic(Anywhere {}),
        Forward::Socket(path("/run/db.sock")),
        Forward::Remote(Listen { port: 0 }),
        Forward::RemoteSocket(path("/run/back.sock")),
        Forward::Agent(Anywhere {}),
        Forward::X11(Anywhere {}),
    ];
    let mut w = World::plain();
    let grant = w.grant(|request| request.forwards.clone_from(&all));
    assert_eq!(w.state.grants[&grant].grant.forwards, all);
    match w.state.admit(w.now, &wanted(REQ)) {
        Admission::Grant(view) => assert_eq!(view.forwards, all),
        Admission::Refused(denied) => panic!("{denied}"),
    }
}

#[test]
fn a_forwarding_without_one_fixed_destination_is_refused() {
    let bad = [
        to("", 80, None),
        to("db", 0, Some("10.0.0.9")),
        to("db", 80, None),
        to("db", 80, Some("other-name")),
        to("10.0.0.9", 80, Some("10.0.0.10")),
        to("d b", 80, Some("10.0.0.9")),
        to(&"d".repeat(254), 80, Some("10.0.0.9")),
        Forward::Socket(path("run/db.sock")),
        Forward::Socket(path("/run/../etc")),
        Forward::RemoteSocket(path(&format!("/{}", "x".repeat(108)))),
    ];
    let mut w = World::plain();
    for forward in bad {
        let shown = format!("{forward:?}");
        let asked = w.request(REQ, |request| request.forwards = vec![forward]);
        assert_eq!(no(asked), "forward", "{shown}");
    }
    let many = vec![Forward::Agent(Anywhere {}); 65];
    assert_eq!(
        no(w.request(REQ, |request| request.forwards = many)),
        "forward"
    );
}

#[test]
fn a_target_is_at_no_address_that_leads_inside() {
    let mut w = World::new(1);
    let mut set = |addresses: &[&str], host: &str, loopback: bool| {
        let mut db1 = target("db1");
        host.clone_into(&mut db1.host);
        db1.addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
        db1.loopback = loopback;
        w.say(ADA, Say::TargetSet(db1), Vec::new())
    };
    for good in [
        "10.0.0.1",
        "192.168.1.1",
        "203.0.113.9",
        "2001:db8::1",
        "fd12::1",
    ] {
        set(&[good], "db1.internal", false).unwrap();
    }
    for local in ["127.0.0.1", "127.9.9.9", "::1"] {
        assert_eq!(
            no(set(&[local], "db1.internal", false)),
            "address",
            "{local}"
        );
        set(&[local], "db1.internal", true).unwrap();
    }
    for never in [
        "169.254.169.254",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "fe80::1",
        "ff02::1",
        "::",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "168.63.129.16",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        // Not addresses, or not in the shortest form.
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "10.0.0.01",
        "2001:DB8::1",
        "10.0.0.1 ",
        "db1",
        "",
    ] {
        assert_eq!(
            no(set(&[never], "db1.internal", true)),
            "address",
            "{never}"
        );
    }
    // Wrapped, it is still loopback.
    for wrapped in ["::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
        assert_eq!(
            no(set(&[wrapped], "db1.internal", false)),
            "address",
            "{wrapped}"
        );
    }
    assert_eq!(no(set(&[], "db1.internal", false)), "address");
    assert_eq!(no(set(&["10.0.0.1"; 17], "db1.internal", false)), "address");
    assert_eq!(no(set(&["10.0.0.2"], "10.0.0.1", false)), "address");
}
