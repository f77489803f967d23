//! The name of a resource.

use std::fmt;

use crate::error::Error;

/// The name of a resource: 1 to [`Key::BYTES_MAX`] bytes of UTF-8.
///
/// ```
/// use zmqlocker::engine::Key;
///
/// assert_eq!(Key::parse("tenant:7")?.as_str(), "tenant:7");
/// assert!(Key::parse("").is_err());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// The resource of those who name none, as the seed's clients.
    pub const DEFAULT: Key<'static> = Key("default");

    /// A key of this text.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is empty or too long.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if (1..=Self::BYTES_MAX).contains(&text.len()) {
            return Ok(Self(text));
        }
        let (bound, length) = (Self::BYTES_MAX, text.len());
        let problem = format!("must be 1 to {bound} bytes of UTF-8, not {length}");
        Err(Error::Config { argument: "key", problem })
    }

    /// The text of the key.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.0)
    }
}
