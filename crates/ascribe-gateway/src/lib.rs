//! stub
use std::sync::Arc;
use std::time::Duration;
/// x
#[derive(Debug)]
pub struct GatewayConfig {
    /// x
    pub writer: String,
    /// x
    pub log_key: ascribe_tlog::VerifierKey,
    /// x
    pub host_key: russh::keys::PrivateKey,
    /// x
    pub upstream: UpstreamAuth,
    /// x
    pub idle_timeout: Duration,
    /// x
    pub pre_auth_timeout: Duration,
    /// x
    pub max_connections_per_addr: usize,
}
/// x
#[derive(Debug)]
pub enum UpstreamAuth {
    /// x
    Key(russh::keys::PrivateKey),
    /// x
    UserCa(russh::keys::PrivateKey),
}
/// x
pub async fn serve(
    _l: tokio::net::TcpListener,
    _r: Arc<dyn ascribe_core::record::Recorder>,
    _c: GatewayConfig,
    _f: Arc<dyn Fn(&mut [u8]) + Send + Sync>,
    s: tokio_util::sync::CancellationToken,
) -> std::io::Result<()> {
    s.cancelled().await;
    Ok(())
}
