//! The one table from errors to Python's exceptions.

use pyo3::PyErr;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

use crate::error::Error;

mod exception {
    pyo3::import_exception!(zmqlocker._exceptions, ConfigError);
    pyo3::import_exception!(zmqlocker._exceptions, LockTimeout);
    pyo3::import_exception!(zmqlocker._exceptions, LockerError);
    pyo3::import_exception!(zmqlocker._exceptions, ProtocolError);
}

/// Looks the classes up, so that they are at hand when the interpreter imports nothing any more.
pub(super) fn install(py: Python<'_>) {
    exception::ConfigError::type_object(py);
    exception::LockTimeout::type_object(py);
    exception::LockerError::type_object(py);
    exception::ProtocolError::type_object(py);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Config { .. } => exception::ConfigError::new_err(message),
            Error::Timeout { .. } => exception::LockTimeout::new_err(message),
            Error::Protocol { .. } => exception::ProtocolError::new_err(message),
            Error::Closed | Error::Interrupted | Error::System { .. } => {
                exception::LockerError::new_err(message)
            }
        }
    }
}
