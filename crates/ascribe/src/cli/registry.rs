//! Targets, people, keys, authorities and witnesses.

use std::path::PathBuf;

use ascribe_core::directory::DirectoryGroup;
use ascribe_core::statement::{OverCap, Role};
use ascribe_core::witness::Demand;
use clap::{Args, Subcommand};

use super::database::PostgresTarget;
use super::parse::{demand, directory_group, over_cap, role, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Register a target, or replace its rules.
    Add(Box<TargetAdd>),
    /// List targets.
    List,
    /// Show one.
    Show {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TargetAdd {
    /// Name, as people type it.
    pub(crate) name: String,
    /// `HOST[:PORT]`.
    #[arg(long)]
    pub(crate) address: String,
    /// A file with its host keys: `.pub` lines, or `ssh-keyscan` output.
    #[arg(long, value_name = "FILE", required_unless_present = "postgres")]
    pub(crate) host_keys: Option<PathBuf>,
    /// Accounts that may be asked for.
    #[arg(long = "account", required = true)]
    pub(crate) accounts: Vec<String>,
    /// The person who answers for it: id or name.
    #[arg(long)]
    pub(crate) owner: String,
    /// Approvals that a request needs.
    #[arg(long, default_value_t = 1)]
    pub(crate) quorum: u32,
    /// People each of whom must approve.
    #[arg(long = "approver")]
    pub(crate) approvers: Vec<String>,
    /// Longest window.
    #[arg(long, default_value = "8h", value_parser = seconds)]
    pub(crate) max: u64,
    /// Least characters of a justification.
    #[arg(long, default_value_t = 12)]
    pub(crate) min_justification: u32,
    /// Demand a ticket: `SYSTEM:PATTERN` (`#` digits, `@` letters, `*` letters, digits, `-`, `_`).
    #[arg(long, value_name = "SYSTEM:PATTERN")]
    pub(crate) ticket: Option<String>,
    /// People who may break glass.
    #[arg(long = "break-glass")]
    pub(crate) break_glass: Vec<String>,
    /// When a break-glass review is due.
    #[arg(long, default_value = "3d", value_parser = seconds)]
    pub(crate) review: u64,
    /// Most bytes of a stream that are stored.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    pub(crate) cap: u64,
    /// What happens beyond.
    #[arg(long, default_value = "digest", value_parser = over_cap)]
    pub(crate) over_cap: OverCap,
    /// The target is on the gateway's own machine.
    #[arg(long)]
    pub(crate) allow_loopback: bool,
    /// Let sessions in only when their actor signed the opening (`ascribe connect`; on a
    /// database everybody does but a workload whose own token is the password).
    #[arg(long)]
    pub(crate) signed_opening: bool,
    /// Tell a watched person who watches.
    #[arg(long)]
    pub(crate) watch_notice: bool,
    /// Cut forwarded connections in which SSH is spoken; without, that is only noted.
    #[arg(long)]
    pub(crate) refuse_inner_ssh: bool,
    /// Least assurance of whoever opens a session: 1 bearer token, 2 enrolled key or token bound to the
    /// key, 3 security key that was touched (databases).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) actor_assurance: Option<u8>,
    /// Least assurance of whoever approves or breaks glass; 2 if not given, 3 wants a security key's touch.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) approver_assurance: Option<u8>,
    /// Whoever approves is in this group; repeatable, one of them is enough. The directory's rules name it.
    #[arg(long = "approver-group", value_name = "DIRECTORY:GROUP", value_parser = directory_group)]
    pub(crate) approver_groups: Vec<DirectoryGroup>,
    /// The manager of whoever asks is among the approvers. A directory says who that is.
    #[arg(long)]
    pub(crate) manager_approves: bool,
    /// Let no new sessions in while something older than this is recorded that witnesses have not seen.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) max_unwitnessed: Option<u64>,
    #[command(flatten)]
    pub(crate) database: PostgresTarget,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PersonCommand {
    /// Enrol a person.
    Add {
        /// Display name; sealed in the ledger.
        name: String,
        /// A public key file.
        #[arg(long = "public-key", value_name = "FILE.pub", required = true)]
        keys: Vec<PathBuf>,
        /// A role; none for whoever only observes providers' keys or signs a directory's files.
        #[arg(long = "role", value_parser = role)]
        roles: Vec<Role>,
    },
    /// List people.
    List,
    /// A person leaves: ends grants and sessions.
    Offboard {
        /// Id or name.
        person: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add a key to a person.
    Add {
        /// Id or name.
        person: String,
        /// The public key file.
        #[arg(long = "public-key", value_name = "FILE.pub")]
        file: PathBuf,
    },
    /// Take a key away, at once: your own, or as an admin anyone's.
    Revoke {
        /// Id or name.
        person: String,
        /// The public key file.
        #[arg(long = "public-key", value_name = "FILE.pub")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Register an authority, or change one: a list that is given replaces the known one, and what is
    /// revoked is added to what was.
    Set(CaSet),
    /// List authorities.
    List,
    /// Withdraw an authority: sessions by its certificates end.
    Withdraw {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Make a witness's key in a new file, `--key FILE`, and print what others put in their policies.
    Init {
        /// The witness's name: a schema-less URL, for instance `witness.example.org`.
        #[arg(long)]
        name: String,
    },
    /// Be a witness of other logs, with the key in `--key FILE`.
    Run {
        /// Where to listen, for HTTP. TLS is for a proxy in front of it.
        #[arg(long, value_name = "HOST:PORT")]
        listen: String,
        /// A directory of this witness alone: what it has seen of each log.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// A C2SP tlog-policy that names a log, as `ascribe ledger policy` prints it.
        #[arg(long = "log", value_name = "POLICY", required = true)]
        logs: Vec<PathBuf>,
    },
    /// Name this log's witnesses and what waits for them.
    Set {
        /// A C2SP tlog-policy with an address for each witness. The line of the log itself may be left
        /// out. With `quorum none` the witnesses are withdrawn.
        policy: PathBuf,
        /// What takes effect only when they have seen it: `break-glass`, `keys`, `people` or `policy`. May
        /// be given several times.
        #[arg(long = "demand", value_parser = demand)]
        demand: Vec<Demand>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CaSet {
    /// Name, as records show it.
    pub(crate) name: String,
    /// A file with a public key that it signs with.
    #[arg(long = "public-key", value_name = "CA.pub")]
    pub(crate) keys: Vec<PathBuf>,
    /// Whom a principal of its certificates stands for: id or name, and the exact principal.
    #[arg(long = "person", value_name = "PERSON=PRINCIPAL")]
    pub(crate) people: Vec<String>,
    /// Certificates of this serial no longer count.
    #[arg(long = "revoke-serial", value_name = "N")]
    pub(crate) serials: Vec<u64>,
    /// Certificates of this key id no longer count.
    #[arg(long = "revoke-key-id", value_name = "ID")]
    pub(crate) key_ids: Vec<String>,
}
