//! Directories: whoever manages people elsewhere says over SCIM (RFC 7643), in a signed file or in the
//! claims of a provider's tokens in which groups they are, and the first two whether they are still
//! there. A directory gives nobody a right but by a rule that was approved under quorum.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{Commitment, ContentDigest, PersonId, ResourceId};
use crate::identity::{Provider, ProviderKind, subject};
use crate::statement::Role;
use crate::time::Timestamp;

/// Registers or replaces a directory. Members in canonical order, here and below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// It speaks by logins: this claim of the provider's tokens lists a person's groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The same: this claim names the subject of a person's manager at the same issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_claim: Option<String>,
    /// Name, as records show it.
    pub name: String,
    /// The provider whose subjects its users are: `externalId` is the subject.
    pub provider: String,
    /// Which role the members of a group have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<GroupRole>,
    /// It speaks by files: these people sign them, each alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<PersonId>,
    /// Are linked people suspended whom it calls inactive?
    pub suspend: bool,
    /// It speaks over SCIM: [`bearer_digest`] of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ContentDigest>,
    /// It counts no longer, and what it said is forgotten.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub withdrawn: bool,
}

impl Directory {
    /// Does it speak by logins?
    pub fn is_of_tokens(&self) -> bool {
        self.claim.is_some() || self.manager_claim.is_some()
    }
}

/// Members of the group have the role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    /// The group's exact `displayName`.
    pub group: String,
    /// Any role but `admin`.
    pub role: Role,
}

/// A group of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGroup {
    /// The directory's name.
    pub directory: String,
    /// A group that its rules name.
    pub group: String,
}

/// All that a directory says at this moment, signed by one of its signers: whoever was listed before and
/// is not listed now is inactive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryFile {
    /// The directory's name.
    pub directory: String,
    /// Commitment to the file as it was.
    pub file: Commitment,
    /// Who is there, sorted by subject.
    pub users: Vec<FileUser>,
}

/// Somebody whom a file lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileUser {
    /// Those of the user's groups that the directory's rules name, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Who their manager is at the directory's provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<ContentDigest>,
    /// Who it is at the directory's provider.
    pub subject: ContentDigest,
}

/// What a directory keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// A group.
    Group,
    /// A user.
    User,
}

/// A directory made, changed or deleted a resource: testimony of the server that the holder of the
/// directory's token said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryChange {
    /// Is the user there?
    pub active: bool,
    /// The directory's name.
    pub directory: String,
    /// Those of the user's groups that the directory's rules name, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Which.
    pub id: ResourceId,
    /// A user or a group.
    pub kind: ResourceKind,
    /// The user who is the user's manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<ResourceId>,
    /// Commitment to all that the directory says of it; none where it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Commitment>,
    /// Who the user is at the directory's provider, where the directory says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<ContentDigest>,
}

/// Requests over SCIM that were refused, counted: testimony of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryRefusal {
    /// The directory whose token was shown; none where it was nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// When the first of them was refused.
    pub from: Timestamp,
    /// How many, by reason; sorted.
    pub refused: Vec<RefusedCount>,
    /// When the last of them was.
    pub until: Timestamp,
}

/// Refusals for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedCount {
    /// The law's code; of what was asked over SCIM also its `scimType`, or what else it was: `token`, `not-found`, `method`,
    /// `timeout`, `size`, `full`. `other` where there are too many different ones.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// What a directory's token is known by: SHA-256 of it. The token is long and random, so nobody finds it
/// from this.
pub fn bearer_digest(token: &[u8]) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash(Sha256::digest(token).into()))
}

/// The subject of a user at the directory's provider. Entra provisions a user's `oid` alone; the
/// tenant is in the issuer.
pub fn subject_of(provider: &Provider, external: &str) -> ContentDigest {
    let tenant = || {
        let rest = provider.issuer.strip_prefix("https://")?;
        rest.split('/').nth(1).filter(|tenant| !tenant.is_empty())
    };
    match (provider.kind, external.contains('/'), tenant()) {
        (ProviderKind::Entra, false, Some(tenant)) => {
            subject(&provider.issuer, &format!("{tenant}/{external}"))
        }
        _ => subject(&provider.issuer, external),
    }
}
