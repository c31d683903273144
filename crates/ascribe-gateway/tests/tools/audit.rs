//! A public audit tool for SSH servers finds nothing to fault.

use tokio::process::Command;

use super::access::{have, run};
use super::world::World;

/// What versions of the tool say about names that are newer than they are, and about the one key
/// exchange that clients before OpenSSH 9.9 have in common with us.
const KNOWN: [(&str, &str); 4] = [
    ("mlkem768x25519-sha256", "unknown algorithm"),
    ("kex-strict-s-v00@openssh.com", "unknown algorithm"),
    ("curve25519-sha256", "post-quantum"),
    ("curve25519-sha256@libssh.org", "post-quantum"),
];

#[tokio::test(flavor = "multi_thread")]
async fn ssh_audit_finds_nothing_to_fault() {
    if !have("ssh-audit") {
        return;
    }
    let w = World::new().await;
    let mut audit = Command::new("ssh-audit");
    audit.args(["-n", "-p", &w.port.to_string(), "127.0.0.1"]);
    let text = run(&mut audit, b"").await.text();
    let mut subject = "";
    let mut offered = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("(kex)" | "(key)" | "(enc)" | "(mac)"), Some(name)) =
            (words.next(), words.next())
        {
            subject = name;
            offered.push(name);
        }
        let faulted =
            line.contains("[fail]") || line.contains("[warn]") || line.starts_with("(rec) -");
        let known = KNOWN
            .iter()
            .any(|(name, why)| *name == subject && line.contains(why));
        assert!(!faulted || known, "{line}\n{text}");
    }
    let wanted = [
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ext-info-s",
        "kex-strict-s-v00@openssh.com",
        "ssh-ed25519",
        "aes256-gcm@openssh.com",
        "aes128-gcm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256-etm@openssh.com",
    ];
    assert_eq!(offered, wanted, "{text}");
    assert!(text.contains("compression: disabled"), "{text}");
}
