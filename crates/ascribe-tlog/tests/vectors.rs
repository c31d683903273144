//! Golden files: `testdata/vectors/{accept,reject}/NAME`. The name starts with the format and goes
//! on with what the file claims. With `ASCRIBE_BLESS=1` in the environment the files are written.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ascribe_tlog::{
    Checkpoint, Note, SigningKey, TlogProof, Tree, TrustPolicy, VerifierKey, WitnessKey,
    decode_entry_bundle, encode_entry_bundle, leaf_hash, parse_tile_path,
};

const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE_NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
const INDEX: u64 = 5;

fn log() -> SigningKey {
    SigningKey::from_seed("example.org/log", &[1; 32]).unwrap()
}

fn witness() -> SigningKey {
    SigningKey::from_seed("example.org/witness", &[2; 32]).unwrap()
}

fn policy() -> String {
    format!(
        "log {}\nwitness w {}\nquorum w\n",
        log().verifier(),
        witness().witness().unwrap()
    )
}

fn entry(i: u64) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

/// What each format's files must pass.
fn accepts(name: &str, bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    let (format, _) = name.split_once('_').unwrap();
    match format {
        "note" => {
            let known = [EXAMPLE_KEY.parse().unwrap(), log().verifier()];
            Note::open(bytes, &known).is_ok()
        }
        "checkpoint" => Checkpoint::open(bytes, &[log().verifier()]).is_ok(),
        "cosigned" => TrustPolicy::parse(&policy())
            .unwrap()
            .open_checkpoint(bytes)
            .is_ok(),
        "proof" => text.is_ok_and(|text| {
            let leaf = leaf_hash(&entry(INDEX));
            TlogProof::parse(text).is_ok_and(|p| p.verify(&leaf, &[log().verifier()]).is_ok())
        }),
        "policy" => text.is_ok_and(|text| TrustPolicy::parse(text).is_ok()),
        "vkey" => text.is_ok_and(|text| text.parse::<VerifierKey>().is_ok()),
        "witness" => text.is_ok_and(|text| text.parse::<WitnessKey>().is_ok()),
        "path" => text.is_ok_and(|text| parse_tile_path(text).is_ok()),
        "bundle" => decode_entry_bundle(bytes).is_ok(),
        _ => panic!("{name}: unknown format"),
    }
}

#[derive(Default)]
struct Cases(BTreeMap<String, Vec<u8>>);

impl Cases {
    fn accept(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.add("accept", name, content.into());
    }
    fn reject(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.add("reject", name, content.into());
    }
    fn add(&mut self, side: &str, name: &str, content: Vec<u8>) {
        let old = self.0.insert(format!("{side}/{name}"), content);
        assert_eq!(old, None, "{name} is there twice");
    }
}

fn notes(cases: &mut Cases) {
    let good = EXAMPLE_NOTE;
    let (text, line) = good.split_once("\n\n").unwrap();
    let foreign = "\u{2014} example.net/other AAAAAAAA\n";
    cases.accept("note_example_of_the_specification", good);
    cases.accept("note_unknown_signature_ignored", format!("{good}{foreign}"));
    cases.accept(
        "note_unknown_id_ignored",
        format!(
            "{good}{}",
            foreign.replace("example.net/other", "example.com/foo")
        ),
    );
    cases.accept("note_same_signature_twice", format!("{good}{line}"));
    cases.accept(
        "note_blank_lines_in_text",
        log().sign_note("a\n\n\nb\n\n").unwrap(),
    );
    cases.accept(
        "note_sixteen_signatures",
        format!("{good}{}", foreign.repeat(15)),
    );
    cases.reject("note_empty", "");
    cases.reject("note_no_signature", format!("{text}\n"));
    cases.reject("note_no_signature_after_blank_line", format!("{text}\n\n"));
    cases.reject(
        "note_only_unknown_signature",
        format!("{text}\n\n{foreign}"),
    );
    cases.reject("note_extra_newline", format!("{good}\n"));
    cases.reject("note_no_final_newline", good.strip_suffix('\n').unwrap());
    cases.reject("note_no_blank_line", good.replace("\n\n", "\n"));
    cases.reject("note_three_newlines", good.replace("\n\n", "\n\n\n"));
    cases.reject(
        "note_changed_text",
        good.replace("example message", "Example message"),
    );
    cases.reject("note_changed_signature", good.replace("aQM=", "aQI="));
    cases.reject("note_uncanonical_base64", good.replace("aQM=", "aQN="));
    cases.reject("note_unpadded_base64", good.replace("aQM=", "aQM"));
    cases.reject("note_hyphen_for_dash", good.replace('\u{2014}', "-"));
    cases.reject("note_two_spaces", good.replace("foo Uw", "foo  Uw"));
    cases.reject("note_trailing_space", good.replace("aQM=", "aQM= "));
    cases.reject(
        "note_plus_in_name",
        format!("{good}{}", foreign.replace("net/", "net+")),
    );
    cases.reject(
        "note_space_in_name",
        format!("{good}{}", foreign.replace("net/", "net\u{a0}")),
    );
    cases.reject("note_carriage_return", good.replace('\n', "\r\n"));
    cases.reject("note_tab_in_text", good.replace("This is", "This\tis"));
    let mut not_utf8 = good.as_bytes().to_vec();
    not_utf8[0] = 0xff;
    cases.reject("note_not_utf8", not_utf8);
    cases.reject(
        "note_hundred_and_one_signatures",
        format!("{good}{}", foreign.repeat(100)),
    );
    cases.reject(
        "note_id_without_signature",
        format!("{good}\u{2014} example.net/other AAAAAA==\n"),
    );
}

fn checkpoints(cases: &mut Cases, tree: &Tree) {
    let checkpoint = Checkpoint {
        origin: "example.org/log".into(),
        size: tree.size(),
        root: tree.root(),
    };
    let text = checkpoint.to_text();
    let sign = |text: &str| log().sign_note(text).unwrap();
    let good = sign(&text);
    cases.accept("checkpoint_signed", good.as_str());
    let empty = Tree::new();
    let none = Checkpoint {
        size: 0,
        root: empty.root(),
        ..checkpoint
    };
    cases.accept("checkpoint_of_empty_tree", sign(&none.to_text()));
    cases.reject(
        "checkpoint_leading_zero",
        sign(&text.replace("\n7\n", "\n07\n")),
    );
    cases.reject(
        "checkpoint_plus_sign",
        sign(&text.replace("\n7\n", "\n+7\n")),
    );
    cases.reject(
        "checkpoint_negative_size",
        sign(&text.replace("\n7\n", "\n-7\n")),
    );
    cases.reject(
        "checkpoint_hex_size",
        sign(&text.replace("\n7\n", "\n0x7\n")),
    );
    cases.reject("checkpoint_no_size", sign(&text.replace("\n7\n", "\n\n")));
    cases.reject(
        "checkpoint_size_above_u64",
        sign(&text.replace("\n7\n", "\n18446744073709551616\n")),
    );
    cases.reject("checkpoint_unpadded_root", sign(&text.replace('=', "")));
    cases.reject("checkpoint_short_root", sign("example.org/log\n7\nAAAA\n"));
    cases.reject("checkpoint_no_root", sign("example.org/log\n7\n"));
    cases.reject(
        "checkpoint_no_origin",
        sign(&text.replace("example.org/log", "")),
    );
    cases.reject("checkpoint_other_origin", sign(&text.replace("org", "com")));
    cases.reject(
        "checkpoint_extension_line",
        sign(&format!("{text}extension\n")),
    );
    cases.reject("checkpoint_blank_fourth_line", sign(&format!("{text}\n")));
    cases.reject("checkpoint_unsigned", text.as_str());
    cases.reject(
        "checkpoint_signed_by_other_key",
        witness().sign_note(&text).unwrap(),
    );

    let cosignature = witness().cosign(&text, 1_679_315_147).unwrap();
    let earlier = witness().cosign(&text, 1_679_315_146).unwrap();
    let other = witness()
        .cosign(&text.replace("\n7\n", "\n8\n"), 1_679_315_147)
        .unwrap();
    cases.accept("cosigned_once", format!("{good}{cosignature}"));
    cases.accept(
        "cosigned_twice_by_the_same",
        format!("{good}{cosignature}{earlier}"),
    );
    cases.reject("cosigned_by_none", good.as_str());
    cases.reject("cosigned_other_size", format!("{good}{other}"));
    cases.reject(
        "cosigned_well_and_badly",
        format!("{good}{cosignature}{other}"),
    );
    cases.reject("cosigned_without_the_log", format!("{text}\n{cosignature}"));
    let plain = witness().sign_note(&text).unwrap();
    let (_, plain) = plain.split_once("\n\n").unwrap();
    cases.reject("cosigned_as_a_log_signs", format!("{good}{plain}"));
}

fn proofs(cases: &mut Cases, tree: &Tree) {
    let text = Checkpoint {
        origin: "example.org/log".into(),
        size: tree.size(),
        root: tree.root(),
    }
    .to_text();
    let note = log().sign_note(&text).unwrap();
    let hashes = tree.inclusion_proof(INDEX, tree.size()).unwrap();
    let mut proof = TlogProof::new(INDEX, hashes, note);
    let good = proof.to_text();
    let first = proof.hashes[0].to_base64();
    cases.accept("proof_without_extra", good.as_str());
    proof.extra = Some(b"opaque".to_vec());
    cases.accept("proof_with_extra", proof.to_text());
    cases.reject("proof_other_version", good.replace("@v1", "@v2"));
    cases.reject(
        "proof_leading_zero_in_index",
        good.replace("index 5", "index 05"),
    );
    cases.reject("proof_no_index", good.replace("index 5\n", ""));
    cases.reject("proof_wrong_index", good.replace("index 5", "index 4"));
    cases.reject(
        "proof_index_beyond_size",
        good.replace("index 5", "index 7"),
    );
    cases.reject(
        "proof_missing_hash",
        good.replace(&format!("{first}\n"), ""),
    );
    cases.reject(
        "proof_additional_hash",
        good.replace(&first, &format!("{first}\n{first}")),
    );
    cases.reject(
        "proof_extra_after_index",
        good.replace("index 5", "index 5\nextra AA=="),
    );
    cases.reject(
        "proof_empty_extra",
        good.replace("index 5", "extra \nindex 5"),
    );
    cases.reject("proof_no_checkpoint", good.split_once("\n\n").unwrap().0);
    cases.reject("proof_two_blank_lines", good.replacen("\n\n", "\n\n\n", 1));
    cases.reject("proof_carriage_return", good.replace('\n', "\r\n"));
}

fn policies(cases: &mut Cases) {
    let good = policy();
    let (log_line, rest) = good.split_once('\n').unwrap();
    let (witness_line, _) = rest.split_once('\n').unwrap();
    let pin = format!(
        "# ascribe-first-entry {}\n",
        leaf_hash(&entry(0)).to_base64url()
    );
    cases.accept("policy_with_witness", good.as_str());
    cases.accept("policy_with_pin", format!("{pin}{good}"));
    cases.accept("policy_quorum_none", format!("{log_line}\nquorum none\n"));
    cases.accept(
        "policy_comments_and_blanks",
        format!("# free\n\n \t\n{good}"),
    );
    cases.accept(
        "policy_nested_groups",
        good.replace("quorum w", "group g any w\ngroup h all g\nquorum h"),
    );
    cases.reject("policy_empty", "");
    cases.reject("policy_no_quorum", format!("{log_line}\n"));
    cases.reject("policy_no_log", "quorum none\n");
    cases.reject("policy_no_final_newline", good.strip_suffix('\n').unwrap());
    cases.reject("policy_carriage_return", good.replace('\n', "\r\n"));
    cases.reject("policy_unknown_line", format!("{good}trust everyone\n"));
    cases.reject("policy_duplicate_pin", format!("{pin}{pin}{good}"));
    cases.reject("policy_padded_pin", format!("{}=\n{good}", pin.trim_end()));
    cases.reject("policy_duplicate_log", format!("{log_line}\n{good}"));
    cases.reject(
        "policy_duplicate_witness",
        good.replace(
            witness_line,
            &format!("{witness_line}\n{}", witness_line.replace(" w ", " v ")),
        ),
    );
    cases.reject("policy_two_quorums", format!("{good}quorum none\n"));
    cases.reject(
        "policy_quorum_of_unknown",
        good.replace("quorum w", "quorum v"),
    );
    cases.reject(
        "policy_quorum_before_witness",
        format!("quorum w\n{log_line}\n{witness_line}\n"),
    );
    cases.reject("policy_witness_named_none", good.replace(" w ", " none "));
    cases.reject(
        "policy_member_none",
        good.replace("quorum w", "group g any none\nquorum g"),
    );
    cases.reject(
        "policy_member_of_two_groups",
        good.replace("quorum w", "group g any w\ngroup h any w\nquorum g"),
    );
    cases.reject(
        "policy_group_of_itself",
        good.replace("quorum w", "group g any g\nquorum g"),
    );
    cases.reject(
        "policy_threshold_zero",
        good.replace("quorum w", "group g 0 w\nquorum g"),
    );
    cases.reject(
        "policy_threshold_above_members",
        good.replace("quorum w", "group g 2 w\nquorum g"),
    );
    cases.reject(
        "policy_log_key_for_witness",
        good.replace(witness_line, &format!("witness w {}", log().verifier())),
    );
}

fn small(cases: &mut Cases) {
    let witness = witness().witness().unwrap().to_string();
    cases.accept("vkey_example_of_the_specification", EXAMPLE_KEY);
    cases.reject("vkey_upper_case_id", EXAMPLE_KEY.replace("530d", "530D"));
    cases.reject("vkey_wrong_id", EXAMPLE_KEY.replace("530d", "530e"));
    cases.reject("vkey_trailing_newline", format!("{EXAMPLE_KEY}\n"));
    cases.reject("vkey_of_witness", witness.as_str());
    cases.accept("witness_key", witness.as_str());
    cases.reject("witness_key_of_log", EXAMPLE_KEY);
    for (name, path) in [
        ("full_tile", "tile/0/x001/x234/067"),
        ("partial_tile", "tile/1/273.p/17"),
        ("entries", "tile/entries/273.p/112"),
    ] {
        cases.accept(&format!("path_{name}"), path);
    }
    for (name, path) in [
        ("level_64", "tile/64/000"),
        ("leading_zero_in_level", "tile/01/000"),
        ("width_zero", "tile/0/000.p/0"),
        ("width_256", "tile/0/000.p/256"),
        ("leading_zero_group", "tile/0/x000/001"),
        ("group_without_x", "tile/0/001/000"),
        ("last_group_with_x", "tile/0/x001"),
        ("sumdb_form", "tile/8/0/x001/x234/067"),
        ("parent_directory", "tile/0/../000"),
        ("leading_slash", "/tile/0/000"),
    ] {
        cases.reject(&format!("path_{name}"), path);
    }
    let bundle = encode_entry_bundle(&[entry(0), Vec::new(), entry(2)]).unwrap();
    cases.accept("bundle_of_three_entries", bundle.as_slice());
    cases.reject("bundle_cut_in_entry", &bundle[..bundle.len() - 1]);
    cases.reject("bundle_cut_in_length", [&bundle[..], &[0]].concat());
    cases.reject("bundle_of_257_entries", vec![0; 2 * 257]);
}

fn cases() -> Cases {
    let mut tree = Tree::new();
    (0..7).for_each(|i| tree.push(leaf_hash(&entry(i))));
    let mut cases = Cases::default();
    notes(&mut cases);
    checkpoints(&mut cases, &tree);
    proofs(&mut cases, &tree);
    policies(&mut cases);
    small(&mut cases);
    cases
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors")
}

fn files() -> BTreeMap<String, Vec<u8>> {
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("ASCRIBE_BLESS").is_some() {
            for (name, content) in cases().0 {
                std::fs::write(root().join(name), content).unwrap();
            }
        }
    });
    let mut found = BTreeMap::new();
    for side in ["accept", "reject"] {
        for file in std::fs::read_dir(root().join(side)).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            found.insert(
                format!("{side}/{name}"),
                std::fs::read(file.path()).unwrap(),
            );
        }
    }
    found
}

#[test]
fn files_are_what_they_claim() {
    let files = files();
    assert!(files.len() > 80);
    for (name, content) in &files {
        let (side, claim) = name.split_once('/').unwrap();
        assert_eq!(accepts(claim, content), side == "accept", "{name}");
    }
}

#[test]
fn files_are_those_that_are_made_here() {
    let (files, cases) = (files(), cases().0);
    let names = |map: &BTreeMap<String, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&files), names(&cases));
    for (name, content) in cases {
        assert!(files[&name] == content, "{name} differs");
    }
}

/// A file that is refused must differ from every file that is accepted.
#[test]
fn no_content_is_on_both_sides_for_one_format() {
    let files = files();
    for (name, content) in files.iter().filter(|(name, _)| name.starts_with("reject/")) {
        let format = name
            .trim_start_matches("reject/")
            .split('_')
            .next()
            .unwrap();
        let same = files
            .iter()
            .filter(|(other, _)| other.starts_with(&format!("accept/{format}_")))
            .any(|(_, other)| other == content);
        assert!(!same, "{name}");
    }
}
