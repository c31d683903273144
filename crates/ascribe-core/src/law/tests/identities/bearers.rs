//! A workload's token as a database's password: one session for each showing, and nothing else.

use super::*;
use crate::database::{Postgres, Values};
use crate::entry::Door;

fn unbound(login: &mut Login) {
    login.claims.binding = Binding::None;
    login.until = login.claims.expires;
}

fn bearer(login: &mut Login) {
    unbound(login);
    login.bearer = true;
}

impl World {
    fn with_database(edit: impl FnOnce(&mut Target)) -> (Self, GrantId) {
        let mut w = Self::with_providers();
        let mut db1 = target("db1");
        db1.host_keys = Vec::new();
        db1.postgres = Some(Postgres {
            allow: Vec::new(),
            databases: Vec::new(),
            trust: vec![Bytes(vec![0x30; 64])],
            values: Values::Full,
        });
        edit(&mut db1);
        w.say(ADA, Say::TargetSet(db1), vec![]).unwrap();
        let grant = w.grant_for_bot();
        (w, grant)
    }
    /// The same token, whoever's key it is.
    fn show(&mut self, edit: fn(&mut Login)) -> Result<(StatementId, SshKey), Denied> {
        let mut draft = self.draft(BOT);
        unbound(&mut draft.login);
        let token = draft.login.claims.clone();
        let token = format!("any\n{}", serde_json::to_string(&token).unwrap());
        edit(&mut draft.login);
        let id = self.hand_in_token(&draft, &token, |_| ())?;
        Ok((id, draft.key))
    }
    fn enter(
        &mut self,
        grant: GrantId,
        (login, key): &(StatementId, SshKey),
        door: Door,
    ) -> Result<SessionId, Denied> {
        self.open_as(grant, |open| {
            (open.key, open.login) = (key.fingerprint(), Some(*login));
            (open.person, open.door) = (person(BOT), door);
        })
    }
}

#[test]
fn a_password_token_opens_one_session_by_its_door_and_ends_with_it() {
    let (mut w, grant) = World::with_database(|_| ());
    let shown = w.log_in(BOT, bearer).unwrap();
    for door in [Door::Password, Door::Tunnel] {
        assert_eq!(no(w.enter(grant, &shown, door)), "bearer");
    }
    for door in [Door::Direct, Door::Jump, Door::Connect] {
        assert_eq!(no(w.enter(grant, &shown, door)), "door");
    }
    let session = w.enter(grant, &shown, Door::Bearer).unwrap();
    assert_eq!(w.state.assurance_of(&w.state.sessions[&session].open), 1);
    w.close(session).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Bearer)), "revoked");
    // A key that the job itself introduced is no key of the gateway's.
    let own = w.log_in(BOT, |_| ()).unwrap();
    assert_eq!(no(w.enter(grant, &own, Door::Bearer)), "bearer");
}

#[test]
fn no_other_target_is_entered_with_it() {
    let mut w = World::with_providers();
    let grant = w.grant_for_bot();
    let shown = w.log_in(BOT, bearer).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Direct)), "bearer");
    assert_eq!(no(w.enter(grant, &shown, Door::Bearer)), "door");
}

#[test]
fn its_key_signs_nothing_but_its_end() {
    let mut w = World::with_providers();
    let (login, key) = w.log_in(BOT, bearer).unwrap();
    assert_eq!(no(w.say_as(BOT, &key, connect(), vec![])), "bearer");
    let end = Say::Logout(Logout { login });
    w.say_as(BOT, &key, end, vec![]).unwrap();
}

#[test]
fn a_target_may_want_more_than_a_bearer() {
    let (mut w, grant) = World::with_database(|db1| db1.actor_assurance = Some(2));
    let shown = w.log_in(BOT, bearer).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Bearer)), "assurance");
    let (mut w, grant) = World::with_database(|db1| db1.signed_opening = true);
    let shown = w.log_in(BOT, bearer).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Bearer)), "unsigned");
}

#[test]
fn a_password_is_a_workloads_token_without_a_key() {
    let mut w = World::with_providers();
    let bound = |l: &mut Login| l.bearer = true;
    assert_eq!(no(w.log_in(BOT, bound).map(drop)), "bearer");
    assert_eq!(no(w.log_in(REQ, bearer).map(drop)), "bearer");
    let saw = |l: &mut Login| {
        bearer(l);
        l.saw = Some(l.claims.key);
    };
    assert_eq!(no(w.log_in(BOT, saw).map(drop)), "bearer");
}

#[test]
fn a_token_is_a_password_again_and_again_but_introduces_a_key_once_and_first() {
    let mut w = World::with_providers();
    w.show(bearer).unwrap();
    w.show(bearer).unwrap();
    assert_eq!(no(w.show(unbound).map(drop)), "token-replay");
    let mut w = World::with_providers();
    w.show(unbound).unwrap();
    assert_eq!(no(w.show(bearer).map(drop)), "token-replay");
}
