//! `EventLoopClient`: the client of an event loop, which waits for futures and never for sockets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyString;
use smallvec::SmallVec;

use crate::asking::RequestId;
use crate::config::Span;
use crate::conversation::Outcome;
use crate::engine::{Cost, Hold, Key, Request, Wait};
use crate::error::Error;
use crate::fallback::Policy;
use crate::net::{BootClock, Client, Heard};
use crate::python::argument::{Count, Given, Seconds, Timeout, timeout, token};
use crate::python::block::Block;
use crate::python::client::{LockerClient, answer, decide, hold, until_over};
use crate::python::demand::{Wanted, named, wait_up_to};
use crate::python::held::Held;
use crate::python::limit::limits;
use crate::python::lock::LockWish;
use crate::python::locker::word;
use crate::python::status::{look, seen};
use crate::time::{Clock, Timestamp};

/// Asks on behalf of an event loop. Each request gets a future; `collect()` sends what was asked,
/// and resolves the futures whose answers have come. `fileno()` is readable when there is something
/// to collect.
#[pyclass(frozen, module = "zmqlocker._zmqlocker")]
pub(super) struct EventLoopClient {
    client: Py<LockerClient>,
    waiting: Mutex<BTreeMap<RequestId, Waiting>>,
}

/// How long a caller waits, and how much of that is left.
#[derive(Clone, Copy)]
struct Waits {
    timeout: Option<Duration>,
    left: Option<Duration>,
}

impl From<Option<Duration>> for Waits {
    fn from(timeout: Option<Duration>) -> Self {
        Self { timeout, left: timeout }
    }
}

/// A future, and what it is to become.
struct Waiting {
    future: Py<PyAny>,
    timeout: Option<Duration>,
    asked: Asked,
}

/// What was asked for.
enum Asked {
    Seed,
    Word(Wanted),
    Permits(Wanted, Wait, Policy),
    Peek(Wanted),
    Hold(Wanted, Hold, Policy),
    Lock(Py<LockWish>, u64, Wait),
    Look,
    Refill(Py<Block>, Timestamp),
    /// That a lease is taken back: until it is over by itself.
    Release,
    Nothing,
}

impl EventLoopClient {
    fn client(&self) -> &Arc<Client> {
        &self.client.get().client
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<RequestId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timeout(&self, given: Given<Timeout>) -> Result<Option<Duration>, Error> {
        self.client.get().timeout(given)
    }

    fn waits(&self, given: Given<Timeout>, left: Option<Seconds>) -> Result<Waits, Error> {
        let all = Waits::from(self.timeout(given)?);
        Ok(if left.is_some() { Waits { left: self::timeout(left)?, ..all } } else { all })
    }

    fn begin(
        &self,
        request: &Request<'_>,
        future: Py<PyAny>,
        waits: impl Into<Waits>,
        asked: impl FnOnce() -> Asked,
    ) -> PyResult<u64> {
        let Waits { timeout, left } = waits.into();
        let id = self.client().begin(request, None, left)?;
        self.waiting().insert(id, Waiting { future, timeout, asked: asked() });
        Ok(id.0)
    }

    /// What a future becomes.
    fn outcome<'py>(
        &self,
        py: Python<'py>,
        waiting: &Waiting,
        outcome: Outcome,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.client();
        if matches!(waiting.asked, Asked::Seed) {
            let answer = client.judge_seed(waiting.timeout, outcome)?;
            return Ok(word(py, answer).clone().into_any());
        }
        let request = match &waiting.asked {
            Asked::Word(wanted) => Some(wanted.request(py, Wait::Patience, Hold::Spend)?),
            Asked::Permits(wanted, wait, _) => Some(wanted.request(py, *wait, Hold::Spend)?),
            Asked::Hold(wanted, hold, _) => {
                Some(wanted.request(py, wait_up_to(waiting.timeout), *hold)?)
            }
            Asked::Lock(wish, actor, wait) => Some(wish.get().request(py, *actor, *wait)?),
            _ => None,
        };
        let key = Key::DEFAULT;
        let request = request.unwrap_or(Request::Reset { key });
        let judged = client.judge(&request, waiting.timeout, outcome);
        let heard: Heard = match (&waiting.asked, judged) {
            (
                Asked::Permits(_, _, policy) | Asked::Hold(_, _, policy),
                Err(Error::Unavailable { .. }),
            ) if !matches!(policy, Policy::Raise) => client.fall_back(&request, policy),
            (Asked::Release, Err(Error::Unavailable { .. })) => {
                return Ok(py.None().into_bound(py));
            }
            (_, judged) => judged?,
        };
        match &waiting.asked {
            Asked::Word(_) => Ok(word(py, answer(&heard)).clone().into_any()),
            Asked::Permits(wanted, _, policy) => {
                Ok(Bound::new(py, decide(py, heard, wanted, policy)?)?.into_any())
            }
            Asked::Peek(wanted) => {
                Ok(Bound::new(py, decide(py, heard, wanted, &Policy::Raise)?)?.into_any())
            }
            Asked::Hold(wanted, hold, policy) => {
                let lease = Held::new(py, client, wanted.copy(py), *hold, heard, policy)?;
                Ok(Bound::new(py, lease)?.into_any())
            }
            Asked::Lock(..) if heard.granted().is_none() => Ok(py.None().into_bound(py)),
            Asked::Lock(wish, ..) => {
                let wish = wish.get();
                let lease =
                    Held::new(py, client, wish.wanted(py), wish.hold(), heard, &Policy::Raise)?;
                Ok(Bound::new(py, lease)?.into_any())
            }
            Asked::Look => seen(py, heard.reply),
            Asked::Refill(block, sent_at) => {
                block.get().lender.receive(*sent_at, heard)?;
                Ok(py.None().into_bound(py))
            }
            Asked::Release | Asked::Nothing => Ok(py.None().into_bound(py)),
            Asked::Seed => Err(Error::unexpected(&heard).into()),
        }
    }

    /// What a policy says, if no server is there.
    fn by_policy(&self, request: &Request<'_>, policy: &Policy) -> PyResult<Option<Heard>> {
        let client = self.client();
        if matches!(policy, Policy::Raise) || client.is_reachable()? {
            return Ok(None);
        }
        Ok(Some(client.fall_back(request, policy)))
    }
}

#[pymethods]
impl EventLoopClient {
    #[new]
    fn new(client: Py<LockerClient>) -> Self {
        Self { client, waiting: Mutex::default() }
    }

    /// The descriptor that an event loop watches.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.client.get().open(py)?;
        Ok(self.client().descriptor()?)
    }

    /// In how many seconds `collect()` has to be called, if nothing comes; `None` if not at all.
    fn poll_timeout(&self) -> Option<f64> {
        self.client().poll_timeout().map(|length| length.as_secs_f64())
    }

    /// Sends what was asked and resolves the futures whose answers have come.
    fn collect(&self, py: Python<'_>) -> PyResult<()> {
        for (id, outcome) in self.client().collect()? {
            let Some(waiting) = self.waiting().remove(&id) else { continue };
            let future = waiting.future.bind(py);
            if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            match self.outcome(py, &waiting, outcome) {
                Ok(result) => future.call_method1(pyo3::intern!(py, "set_result"), (result,))?,
                Err(error) => {
                    let exception = error.into_value(py);
                    future.call_method1(pyo3::intern!(py, "set_exception"), (exception,))?
                }
            };
        }
        Ok(())
    }

    /// Whoever asked has the answers to these requests, and keeps them.
    fn settle(&self, requests: Vec<u64>) {
        self.client().settle(requests.into_iter().map(RequestId));
    }

    /// Nobody wants the answers to these requests any more, even those that have come: what was
    /// granted with them goes back.
    fn decline(&self, requests: Vec<u64>) {
        let requests = requests.into_iter().map(RequestId);
        for request in requests.clone() {
            self.waiting().remove(&request);
        }
        self.client().forget(requests);
    }

    /// All requests that are under way end with this exception.
    fn abandon(&self, py: Python<'_>, exception: &Bound<'_, PyAny>) -> PyResult<()> {
        let waiting = std::mem::take(&mut *self.waiting());
        self.client().forget(waiting.keys().copied());
        for waiting in waiting.into_values() {
            let future = waiting.future.bind(py);
            if !future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
                future.call_method1(pyo3::intern!(py, "set_exception"), (exception,))?;
            }
        }
        Ok(())
    }

    #[pyo3(signature = (future, key, timeout: "object"))]
    fn next(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = match timeout {
            Given::Nothing => self.client().timeout(),
            Given::Value(seconds) => self::timeout(seconds)?,
        };
        let Some(key) = key else {
            let id = self.client().begin_next(timeout)?;
            self.waiting().insert(id, Waiting { future, timeout, asked: Asked::Seed });
            return Ok(id.0);
        };
        let wanted = Wanted::parse(key, None)?;
        let request = wanted.request(py, Wait::Patience, Hold::Spend)?;
        self.begin(&request, future, timeout, || Asked::Word(wanted.copy(py)))
    }

    /// The number of the request, or 0 if a policy decided that has not to ask. `left` is what is
    /// left of the timeout, where not all of it is.
    #[pyo3(signature = (future, wait, key, cost, timeout: "object", on_failure, left=None))]
    #[allow(clippy::too_many_arguments, reason = "one caller hands on what Python named")]
    fn acquire(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        wait: bool,
        key: &Bound<'_, PyAny>,
        cost: Option<Count>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
        left: Option<Seconds>,
    ) -> PyResult<u64> {
        let waits = self.waits(timeout, left)?;
        let wanted = Wanted::parse(key, cost)?;
        let policy = self.client.get().policy(on_failure)?;
        let wait = if wait { wait_up_to(waits.left) } else { Wait::No };
        let request = wanted.request(py, wait, Hold::Spend)?;
        if let Some(heard) = self.by_policy(&request, &policy)? {
            let decision = decide(py, heard, &wanted, &policy)?;
            future.call_method1(py, pyo3::intern!(py, "set_result"), (decision,))?;
            return Ok(0);
        }
        self.begin(&request, future, waits, || Asked::Permits(wanted.copy(py), wait, policy))
    }

    #[pyo3(signature = (future, key, cost, timeout: "object"))]
    fn peek(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        key: &Bound<'_, PyString>,
        cost: Option<Count>,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let wanted = Wanted::parse(key, cost)?;
        let (key, cost) = wanted.demand(py)?.parts()[0];
        self.begin(&Request::Peek { key, cost }, future, timeout, || Asked::Peek(wanted.copy(py)))
    }

    #[pyo3(signature = (future, key, timeout: "object"))]
    fn reset(
        &self,
        future: Py<PyAny>,
        key: &Bound<'_, PyString>,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let request = Request::Reset { key: named(key)? };
        self.begin(&request, future, timeout, || Asked::Nothing)
    }

    #[pyo3(signature = (future, key, seconds, timeout: "object"))]
    fn freeze(
        &self,
        future: Py<PyAny>,
        key: &Bound<'_, PyString>,
        seconds: Seconds,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let length = Span::NotNegative.parse("seconds", seconds.0)?;
        let request = Request::Freeze { key: named(key)?, length };
        self.begin(&request, future, timeout, || Asked::Nothing)
    }

    #[pyo3(signature = (
        future, key, limits: "str | Limit | Sequence[str | Limit]", timeout
    ))]
    fn set_limits(
        &self,
        future: Py<PyAny>,
        key: &Bound<'_, PyString>,
        limits: &Bound<'_, PyAny>,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let limits = self::limits(limits)?;
        let texts = (0..limits.count()).map(|place| &**limits.text(place)).collect();
        let request = Request::SetLimits { key: named(key)?, limits: texts };
        self.begin(&request, future, timeout, || Asked::Nothing)
    }

    /// Takes permits that can be given back: leases of `ttl` seconds, or a reservation. `left` is
    /// as in `acquire()`.
    #[pyo3(signature = (future, key, cost, ttl, timeout: "object", on_failure, left=None))]
    #[allow(clippy::too_many_arguments, reason = "one caller hands on what Python named")]
    fn hold(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        cost: Option<Count>,
        ttl: Option<Seconds>,
        timeout: Given<Timeout>,
        on_failure: Option<&str>,
        left: Option<Seconds>,
    ) -> PyResult<u64> {
        let waits = self.waits(timeout, left)?;
        let wanted = Wanted::parse(key, cost)?;
        let hold = hold(ttl)?;
        let policy = self.client.get().policy(on_failure)?;
        let request = wanted.request(py, wait_up_to(waits.left), hold)?;
        if let Some(heard) = self.by_policy(&request, &policy)? {
            let lease = Held::new(py, self.client(), wanted.copy(py), hold, heard, &policy)?;
            future.call_method1(py, pyo3::intern!(py, "set_result"), (lease,))?;
            return Ok(0);
        }
        self.begin(&request, future, waits, || Asked::Hold(wanted.copy(py), hold, policy))
    }

    /// Takes locks: waits for them, or not. `left` is as in `acquire()`.
    #[pyo3(signature = (future, wish, actor, wait, timeout: "object", left=None))]
    #[allow(clippy::too_many_arguments, reason = "one caller hands on what Python named")]
    fn lock(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        wish: Py<LockWish>,
        actor: u64,
        wait: bool,
        timeout: Given<Timeout>,
        left: Option<Seconds>,
    ) -> PyResult<u64> {
        let waits = self.waits(timeout, left).map_err(|error| wish.get().told(py, error))?;
        let wait = if wait { wait_up_to(waits.left) } else { Wait::No };
        let kept = wish.clone_ref(py);
        let request = wish.get().request(py, actor, wait)?;
        self.begin(&request, future, waits, || Asked::Lock(kept, actor, wait))
    }

    /// Takes a lock from its holders.
    #[pyo3(signature = (future, key, token, timeout: "object"))]
    fn break_lock(
        &self,
        future: Py<PyAny>,
        key: &Bound<'_, PyString>,
        token: Option<Count>,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let request = Request::Break { key: named(key)?, grant: self::token(token)? };
        self.begin(&request, future, timeout, || Asked::Nothing)
    }

    /// Asks for a page of what a server tells to those who only look.
    #[pyo3(signature = (future, what, start, timeout: "object"))]
    fn look(
        &self,
        future: Py<PyAny>,
        what: &str,
        start: u64,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        self.begin(&look(what, start), future, timeout, || Asked::Look)
    }

    /// Asks for more permits of a block.
    #[pyo3(signature = (future, block, wanted, timeout: "object"))]
    fn refill(
        &self,
        future: Py<PyAny>,
        block: Py<Block>,
        wanted: u64,
        timeout: Given<Timeout>,
    ) -> PyResult<u64> {
        let timeout = self.timeout(timeout)?;
        let sent_at = BootClock.now();
        let id = {
            let request = block.get().lender.request(Cost::new(wanted.into())?)?;
            self.client().begin(&request, None, timeout)?
        };
        let asked = Asked::Refill(block, sent_at);
        self.waiting().insert(id, Waiting { future, timeout, asked });
        Ok(id.0)
    }

    /// Gives a lease back; 0 if that was done before.
    fn release(&self, py: Python<'_>, future: Py<PyAny>, held: &Held) -> PyResult<u64> {
        self.give_back(py, future, held, None)
    }

    /// Settles a reservation; 0 if that was done before.
    fn commit(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        held: &Held,
        spent: Vec<u64>,
    ) -> PyResult<u64> {
        self.give_back(py, future, held, Some(SmallVec::from(spent)))
    }
}

impl EventLoopClient {
    fn give_back(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        held: &Held,
        spent: Option<SmallVec<[u64; 1]>>,
    ) -> PyResult<u64> {
        let left = held.left();
        let Some((granted, request)) = held.give_back(spent) else {
            future.call_method1(py, pyo3::intern!(py, "set_result"), (py.None(),))?;
            return Ok(0);
        };
        let all = self.timeout(Given::Nothing)?;
        let (timeout, asked) = match until_over(all, left) {
            Some(left) => (Some(left), Asked::Release),
            None => (all, Asked::Nothing),
        };
        let id = self.client().begin(&request, Some(granted), timeout)?;
        self.waiting().insert(id, Waiting { future, timeout, asked });
        Ok(id.0)
    }
}
