//! When keys are recorded: a real ledger with a clock that is set, and a provider on loopback.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicI64, Ordering};

use ascribe_core::encoding::base64url;
use ascribe_core::id::{PersonId, Root, StatementId};
use ascribe_core::identity::ProviderKind;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{PersonAdd, Role, Say, Seen, Statement};
use ascribe_evidence::Checker;
use ascribe_ledger::{Clock, Drivers, InitOptions, LedgerError, SystemRng};
use ascribe_tlog::{Hash, SigningKey};
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use super::*;
use crate::client::random;
use crate::signer::{Signer, ssh_key_of};

const ORIGIN: &str = "ledger.example/keys";
const HOUR: i64 = 3_600_000;

#[derive(Debug)]
struct Set(AtomicI64);

impl Clock for Set {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn monotonic_millis(&self) -> i64 {
        self.now_millis()
    }
}

fn admin() -> (PersonId, Signer) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
    (PersonId::new([1; 16]), Signer::File(Box::new(key)))
}

fn ledger(dir: &std::path::Path, clock: &Arc<Set>) -> Ledger {
    let clock: Arc<dyn Clock> = clock.clone();
    let drivers = Drivers {
        judge: Arc::new(Checker::new()),
        clock,
        rng: Arc::new(SystemRng),
    };
    let (person, signer) = admin();
    let name = Opening::new("name", [1; 32], b"Ada".to_vec());
    let add = PersonAdd {
        person,
        name: name.commitment(),
        keys: vec![ssh_key_of(signer.public()).unwrap()],
        roles: vec![Role::Admin],
    };
    let options = InitOptions {
        admins: vec![(add, name)],
        ..InitOptions::new(ORIGIN, &dir.join("wrap.key"))
    };
    let data = dir.join("data");
    Ledger::init(&data, &options, &drivers).unwrap();
    // A program that another test starts holds the lock for a moment, until it is that program.
    for _ in 0..1000 {
        match Ledger::open(&data, &drivers) {
            Err(LedgerError::Locked(_)) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the ledger stays locked")
}

/// The entry that holds the provider's keys.
fn keys_entry(ledger: &Ledger) -> Option<u64> {
    ledger.with_state(|state| Some(state.providers.get("idp")?.keys.as_ref()?.place.index))
}

/// Answers every request with the same keys. Gives its address.
fn published() -> String {
    let key = SigningKey::from_seed("idp.example", &[5; 32]).unwrap();
    let x = base64url(&key.verifier().public_key());
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut heard = [0; 4096];
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
                keys.len()
            );
            if stream.read(&mut heard).is_ok() {
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        }
    });
    format!("http://{address}/keys")
}

async fn register(ledger: &Ledger, provider: &Provider) {
    let (by, signer) = admin();
    let statement = Statement {
        v: 1,
        log: ORIGIN.to_owned(),
        by,
        at: ledger.now(),
        id: StatementId::new(random().unwrap()),
        seen: Seen {
            size: 0,
            root: Root(Hash::ZERO),
        },
        say: Say::ProviderSet(provider.clone()),
    };
    let proposal = Proposal {
        id: EntryId::new(random().unwrap()),
        writer: SERVER.to_owned(),
        body: Body::Statement(signer.sign(&statement).unwrap()),
        openings: vec![],
        scope: Scope::None,
    };
    ledger.record(proposal).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_keys_are_recorded_again_when_half_of_their_age_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1_795_000_000_000)));
    let ledger = Arc::new(ledger(dir.path(), &clock));
    let mut provider = Provider {
        algorithms: vec!["EdDSA".into()],
        audience: "ascribe".into(),
        issuer: "https://idp.example".into(),
        jwks_uri: published(),
        kind: ProviderKind::Oidc,
        max_keys_age_seconds: None,
        name: "idp".into(),
        observers: None,
        withdrawn: false,
    };
    register(&ledger, &provider).await;
    let keeper = Keeper::new(Arc::clone(&ledger)).unwrap();
    // How long nothing happened, and whether the next look is an entry.
    let mut looks = vec![(0, true), (0, false), (12 * HOUR - 1, false), (1, true)];
    looks.extend([(300_000, false), (12 * HOUR, true)]);
    for (nth, (wait, recorded)) in looks.into_iter().enumerate() {
        clock.0.fetch_add(wait, Ordering::Relaxed);
        let before = keys_entry(&ledger);
        keeper.refresh(&provider).await.unwrap();
        assert_eq!(keys_entry(&ledger) != before, recorded, "look {nth}");
    }
    // A stricter rule makes what is on record old sooner.
    provider.max_keys_age_seconds = Some(3_600);
    register(&ledger, &provider).await;
    clock.0.fetch_add(HOUR / 2, Ordering::Relaxed);
    let before = keys_entry(&ledger);
    keeper.refresh(&provider).await.unwrap();
    assert_ne!(keys_entry(&ledger), before);
}
