//! Network edges: the SSH gateway between a stock client and a real server.
//!
//! In scope: listening, logins, relaying, evidence of streams. Out of scope: what is lawful and
//! what is durable; the gateway sees the ledger only as a [`Recorder`](ascribe_core::record::Recorder).
//!
//! Start from [`serve`].

mod act;
mod between;
mod certificate;
mod channel;
mod connection;
mod entrance;
mod files;
mod forward;
mod guard;
mod handler;
mod incoming;
mod inner;
mod life;
mod listen;
mod pg;
mod places;
mod random;
mod relay;
mod stream;
mod upstream;

pub use inner::Arrival;
pub use life::Fill;
pub use listen::{GatewayConfig, GatewayError, UpstreamAuth, serve};
pub use pg::{
    ActsAs, Bearer, Bearers, Credential, Credentials, Io, LEDGER_AT_THE_DOOR, Lease, LoginRole,
    NO_LEDGER, OauthPlace, PASSWORD_PREFIX, PgArrival, PgConfig, ShownCertificate, TlsSignature,
    functions, relations, serve as serve_postgres,
};
pub use places::{Place, Places, Turn};
