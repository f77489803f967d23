//! A server's settings as a file, `zmqlocker.toml`: all of it is legal, or each error has a place.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use toml::Spanned;
pub(crate) use toml::de::{DeTable, DeValue};

use crate::cluster::ServerName;
use crate::config::{PeersConfig, Span, Url, parse_advertise};
use crate::engine::{Bounds, Limit, Limits, Rate, Rules, SomeBounds};
use crate::error::Error;
use crate::observe::WatchAddress;
use crate::registry::RegistryUrl;

/// The keys of a file.
const KEYS: [&str; 15] = [
    "url",
    "patience",
    "data_dir",
    "metrics",
    "curve_key",
    "clients",
    "registry",
    "name",
    "advertise",
    "max_requests",
    "in_seconds",
    "limits",
    "bounds",
    "peers",
    "peers_url",
];

/// How many errors of one file are told; the rest are counted.
const ERRORS_MAX: usize = 20;

/// What a file says; what it does not say is `None` or empty.
///
/// ```
/// use zmqlocker::config_file::FileConfig;
///
/// let text = "url = \"tcp://127.0.0.1:7777\"\n[limits]\n\"tenant:*\" = \"10/s\"\n";
/// assert_eq!(FileConfig::parse("zmqlocker.toml", text)?.limits[0].0, "tenant:*");
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileConfig {
    /// Where to serve.
    pub url: Option<Url>,
    /// How long a request may wait for the slot in which it gets its permit.
    pub patience: Option<Duration>,
    /// Where the server keeps what outlives it.
    pub data_dir: Option<PathBuf>,
    /// The file of the server's secret key.
    pub curve_key: Option<PathBuf>,
    /// Which clients are let in.
    pub clients: Option<ClientList>,
    /// Where it is watched.
    pub metrics: Option<WatchAddress>,
    /// Where several servers keep who is home of what.
    pub registry: Option<RegistryUrl>,
    /// The name of the server among them.
    pub name: Option<ServerName>,
    /// Where the others and clients find it.
    pub advertise: Option<Url>,
    /// The limit of each key without a rule.
    pub rate: Option<Rate>,
    /// The rules in the order of the file, each for a key or a pattern; [`Rules::new`] takes them.
    pub limits: Vec<(String, Limits)>,
    /// How much the server holds.
    pub bounds: SomeBounds,
    /// The servers that count for each other with this one.
    pub peers: Option<Vec<Url>>,
    /// Where this one tells them what it grants.
    pub peers_url: Option<Url>,
}

/// Which clients are let in by a server with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientList {
    /// Whoever knows the server's public key.
    Anybody,
    /// Those of a file.
    File(PathBuf),
}

impl From<PathBuf> for ClientList {
    /// A path, or `*` for anybody.
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "*" { Self::Anybody } else { Self::File(path) }
    }
}

impl FileConfig {
    /// The longest text of a file, in bytes.
    pub const TEXT_BYTES_MAX: usize = 1 << 20;

    /// Reads the text of the file that errors call `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for `config`, whose problem has a line for each error, in the order of
    /// the file: its name, the line and the column, both from 1, and what is wrong there.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        Errors::parse("config", name, text, Self::TEXT_BYTES_MAX, Errors::file)
    }
}

/// What is wrong in a file of TOML, each with its place in bytes.
pub(crate) struct Errors(Vec<(usize, String)>);

impl Errors {
    /// Reads the text of a file of at most `bytes_max` bytes. Errors are for `argument`, and call
    /// the file `name`.
    pub(crate) fn parse<T: Default>(
        argument: &'static str,
        name: &str,
        text: &str,
        bytes_max: usize,
        read: impl FnOnce(&mut Self, &DeTable<'_>) -> T,
    ) -> Result<T, Error> {
        if text.len() > bytes_max {
            let length = text.len();
            let problem = format!("{name}:1:1: must be at most {bytes_max} bytes, not {length}");
            return Err(Error::Config { argument, problem });
        }
        let mut errors = Self(Vec::new());
        let (table, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            errors.0.push((error.span().map_or(0, |span| span.start), error.message().to_owned()));
        }
        // What is read past an error of syntax may not be what was meant.
        let all = if syntax.is_empty() { read(&mut errors, table.get_ref()) } else { T::default() };
        errors.finish(argument, name, text).map(|()| all)
    }

    fn file(&mut self, table: &DeTable<'_>) -> FileConfig {
        self.refuse_unknown(table, &KEYS);
        FileConfig {
            url: self.value(table, "url", |_, value| Url::parse(string("url", value)?)),
            patience: self.value(table, "patience", |argument, value| {
                Span::NotNegative.parse(argument, seconds(argument, value)?)
            }),
            data_dir: self.value(table, "data_dir", |argument, value| {
                path(argument, "the path of a folder", value)
            }),
            metrics: self.value(table, "metrics", |argument, value| {
                WatchAddress::parse(string(argument, value)?)
            }),
            curve_key: self.value(table, "curve_key", |argument, value| {
                path(argument, "the path of a file", value)
            }),
            clients: self.value(table, "clients", |argument, value| {
                path(argument, "the path of a file, or \"*\"", value).map(ClientList::from)
            }),
            registry: self.value(table, "registry", |argument, value| {
                RegistryUrl::parse(string(argument, value)?)
            }),
            name: self.value(table, "name", |argument, value| {
                ServerName::parse(string(argument, value)?)
            }),
            advertise: self.value(table, "advertise", |argument, value| {
                parse_advertise(string(argument, value)?)
            }),
            rate: self.rate(table),
            limits: self.limits(table),
            bounds: self.bounds(table),
            peers: self.value(table, "peers", |argument, value| match value {
                DeValue::Array(urls) => {
                    let url = |url: &Spanned<_>| PeersConfig::peer(string("peers", url.get_ref())?);
                    urls.iter().map(url).collect()
                }
                other => wrong_type(argument, "a list of strings", other),
            }),
            peers_url: self.value(table, "peers_url", |_, value| {
                PeersConfig::own(string("peers_url", value)?)
            }),
        }
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn value<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        read: impl FnOnce(&'static str, &DeValue<'_>) -> Result<T, Error>,
    ) -> Option<T> {
        let value = table.get(key)?;
        self.keep(value.span().start, read(key, value.get_ref()))
    }

    fn rate(&mut self, table: &DeTable<'_>) -> Option<Rate> {
        let (max_requests, in_seconds) = ("max_requests", "in_seconds");
        for (key, other) in [(max_requests, in_seconds), (in_seconds, max_requests)] {
            if let Some((there, _)) = table.get_key_value(key)
                && !table.contains_key(other)
            {
                self.add(there, format!("{key} needs {other} beside it"));
            }
        }
        // Each is checked beside a value of the other that is right, so that each error is told.
        let requests = self.value(table, max_requests, |argument, value| {
            let number = integer(argument, value)?;
            Rate::new(number, 1.0).map(|_| number)
        });
        let seconds = self.value(table, in_seconds, |argument, value| {
            Span::Positive.parse(argument, seconds(argument, value)?)
        });
        Rate::from_duration(requests?, seconds?).ok()
    }

    fn limits(&mut self, table: &DeTable<'_>) -> Vec<(String, Limits)> {
        let Some(rules) = self.table(table, "limits") else { return Vec::new() };
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_by_key(|(pattern, _)| pattern.span().start);
        let (mut all, mut known) = (Vec::new(), Rules::default());
        for (pattern, value) in rules {
            let Some(limits) = self.limits_of(pattern.get_ref(), value) else { continue };
            let added = known.add(pattern.get_ref().to_string(), limits.clone());
            if self.keep(pattern.span().start, added).is_some() {
                all.push((pattern.get_ref().to_string(), limits));
            }
        }
        all
    }

    /// The limits of one rule: a text or a list of texts.
    fn limits_of(&mut self, pattern: &str, value: &Spanned<DeValue<'_>>) -> Option<Limits> {
        let texts = match value.get_ref() {
            DeValue::String(_) => std::slice::from_ref(value),
            DeValue::Array(texts) => &texts[..],
            other => {
                let hint = if matches!(other, DeValue::Table(_)) {
                    "; a key with a dot needs quotes"
                } else {
                    ""
                };
                let found = type_name(other);
                self.add(
                    value,
                    format!(
                        "limits of {pattern:?} must be a string or a list of strings, not \
                         {found}{hint}"
                    ),
                );
                return None;
            }
        };
        let limits: Vec<Option<Limit>> = texts
            .iter()
            .map(|text| {
                let limit = string("limit", text.get_ref()).and_then(str::parse);
                self.keep(text.span().start, limit)
            })
            .collect();
        let limits: Option<Vec<Limit>> = limits.into_iter().collect();
        self.keep(value.span().start, Limits::new(limits?))
    }

    fn bounds(&mut self, table: &DeTable<'_>) -> SomeBounds {
        let mut bounds = SomeBounds::default();
        let Some(table) = self.table(table, "bounds") else { return bounds };
        self.refuse_unknown(table, Bounds::NAMES);
        for name in Bounds::NAMES {
            self.value(table, name, |argument, value| bounds.set(name, integer(argument, value)?));
        }
        bounds
    }

    /// The table of this name, if there is one.
    pub(crate) fn table<'a, 'i>(
        &mut self,
        table: &'a DeTable<'i>,
        key: &'static str,
    ) -> Option<&'a DeTable<'i>> {
        let value = table.get(key)?;
        match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            other => self.keep(value.span().start, wrong_type(key, "a table", other)),
        }
    }

    pub(crate) fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let text: &str = key.get_ref();
            if known.contains(&text) {
                continue;
            }
            let distance = |known: &&&str| strsim::osa_distance(known, text);
            let nearest = known.iter().min_by_key(distance);
            self.add(
                key,
                match nearest.filter(|nearest| distance(nearest) <= 1 + nearest.len() / 4) {
                    Some(nearest) => format!("unknown key {text:?}: did you mean {nearest:?}?"),
                    None => format!("unknown key {text:?}: there are {}", known.join(", ")),
                },
            );
        }
    }

    /// The value, or none and one error more.
    pub(crate) fn keep<T>(&mut self, at: usize, value: Result<T, Error>) -> Option<T> {
        value.map_err(|error| self.0.push((at, error.to_string()))).ok()
    }

    pub(crate) fn add<T>(&mut self, there: &Spanned<T>, problem: String) {
        self.0.push((there.span().start, problem));
    }

    fn finish(mut self, argument: &'static str, name: &str, text: &str) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        let told = self.0.iter().take(ERRORS_MAX).map(|(at, problem)| {
            let (line, column) = place(text, *at);
            format!("{name}:{line}:{column}: {problem}")
        });
        let mut lines: Vec<String> = told.collect();
        if self.0.len() > ERRORS_MAX {
            lines.push(format!("{name}: and {} errors more", self.0.len() - ERRORS_MAX));
        }
        Err(Error::Config { argument, problem: lines.join("\n") })
    }
}

/// The line and the column of a place in bytes, both from 1; a column is a character.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = String::from_utf8_lossy(&text.as_bytes()[..at.min(text.len())]);
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    (before.split('\n').count(), column)
}

pub(crate) fn string<'a>(argument: &'static str, value: &'a DeValue<'_>) -> Result<&'a str, Error> {
    value.as_str().map_or_else(|| wrong_type(argument, "a string", value), Ok)
}

fn path(argument: &'static str, right: &str, value: &DeValue<'_>) -> Result<PathBuf, Error> {
    let path = string(argument, value)?;
    if path.is_empty() || path.contains('\0') {
        let problem = format!("must be {right}, not {path:?}");
        return Err(Error::Config { argument, problem });
    }
    Ok(path.into())
}

fn integer(argument: &'static str, value: &DeValue<'_>) -> Result<i128, Error> {
    let Some(integer) = value.as_integer() else {
        return wrong_type(argument, "a whole number", value);
    };
    i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Error::Config {
        argument,
        problem: format!("must be a number of fewer digits than {}", integer.as_str()),
    })
}

/// Seconds, written with a point or without.
fn seconds(argument: &'static str, value: &DeValue<'_>) -> Result<f64, Error> {
    let text = match value {
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Integer(_) => integer(argument, value)?.to_string(),
        other => return wrong_type(argument, "a number of seconds", other),
    };
    text.parse().or_else(|_| wrong_type(argument, "a number of seconds", value))
}

fn wrong_type<T>(argument: &'static str, right: &str, value: &DeValue<'_>) -> Result<T, Error> {
    let problem = format!("must be {right}, not {}", type_name(value));
    Err(Error::Config { argument, problem })
}

pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
