//! What a provider says of itself (OpenID Connect Discovery 1.0, 4).

use ascribe_core::identity::Provider;
use ascribe_core::text::clean;
use serde::Deserialize;

use super::{MAX_ANSWER, read};
use crate::exit::{Done, Failure, Kind};
use crate::http::{Answer, Http};

/// Where a provider's endpoints are. Other members are not of interest.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    pub(crate) jwks_uri: String,
    pub(crate) authorization_endpoint: Option<String>,
    pub(crate) token_endpoint: Option<String>,
    pub(crate) device_authorization_endpoint: Option<String>,
    /// RFC 9207: the provider names itself when it sends the browser back.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// An endpoint that the provider must have for this way of logging in.
    pub(crate) fn endpoint<'a>(&self, what: &str, endpoint: &'a Option<String>) -> Done<&'a str> {
        endpoint.as_deref().ok_or_else(|| {
            let issuer = clean(&self.issuer, 200);
            Failure::new(Kind::Failure, format!("`{issuer}` has no {what} endpoint"))
        })
    }
}

/// Reads it. The issuer must call itself exactly what it was registered as.
pub(crate) async fn discover(http: &Http, issuer: &str) -> Done<Metadata> {
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let answer = http.get(&url, MAX_ANSWER).await?;
    expect_ok(&url, &answer)?;
    let metadata: Metadata = read(&answer, "the provider's configuration")?;
    if metadata.issuer != issuer {
        return Err(Failure::new(
            Kind::Denied,
            format!(
                "`{}` calls itself `{}`: it is not the issuer that was registered",
                clean(issuer, 200),
                clean(&metadata.issuer, 200)
            ),
        ));
    }
    Ok(metadata)
}

/// The bytes of the keys that a provider publishes.
pub(crate) async fn published_keys(http: &Http, provider: &Provider) -> Done<Answer> {
    let answer = http.get(&provider.jwks_uri, MAX_ANSWER).await?;
    expect_ok(&provider.jwks_uri, &answer)?;
    Ok(answer)
}

fn expect_ok(url: &str, answer: &Answer) -> Done {
    if answer.status == 200 {
        return Ok(());
    }
    let where_to = answer
        .header("location")
        .map(|to| format!(" to `{}`, which is not followed", clean(to, 200)))
        .unwrap_or_default();
    Err(Failure::new(
        Kind::Failure,
        format!(
            "`{}` answers with status {}{where_to}",
            clean(url, 200),
            answer.status
        ),
    ))
}
