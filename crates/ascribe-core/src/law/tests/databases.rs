//! Databases: by which door, which statements, and a script that is run as it was approved.

use super::identities::BOT;
use super::*;
use crate::database::{
    Compared, Job, LogFile, Postgres, Reconciliation, SqlIntent, SqlOutcome, SqlScope, Step,
    UNPARSED, Values,
};
use crate::id::ContentDigest;
use crate::identity::Binding;
use crate::statement::{Anywhere, Connect, Forward};

fn postgres() -> Postgres {
    Postgres {
        allow: Vec::new(),
        databases: Vec::new(),
        trust: vec![Bytes(vec![0x30; 64])],
        values: Values::Full,
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn sql(classes: &[&str]) -> SqlIntent {
    SqlIntent {
        classes: words(classes),
        flags: Vec::new(),
        objects: Vec::new(),
        port: None,
        step: None,
        values: None,
    }
}

fn digest(text: &str) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash(Sha256::digest(text).into()))
}

fn step(number: u32, text: &str) -> SqlIntent {
    let sha256 = digest(text);
    SqlIntent {
        step: Some(Step { number, sha256 }),
        ..sql(&["update"])
    }
}

impl World {
    fn database(edit: impl FnOnce(&mut Postgres)) -> Self {
        let mut own = postgres();
        edit(&mut own);
        Self::with(|target| {
            target.host_keys = Vec::new();
            target.postgres = Some(own);
        })
    }
    fn open_database(&mut self, grant: GrantId) -> Result<SessionId, Denied> {
        let say = Say::Connect(Connect {
            definition: None,
            target: "db1".to_owned(),
            account: "root".to_owned(),
            grant: None,
        });
        let opening = self.say(REQ, say, Vec::new())?.0;
        let (mut open, from) = self.session_for(grant);
        (open.door, open.opened_by) = (Door::Tunnel, OpenedBy::Signed);
        open.opening = Some(opening);
        let id = open.session;
        self.record("gw", Body::SessionOpen(open), vec![from])?;
        Ok(id)
    }
    fn execute(&mut self, session: SessionId, sql: SqlIntent) -> Result<ActionId, Denied> {
        self.intent_of("pg.query", session, |intent| intent.sql = Some(sql))
    }
    fn step(
        &mut self,
        kind: &str,
        session: SessionId,
        (number, statement): (u32, &str),
        text: &str,
    ) -> Result<ActionId, Denied> {
        self.intent_with(kind, session, text, |i| {
            i.sql = Some(step(number, statement))
        })
    }
    fn bounded(&mut self, scope: SqlScope) -> SessionId {
        let grant = self.grant(|request| request.sql = Some(scope));
        self.open_database(grant).unwrap()
    }
}

#[test]
fn a_database_is_known_by_its_certificates() {
    let set = |edit: fn(&mut Target)| {
        let mut w = World::new(1);
        let mut db1 = target("db1");
        db1.host_keys = Vec::new();
        db1.postgres = Some(postgres());
        edit(&mut db1);
        w.say(ADA, Say::TargetSet(db1), Vec::new()).map(drop)
    };
    assert_eq!(set(|_| ()), Ok(()));
    let wrong: [fn(&mut Target); 8] = [
        |t| t.host_keys = vec![key(200, 0)],
        |t| t.postgres = None,
        |t| t.postgres.as_mut().unwrap().trust.clear(),
        |t| t.postgres.as_mut().unwrap().trust = vec![Bytes(vec![0; 64]); 17],
        |t| t.postgres.as_mut().unwrap().trust = vec![Bytes(vec![0; 63])],
        |t| t.postgres.as_mut().unwrap().allow = words(&["SET ROLE"]),
        |t| t.postgres.as_mut().unwrap().databases = words(&[""]),
        |t| t.postgres.as_mut().unwrap().databases = vec!["a".repeat(64)],
    ];
    for (n, edit) in wrong.into_iter().enumerate() {
        assert_eq!(set(edit).unwrap_err().code, "target", "{n}");
    }
    // On the gateway's own machine no wire is listened to.
    assert_eq!(
        set(|t| {
            (t.host, t.addresses) = ("127.0.0.1".to_owned(), vec!["127.0.0.1".to_owned()]);
            t.loopback = true;
            t.postgres.as_mut().unwrap().trust.clear();
        }),
        Ok(())
    );
}

#[test]
fn a_database_is_reached_by_a_signed_door_and_nothing_else_by_it() {
    let mut w = World::database(|_| ());
    let grant = w.grant(|_| ());
    for door in [Door::Direct, Door::Jump, Door::Connect] {
        let (mut open, from) = w.session_for(grant);
        open.door = door;
        let opened = w.record("gw", Body::SessionOpen(open), vec![from]);
        assert_eq!(no(opened), "door");
    }
    let (mut open, from) = w.session_for(grant);
    open.door = Door::Password;
    let unsigned = w.record("gw", Body::SessionOpen(open), vec![from]);
    assert_eq!(no(unsigned), "opening");
    let session = w.open_database(grant).unwrap();
    assert_eq!(no(w.intent(session)), "kind");
    assert_eq!(no(w.intent_of("pg.other", session, |_| ())), "kind");
    assert_eq!(no(w.intent_of("pg.query", session, |_| ())), "sql");
    let done = w.execute(session, sql(&["select"])).unwrap();
    w.intent_of("pg.cancel", session, |_| ()).unwrap();
    w.outcome(done).unwrap();

    let mut w = World::plain();
    let grant = w.grant(|_| ());
    assert_eq!(no(w.open_database(grant)), "door");
    let session = w.open(grant).unwrap();
    assert_eq!(no(w.execute(session, sql(&["select"]))), "kind");
    let with = w.intent_of("ssh.exec", session, |i| i.sql = Some(sql(&["select"])));
    assert_eq!(no(with), "kind");
}

#[test]
fn what_is_dangerous_by_itself_is_refused_unless_the_target_allows_it() {
    let mut w = World::database(|p| p.allow = words(&["do"]));
    let grant = w.grant(|_| ());
    let session = w.open_database(grant).unwrap();
    let flagged = |flag: &str| SqlIntent {
        flags: words(&[flag]),
        ..sql(&["other"])
    };
    w.execute(session, flagged("do")).unwrap();
    for flag in ["set-role", "unread", "copy-program"] {
        assert_eq!(no(w.execute(session, flagged(flag))), "flag", "{flag}");
    }
    // The connection itself is recorded, and may set what is dangerous.
    let connect = |w: &mut World, sql| w.intent_of("pg.connect", session, |i| i.sql = Some(sql));
    connect(&mut w, sql(&["connect"])).unwrap();
    // It comes from a port, and nothing else does.
    let from = |classes: &[&str]| SqlIntent {
        port: Some(50_000),
        ..sql(classes)
    };
    connect(&mut w, from(&["connect"])).unwrap();
    assert_eq!(no(w.execute(session, from(&["select"]))), "sql");
    assert_eq!(no(connect(&mut w, flagged("set-role"))), "flag");
    // What the grammar does not know is let through, and on record, where nothing is bounded.
    w.execute(session, sql(&[UNPARSED])).unwrap();
}

#[test]
fn a_grant_bounds_classes_and_objects() {
    let mut w = World::database(|_| ());
    let session = w.bounded(SqlScope {
        classes: words(&["select", "update"]),
        objects: words(&["public.orders", "audit.*"]),
        ..SqlScope::default()
    });
    let on = |classes: &[&str], objects: &[&str]| SqlIntent {
        objects: words(objects),
        ..sql(classes)
    };
    w.execute(session, on(&["select"], &["public.orders", "audit.log"]))
        .unwrap();
    w.execute(session, sql(&["empty"])).unwrap();
    w.intent_of("pg.connect", session, |i| i.sql = Some(sql(&["connect"])))
        .unwrap();
    let set = w.intent_of("pg.connect", session, |i| {
        i.sql = Some(sql(&["connect", "set"]));
    });
    assert_eq!(no(set), "outside-grant");
    for outside in [
        on(&["empty", "delete"], &[]),
        on(&["select"], &["\"audit.x\".secrets"]),
        on(&["select"], &["\"public.orders\""]),
        on(&["delete"], &["public.orders"]),
        on(&["select", "delete"], &["public.orders"]),
        on(&["select"], &["public.people"]),
        on(&["select"], &["orders"]),
        on(&[UNPARSED], &[]),
        on(&[], &[]),
    ] {
        assert_eq!(
            no(w.execute(session, outside.clone())),
            "outside-grant",
            "{outside:?}"
        );
    }
}

#[test]
fn an_approved_script_runs_in_order_and_once_a_session() {
    let mut w = World::database(|_| ());
    let scope = SqlScope {
        script: vec![digest("a"), digest("b"), digest("a"), digest("c")],
        ..SqlScope::default()
    };
    let session = w.bounded(scope.clone());
    assert_eq!(no(w.execute(session, sql(&["update"]))), "outside-grant");
    assert_eq!(
        no(w.step("pg.query", session, (0, "b"), "b")),
        "outside-grant"
    );
    assert_eq!(
        no(w.step("pg.query", session, (4, "a"), "a")),
        "outside-grant"
    );
    // What is only readied is bounded, too, and the script does not go on.
    let ready = w.intent_of("pg.prepare", session, |i| i.sql = Some(sql(&["update"])));
    assert_eq!(no(ready), "outside-grant");
    w.step("pg.prepare", session, (0, "a"), "a").unwrap();
    // The text that is recorded is the one of the step, whatever is around it.
    for text in ["b", "a -- b", ""] {
        let other = w.step("pg.query", session, (0, "a"), text);
        assert_eq!(no(other), "openings", "{text}");
    }
    w.step("pg.query", session, (0, "a"), "/* why */ a ;")
        .unwrap();
    let ready = w.step("pg.prepare", session, (0, "a"), "a");
    assert_eq!(no(ready), "outside-grant");
    assert_eq!(
        no(w.step("pg.query", session, (0, "a"), "a")),
        "outside-grant"
    );
    let textless = w.intent_of("pg.query", session, |intent| {
        (intent.command, intent.sql) = (None, Some(step(2, "a")));
    });
    assert_eq!(no(textless), "outside-grant");
    w.step("pg.query", session, (2, "a"), "a").unwrap();
    assert_eq!(
        no(w.step("pg.query", session, (1, "b"), "b")),
        "outside-grant"
    );
    w.step("pg.query", session, (3, "c"), "c").unwrap();
    // What a connection sets could make other statements of these.
    let connect = |w: &mut World, sql| w.intent_of("pg.connect", session, |i| i.sql = Some(sql));
    connect(&mut w, sql(&["connect"])).unwrap();
    assert_eq!(
        no(connect(&mut w, sql(&["connect", "set"]))),
        "outside-grant"
    );
    // Stopping needs no step.
    w.intent_of("pg.cancel", session, |_| ()).unwrap();

    // For one session means once in all.
    let grant = w.grant(|request| {
        request.sql = Some(scope);
        request.uses = Uses::Single;
    });
    w.open_database(grant).unwrap();
    assert_eq!(no(w.open_database(grant)), "used");
}

#[test]
fn what_is_asked_for_fits_the_target() {
    let mut w = World::database(|_| ());
    let job = |name: &str, schedule: &str| Job {
        definition: digest("file"),
        name: name.to_owned(),
        schedule: schedule.to_owned(),
    };
    let scope = |edit: &dyn Fn(&mut SqlScope)| {
        let mut scope = SqlScope::default();
        edit(&mut scope);
        scope
    };
    let many = (0..513).map(|n| digest(&n.to_string())).collect::<Vec<_>>();
    for (n, wrong) in [
        scope(&|s| s.classes = words(&["SELECT"])),
        scope(&|s| s.classes = vec!["a".to_owned(); 65]),
        scope(&|s| s.objects = words(&["a\nb"])),
        scope(&|s| s.objects = words(&["orders"])),
        scope(&|s| s.objects = words(&["*"])),
        scope(&|s| s.objects = vec!["a".repeat(161)]),
        scope(&|s| s.script = many.clone()),
        scope(&|s| s.job = Some(job("nightly", "at night"))),
        scope(&|s| {
            // No workload runs it.
            s.job = Some(job("nightly", "at night"));
            s.script = vec![digest("a")];
        }),
        scope(&|s| {
            s.job = Some(job("nightly", "at night"));
            s.classes = words(&["select"]);
        }),
    ]
    .into_iter()
    .enumerate()
    {
        let asked = w.request(REQ, |request| request.sql = Some(wrong));
        assert_eq!(no(asked), "sql", "{n}");
    }
    let forwarding = w.request(REQ, |request| {
        request.forwards = vec![Forward::Agent(Anywhere {})];
    });
    assert_eq!(no(forwarding), "sql");
    let mut ssh = World::plain();
    let asked = ssh.request(REQ, |request| request.sql = Some(SqlScope::default()));
    assert_eq!(no(asked), "sql");
}

#[test]
fn an_answer_is_within_bounds() {
    let mut w = World::database(|_| ());
    let grant = w.grant(|_| ());
    let session = w.open_database(grant).unwrap();
    let mut answer = |tag: Option<&str>, sqlstate: Option<&str>| {
        let action = w.execute(session, sql(&["select"])).unwrap();
        let outcome = Outcome {
            action,
            exit_code: None,
            notes: Vec::new(),
            signal: None,
            sql: Some(SqlOutcome {
                bytes: 9,
                duration_us: 7,
                rows: 1,
                sqlstate: sqlstate.map(str::to_owned),
                tag: tag.map(str::to_owned),
            }),
            status: Status::Succeeded,
            streams: Vec::new(),
        };
        w.record("gw", Body::Outcome(outcome), Vec::new()).map(drop)
    };
    assert_eq!(answer(Some("SELECT 1"), None), Ok(()));
    assert_eq!(answer(None, Some("42P01")), Ok(()));
    for (tag, code) in [
        (Some("a\nb"), None),
        (None, Some("42P0")),
        (None, Some("42P0\u{e9}")),
    ] {
        assert_eq!(answer(tag, code).unwrap_err().code, "sql");
    }
    let long = "a".repeat(65);
    assert_eq!(answer(Some(&long), None).unwrap_err().code, "sql");
}

#[test]
fn a_job_waits_for_the_systems_owner() {
    let mut w = World::with_providers();
    let own = |owner: u8| {
        let mut db1 = target("db1");
        db1.host_keys = Vec::new();
        db1.postgres = Some(postgres());
        db1.system_owner = person(owner);
        Say::TargetSet(db1)
    };
    let scope = SqlScope {
        job: Some(Job {
            definition: digest("file"),
            name: "nightly".to_owned(),
            schedule: "at night".to_owned(),
        }),
        script: vec![digest("a")],
        ..SqlScope::default()
    };
    let ask_for = |w: &mut World, scope: SqlScope| {
        w.request(REQ, |request| {
            request.beneficiary = Some(person(BOT));
            request.sql = Some(scope);
        })
    };
    let ask = |w: &mut World| ask_for(w, scope.clone());
    // Who cannot say yes is not waited for.
    for owner in [ADA, REQ] {
        w.say(ADA, own(owner), vec![]).unwrap();
        assert_eq!(no(ask(&mut w)), "job-owner");
    }
    w.say(ADA, own(QUI), vec![]).unwrap();
    // A command says what its statements are.
    let mut unbounded = scope.clone();
    unbounded.script = Vec::new();
    assert_eq!(no(ask_for(&mut w, unbounded.clone())), "sql");
    unbounded.classes = words(&["select"]);
    ask_for(&mut w, unbounded).unwrap();
    let asked = ask(&mut w).unwrap();
    // Another's yes makes the quorum, and is not enough.
    w.approve(PAT, asked).unwrap();
    assert_eq!(w.grant_of(asked), None);
    w.approve(QUI, asked).unwrap();
    let grant = w.grant_of(asked).unwrap();
    let granted = &w.state.grants[&grant].grant;
    assert_eq!(granted.sql, Some(scope));
    assert_eq!(granted.person, person(BOT));
}

/// A grant for a job of the workload's, and the login that it comes with.
fn job(scope: SqlScope) -> (World, GrantId, (StatementId, SshKey)) {
    let mut w = World::with_providers();
    let mut db1 = target("db1");
    db1.host_keys = Vec::new();
    db1.postgres = Some(postgres());
    db1.system_owner = person(QUI);
    w.say(ADA, Say::TargetSet(db1), vec![]).unwrap();
    let job = Job {
        definition: digest("approved"),
        name: "nightly".to_owned(),
        schedule: "at night".to_owned(),
    };
    let asked = w.request(REQ, |request| {
        request.beneficiary = Some(person(BOT));
        request.uses = Uses::Reusable;
        request.sql = Some(SqlScope {
            job: Some(job),
            ..scope
        });
    });
    let asked = asked.unwrap();
    w.approve(QUI, asked).unwrap();
    let grant = w.grant_of(asked).unwrap();
    let login = w.log_in(BOT, |_| ()).unwrap();
    (w, grant, login)
}

/// What is approved to run unattended goes on for longer by the yes of whoever answers for the target, and of nobody else alone.
#[test]
fn a_job_goes_on_for_longer_only_with_its_targets_owners_yes() {
    let script = SqlScope {
        script: vec![digest("a")],
        ..SqlScope::default()
    };
    let (mut w, grant, login) = job(script);
    let until = w.state.grants[&grant].grant.not_after;
    let longer = until.plus_millis(60_000);
    let ask = w.extend(REQ, grant, longer).unwrap();
    w.approve(PAT, ask).unwrap();
    assert_eq!(w.state.grants[&grant].grant.not_after, until);
    let open = &w.state.asks[&ask.0];
    let missing = w.state.missing_approvals(open).unwrap();
    assert_eq!(missing, [Some(person(QUI))]);
    // Before version 4 that was enough.
    let mut before = w.state.clone();
    before.version = 3;
    assert_eq!(before.missing_approvals(open).unwrap(), []);
    w.approve(QUI, ask).unwrap();
    assert_eq!(w.state.grants[&grant].grant.not_after, longer);
    run(&mut w, grant, &login, None).unwrap();

    // Whoever became the owner meanwhile cannot give it to themself.
    let mut db1 = w.state.targets["db1"].target.clone();
    db1.system_owner = person(REQ);
    w.say(ADA, Say::TargetSet(db1), vec![]).unwrap();
    let longer = longer.plus_millis(60_000);
    assert_eq!(no(w.extend(REQ, grant, longer)), "job-owner");
    let mut before = w.state.clone();
    before.version = 3;
    let asked = crate::statement::Extension {
        grant,
        not_after: longer,
        justification: prose("justification", WHY).0,
    };
    before.check_extension(person(REQ), w.now, &asked).unwrap();
}

fn run(
    w: &mut World,
    grant: GrantId,
    (login, key): &(StatementId, SshKey),
    definition: Option<ContentDigest>,
) -> Result<SessionId, Denied> {
    let say = Say::Connect(Connect {
        definition,
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    });
    let opening = w.say_as(BOT, key, say, Vec::new())?.0;
    let (mut open, from) = w.session_for(grant);
    (open.door, open.opened_by) = (Door::Tunnel, OpenedBy::Signed);
    (open.opening, open.login) = (Some(opening), Some(*login));
    open.key = key.fingerprint();
    let id = open.session;
    w.record("gw", Body::SessionOpen(open), vec![from])?;
    Ok(id)
}

#[test]
fn a_session_of_a_job_is_opened_with_what_was_approved() {
    let approved = Some(digest("approved"));
    let changed = Some(digest("changed"));
    let command = SqlScope {
        classes: words(&["select"]),
        ..SqlScope::default()
    };
    let (mut w, grant, login) = job(command);
    for stated in [None, changed, Some(digest(""))] {
        assert_eq!(no(run(&mut w, grant, &login, stated)), "definition");
    }
    let session = run(&mut w, grant, &login, approved).unwrap();
    w.execute(session, sql(&["select"])).unwrap();
    for outside in [sql(&["select", "delete"]), sql(&[UNPARSED]), sql(&[])] {
        assert_eq!(no(w.execute(session, outside)), "outside-grant");
    }
    // Another connection of the same run.
    run(&mut w, grant, &login, approved).unwrap();

    // Of a script each statement is compared, so it need not be said, and must not be said wrongly.
    let script = SqlScope {
        script: vec![digest("a")],
        ..SqlScope::default()
    };
    let (mut w, grant, login) = job(script);
    assert_eq!(no(run(&mut w, grant, &login, changed)), "definition");
    run(&mut w, grant, &login, None).unwrap();
    let session = run(&mut w, grant, &login, approved).unwrap();
    assert_eq!(
        no(w.step("pg.query", session, (0, "b"), "b")),
        "outside-grant"
    );
    w.step("pg.query", session, (0, "a"), "a").unwrap();

    // Where there is no job there is nothing to state.
    let mut w = World::database(|_| ());
    let grant = w.grant(|_| ());
    let say = Say::Connect(Connect {
        definition: approved,
        target: "db1".to_owned(),
        account: "root".to_owned(),
        grant: None,
    });
    let opening = w.say(REQ, say, Vec::new()).unwrap().0;
    let (mut open, from) = w.session_for(grant);
    (open.door, open.opened_by) = (Door::Tunnel, OpenedBy::Signed);
    open.opening = Some(opening);
    let opened = w.record("gw", Body::SessionOpen(open), vec![from]);
    assert_eq!(no(opened), "definition");
}

/// Nothing that is shown at the door says what a command is.
#[test]
fn a_command_is_not_run_by_a_door_where_nobody_signs() {
    let scope = SqlScope {
        classes: words(&["select"]),
        ..SqlScope::default()
    };
    let (mut w, grant, (login, key)) = job(scope);
    let (mut open, from) = w.session_for(grant);
    (open.door, open.login, open.key) = (Door::Tunnel, Some(login), key.fingerprint());
    let opened = w.record("gw", Body::SessionOpen(open), vec![from]);
    assert_eq!(no(opened), "opening");
    let (login, key) = w
        .log_in(BOT, |login| {
            login.claims.binding = Binding::None;
            login.until = login.claims.expires;
            login.bearer = true;
        })
        .unwrap();
    let (mut open, from) = w.session_for(grant);
    (open.door, open.login, open.key) = (Door::Bearer, Some(login), key.fingerprint());
    let opened = w.record("gw", Body::SessionOpen(open), vec![from]);
    assert_eq!(no(opened), "definition");
}

#[test]
fn what_a_comparison_found_is_said_by_an_auditor_or_an_admin() {
    let mut w = World::database(|_| ());
    let list = opening("findings", "[]");
    let found = Reconciliation {
        comparable: true,
        database_only: Compared::default(),
        files: vec![LogFile {
            bytes: 9,
            sha256: digest("a log"),
        }],
        findings: list.commitment(),
        from: time(T0),
        matched: Compared {
            sessions: 1,
            statements: 2,
        },
        ours_only: Compared::default(),
        targets: words(&["db1"]),
        unreadable: 0,
        until: time(T0),
    };
    let mut say = |by, edit: &dyn Fn(&mut Reconciliation)| {
        let mut found = found.clone();
        edit(&mut found);
        let said = w.say(by, Say::Reconciliation(found), vec![list.clone()]);
        said.map(drop).map_err(|denied| denied.code)
    };
    assert_eq!(say(AUD, &|_| ()), Ok(()));
    assert_eq!(say(ADA, &|_| ()), Ok(()));
    assert_eq!(say(REQ, &|_| ()), Err("role"));
    assert_eq!(say(PAT, &|_| ()), Err("role"));
    let wrong: [&dyn Fn(&mut Reconciliation); 5] = [
        &|found| found.targets.clear(),
        &|found| found.targets.push("db1".to_owned()),
        &|found| found.files.clear(),
        &|found| found.files = vec![found.files[0]; 513],
        &|found| found.until = time(T0 - 1),
    ];
    for edit in wrong {
        assert_eq!(say(AUD, edit), Err("reconciliation"));
    }
    assert_eq!(
        say(AUD, &|found| found.targets = words(&["db2"])),
        Err("no-target")
    );
    let other = opening("findings", "[{}]");
    let unsealed = |found: &mut Reconciliation| found.findings = other.commitment();
    assert_eq!(say(AUD, &unsealed), Err("openings"));
    assert_eq!(no_database(&found, &list), Err("reconciliation"));
}

/// The same of a target that is none.
fn no_database(found: &Reconciliation, list: &Opening) -> Result<(), &'static str> {
    let mut w = World::plain();
    let said = w.say(AUD, Say::Reconciliation(found.clone()), vec![list.clone()]);
    said.map(drop).map_err(|denied| denied.code)
}
