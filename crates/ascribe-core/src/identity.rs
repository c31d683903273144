//! Who somebody is elsewhere: providers of identities, what their tokens say, and whom ascribe takes
//! the bearer for. A token's signature is checked by [`crate::law::Judge::token`]; what it establishes
//! is law.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::directory::RefusedCount;
use crate::encoding::{self, Bytes};
use crate::id::{Commitment, ContentDigest, PersonId, StatementId};
use crate::sealed::Prose;
use crate::statement::SshKey;
use crate::text::clean;
use crate::time::Timestamp;

/// How old a provider's keys may be where it says nothing else: a day.
const KEYS_AGE_SECONDS: u64 = 86_400;

/// What the audience of a token begins with that may be turned into a proof. OpenPubkey's word: without it
/// whoever is shown somebody's token for another purpose could make it introduce a key of their own.
pub const PROOF_AUDIENCE: &str = "OPENPUBKEY-PKTOKEN:";

/// How a provider's tokens name what they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderKind {
    /// Buildkite's jobs.
    Buildkite,
    /// CircleCI's jobs.
    Circleci,
    /// People of Microsoft Entra: `tid` and `oid` name them.
    Entra,
    /// GitHub Actions' jobs.
    Github,
    /// GitLab CI's jobs.
    Gitlab,
    /// Kubernetes' bound service account tokens.
    Kubernetes,
    /// People of any OpenID Connect provider: `sub` names them.
    Oidc,
    /// SPIFFE JWT-SVIDs.
    Spiffe,
    /// SPIFFE X.509-SVIDs: the issuer is the trust domain, `spiffe://DOMAIN`, and its keys are its bundle.
    #[serde(rename = "spiffe-x509")]
    SpiffeX509,
    /// Any other issuer of tokens for workloads: `sub` names them.
    Workload,
}

impl ProviderKind {
    /// Do its tokens name people?
    pub fn is_of_people(self) -> bool {
        matches!(self, Self::Oidc | Self::Entra)
    }
}

/// Registers or replaces a provider of identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Signature algorithms that count (RFC 7518, RFC 8037): `RS256`, `PS256`, `ES256`, `ES384`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// Whom its tokens must be meant for: a client id. Tokens that can be asked for with any audience
    /// (`github`, `buildkite`, `circleci`, `kubernetes`, `spiffe`, `workload`) have this, a colon and
    /// the commitment to the bearer's key. With [`PROOF_AUDIENCE`] before it, it is all of the audience,
    /// and proofs count instead of tokens.
    pub audience: String,
    /// How people must have proved themselves to it before a login of theirs counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authn: Option<AuthnRule>,
    /// The exact issuer.
    pub issuer: String,
    /// Where its keys are published.
    pub jwks_uri: String,
    /// How its tokens are read.
    pub kind: ProviderKind,
    /// How old its keys on record may be when somebody logs in, if not a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys_age_seconds: Option<u64>,
    /// Name, as records show it.
    pub name: String,
    /// Who must have seen a key of it published before a login counts under that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observers: Option<Observers>,
    /// It counts no longer; its name and what it signed stay.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub withdrawn: bool,
}

impl Provider {
    /// How old its keys on record may be when somebody logs in, in milliseconds.
    pub fn max_keys_age_ms(&self) -> i64 {
        let seconds = self.max_keys_age_seconds.unwrap_or(KEYS_AGE_SECONDS);
        i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000)
    }

    /// Do proofs of its tokens count (`GQ256`), and the tokens themselves not? GitLab's never do: they bind
    /// no key, so whoever is shown one could bind their own.
    pub fn takes_proofs(&self) -> bool {
        let of_jobs = !self.kind.is_of_people() && self.kind != ProviderKind::SpiffeX509;
        let asked_for = of_jobs && self.audience.starts_with(PROOF_AUDIENCE);
        asked_for || self.kind == ProviderKind::Gitlab
    }
}

/// How people must have proved themselves to a provider. What is absent is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthnRule {
    /// One of these must be the token's `acr`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acr: Vec<String>,
    /// All of these must be in its `amr`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// At most so long before the token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
}

/// How somebody proved themself to a provider, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authn {
    /// In which class of ways (`acr`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// By what means (`amr`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// When (`auth_time`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Authn {
    /// For a terminal.
    pub fn in_words(&self) -> String {
        let means: Vec<String> = self.amr.iter().map(|means| clean(means, 64)).collect();
        let words = [
            self.acr
                .as_ref()
                .map(|acr| format!("acr {}", clean(acr, 200))),
            (!means.is_empty()).then(|| format!("by {}", means.join(", "))),
            self.at.map(|at| format!("at {at}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        words.join("; ")
    }
}

/// Whose word on a provider's published keys is asked for besides the server's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observers {
    /// How many of them must have seen a key before a login counts under it.
    pub needed: u32,
    /// Enrolled people, and machines that are enrolled like people.
    pub people: Vec<PersonId>,
}

/// Says that an enrolled person is who a provider's token names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityLink {
    /// Whose.
    pub person: PersonId,
    /// The provider's name.
    pub provider: String,
    /// [`subject`] of the token's issuer and subject.
    pub subject: ContentDigest,
}

/// Registers or replaces a workload: which tokens are its own, and who answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Every one of them must hold.
    pub conditions: Vec<Condition>,
    /// Why a rule that many could meet is meant as it is, in writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Prose>,
    /// Name, as records show it.
    pub name: String,
    /// The living person who answers for it.
    pub owner: PersonId,
    /// The provider's name.
    pub provider: String,
    /// It acts no longer.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub withdrawn: bool,
    /// Its id.
    pub workload: PersonId,
}

/// A claim and the exact values that it may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The claim's name; within an object with a slash between: `kubernetes.io/namespace`.
    pub claim: String,
    /// One of these.
    pub one_of: Vec<String>,
}

/// What makes a token the bearer's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// Nothing: whoever holds it.
    None,
    /// Its audience commits to the key.
    Audience,
    /// The key that it certifies signed a commitment to the key.
    Key,
    /// Its `nonce` commits to the key.
    Nonce,
    /// Whoever held it proved that, and the proof commits to the key.
    Proof,
    /// The key that it certifies signed the handshake of a TLS connection, and no key.
    Tls,
}

impl Binding {
    /// Did what the provider signed say which key, or whose certificate makes it so? If not, whoever held
    /// the token chose the key.
    pub fn is_the_providers(self) -> bool {
        matches!(self, Self::Audience | Self::Key | Self::Nonce)
    }
}

/// The run of a pipeline, a job or a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Which attempt, where the provider counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The run.
    pub id: String,
    /// The job within it, or the pod's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// `github`, `gitlab`, ...
    pub provider: String,
}

/// The code that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Code {
    /// The commit; none where the provider does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Branch or tag.
    #[serde(skip_serializing_if = "Option::is_none", rename = "ref")]
    pub reference: Option<String>,
    /// The repository's id at the provider, which outlives its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The workflow's file, with its ref.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The commit that the workflow's file is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_commit: Option<String>,
}

/// What started it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trigger {
    /// `push`, `schedule`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The id at the provider of whoever started it; none where the provider names nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// How what ran was protected, in the provider's own words: a text, `true` or `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protection {
    /// What the environment is for: `production`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_tier: Option<String>,
    /// The environment that the job deploys to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Is that environment protected?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_protected: Option<String>,
    /// Is the branch or tag protected?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_protected: Option<String>,
    /// Whose machine ran it: the provider's, or somebody's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_environment: Option<String>,
}

impl Protection {
    /// Each that is there, by its claim's name.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let parts = [
            ("deployment_tier", &self.deployment_tier),
            ("environment", &self.environment),
            ("environment_protected", &self.environment_protected),
            ("ref_protected", &self.ref_protected),
            ("runner_environment", &self.runner_environment),
        ];
        parts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)))
    }
}

/// What a token says, as far as ascribe makes use of it. Members in canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// How the person proved themself to the provider (`acr`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// By what means (`amr`, RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
    /// When they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Timestamp>,
    /// What makes it the bearer's own.
    pub binding: Binding,
    /// The code that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// First instant at which the token no longer counts.
    pub expires: Timestamp,
    /// The claims that the workload's conditions name, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// Those of the person's groups that rules of directories name, with the claim that lists them; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Fact>,
    /// When it was issued.
    pub issued: Timestamp,
    /// RFC 7638 thumbprint (SHA-256) of the provider's key that signed it.
    pub key: ContentDigest,
    /// Whom claims that rules of directories name call the person's manager, sorted by claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managers: Vec<StatedManager>,
    /// What the provider does not say, and why it matters: shown with the actor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// How what ran was protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// [`subject`] of issuer and subject.
    pub subject: ContentDigest,
    /// What started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
}

/// Whom a claim calls the person's manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedManager {
    /// The claim's name, as the rule writes it.
    pub claim: String,
    /// [`subject`] of issuer and manager.
    pub subject: ContentDigest,
}

impl Claims {
    /// How the person proved themself to the provider; none where the token says nothing of it.
    pub fn authn(&self) -> Option<Authn> {
        let says = self.acr.is_some() || !self.amr.is_empty() || self.auth_time.is_some();
        says.then(|| Authn {
            acr: self.acr.clone(),
            amr: self.amr.clone(),
            at: self.auth_time,
        })
    }
}

/// A claim's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The claim's name, as conditions write it.
    pub claim: String,
    /// A text as it is; a number in digits; `true` or `false`.
    pub value: String,
}

/// The bearer of a token takes a session key: signed with that very key, which is the proof that they
/// hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The token was a database's password, or signed in TLS there: the gateway made the key for one connection, and
    /// the bearer signed nothing of ours.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub bearer: bool,
    /// What the token says.
    pub claims: Claims,
    /// [`token_digest`] of the token: a log takes each token once, or as a password as long as it counts.
    pub digest: ContentDigest,
    /// The provider's name.
    pub provider: String,
    /// 32 random bytes; with the key they make the commitment that the token carries.
    pub rz: Bytes,
    /// Thumbprint of the provider's key as the bearer saw it published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saw: Option<ContentDigest>,
    /// Commitment to the token, sealed until it has expired.
    pub token: Commitment,
    /// First instant at which the key no longer counts: at most twelve hours away.
    pub until: Timestamp,
}

/// Ends a session key before its time, and every session that it opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    /// The login.
    pub login: StatementId,
}

/// Logins that were refused, counted: testimony of the server. Of what was shown nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRefusal {
    /// When the first of them was refused.
    pub from: Timestamp,
    /// The provider that they named; none where no such provider is registered, or none could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// How many, by reason; sorted.
    pub refused: Vec<RefusedCount>,
    /// When the last of them was.
    pub until: Timestamp,
}

/// A provider's published keys, as the server fetched them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderKeys {
    /// The exact bytes of the JWK Set (RFC 7517, 5).
    pub body: Bytes,
    /// When they were fetched.
    pub fetched: Timestamp,
    /// Headers of the answer that say how long it counts: `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The provider's name.
    pub provider: String,
    /// Where they were fetched.
    pub uri: String,
}

/// What one of a provider's observers saw published, having fetched it themself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysSeen {
    /// SHA-256 of the exact bytes of the JWK Set.
    pub digest: ContentDigest,
    /// When they were fetched, by the observer's clock.
    pub fetched: Timestamp,
    /// The provider's issuer.
    pub issuer: String,
    /// RFC 7638 thumbprints of the keys in them that can sign tokens, sorted.
    pub keys: Vec<ContentDigest>,
    /// The provider's name.
    pub provider: String,
    /// Where they were fetched.
    pub uri: String,
}

/// What names a JWK Set in [`KeysSeen`]: SHA-256 of its exact bytes.
pub fn keys_digest(body: &[u8]) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash(Sha256::digest(body).into()))
}

/// What names somebody at a provider: SHA-256 over `ascribe/subject/v1`, issuer and subject, each after
/// a zero byte. The subject is the token's `sub`; at Entra `tid`, a slash and `oid`.
pub fn subject(issuer: &str, sub: &str) -> ContentDigest {
    let mut hash = Sha256::new();
    for part in ["ascribe/subject/v1", "\0", issuer, "\0", sub] {
        hash.update(part.as_bytes());
    }
    ContentDigest(ascribe_tlog::Hash(hash.finalize().into()))
}

/// The commitment to a session key that its token carries: base64url of SHA-256 over
/// `ascribe/key/v1`, the key as OpenSSH writes it and the random bytes, each after a zero byte.
pub fn key_commitment(key: &SshKey, rz: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [&b"ascribe/key/v1"[..], b"\0", key.0.as_bytes(), b"\0", rz] {
        hash.update(part);
    }
    encoding::base64url(&hash.finalize())
}

/// What takes the place of a token at a provider of the kind `spiffe-x509`, in canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SvidProof {
    /// How `sig` is made, by its name in JWS (RFC 7518, 3.1; RFC 8037).
    pub alg: String,
    /// The workload's certificate, then each one's issuer but the root, in DER.
    pub chain: Vec<Bytes>,
    /// The workload's signature of [`svid_message`], in the form of JWS.
    pub sig: Bytes,
}

/// What a workload signs with the key of its certificate: `ascribe/svid-login/v1`, a zero byte and the
/// commitment to the session key ([`key_commitment`]).
pub fn svid_message(commitment: &str) -> Vec<u8> {
    format!("ascribe/svid-login/v1\0{commitment}").into_bytes()
}

/// What takes the place of a token where a workload showed its X.509-SVID as the client of a TLS 1.3 connection, in
/// canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsProof {
    /// How `sig` is made, by its name in JWS (RFC 7518, 3.1; RFC 8037).
    pub alg: String,
    /// The workload's certificate, then each one's issuer but the root, in DER.
    pub chain: Vec<Bytes>,
    /// The workload's signature of [`tls_message`], in the form of JWS.
    pub sig: Bytes,
    /// The hash of the handshake before the signature: SHA-256 or SHA-384.
    pub transcript: Bytes,
}

impl TlsProof {
    /// Reads one; none for anything else, or in another spelling.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        // In canonical JSON the last member is the one that nothing else has: whatever ends otherwise is not read.
        let end = bytes.strip_suffix(b"\"}")?;
        let begins = end.iter().rposition(|byte| *byte == b'"')?;
        end.get(..=begins)?
            .ends_with(b",\"transcript\":\"")
            .then_some(())?;
        encoding::decode(bytes).ok()
    }
}

/// What a client signs with the key of its certificate in TLS 1.3 (RFC 8446, 4.4.3): 64 spaces, a context that no
/// other signature has, a zero byte and the hash of the handshake.
pub fn tls_message(transcript: &[u8]) -> Vec<u8> {
    [
        &[b' '; 64][..],
        b"TLS 1.3, client CertificateVerify\0",
        transcript,
    ]
    .concat()
}

/// The header of a proof that stands in for a token: whoever made it knew the provider's signature and does
/// not show it (OpenPubkey's `GQ256`). In canonical JSON, so a proof has one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofHeader {
    /// [`Self::ALG`].
    pub alg: String,
    /// The commitment to the session key ([`key_commitment`]).
    pub cic: String,
    /// RFC 7638 thumbprint of the provider's key.
    pub jkt: ContentDigest,
    /// The token's own header, as the provider wrote and signed it: base64url.
    pub kid: String,
    /// `JWT`.
    pub typ: String,
}

impl ProofHeader {
    /// The algorithm's name in headers.
    pub const ALG: &str = "GQ256";

    /// The header of a proof for this token's header, by this key.
    pub fn new(commitment: String, key: ContentDigest, signed: &str) -> Self {
        Self {
            alg: Self::ALG.to_owned(),
            cic: commitment,
            jkt: key,
            kid: signed.to_owned(),
            typ: "JWT".to_owned(),
        }
    }

    /// What every one begins with, written as base64url: `{"alg":"GQ256",`.
    const BEGINS: &str = "eyJhbGciOiJHUTI1NiIs";

    /// Reads one; none for the header of anything else, or in another spelling.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: Self = encoding::decode(bytes).ok()?;
        (header.alg == Self::ALG && header.typ == "JWT").then_some(header)
    }
}

/// Header and claims of the token behind a proof, as the provider signed them.
fn behind_proof(signed: &[u8]) -> Option<String> {
    if !signed.starts_with(ProofHeader::BEGINS.as_bytes()) {
        return None;
    }
    let (header, claims) = std::str::from_utf8(signed).ok()?.split_once('.')?;
    let header = ProofHeader::read(&encoding::from_base64url(header)?)?;
    Some(format!("{}.{claims}", header.kid))
}

/// What names a provider's key: SHA-256 over its required members in canonical JSON (RFC 7638, 3).
pub fn thumbprint(members: &str) -> ContentDigest {
    ContentDigest(ascribe_tlog::Hash(Sha256::digest(members).into()))
}

/// What a token is counted by: SHA-256 of it up to its last dot. The signature is left out, because
/// whoever has an ECDSA signature can write a second one for the same message. Of a proof it is what the
/// provider signed that counts: from one token anybody who holds it makes as many proofs as they like. Of what was signed
/// in TLS it is the handshake.
pub fn token_digest(token: &[u8]) -> ContentDigest {
    if let Some(TlsProof { transcript, .. }) = TlsProof::read(token) {
        let mut hash = Sha256::new_with_prefix(b"ascribe/tls-login/v1\0");
        hash.update(&transcript.0);
        return ContentDigest(ascribe_tlog::Hash(hash.finalize().into()));
    }
    let end = token.iter().rposition(|byte| *byte == b'.');
    let signed = end.and_then(|end| token.get(..end)).unwrap_or(token);
    let digest = match behind_proof(signed) {
        Some(proved) => Sha256::digest(proved),
        None => Sha256::digest(signed),
    };
    ContentDigest(ascribe_tlog::Hash(digest.into()))
}

/// What tells that a token was a password, as its digest tells that it introduced a key.
pub(crate) fn as_password(token: &ContentDigest) -> ContentDigest {
    let mut hash = Sha256::new_with_prefix(b"ascribe/password/v1\0");
    hash.update(token.0.0);
    ContentDigest(ascribe_tlog::Hash(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_in_tls_is_told_by_its_ending_and_read_as_a_whole() {
        let (alg, chain, sig) = (
            "ES256".to_owned(),
            vec![Bytes(vec![1; 300])],
            Bytes(vec![2; 64]),
        );
        let transcript = Bytes(vec![3; 32]);
        let proof = TlsProof {
            alg: alg.clone(),
            chain: chain.clone(),
            sig: sig.clone(),
            transcript,
        };
        let good = encoding::encode(&proof).unwrap();
        assert_eq!(TlsProof::read(&good), Some(proof.clone()));
        let empty = TlsProof {
            transcript: Bytes(vec![]),
            ..proof
        };
        let empty = encoding::encode(&empty).unwrap();
        assert!(TlsProof::read(&empty).is_some());
        let other = encoding::encode(&SvidProof { alg, chain, sig }).unwrap();
        let mut cases = vec![other, b"a.b.c".to_vec(), vec![], b"\"}".to_vec()];
        for whole in [&good, &empty] {
            cases.extend((0..whole.len()).map(|end| whole[..end].to_vec()));
            cases.extend((0..whole.len()).map(|at| {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                changed
            }));
        }
        for case in cases {
            let known = encoding::decode::<TlsProof>(&case).ok();
            assert_eq!(TlsProof::read(&case), known, "{}", case.escape_ascii());
        }
    }

    #[test]
    fn the_header_of_every_proof_begins_alike() {
        assert_eq!(
            ProofHeader::BEGINS,
            encoding::base64url(b"{\"alg\":\"GQ256\",")
        );
        let header = ProofHeader::new("commitment".to_owned(), thumbprint("key"), "signed");
        let text = encoding::base64url(&encoding::encode(&header).unwrap());
        assert!(text.starts_with(ProofHeader::BEGINS));
        // It is the token behind it that counts, whatever the proof.
        let (one, other) = (format!("{text}.claims.one"), format!("{text}.claims.other"));
        assert_eq!(
            token_digest(one.as_bytes()),
            token_digest(b"signed.claims.signature")
        );
        assert_eq!(token_digest(other.as_bytes()), token_digest(one.as_bytes()));
    }
}
