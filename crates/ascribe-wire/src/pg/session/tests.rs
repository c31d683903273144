use super::super::client::Values;
use super::super::server::{self, Passing, Report};
use super::*;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn report(code: &str) -> Report {
    Report {
        severity: b("ERROR"),
        code: b(code),
        ..Report::default()
    }
}

/// A tracker that is told what is said in few words: of the client `P name text`, `B portal statement`,
/// `E portal`, `C Sname`, `D Sname`, `Q text`, `F`, `S`, `H`, `c`, `d`; of the server its message's type, with
/// what is in it behind it.
#[derive(Default)]
struct Talk(Tracker);

impl Talk {
    fn step(&mut self, said: &str) -> Result<Step, SessionError> {
        let mut words = said.splitn(3, ' ');
        let mut word = || b(words.next().unwrap_or_default());
        let kind = match said.as_bytes() {
            [kind @ (b'C' | b'D'), b'S' | b'P', ..] => Bytes::copy_from_slice(&[*kind]),
            _ => word(),
        };
        let message = match &kind[..] {
            b"P" => Message::Parse {
                name: word(),
                text: Text::Here(word()),
                types: Vec::new(),
            },
            b"B" => Message::Bind {
                portal: word(),
                statement: word(),
                values: Values::Here {
                    formats: Vec::new(),
                    values: vec![Some(b("1")), None],
                },
                results: Vec::new(),
            },
            b"E" => Message::Execute {
                portal: word(),
                max_rows: 0,
            },
            b"C" | b"D" => {
                let what = b(said.get(1..).unwrap());
                let named = match what[0] {
                    b'S' => Named::Statement,
                    _ => Named::Portal,
                };
                match &kind[..] {
                    b"C" => Message::Close(named, what.slice(1..)),
                    _ => Message::Describe(named, what.slice(1..)),
                }
            }
            b"Q" => Message::Query(Text::Here(b(said.split_once(' ').unwrap().1))),
            b"F" => Message::FunctionCall {
                function: 1,
                arguments: Values::Spooled(1),
            },
            b"S" => Message::Sync,
            b"H" => Message::Flush,
            b"X" => Message::Terminate,
            b"c" => Message::CopyDone,
            b"f" => Message::CopyFail(Bytes::new()),
            b"d" => return Ok(self.0.copy_data(1, 10)),
            other => panic!("{other:?}"),
        };
        let step = self.0.client(message);
        assert!(self.0.adds_up());
        step
    }

    /// What the client says is forwarded, or dropped: one sign for each. Executed texts follow the sign.
    fn client(&mut self, all: &[&str]) -> String {
        let signs: Vec<String> = all.iter().map(|said| sign(self.step(said))).collect();
        signs.join(" ")
    }

    fn try_server(&mut self, said: &str) -> Result<Outcomes, SessionError> {
        let (kind, rest) = said.split_at(1);
        let message = match kind {
            "1" => server::Message::ParseComplete,
            "2" => server::Message::BindComplete,
            "3" => server::Message::CloseComplete,
            "n" => server::Message::NoData,
            "s" => server::Message::PortalSuspended,
            "I" => server::Message::EmptyQuery,
            "C" => server::Message::CommandComplete {
                tag: b(rest),
                rows: rest.parse().ok(),
            },
            "E" => server::Message::Error(report(rest)),
            "!" => server::Message::Error(Report {
                severity: b("FATAL"),
                ..report(rest)
            }),
            "N" => server::Message::Notice(report("00000")),
            "Z" => server::Message::ReadyForQuery(match rest {
                "T" => Status::InTransaction,
                "E" => Status::Failed,
                _ => Status::Idle,
            }),
            "G" => server::Message::CopyIn,
            "H" => server::Message::CopyOut,
            "W" => server::Message::CopyBoth,
            "c" => server::Message::CopyDone,
            "K" => server::Message::BackendKeyData(1, super::super::Secret::new(b"1234")),
            _ => {
                let passing = match kind {
                    "T" => Passing::RowDescription,
                    "D" => Passing::DataRow,
                    "t" => Passing::ParameterDescription,
                    "V" => Passing::FunctionResult,
                    "d" => Passing::CopyData,
                    "A" => Passing::Notification,
                    other => panic!("{other:?}"),
                };
                server::Message::Pass(passing, rest.parse().unwrap_or(1))
            }
        };
        let out = self.0.server(&message, 100);
        assert!(self.0.adds_up());
        out
    }

    /// What becomes of what was executed, in few words.
    fn server(&mut self, all: &[&str]) -> String {
        let mut told = Vec::new();
        for said in all {
            let out = self
                .try_server(said)
                .unwrap_or_else(|e| panic!("{said}: {e}"));
            if let Turn::Replace(with) = out.turn {
                told.push(format!("replaced:{}", with.escape_ascii()));
            }
            for event in out.events {
                let Number(number) = event.number;
                let what = match event.what {
                    What::Done(Done { how, rows, bytes }) => {
                        let how = match how {
                            How::Complete { tag, .. } => tag.escape_ascii().to_string(),
                            other => format!("{other:?}"),
                        };
                        format!("{how}/{rows}/{bytes}")
                    }
                    What::End(End::Completed) => "ok".to_owned(),
                    What::End(End::Failed(why)) => why.code.escape_ascii().to_string(),
                    What::End(End::Skipped) => "skipped".to_owned(),
                    What::GroupFailed { after, why } => {
                        format!("group>{}:{}", after.0, why.code.escape_ascii())
                    }
                };
                told.push(format!("{number}:{what}"));
            }
        }
        told.join(" ")
    }

    fn deny(&mut self, number: u64) -> (Vec<u64>, bool) {
        let denied = self.0.deny(Number(number), b("no")).unwrap();
        assert!(self.0.adds_up());
        let dropped = denied.dropped.iter().map(|number| number.0).collect();
        (dropped, denied.instead.is_empty())
    }
}

fn sign(step: Result<Step, SessionError>) -> String {
    let text = |text: &Text| match text {
        Text::Here(text) => text.escape_ascii().to_string(),
        Text::Spooled(length) => format!("{length}"),
    };
    match step.unwrap() {
        Step::Forward(_) => ".".to_owned(),
        Step::Drop => "-".to_owned(),
        Step::Wait(_) => "wait".to_owned(),
        Step::Copy(Number(number)) => format!("copy{number}"),
        Step::Refuse(_, why) => format!("{why:?}"),
        Step::Record(Executed { number, runs }) => {
            let runs = match &runs {
                Runs::Query(query) => text(query),
                Runs::Function { .. } => "function".to_owned(),
                Runs::UnknownPortal { .. } => "NotNamed".to_owned(),
                Runs::DoubtfulPortal { .. } => "Doubtful".to_owned(),
                Runs::Portal { portal, .. } => match &portal.statement {
                    Origin::Known(statement) => text(&statement.text),
                    Origin::Doubtful(_) => "(Doubtful)".to_owned(),
                    Origin::Unknown(_) => "(NotNamed)".to_owned(),
                },
            };
            format!("{}:{runs}", number.0)
        }
    }
}

#[test]
fn queries() {
    let mut talk = Talk::default();
    assert_eq!(
        talk.client(&["Q SELECT 1; SELECT 2", "Q bad", "Q "]),
        "1:SELECT 1; SELECT 2 2:bad 3:"
    );
    assert_eq!(
        talk.server(&[
            "T",
            "D3",
            "D0",
            "CSELECT 3",
            "N",
            "T",
            "D",
            "CSELECT 1",
            "ZI"
        ]),
        "1:SELECT 3/3/200 1:SELECT 1/1/100 1:ok"
    );
    assert_eq!(talk.server(&["E42601", "ZE"]), "2:42601");
    assert_eq!(talk.0.status(), Status::Failed);
    assert_eq!(talk.server(&["I", "ZI"]), "3:Empty/0/0 3:ok");
    assert!(talk.0.is_quiet());
}

#[test]
fn groups_in_flight() {
    let mut talk = Talk::default();
    assert_eq!(
        talk.client(&["P a A", "B  a", "DP", "E ", "B  a", "E ", "S"]),
        ". . . 4:A . 6:A ."
    );
    assert_eq!(
        talk.client(&["P  B", "DS", "B  ", "E ", "H", "S"]),
        ". . . 11:B . ."
    );
    assert_eq!(
        talk.server(&["1", "2", "T", "D2", "C2", "2", "s", "ZI"]),
        "4:2/2/100 4:ok 6:Suspended/0/0 6:ok"
    );
    assert_eq!(
        talk.server(&["1", "t", "n", "2", "I", "ZI"]),
        "11:Empty/0/0 11:ok"
    );
    assert_eq!(
        talk.client(&["B  a", "E ", "CSa", "S", "CSa"]),
        ". 15:A . . ."
    );
}

#[test]
fn an_error_skips_the_rest_of_its_group() {
    let mut talk = Talk::default();
    talk.client(&[
        "P  A", "B  ", "E ", "B  ", "E ", "Q x", "S", "P  B", "B  ", "E ", "S",
    ]);
    assert_eq!(
        talk.server(&["1", "2", "E22012"]),
        "3:22012 5:skipped 6:skipped"
    );
    assert_eq!(talk.server(&["ZI", "1", "2", "C1", "ZI"]), "10:1/0/0 10:ok");
    // What comes later of the group is not even forwarded.
    talk.client(&["P  bad"]);
    assert_eq!(talk.server(&["E42601"]), "");
    assert_eq!(
        talk.client(&["B  ", "E ", "Q x", "F", "d", "c", "H", "S", "Q y"]),
        "- - - - - - . . 15:y"
    );
    assert_eq!(talk.server(&["ZI", "C", "ZI"]), "15:/0/0 15:ok");
}

#[test]
fn a_portal_is_what_it_was_when_it_was_bound() {
    let mut talk = Talk::default();
    let all = [
        "P s A", "B p s", "CSs", "P s B", "E p", "B q s", "E q", "E p", "S",
    ];
    assert_eq!(talk.client(&all), ". . . . 5:A . 7:B 8:A .");
}

/// A name that an earlier group gave is not used before that group is answered: here it fails, and
/// the server runs the old text.
#[test]
fn a_group_that_fails_leaves_names_as_they_were() {
    let mut talk = Talk::default();
    talk.client(&["P s OLD", "S"]);
    talk.server(&["1", "ZI"]);
    assert_eq!(
        talk.client(&["P  bad", "CSs", "P s NEW", "S", "B  s"]),
        ". . . . wait"
    );
    assert_eq!(talk.server(&["E42601"]), "");
    // Nothing of it is left to wait for.
    assert_eq!(talk.client(&["B  s", "E "]), ". 8:OLD");
    assert_eq!(talk.server(&["ZI", "2", "C"]), "8:/0/0 8:ok");
    // Unless it comes to be.
    let mut talk = Talk::default();
    assert_eq!(
        talk.client(&["P s NEW", "S", "B  s", "E "]),
        ". . wait 3:NotNamed"
    );
    talk.server(&["1"]);
    assert_eq!(talk.client(&["B  s", "E "]), ". 5:NEW");
}

#[test]
fn a_query_drops_what_has_no_name() {
    let mut talk = Talk::default();
    talk.client(&["P  A", "B  ", "S"]);
    talk.server(&["1", "2", "ZT"]);
    assert_eq!(
        talk.client(&["Q x", "E ", "S", "B  "]),
        "4:x 5:NotNamed . wait"
    );
    talk.server(&["C", "ZT", "E34000", "ZE"]);
    assert_eq!(talk.client(&["B  ", "E "]), ". 8:(NotNamed)");
}

#[test]
fn portals_end_with_their_transaction() {
    let mut talk = Talk::default();
    talk.client(&["P s A", "B p s", "S"]);
    talk.server(&["1", "2", "ZT"]);
    assert_eq!(talk.client(&["E p", "S"]), "4:A .");
    talk.server(&["C", "ZI"]);
    assert_eq!(
        talk.client(&["E p", "B p s", "E p", "S"]),
        "6:NotNamed . 8:A ."
    );
}

#[test]
fn sql_that_may_name_something_else_makes_earlier_names_doubtful() {
    for (said, statement, portal) in [
        (
            "Q DEALLOCATE s; prePARE s AS DELETE FROM t",
            "(Doubtful)",
            "A",
        ),
        ("Q CLOSE p; DECLARE p CURSOR FOR SELECT 2", "A", "Doubtful"),
        ("Q DEALLOCATE s", "A", "A"),
        ("F", "A", "A"),
    ] {
        let mut talk = Talk::default();
        talk.client(&["P s A", "B p s", "S"]);
        talk.server(&["1", "2", "ZT"]);
        talk.client(&[said]);
        assert_eq!(talk.client(&["E p"]), format!("5:{portal}"), "{said}");
        assert_eq!(
            talk.client(&["B q s", "E q"]),
            format!(". 7:{statement}"),
            "{said}"
        );
        // Named again, it is known again.
        assert_eq!(
            talk.client(&["CSs", "P s B", "B r s", "E r"]),
            ". . . 11:B",
            "{said}"
        );
    }
    // The same, by a portal; what is not known may do it.
    let mut talk = Talk::default();
    talk.client(&["P s A", "P t prepare", "B  t", "E "]);
    assert_eq!(talk.client(&["B  s", "E "]), ". 6:(Doubtful)");
    let mut talk = Talk::default();
    talk.client(&["P s A", "P t DECLARE", "E cursor"]);
    assert_eq!(talk.client(&["B  s", "E "]), ". 5:A");
    talk.client(&["P t PREPARE", "E cursor"]);
    assert_eq!(talk.client(&["B  s", "E "]), ". 9:(Doubtful)");
}

#[test]
fn names_that_a_server_might_take_for_one() {
    let mut talk = Talk::default();
    let long = "x".repeat(64);
    let name = "x".repeat(63);
    for said in [
        format!("P {long} A"),
        format!("B {long} s"),
        format!("B p {long}"),
        format!("CS{long}"),
        format!("CP{long}"),
        format!("E {long}"),
        "P \u{e9} A".to_owned(),
    ] {
        let mut talk = Talk::default();
        assert_eq!(talk.client(&[&said]), "Name", "{said}");
        let number = talk.0.last.0;
        assert_eq!(talk.deny(number), (vec![], false));
        assert_eq!(talk.server(&["E42601"]), "replaced:no");
    }
    assert_eq!(talk.client(&[&format!("P {name} A")]), ".");
}

#[test]
fn ten_thousand_statements_and_no_more_than_the_limit() {
    let mut talk = Talk::default();
    for at in 0..10_000 {
        let parse = Message::Parse {
            name: b(&format!("s{at}")),
            text: Text::Here(b(&format!("SELECT {at}"))),
            types: Vec::new(),
        };
        for message in [parse, Message::Sync] {
            assert!(matches!(talk.0.client(message), Ok(Step::Forward(_))));
        }
        for message in [
            server::Message::ParseComplete,
            server::Message::ReadyForQuery(Status::Idle),
        ] {
            assert_eq!(talk.0.server(&message, 5).unwrap().turn, Turn::Forward);
        }
    }
    assert_eq!(talk.client(&["B  s77", "E "]), ". 20002:SELECT 77");
    let limits = Limits {
        statements: 2,
        portals: 1,
        portal_bytes: 1000,
        statement_bytes: 1000,
    };
    let mut talk = Talk(Tracker::new(limits));
    assert_eq!(talk.client(&["P a A", "P b B", "P c C"]), ". . Statements");
    let mut talk = Talk(Tracker::new(limits));
    let large = "x".repeat(600);
    assert_eq!(
        talk.client(&[&format!("P  {large}"), "P  y"]),
        ". Statements"
    );
    let mut talk = Talk(Tracker::new(limits));
    assert_eq!(talk.client(&["P a A", "B  a", "B p a"]), ". . Portals");
}

#[test]
fn refusals_come_in_their_turn() {
    let mut talk = Talk::default();
    talk.client(&[
        "P a A", "B  a", "E ", "B  a", "E ", "B  a", "E ", "S", "Q x", "S",
    ]);
    assert_eq!(talk.deny(5), (vec![7], false));
    assert_eq!(talk.client(&["Q y", "S"]), "wait .");
    assert_eq!(
        talk.server(&["1", "2", "C", "2", "E42601", "ZE"]),
        "3:/0/0 3:ok replaced:no"
    );
    assert_eq!(talk.server(&["C", "ZI", "ZI", "ZI"]), "9:/0/0 9:ok");
    assert!(talk.0.is_quiet());
    // A query: both answers are the server's, but for the error.
    talk.client(&["Q x", "Q y"]);
    let number = talk.0.last.0;
    assert_eq!(talk.deny(number - 1), (vec![], false));
    assert_eq!(
        talk.server(&["E42601", "ZE", "C", "ZI"]),
        format!("replaced:no {number}:/0/0 {number}:ok")
    );
    // In a group that goes on: the rest is dropped, up to its end.
    talk.client(&["P  A"]);
    let number = talk.0.last.0;
    talk.deny(number);
    assert_eq!(talk.client(&["B  ", "E ", "H", "S"]), "- - . .");
    assert_eq!(talk.server(&["E42601", "ZI"]), "replaced:no");
    // Something before it fails: the client hears that.
    talk.client(&["P  A", "B  ", "E ", "S"]);
    let number = talk.0.last.0;
    talk.deny(number - 1);
    assert_eq!(talk.server(&["E42601", "ZI"]), "");
    // Or has failed before it was decided.
    talk.client(&["P  A", "B  ", "E "]);
    let number = talk.0.last.0;
    assert_eq!(talk.server(&["E42601"]), format!("{number}:skipped"));
    assert_eq!(talk.deny(number), (vec![], true));
    assert_eq!(talk.client(&["S"]), ".");
    // The server ends: that is what the client hears.
    talk.server(&["ZI"]);
    talk.client(&["Q x"]);
    talk.deny(talk.0.last.0);
    assert_eq!(talk.server(&["!57P01"]), "");
    for number in [0, 1000] {
        assert_eq!(
            talk.0.deny(Number(number), Bytes::new()),
            Err(SessionError::Deny)
        );
    }
}

#[test]
fn what_a_denied_message_named_is_not_named() {
    let mut talk = Talk::default();
    talk.client(&["P s OLD", "S"]);
    talk.server(&["1", "ZI"]);
    // In one burst: the denied one and what uses the name in the next group.
    assert_eq!(talk.client(&["CSs", "S", "B  s"]), ". . wait");
    talk.server(&["3", "ZI"]);
    talk.client(&["P s NEW", "P t T", "S"]);
    let number = talk.0.last.0;
    talk.deny(number - 2);
    assert_eq!(talk.client(&["B  s"]), "wait");
    talk.server(&["E42601", "ZI"]);
    let said = talk.client(&["B  s", "E "]);
    assert!(said.ends_with("(NotNamed)"), "{said}");
}

#[test]
fn copying_to_the_server() {
    let mut talk = Talk::default();
    talk.client(&["Q COPY t FROM STDIN; COPY u FROM STDIN"]);
    assert_eq!(talk.client(&["d"]), "wait");
    talk.server(&["G"]);
    assert_eq!(
        talk.client(&["d", "H", "d", "c", "d"]),
        "copy1 . copy1 copy1 wait"
    );
    assert_eq!(talk.server(&["CCOPY 2", "G"]), "1:COPY 2/2/20");
    assert_eq!(talk.client(&["d", "f"]), "copy1 copy1");
    assert_eq!(talk.server(&["E57014", "ZI"]), "1:57014");
    // Nothing is copied: the server would throw it away.
    assert_eq!(talk.client(&["d", "c", "f"]), "- - -");
    talk.client(&["Q COPY"]);
    talk.server(&["G"]);
    assert_eq!(talk.step("Q x"), Err(SessionError::DuringCopy));
}

/// libpq ends the group before it knows that there is something to copy, and once more behind it.
#[test]
fn syncs_that_copying_reads_over() {
    let group = ["P  COPY", "B  ", "E ", "S"];
    let mut talk = Talk::default();
    talk.client(&group);
    talk.server(&["1", "2", "G"]);
    assert_eq!(
        talk.client(&["d", "c", "Q x", "S", "Q y"]),
        "copy3 copy3 wait . wait"
    );
    assert_eq!(talk.server(&["CCOPY 1", "ZI"]), "3:COPY 1/1/10 3:ok");
    assert!(talk.0.is_quiet());
    // An error: whichever Sync it is that is answered, what follows is understood.
    for (before, after) in [
        (&["E22P04", "ZI"][..], &["C", "ZI"][..]),
        (&["E22P04", "ZI", "ZI"], &["C", "ZI"]),
        (&["E22P04", "ZI"], &["ZI", "C", "ZI"]),
    ] {
        let mut talk = Talk::default();
        talk.client(&group);
        talk.server(&["1", "2", "G"]);
        talk.client(&["d", "c", "S"]);
        assert_eq!(talk.server(&before[..1]), "3:22P04");
        assert_eq!(talk.client(&["Q x", "d"]), "wait -");
        assert_eq!(talk.server(&before[1..]), "");
        assert_eq!(talk.client(&["Q x"]), "6:x");
        assert_eq!(talk.server(after), "6:/0/0 6:ok");
    }
    // Messages behind it that the server would not take.
    let mut talk = Talk::default();
    talk.client(&group);
    talk.client(&["P  A"]);
    talk.server(&["1", "2"]);
    assert_eq!(talk.try_server("G"), Err(SessionError::DuringCopy));
}

#[test]
fn copying_from_the_server_and_both_ways() {
    let mut talk = Talk::default();
    talk.client(&["Q COPY t TO STDOUT", "P  COPY", "B  ", "E ", "S"]);
    assert_eq!(
        talk.server(&["H", "d5", "d0", "c", "CCOPY 5", "ZI"]),
        "1:COPY 5/5/200 1:ok"
    );
    assert_eq!(
        talk.server(&["1", "2", "H", "d", "E57014", "ZI"]),
        "4:57014"
    );
    talk.client(&["Q START_REPLICATION"]);
    talk.server(&["W", "d"]);
    assert_eq!(talk.client(&["d", "c"]), "copy6 copy6");
    assert_eq!(
        talk.server(&["d", "c", "T", "D", "C", "C", "ZI"]),
        "6:/4/310 6:/0/0 6:ok"
    );
    // A base backup is several results and copies of one query.
    talk.client(&["Q BASE_BACKUP"]);
    let all = [
        "T", "D", "C", "H", "d", "c", "H", "d", "c", "T", "D", "C", "C", "ZI",
    ];
    assert_eq!(talk.server(&all), "7:/1/100 7:/3/300 7:/0/0 7:ok");
    // What comes while data is copied is not the outcome.
    talk.client(&["Q COPY t TO STDOUT"]);
    talk.server(&["H", "d"]);
    for said in ["C", "D", "H", "ZI", "I"] {
        assert!(talk.try_server(said).is_err(), "{said}");
    }
}

#[test]
fn functions() {
    let mut talk = Talk::default();
    assert_eq!(talk.client(&["F", "F"]), "1:function 2:function");
    assert_eq!(
        talk.server(&["V", "V0", "ZI", "E42883", "ZI"]),
        "1:Returned/0/0 1:ok 2:42883"
    );
}

#[test]
fn a_group_fails_at_its_end() {
    let mut talk = Talk::default();
    talk.client(&["S", "P  A", "B  ", "E ", "S"]);
    assert_eq!(
        talk.server(&["ZI", "1", "2", "C", "E23503", "ZI"]),
        "4:/0/0 4:ok 5:group>1:23503"
    );
}

#[test]
fn the_connection_is_lost() {
    let mut talk = Talk::default();
    talk.client(&["Q a", "P  A", "B  ", "E ", "S", "F", "Q b"]);
    talk.server(&["C", "E22012"]);
    let open: Vec<u64> = talk.0.unanswered().map(|number| number.0).collect();
    assert_eq!(open, [4, 6, 7]);
    // The server ends by itself.
    assert_eq!(Talk::default().server(&["!57P01"]), "");
}

#[test]
fn answers_that_answer_nothing() {
    let answers = [
        "1", "2", "3", "n", "s", "I", "C", "E42601", "ZI", "G", "H", "W", "c", "K", "T", "D", "t",
        "V", "d",
    ];
    // For each thing that is sent, the answers that may come first.
    for (sent, allowed) in [
        (&[][..], &[][..]),
        (&["P  A"], &["1", "E42601"]),
        (&["B  s"], &["2", "E42601"]),
        (&["CSs"], &["3", "E42601"]),
        (&["DSs"], &["n", "t", "T", "E42601"]),
        (&["DPs"], &["n", "T", "E42601"]),
        (&["E "], &["s", "I", "C", "E42601", "G", "H", "W", "D"]),
        (
            &["Q x"],
            &["I", "C", "E42601", "ZI", "G", "H", "W", "T", "D"],
        ),
        (&["F"], &["E42601", "ZI", "V"]),
        (&["S"], &["E42601", "ZI"]),
    ] {
        for answer in answers {
            let mut talk = Talk::default();
            talk.client(sent);
            let out = talk.try_server(answer);
            assert_eq!(
                out.is_ok(),
                allowed.contains(&answer),
                "{sent:?} {answer}: {out:?}"
            );
            // What may come at any time.
            let mut talk = Talk::default();
            assert_eq!(talk.server(&["N", "A"]), "");
        }
    }
}

#[test]
fn no_more_messages_than_can_be_waited_for() {
    let mut talk = Talk::default();
    for _ in 0..MAX_PENDING {
        let step = talk.0.client(Message::Sync).unwrap();
        assert!(matches!(step, Step::Forward(_)));
    }
    assert_eq!(talk.client(&["S", "Q x"]), "wait wait");
    talk.server(&["ZI"]);
    assert_eq!(talk.client(&["S", "Q x"]), ". wait");
    // While data is copied the server reads over them. They count, for they may be pending again.
    let mut talk = Talk::default();
    talk.client(&["Q COPY"]);
    talk.server(&["G"]);
    for _ in 0..MAX_PENDING - 1 {
        assert!(matches!(talk.0.client(Message::Sync), Ok(Step::Forward(_))));
    }
    assert_eq!(talk.step("S"), Err(SessionError::DuringCopy));
    assert_eq!(talk.client(&["c", "S"]), "copy1 wait");
    talk.server(&["E22P04"]);
}
