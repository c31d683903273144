//! A workload's token as a database's password: one session for each showing, and nothing else.

use super::*;
use crate::database::{Postgres, Values};
use crate::entry::Door;
use crate::identity::TlsProof;

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
    assert_eq!(w.state.sessions[&session].assurance, 1);
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

/// What a workload of a trust domain showed as a client's certificate.
fn in_tls(login: &mut Login) {
    unbound(login);
    login.bearer = true;
    login.provider = "mesh".to_owned();
    login.claims = Claims {
        binding: Binding::Tls,
        code: None,
        facts: vec![fact("sub", "spiffe://example.org/a")],
        key: thumbprint(4),
        run: None,
        ..login.claims.clone()
    };
}

/// The workload is one of a trust domain.
fn of_a_trust_domain(edit: impl FnOnce(&mut Target)) -> (World, GrantId) {
    let (mut w, grant) = World::with_database(edit);
    let mut mesh = provider("mesh", ProviderKind::SpiffeX509);
    mesh.issuer = "spiffe://example.org".to_owned();
    w.say(ADA, Say::ProviderSet(mesh), vec![]).unwrap();
    let rule = Workload {
        conditions: vec![condition("sub", &["spiffe://example.org/a"])],
        provider: "mesh".to_owned(),
        ..deploy()
    };
    w.say(ADA, Say::WorkloadSet(rule), vec![]).unwrap();
    w.publish("mesh", &[4]).unwrap();
    (w, grant)
}

#[test]
fn a_certificate_opens_one_session_by_its_own_door_and_ends_with_it() {
    let (mut w, grant) = of_a_trust_domain(|_| ());
    let shown = w.log_in(BOT, in_tls).unwrap();
    for door in [Door::Password, Door::Tunnel, Door::Bearer] {
        assert_eq!(no(w.enter(grant, &shown, door)), "bearer");
    }
    for door in [Door::Direct, Door::Jump, Door::Connect] {
        assert_eq!(no(w.enter(grant, &shown, door)), "door");
    }
    assert_eq!(no(w.say_as(BOT, &shown.1, connect(), vec![])), "bearer");
    let session = w.enter(grant, &shown, Door::Mtls).unwrap();
    assert_eq!(w.state.sessions[&session].assurance, 1);
    w.close(session).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Mtls)), "revoked");
    // A token is none, and neither is a key that the workload itself introduced.
    let own = w.log_in(BOT, |login| {
        in_tls(login);
        (login.bearer, login.claims.binding) = (false, Binding::Key);
    });
    assert_eq!(no(w.enter(grant, &own.unwrap(), Door::Mtls)), "bearer");
    let (mut w, grant) = World::with_database(|_| ());
    let shown = w.log_in(BOT, bearer).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Mtls)), "bearer");
    for edit in [
        (|db1| db1.actor_assurance = Some(2)) as fn(&mut Target),
        |db1| db1.signed_opening = true,
    ] {
        let (mut w, grant) = of_a_trust_domain(edit);
        let shown = w.log_in(BOT, in_tls).unwrap();
        let code = no(w.enter(grant, &shown, Door::Mtls));
        assert!(["assurance", "unsigned"].contains(&code), "{code}");
    }
}

#[test]
fn what_was_signed_in_tls_introduces_the_gateways_key_alone() {
    let (mut w, _) = of_a_trust_domain(|_| ());
    let edited = |w: &mut World, edit: fn(&mut Login)| {
        let login = w.log_in(BOT, |login| {
            in_tls(login);
            edit(login);
        });
        no(login.map(drop))
    };
    assert_eq!(edited(&mut w, |l| l.bearer = false), "bearer");
    assert_eq!(edited(&mut w, |l| l.saw = Some(l.claims.key)), "bearer");
    // What signed for a session key makes none of the gateway's.
    assert_eq!(
        edited(&mut w, |l| l.claims.binding = Binding::Key),
        "bearer"
    );
    assert_eq!(
        edited(&mut w, |l| l.until = l.until.plus_millis(1)),
        "until"
    );
    // Where the workload's tokens are others, and of people's.
    let other = |l: &mut Login| {
        unbound(l);
        (l.bearer, l.claims.binding) = (true, Binding::Tls);
    };
    let mut w = World::with_providers();
    assert_eq!(no(w.log_in(BOT, other).map(drop)), "binding");
    assert_eq!(no(w.log_in(REQ, other).map(drop)), "binding");
}

#[test]
fn one_handshake_is_one_login() {
    let (mut w, _) = of_a_trust_domain(|_| ());
    let mut draft = w.draft(BOT);
    in_tls(&mut draft.login);
    w.hand_in(&draft).unwrap();
    assert_eq!(no(w.hand_in(&draft)), "token-replay");
    // However its signature is written: whoever has one of ECDSA makes a second.
    let proof = |transcript: u8, sig: u8| {
        let proof = TlsProof {
            alg: "ES256".to_owned(),
            chain: vec![Bytes(vec![1])],
            sig: Bytes(vec![sig; 64]),
            transcript: Bytes(vec![transcript; 32]),
        };
        token_digest(&crate::encoding::encode(&proof).unwrap())
    };
    assert_eq!(proof(7, 1), proof(7, 2));
    assert_ne!(proof(7, 1), proof(8, 1));
}

#[test]
fn while_the_owner_is_suspended_no_certificate_counts() {
    let (mut w, grant) = of_a_trust_domain(|_| ());
    let corp = super::super::directories::directory();
    w.say(ADA, Say::DirectorySet(corp), vec![]).unwrap();
    let shown = w.log_in(BOT, in_tls).unwrap();
    w.hear(REQ, |owner| owner.active = false).unwrap();
    assert_eq!(no(w.enter(grant, &shown, Door::Mtls)), "revoked");
    assert_eq!(no(w.log_in(BOT, in_tls).map(drop)), "orphaned");
    w.hear(REQ, |_| ()).unwrap();
    // What ended does not begin again; a new connection does.
    assert_eq!(no(w.enter(grant, &shown, Door::Mtls)), "revoked");
    w.log_in(BOT, in_tls).unwrap();
}
