//! Arguments as Python gives them.

use std::time::Duration;

use pyo3::exceptions::PyOverflowError;
use pyo3::inspect::PyStaticExpr;
use pyo3::prelude::*;

use crate::config::{Span, Url};
use crate::error::Error;

/// A whole number. One that is too large for a machine word becomes the largest or the smallest
/// word, which is beyond every bound, so that the error names the bound.
pub(super) struct Count(pub(super) i64);

impl<'py> FromPyObject<'_, 'py> for Count {
    type Error = PyErr;
    const INPUT_TYPE: PyStaticExpr = i64::INPUT_TYPE;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<i64>() {
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(if object.lt(0)? { i64::MIN } else { i64::MAX }))
            }
            extracted => extracted.map(Self),
        }
    }
}

/// One URL or several.
#[derive(FromPyObject)]
pub(super) enum Urls {
    One(String),
    Several(Vec<String>),
}

impl Urls {
    pub(super) fn parse(&self) -> Result<Vec<Url>, Error> {
        match self {
            Self::One(url) => Ok(vec![Url::parse(url)?]),
            Self::Several(urls) => urls.iter().map(|url| Url::parse(url)).collect(),
        }
    }
}

/// How long a caller waits, in seconds; `None` is without an end.
pub(super) type Seconds = Option<f64>;

pub(super) fn timeout(seconds: Seconds) -> Result<Option<Duration>, Error> {
    seconds.map(|seconds| Span::Positive.parse("timeout", seconds)).transpose()
}

/// An argument that may be left out where `None` says something else.
pub(super) enum Given<T> {
    Nothing,
    Value(T),
}

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Given<T> {
    type Error = T::Error;
    const INPUT_TYPE: PyStaticExpr = T::INPUT_TYPE;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> Result<Self, Self::Error> {
        object.extract().map(Self::Value)
    }
}
