//! How many of what there may be at a time: one table, from which files, arguments and errors read.

use std::collections::BTreeMap;

use crate::error::Error;

/// Declares the bounds, each with its default.
macro_rules! bounds {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:expr;)+) => {
        /// How many of what there may be at a time. What is full refuses, and says so.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Bounds {
            $($(#[doc = $doc])+ pub $name: usize,)+
        }

        impl Default for Bounds {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Bounds {
            /// The names of all bounds, in the order of the table in `docs/configuration.md`.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// The bound of that name.
            #[must_use]
            pub fn named(&self, name: &str) -> Option<usize> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }

            fn named_mut(&mut self, name: &str) -> Option<&mut usize> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

bounds! {
    /// Keys that are not idle.
    keys_max = 10_000_000;
    /// Requests that wait, for all keys together.
    waiters_max = 100_000;
    /// Requests that wait for one key.
    key_waiters_max = 100_000;
    /// Sessions of clients.
    sessions_max = 65_536;
    /// Leases, reservations and blocks of all clients together.
    leases_max = 1_000_000;
    /// Leases and reservations of one client.
    client_leases_max = 100_000;
    /// Answers that are kept for all clients together, until they say that they have them.
    answers_max = 5_000_000;
    /// Answers that are kept for one client.
    client_answers_max = 65_536;
    /// Rules whose keys metrics tell apart; those beyond are counted together.
    patterns_max = 100;
    /// Requests that one connection makes in a second; without a bound unless it is given.
    client_requests_max = usize::MAX;
    /// Connections, as far as the files that the process may open allow.
    connections_max = 65_536;
    /// Bytes that the server holds for one connection: of what it has not finished, and of what it
    /// has not read.
    connection_bytes_max = 64 << 20;
    /// The same for all connections together.
    connections_bytes_max = 256 << 20;
}

/// Some of the bounds, as a file or a caller gives them.
///
/// ```
/// use zmqlocker::engine::{Bounds, SomeBounds};
///
/// let mut some = SomeBounds::default();
/// some.set("keys_max", 1000)?;
/// assert_eq!(some.over(Bounds::default()).keys_max, 1000);
/// assert!(some.set("keys_max", 0).is_err());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SomeBounds(BTreeMap<&'static str, usize>);

impl SomeBounds {
    /// The largest bound that can be asked for.
    pub const BOUND_MAX: usize = 1_000_000_000;

    /// Sets one bound.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no bound of that name, or if `number` is not from 1 to
    /// [`SomeBounds::BOUND_MAX`].
    pub fn set(&mut self, name: &str, number: i128) -> Result<(), Error> {
        let Some(name) = Bounds::NAMES.iter().find(|known| **known == name) else {
            let problem = format!("has no {name:?}: there are {}", Bounds::NAMES.join(", "));
            return Err(Error::Config { argument: "bounds", problem });
        };
        let bound = usize::try_from(number).ok();
        let Some(bound) = bound.filter(|bound| (1..=Self::BOUND_MAX).contains(bound)) else {
            let problem = format!("must be from 1 to {}, not {number}", Self::BOUND_MAX);
            return Err(Error::Config { argument: name, problem });
        };
        self.0.insert(name, bound);
        Ok(())
    }

    /// These bounds where they are given, and `others` elsewhere.
    #[must_use]
    pub fn over(&self, mut others: Bounds) -> Bounds {
        for (name, bound) in &self.0 {
            if let Some(other) = others.named_mut(name) {
                *other = *bound;
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_has_a_name_by_which_it_is_set() {
        for name in Bounds::NAMES {
            assert!(name.ends_with("_max"), "{name}");
            let mut some = SomeBounds::default();
            some.set(name, 7).unwrap();
            let bounds = some.over(Bounds::default());
            assert_eq!(bounds.named(name), Some(7));
            let others = Bounds::NAMES.iter().filter(|other| other != &name);
            for other in others {
                assert_eq!(bounds.named(other), Bounds::default().named(other));
            }
        }
        assert_eq!(Bounds::default().named("tea_max"), None);
    }
}
