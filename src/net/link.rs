//! A client's connection to one server: a socket, and the news of its coming and going.

use std::time::Duration;

use mio::{Registry, Token};
use zmq::SocketEvent;

use crate::asking::{LinkId, RequestId};
use crate::config::Url;
use crate::error::Error;
use crate::net::socket::{Socket, system};
use crate::wire::Frames;
use crate::wire::seed;

/// How long the library waits at least before it connects again.
pub(super) const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// A peer that answers no heartbeat for so long is taken for gone: a host that vanished, a process
/// that was stopped, a network that was cut.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to one server. It connects by itself, again and again.
pub(super) struct Link {
    id: LinkId,
    url: Url,
    context: &'static zmq::Context,
    socket: Socket,
    source: Source,
    message: Frames,
}

/// Where the news of a link comes from.
enum Source {
    /// A socket that tells of connections made and lost.
    Monitor(Socket),
    /// An `inproc` endpoint has no such socket; it is up as soon as it is opened.
    Inproc { up: bool },
}

/// A change of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Up,
    Down,
}

/// An answer, as it came.
pub(super) struct Received<'a> {
    pub(super) to: RequestId,
    pub(super) body: &'a [u8],
}

impl Link {
    pub(super) fn open(
        context: &'static zmq::Context,
        registry: &Registry,
        id: LinkId,
        url: &Url,
    ) -> Result<Self, Error> {
        let socket = Socket::new(context, zmq::DEALER)?;
        set_options(socket.options(), url).map_err(|error| system("open a socket", error))?;
        let source = if url.is_inproc() { Source::Inproc { up: false } } else { watch(context, &socket, id)? };
        socket.connect(url)?;
        socket.register(registry, Token(2 * id.0))?;
        if let Source::Monitor(monitor) = &source {
            monitor.register(registry, Token(2 * id.0 + 1))?;
        }
        Ok(Self { id, url: url.clone(), context, socket, source, message: Frames::default() })
    }

    pub(super) const fn id(&self) -> LinkId {
        self.id
    }

    /// Whether a socket of some link that is watched under `token` tells of news.
    pub(super) const fn is_news(token: Token) -> bool {
        token.0 % 2 == 1
    }

    /// The next change of the connection, if there is one.
    pub(super) fn news(&mut self, registry: &Registry) -> Result<Option<News>, Error> {
        match &mut self.source {
            Source::Monitor(monitor) => {
                while monitor.receive(&mut self.message)? {
                    let event = self.message.get(0).and_then(|frame| frame.first_chunk());
                    match event.map(|raw| SocketEvent::from_raw(u16::from_ne_bytes(*raw))) {
                        Some(SocketEvent::HANDSHAKE_SUCCEEDED) => return Ok(Some(News::Up)),
                        Some(SocketEvent::DISCONNECTED) => return Ok(Some(News::Down)),
                        _ => {}
                    }
                }
                Ok(None)
            }
            Source::Inproc { up: true } if !self.socket.is_writable() => {
                // It ended with its server and does not come back by itself.
                self.socket.deregister(registry);
                *self = Self::open(self.context, registry, self.id, &self.url)?;
                Ok(Some(News::Down))
            }
            Source::Inproc { up: true } => Ok(None),
            Source::Inproc { up } => {
                *up = true;
                Ok(Some(News::Up))
            }
        }
    }

    /// Sends a request. If the connection is gone already this does nothing: the link's going down
    /// is about to be told.
    pub(super) fn send(&self, request: RequestId) -> Result<(), Error> {
        let number = request.0.to_be_bytes();
        let head = Frames::from_iter([number.as_slice(), b""]);
        if !self.socket.send(&head, seed::REQUEST)? && self.socket.is_writable() {
            // The connection is younger than the socket's last look.
            self.socket.send(&head, seed::REQUEST)?;
        }
        Ok(())
    }

    /// Receives the next answer. What is no answer to a numbered request is dropped.
    pub(super) fn receive(&mut self) -> Result<Option<Received<'_>>, Error> {
        while self.socket.receive(&mut self.message)? {
            if self.number().is_some() {
                break;
            }
        }
        let Some(to) = self.number() else { return Ok(None) };
        Ok(self.message.get(2).map(|body| Received { to, body }))
    }

    /// The number in an answer's envelope.
    fn number(&self) -> Option<RequestId> {
        let (number, empty) = (self.message.get(0)?, self.message.get(1)?);
        let well_formed = self.message.len() == 3 && empty.is_empty();
        well_formed.then(|| number.try_into().ok().map(u64::from_be_bytes).map(RequestId))?
    }
}

fn set_options(socket: &zmq::Socket, url: &Url) -> zmq::Result<()> {
    socket.set_linger(0)?;
    // Requests go to connections, never into a queue for one that may come: what was sent to a
    // server that is gone is lost, and asked again.
    socket.set_immediate(true)?;
    socket.set_sndhwm(0)?;
    socket.set_maxmsgsize(i64::try_from(seed::BYTES_MAX).unwrap_or(i64::MAX))?;
    socket.set_ipv6(url.is_ipv6())?;
    socket.set_reconnect_ivl(millis(RECONNECT_INTERVAL))?;
    socket.set_connect_timeout(millis(HEARTBEAT_TIMEOUT))?;
    socket.set_handshake_ivl(millis(HEARTBEAT_TIMEOUT))?;
    socket.set_heartbeat_ivl(millis(HEARTBEAT_TIMEOUT / 3))?;
    socket.set_heartbeat_timeout(millis(HEARTBEAT_TIMEOUT))
}

fn millis(length: Duration) -> i32 {
    i32::try_from(length.as_millis()).unwrap_or(i32::MAX)
}

/// Opens the socket that tells of `watched`'s connections.
fn watch(context: &zmq::Context, watched: &Socket, id: LinkId) -> Result<Source, Error> {
    let failed = |error| system("watch a socket", error);
    let events = i32::from(
        SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() | SocketEvent::DISCONNECTED.to_raw(),
    );
    // The descriptor makes the name unique among the sockets that are open.
    let fd = watched.options().get_fd().map_err(failed)?;
    let endpoint = format!("inproc://zmqlocker-monitor-{}-{fd}", id.0);
    watched.options().monitor(&endpoint, events).map_err(failed)?;
    let monitor = Socket::new(context, zmq::PAIR)?;
    monitor.options().connect(&endpoint).map_err(failed)?;
    Ok(Source::Monitor(monitor))
}
