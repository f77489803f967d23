//! Which registry, and which cluster in it: what users write as `registry`.

use std::fmt;
use std::time::Duration;

use crate::cluster::Epoch;
use crate::error::Error;
use crate::registry::{Address, Registry};

/// Which registry, and which cluster in it: what users write as `registry`.
///
/// ```
/// use zmqlocker::registry::RegistryUrl;
///
/// let url = RegistryUrl::parse("etcd://a:2379,b:2379/shop?cluster=blue")?;
/// assert_eq!(url.cluster(), "blue");
/// assert!(RegistryUrl::parse("etcd://a:2379?clutser=blue").is_err());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrl {
    address: Address,
    cluster: String,
    above: Epoch,
}

impl RegistryUrl {
    /// A registry of this text.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how such a text reads.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |problem| Err(Error::Config { argument: "registry", problem });
        let (address, options) = Address::parse(text)?;
        let mut url = Self { address, cluster: "zmqlocker".to_owned(), above: Epoch(0) };
        for (name, value) in options {
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            match (name.as_str(), value.parse()) {
                ("cluster", _) if value.len() > 64 || !value.bytes().all(is_word) => {
                    let allowed = "must have a `cluster` of at most 64 letters, digits, dots, \
                                   hyphens and underscores";
                    return wrong(format!("{allowed}, not {value:?}"));
                }
                ("cluster", _) if !value.is_empty() => url.cluster = value,
                ("above", Ok(above)) if above < Epoch::MAX.0 => url.above = Epoch(above),
                ("above", _) => {
                    let most = Epoch::MAX.0 - 1;
                    return wrong(format!("must have `above` from 0 to {most}, not {value:?}"));
                }
                _ => return wrong(format!("has the option {name:?}, which is not known here")),
            }
        }
        Ok(url)
    }

    /// The registry, which has answered once.
    ///
    /// # Errors
    ///
    /// As [`Address::open`].
    pub fn open(&self, within: Duration) -> Result<Box<dyn Registry>, Error> {
        self.address.open(within)
    }

    /// Whether it can have been used before: to open a registry in a folder makes the folder.
    #[must_use]
    pub fn may_be_there(&self) -> bool {
        !matches!(&self.address, Address::File(folder) if !folder.is_dir())
    }

    /// The name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Epochs are above this one, for a registry that was restored from a backup.
    #[must_use]
    pub const fn above(&self) -> Epoch {
        self.above
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_registry_are_known_or_told_of() {
        let url = RegistryUrl::parse("file:///a?above=7").unwrap();
        assert_eq!((url.cluster(), url.above), ("zmqlocker", Epoch(7)));
        for (text, part) in [
            ("file:///a?above=x", "`above` from 0 to 2147483646"),
            ("file:///a?above=2147483647", "`above` from 0 to 2147483646"),
            ("file:///a?cluster=a%20b", "letters, digits, dots, hyphens and underscores"),
            ("file:///a?cluster=", "has the option \"cluster\""),
            ("file:///a?ca=/b", "has the option \"ca\", which is not known here"),
        ] {
            let told = RegistryUrl::parse(text).unwrap_err().to_string();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
