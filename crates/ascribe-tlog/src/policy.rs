//! C2SP tlog-policy: which logs a verifier accepts, and which witnesses must have cosigned.
//!
//! Our first-entry pin is a comment line `# ascribe-first-entry HASH` (base64url leaf hash), which
//! other tools ignore. Names are UTF-8 here, where the specification allows any octets.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::cosign::WitnessKey;
use crate::hash::Hash;
use crate::note::{Note, NoteError, VerifierKey};

const PIN: &str = "ascribe-first-entry";
const NONE: &str = "none";
/// Most logs, witnesses and groups, each. The specification asks for 32.
const MAX_ITEMS: usize = 256;

/// What a verifier trusts. [`TrustPolicy::open_checkpoint`] applies all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustPolicy {
    /// Keys of accepted logs. Checking with these alone leaves out the quorum.
    pub logs: Vec<VerifierKey>,
    /// Addresses of logs, by verifier key as text; no meaning here.
    pub log_urls: BTreeMap<String, String>,
    /// Known witnesses.
    pub witnesses: Vec<Witness>,
    /// Groups, each after its members.
    pub groups: Vec<Group>,
    /// Who must have cosigned.
    pub quorum: Quorum,
    /// The pinned leaf hash of the first entry.
    pub first_entry: Option<Hash>,
}

/// A witness, under the name that it has in this policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The name in the policy, not that of the key.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    /// Its address; no meaning here.
    pub url: Option<String>,
}

/// A group, which has witnessed when at least `threshold` members have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name in the policy.
    pub name: String,
    /// How many members, from 1 to all.
    pub threshold: usize,
    /// Names of witnesses and of groups before this one.
    pub members: Vec<String>,
}

/// Who must have cosigned a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Quorum {
    /// No one.
    #[default]
    None,
    /// The witness or the group of this name.
    Name(String),
}

/// Why a trust policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A line says nothing that is known.
    #[error("line {0}: not a line of a trust policy")]
    Line(usize),
    /// A byte that no policy may hold.
    #[error("line {0}: a control character")]
    Control(usize),
    /// A key is damaged, or of a type that does not fit.
    #[error("line {0}: the key is not a verifier key of the right type")]
    Key(usize),
    /// The pinned hash is damaged.
    #[error("line {0}: the first entry is not a base64url hash")]
    Pin(usize),
    /// Something is said twice: a name, a key, a membership, the quorum, the pin.
    #[error("line {0}: said twice")]
    Twice(usize),
    /// A name is used before it is defined.
    #[error("line {0}: `{1}` is not defined before it is used")]
    Unknown(usize, String),
    /// A threshold that is no number from 1 to the number of members.
    #[error("line {0}: the threshold is not `all`, `any` or a number from 1 to that of members")]
    Threshold(usize),
    /// More than can be held.
    #[error("line {0}: too many logs, witnesses or groups")]
    TooMany(usize),
    /// No log is named.
    #[error("the trust policy names no log")]
    Empty,
    /// No quorum is given.
    #[error("the trust policy has no quorum line")]
    NoQuorum,
    /// The last line is cut off.
    #[error("the trust policy does not end with a newline")]
    Newline,
}

/// Why a checkpoint is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The checkpoint itself, or its log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Too few witnesses.
    #[error("the witnesses that cosigned the checkpoint do not make the quorum")]
    Quorum,
}

impl From<NoteError> for TrustError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl TrustPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// When a line is not understood: an unknown demand is never ignored.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut reader = Reader::default();
        let body = text.strip_suffix('\n').ok_or(PolicyError::Newline)?;
        for (i, line) in body.split('\n').enumerate() {
            reader.line(i + 1, line)?;
        }
        if reader.policy.logs.is_empty() {
            return Err(PolicyError::Empty);
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self {
            quorum,
            ..reader.policy
        })
    }

    /// The policy as a file.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |words: &[&str]| {
            out.push_str(&words.join(" "));
            out.push('\n');
        };
        if let Some(hash) = &self.first_entry {
            line(&["#", PIN, &hash.to_base64url()]);
        }
        for log in &self.logs {
            let key = log.to_string();
            match self.log_urls.get(&key) {
                Some(url) => line(&["log", &key, url]),
                None => line(&["log", &key]),
            }
        }
        for witness in &self.witnesses {
            let key = witness.key.to_string();
            match &witness.url {
                Some(url) => line(&["witness", &witness.name, &key, url]),
                None => line(&["witness", &witness.name, &key]),
            }
        }
        for group in &self.groups {
            let threshold = group.threshold.to_string();
            line(&["group", &group.name, &threshold, &group.members.join(" ")]);
        }
        match &self.quorum {
            Quorum::None => line(&["quorum", NONE]),
            Quorum::Name(name) => line(&["quorum", name]),
        }
        out
    }

    /// Do these witnesses, by their names in this policy, make the quorum?
    pub fn quorum_met<T: AsRef<str>>(&self, cosigners: &[T]) -> bool {
        let Quorum::Name(quorum) = &self.quorum else {
            return true;
        };
        let cosigners: BTreeSet<&str> = cosigners.iter().map(AsRef::as_ref).collect();
        let mut witnessed: BTreeSet<&str> = self
            .witnesses
            .iter()
            .map(|witness| witness.name.as_str())
            .filter(|name| cosigners.contains(name))
            .collect();
        for group in &self.groups {
            let members: BTreeSet<&str> = group.members.iter().map(String::as_str).collect();
            if members.intersection(&witnessed).count() >= group.threshold.max(1) {
                witnessed.insert(&group.name);
            }
        }
        witnessed.contains(quorum.as_str())
    }

    /// The policy's names of the witnesses that cosigned a note.
    ///
    /// # Errors
    /// When a known witness's cosignature is wrong.
    pub fn cosigners(&self, note: &Note) -> Result<Vec<&str>, NoteError> {
        let mut names = Vec::new();
        for witness in &self.witnesses {
            if witness.key.cosigned(note)?.is_some() {
                names.push(witness.name.as_str());
            }
        }
        Ok(names)
    }

    /// Opens a signed checkpoint under the whole policy: log, then witnesses.
    ///
    /// # Errors
    /// When it is malformed, no accepted log signed it, or the quorum is not met.
    pub fn open_checkpoint(&self, note: &[u8]) -> Result<Checkpoint, TrustError> {
        let note = Note::open(note, &self.logs)?;
        let checkpoint = Checkpoint::of_note(&note)?;
        if self.quorum_met(&self.cosigners(&note)?) {
            Ok(checkpoint)
        } else {
            Err(TrustError::Quorum)
        }
    }
}

/// A policy in the making.
#[derive(Default)]
struct Reader {
    policy: TrustPolicy,
    quorum: Option<Quorum>,
    /// Names of groups and witnesses.
    defined: BTreeSet<String>,
    /// Those of them that are members already.
    grouped: BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), PolicyError> {
        if line.contains(|c: char| (c < ' ' && c != '\t') || c == '\x7f') {
            return Err(PolicyError::Control(number));
        }
        let line = line.trim_matches([' ', '\t']);
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(number, comment);
        }
        let words: Vec<&str> = line
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            [] => Ok(()),
            ["log", key] => self.log(number, key, None),
            ["log", key, url] => self.log(number, key, Some(url)),
            ["witness", name, key] => self.witness(number, name, key, None),
            ["witness", name, key, url] => self.witness(number, name, key, Some(url)),
            ["group", name, threshold, members @ ..] if !members.is_empty() => {
                self.group(number, name, threshold, members)
            }
            ["quorum", name] => self.quorum(number, name),
            _ => Err(PolicyError::Line(number)),
        }
    }

    /// Comments are free, but what looks like our pin must be one.
    fn comment(&mut self, number: usize, comment: &str) -> Result<(), PolicyError> {
        let mut words = comment.split([' ', '\t']).filter(|word| !word.is_empty());
        if words.next() != Some(PIN) {
            return Ok(());
        }
        let (Some(hash), None) = (words.next(), words.next()) else {
            return Err(PolicyError::Pin(number));
        };
        let hash = Hash::from_base64url(hash).ok_or(PolicyError::Pin(number))?;
        match self.policy.first_entry.replace(hash) {
            None => Ok(()),
            Some(_) => Err(PolicyError::Twice(number)),
        }
    }

    fn log(&mut self, number: usize, key: &str, url: Option<&str>) -> Result<(), PolicyError> {
        let parsed: VerifierKey = key.parse().map_err(|_| PolicyError::Key(number))?;
        let public = parsed.public_key();
        let logs = &mut self.policy.logs;
        if logs.iter().any(|log| log.public_key() == public) {
            return Err(PolicyError::Twice(number));
        }
        push(logs, parsed, number)?;
        if let Some(url) = url {
            let urls = &mut self.policy.log_urls;
            urls.insert(key.to_owned(), url.to_owned());
        }
        Ok(())
    }

    fn witness(
        &mut self,
        number: usize,
        name: &str,
        key: &str,
        url: Option<&str>,
    ) -> Result<(), PolicyError> {
        let key: WitnessKey = key.parse().map_err(|_| PolicyError::Key(number))?;
        let mut known = self.policy.witnesses.iter();
        if known.any(|other| other.key.public_key() == key.public_key()) {
            return Err(PolicyError::Twice(number));
        }
        self.define(number, name)?;
        let witness = Witness {
            name: name.to_owned(),
            key,
            url: url.map(str::to_owned),
        };
        push(&mut self.policy.witnesses, witness, number)
    }

    fn group(
        &mut self,
        number: usize,
        name: &str,
        threshold: &str,
        members: &[&str],
    ) -> Result<(), PolicyError> {
        for member in members {
            self.require(number, member)?;
            if !self.grouped.insert((*member).to_owned()) {
                return Err(PolicyError::Twice(number));
            }
        }
        let threshold = match threshold {
            "any" => 1,
            "all" => members.len(),
            text => text
                .parse()
                .ok()
                .filter(|k: &usize| (1..=members.len()).contains(k) && k.to_string() == text)
                .ok_or(PolicyError::Threshold(number))?,
        };
        self.define(number, name)?;
        let group = Group {
            name: name.to_owned(),
            threshold,
            members: members.iter().map(|name| (*name).to_owned()).collect(),
        };
        push(&mut self.policy.groups, group, number)
    }

    fn quorum(&mut self, number: usize, name: &str) -> Result<(), PolicyError> {
        let quorum = if name == NONE {
            Quorum::None
        } else {
            self.require(number, name)?;
            Quorum::Name(name.to_owned())
        };
        match self.quorum.replace(quorum) {
            None => Ok(()),
            Some(_) => Err(PolicyError::Twice(number)),
        }
    }

    /// Witnesses and groups share their names, and `none` is taken.
    fn define(&mut self, number: usize, name: &str) -> Result<(), PolicyError> {
        if name != NONE && self.defined.insert(name.to_owned()) {
            Ok(())
        } else {
            Err(PolicyError::Twice(number))
        }
    }

    fn require(&self, number: usize, name: &str) -> Result<(), PolicyError> {
        if self.defined.contains(name) {
            Ok(())
        } else {
            Err(PolicyError::Unknown(number, name.to_owned()))
        }
    }
}

fn push<T>(items: &mut Vec<T>, item: T, number: usize) -> Result<(), PolicyError> {
    if items.len() >= MAX_ITEMS {
        return Err(PolicyError::TooMany(number));
    }
    items.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&format!("example.org/{seed}"), &[seed; 32]).unwrap()
    }

    fn log_line() -> String {
        format!("log {}\n", key(1).verifier())
    }

    /// The example of the specification, with keys.
    fn example() -> String {
        let mut text = log_line();
        for (seed, name) in (2u8..).zip(["X1", "X2", "X3", "Y1", "Y2", "Y3"]) {
            let vkey = key(seed).witness().unwrap();
            text.push_str(&format!("witness {name} {vkey}\n"));
        }
        text + "group X-witnesses 2 X1 X2 X3\n\
                group Y-witnesses any Y1 Y2 Y3\n\n\
                group X-and-Y all X-witnesses Y-witnesses\n\
                quorum X-and-Y\n"
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let policy = TrustPolicy::parse(&example()).unwrap();
        assert_eq!(TrustPolicy::parse(&policy.to_text()).unwrap(), policy);
        let cases: [(&[&str], bool); 9] = [
            (&[], false),
            (&["X1", "X2"], false),
            (&["Y1", "Y2", "Y3"], false),
            (&["X1", "Y1"], false),
            (&["X1", "X1", "Y1"], false),
            (&["X1", "X3", "Y2"], true),
            (&["X1", "X2", "X3", "Y1", "Y2", "Y3"], true),
            (&["X-and-Y"], false),
            (&["X-witnesses", "Y-witnesses"], false),
        ];
        for (names, met) in cases {
            assert_eq!(policy.quorum_met(names), met, "{names:?}");
        }
    }

    #[test]
    fn pins_addresses_and_spacing_are_read() {
        let pin = Hash([9; 32]).to_base64url();
        let log = key(1).verifier();
        let witness = key(2).witness().unwrap();
        let text = format!(
            "\n# free text\n \t#  ascribe-first-entry\t{pin} \nlog\t{log}  log.example\n\
             \twitness  w {witness} witness.example\nquorum w\n"
        );
        let policy = TrustPolicy::parse(&text).unwrap();
        assert_eq!(policy.first_entry, Some(Hash([9; 32])));
        assert_eq!(policy.log_urls[&log.to_string()], "log.example");
        assert_eq!(policy.witnesses[0].url.as_deref(), Some("witness.example"));
        assert_eq!(TrustPolicy::parse(&policy.to_text()).unwrap(), policy);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        use PolicyError as E;
        let log = log_line();
        let w = |seed: u8, name: &str| format!("witness {name} {}\n", key(seed).witness().unwrap());
        let pin = format!("# ascribe-first-entry {}\n", Hash::ZERO.to_base64url());
        let none = "quorum none\n";
        let renamed = SigningKey::from_seed("other", &[1; 32]).unwrap().verifier();
        let (w2, w3) = (w(2, "a"), w(3, "b"));
        let log_key = key(1).verifier();
        for (text, error) in [
            (String::new(), E::Newline),
            (none.to_owned(), E::Empty),
            (log.clone(), E::NoQuorum),
            (format!("{log}quorum none"), E::Newline),
            (format!("{log}quorum none\r\n"), E::Control(2)),
            (format!("{log}{none}nonsense\n"), E::Line(3)),
            (format!("{log}quorum\n"), E::Line(2)),
            (format!("{log}quorum none none\n"), E::Line(2)),
            (format!("log {log_key} url more\n{none}"), E::Line(1)),
            (format!("log x\n{none}"), E::Key(1)),
            (w2.replace("witness a", "log"), E::Key(1)),
            (format!("witness a {log_key}\n"), E::Key(1)),
            (format!("{log}{log}{none}"), E::Twice(2)),
            (format!("{log}log {renamed}\n{none}"), E::Twice(2)),
            (format!("{log}{none}{none}"), E::Twice(3)),
            (format!("{pin}{pin}{log}{none}"), E::Twice(2)),
            (format!("{log}#ascribe-first-entry\n{none}"), E::Pin(2)),
            (format!("{log}{}x\n", pin.trim_end()), E::Pin(2)),
            (format!("{w2}{}", w(2, "b")), E::Twice(2)),
            (format!("{w2}{}", w(3, "a")), E::Twice(2)),
            (w(2, "none"), E::Twice(1)),
            (format!("{w2}group a any a\n"), E::Twice(2)),
            (format!("{w2}group g all a a\n"), E::Twice(2)),
            (
                format!("{w2}{w3}group g any a\ngroup h all a b\n"),
                E::Twice(4),
            ),
            (format!("{w2}group g any\n"), E::Line(2)),
            (format!("{w2}group g 0 a\n"), E::Threshold(2)),
            (format!("{w2}group g 2 a\n"), E::Threshold(2)),
            (format!("{w2}group g 01 a\n"), E::Threshold(2)),
            (format!("{w2}group g +1 a\n"), E::Threshold(2)),
            (format!("{w2}group g some a\n"), E::Threshold(2)),
            (
                format!("{w2}group g any none\n"),
                E::Unknown(2, "none".into()),
            ),
            ("group g any g\n".into(), E::Unknown(1, "g".into())),
            (format!("quorum a\n{w2}"), E::Unknown(1, "a".into())),
        ] {
            assert_eq!(TrustPolicy::parse(&text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_limited_above_what_the_specification_asks() {
        let groups = |n: usize| {
            let mut text = format!("{}witness g0 {}\n", log_line(), key(2).witness().unwrap());
            for i in 1..=n {
                text.push_str(&format!("group g{i} any g{}\n", i - 1));
            }
            text + &format!("quorum g{n}\n")
        };
        let policy = TrustPolicy::parse(&groups(256)).unwrap();
        assert!(policy.quorum_met(&["g0"]));
        assert!(!policy.quorum_met(&["g1"]));
        assert_eq!(
            TrustPolicy::parse(&groups(257)),
            Err(PolicyError::TooMany(259))
        );
    }

    #[test]
    fn a_checkpoint_is_opened_under_the_whole_policy() {
        let policy = TrustPolicy::parse(&example()).unwrap();
        let checkpoint = Checkpoint {
            origin: key(1).name().to_owned(),
            size: 5,
            root: Hash([3; 32]),
        };
        let text = checkpoint.to_text();
        let mut note = key(1).sign_note(&text).unwrap();
        let quorum = Err(TrustError::Quorum);
        assert_eq!(policy.open_checkpoint(note.as_bytes()), quorum);
        note += &key(2).cosign(&text, 10).unwrap();
        note += &key(5).cosign(&text, 10).unwrap();
        // Twice the same witness is one witness.
        note += &key(2).cosign(&text, 11).unwrap();
        // Nor does a log signature by a witness's key count.
        let as_log = key(3).sign_note(&text).unwrap();
        note += as_log.strip_prefix(&format!("{text}\n")).unwrap();
        assert_eq!(policy.open_checkpoint(note.as_bytes()), quorum);
        let bad = key(3).cosign(&text.replace('5', "6"), 10).unwrap();
        assert!(matches!(
            policy.open_checkpoint((note.clone() + &bad).as_bytes()),
            Err(TrustError::Checkpoint(CheckpointError::Note(
                NoteError::Signature(_)
            )))
        ));
        note += &key(3).cosign(&text, 12).unwrap();
        assert_eq!(policy.open_checkpoint(note.as_bytes()), Ok(checkpoint));
        let other = TrustPolicy::parse(&format!("log {}\nquorum none\n", key(9).verifier()));
        assert!(other.unwrap().open_checkpoint(note.as_bytes()).is_err());
    }
}
