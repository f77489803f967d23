//! A link within this process, over the ZeroMQ library: nothing else knows its endpoints.

use mio::event::Event;
use mio::{Registry, Token};

use crate::config::Url;
use crate::error::Error;
use crate::net::context;
use crate::net::link::{Link, LinkEvent};
use crate::net::socket::{Socket, system};
use crate::time::Timestamp;
use crate::wire::Frames;

pub(super) struct InprocLink {
    url: Url,
    token: Token,
    registry: Registry,
    socket: Socket,
    /// Whether [`LinkEvent::Up`] was said.
    up: bool,
}

impl InprocLink {
    pub(super) fn open(url: &Url, token: Token, registry: &Registry) -> Result<Self, Error> {
        let registry =
            registry.try_clone().map_err(|error| Error::system("watch a socket", &error))?;
        let socket = connect(url, token, &registry)?;
        Ok(Self { url: url.clone(), token, registry, socket, up: false })
    }

    /// The server has gone. An endpoint of this kind may be connected before it is bound.
    fn connect_again(&mut self) -> Result<(), Error> {
        self.socket.deregister(&self.registry);
        self.socket = connect(&self.url, self.token, &self.registry)?;
        self.up = false;
        Ok(())
    }
}

impl Link for InprocLink {
    fn ready(&mut self, _event: &Event) {}

    fn poll(&mut self, _now: Timestamp) -> Result<Option<LinkEvent>, Error> {
        if !self.up {
            self.up = true;
            return Ok(Some(LinkEvent::Up));
        }
        let mut message = Frames::default();
        while !self.socket.receive(&mut message)? {
            // To look at the events is to take in what came since: it would wake nobody.
            let events = self.socket.events()?;
            if events.contains(zmq::POLLIN) {
                continue;
            }
            if events.contains(zmq::POLLOUT) {
                return Ok(None);
            }
            return self.connect_again().map(|()| Some(LinkEvent::Down));
        }
        Ok(Some(LinkEvent::Message(message)))
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    fn is_opening(&self) -> bool {
        false
    }

    fn send(&mut self, message: &Frames) {
        // What goes wrong here goes wrong again at the next poll, which tells of it.
        let _ = self.socket.send(message);
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

fn connect(url: &Url, token: Token, registry: &Registry) -> Result<Socket, Error> {
    let socket = Socket::new(context::shared()?, zmq::DEALER)?;
    let options = socket.options();
    options.set_linger(0).map_err(|error| system("open a socket", error))?;
    options.set_sndhwm(0).map_err(|error| system("open a socket", error))?;
    socket.connect(url)?;
    socket.register(registry, token)?;
    Ok(socket)
}
