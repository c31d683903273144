//! What directories keep: sealed in `directory.change` entries, the newest of each resource read back at
//! the start. Nothing is kept anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use ascribe_core::directory::{Directory, DirectoryChange, ResourceKind, subject_of};
use ascribe_core::entry::Body as EntryBody;
use ascribe_core::id::{ContentDigest, EntryId, ResourceId};
use ascribe_core::law::{DirectoryState, SERVER};
use ascribe_core::record::{Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::text::is_unsafe;
use ascribe_core::time::Timestamp;
use ascribe_ledger::Ledger;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Fault;
use super::patch::{Body, attribute, flag};
use crate::client::random;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// Largest resource, in bytes.
const MAX_RESOURCE: usize = 256 * 1024;
/// Most bytes that a directory keeps.
const MAX_BYTES: usize = 128 * 1024 * 1024;
/// Longest text that names a resource.
const MAX_NAME: usize = 256;

/// A user or a group.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) kind: ResourceKind,
    pub(super) body: Body,
    pub(super) members: BTreeSet<ResourceId>,
    pub(super) created: Timestamp,
    pub(super) changed: Timestamp,
    bytes: usize,
}

impl Kept {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        attribute(&self.body, name)?.as_str()
    }
    /// What nobody else of this kind is called.
    fn name(&self) -> &str {
        let name = match self.kind {
            ResourceKind::Group => "displayName",
            ResourceKind::User => "userName",
        };
        self.text(name).unwrap_or_default()
    }
    /// The user who is the user's manager (RFC 7643, 4.3).
    fn manager(&self) -> Option<ResourceId> {
        let extension = attribute(&self.body, ENTERPRISE)?.as_object()?;
        let manager = attribute(extension, "manager")?;
        let id = match manager.as_object() {
            Some(manager) => attribute(manager, "value")?,
            // Entra writes the id alone.
            None => manager,
        };
        let id = id.as_str()?.parse().ok();
        id.filter(|_| self.kind == ResourceKind::User)
    }
    fn is_active(&self) -> bool {
        let active = attribute(&self.body, "active").and_then(flag);
        self.kind == ResourceKind::User && active.unwrap_or(true)
    }
}

/// The extension that names a user's manager (RFC 7643, 4.3).
const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// One directory's resources.
#[derive(Debug, Default)]
pub(super) struct Shelf(pub(super) BTreeMap<ResourceId, Kept>);

impl Shelf {
    pub(super) fn find(&self, kind: ResourceKind, id: &str) -> Result<(ResourceId, &Kept), Fault> {
        let id = id.parse().ok();
        let found = id.and_then(|id| Some((id, self.0.get(&id)?)));
        found
            .filter(|(_, kept)| kept.kind == kind)
            .ok_or_else(Fault::absent)
    }

    pub(super) fn groups_of(&self, user: ResourceId) -> impl Iterator<Item = (&ResourceId, &Kept)> {
        self.0
            .iter()
            .filter(move |(_, group)| group.members.contains(&user))
    }

    /// Those of a user's groups that rules name.
    fn named_groups(&self, directory: &Directory, user: ResourceId) -> Vec<String> {
        let groups = self.groups_of(user).map(|(_, group)| group.name());
        let named = groups.filter(|name| directory.roles.iter().any(|rule| rule.group == *name));
        let names: BTreeSet<&str> = named.collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// What was sent, checked against all the rest.
    pub(super) fn checked(
        &self,
        kind: ResourceKind,
        id: Option<ResourceId>,
        mut body: Body,
    ) -> Result<Kept, Fault> {
        let named = |kept: &Kept, name: &str| kept.text(name).map(str::to_lowercase);
        let key = match kind {
            ResourceKind::Group => "displayName",
            ResourceKind::User => "userName",
        };
        for (name, needed) in [(key, true), ("externalId", false)] {
            match attribute(&body, name) {
                Some(Value::String(text)) if is_name(text) => {}
                None if !needed => {}
                _ => {
                    return Err(Fault::value(
                        "a user has a `userName`, a group a `displayName`, of 1 to 256 bytes in a line",
                    ));
                }
            }
        }
        let members = match kind {
            ResourceKind::Group => self.members(&mut body)?,
            ResourceKind::User => {
                if let Some(active) = attribute(&body, "active") {
                    let active =
                        flag(active).ok_or_else(|| Fault::value("`active` is true or false"))?;
                    body.insert("active".to_owned(), Value::Bool(active));
                }
                BTreeSet::new()
            }
        };
        let bytes = serde_json::to_vec(&body)
            .map_err(|_| Fault::value("the resource cannot be written"))?;
        // What is sealed must be readable again, at whatever depth operations left it.
        if bytes.len() > MAX_RESOURCE || serde_json::from_slice::<Body>(&bytes).is_err() {
            return Err(Fault::new(413, "", "the resource is too large or too deep"));
        }
        let now = Timestamp::from_millis(0);
        let kept = Kept {
            kind,
            body,
            members,
            created: now,
            changed: now,
            bytes: bytes.len(),
        };
        let held: usize = self.0.values().map(|kept| kept.bytes).sum();
        if held + kept.bytes > MAX_BYTES {
            return Err(Fault::new(507, "", "the directory keeps too much already"));
        }
        let mut others = self
            .0
            .iter()
            .filter(|(other, known)| Some(**other) != id && known.kind == kind);
        let external = |kept: &Kept| kept.text("externalId").map(str::to_owned);
        let clash = others.any(|(_, known)| {
            named(known, key) == named(&kept, key)
                || (external(&kept).is_some() && external(known) == external(&kept))
        });
        if clash {
            return Err(Fault::new(
                409,
                "uniqueness",
                "another resource has this name or `externalId`",
            ));
        }
        let before = id.and_then(|id| self.0.get(&id)).and_then(external);
        if kind == ResourceKind::User && before.is_some() && before != external(&kept) {
            return Err(Fault::mutability(
                "`externalId` says who the user is and stays; delete and make another one",
            ));
        }
        Ok(kept)
    }

    /// The members of a group, which are users of this directory.
    fn members(&self, body: &mut Body) -> Result<BTreeSet<ResourceId>, Fault> {
        let listed = match attribute(body, "members") {
            None => return Ok(BTreeSet::new()),
            Some(Value::Array(listed)) => listed,
            Some(_) => return Err(Fault::value("`members` is a list")),
        };
        let id_of = |member: &Value| {
            let id: ResourceId = attribute(member.as_object()?, "value")?
                .as_str()?
                .parse()
                .ok()?;
            let user = self.0.get(&id)?;
            (user.kind == ResourceKind::User).then_some(id)
        };
        let members: Option<BTreeSet<ResourceId>> = listed.iter().map(id_of).collect();
        let members = members
            .ok_or_else(|| Fault::value("a member is the `id` of a user of this directory"))?;
        let bare = members.iter().map(|id| json!({ "value": id })).collect();
        body.insert("members".to_owned(), Value::Array(bare));
        Ok(members)
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.trim() == text && !text.chars().any(is_unsafe)
}

/// Everything that is kept, by directory.
pub(super) struct Store {
    ledger: Arc<Ledger>,
    /// One request at a time changes or reads what a directory keeps, so that names stay unique; others'
    /// directories do not wait for it. No more of them than the law has directories.
    shelves: std::sync::Mutex<BTreeMap<String, Arc<Mutex<Shelf>>>>,
}

impl Store {
    /// Reads back what the ledger has.
    pub(super) fn open(ledger: Arc<Ledger>) -> Done<Self> {
        let known: Vec<DirectoryState> =
            ledger.with_state(|state| state.directories.values().cloned().collect());
        let mut shelves = BTreeMap::new();
        for directory in known {
            let mut shelf = Shelf::default();
            for (id, resource) in directory
                .resources
                .iter()
                .filter(|(_, resource)| !resource.is_gone())
            {
                let openings = ledger
                    .openings(resource.place.index)
                    .attempt("read what a directory keeps")?;
                let body = openings
                    .first()
                    .and_then(|opening| serde_json::from_slice::<Body>(&opening.bytes.0).ok());
                // Its key was destroyed: nobody can say what it was any more.
                let Some(body) = body else { continue };
                let members = attribute(&body, "members")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                let members = members
                    .filter_map(|m| m.get("value")?.as_str()?.parse().ok())
                    .collect();
                let bytes = openings.first().map_or(0, |opening| opening.bytes.0.len());
                let (created, changed) = (resource.created, resource.changed);
                shelf.0.insert(
                    *id,
                    Kept {
                        kind: resource.said.kind,
                        body,
                        members,
                        created,
                        changed,
                        bytes,
                    },
                );
            }
            let shelf = Arc::new(Mutex::new(shelf));
            shelves.insert(directory.directory.name.clone(), shelf);
        }
        let shelves = std::sync::Mutex::new(shelves);
        Ok(Self { ledger, shelves })
    }

    /// What a directory keeps.
    pub(super) fn shelf(&self, directory: &str) -> Arc<Mutex<Shelf>> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shelves.entry(directory.to_owned()).or_default())
    }

    /// It was withdrawn: nothing of it is kept.
    pub(super) fn forget(&self, directory: &str) {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.remove(directory);
    }

    /// Records what a resource is from now on, and keeps it.
    pub(super) async fn put(
        &self,
        shelf: &mut Shelf,
        directory: &Directory,
        id: ResourceId,
        mut kept: Kept,
    ) -> Result<(), Fault> {
        let groups = match kept.kind {
            ResourceKind::User => shelf.named_groups(directory, id),
            ResourceKind::Group => Vec::new(),
        };
        let bytes = serde_json::to_vec(&kept.body).map_err(|_| Fault::internal())?;
        let salt = random().map_err(|_| Fault::internal())?;
        let opening = Opening::new("resource", salt, bytes);
        let subject = self.subject(directory, id, &kept);
        let change = DirectoryChange {
            active: kept.is_active(),
            directory: directory.name.clone(),
            groups,
            id,
            kind: kept.kind,
            manager: kept.manager(),
            resource: Some(opening.commitment()),
            subject,
        };
        self.record(change, vec![opening]).await?;
        (kept.created, kept.changed) = self.times(directory, id);
        shelf.0.insert(id, kept);
        Ok(())
    }

    pub(super) async fn delete(
        &self,
        shelf: &mut Shelf,
        directory: &Directory,
        id: ResourceId,
    ) -> Result<(), Fault> {
        let Some(kept) = shelf.0.get(&id).cloned() else {
            return Err(Fault::absent());
        };
        let change = DirectoryChange {
            active: false,
            directory: directory.name.clone(),
            groups: Vec::new(),
            id,
            kind: kept.kind,
            manager: None,
            resource: None,
            subject: self.subject(directory, id, &kept),
        };
        self.record(change, Vec::new()).await?;
        shelf.0.remove(&id);
        Ok(())
    }

    /// Says anew of each user in which groups they are, where that is not what was said last: after a
    /// group changed, after rules did, and after a stop in between.
    pub(super) async fn say_groups(
        &self,
        shelf: &mut Shelf,
        directory: &Directory,
    ) -> Result<(), Fault> {
        let said = self.ledger.with_state(|state| {
            let known = state.directories.get(&directory.name);
            let resources = known.into_iter().flat_map(|known| &known.resources);
            resources
                .map(|(id, resource)| (*id, resource.said.groups.clone()))
                .collect::<BTreeMap<_, _>>()
        });
        let users = shelf
            .0
            .iter()
            .filter(|(_, kept)| kept.kind == ResourceKind::User);
        let stale: Vec<(ResourceId, Kept)> = users
            .filter(|(id, _)| said.get(id) != Some(&shelf.named_groups(directory, **id)))
            .map(|(id, kept)| (*id, kept.clone()))
            .collect();
        for (id, kept) in stale {
            self.put(shelf, directory, id, kept).await?;
        }
        Ok(())
    }

    /// Who the user is. One whose subject was set once keeps it, whatever the provider is called later.
    fn subject(&self, directory: &Directory, id: ResourceId, kept: &Kept) -> Option<ContentDigest> {
        let external = kept
            .text("externalId")
            .filter(|_| kept.kind == ResourceKind::User)?;
        self.ledger.with_state(|state| {
            let shelf = state.directories.get(&directory.name);
            let said = shelf.and_then(|shelf| shelf.resources.get(&id)?.said.subject);
            if said.is_some() {
                return said;
            }
            let known = state.providers.get(&directory.provider)?;
            Some(subject_of(&known.provider, external))
        })
    }

    fn times(&self, directory: &Directory, id: ResourceId) -> (Timestamp, Timestamp) {
        let found = self.ledger.with_state(|state| {
            let resource = state.directories.get(&directory.name)?.resources.get(&id)?;
            Some((resource.created, resource.changed))
        });
        let now = self.ledger.now();
        found.unwrap_or((now, now))
    }

    async fn record(&self, change: DirectoryChange, openings: Vec<Opening>) -> Result<(), Fault> {
        let proposal = Proposal {
            id: EntryId::new(random().map_err(|_| Fault::internal())?),
            writer: SERVER.to_owned(),
            scope: if openings.is_empty() {
                Scope::None
            } else {
                Scope::Resource(change.id)
            },
            body: EntryBody::DirectoryChange(change),
            openings,
        };
        match self.ledger.record(proposal).await {
            Ok(_) => Ok(()),
            Err(RecordError::Denied(denied)) if denied.code == "too-many" => {
                Err(Fault::unlawful(507, "", &denied))
            }
            Err(RecordError::Denied(denied)) if denied.code == "duplicate" => {
                Err(Fault::unlawful(409, "uniqueness", &denied))
            }
            Err(RecordError::Denied(denied)) => Err(Fault::unlawful(400, "invalidValue", &denied)),
            Err(RecordError::Unavailable(_)) => Err(Fault::new(
                503,
                "",
                "the ledger cannot record now; try again",
            )),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::new(Kind::Failure, fault.detail)
    }
}
