//! Keys and costs as Python gives them: a name, or a dict of names and costs.

use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use smallvec::SmallVec;

use crate::engine::{Cost, Demand, Hold, Key, Request, Wait};
use crate::error::Error;
use crate::python::argument::Count;

/// What is wanted of which keys, whose names are Python's own.
#[derive(Debug)]
pub(super) struct Wanted(SmallVec<[(Py<PyString>, Cost); 1]>);

impl Wanted {
    /// A key, or a dict of keys and what each costs; `cost` is for the former.
    pub(super) fn parse(keys: &Bound<'_, PyAny>, cost: Option<Count>) -> PyResult<Self> {
        if let Ok(key) = keys.cast::<PyString>() {
            let cost = cost.map_or(Ok(Cost::ONE), |cost| Cost::new(cost.0))?;
            return Ok(Self::one(plain(key)?, cost));
        }
        let Ok(dict) = keys.cast::<PyDict>() else {
            let kind = keys.get_type().name()?;
            let message = format!("key must be a str, or a dict of str and int, not {kind}");
            return Err(PyTypeError::new_err(message));
        };
        if cost.is_some() {
            let message = "cost is for one key: with several, the dict says what each costs";
            return Err(PyTypeError::new_err(message));
        }
        let mut parts = SmallVec::with_capacity(dict.len());
        for (key, cost) in dict {
            parts.push((plain(key.cast()?)?, Cost::new(cost.extract::<Count>()?.0)?));
        }
        let wanted = Self(parts);
        wanted.demand(keys.py())?;
        Ok(wanted)
    }

    pub(super) fn one(key: Py<PyString>, cost: Cost) -> Self {
        Self(SmallVec::from_buf([(key, cost)]))
    }

    pub(super) fn of(parts: impl Iterator<Item = (Py<PyString>, Cost)>) -> Self {
        Self(parts.collect())
    }

    pub(super) fn copy(&self, py: Python<'_>) -> Self {
        Self(self.0.iter().map(|(key, cost)| (key.clone_ref(py), *cost)).collect())
    }

    pub(super) fn demand(&self, py: Python<'_>) -> Result<Demand<'_>, Error> {
        match self.0.as_slice() {
            [(name, cost)] => Ok(Demand::one(key(name.to_str(py))?, *cost)),
            several => {
                let parts: Result<Vec<_>, Error> =
                    several.iter().map(|(name, cost)| Ok((key(name.to_str(py))?, *cost))).collect();
                Demand::new(parts?)
            }
        }
    }

    pub(super) fn request(
        &self,
        py: Python<'_>,
        wait: Wait,
        hold: Hold,
    ) -> Result<Request<'_>, Error> {
        Ok(Request::Acquire { demand: self.demand(py)?, wait, hold })
    }

    /// The name of the key that was given there.
    pub(super) fn name(&self, place: usize) -> Option<&Py<PyString>> {
        self.0.get(place).map(|(name, _)| name)
    }

    /// The keys, as they are shown in an error.
    pub(super) fn quoted(&self, py: Python<'_>) -> String {
        let names = self.0.iter().filter_map(|(name, _)| name.to_str(py).ok());
        names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }

    /// What is wanted of each key, in the order in which they were given.
    pub(super) fn costs(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(_, cost)| cost.permits())
    }
}

/// The same text as a `str` itself: what is derived from it may be anything besides.
pub(super) fn plain(name: &Bound<'_, PyString>) -> Result<Py<PyString>, Error> {
    let text = named(name)?.as_str();
    if name.is_exact_instance_of::<PyString>() {
        return Ok(name.clone().unbind());
    }
    Ok(PyString::new(name.py(), text).unbind())
}

/// The key of that name.
pub(super) fn named<'a>(name: &'a Bound<'_, PyString>) -> Result<Key<'a>, Error> {
    key(name.to_str())
}

pub(super) fn key(name: PyResult<&str>) -> Result<Key<'_>, Error> {
    // Python's text may have halves of characters, which UTF-8 has not.
    let Ok(text) = name else {
        let problem = "must be text that UTF-8 can say".to_owned();
        return Err(Error::Config { argument: "key", problem });
    };
    Key::parse(text)
}

/// How long a request waits at the server whose caller waits so long.
pub(super) fn wait_up_to(timeout: Option<Duration>) -> Wait {
    Wait::UpTo(timeout.unwrap_or(Duration::from_secs(1_000_000_000)))
}
