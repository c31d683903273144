//! A security key in software, behind an agent of the test's own: whether somebody touched it is for the test to say.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ascribe_core::encoding::base64_std;
use ascribe_tlog::SigningKey;
use sha2::{Digest as _, Sha256};

use super::world::{Out, World};

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

/// Messages of the agent's protocol.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

struct Token {
    key: SigningKey,
    /// What the key says of its user, as OpenSSH's `PROTOCOL.u2f` has it.
    flags: AtomicU8,
}

impl Token {
    fn blob(&self) -> Vec<u8> {
        let key = self.key.verifier().public_key();
        strings(&[KIND.as_bytes(), &key, APPLICATION.as_bytes()])
    }
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let ending = [self.flags.load(Ordering::SeqCst), 0, 0, 0, 1];
        let application = Sha256::digest(APPLICATION);
        let message = Sha256::digest(data);
        let signed = [&application[..], &ending, &message[..]].concat();
        let mut signature = strings(&[KIND.as_bytes(), &self.key.sign_raw(&signed)]);
        signature.extend(ending);
        signature
    }
    /// Answers whoever asks at the socket, one message after the other.
    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut message)?;
            let answer = match message.split_first().unwrap() {
                (&REQUEST_IDENTITIES, _) => [
                    &[IDENTITIES_ANSWER, 0, 0, 0, 1],
                    &strings(&[&self.blob(), b"token"])[..],
                ]
                .concat(),
                (&SIGN_REQUEST, rest) => {
                    let data = rest.get(4 + self.blob().len() + 4..rest.len() - 4).unwrap();
                    [&[SIGN_RESPONSE], &strings(&[&self.sign(data)])[..]].concat()
                }
                (other, _) => panic!("message {other}"),
            };
            stream.write_all(&strings(&[&answer]))?;
        }
    }
}

/// A token of this person's, enrolled.
pub(super) struct Enrolled {
    token: Arc<Token>,
    socket: PathBuf,
    /// Its public key's file.
    pub(super) public: String,
}

impl Enrolled {
    pub(super) fn of(world: &World, who: &str) -> Self {
        let token = Arc::new(Token {
            key: SigningKey::from_seed("example.org/key", &[9; 32]).unwrap(),
            flags: AtomicU8::new(1),
        });
        let socket = world.path("token.agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let of = Arc::clone(&token);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever asked goes away in the end.
                of.serve(stream).unwrap_err();
            }
        });
        let public = world.path("token.pub").display().to_string();
        let line = format!("{KIND} {} token\n", base64_std(&token.blob()));
        std::fs::write(&public, line).unwrap();
        let person = world.person(who).0;
        let add = ["key", "add", &person, "--public-key", &public];
        world.run_as("approver", &add).exits(0);
        Self {
            token,
            socket,
            public,
        }
    }

    /// The binary with this key, which says these flags of its user.
    pub(super) fn run(&self, world: &World, flags: u8, args: &[&str]) -> Out {
        self.token.flags.store(flags, Ordering::SeqCst);
        let with = ["-o", "json", "--key", &self.public];
        let mut command = world.ascribe(&[&with, args].concat());
        command.env("SSH_AUTH_SOCK", &self.socket);
        world.program_as_is(&mut command)
    }
}
