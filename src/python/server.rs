//! `LockerServer`: serves a limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::config::{ServerConfig, Span, Url};
use crate::engine::{Bounds, Limits, Rate, Rules};
use crate::error::Error;
use crate::net::{Server, Stopper};
use crate::python::argument::{Count, Given, Seconds};
use crate::python::limit::limits_by_key;
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
///
/// `limits` gives keys limits of their own: a dict from a name, or a pattern with `*`, to a text
/// such as "500/min", a `Limit`, or a list of them, all of which must agree. All other keys have
/// the limit of `max_requests` and `in_seconds`, each counted by itself; where these are left out
/// and `limits` is given, other keys are refused.
///
/// `data_dir` is a folder in which the usage of limits of five seconds and more outlives the
/// server, however it ends. Each server needs a folder of its own.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct LockerServer(Arc<Server>);

#[pymethods]
impl LockerServer {
    #[new]
    #[pyo3(text_signature = "(max_requests=1, in_seconds=1.0, url='tcp://*:7777', \
                             *, limits=None, block=True, patience=0.0, data_dir=None)")]
    #[pyo3(signature = (
        max_requests=Given::Nothing, in_seconds=Given::Nothing, url="tcp://*:7777", *,
        limits: "dict[str, str | Limit | list[str | Limit]] | None" = None,
        block=true, patience=Seconds(0.0), data_dir: "str | PathLike[str] | None" = None
    ))]
    fn new(
        py: Python<'_>,
        max_requests: Given<Count>,
        in_seconds: Given<Seconds>,
        url: &str,
        limits: Option<&Bound<'_, PyDict>>,
        block: bool,
        patience: Seconds,
        data_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let no_rate = matches!((&max_requests, &in_seconds), (Given::Nothing, Given::Nothing));
        let rate = Rate::new(max_requests.or(Count(1)).0, in_seconds.or(Seconds(1.0)).0)?;
        let rules = match limits {
            None => Rules::of_rate(rate),
            Some(limits) => {
                let others = (!no_rate).then(|| Limits::of_rate(rate));
                Rules::new(limits_by_key(limits)?, others)?
            }
        };
        let config = ServerConfig {
            rules,
            url: Url::parse(url)?,
            patience: Span::NotNegative.parse("patience", patience.0)?,
            bounds: Bounds::default(),
            data_dir,
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
    /// requests; and how many requests wait, keys are in use and clients are there at present.
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let stats = self.0.stats();
        BTreeMap::from([
            ("bad_messages", stats.bad_messages),
            ("clients", stats.clients),
            ("go", stats.go),
            ("keys", stats.keys),
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
