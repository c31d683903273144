//! Replays the corpus of every fuzz target, each file also with bytes changed one at a time.

#![cfg(test)]

#[path = "../../../fuzz/src/lib.rs"]
pub mod parsers;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parsers::TARGETS;

/// Changed copies of each file.
const CHANGES: u64 = 200;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One byte is changed, cut out or put in.
fn change(bytes: &[u8], random: &mut u64) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let (place, what) = (next(random), next(random));
    let byte = what.to_le_bytes()[1];
    if changed.is_empty() {
        return vec![byte];
    }
    let at = usize::try_from(place).unwrap() % changed.len();
    match what % 8 {
        0 => drop(changed.remove(at)),
        1 => changed.insert(at, byte),
        2..=4 => changed[at] ^= 1 << (byte % 8),
        _ => changed[at] = byte,
    }
    changed
}

#[test]
fn every_target_stands_the_corpus_and_its_changes() {
    for (name, run) in TARGETS {
        let dir = fuzz().join("corpus").join(name);
        let files = names(&dir);
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = std::fs::read(dir.join(&file)).unwrap();
            let check = |input: &[u8], which: &str| {
                let done = catch_unwind(AssertUnwindSafe(|| run(input)));
                assert!(done.is_ok(), "{name}/{file}, {which}: {input:?}");
            };
            check(&bytes, "as it is");
            let mut random = 1;
            for round in 0..CHANGES {
                check(
                    &change(&bytes, &mut random),
                    &format!("after change {round}"),
                );
            }
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), known);
    let programs: BTreeSet<String> = known.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), programs);
}

/// The corpus reaches the end of the longest check, and no changed copy does.
#[test]
fn the_bundle_of_the_corpus_verifies_and_no_change_of_it_does() {
    let read = |name: &str| std::fs::read(fuzz().join(name)).unwrap();
    let trust = String::from_utf8(read("trust.policy")).unwrap();
    let trust = ascribe_verify::TrustPolicy::parse(&trust).unwrap();
    let bytes = read("corpus/verify_bundle/session");
    let verdict = |bytes: &[u8]| ascribe_verify::verify_bundle(bytes, &trust).verdict;
    assert_eq!(verdict(&bytes), ascribe_verify::Verdict::Verified);
    let mut random = 2;
    for round in 0..CHANGES {
        let changed = change(&bytes, &mut random);
        let expected = if changed == bytes {
            ascribe_verify::Verdict::Verified
        } else {
            ascribe_verify::Verdict::Failed
        };
        assert_eq!(verdict(&changed), expected, "after change {round}");
    }
}

#[test]
fn the_ledgers_of_the_corpus_are_lawful() {
    for name in ["all", "agents"] {
        let bytes = std::fs::read(fuzz().join("corpus/law").join(name)).unwrap();
        let mut state = ascribe_core::law::State::new("demo.invalid/ascribe");
        for entry in bytes.split(|&b| b == b'\n') {
            let done = state.apply(&ascribe_evidence::SshSignatures, entry);
            assert!(done.is_ok(), "{name}: {done:?}");
        }
    }
}

#[test]
fn the_tokens_of_the_corpus_are_good_and_what_they_lead_to_is_reached() {
    let mut codes = BTreeSet::new();
    for file in names(&fuzz().join("corpus/token")) {
        let bytes = std::fs::read(fuzz().join("corpus/token").join(&file)).unwrap();
        let code =
            parsers::signed_token(&bytes).map(|done| done.map_or_else(|e| e.code, |_| "good"));
        codes.insert((code.unwrap_or("not signed"), file));
    }
    let found = |code: &str| codes.iter().filter(|(known, _)| *known == code).count();
    assert_eq!(found("good"), 11, "{codes:?}");
    for code in ["token-depth", "token-fact", "token-header-key"] {
        assert_eq!(found(code), 1, "{codes:?}");
    }
    let read = |name: &str| std::fs::read(fuzz().join("corpus/token").join(name)).unwrap();
    assert!(parsers::published(&read("keys"), &read("published")).is_ok());
}

#[test]
fn the_proof_of_the_corpus_is_good_and_its_parts_are_parts() {
    let read = |name: &str| std::fs::read(fuzz().join(name)).unwrap();
    // It is made again as it was, from the token in the other corpus.
    let token = read("corpus/token/gitlab");
    let lines: Vec<&[u8]> = token.splitn(3, |byte| *byte == b'\n').collect();
    let whole = parsers::proof::proved(lines[1], lines[2]).unwrap();
    let known = String::from_utf8(read("corpus/proof/whole")).unwrap();
    assert_eq!(known, whole);
    let claims = parsers::proof::shown(whole.as_bytes()).unwrap();
    assert_eq!(claims.run.unwrap().id, "574");
    let parts: Vec<&str> = whole.split('.').collect();
    let decoded = |part: &str| ascribe_core::encoding::from_base64url(part).unwrap();
    assert_eq!(read("corpus/proof/header"), decoded(parts[0]));
    assert_eq!(read("corpus/proof/bytes"), decoded(parts[2]));
}

#[test]
fn the_svids_of_the_corpus_are_good_and_what_they_lead_to_is_reached() {
    let code = |name: &str| {
        let bytes = std::fs::read(fuzz().join("corpus/svid").join(name)).unwrap();
        parsers::svid::signed_svid(&bytes).map(|done| done.map_or_else(|e| e.code, |_| "good"))
    };
    for name in ["direct", "middle", "names"] {
        assert_eq!(code(name), Some("good"), "{name}");
    }
    assert_eq!(code("limits"), Some("svid-critical"));
    assert_eq!(code("authority"), Some("svid-ca"));
}

#[test]
fn the_statements_of_the_corpus_are_statements() {
    for name in names(&fuzz().join("corpus/statement")) {
        let bytes = std::fs::read(fuzz().join("corpus/statement").join(&name)).unwrap();
        let read =
            ascribe_core::encoding::decode::<ascribe_core::statement::Statement>(&bytes).is_ok();
        assert_eq!(
            read,
            !["space", "unknown"].contains(&name.as_str()),
            "{name}"
        );
    }
}

/// What a log of today keeps, for the ledgers of the corpus. `ASCRIBE_BLESS=1` writes it anew.
#[test]
fn the_snapshots_of_the_corpus_are_of_todays_form() {
    for name in ["all", "agents"] {
        let bytes = std::fs::read(fuzz().join("corpus/law").join(name)).unwrap();
        let mut state = ascribe_core::law::State::new("demo.invalid/ascribe");
        for entry in bytes.split(|&b| b == b'\n') {
            state
                .apply(&ascribe_evidence::SshSignatures, entry)
                .unwrap();
        }
        let snapshot = state.to_snapshot().unwrap();
        let file = fuzz().join("corpus/snapshot").join(name);
        if std::env::var_os("ASCRIBE_BLESS").is_some() {
            std::fs::write(&file, &snapshot).unwrap();
        }
        assert!(std::fs::read(&file).unwrap() == snapshot, "{name} is old");
    }
}

#[test]
fn the_segment_of_the_corpus_is_whole() {
    use ascribe_core::segment::{End, scan};
    let read = |name: &str| std::fs::read(fuzz().join("corpus").join(name)).unwrap();
    let bytes = read("segment/full");
    let found = scan(&bytes);
    assert!(matches!(found.end, End::Clean(_)), "{:?}", found.end);
    assert!(!found.batches.is_empty());
    assert!(parsers::seal(&read("segment_sealed/whole")) == bytes);
}
