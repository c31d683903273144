//! Untrusted protocol bytes to actions: SSH user names, channel requests, file transfers, PostgreSQL, Vault. Pure and
//! bounded.

pub mod command;
pub mod cut;
pub mod inner;
pub mod pg;
pub mod pglog;
pub mod quote;
pub mod request;
pub mod scim;
pub mod scp;
pub mod sftp;
pub mod source;
pub mod user;
pub mod vault;
