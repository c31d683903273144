//! Authorization code with PKCE in the person's browser, back to a port of this machine (RFC 6749, RFC
//! 7636, RFC 8252). The nonce is the commitment to the session key, so the provider signs it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::encoding::base64url;
use ascribe_core::identity::Provider;
use ascribe_core::text::clean;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Metadata, Token, ask_for_token, decoded, encoded, wanted};
use crate::client::random;
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::http::Http;

/// A person has so long to log in.
const PATIENCE: Duration = Duration::from_secs(300);
/// A browser says what it wants within this time.
const HEAR_TIMEOUT: Duration = Duration::from_secs(10);
const PATH: &str = "/callback";

/// What the browser brought back.
struct Back {
    code: String,
}

/// Shows the address to `show`, waits until the browser comes back, and gets the token.
pub(crate) async fn token(
    http: &Http,
    provider: &Provider,
    metadata: &Metadata,
    commitment: &str,
    show: impl FnOnce(&str),
) -> Done<Token> {
    let authorize = metadata.endpoint("authorization", &metadata.authorization_endpoint)?;
    let endpoint = metadata.endpoint("token", &metadata.token_endpoint)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .attempt("listen for the browser")?;
    let port = listener
        .local_addr()
        .attempt("listen for the browser")?
        .port();
    let redirect = format!("http://127.0.0.1:{port}{PATH}");
    let verifier = base64url(&random::<32>()?);
    let state = base64url(&random::<16>()?);
    let challenge = {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
        base64url(digest.as_ref())
    };
    let mut asked = vec![
        ("response_type", "code"),
        ("client_id", provider.audience.as_str()),
        ("redirect_uri", redirect.as_str()),
        ("scope", "openid"),
        ("state", state.as_str()),
        ("nonce", commitment),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let wanted = wanted(provider);
    asked.extend(wanted.iter().map(|(name, value)| (*name, value.as_str())));
    let query = encoded(&asked);
    let join = if authorize.contains('?') { '&' } else { '?' };
    show(&format!("{authorize}{join}{query}"));
    let expect = Expect {
        state,
        issuer: metadata.issuer.clone(),
        names_itself: metadata.authorization_response_iss_parameter_supported,
    };
    let back = tokio::time::timeout(PATIENCE, hear(listener, expect))
        .await
        .map_err(|_| Failure::new(Kind::Failure, "nobody logged in within five minutes"))??;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", back.code.as_str()),
        ("redirect_uri", &redirect),
        ("client_id", &provider.audience),
        ("code_verifier", &verifier),
    ];
    ask_for_token(http, endpoint, &form)
        .await?
        .map_err(|refused| refused.failure)
}

/// What the browser must bring.
struct Expect {
    state: String,
    issuer: String,
    names_itself: bool,
}

impl Expect {
    /// None: this is not the answer that we wait for, so we go on waiting.
    fn read(&self, query: &str) -> Option<Done<Back>> {
        let found = decoded(query);
        let one = |name: &str| {
            let mut values = found.iter().filter(|(known, _)| known == name);
            let value = values.next().map(|(_, value)| value.as_str());
            value.filter(|_| values.next().is_none())
        };
        // Anybody can send a browser here; only the provider knows the state.
        if one("state") != Some(&self.state) {
            return None;
        }
        let issuer = one("iss");
        if issuer.is_some_and(|issuer| issuer != self.issuer)
            || (self.names_itself && issuer.is_none())
        {
            return Some(Err(Failure::new(
                Kind::Denied,
                "the answer is not by the provider that was asked (RFC 9207)",
            )));
        }
        if let Some(error) = one("error") {
            let more = one("error_description").unwrap_or_default();
            let text = format!(
                "the provider says: {} {}",
                clean(error, 80),
                clean(more, 200)
            );
            return Some(Err(Failure::new(Kind::Denied, text.trim_end())));
        }
        one("code").map(|code| {
            Ok(Back {
                code: code.to_owned(),
            })
        })
    }
}

/// Answers the browser until it brings what we wait for.
async fn hear(listener: TcpListener, expect: Expect) -> Done<Back> {
    let expect = Arc::new(expect);
    let (found, mut wait) = mpsc::channel::<Done<Back>>(1);
    loop {
        let (tcp, _) = tokio::select! {
            back = wait.recv() => {
                return back.unwrap_or_else(|| Err(Failure::new(Kind::Failure, "the browser's answer was lost")));
            }
            accepted = listener.accept() => accepted.attempt("listen for the browser")?,
        };
        let (expect, found) = (Arc::clone(&expect), found.clone());
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (expect, found) = (Arc::clone(&expect), found.clone());
            async move { Ok::<_, Infallible>(answer(&expect, &found, &request)) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.keep_alive(false);
        let connection = server.serve_connection(TokioIo::new(tcp), answer);
        // One at a time: nobody else has business here, and the browser comes again.
        if tokio::time::timeout(HEAR_TIMEOUT, connection)
            .await
            .is_err()
        {
            tracing::debug!("somebody connected and said nothing");
        }
    }
}

fn answer(
    expect: &Expect,
    found: &mpsc::Sender<Done<Back>>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let back = (request.method() == hyper::Method::GET && request.uri().path() == PATH)
        .then(|| expect.read(query))
        .flatten();
    let (status, text) = match &back {
        None => (StatusCode::NOT_FOUND, "This is not what is waited for."),
        Some(Ok(_)) => (
            StatusCode::OK,
            "You are logged in. You can close this page.",
        ),
        Some(Err(_)) => (
            StatusCode::OK,
            "The login failed. The reason is in the terminal.",
        ),
    };
    if let Some(back) = back
        && found.try_send(back).is_err()
    {
        tracing::debug!("the browser came twice");
    }
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>ascribe</title>\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <style>body{{font:1.1rem system-ui,sans-serif;margin:20vh auto;max-width:32rem;padding:0 1rem}}</style>\
         <h1>ascribe</h1><p>{text}</p></html>"
    );
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        ("referrer-policy", "no-referrer"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::Expect;

    fn expect(names_itself: bool) -> Expect {
        Expect {
            state: "s1".to_owned(),
            issuer: "https://idp.example".to_owned(),
            names_itself,
        }
    }

    #[test]
    fn only_the_providers_answer_ends_the_wait() {
        for stray in ["", "code=x", "state=s2&code=x", "state=s1&state=s1&code=x"] {
            assert!(expect(false).read(stray).is_none(), "{stray}");
        }
        let good = expect(false).read("code=abc&state=s1").map(Result::ok);
        assert_eq!(good.flatten().map(|b| b.code), Some("abc".to_owned()));
        let iss = "iss=https%3A%2F%2Fidp.example";
        let good = expect(true).read(&format!("code=abc&state=s1&{iss}"));
        assert!(matches!(good, Some(Ok(_))));
        for bad in [
            "code=abc&state=s1&iss=https%3A%2F%2Fevil.example",
            "code=abc&state=s1",
            "state=s1&error=access_denied&iss=https%3A%2F%2Fidp.example",
        ] {
            assert!(matches!(expect(true).read(bad), Some(Err(_))), "{bad}");
        }
    }
}
