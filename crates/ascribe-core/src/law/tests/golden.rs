//! Lists with a reason for each line.

use super::directories::directory;
use super::identities::{deploy, link, provider};
use super::*;
use crate::identity::ProviderKind;

fn golden(text: &str) -> Vec<Vec<&str>> {
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        assert!(columns.iter().all(|c| !c.is_empty()), "{line}");
        lines.push(columns);
    }
    lines
}

#[test]
fn entry_kinds_without_a_persons_signature_are_listed_with_a_reason() {
    let list = golden(include_str!("../../../testdata/unsigned_kinds.txt"));
    assert!(list.iter().all(|columns| columns.len() == 2));
    let listed: Vec<&str> = list.iter().map(|columns| columns[0]).collect();
    let kinds: Vec<&str> = Body::KINDS
        .iter()
        .copied()
        .filter(|kind| *kind != "statement")
        .collect();
    assert_eq!(listed, kinds);
}

#[test]
fn statement_types_are_listed_with_who_and_under_which_quorum() {
    let list = golden(include_str!("../../../testdata/statement_types.txt"));
    assert!(list.iter().all(|columns| columns.len() == 3));
    let listed: Vec<&str> = list.iter().map(|columns| columns[0]).collect();
    assert_eq!(listed, Say::TAGS);
    let (add, _) = enrol(50, &[]);
    let pair = PersonKey {
        person: person(REQ),
        key: key(REQ, 2),
    };
    let leaver = Offboard {
        person: person(REQ),
    };
    let proposals = [
        Say::TargetSet(target("db1")),
        Say::PersonAdd(add),
        Say::KeyAdd(pair),
        Say::Offboard(leaver),
        Say::CaSet(authority("corp")),
        Say::ProviderSet(provider("idp", ProviderKind::Oidc)),
        Say::IdentityLink(link(REQ)),
        Say::WorkloadSet(deploy()),
        Say::DirectorySet(directory()),
        Say::WitnessSet(witnesses::set("quorum two", &[])),
    ];
    let by_quorum: Vec<&str> = list
        .iter()
        .filter(|columns| columns[2] == "administrators' quorum")
        .map(|columns| columns[0])
        .collect();
    assert!(proposals.iter().all(Say::is_proposal));
    assert_eq!(proposals.map(|say| say.tag()).as_slice(), by_quorum);
}
