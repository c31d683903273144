//! The command line.

mod access;
pub(crate) mod database;
mod identity;
mod parse;
mod record;
mod registry;
mod server;

use std::path::PathBuf;

use ascribe_core::id::{GrantId, SessionId};
use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use access::{
    Accept, Answer, Approve, Delegate, DelegateCommand, Extend, Listing, NewDelegation, Request,
    Review, Revoke, Terminate,
};
pub(crate) use identity::{
    AuthnArgs, Connect, DirectoryCommand, IdentityArgs, IdentityCommand, Login, Logout,
    ObserversArgs, ProviderAdd, ProviderCommand, WorkloadAdd, WorkloadCommand,
};
pub(crate) use parse::word_of;
pub(crate) use record::{Actions, Export, Replay};
pub(crate) use registry::{
    CaCommand, CaSet, KeyCommand, PersonCommand, TargetAdd, TargetCommand, WitnessCommand,
};
pub(crate) use server::{
    Backup, Bounds, Demo, Init, Join, LedgerCommand, Serve, SshConfig, Verify,
};

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
    /// The key that signs: your SSH key, or else ssh-agent is asked; with `ascribe witness init` and `run` the
    /// witness's own.
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
    /// Maintenance jobs: approved scripts that run under a workload's own identity.
    #[command(subcommand)]
    Job(database::JobCommand),
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
    /// Directories of people, which say who is in which groups: over SCIM, in signed files, or by tokens.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
