//! Witnesses: those that our log is shown to ([`client`]), and ourselves as one of other logs'
//! ([`server`]).

pub(crate) mod client;
pub(crate) mod server;
mod store;
