//! The log of the command: lines on the standard error, for people or for programs.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use log::kv::{Error, Key, Source, ToKey, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::cli::json::{Object, document};
use crate::log_queue::LogQueue;
use crate::net::unix_time;

/// How long the end of the command waits for the log to be written out.
const GRACE: Duration = Duration::from_secs(1);

/// What is logged, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub(super) struct LogOptions {
    /// How a line of the log reads, on the standard error: for people, or one JSON object a line.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "ZMQLOCKER_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: Format,
    /// What is logged: this and what weighs more.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "ZMQLOCKER_LOG_LEVEL",
        hide_env_values = true,
        value_parser = PossibleValuesParser::new(["off", "error", "warn", "info", "debug"])
            .try_map(|level| level.parse::<LevelFilter>())
    )]
    log_level: LevelFilter,
}

impl LogOptions {
    /// Logs from now on.
    pub(super) fn start(&self, take_log: impl FnOnce(Box<dyn Log>)) {
        take_log(Box::new(Logger::start(self.log_format)));
        log::set_max_level(self.log_level);
    }
}

/// How a line reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Format {
    /// A line, with its end.
    fn line(self, time: Duration, level: Level, text: &str, fields: &dyn Source) -> String {
        match self {
            // A line stays one, whatever clients call themselves.
            Self::Text => {
                let text = text.replace(char::is_control, "\u{fffd}");
                format!("{} {level:5} {text}\n", Time(time))
            }
            Self::Json => {
                let mut object = Object::new()
                    .with("time", &Time(time).to_string())
                    .with("level", &level.as_str().to_lowercase())
                    .with("message", text);
                // What reads the fields here fails at none.
                let _ = fields.visit(&mut Members(&mut object));
                document(&object) + "\n"
            }
        }
    }
}

/// Writes what this crate logs, in a thread of its own: a standard error that nobody reads does not
/// hold up the server.
struct Logger {
    format: Format,
    lines: LogQueue<String>,
}

impl Logger {
    fn start(format: Format) -> Self {
        let write = |line: String| {
            // Where it goes cannot be helped.
            let _ = io::stderr().write_all(line.as_bytes());
        };
        let lost_line = move |lost| {
            let text = format!("{lost} log lines were lost: the standard error is slow");
            let fields = [("event", Value::from("lost_lines")), ("lost", Value::from(lost))];
            format.line(unix_time(), Level::Warn, &text, &fields)
        };
        Self { format, lines: LogQueue::start(write, lost_line) }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "zmqlocker"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            self.lines.put(self.format.line(
                unix_time(),
                record.level(),
                &text,
                record.key_values(),
            ));
        }
    }

    /// Writes out what waits; what is logged later is dropped.
    fn flush(&self) {
        self.lines.finish(GRACE);
    }
}

/// The fields of a line, as members of its object.
struct Members<'a>(&'a mut Object);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        value.visit(Member(self.0, key.to_key().as_str()))
    }
}

/// One of them.
struct Member<'a>(&'a mut Object, &'a str);

impl VisitValue<'_> for Member<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0.add(self.1, &value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0.add(self.1, &None::<u64>);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0.add(self.1, &value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0.add(self.1, &value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0.add(self.1, &value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0.add(self.1, &value);
        Ok(())
    }
}

/// A time of day since 1970, as RFC 3339 writes it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
        let millis = self.0.subsec_millis();
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

/// The date of a day since 1970: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`, for days that are not before it.
fn date(day: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day of leap years is their last.
    let since_era = day + 719_468;
    let (era, day) = (since_era / 146_097, since_era % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + u64::from(is_next_year), month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_so() {
        let fields = [
            ("client", Value::from("a \"name\"")),
            ("address", Value::null()),
            ("patience", Value::from(0.2)),
            ("left_out", Value::from(7_u64)),
        ];
        let line =
            |format: Format| format.line(Duration::ZERO, Level::Warn, "one\n\u{1b}[2J", &fields);
        assert_eq!(line(Format::Text), "1970-01-01T00:00:00.000Z WARN  one\u{fffd}\u{fffd}[2J\n");
        assert_eq!(
            line(Format::Json),
            "{\"time\": \"1970-01-01T00:00:00.000Z\", \"level\": \"warn\", \
             \"message\": \"one\\n\\u001b[2J\", \"client\": \"a \\\"name\\\"\", \
             \"address\": null, \"patience\": 0.2, \"left_out\": 7}\n"
        );
    }

    #[test]
    fn a_time_is_written_as_rfc_3339_does() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Time(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
