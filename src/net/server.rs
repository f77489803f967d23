//! A server: one ROUTER socket, one engine, one thread.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Poll, Registry, Waker};

use crate::access::Clients;
use crate::config::{Place, ServerConfig, Url};
use crate::engine::{GrantId, Machine, Rules, Tally};
use crate::error::Error;
use crate::net::alarm::Alarm;
use crate::net::callers::Callers;
use crate::net::claim::Claim;
use crate::net::clock::{BootClock, unix_time};
use crate::net::context;
use crate::net::desk::Desk;
use crate::net::guard::Guard;
use crate::net::joining;
use crate::net::journal::Journal;
use crate::net::ledger::{Found, Ledger};
use crate::net::metrics::{Metrics, MetricsPort};
use crate::net::peers::PeerLine;
use crate::net::service::{ALARM, GUARD, SOCKET, Service, WAKER};
use crate::net::showing::Showing;
use crate::net::socket::{Events, Socket};
use crate::net::warden::{Traffic, Warden};
use crate::time::{Clock, Timestamp};
use crate::wire::Frames;
use crate::wire::curve::OVERHEAD_BYTES;
use crate::wire::seed::{BYTES_MAX, Envelope};

/// How many answers may wait for one connection to read them; with more, it ends. All who wait at
/// the server may be answered at once over one connection.
const ANSWERS_MAX: i32 = 100_000;

/// How many messages of one connection may wait to be taken in; those beyond it wait outside.
const MESSAGES_MAX: i32 = 64;

/// How long a connection may take until it is made, greetings included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long the start of a server waits until it is known whether it is one of its cluster.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// How long answers on their way may hold up the end of a server.
const LINGER: Duration = Duration::from_millis(500);

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    endpoint: String,
    /// The process that started it. In a forked child there is no server to stop.
    pid: u32,
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
    metrics: Option<Metrics>,
}

/// What a server has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// How often it said "go".
    pub go: u64,
    /// How often it said "sorry".
    pub sorry: u64,
    /// How many messages were no requests.
    pub bad_messages: u64,
    /// How many connections and requests were refused for their keys and rights.
    pub denied: u64,
    /// How many requests wait at present.
    pub waiting: u64,
    /// How many keys are in use at present.
    pub keys: u64,
    /// How many clients there are at present that say who they are.
    pub clients: u64,
    /// How many requests, and clients, were refused because a bound was reached.
    pub bounds_hit: u64,
    /// How many connections there are at present, other than from within the process.
    pub connections: u64,
    /// How many were ended because a bound was reached.
    pub connections_ended: u64,
}

/// Tells a server to stop, from wherever it is known that it should.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Control>);

impl Server {
    /// Binds the socket and starts to serve.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL cannot be bound, such as a port in use, or the folder cannot be
    /// used; [`Error::System`] if the system gives no socket or thread.
    pub fn start(config: &ServerConfig) -> Result<Self, Error> {
        let claim = Claim::of(&config.url)?;
        let within_process = config.url.place() == Place::Inproc;
        let context = if within_process { context::shared()?.clone() } else { context::start()? };
        // Closed behind the socket, whose library would wait for ever for somebody to hear it.
        let events = Events::new(&context)?;
        let (socket, guard, endpoint) = open(&context, &events, config)?;

        let poll = Poll::new().map_err(|error| Error::system("watch a socket", &error))?;
        socket.register(poll.registry(), SOCKET)?;
        if let Some(guard) = &guard {
            guard.register(poll.registry(), GUARD)?;
        }
        let control = Arc::new(Control::new(poll.registry())?);

        let alarm = Alarm::new(poll.registry(), ALARM)
            .map_err(|error| Error::system("set an alarm", &error))?;
        let now = BootClock.now();
        let number = RandomState::new().hash_one(now);
        let (mut machine, kept) = take_up(now, config)?;
        let (ledger, found) = kept.unzip();
        let homes = joining::join(config, (&endpoint, number), &control, &mut machine)?;
        let peers = PeerLine::of(now, number, (&context, poll.registry()), config)?;
        let mut journal = Journal::new(now, &endpoint)?;
        let (metrics, showing) = watch(now, config, &control, &mut journal)?;
        if let Some(found) = found {
            journal.found(now, found);
        }
        let watch = |events| Warden::start(events, &config.bounds, &control);
        let warden = (!within_process).then(|| watch(events)).transpose()?;
        let service = Service {
            endpoint: endpoint.clone(),
            number,
            within_process,
            started_at: now,
            journal,
            machine,
            ledger,
            homes,
            peers,
            awaited: 0,
            drained_at: None,
            sessions_max: config.bounds.sessions_max,
            room_at: now,
            desk: Desk::default(),
            showing,
            callers: Callers::new(&control, &config.bounds),
            warden,
            clock: BootClock,
            control: Arc::clone(&control),
            message: Frames::default(),
            outbox: Vec::new(),
            socket,
            guard,
            sender: None,
            poll,
            alarm,
        };
        let thread = thread::Builder::new()
            .name("zmql-server".to_owned())
            .spawn(move || service.run(context, claim))
            .map_err(|error| Error::system("start a thread", &error))?;
        let thread = Mutex::new(Some(thread));
        let server = Self { endpoint, pid: std::process::id(), control, thread, metrics };
        if config.member.is_some() {
            server.wait_until_joined()?;
        }
        Ok(server)
    }

    /// Waits until the server is one of its cluster, or cannot be; not for long.
    fn wait_until_joined(&self) -> Result<(), Error> {
        let outcome = self.control.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |outcome: &mut Option<Result<(), Error>>| {
            outcome.is_none() && !self.control.joined.load(Ordering::Acquire)
        };
        let waited = self.control.finished.wait_timeout_while(outcome, JOIN_TIME, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone().unwrap_or(Ok(()))
    }

    /// The endpoint that is served, with the port that was free in the place of a `*`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.endpoint
    }

    /// Where it is watched: the URL of its page, if it has one.
    #[must_use]
    pub fn metrics_url(&self) -> Option<&str> {
        self.metrics.as_ref().map(|metrics| &*metrics.url)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.control.stats()
    }

    /// The keys have other limits from now on; what was used stays used. Other clients are let in,
    /// and those that are not are served no more. What else is set holds as it was.
    pub fn reload(&self, config: ServerConfig) {
        let mut waiting = self.control.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = config.security.map(|security| security.clients);
        *waiting = Some(Reload { rules: config.rules, clients });
        self.control.reload_waits.store(true, Ordering::Release);
        drop(waiting);
        self.control.wake();
    }

    /// Tells the log that what was to be taken up is wrong, and that the old holds.
    pub fn refuse_reload(&self, error: &Error) {
        let endpoint = &self.endpoint;
        log::error!(
            target: "zmqlocker", event = "reload_failed", url = endpoint.as_str(),
            reason:% = error;
            "{endpoint} keeps its limits and clients: {error}"
        );
    }

    /// A handle that can stop this server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.control))
    }

    /// How often the thread of the server has looked for something to do; has it look once more. If
    /// the number stays the same, it hangs.
    #[must_use]
    pub fn turns(&self) -> u64 {
        let turns = self.control.turns.load(Ordering::Relaxed);
        self.control.wake();
        turns
    }

    /// Waits until the server has stopped, but no longer than `timeout`. How it ended, if it has:
    /// with an error only if it could not go on.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<Result<(), Error>> {
        let outcome = self.control.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.control.finished.wait_timeout_while(outcome, timeout, |outcome| outcome.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Answers whoever waits and stops. When this returns the port is free. Does nothing the second
    /// time, or in a forked child.
    pub fn stop(&self) {
        if self.pid != std::process::id() {
            return;
        }
        self.stopper().stop();
        // Held until the thread has ended: whoever else stops the server waits for it as well.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            let endpoint = &self.endpoint;
            log::error!(target: "zmqlocker", "the server at {endpoint} broke: please report it");
        }
        if let Some(metrics) = &self.metrics {
            metrics.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if self.pid != std::process::id() {
            // The thread and its descriptors belong to the parent.
            let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(thread.take());
            if let Some(metrics) = &self.metrics {
                metrics.forget();
            }
        }
    }
}

impl Stopper {
    /// Tells the server to stop once nobody waits any more and, unless it has a folder in which
    /// that outlives it, nothing is held; after `length` at the latest. Until then nobody begins to
    /// wait or to hold. Does not wait for it.
    pub fn drain(&self, length: Duration) {
        *self.0.drain.lock().unwrap_or_else(PoisonError::into_inner) = Some(length);
        self.0.wake();
    }

    /// Tells the server to stop, and does not wait for it.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// What the thread of a server shares with those who own it.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) stop: AtomicBool,
    /// For how long those who wait are served before it stops, from when it sees this.
    pub(super) drain: Mutex<Option<Duration>>,
    /// How often its thread has looked for something to do.
    pub(super) turns: AtomicU64,
    waker: Waker,
    pub(super) counters: Counters,
    /// What waits to be taken up.
    pub(super) reload: Mutex<Option<Reload>>,
    /// Whether there is anything: it is looked at for each message.
    pub(super) reload_waits: AtomicBool,
    /// How the server ended, if it has.
    pub(super) outcome: Mutex<Option<Result<(), Error>>>,
    pub(super) finished: Condvar,
    /// Whether it is one of its cluster.
    joined: AtomicBool,
    /// What goes over its connections.
    pub(super) traffic: Traffic,
}

/// What holds from now on.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) rules: Rules,
    pub(super) clients: Option<Clients>,
}

impl Control {
    fn new(registry: &Registry) -> Result<Self, Error> {
        let waker = Waker::new(registry, WAKER);
        let waker = waker.map_err(|error| Error::system("watch a socket", &error))?;
        Ok(Self {
            stop: AtomicBool::new(false),
            drain: Mutex::new(None),
            turns: AtomicU64::new(0),
            waker,
            counters: Counters::default(),
            reload: Mutex::new(None),
            reload_waits: AtomicBool::new(false),
            outcome: Mutex::new(None),
            finished: Condvar::new(),
            joined: AtomicBool::new(false),
            traffic: Traffic::default(),
        })
    }

    /// Has the thread of the server look at what there is to do.
    pub(super) fn wake(&self) {
        // The only way to fail is that the server's end of the wake-up is gone: it has stopped.
        let _ = self.waker.wake();
    }

    /// Lets go on whoever waits for this.
    pub(super) fn has_joined(&self) {
        if !self.joined.swap(true, Ordering::AcqRel) {
            drop(self.outcome.lock().unwrap_or_else(PoisonError::into_inner));
            self.finished.notify_all();
        }
    }

    pub(super) fn stats(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStats {
            go: read(&self.counters.go),
            sorry: read(&self.counters.sorry),
            bad_messages: read(&self.counters.bad_messages),
            denied: read(&self.counters.denied),
            waiting: read(&self.counters.waiting),
            keys: read(&self.counters.keys),
            clients: read(&self.counters.clients),
            bounds_hit: read(&self.counters.bounds_hit),
            connections: self.traffic.lines.len() as u64,
            connections_ended: read(&self.traffic.lines.ended),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    go: AtomicU64,
    sorry: AtomicU64,
    pub(super) bad_messages: AtomicU64,
    pub(super) denied: AtomicU64,
    waiting: AtomicU64,
    keys: AtomicU64,
    clients: AtomicU64,
    bounds_hit: AtomicU64,
    /// How many requests came faster than their connection may ask.
    pub(super) hurried: AtomicU64,
}

impl Counters {
    /// Shows what the engine has counted.
    pub(super) fn copy(&self, tally: Tally) {
        self.go.store(tally.allowed, Ordering::Relaxed);
        self.sorry.store(tally.refused, Ordering::Relaxed);
        self.waiting.store(tally.waiting as u64, Ordering::Relaxed);
        self.keys.store(tally.keys as u64, Ordering::Relaxed);
        self.clients.store(tally.sessions as u64, Ordering::Relaxed);
        self.bounds_hit
            .store(tally.bounds_hit + self.hurried.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What outlives a server, and what was found of it.
type Kept = (Ledger, Found);

/// The machine of a server, with what an earlier run has left.
fn take_up(
    now: Timestamp,
    config: &ServerConfig,
) -> Result<(Machine<Envelope>, Option<Kept>), Error> {
    let mut machine = Machine::new(now, config.rules.clone(), config.patience, config.bounds);
    if config.member.is_some() {
        // What is used and held goes to other servers, and it is the epochs that tell the grants of
        // one from those of others.
        return Ok((machine, None));
    }
    let first_number = number_by_time_of_day(unix_time());
    let Some(folder) = &config.data_dir else {
        machine.number_grants_above(first_number);
        machine.begin_locks(now, true);
        return Ok((machine, None));
    };
    let ledger = Ledger::open(folder)?;
    let found = ledger.restore(now, first_number, &mut machine)?;
    Ok((machine, Some((ledger, found))))
}

/// Says that a server serves, and starts to show how it does, if it is to be watched. It ends when
/// that is dropped.
fn watch(
    now: Timestamp,
    config: &ServerConfig,
    control: &Arc<Control>,
    journal: &mut Journal,
) -> Result<(Option<Metrics>, Option<Showing>), Error> {
    let port = config.metrics.map(MetricsPort::bind).transpose()?;
    journal.start(config)?;
    let Some((port, sight)) = port else { return Ok((None, None)) };
    journal.report_to(&sight.reporter());
    let metrics = port.serve(Arc::clone(control))?;
    Ok((Some(metrics), Some(Showing::new(now, sight, config.bounds))))
}

/// A number above those of all grants of earlier runs, as far as the time of day tells: the seconds
/// since 2020 in its upper half, and how much of the present one has passed in its lower.
pub(super) fn number_by_time_of_day(since_1970: Duration) -> GrantId {
    const YEARS_50: u64 = 50 * 365 * 86_400;
    let seconds = since_1970.as_secs().saturating_sub(YEARS_50);
    let part = u64::from(since_1970.subsec_nanos()) * 2;
    // A clock that is off by centuries must not use up the numbers.
    GrantId(seconds.min(1 << 30) << 32 | part)
}

fn nothing_to_encrypt(url: &Url) -> Error {
    let problem = format!("is of no use for {url}, which is within this process");
    Error::Config { argument: "curve_key", problem }
}

/// The socket, who watches its connections, and the endpoint that came of it.
fn open(
    context: &zmq::Context,
    events: &Events,
    config: &ServerConfig,
) -> Result<(Socket, Option<Guard>, String), Error> {
    let within_process = config.url.place() == Place::Inproc;
    let mut socket = Socket::new(context, zmq::ROUTER)?;
    set_options(socket.options(), config)
        .map_err(|error| Error::system("open a socket", &error))?;
    let guard = match &config.security {
        Some(_) if within_process => return Err(nothing_to_encrypt(&config.url)),
        Some(security) => Some(Guard::open(context, socket.options(), security)?),
        None => None,
    };
    if !within_process {
        socket.tell_events(events)?;
    }
    let endpoint = socket.bind(&config.url)?;
    Ok((socket, guard, endpoint))
}

fn set_options(socket: &zmq::Socket, config: &ServerConfig) -> zmq::Result<()> {
    socket.set_linger(i32::try_from(LINGER.as_millis()).unwrap_or(i32::MAX))?;
    let overhead = if config.security.is_some() { OVERHEAD_BYTES } else { 0 };
    socket.set_maxmsgsize(i64::try_from(BYTES_MAX + overhead).unwrap_or(i64::MAX))?;
    socket.set_sndhwm(ANSWERS_MAX)?;
    socket.set_rcvhwm(MESSAGES_MAX)?;
    socket.set_handshake_ivl(i32::try_from(HANDSHAKE_TIME.as_millis()).unwrap_or(i32::MAX))?;
    // An answer that nobody is there to take is told of.
    socket.set_router_mandatory(true)?;
    socket.set_ipv6(config.url.is_ipv6())?;
    // A fleet may start at once. The system takes its own bound if that is lower.
    socket.set_backlog(4096)?;
    // A host that vanished is noticed, so that its connection does not stay for ever.
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)
}
