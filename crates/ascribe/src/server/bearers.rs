//! Workloads' tokens that are shown as a database's password, and their certificates in TLS there: whose they are, and the
//! login of one connection.

use std::sync::Arc;

use ascribe_core::encoding::Bytes;
use ascribe_core::id::{PersonId, Root, StatementId};
use ascribe_core::identity::{Claims, Login, Logout, ProviderKind, token_digest};
use ascribe_core::law::{Denied, Judge, ProviderState, State, TokenAsked};
use ascribe_core::record::{BoxFuture, Proposal, RecordError, Recorder as _, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::{Say, Seen, Signed, SshKey, Statement};
use ascribe_core::text::clean;
use ascribe_evidence::{Unchecked, tls_proof};
use ascribe_gateway::{
    Bearer, Bearers, LEDGER_AT_THE_DOOR, NO_LEDGER, ShownCertificate, TlsSignature,
};
use ascribe_ledger::Ledger;
use ascribe_wire::pg::Secret;
use tokio::sync::oneshot;

use super::providers::Keeper;
use super::refusals::{Came, OfSigned, Refusals};
use crate::client::random;
use crate::exit::{Attempt as _, Failure};
use crate::signer::{Signer, fresh_key, ssh_key_of};

/// Takes tokens, and makes a key for each connection.
pub(crate) struct Tokens {
    ledger: Arc<Ledger>,
    keeper: Arc<Keeper>,
    judge: Arc<dyn Judge>,
    /// Which logins were refused, and what else that people signed.
    refused: Arc<Refusals>,
    refused_signed: Arc<OfSigned>,
}

/// The law gives a session key no longer life, in milliseconds.
const LONGEST_MS: i64 = 12 * 3_600_000;
/// Refusals of what may be good by newer keys.
const UNKNOWN_KEY: [&str; 3] = ["token-key", "provider-keys", "svid-root"];

/// What was shown.
struct Shown<'a> {
    /// The token, or what takes its place.
    bytes: &'a [u8],
    said: Unchecked,
    what: What,
}

/// What kind of thing was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Token,
    Certificate,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

/// Whom a token means, before it is checked: the provider to check it by, and the workloads.
struct Meant {
    provider: ProviderState,
    /// Each one's id, and the claims that its rule names.
    workloads: Vec<(PersonId, String)>,
    facts: Vec<String>,
}

/// A login that is good by all that we know.
struct Ready {
    workload: PersonId,
    /// The fingerprint of its key.
    key: String,
    login: Proposal,
    logout: Proposal,
}

impl Bearers for Tokens {
    fn log_in<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, Result<Bearer, Denied>> {
        Box::pin(async move {
            let bytes = token.expose().trim_ascii_end();
            let said = Unchecked::read(bytes).map_err(|denied| self.counted(None, denied))?;
            let what = What::Token;
            self.take(Shown { bytes, said, what }).await
        })
    }

    fn wants_certificates(&self) -> bool {
        self.ledger.with_state(|state| {
            let mut all = state.providers.values().map(|known| &known.provider);
            all.any(|provider| provider.kind == ProviderKind::SpiffeX509 && !provider.withdrawn)
        })
    }

    fn names_a_workload(&self, certificate: &[u8]) -> bool {
        Unchecked::of_certificate(certificate).is_some()
    }

    fn log_in_with_certificate<'a>(
        &'a self,
        shown: &'a ShownCertificate,
    ) -> Option<BoxFuture<'a, Result<Bearer, Denied>>> {
        let said = Unchecked::of_certificate(shown.chain.first()?)?;
        Some(Box::pin(async move {
            let what = What::Certificate;
            match proof_of(shown) {
                Ok(bytes) => {
                    let bytes = &bytes[..];
                    self.take(Shown { bytes, said, what }).await
                }
                Err(denied) => {
                    let provider = self.provider_of(&said, what);
                    Err(self.counted(provider.as_deref(), denied))
                }
            }
        }))
    }

    fn refused<'a>(&'a self, signed: &'a Signed, code: &'static str) -> BoxFuture<'a, ()> {
        Box::pin(self.refused_signed.record(signed, code))
    }

    fn issuer(&self, provider: &str) -> Option<String> {
        self.ledger.with_state(|state| {
            let known = &state.providers.get(provider)?.provider;
            (!known.withdrawn).then(|| known.issuer.clone())
        })
    }
}

impl Tokens {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        keeper: Arc<Keeper>,
        judge: Arc<dyn Judge>,
        refused: (Arc<Refusals>, Arc<OfSigned>),
    ) -> Self {
        let (refused, refused_signed) = refused;
        Self {
            ledger,
            keeper,
            judge,
            refused,
            refused_signed,
        }
    }

    /// Who is refused is counted, by the provider that what they showed names.
    fn counted(&self, provider: Option<&str>, denied: Denied) -> Denied {
        self.refused.count(provider, denied.code);
        denied
    }

    fn provider_of(&self, said: &Unchecked, what: What) -> Option<String> {
        let meant = self.ledger.with_state(|state| meant(state, said, what));
        Some(meant.ok()?.provider.provider.name)
    }

    async fn take(&self, shown: Shown<'_>) -> Result<Bearer, Denied> {
        let provider = self.provider_of(&shown.said, shown.what);
        let came = self.refused.came(provider);
        let ready = match self.ready(&shown).await {
            Ok(ready) => ready,
            Err(denied) => {
                came.refused(denied.code);
                return Err(denied);
            }
        };
        let (workload, key) = (ready.workload, ready.key.clone());
        match self.on_record(ready, came).await {
            Ok(logout) => Ok(Bearer {
                workload,
                key,
                logout,
            }),
            Err(RecordError::Denied(denied)) => Err(denied),
            Err(error) => Err(Denied::new(NO_LEDGER, error.to_string())),
        }
    }

    /// Checks what was shown, and makes the login and what ends it.
    async fn ready(&self, shown: &Shown<'_>) -> Result<Ready, Denied> {
        let key = fresh_key().map_err(internal)?;
        let public = ssh_key_of(key.public_key()).map_err(internal)?;
        let rz: [u8; 32] = random().map_err(internal)?;
        let meant = self.meant(shown)?;
        let (provider, claims) = match self.check(&meant, shown.bytes, (&public, &rz)) {
            // The provider may publish newer keys than we know.
            Err(denied) if UNKNOWN_KEY.contains(&denied.code) => {
                self.keeper.again(&meant.provider.provider).await;
                let meant = self.meant(shown)?;
                let claims = self.check(&meant, shown.bytes, (&public, &rz))?;
                (meant, claims)
            }
            checked => {
                let claims = checked?;
                (meant, claims)
            }
        };
        // Said only to whoever has shown a good one.
        let workload = the_one(&provider, shown.what)?;
        let now = self.ledger.now();
        if claims.expires <= now {
            let message = format!("the {} has expired", shown.what.as_str());
            let help = "show one that the workload was given just now";
            return Err(Denied::new("token-time", message).with_help(help));
        }
        let sealed = Opening::new("token", random().map_err(internal)?, shown.bytes.to_vec());
        let login = Login {
            bearer: true,
            until: claims.expires.min(now.plus_millis(LONGEST_MS)),
            claims,
            digest: token_digest(shown.bytes),
            provider: provider.provider.provider.name.clone(),
            rz: Bytes(rz.to_vec()),
            saw: None,
            token: sealed.commitment(),
        };
        self.keeper.before(&login).await;
        let signer = Signer::File(Box::new(key));
        let (id, signed) = self.sign(&signer, workload, Say::Login(Box::new(login)))?;
        let end = Say::Logout(Logout { login: id });
        let (end_id, end) = self.sign(&signer, workload, end)?;
        // Nobody signs with it any more.
        drop(signer);
        let proposal = Proposal::of_statement(id, signed, vec![sealed], Scope::Login(id));
        Ok(Ready {
            workload,
            key: public.fingerprint(),
            login: proposal,
            logout: Proposal::of_statement(end_id, end, Vec::new(), Scope::None),
        })
    }

    /// Records a login and gives what ends it. Where whoever waits for that is gone before, it ends at once: nobody else
    /// could sign for it.
    async fn on_record(&self, ready: Ready, came: Came) -> Result<Proposal, RecordError> {
        let Ready { login, logout, .. } = ready;
        let ledger = Arc::clone(&self.ledger);
        let (answer, waits) = oneshot::channel();
        self.refused.go_on(async move {
            let recorded = ledger.record(login).await.map(|_| logout);
            came.decided(&recorded);
            if let Err(Ok(logout)) = answer.send(recorded)
                && let Err(error) = ledger.record(logout).await
            {
                tracing::warn!("a login of a connection that is gone goes on: {error}");
            }
        });
        let away = |why: &str| Err(RecordError::Unavailable(why.to_owned()));
        match tokio::time::timeout(LEDGER_AT_THE_DOOR, waits).await {
            Ok(answer) => answer.unwrap_or_else(|_| away("the server stops")),
            Err(_) => away("it did not answer in time"),
        }
    }

    fn meant(&self, shown: &Shown<'_>) -> Result<Meant, Denied> {
        let (said, what) = (&shown.said, shown.what);
        self.ledger.with_state(|state| meant(state, said, what))
    }

    /// Is the token good, by the keys that are on record?
    fn check(
        &self,
        meant: &Meant,
        token: &[u8],
        (key, rz): (&SshKey, &[u8]),
    ) -> Result<Claims, Denied> {
        let ProviderState { provider, keys, .. } = &meant.provider;
        let keys = keys.as_ref().ok_or_else(|| {
            Denied::new("provider-keys", "the provider's keys are not on record yet")
                .with_help("see the server's log for why it cannot fetch them")
        })?;
        let facts: Vec<&str> = meant.facts.iter().map(String::as_str).collect();
        let asked = TokenAsked {
            key,
            rz,
            facts: &facts,
            groups: &[],
            managers: &[],
        };
        self.judge.token(provider, &keys.body.0, token, &asked)
    }

    fn sign(
        &self,
        signer: &Signer,
        by: PersonId,
        say: Say,
    ) -> Result<(StatementId, Signed), Denied> {
        let id = StatementId::new(random().map_err(internal)?);
        let note = self.ledger.checkpoint_note();
        let seen = ascribe_tlog::Checkpoint::open(note.as_bytes(), &[self.ledger.log_key()])
            .attempt("read our own checkpoint")
            .map_err(internal)?;
        let statement = Statement {
            v: 1,
            log: seen.origin,
            by,
            at: self.ledger.now(),
            id,
            seen: Seen {
                size: seen.size,
                root: Root(seen.root),
            },
            say,
        };
        Ok((id, signer.sign(&statement).map_err(internal)?))
    }
}

/// What the key of a certificate signed in TLS.
fn proof_of(shown: &ShownCertificate) -> Result<Vec<u8>, Denied> {
    let signed = shown.signed.as_ref().ok_or_else(|| {
        Denied::new(
            "svid-tls",
            "a client's certificate counts with TLS 1.3 alone",
        )
        .with_help("let the client speak TLS 1.3, or show no certificate (`sslcertmode=disable`)")
    })?;
    let TlsSignature {
        scheme,
        message,
        signature,
    } = signed;
    tls_proof(&shown.chain, *scheme, message, signature)
}

/// The provider that the token calls its own, and the workloads whose rules it meets.
fn meant(state: &State, said: &Unchecked, what: What) -> Result<Meant, Denied> {
    let all = state.providers.values().filter(|known| {
        let provider = &known.provider;
        let of_certificates = provider.kind == ProviderKind::SpiffeX509;
        let kind = !provider.kind.is_of_people() && of_certificates == (what == What::Certificate);
        kind && !provider.withdrawn && said.is_issued_by(provider)
    });
    let all: Vec<&ProviderState> = all.collect();
    // A certificate is meant for nobody in particular.
    let ours = all
        .iter()
        .filter(|known| what == What::Certificate || said.is_meant_for(&known.provider));
    let mut found = Vec::new();
    for known in ours.clone() {
        let meant = state.workloads_meant(&known.provider.name, |names| said.facts(names));
        found.extend(meant.into_iter().map(|id| (*known, id)));
    }
    let provider = match (found.first(), ours.clone().next().or(all.first())) {
        (Some((provider, _)), _) => *provider,
        (None, Some(provider)) => *provider,
        (None, None) => {
            return Err(Denied::new(
                "token-iss",
                format!(
                    "no provider of workloads that is registered here issued this {}",
                    what.as_str()
                ),
            )
            .with_help("an admin registers it: `ascribe provider add`"));
        }
    };
    let named = |id: &PersonId| state.workloads.get(id).map(|state| &state.workload);
    let first = found.first().and_then(|(_, id)| named(id));
    let facts = first.into_iter().flat_map(|workload| &workload.conditions);
    Ok(Meant {
        provider: provider.clone(),
        facts: facts.map(|condition| condition.claim.clone()).collect(),
        workloads: found
            .iter()
            .filter_map(|(_, id)| Some((*id, named(id)?.name.clone())))
            .collect(),
    })
}

/// The workload, if the token means exactly one.
fn the_one(meant: &Meant, what: What) -> Result<PersonId, Denied> {
    let what = what.as_str();
    match meant.workloads.as_slice() {
        [(one, _)] => Ok(*one),
        [] => Err(Denied::new(
            "conditions",
            format!("the {what} is good, but it meets the conditions of no workload"),
        )
        .with_help("`ascribe workload list` shows all; an admin adds one: `ascribe workload add`")),
        several => {
            let names = several.iter().map(|(_, name)| clean(name, 63));
            let names: Vec<String> = names.collect();
            Err(Denied::new(
                "conditions",
                format!(
                    "the {what} could be that of several workloads: {}",
                    names.join(", ")
                ),
            )
            .with_help(
                "log in as one of them: `ascribe login --workload NAME`, then `ascribe psql`",
            ))
        }
    }
}

fn internal(failure: Failure) -> Denied {
    Denied::new("internal", failure.to_string())
}
