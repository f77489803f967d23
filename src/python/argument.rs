//! Arguments as Python gives them.

use std::num::FpCategory;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::config::{Span, Url};
use crate::engine::GrantId;
use crate::error::Error;

/// A whole number. One that is beyond what is read becomes the largest or the smallest that is,
/// which is beyond every bound, so that the error names the bound.
pub(super) struct Count(pub(super) i128);

impl<'py> FromPyObject<'_, 'py> for Count {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = i64::INPUT_TYPE;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err(format!("must be a number, not {}", &*object)));
        }
        match object.extract::<i128>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(if object.lt(0)? { i128::MIN } else { i128::MAX }))
            }
            extracted => extracted.map(Self),
        }
    }
}

/// One URL or several.
pub(super) enum Urls {
    One(String),
    Several(Vec<String>),
}

impl<'py> FromPyObject<'_, 'py> for Urls {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(url) = object.extract() {
            return Ok(Self::One(url));
        }
        object.extract().map(Self::Several).map_err(|_| {
            let kind =
                object.get_type().name().map_or_else(|_| "object".into(), |name| name.to_string());
            PyTypeError::new_err(format!("url must be a str or a list of str, not {kind}"))
        })
    }
}

impl Urls {
    pub(super) fn parse(&self) -> Result<Vec<Url>, Error> {
        match self {
            Self::One(url) => Ok(vec![Url::parse(url)?]),
            Self::Several(urls) => urls.iter().map(|url| Url::parse(url)).collect(),
        }
    }
}

/// A length of time in seconds. What no float can say is beyond every bound: infinity.
pub(super) struct Seconds(pub(super) f64);

impl<'py> FromPyObject<'_, 'py> for Seconds {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = f64::INPUT_TYPE;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<f64>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(if object.lt(0)? { f64::NEG_INFINITY } else { f64::INFINITY }))
            }
            extracted => extracted.map(Self),
        }
    }
}

/// How long a caller waits; `None` is without an end.
pub(super) type Timeout = Option<Seconds>;

pub(super) fn timeout(timeout: Timeout) -> Result<Option<Duration>, Error> {
    let Some(Seconds(seconds)) = timeout else { return Ok(None) };
    let instead = match seconds.classify() {
        FpCategory::Zero => ": `try_acquire()` does not wait",
        FpCategory::Infinite if seconds > 0.0 => ": `None` waits without an end",
        _ => "",
    };
    Span::Positive.parse("timeout", seconds).map(Some).map_err(|error| match error {
        Error::Config { argument, problem } => {
            Error::Config { argument, problem: problem + instead }
        }
        other => other,
    })
}

/// The fencing token of a lease.
pub(super) fn token(token: Option<Count>) -> Result<Option<GrantId>, Error> {
    let Some(Count(number)) = token else { return Ok(None) };
    match u64::try_from(number) {
        Ok(token) if token < 1 << 63 => Ok(Some(GrantId(token))),
        _ => {
            let problem = format!("must be from 0 to 2^63 - 1, not {number}");
            Err(Error::Config { argument: "token", problem })
        }
    }
}

/// An argument that may be left out where `None` says something else.
pub(super) enum Given<T> {
    Nothing,
    Value(T),
}

impl<T> Given<T> {
    /// The value, if one was given.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Self::Nothing => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The value that was given, or else this one.
    pub(super) fn or(self, default: T) -> T {
        self.given().unwrap_or(default)
    }
}

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Given<T> {
    type Error = T::Error;
    const INPUT_TYPE: PyStaticExpr = T::INPUT_TYPE;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
        // What Python code hands on that was not given to it.
        if object.is(object.py().Ellipsis()) {
            return Ok(Self::Nothing);
        }
        object.extract().map(Self::Value)
    }
}
