//! `zmqlocker next`: asks a server, as the seed's client does.

use std::thread;
use std::time::Duration;

use clap::Args;

use crate::answer::Answer;
use crate::cli::client::{Reach, print};
use crate::cli::json::{Object, document};
use crate::cli::{Failure, Status};
use crate::config::Span;
use crate::net::unix_time;

/// Ask for a permit and print the time and the answer: "go" or "sorry".
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker next && echo 'our turn'

Exit status: 0 \"go\", 1 \"sorry\", 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Next {
    #[command(flatten)]
    reach: Reach,
    /// How often to ask; the exit status tells of the last answer.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    repeat: u64,
    /// How long to pause between two requests.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, allow_negative_numbers = true)]
    every: f64,
    /// How long to wait for an answer; without it, until there is one.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<f64>,
    /// One JSON object for each answer.
    #[arg(long)]
    json: bool,
}

impl Next {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let every = Span::NotNegative.parse("--every", self.every)?;
        let timeout = self.timeout.map(|timeout| Span::Positive.parse("--timeout", timeout));
        let client = self.reach.client_of_any(timeout.transpose()?)?;
        let mut last = Answer::Go;
        for request in 0..self.repeat {
            if request > 0 {
                pause(every);
            }
            last = client.next(client.timeout(), &mut || true)?;
            print(&if self.json { json_line(unix_time(), last) } else { line(unix_time(), last) })?;
        }
        Ok(if last == Answer::Go { Status::Done } else { Status::Refused })
    }
}

fn line(time: Duration, answer: Answer) -> String {
    format!("{:.3} {answer}\n", time.as_secs_f64())
}

fn json_line(time: Duration, answer: Answer) -> String {
    let millis = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    document(&Object::new().with("time", &millis).with("answer", &answer.to_string())) + "\n"
}

/// There is no event to wait for: the pause itself is what was asked for.
#[allow(clippy::disallowed_methods)]
pub(super) fn pause(length: Duration) {
    thread::sleep(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_so() {
        let time = Duration::from_nanos(1_798_761_599_001_999_999);
        assert_eq!(line(time, Answer::Go), "1798761599.002 go\n");
        let json = "{\"time\": 1798761599.001, \"answer\": \"sorry\"}\n";
        assert_eq!(json_line(time, Answer::Sorry), json);
    }
}
