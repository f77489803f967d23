//! A link over TCP or a Unix socket, on which this crate speaks ZMTP by itself: without a thread.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Interest, Registry, Token, Waker};
use thiserror::Error;

use crate::config::Url;
use crate::error::Error;
use crate::net::address::{Address, LookUp, Target};
use crate::net::link::{Link, LinkEvent};
use crate::net::stream_socket::StreamSocket;
use crate::time::Timestamp;
use crate::wire::Frames;
use crate::wire::curve::{Curve, Keys, RANDOM_BYTES};
use crate::wire::zmtp::{Connection, Item, OPENING, ZmtpError};

/// How long to wait, at least, between the starts of two connections.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait until a server that does not let us in is tried again: a handshake costs it
/// work.
const DENIED_INTERVAL: Duration = Duration::from_secs(1);

/// How often a server may hang up when it hears its key: then it is taken for the wrong one. That
/// is all a server says to whoever has not its key; but it also hangs up when it stops.
const HANG_UPS_MAX: u32 = 2;

/// How long to wait, at least, between two look-ups of a name.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may take to be made, greetings included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many bytes may wait for a server that does not read. With more, the connection is given up.
const UNSENT_MAX: usize = 16 * 1024 * 1024;

/// How many reads and commands may come before a message. With more, the connection is given up.
const ITEMS_MAX: usize = 10_000;

const READ_BYTES: usize = 16 * 1024;

pub(super) struct StreamLink {
    target: Target,
    /// What a look-up has found, and when.
    found: Option<(Timestamp, Vec<Address>)>,
    token: Token,
    registry: Registry,
    waker: Arc<Waker>,
    phase: Phase,
    keys: Option<Keys>,
    connection: Connection,
    /// How often the server hung up when it heard its key.
    hang_ups: u32,
    /// Whether it is to be told that the server does not let us in.
    denied: bool,
    unsent: Vec<u8>,
    /// Whether a read may bring something.
    readable: bool,
    /// Whether the server has closed its side: what is there to read ends.
    closing: bool,
    /// Why there is no connection.
    problem: Option<Problem>,
}

enum Phase {
    Waiting { until: Timestamp },
    LookingUp(LookUp),
    Connecting { socket: StreamSocket, rest: Vec<Address>, deadline: Timestamp },
    Greeting { socket: StreamSocket, rest: Vec<Address>, deadline: Timestamp },
    Up { socket: StreamSocket, since: Timestamp },
}

/// Why a connection could not be made, or ended.
#[derive(Debug, Error)]
enum Problem {
    #[error("{}", .0.to_string().to_lowercase())]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Zmtp(#[from] ZmtpError),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not read what it is sent")]
    Unread,
    #[error("the connection was not made in time")]
    Slow,
    #[error("the server sends commands without an end")]
    Chatter,
    #[error("it hangs up when it hears server_key: it has another key")]
    HungUp,
    #[error("cannot draw a key: {0}")]
    Random(getrandom::Error),
}

impl Problem {
    const fn is_denial(&self) -> bool {
        match self {
            Self::Zmtp(error) => error.is_denial(),
            problem => matches!(problem, Self::HungUp),
        }
    }
}

impl StreamLink {
    pub(super) fn open(
        (url, keys): (&Url, Option<&Keys>),
        token: Token,
        registry: &Registry,
        waker: &Arc<Waker>,
    ) -> Result<Self, Error> {
        let registry =
            registry.try_clone().map_err(|error| Error::system("watch a socket", &error))?;
        Ok(Self {
            target: Target::parse(url)?,
            found: None,
            token,
            registry,
            waker: Arc::clone(waker),
            phase: Phase::Waiting { until: Timestamp::ZERO },
            keys: keys.cloned(),
            connection: Connection::default(),
            hang_ups: 0,
            denied: false,
            unsent: Vec::new(),
            readable: false,
            closing: false,
            problem: None,
        })
    }

    /// Starts to connect: at once to what is known, after a look-up to a name.
    fn start(&mut self, now: Timestamp) {
        let addresses = match (&self.target, &self.found) {
            (Target::Known(addresses), _) => addresses,
            (_, Some((at, addresses))) if now < *at + LOOK_UP_INTERVAL => addresses,
            _ => {
                if let Some(look_up) = self.target.look_up(&self.waker) {
                    self.phase = Phase::LookingUp(look_up);
                }
                return;
            }
        };
        self.connect(now, addresses.clone());
    }

    /// Connects to the first of `addresses` that does not fail at once.
    fn connect(&mut self, now: Timestamp, addresses: Vec<Address>) {
        let mut rest = addresses.into_iter();
        while let Some(address) = rest.next() {
            self.forget_connection();
            match self.open_socket(&address) {
                Ok(socket) => {
                    let deadline = now + CONNECT_TIMEOUT;
                    self.phase = Phase::Connecting { socket, rest: rest.collect(), deadline };
                    return;
                }
                Err(error) => self.problem = Some(error.into()),
            }
        }
        self.phase = Phase::Waiting { until: now + RECONNECT_INTERVAL };
    }

    fn open_socket(&self, address: &Address) -> std::io::Result<StreamSocket> {
        let mut socket = StreamSocket::connect(address)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(socket.source(), self.token, interest)?;
        Ok(socket)
    }

    fn forget_connection(&mut self) {
        self.connection = Connection::default();
        self.unsent.clear();
        (self.readable, self.closing) = (false, false);
    }

    /// The connection is made: says what a client says first.
    fn greet(&mut self) -> Result<(), Problem> {
        if let Some(keys) = &self.keys {
            let mut random = [0; RANDOM_BYTES];
            getrandom::fill(&mut random).map_err(Problem::Random)?;
            self.connection = Connection::encrypted(Curve::new(keys.clone(), &random));
        }
        self.unsent.extend_from_slice(OPENING);
        let phase = mem::replace(&mut self.phase, Phase::Waiting { until: Timestamp::ZERO });
        if let Phase::Connecting { socket, rest, deadline } = phase {
            self.phase = Phase::Greeting { socket, rest, deadline };
        }
        Ok(())
    }

    /// Nothing came of one address: tries the others, if there are any.
    fn try_next(&mut self, now: Timestamp, mut problem: Problem) {
        if self.connection.is_proving_itself()
            && matches!(problem, Problem::Closed | Problem::Io(_))
        {
            self.hang_ups += 1;
            if self.hang_ups >= HANG_UPS_MAX {
                problem = Problem::HungUp;
            }
        }
        if problem.is_denial() {
            self.hang_ups = 0;
            self.denied = true;
            self.problem = Some(problem);
            return self.close(Phase::Waiting { until: now + DENIED_INTERVAL });
        }
        let rest = match &mut self.phase {
            Phase::Connecting { rest, .. } | Phase::Greeting { rest, .. } => mem::take(rest),
            _ => Vec::new(),
        };
        self.problem = Some(problem);
        self.close(Phase::Waiting { until: now });
        self.connect(now, rest);
    }

    /// Gives the connection up, or the attempt to make one. One that was up for a while is made
    /// anew at once.
    fn give_up(&mut self, now: Timestamp, problem: Problem) {
        let until = match &self.phase {
            Phase::Up { since, .. } => *since + RECONNECT_INTERVAL,
            Phase::LookingUp(_) => now + LOOK_UP_INTERVAL,
            _ => now + RECONNECT_INTERVAL,
        };
        self.close(Phase::Waiting { until });
        self.problem = Some(problem);
    }

    fn close(&mut self, next: Phase) {
        let phase = mem::replace(&mut self.phase, next);
        if let Phase::Connecting { socket, .. }
        | Phase::Greeting { socket, .. }
        | Phase::Up { socket, .. } = phase
        {
            socket.close(&self.registry);
        }
    }

    /// Reads and takes apart what came; whatever has to be answered by the protocol itself is.
    fn exchange(&mut self, now: Timestamp) -> Result<Option<LinkEvent>, Problem> {
        for _ in 0..ITEMS_MAX {
            self.flush()?;
            match self.connection.poll_item()? {
                Some(Item::Message(message)) => return Ok(Some(LinkEvent::Message(message))),
                Some(Item::Ready) => {
                    self.problem = None;
                    self.hang_ups = 0;
                    let phase = mem::replace(&mut self.phase, Phase::Waiting { until: now });
                    if let Phase::Greeting { socket, .. } = phase {
                        self.phase = Phase::Up { socket, since: now };
                    }
                    return Ok(Some(LinkEvent::Up));
                }
                Some(Item::Answer(answer)) => self.unsent.extend_from_slice(&answer),
                None if self.readable => self.read()?,
                None => return Ok(None),
            }
        }
        Err(Problem::Chatter)
    }

    fn read(&mut self) -> Result<(), Problem> {
        let (Phase::Greeting { socket, .. } | Phase::Up { socket, .. }) = &mut self.phase else {
            return Ok(());
        };
        let mut bytes = [0; READ_BYTES];
        match socket.read(&mut bytes) {
            Ok(0) => return Err(Problem::Closed),
            Ok(count) => {
                self.connection.push(&bytes[..count]);
                // A short read has emptied the socket; what comes later is told of anew.
                self.readable = self.closing || count == READ_BYTES;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Problem> {
        let (Phase::Greeting { socket, .. } | Phase::Up { socket, .. }) = &mut self.phase else {
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.unsent.len() > UNSENT_MAX { Err(Problem::Unread) } else { Ok(()) }
    }
}

impl Link for StreamLink {
    fn ready(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_error();
        self.closing |= event.is_read_closed();
    }

    fn poll(&mut self, now: Timestamp) -> Result<Option<LinkEvent>, Error> {
        loop {
            if mem::take(&mut self.denied) {
                return Ok(Some(LinkEvent::Denied));
            }
            match &mut self.phase {
                Phase::Waiting { until } if now < *until => return Ok(None),
                Phase::Waiting { .. } => self.start(now),
                Phase::LookingUp(look_up) => match look_up.poll() {
                    None => return Ok(None),
                    Some(Ok(addresses)) => {
                        self.found = Some((now, addresses.clone()));
                        self.connect(now, addresses);
                    }
                    Some(Err(error)) => self.give_up(now, error.into()),
                },
                Phase::Connecting { socket, deadline, .. } => match socket.is_connected() {
                    Ok(true) => {
                        if let Err(problem) = self.greet() {
                            self.give_up(now, problem);
                        }
                    }
                    Ok(false) if now < *deadline => return Ok(None),
                    failed => self.try_next(now, failed.err().map_or(Problem::Slow, Problem::Io)),
                },
                Phase::Greeting { deadline, .. } => {
                    let slow = *deadline <= now;
                    match self.exchange(now) {
                        Ok(None) if slow => self.try_next(now, Problem::Slow),
                        Ok(event) => return Ok(event),
                        Err(problem) => self.try_next(now, problem),
                    }
                }
                Phase::Up { .. } => {
                    return self.exchange(now).or_else(|problem| {
                        self.give_up(now, problem);
                        Ok(Some(LinkEvent::Down))
                    });
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Connecting { deadline, .. } | Phase::Greeting { deadline, .. } => {
                Some(*deadline)
            }
            Phase::LookingUp(_) | Phase::Up { .. } => None,
        }
    }

    fn is_opening(&self) -> bool {
        !matches!(self.phase, Phase::Waiting { .. } | Phase::Up { .. })
    }

    fn send(&mut self, message: &Frames) {
        if matches!(self.phase, Phase::Up { .. }) {
            self.connection.write_message(&mut self.unsent, message);
            // What goes wrong here goes wrong again at the next poll, which tells of it.
            let _ = self.flush();
        }
    }

    fn problem(&self) -> Option<String> {
        if self.problem.is_none() && matches!(self.phase, Phase::Greeting { .. }) {
            return Some("what listens there does not greet".to_owned());
        }
        self.problem.as_ref().map(ToString::to_string)
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        self.close(Phase::Waiting { until: Timestamp::ZERO });
    }
}
