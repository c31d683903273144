//! Somebody between a client that has logged in and the gateway, who changes what passes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use russh::ChannelMsg;

use super::client::{lengths_in_the_clear, log_in, run};
use super::kit::{demo_port, text};
use super::world::{PATIENCE, World, wait_for};

/// What becomes of the next bytes that the client sends.
type Change = fn(&[u8]) -> Vec<u8>;
type Next = Arc<Mutex<Option<Change>>>;

const CHANGES: [(&str, Change); 9] = [
    ("a flipped bit in the content", |bytes| flipped(bytes, 9)),
    ("a flipped bit in the checksum", |bytes| {
        flipped(bytes, bytes.len() - 1)
    }),
    ("a length of 2^32-1", |bytes| with_length(bytes, u32::MAX)),
    ("a length of 1 GiB", |bytes| with_length(bytes, 1 << 30)),
    ("a length of 0", |bytes| with_length(bytes, 0)),
    ("a length of 1", |bytes| with_length(bytes, 1)),
    ("twice the same", |bytes| bytes.repeat(2)),
    ("something in front", |bytes| [&[0; 64], bytes].concat()),
    ("half of it, and the end", |bytes| {
        bytes[..bytes.len() / 2].to_vec()
    }),
];

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at] ^= 1;
    out
}

fn with_length(bytes: &[u8], len: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[..4].copy_from_slice(&len.to_be_bytes());
    // What such a length promises never comes; this much does.
    out.resize(1 << 16, 0xa5);
    out
}

/// Passes one connection on. After a change it sends no more.
fn proxy(to: u16, next: &Next) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let next = Arc::clone(next);
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let gateway = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut from, mut back) = (gateway.try_clone().unwrap(), client.try_clone().unwrap());
        let down = std::thread::spawn(move || {
            // Either side may be gone.
            drop(std::io::copy(&mut from, &mut back));
            back.shutdown(Shutdown::Both).unwrap_or_default();
        });
        let (mut client, mut gateway) = (client, gateway);
        let mut buffer = vec![0; 1 << 16];
        while let Ok(got @ 1..) = client.read(&mut buffer) {
            let change = next.lock().unwrap().take();
            let bytes = change.map_or_else(|| buffer[..got].to_vec(), |c| c(&buffer[..got]));
            let sent = gateway.write_all(&bytes);
            // Where not all is passed on, the end follows; otherwise the gateway has to make one.
            if bytes.len() < got {
                gateway.shutdown(Shutdown::Write).unwrap();
            }
            if sent.is_err() || change.is_some() {
                break;
            }
        }
        down.join().unwrap();
    });
    port
}

#[test]
fn what_is_changed_on_the_wire_after_login_ends_the_session_and_reaches_no_target() {
    let mut world = World::new();
    for (n, (what, change)) in CHANGES.into_iter().enumerate() {
        let file = world.path(&format!("input-{n}"));
        let next = Next::default();
        let port = proxy(demo_port(&world), &next);
        run(async {
            let place = world.place();
            let ssh = log_in(&world, port, &place, lengths_in_the_clear());
            let ssh = ssh.await.unwrap();
            let mut channel = ssh.channel_open_session().await.unwrap();
            let command = format!("cat >'{}'", file.display());
            channel.exec(true, command.as_bytes()).await.unwrap();
            channel.data(&b"true\n"[..]).await.unwrap();
            wait_for("input", PATIENCE, || {
                let read = std::fs::read(&file).unwrap_or_default();
                (read == b"true\n").then_some(())
            });
            *next.lock().unwrap() = Some(change);
            channel.data(&b"false\n"[..]).await.unwrap_or_default();
            // The gateway ends it: nothing else does.
            while let Some(message) = channel.wait().await {
                assert!(
                    !matches!(message, ChannelMsg::ExitStatus { exit_status: 0 }),
                    "{what}"
                );
            }
        });
        let action = wait_for("record", PATIENCE, || {
            let actions = world.actions(&["--text", file.to_str().unwrap()]);
            let status = actions[0].pointer("/what/outcome/at").unwrap();
            (!status.is_null()).then(|| actions[0].clone())
        });
        let session = world.ended_session(text(&action, "/session_id"));
        assert_eq!(session["reason"], "disconnected", "{what}");
        let input = std::fs::read(&file).unwrap();
        // What came first and whole may pass, once.
        let once = what == "twice the same" && input == b"true\nfalse\n";
        assert!(once || input == b"true\n", "{what}: {input:?}");
    }
    world.ssh(&world.place(), "true").exits(0);
    world.stop();
    world.verify(&world.data(), &world.policy()).exits(0);
}
