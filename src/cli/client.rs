//! What all commands that ask a server have in common: which it is, who asks, and for how long.

use std::io::{self, Write};
use std::ops::Deref;
use std::time::Duration;

use clap::Args;

use crate::cli::Failure;
use crate::cli::json::{Json, document};
use crate::cli::keys::Keys;
use crate::config::{ClientConfig, Place, SECONDS_MAX, Span, Url};
use crate::engine::{Key, Reply, Request, Wait};
use crate::error::Error;
use crate::net::Client;

/// How long a server may take to answer what needs no wait.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take where nobody wants to wait.
const IMPATIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which server is asked, and who asks.
#[derive(Args, Debug)]
pub(super) struct Reach {
    /// The server. One at `*`, which is all addresses of this host, is asked at localhost.
    #[arg(
        long,
        env = "ZMQLOCKER_URL",
        hide_env_values = true,
        default_value = "tcp://localhost:7777"
    )]
    url: Vec<String>,
    /// The name under which others and the log see who asks.
    #[arg(long, env = "ZMQLOCKER_NAME", hide_env_values = true)]
    name: Option<String>,
    #[command(flatten)]
    keys: Keys,
}

impl Reach {
    /// A client of one server. It connects in the background, and the server need not be up yet.
    fn client(&self, timeout: Option<Duration>) -> Result<Asker, Error> {
        self.client_called("", timeout).map(Asker)
    }

    /// The same, under this name if there is no other.
    pub(super) fn client_called(
        &self,
        name: &str,
        timeout: Option<Duration>,
    ) -> Result<Client, Error> {
        if self.url.len() > 1 {
            let problem = "must be one: each server counts and locks for itself".to_owned();
            return Err(Error::Config { argument: "url", problem });
        }
        self.open(name, timeout)
    }

    /// A client of one server or several.
    pub(super) fn client_of_any(&self, timeout: Option<Duration>) -> Result<Asker, Error> {
        self.open("", timeout).map(Asker)
    }

    fn open(&self, name: &str, timeout: Option<Duration>) -> Result<Client, Error> {
        let urls = self.url.iter().map(|url| reachable(Url::parse(url)?));
        let config = ClientConfig::new(urls.collect::<Result<_, _>>()?, timeout)?;
        let config = config.named(self.name.as_deref().unwrap_or(name))?;
        Client::new(self.keys.give(config)?)
    }
}

/// A client that says goodbye: the server need not find out by itself that it is gone.
pub(super) struct Asker(Client);

impl Deref for Asker {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where a client finds a server that has this URL: both may be told it by the same environment.
fn reachable(url: Url) -> Result<Url, Error> {
    match url.place() {
        Place::Tcp { host: "*", port: Some(port) } => {
            Url::parse(&format!("tcp://localhost:{port}"))
        }
        _ => Ok(url),
    }
}

/// The options of a command that asks once, and is answered at once.
#[derive(Args, Debug)]
pub(super) struct ClientOptions {
    #[command(flatten)]
    pub(super) reach: Reach,
    /// How long the server may take to answer.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = ANSWER_TIMEOUT.as_secs_f64(),
        allow_negative_numbers = true
    )]
    timeout: f64,
    /// One JSON object for each answer, with times in seconds.
    #[arg(long)]
    pub(super) json: bool,
}

impl ClientOptions {
    /// How long the server may take.
    pub(super) fn timeout(&self) -> Result<Duration, Error> {
        Span::Positive.parse("--timeout", self.timeout)
    }

    /// A client of the server.
    pub(super) fn client(&self) -> Result<Asker, Error> {
        self.reach.client(Some(self.timeout()?))
    }

    /// A client of the server at another URL.
    pub(super) fn client_at(&self, url: &str) -> Result<Asker, Error> {
        let (name, keys) = (self.reach.name.clone(), self.reach.keys.clone());
        let reach = Reach { url: vec![url.to_owned()], name, keys };
        reach.client(Some(self.timeout()?))
    }

    /// Prints an answer for programs or for people.
    pub(super) fn print(&self, json: &impl Json, text: &str) -> Result<(), Failure> {
        print(&if self.json { document(json) + "\n" } else { text.to_owned() })
    }
}

/// Asks something, with the timeout of the client.
pub(super) fn ask(client: &Client, request: &Request<'_>) -> Result<Reply, Error> {
    Ok(client.ask(request, None, client.timeout(), &mut || true)?.reply)
}

/// Keys, as they stand on the command line.
pub(super) fn keys(texts: &[String]) -> Result<Vec<Key<'_>>, Error> {
    texts.iter().map(|text| Key::parse(text)).collect()
}

/// Prints at once, so that whoever reads along sees it.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}

/// How long to wait for what is not to be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Nothing,
    UpTo(Duration),
    Endless,
}

impl Patience {
    /// Reads a number of seconds, or the word for no end.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Endless);
        }
        let seconds = text.parse().map_err(|_| "must be a number or \"none\"".to_owned())?;
        let length = Span::NotNegative.parse("it", seconds).map_err(|error| error.to_string())?;
        Ok(if length.is_zero() { Self::Nothing } else { Self::UpTo(length) })
    }

    /// How long a request waits at the server.
    pub(super) fn wait(self) -> Wait {
        match self {
            Self::Nothing => Wait::No,
            Self::UpTo(length) => Wait::UpTo(length),
            Self::Endless => Wait::UpTo(Duration::from_secs_f64(SECONDS_MAX)),
        }
    }

    /// How long its answer is waited for; `None` is without an end.
    pub(super) const fn timeout(self) -> Option<Duration> {
        match self {
            Self::Nothing => Some(IMPATIENT_TIMEOUT),
            Self::UpTo(length) => Some(length),
            Self::Endless => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_or_the_word_for_no_end() {
        assert_eq!(Patience::parse("none"), Ok(Patience::Endless));
        assert_eq!(Patience::parse("0"), Ok(Patience::Nothing));
        assert_eq!(Patience::parse("1e-12"), Ok(Patience::UpTo(Duration::from_nanos(1))));
        for (bad, problem) in [
            ("soon", "must be a number or \"none\""),
            ("-1", "it must be from 0 and at most 1000000000 seconds, not -1.0"),
        ] {
            assert_eq!(Patience::parse(bad), Err(problem.to_owned()));
        }
    }

    #[test]
    fn a_server_at_all_addresses_is_asked_at_localhost() {
        for (url, found) in [
            ("tcp://*:7777", "tcp://localhost:7777"),
            ("tcp://db1:7777", "tcp://db1:7777"),
            ("ipc:///tmp/*", "ipc:///tmp/*"),
        ] {
            assert_eq!(reachable(Url::parse(url).unwrap()).unwrap().as_str(), found);
        }
    }
}
