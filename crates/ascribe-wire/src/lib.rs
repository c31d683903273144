//! Untrusted protocol bytes to actions: SSH user names and channel requests. Pure and bounded.

pub mod command;
pub mod inner;
pub mod request;
pub mod user;
