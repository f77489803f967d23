//! `Block`: permits of a key that are spent without a round trip.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::answer::Answer;
use crate::engine::{self, Cost, Hold, Wait};
use crate::error::Error;
use crate::net::{AtOnce, Lender};
use crate::python::argument::{Count, Given, Timeout};
use crate::python::client::{LockerClient, decide};
use crate::python::decision::Decision;
use crate::python::demand::{Wanted, wait_up_to};
use crate::python::door;
use crate::python::locker::word;

/// Permits of `key` that this process has in advance and spends without asking, never over the
/// limit. It asks for more in time, and for as many as it has spent lately.
///
/// What it has and does not spend is lost to others until the end of the slot (of a tenth of the
/// window, for "sliding_window" and "gcra"), or until `close()`, which gives it back.
#[pyclass(frozen, weakref, module = "zmqlocker")]
pub(super) struct Block {
    client: Py<LockerClient>,
    pub(super) lender: Lender,
}

impl Block {
    /// Spends permits; asks a server if we have none. What the servers said if they have none.
    fn spend(
        &self,
        py: Python<'_>,
        cost: Cost,
        timeout: Option<Duration>,
    ) -> PyResult<Result<(), Decision>> {
        // Asked once, a server gives a block or says that there is none; a block may be too small.
        let mut asked = false;
        loop {
            match self.lender.spend(cost)? {
                AtOnce::Yes => return Ok(Ok(())),
                AtOnce::No(decision) => return Ok(Err(self.decision(py, decision))),
                AtOnce::Ask(_) if asked => return self.ask_for_these(py, cost, timeout),
                AtOnce::Ask(wanted) => {
                    asked = true;
                    let refilled =
                        door::wait(py, |go_on| Ok(self.lender.refill(wanted, timeout, go_on)))?;
                    match refilled {
                        Err(Error::Unavailable { .. }) => {
                            return self.ask_for_these(py, cost, Some(Duration::from_nanos(1)));
                        }
                        refilled => refilled?,
                    }
                }
            }
        }
    }

    /// Asks for just these permits, as `try_acquire()` does, the policy of the client included.
    fn ask_for_these(
        &self,
        py: Python<'_>,
        cost: Cost,
        timeout: Option<Duration>,
    ) -> PyResult<Result<(), Decision>> {
        let decision = self.acquire_at_server(py, cost, Wait::No, timeout)?;
        Ok(if decision.is_allowed() { Ok(()) } else { Err(decision) })
    }

    fn acquire_at_server(
        &self,
        py: Python<'_>,
        cost: Cost,
        wait: Wait,
        timeout: Option<Duration>,
    ) -> PyResult<Decision> {
        let owner = self.client.get();
        let policy = owner.policy(None)?;
        let wanted = self.wanted(py, cost);
        let request = wanted.request(py, wait, Hold::Spend)?;
        let heard =
            door::wait(py, |go_on| owner.client.acquire(&request, timeout, &policy, go_on))?;
        decide(py, heard, &wanted, &policy)
    }

    fn wanted(&self, py: Python<'_>, cost: Cost) -> Wanted {
        Wanted::one(PyString::new(py, self.lender.key()).unbind(), cost)
    }

    fn decision(&self, py: Python<'_>, decision: engine::Decision) -> Decision {
        Decision::new(py, decision, &self.wanted(py, Cost::ONE), None)
    }

    fn allowed(&self, py: Python<'_>) -> Decision {
        self.decision(
            py,
            engine::Decision {
                allowed: true,
                remaining: self.lender.left(),
                retry_after: Some(Duration::ZERO),
                reset_after: Duration::ZERO,
                limit: Arc::from(""),
                key: 0,
                grant: None,
            },
        )
    }
}

#[pymethods]
impl Block {
    #[new]
    fn new(client: Py<LockerClient>, key: &str) -> PyResult<Self> {
        let lender = Lender::new(Arc::clone(&client.get().client), key)?;
        client.get().client.open()?;
        Ok(Self { client, lender })
    }

    /// Spends one permit: "go", or "sorry" if there is none.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyString>> {
        if self.lender.spend(Cost::ONE)? == AtOnce::Yes {
            return Ok(word(py, Answer::Go));
        }
        let timeout = self.client.get().timeout(Given::Nothing)?;
        let spent = self.spend(py, Cost::ONE, timeout)?;
        Ok(word(py, if spent.is_ok() { Answer::Go } else { Answer::Sorry }))
    }

    /// Spends `cost` permits if they are to be had now. The decision's `remaining` is what this
    /// process has left.
    #[pyo3(signature = (cost=Count(1), *, timeout=Given::Nothing))]
    fn try_acquire(
        &self,
        py: Python<'_>,
        cost: Count,
        timeout: Given<Timeout>,
    ) -> PyResult<Decision> {
        let timeout = self.client.get().timeout(timeout)?;
        Ok(match self.spend(py, Cost::new(cost.0)?, timeout)? {
            Ok(()) => self.allowed(py),
            Err(decision) => decision,
        })
    }

    /// Spends `cost` permits; where there are none, waits for them in the server's queue.
    ///
    /// Raises `LockTimeout` if they were not granted in `timeout` seconds.
    #[pyo3(signature = (cost=Count(1), *, timeout=Given::Nothing))]
    fn acquire(&self, py: Python<'_>, cost: Count, timeout: Given<Timeout>) -> PyResult<Decision> {
        let timeout = self.client.get().timeout(timeout)?;
        let cost = Cost::new(cost.0)?;
        match self.spend(py, cost, timeout)? {
            Ok(()) => Ok(self.allowed(py)),
            Err(_) => self.acquire_at_server(py, cost, wait_up_to(timeout), timeout),
        }
    }

    /// Spends permits if that needs no wait: `None` if they were spent, a decision if there are
    /// none, or for how many a server has to be asked.
    fn _spend<'py>(&self, py: Python<'py>, cost: Count) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.lender.spend(Cost::new(cost.0)?)? {
            AtOnce::Yes => Ok(None),
            AtOnce::No(decision) => {
                Ok(Some(Bound::new(py, self.decision(py, decision))?.into_any()))
            }
            AtOnce::Ask(wanted) => Ok(Some(wanted.permits().into_pyobject(py)?.into_any())),
        }
    }

    /// The decision on permits that were spent here.
    fn _allowed(&self, py: Python<'_>) -> Decision {
        self.allowed(py)
    }

    /// The key.
    #[getter]
    fn key(&self) -> &str {
        self.lender.key()
    }

    /// How many permits can be spent without asking.
    #[getter]
    fn left(&self) -> u64 {
        self.lender.left()
    }

    /// Gives back what was not spent. The block can still be used: it asks anew.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.lender.close());
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
        format!("zmqlocker.Block({:?}, left={})", self.lender.key(), self.lender.left())
    }
}
