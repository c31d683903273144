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
