//! User certificates by an outside authority, made by `ssh-keygen` as a company's own would be. The
//! certified key is nobody's: without its certificate it opens nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::entry::{Body, CloseReason, SessionOpen};
use ascribe_core::statement::{Authority, Mapping, RevokedCertificates, Serial};
use russh::keys::{Certificate, HashAlg, PrivateKey};

use super::people::OPERATOR;
use super::raw::Raw;
use super::world::{Client, Setup, World, fed, keygen, public, until};

const LONG: &str = "echo running; exec sleep 120";
/// What the authority's good certificates have.
const GOOD: &[&str] = &["-n", "staff,olu", "-V", "-5m:+1h", "-z", "7"];

fn authority(w: &World) -> Authority {
    let key = PrivateKey::read_openssh_file(w.path("corp")).unwrap();
    Authority {
        keys: vec![public(&key)],
        name: "corp".into(),
        people: vec![Mapping {
            person: OPERATOR,
            principal: "olu".into(),
        }],
        revoked: RevokedCertificates::default(),
    }
}

async fn set(w: &World, edit: impl FnOnce(&mut Authority)) {
    let mut authority = authority(w);
    edit(&mut authority);
    w.people.ca_set(&w.door.ledger, authority).await;
}

/// A world with the authority `corp`; `mallory` is another one that nobody registered.
async fn world(setup: Setup) -> World {
    let w = World::with(setup).await;
    for name in ["corp", "mallory"] {
        keygen(&w.path(name));
    }
    set(&w, |_| ()).await;
    w
}

/// Where the certificate is that a key of that name shows.
fn file(w: &World, name: &str) -> PathBuf {
    w.path(&format!("{name}-cert.pub"))
}

/// A key with a certificate beside it, where a stock client finds it.
pub(super) fn certify(w: &World, ca: &str, name: &str, options: &[&str]) -> PrivateKey {
    let key = keygen(&w.path(name));
    sign(w, ca, name, options);
    key
}

pub(super) fn sign(w: &World, ca: &str, name: &str, options: &[&str]) {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-I", "olu laptop", "-s"])
        .arg(w.path(ca))
        .args(options)
        .arg(w.path(&format!("{name}.pub")))
        .status()
        .unwrap();
    assert!(made.success());
}

pub(super) fn read(w: &World, name: &str) -> Certificate {
    let text = std::fs::read_to_string(file(w, name)).unwrap();
    Certificate::from_openssh(&text).unwrap()
}

/// Does a client that sends whatever it has get in?
async fn gets_in(w: &World, key: &PrivateKey, certificate: Certificate) -> bool {
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", w.port);
    let mut handle = russh::client::connect(config, address, Raw).await.unwrap();
    let login = format!("{}@db1", w.account);
    let key = Arc::new(key.clone());
    let result = handle.authenticate_openssh_cert(login, key, certificate);
    result.await.unwrap().success()
}

fn start(w: &World, name: &str, command: &str) -> Client {
    w.start_at(w.port, &w.login(), name, &[], command)
}

async fn running(w: &World, name: &str) -> Client {
    let client = start(w, name, LONG);
    until("running command", || {
        client.stdout().contains("running").then_some(())
    })
    .await;
    client
}

fn opened(w: &World) -> Vec<SessionOpen> {
    w.found(|body| match body {
        Body::SessionOpen(open) => Some(open),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_registered_authority_is_its_principals_person() {
    let w = world(Setup::default()).await;
    let key = certify(&w, "corp", "laptop", GOOD);
    let out = fed(start(&w, "laptop", "echo in"), b"").await.exits(0);
    assert_eq!(out.text(), "in\n");
    let open = opened(&w).remove(0);
    assert_eq!(open.person, OPERATOR);
    assert_eq!(open.key, key.fingerprint(HashAlg::Sha256).to_string());
    let named = open.certificate.unwrap();
    assert_eq!(named.ca, authority(&w).keys[0].fingerprint());
    assert_eq!(
        (named.ca_name, named.key_id, named.principal, named.serial),
        ("corp".into(), "olu laptop".into(), "olu".into(), Serial(7))
    );
    let end = i64::try_from(read(&w, "laptop").valid_before()).unwrap() * 1000;
    assert_eq!(named.not_after.unwrap().millis(), end);
    // The key alone is nobody's, and an enrolled one goes on without any certificate.
    std::fs::remove_file(file(&w, "laptop")).unwrap();
    let alone = fed(start(&w, "laptop", "id"), b"").await.exits(255);
    alone.says("Permission denied");
    w.ssh(&[], "true", b"").await.exits(0);
    assert_eq!(opened(&w)[1].certificate, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_good_in_every_point_is_refused() {
    let w = world(Setup::default()).await;
    set(&w, |ca| {
        ca.revoked.serials = vec![Serial(u64::MAX)];
        ca.revoked.key_ids = vec!["stolen laptop".into()];
    })
    .await;
    let with = |more: &[&'static str]| [GOOD, more].concat();
    let most = u64::MAX.to_string();
    let bad: Vec<(&str, &str, Vec<&str>)> = vec![
        ("wrong authority", "mallory", GOOD.to_vec()),
        ("the person's own key as authority", "client", GOOD.to_vec()),
        ("host certificate", "corp", with(&["-h"])),
        ("expired", "corp", vec!["-n", "olu", "-V", "-2h:-1h"]),
        ("not yet valid", "corp", vec!["-n", "olu", "-V", "+1h:+2h"]),
        ("no principals", "corp", vec!["-V", "-5m:+1h"]),
        (
            "unmapped principal",
            "corp",
            vec!["-n", "staff,OLU", "-V", "-5m:+1h"],
        ),
        (
            "unknown option",
            "corp",
            with(&["-O", "critical:x@example.org=1"]),
        ),
        ("forced command", "corp", with(&["-O", "force-command=id"])),
        ("verification", "corp", with(&["-O", "verify-required"])),
        (
            "elsewhere",
            "corp",
            with(&["-O", "source-address=192.0.2.0/24,::/0"]),
        ),
        (
            "revoked serial",
            "corp",
            vec!["-n", "olu", "-V", "-5m:+1h", "-z", &most],
        ),
        ("revoked key id", "corp", with(&["-I", "stolen laptop"])),
    ];
    for (nth, (what, ca, options)) in bad.iter().enumerate() {
        let name = format!("bad{nth}");
        let key = certify(&w, ca, &name, options);
        let out = fed(start(&w, &name, "id"), b"").await;
        assert_eq!(out.code, Some(255), "{what}: {}", out.stderr);
        assert!(!gets_in(&w, &key, read(&w, &name)).await, "{what}");
    }
    assert!(opened(&w).is_empty());
    // What is refused is not refused because everything is.
    let good = [
        GOOD.to_vec(),
        with(&["-O", "source-address=127.0.0.0/8"]),
        with(&["-O", "no-pty"]),
        vec!["-n", "olu", "-V", "always:forever"],
    ];
    for (nth, options) in good.iter().enumerate() {
        let name = format!("good{nth}");
        let key = certify(&w, "corp", &name, options);
        fed(start(&w, &name, "true"), b"").await.exits(0);
        assert!(gets_in(&w, &key, read(&w, &name)).await, "{options:?}");
    }
    assert_eq!(opened(&w).len(), good.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_serves_only_whoever_holds_its_key_and_as_it_was_signed() {
    let w = world(Setup::default()).await;
    let key = certify(&w, "corp", "laptop", GOOD);
    let stranger = PrivateKey::read_openssh_file(w.path("stranger")).unwrap();
    let certificate = read(&w, "laptop");
    assert!(gets_in(&w, &key, certificate.clone()).await);
    assert!(!gets_in(&w, &stranger, certificate).await);
    // The same bytes with another principal.
    let key = certify(&w, "corp", "changed", &["-n", "ulo", "-V", "-5m:+1h"]);
    let mut bytes = read(&w, "changed").to_bytes().unwrap();
    let at = bytes.windows(3).position(|w| w == b"ulo").unwrap();
    bytes[at..at + 3].copy_from_slice(b"olu");
    let changed = Certificate::from_bytes(&bytes).unwrap();
    assert_eq!(changed.valid_principals(), ["olu"]);
    assert!(!gets_in(&w, &key, changed).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_clock_decides_whether_a_certificate_is_valid() {
    let behind = Duration::from_secs(900);
    let w = world(Setup {
        behind,
        ..Setup::default()
    })
    .await;
    // Valid by the machine's clock, which is all that the library looks at.
    let early = certify(&w, "corp", "early", GOOD);
    assert!(!gets_in(&w, &early, read(&w, "early")).await);
    let hour = certify(&w, "corp", "hour", &["-n", "olu", "-V", "-1h:+1h"]);
    assert!(gets_in(&w, &hour, read(&w, "hour")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_certificate() {
    let w = world(Setup::default()).await;
    certify(&w, "corp", "laptop", &["-n", "olu", "-V", "-5m:+10s"]);
    let client = running(&w, "laptop").await;
    let out = client.end().await.exits(255);
    out.says("the grant or the certificate has ended");
    assert_eq!(w.closed(0).await.reason, CloseReason::Expired);
    fed(start(&w, "laptop", "id"), b"").await.exits(255);
    // The grant goes on.
    w.ssh(&[], "true", b"").await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_ends_the_sessions_that_rest_on_it_alone() {
    let ends: [fn(&mut Authority); 4] = [
        |ca| (ca.keys, ca.people) = (vec![], vec![]),
        |ca| ca.people.clear(),
        |ca| ca.revoked.serials = vec![Serial(7)],
        |ca| ca.revoked.key_ids = vec!["olu laptop".into()],
    ];
    // What is revoked stays so: after that there is no way back.
    for ends in [&ends[..2], &ends[2..3], &ends[3..]] {
        let w = world(Setup::default()).await;
        certify(&w, "corp", "laptop", GOOD);
        let own = w.start(&[], LONG);
        until("running command", || {
            own.stdout().contains("running").then_some(())
        })
        .await;
        for (nth, end) in ends.iter().enumerate() {
            let client = running(&w, "laptop").await;
            set(&w, *end).await;
            let out = client.end().await.exits(255);
            out.says("the grant or the certificate was revoked");
            assert_eq!(w.closed(nth).await.reason, CloseReason::Revoked);
            let again = fed(start(&w, "laptop", "id"), b"").await.exits(255);
            again.says("Permission denied");
            if nth + 1 < ends.len() {
                set(&w, |_| ()).await;
            }
        }
        // The person's own key does not rest on it.
        drop(own);
        assert_eq!(w.closed(ends.len()).await.reason, CloseReason::Disconnected);
    }
}
