//! Reading evidence: actions, show, replay, export. On a stopped server's directory these
//! work offline with the wrap key, write nothing, and say so.

mod actions;
mod replay;
mod show;
mod words;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use ascribe_core::attribution::{ActionRecord, Filter};
use ascribe_core::id::PersonId;
use serde::Serialize;
use serde_json::Value;

use super::{remark, say, say_json};
use crate::answer::{Offline, Source as _, View};
use crate::api::Query;
use crate::cli::{Cli, Export};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::registry::Registry;

pub(crate) use actions::actions;
pub(crate) use replay::{replay, watch};
pub(crate) use show::show;

/// Asks the server, or the files of a stopped one.
pub(crate) fn ask(cli: &Cli, query: &Query) -> Done<Value> {
    let [answer] = ask_all(cli, [query])?;
    Ok(answer)
}

/// The same for several questions, in order.
fn ask_all<const N: usize>(cli: &Cli, queries: [&Query; N]) -> Done<[Value; N]> {
    let mut answers = [const { Value::Null }; N];
    if !cli.is_offline() {
        let client = cli.client(true)?;
        for (answer, query) in answers.iter_mut().zip(queries) {
            *answer = client.read(query)?;
        }
        return Ok(answers);
    }
    let dir = cli.data_dir()?;
    let source = Offline::open(dir)?;
    remark(&format!(
        "offline: reading the files of `{}`; this read is not recorded",
        dir.display()
    ));
    let (view, now) = (View::default(), crate::client::now());
    for (answer, query) in answers.iter_mut().zip(queries) {
        *answer = view.answer(&source, query, None, source.size(), now)?;
    }
    Ok(answers)
}

fn registry_of(answer: Value) -> Done<Registry> {
    serde_json::from_value(answer).attempt("read the answer")
}

/// Something that is on record, with the names of those whose ids stand in it.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(flatten)]
    record: &'a T,
    names: Vec<Name>,
}

/// Whose id it is.
#[derive(Serialize)]
struct Name {
    id: PersonId,
    name: String,
}

/// The same with names, as far as they are known to whoever reads.
fn named<'a>(record: &'a ActionRecord, known: &Registry) -> Named<'a, ActionRecord> {
    let chain = record.who.chain.iter();
    let chain = chain.flat_map(|link| [Some(link.principal), link.owner]);
    let approvers = record.why.approvals.iter().map(|yes| Some(yes.approver));
    let all = chain.chain(approvers).chain([record.what.system_owner]);
    Named {
        record,
        names: names_of(all.flatten(), known),
    }
}

fn names_of(people: impl Iterator<Item = PersonId>, known: &Registry) -> Vec<Name> {
    let people: BTreeSet<PersonId> = people.collect();
    let name = |id: PersonId| {
        let name = known.name(id)?.to_owned();
        Some(Name { id, name })
    };
    people.into_iter().filter_map(name).collect()
}

pub(crate) fn fetch(cli: &Cli, filter: Filter) -> Done<Vec<ActionRecord>> {
    let filter = Box::new(filter);
    let answer = ask(cli, &Query::Actions { filter })?;
    serde_json::from_value(answer).attempt("read the answer")
}

/// Writes what was opened for its reader: nobody else reads it.
fn write_private(file: &Path, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(text.as_ref())
}

pub(crate) fn export(cli: &Cli, args: &Export) -> Done {
    let answer = ask(
        cli,
        &Query::Export {
            session: args.session,
        },
    )?;
    let bundle = answer
        .get("bundle")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::new(Kind::Failure, "the server sent no bundle"))?;
    write_private(&args.file, bundle).attempt(format!("write `{}`", args.file.display()))?;
    if cli.json() {
        return say_json(&serde_json::json!({ "session_id": args.session, "bytes": bundle.len() }));
    }
    say(&format!(
        "wrote {} ({} bytes)\nnext: ascribe verify {} --trust POLICY",
        args.file.display(),
        bundle.len(),
        args.file.display()
    ));
    Ok(())
}
