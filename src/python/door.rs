//! The one door through which a Python thread goes to wait.

use pyo3::prelude::*;

use crate::error::Error;
use crate::python::exit;

/// Lets the GIL go and runs `waiting`. Between slices of the wait it asks the function that it is
/// given whether to go on; the answer is no once a signal's handler has raised, or when the
/// interpreter is about to exit.
pub(super) fn wait<T: Send>(
    py: Python<'_>,
    waiting: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let _visit = exit::enter();
    let mut raised = None;
    let mut go_on = || {
        if exit::is_near() {
            return false;
        }
        #[allow(clippy::redundant_closure_for_method_calls, reason = "lifetimes")]
        let signals = Python::attach(|py| py.check_signals());
        raised = signals.err();
        raised.is_none()
    };
    let waited = py.detach(|| waiting(&mut go_on));
    match raised {
        Some(exception) => Err(exception),
        None => Ok(waited?),
    }
}
