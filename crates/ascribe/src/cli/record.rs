//! What was recorded.

use std::path::PathBuf;

use ascribe_core::id::{ActionId, GrantId, SessionId};
use clap::Args;

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
    /// Statements on databases that name this: `SCHEMA.NAME`, or `SCHEMA.*`. A name that is written without its schema
    /// counts for every schema.
    #[arg(long, value_name = "OBJECT", value_parser = str::parse::<crate::objects::Wanted>)]
    pub(crate) object: Option<crate::objects::Wanted>,
    /// By runs of this maintenance job.
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// In this run of a pipeline: its id at the provider.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// By code of this commit, or of the one that begins so (seven letters at least).
    #[arg(long, value_parser = super::parse::commit)]
    pub(crate) commit: Option<String>,
    /// With a second line each: the run, the job and who answers for it, who approved, the ticket. Statements on a
    /// database have it where `--target` is given.
    #[arg(long)]
    pub(crate) why: bool,
    /// What was asked for and refused, instead: within sessions, and before there was one. Only the former are in a
    /// session, as an account and on a target.
    #[arg(long, conflicts_with_all = ["actor", "agent", "grant", "ticket", "text", "object", "job", "run", "commit", "why"])]
    pub(crate) refused: bool,
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
