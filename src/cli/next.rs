//! `zmqlocker next`: asks a server, as the seed's client does.

use std::io::{self, Write};
use std::thread;

use clap::Args;

use crate::answer::Answer;
use crate::cli::{Failure, Status};
use crate::config::{ClientConfig, Span, Url};
use crate::net::{Client, unix_time};

/// Ask for a permit and print the time and the answer: "go" or "sorry".
#[derive(Args, Debug)]
pub(super) struct Next {
    /// A server; may be given several times.
    #[arg(long, default_value = "tcp://localhost:7777")]
    url: Vec<String>,
    /// How often to ask; the exit status tells of the last answer.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    repeat: u64,
    /// How long to pause between two requests.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, allow_negative_numbers = true)]
    every: f64,
    /// How long to wait for an answer; without it, until there is one.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<f64>,
}

impl Next {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let every = Span::NotNegative.parse("--every", self.every)?;
        let timeout = self.timeout.map(|timeout| Span::Positive.parse("--timeout", timeout));
        let urls = self.url.iter().map(|url| Url::parse(url)).collect::<Result<_, _>>()?;
        let client = Client::new(ClientConfig::new(urls, timeout.transpose()?)?)?;
        let mut last = Answer::Go;
        for request in 0..self.repeat {
            if request > 0 {
                pause(every);
            }
            last = client.next(client.timeout(), &mut || true)?;
            writeln!(io::stdout(), "{:.3} {last}", unix_time().as_secs_f64())?;
        }
        Ok(if last == Answer::Go { Status::Done } else { Status::Refused })
    }
}

/// There is no event to wait for: the pause itself is what was asked for.
#[allow(clippy::disallowed_methods)]
fn pause(length: std::time::Duration) {
    thread::sleep(length);
}
