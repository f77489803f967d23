//! What a client holds at a server and may give back: leases and reservations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyString;
use smallvec::SmallVec;

use crate::engine::{Hold, Request};
use crate::error::Error;
use crate::fallback::Policy;
use crate::net::{Client, Granted, Heard};
use crate::python::client::decide;
use crate::python::decision::{Decision, seconds_up};
use crate::python::demand::Wanted;
use crate::python::door;

/// Leases or a reservation of permits.
#[pyclass(frozen, module = "zmqlocker._zmqlocker")]
pub(super) struct Held {
    client: Arc<Client>,
    wanted: Wanted,
    hold: Hold,
    granted: Option<Granted>,
    /// The token of each key, if they differ.
    tokens: Vec<u64>,
    given_back: AtomicBool,
    /// The process that holds it: a forked child does not.
    process: u32,
    #[pyo3(get)]
    decision: Py<Decision>,
}

impl Held {
    pub(super) fn new(
        py: Python<'_>,
        client: &Arc<Client>,
        wanted: Wanted,
        hold: Hold,
        heard: Heard,
        policy: &Policy,
    ) -> PyResult<Self> {
        let granted = heard.granted();
        let grants = granted.map_or_else(Vec::new, |granted| client.grants(granted));
        let tokens = grants.into_iter().map(|grant| grant.0).collect();
        let decision = decide(py, heard, &wanted, policy)?;
        if !decision.is_allowed() {
            // A server that says no lets the caller wait, until it is late.
            let keys = wanted.quoted(py);
            return Err(Error::ByPolicy { keys, policy: policy.name() }.into());
        }
        let decision = Py::new(py, decision)?;
        let given_back = AtomicBool::new(false);
        let (client, process) = (Arc::clone(client), std::process::id());
        Ok(Self { client, wanted, hold, granted, tokens, given_back, process, decision })
    }

    /// For how long a lease of this process is safe, if it is.
    pub(super) fn left(&self) -> Option<Duration> {
        self.client.lease_remaining(self.granted.filter(|_| self.is_ours())?)
    }

    /// What gives it back, the first time.
    pub(super) fn give_back(
        &self,
        spent: Option<SmallVec<[u64; 1]>>,
    ) -> Option<(Granted, Request<'static>)> {
        if self.given_back.swap(true, Ordering::AcqRel) {
            return None;
        }
        let granted = self.granted?;
        let grant = granted.grant();
        let request = match spent {
            Some(spent) => Request::Commit { grant, spent },
            None => Request::Release { grant },
        };
        Some((granted, request))
    }
}

#[pymethods]
impl Held {
    /// What was taken of each key, in the order in which they were given.
    #[getter]
    fn parts(&self) -> Vec<(&Py<PyString>, u64)> {
        let names = (0..).map_while(|place| self.wanted.name(place));
        names.zip(self.wanted.costs()).collect()
    }

    /// Whether it was given back already.
    #[getter]
    fn given_back(&self) -> bool {
        self.given_back.load(Ordering::Acquire)
    }

    /// Whether this process was given it: a forked child was not.
    #[getter]
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Whether the client that was given it is closed, and has given it back.
    #[getter]
    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// For how many seconds a lease is safe; 0.0 if it is lost or given back, and without an end
    /// where nothing is leased: permits that are spent cannot be lost.
    #[getter]
    fn remaining(&self) -> f64 {
        let Some(granted) = self.granted else { return f64::INFINITY };
        if !self.is_ours() || self.given_back.load(Ordering::Acquire) {
            return 0.0;
        }
        self.client.lease_remaining(granted).map_or(0.0, seconds_up)
    }

    /// The fencing token: above those of all earlier grants. `None` where nothing is held, or the
    /// keys have one each.
    #[getter]
    fn token(&self) -> Option<u64> {
        let granted = self.granted.filter(|_| self.tokens.is_empty());
        granted.map(|granted| granted.grant().0)
    }

    /// The fencing token of each key. None where nothing is held.
    #[getter]
    fn tokens(&self) -> Vec<(&Py<PyString>, u64)> {
        let Some(granted) = self.granted else { return Vec::new() };
        let names = (0..).map_while(|place| self.wanted.name(place));
        let all = self.tokens.iter().copied().chain(std::iter::repeat(granted.grant().0));
        names.zip(all).collect()
    }

    /// Waits until the lease is lost. False if it is given back before, or the client is closed.
    fn wait_lost(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(granted) = self.granted else { return Ok(false) };
        let given_back = || self.given_back.load(Ordering::Acquire);
        let waited =
            door::wait(py, |go_on| Ok(self.client.wait_for_loss(granted, &given_back, go_on)))?;
        match waited {
            Err(Error::Closed) => Ok(false),
            waited => Ok(waited?),
        }
    }

    /// Tells the server that all of a reservation is spent, and does not wait for its answer.
    fn spend(&self, py: Python<'_>) {
        py.detach(|| self.tell(Some(self.all())));
    }

    /// Tells the server that it is given back, and does not wait for its answer.
    fn let_go(&self, py: Python<'_>) {
        py.detach(|| self.tell(None));
    }
}

impl Held {
    fn all(&self) -> SmallVec<[u64; 1]> {
        self.wanted.costs().collect()
    }

    fn tell(&self, spent: Option<SmallVec<[u64; 1]>>) {
        if !self.is_ours() {
            return;
        }
        if let Some((granted, request)) = self.give_back(spent) {
            // A client that is closed has given everything back already.
            let _ = self.client.tell(&request, granted);
            let _ = self.client.look();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody entered the block, or could leave it: what nobody knows of must not be kept. A
        // lease that is not renewed ends by itself, as whoever wanted it so knows.
        if !matches!(self.hold, Hold::Lease(term) if !term.is_renewed()) {
            let spent = matches!(self.hold, Hold::Reserve).then(|| self.all());
            self.tell(spent);
        }
    }
}
