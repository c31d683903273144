//! Credentials of the database that a real OpenBao holds, makes and changes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::bank::{Bank, PASSWORD, done};
use super::openbao::Bao;
use super::world::{Out, PATIENCE, Running, maybe, wait_for};

/// A bank whose password is in OpenBao alone.
fn open(credential: &str) -> Option<(Bank, Bao)> {
    with_settings(credential, &[])
}

fn with_settings(credential: &str, settings: &[&str]) -> Option<(Bank, Bao)> {
    let mut bank = Bank::with_settings_on(settings, None);
    let bao = Bao::beside(&bank)?;
    std::fs::remove_dir_all(bank.world.data().join("credentials")).unwrap();
    let told = bao.tell_credential(credential);
    bank.start_with(&["--vault", told.to_str().unwrap()]);
    Some((bank, bao))
}

fn keep(bao: &Bao, password: &str) {
    bao.bao(&[
        "kv",
        "put",
        "-mount=secret",
        "orders/dba",
        &format!("password={password}"),
    ]);
}

/// A new session says this.
#[track_caller]
pub(super) fn says(bank: &Bank, text: &str) {
    let out = bank.psql(&["-c", &format!("select '{text}'")]);
    let said = bank.server().stderr();
    assert_eq!(out.stdout, format!("{text}\n"), "{out:?}: {said}");
}

/// A new session is refused for want of a credential, and the gateway's log says why.
#[track_caller]
pub(super) fn fails(bank: &Bank, why: &str) {
    let before = bank.server().stderr().len();
    let out = bank.psql(&["-c", "select 'let in'"]).exits(2);
    let told = "its credential cannot be had";
    assert!(out.stderr.contains(told), "{}", out.stderr);
    let said = bank.server().stderr().split_off(before);
    assert!(said.contains(why), "{why}: {said}");
}

/// A session that lives until `end` is called.
struct Living {
    psql: Running,
    lock: i64,
}

impl Living {
    fn begin(bank: &Bank, lock: i64) -> Self {
        bank.cluster
            .sql("orders", "create table if not exists living (n bigint)");
        bank.cluster.sql("orders", "grant all on living to public");
        // It looks again and again, until it is told that it may end.
        let file = bank.world.path(&format!("living-{lock}.sql"));
        let look = format!(
            "select pg_sleep(0.2);\nselect count(*) = 0 as more from living where n = -{lock} \\gset\n"
        );
        let rounds = format!("\\if :more\n{look}\\endif\n").repeat(300);
        std::fs::write(
            &file,
            format!("insert into living values ({lock});\n{look}{rounds}select 'went on';\n"),
        )
        .unwrap();
        let psql = bank.psql_in_background(&["-q", "-f", file.to_str().unwrap()]);
        wait_for("a living session", PATIENCE, || {
            let count = format!("select count(*) from living where n = {lock}");
            (bank.cluster.sql("orders", &count) == "1\n").then_some(())
        });
        Self { psql, lock }
    }

    /// What it said, all through.
    fn end(self, bank: &Bank) -> Out {
        let sql = format!("insert into living values (-{})", self.lock);
        bank.cluster.sql("orders", &sql);
        self.psql.wait(PATIENCE)
    }
}

/// Files below a directory that hold a text.
fn files_with(dir: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with(&path, text, found);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
}

/// Nothing that ascribe or its clients wrote holds one of these.
#[track_caller]
fn is_nowhere(bank: &Bank, secrets: &[&str]) {
    let mut found = Vec::new();
    for secret in secrets {
        files_with(&bank.world.data(), secret, &mut found);
        let said = bank.server().stderr() + &bank.server().stdout();
        assert!(!said.contains(secret), "{said}");
        assert!(!format!("{:?}", bank.actions()).contains(secret));
    }
    assert!(found.is_empty(), "a secret is in {found:?}");
}

/// No role that was made for a session is left.
fn are_gone(bank: &Bank) {
    wait_for("the end of the roles", PATIENCE, || {
        let left = "select count(*) from pg_roles where rolname like 'v-%'";
        (bank.cluster.sql("postgres", left) == "0\n").then_some(())
    });
}

#[test]
fn a_password_in_openbao_changes_without_dropping_sessions() {
    let Some((bank, bao)) = open("kv2 secret orders/dba password") else {
        return;
    };
    keep(&bao, PASSWORD);
    says(&bank, "first");
    let living = Living::begin(&bank, 1);
    // Changed in both places: new sessions have the new one, and the old one goes on.
    let next = "n3xt \\ \"pass\" <&>";
    bank.cluster
        .sql("postgres", &format!("alter role dba password '{next}'"));
    let out = bank.psql(&["-c", "select 'let in'"]).exits(2);
    assert!(
        out.stderr.contains("password authentication failed"),
        "{}",
        out.stderr
    );
    keep(&bao, next);
    says(&bank, "second");
    // Without OpenBao there is no new session, and the old one goes on.
    bao.seal();
    fails(
        &bank,
        "it is sealed or being maintained: unseal it (status 503",
    );
    let out = living.end(&bank).exits(0);
    assert!(out.stdout.ends_with("went on\n"), "{}", out.stdout);
    bao.unseal();
    says(&bank, "third");
    assert!(!bank.cluster.log().contains("let in"));
    // Version 1 of the engine, by another login's file.
    bao.bao(&["write", "old/orders/dba", &format!("pass={next}")]);
    bao.tell_credential("kv1 old orders/dba pass");
    says(&bank, "fourth");
    // Nobody keeps a token of the gateway's.
    let accessors = wait_for("the end of all logins", PATIENCE, || {
        let left = bao.bao(&["list", "auth/token/accessors"]);
        let left = left.as_array().unwrap().len();
        (left == 1).then_some(left)
    });
    assert_eq!(accessors, 1, "the root token's alone");
    let read = |name: &str| std::fs::read_to_string(bank.world.path("vault").join(name)).unwrap();
    let escaped = next.replace('\\', "\\\\").replace('"', "\\\"");
    is_nowhere(
        &bank,
        &[
            PASSWORD,
            next,
            &escaped,
            &read("secret-id"),
            &read("role-id"),
        ],
    );
}

#[test]
fn a_role_is_made_for_each_session_acts_as_the_account_and_is_gone_after_it() {
    let settings = [
        "logging_collector=on",
        "log_destination=stderr,csvlog",
        "log_filename=pg.log",
        "log_file_mode=0644",
        "log_timezone=UTC",
        "log_connections=on",
        "log_disconnections=on",
    ];
    let Some((bank, bao)) = with_settings("dynamic database dba", &settings) else {
        return;
    };
    bao.dynamic("dba", "60s", "10m");
    let who = "select session_user, current_user";
    let said = [1, 2].map(|n| {
        let made = format!("create table made_{n} (a int)");
        bank.psql(&["-q", "-c", who, "-c", &made]).exits(0).stdout
    });
    let users = said.each_ref().map(|said| {
        let (user, acts_as) = said.trim_end().split_once('|').unwrap();
        assert_eq!(acts_as, "dba");
        assert!(user.starts_with("v-approle-"), "{user}");
        user
    });
    assert_ne!(users[0], users[1]);
    // What they made belongs to the account, so that they could be dropped.
    let owners = "select distinct tableowner from pg_tables where tablename like 'made%'";
    assert_eq!(bank.cluster.sql("orders", owners), "dba\n");
    are_gone(&bank);
    // The record says who logged in, by which lease.
    let notes = connections(&bank);
    for (notes, user) in notes.iter().zip(users) {
        assert_eq!(notes[0], format!("login {user}"));
        let lease = notes[1].strip_prefix("lease ").unwrap();
        assert!(lease.len() == 64 && lease.bytes().all(|b| b.is_ascii_hexdigit()));
    }
    let log = std::fs::read_to_string(bank.cluster.log_file("csv")).unwrap();
    assert!(users.iter().all(|user| log.contains(user)));
    // Both trails: what is ours is matched; what passed by is the setup's and OpenBao's own.
    let csv = bank.cluster.log_file("csv");
    let options = ["reconcile", "postgres", csv.to_str().unwrap(), "--dry-run"];
    let lines = bank.world.run_as("auditor", &options).exits(4).lines();
    let report = &lines.last().unwrap()["report"];
    assert_eq!(report["matched"]["sessions"], 2, "{report}");
    let strangers = lines.iter().filter(|line| line["kind"] == "database-only");
    let strangers: Vec<&Value> = strangers.map(|line| &line["finding"]["user"]).collect();
    assert!(
        strangers
            .iter()
            .all(|user| **user == "vault" || **user == "postgres")
    );
    assert!(strangers.iter().any(|user| **user == "vault"));
    // What would take it back to itself needs the target's leave.
    for reset in ["discard all", "reset role", "set role none"] {
        let out = bank.psql(&["-c", reset, "-c", "select current_user"]);
        assert!(out.stderr.contains("does not allow"), "{reset}: {out:?}");
        assert_eq!(out.stdout, "dba\n", "{reset}");
    }
    // A role that acts as itself.
    bao.tell_credential("dynamic database dba as-itself");
    let said = bank
        .psql(&["-c", "select session_user = current_user"])
        .exits(0);
    assert_eq!(said.stdout, "t\n");
}

/// The notes of each connection's outcome.
fn connections(bank: &Bank) -> Vec<Vec<String>> {
    let all = bank.actions();
    let connects = all
        .iter()
        .filter(|action| action["what"]["kind"] == "pg.connect");
    let notes = connects.map(|action| {
        let notes = action["what"]["outcome"]["notes"].as_array().unwrap();
        notes
            .iter()
            .map(|note| note.as_str().unwrap().to_owned())
            .collect()
    });
    notes.collect()
}

#[test]
fn a_lease_is_renewed_and_its_end_ends_the_session() {
    let Some((mut bank, bao)) = open("dynamic database brief") else {
        return;
    };
    // Too short for a login.
    bao.dynamic("brief", "5s", "5s");
    fails(&bank, "lasts less than the 10 s that a login may take");
    // Renewed until its longest time is over.
    bao.dynamic("brief", "11s", "16s");
    let begun = std::time::Instant::now();
    let out = bank.psql(&["-c", "select pg_sleep(60)"]).exits(2);
    let lived = begun.elapsed().as_secs();
    assert!((12..20).contains(&lived), "{lived} s");
    assert!(
        out.stderr.contains("what the login rests on, has ended"),
        "{}",
        out.stderr
    );
    // Taken back at OpenBao: seen when it is to be renewed.
    bao.dynamic("brief", "11s", "60s");
    let living = Living::begin(&bank, 2);
    bao.bao(&["lease", "revoke", "-prefix", "database/creds/brief"]);
    // Cut off within a statement, or told between two.
    living.psql.wait(PATIENCE).exits(2);
    let session = bank.actions().pop().unwrap()["session_id"].clone();
    let ended = bank.world.ended_session(session.as_str().unwrap());
    assert!(ended.to_string().contains("expired"), "{ended}");
    let said = bank.server().stderr();
    assert!(said.contains("was taken back"), "{said}");
    // What a token was lent goes with the token: so that is renewed, too.
    bao.app_role("11s");
    bao.dynamic("brief", "10m", "10m");
    let sleep = ["-c", "select pg_sleep(14)", "-c", "select 'went on'"];
    let out = bank.psql(&sleep).exits(0);
    assert!(out.stdout.ends_with("went on\n"), "{}", out.stdout);
    // A server that stops gives back what it was lent.
    let _living = Living::begin(&bank, 4);
    bank.stop();
    are_gone(&bank);
    assert!(!bank.cluster.log().contains("let in"));
}

#[test]
fn a_static_role_is_rotated_by_openbao_and_may_act_as_another() {
    let Some((bank, bao)) = open("static database nightly") else {
        return;
    };
    bank.cluster
        .sql("postgres", "create role etl login in role dba");
    let role = [
        "write",
        "database/static-roles/nightly",
        "db_name=orders",
        "username=etl",
        "rotation_period=24h",
    ];
    bao.bao(&role);
    let who = ["-c", "select session_user, current_user"];
    assert_eq!(bank.psql(&who).exits(0).stdout, "etl|dba\n");
    let living = Living::begin(&bank, 3);
    bao.bao(&["write", "-f", "database/rotate-role/nightly"]);
    assert_eq!(bank.psql(&who).exits(0).stdout, "etl|dba\n");
    assert!(living.end(&bank).exits(0).stdout.ends_with("went on\n"));
    assert!(
        connections(&bank)
            .iter()
            .all(|notes| notes[0] == "login etl")
    );
}

/// A token that Vault's `jwt` method takes, signed with RSA by `openssl`.
fn token(dir: &Path) -> Option<String> {
    let openssl = maybe("openssl")?;
    let (key, public) = (dir.join("jwt.key"), dir.join("jwt.pub"));
    done(
        Command::new(&openssl)
            .args(["genrsa", "-out"])
            .arg(&key)
            .arg("2048"),
    );
    done(
        Command::new(&openssl)
            .args(["rsa", "-pubout", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(&public),
    );
    let base64 = |bytes: &[u8]| ascribe_core::encoding::base64url(bytes);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = serde_json::json!({
        "iss": "cluster", "sub": "gateway", "aud": "vault", "nbf": now - 60, "exp": now + 600,
    });
    let claims = claims.to_string();
    let signed = format!(
        "{}.{}",
        base64(b"{\"alg\":\"RS256\",\"typ\":\"JWT\"}"),
        base64(claims.as_bytes())
    );
    let (text, signature) = (dir.join("jwt.text"), dir.join("jwt.sig"));
    std::fs::write(&text, &signed).unwrap();
    let mut sign = Command::new(&openssl);
    sign.args(["dgst", "-sha256", "-sign"])
        .arg(&key)
        .arg("-out")
        .arg(&signature)
        .arg(&text);
    done(&mut sign);
    Some(format!(
        "{signed}.{}",
        base64(&std::fs::read(&signature).unwrap())
    ))
}

#[test]
fn the_gateway_logs_in_by_token_file_or_by_a_clusters_token_and_within_a_namespace() {
    let Some((bank, bao)) = open("kv2 secret orders/dba password") else {
        return;
    };
    keep(&bao, PASSWORD);
    // A token's file, as an agent of Vault's leaves it. It is not the gateway's to end.
    let made = bao.bao(&["token", "create", "-policy=gateway", "-ttl=10m"]);
    let given = made["auth"]["client_token"].as_str().unwrap().to_owned();
    bao.file("token", &format!("{given}\n"));
    let credential = "credential dba@orders-db kv2 secret orders/dba password";
    bao.tell(&format!("auth token token\n{credential}"));
    says(&bank, "one");
    says(&bank, "two");
    // What it is lent is given back all the same.
    bao.dynamic("dba", "60s", "10m");
    bao.tell("auth token token\ncredential dba@orders-db dynamic database dba");
    says(&bank, "three");
    are_gone(&bank);
    // A token that is stored nowhere cannot be ended, so what it was lent is given back by itself.
    let role = ["write", "auth/approle/role/gateway", "token_type=batch"];
    bao.bao(&[&role[..], &["token_policies=gateway", "token_ttl=60s"]].concat());
    bao.tell_credential("dynamic database dba");
    says(&bank, "of a batch token");
    are_gone(&bank);
    bao.tell(&format!("auth token token\n{credential}"));
    // A token that may not.
    let made = bao.bao(&["token", "create", "-policy=default", "-ttl=10m"]);
    bao.file("token", made["auth"]["client_token"].as_str().unwrap());
    fails(
        &bank,
        "does not allow that: look at the policies of the gateway's login (status 403",
    );
    bao.file("token", "s.wrong");
    fails(&bank, "status 403");
    bao.file("token", "not a token");
    fails(&bank, "holds no token");
    // A cluster's token, by the same request as Kubernetes' own method has.
    let dir = bank.world.path("vault");
    let Some(shown) = token(&dir) else {
        std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no `openssl` to sign a cluster's token with\n"),
        )
        .unwrap();
        return;
    };
    bao.bao(&["auth", "enable", "-path=kubernetes", "jwt"]);
    let key = format!("jwt_validation_pubkeys=@{}", dir.join("jwt.pub").display());
    bao.bao(&["write", "auth/kubernetes/config", &key]);
    let role = [
        "write",
        "auth/kubernetes/role/gw",
        "role_type=jwt",
        "user_claim=sub",
        "bound_audiences=vault",
    ];
    bao.bao(&[&role[..], &["token_policies=gateway", "token_ttl=1m"]].concat());
    bao.file("cluster-token", &shown);
    bao.tell(&format!("auth kubernetes gw cluster-token\n{credential}"));
    says(&bank, "four");
    bao.file("cluster-token", &format!("{shown}x"));
    fails(
        &bank,
        "`auth/kubernetes/login`: it refuses what was asked (status 400",
    );
    // The same path in another namespace is another secret.
    bao.bao(&["namespace", "create", "teams"]);
    bao.bao(&[
        "secrets",
        "enable",
        "-namespace=teams",
        "-path=secret",
        "-version=2",
        "kv",
    ]);
    let put = [
        "kv",
        "put",
        "-namespace=teams",
        "-mount=secret",
        "orders/dba",
    ];
    bao.bao(&[&put[..], &[&format!("password={PASSWORD}")]].concat());
    let policy = dir.join("gateway.hcl");
    bao.bao(&[
        "policy",
        "write",
        "-namespace=teams",
        "gateway",
        policy.to_str().unwrap(),
    ]);
    let made = bao.bao(&[
        "token",
        "create",
        "-namespace=teams",
        "-policy=gateway",
        "-ttl=10m",
    ]);
    let inner = made["auth"]["client_token"].as_str().unwrap().to_owned();
    bao.file("token", &inner);
    bao.tell(&format!("auth token token\n{credential}"));
    fails(&bank, "status 403");
    bao.tell(&format!("namespace teams\nauth token token\n{credential}"));
    says(&bank, "five");
    assert!(!bank.cluster.log().contains("let in"));
    is_nowhere(&bank, &[PASSWORD, &given, &inner, &shown]);
}

#[test]
fn an_openbao_that_cannot_be_trusted_is_not_asked() {
    let Some((mut bank, bao)) = open("kv2 secret orders/dba password") else {
        return;
    };
    keep(&bao, PASSWORD);
    bank.psql(&["-c", "select 1"]).exits(0);
    // Signed by another.
    let dir = bank.world.path("vault");
    let good = std::fs::read(dir.join("vault.crt")).unwrap();
    let other = std::fs::read(bank.world.path("gateway.crt")).unwrap();
    std::fs::write(dir.join("vault.crt"), other).unwrap();
    fails(&bank, "invalid peer certificate");
    std::fs::write(dir.join("vault.crt"), good).unwrap();
    // Expired.
    bao.expire();
    fails(&bank, "certificate expired");
    // In the clear to another machine.
    let lines =
        "auth approle role-id secret-id\ncredential dba@orders-db kv2 secret orders/dba password";
    bao.file(
        "vault.conf",
        &format!("address http://vault.example.org:8200\n{lines}"),
    );
    fails(&bank, "is not `https`");
    // A secret that others may read, and one that is not there.
    bao.tell(lines);
    done(Command::new("chmod").arg("644").arg(dir.join("secret-id")));
    fails(&bank, "chmod 600");
    std::fs::remove_file(dir.join("secret-id")).unwrap();
    fails(&bank, "secret-id`: No such file");
    // A configuration that cannot be read fails each connection, and a start.
    let told = bao.tell("auth magic\n");
    fails(&bank, "a login is `auth token FILE`");
    bank.stop();
    let options = [
        "serve",
        "--ssh",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
        "--vault",
    ];
    let out = bank
        .world
        .run(&[&options[..], &[told.to_str().unwrap()]].concat());
    assert!(out.exits(3).stderr.contains("line 3"));
    assert!(!bank.cluster.log().contains("let in"));
}
