//! `LockerClient`: asks a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use smallvec::SmallVec;

use crate::config::{ClientConfig, Span};
use crate::engine::{Hold, Reply, Request, Term, Wait};
use crate::error::Error;
use crate::fallback::Policy;
use crate::net::{Client, Heard, PerProcess, client_keys};
use crate::python::argument::{Count, Given, Seconds, Timeout, Urls, timeout, token};
use crate::python::decision::Decision;
use crate::python::demand::{Wanted, named, wait_up_to};
use crate::python::held::Held;
use crate::python::limit::limits;
use crate::python::lock::LockWish;
use crate::python::locker::word;
use crate::python::status::{look, seen, stats};
use crate::python::{door, exit};

/// How long a call waits that is none of the seed's and does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the server at `url` for permits; of several servers, those that answer.
///
/// The server need not be up yet, and may be restarted at any time. Threads may share a client. A
/// forked child may go on with it: it makes connections of its own.
///
/// `timeout` is how many seconds a call waits for an answer; `None` is without an end. Where it is
/// left out, `next()` waits without an end and all other calls wait 10 seconds. `name` is shown to
/// those who look at the server.
///
/// `on_failure` says what becomes of a request for permits that no server answers in time: "raise"
/// raises `ServerUnavailable`, "open" allows it, "closed" refuses it, and "share" counts it here
/// against `share`, a limit such as "60/min" that each key has. Until a server is heard again, the
/// policy answers at once.
///
/// `server_key` is the public key of servers that have one, as text or as the path of its file, and
/// `key_file` the path of the secret key of this client, which such servers know: both are made by
/// `zmqlocker keygen`. Everything is encrypted then. Where a key is missing or wrong, what is asked
/// raises `AuthError`.
///
/// Raises `ConfigError` for a URL that can never work, or an argument that is out of its bounds.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct LockerClient {
    pub(super) client: Arc<Client>,
    timeout: Option<Duration>,
    policy: Policy,
    share: Option<Policy>,
    /// Whether this process gives back at its end what it holds.
    ends_cleanly: PerProcess<()>,
}

impl LockerClient {
    /// How long a call waits.
    pub(super) fn timeout(&self, given: Given<Timeout>) -> Result<Option<Duration>, Error> {
        match given {
            Given::Nothing => Ok(self.timeout),
            Given::Value(seconds) => timeout(seconds),
        }
    }

    /// The policy of a call.
    pub(super) fn policy(&self, given: Option<&str>) -> Result<Policy, Error> {
        given.map_or_else(|| Ok(self.policy.clone()), |name| policy(name, self.share.as_ref()))
    }

    /// With the GIL, so that no thread can fork while the connections are half made.
    pub(super) fn open(&self, py: Python<'_>) -> PyResult<()> {
        self.client.open()?;
        if self.ends_cleanly.get().is_none() {
            exit::release_at_exit(py, &self.client)?;
            self.ends_cleanly.get_or_init(|| ());
        }
        Ok(())
    }

    fn ask(
        &self,
        py: Python<'_>,
        request: &Request<'_>,
        timeout: Option<Duration>,
    ) -> PyResult<Heard> {
        self.open(py)?;
        door::wait(py, |go_on| self.client.ask(request, None, timeout, go_on))
    }

    fn acquire_or_fail(
        &self,
        py: Python<'_>,
        wanted: &Wanted,
        wait: Wait,
        timeout: Option<Duration>,
        on_failure: Option<&str>,
    ) -> PyResult<Decision> {
        let policy = self.policy(on_failure)?;
        self.open(py)?;
        let request = wanted.request(py, wait, Hold::Spend)?;
        let heard = door::wait(py, |go_on| self.client.acquire(&request, timeout, &policy, go_on))?;
        decide(py, heard, wanted, &policy)
    }
}

#[pymethods]
impl LockerClient {
    #[new]
    #[pyo3(text_signature = "(url='tcp://localhost:7777', *, name='', timeout=..., \
                             on_failure='raise', share=None, server_key=None, key_file=None)")]
    #[pyo3(signature = (
        url: "str | list[str] | tuple[str, ...]" = Urls::One("tcp://localhost:7777".to_owned()),
        *, name="", timeout=Given::Nothing, on_failure="raise",
        share: "str | Limit | Sequence[str | Limit] | None" = None,
        server_key: "str | PathLike[str] | None" = None,
        key_file: "str | PathLike[str] | None" = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's are named")]
    fn new(
        url: Urls,
        name: &str,
        timeout: Given<Timeout>,
        on_failure: &str,
        share: Option<&Bound<'_, PyAny>>,
        server_key: Option<PathBuf>,
        key_file: Option<PathBuf>,
    ) -> PyResult<Self> {
        let (of_next, of_others) = match timeout {
            Given::Nothing => (None, Some(TIMEOUT)),
            Given::Value(seconds) => {
                let timeout = self::timeout(seconds)?;
                (timeout, timeout)
            }
        };
        let keys = client_keys(server_key.as_deref(), key_file.as_deref())?;
        let config = ClientConfig::new(url.parse()?, of_next)?.named(name)?.with_keys(keys)?;
        let share = share.map(limits).transpose()?.map(|limits| Policy::Share(Arc::new(limits)));
        let policy = policy(on_failure, share.as_ref())?;
        let client = Arc::new(Client::new(config)?);
        let ends_cleanly = PerProcess::new();
        Ok(Self { client, timeout: of_others, policy, share, ends_cleanly })
    }

    /// Asks for one permit of `key`: "go", or "sorry" if there is none. Where the server has
    /// `patience`, the answer may take so long.
    ///
    /// Waits for a server that is not up. `timeout`, in seconds, replaces the client's own.
    ///
    /// Raises `LockTimeout` if no answer came in time, `ProtocolError` if what answered is no
    /// server of this kind, `LockerError` if the client is closed.
    #[pyo3(signature = (key=None, *, timeout=Given::Nothing))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        key: Option<&Bound<'py, PyAny>>,
        timeout: Given<Timeout>,
    ) -> PyResult<&Bound<'py, PyString>> {
        let timeout = match timeout {
            Given::Nothing => self.client.timeout(),
            Given::Value(seconds) => self::timeout(seconds)?,
        };
        self.open(py)?;
        let Some(key) = key else {
            let answer = door::wait(py, |go_on| self.client.next(timeout, go_on))?;
            return Ok(word(py, answer));
        };
        let wanted = Wanted::parse(key, None)?;
        let heard = self.ask(py, &wanted.request(py, Wait::Patience, Hold::Spend)?, timeout)?;
        Ok(word(py, answer(&heard)))
    }

    /// Asks for `cost` permits of `key`, and does not wait for them. With a dict of keys and costs,
    /// all of them or none.
    ///
    /// Raises `CostTooLarge` if they can never be granted, `KindMismatch` for a concurrency limit,
    /// `ConfigError` for a key without limits, and `ServerUnavailable` if no server answers in
    /// `timeout` seconds and the policy is to raise.
    #[pyo3(signature = (
        key: "str | dict[str, int]", cost=None, *, timeout=Given::Nothing, on_failure=None
    ))]
    fn try_acquire(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        cost: Option<Count>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
    ) -> PyResult<Decision> {
        let timeout = self.timeout(timeout)?;
        let wanted = Wanted::parse(key, cost)?;
        self.acquire_or_fail(py, &wanted, Wait::No, timeout, on_failure)
    }

    /// Asks for permits of many keys at once, each by itself: a decision for each, in their order.
    ///
    /// Raises what `try_acquire()` raises, for the first key that has it.
    #[pyo3(signature = (
        keys: "Iterable[str | dict[str, int]]", *, timeout=Given::Nothing, on_failure=None
    ))]
    fn try_acquire_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
    ) -> PyResult<Vec<Bound<'py, Decision>>> {
        let (timeout, policy) = (self.timeout(timeout)?, self.policy(on_failure)?);
        let wanted = keys.try_iter()?.map(|key| Wanted::parse(&key?, None));
        let wanted = wanted.collect::<PyResult<Vec<_>>>()?;
        let requests = wanted.iter().map(|wanted| wanted.request(py, Wait::No, Hold::Spend));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        self.open(py)?;
        let mut all = self.client.acquire_all(&requests, timeout, &policy)?;
        let mut decisions = Vec::with_capacity(wanted.len());
        while let Some(some) = door::wait(py, |go_on| all.next_answers(go_on))? {
            for heard in some {
                let decision = decide(py, heard, &wanted[decisions.len()], &policy)?;
                decisions.push(Bound::new(py, decision)?);
            }
            py.check_signals()?;
        }
        Ok(decisions)
    }

    /// Asks for `cost` permits of `key`, and waits for them in the server's queue: first come,
    /// first served, over all clients. With a dict of keys and costs, all of them or none.
    ///
    /// Raises `LockTimeout` if they were not granted in `timeout` seconds, and what `try_acquire()`
    /// raises.
    #[pyo3(signature = (
        key: "str | dict[str, int]", cost=None, *, timeout=Given::Nothing, on_failure=None
    ))]
    fn acquire(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        cost: Option<Count>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
    ) -> PyResult<Decision> {
        let timeout = self.timeout(timeout)?;
        let wanted = Wanted::parse(key, cost)?;
        let wait = wait_up_to(timeout);
        self.acquire_or_fail(py, &wanted, wait, timeout, on_failure)
    }

    /// What the answer to a request would be. Takes nothing.
    #[pyo3(signature = (key, cost=None, *, timeout=Given::Nothing))]
    fn peek(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyString>,
        cost: Option<Count>,
        timeout: Given<Timeout>,
    ) -> PyResult<Decision> {
        let timeout = self.timeout(timeout)?;
        let wanted = Wanted::parse(key, cost)?;
        let (key, cost) = wanted.demand(py)?.parts()[0];
        let heard = self.ask(py, &Request::Peek { key, cost }, timeout)?;
        decide(py, heard, &wanted, &Policy::Raise)
    }

    /// Forgets everything that was used of `key`, and a freeze. Leases stay.
    #[pyo3(signature = (key, *, timeout=Given::Nothing))]
    fn reset(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyString>,
        timeout: Given<Timeout>,
    ) -> PyResult<()> {
        let timeout = self.timeout(timeout)?;
        self.ask(py, &Request::Reset { key: named(key)? }, timeout).map(drop)
    }

    /// Lets nobody have a permit of `key` for so many seconds: after a 429, the whole fleet pauses.
    #[pyo3(signature = (key, seconds, *, timeout=Given::Nothing))]
    fn freeze(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyString>,
        seconds: Seconds,
        timeout: Given<Timeout>,
    ) -> PyResult<()> {
        let length = Span::NotNegative.parse("seconds", seconds.0)?;
        let timeout = self.timeout(timeout)?;
        self.ask(py, &Request::Freeze { key: named(key)?, length }, timeout).map(drop)
    }

    /// Gives `key` other limits while the server runs. What was used stays used.
    ///
    /// Raises `KindMismatch` if only one of the old and the new limits have a concurrency limit.
    #[pyo3(signature = (
        key, limits: "str | Limit | Sequence[str | Limit]", *, timeout=Given::Nothing
    ))]
    fn set_limits(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyString>,
        limits: &Bound<'_, PyAny>,
        timeout: Given<Timeout>,
    ) -> PyResult<()> {
        let timeout = self.timeout(timeout)?;
        let limits = self::limits(limits)?;
        let texts = (0..limits.count()).map(|place| &**limits.text(place)).collect();
        self.ask(py, &Request::SetLimits { key: named(key)?, limits: texts }, timeout).map(drop)
    }

    /// Takes permits that can be given back: leases of `ttl` seconds, or a reservation.
    #[pyo3(signature = (
        key: "str | dict[str, int]", cost=None, *, ttl=None, timeout=Given::Nothing,
        on_failure=None
    ))]
    fn _hold(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        cost: Option<Count>,
        ttl: Option<Seconds>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
    ) -> PyResult<Held> {
        let (timeout, policy) = (self.timeout(timeout)?, self.policy(on_failure)?);
        let wanted = Wanted::parse(key, cost)?;
        let hold = hold(ttl)?;
        self.open(py)?;
        let request = wanted.request(py, wait_up_to(timeout), hold)?;
        let heard = door::wait(py, |go_on| self.client.acquire(&request, timeout, &policy, go_on))?;
        Held::new(py, &self.client, wanted, hold, heard, &policy)
    }

    /// Takes locks: waits for them, or not. `None` if they were not to be had without a wait.
    #[pyo3(signature = (wish, actor, wait, timeout=Given::Nothing))]
    fn _lock(
        &self,
        py: Python<'_>,
        wish: &LockWish,
        actor: u64,
        wait: bool,
        timeout: Given<Timeout>,
    ) -> PyResult<Option<Held>> {
        let timeout = self.timeout(timeout).map_err(|error| wish.told(py, error))?;
        let wait = if wait { wait_up_to(timeout) } else { Wait::No };
        let heard = self.ask(py, &wish.request(py, actor, wait)?, timeout)?;
        let held = heard.granted().is_some();
        held.then(|| {
            Held::new(py, &self.client, wish.wanted(py), wish.hold(), heard, &Policy::Raise)
        })
        .transpose()
    }

    /// Takes a lock from its holders; with `token`, only from the one that has it, which must be
    /// current. They are told.
    ///
    /// Raises `NotHeld` if nobody holds it, or the token is not current.
    #[pyo3(signature = (key, *, token=None, timeout=Given::Nothing))]
    fn break_lock(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyString>,
        token: Option<Count>,
        timeout: Given<Timeout>,
    ) -> PyResult<()> {
        let timeout = self.timeout(timeout)?;
        let request = Request::Break { key: named(key)?, grant: self::token(token)? };
        self.ask(py, &request, timeout).map(drop)
    }

    /// A page of what a server tells to those who only look, and where to ask on.
    #[pyo3(signature = (what, start, timeout=Given::Nothing))]
    fn _look<'py>(
        &self,
        py: Python<'py>,
        what: &str,
        start: u64,
        timeout: Given<Timeout>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let heard = self.ask(py, &look(what, start), self.timeout(timeout)?)?;
        seen(py, heard.reply)
    }

    /// What this client has done so far in this process: requests, answers, timeouts, retries,
    /// reconnects, decisions by policy, how many seconds it waited for answers in all and at most;
    /// and at present: requests under way, leases, and of its servers how many it is connected to
    /// and how many of those answer.
    fn stats(&self, py: Python<'_>) -> PyResult<BTreeMap<&'static str, Py<PyAny>>> {
        let counted = py.detach(|| self.client.stats())?;
        stats(py, &counted)
    }

    /// Waits until what is held is given back: `spent` of a reservation, all of a lease.
    #[pyo3(signature = (held, spent=None))]
    fn _give_back(&self, py: Python<'_>, held: &Held, spent: Option<Vec<u64>>) -> PyResult<()> {
        let left = held.left();
        let Some((granted, request)) = held.give_back(spent.map(SmallVec::from)) else {
            return Ok(());
        };
        let timeout = until_over(self.timeout, left);
        door::wait(py, |go_on| {
            match self.client.ask(&request, Some(granted), timeout.or(self.timeout), go_on) {
                Err(Error::Unavailable { .. }) if timeout.is_some() => Ok(()),
                asked => asked.map(drop),
            }
        })
    }

    /// How many seconds a call waits that does not say so itself, unless it is `next()`.
    #[getter]
    fn default_timeout(&self) -> Option<f64> {
        self.timeout.map(|timeout| timeout.as_secs_f64())
    }

    /// Closes the connections. Calls that wait in other threads end with `LockerError`.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.client.close());
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*exception: "object"))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) {
        let _ = exception;
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let urls = self.client.urls();
        let urls: Vec<_> = urls.iter().map(|url| format!("{:?}", url.as_str())).collect();
        match urls.as_slice() {
            [url] => format!("zmqlocker.LockerClient({url})"),
            urls => format!("zmqlocker.LockerClient([{}])", urls.join(", ")),
        }
    }
}

/// How long it is waited for a server to take a lease back that is over by itself after `left`, if
/// that is no longer than the caller would wait.
pub(super) fn until_over(timeout: Option<Duration>, left: Option<Duration>) -> Option<Duration> {
    left.filter(|left| timeout.is_none_or(|timeout| *left <= timeout))
}

/// How permits are held: leased for `ttl`, or reserved.
pub(super) fn hold(ttl: Option<Seconds>) -> Result<Hold, Error> {
    match ttl {
        None => Ok(Hold::Reserve),
        Some(Seconds(ttl)) => Term::parse(("ttl", ttl), ("max_hold", None)).map(Hold::Lease),
    }
}

/// The policy of that name.
fn policy(name: &str, share: Option<&Policy>) -> Result<Policy, Error> {
    let bad = |problem| Err(Error::Config { argument: "on_failure", problem });
    match (name, share) {
        ("raise", _) => Ok(Policy::Raise),
        ("open", _) => Ok(Policy::Open),
        ("closed", _) => Ok(Policy::Closed),
        ("share", Some(share)) => Ok(share.clone()),
        ("share", None) => {
            bad("\"share\" needs the client's `share`, such as \"60/min\"".to_owned())
        }
        _ => bad(format!("must be \"raise\", \"open\", \"closed\" or \"share\", not {name:?}")),
    }
}

/// The decision in an answer; of the policy, if no server gave one.
pub(super) fn decide(
    py: Python<'_>,
    heard: Heard,
    wanted: &Wanted,
    policy: &Policy,
) -> PyResult<Decision> {
    let by_policy = heard.is_by_policy().then(|| policy.name());
    match heard.reply {
        Reply::Decision(decision) => Ok(Decision::new(py, decision, wanted, by_policy)),
        other => Err(Error::unexpected(&other).into()),
    }
}

/// The seed's word for an answer.
pub(super) fn answer(heard: &Heard) -> crate::answer::Answer {
    match &heard.reply {
        Reply::Decision(decision) if decision.allowed => crate::answer::Answer::Go,
        _ => crate::answer::Answer::Sorry,
    }
}
