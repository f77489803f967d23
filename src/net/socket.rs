//! Whole messages in, whole messages out: all that the rest of the house knows of ZeroMQ's sockets.

use std::os::fd::RawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::config::Url;
use crate::error::Error;
use crate::wire::Frames;
use crate::wire::seed::{BYTES_MAX, FRAMES_MAX};

/// A ZeroMQ socket that never blocks.
///
/// Its readiness is edge-triggered: after any call, wait only once [`Socket::receive`] has said
/// that nothing is left.
pub(super) struct Socket {
    inner: zmq::Socket,
    fd: RawFd,
    /// The frame that was received last; it knows where it came from.
    frame: zmq::Message,
    /// What the message that was received last took on its way here.
    wire_bytes: u64,
    tells_events: bool,
}

/// Where the library tells of connections.
const EVENTS: &str = "inproc://zmql-connections";

/// Where it tells of nothing: there is no other way to have it stop.
const NO_EVENTS: &str = "inproc://zmql-no-connections";

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way.
    Yes,
    /// The peer does not read what it was sent before: it was dropped.
    Full,
    /// The peer is gone: it was dropped.
    Gone,
}

impl Socket {
    pub(super) fn new(context: &zmq::Context, kind: zmq::SocketType) -> Result<Self, Error> {
        let inner = context.socket(kind).map_err(|error| system("open a socket", error))?;
        let fd = inner.get_fd().map_err(|error| system("open a socket", error))?;
        Ok(Self { inner, fd, frame: zmq::Message::new(), wire_bytes: 0, tells_events: false })
    }

    /// The options of the socket.
    pub(super) fn options(&self) -> &zmq::Socket {
        &self.inner
    }

    /// Binds, and tells the endpoint that came of it: a `*` becomes the port that was free.
    pub(super) fn bind(&self, url: &Url) -> Result<String, Error> {
        self.inner.bind(url.as_str()).map_err(|error| bad_url("bound", url, error))?;
        match self.inner.get_last_endpoint() {
            Ok(Ok(endpoint)) => Ok(endpoint),
            _ => Ok(url.to_string()),
        }
    }

    /// Has `events` hear of connections that come and go, until the socket is closed.
    pub(super) fn tell_events(&mut self, events: &Events) -> Result<(), Error> {
        use zmq::SocketEvent::{ACCEPT_FAILED, ACCEPTED, DISCONNECTED, MONITOR_STOPPED};
        let wanted = [ACCEPTED, ACCEPT_FAILED, DISCONNECTED, MONITOR_STOPPED];
        let wanted = wanted.into_iter().fold(0, |all, event| all | i32::from(event.to_raw()));
        let failed = |error| system("watch connections", error);
        self.inner.monitor(EVENTS, wanted).map_err(failed)?;
        self.tells_events = true;
        events.0.connect(EVENTS).map_err(failed)
    }

    pub(super) fn connect(&self, url: &Url) -> Result<(), Error> {
        self.inner.connect(url.as_str()).map_err(|error| bad_url("connected to", url, error))
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> Result<(), Error> {
        registry
            .register(&mut SourceFd(&self.fd), token, Interest::READABLE)
            .map_err(|error| Error::system("watch a socket", &error))
    }

    pub(super) fn deregister(&self, registry: &Registry) {
        // Closing the descriptor would do the same; there is nothing to save if this fails.
        let _ = registry.deregister(&mut SourceFd(&self.fd));
    }

    /// Receives one message into `message`; `false` if there is none. What a message has beyond the
    /// bounds of the protocol is read and dropped, with enough kept to see that it was too much.
    pub(super) fn receive(&mut self, message: &mut Frames) -> Result<bool, Error> {
        message.clear();
        self.wire_bytes = 0;
        let mut is_first = true;
        loop {
            match self.inner.recv(&mut self.frame, zmq::DONTWAIT) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => return Ok(false),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(system("receive a message", error)),
            }
            if !is_first {
                // The first frame, the name of the connection, is ours.
                self.wire_bytes += wire_bytes(self.frame.len());
            }
            is_first = false;
            if message.len() <= FRAMES_MAX && message.byte_len() <= BYTES_MAX {
                message.push(&self.frame);
            }
            if !self.frame.get_more() {
                return Ok(true);
            }
        }
    }

    /// The network address that the message received last came from, where there is one.
    pub(super) fn peer_address(&mut self) -> Option<&str> {
        self.frame.gets("Peer-Address")
    }

    /// The user id of the client that sent the message received last, where clients have keys.
    pub(super) fn user_id(&mut self) -> Option<&str> {
        self.frame.gets("User-Id")
    }

    /// The descriptor of the connection that the message received last came on.
    pub(super) fn peer_descriptor(&mut self) -> Option<RawFd> {
        self.frame.gets("__fd")?.parse().ok()
    }

    /// How many bytes the message received last took on its way here.
    pub(super) const fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// Sends the frames as one message.
    pub(super) fn send(&self, message: &Frames) -> Result<Sent, Error> {
        for (place, frame) in message.iter().enumerate() {
            let more = if place + 1 < message.len() { zmq::SNDMORE } else { 0 };
            match self.send_frame(frame, more)? {
                Sent::Yes => {}
                other => return Ok(other),
            }
        }
        Ok(Sent::Yes)
    }

    fn send_frame(&self, frame: &[u8], more: i32) -> Result<Sent, Error> {
        loop {
            match self.inner.send(frame, zmq::DONTWAIT | more) {
                Ok(()) => return Ok(Sent::Yes),
                Err(zmq::Error::EINTR) => {}
                Err(zmq::Error::EAGAIN) => return Ok(Sent::Full),
                Err(zmq::Error::EHOSTUNREACH) => return Ok(Sent::Gone),
                Err(error) => return Err(system("send a message", error)),
            }
        }
    }

    /// What the socket is ready for, after taking in what came and who went.
    pub(super) fn events(&self) -> Result<zmq::PollEvents, Error> {
        self.inner.get_events().map_err(|error| system("watch a socket", error))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.tells_events {
            // Who hears of events knows by this that no more will come.
            let _ = self.inner.monitor(NO_EVENTS, 0);
        }
    }
}

/// What the library tells of the connections of a socket. It waits until it is heard: close it
/// behind the socket.
pub(super) struct Events(zmq::Socket);

/// Something that happened to a connection, by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Accepted(RawFd),
    /// There was none to be had.
    AcceptFailed,
    Disconnected(RawFd),
    /// The socket is gone: there will be no other.
    Stopped,
}

impl Events {
    pub(super) fn new(context: &zmq::Context) -> Result<Self, Error> {
        let opened = context.socket(zmq::PAIR);
        opened.map(Self).map_err(|error| system("open a socket", error))
    }

    /// The next event; `None` if none has come after `timeout`.
    pub(super) fn next(&self, timeout: Duration) -> Option<Event> {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let received = self.0.set_rcvtimeo(timeout).and_then(|()| self.0.recv_multipart(0));
        let frames = match received {
            Ok(frames) => frames,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return None,
            // The context is gone, and the socket with it.
            Err(_) => return Some(Event::Stopped),
        };
        // Two bytes say what happened, and four to what; then comes our own address.
        let [kind_0, kind_1, fd @ ..] = &**frames.first()? else { return None };
        let fd = RawFd::from_ne_bytes(fd.try_into().ok()?);
        match zmq::SocketEvent::from_raw(u16::from_ne_bytes([*kind_0, *kind_1])) {
            zmq::SocketEvent::ACCEPTED => Some(Event::Accepted(fd)),
            zmq::SocketEvent::ACCEPT_FAILED => Some(Event::AcceptFailed),
            zmq::SocketEvent::DISCONNECTED => Some(Event::Disconnected(fd)),
            zmq::SocketEvent::MONITOR_STOPPED => Some(Event::Stopped),
            _ => None,
        }
    }
}

/// How many bytes a frame of this length takes on its way, its length included.
pub(super) const fn wire_bytes(length: usize) -> u64 {
    length as u64 + if length < 256 { 2 } else { 9 }
}

/// How much memory a frame of this length takes in a queue of the library.
pub(super) const fn weight(length: usize) -> u64 {
    const MESSAGE: usize = 64;
    const WITHIN_IT: usize = 33;
    const HEADER: usize = 48;
    (MESSAGE + if length <= WITHIN_IT { 0 } else { length + HEADER }) as u64
}

/// An error of ZeroMQ that no argument explains.
pub(super) fn system(action: &'static str, error: zmq::Error) -> Error {
    Error::System { action, problem: error.message().to_lowercase() }
}

/// An error of ZeroMQ that comes of the URL.
fn bad_url(verb: &str, url: &Url, error: zmq::Error) -> Error {
    let reason = match error {
        zmq::Error::EADDRINUSE => "the address is in use: stop its owner or choose another port",
        zmq::Error::EADDRNOTAVAIL => "this host has no such address",
        zmq::Error::EACCES => "permission denied: choose a port above 1023 or another path",
        zmq::Error::ENODEV => "this host has no such interface or name",
        zmq::Error::ENOENT => "there is no such folder",
        zmq::Error::EINVAL => "it must read tcp://HOST:PORT, ipc://PATH or inproc://NAME",
        zmq::Error::ENAMETOOLONG => "the path is too long for a socket",
        zmq::Error::EMFILE => return system("open a socket", error),
        other => &other.message().to_lowercase(),
    };
    Error::Config { argument: "url", problem: format!("{url} cannot be {verb}: {reason}") }
}
