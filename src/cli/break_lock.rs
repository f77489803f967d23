//! `zmqlocker break`: takes a lock from whoever holds it.

use clap::Args;

use crate::cli::{ANSWER_TIMEOUT, Failure, Status, complain};
use crate::config::{ClientConfig, Url};
use crate::engine::{Code, GrantId, Key, Request};
use crate::error::Error;
use crate::net::Client;

/// Take a lock from its holders, who are told. Whoever waits for it is next.
#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 done, 1 nobody holds it, or not by that token.")]
pub(super) struct Break {
    /// The lock.
    key: String,
    /// Only if its present holder has this fencing token, as `zmqlocker ls` shows it.
    #[arg(long, value_name = "NUMBER")]
    token: Option<u64>,
    /// The server.
    #[arg(long, default_value = "tcp://localhost:7777")]
    url: String,
}

impl Break {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let request =
            Request::Break { key: Key::parse(&self.key)?, grant: self.token.map(GrantId) };
        let urls = vec![Url::parse(&self.url)?];
        let client = Client::new(ClientConfig::new(urls, Some(ANSWER_TIMEOUT))?)?;
        match client.ask(&request, None, client.timeout(), &mut || true) {
            Err(Error::Refused(problem)) if problem.code == Code::NotHeld => {
                complain(&problem);
                Ok(Status::Refused)
            }
            asked => asked.map(|_| Status::Done).map_err(Failure::from),
        }
    }
}
