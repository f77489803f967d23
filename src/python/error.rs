//! The one table from errors to Python's exceptions.

use pyo3::PyErr;

use crate::error::Error;

mod exception {
    pyo3::import_exception!(zmqlocker._exceptions, ConfigError);
    pyo3::import_exception!(zmqlocker._exceptions, LockTimeout);
    pyo3::import_exception!(zmqlocker._exceptions, LockerError);
    pyo3::import_exception!(zmqlocker._exceptions, ProtocolError);
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
