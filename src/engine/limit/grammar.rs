//! Limits as text: one grammar for Python, files, the command line and logs.
//!
//! ```text
//! limit  = (rate [fixed | sliding | gcra [burst number]] | number "at" "once") ["shadow"]
//! rate   = number "/" [number ["." digits]] unit
//! number = digit {["_"] digit}
//! ```
//!
//! Spaces may stand between any two of these. Printing gives the shortest usual text, and parsing
//! is its inverse.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::limit::{AtOnce, Burst, Kind, Limit, Rate};
use crate::error::Error;

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// The units as they are read, each with its length in nanoseconds.
const UNITS: [(&str, u128); 14] = [
    ("s", SECOND),
    ("sec", SECOND),
    ("second", SECOND),
    ("seconds", SECOND),
    ("ms", SECOND / 1000),
    ("min", MINUTE),
    ("minute", MINUTE),
    ("minutes", MINUTE),
    ("h", HOUR),
    ("hour", HOUR),
    ("hours", HOUR),
    ("d", DAY),
    ("day", DAY),
    ("days", DAY),
];

/// The units as they are printed, the longest first.
const PRINTED: [(&str, u128); 4] = [("day", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND)];

/// How many digits behind the point are read.
const DECIMALS_MAX: usize = 18;

impl Limit {
    /// The longest text of a limit, in bytes.
    pub const TEXT_BYTES_MAX: usize = 256;
}

/// ```
/// use zmqlocker::engine::Limit;
///
/// let limit: Limit = "10/second  gcra burst 20".parse()?;
/// assert_eq!(limit.to_string(), "10/s gcra burst 20");
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
impl FromStr for Limit {
    type Err = Error;

    /// Reads a limit; lengths of time are rounded to the nearest nanosecond.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that points at the column that is wrong, and says what should be there.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > Self::TEXT_BYTES_MAX {
            let (bound, length) = (Self::TEXT_BYTES_MAX, text.len());
            let problem = format!("must be at most {bound} bytes, not {length}");
            return Err(Error::Config { argument: "limit", problem });
        }
        Reader { text, at: 0 }.limit()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::FixedWindow(rate) => rate.fmt(formatter)?,
            Kind::SlidingWindow(rate) => write!(formatter, "{rate} sliding")?,
            Kind::Gcra(rate, burst) if burst.get() == rate.max_requests() => {
                write!(formatter, "{rate} gcra")?;
            }
            Kind::Gcra(rate, burst) => write!(formatter, "{rate} gcra burst {}", burst.get())?,
            Kind::Concurrency(at_once) => write!(formatter, "{} at once", at_once.get())?,
        }
        if self.shadow { formatter.write_str(" shadow") } else { Ok(()) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.in_seconds().as_nanos();
        let whole = PRINTED.iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
        write!(formatter, "{}/", self.max_requests())?;
        match whole {
            Some((name, unit)) if nanos == *unit => formatter.write_str(name),
            Some((name, unit)) => write!(formatter, "{}{name}", nanos / unit),
            None => {
                let decimals = format!("{:09}", nanos % SECOND);
                write!(formatter, "{}.{}s", nanos / SECOND, decimals.trim_end_matches('0'))
            }
        }
    }
}

/// Reads a text from its start to its end.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn limit(mut self) -> Result<Limit, Error> {
        let start = self.word_start();
        let count = self.number()?;
        let kind = if self.take("/") {
            let length = self.length()?;
            let rate = Rate::from_duration(count, length);
            let rate = rate.map_err(|error| self.wrong(start, &error.to_string()))?;
            self.algorithm(rate)?
        } else if self.take("at") {
            if !self.take("once") {
                return Err(self.expected("\"once\""));
            }
            let at_once = AtOnce::new(count);
            Kind::Concurrency(at_once.map_err(|error| self.wrong(start, &error.to_string()))?)
        } else {
            return Err(self.expected("\"/\" or \"at once\""));
        };
        let shadow = self.take("shadow");
        if self.word_start() < self.text.len() {
            return Err(self.expected(match kind {
                _ if shadow => "the end",
                Kind::FixedWindow(_) => "\"sliding\", \"gcra\", \"shadow\" or the end",
                Kind::Gcra(..) => "\"burst\", \"shadow\" or the end",
                _ => "\"shadow\" or the end",
            }));
        }
        Ok(Limit { kind, shadow })
    }

    fn algorithm(&mut self, rate: Rate) -> Result<Kind, Error> {
        if self.take("sliding") {
            return Ok(Kind::SlidingWindow(rate));
        }
        if !self.take("gcra") {
            let _ = self.take("fixed");
            return Ok(Kind::FixedWindow(rate));
        }
        if !self.take("burst") {
            return Ok(Kind::Gcra(rate, Burst::new(rate.max_requests().into())?));
        }
        let start = self.word_start();
        let burst = Burst::new(self.number()?);
        Ok(Kind::Gcra(rate, burst.map_err(|error| self.wrong(start, &error.to_string()))?))
    }

    /// A length of time: a unit, or so many of it.
    fn length(&mut self) -> Result<Duration, Error> {
        let start = self.word_start();
        let (mut digits, mut decimals) = (1, 0);
        if self.peek().is_some_and(|next| next.is_ascii_digit()) {
            digits = self.number()?;
            if self.rest().starts_with('.') {
                self.at += 1;
                let part = self.rest().bytes().take_while(u8::is_ascii_digit).count();
                if part == 0 || part > DECIMALS_MAX {
                    return Err(self.expected("1 to 18 digits"));
                }
                // At most 18 digits fit.
                decimals = self.rest()[..part].parse::<u64>().unwrap_or(0)
                    * 10_u64.pow(u32::try_from(DECIMALS_MAX - part).unwrap_or(0));
                self.at += part;
            }
        }
        let name_start = self.word_start();
        let name = self.word();
        let Some((_, unit)) = UNITS.iter().find(|(unit, _)| *unit == name) else {
            self.at = name_start;
            return Err(self.expected("a unit (s, ms, min, h, day)"));
        };
        let billion_billion = 10_u128.pow(18);
        let whole = u128::try_from(digits).unwrap_or(u128::MAX).saturating_mul(*unit);
        let part = (u128::from(decimals) * unit + billion_billion / 2) / billion_billion;
        let nanos = u64::try_from(whole.saturating_add(part));
        nanos.map(Duration::from_nanos).map_err(|_| self.wrong(start, "is too long a time"))
    }

    /// A whole number; one that is too large for its bounds is found so by whoever asked.
    fn number(&mut self) -> Result<i128, Error> {
        self.at = self.word_start();
        let length = self.rest().bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
        let digits = &self.rest()[..length];
        let apart = digits.split('_').all(|group| !group.is_empty());
        if !apart {
            return Err(self.expected("a whole number"));
        }
        let number = digits.replace('_', "").parse().unwrap_or(i128::MAX);
        self.at += length;
        Ok(number)
    }

    /// Goes past `word` if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let before = self.at;
        self.at = self.word_start();
        let is_it = if word == "/" { self.rest().starts_with('/') } else { self.word() == word };
        if !is_it {
            self.at = before;
        } else if word == "/" {
            self.at += 1;
        }
        is_it
    }

    /// Goes past the letters that come next.
    fn word(&mut self) -> String {
        self.at = self.word_start();
        let length = self.rest().bytes().take_while(u8::is_ascii_alphabetic).count();
        let word = self.rest()[..length].to_owned();
        self.at += length;
        word
    }

    fn peek(&self) -> Option<char> {
        self.text[self.word_start()..].chars().next()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Where the next word begins.
    fn word_start(&self) -> usize {
        self.text.len() - self.rest().trim_start_matches(' ').len()
    }

    fn expected(&self, what: &str) -> Error {
        let start = self.word_start();
        let found: String = self.text[start..].split(' ').next().unwrap_or("").into();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        self.wrong(start, &format!("expected {what}, found {found}"))
    }

    fn wrong(&self, place: usize, problem: &str) -> Error {
        let column = self.text[..place].chars().count() + 1;
        let text = self.text;
        let problem = format!("must read like \"500/min\": column {column} of {text:?}: {problem}");
        Error::Config { argument: "limit", problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_printed_in_its_shortest_usual_form() {
        for (text, printed) in [
            ("500/min", "500/min"),
            ("5/0.8s", "5/0.8s"),
            (" 1_000 / 24 hours ", "1000/day"),
            ("100/15min fixed", "100/15min"),
            ("3/1500ms", "3/1.5s"),
            ("3/0.000000001s", "3/0.000000001s"),
            ("500/60s sliding", "500/min sliding"),
            ("10/s gcra", "10/s gcra"),
            ("10/s gcra burst 10", "10/s gcra"),
            ("10/s gcra burst 20 shadow", "10/s gcra burst 20 shadow"),
            ("20 at once", "20 at once"),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.to_string(), printed);
            assert_eq!(printed.parse::<Limit>().unwrap(), limit);
        }
    }

    #[test]
    fn an_error_points_at_the_column() {
        let start = "limit must read like \"500/min\": column";
        for (text, rest) in [
            ("", "1 of \"\": expected a whole number, found the end"),
            ("500", "4 of \"500\": expected \"/\" or \"at once\", found the end"),
            ("500/mn", "5 of \"500/mn\": expected a unit (s, ms, min, h, day), found \"mn\""),
            (
                "5/s often",
                "5 of \"5/s often\": expected \"sliding\", \"gcra\", \"shadow\" or the \
                           end, found \"often\"",
            ),
            ("2 at twice", "6 of \"2 at twice\": expected \"once\", found \"twice\""),
            ("0/s", "1 of \"0/s\": max_requests must be from 1 to 1000000000000, not 0"),
            (
                "1/s gcra burst 0",
                "16 of \"1/s gcra burst 0\": burst must be from 1 to \
                                  1000000000000, not 0",
            ),
            (
                "1/0s",
                "1 of \"1/0s\": in_seconds must be above 0 and at most 1000000000 seconds, \
                      not 0.0",
            ),
            ("-1/s", "1 of \"-1/s\": expected a whole number, found \"-1/s\""),
            ("é/s", "1 of \"é/s\": expected a whole number, found \"é/s\""),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert_eq!(error, format!("{start} {rest}"));
        }
    }
}
