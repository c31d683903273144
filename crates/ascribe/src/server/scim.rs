//! SCIM 2.0 (RFC 7643, RFC 7644) for directories of people. What the bearer of a directory's token says
//! becomes an entry before it is answered; what follows from it is law. Plain HTTP: on loopback, or behind
//! the operator's proxy.

mod patch;
mod show;
mod store;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ascribe_core::directory::{Directory, ResourceKind, bearer_digest};
use ascribe_core::id::{ContentDigest, ResourceId};
use ascribe_core::law::Denied;
use ascribe_gateway::Places;
use ascribe_ledger::Ledger;
use ascribe_wire::scim::Filter;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::random;
use crate::exit::{Done, Failure};
use crate::login::decoded;
use crate::server::refusals::{Of, Refusals};
use patch::Body;
use store::{Kept, Shelf, Store};

pub(super) const BASE: &str = "/scim/v2";
/// Largest request, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Head and body of a request must each have come within this time; an idle connection ends after it.
const HEAR_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections, in all, of one address, and most that wait for that.
const MAX_CONNECTIONS: usize = 256;
const PER_ADDRESS: usize = 64;
const WAITING_PER_ADDRESS: usize = 128;
/// A connection waits so long for its turn, and lasts so long.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Most resources of one answer.
const MAX_RESULTS: usize = 200;
/// How often rules are looked at, which may ask about groups anew.
const LOOK: Duration = Duration::from_secs(1);

/// What is answered to a request that cannot be done (RFC 7644, 3.12).
#[derive(Debug, Clone)]
pub(super) struct Fault {
    status: u16,
    kind: &'static str,
    detail: String,
    /// What the law says no with, where it does.
    law: Option<&'static str>,
}

impl Fault {
    fn new(status: u16, kind: &'static str, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self {
            status,
            kind,
            detail,
            law: None,
        }
    }
    /// The law says no.
    fn unlawful(status: u16, kind: &'static str, denied: &Denied) -> Self {
        Self {
            law: Some(denied.code),
            ..Self::new(status, kind, &denied.message)
        }
    }
    /// What is counted of it; none where it was no refusal but a failure of ours.
    fn code(&self) -> Option<&'static str> {
        let by_status = match self.status {
            401 => "token",
            404 => "not-found",
            405 => "method",
            408 => "timeout",
            413 => "size",
            507 => return self.law.or(Some("full")),
            _ => return self.law.or(Some(self.kind).filter(|kind| !kind.is_empty())),
        };
        Some(by_status)
    }
    fn syntax(detail: &str) -> Self {
        Self::new(400, "invalidSyntax", detail)
    }
    fn value(detail: &str) -> Self {
        Self::new(400, "invalidValue", detail)
    }
    fn mutability(detail: &str) -> Self {
        Self::new(400, "mutability", detail)
    }
    fn path() -> Self {
        Self::new(400, "invalidPath", "the `path` is not understood")
    }
    fn absent() -> Self {
        Self::new(404, "", "there is no such resource")
    }
    fn method() -> Self {
        Self::new(405, "", "this cannot be done with that")
    }
    fn internal() -> Self {
        Self::new(500, "", "the server failed")
    }
}

/// What is answered.
struct Answer {
    status: u16,
    location: Option<String>,
    body: Option<Value>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self {
            status: 200,
            location: None,
            body: Some(body),
        }
    }
}

impl Answer {
    /// The same with its locations as URIs of a service that is reached there (RFC 7644, 3.1).
    fn at(mut self, base: &str) -> Self {
        let locate = |resource: &mut Value| {
            if let Some(Value::String(path)) = resource.pointer_mut("/meta/location") {
                path.insert_str(0, base);
            }
        };
        if let Some(body) = &mut self.body {
            locate(body);
            let listed = body.get_mut("Resources").and_then(Value::as_array_mut);
            listed.into_iter().flatten().for_each(locate);
        }
        if let Some(path) = &mut self.location {
            path.insert_str(0, base);
        }
        self
    }
}

/// Serves directories.
pub(crate) struct Scim {
    ledger: Arc<Ledger>,
    store: Store,
    refusals: Refusals,
    /// What is being answered. It is done to its end when its client leaves meanwhile: what was recorded
    /// must be what is kept.
    tasks: TaskTracker,
}

impl Scim {
    /// Reads back what directories keep.
    pub(crate) fn new(ledger: Arc<Ledger>) -> Done<Self> {
        let store = Store::open(Arc::clone(&ledger))?;
        Ok(Self {
            refusals: Refusals::new(Of::Directories, Arc::clone(&ledger)),
            ledger,
            store,
            tasks: TaskTracker::new(),
        })
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let places = Places::new(PER_ADDRESS, WAITING_PER_ADDRESS);
        let tracker = TaskTracker::new();
        tracker.spawn(Arc::clone(&self).keep(stop.clone()));
        let (scim, until) = (Arc::clone(&self), stop.clone());
        tracker.spawn(async move { scim.refusals.run(until).await });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((tcp, from)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Some(turn) = places.take(from.ip()) else {
                tracing::debug!("{from} has too many SCIM connections");
                continue;
            };
            let (scim, slots, stop) = (Arc::clone(&self), Arc::clone(&slots), stop.clone());
            tracker.spawn(async move {
                let turn = tokio::time::timeout(TURN_TIMEOUT, async {
                    let place = turn.place().await?;
                    Some((place, slots.acquire_owned().await.ok()?))
                });
                let Ok(Some(_turn)) = turn.await else { return };
                scim.connection(tcp, stop).await;
            });
        }
        tracker.close();
        tracker.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.refusals.finish().await;
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, stop: CancellationToken) {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let scim = Arc::clone(&self);
            async move { Ok::<_, Infallible>(respond(scim.request(request).await)) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAR_TIMEOUT)
            .max_buf_size(64 * 1024);
        let connection = server.serve_connection(TokioIo::new(tcp), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop.cancelled() => {
                // What is being recorded is answered.
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(super::LAST, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
            () = tokio::time::sleep(LONGEST) => return,
        };
        if let Err(error) = ended {
            tracing::debug!("a SCIM connection ended: {error}");
        }
    }

    /// Says groups anew whenever rules have changed, and forgets what withdrawn directories kept.
    async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut heard = None;
        loop {
            let now: Vec<_> = self.ledger.with_state(|state| {
                let all = state.directories.values();
                all.map(|known| (known.directory.clone(), known.place))
                    .collect()
            });
            if heard.as_ref() != Some(&now) {
                let mut done = Ok(());
                for (directory, _) in &now {
                    if directory.withdrawn {
                        self.store.forget(&directory.name);
                        continue;
                    }
                    let shelf = self.store.shelf(&directory.name);
                    let mut shelf = shelf.lock().await;
                    done = done.and(self.store.say_groups(&mut shelf, directory).await);
                }
                match done {
                    Ok(()) => heard = Some(now),
                    Err(fault) => tracing::warn!("groups are not said anew: {}", fault.detail),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn request(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Fault> {
        let scim = Arc::clone(&self);
        let answered = self.tasks.spawn(async move { scim.answer(request).await });
        answered.await.unwrap_or_else(|_| Err(Fault::internal()))
    }

    /// Whose token is it? Nothing of an answer depends on anything else before that is known.
    fn directory(&self, token: &ContentDigest) -> Result<Directory, Fault> {
        self.ledger
            .with_state(|state| Some(state.directory_by_token(token)?.directory.clone()))
            .ok_or_else(unknown)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        let base = base_of(&request);
        let answer = self.answer_relative(request).await?;
        Ok(answer.at(base.as_deref().unwrap_or_default()))
    }

    /// The same with locations as paths.
    async fn answer_relative(&self, request: Request<Incoming>) -> Result<Answer, Fault> {
        let token = token_of(&request);
        let known = token.and_then(|token| Ok((token, self.directory(&token)?.name)));
        let (answered, name) = match known {
            Ok((token, name)) => (self.answer_to(token, &name, request).await, Some(name)),
            Err(fault) => (Err(fault), None),
        };
        if let Some(code) = answered.as_ref().err().and_then(Fault::code) {
            self.refusals.count(name.as_deref(), code);
        }
        answered
    }

    /// The same, to whoever has this directory's token.
    async fn answer_to(
        &self,
        token: ContentDigest,
        name: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Fault> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = decoded(request.uri().query().unwrap_or_default());
        let rest = path
            .strip_prefix(BASE)
            .and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.ok_or_else(Fault::absent)?;
        let (place, id) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), None),
            Some((place, id)) => (place, Some(id)),
        };
        let kind = match (place, id) {
            ("Users", _) => ResourceKind::User,
            ("Groups", _) => ResourceKind::Group,
            ("ServiceProviderConfig", None) => return read(&method, show::config(MAX_RESULTS)),
            ("ResourceTypes", None) => return read(&method, show::types()),
            ("Schemas", None) => return read(&method, show::schemas()),
            _ => return Err(Fault::absent()),
        };
        let sent = match method {
            Method::POST | Method::PUT | Method::PATCH => hear(request).await?,
            _ => Body::new(),
        };
        let shelf = self.store.shelf(name);
        let shelf = &mut *shelf.lock().await;
        // While this waited, the token may have been taken away, and rules may have changed.
        let directory = &self.directory(&token)?;
        if directory.name != name {
            return Err(unknown());
        }
        let without = without(&query);
        match (method, id) {
            (Method::GET, None) => found(shelf, kind, &query, &without),
            (Method::GET, Some(id)) => {
                let (id, kept) = shelf.find(kind, id)?;
                Ok(Answer::ok(show::resource(shelf, id, kept, &without)))
            }
            (Method::POST, None) => {
                let kept = shelf.checked(kind, None, patch::received(&sent, None)?)?;
                let id = ResourceId::new(random().map_err(|_| Fault::internal())?);
                let mut answer =
                    changed((&self.store, shelf), directory, id, kept, &without).await?;
                answer.status = 201;
                answer.location = Some(show::location(kind, id));
                Ok(answer)
            }
            (Method::PUT, Some(text)) => {
                let (id, _) = shelf.find(kind, text)?;
                let kept = shelf.checked(kind, Some(id), patch::received(&sent, Some(text))?)?;
                changed((&self.store, shelf), directory, id, kept, &without).await
            }
            (Method::PATCH, Some(text)) => {
                let (id, kept) = shelf.find(kind, text)?;
                let body = patch::patched(&kept.body, &sent, text)?;
                let kept = shelf.checked(kind, Some(id), body)?;
                changed((&self.store, shelf), directory, id, kept, &without).await
            }
            (Method::DELETE, Some(id)) => {
                let (id, _) = shelf.find(kind, id)?;
                self.store.delete(shelf, directory, id).await?;
                self.store.say_groups(shelf, directory).await?;
                Ok(Answer {
                    status: 204,
                    location: None,
                    body: None,
                })
            }
            _ => Err(Fault::method()),
        }
    }
}

/// The answer as it is sent.
fn respond(answer: Result<Answer, Fault>) -> Response<Full<Bytes>> {
    let answer = answer.unwrap_or_else(|fault| {
        tracing::info!(
            "a SCIM request is refused: {} {}",
            fault.status,
            fault.detail
        );
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": fault.status.to_string(),
            "detail": fault.detail,
        });
        if let (Some(body), false) = (body.as_object_mut(), fault.kind.is_empty()) {
            body.insert("scimType".to_owned(), json!(fault.kind));
        }
        Answer {
            status: fault.status,
            location: None,
            body: Some(body),
        }
    });
    let body = answer
        .body
        .map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let mut response = Response::new(Full::new(body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/scim+json"),
    );
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    if answer.status == 401 {
        headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    if answer.status == 413 || answer.status == 408 {
        // The rest of the request is not read.
        headers.insert("connection", HeaderValue::from_static("close"));
    }
    let location = answer
        .location
        .and_then(|location| HeaderValue::from_str(&location).ok());
    if let Some(location) = location {
        headers.insert(HeaderName::from_static("location"), location);
    }
    response
}

/// Where the client reaches this service: the host that it named, and how its proxy says that it came. Whoever asks
/// is told where they asked, and nothing else follows from it.
fn base_of(request: &Request<Incoming>) -> Option<String> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let host: hyper::http::uri::Authority = header("host")?.parse().ok()?;
    let scheme = match header("x-forwarded-proto") {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        Some(_) | None => "http",
    };
    (!host.as_str().contains('@')).then(|| format!("{scheme}://{host}"))
}

fn unknown() -> Fault {
    let detail = "a directory's token is needed: `Authorization: Bearer TOKEN`";
    Fault::new(401, "", detail)
}

/// The digest of the token that a request shows, once.
fn token_of(request: &Request<Incoming>) -> Result<ContentDigest, Fault> {
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(unknown());
    };
    let token = header.as_bytes().split_at_checked(7);
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    Ok(bearer_digest(token.ok_or_else(unknown)?.1))
}

fn read(method: &Method, answer: Value) -> Result<Answer, Fault> {
    if method == Method::GET {
        Ok(Answer::ok(answer))
    } else {
        Err(Fault::method())
    }
}

/// Reads a request's body, an object.
async fn hear(request: Request<Incoming>) -> Result<Body, Fault> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = tokio::time::timeout(HEAR_TIMEOUT, body).await;
    let body = body.map_err(|_| Fault::new(408, "", "the request took too long"))?;
    let body =
        body.map_err(
            |error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => Fault::new(413, "", "a request is at most 256 KiB"),
                None => Fault::syntax("the request broke off"),
            },
        )?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| Fault::syntax("the request is no JSON object"))
}

async fn changed(
    (store, shelf): (&Store, &mut Shelf),
    directory: &Directory,
    id: ResourceId,
    kept: Kept,
    without: &[String],
) -> Result<Answer, Fault> {
    let is_group = kept.kind == ResourceKind::Group;
    store.put(shelf, directory, id, kept).await?;
    if is_group {
        store.say_groups(shelf, directory).await?;
    }
    let kept = shelf.0.get(&id).ok_or_else(Fault::internal)?;
    Ok(Answer::ok(show::resource(shelf, id, kept, without)))
}

fn one<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = query
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn without(query: &[(String, String)]) -> Vec<String> {
    let names = one(query, "excludedAttributes")
        .unwrap_or_default()
        .split(',');
    names.map(|name| name.trim().to_owned()).collect()
}

/// A list: all of a kind, or those that a filter finds.
fn found(
    shelf: &Shelf,
    kind: ResourceKind,
    query: &[(String, String)],
    without: &[String],
) -> Result<Answer, Fault> {
    let number = |name: &str, default: usize| match one(query, name) {
        None => Ok(default),
        // Less than the least counts as the least (RFC 7644, 3.4.2.4).
        Some(text) => text
            .parse::<i64>()
            .map(|n| usize::try_from(n).unwrap_or(0))
            .map_err(|_| Fault::value("`startIndex` and `count` are numbers")),
    };
    let start = number("startIndex", 1)?.max(1);
    let count = number("count", MAX_RESULTS)?.min(MAX_RESULTS);
    let filter = one(query, "filter").map(|text| {
        Filter::parse(text).map_err(|error| Fault::new(400, "invalidFilter", &error.to_string()))
    });
    let filter = filter.transpose()?;
    let mut fits: Vec<(&ResourceId, &Kept)> = Vec::new();
    for (id, kept) in shelf.0.iter().filter(|(_, kept)| kept.kind == kind) {
        if filter
            .as_ref()
            .map_or(Ok(true), |filter| matches(filter, *id, kept))?
        {
            fits.push((id, kept));
        }
    }
    let page = fits.iter().skip(start - 1).take(count);
    let page = page
        .map(|(id, kept)| show::resource(shelf, **id, kept, without))
        .collect();
    Ok(Answer::ok(show::list(fits.len(), start, page)))
}

fn matches(filter: &Filter, id: ResourceId, kept: &Kept) -> Result<bool, Fault> {
    let name = filter.attribute.to_ascii_lowercase();
    Ok(match (name.as_str(), kept.kind) {
        ("id", _) => id.to_string() == filter.value,
        ("externalid", _) => kept.text("externalId") == Some(&filter.value),
        ("username", ResourceKind::User) | ("displayname", _) => {
            let known = kept.text(&name).map(str::to_lowercase);
            known == Some(filter.value.to_lowercase())
        }
        _ => {
            let detail = "only `id`, `externalId`, `userName` and `displayName` are looked for";
            return Err(Fault::new(400, "invalidFilter", detail));
        }
    })
}

/// Listens, where directories are to be served.
pub(crate) async fn open(ledger: &Arc<Ledger>) -> Done<Arc<Scim>> {
    let ledger = Arc::clone(ledger);
    let scim = tokio::task::spawn_blocking(move || Scim::new(ledger)).await;
    let scim =
        scim.map_err(|error| Failure::new(crate::exit::Kind::Failure, error.to_string()))??;
    Ok(Arc::new(scim))
}
