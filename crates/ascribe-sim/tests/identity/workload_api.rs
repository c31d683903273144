//! A workload asks SPIFFE's agent who it is, on the socket of the Workload API.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::agent::Agent;
use super::idp::Idp;
use super::providers::Provider;
use super::python::packages;
use super::spiffe::{ID, OTHER, openssl};
use super::svid::issued;
use super::world::{Out, PATIENCE, Running, World, wait_for};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spiffe");

/// An agent, which ends with the test.
struct Spire<'a> {
    world: &'a World,
    ssh_agent: Agent,
    _process: Running,
    socket: String,
    identities: PathBuf,
}

impl<'a> Spire<'a> {
    fn start(world: &'a World) -> Option<Self> {
        let sources = Path::new(SOURCES);
        let Some(python) = packages("spiffe", &sources.join("requirements.txt")) else {
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: `python3` or the package registry is not there\n"),
            )
            .unwrap();
            return None;
        };
        let (socket, identities) = (world.path("agent.sock"), world.path("identities"));
        std::fs::write(&identities, "{}").unwrap();
        let mut command = Command::new(python.join("bin/python"));
        command.arg(sources.join("agent.py"));
        command.arg(&socket).arg(&identities);
        let process = Running::start(command, &world.path("logs"), true);
        wait_for("agent", PATIENCE, || {
            process.stdout().contains("listening").then_some(())
        });
        Some(Self {
            world,
            ssh_agent: Agent::start(world),
            _process: process,
            socket: format!("unix://{}", socket.display()),
            identities,
        })
    }

    /// Whom the agent takes its caller for from now on.
    fn knows(&self, identities: &Value) {
        std::fs::write(&self.identities, identities.to_string()).unwrap();
    }

    fn log_in_at(&self, socket: &str, more: &[&str]) -> Out {
        let args = ["login", "--workload", "deploy-shop", "--for", "1h"];
        let args = [&args[..], more].concat();
        let mut command = self.ssh_agent.command(self.world, &args);
        command.env("SPIFFE_ENDPOINT_SOCKET", socket);
        self.world.program_as_is(&mut command)
    }

    fn log_in(&self, more: &[&str]) -> Out {
        self.log_in_at(&self.socket, more)
    }

    /// What the workload did, as it is on record.
    fn acts(&self, word: &str) -> Value {
        let command = format!("echo {word}");
        self.ssh_agent.ssh(self.world, &command).exits(0);
        let action = self.world.actions(&["--text", word]).remove(0);
        action["who"]["chain"][0].clone()
    }
}

/// An SVID in the files of the directory, as the agent is told of it.
fn x509(dir: &Path, name: &str, id: &str) -> Value {
    let (pem, der) = (format!("{name}.pem"), format!("{name}.der"));
    openssl(dir, &["x509", "-in", &pem, "-outform", "DER", "-out", &der]);
    let (key, pkcs8) = (format!("{name}.key"), format!("{name}.p8"));
    let convert = "pkcs8 -topk8 -nocrypt -outform DER -in";
    let convert = convert.split(' ').chain([&*key, "-out", &*pkcs8]);
    openssl(dir, &convert.collect::<Vec<_>>());
    openssl(
        dir,
        &"x509 -in root.pem -outform DER -out root.der"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    let (chain, key, bundle) = (dir.join(der), dir.join(pkcs8), dir.join("root.der"));
    json!({ "id": id, "chain": chain, "key": key, "bundle": bundle })
}

#[test]
fn a_workload_acts_by_the_x509_svid_of_its_agent() {
    let world = World::new();
    let dir = issued(&world);
    let Some(spire) = Spire::start(&world) else {
        return;
    };
    let unknown = spire.log_in(&[]).exits(2);
    assert!(unknown.stderr.contains("no identity issued"), "{unknown:?}");

    let svids = [x509(&dir, "other", OTHER), x509(&dir, "deploy", ID)];
    spire.knows(&json!({ "x509": svids }));
    // The first one is the default, and is somebody else's.
    spire.log_in(&[]).exits(2);
    let elsewhere = spire
        .log_in(&["--spiffe-id", "spiffe://demo.example/x"])
        .exits(2);
    assert!(elsewhere.stderr.contains(ID), "{elsewhere:?}");
    spire.log_in(&["--spiffe-id", ID]).exits(0);
    let actor = spire.acts("by the agent");
    assert_eq!(
        (&actor["display"], &actor["assurance"]),
        (&json!("deploy-shop"), &json!(2)),
        "{actor}"
    );

    // A key that is not the certificate's.
    let mut mixed = x509(&dir, "deploy", ID);
    mixed["key"] = x509(&dir, "other", OTHER)["key"].clone();
    spire.knows(&json!({ "x509": [mixed] }));
    spire.log_in(&[]).exits(2);
    // No certificate.
    let mut torn = x509(&dir, "deploy", ID);
    torn["chain"] = torn["key"].clone();
    spire.knows(&json!({ "x509": [torn] }));
    spire.log_in(&[]).exits(1);

    let gone = spire.log_in_at("unix:///nowhere/agent.sock", &[]).exits(1);
    assert!(
        gone.stderr.contains("No such file or directory"),
        "{gone:?}"
    );
    let unreadable = spire.log_in_at("agent.sock", &[]).exits(3);
    assert!(unreadable.stderr.contains("unix:///PATH"), "{unreadable:?}");
    let token = spire.log_in(&["--token-command", "true"]).exits(3);
    assert!(token.stderr.contains("no tokens"), "{token:?}");
    let unset = spire.log_in_at("", &[]).exits(3);
    assert!(unset.stderr.contains("--svid"), "{unset:?}");
}

#[test]
fn a_workload_acts_by_the_jwt_svid_of_its_agent() {
    let world = World::new();
    let Some(spire) = Spire::start(&world) else {
        return;
    };
    let Some(idp) = Idp::of_jobs("unused") else {
        return;
    };
    world.add_provider(&Provider {
        name: "spire",
        kind: "spiffe",
        issuer: &idp.issuer,
        audience: "ascribe",
        jwks: Some(&format!("{}/jwks", idp.issuer)),
    });
    world.add_workload("spire", &[&format!("sub={ID}")]);
    world.grant_workload();
    let signer = format!("{}/mint", idp.issuer);
    let known = [OTHER, ID].map(|id| json!({ "id": id, "signer": signer }));
    spire.knows(&json!({ "jwt": known }));
    // The default one is somebody else's.
    spire.log_in(&[]).exits(2);
    spire.log_in(&["--spiffe-id", "nobody"]).exits(3);
    spire.log_in(&["--spiffe-id", ID]).exits(0);
    let actor = spire.acts("by its token");
    assert_eq!(
        (&actor["display"], &actor["assurance"]),
        (&json!("deploy-shop"), &json!(2)),
        "{actor}"
    );
}
