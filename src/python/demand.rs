//! Keys and costs as Python gives them: a name, or a dict of names and costs.

use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::engine::{Cost, Demand, Hold, Key, Request, Wait};
use crate::error::Error;
use crate::python::argument::Count;

/// What is wanted of which keys.
#[derive(Clone, Debug)]
pub(super) struct Wanted(pub(super) Vec<(String, u64)>);

impl Wanted {
    /// A key, or a dict of keys and what each costs; `cost` is for the former.
    pub(super) fn parse(keys: &Bound<'_, PyAny>, cost: Option<Count>) -> PyResult<Self> {
        if let Ok(key) = keys.cast::<PyString>() {
            let cost = cost.map_or(Ok(Cost::ONE), |cost| Cost::new(cost.0))?;
            return Ok(Self(vec![(named(key)?.as_str().to_owned(), cost.permits())]));
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
        let mut parts = Vec::with_capacity(dict.len());
        for (key, cost) in dict {
            let key = named(key.cast::<PyString>()?)?.as_str().to_owned();
            parts.push((key, Cost::new(cost.extract::<Count>()?.0)?.permits()));
        }
        let wanted = Self(parts);
        wanted.demand()?;
        Ok(wanted)
    }

    pub(super) fn demand(&self) -> Result<Demand<'_>, Error> {
        match self.0.as_slice() {
            [(key, cost)] => Ok(Demand::one(Key::parse(key)?, Cost::new((*cost).into())?)),
            several => {
                let parts: Result<Vec<_>, Error> = several
                    .iter()
                    .map(|(key, cost)| Ok((Key::parse(key)?, Cost::new((*cost).into())?)))
                    .collect();
                Demand::new(parts?)
            }
        }
    }

    pub(super) fn request(&self, wait: Wait, hold: Hold) -> Result<Request<'_>, Error> {
        Ok(Request::Acquire { demand: self.demand()?, wait, hold })
    }
}

/// The key of that name.
pub(super) fn named<'a>(name: &'a Bound<'_, PyString>) -> Result<Key<'a>, Error> {
    // Python's text may have halves of characters, which UTF-8 has not.
    let Ok(text) = name.to_str() else {
        let problem = "must be text that UTF-8 can say".to_owned();
        return Err(Error::Config { argument: "key", problem });
    };
    Key::parse(text)
}

/// How long a request waits at the server whose caller waits so long.
pub(super) fn wait_up_to(timeout: Option<Duration>) -> Wait {
    Wait::UpTo(timeout.unwrap_or(Duration::from_secs(1_000_000_000)))
}
