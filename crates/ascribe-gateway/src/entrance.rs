//! By which door a client came in: what is known of it before it logs in, and what it must show.

use ascribe_core::entry::{Door, OpenedBy};
use ascribe_core::id::{GrantId, PersonId, StatementId};
use ascribe_wire::user::{self, User};

use crate::incoming::Held;

/// A door.
#[derive(Debug, Clone)]
pub(crate) enum Entrance {
    /// The gateway's own port.
    Outer,
    /// Behind it, before one target.
    Inner(Inner),
}

/// What is settled before the inner login.
#[derive(Debug, Clone)]
pub(crate) struct Inner {
    pub(crate) door: Door,
    /// Who must log in, and with which key: the same as outside, or the one that signed.
    pub(crate) person: PersonId,
    pub(crate) fingerprint: String,
    /// The only target.
    pub(crate) target: String,
    /// What was signed, where something was.
    pub(crate) signed: Option<Signed>,
    /// What is held of the client's input, in all that run within the same connection together.
    pub(crate) held: Held,
}

/// What the actor signed.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) opening: StatementId,
    pub(crate) account: String,
    pub(crate) grant: Option<GrantId>,
}

/// Whom a user name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An account on a target.
    Session(User),
    /// To go on to an inner door.
    Jump,
}

impl Entrance {
    /// What a user name asks for here; nothing when it is no name for this door.
    pub(crate) fn wish(&self, name: &str) -> Option<Wish> {
        match self {
            Self::Outer if user::is_jump(name) => Some(Wish::Jump),
            Self::Outer => user::parse(name).ok().map(Wish::Session),
            Self::Inner(inner) => {
                let mut user = user::parse_at(name, &inner.target).ok()?;
                if let Some(signed) = &inner.signed {
                    if signed.account != user.account {
                        return None;
                    }
                    user.grant = user.grant.or(signed.grant);
                }
                Some(Wish::Session(user))
            }
        }
    }

    /// May this person log in here with this key?
    pub(crate) fn lets_in(&self, person: PersonId, fingerprint: &str) -> bool {
        match self {
            Self::Outer => true,
            Self::Inner(inner) => inner.person == person && inner.fingerprint == fingerprint,
        }
    }

    /// How a session that comes in here is said to have been opened.
    pub(crate) fn opened(&self) -> (Door, OpenedBy, Option<StatementId>) {
        match self {
            Self::Outer => (Door::Direct, OpenedBy::Testimony, None),
            Self::Inner(inner) => match &inner.signed {
                Some(signed) => (inner.door, OpenedBy::Signed, Some(signed.opening)),
                None => (inner.door, OpenedBy::Testimony, None),
            },
        }
    }
}
