//! `LockerServer`: serves a limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::config::{ServerConfig, Span, Url};
use crate::engine::Rate;
use crate::error::Error;
use crate::net::{Server, Stopper};
use crate::python::argument::{Count, Seconds};
use crate::python::{door, exit};

/// How long a wait for the end of a server lasts before signals are looked at.
const SLICE: Duration = Duration::from_millis(50);

/// Serves at most `max_requests` requests in a slot of `in_seconds` seconds to clients at `url`.
///
/// With `block=True`, as in the first design, the constructor serves: it returns at SIGTERM, and
/// raises `KeyboardInterrupt` at SIGINT. With `block=False` the server runs in the background until
/// `stop()`, the end of a `with` block, or the end of the process.
///
/// `patience` is how many seconds a request that finds the slot used up may wait for the slot in
/// which it gets its permit. Who would have to wait longer hears "sorry" at once. Who waits keeps
/// its place until then, even if it gives up: let the timeouts of clients be longer.
///
/// Raises `ConfigError` if a number is out of its bounds or `url` cannot be bound.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct LockerServer(Arc<Server>);

#[pymethods]
impl LockerServer {
    #[new]
    #[pyo3(text_signature = "(max_requests=1, in_seconds=1.0, url='tcp://*:7777', \
                             *, block=True, patience=0.0)")]
    #[pyo3(signature = (
        max_requests=Count(1), in_seconds=Seconds(1.0), url="tcp://*:7777", *,
        block=true, patience=Seconds(0.0)
    ))]
    fn new(
        py: Python<'_>,
        max_requests: Count,
        in_seconds: Seconds,
        url: &str,
        block: bool,
        patience: Seconds,
    ) -> PyResult<Self> {
        let config = ServerConfig {
            limit: Rate::new(max_requests.0, in_seconds.0)?,
            url: Url::parse(url)?,
            patience: Span::NotNegative.parse("patience", patience.0)?,
        };
        let server = Arc::new(Server::start(&config)?);
        exit::stop_at_exit(&server);
        if block {
            serve(py, &server)?;
        }
        Ok(Self(server))
    }

    /// Where clients find the server: the URL that was bound, with the port that was free.
    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    /// What was done so far: how often "go" and "sorry" were said, how many messages were no
    /// requests, and how many requests wait at present.
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let stats = self.0.stats();
        BTreeMap::from([
            ("bad_messages", stats.bad_messages),
            ("go", stats.go),
            ("sorry", stats.sorry),
            ("waiting", stats.waiting),
        ])
    }

    /// Answers whoever waits with "sorry" and stops. The port is free when this returns, half a
    /// second later at most.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*exception: "object"))]
    fn __exit__(&self, py: Python<'_>, exception: &Bound<'_, PyTuple>) {
        let _ = exception;
        self.stop(py);
    }

    fn __repr__(&self) -> String {
        format!("zmqlocker.LockerServer({:?})", self.0.url())
    }
}

/// Waits for the end of the server, and stops it if a signal comes first.
fn serve(py: Python<'_>, server: &Server) -> PyResult<()> {
    let sigterm = Sigterm::handle(py, server.stopper())?;
    let outcome = door::wait(py, |go_on| {
        loop {
            if let Some(outcome) = server.wait(SLICE) {
                return outcome;
            }
            if !go_on() {
                return Err(Error::Interrupted);
            }
        }
    });
    py.detach(|| server.stop());
    sigterm.restore(py)?;
    outcome
}

/// The handler of SIGTERM while a server blocks the main thread, unless the user has set one.
struct Sigterm(Option<Py<PyAny>>);

impl Sigterm {
    fn handle(py: Python<'_>, stopper: Stopper) -> PyResult<Self> {
        let signal = py.import("signal")?;
        let (sigterm, default) = (signal.getattr("SIGTERM")?, signal.getattr("SIG_DFL")?);
        let taken = !signal.call_method1("getsignal", (&sigterm,))?.eq(&default)?;
        if taken || !door::is_main_thread(py)? {
            return Ok(Self(None));
        }
        let stop = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| stopper.stop();
        let handler = PyCFunction::new_closure(py, None, None, stop)?;
        let before = signal.call_method1("signal", (sigterm, handler))?;
        Ok(Self(Some(before.unbind())))
    }

    fn restore(self, py: Python<'_>) -> PyResult<()> {
        let Some(before) = self.0 else { return Ok(()) };
        let signal = py.import("signal")?;
        signal.call_method1("signal", (signal.getattr("SIGTERM")?, before)).map(drop)
    }
}
