//! How much room a group needs, and whether the segment has it. What is written can only be as large
//! as was reckoned here: an estimate is an upper bound.

use ascribe_core::encoding;
use ascribe_core::entry::{Body, MAX_ENTRY};
use ascribe_core::law::Denied;
use ascribe_core::record::{RecordError, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::Say;

use crate::error::LedgerError;
use crate::sequencer::{Core, Draft, Group, unavailable};

const GROUP_BYTES: usize = 1 << 20;
/// An entry's size without its body and approvals: origin, ids, time, two links.
const FRAME: u64 = 1536;
/// An outcome or a close alone in its batch, with a head.
const END: u64 = 5 * 512;
/// Heads and the commit that may join any group.
const TAIL: u64 = 4 * FRAME;

/// Written even from the reserve of a full disk.
fn ends_something(body: &Body) -> bool {
    match body {
        Body::Outcome(_) | Body::SessionClose(_) | Body::Head(_) => true,
        Body::Statement(signed) => signed.statement().is_ok_and(|s| {
            matches!(
                s.say,
                Say::Revocation(_)
                    | Say::KeyRevoke(_)
                    | Say::Offboard(_)
                    | Say::Denial(_)
                    | Say::Cancellation(_)
            )
        }),
        _ => false,
    }
}

/// Most bytes that a draft's openings take, encrypted.
fn sealed_size(draft: &Draft) -> u64 {
    let sealed = |o: &Opening| o.bytes.0.len() as u64 * 4 / 3 + o.field.len() as u64 + 512;
    draft.proposal.openings.iter().map(sealed).sum()
}

/// At most so many bytes of blocks.
fn in_blocks(bytes: u64) -> u64 {
    bytes.saturating_mul(512) / 508 + 1024
}

impl Core {
    pub(crate) fn is_full(&self, group: &Group, draft: &Draft) -> bool {
        group.bytes >= GROUP_BYTES
            || !self.fits_easily(group, draft)
                && in_blocks(group.bytes as u64 + self.worst(draft) + TAIL) > self.cursor.free()
    }

    /// Is there more room than any such draft needs, so that its size need not be known?
    fn fits_easily(&self, group: &Group, draft: &Draft) -> bool {
        let most = 3 * (MAX_ENTRY as u64 + FRAME) + sealed_size(draft);
        in_blocks(group.bytes as u64 + most + TAIL) + self.reserve() <= self.cursor.free()
    }

    /// Most bytes that a draft takes, with what follows from it.
    fn worst(&self, draft: &Draft) -> u64 {
        let body = &draft.proposal.body;
        // What cannot be encoded is refused before it is written.
        let entry = encoding::encode(body).map_or(0, |bytes| bytes.len() as u64) + FRAME;
        let follows = match body {
            Body::Statement(signed) => {
                let approvals = signed.statement().ok().and_then(|s| match s.say {
                    Say::Approval(answer) => Some(self.state.asks.get(&answer.of)?.approvals.len()),
                    _ => None,
                });
                2 * FRAME + 160 * approvals.unwrap_or(0) as u64
            }
            Body::Genesis(_)
            | Body::Grant(_)
            | Body::GrantExtend(_)
            | Body::SessionOpen(_)
            | Body::SessionClose(_)
            | Body::Intent(_)
            | Body::Outcome(_)
            | Body::Evidence(_)
            | Body::Refusal(_)
            | Body::Head(_)
            | Body::ProviderKeys(_)
            | Body::DirectoryChange(_)
            | Body::DirectoryRefusal(_)
            | Body::LoginRefusal(_) => 0,
            // The proposals that it settles, and the links to them.
            Body::Cosigned(_) => 64 * 256,
        };
        entry + follows + sealed_size(draft)
    }

    pub(crate) fn make_space(&mut self, group: &Group, draft: &Draft) -> Result<(), RecordError> {
        if !draft.proposal.openings.is_empty()
            && draft.proposal.scope == Scope::None
            && draft.scopes.is_none()
        {
            return Err(Denied::new("scope", "sealed content needs a scope").into());
        }
        if self.fits_easily(group, draft) {
            return Ok(());
        }
        let need = self.worst(draft);
        let largest = self.segment_bytes.saturating_sub(self.reserve() + 512);
        if in_blocks(need + TAIL) > largest {
            return Err(
                Denied::new("size", "the sealed content is too large for one entry").into(),
            );
        }
        let need = in_blocks(need + TAIL + group.bytes as u64);
        if need + self.reserve() > self.cursor.free() {
            self.allocate_next(true);
        }
        if need > self.cursor.free() && group.entries.is_empty() && self.cursor.next {
            self.rotate()
                .map_err(|e| unavailable(self.fail(e.to_string())))?;
        }
        let reserve = match self.cursor.next || ends_something(&draft.proposal.body) {
            true => 0,
            false => self.reserve(),
        };
        if need + reserve > self.cursor.free() {
            return Err(unavailable(LedgerError::Full.to_string()));
        }
        Ok(())
    }

    /// Room at the end of the last segment for what ends something: the ends of all that is open, and
    /// more that may be to say.
    fn reserve(&self) -> u64 {
        let some = (self.segment_bytes / 4).min(4 << 20);
        let ends = self.state.open_ends() as u64 * END;
        some.max(ends + some / 4).min(self.segment_bytes / 4 * 3)
    }

    pub(crate) fn space_for_head(&mut self, group: &Group) -> Result<(), RecordError> {
        let need = in_blocks(group.bytes as u64 + TAIL);
        if need > self.cursor.free() {
            self.allocate_next(true);
        }
        if need > self.cursor.free() && group.entries.is_empty() && self.cursor.next {
            self.rotate()
                .map_err(|e| unavailable(self.fail(e.to_string())))?;
        }
        if need > self.cursor.free() {
            Err(unavailable(LedgerError::Full.to_string()))
        } else {
            Ok(())
        }
    }
}
