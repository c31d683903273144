//! What a stranger may do: little, for a short time, without learning anything.

use std::time::Duration;

use ascribe_core::entry::{Body, CloseReason};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::world::{PATIENCE, Setup, World, fed, ticket};

async fn connect(w: &World) -> TcpStream {
    TcpStream::connect(("127.0.0.1", w.port)).await.unwrap()
}

/// Reads until the gateway hangs up; fails when it does not.
async fn until_closed(mut socket: TcpStream) {
    let read = async {
        let mut sink = [0; 4096];
        while matches!(socket.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    let closed = tokio::time::timeout(PATIENCE, read).await;
    closed.expect("the gateway does not hang up");
}

/// A binary packet before encryption.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut out = length.to_be_bytes().to_vec();
    out.push(u8::try_from(padding).unwrap());
    out.extend_from_slice(payload);
    out.extend(vec![0; padding]);
    out
}

/// Sends well-formed messages that are to be ignored; the write fails once the gateway has had enough.
async fn flooding(mut socket: TcpStream) {
    let mut ignored = vec![2, 0, 0, 0x10, 0];
    ignored.extend(vec![0; 0x1000]);
    let ignored = packet(&ignored);
    let flooding = async { while socket.write_all(&ignored).await.is_ok() {} };
    let flooded = tokio::time::timeout(PATIENCE, flooding).await;
    flooded.expect("the gateway takes any number of bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_flooding_strangers_are_cut_off_and_others_are_served() {
    let w = World::with(Setup {
        pre_auth: Duration::from_secs(5),
        ..Setup::default()
    })
    .await;
    let silent = connect(&w).await;
    let mut half = connect(&w).await;
    half.write_all(b"SSH-2.0-half\r\n").await.unwrap();
    let mut huge = connect(&w).await;
    // A packet that claims to be 1 GiB long.
    huge.write_all(b"SSH-2.0-huge\r\n\x40\x00\x00\x00")
        .await
        .unwrap();
    let mut flood = connect(&w).await;
    flood.write_all(b"SSH-2.0-flood\r\n").await.unwrap();
    let flood = tokio::spawn(flooding(flood));
    let out = w.ssh(&[], "echo served", b"").await.exits(0);
    assert_eq!(out.text(), "served\n");
    flood.await.unwrap();
    for socket in [silent, half, huge] {
        until_closed(socket).await;
    }
    let refusals = w.refusals();
    assert!(refusals.is_empty(), "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_sends_too_much_is_cut_off() {
    let w = World::with(Setup {
        pre_auth: PATIENCE * 10,
        ..Setup::default()
    })
    .await;
    let mut flood = connect(&w).await;
    flood.write_all(b"SSH-2.0-flood\r\n").await.unwrap();
    flooding(flood).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_of_one_address_wait_and_are_served_in_full() {
    let w = World::with(Setup {
        connections: 1,
        pre_auth: Duration::from_secs(4),
        ..Setup::default()
    })
    .await;
    // Each of the two has the only place for as long as a silent stranger may.
    let (one, two) = (connect(&w).await, connect(&w).await);
    let waiting = w.start(&[], "echo served");
    let out = fed(waiting, b"").await.exits(0);
    assert_eq!(out.text(), "served\n");
    for mut socket in [one, two] {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::ZERO, socket.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "a place was given away twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_before_login_does_not_limit_a_session() {
    let w = World::with(Setup {
        pre_auth: Duration::from_secs(3),
        ..Setup::default()
    })
    .await;
    let out = w.ssh(&[], "sleep 6; echo done", b"").await.exits(0);
    assert_eq!(out.text(), "done\n");
    assert_eq!(w.closed(0).await.reason, CloseReason::Disconnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_a_banner_that_says_nothing_about_us() {
    let w = World::new().await;
    let stranger = w.start_at(w.port, &w.login(), "stranger", &[], "id");
    let out = fed(stranger, b"").await.exits(255);
    let lines: Vec<&str> = out
        .stderr
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.starts_with("Warning: Permanently"))
        .collect();
    let login = w.login();
    assert_eq!(
        lines,
        [
            "This system is for authorised use. Sessions are recorded.",
            &format!("{login}: Permission denied (publickey)."),
        ]
    );
    // A known key with a name that is none is refused in the same words.
    let at = format!("{}@@127.0.0.1", w.account);
    let nowhere = w.start_at(w.port, &at, "client", &[], "id");
    let out = fed(nowhere, b"").await.exits(255);
    out.says("Permission denied (publickey).");
    assert!(
        w.found(|b| matches!(b, Body::SessionOpen(_)).then_some(()))
            .is_empty()
    );
}

/// libssh's rule: the name anywhere in the line, and behind it a version of two numbers.
#[tokio::test(flavor = "multi_thread")]
async fn clients_learn_from_the_version_line_in_which_order_a_links_paths_go() {
    let w = World::new().await;
    let mut socket = BufReader::new(connect(&w).await);
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_line(&mut line));
    read.await.unwrap().unwrap();
    let (name, comment) = line.trim_end().split_once(' ').unwrap();
    assert_eq!(name, "SSH-2.0-ascribe");
    let (major, minor) = comment
        .strip_prefix("OpenSSH_")
        .and_then(|version| version.split_once('.'))
        .unwrap();
    assert!(major.parse::<u8>().is_ok() && minor.parse::<u8>().is_ok());
    // A stock client makes nothing of it: it has no bugs of that version to go around.
    let out = w.ssh(&["-v"], "true", b"").await.exits(0);
    out.says("no match: ascribe OpenSSH_");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_told_what_is_recorded_and_a_command_is_not() {
    let w = World::new().await;
    let grant = w.grant.unwrap();
    let end = w
        .door
        .ledger
        .with_state(|state| state.grants[&grant].grant.not_after);
    let notice = format!(
        "ascribe: this session is recorded; grant {grant}, ticket demo:OPS-42, until {end}"
    );
    let out = w.ssh(&["-tt"], "true", b"").await.exits(0);
    assert!(!out.text().contains("ascribe"), "{}", out.text());
    out.says(&notice);
    let out = w.ssh(&["-T"], "true", b"").await.exits(0);
    assert!(!out.stderr.contains("ascribe"), "{}", out.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_under_broken_glass_is_marked() {
    let w = World::with(Setup {
        grant: None,
        ..Setup::default()
    })
    .await;
    let ledger = &w.door.ledger;
    w.people.break_glass(ledger, &w.account, ticket()).await;
    let (grant, end) = ledger.with_state(|state| {
        let (id, grant) = state.grants.iter().next().unwrap();
        (*id, grant.grant.not_after)
    });
    let out = w.ssh(&["-tt"], "true", b"").await.exits(0);
    out.says(&format!(
        "ascribe: this session is recorded; grant {grant}, ticket demo:OPS-42, until {end}, \
         BREAK-GLASS\r\n"
    ));
}

/// The name lists of a KEXINIT: key exchange and ciphers of both directions.
pub(super) fn offers(kexinit: &[u8]) -> [Vec<String>; 3] {
    // Length, padding length, message 20, cookie.
    assert_eq!(kexinit[5], 20, "no KEXINIT");
    let mut rest = &kexinit[22..];
    let mut lists = Vec::new();
    for _ in 0..4 {
        let (length, tail) = rest.split_first_chunk::<4>().unwrap();
        let (list, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        let names = std::str::from_utf8(list).unwrap().split(',');
        lists.push(names.map(ToOwned::to_owned).collect::<Vec<_>>());
        rest = tail;
    }
    [lists.remove(0), lists.remove(1), lists.remove(1)]
}

/// What the other side says first: its version, then one packet.
pub(super) async fn first_packet(socket: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(socket.read_u8().await.unwrap());
        }
        assert!(line.starts_with(b"SSH-2.0-"), "{line:?}");
        let length = socket.read_u32().await.unwrap();
        let mut packet = length.to_be_bytes().to_vec();
        packet.resize(4 + length as usize, 0);
        socket.read_exact(&mut packet[4..]).await.unwrap();
        packet
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_offered_strict_key_exchange_and_ciphers_that_do_not_need_it() {
    let w = World::new().await;
    let mut socket = connect(&w).await;
    socket.write_all(b"SSH-2.0-reader\r\n").await.unwrap();
    let [kex, to_us, from_us] = offers(&first_packet(&mut socket).await);
    assert!(kex.contains(&"kex-strict-s-v00@openssh.com".to_owned()));
    for ciphers in [to_us, from_us] {
        assert_eq!(
            ciphers,
            ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com"]
        );
    }
    let out = w.ssh(&["-vvv"], "true", b"").await.exits(0);
    out.says("will use strict KEX ordering");
    let chacha = ["-o", "Ciphers=chacha20-poly1305@openssh.com"];
    let out = w.ssh(&chacha, "true", b"").await.exits(255);
    out.says("no matching cipher found");
}
