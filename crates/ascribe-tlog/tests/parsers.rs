//! Every parser takes any bytes without a panic, and writes back exactly what it accepts.

#![cfg(test)]

use ascribe_tlog::{
    Checkpoint, Hash, Note, SigningKey, TlogProof, TrustPolicy, VerifierKey, WitnessKey,
    decode_entry_bundle, encode_entry_bundle, parse_tile_path,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

fn key() -> SigningKey {
    SigningKey::from_seed("example.org/log", &[1; 32]).unwrap()
}

fn note() -> String {
    let text = Checkpoint {
        origin: "example.org/log".into(),
        size: 12,
        root: Hash([5; 32]),
    }
    .to_text();
    key().sign_note(&text).unwrap() + &key().cosign(&text, 1).unwrap()
}

fn policy() -> String {
    format!(
        "# ascribe-first-entry {}\nlog {}\nwitness w {}\ngroup g 1 w\nquorum g\n",
        Hash::ZERO.to_base64url(),
        key().verifier(),
        key().witness().unwrap()
    )
}

/// A text with one piece replaced by another.
fn change(text: &str, at: usize, cut: usize, piece: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let end = (at + cut).min(chars.len());
    let (head, tail) = (&chars[..at], &chars[end..]);
    head.iter()
        .copied()
        .chain(piece.chars())
        .chain(tail.iter().copied())
        .collect()
}

fn read_all(text: &str) {
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_text(), text);
    }
    if let Ok(proof) = TlogProof::parse(text) {
        assert_eq!(proof.to_text(), text);
    }
    if let Ok(policy) = TrustPolicy::parse(text) {
        assert_eq!(TrustPolicy::parse(&policy.to_text()), Ok(policy));
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = text.parse::<WitnessKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(path) = parse_tile_path(text) {
        assert_eq!(path.to_string(), text);
    }
    if let Some(hash) = Hash::from_base64(text) {
        assert_eq!(hash.to_base64(), text);
    }
    if let Some(hash) = Hash::from_base64url(text) {
        assert_eq!(hash.to_base64url(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_is_read_in_one_spelling(text in "\\PC*") {
        read_all(&text);
    }

    #[test]
    fn changed_texts_are_read_in_one_spelling(
        at in any::<usize>(),
        cut in 0usize..4,
        piece in "[\\n \\t\\r+=#0-9a-zA-Z/—]{0,3}",
    ) {
        let proof = TlogProof::new(3, vec![Hash([9; 32]); 4], note()).to_text();
        let texts = [
            proof,
            policy(),
            note(),
            "example.org/log\n12\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".into(),
            key().verifier().to_string(),
            key().witness().unwrap().to_string(),
            "tile/0/x001/x234/067.p/12".into(),
            Hash([255; 32]).to_base64(),
            Hash([255; 32]).to_base64url(),
        ];
        for text in texts {
            read_all(&text);
            read_all(&change(&text, at, cut, &piece));
        }
    }

    #[test]
    fn a_note_opens_only_with_its_text(at in any::<usize>(), cut in 0usize..4, piece in "\\PC{0,2}") {
        let note = note();
        let changed = change(&note, at, cut, &piece);
        let known = [key().verifier()];
        if let Ok(opened) = Note::open(changed.as_bytes(), &known) {
            let good = Note::open(note.as_bytes(), &known).unwrap();
            prop_assert_eq!(opened.text(), good.text());
            prop_assert_eq!(opened.signature_of(&known[0]), good.signature_of(&known[0]));
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Note::open(&bytes, &[key().verifier()]).is_err());
        if let Ok(entries) = decode_entry_bundle(&bytes) {
            prop_assert_eq!(encode_entry_bundle(&entries), Ok(bytes));
        }
    }

    #[test]
    fn entries_come_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..257)) {
        let bundle = encode_entry_bundle(&entries).unwrap();
        prop_assert_eq!(decode_entry_bundle(&bundle).unwrap(), entries);
    }
}
