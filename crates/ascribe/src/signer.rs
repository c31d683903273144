//! Signing statements with a person's SSH key: from a key file, or through `ssh-agent`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ascribe_core::encoding::Bytes;
use ascribe_core::statement::{Signed, SshKey, Statement};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey, Signature, SshSig};
use zeroize::Zeroizing;

use crate::client::random;
use crate::cmd::remark;
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::passphrase;

/// Largest message that an agent may answer with.
const MAX_AGENT_MESSAGE: usize = 256 * 1024;

/// Messages of the agent protocol.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;
const CONSTRAIN_LIFETIME: u8 = 1;
const SUCCESS: u8 = 6;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;

/// Whoever holds a person's key.
pub(crate) enum Signer {
    /// A key file that is open.
    File(Box<PrivateKey>),
    /// A key that `ssh-agent` holds.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
        /// Which key.
        public: Box<PublicKey>,
    },
}

/// A fresh session key.
pub(crate) fn fresh_key() -> Done<PrivateKey> {
    let seed = Zeroizing::new(random::<32>()?);
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

fn usable(key: &PublicKey) -> bool {
    let p256 = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    };
    key.algorithm() == Algorithm::Ed25519 || key.algorithm() == p256 || is_security_key(key)
}

/// One that signs when somebody touches it: through an agent, which speaks to it.
fn is_security_key(key: &PublicKey) -> bool {
    matches!(
        key.algorithm(),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    )
}

/// The flags of a security key's signature are its fifth byte from the end, the lowest for a touch (OpenSSH
/// `PROTOCOL.u2f`).
fn is_touched(signature: &Signature) -> bool {
    let ending = signature.as_bytes().last_chunk::<5>();
    ending.is_some_and(|[flags, ..]| flags & 1 != 0)
}

impl Signer {
    /// The key in `file`. An encrypted one is looked for in the agent; if it is not there, its passphrase
    /// is asked for.
    pub(crate) fn from_file(file: &Path) -> Done<Self> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map(Zeroizing::new)
            .attempt(format!("read key file `{shown}`"))?;
        if let Ok(public) = PublicKey::from_openssh(&text) {
            return Self::from_agent(Some(&public));
        }
        let key = PrivateKey::from_openssh(text.as_bytes())
            .map_err(|e| Failure::usage(format!("`{shown}` is no OpenSSH key: {e}")))?;
        if !usable(key.public_key()) {
            return Err(Failure::usage(format!(
                "`{shown}` is neither an Ed25519 nor an ECDSA P-256 key, nor a security key of these types"
            ))
            .help("make one: ssh-keygen -t ed25519"));
        }
        if is_security_key(key.public_key()) {
            return Self::from_agent(Some(key.public_key()));
        }
        if key.is_encrypted() {
            if let Ok(agent) = Self::from_agent(Some(key.public_key())) {
                return Ok(agent);
            }
            let open = passphrase::open(&key, &shown.to_string())?;
            return Ok(Self::File(Box::new(open)));
        }
        Ok(Self::File(Box::new(key)))
    }

    /// A key that the agent holds: `wanted`, or the first that can be used. One that wants to be touched is
    /// taken only where there is no other.
    pub(crate) fn from_agent(wanted: Option<&PublicKey>) -> Done<Self> {
        let socket = std::env::var_os("SSH_AUTH_SOCK")
            .map(PathBuf::from)
            .ok_or_else(|| {
                Failure::usage("no key: neither `--key FILE` nor an ssh-agent")
                    .help("give `--key ~/.ssh/id_ed25519`, or run `ssh-add`")
            })?;
        let answer = agent_call(&socket, REQUEST_IDENTITIES, &[])?;
        let keys = parse_identities(&answer).unwrap_or_default();
        let mut keys: Vec<PublicKey> = keys.into_iter().filter(usable).collect();
        keys.sort_by_key(is_security_key);
        let found = keys
            .into_iter()
            .find(|key| wanted.is_none_or(|w| w.key_data() == key.key_data()));
        match found {
            Some(public) => Ok(Self::Agent {
                socket,
                public: Box::new(public),
            }),
            None => Err(Failure::usage("the ssh-agent does not hold the key")
                .help("add it: ssh-add KEYFILE")),
        }
    }

    pub(crate) fn public(&self) -> &PublicKey {
        match self {
            Self::File(key) => key.public_key(),
            Self::Agent { public, .. } => public,
        }
    }

    /// OpenSSH's fingerprint of the key.
    pub(crate) fn fingerprint(&self) -> Done<String> {
        Ok(ssh_key_of(self.public())?.fingerprint())
    }

    /// Signs a statement under its namespace.
    pub(crate) fn sign(&self, statement: &Statement) -> Done<Signed> {
        let text = statement.to_text().attempt("encode the statement")?;
        let sig = self.sshsig(&statement.say.namespace(), text.as_bytes())?;
        Ok(Signed { text, sig })
    }

    /// Signs in SSHSIG form.
    pub(crate) fn sshsig(&self, namespace: &str, text: &[u8]) -> Done<Bytes> {
        let sig = match self {
            Self::File(key) => key.sign(namespace, HashAlg::Sha512, text).attempt("sign")?,
            Self::Agent { socket, public } => {
                let data = SshSig::signed_data(namespace, HashAlg::Sha512, text)
                    .attempt("prepare the signature")?;
                let blob = public.to_bytes().attempt("encode the key")?;
                let mut body = Vec::new();
                put_string(&mut body, &blob);
                put_string(&mut body, &data);
                body.extend_from_slice(&0u32.to_be_bytes());
                if is_security_key(public) {
                    remark("touch the security key to sign");
                }
                let answer = agent_call(socket, SIGN_REQUEST, &body)?;
                let raw = take_string(&mut answer.as_slice())
                    .ok_or_else(|| Failure::new(Kind::Failure, "the ssh-agent did not sign"))?;
                let signature =
                    Signature::try_from(raw.as_slice()).attempt("read the agent's signature")?;
                if is_security_key(public) && !is_touched(&signature) {
                    return Err(
                        Failure::new(Kind::Denied, "nobody touched the security key")
                            .help("a key made with `-O no-touch-required` signs nothing here"),
                    );
                }
                SshSig::new(
                    public.key_data().clone(),
                    namespace.to_owned(),
                    HashAlg::Sha512,
                    signature,
                )
                .attempt("form the signature")?
            }
        };
        let armour = sig
            .to_pem(ssh_key::LineEnding::LF)
            .attempt("encode the signature")?;
        let blob = ascribe_evidence::dearmour(&armour).attempt("encode the signature")?;
        Ok(Bytes(blob))
    }
}

/// Gives a key to the agent, which forgets it after so many seconds.
pub(crate) fn lend_to_agent(key: &PrivateKey, comment: &str, seconds: u32) -> Done {
    let socket = agent_socket()?;
    let ssh_key::private::KeypairData::Ed25519(pair) = key.key_data() else {
        return Err(Failure::usage("only Ed25519 keys are given to the agent"));
    };
    let mut body = Zeroizing::new(Vec::new());
    put_string(&mut body, b"ssh-ed25519");
    put_string(&mut body, pair.public.as_ref());
    put_string(&mut body, &*Zeroizing::new(pair.to_bytes()));
    put_string(&mut body, comment.as_bytes());
    body.push(CONSTRAIN_LIFETIME);
    body.extend_from_slice(&seconds.to_be_bytes());
    agent_call(&socket, ADD_ID_CONSTRAINED, &body).map(drop)
}

/// Takes a key from the agent.
pub(crate) fn take_from_agent(key: &PublicKey) -> Done {
    let blob = key.to_bytes().attempt("encode the key")?;
    let mut body = Vec::new();
    put_string(&mut body, &blob);
    agent_call(&agent_socket()?, REMOVE_IDENTITY, &body).map(drop)
}

/// Is there an agent that answers?
pub(crate) fn agent_answers() -> Done {
    agent_call(&agent_socket()?, REQUEST_IDENTITIES, &[]).map(drop)
}

fn agent_socket() -> Done<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK")
        .map(PathBuf::from)
        .ok_or_else(|| {
            Failure::usage("no ssh-agent runs here").help(
                "start one: eval \"$(ssh-agent)\"; or keep the key in a file: --key-file FILE",
            )
        })
}

/// A library key as the law writes it.
pub(crate) fn ssh_key_of(key: &PublicKey) -> Done<SshKey> {
    let line = key.to_openssh().attempt("encode the key")?;
    let mut parts = line.split(' ');
    match (parts.next(), parts.next()) {
        (Some(kind), Some(blob)) => Ok(SshKey(format!("{kind} {blob}"))),
        _ => Err(Failure::new(Kind::Failure, "the key has no OpenSSH form")),
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_u32(input: &mut &[u8]) -> Option<u32> {
    let (head, rest) = input.split_first_chunk::<4>()?;
    *input = rest;
    Some(u32::from_be_bytes(*head))
}

fn take_string(input: &mut &[u8]) -> Option<Vec<u8>> {
    let len = take_u32(input)? as usize;
    let (head, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(head.to_vec())
}

fn parse_identities(mut answer: &[u8]) -> Option<Vec<PublicKey>> {
    let count = take_u32(&mut answer)?.min(1024);
    let mut keys = Vec::new();
    for _ in 0..count {
        let blob = take_string(&mut answer)?;
        take_string(&mut answer)?;
        if let Ok(key) = PublicKey::from_bytes(&blob) {
            keys.push(key);
        }
    }
    Some(keys)
}

/// One call of the agent protocol (draft-ietf-sshm-ssh-agent); returns the answer's body.
fn agent_call(socket: &Path, kind: u8, body: &[u8]) -> Done<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).attempt("reach the ssh-agent")?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .attempt("reach the ssh-agent")?;
    // It may hold a private key.
    let mut message = Zeroizing::new(vec![kind]);
    message.extend_from_slice(body);
    let mut frame = Zeroizing::new(Vec::new());
    put_string(&mut frame, &message);
    stream.write_all(&frame).attempt("ask the ssh-agent")?;
    let mut len = [0; 4];
    stream
        .read_exact(&mut len)
        .attempt("hear from the ssh-agent")?;
    let len = u32::from_be_bytes(len) as usize;
    if len == 0 || len > MAX_AGENT_MESSAGE {
        return Err(Failure::new(
            Kind::Failure,
            "the ssh-agent answered nonsense",
        ));
    }
    let mut answer = vec![0; len];
    stream
        .read_exact(&mut answer)
        .attempt("hear from the ssh-agent")?;
    match (answer.split_first(), kind) {
        (Some((&IDENTITIES_ANSWER, rest)), REQUEST_IDENTITIES)
        | (Some((&SIGN_RESPONSE, rest)), SIGN_REQUEST)
        | (Some((&SUCCESS, rest)), ADD_ID_CONSTRAINED | REMOVE_IDENTITY) => Ok(rest.to_vec()),
        _ => Err(Failure::new(Kind::Failure, "the ssh-agent refused")),
    }
}
