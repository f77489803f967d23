//! The one door through which a Python thread goes to wait.

use pyo3::prelude::*;

use crate::error::Error;
use crate::python::exit;

/// Lets the GIL go and runs `waiting`. Between slices of the wait it asks the function that it is
/// given whether to go on; the answer is no once a signal's handler has raised, or when the
/// interpreter is about to exit. Signals are the main thread's: others want the GIL back only once.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    waiting: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let _visit = exit::enter();
    let mut raised = None;
    let mut may_be_main = true;
    let mut go_on = || {
        if may_be_main && !exit::is_near() {
            let signals = Python::attach(|py| {
                may_be_main = is_main_thread(py)?;
                py.check_signals()
            });
            raised = signals.err();
        }
        raised.is_none() && !exit::is_near()
    };
    let waited = py.detach(|| waiting(&mut go_on));
    match raised {
        Some(exception) => Err(exception),
        None => Ok(waited?),
    }
}

/// Whether this is the thread in which Python runs the handlers of signals.
pub(super) fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    threading.call_method0("get_ident")?.eq(main)
}
