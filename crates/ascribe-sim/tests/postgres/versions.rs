//! Which version of the protocol is spoken, with clients and with targets: the newest that both know, whatever the other side
//! speaks.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::bank::{Bank, PASSWORD, done, unprivileged};
use super::drivers::server;
use super::raw::{Raw, kinds, message};
use super::world::{PATIENCE, Running, maybe, wait_for};

/// First packets of versions 3.0 and 3.2, and of a request to cancel (PostgreSQL manual, 54.7).
const OLD: [u8; 4] = [0, 3, 0, 0];
const NEW: [u8; 4] = [0, 3, 0, 2];
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// What a target of the tests answers to who asks for 3.2. Whoever asks for less is let in.
#[derive(Clone)]
struct Answer {
    /// First of all.
    says: Vec<u8>,
    /// Or closes the connection then.
    lets_in: bool,
    key: &'static [u8],
}

impl Answer {
    fn says(says: Vec<u8>, lets_in: bool) -> Self {
        let key = &[1, 2, 3, 4];
        Self { says, lets_in, key }
    }
}

/// NegotiateProtocolVersion.
fn agrees(body: &[u8]) -> Vec<u8> {
    message(b'v', body)
}

fn refuses(code: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0");
    message(b'E', fields.as_bytes())
}

/// The first packet, without its length.
fn packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut rest).ok()?;
    Some(rest)
}

fn serve(mut stream: TcpStream, answer: &Answer, came: &Sender<Vec<u8>>) {
    let Some(first) = packet(&mut stream) else {
        return;
    };
    let asks_new = first.starts_with(&NEW);
    came.send(first).unwrap();
    if asks_new {
        stream.write_all(&answer.says).unwrap_or_default();
        if !answer.lets_in {
            return;
        }
    }
    let said = [
        message(b'R', &[0; 4]),
        message(b'S', b"client_encoding\0UTF8\0"),
        message(b'S', b"standard_conforming_strings\0on\0"),
        message(b'K', &[&[0, 0, 0, 7], answer.key].concat()),
        message(b'Z', b"I"),
    ];
    stream.write_all(&said.concat()).unwrap_or_default();
    while stream.read(&mut [0; 4096]).unwrap_or_default() > 0 {}
}

/// A target at this port, and the first packets that came to it.
fn target(answer: Answer) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, packets) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (came, answer) = (came.clone(), answer.clone());
            std::thread::spawn(move || serve(stream, &answer, &came));
        }
    });
    (port, packets)
}

/// libpq 19 asks for a version and an option that there are not, and goes if it is not told so.
#[test]
fn a_client_is_told_which_version_is_spoken_and_what_of_its_options_is_not_known() {
    let bank = Bank::open();
    let (_tunnel, port) = bank.tunnel();
    let option = "_pq_.test_protocol_negotiation";
    for (minor, options, told, key) in [
        (0, &[][..], None, 4),
        (1, &[], Some(b"\0\x03\0\0\0\0\0\0".to_vec()), 4),
        (2, &[], None, 32),
        (
            9999,
            &[(option, "")],
            Some([b"\0\x03\0\x02\0\0\0\x01", option.as_bytes(), b"\0"].concat()),
            32,
        ),
    ] {
        let mut raw = Raw::open(port);
        raw.begin_with(minor, options);
        let said = raw.until(b'Z');
        let negotiated = said.first().filter(|first| first.kind == b'v');
        assert_eq!(negotiated.map(|first| first.body.clone()), told, "{minor}");
        let keys = said.iter().filter(|said| said.kind == b'K');
        let keys: Vec<usize> = keys.map(|said| said.body.len() - 4).collect();
        assert_eq!(keys, [key], "{minor}");
        raw.say(&super::raw::query("select 6 * 7"));
        assert_eq!(kinds(&raw.until(b'Z')), "TDCZ", "{minor}");
    }
}

#[test]
fn a_target_is_asked_for_the_newest_version_and_agrees_to_an_older_one_or_refuses() {
    let old = b"\0\x03\0\0\0\0\0\0";
    let in_vain = |says| (Answer::says(says, false), &[NEW, OLD][..], true);
    let turned_away = |says| (Answer::says(says, false), &[NEW][..], false);
    let lets_in = |says, so: bool| (Answer::says(says, true), &[NEW][..], so);
    let bank = Bank::open();
    for (answer, asked, let_in) in [
        lets_in(Vec::new(), true),
        lets_in(agrees(old), true),
        // Poolers have said it twice.
        lets_in([agrees(old), agrees(old)].concat(), true),
        // Poolers have one code for all that they do not take, servers another for this; some close, some
        // answer in the form of the protocol before this one.
        in_vain(refuses("08P01")),
        in_vain(refuses("0A000")),
        in_vain(Vec::new()),
        in_vain(b"Econnection refused\0".to_vec()),
        // It lets nobody in for another reason, or after it has understood the version.
        turned_away(refuses("57P03")),
        turned_away([agrees(old), refuses("0A000")].concat()),
        turned_away([message(b'R', &[0; 4]), refuses("0A000")].concat()),
        turned_away(message(b'R', &[0; 4])),
        // Nobody asked for 3.3, for 2.0 or for an option, 3.1 was never used, 3.2 needs no agreement, and there is one.
        lets_in(agrees(b"\0\x03\0\x03\0\0\0\0"), false),
        lets_in(agrees(b"\0\x02\0\0\0\0\0\0"), false),
        lets_in(agrees(b"\0\x03\0\0\0\0\0\x01_pq_.x\0"), false),
        lets_in(agrees(b"\0\x03\0\x01\0\0\0\0"), false),
        lets_in(agrees(b"\0\x03\0\x02\0\0\0\0"), false),
        lets_in([message(b'R', &[0; 4]), agrees(old)].concat(), false),
    ] {
        let shown = String::from_utf8_lossy(&answer.says).into_owned();
        let (port, packets) = target(answer);
        bank.register_bare(port);
        let (_tunnel, port) = bank.tunnel();
        let mut raw = Raw::begun(port, &[]);
        let said = match let_in {
            true => kinds(&raw.until(b'Z')),
            false => kinds(&raw.rest()),
        };
        assert_eq!(said.ends_with('Z'), let_in, "{shown:?}: {said}");
        for version in asked {
            let packet = packets.recv_timeout(PATIENCE).unwrap();
            assert!(packet.starts_with(version), "{shown:?}: {packet:?}");
        }
        assert!(packets.try_recv().is_err(), "{shown:?}: it was asked again");
    }
}

#[test]
fn a_statement_is_cancelled_with_the_whole_of_a_targets_key() {
    const KEY: [u8; 256] = [0xa5; 256];
    let (port, packets) = target(Answer {
        key: &KEY,
        ..Answer::says(Vec::new(), true)
    });
    let bank = Bank::open();
    bank.register_bare(port);
    let (_tunnel, port) = bank.tunnel();
    let mut raw = Raw::ready(port);
    raw.say(&super::raw::query("select 'never answered'"));
    assert!(packets.recv_timeout(PATIENCE).unwrap().starts_with(&NEW));
    wait_for("intent", PATIENCE, || {
        let asked =
            |action: &serde_json::Value| action["what"]["command"] == "select 'never answered'";
        bank.actions().iter().any(asked).then_some(())
    });
    drop(raw);
    let packet = packets.recv_timeout(PATIENCE).unwrap();
    assert_eq!(packet, [&CANCEL[..], &[0, 0, 0, 7], &KEY].concat());
}

/// A server of version 18 has longer keys for who speaks 3.2.
#[test]
fn ctrl_c_reaches_a_server_of_version_18() {
    let Some(server) = server(18) else { return };
    super::statements::is_cancelled_on_record(&Bank::on(&server));
}

/// Debian's pooler does not negotiate: it takes a newer version for no startup packet at all.
#[test]
fn a_pooler_may_be_the_target() {
    let found = maybe("pgbouncer").or_else(|| {
        let kept = PathBuf::from("/usr/sbin/pgbouncer");
        kept.is_file().then_some(kept)
    });
    let Some(pgbouncer) = found else {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no pooler: apt-get install pgbouncer\n"),
        )
        .unwrap();
        return;
    };
    let bank = Bank::open();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let dir = tempfile::TempDir::new().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, format!("\"dba\" \"{PASSWORD}\"\n")).unwrap();
    let settings = dir.path().join("pgbouncer.ini");
    std::fs::write(
        &settings,
        format!(
            "[databases]\norders = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
             pool_mode = session\nignore_startup_parameters = extra_float_digits\n",
            bank.cluster.port,
            users.display()
        ),
    )
    .unwrap();
    if rustix::process::getuid().is_root() {
        let chown = &mut std::process::Command::new("chown");
        done(chown.args(["-R", "postgres"]).arg(dir.path()));
    }
    let mut command = unprivileged(&pgbouncer);
    command.arg(&settings);
    let mut pooler = Running::start(command, &bank.world.path("logs"), true);
    wait_for("pooler", PATIENCE, || {
        assert!(pooler.ended().is_none(), "{}", pooler.stderr());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    bank.register_bare(port);
    let out = bank.psql(&["-A", "-t", "-c", "select 6 * 7"]).exits(0);
    assert_eq!(out.stdout, "42\n");
    assert_eq!(
        bank.action("select 6 * 7")["what"]["outcome"]["status"],
        "succeeded"
    );
    // What was tried in vain is on record, for whoever compares with the pooler's log.
    let actions = bank.actions();
    let connect = actions.iter().find(|a| a["what"]["kind"] == "pg.connect");
    let notes = connect.unwrap()["what"]["outcome"]["notes"].to_string();
    assert!(
        notes.contains("\"tried ") && notes.contains("\"port "),
        "{notes}"
    );
    assert!(pooler.ended().is_none(), "{}", pooler.stderr());
}
