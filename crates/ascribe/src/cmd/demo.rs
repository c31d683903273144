//! `ascribe demo`: everything on loopback, with a private unprivileged `sshd` as target, through
//! the ordinary path.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ascribe_core::id::PersonId;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{
    Answer, PersonAdd, Request, Role, Say, SshKey, Target, Ticket, TicketRule,
};
use ascribe_ledger::InitOptions;
use serde_json::json;

use super::init::{POLICY_FILE, USER_CA_KEY, first_admin, make, make_ssh_key};
use super::serve::{Running, Signals, runtime, start, until_stopped};
use super::{READER_FILE, ReaderKey, SERVER_FILE, prose, registry, remark};
use crate::cli::database::ServePostgres;
use crate::cli::{Cli, Demo};
use crate::client::{Client, new_person, random, read_json, write_json};
use crate::exit::{Attempt as _, Done, Failure};
use crate::signer::Signer;

const TARGET: &str = "demo-host";
/// What the demo's ssh_config calls the gateway.
const GATEWAY: &str = "ascribe-demo";

/// A directory that goes away with us unless it was asked for.
struct Place {
    base: PathBuf,
    data: PathBuf,
    temporary: bool,
}

impl Place {
    fn new(cli: &Cli) -> Done<Self> {
        if let Some(data) = &cli.data {
            let data = std::path::absolute(data).attempt("find the data directory")?;
            let name = data
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            let base = data.with_file_name(format!("{name}.demo"));
            if base.exists() {
                return Err(Failure::usage(format!("`{}` exists", base.display()))
                    .help("choose another `--data`"));
            }
            std::fs::create_dir_all(&base).attempt("make the demo's directory")?;
            return Ok(Self {
                base,
                data,
                temporary: false,
            });
        }
        let suffix = ascribe_core::encoding::base64url(&random::<9>()?);
        let base = std::env::temp_dir().join(format!("ascribe-demo-{suffix}"));
        std::fs::create_dir(&base).attempt("make a temporary directory")?;
        private(&base)?;
        let data = base.join("data");
        Ok(Self {
            base,
            data,
            temporary: true,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            std::fs::remove_dir_all(&self.base).unwrap_or_default();
        }
    }
}

fn private(dir: &Path) -> Done {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .attempt("protect the demo's directory")
}

/// The private sshd; ended with us.
struct Sshd {
    child: Child,
    port: u16,
    host_key: SshKey,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn find_sshd() -> Done<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join("sshd"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Failure::usage("the demo's target is an OpenSSH server, and there is none")
                .help("install it: apt-get install openssh-server")
        })
}

/// The name of the invoking user.
fn account() -> Done<String> {
    let out = Command::new("id")
        .arg("-un")
        .output()
        .attempt("ask for the user's name")?;
    let name = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if name.is_empty() {
        Err(Failure::usage("the invoking user has no name"))
    } else {
        Ok(name)
    }
}

fn free_port() -> Done<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").attempt("find a free port")?;
    Ok(listener.local_addr().attempt("find a free port")?.port())
}

fn start_sshd(base: &Path, user_ca: &str, account: &str) -> Done<Sshd> {
    let program = find_sshd()?;
    let host_file = base.join("sshd_host_key");
    let line = make_ssh_key(&host_file, "demo target")?;
    let host_key = ascribe_evidence::parse_public_key(&line).attempt("read the target's key")?;
    let shown = base.display();
    std::fs::write(base.join("user_ca.pub"), format!("{user_ca}\n"))
        .attempt("write the user CA")?;
    std::fs::create_dir_all(base.join("principals")).attempt("write the principals")?;
    std::fs::write(
        base.join("principals").join(account),
        format!("{account}\n"),
    )
    .attempt("write the principals")?;
    let port = free_port()?;
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {shown}/sshd_host_key\nPidFile none\nUsePAM no\n\
         StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         AuthorizedKeysFile none\nTrustedUserCAKeys {shown}/user_ca.pub\n\
         AuthorizedPrincipalsFile {shown}/principals/%u\nPermitRootLogin prohibit-password\n\
         Subsystem sftp internal-sftp\nAcceptEnv LANG LC_*\nPrintMotd no\nMaxStartups 200\nMaxSessions 200\n"
    );
    let config_file = base.join("sshd_config");
    std::fs::write(&config_file, config).attempt("write sshd_config")?;
    if rustix::process::geteuid().is_root() {
        // sshd run by root insists on its privilege-separation directory.
        std::fs::create_dir_all("/run/sshd").attempt("make /run/sshd for sshd")?;
    }
    let log = std::fs::File::create(base.join("sshd.log")).attempt("write sshd's log")?;
    let mut child = Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(&config_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .attempt("start sshd")?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = child.try_wait().attempt("watch sshd")?.is_some();
        if ended || begun.elapsed() > Duration::from_secs(10) {
            let log = std::fs::read_to_string(base.join("sshd.log")).unwrap_or_default();
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
            return Err(Failure::new(
                crate::exit::Kind::Failure,
                format!("the demo's sshd did not start: {}", log.trim()),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Sshd {
        child,
        port,
        host_key,
    })
}

/// A demo person with a fresh key.
struct Person {
    id: PersonId,
    name: &'static str,
    role: &'static str,
    key_file: PathBuf,
    add: PersonAdd,
    opening: Opening,
}

/// Who is in the demo: name, role, what they may do.
fn demo_roles() -> [(&'static str, &'static str, Vec<Role>); 3] {
    [
        ("Olu Operator", "operator", vec![Role::Requester]),
        (
            "Ada Approver",
            "approver",
            vec![Role::Approver, Role::Admin],
        ),
        ("Ira Auditor", "auditor", vec![Role::Auditor]),
    ]
}

fn people(base: &Path) -> Done<Vec<Person>> {
    demo_roles()
        .into_iter()
        .map(|(name, role, roles)| {
            let key_file = base.join(format!("{role}_ed25519"));
            let line = make_ssh_key(&key_file, role)?;
            std::fs::write(
                base.join(format!("{role}_ed25519.pub")),
                format!("{line}\n"),
            )
            .attempt("write a key")?;
            let key = ascribe_evidence::parse_public_key(&line).attempt("read a key")?;
            let (mut add, opening) = first_admin(name, key, &roles)?;
            add.person = new_person()?;
            Ok(Person {
                id: add.person,
                name,
                role,
                key_file,
                add,
                opening,
            })
        })
        .collect()
}

fn client(dir: &Path, key: &Path) -> Done<Client> {
    Client::new(
        read_json(&dir.join(SERVER_FILE))?,
        Some(Signer::from_file(key)?),
    )
}

/// Enrols people, registers the target, asks and approves: all as people do it.
fn populate(dir: &Path, people: &[Person], sshd: &Sshd, account: &str) -> Done {
    let by_role = |role: &str| {
        people
            .iter()
            .find(|p| p.role == role)
            .ok_or_else(|| Failure::usage("the demo lacks a person"))
    };
    let (operator, approver) = (by_role("operator")?, by_role("approver")?);
    let admin = client(dir, &approver.key_file)?;
    for person in people.iter().filter(|p| p.role != "approver") {
        admin.submit(
            &admin.hello()?,
            Say::PersonAdd(person.add.clone()),
            vec![person.opening.clone()],
        )?;
    }
    let target = Target {
        loopback: true,
        ticket: Some(TicketRule {
            system: "demo".to_owned(),
            pattern: "OPS-#".to_owned(),
        }),
        break_glass: vec![operator.id],
        ..Target::ssh(
            TARGET,
            ("127.0.0.1", sshd.port),
            sshd.host_key.clone(),
            account,
            approver.id,
        )
    };
    admin.submit(&admin.hello()?, Say::TargetSet(target), Vec::new())?;
    let asker = client(dir, &operator.key_file)?;
    let hello = asker.hello()?;
    let begin = ascribe_core::time::Timestamp::from_millis(hello.now);
    let (justification, opening) =
        prose("justification", "Try ascribe: look around on the demo host")?;
    let request = Request {
        ticket: Some(Ticket {
            system: "demo".to_owned(),
            id: "OPS-1".to_owned(),
        }),
        ..Request::plain(
            TARGET,
            account,
            (begin, begin.plus_millis(3_600_000)),
            justification,
        )
    };
    let (id, _, _) = asker.submit(&hello, Say::Request(request), vec![opening])?;
    let known = registry(&admin)?;
    let entry = known.asks.iter().find(|a| a.id == id).map(|a| a.entry);
    let entry = entry
        .ok_or_else(|| Failure::new(crate::exit::Kind::Failure, "the demo's request is absent"))?;
    admin.submit(
        &admin.hello()?,
        Say::Approval(Answer {
            of: id,
            entry,
            remark: None,
        }),
        Vec::new(),
    )?;
    Ok(())
}

/// A configuration with which stock `ssh` works at once.
fn write_ssh_config(
    base: &Path,
    running: &Running,
    port: u16,
    target_port: u16,
    operator: &Path,
) -> Done<PathBuf> {
    let known_hosts = base.join("known_hosts");
    let lines = format!(
        "[127.0.0.1]:{port} {}\n@cert-authority {TARGET},[{TARGET}]:{} {}\n",
        running.ssh_host_key, target_port, running.ssh_host_ca
    );
    std::fs::write(&known_hosts, lines).attempt("write known_hosts")?;
    // The gateway's name stands for its address; a target's name is never looked up here.
    let config = format!(
        "Host {GATEWAY} 127.0.0.1 localhost\n  HostName 127.0.0.1\n  Port {port}\n\
         Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n\
           UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
        operator.display(),
        known_hosts.display()
    );
    let file = base.join("ssh_config");
    std::fs::write(&file, config).attempt("write ssh_config")?;
    Ok(file)
}

pub(crate) fn run(cli: &Cli, args: &Demo) -> Done {
    let place = Place::new(cli)?;
    let account = account()?;
    let people = people(&place.base)?;
    let mut options = InitOptions::new("demo.invalid/ascribe", &place.base.join("wrap.key"));
    options.head = Some(place.base.join("head"));
    options.admins = people
        .iter()
        .filter(|p| p.role == "approver")
        .map(|p| (p.add.clone(), p.opening.clone()))
        .collect();
    make(&place.data, &options)?;
    let user_ca =
        std::fs::read_to_string(place.data.join(USER_CA_KEY)).attempt("read the user CA")?;
    let user_ca = ssh_key::PrivateKey::from_openssh(user_ca).attempt("read the user CA")?;
    let user_ca = user_ca
        .public_key()
        .to_openssh()
        .attempt("encode the user CA")?;
    let sshd = start_sshd(&place.base, &user_ca, &account)?;
    let auditor = people
        .iter()
        .find(|p| p.role == "auditor")
        .map(|p| p.key_file.clone());
    if let Some(key_file) = auditor {
        write_json(&place.data.join(READER_FILE), &ReaderKey { key_file })?;
    }
    runtime()?.block_on(async {
        let ssh = format!("127.0.0.1:{}", args.ssh_port);
        let signals = Signals::listen()?;
        let running = start(
            &place.data,
            &ssh,
            "127.0.0.1:0",
            None,
            &ServePostgres::default(),
            &args.bounds,
        )
        .await?;
        let ready = tokio::task::block_in_place(|| {
            populate(&place.data, &people, &sshd, &account)?;
            announce(&place, args, &running, &people, &account, sshd.port)
        });
        let ended = match ready {
            Ok(()) => until_stopped(&running, signals).await,
            Err(failure) => Err(failure),
        };
        running.shutdown().await;
        ended
    })
}

fn announce(
    place: &Place,
    args: &Demo,
    running: &Running,
    people: &[Person],
    account: &str,
    target_port: u16,
) -> Done {
    let port = running
        .ssh
        .rsplit_once(':')
        .and_then(|(_, p)| p.parse().ok())
        .unwrap_or(args.ssh_port);
    let operator = people
        .iter()
        .find(|p| p.role == "operator")
        .map(|p| p.key_file.clone())
        .unwrap_or_default();
    let config_file = write_ssh_config(&place.base, running, port, target_port, &operator)?;
    // The host part is only a name here: the configuration says where the gateway is.
    let destination = format!("{account}@{TARGET}@{GATEWAY}");
    let policy = place.data.join(POLICY_FILE);
    if let Some(file) = &args.ready_file {
        let rows: Vec<_> = people
            .iter()
            .map(|p| json!({ "name": p.name, "principal": p.id, "key_file": p.key_file, "role": p.role }))
            .collect();
        write_json(
            file,
            &json!({
                "ssh": { "host": "127.0.0.1", "port": port, "destination": destination, "config_file": config_file, "jump_host": GATEWAY },
                "people": rows, "target": TARGET, "account": account,
                "data_dir": place.data, "trust_policy_file": policy,
            }),
        )?;
    }
    remark("ascribe demo is ready: a ledger, a gateway and a private sshd on loopback");
    remark(
        "a 1 h grant is active: asked by the operator, approved by the approver, ticket demo:OPS-1",
    );
    remark(&format!(
        "try     ssh -F {} {destination} 'id; uptime'",
        config_file.display()
    ));
    remark(&format!(
        "or      ssh -F {} -J {GATEWAY} {account}@{TARGET} 'id; uptime'",
        config_file.display()
    ));
    remark(&format!(
        "then    ascribe --data {} actions",
        place.data.display()
    ));
    remark(&format!(
        "prove   ascribe --data {} export SESSION -f demo.bundle",
        place.data.display()
    ));
    remark(&format!(
        "        ascribe verify demo.bundle --trust {}",
        policy.display()
    ));
    remark(if place.temporary {
        "Ctrl-C ends it and removes everything"
    } else {
        "Ctrl-C ends it; the data directory stays"
    });
    Ok(())
}
