//! The sockets of a client in one process, and the threads that wait for answers on them.
//!
//! One of the threads, the watcher, waits for the sockets and hands out whatever answers come; the
//! others are parked. A thread that has its answer makes another one the watcher. So a single
//! thread never hands its request to another one, and many threads share one connection. An event
//! loop watches the sockets by their descriptor instead, and collects its answers at once.

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mio::{Poll, Token, Waker};

use crate::asking::{LinkId, RequestId};
use crate::config::{ClientConfig, Url};
use crate::conversation::{ClientStats, Conversation, Outcome};
use crate::engine::{ClientInfo, GrantId, Request};
use crate::error::Error;
use crate::net::clock::BootClock;
use crate::net::exchange::{Caller, Question, Shared, Watch};
use crate::net::host::host_name;
use crate::net::keeper::Keeper;
use crate::net::link::Opener;
use crate::time::{Clock, Timestamp};
use crate::wire::homes::HomeMap;

/// How long a wait lasts before the caller is asked whether to go on.
const SLICE: Duration = Duration::from_millis(100);

/// What wakes the watcher; the tokens from 0 on are the links'.
const WAKER: Token = Token(usize::MAX - 1);

/// Whether what a thread waits for has come.
enum Progress {
    Done,
    /// Not yet. It is to be looked for again then, if nothing comes before.
    LookAgain(Option<Timestamp>),
}

impl Progress {
    const fn done_if(done: bool) -> Self {
        if done { Self::Done } else { Self::LookAgain(None) }
    }
}

#[derive(Debug)]
pub(super) struct Connections {
    room: Arc<Room>,
    keeper: Keeper,
    descriptor: RawFd,
}

/// What the threads of a client meet in.
#[derive(Debug)]
pub(super) struct Room {
    shared: Mutex<Shared>,
    waker: Arc<Waker>,
}

impl Room {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake_watcher(&self) {
        // The only way to fail is that the sockets are gone, and with them the watcher.
        let _ = self.waker.wake();
    }
}

impl Connections {
    pub(super) fn open(config: &ClientConfig) -> Result<Self, Error> {
        let system = |error| Error::system("watch sockets", &error);
        let poll = Poll::new().map_err(system)?;
        let descriptor = poll.as_raw_fd();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(system)?);
        let registry = poll.registry().try_clone().map_err(system)?;
        let (keys, waker_of_links) = (config.keys.clone(), Arc::clone(&waker));
        let opener = Opener { keys, registry, waker: waker_of_links };
        let open = |(place, url)| opener.open(LinkId(place), url);
        let links = config.urls.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let me = who_we_are(&config.name);
        let conversation = Conversation::new(links.len(), session_name(), me)
            .to(config.urls.iter().map(Url::as_str));
        let shared = Mutex::new(Shared::new(conversation, (links, opener), poll));
        let room = Arc::new(Room { shared, waker });
        Ok(Self { keeper: Keeper::new(Arc::clone(&room)), room, descriptor })
    }

    /// Asks, and waits for the outcome. Between short slices of the wait, `go_on` is asked whether
    /// to wait any longer.
    pub(super) fn ask(
        &self,
        question: Question<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Outcome, Error> {
        let caller = Caller::Thread(thread::current());
        let request = self.lock().begin(question, caller)?;
        self.finish(request, go_on)
    }

    /// Starts several requests that wait for nothing, and sends them in one message: their number,
    /// and how many of `requests` it is for.
    pub(super) fn begin_together(
        &self,
        requests: &[Request<'_>],
        timeout: Option<Duration>,
    ) -> Result<(RequestId, usize), Error> {
        self.lock().begin_together(requests, timeout)
    }

    /// Waits for the outcome of what this thread has started.
    pub(super) fn finish(
        &self,
        request: RequestId,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Outcome, Error> {
        let mut outcome = None;
        let waited = self.wait(go_on, |shared| {
            outcome = shared.take_outcome(request);
            Progress::done_if(outcome.is_some())
        });
        let mut shared = self.lock();
        if waited.is_ok() {
            shared.settle([request]);
        }
        shared.leave([request]);
        drop(shared);
        waited.and(outcome.ok_or(Error::Interrupted))
    }

    /// Asks, and leaves it to the event loop to collect the outcome, or to nobody.
    pub(super) fn begin(&self, question: Question<'_>, caller: Caller) -> Result<RequestId, Error> {
        self.lock().begin(question, caller)
    }

    /// Sends what is to be sent and takes in what has come, without waiting. What was asked by the
    /// event loop and is answered now.
    pub(super) fn collect(&self) -> Result<Vec<(RequestId, Outcome)>, Error> {
        let mut shared = self.lock();
        if !shared.closed {
            shared.glance()?;
            self.exchange(&mut shared)?;
        }
        Ok(std::mem::take(&mut shared.collected))
    }

    /// Sends what is to be sent and takes in what has come, without waiting. What the event loop
    /// has asked is left for it to collect.
    pub(super) fn look(&self) -> Result<(), Error> {
        let mut shared = self.lock();
        if !shared.closed {
            shared.glance()?;
            self.exchange(&mut shared)?;
        }
        if shared.take_news() {
            self.room.wake_watcher();
        }
        Ok(())
    }

    /// How long until [`Connections::collect`] has to be called again, if nothing comes.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let shared = self.lock();
        shared.poll_timeout().map(|due| due.since(shared.clock.now()))
    }

    /// What an event loop watches: readable when there is something to collect.
    pub(super) const fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    /// Nobody wants the outcomes of these any more.
    pub(super) fn forget(&self, requests: impl IntoIterator<Item = RequestId>) {
        self.lock().leave(requests);
    }

    /// The event loop has these outcomes, and keeps them.
    pub(super) fn settle(&self, requests: impl IntoIterator<Item = RequestId>) {
        self.lock().settle(requests);
    }

    /// Whether a server was heard since a request was last given up.
    pub(super) fn is_available(&self) -> bool {
        self.lock().conversation.is_available()
    }

    /// What was done so far.
    pub(super) fn stats(&self) -> ClientStats {
        self.lock().conversation.stats()
    }

    /// Whether servers share the keys, as far as is known.
    pub(super) fn knows_homes(&self) -> bool {
        self.lock().conversation.knows_homes()
    }

    /// Who is home of what, once a server has said so.
    pub(super) fn home_map(&self) -> Option<HomeMap> {
        self.lock().conversation.home_map().cloned()
    }

    /// Whether a lease is safe by what has been taken in so far.
    pub(super) fn is_safe(&self, link: LinkId, grant: GrantId) -> bool {
        let shared = self.lock();
        shared.conversation.lease_valid_until(shared.clock.now(), link, grant).is_some()
    }

    /// The number of each key's part of what was granted in parts.
    pub(super) fn grants_of(&self, grant: GrantId) -> Vec<GrantId> {
        self.lock().conversation.grants_of(grant)
    }

    /// For how long a lease is safe; `None` if it is lost.
    pub(super) fn lease_remaining(&self, link: LinkId, grant: GrantId) -> Option<Duration> {
        let mut shared = self.lock();
        // The answer that keeps it may have come. What goes wrong goes wrong again for who asks.
        if !shared.closed {
            let _ = shared.glance().and_then(|()| self.exchange(&mut shared).map(drop));
        }
        let now = shared.clock.now();
        let valid_until = shared.conversation.lease_valid_until(now, link, grant);
        if shared.take_news() {
            self.room.wake_watcher();
        }
        valid_until.map(|valid_until| valid_until.since(now))
    }

    /// Waits until a lease is lost. False if it is given back before.
    pub(super) fn wait_for_loss(
        &self,
        (link, grant): (LinkId, GrantId),
        given_back: &dyn Fn() -> bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Error> {
        let mut lost = false;
        self.wait(go_on, |shared| {
            let valid_until =
                shared.conversation.lease_valid_until(shared.clock.now(), link, grant);
            let is_over = given_back();
            lost = valid_until.is_none() && !is_over;
            if lost || is_over { Progress::Done } else { Progress::LookAgain(valid_until) }
        })?;
        Ok(lost)
    }

    /// A lease is given back; its server hears of that sooner or later.
    pub(super) fn release(&self, link: LinkId, grant: GrantId) -> Result<(), Error> {
        self.lock().release(link, grant)
    }

    /// Gives back what is held, and what the threads wait for, which never go on: how many leases
    /// of locks there were.
    pub(super) fn release_all(&self) -> usize {
        let locks = self.lock().release_all();
        // What goes wrong now has no more consequences.
        let _ = self.look();
        locks
    }

    /// What keeps the links from being connected, each problem once.
    pub(super) fn problems(&self) -> String {
        let shared = self.lock();
        let mut problems: Vec<_> = shared.links.iter().filter_map(|link| link.problem()).collect();
        if shared.conversation.hears_of_a_stop() {
            problems.push("the server is stopping".to_owned());
        }
        problems.sort();
        problems.dedup();
        problems.join("; ")
    }

    /// What keeps one link from being connected.
    pub(super) fn problem_of(&self, link: LinkId) -> String {
        let problem = |shared: &Shared| shared.links.get(link.0)?.problem();
        problem(&self.lock()).unwrap_or_default()
    }

    /// Tells all who wait that it is over, and closes the sockets once they are gone.
    pub(super) fn close(&self) {
        self.lock().close();
        self.room.wake_watcher();
        self.keeper.stop();
    }

    /// Waits until `progress`, which looks for what this thread waits for, is done.
    fn wait(
        &self,
        go_on: &mut dyn FnMut() -> bool,
        mut progress: impl FnMut(&mut Shared) -> Progress,
    ) -> Result<(), Error> {
        let mut slice_ends = BootClock.now() + SLICE;
        loop {
            let mut shared = self.lock();
            let now = self.exchange(&mut shared)?;
            let Progress::LookAgain(look_again) = progress(&mut shared) else { return Ok(()) };
            if shared.closed {
                return Err(Error::Closed);
            }
            let due = shared.poll_timeout().into_iter().chain(look_again);
            let until = due.fold(slice_ends, Timestamp::min);
            let clock = shared.clock;
            let watch = shared.become_watcher();
            drop(shared);
            let signalled = if let Some(watch) = watch {
                self.watch(watch, until.since(now))?
            } else {
                thread::park_timeout(until.since(now));
                false
            };
            if signalled || slice_ends <= clock.now() {
                // This thread may be away for a while: another one watches meanwhile.
                self.lock().wake_another();
                if !go_on() {
                    return Err(Error::Interrupted);
                }
                slice_ends = clock.now() + SLICE;
            }
        }
    }

    fn exchange(&self, shared: &mut Shared) -> Result<Timestamp, Error> {
        let now = shared.clock.now();
        shared.exchange(now, || self.room.wake_watcher())?;
        if let Some(due) = shared.next_visit(now) {
            self.keeper.be_there(due)?;
        }
        Ok(now)
    }

    /// Waits for the sockets. Whether a signal came.
    fn watch(&self, mut watch: Watch, length: Duration) -> Result<bool, Error> {
        let polled = watch.poll.poll(&mut watch.events, Some(length));
        self.lock().end_watch(watch);
        match polled {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Error::system("watch sockets", &error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.room.lock()
    }
}

/// A name that no other client has: the standard library draws its keys from the system.
fn session_name() -> [u8; 16] {
    let mut name = [0; 16];
    for half in name.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(BootClock.now()).to_be_bytes());
    }
    name
}

fn who_we_are(name: &str) -> ClientInfo {
    ClientInfo { name: name.into(), host: host_name().into(), pid: std::process::id() }
}
