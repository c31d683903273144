//! Who it is at the gateway's own port: what a client is asked for, and whose that is.

use std::sync::Arc;
use std::time::Duration;

use ascribe_core::encoding::from_base64url;
use ascribe_core::entry::Door;
use ascribe_core::id::StatementId;
use ascribe_core::record::{Proposal, RecordError, Scope, SignedOpening};
use ascribe_core::statement::{Say, Signed};
use ascribe_wire::pg::frame::{Frame, Frames, Piece, Side};
use ascribe_wire::pg::oauth::{self, Shown};
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::startup::{Startup, UserName};
use ascribe_wire::pg::{Malformed, Secret, client, encode};
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use super::door::{Client, Entered, PIECE, fatal, guest, user};
use super::session::{Entrant, unrecorded};
use super::{OauthPlace, Shared, ShownCertificate};

/// The code of a login that the ledger does not take in.
pub const NO_LEDGER: &str = "ledger";
/// Whoever is at the door is told within this time that the ledger does not answer: they have to log in within twice as much.
pub const LEDGER_AT_THE_DOOR: Duration = Duration::from_secs(5);

/// What a signed statement that is a password begins with, so that it is recognised where it leaks.
pub const PASSWORD_PREFIX: &str = "ascribe-v1.";
/// SQLSTATE of a password that is not good, and of anything else that is not.
const WRONG_PASSWORD: &str = "28P01";
const NOT_LET_IN: &str = "28000";

/// What TLS told of a client.
pub(super) struct Within {
    /// Did it name the protocol? Then it may know more than passwords.
    pub(super) named: bool,
    /// The certificate that it showed.
    pub(super) certificate: Option<ShownCertificate>,
}

/// Asks who it is, if its certificate does not say so, and lets in who is somebody.
pub(super) async fn log_in(
    shared: &Arc<Shared>,
    mut client: Client,
    startup: Startup,
    within: Within,
) -> std::io::Result<Entered> {
    client.negotiate(&startup).await?;
    let user = match user(&startup) {
        Ok(user) => user,
        Err(report) => return client.turn_away(&report).await,
    };
    let mut talk = Talk {
        client,
        frames: Frames::new(Side::Client),
    };
    // Clients of before 2024 name none, and can do no OAUTHBEARER (libpq since 17 and 18).
    let place = shared.config.oauth.iter().filter(|_| within.named);
    let place = OauthPlace::of(place, &user);
    let found = match (by_certificate(shared, &user, &within).await, place) {
        (Some(found), _) => found.into(),
        (None, Some(place)) => by_oauth(shared, &mut talk, &user, place).await?,
        (None, None) => by_password(shared, &mut talk, &user).await?,
    };
    let Talk { mut client, frames } = talk;
    match found {
        Found::Somebody(entrant) => {
            client.read = BytesMut::from(&frames.into_rest()[..]);
            guest(client, startup, user, *entrant).await
        }
        Found::Nobody(report) => client.turn_away(&report).await,
        Found::Gone => Ok(Entered::Nobody),
    }
}

/// What became of the asking.
enum Found {
    Somebody(Box<Entrant>),
    /// And why.
    Nobody(Box<Report>),
    /// The client left.
    Gone,
}

impl From<Result<Entrant, Box<Report>>> for Found {
    fn from(found: Result<Entrant, Box<Report>>) -> Self {
        match found {
            Ok(entrant) => Self::Somebody(Box::new(entrant)),
            Err(report) => Self::Nobody(report),
        }
    }
}

/// The conversation with a client about who it is.
struct Talk {
    client: Client,
    frames: Frames,
}

impl Talk {
    /// What it answers, read as that, and wiped where it came; none when it leaves or says something else.
    async fn answer<T>(
        &mut self,
        read: impl FnOnce(&Frame) -> Result<T, Malformed>,
    ) -> std::io::Result<Option<Result<T, Malformed>>> {
        loop {
            match self.frames.next().map_err(std::io::Error::other)? {
                Some(Piece::Whole(frame)) => {
                    let answer = read(&frame);
                    frame.wipe();
                    return Ok(Some(answer));
                }
                Some(_) => return Ok(None),
                None if self.client.read.is_empty() => {
                    self.client.read.reserve(PIECE);
                    if self.client.stream.read_buf(&mut self.client.read).await? == 0 {
                        return Ok(None);
                    }
                }
                None => {}
            }
            // All of it: what is shared with the rest of a buffer cannot be wiped.
            let read = std::mem::take(&mut self.client.read);
            self.frames.push(read.freeze());
        }
    }
}

/// Whose certificate it is; none where that is for something else, as those are that clients send unasked.
async fn by_certificate(
    shared: &Shared,
    user: &UserName,
    within: &Within,
) -> Option<Result<Entrant, Box<Report>>> {
    let shown = within.certificate.as_ref()?;
    let found = shared.config.bearers.log_in_with_certificate(shown)?.await;
    Some(match found {
        Ok(bearer) => Ok(Entrant::shown(bearer, user, Door::Mtls)),
        Err(denied) if denied.code == NO_LEDGER => Err(Box::new(unrecorded(&denied.message))),
        Err(denied) => {
            let another = "who shows no certificate is asked for a password: `sslcertmode=disable`";
            let hint = denied.help.unwrap_or_else(|| another.to_owned());
            Err(Box::new(fatal(NOT_LET_IN, denied.message, &hint)))
        }
    })
}

/// A message that is not understood ends the login.
fn malformed(error: Malformed) -> Found {
    Found::Nobody(Box::new(fatal("08P01", error.to_string(), "")))
}

/// Asks for the signed statement, or a workload's token, as the password.
async fn by_password(
    shared: &Arc<Shared>,
    talk: &mut Talk,
    user: &UserName,
) -> std::io::Result<Found> {
    talk.client.say(&encode::cleartext_password()).await?;
    let secret = match talk.answer(client::password).await? {
        Some(secret) => secret.map_err(std::io::Error::other)?,
        None => return Ok(Found::Gone),
    };
    let found = entrant(shared, user, &secret, WRONG_PASSWORD).await;
    Ok(found.into())
}

/// Asks for the same by SASL.
async fn by_oauth(
    shared: &Arc<Shared>,
    talk: &mut Talk,
    user: &UserName,
    place: &OauthPlace,
) -> std::io::Result<Found> {
    talk.client.say(&encode::sasl(&[oauth::MECHANISM])).await?;
    // Nothing of the message may be held when it is wiped.
    let read = |frame: &Frame| {
        client::sasl_initial(frame).map(|(name, data)| (name == oauth::MECHANISM, data))
    };
    let data = match talk.answer(read).await? {
        Some(Ok((true, data))) => data,
        Some(Ok((false, _))) => {
            let why = "the client uses another mechanism of SASL than `OAUTHBEARER`";
            return Ok(Found::Nobody(Box::new(fatal("08P01", why, ""))));
        }
        Some(Err(error)) => return Ok(malformed(error)),
        None => return Ok(Found::Gone),
    };
    let data = match data {
        Some(data) => data,
        // It waits for a challenge, which is empty, and says then what it could have said at once.
        None => {
            talk.client.say(&encode::sasl_continue(b"")).await?;
            match talk.answer(client::sasl_response).await? {
                Some(Ok(data)) => data,
                Some(Err(error)) => return Ok(malformed(error)),
                None => return Ok(Found::Gone),
            }
        }
    };
    let report = match oauth::initial(data.expose()) {
        Ok(Shown::Token(token)) => match entrant(shared, user, &token, NOT_LET_IN).await {
            Ok(entrant) => return Ok(Ok(entrant).into()),
            Err(report) => report,
        },
        Ok(Shown::Nothing) => {
            let hint = "the client gets one where it was told, and connects again";
            Box::new(fatal(NOT_LET_IN, "no token was shown", hint))
        }
        Err(error) => return Ok(malformed(error)),
    };
    drop(data);
    let configuration = configuration(shared, place);
    let told = oauth::failure(configuration.as_deref(), place.scope.as_deref());
    talk.client.say(&encode::sasl_continue(&told)).await?;
    // The mechanism ends with an answer of the client's, and only then may it be told why.
    let last = match talk.answer(client::sasl_response).await? {
        Some(last) => last.and_then(|last| oauth::after_failure(last.expose())),
        None => return Ok(Found::Gone),
    };
    Ok(match last {
        Ok(()) => Found::Nobody(report),
        Err(error) => malformed(error),
    })
}

/// Where the provider's document is (OpenID Connect Discovery 1.0, 4); a trust domain has none.
fn configuration(shared: &Shared, place: &OauthPlace) -> Option<String> {
    let Some(issuer) = shared.config.bearers.issuer(&place.provider) else {
        tracing::warn!(
            "clients of `{}` are asked for a token of provider `{}`, which is not registered",
            place.target,
            place.provider
        );
        return None;
    };
    let is_url = issuer.starts_with("https://") || issuer.starts_with("http://");
    let base = issuer.trim_end_matches('/');
    is_url.then(|| format!("{base}/.well-known/openid-configuration"))
}

/// Whose it is: a statement that was signed for this, or a workload's token.
async fn entrant(
    shared: &Arc<Shared>,
    user: &UserName,
    secret: &Secret,
    code: &'static str,
) -> Result<Entrant, Box<Report>> {
    let why = match read_password(secret.expose()) {
        Some(signed) => match submit(shared, signed).await {
            Ok((opening, signed)) => return Ok(Entrant::signed(opening, signed, Door::Password)),
            Err(Unsubmitted::Refused(why)) => why,
            Err(away @ Unsubmitted::Away(_)) => return Err(Box::new(away.report(code))),
        },
        None if is_token(secret.expose()) => match shared.config.bearers.log_in(secret).await {
            Ok(bearer) => return Ok(Entrant::shown(bearer, user, Door::Bearer)),
            Err(denied) if denied.code == NO_LEDGER => {
                return Err(Box::new(unrecorded(&denied.message)));
            }
            Err(denied) => {
                let hint = denied.help.unwrap_or_default();
                return Err(Box::new(fatal(code, denied.message, &hint)));
            }
        },
        None => match code {
            WRONG_PASSWORD => "the password is no signed statement, and no workload's token",
            _ => "what was shown is no workload's token, and no signed statement",
        }
        .to_owned(),
    };
    let hint = format!(
        "make one: ascribe token {}@{}   (it is for one connection, within five minutes)",
        user.role, user.target
    );
    Err(Box::new(fatal(code, why, &hint)))
}

/// Is it meant to be a token? Its header begins as JSON does.
fn is_token(secret: &[u8]) -> bool {
    secret.starts_with(b"eyJ")
}

/// The signed statement that a password is.
fn read_password(secret: &[u8]) -> Option<Signed> {
    let text = std::str::from_utf8(secret).ok()?;
    let json = from_base64url(text.trim().strip_prefix(PASSWORD_PREFIX)?)?;
    serde_json::from_slice(&json).ok()
}

/// Why a signed statement opens nothing.
pub(super) enum Unsubmitted {
    /// It is not good.
    Refused(String),
    /// The ledger does not take it in.
    Away(String),
}

impl Unsubmitted {
    /// What the client is told; `code` is for one that is not good.
    pub(super) fn report(self, code: &'static str) -> Report {
        match self {
            Self::Refused(why) => fatal(code, why, ""),
            Self::Away(why) => unrecorded(&why),
        }
    }
}

/// Puts the statement on record; or why it opens nothing. It opens something for who brings it first: once it is
/// on record, whoever reads the log could bring a copy.
pub(super) async fn submit(
    shared: &Arc<Shared>,
    signed: Signed,
) -> Result<(StatementId, SignedOpening), Unsubmitted> {
    let refused = |why: &str| Unsubmitted::Refused(why.to_owned());
    let statement = signed
        .statement()
        .map_err(|error| refused(&format!("the signed statement is {error}")))?;
    if !matches!(statement.say, Say::Connect(_)) {
        return Err(refused("the signed statement opens no session"));
    }
    let id = statement.id;
    let recorder = &shared.common.recorder;
    let again = "the signed statement was used before, or is too old";
    if recorder.signed_opening(id).is_some() {
        return Err(refused(again));
    }
    let proposal = Proposal::of_statement(id, signed.clone(), Vec::new(), Scope::None);
    match tokio::time::timeout(LEDGER_AT_THE_DOOR, recorder.record(proposal)).await {
        Ok(Ok(_)) => {}
        Ok(Err(RecordError::Denied(denied))) => {
            shared.config.bearers.refused(&signed, denied.code).await;
            return Err(Unsubmitted::Refused(denied.message));
        }
        Ok(Err(error)) => return Err(Unsubmitted::Away(error.to_string())),
        Err(_) => return Err(Unsubmitted::Away("it did not answer in time".to_owned())),
    }
    let opening = recorder.signed_opening(id);
    let opening = opening.ok_or_else(|| refused(again))?;
    Ok((id, opening))
}
