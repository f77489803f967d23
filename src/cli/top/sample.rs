//! How things stand at a server, as one look finds them.

use std::time::Duration;

use crate::cli::client::Asker;
use crate::cli::json::Object;
use crate::cli::table::fitting;
use crate::cli::{ls, status};
use crate::engine::{ClientRow, Code, KeyRow, LockRow, ServerStatus};
use crate::error::Error;
use crate::net::BootClock;
use crate::observe::KEYS_MAX;
use crate::time::Clock;

/// How many of those who hold and wait for locks are asked for.
pub(super) const LOCK_ROWS_MAX: usize = 500;

/// How many clients are asked for.
pub(super) const CLIENTS_MAX: usize = 100;

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// What it does and has done.
    pub(super) status: ServerStatus,
    /// How long it took to answer the first question.
    pub(super) round_trip: Duration,
    /// The busiest keys, the busiest first.
    pub(super) keys: Vec<KeyRow>,
    /// Who holds locks, and who waits for them.
    pub(super) locks: Vec<LockRow>,
    /// The clients; `None` if whoever asks has no right to see others.
    pub(super) clients: Option<Vec<ClientRow>>,
}

impl Sample {
    /// Asks for all of it, for each thing with the timeout of the client.
    pub(super) fn ask(client: &Asker, go_on: &mut dyn FnMut() -> bool) -> Result<Self, Error> {
        let started = BootClock.now();
        let status = client.server_status(go_on)?;
        let round_trip = BootClock.now().since(started);
        let keys = client.busy_keys(KEYS_MAX, go_on)?;
        let locks = client.some_locks(LOCK_ROWS_MAX, go_on)?;
        let clients = match client.clients(CLIENTS_MAX, go_on) {
            Ok(rows) => Some(rows),
            Err(Error::Refused(problem)) if problem.code == Code::Auth => None,
            Err(error) => return Err(error),
        };
        Ok(Self { status, round_trip, keys, locks, clients })
    }

    /// All of it for people, in lines that fit.
    pub(super) fn text(&self) -> String {
        let mut text = status::lines(&self.status);
        text += &fitting(&format!("{:12}  {}", "round trip", millis(self.round_trip)));
        if !self.keys.is_empty() {
            text += "\n";
            text += &status::key_table(&self.keys);
        }
        text += "\n";
        text += &ls::table(&ls::by_key(self.locks.clone()));
        if let Some(clients) = self.clients.as_ref().filter(|clients| !clients.is_empty()) {
            text += "\n";
            text += &status::client_table(clients);
        }
        text
    }

    /// All of it for programs, with the names of the Python package.
    pub(super) fn object(&self) -> Object {
        let keys: Vec<_> = self.keys.iter().map(status::key).collect();
        let clients = self.clients.as_ref();
        let clients =
            clients.map(|rows| rows.iter().map(status::client_object).collect::<Vec<_>>());
        status::object(&self.status)
            .with("round_trip", &self.round_trip)
            .with("busy_keys", &keys)
            .with("locks", &ls::list(&ls::by_key(self.locks.clone())))
            .with("client_list", &clients)
    }
}

/// A round trip, in milliseconds.
pub(super) fn millis(length: Duration) -> String {
    format!("{:.2} ms", length.as_secs_f64() * 1e3)
}
