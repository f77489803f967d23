//! `Limit`: how many permits a key has.

use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString, PyType};

use crate::engine::{self, AtOnce, Burst, Kind, Limits, Rate};
use crate::error::Error;
use crate::python::argument::{Count, Seconds};

/// At most `max_requests` permits in `in_seconds` seconds, by an `algorithm`.
///
/// "fixed_window" counts in slots, each of which opens with the first request after the last one
/// ended; "sliding_window" holds in any interval; "gcra" refills a `burst` one by one. With
/// `shadow=True` the limit counts and logs what it would refuse, and lets it pass.
///
/// `str()` and `Limit.parse()` are inverse: "500/min", "10/s gcra burst 20", "20 at once".
///
/// Raises `ConfigError` that names the argument and its bounds.
#[pyclass(frozen, eq, hash, module = "zmqlocker")]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Limit(pub(super) engine::Limit);

#[pymethods]
impl Limit {
    #[new]
    #[pyo3(text_signature = "(max_requests, in_seconds, *, algorithm='fixed_window', \
                             burst=None, shadow=False)")]
    #[pyo3(signature = (
        max_requests, in_seconds, *, algorithm="fixed_window", burst=None, shadow=false
    ))]
    fn new(
        max_requests: Count,
        in_seconds: Seconds,
        algorithm: &str,
        burst: Option<Count>,
        shadow: bool,
    ) -> PyResult<Self> {
        let rate = Rate::new(max_requests.0, in_seconds.0)?;
        let kind = match (algorithm, burst) {
            ("fixed_window", None) => Kind::FixedWindow(rate),
            ("sliding_window", None) => Kind::SlidingWindow(rate),
            ("gcra", burst) => {
                let burst = burst.map_or(i128::from(rate.max_requests()), |burst| burst.0);
                Kind::Gcra(rate, Burst::new(burst)?)
            }
            ("fixed_window" | "sliding_window", Some(_)) => {
                let problem = format!("is for the algorithm \"gcra\", not for {algorithm:?}");
                return Err(Error::Config { argument: "burst", problem }.into());
            }
            _ => {
                let problem = format!(
                    "must be \"fixed_window\", \"sliding_window\" or \"gcra\", not {algorithm:?}"
                );
                return Err(Error::Config { argument: "algorithm", problem }.into());
            }
        };
        Ok(Self(engine::Limit { kind, shadow }))
    }

    /// At most `at_once` permits that are held at any instant.
    #[classmethod]
    #[pyo3(signature = (at_once, *, shadow=false))]
    fn concurrency(_class: &Bound<'_, PyType>, at_once: Count, shadow: bool) -> PyResult<Self> {
        let kind = Kind::Concurrency(AtOnce::new(at_once.0)?);
        Ok(Self(engine::Limit { kind, shadow }))
    }

    /// The limit that a text such as "500/min" says.
    #[classmethod]
    fn parse(_class: &Bound<'_, PyType>, text: &str) -> PyResult<Self> {
        Ok(Self(text.parse()?))
    }

    /// "fixed_window", "sliding_window", "gcra" or "concurrency".
    #[getter]
    fn algorithm(&self) -> &'static str {
        match self.0.kind {
            Kind::FixedWindow(_) => "fixed_window",
            Kind::SlidingWindow(_) => "sliding_window",
            Kind::Gcra(..) => "gcra",
            Kind::Concurrency(_) => "concurrency",
        }
    }

    /// How many permits there are in `in_seconds`, or at once.
    #[getter]
    fn max_requests(&self) -> u64 {
        self.rate().map_or(self.0.capacity(), Rate::max_requests)
    }

    /// In how many seconds; `None` for a concurrency limit.
    #[getter]
    fn in_seconds(&self) -> Option<f64> {
        self.rate().map(|rate| rate.in_seconds().as_secs_f64())
    }

    /// How many permits may be taken at once by the algorithm "gcra"; `None` for others.
    #[getter]
    fn burst(&self) -> Option<u64> {
        match self.0.kind {
            Kind::Gcra(_, burst) => Some(burst.get()),
            _ => None,
        }
    }

    /// Whether the limit lets everything pass, and only tells what it would refuse.
    #[getter]
    fn shadow(&self) -> bool {
        self.0.shadow
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("zmqlocker.Limit.parse(\"{}\")", self.0)
    }
}

impl Limit {
    fn rate(&self) -> Option<Rate> {
        match self.0.kind {
            Kind::FixedWindow(rate) | Kind::SlidingWindow(rate) | Kind::Gcra(rate, _) => Some(rate),
            Kind::Concurrency(_) => None,
        }
    }
}

/// The limits of one key: a text or a `Limit`, or several of them.
pub(super) fn limits(object: &Bound<'_, PyAny>) -> PyResult<Limits> {
    let one = |object: &Bound<'_, PyAny>| -> PyResult<engine::Limit> {
        if let Ok(text) = object.cast::<PyString>() {
            return Ok(text.to_str()?.parse()?);
        }
        object.cast::<Limit>().map(|limit| limit.get().0).map_err(|_| {
            let kind = object.get_type().name().map_or_else(|_| String::new(), |n| n.to_string());
            let message = format!("limits must be str or Limit, or a list of them, not {kind}");
            pyo3::exceptions::PyTypeError::new_err(message)
        })
    };
    if object.is_instance_of::<PyString>() || object.is_instance_of::<Limit>() {
        return Ok(Limits::new([one(object)?])?);
    }
    let several = object.try_iter().map_err(|_| one(object).err()).map_err(|error| {
        error.unwrap_or_else(|| pyo3::exceptions::PyTypeError::new_err("limits must be a list"))
    })?;
    let several: PyResult<Vec<_>> = several.map(|limit| one(&limit?)).collect();
    Ok(Limits::new(several?)?)
}

/// The limits of several keys.
pub(super) fn limits_by_key(mapping: &Bound<'_, PyMapping>) -> PyResult<Vec<(String, Limits)>> {
    let items = mapping.items()?;
    items
        .iter()
        .map(|item| {
            let (key, value): (String, Bound<'_, PyAny>) = item.extract()?;
            Ok((key, limits(&value)?))
        })
        .collect()
}
