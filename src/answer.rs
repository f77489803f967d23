//! What a request hears.

use std::fmt;

/// The answer to a request: the seed's two words.
///
/// ```
/// use zmqlocker::answer::Answer;
///
/// assert_eq!(Answer::Go.to_string(), "go");
/// assert_eq!(Answer::Sorry.to_string(), "sorry");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The request was counted: the resource may be used once.
    Go,
    /// The limit is reached: the request was not counted.
    Sorry,
}

impl Answer {
    /// The word, as it is sent and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Sorry => "sorry",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
