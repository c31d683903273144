//! How a job comes by its own token: from what runs it, for exactly the audience that commits to the
//! session key. Nothing is stored between runs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ascribe_core::identity::ProviderKind;
use ascribe_core::text::clean;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{MAX_ANSWER, Token, escape, read, workload_api};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::http::Http;

/// Largest token, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);
/// What a program finds the wanted audience in.
const AUDIENCE: &str = "ASCRIBE_AUDIENCE";
/// Where GitLab puts a job's token, under the name that its configuration gives (`id_tokens`).
const GITLAB_TOKEN: &str = "ASCRIBE_ID_TOKEN";

/// Where a job's token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// What runs the job is known to give tokens in this way.
    Own(ProviderKind),
    /// SPIFFE's agent, which may know the process by several ids.
    Agent(Option<String>),
    /// A file that holds it, such as a projected volume.
    File(PathBuf),
    /// A program that prints it, with its arguments.
    Program(Vec<String>),
}

#[derive(Deserialize)]
struct GithubAnswer {
    value: String,
}

/// The job's token for this audience.
pub(crate) async fn token(http: &Http, source: &Source, audience: &str) -> Done<Token> {
    match source {
        Source::Own(ProviderKind::Github) => github(http, audience).await,
        Source::Own(ProviderKind::Buildkite) => {
            let words = [
                "buildkite-agent",
                "oidc",
                "request-token",
                "--audience",
                audience,
            ];
            program(&words.map(str::to_owned), audience).await
        }
        Source::Own(ProviderKind::Circleci) => {
            let claims = serde_json::json!({ "aud": audience }).to_string();
            let words = ["circleci", "run", "oidc", "get", "--claims", &claims];
            program(&words.map(str::to_owned), audience).await
        }
        Source::Own(ProviderKind::Gitlab) => gitlab(audience),
        Source::Agent(id) => workload_api::jwt(audience, id.as_deref()).await,
        Source::Own(ProviderKind::Spiffe) => Err(Failure::usage("where does the JWT-SVID come from?").help(format!(
            "set SPIFFE_ENDPOINT_SOCKET to the agent's, or give `--token-command \"PROGRAM ...\"` (it finds the audience in \
             {AUDIENCE}) or `--token-file FILE`"
        ))),
        Source::Own(_) => Err(Failure::usage("where does the token come from?").help(format!(
            "give `--token-command \"PROGRAM ...\"` (it finds the audience in {AUDIENCE}) or `--token-file FILE`"
        ))),
        Source::File(path) => {
            let shown = path.display();
            let file = tokio::fs::File::open(path)
                .await
                .attempt(format!("read the token in `{shown}`"))?;
            bounded(file, &format!("`{shown}`")).await
        }
        Source::Program(words) => program(words, audience).await,
    }
}

/// GitHub Actions gives a job an address and a bearer token for it (`permissions: id-token: write`).
async fn github(http: &Http, audience: &str) -> Done<Token> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| {
            Failure::usage(format!(
                "{name} is not set: this job may not ask for tokens"
            ))
            .help("give the job `permissions: id-token: write`")
        })
    };
    let mut url = variable("ACTIONS_ID_TOKEN_REQUEST_URL")?;
    let bearer = Zeroizing::new(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?);
    url.push_str(if url.contains('?') { "&" } else { "?" });
    url.push_str("audience=");
    escape(&mut url, audience);
    let answer = http.get_as(&url, &bearer, MAX_ANSWER).await?;
    if answer.status != 200 {
        return Err(Failure::new(
            Kind::Failure,
            format!("GitHub gives no token: HTTP status {}", answer.status),
        ));
    }
    let parsed: GithubAnswer = read(&answer, "GitHub's token")?;
    Ok(Token::new(parsed.value))
}

/// GitLab mints a job's tokens before it begins, and puts them into its environment.
fn gitlab(audience: &str) -> Done<Token> {
    let token = std::env::var(GITLAB_TOKEN).unwrap_or_default();
    if token.is_empty() {
        return Err(
            Failure::usage(format!("{GITLAB_TOKEN} is not set: this job has no token")).help(
                format!(
                    "give the job `id_tokens: {{ {GITLAB_TOKEN}: {{ aud: \"{audience}\" }} }}`"
                ),
            ),
        );
    }
    Ok(Token::new(token))
}

async fn program(words: &[String], audience: &str) -> Done<Token> {
    let Some((name, rest)) = words.split_first() else {
        return Err(Failure::usage("`--token-command` names no program"));
    };
    let shown = clean(name, 100);
    let mut child = tokio::process::Command::new(name)
        .args(rest)
        .env(AUDIENCE, audience)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .attempt(format!("run `{shown}`"))?;
    let out = child
        .stdout
        .take()
        .ok_or_else(|| Failure::new(Kind::Failure, format!("`{shown}` has no output")))?;
    let whole = async {
        let token = bounded(out, &format!("`{shown}`")).await?;
        let status = child.wait().await.attempt(format!("run `{shown}`"))?;
        if status.success() {
            Ok(token)
        } else {
            Err(Failure::new(
                Kind::Failure,
                format!("`{shown}` failed: {status}"),
            ))
        }
    };
    tokio::time::timeout(TIMEOUT, whole)
        .await
        .map_err(|_| Failure::new(Kind::Failure, format!("`{shown}` takes too long")))?
}

/// A token, without the white space around it.
async fn bounded(from: impl tokio::io::AsyncRead + Unpin, shown: &str) -> Done<Token> {
    let mut text = Zeroizing::new(String::new());
    let mut from = from.take(MAX_TOKEN + 1);
    from.read_to_string(&mut text)
        .await
        .attempt(format!("read the token of {shown}"))?;
    if text.len() as u64 > MAX_TOKEN {
        return Err(Failure::usage(format!("{shown} holds more than a token")));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(format!("{shown} holds no token")));
    }
    Ok(Token::new(token.to_owned()))
}
