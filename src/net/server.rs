//! A server: one ROUTER socket, one engine, one thread.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use crate::answer::Answer;
use crate::config::{Place, ServerConfig, Url};
use crate::engine::{Input, Machine, Patience, SeedReply as Reply};
use crate::error::Error;
use crate::net::clock::BootClock;
use crate::net::context;
use crate::net::journal::Journal;
use crate::net::socket::Socket;
use crate::time::Clock;
use crate::wire::Frames;
use crate::wire::seed::{self, BYTES_MAX, Envelope};

/// How many messages are taken in before their answers go out and the time is looked at.
const BATCH_MAX: usize = 256;

/// How many answers may wait for one connection to read them; those beyond it are dropped. All who
/// wait at the server may be answered at once over one connection.
const ANSWERS_MAX: usize = Patience::WAITERS_MAX;

/// The clock goes on while the machine is suspended, a wait for sockets does not: after so long the
/// clock is looked at again.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long answers on their way may hold up the end of a server.
const LINGER: Duration = Duration::from_millis(500);

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    endpoint: String,
    /// The process that started it. In a forked child there is no server to stop.
    pid: u32,
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
    /// How many requests wait at present.
    pub waiting: u64,
}

/// Tells a server to stop, from wherever it is known that it should.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Control>);

impl Server {
    /// Binds the socket and starts to serve.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL cannot be bound, such as a port in use; [`Error::System`] if
    /// the system gives no socket or thread.
    pub fn start(config: &ServerConfig) -> Result<Self, Error> {
        let within_process = config.url.place() == Place::Inproc;
        let context = if within_process { context::shared().clone() } else { zmq::Context::new() };
        let socket = Socket::new(&context, zmq::ROUTER)?;
        set_options(socket.options(), config).map_err(|error| system("open a socket", &error))?;
        let endpoint = socket.bind(&config.url)?;

        let poll = Poll::new().map_err(|error| system("watch a socket", &error))?;
        socket.register(poll.registry(), SOCKET)?;
        let waker = Waker::new(poll.registry(), WAKER);
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            waker: waker.map_err(|error| system("watch a socket", &error))?,
            counters: Counters::default(),
            outcome: Mutex::new(None),
            finished: Condvar::new(),
        });

        let clock = BootClock;
        let now = clock.now();
        let patience = Patience { length: config.patience, waiters_max: Patience::WAITERS_MAX };
        let service = Service {
            endpoint: endpoint.clone(),
            within_process,
            journal: Journal::start(now, config, &Url::parse(&endpoint)?)?,
            machine: Machine::new(now, config.limit, patience),
            clock,
            control: Arc::clone(&control),
            message: Frames::default(),
            outbox: Vec::with_capacity(BATCH_MAX),
            socket,
            poll,
        };
        let thread = thread::Builder::new()
            .name("zmql-server".to_owned())
            .spawn(move || service.run(context))
            .map_err(|error| system("start a thread", &error))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { endpoint, pid: std::process::id(), control, thread })
    }

    /// The endpoint that is served, with the port that was free in the place of a `*`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.endpoint
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.control.counters.read()
    }

    /// A handle that can stop this server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.control))
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
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if self.pid != std::process::id() {
            // The thread and its descriptors belong to the parent.
            let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(thread.take());
        }
    }
}

impl Stopper {
    /// Tells the server to stop, and does not wait for it.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        // The only way to fail is that the server's end of the wake-up is gone: it has stopped.
        let _ = self.0.waker.wake();
    }
}

/// What the thread of a server shares with those who own it.
#[derive(Debug)]
struct Control {
    stop: AtomicBool,
    waker: Waker,
    counters: Counters,
    /// How the server ended, if it has.
    outcome: Mutex<Option<Result<(), Error>>>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Counters {
    go: AtomicU64,
    sorry: AtomicU64,
    bad_messages: AtomicU64,
    waiting: AtomicU64,
}

impl Counters {
    fn count(&self, answer: Answer) {
        let counter = match answer {
            Answer::Go => &self.go,
            Answer::Sorry => &self.sorry,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> ServerStats {
        ServerStats {
            go: self.go.load(Ordering::Relaxed),
            sorry: self.sorry.load(Ordering::Relaxed),
            bad_messages: self.bad_messages.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

/// Tells those who wait for the end of a server, however it comes.
struct Finish {
    control: Arc<Control>,
    outcome: Result<(), Error>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        let outcome = mem::replace(&mut self.outcome, Ok(()));
        *self.control.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.control.finished.notify_all();
    }
}

/// What the thread of a server owns.
struct Service {
    endpoint: String,
    within_process: bool,
    socket: Socket,
    poll: Poll,
    machine: Machine<Envelope>,
    clock: BootClock,
    control: Arc<Control>,
    journal: Journal,
    /// The memory into which the next message is received.
    message: Frames,
    /// The answers of a batch: all that has come is taken in before any of them is sent.
    outbox: Vec<Reply<Envelope>>,
}

impl Service {
    fn run(mut self, context: zmq::Context) {
        let mut finish = Finish {
            control: Arc::clone(&self.control),
            outcome: Err(system("serve", &"the thread broke: please report it")),
        };
        finish.outcome = self.serve();
        match &finish.outcome {
            Ok(()) => self.journal.stop(self.control.counters.read()),
            Err(error) => self.journal.failure(error),
        }
        // The name of an `inproc` endpoint is free after this, a port when the context is gone. To
        // unbind a port as well would end its connections with answers half written.
        if self.within_process {
            let _ = self.socket.options().unbind(&self.endpoint);
        }
        drop(self);
        drop(context);
        drop(finish);
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(4);
        while !self.control.stop.load(Ordering::Acquire) {
            let drained = self.take_in()?;
            let timeout = self.tick();
            let sent = self.send_answers()?;
            // To send is to look at the socket: what came meanwhile would not wake this thread.
            if drained && !sent {
                self.wait(&mut events, timeout)?;
            }
        }
        self.handle(Input::Close);
        self.send_answers().map(drop)
    }

    /// Takes in a batch of messages. Whether there were no more.
    fn take_in(&mut self) -> Result<bool, Error> {
        for _ in 0..BATCH_MAX {
            if !self.socket.receive(&mut self.message)? {
                return Ok(true);
            }
            match seed::parse_request(&self.message) {
                Ok(envelope) => {
                    if self.journal.is_new(envelope.routing_id()) {
                        let address = self.socket.peer_address();
                        let now = self.clock.now();
                        self.journal.first_request(now, envelope.routing_id(), address);
                    }
                    self.handle(Input::Next(envelope));
                }
                Err((bad, envelope)) => {
                    self.control.counters.bad_messages.fetch_add(1, Ordering::Relaxed);
                    let (now, address) = (self.clock.now(), self.socket.peer_address());
                    self.journal.bad_message(now, envelope.routing_id(), address, bad);
                    self.socket.send(&envelope.answer(bad.to_string().as_bytes()))?;
                }
            }
        }
        Ok(false)
    }

    /// Lets the engine see the time if it asked for it. How long until it wants to see it again.
    fn tick(&mut self) -> Option<Duration> {
        while let Some(due) = self.machine.poll_timeout() {
            let now = self.clock.now();
            if now < due {
                return Some(due.since(now).min(WAIT_MAX));
            }
            self.handle(Input::Tick);
        }
        None
    }

    fn handle(&mut self, input: Input<Envelope>) {
        self.machine.handle(self.clock.now(), input);
        while let Some(reply) = self.machine.poll_output() {
            self.outbox.push(reply);
        }
    }

    /// Sends what there is to send. Whether there was anything.
    fn send_answers(&mut self) -> Result<bool, Error> {
        let any = !self.outbox.is_empty();
        let waiting = self.machine.waiting() as u64;
        self.control.counters.waiting.store(waiting, Ordering::Relaxed);
        for Reply { to, answer } in self.outbox.drain(..) {
            self.control.counters.count(answer);
            // A client that is gone, or reads nothing, costs its answer and nothing else.
            self.socket.send(&to.answer(seed::encode_answer(answer)))?;
        }
        Ok(any)
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<(), Error> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(system("watch a socket", &error))
            }
            _ => Ok(()),
        }
    }
}

fn set_options(socket: &zmq::Socket, config: &ServerConfig) -> zmq::Result<()> {
    socket.set_linger(i32::try_from(LINGER.as_millis()).unwrap_or(i32::MAX))?;
    socket.set_maxmsgsize(i64::try_from(BYTES_MAX).unwrap_or(i64::MAX))?;
    socket.set_sndhwm(i32::try_from(ANSWERS_MAX).unwrap_or(i32::MAX))?;
    socket.set_ipv6(config.url.is_ipv6())?;
    // A fleet may start at once. The system takes its own bound if that is lower.
    socket.set_backlog(4096)?;
    // A host that vanished is noticed, so that its connection does not stay for ever.
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)
}

fn system(action: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::System { action, problem: error.to_string() }
}
