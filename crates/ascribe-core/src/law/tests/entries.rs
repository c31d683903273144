//! What an entry must say to be taken: statements, openings, first entry, heads, counts.

use super::*;
use crate::statement::{Anywhere, Forward, Listen};

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
    for (seq, sig, code) in [
        (seq, other, "signature"),
        (seq + 1, good, "head"),
        (seq, vec![], "signature"),
    ] {
        let sig = Bytes(sig);
        let done = w.record("gw", Body::Head(Head { seq, hash, sig }), Vec::new());
        assert_eq!(no(done), code);
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

#[test]
fn an_action_is_part_of_an_open_action_of_its_own_session() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let (session, other) = (w.open(grant).unwrap(), w.open(grant).unwrap());
    let whole = w.intent_of("ssh.sftp", session, |_| ()).unwrap();
    assert_eq!(no(w.intent_within(other, Some(whole))), "within");
    let unknown = Some(ActionId::new([9; 16]));
    assert_eq!(no(w.intent_within(session, unknown)), "within");
    let part = w.intent_within(session, Some(whole)).unwrap();
    w.outcome(whole).unwrap();
    assert_eq!(no(w.intent_within(session, Some(whole))), "within");
    w.outcome(part).unwrap();
    w.close(session).unwrap();
}

#[test]
fn a_stream_leaves_out_only_what_its_files_have() {
    let mut w = World::plain();
    let grant = w.grant(|_| ());
    let session = w.open(grant).unwrap();
    let total = |stream: &str, bytes, stored, in_files| StreamTotal {
        bytes,
        in_files,
        sha256: ContentDigest(ascribe_tlog::Hash([7; 32])),
        stored,
        stream: stream.to_owned(),
    };
    let transfer = |w: &mut World, parts: &[&[StreamTotal]], streams| {
        let whole = w.intent_of("ssh.sftp", session, |_| ()).unwrap();
        for streams in parts {
            let part = w.intent_within(session, Some(whole)).unwrap();
            w.outcome_with(part, streams.to_vec()).unwrap();
        }
        w.outcome_with(whole, streams)
    };
    let parts: [&[StreamTotal]; 2] = [
        &[total("written", 300, 0, 0), total("read-parts", 5, 0, 0)],
        &[total("written-parts", 40, 0, 0)],
    ];
    let in_and_out = |w: &mut World, input, output| {
        let streams = vec![
            total("stdin", 500, 100, input),
            total("stdout", 500, 100, output),
        ];
        transfer(w, &parts, streams)
    };
    in_and_out(&mut w, 340, 5).unwrap();
    assert_eq!(no(in_and_out(&mut w, 341, 5)), "in-files");
    assert_eq!(no(in_and_out(&mut w, 340, 6)), "in-files");
    // What is stored is digested in the stream itself.
    let stored = vec![total("stdin", 500, 161, 340)];
    assert_eq!(no(transfer(&mut w, &parts, stored)), "in-files");
    let other = vec![total("stderr", 500, 0, 1)];
    assert_eq!(no(transfer(&mut w, &parts, other)), "in-files");
    let none = vec![total("stdin", 500, 0, 1)];
    assert_eq!(no(transfer(&mut w, &[], none)), "in-files");
    let exec = w.intent(session).unwrap();
    let wide = w.outcome_with(exec, vec![total("stdout", 500, 0, 1)]);
    assert_eq!(no(wide), "in-files");
}

#[test]
fn what_is_recorded_is_of_a_kind_that_the_grant_and_its_place_allow() {
    let mut w = World::plain();
    let grant = w.grant(|request| request.forwards = vec![Forward::Remote(Listen { port: 8080 })]);
    let session = w.open(grant).unwrap();
    for kind in [
        "ssh.exec",
        "ssh.shell",
        "ssh.sftp",
        "ssh.rsync",
        "ssh.forward.listen",
        "ssh.forward.remote",
    ] {
        w.intent_of(kind, session, |_| ()).unwrap();
    }
    for kind in [
        "ssh.forward.local",
        "ssh.forward.dynamic",
        "ssh.forward.agent",
        "ssh.forward.remote-socket",
    ] {
        assert_eq!(
            no(w.intent_of(kind, session, |_| ())),
            "outside-grant",
            "{kind}"
        );
    }
    for kind in [
        "",
        "ssh",
        "ssh.other",
        "sftp.open",
        "scp.write",
        "exec",
        "SSH.exec",
    ] {
        assert_eq!(no(w.intent_of(kind, session, |_| ())), "kind", "{kind}");
    }
    let whole = w.intent_of("ssh.scp", session, |_| ()).unwrap();
    let exec = w.intent(session).unwrap();
    let part = |w: &mut World, kind: &str, of| w.intent_of(kind, session, |i| i.within = Some(of));
    part(&mut w, "scp.write", whole).unwrap();
    for (kind, of) in [
        ("sftp.open", whole),
        ("scp.write", exec),
        ("ssh.exec", whole),
        ("scp.", whole),
    ] {
        assert_eq!(no(part(&mut w, kind, of)), "kind", "{kind}");
    }
    let lend = |w: &mut World, what: &str| {
        w.intent_of("ssh.exec", session, |i| i.lends = vec![what.to_owned()])
    };
    assert_eq!(no(lend(&mut w, "agent")), "outside-grant");
    let grant = w.grant(|request| request.forwards = vec![Forward::Agent(Anywhere {})]);
    let session = w.open(grant).unwrap();
    w.intent_of("ssh.exec", session, |i| i.lends = vec!["agent".to_owned()])
        .unwrap();
}
