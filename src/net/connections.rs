//! The sockets of a client in one process, and the threads that wait for answers on them.
//!
//! One of the threads, the watcher, waits for the sockets and hands out whatever answers come; the
//! others are parked. A thread that has its answer makes another one the watcher. So a single
//! thread never hands its request to another one, and many threads share one connection.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use crate::asking::{Asking, Input, LinkId, Output, RequestId};
use crate::config::Url;
use crate::error::Error;
use crate::net::clock::BootClock;
use crate::net::link::{self, Link, LinkEvent};
use crate::time::{Clock, Timestamp};

/// How long a wait lasts before the caller is asked whether to go on.
const SLICE: Duration = Duration::from_millis(100);

/// How many messages of a link are taken in before deadlines and signals are looked at.
const ROUNDS_MAX: usize = 256;

/// What wakes the watcher; the tokens from 0 on are the links'.
const WAKER: Token = Token(usize::MAX - 1);

/// An answer's bytes, and who sent them.
type Answered = (LinkId, Vec<u8>);

#[derive(Debug)]
pub(super) struct Connections {
    shared: Mutex<Shared>,
    waker: Arc<Waker>,
}

struct Shared {
    closed: bool,
    clock: BootClock,
    asking: Asking,
    links: Vec<Box<dyn Link>>,
    /// The watcher has it while it waits.
    watch: Option<Watch>,
    watcher: Option<RequestId>,
    callers: BTreeMap<RequestId, Thread>,
    answers: BTreeMap<RequestId, Answered>,
    /// Whether more had come than was taken in.
    behind: bool,
}

/// What it takes to wait for the sockets.
struct Watch {
    poll: Poll,
    events: Events,
}

impl Connections {
    pub(super) fn open(urls: &[Url]) -> Result<Self, Error> {
        let poll = Poll::new().map_err(|error| Error::system("watch sockets", &error))?;
        let waker = Arc::new(
            Waker::new(poll.registry(), WAKER)
                .map_err(|error| Error::system("watch sockets", &error))?,
        );
        let open = |(place, url)| link::open(url, Token(place), poll.registry(), &waker);
        let links = urls.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let shared = Shared {
            closed: false,
            clock: BootClock,
            asking: Asking::new(links.len()),
            links,
            watch: Some(Watch { poll, events: Events::with_capacity(16) }),
            watcher: None,
            callers: BTreeMap::new(),
            answers: BTreeMap::new(),
            behind: false,
        };
        Ok(Self { shared: Mutex::new(shared), waker })
    }

    /// Asks for one permit. `None` if `timeout` is over before an answer comes.
    pub(super) fn ask(
        &self,
        timeout: Option<Duration>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Answered>, Error> {
        let (request, started) = self.lock().begin()?;
        let deadline = timeout.map(|timeout| started + timeout);
        let answered = self.wait_for(request, started, deadline, go_on);
        self.lock().leave(request);
        answered
    }

    /// What keeps the links from being connected, each problem once.
    pub(super) fn problems(&self) -> String {
        let shared = self.lock();
        let mut problems: Vec<_> = shared.links.iter().filter_map(|link| link.problem()).collect();
        problems.sort();
        problems.dedup();
        problems.join("; ")
    }

    /// Tells all who wait that it is over, and closes the sockets once they are gone.
    pub(super) fn close(&self) {
        let mut shared = self.lock();
        shared.closed = true;
        shared.callers.values().for_each(Thread::unpark);
        shared.close_if_unused();
        self.wake_watcher();
    }

    fn wait_for(
        &self,
        request: RequestId,
        started: Timestamp,
        deadline: Option<Timestamp>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Answered>, Error> {
        let mut slice_ends = started + SLICE;
        loop {
            let mut shared = self.lock();
            let now = shared.clock.now();
            shared.exchange(now, || self.wake_watcher())?;
            if let Some(answered) = shared.answers.remove(&request) {
                return Ok(Some(answered));
            }
            if shared.closed {
                return Err(Error::Closed);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            let until =
                shared.poll_timeout().into_iter().chain(deadline).fold(slice_ends, Timestamp::min);
            let clock = shared.clock;
            let watch = shared.become_watcher(request);
            drop(shared);
            let signalled = if let Some(watch) = watch {
                self.watch(watch, until.since(now))?
            } else {
                thread::park_timeout(until.since(now));
                false
            };
            if signalled || slice_ends <= clock.now() {
                // This thread may be away for a while: another one watches meanwhile.
                self.lock().wake_another(Some(request));
                if !go_on() {
                    return Err(Error::Interrupted);
                }
                slice_ends = clock.now() + SLICE;
            }
        }
    }

    /// Waits for the sockets. Whether a signal came.
    fn watch(&self, mut watch: Watch, length: Duration) -> Result<bool, Error> {
        let polled = watch.poll.poll(&mut watch.events, Some(length));
        let mut shared = self.lock();
        for event in &watch.events {
            if let Some(link) = shared.links.get_mut(event.token().0) {
                link.ready(event);
            }
        }
        shared.watch = Some(watch);
        shared.watcher = None;
        match polled {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Error::system("watch sockets", &error)),
        }
    }

    fn wake_watcher(&self) {
        // The only way to fail is that the sockets are gone, and with them the watcher.
        let _ = self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Starts a request of this thread.
    fn begin(&mut self) -> Result<(RequestId, Timestamp), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let now = self.clock.now();
        let request = self.asking.ask(now);
        self.callers.insert(request, thread::current());
        Ok((request, now))
    }

    /// The caller of `request` is done. If nobody watches now, somebody else has to.
    fn leave(&mut self, request: RequestId) {
        self.asking.forget(request);
        self.callers.remove(&request);
        self.answers.remove(&request);
        self.wake_another(None);
        self.close_if_unused();
    }

    /// If nobody watches, a caller other than `this` has to.
    fn wake_another(&self, this: Option<RequestId>) {
        let others = self.callers.iter().filter(|(request, _)| Some(**request) != this);
        if self.watch.is_some()
            && let Some((_, caller)) = others.into_iter().next()
        {
            caller.unpark();
        }
    }

    fn close_if_unused(&mut self) {
        if self.closed && self.callers.is_empty() {
            self.links.clear();
        }
    }

    fn become_watcher(&mut self, request: RequestId) -> Option<Watch> {
        let watch = self.watch.take()?;
        self.watcher = Some(request);
        Some(watch)
    }

    /// Sends what there is to send and hands out what has come, until there is no more of either.
    fn exchange(&mut self, now: Timestamp, wake_watcher: impl Fn()) -> Result<(), Error> {
        if self.asking.poll_timeout().is_some_and(|due| due <= now) {
            self.asking.handle(now, Input::Tick);
        }
        self.behind = false;
        for _ in 0..ROUNDS_MAX {
            self.perform(&wake_watcher);
            if !self.poll_links(now)? {
                return Ok(());
            }
        }
        self.behind = true;
        Ok(())
    }

    /// Does what `asking` wants done.
    fn perform(&mut self, wake_watcher: impl Fn()) {
        while let Some(output) = self.asking.poll_output() {
            match output {
                Output::Send(link, request) => {
                    self.links[link.0].send(&link::request(request));
                }
                Output::Deliver { request, from, body } => {
                    self.answers.insert(request, (from, body));
                    if self.watcher == Some(request) {
                        wake_watcher();
                    } else if let Some(caller) = self.callers.get(&request) {
                        caller.unpark();
                    }
                }
            }
        }
    }

    /// Tells `asking` what happened next on each link. Whether anything did.
    fn poll_links(&mut self, now: Timestamp) -> Result<bool, Error> {
        let mut any = false;
        for (place, link) in self.links.iter_mut().enumerate() {
            let id = LinkId(place);
            if let Some(event) = link.poll(now)? {
                any = true;
                match &event {
                    LinkEvent::Up => self.asking.handle(now, Input::Up(id)),
                    LinkEvent::Down => self.asking.handle(now, Input::Down(id)),
                    LinkEvent::Message(message) => {
                        if let Some((to, body)) = link::answer(message) {
                            self.asking.handle(now, Input::Answer { from: id, to, body });
                        }
                    }
                }
            }
        }
        Ok(any)
    }

    /// When the links or `asking` want to see the time again.
    fn poll_timeout(&self) -> Option<Timestamp> {
        if self.behind {
            return Some(Timestamp::ZERO);
        }
        let links = self.links.iter().filter_map(|link| link.poll_timeout()).min();
        links.into_iter().chain(self.asking.poll_timeout()).min()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("asking", &self.asking).finish_non_exhaustive()
    }
}
