//! Untrusted protocol bytes to actions: SSH user names and channel requests. Pure and bounded.

pub mod command;
pub mod request;
pub mod source;
pub mod user;
