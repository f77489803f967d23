//! The one door through which a Python thread goes to wait.

use pyo3::prelude::*;

use crate::error::Error;
use crate::python::exit;

/// Lets the GIL go and runs `waiting`. Between slices of the wait it asks the function that it is
/// given whether to go on; the answer is no once the handler of a signal has raised. Signals are
/// the main thread's: others want the GIL back only once, and never when the interpreter exits.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    waiting: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let visit = exit::enter();
    let mut raised = None;
    let mut may_be_main = true;
    let mut go_on = || {
        visit.stay_if_exiting();
        if may_be_main {
            // In the last moments of an interpreter there are no signals any more.
            let signals = Python::try_attach(|py| {
                may_be_main = is_main_thread(py)?;
                py.check_signals()
            });
            raised = signals.and_then(Result::err);
        }
        raised.is_none()
    };
    let waited = py.detach(|| {
        let waited = waiting(&mut go_on);
        visit.stay_if_exiting();
        waited
    });
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
