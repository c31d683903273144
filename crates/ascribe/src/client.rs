//! The client's side: find the server, pin its key, remember its checkpoints, submit statements.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ascribe_core::entry::Entry;
use ascribe_core::id::{PersonId, StatementId};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Say, Seen, Signed, Statement};
use ascribe_core::time::Timestamp;
use ascribe_tlog::{
    Checkpoint, Hash, VerifierKey, leaf_hash, verify_consistency, verify_inclusion,
};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

use crate::api::{
    Call, HELLO, Hello, MAX_ANSWER, ProviderAsk, ProviderView, Query, Reply, WireReceipt,
    hello_text,
};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::signer::Signer;

/// What a client knows of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// `HOST:PORT` of the API.
    pub(crate) api: String,
    /// The server's TLS key (SubjectPublicKeyInfo, base64).
    pub(crate) pin: String,
    /// The log's verifier key.
    pub(crate) log_key: String,
}

/// What a client remembers of a log: the rollback check.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    checkpoint: Option<String>,
}

/// A connection's worth of trust: which server, which log, whose key.
pub(crate) struct Client {
    server: Server,
    log_key: VerifierKey,
    memory: PathBuf,
    signer: Option<Signer>,
}

/// Where clients keep what they know.
pub(crate) fn config_dir() -> Done<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(base.join("ascribe"))
}

/// Reads a JSON file.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Done<T> {
    let text = std::fs::read_to_string(path).attempt(format!("read `{}`", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|e| Failure::usage(format!("`{}` is damaged: {e}", path.display())))
}

/// Writes a JSON file by way of a temporary one.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Done {
    let what = format!("write `{}`", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).attempt(&what)?;
    }
    let text = serde_json::to_string_pretty(value).attempt(&what)?;
    // A tunnel's connections write at the same time.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("tmp{}-{number}", std::process::id()));
    std::fs::write(&temporary, text + "\n").attempt(&what)?;
    std::fs::rename(&temporary, path).attempt(&what)
}

impl Client {
    pub(crate) fn new(server: Server, signer: Option<Signer>) -> Done<Self> {
        let log_key: VerifierKey = server
            .log_key
            .parse()
            .map_err(|e| Failure::usage(format!("the server's log key is damaged: {e}")))?;
        let name = ascribe_core::encoding::base64url(&leaf_hash(server.log_key.as_bytes()).0);
        let memory = config_dir()?
            .join("checkpoints")
            .join(format!("{name}.json"));
        Ok(Self {
            server,
            log_key,
            memory,
            signer,
        })
    }

    pub(crate) fn signer(&self) -> Done<&Signer> {
        self.signer.as_ref().ok_or_else(|| {
            Failure::usage("this needs your key").help("give `--key FILE`, or run `ssh-add`")
        })
    }

    /// `HOST:PORT` of the API.
    pub(crate) fn address(&self) -> &str {
        &self.server.api
    }

    fn remembered(&self) -> Done<Option<Checkpoint>> {
        if !self.memory.exists() {
            return Ok(None);
        }
        let memory: Remembered = read_json(&self.memory)?;
        let Some(note) = memory.checkpoint else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&self.log_key))
            .map_err(|e| Failure::usage(format!("the remembered checkpoint is damaged: {e}")))?;
        Ok(Some(checkpoint))
    }

    fn remember(&self, note: &str, size: u64) -> Done {
        if self.remembered()?.is_some_and(|old| old.size >= size) {
            return Ok(());
        }
        write_json(
            &self.memory,
            &Remembered {
                checkpoint: Some(note.to_owned()),
            },
        )
    }

    /// Asks the server what its log is, and demands that it continues what was seen before.
    pub(crate) fn hello(&self) -> Done<Hello> {
        let known = self.remembered()?;
        let seen = known.as_ref().map(|c| c.size);
        let reply = self.call_on(|tls| {
            let text = hello_text(tls).attempt("set up TLS")?;
            let signer = self.signer.as_ref();
            let key = signer.map(|signer| signer.sshsig(HELLO, &text));
            let key = key.transpose()?;
            Ok(Call::Hello { key, seen })
        })?;
        let Reply::Hello(hello) = reply.ok()? else {
            return Err(Failure::new(
                Kind::Failure,
                "the server answered something else",
            ));
        };
        let checkpoint = Checkpoint::open(
            hello.checkpoint.as_bytes(),
            std::slice::from_ref(&self.log_key),
        )
        .map_err(|e| Failure::new(Kind::Proof, format!("the server's checkpoint fails: {e}")))?;
        if checkpoint.size != hello.size || checkpoint.root != hello.root.0 {
            return Err(Failure::new(
                Kind::Proof,
                "the server contradicts its own checkpoint",
            ));
        }
        if let Some(old) = known {
            let proof: Option<Vec<Hash>> = hello
                .consistency
                .iter()
                .map(|h| Hash::from_base64url(h))
                .collect();
            let proof = proof.unwrap_or_default();
            if checkpoint.size < old.size {
                return Err(rolled_back(&format!(
                    "the log has {} entries, and had {} before",
                    checkpoint.size, old.size
                )));
            }
            verify_consistency(
                old.size,
                &old.root,
                checkpoint.size,
                &checkpoint.root,
                &proof,
            )
            .map_err(|_| rolled_back("the log does not continue what this client saw before"))?;
        }
        self.remember(&hello.checkpoint, checkpoint.size)?;
        Ok(*hello)
    }

    /// A statement by this client's key, signed.
    pub(crate) fn signed(&self, hello: &Hello, say: Say) -> Done<(StatementId, Signed)> {
        let signer = self.signer()?;
        let by = hello.author().ok_or_else(|| unknown_key(hello, signer))?;
        self.signed_as(hello, by, say)
    }

    /// The same in the name of somebody whose key the server does not know yet.
    fn signed_as(&self, hello: &Hello, by: PersonId, say: Say) -> Done<(StatementId, Signed)> {
        let signer = self.signer()?;
        let id = StatementId::new(random()?);
        let statement = Statement {
            v: 1,
            log: hello.origin.clone(),
            by,
            at: now(),
            id,
            seen: Seen {
                size: hello.size,
                root: hello.root,
            },
            say,
        };
        Ok((id, signer.sign(&statement)?))
    }

    /// Signs and submits; checks the receipt. Returns the answer and the receipt.
    pub(crate) fn submit(
        &self,
        hello: &Hello,
        say: Say,
        openings: Vec<Opening>,
    ) -> Done<(StatementId, Option<WireReceipt>, serde_json::Value)> {
        let (id, signed) = self.signed(hello, say)?;
        let (receipt, answer) = self.hand_in(signed, openings)?;
        Ok((id, receipt, answer))
    }

    /// The same in the name of somebody whose key the server does not know yet.
    pub(crate) fn submit_as(
        &self,
        hello: &Hello,
        by: PersonId,
        say: Say,
        openings: Vec<Opening>,
    ) -> Done<StatementId> {
        let (id, signed) = self.signed_as(hello, by, say)?;
        self.hand_in(signed, openings)?;
        Ok(id)
    }

    fn hand_in(
        &self,
        signed: Signed,
        openings: Vec<Opening>,
    ) -> Done<(Option<WireReceipt>, serde_json::Value)> {
        let text = signed.text.clone();
        let Reply::Done { receipt, answer } = self
            .call_on(|_| Ok(Call::Submit { signed, openings }))?
            .ok()?
        else {
            return Err(Failure::new(
                Kind::Failure,
                "the server answered something else",
            ));
        };
        if let Some(receipt) = &receipt {
            self.check_receipt(receipt, &text)?;
        }
        Ok((receipt, answer))
    }

    /// What the server knows of a provider, and whom it takes a subject for.
    pub(crate) fn provider(&self, ask: ProviderAsk) -> Done<ProviderView> {
        match self.call_on(|_| Ok(Call::Provider(ask)))?.ok()? {
            Reply::Provider(view) => Ok(*view),
            _ => Err(Failure::new(
                Kind::Failure,
                "the server answered something else",
            )),
        }
    }

    /// Which server this is.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    fn check_receipt(&self, receipt: &WireReceipt, text: &str) -> Done {
        let fail =
            |why: &str| Failure::new(Kind::Proof, format!("the server's receipt fails: {why}"));
        let checkpoint = Checkpoint::open(
            receipt.checkpoint.as_bytes(),
            std::slice::from_ref(&self.log_key),
        )
        .map_err(|e| fail(&e.to_string()))?;
        let proof: Vec<Hash> = receipt.proof.iter().map(|r| r.0).collect();
        let leaf = leaf_hash(&receipt.entry.0);
        verify_inclusion(
            &leaf,
            receipt.index,
            checkpoint.size,
            &proof,
            &checkpoint.root,
        )
        .map_err(|e| fail(&e.to_string()))?;
        let entry = Entry::from_bytes(&receipt.entry.0).map_err(|e| fail(&e.to_string()))?;
        let mine = matches!(&entry.body, ascribe_core::entry::Body::Statement(s) if s.text == text);
        if !mine {
            return Err(fail("it is for another statement"));
        }
        self.remember(&receipt.checkpoint, checkpoint.size)
    }

    /// Submits a read.
    pub(crate) fn read(&self, query: &Query) -> Done<serde_json::Value> {
        let hello = self.hello()?;
        let (say, openings) = read_statement(query)?;
        self.submit(&hello, say, openings)
            .map(|(_, _, answer)| answer)
    }

    /// Submits a read whose answer goes on in frames, and gives each to `take` until it says enough.
    pub(crate) fn follow<T: for<'de> Deserialize<'de>>(
        &self,
        query: &Query,
        mut take: impl FnMut(T) -> Done<Flow>,
    ) -> Done {
        let hello = self.hello()?;
        let (say, openings) = read_statement(query)?;
        let (_, signed) = self.signed(&hello, say)?;
        let mut stream = self.dial(|_| Ok(Call::Submit { signed, openings }))?;
        read_frame::<Reply>(&mut stream)?.ok()?;
        // A quiet session says nothing for long.
        stream
            .sock
            .set_read_timeout(None)
            .attempt("set up the connection")?;
        while let Flow::On = take(read_frame(&mut stream)?)? {}
        Ok(())
    }

    /// One call on a connection of its own, made once it stands.
    fn call_on(&self, call: impl FnOnce(&rustls::ClientConnection) -> Done<Call>) -> Done<Reply> {
        read_frame(&mut self.dial(call)?)
    }

    /// TLS with this server and no other.
    pub(crate) fn tls(&self) -> Done<Arc<rustls::ClientConfig>> {
        let pin = ascribe_core::encoding::from_base64_std(&self.server.pin)
            .ok_or_else(|| Failure::usage("the server's pinned key is damaged"))?;
        crate::tls::client(pin)
    }

    /// A connection on which a call was made.
    fn dial(&self, call: impl FnOnce(&rustls::ClientConnection) -> Done<Call>) -> Done<Dialled> {
        let api = &self.server.api;
        let config = self.tls()?;
        let mut tcp = TcpStream::connect(api).map_err(|e| {
            Failure::new(
                Kind::Failure,
                format!("cannot reach the server at `{api}`: {e}"),
            )
            .help("is it running? start it with `ascribe serve`")
        })?;
        tcp.set_read_timeout(Some(Duration::from_secs(60)))
            .attempt("set up the connection")?;
        tcp.set_nodelay(true).attempt("set up the connection")?;
        let name = ServerName::try_from("ascribe").attempt("set up TLS")?;
        let mut connection = rustls::ClientConnection::new(config, name).attempt("set up TLS")?;
        let talk = format!("talk to the server at `{api}`");
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).attempt(&talk)?;
        }
        let body = serde_json::to_vec(&call(&connection)?).attempt("encode the call")?;
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let len = u32::try_from(body.len()).attempt("encode the call")?;
        stream.write_all(&len.to_be_bytes()).attempt(&talk)?;
        stream.write_all(&body).attempt("talk to the server")?;
        stream.flush().attempt("talk to the server")?;
        Ok(stream)
    }
}

/// An API connection.
type Dialled = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Does whoever takes frames want more of them?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// No.
    Enough,
    /// Yes.
    On,
}

fn read_frame<T: for<'de> Deserialize<'de>>(stream: &mut Dialled) -> Done<T> {
    let mut head = [0; 4];
    stream
        .read_exact(&mut head)
        .attempt("hear from the server")?;
    let len = u32::from_be_bytes(head) as usize;
    if len > MAX_ANSWER {
        return Err(Failure::new(
            Kind::Failure,
            "the server's answer is too large",
        ));
    }
    let mut answer = Vec::new();
    stream
        .take(len as u64)
        .read_to_end(&mut answer)
        .attempt("hear from the server")?;
    serde_json::from_slice(&answer).attempt("read the server's answer")
}

fn rolled_back(why: &str) -> Failure {
    Failure::new(
        Kind::Proof,
        format!("the log was rolled back or forked: {why}"),
    )
    .help("keep this machine's checkpoint file as evidence and compare with a backup")
}

fn unknown_key(hello: &Hello, signer: &Signer) -> Failure {
    let shown = signer.fingerprint().unwrap_or_default();
    if let Some(nobody) = &hello.nobody {
        let why = ascribe_core::text::clean(&nobody.message, 300);
        let help = match &nobody.help {
            Some(help) => ascribe_core::text::clean(help, 300),
            None => "sign with the key of somebody who is enrolled: `--key FILE`".to_owned(),
        };
        return Failure::new(
            Kind::Denied,
            format!("{why}; this is signed with the key {shown}"),
        )
        .help(help);
    }
    Failure::new(
        Kind::Denied,
        format!("nobody is enrolled with the key {shown}"),
    )
    .help("an admin enrols it: ascribe person add NAME --public-key FILE.pub --role requester")
}

/// The statement and opening that a query makes.
pub(crate) fn read_statement(query: &Query) -> Done<(Say, Vec<Opening>)> {
    use ascribe_core::statement::Read;
    let bytes = serde_json::to_vec(query).attempt("encode the query")?;
    let opening = Opening::new("query", random()?, bytes);
    let (view, session, request) = query.shape();
    let read = Read {
        view,
        query: opening.commitment(),
        request,
        session,
    };
    Ok((Say::Read(read), vec![opening]))
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Done<[u8; N]> {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).attempt("draw random bytes")?;
    Ok(out)
}

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// A fresh person id.
pub(crate) fn new_person() -> Done<PersonId> {
    Ok(PersonId::new(random()?))
}
