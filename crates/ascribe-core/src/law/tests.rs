//! The law, claim by claim; a model beside it; and what a replay refuses.
//!
//! Every [`World`] checks by itself that a refusal changes nothing, and, when it ends, that a
//! fresh replay of its bytes arrives at the same state.

use std::collections::{BTreeMap, BTreeSet};

use ascribe_tlog::SigningKey;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::encoding::{self, Bytes};
use crate::entry::{
    Chunk, Door, Evidence, Head, Intent, OpenedBy, Outcome, Refusal, SessionClose, Status,
    StreamTotal, WriterKey, head_message,
};
use crate::record::{Admission, Proposal, Scope, Standing, Wanted};
use crate::sealed::{Opening, Prose};
use crate::statement::{
    Answer, Authority, Mapping, Offboard, PersonAdd, PersonKey, Read, Review, Revocation,
    RevokedCertificates, Seen, Signed, Statement, TicketRule, UseGrant, Uses, Verdict, View,
};

mod authorities;
mod databases;
mod delegations;
mod directories;
mod entries;
mod golden;
mod grants;
mod groups;
mod identities;
mod kit;
mod model;
mod people;
mod sessions;
mod tamper;
mod windows;
mod witnesses;
mod world;

use self::kit::*;
use self::world::*;
