//! `Locker`: the gate within one process.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::answer::Answer;
use crate::engine::Rate;
use crate::locker;
use crate::net::BootClock;
use crate::python::argument::{Count, Seconds};

/// Grants at most `max_requests` requests in a slot of `in_seconds` seconds, within this process.
///
/// The first slot opens now, each later one with the first request after the last slot ended.
/// Threads may share a locker. The clock is monotonic and goes on while the machine sleeps.
///
/// Raises `ConfigError` if `max_requests` is not from 1 to 10**12, or `in_seconds` is not above 0
/// and at most 10**9.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct Locker(locker::Locker<BootClock>, Rate);

#[pymethods]
impl Locker {
    #[new]
    #[pyo3(text_signature = "(max_requests=1, in_seconds=1.0)")]
    #[pyo3(signature = (max_requests=Count(1), in_seconds=Seconds(1.0)))]
    fn new(max_requests: Count, in_seconds: Seconds) -> PyResult<Self> {
        let limit = Rate::new(max_requests.0, in_seconds.0)?;
        Ok(Self(locker::Locker::new(BootClock, limit), limit))
    }

    /// Counts a request: "go", or "sorry" if the slot is used up. Never waits.
    fn next<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        word(py, self.0.next())
    }

    fn __next__<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        word(py, self.0.next())
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __repr__(&self) -> String {
        let (max_requests, in_seconds) = (self.1.max_requests(), self.1.in_seconds());
        format!(
            "zmqlocker.Locker(max_requests={max_requests}, in_seconds={:?})",
            in_seconds.as_secs_f64()
        )
    }
}

/// The answer as the seed's word: always the same two objects.
pub(super) fn word(py: Python<'_>, answer: Answer) -> &Bound<'_, PyString> {
    match answer {
        Answer::Go => intern!(py, "go"),
        Answer::Sorry => intern!(py, "sorry"),
    }
}
