//! Cancel requests: a connection of its own, whose only word is a key. Whoever has the key may cancel;
//! the record names the session's actor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ascribe_wire::pg::Secret;
use ascribe_wire::pg::startup::Cancel;

use super::Shared;
use super::session::Session;

/// Bytes of a key in protocol 3.0, and since 3.2.
const OLD_KEY: usize = 4;
const NEW_KEY: usize = 32;

/// The keys of all sessions.
#[derive(Default)]
pub(crate) struct Cancels {
    sessions: Mutex<HashMap<u32, (Secret, Weak<Session>)>>,
}

/// A key as long as it is kept.
pub(super) struct Kept {
    shared: Arc<Shared>,
    process: u32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let sessions = &self.shared.cancels.sessions;
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.process);
    }
}

impl Cancels {
    /// A new key for a session, as its client is told.
    pub(super) fn keep(
        &self,
        shared: &Arc<Shared>,
        session: &Arc<Session>,
        minor: u16,
    ) -> (Kept, u32, Secret) {
        let random: [u8; NEW_KEY] = shared.common.random();
        let length = if minor >= 2 { NEW_KEY } else { OLD_KEY };
        let key = Secret::new(random.get(..length).unwrap_or(&random));
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let process = loop {
            // Some clients take it for a signed number.
            let process = u32::from_be_bytes(shared.common.random()) >> 1;
            if process != 0 && !sessions.contains_key(&process) {
                break process;
            }
        };
        sessions.insert(process, (key.clone(), Arc::downgrade(session)));
        let shared = Arc::clone(shared);
        (Kept { shared, process }, process, key)
    }

    /// Cancels what a session runs, if the key is right. Nobody is told whether it was.
    pub(super) async fn ask(&self, shared: &Arc<Shared>, cancel: &Cancel) {
        let session = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let found = sessions.get(&cancel.process);
            let found = found.filter(|(key, _)| is_same(key.expose(), cancel.key.expose()));
            found.and_then(|(_, session)| session.upgrade())
        };
        if let Some(session) = session {
            session.cancel(shared).await;
        }
    }
}

/// Compares in a time that does not depend on where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_compared_whole() {
        for (one, other, same) in [
            (&[1, 2, 3, 4][..], &[1, 2, 3, 4][..], true),
            (&[1, 2, 3, 4], &[1, 2, 3, 5], false),
            (&[1, 2, 3, 4], &[1, 2, 3], false),
            (&[1, 2, 3], &[1, 2, 3, 4], false),
        ] {
            assert_eq!(is_same(one, other), same);
        }
    }
}
