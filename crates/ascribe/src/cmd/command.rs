//! Jobs that are a command: its words are compared with what was approved, and it runs on a tunnel of its own. The law
//! compares the digest of the words that is stated, and bounds each statement; which program it really is nobody proves.

use std::collections::BTreeSet;
use std::process::Command;

use ascribe_core::database::{SqlScope, command_definition};
use ascribe_core::text::clean;
use ascribe_wire::pg::startup::UserName;

use super::connect::shell;
use super::tunnel;
use crate::client::Client;
use crate::exit::{Done, Failure, Kind};

/// The command as somebody types it, all of it: who approves it must see what they approve.
pub(super) fn shown(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell(word)).collect();
    words.join(" ")
}

/// Is what is asked for a job that is a command?
pub(super) fn is_command(scope: &SqlScope) -> bool {
    scope.job.is_some() && scope.script.is_empty()
}

/// Is it the command that is asked for?
pub(super) fn is_asked_for(words: &[String], scope: Option<&SqlScope>) -> Done {
    let Some(scope) = scope.filter(|scope| is_command(scope)) else {
        return Err(Failure::new(Kind::Denied, "no command was asked for")
            .help("what is asked for is a script: give its file"));
    };
    let here = command_definition(words);
    if scope.job.as_ref().is_some_and(|job| job.definition == here) {
        return Ok(());
    }
    let why = format!("`{}` is not the command that was asked for", shown(words));
    Err(Failure::new(Kind::Denied, why)
        .help("compare it, word by word, with whoever asked; another command needs a new request"))
}

/// What bounds its statements, as somebody states it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) classes: Vec<String>,
    pub(crate) objects: Vec<String>,
}

impl Bounds {
    /// Are they those that are asked for? Objects that are not stated are not compared: those that are asked for only
    /// narrow it.
    pub(super) fn are_asked_for(&self, scope: &SqlScope) -> Done {
        let same = |what: &str, stated: &[String], asked: &[String]| {
            let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
            let (stated, asked) = (set(stated), set(asked));
            let names = |list: &mut dyn Iterator<Item = &String>| {
                let names: Vec<String> = list.map(|name| clean(name, 200)).collect();
                names.join(", ")
            };
            let more = names(&mut asked.difference(&stated));
            let less = names(&mut stated.difference(&asked));
            let why = match (more.is_empty(), less.is_empty()) {
                (true, true) => return Ok(()),
                (false, _) => format!("{what} {more} are asked for too, which you did not state"),
                (true, false) => format!("{what} {less} are not asked for"),
            };
            Err(Failure::new(Kind::Denied, why).help(
                "compare it with whoever asked: `ascribe show` with the request's id has all",
            ))
        };
        if !self.classes.is_empty() {
            same("statements of class", &self.classes, &scope.classes)?;
        }
        if !self.objects.is_empty() {
            same("statements on", &self.objects, &scope.objects)?;
        }
        Ok(())
    }
}

/// Runs it, and ends with it.
pub(super) fn run(
    client: Client,
    user: &UserName,
    (place, database): (&str, &str),
    words: &[String],
) -> Done {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::usage("a command has a program"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PGUSER", place)
        .env("PGDATABASE", database);
    let wish = tunnel::wish(user, Some(command_definition(words)));
    let status = tunnel::run(client, wish, command)?.map_err(|error| {
        Failure::usage(format!("`{}` cannot be run: {error}", clean(program, 400)))
    })?;
    // It has said why. Its own code is what whoever runs the job looks at.
    tunnel::end_as(status)
}
