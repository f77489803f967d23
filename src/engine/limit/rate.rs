//! A rate: so many permits in so much time.

use std::time::Duration;

use crate::config::Span;
use crate::error::Error;

/// At most `max_requests` permits in `in_seconds`.
///
/// ```
/// use zmqlocker::engine::Rate;
///
/// assert_eq!(Rate::new(5, 0.8)?.max_requests(), 5);
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    max_requests: u64,
    in_seconds: Duration,
}

impl Rate {
    /// The largest `max_requests`.
    pub const MAX_REQUESTS_MAX: u64 = 1_000_000_000_000;

    /// A rate of `max_requests` permits in `in_seconds` seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the argument: `max_requests` must be from 1 to
    /// [`Rate::MAX_REQUESTS_MAX`], `in_seconds` finite and above zero.
    pub fn new(max_requests: i128, in_seconds: f64) -> Result<Self, Error> {
        Self::from_duration(max_requests, Span::Positive.parse("in_seconds", in_seconds)?)
    }

    /// A rate of `max_requests` permits in that length of time.
    ///
    /// # Errors
    ///
    /// As [`Rate::new`].
    pub fn from_duration(max_requests: i128, in_seconds: Duration) -> Result<Self, Error> {
        Span::Positive.parse("in_seconds", in_seconds.as_secs_f64())?;
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

    /// The same with so many permits.
    pub(in crate::engine) const fn of(self, max_requests: u64) -> Self {
        Self { max_requests, ..self }
    }

    /// How many permits there are.
    #[must_use]
    pub const fn max_requests(self) -> u64 {
        self.max_requests
    }

    /// In how much time.
    #[must_use]
    pub const fn in_seconds(self) -> Duration {
        self.in_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_exists_is_legal() {
        assert!(Rate::new(1, 1e-9).is_ok());
        assert!(Rate::new(Rate::MAX_REQUESTS_MAX.into(), 1e9).is_ok());
        for (max_requests, in_seconds, argument) in [
            (0, 1.0, "max_requests"),
            (-1, 1.0, "max_requests"),
            (i128::from(Rate::MAX_REQUESTS_MAX) + 1, 1.0, "max_requests"),
            (1, 0.0, "in_seconds"),
            (1, -1.0, "in_seconds"),
            (1, f64::NAN, "in_seconds"),
            (1, f64::INFINITY, "in_seconds"),
        ] {
            let error = Rate::new(max_requests, in_seconds).unwrap_err();
            assert!(error.to_string().starts_with(argument), "{error}");
        }
    }
}
