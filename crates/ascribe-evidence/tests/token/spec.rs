//! The specification names every code of a refusal, and a case brings about each of them.

use std::collections::BTreeSet;

const SPEC: &str = include_str!("../../../../docs/spec/token.md");
const SOURCES: [&str; 10] = [
    include_str!("../../src/token.rs"),
    include_str!("../../src/token/certificate.rs"),
    include_str!("../../src/token/claims.rs"),
    include_str!("../../src/token/gq.rs"),
    include_str!("../../src/token/json.rs"),
    include_str!("../../src/token/keys.rs"),
    include_str!("../../src/token/proof.rs"),
    include_str!("../../src/token/provider.rs"),
    include_str!("../../src/token/svid.rs"),
    include_str!("../../src/token/tls.rs"),
];

/// What stands between these marks and begins as codes do.
fn codes(text: &str, mark: char) -> BTreeSet<&str> {
    let code = |word: &&str| {
        let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        plain
            && (["token-", "keys-", "svid-"]
                .iter()
                .any(|family| word.starts_with(family)))
    };
    text.split(mark).filter(code).collect()
}

#[test]
fn every_code_is_specified_and_brought_about() {
    let written: BTreeSet<&str> = SOURCES
        .iter()
        .flat_map(|source| codes(source, '"'))
        .collect();
    assert!(written.len() > 25, "{written:?}");
    assert_eq!(codes(SPEC, '`'), written);
    let brought: BTreeSet<&str> = super::hostile::codes()
        .into_iter()
        .chain(super::proofs::codes())
        .chain(super::svid::codes())
        .collect();
    assert_eq!(brought, written);
}
