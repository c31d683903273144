//! What SPIFFE's agent says of the process that asks it: the Workload API, on the socket that
//! `SPIFFE_ENDPOINT_SOCKET` names (SPIFFE Workload Endpoint 4, SPIFFE Workload API 5 and 6).

use std::future::Future;
use std::time::Duration;

use ascribe_core::encoding::Bytes;
use ascribe_core::text::clean;
use spiffe::{SpiffeId, WorkloadApiClient, WorkloadApiError};
use zeroize::Zeroizing;

use super::Token;
use super::svid::Svid;
use crate::exit::{Done, Failure, Kind};

const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most characters that are told of what went wrong.
const MAX_TOLD: usize = 400;

/// Is there an agent to ask?
pub(crate) fn is_there() -> bool {
    std::env::var_os(SOCKET).is_some_and(|socket| !socket.is_empty())
}

/// The X.509-SVID of this process: with this id, or its default one, which is the first (Workload API 5.3).
pub(crate) async fn x509(id: Option<&str>) -> Done<Svid> {
    let svids = bounded(async {
        let client = WorkloadApiClient::connect_env().await?;
        client.fetch_all_x509_svids().await
    })
    .await?;
    let wanted = |known: &SpiffeId| id.is_none_or(|id| known.to_string() == id);
    let Some(svid) = svids.iter().find(|svid| wanted(svid.spiffe_id())) else {
        return Err(none_of(
            svids.iter().map(|svid| svid.spiffe_id().to_string()),
        ));
    };
    Ok(Svid {
        chain: svid
            .cert_chain()
            .iter()
            .map(|certificate| Bytes(certificate.as_bytes().to_vec()))
            .collect(),
        key: Zeroizing::new(svid.private_key().as_bytes().to_vec()),
    })
}

/// A JWT-SVID of this process for this audience.
pub(crate) async fn jwt(audience: &str, id: Option<&str>) -> Done<Token> {
    let id = id
        .map(SpiffeId::try_from)
        .transpose()
        .map_err(|error| Failure::usage(format!("`--spiffe-id`: {error}")))?;
    let svid = bounded(async {
        let client = WorkloadApiClient::connect_env().await?;
        client.fetch_jwt_svid([audience], id.as_ref()).await
    })
    .await?;
    Ok(Token::new(svid.token().to_owned()))
}

/// The agent, as it is told of.
fn place() -> String {
    let socket = std::env::var_os(SOCKET).unwrap_or_default();
    let socket = clean(&socket.to_string_lossy(), MAX_TOLD);
    format!("the agent at `{socket}` ({SOCKET})")
}

async fn bounded<T>(asked: impl Future<Output = Result<T, WorkloadApiError>>) -> Done<T> {
    let answer = tokio::time::timeout(TIMEOUT, asked).await;
    let answer =
        answer.map_err(|_| Failure::new(Kind::Failure, format!("{} takes too long", place())))?;
    answer.map_err(|error| told(&error))
}

fn told(error: &WorkloadApiError) -> Failure {
    let kind = match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => Kind::Denied,
        WorkloadApiError::Endpoint(_) => Kind::Usage,
        _ => Kind::Failure,
    };
    // Of a connection only what began it says anything.
    let mut root: &dyn std::error::Error = error;
    while let (WorkloadApiError::Transport(_), Some(cause)) = (error, root.source()) {
        root = cause;
    }
    let text = clean(&root.to_string(), MAX_TOLD);
    let help = match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
            "no entry of the SPIFFE server fits this process: its selectors say which user, pod or unit is meant"
        }
        WorkloadApiError::Endpoint(_) => {
            "an address is `unix:///PATH` or `tcp://ADDRESS:PORT`, as the agent's operator says"
        }
        _ => "is the agent running there, and may this user open its socket?",
    };
    Failure::new(kind, format!("{} gives no SVID: {text}", place())).help(help)
}

fn none_of(known: impl Iterator<Item = String>) -> Failure {
    let known: Vec<_> = known.collect();
    Failure::new(
        Kind::Denied,
        "the agent does not know this process by that id",
    )
    .help(format!("it has: {}", clean(&known.join(", "), MAX_TOLD)))
}
