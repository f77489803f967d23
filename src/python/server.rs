//! `LockerServer`: serves a limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyMapping, PyTuple};

use crate::cluster::ServerName;
use crate::config::{PeersConfig, Span, Url, parse_advertise};
use crate::engine::{Rate, SomeBounds};
use crate::error::Error;
use crate::net::{ClientList, Server, ServerSettings};
use crate::observe::WatchAddress;
use crate::python::argument::{Count, Given, Seconds};
use crate::python::limit::limits_by_key;
use crate::python::{door, exit};
use crate::registry::RegistryUrl;

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
/// `config` is the path of a `zmqlocker.toml`; what is given here goes before it. SIGHUP, where the
/// constructor serves, and `reload()` read its limits anew: usage is kept, and a file that is wrong
/// anywhere changes nothing.
///
/// `data_dir` is a folder in which the usage of limits of five seconds and more outlives the
/// server, however it ends. Each server needs a folder of its own.
///
/// `bounds` says how many of what there may be at a time, as in `{"keys_max": 1000}`; names and
/// defaults are in docs/configuration.md. What is full refuses with `BoundExceeded`.
///
/// `curve_key` is the path of the server's secret key, which `zmqlocker keygen` makes: everything
/// is encrypted then, and only those clients are let in that are in the file `clients`, each with
/// its rights. `clients="*"` lets anybody in who knows the server's public key, to use all keys and
/// to administer none. `reload()` and SIGHUP read the file anew.
///
/// `metrics` is where the server is watched, as "127.0.0.1:9464": `/metrics` for Prometheus, and a
/// page for people. docs/metrics.md has more.
///
/// `registry` is where several servers keep who of them decides for which keys, as
/// "etcd://HOST:2379": all of them share the keys then. `name` is the server's own among them, the
/// host and the port unless it is given, and `advertise` the URL by which clients and the others
/// find it, if that is not `url`. docs/several-servers.md has more.
///
/// `peers` is where other servers tell what they grant: this one counts it too, so that all of them
/// keep to one limit. It tells them at `peers_url`: the port after that of `url` unless another one
/// is given. All servers may be given the same list. docs/peers.md says what that promises.
#[pyclass(frozen, subclass, weakref, module = "zmqlocker")]
pub(super) struct LockerServer {
    server: Arc<Server>,
    settings: ServerSettings,
}

#[pymethods]
impl LockerServer {
    #[new]
    #[pyo3(text_signature = "(max_requests=1, in_seconds=1.0, url='tcp://*:7777', \
                             *, limits=None, config=None, block=True, patience=0.0, \
                             data_dir=None, bounds=None, curve_key=None, clients=None, \
                             metrics=None, registry=None, name=None, advertise=None, \
                             peers=None, peers_url=None)")]
    #[pyo3(signature = (
        max_requests=Given::Nothing, in_seconds=Given::Nothing, url=Given::Nothing, *,
        limits: "Mapping[str, str | Limit | Sequence[str | Limit]] | None" = None,
        config=None, block=true, patience=Given::Nothing,
        data_dir: "str | PathLike[str] | None" = None, bounds: "dict[str, int] | None" = None,
        curve_key: "str | PathLike[str] | None" = None,
        clients: "str | PathLike[str] | None" = None,
        metrics=None, registry=None, name=None, advertise=None,
        peers: "Sequence[str] | None" = None, peers_url: "str | None" = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's are named")]
    fn new(
        py: Python<'_>,
        max_requests: Given<Count>,
        in_seconds: Given<Seconds>,
        url: Given<String>,
        limits: Option<&Bound<'_, PyMapping>>,
        config: Option<PathBuf>,
        block: bool,
        patience: Given<Seconds>,
        data_dir: Option<PathBuf>,
        bounds: Option<BTreeMap<String, Count>>,
        curve_key: Option<PathBuf>,
        clients: Option<PathBuf>,
        metrics: Option<&str>,
        registry: Option<&str>,
        name: Option<&str>,
        advertise: Option<&str>,
        peers: Option<Vec<String>>,
        peers_url: Option<&str>,
    ) -> PyResult<Self> {
        let rate = match (max_requests, in_seconds) {
            (Given::Nothing, Given::Nothing) => None,
            (max_requests, in_seconds) => {
                let (max_requests, in_seconds) =
                    (max_requests.or(Count(1)), in_seconds.or(Seconds(1.0)));
                Some(Rate::new(max_requests.0, in_seconds.0)?)
            }
        };
        let settings = ServerSettings {
            config,
            url: url.given().map(|url| Url::parse(&url)).transpose()?,
            is_local: false,
            rate,
            limits: limits.map(limits_by_key).transpose()?,
            patience: patience
                .given()
                .map(|seconds| Span::NotNegative.parse("patience", seconds.0))
                .transpose()?,
            data_dir,
            metrics: metrics.map(WatchAddress::parse).transpose()?,
            registry: registry.map(RegistryUrl::parse).transpose()?,
            name: name.map(ServerName::parse).transpose()?,
            advertise: advertise.map(parse_advertise).transpose()?,
            bounds: some_bounds(bounds.unwrap_or_default())?,
            curve_key,
            clients: clients.map(ClientList::from),
            peers: peers
                .map(|urls| urls.iter().map(|url| PeersConfig::peer(url)).collect())
                .transpose()?,
            peers_url: peers_url.map(PeersConfig::own).transpose()?,
        };
        let config = settings.resolve()?;
        let server = Arc::new(py.detach(|| Server::start(&config))?);
        exit::stop_at_exit(&server);
        let this = Self { server, settings };
        if block {
            this.serve(py)?;
        }
        Ok(this)
    }

    /// Where clients find the server: the URL that was bound, with the port that was free.
    #[getter]
    fn url(&self) -> &str {
        self.server.url()
    }

    /// Where the server is watched: the URL of its page, with the port that was free. `None` if it
    /// has none.
    #[getter]
    fn metrics_url(&self) -> Option<&str> {
        self.server.metrics_url()
    }

    /// What was done so far: how often "go" and "sorry" were said, how many messages were no
    /// requests, how many connections and requests were denied for their keys and rights; and how
    /// many requests wait, keys are in use and clients are there at present.
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let stats = self.server.stats();
        BTreeMap::from([
            ("bad_messages", stats.bad_messages),
            ("bounds_hit", stats.bounds_hit),
            ("clients", stats.clients),
            ("denied", stats.denied),
            ("connections", stats.connections),
            ("connections_ended", stats.connections_ended),
            ("go", stats.go),
            ("keys", stats.keys),
            ("sorry", stats.sorry),
            ("waiting", stats.waiting),
        ])
    }

    /// Reads the limits and the clients of the files anew. What was used stays used; a client that
    /// is not let in any more is refused from its next request on, and what it holds runs out.
    ///
    /// Raises `ConfigError` that tells every line that is wrong, and changes nothing then.
    fn reload(&self) -> PyResult<()> {
        self.server.reload(self.settings.resolve()?);
        Ok(())
    }

    /// Answers whoever waits with "sorry" and stops. The port is free when this returns, half a
    /// second later at most.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.server.stop());
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
        format!("zmqlocker.LockerServer({:?})", self.server.url())
    }
}

impl LockerServer {
    /// Waits for the end of the server, and stops it if a signal comes first.
    fn serve(&self, py: Python<'_>) -> PyResult<()> {
        let server = &self.server;
        let stopper = server.stopper();
        let sigterm = Handler::set(py, "SIGTERM", move || stopper.stop())?;
        let (running, settings) = (Arc::clone(server), self.settings.clone());
        let has_files = settings.config.is_some() || settings.clients.is_some();
        let reload = move || match settings.resolve() {
            Ok(config) => running.reload(config),
            Err(error) => running.refuse_reload(&error),
        };
        let sighup = if has_files { Handler::set(py, "SIGHUP", reload)? } else { Handler(None) };
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
        sighup.restore(py)?;
        outcome
    }
}

fn some_bounds(given: BTreeMap<String, Count>) -> Result<SomeBounds, Error> {
    let mut bounds = SomeBounds::default();
    for (name, Count(number)) in given {
        bounds.set(&name, number)?;
    }
    Ok(bounds)
}

/// The handler of a signal while a server blocks the main thread, unless the user has set one.
struct Handler(Option<(&'static str, Py<PyAny>)>);

impl Handler {
    fn set(
        py: Python<'_>,
        name: &'static str,
        act: impl Fn() + Send + Sync + 'static,
    ) -> PyResult<Self> {
        let signal = py.import("signal")?;
        let (number, default) = (signal.getattr(name)?, signal.getattr("SIG_DFL")?);
        let taken = !signal.call_method1("getsignal", (&number,))?.eq(&default)?;
        if taken || !door::is_main_thread(py)? {
            return Ok(Self(None));
        }
        let act = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| act();
        let handler = PyCFunction::new_closure(py, None, None, act)?;
        let before = signal.call_method1("signal", (number, handler))?;
        Ok(Self(Some((name, before.unbind()))))
    }

    fn restore(self, py: Python<'_>) -> PyResult<()> {
        let Some((name, before)) = self.0 else { return Ok(()) };
        let signal = py.import("signal")?;
        signal.call_method1("signal", (signal.getattr(name)?, before)).map(drop)
    }
}
