//! `zmqlocker reset`, `freeze` and `set-limit`: change what holds for a key.

use clap::Args;

use crate::cli::client::{ClientOptions, ask, keys};
use crate::cli::json::Object;
use crate::cli::{Failure, Status};
use crate::config::Span;
use crate::engine::{Key, Limits, Request};

/// Forget what was used of keys, and that they were frozen. Leases stay.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker reset openai tenant:7

Exit status: 0 done, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Reset {
    /// The keys.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    options: ClientOptions,
}

impl Reset {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let requests = keys(&self.keys)?.into_iter().map(|key| (key, Request::Reset { key }));
        change(&self.options, requests)
    }
}

/// Let nobody have a permit of a key for a while, as after a 429.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker freeze openai 30

A freeze that lasts longer stays. `zmqlocker reset` ends it, and forgets what was used too.

Exit status: 0 done, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Freeze {
    /// The key.
    key: String,
    /// For how long, from now.
    #[arg(allow_negative_numbers = true)]
    seconds: f64,
    #[command(flatten)]
    options: ClientOptions,
}

impl Freeze {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let key = Key::parse(&self.key)?;
        let length = Span::Positive.parse("SECONDS", self.seconds)?;
        change(&self.options, [(key, Request::Freeze { key, length })])
    }
}

/// Give a key other limits, until the server is started anew. What was used stays used.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker set-limit openai '600/min sliding' '20 at once'

Exit status: 0 done, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct SetLimit {
    /// The key.
    key: String,
    /// Its limits, all of which must agree: "500/min", "10/s gcra burst 20", "20 at once".
    #[arg(value_name = "TEXT", required = true)]
    limits: Vec<String>,
    #[command(flatten)]
    options: ClientOptions,
}

impl SetLimit {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let key = Key::parse(&self.key)?;
        let limits: Vec<&str> = self.limits.iter().map(String::as_str).collect();
        Limits::parse(&limits)?;
        change(&self.options, [(key, Request::SetLimits { key, limits })])
    }
}

/// Changes one key after the other.
fn change<'a>(
    options: &ClientOptions,
    requests: impl IntoIterator<Item = (Key<'a>, Request<'a>)>,
) -> Result<Status, Failure> {
    let client = options.client()?;
    for (key, request) in requests {
        ask(&client, &request)?;
        options.print(&Object::new().with("key", key.as_str()).with("done", &true), "")?;
    }
    Ok(Status::Done)
}
