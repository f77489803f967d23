//! A client's way to one server: whole messages out, whole messages and their coming and going in.

use std::sync::Arc;

use mio::event::Event;
use mio::{Registry, Token, Waker};

use crate::asking::LinkId;
use crate::config::{Place, Url};
use crate::error::Error;
use crate::net::inproc::InprocLink;
use crate::net::stream::StreamLink;
use crate::time::Timestamp;
use crate::wire::Frames;
use crate::wire::curve::Keys;

/// What happens on a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// Messages may be sent from now on.
    Up,
    /// The connection is lost, and with it what was under way.
    Down,
    /// The server does not let us in, or is not the one that it should be.
    Denied,
    /// The server sent a message.
    Message(Frames),
}

/// A link that connects by itself, again and again. It never blocks.
pub(super) trait Link: Send {
    /// Takes notice of what the operating system said of this link's token.
    fn ready(&mut self, event: &Event);

    /// Goes on as far as it can; the next thing that happened, if there is one.
    fn poll(&mut self, now: Timestamp) -> Result<Option<LinkEvent>, Error>;

    /// When to come back with a [`Link::poll`], if nothing happens before.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// Whether the server is to say something before messages may be sent.
    fn is_opening(&self) -> bool;

    /// Sends a message. If it cannot, the link is going down and says so at the next poll.
    fn send(&mut self, message: &Frames);

    /// Why there is no connection, as far as that is known.
    fn problem(&self) -> Option<String>;
}

/// Opens links, whenever there is a server to connect to.
pub(super) struct Opener {
    pub(super) keys: Option<Keys>,
    pub(super) registry: Registry,
    pub(super) waker: Arc<Waker>,
}

impl Opener {
    /// Opens the link to the server at `url`, to be watched under its place.
    pub(super) fn open(&self, link: LinkId, url: &Url) -> Result<Box<dyn Link>, Error> {
        let (token, registry) = (Token(link.0), &self.registry);
        if url.place() == Place::Inproc {
            Ok(Box::new(InprocLink::open(url, token, registry)?))
        } else {
            let keys = self.keys.as_ref();
            Ok(Box::new(StreamLink::open((url, keys), token, registry, &self.waker)?))
        }
    }
}
