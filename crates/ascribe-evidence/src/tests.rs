//! Against stock `ssh-keygen`, which must be installed.

use std::path::Path;
use std::process::{Command, Stdio};

use ascribe_core::law::Judge as _;
use ascribe_core::statement::Signed;

use super::*;

fn keygen(args: &[&str], dir: &Path, stdin: Option<&Path>) -> bool {
    let mut command = Command::new("ssh-keygen");
    command
        .args(args)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match stdin {
        Some(file) => command.stdin(std::fs::File::open(file).unwrap()),
        None => command.stdin(Stdio::null()),
    };
    command
        .status()
        .expect("ssh-keygen must be installed")
        .success()
}

fn key(dir: &Path, name: &str, kind: &[&str]) -> SshKey {
    let mut args = vec!["-q", "-N", "", "-C", "a comment", "-f", name];
    args.extend(kind);
    assert!(keygen(&args, dir, None));
    parse_public_key(&std::fs::read_to_string(dir.join(format!("{name}.pub"))).unwrap()).unwrap()
}

#[test]
fn what_ssh_keygen_signs_verifies_here_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in [
        ("ed", &["-t", "ed25519"][..]),
        ("ec", &["-t", "ecdsa", "-b", "256"][..]),
    ] {
        let public = key(dir.path(), name, kind);
        std::fs::write(dir.path().join("m"), b"{\"a\":1}").unwrap();
        assert!(keygen(
            &[
                "-q",
                "-Y",
                "sign",
                "-f",
                name,
                "-n",
                "ascribe.request.v1",
                "m"
            ],
            dir.path(),
            None
        ));
        let sig = dearmour(&std::fs::read_to_string(dir.path().join("m.sig")).unwrap()).unwrap();
        std::fs::remove_file(dir.path().join("m.sig")).unwrap();
        let judge = SshSignatures;
        assert_eq!(
            judge.sshsig("ascribe.request.v1", b"{\"a\":1}", &sig),
            Some(public.clone())
        );
        assert_eq!(
            judge.sshsig("ascribe.approval.v1", b"{\"a\":1}", &sig),
            None
        );
        assert_eq!(judge.sshsig("ascribe.request.v1", b"{\"a\":2}", &sig), None);
        for i in 0..sig.len() {
            let mut bad = sig.clone();
            bad[i] ^= 1;
            assert_eq!(
                judge.sshsig("ascribe.request.v1", b"{\"a\":1}", &bad),
                None,
                "byte {i}"
            );
            assert_eq!(
                judge.sshsig("ascribe.request.v1", b"{\"a\":1}", &sig[..i]),
                None,
                "cut {i}"
            );
        }
        let mut long = sig.clone();
        long.push(0);
        assert_eq!(
            judge.sshsig("ascribe.request.v1", b"{\"a\":1}", &long),
            None
        );
        // And back: our armour is what stock ssh-keygen verifies.
        let signed = Signed {
            text: "{\"a\":1}".into(),
            sig: ascribe_core::encoding::Bytes(sig),
        };
        std::fs::write(dir.path().join("m.sig"), signed.armoured()).unwrap();
        std::fs::write(dir.path().join("allowed"), format!("p {}\n", public.0)).unwrap();
        let args = [
            "-Y",
            "verify",
            "-f",
            "allowed",
            "-I",
            "p",
            "-n",
            "ascribe.request.v1",
            "-s",
            "m.sig",
        ];
        assert!(keygen(&args, dir.path(), Some(&dir.path().join("m"))));
        std::fs::remove_file(dir.path().join("m.sig")).unwrap();
    }
}

#[test]
fn other_keys_are_not_accepted() {
    let dir = tempfile::tempdir().unwrap();
    assert!(keygen(
        &["-q", "-N", "", "-t", "ecdsa", "-b", "384", "-f", "k"],
        dir.path(),
        None
    ));
    let line = std::fs::read_to_string(dir.path().join("k.pub")).unwrap();
    assert!(matches!(
        parse_public_key(&line),
        Err(EvidenceError::KeyType(_))
    ));
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "restrict ssh-ed25519 AAAA",
        "-----BEGIN",
    ] {
        assert!(parse_public_key(bad).is_err(), "{bad}");
    }
    for bad in ["", "-----BEGIN SSH SIGNATURE-----\n", "x"] {
        assert!(dearmour(bad).is_err());
    }
}

/// A security key made of software: what it signs is as OpenSSH's `PROTOCOL.u2f` has it.
struct Token {
    kind: Algorithm,
    secret: ssh_key::PrivateKey,
}

const APPLICATION: &str = "ssh:ascribe";

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}

fn raw_signature(key: &impl ssh_key::SigningKey, message: &[u8]) -> ssh_key::Signature {
    key.try_sign(message).unwrap()
}

impl Token {
    /// Of both types.
    fn both(dir: &Path) -> [Self; 2] {
        [
            (Algorithm::SkEd25519, "ed", &["-t", "ed25519"][..]),
            (
                Algorithm::SkEcdsaSha2NistP256,
                "ec",
                &["-t", "ecdsa", "-b", "256"][..],
            ),
        ]
        .map(|(kind, name, of)| {
            key(dir, name, of);
            let secret = ssh_key::PrivateKey::read_openssh_file(dir.join(name).as_path()).unwrap();
            Self { kind, secret }
        })
    }
    fn public(&self) -> SshKey {
        let plain = self.secret.public_key().to_bytes().unwrap();
        // Past the type's name; then the key's own fields, and the application's name.
        let name = self.secret.algorithm().as_str().len();
        let kind = self.kind.as_str();
        let mut blob = strings(&[kind.as_bytes()]);
        blob.extend(&plain[4 + name..]);
        blob.extend(strings(&[APPLICATION.as_bytes()]));
        SshKey(format!(
            "{kind} {}",
            ascribe_core::encoding::base64_std(&blob)
        ))
    }
    fn sign(&self, namespace: &str, message: &[u8], flags: u8) -> Vec<u8> {
        use ssh_key::HashAlg;
        use ssh_key::public::KeyData;
        let data = SshSig::signed_data(namespace, HashAlg::Sha512, message).unwrap();
        let ending = [flags, 0, 0, 0, 9];
        let signed = [
            sha256(APPLICATION.as_bytes()),
            ending.to_vec(),
            sha256(&data),
        ]
        .concat();
        let plain = raw_signature(&self.secret, &signed);
        let raw = [plain.as_bytes(), &ending].concat();
        let signature = ssh_key::Signature::new(self.kind.clone(), raw).unwrap();
        let public = PublicKey::from_openssh(&self.public().0).unwrap();
        let public: KeyData = public.key_data().clone();
        let sig = SshSig::new(public, namespace, HashAlg::Sha512, signature).unwrap();
        dearmour(&sig.to_pem(LineEnding::LF).unwrap()).unwrap()
    }
}

#[test]
fn a_security_key_signs_only_when_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (space, text) = ("ascribe.approval.v1", b"{\"a\":1}");
    for token in Token::both(dir.path()) {
        let public = parse_public_key(&token.public().0).unwrap();
        assert_eq!(public, token.public());
        assert!(public.is_security_key());
        let judge = SshSignatures;
        // User presence, alone and with user verification (4).
        for flags in [1, 5] {
            let sig = token.sign(space, text, flags);
            assert_eq!(judge.sshsig(space, text, &sig), Some(public.clone()));
            for at in 0..sig.len() {
                let mut bad = sig.clone();
                bad[at] ^= 1;
                assert_eq!(judge.sshsig(space, text, &bad), None, "byte {at}");
            }
        }
        for flags in [0, 4, 0xfe] {
            let sig = token.sign(space, text, flags);
            assert_eq!(judge.sshsig(space, text, &sig), None, "flags {flags}");
        }
        // OpenSSH knows the form. It looks at no flag here: that is for whoever asks it.
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("m"), text).unwrap();
        std::fs::write(path("signers"), format!("someone {}\n", public.0)).unwrap();
        let sig = Signed {
            text: String::new(),
            sig: ascribe_core::encoding::Bytes(token.sign(space, text, 1)),
        };
        std::fs::write(path("m.sig"), sig.armoured()).unwrap();
        let args = [
            "-Y", "verify", "-f", "signers", "-I", "someone", "-n", space,
        ];
        let args = [&args[..], &["-s", "m.sig"]].concat();
        assert!(keygen(&args, dir.path(), Some(&path("m"))));
        for name in ["m", "m.sig", "signers"] {
            std::fs::remove_file(path(name)).unwrap();
        }
    }
}
