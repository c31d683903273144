//! The device flow (RFC 8628), for machines without a browser. Providers drop the nonce in it, so the
//! token does not bind the key: the login counts for less, and says so.

use std::time::Duration;

use ascribe_core::identity::Provider;
use serde::Deserialize;

use super::{MAX_ANSWER, Metadata, Token, ask_for_token, encoded, read, wanted};
use crate::exit::{Done, Failure, Kind};
use crate::http::Http;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Longest wait for the person, whatever the provider says.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Deserialize)]
struct Started {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default = "five")]
    interval: u64,
    expires_in: u64,
}

fn five() -> u64 {
    5
}

/// Shows address and code to `show`, waits until the person has confirmed, and gets the token.
pub(crate) async fn token(
    http: &Http,
    provider: &Provider,
    metadata: &Metadata,
    commitment: &str,
    show: impl FnOnce(&str, &str),
) -> Done<Token> {
    let start = metadata.endpoint(
        "device authorization",
        &metadata.device_authorization_endpoint,
    )?;
    let endpoint = metadata.endpoint("token", &metadata.token_endpoint)?;
    // A provider that keeps the nonce binds the key after all.
    let wanted = wanted(provider);
    let mut form = vec![
        ("client_id", provider.audience.as_str()),
        ("scope", "openid"),
        ("nonce", commitment),
    ];
    form.extend(wanted.iter().map(|(name, value)| (*name, value.as_str())));
    let answer = http
        .post(
            start,
            "application/x-www-form-urlencoded",
            encoded(&form),
            MAX_ANSWER,
        )
        .await?;
    let started: Started = read(&answer, "the provider's answer")?;
    show(&started.verification_uri, &started.user_code);
    let mut pause = Duration::from_secs(started.interval.clamp(1, 60));
    let end = Duration::from_secs(started.expires_in).min(PATIENCE);
    let waiting = async {
        loop {
            tokio::time::sleep(pause).await;
            let form = [
                ("grant_type", GRANT),
                ("device_code", started.device_code.as_str()),
                ("client_id", provider.audience.as_str()),
            ];
            match ask_for_token(http, endpoint, &form).await? {
                Ok(token) => return Ok(token),
                Err(refused) => match refused.code.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => pause += Duration::from_secs(5),
                    _ => return Err(refused.failure),
                },
            }
        }
    };
    tokio::time::timeout(end, waiting).await.map_err(|_| {
        Failure::new(Kind::Failure, "nobody confirmed the code in time")
            .help("run `ascribe login` again")
    })?
}
