//! `ascribe psql`: what stock psql would take for granted.

use super::{remark, tunnel};
use crate::cli::Cli;
use crate::cli::database::Psql;
use crate::exit::Done;

/// Short options of psql that have a value.
const WITH_VALUE: &str = "cdfFhLopPRTUv";
/// The same of its long ones, where the value may be the next word.
const LONG_WITH_VALUE: [&str; 14] = [
    "command",
    "dbname",
    "field-separator",
    "file",
    "host",
    "log-file",
    "output",
    "port",
    "pset",
    "record-separator",
    "set",
    "table-attr",
    "username",
    "variable",
];
/// Options with which psql connects to no database in particular.
const ELSEWHERE: [&str; 6] = ["-l", "--list", "-V", "--version", "-?", "--help"];

/// Says first which database psql will ask for, where none is named: a role is seldom called like its database.
pub(crate) fn psql(cli: &Cli, args: &Psql) -> Done {
    if !names_database(&args.arguments) && std::env::var_os("PGDATABASE").is_none() {
        let role = args.place.split(['@', '+']).next().unwrap_or_default();
        remark(&format!(
            "no database is named, so psql asks for `{}`; name one: ascribe psql {} -- -d DATABASE",
            ascribe_core::text::clean(role, 63),
            ascribe_core::text::clean(&args.place, 160)
        ));
    }
    tunnel::psql(cli, args)
}

/// Do psql's arguments name a database, or go without one?
fn names_database(arguments: &[String]) -> bool {
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        if ELSEWHERE.contains(&word) {
            return true;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').unwrap_or((long, ""));
            match name {
                "" => return rest.next().is_some(),
                "dbname" => return true,
                _ if value.is_empty() && LONG_WITH_VALUE.contains(&name) => {
                    rest.next();
                }
                _ => {}
            }
            continue;
        }
        let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) else {
            return true;
        };
        // Of several letters, the first that has a value has all that follows, or the next word.
        let valued = short.char_indices().find(|(_, c)| WITH_VALUE.contains(*c));
        match valued {
            Some((_, 'd')) => return true,
            Some((at, c)) if at + c.len_utf8() == short.len() => {
                rest.next();
            }
            Some(_) | None => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_by_option_or_word() {
        let names = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            names_database(&words)
        };
        for named in [
            "-d orders",
            "-dorders",
            "-XAtd orders",
            "--dbname=orders",
            "--dbname orders",
            "-c select orders",
            "orders",
            "-l",
            "--help",
            "-- orders",
        ] {
            assert!(names(named), "{named}");
        }
        for unnamed in [
            "",
            "-X -A",
            "-c select",
            "-fdump",
            "-Xc d",
            "--command d",
            "-v a=d",
            "--set=x=d",
        ] {
            assert!(!names(unnamed), "{unnamed}");
        }
    }
}
