//! The command line.

use std::path::PathBuf;

use ascribe_core::directory::GroupRole;
use ascribe_core::id::{ActionId, GrantId, SessionId, StatementId};
use ascribe_core::identity::ProviderKind;
use ascribe_core::statement::{
    Anywhere, Destination, Forward, Listen, OverCap, Role, SocketPath, Verdict,
};
use ascribe_core::witness::Demand;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) mod database;

/// Privileged session attribution: who did what, when and why, provable offline.
#[derive(Debug, Parser)]
#[command(
    name = "ascribe",
    version,
    after_help = "Exit codes: 0 ok, 1 failure, 2 denied, 3 usage or configuration, 4 proof failed."
)]
pub(crate) struct Cli {
    /// The server's data directory.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How results are printed.
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        default_value = "text"
    )]
    pub(crate) output: Output,
    /// Your SSH key; without it ssh-agent is asked.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new ledger. The server never does this by itself.
    Init(Init),
    /// Set this machine up as a client of a server.
    Join(Join),
    /// Run the server: ledger, API and SSH gateway.
    Serve(Serve),
    /// Start everything on loopback in a temporary directory, with a real sshd as target.
    Demo(Demo),
    /// Print what plain `ssh ACCOUNT@TARGET` needs, or write it.
    SshConfig(SshConfig),
    /// Log in through a provider: a session key for some hours, in ssh-agent.
    Login(Login),
    /// End your logins before their time.
    Logout(Logout),
    /// Open a session that you sign: ssh's ProxyCommand, as `ssh-config` writes it.
    Connect(Connect),
    /// Run psql on a database, in a session that you sign.
    Psql(database::Psql),
    /// Lend your programs a way to a database: a port on loopback, each connection a session that you sign.
    Tunnel(database::Tunnel),
    /// Print a password for one connection to a database: a statement that you sign.
    Token(database::Token),
    /// Targets.
    #[command(subcommand)]
    Target(TargetCommand),
    /// People.
    #[command(subcommand)]
    Person(PersonCommand),
    /// Keys of people.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Outside certificate authorities, whose user certificates count as a person's login.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Providers of identities, whose tokens count as logins.
    #[command(subcommand)]
    Provider(ProviderCommand),
    /// Whom a provider's subjects stand for.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Pipelines and services that act by themselves, and who answers for them.
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Witnesses of the log, who remember how far it had grown.
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Directories of people, which say over SCIM who is still there and in which groups.
    #[command(subcommand)]
    Directory(DirectoryCommand),
    /// Ask for a grant.
    Request(Request),
    /// List what waits for approval.
    Requests(Listing),
    /// Approve a request, an extension or a proposal.
    Approve(Approve),
    /// Say no to it.
    Deny(Answer),
    /// Withdraw what you asked for.
    Cancel(Answer),
    /// Ask for a later end of your grant.
    Extend(Extend),
    /// End a grant and its sessions now.
    Revoke(Revoke),
    /// End one session now; its grant goes on.
    Terminate(Terminate),
    /// Look on while a session runs. That you do is on record.
    Watch {
        /// The session.
        session: SessionId,
    },
    /// Close the review of a break-glass grant.
    Review(Review),
    /// Let an agent act within your grants; as an agent, hand on less of that.
    Delegate(Box<Delegate>),
    /// List delegations: who handed on what to whom, and what is left of it.
    Delegations(Listing),
    /// List grants.
    Grants(Listing),
    /// Choose which of several fitting grants is meant.
    Use {
        /// The grant.
        grant: GrantId,
    },
    /// What may I do?
    Can,
    /// List sessions.
    Sessions(Listing),
    /// List actions: who, what, when, why.
    Actions(Actions),
    /// Show a request, a grant, a session or an action.
    Show {
        /// Its id.
        id: String,
    },
    /// Play a terminal session.
    Replay(Replay),
    /// Write a bundle that proves a session offline.
    Export(Export),
    /// Compare a database's own log with the ledger: what passed the gateway by. Recorded, unless it is a dry run.
    #[command(subcommand)]
    Reconcile(database::Reconcile),
    /// Check a bundle or a directory, offline.
    Verify(Verify),
    /// The ledger itself.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Copy a stopped server's data directory.
    Backup(Backup),
    /// Print the completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a command.
    Man {
        /// An existing directory.
        dir: PathBuf,
    },
}

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
    pub(crate) postgres: database::ServePostgres,
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
pub(crate) struct Login {
    /// The provider, where several are registered.
    #[arg(long, value_name = "NAME", conflicts_with = "workload")]
    pub(crate) provider: Option<String>,
    /// Log in on another device: for machines without a browser. Counts for less, since nothing then
    /// binds the login to this machine's key.
    #[arg(long, conflicts_with = "workload")]
    pub(crate) device: bool,
    /// Print the address instead of opening a browser.
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// The job's identity, by name: its own token, no person.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
    /// File with the job's token.
    #[arg(
        long,
        value_name = "FILE",
        requires = "workload",
        conflicts_with = "token_command"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Program that prints the job's token for the audience in ASCRIBE_AUDIENCE.
    #[arg(long, value_name = "PROGRAM", requires = "workload", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) token_command: Vec<String>,
    /// File with the workload's X.509-SVID, PEM: its certificate first, then each one's issuer, without the root.
    #[arg(
        long,
        value_name = "CERT.pem",
        requires = "workload",
        requires = "svid_key",
        conflicts_with_all = ["token_file", "token_command"]
    )]
    pub(crate) svid: Option<PathBuf>,
    /// File with its private key, PEM. The key stays there; it signs for this login's key.
    #[arg(long, value_name = "KEY.pem", requires = "svid")]
    pub(crate) svid_key: Option<PathBuf>,
    /// How long the key counts, at most 12h.
    #[arg(long = "for", value_name = "DURATION", default_value = "8h", value_parser = seconds)]
    pub(crate) lasts: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The login; all of yours on this machine without.
    pub(crate) login: Option<StatementId>,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// `ACCOUNT@TARGET`, or `ACCOUNT+GRANT@TARGET`.
    pub(crate) place: String,
    /// Hand the connection to ssh (`ProxyUseFdpass yes`) instead of carrying its bytes.
    #[arg(long)]
    pub(crate) pass: bool,
}

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
    /// Let sessions in only when their actor signed the opening (`ascribe connect`).
    #[arg(long)]
    pub(crate) signed_opening: bool,
    /// Tell a watched person who watches.
    #[arg(long)]
    pub(crate) watch_notice: bool,
    /// Cut forwarded connections in which SSH is spoken; without, that is only noted.
    #[arg(long)]
    pub(crate) refuse_inner_ssh: bool,
    /// Least assurance of whoever opens a session: 1 bearer token, 2 enrolled key or token bound to the
    /// key.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) actor_assurance: Option<u8>,
    /// Least assurance of whoever approves.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) approver_assurance: Option<u8>,
    /// Let no new sessions in while something older than this is recorded that witnesses have not seen.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) max_unwitnessed: Option<u64>,
    #[command(flatten)]
    pub(crate) database: database::PostgresTarget,
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
        /// A role.
        #[arg(long = "role", value_parser = role, required = true)]
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

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// Register a provider, or replace one.
    Add(ProviderAdd),
    /// List providers.
    List,
    /// Withdraw a provider: its logins and their sessions end.
    Withdraw {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProviderAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// `oidc` or `entra` for people; `github`, `buildkite`, `circleci`, `kubernetes`, `spiffe` (JWT-SVIDs),
    /// `spiffe-x509` (X.509-SVIDs), `gitlab` or `workload` for workloads.
    #[arg(long, value_parser = provider_kind)]
    pub(crate) kind: ProviderKind,
    /// The exact issuer in its tokens; of X.509-SVIDs the trust domain, `spiffe://DOMAIN`.
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: String,
    /// Whom its tokens are meant for: the client id; for workloads the beginning of the audience.
    #[arg(long)]
    pub(crate) audience: String,
    /// Where its keys are published, if not where its configuration says.
    #[arg(long, value_name = "URL")]
    pub(crate) jwks: Option<String>,
    /// A signature algorithm that counts.
    #[arg(long = "algorithm", default_values = ["ES256", "RS256"])]
    pub(crate) algorithms: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Say that a person is who a provider's tokens name.
    Link(IdentityArgs),
    /// Take that back, at once: your own, or as an admin anyone's. Their logins end.
    Unlink(IdentityArgs),
    /// List them.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    /// Id or name.
    pub(crate) person: String,
    /// The provider.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// The token's `sub`; at Entra `TID/OID`. The ledger holds a digest of it and the issuer.
    #[arg(long, value_name = "SUB")]
    pub(crate) subject: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryCommand {
    /// Register a directory, or replace its rules. Its token is printed once.
    Add(DirectoryAdd),
    /// List directories.
    List,
    /// Draw another token and print it once; the one before counts no longer.
    Token {
        /// Its name.
        name: String,
    },
    /// Withdraw a directory: suspensions by it end, roles by its groups too.
    Withdraw {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DirectoryAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// The provider whose subjects its users are: SCIM's `externalId` is the subject.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// Suspend linked people whom it calls inactive.
    #[arg(long)]
    pub(crate) suspend: bool,
    /// Members of this group have this role: `requester`, `approver` or `auditor`.
    #[arg(long = "role", value_name = "GROUP=ROLE", value_parser = group_role)]
    pub(crate) roles: Vec<GroupRole>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadCommand {
    /// Enrol a workload, or replace its rule.
    Add(WorkloadAdd),
    /// List workloads: who answers for them, how old their rules are, what they hold and use.
    List,
    /// Show one.
    Show {
        /// Name or id.
        name: String,
    },
    /// Somebody else answers for it from now on.
    Owner {
        /// Name or id.
        name: String,
        /// Id or name of the person.
        person: String,
    },
    /// It acts no longer: its logins and sessions end.
    Withdraw {
        /// Name or id.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WorkloadAdd {
    /// Name, as records show it.
    pub(crate) name: String,
    /// The provider of its tokens.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: String,
    /// The person who answers for it: id or name.
    #[arg(long)]
    pub(crate) owner: String,
    /// A claim and the exact value that it must have. Given again with the same claim: one of them.
    #[arg(long = "when", value_name = "CLAIM=VALUE", value_parser = claim, required = true)]
    pub(crate) conditions: Vec<(String, String)>,
    /// Why a rule that many could meet is meant as it is. Sealed in the ledger.
    #[arg(long, value_name = "TEXT")]
    pub(crate) confirm: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// `ACCOUNT@TARGET`.
    pub(crate) what: String,
    /// How long, for instance `1h`.
    #[arg(long = "for", default_value = "1h", value_parser = seconds)]
    pub(crate) window: u64,
    /// When it begins, in RFC 3339 with offset; without: now. With `--windows` also a day.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Several windows: days, local times and their zone, for instance
    /// `Tue,Thu 08:00-18:00 Europe/Berlin`, `Mon-Fri 22:00-06:00 UTC`, `daily 00:00-24:00 Asia/Tokyo`.
    /// Any number of sessions; each ends with its window.
    #[arg(long, value_name = "RULE", requires = "until", conflicts_with_all = ["window", "break_glass"])]
    pub(crate) windows: Option<String>,
    /// The last day of the windows, or a time in RFC 3339 with offset.
    #[arg(long, value_name = "DAY", requires = "windows")]
    pub(crate) until: Option<String>,
    /// Why. Sealed in the ledger.
    #[arg(long)]
    pub(crate) why: String,
    /// `SYSTEM:ID`.
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// For a workload that you answer for: name or id.
    #[arg(long, value_name = "NAME", conflicts_with = "break_glass")]
    pub(crate) workload: Option<String>,
    /// Any number of sessions, not just one.
    #[arg(long)]
    pub(crate) reusable: bool,
    /// Allow a forwarding: `local:HOST:PORT`, `local:NAME=ADDRESS:PORT`, `dynamic`, `socket:/PATH`,
    /// `remote:PORT`, `remote-socket:/PATH`, `agent` or `x11`. May be given several times.
    #[arg(long = "forward", value_name = "WHAT", value_parser = forward)]
    pub(crate) forwards: Vec<Forward>,
    #[command(flatten)]
    pub(crate) sql: database::SqlRequest,
    /// An emergency: starts at once, without approval, and is reviewed.
    #[arg(long, conflicts_with_all = ["from", "reusable", "forwards"])]
    pub(crate) break_glass: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Delegate {
    #[command(subcommand)]
    pub(crate) command: Option<DelegateCommand>,
    #[command(flatten)]
    pub(crate) new: Option<NewDelegation>,
}

#[derive(Debug, Args)]
pub(crate) struct NewDelegation {
    /// The agent's name, as records show it.
    pub(crate) agent: String,
    /// The agent's public key file: a key that nobody has used here before.
    #[arg(long, value_name = "FILE.pub")]
    pub(crate) public_key: PathBuf,
    /// What for. Sealed in the ledger.
    #[arg(long)]
    pub(crate) task: String,
    /// On this target. May be given several times.
    #[arg(long = "target", required = true)]
    pub(crate) targets: Vec<String>,
    /// This kind of action, for instance `ssh.exec`, or class of them: `ssh` (commands, shells), `sftp`,
    /// `scp`, `forward`. May be given several times.
    #[arg(long = "kind", required = true)]
    pub(crate) kinds: Vec<String>,
    /// How long, for instance `1h`.
    #[arg(long = "for", value_parser = seconds)]
    pub(crate) window: u64,
    /// So many actions, those of its own agents included. A file transfer is one.
    #[arg(long, default_value_t = 100)]
    pub(crate) actions: u64,
    /// So many further steps: whether the agent may have agents of its own.
    #[arg(long, default_value_t = 0)]
    pub(crate) depth: u8,
    /// As an agent: the delegation that this one narrows. Without, it is your own.
    #[arg(long, value_name = "DELEGATION")]
    pub(crate) within: Option<StatementId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DelegateCommand {
    /// Take a delegation: signed with the agent's own key (`--key FILE`, or ssh-agent).
    Accept(Accept),
    /// End a delegation, all under it and their sessions, now.
    Revoke {
        /// The delegation.
        delegation: StatementId,
        /// Why. Sealed in the ledger.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Accept {
    /// The delegation.
    pub(crate) delegation: StatementId,
    /// The model, as the agent says. Nobody checks it, nor what follows.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The model's version.
    #[arg(long)]
    pub(crate) model_version: Option<String>,
    /// The program that drives the model.
    #[arg(long)]
    pub(crate) harness: Option<String>,
    /// The run.
    #[arg(long)]
    pub(crate) run: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// Also what is over.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// The request, extension or proposal.
    pub(crate) id: StatementId,
    /// A remark. Sealed in the ledger.
    #[arg(long)]
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    pub(crate) answer: Answer,
    /// Approve the windows as they were asked for, also where this machine's zone data gives others.
    #[arg(long)]
    pub(crate) accept_windows: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Extend {
    /// The grant.
    pub(crate) grant: GrantId,
    /// How much longer than now planned.
    #[arg(long = "by", value_parser = seconds)]
    pub(crate) by: u64,
    /// Why. Sealed in the ledger.
    #[arg(long)]
    pub(crate) why: String,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The grant.
    pub(crate) grant: GrantId,
    /// Why. Sealed in the ledger.
    #[arg(long)]
    pub(crate) why: String,
}

#[derive(Debug, Args)]
pub(crate) struct Terminate {
    /// The session.
    pub(crate) session: SessionId,
    /// Why. Sealed in the ledger.
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Review {
    /// The grant.
    pub(crate) grant: GrantId,
    /// `justified` or `unjustified`.
    #[arg(long, value_parser = verdict)]
    pub(crate) verdict: Verdict,
    /// The finding. Sealed in the ledger.
    #[arg(long)]
    pub(crate) finding: String,
}

#[derive(Debug, Args)]
pub(crate) struct Actions {
    /// By this person: id or part of the name.
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// By this agent, or one below it: its name or id.
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// As this account.
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// On this target.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// In this session.
    #[arg(long)]
    pub(crate) session: Option<SessionId>,
    /// Under this grant.
    #[arg(long)]
    pub(crate) grant: Option<GrantId>,
    /// For this ticket id.
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// Not before (RFC 3339).
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Before (RFC 3339).
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Whose command or justification holds this text.
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// In this run of a pipeline: its id at the provider.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// By code of this commit, or of the one that begins so (seven letters at least).
    #[arg(long)]
    pub(crate) commit: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The session.
    pub(crate) session: SessionId,
    /// One action of it.
    #[arg(long)]
    pub(crate) action: Option<ActionId>,
    /// Speed; 0 prints everything at once.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Longest pause, in seconds.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) idle: f64,
    /// Begin so many seconds in.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) seek: f64,
    /// Write one terminal action as an asciicast v3 file instead of playing it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["speed", "idle", "seek"])]
    pub(crate) asciicast: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The session.
    pub(crate) session: SessionId,
    /// Where the bundle goes.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: PathBuf,
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

/// `90`, `90s`, `15m`, `8h`, `3d` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no duration; write for instance `90s`, `15m`, `8h` or `3d`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    number
        .checked_mul(factor)
        .filter(|s| *s > 0 && *s < 1 << 40)
        .ok_or_else(bad)
}

fn group_role(text: &str) -> Result<GroupRole, String> {
    let (group, name) = text.rsplit_once('=').ok_or("write `GROUP=ROLE`")?;
    Ok(GroupRole {
        group: group.to_owned(),
        role: role(name)?,
    })
}

fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no role; roles are requester, approver, auditor, admin"))
}

fn demand(text: &str) -> Result<Demand, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| {
        format!("`{text}` is no demand; demands are break-glass, keys, people, policy")
    })
}

/// The word that stands for a demand.
pub(crate) fn word_of(demand: &Demand) -> String {
    let word = serde_json::to_value(demand).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

fn verdict(text: &str) -> Result<Verdict, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is neither `justified` nor `unjustified`"))
}

/// A forwarding as people write it.
pub(crate) fn forward(text: &str) -> Result<Forward, String> {
    let bad = || {
        format!(
            "`{text}` is no forwarding; write `local:HOST:PORT`, `local:NAME=ADDRESS:PORT`, `dynamic`, \
             `socket:/PATH`, `remote:PORT`, `remote-socket:/PATH`, `agent` or `x11`"
        )
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let path = || SocketPath {
        path: rest.to_owned(),
    };
    let forward = match (kind, rest.is_empty()) {
        ("dynamic", true) => Forward::Dynamic(Anywhere {}),
        ("agent", true) => Forward::Agent(Anywhere {}),
        ("x11", true) => Forward::X11(Anywhere {}),
        ("socket", false) => Forward::Socket(path()),
        ("remote-socket", false) => Forward::RemoteSocket(path()),
        ("remote", false) => Forward::Remote(Listen {
            port: rest.parse().map_err(|_| bad())?,
        }),
        ("local", false) => {
            let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
            let (host, address) = match host.split_once('=') {
                Some((name, address)) => (name.to_owned(), Some(bare(address))),
                None => (bare(host), None),
            };
            Forward::Local(Destination {
                host,
                port,
                address,
            })
        }
        _ => return Err(bad()),
    };
    Ok(forward)
}

fn provider_kind(text: &str) -> Result<ProviderKind, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no kind of provider; see `ascribe provider add --help`"))
}

fn claim(text: &str) -> Result<(String, String), String> {
    let (claim, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` names no value; write CLAIM=VALUE"))?;
    Ok((claim.to_owned(), value.to_owned()))
}

fn over_cap(text: &str) -> Result<OverCap, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is neither `digest` nor `refuse`"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn forwardings() {
        for good in [
            "dynamic",
            "agent",
            "x11",
            "socket:/run/x",
            "remote:0",
            "local:10.0.0.9:80",
            "local:[2001:db8::1]:80",
            "local:db=10.0.0.9:80",
        ] {
            assert!(forward(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "local",
            "local:80",
            "local:db:x",
            "local:db:70000",
            "agent:1",
            "remote:",
            "tun",
        ] {
            assert!(forward(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(
            (seconds("90"), seconds("8h"), seconds("3d")),
            (Ok(90), Ok(28_800), Ok(259_200))
        );
        for bad in ["", "h", "0", "-1h", "1w", "99999999999999999999", "1h1h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
