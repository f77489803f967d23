//! Who speaks to a server, by connection: what goes over each is counted, and how fast it asks.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::{Bounds, ClientInfo};
use crate::net::line::{Line, Lines};
use crate::net::server::Control;
use crate::net::socket::{Socket, weight, wire_bytes};
use crate::pace::Pace;
use crate::time::Timestamp;
use crate::wire::Frames;

/// The warden has heard of a connection so long after something was said on it, at the latest.
const WARDEN_DELAY: Duration = Duration::from_secs(1);

/// With so many more connections remembered than there are, those that are gone are forgotten.
const GONE_MAX: usize = 1024;

/// The connections on which something was said.
pub(super) struct Callers {
    by_routing_id: HashMap<Box<[u8]>, Caller>,
    control: Arc<Control>,
    pace: Pace,
}

struct Caller {
    since: Timestamp,
    place: Place,
    pace: Pace,
}

enum Place {
    WithinProcess,
    /// The warden has not heard of the connection yet.
    At(RawFd),
    On(Arc<Line>),
    Gone,
}

impl Callers {
    pub(super) fn new(control: &Arc<Control>, bounds: &Bounds) -> Self {
        let pace = Pace::new(bounds.client_requests_max);
        Self { by_routing_id: HashMap::new(), control: Arc::clone(control), pace }
    }

    /// The message that the socket has received last is from this connection.
    pub(super) fn heard(&mut self, now: Timestamp, routing_id: &[u8], socket: &mut Socket) {
        if self.count(routing_id, socket).is_none() {
            let place = socket.peer_descriptor().map_or(Place::WithinProcess, Place::At);
            self.add(now, routing_id, place);
            self.count(routing_id, socket);
        }
    }

    /// Counts the message that was received last. `None` if nothing is known of its connection.
    fn count(&mut self, routing_id: &[u8], socket: &Socket) -> Option<()> {
        let caller = self.by_routing_id.get_mut(routing_id)?;
        if let Some(line) = caller.line(&self.control.traffic.lines) {
            line.messages.fetch_add(1, Ordering::Relaxed);
            line.taken.fetch_add(socket.wire_bytes(), Ordering::Relaxed);
        }
        Some(())
    }

    /// A message is on its way to this connection.
    pub(super) fn said(&mut self, message: &Frames) {
        let Some(line) = message.get(0).and_then(|routing_id| self.line(routing_id)) else {
            return;
        };
        let frames = || message.iter().skip(1).map(<[u8]>::len);
        line.sent.fetch_add(frames().map(wire_bytes).sum(), Ordering::Relaxed);
        line.weight.fetch_add(frames().map(weight).sum(), Ordering::Relaxed);
    }

    /// Somebody says who it is.
    pub(super) fn introduce(&mut self, routing_id: &[u8], client: &ClientInfo) {
        if let Some(line) = self.line(routing_id) {
            *line.client() = Some(client.clone());
        }
    }

    /// Whether one more request may be made on this connection now.
    pub(super) fn may_ask(&mut self, now: Timestamp, routing_id: &[u8]) -> bool {
        // Nearly always there is no bound, and nothing to look up.
        self.pace.is_free()
            || self.by_routing_id.get_mut(routing_id).is_none_or(|caller| caller.pace.admits(now))
    }

    /// Whether a connection has ended.
    pub(super) fn has_left(&mut self, routing_id: &[u8]) -> bool {
        let is_open = self.line(routing_id).is_some_and(Line::is_open);
        let place = self.by_routing_id.get(routing_id).map(|caller| &caller.place);
        !is_open && !matches!(place, Some(Place::WithinProcess))
    }

    /// Ends the connection of one that does not read what it is sent.
    pub(super) fn end(&mut self, routing_id: &[u8]) {
        let ended = self.line(routing_id).is_some_and(Line::end);
        self.control.traffic.lines.ended.fetch_add(u64::from(ended), Ordering::Relaxed);
    }

    fn line(&mut self, routing_id: &[u8]) -> Option<&Line> {
        self.by_routing_id.get_mut(routing_id)?.line(&self.control.traffic.lines)
    }

    fn add(&mut self, now: Timestamp, routing_id: &[u8], place: Place) {
        let gone = self.by_routing_id.len().saturating_sub(2 * self.control.traffic.lines.len());
        if gone >= GONE_MAX {
            self.by_routing_id.retain(|_, caller| match &caller.place {
                Place::On(line) => line.is_open(),
                Place::At(_) => now.since(caller.since) < WARDEN_DELAY,
                Place::WithinProcess | Place::Gone => false,
            });
        }
        let caller = Caller { since: now, place, pace: self.pace };
        self.by_routing_id.insert(routing_id.into(), caller);
    }
}

impl Caller {
    fn line(&mut self, lines: &Lines) -> Option<&Line> {
        if let Place::At(fd) = self.place {
            match lines.find(fd) {
                // The descriptor is that of another connection by now.
                Some(line) if line.since > self.since + WARDEN_DELAY => self.place = Place::Gone,
                Some(line) => self.place = Place::On(line),
                None => {}
            }
        }
        match &self.place {
            Place::On(line) => Some(line),
            _ => None,
        }
    }
}
