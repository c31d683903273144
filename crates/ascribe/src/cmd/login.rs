//! `ascribe login` and `ascribe logout`: session keys that a provider's token binds to an actor.

use std::path::PathBuf;
use std::process::Stdio;

use ascribe_core::id::{ContentDigest, PersonId, StatementId};
use ascribe_core::identity::{Login, Logout, Provider, ProviderKind, key_commitment, token_digest};
use ascribe_core::law::{Judge as _, TokenAsked};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Say, SshKey};
use ascribe_core::text::clean;
use ascribe_core::time::Timestamp;
use ascribe_evidence::{SshSignatures, prove_token};
use serde::{Deserialize, Serialize};
use serde_json::json;
use ssh_key::PublicKey;

use super::serve::runtime;
use super::{remark, say, say_json};
use crate::api::{ProviderAsk, ProviderView};
use crate::cli::{self, Cli};
use crate::client::{Client, Server, config_dir, now, random, read_json, write_json};
use crate::exit::{Attempt as _, Done, Failure, Kind};
use crate::http::Http;
use crate::login::keyfile::{self, KeyFile};
use crate::login::svid::Svid;
use crate::login::{Token, browser, device, discover, job, published_keys, workload_api};
use crate::signer::{Signer, agent_answers, fresh_key, lend_to_agent, ssh_key_of, take_from_agent};

/// Longest life of a session key, in seconds.
const LONGEST: u64 = 12 * 3600;
/// Most logins that are remembered.
const REMEMBERED: usize = 64;

/// A login that this machine made; its private key is in the agent, or in a file, alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// The server's log.
    log_key: String,
    login: StatementId,
    actor: PersonId,
    provider: String,
    /// The public key, as OpenSSH writes it.
    key: String,
    /// Where its private key is, encrypted, if the agent has it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    until: Timestamp,
}

impl Known {
    /// Whoever holds its private key.
    pub(crate) fn signer(&self) -> Done<Signer> {
        match &self.file {
            Some(file) => Signer::from_file(file),
            None => Signer::from_agent(Some(&self.public()?)),
        }
    }

    fn public(&self) -> Done<PublicKey> {
        PublicKey::from_openssh(&self.key).attempt("read the login's key")
    }

    /// Puts the private key out of reach.
    fn forget(&self) -> Done {
        match &self.file {
            Some(file) => keyfile::remove(file, &self.public()?),
            None => take_from_agent(&self.public()?),
        }
    }
}

/// Every login that is remembered. Key files end with their logins.
fn known() -> Done<Vec<Known>> {
    let file = config_dir()?.join("logins.json");
    if !file.exists() {
        return Ok(Vec::new());
    }
    let logins: Vec<Known> = read_json(&file)?;
    let over = |login: &&Known| login.file.is_some() && login.until <= now();
    for login in logins.iter().filter(over) {
        login.forget()?;
    }
    Ok(logins)
}

fn remember(mut logins: Vec<Known>) -> Done {
    logins.retain(|login| login.until > now());
    let surplus = logins.len().saturating_sub(REMEMBERED);
    logins.drain(..surplus);
    write_json(&config_dir()?.join("logins.json"), &logins)
}

/// The newest login at this server that still counts.
pub(crate) fn current(server: &Server) -> Option<Known> {
    let logins = known().ok()?;
    let mut newest_first = logins.into_iter().rev();
    newest_first.find(|login| login.log_key == server.log_key && login.until > now())
}

/// Whom the login is for, and where its token comes from.
struct Way<'a> {
    args: &'a cli::Login,
    view: &'a ProviderView,
}

pub(crate) fn login(cli: &Cli, args: &cli::Login) -> Done {
    if args.lasts > LONGEST {
        return Err(Failure::usage(
            "a session key counts for twelve hours at most",
        ));
    }
    let server = cli.server()?;
    // What earlier logins left goes first: its place may be wanted again.
    known()?;
    let file = args.key_file.as_deref().map(KeyFile::new).transpose()?;
    if file.is_none() {
        agent_answers()?;
    }
    let key = fresh_key()?;
    let public = ssh_key_of(key.public_key())?;
    let client = Client::new(server, Some(Signer::File(Box::new(key.clone()))))?;
    let Introduction {
        statement,
        opening,
        actor,
        provider,
        until,
    } = introduce(&client, args, &public)?;
    let hello = client.hello()?;
    if let Some(file) = &file {
        file.write(&key)?;
    }
    let submitted = client.submit_as(&hello, actor, statement, vec![opening]);
    if let (Some(file), Err(_)) = (&file, &submitted) {
        file.undo();
    }
    let login = submitted?;
    if file.is_none() {
        let left = until.since(now()) / 1000;
        let comment = format!("ascribe {login}");
        lend_to_agent(&key, &comment, u32::try_from(left).unwrap_or(1).max(1))?;
    }
    let made = Known {
        log_key: client.server().log_key.clone(),
        login,
        actor,
        provider,
        key: public.0.clone(),
        file: file.map(|file| file.path().to_owned()),
        until,
    };
    let mut logins = known()?;
    logins.push(made.clone());
    remember(logins)?;
    // A workload reads nothing, and was called by its name. A person whom nobody tells of it has an id.
    let name = match &args.workload {
        Some(workload) => Some(workload.clone()),
        None => super::registry(&client)
            .ok()
            .and_then(|known| known.name(actor).map(str::to_owned)),
    };
    show(cli, &made, name.as_deref(), &public.fingerprint())
}

/// A login in the making.
struct Introduction {
    statement: Say,
    opening: Opening,
    actor: PersonId,
    provider: String,
    until: Timestamp,
}

/// Comes by a token that introduces this key, and says what it says.
fn introduce(client: &Client, args: &cli::Login, public: &SshKey) -> Done<Introduction> {
    let view = client.provider(ProviderAsk {
        provider: args.provider.clone(),
        subject: None,
        workload: args.workload.clone(),
    })?;
    let rz: [u8; 32] = random()?;
    let commitment = key_commitment(public, &rz);
    let way = Way { args, view: &view };
    let http = Http::new()?;
    let (token, keys) = runtime()?.block_on(async {
        let token = way.token(&http, &commitment).await?;
        let keys = published_keys(&http, &view.provider).await?;
        Done::Ok((token, keys.body))
    })?;
    let facts: Vec<&str> = view.facts.iter().map(String::as_str).collect();
    let groups = view.groups.iter();
    let groups: Vec<(&str, &str)> = groups
        .map(|group| (group.claim.as_str(), group.value.as_str()))
        .collect();
    let managers: Vec<&str> = view.managers.iter().map(String::as_str).collect();
    let asked = TokenAsked {
        key: public,
        rz: &rz,
        facts: &facts,
        groups: &groups,
        managers: &managers,
    };
    let token = if view.provider.takes_proofs() {
        let mut random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).is_ok();
        let token = token.as_bytes();
        Token::new(prove_token(
            &view.provider,
            &keys,
            token,
            &asked,
            &mut random,
        )?)
    } else {
        token
    };
    // A token that is meant to be proved does not pass for any other: whatever the server says of its provider, it is
    // not shown.
    let claims = SshSignatures.token(&view.provider, &keys, token.as_bytes(), &asked)?;
    let by_provider = claims.binding.is_the_providers();
    if !by_provider {
        remark(
            "the provider does not bind this key: whoever holds the token could have logged in, so the login counts for less",
        );
    }
    let actor = match view.actor {
        Some(workload) => workload,
        None => whose(client, &view.provider, claims.subject)?,
    };
    let seconds = i64::try_from(args.lasts).unwrap_or(i64::MAX);
    let mut until = Timestamp::from_millis(now().millis().saturating_add(seconds * 1000));
    if !by_provider {
        until = until.min(claims.expires);
    }
    let opening = Opening::new("token", random()?, token.as_bytes().to_vec());
    let saw = claims.key;
    let statement = Say::Login(Box::new(Login {
        bearer: false,
        claims,
        digest: token_digest(token.as_bytes()),
        provider: view.provider.name.clone(),
        rz: ascribe_core::encoding::Bytes(rz.to_vec()),
        saw: Some(saw),
        token: opening.commitment(),
        until,
    }));
    Ok(Introduction {
        statement,
        opening,
        actor,
        provider: view.provider.name,
        until,
    })
}

/// A login for this run alone: its key is nowhere but in this process.
pub(crate) fn for_one_run(cli: &Cli, args: &cli::Login) -> Done<Client> {
    let key = fresh_key()?;
    let public = ssh_key_of(key.public_key())?;
    let client = Client::new(cli.server()?, Some(Signer::File(Box::new(key))))?;
    let made = introduce(&client, args, &public)?;
    let hello = client.hello()?;
    client.submit_as(&hello, made.actor, made.statement, vec![made.opening])?;
    Ok(client)
}

fn show(cli: &Cli, made: &Known, name: Option<&str>, fingerprint: &str) -> Done {
    let Known { actor, until, .. } = made;
    if cli.json() {
        return say_json(
            &json!({ "login": made.login, "actor": actor, "name": name, "provider": made.provider,
            "key": fingerprint, "key_file": made.file, "until": until }),
        );
    }
    let id = actor.to_string();
    let name = clean(name.unwrap_or(&id), 63);
    say(&format!("logged in as {name} until {until}"));
    match &made.file {
        Some(file) => say(&format!(
            "the key is in {}, encrypted: ascribe uses it, and `ssh -i` does",
            clean(&file.to_string_lossy(), 400)
        )),
        None => say("the key is in ssh-agent: plain ssh and ascribe use it"),
    }
    Ok(())
}

/// Whom the server takes a subject for.
fn whose(client: &Client, provider: &Provider, subject: ContentDigest) -> Done<PersonId> {
    let view = client.provider(ProviderAsk {
        provider: Some(provider.name.clone()),
        subject: Some(subject),
        workload: None,
    })?;
    view.actor.ok_or_else(|| {
        Failure::new(
            Kind::Denied,
            format!(
                "nobody is linked to {subject} at `{}`",
                clean(&provider.name, 63)
            ),
        )
        .help(format!(
            "an admin links it: ascribe identity link PERSON --provider {} --subject SUB",
            clean(&provider.name, 63)
        ))
    })
}

impl Way<'_> {
    async fn token(&self, http: &Http, commitment: &str) -> Done<Token> {
        let provider = &self.view.provider;
        if !provider.kind.is_of_people() {
            return self.job_token(http, commitment).await;
        }
        if self.args.workload.is_some() {
            return Err(Failure::usage(format!("`{}` names people", provider.name)));
        }
        let metadata = discover(http, &provider.issuer).await?;
        if self.args.device {
            let show = |address: &str, code: &str| {
                remark(&format!(
                    "open {} and give the code {}",
                    clean(address, 400),
                    clean(code, 40)
                ));
            };
            return device::token(http, provider, &metadata, commitment, show).await;
        }
        let open = !self.args.no_browser;
        let show = |address: &str| {
            remark(&format!("log in here:\n{}", clean(address, 4000)));
            if open {
                open_browser(address);
            }
        };
        browser::token(http, provider, &metadata, commitment, show).await
    }

    async fn job_token(&self, http: &Http, commitment: &str) -> Done<Token> {
        let provider = &self.view.provider;
        if self.args.workload.is_none() {
            return Err(Failure::usage(format!(
                "`{}` names workloads: give `--workload NAME`",
                provider.name
            )));
        }
        let spiffe = [ProviderKind::Spiffe, ProviderKind::SpiffeX509].contains(&provider.kind);
        if self.args.spiffe_id.is_some() && !spiffe {
            return Err(Failure::usage(format!(
                "`{}` knows no SPIFFE IDs: leave `--spiffe-id` away",
                provider.name
            )));
        }
        let token = self.args.token_file.is_some() || self.args.token_command.is_some();
        let svid = (&self.args.svid, &self.args.svid_key);
        match (provider.kind, svid) {
            (ProviderKind::SpiffeX509, _) if token => {
                return Err(Failure::usage(format!(
                    "`{}` takes X.509-SVIDs, no tokens",
                    provider.name
                )));
            }
            (ProviderKind::SpiffeX509, (Some(chain), Some(key))) => {
                return Svid::from_files(chain, key)?.proof(provider, commitment);
            }
            (ProviderKind::SpiffeX509, _) if workload_api::is_there() => {
                let svid = workload_api::x509(self.args.spiffe_id.as_deref()).await?;
                return svid.proof(provider, commitment);
            }
            (ProviderKind::SpiffeX509, _) => {
                return Err(Failure::usage("where is the workload's X.509-SVID?").help(
                    "set SPIFFE_ENDPOINT_SOCKET to its agent's, or give `--svid CERT.pem --svid-key KEY.pem`, as \
                     spiffe-helper writes them",
                ));
            }
            (_, (None, _)) => {}
            (_, (Some(_), _)) => {
                return Err(Failure::usage(format!(
                    "`{}` takes tokens, no X.509-SVIDs",
                    provider.name
                )));
            }
        }
        let source = match (&self.args.token_file, &self.args.token_command) {
            (Some(file), _) => job::Source::File(file.clone()),
            (None, None) if provider.kind == ProviderKind::Spiffe && workload_api::is_there() => {
                job::Source::Agent(self.args.spiffe_id.clone())
            }
            (None, None) => job::Source::Own(provider.kind),
            (None, Some(command)) => job::Source::Program(command.0.clone()),
        };
        // What a file holds was made before the key, and so was what will be proved.
        let audience = match provider.takes_proofs() {
            true => provider.audience.clone(),
            false => format!("{}:{commitment}", provider.audience),
        };
        job::token(http, &source, &audience).await
    }
}

/// A browser that does not open is no failure: the address is on the screen.
fn open_browser(address: &str) {
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let started = std::process::Command::new(opener)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        tracing::debug!("no browser: {error}");
    }
}

pub(crate) fn logout(cli: &Cli, args: &cli::Logout) -> Done {
    let server = cli.server()?;
    let logins = known()?;
    let mine = |login: &&Known| {
        login.log_key == server.log_key
            && login.until > now()
            && args.login.is_none_or(|wanted| wanted == login.login)
    };
    let ending: Vec<Known> = logins.iter().filter(mine).cloned().collect();
    if ending.is_empty() {
        // Somebody else's, or of another machine: whoever may signs with a key of their own.
        let Some(login) = args.login else {
            return Err(Failure::usage(
                "no login of this machine counts at this server",
            ));
        };
        let client = cli.client(false)?;
        client.submit(&client.hello()?, Say::Logout(Logout { login }), Vec::new())?;
        say(&format!("login {login} has ended"));
        return Ok(());
    }
    for login in &ending {
        let signer = match &cli.key {
            Some(key) => Signer::from_file(key)?,
            None => login.signer()?,
        };
        let client = Client::new(server.clone(), Some(signer))?;
        let statement = Say::Logout(Logout { login: login.login });
        client.submit(&client.hello()?, statement, Vec::new())?;
        login.forget()?;
        say(&format!("login {} has ended", login.login));
    }
    let left = logins
        .into_iter()
        .filter(|login| !ending.iter().any(|ended| ended.login == login.login));
    remember(left.collect())
}
