//! Locks as Python asks for them, and who holds and waits as Python is told.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::engine::{
    Cost, Hold, LockPage, LockRequest, LockRow, Locks, Mode, Request, Shape, Term, Wait,
};
use crate::error::Error;
use crate::python::argument::{Count, Given, Seconds, Timeout, timeout};
use crate::python::decision::seconds_up;
use crate::python::demand::{Wanted, key, plain};

/// Which locks are wanted, in which mode, and for how long.
#[pyclass(frozen, module = "zmqlocker._zmqlocker")]
pub(super) struct LockWish {
    parts: Vec<(Py<PyString>, Mode)>,
    term: Term,
}

#[pymethods]
impl LockWish {
    /// `timeout` is looked at and not kept.
    #[new]
    #[pyo3(signature = (keys, mode, *, size, cost, ttl, max_hold, renew, timeout: "object"))]
    #[allow(clippy::too_many_arguments, reason = "Python's are named")]
    fn new(
        py: Python<'_>,
        keys: Vec<Bound<'_, PyString>>,
        mode: &str,
        size: Count,
        cost: Count,
        ttl: Seconds,
        max_hold: Option<Seconds>,
        renew: bool,
        timeout: Given<Timeout>,
    ) -> PyResult<Self> {
        let keys = keys.iter().map(plain).collect::<Result<Vec<_>, Error>>()?;
        let told = |error| for_keys(py, &keys, error);
        let mode = match mode {
            "read" => Mode::Read,
            "write" => Mode::Write,
            "permits" => {
                let bad = |problem| Error::Config { argument: "size", problem };
                let size = Cost::new(size.0).map_err(|error| told(bad(problem_of(error))))?;
                Mode::Permits { size, cost: Cost::new(cost.0).map_err(told)? }
            }
            _ => Mode::Exclusive,
        };
        let max_hold = if renew { max_hold.map(|length| length.0) } else { Some(ttl.0) };
        let term = Term::parse(("ttl", ttl.0), ("max_hold", max_hold)).map_err(told)?;
        timeout.given().map(self::timeout).transpose().map_err(told)?;
        let parts = keys.into_iter().map(|key| (key, mode)).collect();
        let wish = Self { parts, term };
        wish.locks(py)?;
        Ok(wish)
    }

    /// The keys, in the order in which they were given.
    #[getter]
    fn keys(&self, py: Python<'_>) -> Vec<Py<PyString>> {
        self.parts.iter().map(|(key, _)| key.clone_ref(py)).collect()
    }

    /// Whether leases are renewed.
    #[getter]
    fn renew(&self) -> bool {
        self.term.is_renewed()
    }
}

impl LockWish {
    /// Names the keys in an error.
    pub(super) fn told(&self, py: Python<'_>, error: Error) -> Error {
        let keys: Vec<_> = self.keys(py);
        for_keys(py, &keys, error)
    }

    pub(super) fn request(
        &self,
        py: Python<'_>,
        actor: u64,
        wait: Wait,
    ) -> Result<Request<'_>, Error> {
        let wanted = LockRequest { locks: self.locks(py)?, term: self.term, actor };
        Ok(Request::Lock { wanted, wait })
    }

    pub(super) fn hold(&self) -> Hold {
        Hold::Lease(self.term)
    }

    /// The keys, and how many permits each takes.
    pub(super) fn wanted(&self, py: Python<'_>) -> Wanted {
        let cost = |mode: &Mode| Cost::new(mode.permits().into()).unwrap_or(Cost::ONE);
        Wanted::of(self.parts.iter().map(|(key, mode)| (key.clone_ref(py), cost(mode))))
    }

    fn locks(&self, py: Python<'_>) -> Result<Locks<'_>, Error> {
        let parts = self.parts.iter().map(|(name, mode)| Ok((key(name.to_str(py))?, *mode)));
        Locks::new(parts.collect::<Result<Vec<_>, Error>>()?)
    }
}

/// Names the keys in an error about another argument.
fn for_keys(py: Python<'_>, keys: &[Py<PyString>], error: Error) -> Error {
    match error {
        Error::Config { argument, problem } if argument != "key" => {
            let names = keys.iter().filter_map(|key| key.to_str(py).ok());
            let names = names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            Error::Config { argument, problem: format!("{problem}, for {names}") }
        }
        other => other,
    }
}

fn problem_of(error: Error) -> String {
    match error {
        Error::Config { problem, .. } => problem,
        other => other.to_string(),
    }
}

/// A row of a page: the key, its kind and size, the mode and its permits; the token if it is held;
/// for how many seconds it is held or waited for, and how many are left; name, host and process.
pub(super) type Row =
    ((String, &'static str, u64), (&'static str, u64), Option<u64>, (f64, f64), Client);
pub(super) type Client = (String, String, u32);

/// A page for Python, and where to ask on.
pub(super) type LockRows = (Vec<Row>, Option<u64>);

/// A page for Python.
pub(super) fn rows(page: LockPage) -> LockRows {
    (page.rows.into_iter().map(row).collect(), page.next)
}

fn row(row: LockRow) -> Row {
    let (kind, size) = match row.mode.shape() {
        Shape::Lock => ("lock", 1),
        Shape::RwLock => ("rw_lock", 1),
        Shape::Semaphore(size) => ("semaphore", size.permits()),
    };
    let (mode, permits) = match row.mode {
        Mode::Exclusive => ("exclusive", 1),
        Mode::Read => ("read", 1),
        Mode::Write => ("write", 1),
        Mode::Permits { cost, .. } => ("permits", cost.permits()),
    };
    let client = row.client;
    (
        (row.key.into(), kind, size),
        (mode, permits),
        row.grant.map(|grant| grant.0),
        (row.since.as_secs_f64(), seconds_up(row.left)),
        (client.name.into(), client.host.into(), client.pid),
    )
}
