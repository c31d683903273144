//! An X.509-SVID as the client's certificate: who is let in by it, and what the record says that it proves.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::bank::Bank;
use super::bearers::{FULL, allow};
use super::providers::Provider;
use super::raw::secured;
use super::spiffe::{AUTHORITY, DOMAIN, ID, OTHER, USAGE, bundle, certify, openssl, publish};
use super::tokio_driver::checking;
use super::world::{Out, PATIENCE, Running, need, wait_for};

/// A database, a trust domain, and a workload of it that holds a grant.
struct Scene {
    bank: Bank,
    dir: PathBuf,
}

/// What a workload of this name has in its certificate.
fn leaf(id: &str) -> String {
    format!("{USAGE}subjectAltName=URI:{id}\n")
}

impl Scene {
    fn open(options: &[&str]) -> Self {
        let bank = Bank::without_grant(options);
        let dir = bank.world.path("spire");
        std::fs::create_dir(&dir).unwrap();
        let authority = format!("{AUTHORITY}subjectAltName=URI:{DOMAIN}\n");
        certify(&dir, "root", &authority, "root");
        certify(&dir, "deploy", &leaf(ID), "root");
        bank.world.add_provider(&Provider {
            name: "spire",
            kind: "spiffe-x509",
            issuer: DOMAIN,
            audience: "ascribe",
            jwks: Some(&publish(bundle(&dir))),
        });
        bank.world.add_workload("spire", &[&format!("sub={ID}")]);
        allow(&bank);
        Self { bank, dir }
    }

    fn command(&self, name: &str, options: &str, sql: &str) -> Command {
        let file = |kind: &str| self.dir.join(format!("{name}.{kind}"));
        // libpq wants it so.
        let mode = Command::new(need("chmod"))
            .arg("600")
            .arg(file("key"))
            .status();
        assert!(mode.unwrap().success());
        let own = format!(
            "{FULL} sslcert={} sslkey={} {options}",
            file("pem").display(),
            file("key").display()
        );
        let mut command = Command::new(need("psql"));
        command
            .env_remove("PGPASSWORD")
            .args(["-X", "-w", "-A", "-t", "-c", sql])
            .arg(self.bank.at_the_port(&own));
        command
    }

    /// Stock psql with this certificate.
    fn psql(&self, name: &str, options: &str, sql: &str) -> Out {
        self.bank.world.program(self.command(name, options, sql))
    }

    #[track_caller]
    fn refused(&self, name: &str, options: &str, why: &str) {
        let out = self.psql(name, options, "select 'let in'").exits(2);
        assert!(out.stderr.contains(why), "{name}, {why}: {}", out.stderr);
        assert!(!self.bank.cluster.log().contains("let in"));
    }

    /// A certificate of the workload's that ends in some seconds; waits for that.
    fn expired(&self, name: &str) {
        certify(&self.dir, name, &leaf(ID), "root");
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n\
                      policy=p\n[p]\norganizationName=optional\ncommonName=optional\n";
        std::fs::write(self.dir.join("ca.cnf"), config).unwrap();
        std::fs::write(self.dir.join("index"), "").unwrap();
        std::fs::write(self.dir.join("extensions"), leaf(ID)).unwrap();
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let end = now() + 2;
        let shown = Command::new(need("date"))
            .args(["-u", "-d", &format!("@{end}"), "+%Y%m%d%H%M%SZ"])
            .output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        let (request, pem) = (format!("{name}.csr"), format!("{name}.pem"));
        let args = [
            "ca",
            "-batch",
            "-notext",
            "-config",
            "ca.cnf",
            "-cert",
            "root.pem",
            "-keyfile",
            "root.key",
            "-extfile",
            "extensions",
            "-enddate",
            shown.trim(),
            "-in",
            &request,
            "-out",
            &pem,
        ];
        openssl(&self.dir, &args);
        wait_for("end of the certificate", PATIENCE, || {
            (now() > end).then_some(())
        });
    }
}

#[test]
fn a_workload_enters_by_its_svid_and_the_record_says_what_that_proves() {
    let mut scene = Scene::open(&[]);
    let out = scene.psql("deploy", "", "select 6 * 7").exits(0);
    assert_eq!(out.stdout, "42\n");
    let done = scene.bank.action("select 6 * 7");
    let who = &done["who"];
    assert_eq!(
        (&who["door"], &who["opened_by"]),
        (&json!("mtls"), &json!("testimony")),
        "{done}"
    );
    let actor = &who["chain"][0];
    assert_eq!(actor["kind"], "workload");
    assert_eq!(actor["display"], "deploy-shop");
    assert_eq!(
        actor["owner"],
        scene.bank.world.person("operator").0.as_str()
    );
    assert_eq!(actor["assurance"], 1);
    let missing = actor["missing"].to_string();
    assert!(missing.contains("is the gateway's word"), "{actor}");

    // An authority between it and the root, which the client sends with its own.
    let authority = format!("{AUTHORITY}subjectAltName=URI:{DOMAIN}\n");
    certify(&scene.dir, "middle", &authority, "root");
    certify(&scene.dir, "below", &leaf(ID), "middle");
    let pem = |name: &str| std::fs::read_to_string(scene.dir.join(format!("{name}.pem"))).unwrap();
    let both = pem("below") + &pem("middle");
    std::fs::write(scene.dir.join("below.pem"), both).unwrap();
    scene.psql("below", "", "select 8").exits(0);
    // Each connection is one of its own, also of a server that was started anew.
    let bank = &mut scene.bank;
    bank.stop();
    bank.start();
    scene.psql("deploy", "", "select 9").exits(0);
    let sessions: std::collections::BTreeSet<String> = ["select 6 * 7", "select 8", "select 9"]
        .map(|text| scene.bank.action(text)["session_id"].to_string())
        .into();
    assert_eq!(sessions.len(), 3);

    let session = done["session_id"].as_str().unwrap();
    let bank = &mut scene.bank;
    bank.world.ended_session(session);
    let bundle = bank.world.path("svid.bundle");
    bank.world
        .json(&["export", session, "-f", bundle.to_str().unwrap()]);
    let policy = bank.world.policy();
    let report = bank.world.verify(&bundle, &policy).exits(0).stdout;
    assert!(
        report.contains(
            "that the TLS 1.3 handshake that the workload's key signed was this connection's"
        ),
        "{report}"
    );
    bank.stop();
    bank.world.verify(&bank.world.data(), &policy).exits(0);
}

#[test]
fn whose_certificate_is_not_the_workloads_gets_nothing_by_it() {
    let mut scene = Scene::open(&[]);
    let make = |name: &str, extensions: &str, signer: &str| {
        certify(&scene.dir, name, extensions, signer);
    };
    scene.refused(
        "deploy",
        "ssl_max_protocol_version=TLSv1.2",
        "TLS 1.3 alone",
    );
    make("other", &leaf(OTHER), "root");
    scene.refused("other", "", "conditions of no workload");
    make("evil", AUTHORITY, "evil");
    make(
        "foreign",
        &leaf("spiffe://evil.example/ns/shop/sa/deploy"),
        "evil",
    );
    scene.refused("foreign", "", "issued this certificate");
    // One that says it is of the domain; and one that its root's namesake signed.
    make("posing", &leaf(ID), "evil");
    scene.refused("posing", "", "no root of the trust domain's bundle");
    make("itself", &leaf(ID), "itself");
    scene.refused("itself", "", "no root of the trust domain's bundle");
    make(
        "authority",
        &format!("{AUTHORITY}subjectAltName=URI:{ID}\n"),
        "root",
    );
    scene.refused("authority", "", "is an authority's, no workload's");
    scene.refused("root", "", "issued this certificate");
    make("below", &leaf(ID), "deploy");
    let pem = |name: &str| std::fs::read_to_string(scene.dir.join(format!("{name}.pem"))).unwrap();
    std::fs::write(scene.dir.join("below.pem"), pem("below") + &pem("deploy")).unwrap();
    scene.refused("below", "", "signed by no authority");
    make("two", &leaf(&format!("{ID},URI:{OTHER}")), "root");
    scene.refused("two", "", "no URI among its names, or several");
    make(
        "web",
        &leaf(&format!("{ID},URI:https://demo.example")),
        "root",
    );
    scene.refused("web", "", "no URI among its names, or several");
    scene.expired("expired");
    scene.refused("expired", "", "the certificate has expired");

    // A person's, and a server's, are none of ours: the password is asked for, as of everybody.
    make(
        "person",
        "subjectAltName=email:casey@example.org\nextendedKeyUsage=clientAuth\n",
        "root",
    );
    make(
        "server",
        "subjectAltName=DNS:db.example.org,URI:https://db.example.org\n",
        "root",
    );
    // One without extensions is of version 1, which no TLS takes for a client's.
    make("old", "", "root");
    for name in ["person", "server", "old"] {
        scene.refused(name, "", "no password supplied");
        scene.refused(name, "password=secret", "no signed statement");
    }
    scene.bank.grant(&["--reusable"]);
    let mine = format!("password={}", scene.bank.token());
    scene.psql("person", &mine, "select 7").exits(0);
    assert_eq!(scene.bank.action("select 7")["who"]["door"], "password");
    scene.psql("deploy", "", "select 10").exits(0);
    assert_eq!(scene.bank.action("select 10")["who"]["door"], "mtls");
    counted(&mut scene);
}

/// Why each was refused is on record.
fn counted(scene: &mut Scene) {
    scene.bank.stop();
    let world = &scene.bank.world;
    let report = world.verify(&world.data(), &world.policy()).exits(0).line();
    let notes = report["notes"].as_array().unwrap();
    let notes = notes.iter().filter(|note| note["code"] == "login_refused");
    let said: Vec<&str> = notes.map(|n| n["message"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "2 login(s) that named no registered provider were refused: token-iss 2",
            "9 login(s) that named provider `spire` were refused: conditions 1, svid-ca 2, svid-id 2, svid-root 2, svid-tls 1, \
             token-time 1",
        ]
    );
}

#[test]
fn a_target_may_want_more_and_what_a_login_rests_on_may_end() {
    let scene = Scene::open(&["--actor-assurance", "2"]);
    scene.refused("deploy", "", "need assurance 2; this key has 1");
    let bank = &scene.bank;
    bank.register(&["--signed-opening"]);
    scene.refused("deploy", "", "wants sessions that their actor signed");
    bank.register(&[]);
    let command = scene.command("deploy", "", "select 'begun', pg_sleep(300)");
    let sleeping = Running::start(command, &bank.world.path("logs"), true);
    wait_for("statement", PATIENCE, || {
        bank.cluster.log().contains("select 'begun'").then_some(())
    });
    bank.world
        .run_as("approver", &["workload", "withdraw", "deploy-shop"])
        .exits(0);
    let out = sleeping.wait(Duration::from_secs(120)).exits(2);
    assert!(
        out.stderr.contains("the grant or the login was revoked"),
        "{}",
        out.stderr
    );
    scene.refused("deploy", "", "conditions of no workload");
}

#[test]
fn a_workload_whose_owner_has_left_does_not_enter() {
    let scene = Scene::open(&[]);
    scene.psql("deploy", "", "select 1").exits(0);
    let owner = scene.bank.world.person("operator").0;
    let leaves = ["person", "offboard", &owner];
    scene.bank.world.run_as("approver", &leaves).exits(0);
    scene.refused("deploy", "", "whoever answers for the workload has left");
}

/// A handshake that resumes another one has nothing that the workload signed.
#[test]
fn no_connection_rests_on_the_handshake_of_another_one() {
    let scene = Scene::open(&[]);
    let pem = CertificateDer::from_pem_file(scene.dir.join("deploy.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(scene.dir.join("deploy.key")).unwrap();
    let config = checking(&scene.bank.world.path("gateway.crt"))
        .with_client_auth_cert(vec![pem], key)
        .unwrap();
    for _ in 0..3 {
        // They share what there is to resume.
        let mut raw = secured(&scene.bank, config.clone());
        raw.begin(&[]);
        let said = raw.until(b'Z');
        assert_eq!(said[0].body, [0; 4], "{said:?}");
        assert_eq!(raw.0.conn.handshake_kind(), Some(HandshakeKind::Full));
    }
}
