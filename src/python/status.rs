//! What a server tells of itself, and a client of itself, as Python is told.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat};

use crate::conversation::ClientStats;
use crate::engine::{ClientPage, ClientRow, KeyPage, KeyRow, Reply, Request, ServerStatus};
use crate::error::Error;
use crate::python::decision::seconds_up;
use crate::python::lock::rows;

/// The request of those who look at what a server tells.
pub(super) fn look(what: &str, from: u64) -> Request<'static> {
    match what {
        "locks" => Request::Locks { from },
        "keys" => Request::Keys { from },
        "clients" => Request::Clients { from },
        _ => Request::Status,
    }
}

/// What they see: rows, and where to ask on; of a status its fields.
pub(super) fn seen(py: Python<'_>, reply: Reply) -> PyResult<Bound<'_, PyAny>> {
    match reply {
        Reply::Locks(page) => Ok(rows(page).into_pyobject(py)?.into_any()),
        Reply::Keys(page) => Ok(key_rows(page).into_pyobject(py)?.into_any()),
        Reply::Clients(page) => Ok(client_rows(page).into_pyobject(py)?.into_any()),
        Reply::Status(status) => Ok(fields(py, *status)?.into_any()),
        other => Err(Error::unexpected(&other).into()),
    }
}

/// The fields of a status, for the class that has them.
fn fields(py: Python<'_>, status: ServerStatus) -> PyResult<Bound<'_, PyDict>> {
    let ServerStatus { facts, grace, tally } = status;
    let fields = PyDict::new(py);
    fields.set_item("version", &*facts.version)?;
    fields.set_item("url", &*facts.endpoint)?;
    fields.set_item("run", facts.server)?;
    fields.set_item("uptime", facts.uptime.as_secs_f64())?;
    fields.set_item("security", &*facts.security)?;
    fields.set_item("durable", facts.is_durable)?;
    fields.set_item("registry", facts.reaches_registry)?;
    fields.set_item("grace", seconds_up(grace))?;
    fields.set_item("allowed", tally.allowed)?;
    fields.set_item("refused", tally.refused)?;
    fields.set_item("problems", tally.problems)?;
    fields.set_item("bounds_hit", tally.bounds_hit)?;
    fields.set_item("bad_messages", facts.bad_messages)?;
    fields.set_item("waiting", tally.waiting)?;
    fields.set_item("keys", tally.keys)?;
    fields.set_item("leases", tally.leases)?;
    fields.set_item("clients", tally.sessions)?;
    Ok(fields)
}

/// The counters of a client.
pub(super) fn stats(
    py: Python<'_>,
    stats: &ClientStats,
) -> PyResult<BTreeMap<&'static str, Py<PyAny>>> {
    let numbers = [
        ("requests", stats.requests),
        ("answers", stats.answers),
        ("timeouts", stats.timeouts),
        ("retries", stats.retries),
        ("reconnects", stats.reconnects),
        ("by_policy", stats.by_policy),
        ("under_way", stats.under_way),
        ("leases", stats.leases),
        ("servers", stats.servers),
        ("servers_up", stats.servers_up),
        ("servers_healthy", stats.servers_healthy),
    ];
    let lengths = [("waited", stats.waited), ("waited_max", stats.waited_max)];
    let mut all = BTreeMap::new();
    for (name, number) in numbers {
        all.insert(name, number.into_pyobject(py)?.into_any().unbind());
    }
    for (name, length) in lengths {
        all.insert(name, PyFloat::new(py, length.as_secs_f64()).into_any().unbind());
    }
    Ok(all)
}

/// A row of busy keys: the key and whether it is a lock; its rate, and what was allowed and
/// refused; who waits and holds; what remains, until when, for how long it is frozen, by which
/// limit.
type Key = ((String, bool), (f64, u64, u64), (u64, u64), (u64, f64, f64, String));

/// A page of busy keys for Python, and where to ask on.
type KeyRows = (Vec<Key>, Option<u64>);

/// A page of busy keys for Python.
fn key_rows(page: KeyPage) -> KeyRows {
    #[allow(clippy::cast_precision_loss, reason = "a rate is shown, and for people")]
    let rate = |row: &KeyRow| row.rate_millis as f64 / 1000.0;
    let key = |row: KeyRow| {
        (
            (row.key.to_string(), row.is_lock),
            (rate(&row), row.allowed, row.refused),
            (row.waiting, row.holders),
            (
                row.remaining,
                seconds_up(row.reset_after),
                seconds_up(row.frozen),
                row.limit.to_string(),
            ),
        )
    };
    (page.rows.into_iter().map(key).collect(), page.next)
}

/// A row of clients: name, host and process; the address; for how many seconds it is known and
/// was silent; its leases and waits.
type Client = ((String, String, u32), String, (f64, f64), (u64, u64));

/// A page of clients for Python, and where to ask on.
type ClientRows = (Vec<Client>, Option<u64>);

/// A page of clients for Python.
fn client_rows(page: ClientPage) -> ClientRows {
    let client = |row: ClientRow| {
        let who = row.client;
        (
            (who.name.into(), who.host.into(), who.pid),
            row.address.into(),
            (row.since.as_secs_f64(), row.silent.as_secs_f64()),
            (row.leases, row.waiting),
        )
    };
    (page.rows.into_iter().map(client).collect(), page.next)
}
