//! What the threads of a client share: its links, and the conversation over them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use mio::{Events, Poll};

use crate::asking::{LinkId, RequestId};
use crate::config::Url;
use crate::conversation::{Conversation, Input, Outcome, Output};
use crate::engine::{GrantId, Request};
use crate::error::Error;
use crate::net::clock::BootClock;
use crate::net::link::{Link, LinkEvent, Opener};
use crate::time::{Clock, Timestamp};

/// How many messages of a link are taken in before deadlines and signals are looked at.
const ROUNDS_MAX: usize = 256;

/// How often it is looked whether a server has heard of what nobody waits for.
const ERRAND_SLICE: Duration = Duration::from_millis(100);

/// Who waits for the answer to a request.
#[derive(Debug)]
pub(super) enum Caller {
    /// A thread, parked or watching the sockets.
    Thread(Thread),
    /// An event loop, which collects all its answers at once.
    Loop,
    /// Somebody who will look here.
    Mailbox(Mailbox),
    /// Nobody: the request tells something and asks nothing.
    Nobody,
}

/// Where an answer is left for whoever comes to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Arc<Mutex<Option<Outcome>>>);

impl Mailbox {
    pub(super) fn take(&self) -> Option<Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_filled(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn put(&self, outcome: Outcome) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

/// What is asked: the seed's question if there is no request; of which server, if that matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) request: Option<&'a Request<'a>>,
    pub(super) only: Option<LinkId>,
    pub(super) timeout: Option<Duration>,
}

pub(super) struct Shared {
    pub(super) closed: bool,
    pub(super) clock: BootClock,
    pub(super) conversation: Conversation,
    pub(super) links: Vec<Box<dyn Link>>,
    opener: Opener,
    /// The watcher has it while it waits.
    pub(super) watch: Option<Watch>,
    watcher: Option<ThreadId>,
    pub(super) callers: BTreeMap<RequestId, Caller>,
    /// The answers to threads that have not taken them yet.
    outcomes: BTreeMap<RequestId, Outcome>,
    /// The answers to the event loop, which may decline them until it has settled them.
    pub(super) collected: Vec<(RequestId, Outcome)>,
    /// Whether more had come than was taken in.
    behind: bool,
}

/// What it takes to wait for the sockets.
pub(super) struct Watch {
    pub(super) poll: Poll,
    pub(super) events: Events,
}

impl Shared {
    pub(super) fn new(
        conversation: Conversation,
        (links, opener): (Vec<Box<dyn Link>>, Opener),
        poll: Poll,
    ) -> Self {
        Self {
            closed: false,
            clock: BootClock,
            conversation,
            links,
            opener,
            watch: Some(Watch { poll, events: Events::with_capacity(16) }),
            watcher: None,
            callers: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            collected: Vec::new(),
            behind: false,
        }
    }

    /// Starts a request. Its number.
    pub(super) fn begin(
        &mut self,
        question: Question<'_>,
        caller: Caller,
    ) -> Result<RequestId, Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let now = self.clock.now();
        let deadline = question.timeout.map(|timeout| now + timeout);
        let request = self.conversation.ask(now, question.request, question.only, deadline);
        self.callers.insert(request, caller);
        Ok(request)
    }

    /// Gives a lease back. Nobody waits for the answer.
    pub(super) fn release(&mut self, link: LinkId, grant: GrantId) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.conversation.release(self.clock.now(), link, grant);
        Ok(())
    }

    /// Starts several requests of this thread together: their number, and how many of them.
    pub(super) fn begin_together(
        &mut self,
        requests: &[Request<'_>],
        timeout: Option<Duration>,
    ) -> Result<(RequestId, usize), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        let now = self.clock.now();
        let deadline = timeout.map(|timeout| now + timeout);
        let (request, count) = self.conversation.ask_together(now, requests, deadline);
        self.callers.insert(request, Caller::Thread(thread::current()));
        // The server begins while the rest is still made ready.
        self.perform(|| {});
        Ok((request, count))
    }

    /// The outcome of a thread's request, if it is there.
    pub(super) fn take_outcome(&mut self, request: RequestId) -> Option<Outcome> {
        self.outcomes.remove(&request)
    }

    /// Whoever asked all this has the answers, and keeps them.
    pub(super) fn settle(&mut self, requests: impl IntoIterator<Item = RequestId>) {
        for request in requests {
            self.conversation.settle(request);
        }
    }

    /// The caller of all these is done, and what was not settled goes back. If nobody watches now,
    /// somebody else has to.
    pub(super) fn leave(&mut self, requests: impl IntoIterator<Item = RequestId>) {
        let now = self.clock.now();
        for request in requests {
            self.conversation.forget(now, request);
            self.conversation.decline(now, request);
            self.callers.remove(&request);
            self.outcomes.remove(&request);
        }
        self.perform(|| {});
        self.wake_another();
        self.close_if_unused();
    }

    /// No thread goes on, and nothing is held from now on: how many leases of locks there were.
    pub(super) fn release_all(&mut self) -> usize {
        let of_thread = |(request, caller): (&RequestId, &Caller)| {
            matches!(caller, Caller::Thread(_)).then_some(*request)
        };
        let asked: Vec<_> = self.callers.iter().filter_map(of_thread).collect();
        self.leave(asked);
        let locks = self.conversation.release_all(self.clock.now());
        self.perform(|| {});
        locks
    }

    /// If nobody watches, another thread than this one has to.
    pub(super) fn wake_another(&self) {
        if self.watch.is_none() {
            return;
        }
        let this = thread::current().id();
        let other = self.callers.values().find_map(|caller| match caller {
            Caller::Thread(thread) if thread.id() != this => Some(thread),
            _ => None,
        });
        if let Some(thread) = other {
            thread.unpark();
        }
    }

    pub(super) fn close(&mut self) {
        self.conversation.close();
        self.perform(|| {});
        self.closed = true;
        for caller in self.callers.values() {
            if let Caller::Thread(thread) = caller {
                thread.unpark();
            }
        }
        self.close_if_unused();
    }

    fn close_if_unused(&mut self) {
        let waits = |caller: &Caller| matches!(caller, Caller::Thread(_));
        if self.closed && !self.callers.values().any(waits) {
            self.links.clear();
        }
    }

    pub(super) fn become_watcher(&mut self) -> Option<Watch> {
        let watch = self.watch.take()?;
        self.watcher = Some(thread::current().id());
        Some(watch)
    }

    /// Gives the watch back, with what it has seen.
    pub(super) fn end_watch(&mut self, watch: Watch) {
        for event in &watch.events {
            if let Some(link) = self.links.get_mut(event.token().0) {
                link.ready(event);
            }
        }
        self.watch = Some(watch);
        self.watcher = None;
    }

    /// Looks at the sockets without waiting, if nobody else does.
    pub(super) fn glance(&mut self) -> Result<(), Error> {
        let Some(mut watch) = self.watch.take() else { return Ok(()) };
        let polled = watch.poll.poll(&mut watch.events, Some(Duration::ZERO));
        self.end_watch(watch);
        match polled {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::system("watch sockets", &error))
            }
            _ => Ok(()),
        }
    }

    /// When somebody has to come who waits for nothing: for the next beat, or to have a server hear
    /// of what nobody waits for.
    pub(super) fn next_visit(&self, now: Timestamp) -> Option<Timestamp> {
        let errand = self.conversation.has_errands().then(|| now + ERRAND_SLICE);
        errand.into_iter().chain(self.conversation.next_beat()).min()
    }

    /// Whether somebody has to look who may not be awake: the event loop has answers to collect, or
    /// a lease was lost.
    pub(super) fn take_news(&mut self) -> bool {
        self.conversation.take_lost() || !self.collected.is_empty()
    }

    /// Sends what there is to send and hands out what has come, until there is no more of either.
    /// Whether anything has come.
    pub(super) fn exchange(
        &mut self,
        now: Timestamp,
        wake_watcher: impl Fn(),
    ) -> Result<bool, Error> {
        if self.conversation.poll_timeout().is_some_and(|due| due <= now) {
            self.conversation.handle(now, &Input::Tick);
        }
        self.behind = false;
        for round in 0..ROUNDS_MAX {
            self.perform(&wake_watcher);
            // What came may have come long ago: the process may have been stopped meanwhile.
            if !self.poll_links(self.clock.now())? {
                return Ok(round > 0);
            }
        }
        self.behind = true;
        Ok(true)
    }

    /// Does what the conversation wants done.
    pub(super) fn perform(&mut self, wake_watcher: impl Fn()) {
        while let Some(output) = self.conversation.poll_output() {
            match output {
                Output::Send(link, message) => {
                    if let Some(link) = self.links.get_mut(link.0) {
                        link.send(&message);
                    }
                }
                Output::Open(link, url) => self.open(link, &url),
                Output::Finish(request, outcome) => match self.callers.get(&request) {
                    Some(Caller::Thread(thread)) => {
                        self.outcomes.insert(request, outcome);
                        if self.watcher == Some(thread.id()) {
                            wake_watcher();
                        } else if thread.id() != thread::current().id() {
                            thread.unpark();
                        }
                    }
                    Some(Caller::Loop) => {
                        self.callers.remove(&request);
                        self.collected.push((request, outcome));
                    }
                    Some(Caller::Mailbox(mailbox)) => {
                        // It may lie there for long; whoever has the mailbox gives it back.
                        mailbox.put(outcome);
                        self.conversation.settle(request);
                        self.callers.remove(&request);
                    }
                    Some(Caller::Nobody) | None => {
                        self.conversation.settle(request);
                        self.callers.remove(&request);
                    }
                },
            }
        }
    }

    /// Opens one link more. Where that cannot be, it never comes up.
    fn open(&mut self, link: LinkId, url: &str) {
        let Ok(url) = Url::parse(url) else { return };
        if link.0 != self.links.len() {
            return;
        }
        match self.opener.open(link, &url) {
            Ok(opened) => self.links.push(opened),
            Err(error) => log::warn!(target: "zmqlocker", "{url} cannot be connected to: {error}"),
        }
    }

    /// Tells the conversation what happened next on each link. Whether anything did.
    fn poll_links(&mut self, now: Timestamp) -> Result<bool, Error> {
        let mut any = false;
        for (place, link) in self.links.iter_mut().enumerate() {
            let id = LinkId(place);
            if let Some(event) = link.poll(now)? {
                any = true;
                match &event {
                    LinkEvent::Up => self.conversation.handle(now, &Input::Up(id)),
                    LinkEvent::Down => self.conversation.handle(now, &Input::Down(id)),
                    LinkEvent::Denied => self.conversation.handle(now, &Input::Denied(id)),
                    LinkEvent::Message(message) => {
                        self.conversation.handle(now, &Input::Message(id, message));
                    }
                }
            }
        }
        Ok(any)
    }

    /// Whether what is held hangs on something that is still to come.
    pub(super) fn is_keeping_awaited(&self) -> bool {
        self.conversation.is_keeping_unanswered() || self.links.iter().any(|link| link.is_opening())
    }

    /// When the links or the conversation want to see the time again.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        if self.behind {
            return Some(Timestamp::ZERO);
        }
        let links = self.links.iter().filter_map(|link| link.poll_timeout()).min();
        links.into_iter().chain(self.conversation.poll_timeout()).min()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conversation = &self.conversation;
        formatter.debug_struct("Shared").field("conversation", conversation).finish_non_exhaustive()
    }
}
