//! `zmqlocker ping`: how long a server takes to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::client::ClientOptions;
use crate::cli::json::Object;
use crate::cli::signals::Signals;
use crate::cli::{Failure, Status};
use crate::config::Span;
use crate::error::Error;
use crate::net::{BootClock, Client};
use crate::time::Clock;

/// Measure how long a server takes to answer, as ping(8) does for hosts.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker ping --count 1 --timeout 2    # is it there?

The first round trip has the connection to make as well. Ctrl-C ends it with the summary.

Exit status: 0 at least one answer, 2 wrong usage, 3 no answer or another failure.")]
pub(super) struct Ping {
    /// How often to ask; 0 is until Ctrl-C.
    #[arg(short, long, value_name = "COUNT", default_value_t = 4)]
    count: u64,
    /// How long to pause after an answer.
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    interval: f64,
    #[command(flatten)]
    options: ClientOptions,
}

impl Ping {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let interval = Span::NotNegative.parse("--interval", self.interval)?;
        let client = self.options.client()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (told, stop) = mpsc::channel();
        let to_stop = Arc::clone(&stopped);
        let listener = Signals::hear(&[SIGINT, SIGTERM])?.act(move |_| {
            to_stop.store(true, Ordering::Release);
            told.send(()).is_ok()
        })?;
        let url = client.urls().first().map_or_else(String::new, ToString::to_string);
        let mut trips = Trips::default();
        while (self.count == 0 || trips.asked < self.count) && !stopped.load(Ordering::Acquire) {
            if trips.asked > 0 && stop.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            let heard = round_trip(&client, &stopped);
            if heard == Err(Error::Interrupted) {
                break;
            }
            let heard = trips.add(heard)?;
            let (json, text) = (object(trips.asked, &heard), line(trips.asked, &url, &heard));
            self.options.print(&json, &text)?;
        }
        listener.stop();
        self.options.print(&trips.object(), &trips.summary(&url))?;
        Ok(if trips.lengths.is_empty() { Status::Failed } else { Status::Done })
    }
}

/// Asks for something that costs the server nothing.
fn round_trip(client: &Client, stopped: &AtomicBool) -> Result<Duration, Error> {
    let started = BootClock.now();
    client.server_status(&mut || !stopped.load(Ordering::Acquire))?;
    Ok(BootClock.now().since(started))
}

/// How long one took, or why there was no answer.
type Trip = Result<Duration, String>;

fn line(sequence: u64, url: &str, trip: &Trip) -> String {
    match trip {
        Ok(length) => format!("{url}: {sequence} answered in {} ms\n", millis(*length)),
        Err(problem) => format!("{url}: {sequence} {problem}\n"),
    }
}

fn object(sequence: u64, trip: &Trip) -> Object {
    Object::new()
        .with("sequence", &sequence)
        .with("round_trip", &trip.as_ref().ok().copied())
        .with("problem", &trip.as_ref().err())
}

fn millis(length: Duration) -> String {
    format!("{:.3}", length.as_secs_f64() * 1e3)
}

/// How long the round trips took.
#[derive(Debug, Default)]
struct Trips {
    asked: u64,
    lengths: Vec<Duration>,
}

impl Trips {
    /// Counts one. No answer in time is what this is to find out; anything else ends it.
    fn add(&mut self, heard: Result<Duration, Error>) -> Result<Trip, Error> {
        self.asked += 1;
        match heard {
            Ok(length) => {
                self.lengths.push(length);
                Ok(Ok(length))
            }
            Err(error @ (Error::Unavailable { .. } | Error::Timeout { .. })) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.lengths.len()).ok().filter(|count| *count > 0)?;
        Some(self.lengths.iter().sum::<Duration>() / count)
    }

    /// The standard deviation.
    fn deviation(&self) -> Option<Duration> {
        let mean = self.mean()?.as_secs_f64();
        let square = |length: &Duration| (length.as_secs_f64() - mean).powi(2);
        #[allow(clippy::cast_precision_loss, reason = "nobody asks 2^52 times")]
        let count = self.lengths.len() as f64;
        let variance = self.lengths.iter().map(square).sum::<f64>() / count;
        Some(Duration::from_secs_f64(variance.sqrt()))
    }

    fn summary(&self, url: &str) -> String {
        let (asked, answered) = (self.asked, self.lengths.len());
        let mut text = format!("{url}: {asked} asked, {answered} answered\n");
        let (least, most) = (self.lengths.iter().min(), self.lengths.iter().max());
        if let (Some(least), Some(most), Some(mean), Some(deviation)) =
            (least, most, self.mean(), self.deviation())
        {
            let times = [*least, mean, *most, deviation].map(millis).join("/");
            text.extend(["round trip min/mean/max/deviation = ", &times, " ms\n"]);
        }
        text
    }

    fn object(&self) -> Object {
        Object::new()
            .with("asked", &self.asked)
            .with("answered", &self.lengths.len())
            .with("min", &self.lengths.iter().min().copied())
            .with("mean", &self.mean())
            .with("max", &self.lengths.iter().max().copied())
            .with("deviation", &self.deviation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::document;

    #[test]
    fn the_summary_reads_so() {
        let mut trips = Trips::default();
        for micros in [100, 200, 300] {
            let trip = trips.add(Ok(Duration::from_micros(micros))).unwrap();
            assert_eq!(trip, Ok(Duration::from_micros(micros)));
        }
        let silence = Error::Unavailable {
            servers: "a".to_owned(),
            timeout: Duration::from_secs(1),
            problem: String::new(),
        };
        assert_eq!(trips.add(Err(silence)).unwrap(), Err("no answer from a within 1 s".to_owned()));
        assert!(trips.add(Err(Error::Closed)).is_err());
        trips.asked = 4;
        assert_eq!(
            trips.summary("a"),
            "a: 4 asked, 3 answered\n\
             round trip min/mean/max/deviation = 0.100/0.200/0.300/0.082 ms\n"
        );
        assert_eq!(
            document(&trips.object()),
            "{\"asked\": 4, \"answered\": 3, \"min\": 0.0001, \"mean\": 0.0002, \"max\": 0.0003, \
             \"deviation\": 0.00008165}"
        );
        assert_eq!(Trips::default().summary("a"), "a: 0 asked, 0 answered\n");
        assert_eq!(line(2, "a", &Ok(Duration::from_micros(1234))), "a: 2 answered in 1.234 ms\n");
    }
}
