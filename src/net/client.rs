//! A client: what a caller holds.

use std::os::fd::RawFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::answer::Answer;
use crate::asking::{LinkId, RequestId};
use crate::config::{ClientConfig, Url};
use crate::conversation::{ClientStats, Outcome, TELL_TIMEOUT};
use crate::engine::{Code, GrantId, Reply, Request, Wait};
use crate::error::Error;
use crate::fallback::{Fallback, Policy};
use crate::net::asking_all::AskingAll;
use crate::net::clock::BootClock;
use crate::net::connections::Connections;
use crate::net::exchange::{Caller, Mailbox, Question};
use crate::net::judge::late;
use crate::net::per_process::PerProcess;
use crate::time::Clock;

/// Asks servers for permits. All threads share one connection to each server, and none waits for
/// the answer of another. A forked child makes connections of its own.
#[derive(Debug)]
pub struct Client {
    pub(super) config: ClientConfig,
    closed: AtomicBool,
    connections: PerProcess<Result<Connections, Error>>,
    fallback: Mutex<Fallback>,
    by_policy: AtomicU64,
}

/// A lease or a reservation: which server granted it, under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    link: LinkId,
    grant: GrantId,
}

/// What a request heard, and from which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// None if a policy gave the answer.
    pub(super) link: Option<LinkId>,
    /// The answer.
    pub reply: Reply,
}

impl Granted {
    pub(super) const fn new(link: LinkId, grant: GrantId) -> Self {
        Self { link, grant }
    }

    /// The number of the grant.
    #[must_use]
    pub const fn grant(self) -> GrantId {
        self.grant
    }
}

impl Heard {
    /// Whether no server gave the answer.
    #[must_use]
    pub const fn is_by_policy(&self) -> bool {
        self.link.is_none()
    }

    /// Where to give back what was granted, if it can be given back.
    #[must_use]
    pub fn granted(&self) -> Option<Granted> {
        Some(Granted { link: self.link?, grant: self.reply.grant()? })
    }
}

impl Client {
    /// A client that connects in the background; the servers need not be up yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that can never be connected to, [`Error::System`] if the system
    /// gives no sockets.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let client = Self {
            config,
            closed: AtomicBool::new(false),
            connections: PerProcess::new(),
            fallback: Mutex::default(),
            by_policy: AtomicU64::new(0),
        };
        client.connections()?;
        Ok(client)
    }

    /// Asks for one permit of the key `default` as the seed's clients do, and waits for the answer,
    /// at most for `timeout`; `None` is without an end. Between short slices of the wait, `go_on`
    /// is asked whether to wait any longer.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if no answer came in time, [`Error::Interrupted`] if `go_on` said no,
    /// [`Error::Closed`] if the client is closed, [`Error::Protocol`] if the answer is none.
    pub fn next(
        &self,
        timeout: Option<Duration>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Answer, Error> {
        let connections = self.connections()?;
        let question = Question { request: None, only: None, timeout };
        self.judge_seed(timeout, connections.ask(question, go_on)?)
    }

    /// Asks something in our protocol, and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`Client::next`], but [`Error::Unavailable`] if no server said anything in time,
    /// [`Error::Late`] if the request waited at the server until the end of `timeout`, and
    /// [`Error::Refused`] if it cannot be answered.
    pub fn ask(
        &self,
        request: &Request<'_>,
        to: Option<Granted>,
        timeout: Option<Duration>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Heard, Error> {
        let connections = self.connections()?;
        let started = BootClock.now();
        let mut left = timeout;
        loop {
            let shortened = shorten(request, left);
            let request = shortened.as_ref().unwrap_or(request);
            let only = to.map(|granted| granted.link);
            let question = Question { request: Some(request), only, timeout: left };
            let outcome = connections.ask(question, go_on)?;
            match self.judge(request, timeout, outcome) {
                Err(Error::Refused(problem)) if problem.code == Code::Forgotten => {
                    let gone = BootClock.now().since(started);
                    left = timeout.map(|timeout| timeout.saturating_sub(gone));
                    if left == Some(Duration::ZERO) {
                        let timeout = timeout.unwrap_or_default();
                        return Err(late(request, timeout, String::new()));
                    }
                }
                judged => return judged,
            }
        }
    }

    /// Asks several things at once, each by itself; `policy` answers what no server does. They are
    /// sent when their answers are waited for, and given up when what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn acquire_all<'a>(
        &'a self,
        requests: &'a [Request<'a>],
        timeout: Option<Duration>,
        policy: &'a Policy,
    ) -> Result<AskingAll<'a>, Error> {
        let connections = self.connections()?;
        Ok(AskingAll::new(self, connections, requests, timeout, policy))
    }

    /// Asks for permits, and answers by `policy` if no server does.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`]; with a policy other than [`Policy::Raise`] never [`Error::Unavailable`].
    pub fn acquire(
        &self,
        request: &Request<'_>,
        timeout: Option<Duration>,
        policy: &Policy,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Heard, Error> {
        if !matches!(policy, Policy::Raise) && !self.is_reachable()? {
            return Ok(self.fall_back(request, policy));
        }
        match self.ask(request, None, timeout, go_on) {
            Err(Error::Unavailable { .. }) if !matches!(policy, Policy::Raise) => {
                Ok(self.fall_back(request, policy))
            }
            asked => asked,
        }
    }

    /// The numbers of what was granted, for each key of its request, if they differ: several
    /// servers that share the keys number their grants each by itself. None if all have that of the
    /// grant.
    #[must_use]
    pub fn grants(&self, granted: Granted) -> Vec<GrantId> {
        self.connections().map_or_else(|_| Vec::new(), |it| it.grants_of(granted.grant))
    }

    /// The answer of a policy.
    #[must_use]
    pub fn fall_back(&self, request: &Request<'_>, policy: &Policy) -> Heard {
        self.by_policy.fetch_add(1, Ordering::Relaxed);
        let mut fallback = self.fallback.lock().unwrap_or_else(PoisonError::into_inner);
        let decision = fallback.decide(BootClock.now(), request, policy);
        Heard { link: None, reply: Reply::Decision(decision) }
    }

    /// Whether a server was heard since a request was last given up; looks once, and does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn is_reachable(&self) -> Result<bool, Error> {
        let connections = self.connections()?;
        if connections.is_available() {
            return Ok(true);
        }
        connections.look()?;
        Ok(connections.is_available())
    }

    /// Asks something, and leaves the answer to [`Client::collect`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn begin(
        &self,
        request: &Request<'_>,
        to: Option<Granted>,
        timeout: Option<Duration>,
    ) -> Result<RequestId, Error> {
        let only = to.map(|granted| granted.link);
        let question = Question { request: Some(request), only, timeout };
        self.connections()?.begin(question, Caller::Loop)
    }

    /// Tells the server that granted something what becomes of it. Nobody waits for its answer. If
    /// it cannot be told for a while, it is told of a lease when it can be, and of anything else by
    /// its own clock.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn tell(&self, request: &Request<'_>, granted: Granted) -> Result<(), Error> {
        if let Request::Release { .. } = request {
            return self.connections()?.release(granted.link, granted.grant);
        }
        let (only, timeout) = (Some(granted.link), Some(TELL_TIMEOUT));
        let question = Question { request: Some(request), only, timeout };
        self.connections()?.begin(question, Caller::Nobody).map(drop)
    }

    /// Asks something, sends it at once, and leaves the answer in a mailbox.
    pub(super) fn begin_for(
        &self,
        request: &Request<'_>,
        mailbox: Mailbox,
    ) -> Result<RequestId, Error> {
        let question = Question { request: Some(request), only: None, timeout: None };
        let connections = self.connections()?;
        let id = connections.begin(question, Caller::Mailbox(mailbox))?;
        connections.look()?;
        Ok(id)
    }

    /// Asks for one permit as the seed's clients do, and leaves the answer to [`Client::collect`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn begin_next(&self, timeout: Option<Duration>) -> Result<RequestId, Error> {
        let question = Question { request: None, only: None, timeout };
        self.connections()?.begin(question, Caller::Loop)
    }

    /// Sends what was asked, takes in what has come, and gives what is answered. Does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn collect(&self) -> Result<Vec<(RequestId, Outcome)>, Error> {
        self.connections()?.collect()
    }

    /// Sends what was asked and takes in what has come, but leaves it to [`Client::collect`]. Does
    /// not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn look(&self) -> Result<(), Error> {
        self.connections()?.look()
    }

    /// Nobody wants the answers to these requests any more: what was granted with them goes back.
    pub fn forget(&self, requests: impl IntoIterator<Item = RequestId>) {
        if let Ok(connections) = self.connections() {
            connections.forget(requests);
        }
    }

    /// The outcomes that were collected are in the hands of those who asked: they are not given
    /// back any more.
    pub fn settle(&self, requests: impl IntoIterator<Item = RequestId>) {
        if let Ok(connections) = self.connections() {
            connections.settle(requests);
        }
    }

    /// What an event loop watches: readable when [`Client::collect`] has something to do.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn descriptor(&self) -> Result<RawFd, Error> {
        Ok(self.connections()?.descriptor())
    }

    /// How long until [`Client::collect`] has to be called, if nothing comes before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.connections().ok()?.poll_timeout()
    }

    /// What this client has done so far, in this process.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn stats(&self) -> Result<ClientStats, Error> {
        let by_policy = self.by_policy.load(Ordering::Relaxed);
        // What has come is to be seen, even if nobody waits for it.
        self.look()?;
        Ok(ClientStats { by_policy, ..self.connections()?.stats() })
    }

    /// Whether a lease is safe by what has been taken in so far.
    pub(super) fn is_safe(&self, granted: Granted) -> bool {
        let Ok(connections) = self.connections() else { return false };
        connections.is_safe(granted.link, granted.grant)
    }

    /// For how long a lease is safe; `None` if it is lost.
    #[must_use]
    pub fn lease_remaining(&self, granted: Granted) -> Option<Duration> {
        self.connections().ok()?.lease_remaining(granted.link, granted.grant)
    }

    /// Waits until a lease is lost. False if it is given back before.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if `go_on` said no, [`Error::Closed`] if the client is closed.
    pub fn wait_for_loss(
        &self,
        granted: Granted,
        given_back: &dyn Fn() -> bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Error> {
        self.connections()?.wait_for_loss((granted.link, granted.grant), given_back, go_on)
    }

    /// Gives back all leases that are renewed, and what the threads of this process wait for, which
    /// never go on: the process ends. How many leases of locks there were.
    pub fn release_all(&self) -> usize {
        match self.connections.get() {
            Some(Ok(connections)) => connections.release_all(),
            _ => 0,
        }
    }

    /// Opens the connections of this process, if they are not open yet. Does not wait for a server.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed, [`Error::System`] if the system gives no sockets.
    pub fn open(&self) -> Result<(), Error> {
        self.connections().map(drop)
    }

    /// Ends all waits with [`Error::Closed`] and closes the connections.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(Ok(connections)) = self.connections.get() {
            connections.close();
        }
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// How long a call waits if it does not say so itself.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.config.timeout
    }

    /// The servers, in the order in which they were given.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.config.urls
    }

    pub(super) fn connections(&self) -> Result<&Connections, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let open = || Connections::open(&self.config);
        let connections = self.connections.get_or_init(open).as_ref().map_err(Error::clone)?;
        if self.closed.load(Ordering::Acquire) {
            // Closed while they were opened, by a thread that found nothing to close.
            connections.close();
        }
        Ok(connections)
    }
}

/// A request that waits no longer at the server than its caller has left.
fn shorten<'a>(request: &Request<'a>, left: Option<Duration>) -> Option<Request<'a>> {
    match (request, left) {
        (Request::Acquire { demand, wait: Wait::UpTo(length), hold }, Some(left))
            if left < *length =>
        {
            let (demand, hold) = (demand.clone(), *hold);
            Some(Request::Acquire { demand, wait: Wait::UpTo(left), hold })
        }
        (Request::Lock { wanted, wait: Wait::UpTo(length) }, Some(left)) if left < *length => {
            Some(Request::Lock { wanted: wanted.clone(), wait: Wait::UpTo(left) })
        }
        _ => None,
    }
}
