//! The part of the command line that is about databases.

use std::path::PathBuf;

use ascribe_core::database::Values;
use ascribe_core::id::StatementId;
use ascribe_gateway::OauthPlace;
use clap::{Args, Subcommand, ValueEnum};

use super::parse::Words;

/// How clients reach databases.
#[derive(Debug, Args)]
pub(crate) struct ServePostgres {
    /// Where the PostgreSQL gateway listens, for clients that log in with `ascribe token`, or with a workload's own
    /// token. It has a certificate that they check; `ascribe psql` and `ascribe tunnel` need neither.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["postgres_cert", "postgres_key"])]
    pub(crate) postgres: Option<String>,
    /// Its certificate and those above it (PEM).
    #[arg(long, value_name = "FILE", requires = "postgres")]
    pub(crate) postgres_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "postgres")]
    pub(crate) postgres_key: Option<PathBuf>,
    /// Where clients that speak protocol 3 by its name in TLS (libpq since 17) are asked for a token by SASL's
    /// OAUTHBEARER, which libpq knows since 18: the provider that they are told to get one from, and the scope to ask it
    /// for. Others are asked for it as the password, as everywhere else.
    #[arg(long, value_name = "[ROLE@]TARGET=PROVIDER[:SCOPE]", requires = "postgres",
        value_parser = super::parse::oauth_place)]
    pub(crate) postgres_oauth: Vec<OauthPlace>,
    /// Passwords of databases' roles, each in a file `TARGET/ROLE`; without it, those that systemd lends
    /// (`ROLE@TARGET`), or `credentials` in the data directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) credentials: Option<PathBuf>,
    /// Credentials of databases in HashiCorp Vault or OpenBao: a file that says where it is, how to log in to it,
    /// and what is there. It is read anew for each connection.
    #[arg(long, value_name = "FILE")]
    pub(crate) vault: Option<PathBuf>,
    /// Memory that clients of databases can make the gateway hold, over all sessions, in MiB: prepared
    /// statements, portals, messages on their way. Who asks for more than is left is refused.
    #[arg(long, value_name = "MIB", default_value_t = MEMORY,
        value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    pub(crate) postgres_memory: u32,
}

/// Unless something else is asked for, in MiB.
const MEMORY: u32 = 1024;

impl Default for ServePostgres {
    fn default() -> Self {
        Self {
            postgres: None,
            postgres_cert: None,
            postgres_key: None,
            postgres_oauth: Vec::new(),
            credentials: None,
            vault: None,
            postgres_memory: MEMORY,
        }
    }
}

/// What a target is, where it is a database.
#[derive(Debug, Args)]
pub(crate) struct PostgresTarget {
    /// It is a PostgreSQL server.
    #[arg(long, conflicts_with_all = ["host_keys", "refuse_inner_ssh"])]
    pub(crate) postgres: bool,
    /// The certificate (PEM) that signed the server's, or is it. Only on the gateway's own machine may there
    /// be none.
    #[arg(long = "tls-ca", value_name = "FILE", requires = "postgres")]
    pub(crate) tls_ca: Vec<PathBuf>,
    /// A database that may be connected to; without it, all.
    #[arg(long = "database", value_name = "NAME", requires = "postgres")]
    pub(crate) databases: Vec<String>,
    /// Allow what is refused by itself: `set-role`, `set-session-authorization`, `alter-system`,
    /// `copy-program`, `server-file`, `load`, `do`, `replication`, `unread`.
    #[arg(long = "allow", value_name = "FLAG", requires = "postgres")]
    pub(crate) allow: Vec<String>,
    /// What is kept, sealed, of the values that statements are executed with.
    #[arg(long, value_enum, default_value = "full", requires = "postgres")]
    pub(crate) values: Keep,
}

/// What is kept of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// Nothing.
    None,
    /// Their SHA-256.
    Commitment,
    /// The values.
    Full,
}

impl From<Keep> for Values {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::None => Self::None,
            Keep::Commitment => Self::Commitment,
            Keep::Full => Self::Full,
        }
    }
}

/// What a request asks for on a database. Nothing given bounds nothing.
#[derive(Debug, Default, Args)]
pub(crate) struct SqlRequest {
    /// On a database: a class of statements, such as `select`, `update` or `ddl`.
    #[arg(long = "class", value_name = "CLASS", conflicts_with = "break_glass", value_parser = super::parse::class)]
    pub(crate) classes: Vec<String>,
    /// On a database: what statements may name, `SCHEMA.TABLE` or `SCHEMA.*`.
    #[arg(long = "object", value_name = "OBJECT", conflicts_with = "break_glass")]
    pub(crate) objects: Vec<String>,
    /// On a database: exactly the statements of this file, in order, each once in a session.
    #[arg(long, value_name = "FILE", conflicts_with = "break_glass")]
    pub(crate) script: Option<PathBuf>,
    /// The maintenance job that it is for, and when that runs: `ascribe job add` fills it in.
    #[arg(skip)]
    pub(crate) job: Option<(String, String)>,
    /// The command that the job is, where it is no script.
    #[arg(skip)]
    pub(crate) command: Vec<String>,
}

/// A role on a database.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// `ROLE@TARGET`, or `ROLE+GRANT@TARGET`.
    pub(crate) place: String,
}

#[derive(Debug, Args)]
pub(crate) struct Tunnel {
    /// `ROLE@TARGET`, or `ROLE+GRANT@TARGET`.
    pub(crate) place: String,
    /// The port to listen at, on 127.0.0.1 and for your programs alone; 0 picks one.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Psql {
    /// `ROLE@TARGET`, or `ROLE+GRANT@TARGET`.
    pub(crate) place: String,
    /// What psql is called with.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Ask for a job: a script, or a command, that a workload runs again and again, each run a session of its own. The
    /// target's system owner must be among those who approve.
    Add(JobAdd),
    /// Approve a job, if its script is the one in the file, or its command is this one.
    Approve(JobApprove),
    /// Run a job now, as its workload: what cron calls.
    Run(JobRun),
    /// List jobs.
    List,
    /// List runs of a job, newest last.
    Runs {
        /// Its name.
        name: String,
    },
}

/// What a job runs.
#[derive(Debug, Args)]
pub(crate) struct JobDefinition {
    /// The script: SQL alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Or the command, word by word: a program that is a client of PostgreSQL's, and what it is called with. No shell
    /// runs it.
    #[arg(
        last = true,
        value_name = "COMMAND",
        conflicts_with = "file",
        required_unless_present = "file"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JobApprove {
    /// Its name.
    pub(crate) name: String,
    /// `ROLE@TARGET`, as it was asked for where you read it: it is compared.
    pub(crate) place: Option<String>,
    /// As it was handed to you.
    #[command(flatten)]
    pub(crate) definition: JobDefinition,
    /// A class of statements that it may have, as asked for: of a command, all of them, for nothing else bounds it.
    /// `ascribe show` with the request's id has them.
    #[arg(long = "class", value_name = "CLASS", value_parser = super::parse::class)]
    pub(crate) classes: Vec<String>,
    /// What its statements may name, if you want that compared too.
    #[arg(long = "object", value_name = "OBJECT")]
    pub(crate) objects: Vec<String>,
    /// Which request, where several are for the same.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<StatementId>,
    /// A remark, sealed.
    #[arg(long)]
    pub(crate) remark: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JobAdd {
    /// Its name.
    pub(crate) name: String,
    /// `ROLE@TARGET`.
    pub(crate) place: String,
    #[command(flatten)]
    pub(crate) definition: JobDefinition,
    /// When it is meant to run, in one line; nothing here starts it.
    #[arg(long)]
    pub(crate) schedule: String,
    /// The workload that runs it; you answer for it.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: String,
    /// What for. Sealed in the ledger.
    #[arg(long)]
    pub(crate) why: String,
    /// `SYSTEM:ID`.
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// How long it may run before it is approved anew; without, as long as the target's rules allow.
    #[arg(long = "for", value_name = "DURATION", value_parser = super::parse::seconds)]
    pub(crate) window: Option<u64>,
    /// Only statements of this class. A command has at least one.
    #[arg(long = "class", value_name = "CLASS", value_parser = super::parse::class)]
    pub(crate) classes: Vec<String>,
    /// Only statements on this, `SCHEMA.TABLE` or `SCHEMA.*`.
    #[arg(long = "object", value_name = "OBJECT")]
    pub(crate) objects: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JobRun {
    /// Its name.
    pub(crate) name: String,
    /// As it is now: it runs only if it is what was approved. A command finds the way in PGHOST, PGPORT, PGUSER and
    /// PGDATABASE, and needs no password.
    #[command(flatten)]
    pub(crate) definition: JobDefinition,
    /// The database; without it the one that is called like the role.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// File with the workload's own token; without it what runs the job is asked for one.
    #[arg(long, value_name = "FILE", conflicts_with = "token_command")]
    pub(crate) token_file: Option<PathBuf>,
    /// Program that prints the workload's token for the audience in ASCRIBE_AUDIENCE, with its arguments: one text,
    /// quoted as for a shell (`--token-command "PROGRAM ARGUMENT ..."`). No shell runs it.
    #[arg(long, value_name = "COMMAND", value_parser = super::parse::words)]
    pub(crate) token_command: Option<Words>,
    /// File with the workload's X.509-SVID, PEM: its certificate first, then each one's issuer, without the root.
    #[arg(
        long,
        value_name = "CERT.pem",
        requires = "svid_key",
        conflicts_with_all = ["token_file", "token_command"]
    )]
    pub(crate) svid: Option<PathBuf>,
    /// File with its private key, PEM.
    #[arg(long, value_name = "KEY.pem", requires = "svid")]
    pub(crate) svid_key: Option<PathBuf>,
    /// Which of the ids that SPIFFE's agent (SPIFFE_ENDPOINT_SOCKET) knows this process by; the first without.
    #[arg(long, value_name = "SPIFFE-ID", requires = "workload", conflicts_with_all = ["svid", "token_file", "token_command"])]
    pub(crate) spiffe_id: Option<String>,
    /// The workload; without it, a login that was made before is used.
    #[arg(long, value_name = "NAME")]
    pub(crate) workload: Option<String>,
}

/// Comparing a database's own log with the ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum Reconcile {
    /// Compare a PostgreSQL server's log: csvlog, jsonlog, or stderr with
    /// `log_line_prefix = '%m %p %c %r %a '`.
    Postgres(ReconcilePostgres),
    /// List what is on record, newest last.
    List,
    /// Show one that is on record, with its sealed list of what passed the gateway by.
    Show {
        /// Its id.
        id: StatementId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReconcilePostgres {
    /// Files of the log, all of one format.
    #[arg(required = true, value_name = "LOG")]
    pub(crate) logs: Vec<PathBuf>,
    /// The server's target; several where it is registered under several names. Needed where more than one
    /// database is registered.
    #[arg(long = "target", value_name = "NAME")]
    pub(crate) targets: Vec<String>,
    /// Only sessions from this address can be the gateway's, as the log writes it; without it, from any.
    #[arg(long = "from", value_name = "ADDRESS")]
    pub(crate) from: Vec<String>,
    /// The log's format; without it, by the files' names: `.csv`, `.json`, anything else is stderr.
    #[arg(long, value_enum)]
    pub(crate) format: Option<LogFormat>,
    /// Compare and record nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How a database writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// csvlog.
    Csv,
    /// jsonlog.
    Json,
    /// stderr with the documented prefix.
    Stderr,
}
