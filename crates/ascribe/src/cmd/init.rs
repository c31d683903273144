//! `ascribe init`: a new ledger, and the server's own keys.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ascribe_core::sealed::Opening;
use ascribe_core::statement::{PersonAdd, Role, SshKey};
use ascribe_ledger::{Drivers, InitOptions, Ledger, SystemClock, SystemRng};
use ascribe_tlog::TrustPolicy;
use serde_json::json;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::{say, say_json};
use crate::cli::{Cli, Init};
use crate::client::{new_person, random};
use crate::exit::{Attempt as _, Done, Failure};

/// The gateway's SSH host key.
pub(crate) const SSH_HOST_KEY: &str = "keys/ssh_host_ed25519_key";
/// The key that signs short-lived user certificates for targets.
pub(crate) const USER_CA_KEY: &str = "keys/user_ca_ed25519_key";
/// The key that signs short-lived host certificates for targets' names (`ssh -J`).
pub(crate) const HOST_CA_KEY: &str = "keys/host_ca_ed25519_key";
/// The API's TLS key.
pub(crate) const API_KEY: &str = "keys/api.pk8";
/// The trust policy, for handing to verifiers.
pub(crate) const POLICY_FILE: &str = "trust-policy.txt";

/// What drives the ledger on a real machine.
pub(crate) fn drivers() -> Drivers {
    Drivers {
        judge: Arc::new(ascribe_evidence::Checker::new()),
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
    }
}

/// Writes a new file that only its owner reads.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Done {
    use std::io::Write as _;
    let what = format!("write `{}`", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).attempt(&what)?;
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .attempt(&what)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .attempt(&what)
}

/// A fresh Ed25519 key in OpenSSH form; returns the public half's line.
pub(crate) fn make_ssh_key(path: &Path, comment: &str) -> Done<String> {
    let mut seed = zeroize::Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(&mut *seed).attempt("draw random bytes")?;
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let mut key = PrivateKey::from(pair);
    key.set_comment(comment);
    let text = key.to_openssh(LineEnding::LF).attempt("encode a key")?;
    write_secret(path, text.as_bytes())?;
    debug_assert_eq!(
        key.algorithm(),
        Algorithm::Ed25519,
        "made from an Ed25519 seed"
    );
    key.public_key().to_openssh().attempt("encode a key")
}

/// A first administrator, with the opening of the name.
pub(crate) fn first_admin(name: &str, key: SshKey, roles: &[Role]) -> Done<(PersonAdd, Opening)> {
    let opening = Opening::new("name", random()?, name.as_bytes().to_vec());
    let person = PersonAdd {
        person: new_person()?,
        name: opening.commitment(),
        keys: vec![key],
        roles: roles.to_vec(),
    };
    Ok((person, opening))
}

/// Makes everything; returns the trust policy's text.
pub(crate) fn make(dir: &Path, options: &InitOptions) -> Done<String> {
    let made = Ledger::init(dir, options, &drivers())
        .map_err(|e| Failure::usage(format!("failed to make the ledger: {e}")))?;
    make_ssh_key(&dir.join(SSH_HOST_KEY), "ascribe gateway")?;
    make_ssh_key(&dir.join(USER_CA_KEY), "ascribe user CA")?;
    make_ssh_key(&dir.join(HOST_CA_KEY), "ascribe host CA")?;
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let pkcs8 =
        aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&rng).attempt("make the API key")?;
    write_secret(&dir.join(API_KEY), pkcs8.as_ref())?;
    let policy = format!(
        "# ascribe-first-entry {}\nlog {}\nquorum none\n",
        made.first_entry, made.log_key
    );
    TrustPolicy::parse(&policy).attempt("form the trust policy")?;
    std::fs::write(dir.join(POLICY_FILE), &policy).attempt("write the trust policy")?;
    Ok(policy)
}

pub(crate) fn run(cli: &Cli, args: &Init) -> Done {
    let dir = cli.data_dir()?;
    let mut options = InitOptions::new(&args.origin, &args.wrap_key);
    options.head.clone_from(&args.head);
    options.admin_quorum = args.admin_quorum;
    for admin in &args.admins {
        let (name, file) = admin.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`{admin}` is not NAME=FILE.pub"))
                .help("for instance `--admin Ada=ada.pub`")
        })?;
        let key = super::setup::public_key(Path::new(file))?;
        options
            .admins
            .push(first_admin(name, key, &[Role::Admin, Role::Approver])?);
    }
    let policy = make(dir, &options)?;
    let people: Vec<_> = options
        .admins
        .iter()
        .map(|(admin, _)| admin.person)
        .collect();
    if cli.json() {
        return say_json(
            &json!({ "origin": args.origin, "admins": people, "trust_policy": policy }),
        );
    }
    let ca = std::fs::read_to_string(dir.join(USER_CA_KEY)).attempt("read the user CA")?;
    let ca = PrivateKey::from_openssh(ca).attempt("read the user CA")?;
    say(&format!(
        "ledger {} is ready in {}",
        args.origin,
        dir.display()
    ));
    say(&format!(
        "hand this trust policy to whoever verifies (also in {POLICY_FILE}):\n{policy}"
    ));
    say(&format!(
        "targets trust the gateway's user CA (sshd_config: TrustedUserCAKeys):\n{}",
        ca.public_key().to_openssh().attempt("encode a key")?
    ));
    if args.head.is_none() {
        say("warning: without `--head FILE` a restored old directory is noticed only by clients");
    }
    say("keep the wrap key safe and apart: without it sealed content is lost");
    say(&format!(
        "next: ascribe serve --data {} --ssh 0.0.0.0:7022 --api 127.0.0.1:7443",
        dir.display()
    ));
    Ok(())
}
