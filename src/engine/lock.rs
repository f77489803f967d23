//! Locks: which are wanted, in which mode, and for how long they are held.
//!
//! Every lock is a number of permits that are held: one of a mutex, `size` of a semaphore, and of a
//! rw lock so many that a writer needs all of them and a reader one. So one queue serves them all,
//! and nobody overtakes.

use std::fmt;
use std::time::Duration;

use crate::config::Span;
use crate::engine::key::Key;
use crate::engine::limit::{AtOnce, Rate};
use crate::engine::request::{Cost, Demand, GrantId};
use crate::engine::session::{ClientInfo, SessionId};
use crate::error::Error;

/// In which mode a lock is wanted. The first use of a key says what kind of lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A mutex.
    Exclusive,
    /// A rw lock, together with other readers.
    Read,
    /// A rw lock, alone.
    Write,
    /// A semaphore.
    Permits {
        /// How many permits it has.
        size: Cost,
        /// How many of them are wanted.
        cost: Cost,
    },
}

/// What kind of lock a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One holder.
    Lock,
    /// One writer or many readers.
    RwLock,
    /// So many permits.
    Semaphore(Cost),
}

impl Mode {
    /// So many permits of a limit for what is held at once, as they are told of elsewhere: how many
    /// there are is known where the limit is. None for what nobody can have taken.
    #[must_use]
    pub fn of_limit(permits: u64) -> Option<Self> {
        let cost = Cost::new(permits.into()).ok()?;
        Some(Self::Permits { size: cost, cost })
    }

    /// The kind of lock that has this mode.
    #[must_use]
    pub const fn shape(self) -> Shape {
        match self {
            Self::Exclusive => Shape::Lock,
            Self::Read | Self::Write => Shape::RwLock,
            Self::Permits { size, .. } => Shape::Semaphore(size),
        }
    }

    /// How many of the lock's permits it takes.
    #[must_use]
    pub const fn permits(self) -> u64 {
        match self {
            Self::Exclusive | Self::Read => 1,
            Self::Write => Rate::MAX_REQUESTS_MAX,
            Self::Permits { cost, .. } => cost.permits(),
        }
    }
}

impl Shape {
    /// How many permits may be held at once.
    pub(super) const fn at_once(self) -> AtOnce {
        match self {
            Self::Lock => AtOnce::ONE,
            Self::RwLock => AtOnce::MOST,
            Self::Semaphore(size) => AtOnce::of(size),
        }
    }

    /// The mode in which so many of its permits are held.
    #[must_use]
    pub fn mode(self, permits: u64) -> Mode {
        match self {
            Self::Lock => Mode::Exclusive,
            Self::RwLock if permits == 1 => Mode::Read,
            Self::RwLock => Mode::Write,
            Self::Semaphore(size) => {
                Mode::Permits { size, cost: Cost::new(permits.into()).unwrap_or(Cost::ONE) }
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => formatter.write_str("a lock"),
            Self::RwLock => formatter.write_str("a rw lock"),
            Self::Semaphore(size) => write!(formatter, "a semaphore of {}", size.permits()),
        }
    }
}

/// Locks that are taken together or not at all: 1 to [`Demand::KEYS_MAX`], each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locks<'a>(Vec<(Key<'a>, Mode)>);

impl<'a> Locks<'a> {
    /// These locks.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are none, too many, or one twice.
    pub fn new(parts: impl IntoIterator<Item = (Key<'a>, Mode)>) -> Result<Self, Error> {
        let parts: Vec<_> = parts.into_iter().take(Demand::KEYS_MAX + 1).collect();
        // The rules for keys that are taken together are the same for limits.
        Demand::new(parts.iter().map(|(key, _)| (*key, Cost::ONE)))?;
        Ok(Self(parts))
    }

    /// The keys and their modes, in the order in which they were given.
    #[must_use]
    pub fn parts(&self) -> &[(Key<'a>, Mode)] {
        &self.0
    }
}

/// For how long a lease lasts without its holder's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// How long it outlives the last message of its holder.
    pub ttl: Duration,
    /// After so long it ends, however much is heard of its holder. A lease for which this is no
    /// more than `ttl` is not renewed.
    pub max_hold: Option<Duration>,
}

impl Term {
    /// The shortest `ttl` of a lease.
    pub const TTL_MIN: Duration = Duration::from_millis(100);

    /// The longest `ttl` of a lease.
    pub const TTL_MAX: Duration = Duration::from_secs(86_400);

    /// A lease of this `ttl`, that ends after `max_hold` at the latest.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if `ttl` is below [`Term::TTL_MIN`] or above [`Term::TTL_MAX`], or
    /// `max_hold` below `ttl`.
    pub fn new(ttl: Duration, max_hold: Option<Duration>) -> Result<Self, Error> {
        if !(Self::TTL_MIN..=Self::TTL_MAX).contains(&ttl) {
            return Err(Self::bad_ttl("ttl", ttl.as_secs_f64()));
        }
        if let Some(given) = max_hold.filter(|max_hold| *max_hold < ttl) {
            return Err(Self::bad_max_hold("max_hold", ttl, given.as_secs_f64()));
        }
        Ok(Self { ttl, max_hold })
    }

    /// The same of seconds, under the names by which the caller knows them.
    ///
    /// # Errors
    ///
    /// As [`Term::new`], and for what is no number.
    pub fn parse(
        (ttl_name, ttl): (&'static str, f64),
        (max_hold_name, max_hold): (&'static str, Option<f64>),
    ) -> Result<Self, Error> {
        let span = Self::TTL_MIN.as_secs_f64()..=Self::TTL_MAX.as_secs_f64();
        if !span.contains(&ttl) {
            return Err(Self::bad_ttl(ttl_name, ttl));
        }
        let ttl = Span::Positive.parse(ttl_name, ttl)?;
        let Some(given) = max_hold else { return Self::new(ttl, None) };
        let max_hold = match given {
            0.0.. => Span::NotNegative.parse(max_hold_name, given)?,
            _ => Duration::ZERO,
        };
        if max_hold < ttl {
            return Err(Self::bad_max_hold(max_hold_name, ttl, given));
        }
        Self::new(ttl, Some(max_hold))
    }

    fn bad_ttl(argument: &'static str, given: f64) -> Error {
        let [min, max] = [Self::TTL_MIN, Self::TTL_MAX].map(|ttl| ttl.as_secs_f64());
        let problem = format!("must be from {min} to {max} s, not {given}");
        Error::Config { argument, problem }
    }

    fn bad_max_hold(argument: &'static str, ttl: Duration, given: f64) -> Error {
        let ttl = ttl.as_secs_f64();
        let problem = format!("must be at least the ttl of {ttl} s, not {given}");
        Error::Config { argument, problem }
    }

    /// Whether messages of the holder renew it.
    #[must_use]
    pub fn is_renewed(self) -> bool {
        self.max_hold.is_none_or(|max_hold| self.ttl < max_hold)
    }

    /// The longest time that it may last without being heard of: that of a lease which is not
    /// renewed.
    #[must_use]
    pub fn unrenewed(self) -> Duration {
        self.max_hold.map_or(self.ttl, |max_hold| max_hold.min(self.ttl))
    }
}

/// A wish for locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest<'a> {
    /// Which, and how.
    pub locks: Locks<'a>,
    /// For how long.
    pub term: Term,
    /// Who of the client wants them: a number for each thread or task, by which a cycle of waits is
    /// seen. 0 if nobody in particular.
    pub actor: u64,
}

/// Some of those who hold and wait for locks: for each lock its holders, and then who waits, in
/// their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockPage {
    /// Who.
    pub rows: Vec<LockRow>,
    /// Where to ask on, if there is more.
    pub next: Option<u64>,
}

/// One who holds a lock, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRow {
    /// The lock.
    pub key: Box<str>,
    /// In which mode it is held or wanted, and so what kind of lock it is.
    pub mode: Mode,
    /// The lease, if it is held.
    pub grant: Option<GrantId>,
    /// For how long it is held or waited for.
    pub since: Duration,
    /// How long until the lease ends if its holder stays silent, or the waiter gives up.
    pub left: Duration,
    /// Whose.
    pub session: Option<SessionId>,
    /// Who that is.
    pub client: ClientInfo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_takes_all_that_readers_could_have() {
        assert_eq!(Mode::Write.permits(), Shape::RwLock.at_once().get());
        for mode in [Mode::Exclusive, Mode::Read, Mode::Write] {
            assert_eq!(mode.shape().mode(mode.permits()), mode);
        }
    }

    #[test]
    fn a_lease_that_may_not_be_held_for_longer_than_its_ttl_is_not_renewed() {
        let second = Duration::from_secs(1);
        assert!(Term::new(second, None).unwrap().is_renewed());
        assert!(Term::new(second, Some(2 * second)).unwrap().is_renewed());
        assert!(!Term::new(second, Some(second)).unwrap().is_renewed());
        assert!(Term::new(second, Some(second / 2)).is_err());
        assert!(Term::new(Duration::from_millis(99), None).is_err());
    }

    #[test]
    fn seconds_that_are_no_term_are_told_the_bound_under_the_name_of_the_caller() {
        let term = Term::parse(("--ttl", 0.1), ("--max-hold", Some(0.1))).unwrap();
        assert_eq!(term, Term::new(Term::TTL_MIN, Some(Term::TTL_MIN)).unwrap());
        for given in [0.0, -1.0, 0.099, 86_400.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let problem = Term::parse(("--ttl", given), ("--max-hold", None)).unwrap_err();
            assert_eq!(
                problem.to_string(),
                format!("--ttl must be from 0.1 to 86400 s, not {given}")
            );
        }
        for given in [0.0, -1.0, 0.7, f64::NAN, f64::NEG_INFINITY] {
            let problem = Term::parse(("ttl", 0.8), ("max_hold", Some(given))).unwrap_err();
            let told = format!("max_hold must be at least the ttl of 0.8 s, not {given}");
            assert_eq!(problem.to_string(), told);
        }
        let endless = Term::parse(("ttl", 0.8), ("max_hold", Some(f64::INFINITY))).unwrap_err();
        assert!(endless.to_string().contains("at most 1000000000 seconds, not inf"));
    }
}
