//! HTTP to parties that are not ours: bounded in time and size, straight to the address that was
//! configured. A redirect is an answer like any other, and proxies of the environment are not asked.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
pub(crate) use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known == name)?;
        Some(value)
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("ascribe/", env!("CARGO_PKG_VERSION")))
}

/// A client for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new() -> Result<Self> {
        let client = builder()
            .build()
            .context("TLS to others cannot be set up: is there a store of root certificates?")?;
        Ok(Self(client))
    }

    /// For one party that has this time to answer, and whose certificate one of these signed, in place of the
    /// machine's own roots where there are any.
    pub(crate) fn to_one(timeout: Duration, roots: &[Vec<u8>]) -> Result<Self> {
        let mut client = builder().timeout(timeout);
        if !roots.is_empty() {
            let roots: Result<Vec<_>, _> = roots
                .iter()
                .map(|der| reqwest::Certificate::from_der(der))
                .collect();
            client = client.tls_certs_only(roots.context("a certificate cannot be read")?);
        }
        let client = client
            .build()
            .context("TLS with these certificates cannot be set up")?;
        Ok(Self(client))
    }

    /// Asks with headers of the caller's; a body makes it a POST, and is wiped when it was sent. Reads at most
    /// `cap` bytes.
    pub(crate) async fn ask(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Option<Zeroizing<Vec<u8>>>,
        cap: usize,
    ) -> Result<Answer> {
        let to = checked(url)?;
        let request = match body {
            Some(body) => self.0.post(to).body(bytes::Bytes::from_owner(body)),
            None => self.0.get(to),
        };
        take(url, request.headers(headers), cap).await
    }

    /// Reads at most `cap` bytes; more is an error.
    pub(crate) async fn get(&self, url: &str, cap: usize) -> Result<Answer> {
        take(url, self.0.get(checked(url)?), cap).await
    }

    /// The same, as the bearer of a token.
    pub(crate) async fn get_as(&self, url: &str, bearer: &str, cap: usize) -> Result<Answer> {
        take(url, self.0.get(checked(url)?).bearer_auth(bearer), cap).await
    }

    /// The same for a request with a body.
    pub(crate) async fn post(
        &self,
        url: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
        cap: usize,
    ) -> Result<Answer> {
        let request = self
            .0
            .post(checked(url)?)
            .header("content-type", content_type)
            .body(body.into());
        take(url, request, cap).await
    }
}

/// `https`, or `http` to this very machine: whatever else listens there could as well read our files.
fn checked(url: &str) -> Result<reqwest::Url> {
    let shown = ascribe_core::text::clean(url, 200);
    let parsed = reqwest::Url::parse(url).with_context(|| format!("`{shown}` is no URL"))?;
    let local = match parsed.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => bail!("`{shown}` names no host"),
    };
    ensure!(
        parsed.username().is_empty() && parsed.password().is_none(),
        "`{shown}` has a user name or a password in it"
    );
    match parsed.scheme() {
        "https" => Ok(parsed),
        "http" if local => Ok(parsed),
        _ => bail!("`{shown}` is not `https` (`http` is for this machine alone)"),
    }
}

async fn take(url: &str, request: reqwest::RequestBuilder, cap: usize) -> Result<Answer> {
    let shown = ascribe_core::text::clean(url, 200);
    let mut response = request
        .send()
        .await
        .with_context(|| format!("`{shown}` does not answer"))?;
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect();
    // At once as large as it gets, where that is said: growing leaves copies behind.
    let length = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(cap);
    let mut body = Vec::with_capacity(length.min(cap));
    while let Some(piece) = response
        .chunk()
        .await
        .with_context(|| format!("`{shown}` breaks off"))?
    {
        ensure!(
            piece.len() <= cap.saturating_sub(body.len()),
            "`{shown}` answers with more than {cap} bytes"
        );
        body.extend_from_slice(&piece);
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn only_https_leaves_the_machine() {
        for good in [
            "https://idp.example/keys",
            "http://127.0.0.1:8080/",
            "http://[::1]:1/x",
            "http://localhost/",
        ] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "https://user:word@idp.example/",
            "file:///etc/passwd",
            "ftp://localhost/",
            "idp.example",
            "",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
