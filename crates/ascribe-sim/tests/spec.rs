//! The examples of the specification are what the code reads and writes.

#[cfg(test)]
mod spec {
    use std::collections::BTreeSet;
    use std::path::Path;

    use ascribe_core::encoding;
    use ascribe_core::entry::{Body, Entry};
    use ascribe_core::id::SessionId;
    use ascribe_core::record::Scope;
    use ascribe_core::segment::{BLOCK, Commit, End, Header, Record, encode_batch, scan};
    use ascribe_core::statement::{Recurrence, Say, Statement};
    use ascribe_tlog::Hash;
    use serde_json::Value;

    const SEGMENT: &str = include_str!("../../../docs/spec/segment.md");
    const FAILURES: &str = include_str!("../../../docs/prior-failures.md");
    const ENTRY: &str = include_str!("../../../docs/spec/entry.md");
    const STATEMENT: &str = include_str!("../../../docs/spec/statement.md");
    const WITNESS: &str = include_str!("../../../docs/spec/witness.md");
    const TARGET: &str = include_str!("../../../docs/spec/target.md");

    /// The first fenced block of this kind.
    fn fenced<'a>(text: &'a str, kind: &str) -> &'a str {
        let (_, rest) = text.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("\n```").unwrap().0
    }

    /// Bytes of a dump; each line's offset must be where it stands.
    fn dumped(dump: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for line in dump.lines() {
            let mut words = line.split("  ").filter(|w| !w.is_empty());
            let Some(offset) = words.next().filter(|_| !line.starts_with(' ')) else {
                continue;
            };
            assert_eq!(
                usize::from_str_radix(offset, 16).unwrap(),
                out.len(),
                "{line}"
            );
            for byte in words.next().unwrap().split(' ') {
                let (byte, times) = byte.split_once('*').unwrap_or((byte, "1"));
                let byte = u8::from_str_radix(byte, 16).unwrap();
                out.resize(out.len() + times.parse::<usize>().unwrap(), byte);
            }
        }
        out
    }

    #[test]
    fn every_kind_of_entry_and_every_type_of_statement_has_its_row() {
        let lacks = |text: &str, name: &str| !text.contains(&format!("\n| `{name}` |"));
        let mut missing: Vec<&str> = Body::KINDS.to_vec();
        missing.retain(|kind| lacks(ENTRY, kind));
        missing.extend(Say::TAGS.iter().filter(|tag| lacks(STATEMENT, tag)));
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_segment_of_the_specification_is_what_is_written_and_read() {
        let written = dumped(fenced(SEGMENT, "text"));
        let header = Header {
            origin: Hash([1; 32]),
            first: 7,
            number: 3,
            root_before: Hash([2; 32]),
        };
        let scope = Scope::Session(SessionId::new([4; 16]));
        let records = [
            Record::Entry(vec![b'{'; 10]),
            Record::Key {
                scope: scope.clone(),
                wrapped: vec![6; 60],
            },
            Record::Openings {
                index: 7,
                scope,
                nonce: [3; 12],
                ciphertext: vec![8; 40],
            },
        ];
        let commit = Commit {
            first: 7,
            count: 1,
            size: 8,
            root: Hash([9; 32]),
            at: 1_764_000_000_123,
            signature: [5; 64],
        };
        let mut expected = header.to_block();
        expected.extend(encode_batch(7, 1, 0, &records, &commit).unwrap());
        assert_eq!(written, expected);
        let mut segment = written;
        segment.resize(8 * BLOCK, 0);
        let read = scan(&segment);
        assert_eq!((read.header, read.end), (Some(header), End::Clean(2)));
        assert_eq!(read.batches[0].records, records);
        assert_eq!(read.batches[0].commit, commit);
    }

    #[test]
    fn the_target_of_the_specification_is_one_and_has_every_field_of_the_table() {
        let mut fields = BTreeSet::new();
        let mut rest = TARGET;
        while let Some((_, from)) = rest.split_once("```json\n") {
            let (example, behind) = from.split_once("\n```").unwrap();
            rest = behind;
            let say: Say = serde_json::from_str(example).unwrap();
            let Say::TargetSet(target) = &say else {
                panic!("{say:?}");
            };
            let written = encoding::encode(&say).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), example);
            let value = serde_json::to_value(target).unwrap();
            for (name, value) in value.as_object().unwrap() {
                fields.insert(name.clone());
                if let Value::Object(inner) = value {
                    fields.extend(inner.keys().map(|inner| format!("{name}.{inner}")));
                }
            }
        }
        let listed = TARGET.lines().filter_map(|l| l.strip_prefix("| `"));
        let listed = listed.map(|l| l.split('`').next().unwrap().to_owned());
        assert_eq!(listed.collect::<BTreeSet<_>>(), fields);
    }

    #[test]
    fn the_witnesses_of_the_specification_are_read_and_written() {
        let example = fenced(WITNESS, "json");
        let say: Say = serde_json::from_str(example).unwrap();
        let Say::WitnessSet(set) = &say else {
            panic!("{say:?}");
        };
        let written = encoding::encode(&say).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), example);
        let policy = ascribe_tlog::TrustPolicy::parse(&set.policy).unwrap();
        assert!(policy.quorum_met(&["w1"]) && policy.witnesses[0].key.is_supported());
    }

    #[test]
    fn the_windows_of_the_specification_are_read_and_written() {
        let (_, section) = STATEMENT.split_once("## Windows").unwrap();
        let example = fenced(section, "json");
        let recurrence: Recurrence = encoding::decode(example.as_bytes()).unwrap();
        assert_eq!(encoding::encode(&recurrence).unwrap(), example.as_bytes());
        for name in ["statement/request-windows", "entry/grant-windows"] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
            let seed = std::fs::read(corpus.join(name)).unwrap();
            let windows = if name.starts_with("entry") {
                match Entry::from_bytes(&seed).unwrap().body {
                    Body::Grant(grant) => grant.windows,
                    other => panic!("{other:?}"),
                }
            } else {
                match encoding::decode::<Statement>(&seed).unwrap().say {
                    Say::Request(request) => request.recurrence.unwrap().windows,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(windows, recurrence.windows, "{name}");
        }
    }

    #[test]
    fn an_observers_word_of_the_specification_is_read_and_written() {
        let (_, section) = STATEMENT.split_once("## Providers").unwrap();
        let example = fenced(section, "json");
        let say: Say = encoding::decode(example.as_bytes()).unwrap();
        assert_eq!(encoding::encode(&say).unwrap(), example.as_bytes());
        assert!(matches!(say, Say::KeysSeen(_)), "{say:?}");
    }

    #[test]
    fn the_delegation_of_the_specification_is_one_and_has_every_field_of_the_table() {
        let (_, section) = STATEMENT.split_once("## Agents").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let example = fenced(section, "json");
        let say: Say = encoding::decode(example.as_bytes()).unwrap();
        assert_eq!(encoding::encode(&say).unwrap(), example.as_bytes());
        let Say::Delegation(delegation) = &say else {
            panic!("{say:?}");
        };
        let value = serde_json::to_value(delegation).unwrap();
        let fields: BTreeSet<&String> = value.as_object().unwrap().keys().collect();
        let listed = section.lines().filter_map(|l| l.strip_prefix("| `"));
        let listed: Vec<String> = listed
            .map(|l| l.split('`').next().unwrap().to_owned())
            .collect();
        assert_eq!(listed.iter().collect::<BTreeSet<_>>(), fields);
    }

    /// Names of all functions below a directory.
    fn functions(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                functions(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(|l| l.trim().trim_start_matches("async "));
                let names = lines.filter_map(|l| l.strip_prefix("fn ")?.split('(').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn each_test_named_beside_a_prior_failure_is_there() {
        let mut known = BTreeSet::new();
        functions(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
            &mut known,
        );
        let mut named = 0;
        for row in FAILURES.lines().filter(|l| l.starts_with("| ")).skip(1) {
            let column = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
            for name in column.split('`').skip(1).step_by(2) {
                assert!(known.contains(name), "{name}");
                named += 1;
            }
        }
        assert!(named > 30, "{named}");
    }
}
