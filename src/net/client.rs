//! A client: what a caller holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::answer::Answer;
use crate::config::{ClientConfig, Url};
use crate::error::Error;
use crate::net::connections::Connections;
use crate::net::per_process::PerProcess;
use crate::wire::seed;

/// How much of an answer that is none is shown, in characters.
const QUOTE_MAX: usize = 200;

/// Asks servers for permits. All threads share one connection to each server, and none waits for
/// the answer of another. A forked child makes connections of its own.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    closed: AtomicBool,
    connections: PerProcess<Result<Connections, Error>>,
}

impl Client {
    /// A client that connects in the background; the servers need not be up yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that can never be connected to, [`Error::System`] if the system
    /// gives no sockets.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let client =
            Self { config, closed: AtomicBool::new(false), connections: PerProcess::new() };
        client.connections()?;
        Ok(client)
    }

    /// Asks for one permit and waits for the answer, at most for `timeout`; `None` is without an
    /// end. Between short slices of the wait, `go_on` is asked whether to wait any longer.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if no answer came in time, [`Error::Interrupted`] if `go_on` said no,
    /// [`Error::Closed`] if the client is closed, [`Error::Protocol`] if the answer is none.
    pub fn next(
        &self,
        timeout: Option<Duration>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Answer, Error> {
        let connections = self.connections()?;
        let answered = connections.ask(timeout, go_on)?;
        let (from, body) = answered.ok_or_else(|| Error::Timeout {
            servers: self.config.urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
            timeout: timeout.unwrap_or_default(),
            problem: connections.problems(),
        })?;
        seed::parse_answer(&body).ok_or_else(|| Error::Protocol {
            server: self.config.urls[from.0].to_string(),
            answer: String::from_utf8_lossy(&body).chars().take(QUOTE_MAX).collect(),
        })
    }

    /// Opens the connections of this process, if they are not open yet. Does not wait for a server.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed, [`Error::System`] if the system gives no sockets.
    pub fn open(&self) -> Result<(), Error> {
        self.connections().map(drop)
    }

    /// Ends all waits with [`Error::Closed`] and closes the connections.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(Ok(connections)) = self.connections.get() {
            connections.close();
        }
    }

    /// How long a call waits if it does not say so itself.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.config.timeout
    }

    /// The servers, in the order in which they were given.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.config.urls
    }

    fn connections(&self) -> Result<&Connections, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let open = || Connections::open(&self.config.urls);
        let connections = self.connections.get_or_init(open).as_ref().map_err(Error::clone)?;
        if self.closed.load(Ordering::Acquire) {
            // Closed while they were opened, by a thread that found nothing to close.
            connections.close();
        }
        Ok(connections)
    }
}
