//! The server, its ledger, its clients, and proofs of it.

use std::path::PathBuf;

use ascribe_core::id::SessionId;
use clap::{Args, Subcommand};

use super::database::ServePostgres;
use super::parse::seconds;

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The log's name: a schema-less URL, for instance `example.org/ascribe`.
    #[arg(long)]
    pub(crate) origin: String,
    /// Where the key goes that wraps the evidence keys: outside the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) wrap_key: PathBuf,
    /// Where the copy of the log's head goes: outside the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) head: Option<PathBuf>,
    /// A first administrator: `NAME=KEYFILE.pub`.
    #[arg(long = "admin", value_name = "NAME=FILE.pub", required = true)]
    pub(crate) admins: Vec<String>,
    /// Administrators that a change needs.
    #[arg(long, default_value_t = 1)]
    pub(crate) admin_quorum: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// `HOST:PORT` of the API.
    pub(crate) server: String,
    /// The log's verifier key, as `ascribe ledger status` prints it.
    #[arg(long)]
    pub(crate) log_key: String,
    /// The API's key, as `ascribe ledger status` prints it.
    #[arg(long)]
    pub(crate) pin: String,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where the SSH gateway listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) ssh: String,
    /// Where the API listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api: String,
    /// Where directories speak SCIM, in the clear: on loopback, or behind a proxy of yours that does TLS.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) scim: Option<String>,
    #[command(flatten)]
    pub(crate) postgres: ServePostgres,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// What the gateway lets people do at most.
#[derive(Debug, Args)]
pub(crate) struct Bounds {
    /// End sessions in which nothing moved for so long.
    #[arg(long, default_value = "30m", value_parser = seconds)]
    pub(crate) idle: u64,
    /// SSH connections of one address at a time; more wait until one has ended.
    #[arg(long, value_name = "NUMBER", default_value = "256",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) per_address: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Port of the SSH gateway on loopback; 0 picks one.
    #[arg(long, default_value_t = 7022)]
    pub(crate) ssh_port: u16,
    /// Written when everything is ready.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

#[derive(Debug, Args)]
pub(crate) struct SshConfig {
    /// Write it into ascribe's configuration directory, and say what to include.
    #[arg(long)]
    pub(crate) write: bool,
    /// Jump with `ssh` alone (`ProxyJump`): needs no ascribe on this machine, signs no opening.
    #[arg(long)]
    pub(crate) jump: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A bundle, an exported ledger, or a stopped server's data directory.
    pub(crate) path: PathBuf,
    /// Whom you trust: a C2SP tlog-policy with our first-entry pin.
    #[arg(long, value_name = "POLICY")]
    pub(crate) trust: PathBuf,
    /// An earlier checkpoint, such as the head's copy or a witness's: a whole ledger must continue it.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Of a whole ledger, all of which is checked: report on this session alone, and list its links as of a bundle.
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<SessionId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Size, root, keys.
    Status,
    /// Write the plain C2SP tree.
    Export {
        /// Where to; must not exist.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Only as far as enough witnesses have seen it: its checkpoint has their cosignatures.
        #[arg(long)]
        witnessed: bool,
    },
    /// Recompute every hash and the root of a stopped server's directory.
    Fsck,
    /// Print the trust policy for verifiers.
    Policy,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where to; must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Also the signing keys and the wrapped evidence keys: the copy can then go on as the server,
    /// and whoever holds the wrap key reads sealed content.
    #[arg(long)]
    pub(crate) with_keys: bool,
}
