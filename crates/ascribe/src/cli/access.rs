//! Grants, sessions and delegations: asking, answering, ending.

use std::path::PathBuf;

use ascribe_core::id::{GrantId, SessionId, StatementId};
use ascribe_core::statement::{Forward, Verdict};
use clap::{Args, Subcommand};

use super::database::SqlRequest;
use super::parse::{forward, seconds, verdict};

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
    pub(crate) sql: SqlRequest,
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
    /// `scp`, `forward`, `pg` (statements on a database). May be given several times.
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
    /// Approve only if exactly the statements of this file are asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "unread")]
    pub(crate) script: Option<PathBuf>,
    /// Approve a script or a job without the file or the command that you read.
    #[arg(long)]
    pub(crate) unread: bool,
    /// Approve only if this command is asked for: `ascribe job approve` fills it in.
    #[arg(skip)]
    pub(crate) command: Vec<String>,
    /// And only if it is bounded so.
    #[arg(skip)]
    pub(crate) bounds: crate::cmd::command::Bounds,
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
