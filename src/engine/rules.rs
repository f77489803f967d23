//! Which key has which limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::key::Key;
use crate::engine::limit::{Kind, Limit, Rate};
use crate::engine::lock::Shape;
use crate::engine::request::Request;
use crate::error::Error;

/// The limits of a key, 1 to [`Request::LIMITS_MAX`] of them: all must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    all: Box<[(Limit, Arc<str>)]>,
    /// What kind of lock has them; none if they are a rule's.
    shape: Option<Shape>,
}

impl Limits {
    /// These limits.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are none or too many.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Result<Self, Error> {
        let with_text = |limit: Limit| (limit, Arc::from(limit.to_string()));
        let all: Box<[_]> =
            limits.into_iter().take(Request::LIMITS_MAX + 1).map(with_text).collect();
        if all.is_empty() || all.len() > Request::LIMITS_MAX {
            let problem = format!("must be 1 to {} for a key", Request::LIMITS_MAX);
            return Err(Error::Config { argument: "limits", problem });
        }
        Ok(Self { all, shape: None })
    }

    /// One fixed window of that rate.
    #[must_use]
    pub fn of_rate(rate: Rate) -> Self {
        let limit = Limit { kind: Kind::FixedWindow(rate), shadow: false };
        Self { all: [(limit, Arc::from(limit.to_string()))].into(), shape: None }
    }

    /// The permits of a lock.
    pub(super) fn of_lock(shape: Shape) -> Self {
        let limit = Limit { kind: Kind::Concurrency(shape.at_once()), shadow: false };
        Self { all: [(limit, Arc::from(shape.to_string()))].into(), shape: Some(shape) }
    }

    /// What kind of lock has them; none if they are a rule's.
    pub(super) const fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// The limits that these texts say.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says what is wrong with the first text that cannot be read.
    pub fn parse(texts: &[impl AsRef<str>]) -> Result<Self, Error> {
        let limits: Result<Vec<Limit>, Error> =
            texts.iter().map(|text| text.as_ref().parse()).collect();
        Self::new(limits?)
    }

    /// The limits, in the order in which they were given.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Limit> {
        self.all.iter().map(|(limit, _)| limit)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.all.len()
    }

    /// One limit, by its place.
    pub(super) fn at(&self, place: usize) -> &Limit {
        &self.all[place].0
    }

    /// The text of a limit.
    #[must_use]
    pub fn text(&self, place: usize) -> &Arc<str> {
        &self.all[place].1
    }

    /// How many permits may be held at once, by the concurrency limits among them.
    pub(super) fn at_once(&self) -> u64 {
        let counts = self.iter().filter_map(|limit| match limit.kind {
            Kind::Concurrency(at_once) => Some(at_once.get()),
            _ => None,
        });
        counts.min().unwrap_or(u64::MAX)
    }

    /// Whether there is a concurrency limit among them.
    #[must_use]
    pub fn has_concurrency(&self) -> bool {
        self.iter().any(|limit| matches!(limit.kind, Kind::Concurrency(_)))
    }
}

/// Which keys have which limits: by name, by pattern, or like all others.
///
/// In a pattern a `*` stands for any characters, or none. A name goes before all patterns, and of
/// several patterns the one with the most other characters counts.
///
/// ```
/// use zmqlocker::engine::{Key, Limits, Rules};
///
/// let rules = [("tenant:*", "10/s"), ("tenant:vip-*", "100/s")];
/// let rules = rules.map(|(key, limit)| (key.to_owned(), Limits::parse(&[limit]).unwrap()));
/// let rules = Rules::new(rules, None)?;
/// let limits = rules.find(Key::parse("tenant:vip-7")?).unwrap();
/// assert_eq!(&**limits.text(0), "100/s");
/// assert!(rules.find(Key::parse("openai")?).is_none());
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    names: BTreeMap<String, Arc<Limits>>,
    /// The most specific first.
    patterns: Vec<(Pattern, Arc<Limits>)>,
    others: Option<Arc<Limits>>,
}

impl Rules {
    /// How many rules there may be.
    pub const RULES_MAX: usize = 10_000;

    /// How many of them may be patterns.
    pub const PATTERNS_MAX: usize = 1_000;

    /// Rules for names and patterns, and for all `others`, if they are served at all.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the rule: two of one name, two patterns that are as specific
    /// and fit the same key, or a bound that is exceeded.
    pub fn new(
        rules: impl IntoIterator<Item = (String, Limits)>,
        others: Option<Limits>,
    ) -> Result<Self, Error> {
        let mut all = Self { others: others.map(Arc::new), ..Self::default() };
        for (text, limits) in rules {
            all.add(text, limits)?;
        }
        Ok(all)
    }

    /// Rules by which every key has the same limit: the seed's.
    #[must_use]
    pub fn of_rate(rate: Rate) -> Self {
        Self { others: Some(Arc::new(Limits::of_rate(rate))), ..Self::default() }
    }

    /// Adds a rule for a name or a pattern.
    ///
    /// # Errors
    ///
    /// As [`Rules::new`]; then the rules are as they were.
    pub fn add(&mut self, text: String, limits: Limits) -> Result<(), Error> {
        let limits = Arc::new(limits);
        if self.names.len() + self.patterns.len() == Self::RULES_MAX {
            return Err(bad(format!("must be for at most {} keys", Self::RULES_MAX)));
        }
        Key::parse(&text).map_err(|error| bad(format!("must be for keys: {error}")))?;
        if !text.contains('*') {
            if self.names.contains_key(&text) {
                return Err(bad(format!("must name {text:?} once")));
            }
            self.names.insert(text, limits);
            return Ok(());
        }
        if self.patterns.len() == Self::PATTERNS_MAX {
            return Err(bad(format!("must have at most {} patterns", Self::PATTERNS_MAX)));
        }
        let pattern = Pattern(text);
        let ties = |(other, _): &&(Pattern, _)| {
            other.literals() == pattern.literals() && other.meets(&pattern)
        };
        if let Some((other, _)) = self.patterns.iter().find(ties) {
            return Err(bad(format!(
                "must tell patterns apart: {:?} and {:?} fit the same keys and are as specific; \
                 make one of them longer",
                other.0, pattern.0
            )));
        }
        let literals = pattern.literals();
        let place = self.patterns.partition_point(|(other, _)| other.literals() >= literals);
        self.patterns.insert(place, (pattern, limits));
        Ok(())
    }

    /// The limits of a key; `None` if it is not served.
    #[must_use]
    pub fn find(&self, key: Key<'_>) -> Option<&Arc<Limits>> {
        // A pattern of stars alone stands last, and fits all keys.
        let rest = self.patterns.last().filter(|(pattern, _)| pattern.literals() == 0);
        self.named(key).or(rest.map(|(_, limits)| limits)).or(self.others.as_ref())
    }

    /// The name or the pattern by which a key has its limits; `*` if it is one of all others.
    pub(super) fn pattern(&self, key: Key<'_>) -> Option<&str> {
        if let Some((name, _)) = self.names.get_key_value(key.as_str()) {
            return Some(name);
        }
        let fits = |(pattern, _): &&(Pattern, _)| pattern.fits(key.as_str());
        let pattern = self.patterns.iter().find(fits).map(|(pattern, _)| &*pattern.0);
        pattern.or(self.others.as_ref().map(|_| "*"))
    }

    /// The limits of a key that is named, or that fits a pattern of more than stars.
    pub(super) fn named(&self, key: Key<'_>) -> Option<&Arc<Limits>> {
        self.names.get(key.as_str()).or_else(|| {
            let fits =
                |(pattern, _): &&(Pattern, _)| pattern.fits(key.as_str()) && pattern.literals() > 0;
            self.patterns.iter().find(fits).map(|(_, limits)| limits)
        })
    }

    /// The rules as they were given, in an order of their own, and that for all others.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Limits)> {
        let names = self.names.iter().map(|(name, limits)| (name.as_str(), &**limits));
        let patterns = self.patterns.iter().map(|(pattern, limits)| (&*pattern.0, &**limits));
        let others = self.others.as_deref().map(|limits| ("other keys", limits));
        names.chain(patterns).chain(others)
    }
}

fn bad(problem: String) -> Error {
    Error::Config { argument: "limits", problem }
}

/// A pattern of keys: `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern of this text, which may have no star in it.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// How many bytes are not stars.
    fn literals(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Whether the key is one of the pattern's.
    #[must_use]
    pub fn fits(&self, key: &str) -> bool {
        if !self.0.contains('*') {
            return self.0 == key;
        }
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let last = self.0.rsplit('*').next().unwrap_or_default();
        let Some(mut rest) = key.strip_prefix(first).and_then(|rest| rest.strip_suffix(last))
        else {
            return false;
        };
        // What stands between two stars is best found as early as it is there.
        let middle = parts.collect::<Vec<_>>();
        middle.iter().take(middle.len().saturating_sub(1)).all(|part| {
            let found = rest.find(part).map(|place| &rest[place + part.len()..]);
            rest = found.unwrap_or_default();
            found.is_some()
        })
    }

    /// Whether some key fits both patterns: their stars can stand for whatever the other one has in
    /// its middle, so it is enough that the starts agree, and the ends.
    fn meets(&self, other: &Self) -> bool {
        let ends = |pattern: &Self| {
            let (start, rest) = pattern.0.split_once('*').unwrap_or_default();
            let end = rest.rsplit('*').next().unwrap_or_default();
            (start.to_owned(), end.to_owned())
        };
        let ((start, end), (other_start, other_end)) = (ends(self), ends(other));
        (start.starts_with(&other_start) || other_start.starts_with(&start))
            && (end.ends_with(&other_end) || other_end.ends_with(&end))
    }
}
