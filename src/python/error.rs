//! The one table from errors to Python's exceptions.

use pyo3::PyErr;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

use crate::engine::Code;
use crate::error::Error;

mod exception {
    pyo3::import_exception!(zmqlocker._exceptions, AuthError);
    pyo3::import_exception!(zmqlocker._exceptions, BoundExceeded);
    pyo3::import_exception!(zmqlocker._exceptions, ConfigError);
    pyo3::import_exception!(zmqlocker._exceptions, CostTooLarge);
    pyo3::import_exception!(zmqlocker._exceptions, DeadlockError);
    pyo3::import_exception!(zmqlocker._exceptions, Forgotten);
    pyo3::import_exception!(zmqlocker._exceptions, KindMismatch);
    pyo3::import_exception!(zmqlocker._exceptions, LockTimeout);
    pyo3::import_exception!(zmqlocker._exceptions, LockerError);
    pyo3::import_exception!(zmqlocker._exceptions, NotHeld);
    pyo3::import_exception!(zmqlocker._exceptions, ProtocolError);
    pyo3::import_exception!(zmqlocker._exceptions, ServerUnavailable);
}

/// Looks the classes up, so that they are at hand when the interpreter imports nothing any more.
pub(super) fn install(py: Python<'_>) {
    exception::AuthError::type_object(py);
    exception::BoundExceeded::type_object(py);
    exception::ConfigError::type_object(py);
    exception::CostTooLarge::type_object(py);
    exception::DeadlockError::type_object(py);
    exception::Forgotten::type_object(py);
    exception::KindMismatch::type_object(py);
    exception::LockTimeout::type_object(py);
    exception::LockerError::type_object(py);
    exception::NotHeld::type_object(py);
    exception::ProtocolError::type_object(py);
    exception::ServerUnavailable::type_object(py);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Config { .. } => exception::ConfigError::new_err(message),
            Error::Timeout { .. }
            | Error::Late { .. }
            | Error::NotFree { .. }
            | Error::ByPolicy { .. } => exception::LockTimeout::new_err(message),
            Error::Unavailable { .. } => exception::ServerUnavailable::new_err(message),
            Error::Denied { .. } => exception::AuthError::new_err(message),
            Error::Refused(problem) => refused(problem.code, message),
            Error::Protocol { .. } => exception::ProtocolError::new_err(message),
            Error::Closed | Error::Interrupted | Error::System { .. } => {
                exception::LockerError::new_err(message)
            }
        }
    }
}

/// What a server says, as an exception.
fn refused(code: Code, message: String) -> PyErr {
    match code {
        Code::Auth => exception::AuthError::new_err(message),
        Code::Config => exception::ConfigError::new_err(message),
        Code::CostTooLarge => exception::CostTooLarge::new_err(message),
        Code::KindMismatch => exception::KindMismatch::new_err(message),
        Code::BoundExceeded => exception::BoundExceeded::new_err(message),
        Code::NotHeld => exception::NotHeld::new_err(message),
        Code::Protocol => exception::ProtocolError::new_err(message),
        Code::Closing | Code::NotHome => exception::ServerUnavailable::new_err(message),
        Code::Deadlock => exception::DeadlockError::new_err(message),
        Code::Forgotten => exception::Forgotten::new_err(message),
        Code::UnknownSession => exception::LockerError::new_err(message),
    }
}
