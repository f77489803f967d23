//! The end of the interpreter: no thread of ours may want the GIL once it begins.

use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

use crate::net::{Client, PerProcess, Server};
use crate::python::logging;

/// How long the exit waits for the threads that are waiting, and for the log.
const GRACE: Duration = Duration::from_secs(1);

static PRESENCE: PerProcess<Presence> = PerProcess::new();

/// Who is there that has to be gone before the interpreter ends.
#[derive(Default)]
struct Presence {
    /// The thread in which the interpreter exits, once it does.
    exiting: OnceLock<ThreadId>,
    inside: Mutex<usize>,
    left: Condvar,
    servers: Mutex<Vec<Weak<Server>>>,
    clients: Mutex<Vec<Weak<Client>>>,
    /// Whether the interpreter of this process is to call us at its end.
    installed: OnceLock<()>,
}

fn presence() -> &'static Presence {
    PRESENCE.get_or_init(Presence::default)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread's stay behind the door of waits.
pub(super) struct Visit(&'static Presence);

/// This thread is going to wait without the GIL, and to want it back.
pub(super) fn enter() -> Visit {
    let presence = presence();
    *lock(&presence.inside) += 1;
    Visit(presence)
}

impl Drop for Visit {
    fn drop(&mut self) {
        *lock(&self.0.inside) -= 1;
        if self.0.exiting.get().is_some() {
            self.0.left.notify_all();
        }
    }
}

impl Visit {
    /// Once the interpreter exits, its daemon threads may not have the GIL any more: this one stays
    /// here, for the end of the process.
    pub(super) fn stay_if_exiting(&self) {
        let Self(presence) = self;
        if presence.exiting.get().is_some_and(|exiting| *exiting != thread::current().id()) {
            *lock(&presence.inside) -= 1;
            presence.left.notify_all();
            loop {
                thread::park();
            }
        }
    }
}

/// The server stops when the interpreter exits, if not before.
pub(super) fn stop_at_exit(server: &Arc<Server>) {
    let mut servers = lock(&presence().servers);
    servers.retain(|server| server.strong_count() > 0);
    servers.push(Arc::downgrade(server));
}

/// What the client holds is given back when the interpreter exits, if not before.
pub(super) fn release_at_exit(py: Python<'_>, client: &Arc<Client>) -> PyResult<()> {
    let presence = presence();
    let mut clients = lock(&presence.clients);
    clients.retain(|client| client.strong_count() > 0);
    clients.push(Arc::downgrade(client));
    drop(clients);
    if presence.installed.get().is_some() {
        return Ok(());
    }
    // A forked child, of which `multiprocessing` may have cleared what its parent had registered.
    install(py)?;
    let modules = py.import("sys")?.getattr("modules")?;
    if let Ok(util) = modules.get_item("multiprocessing.util") {
        let options = [("exitpriority", 0)].into_py_dict(py)?;
        let at_exit = wrap_pyfunction!(at_exit, py)?;
        util.call_method("Finalize", (py.None(), at_exit), Some(&options))?;
    }
    Ok(())
}

pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    let _ = presence().installed.set(());
    let at_exit = wrap_pyfunction!(at_exit, py)?;
    py.import("atexit")?.call_method1("register", (at_exit,)).map(drop)
}

/// Gives back what clients hold, ends the waits of daemon threads, stops servers that still run,
/// and writes out the log.
#[pyfunction]
fn at_exit(py: Python<'_>) -> PyResult<()> {
    let presence = presence();
    // An interpreter exits once; if it is asked to again, the thread stays the same.
    let _ = presence.exiting.set(thread::current().id());
    let leaked = py.detach(|| {
        let clients: Vec<_> = lock(&presence.clients).iter().filter_map(Weak::upgrade).collect();
        let release = || clients.iter().map(|client| client.release_all()).sum::<usize>();
        let leaked = release();
        let inside = lock(&presence.inside);
        // Who is still inside after this is stuck in a handler of the user's.
        let _ = presence.left.wait_timeout_while(inside, GRACE, |inside| *inside > 0);
        // What came meanwhile is for threads that do not go on.
        release();
        let servers: Vec<_> = lock(&presence.servers).drain(..).collect();
        servers.iter().filter_map(Weak::upgrade).for_each(|server| server.stop());
        logging::finish(GRACE);
        leaked
    });
    if leaked == 0 {
        return Ok(());
    }
    let message = format!("{leaked} unreleased leases at the exit, which gives them back");
    let message = CString::new(message).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
}
