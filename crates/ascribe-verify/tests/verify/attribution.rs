//! Who did what, when and why: whole records as golden JSON, and which of them a filter takes.

use ascribe_core::attribution::{ActionRecord, Filter, Fold};
use ascribe_core::entry::Status;
use ascribe_core::law::State;
use ascribe_core::statement::Uses;
use ascribe_evidence::SshSignatures;
use ascribe_verify::{Verdict, verify_bundle, verify_entries};

use super::forge::{Forge, MINUTE, Who};
use super::scenes::{COMMAND, plain};
use super::vectors::golden;

fn log() -> Forge {
    Forge::new(100, &[Who::Ada, Who::Olu])
}

/// The actions of a whole ledger with everything opened, and as a golden file.
pub(super) fn told(name: &str, log: &Forge) -> Vec<ActionRecord> {
    let note = log.checkpoint(log.size());
    let (bytes, trust) = (&log.bytes, log.policy());
    let report = verify_entries(
        note.as_bytes(),
        bytes,
        &log.openings,
        &trust,
        "missing",
        &mut |_| {},
    );
    assert_eq!(report.verdict, Verdict::Verified, "{report:#?}");
    written(name, &report.actions);
    report.actions
}

fn written(name: &str, actions: &[ActionRecord]) {
    let mut text = serde_json::to_string_pretty(actions).unwrap();
    text.push('\n');
    golden(&format!("attribution-{name}.json"), text.as_bytes());
}

#[test]
fn an_approved_command_names_actor_approver_reason_and_proof() {
    let (log, _) = plain();
    let actions = told("approved-command", &log);
    let action = &actions[0];
    assert_eq!(action.who.chain[0].principal, Who::Olu.id());
    assert_eq!(action.why.approvals[0].approver, Who::Ada.id());
    assert_eq!(action.what.command.as_deref(), Some(COMMAND));
    let at = usize::try_from(action.integrity.index).unwrap();
    let leaf = ascribe_tlog::leaf_hash(&log.bytes[at]);
    assert_eq!(action.integrity.entry_hash.0, leaf);
    assert_eq!(action.integrity.root.0, log.tree(log.size()).root());
}

#[test]
fn a_bundle_and_the_whole_ledger_tell_the_same() {
    let (log, id) = plain();
    let bundle = log.bundle(id).to_bytes().unwrap();
    let report = verify_bundle(&bundle, &log.policy());
    assert_eq!(report.actions, told("approved-command", &log));
}

#[test]
fn every_outcome_is_told_and_none_is_unknown() {
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let mut session = log.open(&grant, "root");
    for (status, exit_code, signal) in [
        (Status::Succeeded, Some(0), None),
        (Status::Failed, Some(3), None),
        (Status::Failed, None, Some("TERM")),
        (Status::Denied, None, None),
        (Status::NotSent, None, None),
        (Status::Unknown, None, None),
    ] {
        let action = log.wait(MINUTE).intent(&mut session, COMMAND, None);
        log.wait(10)
            .outcome(&mut session, action, status, exit_code, signal);
    }
    log.wait(MINUTE).intent(&mut session, COMMAND, None);
    log.close(session);
    let actions = told("outcomes", &log);
    let last = &actions[6].what.outcome;
    assert_eq!((last.status, last.at), (Status::Unknown, None));
}

#[test]
fn break_glass_is_marked_on_the_action_and_names_no_approver() {
    let mut log = log();
    let target = log.target();
    let grant = log.emergency(target);
    let mut session = log.wait(MINUTE).open(&grant, "root");
    log.run(&mut session);
    log.close(session);
    let actions = told("break-glass", &log);
    let why = &actions[0].why;
    assert!(why.break_glass && why.approvals.is_empty() && why.ticket.is_none());
    assert_eq!(why.justification.as_deref(), Some("database down for all"));
}

#[test]
fn an_extension_counts_from_when_it_was_approved() {
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let mut session = log.open(&grant, "root");
    log.run(&mut session);
    log.wait(MINUTE).extend(&grant, Who::Ada);
    log.wait(80 * MINUTE).run(&mut session);
    log.close(session);
    let actions = told("extension", &log);
    let [before, after] = actions.as_slice() else {
        panic!("{actions:#?}")
    };
    assert_eq!(before.why.not_after, grant.body.not_after);
    assert_eq!(before.why.approvals.len(), 1);
    assert_eq!(
        after.why.not_after,
        grant.body.not_after.plus_millis(60 * MINUTE)
    );
    assert_eq!(after.why.approvals.len(), 2);
}

/// The log's order decides, not its clock.
#[test]
fn an_extension_in_the_same_millisecond_counts_for_what_comes_after_it() {
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let mut session = log.open(&grant, "root");
    log.intent(&mut session, "before", None);
    log.extend(&grant, Who::Ada);
    log.intent(&mut session, "after", None);
    log.close(session);
    let (bytes, trust, note) = (&log.bytes, log.policy(), log.checkpoint(log.size()));
    let report = verify_entries(note.as_bytes(), bytes, &[], &trust, "missing", &mut |_| {});
    let ends: Vec<_> = report.actions.iter().map(|a| a.why.not_after).collect();
    let end = grant.body.not_after;
    assert_eq!(ends, [end, end.plus_millis(60 * MINUTE)]);
    let approvals = report.actions.iter().map(|a| a.why.approvals.len());
    assert_eq!(approvals.collect::<Vec<_>>(), [1, 2]);
}

/// Terminal escapes are shown, not sent; the exact bytes stand beside them.
#[test]
fn a_hostile_command_is_shown_escaped_beside_its_exact_bytes() {
    let hostile = b"echo \x1b[2J\xff\xc2\x9b'\n\" \xe2\x80\xae";
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let mut session = log.open(&grant, "root");
    log.intent(&mut session, hostile, Some("LANG=C\0"));
    log.shell(&mut session);
    log.close(session);
    let actions = told("hostile-command-and-shell", &log);
    let what = &actions[0].what;
    let shown = what.command.as_deref().unwrap();
    assert!(!shown.chars().any(ascribe_core::text::is_unsafe), "{shown}");
    let exact = what.command_b64.as_deref().unwrap();
    let exact = ascribe_core::encoding::from_base64url(exact);
    assert_eq!(exact.as_deref(), Some(&hostile[..]));
    let shell = &actions[1].what;
    assert_eq!(
        (shell.kind.as_str(), &*shell.content),
        ("ssh.shell", "present")
    );
}

#[test]
fn what_is_not_disclosed_is_withheld_in_a_bundle_and_missing_in_a_ledger() {
    let mut log = log();
    let grant = log.granted(Uses::Single);
    let mut session = log.open(&grant, "root");
    let action = log.intent(&mut session, COMMAND, Some("LANG=C\0"));
    log.outcome(&mut session, action, Status::Succeeded, Some(0), None);
    let id = log.close(session);
    let trust = log.policy();
    let with = |fields: &[&str]| {
        let mut bundle = log.bundle(id);
        bundle
            .openings
            .retain(|o| fields.contains(&o.opening.field.as_str()));
        let report = verify_bundle(&bundle.to_bytes().unwrap(), &trust);
        assert_eq!(report.verdict, Verdict::Verified);
        report.actions
    };
    let all = ["name", "justification", "from", "command", "env"];
    assert_eq!(with(&all)[0].what.content, "present");
    // An action is its command with its environment.
    let part = with(&["name", "justification", "from", "command"]);
    assert_eq!(part[0].what.content, "withheld");
    assert_eq!(part[0].what.command.as_deref(), Some(COMMAND));
    let nothing = with(&[]);
    written("withheld", &nothing);
    assert_eq!(nothing[0].what.content, "withheld");
    assert!(nothing[0].what.command.is_none() && nothing[0].what.command_b64.is_none());
    let note = log.checkpoint(log.size());
    let report = verify_entries(
        note.as_bytes(),
        &log.bytes,
        &[],
        &trust,
        "missing",
        &mut |_| {},
    );
    written("missing", &report.actions);
    assert_eq!(report.actions[0].what.content, "missing");
    let noted: Vec<_> = report.notes.iter().map(|note| note.code).collect();
    assert!(noted.contains(&"missing") && !noted.contains(&"withheld"));
}

/// Two grants of Olu: an ordinary one for `root`, an emergency.
fn filtered() -> (State, Fold, Forge, Vec<ActionRecord>) {
    let mut log = log();
    let target = log.target();
    let (ask, body) = log.request(target, Uses::Single);
    let yes = log.approve(Who::Ada, ask);
    let ordinary = log.grant(ask, &[yes], body);
    let emergency = log.emergency(target);
    for grant in [&ordinary, &emergency] {
        let mut session = log.open(grant, "root");
        log.run(&mut session);
        log.close(session);
    }
    let mut state = State::new(super::forge::ORIGIN);
    let mut fold = Fold::new();
    for (index, bytes) in (0..).zip(&log.bytes) {
        let done = state.apply(&SshSignatures, bytes).unwrap();
        fold.push(index, &done.entry, done.hash);
    }
    for (_, opening) in &log.openings {
        fold.open(opening.clone());
    }
    let all = take(&state, &fold, &log, &Filter::default());
    assert_eq!(all.len(), 2);
    (state, fold, log, all)
}

fn take(state: &State, fold: &Fold, log: &Forge, filter: &Filter) -> Vec<ActionRecord> {
    let size = log.size();
    fold.actions(state, filter, log.tree(size).root(), size, "missing")
}

/// Sets one field of a filter from its text.
fn set(filter: &mut Filter, field: &str, text: &str) {
    let value = Some(text.to_owned());
    match field {
        "actor" => filter.actor = value,
        "account" => filter.account = value,
        "target" => filter.target = value,
        "session" => filter.session = Some(text.parse().unwrap()),
        "grant" => filter.grant = Some(text.parse().unwrap()),
        "ticket" => filter.ticket = value,
        "since" => filter.since = Some(text.parse().unwrap()),
        "until" => filter.until = Some(text.parse().unwrap()),
        "text" => filter.text = value,
        _ => panic!("no field {field}"),
    }
}

#[test]
fn a_filter_takes_exactly_the_actions_that_fit() {
    let (state, fold, log, all) = filtered();
    let [ordinary, emergency] = all.as_slice() else {
        panic!("{all:#?}")
    };
    let (neither, first, second, both) = (
        &[][..],
        std::slice::from_ref(ordinary),
        std::slice::from_ref(emergency),
        all.as_slice(),
    );
    let olu = Who::Olu.id().to_string();
    let session = emergency.session_id.to_string();
    let grant = ordinary.why.grant_id.to_string();
    let time = emergency.when.at.to_string();
    for (fields, expected) in [
        (vec![("actor", "olu")], both),
        (vec![("actor", &olu)], both),
        (vec![("actor", "ada")], neither),
        (vec![("account", "root")], both),
        (vec![("account", "roo")], neither),
        (vec![("target", "db1")], both),
        (vec![("target", "db")], neither),
        (vec![("session", &session)], second),
        (vec![("grant", &grant)], first),
        (vec![("ticket", "OPS-42")], first),
        (vec![("ticket", "jira:OPS-42")], first),
        (vec![("ticket", "other:OPS-42")], neither),
        (vec![("since", &time)], second),
        (vec![("until", &time)], first),
        (vec![("text", "time -p")], both),
        (vec![("text", "down for all")], second),
        (vec![("text", "DOWN")], neither),
        (vec![("text", "restart"), ("ticket", "OPS-42")], first),
        (
            vec![("text", "down for all"), ("ticket", "OPS-42")],
            neither,
        ),
    ] {
        let mut filter = Filter::default();
        for (field, text) in fields {
            set(&mut filter, field, text);
        }
        let taken = take(&state, &fold, &log, &filter);
        assert_eq!(taken, expected, "{filter:?}");
    }
}

#[test]
fn only_what_was_sequenced_before_the_reading_is_shown() {
    let (state, fold, log, all) = filtered();
    let index = all[1].integrity.index;
    for (size, count) in [(index + 1, 2), (index, 1), (0, 0)] {
        let root = log.tree(size).root();
        let shown = fold.actions(&state, &Filter::default(), root, size, "missing");
        assert_eq!(shown.len(), count, "size {size}");
    }
}
