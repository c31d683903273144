//! Whom a token is shown to: nobody, before it has expired.

use ascribe_core::directory::Directory;
use ascribe_core::encoding::base64url;
use ascribe_core::entry::{CloseReason, Door, OpenedBy, Refusal, SessionClose, SessionOpen};
use ascribe_core::id::EntryId;
use ascribe_core::identity::{
    IdentityLink, Login, Provider, ProviderKeys, ProviderKind, key_commitment, subject,
    token_digest,
};
use ascribe_core::law::{Judge as _, SERVER, TokenAsked};
use ascribe_core::record::{Proposal, Receipt, Recorder as _, Scope};
use ascribe_core::sealed::Prose;
use ascribe_core::statement::{Answer, PersonAdd, Request, Role, Seen, Statement, Target, Uses};
use ascribe_evidence::SshSignatures;
use ascribe_ledger::{Drivers, InitOptions, SystemClock, SystemRng};
use ascribe_tlog::{SigningKey, TrustPolicy, leaf_hash};
use ascribe_verify::{
    Asked, LinkKind, Report, Source as Whose, Verdict, verify_asked, verify_bundle,
};
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;
use crate::client::random;
use crate::signer::{Signer, ssh_key_of};

const ORIGIN: &str = "ledger.example/answer";
const ADA: u8 = 1;
const OLU: u8 = 2;
const BEN: u8 = 3;
/// Seed of Olu's session key.
const SESSION: u8 = 9;

fn id(n: u8) -> PersonId {
    PersonId::new([n; 16])
}

fn signer(seed: u8) -> Signer {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    Signer::File(Box::new(key))
}

fn ledger(dir: &std::path::Path) -> Ledger {
    let drivers = Drivers {
        judge: Arc::new(SshSignatures),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
    };
    let enrol = |n: u8, roles: &[Role]| {
        let name = Opening::new("name", [n; 32], vec![b'a' + n]);
        let add = PersonAdd {
            person: id(n),
            name: name.commitment(),
            keys: vec![ssh_key_of(signer(n).public()).unwrap()],
            roles: roles.to_vec(),
        };
        (add, name)
    };
    let options = InitOptions {
        admins: vec![
            enrol(ADA, &[Role::Admin, Role::Approver]),
            enrol(OLU, &[Role::Requester]),
            enrol(BEN, &[Role::Admin]),
        ],
        ..InitOptions::new(ORIGIN, &dir.join("wrap.key"))
    };
    let data = dir.join("data");
    Ledger::init(&data, &options, &drivers).unwrap();
    Ledger::open(&data, &drivers).unwrap()
}

async fn record(ledger: &Ledger, writer: &str, body: Body, openings: Vec<Opening>) -> Receipt {
    let scope = match openings.is_empty() {
        true => Scope::None,
        false => Scope::Person(id(OLU)),
    };
    let proposal = Proposal {
        id: EntryId::new(random().unwrap()),
        writer: writer.to_owned(),
        body,
        openings,
        scope,
    };
    ledger.record(proposal).await.unwrap()
}

/// Says something with the key of that seed.
async fn says(
    ledger: &Ledger,
    (by, seed): (u8, u8),
    say: Say,
    openings: Vec<Opening>,
) -> (StatementId, EntryHash) {
    let statement = Statement {
        v: 1,
        log: ORIGIN.to_owned(),
        by: id(by),
        at: ledger.now(),
        id: StatementId::new(random().unwrap()),
        seen: Seen {
            size: 0,
            root: Root(Hash::ZERO),
        },
        say,
    };
    let signed = signer(seed).sign(&statement).unwrap();
    let receipt = record(ledger, SERVER, Body::Statement(signed), openings).await;
    (statement.id, entry_hash(&receipt.entry))
}

/// The target, the provider with its keys, and Olu's account there.
async fn registered(ledger: &Ledger, provider: &Provider, jwks: &[u8]) {
    let target = Target {
        max_seconds: 3600,
        review_seconds: 3600,
        stream_cap: 1024,
        ..Target::ssh(
            "db1",
            ("192.0.2.1", 22),
            ssh_key_of(signer(7).public()).unwrap(),
            "root",
            id(ADA),
        )
    };
    let link = IdentityLink {
        person: id(OLU),
        provider: provider.name.clone(),
        subject: subject(&provider.issuer, "olu"),
    };
    let keys = ProviderKeys {
        body: Bytes(jwks.to_vec()),
        fetched: ledger.now(),
        headers: vec![],
        provider: provider.name.clone(),
        uri: provider.jwks_uri.clone(),
    };
    for say in [
        Say::TargetSet(target),
        Say::ProviderSet(provider.clone()),
        Say::IdentityLink(link),
    ] {
        says(ledger, (ADA, ADA), say, vec![]).await;
    }
    record(ledger, SERVER, Body::ProviderKeys(keys), vec![]).await;
}

/// Olu's login, with a token that expires in five minutes.
async fn logged_in(
    ledger: &Ledger,
    provider: &Provider,
    issuer: &SigningKey,
    jwks: &[u8],
) -> (StatementId, Timestamp) {
    let key = ssh_key_of(signer(SESSION).public()).unwrap();
    let (rz, now) = ([7; 32], ledger.now().millis() / 1000);
    let nonce = key_commitment(&key, &rz);
    let claims = format!(
        r#"{{"iss":"{}","aud":"ascribe","sub":"olu","manager":"ada","nonce":"{nonce}","iat":{now},"exp":{}}}"#,
        provider.issuer,
        now + 300
    );
    let signed = format!(
        "{}.{}",
        base64url(br#"{"alg":"EdDSA"}"#),
        base64url(claims.as_bytes())
    );
    let token = format!(
        "{signed}.{}",
        base64url(&issuer.sign_raw(signed.as_bytes()))
    );
    let wanted = ledger.with_state(|state| {
        let wanted = state.wanted_managers(&provider.name).into_iter();
        wanted.map(str::to_owned).collect::<Vec<String>>()
    });
    let managers: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let asked = TokenAsked {
        key: &key,
        rz: &rz,
        facts: &[],
        groups: &[],
        managers: &managers,
    };
    let claims = SshSignatures
        .token(provider, jwks, token.as_bytes(), &asked)
        .unwrap();
    let expires = claims.expires;
    let sealed = Opening::new("token", random().unwrap(), token.clone().into_bytes());
    let login = Say::Login(Box::new(Login {
        bearer: false,
        digest: token_digest(token.as_bytes()),
        provider: provider.name.clone(),
        rz: Bytes(rz.to_vec()),
        saw: None,
        claims,
        token: sealed.commitment(),
        until: ledger.now().plus_millis(3_600_000),
    }));
    let (login, _) = says(ledger, (OLU, SESSION), login, vec![sealed]).await;
    (login, expires)
}

/// Olu's session by that login, opened and closed.
async fn session(ledger: &Ledger, login: StatementId) -> SessionId {
    let session = opened(ledger, Some(login)).await;
    closed(ledger, session).await
}

async fn closed(ledger: &Ledger, session: SessionId) -> SessionId {
    let close = SessionClose {
        actions: 0,
        entries: 0,
        reason: CloseReason::Disconnected,
        session,
    };
    record(ledger, "gateway", Body::SessionClose(close), vec![]).await;
    session
}

/// The same, that goes on; without a login by Olu's enrolled key.
async fn opened(ledger: &Ledger, login: Option<StatementId>) -> SessionId {
    let seed = login.map_or(OLU, |_| SESSION);
    let why = Opening::new(
        "justification",
        [5; 32],
        b"restart the stuck replica".to_vec(),
    );
    let now = ledger.now();
    let request = Say::Request(Request {
        uses: Uses::Single,
        ..Request::plain(
            "db1",
            "root",
            (now, now.plus_millis(1_800_000)),
            Prose::of(&why),
        )
    });
    let (of, entry) = says(ledger, (OLU, OLU), request, vec![why]).await;
    let yes = Answer {
        of,
        entry,
        remark: None,
    };
    says(ledger, (ADA, ADA), Say::Approval(yes), vec![]).await;
    let theirs = |state: &State| {
        let mut all = state.grants.iter();
        *all.find(|(_, grant)| grant.request == of).unwrap().0
    };
    let grant = ledger.with_state(theirs);
    let session = SessionId::new(random().unwrap());
    let from = Opening::new("from", [6; 32], b"192.0.2.9:1".to_vec());
    let open = SessionOpen {
        account: "root".into(),
        certificate: None,
        delegation: None,
        door: Door::Direct,
        from: from.commitment(),
        grant,
        key: ssh_key_of(signer(seed).public()).unwrap().fingerprint(),
        login,
        opened_by: OpenedBy::Testimony,
        opening: None,
        person: id(OLU),
        session,
        target: "db1".into(),
    };
    record(ledger, "gateway", Body::SessionOpen(open), vec![from]).await;
    session
}

/// Something was refused in Olu's session, which the server closed.
async fn interrupted(ledger: &Ledger) -> SessionId {
    let (login, _) = olu(ledger).await;
    let session = opened(ledger, Some(login)).await;
    refuse(ledger, session).await;
    interrupt(ledger, session).await;
    session
}

/// Something is refused in it.
async fn refuse(ledger: &Ledger, session: SessionId) {
    let refusal = Refusal {
        code: "forwarding".into(),
        delegation: None,
        detail: None,
        person: id(OLU),
        session: Some(session),
        what: "forwarding".into(),
    };
    record(ledger, "gateway", Body::Refusal(refusal), vec![]).await;
}

/// The server closes it.
async fn interrupt(ledger: &Ledger, session: SessionId) {
    let close = SessionClose {
        actions: 0,
        entries: 1,
        reason: CloseReason::Interrupted,
        session,
    };
    record(ledger, SERVER, Body::SessionClose(close), vec![]).await;
}

/// Olu logged in, and their session has ended.
async fn ended(ledger: &Ledger) -> (StatementId, Timestamp, SessionId) {
    let (login, expires) = olu(ledger).await;
    (login, expires, session(ledger, login).await)
}

/// Olu's login, and until when its token counts.
async fn olu(ledger: &Ledger) -> (StatementId, Timestamp) {
    let (provider, issuer, jwks) = idp();
    registered(ledger, &provider, &jwks).await;
    logged_in(ledger, &provider, &issuer, &jwks).await
}

/// The same, while tokens name managers: Olu's is Ada, who approves. A session of Olu's by their enrolled key has ended.
async fn managed(ledger: &Ledger) -> (StatementId, Timestamp, SessionId) {
    let (provider, issuer, jwks) = idp();
    registered(ledger, &provider, &jwks).await;
    let org = Directory {
        claim: None,
        manager_claim: Some("manager".into()),
        name: "org".into(),
        provider: provider.name.clone(),
        roles: vec![],
        signers: vec![],
        suspend: false,
        token: None,
        withdrawn: false,
    };
    let boss = IdentityLink {
        person: id(ADA),
        provider: provider.name.clone(),
        subject: subject(&provider.issuer, "ada"),
    };
    let mut target = ledger.with_state(|state| state.targets["db1"].target.clone());
    target.manager_approves = true;
    says(ledger, (ADA, ADA), Say::DirectorySet(org), vec![]).await;
    says(ledger, (BEN, BEN), Say::IdentityLink(boss), vec![]).await;
    says(ledger, (ADA, ADA), Say::TargetSet(target), vec![]).await;
    let (login, expires) = logged_in(ledger, &provider, &issuer, &jwks).await;
    let session = opened(ledger, None).await;
    (login, expires, closed(ledger, session).await)
}

/// The provider, its key, and the keys that it publishes.
fn idp() -> (Provider, SigningKey, Vec<u8>) {
    let issuer = SigningKey::from_seed("idp.example", &[5; 32]).unwrap();
    let x = base64url(&issuer.verifier().public_key());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    let provider = Provider {
        algorithms: vec!["EdDSA".into()],
        audience: "ascribe".into(),
        authn: None,
        issuer: "https://idp.example".into(),
        jwks_uri: "https://idp.example/keys".into(),
        kind: ProviderKind::Oidc,
        max_keys_age_seconds: None,
        name: "idp".into(),
        observers: None,
        withdrawn: false,
    };
    (provider, issuer, jwks.into_bytes())
}

fn trusting(ledger: &Ledger) -> TrustPolicy {
    TrustPolicy {
        logs: vec![ledger.log_key()],
        first_entry: Some(leaf_hash(&Ledger::entries(ledger, 0..1).unwrap()[0])),
        ..TrustPolicy::default()
    }
}

fn exported(ledger: &Ledger, session: SessionId, now: Timestamp) -> Bundle {
    let query = Query::Export { session };
    let view = View::default();
    let answer = view.answer(ledger, &query, Some(id(ADA)), ledger.size(), now);
    Bundle::parse(answer.unwrap()["bundle"].as_str().unwrap().as_bytes()).unwrap()
}

/// What the gateway wrote last is covered by a head of its own, also where another closes its session.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_a_head_of_each_who_wrote_something() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let session = interrupted(&ledger).await;
    let signers = || {
        let bundle = exported(&ledger, session, ledger.now());
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &trusting(&ledger));
        let records = report.links.iter();
        let records = records.filter(|link| link.link == LinkKind::Record);
        let signed = records.map(|link| (link.what.clone(), link.signed_by.len()));
        signed.collect::<Vec<_>>()
    };
    ledger.sign_head("gateway").await.unwrap();
    let both = [("1 refusal(s)".to_owned(), 1), ("1 close".to_owned(), 1)];
    assert_eq!(signers(), both);
}

/// Where another session's entry comes between, a later head fixes nothing here, and is not in the bundle: the log alone says
/// whose it is. The ledger has all that lies between. What is in every bundle parts nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_no_head_that_fixes_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let (login, _) = olu(&ledger).await;
    let parted = opened(&ledger, Some(login)).await;
    let next = opened(&ledger, Some(login)).await;
    refuse(&ledger, parted).await;
    refuse(&ledger, next).await;
    for session in [parted, next] {
        interrupt(&ledger, session).await;
    }
    ledger.sign_head("gateway").await.unwrap();
    // An opening is in every bundle, and with it a head is signed.
    let last = opened(&ledger, Some(login)).await;
    refuse(&ledger, last).await;
    interrupt(&ledger, last).await;
    opened(&ledger, Some(login)).await;
    let alone = "whose these are: no signed head here covers them".to_owned();
    let expected = [(parted, vec![alone]), (next, vec![]), (last, vec![])];
    for (session, expected) in expected {
        let fixed = expected.is_empty();
        let bundle = exported(&ledger, session, ledger.now());
        assert_eq!(heads_after_its_close(&bundle).contains("gateway"), fixed);
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &trusting(&ledger));
        assert_eq!(refusal_rests_on(report), (fixed, expected));
        assert_eq!(refusal_rests_on(whole(&ledger, session)), (true, vec![]));
    }
}

/// Who signed a head that comes after the close of the bundle's session.
fn heads_after_its_close(bundle: &Bundle) -> BTreeSet<String> {
    let entries = bundle.entries.iter();
    let entries = entries.map(|proven| Entry::from_bytes(proven.entry.as_bytes()).unwrap());
    let close = |entry: &Entry| {
        let Body::SessionClose(close) = &entry.body else {
            return false;
        };
        close.session == bundle.header.session
    };
    let later = entries.skip_while(|entry| !close(entry));
    let heads = later.filter(|entry| matches!(entry.body, Body::Head(_)));
    heads.map(|entry| entry.writer.id).collect()
}

/// Is the one refusal under a head of its writer, and what is the log trusted for?
fn refusal_rests_on(report: Report) -> (bool, Vec<String>) {
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    let mut links = report.links.into_iter();
    let record = links.find(|link| link.what == "1 refusal(s)").unwrap();
    let log = record.trust.into_iter().filter(|one| one.who == "the log");
    let what = log.filter_map(|one| one.what).collect();
    (!record.signed_by.is_empty(), what)
}

/// What the whole ledger shows of one session.
fn whole(ledger: &Ledger, session: SessionId) -> Report {
    let asked = Asked {
        session: Some(session),
        ..Asked::default()
    };
    let note = Ledger::checkpoint_note(ledger);
    let entries = Ledger::entries(ledger, 0..ledger.size()).unwrap();
    let (note, trust) = (note.as_bytes(), trusting(ledger));
    verify_asked(asked, note, &entries, &[], &trust, "withheld", &mut |_| ())
}

/// Whoever wrote the close signed it; what they wrote later stays out.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_the_head_that_covers_its_close_and_no_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let (.., session) = ended(&ledger).await;
    let later = |writer| ledger.sign_head(writer);
    let others = [later("server").await, later("gateway").await];
    let others = others.map(|receipt| receipt.unwrap().index);
    let bundle = exported(&ledger, session, ledger.now());
    let entries: Vec<(u64, Entry)> = bundle
        .entries
        .iter()
        .map(|proven| {
            let entry = Entry::from_bytes(proven.entry.as_bytes()).unwrap();
            (proven.index, entry)
        })
        .collect();
    let close = entries
        .iter()
        .find(|(_, entry)| matches!(entry.body, Body::SessionClose(_)));
    let (at, close) = close.unwrap();
    let heads = entries.iter().filter(|(index, _)| index > at);
    let heads: Vec<_> = heads
        .map(|(index, entry)| match &entry.body {
            Body::Head(head) => (*index, &entry.writer.id, head.seq),
            other => panic!("{other:?}"),
        })
        .collect();
    let [(index, writer, seq)] = heads[..] else {
        panic!("{heads:?}")
    };
    assert_eq!((writer, seq), (&close.writer.id, close.writer.seq));
    assert!(others.iter().all(|other| *other > index));
    let trust = trusting(&ledger);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
    let mut links = report.links.iter();
    let record = links.find(|link| link.link == LinkKind::Record).unwrap();
    assert_eq!(record.what, "1 close");
    assert_eq!(record.signed_by[0].with, "writer key");
    assert!(record.trust.iter().all(|trusted| trusted.who != "the log"));
    // Without it the list says so.
    let mut bundle = bundle;
    bundle.entries.retain(|proven| proven.index != index);
    let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
    let mut links = report.links.iter();
    let record = links.find(|link| link.link == LinkKind::Record).unwrap();
    assert!(record.signed_by.is_empty());
    assert!(record.trust.iter().any(|trusted| trusted.who == "the log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_its_logins_token_once_that_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let (login, expires, session) = ended(&ledger).await;
    let tokens = |now: Timestamp| {
        let bundle = exported(&ledger, session, now);
        let openings = bundle.openings.iter();
        openings.filter(|o| o.opening.field == "token").count()
    };
    let safe = expires.plus_millis(60_000);
    assert_eq!(tokens(ledger.now()), 0);
    assert_eq!(tokens(safe.plus_millis(-1)), 0);
    assert_eq!(tokens(safe), 1);
    // What answers are made from never holds it.
    let fold = View::default().caught_up(&ledger).unwrap();
    let sealed = ledger.with_state(|state| state.logins[&login].login.token);
    assert!(fold.opened(sealed).is_none());
}

/// A token that says who may approve is shown as those are whose keys signed: nobody else could have made it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_the_token_that_names_the_manager_who_approved() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path());
    let (login, expires, session) = managed(&ledger).await;
    let report = |now: Timestamp| {
        let bundle = exported(&ledger, session, now);
        verify_bundle(&bundle.to_bytes().unwrap(), &trusting(&ledger))
    };
    let safe = expires.plus_millis(60_000);
    for (now, shown) in [(safe.plus_millis(-1), "sealed"), (safe, "checked")] {
        let report = report(now);
        let [voucher] = report.vouchers.as_slice() else {
            panic!("{report:#?}")
        };
        let source = Whose::Token {
            login,
            issuer: "https://idp.example".into(),
            token: shown,
        };
        assert_eq!(voucher.source, source);
        let mut links = report.links.iter();
        let approval = links.find(|link| link.link == LinkKind::Approval).unwrap();
        let log_alone = approval.trust.iter().any(|party| party.who == "the log");
        assert_eq!(log_alone, shown == "sealed", "{approval:?}");
    }
}
