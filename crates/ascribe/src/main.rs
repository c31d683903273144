//! ascribe: privileged session attribution.

mod answer;
mod api;
mod cast;
mod cli;
mod client;
mod cmd;
mod exit;
mod http;
mod login;
mod objects;
mod passphrase;
mod reconcile;
mod registry;
mod server;
mod signer;
mod tls;
mod windows;
mod witness;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::cmd::{
    ask, ca, connect, delegate, demo, directory, identity, init, ledger, list, manual, read,
    remark, serve, setup, tunnel, verify, workload,
};
use crate::exit::{Done, Failure, Kind};

fn dispatch(cli: &Cli) -> Done {
    match &cli.command {
        Command::Init(args) => init::run(cli, args),
        Command::Join(args) => setup::join(cli, args),
        Command::Serve(args) => serve::run(cli, args),
        Command::Demo(args) => demo::run(cli, args),
        Command::SshConfig(args) => connect::ssh_config(cli, args),
        Command::Connect(args) => connect::connect(cli, args),
        Command::Psql(args) => cmd::psql::psql(cli, args),
        Command::Tunnel(args) => tunnel::tunnel(cli, args),
        Command::Token(args) => tunnel::token(cli, args),
        Command::Job(command) => cmd::job::job(cli, command),
        Command::Login(args) => cmd::login::login(cli, args),
        Command::Logout(args) => cmd::login::logout(cli, args),
        Command::Target(command) => setup::target(cli, command),
        Command::Person(command) => setup::person(cli, command),
        Command::Key(command) => setup::key(cli, command),
        Command::Ca(command) => ca::ca(cli, command),
        Command::Provider(command) => identity::provider(cli, command),
        Command::Identity(command) => identity::identity(cli, command),
        Command::Workload(command) => workload::workload(cli, command),
        Command::Witness(command) => cmd::witness::witness(cli, command),
        Command::Directory(command) => directory::directory(cli, command),
        Command::Request(args) => ask::request(cli, args),
        Command::Requests(args) => list::requests(cli, args),
        Command::Approve(args) => ask::approve(cli, args),
        Command::Deny(args) => ask::answer(cli, args, ask::Kind::Deny),
        Command::Cancel(args) => ask::answer(cli, args, ask::Kind::Cancel),
        Command::Extend(args) => ask::extend(cli, args),
        Command::Revoke(args) => ask::revoke(cli, args),
        Command::Terminate(args) => ask::terminate(cli, args),
        Command::Watch { session } => read::watch(cli, *session),
        Command::Review(args) => ask::review(cli, args),
        Command::Delegate(args) => delegate::delegate(cli, args),
        Command::Delegations(args) => delegate::list(cli, args),
        Command::Grants(args) => list::grants(cli, args),
        Command::Use { grant } => ask::choose(cli, *grant),
        Command::Can => list::can(cli),
        Command::Sessions(args) => list::sessions(cli, args),
        Command::Actions(args) => read::actions(cli, args),
        Command::Show { id } => read::show(cli, id),
        Command::Replay(args) => read::replay(cli, args),
        Command::Export(args) => read::export(cli, args),
        Command::Reconcile(command) => cmd::reconcile::reconcile(cli, command),
        Command::Verify(args) => verify::verify(cli, args),
        Command::Ledger(command) => ledger::run(cli, command),
        Command::Backup(args) => ledger::backup(cli, args),
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man { dir } => manual::pages(cli, dir),
    }
}

/// Says what failed, and the way out.
fn report(failure: &Failure, json: bool) {
    let message = ascribe_core::text::clean(&failure.message, 4000);
    let help = failure
        .help
        .as_deref()
        .map(|help| ascribe_core::text::clean(help, 2000));
    if json {
        let value =
            serde_json::json!({ "error": message, "help": help, "exit_code": failure.kind.code() });
        remark(&value.to_string());
        return;
    }
    remark(&format!("error: {message}"));
    if let Some(help) = help {
        remark(&format!("  help: {help}"));
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new("warn"))
        .with_ansi(false)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is a usage error.
            if error.use_stderr() {
                // It repeats what was typed, or pasted.
                let unknown = error.kind() == clap::error::ErrorKind::UnknownArgument;
                for line in error.render().to_string().lines() {
                    remark(&ascribe_core::text::clean(line, 1000));
                }
                if unknown && std::env::args_os().any(|word| word == "--token-command") {
                    remark(
                        "  help: `--token-command` takes one argument: quote the program together with its arguments",
                    );
                }
                return ExitCode::from(Kind::Usage.code());
            }
            if error.print().is_err() {
                return ExitCode::from(Kind::Failure.code());
            }
            return ExitCode::SUCCESS;
        }
    };
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, cli.json());
            failure.exit()
        }
    }
}
