//! What a replay refuses.

use super::*;

/// Paths of all leaves of a JSON value.
fn leaves(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, item) in map {
                leaves(item, &format!("{path}/{name}"), out);
            }
        }
        serde_json::Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{i}"), out);
            }
        }
        _ => out.push(path.to_owned()),
    }
}

/// Other values of the same type.
fn others(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Bool(b) => vec![Value::Bool(!b)],
        Value::Number(n) => {
            let n = n.as_u64().unwrap();
            let mut out = vec![Value::from(n + 1)];
            out.extend(n.checked_sub(1).map(Value::from));
            out
        }
        Value::String(text) => {
            let mut out = vec![Value::from(format!("{text}x")), Value::from("")];
            for at in [0, 3, text.len() / 2, text.len().saturating_sub(2)] {
                let mut bytes = text.clone().into_bytes();
                let Some(byte) = bytes.get_mut(at) else {
                    continue;
                };
                *byte = match *byte {
                    b'1' => b'2',
                    b'a' => b'b',
                    b if b.is_ascii_digit() => b'1',
                    _ => b'a',
                };
                out.extend(String::from_utf8(bytes).ok().map(Value::from));
            }
            out.extend(
                [
                    "single", "reusable", "server", "gw", "idle", "expired", "unknown",
                ]
                .map(Value::from),
            );
            out.retain(|other| other != value);
            out
        }
        _ => vec![],
    }
}

/// Does a replay of these entries, from this state on, refuse one of them?
fn refuses(mut state: State, entries: &[Vec<u8>]) -> bool {
    entries
        .iter()
        .any(|bytes| state.apply(&Fake, bytes).is_err())
}

#[test]
fn every_changed_field_of_every_entry_is_refused_in_replay() {
    // Nothing of its writer follows the newest head of each chain, so only the tree and the
    // signed checkpoint protect what its signature does not cover.
    let w = full_path();
    let count = w.log.len();
    let uncovered = |i: usize, path: &str| i + 2 >= count && ["/id", "/at"].contains(&path);
    let mut state = State::new(ORIGIN);
    let mut changes = 0;
    for (i, bytes) in w.log.iter().enumerate() {
        let entry: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let mut paths = Vec::new();
        leaves(&entry, "", &mut paths);
        for path in paths {
            for other in others(entry.pointer(&path).unwrap()) {
                let mut changed = entry.clone();
                *changed.pointer_mut(&path).unwrap() = other.clone();
                let mut rest = w.log[i..].to_vec();
                rest[0] = encoding::encode(&changed).unwrap();
                let refused = refuses(state.clone(), &rest);
                assert!(
                    refused || uncovered(i, &path),
                    "entry {i}: {path} became {other}"
                );
                changes += 1;
            }
        }
        state.apply(&Fake, bytes).unwrap();
    }
    assert!(changes > 1000, "{changes}");
}

#[test]
fn a_missing_doubled_or_swapped_entry_is_refused_in_replay() {
    let w = full_path();
    let count = w.log.len();
    for i in 0..count {
        let mut doubled = w.log.clone();
        doubled.insert(i, w.log[i].clone());
        assert!(refuses(State::new(ORIGIN), &doubled), "doubled {i}");
        let mut missing = w.log.clone();
        missing.remove(i);
        // The two newest heads are the ends of their chains: a shorter log is a true one.
        let refused = refuses(State::new(ORIGIN), &missing);
        assert!(refused || i + 2 >= count, "missing {i}");
        if i + 1 < count {
            let mut swapped = w.log.clone();
            swapped.swap(i, i + 1);
            // Neighbours of two writers that name nothing of each other may come in any order;
            // their order is the tree's claim.
            let (a, b) = (
                Entry::from_bytes(&w.log[i]).unwrap(),
                Entry::from_bytes(&w.log[i + 1]).unwrap(),
            );
            let free = a.writer.id != b.writer.id
                && a.law == b.law
                && a.at == b.at
                && !b.refs.iter().any(|r| r.index == i as u64);
            let refused = refuses(State::new(ORIGIN), &swapped);
            assert!(refused || free, "swapped {i}");
        }
    }
    let mut state = State::new(ORIGIN);
    for junk in [&b""[..], b"{}", b"null", &[0xff; 70_000]] {
        assert!(state.apply(&Fake, junk).is_err());
    }
}
