//! Whole messages in, whole messages out: all that the rest of the house knows of ZeroMQ's sockets.

use std::os::fd::RawFd;

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
}

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
        Ok(Self { inner, fd, frame: zmq::Message::new() })
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
        loop {
            match self.inner.recv(&mut self.frame, zmq::DONTWAIT) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => return Ok(false),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(system("receive a message", error)),
            }
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
