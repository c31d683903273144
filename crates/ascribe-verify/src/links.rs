//! The chain behind a session, link by link: who signed each, and which parties one must trust for it.
//!
//! Nothing is checked here. The replay has let every link in; this says on whose word that rests.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::directory::DirectoryGroup;
use ascribe_core::entry::{Body, Entry};
use ascribe_core::id::{ActionId, ContentDigest, EntryHash, PersonId, SessionId, StatementId};
use ascribe_core::law::{AskStatus, Asked, Judge as _, State};
use ascribe_core::statement::{Role, Say, Statement};
use ascribe_core::text::clean;
use ascribe_evidence::SshSignatures;
use ascribe_tlog::{Note, TrustPolicy, VerifierKey};
use serde::Serialize;

use crate::logins::Logins;
use crate::vouchers::{Voucher, Vouchers};
use crate::witnesses::Witnessed;

mod listing;

use listing::Listing;

/// Names that were disclosed.
pub(crate) type Names = BTreeMap<PersonId, String>;

/// Somebody's name where it is disclosed, for a terminal; else the id.
pub(crate) fn shown(names: &Names, id: PersonId) -> String {
    match names.get(&id) {
        Some(name) => quoted(name, 60),
        None => id.to_string(),
    }
}

/// A text that somebody chose, for a line of words: in quotes where it could pass for more than a name.
pub(crate) fn quoted(text: &str, max: usize) -> String {
    let plain = |c: char| c.is_alphanumeric() || " .-'@_/:+=".contains(c);
    if !text.is_empty() && text.trim() == text && text.chars().all(plain) {
        return clean(text, max);
    }
    in_quotes(text, max)
}

/// The same in quotes in any case.
pub(crate) fn in_quotes(text: &str, max: usize) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', r#"\""#);
    format!("\"{}\"", clean(&escaped, max))
}

/// The same for a name that stands out: in backticks where it needs no quotes.
pub(crate) fn ticked(text: &str, max: usize) -> String {
    let text = quoted(text, max);
    match text.starts_with('"') {
        true => text,
        false => format!("`{text}`"),
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
            (Some(name), _) => quoted(name, 200),
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

/// Since when a proposal holds.
#[derive(Debug, Clone, Copy)]
struct Effect {
    /// The entry with which it took effect: that of `place`, or the word of the witnesses that it waited for.
    since: u64,
    /// The entry with which it had all the approvals that it needed, as other entries link to it.
    place: u64,
}

/// A group that gave somebody a role.
#[derive(Debug, Clone)]
struct Gave {
    group: DirectoryGroup,
    /// The entry that says that they are in it.
    entry: u64,
}

/// Whom an entry of a directory or of a provider speaks of, by their subjects.
#[derive(Debug, Default)]
struct Told {
    subjects: Vec<ContentDigest>,
    managers: Vec<ContentDigest>,
}

/// Are all entries up to the checkpoint here?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// They are.
    Yes,
    /// It is an excerpt.
    No,
}

/// What is kept of a bundle, or of a whole ledger, to list a session's links.
#[derive(Debug)]
pub(crate) struct Links {
    whole: Whole,
    session: SessionId,
    /// The keys that signed the checkpoint.
    log: Vec<Signer>,
    /// By the entry of a login: the entry that says whom its subject or its token stands for.
    named: BTreeMap<u64, u64>,
    effects: BTreeMap<StatementId, Effect>,
    /// By the entry of a yes, of a grant or of a later end of one: that of the target's rules as they were then.
    judged: BTreeMap<u64, u64>,
    /// By the entry of an extension's statement: that of the later end.
    extended: BTreeMap<u64, u64>,
    /// By the entry of a request or an approval: groups that gave whoever signed it the role for that.
    gave: BTreeMap<u64, Vec<Gave>>,
    told: BTreeMap<u64, Told>,
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
    /// For this session, under this checkpoint.
    pub(crate) fn new(whole: Whole, session: SessionId, note: &[u8], trust: &TrustPolicy) -> Self {
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
            whole,
            session,
            log: keys.map(signer).collect(),
            named: BTreeMap::new(),
            effects: BTreeMap::new(),
            judged: BTreeMap::new(),
            extended: BTreeMap::new(),
            gave: BTreeMap::new(),
            told: BTreeMap::new(),
            files: BTreeMap::new(),
            opening: None,
            actions: BTreeSet::new(),
            written: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }

    /// Keeps an entry that `state` has just taken in.
    pub(crate) fn keep(
        &mut self,
        state: &State,
        index: u64,
        entry: &Entry,
        said: Option<&Statement>,
        hash: EntryHash,
    ) {
        if let Some(link) = entry.refs.iter().find(|link| link.rel == "actor") {
            self.named.insert(index, link.index);
        }
        self.keep_rules(state, index, entry);
        self.keep_told(state, index, &entry.body);
        if let Some(statement) = said {
            self.keep_said(state, index, statement);
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

    /// Keeps that a proposal holds since this entry, if it does.
    fn keep_effect(&mut self, state: &State, id: StatementId, effect: Effect) {
        let holds = state.asks.get(&id).is_some_and(|ask| {
            ask.status == AskStatus::Granted && matches!(ask.asked, Asked::Proposal(_))
        });
        if holds {
            self.effects.entry(id).or_insert(effect);
        }
    }

    /// Keeps what witnesses settled, and by which rules there is a grant.
    fn keep_rules(&mut self, state: &State, index: u64, entry: &Entry) {
        let target = match &entry.body {
            Body::Cosigned(cosigned) => {
                let settled = entry.refs.iter().filter(|link| link.rel == "settles");
                for (id, link) in cosigned.settles.iter().zip(settled) {
                    let (since, place) = (index, link.index);
                    self.keep_effect(state, *id, Effect { since, place });
                }
                None
            }
            Body::Grant(grant) => Some(&grant.target),
            Body::GrantExtend(extend) => {
                let asked = entry.refs.iter().find(|link| link.rel == "extension");
                self.extended
                    .extend(asked.map(|asked| (asked.index, index)));
                let grant = state.grants.get(&extend.grant);
                grant.map(|grant| &grant.grant.target)
            }
            _ => None,
        };
        let rules = target.and_then(|target| state.targets.get(target));
        self.judged
            .extend(rules.map(|rules| (index, rules.place.index)));
    }

    /// Keeps whom a directory's change speaks of.
    fn keep_told(&mut self, state: &State, index: u64, body: &Body) {
        let Body::DirectoryChange(change) = body else {
            return;
        };
        let known = state.directories.get(&change.directory);
        let manager = change.manager.and_then(|id| known?.resources.get(&id));
        let manager = manager.and_then(|manager| manager.said.subject);
        let told = Told {
            subjects: change.subject.into_iter().collect(),
            managers: manager.into_iter().collect(),
        };
        self.told.insert(index, told);
    }

    /// Keeps what a statement carried, whom it speaks of, by which rules it is a yes, and who gave its signer the role for it.
    fn keep_said(&mut self, state: &State, index: u64, statement: &Statement) {
        if let Say::Approval(answer) = &statement.say {
            let target = state.asks.get(&answer.of).map(|ask| state.target_of(ask));
            let target = target.and_then(Result::ok).flatten();
            let rules = target.and_then(|target| state.targets.get(&target.name));
            self.judged
                .extend(rules.map(|rules| (index, rules.place.index)));
        }
        let (id, role) = match &statement.say {
            Say::Approval(answer) => (answer.of, Some(Role::Approver)),
            Say::Request(_) => (statement.id, Some(Role::Requester)),
            _ => (statement.id, None),
        };
        let (since, place) = (index, index);
        self.keep_effect(state, id, Effect { since, place });
        let told = match &statement.say {
            Say::Login(login) => Some(Told {
                subjects: vec![login.claims.subject],
                managers: login.claims.managers.iter().map(|m| m.subject).collect(),
            }),
            Say::DirectoryFile(file) => Some(Told {
                subjects: file.users.iter().map(|user| user.subject).collect(),
                managers: file.users.iter().filter_map(|user| user.manager).collect(),
            }),
            _ => None,
        };
        self.told.extend(told.map(|told| (index, told)));
        let (Some(role), Some(person)) = (role, state.people.get(&statement.by)) else {
            return;
        };
        let gives = |group: &DirectoryGroup| {
            let known = state.directories.get(&group.directory);
            let mut rules = known.into_iter().flat_map(|known| &known.directory.roles);
            rules.any(|rule| rule.group == group.group && rule.role == role)
        };
        let own = person.groups.iter().filter(|own| gives(&own.group));
        let gave = own.map(|own| Gave {
            group: own.group.clone(),
            entry: own.place.index,
        });
        self.gave.insert(index, gave.collect());
    }

    /// The session's links, in the order in which each rests on those before it.
    pub(crate) fn of(
        &self,
        state: &State,
        logins: &Logins,
        words: &Vouchers,
        vouchers: &[Voucher],
        names: &Names,
        witnessed: Option<&Witnessed>,
    ) -> Vec<Link> {
        let Some(session) = state.sessions.get(&self.session) else {
            return Vec::new();
        };
        let listing = Listing::new(self, state, logins, (words, vouchers), names);
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
    let signer = |signer: &Signer| {
        let key = quoted(&signer.key, 200);
        format!("{} with {} {key}", signer.who(), signer.with)
    };
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
    let line = format!(
        "  {:<10}  {}{entries}; {signed}; one must trust: {trust}",
        link.link.name(),
        link.what,
    );
    // Whatever was forgotten above: one link is one line.
    clean(&line, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_pass_for_more_than_a_name_is_in_quotes() {
        for (text, alone, apart) in [
            ("Ada O'Neil-Žižek", "Ada O'Neil-Žižek", "`Ada O'Neil-Žižek`"),
            (
                "https://idp.example:8443/a_b+c=",
                "https://idp.example:8443/a_b+c=",
                "`https://idp.example:8443/a_b+c=`",
            ),
            ("", r#""""#, r#""""#),
            (" x", r#"" x""#, r#"" x""#),
            (
                "A; signed by B",
                r#""A; signed by B""#,
                r#""A; signed by B""#,
            ),
            ("a` gives `b", r#""a` gives `b""#, r#""a` gives `b""#),
            (r#"a" b"#, r#""a\" b""#, r#""a\" b""#),
            (r#"a\" b"#, r#""a\\\" b""#, r#""a\\\" b""#),
            ("a\nb\u{1b}", r#""a\nb\u{1b}""#, r#""a\nb\u{1b}""#),
        ] {
            assert_eq!(quoted(text, 99), alone);
            assert_eq!(ticked(text, 99), apart);
        }
        assert_eq!(quoted("abcd", 2), "ab…");
        assert_eq!(quoted("a;bcd", 2), "\"a;…\"");
    }

    #[test]
    fn a_link_is_one_line() {
        let link = Link {
            link: LinkKind::Approval,
            what: "a\n  order".to_owned(),
            entries: vec![1],
            keys: Vec::new(),
            signed_by: vec![Signer::other("x\n", "log key", "y\u{1b}[2J\n".to_owned())],
            testimony: None,
            trust: vec![Trusted::new("p\r", "q\n")],
        };
        let line = in_words(&link);
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
