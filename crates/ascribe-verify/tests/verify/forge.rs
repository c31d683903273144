//! A log whose operator holds every key of the server and records whatever it is told, lawful or
//! not: only people's keys are their own. Everything is fixed, so that the same story gives the
//! same bytes.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_core::bundle::{Bundle, DisclosedOpening, Header, ProvenEntry};
use ascribe_core::encoding::Bytes;
use ascribe_core::entry::{Body, Entry, Genesis, Ref, Writer, WriterKey, entry_hash, head_message};
use ascribe_core::id::{ActionId, EntryHash, EntryId, PersonId, Root, SessionId, StatementId};
use ascribe_core::law::Place;
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{PersonAdd, Role, Say, Seen, Signed, SshKey, Statement};
use ascribe_core::time::Timestamp;
use ascribe_evidence::{dearmour, parse_public_key};
use ascribe_tlog::{Checkpoint, SigningKey, Tree, TrustPolicy, leaf_hash};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

pub(super) const ORIGIN: &str = "log.test/a";
const BEGIN: i64 = 1_764_000_000_000;
pub(super) const MINUTE: i64 = 60_000;

/// A person: the number decides id, keys and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Administers and approves.
    Ada = 1,
    /// Asks and acts; may also approve.
    Olu = 2,
    /// Approves, where there is a third.
    Pat = 3,
    /// Olu's workload; nobody enrolled a key of it.
    Bot = 4,
}

impl Who {
    pub(super) fn id(self) -> PersonId {
        PersonId::new([self as u8; 16])
    }
    fn secret(self, nth: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[self as u8 + 16 * nth; 32]))
    }
    pub(super) fn key(self, nth: u8) -> SshKey {
        parse_public_key(&self.secret(nth).public_key().to_openssh().unwrap()).unwrap()
    }
    fn name(self) -> &'static str {
        match self {
            Self::Ada => "Ada Approver",
            Self::Olu => "Olu Operator",
            Self::Pat => "Pat",
            Self::Bot => "Bot",
        }
    }
    /// Who is alone has one key and administers too.
    fn enrolment(self, alone: bool) -> (PersonAdd, Opening) {
        let name = sealed("name", self.name());
        let roles = match self {
            Self::Olu if alone => vec![Role::Requester, Role::Admin],
            Self::Ada => vec![Role::Admin, Role::Approver],
            Self::Olu => vec![Role::Requester, Role::Approver],
            Self::Pat => vec![Role::Approver],
            Self::Bot => vec![],
        };
        let keys = match self {
            Self::Olu if !alone => vec![self.key(0), self.key(1)],
            Self::Ada | Self::Olu | Self::Pat | Self::Bot => vec![self.key(0)],
        };
        let add = PersonAdd {
            person: self.id(),
            name: name.commitment(),
            keys,
            roles,
        };
        (add, name)
    }
}

/// Sealed content whose salt follows from it.
pub(super) fn sealed(field: &str, content: impl AsRef<[u8]>) -> Opening {
    let content = content.as_ref();
    let salt = leaf_hash(&[field.as_bytes(), b"/", content].concat()).0;
    Opening::new(field, salt, content.to_vec())
}

/// Whose name a signature bears, and who made it how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    pub(super) by: Who,
    pub(super) signer: Who,
    pub(super) key: u8,
    /// Signed as another type of statement.
    pub(super) other_type: bool,
}

impl From<Who> for Pen {
    fn from(by: Who) -> Self {
        Self {
            by,
            signer: by,
            key: 0,
            other_type: false,
        }
    }
}

/// The log so far.
pub(super) struct Forge {
    key: SigningKey,
    /// Who administers.
    pub(super) admin: Who,
    writers: BTreeMap<&'static str, SigningKey>,
    chains: BTreeMap<String, (u64, EntryHash)>,
    law: Option<EntryHash>,
    /// Every entry.
    pub(super) entries: Vec<Entry>,
    /// The same as stored.
    pub(super) bytes: Vec<Vec<u8>>,
    /// What is sealed in them.
    pub(super) openings: Vec<(u64, Opening)>,
    /// The time that the next entry bears.
    pub(super) now: Timestamp,
    /// What the next signer says that they saw, where it is not the log as it is.
    pub(super) pretended: Option<Seen>,
    /// The version that the next entry bears.
    pub(super) version: u8,
    count: u8,
}

impl Forge {
    /// A log of these people, signed by the key that is made from `seed`.
    pub(super) fn new(seed: u8, people: &[Who]) -> Self {
        let key = |name: &str, seed: u8| SigningKey::from_seed(name, &[seed; 32]).unwrap();
        let mut forge = Self {
            key: key(ORIGIN, seed),
            admin: people[0],
            writers: [("server", key("server", 101)), ("gw", key("gw", 102))].into(),
            chains: BTreeMap::new(),
            law: None,
            entries: Vec::new(),
            bytes: Vec::new(),
            openings: Vec::new(),
            now: Timestamp::from_millis(BEGIN),
            pretended: None,
            version: 1,
            count: 0,
        };
        let enrolled = people.iter().map(|who| who.enrolment(people.len() == 1));
        let (admins, names): (Vec<_>, Vec<_>) = enrolled.unzip();
        let writers = forge.writers.iter().map(|(id, key)| WriterKey {
            id: (*id).to_owned(),
            key: Bytes(key.verifier().public_key().to_vec()),
        });
        let genesis = Genesis {
            log_key: forge.key.verifier().to_string(),
            admins,
            admin_quorum: 1,
            writers: writers.collect(),
        };
        forge.record("server", &[], Body::Genesis(genesis), names);
        forge
    }

    /// 16 bytes that nothing else here has.
    pub(super) fn fresh(&mut self) -> [u8; 16] {
        self.count += 1;
        [self.count; 16]
    }
    pub(super) fn action(&mut self) -> ActionId {
        ActionId::new(self.fresh())
    }
    pub(super) fn session(&mut self) -> SessionId {
        SessionId::new(self.fresh())
    }
    pub(super) fn wait(&mut self, ms: i64) -> &mut Self {
        self.now = self.now.plus_millis(ms);
        self
    }

    /// Frames a body and takes it in. Nobody is asked.
    pub(super) fn record(
        &mut self,
        writer: &str,
        parents: &[(&str, Place)],
        body: Body,
        openings: Vec<Opening>,
    ) -> Place {
        let index = self.entries.len() as u64;
        let before = self.chains.get(writer).copied();
        let of_law = match &body {
            Body::Intent(_)
            | Body::Outcome(_)
            | Body::Evidence(_)
            | Body::Refusal(_)
            | Body::DirectoryRefusal(_)
            | Body::LoginRefusal(_)
            | Body::Head(_) => false,
            Body::Cosigned(cosigned) => !cosigned.settles.is_empty(),
            Body::Statement(signed) => !matches!(signed.statement().unwrap().say, Say::Read(_)),
            _ => true,
        };
        let entry = Entry {
            v: self.version,
            log: ORIGIN.to_owned(),
            id: EntryId::new(self.fresh()),
            at: self.now,
            writer: Writer {
                id: writer.to_owned(),
                seq: before.map_or(0, |(seq, _)| seq + 1),
                prev: before.map(|(_, hash)| hash),
            },
            law: self.law,
            refs: parents
                .iter()
                .map(|(rel, place)| Ref {
                    rel: (*rel).to_owned(),
                    hash: place.hash,
                    index: place.index,
                })
                .collect(),
            body,
        };
        let bytes = entry.to_bytes().unwrap();
        let hash = entry_hash(&bytes);
        self.chains
            .insert(writer.to_owned(), (entry.writer.seq, hash));
        if of_law {
            self.law = Some(hash);
        }
        self.entries.push(entry);
        self.bytes.push(bytes);
        self.openings
            .extend(openings.into_iter().map(|opening| (index, opening)));
        Place { hash, index }
    }

    /// The id of the statement at that place.
    pub(super) fn statement_at(&self, place: Place) -> StatementId {
        let entry = &self.entries[usize::try_from(place.index).unwrap()];
        let Body::Statement(signed) = &entry.body else {
            panic!("no statement at {place:?}")
        };
        signed.statement().unwrap().id
    }

    /// A statement, signed as the pen says.
    pub(super) fn say(
        &mut self,
        pen: impl Into<Pen>,
        parents: &[(&str, Place)],
        say: Say,
        openings: Vec<Opening>,
    ) -> (StatementId, Place) {
        let pen = pen.into();
        let size = self.entries.len() as u64;
        let root = Root(self.tree(size).root());
        let statement = Statement {
            v: 1,
            log: ORIGIN.to_owned(),
            by: pen.by.id(),
            at: self.now,
            id: StatementId::new(self.fresh()),
            seen: self.pretended.take().unwrap_or(Seen { size, root }),
            say,
        };
        let text = statement.to_text().unwrap();
        let namespace = match pen.other_type {
            false => statement.say.namespace(),
            true => "ascribe.read.v1".to_owned(),
        };
        let sig = pen
            .signer
            .secret(pen.key)
            .sign(&namespace, HashAlg::Sha512, text.as_bytes())
            .unwrap();
        let sig = Bytes(dearmour(&sig.to_pem(LineEnding::LF).unwrap()).unwrap());
        let body = Body::Statement(Signed { text, sig });
        let place = self.record("server", parents, body, openings);
        (statement.id, place)
    }

    /// The signed head of a writer's chain.
    pub(super) fn head(&mut self, writer: &'static str) -> Place {
        let (seq, hash) = self.chains[writer];
        let message = head_message(ORIGIN, writer, seq, &hash);
        let sig = Bytes(self.writers[writer].sign_raw(&message).to_vec());
        let head = ascribe_core::entry::Head { seq, hash, sig };
        self.record(writer, &[], Body::Head(head), vec![])
    }

    pub(super) fn tree(&self, size: u64) -> Tree {
        let mut tree = Tree::new();
        for bytes in self.bytes.iter().take(usize::try_from(size).unwrap()) {
            tree.push(leaf_hash(bytes));
        }
        tree
    }

    /// The signed checkpoint of the log when it had this size.
    pub(super) fn checkpoint(&self, size: u64) -> String {
        let checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: self.tree(size).root(),
        };
        self.key.sign_note(&checkpoint.to_text()).unwrap()
    }

    pub(super) fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Everything of one session, as it is exported, from the log when it had this size.
    pub(super) fn bundle_at(&self, size: u64, session: SessionId) -> Bundle {
        let tree = self.tree(size);
        let mut actions = BTreeSet::new();
        let mut bundle = Bundle {
            header: Header {
                bundle: 1,
                log: ORIGIN.to_owned(),
                session,
            },
            checkpoint: self.checkpoint(size),
            entries: Vec::new(),
            openings: Vec::new(),
        };
        for (index, (entry, bytes)) in (0..size).zip(self.entries.iter().zip(&self.bytes)) {
            let wanted = match &entry.body {
                Body::Intent(intent) => intent.session == session && actions.insert(intent.action),
                Body::Outcome(outcome) => actions.contains(&outcome.action),
                Body::Evidence(evidence) => actions.contains(&evidence.action),
                Body::Refusal(refusal) => refusal.session == Some(session),
                Body::Statement(signed) => !matches!(signed.statement().unwrap().say, Say::Read(_)),
                _ => true,
            };
            if !wanted {
                continue;
            }
            let proof = tree.inclusion_proof(index, size).unwrap();
            bundle.entries.push(ProvenEntry {
                entry: String::from_utf8(bytes.clone()).unwrap(),
                index,
                proof: proof.into_iter().map(Root).collect(),
            });
            let sealed = self.openings.iter().filter(|(at, _)| *at == index);
            bundle
                .openings
                .extend(sealed.map(|(index, opening)| DisclosedOpening {
                    index: *index,
                    opening: opening.clone(),
                }));
        }
        bundle
    }

    pub(super) fn bundle(&self, session: SessionId) -> Bundle {
        self.bundle_at(self.size(), session)
    }

    /// The policy of somebody who trusts this log.
    pub(super) fn policy(&self) -> TrustPolicy {
        TrustPolicy {
            logs: vec![self.key.verifier()],
            first_entry: Some(leaf_hash(&self.bytes[0])),
            ..TrustPolicy::default()
        }
    }
}
