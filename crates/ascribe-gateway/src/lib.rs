//! Network edges: the SSH gateway between a stock client and a real server.

pub mod ssh;

pub use ssh::{GatewayConfig, UpstreamAuth, serve};
