//! `LockerClient`: asks a server.

use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::config::ClientConfig;
use crate::net::Client;
use crate::python::argument::{Given, Timeout, Urls, timeout};
use crate::python::door;
use crate::python::locker::word;

/// Asks the server at `url` for permits; of several servers, those that answer.
///
/// The server need not be up yet, and may be restarted at any time. Threads may share a client. A
/// forked child may go on with it: it makes connections of its own.
///
/// `timeout` is how many seconds a call waits for an answer; `None` is without an end.
///
/// Raises `ConfigError` for a URL that can never work, or a `timeout` that is not above 0.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct LockerClient(Client);

#[pymethods]
impl LockerClient {
    #[new]
    #[pyo3(text_signature = "(url='tcp://localhost:7777', *, timeout=None)")]
    #[pyo3(signature = (
        url: "str | list[str] | tuple[str, ...]" = Urls::One("tcp://localhost:7777".to_owned()),
        *, timeout=None
    ))]
    fn new(url: Urls, timeout: Timeout) -> PyResult<Self> {
        let timeout = self::timeout(timeout)?;
        Ok(Self(Client::new(ClientConfig::new(url.parse()?, timeout)?)?))
    }

    /// Asks for one permit: "go", or "sorry" if there is none.
    ///
    /// Waits for a server that is not up. `timeout`, in seconds, replaces the client's own.
    ///
    /// Raises `LockTimeout` if no answer came in time, `ProtocolError` if what answered is no
    /// server of this kind, `LockerError` if the client is closed.
    #[pyo3(signature = (*, timeout=Given::Nothing))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Given<Timeout>,
    ) -> PyResult<&Bound<'py, PyString>> {
        let timeout = match timeout {
            Given::Nothing => self.0.timeout(),
            Given::Value(seconds) => self::timeout(seconds)?,
        };
        // With the GIL, so that no thread can fork while the connections are half made.
        self.0.open()?;
        door::wait(py, |go_on| self.0.next(timeout, go_on)).map(|answer| word(py, answer))
    }

    /// Closes the connections. Calls that wait in other threads end with `LockerError`.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
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
        let urls: Vec<_> = self.0.urls().iter().map(|url| format!("{:?}", url.as_str())).collect();
        match urls.as_slice() {
            [url] => format!("zmqlocker.LockerClient({url})"),
            urls => format!("zmqlocker.LockerClient([{}])", urls.join(", ")),
        }
    }
}
