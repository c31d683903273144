//! Reading and writing the little-endian layouts of what lies on disk.

use crate::id::{PersonId, ResourceId, SessionId, StatementId};
use crate::record::Scope;

/// Bytes that are still to be read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub(crate) fn scope(&mut self) -> Option<Scope> {
        let kind = self.u8()?;
        let id = self.array()?;
        match kind {
            1 => Some(Scope::Person(PersonId::new(id))),
            2 => Some(Scope::Request(StatementId::new(id))),
            3 => Some(Scope::Session(SessionId::new(id))),
            4 => Some(Scope::Login(StatementId::new(id))),
            5 => Some(Scope::Resource(ResourceId::new(id))),
            _ => None,
        }
    }
}

/// Nothing for a scope that owns no key.
pub(crate) fn push_scope(out: &mut Vec<u8>, scope: &Scope) -> Option<()> {
    let (kind, id) = match scope {
        Scope::None => return None,
        Scope::Person(id) => (1, id.bytes()),
        Scope::Request(id) => (2, id.bytes()),
        Scope::Session(id) => (3, id.bytes()),
        Scope::Login(id) => (4, id.bytes()),
        Scope::Resource(id) => (5, id.bytes()),
    };
    out.push(kind);
    out.extend_from_slice(id);
    Some(())
}
