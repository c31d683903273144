//! PostgreSQL's protocol 3.0 to 3.2 (PostgreSQL's documentation, "Frontend/Backend Protocol"), in both
//! directions.
//!
//! Original bytes are forwarded; what is decoded is a view of them. A message that is not understood to
//! its last byte is an error, and nothing of it is handed on.
//!
//! Start with [`startup`] for a connection's first packet, [`frame::Frames`] for what follows, [`client`]
//! and [`server`] for the meaning of one message, [`oauth`] for what is said within one of SASL's, and [`session`] for
//! what messages mean together.

pub mod client;
pub mod encode;
mod fields;
pub mod frame;
pub mod oauth;
pub mod server;
pub mod session;
pub mod startup;

pub use fields::{Format, Malformed, Secret};
