//! When keys are recorded: a real ledger with a clock that is set, and a provider on loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering};

use ascribe_core::encoding::base64url;
use ascribe_core::id::{PersonId, Root, StatementId};
use ascribe_core::identity::ProviderKind;
use ascribe_core::law::Judge as _;
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

/// A JWK Set with the key of that seed.
fn keys(seed: u8) -> String {
    let key = SigningKey::from_seed("idp.example", &[seed; 32]).unwrap();
    let x = base64url(&key.verifier().public_key());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#)
}

/// What a login under that key names it by.
fn thumbprint(seed: u8) -> ContentDigest {
    let keys = Checker::new().provider_keys(keys(seed).as_bytes());
    keys.unwrap()[0]
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Gives each request, once it is read, to `answer`, all at a time. Gives the address, and how many came.
fn serving(
    answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let came = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            came.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut heard = [0; 4096];
                if stream.read(&mut heard).is_ok() {
                    answer(&mut stream).unwrap_or_default();
                }
            });
        }
    });
    (format!("http://{address}/keys"), count)
}

/// Answers every request with the same keys. Gives its address.
fn published() -> String {
    serving(|stream| stream.write_all(ok(&keys(5)).as_bytes())).0
}

fn provider(jwks_uri: String) -> Provider {
    Provider {
        algorithms: vec!["EdDSA".into()],
        audience: "ascribe".into(),
        authn: None,
        issuer: "https://idp.example".into(),
        jwks_uri,
        kind: ProviderKind::Oidc,
        max_keys_age_seconds: None,
        name: "idp".into(),
        observers: None,
        withdrawn: false,
    }
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
    let mut provider = provider(published());
    register(&ledger, &provider).await;
    let keeper = Arc::new(Keeper::new(Arc::clone(&ledger)).unwrap());
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

/// A provider whose endpoint does this. Returns why its keys were not renewed, after how long, and how many requests came.
async fn refused(
    answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (String, Duration, usize) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1_795_000_000_000)));
    let ledger = Arc::new(ledger(dir.path(), &clock));
    let (address, came) = serving(answer);
    let provider = provider(address);
    register(&ledger, &provider).await;
    let keeper = Arc::new(Keeper::new(Arc::clone(&ledger)).unwrap());
    let size = ledger.with_state(|state| state.size);
    let begun = Instant::now();
    let why = keeper.refresh(&provider).await.unwrap_err().to_string();
    let took = begun.elapsed();
    // Nothing of it is on record.
    assert_eq!(keys_entry(&ledger), None, "{why}");
    assert_eq!(ledger.with_state(|state| state.size), size, "{why}");
    (why, took, came.load(Ordering::Relaxed))
}

/// What a redirect leads to is never asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_sends_elsewhere_or_says_too_much_is_refused_at_once() {
    let (elsewhere, asked) = serving(|stream| stream.write_all(ok(&keys(6)).as_bytes()));
    let (why, took, came) = refused(move |stream| {
        let to =
            format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(to.as_bytes())
    })
    .await;
    assert!(
        why.contains("status 302 to") && why.contains("not followed"),
        "{why}"
    );
    assert_eq!((came, asked.load(Ordering::Relaxed)), (1, 0));
    assert!(took < Duration::from_secs(5), "{took:?}");

    // A good set with much behind it: by a length, and without an end.
    let large = |size: usize| {
        let keys = keys(5);
        format!("{keys}{}", " ".repeat(size - keys.len()))
    };
    let (why, ..) =
        refused(move |stream| stream.write_all(ok(&large(40 * 1024 + 1)).as_bytes())).await;
    assert!(why.contains("more than 40960 bytes of keys"), "{why}");
    let (why, ..) =
        refused(move |stream| stream.write_all(ok(&large(256 * 1024 + 1)).as_bytes())).await;
    assert!(why.contains("answers with more than 262144 bytes"), "{why}");
    let (why, took, _) = refused(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        loop {
            stream.write_all(piece.as_bytes())?;
        }
    })
    .await;
    assert!(why.contains("answers with more than 262144 bytes"), "{why}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    // The largest that an entry holds is taken.
    let (address, _) = serving(move |stream| stream.write_all(ok(&large(40 * 1024)).as_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1_795_000_000_000)));
    let ledger = Arc::new(ledger(dir.path(), &clock));
    let provider = provider(address);
    register(&ledger, &provider).await;
    let keeper = Arc::new(Keeper::new(Arc::clone(&ledger)).unwrap());
    keeper.refresh(&provider).await.unwrap();
    assert!(keys_entry(&ledger).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_its_time_is_given_up() {
    let silent = refused(|stream| {
        // Until the other side has gone.
        stream.read(&mut [0; 1]).map(drop)
    });
    let slow = refused(|stream| {
        let keys = keys(5);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
        stream.write_all(head.as_bytes())?;
        for byte in keys.bytes() {
            std::thread::sleep(Duration::from_millis(300));
            stream.write_all(&[byte])?;
        }
        Ok(())
    });
    let (silent, slow) = tokio::join!(silent, slow);
    for ((why, took, came), what) in [(silent, "does not answer"), (slow, "breaks off")] {
        assert!(why.contains(what), "{why}");
        assert!((9..20).contains(&took.as_secs()), "{what}: {took:?}");
        assert_eq!(came, 1);
    }
}

/// A login that a key of that seed signed. Only provider and key are looked at.
fn login(seed: u8) -> Login {
    serde_json::from_value(serde_json::json!({
        "claims": {
            "binding": "nonce",
            "expires": "2026-11-18T12:00:00.000Z",
            "issued": "2026-11-18T11:00:00.000Z",
            "key": thumbprint(seed),
            "subject": ascribe_core::identity::subject("https://idp.example", "olu"),
        },
        "digest": ascribe_core::identity::token_digest(b"a.b.c"),
        "provider": "idp",
        "rz": "",
        "token": ascribe_core::sealed::Opening::new("token", [1; 32], vec![]).commitment(),
        "until": "2026-11-18T12:00:00.000Z",
    }))
    .unwrap()
}

/// Every key that a login names is found and on record, whatever became of the ones before; whoever names one that is not
/// there makes us ask, but not without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_rotates_twice_a_minute_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1_795_000_000_000)));
    let ledger = Arc::new(ledger(dir.path(), &clock));
    let newest = Arc::new(AtomicU8::new(1));
    let shown = Arc::clone(&newest);
    let (address, came) = serving(move |stream| {
        let keys = keys(shown.load(Ordering::Relaxed));
        stream.write_all(ok(&keys).as_bytes())
    });
    let asked = || came.load(Ordering::Relaxed);
    let provider = provider(address);
    register(&ledger, &provider).await;
    let keeper = Arc::new(Keeper::new(Arc::clone(&ledger)).unwrap());
    let on_record = || {
        ledger.with_state(|state| {
            let keys = state.providers["idp"].keys.as_ref().unwrap();
            (
                keys.place.index,
                keys.thumbprints.iter().copied().collect::<Vec<_>>(),
            )
        })
    };
    keeper.refresh(&provider).await.unwrap();
    let mut entries = vec![on_record().0];
    for seed in 2..=4 {
        clock.0.fetch_add(30_000, Ordering::Relaxed);
        newest.store(seed, Ordering::Relaxed);
        let before = asked();
        let [one, other] = [login(seed), login(seed)];
        tokio::join!(keeper.before(&one), keeper.before(&other));
        let (entry, known) = on_record();
        assert_eq!(known, [thumbprint(seed)]);
        entries.push(entry);
        // Who comes with it now asks for nothing more.
        keeper.before(&one).await;
        assert_eq!(asked(), before + 1);
    }
    entries.dedup();
    assert_eq!(entries.len(), 4, "each rotation is one entry: {entries:?}");
    // A key of before is published no more: nobody records anything for it, and all who come together ask once.
    let (before, size) = (asked(), ledger.with_state(|state| state.size));
    let begun = Instant::now();
    let old = [login(1), login(2), login(3)];
    for round in 1..=2 {
        tokio::join!(
            keeper.before(&old[0]),
            keeper.before(&old[1]),
            keeper.before(&old[2])
        );
        assert_eq!(asked(), before + round);
    }
    assert!(begun.elapsed() >= PAUSE, "{:?}", begun.elapsed());
    assert_eq!(ledger.with_state(|state| state.size), size);
    assert_eq!(on_record().1, [thumbprint(4)]);
}

/// Whoever waits for a provider that does not answer is judged by what is known, soon enough to be told so; one that
/// answers after that is heard all the same.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_long_for_a_provider_that_takes_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1_795_000_000_000)));
    let ledger = Arc::new(ledger(dir.path(), &clock));
    let (address, _) = serving(|stream| {
        std::thread::sleep(LONGEST + Duration::from_secs(1));
        stream.write_all(ok(&keys(5)).as_bytes())
    });
    register(&ledger, &provider(address)).await;
    let keeper = Arc::new(Keeper::new(Arc::clone(&ledger)).unwrap());
    let begun = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for seed in 1..=5 {
        let keeper = Arc::clone(&keeper);
        waiting.spawn(async move { keeper.before(&login(seed)).await });
    }
    waiting.join_all().await;
    let took = begun.elapsed();
    assert!((LONGEST..LONGEST * 2).contains(&took), "{took:?}");
    assert_eq!(keys_entry(&ledger), None);
    while keys_entry(&ledger).is_none() {
        assert!(begun.elapsed() < 6 * LONGEST);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
