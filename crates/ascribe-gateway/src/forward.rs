//! Forwarding: connections that the grant allows by kind and destination. Each is an action of its
//! own, recorded before a byte of it passes; its bytes are counted and digested, not stored. The
//! peers are not trusted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{Outcome, Status, StreamTotal};
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::{ActionId, ContentDigest};
use ascribe_core::record::GrantView;
use ascribe_core::statement::Forward;
use ascribe_wire::inner::InnerSsh;
use ascribe_wire::request::Request;
use russh::server::{ChannelOpenHandle, Handle};
use russh::{Channel, ChannelId, ChannelMsg, ChannelWriteHalf};
use sha2::{Digest as _, Sha256};

use crate::connection::{Connection, Session};
use crate::incoming::{Incoming, Messages};
use crate::life::Shut;
use crate::upstream::{Opened, Upstream, Way, open};

/// What was noticed when SSH is spoken within a forwarded connection.
const INNER_SSH: &str = "ssh-inside";

/// Where a connection through the target goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To a host and port, as the client writes them.
    Tcp(String, u32),
    /// To a socket on the target.
    Socket(String),
}

impl Destination {
    fn shown(&self) -> String {
        match self {
            Self::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Socket(path) => path.clone(),
        }
    }
}

/// What a grant makes of a wish: the kind of action, its text, and what the target is asked for.
struct Allowed {
    kind: &'static str,
    text: String,
    way: Way,
}

fn allowed(view: &GrantView, to: &Destination) -> Option<Allowed> {
    let found = view
        .forwards
        .iter()
        .find_map(|forward| match (forward, to) {
            (Forward::Local(granted), Destination::Tcp(host, port))
                if granted.host.eq_ignore_ascii_case(host) && u32::from(granted.port) == *port =>
            {
                // The name was pinned when the grant was asked for: the target resolves nothing.
                let pinned = granted.address.as_ref();
                let note = pinned.map_or(String::new(), |address| format!(" at {address}"));
                let address = pinned.unwrap_or(&granted.host).clone();
                Some(("ssh.forward.local", note, Way::Tcp(address, *port)))
            }
            (Forward::Socket(granted), Destination::Socket(path)) if granted.path == *path => {
                Some((
                    "ssh.forward.socket",
                    String::new(),
                    Way::Socket(path.clone()),
                ))
            }
            _ => None,
        });
    let dynamic = view
        .forwards
        .iter()
        .any(|f| matches!(f, Forward::Dynamic(_)));
    let anywhere = match to {
        Destination::Tcp(host, port) if dynamic && fits(host, *port) => {
            let way = Way::Tcp(host.clone(), *port);
            Some(("ssh.forward.dynamic", String::new(), way))
        }
        Destination::Tcp(..) | Destination::Socket(_) => None,
    };
    let (kind, note, way) = found.or(anywhere)?;
    let text = format!("{}{note}", to.shown());
    Some(Allowed { kind, text, way })
}

fn fits(host: &str, port: u32) -> bool {
    let unsafe_in = |c: char| c.is_whitespace() || ascribe_core::text::is_unsafe(c);
    (1..=0xffff).contains(&port) && (1..=253).contains(&host.len()) && !host.chars().any(unsafe_in)
}

/// May programs on the target use something of the client's?
pub(crate) fn lends(view: &GrantView, wanted: Lent) -> bool {
    view.forwards.iter().any(|forward| match wanted {
        Lent::Agent => matches!(forward, Forward::Agent(_)),
        Lent::X11 => matches!(forward, Forward::X11(_)),
    })
}

/// What a client lends to programs on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lent {
    /// Its ssh-agent.
    Agent,
    /// Its X11 display.
    X11,
}

/// Something that the target connects back to the client.
#[derive(Debug)]
pub(crate) enum Back {
    /// To a port that it listens at for the client.
    Port {
        /// As the client knows it.
        address: String,
        /// The same.
        port: u32,
        /// Who connected there.
        from: (String, u32),
    },
    /// The same with a socket.
    Socket(String),
    /// To the client's agent.
    Agent,
    /// To the client's display.
    X11(String, u32),
}

/// A connection back, as the target's side hands it over.
pub(crate) struct Returning {
    pub(crate) back: Back,
    pub(crate) channel: Channel<russh::client::Msg>,
    pub(crate) reply: russh::client::ChannelOpenHandle,
}

impl Back {
    fn action(&self) -> (&'static str, String) {
        match self {
            Self::Port { port, from, .. } => {
                let from = ascribe_core::text::clean(&from.0, 64);
                ("ssh.forward.remote", format!("port {port} from {from}"))
            }
            Self::Socket(path) => ("ssh.forward.remote-socket", path.clone()),
            Self::Agent => ("ssh.forward.agent", "ssh-agent".to_owned()),
            Self::X11(..) => ("ssh.forward.x11", "X11 display".to_owned()),
        }
    }

    fn is_allowed(&self, connection: &Connection, view: &GrantView) -> bool {
        match self {
            Self::Port { address, port, .. } => {
                connection.listens(&Listening::Port(address.clone(), *port))
            }
            Self::Socket(path) => connection.listens(&Listening::Socket(path.clone())),
            Self::Agent => lends(view, Lent::Agent),
            Self::X11(..) => lends(view, Lent::X11),
        }
    }

    /// The one function that connects back to the client.
    async fn open(
        &self,
        recorded: Recorded,
        client: &Handle,
    ) -> Result<Channel<russh::server::Msg>, russh::Error> {
        let Action { .. } = recorded.into_action();
        match self {
            Self::Port {
                address,
                port,
                from,
            } => {
                client
                    .channel_open_forwarded_tcpip(address.as_str(), *port, from.0.as_str(), from.1)
                    .await
            }
            Self::Socket(path) => {
                client
                    .channel_open_forwarded_streamlocal(path.as_str())
                    .await
            }
            Self::Agent => client.channel_open_agent().await,
            Self::X11(from, port) => client.channel_open_x11(from.as_str(), *port).await,
        }
    }
}

/// What the target listens at for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listening {
    /// A port: the address as the client wrote it, and the number.
    Port(String, u32),
    /// A socket.
    Socket(String),
}

impl Listening {
    fn shown(&self) -> String {
        match self {
            Self::Port(address, port) => format!("{address}:{port}"),
            Self::Socket(path) => path.clone(),
        }
    }

    fn way(&self) -> Way {
        match self {
            Self::Port(address, port) => Way::ListenPort(address.clone(), *port),
            Self::Socket(path) => Way::ListenSocket(path.clone()),
        }
    }

    /// The kind of action, where the grant allows it.
    fn allowed(&self, view: &GrantView) -> Option<&'static str> {
        // Only the target's own loopback: others on its network are no part of the grant.
        let inside = |address: &str| ["localhost", "127.0.0.1", "::1"].contains(&address);
        view.forwards
            .iter()
            .find_map(|forward| match (forward, self) {
                (Forward::Remote(granted), Self::Port(address, port)) => (inside(address)
                    && u32::from(granted.port) == *port)
                    .then_some("ssh.forward.listen"),
                (Forward::RemoteSocket(granted), Self::Socket(path)) => {
                    (granted.path == *path).then_some("ssh.forward.listen-socket")
                }
                _ => None,
            })
    }
}

/// One direction's sum.
struct Tally {
    stream: &'static str,
    hash: Sha256,
    bytes: u64,
    inner: InnerSsh,
}

impl Tally {
    fn new(stream: &'static str) -> Self {
        Self {
            stream,
            hash: Sha256::new(),
            bytes: 0,
            inner: InnerSsh::default(),
        }
    }
    fn total(self) -> Option<StreamTotal> {
        (self.bytes > 0).then(|| StreamTotal {
            stream: self.stream.to_owned(),
            bytes: self.bytes,
            in_files: 0,
            stored: 0,
            sha256: ContentDigest(ascribe_tlog::Hash(self.hash.finalize().into())),
        })
    }
}

/// Why a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its bytes are all there; the other direction may go on.
    Eof,
    /// The channel closed.
    Closed,
    /// The connection that carried it is gone.
    Broken,
    /// SSH within, which the target's rule refuses.
    InnerSsh,
}

async fn pump<S>(
    tunnel: &Tunnel,
    from: &mut impl Messages,
    to: &ChannelWriteHalf<S>,
    tally: &mut Tally,
    // The login that a reader of this direction holds up, where it is one that serves others.
    holds_up: Option<&Upstream>,
) -> Ended
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let refuse_inner_ssh = tunnel.session.view.target.refuse_inner_ssh;
    loop {
        match from.wait().await {
            Some(ChannelMsg::Data { data }) => {
                tunnel.connection.moved();
                tally.inner.look(&data);
                if refuse_inner_ssh && tally.inner.is_seen() {
                    return Ended::InnerSsh;
                }
                tally.hash.update(&data);
                tally.bytes += data.len() as u64;
                let taking = to.data_bytes(data);
                let taken = match holds_up {
                    Some(login) => login.taken(taking).await,
                    None => taking.await,
                };
                if taken.is_err() {
                    return Ended::Broken;
                }
            }
            Some(ChannelMsg::Eof) => {
                return if to.eof().await.is_ok() {
                    Ended::Eof
                } else {
                    Ended::Broken
                };
            }
            Some(ChannelMsg::Close) => return Ended::Closed,
            None => return Ended::Broken,
            Some(_) => {}
        }
    }
}

/// A connection whose intent is recorded.
struct Tunnel {
    connection: Arc<Connection>,
    session: Arc<Session>,
    action: ActionId,
}

impl Tunnel {
    async fn report(&self, status: Status, notes: Vec<String>, streams: Vec<StreamTotal>) {
        let outcome = Outcome {
            action: self.action,
            exit_code: None,
            notes,
            signal: None,
            status,
            streams,
            sql: None,
        };
        self.connection.report(self.session.id, outcome).await;
    }

    async fn not_sent(&self, why: &str) {
        tracing::debug!("a forwarded connection was not made: {why}");
        self.report(Status::NotSent, Vec::new(), Vec::new()).await;
    }

    /// Carries bytes until both directions, or the session, have ended; then reports. `asked` is the login
    /// that was asked for the connection; none where the target began it.
    async fn carry(
        self,
        client: Channel<russh::server::Msg>,
        target: Channel<russh::client::Msg>,
        asked: Option<&Upstream>,
    ) {
        let (client_read, client_write) = client.split();
        let mut client_read = Incoming::new(client_read, &self.connection.held);
        let (mut target_read, target_write) = target.split();
        let (mut sent, mut received) = (Tally::new("sent"), Tally::new("received"));
        let ended = {
            let up = pump(&self, &mut client_read, &target_write, &mut sent, None);
            let down = pump(&self, &mut target_read, &client_write, &mut received, asked);
            let over = self.connection.over.cancelled();
            tokio::pin!(up, down, over);
            let (mut up_ended, mut down_ended) = (None, None);
            loop {
                tokio::select! {
                    ended = &mut up, if up_ended.is_none() => up_ended = Some(ended),
                    ended = &mut down, if down_ended.is_none() => down_ended = Some(ended),
                    () = &mut over => break Ended::Broken,
                }
                match (up_ended, down_ended) {
                    (Some(Ended::Eof), Some(Ended::Eof)) => break Ended::Eof,
                    (Some(Ended::Eof) | None, Some(Ended::Eof) | None) => {}
                    // One side is gone: so is the connection.
                    (Some(Ended::Eof) | None, Some(ended)) | (Some(ended), _) => break ended,
                }
            }
        };
        let closed = async { tokio::join!(target_write.close(), client_write.close()) };
        if tokio::time::timeout(OPEN, closed).await.is_err() {
            tracing::trace!("a side of a forwarded connection takes nothing");
        }
        let seen = sent.inner.is_seen() || received.inner.is_seen();
        let notes = seen.then(|| INNER_SSH.to_owned());
        let status = match ended {
            Ended::Eof | Ended::Closed => Status::Succeeded,
            Ended::Broken | Ended::InnerSsh => Status::Failed,
        };
        // Sent is what came from whoever opened it.
        if asked.is_none() {
            (sent.stream, received.stream) = (received.stream, sent.stream);
        }
        let streams = [sent, received].into_iter().filter_map(Tally::total);
        self.report(status, notes.into_iter().collect(), streams.collect())
            .await;
    }
}

impl Connection {
    /// Records the intent of a forwarding. Nothing of it has passed yet.
    async fn intend(
        self: &Arc<Self>,
        session: &Arc<Session>,
        kind: &'static str,
        text: &str,
    ) -> Result<(Tunnel, Recorded), String> {
        let action = ActionId::new(self.random());
        let wanted = Action {
            action,
            session: session.id,
            kind,
            command: Some(text.as_bytes().to_vec()),
            env: Vec::new(),
            lends: Vec::new(),
            pty: None,
            within: None,
            sql: None,
        };
        let tunnel = Tunnel {
            connection: Arc::clone(self),
            session: Arc::clone(session),
            action,
        };
        let begun = Instant::now();
        let recorded = match self.gate(wanted).await {
            Ok(recorded) => recorded,
            Err(shut @ Shut::NotRecorded(_)) => {
                let why = shut.to_string();
                self.refuse("forwarding", "not-recorded", &why);
                return Err(why);
            }
            Err(Shut::NotSent(why)) => {
                tunnel.not_sent(&why).await;
                return Err(why);
            }
        };
        if let Some(why) = self.too_late(&recorded, begun) {
            tunnel.not_sent(why).await;
            return Err(why.to_owned());
        }
        Ok((tunnel, recorded))
    }

    /// A connection that the client wants through the target. The answer is given when the target
    /// has given its own.
    pub(crate) async fn forward_out(
        self: Arc<Self>,
        to: Destination,
        request: Request,
        channel: Channel<russh::server::Msg>,
        reply: ChannelOpenHandle,
    ) {
        let session = match self.session().await {
            Ok(session) => session,
            Err(why) => return refuse(reply, &why).await,
        };
        let Some(Allowed { kind, text, way }) = allowed(&session.view, &to) else {
            let shown = ascribe_core::text::clean(&to.shown(), 300);
            self.refuse_request(request, &shown);
            let why = format!("the grant allows no forwarding to {shown}");
            return refuse(reply, &why).await;
        };
        let upstream = match self.upstream(&session, false).await {
            Ok(upstream) => upstream,
            Err(why) => return refuse(reply, &why).await,
        };
        let (tunnel, recorded) = match self.intend(&session, kind, &text).await {
            Ok(intended) => intended,
            Err(why) => return refuse(reply, &why).await,
        };
        match self.in_time(open(recorded, &upstream, way)).await {
            Some(Ok(Opened::Channel(target))) => {
                reply.accept().await;
                tunnel.carry(channel, target, Some(&upstream)).await;
            }
            Some(Ok(Opened::Listening(_)) | Err(_)) => {
                tunnel.report(Status::Failed, Vec::new(), Vec::new()).await;
                refuse(reply, "the target does not connect there").await;
            }
            // It was asked, and may still connect: nobody knows.
            None => {
                tunnel.report(Status::Unknown, Vec::new(), Vec::new()).await;
                refuse(reply, "the target does not answer").await;
            }
        }
    }

    /// Has the target listen for the client. Gives the port; or why not.
    pub(crate) async fn listen_back(self: &Arc<Self>, at: Listening) -> Result<u32, String> {
        let session = self.session().await?;
        let kind = at.allowed(&session.view).ok_or_else(|| at.shown())?;
        let upstream = self.upstream(&session, false).await?;
        let (tunnel, recorded) = self.intend(&session, kind, &at.shown()).await?;
        // Before the target can connect back.
        self.listen(at.clone());
        let opened = self.in_time(open(recorded, &upstream, at.way())).await;
        let Some(Ok(Opened::Listening(port))) = opened else {
            self.unlisten(&at);
            let status = if opened.is_none() {
                Status::Unknown
            } else {
                Status::Failed
            };
            tunnel.report(status, Vec::new(), Vec::new()).await;
            return Err(format!("the target does not listen at {}", at.shown()));
        };
        if let Listening::Port(address, 0) = &at {
            self.unlisten(&at);
            self.listen(Listening::Port(address.clone(), port));
        }
        tunnel
            .report(Status::Succeeded, Vec::new(), Vec::new())
            .await;
        Ok(port)
    }

    /// The client wants no more connections there. Says whether it had any.
    pub(crate) async fn stop_listening(self: &Arc<Self>, at: Listening) -> bool {
        if !self.unlisten(&at) {
            return false;
        }
        // A target that does not answer must not hold up the client's connection.
        let stopped = self.in_time(async {
            let session = self.session().await.ok()?;
            let upstream = self.upstream(&session, false).await.ok()?;
            Some(upstream.cancel(at.way()).await)
        });
        stopped.await.flatten().unwrap_or(false)
    }

    /// A connection that the target makes back to the client.
    pub(crate) async fn forward_back(self: Arc<Self>, session: Arc<Session>, incoming: Returning) {
        let Returning {
            back,
            channel,
            reply,
        } = incoming;
        let (kind, text) = back.action();
        let Some(client) = self
            .client()
            .filter(|_| back.is_allowed(&self, &session.view))
        else {
            self.refuse("forwarding", "not-allowed", &format!("{kind} {text}"));
            return;
        };
        let Ok((tunnel, recorded)) = self.intend(&session, kind, &text).await else {
            return;
        };
        match self.in_time(back.open(recorded, &client)).await {
            Some(Ok(to_client)) => {
                reply.accept().await;
                tunnel.carry(to_client, channel, None).await;
            }
            Some(Err(_)) => tunnel.not_sent("the client does not take it").await,
            None => tunnel.report(Status::Unknown, Vec::new(), Vec::new()).await,
        }
    }

    /// What comes of asking one side, unless it takes too long or the session ends.
    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            answer = tokio::time::timeout(OPEN, asked) => answer.ok(),
            () = self.over.cancelled() => None,
        }
    }
}

/// A side gets this long to open a connection.
const OPEN: Duration = Duration::from_secs(10);

async fn refuse(reply: ChannelOpenHandle, why: &str) {
    tracing::debug!("a forwarding is refused: {why}");
    // 1 is prohibited (RFC 4254, 5.1). OpenSSH shows the reason.
    let reason = format!("ascribe: {}", ascribe_core::text::clean(why, 300));
    reply
        .reject(russh::ChannelOpenFailure::Other { code: 1, reason })
        .await;
}
