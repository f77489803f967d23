//! `Decision`: whether a request is allowed, and what is left.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::engine;
use crate::python::demand::Wanted;

/// Whether a request is allowed, and what is left of its key. True if it is allowed.
#[pyclass(frozen, module = "zmqlocker")]
pub(super) struct Decision {
    inner: engine::Decision,
    key: Py<PyString>,
    policy: Option<&'static str>,
}

impl Decision {
    pub(super) const fn is_allowed(&self) -> bool {
        self.inner.allowed
    }

    /// The decision of a server, or of the policy of that name, on a request for these keys.
    pub(super) fn new(
        py: Python<'_>,
        decision: engine::Decision,
        wanted: &Wanted,
        policy: Option<&'static str>,
    ) -> Self {
        let key = wanted.name(decision.key).map(|name| name.clone_ref(py));
        let key = key.unwrap_or_else(|| PyString::intern(py, "").unbind());
        Self { inner: decision, key, policy }
    }
}

#[pymethods]
impl Decision {
    /// Whether the permits were granted.
    #[getter]
    fn allowed(&self) -> bool {
        self.inner.allowed
    }

    /// How many permits of the key are left, by the limit that leaves the fewest.
    #[getter]
    fn remaining(&self) -> u64 {
        self.inner.remaining
    }

    /// In how many seconds the same request could be allowed at the earliest: 0.0 if it is allowed,
    /// `None` if nobody knows. Never too short, to the nanosecond.
    #[getter]
    fn retry_after(&self) -> Option<f64> {
        self.inner.retry_after.map(seconds_up)
    }

    /// In how many seconds nothing of the key is counted any more, if nothing more is granted.
    #[getter]
    fn reset_after(&self) -> f64 {
        seconds_up(self.inner.reset_after)
    }

    /// The limit that said no, or else the one that leaves the fewest permits, as text.
    #[getter]
    fn limit(&self) -> &str {
        &self.inner.limit
    }

    /// The key that this is about: of several, the one that said no, or has the fewest left.
    #[getter]
    fn key(&self) -> &Py<PyString> {
        &self.key
    }

    /// The failure policy that decided because no server answered; `None` if a server did.
    #[getter]
    fn policy(&self) -> Option<&'static str> {
        self.policy
    }

    fn __bool__(&self) -> bool {
        self.inner.allowed
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Self { inner: decision, key, policy } = self;
        let key = key.to_str(py)?;
        let allowed = if decision.allowed { "True" } else { "False" };
        let retry_after =
            self.retry_after().map_or_else(|| "None".to_owned(), |seconds| format!("{seconds:?}"));
        let policy = policy.map_or_else(String::new, |policy| format!(", policy={policy:?}"));
        Ok(format!(
            "zmqlocker.Decision(allowed={allowed}, remaining={}, retry_after={retry_after}, \
             reset_after={:?}, limit={:?}, key={key:?}{policy})",
            decision.remaining,
            self.reset_after(),
            &*decision.limit,
        ))
    }
}

/// Seconds as a float, never fewer than the length has.
pub(super) fn seconds_up(length: Duration) -> f64 {
    let seconds = length.as_secs_f64();
    match Duration::try_from_secs_f64(seconds) {
        Ok(rounded) if rounded < length => seconds.next_up(),
        _ => seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_never_rounded_down() {
        for nanos in [0, 1, 333_333_333, 9_007_199_254_740_993, u64::MAX - 1] {
            let length = Duration::from_nanos(nanos);
            let back = Duration::from_secs_f64(seconds_up(length));
            assert!(back >= length || length.as_secs() > 1 << 33, "{nanos}");
        }
    }
}
