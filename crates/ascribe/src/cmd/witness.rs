//! `ascribe witness ...`: naming the log's witnesses, and being one of other logs'.

use std::path::{Path, PathBuf};

use ascribe_core::statement::Say;
use ascribe_core::text::clean;
use ascribe_core::witness::{Demand, WitnessSet};
use ascribe_tlog::{Quorum, SigningKey, TrustPolicy};
use serde_json::json;
use ssh_key::PrivateKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::init::make_ssh_key;
use super::serve::{Signals, runtime};
use super::setup::propose;
use super::{remark, say, say_json};
use crate::api::Witnessed;
use crate::cli::{Cli, WitnessCommand, word_of};
use crate::exit::{Attempt as _, Done, Failure};
use crate::witness::server::Witness;

pub(crate) fn witness(cli: &Cli, command: &WitnessCommand) -> Done {
    match command {
        WitnessCommand::Init { name } => init(cli, name),
        WitnessCommand::Run {
            listen,
            state,
            logs,
        } => run(cli, listen, state, logs),
        WitnessCommand::Set { policy, demand } => set(cli, policy, demand),
    }
}

fn key_file(cli: &Cli) -> Done<&Path> {
    let file = cli.key.as_deref();
    file.ok_or_else(|| Failure::usage("which key?").help("give the witness's own: `--key FILE`"))
}

fn init(cli: &Cli, name: &str) -> Done {
    let file = key_file(cli)?;
    // A name that no verifier key can have is refused before anything is written.
    SigningKey::from_seed(name, &[0; 32])
        .map_err(|e| Failure::usage(format!("`{}`: {e}", clean(name, 80))))?;
    make_ssh_key(file, name)?;
    let key = read_key(file)?.witness().attempt("use the key")?;
    if cli.json() {
        return say_json(&json!({ "name": name, "verifier_key": key.to_string() }));
    }
    say(&format!(
        "witness {name} {key} https://HOST\nnext: others put that line in their policies; \
         `ascribe witness run --key {} --listen HOST:PORT --state DIR --log POLICY`",
        file.display()
    ));
    Ok(())
}

/// The key that [`init`] wrote; its name is the comment.
fn read_key(file: &Path) -> Done<SigningKey> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).attempt(format!("read `{shown}`"))?;
    let key = PrivateKey::from_openssh(&text)
        .map_err(|e| Failure::usage(format!("`{shown}` is no OpenSSH key: {e}")))?;
    let name = key.comment().to_string();
    let pair = key.key_data().ed25519().ok_or_else(|| {
        Failure::usage(format!("`{shown}` is no Ed25519 key without passphrase"))
            .help("make one: ascribe witness init --name NAME --key FILE")
    })?;
    SigningKey::from_seed(&name, pair.private.as_ref())
        .map_err(|e| Failure::usage(format!("`{shown}` has no witness's name as comment: {e}")))
}

fn read_policy(file: &Path) -> Done<TrustPolicy> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).attempt(format!("read `{shown}`"))?;
    TrustPolicy::parse(&text).map_err(|e| Failure::usage(format!("`{shown}`: {e}")))
}

fn run(cli: &Cli, listen: &str, state: &Path, logs: &[PathBuf]) -> Done {
    let key = read_key(key_file(cli)?)?;
    let policies = logs.iter().map(|file| read_policy(file));
    let policies = policies.collect::<Done<Vec<_>>>()?;
    let verifier = key.witness().attempt("use the key")?;
    let witness = Witness::open(state, key, &policies)?;
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|e| Failure::usage(format!("cannot listen at `{listen}`: {e}")))?;
        let at = listener.local_addr().attempt("listen")?;
        remark(&format!("witness {verifier}\nhttp    {at}"));
        let stop = CancellationToken::new();
        tokio::select! {
            () = witness.serve(listener, stop.clone()) => {}
            () = signals.wait() => stop.cancel(),
        }
        Ok(())
    })
}

fn set(cli: &Cli, file: &Path, demand: &[Demand]) -> Done {
    let client = cli.client(false)?;
    let shown = file.display();
    let mut text = std::fs::read_to_string(file).attempt(format!("read `{shown}`"))?;
    if !text
        .lines()
        .any(|line| line.trim_start().starts_with("log"))
    {
        text = format!("log {}\n{text}", client.hello()?.log_key);
    }
    let policy =
        TrustPolicy::parse(&text).map_err(|e| Failure::usage(format!("`{shown}`: {e}")))?;
    let mut demand = demand.to_vec();
    demand.sort();
    demand.dedup();
    let withdrawn = policy.quorum == Quorum::None;
    for witness in &policy.witnesses {
        remark(&format!(
            "witness {} {}",
            clean(&witness.name, 80),
            witness.key
        ));
    }
    let done = match withdrawn {
        true => "the witnesses are withdrawn",
        false => {
            "the witnesses are named\nnext: ascribe ledger status   (shows what each of them says)"
        }
    };
    let names = policy.witnesses.iter().map(|witness| &witness.name);
    let value = json!({ "witnesses": names.collect::<Vec<_>>(), "demand": demand });
    let set = WitnessSet {
        demand,
        policy: text,
    };
    propose(cli, &client, Say::WitnessSet(set), Vec::new(), done, value)
}

/// What `ascribe ledger status` says of the witnesses.
pub(super) fn show(witnessed: &Witnessed, now: i64) {
    let before = witnessed
        .before
        .map_or(String::new(), |at| format!(" by {at}"));
    say(&format!(
        "seen     {} entries{before}; quorum {}",
        witnessed.size,
        clean(&witnessed.quorum, 80)
    ));
    match witnessed.unseen_since {
        Some(since) => {
            let age = (now - since.millis()).max(0).unsigned_abs() / 1000;
            say(&format!(
                "unseen   for {}, since {since}",
                super::lasting(age)
            ));
        }
        None => say("unseen   nothing"),
    }
    if !witnessed.demand.is_empty() {
        let demand: Vec<String> = witnessed.demand.iter().map(word_of).collect();
        say(&format!("waits    {}", demand.join(", ")));
    }
    for row in &witnessed.witnesses {
        let at = row.at.map_or(String::new(), |at| format!(" ({at})"));
        let (name, said) = (clean(&row.name, 80), clean(&row.said, 300));
        say(&format!("witness  {name}: {said}{at}"));
    }
}
