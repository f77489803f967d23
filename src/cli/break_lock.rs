//! `zmqlocker break`: takes a lock from whoever holds it.

use clap::Args;

use crate::cli::client::{ClientOptions, ask};
use crate::cli::json::Object;
use crate::cli::{Failure, Status, complain};
use crate::engine::{Code, GrantId, Key, Request};
use crate::error::Error;

/// Take a lock from its holders, who are told. Whoever waits for it is next.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker break invoice:42 --token 4294967305

Exit status: 0 done, 1 nobody holds it, or not by that token, 2 wrong usage, 3 no server or \
another failure.")]
pub(super) struct Break {
    /// The lock.
    key: String,
    /// Only if its present holder has this fencing token, as `zmqlocker ls` shows it.
    #[arg(long, value_name = "NUMBER")]
    token: Option<u64>,
    #[command(flatten)]
    options: ClientOptions,
}

impl Break {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let request =
            Request::Break { key: Key::parse(&self.key)?, grant: self.token.map(GrantId) };
        let client = self.options.client()?;
        let status = match ask(&client, &request) {
            Err(Error::Refused(problem)) if problem.code == Code::NotHeld => {
                complain(&problem);
                Status::Refused
            }
            asked => asked.map(|_| Status::Done)?,
        };
        let answer = Object::new().with("key", &self.key).with("done", &(status == Status::Done));
        self.options.print(&answer, "")?;
        Ok(status)
    }
}
