//! The API on a real ledger, over real TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ascribe_core::entry::Entry;
use ascribe_core::id::{GrantId, SessionId, StatementId};
use ascribe_core::identity::{Provider, ProviderKind};
use ascribe_core::sealed::Prose;
use ascribe_core::statement::{PersonAdd, Role, Seen, View as Shown};
use ascribe_gateway::Bearers as _;
use ascribe_ledger::{InitOptions, SystemClock, SystemRng};
use serde_json::{Value, json};
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::signer::{Signer, ssh_key_of};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const ADA: PersonId = PersonId::new([1; 16]);
const ORIGIN: &str = "ledger.example/api";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

struct World {
    api: Arc<Api>,
    address: std::net::SocketAddr,
    pin: Vec<u8>,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    ada: Signer,
    stranger: Signer,
    dir: tempfile::TempDir,
}

fn signer(seed: u8) -> Signer {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    Signer::File(Box::new(key))
}

fn ledger(dir: &Path, ada: &Signer) -> Ledger {
    let drivers = ascribe_ledger::Drivers {
        judge: Arc::new(ascribe_evidence::SshSignatures),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
    };
    let name = Opening::new("name", [3; 32], b"Ada Approver".to_vec());
    let admin = PersonAdd {
        person: ADA,
        name: name.commitment(),
        keys: vec![ssh_key_of(ada.public()).unwrap()],
        roles: vec![Role::Admin, Role::Auditor],
    };
    let options = InitOptions {
        admins: vec![(admin, name)],
        ..InitOptions::new(ORIGIN, &dir.join("wrap.key"))
    };
    let data = dir.join("data");
    Ledger::init(&data, &options, &drivers).unwrap();
    Ledger::open(&data, &drivers).unwrap()
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ada, stranger) = (signer(1), signer(2));
        let ledger = Arc::new(ledger(dir.path(), &ada));
        let keeper = providers::Keeper::new(Arc::clone(&ledger)).unwrap();
        let refused = refusals::Refusals::new(refusals::Of::Logins, Arc::clone(&ledger));
        let judge: Arc<dyn ascribe_core::law::Judge> = Arc::new(ascribe_evidence::SshSignatures);
        let signed = refusals::OfSigned::new(Arc::clone(&ledger), Arc::clone(&judge));
        let api = Arc::new(Api {
            keeper: Arc::new(keeper),
            refused: Arc::new(refused),
            refused_signed: Arc::new(signed),
            ledger,
            judge,
            first_entry: String::new(),
            ssh: String::new(),
            ssh_host_key: String::new(),
            ssh_host_ca: String::new(),
            arrivals: tokio::sync::mpsc::channel(1).0,
            tunnels: tokio::sync::mpsc::channel(1).0,
            view: View::default(),
            reads: reads(),
            watches: watches(),
            witnesses: Arc::default(),
        });
        let pkcs8 = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(
            &aws_lc_rs::rand::SystemRandom::new(),
        );
        let (tls, pin) = crate::tls::server(pkcs8.unwrap().as_ref()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(Arc::clone(&api), listener, tls, stop.clone()));
        Self {
            api,
            address,
            pin,
            stop,
            serving,
            ada,
            stranger,
            dir,
        }
    }

    /// A connection from one of this host's addresses.
    async fn tcp(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn tls(&self, last: u8) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(crate::tls::client(self.pin.clone()).unwrap());
        let name = "ascribe".try_into().unwrap();
        let connected = connector.connect(name, self.tcp(last).await);
        tokio::time::timeout(PATIENCE, connected)
            .await
            .unwrap()
            .unwrap()
    }

    async fn call(&self, call: &Value) -> Value {
        exchange(self.tls(1).await, &serde_json::to_vec(call).unwrap()).await
    }

    /// A statement of Ada's.
    fn statement(&self, say: Say) -> Statement {
        Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: ADA,
            at: self.api.ledger.now(),
            id: StatementId::new(crate::client::random().unwrap()),
            seen: Seen {
                size: 0,
                root: Root(ascribe_tlog::Hash::ZERO),
            },
            say,
        }
    }

    /// The same, as it is submitted.
    fn submit(&self, say: Say, opening: Opening) -> Value {
        let signed = self.ada.sign(&self.statement(say)).unwrap();
        submission(&signed, &[opening])
    }

    /// What takes tokens at a database's door.
    fn tokens(&self) -> bearers::Tokens {
        let api = &self.api;
        bearers::Tokens::new(
            Arc::clone(&api.ledger),
            Arc::clone(&api.keeper),
            Arc::clone(&api.judge),
            (Arc::clone(&api.refused), Arc::clone(&api.refused_signed)),
        )
    }

    /// Registers a provider of jobs whose keys are there.
    async fn provider(&self, jwks_uri: String) {
        let provider = Provider {
            algorithms: vec!["EdDSA".to_owned()],
            audience: "ascribe".to_owned(),
            authn: None,
            issuer: ISSUER.to_owned(),
            jwks_uri,
            kind: ProviderKind::Github,
            max_keys_age_seconds: None,
            name: "github".to_owned(),
            observers: None,
            withdrawn: false,
        };
        let statement = self.statement(Say::ProviderSet(provider));
        let signed = self.ada.sign(&statement).unwrap();
        let proposal = proposal(&statement, signed, vec![]);
        self.api.ledger.record(proposal).await.unwrap();
    }

    /// A login with a token that nobody signed, under a key that the provider does not have.
    fn login(&self, bearer: bool) -> Value {
        let token = Opening::new("token", [6; 32], b"eyJ".to_vec());
        let digest = ascribe_core::id::ContentDigest(ascribe_tlog::Hash::ZERO);
        let login = Login {
            bearer,
            claims: ascribe_core::identity::Claims {
                acr: None,
                amr: Vec::new(),
                auth_time: None,
                binding: ascribe_core::identity::Binding::None,
                code: None,
                expires: self.api.ledger.now().plus_millis(60_000),
                facts: Vec::new(),
                groups: Vec::new(),
                issued: self.api.ledger.now(),
                key: digest,
                managers: Vec::new(),
                missing: Vec::new(),
                protection: None,
                run: None,
                subject: digest,
                trigger: None,
            },
            digest,
            provider: "github".to_owned(),
            rz: Bytes(vec![0; 32]),
            saw: None,
            token: token.commitment(),
            until: self.api.ledger.now().plus_millis(60_000),
        };
        self.submit(Say::Login(Box::new(login)), token)
    }

    /// The whole ledger's bodies.
    fn bodies(&self) -> Vec<Body> {
        let ledger = &*self.api.ledger;
        let entries = Ledger::entries(ledger, 0..ledger.size()).unwrap();
        let bodies = entries
            .iter()
            .map(|bytes| Entry::from_bytes(bytes).unwrap());
        bodies.map(|entry| entry.body).collect()
    }

    /// What was refused under somebody's name.
    fn refused(&self) -> Vec<(String, String)> {
        let refused = self.bodies().into_iter().filter_map(|body| match body {
            Body::Refusal(refusal) => Some(refusal),
            _ => None,
        });
        let refused = refused.inspect(|refusal| assert_eq!(refusal.person, ADA));
        refused
            .map(|refusal| (refusal.what, refusal.code))
            .collect()
    }

    /// How many logins by the provider were refused, by the code.
    async fn counted(&self) -> BTreeMap<String, u64> {
        self.api.refused.finish().await;
        let mut counts = BTreeMap::new();
        for body in self.bodies() {
            let Body::LoginRefusal(refusal) = body else {
                continue;
            };
            for one in refusal.refused {
                *counts.entry(one.code).or_default() += one.count;
            }
        }
        counts
    }

    fn read(&self, query: &Query) -> Value {
        let (say, mut openings) = crate::client::read_statement(query).unwrap();
        self.submit(say, openings.remove(0))
    }

    /// Somebody joins.
    fn person_add(&self) -> Value {
        let name = Opening::new("name", [4; 32], b"Olu Operator".to_vec());
        let add = PersonAdd {
            person: PersonId::new(crate::client::random().unwrap()),
            name: name.commitment(),
            keys: vec![ssh_key_of(self.stranger.public()).unwrap()],
            roles: vec![Role::Requester],
        };
        self.submit(Say::PersonAdd(add), name)
    }
}

fn submission(signed: &Signed, openings: &[Opening]) -> Value {
    json!({ "op": "submit", "signed": signed, "openings": openings })
}

/// Publishes a key that no login names. Gives its address.
fn published() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let key = ascribe_tlog::SigningKey::from_seed("idp.example", &[5; 32]).unwrap();
    let x = ascribe_core::encoding::base64url(&key.verifier().public_key());
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", keys.len());
    let answer = format!("{head}connection: close\r\n\r\n{keys}");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if stream.read(&mut [0; 4096]).is_ok() {
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        }
    });
    format!("http://{address}/keys")
}

/// Takes connections and answers none, as long as it is held. Gives its address, too.
fn silent() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("http://{address}/keys"))
}

/// Sends one call and hears the answer.
async fn exchange(mut stream: TlsStream<TcpStream>, body: &[u8]) -> Value {
    let heard = async {
        stream.write_u32(u32::try_from(body.len()).unwrap()).await?;
        stream.write_all(body).await?;
        stream.flush().await?;
        let mut answer = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    serde_json::from_slice(&answer.unwrap()).unwrap()
}

fn proof(signer: &Signer, namespace: &str, stream: &TlsStream<TcpStream>) -> Bytes {
    let text = hello_text(stream.get_ref().1).unwrap();
    signer.sshsig(namespace, &text).unwrap()
}

async fn hello_with(stream: TlsStream<TcpStream>, proof: Option<&Bytes>) -> Value {
    let call = json!({ "op": "hello", "key": proof, "seen": null });
    exchange(stream, &serde_json::to_vec(&call).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_proves_a_key_learns_whose_it_is() {
    let w = World::new().await;
    let stream = w.tls(1).await;
    let mine = proof(&w.ada, HELLO, &stream);
    let told = hello_with(stream, Some(&mine)).await;
    assert_eq!(told["hello"]["person"], json!(ADA));
    // The same signature on another connection, none, another purpose, another person's key.
    let told = hello_with(w.tls(1).await, Some(&mine)).await;
    assert_eq!(told["hello"]["person"], Value::Null, "{told}");
    let told = hello_with(w.tls(1).await, None).await;
    assert_eq!(told["hello"]["person"], Value::Null);
    for (signer, namespace) in [(&w.ada, "ascribe.read.v1"), (&w.stranger, HELLO)] {
        let stream = w.tls(1).await;
        let other = proof(signer, namespace, &stream);
        let told = hello_with(stream, Some(&other)).await;
        assert_eq!(told["hello"]["person"], Value::Null, "{namespace}");
    }
    // A fingerprint proves nothing, so nobody may even name one.
    let key = w.ada.fingerprint().unwrap();
    let told = w
        .call(&json!({ "op": "hello", "key": key, "seen": null }))
        .await;
    assert_eq!(told["refused"]["code"], "malformed", "{told}");
}

/// A stock agent that holds a key; it ends with the test.
struct Agent {
    program: std::process::Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn with(dir: &Path, key: &PrivateKey) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let socket = dir.join("agent");
        let program = std::process::Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { program, socket };
        let file = dir.join("key");
        std::fs::write(&file, key.to_openssh(ssh_key::LineEnding::LF).unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let begun = std::time::Instant::now();
        loop {
            let added = std::process::Command::new("ssh-add")
                .arg("-q")
                .arg(&file)
                .env("SSH_AUTH_SOCK", &agent.socket)
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            if added.success() {
                return agent;
            }
            assert!(begun.elapsed() < PATIENCE, "the agent takes no key");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.program.kill().unwrap_or_default();
        self.program.wait().map(drop).unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_agent_holds_proves_and_signs_as_well() {
    let w = World::new().await;
    let Signer::File(key) = &w.ada else {
        panic!("no key file")
    };
    let agent = Agent::with(w.dir.path(), key);
    let signer = Signer::Agent {
        socket: agent.socket.clone(),
        public: Box::new(key.public_key().clone()),
    };
    let stream = w.tls(1).await;
    let mine = proof(&signer, HELLO, &stream);
    let told = hello_with(stream, Some(&mine)).await;
    assert_eq!(told["hello"]["person"], json!(ADA));
    let w = World { ada: signer, ..w };
    let told = w.call(&w.person_add()).await;
    assert!(told["done"]["receipt"].is_object(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused_with_a_reason() {
    let w = World::new().await;
    for (body, code) in [
        (&b"{}"[..], "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"", "malformed"),
        (br#"{"op":"erase"}"#, "malformed"),
    ] {
        let told = exchange(w.tls(1).await, body).await;
        assert_eq!(told["refused"]["code"], code, "{body:?}");
    }
    // The length alone is enough to refuse it.
    let mut stream = w.tls(1).await;
    stream.write_u32(256 * 1024 + 1).await.unwrap();
    let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let told: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(told["refused"]["code"], "size");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_callers_of_one_address_are_cut_off_and_others_are_served() {
    let w = World::new().await;
    let mut silent = Vec::new();
    for _ in 0..CALLS_PER_ADDRESS {
        silent.push(w.tcp(1).await);
    }
    // From another address at once, from the same one in turn.
    let told = hello_with(w.tls(2).await, None).await;
    assert_eq!(told["hello"]["origin"], ORIGIN);
    let told = hello_with(w.tls(1).await, None).await;
    assert_eq!(told["hello"]["origin"], ORIGIN);
    // Its turn came when the first was cut off; the others follow. Closed or reset is the same.
    for (socket, limit) in silent.iter_mut().zip(
        [HEAR_TIMEOUT / 10]
            .into_iter()
            .chain(std::iter::repeat(PATIENCE)),
    ) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(limit, socket.read_to_end(&mut rest));
        read.await.expect("a silent caller is kept").ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_no_silent_caller() {
    let w = World::new().await;
    let (tcp, tls) = (w.tcp(1).await, w.tls(1).await);
    w.stop.cancel();
    tokio::time::timeout(PATIENCE, w.serving)
        .await
        .expect("the API does not stop")
        .unwrap();
    drop((tcp, tls));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_under_way_hold_up_neither_greetings_nor_statements() {
    let w = World::new().await;
    let all = u32::try_from(MAX_READS).unwrap();
    let busy = w.api.reads.acquire_many(all).await.unwrap();
    let actions = Query::Actions {
        filter: Box::default(),
    };
    let read = w.read(&actions);
    let size = w.api.ledger.size();
    let waiting = w.call(&read);
    let meanwhile = async {
        // Its entry is durable, so it is under way.
        while w.api.ledger.size() == size {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = hello_with(w.tls(1).await, None).await;
        assert_eq!(told["hello"]["origin"], ORIGIN);
        let told = w.call(&w.person_add()).await;
        assert!(told["done"]["receipt"].is_object(), "{told}");
        drop(busy);
    };
    let (told, ()) = tokio::join!(waiting, meanwhile);
    assert_eq!(told["done"]["answer"], json!([]), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_what_it_reads_while_the_view_moves_on() {
    let w = World::new().await;
    let ledger = &*w.api.ledger;
    let held = w.api.view.caught_up(ledger).unwrap();
    let told = w.call(&w.person_add()).await;
    assert!(told["done"]["receipt"].is_object(), "{told}");
    let told = w.call(&w.read(&Query::Registry)).await;
    let people = told["done"]["answer"]["people"].as_array().unwrap();
    let names: Vec<&str> = people.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"Ada Approver") && names.contains(&"Olu Operator"));
    assert_eq!(held.names().len(), 1);
    assert_eq!(w.api.view.names(ledger).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_answered_once() {
    let w = World::new().await;
    let actions = Query::Actions {
        filter: Box::default(),
    };
    let read = w.read(&actions);
    let told = w.call(&read).await;
    assert!(told["done"]["receipt"].is_object(), "{told}");
    let told = w.call(&read).await;
    assert_eq!(told["refused"]["code"], "replay", "{told}");
    // A read without entry may be asked again: it shows nothing that is sealed.
    let registry = w.read(&Query::Registry);
    for _ in 0..2 {
        let told = w.call(&registry).await;
        assert_eq!(told["done"]["receipt"], Value::Null, "{told}");
    }
}

fn body(read: Read) -> Body {
    let statement = Statement {
        v: 1,
        log: "example.org/log".into(),
        by: PersonId::new([1; 16]),
        at: ascribe_core::time::Timestamp::from_millis(0),
        id: StatementId::new([2; 16]),
        seen: Seen {
            size: 0,
            root: Root(ascribe_tlog::Hash::ZERO),
        },
        say: Say::Read(read),
    };
    Body::Statement(Signed {
        text: statement.to_text().unwrap(),
        sig: Bytes(Vec::new()),
    })
}

#[test]
fn a_query_that_is_not_what_the_statement_says_is_refused() {
    let session = SessionId::new([3; 16]);
    let export = Query::Export { session };
    let opening = Opening::new("query", [0; 32], serde_json::to_vec(&export).unwrap());
    let query = opening.commitment();
    let honest = Read {
        view: Shown::Export,
        query,
        request: None,
        session: Some(session),
    };
    assert!(
        read_query(
            &honest,
            &body(honest.clone()),
            std::slice::from_ref(&opening)
        )
        .is_ok()
    );
    for lie in [
        Read {
            view: Shown::Registry,
            session: None,
            ..honest.clone()
        },
        Read {
            session: Some(SessionId::new([4; 16])),
            ..honest.clone()
        },
        Read {
            view: Shown::Replay,
            ..honest.clone()
        },
    ] {
        assert!(
            read_query(&lie, &body(lie.clone()), std::slice::from_ref(&opening)).is_err(),
            "{lie:?}"
        );
    }
    let other = Opening::new("query", [1; 32], opening.bytes.0.clone());
    assert!(read_query(&honest, &body(honest.clone()), &[other]).is_err());
    assert!(read_query(&honest, &body(honest.clone()), &[]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_outside_makes_the_gateways_logins() {
    let w = World::new().await;
    let told = w.call(&w.login(true)).await;
    assert_eq!(told["refused"]["code"], "bearer", "{told}");
    let told = w.call(&w.login(false)).await;
    assert_eq!(told["refused"]["code"], "no-provider", "{told}");
    // Signed with a key of Ada's, they are still nobody's.
    assert_eq!(w.refused(), []);
    let counts = [("bearer", 1), ("no-provider", 1)];
    assert_eq!(w.counted().await, counted(&counts));
}

fn counted(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let counts = counts
        .iter()
        .map(|(code, count)| ((*code).to_owned(), *count));
    counts.collect()
}

/// Anybody may have a copy of what Ada signed: for another log, long ago, or just now, which is refused once under her name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_again_is_refused_under_its_signers_name_once() {
    let w = World::new().await;
    let door = w.tokens();
    let reason = Opening::new("reason", [8; 32], b"they told me to".to_vec());
    let asked = || {
        let ask = ascribe_core::statement::Revocation {
            grant: GrantId::new([1; 16]),
            reason: Prose::of(&reason),
        };
        w.statement(Say::Revocation(ask))
    };
    let brought = async |statement: &Statement| {
        let signed = w.ada.sign(statement).unwrap();
        let openings = [reason.clone(), Opening::new("reason", [9; 32], vec![])];
        let mut codes = Vec::new();
        for openings in [&openings[..1], &openings[1..], &[], &openings[..1]] {
            let told = w.call(&submission(&signed, openings)).await;
            let code = told["refused"]["code"].as_str().unwrap().to_owned();
            door.refused(&signed, "no-grant").await;
            codes.push(code);
        }
        codes
    };
    let mut others = asked();
    others.log = "ledger.example/other".to_owned();
    let mut old = asked();
    old.at = old.at.plus_millis(-300 * 86_400_000);
    let mut early = asked();
    early.at = early.at.plus_millis(600_000);
    for statement in [&others, &old, &early] {
        let codes = brought(statement).await;
        assert!(codes.contains(&"openings".to_owned()), "{codes:?}");
        assert_eq!(w.refused(), [], "{codes:?}");
    }
    let new = asked();
    let codes = brought(&new).await;
    assert!(codes.iter().all(|code| code != "replay"), "{codes:?}");
    let first = ("revocation".to_owned(), codes[0].clone());
    assert_eq!(w.refused(), std::slice::from_ref(&first));
    // Another is another, also under the same id, and not if somebody else signed it.
    let mut next = asked();
    next.id = new.id;
    door.refused(&w.ada.sign(&next).unwrap(), "no-grant").await;
    let third = w.stranger.sign(&asked()).unwrap();
    door.refused(&third, "no-grant").await;
    let second = ("revocation".to_owned(), "no-grant".to_owned());
    assert_eq!(w.refused(), [first, second]);
    // What was taken in is refused to nobody who brings it later.
    let person = w.person_add();
    let told = w.call(&person).await;
    assert!(told["done"]["receipt"].is_object(), "{told}");
    let signed: Signed = serde_json::from_value(person["signed"].clone()).unwrap();
    door.refused(&signed, "openings").await;
    assert_eq!(w.refused().len(), 2);
}

/// However many come at once, each is answered in time and counted.
#[tokio::test(flavor = "multi_thread")]
async fn logins_that_come_together_are_all_answered_and_counted() {
    let w = World::new().await;
    w.provider(published()).await;
    let begun = std::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (stream, login) = (w.tls(1).await, w.login(false));
        calls.spawn(async move { exchange(stream, &serde_json::to_vec(&login).unwrap()).await });
    }
    let told = calls.join_all().await;
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    let mut counts = BTreeMap::new();
    for told in &told {
        let code = told["refused"]["code"].as_str().unwrap().to_owned();
        *counts.entry(code).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<u64>(), 30);
    assert_eq!(w.counted().await, counts);
}

/// A login that waits when the server stops, or whose client has waited long enough, is counted.
#[tokio::test(flavor = "multi_thread")]
async fn logins_that_are_given_up_are_counted() {
    let w = World::new().await;
    let (_held, address) = silent();
    w.provider(address).await;
    // At a database's door.
    let now = w.api.ledger.now().millis() / 1000;
    let said =
        json!({ "iss": ISSUER, "aud": "ascribe", "sub": "job", "iat": now, "exp": now + 60 });
    let parts = [
        r#"{"alg":"EdDSA"}"#.to_owned(),
        said.to_string(),
        "x".repeat(64),
    ];
    let token = parts.map(|part| ascribe_core::encoding::base64url(part.as_bytes()));
    let token = ascribe_wire::pg::Secret::new(token.join(".").as_bytes());
    let door = w.tokens();
    let waited = tokio::time::timeout(LOOK, door.log_in(&token)).await;
    assert!(waited.is_err(), "it was decided");
    // At the API.
    let mut stream = w.tls(1).await;
    let login = serde_json::to_vec(&w.login(false)).unwrap();
    stream
        .write_u32(u32::try_from(login.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&login).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    w.stop.cancel();
    // Until all that it was asked has ended.
    while Arc::strong_count(&w.api) > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(w.counted().await, counted(&[("gone", 2)]));
}
