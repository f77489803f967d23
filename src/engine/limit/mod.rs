//! Limits: how many permits there are, and the algorithms that count them.

mod fixed_window;

use std::fmt;
use std::time::Duration;

pub use fixed_window::FixedWindow;

use crate::config::Span;
use crate::error::Error;

/// At most `max_requests` permits in a slot of `in_seconds`.
///
/// ```
/// use zmqlocker::engine::Limit;
///
/// assert_eq!(Limit::new(5, 0.8)?.to_string(), "5/0.8s");
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    max_requests: u64,
    in_seconds: Duration,
}

impl Limit {
    /// The largest `max_requests`.
    pub const MAX_REQUESTS_MAX: u64 = 1_000_000_000_000;

    /// A limit of `max_requests` permits in `in_seconds` seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the argument: `max_requests` must be from 1 to
    /// [`Limit::MAX_REQUESTS_MAX`], `in_seconds` finite and above zero.
    pub fn new(max_requests: i128, in_seconds: f64) -> Result<Self, Error> {
        let in_seconds = Span::Positive.parse("in_seconds", in_seconds)?;
        match u64::try_from(max_requests) {
            Ok(max_requests @ 1..) if max_requests <= Self::MAX_REQUESTS_MAX => {
                Ok(Self { max_requests, in_seconds })
            }
            _ => {
                let bound = Self::MAX_REQUESTS_MAX;
                let problem = format!("must be from 1 to {bound}, not {max_requests}");
                Err(Error::Config { argument: "max_requests", problem })
            }
        }
    }

    /// How many permits a slot has.
    #[must_use]
    pub const fn max_requests(self) -> u64 {
        self.max_requests
    }

    /// How long a slot is.
    #[must_use]
    pub const fn in_seconds(self) -> Duration {
        self.in_seconds
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}s", self.max_requests, self.in_seconds.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_exists_is_legal() {
        assert!(Limit::new(1, 1e-9).is_ok());
        assert!(Limit::new(Limit::MAX_REQUESTS_MAX.into(), 1e9).is_ok());
        for (max_requests, in_seconds, argument) in [
            (0, 1.0, "max_requests"),
            (-1, 1.0, "max_requests"),
            (i128::from(Limit::MAX_REQUESTS_MAX) + 1, 1.0, "max_requests"),
            (1, 0.0, "in_seconds"),
            (1, -1.0, "in_seconds"),
            (1, f64::NAN, "in_seconds"),
            (1, f64::INFINITY, "in_seconds"),
        ] {
            let error = Limit::new(max_requests, in_seconds).unwrap_err();
            assert!(error.to_string().starts_with(argument), "{error}");
        }
    }
}
