//! The chain behind a session, link by link: who signed each, and which parties one must trust for it.
//!
//! Nothing is checked here. The replay has let every link in; this says on whose word that rests.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ActionId, EntryHash, PersonId, SessionId};
use ascribe_core::law::{Judge as _, State};
use ascribe_core::text::clean;
use ascribe_evidence::SshSignatures;
use ascribe_tlog::{Note, TrustPolicy, VerifierKey};
use serde::Serialize;

use crate::logins::Logins;
use crate::vouchers::Voucher;
use crate::witnesses::Witnessed;

mod listing;

use listing::Listing;

/// Names that were disclosed.
pub(crate) type Names = BTreeMap<PersonId, String>;

/// Somebody's name where it is disclosed, for a terminal; else the id.
pub(crate) fn shown(names: &Names, id: PersonId) -> String {
    match names.get(&id) {
        Some(name) => clean(name, 60),
        None => id.to_string(),
    }
}

/// What a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// Keys came to stand for people.
    Enrolment,
    /// An outside certificate authority came to count, and whom its principals stand for.
    Authority,
    /// A provider came to count.
    Provider,
    /// A directory came to speak, and its groups to give roles.
    Directory,
    /// A provider's subject came to stand for a person.
    Identity,
    /// Tokens of a provider came to stand for a workload.
    Workload,
    /// A token introduced a session key.
    Login,
    /// Somebody let an agent act in their name.
    Delegation,
    /// The agent took that.
    Acceptance,
    /// Somebody asked for the grant, or took it in an emergency.
    Request,
    /// Somebody asked for a later end of it.
    Extension,
    /// Somebody said yes.
    Approval,
    /// The grant followed.
    Grant,
    /// The session began.
    Opening,
    /// What was done in it.
    Record,
    /// The order of all this, and that nothing is left out.
    Order,
    /// When it was.
    Time,
}

impl LinkKind {
    fn name(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment",
            Self::Authority => "authority",
            Self::Provider => "provider",
            Self::Directory => "directory",
            Self::Identity => "identity",
            Self::Workload => "workload",
            Self::Login => "login",
            Self::Delegation => "delegation",
            Self::Acceptance => "acceptance",
            Self::Request => "request",
            Self::Extension => "extension",
            Self::Approval => "approval",
            Self::Grant => "grant",
            Self::Opening => "opening",
            Self::Record => "record",
            Self::Order => "order",
            Self::Time => "time",
        }
    }
}

/// Who signed, with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The person, workload or agent; none where it is a provider, a writer, the log or a witness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<PersonId>,
    /// Their name, where it is disclosed; of a provider its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `enrolled key`, `enrolled security key`, `session key`, `key that the gateway made for one connection`,
    /// `agent's key`, `certified key`, `provider key`, `writer key`, `log key` or `witness key`.
    pub with: &'static str,
    /// The key's fingerprint, thumbprint or key id.
    pub key: String,
}

impl Signer {
    fn other(name: &str, with: &'static str, key: String) -> Self {
        Self {
            principal: None,
            name: Some(name.to_owned()),
            with,
            key,
        }
    }

    fn who(&self) -> String {
        match (&self.name, self.principal) {
            (Some(name), _) => clean(name, 200),
            (None, Some(id)) => id.to_string(),
            (None, None) => "nobody known".to_owned(),
        }
    }
}

/// A party that one must trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trusted {
    /// Who.
    pub who: String,
    /// For what, where the link does not say it.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

impl Trusted {
    pub(crate) fn new(who: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            who: who.into(),
            what: Some(what.into()),
        }
    }

    /// For what the link says.
    pub(crate) fn alone(who: impl Into<String>) -> Self {
        Self {
            who: who.into(),
            what: None,
        }
    }

    fn holder() -> Self {
        Self::alone("whoever holds that key")
    }
}

/// One link of a session's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is.
    pub link: LinkKind,
    /// What it says, in words.
    pub what: String,
    /// The entries that hold it.
    pub entries: Vec<u64>,
    /// The keys that it is about, where it is an enrolment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Signer>,
    /// Who signed it; nobody where it is testimony, the law's own, or pinned by the reader.
    pub signed_by: Vec<Signer>,
    /// Whose word alone it is, where no actor signed it: `gateway`, `server` or `log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub testimony: Option<&'static str>,
    /// Whom one must trust for it.
    pub trust: Vec<Trusted>,
}

/// What one writer recorded of the session.
#[derive(Debug, Default)]
struct Written {
    /// Intents, outcomes, evidence, refusals and the close.
    counts: [usize; 5],
    /// The index of each, and its number in the writer's chain.
    entries: Vec<(u64, u64)>,
}

/// A writer's chain, as far as the bundle holds it.
#[derive(Debug, Default)]
struct Chain {
    /// Each entry and the one before it, by number.
    entries: BTreeMap<u64, (EntryHash, Option<EntryHash>)>,
    heads: Vec<(u64, EntryHash)>,
}

impl Chain {
    /// Numbers of the entries that a signed head fixes: the one that it names, and those that lead to it
    /// without a gap.
    fn signed(&self) -> BTreeSet<u64> {
        let mut signed = BTreeSet::new();
        for (seq, hash) in &self.heads {
            let mut next = Some((*seq, *hash));
            while let Some((seq, hash)) = next {
                next = match self.entries.get(&seq) {
                    Some((own, before)) if *own == hash && signed.insert(seq) => {
                        seq.checked_sub(1).zip(*before)
                    }
                    _ => None,
                };
            }
        }
        signed
    }
}

/// What is kept of a bundle to list its links.
#[derive(Debug)]
pub(crate) struct Links {
    session: SessionId,
    /// The keys that signed the checkpoint.
    log: Vec<Signer>,
    /// By the entry of a login or a request: the entry of its actor's or its target's rules.
    named: BTreeMap<u64, u64>,
    /// Who signed a directory's file, by its entry.
    files: BTreeMap<u64, (PersonId, String)>,
    /// Who wrote the opening, with its number in their chain.
    opening: Option<(String, u64)>,
    actions: BTreeSet<ActionId>,
    written: BTreeMap<String, Written>,
    chains: BTreeMap<String, Chain>,
}

/// A key of a note, as notes name it: its name, and the first four bytes of its hash.
pub(crate) fn key_id(name: &str, id: [u8; 4]) -> String {
    let id = id.map(|byte| format!("{byte:02x}"));
    format!("{name}+{}", id.concat())
}

impl Links {
    /// For a bundle about this session whose checkpoint is this note.
    pub(crate) fn new(session: SessionId, note: &[u8], trust: &TrustPolicy) -> Self {
        let note = Note::open(note, &trust.logs).ok();
        let signed = |key: &&VerifierKey| {
            let note = note.as_ref();
            note.is_some_and(|note| note.signature_of(key).is_some())
        };
        let keys = trust.logs.iter().filter(signed);
        let signer = |key: &VerifierKey| {
            Signer::other(key.name(), "log key", key_id(key.name(), key.key_id()))
        };
        Self {
            session,
            log: keys.map(signer).collect(),
            named: BTreeMap::new(),
            files: BTreeMap::new(),
            opening: None,
            actions: BTreeSet::new(),
            written: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }

    /// Keeps an entry that the replay has just taken in.
    pub(crate) fn keep(&mut self, index: u64, entry: &Entry, hash: EntryHash) {
        let rules = |rel: &str| matches!(rel, "actor" | "target");
        if let Some(link) = entry.refs.iter().find(|link| rules(&link.rel)) {
            self.named.insert(index, link.index);
        }
        let writer = &entry.writer;
        let chain = self.chains.entry(writer.id.clone()).or_default();
        chain.entries.insert(writer.seq, (hash, writer.prev));
        let mut wrote = None;
        match &entry.body {
            Body::Statement(signed) if entry.refs.iter().any(|link| link.rel == "directory") => {
                if let Ok(statement) = signed.statement() {
                    let (space, text) = (statement.say.namespace(), signed.text.as_bytes());
                    let key = SshSignatures.sshsig(&space, text, &signed.sig.0);
                    let signer = key.map(|key| (statement.by, key.fingerprint()));
                    self.files.extend(signer.map(|signer| (index, signer)));
                }
            }
            Body::Head(head) => chain.heads.push((head.seq, head.hash)),
            Body::SessionOpen(open) if open.session == self.session => {
                self.opening = Some((writer.id.clone(), writer.seq));
            }
            Body::Intent(intent) if intent.session == self.session => {
                self.actions.insert(intent.action);
                wrote = Some(0);
            }
            Body::Outcome(outcome) if self.actions.contains(&outcome.action) => wrote = Some(1),
            Body::Evidence(evidence) if self.actions.contains(&evidence.action) => wrote = Some(2),
            Body::Refusal(refusal) if refusal.session == Some(self.session) => wrote = Some(3),
            Body::SessionClose(close) if close.session == self.session => wrote = Some(4),
            _ => {}
        }
        if let Some(kind) = wrote {
            let known = self.written.entry(writer.id.clone()).or_default();
            if let Some(count) = known.counts.get_mut(kind) {
                *count += 1;
            }
            known.entries.push((index, writer.seq));
        }
    }

    /// The session's links, in the order in which each rests on those before it.
    pub(crate) fn of(
        &self,
        state: &State,
        logins: &Logins,
        vouchers: &[Voucher],
        names: &Names,
        witnessed: Option<&Witnessed>,
    ) -> Vec<Link> {
        let Some(session) = state.sessions.get(&self.session) else {
            return Vec::new();
        };
        let listing = Listing::new(self, state, logins, vouchers, names);
        listing.list(&session.open, session.place.index, witnessed)
    }
}

fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Parties in words.
pub(crate) fn parties(trust: &[Trusted]) -> String {
    let party = |trusted: &Trusted| match &trusted.what {
        Some(what) => format!("{} for {what}", trusted.who),
        None => trusted.who.clone(),
    };
    let parties: Vec<String> = trust.iter().map(party).collect();
    match parties.as_slice() {
        [] => "nobody else".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    }
}

/// A link in words.
pub(crate) fn in_words(link: &Link) -> String {
    let entries: Vec<String> = link.entries.iter().map(u64::to_string).collect();
    let entries = match (link.link, entries.as_slice()) {
        (LinkKind::Record, [first, .., last]) => format!(" (entries {first} to {last})"),
        (_, []) => String::new(),
        (_, [one]) => format!(" (entry {one})"),
        (_, many) => format!(" (entries {})", many.join(", ")),
    };
    let signer = |signer: &Signer| format!("{} with {} {}", signer.who(), signer.with, signer.key);
    let signers: Vec<String> = link.signed_by.iter().map(signer).collect();
    let signed = match (link.testimony, signers.is_empty()) {
        (Some(whose), true) => format!("TESTIMONY of the {whose} alone"),
        (Some(whose), false) => format!(
            "TESTIMONY of the {whose} alone, under a head signed by {}",
            list(&signers)
        ),
        (None, false) => format!("signed by {}", list(&signers)),
        (None, true) if link.link == LinkKind::Enrolment => {
            "pinned by your trust policy, signed by nobody".to_owned()
        }
        (None, true) if link.link == LinkKind::Grant => "by the law, signed by nobody".to_owned(),
        (None, true) => "signed by nobody".to_owned(),
    };
    let trust = parties(&link.trust);
    format!(
        "  {:<10}  {}{entries}; {signed}; one must trust: {trust}",
        link.link.name(),
        link.what,
    )
}
