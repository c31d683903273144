//! `ascribe witness run`: a C2SP tlog-witness over HTTP/1.1, bounded in size, time and number. TLS is a
//! proxy's in front of it: what a witness says is signed, and what it is told is public to it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use ascribe_tlog::{MAX_ADD_CHECKPOINT, SigningKey, TrustPolicy};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::store::{Answer, Store};
use crate::exit::Done;

/// Most connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// A connection is over by then, whatever it is doing.
const CONNECTION: Duration = Duration::from_secs(15);
/// The head of a request must have come by then.
const HEAD: Duration = Duration::from_secs(5);

/// A witness, not listening yet.
#[derive(Debug, Clone)]
pub(crate) struct Witness(Arc<Store>);

impl Witness {
    pub(crate) fn open(state: &Path, key: SigningKey, logs: &[TrustPolicy]) -> Done<Self> {
        Ok(Self(Arc::new(Store::open(state, key, logs)?)))
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                Some((slot, listener.accept().await))
            };
            let (slot, accepted) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => match next {
                    Some(next) => next,
                    None => return,
                },
            };
            let Ok((tcp, from)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let witness = self.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let service = service_fn(|request| witness.answer(from, request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .max_buf_size(64 * 1024)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(tcp), service);
                match tokio::time::timeout(CONNECTION, connection).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("{from}: {error}"),
                    Err(_) => tracing::debug!("{from} took too long"),
                }
            });
        }
    }

    async fn answer(
        &self,
        from: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let answer = match (request.method(), path.as_str()) {
            (&Method::POST, "/add-checkpoint") => self.add(request.into_body()).await,
            (&Method::GET, path) => {
                let name = path.strip_prefix('/');
                let name = name.and_then(|rest| rest.strip_suffix("/checkpoint"));
                match name.and_then(|name| self.0.monitored(name)) {
                    Some(note) => Answer::text(200, note),
                    None => Answer::text(404, "there is no such checkpoint\n"),
                }
            }
            _ => Answer::text(404, "there is no such thing here\n"),
        };
        if !matches!(answer.status, 200 | 409) {
            tracing::warn!("{from}: {} {}", answer.status, answer.body.trim_end());
        }
        let mut response = Response::new(Full::from(answer.body));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = hyper::header::HeaderValue::from_static(answer.content_type);
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, content_type);
        Ok(response)
    }

    async fn add(&self, body: Incoming) -> Answer {
        let body = match Limited::new(body, MAX_ADD_CHECKPOINT).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Answer::text(400, "the request is too large or breaks off\n"),
        };
        let store = Arc::clone(&self.0);
        // It waits for the disk.
        let added = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            store.add(&body, now.map_or(1, |now| now.as_secs()))
        });
        added
            .await
            .unwrap_or_else(|_| Answer::text(500, "the witness failed\n"))
    }
}
