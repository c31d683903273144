//! What an entry's statement says, read once for all the rules that look at it.

use super::Denied;
use crate::entry::Body;
use crate::statement::Statement;

/// The statement of an entry, and what came with it.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    /// None in an entry of another kind.
    pub(super) statement: Option<Statement>,
    /// The token of a login, where the ledger takes it in. A replay has none.
    pub(super) token: Option<&'a [u8]>,
}

impl Said<'_> {
    /// Reads the statement, if the entry is one.
    pub(super) fn by(body: &Body) -> Result<Self, Denied> {
        let statement = match body {
            Body::Statement(signed) => Some(
                signed
                    .statement()
                    .map_err(|e| Denied::new("malformed", format!("the statement is {e}")))?,
            ),
            _ => None,
        };
        Ok(Self {
            statement,
            token: None,
        })
    }
}
